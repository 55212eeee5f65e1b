//! Watches what one subscriber receives and holds it to the invariants of the packet path.
//!
//! A [`Checker`] is told which streams the subscriber may have ([`Checker::allow`],
//! [`Checker::revoke`]) and fed every RTP packet that it decrypts ([`Checker::handle_packet`]), in
//! order of arrival. Loss, reordering and duplicates on the link are no faults; what no link can do
//! is one, and ends up in [`Checker::violations`]:
//!
//! * one sequence number with two payloads, retransmissions included, or one SSRC and number sealed
//!   twice over different bytes;
//! * timestamps that go back, frames that change without their marker, that begin in the middle or
//!   go on after their end: a cut frame must show a hole;
//! * indices of a codec's own that jump where no packet is missing;
//! * by [`Checker::descriptor_faults`]: frames whose dependency descriptors refer to what was not
//!   sent, or can not be read;
//! * packets of a stream that is not allowed, or not any more.
//!
//! [`layered`] has a source of every video codec with layers, for those who need one.
//!
//! It never looks at the server: what it knows comes from the wire alone. It is meant for tests and
//! remembers the newest [`MAX_PACKETS`] packets of a stream.
//!
//! ```
//! use std::time::Instant;
//!
//! use parlor_checker::{Checker, Fault, OutgoingStream};
//! use parlor_model::{Codec, CodecBinding, PayloadType, Ssrc};
//!
//! let mut checker = Checker::default();
//! checker.allow(OutgoingStream {
//!     ssrc: Ssrc(7),
//!     rtx_ssrc: None,
//!     codecs: vec![CodecBinding {
//!         codec: Codec::Opus,
//!         payload_type: PayloadType(111),
//!         rtx: None,
//!         variant: 0,
//!     }],
//!     dependency_descriptor: None,
//! });
//! let now = Instant::now();
//! checker.handle_packet(now, b"\x80\x6f\x00\x01\0\0\0\0\0\0\0\x07frame");
//! assert!(checker.violations().is_empty());
//! checker.handle_packet(now, b"\x80\x6f\x00\x01\0\0\0\0\0\0\0\x07other");
//! assert_eq!(checker.violations()[0].fault, Fault::SealedTwice);
//! assert_eq!(checker.violations()[1].fault, Fault::TwoPayloads);
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod codec;
pub mod layered;
mod references;
mod stream;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, time::Instant};

use parlor_model::{CodecBinding, Ssrc};
use parlor_rtp::RtpPacket;

use stream::Stream;

/// Packets of one stream that are remembered.
pub const MAX_PACKETS: usize = 1 << 18;

/// A stream that the subscriber may have.
#[derive(Clone, Debug)]
pub struct OutgoingStream {
    /// Its SSRC.
    pub ssrc: Ssrc,
    /// The SSRC of its retransmissions.
    pub rtx_ssrc: Option<Ssrc>,
    /// What it may be coded in.
    pub codecs: Vec<CodecBinding>,
    /// The id of the dependency descriptor among its header extensions.
    pub dependency_descriptor: Option<u8>,
}

/// What is wrong with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// Not RTP.
    #[error("not an RTP packet")]
    Malformed,
    /// The stream was never allowed.
    #[error("a stream that is not allowed")]
    Forbidden,
    /// The stream is not allowed any more.
    #[error("a stream that is not allowed any more")]
    Revoked,
    /// No codec of the stream has this payload type.
    #[error("an unknown payload type")]
    PayloadType,
    /// A retransmission without the original number in front.
    #[error("a retransmission that can not be unpacked")]
    Rtx,
    /// The sequence number came before, with another payload, timestamp or marker.
    #[error("two payloads under one sequence number")]
    TwoPayloads,
    /// The SSRC and sequence number came before with other bytes: one nonce, two messages.
    #[error("two packets sealed under one number")]
    SealedTwice,
    /// The timestamp is before that of an earlier number, or equal where frames differ.
    #[error("a timestamp that goes back")]
    Timestamp,
    /// Another frame follows although the frame before has not ended and nothing is missing.
    #[error("a frame that is cut and looks complete")]
    CutFrame,
    /// A frame goes on after the packet that ends it.
    #[error("a frame that goes on after its end")]
    AfterEnd,
    /// A frame begins with a packet that is not its first.
    #[error("a frame without its beginning")]
    NoBeginning,
    /// VP8 or VP9 picture ids that are not continuous.
    #[error("a picture id that is not continuous")]
    PictureId,
    /// VP8 or VP9 TL0PICIDX that is not continuous.
    #[error("a TL0PICIDX that is not continuous")]
    Tl0PictureIndex,
    /// VP9 spatial layers of a picture that do not go up.
    #[error("spatial layers out of order")]
    SpatialLayer,
    /// A dependency descriptor that the structure before it does not explain.
    #[error("an unreadable dependency descriptor")]
    Descriptor,
    /// Frame numbers of the dependency descriptor that do not go up.
    #[error("a frame number that goes back")]
    FrameNumber,
    /// A frame that depends on one that was not sent, although nothing is missing.
    #[error("a frame that can not be decoded")]
    Reference,
}

