//! The media thread's side.

use crate::{
    addresses::Addresses,
    config::Sockets,
    delay::{AddedDelay, DELAY_BOUNDS_US},
    handle::COMMAND_RING,
    link::Link,
    relay::{Passed, hand_over},
    reports::Reports,
    shared::{HandoverCounters, SharedPort},
    tcp::{Connections, TcpPeerCounters},
};
use parlor_model::{Path, TransportProtocol};
use parlor_net::{NetCounters, Poll, RecvBatch, Run, UdpSocket};
use parlor_ring::{Wakeup, ring};
use parlor_sfu::{
    Counters, Experiences, Held, LinkReport, SendBatch, Shard,
    command::{MediaCommand, MediaEvent},
};
use std::{
    iter,
    os::fd::AsFd,
    sync::Arc,
    time::{Duration, Instant},
};

/// Commands carried out in one turn, so that a burst of them does not hold up media.
const COMMANDS_PER_TURN: usize = 64;

/// Datagrams that the shard hands over at once.
const FLUSH_DATAGRAMS: usize = 256;

/// Times that it is asked for more in one turn, before we read again.
const FLUSHES_PER_TURN: usize = 8;

/// Batches of reports that one turn takes from a socket.
const REPORT_BATCHES: usize = 4;

const _: () = assert!(COMMAND_RING >= 4 * COMMANDS_PER_TURN, "see `take_commands`");

/// How long one flush waits when the send buffer is full, before it drops.
const SEND_PATIENCE: Duration = Duration::from_millis(10);

/// Media packets of a turn whose delay is measured.
const ARRIVALS_MAX: usize = 256;

/// How long what found a ring full waits before we try again to hand it over.
const RING_RETRY: Duration = Duration::from_millis(2);

/// How long we leave the sockets alone after one failed to read.
const RECEIVE_RETRY: Duration = Duration::from_millis(10);

/// What travels to a worker.
#[derive(Debug)]
pub(crate) enum ToWorker {
    Media(MediaCommand),
    Explain(Told<Vec<LinkReport>>),
    Count(Told<WorkerCounters>),
    #[cfg(test)]
    Panic,
    #[cfg(test)]
    Wait(std::sync::mpsc::Receiver<()>),
}

/// Who is to be told something, on the worker's thread.
pub(crate) struct Told<T>(pub Box<dyn FnOnce(T) + Send>);

impl<T> std::fmt::Debug for Told<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Told")
    }
}

/// What a worker has done and has not done, by cause.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct WorkerCounters {
    /// Its sockets together.
    pub net: NetCounters,
    /// Its TCP connections.
    pub tcp: TcpPeerCounters,
    /// Its shard.
    pub shard: Counters,
    /// Times that it woke and looked at everything.
    pub turns: u64,
    /// Turns that ended with events that the control thread had left no room for.
    pub turns_with_events_waiting: u64,
    /// Packets for other media threads that found no room.
    pub relays_lost: u64,
    /// What came here and was for other media threads.
    pub handovers: HandoverCounters,
    /// Reads that failed for a reason of our own machine.
    pub receive_failures: u64,
    /// Datagrams from an address of ours that no socket serves.
    pub send_unroutable: u64,
    /// How long media was in our hands.
    pub added_delay: AddedDelay,
    /// How long what waited for its turn waited.
    pub held: Held,
    /// What its peers experience.
    pub experiences: Experiences,
}

pub(crate) struct Worker {
    shard: Shard,
    sockets: Vec<UdpSocket>,
    reports: Reports,
    addresses: Addresses,
    tcp: Option<Connections>,
    relays: Vec<Link<Passed>>,
    shared: Option<SharedPort>,
    commands: ring::Receiver<ToWorker>,
    events: ring::Sender<MediaEvent>,
    notify: Arc<dyn Fn() + Send + Sync>,
    wakeup: Wakeup,
    poll: Poll,
    received: RecvBatch,
    to_send: SendBatch,
    counters: WorkerCounters,
    /// The command ring has been half full and is not yet half empty.
    behind: bool,
    /// When the kernel received the media packets of this turn.
    arrivals: Vec<Instant>,
}

/// One of our sockets, by its place.
#[derive(Clone, Copy)]
enum Source {
    Media(usize),
    Reports(usize),
}

/// Why a turn is to be followed by the next.
#[derive(Clone, Copy, Default)]
struct Outlook {
    /// There is more to do at once.
    more: bool,
    events_waiting: bool,
    receive_failed: bool,
}

