//! Frames of our own: silence after the last packet of a muted or disabled sound, so that nothing
//! of it lingers at the listener, silence in place of a sound that was muted all along, so that a
//! client comes to know of it, and black pictures at the end of a video.

use std::time::{Duration, Instant};

use parlor_model::{Codec, RtpTimestamp, SequenceNumber};
use parlor_rtp::{HeaderFields, vp8, write_header};

use super::{
    OutgoingCodec, Subscription, munger::Munger, red::Redundancy, sent::SentPacket, write::Written,
};

/// How long one silent frame lasts.
pub const FRAME: Duration = Duration::from_millis(20);
/// Silent frames after a mute: one second, as in LiveKit.
pub const FRAMES: u8 = 50;
/// How long a sound that was muted when it was subscribed to is waited for, as in LiveKit.
const INTRODUCTION_DELAY: Duration = Duration::from_millis(100);
/// Silent frames in its place: five seconds.
pub const INTRODUCTION_FRAMES: u8 = 250;
/// How long one black picture lasts, and how many end a video, as in LiveKit.
const PICTURE: Duration = Duration::from_micros(33_333);
pub const PICTURES: u8 = 6;
/// RFC 6464: nothing to be heard.
const NO_SOUND: u8 = 127;

/// Opus, 20 ms of silence. Clients that decrypt know these bytes for not being encrypted.
const OPUS: [u8; 80] = {
    let mut frame = [0; 80];
    [frame[0], frame[1], frame[2]] = [0xf8, 0xff, 0xfe];
    frame
};
const PCMU: [u8; 160] = [0xff; 160];
const PCMA: [u8; 160] = [0xd5; 160];

/// A black VP8 keyframe of 16x16 pixels, as libvpx codes it.
const VP8: [u8; 31] = [
    0x10, 0x02, 0x00, 0x9d, 0x01, 0x2a, 0x10, 0x00, 0x10, 0x00, 0x00, 0x07, 0x08, 0x85, 0x85, 0x88,
    0x99, 0x84, 0x88, 0x01, 0x24, 0x10, 0x00, 0x60, 0x6b, 0x00, 0xfe, 0xff, 0xab, 0x50, 0x80,
];
/// The same in H264 constrained baseline, as OpenH264 codes it: SPS, PPS and IDR in one STAP-A
/// (RFC 6184 section 5.7.1).
const H264: [u8; 43] = [
    0x78, 0x00, 0x10, 0x67, 0x42, 0xc0, 0x0a, 0x8c, 0x8d, 0x4e, 0x4d, 0x40, 0x40, 0x40, 0x41, 0xe1,
    0x10, 0x8d, 0x40, 0x00, 0x04, 0x68, 0xce, 0x3c, 0x80, 0x00, 0x10, 0x65, 0xb8, 0x00, 0x04, 0x00,
    0x00, 0x09, 0xff, 0xff, 0xf8, 0x7a, 0x28, 0x00, 0x08, 0x27, 0xfc,
];

/// The same in VP9 profile 0, as libvpx codes it.
const VP9: [u8; 26] = [
    0x83, 0x49, 0x83, 0x42, 0x00, 0x00, 0xf0, 0x00, 0xf1, 0x90, 0xe0, 0x90, 0x70, 0x66, 0x40, 0x00,
    0x00, 0x80, 0x40, 0x00, 0x10, 0xbf, 0xf9, 0x33, 0x80, 0x00,
];
/// The same in AV1 main profile, as SVT-AV1 codes it: aggregation header, sequence header and frame,
/// without their sizes (AV1 RTP specification, section 4).
const AV1: [u8; 29] = [
    0x28, 0x0b, 0x08, 0x00, 0x00, 0x00, 0x01, 0x9f, 0xf8, 0x95, 0xf2, 0x00, 0x80, 0x30, 0x10, 0x00,
    0xda, 0x80, 0xe3, 0x87, 0x1c, 0x10, 0x00, 0x00, 0x01, 0xc0, 0x2b, 0xb9, 0x20,
];
/// The same in H265 main profile, as x265 codes it: VPS, SPS, PPS and IDR in one aggregation packet
/// (RFC 7798 section 4.4.2).
const H265: [u8; 87] = [
    0x60, 0x01, 0x00, 0x18, 0x40, 0x01, 0x0c, 0x01, 0xff, 0xff, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00,
    0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x1e, 0xba, 0x02, 0x40, 0x00, 0x26, 0x42, 0x01,
    0x01, 0x01, 0x60, 0x00, 0x00, 0x03, 0x00, 0x90, 0x00, 0x00, 0x03, 0x00, 0x00, 0x03, 0x00, 0x1e,
    0xa0, 0x88, 0x45, 0x96, 0xe9, 0x6f, 0x0b, 0x9a, 0x02, 0x00, 0x00, 0x03, 0x00, 0x02, 0x00, 0x00,
    0x03, 0x00, 0x3c, 0x10, 0x00, 0x06, 0x44, 0x01, 0xc0, 0x73, 0xc0, 0x89, 0x00, 0x09, 0x28, 0x01,
    0xac, 0x19, 0x60, 0x1b, 0xaf, 0xa0, 0xe0,
];

