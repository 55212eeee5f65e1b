//! How long media waited for its turn on the way to a peer.

/// Upper bounds of the buckets of [`Held`], in microseconds; beyond the last is one more.
pub const HELD_BOUNDS_US: [u64; 12] =
    [1000, 2000, 3000, 5000, 7500, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000, 1_000_000];

/// Media packets that left later than they came, because a pacer held them back or what a peer is
/// owed was gathered, by how much. What leaves in the turn in which it came is not in it.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Held {
    /// Packets up to each bound and above the one before; the last are those above all bounds.
    pub counts: [u64; HELD_BOUNDS_US.len() + 1],
    /// Of all packets.
    pub sum_us: u64,
}

impl Held {
    /// Counts a packet.
    pub(crate) fn record(&mut self, held_us: u64) {
        let bucket = HELD_BOUNDS_US.partition_point(|bound| *bound < held_us);
        self.counts[bucket] += 1;
        self.sum_us = self.sum_us.saturating_add(held_us);
    }
}

impl std::ops::AddAssign for Held {
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
        let mut held = Held::default();
        for us in [1, 1000, 1001, 1_000_000, 1_000_001] {
            held.record(us);
        }
        let mut twice = held;
        twice += held;
        assert_eq!(twice.counts[..2], [4, 2]);
        assert_eq!(twice.counts[HELD_BOUNDS_US.len() - 1..], [2, 2]);
        assert_eq!(twice.sum_us, 2 * 2_002_003);
    }
}
