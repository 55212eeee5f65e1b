//! The VP9 payload descriptor (RFC 9628 section 4.2).

use crate::read::u16_at;

/// Most spatial layers that a descriptor can name.
pub const MAX_SPATIAL_LAYERS: usize = 8;

/// Where a frame stands among the layers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LayerIndices {
    /// TID: temporal layer, 0 is the base.
    pub temporal: u8,
    /// U: frames of higher temporal layers from here on depend on nothing older in their layers.
    pub switching_up_point: bool,
    /// SID: spatial layer, 0 is the base.
    pub spatial: u8,
    /// D: the frame depends on the next lower spatial layer of its own picture.
    pub inter_layer_dependency: bool,
}

/// How many spatial layers there are and how large each is (RFC 9628 section 4.2.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ScalabilityStructure {
    /// Number of spatial layers, 1 to [`MAX_SPATIAL_LAYERS`].
    pub spatial_layers: u8,
    /// Width and height in pixels of each spatial layer, when told.
    pub sizes: Option<[(u16, u16); MAX_SPATIAL_LAYERS]>,
    /// Number of pictures in the picture group; 0 when not told.
    pub group_len: u8,
}

/// A VP9 payload descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Descriptor {
    /// I: picture id, 7 or 15 bits.
    pub picture_id: Option<u16>,
    /// M: whether the picture id has 15 bits.
    pub wide_picture_id: bool,
    /// P: the picture depends on earlier pictures.
    pub inter_picture_predicted: bool,
    /// L: layer indices.
    pub layers: Option<LayerIndices>,
    /// F: flexible mode, in which each picture names those that it depends on.
    pub flexible: bool,
    /// B: the payload starts a layer frame.
    pub start_of_frame: bool,
    /// E: the payload ends a layer frame.
    pub end_of_frame: bool,
    /// Z: no higher spatial layer depends on this frame.
    pub not_a_reference_for_upper: bool,
    /// Running index of base temporal layer pictures; outside flexible mode only.
    pub tl0_picture_index: Option<u8>,
    /// How many picture ids back the referenced pictures are; the first `reference_count` count.
    pub references: [u8; 3],
    /// Number of referenced pictures.
    pub reference_count: u8,
    /// V: scalability structure.
    pub structure: Option<ScalabilityStructure>,
    /// Bytes of the descriptor.
    pub len: usize,
}

impl Descriptor {
    /// Reads the descriptor at the start of an RTP payload; `None` when it does not fit.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let &flags = payload.first()?;
        let mut descriptor = Self {
            inter_picture_predicted: flags & 0x40 != 0,
            flexible: flags & 0x10 != 0,
            start_of_frame: flags & 0x08 != 0,
            end_of_frame: flags & 0x04 != 0,
            not_a_reference_for_upper: flags & 0x01 != 0,
            len: 1,
            ..Self::default()
        };
        if flags & 0x80 != 0 {
            let &byte = payload.get(1)?;
            descriptor.wide_picture_id = byte & 0x80 != 0;
            let wide = descriptor.wide_picture_id;
            let id = if wide { u16_at(payload, 1)? & 0x7FFF } else { u16::from(byte) };
            descriptor.picture_id = Some(id);
            descriptor.len += 1 + usize::from(wide);
        }
        if flags & 0x20 != 0 {
            descriptor.parse_layers(payload)?;
        }
        if descriptor.flexible && descriptor.inter_picture_predicted {
            descriptor.parse_references(payload)?;
        }
        if flags & 0x02 != 0 {
            descriptor.parse_structure(payload)?;
        }
        Some(descriptor)
    }

    fn take(&mut self, payload: &[u8]) -> Option<u8> {
        let byte = *payload.get(self.len)?;
        self.len += 1;
        Some(byte)
    }

    fn parse_layers(&mut self, payload: &[u8]) -> Option<()> {
        let byte = self.take(payload)?;
        self.layers = Some(LayerIndices {
            temporal: byte >> 5,
            switching_up_point: byte & 0x10 != 0,
            spatial: byte >> 1 & 0x07,
            inter_layer_dependency: byte & 0x01 != 0,
        });
        if !self.flexible {
            self.tl0_picture_index = Some(self.take(payload)?);
        }
        Some(())
    }

    fn parse_references(&mut self, payload: &[u8]) -> Option<()> {
        loop {
            let byte = self.take(payload)?;
            *self.references.get_mut(usize::from(self.reference_count))? = byte >> 1;
            self.reference_count += 1;
            if byte & 1 == 0 {
                return Some(());
            }
        }
    }

    fn parse_structure(&mut self, payload: &[u8]) -> Option<()> {
        let byte = self.take(payload)?;
        let spatial_layers = (byte >> 5) + 1;
        let mut structure = ScalabilityStructure { spatial_layers, ..Default::default() };
        if byte & 0x10 != 0 {
            let mut sizes = [(0, 0); MAX_SPATIAL_LAYERS];
            for size in sizes.iter_mut().take(usize::from(spatial_layers)) {
                *size = (u16_at(payload, self.len)?, u16_at(payload, self.len + 2)?);
                self.len += 4;
            }
            structure.sizes = Some(sizes);
        }
        if byte & 0x08 != 0 {
            structure.group_len = self.take(payload)?;
            for _ in 0..structure.group_len {
                let references = self.take(payload)? >> 2 & 0x03;
                self.len += usize::from(references);
            }
        }
        self.structure = Some(structure);
        (self.len <= payload.len()).then_some(())
    }

    /// Spatial layer; 0 without layer indices.
    pub fn spatial_layer(&self) -> u8 {
        self.layers.map_or(0, |layers| layers.spatial)
    }

    /// Temporal layer; 0 without layer indices.
    pub fn temporal_layer(&self) -> u8 {
        self.layers.map_or(0, |layers| layers.temporal)
    }

    /// Whether the payload starts a picture that depends on no other.
    ///
    /// Told by the descriptor alone, so it holds for end-to-end encrypted frames too.
    pub fn is_keyframe(&self) -> bool {
        self.start_of_frame && !self.inter_picture_predicted && self.spatial_layer() == 0
    }
}

