//! How good a connection is, on LiveKit's scale of 0 to 100.

use std::time::{Duration, Instant};

use parlor_model::{Codec, TrackKind};
use parlor_rtp::rtcp::ReportBlock;

/// How often connections are judged.
pub const QUALITY_INTERVAL: Duration = Duration::from_secs(5);
/// A subscriber that is sent media and has not reported for so long is not reached.
const UNREPORTED: Duration = Duration::from_secs(30);

const BEST: f64 = 100.0;
/// No smoothed score is below this while anything comes.
const FLOOR: f64 = 30.0;
/// Nothing has come although it should have.
const NOTHING: f64 = 40.0;
/// Points for each layer below what is wanted.
const POINTS_PER_LAYER: f64 = 35.0;
const FALL: f64 = 0.8;
const RISE: f64 = 0.4;
/// In-band FEC makes up for a part of the loss.
const FEC: f64 = 1.5;
/// Audio packets in an interval without discontinuous transmission.
const FULL_AUDIO_PACKETS: f64 = 250.0;

/// What happened to one stream in one direction within an interval.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Window {
    pub codec: Codec,
    pub expected: u64,
    pub lost: u64,
    pub round_trip: Duration,
    pub jitter: Duration,
    /// Spatial layers below what is wanted.
    pub missing_layers: u8,
}

impl Window {
    fn score(&self) -> f64 {
        if self.expected == 0 {
            return NOTHING;
        }
        let loss_percent = 100.0 * self.lost as f64 / self.expected as f64;
        let packets = BEST - self.delay_points() - loss_percent * self.loss_weight();
        let layers = BEST - POINTS_PER_LAYER * f64::from(self.missing_layers);
        packets.min(layers).clamp(0.0, BEST)
    }

    fn delay_points(&self) -> f64 {
        let delay_ms = 1000.0 * (self.round_trip / 2 + 2 * self.jitter).as_secs_f64();
        if delay_ms < 160.0 { delay_ms / 40.0 } else { (delay_ms - 120.0) / 10.0 }
    }

    /// Points for each percent. Where few packets are sent, one lost packet says little.
    fn loss_weight(&self) -> f64 {
        let weight = match self.codec {
            Codec::Opus => 8.0 / FEC,
            Codec::Red => 4.0 / FEC,
            Codec::Pcmu | Codec::Pcma => 8.0,
            Codec::Vp8 | Codec::Vp9 | Codec::Av1 | Codec::H264 | Codec::H265 => return 10.0,
        };
        weight * (self.expected as f64 / FULL_AUDIO_PACKETS).min(1.0).sqrt()
    }
}

/// The smoothed score of one stream.
#[derive(Clone, Copy, Debug)]
pub struct Score(f64);

impl Default for Score {
    fn default() -> Self {
        Self(BEST)
    }
}

impl Score {
    /// Takes an interval into account; `None` for one in which nothing had to come.
    pub fn update(&mut self, window: Option<Window>) -> f64 {
        let Some(window) = window else {
            self.0 = BEST;
            return BEST;
        };
        let new = window.score();
        let factor = if new < self.0 { FALL } else { RISE };
        self.0 = (self.0 + (new - self.0) * factor).max(FLOOR);
        self.0
    }
}

/// What a subscriber has reported of what it is sent.
#[derive(Clone, Copy, Default, Debug)]
pub struct Reported {
    score: Score,
    newest: Option<(Instant, Seen)>,
    /// At the end of the interval before.
    before: Option<Seen>,
    sent_before: Sent,
    jitter_ticks: u32,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    highest: u32,
    lost: i32,
}

/// What has left on one outgoing stream: packets, and numbers used.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Sent {
    pub packets: u32,
    pub next_number: u64,
}

impl Reported {
    /// A report block of the subscriber.
    pub fn handle(&mut self, now: Instant, block: &ReportBlock) {
        let seen = Seen { highest: block.highest_sequence_number, lost: block.cumulative_lost };
        self.before.get_or_insert(seen);
        self.newest = Some((now, seen));
        self.jitter_ticks = block.jitter;
    }

    /// Judges an interval in which the track had to be sent, or not. What happened in it comes
    /// with the score where it is known.
    pub fn judge(
        &mut self,
        now: Instant,
        sent: Sent,
        had_to_be_sent: bool,
        clock_rate: u32,
        mut window: Window,
    ) -> (f64, Option<Window>) {
        let packets = sent.packets.wrapping_sub(self.sent_before.packets);
        let numbers = sent.next_number.saturating_sub(self.sent_before.next_number);
        self.sent_before = sent;
        let seen = self.newest.map(|(_, seen)| seen);
        let before = std::mem::replace(&mut self.before, seen);
        if !had_to_be_sent || packets == 0 {
            return (self.score.update(None), None);
        }
        // Before the first report, and in an interval without one, nothing is known.
        let (Some((at, seen)), Some(before)) = (self.newest, before) else {
            return (self.score.0, None);
        };
        let expected = seen.highest.wrapping_sub(before.highest);
        if now.saturating_duration_since(at) < UNREPORTED && expected == 0 {
            return (self.score.0, None);
        }
        // What did not come from the publisher was not lost on the way to the subscriber.
        let missing = numbers.saturating_sub(u64::from(packets));
        let lost = u64::try_from(seen.lost.saturating_sub(before.lost)).unwrap_or(0);
        window.expected = u64::from(expected).min(1 << 24);
        window.lost = lost.saturating_sub(missing).min(window.expected);
        window.jitter = ticks(self.jitter_ticks.into(), clock_rate);
        (self.score.update(Some(window)), Some(window))
    }
}

