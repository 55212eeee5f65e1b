//! Probing: sending more than media for a moment to see whether it passes.

use crate::{
    bucket::{EMPTY_QUEUE_MS, TokenBucket},
    sent::{PacketResult, ProbeCluster},
};

/// How long a probe lasts, in microseconds.
const DURATION_US: i64 = 25_000;
/// Where there is a token bucket, a probe lasts until that would be empty. It has at least so many
/// bytes or lasts for at least so many microseconds, and at most for so many.
const LONG_LEAST_BYTES: f64 = 6_000.0;
const LONG_LEAST_US: f64 = 200_000.0;
const LONG_MAX_US: f64 = 1_500_000.0;
/// A long probe asks for no more than this times the estimate, and ends when there is a queue.
const LONG_RATE_FACTOR: f64 = 1.6;
/// A shorter queue is none.
const QUEUED_MS: f64 = 8.0;
/// The queue that a probe may cause if the estimate is all that the link carries, in microseconds.
const QUEUE_MAX_US: i64 = 80_000;
const PACKETS_LEAST: u32 = 5;
/// A probe is at least so large if the queue that it may cause allows that: links let a few
/// thousand bytes through at once, which are left out of what is measured.
const GOAL_LEAST_BYTES: f64 = 9_000.0;
const SKIPPED_BYTES: f64 = 4_000.0;
/// A packet of a probe holds up what comes behind it for no longer, at the rate of the probe.
const PACKET_MAX_US: f64 = 20_000.0;
const PACKET_BYTES: std::ops::RangeInclusive<f64> = 100.0..=1200.0;
/// A probe that could not be sent in this time is given up, in microseconds.
const SEND_TIMEOUT_US: i64 = 500_000;
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
/// Less than this share arriving makes a probe worthless.
const RECEIVED_LEAST: f64 = 0.6;
/// A probe that took longer to arrive met something else, in microseconds.
const LENGTH_MAX_US: i64 = 2_000_000;
/// The link was full if packets arrived at less than this share of the rate they were sent at.
const UNSATURATED: f64 = 0.9;
/// And if they took longer by this to arrive than to be sent.
const STRETCHED: f64 = 1.05;
/// What is taken of a rate at which the link was full.
const SATURATED_SHARE: f64 = 0.95;
const INTERVAL_US: i64 = 2_500_000;
/// As [`INTERVAL_US`] while something is paused that a probe may bring back.
const INTERVAL_STARVING_US: i64 = 700_000;
/// As [`INTERVAL_US`] in the time of [`EAGER_US`].
const INTERVAL_EAGER_US: i64 = 1_000_000;
/// As [`INTERVAL_US`] while the link is used nearly as far as it is known to carry.
const INTERVAL_BUSY_US: i64 = 5_000_000;
/// So long after the first probe, and after one that found [`FAR`] more, there is one each
/// [`INTERVAL_EAGER_US`], in microseconds: one alone may have met a peer that was busy.
const EAGER_US: i64 = 4_000_000;
const FAR: f64 = 1.5;
/// After a drop the old rate is asked for again so much later, in microseconds.
const AFTER_DROP_US: i64 = 1_500_000;
const AFTER_DROP_SHARE: f64 = 0.85;

/// What is known when a probe may begin.
#[derive(Clone, Copy, Debug)]
pub struct ProbeInputs {
    /// The estimate in bits a second.
    pub estimate_bps: f64,
    /// What would be used if the link carried it, in bits a second.
    pub wanted_bps: f64,
    /// Whether something is paused for want of bandwidth.
    pub is_starving: bool,
    /// Whether less is sent than the estimate allows.
    pub is_application_limited: bool,
    /// Whether nearly all of the estimate arrives, so that media itself tests the link.
    pub is_used: bool,
    /// Whether there is a queue, or loss, that a probe would only make worse.
    pub is_congested: bool,
}

