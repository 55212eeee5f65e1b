//! Media that guests publish: the shapes of real packets, with contents that can be checked.

use parlor_checker::layered::{Coding, LayeredSource};
use parlor_client::RtpPayload;
use parlor_model::{Codec, PayloadType, Rid, RtpTimestamp, TrackKind};
use parlor_rtp::red::{RedundantBlock, write_red};
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};

const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
const AUDIO_TICKS: u16 = 960;
const OPUS_BYTES: usize = 80;
const VIDEO_INTERVAL: Duration = Duration::from_nanos(33_333_333);
const SCREEN_INTERVAL: Duration = Duration::from_millis(200);
const PACKET_PAYLOAD_BYTES: usize = 1000;
const KEYFRAME_FACTOR: u64 = 5;
/// As Chromium numbers it.
const OPUS: PayloadType = PayloadType(111);

/// What a source produces.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceKind {
    /// Opus, 80 bytes every 20 ms.
    Audio,
    /// The same in RED, with the packet before repeated.
    Red,
    /// VP8 at 30 frames a second; one stream for each bitrate, with RIDs q, h, f when several.
    Video {
        /// Bits a second of each layer, lowest first.
        bitrates_bps: Vec<u64>,
    },
    /// The same with three temporal layers in each stream.
    Temporal {
        /// Bits a second of each layer, lowest first.
        bitrates_bps: Vec<u64>,
    },
    /// VP9 at 30 frames a second, with a spatial layer for each bitrate in one stream and two
    /// temporal layers.
    Svc {
        /// Bits a second that each layer adds, lowest first.
        bitrates_bps: Vec<u64>,
    },
    /// A camera with dependency descriptors: AV1 with a spatial layer for each bitrate in one stream
    /// and three temporal layers.
    Av1 {
        /// Bits a second that each layer adds, lowest first.
        bitrates_bps: Vec<u64>,
        /// Spatial layers depend on one another in keyframes only (L3T3_KEY).
        key_only: bool,
    },
    /// The same in VP9.
    Vp9 {
        /// Bits a second that each layer adds, lowest first.
        bitrates_bps: Vec<u64>,
        /// As for AV1.
        key_only: bool,
    },
    /// H264 at 30 frames a second; one stream for each bitrate, with RIDs q, h, f when several.
    H264 {
        /// Bits a second of each layer, lowest first.
        bitrates_bps: Vec<u64>,
    },
    /// A screen: VP8 at 5 frames a second.
    Screen {
        /// Bits a second.
        bitrate_bps: u64,
    },
}

impl SourceKind {
    pub(crate) fn track_kind(&self) -> TrackKind {
        match self {
            SourceKind::Audio | SourceKind::Red => TrackKind::Audio,
            _ => TrackKind::Video,
        }
    }

    pub(crate) fn codec(&self) -> Codec {
        match self {
            SourceKind::Audio => Codec::Opus,
            SourceKind::Red => Codec::Red,
            SourceKind::Svc { .. } | SourceKind::Vp9 { .. } => Codec::Vp9,
            SourceKind::Av1 { .. } => Codec::Av1,
            SourceKind::H264 { .. } => Codec::H264,
            _ => Codec::Vp8,
        }
    }

    pub(crate) fn interval(&self) -> Duration {
        match self {
            SourceKind::Audio | SourceKind::Red => AUDIO_INTERVAL,
            SourceKind::Screen { .. } => SCREEN_INTERVAL,
            _ => VIDEO_INTERVAL,
        }
    }

    /// Bits a second of each layer that is sent.
    pub(crate) fn bitrates_bps(&self) -> &[u64] {
        match self {
            SourceKind::Audio | SourceKind::Red => &[32_000],
            SourceKind::Screen { bitrate_bps } => std::slice::from_ref(bitrate_bps),
            SourceKind::Video { bitrates_bps }
            | SourceKind::Temporal { bitrates_bps }
            | SourceKind::H264 { bitrates_bps }
            | SourceKind::Av1 { bitrates_bps, .. }
            | SourceKind::Vp9 { bitrates_bps, .. }
            | SourceKind::Svc { bitrates_bps } => bitrates_bps,
        }
    }

