//! The last packets of one received stream, kept once for all its subscribers.

use std::time::{Duration, Instant};

use parlor_model::Codec;

use super::frame::FrameFacts;

/// How long packets are kept while the bounds allow it.
const KEPT: Duration = Duration::from_millis(1000);

/// Bounds of a history. It starts small and doubles while it turns over faster than [`KEPT`].
#[derive(Clone, Copy, Debug)]
pub struct HistoryBounds {
    /// Packets kept at first and at most; powers of two.
    pub packets: (usize, usize),
    /// Bytes kept at first and at most; powers of two, each over [`crate::batch::SLOT_BYTES`].
    pub bytes: (usize, usize),
}

/// Bounds for a heard stream.
pub const AUDIO_BOUNDS: HistoryBounds =
    HistoryBounds { packets: (32, 256), bytes: (4 << 10, 64 << 10) };
/// Bounds for a seen stream. A keyframe comes at once and is paced: it must not leave before it was sent.
pub const VIDEO_BOUNDS: HistoryBounds =
    HistoryBounds { packets: (128, 1024), bytes: (128 << 10, 1 << 20) };

/// What is known of a packet beside its payload. Parsed once, read by every subscription.
#[derive(Clone, Copy, Debug)]
pub struct PacketFacts {
    /// Extended sequence number, packets of padding only left out.
    pub number: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub keyframe: bool,
    pub codec: Codec,
    /// Position of the codec in the section's list.
    pub codec_index: u8,
    /// What it says of its frame.
    pub frame: FrameFacts,
    /// `ssrc-audio-level`, as it came.
    pub audio_level: Option<u8>,
    /// `urn:3gpp:video-orientation`, as it came.
    pub video_orientation: Option<u8>,
    /// `playout-delay`, as it came.
    pub playout_delay: Option<[u8; 3]>,
    /// Whether it has header extensions of which most packets have none: all that are passed on
    /// but the audio level.
    pub has_rare_extensions: bool,
}

/// The parts of a packet that have a length of their own.
#[derive(Clone, Copy, Debug, Default)]
pub struct PacketParts<'a> {
    /// Dependency descriptor extension; empty when there is none.
    pub dependency_descriptor: &'a [u8],
    /// Absolute capture time extension; empty when there is none.
    pub abs_capture_time: &'a [u8],
    pub payload: &'a [u8],
}

#[derive(Clone, Copy)]
struct Entry {
    facts: PacketFacts,
    /// Position of the first byte, counted from the beginning of the stream.
    position: u64,
    dependency_descriptor_bytes: u8,
    abs_capture_time_bytes: u8,
    payload_bytes: u16,
}

impl Entry {
    #[inline]
    fn bytes(&self) -> usize {
        usize::from(self.dependency_descriptor_bytes)
            + usize::from(self.abs_capture_time_bytes)
            + usize::from(self.payload_bytes)
    }
}

/// Position of an entry that only remembers that its packet has come.
const BYTES_GONE: u64 = u64::MAX;

/// Why a packet was not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    Duplicate,
    TooOld,
    TooLong,
}

/// A ring of packets by number over a ring of their bytes.
pub struct History {
    bounds: HistoryBounds,
    entries: Vec<Option<Entry>>,
    bytes: Vec<u8>,
    /// Where the next packet goes, counted from the beginning of the stream.
    head: u64,
    highest: u64,
    /// Older numbers may have been here: they are refused.
    floor: u64,
    entries_turned: Option<Turn>,
    bytes_turned: Option<Turn>,
}

/// When a ring turned over last, or grew, and how far the stream had come.
#[derive(Clone, Copy)]
struct Turn {
    at: Instant,
    count: u64,
}

impl Turn {
    /// Whether so many places would turn over in less than [`KEPT`] at the rate since then.
    fn is_fast(self, now: Instant, count: u64, places: usize) -> bool {
        let elapsed = now.saturating_duration_since(self.at).as_micros();
        let since = u128::from(count.saturating_sub(self.count));
        elapsed * (places as u128) < KEPT.as_micros() * since
    }
}

