//! Packets of a publisher, and what is agreed on about them.

use parlor_model::{
    Codec, CodecBinding, ExtensionIds, Feedback, Mid, PayloadType, ReceiveSection, ReceiveStream,
    RtpTimestamp, SendSection, SequenceNumber, Ssrc, SubscriptionId, TrackId, TrackKind,
};
use parlor_rtp::{
    HeaderFields,
    vp8::{Descriptor, PictureId, TemporalLayer},
    write_header,
};

const MID_ID: u8 = 4;
const TRANSPORT_CC_ID: u8 = 3;
const AUDIO_LEVEL_ID: u8 = 1;
const AUDIO_SSRC: u32 = 40;
const VIDEO_SSRC: u32 = 50;

/// What is measured: the two ends of the sizes that are met.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Media {
    /// Opus in datagrams of 100 bytes as they arrive, 50 a second.
    Audio,
    /// VP8 in datagrams of 1200 bytes as they arrive, 30 frames a second of 6 packets each.
    Video,
}

impl Media {
    /// Bytes of a sealed datagram as it arrives.
    pub fn datagram_bytes(self) -> usize {
        match self {
            Media::Audio => 100,
            Media::Video => 1200,
        }
    }

    /// Packets that arrive together.
    pub fn packets_per_burst(self) -> usize {
        match self {
            Media::Audio => 1,
            Media::Video => 6,
        }
    }

    /// Milliseconds between two bursts.
    pub fn interval_ms(self) -> u64 {
        match self {
            Media::Audio => 20,
            Media::Video => 33,
        }
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Media::Audio => "audio",
            Media::Video => "video",
        }
    }
}

fn binding(codec: Codec, payload_type: u8, rtx: Option<u8>) -> CodecBinding {
    CodecBinding {
        codec,
        payload_type: PayloadType(payload_type),
        rtx: rtx.map(PayloadType),
        variant: 0,
    }
}

const FEEDBACK: Feedback =
    Feedback { nack: true, pli: true, fir: true, transport_cc: true, remb: false };

fn mid(text: &str) -> Mid {
    Mid::new(text).unwrap()
}

/// A microphone and a camera, published by one peer.
pub fn published(first_track: u64) -> Vec<ReceiveSection> {
    let stream = ReceiveStream { rid: None, ssrc: None, rtx_ssrc: None, layer: 0 };
    let extensions = ExtensionIds {
        mid: Some(MID_ID),
        transport_cc: Some(TRANSPORT_CC_ID),
        ..ExtensionIds::default()
    };
    let audio = ReceiveSection {
        mid: mid("0"),
        track: TrackId(first_track),
        kind: TrackKind::Audio,
        codecs: vec![binding(Codec::Opus, 111, None), binding(Codec::Red, 63, None)],
        extensions: ExtensionIds { audio_level: Some(AUDIO_LEVEL_ID), ..extensions },
        feedback: FEEDBACK,
        streams: vec![stream],
    };
    let video = ReceiveSection {
        mid: mid("1"),
        track: TrackId(first_track + 1),
        kind: TrackKind::Video,
        codecs: vec![binding(Codec::Vp8, 96, Some(97)), binding(Codec::H264, 102, Some(103))],
        extensions,
        feedback: FEEDBACK,
        streams: vec![stream],
    };
    vec![audio, video]
}

/// Both tracks of [`published`], on their way to one subscriber, with the extensions that
/// Chromium agrees on.
pub fn subscribed(first_track: u64, first_subscription: u32) -> Vec<SendSection> {
    let extensions = ExtensionIds {
        mid: Some(MID_ID),
        transport_cc: Some(TRANSPORT_CC_ID),
        abs_send_time: Some(2),
        ..ExtensionIds::default()
    };
    let section = |name, at: u32, ssrc: u32, rtx_ssrc, codecs, extensions| SendSection {
        mid: mid(name),
        subscription: SubscriptionId(first_subscription + at),
        track: TrackId(first_track + u64::from(at)),
        ssrc: Ssrc(ssrc),
        rtx_ssrc,
        cname: "PA_1|TR_1".into(),
        codecs,
        extensions,
        feedback: FEEDBACK,
    };
    let with_level = ExtensionIds { audio_level: Some(AUDIO_LEVEL_ID), ..extensions };
    let (opus, vp8) = (binding(Codec::Opus, 109, None), binding(Codec::Vp8, 100, Some(101)));
    vec![
        section("0", 0, 1000, None, vec![opus], with_level),
        section("1", 1, 2000, Some(Ssrc(2001)), vec![vp8], extensions),
    ]
}

