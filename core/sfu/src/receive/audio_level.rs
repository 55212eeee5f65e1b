//! How loud a track is, as LiveKit measures it from the `ssrc-audio-level` extension (RFC 6464).

use std::time::{Duration, Instant};

use parlor_model::RtpTimestamp;

/// How long loudness is observed before it counts, and how often it is told.
pub const LEVEL_INTERVAL: Duration = Duration::from_millis(400);
/// The quietest packet that counts as active, in dB below overload.
pub const ACTIVE_LEVEL: u8 = 35;
/// How much of a window must be active, in percent.
pub const MIN_PERCENTILE: u32 = 40;
/// Windows over which loudness is smoothed.
const SMOOTH_INTERVALS: u32 = 2;
/// Steps of loudness that are told apart.
pub const LEVEL_STEPS: u8 = 8;

const SMOOTH_FACTOR: f64 = 2.0 / (SMOOTH_INTERVALS as f64 + 1.0);
const SILENT: u8 = 127;

/// Measures one track. Durations are in ticks of its RTP clock.
pub struct LevelMeter {
    last_timestamp: Option<RtpTimestamp>,
    last_packet: Option<Instant>,
    observed: u64,
    active: u64,
    loudest: u8,
    /// Linear, 0 to 1.
    smoothed: f64,
    /// What was told last.
    told: u8,
}

impl Default for LevelMeter {
    fn default() -> Self {
        Self {
            last_timestamp: None,
            last_packet: None,
            observed: 0,
            active: 0,
            loudest: SILENT,
            smoothed: 0.0,
            told: 0,
        }
    }
}

impl LevelMeter {
    /// A packet of this loudness, in dB below overload. It lasts since the one before.
    #[inline]
    pub fn observe(&mut self, now: Instant, level: u8, timestamp: RtpTimestamp, clock_rate: u32) {
        self.last_packet = Some(now);
        let Some(last) = self.last_timestamp else {
            self.last_timestamp = Some(timestamp);
            return;
        };
        let Ok(ticks @ 1..) = u64::try_from(timestamp.distance(last)) else { return };
        self.last_timestamp = Some(timestamp);
        self.observed += ticks;
        if level <= ACTIVE_LEVEL {
            self.active += ticks;
            self.loudest = self.loudest.min(level);
        }
        let window = u64::from(clock_rate) * LEVEL_INTERVAL.as_millis() as u64 / 1000;
        if self.observed >= window {
            self.close_window(window);
        }
    }

    fn close_window(&mut self, window: u64) {
        self.smoothed = if self.active * 100 >= window * u64::from(MIN_PERCENTILE) {
            let weight = 20.0 * libm::log10(self.active as f64 / window as f64);
            let level = linear(f64::from(self.loudest) - weight);
            self.smoothed + (level - self.smoothed) * SMOOTH_FACTOR
        } else {
            0.0
        };
        (self.observed, self.active, self.loudest) = (0, 0, SILENT);
    }

    /// The track is silent from now on: muted, or without a publisher.
    pub fn silence(&mut self) {
        *self = Self { told: self.told, ..Self::default() };
    }

    /// The loudness in steps of 1/[`LEVEL_STEPS`], 0 for a track that is not active.
    fn level(&mut self, now: Instant) -> u8 {
        if self.last_packet.is_some_and(|last| now > last + 2 * LEVEL_INTERVAL) {
            self.silence();
        }
        if self.smoothed < linear(f64::from(ACTIVE_LEVEL)) {
            return 0;
        }
        (self.smoothed * f64::from(LEVEL_STEPS)).ceil().min(f64::from(LEVEL_STEPS)) as u8
    }

    /// The loudness, if it is another than was told last.
    pub fn take_change(&mut self, now: Instant) -> Option<u8> {
        let level = self.level(now);
        (std::mem::replace(&mut self.told, level) != level).then_some(level)
    }

    /// Whether there may be a change without another packet.
    pub fn may_change(&self) -> bool {
        self.last_packet.is_some() || self.told > 0
    }
}

fn linear(minus_db: f64) -> f64 {
    libm::pow(10.0, -minus_db / 20.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 20 ms, with a look every 400 ms.
    struct Source {
        now: Instant,
        timestamp: u32,
        meter: LevelMeter,
        heard: Vec<u8>,
        packets: u32,
    }

    impl Source {
        fn new() -> Self {
            let timestamp = u32::MAX - 5000;
            let meter = LevelMeter::default();
            Self { now: Instant::now(), timestamp, meter, heard: Vec::new(), packets: 0 }
        }

        fn send(&mut self, levels: impl IntoIterator<Item = u8>) {
            for level in levels {
                self.meter.observe(self.now, level, RtpTimestamp(self.timestamp), 48_000);
                self.pass();
            }
        }

        fn pass(&mut self) {
            self.now += Duration::from_millis(20);
            self.timestamp = self.timestamp.wrapping_add(960);
            self.packets += 1;
            if self.packets.is_multiple_of(20) {
                self.heard.extend(self.meter.take_change(self.now));
            }
        }
    }

    #[test]
    fn a_tone_rises_and_ends_once() {
        let mut source = Source::new();
        source.send([0; 200]);
        // 2/3, then 8/9, then on: told in eighths, and only what changes.
        assert_eq!(source.heard, [6, 8]);
        source.send([SILENT; 100]);
        assert_eq!(source.heard, [6, 8, 0]);
        assert!(source.meter.may_change());
    }

    #[test]
    fn activity_of_less_than_the_percentile_is_silence() {
        // 400 ms are 20 packets: 8 of them are 40 %.
        let beeps = |active: usize| (0..400).map(move |at| if at % 20 < active { 20 } else { 90 });
        let mut source = Source::new();
        source.send(beeps(7));
        assert_eq!(source.heard, Vec::<u8>::new());
        let mut source = Source::new();
        source.send(beeps(9));
        assert_eq!(source.heard, [1]);
    }

    #[test]
    fn the_bound_of_activity_is_35_db() {
        let mut source = Source::new();
        source.send([36; 100]);
        assert_eq!(source.heard, Vec::<u8>::new());
        // The smoothed loudness reaches the threshold only from below, as in LiveKit.
        source.send([34; 100]);
        assert_eq!(source.heard, [1]);
    }

    #[test]
    fn a_source_that_stops_is_stale_after_two_windows() {
        let mut source = Source::new();
        source.send([10; 100]);
        assert_eq!(source.heard.last(), Some(&3));
        for _ in 0..39 {
            source.pass();
        }
        assert_eq!(source.heard.last(), Some(&3));
        for _ in 0..40 {
            source.pass();
        }
        assert_eq!(source.heard.last(), Some(&0));
        assert!(!source.meter.may_change());
        source.meter.silence();
        assert!(!source.meter.may_change());
    }

    #[test]
    fn late_packets_and_leaps_change_nothing_or_little() {
        let mut meter = LevelMeter::default();
        let now = Instant::now();
        meter.observe(now, 0, RtpTimestamp(1000), 48_000);
        for late in [1000, 500, 0, u32::MAX] {
            meter.observe(now, 0, RtpTimestamp(late), 48_000);
        }
        assert_eq!(meter.take_change(now), None);
        // One packet after hours of silence fills its window as any other does.
        meter.observe(now, 0, RtpTimestamp(1000 + i32::MAX as u32), 48_000);
        assert!(meter.take_change(now).is_some_and(|level| level <= LEVEL_STEPS));
    }
}
