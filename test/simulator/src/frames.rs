//! Which frames of a received track are whole, and what became of them.

use parlor_client::ReceivedRtp;
use parlor_model::SequenceNumber;
use parlor_rtp::vp8;
use std::collections::BTreeMap;

/// Frames that are remembered while they are not whole.
const PENDING_MAX: usize = 64;

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
}

#[derive(Clone, Debug, Default)]
struct Pending {
    first: Option<SequenceNumber>,
    last: Option<SequenceNumber>,
    packets: u64,
    key: bool,
    done: bool,
}

impl Frames {
    pub(crate) fn handle(&mut self, is_video: bool, received: &ReceivedRtp<'_>) {
        if !received.is_new || received.payload.is_empty() {
            return;
        }
        self.packets += 1;
        if !is_video {
            self.complete += 1;
            return;
        }
        let frame = self.pending.entry(received.packet.timestamp().0).or_default();
        frame.packets += 1;
        if vp8::Descriptor::parse(received.payload).is_some_and(|d| d.starts_frame()) {
            frame.first = Some(received.sequence_number);
            frame.key = vp8::is_keyframe(received.payload);
        }
        if received.packet.marker() {
            frame.last = Some(received.sequence_number);
        }
        if let (Some(first), Some(last)) = (frame.first, frame.last)
            && !frame.done
            && i64::from(last.distance(first)) + 1 == frame.packets as i64
        {
            frame.done = true;
            self.complete += 1;
            self.keyframes += u64::from(frame.key);
        }
        while self.pending.len() > PENDING_MAX {
            self.pending.pop_first();
        }
    }
}