/// A probe, being sent or awaited.
#[derive(Clone, Copy, Debug)]
struct Probe {
    cluster: ProbeCluster,
    rate_bps: f64,
    began_us: i64,
    duration_us: f64,
    /// It outlasts the burst that the link lets through, so that any queue is its answer.
    is_long: bool,
    /// The longest queue that a packet of it met.
    queue_ms: f64,
    goal_bytes: f64,
    packet_bytes: usize,
    sent_bytes: u64,
    sent_packets: u32,
    /// When [`Prober::packet_bytes`] last gave a packet that has not been sent yet.
    asked_us: Option<i64>,
    accounted_packets: u32,
    accounted_bytes: u64,
    received_bytes: u64,
    first_sent_us: i64,
    last_sent_us: i64,
    /// Of what was received: when it was sent, and arrived, first and last.
    sent_us: Span,
    arrival_us: Span,
    /// Bytes at the start that [`Span`]s leave out: what a bucket of tokens lets through at once.
    skipped_bytes: u64,
    measured_packets: u32,
    carried: Carried,
}

/// What a full link carried: packets that waited, and the time from the packet before each.
#[derive(Clone, Copy, Default, Debug)]
struct Carried {
    last_arrival_us: Option<i64>,
    bytes: u64,
    time_us: i64,
    packets: u32,
}

impl Carried {
    fn on_packet(&mut self, arrival_us: i64, size_bytes: u64, queue_ms: f64) {
        let since_us = self.last_arrival_us.replace(arrival_us).map(|last_us| arrival_us - last_us);
        if let Some(since_us) = since_us.filter(|since_us| *since_us >= 0 && queue_ms > QUEUED_MS) {
            self.bytes += size_bytes;
            self.time_us += since_us;
            self.packets += 1;
        }
    }

    fn bps(&self) -> Option<f64> {
        let is_enough = self.packets >= PACKETS_LEAST && self.time_us > 0;
        is_enough.then(|| self.bytes as f64 * 8e6 / self.time_us as f64)
    }
}

/// First and last time of something, with the bytes of each.
#[derive(Clone, Copy, Debug)]
struct Span {
    first: (i64, u64),
    last: (i64, u64),
}

impl Span {
    const EMPTY: Self = Self { first: (i64::MAX, 0), last: (i64::MIN, 0) };

    fn add(&mut self, at_us: i64, size_bytes: u64) {
        if at_us < self.first.0 {
            self.first = (at_us, size_bytes);
        }
        if at_us >= self.last.0 {
            self.last = (at_us, size_bytes);
        }
    }

    fn length_us(&self) -> Option<i64> {
        self.last.0.checked_sub(self.first.0).filter(|length_us| *length_us > 0)
    }
}

