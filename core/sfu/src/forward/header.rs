//! The header of a subscription's packets, written once: what differs is put into its place.

use parlor_model::{ExtensionIds, PayloadType, SendSection, Ssrc};
use parlor_rtp::FIXED_HEADER_LEN;

use super::sent::SentPacket;
use crate::receive::history::PacketFacts;

/// Fixed header, begin of the extensions, mid, transport-wide number, send time, audio level and
/// padding.
const TEMPLATE_BYTES: usize = FIXED_HEADER_LEN + 4 + (1 + MAX_MID_BYTES) + 3 + 4 + 2 + 3;
const MAX_MID_BYTES: usize = 16;
/// Places in the header are below this, which spares looking whether they are.
const PLACES: usize = 64;
/// Room behind the last place. The template is shorter.
const ROOM_BYTES: usize = PLACES + 4;
const _: () = assert!(TEMPLATE_BYTES <= PLACES);
/// Ids that the short form of header extensions can express (RFC 8285 section 4.2).
const SHORT_IDS: std::ops::RangeInclusive<u8> = 1..=14;
const SHORT_FORM: [u8; 2] = [0xbe, 0xde];

/// The short form of header extensions in one fixed order: mid, transport-wide number, send time,
/// audio level. Packets with others are written one by one.
#[derive(Clone, Debug)]
pub struct HeaderTemplate {
    /// With an audio level of 0 where there is one.
    bytes: [u8; TEMPLATE_BYTES],
    /// Bytes that count, padding with them.
    len: u8,
    /// Where the values are; 0 for none.
    transport_sequence_at: u8,
    abs_send_time_at: u8,
    audio_level_at: u8,
    pub ssrc: Ssrc,
}

impl HeaderTemplate {
    /// `None` where the short form can not express what was agreed on, or nothing was.
    pub fn new(section: &SendSection) -> Option<Self> {
        let ExtensionIds { mid, transport_cc, abs_send_time, audio_level, .. } = section.extensions;
        let ids = [mid, transport_cc, abs_send_time, audio_level];
        if ids.iter().flatten().any(|id| !SHORT_IDS.contains(id)) {
            return None;
        }
        let mut template = Self {
            bytes: [0; TEMPLATE_BYTES],
            len: FIXED_HEADER_LEN as u8 + 4,
            transport_sequence_at: 0,
            abs_send_time_at: 0,
            audio_level_at: 0,
            ssrc: section.ssrc,
        };
        template.bytes[0] = 0x90;
        template.bytes[8..FIXED_HEADER_LEN].copy_from_slice(&section.ssrc.0.to_be_bytes());
        template.bytes[FIXED_HEADER_LEN..][..2].copy_from_slice(&SHORT_FORM);
        if let Some(id) = mid {
            template.add(id, section.mid.as_bytes())?;
        }
        if let Some(id) = transport_cc {
            template.transport_sequence_at = template.add(id, &[0; 2])?;
        }
        if let Some(id) = abs_send_time {
            template.abs_send_time_at = template.add(id, &[0; 3])?;
        }
        let is_empty = usize::from(template.len) == FIXED_HEADER_LEN + 4;
        if let Some(id) = audio_level {
            template.audio_level_at = template.add(id, &[0])?;
        }
        let end = usize::from(template.len).next_multiple_of(4);
        (template.len, template.bytes[15]) = (end as u8, words_to(end));
        (!is_empty).then_some(template)
    }

    /// Whether packets have a transport-wide number.
    #[inline]
    pub fn is_numbered(&self) -> bool {
        self.transport_sequence_at != 0
    }

    /// Returns where the data is.
    fn add(&mut self, id: u8, data: &[u8]) -> Option<u8> {
        let at = usize::from(self.len) + 1;
        let len = u8::try_from(data.len().checked_sub(1)?).ok()?;
        self.bytes.get_mut(at..at + data.len())?.copy_from_slice(data);
        *self.bytes.get_mut(at - 1)? = id << 4 | len;
        self.len = (at + data.len()) as u8;
        Some(at as u8)
    }

    /// Writes the header of a packet without rare extensions; returns its length.
    #[inline(always)]
    pub fn write(
        &self,
        out: &mut [u8],
        payload_type: PayloadType,
        number: u64,
        sent: &SentPacket,
        facts: &PacketFacts,
    ) -> Option<usize> {
        let out: &mut [u8; ROOM_BYTES] = out.first_chunk_mut()?;
        out[..TEMPLATE_BYTES].copy_from_slice(&self.bytes);
        out[1] = u8::from(sent.marker()) << 7 | payload_type.0 & 0x7f;
        out[2..4].copy_from_slice(&(number as u16).to_be_bytes());
        out[4..8].copy_from_slice(&sent.timestamp.to_be_bytes());
        if self.transport_sequence_at != 0 {
            *place(out, self.transport_sequence_at.into())? = sent.transport_sequence.to_be_bytes();
        }
        if self.abs_send_time_at != 0 {
            *place(out, self.abs_send_time_at.into())? = sent.abs_send_time();
        }
        if self.audio_level_at != 0 {
            match facts.audio_level {
                Some(level) => *place(out, self.audio_level_at.into())? = [level],
                None => return self.without_audio_level(out),
            }
        }
        Some(self.len.into())
    }

