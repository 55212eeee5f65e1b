//! What H264 payloads say in the clear (RFC 6184 section 5).

use crate::read::u16_at;

const SPS: u8 = 7;
const STAP_A: u8 = 24;
const STAP_B: u8 = 25;
const MTAP16: u8 = 26;
const MTAP24: u8 = 27;
const FU_A: u8 = 28;
const FU_B: u8 = 29;

/// Whether the payload starts a key frame: it holds a sequence parameter set, alone, aggregated or
/// as the first fragment. An IDR slice without one does not count, as in LiveKit: a decoder that
/// starts there would have no parameters.
pub fn is_keyframe(payload: &[u8]) -> bool {
    nal_types(payload).any(|nal_type| nal_type == SPS)
}

/// The types of the NAL units that start in the payload, in order.
pub fn nal_types(payload: &[u8]) -> impl Iterator<Item = u8> + use<'_> {
    // Bytes before the first size field, and between a size field and its NAL unit.
    let aggregation = match nal_type(payload) {
        Some(STAP_A) => Some((1, 0)),
        Some(STAP_B) => Some((3, 0)),
        Some(MTAP16) => Some((3, 3)),
        Some(MTAP24) => Some((3, 4)),
        _ => None,
    };
    let single = match nal_type(payload) {
        _ if aggregation.is_some() => None,
        Some(FU_A | FU_B) => {
            payload.get(1).filter(|byte| **byte & 0x80 != 0).map(|byte| byte & 0x1F)
        }
        single => single,
    };
    let (start, before_nal) = aggregation.unwrap_or((payload.len(), 0));
    let mut rest = payload.get(start..).unwrap_or(&[]);
    let aggregated = std::iter::from_fn(move || {
        let size = usize::from(u16_at(rest, 0)?);
        let (unit, after) = rest.get(2..)?.split_at_checked(size)?;
        rest = after;
        nal_type(unit.get(before_nal..)?)
    });
    single.into_iter().chain(aggregated)
}

fn nal_type(unit: &[u8]) -> Option<u8> {
    unit.first().map(|byte| byte & 0x1F)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_sps_anywhere_starts_a_key_frame() {
        assert!(is_keyframe(&[0x67, 0x42]), "single");
        assert!(is_keyframe(&[0x78, 0, 2, 0x67, 1, 0, 1, 0x68]), "STAP-A");
        assert!(is_keyframe(&[0x78, 0, 1, 0x09, 0, 2, 0x67, 1]), "STAP-A after a delimiter");
        assert!(is_keyframe(&[0x79, 0, 0, 0, 1, 0x67]), "STAP-B");
        assert!(is_keyframe(&[0x7A, 0, 0, 0, 4, 0, 0, 0, 0x67]), "MTAP16");
        assert!(is_keyframe(&[0x7C, 0x87, 0]), "first FU-A fragment");
    }

    #[test]
    fn other_units_do_not() {
        assert!(!is_keyframe(&[]));
        assert!(!is_keyframe(&[0x65, 0]), "IDR alone");
        assert!(!is_keyframe(&[0x41, 0]), "slice");
        assert!(!is_keyframe(&[0x7C, 0x07, 0]), "later FU-A fragment");
        assert!(!is_keyframe(&[0x7C, 0x85, 0]), "FU-A of an IDR");
        assert!(!is_keyframe(&[0x78, 0, 9, 0x67]), "STAP-A unit past the end");
        assert_eq!(nal_types(&[0x78, 0, 2, 0x67, 1, 0, 1, 0x68]).collect::<Vec<_>>(), [7, 8]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn junk_never_panics(mut payload in prop::collection::vec(any::<u8>(), 0..60), kind in 24u8..30) {
            is_keyframe(&payload);
            if let Some(first) = payload.first_mut() {
                *first = kind;
            }
            is_keyframe(&payload);
        }
    }
}
