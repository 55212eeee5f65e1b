//! Dependency descriptors of a camera with layers, coded as L3T3_KEY: spatial layers depend on one
//! another in key pictures only.

use crate::packetize::Part;
use parlor_rtp::dependency_descriptor::{
    DecodeTargetIndication::{self, Discardable, NotPresent, Switch},
    DecodeTargets, Descriptor, FrameDiffs, MAX_CHAINS, MAX_SPATIAL_LAYERS, Structure, Template,
};

/// Temporal layers of each spatial layer.
const TEMPORAL_LAYERS: u8 = 3;
/// Longest descriptor, in bytes: a header extension has no more room.
const DESCRIPTOR_BYTES_MAX: usize = 255;

/// Describes the frames of one stream (AV1 RTP specification, appendix A).
#[derive(Debug)]
pub(crate) struct Descriptors {
    structure: Structure,
    /// Of the frame at hand.
    frame_number: u16,
    /// The newest frame of each spatial and temporal layer since the last key picture.
    newest: [[Option<u16>; TEMPORAL_LAYERS as usize]; MAX_SPATIAL_LAYERS],
    /// What differs from the template in all packets of the frame at hand.
    frame_diffs: FrameDiffs,
    chain_diffs: [u8; MAX_CHAINS],
    written: [u8; DESCRIPTOR_BYTES_MAX],
}

impl Descriptors {
    /// For a stream of so many spatial layers, at least one.
    pub fn new(spatial_layers: u8) -> Option<Self> {
        let templates: Vec<_> = layers(spatial_layers)
            .map(|(spatial_layer, temporal_layer)| Template {
                spatial_layer,
                temporal_layer,
                decode_targets: decode_targets(
                    spatial_layers,
                    spatial_layer,
                    temporal_layer,
                    false,
                ),
                ..Template::default()
            })
            .collect();
        let chains: Vec<_> = layers(spatial_layers).map(|(spatial, _)| spatial).collect();
        let count = usize::from(spatial_layers);
        Some(Self {
            structure: Structure::new(0, &templates, templates.len(), count, &chains)?,
            frame_number: 0,
            newest: Default::default(),
            frame_diffs: FrameDiffs::default(),
            chain_diffs: [0; MAX_CHAINS],
            written: [0; DESCRIPTOR_BYTES_MAX],
        })
    }

    /// The descriptor of the next packet.
    pub fn next(&mut self, part: &Part) -> Option<&[u8]> {
        if part.is_first {
            self.begin_frame(part)?;
        }
        let template_id = part.spatial * TEMPORAL_LAYERS + part.temporal;
        let descriptor = Descriptor {
            start_of_frame: part.is_first,
            end_of_frame: part.is_last,
            template_id,
            frame_number: self.frame_number,
            structure_attached: part.is_key && part.is_first && part.spatial == 0,
            active_decode_targets: None,
            spatial_layer: part.spatial,
            temporal_layer: part.temporal,
            decode_targets: decode_targets(
                part.spatial_layers,
                part.spatial,
                part.temporal,
                part.is_key,
            ),
            frame_diffs: self.frame_diffs,
            chain_diffs: self.chain_diffs,
        };
        let len = descriptor.write(&mut self.written, &self.structure)?;
        self.written.get(..len)
    }

    fn begin_frame(&mut self, part: &Part) -> Option<()> {
        self.frame_number = self.frame_number.wrapping_add(1);
        if part.is_key && part.spatial == 0 {
            self.newest = Default::default();
        }
        let number = self.frame_number;
        let back = |frame: &Option<u16>| frame.map(|frame| number.wrapping_sub(frame));
        // The chain of a spatial layer are its frames that all others need.
        for (diff, layer) in self.chain_diffs.iter_mut().zip(&self.newest) {
            *diff = layer.first().and_then(back).map_or(0, |diff| diff.min(255) as u8);
        }
        let layer = self.newest.get(usize::from(part.spatial))?;
        let refers = if !part.is_key {
            layer.iter().take(usize::from(part.temporal.max(1))).filter_map(back).min()
        } else {
            (part.spatial > 0).then_some(1)
        };
        self.frame_diffs = FrameDiffs::new(refers.as_slice())?;
        // The layers above are decoded from a key picture's, and so are their chains.
        let last = if part.is_key { part.spatial_layers - 1 } else { part.spatial };
        for layer in self.newest.get_mut(usize::from(part.spatial)..=usize::from(last))? {
            *layer.get_mut(usize::from(part.temporal))? = Some(number);
        }
        Some(())
    }
}

