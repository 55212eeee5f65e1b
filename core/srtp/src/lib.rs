//! SRTP and SRTCP: seals what we send and opens what a peer sends, in place.
//!
//! One [`SrtpSender`] and one [`SrtpReceiver`] serve one peer. The master keys come from the
//! DTLS handshake (`parlor_model::SrtpKeys`); session keys are derived once (RFC 3711 section
//! 4.3) and kept with their key schedules. The profiles are AES-GCM with 128 and 256 bits
//! (RFC 7714) and AES-CM with HMAC-SHA1-80 (RFC 3711).
//!
//! The receiver keeps a roll-over counter and a replay window for each SSRC. Neither moves, and
//! no state for a new SSRC comes to be, before a packet has proven authentic; the number of
//! SSRCs is bounded by [`MAX_SOURCES`]. Nothing allocates once every SSRC has been seen.
//!
//! It never exchanges keys, never looks into payloads and never re-keys a session.
//!
//! **Sealing one index twice.** AES-GCM breaks when two different packets are sealed under one
//! SSRC and index, and a changed header extension makes a different packet. A retransmission on
//! the same SSRC must be byte for byte the packet that was sent first.
//!
//! ```
//! use parlor_srtp::{SrtpProfile, SrtpReceiver, SrtpSender};
//!
//! let (key, salt) = ([7; 16], [9; 12]);
//! let mut sender = SrtpSender::new(SrtpProfile::AeadAes128Gcm, &key, &salt)?;
//! let mut receiver = SrtpReceiver::new(SrtpProfile::AeadAes128Gcm, &key, &salt)?;
//!
//! let mut slot = [0; 64];
//! slot[..15].copy_from_slice(b"\x80\x6f\x00\x01\0\0\0\0\0\0\0\x2ahey");
//! let sealed = sender.seal_rtp(&mut slot, 15)?;
//! assert_eq!(sealed, 15 + 16);
//!
//! let mut replayed = slot;
//! let opened = receiver.open_rtp(&mut slot[..sealed])?;
//! assert_eq!(&slot[12..opened], b"hey");
//! assert!(receiver.open_rtp(&mut replayed[..sealed]).is_err());
//! # Ok::<(), parlor_srtp::SrtpError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod index;
mod key;
mod packet;
mod receiver;
mod sender;
mod source;
#[cfg(test)]
mod tests;

pub use index::REPLAY_WINDOW_PACKETS;
pub use parlor_model::SrtpProfile;
pub use receiver::SrtpReceiver;
pub use sender::SrtpSender;
pub use source::MAX_SOURCES;

/// Most bytes that sealing an RTP packet adds.
pub const MAX_RTP_OVERHEAD_BYTES: usize = 16;

/// Most bytes that sealing an RTCP packet adds.
pub const MAX_RTCP_OVERHEAD_BYTES: usize = 20;

/// Why a packet was not sealed or not opened.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SrtpError {
    /// The master key or salt has not the length that the profile asks for.
    #[error("master key or salt of a wrong length")]
    KeyLength,
    /// Not RTP or RTCP, or cut off.
    #[error("malformed or truncated packet")]
    Malformed,
    /// The slot has no room for the tag.
    #[error("no room for the authentication tag")]
    NoRoom,
    /// More SSRCs than [`MAX_SOURCES`] on the sending side.
    #[error("too many SSRCs")]
    TooManySources,
    /// The packet index has run out (2^48 RTP or 2^31 RTCP packets): the keys must not be used on.
    #[error("packet index exhausted")]
    IndexExhausted,
    /// The packet was seen before, or is too old to tell.
    #[error("replayed or too old")]
    Replayed,
    /// The packet is not from the holder of the key.
    #[error("authentication failed")]
    Unauthentic,
}
