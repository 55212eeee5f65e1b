//! Sections, and what a publisher sends in them.

use parlor_model::{
    Codec, CodecBinding, ExtensionIds, Feedback, Mid, NtpTime, PayloadType, ReceiveSection,
    ReceiveStream, Rid, RtpTimestamp, SendSection, SequenceNumber, Ssrc, SubscriptionId, TrackId,
    TrackKind,
};
use parlor_rtp::{
    HeaderFields, rtcp,
    vp8::{Descriptor, PictureId, TemporalLayer},
    write_header,
};

pub const MID_ID: u8 = 4;
pub const RID_ID: u8 = 10;
pub const RRID_ID: u8 = 11;
pub const TRANSPORT_CC_ID: u8 = 3;

pub fn binding(codec: Codec, payload_type: u8, rtx: Option<u8>) -> CodecBinding {
    CodecBinding {
        codec,
        payload_type: PayloadType(payload_type),
        rtx: rtx.map(PayloadType),
        variant: 0,
    }
}

const FEEDBACK: Feedback =
    Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: false };

pub fn audio_section(mid: &str, track: u64) -> ReceiveSection {
    ReceiveSection {
        mid: Mid::new(mid).unwrap(),
        track: TrackId(track),
        kind: TrackKind::Audio,
        codecs: vec![binding(Codec::Opus, 111, None), binding(Codec::Red, 63, None)],
        extensions: ExtensionIds {
            mid: Some(MID_ID),
            audio_level: Some(1),
            ..ExtensionIds::default()
        },
        feedback: Feedback { nack: true, ..Feedback::default() },
        streams: vec![ReceiveStream { rid: None, ssrc: None, rtx_ssrc: None, layer: 0 }],
    }
}

pub fn video_section(mid: &str, track: u64, rids: &[&str]) -> ReceiveSection {
    let stream = |rid: Option<&str>, layer| ReceiveStream {
        rid: rid.and_then(Rid::new),
        ssrc: None,
        rtx_ssrc: None,
        layer,
    };
    ReceiveSection {
        mid: Mid::new(mid).unwrap(),
        track: TrackId(track),
        kind: TrackKind::Video,
        codecs: vec![binding(Codec::Vp8, 96, Some(97)), binding(Codec::H264, 102, Some(103))],
        extensions: ExtensionIds {
            mid: Some(MID_ID),
            rid: Some(RID_ID),
            repaired_rid: Some(RRID_ID),
            transport_cc: Some(TRANSPORT_CC_ID),
            ..ExtensionIds::default()
        },
        feedback: FEEDBACK,
        streams: match rids {
            [] => vec![stream(None, 0)],
            rids => rids.iter().zip(0..).map(|(rid, layer)| stream(Some(rid), layer)).collect(),
        },
    }
}

pub fn audio_subscription(
    mid: &str,
    subscription: u32,
    track: u64,
    ssrc: u32,
    codecs: Vec<CodecBinding>,
) -> SendSection {
    SendSection {
        mid: Mid::new(mid).unwrap(),
        subscription: SubscriptionId(subscription),
        track: TrackId(track),
        ssrc: Ssrc(ssrc),
        rtx_ssrc: None,
        cname: "PA_1|TR_1".into(),
        codecs,
        extensions: ExtensionIds {
            mid: Some(MID_ID),
            audio_level: Some(1),
            transport_cc: Some(TRANSPORT_CC_ID),
            ..ExtensionIds::default()
        },
        feedback: Feedback { nack: true, ..Feedback::default() },
    }
}

pub fn video_subscription(mid: &str, subscription: u32, track: u64, ssrc: u32) -> SendSection {
    SendSection {
        mid: Mid::new(mid).unwrap(),
        subscription: SubscriptionId(subscription),
        track: TrackId(track),
        ssrc: Ssrc(ssrc),
        rtx_ssrc: Some(Ssrc(ssrc + 1)),
        cname: "PA_1|TR_1".into(),
        codecs: vec![binding(Codec::H264, 108, Some(109)), binding(Codec::Vp8, 100, Some(101))],
        extensions: ExtensionIds {
            mid: Some(MID_ID),
            transport_cc: Some(TRANSPORT_CC_ID),
            abs_send_time: Some(2),
            ..ExtensionIds::default()
        },
        feedback: FEEDBACK,
    }
}

pub fn packet(
    ssrc: u32,
    payload_type: u8,
    sequence: u16,
    timestamp: u32,
    marker: bool,
    extensions: &[(u8, &[u8])],
    payload: &[u8],
) -> Vec<u8> {
    let mut out = vec![0; 1500];
    let fields = HeaderFields {
        marker,
        payload_type: PayloadType(payload_type),
        sequence_number: SequenceNumber(sequence),
        timestamp: RtpTimestamp(timestamp),
        ssrc: Ssrc(ssrc),
    };
    let len = write_header(&mut out, &fields, extensions).unwrap();
    out[len..len + payload.len()].copy_from_slice(payload);
    out.truncate(len + payload.len());
    out
}

/// Opus packets of 20 ms.
pub struct AudioSource {
    pub ssrc: u32,
    pub mid: &'static str,
    pub sequence: u16,
    pub timestamp: u32,
}

impl AudioSource {
    pub fn new(ssrc: u32, mid: &'static str) -> Self {
        Self { ssrc, mid, sequence: 65_500, timestamp: u32::MAX - 10_000 }
    }

