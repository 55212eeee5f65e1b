//! The dependency descriptor: what a frame depends on and which layers it serves
//! (AV1 RTP specification, appendix A).
//!
//! The first packet of a key frame brings a [`Structure`], a table of frame templates. The
//! descriptors that follow name a template and, where need be, what differs from it; they can not
//! be read without the structure. Nothing here keeps it: the caller does.
//!
//! ```
//! use parlor_rtp::dependency_descriptor::{Descriptor, Structure};
//!
//! # fn on_extension(data: &[u8], held: &mut Option<Structure>) -> Option<Descriptor> {
//! if let Some(structure) = Structure::parse(data) {
//!     *held = Some(structure);
//! }
//! Descriptor::parse(data, held.as_ref())
//! # }
//! # assert!(on_extension(&[0x80, 0, 1], &mut None).is_none());
//! ```

mod bits;
mod structure;

use bits::{BitReader, BitWriter};
pub use structure::{DecodeTargetIndication, DecodeTargets, FrameDiffs, Structure, Template};

/// Most templates of a structure: their ids have 6 bits.
pub const MAX_TEMPLATES: usize = 64;
/// Most decode targets of a structure: their count has 5 bits.
pub const MAX_DECODE_TARGETS: usize = 32;
/// Most chains of a structure: no more than decode targets.
pub const MAX_CHAINS: usize = MAX_DECODE_TARGETS;
/// Most spatial layers, as in libwebrtc.
pub const MAX_SPATIAL_LAYERS: usize = 4;
/// Most temporal layers, as in libwebrtc.
pub const MAX_TEMPORAL_LAYERS: usize = 8;
/// Most frames that a frame may depend on: AV1 has eight reference slots.
pub const MAX_FRAME_DIFFS: usize = 8;

const MANDATORY_LEN: usize = 3;

/// The dependency descriptor of one packet, template and differences put together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Descriptor {
    /// The packet is the first of its frame.
    pub start_of_frame: bool,
    /// The packet is the last of its frame.
    pub end_of_frame: bool,
    /// The template that the frame follows, 6 bits.
    pub template_id: u8,
    /// The number of the frame, which wraps.
    pub frame_number: u16,
    /// Whether the descriptor brings a structure.
    pub structure_attached: bool,
    /// One bit for each decode target that is produced from here on, when told.
    pub active_decode_targets: Option<u32>,
    /// Spatial layer of the frame.
    pub spatial_layer: u8,
    /// Temporal layer of the frame.
    pub temporal_layer: u8,
    /// What the frame is to each decode target.
    pub decode_targets: DecodeTargets,
    /// How many frames back those are that the frame depends on, each 1 to 4096.
    pub frame_diffs: FrameDiffs,
    /// How many frames back the last frame of each chain is; 0 for the first of a chain.
    pub chain_diffs: [u8; MAX_CHAINS],
}

#[derive(Clone, Copy, Default)]
struct Flags {
    structure: bool,
    active_decode_targets: bool,
    custom_dtis: bool,
    custom_fdiffs: bool,
    custom_chains: bool,
}

impl Flags {
    fn parse(reader: &mut BitReader<'_>) -> Option<Self> {
        Some(Self {
            structure: reader.flag()?,
            active_decode_targets: reader.flag()?,
            custom_dtis: reader.flag()?,
            custom_fdiffs: reader.flag()?,
            custom_chains: reader.flag()?,
        })
    }
}

impl Descriptor {
    /// Reads a descriptor by the structure that it brings, else by `held`.
    ///
    /// `None` when there is no structure to read it by, or it does not fit the structure.
    pub fn parse(data: &[u8], held: Option<&Structure>) -> Option<Self> {
        let &[first, number_high, number_low] = data.first_chunk::<MANDATORY_LEN>()?;
        let mut reader = BitReader::new(data.get(MANDATORY_LEN..)?);
        let flags =
            if data.len() > MANDATORY_LEN { Flags::parse(&mut reader)? } else { Flags::default() };
        let attached;
        let structure = if flags.structure {
            attached = Structure::read(&mut reader)?;
            &attached
        } else {
            held?
        };
        let mut active_decode_targets = flags.structure.then(|| structure.all_decode_targets());
        if flags.active_decode_targets {
            active_decode_targets = Some(reader.bits(structure.decode_target_count())?);
        }
        let template_id = first & 0x3F;
        let template = structure.template(template_id)?;
        let mut descriptor = Self {
            start_of_frame: first & 0x80 != 0,
            end_of_frame: first & 0x40 != 0,
            template_id,
            frame_number: u16::from_be_bytes([number_high, number_low]),
            structure_attached: flags.structure,
            active_decode_targets,
            spatial_layer: template.spatial_layer,
            temporal_layer: template.temporal_layer,
            decode_targets: template.decode_targets,
            frame_diffs: template.frame_diffs,
            chain_diffs: template.chain_diffs,
        };
        if flags.custom_dtis {
            let count = structure.decode_target_count();
            descriptor.decode_targets = DecodeTargets::read(&mut reader, count)?;
        }
        if flags.custom_fdiffs {
            descriptor.frame_diffs = FrameDiffs::read_custom(&mut reader)?;
        }
        if flags.custom_chains {
            for diff in descriptor.chain_diffs.iter_mut().take(structure.chain_count()) {
                *diff = reader.bits(8)? as u8;
            }
        }
        Some(descriptor)
    }

