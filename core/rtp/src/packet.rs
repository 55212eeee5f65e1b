//! The RTP header (RFC 3550 section 5.1) with its extensions (RFC 8285), and demultiplexing.

use parlor_model::{PayloadType, RtpTimestamp, SequenceNumber, Ssrc};

use crate::{
    ParseError,
    read::{u16_at, u32_at},
};

/// Bytes of an RTP header without CSRCs and extensions.
pub const FIXED_HEADER_LEN: usize = 12;

const ONE_BYTE_PROFILE: u16 = 0xBEDE;
const TWO_BYTE_PROFILE: u16 = 0x1000;
const TWO_BYTE_PROFILE_MASK: u16 = 0xFFF0;

/// What a datagram on a media socket is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum PacketClass {
    Stun,
    Dtls,
    TurnChannel,
    Rtp,
    Rtcp,
    Unknown,
}

/// Tells protocols on one socket apart by their first bytes (RFC 7983 section 7, RFC 5761 section 4).
pub fn classify(datagram: &[u8]) -> PacketClass {
    match datagram.first() {
        Some(0..=3) => PacketClass::Stun,
        Some(20..=63) => PacketClass::Dtls,
        Some(64..=79) => PacketClass::TurnChannel,
        Some(128..=191) if is_rtcp(datagram) => PacketClass::Rtcp,
        Some(128..=191) if datagram.len() >= FIXED_HEADER_LEN => PacketClass::Rtp,
        _ => PacketClass::Unknown,
    }
}

/// Whether a packet that is RTP or RTCP is RTCP (RFC 5761 section 4).
#[inline]
pub fn is_rtcp(packet: &[u8]) -> bool {
    matches!(packet.get(1), Some(192..=223))
}

/// A parsed RTP packet, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct RtpPacket<'a> {
    bytes: &'a [u8],
    fixed: [u8; FIXED_HEADER_LEN],
    extension_profile: u16,
    extensions: &'a [u8],
    header_len: usize,
    payload_end: usize,
}

impl<'a> RtpPacket<'a> {
    /// Reads a packet in the clear.
    ///
    /// # Errors
    /// When the version is not 2, or header or padding do not fit.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let mut packet = Self::parse_protected(bytes)?;
        if packet.fixed[0] & 0x20 != 0 {
            let padding_len = bytes.last().map_or(0, |&len| usize::from(len));
            if padding_len == 0 || padding_len > bytes.len() - packet.header_len {
                return Err(ParseError::Padding);
            }
            packet.payload_end -= padding_len;
        }
        Ok(packet)
    }

    /// Reads the header of an SRTP packet, whose padding can not be seen yet: `payload()` is all
    /// that follows the header, authentication tag included (RFC 3711 section 3.1).
    ///
    /// # Errors
    /// When the version is not 2, or the header does not fit.
    #[inline]
    pub fn parse_protected(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let fixed = *bytes.first_chunk::<FIXED_HEADER_LEN>().ok_or(ParseError::Truncated)?;
        if fixed[0] >> 6 != 2 {
            return Err(ParseError::Version);
        }
        let mut header_len = FIXED_HEADER_LEN + 4 * usize::from(fixed[0] & 0x0F);
        let mut extension_profile = 0;
        let mut extensions: &[u8] = &[];
        if fixed[0] & 0x10 != 0 {
            extension_profile = u16_at(bytes, header_len).ok_or(ParseError::Truncated)?;
            let words = u16_at(bytes, header_len + 2).ok_or(ParseError::Truncated)?;
            let start = header_len + 4;
            header_len = start + 4 * usize::from(words);
            extensions = bytes.get(start..header_len).ok_or(ParseError::Truncated)?;
        }
        if header_len > bytes.len() {
            return Err(ParseError::Truncated);
        }
        let payload_end = bytes.len();
        Ok(Self { bytes, fixed, extension_profile, extensions, header_len, payload_end })
    }

    /// Marker bit: for video the last packet of a frame.
    #[inline]
    pub fn marker(&self) -> bool {
        self.fixed[1] & 0x80 != 0
    }

    /// Payload type.
    #[inline]
    pub fn payload_type(&self) -> PayloadType {
        PayloadType(self.fixed[1] & 0x7F)
    }

    /// Sequence number.
    #[inline]
    pub fn sequence_number(&self) -> SequenceNumber {
        SequenceNumber(u16::from_be_bytes([self.fixed[2], self.fixed[3]]))
    }

    /// Timestamp.
    #[inline]
    pub fn timestamp(&self) -> RtpTimestamp {
        let [_, _, _, _, a, b, c, d, ..] = self.fixed;
        RtpTimestamp(u32::from_be_bytes([a, b, c, d]))
    }

    /// Synchronisation source.
    #[inline]
    pub fn ssrc(&self) -> Ssrc {
        let [_, _, _, _, _, _, _, _, a, b, c, d] = self.fixed;
        Ssrc(u32::from_be_bytes([a, b, c, d]))
    }

    /// Contributing sources, at most fifteen.
    pub fn csrcs(&self) -> impl Iterator<Item = Ssrc> + 'a {
        let bytes = self.bytes;
        (0..usize::from(self.fixed[0] & 0x0F))
            .filter_map(move |index| u32_at(bytes, FIXED_HEADER_LEN + 4 * index).map(Ssrc))
    }

    /// The packet without header and padding. Empty for a packet of padding only.
    #[inline]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.header_len..self.payload_end).unwrap_or(&[])
    }

    /// Bytes before the payload.
    #[inline]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Bytes after the payload; 0 when there are none.
    #[inline]
    pub fn padding_len(&self) -> usize {
        self.bytes.len() - self.payload_end
    }

    /// The whole packet.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The first header extension of this id.
    #[inline]
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        self.extensions().find(|&(found, _)| found == id).map(|(_, data)| data)
    }

    /// The header extensions as id and data, in the packet's order. Ends at the first impossible one.
    #[inline]
    pub fn extensions(&self) -> Extensions<'a> {
        let two_byte = match self.extension_profile {
            ONE_BYTE_PROFILE => false,
            profile if profile & TWO_BYTE_PROFILE_MASK == TWO_BYTE_PROFILE => true,
            _ => return Extensions { rest: &[], two_byte: false },
        };
        Extensions { rest: self.extensions, two_byte }
    }
}

