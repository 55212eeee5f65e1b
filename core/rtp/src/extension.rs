//! What RTP header extensions hold, and the URIs under which SDP agrees on them (RFC 8285).
//!
//! MID, RID and repaired RID are plain text: read them with [`parlor_model::Mid::from_bytes`] and
//! [`parlor_model::Rid::from_bytes`], write them with `as_bytes`.

use parlor_model::{ExtensionIds, NtpTime};

use crate::read::{u16_at, u24_at, u64_at};

/// Media section id (RFC 8843 section 15).
pub const MID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
/// RTP stream id (RFC 8852 section 4.1).
pub const RID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
/// Id of the stream that a retransmission repairs (RFC 8852 section 4.2).
pub const REPAIRED_RID_URI: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
/// Transport-wide sequence number (draft-holmer-rmcat-transport-wide-cc-extensions-01).
pub const TRANSPORT_CC_URI: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
/// Absolute send time (WebRTC `abs-send-time`).
pub const ABS_SEND_TIME_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time";
/// Absolute capture time (WebRTC `abs-capture-time`).
pub const ABS_CAPTURE_TIME_URI: &str =
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time";
/// Client-to-mixer audio level (RFC 6464).
pub const AUDIO_LEVEL_URI: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
/// Dependency descriptor (AV1 RTP specification, appendix A).
pub const DEPENDENCY_DESCRIPTOR_URI: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
/// Playout delay (WebRTC `playout-delay`).
pub const PLAYOUT_DELAY_URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
/// Coordination of video orientation (3GPP TS 26.114 section 7.4.5).
pub const VIDEO_ORIENTATION_URI: &str = "urn:3gpp:video-orientation";

type Slot = fn(&mut ExtensionIds) -> &mut Option<u8>;

const SLOTS: [(&str, Slot); 10] = [
    (MID_URI, |ids| &mut ids.mid),
    (RID_URI, |ids| &mut ids.rid),
    (REPAIRED_RID_URI, |ids| &mut ids.repaired_rid),
    (TRANSPORT_CC_URI, |ids| &mut ids.transport_cc),
    (ABS_SEND_TIME_URI, |ids| &mut ids.abs_send_time),
    (ABS_CAPTURE_TIME_URI, |ids| &mut ids.abs_capture_time),
    (AUDIO_LEVEL_URI, |ids| &mut ids.audio_level),
    (DEPENDENCY_DESCRIPTOR_URI, |ids| &mut ids.dependency_descriptor),
    (PLAYOUT_DELAY_URI, |ids| &mut ids.playout_delay),
    (VIDEO_ORIENTATION_URI, |ids| &mut ids.video_orientation),
];

/// Where the id of this URI is kept; `None` for a URI that Parlor does not know.
pub fn id_slot<'a>(ids: &'a mut ExtensionIds, uri: &str) -> Option<&'a mut Option<u8>> {
    SLOTS.iter().find(|(known, _)| *known == uri).map(|(_, slot)| slot(ids))
}

/// The agreed ids with their URIs, in one fixed order.
pub fn uris(ids: &ExtensionIds) -> impl Iterator<Item = (u8, &'static str)> + use<> {
    let mut ids = *ids;
    SLOTS.into_iter().filter_map(move |(uri, slot)| slot(&mut ids).map(|id| (id, uri)))
}

/// When a packet left its sender: 24 bits of seconds in 6.18 fixed point, wrapping each 64 s.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbsSendTime(pub u32);

impl AbsSendTime {
    /// The send time of this NTP time.
    pub fn from_ntp(time: NtpTime) -> Self {
        Self((time.0 >> 14) as u32 & 0x00FF_FFFF)
    }

    /// Reads three bytes.
    pub fn parse(data: &[u8]) -> Option<Self> {
        u24_at(data, 0).map(Self)
    }

    /// The bytes on the wire.
    pub fn to_bytes(self) -> [u8; 3] {
        let [_, a, b, c] = self.0.to_be_bytes();
        [a, b, c]
    }
}

/// Reads a transport-wide sequence number. It counts packets of a whole transport, not of a stream;
/// its bytes on the wire are `to_be_bytes`.
pub fn parse_transport_sequence_number(data: &[u8]) -> Option<u16> {
    u16_at(data, 0)
}

/// How loud the audio of a packet is (RFC 6464 section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AudioLevel {
    /// Whether the sender believes that this is speech.
    pub voice: bool,
    /// Loudness below overload in dB: 0 loudest, 127 silent.
    pub minus_dbov: u8,
}

impl AudioLevel {
    /// Reads one byte, of the one-byte or the two-byte form alike.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let &byte = data.first()?;
        Some(Self { voice: byte & 0x80 != 0, minus_dbov: byte & 0x7F })
    }

    /// The byte on the wire.
    pub fn to_bytes(self) -> [u8; 1] {
        [u8::from(self.voice) << 7 | self.minus_dbov & 0x7F]
    }
}

/// How a receiver turns the picture before it shows it (3GPP TS 26.114 section 7.4.5).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VideoOrientation {
    /// Whether the camera faces away from the user.
    pub back_camera: bool,
    /// Whether the picture is mirrored left to right.
    pub flipped: bool,
    /// Clockwise turns by 90 degrees, 0 to 3.
    pub quarter_turns: u8,
}

