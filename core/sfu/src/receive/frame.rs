//! What a packet says of its frame: layers, indices, and what depends on what.

use std::time::{Duration, Instant};

use parlor_model::Codec;
use parlor_rtp::{
    dependency_descriptor::{
        DecodeTargetIndication, DecodeTargets, Descriptor, FrameDiffs, MAX_DECODE_TARGETS,
        MAX_SPATIAL_LAYERS, Structure,
    },
    is_keyframe, vp8, vp9,
};

use super::chains::Chains;

/// Running numbers that a codec or the dependency descriptor keeps of frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Indices {
    /// VP8 and VP9: 15 bits, or 7 where the field is so wide.
    pub picture_id: u16,
    pub tl0_picture_index: u8,
    /// VP8 KEYIDX, 5 bits.
    pub key_index: u8,
    /// Of the dependency descriptor.
    pub frame_number: u16,
}

impl Indices {
    #[inline]
    pub fn plus(self, offset: Self) -> Self {
        Self {
            picture_id: self.picture_id.wrapping_add(offset.picture_id) & 0x7fff,
            tl0_picture_index: self.tl0_picture_index.wrapping_add(offset.tl0_picture_index),
            key_index: self.key_index.wrapping_add(offset.key_index) & 0x1f,
            frame_number: self.frame_number.wrapping_add(offset.frame_number),
        }
    }

    pub fn minus(self, other: Self) -> Self {
        Self {
            picture_id: self.picture_id.wrapping_sub(other.picture_id) & 0x7fff,
            tl0_picture_index: self.tl0_picture_index.wrapping_sub(other.tl0_picture_index),
            key_index: self.key_index.wrapping_sub(other.key_index) & 0x1f,
            frame_number: self.frame_number.wrapping_sub(other.frame_number),
        }
    }
}

/// How the layers of a packet's stream can be told apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Layering {
    /// They can not: all of the stream is one layer.
    #[default]
    None,
    /// Temporal layers alone: of the VP8 payload descriptor or the H265 NAL unit header.
    Temporal,
    /// Spatial and temporal layers of the VP9 payload descriptor.
    Vp9,
    /// A dependency descriptor whose structure has not come.
    Unknown,
    /// Decode targets of the dependency descriptor.
    Targets(Dependencies),
}

/// What the dependency descriptor says of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dependencies {
    pub targets: DecodeTargets,
    pub references: FrameDiffs,
    /// How many frames back the last frame of each chain is, of the first chains.
    pub chains: [u8; MAX_SPATIAL_LAYERS],
    pub target_count: u8,
    pub brings_structure: bool,
}

/// See the module.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrameFacts {
    /// The packet is the first of a frame, of one spatial layer.
    pub starts: bool,
    /// The packet is the last of a frame, of one spatial layer.
    pub ends: bool,
    pub spatial: u8,
    pub temporal: u8,
    /// VP8 Y, VP9 U: the temporal layer may be taken up here.
    pub switches_up: bool,
    pub indices: Indices,
    pub layering: Layering,
}

impl FrameFacts {
    /// By the payload alone.
    #[inline]
    pub fn of_payload(codec: Codec, payload: &[u8]) -> Self {
        match codec {
            Codec::Vp8 => vp8::Descriptor::parse(payload).map(|it| Self::of_vp8(&it)),
            Codec::Vp9 => vp9::Descriptor::parse(payload).map(|it| Self::of_vp9(&it)),
            Codec::H265 => Self::of_h265(payload),
            _ => None,
        }
        .unwrap_or_default()
    }

    #[inline]
    fn of_vp8(descriptor: &vp8::Descriptor) -> Self {
        Self {
            starts: descriptor.starts_frame(),
            ends: false,
            spatial: 0,
            temporal: descriptor.temporal.map_or(0, |layer| layer.id),
            switches_up: descriptor.temporal.is_some_and(|layer| layer.sync),
            indices: Indices {
                picture_id: descriptor.picture_id.map_or(0, |id| id.value),
                tl0_picture_index: descriptor.tl0_picture_index.unwrap_or(0),
                key_index: descriptor.key_index.unwrap_or(0),
                frame_number: 0,
            },
            layering: Layering::Temporal,
        }
    }

