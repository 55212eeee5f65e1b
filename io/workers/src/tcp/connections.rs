//! The connections of one worker.

use super::{Incoming, Seat};
use parlor_model::{Path, TransportProtocol};
use parlor_net::{Readiness, TcpBuffer, TcpConnection, TcpCounters};
use parlor_ring::ring;
use parlor_sfu::{Run, Shard};
use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

/// Most connections of one worker.
pub const MAX_CONNECTIONS: usize = 8192;

/// A connection ends that has brought nothing for so long: a peer checks the path
/// in use every few seconds, and one that it only keeps every 25.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A connection ends that is no peer's for so long.
pub const UNKNOWN_TIMEOUT: Duration = Duration::from_secs(10);

/// How often that is looked at.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Reads of one connection in one turn; what is left waits for the next.
const READS_PER_TURN: usize = 4;

/// Datagrams that are gathered for one connection before they are sent.
const GATHERED: usize = 32;

/// What went through a worker's TCP connections, and what became of these.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct TcpPeerCounters {
    /// Datagrams and bytes.
    pub net: TcpCounters,
    /// Connections that are open.
    pub open: u64,
    /// Connections that were taken over.
    pub opened: u64,
    /// Closed by the peer, or lost.
    pub closed: u64,
    /// Cut: what came was not framed.
    pub malformed: u64,
    /// Cut: nothing came for [`IDLE_TIMEOUT`].
    pub idle: u64,
    /// Cut: no peer's for [`UNKNOWN_TIMEOUT`].
    pub unknown: u64,
    /// Cut: there are [`MAX_CONNECTIONS`], or no memory.
    pub refused: u64,
}

struct Open {
    connection: TcpConnection,
    path: Path,
    _seat: Seat,
    heard: Instant,
    /// When it was last a peer's, or was taken over.
    known: Instant,
    /// We are told when there is room to write.
    watches_room: bool,
}

pub(crate) struct Connections {
    incoming: ring::Receiver<Incoming>,
    readiness: Readiness,
    open: Vec<Option<Open>>,
    free: Vec<usize>,
    by_path: HashMap<Path, usize>,
    buffer: TcpBuffer,
    counters: TcpPeerCounters,
    sweep_at: Option<Instant>,
}

impl Connections {
    pub(crate) fn new(incoming: ring::Receiver<Incoming>) -> io::Result<Self> {
        Ok(Self {
            incoming,
            readiness: Readiness::new()?,
            open: Vec::new(),
            free: Vec::new(),
            by_path: HashMap::new(),
            buffer: TcpBuffer::new(),
            counters: TcpPeerCounters::default(),
            sweep_at: None,
        })
    }

