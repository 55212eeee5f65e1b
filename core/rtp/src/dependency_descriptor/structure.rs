//! The template dependency structure (AV1 RTP specification, appendix A.8).

use super::{
    BitReader, BitWriter, Flags, MANDATORY_LEN, MAX_CHAINS, MAX_DECODE_TARGETS, MAX_FRAME_DIFFS,
    MAX_SPATIAL_LAYERS, MAX_TEMPLATES, MAX_TEMPORAL_LAYERS,
};

const SAME_LAYER: u32 = 0;
const NEXT_TEMPORAL_LAYER: u32 = 1;
const NEXT_SPATIAL_LAYER: u32 = 2;
const NO_MORE_TEMPLATES: u32 = 3;

/// What a frame is to a decode target.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DecodeTargetIndication {
    /// The frame is no part of it.
    NotPresent,
    /// No later frame of the target depends on the frame.
    Discardable,
    /// A receiver may join the target here.
    Switch,
    /// The target can not do without the frame.
    Required,
}

/// What a frame is to each decode target, two bits for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DecodeTargets(u64);

impl DecodeTargets {
    /// What the frame is to this decode target; not present for one that there is not.
    pub fn get(self, target: usize) -> DecodeTargetIndication {
        if target >= MAX_DECODE_TARGETS {
            return DecodeTargetIndication::NotPresent;
        }
        match self.0 >> (2 * target) & 3 {
            0 => DecodeTargetIndication::NotPresent,
            1 => DecodeTargetIndication::Discardable,
            2 => DecodeTargetIndication::Switch,
            _ => DecodeTargetIndication::Required,
        }
    }

    /// Sets what the frame is to this decode target; does nothing for one past
    /// [`MAX_DECODE_TARGETS`].
    pub fn set(&mut self, target: usize, indication: DecodeTargetIndication) {
        if target < MAX_DECODE_TARGETS {
            self.0 = self.0 & !(3 << (2 * target)) | (indication as u64) << (2 * target);
        }
    }

    pub(super) fn read(reader: &mut BitReader<'_>, count: usize) -> Option<Self> {
        let mut packed = 0;
        for target in 0..count {
            packed |= u64::from(reader.bits(2)?) << (2 * target);
        }
        Some(Self(packed))
    }

    pub(super) fn write(self, writer: &mut BitWriter<'_>, count: usize) -> Option<()> {
        (0..count).try_for_each(|target| writer.bits(self.get(target) as u32, 2))
    }
}

/// How many frames back those are that a frame depends on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct FrameDiffs {
    count: u8,
    diffs: [u16; MAX_FRAME_DIFFS],
}

impl FrameDiffs {
    /// These distances; `None` when they are more than [`MAX_FRAME_DIFFS`].
    pub fn new(diffs: &[u16]) -> Option<Self> {
        let mut this = Self::default();
        diffs.iter().try_for_each(|diff| this.push(*diff))?;
        Some(this)
    }

    /// The distances.
    pub fn as_slice(&self) -> &[u16] {
        self.diffs.get(..usize::from(self.count)).unwrap_or(&[])
    }

    fn push(&mut self, diff: u16) -> Option<()> {
        *self.diffs.get_mut(usize::from(self.count))? = diff;
        self.count += 1;
        Some(())
    }

    fn read(reader: &mut BitReader<'_>) -> Option<Self> {
        let mut this = Self::default();
        while reader.flag()? {
            this.push(reader.bits(4)? as u16 + 1)?;
        }
        Some(this)
    }

    fn write(&self, writer: &mut BitWriter<'_>) -> Option<()> {
        for &diff in self.as_slice() {
            let minus_one = diff.checked_sub(1).filter(|bits| *bits < 16)?;
            writer.flag(true)?;
            writer.bits(u32::from(minus_one), 4)?;
        }
        writer.flag(false)
    }

    pub(super) fn read_custom(reader: &mut BitReader<'_>) -> Option<Self> {
        let mut this = Self::default();
        loop {
            match reader.bits(2)? {
                0 => return Some(this),
                nibbles => this.push(reader.bits(4 * nibbles as usize)? as u16 + 1)?,
            }
        }
    }

    pub(super) fn write_custom(&self, writer: &mut BitWriter<'_>) -> Option<()> {
        for &diff in self.as_slice() {
            let minus_one = diff.checked_sub(1)?;
            let nibbles = match minus_one {
                ..16 => 1,
                16..256 => 2,
                256..4096 => 3,
                _ => return None,
            };
            writer.bits(nibbles, 2)?;
            writer.bits(u32::from(minus_one), 4 * nibbles as usize)?;
        }
        writer.bits(0, 2)
    }
}