impl History {
    pub fn new(bounds: HistoryBounds) -> Self {
        Self {
            bounds,
            entries: Vec::new(),
            bytes: Vec::new(),
            head: 0,
            highest: 0,
            floor: 0,
            entries_turned: None,
            bytes_turned: None,
        }
    }

    /// Keeps a packet.
    ///
    /// # Errors
    /// When it is there already, older than what is kept, or longer than a datagram.
    pub fn insert(
        &mut self,
        now: Instant,
        facts: PacketFacts,
        parts: &PacketParts<'_>,
    ) -> Result<(), Refused> {
        let (Ok(dependency_descriptor_bytes), Ok(abs_capture_time_bytes), Ok(payload_bytes)) = (
            u8::try_from(parts.dependency_descriptor.len()),
            u8::try_from(parts.abs_capture_time.len()),
            u16::try_from(parts.payload.len()),
        ) else {
            return Err(Refused::TooLong);
        };
        let mut entry = Entry {
            facts,
            position: 0,
            dependency_descriptor_bytes,
            abs_capture_time_bytes,
            payload_bytes,
        };
        if entry.bytes() > crate::batch::SLOT_BYTES {
            return Err(Refused::TooLong);
        }
        if self.entries.is_empty() {
            self.entries = vec![None; self.bounds.packets.0];
            self.bytes = vec![0; self.bounds.bytes.0];
            self.highest = facts.number;
            self.floor = (facts.number + 1).saturating_sub(self.entries.len() as u64);
            self.entries_turned = Some(Turn { at: now, count: facts.number });
            self.bytes_turned = Some(Turn { at: now, count: 0 });
        }
        if facts.number < self.floor {
            return Err(Refused::TooOld);
        }
        if self.entry(facts.number).is_some() {
            return Err(Refused::Duplicate);
        }
        if facts.number > self.highest {
            self.advance(now, facts.number);
        }
        entry.position = self.place(now, entry.bytes());
        let at = self.index(entry.position);
        let mut rest = self.bytes.get_mut(at..).unwrap_or(&mut []);
        for part in [parts.dependency_descriptor, parts.abs_capture_time, parts.payload] {
            let Some((place, after)) = rest.split_at_mut_checked(part.len()) else {
                return Err(Refused::TooLong);
            };
            place.copy_from_slice(part);
            rest = after;
        }
        let slot = self.slot(facts.number);
        if let Some(place) = self.entries.get_mut(slot) {
            *place = Some(entry);
        }
        Ok(())
    }

    #[inline(always)]
    fn find(&self, number: u64) -> Option<(&Entry, &[u8])> {
        let entry = self.entry(number)?;
        if self.head.checked_sub(entry.position)? > self.bytes.len() as u64 {
            return None;
        }
        let at = self.index(entry.position);
        Some((entry, self.bytes.get(at..at + entry.bytes())?))
    }

    /// A packet that is kept and whose payload is all of it that has a length.
    #[inline(always)]
    pub fn get_plain(&self, number: u64) -> Option<(&PacketFacts, &[u8])> {
        let (entry, payload) = self.find(number)?;
        let has_parts = entry.dependency_descriptor_bytes | entry.abs_capture_time_bytes != 0;
        if has_parts { None } else { Some((&entry.facts, payload)) }
    }

    /// A packet that is kept.
    #[inline]
    pub fn get(&self, number: u64) -> Option<(&PacketFacts, PacketParts<'_>)> {
        let (entry, bytes) = self.find(number)?;
        let descriptor_bytes = usize::from(entry.dependency_descriptor_bytes);
        let capture_time_bytes = usize::from(entry.abs_capture_time_bytes);
        if descriptor_bytes + capture_time_bytes == 0 {
            return Some((&entry.facts, PacketParts { payload: bytes, ..PacketParts::default() }));
        }
        let (dependency_descriptor, bytes) = bytes.split_at_checked(descriptor_bytes)?;
        let (abs_capture_time, payload) = bytes.split_at_checked(capture_time_bytes)?;
        Some((&entry.facts, PacketParts { dependency_descriptor, abs_capture_time, payload }))
    }

