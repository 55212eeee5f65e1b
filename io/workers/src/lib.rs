//! The media threads: each owns one [`parlor_sfu::Shard`] and its sockets, and carries.
//!
//! A worker sleeps until a datagram comes, a deadline of its shard is due, or the control
//! thread has pushed a command. Then it brings all that to the shard, takes away what the shard
//! has to send and to tell, and sleeps again. RTCP comes to a socket of its own on the same port:
//! where it comes often it waits up to 5 ms, so that not each report wakes the thread. What a
//! worker never does: decide anything about media, share state with another thread, lock, allocate
//! for a packet, or log one.
//!
//! Peers that UDP does not reach come over TCP: one more thread accepts, waits for the first
//! check of ICE, which names the worker, and hands the connection over. From then on it is the
//! worker's, and a datagram over it is like any other to the shard.
//!
//! Each worker has a UDP port of its own, or all share one: then the kernel decides whose socket a
//! datagram comes to, and a worker hands on what is not for its peers ([`WorkerCounters`] says how
//! much that is).
//!
//! Control and workers talk over two rings each ([`parlor_ring`]):
//!
//! * [`WorkerHandle::send`] takes commands. When the ring is full they queue in the handle, in
//!   order and up to a bound ([`MAX_QUEUED_COMMANDS`]); lossy messages do not queue.
//! * [`WorkerHandle::poll_event`] yields events. When that ring is full they stay in the shard,
//!   and the worker tries again.
//! * The function given to [`Workers::start`] is called from the worker's thread when it is worth
//!   polling: once for many events, also when queued commands fit again, and when a worker has
//!   died, which [`WorkerHandle::poll_event`] then says.
//!
//! ```no_run
//! use parlor_workers::{Announced, Workers, WorkersConfig};
//! use std::sync::mpsc;
//!
//! let (wake, woken) = mpsc::sync_channel(1);
//! let mut workers = Workers::start(
//!     WorkersConfig {
//!         first_port: 7882,
//!         shares_port: false,
//!         listen: vec!["0.0.0.0".parse()?],
//!         announced: vec![Announced::new("192.0.2.7".parse()?)],
//!         tcp: None,
//!         identity: parlor_sfu::DtlsIdentity::generate()?,
//!         active_red_encoding: false,
//!         slow_reader_bps: 0,
//!         seeds: vec![[1; 32], [2; 32]], // two workers
//!     },
//!     move || _ = wake.try_send(()),
//! )?;
//! while woken.recv().is_ok() {
//!     for worker in workers.iter_mut() {
//!         while let Some(event) = worker.poll_event()? {
//!             println!("worker {}: {event:?}", worker.id());
//!         }
//!     }
//! }
//! workers.stop()?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod addresses;
mod config;
mod delay;
mod handle;
mod link;
mod relay;
mod reports;
mod shared;
mod tcp;
mod worker;

pub use addresses::Announced;
pub use config::{StartError, TcpConfig, WorkersConfig};
pub use delay::{AddedDelay, DELAY_BOUNDS_US};
pub use handle::{
    MAX_QUEUED_COMMANDS, SendCommandError, WorkerGone, WorkerHandle, WorkerPanicked, Workers,
};
pub use shared::HandoverCounters;
pub use tcp::{
    FIRST_CHECK_TIMEOUT, HANDOVER_RING, HalfOpenCounters, IDLE_TIMEOUT, MAX_CONNECTIONS,
    MAX_HALF_OPEN, TcpLimits, TcpPeerCounters, UNKNOWN_TIMEOUT,
};
pub use worker::WorkerCounters;