    #[cold]
    fn without_audio_level(&self, out: &mut [u8; ROOM_BYTES]) -> Option<usize> {
        let end = usize::from(self.audio_level_at) - 1;
        // Padding.
        *place(out, end)? = [0; 4];
        let end = end.next_multiple_of(4);
        out[15] = words_to(end);
        Some(end)
    }
}

/// Of header extensions in a header that ends there.
fn words_to(end: usize) -> u8 {
    ((end - FIXED_HEADER_LEN) / 4 - 1) as u8
}

/// Some bytes of a header.
#[inline(always)]
fn place<const LEN: usize>(out: &mut [u8; ROOM_BYTES], at: usize) -> Option<&mut [u8; LEN]> {
    const { assert!(LEN <= ROOM_BYTES - PLACES) };
    let (_, rest) = out.split_at_mut(at % PLACES);
    rest.first_chunk_mut()
}

#[cfg(test)]
mod tests {
    use parlor_model::{
        Codec, Feedback, Mid, RtpTimestamp, SequenceNumber, Ssrc, SubscriptionId, TrackId,
    };
    use parlor_rtp::{HeaderFields, extension::AbsSendTime, write_header};

    use super::*;
    use crate::{
        forward::{munger::Munged, sent::Source},
        receive::frame::{FrameFacts, Indices},
    };

    fn section(extensions: ExtensionIds) -> SendSection {
        SendSection {
            mid: Mid::new("12").unwrap(),
            subscription: SubscriptionId(1),
            track: TrackId(1),
            ssrc: Ssrc(0x0102_0304),
            rtx_ssrc: None,
            cname: String::new(),
            codecs: Vec::new(),
            extensions,
            feedback: Feedback::default(),
        }
    }

    fn facts(audio_level: Option<u8>) -> PacketFacts {
        PacketFacts {
            number: 0x1_fffe,
            timestamp: 7,
            marker: true,
            keyframe: false,
            codec: Codec::Opus,
            codec_index: 0,
            frame: FrameFacts::default(),
            audio_level,
            video_orientation: None,
            playout_delay: None,
            has_rare_extensions: false,
        }
    }

    #[test]
    fn a_template_is_what_would_be_written_one_by_one() {
        let munged = Munged {
            number: 0x1_fffe,
            timestamp: 0x5060_7080,
            marker: true,
            indices: Indices::default(),
            active: 0,
        };
        let sent = SentPacket::new(&munged, Source { stream: 0, number: 3, added: 0 });
        let sent = sent.stamped(0x1234, AbsSendTime(0xab_cdef), 0);
        for mask in 1..16_u8 {
            let id = |at: u8| (mask >> at & 1 == 1).then_some(at + 1);
            let [mid, transport_cc, abs_send_time, audio_level] = [0, 1, 2, 3].map(id);
            let ids = ExtensionIds {
                mid,
                transport_cc,
                abs_send_time,
                audio_level,
                ..Default::default()
            };
            let section = section(ids);
            let Some(template) = HeaderTemplate::new(&section) else {
                assert_eq!(mask, 8, "an audio level alone");
                continue;
            };
            for level in [None, Some(0x55)] {
                let fields = HeaderFields {
                    marker: true,
                    payload_type: PayloadType(109),
                    sequence_number: SequenceNumber(0xfffe),
                    timestamp: RtpTimestamp(0x5060_7080),
                    ssrc: section.ssrc,
                };
                let level_bytes = level.map(|level| [level]);
                let values: [(Option<u8>, &[u8]); 4] = [
                    (mid, b"12"),
                    (transport_cc, &[0x12, 0x34]),
                    (abs_send_time, &[0xab, 0xcd, 0xef]),
                    (
                        audio_level.filter(|_| level.is_some()),
                        level_bytes.as_ref().map_or(&[], |level| &level[..]),
                    ),
                ];
                let list: Vec<(u8, &[u8])> =
                    values.into_iter().filter_map(|(id, bytes)| Some((id?, bytes))).collect();
                let (mut one_by_one, mut at_once) = ([0xee; 100], [0xdd; 100]);
                let len = write_header(&mut one_by_one, &fields, &list).unwrap();
                let facts = facts(level);
                let written =
                    template.write(&mut at_once, PayloadType(109), 0x1_fffe, &sent, &facts);
                assert_eq!(written, Some(len), "{mask:04b} {level:?}");
                assert_eq!(at_once[..len], one_by_one[..len], "{mask:04b} {level:?}");
            }
        }
    }
}