/// Where a publisher's streams have come to.
pub struct Source {
    audio_sequence: u16,
    video_sequence: u16,
    transport_sequence: u16,
    frames: u32,
    /// The next frame is a keyframe.
    pub wants_keyframe: bool,
}

impl Source {
    pub fn new() -> Self {
        Self {
            audio_sequence: 65_500,
            video_sequence: 7,
            transport_sequence: 0,
            frames: 0,
            wants_keyframe: true,
        }
    }

    /// The next packets in the clear, each of `len` bytes.
    pub fn next(&mut self, media: Media, len: usize) -> Vec<Vec<u8>> {
        match media {
            Media::Audio => vec![self.audio(len)],
            Media::Video => self.frame(len),
        }
    }

    fn audio(&mut self, len: usize) -> Vec<u8> {
        self.audio_sequence = self.audio_sequence.wrapping_add(1);
        let fields = HeaderFields {
            marker: false,
            payload_type: PayloadType(111),
            sequence_number: SequenceNumber(self.audio_sequence),
            timestamp: RtpTimestamp(u32::from(self.audio_sequence).wrapping_mul(960)),
            ssrc: Ssrc(AUDIO_SSRC),
        };
        let number = self.transport_number();
        let extensions: [(u8, &[u8]); 3] =
            [(MID_ID, b"0"), (TRANSPORT_CC_ID, &number), (AUDIO_LEVEL_ID, &[30])];
        let mut packet = vec![self.audio_sequence as u8; len];
        write_header(&mut packet, &fields, &extensions).unwrap();
        packet
    }

    fn frame(&mut self, len: usize) -> Vec<Vec<u8>> {
        self.frames += 1;
        let packets = Media::Video.packets_per_burst();
        (0..packets).map(|at| self.frame_packet(at, at + 1 == packets, len)).collect()
    }

    fn frame_packet(&mut self, at: usize, is_last: bool, len: usize) -> Vec<u8> {
        self.video_sequence = self.video_sequence.wrapping_add(1);
        let fields = HeaderFields {
            marker: is_last,
            payload_type: PayloadType(96),
            sequence_number: SequenceNumber(self.video_sequence),
            timestamp: RtpTimestamp(self.frames.wrapping_mul(3000)),
            ssrc: Ssrc(VIDEO_SSRC),
        };
        let number = self.transport_number();
        let extensions: [(u8, &[u8]); 2] = [(MID_ID, b"1"), (TRANSPORT_CC_ID, &number)];
        let mut packet = vec![self.video_sequence as u8; len];
        let header = write_header(&mut packet, &fields, &extensions).unwrap();
        let descriptor = Descriptor {
            start_of_partition: at == 0,
            picture_id: Some(PictureId { value: self.frames as u16 & 0x7fff, wide: true }),
            tl0_picture_index: Some(self.frames as u8),
            temporal: Some(TemporalLayer { id: 0, sync: false }),
            ..Descriptor::default()
        };
        let payload = &mut packet[header..];
        let descriptor_bytes = descriptor.write(payload).unwrap();
        // The P bit of the frame header is 0 in a keyframe.
        let is_keyframe = at == 0 && std::mem::take(&mut self.wants_keyframe);
        payload[descriptor_bytes] = u8::from(!is_keyframe);
        packet
    }

    fn transport_number(&mut self) -> [u8; 2] {
        self.transport_sequence = self.transport_sequence.wrapping_add(1);
        self.transport_sequence.to_be_bytes()
    }
}
