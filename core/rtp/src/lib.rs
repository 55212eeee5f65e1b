//! RTP and RTCP as bytes: views that borrow a packet, writers that fill a caller's buffer.
//!
//! A view never copies and a writer never allocates on its own (the RTCP writers append to a
//! `Vec` that the caller keeps). Nothing here remembers anything from one packet to the next:
//! counters, unwrapping, NACK state and layer choice live in `core/sfu` and `core/congestion`;
//! encryption lives in `core/srtp`. Whatever bytes come in, nothing here panics.
//!
//! * [`packet`]: the RTP header, and telling RTP from its neighbours on one socket.
//! * [`extension`]: what RTP header extensions hold, and their URIs.
//! * [`dependency_descriptor`]: the one extension that needs a structure told before it.
//! * [`rtcp`]: reports and feedback.
//! * [`red`] and [`rtx`]: redundancy and retransmission.
//! * [`payload`]: what the forwarder asks of any codec; [`vp8`], [`vp9`], [`av1`], [`h264`]
//!   and [`h265`]: what each of them says in the clear.
//!
//! ```
//! use parlor_model::{PayloadType, RtpTimestamp, SequenceNumber, Ssrc};
//! use parlor_rtp::{HeaderFields, RtpPacket, write_header};
//!
//! let fields = HeaderFields {
//!     marker: true,
//!     payload_type: PayloadType(96),
//!     sequence_number: SequenceNumber(7),
//!     timestamp: RtpTimestamp(90_000),
//!     ssrc: Ssrc(0x1234),
//! };
//! let mut out = [0; 1500];
//! let header_len = write_header(&mut out, &fields, &[(4, b"0")]).ok_or("too small")?;
//! out[header_len..header_len + 3].copy_from_slice(b"abc");
//!
//! let packet = RtpPacket::parse(&out[..header_len + 3])?;
//! assert_eq!(packet.sequence_number(), SequenceNumber(7));
//! assert_eq!(packet.extension(4), Some(&b"0"[..]));
//! assert_eq!(packet.payload(), b"abc");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod av1;
pub mod dependency_descriptor;
pub mod extension;
pub mod h264;
pub mod h265;
pub mod packet;
pub mod payload;
mod read;
pub mod red;
pub mod rtcp;
pub mod rtx;
pub mod vp8;
pub mod vp9;

pub use packet::{
    FIXED_HEADER_LEN, HeaderFields, PacketClass, RtpPacket, classify, is_rtcp, write_header,
};
pub use payload::{is_keyframe, starts_frame};

/// Why bytes are not what they should be.
#[derive(thiserror::Error, Clone, Copy, PartialEq, Eq, Debug)]
pub enum ParseError {
    /// The bytes end before what they announce does.
    #[error("ends before what it announces does")]
    Truncated,
    /// The version field is not 2.
    #[error("is not version 2")]
    Version,
    /// The padding is empty or longer than what it pads.
    #[error("has impossible padding")]
    Padding,
}