    pub fn next(&mut self) -> Vec<u8> {
        let payload = [self.sequence as u8; 80];
        let mid = self.mid.as_bytes();
        let level = [0x80 | 30];
        let extensions = [(MID_ID, mid), (1, &level[..])];
        let packet =
            packet(self.ssrc, 111, self.sequence, self.timestamp, false, &extensions, &payload);
        self.sequence = self.sequence.wrapping_add(1);
        self.timestamp = self.timestamp.wrapping_add(960);
        packet
    }
}

/// What a video payload says about itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content {
    pub ssrc: u32,
    pub frame: u32,
    pub at: u8,
}

impl Content {
    fn to_bytes(self) -> [u8; 9] {
        let mut bytes = [0; 9];
        bytes[..4].copy_from_slice(&self.ssrc.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.frame.to_be_bytes());
        bytes[8] = self.at;
        bytes
    }

    pub fn of(payload: &[u8]) -> Option<Self> {
        let len = Descriptor::parse(payload)?.len;
        let bytes = payload.get(len + 1..len + 10)?;
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        Some(Self { ssrc: word(0), frame: word(4), at: bytes[8] })
    }
}

/// VP8 frames at 30 a second; one layer of a camera.
pub struct VideoSource {
    pub ssrc: u32,
    pub mid: &'static str,
    pub rid: Option<&'static str>,
    pub sequence: u16,
    pub timestamp: u32,
    pub picture_id: u16,
    pub tl0: u8,
    pub frames: u32,
    pub packets_per_frame: usize,
    pub transport_sequence: bool,
}

impl VideoSource {
    pub fn new(ssrc: u32, mid: &'static str, rid: Option<&'static str>) -> Self {
        Self {
            ssrc,
            mid,
            rid,
            sequence: (ssrc as u16).wrapping_mul(7919).wrapping_sub(20),
            timestamp: u32::MAX - 20_000 - ssrc * 1000,
            picture_id: 0x7ff0 + ssrc as u16 % 8,
            tl0: 250,
            frames: 0,
            packets_per_frame: 3,
            transport_sequence: true,
        }
    }

    /// The packets of the next frame; `transport` is the transport-wide counter of its sender.
    pub fn next(&mut self, keyframe: bool, transport: &mut u16) -> Vec<Vec<u8>> {
        let is_base = keyframe || self.frames.is_multiple_of(2);
        if is_base {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        let last = self.packets_per_frame - 1;
        let packets = (0..=last)
            .map(|at| {
                let descriptor = Descriptor {
                    start_of_partition: at == 0,
                    picture_id: Some(PictureId { value: self.picture_id & 0x7fff, wide: true }),
                    tl0_picture_index: Some(self.tl0),
                    temporal: Some(TemporalLayer { id: u8::from(!is_base), sync: false }),
                    ..Descriptor::default()
                };
                let mut payload = vec![self.frames as u8; 1000];
                let len = descriptor.write(&mut payload).unwrap();
                // The P bit of the frame header: 0 in a keyframe.
                payload[len] = if keyframe && at == 0 { 0 } else { 1 };
                // Which packet of which frame of which source it is.
                let name = Content { ssrc: self.ssrc, frame: self.frames, at: at as u8 };
                payload[len + 1..len + 10].copy_from_slice(&name.to_bytes());
                let number = transport.to_be_bytes();
                let mut extensions: Vec<(u8, &[u8])> = vec![(MID_ID, self.mid.as_bytes())];
                if self.transport_sequence {
                    extensions.push((TRANSPORT_CC_ID, &number));
                    *transport = transport.wrapping_add(1);
                }
                if let Some(rid) = self.rid {
                    extensions.push((RID_ID, rid.as_bytes()));
                }
                let sequence = self.sequence.wrapping_add(at as u16);
                packet(self.ssrc, 96, sequence, self.timestamp, at == last, &extensions, &payload)
            })
            .collect();
        self.sequence = self.sequence.wrapping_add(self.packets_per_frame as u16);
        self.timestamp = self.timestamp.wrapping_add(3000);
        self.picture_id = self.picture_id.wrapping_add(1);
        self.frames += 1;
        packets
    }
}

/// A retransmission of a packet, as a publisher would send it.
pub fn retransmit(
    original: &[u8],
    ssrc: u32,
    payload_type: u8,
    sequence: u16,
    rid: Option<&str>,
) -> Vec<u8> {
    let original = parlor_rtp::RtpPacket::parse(original).unwrap();
    let payload = [&original.sequence_number().0.to_be_bytes()[..], original.payload()].concat();
    let mid = original.extension(MID_ID).unwrap();
    let mut extensions = vec![(MID_ID, mid)];
    let descriptor = super::layered::DESCRIPTOR_ID;
    extensions.extend(original.extension(descriptor).map(|data| (descriptor, data)));
    if let Some(rid) = rid {
        extensions.push((RRID_ID, rid.as_bytes()));
    }
    packet(
        ssrc,
        payload_type,
        sequence,
        original.timestamp().0,
        original.marker(),
        &extensions,
        &payload,
    )
}

pub fn sender_report(ssrc: u32, ntp_s: f64, timestamp: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let info = rtcp::SenderInfo {
        ntp: NtpTime((ntp_s * 4_294_967_296.0) as u64),
        rtp_timestamp: RtpTimestamp(timestamp),
        packet_count: 1,
        octet_count: 1,
    };
    rtcp::write_sender_report(&mut out, Ssrc(ssrc), &info, &[]);
    out
}
