//! What is lost and late between the server and its peers, for who operates it.

use std::time::Duration;

use parlor_model::Histogram;

use crate::quality::Window;

/// Upper bounds of the buckets of [`Experience::jitter`], in microseconds; LiveKit's.
pub const JITTER_BOUNDS_US: [u64; 9] =
    [1000, 10_000, 30_000, 50_000, 70_000, 100_000, 300_000, 600_000, 1_000_000];
/// Upper bounds of the buckets of [`Experience::round_trip`], in microseconds; LiveKit's.
pub const ROUND_TRIP_BOUNDS_US: [u64; 10] = [
    50_000, 100_000, 150_000, 200_000, 250_000, 500_000, 750_000, 1_000_000, 5_000_000, 10_000_000,
];

/// All streams of one direction since the shard began, each looked at every five seconds while it
/// had to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Experience {
    /// Packets that should have come.
    pub expected: u64,
    /// Those of them that did not.
    pub lost: u64,
    /// Interarrival jitter (RFC 3550 section 6.4.1).
    pub jitter: Histogram<{ JITTER_BOUNDS_US.len() + 1 }>,
    /// Round trip to the peer.
    pub round_trip: Histogram<{ ROUND_TRIP_BOUNDS_US.len() + 1 }>,
}

impl Experience {
    pub(crate) fn note(&mut self, window: &Window) {
        self.expected += window.expected;
        self.lost += window.lost;
        self.jitter.record(&JITTER_BOUNDS_US, micros(window.jitter));
        self.round_trip.record(&ROUND_TRIP_BOUNDS_US, micros(window.round_trip));
    }
}

impl std::ops::AddAssign for Experience {
    fn add_assign(&mut self, other: Self) {
        self.expected += other.expected;
        self.lost += other.lost;
        self.jitter += other.jitter;
        self.round_trip += other.round_trip;
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
