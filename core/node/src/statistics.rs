//! What has happened in all rooms since the start, for metrics.

use parlor_model::TrackKind;
use std::time::Duration;

/// From 100 ms to 10 s, each as many times the one before it.
const START_BOUNDS_MS: [f64; 15] = [
    100.000, 138.950, 193.070, 268.270, 372.759, 517.947, 719.686, 1000.000, 1389.495, 1930.698,
    2682.696, 3727.594, 5179.475, 7196.857, 10000.000,
];
/// From 100 ms to 4 h, each as many times the one before it.
const DURATION_BOUNDS_MS: [f64; 15] = [
    100.000,
    233.590,
    545.643,
    1274.569,
    2977.267,
    6954.603,
    16245.264,
    37947.332,
    88641.217,
    207057.122,
    483664.973,
    1129793.576,
    2639086.133,
    6164644.378,
    14400000.000,
];

/// A distribution: how many samples are up to each bound and above the one before it, then how
/// many are above all.
#[derive(Clone, PartialEq, Debug)]
pub struct Histogram {
    /// Upper bounds, ascending.
    pub bounds: Vec<f64>,
    /// One more than there are bounds.
    pub counts: Vec<u64>,
    /// Of all samples.
    pub sum: f64,
}

impl Histogram {
    fn new(bounds: Vec<f64>) -> Self {
        Self { counts: vec![0; bounds.len() + 1], bounds, sum: 0.0 }
    }

    pub(crate) fn observe(&mut self, value: f64) {
        let place = self.bounds.iter().position(|bound| value <= *bound);
        if let Some(count) = self.counts.get_mut(place.unwrap_or(self.bounds.len())) {
            *count += 1;
        }
        self.sum += value;
    }
}

/// Of something that is done to tracks: how often it was begun, and how often it came to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Attempts {
    pub attempts: u64,
    pub successes: u64,
}

/// See the module. The bounds are LiveKit's.
#[derive(Clone, PartialEq, Debug)]
pub struct Statistics {
    /// Sockets that were accepted, of joins and of resumes.
    pub signal_connected: u64,
    /// Sockets that were refused by a room.
    pub signal_failed: u64,
    /// Sockets that were refused before that.
    pub signal_validation_failed: u64,
    /// Participants that came in.
    pub rtc_init: u64,
    /// Participants whose media came up.
    pub rtc_active: u64,
    /// Publications, audio and video.
    pub publish: [Attempts; 2],
    /// Subscriptions.
    pub subscribe: Attempts,
    /// Life of rooms, s.
    pub room_duration_seconds: Histogram,
    /// From a join until media is up, ms.
    pub session_start_time_ms: Histogram,
    /// From then until the participant leaves, ms.
    pub session_duration_ms: Histogram,
}

impl Default for Statistics {
    fn default() -> Self {
        let room = [5, 10, 60, 300, 600, 1800, 3600, 7200, 18_000, 36_000];
        Self {
            signal_connected: 0,
            signal_failed: 0,
            signal_validation_failed: 0,
            rtc_init: 0,
            rtc_active: 0,
            publish: Default::default(),
            subscribe: Attempts::default(),
            room_duration_seconds: Histogram::new(room.map(f64::from).to_vec()),
            session_start_time_ms: Histogram::new(START_BOUNDS_MS.to_vec()),
            session_duration_ms: Histogram::new(DURATION_BOUNDS_MS.to_vec()),
        }
    }
}

impl Statistics {
    pub(crate) fn publish_of(&mut self, kind: TrackKind) -> &mut Attempts {
        let [audio, video] = &mut self.publish;
        match kind {
            TrackKind::Audio => audio,
            TrackKind::Video => video,
        }
    }
}

pub(crate) fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_counts_under_the_first_bound_that_it_does_not_pass() {
        let mut histogram = Histogram::new(START_BOUNDS_MS.to_vec());
        for value in [1.0, 100.0, 101.0, 20_000.0] {
            histogram.observe(value);
        }
        assert_eq!((histogram.counts[0], histogram.counts[1], histogram.counts[15]), (2, 1, 1));
        assert_eq!(histogram.sum, 20_202.0);
    }
}