/// What frames that follow one template have in common.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Template {
    /// Spatial layer, 0 is the base.
    pub spatial_layer: u8,
    /// Temporal layer, 0 is the base.
    pub temporal_layer: u8,
    /// What a frame is to each decode target.
    pub decode_targets: DecodeTargets,
    /// How many frames back those are that a frame depends on, each 1 to 16.
    pub frame_diffs: FrameDiffs,
    /// How many frames back the last frame of each chain is, each at most 15.
    pub chain_diffs: [u8; MAX_CHAINS],
}

/// The templates of a stream, and the decode targets and chains that they speak of.
///
/// A fixed-size value of about 4 KiB.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Structure {
    template_id_offset: u8,
    template_count: u8,
    templates: [Template; MAX_TEMPLATES],
    decode_target_count: u8,
    chain_count: u8,
    protected_by: [u8; MAX_DECODE_TARGETS],
    resolutions: Option<[(u32, u32); MAX_SPATIAL_LAYERS]>,
}

impl Structure {
    /// A structure of these templates, which go up by one temporal layer, or by one spatial layer
    /// back to temporal layer 0, or stay. `protected_by` names the chain that protects each decode
    /// target. `None` when a bound of this module is broken.
    pub fn new(
        template_id_offset: u8,
        templates: &[Template],
        decode_target_count: usize,
        chain_count: usize,
        protected_by: &[u8],
    ) -> Option<Self> {
        let mut structure = Self::empty();
        structure.template_id_offset = template_id_offset & 0x3F;
        structure.template_count = u8::try_from(templates.len()).ok().filter(|count| *count > 0)?;
        structure.templates.get_mut(..templates.len())?.copy_from_slice(templates);
        if !(1..=MAX_DECODE_TARGETS).contains(&decode_target_count)
            || chain_count > decode_target_count
        {
            return None;
        }
        structure.decode_target_count = decode_target_count as u8;
        structure.chain_count = chain_count as u8;
        if chain_count > 0 {
            structure
                .protected_by
                .get_mut(..decode_target_count)?
                .copy_from_slice(protected_by.get(..decode_target_count)?);
        }
        Some(structure)
    }

    /// Reads the structure that a descriptor brings; `None` when it brings none.
    pub fn parse(descriptor: &[u8]) -> Option<Self> {
        let mut reader = BitReader::new(descriptor.get(MANDATORY_LEN..)?);
        if !Flags::parse(&mut reader)?.structure {
            return None;
        }
        Self::read(&mut reader)
    }

    /// The templates; a frame's template id counts from [`Self::template_id_offset`].
    pub fn templates(&self) -> &[Template] {
        self.templates.get(..usize::from(self.template_count)).unwrap_or(&[])
    }

    /// The id of the first template, 6 bits.
    pub fn template_id_offset(&self) -> u8 {
        self.template_id_offset
    }

    /// The template of this id.
    pub fn template(&self, id: u8) -> Option<&Template> {
        let index = id.wrapping_sub(self.template_id_offset) & 0x3F;
        self.templates().get(usize::from(index))
    }

    /// Number of decode targets.
    pub fn decode_target_count(&self) -> usize {
        usize::from(self.decode_target_count)
    }

    /// One bit for each decode target.
    pub fn all_decode_targets(&self) -> u32 {
        ((1u64 << self.decode_target_count) - 1) as u32
    }

    /// Highest spatial and temporal layer of a decode target.
    pub fn decode_target_layers(&self, target: usize) -> (u8, u8) {
        let present = |template: &&Template| {
            template.decode_targets.get(target) != DecodeTargetIndication::NotPresent
        };
        self.templates().iter().filter(present).fold((0, 0), |(spatial, temporal), template| {
            (spatial.max(template.spatial_layer), temporal.max(template.temporal_layer))
        })
    }

    /// Number of chains.
    pub fn chain_count(&self) -> usize {
        usize::from(self.chain_count)
    }

    /// The chain whose frames a decode target can not do without; `None` without chains.
    pub fn protected_by(&self, target: usize) -> Option<usize> {
        (self.chain_count > 0 && target < self.decode_target_count())
            .then(|| self.protected_by.get(target).map(|chain| usize::from(*chain)))?
    }

    /// Number of spatial layers.
    pub fn spatial_layers(&self) -> usize {
        self.templates().last().map_or(0, |template| usize::from(template.spatial_layer) + 1)
    }

    /// Width and height in pixels of each spatial layer, 1 to 65536; empty when not told.
    pub fn resolutions(&self) -> &[(u32, u32)] {
        self.resolutions
            .as_ref()
            .and_then(|sizes| sizes.get(..self.spatial_layers()))
            .unwrap_or(&[])
    }

    /// Tells width and height in pixels of each spatial layer, lowest first.
    pub fn set_resolutions(&mut self, sizes: [(u32, u32); MAX_SPATIAL_LAYERS]) {
        self.resolutions = Some(sizes);
    }

    fn empty() -> Self {
        Self {
            template_id_offset: 0,
            template_count: 0,
            templates: [Template::default(); MAX_TEMPLATES],
            decode_target_count: 0,
            chain_count: 0,
            protected_by: [0; MAX_DECODE_TARGETS],
            resolutions: None,
        }
    }

