//! Servers that forward video and audio to subscribers over one bottleneck, in virtual time.
#![allow(dead_code)]

use parlor_congestion::{
    Allocation, Estimator, EstimatorState, Hysteresis, Layer, LayerBitrates, Paced, Pacer,
    PacketKind, Priority, Reason, TrackDemand, TrackKind, allocate, wanted_bps,
};
use parlor_model::Ssrc;
use parlor_netem::{Link, LinkConfig};
use parlor_rtp::rtcp::{
    FeedbackSsrcs, Rtcp, TransportFeedbackFields, packets, write_transport_feedback,
};
use std::time::{Duration, Instant};

pub const MS: Duration = Duration::from_millis(1);
pub const LAYERS_BPS: [u32; 3] = [160_000, 450_000, 1_700_000];
const AUDIO_BYTES: usize = 120;
const AUDIO_BPS: u32 = 48_000;
const FRAMES_PER_SECOND: u64 = 30;
/// Opus with two older frames in each packet (RED), as livekit-client sends it.
const RED_BYTES: usize = 290;
/// As often, in frames, a busy machine encodes nothing for [`STALL`] and then catches up.
const STALL_EVERY: u64 = 60;
const STALL: Duration = Duration::from_millis(250);
/// A keyframe is so many times as large as another frame.
const KEYFRAME_FACTOR: usize = 6;
/// From asking for a keyframe until it comes.
const KEYFRAME_WAIT: Duration = Duration::from_millis(150);
/// A jitter buffer holds audio for so long at least; it grows with what comes later, and shrinks by
/// a millisecond with each packet.
const PLAYOUT_MS: f64 = 40.0;
const FEEDBACK_EVERY: Duration = Duration::from_millis(100);
const ALLOCATE_EVERY: Duration = Duration::from_millis(50);
const RISE_WAIT: Duration = Duration::from_secs(2);
const PACKET_BYTES_MAX: usize = 1200;
const HEADER_BYTES: usize = 12;

#[derive(Clone, Copy, Debug)]
struct Handle {
    size_bytes: usize,
    kind: PacketKind,
    layer: u8,
}

/// What happened in one second to one subscriber.
#[derive(Clone, Copy, Default, Debug)]
pub struct Second {
    pub sent: u32,
    pub lost: u32,
    pub padding_bytes: u64,
    pub media_bytes: u64,
    pub frames: u32,
    pub queue_ms_max: f64,
    pub audio_queue_ms: Mean,
    pub concealed_ms: f64,
    pub estimate_bps: u64,
    pub layer: Option<u8>,
    pub dropped: u32,
}

/// Sum and count.
#[derive(Clone, Copy, Default, Debug)]
pub struct Mean {
    pub sum: f64,
    pub count: u32,
}

pub struct Flow {
    pub estimator: Estimator,
    pacer: Pacer<Handle>,
    next_sequence_number: u16,
    next_audio: Instant,
    next_frame: Instant,
    next_feedback: Instant,
    next_allocation: Instant,
    sending: Option<u8>,
    target: Option<u8>,
    keyframe_at: Option<Instant>,
    fell: Option<Instant>,
    pub reason: Reason,
    frame_count: u64,
    /// Receiver: arrivals by sequence number since the last feedback.
    feedback_base: u16,
    arrivals_us: Vec<Option<i64>>,
    feedback_count: u8,
    delays_ms: Vec<f64>,
    pub seconds: Vec<Second>,
    allocations: Vec<Allocation>,
    pub wants: u8,
    /// Sends as much as the estimate allows, without layers.
    pub is_elastic: bool,
    /// Audio with redundancy, and an encoder that stalls.
    pub is_busy: bool,
    active_from: Instant,
    seed: u64,
    pub one_way_us: i64,
    playout_ms: f64,
}

pub struct World {
    pub start: Instant,
    pub now: Instant,
    pub link: Link<Vec<u8>>,
    back: Link<Vec<u8>>,
    pub flows: Vec<Flow>,
    config: LinkConfig,
    pub trace: bool,
}

pub fn link(rate_bps: Option<u64>) -> LinkConfig {
    LinkConfig { delay: 20 * MS, rate_bps, queue: 200 * MS, ..LinkConfig::default() }
}

