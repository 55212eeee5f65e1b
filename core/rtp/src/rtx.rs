//! Retransmission payloads (RFC 4588 section 4): the original sequence number, then the payload.

use parlor_model::SequenceNumber;

use crate::read::u16_at;

/// Bytes before the original payload.
pub const OSN_LEN: usize = 2;

/// Splits a retransmission payload into original sequence number and original payload.
///
/// `None` when it is too short, as is a probe of padding only.
#[inline]
pub fn parse_rtx(payload: &[u8]) -> Option<(SequenceNumber, &[u8])> {
    Some((SequenceNumber(u16_at(payload, 0)?), payload.get(OSN_LEN..)?))
}

/// Writes a retransmission payload and returns its length; `None` when `out` is too small.
#[inline]
pub fn write_rtx(out: &mut [u8], original: SequenceNumber, payload: &[u8]) -> Option<usize> {
    let len = OSN_LEN + payload.len();
    let (osn, rest) = out.get_mut(..len)?.split_first_chunk_mut()?;
    *osn = original.0.to_be_bytes();
    rest.copy_from_slice(payload);
    Some(len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn original_and_payload_survive_a_round_trip() {
        let mut out = [0; 5];
        assert_eq!(write_rtx(&mut out, SequenceNumber(0x0102), b"abc"), Some(5));
        assert_eq!(out, [1, 2, b'a', b'b', b'c']);
        assert_eq!(parse_rtx(&out), Some((SequenceNumber(0x0102), &b"abc"[..])));
        assert_eq!(write_rtx(&mut out[..4], SequenceNumber(0), b"abc"), None);
        assert_eq!(parse_rtx(&[1]), None);
        assert_eq!(parse_rtx(&[]), None);
    }
}