    fn of_vp9(descriptor: &vp9::Descriptor) -> Self {
        Self {
            starts: descriptor.start_of_frame,
            ends: descriptor.end_of_frame,
            spatial: descriptor.spatial_layer(),
            temporal: descriptor.temporal_layer(),
            switches_up: descriptor.layers.is_some_and(|layers| layers.switching_up_point),
            indices: Indices {
                picture_id: descriptor.picture_id.unwrap_or(0),
                tl0_picture_index: descriptor.tl0_picture_index.unwrap_or(0),
                ..Indices::default()
            },
            layering: Layering::Vp9,
        }
    }

    /// By nuh_temporal_id_plus1 (RFC 7798 section 1.1.4). Where pictures begin is told by their
    /// timestamps; encoders for calls refer to lower layers only, so any picture may take its layer
    /// up.
    fn of_h265(payload: &[u8]) -> Option<Self> {
        let temporal = (payload.get(1)? & 0x07).checked_sub(1)?;
        let layering = Layering::Temporal;
        Some(Self { starts: true, temporal, switches_up: true, layering, ..Self::default() })
    }

    fn set_descriptor(&mut self, descriptor: &Descriptor, target_count: u8) {
        self.starts = descriptor.start_of_frame;
        self.ends = descriptor.end_of_frame;
        self.spatial = descriptor.spatial_layer;
        self.temporal = descriptor.temporal_layer;
        self.indices.frame_number = descriptor.frame_number;
        self.layering = Layering::Targets(Dependencies {
            targets: descriptor.decode_targets,
            references: descriptor.frame_diffs,
            chains: descriptor.chain_diffs.first_chunk().copied().unwrap_or_default(),
            target_count,
            brings_structure: descriptor.structure_attached,
        });
    }

    /// Whether a decoder can begin here by the dependency descriptor; `None` without one.
    pub fn is_keyframe(&self) -> Option<bool> {
        match &self.layering {
            Layering::Targets(known) => {
                let alone = known.references.as_slice().is_empty() && self.spatial == 0;
                Some(known.brings_structure && self.starts && alone)
            }
            Layering::Unknown => Some(false),
            Layering::None | Layering::Temporal | Layering::Vp9 => None,
        }
    }
}

/// The structure by which a stream's dependency descriptors are read.
pub struct Scalability {
    structure: Box<Structure>,
    /// Highest spatial and temporal layer of each decode target.
    layers: [(u8, u8); MAX_DECODE_TARGETS],
    /// The number of the packet that brought it: older packets can not be read by it.
    since: u64,
    /// The number of a packet that was of another structure, which has not come: ids of templates
    /// wrap, so that those after it may seem to be of this one.
    until: u64,
    /// The decode targets that are produced, a bit for each.
    active: u32,
    /// The number of the packet that told.
    active_since: u64,
    chains: Box<Chains>,
}

impl Scalability {
    /// Highest spatial and temporal layer of a decode target.
    pub fn layers(&self, target: u8) -> (u8, u8) {
        self.layers.get(usize::from(target)).copied().unwrap_or((0, 0))
    }

    pub fn target_count(&self) -> u8 {
        self.structure.decode_target_count() as u8
    }

    /// The decode targets that are produced, a bit for each.
    pub fn active(&self) -> u32 {
        self.active
    }

    /// Whether higher spatial layers are decoded with a frame; `None` where none is produced.
    pub fn is_needed_above(&self, frame: &FrameFacts) -> Option<bool> {
        let Layering::Targets(known) = &frame.layering else { return None };
        let is_above =
            |target: &u8| self.active >> target & 1 == 1 && self.layers(*target).0 > frame.spatial;
        let mut above = (0..self.target_count()).filter(is_above).peekable();
        above.peek()?;
        let needs = |target: u8| {
            let indication = known.targets.get(usize::from(target));
            indication != DecodeTargetIndication::NotPresent
        };
        Some(above.any(needs))
    }

    /// Whether something that a decode target can not do without is missing for good.
    pub fn is_broken(&self, target: u8) -> bool {
        let broken = self.chains.broken();
        broken != 0 && self.chain_of(target).is_some_and(|chain| broken >> chain & 1 == 1)
    }

    /// The chain that protects a decode target, if it is one of the first.
    pub fn chain_of(&self, target: u8) -> Option<usize> {
        let chain = self.structure.protected_by(usize::from(target));
        chain.filter(|chain| *chain < MAX_SPATIAL_LAYERS)
    }
}

