//! The AV1 aggregation header and OBU elements (AV1 RTP specification, section 4).

const SEQUENCE_HEADER: u8 = 1;
const TEMPORAL_DELIMITER: u8 = 2;

/// The first byte of an AV1 payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AggregationHeader {
    /// Z: the first element continues one of the packet before.
    pub continues: bool,
    /// Y: the last element goes on in the next packet.
    pub goes_on: bool,
    /// W: number of elements, of which the last has no length; 0 when each has one.
    pub element_count: u8,
    /// N: the packet is the first of a coded video sequence.
    pub new_sequence: bool,
}

impl AggregationHeader {
    /// Reads the first byte of an RTP payload.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let &byte = payload.first()?;
        Some(Self {
            continues: byte & 0x80 != 0,
            goes_on: byte & 0x40 != 0,
            element_count: byte >> 4 & 0x03,
            new_sequence: byte & 0x08 != 0,
        })
    }
}

/// Whether the payload starts a key frame: the first of a coded video sequence, whose first OBU
/// (temporal delimiters aside) is a sequence header.
pub fn is_keyframe(payload: &[u8]) -> bool {
    AggregationHeader::parse(payload).is_some_and(|header| {
        header.new_sequence
            && !header.continues
            && elements(payload)
                .filter_map(obu_type)
                .find(|&obu_type| obu_type != TEMPORAL_DELIMITER)
                == Some(SEQUENCE_HEADER)
    })
}

/// The OBU elements of a payload, without their length fields. Ends at the first impossible one.
pub fn elements(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    let count = AggregationHeader::parse(payload).map_or(0, |header| header.element_count);
    let mut rest = payload.get(1..).unwrap_or(&[]);
    let mut index = 0;
    std::iter::from_fn(move || {
        index += 1;
        if rest.is_empty() {
            return None;
        }
        if index == usize::from(count) {
            return Some(std::mem::take(&mut rest));
        }
        let (size, body) = read_leb128(rest)?;
        let (element, after) = body.split_at_checked(size)?;
        rest = after;
        Some(element)
    })
}

fn obu_type(element: &[u8]) -> Option<u8> {
    element.first().map(|byte| byte >> 3 & 0x0F)
}

/// Reads a length of at most four bytes, more than any packet has (AV1 section 4.10.5).
fn read_leb128(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_new_sequence_with_its_header_starts_a_key_frame() {
        assert!(is_keyframe(&[0x28, 2, 0x08, 1, 0x30, 2]), "W 2");
        assert!(is_keyframe(&[0x18, 0x08, 1]), "W 1");
        assert!(is_keyframe(&[0x08, 1, 0x10, 2, 0x08, 1]), "W 0 after a delimiter");
        assert!(!is_keyframe(&[0x20, 2, 0x08, 1, 0x30, 2]), "no N");
        assert!(!is_keyframe(&[0xA8, 2, 0x08, 1, 0x30, 2]), "continues");
        assert!(!is_keyframe(&[0x18, 0x30, 1]), "frame first");
        assert!(!is_keyframe(&[0x08, 9, 0x08]), "element past the end");
        assert!(!is_keyframe(&[]));
    }

    #[test]
    fn elements_follow_their_lengths() {
        let payload = [&[0x00, 0x80, 0x01][..], &[7; 128], &[1, 8]].concat();
        let lens: Vec<_> = elements(&payload).map(<[u8]>::len).collect();
        assert_eq!(lens, [128, 1]);
        let payload = [0x20, 1, 7, 8, 9];
        assert_eq!(elements(&payload).collect::<Vec<_>>(), [&[7][..], &[8, 9]]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn junk_never_panics(payload in prop::collection::vec(any::<u8>(), 0..60)) {
            is_keyframe(&payload);
            elements(&payload).count();
        }
    }
}
