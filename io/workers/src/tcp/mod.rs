//! Peers that come over TCP.
//!
//! All workers share one port, so one thread of its own accepts ([`Acceptor`]) and waits for the
//! first frame, which is a check of ICE and names the worker. That one gets the connection over a
//! ring and keeps it ([`Connections`]). No thread waits for another.

mod accept;
mod connections;

pub(crate) use accept::{Acceptor, SharedCounters};
pub use accept::{FIRST_CHECK_TIMEOUT, HANDOVER_RING, HalfOpenCounters, MAX_HALF_OPEN, TcpLimits};
pub(crate) use connections::Connections;
pub use connections::{IDLE_TIMEOUT, MAX_CONNECTIONS, TcpPeerCounters, UNKNOWN_TIMEOUT};

use parlor_model::Path;
use parlor_net::TcpConnection;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

/// A connection on its way to a worker.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) connection: TcpConnection,
    /// As the shard knows it.
    pub(crate) path: Path,
    pub(crate) seat: Seat,
}

/// The place of a connection among those of its address, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat(Arc<AtomicUsize>);

impl Seat {
    /// Takes one more of an address that has fewer than `limit` (0: any number).
    fn take(taken: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        if limit > 0 && taken.load(Ordering::Relaxed) >= limit {
            return None;
        }
        taken.fetch_add(1, Ordering::Relaxed);
        Some(Self(taken.clone()))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
