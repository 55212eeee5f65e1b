//! What a publisher sends of each video codec, with layers, and the truth about it.

// A source is a test's own: what it can not code is a fault of the test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use parlor_model::Codec;
use parlor_rtp::{
    dependency_descriptor::{
        DecodeTargetIndication::{self, Discardable, NotPresent, Required, Switch},
        DecodeTargets, Descriptor, FrameDiffs, MAX_CHAINS, Structure, Template,
    },
    vp8,
};

/// How a source codes its pictures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Coding {
    /// The codec.
    pub codec: Codec,
    /// Spatial layers.
    pub spatial: u8,
    /// Temporal layers.
    pub temporal: u8,
    /// Spatial layers depend on one another in keyframes only.
    pub key_only: bool,
    /// With dependency descriptors.
    pub descriptor: bool,
}

impl Coding {
    /// Without layers.
    pub const fn plain(codec: Codec) -> Self {
        Self { codec, spatial: 1, temporal: 1, key_only: false, descriptor: false }
    }

    /// As Chromium numbers it.
    pub fn payload_type(&self) -> u8 {
        match self.codec {
            Codec::Vp8 => 96,
            Codec::H264 => 102,
            Codec::Vp9 => 98,
            Codec::H265 => 116,
            _ => 45,
        }
    }

    /// The temporal layer of a picture, counted from the last keyframe.
    fn temporal_of(&self, at: u32) -> u8 {
        match self.temporal {
            1 => 0,
            2 => [0, 1][at as usize % 2],
            _ => [0, 2, 1, 2][at as usize % 4],
        }
    }

    fn indication(&self, frame: (u8, u8), target: (u8, u8), key: bool) -> DecodeTargetIndication {
        let ((spatial, temporal), (of_spatial, of_temporal)) = (frame, target);
        if of_spatial < spatial || of_temporal < temporal {
            return NotPresent;
        }
        if key {
            return Switch;
        }
        if of_spatial == spatial {
            let is_highest = temporal == of_temporal && temporal > 0;
            return if is_highest { Discardable } else { Switch };
        }
        if self.key_only { NotPresent } else { Required }
    }

    fn target(&self, spatial: u8, temporal: u8) -> usize {
        usize::from(spatial * self.temporal + temporal)
    }

    fn layers(&self) -> impl Iterator<Item = (u8, u8)> {
        let temporal = self.temporal;
        (0..self.spatial).flat_map(move |spatial| (0..temporal).map(move |t| (spatial, t)))
    }

    fn targets(&self, frame: (u8, u8), key: bool) -> DecodeTargets {
        let mut targets = DecodeTargets::default();
        for target in self.layers() {
            targets.set(self.target(target.0, target.1), self.indication(frame, target, key));
        }
        targets
    }

    fn structure(&self, offset: u8) -> Structure {
        let templates: Vec<_> = self
            .layers()
            .map(|(spatial_layer, temporal_layer)| Template {
                spatial_layer,
                temporal_layer,
                decode_targets: self.targets((spatial_layer, temporal_layer), false),
                ..Template::default()
            })
            .collect();
        let protected_by: Vec<_> = self.layers().map(|(spatial, _)| spatial).collect();
        let (targets, chains) = (protected_by.len(), usize::from(self.spatial));
        Structure::new(offset, &templates, targets, chains, &protected_by).unwrap()
    }
}

const KEYFRAME_FACTOR: u64 = 5;
const PACKET_BYTES: u64 = 1000;

/// A frame: source, picture, spatial layer.
pub type FrameId = (u32, u32, u8);

/// Which packet of which frame a payload is; written at its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Name {
    /// The frame.
    pub frame: FrameId,
    /// Which of its packets, from 0 on.
    pub at: u8,
    /// How many it has.
    pub count: u8,
}

impl Name {
    const LEN: usize = 11;

    /// The name at the end of a payload.
    ///
    /// # Panics
    ///
    /// Panics on what no [`LayeredSource`] has sent.
    pub fn of(payload: &[u8]) -> Self {
        Self::read(payload).unwrap()
    }

    /// The name at the end of a payload; `None` of one that is too short for it.
    pub fn read(payload: &[u8]) -> Option<Self> {
        let name = payload.last_chunk::<{ Self::LEN }>()?;
        let word = |at: usize| u32::from_be_bytes(name[at..at + 4].try_into().unwrap());
        Some(Self { frame: (word(0), word(4), name[8]), at: name[9], count: name[10] })
    }

    fn append(&self, payload: &mut Vec<u8>) {
        payload.extend(self.frame.0.to_be_bytes());
        payload.extend(self.frame.1.to_be_bytes());
        payload.extend([self.frame.2, self.at, self.count]);
    }
}

/// A packet of a [`LayeredSource`].
#[derive(Clone, Debug)]
pub struct LayeredPacket {
    /// Its payload, which ends with its [`Name`].
    pub payload: Vec<u8>,
    /// Its dependency descriptor, where the coding has them.
    pub descriptor: Option<Vec<u8>>,
    /// RTP timestamp.
    pub timestamp: u32,
    /// Whether it ends a picture.
    pub marker: bool,
}

