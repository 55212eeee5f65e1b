//! What has left on one outgoing stream, for retransmissions and against doubles.

use std::time::Instant;

use crate::receive::frame::Indices;

/// Times that one packet is sent again.
pub const MAX_RESENDS: u8 = 5;

/// Entries at first; they double while they turn over in less than [`KEPT_MS`].
const MIN_ENTRIES: usize = 32;
const KEPT_MS: u32 = 1500;

/// One packet that has left. The bytes are in the history of its source.
#[derive(Clone, Copy, Debug)]
pub struct SentPacket {
    /// Extended sequence number as it left.
    pub number: u64,
    /// Its number in the source's history.
    pub source: u64,
    pub stream: u8,
    pub timestamp: u32,
    pub marker: bool,
    pub indices: Indices,
    /// See [`super::select::Selection::active`].
    pub active: u32,
    /// What was written into header extensions when it left, for an equal copy on the same SSRC.
    pub transport_sequence: u16,
    pub abs_send_time: u32,
    /// What redundancy was added: see [`super::red::choose_added`]. For a silent frame, see
    /// [`Self::blank_codec`].
    pub added: u8,
    pub resends: u8,
    /// When it left first or again, since the shard began.
    pub sent_ms: u32,
}

/// The source of a packet of our own.
const NO_SOURCE: u64 = u64::MAX;

impl SentPacket {
    /// A silent frame, in the codec at this position of the source's list.
    pub fn blank(number: u64, timestamp: u32, codec_index: u8, now_ms: u32) -> Self {
        Self {
            number,
            source: NO_SOURCE,
            stream: 0,
            timestamp,
            marker: true,
            indices: Indices::default(),
            active: 0,
            transport_sequence: 0,
            abs_send_time: 0,
            added: codec_index,
            resends: 0,
            sent_ms: now_ms,
        }
    }

    /// The position of a silent frame's codec; `None` for a packet of a source.
    pub fn blank_codec(&self) -> Option<u8> {
        (self.source == NO_SOURCE).then_some(self.added)
    }
}

/// The newest packets of one outgoing stream.
pub struct SentPackets {
    entries: Vec<Option<SentPacket>>,
    max_entries: usize,
    turned_ms: u32,
    highest: u64,
    floor: u64,
}

impl SentPackets {
    /// Keeps at most this many packets, a power of two.
    pub fn new(max_entries: usize) -> Self {
        Self { entries: Vec::new(), max_entries, turned_ms: 0, highest: 0, floor: 0 }
    }

    /// Remembers a packet. `false` when its number has left before, or is too old to tell.
    #[inline]
    #[must_use]
    pub fn insert(&mut self, packet: SentPacket) -> bool {
        if self.entries.is_empty() {
            self.entries = vec![None; MIN_ENTRIES.min(self.max_entries)];
            self.turned_ms = packet.sent_ms;
            self.highest = packet.number;
            self.floor = packet.number;
        }
        if packet.number < self.floor {
            return false;
        }
        if packet.number > self.highest {
            self.advance(packet.number, packet.sent_ms);
        }
        let slot = self.slot(packet.number);
        match self.entries.get_mut(slot) {
            Some(Some(entry)) if entry.number >= packet.number => false,
            Some(place) => {
                *place = Some(packet);
                true
            }
            None => false,
        }
    }

    /// The newest packet whose number ends with these 16 bits.
    pub fn find(&mut self, sequence: u16) -> Option<&mut SentPacket> {
        let behind = (self.highest as u16).wrapping_sub(sequence);
        let number = self.highest.checked_sub(u64::from(behind))?;
        self.get_mut(number)
    }

    /// The newest packet.
    pub fn newest(&mut self) -> Option<&mut SentPacket> {
        self.get_mut(self.highest)
    }

    /// The packet of this number.
    #[inline]
    pub fn get_mut(&mut self, number: u64) -> Option<&mut SentPacket> {
        let slot = self.slot(number);
        self.entries.get_mut(slot)?.as_mut().filter(|entry| entry.number == number)
    }

    /// Forgets all packets, not their numbers.
    pub fn clear(&mut self) {
        self.floor = self.highest + 1;
        self.entries.iter_mut().for_each(|entry| *entry = None);
    }

    fn slot(&self, number: u64) -> usize {
        (number & (self.entries.len() as u64).wrapping_sub(1)) as usize
    }

    fn advance(&mut self, number: u64, now_ms: u32) {
        let len = self.entries.len() as u64;
        if number / len != self.highest / len {
            let turned_fast = now_ms.wrapping_sub(self.turned_ms) < KEPT_MS;
            if turned_fast && self.entries.len() < self.max_entries {
                let old = std::mem::take(&mut self.entries);
                self.entries = vec![None; old.len() * 2];
                for entry in old.into_iter().flatten() {
                    let slot = self.slot(entry.number);
                    self.entries[slot] = Some(entry);
                }
            }
            self.turned_ms = now_ms;
        }
        self.highest = number;
        self.floor = self.floor.max((number + 1).saturating_sub(self.entries.len() as u64));
    }
}

/// When a packet may be sent again: one round trip after it was sent again before.
pub fn may_resend(packet: &SentPacket, now_ms: u32, round_trip_ms: u32) -> bool {
    packet.resends < MAX_RESENDS
        && (packet.resends == 0
            || now_ms.wrapping_sub(packet.sent_ms) >= round_trip_ms.clamp(10, 100))
}

/// Milliseconds since the shard began.
pub fn millis(epoch: Instant, now: Instant) -> u32 {
    now.saturating_duration_since(epoch).as_millis() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(number: u64, sent_ms: u32) -> SentPacket {
        SentPacket {
            number,
            source: number,
            stream: 0,
            timestamp: 0,
            marker: false,
            indices: Indices::default(),
            active: 0,
            transport_sequence: 0,
            abs_send_time: 0,
            added: 0,
            resends: 0,
            sent_ms,
        }
    }

    #[test]
    fn a_number_leaves_once() {
        let mut sent = SentPackets::new(64);
        for number in 1000..3000 {
            assert!(sent.insert(packet(number, number as u32)));
            assert!(!sent.insert(packet(number, number as u32)));
        }
        assert_eq!(sent.entries.len(), 64);
        for number in 0..3000 {
            assert!(!sent.insert(packet(number, 3000)), "{number}");
        }
        assert_eq!(sent.find(2999).map(|packet| packet.number), Some(2999));
        assert_eq!(sent.find(2999 - 64).map(|packet| packet.number), None);
        sent.clear();
        assert!(sent.find(2999).is_none());
        assert!(!sent.insert(packet(2999, 0)));
    }

    #[test]
    fn a_packet_is_resent_once_a_round_trip_and_not_for_ever() {
        let mut one = packet(1, 100);
        assert!(may_resend(&one, 101, 50));
        one.resends = 1;
        assert!(!may_resend(&one, 149, 50));
        assert!(may_resend(&one, 150, 50));
        one.resends = MAX_RESENDS;
        assert!(!may_resend(&one, 9999, 50));
    }
}
