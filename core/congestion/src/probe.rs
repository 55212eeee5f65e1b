//! Probing: sending more than media for a moment to see whether it passes.

mod reading;

pub use reading::ProbeResult;

use crate::{
    bucket::TokenBucket,
    sent::{PacketResult, ProbeCluster},
};
use reading::{Probe, UNSATURATED};
use std::ops::RangeInclusive;

/// How long a probe lasts, in microseconds.
const DURATION_US: i64 = 25_000;
/// Where there is a token bucket, a probe lasts until that would be empty; for at least so many
/// microseconds, and at most for so many.
const LONG_LEAST_US: f64 = 200_000.0;
const LONG_MAX_US: f64 = 1_500_000.0;
/// A long probe asks for no more than this times the estimate, and ends when there is a queue: others who
/// share the link hardly notice.
const LONG_RATE_FACTOR: f64 = 1.3;
/// As [`LONG_RATE_FACTOR`] while something is paused that a probe may bring back.
const LONG_RATE_FACTOR_STARVING: f64 = 1.6;
/// The queue that a probe may cause if the estimate is all that the link carries, in microseconds.
const QUEUE_MAX_US: i64 = 80_000;
/// A probe is at least so large if the queue that it may cause allows that.
const GOAL_LEAST_BYTES: f64 = 9_000.0;
/// So long after a probe its queue may be felt, in microseconds.
const AFTERMATH_US: i64 = 150_000;
/// For so long after a probe its packets may be a part of the rate that arrives, in microseconds.
const RATE_WINDOW_US: i64 = 1_000_000;
/// A packet that was asked for and not sent is asked for again, in microseconds.
const ASK_AGAIN_US: i64 = 10_000;
/// Probes whose results are awaited at once.
const AWAITED: usize = 4;
/// The first probe asks for this times the estimate, those that follow success for twice what
/// they found.
const FIRST_FACTOR: f64 = 3.0;
const NEXT_FACTOR: f64 = 2.0;
/// A little more than what is wanted, so that what is found is not a little less.
const WANTED_FACTOR: f64 = 1.1;
const SUCCESS: f64 = 0.7;
/// From one probe to the next: so long for each bit a second of the estimate, within bounds. Of a link that
/// others share, who has much disturbs them less often.
const INTERVAL_US_PER_BPS: f64 = 5.0;
const INTERVAL_US: RangeInclusive<i64> = 3_500_000..=10_000_000;
/// As [`INTERVAL_US`] while something is paused that a probe may bring back.
const INTERVAL_STARVING_US: i64 = 700_000;
/// As [`INTERVAL_US`] in the time of [`EAGER_US`].
const INTERVAL_EAGER_US: i64 = 1_000_000;
/// So long after the first probe, and after one that found [`FAR`] more, there is one each
/// [`INTERVAL_EAGER_US`], in microseconds: one alone may have met a peer that was busy.
const EAGER_US: i64 = 4_000_000;
const FAR: f64 = 1.5;
/// After a drop the old rate is asked for again so much later, in microseconds.
const AFTER_DROP_US: i64 = 1_500_000;
const AFTER_DROP_SHARE: f64 = 0.85;
/// After a drop that says that a short probe deceived, in microseconds.
const AFTER_DECEPTION_US: i64 = 5_000_000;

/// What is known when a probe may begin.
#[derive(Clone, Copy, Debug)]
pub struct ProbeInputs {
    /// The estimate in bits a second.
    pub estimate_bps: f64,
    /// What would be used if the link carried it, in bits a second.
    pub wanted_bps: f64,
    /// Whether something is paused for want of bandwidth.
    pub is_starving: bool,
    /// Whether nearly all of the estimate arrives, so that media itself tests the link.
    pub is_used: bool,
    /// Whether there is a queue, or loss, that a probe would only make worse.
    pub is_congested: bool,
}

/// Decides when to probe and at which rate, and reads what comes of it.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Prober {
    sending: Option<Probe>,
    /// At most [`AWAITED`], and mostly none: no memory is looked through then.
    awaited: Vec<Probe>,
    last_cluster: u16,
    /// When the last probe was sent, from its first packet to its last.
    last_sent_us: Option<(i64, i64)>,
    next_us: Option<i64>,
    /// See [`EAGER_US`].
    eager_until_us: Option<i64>,
    /// See [`Self::verify`].
    verifies: bool,
    /// A rate to ask for next, out of turn.
    follow_up_bps: Option<f64>,
    /// What may be behind the results of short probes.
    pub bucket: TokenBucket,
}