    /// What is known of a packet of which at least that is kept.
    #[inline]
    pub fn facts(&self, number: u64) -> Option<&PacketFacts> {
        self.entry(number).map(|entry| &entry.facts)
    }

    /// Says anew what a packet says of its frame, now that more is known.
    pub fn set_frame(&mut self, number: u64, frame: FrameFacts) {
        let slot = self.slot(number);
        if let Some(Some(entry)) = self.entries.get_mut(slot)
            && entry.facts.number == number
        {
            entry.facts.frame = frame;
            entry.facts.keyframe = frame.is_keyframe().unwrap_or(entry.facts.keyframe);
        }
    }

    /// The highest number so far.
    pub fn highest(&self) -> u64 {
        self.highest
    }

    #[inline]
    fn entry(&self, number: u64) -> Option<&Entry> {
        self.entries.get(self.slot(number))?.as_ref().filter(|entry| entry.facts.number == number)
    }

    #[inline]
    fn slot(&self, number: u64) -> usize {
        (number & (self.entries.len() as u64).wrapping_sub(1)) as usize
    }

    #[inline]
    fn index(&self, position: u64) -> usize {
        (position & (self.bytes.len() as u64).wrapping_sub(1)) as usize
    }

    /// Moves on to a new highest number; a ring of entries that turns too fast doubles first.
    fn advance(&mut self, now: Instant, number: u64) {
        let len = self.entries.len() as u64;
        if number / len != self.highest / len {
            let places = self.entries.len();
            let turned_fast =
                self.entries_turned.is_some_and(|turned| turned.is_fast(now, number, places));
            if turned_fast && self.entries.len() < self.bounds.packets.1 {
                let old = std::mem::take(&mut self.entries);
                self.entries = vec![None; old.len() * 2];
                for entry in old.into_iter().flatten() {
                    let slot = self.slot(entry.facts.number);
                    self.entries[slot] = Some(entry);
                }
            }
            self.entries_turned = Some(Turn { at: now, count: number });
        }
        self.highest = number;
        self.floor = self.floor.max((number + 1).saturating_sub(self.entries.len() as u64));
    }

    /// Finds room for `len` bytes in one piece; a ring of bytes that turns too fast doubles first.
    fn place(&mut self, now: Instant, len: usize) -> u64 {
        let at = self.index(self.head);
        if at + len > self.bytes.len() {
            let (turned, places) = (self.bytes_turned, self.bytes.len());
            let turned_fast = turned.is_some_and(|turned| turned.is_fast(now, self.head, places));
            if turned_fast && self.bytes.len() < self.bounds.bytes.1 {
                self.double_bytes();
                self.bytes_turned = Some(Turn { at: now, count: self.head });
                return self.place(now, len);
            }
            self.bytes_turned = Some(Turn { at: now, count: self.head });
            self.head += (self.bytes.len() - at) as u64;
        }
        let position = self.head;
        self.head += len as u64;
        position
    }