fn hash(n: u64) -> u64 {
    let n = (n ^ n >> 31).wrapping_mul(0x7FB5_D329_728E_A185);
    (n ^ n >> 27).wrapping_mul(0x81DA_DEF4_BC2D_D44D) ^ n >> 33
}

impl World {
    pub fn new(config: LinkConfig, flows: usize, seed: u64) -> Self {
        let start = Instant::now();
        let back = LinkConfig { delay: config.delay, ..LinkConfig::default() };
        let one_way_us = config.delay.as_micros() as i64;
        let mut world = Self {
            start,
            now: start,
            link: Link::new(config.clone(), seed),
            back: Link::new(back, seed + 1),
            flows: (0..flows as u64)
                .map(|n| Flow::new(start + (hash(seed << 8 | n) % 100) as u32 * MS, seed << 8 | n))
                .collect(),
            config,
            trace: false,
        };
        world.flows.iter_mut().for_each(|flow| flow.one_way_us = one_way_us);
        world
    }

    pub fn all_elastic(mut self) -> Self {
        self.flows.iter_mut().for_each(|flow| flow.is_elastic = true);
        self
    }

    pub fn all_busy(mut self) -> Self {
        self.flows.iter_mut().for_each(|flow| flow.is_busy = true);
        self
    }

    pub fn set_rate(&mut self, rate_bps: u64) {
        self.config.rate_bps = Some(rate_bps);
        self.link.set_config(self.config.clone());
    }

    pub fn run(&mut self, seconds: u32) {
        self.run_for(Duration::from_secs(u64::from(seconds)));
    }

    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += MS;
            self.step();
        }
    }

    fn second(&self) -> usize {
        ((self.now - self.start).as_millis() as usize - 1) / 1000
    }

    fn step(&mut self) {
        let (now, second) = (self.now, self.second());
        let us = (now - self.start).as_micros() as i64;
        for (index, flow) in self.flows.iter_mut().enumerate() {
            flow.seconds.resize(second + 1, Second::default());
            if now < flow.active_from {
                continue;
            }
            flow.produce(now);
            flow.control(now);
            for (number, handle) in flow.send(now) {
                let mut datagram = vec![0; handle.size_bytes.max(HEADER_BYTES + 1)];
                datagram[0] = index as u8;
                datagram[1..3].copy_from_slice(&number.to_be_bytes());
                datagram[3..11].copy_from_slice(&us.to_be_bytes());
                datagram[11] = handle.kind as u8;
                let second = &mut flow.seconds[second];
                second.sent += 1;
                match handle.kind {
                    PacketKind::Padding => second.padding_bytes += handle.size_bytes as u64,
                    _ => second.media_bytes += handle.size_bytes as u64,
                }
                let before = self.link.counters();
                let len_bytes = datagram.len();
                self.link.send(now, datagram, len_bytes);
                let after = self.link.counters();
                second.lost +=
                    (after.lost + after.overflowed - before.lost - before.overflowed) as u32;
            }
            let last = &mut flow.seconds[second];
            last.estimate_bps = flow.estimator.estimate_bps();
            last.layer = flow.sending;
        }
        while let Some(arrival) = self.link.poll_timeout().filter(|at| *at <= now) {
            let Some(datagram) = self.link.poll(arrival) else { break };
            let arrival_us = (arrival - self.start).as_micros() as i64;
            self.flows[usize::from(datagram[0])].receive(&datagram, arrival_us, second);
        }
        for (index, flow) in self.flows.iter_mut().enumerate() {
            if let Some(feedback) = flow.feedback(now) {
                let len_bytes = feedback.len();
                self.back.send(now, [&[index as u8], &feedback[..]].concat(), len_bytes);
            }
        }
        while let Some(datagram) = self.back.poll(now) {
            let flow = &mut self.flows[usize::from(datagram[0])];
            if let Some(Rtcp::TransportFeedback(feedback)) = packets(&datagram[1..]).next() {
                flow.estimator.on_feedback(&feedback, now);
                flow.pacer.set_rate(flow.estimator.pacing_bps(), flow.estimator.micros(now));
            }
            flow.next_allocation = now;
        }
        if self.trace && us % 100_000 == 0 {
            let flow = &self.flows[self.flows.len() - 1];
            println!("{:6.1} s: {} [{:?}]", us as f64 / 1e6, flow.estimator.state(), flow.sending);
        }
    }
}

