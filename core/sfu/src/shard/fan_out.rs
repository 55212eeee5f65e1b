//! What has just come, sent at once to whom nothing waits for.
//!
//! A packet that follows in its stream waits for the flush of its turn. There, what came of one
//! stream goes to one peer after the other, numbered, written and sealed in one go; who has
//! something waiting already, or has to wait, is owed it as ever.

use std::{ops::Range, time::Instant};

use parlor_model::TrackKind;

use super::{
    Shard,
    flush::{Moment, Room},
    owe::{Arrived, Coming, Owing, Waits, is_simple, priority},
    send::{Link, Unsent},
};
use crate::{
    batch::{MAX_RUN_DATAGRAMS, SendBatch},
    forward::{
        Subscription,
        red::Redundancy,
        sent::SentPacket,
        write::{Written, write_plain},
    },
    peer::{Peer, Source},
    receive::Stream,
    track::{Route, Track},
};

/// Packets that wait for the flush; with more, all are owed.
const MAX_ARRIVED: usize = 128;

/// Packets that wait for the flush, each the newest of its stream when it came, and how far that
/// flush has come.
#[derive(Default)]
pub(super) struct Waiting {
    packets: Vec<Coming>,
    /// The packets before this one have been dealt with, and of this one and those that go with
    /// it the routes before that.
    first: usize,
    first_route: usize,
}

impl Waiting {
    fn clear(&mut self) {
        self.packets.clear();
        (self.first, self.first_route) = (0, 0);
    }

    /// The next packets that come of one stream.
    fn group(&self) -> Option<Range<usize>> {
        let left = self.packets.get(self.first..)?;
        let Coming { source: first, .. } = left.first()?;
        let goes_along = |coming: &&Coming| {
            let Source { track, stream, .. } = coming.source;
            (track, stream) == (first.track, first.stream)
        };
        let count = left.iter().take(MAX_RUN_DATAGRAMS).take_while(goes_along).count();
        Some(self.first..self.first + count)
    }
}

impl Shard {
    /// Forwards a packet: in the flush where it only follows, now where it may change what is
    /// forwarded.
    pub(super) fn forward(&mut self, now: Instant, source: Source, number: u64, keyframe: bool) {
        let Some(track) = self.tracks.get(source.track) else { return };
        let Some(stream) = track.streams.get(usize::from(source.stream)) else { return };
        let newest = stream.history.highest();
        let coming = Coming { source, number, newest, keyframe };
        let follows = number == newest
            && stream.history.facts(number).is_some_and(is_simple)
            && !(keyframe && track.kind == TrackKind::Video);
        if follows && self.arrived.packets.len() < MAX_ARRIVED {
            self.arrived.packets.push(coming);
            return;
        }
        self.owe_arrived(now);
        self.owe(now, &coming, 0);
    }

    /// Owes what waits for the flush, before anything changes that it depends on.
    pub(super) fn owe_arrived(&mut self, now: Instant) {
        if self.arrived.packets.is_empty() {
            return;
        }
        let waiting = std::mem::take(&mut self.arrived);
        let begun = waiting.group().unwrap_or_default();
        for (at, coming) in waiting.packets.iter().enumerate().skip(waiting.first) {
            let first_route = if begun.contains(&at) { waiting.first_route } else { 0 };
            self.owe(now, coming, first_route);
        }
        self.arrived = waiting;
        self.arrived.clear();
    }

    /// Sends what waits for the flush, or owes it.
    pub(super) fn fan_out(&mut self, moment: &Moment, out: &mut SendBatch) -> Room {
        while let Some(group) = self.arrived.group() {
            if self.fan_out_group(moment, group.clone(), out) == Room::Full {
                return Room::Full;
            }
            (self.arrived.first, self.arrived.first_route) = (group.end, 0);
        }
        self.arrived.clear();
        Room::Left
    }

    fn fan_out_group(&mut self, moment: &Moment, group: Range<usize>, out: &mut SendBatch) -> Room {
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
            kind: *kind,
            at: first.source.stream,
            is_whole: ends_frame(*kind, packets.iter().flatten()),
            moment,
            out,
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
        if self.arrived.first_route == 0 {
            let gone = packets.iter().filter(|packet| packet.is_none()).count();
            fan.owing.counters.unsent_history += gone as u64;
        }
        let mut room = Room::Left;
        let routes = routes.get_mut(self.arrived.first_route..).unwrap_or_default();
        for route in routes {
            if !fan.out.has_room(count) && !fan.out.is_empty() {
                room = Room::Full;
                break;
            }
            self.arrived.first_route += 1;
            if !route.active {
                continue;
            }
            let sent = fan.send(route, packets);
            if sent < count {
                for packet in packets.iter().flatten().skip(sent) {
                    fan.owing.owe_to(route, &packet.arrived);
                }
            }
        }
        let waits = fan.owing.waits;
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
        let sent = arrived.sent.stamped(0, moment.send_time);
        let plain = arrived.stream.history.get_plain(coming.number);
        let plain = plain.filter(|(facts, _)| !facts.has_rare_extensions);
        Some(Self { arrived, payload: plain.map(|(_, payload)| payload), sent })
    }
}

