//! Writes one owed packet into a slot, up to where the payload lies as it leaves already.

use parlor_model::{Codec, PayloadType, RtpTimestamp, SequenceNumber, Ssrc};
use parlor_rtp::{
    HeaderFields, dependency_descriptor,
    extension::{AbsSendTime, PlayoutDelay},
    rtx::OSN_LEN,
    vp8, vp9, write_header,
};

use super::{
    OutgoingCodec, Subscription,
    header::HeaderTemplate,
    red::{Redundancy, write_payload},
    sent::SentPacket,
};
use crate::receive::{
    frame::{Indices, Layering},
    history::{History, PacketFacts, PacketParts},
};

/// What a written packet is sealed by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written<'a> {
    pub header_bytes: usize,
    /// With the header, what was written.
    pub bytes: usize,
    /// The rest of the payload.
    pub rest: &'a [u8],
    pub ssrc: Ssrc,
    pub index: u64,
}

impl Written<'_> {
    /// Bytes behind the header, padding with them.
    #[inline]
    pub fn payload_bytes(&self) -> usize {
        self.bytes + self.rest.len() - self.header_bytes
    }
}

/// Longest dependency descriptor: the length of a header extension has a byte.
const MAX_DESCRIPTOR: usize = 255;
/// Most header extensions on an outgoing packet.
const MAX_EXTENSIONS: usize = 8;

/// Header extensions in a list without allocation.
struct ExtensionList<'a> {
    list: [(u8, &'a [u8]); MAX_EXTENSIONS],
    len: usize,
}

impl<'a> ExtensionList<'a> {
    fn add(&mut self, id: Option<u8>, data: &'a [u8]) {
        if let Some(id) = id
            && !data.is_empty()
            && let Some(place) = self.list.get_mut(self.len)
        {
            *place = (id, data);
            self.len += 1;
        }
    }
}

/// Writes the packet as plaintext, under `number` or, where there is one, again under the number
/// `rtx`; `None` when it does not fit or the subscriber has no payload
/// type for it.
#[inline(always)]
pub fn write_packet<'a>(
    out: &mut [u8],
    subscription: &Subscription,
    sent: &SentPacket,
    (number, rtx): (u64, Option<u64>),
    history: &History,
    facts: &PacketFacts,
    parts: &PacketParts<'a>,
) -> Option<Written<'a>> {
    let codec = subscription.codec(facts.codec_index)?;
    let (payload_type, ssrc, index): (PayloadType, Ssrc, u64) = match rtx {
        None => (codec.payload_type, subscription.section.ssrc, number),
        Some(number) => (codec.rtx?, subscription.section.rtx_ssrc?, number),
    };
    let fields = HeaderFields {
        marker: sent.marker(),
        payload_type,
        sequence_number: SequenceNumber(index as u16),
        timestamp: RtpTimestamp(sent.timestamp),
        ssrc,
    };
    let has_rare = facts.has_rare_extensions || subscription.settings.playout_delay.is_some();
    let header_bytes = match &subscription.header {
        Some(header) if !has_rare => {
            let len = header.write(out, payload_type, index, sent, facts)?;
            out.get_mut(8..12)?.copy_from_slice(&ssrc.0.to_be_bytes());
            len
        }
        _ => write_extended_header(out, subscription, sent, rtx.is_some(), facts, parts, &fields)?,
    };
    let mut bytes = header_bytes;
    if rtx.is_some() {
        let original = (number as u16).to_be_bytes();
        out.get_mut(bytes..bytes + OSN_LEN)?.copy_from_slice(&original);
        bytes += OSN_LEN;
    }
    let (bytes, rest) = write_body(out, bytes, &codec, sent, history, facts, parts.payload)?;
    Some(Written { header_bytes, bytes, rest, ssrc, index })
}