impl Prober {
    /// The rate that is being probed at, in bits a second.
    pub fn rate_bps(&self) -> Option<f64> {
        self.sending.map(|probe| probe.rate_bps)
    }

    /// The probe that what is sent now is a part of.
    #[inline]
    pub fn cluster(&self) -> Option<ProbeCluster> {
        self.sending.as_ref().map(|probe| probe.cluster)
    }

    /// When [`Self::poll_result`] and [`Self::begin`] may have something to do, in microseconds.
    pub fn next_us(&self, rtt_us: i64) -> Option<i64> {
        if let Some(probe) = self.sending {
            return Some(probe.deadline_us() + 1);
        }
        let awaited = self.awaited.iter();
        awaited.map(|probe| probe.last_sent_us + patience_us(rtt_us) + 1).min().or(self.next_us)
    }

    /// Whether a packet sent then was part of a probe or met what a probe left in the queue, so
    /// that its delay says nothing about media.
    pub fn has_disturbed(&self, sent_us: i64) -> bool {
        let is_near = |(from_us, to_us)| from_us <= sent_us && sent_us < to_us + AFTERMATH_US;
        let sending = self.sending.iter().any(|probe| probe.first_sent_us <= sent_us);
        sending || self.last_sent_us.is_some_and(is_near)
    }

    /// Whether what arrives may be what a probe sent.
    fn was_sent_since(&self, at_us: i64) -> bool {
        self.last_sent_us.is_some_and(|(_, to_us)| to_us > at_us)
    }

    /// Whether what arrives is what a probe sent to a link that lets much through at once: only its
    /// result says what passes.
    pub fn may_deceive(&self, now_us: i64) -> bool {
        let is_sent = self.sending.is_some() || self.was_sent_since(now_us - RATE_WINDOW_US);
        self.bucket.is_suspected() && is_sent
    }

    /// Whether there has been a probe.
    pub fn has_probed(&self) -> bool {
        self.last_cluster != 0
    }

    fn is_awaiting(&self) -> bool {
        self.sending.is_some() || !self.awaited.is_empty()
    }

    /// Begins none before `at_us`.
    pub fn wait_until(&mut self, at_us: i64) {
        self.next_us = Some(at_us);
    }

    /// Begins a probe if it is time for one.
    pub fn begin(&mut self, inputs: &ProbeInputs, now_us: i64) {
        if self.sending.is_some_and(|probe| now_us > probe.deadline_us()) {
            self.sending = None;
        }
        if inputs.wanted_bps <= inputs.estimate_bps {
            self.next_us = None;
            return;
        }
        let next_us = *self.next_us.get_or_insert(now_us);
        if now_us < next_us || self.is_awaiting() {
            return;
        }
        if inputs.is_congested {
            self.next_us = Some(now_us + 200_000);
            return;
        }
        self.bucket.handle_timeout(now_us);
        // Where media itself tests the link a short probe raises the estimate by little.
        let is_used = inputs.is_used && !self.was_sent_since(now_us - RATE_WINDOW_US);
        let verifies = std::mem::take(&mut self.verifies);
        let is_long = verifies || self.bucket.is_suspected() && (!is_used || inputs.is_starving);
        let follow_up_bps = self.follow_up_bps.take();
        let asked_bps = match is_long {
            true if inputs.is_starving => LONG_RATE_FACTOR_STARVING * inputs.estimate_bps,
            true => LONG_RATE_FACTOR * inputs.estimate_bps,
            false => follow_up_bps.unwrap_or(FIRST_FACTOR * inputs.estimate_bps),
        };
        let asked_bps = asked_bps.clamp(inputs.estimate_bps, WANTED_FACTOR * inputs.wanted_bps);
        self.start(asked_bps, inputs.estimate_bps, is_long, now_us);
        let eager_until_us = *self.eager_until_us.get_or_insert(now_us + EAGER_US);
        let is_eager = now_us < eager_until_us && !inputs.is_used;
        let interval_us = if inputs.is_starving {
            INTERVAL_STARVING_US
        } else if is_eager {
            INTERVAL_EAGER_US
        } else {
            let interval_us = (INTERVAL_US_PER_BPS * inputs.estimate_bps) as i64;
            interval_us.clamp(*INTERVAL_US.start(), *INTERVAL_US.end())
        };
        self.next_us = Some(now_us + interval_us);
    }

