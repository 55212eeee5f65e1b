//! How much each layer of a received stream takes.

use std::time::{Duration, Instant};

use parlor_congestion::allocate::{LayerBitrates, SPATIAL_MAX, TEMPORAL_MAX};
use parlor_model::TrackKind;

use super::history::PacketFacts;

/// How long bytes are counted.
const WINDOW: Duration = Duration::from_secs(1);
/// Keyframes come now and then and are many times as large as what follows: they are counted over
/// so many windows, so that one does not look like a layer that takes more.
const KEYFRAME_WINDOWS: u32 = 8;
/// The least time that tells something.
const LEAST: Duration = Duration::from_millis(300);
/// What a packet takes beside its payload: RTP header and extensions, SRTP tag.
pub const OVERHEAD_BYTES: usize = 50;

type Bytes = [[u32; TEMPORAL_MAX]; SPATIAL_MAX];

/// See the module.
#[derive(Default)]
pub struct LayerRates {
    window: Option<Instant>,
    bytes: Bytes,
    keyframe_bytes: Bytes,
    /// Of the newest keyframe.
    keyframe_timestamp: Option<u32>,
    /// Spatial layers that those above need in keyframes only.
    apart: [bool; SPATIAL_MAX],
    /// Bits a second of each layer alone, smoothed: without keyframes, and of keyframes.
    bps: Option<(Bytes, Bytes)>,
}

impl LayerRates {
    /// A packet has come.
    #[inline]
    pub fn count(&mut self, now: Instant, facts: &PacketFacts, payload_bytes: usize) {
        let window = *self.window.get_or_insert(now);
        if now >= window + WINDOW {
            self.turn(now, window);
        }
        // Every packet of audio is a keyframe.
        if facts.keyframe && facts.codec.kind() == TrackKind::Video {
            self.keyframe_timestamp = Some(facts.timestamp);
        }
        let is_key = self.keyframe_timestamp == Some(facts.timestamp);
        let bytes = if is_key { &mut self.keyframe_bytes } else { &mut self.bytes };
        let (spatial, temporal) =
            (usize::from(facts.frame.spatial), usize::from(facts.frame.temporal));
        let place = bytes
            .get_mut(spatial.min(SPATIAL_MAX - 1))
            .and_then(|layer| layer.get_mut(temporal.min(TEMPORAL_MAX - 1)));
        if let Some(place) = place {
            *place = place.saturating_add((payload_bytes + OVERHEAD_BYTES) as u32);
        }
    }

    /// Notes whether spatial layers above are decoded with a frame that has come.
    #[inline]
    pub fn note_dependence(&mut self, facts: &PacketFacts, is_needed_above: bool) {
        if self.keyframe_timestamp != Some(facts.timestamp)
            && let Some(apart) = self.apart.get_mut(usize::from(facts.frame.spatial))
        {
            *apart = !is_needed_above;
        }
    }

    /// Whether spatial layers above need this one in keyframes only: it can not be changed to
    /// without one.
    pub fn is_apart(&self, spatial: u8) -> bool {
        self.apart.get(usize::from(spatial)).copied().unwrap_or(false)
    }

    fn turn(&mut self, now: Instant, window: Instant) {
        let elapsed = now.saturating_duration_since(window);
        let (new, key) = (rates(&self.bytes, elapsed), rates(&self.keyframe_bytes, elapsed));
        // After a pause the past tells nothing.
        let known = self.bps.filter(|_| elapsed < 2 * WINDOW);
        let (old, old_key) = known.unwrap_or((new, key.map(|layer| layer.map(spread))));
        let smoothed = mixed(&old, &new, u32::midpoint);
        let smoothed_key = mixed(&old_key, &key, |old, new| old - spread(old) + spread(new));
        self.bps = Some((smoothed, smoothed_key));
        (self.bytes, self.keyframe_bytes) = Default::default();
        self.window = Some(now);
    }

    /// What each layer takes with all below it; `None` as long as that is not known.
    pub fn cumulative(&self, now: Instant) -> Option<LayerBitrates> {
        let (bps, key) = match (self.bps, self.window) {
            (Some(bps), _) => bps,
            (None, Some(window)) if now >= window + LEAST => {
                let key = rates(&self.keyframe_bytes, WINDOW);
                let elapsed = now.saturating_duration_since(window);
                (rates(&self.bytes, elapsed), key.map(|layer| layer.map(spread)))
            }
            _ => return None,
        };
        let mut out = LayerBitrates::default();
        let (mut below, mut key_below) = ([0_u32; TEMPORAL_MAX], [0_u32; TEMPORAL_MAX]);
        for (spatial, out) in out.iter_mut().enumerate() {
            let mut sum = 0_u32;
            for (temporal, out) in out.iter_mut().enumerate() {
                let (alone, key) = (bps[spatial][temporal], key[spatial][temporal]);
                below[temporal] = below[temporal].saturating_add(alone);
                key_below[temporal] = key_below[temporal].saturating_add(key);
                sum = sum.saturating_add(below[temporal]).saturating_add(key_below[temporal]);
                *out = (alone.saturating_add(key) > 0).then_some(sum);
            }
            if self.apart[spatial] {
                below = [0; TEMPORAL_MAX];
            }
        }
        Some(out)
    }
}

