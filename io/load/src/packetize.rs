//! RTP payloads of a codec's shape: real descriptors and headers, and nothing behind them.

use parlor_model::Codec;

/// What one packet holds of its frame.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    pub is_key: bool,
    /// Whether it is the first of its (layer) frame, and whether the last.
    pub is_first: bool,
    pub is_last: bool,
    pub picture_id: u16,
    pub tl0_picture_index: u8,
    pub temporal: u8,
    pub spatial: u8,
    pub spatial_layers: u8,
    /// Of the largest layer.
    pub width: u16,
    pub height: u16,
}

/// Puts the beginning of a payload into `payload`, which is empty.
pub(crate) fn write_header(codec: Codec, part: &Part, payload: &mut Vec<u8>) {
    match codec {
        Codec::Vp8 => vp8(part, payload),
        Codec::Vp9 => vp9(part, payload),
        Codec::H264 => h264(part, payload),
        Codec::Av1 => av1(part, payload),
        // TOC of one 20 ms CELT frame, full band, stereo (RFC 6716 section 3.1).
        _ => payload.push(0xFC),
    }
}

/// RFC 7741 section 4.2, then a frame header (RFC 6386 section 9.1).
fn vp8(part: &Part, payload: &mut Vec<u8>) {
    let [high, low] = (part.picture_id | 0x8000).to_be_bytes();
    let start = if part.is_first { 0x10 } else { 0 };
    // Frames of the lowest layer are what all later ones can switch up from.
    let sync = if part.temporal > 0 { 0x20 } else { 0 };
    let layer = part.temporal << 6 | sync;
    payload.extend([0x80 | start, 0xE0, high, low, part.tl0_picture_index, layer]);
    if part.is_first && part.is_key {
        payload.extend([0x10, 0, 0, 0x9D, 0x01, 0x2A]);
        payload.extend(part.width.to_le_bytes());
        payload.extend(part.height.to_le_bytes());
    } else if part.is_first {
        payload.extend([0x11, 0, 0]);
    }
}

/// RFC 9628 section 4.2, without flexible mode; spatial layers depend on each other in key
/// pictures only.
fn vp9(part: &Part, payload: &mut Vec<u8>) {
    let top = part.spatial + 1 == part.spatial_layers;
    let structure = part.is_key && part.is_first && part.spatial == 0;
    let flags = 0xA0
        | u8::from(!part.is_key) << 6
        | u8::from(part.is_first) << 3
        | u8::from(part.is_last) << 2
        | u8::from(structure) << 1
        | u8::from(top || !part.is_key);
    let [high, low] = (part.picture_id | 0x8000).to_be_bytes();
    let depends = u8::from(part.is_key && part.spatial > 0);
    let switching = u8::from(part.temporal > 0);
    let layer = part.temporal << 5 | switching << 4 | part.spatial << 1 | depends;
    payload.extend([flags, high, low, layer, part.tl0_picture_index]);
    if structure {
        payload.push((part.spatial_layers - 1) << 5 | 0x10);
        for layer in (0..part.spatial_layers).rev() {
            payload.extend((part.width >> layer).to_be_bytes());
            payload.extend((part.height >> layer).to_be_bytes());
        }
    }
}

/// RFC 6184: parameter sets aggregated before the slice in a key frame; a slice that fills more
/// than one packet goes in fragments.
fn h264(part: &Part, payload: &mut Vec<u8>) {
    const SPS: [u8; 9] = [0x67, 0x42, 0xE0, 0x1F, 0xDA, 0x01, 0x40, 0x16, 0xE8];
    const PPS: [u8; 4] = [0x68, 0xCE, 0x3C, 0x80];
    if part.is_key && part.is_first {
        payload.push(0x78);
        for set in [&SPS[..], &PPS] {
            payload.extend((set.len() as u16).to_be_bytes());
            payload.extend(set);
        }
        // The slice is the last unit of the aggregate; its length is put in by `finish`.
        payload.extend([0, 0, 0x65]);
        return;
    }
    let slice = if part.is_key { 5 } else { 1 };
    if part.is_first && part.is_last {
        payload.extend([0x60 | slice, 0x9A]);
        return;
    }
    let edges = u8::from(part.is_first) << 7 | u8::from(part.is_last) << 6;
    payload.extend([0x7C, edges | slice, 0x9A]);
}

