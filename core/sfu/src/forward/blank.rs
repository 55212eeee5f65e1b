//! Silence of our own after the last packet of a muted or disabled track, so that nothing of it
//! lingers at the listener.

use std::time::{Duration, Instant};

use parlor_model::{Codec, RtpTimestamp, SequenceNumber};
use parlor_rtp::{HeaderFields, write_header};

use super::{
    OutgoingCodec, Subscription, munger::Munger, red::Redundancy, sent::SentPacket, write::Written,
};

/// How long one silent frame lasts.
pub const FRAME: Duration = Duration::from_millis(20);
/// Silent frames after a mute: one second, as in LiveKit.
pub const FRAMES: u8 = 50;
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

/// Silence that is being sent.
#[derive(Clone, Copy, Debug)]
pub struct Silence {
    pub due: Instant,
    left: u8,
}

impl Silence {
    pub fn new(now: Instant) -> Self {
        Self { due: now, left: FRAMES }
    }
}

impl Subscription {
    /// The number of the next silent frame, if one is due. It has no source; its codec is that of the packet
    /// before.
    pub fn next_silence(&mut self, now: Instant, now_ms: u32) -> Option<u64> {
        let silence = self.silence.as_mut().filter(|silence| silence.due <= now)?;
        silence.due += FRAME;
        silence.left -= 1;
        if silence.left == 0 {
            self.silence = None;
        }
        let codec_index = self.last_codec;
        self.codec(codec_index)?;
        let (number, timestamp) = Munger::insert(&mut self.munger, now, FRAME)?;
        let sent = SentPacket::blank(number, timestamp, codec_index, now_ms);
        self.sent.insert(number, sent, now_ms).then_some(number)
    }
}

/// Writes a silent frame as plaintext; `None` for a codec that has none.
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
        _ => return None,
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
    for part in [label.as_ref().map_or(&[][..], |label| &label[..]), frame, trailer] {
        out.get_mut(at..at + part.len())?.copy_from_slice(part);
        at += part.len();
    }
    let (ssrc, index) = (subscription.section.ssrc, number);
    Some(Written { header_bytes, bytes: at, rest: &[], ssrc, index })
}
