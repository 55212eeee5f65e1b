//! What the forwarder asks of a payload whatever its codec.

use parlor_model::Codec;

use crate::{av1, h264, h265, vp8, vp9};

/// Whether the payload starts a key frame. Always `true` for audio, where any packet will do.
#[inline]
pub fn is_keyframe(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Vp8 => vp8::is_keyframe(payload),
        Codec::Vp9 => vp9::is_keyframe(payload),
        Codec::Av1 => av1::is_keyframe(payload),
        Codec::H264 => h264::is_keyframe(payload),
        Codec::H265 => h265::is_keyframe(payload),
        Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma => true,
    }
}

/// Whether the payload starts a frame, where the payload tells.
///
/// `None` for H264, H265 and AV1, whose payloads do not tell: there a new timestamp does.
#[inline]
pub fn starts_frame(codec: Codec, payload: &[u8]) -> Option<bool> {
    match codec {
        Codec::Vp8 => vp8::Descriptor::parse(payload).map(|descriptor| descriptor.starts_frame()),
        Codec::Vp9 => vp9::Descriptor::parse(payload)
            .map(|descriptor| descriptor.start_of_frame && descriptor.spatial_layer() == 0),
        Codec::Av1 | Codec::H264 | Codec::H265 => None,
        Codec::Opus | Codec::Red | Codec::Pcmu | Codec::Pcma => Some(true),
    }
}

/// The temporal layer that the payload itself names; `None` when it names none.
#[inline]
pub fn temporal_layer(codec: Codec, payload: &[u8]) -> Option<u8> {
    match codec {
        Codec::Vp8 => vp8::Descriptor::parse(payload)?.temporal.map(|layer| layer.id),
        Codec::Vp9 => vp9::Descriptor::parse(payload)?.layers.map(|layers| layers.temporal),
        Codec::H265 => h265::temporal_layer(payload),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_codec_is_asked_its_own_way() {
        let keyframes: [(Codec, &[u8]); 5] = [
            (Codec::Vp8, &[0x10, 0x10]),
            (Codec::Vp9, &[0x08, 0]),
            (Codec::Av1, &[0x18, 0x08, 1]),
            (Codec::H264, &[0x67]),
            (Codec::H265, &[0x42, 1]),
        ];
        for (codec, payload) in keyframes {
            assert!(is_keyframe(codec, payload), "{codec:?}");
            assert!(!is_keyframe(codec, &[]), "{codec:?}");
        }
        assert!(is_keyframe(Codec::Opus, &[]));
        assert_eq!(starts_frame(Codec::Vp8, &[0x11, 0]), Some(false));
        assert_eq!(starts_frame(Codec::Vp8, &[0x10, 0]), Some(true));
        assert_eq!(starts_frame(Codec::Vp9, &[0x28, 0x02, 0]), Some(false));
        assert_eq!(starts_frame(Codec::H264, &[0x67]), None);
        assert_eq!(temporal_layer(Codec::Vp8, &[0x80, 0x20, 0x80]), Some(2));
        assert_eq!(temporal_layer(Codec::Vp9, &[0x28, 0x60, 0]), Some(3));
        assert_eq!(temporal_layer(Codec::H265, &[0x02, 2]), Some(1));
        assert_eq!(temporal_layer(Codec::Opus, &[1]), None);
    }
}