/// A fault, and where it showed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Violation {
    /// When the packet came.
    pub at: Instant,
    /// The SSRC it came under.
    pub ssrc: Ssrc,
    /// The extended sequence number in its stream; 0 where there is none.
    pub number: u64,
    /// What is wrong.
    pub fault: Fault,
}

/// See the page of this crate.
#[derive(Default)]
pub struct Checker {
    streams: BTreeMap<Ssrc, Stream>,
    /// From the SSRC of retransmissions to that of the stream.
    rtx: BTreeMap<Ssrc, Ssrc>,
    violations: Vec<Violation>,
}

impl Checker {
    /// The subscriber may have this stream from now on.
    pub fn allow(&mut self, stream: OutgoingStream) {
        if let Some(rtx) = stream.rtx_ssrc {
            self.rtx.insert(rtx, stream.ssrc);
        }
        match self.streams.get_mut(&stream.ssrc) {
            Some(known) => known.allow(stream),
            None => drop(self.streams.insert(stream.ssrc, Stream::new(stream))),
        }
    }

    /// The subscriber may not have this stream any more.
    pub fn revoke(&mut self, ssrc: Ssrc) {
        if let Some(stream) = self.streams.get_mut(&ssrc) {
            stream.allowed = false;
        }
    }

    /// Takes a decrypted packet.
    pub fn handle_packet(&mut self, now: Instant, bytes: &[u8]) {
        let Ok(packet) = RtpPacket::parse(bytes) else {
            self.violations.push(Violation {
                at: now,
                ssrc: Ssrc(0),
                number: 0,
                fault: Fault::Malformed,
            });
            return;
        };
        let ssrc = packet.ssrc();
        let media = self.rtx.get(&ssrc).copied().unwrap_or(ssrc);
        let violations = &mut self.violations;
        let mut report = |number, fault| {
            violations.push(Violation { at: now, ssrc, number, fault });
        };
        match self.streams.get_mut(&media) {
            None => report(0, Fault::Forbidden),
            Some(stream) if !stream.allowed => report(0, Fault::Revoked),
            Some(stream) => stream.handle_packet(&packet, ssrc != media, &mut report),
        }
    }

    /// All faults so far.
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// What is wrong with the dependency descriptors of a stream, by sequence number, once all that
    /// was on its way has come.
    pub fn descriptor_faults(&self, ssrc: Ssrc) -> Vec<(u64, Fault)> {
        self.streams.get(&ssrc).map_or_else(Vec::new, Stream::descriptor_faults)
    }

    /// Frames of a stream that have come whole.
    pub fn complete_frames(&self, ssrc: Ssrc) -> usize {
        self.streams.get(&ssrc).map_or(0, Stream::complete_frames)
    }

    /// Different packets of a stream that have come, first sent or sent again.
    pub fn packets(&self, ssrc: Ssrc) -> usize {
        self.streams.get(&ssrc).map_or(0, |stream| stream.packets.len())
    }

    /// Sequence numbers that have not come between the first and the last that have.
    pub fn missing(&self, ssrc: Ssrc) -> u64 {
        self.streams.get(&ssrc).map_or(0, Stream::missing)
    }

    /// Whether the packet with the lowest number starts a keyframe; `None` before any came.
    pub fn starts_with_keyframe(&self, ssrc: Ssrc) -> Option<bool> {
        let stream = self.streams.get(&ssrc)?;
        stream.packets.values().next().map(|packet| packet.keyframe)
    }
}
