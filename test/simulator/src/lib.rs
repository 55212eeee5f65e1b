//! A whole world on one thread under one seed: the server, its clients, the network, and time.
//!
//! A [`World`] holds a `Node`, a `Shard` and any number of guests, each a `core/client` behind
//! its own links. Virtual time jumps from one deadline to the next, so that minutes pass in
//! moments and nothing depends on the machine. Every stream that a guest receives is watched by
//! the checker; everything that passes is written down in a [`Trace`], so that a run can be held
//! against another run of the same seed.
//!
//! A [`Plan`] is a world written down: who comes, over which links, and what happens to them. One is
//! drawn from a seed ([`Plan::generate`]), [`run`] runs it and judges it, [`shrink()`] makes one that
//! fails smaller. `cargo xtask simulate` does that by the thousand. [`rfc8867`] has the cases of that
//! RFC.
//!
//! ```
//! use parlor_client::Model;
//! use parlor_simulator::{Invitation, SourceKind, World};
//! use parlor_transport::DtlsIdentity;
//! use std::time::Duration;
//!
//! let mut world = World::new(1, &DtlsIdentity::generate()?);
//! let alice = world.invite(Invitation::new("alice", Model::Single));
//! let bob = world.invite(Invitation::new("bob", Model::Pair));
//! let now = world.now();
//! world.guest(alice).publish(now, "microphone", SourceKind::Audio);
//! let heard = world.run_until(Duration::from_secs(10), |w| w.guest(bob).complete_frames() > 50);
//! assert!(heard, "{:?}", world.violations());
//! # Ok::<(), parlor_transport::TransportError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bottleneck;
mod carry;
mod clock;
mod frames;
mod guest;
pub mod plan;
pub mod rfc8867;
mod run;
mod seat;
mod shrink;
mod source;
mod trace;
mod world;

pub use frames::Frames;
pub use guest::Guest;
pub use plan::Plan;
pub use run::{Outcome, identity, run, run_aloud};
pub use shrink::{judge, shrink};
pub use source::SourceKind;
pub use trace::{Direction, Entry, Kind, Trace};
pub use world::{Invitation, World};
