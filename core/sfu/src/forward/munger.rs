//! Sequence numbers, timestamps and indices of one outgoing stream, continuous across the sources
//! that feed it and across what is left out of them.

use std::time::{Duration, Instant};

use parlor_model::{Codec, RtpTimestamp};

use super::{
    select::{Selection, Selector, Wanted},
    sent::SentPacket,
};
use crate::{
    receive::{
        frame::{Indices, Layering, Scalability},
        history::PacketFacts,
    },
    track::MAX_STREAMS,
};

/// How far a timestamp that follows from the sources' clocks may be from what the passed time
/// tells before the passed time is taken.
const MAX_CLOCK_ERROR: Duration = Duration::from_secs(1);
/// The same when the same source goes on after a pause and is behind: a clock that stood still.
const MAX_RESUME_LAG: Duration = Duration::from_millis(200);
/// Segments remembered beside the open one, for packets that come late.
pub const MAX_SEGMENTS: usize = 32;
/// What a stream without layers keeps of them at first.
const FEW_SEGMENTS: usize = 4;
const VIDEO_CLOCK_RATE: u32 = 90_000;
/// What tells the layers of what comes may be late by so much; then it is lost.
const UNREADABLE_MAX: Duration = Duration::from_millis(500);
/// From one frame to the next.
const ONE: Indices = Indices { picture_id: 1, tl0_picture_index: 1, key_index: 1, frame_number: 1 };

/// How the numbers of a run of packets of one source become those that leave.
#[derive(Clone, Copy, Debug)]
struct Segment {
    stream: u8,
    selection: Selection,
    /// The packet that the segment began with.
    first_source: u64,
    first_out: u64,
    /// No number from here on belongs to it.
    end_out: u64,
    /// The source's timestamp of the picture that the next segment began with.
    goes_on_in: Option<u32>,
    timestamp_offset: u32,
    offset: Indices,
}

/// The newest packet that has left, or was left out.
#[derive(Clone, Copy, Debug)]
struct Last {
    timestamp: u32,
    /// Of the newest that has left.
    source_timestamp: u32,
    /// Of the newest that has left.
    marker: bool,
    at: Instant,
    indices: Indices,
}

/// A packet as it leaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Munged {
    /// Extended sequence number.
    pub number: u64,
    pub timestamp: u32,
    pub marker: bool,
    pub indices: Indices,
    /// See [`Selection::active`].
    pub active: u32,
}

/// Why a packet does not leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// Its layer is not forwarded.
    Unwanted,
    /// Its source is not forwarded any more, or was not yet; or its layer is not known yet.
    Late,
}

/// See the module. In this order in memory: what each packet needs lies side by side, at the
/// beginning.
#[repr(C)]
pub struct Munger {
    /// The number of the next packet of the source that is forwarded.
    next: u64,
    /// The number after the highest that was forwarded or left out of each source.
    next_source: [u64; MAX_STREAMS],
    last: Option<Last>,
    segment: Option<Segment>,
    /// Segments before the open one, oldest first.
    closed: Vec<Segment>,
    /// The timestamp that the source began with.
    first_source_timestamp: u32,
    clock_rate: u32,
    /// The picture that was left out last.
    left_out: Option<u32>,
    /// Since when nothing has come whose layer can be told.
    unreadable_since: Option<Instant>,
    selector: Selector,
}

impl Munger {
    /// The first packet leaves as `first`.
    pub fn new(first: u64, clock_rate: u32) -> Self {
        Self {
            clock_rate,
            next: first,
            segment: None,
            closed: Vec::new(),
            last: None,
            first_source_timestamp: 0,
            next_source: [0; MAX_STREAMS],
            left_out: None,
            unreadable_since: None,
            selector: Selector::default(),
        }
    }

    /// Other sources feed the stream from now on: nothing of those before goes on, and clocks and
    /// indices are not theirs. Numbers and time go on.
    pub fn forget_sources(&mut self) {
        self.segment = None;
        self.closed.clear();
        self.next_source = [0; MAX_STREAMS];
        (self.left_out, self.unreadable_since) = (None, None);
        self.selector = Selector::default();
    }

