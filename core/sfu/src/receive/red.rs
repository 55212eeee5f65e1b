//! Frames of lost packets, out of the redundancy of those that came after them (RFC 2198).

use std::time::Instant;

use parlor_model::{Codec, PayloadType, RtpTimestamp};
use parlor_rtp::red::{MAX_REDUNDANT_LEN, Red};

use super::{Stream, history::PacketParts};

/// Lost packets before a RED packet that are made up for from it at most, as in LiveKit.
pub const MAX_RECOVERED: usize = 2;

/// Numbers of recovered packets, ascending.
pub type Recovered = [Option<u64>; MAX_RECOVERED];

/// One frame out of a packet's redundancy.
struct Frame {
    payload_type: PayloadType,
    timestamp: u32,
    len: usize,
    bytes: [u8; 1 + MAX_REDUNDANT_LEN],
}

impl Stream {
    /// Puts the frames of the missing packets right before `number` into the history, as RED
    /// packets without redundancy of their own: nobody has to ask for these packets any more, and
    /// should one come after all, it is a duplicate.
    pub fn recover(&mut self, now: Instant, number: u64) -> Recovered {
        let mut recovered = [None; MAX_RECOVERED];
        let is_red = self.history.facts(number).is_some_and(|facts| facts.codec == Codec::Red);
        if !is_red {
            return recovered;
        }
        // The redundancy of a packet is that of the packets right before it, the oldest first.
        for (back, place) in (1..=MAX_RECOVERED as u64).zip(recovered.iter_mut().rev()) {
            let Some(missing) = number.checked_sub(back).filter(|at| self.is_missing(*at)) else {
                continue;
            };
            if self.recover_one(now, number, missing, back as usize).is_some() {
                *place = Some(missing);
            }
        }
        recovered
    }

    /// Whether a packet has not come although one before it has.
    fn is_missing(&self, number: u64) -> bool {
        self.history.facts(number).is_none() && self.first_number.is_some_and(|at| at < number)
    }

    fn recover_one(&mut self, now: Instant, number: u64, missing: u64, back: usize) -> Option<()> {
        let mut frame = self.redundant(number, back)?;
        let timestamp = RtpTimestamp(frame.timestamp);
        let is_after = |earlier: u64| {
            self.history
                .facts(earlier)
                .is_none_or(|facts| timestamp.distance(RtpTimestamp(facts.timestamp)) > 0)
        };
        // Redundancy that leaves a packet out belongs to another number than it seems to.
        let earlier = (1..=MAX_RECOVERED as u64 + 1).filter_map(|step| missing.checked_sub(step));
        if !earlier.into_iter().all(is_after) {
            return None;
        }
        if let Some(next) = self.history.facts(missing + 1)
            && timestamp.distance(RtpTimestamp(next.timestamp)) >= 0
        {
            return None;
        }
        let mut facts = *self.history.facts(number)?;
        facts.number = missing;
        facts.timestamp = frame.timestamp;
        facts.marker = false;
        facts.audio_level = None;
        *frame.bytes.first_mut()? = frame.payload_type.0 & 0x7f;
        let payload = frame.bytes.get(..=frame.len)?;
        let parts = PacketParts { payload, ..PacketParts::default() };
        self.history.insert(now, facts, &parts).ok()?;
        self.missing.remove(self.renumber.wire_number(missing));
        Some(())
    }

    /// The frame that lies `back` frames before a packet's own, with a byte free before it.
    fn redundant(&self, number: u64, back: usize) -> Option<Frame> {
        let (facts, parts) = self.history.get(number)?;
        let red = Red::parse(parts.payload).ok()?;
        let block = red.redundant().nth(red.redundant().count().checked_sub(back)?)?;
        if block.payload.is_empty() || block.timestamp_offset == 0 {
            return None;
        }
        let mut bytes = [0; 1 + MAX_REDUNDANT_LEN];
        bytes.get_mut(1..=block.payload.len())?.copy_from_slice(block.payload);
        Some(Frame {
            payload_type: block.payload_type,
            timestamp: facts.timestamp.wrapping_sub(u32::from(block.timestamp_offset)),
            len: block.payload.len(),
            bytes,
        })
    }
}
