//! The delay gradient: whether the queue before the bottleneck is growing.
//!
//! After "Analysis and Design of the Google Congestion Control for WebRTC" (Carlucci et al.,
//! MMSys 2016) with the trendline filter that replaced its Kalman filter.

/// Packets sent within this time of each other are one group, in microseconds.
const GROUP_US: i64 = 5_000;
/// A group that arrives as one burst may be this long, in microseconds.
const BURST_US: i64 = 100_000;
/// How far back the least delay is looked for: two to three of these, in microseconds.
const BASE_BUCKET_US: i64 = 5_000_000;
/// A step of arrival that no queue explains: the receiver's clock was set, in microseconds.
const CLOCK_STEP_US: i64 = 3_000_000;
const TREND_POINTS: usize = 20;
const SMOOTHING: f64 = 0.9;
const THRESHOLD_GAIN: f64 = 4.0;
const DELTAS_COUNTED_MAX: u32 = 60;
const OVERUSE_TIME_MS: f64 = 10.0;
const THRESHOLD_START_MS: f64 = 12.5;
const THRESHOLD_MS: std::ops::RangeInclusive<f64> = 6.0..=600.0;
const THRESHOLD_UP: f64 = 0.0087;
const THRESHOLD_DOWN: f64 = 0.039;
const THRESHOLD_ADAPT_MAX_MS: f64 = 15.0;

/// What the delay gradient says about the bottleneck.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Usage {
    /// The queue is steady.
    #[default]
    Normal,
    /// The queue grows.
    Overusing,
    /// The queue shrinks.
    Underusing,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    first_sent_us: i64,
    last_sent_us: i64,
    first_arrival_us: i64,
    last_arrival_us: i64,
}

/// Detects a growing queue from the times at which packets were sent and arrived.
#[derive(Debug, Default)]
pub struct DelayDetector {
    current: Option<Group>,
    previous: Option<Group>,
    trend: Trend,
    queue: QueueDelay,
}

impl DelayDetector {
    /// Takes a packet that arrived; both times in microseconds, each of its own clock.
    pub fn on_packet(&mut self, sent_us: i64, arrival_us: i64) {
        self.on_disturbed_packet(sent_us, arrival_us);
        let Some(current) = &mut self.current else {
            self.current = Some(Group::new(sent_us, arrival_us));
            return;
        };
        if sent_us < current.first_sent_us {
            return;
        }
        if (arrival_us - current.last_arrival_us).abs() > CLOCK_STEP_US {
            *self = Self { current: Some(Group::new(sent_us, arrival_us)), ..Self::default() };
            return;
        }
        if current.takes(sent_us, arrival_us) {
            current.last_sent_us = current.last_sent_us.max(sent_us);
            current.last_arrival_us = current.last_arrival_us.max(arrival_us);
            return;
        }
        let current = *current;
        if let Some(previous) = self.previous {
            let sent_delta_us = current.last_sent_us - previous.last_sent_us;
            let arrival_delta_us = current.last_arrival_us - previous.last_arrival_us;
            if arrival_delta_us >= 0 {
                self.trend.update(sent_delta_us, arrival_delta_us, current.last_arrival_us);
            }
        }
        self.previous = Some(current);
        self.current = Some(Group::new(sent_us, arrival_us));
    }

    /// As [`Self::on_packet`] for a packet whose delay counts but whose gradient does not, because
    /// a probe disturbed it.
    pub fn on_disturbed_packet(&mut self, sent_us: i64, arrival_us: i64) {
        self.queue.on_packet(sent_us, arrival_us - sent_us);
    }

    /// What the gradient says now.
    pub fn usage(&self) -> Usage {
        self.trend.usage
    }

    /// As [`Self::queue_delay_ms`] of the last packet alone.
    pub fn last_queue_delay_ms(&self) -> f64 {
        self.queue.last_ms
    }

    /// How long packets wait in queues, from the delay above the least of the last 10 to 15 s,
    /// in milliseconds.
    pub fn queue_delay_ms(&self) -> f64 {
        self.queue.smoothed_ms
    }