/// Iterates over the header extensions of a packet (RFC 8285 section 4).
#[derive(Clone, Debug)]
pub struct Extensions<'a> {
    rest: &'a [u8],
    two_byte: bool,
}

impl<'a> Iterator for Extensions<'a> {
    type Item = (u8, &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, after) = self.rest.split_first()?;
            let (id, len, body) = if self.two_byte {
                if first == 0 {
                    self.rest = after;
                    continue;
                }
                let (&len, body) = after.split_first()?;
                (first, usize::from(len), body)
            } else {
                match first >> 4 {
                    0 => {
                        self.rest = after;
                        continue;
                    }
                    15 => return None,
                    id => (id, usize::from(first & 0x0F) + 1, after),
                }
            };
            let (data, rest) = body.split_at_checked(len)?;
            self.rest = rest;
            return Some((id, data));
        }
    }
}

/// What a header says beside its extensions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct HeaderFields {
    pub marker: bool,
    pub payload_type: PayloadType,
    pub sequence_number: SequenceNumber,
    pub timestamp: RtpTimestamp,
    pub ssrc: Ssrc,
}

/// Writes a header with these extensions (id and data) and returns its length in bytes.
///
/// The one-byte form is used where it can express all of them, else the two-byte form
/// (RFC 8285 section 4). `None` when `out` is too small, an id is 0 or data is over 255 bytes.
#[inline]
pub fn write_header(
    out: &mut [u8],
    fields: &HeaderFields,
    extensions: &[(u8, &[u8])],
) -> Option<usize> {
    let fixed = out.first_chunk_mut::<FIXED_HEADER_LEN>()?;
    fixed[0] = if extensions.is_empty() { 0x80 } else { 0x90 };
    fixed[1] = u8::from(fields.marker) << 7 | fields.payload_type.0 & 0x7F;
    fixed[2..4].copy_from_slice(&fields.sequence_number.0.to_be_bytes());
    fixed[4..8].copy_from_slice(&fields.timestamp.0.to_be_bytes());
    fixed[8..12].copy_from_slice(&fields.ssrc.0.to_be_bytes());
    if extensions.is_empty() {
        return Some(FIXED_HEADER_LEN);
    }

    let one_byte =
        extensions.iter().all(|(id, data)| (1..=14).contains(id) && (1..=16).contains(&data.len()));
    let mut at = FIXED_HEADER_LEN + 4;
    for &(id, data) in extensions {
        if one_byte {
            *out.get_mut(at)? = id << 4 | (data.len() - 1) as u8;
            at += 1;
        } else {
            let len = u8::try_from(data.len()).ok()?;
            if id == 0 {
                return None;
            }
            *out.get_mut(at..)?.first_chunk_mut()? = [id, len];
            at += 2;
        }
        let place = out.get_mut(at..at + data.len())?;
        // Lengths known when compiled need no call for a few bytes.
        match *data {
            [a] => place[0] = a,
            [a, b] => place.copy_from_slice(&[a, b]),
            [a, b, c] => place.copy_from_slice(&[a, b, c]),
            _ => place.copy_from_slice(data),
        }
        at += data.len();
    }
    let end = at.next_multiple_of(4);
    for byte in out.get_mut(at..end)? {
        *byte = 0;
    }
    let words = u16::try_from((end - FIXED_HEADER_LEN) / 4 - 1).ok()?;
    let profile = if one_byte { ONE_BYTE_PROFILE } else { TWO_BYTE_PROFILE };
    let [p0, p1] = profile.to_be_bytes();
    let [w0, w1] = words.to_be_bytes();
    *out.get_mut(FIXED_HEADER_LEN..)?.first_chunk_mut()? = [p0, p1, w0, w1];
    Some(end)
}

