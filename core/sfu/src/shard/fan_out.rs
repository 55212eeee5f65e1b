//! What has just come, sent at once to whom nothing waits for.
//!
//! A packet that follows in its stream waits for the flush of its turn. There, what came of one
//! stream goes to one peer after the other, numbered, written and sealed in one go; who has
//! something waiting already, or has to wait, is owed it as ever.

use std::{ops::Range, time::Instant};

use parlor_congestion::PacketKind;
use parlor_model::TrackKind;

use super::{
    Shard,
    flush::{Moment, Room},
    owe::{Arrived, Coming, Owing, Waits, is_simple, priority},
    send::{Unsent, count_sent, packet_kind, seal_written},
};
use crate::{
    batch::{MAX_RUN_DATAGRAMS, SLOT_BYTES, SendBatch},
    counters::Counters,
    downlink::FRAME_WAIT,
    forward::{Subscription, header::HeaderTemplate, sent::SentPacket, write::write_untouched},
    held::HELD_BOUNDS_US,
    peer::{Peer, Source, bring_forward},
    receive::Stream,
    track::{Route, Track},
};

/// Packets that wait for the flush; with more, all are owed.
const MAX_ARRIVED: usize = 128;

/// Packets that wait for the flush, each the newest of its stream when it came, and how far that
/// flush has come. Those of one stream stand together.
#[derive(Default)]
pub(super) struct Waiting {
    packets: Vec<Coming>,
    /// The packets before this one have been dealt with.
    first: usize,
    /// Of those from there to the second number, the routes before the first number have.
    begun: Option<(usize, usize)>,
    /// The rest of their frame is yet to come: they wait for it, after the flush.
    unfinished: Vec<Coming>,
    /// When they leave without it.
    unfinished_until: Option<Instant>,
}

impl Waiting {
    fn len(&self) -> usize {
        self.packets.len() + self.unfinished.len()
    }

    #[inline]
    fn push(&mut self, coming: Coming) {
        if self.len() == 0 {
            return self.packets.push(coming);
        }
        let goes_along = |other: &Coming| other.goes_along(&coming);
        // A flush that is not over has set its stream aside.
        if let Some(last) = self.unfinished.iter().rposition(goes_along) {
            return self.unfinished.insert(last + 1, coming);
        }
        let free = self.begun.map_or(self.first, |(_, end)| end);
        let others = self.packets.get(free..).unwrap_or_default();
        let last = others.iter().rposition(goes_along);
        let place = last.map_or(self.packets.len(), |last| free + last + 1);
        self.packets.insert(place, coming);
    }

    fn clear(&mut self) {
        self.packets.clear();
        self.unfinished.clear();
        (self.first, self.begun, self.unfinished_until) = (0, None, None);
    }

    /// The next packets that come of one stream.
    fn group(&self) -> Option<Range<usize>> {
        if let Some((_, end)) = self.begun {
            return Some(self.first..end);
        }
        let left = self.packets.get(self.first..)?;
        let first = left.first()?;
        let together = left.iter().take(MAX_RUN_DATAGRAMS);
        let count = together.take_while(|coming| coming.goes_along(first)).count();
        Some(self.first..self.first + count)
    }

    /// Until when the group waits for the rest of its frame; `None` when that has come, or is not
    /// waited for.
    fn is_unfinished_until(&self, group: &Range<usize>, moment: &Moment) -> Option<Instant> {
        let left = self.packets.get(group.start..).filter(|_| moment.gathering_us > 0)?;
        let first = left.first()?;
        let mut stream = left.iter().take_while(|coming| coming.goes_along(first));
        if stream.any(|coming| coming.ends_frame) {
            return None;
        }
        Some(first.came + FRAME_WAIT).filter(|until| *until > moment.now)
    }

    /// Sets a group aside.
    fn keep(&mut self, group: Range<usize>, until: Instant) {
        self.unfinished.extend(self.packets.get(group.clone()).unwrap_or_default());
        bring_forward(&mut self.unfinished_until, until);
        self.first = group.end;
    }

    /// The flush is over; what was set aside waits for the next.
    fn finish(&mut self) {
        self.packets.clear();
        std::mem::swap(&mut self.packets, &mut self.unfinished);
        (self.first, self.begun) = (0, None);
    }
}

