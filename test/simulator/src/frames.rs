//! Which frames of a received track are whole, which of them can be decoded, and how it goes on.

use parlor_checker::layered::Name;
use parlor_client::ReceivedRtp;
use parlor_model::{Codec, SequenceNumber, Ssrc};
use parlor_rtp::{is_keyframe, starts_frame, vp9};
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// Frames that are remembered while they are not whole.
const PENDING_MAX: usize = 64;
/// A decoder that lacks a frame for so long asks for a keyframe.
const PATIENCE: Duration = Duration::from_millis(300);
/// And does not ask again before.
const ASK_INTERVAL: Duration = Duration::from_millis(500);

/// Reassembles the frames of one received track.
#[derive(Clone, Debug, Default)]
pub struct Frames {
    pending: BTreeMap<u32, Pending>,
    /// Audio packets, or video frames of which every packet came.
    pub complete: u64,
    /// Keyframes among them.
    pub keyframes: u64,
    /// Media packets that came.
    pub packets: u64,
    /// Those that a decoder could use: all before them since a keyframe were whole.
    pub decoded: u64,
    /// Bytes of payload that came.
    pub bytes: u64,
    /// The stream that it comes in; another begins after the track was unsubscribed.
    ssrc: Option<Ssrc>,
    /// The number after the last packet that was decoded or was empty.
    next: Option<SequenceNumber>,
    /// Empty packets ahead, which take numbers only.
    empty: Vec<SequenceNumber>,
    /// Numbers that ended pictures lately.
    ends: VecDeque<SequenceNumber>,
    stuck_since: Option<Instant>,
    asked: Option<Instant>,
}

#[derive(Clone, Debug, Default)]
struct Pending {
    first: Option<SequenceNumber>,
    /// The first, if what came before ended a picture.
    begins: Option<SequenceNumber>,
    last: Option<SequenceNumber>,
    packets: u64,
    key: bool,
    done: bool,
}

fn before(number: SequenceNumber) -> SequenceNumber {
    SequenceNumber(number.0.wrapping_sub(1))
}

impl Frames {
    pub(crate) fn handle(&mut self, codec: Codec, now: Instant, received: &ReceivedRtp<'_>) {
        if !received.is_new {
            return;
        }
        let ssrc = Some(received.packet.ssrc());
        if !received.is_retransmission && self.ssrc != ssrc {
            (self.ssrc, self.next, self.stuck_since) = (ssrc, None, None);
            self.pending.clear();
            self.empty.clear();
            self.ends.clear();
        }
        if received.payload.is_empty() {
            self.empty.push(received.sequence_number);
            return self.decode(now);
        }
        self.packets += 1;
        self.bytes += received.payload.len() as u64;
        if codec.kind() == parlor_model::TrackKind::Audio {
            self.complete += 1;
            self.decoded += 1;
            return;
        }
        let frame = self.pending.entry(received.packet.timestamp().0).or_default();
        frame.packets += 1;
        let number = received.sequence_number;
        let (is_first, is_base) = match codec {
            Codec::Vp9 => vp9::Descriptor::parse(received.payload)
                .map_or((false, false), |d| (d.start_of_frame, d.spatial_layer() == 0)),
            Codec::Av1 | Codec::H264 => Name::read(received.payload)
                .map_or((false, false), |name| (name.at == 0, name.frame.2 == 0)),
            _ => (starts_frame(codec, received.payload).unwrap_or_default(), true),
        };
        if is_first && is_base {
            frame.first = Some(number);
            frame.key = is_keyframe(codec, received.payload);
        } else if is_first && frame.begins.is_none_or(|it| it.distance(number) > 0) {
            frame.begins = Some(number);
        }
        if received.packet.marker() {
            frame.last = Some(number);
            self.ends.push_back(number);
            if self.ends.len() > PENDING_MAX {
                self.ends.pop_front();
            }
        }
        self.complete_frames();
        self.decode(now);
        while self.pending.len() > PENDING_MAX {
            self.pending.pop_first();
        }
    }

    /// Notes what has become whole. Where layers depend on one another in keyframes only, those below
    /// may stay behind: a picture begins after the one before.
    fn complete_frames(&mut self) {
        for frame in self.pending.values_mut().filter(|frame| !frame.done) {
            let follows = |number: &SequenceNumber| self.ends.contains(&before(*number));
            frame.first = frame.first.or(frame.begins.filter(follows));
            if let (Some(first), Some(last)) = (frame.first, frame.last)
                && i64::from(last.distance(first)) + 1 == frame.packets as i64
            {
                frame.done = true;
                self.complete += 1;
                self.keyframes += u64::from(frame.key);
            }
        }
    }

    fn decode(&mut self, now: Instant) {
        while self.decode_next() {
            self.stuck_since = None;
        }
        let is_ahead = |frame: &Pending| match (self.next, frame.first.or(frame.last)) {
            (Some(next), Some(number)) => number.distance(next) >= 0,
            _ => true,
        };
        if self.pending.values().any(is_ahead) {
            self.stuck_since.get_or_insert(now);
        }
    }

    /// Takes the frame that follows, or else the newest whole keyframe.
    fn decode_next(&mut self) -> bool {
        if let Some(next) = self.next
            && let Some(place) = self.empty.iter().position(|number| *number == next)
        {
            self.empty.swap_remove(place);
            self.next = Some(SequenceNumber(next.0.wrapping_add(1)));
            return true;
        }
        let follows = |frame: &&Pending| frame.first == self.next && self.next.is_some();
        let is_after = |frame: &&Pending| match (self.next, frame.first) {
            (Some(next), Some(first)) => first.distance(next) > 0,
            _ => true,
        };
        let mut whole = self.pending.values().filter(|frame| frame.done);
        let following = whole.clone().find(follows);
        let key = || whole.rfind(|frame| frame.key && is_after(frame));
        let Some(last) = following.or_else(key).and_then(|frame| frame.last) else { return false };
        let next = SequenceNumber(last.0.wrapping_add(1));
        self.next = Some(next);
        self.decoded += 1;
        let is_left = |first: Option<SequenceNumber>| first.is_none_or(|it| it.distance(next) >= 0);
        self.pending.retain(|_, frame| is_left(frame.first) && is_left(frame.last));
        self.empty.retain(|number| number.distance(next) >= 0);
        true
    }

    /// Whether a decoder would ask for a keyframe now; says so once in a while.
    pub(crate) fn needs_keyframe(&mut self, now: Instant) -> bool {
        let is_stuck = self.stuck_since.is_some_and(|since| now >= since + PATIENCE);
        let may_ask = self.asked.is_none_or(|asked| now >= asked + ASK_INTERVAL);
        if is_stuck && may_ask {
            self.asked = Some(now);
        }
        is_stuck && may_ask
    }
}