impl Worker {
    pub(crate) fn new(
        shard: Shard,
        sockets: Sockets,
        addresses: Addresses,
        commands: ring::Receiver<ToWorker>,
        events: ring::Sender<MediaEvent>,
        notify: Arc<dyn Fn() + Send + Sync>,
        wakeup: Wakeup,
    ) -> Self {
        Self {
            shard,
            sockets: sockets.media,
            reports: sockets.reports,
            addresses,
            tcp: None,
            relays: Vec::new(),
            shared: None,
            commands,
            events,
            notify,
            wakeup,
            poll: Poll::new(),
            received: RecvBatch::new(),
            to_send: SendBatch::new(FLUSH_DATAGRAMS),
            counters: WorkerCounters::default(),
            behind: false,
            arrivals: Vec::with_capacity(ARRIVALS_MAX),
        }
    }

    /// Takes peers that come over TCP too.
    pub(crate) fn with_tcp(self, tcp: Option<Connections>) -> Self {
        Self { tcp, ..self }
    }

    /// Talks to the other media threads, with which it may share a port.
    pub(crate) fn with_links(
        mut self,
        relays: Vec<Link<Passed>>,
        shared: Option<SharedPort>,
    ) -> Self {
        if shared.is_some() {
            self.shard.share_port();
        }
        Self { relays, shared, ..self }
    }

    /// Until the control thread drops its end of the command ring.
    pub(crate) fn run(mut self) -> WorkerCounters {
        loop {
            // Before the last look at the ring: what was pushed before closing is then seen.
            let closing = self.commands.is_closed();
            let outlook = self.turn(Instant::now());
            if closing && !outlook.more {
                return self.totals();
            }
            if !closing {
                self.sleep(outlook);
            }
        }
    }

    fn turn(&mut self, now: Instant) -> Outlook {
        self.counters.turns += 1;
        let commands_left = self.take_commands(now);
        let receive_failed = self.receive(now);
        self.receive_tcp(now);
        let relayed_left = self.take_relays(now);
        if self.shard.poll_timeout().is_some_and(|at| at <= now) {
            self.shard.handle_timeout(now);
        }
        self.hand_over_relays();
        let sent_before = self.sent_datagrams();
        let unsent = self.flush(now);
        if self.sent_datagrams() != sent_before {
            self.measure_delay();
        }
        if let Some(tcp) = &mut self.tcp {
            tcp.handle_timeout(now, &self.shard);
        }
        // The flush may have found that a keyframe is needed.
        self.hand_over_relays();
        let events_waiting = self.hand_over_events();
        let more = commands_left || relayed_left || unsent;
        Outlook { more, events_waiting, receive_failed }
    }

    /// Whether there may be more of them.
    fn take_commands(&mut self, now: Instant) -> bool {
        let waiting = self.commands.len();
        for _ in 0..COMMANDS_PER_TURN {
            match self.commands.pop() {
                Some(ToWorker::Media(command)) => self.shard.handle_command(now, command),
                Some(ToWorker::Explain(Told(tell))) => tell(self.shard.explain(now)),
                Some(ToWorker::Count(Told(tell))) => tell(self.totals()),
                #[cfg(test)]
                Some(ToWorker::Panic) => panic!("told to"),
                #[cfg(test)]
                Some(ToWorker::Wait(held)) => drop(held.recv()),
                None => break,
            }
        }
        // The control thread queues commands when it finds the ring full, and sleeps. The ring
        // can not have been full without our seeing it half full, so this wakes it in time.
        self.behind |= waiting >= COMMAND_RING / 2;
        let left = self.commands.len();
        if self.behind && left < COMMAND_RING / 2 {
            self.behind = false;
            (self.notify)();
        }
        left > 0
    }

    /// Reads one batch of each socket that has something, and what reports wait. Whether that
    /// failed.
    fn receive(&mut self, now: Instant) -> bool {
        self.arrivals.clear();
        if let Some(shared) = &mut self.shared {
            shared.take();
        }
        let first = self.first_socket();
        let mut failed = false;
        for place in 0..self.sockets.len() {
            if self.poll.is_ready(first + place) {
                failed |= self.read(now, Source::Media(place)).is_none();
            }
        }
        failed |= self.receive_reports(now);
        if self.shared.is_some() {
            self.relays.iter_mut().for_each(Link::flush);
        }
        failed
    }