/// Whether no more of a frame is to come.
fn ends_frame<'a>(kind: TrackKind, mut packets: impl Iterator<Item = &'a Departing<'a>>) -> bool {
    kind == TrackKind::Audio || packets.any(|packet| packet.arrived.facts.marker)
}

/// Packets of one stream on their way to all who get them.
struct Fan<'a> {
    kind: TrackKind,
    at: u8,
    is_whole: bool,
    moment: &'a Moment,
    out: &'a mut SendBatch,
    owing: Owing<'a>,
}

impl Fan<'_> {
    /// Sends the packets to one route where nothing is in the way. Returns how many are dealt
    /// with; the others are to be owed.
    #[inline(never)]
    fn send(&mut self, route: &Route, packets: &[Option<Departing<'_>>]) -> usize {
        let Owing { subscriptions, peers, counters, ready, .. } = &mut self.owing;
        let moment = self.moment;
        let Some(peer) = peers.get_mut(route.peer) else { return 0 };
        if route.current != Some(self.at) || peer.is_ready || peer.failed {
            return 0;
        }
        let Peer { srtp: Some(srtp), path: Some(path), downlink, .. } = peer else { return 0 };
        if !downlink.may_send_at_once(moment.since_epoch_us, moment.gathering_us, self.is_whole) {
            return 0;
        }
        let Some(subscription) = subscriptions.get_mut(route.subscription) else { return 0 };
        if !is_plain(subscription) {
            return 0;
        }
        let estimator_us = downlink.estimator_us(moment.since_epoch_us);
        let mut link = Link {
            counters,
            srtp: &srtp.sender,
            moment,
            estimator_us,
            next_transport_sequence: &mut peer.next_transport_sequence,
            estimator: &mut downlink.estimator,
        };
        let (mut sent, mut has_run) = (0, false);
        for packet in packets.iter().flatten() {
            if self.kind == TrackKind::Video && !downlink.pacer.may_send() {
                break;
            }
            let Some(slot) = self.out.slot() else { break };
            let number = link.number(subscription);
            let written =
                match write(slot, subscription, route.max_temporal, packet, number, moment) {
                    Ok(written) => link.seal(slot, subscription, &written, 0, self.kind),
                    Err(NotWritten::DoesNotFollow) => break,
                    Err(NotWritten::Unsent(unsent)) => Err(unsent),
                };
            downlink.pacer.note_passed(packet.arrived.size_bytes);
            let len = link.note(written);
            match has_run {
                false => self.out.commit_apart(path, len),
                true => self.out.commit_along(path, len),
            }
            has_run |= len > 0;
            sent += 1;
        }
        if sent > 0 && moment.gathering_us > 0 {
            downlink.has_burst(moment.since_epoch_us, moment.gathering_us);
        }
        if downlink.estimator.timeout_may_have_changed() {
            peer.is_ready = true;
            ready.push(route.peer);
        }
        sent
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

/// Why a packet was not written.
enum NotWritten {
    /// It is to be owed.
    DoesNotFollow,
    Unsent(Unsent),
}

/// Numbers, remembers and writes a packet that simply follows.
#[inline(never)]
fn write<'a>(
    slot: &mut [u8],
    subscription: &mut Subscription,
    max_temporal: u8,
    packet: &Departing<'a>,
    transport_sequence: u16,
    moment: &Moment,
) -> Result<Written<'a>, NotWritten> {
    let Departing { arrived, payload: Some(payload), sent } = packet else {
        return Err(NotWritten::DoesNotFollow);
    };
    let Arrived { at, facts, stream, .. } = *arrived;
    let codec = subscription.codec(facts.codec_index);
    let Some(codec) = codec.filter(|codec| codec.redundancy == Redundancy::Untouched) else {
        return Err(NotWritten::DoesNotFollow);
    };
    let follows = subscription.munger.follow(moment.now, at, facts, max_temporal);
    let Some((number, timestamp, indices)) = follows else {
        return Err(NotWritten::DoesNotFollow);
    };
    subscription.last_codec = facts.codec_index;
    // The cipher must never see a number twice.
    let place = subscription.sent.insert(number, sent, moment.since_epoch_ms);
    let Some(place) = place else { return Err(NotWritten::Unsent(Unsent::Twice)) };
    (place.timestamp, place.transport_sequence) = (timestamp, transport_sequence);
    place.indices = indices;
    let sent = *place;
    let packet = (facts, *payload);
    write_plain(slot, subscription, &codec, (number, &sent), &stream.history, packet)
        .ok_or(NotWritten::Unsent(Unsent::Unsealed))
}