    /// What to sleep on.
    pub(crate) fn source(&self) -> BorrowedFd<'_> {
        self.readiness.as_fd()
    }

    /// Whether connections wait to be taken over.
    pub(crate) fn has_incoming(&self) -> bool {
        !self.incoming.is_empty()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.sweep_at
    }

    pub(crate) fn counters(&self) -> TcpPeerCounters {
        TcpPeerCounters { open: self.by_path.len() as u64, ..self.counters }
    }

    /// Takes over what the acceptor has handed us, with the frame that it has read.
    pub(crate) fn take_incoming(&mut self, now: Instant, shard: &mut Shard) {
        while let Some(Incoming { connection, path, seat }) = self.incoming.pop() {
            if let Some(before) = self.by_path.get(&path).copied() {
                self.close(before);
                self.counters.closed += 1;
            }
            let place = self.free.pop().unwrap_or(self.open.len());
            let watched = self.readiness.add(&connection, place as u64);
            if place >= MAX_CONNECTIONS || watched.is_err() {
                self.counters.refused += 1;
                if place < self.open.len() {
                    self.free.push(place);
                }
                continue;
            }
            if place == self.open.len() {
                self.open.push(None);
            }
            self.by_path.insert(path, place);
            self.counters.opened += 1;
            self.sweep_at.get_or_insert(now + SWEEP_INTERVAL);
            let (heard, known, watches_room) = (now, now, false);
            let open = Open { connection, path, _seat: seat, heard, known, watches_room };
            if let Some(empty) = self.open.get_mut(place) {
                *empty = Some(open);
            }
            self.read(now, place, shard);
        }
    }

    /// Reads what is there, and sends what waited where there is room now.
    pub(crate) fn carry(&mut self, now: Instant, shard: &mut Shard) {
        if let Err(error) = self.readiness.look() {
            return tracing::error!("cannot look for what came over TCP: {error}");
        }
        for at in 0.. {
            let Some(ready) = self.readiness.ready(at) else { break };
            let place = ready.token as usize;
            if ready.writable {
                let flushed = self.get_mut(place).map(|open| open.connection.flush());
                self.after_sending(place, flushed);
            }
            if ready.readable {
                self.read(now, place, shard);
            }
        }
    }

    fn get_mut(&mut self, place: usize) -> Option<&mut Open> {
        self.open.get_mut(place)?.as_mut()
    }

    fn read(&mut self, now: Instant, place: usize, shard: &mut Shard) {
        for _ in 0..READS_PER_TURN {
            let Self { open, buffer, counters, .. } = self;
            let Some(Some(open)) = open.get_mut(place) else { return };
            let path = open.path;
            let read = open.connection.recv(buffer, |datagram| {
                shard.handle_datagram(now, path, datagram);
            });
            counters.net += open.connection.take_counters();
            match read {
                Ok(0) => return,
                Ok(_) => open.heard = now,
                Err(gone) => {
                    *match gone {
                        parlor_net::Gone::Closed => &mut counters.closed,
                        parlor_net::Gone::Malformed => &mut counters.malformed,
                    } += 1;
                    return self.close(place);
                }
            }
        }
    }

    /// Sends the runs that go over TCP, those of one connection together.
    pub(crate) fn send<'a>(&mut self, runs: impl Iterator<Item = Run<'a>>) {
        let mut gathered = [&[][..]; GATHERED];
        let (mut count, mut to) = (0, None);
        for run in runs.filter(|run| run.path.protocol == TransportProtocol::Tcp) {
            let Some(&place) = self.by_path.get(&run.path) else {
                self.counters.net.send_unconnected += run.datagrams().count() as u64;
                continue;
            };
            for datagram in run.datagrams() {
                if to != Some(place) || count == GATHERED {
                    self.send_gathered(to, gathered.get(..count).unwrap_or_default());
                    (to, count) = (Some(place), 0);
                }
                gathered[count] = datagram;
                count += 1;
            }
        }
        self.send_gathered(to, gathered.get(..count).unwrap_or_default());
    }

    fn send_gathered(&mut self, place: Option<usize>, datagrams: &[&[u8]]) {
        let Some(place) = place.filter(|_| !datagrams.is_empty()) else { return };
        let sent = self.get_mut(place).map(|open| open.connection.send(datagrams));
        if sent.is_none() {
            self.counters.net.send_unconnected += datagrams.len() as u64;
        }
        self.after_sending(place, sent);
    }

    fn after_sending(&mut self, place: usize, sent: Option<Result<bool, parlor_net::Gone>>) {
        let Some(sent) = sent else { return };
        let Self { open, readiness, counters, .. } = self;
        let Some(Some(open)) = open.get_mut(place) else { return };
        counters.net += open.connection.take_counters();
        let watched = match sent {
            Ok(waits) if waits != open.watches_room => {
                open.watches_room = waits;
                readiness.watch_room(&open.connection, place as u64, waits)
            }
            Ok(_) => return,
            Err(_) => Err(io::ErrorKind::ConnectionReset.into()),
        };
        if watched.is_err() {
            self.counters.closed += 1;
            self.close(place);
        }
    }

    fn close(&mut self, place: usize) {
        if let Some(open) = self.open.get_mut(place).and_then(Option::take) {
            if self.by_path.get(&open.path) == Some(&place) {
                self.by_path.remove(&open.path);
            }
            self.free.push(place);
        }
    }

    /// Cuts what has been silent or nobody's for too long.
    pub(crate) fn handle_timeout(&mut self, now: Instant, shard: &Shard) {
        if self.sweep_at.take_if(|at| *at <= now).is_none() {
            return;
        }
        for place in 0..self.open.len() {
            let Some(open) = self.get_mut(place) else { continue };
            if shard.knows(open.path) {
                open.known = now;
            }
            let is_idle = now.saturating_duration_since(open.heard) >= IDLE_TIMEOUT;
            let is_unknown = now.saturating_duration_since(open.known) >= UNKNOWN_TIMEOUT;
            if is_idle || is_unknown {
                *if is_idle { &mut self.counters.idle } else { &mut self.counters.unknown } += 1;
                self.close(place);
            }
        }
        self.sweep_at = (!self.by_path.is_empty()).then_some(now + SWEEP_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_model::{ShardId, TransportAddress};
    use parlor_net::TcpListener;
    use parlor_sfu::{DtlsIdentity, ShardConfig};
    use std::{
        io::{Read, Write},
        net::TcpStream,
        sync::{Arc, atomic::AtomicUsize},
    };

    struct World {
        listener: TcpListener,
        handover: ring::Sender<Incoming>,
        connections: Connections,
        shard: Shard,
        taken: Arc<AtomicUsize>,
        now: Instant,
    }

    impl World {
        fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let (handover, incoming) = ring::channel(16);
            let shard = Shard::new(ShardConfig {
                id: ShardId(0),
                identity: DtlsIdentity::generate().unwrap(),
                local_addresses: vec![TransportAddress::tcp(listener.local_address())],
                seed: [1; 32],
            });
            let connections = Connections::new(incoming).unwrap();
            let taken = Arc::default();
            Self { listener, handover, connections, shard, taken, now: Instant::now() }
        }

        fn connect(&mut self) -> (TcpStream, Path) {
            let client = TcpStream::connect(self.listener.local_address()).unwrap();
            let connection = loop {
                if let Some(connection) = self.listener.accept().unwrap() {
                    break connection;
                }
            };
            let path = Path::tcp(connection.local_address(), connection.remote_address());
            let seat = Seat::take(&self.taken, 0).unwrap();
            self.handover.try_push(Incoming { connection, path, seat }).unwrap();
            self.connections.take_incoming(self.now, &mut self.shard);
            (client, path)
        }

        fn taken(&self) -> usize {
            self.taken.load(std::sync::atomic::Ordering::Relaxed)
        }
    }

    #[test]
    fn one_that_is_nobodys_is_cut_in_time_and_gives_up_its_seat() {
        let mut world = World::new();
        let (mut client, _) = world.connect();
        assert_eq!((world.taken(), world.connections.counters().open), (1, 1));
        let begin = world.now;
        while let Some(due) = world.connections.poll_timeout() {
            // It talks, but proves nothing.
            client.write_all(&[0, 1, 7]).unwrap();
            world.now = due;
            world.connections.carry(world.now, &mut world.shard);
            world.connections.handle_timeout(world.now, &world.shard);
        }
        assert_eq!(world.now - begin, UNKNOWN_TIMEOUT);
        let counters = world.connections.counters();
        assert_eq!((counters.unknown, counters.open, world.taken()), (1, 0, 0));
        assert!(matches!(client.read(&mut [0; 1]), Ok(0) | Err(_)));
    }

    #[test]
    fn a_place_is_used_again_and_a_path_belongs_to_its_newest_connection() {
        let mut world = World::new();
        let (first, path) = world.connect();
        let (second, _) = world.connect();
        drop(first);
        for _ in 0..1000 {
            world.connections.carry(world.now, &mut world.shard);
        }
        assert_eq!(world.connections.counters().closed, 1);
        assert!(!world.connections.by_path.contains_key(&path));
        let (_third, _) = world.connect();
        assert_eq!((world.connections.open.len(), world.taken()), (2, 2));
        drop(second);
    }

    #[test]
    fn what_is_sent_to_nobody_is_counted() {
        let mut world = World::new();
        let (_client, path) = world.connect();
        let other = Path { remote: "127.0.0.1:9".parse().unwrap(), ..path };
        let run = |path, bytes| Run { path, segment_bytes: 2, bytes };
        let udp = Path::udp(path.local, path.remote);
        world
            .connections
            .send([run(other, &b"aabb"[..]), run(path, b"cc"), run(udp, b"dd")].into_iter());
        let net = world.connections.counters().net;
        assert_eq!((net.send_unconnected, net.sent_datagrams, net.send_calls), (2, 1, 1));
    }
}