/// Puts a picture id and a TL0PICIDX into the descriptor in `payload`, where it has them, in place
/// and as wide as they are. Values are cut to their fields. `false` when the descriptor does not
/// fit.
#[inline]
pub fn rewrite(payload: &mut [u8], picture_id: u16, tl0_picture_index: u8) -> bool {
    let Some(&flags) = payload.first() else { return false };
    let mut at = 1;
    if flags & 0x80 != 0 {
        match payload.get(at) {
            Some(byte) if byte & 0x80 != 0 => {
                let Some(field) = payload.get_mut(at..at + 2) else { return false };
                field.copy_from_slice(&(picture_id | 0x8000).to_be_bytes());
                at += 2;
            }
            Some(_) => {
                if let Some(byte) = payload.get_mut(at) {
                    *byte = picture_id as u8 & 0x7F;
                }
                at += 1;
            }
            None => return false,
        }
    }
    // L without F: TL0PICIDX follows the layer indices.
    if flags & 0x30 == 0x20 {
        match payload.get_mut(at + 1) {
            Some(byte) => *byte = tl0_picture_index,
            None => return false,
        }
    }
    true
}

/// Whether the payload starts a key frame, as [`Descriptor::is_keyframe`].
pub fn is_keyframe(payload: &[u8]) -> bool {
    Descriptor::parse(payload).is_some_and(|descriptor| descriptor.is_keyframe())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_key_frame_with_structure_reads_field_by_field() {
        let payload = [
            0xAA, // I L B V
            0x81, 0x02, // 15-bit picture id
            0x00, 0x09, // TID 0, SID 0; TL0PICIDX
            0x38, 0x01, 0x40, 0x00, 0xB4, 0x02, 0x80, 0x01,
            0x68, // two layers with sizes, group
            2, 0x04, 0x01, 0x40, // pictures with one and no references
            0xFF,
        ];
        let descriptor = Descriptor::parse(&payload).unwrap();
        assert_eq!((descriptor.picture_id, descriptor.wide_picture_id), (Some(0x102), true));
        assert_eq!(descriptor.tl0_picture_index, Some(9));
        let structure = descriptor.structure.unwrap();
        assert_eq!((structure.spatial_layers, structure.group_len), (2, 2));
        assert_eq!(structure.sizes.unwrap()[..2], [(320, 180), (640, 360)]);
        assert_eq!(descriptor.len, payload.len() - 1);
        assert!(is_keyframe(&payload));
        for short in 0..payload.len() - 1 {
            assert_eq!(Descriptor::parse(&payload[..short]), None, "{short}");
        }
    }

    #[test]
    fn flexible_mode_names_its_references() {
        let payload = [0xF4, 0x05, 0x53, 0x03, 0x04, 0xFF];
        let descriptor = Descriptor::parse(&payload).unwrap();
        assert_eq!(descriptor.picture_id, Some(5));
        let layers = descriptor.layers.unwrap();
        assert_eq!((layers.temporal, layers.spatial), (2, 1));
        assert!(layers.switching_up_point && layers.inter_layer_dependency);
        assert_eq!(descriptor.tl0_picture_index, None);
        assert_eq!((descriptor.reference_count, descriptor.references), (2, [1, 2, 0]));
        assert!(descriptor.end_of_frame && !descriptor.is_keyframe());
        assert_eq!(Descriptor::parse(&[0x50, 1, 1, 1, 0]), None, "four references");
    }

    #[test]
    fn only_the_base_layer_starts_a_key_frame() {
        assert!(is_keyframe(&[0x08, 0]));
        assert!(!is_keyframe(&[0x48, 0]), "predicted");
        assert!(!is_keyframe(&[0x00, 0]), "not at the start");
        assert!(!is_keyframe(&[0x28, 0x02, 0]), "spatial layer 1");
    }

    #[test]
    fn rewriting_keeps_the_width_and_all_else() {
        let mut payload = [0xA8, 0x81, 0x02, 0x50, 0x09, 0xFF];
        assert!(rewrite(&mut payload, 0x7ABC, 77));
        assert_eq!(payload, [0xA8, 0xFA, 0xBC, 0x50, 77, 0xFF]);
        let mut narrow = [0xB8, 0x05, 0x50, 0x09];
        assert!(rewrite(&mut narrow, 0x7ABC, 77), "flexible: no TL0PICIDX");
        assert_eq!(narrow, [0xB8, 0x3C, 0x50, 0x09]);
        let mut none = [0x08, 1];
        assert!(rewrite(&mut none, 1, 1));
        assert_eq!(none, [0x08, 1]);
        assert!(!rewrite(&mut [0x80, 0x81], 1, 1) && !rewrite(&mut [0x20, 0], 1, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn junk_never_panics(payload in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Some(descriptor) = Descriptor::parse(&payload) {
                prop_assert!(descriptor.len <= payload.len());
            }
        }
    }
}