/// One stream of a camera at 30 pictures a second.
#[derive(Clone, Debug)]
pub struct LayeredSource {
    /// How it codes.
    pub coding: Coding,
    /// Names its frames.
    pub id: u32,
    /// Of the next picture.
    pub timestamp: u32,
    /// Of the next picture.
    pub picture_id: u16,
    /// Of the last picture of the base layer.
    pub tl0: u8,
    /// Of the next frame.
    pub frame_number: u16,
    /// Pictures so far.
    pub pictures: u32,
    /// Packets of each frame, where it has no bitrates.
    pub packets_per_frame: u8,
    /// What each spatial layer adds, in bits a second; five times as much in keyframes.
    pub bitrates_bps: Vec<u64>,
    /// Spatial layers that are wanted, at most those of the coding.
    pub produced: u8,
    /// Those of them that the picture at hand has.
    active: u8,
    since_keyframe: u32,
    template_offset: u8,
    /// The newest frame of each spatial and temporal layer: picture and frame number.
    newest: BTreeMap<(u8, u8), (u32, u16)>,
    /// The newest frame of each chain, one for each spatial layer.
    chains: [Option<u16>; 3],
    /// What each frame refers to.
    pub references: BTreeMap<FrameId, Vec<FrameId>>,
}

impl LayeredSource {
    /// A source that has sent nothing; its numbers are about to wrap.
    pub fn new(coding: Coding, id: u32) -> Self {
        Self {
            coding,
            id,
            timestamp: (u32::MAX - 20_000).wrapping_sub(id.wrapping_mul(1000)),
            picture_id: 0x7ff0 + id as u16 % 8,
            tl0: 250,
            frame_number: 65_500u16.wrapping_add(id as u16),
            pictures: 0,
            packets_per_frame: 2,
            bitrates_bps: Vec::new(),
            produced: coding.spatial,
            active: 0,
            since_keyframe: 0,
            template_offset: 0,
            newest: BTreeMap::new(),
            chains: [None; 3],
            references: BTreeMap::new(),
        }
    }

    /// The packets of the next picture.
    pub fn next_picture(&mut self, keyframe: bool) -> Vec<LayeredPacket> {
        let keyframe = keyframe || self.pictures == 0;
        if keyframe {
            self.since_keyframe = 0;
            self.newest.clear();
            self.chains = [None; 3];
            self.template_offset = (self.template_offset + 9) % 64;
        }
        let temporal = self.coding.temporal_of(self.since_keyframe);
        if temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        // Where layers depend on one another in keyframes only, one begins with a keyframe.
        let begins = keyframe || !self.coding.key_only;
        let has_layer = |spatial: &u8| begins || self.newest.contains_key(&(*spatial, 0));
        self.active = (0..self.produced).take_while(has_layer).count() as u8;
        self.chains[usize::from(self.active)..].fill(None);
        let mut packets = Vec::new();
        for spatial in 0..self.active {
            self.frame((spatial, temporal), keyframe, &mut packets);
        }
        self.timestamp = self.timestamp.wrapping_add(3000);
        self.picture_id = self.picture_id.wrapping_add(1) & 0x7fff;
        self.pictures += 1;
        self.since_keyframe += 1;
        packets
    }

    /// Packets of a frame, and what each is filled up with, in bytes.
    fn size(&self, spatial: u8, keyframe: bool) -> (u8, usize) {
        let Some(bitrate_bps) = self.bitrates_bps.get(usize::from(spatial)) else {
            return (self.packets_per_frame, 40);
        };
        let bytes = bitrate_bps * if keyframe { KEYFRAME_FACTOR } else { 1 } / 8 / 30;
        let count = bytes.div_ceil(PACKET_BYTES).clamp(1, 255);
        (count as u8, (bytes / count) as usize)
    }

    fn frame(
        &mut self,
        (spatial, temporal): (u8, u8),
        keyframe: bool,
        packets: &mut Vec<LayeredPacket>,
    ) {
        let id = (self.id, self.pictures, spatial);
        let mut refers: Vec<(u8, (u32, u16))> = Vec::new();
        if !keyframe {
            let below = self.newest.range((spatial, 0)..(spatial, temporal.max(1)));
            refers.extend(below.map(|(_, frame)| (spatial, *frame)).max_by_key(|it| it.1.0));
        }
        if spatial > 0 && (keyframe || !self.coding.key_only) {
            let lower = self.newest.get(&(spatial - 1, temporal)).copied();
            refers.extend(lower.map(|frame| (spatial - 1, frame)));
        }
        let is_joined = keyframe || refers.iter().all(|(layer, _)| *layer < spatial);
        self.newest.insert((spatial, temporal), (self.pictures, self.frame_number));
        let names = refers.iter().map(|(layer, (picture, _))| (self.id, *picture, *layer));
        self.references.insert(id, names.collect());
        let diffs: Vec<_> =
            refers.iter().map(|(_, (_, number))| self.frame_number.wrapping_sub(*number)).collect();
        let chain_diffs = self.follow_chains((spatial, temporal), keyframe);
        let (count, filler) = self.size(spatial, keyframe);
        for at in 0..count {
            let (starts, ends) = (at == 0, at + 1 == count);
            let marker = ends && spatial + 1 == self.active;
            let mut payload = self.payload((spatial, temporal), keyframe, starts, ends);
            payload.resize(payload.len() + filler, 0x55);
            Name { frame: id, at, count }.append(&mut payload);
            let descriptor = self.coding.descriptor.then(|| {
                let layers = (spatial, temporal);
                let read = self.descriptor(layers, keyframe, is_joined, &diffs, starts, ends);
                self.write(Descriptor { chain_diffs, ..read })
            });
            let timestamp = self.timestamp;
            packets.push(LayeredPacket { payload, descriptor, timestamp, marker });
        }
        self.frame_number = self.frame_number.wrapping_add(1);
    }