    /// Whether that failed.
    fn receive_reports(&mut self, now: Instant) -> bool {
        let are_due = self.reports.are_due(now);
        let first = self.first_socket() + self.sockets.len();
        let (mut were_read, mut count, mut are_left, mut failed) = (false, 0, false, false);
        for index in 0..self.reports.sockets.len() {
            let mut may_have_more = are_due || self.poll.is_ready(first + index);
            were_read |= may_have_more;
            for _ in 0..REPORT_BATCHES {
                if !may_have_more {
                    break;
                }
                let read = self.read(now, Source::Reports(index));
                count += read.unwrap_or(0);
                failed |= read.is_none();
                may_have_more = self.received.was_filled();
            }
            are_left |= may_have_more;
        }
        if were_read {
            self.reports.note_read(now, count, are_left);
        }
        failed
    }

    /// Reads one batch. How many messages came, `None` where that failed.
    fn read(&mut self, now: Instant, source: Source) -> Option<usize> {
        let Self { shard, sockets, reports, addresses, received, counters, arrivals, .. } = self;
        let Self { shared, relays, .. } = self;
        let (place, socket) = match source {
            Source::Media(place) => (place, sockets.get_mut(place)?),
            Source::Reports(index) => {
                reports.sockets.get_mut(index).map(|(place, socket)| (*place, socket))?
            }
        };
        let mut is_first = true;
        let read = socket.recv_stamped(received, |local, remote, arrived, datagram| {
            let path = Path::udp(addresses.incoming(place, local), remote);
            if let Some(shared) = shared {
                if std::mem::take(&mut is_first) {
                    shared.take();
                }
                if shared.hand_over(relays, path, arrived, datagram) {
                    return;
                }
            }
            note_arrival(arrivals, arrived, datagram);
            shard.handle_stamped(now, arrived.unwrap_or(now), path, datagram);
        });
        if let Err(error) = &read {
            counters.receive_failures += 1;
            if counters.receive_failures.is_power_of_two() {
                let (address, count) = (socket.local_address(), counters.receive_failures);
                tracing::error!(%address, count, "cannot read datagrams: {error}");
            }
        }
        read.ok()
    }

    /// Takes in what other threads have passed on. Whether there may be more.
    fn take_relays(&mut self, now: Instant) -> bool {
        let Self { shard, relays, arrivals, .. } = self;
        let mut left = false;
        for relay in relays {
            left |= relay.take(now, shard, |shard, mut datagram| {
                let (path, arrived) = (datagram.path, datagram.arrived);
                let datagram = datagram.bytes_mut();
                note_arrival(arrivals, arrived, datagram);
                shard.handle_stamped(now, arrived.unwrap_or(now), path, datagram);
            });
        }
        left
    }

    /// The place of the first UDP socket in what we sleep on: after wake-up and TCP, and before
    /// reports.
    fn first_socket(&self) -> usize {
        1 + usize::from(self.tcp.is_some())
    }

    fn hand_over_relays(&mut self) {
        self.counters.relays_lost += hand_over(&mut self.relays, &mut self.shard);
    }

    fn receive_tcp(&mut self, now: Instant) {
        let Some(tcp) = &mut self.tcp else { return };
        tcp.take_incoming(now, &mut self.shard);
        if self.poll.is_ready(1) {
            tcp.carry(now, &mut self.shard);
        }
    }

    /// Sends what the shard has. Whether there may be more.
    fn flush(&mut self, now: Instant) -> bool {
        for _ in 0..FLUSHES_PER_TURN {
            self.to_send.clear();
            let more = self.shard.flush(now, &mut self.to_send);
            if let Some(shared) = &mut self.shared {
                shared.tell(&mut self.shard);
            }
            self.send();
            if !more {
                return false;
            }
        }
        true
    }

    fn send(&mut self) {
        if self.to_send.is_empty() {
            return;
        }
        let Self { sockets, addresses, to_send, counters, tcp, .. } = self;
        let udp = || to_send.runs().filter(|run| run.path.protocol == TransportProtocol::Udp);
        for (index, socket) in sockets.iter_mut().enumerate() {
            let own = udp().filter_map(|run| match addresses.outgoing(run.path.local) {
                Some((socket, local)) if socket == index => Some(Run {
                    local,
                    remote: run.path.remote,
                    bytes: run.bytes,
                    segment_bytes: run.segment_bytes,
                }),
                _ => None,
            });
            socket.send(own, SEND_PATIENCE);
        }
        let unroutable = udp().filter(|run| addresses.outgoing(run.path.local).is_none());
        counters.send_unroutable +=
            unroutable.map(|run| run.datagrams().count() as u64).sum::<u64>();
        if let Some(tcp) = tcp {
            tcp.send(to_send.runs());
        }
    }

