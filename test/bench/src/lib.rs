//! What the packet path costs: a real [`parlor_sfu::Shard`] under virtual time, with one publisher
//! and as many subscribers as asked for.
//!
//! Two binaries use it. `packets` runs under valgrind's callgrind: each [`Cell`] is one call of one
//! function, so that callgrind can write its cost apart. `limits` runs bare and measures time and
//! memory beside what the kernel alone costs. `cargo xtask bench` drives both; `docs/performance.md`
//! has the method and the figures.
//!
//! Handshakes, consent checks and timers run too, but outside of what is measured.
//!
//! ```
//! use parlor_bench::{Media, World};
//!
//! let mut world = World::new();
//! world.grow(2);
//! world.warm_up();
//! let mut packets = world.prepare(Media::Audio, 10);
//! let sent = world.forward(&mut packets);
//! assert_eq!(sent, 20);
//! ```
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

#[cfg(feature = "control")]
mod control;
mod media;
mod world;

#[cfg(feature = "control")]
pub use control::ControlRoom;
pub use media::Media;
pub use world::{Burst, World};

/// One measurement of the packet path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cell {
    /// What is sent.
    pub media: Media,
    /// To how many subscribers.
    pub subscribers: usize,
    /// Whether they are all at another shard than the publisher.
    pub is_relayed: bool,
}

/// Numbers of subscribers that are measured at another shard than the publisher.
pub const RELAYED_SUBSCRIBERS: [usize; 2] = [1, 100];

/// Numbers of subscribers that are measured, in the order that one world grows through.
pub const SUBSCRIBERS: [usize; 4] = [1, 10, 100, 1000];

/// Every measurement, in the order that they are taken.
pub fn cells() -> impl Iterator<Item = Cell> {
    let here = SUBSCRIBERS.into_iter().map(|subscribers| (subscribers, false));
    let elsewhere = RELAYED_SUBSCRIBERS.into_iter().map(|subscribers| (subscribers, true));
    here.chain(elsewhere).flat_map(|(subscribers, is_relayed)| {
        [Media::Audio, Media::Video].map(|media| Cell { media, subscribers, is_relayed })
    })
}