fn spread(bps: u32) -> u32 {
    bps / KEYFRAME_WINDOWS
}

fn mixed(one: &Bytes, other: &Bytes, mix: impl Fn(u32, u32) -> u32) -> Bytes {
    let mut out = *one;
    for (out, other) in out.iter_mut().flatten().zip(other.iter().flatten()) {
        *out = mix(*out, *other);
    }
    out
}

fn rates(bytes: &Bytes, elapsed: Duration) -> Bytes {
    let ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    bytes.map(|layer| {
        layer.map(|bytes| u32::try_from(u64::from(bytes) * 8000 / ms).unwrap_or(u32::MAX))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::receive::frame::FrameFacts;
    use parlor_model::Codec;

    fn facts(timestamp: u32, spatial: u8, temporal: u8, keyframe: bool) -> PacketFacts {
        PacketFacts {
            number: 0,
            timestamp,
            marker: false,
            keyframe,
            codec: Codec::Vp8,
            codec_index: 0,
            frame: FrameFacts { spatial, temporal, ..FrameFacts::default() },
            audio_level: None,
            video_orientation: None,
            playout_delay: None,
            has_rare_extensions: false,
        }
    }

    #[test]
    fn layers_are_counted_with_those_below_them() {
        let start = Instant::now();
        let mut rates = LayerRates::default();
        assert!(rates.cumulative(start).is_none());
        for n in 0..200u32 {
            let now = start + Duration::from_millis(10) * n;
            for (spatial, bytes) in [(0, 75), (1, 200)] {
                rates.count(now, &facts(n, spatial, (n % 2) as u8, false), bytes);
            }
        }
        let found = rates.cumulative(start + Duration::from_secs(2)).unwrap();
        // 100 packets a second, half of them of each temporal layer.
        let kbps = found.map(|layer| layer.map(|bps| bps.map(|bps| (bps + 500) / 1000)));
        assert_eq!(kbps[0], [Some(50), Some(100), None, None]);
        assert_eq!(kbps[1], [Some(150), Some(300), None, None]);
        assert_eq!(kbps[2], [None; 4]);
    }

    #[test]
    fn layers_that_are_joined_in_keyframes_only_take_what_they_have_themselves() {
        let start = Instant::now();
        let mut rates = LayerRates::default();
        for n in 0..200u32 {
            let now = start + Duration::from_millis(10) * n;
            for (spatial, bytes) in [(0, 75), (1, 200)] {
                let facts = facts(n, spatial, 0, false);
                rates.count(now, &facts, bytes);
                if spatial == 0 {
                    rates.note_dependence(&facts, false);
                }
            }
        }
        assert!(rates.is_apart(0) && !rates.is_apart(1));
        let found = rates.cumulative(start + Duration::from_secs(2)).unwrap();
        let kbps = found.map(|layer| layer[0].map(|bps| (bps + 500) / 1000));
        assert_eq!(kbps, [Some(100), Some(200), None]);
    }

    /// Five frames of 3700 bytes a second, as a screen has them; `keyframes` says which are key.
    fn screen(keyframes: impl Fn(u32) -> bool) -> Vec<u32> {
        let start = Instant::now();
        let mut rates = LayerRates::default();
        let mut seen = Vec::new();
        for frame in 0..200u32 {
            let now = start + Duration::from_millis(200) * frame;
            let packets = if keyframes(frame) { 20 } else { 4 };
            for packet in 0..packets {
                let is_first = packet == 0 && keyframes(frame);
                rates.count(now, &facts(frame * 18_000, 0, 0, is_first), 875);
            }
            seen.extend(rates.cumulative(now).and_then(|found| found[0][0]));
        }
        seen
    }

    #[test]
    fn a_keyframe_now_and_then_does_not_swing_what_a_layer_takes() {
        let seen = screen(|frame| matches!(frame, 0 | 80 | 150));
        let settled = &seen[20..];
        assert!(settled.iter().all(|bps| (118_000..185_000).contains(bps)), "{settled:?}");
    }

    #[test]
    fn keyframes_that_come_regularly_count_in_full() {
        let last = *screen(|frame| frame % 10 == 0).last().unwrap();
        // Of ten frames one is five times as large: 207 kbit/s.
        assert!((185_000..230_000).contains(&last), "{last}");
    }
}