    fn sent_datagrams(&self) -> u64 {
        self.sockets.iter().map(|socket| socket.counters().sent_datagrams).sum()
    }

    fn measure_delay(&mut self) {
        if self.arrivals.is_empty() {
            return;
        }
        let sent = Instant::now();
        for arrived in self.arrivals.drain(..) {
            let us = sent.saturating_duration_since(arrived).as_micros();
            let us = u64::try_from(us).unwrap_or(u64::MAX);
            self.counters.added_delay.record(&DELAY_BOUNDS_US, us);
        }
    }

    /// Whether some had no room.
    fn hand_over_events(&mut self) -> bool {
        let mut pushed = false;
        while !self.events.is_full()
            && let Some(event) = self.shard.poll_event()
        {
            pushed |= self.events.try_push(event).is_ok();
        }
        if pushed {
            (self.notify)();
        }
        let full = self.events.is_full();
        self.counters.turns_with_events_waiting += u64::from(full);
        full
    }

    fn sleep(&mut self, outlook: Outlook) {
        self.wakeup.park();
        // The look after parking: what was pushed before the waker saw us parked.
        let (tcp, shared) = (self.tcp.as_ref(), self.shared.as_ref());
        let has_more = outlook.more
            || tcp.is_some_and(Connections::has_incoming)
            || self.relays.iter().any(Link::has_incoming)
            || shared.is_some_and(SharedPort::has_incoming);
        let timeout = if has_more || !self.commands.is_empty() || self.commands.is_closed() {
            Some(Duration::ZERO)
        } else {
            let now = Instant::now();
            let shard_due = self.shard.poll_timeout();
            let tcp_due = tcp.and_then(Connections::poll_timeout);
            let due = [shard_due, tcp_due, self.reports.poll_timeout()];
            let due = due.into_iter().flatten().min().map(|at| at.saturating_duration_since(now));
            let is_behind = outlook.events_waiting
                || self.relays.iter().any(Link::is_behind)
                || shared.is_some_and(SharedPort::is_behind);
            let events = is_behind.then_some(RING_RETRY);
            let sockets = outlook.receive_failed.then_some(RECEIVE_RETRY);
            [due, events, sockets].into_iter().flatten().min()
        };
        let sockets = self.sockets.iter().map(AsFd::as_fd).chain(self.reports.sources());
        let sockets = sockets.filter(|_| !outlook.receive_failed);
        let sources = iter::once(self.wakeup.as_fd()).chain(tcp.map(Connections::source));
        let waiting = self.poll.wait(sources.chain(sockets), timeout);
        self.wakeup.unpark();
        if self.poll.is_ready(0) {
            self.wakeup.clear();
        }
        if let Err(error) = waiting {
            // The kernel is out of memory. Without a pause this would be a busy loop.
            tracing::error!("cannot wait for datagrams: {error}");
            std::thread::sleep(RECEIVE_RETRY);
        }
    }

    fn totals(&self) -> WorkerCounters {
        let mut totals = self.counters;
        let reports = self.reports.sockets.iter().map(|(_, socket)| socket);
        self.sockets.iter().chain(reports).for_each(|socket| totals.net += socket.counters());
        totals.tcp = self.tcp.as_ref().map(Connections::counters).unwrap_or_default();
        totals.shard = *self.shard.counters();
        totals.handovers = self.shared.as_ref().map(SharedPort::counters).unwrap_or_default();
        totals.held = *self.shard.held();
        totals.experiences = *self.shard.experiences();
        totals
    }
}

/// Remembers when media came, to know how long we had it.
fn note_arrival(arrivals: &mut Vec<Instant>, arrived: Option<Instant>, datagram: &[u8]) {
    if let Some(arrived) = arrived.filter(|_| arrivals.len() < ARRIVALS_MAX && is_rtp(datagram)) {
        arrivals.push(arrived);
    }
}

