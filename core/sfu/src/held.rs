//! How long media waited for its turn on the way to a peer.

use parlor_model::Histogram;

/// Upper bounds of the buckets of [`Held`], in microseconds; beyond the last is one more.
pub const HELD_BOUNDS_US: [u64; 12] =
    [1000, 2000, 3000, 5000, 7500, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000];

/// Media packets that left later than they came, because a pacer held them back or what a peer is
/// owed was gathered, by how much. What leaves in the turn in which it came is not in it.
pub type Held = Histogram<{ HELD_BOUNDS_US.len() + 1 }>;