impl VideoOrientation {
    /// Reads one byte.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let &byte = data.first()?;
        Some(Self { back_camera: byte & 8 != 0, flipped: byte & 4 != 0, quarter_turns: byte & 3 })
    }

    /// The byte on the wire.
    pub fn to_bytes(self) -> [u8; 1] {
        [u8::from(self.back_camera) << 3 | u8::from(self.flipped) << 2 | self.quarter_turns & 3]
    }
}

/// Least and greatest delay from capture to showing. The wire counts in 10 ms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct PlayoutDelay {
    pub min_ms: u32,
    pub max_ms: u32,
}

impl PlayoutDelay {
    /// The longest delay that the extension can express, in ms.
    pub const LIMIT_MS: u32 = 0xFFF * 10;

    /// Reads three bytes.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let bits = u24_at(data, 0)?;
        Some(Self { min_ms: (bits >> 12) * 10, max_ms: (bits & 0xFFF) * 10 })
    }

    /// The bytes on the wire, delays rounded down to 10 ms and capped at [`Self::LIMIT_MS`].
    pub fn to_bytes(self) -> [u8; 3] {
        let min = self.min_ms.min(Self::LIMIT_MS) / 10;
        let max = self.max_ms.min(Self::LIMIT_MS) / 10;
        let [_, a, b, c] = (min << 12 | max).to_be_bytes();
        [a, b, c]
    }
}

/// When the content of a packet was captured, by the clock of the capturing system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AbsCaptureTime {
    /// Capture time.
    pub capture: NtpTime,
    /// What the sender adds to the capturing system's clock to get its own, in 1/2^32 s.
    pub clock_offset: Option<i64>,
}

impl AbsCaptureTime {
    /// Reads eight bytes, or sixteen with the clock offset.
    pub fn parse(data: &[u8]) -> Option<Self> {
        let clock_offset = u64_at(data, 8).map(u64::cast_signed);
        Some(Self { capture: NtpTime(u64_at(data, 0)?), clock_offset })
    }

    /// The bytes on the wire: a buffer, and how many bytes of it count.
    pub fn to_bytes(self) -> ([u8; 16], usize) {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.capture.0.to_be_bytes());
        let Some(offset) = self.clock_offset else { return (bytes, 8) };
        bytes[8..].copy_from_slice(&offset.to_be_bytes());
        (bytes, 16)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hand_made_bytes_read_and_write_back() {
        assert_eq!(AudioLevel::parse(&[0x8A]), Some(AudioLevel { voice: true, minus_dbov: 10 }));
        assert_eq!(AudioLevel { voice: true, minus_dbov: 10 }.to_bytes(), [0x8A]);
        let delay = PlayoutDelay { min_ms: 100, max_ms: 2_000 };
        assert_eq!(delay.to_bytes(), [0x00, 0xA0, 0xC8]);
        assert_eq!(PlayoutDelay::parse(&delay.to_bytes()), Some(delay));
        let over = PlayoutDelay { min_ms: 0, max_ms: u32::MAX };
        assert_eq!(PlayoutDelay::parse(&over.to_bytes()).unwrap().max_ms, 40_950);
        // 1.5 s in 6.18 fixed point.
        assert_eq!(AbsSendTime::from_ntp(NtpTime(3 << 31)).to_bytes(), [0x06, 0, 0]);
        assert_eq!(AbsSendTime::parse(&[0x06, 0, 0]), Some(AbsSendTime(3 << 17)));
        let turned = VideoOrientation { back_camera: true, flipped: false, quarter_turns: 3 };
        assert_eq!(turned.to_bytes(), [0b1011]);
        assert_eq!(VideoOrientation::parse(&[0b1011]), Some(turned));
        assert_eq!(parse_transport_sequence_number(&[1, 2]), Some(0x102));
        for clock_offset in [None, Some(-5)] {
            let time = AbsCaptureTime { capture: NtpTime(77), clock_offset };
            let (bytes, len) = time.to_bytes();
            assert_eq!(AbsCaptureTime::parse(&bytes[..len]), Some(time));
        }
    }

    #[test]
    fn every_uri_has_its_own_slot() {
        let mut ids = ExtensionIds::default();
        for (id, (uri, _)) in (1..).zip(SLOTS) {
            *id_slot(&mut ids, uri).unwrap() = Some(id);
        }
        assert_eq!(uris(&ids).map(|(id, _)| id).collect::<Vec<_>>(), (1..=10).collect::<Vec<_>>());
        assert_eq!(ids.transport_cc, Some(4));
        assert!(id_slot(&mut ids, "urn:unknown").is_none());
        assert_eq!(uris(&ExtensionIds::default()).count(), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn junk_never_panics(data in prop::collection::vec(any::<u8>(), 0..20)) {
            AbsSendTime::parse(&data);
            parse_transport_sequence_number(&data);
            AudioLevel::parse(&data);
            VideoOrientation::parse(&data);
            PlayoutDelay::parse(&data);
            AbsCaptureTime::parse(&data);
        }
    }
}
