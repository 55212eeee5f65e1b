//! Sending runs of datagrams.

use crate::{
    NetCounters, UdpSocket,
    poll::poll,
    wire::{Control, Name},
};
use std::{
    io,
    mem::{MaybeUninit, zeroed},
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    slice,
    time::{Duration, Instant},
};

/// Messages per system call.
const MESSAGES: usize = 64;

/// The kernel cuts a message into at most as many (`UDP_MAX_SEGMENTS` before Linux 6.9).
const MAX_SEGMENTS: usize = 64;

/// The longest message that the kernel takes: a UDP datagram over IPv4.
const MAX_MESSAGE_BYTES: usize = 65_507;

/// Datagrams to one destination that leave together.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The address to leave from; `None` lets the route decide. Only a socket that is bound to the
    /// wildcard address has a choice.
    pub local: Option<IpAddr>,
    /// Where to.
    pub remote: SocketAddr,
    /// The datagrams, one after the other.
    pub bytes: &'a [u8],
    /// Length of each datagram but the last, which may be shorter; 0 means that `bytes` is one.
    pub segment_bytes: usize,
}

impl<'a> Run<'a> {
    fn datagrams(&self) -> usize {
        self.bytes.len().div_ceil(self.segment_bytes.max(1))
    }

    /// The same datagrams, at most `per_piece` in each piece.
    fn pieces(self, per_piece: usize) -> impl Iterator<Item = Run<'a>> {
        let pieces = self.bytes.chunks(self.segment_bytes.max(1).saturating_mul(per_piece.max(1)));
        pieces.map(move |bytes| Run { bytes, ..self })
    }
}

/// What became of the datagrams of one [`UdpSocket::send`].
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Sent {
    /// Taken by the kernel.
    pub datagrams: usize,
    /// Not taken, and lost; [`NetCounters`] has the cause of each.
    pub dropped: usize,
}

impl UdpSocket {
    /// Sends all runs, in order. When the send buffer is full it waits for room, in all at most
    /// for `patience`; what then has no place is dropped. So is what the kernel refuses. All is
    /// counted by cause.
    pub fn send<'a>(
        &mut self,
        runs: impl IntoIterator<Item = Run<'a>>,
        patience: Duration,
    ) -> Sent {
        let wildcard = self.local.ip().is_unspecified();
        let mut sending = Sending { socket: self, patience, give_up: None, sent: Sent::default() };
        let mut batch = Batch::new();
        for run in runs {
            let whole = if run.segment_bytes == 0 { run.bytes.len() } else { run.segment_bytes };
            let local = run.local.filter(|_| wildcard);
            let run = Run { segment_bytes: whole, local, ..run };
            let per_piece = if sending.socket.segmentation {
                MAX_SEGMENTS.min(MAX_MESSAGE_BYTES / whole.max(1))
            } else {
                1
            };
            for piece in run.pieces(per_piece) {
                if batch.is_full() {
                    sending.send_all(batch.runs());
                    batch.clear();
                }
                batch.push(piece);
            }
        }
        sending.send_all(batch.runs());
        sending.sent
    }
}

/// Up to [`MESSAGES`] runs, each to be one message.
struct Batch<'a> {
    runs: [MaybeUninit<Run<'a>>; MESSAGES],
    len: usize,
}

impl<'a> Batch<'a> {
    fn new() -> Self {
        Self { runs: [const { MaybeUninit::uninit() }; MESSAGES], len: 0 }
    }

    fn is_full(&self) -> bool {
        self.len == MESSAGES
    }

    fn push(&mut self, run: Run<'a>) {
        self.runs[self.len].write(run);
        self.len += 1;
    }

    fn clear(&mut self) {
        self.len = 0;
    }

    fn runs(&self) -> &[Run<'a>] {
        // SAFETY: the first `len` were written by `push`, and `Run` is `Copy`.
        unsafe { slice::from_raw_parts(self.runs.as_ptr().cast(), self.len) }
    }
}