/// As [`write_packet`] of what leaves for the first time and needs no header of its own; `None`
/// where it does.
#[inline(always)]
pub fn write_plain<'a>(
    out: &mut [u8],
    subscription: &Subscription,
    codec: &OutgoingCodec,
    (number, sent): (u64, &SentPacket),
    history: &History,
    (facts, payload): (&PacketFacts, &'a [u8]),
) -> Option<Written<'a>> {
    let header = subscription.header.as_ref()?;
    let ssrc = subscription.section.ssrc;
    let header_bytes = header.write(out, codec.payload_type, number, sent, facts)?;
    let (bytes, rest) = write_body(out, header_bytes, codec, sent, history, facts, payload)?;
    Some(Written { header_bytes, bytes, rest, ssrc, index: number })
}

/// As [`write_plain`] of a payload that leaves as it came, but for `indices` where they are not its
/// own.
#[inline(always)]
pub fn write_untouched<'a>(
    out: &mut [u8],
    header: &HeaderTemplate,
    payload_type: PayloadType,
    (number, sent, indices): (u64, &SentPacket, Option<Indices>),
    (facts, payload): (&PacketFacts, &'a [u8]),
) -> Option<Written<'a>> {
    let header_bytes = header.write(out, payload_type, number, sent, facts)?;
    let (bytes, rest) = match indices {
        None => (header_bytes, payload),
        Some(indices) => write_indices(out, header_bytes, facts.codec, indices, payload)?,
    };
    Some(Written { header_bytes, bytes, rest, ssrc: header.ssrc, index: number })
}

/// Writes behind `bytes` what of a payload is not as it came; returns where that ends, and the
/// rest.
#[inline(always)]
fn write_body<'a>(
    out: &mut [u8],
    bytes: usize,
    codec: &OutgoingCodec,
    sent: &SentPacket,
    history: &History,
    facts: &PacketFacts,
    payload: &'a [u8],
) -> Option<(usize, &'a [u8])> {
    if codec.redundancy != Redundancy::Untouched {
        let place = out.get_mut(bytes..)?;
        let written =
            write_payload(place, codec.redundancy, sent.added(), history, facts, payload)?;
        return Some((bytes + written, &[]));
    }
    if sent.indices == facts.frame.indices {
        return Some((bytes, payload));
    }
    write_indices(out, bytes, facts.codec, sent.indices, payload)
}

/// Writes a payload behind `bytes` with other indices in its descriptor, where the codec has one;
/// returns where that ends, and the rest.
#[inline(never)]
fn write_indices<'a>(
    out: &mut [u8],
    bytes: usize,
    codec: Codec,
    indices: Indices,
    payload: &'a [u8],
) -> Option<(usize, &'a [u8])> {
    let Indices { picture_id, tl0_picture_index, key_index, .. } = indices;
    if !matches!(codec, Codec::Vp8 | Codec::Vp9) {
        return Some((bytes, payload));
    }
    let end = bytes + payload.len();
    let place = out.get_mut(bytes..end)?;
    place.copy_from_slice(payload);
    match codec {
        Codec::Vp8 => vp8::rewrite(place, picture_id, tl0_picture_index, key_index),
        _ => vp9::rewrite(place, picture_id, tl0_picture_index),
    };
    Some((end, &[]))
}

/// Longest padding (RFC 3550 section 5.1).
const MAX_PADDING: usize = 255;
const PADDING_BIT: u8 = 0x20;

/// The packet with padding behind its payload (RFC 3550 section 5.1).
#[inline(never)]
pub fn padded<'a>(out: &mut [u8], written: Written<'a>, padding: u8) -> Option<Written<'a>> {
    if padding == 0 {
        return Some(written);
    }
    let payload_end = written.bytes + written.rest.len();
    out.get_mut(written.bytes..payload_end)?.copy_from_slice(written.rest);
    let bytes = payload_end + usize::from(padding);
    let place = out.get_mut(payload_end..bytes)?;
    place.fill(0);
    *place.last_mut()? = padding;
    *out.first_mut()? |= PADDING_BIT;
    Some(Written { bytes, rest: &[], ..written })
}

