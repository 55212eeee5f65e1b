//! The VP8 payload descriptor and the start of a key frame (RFC 7741 sections 4.2 and 4.3).

use crate::read::u16_at;

/// A picture id, in one byte or in two.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PictureId {
    /// 7 or 15 bits.
    pub value: u16,
    /// Whether the field has 15 bits (the M bit).
    pub wide: bool,
}

/// The temporal layer of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TemporalLayer {
    /// TID: 0 is the base layer.
    pub id: u8,
    /// Y: the frame depends on the base layer only, so that a receiver may switch up to it.
    pub sync: bool,
}

/// A VP8 payload descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Descriptor {
    /// N: no other frame depends on this one.
    pub non_reference: bool,
    /// S: the payload starts a partition.
    pub start_of_partition: bool,
    /// PID: partition index.
    pub partition_index: u8,
    /// I: picture id.
    pub picture_id: Option<PictureId>,
    /// L: running index of base layer frames.
    pub tl0_picture_index: Option<u8>,
    /// T: temporal layer.
    pub temporal: Option<TemporalLayer>,
    /// K: running index of key frames, 5 bits.
    pub key_index: Option<u8>,
    /// Bytes of the descriptor as parsed. Writing ignores it.
    pub len: usize,
}

impl Descriptor {
    /// Reads the descriptor at the start of an RTP payload; `None` when it does not fit.
    #[inline]
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let &first = payload.first()?;
        let mut descriptor = Self {
            non_reference: first & 0x20 != 0,
            start_of_partition: first & 0x10 != 0,
            partition_index: first & 0x07,
            len: 1,
            ..Self::default()
        };
        if first & 0x80 == 0 {
            return Some(descriptor);
        }
        let &flags = payload.get(1)?;
        let mut at = 2;
        if flags & 0x80 != 0 {
            let &byte = payload.get(at)?;
            let wide = byte & 0x80 != 0;
            let value = if wide { u16_at(payload, at)? & 0x7FFF } else { u16::from(byte) };
            descriptor.picture_id = Some(PictureId { value, wide });
            at += 1 + usize::from(wide);
        }
        if flags & 0x40 != 0 {
            descriptor.tl0_picture_index = Some(*payload.get(at)?);
            at += 1;
        }
        if flags & 0x30 != 0 {
            let &byte = payload.get(at)?;
            if flags & 0x20 != 0 {
                descriptor.temporal = Some(TemporalLayer { id: byte >> 6, sync: byte & 0x20 != 0 });
            }
            if flags & 0x10 != 0 {
                descriptor.key_index = Some(byte & 0x1F);
            }
            at += 1;
        }
        descriptor.len = at;
        Some(descriptor)
    }

    /// Writes the descriptor, its fields as wide as they stand here, and returns its length.
    ///
    /// Values are cut to their fields. `None` when `out` is too small.
    #[inline]
    pub fn write(&self, out: &mut [u8]) -> Option<usize> {
        let flags = u8::from(self.picture_id.is_some()) << 7
            | u8::from(self.tl0_picture_index.is_some()) << 6
            | u8::from(self.temporal.is_some()) << 5
            | u8::from(self.key_index.is_some()) << 4;
        *out.first_mut()? = u8::from(flags != 0) << 7
            | u8::from(self.non_reference) << 5
            | u8::from(self.start_of_partition) << 4
            | self.partition_index & 0x07;
        if flags == 0 {
            return Some(1);
        }
        *out.get_mut(1)? = flags;
        let mut at = 2;
        if let Some(id) = self.picture_id {
            if id.wide {
                *out.get_mut(at..)?.first_chunk_mut()? = (id.value | 0x8000).to_be_bytes();
            } else {
                *out.get_mut(at)? = id.value as u8 & 0x7F;
            }
            at += 1 + usize::from(id.wide);
        }
        if let Some(index) = self.tl0_picture_index {
            *out.get_mut(at)? = index;
            at += 1;
        }
        if self.temporal.is_some() || self.key_index.is_some() {
            let temporal =
                self.temporal.map_or(0, |layer| layer.id << 6 | u8::from(layer.sync) << 5);
            *out.get_mut(at)? = temporal | self.key_index.unwrap_or(0) & 0x1F;
            at += 1;
        }
        Some(at)
    }

    /// Whether the payload starts a frame: first partition, at its start.
    #[inline]
    pub fn starts_frame(&self) -> bool {
        self.start_of_partition && self.partition_index == 0
    }
}

/// Puts new values into the fields that the descriptor in `payload` has, in place and as wide as
/// they are. Values are cut to their fields. `false` when the descriptor does not fit.
#[inline]
pub fn rewrite(payload: &mut [u8], picture_id: u16, tl0_picture_index: u8, key_index: u8) -> bool {
    let Some(&first) = payload.first() else { return false };
    if first & 0x80 == 0 {
        return true;
    }
    let Some(&flags) = payload.get(1) else { return false };
    let is_wide = flags & 0x80 != 0 && payload.get(2).is_some_and(|byte| byte & 0x80 != 0);
    let tl0_at = 2 + usize::from(flags >> 7) + usize::from(is_wide);
    let key_at = tl0_at + usize::from(flags >> 6 & 1);
    let end = key_at + usize::from(flags & 0x30 != 0);
    let Some(descriptor) = payload.get_mut(..end) else { return false };
    if is_wide {
        descriptor[2..4].copy_from_slice(&(picture_id | 0x8000).to_be_bytes());
    } else if flags & 0x80 != 0 {
        descriptor[2] = picture_id as u8 & 0x7F;
    }
    if flags & 0x40 != 0 {
        descriptor[tl0_at] = tl0_picture_index;
    }
    if flags & 0x10 != 0 {
        descriptor[key_at] = descriptor[key_at] & 0xE0 | key_index & 0x1F;
    }
    true
}

