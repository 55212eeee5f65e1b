//! Media that guests publish: the shapes of real packets, with contents that can be checked.

use parlor_client::RtpPayload;
use parlor_model::{Rid, RtpTimestamp};
use std::time::{Duration, Instant};

const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
const VIDEO_INTERVAL: Duration = Duration::from_nanos(33_333_333);
const PACKET_PAYLOAD_BYTES: usize = 1000;
const KEYFRAME_FACTOR: u64 = 5;

/// What a source produces.
#[derive(Clone, PartialEq, Debug)]
pub enum SourceKind {
    /// Opus, 80 bytes every 20 ms.
    Audio,
    /// VP8 at 30 frames a second; one stream for each bitrate, with RIDs q, h, f when several.
    Video {
        /// Bits a second of each layer, lowest first.
        bitrates_bps: Vec<u64>,
    },
}

/// A microphone or camera.
#[derive(Debug)]
pub(crate) struct Source {
    pub cid: String,
    pub kind: SourceKind,
    pub layers: Vec<Layer>,
    next: Instant,
    interval: Duration,
    started: Instant,
    frame: u32,
}

#[derive(Debug)]
pub(crate) struct Layer {
    pub rid: Option<Rid>,
    bitrate_bps: u64,
    pub needs_keyframe: bool,
    picture_id: u16,
    tl0: u8,
}

/// One packet of a source.
pub(crate) struct SourcePacket {
    pub rid: Option<Rid>,
    pub payload: Vec<u8>,
    pub timestamp: RtpTimestamp,
    pub marker: bool,
    pub audio_level: Option<u8>,
}

impl SourcePacket {
    pub fn as_rtp(&self) -> RtpPayload<'_> {
        RtpPayload {
            payload: &self.payload,
            timestamp: self.timestamp,
            marker: self.marker,
            audio_level: self.audio_level,
        }
    }
}

impl Source {
    pub fn new(cid: String, kind: SourceKind, now: Instant) -> Self {
        let layers = match &kind {
            SourceKind::Audio => vec![Layer::new(None, 32_000)],
            SourceKind::Video { bitrates_bps } if bitrates_bps.len() == 1 => {
                vec![Layer::new(None, bitrates_bps[0])]
            }
            SourceKind::Video { bitrates_bps } => bitrates_bps
                .iter()
                .zip(["q", "h", "f"])
                .map(|(bitrate, rid)| Layer::new(Rid::new(rid), *bitrate))
                .collect(),
        };
        let interval = match kind {
            SourceKind::Audio => AUDIO_INTERVAL,
            SourceKind::Video { .. } => VIDEO_INTERVAL,
        };
        Self { cid, kind, layers, next: now, interval, started: now, frame: 0 }
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
        match self.kind {
            SourceKind::Audio => vec![SourcePacket {
                rid: None,
                payload: self.frame.to_be_bytes().repeat(20),
                timestamp: RtpTimestamp((elapsed_us * 48 / 1000) as u32),
                marker: self.frame == 1,
                audio_level: Some(20),
            }],
            SourceKind::Video { .. } => {
                let timestamp = RtpTimestamp((elapsed_us * 90 / 1000) as u32);
                let frame = self.frame;
                self.layers.iter_mut().flat_map(|l| l.frame(frame, timestamp)).collect()
            }
        }
    }
}

impl Layer {
    fn new(rid: Option<Rid>, bitrate_bps: u64) -> Self {
        Self { rid, bitrate_bps, needs_keyframe: true, picture_id: 100, tl0: 0 }
    }

    fn frame(&mut self, frame: u32, timestamp: RtpTimestamp) -> Vec<SourcePacket> {
        let key = std::mem::take(&mut self.needs_keyframe);
        let share = if key { KEYFRAME_FACTOR } else { 1 };
        let size = (self.bitrate_bps * share / 8 / 30).max(50) as usize;
        self.picture_id = (self.picture_id + 1) & 0x7FFF;
        self.tl0 = self.tl0.wrapping_add(1);
        let count = size.div_ceil(PACKET_PAYLOAD_BYTES);
        (0..count)
            .map(|index| {
                let len = size / count;
                SourcePacket {
                    rid: self.rid,
                    payload: self.packet(frame, index, len, key),
                    timestamp,
                    marker: index + 1 == count,
                    audio_level: None,
                }
            })
            .collect()
    }

    /// VP8 descriptor with picture id, TL0PICIDX and TID (RFC 7741), then a frame header.
    fn packet(&self, frame: u32, index: usize, len: usize, key: bool) -> Vec<u8> {
        let [high, low] = (self.picture_id | 0x8000).to_be_bytes();
        let start = if index == 0 { 0x10 } else { 0 };
        let mut payload = vec![0x80 | start, 0xE0, high, low, self.tl0, 0x20];
        if index == 0 {
            payload.push(if key { 0x10 } else { 0x11 });
            payload.extend([0, 0, 0x9D, 0x01, 0x2A, 0x40, 0x01, 0xB4, 0x00]);
        }
        payload.extend(frame.to_be_bytes());
        payload.resize(payload.len().max(len), index as u8);
        payload
    }
}
