//! One probe: what is sent of it, and what feedback says that the link made of it.

use crate::{
    bucket::EMPTY_QUEUE_MS,
    sent::{PacketResult, ProbeCluster},
};
use std::ops::RangeInclusive;

const PACKETS_LEAST: u32 = 5;
/// A packet of a probe holds up what comes behind it for no longer, at the rate of the probe.
const PACKET_MAX_US: f64 = 20_000.0;
const PACKET_BYTES: RangeInclusive<f64> = 100.0..=1200.0;
/// A probe that could not be sent in this time is given up, in microseconds.
const SEND_TIMEOUT_US: i64 = 500_000;
/// Of a probe twice as large, so many bytes at the start are left out of what is measured: links let a few
/// thousand through at once.
const SKIPPED_BYTES: f64 = 4_000.0;
/// A shorter queue is none.
const QUEUED_MS: f64 = 4.0;
/// A long probe met a queue that it caused where its end waited so much longer than its beginning: by less
/// they differ where delays jitter.
const GREW_MS: f64 = 4.0;
/// Less than this share arriving makes a probe worthless.
const RECEIVED_LEAST: f64 = 0.6;
/// A probe that took longer to arrive met something else, in microseconds.
const LENGTH_MAX_US: i64 = 2_000_000;
/// The link was full if packets arrived at less than this share of the rate they were sent at.
pub const UNSATURATED: f64 = 0.9;
/// And if they took longer by this to arrive than to be sent.
const STRETCHED: f64 = 1.05;
/// What is taken of a rate at which the link was full.
const SATURATED_SHARE: f64 = 0.95;

/// A probe, being sent or awaited.
#[derive(Clone, Copy, Debug)]
pub struct Probe {
    /// Its id.
    pub cluster: ProbeCluster,
    /// What it asks of the link, in bits a second.
    pub rate_bps: f64,
    began_us: i64,
    pub duration_us: f64,
    /// It outlasts the burst that the link lets through, so that any queue is its answer.
    pub is_long: bool,
    queue: MetQueue,
    /// How much is to be sent of it.
    pub goal_bytes: f64,
    /// The size of its packets.
    pub packet_bytes: usize,
    pub sent_bytes: u64,
    pub sent_packets: u32,
    /// When a packet was asked for that has not been sent yet.
    pub asked_us: Option<i64>,
    accounted_packets: u32,
    received_bytes: u64,
    pub first_sent_us: i64,
    pub last_sent_us: i64,
    /// Of what was received: when it was sent, and arrived, first and last.
    sent_us: Span,
    arrival_us: Span,
    /// Bytes at the start that [`Span`]s leave out: what a bucket of tokens lets through at once.
    skipped_bytes: u64,
    measured_packets: u32,
    carried: Carried,
}

impl Probe {
    /// One that begins now.
    pub fn new(
        cluster: ProbeCluster,
        rate_bps: f64,
        duration_us: f64,
        is_long: bool,
        now_us: i64,
    ) -> Self {
        let goal_bytes = rate_bps / 8.0 * duration_us / 1e6;
        let packet_bytes = goal_bytes / f64::from(PACKETS_LEAST);
        let packet_bytes = packet_bytes.min(rate_bps / 8e6 * PACKET_MAX_US);
        Self {
            cluster,
            rate_bps,
            began_us: now_us,
            duration_us,
            is_long,
            queue: MetQueue::default(),
            goal_bytes,
            packet_bytes: packet_bytes.clamp(*PACKET_BYTES.start(), *PACKET_BYTES.end()) as usize,
            sent_bytes: 0,
            sent_packets: 0,
            asked_us: None,
            accounted_packets: 0,
            received_bytes: 0,
            first_sent_us: now_us,
            last_sent_us: now_us,
            sent_us: Span::EMPTY,
            arrival_us: Span::EMPTY,
            skipped_bytes: 0,
            measured_packets: 0,
            carried: Carried::default(),
        }
    }

    /// When it is given up unless all of it has been sent, in microseconds.
    pub fn deadline_us(&self) -> i64 {
        self.began_us + self.duration_us as i64 + SEND_TIMEOUT_US
    }

    /// Whether all of it has been sent.
    pub fn is_sent(&self) -> bool {
        self.sent_bytes as f64 >= self.goal_bytes && self.sent_packets > PACKETS_LEAST
    }

    /// Takes what feedback said of a packet of it, which waited in queues for `queue_ms`.
    pub fn on_packet(&mut self, result: &PacketResult, queue_ms: f64) {
        let size_bytes = u64::from(result.size_bytes);
        if !result.was_lost {
            self.accounted_packets += 1;
        }
        let Some(arrival_us) = result.arrival_us else { return };
        self.queue.on_packet(queue_ms, self.received_bytes as f64 / self.goal_bytes);
        self.carried.on_packet(arrival_us, size_bytes, queue_ms);
        self.received_bytes += size_bytes;
        let skipped_bytes = self.skipped_bytes + size_bytes;
        let may_skip = self.goal_bytes >= 2.0 * SKIPPED_BYTES;
        if may_skip && skipped_bytes as f64 <= SKIPPED_BYTES {
            self.skipped_bytes = skipped_bytes;
        } else {
            self.measured_packets += 1;
            self.sent_us.add(result.sent_us, size_bytes);
            self.arrival_us.add(arrival_us, size_bytes);
        }
    }

    /// Whether feedback has spoken of all of it.
    pub fn is_accounted(&self) -> bool {
        self.accounted_packets >= self.sent_packets
    }

    /// Whether a queue ends it.
    pub fn is_cut_short(&self) -> bool {
        self.is_long && self.queue.longest_ms > EMPTY_QUEUE_MS
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

    /// What it found; `None` where that is worth nothing.
    pub fn result(&self) -> Option<ProbeResult> {
        if self.is_cut_short() {
            return self.result_of_a_queue();
        }
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
            is_queued: match self.is_long {
                true => self.queue.grew_ms() > GREW_MS,
                false => self.queue.longest_ms > QUEUED_MS,
            },
            was_cut_short: false,
        })
    }
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

/// The queue that packets of a probe met.
#[derive(Clone, Copy, Default, Debug)]
struct MetQueue {
    longest_ms: f64,
    /// Of the first quarter and of the last.
    first: Mean,
    last: Mean,
}

impl MetQueue {
    /// `position`: the share of the probe that has arrived before.
    fn on_packet(&mut self, queue_ms: f64, position: f64) {
        self.longest_ms = self.longest_ms.max(queue_ms);
        if position < 0.25 {
            self.first.add(queue_ms);
        } else if position >= 0.75 {
            self.last.add(queue_ms);
        }
    }

    fn grew_ms(&self) -> f64 {
        self.last.value() - self.first.value()
    }
}

#[derive(Clone, Copy, Default, Debug)]
struct Mean {
    sum: f64,
    count: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1.0;
    }

    fn value(&self) -> f64 {
        self.sum / self.count.max(1.0)
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
    /// Whether it met a queue, or caused one if it is long.
    pub is_queued: bool,
    /// Whether a queue ended it.
    pub was_cut_short: bool,
}
