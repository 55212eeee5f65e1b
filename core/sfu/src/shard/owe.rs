//! From a packet that has come to packets that subscribers are owed.

use std::{cell::OnceCell, collections::VecDeque, time::Instant};

use parlor_congestion::{Pacer, Priority};
use parlor_model::TrackKind;

use super::Shard;
use crate::{
    arena::{Arena, Key},
    command::MediaEvent,
    counters::Counters,
    forward::{
        Queued, Sending, Subscription,
        munger::{Held, Munged},
        red::{Redundancy, choose_added},
        select::Wanted,
        sent::{self, SentPacket},
    },
    peer::{Peer, Source, bring_forward},
    receive::{
        MAX_REPLAY, Stream,
        bitrate::OVERHEAD_BYTES,
        frame::Layering,
        history::{History, PacketFacts},
    },
    timers::Timers,
    track::{Route, Track, accepts},
};

/// A packet that has come and is to be forwarded.
#[derive(Clone, Copy)]
pub(super) struct Coming {
    pub source: Source,
    pub number: u64,
    /// The newest of its stream when it came.
    pub newest: u64,
    pub keyframe: bool,
    /// Nothing more of its frame is to come.
    pub ends_frame: bool,
    pub came: Instant,
}

impl Coming {
    /// Whether it is of the same stream.
    #[inline]
    pub fn goes_along(&self, other: &Self) -> bool {
        let of = |Source { track, stream, .. }: Source| (track, stream);
        of(self.source) == of(other.source)
    }
}

impl Shard {
    /// Owes a packet to all that its stream is forwarded to, but for the first so many routes.
    pub(super) fn owe(&mut self, now: Instant, coming: &Coming, first_route: usize) {
        let now_us = self.micros(now);
        let Some(track) = self.tracks.get_mut(coming.source.track) else { return };
        if track.muted {
            self.counters.dropped_muted += 1;
            return;
        }
        let Track { kind, streams, routes, .. } = track;
        let Some(packet) = Arrived::new(streams, coming) else {
            self.counters.unsent_history += 1;
            return;
        };
        let mut owing = Owing {
            now,
            now_us,
            streams,
            priority: priority(*kind),
            counters: &mut self.counters,
            subscriptions: &mut self.subscriptions,
            peers: &mut self.peers,
            events: &mut self.events,
            timers: &mut self.timers,
            ready: &mut self.ready,
            waits: Waits::default(),
        };
        for route in routes.iter_mut().skip(first_route).filter(|route| route.active) {
            owing.owe_to(route, &packet);
        }
        let (waits, may_start) = (owing.waits, packet.may_start);
        self.ask_for_keyframe(now, coming, may_start, waits);
    }

    /// Asks for the keyframe that somebody waits for.
    pub(super) fn ask_for_keyframe(
        &mut self,
        now: Instant,
        coming: &Coming,
        may_start: bool,
        waits: Waits,
    ) {
        let Coming { source, keyframe, .. } = *coming;
        let is_wanted = keyframe && waits.for_stream || waits.for_layer;
        if !is_wanted && !may_start {
            return;
        }
        let Some(track) = self.tracks.get_mut(source.track) else { return };
        let Some(stream) = track.streams.get_mut(usize::from(source.stream)) else { return };
        if is_wanted && stream.keyframe.due().is_none() {
            stream.keyframe.request(now, stream.layer);
            self.want_keyframes(source.track);
        } else if may_start && !is_wanted {
            // It was asked for as the stream came to life, with this one.
            stream.keyframe.stop();
        }
    }
}

/// What leaves first of a kind of track.
#[inline]
pub(super) fn priority(kind: TrackKind) -> Priority {
    match kind {
        TrackKind::Audio => Priority::Audio,
        TrackKind::Video => Priority::Video,
    }
}

/// Whether anybody waits for a keyframe.
#[derive(Clone, Copy, Default)]
pub(super) struct Waits {
    /// Of a stream that is not forwarded to them yet.
    for_stream: bool,
    /// Of the one that is, for want of which a layer is left out.
    for_layer: bool,
}

/// Why a subscription does not get a packet.
enum Unforwarded {
    /// Its layer is not wanted.
    Unwanted,
    Late,
    Codec,
}

/// How a packet stands to what a subscription is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Its stream is forwarded from here on.
    Begins,
    GoesOn,
    /// Another stream is forwarded, or none: only what was overtaken may still come.
    IsOver,
}

/// A packet as all who may get it see it.
pub(super) struct Arrived<'a> {
    pub at: u8,
    pub stream: &'a Stream,
    pub facts: &'a PacketFacts,
    /// See [`choose_added`]; worked out for the first who needs it.
    added: OnceCell<u8>,
    /// What is remembered of it where it leaves as it came.
    pub sent: SentPacket,
    pub size_bytes: usize,
    coming: Coming,
    /// Whether its stream may be forwarded from here on. A keyframe whose beginning is repaired
    /// late brings along what has come of it since.
    pub may_start: bool,
    is_simple: bool,
    pub has_layers: bool,
}

