//! What each codec says about its own frames, and how it must go on.

use parlor_model::{Codec, TrackKind};
use parlor_rtp::{vp8, vp9};

use crate::{Fault, stream::Packet};

/// Indices that a payload carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Indices {
    Vp8(vp8::Descriptor),
    Vp9(vp9::Descriptor),
    None,
}

impl Indices {
    pub fn of(codec: Codec, payload: &[u8]) -> Self {
        match codec {
            Codec::Vp8 => vp8::Descriptor::parse(payload).map_or(Indices::None, Indices::Vp8),
            Codec::Vp9 => vp9::Descriptor::parse(payload).map_or(Indices::None, Indices::Vp9),
            _ => Indices::None,
        }
    }
}

/// Checks two packets whose numbers follow one another.
pub fn check_neighbours(before: &Packet, after: &Packet, report: &mut impl FnMut(Fault)) {
    if before.codec.kind() == TrackKind::Audio || before.is_empty || after.is_empty {
        return;
    }
    if before.timestamp == after.timestamp {
        if before.marker {
            report(Fault::AfterEnd);
        }
    } else {
        if !before.marker {
            report(Fault::CutFrame);
        }
        if after.starts_frame == Some(false) {
            report(Fault::NoBeginning);
        }
    }
    if let (Indices::Vp8(before_vp8), Indices::Vp8(after_vp8)) = (before.indices, after.indices) {
        let steps = u16::from(before.timestamp != after.timestamp);
        check_vp8(&before_vp8, &after_vp8, steps..=steps, report);
    }
    if let (Indices::Vp9(one), Indices::Vp9(other)) = (before.indices, after.indices) {
        check_vp9(&one, &other, before.timestamp != after.timestamp, report);
    }
}

/// Checks two packets between which `missing` are missing.
pub fn check_across(before: &Packet, after: &Packet, missing: u64, report: &mut impl FnMut(Fault)) {
    if let (Indices::Vp8(before_vp8), Indices::Vp8(after_vp8)) = (before.indices, after.indices) {
        let least = u16::from(before.timestamp != after.timestamp);
        let most = u16::try_from(missing + 1).unwrap_or(u16::MAX).min(0x3fff);
        check_vp8(&before_vp8, &after_vp8, least..=most.max(least), report);
    }
    if let (Indices::Vp9(one), Indices::Vp9(other)) = (before.indices, after.indices) {
        check_vp9(&one, &other, before.timestamp != after.timestamp, report);
    }
}

fn check_vp8(
    before: &vp8::Descriptor,
    after: &vp8::Descriptor,
    steps: std::ops::RangeInclusive<u16>,
    report: &mut impl FnMut(Fault),
) {
    if let (Some(old), Some(new)) = (before.picture_id, after.picture_id) {
        let mask = if old.wide && new.wide { 0x7fff } else { 0x7f };
        let went = new.value.wrapping_sub(old.value) & mask;
        if *steps.end() <= mask / 2 && !steps.contains(&went) {
            report(Fault::PictureId);
        }
    }
    let (Some(old), Some(new)) = (before.tl0_picture_index, after.tl0_picture_index) else {
        return;
    };
    let is_base = after.temporal.is_none_or(|layer| layer.id == 0);
    let went = u16::from(new.wrapping_sub(old));
    let fits = if steps.start() == steps.end() {
        went == if is_base { *steps.start() } else { 0 }
    } else {
        went <= *steps.end() || *steps.end() > 0x7f
    };
    if !fits {
        report(Fault::Tl0PictureIndex);
    }
}

/// VP9 picture ids count what is left out, too: its descriptor refers to pictures by them. So they
/// go up, and TL0PICIDX goes up no faster.
fn check_vp9(
    before: &vp9::Descriptor,
    after: &vp9::Descriptor,
    is_other: bool,
    report: &mut impl FnMut(Fault),
) {
    let (Some(old), Some(new)) = (before.picture_id, after.picture_id) else { return };
    let mask = if before.wide_picture_id && after.wide_picture_id { 0x7fff } else { 0x7f };
    let went = new.wrapping_sub(old) & mask;
    if (went > 0) != is_other || went > mask / 2 {
        report(Fault::PictureId);
    }
    if !is_other && after.start_of_frame && after.spatial_layer() <= before.spatial_layer() {
        report(Fault::SpatialLayer);
    }
    if let (Some(old), Some(new)) = (before.tl0_picture_index, after.tl0_picture_index)
        && u16::from(new.wrapping_sub(old)) > went
    {
        report(Fault::Tl0PictureIndex);
    }
}
