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
    let frame = match codec {
        Codec::Opus => &OPUS[..],
        Codec::Red if outgoing.redundancy != Redundancy::Untouched => &OPUS[..],
        Codec::Pcmu => &PCMU[..],
        Codec::Pcma => &PCMA[..],
        Codec::Vp8 => &VP8[..],
        Codec::H264 => &H264[..],
        _ => return None,
    };
    let mut descriptor = [0; MAX_DESCRIPTOR];
    let descriptor = match codec {
        // Beside a dependency descriptor the payload of VP8 says nothing of itself.
        Codec::Vp8 if subscription.section.extensions.dependency_descriptor.is_some() => &[0x10],
        Codec::Vp8 => write_descriptor(&mut descriptor, sent)?,
        _ => &[],
    };
    let ids = &subscription.section.extensions;
    let transport_sequence = sent.transport_sequence.to_be_bytes();
    let abs_send_time = sent.abs_send_time();
    let all: [(Option<u8>, &[u8]); 4] = [
        (ids.mid, subscription.section.mid.as_bytes()),
        (ids.transport_cc, &transport_sequence),
        (ids.abs_send_time, &abs_send_time),
        (ids.audio_level, &[NO_SOUND]),
    ];
    let mut extensions: [(u8, &[u8]); 4] = [(0, &[]); 4];
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

/// Longest VP8 payload descriptor that is written here.
const MAX_DESCRIPTOR: usize = 16;

/// The VP8 payload descriptor of a keyframe that goes on with the indices of the stream.
fn write_descriptor<'a>(out: &'a mut [u8; MAX_DESCRIPTOR], sent: &SentPacket) -> Option<&'a [u8]> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_rtp::is_keyframe;

    #[test]
    fn pictures_are_keyframes() {
        assert!(is_keyframe(Codec::H264, &H264));
        assert_eq!(VP8[0] & 1, 0, "the P bit of the frame header");
    }
}
