//! Sequence numbers, timestamps and VP8 indices of one outgoing stream, continuous across the
//! sources that feed it.

use std::time::{Duration, Instant};

use parlor_model::RtpTimestamp;

use crate::{receive::history::PacketFacts, track::MAX_STREAMS};

/// How far a timestamp that follows from the sources' clocks may be from what the passed time
/// tells before the passed time is taken.
const MAX_CLOCK_ERROR: Duration = Duration::from_secs(1);
/// The same when the same source goes on after a pause and is behind: a clock that stood still.
const MAX_RESUME_LAG: Duration = Duration::from_millis(200);

/// Picture id, TL0PICIDX and KEYIDX as they leave (RFC 7741 section 4.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vp8Indices {
    pub picture_id: u16,
    pub tl0_picture_index: u8,
    pub key_index: u8,
}

impl Vp8Indices {
    fn of(facts: &PacketFacts) -> Option<Self> {
        let descriptor = facts.vp8?;
        Some(Self {
            picture_id: descriptor.picture_id.map_or(0, |id| id.value),
            tl0_picture_index: descriptor.tl0_picture_index.unwrap_or(0),
            key_index: descriptor.key_index.unwrap_or(0),
        })
    }

    fn plus(self, offset: Self) -> Self {
        Self {
            picture_id: self.picture_id.wrapping_add(offset.picture_id) & 0x7fff,
            tl0_picture_index: self.tl0_picture_index.wrapping_add(offset.tl0_picture_index),
            key_index: self.key_index.wrapping_add(offset.key_index) & 0x1f,
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            picture_id: self.picture_id.wrapping_sub(other.picture_id) & 0x7fff,
            tl0_picture_index: self.tl0_picture_index.wrapping_sub(other.tl0_picture_index),
            key_index: self.key_index.wrapping_sub(other.key_index) & 0x1f,
        }
    }
}

/// How the numbers of one source become those that leave.
#[derive(Clone, Copy, Debug)]
struct Segment {
    stream: u8,
    /// The packet that the segment began with: nothing before it is forwarded.
    first_source: u64,
    first_source_timestamp: u32,
    first_out: u64,
    timestamp_offset: u32,
    vp8_offset: Vp8Indices,
}

/// The newest packet that has left.
#[derive(Clone, Copy, Debug)]
struct Last {
    timestamp: u32,
    marker: bool,
    at: Instant,
    vp8: Vp8Indices,
}

/// A packet's numbers as they leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Munged {
    /// Extended sequence number.
    pub number: u64,
    pub timestamp: u32,
    pub vp8: Vp8Indices,
}

/// See the module.
pub struct Munger {
    clock_rate: u32,
    /// The number after the highest that has left.
    next: u64,
    segment: Option<Segment>,
    last: Option<Last>,
    /// The number after the highest that was forwarded of each source.
    next_source: [u64; MAX_STREAMS],
}

impl Munger {
    /// The first packet leaves as `first`.
    pub fn new(first: u64, clock_rate: u32) -> Self {
        Self { clock_rate, next: first, segment: None, last: None, next_source: [0; MAX_STREAMS] }
    }

    /// The number after the highest that has left.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// The stream that is forwarded, or was last.
    pub fn stream(&self) -> Option<u8> {
        self.segment.map(|segment| segment.stream)
    }

    /// Whether a source may begin at this number: nothing of it goes back.
    pub fn may_start(&self, stream: u8, number: u64) -> bool {
        self.next_source.get(usize::from(stream)).is_some_and(|next| number >= *next)
    }

