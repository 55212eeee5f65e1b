//! How long media is in our hands.

use parlor_model::Histogram;

/// Upper bounds of the buckets of [`AddedDelay`], in microseconds; beyond the last is one more.
pub const DELAY_BOUNDS_US: [u64; 22] = [
    25, 50, 75, 100, 125, 150, 200, 250, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 5000, 7500,
    10_000, 20_000, 50_000, 100_000,
];

/// Media packets that arrived and led to something being sent in the same turn of a worker, by the
/// time from the kernel's receive stamp to the end of the turn's last send. What a pacer holds
/// back leaves in a later turn and is not in it.
pub type AddedDelay = Histogram<{ DELAY_BOUNDS_US.len() + 1 }>;