/// One call of [`UdpSocket::send`] on its way.
struct Sending<'s> {
    socket: &'s mut UdpSocket,
    patience: Duration,
    /// When patience ends; counts from the first time that the buffer was full.
    give_up: Option<Instant>,
    sent: Sent,
}

impl Sending<'_> {
    /// Sends runs that are one message each.
    fn send_all(&mut self, mut runs: &[Run<'_>]) {
        let mut interruptions = 0;
        while let [first, rest @ ..] = runs {
            self.socket.counters.send_calls += 1;
            let error = match self.socket.buffers.send(self.socket.descriptor.as_fd(), runs) {
                Ok(count) => {
                    let (taken, left) = runs.split_at(count.min(runs.len()));
                    taken.iter().for_each(|run| self.count_sent(run));
                    runs = left;
                    interruptions = 0;
                    continue;
                }
                Err(error) => error.raw_os_error().unwrap_or(0),
            };
            match error {
                // A signal, or what ICMP says of a datagram sent earlier: said once, so try again.
                libc::EINTR | libc::ECONNREFUSED | libc::EPROTO if interruptions < MESSAGES => {
                    interruptions += 1;
                    continue;
                }
                libc::EAGAIN if self.wait_for_room() => continue,
                // No device on the way that could fill in checksums (EIO), or segments that do not
                // fit the path (EINVAL, EMSGSIZE): singly they may be fragmented.
                libc::EIO | libc::EINVAL | libc::EMSGSIZE if first.datagrams() > 1 => {
                    self.socket.counters.segmentation_refused += 1;
                    self.socket.segmentation &= error != libc::EIO;
                    first.pieces(1).for_each(|datagram| self.send_all(&[datagram]));
                }
                _ => self.count_dropped(first, error),
            }
            runs = rest;
            interruptions = 0;
        }
    }

    /// False when there is no patience left.
    fn wait_for_room(&mut self) -> bool {
        if self.patience.is_zero() {
            return false;
        }
        let now = Instant::now();
        let left = self.give_up.get_or_insert(now + self.patience).saturating_duration_since(now);
        let fd = self.socket.descriptor.as_raw_fd();
        let mut entry = [libc::pollfd { fd, events: libc::POLLOUT, revents: 0 }];
        !left.is_zero() && poll(&mut entry, Some(left)).is_ok()
    }

    fn count_sent(&mut self, run: &Run<'_>) {
        let counters = &mut self.socket.counters;
        counters.sent_messages += 1;
        counters.sent_datagrams += run.datagrams() as u64;
        counters.sent_bytes += run.bytes.len() as u64;
        self.sent.datagrams += run.datagrams();
    }

    fn count_dropped(&mut self, run: &Run<'_>, error: i32) {
        *cause(&mut self.socket.counters, error) += run.datagrams() as u64;
        self.sent.dropped += run.datagrams();
    }
}

fn cause(counters: &mut NetCounters, error: i32) -> &mut u64 {
    match error {
        libc::EAGAIN => &mut counters.send_would_block,
        libc::ENOBUFS | libc::ENOMEM => &mut counters.send_no_buffers,
        libc::EMSGSIZE => &mut counters.send_too_big,
        libc::ENETUNREACH
        | libc::EHOSTUNREACH
        | libc::ENETDOWN
        | libc::EHOSTDOWN
        | libc::EADDRNOTAVAIL
        | libc::EACCES
        | libc::EPERM => &mut counters.send_unreachable,
        _ => &mut counters.send_failed,
    }
}

/// Where the kernel finds the addresses and control messages of a system call.
#[derive(Debug)]
pub(crate) struct SendBuffers {
    names: Box<[Name]>,
    controls: Box<[Control]>,
}

impl SendBuffers {
    pub(crate) fn new() -> Self {
        Self {
            names: vec![Name::default(); MESSAGES].into(),
            controls: vec![Control::default(); MESSAGES].into(),
        }
    }