impl<'a> Arrived<'a> {
    #[inline]
    pub fn new(streams: &'a [Stream], coming: &Coming) -> Option<Self> {
        let Coming { source, number, newest, keyframe, .. } = *coming;
        let at = source.stream;
        let stream = streams.get(usize::from(at))?;
        let facts = stream.history.facts(number)?;
        let munged = Munged {
            number,
            timestamp: facts.timestamp,
            marker: facts.marker,
            indices: facts.frame.indices,
            active: 0,
        };
        Some(Self {
            at,
            stream,
            facts,
            added: OnceCell::new(),
            sent: SentPacket::new(&munged, sent::Source { stream: at, number, added: 0 }),
            size_bytes: size_bytes(&stream.history, number),
            coming: *coming,
            may_start: keyframe && newest - number <= MAX_REPLAY,
            is_simple: is_simple(facts) && number == newest,
            has_layers: facts.frame.layering != Layering::None,
        })
    }

    #[inline]
    fn number(&self) -> u64 {
        self.facts.number
    }

    #[inline]
    fn is_late(&self) -> bool {
        self.number() < self.coming.newest
    }

    /// The redundancy that a subscription gets with it.
    #[inline]
    fn added(&self, redundancy: Redundancy) -> u8 {
        match redundancy {
            Redundancy::Added(_) => {
                *self.added.get_or_init(|| choose_added(&self.stream.history, self.facts))
            }
            _ => 0,
        }
    }
}

/// Most packets follow in a stream without layers inside, or with temporal ones.
#[inline]
pub(super) fn is_simple(facts: &PacketFacts) -> bool {
    matches!(facts.frame.layering, Layering::None | Layering::Temporal)
}

/// Who may be owed a packet.
struct To<'a> {
    subscription: &'a mut Subscription,
    route: &'a mut Route,
    pacer: &'a mut Pacer<Queued>,
    wanted: Wanted,
}

/// What owing the packets of a track takes.
pub(super) struct Owing<'a> {
    pub now: Instant,
    pub now_us: i64,
    pub streams: &'a [Stream],
    pub priority: Priority,
    pub counters: &'a mut Counters,
    pub subscriptions: &'a mut Arena<Subscription>,
    pub peers: &'a mut Arena<Peer>,
    pub events: &'a mut VecDeque<MediaEvent>,
    pub timers: &'a mut Timers,
    pub ready: &'a mut Vec<Key<Peer>>,
    pub waits: Waits,
}

impl Owing<'_> {
    /// Owes a packet to one route, which is active, if it gets it.
    #[inline]
    pub fn owe_to(&mut self, route: &mut Route, packet: &Arrived<'_>) {
        let at = packet.at;
        let starts = route.current != Some(at);
        let may_start = packet.may_start && (!starts || accepts(route, self.streams, at));
        if starts && !packet.is_late() && !may_start {
            self.waits.for_stream |= route.target == Some(at);
            return;
        }
        let key = route.subscription;
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        let Some(peer) = self.peers.get_mut(route.peer) else { return };
        let mut owed = Owed {
            now: self.now,
            now_us: self.now_us,
            streams: self.streams,
            priority: self.priority,
            counters: self.counters,
        };
        let pacer = &mut peer.downlink.pacer;
        if starts || !packet.is_simple || !owed.follow(subscription, pacer, route, packet) {
            let begins = starts && may_start && subscription.munger.may_start(at, packet.number());
            self.waits.for_stream |= starts && !begins && route.target == Some(at);
            let wanted = route.wanted(self.streams.len() == 1);
            let mut to = To { subscription, route, pacer, wanted };
            let is_owed = if begins || packet.may_start && !starts && packet.is_late() {
                owed.owe_all(&mut to, &packet.coming, begins)
            } else {
                owed.owe(&mut to, packet, if starts { Way::IsOver } else { Way::GoesOn })
            };
            self.waits.for_layer |= subscription.munger.waits_for_keyframe();
            if !is_owed {
                return;
            }
        }
        if !subscription.started {
            subscription.started = true;
            let subscription = subscription.id;
            self.events.push_back(MediaEvent::SubscriptionStarted { subscription });
            // How to play it in sync is told with the first packet, where it is known.
            bring_forward(&mut peer.deadlines.report, self.now);
            self.timers.set(route.peer.index(), peer.next_deadline());
        }
        if !peer.is_ready {
            peer.is_ready = true;
            self.ready.push(route.peer);
        }
    }
}

/// What owing one packet takes, whoever it goes to.
struct Owed<'a> {
    now: Instant,
    now_us: i64,
    streams: &'a [Stream],
    priority: Priority,
    counters: &'a mut Counters,
}