/// What a probe found.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ProbeResult {
    /// What the link carried, in bits a second.
    pub bps: f64,
    /// What was asked, in bits a second.
    pub asked_bps: f64,
    /// Whether the link was full, so that it carries no more.
    pub is_saturated: bool,
    /// Whether the probe lasted long enough for others on the link to give way to it.
    pub is_long: bool,
    /// Whether it met a queue: without one nobody gave way.
    pub is_queued: bool,
    /// Whether a queue ended it.
    pub was_cut_short: bool,
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
        let is_long = self.bucket.is_suspected() && (!is_used || inputs.is_starving);
        let follow_up_bps = self.follow_up_bps.take();
        let asked_bps = match is_long {
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
        } else if inputs.is_application_limited {
            INTERVAL_US
        } else {
            INTERVAL_BUSY_US
        };
        self.next_us = Some(now_us + interval_us);
    }

    fn start(&mut self, rate_bps: f64, estimate_bps: f64, is_long: bool, now_us: i64) {
        self.last_cluster = self.last_cluster.checked_add(1).unwrap_or(1);
        let excess_bps = (rate_bps - estimate_bps).max(1.0);
        let time_us = |bytes: f64| bytes * 8e6 / rate_bps;
        let duration_us = if is_long {
            let lasts_us = self.bucket.lasts_us(rate_bps, estimate_bps);
            lasts_us.max(time_us(LONG_LEAST_BYTES).min(LONG_LEAST_US)).min(LONG_MAX_US)
        } else {
            let least_us = time_us(GOAL_LEAST_BYTES).max(DURATION_US as f64);
            least_us.min(QUEUE_MAX_US as f64 * estimate_bps / excess_bps)
        };
        let goal_bytes = rate_bps / 8.0 * duration_us / 1e6;
        let packet_bytes = goal_bytes / f64::from(PACKETS_LEAST);
        let packet_bytes = packet_bytes.min(rate_bps / 8e6 * PACKET_MAX_US);
        self.sending = Some(Probe {
            cluster: ProbeCluster(self.last_cluster),
            rate_bps,
            began_us: now_us,
            duration_us,
            is_long,
            queue_ms: 0.0,
            goal_bytes,
            packet_bytes: packet_bytes.clamp(*PACKET_BYTES.start(), *PACKET_BYTES.end()) as usize,
            sent_bytes: 0,
            sent_packets: 0,
            asked_us: None,
            accounted_packets: 0,
            accounted_bytes: 0,
            received_bytes: 0,
            first_sent_us: now_us,
            last_sent_us: now_us,
            sent_us: Span::EMPTY,
            arrival_us: Span::EMPTY,
            skipped_bytes: 0,
            measured_packets: 0,
            carried: Carried::default(),
        });
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
        let is_enough = probe.sent_bytes as f64 >= probe.goal_bytes;
        if is_enough && probe.sent_packets > PACKETS_LEAST {
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
        let size_bytes = u64::from(result.size_bytes);
        if !result.was_lost {
            probe.accounted_packets += 1;
            probe.accounted_bytes += size_bytes;
        }
        let Some(arrival_us) = result.arrival_us else { return };
        probe.queue_ms = probe.queue_ms.max(queue_ms);
        probe.carried.on_packet(arrival_us, size_bytes, queue_ms);
        probe.received_bytes += size_bytes;
        let skipped_bytes = probe.skipped_bytes + size_bytes;
        let may_skip = probe.goal_bytes >= 2.0 * SKIPPED_BYTES;
        if may_skip && skipped_bytes as f64 <= SKIPPED_BYTES {
            probe.skipped_bytes = skipped_bytes;
        } else {
            probe.measured_packets += 1;
            probe.sent_us.add(result.sent_us, size_bytes);
            probe.arrival_us.add(arrival_us, size_bytes);
        }
        if probe.is_cut_short() && self.cluster() == Some(cluster) {
            self.stop();
        }
    }

    /// The result of a probe that feedback has spoken of in whole, or in most part where the rest
    /// has had its time.
    pub fn poll_result(&mut self, rtt_us: i64, now_us: i64) -> Option<ProbeResult> {
        let is_over = |probe: &mut Probe| {
            let is_late = now_us - probe.last_sent_us > patience_us(rtt_us);
            probe.accounted_packets >= probe.sent_packets || is_late
        };
        let mut over = self.awaited.extract_if(.., is_over);
        over.find_map(|probe| match probe.is_cut_short() {
            true => probe.result_of_a_queue(),
            false => probe.result(),
        })
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

    /// Takes notice that congestion lowered the estimate.
    pub fn on_drop(&mut self, before_bps: f64, after_bps: f64, is_starving: bool, now_us: i64) {
        self.sending = None;
        // Long probes are gentle enough to go on in their time.
        let is_gentle = is_starving && self.bucket.is_suspected();
        if self.bucket.on_drop(after_bps, now_us) {
            // An empty bucket tells the truth.
            let is_empty = self.bucket.is_suspected();
            let wait_us = if is_empty { AFTER_DROP_US } else { INTERVAL_BUSY_US };
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

impl Probe {
    fn is_cut_short(&self) -> bool {
        self.is_long && self.queue_ms > EMPTY_QUEUE_MS
    }

    fn deadline_us(&self) -> i64 {
        self.began_us + self.duration_us as i64 + SEND_TIMEOUT_US
    }

    /// A queue ended it: the link carries what it carried meanwhile.
    fn result_of_a_queue(&self) -> Option<ProbeResult> {
        Some(ProbeResult {
            bps: SATURATED_SHARE * self.carried.bps()?,
            asked_bps: self.rate_bps,
            is_saturated: true,
            is_long: true,
            is_queued: true,
            was_cut_short: true,
        })
    }

    fn result(&self) -> Option<ProbeResult> {
        let received_share = self.received_bytes as f64 / self.sent_bytes as f64;
        // Where much was lost, the rate of the few that are left is chance.
        let least_packets = if received_share < 0.7 { 5 } else { 3 };
        let is_whole = received_share >= RECEIVED_LEAST && self.measured_packets >= least_packets;
        let sent_span_us = self.sent_us.length_us()?;
        let arrival_span_us = self.arrival_us.length_us()?;
        if !is_whole || arrival_span_us > LENGTH_MAX_US {
            return None;
        }
        // What was lost took its time at the bottleneck too. The last packet was sent, and the
        // first arrived, at an end of its span: its bytes do not count there.
        let rate_bps = |end_bytes: u64, span_us: i64| {
            self.received_bytes.saturating_sub(self.skipped_bytes + end_bytes) as f64 * 8e6
                / (span_us as f64 * received_share)
        };
        let sent_bps = rate_bps(self.sent_us.last.1, sent_span_us);
        let arrival_bps = rate_bps(self.arrival_us.first.1, arrival_span_us);
        // A full link holds the last packet up longer than the first. Rates alone differ where
        // the first is large and the last is small.
        let was_stretched = arrival_span_us as f64 > STRETCHED * sent_span_us as f64;
        let is_saturated = was_stretched && arrival_bps < UNSATURATED * sent_bps;
        let bps = if is_saturated {
            SATURATED_SHARE * received_share * arrival_bps
        } else if self.is_long && !was_stretched {
            sent_bps
        } else {
            sent_bps.min(arrival_bps)
        };
        Some(ProbeResult {
            bps,
            asked_bps: self.rate_bps,
            is_saturated,
            is_long: self.is_long,
            is_queued: self.queue_ms > QUEUED_MS,
            was_cut_short: false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sent::PacketKind;

    const INPUTS: ProbeInputs = ProbeInputs {
        estimate_bps: 300_000.0,
        wanted_bps: 2_000_000.0,
        is_starving: false,
        is_application_limited: true,
        is_used: false,
        is_congested: false,
    };

    /// Sends the probe that is due over a link of `capacity_bps`.
    fn run(prober: &mut Prober, now_us: i64, capacity_bps: i64) -> Option<ProbeResult> {
        run_with(prober, now_us, capacity_bps, |_, bytes| bytes)
    }

    /// The same with packets of other sizes than the probe asks for.
    fn run_with(
        prober: &mut Prober,
        mut now_us: i64,
        capacity_bps: i64,
        size: impl Fn(usize, usize) -> usize,
    ) -> Option<ProbeResult> {
        let mut free_us = 0;
        let cluster = prober.cluster();
        let mut nth = 0;
        while let Some(due_us) = prober.packet_due_us() {
            now_us = now_us.max(due_us);
            let bytes = size(nth, prober.packet_bytes(now_us).unwrap());
            nth += 1;
            prober.on_sent(bytes, now_us);
            free_us = now_us.max(free_us) + bytes as i64 * 8_000_000 / capacity_bps;
            prober.on_packet(
                &PacketResult {
                    sent_us: now_us,
                    arrival_us: Some(free_us),
                    size_bytes: bytes as u16,
                    kind: PacketKind::Padding,
                    cluster,
                    was_lost: false,
                },
                (free_us - now_us) as f64 / 1000.0,
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
            let result = run_with(&mut prober, 0, 1_000_000_000, size).unwrap();
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
        let inputs = ProbeInputs { is_application_limited: false, ..INPUTS };
        let mut prober = Prober::default();
        let mut begins_a_second_after = |begun_us: i64, inputs: &ProbeInputs| {
            prober.begin(inputs, begun_us);
            assert!(run(&mut prober, begun_us, 500_000).unwrap().is_saturated);
            prober.begin(inputs, begun_us + 1_000_000);
            prober.sending.take().is_some()
        };
        assert!(begins_a_second_after(0, &inputs), "the peer may have been busy");
        let is_used = ProbeInputs { is_used: true, ..inputs };
        assert!(!begins_a_second_after(2_000_000, &is_used), "media tests the link itself");
        assert!(!begins_a_second_after(20_000_000, &inputs));
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
        assert!(probe.is_long && probe.goal_bytes == LONG_LEAST_BYTES, "{probe:?}");
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