/// Whether a video of this codec can end in black pictures. Clients that decrypt know those of VP8
/// and H264 for not being encrypted, and no others.
pub fn has_picture(codec: Codec, is_encrypted: bool) -> bool {
    match codec {
        Codec::Vp8 | Codec::H264 => true,
        Codec::Vp9 | Codec::Av1 | Codec::H265 => !is_encrypted,
        _ => false,
    }
}

/// Frames of our own that are being sent.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    pub due: Instant,
    left: u8,
    frame: Duration,
}

impl Silence {
    /// After the last packet of a sound.
    pub fn new(now: Instant) -> Self {
        Self { due: now, left: FRAMES, frame: FRAME }
    }

    /// In place of a sound that was muted all along.
    pub fn introduction(now: Instant) -> Self {
        Self { due: now + INTRODUCTION_DELAY, left: INTRODUCTION_FRAMES, frame: FRAME }
    }

    /// After the last packet of a video.
    pub fn pictures(now: Instant) -> Self {
        Self { due: now, left: PICTURES, frame: PICTURE }
    }
}

impl Subscription {
    /// The next frame of our own with its number, if one is due. It has no source; its codec is
    /// that of the packet before.
    pub fn next_silence(&mut self, now: Instant) -> Option<(u64, SentPacket)> {
        let silence = self.silence.as_mut().filter(|silence| silence.due <= now)?;
        let frame = silence.frame;
        silence.due += frame;
        silence.left -= 1;
        if silence.left == 0 {
            self.silence = None;
        }
        let codec_index = self.last_codec;
        self.codec(codec_index)?;
        let munged = Munger::insert(&mut self.munger, now, frame);
        let mut sent = SentPacket::blank(munged.number, munged.timestamp, codec_index);
        sent.indices = munged.indices;
        Some((munged.number, sent))
    }
}

/// Writes a frame of our own as plaintext; `None` for a codec that has none.
pub fn write_silence(
    out: &mut [u8],
    subscription: &Subscription,
    (number, sent): (u64, &SentPacket),
    codec: Codec,
    outgoing: &OutgoingCodec,
    trailer: &[u8],
) -> Option<Written<'static>> {
    let inner = match outgoing.redundancy {
        Redundancy::Relabelled(opus) | Redundancy::Added(opus) => Some(opus),
        Redundancy::Untouched | Redundancy::Removed => None,
    };
    let frame = frame_of(codec, outgoing.redundancy)?;
    let ids = &subscription.section.extensions;
    let dependencies = match codec {
        Codec::Vp8 | Codec::Vp9 | Codec::Av1 => ids.dependency_descriptor,
        _ => None,
    };
    let [high, low] = sent.indices.frame_number.to_be_bytes();
    let alone = [WHOLE_FRAME, high, low, ALONE[0], ALONE[1], ALONE[2]];
    let mut descriptor = [0; MAX_DESCRIPTOR];
    let descriptor = match codec {
        // Beside a dependency descriptor the payload of VP8 says nothing of itself.
        Codec::Vp8 if dependencies.is_some() => &[0x10],
        Codec::Vp8 => write_vp8(&mut descriptor, sent)?,
        Codec::Vp9 => write_vp9(&mut descriptor, sent)?,
        _ => &[],
    };
    let transport_sequence = sent.transport_sequence.to_be_bytes();
    let abs_send_time = sent.abs_send_time();
    let all: [(Option<u8>, &[u8]); 5] = [
        (ids.mid, subscription.section.mid.as_bytes()),
        (ids.transport_cc, &transport_sequence),
        (ids.abs_send_time, &abs_send_time),
        (ids.audio_level, &[NO_SOUND]),
        (dependencies, &alone),
    ];
    let mut extensions: [(u8, &[u8]); 5] = [(0, &[]); 5];
    let mut count = 0;
    for (id, data) in all {
        if let (Some(id), Some(place)) = (id, extensions.get_mut(count)) {
            *place = (id, data);
            count += 1;
        }
    }
    let fields = HeaderFields {
        marker: sent.marker(),
        payload_type: outgoing.payload_type,
        sequence_number: SequenceNumber(number as u16),
        timestamp: RtpTimestamp(sent.timestamp),
        ssrc: subscription.section.ssrc,
    };
    let header_bytes = write_header(out, &fields, extensions.get(..count)?)?;
    let mut at = header_bytes;
    // A RED payload of one frame begins with its payload type.
    let label = inner.map(|opus| [opus.0 & 0x7f]);
    let label = label.as_ref().map_or(&[][..], |label| &label[..]);
    for part in [label, descriptor, frame, trailer] {
        out.get_mut(at..at + part.len())?.copy_from_slice(part);
        at += part.len();
    }
    let (ssrc, index) = (subscription.section.ssrc, number);
    Some(Written { header_bytes, bytes: at, rest: &[], ssrc, index })
}