    /// The gradient as it is compared with [`Self::threshold_ms`].
    pub fn trend_ms(&self) -> f64 {
        self.trend.modified_ms
    }

    /// The threshold, which adapts to what is usual on this path.
    pub fn threshold_ms(&self) -> f64 {
        self.trend.threshold_ms
    }
}

impl Group {
    fn new(sent_us: i64, arrival_us: i64) -> Self {
        Self {
            first_sent_us: sent_us,
            last_sent_us: sent_us,
            first_arrival_us: arrival_us,
            last_arrival_us: arrival_us,
        }
    }

    fn takes(&self, sent_us: i64, arrival_us: i64) -> bool {
        let sent_delta_us = sent_us - self.last_sent_us;
        let arrival_delta_us = arrival_us - self.last_arrival_us;
        // What queued up somewhere and arrives at once says nothing about the bottleneck.
        let is_burst = sent_delta_us == 0
            || arrival_delta_us <= GROUP_US
                && arrival_delta_us < sent_delta_us
                && arrival_us - self.first_arrival_us < BURST_US;
        is_burst || sent_us - self.first_sent_us <= GROUP_US
    }
}

#[derive(Debug)]
struct Trend {
    usage: Usage,
    points: [(f64, f64); TREND_POINTS],
    next_point: usize,
    deltas: u32,
    first_arrival_us: Option<i64>,
    accumulated_ms: f64,
    smoothed_ms: f64,
    previous_slope: f64,
    modified_ms: f64,
    threshold_ms: f64,
    threshold_updated_us: i64,
    overuse_ms: Option<f64>,
    overuse_count: u32,
}

impl Default for Trend {
    fn default() -> Self {
        Self {
            usage: Usage::Normal,
            points: [(0.0, 0.0); TREND_POINTS],
            next_point: 0,
            deltas: 0,
            first_arrival_us: None,
            accumulated_ms: 0.0,
            smoothed_ms: 0.0,
            previous_slope: 0.0,
            modified_ms: 0.0,
            threshold_ms: THRESHOLD_START_MS,
            threshold_updated_us: 0,
            overuse_ms: None,
            overuse_count: 0,
        }
    }
}

impl Trend {
    fn update(&mut self, sent_delta_us: i64, arrival_delta_us: i64, arrival_us: i64) {
        self.deltas = self.deltas.saturating_add(1);
        self.accumulated_ms += (arrival_delta_us - sent_delta_us) as f64 / 1000.0;
        self.smoothed_ms = SMOOTHING * self.smoothed_ms + (1.0 - SMOOTHING) * self.accumulated_ms;
        let first_arrival_us = *self.first_arrival_us.get_or_insert(arrival_us);
        let at_ms = (arrival_us - first_arrival_us) as f64 / 1000.0;
        self.points[self.next_point % TREND_POINTS] = (at_ms, self.smoothed_ms);
        self.next_point = (self.next_point + 1) % TREND_POINTS;
        let slope = if self.deltas as usize >= TREND_POINTS {
            slope(&self.points).unwrap_or(self.previous_slope)
        } else {
            self.previous_slope
        };
        self.detect(slope, sent_delta_us as f64 / 1000.0, arrival_us);
    }

    fn detect(&mut self, slope: f64, sent_delta_ms: f64, arrival_us: i64) {
        if self.deltas < 2 {
            return;
        }
        self.modified_ms = f64::from(self.deltas.min(DELTAS_COUNTED_MAX)) * slope * THRESHOLD_GAIN;
        if self.modified_ms > self.threshold_ms {
            let over_ms = self.overuse_ms.map_or(sent_delta_ms / 2.0, |ms| ms + sent_delta_ms);
            self.overuse_ms = Some(over_ms);
            self.overuse_count += 1;
            let is_long = over_ms > OVERUSE_TIME_MS && self.overuse_count > 1;
            if is_long && slope >= self.previous_slope {
                self.overuse_ms = Some(0.0);
                self.overuse_count = 0;
                self.usage = Usage::Overusing;
            }
        } else {
            self.overuse_ms = None;
            self.overuse_count = 0;
            let is_falling = self.modified_ms < -self.threshold_ms;
            self.usage = if is_falling { Usage::Underusing } else { Usage::Normal };
        }
        self.previous_slope = slope;
        self.adapt_threshold(arrival_us);
    }

