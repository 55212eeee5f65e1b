//! One outgoing stream with its retransmissions.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use parlor_model::{Codec, CodecBinding, PayloadType, RtpTimestamp, SequenceNumber};
use parlor_rtp::{RtpPacket, is_keyframe, rtx::parse_rtx, starts_frame, vp9};

use crate::{
    Fault, MAX_PACKETS, OutgoingStream,
    codec::{Indices, check_across, check_neighbours},
    references,
};

/// A packet that has come, however it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Packet {
    pub codec: Codec,
    pub timestamp: RtpTimestamp,
    pub marker: bool,
    pub keyframe: bool,
    pub is_empty: bool,
    pub starts_frame: Option<bool>,
    pub indices: Indices,
    payload: u64,
}

/// Numbers without wraps, by distance to the highest.
#[derive(Default)]
struct Numbers {
    highest: Option<u64>,
}

impl Numbers {
    fn extend(&mut self, sequence: SequenceNumber) -> u64 {
        let highest = self.highest.unwrap_or((1 << 20) + u64::from(sequence.0));
        let distance = sequence.distance(SequenceNumber(highest as u16));
        let number = highest.saturating_add_signed(i64::from(distance));
        self.highest = Some(highest.max(number));
        number
    }
}

pub struct Stream {
    codecs: Vec<CodecBinding>,
    pub allowed: bool,
    numbers: Numbers,
    rtx_numbers: Numbers,
    pub packets: BTreeMap<u64, Packet>,
    dependency_descriptor: Option<u8>,
    /// By number.
    descriptors: BTreeMap<u64, Box<[u8]>>,
    /// Hashes of whole packets as sealed, by SSRC and number.
    sealed: BTreeMap<(bool, u64), u64>,
}

impl Stream {
    pub fn new(stream: OutgoingStream) -> Self {
        Self {
            codecs: stream.codecs,
            dependency_descriptor: stream.dependency_descriptor,
            descriptors: BTreeMap::new(),
            allowed: true,
            numbers: Numbers::default(),
            rtx_numbers: Numbers::default(),
            packets: BTreeMap::new(),
            sealed: BTreeMap::new(),
        }
    }

    pub fn allow(&mut self, stream: OutgoingStream) {
        self.codecs = stream.codecs;
        self.dependency_descriptor = stream.dependency_descriptor;
        self.allowed = true;
    }

    pub fn handle_packet(
        &mut self,
        packet: &RtpPacket<'_>,
        is_rtx: bool,
        report: &mut impl FnMut(u64, Fault),
    ) {
        let numbers = if is_rtx { &mut self.rtx_numbers } else { &mut self.numbers };
        let wire_number = numbers.extend(packet.sequence_number());
        let whole = hash(packet.bytes());
        if *self.sealed.entry((is_rtx, wire_number)).or_insert(whole) != whole {
            report(wire_number, Fault::SealedTwice);
        }
        if self.sealed.len() > MAX_PACKETS {
            self.sealed.pop_first();
        }
        let Some(codec) = self.codec(packet.payload_type(), is_rtx) else {
            return report(wire_number, Fault::PayloadType);
        };
        let (number, payload) = if is_rtx {
            let Some((original, payload)) = parse_rtx(packet.payload()) else {
                if !packet.payload().is_empty() {
                    report(wire_number, Fault::Rtx);
                }
                return;
            };
            (self.numbers.extend(original), payload)
        } else {
            (wire_number, packet.payload())
        };
        let seen = Packet {
            codec,
            timestamp: packet.timestamp(),
            marker: packet.marker(),
            keyframe: is_keyframe(codec, payload),
            is_empty: payload.is_empty(),
            starts_frame: match codec {
                // A picture may begin with any of its spatial layers.
                Codec::Vp9 => vp9::Descriptor::parse(payload).map(|it| it.start_of_frame),
                _ => starts_frame(codec, payload),
            },
            indices: Indices::of(codec, payload),
            payload: hash(payload),
        };
        match self.packets.get(&number) {
            Some(known) if *known != seen => report(number, Fault::TwoPayloads),
            Some(_) => {}
            None => self.insert(number, seen, report),
        }
        let descriptor = self.dependency_descriptor.and_then(|id| packet.extension(id));
        if let Some(descriptor) = descriptor {
            let known = self.descriptors.entry(number).or_insert_with(|| descriptor.into());
            if **known != *descriptor {
                report(number, Fault::TwoPayloads);
            }
            if self.descriptors.len() > MAX_PACKETS {
                self.descriptors.pop_first();
            }
        }
    }

    fn insert(&mut self, number: u64, packet: Packet, report: &mut impl FnMut(u64, Fault)) {
        let mut report = |fault| report(number, fault);
        if let Some((&before_number, before)) = self.packets.range(..number).next_back() {
            check(before_number, before, number, &packet, &mut report);
        }
        if let Some((&after_number, after)) = self.packets.range(number..).next() {
            check(number, &packet, after_number, after, &mut report);
        }
        self.packets.insert(number, packet);
        if self.packets.len() > MAX_PACKETS {
            self.packets.pop_first();
        }
    }

    fn codec(&self, payload_type: PayloadType, is_rtx: bool) -> Option<Codec> {
        let fits = |binding: &&CodecBinding| match is_rtx {
            true => binding.rtx == Some(payload_type),
            false => binding.payload_type == payload_type,
        };
        self.codecs.iter().find(fits).map(|binding| binding.codec)
    }

    pub fn descriptor_faults(&self) -> Vec<(u64, Fault)> {
        match self.dependency_descriptor {
            Some(_) if !self.descriptors.is_empty() => {
                references::faults(&self.packets, &self.descriptors)
            }
            _ => Vec::new(),
        }
    }

    pub fn missing(&self) -> u64 {
        match (self.packets.first_key_value(), self.packets.last_key_value()) {
            (Some((first, _)), Some((last, _))) => last - first + 1 - self.packets.len() as u64,
            _ => 0,
        }
    }

    pub fn complete_frames(&self) -> usize {
        let mut complete = 0;
        // The number and timestamp of the last packet of a frame that is whole so far.
        let mut whole: Option<(u64, RtpTimestamp)> = None;
        let mut ended_at = None;
        for (&number, packet) in &self.packets {
            let continues = whole == Some((number - 1, packet.timestamp));
            let starts = packet
                .starts_frame
                .unwrap_or(ended_at == Some(number - 1) || packet.keyframe && whole.is_none());
            whole = (continues || starts).then_some((number, packet.timestamp));
            if packet.marker || packet.codec.kind() == parlor_model::TrackKind::Audio {
                complete += usize::from(whole.take().is_some());
                ended_at = Some(number);
            }
        }
        complete
    }
}

fn check(
    before_number: u64,
    before: &Packet,
    after_number: u64,
    after: &Packet,
    report: &mut impl FnMut(Fault),
) {
    let went = after.timestamp.distance(before.timestamp);
    let is_audio = before.codec.kind() == parlor_model::TrackKind::Audio;
    if went < 0 || is_audio && went == 0 {
        report(Fault::Timestamp);
    }
    match after_number - before_number - 1 {
        0 => check_neighbours(before, after, report),
        missing => check_across(before, after, missing, report),
    }
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