impl Shard {
    /// Forwards a packet: in the flush where it only follows, now where it may change what is
    /// forwarded.
    pub(super) fn forward(&mut self, now: Instant, source: Source, number: u64, keyframe: bool) {
        let Some(track) = self.tracks.get(source.track) else { return };
        let Some(stream) = track.streams.get(usize::from(source.stream)) else { return };
        let newest = stream.history.highest();
        let facts = stream.history.facts(number);
        let ends_frame = track.kind == TrackKind::Audio || facts.is_none_or(|facts| facts.marker);
        let coming = Coming { source, number, newest, keyframe, ends_frame, came: now };
        let follows = number == newest
            && facts.is_some_and(is_simple)
            && !(keyframe && track.kind == TrackKind::Video);
        if follows && self.arrived.len() < MAX_ARRIVED {
            self.arrived.push(coming);
            return;
        }
        self.owe_arrived(now);
        self.owe(now, &coming, 0);
    }

    /// Owes what waits for the flush, before anything changes that it depends on.
    pub(super) fn owe_arrived(&mut self, now: Instant) {
        if self.arrived.len() == 0 {
            return;
        }
        let waiting = std::mem::take(&mut self.arrived);
        let (begun_routes, begun_end) = waiting.begun.unwrap_or_default();
        for (at, coming) in waiting.packets.iter().enumerate().skip(waiting.first) {
            self.owe(now, coming, if at < begun_end { begun_routes } else { 0 });
        }
        // Set aside in a flush that is not over.
        for coming in &waiting.unfinished {
            self.owe(now, coming, 0);
        }
        self.arrived = waiting;
        self.arrived.clear();
    }

    /// When what waits for the rest of its frame leaves without it.
    pub(super) fn unfinished_due(&self) -> Option<Instant> {
        self.arrived.unfinished_until
    }

    /// Sends what waits for the flush, or owes it.
    pub(super) fn fan_out(&mut self, moment: &Moment, out: &mut SendBatch) -> Room {
        if self.arrived.first == 0 && self.arrived.begun.is_none() {
            self.arrived.unfinished_until = None;
        }
        while let Some(group) = self.arrived.group() {
            let begun = self.arrived.begun.is_some();
            let until = self.arrived.is_unfinished_until(&group, moment);
            if let Some(until) = until.filter(|_| !begun) {
                self.arrived.keep(group, until);
                continue;
            }
            let mut first_route = self.arrived.begun.map_or(0, |(routes, _)| routes);
            if self.fan_out_group(moment, group.clone(), &mut first_route, out) == Room::Full {
                self.arrived.begun = Some((first_route, group.end));
                return Room::Full;
            }
            (self.arrived.first, self.arrived.begun) = (group.end, None);
        }
        self.arrived.finish();
        Room::Left
    }

    fn fan_out_group(
        &mut self,
        moment: &Moment,
        group: Range<usize>,
        first_route: &mut usize,
        out: &mut SendBatch,
    ) -> Room {
        let count = group.len();
        let Some(group) = self.arrived.packets.get(group) else { return Room::Left };
        let Some(first) = group.first() else { return Room::Left };
        let Some(track) = self.tracks.get_mut(first.source.track) else { return Room::Left };
        if track.muted {
            self.counters.dropped_muted += count as u64;
            return Room::Left;
        }
        let Track { kind, streams, routes, .. } = track;
        let mut packets = [const { None }; MAX_RUN_DATAGRAMS];
        for (place, coming) in packets.iter_mut().zip(group) {
            *place = Departing::new(streams, coming, moment);
        }
        let mut fan = Fan {
            at: first.source.stream,
            way: Way { kind: packet_kind(*kind), moment, out },
            owing: Owing {
                now: moment.now,
                now_us: moment.since_epoch_us,
                streams,
                priority: priority(*kind),
                counters: &mut self.counters,
                subscriptions: &mut self.subscriptions,
                peers: &mut self.peers,
                events: &mut self.events,
                timers: &mut self.timers,
                ready: &mut self.ready,
                waits: Waits::default(),
            },
        };
        let packets = packets.get(..count).unwrap_or_default();
        // What came since has taken their places.
        if *first_route == 0 {
            let gone = packets.iter().filter(|packet| packet.is_none()).count();
            fan.owing.counters.unsent_history += gone as u64;
        }
        let sent_before = fan.owing.counters.rtp_sent;
        let room = fan.send_all(routes, packets, first_route);
        let waits = fan.owing.waits;
        let sent = self.counters.rtp_sent - sent_before;
        for coming in group.iter().filter(|coming| coming.came < moment.now) {
            let held_us = moment.now.saturating_duration_since(coming.came).as_micros() as u64;
            self.held.record_many(&HELD_BOUNDS_US, held_us, sent / count as u64);
        }
        let last = group.last().copied();
        if let Some(last) = last {
            self.ask_for_keyframe(moment.now, &last, false, waits);
        }
        room
    }
}