    /// Begins to forward a source at this packet.
    ///
    /// `in_last_clock` is the packet's timestamp on the clock of the source that was forwarded
    /// before, where that is known; it is the packet's own when the same source goes on.
    pub fn start(
        &mut self,
        now: Instant,
        stream: u8,
        facts: &PacketFacts,
        in_last_clock: Option<u32>,
    ) {
        let is_resume = self.segment.is_some_and(|segment| segment.stream == stream);
        let last_offset = self.segment.map_or(0, |segment| segment.timestamp_offset);
        let source_vp8 = Vp8Indices::of(facts).unwrap_or_default();
        let (timestamp, vp8) = match self.last {
            None => (facts.timestamp, source_vp8),
            Some(last) => {
                let candidate = in_last_clock.map(|timestamp| timestamp.wrapping_add(last_offset));
                let vp8 =
                    last.vp8.plus(Vp8Indices { picture_id: 1, tl0_picture_index: 1, key_index: 1 });
                (self.continue_from(now, &last, candidate, is_resume), vp8)
            }
        };
        if self.last.is_some_and(|last| !last.marker) {
            // The frame before was cut: a number left out shows it.
            self.next += 1;
        }
        self.segment = Some(Segment {
            stream,
            first_source: facts.number,
            first_source_timestamp: facts.timestamp,
            first_out: self.next,
            timestamp_offset: timestamp.wrapping_sub(facts.timestamp),
            vp8_offset: vp8.minus(source_vp8),
        });
    }

    fn continue_from(
        &self,
        now: Instant,
        last: &Last,
        candidate: Option<u32>,
        is_resume: bool,
    ) -> u32 {
        let elapsed = now.saturating_duration_since(last.at);
        let expected = last.timestamp.wrapping_add(self.ticks(elapsed) as u32);
        let chosen = candidate
            .filter(|candidate| {
                let ahead = i64::from(RtpTimestamp(*candidate).distance(RtpTimestamp(expected)));
                let most_behind = if is_resume { MAX_RESUME_LAG } else { MAX_CLOCK_ERROR };
                ahead >= -(self.ticks(most_behind) as i64)
                    && ahead <= self.ticks(MAX_CLOCK_ERROR) as i64
            })
            .unwrap_or(expected);
        if RtpTimestamp(chosen).distance(RtpTimestamp(last.timestamp)) > 0 {
            chosen
        } else {
            last.timestamp.wrapping_add(1)
        }
    }

    fn ticks(&self, time: Duration) -> u64 {
        (time.as_micros() * u128::from(self.clock_rate) / 1_000_000) as u64
    }

    /// The numbers of a packet of the source that is forwarded; `None` for packets of another
    /// source or from before the beginning.
    #[inline]
    pub fn munge(&mut self, now: Instant, stream: u8, facts: &PacketFacts) -> Option<Munged> {
        let segment = self.segment.as_ref().filter(|segment| segment.stream == stream)?;
        let since = facts.number.checked_sub(segment.first_source)?;
        let munged = Munged {
            number: segment.first_out + since,
            timestamp: facts.timestamp.wrapping_add(segment.timestamp_offset),
            vp8: Vp8Indices::of(facts).unwrap_or_default().plus(segment.vp8_offset),
        };
        if munged.number >= self.next {
            self.next = munged.number + 1;
            if let Some(next) = self.next_source.get_mut(usize::from(stream)) {
                *next = facts.number + 1;
            }
            let vp8 = match facts.vp8 {
                Some(_) => munged.vp8,
                None => self.last.map_or(munged.vp8, |last| last.vp8),
            };
            self.last =
                Some(Last { timestamp: munged.timestamp, marker: facts.marker, at: now, vp8 });
        }
        Some(munged)
    }

    /// The outgoing timestamp of a timestamp in a report of a source; `None` when the report is of
    /// another source or from before the beginning.
    pub fn map_report(&self, stream: u8, timestamp: RtpTimestamp) -> Option<u32> {
        let segment = self.segment.filter(|segment| segment.stream == stream)?;
        // A frame may be stamped shortly before the report that precedes its first packet.
        let slack = self.clock_rate.cast_signed();
        let since = timestamp.distance(RtpTimestamp(segment.first_source_timestamp));
        (since >= -slack).then(|| timestamp.0.wrapping_add(segment.timestamp_offset))
    }
}