/// Reads the frame of a packet by its payload and its dependency descriptor, and keeps the
/// structure that comes with it. VP8, VP9 and AV1 are read by the descriptor: where there is one,
/// libwebrtc says nothing of layers in the payload of VP8.
#[inline]
pub fn read_frame(
    now: Instant,
    held: &mut Option<Scalability>,
    codec: Codec,
    payload: &[u8],
    descriptor: &[u8],
    number: u64,
) -> FrameFacts {
    let mut frame = FrameFacts::of_payload(codec, payload);
    if !matches!(codec, Codec::Vp8 | Codec::Vp9 | Codec::Av1) {
        return frame;
    }
    if descriptor.is_empty() {
        if codec == Codec::Vp8 {
            return frame;
        }
        if is_keyframe(codec, payload) {
            *held = None;
        } else if held.is_some() {
            frame = FrameFacts { layering: Layering::Unknown, ..FrameFacts::default() };
        }
        return frame;
    }
    match read_descriptor(now, held, descriptor, number) {
        Some((descriptor, count)) => frame.set_descriptor(&descriptor, count),
        None => {
            frame.starts = false;
            frame.layering = Layering::Unknown;
        }
    }
    frame
}

fn read_descriptor(
    now: Instant,
    held: &mut Option<Scalability>,
    data: &[u8],
    number: u64,
) -> Option<(Descriptor, u8)> {
    let readable = held.as_ref().filter(|held| (held.since..held.until).contains(&number));
    let Some(descriptor) = Descriptor::parse(data, readable.map(|held| &*held.structure)) else {
        if let Some(held) = held.as_mut().filter(|held| number >= held.since) {
            held.until = held.until.min(number);
        }
        return None;
    };
    let is_newer = held.as_ref().is_none_or(|held| number > held.since);
    let mut count = readable.map_or(0, Scalability::target_count);
    if descriptor.structure_attached {
        let structure = Structure::parse(data)?;
        count = structure.decode_target_count() as u8;
        if !is_newer {
            return Some((descriptor, count));
        }
        let mut layers = [(0, 0); MAX_DECODE_TARGETS];
        for (target, place) in layers.iter_mut().enumerate().take(structure.decode_target_count()) {
            *place = structure.decode_target_layers(target);
        }
        let active = structure.all_decode_targets();
        match held {
            Some(held) => {
                *held.structure = structure;
                (held.layers, held.since, held.active) = (layers, number, active);
                (held.until, held.active_since) = (u64::MAX, number);
            }
            None => {
                let structure = Box::new(structure);
                let active_since = number;
                let chains = Box::new(Chains::new());
                *held = Some(Scalability {
                    structure,
                    layers,
                    since: number,
                    until: u64::MAX,
                    active,
                    active_since,
                    chains,
                });
            }
        }
    }
    if let Some(held) = held {
        if let Some(active) = descriptor.active_decode_targets
            && number >= held.active_since
        {
            (held.active, held.active_since) = (active, number);
        }
        held.chains.note(now, &descriptor, held.structure.chain_count(), number);
    }
    Some((descriptor, count))
}

/// Temporal layers whose frame rates are told apart.
const MAX_TEMPORAL: usize = 4;
/// How long frames are counted.
const WINDOW: Duration = Duration::from_secs(1);
/// A subscriber that wants so many percent of a layer's frame rate is content with the layer.
const ENOUGH_PERCENT: u32 = 90;
/// Longest distance of frames that is believed.
const MAX_INTERVAL: Duration = Duration::from_secs(2);

/// How many pictures of each temporal layer come a second, and how far apart.
#[derive(Default)]
pub struct FrameRates {
    window: Option<Instant>,
    last: Option<(Instant, u32)>,
    counts: [u32; MAX_TEMPORAL],
    /// Pictures a second of a layer and all below it, as counted last.
    fps: Option<[u32; MAX_TEMPORAL]>,
    interval: Duration,
}