/// What has been received of one stream.
#[derive(Clone, Copy, Default, Debug)]
pub struct Received {
    score: Score,
    expected_before: u64,
    arrived_before: u64,
}

impl Received {
    /// Judges an interval by totals so far; `window` is `None` where nothing had to come. What
    /// happened in it comes with the score.
    pub fn judge(
        &mut self,
        expected: u64,
        arrived: u64,
        window: Option<Window>,
    ) -> (f64, Option<Window>) {
        let expected_now = expected.saturating_sub(self.expected_before);
        let arrived_now = arrived.saturating_sub(self.arrived_before);
        (self.expected_before, self.arrived_before) = (expected, arrived);
        let lost = expected_now.saturating_sub(arrived_now);
        let window = window.map(|window| Window { expected: expected_now, lost, ..window });
        (self.score.update(window), window)
    }
}

/// A number of ticks of a clock.
pub fn ticks(ticks: u64, clock_rate: u32) -> Duration {
    Duration::from_micros(ticks.saturating_mul(1_000_000) / u64::from(clock_rate.max(1)))
}

/// The step of LiveKit's scale that a score is on, 3 best.
pub fn level(score: f64) -> u8 {
    match score {
        score if score > 80.0 => 3,
        score if score > 40.0 => 2,
        score if score > 20.0 => 1,
        _ => 0,
    }
}

/// Whether loss of a kind of track is judged before anybody gets it.
pub fn is_always_sent(kind: TrackKind) -> bool {
    kind == TrackKind::Audio
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(codec: Codec, lost: u64) -> Window {
        Window {
            codec,
            expected: 250,
            lost,
            round_trip: Duration::from_millis(40),
            jitter: Duration::from_millis(5),
            missing_layers: 0,
        }
    }

    #[test]
    fn loss_weighs_by_codec_and_recovers_slowly() {
        let settled = |codec, lost| {
            let mut score = Score::default();
            (0..10).map(|_| score.update(Some(window(codec, lost)))).last().unwrap()
        };
        // 2 %, 6 % and 20 %.
        let levels = |codec| [5, 15, 50].map(|lost| level(settled(codec, lost)));
        assert_eq!(levels(Codec::Red), [3, 3, 2]);
        assert_eq!(levels(Codec::Opus), [3, 2, 1]);
        assert_eq!(levels(Codec::Vp8), [2, 1, 1]);
        let mut score = Score::default();
        score.update(Some(window(Codec::Vp8, 250)));
        let rising: Vec<u8> =
            (0..5).map(|_| level(score.update(Some(window(Codec::Vp8, 0))))).collect();
        assert_eq!(rising, [2, 2, 3, 3, 3]);
        assert_eq!(score.update(None), BEST);
    }

    #[test]
    fn delay_layers_and_nothing_at_all_count() {
        let mut slow = window(Codec::Opus, 0);
        slow.round_trip = Duration::from_millis(700);
        assert_eq!(slow.score(), 76.0);
        let mut low = window(Codec::Vp8, 0);
        low.missing_layers = 2;
        assert_eq!(low.score(), 30.0);
        low.expected = 0;
        assert_eq!(level(low.score()), 1);
    }

    #[test]
    fn what_the_publisher_lost_is_not_held_against_the_subscriber() {
        let now = Instant::now();
        let block = |highest_sequence_number, cumulative_lost| ReportBlock {
            ssrc: parlor_model::Ssrc(1),
            fraction_lost: 0,
            cumulative_lost,
            highest_sequence_number,
            jitter: 0,
            last_sr: 0,
            delay_since_last_sr: 0,
        };
        let sent = |packets, next_number| Sent { packets, next_number };
        for (packets, excellent) in [(200, true), (250, false)] {
            let mut reported = Reported::default();
            reported.judge(now, sent(0, 1000), true, 48_000, window(Codec::Opus, 0));
            reported.handle(now, &block(1000, 0));
            reported.handle(now, &block(1250, 50));
            let sent = sent(packets, 1250);
            let (score, _) = reported.judge(now, sent, true, 48_000, window(Codec::Opus, 0));
            assert_eq!(level(score) == 3, excellent, "{score}");
        }
    }
}
