//! The thread that accepts.

use super::{Incoming, Seat};
use crate::addresses::Addresses;
use parlor_model::{Path, ShardId, TransportAddress, TransportProtocol};
use parlor_net::{Poll, TcpConnection, TcpListener};
use parlor_ring::{Waker, Wakeup, ring};
use parlor_sfu::stun_username_ufrag;
use std::{
    collections::{BTreeMap, VecDeque},
    iter,
    net::IpAddr,
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Most connections that have not said yet whose they are. The oldest goes for a new one.
pub const MAX_HALF_OPEN: usize = 1024;

/// How long a connection may take to say whose it is.
pub const FIRST_CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// Connections on their way to one worker.
pub const HANDOVER_RING: usize = 256;

/// Connections that are accepted before we look at those that we have.
const ACCEPTS_PER_TURN: usize = 64;

/// How long we leave a listener alone that failed: no descriptors are left.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Addresses that are remembered before those without a connection are forgotten.
const ADDRESSES_MAX: usize = 4 * MAX_HALF_OPEN;

/// Bounds of what one address may take; 0 is none. Loopback has none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpLimits {
    /// Most connections.
    pub connections_per_address: usize,
    /// Most of them that have not said yet whose they are.
    pub half_open_per_address: usize,
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// What became of connections before a worker had them.
        #[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
        pub struct HalfOpenCounters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl HalfOpenCounters {
            /// Name and value of each.
            pub fn entries(&self) -> Vec<(&'static str, u64)> {
                vec![$((stringify!($name), self.$name)),*]
            }
        }

        /// The same, shared with the threads that read them.
        #[derive(Default, Debug)]
        pub(crate) struct SharedCounters {
            $($name: AtomicU64,)*
        }

        impl SharedCounters {
            pub(crate) fn read(&self) -> HalfOpenCounters {
                HalfOpenCounters { $($name: self.$name.load(Ordering::Relaxed),)* }
            }
        }
    };
}