    /// Asks soon again what a short probe seems to have found, by a long one.
    pub fn verify(&mut self, now_us: i64) {
        self.verifies = true;
        self.next_us = Some(now_us);
    }

    fn start(&mut self, rate_bps: f64, estimate_bps: f64, is_long: bool, now_us: i64) {
        self.last_cluster = self.last_cluster.checked_add(1).unwrap_or(1);
        let excess_bps = (rate_bps - estimate_bps).max(1.0);
        let time_us = |bytes: f64| bytes * 8e6 / rate_bps;
        let duration_us = if is_long {
            let lasts_us = self.bucket.lasts_us(rate_bps, estimate_bps);
            lasts_us.clamp(LONG_LEAST_US, LONG_MAX_US)
        } else {
            let least_us = time_us(GOAL_LEAST_BYTES).max(DURATION_US as f64);
            least_us.min(QUEUE_MAX_US as f64 * estimate_bps / excess_bps)
        };
        let cluster = ProbeCluster(self.last_cluster);
        self.sending = Some(Probe::new(cluster, rate_bps, duration_us, is_long, now_us));
    }

    /// When the next packet of the probe is due, in microseconds.
    pub fn packet_due_us(&self) -> Option<i64> {
        let probe = self.sending?;
        let sent_us = probe.sent_bytes as f64 * 8e6 / probe.rate_bps;
        let due_us = probe.first_sent_us + sent_us as i64;
        Some(probe.asked_us.map_or(due_us, |asked_us| due_us.max(asked_us + ASK_AGAIN_US)))
    }

    /// Bytes of the packet to send now so that the probe keeps its rate.
    pub fn packet_bytes(&mut self, now_us: i64) -> Option<usize> {
        self.packet_due_us().filter(|due_us| *due_us <= now_us)?;
        let probe = self.sending.as_mut()?;
        probe.asked_us = Some(now_us);
        Some(probe.packet_bytes)
    }

    /// Takes a packet that was sent as part of the probe, whatever it carries.
    pub fn on_sent(&mut self, size_bytes: usize, now_us: i64) {
        let Some(probe) = &mut self.sending else { return };
        if probe.sent_packets == 0 {
            probe.first_sent_us = now_us;
        }
        probe.sent_packets += 1;
        probe.sent_bytes += size_bytes as u64;
        probe.last_sent_us = now_us;
        probe.asked_us = None;
        if probe.is_sent() {
            self.stop();
        }
    }

    /// Sends no more of the probe.
    fn stop(&mut self) {
        let Some(probe) = self.sending.take() else { return };
        self.last_sent_us = Some((probe.first_sent_us, probe.last_sent_us));
        if self.awaited.len() == AWAITED {
            self.awaited.remove(0);
        }
        self.awaited.push(probe);
    }

    /// Takes what feedback said of a packet of a probe, which waited in queues for `queue_ms`.
    #[inline]
    pub fn on_packet(&mut self, result: &PacketResult, queue_ms: f64) {
        if let Some(cluster) = result.cluster {
            self.on_probe_packet(cluster, result, queue_ms);
        }
    }

    fn on_probe_packet(&mut self, cluster: ProbeCluster, result: &PacketResult, queue_ms: f64) {
        let probes = self.awaited.iter_mut().chain(&mut self.sending);
        let Some(probe) = { probes }.find(|probe| probe.cluster == cluster) else { return };
        probe.on_packet(result, queue_ms);
        if probe.is_cut_short() && self.cluster() == Some(cluster) {
            self.stop();
        }
    }

    /// The result of a probe that feedback has spoken of in whole, or in most part where the rest
    /// has had its time.
    pub fn poll_result(&mut self, rtt_us: i64, now_us: i64) -> Option<ProbeResult> {
        let is_over = |probe: &mut Probe| {
            let is_late = now_us - probe.last_sent_us > patience_us(rtt_us);
            probe.is_accounted() || is_late
        };
        let mut over = self.awaited.extract_if(.., is_over);
        over.find_map(|probe| probe.result())
    }

    /// Takes notice that a result raised the estimate from `before_bps`, and asks for more while
    /// there is more to find.
    pub fn on_raised(&mut self, result: &ProbeResult, before_bps: f64, now_us: i64) {
        self.bucket.on_raised(before_bps, result.bps, now_us);
        if result.bps > FAR * before_bps && !result.is_queued {
            self.eager_until_us = Some(now_us + EAGER_US);
            self.next_us = self.next_us.map(|at_us| at_us.min(now_us + INTERVAL_EAGER_US));
        }
        if !result.is_saturated && result.bps > SUCCESS * result.asked_bps {
            self.follow_up_bps = Some(NEXT_FACTOR * result.bps);
            self.next_us = Some(now_us);
        }
    }