/// A packet that may leave at once.
struct Departing<'a> {
    arrived: Arrived<'a>,
    /// `None` where its header is to be written apart.
    payload: Option<&'a [u8]>,
    /// What is remembered of it, but for what differs from one to another.
    sent: SentPacket,
}

impl<'a> Departing<'a> {
    fn new(streams: &'a [Stream], coming: &Coming, moment: &Moment) -> Option<Self> {
        let arrived = Arrived::new(streams, coming)?;
        let sent = arrived.sent.stamped(0, moment.send_time, moment.since_epoch_ms);
        let plain = arrived.stream.history.get_plain(coming.number);
        let plain = plain.filter(|(facts, _)| !facts.has_rare_extensions);
        Some(Self { arrived, payload: plain.map(|(_, payload)| payload), sent })
    }
}

/// Packets of one stream on their way to all who get them.
struct Fan<'a> {
    at: u8,
    way: Way<'a>,
    owing: Owing<'a>,
}

/// How a packet leaves.
struct Way<'a> {
    kind: PacketKind,
    moment: &'a Moment,
    out: &'a mut SendBatch,
}

impl Fan<'_> {
    /// Sends the packets to all routes from the first on, or owes them, while there is room.
    #[inline(never)]
    fn send_all(
        &mut self,
        routes: &mut [Route],
        packets: &[Option<Departing<'_>>],
        first_route: &mut usize,
    ) -> Room {
        while let Some(left) = routes.get_mut(*first_route..).filter(|left| !left.is_empty()) {
            // So many routes find room, whatever each of them takes.
            let room = self.way.out.room() / packets.len().max(1);
            let room = room.max(usize::from(self.way.out.is_empty())).min(left.len());
            if room == 0 {
                return Room::Full;
            }
            for route in left.get_mut(..room).unwrap_or_default() {
                if !route.active {
                    continue;
                }
                let sent = self.send(route, packets);
                if sent < packets.len() {
                    self.owe(route, packets, sent);
                }
            }
            *first_route += room;
        }
        Room::Left
    }

    /// Owes the packets to one route, but for the first so many.
    #[inline(never)]
    fn owe(&mut self, route: &mut Route, packets: &[Option<Departing<'_>>], first: usize) {
        for packet in packets.iter().flatten().skip(first) {
            self.owing.owe_to(route, &packet.arrived);
        }
    }

    /// Sends the packets to one route where nothing is in the way. Returns how many are dealt
    /// with; the others are to be owed.
    #[inline(always)]
    fn send(&mut self, route: &Route, packets: &[Option<Departing<'_>>]) -> usize {
        let moment = self.way.moment;
        let Some(peer) = self.owing.peers.get_mut(route.peer) else { return 0 };
        if route.current != Some(self.at) || peer.is_ready || !peer.can_send() {
            return 0;
        }
        let (now_us, gathering_us) = (moment.since_epoch_us, moment.gathering_us);
        if !peer.downlink.may_send_at_once(now_us, gathering_us) {
            return 0;
        }
        let subscription = self.owing.subscriptions.get_mut(route.subscription);
        let Some(subscription) = subscription.filter(|it| is_plain(it)) else { return 0 };
        let (mut dealt_with, mut unsent) = (0, 0);
        for packet in packets {
            let Some(packet) = packet else { continue };
            if self.way.kind == PacketKind::Video && !peer.downlink.pacer.may_send() {
                break;
            }
            match self.way.write(peer, subscription, packet, route.max_temporal) {
                Ok(len) => self.way.note_sent(peer, subscription, len, dealt_with > unsent),
                Err(not_sent) if not_sent.is_final(self.owing.counters) => unsent += 1,
                Err(_) => break,
            }
            peer.downlink.pacer.note_passed(packet.arrived.size_bytes);
            dealt_with += 1;
        }
        self.owing.counters.rtp_sent += (dealt_with - unsent) as u64;
        // What is read again here need not be kept meanwhile.
        let moment = self.way.moment;
        if dealt_with > 0 && moment.gathering_us > 0 {
            peer.downlink.has_burst(moment.since_epoch_us, moment.gathering_us);
        }
        if peer.downlink.estimator.timeout_may_have_changed() {
            peer.is_ready = true;
            self.owing.ready.push(route.peer);
        }
        dealt_with
    }
}

/// Whether what a subscription is sent has the header of its template, and nothing of it was given
/// up.
#[inline(always)]
fn is_plain(subscription: &Subscription) -> bool {
    subscription.started
        && subscription.header.is_some()
        && subscription.settings.playout_delay.is_none()
        && subscription.munger.next_number() >= subscription.useless_below
}

/// Why a packet was not sent.
enum NotSent {
    /// It is to be owed.
    DoesNotFollow,
    Unsent(Unsent),
}

impl NotSent {
    /// Whether it never will be; counts it then.
    #[cold]
    fn is_final(&self, counters: &mut Counters) -> bool {
        match self {
            Self::DoesNotFollow => false,
            Self::Unsent(unsent) => {
                unsent.count(counters);
                true
            }
        }
    }
}

impl Way<'_> {
    /// Numbers, remembers, writes and seals a packet that simply follows into the next slot.
    /// Returns its length.
    #[inline(never)]
    fn write(
        &mut self,
        peer: &Peer,
        subscription: &mut Subscription,
        packet: &Departing<'_>,
        max_temporal: u8,
    ) -> Result<usize, NotSent> {
        let Departing { arrived, payload: Some(payload), sent } = packet else {
            return Err(NotSent::DoesNotFollow);
        };
        let Arrived { at, facts, has_layers, .. } = *arrived;
        let Some(srtp) = &peer.srtp else { return Err(NotSent::DoesNotFollow) };
        let Some(slot) = self.out.slot() else { return Err(NotSent::DoesNotFollow) };
        if !subscription.leaves_untouched(facts.codec_index) {
            return Err(NotSent::DoesNotFollow);
        }
        let moment = self.moment;
        let munger = &mut subscription.munger;
        let follows = munger.follow(&moment.now, at, (facts, has_layers), max_temporal);
        let Some((number, timestamp, indices)) = follows else {
            return Err(NotSent::DoesNotFollow);
        };
        subscription.last_codec = facts.codec_index;
        // The cipher must never see a number twice.
        let place = subscription.sent.insert(number, sent, moment.since_epoch_ms);
        let place = place.ok_or(NotSent::Unsent(Unsent::Twice))?;
        place.timestamp = timestamp;
        let header = subscription.header.as_ref().ok_or(NotSent::Unsent(Unsent::Unsealed))?;
        let is_numbered = header.is_numbered();
        place.transport_sequence = if is_numbered { peer.next_transport_sequence } else { 0 };
        if let Some(indices) = indices {
            place.indices = indices;
        }
        let payload_type = subscription.untouched.payload_type;
        let numbers = (number, &*place, indices);
        let written = write_untouched(slot, header, payload_type, numbers, (facts, payload));
        let written = written.ok_or(NotSent::Unsent(Unsent::Unsealed))?;
        count_sent(subscription, &written, 0);
        seal_written(&srtp.sender, &written, slot).map_err(NotSent::Unsent)
    }

    /// Takes a packet into account that was written.
    #[inline(always)]
    fn note_sent(
        &mut self,
        peer: &mut Peer,
        subscription: &Subscription,
        len: usize,
        is_along: bool,
    ) {
        let len = len.min(SLOT_BYTES);
        let Peer { path: Some(path), downlink, next_transport_sequence, .. } = peer else { return };
        let now_us = downlink.estimator_us(self.moment.since_epoch_us);
        let is_numbered = subscription.header.as_ref().is_some_and(HeaderTemplate::is_numbered);
        let number = is_numbered.then_some(*next_transport_sequence);
        if is_numbered {
            *next_transport_sequence = next_transport_sequence.wrapping_add(1);
        }
        downlink.estimator.on_sent_at(number, now_us, len, self.kind);
        match is_along {
            false => self.out.commit_apart(path, len),
            true => self.out.commit_along(path, len),
        }
    }
}
