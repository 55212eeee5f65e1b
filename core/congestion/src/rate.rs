//! Additive increase, multiplicative decrease, on what the delay gradient says.

use crate::delay::Usage;

/// What is left of the acknowledged rate after overuse.
const DECREASE: f64 = 0.85;
/// Growth in a second while the capacity is not known: a share of the estimate, but no more than
/// this. A capacity that is far away is found by probes.
const GROWTH_PER_SECOND: f64 = 0.2;
const GROWTH_MAX_BPS: f64 = 80_000.0;
/// Flows that share a link become equal because the small ones grow faster than the large: by the
/// square of what this rate is to theirs, within bounds. No flow grows slower before it has met the
/// capacity.
pub(crate) const EQUAL_BPS: f64 = 1_000_000.0;
const EQUALITY: std::ops::RangeInclusive<f64> = 0.25..=4.0;
/// The estimate grows no further than this times the acknowledged rate, plus a little.
const ACKNOWLEDGED_FACTOR: f64 = 1.5;
const ACKNOWLEDGED_EXTRA_BPS: f64 = 10_000.0;
/// The estimate is in use where this share of it arrives.
const USED_SHARE: f64 = 0.85;
const FRAMES_PER_SECOND: f64 = 30.0;
const PACKET_BITS_MAX: f64 = 1200.0 * 8.0;
const GROWTH_LEAST_BPS: f64 = 4_000.0;
const CAPACITY_SMOOTHING: f64 = 0.05;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    Hold,
    Increase,
}

/// The estimate that follows the delay gradient.
#[derive(Debug)]
pub struct RateControl {
    estimate_bps: f64,
    phase: Phase,
    capacity: Capacity,
    updated_us: Option<i64>,
    decreased_us: Option<i64>,
}

impl RateControl {
    /// Starts at `start_bps`.
    pub fn new(start_bps: f64) -> Self {
        Self {
            estimate_bps: start_bps,
            phase: Phase::Hold,
            capacity: Capacity::default(),
            updated_us: None,
            decreased_us: None,
        }
    }

    /// The estimate in bits a second.
    pub fn estimate_bps(&self) -> f64 {
        self.estimate_bps
    }

    /// When it was last lowered, in microseconds.
    pub fn decreased_us(&self) -> Option<i64> {
        self.decreased_us
    }

    /// Sets the estimate to what a probe or another estimator found.
    pub fn set_estimate(&mut self, estimate_bps: f64, now_us: i64) {
        if estimate_bps > self.estimate_bps {
            self.capacity = Capacity::default();
        }
        self.estimate_bps = estimate_bps;
        self.updated_us = Some(now_us);
    }

    /// Takes notice that the link was full at `capacity_bps`.
    pub fn set_capacity(&mut self, capacity_bps: f64) {
        self.capacity = Capacity::default();
        self.capacity.on_overuse(capacity_bps);
    }

    /// Follows `usage`. `acknowledged_bps` is what arrives, `rtt_us` the round trip.
    /// Returns whether the estimate was lowered.
    pub fn update(
        &mut self,
        usage: Usage,
        acknowledged_bps: Option<f64>,
        rtt_us: i64,
        now_us: i64,
    ) -> bool {
        let elapsed_us = now_us - self.updated_us.replace(now_us).unwrap_or(now_us);
        match usage {
            Usage::Underusing => self.phase = Phase::Hold,
            Usage::Normal if self.phase == Phase::Hold => self.phase = Phase::Increase,
            Usage::Normal => {
                if let Some(acknowledged_bps) = acknowledged_bps {
                    self.increase(acknowledged_bps, rtt_us, elapsed_us);
                }
            }
            Usage::Overusing => {
                self.phase = Phase::Hold;
                return self.decrease(acknowledged_bps, rtt_us, now_us);
            }
        }
        false
    }

