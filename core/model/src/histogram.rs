//! How often durations fell between bounds.

/// Durations counted in `N` buckets: up to each of `N - 1` bounds and above the one before, and
/// those above all bounds. What the bounds are, who records says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Histogram<const N: usize> {
    /// How many there were in each bucket.
    pub counts: [u64; N],
    /// Of all of them.
    pub sum_us: u64,
}

impl<const N: usize> Histogram<N> {
    /// Counts a duration; `bounds_us` are `N - 1` in rising order, each of its own bucket.
    pub fn record(&mut self, bounds_us: &[u64], us: u64) {
        self.record_many(bounds_us, us, 1);
    }

    /// As [`Self::record`], so many times.
    pub fn record_many(&mut self, bounds_us: &[u64], us: u64, times: u64) {
        let bucket = bounds_us.partition_point(|bound| *bound < us);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += times;
        }
        self.sum_us = self.sum_us.saturating_add(us * times);
    }
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self { counts: [0; N], sum_us: 0 }
    }
}

impl<const N: usize> std::ops::AddAssign for Histogram<N> {
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
        let mut held = Histogram::<4>::default();
        for us in [1, 1000, 1001, 5000, 5001] {
            held.record(&[1000, 2000, 5000], us);
        }
        let mut twice = held;
        twice += held;
        assert_eq!(twice.counts, [4, 2, 2, 2]);
        assert_eq!(twice.sum_us, 2 * 12_003);
    }
}