impl FrameRates {
    /// The newest packet of the stream has come.
    #[inline]
    pub fn count(&mut self, now: Instant, timestamp: u32, temporal: u8) {
        if self.last.is_some_and(|(_, last)| last == timestamp) {
            return;
        }
        if let Some((at, _)) = self.last {
            let elapsed = now.saturating_duration_since(at).min(MAX_INTERVAL);
            self.interval = (self.interval * 3 + elapsed) / 4;
        }
        self.last = Some((now, timestamp));
        let window = *self.window.get_or_insert(now);
        let elapsed = now.saturating_duration_since(window);
        if elapsed >= WINDOW {
            let mut sum = 0;
            let ms = elapsed.as_millis().max(1);
            let fps = self.counts.map(|count| {
                sum += count;
                (u128::from(sum) * 1000).div_ceil(ms) as u32
            });
            self.fps = Some(fps);
            (self.counts, self.window) = ([0; MAX_TEMPORAL], Some(now));
        }
        if let Some(count) = self.counts.get_mut(usize::from(temporal).min(MAX_TEMPORAL - 1)) {
            *count += 1;
        }
    }

    /// The lowest temporal layer that is enough for a frame rate, all of them if none is.
    pub fn temporal_for(&self, wanted_fps: Option<u32>) -> u8 {
        let (Some(wanted), Some(fps)) = (wanted_fps, self.fps) else { return u8::MAX };
        fps.iter()
            .position(|fps| u64::from(*fps) * 100 >= u64::from(wanted) * u64::from(ENOUGH_PERCENT))
            .map_or(u8::MAX, |layer| layer as u8)
    }

    /// The smoothed distance of two pictures.
    pub fn interval(&self) -> Duration {
        self.interval
    }
}

#[cfg(test)]
mod tests {
    use parlor_rtp::dependency_descriptor::Template;

    use super::*;

    /// The first packet of a frame of this template, with the structure that counts from an id.
    fn descriptor(template_id: u8, structure_from: Option<u8>) -> Vec<u8> {
        let upper = Template { temporal_layer: 1, ..Template::default() };
        let from = structure_from.unwrap_or(template_id);
        let structure = Structure::new(from, &[Template::default(), upper], 1, 0, &[]).unwrap();
        let template = structure.template(template_id).unwrap();
        let descriptor = Descriptor {
            start_of_frame: true,
            end_of_frame: true,
            template_id,
            frame_number: 1,
            structure_attached: structure_from.is_some(),
            active_decode_targets: None,
            spatial_layer: 0,
            temporal_layer: template.temporal_layer,
            decode_targets: template.decode_targets,
            frame_diffs: template.frame_diffs,
            chain_diffs: template.chain_diffs,
        };
        let mut out = vec![0; 64];
        let len = descriptor.write(&mut out, &structure).unwrap();
        out.truncate(len);
        out
    }

    /// Ids of templates wrap after 64: where several structures were lost, what comes after them
    /// may seem to be of the old one.
    #[test]
    fn nothing_is_read_by_a_structure_after_a_packet_of_another() {
        let mut held = None;
        let mut read = |number: u64, template_id: u8, structure_from: Option<u8>| {
            let data = descriptor(template_id, structure_from);
            let frame = read_frame(Instant::now(), &mut held, Codec::Av1, &[], &data, number);
            (frame.layering != Layering::Unknown).then_some(frame.temporal)
        };
        assert_eq!(read(100, 5, Some(5)), Some(0));
        assert_eq!(read(110, 7, None), None, "of a structure that has not come");
        assert_eq!(read(111, 6, None), None, "so this one is not of the old one");
        assert_eq!(read(109, 6, None), Some(1), "which this one may be of");
        assert_eq!(read(105, 62, Some(61)), Some(1), "another, but not the missing one");
        assert_eq!(read(111, 61, None), Some(0));
    }

    #[test]
    fn a_frame_rate_is_met_by_the_lowest_layer_that_is_enough() {
        let start = Instant::now();
        let mut rates = FrameRates::default();
        assert_eq!(rates.temporal_for(Some(10)), u8::MAX);
        for frame in 0..130u32 {
            let temporal = [0, 2, 1, 2][frame as usize % 4];
            rates.count(start + Duration::from_millis(33) * frame, frame * 3000, temporal);
        }
        assert_eq!(rates.temporal_for(Some(7)), 0);
        assert_eq!(rates.temporal_for(Some(10)), 1);
        assert_eq!(rates.temporal_for(Some(30)), 2);
        assert_eq!(rates.temporal_for(Some(60)), u8::MAX);
        assert_eq!(rates.temporal_for(None), u8::MAX);
        assert!(rates.interval() > Duration::from_millis(30));
    }
}
