//! Sealing.

use parlor_model::{SrtpProfile, Ssrc};

use crate::SrtpError;
use crate::index::{MAX_RTCP_INDEX, MAX_RTP_INDEX, nearest_index};
use crate::key::{CmKey, GCM_TAG_BYTES, SessionKey, SessionKeys};
use crate::packet::{RTCP_CLEAR_BYTES, RtpHeader, rtcp_sender};
use crate::source::SourceTable;

/// Marks an SRTCP packet as encrypted (RFC 3711 section 3.4).
pub(crate) const ENCRYPTED_FLAG: u32 = 1 << 31;

/// Seals RTP and RTCP to one peer. In memory the key of RTP comes first, beside what else a packet
/// needs.
#[derive(Debug)]
#[repr(C)]
pub struct SrtpSender {
    keys: SessionKeys,
    /// Highest index of each SSRC that [`SrtpSender::seal_rtp`] has seen.
    highest: SourceTable<u64>,
    /// One counter for all SSRCs: the nonce holds the SSRC too.
    rtcp_index: u64,
}

impl SrtpSender {
    /// A sender under a master key and salt.
    ///
    /// # Errors
    /// [`SrtpError::KeyLength`] when the profile asks for other lengths.
    pub fn new(profile: SrtpProfile, key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        let keys = SessionKeys::derive(profile, key, salt)?;
        Ok(Self { keys, highest: SourceTable::new(), rtcp_index: 0 })
    }

    /// Seals the RTP packet in `slot[..len]` in place and returns its sealed length, at most
    /// [`MAX_RTP_OVERHEAD_BYTES`](crate::MAX_RTP_OVERHEAD_BYTES) more. The roll-over counter of
    /// its SSRC is kept here; do not mix with [`SrtpSender::seal_rtp_indexed`] on one SSRC.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`], [`SrtpError::NoRoom`], [`SrtpError::TooManySources`],
    /// [`SrtpError::IndexExhausted`].
    pub fn seal_rtp(&mut self, slot: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let header = RtpHeader::parse(slot.get(..len).ok_or(SrtpError::Malformed)?)?;
        let is_full = self.highest.is_full();
        let index = match self.highest.use_mut(header.ssrc) {
            Some(highest) => {
                let index =
                    nearest_index(*highest, header.sequence).ok_or(SrtpError::IndexExhausted)?;
                *highest = index.max(*highest);
                index
            }
            None if is_full => return Err(SrtpError::TooManySources),
            None => {
                let index = u64::from(header.sequence);
                self.highest.insert(header.ssrc, index);
                index
            }
        };
        self.seal_rtp_indexed(slot, header.len, len, Ssrc(header.ssrc), index)
    }

    /// Seals the RTP packet in `slot[..len]` in place for a caller that knows its header: the
    /// length up to the payload, the SSRC, and the extended sequence number `index` (roll-over
    /// counter above the 16 bits of the header; the first packet of an SSRC has counter 0).
    /// Returns the sealed length.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`], [`SrtpError::NoRoom`], [`SrtpError::IndexExhausted`].
    pub fn seal_rtp_indexed(
        &self,
        slot: &mut [u8],
        header_len: usize,
        len: usize,
        ssrc: Ssrc,
        index: u64,
    ) -> Result<usize, SrtpError> {
        self.seal_rtp_parts(slot, header_len, len, &[], ssrc, index)
    }

