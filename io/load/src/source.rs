//! Media as encoders make it: the rate, the shape and the rhythm of packets, and in each the time
//! at which it was sent.

use crate::{
    descriptor::Descriptors,
    packetize::{self, Part},
};
use parlor_client::RtpPayload;
use parlor_model::{Codec, Now, Rid, RtpTimestamp};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::{Duration, Instant};

const AUDIO_INTERVAL: Duration = Duration::from_millis(20);
/// How often Opus tells with DTX that there is still silence.
const DTX_INTERVAL: Duration = Duration::from_millis(400);
const VIDEO_INTERVAL: Duration = Duration::from_nanos(33_333_333);
const FRAMES_PER_SECOND: u64 = 30;
/// Largest video payload, as libwebrtc leaves room for header, extensions and RTX.
const PAYLOAD_BYTES_MAX: usize = 1150;
/// How much larger a key frame is than the others.
const KEY_FRAME_FACTOR: u64 = 6;
/// How many packets of a stream leave at once; the rest of a large frame is paced.
const BURST_PACKETS: usize = 10;
const BURST_INTERVAL: Duration = Duration::from_millis(5);
/// Temporal layers of successive frames.
const TEMPORAL_PATTERN: [u8; 4] = [0, 2, 1, 2];
/// Loudness of who speaks and of who does not, in -dBov.
const SPEAKING: u8 = 20;
const SILENT: u8 = 127;

const STAMP_MAGIC: [u8; 4] = *b"load";
/// Bytes at the end of each payload: magic, layer, padding, time since the Unix epoch in ns.
const STAMP_BYTES: usize = 16;

/// What the end of a payload says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stamp {
    /// Simulcast stream or spatial layer, 0 lowest.
    pub layer: u8,
    /// When it was sent, since the Unix epoch.
    pub sent: Duration,
}

impl Stamp {
    /// Reads the end of a payload; `None` for payloads that no [`Source`] made.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let (magic, rest) = payload.last_chunk::<STAMP_BYTES>()?.split_first_chunk::<4>()?;
        let (&layer, rest) = rest.split_first()?;
        let nanoseconds = u64::from_be_bytes(*rest.last_chunk()?);
        (*magic == STAMP_MAGIC).then_some(Self { layer, sent: Duration::from_nanos(nanoseconds) })
    }

    fn write(self, payload: &mut [u8]) {
        if let Some(place) = payload.last_chunk_mut::<STAMP_BYTES>() {
            let [a, b, c, d] = STAMP_MAGIC;
            let [e, f, g, h, i, j, k, l] = (self.sent.as_nanos() as u64).to_be_bytes();
            *place = [a, b, c, d, self.layer, 0, 0, 0, e, f, g, h, i, j, k, l];
        }
    }
}

/// One stream of a camera: a simulcast layer, or all spatial layers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VideoStream {
    /// Its RID, when there are several streams.
    pub rid: Option<Rid>,
    /// Simulcast layer, 0 lowest.
    pub layer: u8,
    /// Bits a second of each spatial layer, lowest first.
    pub bitrates_bps: Vec<u64>,
    /// Size of the largest picture in pixels.
    pub size: (u16, u16),
}

/// Streams of a camera: sizes of 320 x 180, 640 x 360 and 1280 x 720, of which `layers` are used.
pub fn video_streams(codec: Codec, layers: usize, simulcast: bool) -> Vec<VideoStream> {
    const RIDS: [&str; 3] = ["q", "h", "f"];
    const BITRATES_BPS: [u64; 3] = [160_000, 450_000, 1_700_000];
    const SIZES: [(u16, u16); 3] = [(320, 180), (640, 360), (1280, 720)];
    let layers = layers.clamp(1, 3);
    let top = layers - 1;
    let one = |bitrates_bps| {
        vec![VideoStream { rid: None, layer: top as u8, bitrates_bps, size: SIZES[top] }]
    };
    match codec {
        Codec::Vp9 | Codec::Av1 if simulcast => one(BITRATES_BPS[..layers].to_vec()),
        Codec::Vp8 | Codec::H264 if simulcast && layers > 1 => (0..layers)
            .map(|layer| VideoStream {
                rid: Rid::new(RIDS[layer]),
                layer: layer as u8,
                bitrates_bps: vec![BITRATES_BPS[layer]],
                size: SIZES[layer],
            })
            .collect(),
        // A single H264 stream needs more for the same picture.
        Codec::H264 if top == 2 => one(vec![2_000_000]),
        _ => one(vec![BITRATES_BPS[top]]),
    }
}