    fn double_bytes(&mut self) {
        let old = std::mem::take(&mut self.bytes);
        let old_len = old.len() as u64;
        let mut new = Vec::with_capacity(old.len() * 2);
        let head = self.head;
        for entry in self.entries.iter_mut().flatten() {
            if head.checked_sub(entry.position).is_none_or(|behind| behind > old_len) {
                entry.position = BYTES_GONE;
                continue;
            }
            let at = (entry.position % old_len) as usize;
            entry.position = old_len * 2 + new.len() as u64;
            new.extend_from_slice(old.get(at..at + entry.bytes()).unwrap_or(&[]));
        }
        self.head = old_len * 2 + new.len() as u64;
        new.resize(old.len() * 2, 0);
        self.bytes = new;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: HistoryBounds = HistoryBounds { packets: (4, 16), bytes: (2048, 8192) };

    fn facts(number: u64) -> PacketFacts {
        PacketFacts {
            number,
            timestamp: number as u32,
            marker: false,
            keyframe: false,
            codec: Codec::Opus,
            codec_index: 0,
            frame: FrameFacts::default(),
            audio_level: None,
            video_orientation: None,
            playout_delay: None,
            has_rare_extensions: false,
        }
    }

    fn insert(history: &mut History, now: Instant, number: u64, len: usize) -> Result<(), Refused> {
        let payload = vec![number as u8; len];
        let parts = PacketParts { payload: &payload, ..PacketParts::default() };
        history.insert(now, facts(number), &parts)
    }

    #[test]
    fn packets_come_back_whole_until_they_are_overwritten() {
        let start = Instant::now();
        let mut history = History::new(BOUNDS);
        for number in 100..1000 {
            // Slow: neither ring ever grows.
            let now = start + Duration::from_secs(number);
            insert(&mut history, now, number, 300).unwrap();
            for kept in number.saturating_sub(3).max(100)..=number {
                let (facts, parts) = history.get(kept).unwrap();
                assert_eq!(facts.number, kept);
                assert_eq!(parts.payload, [kept as u8; 300]);
            }
            assert!(history.get(number - 4).is_none());
        }
        assert_eq!(history.entries.len(), 4);
        assert_eq!(history.bytes.len(), 2048);
    }

    #[test]
    fn a_busy_stream_grows_to_the_bounds_and_keeps_what_it_had() {
        let now = Instant::now();
        let mut history = History::new(BOUNDS);
        for number in 0..200 {
            insert(&mut history, now, number, 500).unwrap();
            for kept in number.saturating_sub(3)..=number {
                assert_eq!(history.get(kept).unwrap().1.payload, [kept as u8; 500], "{number}");
            }
        }
        assert_eq!(history.entries.len(), 16);
        assert_eq!(history.bytes.len(), 8192);
        assert!(history.get(199 - 16).is_none());
    }

    #[test]
    fn a_ring_that_is_long_enough_does_not_grow_however_it_began() {
        let start = Instant::now();
        for first in 0..16 {
            let mut history = History::new(BOUNDS);
            // Seven in a second, of 150 bytes: eight places and 2 KiB are enough.
            for number in first..first + 100 {
                let now = start + Duration::from_millis((number - first) * 143);
                insert(&mut history, now, number, 150).unwrap();
            }
            assert_eq!((history.entries.len(), history.bytes.len()), (8, 2048), "{first}");
        }
    }

    #[test]
    fn a_packet_that_left_before_the_ring_grew_does_not_come_back() {
        let now = Instant::now();
        let mut history = History::new(BOUNDS);
        for number in 96..101 {
            insert(&mut history, now, number, 10).unwrap();
        }
        // 100 opened a new turn: the ring has doubled, and 96 is still there but 95 never is.
        assert_eq!(history.entries.len(), 8);
        assert_eq!(insert(&mut history, now, 96, 10), Err(Refused::Duplicate));
        let mut history = History::new(BOUNDS);
        for number in 97..105 {
            insert(&mut history, now, number, 10).unwrap();
        }
        assert!(insert(&mut history, now, 97, 10).is_err());
    }

    #[test]
    fn duplicates_old_and_overlong_packets_are_refused() {
        let now = Instant::now();
        let mut history = History::new(BOUNDS);
        insert(&mut history, now, 70_000, 10).unwrap();
        insert(&mut history, now, 70_002, 10).unwrap();
        assert_eq!(insert(&mut history, now, 70_002, 10), Err(Refused::Duplicate));
        insert(&mut history, now, 70_001, 10).unwrap();
        assert_eq!(insert(&mut history, now, 69_990, 10), Err(Refused::TooOld));
        assert_eq!(insert(&mut history, now, 70_003, 1501), Err(Refused::TooLong));
    }
}
