//! What has left on one outgoing stream, for retransmissions and against doubles.

use parlor_rtp::extension::AbsSendTime;

use super::munger::Munged;
use crate::receive::frame::Indices;

/// Times that one packet is sent again.
pub const MAX_RESENDS: u8 = 5;

/// Entries at first; they double while they turn over in less than [`KEPT_MS`].
const MIN_ENTRIES: usize = 32;
const KEPT_MS: u32 = 1000;

/// One packet that has left: what does not follow from its source. The bytes are in the history
/// of its source. Of numbers that grow for ever the low half is kept: far more than any window.
#[derive(Clone, Copy, Debug)]
pub struct SentPacket {
    number: u32,
    source: u32,
    pub timestamp: u32,
    /// See [`super::select::Selection::active`].
    pub active: u32,
    pub indices: Indices,
    /// What was written into header extensions when it left, for an equal copy on the same SSRC.
    pub transport_sequence: u16,
    abs_send_time: [u8; 3],
    stream: u8,
    /// When it left first or again, since the shard began.
    sent_ms: u16,
    /// [`MARKER`], [`BLANK`], [`PADDED`], and above [`ADDED_SHIFT`] what redundancy was added, or the codec.
    flags: u8,
    resends: u8,
}

const MARKER: u8 = 1;
const BLANK: u8 = 2;
const PADDED: u8 = 4;
const ADDED_SHIFT: u8 = 3;

/// What [`SentPacket::new`] is made from.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    pub stream: u8,
    /// Its number in the source's history.
    pub number: u64,
    /// What redundancy was added: see [`super::red::choose_added`].
    pub added: u8,
}

impl SentPacket {
    /// A packet of a source.
    #[inline]
    pub fn new(munged: &Munged, source: Source) -> Self {
        Self {
            number: munged.number as u32,
            source: source.number as u32,
            timestamp: munged.timestamp,
            active: munged.active,
            indices: munged.indices,
            transport_sequence: 0,
            abs_send_time: [0; 3],
            stream: source.stream,
            sent_ms: 0,
            flags: u8::from(munged.marker) | source.added << ADDED_SHIFT,
            resends: 0,
        }
    }

    /// The same packet of a source as another subscription has it.
    #[inline]
    pub fn renumbered(&self, number: u64, timestamp: u32, indices: Indices) -> Self {
        Self { number: number as u32, timestamp, indices, ..*self }
    }

    /// A silent frame, in the codec at this position of the source's list.
    pub fn blank(number: u64, timestamp: u32, codec_index: u8) -> Self {
        let indices = Indices::default();
        let munged = Munged { number, timestamp, marker: true, indices, active: 0 };
        let source = Source { stream: 0, number: 0, added: codec_index };
        let sent = Self::new(&munged, source);
        Self { flags: sent.flags | BLANK, ..sent }
    }

    /// The position of a silent frame's codec; `None` for a packet of a source.
    #[inline]
    pub fn blank_codec(&self) -> Option<u8> {
        (self.flags & BLANK != 0).then_some(self.flags >> ADDED_SHIFT)
    }

    #[inline]
    pub fn is_blank(&self) -> bool {
        self.flags & BLANK != 0
    }

    #[inline]
    pub fn marker(&self) -> bool {
        self.flags & MARKER != 0
    }

    #[inline]
    pub fn added(&self) -> u8 {
        self.flags >> ADDED_SHIFT
    }

    /// The stream that it came from.
    #[inline]
    pub fn stream(&self) -> usize {
        usize::from(self.stream)
    }

    /// Its number in the history of its source, whose highest number is given.
    #[inline]
    pub fn source(&self, highest: u64) -> u64 {
        highest.wrapping_sub(u64::from((highest as u32).wrapping_sub(self.source)))
    }

    /// As it leaves.
    #[inline]
    pub fn stamped(&self, transport_sequence: u16, time: AbsSendTime, now_ms: u32) -> Self {
        let (abs_send_time, sent_ms) = (time.to_bytes(), now_ms as u16);
        Self { transport_sequence, abs_send_time, sent_ms, ..*self }
    }

    #[inline]
    pub fn set_abs_send_time(&mut self, time: AbsSendTime) {
        self.abs_send_time = time.to_bytes();
    }

    /// The bytes on the wire.
    #[inline]
    pub fn abs_send_time(&self) -> [u8; 3] {
        self.abs_send_time
    }

