//! Reading many datagrams per system call.

use crate::{
    NetCounters, UdpSocket,
    wire::{Control, Name},
};
use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
    ptr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Messages per system call. With GRO each may be dozens of datagrams.
const MESSAGES: usize = 16;

/// Messages that are asked for while few come: preparing one that does not come costs time too.
const MESSAGES_MIN: usize = 2;

/// As long as a UDP datagram, or a run of them, can be.
const MESSAGE_BYTES: usize = 1 << 16;

/// No datagram waits for so long to be read: the clock of the stamps was set anew.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Buffers to read into, 1 MiB of addresses of which only what is used becomes memory. One per
/// thread serves all its sockets.
pub struct RecvBatch {
    bytes: Vec<u8>,
    names: [Name; MESSAGES],
    controls: [Control; MESSAGES],
    /// Length of each message, and the flags that the kernel set.
    lens: [(usize, i32); MESSAGES],
    /// Messages to ask for next, at most [`MESSAGES`]: twice what came last.
    asked: usize,
    /// See [`RecvBatch::was_filled`].
    was_filled: bool,
}

impl RecvBatch {
    /// Empty buffers.
    pub fn new() -> Self {
        Self {
            bytes: vec![0; MESSAGES * MESSAGE_BYTES],
            names: [Name::default(); MESSAGES],
            controls: [Control::default(); MESSAGES],
            lens: [(0, 0); MESSAGES],
            asked: MESSAGES_MIN,
            was_filled: false,
        }
    }

    /// Whether the last read found as much as it asked for, so that more may wait.
    pub fn was_filled(&self) -> bool {
        self.was_filled
    }

    /// One system call. Returns how many messages came.
    fn fill(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.was_filled = false;
        // SAFETY: both are structs of integers and pointers, for which zero is a valid value.
        let (mut headers, mut vectors): ([libc::mmsghdr; MESSAGES], [libc::iovec; MESSAGES]) =
            unsafe { std::mem::zeroed() };
        let bytes = self.bytes.chunks_exact_mut(MESSAGE_BYTES);
        let names = self.names.iter_mut().zip(&mut self.controls);
        let places = headers.iter_mut().zip(&mut vectors).zip(bytes).zip(names);
        for (((header, vector), bytes), (name, control)) in places.take(self.asked) {
            vector.iov_base = bytes.as_mut_ptr().cast();
            vector.iov_len = bytes.len();
            let header = &mut header.msg_hdr;
            header.msg_iov = ptr::from_mut(vector);
            header.msg_iovlen = 1;
            header.msg_name = name.bytes.as_mut_ptr().cast();
            header.msg_namelen = name.bytes.len() as libc::socklen_t;
            header.msg_control = control.bytes.as_mut_ptr().cast();
            header.msg_controllen = control.bytes.len() as _;
        }
        // SAFETY: there are `MESSAGES` headers, and the first `asked` are handed over, which is never
        // more (see below). Each of them points to one vector, one name and one control
        // buffer with their true lengths, and the vector to `MESSAGE_BYTES` bytes; all are borrowed
        // or owned here until after the call, and no two overlap. No timeout.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                self.asked as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        let count = usize::try_from(count).map_err(|_| io::Error::last_os_error())?;
        for (at, header) in headers.iter().take(count).enumerate() {
            self.names[at].len = header.msg_hdr.msg_namelen;
            self.controls[at].len = header.msg_hdr.msg_controllen as _;
            self.lens[at] = (header.msg_len as usize, header.msg_hdr.msg_flags);
        }
        self.was_filled = count == self.asked;
        self.asked = (2 * count).clamp(MESSAGES_MIN, MESSAGES);
        Ok(count)
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecvBatch")
    }
}

impl UdpSocket {
    /// Reads one batch and calls `handle(local, remote, datagram)` for each datagram. `local` is
    /// the address that it was sent to, with our port. Returns how many messages the kernel
    /// gave; 0 means that none waits.
    ///
    /// # Errors
    /// As `recvmmsg(2)`, except what is no failure of ours: an interruption, and what ICMP says of
    /// datagrams sent earlier.
    pub fn recv(
        &mut self,
        batch: &mut RecvBatch,
        mut handle: impl FnMut(SocketAddr, SocketAddr, &mut [u8]),
    ) -> io::Result<usize> {
        self.recv_stamped(batch, |local, remote, _, datagram| handle(local, remote, datagram))
    }

    /// As [`UdpSocket::recv`], with the time at which the kernel received the datagram, if it was
    /// told to stamp ([`UdpSocket::stamp_received`]).
    ///
    /// # Errors
    /// As [`UdpSocket::recv`].
    pub fn recv_stamped(
        &mut self,
        batch: &mut RecvBatch,
        mut handle: impl FnMut(SocketAddr, SocketAddr, Option<Instant>, &mut [u8]),
    ) -> io::Result<usize> {
        let count = match fill_despite_icmp(batch, self.descriptor.as_fd()) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(0),
            Err(error) => return Err(error),
        };
        self.counters.receive_calls += 1;
        let read = (Instant::now(), SystemTime::now());
        let messages = batch.bytes.chunks_exact_mut(MESSAGE_BYTES).zip(&batch.lens);
        let told = batch.names.iter().zip(&batch.controls);
        for ((bytes, &(len, flags)), (name, control)) in messages.zip(told).take(count) {
            let control = control.read();
            if let Some(overflow) = control.overflow {
                let lost = overflow.wrapping_sub(self.overflow_seen);
                self.overflow_seen = overflow;
                self.counters.receive_overflow += u64::from(lost);
            }
            let Some(remote) = name.decode() else {
                self.counters.receive_unaddressed += 1;
                continue;
            };
            let Some(bytes) = bytes.get_mut(..len).filter(|_| flags & libc::MSG_TRUNC == 0) else {
                self.counters.receive_truncated += 1;
                continue;
            };
            let arrived = control.stamp.and_then(|stamp| arrival(read, stamp));
            let mut local = self.local;
            if let Some(ip) = control.local {
                local.set_ip(ip);
            }
            let segment_len = control.segment_len.filter(|len| *len > 0).unwrap_or(len.max(1));
            for datagram in bytes.chunks_mut(segment_len) {
                count_datagram(&mut self.counters, datagram.len());
                handle(local, remote, arrived, datagram);
            }
        }
        Ok(count)
    }
}

/// When what the kernel stamped came, by the clock that does not jump. `read` is one moment by both
/// clocks.
fn arrival(read: (Instant, SystemTime), stamp: Duration) -> Option<Instant> {
    let waited = read.1.duration_since(UNIX_EPOCH.checked_add(stamp)?).ok()?;
    read.0.checked_sub(waited).filter(|_| waited < WAIT_MAX)
}

fn count_datagram(counters: &mut NetCounters, len: usize) {
    counters.received_datagrams += 1;
    counters.received_bytes += len as u64;
}

/// An ICMP error for something sent earlier is reported by the next call, once; the one after
/// works. More than a handful in a row is a failure.
fn fill_despite_icmp(batch: &mut RecvBatch, socket: BorrowedFd<'_>) -> io::Result<usize> {
    let mut attempts = 0;
    loop {
        let error = match batch.fill(socket) {
            Ok(count) => return Ok(count),
            Err(error) => error,
        };
        attempts += 1;
        match error.raw_os_error() {
            Some(
                libc::EINTR
                | libc::ECONNREFUSED
                | libc::EHOSTUNREACH
                | libc::ENETUNREACH
                | libc::EPROTO
                | libc::EMSGSIZE,
            ) if attempts < MESSAGES => {}
            _ => return Err(error),
        }
    }
}
