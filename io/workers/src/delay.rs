//! How long media is in our hands.

use std::time::Duration;

/// Upper bounds of the buckets of [`AddedDelay`], in microseconds; beyond the last is one more.
pub const DELAY_BOUNDS_US: [u64; 22] = [
    25, 50, 75, 100, 125, 150, 200, 250, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 5000, 7500,
    10_000, 20_000, 50_000, 100_000,
];

/// Media packets that arrived and led to something being sent in the same turn of a worker, by the
/// time from the kernel's receive stamp to the end of the turn's last send. What a pacer holds
/// back leaves in a later turn and is not in it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct AddedDelay {
    /// Packets up to each bound and above the one before; the last are those above all bounds.
    pub counts: [u64; DELAY_BOUNDS_US.len() + 1],
    /// Of all packets.
    pub sum_us: u64,
}

impl AddedDelay {
    /// Counts a packet.
    pub(crate) fn record(&mut self, delay: Duration) {
        let us = u64::try_from(delay.as_micros()).unwrap_or(u64::MAX);
        let bucket = DELAY_BOUNDS_US.partition_point(|bound| *bound < us);
        self.counts[bucket] += 1;
        self.sum_us = self.sum_us.saturating_add(us);
    }
}

impl std::ops::AddAssign for AddedDelay {
    fn add_assign(&mut self, other: Self) {
        for (count, more) in self.counts.iter_mut().zip(other.counts) {
            *count += more;
        }
        self.sum_us = self.sum_us.saturating_add(other.sum_us);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_belong_to_their_bucket() {
        let mut delay = AddedDelay::default();
        for us in [0, 25, 26, 100_000, 100_001] {
            delay.record(Duration::from_micros(us));
        }
        assert_eq!(delay.counts[..2], [2, 1]);
        assert_eq!(delay.counts[DELAY_BOUNDS_US.len() - 1..], [1, 1]);
        assert_eq!(delay.sum_us, 200_052);
    }
}