    /// Padding behind the payload of an audio packet, in bytes. Audio has no descriptor whose
    /// indices are rewritten: it stands in their place.
    #[inline]
    pub fn audio_padding(&self) -> u8 {
        if self.flags & PADDED != 0 { self.indices.key_index } else { 0 }
    }

    /// Sets [`Self::audio_padding`].
    pub fn set_audio_padding(&mut self, padding: u8) {
        if padding > 0 {
            self.flags |= PADDED;
            self.indices.key_index = padding;
        }
    }

    /// How long ago it left, or left again, in milliseconds; it wraps each minute.
    pub fn age_ms(&self, now_ms: u32) -> u16 {
        (now_ms as u16).wrapping_sub(self.sent_ms)
    }

    pub fn was_resent(&self) -> bool {
        self.resends > 0
    }

    /// It leaves once more.
    pub fn note_resend(&mut self, now_ms: u32) {
        self.resends += 1;
        self.sent_ms = now_ms as u16;
    }
}

/// The newest packets of one outgoing stream: a ring by number.
#[repr(C)]
pub struct SentPackets {
    max_entries: usize,
    /// When the ring went round last, or grew, and the number then.
    turned: (u32, u64),
    floor: u64,
    highest: u64,
    /// As many as a power of two. In a place that is empty stands a number of another place.
    entries: Vec<SentPacket>,
}

impl SentPackets {
    /// Keeps at most this many packets, a power of two.
    pub fn new(max_entries: usize) -> Self {
        Self { entries: Vec::new(), max_entries, turned: (0, 0), highest: 0, floor: 0 }
    }

    /// Remembers a packet that leaves, stamped, under its number. `None` when that has left before, or is
    /// too old to tell.
    #[inline(always)]
    #[must_use]
    pub fn insert(
        &mut self,
        number: u64,
        packet: &SentPacket,
        now_ms: u32,
    ) -> Option<&mut SentPacket> {
        let turns = (number ^ self.highest) > self.mask();
        if number != self.highest + 1 || turns || self.entries.is_empty() {
            if !self.make_place(number, now_ms) {
                return None;
            }
        } else {
            self.highest = number;
        }
        let slot = self.slot(number);
        let place = self.entries.get_mut(slot)?;
        *place = *packet;
        place.number = number as u32;
        Some(place)
    }

    /// Makes a place for a packet that does not follow the one before, or with which the ring has
    /// gone round.
    #[inline(never)]
    fn make_place(&mut self, number: u64, now_ms: u32) -> bool {
        if self.entries.is_empty() {
            self.entries = empty(MIN_ENTRIES.min(self.max_entries));
            (self.turned, self.highest, self.floor) = ((now_ms, number), number, number);
        }
        if number < self.oldest() || number <= self.highest && self.get_mut(number).is_some() {
            return false;
        }
        if number > self.highest {
            self.advance(number, now_ms);
        }
        true
    }

    /// The newest packet whose number ends with these 16 bits, with its number.
    pub fn find(&mut self, sequence: u16) -> Option<(u64, &mut SentPacket)> {
        let behind = (self.highest as u16).wrapping_sub(sequence);
        let number = self.highest.checked_sub(u64::from(behind))?;
        Some((number, self.get_mut(number)?))
    }

    /// The highest number that has left, forgotten or not.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// The number of the newest packet.
    pub fn newest(&mut self) -> Option<u64> {
        let highest = self.highest;
        self.get_mut(highest).map(|_| highest)
    }

    /// The packet of this number.
    #[inline]
    pub fn get_mut(&mut self, number: u64) -> Option<&mut SentPacket> {
        let slot = self.slot(number);
        let entry = self.entries.get_mut(slot)?;
        (entry.number == number as u32 && number >= self.floor).then_some(entry)
    }

    /// Forgets all packets, not their numbers.
    pub fn clear(&mut self) {
        self.floor = self.highest + 1;
    }

    #[inline]
    fn mask(&self) -> u64 {
        (self.entries.len() as u64).wrapping_sub(1)
    }

    #[inline]
    fn slot(&self, number: u64) -> usize {
        (number & self.mask()) as usize
    }

    /// Moves on to a new highest number.
    #[inline]
    fn advance(&mut self, number: u64, now_ms: u32) {
        if (number ^ self.highest) > self.mask() {
            self.turn(number, now_ms);
        }
        self.highest = number;
    }

    /// What is older has left, or may have.
    fn oldest(&self) -> u64 {
        self.floor.max((self.highest + 1).saturating_sub(self.entries.len() as u64))
    }