/// AV1 RTP specification section 4.4: one OBU a packet, a sequence header before a key frame.
fn av1(part: &Part, payload: &mut Vec<u8>) {
    const SEQUENCE_HEADER: [u8; 11] = [0x08, 0, 0, 0, 0x42, 0xA7, 0xBF, 0xE6, 0x2C, 0xA0, 0x40];
    let edges = u8::from(!part.is_first) << 7 | u8::from(!part.is_last) << 6;
    if part.is_key && part.is_first && part.spatial == 0 {
        payload.extend([edges | 0x28, SEQUENCE_HEADER.len() as u8]);
        payload.extend(SEQUENCE_HEADER);
    } else {
        payload.push(edges | 0x10);
    }
    if part.is_first {
        payload.extend([0x34, part.temporal << 5 | part.spatial << 3, 0x10]);
    }
}

/// Puts in what depends on the length, once `payload` has it.
pub(crate) fn finish(codec: Codec, part: &Part, payload: &mut [u8]) {
    const SLICE_LEN_AT: usize = 1 + 2 + 9 + 2 + 4;
    if codec == Codec::H264 && part.is_key && part.is_first {
        let len = payload.len().saturating_sub(SLICE_LEN_AT + 2) as u16;
        if let Some(place) = payload.get_mut(SLICE_LEN_AT..SLICE_LEN_AT + 2) {
            place.copy_from_slice(&len.to_be_bytes());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use parlor_rtp::{av1, h264, vp8, vp9};

    fn payload(codec: Codec, part: &Part) -> Vec<u8> {
        let mut payload = Vec::new();
        write_header(codec, part, &mut payload);
        payload.resize(500, 7);
        finish(codec, part, &mut payload);
        payload
    }

    pub(crate) const PART: Part = Part {
        is_key: true,
        is_first: true,
        is_last: false,
        picture_id: 0x7FFF,
        tl0_picture_index: 9,
        temporal: 0,
        spatial: 0,
        spatial_layers: 3,
        width: 1280,
        height: 720,
    };

    #[test]
    fn only_the_first_packet_of_a_key_frame_starts_one() {
        let starts = |codec, part: &Part| {
            let payload = payload(codec, part);
            match codec {
                Codec::Vp8 => vp8::is_keyframe(&payload),
                Codec::Vp9 => vp9::is_keyframe(&payload),
                Codec::H264 => h264::is_keyframe(&payload),
                _ => av1::is_keyframe(&payload),
            }
        };
        for codec in [Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
            assert!(starts(codec, &PART), "{codec:?}");
            assert!(starts(codec, &Part { is_last: true, ..PART }), "{codec:?} in one packet");
            assert!(!starts(codec, &Part { is_first: false, ..PART }), "{codec:?}");
            assert!(!starts(codec, &Part { is_key: false, ..PART }), "{codec:?}");
        }
    }

    #[test]
    fn descriptors_say_what_was_put_into_them() {
        let part = Part { is_key: false, is_last: true, temporal: 2, spatial: 1, ..PART };
        let got = vp8::Descriptor::parse(&payload(Codec::Vp8, &part)).unwrap();
        assert_eq!(got.picture_id.unwrap().value, 0x7FFF);
        assert_eq!((got.tl0_picture_index, got.temporal.unwrap().id), (Some(9), 2));
        let got = vp9::Descriptor::parse(&payload(Codec::Vp9, &part)).unwrap();
        let layers = got.layers.unwrap();
        assert_eq!((got.picture_id, layers.temporal, layers.spatial), (Some(0x7FFF), 2, 1));
        assert!(got.inter_picture_predicted && got.start_of_frame && got.end_of_frame);
        let got = vp9::Descriptor::parse(&payload(Codec::Vp9, &PART)).unwrap();
        let sizes = got.structure.unwrap().sizes.unwrap();
        assert_eq!(sizes[..3], [(320, 180), (640, 360), (1280, 720)]);
        assert_eq!(vp8::keyframe_size(&payload(Codec::Vp8, &PART)), Some((1280, 720)));
        let units: Vec<_> = h264::nal_types(&payload(Codec::H264, &PART)).collect();
        assert_eq!(units, [7, 8, 5]);
        let sequence = payload(Codec::Av1, &PART);
        assert_eq!(av1::elements(&sequence).map(|obu| obu[0]).collect::<Vec<_>>(), [0x08, 0x34]);
    }
}