    /// Takes notice of a result that raised nothing: a long probe takes its time, in which the estimate may
    /// have grown as far.
    pub fn on_not_raised(&mut self, result: &ProbeResult, now_us: i64) {
        let has_passed = !result.is_queued && result.bps > UNSATURATED * result.asked_bps;
        if result.is_long && has_passed {
            self.next_us = Some(now_us);
        }
    }

    /// Takes notice that congestion lowered the estimate.
    pub fn on_drop(&mut self, before_bps: f64, after_bps: f64, is_starving: bool, now_us: i64) {
        self.sending = None;
        // Long probes are gentle enough to go on in their time.
        let is_gentle = is_starving && self.bucket.is_suspected();
        if self.bucket.on_drop(after_bps, now_us) {
            // An empty bucket tells the truth.
            let is_empty = self.bucket.is_suspected();
            let wait_us = if is_empty { AFTER_DROP_US } else { AFTER_DECEPTION_US };
            self.next_us = Some(now_us + wait_us);
            self.follow_up_bps = None;
        } else if after_bps < 0.8 * before_bps && !is_gentle {
            self.follow_up_bps = Some(AFTER_DROP_SHARE * before_bps);
            self.next_us = Some(now_us + AFTER_DROP_US);
        }
    }
}

/// How long feedback on a probe may take, in microseconds.
fn patience_us(rtt_us: i64) -> i64 {
    2 * rtt_us + 500_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sent::PacketKind;

    const INPUTS: ProbeInputs = ProbeInputs {
        estimate_bps: 300_000.0,
        wanted_bps: 2_000_000.0,
        is_starving: false,
        is_used: false,
        is_congested: false,
    };

    /// Sends the probe that is due over a link of `capacity_bps`.
    fn run(prober: &mut Prober, now_us: i64, capacity_bps: i64) -> Option<ProbeResult> {
        run_with(prober, now_us, |_, bytes| bytes, carried(capacity_bps))
    }

    /// For how long packets of a link wait and are sent, in microseconds.
    fn carried(capacity_bps: i64) -> impl FnMut(i64, usize) -> i64 {
        let mut free_us = 0;
        move |now_us, bytes| {
            free_us = now_us.max(free_us) + bytes as i64 * 8_000_000 / capacity_bps;
            free_us - now_us
        }
    }

    /// As [`run`] with packets of other sizes than the probe asks for, and delayed by `delay_us` of when they
    /// are sent and their size.
    fn run_with(
        prober: &mut Prober,
        mut now_us: i64,
        size: impl Fn(usize, usize) -> usize,
        mut delay_us: impl FnMut(i64, usize) -> i64,
    ) -> Option<ProbeResult> {
        let cluster = prober.cluster();
        let mut nth = 0;
        while let Some(due_us) = prober.packet_due_us() {
            now_us = now_us.max(due_us);
            let bytes = size(nth, prober.packet_bytes(now_us).unwrap());
            nth += 1;
            prober.on_sent(bytes, now_us);
            let delay_us = delay_us(now_us, bytes);
            prober.on_packet(
                &PacketResult {
                    sent_us: now_us,
                    arrival_us: Some(now_us + delay_us),
                    size_bytes: bytes as u16,
                    kind: PacketKind::Padding,
                    cluster,
                    was_lost: false,
                },
                delay_us as f64 / 1000.0,
            );
        }
        // The last packet left `sending` before its result came.
        prober.poll_result(100_000, now_us + 1_000_000)
    }

    #[test]
    fn a_probe_that_passes_finds_its_own_rate_and_is_followed_by_a_faster_one() {
        let mut prober = Prober::default();
        prober.begin(&INPUTS, 0);
        assert_eq!(prober.rate_bps(), Some(900_000.0));
        let result = run(&mut prober, 0, 10_000_000).unwrap();
        assert!(!result.is_saturated);
        assert!((850_000.0..950_000.0).contains(&result.bps), "{result:?}");
        prober.on_raised(&result, 300_000.0, 200_000);
        prober.begin(&ProbeInputs { estimate_bps: 900_000.0, ..INPUTS }, 200_000);
        assert!(prober.rate_bps().unwrap() > 1_700_000.0);
    }

    #[test]
    fn packets_of_all_sizes_do_not_make_an_open_link_look_full() {
        for small in 0..12 {
            let mut prober = Prober::default();
            prober.begin(&ProbeInputs { wanted_bps: 400_000.0, ..INPUTS }, 0);
            let size = |nth, _| if nth >= small { 90 } else { 1100 };
            let result = run_with(&mut prober, 0, size, carried(1_000_000_000)).unwrap();
            assert!(!result.is_saturated, "{small}: {result:?}");
        }
    }

    #[test]
    fn a_probe_that_fills_the_link_finds_its_capacity() {
        let mut prober = Prober::default();
        prober.begin(&INPUTS, 0);
        let result = run(&mut prober, 0, 500_000).unwrap();
        assert!(result.is_saturated);
        assert!((450_000.0..510_000.0).contains(&result.bps), "{result:?}");
    }

    #[test]
    fn at_the_beginning_one_probe_soon_follows_another() {
        let mut prober = Prober::default();
        let mut begins_a_second_after = |begun_us: i64, inputs: &ProbeInputs| {
            prober.begin(inputs, begun_us);
            assert!(run(&mut prober, begun_us, 500_000).unwrap().is_saturated);
            prober.begin(inputs, begun_us + 1_000_000);
            prober.sending.take().is_some()
        };
        assert!(begins_a_second_after(0, &INPUTS), "the peer may have been busy");
        let is_used = ProbeInputs { is_used: true, ..INPUTS };
        assert!(!begins_a_second_after(2_000_000, &is_used), "media tests the link itself");
        assert!(!begins_a_second_after(20_000_000, &INPUTS));
    }

    #[test]
    fn nothing_is_probed_that_nobody_wants_or_that_would_hurt() {
        let mut prober = Prober::default();
        prober.begin(&ProbeInputs { wanted_bps: 300_000.0, ..INPUTS }, 0);
        assert_eq!(prober.rate_bps(), None);
        prober.begin(&ProbeInputs { is_congested: true, ..INPUTS }, 0);
        assert_eq!(prober.rate_bps(), None);
    }

    #[test]
    fn a_gentle_probe_fails_by_the_queue_that_it_causes_and_by_no_other() {
        let result = |delay_us: fn(i64) -> i64| {
            let mut prober = Prober::default();
            prober.verify(0);
            prober.begin(&INPUTS, 0);
            assert_eq!(prober.rate_bps(), Some(LONG_RATE_FACTOR * INPUTS.estimate_bps));
            let mut nth = 0;
            let delay_us = |_, _| {
                nth += 1;
                delay_us(nth)
            };
            run_with(&mut prober, 0, |_, bytes| bytes, delay_us).unwrap()
        };
        let jitters = result(|nth| [9_000, 2_000, 6_000][nth as usize % 3]);
        assert!(jitters.is_long && !jitters.is_queued, "{jitters:?}");
        assert!(result(|nth| 3_000 + 2_000 * nth).is_queued);
    }

    #[test]
    fn where_short_probes_deceive_they_become_longer() {
        let mut prober = Prober::default();
        prober.begin(&INPUTS, 0);
        let result = run(&mut prober, 0, 10_000_000).unwrap();
        prober.on_raised(&result, 300_000.0, 100_000);
        prober.on_drop(900_000.0, 320_000.0, false, 500_000);
        prober.on_raised(&result, 300_000.0, 600_000);
        prober.on_drop(900_000.0, 320_000.0, false, 1_000_000);
        let at_us = 1_000_000 + AFTER_DROP_US;
        prober.begin(&INPUTS, at_us);
        let probe = prober.sending.unwrap();
        assert!(probe.is_long && probe.duration_us == LONG_LEAST_US, "{probe:?}");
        let result = run(&mut prober, at_us, 310_000);
        assert_eq!(result, None, "a queue is the answer");

        // After a pause the link lets much through at once again.
        let at_us = at_us + 10_000_000;
        prober.bucket.on_traffic(0, INPUTS.estimate_bps, at_us);
        prober.begin(&INPUTS, at_us);
        let probe = prober.sending.unwrap();
        assert!(probe.is_long && probe.goal_bytes > 16_000.0, "{probe:?}");
        assert_eq!(probe.rate_bps, LONG_RATE_FACTOR * INPUTS.estimate_bps);
        let result = run(&mut prober, at_us, 310_000);
        assert_eq!(result, None, "a queue is the answer");
    }
}