impl Flow {
    fn new(start: Instant, seed: u64) -> Self {
        Self {
            seed,
            one_way_us: 20_000,
            playout_ms: PLAYOUT_MS,
            estimator: Estimator::new(start, 300_000),
            pacer: Pacer::new(0, 300_000),
            next_sequence_number: 65_000,
            next_audio: start,
            next_frame: start,
            next_feedback: start,
            next_allocation: start,
            sending: None,
            target: None,
            keyframe_at: None,
            fell: None,
            reason: Reason::NothingSent,
            frame_count: 0,
            feedback_base: 65_000,
            arrivals_us: Vec::new(),
            feedback_count: 0,
            delays_ms: Vec::new(),
            seconds: Vec::new(),
            allocations: Vec::new(),
            wants: 2,
            is_elastic: false,
            is_busy: false,
            active_from: start,
        }
    }

    pub fn begin_at(&mut self, start: Instant) {
        let seconds = std::mem::take(&mut self.seconds);
        *self = Self { seconds, is_elastic: self.is_elastic, ..Self::new(start, self.seed) };
    }

    fn produce(&mut self, now: Instant) {
        while self.next_audio <= now {
            self.next_audio += 20 * MS;
            let size_bytes = if self.is_busy { RED_BYTES } else { AUDIO_BYTES };
            let handle = Handle { size_bytes, kind: PacketKind::Audio, layer: 0 };
            self.pacer
                .push(self.estimator.micros(now), handle, size_bytes, Priority::Audio)
                .unwrap();
        }
        let has_stalled = self.is_busy && self.frame_count.is_multiple_of(STALL_EVERY);
        let stall = if has_stalled { STALL } else { Duration::ZERO };
        if self.next_frame + stall > now {
            return;
        }
        while self.next_frame <= now {
            self.next_frame += Duration::from_secs(1) / FRAMES_PER_SECOND as u32;
            self.frame_count += 1;
            let is_key = self.keyframe_at.is_some_and(|at| at <= now);
            if is_key {
                self.keyframe_at = None;
                self.sending = self.target;
            }
            let Some(layer) = self.sending else { continue };
            let elastic = 0.95 * self.estimator.estimate_bps() as f64 - f64::from(AUDIO_BPS);
            let elastic = (elastic.max(0.0) / 8.0) as usize / FRAMES_PER_SECOND as usize;
            let layered = LAYERS_BPS[usize::from(layer)] as usize / 8 / FRAMES_PER_SECOND as usize;
            let mean = if self.is_elastic { elastic } else { layered };
            // 70 % to 130 % of the mean.
            let mut bytes =
                mean * (700 + (hash(self.seed << 32 | self.frame_count) % 601) as usize) / 1000;
            if is_key {
                bytes = mean * KEYFRAME_FACTOR;
            }
            let count = bytes.div_ceil(PACKET_BYTES_MAX).max(1);
            for _ in 0..count {
                let size_bytes = bytes.div_ceil(count) + 40;
                let handle = Handle { size_bytes, kind: PacketKind::Video, layer };
                let _ = self.pacer.push(
                    self.estimator.micros(now),
                    handle,
                    size_bytes,
                    Priority::Video,
                );
            }
        }
    }

    fn control(&mut self, now: Instant) {
        if self.next_allocation <= now {
            self.next_allocation = now + ALLOCATE_EVERY;
            self.allocate(now);
        }
        if self.estimator.poll_timeout().is_some_and(|at| at <= now) {
            self.estimator.handle_timeout(now);
            self.pacer.set_rate(self.estimator.pacing_bps(), self.estimator.micros(now));
        }
    }