    pub(super) fn read(reader: &mut BitReader<'_>) -> Option<Self> {
        let mut this = Self::empty();
        this.template_id_offset = reader.bits(6)? as u8;
        this.decode_target_count = reader.bits(5)? as u8 + 1;
        this.read_layers(reader)?;
        let target_count = this.decode_target_count();
        for template in this.templates_mut() {
            template.decode_targets = DecodeTargets::read(reader, target_count)?;
        }
        for template in this.templates_mut() {
            template.frame_diffs = FrameDiffs::read(reader)?;
        }
        this.read_chains(reader)?;
        if reader.flag()? {
            let mut sizes = [(0, 0); MAX_SPATIAL_LAYERS];
            for size in sizes.iter_mut().take(this.spatial_layers()) {
                *size = (reader.bits(16)? + 1, reader.bits(16)? + 1);
            }
            this.resolutions = Some(sizes);
        }
        Some(this)
    }

    fn read_layers(&mut self, reader: &mut BitReader<'_>) -> Option<()> {
        let (mut spatial_layer, mut temporal_layer) = (0, 0);
        loop {
            *self.templates.get_mut(usize::from(self.template_count))? =
                Template { spatial_layer, temporal_layer, ..Template::default() };
            self.template_count += 1;
            match reader.bits(2)? {
                SAME_LAYER => {}
                NEXT_TEMPORAL_LAYER => temporal_layer += 1,
                NEXT_SPATIAL_LAYER => (spatial_layer, temporal_layer) = (spatial_layer + 1, 0),
                _ => return Some(()),
            }
            if usize::from(spatial_layer) >= MAX_SPATIAL_LAYERS
                || usize::from(temporal_layer) >= MAX_TEMPORAL_LAYERS
            {
                return None;
            }
        }
    }

    fn read_chains(&mut self, reader: &mut BitReader<'_>) -> Option<()> {
        self.chain_count = reader.below(u32::from(self.decode_target_count) + 1)? as u8;
        if self.chain_count == 0 {
            return Some(());
        }
        let chain_count = self.chain_count();
        let target_count = self.decode_target_count();
        for chain in self.protected_by.iter_mut().take(target_count) {
            *chain = reader.below(chain_count as u32)? as u8;
        }
        for template in self.templates_mut() {
            for diff in template.chain_diffs.iter_mut().take(chain_count) {
                *diff = reader.bits(4)? as u8;
            }
        }
        Some(())
    }

    fn templates_mut(&mut self) -> &mut [Template] {
        self.templates.get_mut(..usize::from(self.template_count)).unwrap_or(&mut [])
    }

    pub(super) fn write(&self, writer: &mut BitWriter<'_>) -> Option<()> {
        writer.bits(u32::from(self.template_id_offset), 6)?;
        writer.bits(u32::from(self.decode_target_count) - 1, 5)?;
        self.write_layers(writer)?;
        for template in self.templates() {
            template.decode_targets.write(writer, self.decode_target_count())?;
        }
        for template in self.templates() {
            template.frame_diffs.write(writer)?;
        }
        self.write_chains(writer)?;
        writer.flag(self.resolutions.is_some())?;
        for &(width, height) in self.resolutions() {
            for side in [width, height] {
                let minus_one = side.checked_sub(1).filter(|bits| *bits <= 0xFFFF)?;
                writer.bits(minus_one, 16)?;
            }
        }
        Some(())
    }

    fn write_layers(&self, writer: &mut BitWriter<'_>) -> Option<()> {
        let layers = |template: &Template| (template.spatial_layer, template.temporal_layer);
        if self.templates().first().map(layers) != Some((0, 0)) {
            return None;
        }
        for pair in self.templates().windows(2) {
            let [(spatial, temporal), next] = [layers(pair.first()?), layers(pair.last()?)];
            let step = match next {
                _ if next == (spatial, temporal) => SAME_LAYER,
                _ if next == (spatial, temporal + 1) => NEXT_TEMPORAL_LAYER,
                _ if next == (spatial + 1, 0) => NEXT_SPATIAL_LAYER,
                _ => return None,
            };
            writer.bits(step, 2)?;
        }
        writer.bits(NO_MORE_TEMPLATES, 2)
    }

    fn write_chains(&self, writer: &mut BitWriter<'_>) -> Option<()> {
        writer.below(u32::from(self.chain_count), u32::from(self.decode_target_count) + 1)?;
        if self.chain_count == 0 {
            return Some(());
        }
        for chain in self.protected_by.iter().take(self.decode_target_count()) {
            writer.below(u32::from(*chain), u32::from(self.chain_count))?;
        }
        for template in self.templates() {
            for &diff in template.chain_diffs.iter().take(self.chain_count()) {
                writer.bits(u32::from(Some(diff).filter(|diff| *diff < 16)?), 4)?;
            }
        }
        Some(())
    }
}