    /// The ring has gone round: one that turns too fast doubles.
    fn turn(&mut self, number: u64, now_ms: u32) {
        let (turned_ms, turned_number) = self.turned;
        let elapsed_ms = u64::from(now_ms.wrapping_sub(turned_ms));
        let (places, since) = (self.entries.len() as u64, number - turned_number);
        let turned_fast = elapsed_ms.saturating_mul(places) < u64::from(KEPT_MS) * since;
        self.turned = (now_ms, number);
        self.floor = self.oldest();
        if turned_fast && self.entries.len() < self.max_entries {
            let larger = empty(self.entries.len() * 2);
            let mut old = std::mem::replace(&mut self.entries, larger);
            for number in self.floor..=self.highest {
                let slot = number as usize & (old.len() - 1);
                if let Some(packet) = old.get_mut(slot).filter(|old| old.number == number as u32) {
                    let packet = *packet;
                    let slot = self.slot(number);
                    if let Some(place) = self.entries.get_mut(slot) {
                        *place = packet;
                    }
                }
            }
        }
    }
}

/// Places in which no number is that of a packet there.
fn empty(len: usize) -> Vec<SentPacket> {
    let packet = |slot: usize| SentPacket::blank(slot as u64 ^ 1, 0, 0);
    (0..len).map(packet).collect()
}

/// When a packet may be sent again: one round trip after it was sent again before.
pub fn may_resend(packet: &SentPacket, now_ms: u32, round_trip_ms: u32) -> bool {
    let age_ms = u32::from(packet.age_ms(now_ms));
    packet.resends < MAX_RESENDS && (packet.resends == 0 || age_ms >= round_trip_ms.clamp(10, 100))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(number: u64) -> SentPacket {
        SentPacket::blank(number, 0, 0)
    }

    fn insert(sent: &mut SentPackets, number: u64, now_ms: u32) -> bool {
        sent.insert(number, &packet(number), now_ms).is_some()
    }

    #[test]
    fn a_number_leaves_once() {
        let mut sent = SentPackets::new(64);
        for number in 1000..3000 {
            assert!(insert(&mut sent, number, number as u32));
            assert!(!insert(&mut sent, number, number as u32));
        }
        assert_eq!(sent.entries.len(), 64);
        for number in 0..3000 {
            assert!(!insert(&mut sent, number, 3000), "{number}");
        }
        assert_eq!(sent.find(2999).map(|(number, _)| number), Some(2999));
        assert!(sent.find(2999 - 64).is_none());
        sent.clear();
        assert!(sent.find(2999).is_none());
        assert!(!insert(&mut sent, 2999, 0));
    }

    #[test]
    fn a_number_that_was_passed_over_may_leave_later() {
        let mut sent = SentPackets::new(64);
        // Zero is of no place, and is none of an empty ring's.
        for number in [0, 1, 5, 3, 40, 2, 39] {
            assert!(insert(&mut sent, number, 0), "{number}");
            assert!(!insert(&mut sent, number, 0), "{number}");
        }
        // The ring has doubled; what was in it still is.
        for number in [5, 3, 40, 2, 39] {
            assert_eq!(sent.find(number).map(|(number, _)| number), Some(u64::from(number)));
        }
        assert!(sent.find(4).is_none());
    }

    #[test]
    fn an_entry_is_small_and_says_what_it_was_made_of() {
        assert_eq!(size_of::<SentPacket>(), 32);
        let (indices, highest) = (Indices::default(), (7 << 32) + 5);
        let munged = Munged { number: 9, timestamp: 1, marker: true, indices, active: 0 };
        for number in [highest, highest - 5, highest - 6, highest - 1000] {
            let sent = SentPacket::new(&munged, Source { stream: 3, number, added: 3 });
            assert_eq!((sent.source(highest), sent.stream()), (number, 3));
            assert_eq!((sent.marker(), sent.added(), sent.blank_codec()), (true, 3, None));
        }
        assert_eq!(SentPacket::blank(1, 2, 31).blank_codec(), Some(31));
    }

    #[test]
    fn a_packet_is_resent_once_a_round_trip_and_not_for_ever() {
        let mut one = packet(1);
        assert!(may_resend(&one, 101, 50));
        one.note_resend(65_500);
        assert!(!may_resend(&one, 65_549, 50));
        assert!(may_resend(&one, 65_550, 50));
        one.resends = MAX_RESENDS;
        assert!(!may_resend(&one, 9999, 50));
    }
}
