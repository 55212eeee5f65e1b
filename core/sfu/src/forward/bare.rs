//! Streams and the munger of one subscription without transports around them, for fuzzing.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parlor_model::{
    Codec, CodecBinding, ExtensionIds, PayloadType, ReceiveStream, RtpTimestamp, SequenceNumber,
    Ssrc, TrackKind,
};
use parlor_rtp::{HeaderFields, RtpPacket, write_header};

use super::{munger::Munger, select::Wanted};
use crate::receive::{Incoming, Received, Stream, frame::Layering};

const CODECS: [Codec; 5] = [Codec::Vp8, Codec::Vp9, Codec::Av1, Codec::H264, Codec::H265];
const STREAMS: usize = 3;
const DESCRIPTOR_ID: u8 = 12;
/// Bytes in front of each packet of the input.
const CONTROL: usize = 6;

/// Forwards packets that are made of any bytes, and returns how many have left.
///
/// The first byte chooses the codec. Then packets follow: which stream and layers, how far the
/// sequence number and the timestamp go on, and how long descriptor and payload are.
///
/// # Panics
/// When one number is given to two packets.
pub fn forward_bytes(mut now: Instant, data: &[u8]) -> usize {
    let Some((&codec, mut rest)) = data.split_first() else { return 0 };
    let codec = CODECS.get(usize::from(codec) % CODECS.len()).copied().unwrap_or(Codec::Vp8);
    let binding = CodecBinding { codec, payload_type: PayloadType(96), rtx: None, variant: 0 };
    let announced = |layer| ReceiveStream { rid: None, ssrc: None, rtx_ssrc: None, layer };
    let mut streams: Vec<_> = (0..STREAMS as u8)
        .map(|layer| Stream::new(&announced(layer), TrackKind::Video, 90_000, 1))
        .collect();
    let extensions =
        ExtensionIds { dependency_descriptor: Some(DESCRIPTOR_ID), ..ExtensionIds::default() };
    let mut munger = Munger::new(1, 90_000);
    let mut current = None;
    let mut sequences = [0u16; STREAMS];
    let mut timestamp = 0u32;
    let mut left: BTreeMap<u64, (u8, u64)> = BTreeMap::new();
    while let Some((&[which, layers, steps, ahead, descriptor, payload], after)) =
        rest.split_first_chunk::<CONTROL>()
    {
        let at = usize::from(which) % STREAMS;
        let parts = after.split_at_checked(usize::from(descriptor));
        let Some((descriptor, after)) = parts else { break };
        let Some((payload, after)) = after.split_at_checked(usize::from(payload)) else { break };
        rest = after;
        now += Duration::from_millis(5);
        timestamp = timestamp.wrapping_add(u32::from(ahead) * 100);
        let Some(sequence) = sequences.get_mut(at) else { break };
        // From 100 back to 155 on.
        *sequence = sequence.wrapping_add(u16::from(steps)).wrapping_sub(100);
        let fields = HeaderFields {
            marker: which & 0x80 != 0,
            payload_type: binding.payload_type,
            sequence_number: SequenceNumber(*sequence),
            timestamp: RtpTimestamp(timestamp),
            ssrc: Ssrc(1),
        };
        let mut bytes = [0; 600];
        let Some(header) = write_header(&mut bytes, &fields, &[(DESCRIPTOR_ID, descriptor)]) else {
            continue;
        };
        let Some(Ok(packet)) = bytes.get(..header).map(RtpPacket::parse) else { continue };
        let incoming = Incoming {
            arrived: now,
            packet: &packet,
            sequence: fields.sequence_number,
            payload,
            is_rtx: which & 0x40 != 0,
            codec: binding,
            codec_index: 0,
        };
        let Some(stream) = streams.get_mut(at) else { break };
        let received = stream.receive(now, &incoming, &extensions);
        let Received::Stored { number, keyframe, .. } = received else { continue };
        let wanted = Wanted { spatial: layers & 3, temporal: layers >> 2 & 3 };
        let (at, scalability) = (at as u8, stream.scalability.as_ref());
        let newest = stream.history.highest();
        let begins = keyframe && current != Some(at) && munger.may_start(at, number);
        for number in number..=(if keyframe { newest } else { number }).min(number + 128) {
            let Some(facts) = stream.history.facts(number) else { continue };
            if begins && current != Some(at) {
                munger.start(now, at, facts, None, scalability, wanted);
                current = Some(at);
            }
            let munged = match current == Some(at) {
                true => munger.munge(now, at, facts, scalability, wanted),
                false => munger.munge_late(at, facts),
            };
            let Ok(munged) = munged else { continue };
            let owner = *left.entry(munged.number).or_insert((at, number));
            assert_eq!(owner, (at, number), "one number for two packets");
            assert!(munged.number < munger.next_number());
            if let Layering::Targets(known) = &facts.frame.layering {
                let active = Some(munged.active).filter(|active| *active != 0);
                let count = usize::from(known.target_count);
                let (number, data) = (munged.indices.frame_number, descriptor);
                parlor_rtp::dependency_descriptor::rewrite(
                    &mut [0; 255],
                    data,
                    number,
                    active,
                    count,
                );
            }
        }
    }
    left.len()
}
