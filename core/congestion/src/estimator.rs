//! The estimator: all of it behind one face.

mod without_feedback;

use crate::{
    acknowledged::AcknowledgedRate,
    brake::Brake,
    delay::{DelayDetector, Usage},
    fallback::{ReportEstimate, SentRate},
    loss::LossBound,
    probe::{ProbeInputs, ProbeResult, Prober},
    rate::RateControl,
    sent::{PacketKind, ProbeCluster, SentHistory},
    state::{Cause, EstimatorState},
};
use parlor_rtp::rtcp::TransportFeedback;
use std::time::{Duration, Instant};

/// The estimate is never below this, in bits a second.
pub const ESTIMATE_MIN_BPS: u64 = 20_000;
/// The estimate is never above this, in bits a second.
pub const ESTIMATE_MAX_BPS: u64 = 1_000_000_000;
/// Media leaves at up to this times the estimate, so that the pacer's queue empties.
const PACING_FACTOR: f64 = 1.04;
/// As [`PACING_FACTOR`] while there is a queue at the bottleneck.
const PACING_FACTOR_QUEUE: f64 = 0.9;
const QUEUE_MS: f64 = 50.0;
/// What waits leaves no faster than the link carried when it was full, and by this share more for
/// each second since; that is forgotten after so many seconds, or when a probe finds so much more.
const FULL_GROWTH_PER_SECOND: f64 = 0.04;
const FULL_FORGOTTEN_S: f64 = 5.0;
const FULL_REFUTED: f64 = 1.5;
/// Drops within this time are of one queue.
const SAME_QUEUE_S: f64 = 0.5;
/// A drop with a queue this long is no mistake: no short probe refutes it.
const FULL_SURE_MS: f64 = 100.0;
/// And after one to this share of the estimate short probes are not believed.
const FAR_FALL: f64 = 0.4;
/// Without feedback on media for so long, and two round trips, nothing is known of queues any more.
const IDLE_US: i64 = 1_000_000;
/// A gradient without at least this queue is noise.
const QUEUE_LEAST_MS: f64 = 25.0;
/// As [`QUEUE_LEAST_MS`] where packets are lost: the queue may be short.
const QUEUE_LEAST_LOSSY_MS: f64 = 8.0;
const LOSS_NOTED: f64 = 0.01;
/// No probe while the queue is longer.
const QUEUE_PROBE_MAX_MS: f64 = 40.0;
/// Loss with a queue this long is the queue's end: no need to wait for the gradient.
const QUEUE_FULL_MS: f64 = 60.0;
/// With a queue this long and so small a share of the estimate arriving, capacity has fallen: the
/// gradient would say so when the queue is full.
const FLOODED_MS: f64 = 70.0;
const FLOODED: f64 = 0.6;
const FULL_LOST_LEAST: u32 = 4;
const FULL_LOSS: f64 = 0.15;
/// Of what the estimate is, no less is taken to arrive with a queue that is not long: who uses less of it
/// has not made the queue, and has others on the link.
const OTHERS_QUEUE: f64 = 0.7;
/// The estimate is in full use where this share of it arrives.
const USED_SHARE: f64 = 0.9;
const AFTER_DECREASE_US: i64 = 600_000;
const LOST_LATELY_US: i64 = 20_000_000;
/// Without media, and so without feedback, the first probe goes out then, in microseconds.
const FIRST_PROBE_US: i64 = 500_000;
/// Nothing probes for a peer that gives reports only: it begins where they may lower it.
const REPORTS_START_BPS: f64 = 2_000_000.0;
const RTT_START_US: i64 = 100_000;
/// What is sent is added up for no longer than this before rates are worked out, in microseconds.
const ACCOUNT_US: i64 = 50_000;

/// A packet to send now for the sake of a probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProbePacket {
    /// The probe.
    pub cluster: ProbeCluster,
    /// How large it should be, in bytes.
    pub size_bytes: usize,
}

