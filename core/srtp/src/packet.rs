//! The few header fields that SRTP needs (RFC 3550 sections 5.1 and 6.1).

use crate::SrtpError;

/// What SRTP must know of an RTP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct RtpHeader {
    /// Bytes up to the payload: fixed header, CSRCs, header extension.
    pub len: usize,
    pub sequence: u16,
    pub ssrc: u32,
}

impl RtpHeader {
    pub fn parse(packet: &[u8]) -> Result<Self, SrtpError> {
        let fixed: &[u8; 12] = packet.first_chunk().ok_or(SrtpError::Malformed)?;
        if fixed[0] >> 6 != 2 {
            return Err(SrtpError::Malformed);
        }
        let mut len = 12 + 4 * usize::from(fixed[0] & 0x0f);
        if fixed[0] & 0x10 != 0 {
            let extension: &[u8; 4] = packet
                .get(len..)
                .and_then(|rest| rest.first_chunk())
                .ok_or(SrtpError::Malformed)?;
            len += 4 + 4 * usize::from(u16::from_be_bytes([extension[2], extension[3]]));
        }
        if len > packet.len() {
            return Err(SrtpError::Malformed);
        }
        Ok(Self {
            len,
            sequence: u16::from_be_bytes([fixed[2], fixed[3]]),
            ssrc: u32::from_be_bytes([fixed[8], fixed[9], fixed[10], fixed[11]]),
        })
    }
}

/// The part of an RTCP packet that stays in the clear: the first header and the sender's SSRC.
pub(crate) const RTCP_CLEAR_BYTES: usize = 8;

/// The SSRC of the sender of a compound RTCP packet.
pub(crate) fn rtcp_sender(packet: &[u8]) -> Result<u32, SrtpError> {
    let clear: &[u8; RTCP_CLEAR_BYTES] = packet.first_chunk().ok_or(SrtpError::Malformed)?;
    if clear[0] >> 6 != 2 {
        return Err(SrtpError::Malformed);
    }
    Ok(u32::from_be_bytes([clear[4], clear[5], clear[6], clear[7]]))
}
