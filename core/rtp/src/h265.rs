//! What H265 payloads say in the clear (RFC 7798 section 4.4).

use crate::read::u16_at;

const VPS: u8 = 32;
const SPS: u8 = 33;
const PPS: u8 = 34;
const AP: u8 = 48;
const FU: u8 = 49;

/// Whether the payload starts a key frame: it holds a parameter set (VPS, SPS or PPS), alone,
/// aggregated or as the first fragment. Assumes streams without DONL fields, as WebRTC sends.
pub fn is_keyframe(payload: &[u8]) -> bool {
    nal_types(payload).any(|nal_type| matches!(nal_type, VPS | SPS | PPS))
}

/// Temporal layer of the payload, 0 is the base; `None` when the payload has no valid header.
pub fn temporal_layer(payload: &[u8]) -> Option<u8> {
    (payload.get(1)? & 0x07).checked_sub(1)
}

/// The types of the NAL units that start in the payload, in order.
pub fn nal_types(payload: &[u8]) -> impl Iterator<Item = u8> + use<'_> {
    let (single, mut rest): (_, &[u8]) = match nal_type(payload) {
        Some(AP) => (None, payload.get(2..).unwrap_or(&[])),
        Some(FU) => {
            let start = payload.get(2).filter(|byte| **byte & 0x80 != 0);
            (start.map(|byte| byte & 0x3F), &[])
        }
        single => (single, &[]),
    };
    let aggregated = std::iter::from_fn(move || {
        let size = usize::from(u16_at(rest, 0)?);
        let (unit, after) = rest.get(2..)?.split_at_checked(size)?;
        rest = after;
        nal_type(unit)
    });
    single.into_iter().chain(aggregated)
}

fn nal_type(unit: &[u8]) -> Option<u8> {
    unit.first().map(|byte| byte >> 1 & 0x3F)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn parameter_sets_start_a_key_frame() {
        assert!(is_keyframe(&[0x40, 1, 0]), "VPS");
        assert!(is_keyframe(&[0x42, 1, 0]), "SPS");
        assert!(is_keyframe(&[0x44, 1, 0]), "PPS");
        assert!(is_keyframe(&[0x60, 1, 0, 2, 0x46, 1, 0, 2, 0x42, 1]), "AP after a delimiter");
        assert!(is_keyframe(&[0x62, 1, 0x80 | 33, 0]), "first fragment");
        assert!(!is_keyframe(&[0x62, 1, 33, 0]), "later fragment");
        assert!(!is_keyframe(&[0x26, 1, 0]), "IDR alone");
        assert!(!is_keyframe(&[0x02, 1, 0]), "slice");
        assert!(!is_keyframe(&[0x60, 1, 0, 9, 0x42]), "AP unit past the end");
        assert!(!is_keyframe(&[]));
    }

    #[test]
    fn the_temporal_layer_is_in_the_header() {
        assert_eq!(temporal_layer(&[0x02, 3]), Some(2));
        assert_eq!(temporal_layer(&[0x02, 0]), None);
        assert_eq!(temporal_layer(&[0x02]), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn junk_never_panics(mut payload in prop::collection::vec(any::<u8>(), 0..60), kind in 48u8..50) {
            is_keyframe(&payload);
            temporal_layer(&payload);
            if let Some(first) = payload.first_mut() {
                *first = kind << 1;
            }
            is_keyframe(&payload);
        }
    }
}