    /// A number above all that have left.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// The numbers from this one on have not left and are given anew. What left before them may be
    /// the beginning of a frame without an end.
    /// `left` tells of the packet before them.
    pub fn take_back(&mut self, first: u64, left: &SentPacket) {
        self.next = self.next.min(first);
        for segment in self.segment.iter_mut().chain(&mut self.closed) {
            segment.end_out = segment.end_out.min(first);
        }
        if let Some(last) = self.last.as_mut() {
            last.marker = false;
            (last.timestamp, last.indices) = (left.timestamp, left.indices);
        }
    }

    /// The stream that is forwarded, or was last.
    #[inline]
    pub fn stream(&self) -> Option<u8> {
        self.segment.as_ref().map(|segment| segment.stream)
    }

    /// What is wanted can not be had before a keyframe of the stream that is forwarded.
    #[inline]
    pub fn waits_for_keyframe(&self) -> bool {
        self.selector.waits_for_keyframe
    }

    /// Whether a source may begin at this number: nothing of it goes back.
    #[inline]
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
        scalability: Option<&Scalability>,
        wanted: Wanted,
    ) {
        let is_resume = self.segment.is_some_and(|segment| segment.stream == stream);
        let last_offset = self.segment.map_or(0, |segment| segment.timestamp_offset);
        let source = facts.frame.indices;
        let (timestamp, indices) = match self.last {
            None => (facts.timestamp, source),
            Some(last) => {
                let candidate = in_last_clock.map(|timestamp| timestamp.wrapping_add(last_offset));
                let timestamp = self.continue_from(now, &last, candidate, is_resume);
                (timestamp, last.indices.plus(ONE))
            }
        };
        self.close(self.next);
        if self.last.is_some_and(|last| !last.marker) {
            // The frame before was cut: a number left out shows it.
            self.next += 1;
        }
        self.first_source_timestamp = facts.timestamp;
        if let Some(next) = self.next_source.get_mut(usize::from(stream)) {
            *next = facts.number;
        }
        (self.left_out, self.unreadable_since) = (None, None);
        self.segment = Some(Segment {
            stream,
            selection: self.selector.at_keyframe(facts, scalability, wanted),
            first_source: facts.number,
            first_out: self.next,
            end_out: u64::MAX,
            goes_on_in: None,
            timestamp_offset: timestamp.wrapping_sub(facts.timestamp),
            offset: indices.minus(source),
        });
    }

    /// Takes the next number for a frame of our own that lasts so long. Nothing of the source goes
    /// on before another [`Self::start`].
    pub fn insert(&mut self, now: Instant, frame: Duration) -> Munged {
        let is_video = self.clock_rate == VIDEO_CLOCK_RATE;
        if is_video && self.last.is_some_and(|last| !last.marker) {
            // The frame before was cut: a number left out shows it.
            self.next += 1;
        }
        let number = self.next;
        if let Some(open) = self.segment.as_mut() {
            open.end_out = open.end_out.min(number);
        }
        let (timestamp, indices) = match self.last {
            // A stream that has not begun: any time will do.
            None => (number as u32, Indices::default()),
            Some(last) => {
                let elapsed = now.saturating_duration_since(last.at) + frame / 2;
                let frames = (elapsed.as_micros() / frame.as_micros().max(1)).max(1) as u64;
                let timestamp = last.timestamp.wrapping_add((frames * self.ticks(frame)) as u32);
                (timestamp, last.indices.plus(ONE))
            }
        };
        self.next += 1;
        let source_timestamp = self.last.map_or(0, |last| last.source_timestamp);
        self.last = Some(Last { timestamp, source_timestamp, marker: true, at: now, indices });
        Munged { number, timestamp, marker: true, indices, active: 0 }
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

    /// Keeps the open segment, if any, for late packets with numbers below `end_out`.
    fn close(&mut self, end_out: u64) {
        let Some(segment) = self.segment.as_mut() else { return };
        segment.end_out = segment.end_out.min(end_out);
        if segment.first_out >= segment.end_out {
            return;
        }
        if self.closed.capacity() == 0 {
            let is_layered = self.clock_rate == VIDEO_CLOCK_RATE;
            self.closed.reserve_exact(if is_layered { MAX_SEGMENTS } else { FEW_SEGMENTS });
        }
        if self.closed.len() == MAX_SEGMENTS {
            self.closed.remove(0);
        }
        self.closed.push(*segment);
    }

    /// A packet as it leaves, if it does.
    ///
    /// # Errors
    /// When it does not.
    pub fn munge(
        &mut self,
        now: Instant,
        stream: u8,
        facts: &PacketFacts,
        scalability: Option<&Scalability>,
        wanted: Wanted,
    ) -> Result<Munged, Held> {
        let next = self.next_source.get(usize::from(stream)).copied().unwrap_or(u64::MAX);
        if self.stream() != Some(stream) || facts.number < next {
            return self.munge_late(stream, facts);
        }
        let is_layered = facts.frame.layering != Layering::None;
        if is_layered && facts.frame.starts && self.is_new_picture(facts) {
            // Of a picture that something was left out of, something may come that is forwarded.
            let follows = facts.number == next && self.left_out != Some(facts.timestamp);
            self.select(facts, scalability, wanted, follows);
        }
        let Some(segment) = self.segment.as_ref() else { return Err(Held::Late) };
        if is_layered {
            let selection = segment.selection;
            match selection.takes(&facts.frame) {
                None => {
                    let since = *self.unreadable_since.get_or_insert(now);
                    self.selector.waits_for_keyframe |= now >= since + UNREADABLE_MAX;
                    return Err(Held::Late);
                }
                Some(false) => {
                    self.leave_out(now, facts, selection);
                    return Err(Held::Unwanted);
                }
                Some(true) => {}
            }
        }
        let munged = segment.apply(facts, facts.number - segment.first_source);
        self.unreadable_since = None;
        self.next = munged.number + 1;
        if let Some(next) = self.next_source.get_mut(usize::from(stream)) {
            *next = facts.number + 1;
        }
        self.selector.note(&facts.frame);
        let last = Last {
            timestamp: munged.timestamp,
            source_timestamp: facts.timestamp,
            marker: munged.marker,
            at: now,
            indices: munged.indices,
        };
        match &mut self.last {
            // Where the codec has no indices, those of another before it go on.
            Some(before) if !is_layered => *before = Last { indices: before.indices, ..last },
            before => *before = Some(last),
        }
        Ok(munged)
    }

    /// As [`Self::munge`] for the packet that follows in a stream without layers, or with temporal
    /// ones of which no other is chosen at it, as almost all of them do: its number, its timestamp,
    /// and its indices where they are not the source's. `None`: ask there.
    #[inline(always)]
    pub fn follow(
        &mut self,
        now: &Instant,
        stream: u8,
        (facts, has_layers): (&PacketFacts, bool),
        wanted_temporal: u8,
    ) -> Option<(u64, u32, Option<Indices>)> {
        let next = self.next_source.get_mut(usize::from(stream))?;
        let (Some(segment), Some(last)) = (&self.segment, &mut self.last) else { return None };
        if segment.stream != stream || facts.number < *next {
            return None;
        }
        let mut others = None;
        if has_layers {
            if !segment.selection.goes_on(facts, wanted_temporal) {
                return None;
            }
            last.indices = facts.frame.indices.plus(segment.offset);
            if last.indices != facts.frame.indices {
                others = Some(last.indices);
            }
        }
        let number = segment.first_out + (facts.number - segment.first_source);
        *next = facts.number + 1;
        self.next = number + 1;
        last.timestamp = facts.timestamp.wrapping_add(segment.timestamp_offset);
        last.source_timestamp = facts.timestamp;
        last.marker = facts.marker;
        last.at = *now;
        Some((number, last.timestamp, others))
    }

    /// Chooses layers at the first packet of a picture.
    fn select(
        &mut self,
        facts: &PacketFacts,
        scalability: Option<&Scalability>,
        wanted: Wanted,
        follows: bool,
    ) {
        let Some(current) = self.segment.map(|segment| segment.selection) else { return };
        let chosen = self.selector.at_frame(current, facts, scalability, wanted, follows);
        if chosen != current {
            if let Some(open) = self.segment.as_mut() {
                let goes_on = chosen.takes(&facts.frame) == Some(true);
                open.goes_on_in = goes_on.then_some(facts.timestamp);
            }
            self.split(facts.number, facts.number, chosen, false);
        }
    }

    /// Whether nothing of the packet's picture was forwarded; of H265, nor left out.
    #[inline]
    fn is_new_picture(&self, facts: &PacketFacts) -> bool {
        if facts.codec == Codec::H265 && self.left_out == Some(facts.timestamp) {
            return false;
        }
        self.last.is_none_or(|last| last.source_timestamp != facts.timestamp)
    }

    /// A packet that was overtaken, under the number that was kept for it.
    #[cold]
    pub fn munge_late(&mut self, stream: u8, facts: &PacketFacts) -> Result<Munged, Held> {
        let next = self.next_source.get(usize::from(stream)).copied().unwrap_or(0);
        let holds = |segment: &&Segment| {
            segment.stream == stream && segment.first_source <= facts.number && facts.number < next
        };
        let segment = self.segment.iter().chain(self.closed.iter().rev()).find(holds);
        let segment = segment.ok_or(Held::Late)?;
        let mut munged = segment.apply(facts, facts.number - segment.first_source);
        if munged.number >= segment.end_out.min(self.next)
            || segment.selection.takes(&facts.frame) != Some(true)
        {
            return Err(Held::Late);
        }
        // Where the higher layers of its picture were given up before it came, the picture ends
        // with it.
        let has_layers = matches!(facts.frame.layering, Layering::Vp9 | Layering::Targets(_));
        munged.marker |= has_layers
            && facts.frame.ends
            && munged.number + 1 == segment.end_out
            && segment.goes_on_in != Some(facts.timestamp);
        if self.stream() == Some(stream) {
            self.selector.note(&facts.frame);
        }
        Ok(munged)
    }

    /// Goes on with another selection at `first`, all before `from` being of the open segment.
    fn split(&mut self, from: u64, first: u64, selection: Selection, leaves_picture_out: bool) {
        let Some(open) = self.segment else { return };
        let out = open.first_out + (from - open.first_source);
        self.close(out);
        let mut offset = open.offset;
        if leaves_picture_out {
            offset.picture_id = offset.picture_id.wrapping_sub(1) & 0x7fff;
        }
        self.segment = Some(Segment {
            selection,
            first_source: first,
            first_out: out,
            end_out: u64::MAX,
            goes_on_in: None,
            offset,
            ..open
        });
    }

    /// The newest packet is not forwarded: those after it follow without a hole.
    fn leave_out(&mut self, now: Instant, facts: &PacketFacts, selection: Selection) {
        let is_vp8 = facts.codec == Codec::Vp8;
        let is_new = self.left_out != Some(facts.timestamp);
        self.left_out = Some(facts.timestamp);
        self.split(facts.number, facts.number + 1, selection, is_vp8 && is_new);
        let Some(open) = self.segment.as_ref() else { return };
        self.next = open.first_out;
        // What comes next goes on after all that numbers are kept for.
        if let Some(last) = &mut self.last {
            last.timestamp = facts.timestamp.wrapping_add(open.timestamp_offset);
            last.indices = facts.frame.indices.plus(open.offset);
            last.at = now;
        }
        if let Some(next) = self.next_source.get_mut(usize::from(open.stream)) {
            *next = facts.number + 1;
        }
    }

    /// The outgoing timestamp of a timestamp in a report of a source; `None` when the report is of
    /// another source or from before the beginning.
    pub fn map_report(&self, stream: u8, timestamp: RtpTimestamp) -> Option<u32> {
        let segment = self.segment.filter(|segment| segment.stream == stream)?;
        // A frame may be stamped shortly before the report that precedes its first packet.
        let slack = self.clock_rate.cast_signed();
        let since = timestamp.distance(RtpTimestamp(self.first_source_timestamp));
        (since >= -slack).then(|| timestamp.0.wrapping_add(segment.timestamp_offset))
    }
}

impl Segment {
    /// The packet that is `since` after the first of the segment.
    #[inline]
    fn apply(&self, facts: &PacketFacts, since: u64) -> Munged {
        Munged {
            number: self.first_out + since,
            timestamp: facts.timestamp.wrapping_add(self.timestamp_offset),
            marker: self.selection.ends_picture(facts),
            indices: facts.frame.indices.plus(self.offset),
            active: self.selection.active,
        }
    }
}