    /// How far back the newest frame of each chain is; the frame becomes the newest of its own.
    fn follow_chains(&mut self, layers: (u8, u8), keyframe: bool) -> [u8; MAX_CHAINS] {
        let (spatial, temporal) = layers;
        let mut diffs = [0; MAX_CHAINS];
        for (chain, newest) in (0..).zip(&mut self.chains) {
            diffs[usize::from(chain)] =
                newest.map_or(0, |it| self.frame_number.wrapping_sub(it).min(255) as u8);
            let depends = keyframe || !self.coding.key_only;
            if temporal == 0 && (spatial == chain || spatial < chain && depends) {
                *newest = Some(self.frame_number);
            }
        }
        diffs[usize::from(self.coding.spatial)..].fill(0);
        diffs
    }

    fn write(&self, descriptor: Descriptor) -> Vec<u8> {
        let mut out = vec![0; 255];
        let structure = self.coding.structure(self.template_offset);
        let len = descriptor.write(&mut out, &structure).unwrap();
        out.truncate(len);
        out
    }

    fn descriptor(
        &self,
        (spatial_layer, temporal_layer): (u8, u8),
        keyframe: bool,
        is_joined: bool,
        diffs: &[u16],
        start_of_frame: bool,
        end_of_frame: bool,
    ) -> Descriptor {
        let coding = &self.coding;
        let index = coding.target(spatial_layer, temporal_layer) as u8;
        let structure_attached = keyframe && spatial_layer == 0 && start_of_frame;
        let produced = coding.layers().filter(|layer| layer.0 < self.active);
        let active = produced.fold(0, |mask, (s, t)| mask | 1 << coding.target(s, t));
        Descriptor {
            start_of_frame,
            end_of_frame,
            template_id: (self.template_offset + index) % 64,
            frame_number: self.frame_number,
            structure_attached,
            active_decode_targets: start_of_frame.then_some(active),
            spatial_layer,
            temporal_layer,
            decode_targets: coding.targets((spatial_layer, temporal_layer), is_joined),
            frame_diffs: FrameDiffs::new(diffs).unwrap(),
            chain_diffs: [0; MAX_CHAINS],
        }
    }

    fn payload(
        &self,
        (spatial, temporal): (u8, u8),
        keyframe: bool,
        starts: bool,
        ends: bool,
    ) -> Vec<u8> {
        let key_start = keyframe && starts && spatial == 0;
        match self.coding.codec {
            // As libwebrtc sends it beside a dependency descriptor.
            Codec::Vp8 if self.coding.descriptor => {
                vec![u8::from(starts) << 4, u8::from(!key_start)]
            }
            Codec::Vp8 => {
                let descriptor = vp8::Descriptor {
                    start_of_partition: starts,
                    picture_id: Some(vp8::PictureId { value: self.picture_id, wide: true }),
                    tl0_picture_index: Some(self.tl0),
                    temporal: Some(vp8::TemporalLayer { id: temporal, sync: temporal == 1 }),
                    ..vp8::Descriptor::default()
                };
                let mut out = vec![0; 16];
                let len = descriptor.write(&mut out).unwrap();
                out.truncate(len);
                out.push(u8::from(!key_start));
                out
            }
            Codec::Vp9 => {
                let flags =
                    0xA0 | u8::from(!keyframe) << 6 | u8::from(starts) << 3 | u8::from(ends) << 2;
                let [high, low] = (self.picture_id | 0x8000).to_be_bytes();
                let up = u8::from(temporal > 0) << 4;
                let joint = u8::from(spatial > 0);
                vec![flags, high, low, temporal << 5 | up | spatial << 1 | joint, self.tl0]
            }
            Codec::Av1 if key_start => vec![0x18, 0x08],
            Codec::Av1 => vec![0x10, 0x30],
            // A VPS, else a slice.
            Codec::H265 if key_start => vec![0x40, 0x01],
            Codec::H265 => vec![0x02, temporal + 1],
            _ if key_start => vec![0x67],
            _ => vec![0x41],
        }
    }
}