/// RTP, and not RTCP (RFC 5761 section 4) or what is no media (RFC 7983).
fn is_rtp(datagram: &[u8]) -> bool {
    matches!(datagram, [128..=191, kind, ..] if !(64..=95).contains(&(kind & 0x7F)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Announced, WorkersConfig};
    use parlor_model::{DtlsRole, IceCredentials, PeerId, RemoteTransport, ShardId};
    use parlor_ring::wakeup;
    use parlor_sfu::{DtlsIdentity, ShardConfig, command::LocalTransport};
    use std::{
        net::{IpAddr, Ipv4Addr},
        sync::atomic::{AtomicUsize, Ordering},
    };

    /// What the control thread has of [`worker`].
    type Control = (ring::Sender<ToWorker>, ring::Receiver<MediaEvent>, Arc<AtomicUsize>);

    fn worker() -> (Worker, Control) {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let config = WorkersConfig {
            first_port: 0,
            shares_port: false,
            listen: vec![localhost],
            announced: vec![Announced::new(localhost)],
            tcp: None,
            identity: DtlsIdentity::generate().unwrap(),
            active_red_encoding: false,
            slow_reader_bps: 0,
            seeds: vec![[1; 32]],
        };
        let (sockets, addresses) = config.open().unwrap().remove(0);
        let shard = Shard::new(ShardConfig {
            id: ShardId(0),
            identity: config.identity,
            local_addresses: addresses.announced(TransportProtocol::Udp),
            seed: [1; 32],
        });
        let (commands, commands_out) = ring::channel(16);
        let (events, events_out) = ring::channel(2);
        let notified = Arc::new(AtomicUsize::new(0));
        let count = notified.clone();
        let notify = Arc::new(move || _ = count.fetch_add(1, Ordering::SeqCst));
        let (_, wakeup) = wakeup().unwrap();
        let worker = Worker::new(shard, sockets, addresses, commands_out, events, notify, wakeup);
        (worker, (commands, events_out, notified))
    }

    /// Nobody else wakes the worker.
    #[test]
    fn reports_that_come_often_are_all_read() {
        const HEAPS: u64 = 20;
        const IN_A_HEAP: u64 = 100;
        let (mut worker, control) = worker();
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let to = worker.sockets[0].local_address();
            let client = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            for heap in 1..=HEAPS {
                for _ in 0..IN_A_HEAP {
                    client.send_to(&[0x80, 201, 0, 1, 0, 0, 0, 0], to).unwrap();
                }
                while worker.totals().net.received_datagrams < heap * IN_A_HEAP {
                    let outlook = worker.turn(Instant::now());
                    worker.sleep(outlook);
                }
            }
            drop(control);
            tell.send(worker.totals().net).unwrap();
        });
        let net = told.recv_timeout(Duration::from_secs(60)).expect("it sleeps beside reports");
        assert_eq!(net.received_datagrams, HEAPS * IN_A_HEAP);
        assert!(net.receive_calls < net.received_datagrams / 4, "{}", net.receive_calls);
    }

    /// Peers that never come up fail by and by, each with an event.
    #[test]
    fn events_that_find_no_room_stay_and_come_in_order() {
        const PEERS: u64 = 7;
        let (mut worker, (mut commands, mut events_out, notified)) = worker();

        let start = Instant::now();
        for peer in (0..PEERS).map(PeerId) {
            let ice = IceCredentials { ufrag: format!("ufrag{peer}"), pwd: "p".repeat(22) };
            let local = Box::new(LocalTransport { ice, ice_lite: true, opens_channels: false });
            let open = ToWorker::Media(MediaCommand::OpenPeer { peer, local });
            commands.try_push(open).unwrap();
            let remote = Box::new(RemoteTransport {
                ice: IceCredentials { ufrag: "peer".into(), pwd: "p".repeat(22) },
                ice_lite: false,
                fingerprints: vec![],
                dtls_role: DtlsRole::Server,
                sctp: None,
            });
            let describe = ToWorker::Media(MediaCommand::SetRemote { peer, remote });
            commands.try_push(describe).unwrap();
        }
        assert!(!worker.turn(start).events_waiting);
        let mut failed = Vec::new();
        for second in 1..=300 {
            let outlook = worker.turn(start + Duration::from_secs(second));
            assert_eq!(outlook.events_waiting, events_out.len() == 2);
            if let Some(MediaEvent::PeerFailed { peer, .. }) = events_out.pop() {
                failed.push(peer.0);
            }
        }
        assert_eq!(failed.len(), PEERS as usize);
        failed.sort_unstable();
        failed.dedup();
        assert_eq!(failed.len(), PEERS as usize);
        assert!(worker.counters.turns_with_events_waiting > 0);
        assert!(notified.load(Ordering::SeqCst) > 0);
    }
}