    /// As [`SrtpSender::seal_rtp_indexed`], where the payload goes on with `rest` after
    /// `slot[..len]`: the cipher takes it from where it lies, and nobody has to copy it. A seam
    /// within the payload costs the cipher more than a copy.
    ///
    /// # Errors
    /// As [`SrtpSender::seal_rtp_indexed`].
    #[inline(always)]
    pub fn seal_rtp_parts(
        &self,
        slot: &mut [u8],
        header_len: usize,
        len: usize,
        rest: &[u8],
        ssrc: Ssrc,
        index: u64,
    ) -> Result<usize, SrtpError> {
        if index > MAX_RTP_INDEX {
            return Err(SrtpError::IndexExhausted);
        }
        match &self.keys.rtp {
            SessionKey::Gcm(key) => {
                let (packet, room) = slot.split_at_mut_checked(len).ok_or(SrtpError::Malformed)?;
                let out = room.get_mut(..rest.len() + GCM_TAG_BYTES).ok_or(SrtpError::NoRoom)?;
                let (header, first) =
                    packet.split_at_mut_checked(header_len).ok_or(SrtpError::Malformed)?;
                key.seal_parts(ssrc.0, index, header, (first, rest), out)?;
                Ok(len + rest.len() + GCM_TAG_BYTES)
            }
            SessionKey::Cm(key) => seal_cm(key, slot, (header_len, len), rest, (ssrc, index)),
        }
    }

    /// Seals the compound RTCP packet in `slot[..len]` in place and returns its sealed length, at
    /// most [`MAX_RTCP_OVERHEAD_BYTES`](crate::MAX_RTCP_OVERHEAD_BYTES) more.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`], [`SrtpError::NoRoom`], [`SrtpError::IndexExhausted`].
    pub fn seal_rtcp(&mut self, slot: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let (packet, room) = slot.split_at_mut_checked(len).ok_or(SrtpError::Malformed)?;
        let ssrc = rtcp_sender(packet)?;
        let index = self.rtcp_index;
        if index > MAX_RTCP_INDEX {
            return Err(SrtpError::IndexExhausted);
        }
        let trailer = (index as u32 | ENCRYPTED_FLAG).to_be_bytes();
        let (clear, body) =
            packet.split_at_mut_checked(RTCP_CLEAR_BYTES).ok_or(SrtpError::Malformed)?;
        let added = match &self.keys.rtcp {
            SessionKey::Gcm(key) => {
                let room: &mut [u8; 20] = room.first_chunk_mut().ok_or(SrtpError::NoRoom)?;
                let associated = gcm_rtcp_associated(clear, trailer)?;
                let tag = key.seal(ssrc, index, &associated, body)?;
                room[..16].copy_from_slice(&tag);
                room[16..].copy_from_slice(&trailer);
                room.len()
            }
            SessionKey::Cm(key) => {
                let room: &mut [u8; 14] = room.first_chunk_mut().ok_or(SrtpError::NoRoom)?;
                key.apply(ssrc, index, body)?;
                room[..4].copy_from_slice(&trailer);
                room[4..].copy_from_slice(&key.tag(packet, &trailer));
                room.len()
            }
        };
        self.rtcp_index += 1;
        Ok(len + added)
    }
}

#[inline(never)]
fn seal_cm(
    key: &CmKey,
    slot: &mut [u8],
    (header_len, len): (usize, usize),
    rest: &[u8],
    (ssrc, index): (Ssrc, u64),
) -> Result<usize, SrtpError> {
    let end = len + rest.len();
    let place = slot.get_mut(len..end).ok_or(SrtpError::NoRoom)?;
    place.copy_from_slice(rest);
    let (packet, room) = slot.split_at_mut_checked(end).ok_or(SrtpError::Malformed)?;
    let room = room.first_chunk_mut().ok_or(SrtpError::NoRoom)?;
    let payload = packet.get_mut(header_len..).ok_or(SrtpError::Malformed)?;
    key.apply(ssrc.0, index, payload)?;
    *room = key.tag(packet, &((index >> 16) as u32).to_be_bytes());
    Ok(end + room.len())
}

/// What AES-GCM authenticates beside the body of SRTCP (RFC 7714 section 9.2).
pub(crate) fn gcm_rtcp_associated(clear: &[u8], trailer: [u8; 4]) -> Result<[u8; 12], SrtpError> {
    let clear: &[u8; RTCP_CLEAR_BYTES] = clear.try_into().map_err(|_| SrtpError::Malformed)?;
    let mut associated = [0; 12];
    associated[..8].copy_from_slice(clear);
    associated[8..].copy_from_slice(&trailer);
    Ok(associated)
}
