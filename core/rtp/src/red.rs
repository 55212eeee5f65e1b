//! Redundant audio (RFC 2198 section 3): older frames travel along with the newest.

use parlor_model::PayloadType;

use crate::{ParseError, read::u24_at};

/// The greatest timestamp offset of a redundant block, in clock ticks.
pub const MAX_TIMESTAMP_OFFSET: u16 = (1 << 14) - 1;
/// The longest redundant block, in bytes.
pub const MAX_REDUNDANT_LEN: usize = (1 << 10) - 1;

/// An older frame in a RED payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RedundantBlock<'a> {
    /// What the block is coded in.
    pub payload_type: PayloadType,
    /// How far the block's timestamp is behind the packet's, in clock ticks.
    pub timestamp_offset: u16,
    /// The frame.
    pub payload: &'a [u8],
}

/// A parsed RED payload, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Red<'a> {
    headers: &'a [u8],
    blocks: &'a [u8],
    primary_type: PayloadType,
    primary: &'a [u8],
}

impl<'a> Red<'a> {
    /// Reads a RED payload.
    ///
    /// # Errors
    /// When the block headers or the redundant blocks do not fit.
    pub fn parse(payload: &'a [u8]) -> Result<Self, ParseError> {
        let mut at = 0;
        let mut redundant_len = 0;
        loop {
            let &first = payload.get(at).ok_or(ParseError::Truncated)?;
            if first & 0x80 == 0 {
                break;
            }
            redundant_len += block_len(payload, at).ok_or(ParseError::Truncated)?;
            at += 4;
        }
        let primary_type = PayloadType(payload.get(at).map_or(0, |byte| byte & 0x7F));
        let (headers, blocks) = payload.split_at_checked(at).ok_or(ParseError::Truncated)?;
        let blocks = blocks.get(1..).ok_or(ParseError::Truncated)?;
        let (blocks, primary) =
            blocks.split_at_checked(redundant_len).ok_or(ParseError::Truncated)?;
        Ok(Self { headers, blocks, primary_type, primary })
    }

    /// What the newest frame is coded in.
    pub fn primary_type(&self) -> PayloadType {
        self.primary_type
    }

    /// The newest frame, which has the packet's own timestamp.
    pub fn primary(&self) -> &'a [u8] {
        self.primary
    }

    /// The older frames in the packet's order, which is oldest first.
    pub fn redundant(&self) -> impl Iterator<Item = RedundantBlock<'a>> + use<'a> {
        let headers = self.headers;
        let mut rest = self.blocks;
        (0..headers.len() / 4).map_while(move |index| {
            let at = 4 * index;
            let (payload, after) = rest.split_at_checked(block_len(headers, at)?)?;
            rest = after;
            Some(RedundantBlock {
                payload_type: PayloadType(headers.get(at)? & 0x7F),
                timestamp_offset: (u24_at(headers, at + 1)? >> 10) as u16,
                payload,
            })
        })
    }
}

fn block_len(headers: &[u8], at: usize) -> Option<usize> {
    Some((u24_at(headers, at + 1)? & 0x3FF) as usize)
}

