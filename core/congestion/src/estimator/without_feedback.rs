//! A peer that gives no transport-wide feedback, or none any more: REMB and reports lead, silence
//! lowers, and what is paused is tried again.

use super::{ESTIMATE_MAX_BPS, ESTIMATE_MIN_BPS, Estimator};
use crate::state::Cause;
use parlor_model::Bitrate;
use parlor_rtp::rtcp::ReportBlock;
use std::time::{Duration, Instant};

/// Feedback older than this no longer outranks reports, in microseconds.
const FEEDBACK_LIFETIME_US: i64 = 5_000_000;
const SILENCE_US: i64 = 1_000_000;
/// A peer that gives no feedback gives reports at least so often, in microseconds.
const REPORTS_US: i64 = 5_000_000;
const SILENCE_STEP_US: i64 = 500_000;
const SILENCE_FACTOR: f64 = 0.7;
/// Fewer packets under way may be the end of a stream, whose loss no feedback tells.
const SILENCE_PACKETS: u64 = 10;

impl Estimator {
    /// Takes the receiver's own estimate (draft-alvestrand-rmcat-remb-03). It counts only while no
    /// transport-wide feedback comes.
    pub fn on_remb(&mut self, bitrate: Bitrate, now: Instant) {
        let now_us = self.turn(now);
        self.hear_arrivals(now_us);
        let bps = bitrate.0.clamp(ESTIMATE_MIN_BPS, ESTIMATE_MAX_BPS) as f64;
        self.reports.on_remb(bps, now_us);
        self.follow_reports(now_us);
    }

    /// Takes what a receiver report says of one stream, with the round trip where it tells it.
    /// Loss counts only while no transport-wide feedback comes.
    pub fn on_receiver_report(
        &mut self,
        report: &ReportBlock,
        rtt: Option<Duration>,
        now: Instant,
    ) {
        let now_us = self.turn(now);
        self.hear_arrivals(now_us);
        if let Some(rtt) = rtt.filter(|_| !self.has_feedback(now_us)) {
            self.rtt_us = rtt.as_micros().min(10_000_000) as i64;
        }
        self.reports.on_report(report, self.sent.bps(), now_us);
        self.follow_reports(now_us);
    }

    /// The peer has been heard: from now on it should give feedback, or reports, on what is sent.
    /// Without either the estimate falls.
    pub fn expect_feedback(&mut self, now: Instant) {
        if !self.expects_feedback {
            self.expects_feedback = true;
            self.silence_us = self.turn(now);
        }
    }

    /// The peer asks for single packets again: the others arrive.
    pub fn on_nack(&mut self, now: Instant) {
        let now_us = self.turn(now);
        self.hear_arrivals(now_us);
    }

    /// Where no feedback has ever come, this says that what is sent does arrive.
    fn hear_arrivals(&mut self, now_us: i64) {
        self.expects_feedback = true;
        if self.feedback_us.is_none() {
            self.silence_us = now_us + REPORTS_US - SILENCE_US;
        }
    }

    pub(super) fn has_feedback(&self, now_us: i64) -> bool {
        self.feedback_us.is_some_and(|at_us| now_us - at_us < FEEDBACK_LIFETIME_US)
    }

    fn follow_reports(&mut self, now_us: i64) {
        if self.has_feedback(now_us) {
            return;
        }
        let bps = self.reports.estimate_bps(now_us);
        self.estimate_bps = bps.clamp(ESTIMATE_MIN_BPS as f64, ESTIMATE_MAX_BPS as f64);
        self.cause = Cause::Reports;
    }

    /// Does what silence, or the time since the last reports, asks for by now.
    pub(super) fn follow_silence(&mut self, now_us: i64) {
        if self.silence_due_us().is_some_and(|due_us| due_us <= now_us) {
            self.silence_us = now_us - SILENCE_US + SILENCE_STEP_US;
            let bps = (SILENCE_FACTOR * self.estimate_bps).max(ESTIMATE_MIN_BPS as f64);
            self.rate.set_estimate(bps, now_us);
            self.estimate_bps = bps;
            self.cause = Cause::Silence;
            self.is_braking = false;
        }
        if self.retry_due_us().is_some_and(|due_us| due_us <= now_us) {
            self.reports.retry(self.estimate_bps, now_us);
            self.follow_reports(now_us);
        }
    }

    /// When silence lowers the estimate: a while after the last feedback, or the first packet,
    /// while packets that should have had some are under way.
    pub(super) fn silence_due_us(&self) -> Option<i64> {
        let is_lowest = self.estimate_bps <= ESTIMATE_MIN_BPS as f64;
        if is_lowest || !self.expects_feedback || self.history.in_flight_packets() < SILENCE_PACKETS
        {
            return None;
        }
        let sent_us = self.history.oldest_in_flight_us()?;
        Some(sent_us.max(self.silence_us) + SILENCE_US + 2 * self.rtt_us)
    }

    /// When what is paused is tried again for a peer that has never given feedback.
    pub(super) fn retry_due_us(&self) -> Option<i64> {
        let is_reported = matches!(self.cause, Cause::Reports | Cause::Silence);
        let is_due = self.is_starving && is_reported && self.feedback_us.is_none();
        is_due.then(|| self.reports.retry_us())
    }

    #[inline]
    pub(super) fn awaits_feedback(&self) -> bool {
        self.expects_feedback && self.history.in_flight_packets() >= SILENCE_PACKETS
    }
}