/// Estimates what the way to one peer carries. See the crate's page. In this order in memory: what
/// each packet needs lies side by side, at the beginning.
#[derive(Debug)]
#[repr(C)]
pub struct Estimator {
    /// What was sent since then and is in no rate yet.
    unaccounted_bytes: usize,
    accounted_us: i64,
    /// See [`Self::timeout_has_changed`].
    timeout_has_changed: bool,
    watches_silence: bool,
    /// See [`Self::expect_feedback`].
    expects_feedback: bool,
    history: SentHistory,
    prober: Prober,
    epoch: Instant,
    delay: DelayDetector,
    rate: RateControl,
    loss: LossBound,
    acknowledged: AcknowledgedRate,
    /// Its rate after the newest feedback.
    arriving_bps: Option<f64>,
    reports: ReportEstimate,
    sent: SentRate,
    rtt_us: i64,
    feedback_us: Option<i64>,
    /// When feedback last told of packets that were no part of a probe.
    media_us: Option<i64>,
    silence_us: i64,
    /// When feedback told of packets that were lost without a queue.
    lost_us: Option<i64>,
    wanted_bps: f64,
    is_starving: bool,
    estimate_bps: f64,
    cause: Cause,
    full: Option<Full>,
    last_probe: Option<ProbeResult>,
    brake: Brake,
    is_braking: bool,
}

impl Estimator {
    /// Starts at `start_bps`.
    pub fn new(now: Instant, start_bps: u64) -> Self {
        let start_bps = start_bps.clamp(ESTIMATE_MIN_BPS, ESTIMATE_MAX_BPS) as f64;
        Self {
            epoch: now,
            history: SentHistory::default(),
            delay: DelayDetector::default(),
            rate: RateControl::new(start_bps),
            loss: LossBound::default(),
            acknowledged: AcknowledgedRate::default(),
            arriving_bps: None,
            prober: Prober::default(),
            reports: ReportEstimate::new(start_bps.max(REPORTS_START_BPS)),
            sent: SentRate::default(),
            unaccounted_bytes: 0,
            accounted_us: 0,
            timeout_has_changed: true,
            watches_silence: false,
            rtt_us: RTT_START_US,
            feedback_us: None,
            media_us: None,
            silence_us: 0,
            lost_us: None,
            expects_feedback: false,
            wanted_bps: 0.0,
            is_starving: false,
            estimate_bps: start_bps,
            cause: Cause::Start,
            full: None,
            last_probe: None,
            brake: Brake::default(),
            is_braking: false,
        }
    }

    /// Microseconds since it was made.
    pub fn micros(&self, now: Instant) -> i64 {
        now.saturating_duration_since(self.epoch).as_micros() as i64
    }

    /// Takes a packet that was sent. `sequence_number` is its transport-wide one, `None` when it
    /// has none; `size_bytes` is all of it as UDP carries it.
    ///
    /// While a probe is under way every numbered packet is a part of it.
    pub fn on_sent(
        &mut self,
        sequence_number: Option<u16>,
        now: Instant,
        size_bytes: usize,
        kind: PacketKind,
    ) {
        let now_us = self.micros(now);
        self.on_sent_at(sequence_number, now_us, size_bytes, kind);
        self.account(now_us);
    }

    /// As [`Self::on_sent`], at a time by [`Self::micros`]: for whoever sends many at once. Rates
    /// are worked out now and then.
    #[inline(always)]
    pub fn on_sent_at(
        &mut self,
        sequence_number: Option<u16>,
        now_us: i64,
        size_bytes: usize,
        kind: PacketKind,
    ) {
        self.unaccounted_bytes += size_bytes;
        if let Some(sequence_number) = sequence_number {
            let cluster = self.prober.cluster();
            self.history.on_sent(sequence_number, now_us, size_bytes, kind, cluster);
            if cluster.is_some() {
                self.note_probe(size_bytes, now_us);
            }
        }
        if now_us - self.accounted_us >= ACCOUNT_US {
            self.account(now_us);
        }
    }

    #[cold]
    fn note_probe(&mut self, size_bytes: usize, now_us: i64) {
        self.prober.on_sent(size_bytes, now_us);
        self.timeout_has_changed = true;
    }

    #[inline(never)]
    fn account(&mut self, now_us: i64) {
        let size_bytes = std::mem::take(&mut self.unaccounted_bytes);
        self.prober.bucket.on_traffic(size_bytes, self.estimate_bps, now_us);
        if size_bytes > 0 {
            self.accounted_us = now_us;
            self.sent.on_sent(size_bytes, now_us);
        }
    }