/// A microphone or a camera.
#[derive(Debug)]
pub struct Source {
    codec: Codec,
    streams: Vec<Stream>,
    started: Instant,
    next_frame: Instant,
    next_burst: Option<Instant>,
    is_speaking: bool,
    dtx: bool,
    rng: ChaCha8Rng,
    payload: Vec<u8>,
}

#[derive(Debug)]
struct Stream {
    video: VideoStream,
    needs_key: bool,
    /// Of the frame under way: packets of each spatial layer, and how many have left.
    packets: Vec<(usize, usize)>,
    sent: usize,
    part: Part,
    timestamp: RtpTimestamp,
    frames: usize,
    /// As libwebrtc sends them with VP9 and AV1.
    descriptors: Option<Box<Descriptors>>,
}

impl Source {
    /// Opus at 20 ms; with `dtx` that is while somebody speaks.
    pub fn audio(now: Instant, seed: u64, dtx: bool) -> Self {
        let stream = VideoStream { rid: None, layer: 0, bitrates_bps: vec![32_000], size: (0, 0) };
        Self { dtx, ..Self::new(Codec::Opus, vec![stream], now, seed) }
    }

    /// Video at 30 frames a second.
    pub fn video(codec: Codec, streams: Vec<VideoStream>, now: Instant, seed: u64) -> Self {
        Self::new(codec, streams, now, seed)
    }