    fn allocate(&mut self, now: Instant) {
        if self.is_elastic {
            self.sending = Some(0);
            self.estimator.set_wanted(20_000_000, false, now);
            return;
        }
        let layer = |spatial| Layer { spatial, temporal: 0 };
        let mut bitrates = LayerBitrates::default();
        bitrates[0][0] = Some(if self.is_busy { RED_BYTES as u32 * 8 * 50 } else { AUDIO_BPS });
        let audio = TrackDemand {
            kind: TrackKind::Audio,
            priority: 0,
            shown_pixels: 0,
            bitrates,
            heights: [0; 3],
            wanted: Some(layer(0)),
            current: Some(layer(0)),
            may_pause: false,
            may_rise: true,
        };
        let video = TrackDemand {
            kind: TrackKind::Camera,
            priority: 1,
            shown_pixels: 1280 * 720,
            bitrates: LAYERS_BPS.map(|bps| [Some(bps), None, None, None]),
            heights: [180, 360, 720],
            wanted: Some(layer(self.wants)),
            current: self.target.map(layer),
            may_pause: true,
            may_rise: self.fell.is_none_or(|at| now - at > RISE_WAIT),
        };
        let tracks = [audio, video];
        let estimate_bps = self.estimator.estimate_bps();
        let waits = self.pacer.queued_bytes() as f64 * 8.0 / estimate_bps as f64;
        let wait = Duration::from_secs_f64(waits);
        let hysteresis = Hysteresis::on(estimate_bps, self.estimator.state().queue_delay_ms, wait);
        allocate(estimate_bps, &tracks, hysteresis, &mut self.allocations);
        let target = self.allocations[1].target.map(|layer| layer.spatial);
        self.reason = self.allocations[1].reason;
        if target != self.target {
            if target < self.target {
                self.fell = Some(now);
                self.sending = None;
            }
            self.target = target;
            self.keyframe_at = target.map(|_| now + KEYFRAME_WAIT);
        }
        self.estimator.set_wanted(wanted_bps(&tracks, hysteresis), target.is_none(), now);
    }

    fn send(&mut self, now: Instant) -> Vec<(u16, Handle)> {
        let mut out = Vec::new();
        while let Some(paced) = self.pacer.poll(self.estimator.micros(now)) {
            match paced {
                // What is of a layer that is no longer sent is of no use.
                Paced::Send(&handle, _)
                    if handle.kind == PacketKind::Video && Some(handle.layer) != self.sending => {}
                Paced::Send(&handle, _) => {
                    self.number(now, handle, &mut out);
                }
                Paced::Drop(..) => {
                    if let Some(second) = self.seconds.last_mut() {
                        second.dropped += 1;
                    }
                }
            }
        }
        while let Some(probe) = self.estimator.poll_probe(now) {
            let handle =
                Handle { size_bytes: probe.size_bytes, kind: PacketKind::Padding, layer: 0 };
            self.number(now, handle, &mut out);
        }
        out
    }

    fn number(&mut self, now: Instant, handle: Handle, out: &mut Vec<(u16, Handle)>) {
        let number = self.next_sequence_number;
        self.next_sequence_number = number.wrapping_add(1);
        self.estimator.on_sent(Some(number), now, handle.size_bytes, handle.kind);
        out.push((number, handle));
    }

    fn receive(&mut self, datagram: &[u8], arrival_us: i64, second: usize) {
        let number = u16::from_be_bytes([datagram[1], datagram[2]]);
        let sent_us = i64::from_be_bytes(datagram[3..11].try_into().unwrap());
        let queue_ms = (arrival_us - sent_us - self.one_way_us) as f64 / 1000.0;
        self.delays_ms.push(queue_ms);
        let second = &mut self.seconds[second];
        second.queue_ms_max = second.queue_ms_max.max(queue_ms);
        if datagram[11] == PacketKind::Audio as u8 {
            second.audio_queue_ms.sum += queue_ms;
            second.audio_queue_ms.count += 1;
            second.concealed_ms += (queue_ms - self.playout_ms).max(0.0);
            self.playout_ms = queue_ms.max(self.playout_ms - 1.0).max(PLAYOUT_MS);
        }
        let ahead = number.wrapping_sub(self.feedback_base);
        if ahead < 1 << 15 {
            let ahead = usize::from(ahead);
            if self.arrivals_us.len() <= ahead {
                self.arrivals_us.resize(ahead + 1, None);
            }
            // The receiver's clock is another one.
            self.arrivals_us[ahead] = Some(arrival_us + 5_000_000);
        }
    }

    fn feedback(&mut self, now: Instant) -> Option<Vec<u8>> {
        if now < self.next_feedback || self.arrivals_us.is_empty() {
            return None;
        }
        self.next_feedback = now + FEEDBACK_EVERY;
        let fields = TransportFeedbackFields {
            ssrcs: FeedbackSsrcs { sender: Ssrc(1), media: Ssrc(2) },
            base_sequence_number: self.feedback_base,
            feedback_count: self.feedback_count,
        };
        self.feedback_count = self.feedback_count.wrapping_add(1);
        let mut bytes = Vec::new();
        let written = write_transport_feedback(&mut bytes, &fields, &self.arrivals_us);
        self.arrivals_us.drain(..written);
        self.feedback_base = self.feedback_base.wrapping_add(written as u16);
        Some(bytes)
    }