    /// Takes the time of anything but packets that were sent and feedback on them: rates are worked
    /// out, and timeouts may move.
    fn turn(&mut self, now: Instant) -> i64 {
        let now_us = self.micros(now);
        self.account(now_us);
        self.timeout_has_changed = true;
        now_us
    }

    /// Takes transport-wide feedback
    /// (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1).
    ///
    /// Returns of how many packets it says something for the first time.
    pub fn on_feedback(&mut self, feedback: &TransportFeedback<'_>, now: Instant) -> u32 {
        let now_us = self.micros(now);
        self.account(now_us);
        let probes_us = self.prober.next_us(self.rtt_us);
        let Self { history, loss, prober, delay, brake, acknowledged, media_us, .. } = self;
        let (mut told, mut lost) = (0, 0);
        let mut newest_us = None;
        history.on_feedback(feedback, |result| {
            told += 1;
            loss.on_packet(result);
            let Some(arrival_us) = result.arrival_us else {
                prober.on_packet(result, 0.0);
                lost += 1;
                return;
            };
            if prober.has_disturbed(result.sent_us) {
                delay.on_disturbed_packet(result.sent_us, arrival_us);
            } else {
                delay.on_packet(result.sent_us, arrival_us);
                *media_us = Some(now_us);
            }
            let queue_ms = delay.last_queue_delay_ms();
            brake.on_packet(arrival_us, result.size_bytes, queue_ms);
            prober.on_packet(result, queue_ms);
            acknowledged.on_packet(arrival_us, result.size_bytes, queue_ms);
            newest_us = newest_us.max(Some(result.sent_us));
        });
        if told == 0 {
            return 0;
        }
        self.feedback_us = Some(now_us);
        self.expects_feedback = true;
        self.silence_us = now_us;
        self.arriving_bps = self.acknowledged.bps();
        if let Some(newest_us) = newest_us {
            self.rtt_us += (now_us - newest_us - self.rtt_us) / 4;
        }
        if lost > 0 && self.delay.queue_delay_ms() < QUEUE_MS {
            self.lost_us = Some(now_us);
        }
        self.is_braking = self.brake.is_on(self.estimate_bps);
        self.follow_delay(told, lost, now_us);
        self.follow_loss(now_us);
        self.follow_probes(now_us);
        self.combine();
        self.begin_probe(now_us);
        // Silence is due later than before.
        self.timeout_has_changed |= self.prober.next_us(self.rtt_us) != probes_us;
        told
    }

    /// After feedback that said something of so many packets, and that so many of them are lost.
    fn follow_delay(&mut self, told: u32, lost: u32, now_us: i64) {
        let queue_ms = self.delay.queue_delay_ms();
        self.prober.bucket.on_queue(self.delay.last_queue_delay_ms());
        let is_full = queue_ms > QUEUE_FULL_MS
            && lost >= FULL_LOST_LEAST
            && f64::from(lost) / f64::from(told) > FULL_LOSS.max(2.5 * self.loss.inherent());
        // The queue is long, and what comes out of it is far less than what is sent into it.
        let is_flooded = queue_ms > FLOODED_MS
            && self.delay.last_queue_delay_ms() > FLOODED_MS
            && self.acknowledged.busy_bps().is_some_and(|bps| bps < FLOODED * self.estimate_bps);
        let is_lossy = self.loss.recent() > self.loss.inherent() + LOSS_NOTED;
        let queue_least_ms = if is_lossy { QUEUE_LEAST_LOSSY_MS } else { QUEUE_LEAST_MS };
        let usage = match self.delay.usage() {
            _ if is_full || is_flooded => Usage::Overusing,
            Usage::Overusing if queue_ms < queue_least_ms => Usage::Underusing,
            usage => usage,
        };
        let before_bps = self.estimate_bps;
        let mut acknowledged_bps = self.arriving_bps;
        match usage {
            Usage::Overusing => {
                let busy_bps = self.acknowledged.busy_bps().or(acknowledged_bps);
                let least_bps = if is_full || is_flooded { 0.0 } else { OTHERS_QUEUE * before_bps };
                acknowledged_bps = busy_bps.map(|bps| bps.max(least_bps));
            }
            Usage::Normal if self.is_starving && self.prober.may_deceive(now_us) => {
                acknowledged_bps = None;
            }
            _ => {}
        }
        if self.rate.update(usage, acknowledged_bps, self.rtt_us, now_us) {
            self.cause = Cause::Delay;
            // What the same queue lowers once more is no less sure.
            let was_sure =
                self.full.is_some_and(|full| full.is_sure && full.age_s(now_us) < SAME_QUEUE_S);
            let is_sure = was_sure || is_full || is_flooded || queue_ms > FULL_SURE_MS;
            self.full = acknowledged_bps.map(|bps| Full { bps, at_us: now_us, is_sure });
            if is_sure && self.rate.estimate_bps() < FAR_FALL * before_bps {
                self.prober.bucket.suspect(now_us);
            }
            // At the least estimate a probe is the only way up, and must not be cut short.
            if before_bps > ESTIMATE_MIN_BPS as f64 {
                let after_bps = self.rate.estimate_bps();
                self.prober.on_drop(before_bps, after_bps, self.is_starving, now_us);
            }
        } else if matches!(self.cause, Cause::Start | Cause::Silence | Cause::Reports) {
            self.cause = Cause::Steady;
        }
    }

