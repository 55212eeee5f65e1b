//! Durations in buckets of one part in thirty-two, so that quantiles cost nothing to keep.

use serde::Serialize;
use std::time::Duration;

/// Buckets for each doubling.
const STEPS: u64 = 32;
const STEP_BITS: u32 = STEPS.trailing_zeros();
/// The longest duration that is told apart: 2^40 us, twelve days.
const BUCKETS: usize = (41 * STEPS) as usize;

/// How often which duration was seen, from one microsecond up.
#[derive(Clone, PartialEq, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max_us: u64,
}

/// What a histogram says, in microseconds; all zero for one that is empty.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Quantiles {
    pub count: u64,
    pub p50_us: u64,
    pub p90_us: u64,
    pub p99_us: u64,
    pub max_us: u64,
}

impl Histogram {
    /// An empty one.
    pub fn new() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max_us: 0 }
    }

    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let us = duration.as_secs() * 1_000_000 + u64::from(duration.subsec_micros());
        if let Some(count) = self.counts.get_mut(bucket(us)) {
            *count += 1;
        }
        self.total += 1;
        self.max_us = self.max_us.max(us);
    }

    /// Adds what another has counted.
    pub fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max_us = self.max_us.max(other.max_us);
    }

    /// The duration that the given share (0 to 1) of all durations does not exceed, in
    /// microseconds, at most one part in thirty-two too long.
    pub fn quantile_us(&self, share: f64) -> u64 {
        let rank = (share * self.total as f64).ceil() as u64;
        let mut seen = 0;
        for (index, count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank.max(1) {
                return upper_end(index).min(self.max_us);
            }
        }
        self.max_us
    }

    /// The usual quantiles.
    pub fn quantiles(&self) -> Quantiles {
        Quantiles {
            count: self.total,
            p50_us: self.quantile_us(0.5),
            p90_us: self.quantile_us(0.9),
            p99_us: self.quantile_us(0.99),
            max_us: self.max_us,
        }
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// Exact below [`STEPS`]; above, the leading bit and the [`STEP_BITS`] bits that follow it.
fn bucket(us: u64) -> usize {
    let doublings = (us | STEPS).ilog2() - STEP_BITS;
    let index = u64::from(doublings) * STEPS + (us >> doublings);
    (index as usize).min(BUCKETS - 1)
}

/// The longest duration that falls into a bucket.
fn upper_end(index: usize) -> u64 {
    let index = index as u64;
    let doublings = (index / STEPS).saturating_sub(1);
    let first = index - doublings * STEPS;
    ((first + 1) << doublings) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_falls_into_a_bucket_that_ends_no_more_than_a_step_later() {
        let mut last = 0;
        for us in (0..4096).chain((12..40).flat_map(|bit| [(1 << bit) - 1, 1 << bit, 3 << bit])) {
            let end = upper_end(bucket(us));
            assert!(end >= us && end <= us + us / STEPS, "{us} in a bucket to {end}");
            assert!(us > 4095 || bucket(us) >= last);
            last = bucket(us);
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_of_a_thousand() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantiles(), Quantiles::default());
        let mut other = Histogram::new();
        for ms in 1..=1000 {
            let half = if ms % 2 == 0 { &mut histogram } else { &mut other };
            half.record(Duration::from_millis(ms));
        }
        histogram.merge(&other);
        let quantiles = histogram.quantiles();
        assert_eq!((quantiles.count, quantiles.max_us), (1000, 1_000_000));
        for (got, want) in [(quantiles.p50_us, 500_000), (quantiles.p99_us, 990_000)] {
            assert!(got >= want && got <= want + want / STEPS, "{got} for {want}");
        }
    }
}
