//! Frames: two bytes of length before each datagram (RFC 4571 section 2).

/// The longest frame that is taken: more than any datagram of a peer, and what LiveKit takes.
pub const MAX_FRAME_BYTES: usize = 8192;

/// Bytes of the length.
pub(super) const PREFIX_BYTES: usize = 2;

/// What comes is no stream of datagrams: nothing after this can be understood.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FrameTooLong {
    /// What the length said.
    pub len_bytes: usize,
}

/// The first frame of a stream and what follows it; no frame while it has not come whole.
///
/// ```
/// # use parlor_net::split_frame;
/// let (frame, rest) = split_frame(b"\0\x03one\0\x03tw").unwrap();
/// assert_eq!(frame, Some(&b"one"[..]));
/// assert_eq!(split_frame(rest), Ok((None, &b"\0\x03tw"[..])));
/// ```
///
/// # Errors
/// [`FrameTooLong`] for one of more than [`MAX_FRAME_BYTES`].
pub fn split_frame(stream: &[u8]) -> Result<(Option<&[u8]>, &[u8]), FrameTooLong> {
    let Some(len_bytes) = frame_len(stream)? else { return Ok((None, stream)) };
    match stream.get(PREFIX_BYTES..).and_then(|rest| rest.split_at_checked(len_bytes)) {
        Some((frame, rest)) => Ok((Some(frame), rest)),
        None => Ok((None, stream)),
    }
}

/// As [`split_frame`], for frames that are opened in place.
pub(super) fn split_frame_mut(
    stream: &mut [u8],
) -> Result<(Option<&mut [u8]>, &mut [u8]), FrameTooLong> {
    match frame_len(stream)? {
        Some(len_bytes) if stream.len() >= PREFIX_BYTES + len_bytes => {
            let (frame, rest) = stream.split_at_mut(PREFIX_BYTES + len_bytes);
            Ok((frame.get_mut(PREFIX_BYTES..), rest))
        }
        _ => Ok((None, stream)),
    }
}

fn frame_len(stream: &[u8]) -> Result<Option<usize>, FrameTooLong> {
    let Some(prefix) = stream.first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let len_bytes = usize::from(u16::from_be_bytes(*prefix));
    if len_bytes > MAX_FRAME_BYTES {
        return Err(FrameTooLong { len_bytes });
    }
    Ok(Some(len_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(frames: &[&[u8]]) -> Vec<u8> {
        frames.iter().flat_map(|f| [&(f.len() as u16).to_be_bytes()[..], f].concat()).collect()
    }

    #[test]
    fn frames_come_out_whole_or_not_at_all() {
        let longest = vec![7; MAX_FRAME_BYTES];
        let frames = [&b"one"[..], b"", b"three", &longest];
        let mut stream = framed(&frames);
        for len in 0..stream.len() {
            let (mut rest, mut seen) = (&stream[..len], 0);
            while let (Some(frame), after) = split_frame(rest).unwrap() {
                assert_eq!(frame, frames[seen]);
                (rest, seen) = (after, seen + 1);
            }
            assert!(seen < frames.len());
        }
        let mut rest = &mut stream[..];
        for expected in frames {
            let (frame, after) = split_frame_mut(rest).unwrap();
            assert_eq!(frame.unwrap(), expected);
            rest = after;
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn one_byte_too_many_ends_it() {
        let len_bytes = MAX_FRAME_BYTES + 1;
        let stream = (len_bytes as u16).to_be_bytes();
        assert_eq!(split_frame(&stream), Err(FrameTooLong { len_bytes }));
        assert_eq!(split_frame(&stream[..1]), Ok((None, &stream[..1])));
    }
}