    fn follow_loss(&mut self, now_us: i64) {
        let queue_grows = self.delay.queue_delay_ms() > QUEUE_MS;
        let before_bps = self.estimate_bps;
        if self.loss.update(self.rate.estimate_bps(), queue_grows, now_us)
            && let Some(bound_bps) = self.loss.bound_bps().filter(|bps| *bps < before_bps)
        {
            self.cause = Cause::Loss;
            self.prober.on_drop(before_bps, bound_bps, self.is_starving, now_us);
        }
    }

    fn follow_probes(&mut self, now_us: i64) {
        while let Some(result) = self.prober.poll_result(self.rtt_us, now_us) {
            if result.was_cut_short {
                // Of a link that others use too, what it carried of ours is no measure.
                if !self.is_starving {
                    continue;
                }
                self.prober.bucket.suspect(now_us);
            }
            self.last_probe = Some(result);
            if self.is_hint(&result) {
                self.prober.verify(now_us);
                continue;
            }
            if self.delay.usage() == Usage::Overusing && !self.is_idle(now_us) {
                continue;
            }
            let bps = self.believed_bps(&result, now_us);
            if bps <= self.estimate_bps {
                self.prober.on_not_raised(&result, now_us);
                self.follow_full_probe(&result, now_us);
                continue;
            }
            self.prober.on_raised(&ProbeResult { bps, ..result }, self.estimate_bps, now_us);
            self.loss.on_probe(bps);
            self.full.take_if(|full| bps > FULL_REFUTED * full.bps);
            if bps > self.rate.estimate_bps() {
                self.rate.set_estimate(bps, now_us);
            }
            if result.is_saturated {
                self.rate.set_capacity(bps);
            }
            self.cause = Cause::Probe;
            self.combine();
        }
    }

    /// What a probe raises the estimate to, unless that is higher. While something is paused it is what was
    /// found.
    fn believed_bps(&self, result: &ProbeResult, now_us: i64) -> f64 {
        let is_full = result.is_saturated || result.is_queued;
        let most_bps = match self.recently_full(now_us) {
            _ if self.is_starving => f64::INFINITY,
            _ if result.is_long && is_full => self.estimate_bps,
            Some(full) if !result.is_long && full.is_sure => full.grown_bps(now_us),
            _ => f64::INFINITY,
        };
        result.bps.min(most_bps)
    }

    /// Whether a short probe only says that a gentle one should be sent. What others use of a link it cannot
    /// tell from what is free, nor queues from delays that jitter; while something is paused there is no
    /// time for that.
    fn is_hint(&self, result: &ProbeResult) -> bool {
        let was_full = self.rate.decreased_us().is_some();
        let is_doubtful = if result.bps > self.estimate_bps {
            result.is_saturated || result.is_queued && was_full
        } else {
            !result.is_saturated
        };
        is_doubtful && !result.is_long && !self.is_starving
    }

