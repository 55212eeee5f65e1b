//! The header of a subscription's packets, written once: what differs is put into its place.

use parlor_model::{ExtensionIds, SendSection};
use parlor_rtp::{FIXED_HEADER_LEN, HeaderFields};

use super::sent::SentPacket;
use crate::receive::history::PacketFacts;

/// Fixed header, begin of the extensions, mid, transport-wide number, send time.
const TEMPLATE_BYTES: usize = FIXED_HEADER_LEN + 4 + (1 + MAX_MID_BYTES) + 3 + 4;
const MAX_MID_BYTES: usize = 16;
/// Places in the header are below this, which spares looking whether they are.
const PLACES: usize = 64;
/// Room behind the last place. The template, an audio level and padding are shorter.
const ROOM_BYTES: usize = PLACES + 4;
const _: () = assert!(TEMPLATE_BYTES + 2 + 3 <= PLACES);
/// Ids that the short form of header extensions can express (RFC 8285 section 4.2).
const SHORT_IDS: std::ops::RangeInclusive<u8> = 1..=14;
const SHORT_FORM: [u8; 2] = [0xbe, 0xde];

/// The short form of header extensions in one fixed order: mid, transport-wide number, send time,
/// audio level. Packets with others are written one by one.
#[derive(Clone, Debug)]
pub struct HeaderTemplate {
    bytes: [u8; TEMPLATE_BYTES],
    /// Bytes that count.
    len: u8,
    /// Where the values are; 0 for none.
    transport_sequence_at: u8,
    abs_send_time_at: u8,
    /// 0 for none.
    audio_level_id: u8,
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
            audio_level_id: audio_level.unwrap_or(0),
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
        (!is_empty).then_some(template)
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
        fields: &HeaderFields,
        sent: &SentPacket,
        facts: &PacketFacts,
    ) -> Option<usize> {
        let out: &mut [u8; ROOM_BYTES] = out.first_chunk_mut()?;
        out[..TEMPLATE_BYTES].copy_from_slice(&self.bytes);
        out[1] = u8::from(fields.marker) << 7 | fields.payload_type.0 & 0x7f;
        out[2..4].copy_from_slice(&fields.sequence_number.0.to_be_bytes());
        out[4..8].copy_from_slice(&fields.timestamp.0.to_be_bytes());
        out[8..12].copy_from_slice(&fields.ssrc.0.to_be_bytes());
        if self.transport_sequence_at != 0 {
            *place(out, self.transport_sequence_at.into())? = sent.transport_sequence.to_be_bytes();
        }
        if self.abs_send_time_at != 0 {
            *place(out, self.abs_send_time_at.into())? = sent.abs_send_time();
        }
        let len = usize::from(self.len);
        // An audio level, or nothing, and padding.
        let (tail, len_bytes) = match facts.audio_level {
            Some(level) if self.audio_level_id != 0 => ([self.audio_level_id << 4, level], len + 2),
            _ => ([0; 2], len),
        };
        let [id, level] = tail;
        *place(out, len)? = [id, level, 0, 0];
        *place(out, len + 2)? = [0; 3];
        let end = len_bytes.next_multiple_of(4);
        out[15] = ((end - FIXED_HEADER_LEN) / 4 - 1) as u8;
        Some(end)
    }
}

/// Some bytes of a header.
#[inline(always)]
fn place<const LEN: usize>(out: &mut [u8; ROOM_BYTES], at: usize) -> Option<&mut [u8; LEN]> {
    const { assert!(LEN <= ROOM_BYTES - PLACES) };
    let (_, rest) = out.split_at_mut(at % PLACES);
    rest.first_chunk_mut()
}