    /// 95th percentile of the queueing delay of all packets so far, in milliseconds.
    pub fn queue_p95_ms(&mut self) -> f64 {
        self.delays_ms.sort_by(f64::total_cmp);
        self.delays_ms[self.delays_ms.len() * 95 / 100]
    }

    pub fn forget_delays(&mut self) {
        self.delays_ms.clear();
    }

    /// The layer that is sent.
    pub fn layer(&self) -> Option<u8> {
        self.sending
    }

    pub fn state(&self) -> EstimatorState {
        self.estimator.state()
    }

    /// Share lost in these seconds.
    pub fn loss(&self, seconds: std::ops::Range<usize>) -> f64 {
        let seconds = &self.seconds[seconds];
        let lost: u32 = seconds.iter().map(|second| second.lost).sum();
        let sent: u32 = seconds.iter().map(|second| second.sent).sum();
        f64::from(lost) / f64::from(sent.max(1))
    }

    /// Share of padding in the bytes of these seconds.
    pub fn padding(&self, seconds: std::ops::Range<usize>) -> f64 {
        let seconds = &self.seconds[seconds];
        let padding: u64 = seconds.iter().map(|second| second.padding_bytes).sum();
        let media: u64 = seconds.iter().map(|second| second.media_bytes).sum();
        padding as f64 / (padding + media).max(1) as f64
    }

    /// Mean queueing delay of audio in these seconds, in milliseconds.
    pub fn audio_queue_ms(&self, seconds: std::ops::Range<usize>) -> f64 {
        let means = self.seconds[seconds].iter().map(|second| second.audio_queue_ms);
        let (sum, count) =
            means.fold((0.0, 0), |(sum, count), mean| (sum + mean.sum, count + mean.count));
        sum / f64::from(count.max(1))
    }

    /// Share of the time in which audio was concealed.
    pub fn concealed(&self, seconds: std::ops::Range<usize>) -> f64 {
        let seconds = &self.seconds[seconds];
        seconds.iter().map(|second| second.concealed_ms).sum::<f64>()
            / 1000.0
            / seconds.len() as f64
    }

    /// Media that went out in these seconds, in bits a second.
    pub fn media_bps(&self, seconds: std::ops::Range<usize>) -> f64 {
        let seconds = &self.seconds[seconds];
        let bytes: u64 = seconds.iter().map(|second| second.media_bytes).sum();
        bytes as f64 * 8.0 / seconds.len() as f64
    }

    /// Mean estimate of these seconds.
    pub fn mean_bps(&self, seconds: std::ops::Range<usize>) -> f64 {
        let seconds = &self.seconds[seconds];
        seconds.iter().map(|second| second.estimate_bps as f64).sum::<f64>() / seconds.len() as f64
    }

    /// Share of these seconds that ended with `layer`.
    pub fn share(&self, seconds: std::ops::Range<usize>, layer: Option<u8>) -> f64 {
        let seconds = &self.seconds[seconds];
        let with = seconds.iter().filter(|second| second.layer == layer).count();
        with as f64 / seconds.len() as f64
    }

    /// The first second from `from` on that ended with `layer`.
    pub fn first(&self, from: usize, layer: Option<u8>) -> Option<usize> {
        (from..self.seconds.len()).find(|second| self.seconds[*second].layer == layer)
    }

    pub fn print(&self, name: &str) {
        println!("{name}");
        for (n, second) in self.seconds.iter().enumerate() {
            println!(
                "{n:3} s {:5} kbit/s, layer {:?}, sent {:3} lost {:3} dropped {}, media {:4} padding {:3} \
                 kbit/s, queue max {:3.0} ms",
                second.estimate_bps / 1000,
                second.layer,
                second.sent,
                second.lost,
                second.dropped,
                second.media_bytes * 8 / 1000,
                second.padding_bytes * 8 / 1000,
                second.queue_ms_max
            );
        }
    }
}

/// Jain's index of fairness: 1 for equal shares.
pub fn jain(shares: &[f64]) -> f64 {
    let sum: f64 = shares.iter().sum();
    let squares: f64 = shares.iter().map(|share| share * share).sum();
    sum * sum / (shares.len() as f64 * squares)
}
