//! Recordings as a microphone and a camera, played in a loop; and what is known of a track.

use parlor_client::RtpPayload;
use parlor_model::RtpTimestamp;
use parlor_rtp::vp8;
use serde::Serialize;
use std::time::{Duration, Instant};

const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
const AUDIO_TICKS: u32 = 960;
/// As `test/interop/media/make.py` encodes.
const VIDEO_INTERVAL: Duration = Duration::from_nanos(66_666_667);
const VIDEO_TICKS: u32 = 6000;
const PAYLOAD_BYTES_MAX: usize = 1150;

/// A recording that is played.
#[derive(Debug)]
pub struct Source {
    is_video: bool,
    frames: Vec<Vec<u8>>,
    position: usize,
    played: u32,
    next: Instant,
}

impl Source {
    /// Opus packets of 20 ms each.
    pub fn microphone(now: Instant, packets: Vec<Vec<u8>>) -> Self {
        Self { is_video: false, frames: packets, position: 0, played: 0, next: now }
    }

    /// VP8 frames, the first of them a keyframe.
    pub fn camera(now: Instant, frames: Vec<Vec<u8>>) -> Self {
        Self { is_video: true, frames, position: 0, played: 0, next: now }
    }

    /// When the next frame is due.
    pub fn poll_timeout(&self) -> Instant {
        self.next
    }

    /// Goes on with the next keyframe of the recording.
    pub fn skip_to_keyframe(&mut self) {
        // The lowest bit of a frame tag is clear in keyframes (RFC 6386 section 9.1).
        let is_key = |frame: &Vec<u8>| frame.first().is_some_and(|tag| tag & 1 == 0);
        let found = self.frames.iter().skip(self.position).position(is_key);
        self.position = found.map_or(0, |ahead| self.position + ahead);
    }

    /// Hands over the packets of the frame that is due.
    pub fn poll(&mut self, now: Instant, mut send: impl FnMut(&RtpPayload<'_>)) {
        if self.next > now {
            return;
        }
        let (interval, ticks) = match self.is_video {
            true => (VIDEO_INTERVAL, VIDEO_TICKS),
            false => (AUDIO_INTERVAL, AUDIO_TICKS),
        };
        self.next += interval;
        let Some(frame) = self.frames.get(self.position) else { return };
        let timestamp = RtpTimestamp(self.played.wrapping_mul(ticks));
        if self.is_video {
            let count = frame.len().div_ceil(PAYLOAD_BYTES_MAX).max(1);
            let size = frame.len().div_ceil(count).max(1);
            let [high, low] = (self.played as u16 | 0x8000).to_be_bytes();
            for (index, part) in frame.chunks(size).enumerate() {
                let start = if index == 0 { 0x10 } else { 0 };
                let payload = [&[0x80 | start, 0x80, high, low], part].concat();
                let marker = index + 1 == count;
                let (audio_level, dependency_descriptor) = (None, None);
                send(&RtpPayload {
                    payload: &payload,
                    timestamp,
                    marker,
                    audio_level,
                    dependency_descriptor,
                });
            }
        } else {
            let marker = self.played == 0;
            let (audio_level, dependency_descriptor) = (Some(20), None);
            send(&RtpPayload {
                payload: frame,
                timestamp,
                marker,
                audio_level,
                dependency_descriptor,
            });
        }
        self.played = self.played.wrapping_add(1);
        self.position = (self.position + 1) % self.frames.len().max(1);
    }
}

/// What came of a track, or of one encoding of it.
#[derive(Clone, PartialEq, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Track {
    /// Audio packets, or the last packets of video frames.
    pub frames: u64,
    /// Keyframes that began.
    pub keyframes: u64,
    /// Media packets.
    pub packets: u64,
    /// Longest time between two of `frames`, in ms.
    pub longest_gap_ms: u64,
    /// From the moment that the track was known to the first of `frames`, in ms.
    pub first_frame_ms: Option<u64>,
    #[serde(skip)]
    known: Option<Instant>,
    #[serde(skip)]
    last: Option<Instant>,
}

impl Track {
    /// A track that is known from now on.
    pub fn new(now: Instant) -> Self {
        Self { known: Some(now), ..Self::default() }
    }

    /// Counts a packet that came for the first time.
    pub fn count(&mut self, now: Instant, is_video: bool, payload: &[u8], marker: bool) {
        if payload.is_empty() {
            return;
        }
        self.packets += 1;
        self.keyframes += u64::from(is_video && vp8::is_keyframe(payload));
        if is_video && !marker {
            return;
        }
        self.frames += 1;
        let since = |from: Instant| (now - from).as_millis() as u64;
        self.first_frame_ms = self.first_frame_ms.or(self.known.map(since));
        self.longest_gap_ms = self.longest_gap_ms.max(self.last.map_or(0, since));
        self.last = Some(now);
    }

    /// Counts from zero again.
    pub fn reset(&mut self) {
        *self = Self { first_frame_ms: self.first_frame_ms, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_camera_loops_and_skips_to_keyframes() {
        let now = Instant::now();
        let frame = |key: bool, len: usize| [vec![u8::from(!key)], vec![0; len]].concat();
        let mut source =
            Source::camera(now, vec![frame(true, 3000), frame(false, 10), frame(true, 10)]);
        let mut seen = Vec::new();
        let mut play = |source: &mut Source| {
            let due = source.poll_timeout();
            source.poll(due, |packet| {
                seen.push((packet.payload.len(), packet.timestamp.0 / VIDEO_TICKS, packet.marker));
            });
        };
        play(&mut source);
        source.skip_to_keyframe();
        play(&mut source);
        play(&mut source);
        let parts = [(1005, 0, false), (1005, 0, false), (1003, 0, true)];
        let rest = [(15, 1, true), (1005, 2, false), (1005, 2, false), (1003, 2, true)];
        assert_eq!(seen, [&parts[..], &rest].concat());
        source.skip_to_keyframe();
        assert_eq!(source.position, 2);
    }
}