/// Whether the payload starts a key frame.
#[inline]
pub fn is_keyframe(payload: &[u8]) -> bool {
    Descriptor::parse(payload).is_some_and(|descriptor| {
        descriptor.starts_frame() && payload.get(descriptor.len).is_some_and(|byte| byte & 1 == 0)
    })
}

/// Width and height in pixels, when the payload starts a key frame (RFC 6386 section 9.1).
pub fn keyframe_size(payload: &[u8]) -> Option<(u16, u16)> {
    if !is_keyframe(payload) {
        return None;
    }
    let frame = payload.get(Descriptor::parse(payload)?.len..)?;
    let &[_, _, _, 0x9D, 0x01, 0x2A, w0, w1, h0, h1] = frame.first_chunk()? else { return None };
    Some((u16::from_le_bytes([w0, w1]) & 0x3FFF, u16::from_le_bytes([h0, h1]) & 0x3FFF))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FULL: [u8; 6] = [0x90, 0xF0, 0x92, 0x34, 0x77, 0x6A];

    #[test]
    fn a_full_descriptor_reads_and_writes_back() {
        let descriptor = Descriptor::parse(&FULL).unwrap();
        let expected = Descriptor {
            non_reference: false,
            start_of_partition: true,
            partition_index: 0,
            picture_id: Some(PictureId { value: 0x1234, wide: true }),
            tl0_picture_index: Some(0x77),
            temporal: Some(TemporalLayer { id: 1, sync: true }),
            key_index: Some(10),
            len: 6,
        };
        assert_eq!(descriptor, expected);
        let mut out = [0; 6];
        assert_eq!(descriptor.write(&mut out), Some(6));
        assert_eq!(out, FULL);
        for short in 1..6 {
            assert_eq!(Descriptor::parse(&FULL[..short]), None);
            assert_eq!(descriptor.write(&mut out[..short]), None);
        }
    }

    #[test]
    fn rewriting_keeps_widths() {
        let mut payload = *b"\x90\xF0\x92\x34\x77\x6Arest";
        assert!(rewrite(&mut payload, 0x8001, 5, 33));
        assert_eq!(payload, *b"\x90\xF0\x80\x01\x05\x61rest");
        let mut narrow = *b"\x80\x80\x12rest";
        assert!(rewrite(&mut narrow, 0x1FF, 5, 6));
        assert_eq!(narrow, *b"\x80\x80\x7Frest");
        let mut bare = *b"\x10rest";
        assert!(rewrite(&mut bare, 1, 2, 3));
        assert_eq!(bare, *b"\x10rest");
        let mut extended_by_nothing = *b"\x90\x00rest";
        assert!(rewrite(&mut extended_by_nothing, 1, 2, 3));
        assert_eq!(extended_by_nothing, *b"\x90\x00rest");
        assert!(!rewrite(&mut [0x80], 1, 2, 3));
    }

    #[test]
    fn key_frames_are_told_and_measured() {
        let key = b"\x10\x10\x02\x00\x9D\x01\x2A\x80\x02\xE0\x41";
        assert!(is_keyframe(key));
        assert_eq!(keyframe_size(key), Some((640, 480)));
        assert!(!is_keyframe(b"\x10\x11\x02\x00"), "P bit");
        assert!(!is_keyframe(b"\x00\x10\x02\x00"), "no start");
        assert!(!is_keyframe(b"\x11\x10\x02\x00"), "second partition");
        assert!(!is_keyframe(b"\x10"));
        assert_eq!(keyframe_size(&key[..10]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn junk_never_panics_and_rewriting_moves_nothing(
            mut payload in prop::collection::vec(any::<u8>(), 0..16), picture_id: u16, tl0: u8, key: u8,
        ) {
            is_keyframe(&payload);
            keyframe_size(&payload);
            let before = Descriptor::parse(&payload);
            let old = payload.clone();
            prop_assert_eq!(rewrite(&mut payload, picture_id, tl0, key), before.is_some());
            if let (Some(before), Some(after)) = (before, Descriptor::parse(&payload)) {
                prop_assert_eq!(before.len, after.len);
                prop_assert_eq!(&old[before.len..], &payload[before.len..]);
                prop_assert_eq!(before.temporal, after.temporal);
                prop_assert_eq!(before.picture_id.is_some(), after.picture_id.is_some());
                let mut out = [0; 6];
                let len = after.write(&mut out).unwrap();
                let again = Descriptor::parse(&out[..len]).unwrap();
                prop_assert_eq!(Descriptor { len, ..after }, again);
            }
        }
    }
}