    /// Whether all layers come in one stream.
    fn is_svc(&self) -> bool {
        matches!(self, SourceKind::Svc { .. } | SourceKind::Av1 { .. } | SourceKind::Vp9 { .. })
    }

    /// The streams of a layered source.
    fn layered(&self) -> Vec<LayeredSource> {
        let coding = match self {
            SourceKind::Av1 { bitrates_bps, key_only }
            | SourceKind::Vp9 { bitrates_bps, key_only } => Coding {
                codec: self.codec(),
                spatial: bitrates_bps.len().min(3) as u8,
                temporal: 3,
                key_only: *key_only,
                descriptor: true,
            },
            SourceKind::H264 { bitrates_bps } => {
                let stream = |(id, bps): (u32, &u64)| {
                    let mut source = LayeredSource::new(Coding::plain(Codec::H264), id);
                    source.bitrates_bps = vec![*bps];
                    source
                };
                return (0..).zip(bitrates_bps).map(stream).collect();
            }
            _ => return Vec::new(),
        };
        let mut source = LayeredSource::new(coding, 0);
        source.bitrates_bps = self.bitrates_bps().to_vec();
        vec![source]
    }
}

/// A microphone, camera or screen.
#[derive(Debug)]
pub(crate) struct Source {
    pub cid: String,
    pub kind: SourceKind,
    pub layers: Vec<Layer>,
    pub is_muted: bool,
    layered: Vec<LayeredSource>,
    next: Instant,
    interval: Duration,
    started: Instant,
    frame: u32,
    /// Pictures since the last keyframe of a stream with spatial layers.
    since_keyframe: u32,
}

#[derive(Debug)]
pub(crate) struct Layer {
    pub rid: Option<Rid>,
    bitrate_bps: u64,
    pub needs_keyframe: bool,
    /// Whether somebody wants it (`SubscribedQualityUpdate`).
    pub is_wanted: bool,
    picture_id: u16,
    tl0: u8,
    since_keyframe: u32,
}

/// One packet of a source.
pub(crate) struct SourcePacket {
    pub rid: Option<Rid>,
    pub payload: Vec<u8>,
    pub timestamp: RtpTimestamp,
    pub marker: bool,
    pub audio_level: Option<u8>,
    pub descriptor: Option<Vec<u8>>,
}

impl SourcePacket {
    pub fn as_rtp(&self) -> RtpPayload<'_> {
        RtpPayload {
            payload: &self.payload,
            timestamp: self.timestamp,
            marker: self.marker,
            audio_level: self.audio_level,
            dependency_descriptor: self.descriptor.as_deref(),
        }
    }
}

impl Source {
    pub fn new(cid: String, kind: SourceKind, now: Instant) -> Self {
        let bitrates = kind.bitrates_bps();
        let is_simulcast = bitrates.len() > 1 && !kind.is_svc();
        let rids = ["q", "h", "f"].map(|rid| Rid::new(rid).filter(|_| is_simulcast));
        let layers = bitrates.iter().zip(rids).map(|(rate, rid)| Layer::new(rid, *rate)).collect();
        let interval = kind.interval();
        let layered = kind.layered();
        Self {
            cid,
            kind,
            layers,
            is_muted: false,
            layered,
            next: now,
            interval,
            started: now,
            frame: 0,
            since_keyframe: 0,
        }
    }