counters! {
    /// Accepted.
    accepted,
    /// Handed to a worker.
    handed_over,
    /// Cut: their address has too many.
    over_limit,
    /// Cut: too many were half-open.
    crowded_out,
    /// Cut: no check came in time.
    late,
    /// Cut: what came first was no check of a peer of ours.
    malformed,
    /// Closed by the other end.
    closed,
    /// Cut: their worker does not keep up.
    not_taken,
    /// Times that nothing could be accepted, for want of descriptors.
    accept_failures,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// A connection that has not said whose it is.
struct HalfOpen {
    connection: TcpConnection,
    path: Path,
    ip: IpAddr,
    seat: Seat,
    _half_seat: Seat,
    deadline: Instant,
}

/// What an address has.
#[derive(Default)]
struct OfAddress {
    connections: Arc<AtomicUsize>,
    half_open: Arc<AtomicUsize>,
}

/// What became of a half-open connection when it was looked at.
enum Fate {
    Waits,
    Goes(ShardId),
    Ends,
}

pub(crate) struct Acceptor {
    pub(crate) listeners: Vec<TcpListener>,
    pub(crate) addresses: Addresses,
    pub(crate) limits: TcpLimits,
    /// By the number of the shard.
    pub(crate) workers: Vec<(ring::Sender<Incoming>, Waker)>,
    pub(crate) wakeup: Wakeup,
    /// Closed when we are to end.
    pub(crate) stop: ring::Receiver<()>,
    pub(crate) counters: Arc<SharedCounters>,
}

impl Acceptor {
    /// The candidates of every worker.
    pub(crate) fn announced(addresses: &Addresses) -> Vec<TransportAddress> {
        addresses.announced(TransportProtocol::Tcp)
    }

    /// Until the control thread drops its end of `stop`.
    pub(crate) fn run(self) {
        let mut accepting = Accepting {
            by_address: BTreeMap::new(),
            half_open: VecDeque::new(),
            pause: None,
            acceptor: self,
        };
        let mut poll = Poll::new();
        while !accepting.acceptor.stop.is_closed() {
            accepting.sleep(&mut poll);
            accepting.turn(&poll, Instant::now());
        }
    }
}

struct Accepting {
    acceptor: Acceptor,
    by_address: BTreeMap<IpAddr, OfAddress>,
    /// The oldest first, so the first deadline too.
    half_open: VecDeque<HalfOpen>,
    /// Until when nothing is accepted.
    pause: Option<Instant>,
}

impl Accepting {
    fn sleep(&mut self, poll: &mut Poll) {
        let Acceptor { listeners, wakeup, stop, .. } = &mut self.acceptor;
        wakeup.park();
        let now = Instant::now();
        let first = self.half_open.front().map(|half_open| half_open.deadline);
        let next = [first, self.pause].into_iter().flatten().min();
        let timeout = match stop.is_closed() {
            true => Some(Duration::ZERO),
            false => next.map(|at| at.saturating_duration_since(now)),
        };
        let listening = listeners.iter().map(AsFd::as_fd).filter(|_| self.pause.is_none());
        let half_open = self.half_open.iter().map(|half_open| half_open.connection.as_fd());
        // Half-open ones first: their places must not depend on whether we accept.
        let sources = iter::once(wakeup.as_fd()).chain(half_open).chain(listening);
        let waiting = poll.wait(sources, timeout);
        wakeup.unpark();
        if poll.is_ready(0) {
            wakeup.clear();
        }
        if let Err(error) = waiting {
            tracing::error!("cannot wait for TCP connections: {error}");
            std::thread::sleep(ACCEPT_RETRY);
        }
    }

    fn turn(&mut self, poll: &Poll, now: Instant) {
        let known = self.half_open.len();
        for place in 0..known {
            // Those that wait go to the end, so their order stays.
            let Some(mut half_open) = self.half_open.pop_front() else { break };
            let fate = match poll.is_ready(1 + place) {
                true => self.look(&mut half_open),
                false => Fate::Waits,
            };
            match fate {
                Fate::Waits if half_open.deadline <= now => count(&self.acceptor.counters.late),
                Fate::Waits => self.half_open.push_back(half_open),
                Fate::Goes(shard) => self.hand_over(shard, half_open),
                Fate::Ends => {}
            }
        }
        if self.pause.take_if(|until| *until <= now).is_none() && self.pause.is_some() {
            return;
        }
        for listener in 0..self.acceptor.listeners.len() {
            self.accept(listener, now);
        }
    }

    fn look(&self, half_open: &mut HalfOpen) -> Fate {
        let counters = &self.acceptor.counters;
        match half_open.connection.first_frame() {
            Ok(None) => Fate::Waits,
            Ok(Some(frame)) => match stun_username_ufrag(frame).and_then(ShardId::of_ufrag) {
                Some(shard) => Fate::Goes(shard),
                None => {
                    count(&counters.malformed);
                    Fate::Ends
                }
            },
            Err(gone) => {
                count(match gone {
                    parlor_net::Gone::Closed => &counters.closed,
                    parlor_net::Gone::Malformed => &counters.malformed,
                });
                Fate::Ends
            }
        }
    }

    fn hand_over(&mut self, shard: ShardId, half_open: HalfOpen) {
        let counters = &self.acceptor.counters;
        let Some((worker, waker)) = self.acceptor.workers.get_mut(shard.0 as usize) else {
            return count(&counters.malformed);
        };
        let HalfOpen { connection, path, seat, .. } = half_open;
        match worker.try_push(Incoming { connection, path, seat }) {
            Ok(()) => {
                count(&counters.handed_over);
                waker.wake();
            }
            Err(_) => count(&counters.not_taken),
        }
    }

    fn accept(&mut self, listener: usize, now: Instant) {
        for _ in 0..ACCEPTS_PER_TURN {
            let Some(socket) = self.acceptor.listeners.get_mut(listener) else { return };
            match socket.accept() {
                Ok(Some(connection)) => self.admit(listener, connection, now),
                Ok(None) => return,
                Err(error) => {
                    let failures = &self.acceptor.counters.accept_failures;
                    count(failures);
                    if failures.load(Ordering::Relaxed).is_power_of_two() {
                        tracing::error!("cannot accept TCP connections: {error}");
                    }
                    self.pause = Some(now + ACCEPT_RETRY);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, listener: usize, connection: TcpConnection, now: Instant) {
        let Acceptor { addresses, limits, counters, .. } = &self.acceptor;
        count(&counters.accepted);
        let (local, remote) = (connection.local_address(), connection.remote_address());
        if self.by_address.len() >= ADDRESSES_MAX {
            self.by_address.retain(|_, of| of.connections.load(Ordering::Relaxed) > 0);
        }
        let ip = remote.ip();
        let of = self.by_address.entry(ip).or_default();
        let bound = |limit| if ip.is_loopback() { 0 } else { limit };
        let seats = Seat::take(&of.connections, bound(limits.connections_per_address))
            .zip(Seat::take(&of.half_open, bound(limits.half_open_per_address)));
        let Some((seat, _half_seat)) = seats else { return count(&counters.over_limit) };
        if self.half_open.len() >= MAX_HALF_OPEN {
            // Whoever crowds, the first of the most crowding address goes.
            let worst =
                self.by_address.iter().max_by_key(|(_, of)| of.half_open.load(Ordering::Relaxed));
            let worst = worst.map(|(ip, _)| *ip);
            let place = self.half_open.iter().position(|old| Some(old.ip) == worst);
            self.half_open.remove(place.unwrap_or(0));
            count(&counters.crowded_out);
        }
        let path = Path::tcp(addresses.incoming(listener, local), remote);
        let deadline = now + FIRST_CHECK_TIMEOUT;
        self.half_open.push_back(HalfOpen { connection, path, ip, seat, _half_seat, deadline });
    }
}