/// Writes a packet without payload on the SSRC for retransmissions, about `size_bytes` long when
/// it is sealed; `None` where there is no such SSRC.
pub fn write_padding(
    out: &mut [u8],
    subscription: &Subscription,
    stamps: (u16, AbsSendTime),
    number: u64,
    size_bytes: usize,
) -> Option<Written<'static>> {
    const SEAL_BYTES: usize = 16;
    let section = &subscription.section;
    let (transport_sequence, abs_send_time) = stamps;
    let transport_sequence = transport_sequence.to_be_bytes();
    let abs_send_time = abs_send_time.to_bytes();
    let fields = HeaderFields {
        marker: false,
        payload_type: section.codecs.iter().find_map(|binding| binding.rtx)?,
        sequence_number: SequenceNumber(number as u16),
        timestamp: RtpTimestamp(0),
        ssrc: section.rtx_ssrc?,
    };
    let ids = &section.extensions;
    let mut list = ExtensionList { list: [(0, &[]); MAX_EXTENSIONS], len: 0 };
    list.add(ids.mid, section.mid.as_bytes());
    list.add(ids.transport_cc, &transport_sequence);
    list.add(ids.abs_send_time, &abs_send_time);
    let header_bytes = write_header(out, &fields, list.list.get(..list.len)?)?;
    let padding = size_bytes.saturating_sub(header_bytes + SEAL_BYTES).clamp(1, MAX_PADDING);
    let bytes = header_bytes + padding;
    let place = out.get_mut(header_bytes..bytes)?;
    place.fill(0);
    *place.last_mut()? = padding as u8;
    *out.first_mut()? |= PADDING_BIT;
    Some(Written { header_bytes, bytes, rest: &[], ssrc: fields.ssrc, index: number })
}

#[inline(never)]
fn write_extended_header(
    out: &mut [u8],
    subscription: &Subscription,
    sent: &SentPacket,
    is_rtx: bool,
    facts: &PacketFacts,
    parts: &PacketParts<'_>,
    fields: &HeaderFields,
) -> Option<usize> {
    let ids = &subscription.section.extensions;
    let transport_sequence = sent.transport_sequence.to_be_bytes();
    let abs_send_time = sent.abs_send_time();
    let audio_level = facts.audio_level.map(|level| [level]);
    let video_orientation = facts.video_orientation.map(|orientation| [orientation]);
    let mut descriptor = [0; MAX_DESCRIPTOR];
    let descriptor = match ids.dependency_descriptor {
        Some(_) => write_descriptor(&mut descriptor, sent, facts, parts.dependency_descriptor),
        None => &[],
    };
    let mut list = ExtensionList { list: [(0, &[]); MAX_EXTENSIONS], len: 0 };
    list.add(ids.mid, subscription.section.mid.as_bytes());
    list.add(ids.transport_cc, &transport_sequence);
    list.add(ids.abs_send_time, &abs_send_time);
    list.add(ids.audio_level, audio_level.as_ref().map_or(&[], |level| &level[..]));
    list.add(
        ids.video_orientation,
        video_orientation.as_ref().map_or(&[], |orientation| &orientation[..]),
    );
    list.add(ids.abs_capture_time, parts.abs_capture_time);
    list.add(ids.dependency_descriptor, descriptor);
    let chosen = subscription.settings.playout_delay.map(PlayoutDelay::to_bytes);
    if !is_rtx {
        let delay = chosen.as_ref().or(facts.playout_delay.as_ref());
        list.add(ids.playout_delay, delay.map_or(&[], |delay| &delay[..]));
    }
    write_header(out, fields, list.list.get(..list.len)?)
}

/// The dependency descriptor as it leaves; nothing of codecs whose layers it is not read by.
#[inline]
fn write_descriptor<'a>(
    out: &'a mut [u8; MAX_DESCRIPTOR],
    sent: &SentPacket,
    facts: &PacketFacts,
    descriptor: &[u8],
) -> &'a [u8] {
    let Layering::Targets(known) = &facts.frame.layering else { return &[] };
    let active = Some(sent.active).filter(|active| *active != 0);
    let count = usize::from(known.target_count);
    let number = sent.indices.frame_number;
    let len = dependency_descriptor::rewrite(out, descriptor, number, active, count);
    len.and_then(|len| out.get(..len)).unwrap_or(&[])
}