    fn adapt_threshold(&mut self, arrival_us: i64) {
        let elapsed_ms = (arrival_us - self.threshold_updated_us) as f64 / 1000.0;
        self.threshold_updated_us = arrival_us;
        let size_ms = self.modified_ms.abs();
        if size_ms > self.threshold_ms + THRESHOLD_ADAPT_MAX_MS {
            return;
        }
        let gain = if size_ms < self.threshold_ms { THRESHOLD_DOWN } else { THRESHOLD_UP };
        self.threshold_ms += gain * (size_ms - self.threshold_ms) * elapsed_ms.clamp(0.0, 100.0);
        self.threshold_ms = self.threshold_ms.clamp(*THRESHOLD_MS.start(), *THRESHOLD_MS.end());
    }
}

/// Least-squares slope; `None` where all points are at one time.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let count = points.len() as f64;
    let mean_x = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let mean_y = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let covariance: f64 = points.iter().map(|(x, y)| (x - mean_x) * (y - mean_y)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - mean_x) * (x - mean_x)).sum();
    (variance > 0.0).then(|| covariance / variance)
}

/// The one-way delay above its least. Clocks need not agree: only differences count.
#[derive(Debug, Default)]
struct QueueDelay {
    bucket_started_us: Option<i64>,
    /// Least one-way delay of this bucket and the two before it, and of all three.
    least_us: [Option<i64>; 3],
    base_us: i64,
    last_ms: f64,
    smoothed_ms: f64,
}

impl QueueDelay {
    fn on_packet(&mut self, sent_us: i64, one_way_us: i64) {
        let started_us = *self.bucket_started_us.get_or_insert(sent_us);
        if sent_us - started_us > BASE_BUCKET_US {
            self.bucket_started_us = Some(sent_us);
            self.least_us = [None, self.least_us[0], self.least_us[1]];
        }
        if self.least_us[0].is_none_or(|least_us| one_way_us < least_us) {
            self.least_us[0] = Some(one_way_us);
            self.base_us = self.least_us.iter().flatten().min().copied().unwrap_or(one_way_us);
        }
        let delay_ms = (one_way_us - self.base_us) as f64 / 1000.0;
        self.last_ms = delay_ms;
        self.smoothed_ms += 0.25 * (delay_ms - self.smoothed_ms);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a packet each 10 ms; each arrives `gradient_us` later than the one before.
    fn run(detector: &mut DelayDetector, from: i64, count: i64, gradient_us: i64, start_us: i64) {
        for n in 0..count {
            let sent_us = (from + n) * 10_000;
            detector.on_packet(sent_us, 77_000_000 + sent_us + start_us + n * gradient_us);
        }
    }

    #[test]
    fn a_growing_queue_is_overuse_and_a_shrinking_one_underuse() {
        let mut detector = DelayDetector::default();
        run(&mut detector, 0, 100, 0, 0);
        assert_eq!(detector.usage(), Usage::Normal);
        run(&mut detector, 100, 30, 2_000, 0);
        assert_eq!(detector.usage(), Usage::Overusing);
        assert!(detector.queue_delay_ms() > 40.0);
        run(&mut detector, 130, 28, -2_000, 58_000);
        assert_eq!(detector.usage(), Usage::Underusing);
    }

    #[test]
    fn a_clock_that_drifts_is_not_a_queue() {
        let mut detector = DelayDetector::default();
        // 100 parts in a million.
        run(&mut detector, 0, 5_000, 1, 0);
        assert_eq!(detector.usage(), Usage::Normal);
        assert!(detector.queue_delay_ms() < 3.0);
    }

    #[test]
    fn a_clock_that_is_set_starts_anew() {
        let mut detector = DelayDetector::default();
        run(&mut detector, 0, 100, 0, 0);
        run(&mut detector, 100, 100, 0, 3_600_000_000);
        assert_eq!(detector.usage(), Usage::Normal);
        assert!(detector.queue_delay_ms() < 1.0);
    }
}