impl Owed<'_> {
    /// Owes the packet that follows in a stream. `false`: it may be something else, see
    /// [`Self::owe`].
    #[inline(never)]
    fn follow(
        &mut self,
        subscription: &mut Subscription,
        pacer: &mut Pacer<Queued>,
        route: &Route,
        packet: &Arrived<'_>,
    ) -> bool {
        let facts = packet.facts;
        let is_plain = subscription.codec(facts.codec_index).is_some_and(|codec| {
            matches!(codec.redundancy, Redundancy::Untouched | Redundancy::Relabelled(_))
        });
        if !is_plain {
            return false;
        }
        let munger = &mut subscription.munger;
        let follows =
            munger.follow(&self.now, packet.at, (facts, packet.has_layers), route.max_temporal);
        let Some((number, timestamp, indices)) = follows else { return false };
        subscription.last_codec = facts.codec_index;
        let indices = indices.unwrap_or(facts.frame.indices);
        let sent = packet.sent.renumbered(number, timestamp, indices);
        let queued =
            Queued { subscription: route.subscription, number, sending: Sending::First(sent) };
        if pacer.push(self.now_us, queued, packet.size_bytes, self.priority).is_err() {
            self.counters.unsent_queue_full += 1;
        }
        true
    }

    /// Owes a packet and says whether it does.
    #[inline(never)]
    fn owe(&mut self, to: &mut To<'_>, packet: &Arrived<'_>, way: Way) -> bool {
        match self.number(to, packet, way) {
            Ok((number, sent)) => {
                let subscription = to.route.subscription;
                let queued = Queued { subscription, number, sending: Sending::First(sent) };
                if to.pacer.push(self.now_us, queued, packet.size_bytes, self.priority).is_err() {
                    self.counters.unsent_queue_full += 1;
                }
                return true;
            }
            Err(Unforwarded::Unwanted) => {}
            Err(Unforwarded::Late) => self.counters.unforwarded_late += 1,
            Err(Unforwarded::Codec) => self.counters.unforwarded_codec += 1,
        }
        false
    }

    /// Owes a keyframe and what has come after it.
    #[cold]
    fn owe_all(&mut self, to: &mut To<'_>, coming: &Coming, begins: bool) -> bool {
        let stream = coming.source.stream;
        let mut owed = false;
        for number in coming.number..=coming.newest {
            let coming = Coming { number, ..*coming };
            let Some(packet) = Arrived::new(self.streams, &coming) else { continue };
            let way = match to.route.current == Some(stream) {
                true => Way::GoesOn,
                false if begins => Way::Begins,
                false => Way::IsOver,
            };
            if self.owe(to, &packet, way) {
                owed = true;
                if way == Way::Begins {
                    to.route.current = Some(stream);
                }
            }
        }
        owed
    }

    /// Gives a packet its number in the subscription.
    #[inline(always)]
    fn number(
        &self,
        to: &mut To<'_>,
        packet: &Arrived<'_>,
        way: Way,
    ) -> Result<(u64, SentPacket), Unforwarded> {
        let (now, wanted, facts) = (self.now, to.wanted, packet.facts);
        let scalability = packet.stream.scalability.as_ref();
        let subscription = &mut *to.subscription;
        let codec = subscription.codec(facts.codec_index).ok_or(Unforwarded::Codec)?;
        let munger = &mut subscription.munger;
        if way == Way::Begins {
            let reference = in_clock_of(self.streams, munger.stream(), packet.at, facts.timestamp);
            munger.start(now, packet.at, facts, reference, scalability, wanted);
        }
        let munged = match way {
            Way::Begins | Way::GoesOn => munger.munge(now, packet.at, facts, scalability, wanted),
            Way::IsOver => munger.munge_late(packet.at, facts),
        };
        let munged = munged.map_err(|held| match held {
            Held::Unwanted => Unforwarded::Unwanted,
            Held::Late => Unforwarded::Late,
        })?;
        let added = packet.added(codec.redundancy);
        let from = sent::Source { stream: packet.at, number: facts.number, added };
        subscription.last_codec = facts.codec_index;
        Ok((munged.number, SentPacket::new(&munged, from)))
    }
}

/// The timestamp that `timestamp` of the stream `from` would have in the stream `to`.
fn in_clock_of(streams: &[Stream], to: Option<u8>, from: u8, timestamp: u32) -> Option<u32> {
    let to = to?;
    if to == from {
        return Some(timestamp);
    }
    let ntp = streams.get(usize::from(from))?.ntp_of(timestamp)?;
    streams.get(usize::from(to))?.timestamp_at(ntp)
}

/// About how long a packet that has left will be when it leaves again, in bytes.
pub(super) fn sent_bytes(track: Option<&Track>, sent: &SentPacket) -> usize {
    let stream = track.and_then(|track| track.streams.get(sent.stream()));
    stream.map_or(0, |stream| size_bytes(&stream.history, sent.source(stream.history.highest())))
}

/// About how long a packet will be when it leaves, in bytes.
pub(super) fn size_bytes(history: &History, number: u64) -> usize {
    OVERHEAD_BYTES + history.get(number).map_or(0, |(_, parts)| parts.payload.len())
}