    /// A probe that filled the link below the estimate tells that the estimate is too high, where
    /// it is not in use.
    fn follow_full_probe(&mut self, result: &ProbeResult, now_us: i64) {
        let bps = result.bps.max(self.arriving_bps.unwrap_or(0.0));
        if result.is_saturated && bps < self.rate.estimate_bps() {
            self.rate.set_estimate(bps, now_us);
            self.rate.set_capacity(bps);
            self.cause = Cause::Probe;
            self.combine();
        }
    }

    fn combine(&mut self) {
        let bound_bps = self.loss.bound_bps().unwrap_or(f64::INFINITY);
        let bps = self.rate.estimate_bps().min(bound_bps);
        self.estimate_bps = bps.clamp(ESTIMATE_MIN_BPS as f64, ESTIMATE_MAX_BPS as f64);
    }

    fn begin_probe(&mut self, now_us: i64) {
        if !self.may_probe() {
            return;
        }
        if self.feedback_us.is_none() && now_us < FIRST_PROBE_US {
            // Media is about to tell more gently.
            self.prober.wait_until(FIRST_PROBE_US);
            return;
        }
        let excess_loss = self.loss.recent() - self.loss.inherent();
        let was_lowered = self.rate.decreased_us();
        let inputs = ProbeInputs {
            estimate_bps: self.estimate_bps,
            wanted_bps: self.wanted_bps,
            is_starving: self.is_starving,
            is_used: self.arriving_bps.is_some_and(|bps| bps > USED_SHARE * self.estimate_bps),
            is_congested: was_lowered.is_some_and(|at_us| now_us - at_us < AFTER_DECREASE_US)
                || !self.is_idle(now_us)
                    && (self.delay.usage() == Usage::Overusing
                        || self.delay.queue_delay_ms() > QUEUE_PROBE_MAX_MS
                        || excess_loss > 0.1),
        };
        self.prober.begin(&inputs, now_us);
    }

    /// Nothing has been told of media for so long that what was known of queues and loss is over:
    /// without this, video that is paused alone would wait for ever behind a queue that is long
    /// gone.
    fn is_idle(&self, now_us: i64) -> bool {
        self.media_us.is_none_or(|at_us| now_us - at_us > IDLE_US + 2 * self.rtt_us)
    }

    /// The first probe tells whether feedback comes at all; without it there are no others, unless
    /// nothing at all is heard, for then the first may have met a path that was cut, or something
    /// is paused: where all is, nothing but a probe may ever be told of.
    fn may_probe(&self) -> bool {
        self.feedback_us.is_some()
            || !self.prober.has_probed()
            || self.cause == Cause::Silence
            || self.is_starving
    }

    /// Says what would be used if the link carried it, and whether something is paused for want
    /// of it. Probes look for no more than this.
    pub fn set_wanted(&mut self, wanted_bps: u64, is_starving: bool, now: Instant) {
        self.wanted_bps = wanted_bps.min(ESTIMATE_MAX_BPS) as f64;
        self.is_starving = is_starving;
        let now_us = self.turn(now);
        self.begin_probe(now_us);
    }

    /// The packet that a probe needs now. Ask again after sending it, and from
    /// [`Self::poll_timeout`] on.
    #[inline]
    pub fn poll_probe(&mut self, now: Instant) -> Option<ProbePacket> {
        let cluster = self.prober.cluster()?;
        self.timeout_has_changed = true;
        let size_bytes = self.prober.packet_bytes(self.micros(now))?;
        Some(ProbePacket { cluster, size_bytes })
    }