    fn new(codec: Codec, streams: Vec<VideoStream>, now: Instant, seed: u64) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let started = now + VIDEO_INTERVAL.mul_f64(rng.random_range(0.0..1.0));
        Self {
            codec,
            streams: streams.into_iter().map(|video| Stream::new(codec, video)).collect(),
            started,
            next_frame: started,
            next_burst: None,
            is_speaking: true,
            dtx: false,
            rng,
            payload: Vec::with_capacity(PAYLOAD_BYTES_MAX + STAMP_BYTES),
        }
    }

    /// RIDs of its streams, lowest layer first; none for one stream.
    pub fn rids(&self) -> Vec<Rid> {
        self.streams.iter().filter_map(|stream| stream.video.rid).collect()
    }

    /// Makes the next frame of a stream a key frame.
    pub fn request_keyframe(&mut self, rid: Option<Rid>) {
        for stream in self.streams.iter_mut().filter(|stream| stream.video.rid == rid) {
            stream.needs_key = true;
        }
    }

    /// Whether audio is loud.
    pub fn set_speaking(&mut self, is_speaking: bool) {
        self.is_speaking = is_speaking;
    }

    /// When [`Source::poll`] has something to do.
    pub fn poll_timeout(&self) -> Instant {
        self.next_burst.map_or(self.next_frame, |burst| burst.min(self.next_frame))
    }

    /// Hands over the packets that are due, with the RID of their stream.
    pub fn poll(&mut self, now: Now, mut send: impl FnMut(Option<Rid>, &RtpPayload<'_>)) {
        if self.next_burst.is_some_and(|due| due <= now.instant) {
            self.burst(now, BURST_PACKETS, &mut send);
        }
        if self.next_frame > now.instant {
            return;
        }
        self.burst(now, usize::MAX, &mut send);
        // What was missed by much is not made up for.
        if now.instant - self.next_frame > Duration::from_secs(1) {
            self.next_frame = now.instant;
        }
        let elapsed = self.next_frame - self.started;
        self.next_frame += self.interval();
        let ticks = elapsed.as_nanos() * u128::from(self.codec.clock_rate()) / 1_000_000_000;
        for stream in &mut self.streams {
            stream.begin(self.codec, RtpTimestamp(ticks as u32), &mut self.rng);
        }
        self.burst(now, BURST_PACKETS, &mut send);
    }

    fn interval(&self) -> Duration {
        match self.codec {
            Codec::Opus if self.dtx && !self.is_speaking => DTX_INTERVAL,
            Codec::Opus => AUDIO_INTERVAL,
            _ => VIDEO_INTERVAL,
        }
    }

    fn burst(
        &mut self,
        now: Now,
        most: usize,
        send: &mut impl FnMut(Option<Rid>, &RtpPayload<'_>),
    ) {
        let is_audio = self.codec == Codec::Opus;
        let level = if self.is_speaking { SPEAKING } else { SILENT };
        self.next_burst = None;
        for stream in &mut self.streams {
            for _ in 0..most {
                let Some((part, marker)) =
                    stream.write_packet(self.codec, now.unix, &mut self.payload)
                else {
                    break;
                };
                let descriptors = stream.descriptors.as_mut();
                let packet = RtpPayload {
                    payload: &self.payload,
                    timestamp: stream.timestamp,
                    marker: marker && !is_audio,
                    audio_level: is_audio.then_some(level),
                    dependency_descriptor: descriptors.and_then(|all| all.next(&part)),
                };
                send(stream.video.rid, &packet);
            }
            if stream.has_more() {
                self.next_burst = Some(now.instant + BURST_INTERVAL);
            }
        }
    }
}

impl Stream {
    fn new(codec: Codec, video: VideoStream) -> Self {
        let has_descriptors = matches!(codec, Codec::Vp9 | Codec::Av1);
        let part = Part {
            is_key: true,
            is_first: true,
            is_last: true,
            picture_id: 0,
            tl0_picture_index: 0,
            temporal: 0,
            spatial: 0,
            spatial_layers: video.bitrates_bps.len() as u8,
            width: video.size.0,
            height: video.size.1,
        };
        Self {
            descriptors: has_descriptors
                .then(|| Descriptors::new(part.spatial_layers))
                .flatten()
                .map(Box::new),
            video,
            needs_key: true,
            packets: Vec::new(),
            sent: 0,
            part,
            timestamp: RtpTimestamp(0),
            frames: 0,
        }
    }

    fn begin(&mut self, codec: Codec, timestamp: RtpTimestamp, rng: &mut ChaCha8Rng) {
        self.timestamp = timestamp;
        self.packets.clear();
        self.sent = 0;
        if codec == Codec::Opus {
            self.packets.push((1, rng.random_range(60..=100)));
            return;
        }
        let key = std::mem::take(&mut self.needs_key);
        self.frames = if key { 0 } else { self.frames + 1 };
        let part = &mut self.part;
        part.is_key = key;
        part.temporal = TEMPORAL_PATTERN[self.frames % TEMPORAL_PATTERN.len()];
        part.picture_id = part.picture_id.wrapping_add(1) & 0x7FFF;
        if part.temporal == 0 {
            part.tl0_picture_index = part.tl0_picture_index.wrapping_add(1);
        }
        for bitrate_bps in &self.video.bitrates_bps {
            let factor = if key { KEY_FRAME_FACTOR } else { 1 };
            let mean = (bitrate_bps * factor / 8 / FRAMES_PER_SECOND) as f64;
            let bytes = (mean * rng.random_range(0.7..1.3)) as usize;
            let count = bytes.div_ceil(PAYLOAD_BYTES_MAX).max(1);
            self.packets.push((count, (bytes / count).max(100)));
        }
    }

    fn has_more(&self) -> bool {
        self.sent < self.packets.iter().map(|(count, _)| count).sum()
    }

    /// Writes the next packet of the frame under way and returns what it holds and its marker;
    /// `None` when all have been written.
    fn write_packet(
        &mut self,
        codec: Codec,
        unix: Duration,
        payload: &mut Vec<u8>,
    ) -> Option<(Part, bool)> {
        let mut index = self.sent;
        let found = self.packets.iter().enumerate().find_map(|(spatial, &(count, len))| {
            if index < count {
                return Some((spatial, count, len));
            }
            index -= count;
            None
        });
        let (spatial, count, len) = found?;
        self.sent += 1;
        let part = Part {
            is_first: index == 0,
            is_last: index + 1 == count,
            spatial: spatial as u8,
            ..self.part
        };
        payload.clear();
        packetize::write_header(codec, &part, payload);
        payload.resize(len.max(payload.len() + STAMP_BYTES), 0x5A);
        packetize::finish(codec, &part, payload);
        let layer = if self.video.bitrates_bps.len() > 1 { part.spatial } else { self.video.layer };
        Stamp { layer, sent: unix }.write(payload);
        Some((part, !self.has_more()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    struct Sent {
        rid: Option<Rid>,
        layer: u8,
        bytes: usize,
        timestamp: RtpTimestamp,
        marker: bool,
    }

    fn ten_seconds(source: &mut Source) -> Vec<Sent> {
        let start = source.poll_timeout();
        let mut packets = Vec::new();
        while source.poll_timeout() < start + Duration::from_secs(10) {
            let instant = source.poll_timeout();
            let now = Now { instant, unix: Duration::from_secs(5) + (instant - start) };
            source.poll(now, |rid, packet| {
                let stamp = Stamp::parse(packet.payload).unwrap();
                assert_eq!(stamp.sent, now.unix);
                packets.push(Sent {
                    rid,
                    layer: stamp.layer,
                    bytes: packet.payload.len(),
                    timestamp: packet.timestamp,
                    marker: packet.marker,
                });
            });
        }
        packets
    }

    #[test]
    fn audio_is_fifty_packets_a_second_of_a_usual_size() {
        let packets = ten_seconds(&mut Source::audio(Instant::now(), 1, false));
        assert_eq!(packets.len(), 500);
        assert!(packets.iter().all(|packet| (60..=100).contains(&packet.bytes)));
        assert!(packets.windows(2).all(|pair| pair[1].timestamp.0 - pair[0].timestamp.0 == 960));
    }

    #[test]
    fn who_does_not_speak_sends_little_with_dtx() {
        let mut source = Source::audio(Instant::now(), 1, true);
        source.set_speaking(false);
        assert_eq!(ten_seconds(&mut source).len(), 25);
        source.set_speaking(true);
        assert_eq!(ten_seconds(&mut source).len(), 500);
    }

    #[test]
    fn layers_have_their_bitrates_and_frames_their_markers() {
        for codec in [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1] {
            let streams = video_streams(codec, 3, true);
            let mut source = Source::video(codec, streams.clone(), Instant::now(), 2);
            let mut bits = BTreeMap::new();
            let mut markers = BTreeMap::new();
            for sent in ten_seconds(&mut source) {
                *bits.entry(sent.layer).or_insert(0) += sent.bytes as u64 * 8;
                *markers.entry(sent.rid).or_insert(0) += u32::from(sent.marker);
                assert!(sent.bytes <= PAYLOAD_BYTES_MAX);
            }
            let bitrates = streams.iter().flat_map(|stream| &stream.bitrates_bps);
            for ((layer, bits), bitrate) in bits.iter().zip(bitrates) {
                let error = (*bits as f64 / 10.0 / *bitrate as f64 - 1.0).abs();
                assert!(error < 0.1, "{codec:?} layer {layer}: {bits} bits");
            }
            assert_eq!(markers.len(), streams.len());
            assert!(markers.values().all(|count| (299..=301).contains(count)), "{markers:?}");
        }
    }

    #[test]
    fn a_key_frame_is_paced_and_comes_when_asked_for() {
        let streams = video_streams(Codec::H264, 3, false);
        let mut source = Source::video(Codec::H264, streams, Instant::now(), 3);
        let mut keys = Vec::new();
        let mut most = 0;
        for frame in 0..20 {
            let due = source.next_frame;
            while source.poll_timeout() <= due {
                let now = Now { instant: source.poll_timeout(), unix: Duration::ZERO };
                let mut at_once = 0;
                source.poll(now, |_, packet| {
                    at_once += 1;
                    if parlor_rtp::h264::is_keyframe(packet.payload) {
                        keys.push(frame);
                    }
                });
                most = most.max(at_once);
            }
            if frame == 9 {
                source.request_keyframe(Rid::new("q"));
                source.request_keyframe(None);
            }
        }
        assert_eq!(keys, [0, 10]);
        assert!(most <= BURST_PACKETS * 2);
    }

    #[test]
    fn foreign_payloads_have_no_stamp() {
        assert_eq!(Stamp::parse(&[0; 80]), None);
        assert_eq!(Stamp::parse(b"load"), None);
    }
}
