//! Recorded encodings: VP8 in IVF, Opus in Ogg.

/// Why a file is no recording.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordingError {
    /// It is not what its name says.
    Format,
    /// It ends in the middle.
    Truncated,
}

impl std::fmt::Display for RecordingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RecordingError::Format => "not an IVF file with VP8 or an Ogg file with Opus",
            RecordingError::Truncated => "the file ends in the middle of a frame",
        })
    }
}

impl std::error::Error for RecordingError {}

/// The frames of an IVF file with VP8.
///
/// # Errors
/// [`RecordingError`] for another format, and for a file that is cut.
pub fn vp8_frames(file: &[u8]) -> Result<Vec<&[u8]>, RecordingError> {
    const HEADER_BYTES: usize = 32;
    let (header, mut rest) =
        file.split_at_checked(HEADER_BYTES).ok_or(RecordingError::Truncated)?;
    if !header.starts_with(b"DKIF") || header.get(8..12) != Some(b"VP80") {
        return Err(RecordingError::Format);
    }
    let mut frames = Vec::new();
    while !rest.is_empty() {
        // Length and a timestamp of eight bytes.
        let (length, after) = rest.split_first_chunk::<4>().ok_or(RecordingError::Truncated)?;
        let after = after.get(8..).ok_or(RecordingError::Truncated)?;
        let length = u32::from_le_bytes(*length) as usize;
        let (frame, after) = after.split_at_checked(length).ok_or(RecordingError::Truncated)?;
        frames.push(frame);
        rest = after;
    }
    Ok(frames)
}

/// The Opus packets of an Ogg file (RFC 7845) without its two headers.
///
/// # Errors
/// [`RecordingError`] for another format, and for a file that is cut.
pub fn opus_packets(mut file: &[u8]) -> Result<Vec<Vec<u8>>, RecordingError> {
    const SEGMENTS_AT: usize = 26;
    let mut packets = Vec::new();
    let mut packet = Vec::new();
    while !file.is_empty() {
        if !file.starts_with(b"OggS") {
            return Err(RecordingError::Format);
        }
        let count = *file.get(SEGMENTS_AT).ok_or(RecordingError::Truncated)?;
        let rest = file.get(SEGMENTS_AT + 1..).ok_or(RecordingError::Truncated)?;
        let (lacing, mut rest) =
            rest.split_at_checked(usize::from(count)).ok_or(RecordingError::Truncated)?;
        for &length in lacing {
            let (segment, after) =
                rest.split_at_checked(usize::from(length)).ok_or(RecordingError::Truncated)?;
            packet.extend(segment);
            rest = after;
            // A full segment goes on in the next one (RFC 3533 section 5).
            if length < 255 {
                packets.push(std::mem::take(&mut packet));
            }
        }
        file = rest;
    }
    match packets.get(..2) {
        Some([head, tags]) if head.starts_with(b"OpusHead") && tags.starts_with(b"OpusTags") => {
            Ok(packets.split_off(2))
        }
        _ => Err(RecordingError::Format),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_rtp::vp8;

    fn file(name: &str) -> Vec<u8> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../interop/media/");
        std::fs::read(format!("{folder}{name}")).unwrap()
    }

    #[test]
    fn the_recordings_of_the_tests_are_read() {
        let camera = file("camera.ivf");
        let frames = vp8_frames(&camera).unwrap();
        let key = |frame: &[u8]| vp8::is_keyframe(&[&[0x10], frame].concat());
        let keys: Vec<usize> = (0..frames.len()).filter(|&n| key(frames[n])).collect();
        assert_eq!((frames.len(), &keys[..2]), (60, &[0, 15][..]));
        assert!(frames.iter().any(|frame| frame.len() > 1200), "some fill more than a packet");

        let packets = opus_packets(&file("microphone.ogg")).unwrap();
        assert!(packets.len() > 200, "{}", packets.len());
    }

    #[test]
    fn every_cut_and_junk_are_errors() {
        let (camera, microphone) = (file("camera.ivf"), file("microphone.ogg"));
        for cut in [0, 31, 33, 50, camera.len() - 1] {
            assert_eq!(vp8_frames(&camera[..cut]), Err(RecordingError::Truncated), "{cut}");
        }
        for cut in [10, 27, 40, microphone.len() - 1] {
            assert!(opus_packets(&microphone[..cut]).is_err(), "{cut}");
        }
        assert_eq!(vp8_frames(&microphone), Err(RecordingError::Format));
        assert_eq!(opus_packets(&camera), Err(RecordingError::Format));
        assert_eq!(opus_packets(b""), Err(RecordingError::Format));
    }
}
