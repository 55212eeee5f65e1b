//! Opening.

use parlor_model::SrtpProfile;

use crate::SrtpError;
use crate::index::{ReplayWindow, nearest_index};
use crate::key::{GCM_TAG_BYTES, HMAC_TAG_BYTES, SessionKey, SessionKeys};
use crate::packet::{RTCP_CLEAR_BYTES, RtpHeader, rtcp_sender};
use crate::sender::{ENCRYPTED_FLAG, gcm_rtcp_associated};
use crate::source::SourceTable;

/// Opens RTP and RTCP from one peer.
#[derive(Debug)]
pub struct SrtpReceiver {
    keys: SessionKeys,
    pub(crate) rtp: SourceTable<ReplayWindow>,
    pub(crate) rtcp: SourceTable<ReplayWindow>,
}

impl SrtpReceiver {
    /// A receiver under a master key and salt.
    ///
    /// # Errors
    /// [`SrtpError::KeyLength`] when the profile asks for other lengths.
    pub fn new(profile: SrtpProfile, key: &[u8], salt: &[u8]) -> Result<Self, SrtpError> {
        let keys = SessionKeys::derive(profile, key, salt)?;
        Ok(Self { keys, rtp: SourceTable::new(), rtcp: SourceTable::new() })
    }

    /// Opens an SRTP packet in place and returns the length of the RTP packet. After an error the
    /// content of `packet` is unspecified.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`], [`SrtpError::Replayed`], [`SrtpError::Unauthentic`].
    pub fn open_rtp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let header = RtpHeader::parse(packet)?;
        let index = match self.rtp.get(header.ssrc) {
            Some(window) => nearest_index(window.highest(), header.sequence)
                .filter(|index| window.admits(*index))
                .ok_or(SrtpError::Replayed)?,
            None => u64::from(header.sequence),
        };
        let len = self.open_rtp_at(packet, header, index)?;
        accept(&mut self.rtp, header.ssrc, index);
        Ok(len)
    }

    fn open_rtp_at(
        &self,
        packet: &mut [u8],
        header: RtpHeader,
        index: u64,
    ) -> Result<usize, SrtpError> {
        match &self.keys.rtp {
            SessionKey::Gcm(key) => {
                let len = without(packet, GCM_TAG_BYTES, header.len)?;
                let (clear, sealed) =
                    packet.split_at_mut_checked(header.len).ok_or(SrtpError::Malformed)?;
                key.open(header.ssrc, index, clear, sealed)?;
                Ok(len)
            }
            SessionKey::Cm(key) => {
                let len = without(packet, HMAC_TAG_BYTES, header.len)?;
                let (body, tag) = packet.split_at_mut_checked(len).ok_or(SrtpError::Malformed)?;
                key.verify(body, &((index >> 16) as u32).to_be_bytes(), tag)?;
                let payload = body.get_mut(header.len..).ok_or(SrtpError::Malformed)?;
                key.apply(header.ssrc, index, payload)?;
                Ok(len)
            }
        }
    }

    /// Opens an SRTCP packet in place and returns the length of the compound RTCP packet. After
    /// an error the content of `packet` is unspecified. A packet that is not encrypted is
    /// refused: DTLS-SRTP never agrees on that.
    ///
    /// # Errors
    /// [`SrtpError::Malformed`], [`SrtpError::Replayed`], [`SrtpError::Unauthentic`].
    pub fn open_rtcp(&mut self, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let ssrc = rtcp_sender(packet)?;
        let (trailer, overhead) = match &self.keys.rtcp {
            SessionKey::Gcm(_) => (packet.last_chunk::<4>(), GCM_TAG_BYTES + 4),
            SessionKey::Cm(_) => {
                let tagged = packet.len().checked_sub(HMAC_TAG_BYTES);
                let trailer = tagged.and_then(|end| packet.get(..end)?.last_chunk::<4>());
                (trailer, HMAC_TAG_BYTES + 4)
            }
        };
        let trailer = *trailer.ok_or(SrtpError::Malformed)?;
        let len = without(packet, overhead, RTCP_CLEAR_BYTES)?;
        let word = u32::from_be_bytes(trailer);
        if word & ENCRYPTED_FLAG == 0 {
            return Err(SrtpError::Malformed);
        }
        let index = u64::from(word & !ENCRYPTED_FLAG);
        if self.rtcp.get(ssrc).is_some_and(|window| !window.admits(index)) {
            return Err(SrtpError::Replayed);
        }
        match &self.keys.rtcp {
            SessionKey::Gcm(key) => {
                let sealed = packet.get_mut(..len + GCM_TAG_BYTES).ok_or(SrtpError::Malformed)?;
                let (clear, sealed) =
                    sealed.split_at_mut_checked(RTCP_CLEAR_BYTES).ok_or(SrtpError::Malformed)?;
                key.open(ssrc, index, &gcm_rtcp_associated(clear, trailer)?, sealed)?;
            }
            SessionKey::Cm(key) => {
                let (body, rest) = packet.split_at_mut_checked(len).ok_or(SrtpError::Malformed)?;
                key.verify(body, &trailer, rest.get(4..).ok_or(SrtpError::Malformed)?)?;
                let body = body.get_mut(RTCP_CLEAR_BYTES..).ok_or(SrtpError::Malformed)?;
                key.apply(ssrc, index, body)?;
            }
        }
        accept(&mut self.rtcp, ssrc, index);
        Ok(len)
    }
}

/// The length of `packet` without the bytes that sealing added, at least that of its header.
fn without(packet: &[u8], overhead: usize, header_len: usize) -> Result<usize, SrtpError> {
    packet.len().checked_sub(overhead).filter(|len| *len >= header_len).ok_or(SrtpError::Malformed)
}

fn accept(sources: &mut SourceTable<ReplayWindow>, ssrc: u32, index: u64) {
    match sources.use_mut(ssrc) {
        Some(window) => window.accept(index),
        None => sources.insert(ssrc, ReplayWindow::starting_at(index)),
    }
}