    /// One system call, each run a message, [`MESSAGES`] at most. Returns how many the kernel
    /// took, at least one.
    fn send(&mut self, socket: BorrowedFd<'_>, runs: &[Run<'_>]) -> io::Result<usize> {
        #[cfg(test)]
        tests::refuse(runs)?;
        let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; MESSAGES];
        let mut vectors = [const { MaybeUninit::<libc::iovec>::uninit() }; MESSAGES];
        let places = headers.iter_mut().zip(&mut vectors);
        let told = self.names.iter_mut().zip(&mut self.controls);
        for (run, ((header, vector), (name, control))) in runs.iter().zip(places.zip(told)) {
            *name = Name::encode(run.remote);
            control.len = 0;
            if let Some(source) = run.local {
                control.push_source(source);
            }
            if run.bytes.len() > run.segment_bytes {
                control.push_segment_bytes(run.segment_bytes as u16);
            }
            let vector = vector.write(libc::iovec {
                // The kernel only reads it; the type has no word for that.
                iov_base: run.bytes.as_ptr().cast_mut().cast(),
                iov_len: run.bytes.len(),
            });
            // SAFETY: a struct of integers and pointers, for which zero is a valid value.
            let header = &mut header.write(unsafe { zeroed() }).msg_hdr;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_name = name.bytes.as_mut_ptr().cast();
            header.msg_namelen = name.len;
            header.msg_control = control.bytes.as_mut_ptr().cast();
            header.msg_controllen = control.len as _;
        }
        // SAFETY: the loop has written the first `runs.len()` headers and vectors, at most
        // `MESSAGES`. Each header points to its own vector, name and control buffer with their
        // true lengths, and the vector to the bytes of its run; all outlive the call, and the
        // kernel only reads them.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr().cast(),
                runs.len().min(MESSAGES) as libc::c_uint,
                (libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) as _,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RecvBatch;
    use std::{cell::RefCell, collections::VecDeque};

    thread_local! {
        /// What the kernel is made to answer next; 0 lets the call through.
        static ANSWERS: RefCell<VecDeque<i32>> = const { RefCell::new(VecDeque::new()) };
    }

    pub(super) fn refuse(runs: &[Run<'_>]) -> io::Result<()> {
        assert!(runs.len() <= MESSAGES);
        match ANSWERS.with_borrow_mut(VecDeque::pop_front) {
            None | Some(0) => Ok(()),
            Some(error) => Err(io::Error::from_raw_os_error(error)),
        }
    }

    fn answer(errors: &[i32]) {
        ANSWERS.with_borrow_mut(|answers| answers.extend(errors));
    }

    fn pair() -> (UdpSocket, UdpSocket) {
        let address = "127.0.0.1:0".parse().unwrap();
        (UdpSocket::bind(address).unwrap(), UdpSocket::bind(address).unwrap())
    }

    fn run(to: &UdpSocket, bytes: &'static [u8], segment_bytes: usize) -> Run<'static> {
        Run { local: None, remote: to.local_address(), bytes, segment_bytes }
    }

    /// Loopback delivers before the send returns.
    fn received(socket: &mut UdpSocket) -> Vec<Vec<u8>> {
        let (mut batch, mut datagrams) = (RecvBatch::new(), Vec::new());
        while socket.recv(&mut batch, |_, _, bytes| datagrams.push(bytes.to_vec())).unwrap() > 0 {}
        datagrams
    }

    #[test]
    fn a_full_buffer_drops_and_counts_what_is_left() {
        let (mut from, mut to) = pair();
        answer(&[libc::EAGAIN]);
        let runs = [run(&to, b"aabbc", 2), run(&to, b"d", 0)];
        let sent = from.send(runs, Duration::ZERO);
        // One refusal costs one message, and the next is tried.
        assert_eq!(sent, Sent { datagrams: 1, dropped: 3 });
        assert_eq!(from.counters().send_would_block, 3);
        assert_eq!(received(&mut to), [b"d"]);
    }

    #[test]
    fn patience_waits_for_room_and_ends() {
        let (mut from, mut to) = pair();
        answer(&[libc::EAGAIN, libc::EAGAIN, 0]);
        let sent = from.send([run(&to, b"abc", 0)], Duration::from_secs(5));
        assert_eq!((sent.datagrams, sent.dropped), (1, 0));
        assert_eq!(received(&mut to), [b"abc"]);

        answer(&[libc::EAGAIN; 1 << 20]);
        let sent = from.send([run(&to, b"abc", 0)], Duration::from_millis(5));
        ANSWERS.take();
        assert_eq!((sent.datagrams, sent.dropped), (0, 1));
    }

    #[test]
    fn a_device_that_can_not_segment_is_served_singly_from_then_on() {
        let (mut from, mut to) = pair();
        if !from.segments() {
            return eprintln!("SKIPPED: this kernel has no UDP_SEGMENT");
        }
        answer(&[libc::EIO]);
        assert_eq!(from.send([run(&to, b"aabbc", 2)], Duration::ZERO).datagrams, 3);
        assert!(!from.segments());
        assert_eq!(received(&mut to), [&b"aa"[..], b"bb", b"c"]);
        assert_eq!(from.send([run(&to, b"ddeef", 2)], Duration::ZERO).datagrams, 3);
        assert_eq!(received(&mut to), [&b"dd"[..], b"ee", b"f"]);
        let counters = from.counters();
        assert_eq!((counters.segmentation_refused, counters.sent_messages), (1, 6));
    }

    #[test]
    fn a_run_that_does_not_fit_the_path_is_sent_singly_this_once() {
        let (mut from, mut to) = pair();
        answer(&[libc::EINVAL, libc::EMSGSIZE]);
        let segments = from.segments();
        let sent = from.send([run(&to, b"aab", 2), run(&to, b"c", 0)], Duration::ZERO);
        if segments {
            assert_eq!((sent.datagrams, sent.dropped), (2, 1));
            assert_eq!(from.counters().send_too_big, 1);
            assert!(from.segments());
            assert_eq!(received(&mut to), [b"b", b"c"]);
        }
        ANSWERS.take();
    }

    #[test]
    fn every_refusal_has_its_counter_and_hurts_no_other_run() {
        type Counter = fn(&NetCounters) -> u64;
        let causes: [(i32, Counter); 7] = [
            (libc::EAGAIN, |counters| counters.send_would_block),
            (libc::ENOBUFS, |counters| counters.send_no_buffers),
            (libc::ENOMEM, |counters| counters.send_no_buffers),
            (libc::EMSGSIZE, |counters| counters.send_too_big),
            (libc::ENETUNREACH, |counters| counters.send_unreachable),
            (libc::EPERM, |counters| counters.send_unreachable),
            (libc::EBADF, |counters| counters.send_failed),
        ];
        for (error, counter) in causes {
            let (mut from, mut to) = pair();
            answer(&[error]);
            let sent = from.send([run(&to, b"lost", 0), run(&to, b"next", 0)], Duration::ZERO);
            assert_eq!((sent.datagrams, sent.dropped), (1, 1));
            assert_eq!(counter(&from.counters()), 1, "errno {error}");
            assert_eq!(received(&mut to), [b"next"]);
        }
    }

    #[test]
    fn icmp_errors_of_earlier_datagrams_cost_nothing() {
        let (mut from, mut to) = pair();
        answer(&[libc::ECONNREFUSED, libc::EINTR]);
        assert_eq!(from.send([run(&to, b"abc", 0)], Duration::ZERO).datagrams, 1);
        assert_eq!(received(&mut to), [b"abc"]);
        answer(&[libc::ECONNREFUSED; MESSAGES + 1]);
        assert_eq!(from.send([run(&to, b"abc", 0)], Duration::ZERO).dropped, 1);
    }

    #[test]
    fn nothing_is_nothing() {
        let (mut from, mut to) = pair();
        assert_eq!(from.send([], Duration::ZERO), Sent::default());
        assert_eq!(
            from.send([run(&to, b"", 0), run(&to, b"", 7)], Duration::ZERO),
            Sent::default()
        );
        assert_eq!(from.counters().send_calls, 0);
        assert!(received(&mut to).is_empty());
    }
}