/// Writes a RED payload and returns its length in bytes.
///
/// `None` when `out` is too small, or a redundant block is over [`MAX_REDUNDANT_LEN`] or
/// [`MAX_TIMESTAMP_OFFSET`].
pub fn write_red(
    out: &mut [u8],
    redundant: &[RedundantBlock<'_>],
    primary_type: PayloadType,
    primary: &[u8],
) -> Option<usize> {
    let mut at = 0;
    for block in redundant {
        if block.payload.len() > MAX_REDUNDANT_LEN || block.timestamp_offset > MAX_TIMESTAMP_OFFSET
        {
            return None;
        }
        let bits = u32::from(block.timestamp_offset) << 10 | block.payload.len() as u32;
        let [_, a, b, c] = bits.to_be_bytes();
        *out.get_mut(at..)?.first_chunk_mut()? = [0x80 | block.payload_type.0, a, b, c];
        at += 4;
    }
    *out.get_mut(at)? = primary_type.0 & 0x7F;
    at += 1;
    for payload in redundant.iter().map(|block| block.payload).chain([primary]) {
        out.get_mut(at..at + payload.len())?.copy_from_slice(payload);
        at += payload.len();
    }
    Some(at)
}

/// Gives all frames of a RED payload another payload type. What can not be read stays as it is.
pub fn relabel(payload: &mut [u8], payload_type: PayloadType) {
    if Red::parse(payload).is_err() {
        return;
    }
    let mut at = 0;
    while let Some(first) = payload.get_mut(at) {
        let is_last = *first & 0x80 == 0;
        *first = *first & 0x80 | payload_type.0 & 0x7F;
        if is_last {
            return;
        }
        at += 4;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn one_redundant_block_comes_before_the_primary() {
        // Opus 111, 960 ticks behind, 2 bytes; then the primary.
        let payload = [0xEF, 0x0F, 0x00, 0x02, 0x6F, 1, 2, 3, 4, 5];
        let red = Red::parse(&payload).unwrap();
        let older = RedundantBlock {
            payload_type: PayloadType(111),
            timestamp_offset: 960,
            payload: &[1, 2],
        };
        assert_eq!(red.redundant().collect::<Vec<_>>(), [older]);
        assert_eq!((red.primary_type(), red.primary()), (PayloadType(111), &[3, 4, 5][..]));
        let mut out = [0; 10];
        assert_eq!(write_red(&mut out, &[older], PayloadType(111), &[3, 4, 5]), Some(10));
        assert_eq!(out, payload);
        assert_eq!(write_red(&mut out[..9], &[older], PayloadType(111), &[3, 4, 5]), None);
    }

    #[test]
    fn frames_get_another_payload_type() {
        let mut payload = [0xEF, 0x0F, 0x00, 0x02, 0x6F, 1, 2, 3, 4, 5];
        relabel(&mut payload, PayloadType(96));
        assert_eq!(payload, [0xE0, 0x0F, 0x00, 0x02, 0x60, 1, 2, 3, 4, 5]);
        let mut cut = [0xEF, 0x0F, 0x00, 0x09, 0x6F];
        relabel(&mut cut, PayloadType(96));
        assert_eq!(cut, [0xEF, 0x0F, 0x00, 0x09, 0x6F]);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(Red::parse(&[]).unwrap_err(), ParseError::Truncated);
        assert_eq!(Red::parse(&[0xEF, 0, 0]).unwrap_err(), ParseError::Truncated);
        assert_eq!(Red::parse(&[0xEF, 0, 0, 0]).unwrap_err(), ParseError::Truncated);
        assert_eq!(Red::parse(&[0xEF, 0, 0, 9, 0x6F, 1]).unwrap_err(), ParseError::Truncated);
        let block = |timestamp_offset, payload| RedundantBlock {
            payload_type: PayloadType(111),
            timestamp_offset,
            payload,
        };
        let mut out = [0; 4000];
        assert_eq!(write_red(&mut out, &[block(1 << 14, &[])], PayloadType(111), &[]), None);
        assert_eq!(write_red(&mut out, &[block(0, &[0; 1024])], PayloadType(111), &[]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn blocks_survive_a_round_trip(
            blocks in prop::collection::vec((0u8..128, 0u16..1 << 14, prop::collection::vec(any::<u8>(), 0..9)), 0..4),
            primary in prop::collection::vec(any::<u8>(), 0..9),
        ) {
            let blocks: Vec<_> = blocks
                .iter()
                .map(|(pt, offset, payload)| RedundantBlock {
                    payload_type: PayloadType(*pt),
                    timestamp_offset: *offset,
                    payload,
                })
                .collect();
            let mut out = [0; 100];
            let len = write_red(&mut out, &blocks, PayloadType(111), &primary).unwrap();
            let red = Red::parse(&out[..len]).unwrap();
            prop_assert_eq!(red.redundant().collect::<Vec<_>>(), blocks);
            prop_assert_eq!(red.primary(), &primary[..]);
        }

        #[test]
        fn junk_never_panics(payload in prop::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(red) = Red::parse(&payload) {
                red.redundant().count();
            }
        }
    }
}