/// In the order of templates and of decode targets.
fn layers(spatial_layers: u8) -> impl Iterator<Item = (u8, u8)> {
    (0..spatial_layers).flat_map(|spatial| (0..TEMPORAL_LAYERS).map(move |temp| (spatial, temp)))
}

fn decode_targets(spatial_layers: u8, spatial: u8, temporal: u8, is_key: bool) -> DecodeTargets {
    let mut targets = DecodeTargets::default();
    for (index, target) in layers(spatial_layers).enumerate() {
        targets.set(index, indication((spatial, temporal), target, is_key));
    }
    targets
}

fn indication(frame: (u8, u8), target: (u8, u8), is_key: bool) -> DecodeTargetIndication {
    let is_needed = if is_key { frame.0 <= target.0 } else { frame.0 == target.0 };
    match is_needed && frame.1 <= target.1 {
        false => NotPresent,
        true if frame.1 == target.1 && frame.1 > 0 => Discardable,
        true => Switch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packetize;

    const PART: Part =
        Part { is_key: false, is_last: true, spatial_layers: 2, ..packetize::tests::PART };

    /// Number, frames it refers to, and the first two chains, as a receiver reads them.
    fn frames(pictures: &[(bool, u8)]) -> Vec<(u16, Vec<u16>, [u8; 2])> {
        let mut descriptors = Descriptors::new(2).unwrap();
        let mut held = None;
        let mut frames = Vec::new();
        for &(is_key, temporal) in pictures {
            for spatial in 0..2 {
                let part = Part { is_key, temporal, spatial, ..PART };
                let data = descriptors.next(&part).unwrap();
                if let Some(structure) = Structure::parse(data) {
                    held = Some(structure);
                }
                let read = Descriptor::parse(data, held.as_ref()).unwrap();
                assert_eq!((read.spatial_layer, read.temporal_layer), (spatial, temporal));
                let refers = read.frame_diffs.as_slice().iter().map(|d| read.frame_number - d);
                let [a, b, ..] = read.chain_diffs;
                frames.push((read.frame_number, refers.collect(), [a, b]));
            }
        }
        frames
    }

    #[test]
    fn layers_meet_in_key_pictures_only() {
        let got = frames(&[(true, 0), (false, 2), (false, 1), (false, 2), (false, 0)]);
        let expected = [
            (1, vec![], [0, 0]),
            (2, vec![1], [1, 1]),
            (3, vec![1], [2, 1]),
            (4, vec![2], [3, 2]),
            (5, vec![1], [4, 3]),
            (6, vec![2], [5, 4]),
            (7, vec![5], [6, 5]),
            (8, vec![6], [7, 6]),
            (9, vec![1], [8, 7]),
            (10, vec![2], [1, 8]),
        ];
        assert_eq!(got, expected);
        assert_eq!(
            frames(&[(true, 0), (true, 0)])[2..],
            [(3, vec![], [0, 0]), (4, vec![3], [1, 1])]
        );
    }

    #[test]
    fn every_layer_is_a_decode_target() {
        let structure = Descriptors::new(3).unwrap().structure;
        let targets = (0..9).map(|target| structure.decode_target_layers(target));
        assert!(targets.eq((0..3).flat_map(|spatial| (0..3).map(move |t| (spatial, t)))));
    }

    #[test]
    fn only_the_first_packet_of_a_key_picture_brings_the_structure() {
        let mut descriptors = Descriptors::new(2).unwrap();
        let mut has_structure =
            |part: Part| Structure::parse(descriptors.next(&part).unwrap()).is_some();
        let key = Part { is_key: true, ..PART };
        assert!(has_structure(Part { is_last: false, ..key }));
        assert!(!has_structure(Part { is_first: false, ..key }));
        assert!(!has_structure(Part { spatial: 1, ..key }));
        assert!(!has_structure(PART));
    }
}
