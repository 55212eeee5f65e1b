//! The estimate for a peer that gives no transport-wide feedback: REMB and receiver reports.

use parlor_rtp::rtcp::ReportBlock;

/// A REMB holds this long, in microseconds.
const REMB_LIFETIME_US: i64 = 5_000_000;
const UPDATE_US: i64 = 900_000;
/// Below this share of loss the estimate grows, above the other it falls.
const LOSS_LOW: f64 = 0.02;
const LOSS_HIGH: f64 = 0.1;
const GROWTH: f64 = 1.08;
/// More than this share lost is what does not fit: the rest is what the link carries.
const LOSS_FLOOD: f64 = 0.3;
/// The estimate grows to so many times what is sent, so that the next layer is tried: nothing
/// shows whether it fits but sending it.
const UNPROVEN: f64 = 4.0;
/// What was lost at is not reached again for so long, and twice as long each time that it is lost
/// at again, in microseconds.
const PATIENCE_US: i64 = 15_000_000;
const PATIENCE_MAX_US: i64 = 240_000_000;
/// Without packets to report on for so long, what is paused is tried again, in microseconds.
const QUIET_US: i64 = 10_000_000;
const QUIET_GROWTH: f64 = 1.5;
/// Falls so close together are one.
const EPISODE_US: i64 = 5_000_000;
const CEILING: f64 = 0.9;
/// What is reported so soon after a fall was sent before it, or waited, in microseconds.
const SETTLING_US: i64 = 1_500_000;
/// Streams whose loss is followed; the reports of more are ignored.
pub const STREAMS_MAX: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Stream {
    ssrc: u32,
    highest: u32,
    cumulative_lost: i32,
}

/// Follows REMB (draft-alvestrand-rmcat-remb-03) and the loss in receiver reports
/// (RFC 3550 section 6.4.1).
#[derive(Debug)]
pub struct ReportEstimate {
    estimate_bps: f64,
    remb: Option<(i64, f64)>,
    streams: Vec<Stream>,
    packets: u32,
    lost: u32,
    /// Share that the newest reports told of.
    loss: f64,
    updated_us: i64,
    ceiling_bps: f64,
    fell_us: Option<i64>,
    patience_us: i64,
}

impl ReportEstimate {
    /// Starts at `start_bps`.
    pub fn new(start_bps: f64) -> Self {
        Self {
            estimate_bps: start_bps,
            remb: None,
            streams: Vec::new(),
            packets: 0,
            lost: 0,
            loss: 0.0,
            updated_us: 0,
            ceiling_bps: f64::INFINITY,
            fell_us: None,
            patience_us: PATIENCE_US,
        }
    }

    /// The estimate in bits a second.
    pub fn estimate_bps(&self, now_us: i64) -> f64 {
        self.remb_bps(now_us).map_or(self.estimate_bps, |bps| bps.min(self.estimate_bps))
    }

    /// Share of packets that the newest reports call lost.
    pub fn loss(&self) -> f64 {
        self.loss
    }

    fn remb_bps(&self, now_us: i64) -> Option<f64> {
        self.remb.filter(|(at_us, _)| now_us - at_us < REMB_LIFETIME_US).map(|(_, bps)| bps)
    }

    /// Takes the receiver's own estimate.
    pub fn on_remb(&mut self, bps: f64, now_us: i64) {
        self.remb = Some((now_us, bps));
        // The receiver sees delay, which reports do not show: it may lead.
        self.estimate_bps = self.estimate_bps.max(bps);
    }

    /// Takes a report about one stream. `sent_bps` is what is sent in all.
    pub fn on_report(&mut self, report: &ReportBlock, sent_bps: Option<f64>, now_us: i64) {
        self.count(report);
        if now_us - self.updated_us < UPDATE_US || self.packets == 0 {
            return;
        }
        self.updated_us = now_us;
        let loss = f64::from(self.lost) / f64::from(self.packets);
        (self.packets, self.lost, self.loss) = (0, 0, loss);
        if self.fell_us.is_some_and(|at_us| now_us - at_us < SETTLING_US) {
            return;
        }
        if loss > LOSS_HIGH {
            let base_bps = sent_bps.map_or(self.estimate_bps, |bps| bps.min(self.estimate_bps));
            let kept = if loss > LOSS_FLOOD { 1.0 - loss } else { 1.0 - 0.5 * loss };
            self.estimate_bps = base_bps * kept;
            self.fall(base_bps, now_us);
        } else if loss < LOSS_LOW {
            let limit_bps = self
                .remb_bps(now_us)
                .or(sent_bps.map(|bps| self.unproven_bps(bps, now_us)))
                .unwrap_or(self.estimate_bps);
            let grown_bps = GROWTH * self.estimate_bps + 1_000.0;
            self.estimate_bps = grown_bps.min(limit_bps).max(self.estimate_bps);
        }
    }

    /// When to call [`Self::retry`], in microseconds.
    pub fn retry_us(&self) -> i64 {
        let patient_us = self.fell_us.map_or(0, |at_us| at_us + self.patience_us);
        patient_us.max(self.updated_us + QUIET_US)
    }

    /// Reports tell of nothing and something is paused: nothing but sending it will show whether it
    /// fits. Raises `estimate_bps`.
    pub fn retry(&mut self, estimate_bps: f64, now_us: i64) {
        self.updated_us = now_us;
        self.estimate_bps = QUIET_GROWTH * estimate_bps;
    }

    fn fall(&mut self, from_bps: f64, now_us: i64) {
        if self.fell_us.is_none_or(|at_us| now_us - at_us > 2 * PATIENCE_MAX_US) {
            self.patience_us = PATIENCE_US;
        } else if self.fell_us.is_some_and(|at_us| now_us - at_us > EPISODE_US) {
            self.patience_us = (2 * self.patience_us).min(PATIENCE_MAX_US);
        }
        self.ceiling_bps = CEILING * from_bps;
        self.fell_us = Some(now_us);
    }