/// Turns all of `packet` from `payload_end` on into padding and sets the padding bit.
///
/// Returns `false` and changes nothing when that is not 1 to 255 bytes after a fixed header.
pub fn write_padding(packet: &mut [u8], payload_end: usize) -> bool {
    let Some(len @ 1..) =
        packet.len().checked_sub(payload_end).and_then(|len| u8::try_from(len).ok())
    else {
        return false;
    };
    if payload_end < FIXED_HEADER_LEN {
        return false;
    }
    packet[payload_end..].fill(0);
    if let Some(last) = packet.last_mut() {
        *last = len;
    }
    packet[0] |= 0x20;
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields() -> HeaderFields {
        HeaderFields {
            marker: true,
            payload_type: PayloadType(111),
            sequence_number: SequenceNumber(0xABCD),
            timestamp: RtpTimestamp(0x0102_0304),
            ssrc: Ssrc(0xDEAD_BEEF),
        }
    }

    #[test]
    fn a_hand_made_packet_reads_field_by_field() {
        let bytes = [
            0xB1, 0xEF, 0xAB, 0xCD, 1, 2, 3, 4, 0xDE, 0xAD, 0xBE,
            0xEF, // fixed, P, X, one CSRC
            0, 0, 0, 9, // CSRC
            0xBE, 0xDE, 0, 2, 0x10, 0xAA, 0, 0x31, 1, 2, 0xF0,
            0xFF, // 1: AA; pad; 3: 01 02; stop
            b'x', b'y', 0, 2, // payload, padding
        ];
        let packet = RtpPacket::parse(&bytes).unwrap();
        assert!(packet.marker());
        assert_eq!(packet.payload_type(), PayloadType(111));
        assert_eq!(packet.sequence_number(), SequenceNumber(0xABCD));
        assert_eq!(packet.timestamp(), RtpTimestamp(0x0102_0304));
        assert_eq!(packet.ssrc(), Ssrc(0xDEAD_BEEF));
        assert_eq!(packet.csrcs().collect::<Vec<_>>(), [Ssrc(9)]);
        assert_eq!(packet.header_len(), 28);
        assert_eq!(packet.payload(), b"xy");
        assert_eq!(packet.padding_len(), 2);
        assert_eq!(packet.extension(1), Some(&[0xAA][..]));
        assert_eq!(packet.extension(3), Some(&[1, 2][..]));
        assert_eq!(packet.extensions().count(), 2);
        assert_eq!(RtpPacket::parse_protected(&bytes).unwrap().payload(), b"xy\0\x02");
    }

    #[test]
    fn impossible_headers_are_refused() {
        let mut bytes = [0; 12];
        assert_eq!(RtpPacket::parse(&bytes).unwrap_err(), ParseError::Version);
        bytes[0] = 0x80;
        assert!(RtpPacket::parse(&bytes).is_ok());
        assert_eq!(RtpPacket::parse(&bytes[..11]).unwrap_err(), ParseError::Truncated);
        bytes[0] = 0x81;
        assert_eq!(RtpPacket::parse(&bytes).unwrap_err(), ParseError::Truncated);
        bytes[0] = 0xA0;
        assert_eq!(RtpPacket::parse(&bytes).unwrap_err(), ParseError::Padding);
        let extension_past_the_end = [0x90, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xBE, 0xDE, 0, 1];
        assert_eq!(RtpPacket::parse(&extension_past_the_end).unwrap_err(), ParseError::Truncated);
    }

    #[test]
    fn padding_only_packets_have_no_payload() {
        let mut out = [0xFF; 12 + 255];
        let header_len = write_header(&mut out, &fields(), &[]).unwrap();
        assert!(write_padding(&mut out, header_len));
        let packet = RtpPacket::parse(&out).unwrap();
        assert_eq!((packet.payload().len(), packet.padding_len()), (0, 255));
        assert!(!write_padding(&mut [0x80; 12 + 256], 12));
        assert!(!write_padding(&mut [0x80; 12], 12));
    }

    #[test]
    fn the_two_byte_form_is_used_only_where_needed() {
        let mut out = [0; 64];
        write_header(&mut out, &fields(), &[(14, &[0; 16])]).unwrap();
        assert_eq!(out[12..14], [0xBE, 0xDE]);
        for extension in [(15, &[0; 1][..]), (1, &[0; 17]), (1, &[])] {
            let len = write_header(&mut out, &fields(), &[extension]).unwrap();
            assert_eq!(out[12..14], [0x10, 0x00]);
            assert_eq!(
                RtpPacket::parse(&out[..len]).unwrap().extension(extension.0),
                Some(extension.1)
            );
        }
        assert_eq!(write_header(&mut out, &fields(), &[(0, &[1])]), None);
        assert_eq!(write_header(&mut out[..16], &fields(), &[(1, &[1])]), None);
    }

    #[test]
    fn first_bytes_tell_protocols_apart() {
        let datagram = |first, second| {
            let mut bytes = [0; 12];
            (bytes[0], bytes[1]) = (first, second);
            classify(&bytes)
        };
        assert_eq!(datagram(0, 1), PacketClass::Stun);
        assert_eq!(datagram(22, 254), PacketClass::Dtls);
        assert_eq!(datagram(64, 0), PacketClass::TurnChannel);
        assert_eq!(datagram(0x80, 96), PacketClass::Rtp);
        assert_eq!(datagram(0x90, 0x80 | 111), PacketClass::Rtp);
        assert_eq!(datagram(0x81, 200), PacketClass::Rtcp);
        assert_eq!(datagram(0x8F, 206), PacketClass::Rtcp);
        assert_eq!(datagram(200, 0), PacketClass::Unknown);
        assert_eq!(classify(&[]), PacketClass::Unknown);
        assert_eq!(classify(&[0x80]), PacketClass::Unknown);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn headers_survive_a_round_trip(
            marker: bool, pt in 0u8..128, sequence: u16, timestamp: u32, ssrc: u32,
            extensions in prop::collection::vec((1u8..=20, prop::collection::vec(any::<u8>(), 0..20)), 0..5),
            payload in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let fields = HeaderFields {
                marker,
                payload_type: PayloadType(pt),
                sequence_number: SequenceNumber(sequence),
                timestamp: RtpTimestamp(timestamp),
                ssrc: Ssrc(ssrc),
            };
            let extensions: Vec<(u8, &[u8])> =
                extensions.iter().map(|(id, data)| (*id, &data[..])).collect();
            let mut out = vec![0xEE; 256];
            let len = write_header(&mut out, &fields, &extensions).unwrap();
            out.truncate(len);
            out.extend(&payload);
            let packet = RtpPacket::parse(&out).unwrap();
            prop_assert_eq!(packet.marker(), marker);
            prop_assert_eq!(packet.payload_type(), fields.payload_type);
            prop_assert_eq!(packet.sequence_number(), fields.sequence_number);
            prop_assert_eq!(packet.timestamp(), fields.timestamp);
            prop_assert_eq!(packet.ssrc(), fields.ssrc);
            prop_assert_eq!(packet.payload(), &payload[..]);
            prop_assert_eq!(packet.extensions().collect::<Vec<_>>(), extensions);
        }

        #[test]
        fn junk_never_panics(mut bytes in prop::collection::vec(any::<u8>(), 0..120), profile: bool) {
            classify(&bytes);
            if let Some(first) = bytes.first_mut() {
                *first = *first & 0x3F | 0x80;
            }
            if let Some(at) = bytes.get_mut(12..14) {
                at.copy_from_slice(if profile { &[0xBE, 0xDE] } else { &[0x10, 0] });
            }
            if let Ok(packet) = RtpPacket::parse(&bytes) {
                let end = packet.header_len() + packet.payload().len() + packet.padding_len();
                prop_assert_eq!(end, bytes.len());
                packet.extensions().count();
                packet.csrcs().count();
            }
        }
    }
}