/// What a frame of our own is in a codec; `None` where there is none.
fn frame_of(codec: Codec, redundancy: Redundancy) -> Option<&'static [u8]> {
    Some(match codec {
        Codec::Red if redundancy == Redundancy::Untouched => return None,
        Codec::Opus | Codec::Red => &OPUS,
        Codec::Pcmu => &PCMU,
        Codec::Pcma => &PCMA,
        Codec::Vp8 => &VP8,
        Codec::Vp9 => &VP9,
        Codec::Av1 => &AV1,
        Codec::H264 => &H264,
        Codec::H265 => &H265,
    })
}

/// The first byte of a dependency descriptor: first and last packet of a frame of template 0.
const WHOLE_FRAME: u8 = 0xc0;
/// What follows the frame number in a dependency descriptor that brings a structure of one
/// template and one decode target, which may be joined here and has no chain.
const ALONE: [u8; 3] = [0x80, 0x00, 0xe0];

/// Longest payload descriptor that is written here.
const MAX_DESCRIPTOR: usize = 16;

/// The VP8 payload descriptor of a keyframe that goes on with the indices of the stream.
fn write_vp8<'a>(out: &'a mut [u8; MAX_DESCRIPTOR], sent: &SentPacket) -> Option<&'a [u8]> {
    let picture_id = vp8::PictureId { value: sent.indices.picture_id, wide: true };
    let descriptor = vp8::Descriptor {
        start_of_partition: true,
        picture_id: Some(picture_id),
        tl0_picture_index: Some(sent.indices.tl0_picture_index),
        temporal: Some(vp8::TemporalLayer { id: 0, sync: false }),
        ..vp8::Descriptor::default()
    };
    let len = descriptor.write(out)?;
    out.get(..len)
}

/// The VP9 payload descriptor of a whole keyframe in flexible mode, which needs no scalability
/// structure: flags I, L, F, B and E, the picture id and layer 0 (RFC 9628 section 4.2).
fn write_vp9<'a>(out: &'a mut [u8; MAX_DESCRIPTOR], sent: &SentPacket) -> Option<&'a [u8]> {
    const FLAGS: u8 = 0xbc;
    const WIDE: u8 = 0x80;
    let [high, low] = sent.indices.picture_id.to_be_bytes();
    let place = out.first_chunk_mut::<4>()?;
    *place = [FLAGS, high | WIDE, low, 0];
    Some(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_rtp::{
        dependency_descriptor::{DecodeTargetIndication, Descriptor},
        is_keyframe, vp9,
    };

    #[test]
    fn pictures_are_keyframes() {
        assert!(is_keyframe(Codec::H264, &H264));
        assert!(is_keyframe(Codec::H265, &H265));
        assert!(is_keyframe(Codec::Av1, &AV1));
        assert_eq!(VP8[0] & 1, 0, "the P bit of the frame header");
        let sent = SentPacket::blank(1, 2, 0);
        let mut descriptor = [0; MAX_DESCRIPTOR];
        let descriptor = write_vp9(&mut descriptor, &sent).unwrap();
        let payload = [descriptor, &VP9].concat();
        assert!(is_keyframe(Codec::Vp9, &payload));
        assert_eq!(vp9::Descriptor::parse(&payload).unwrap().len, descriptor.len());
    }

    #[test]
    fn a_picture_depends_on_nothing() {
        let descriptor = [WHOLE_FRAME, 0, 7, ALONE[0], ALONE[1], ALONE[2]];
        let read = Descriptor::parse(&descriptor, None).unwrap();
        assert!(read.structure_attached && read.start_of_frame && read.end_of_frame);
        assert_eq!((read.frame_number, read.frame_diffs.as_slice()), (7, &[][..]));
        assert_eq!(read.decode_targets.get(0), DecodeTargetIndication::Switch);
    }
}