    fn unproven_bps(&self, sent_bps: f64, now_us: i64) -> f64 {
        let is_over = self.fell_us.is_none_or(|at_us| now_us - at_us > self.patience_us);
        let bps = UNPROVEN * sent_bps + 10_000.0;
        if is_over { bps } else { bps.min(self.ceiling_bps) }
    }

    fn count(&mut self, report: &ReportBlock) {
        let now = Stream {
            ssrc: report.ssrc.0,
            highest: report.highest_sequence_number,
            cumulative_lost: report.cumulative_lost,
        };
        let Some(stream) = self.streams.iter_mut().find(|stream| stream.ssrc == now.ssrc) else {
            if self.streams.len() < STREAMS_MAX {
                self.streams.push(now);
            }
            return;
        };
        let packets = now.highest.wrapping_sub(stream.highest);
        let lost = now.cumulative_lost.wrapping_sub(stream.cumulative_lost);
        *stream = now;
        // A report that goes back, or jumps, is of a stream that began anew.
        if packets < 1 << 15 {
            self.packets = self.packets.saturating_add(packets);
            let lost = u32::try_from(lost).unwrap_or(0).min(packets);
            self.lost = self.lost.saturating_add(lost);
        }
    }
}

/// How much is sent, over about half a second.
#[derive(Debug, Default)]
pub struct SentRate {
    started_us: Option<i64>,
    bytes: u64,
    bps: Option<f64>,
}

impl SentRate {
    /// Takes what was sent since this was called last.
    pub fn on_sent(&mut self, size_bytes: usize, now_us: i64) {
        let started_us = *self.started_us.get_or_insert(now_us);
        let elapsed_us = now_us - started_us;
        if elapsed_us >= 500_000 {
            self.bps = Some(self.bytes as f64 * 8e6 / elapsed_us as f64);
            self.started_us = Some(now_us);
            self.bytes = 0;
        }
        self.bytes += size_bytes as u64;
    }

    /// Bits a second, `None` before there is half a second to tell of.
    pub fn bps(&self) -> Option<f64> {
        self.bps
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_model::Ssrc;

    fn report(highest_sequence_number: u32, cumulative_lost: i32) -> ReportBlock {
        ReportBlock {
            ssrc: Ssrc(1),
            fraction_lost: 0,
            cumulative_lost,
            highest_sequence_number,
            jitter: 0,
            last_sr: 0,
            delay_since_last_sr: 0,
        }
    }

    #[test]
    fn remb_leads_while_it_is_young() {
        let mut estimate = ReportEstimate::new(300_000.0);
        estimate.on_remb(1_000_000.0, 0);
        assert_eq!(estimate.estimate_bps(1), 1_000_000.0);
        estimate.on_remb(200_000.0, 1_000_000);
        assert_eq!(estimate.estimate_bps(1_000_001), 200_000.0);
    }

    #[test]
    fn reports_of_loss_lower_and_of_none_raise() {
        let mut estimate = ReportEstimate::new(300_000.0);
        estimate.on_report(&report(0, 0), Some(280_000.0), 0);
        estimate.on_report(&report(100, 0), Some(280_000.0), 1_000_000);
        assert!(estimate.estimate_bps(0) > 320_000.0);
        estimate.on_report(&report(200, 20), Some(280_000.0), 2_000_000);
        assert_eq!(estimate.estimate_bps(0), 280_000.0 * 0.9);
        // What was under way does not lower it once more.
        estimate.on_report(&report(300, 90), Some(280_000.0), 3_000_000);
        assert_eq!(estimate.estimate_bps(0), 280_000.0 * 0.9);
        estimate.on_report(&report(400, 140), Some(250_000.0), 4_000_000);
        assert_eq!(estimate.estimate_bps(0), 250_000.0 * 0.5);
        estimate.on_report(&report(5, i32::MIN), Some(250_000.0), 6_000_000);
        assert_eq!(estimate.estimate_bps(0), 250_000.0 * 0.5);
    }

    #[test]
    fn what_was_lost_at_is_tried_again_ever_more_rarely() {
        let mut estimate = ReportEstimate::new(2_000_000.0);
        let (mut tries, mut highest, mut lost, mut falls) = (Vec::new(), 0, 0, false);
        // A link of 600 kbit/s, and layers of 200 kbit/s, 500 kbit/s and 1.8 Mbit/s.
        for second in 0..600 {
            let bps = estimate.estimate_bps(second * 1_000_000);
            let sent_bps = match bps as u64 {
                1_800_000.. => 1_800_000.0,
                500_000.. => 500_000.0,
                _ => 200_000.0,
            };
            highest += 100;
            let is_flood = sent_bps > 600_000.0;
            lost += if is_flood { 67 } else { 0 };
            if is_flood && !falls {
                tries.push(second);
            }
            falls = is_flood;
            estimate.on_report(&report(highest, lost), Some(sent_bps), second * 1_000_000);
        }
        assert!((4..=6).contains(&tries.len()), "{tries:?}");
        assert!(tries[1] < 60, "{tries:?}");
    }

    #[test]
    fn streams_are_bounded() {
        let mut estimate = ReportEstimate::new(300_000.0);
        for ssrc in 0..STREAMS_MAX as u32 + 1 {
            estimate.on_report(&ReportBlock { ssrc: Ssrc(ssrc), ..report(0, 0) }, None, 0);
        }
        assert_eq!(estimate.streams.len(), STREAMS_MAX);
    }
}