    pub fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// The packets of the frame that is due, of all layers.
    pub fn poll(&mut self, now: Instant) -> Vec<SourcePacket> {
        if self.next > now {
            return Vec::new();
        }
        let elapsed_us = (self.next - self.started).as_micros() as u64;
        self.next += self.interval;
        self.frame += 1;
        if self.is_muted {
            return Vec::new();
        }
        let frame = self.frame;
        match self.kind {
            SourceKind::Audio | SourceKind::Red => vec![SourcePacket {
                rid: None,
                payload: match self.kind {
                    SourceKind::Red => red(frame),
                    _ => opus(frame),
                },
                timestamp: RtpTimestamp((elapsed_us * 48 / 1000) as u32),
                marker: self.frame == 1,
                audio_level: Some(20),
                descriptor: None,
            }],
            SourceKind::Svc { .. } => self.picture(RtpTimestamp((elapsed_us * 90 / 1000) as u32)),
            SourceKind::Av1 { .. } | SourceKind::Vp9 { .. } => {
                self.layered_picture((elapsed_us * 90 / 1000) as u32)
            }
            SourceKind::H264 { .. } => self.layered_streams((elapsed_us * 90 / 1000) as u32),
            _ => {
                let timestamp = RtpTimestamp((elapsed_us * 90 / 1000) as u32);
                let temporal = matches!(self.kind, SourceKind::Temporal { .. });
                let rate = Duration::from_secs(1).as_nanos() / self.interval.as_nanos();
                let wanted = self.layers.iter_mut().filter(|layer| layer.is_wanted);
                wanted.flat_map(|l| l.frame(frame, timestamp, temporal, rate as u64)).collect()
            }
        }
    }

    /// A picture of all spatial layers in one stream, with dependency descriptors.
    fn layered_picture(&mut self, timestamp: u32) -> Vec<SourcePacket> {
        let highest = self.layers.iter().rposition(|layer| layer.is_wanted);
        let (Some(highest), Some(source)) = (highest, self.layered.first_mut()) else {
            return Vec::new();
        };
        source.produced = (highest as u8 + 1).min(source.coding.spatial);
        let produced = &mut self.layers[..=highest];
        let key = produced.iter().any(|layer| layer.needs_keyframe);
        produced.iter_mut().for_each(|layer| layer.needs_keyframe = false);
        picture_of(source, None, key, timestamp)
    }

    /// A picture of each stream that is wanted.
    fn layered_streams(&mut self, timestamp: u32) -> Vec<SourcePacket> {
        let mut packets = Vec::new();
        for (layer, source) in self.layers.iter_mut().zip(&mut self.layered) {
            if layer.is_wanted {
                let key = std::mem::take(&mut layer.needs_keyframe);
                packets.extend(picture_of(source, layer.rid, key, timestamp));
            }
        }
        packets
    }

    /// A picture of all spatial layers in one stream.
    fn picture(&mut self, timestamp: RtpTimestamp) -> Vec<SourcePacket> {
        let highest = self.layers.iter().rposition(|layer| layer.is_wanted);
        let Some(highest) = highest else { return Vec::new() };
        let produced = &mut self.layers[..=highest];
        let key = produced.iter().any(|layer| layer.needs_keyframe);
        self.since_keyframe = if key { 0 } else { self.since_keyframe + 1 };
        let temporal = (self.since_keyframe % 2) as u8;
        let base = &mut produced[0];
        base.picture_id = (base.picture_id + 1) & 0x7FFF;
        base.tl0 = base.tl0.wrapping_add(u8::from(temporal == 0));
        let (picture_id, tl0) = (base.picture_id | 0x8000, base.tl0);
        let mut packets = Vec::new();
        for (spatial, layer) in produced.iter_mut().enumerate() {
            layer.needs_keyframe = false;
            let share = if key { KEYFRAME_FACTOR } else { 1 };
            let size = (layer.bitrate_bps * share / 8 / 30).max(50) as usize;
            let count = size.div_ceil(PACKET_PAYLOAD_BYTES);
            for index in 0..count {
                let (starts, ends) = (index == 0, index + 1 == count);
                let flags =
                    0xA0 | u8::from(!key) << 6 | u8::from(starts) << 3 | u8::from(ends) << 2;
                let [high, low] = picture_id.to_be_bytes();
                let layers = temporal << 5
                    | u8::from(temporal > 0) << 4
                    | (spatial as u8) << 1
                    | u8::from(spatial > 0);
                let mut payload = vec![flags, high, low, layers, tl0];
                payload.extend(self.frame.to_be_bytes());
                payload.resize(payload.len().max(size / count), index as u8);
                let marker = ends && spatial == highest;
                packets.push(SourcePacket {
                    rid: None,
                    payload,
                    timestamp,
                    marker,
                    audio_level: None,
                    descriptor: None,
                });
            }
        }
        packets
    }
}