    fn increase(&mut self, acknowledged_bps: f64, rtt_us: i64, elapsed_us: i64) {
        if self.capacity.is_below(acknowledged_bps) {
            self.capacity = Capacity::default();
        }
        let elapsed_s = (elapsed_us as f64 / 1e6).clamp(0.0, 1.0);
        let smallness = EQUAL_BPS / self.estimate_bps;
        let equality = (smallness * smallness).clamp(*EQUALITY.start(), *EQUALITY.end());
        let grown_bps = if self.capacity.estimate_bps.is_some() {
            let frame_bits = self.estimate_bps / FRAMES_PER_SECOND;
            let packet_bits = frame_bits / libm::ceil(frame_bits / PACKET_BITS_MAX).max(1.0);
            let response_s = rtt_us as f64 / 1e6 + 0.1;
            let grown_bps = equality * packet_bits / response_s;
            self.estimate_bps + grown_bps.max(GROWTH_LEAST_BPS) * elapsed_s
        } else {
            let share_bps = GROWTH_PER_SECOND * self.estimate_bps;
            let is_exceeded = acknowledged_bps > self.estimate_bps;
            let most_bps = equality.max(1.0) * GROWTH_MAX_BPS;
            // What arrives without a queue, passes.
            let grown_bps = if is_exceeded { share_bps } else { share_bps.min(most_bps) };
            self.estimate_bps + grown_bps * elapsed_s
        };
        let mut limit_bps = ACKNOWLEDGED_FACTOR * acknowledged_bps + ACKNOWLEDGED_EXTRA_BPS;
        if let Some(capacity_bps) = self.capacity.estimate_bps {
            // What is not used cannot show that more would pass: that takes a probe.
            let is_used = acknowledged_bps > USED_SHARE * self.estimate_bps;
            let spread_bps =
                if is_used { 1.5 * self.capacity.spread_bps(capacity_bps) } else { 0.0 };
            limit_bps = limit_bps.min(capacity_bps + spread_bps);
        }
        self.estimate_bps = grown_bps.min(limit_bps).max(self.estimate_bps);
    }

    fn decrease(&mut self, acknowledged_bps: Option<f64>, rtt_us: i64, now_us: i64) -> bool {
        let pause_us = rtt_us.clamp(10_000, 200_000);
        let is_early = self.decreased_us.is_some_and(|at_us| now_us - at_us < pause_us);
        let acknowledged_bps = acknowledged_bps.unwrap_or(self.estimate_bps);
        if is_early && acknowledged_bps > 0.5 * self.estimate_bps {
            return false;
        }
        self.capacity.on_overuse(acknowledged_bps);
        let mut lowered_bps = DECREASE * acknowledged_bps;
        if lowered_bps > self.estimate_bps
            && let Some(capacity_bps) = self.capacity.estimate_bps
        {
            lowered_bps = DECREASE * capacity_bps;
        }
        self.decreased_us = Some(now_us);
        let is_lower = lowered_bps < self.estimate_bps;
        self.estimate_bps = self.estimate_bps.min(lowered_bps);
        is_lower
    }
}

/// What the link carried when it was full, with its spread.
#[derive(Debug, Default)]
struct Capacity {
    estimate_bps: Option<f64>,
    /// Variance over the estimate, in kbit/s.
    deviation_kbps: f64,
}

impl Capacity {
    fn on_overuse(&mut self, acknowledged_bps: f64) {
        let sample_kbps = acknowledged_bps / 1000.0;
        let Some(estimate_bps) = self.estimate_bps.filter(|_| !self.is_above(acknowledged_bps))
        else {
            *self = Self { estimate_bps: Some(acknowledged_bps), deviation_kbps: 0.4 };
            return;
        };
        let mut estimate_kbps = estimate_bps / 1000.0;
        estimate_kbps += CAPACITY_SMOOTHING * (sample_kbps - estimate_kbps);
        let error_kbps = estimate_kbps - sample_kbps;
        let spread = error_kbps * error_kbps / estimate_kbps.max(1.0);
        self.deviation_kbps += CAPACITY_SMOOTHING * (spread - self.deviation_kbps);
        self.deviation_kbps = self.deviation_kbps.clamp(0.4, 2.5);
        self.estimate_bps = Some(estimate_kbps * 1000.0);
    }

    fn spread_bps(&self, estimate_bps: f64) -> f64 {
        3.0 * (self.deviation_kbps * estimate_bps / 1000.0).max(0.0).sqrt() * 1000.0
    }

    fn is_below(&self, rate_bps: f64) -> bool {
        self.estimate_bps.is_some_and(|bps| rate_bps > bps + self.spread_bps(bps))
    }

    fn is_above(&self, rate_bps: f64) -> bool {
        self.estimate_bps.is_some_and(|bps| rate_bps < bps - self.spread_bps(bps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overuse_leaves_85_percent_of_what_arrives_once_per_round_trip() {
        let mut rate = RateControl::new(1_000_000.0);
        assert!(rate.update(Usage::Overusing, Some(800_000.0), 100_000, 0));
        assert_eq!(rate.estimate_bps(), 680_000.0);
        assert!(!rate.update(Usage::Overusing, Some(600_000.0), 100_000, 50_000));
        assert_eq!(rate.estimate_bps(), 680_000.0);
    }

    #[test]
    fn growth_stops_at_one_and_a_half_times_what_arrives() {
        let mut rate = RateControl::new(100_000.0);
        for n in 0..1000 {
            rate.update(Usage::Normal, Some(100_000.0), 100_000, n * 100_000);
        }
        assert_eq!(rate.estimate_bps(), 160_000.0);
    }
}