    /// Does what is due by `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now_us = self.turn(now);
        self.follow_silence(now_us);
        self.follow_probes(now_us);
        self.combine_unless_reported(now_us);
        self.begin_probe(now_us);
    }

    fn combine_unless_reported(&mut self, now_us: i64) {
        if self.has_feedback(now_us) {
            self.combine();
        }
    }

    /// Whether a probe is under way.
    #[inline]
    pub fn is_probing(&self) -> bool {
        self.prober.cluster().is_some()
    }

    /// Whether [`Self::timeout_has_changed`] may say so.
    #[inline]
    pub fn timeout_may_have_changed(&self) -> bool {
        self.timeout_has_changed || !self.watches_silence && self.awaits_feedback()
    }

    /// Whether [`Self::poll_timeout`] may say something sooner than when this was asked last. Most
    /// packets that are sent change nothing.
    #[inline]
    pub fn timeout_has_changed(&mut self) -> bool {
        let has_changed = self.timeout_may_have_changed();
        if has_changed {
            self.watches_silence = self.awaits_feedback();
            self.timeout_has_changed = false;
        }
        has_changed
    }

    /// When to call [`Self::handle_timeout`], then [`Self::poll_probe`].
    pub fn poll_timeout(&self) -> Option<Instant> {
        let next_us = self.prober.next_us(self.rtt_us).filter(|_| self.may_probe());
        let packet_us = self.prober.packet_due_us();
        let dues_us = [packet_us, next_us, self.silence_due_us(), self.retry_due_us()];
        let due_us = dues_us.into_iter().flatten().min()?;
        Some(self.epoch + Duration::from_micros(u64::try_from(due_us).unwrap_or(0)))
    }

    /// What the way to the peer carries, in bits a second.
    pub fn estimate_bps(&self) -> u64 {
        self.estimate_bps as u64
    }

    /// How fast the pacer may send, in bits a second.
    pub fn pacing_bps(&self) -> u64 {
        if self.is_braking {
            return ESTIMATE_MIN_BPS;
        }
        let is_queued = self.delay.queue_delay_ms() > QUEUE_MS;
        // A probe does not hurry what waits: that would go on at its rate when the probe is over.
        let factor = if is_queued { PACING_FACTOR_QUEUE } else { PACING_FACTOR };
        (factor * self.estimate_bps) as u64
    }

    /// Whether what can wait is to wait for the next feedback: a queue grows so fast that the
    /// estimate must be far too high.
    pub fn is_braking(&self) -> bool {
        self.is_braking
    }

    /// Whether the link itself has lost packets in the last 20 s: without a queue.
    pub fn has_lost_lately(&self, now: Instant) -> bool {
        self.lost_us.is_some_and(|at_us| self.micros(now) - at_us < LOST_LATELY_US)
    }

    /// What the link carries at most by what it carried when it was last full, in bits a second;
    /// `None` where it has not been lately.
    pub fn full_bps(&self, now: Instant) -> Option<u64> {
        let now_us = self.micros(now);
        self.recently_full(now_us).map(|full| full.grown_bps(now_us) as u64)
    }

    fn recently_full(&self, now_us: i64) -> Option<Full> {
        self.full.filter(|full| full.age_s(now_us) < FULL_FORGOTTEN_S)
    }

    /// Why the estimate is what it is.
    pub fn state(&self) -> EstimatorState {
        EstimatorState {
            estimate_bps: self.estimate_bps(),
            cause: self.cause,
            delay_bps: self.rate.estimate_bps() as u64,
            loss_bps: self.loss.bound_bps().map(|bps| bps as u64),
            acknowledged_bps: self.arriving_bps.map(|bps| bps as u64),
            usage: self.delay.usage(),
            queue_delay_ms: self.delay.queue_delay_ms(),
            trend_ms: self.delay.trend_ms(),
            threshold_ms: self.delay.threshold_ms(),
            loss: if self.cause == Cause::Reports {
                self.reports.loss()
            } else {
                self.loss.recent()
            },
            inherent_loss: self.loss.inherent(),
            rtt: Duration::from_micros(u64::try_from(self.rtt_us).unwrap_or(0)),
            wanted_bps: self.wanted_bps as u64,
            probing_bps: self.prober.rate_bps().map(|bps| bps as u64),
            last_probe: self.last_probe,
            is_guess: self.last_probe.is_none()
                && self.rate.decreased_us().is_none()
                && matches!(self.cause, Cause::Start | Cause::Steady),
        }
    }
}

/// What arrived when the link was last full, and when that was.
#[derive(Clone, Copy, Debug)]
struct Full {
    bps: f64,
    at_us: i64,
    is_sure: bool,
}

impl Full {
    fn age_s(&self, now_us: i64) -> f64 {
        (now_us - self.at_us) as f64 / 1e6
    }

    fn grown_bps(&self, now_us: i64) -> f64 {
        self.bps * (1.0 + FULL_GROWTH_PER_SECOND * self.age_s(now_us))
    }
}