fn picture_of(
    source: &mut LayeredSource,
    rid: Option<Rid>,
    key: bool,
    timestamp: u32,
) -> Vec<SourcePacket> {
    source.timestamp = timestamp;
    source.references.clear();
    let packets = source.next_picture(key).into_iter();
    packets
        .map(|packet| SourcePacket {
            rid,
            payload: packet.payload,
            timestamp: RtpTimestamp(packet.timestamp),
            marker: packet.marker,
            audio_level: None,
            descriptor: packet.descriptor,
        })
        .collect()
}

fn opus(frame: u32) -> Vec<u8> {
    frame.to_be_bytes().repeat(OPUS_BYTES / 4)
}

fn red(frame: u32) -> Vec<u8> {
    let before = opus(frame.wrapping_sub(1));
    let block =
        RedundantBlock { payload_type: OPUS, timestamp_offset: AUDIO_TICKS, payload: &before };
    let redundant = if frame > 1 { std::slice::from_ref(&block) } else { &[] };
    let mut out = vec![0; 2 * OPUS_BYTES + 5];
    let len = write_red(&mut out, redundant, OPUS, &opus(frame)).unwrap_or(0);
    out.truncate(len);
    out
}

impl Layer {
    fn new(rid: Option<Rid>, bitrate_bps: u64) -> Self {
        Self {
            rid,
            bitrate_bps,
            needs_keyframe: true,
            is_wanted: true,
            picture_id: 100,
            tl0: 0,
            since_keyframe: 0,
        }
    }

    /// Takes what the server says of it; a layer that begins again begins with a keyframe.
    pub fn set_wanted(&mut self, is_wanted: bool) {
        self.needs_keyframe |= is_wanted && !self.is_wanted;
        self.is_wanted = is_wanted;
    }

    fn frame(
        &mut self,
        frame: u32,
        timestamp: RtpTimestamp,
        has_temporal: bool,
        frames_a_second: u64,
    ) -> Vec<SourcePacket> {
        let key = std::mem::take(&mut self.needs_keyframe);
        self.since_keyframe = if key { 0 } else { self.since_keyframe + 1 };
        let temporal =
            if has_temporal { [0, 2, 1, 2][self.since_keyframe as usize % 4] } else { 0 };
        let share = if key { KEYFRAME_FACTOR } else { 1 };
        let size = (self.bitrate_bps * share / 8 / frames_a_second).max(50) as usize;
        self.picture_id = (self.picture_id + 1) & 0x7FFF;
        self.tl0 = self.tl0.wrapping_add(u8::from(temporal == 0));
        let count = size.div_ceil(PACKET_PAYLOAD_BYTES);
        (0..count)
            .map(|index| {
                let len = size / count;
                SourcePacket {
                    rid: self.rid,
                    payload: self.packet(frame, index, len, key, temporal),
                    timestamp,
                    marker: index + 1 == count,
                    audio_level: None,
                    descriptor: None,
                }
            })
            .collect()
    }

    /// VP8 descriptor with picture id, TL0PICIDX and TID (RFC 7741), then a frame header.
    fn packet(&self, frame: u32, index: usize, len: usize, key: bool, temporal: u8) -> Vec<u8> {
        let [high, low] = (self.picture_id | 0x8000).to_be_bytes();
        let start = if index == 0 { 0x10 } else { 0 };
        // A frame of a higher layer refers to the base layer alone: one may begin with it.
        let sync = u8::from(temporal > 0) << 5;
        let mut payload = vec![0x80 | start, 0xE0, high, low, self.tl0, temporal << 6 | sync];
        if temporal == 0 {
            payload[5] = 0x20;
        }
        if index == 0 {
            payload.push(if key { 0x10 } else { 0x11 });
            payload.extend([0, 0, 0x9D, 0x01, 0x2A, 0x40, 0x01, 0xB4, 0x00]);
        }
        payload.extend(frame.to_be_bytes());
        payload.resize(payload.len().max(len), index as u8);
        payload
    }
}