    /// Writes the descriptor by `structure`, with the structure itself where
    /// `structure_attached` says so, and returns its length in bytes.
    ///
    /// `None` when it does not fit `out` or the structure.
    pub fn write(&self, out: &mut [u8], structure: &Structure) -> Option<usize> {
        let template = structure.template(self.template_id)?;
        if (template.spatial_layer, template.temporal_layer)
            != (self.spatial_layer, self.temporal_layer)
        {
            return None;
        }
        let (mandatory, rest) = out.split_first_chunk_mut::<MANDATORY_LEN>()?;
        let [high, low] = self.frame_number.to_be_bytes();
        let edges = u8::from(self.start_of_frame) << 7 | u8::from(self.end_of_frame) << 6;
        *mandatory = [edges | self.template_id, high, low];

        let implied = self.structure_attached.then(|| structure.all_decode_targets());
        let active = self.active_decode_targets.filter(|_| self.active_decode_targets != implied);
        let custom_dtis = self.decode_targets != template.decode_targets;
        let custom_fdiffs = self.frame_diffs != template.frame_diffs;
        let chains = self.chain_diffs.get(..structure.chain_count())?;
        let custom_chains = Some(chains) != template.chain_diffs.get(..chains.len());
        let flags =
            [self.structure_attached, active.is_some(), custom_dtis, custom_fdiffs, custom_chains];
        if flags == [false; 5] {
            return Some(MANDATORY_LEN);
        }
        let mut writer = BitWriter::new(rest);
        flags.into_iter().try_for_each(|flag| writer.flag(flag))?;
        if self.structure_attached {
            structure.write(&mut writer)?;
        }
        if let Some(active) = active {
            writer.bits(active, structure.decode_target_count())?;
        }
        if custom_dtis {
            self.decode_targets.write(&mut writer, structure.decode_target_count())?;
        }
        if custom_fdiffs {
            self.frame_diffs.write_custom(&mut writer)?;
        }
        if custom_chains {
            chains.iter().try_for_each(|diff| writer.bits(u32::from(*diff), 8))?;
        }
        Some(MANDATORY_LEN + writer.len())
    }
}

/// Writes a descriptor anew with another frame number and, if told, another mask of active decode
/// targets, `count` bits wide; the rest is as it came. Returns the length.
///
/// `None` when `data` is no descriptor or `out` is too small.
#[inline]
pub fn rewrite(
    out: &mut [u8],
    data: &[u8],
    frame_number: u16,
    active: Option<u32>,
    count: usize,
) -> Option<usize> {
    let (&[first, _, _], rest) = data.split_first_chunk::<MANDATORY_LEN>()?;
    let [high, low] = frame_number.to_be_bytes();
    let (mandatory, place) = out.split_first_chunk_mut::<MANDATORY_LEN>()?;
    *mandatory = [first, high, low];
    let Some(active) = active else {
        place.get_mut(..rest.len())?.copy_from_slice(rest);
        return Some(data.len());
    };
    let mut reader = BitReader::new(rest);
    let flags = if rest.is_empty() { Flags::default() } else { Flags::parse(&mut reader)? };
    if flags.structure {
        let structure = Structure::parse(data)?;
        let mut descriptor = Descriptor::parse(data, None)?;
        descriptor.frame_number = frame_number;
        descriptor.active_decode_targets = Some(active);
        return descriptor.write(out, &structure);
    }
    if flags.active_decode_targets {
        reader.bits(count)?;
    }
    let mut writer = BitWriter::new(place);
    for flag in [false, true, flags.custom_dtis, flags.custom_fdiffs, flags.custom_chains] {
        writer.flag(flag)?;
    }
    writer.bits(active, count)?;
    while let left @ 1.. = reader.left() {
        let width = left.min(8);
        writer.bits(reader.bits(width)?, width)?;
    }
    Some(MANDATORY_LEN + writer.len())
}

#[cfg(test)]
mod tests;
