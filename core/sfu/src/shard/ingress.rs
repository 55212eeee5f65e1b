//! From a sealed packet of a publisher to packets that subscribers are owed.

use std::{
    cell::OnceCell,
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use parlor_congestion::{Pacer, Priority};
use parlor_model::{Mid, Rid, RtpTimestamp, Ssrc, TrackKind};
use parlor_rtp::{
    RtpPacket,
    extension::{AudioLevel, parse_transport_sequence_number},
    rtx::parse_rtx,
};

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
        Incoming, Received, Stream, arrivals,
        bitrate::OVERHEAD_BYTES,
        frame::Layering,
        history::{History, PacketFacts, Refused},
    },
    track::{Route, Track, accepts},
};

/// How often transport-wide feedback is sent.
pub(super) const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);
/// Most packets after a keyframe's beginning that came before it.
const MAX_REPLAY: u64 = 128;
/// How often layers are chosen anew.
pub(super) const LAYER_INTERVAL: Duration = Duration::from_millis(100);

impl Shard {
    pub(super) fn handle_rtp(&mut self, now: Instant, key: Key<Peer>, datagram: &mut [u8]) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(srtp) = peer.srtp.as_mut().filter(|_| !peer.failed) else {
            self.counters.dropped_before_keys += 1;
            return;
        };
        let Ok(header) = RtpPacket::parse_protected(datagram) else {
            self.counters.dropped_malformed += 1;
            return;
        };
        let ssrc = header.ssrc();
        let known = peer.incoming.get(ssrc).copied();
        let source = known
            .or_else(|| identify(&self.tracks, &peer.tracks, &peer.receive_extensions, &header));
        // Chromium probes a path with SSRC 0: only its arrival counts.
        if source.is_none() && ssrc != Ssrc(0) {
            self.counters.dropped_unknown_ssrc += 1;
            return;
        }
        let Ok(len) = srtp.receiver.open_rtp(datagram) else {
            self.counters.dropped_unauthentic += 1;
            return;
        };
        self.counters.rtp_received += 1;
        let Some(Ok(packet)) = datagram.get(..len).map(RtpPacket::parse) else {
            self.counters.dropped_malformed += 1;
            return;
        };
        self.record_arrival(now, key, &packet);
        let Some(source) = source else { return };
        if known.is_none() {
            self.bind_source(key, source, &packet);
        }
        self.receive(now, key, source, &packet);
    }

    fn record_arrival(&mut self, now: Instant, key: Key<Peer>, packet: &RtpPacket<'_>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let number = peer
            .receive_extensions
            .transport_cc
            .and_then(|id| packet.extension(id))
            .and_then(parse_transport_sequence_number);
        let Some(number) = number else { return };
        peer.arrivals.record(now, number, packet.ssrc());
        let due =
            if peer.arrivals.held() >= arrivals::ENOUGH { now } else { now + FEEDBACK_INTERVAL };
        if peer.deadlines.feedback.is_none_or(|at| due < at) {
            peer.deadlines.feedback = Some(due);
            self.schedule(key);
        }
    }

    /// Ties an SSRC to the stream that its first packet named.
    fn bind_source(&mut self, key: Key<Peer>, source: Source, packet: &RtpPacket<'_>) {
        let ssrc = packet.ssrc();
        let Some(track) = self.tracks.get_mut(source.track) else { return };
        let Some(stream) = track.streams.get_mut(usize::from(source.stream)) else { return };
        let before = if source.is_rtx { stream.rtx_ssrc } else { stream.ssrc };
        if source.is_rtx {
            stream.rtx_ssrc = Some(ssrc);
        } else if before.is_some() {
            stream.take_over(ssrc, packet.sequence_number());
            for route in &mut track.routes {
                route.current = route.current.filter(|current| *current != source.stream);
            }
        } else {
            stream.ssrc = Some(ssrc);
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.incoming.retain(|known, _| Some(known) != before);
        peer.incoming.insert(ssrc, source);
    }

    fn receive(&mut self, now: Instant, key: Key<Peer>, source: Source, packet: &RtpPacket<'_>) {
        let Some(track) = self.tracks.get_mut(source.track) else { return };
        let Some((codec_index, codec, is_rtx_type)) = track.codec_of(packet.payload_type()) else {
            self.counters.dropped_unknown_payload_type += 1;
            return;
        };
        let Some(stream) = track.streams.get_mut(usize::from(source.stream)) else { return };
        let is_rtx = source.is_rtx || is_rtx_type;
        let (sequence, payload) = if is_rtx {
            match parse_rtx(packet.payload()) {
                Some((sequence, payload)) if is_rtx_type => (sequence, payload),
                _ if packet.payload().is_empty() => {
                    self.counters.dropped_padding += 1;
                    return;
                }
                _ => {
                    self.counters.dropped_bad_rtx += 1;
                    return;
                }
            }
        } else {
            (packet.sequence_number(), packet.payload())
        };
        let is_first = stream.last_packet.is_none();
        let was_alive_since = stream.alive_since;
        let incoming = Incoming { packet, sequence, payload, is_rtx, codec, codec_index };
        let received = stream.receive(now, &incoming, &track.extensions);
        let (number, keyframe) = match received {
            Received::Stored { number, keyframe, gap, lost_track } => {
                let is_watched = |route: &Route| route.current == Some(source.stream);
                if lost_track && track.routes.iter().any(is_watched) {
                    stream.keyframe.request(now, stream.layer);
                }
                self.note_needs(key, source, gap);
                (number, keyframe)
            }
            Received::Padding { gap } => {
                self.counters.dropped_padding += 1;
                self.note_needs(key, source, gap);
                return;
            }
            Received::Refused(refused) => {
                *match refused {
                    Refused::Duplicate => &mut self.counters.dropped_duplicate,
                    Refused::TooOld => &mut self.counters.dropped_too_old,
                    Refused::TooLong => &mut self.counters.dropped_malformed,
                } += 1;
                return;
            }
        };
        if is_rtx {
            self.counters.repaired += 1;
        }
        let mut heard = false;
        let Some(track) = self.tracks.get_mut(source.track) else { return };
        let Some(stream) = track.streams.get(usize::from(source.stream)) else { return };
        let level = stream.history.facts(number).filter(|_| !is_rtx && !track.muted);
        if let Some(facts) = level
            && let Some(level) = facts.audio_level.and_then(|byte| AudioLevel::parse(&[byte]))
        {
            let timestamp = RtpTimestamp(facts.timestamp);
            track.loudness.observe(now, level.minus_dbov, timestamp, stream.clock_rate());
            heard = true;
        }
        let revived = stream.alive_since != was_alive_since;
        if is_first {
            let (id, rid, layer) = (track.id, stream.rid, stream.layer);
            if let Some(ssrc) = stream.ssrc {
                self.event(MediaEvent::StreamStarted { track: id, rid, ssrc, layer });
            }
        }
        if heard {
            self.expect_levels(now);
        }
        if revived {
            self.choose_layers(now, source.track);
        }
        self.recover(now, source, number);
        self.forward(now, source, number, keyframe);
    }

    /// Forwards the frames of lost packets that a packet has brought along.
    fn recover(&mut self, now: Instant, source: Source, number: u64) {
        let stream = self
            .tracks
            .get_mut(source.track)
            .filter(|track| track.kind == TrackKind::Audio)
            .and_then(|track| track.streams.get_mut(usize::from(source.stream)));
        let recovered = stream.map(|stream| stream.recover(now, number)).unwrap_or_default();
        for number in recovered.into_iter().flatten() {
            self.counters.recovered += 1;
            self.forward(now, source, number, false);
        }
    }

    /// Starts the timers that a received packet calls for.
    fn note_needs(&mut self, key: Key<Peer>, source: Source, gap: bool) {
        let (Some(peer), Some(track)) = (self.peers.get_mut(key), self.tracks.get(source.track))
        else {
            return;
        };
        let Some(stream) = track.streams.get(usize::from(source.stream)) else { return };
        let mut changed = false;
        if gap
            && track.feedback.nack
            && let Some(due) = stream.missing.due()
        {
            bring_forward(&mut peer.deadlines.nack, due);
            changed = true;
        }
        if gap && let Some(due) = stream.keyframe.due() {
            bring_forward(&mut peer.deadlines.keyframe, due);
            changed = true;
        }
        if changed {
            self.schedule(key);
        }
    }

    /// Owes the packet to every subscription that its stream is forwarded to.
    fn forward(&mut self, now: Instant, source: Source, number: u64, keyframe: bool) {
        let now_us = self.micros(now);
        let Some(track) = self.tracks.get_mut(source.track) else { return };
        if track.muted {
            self.counters.dropped_muted += 1;
            return;
        }
        let priority = match track.kind {
            TrackKind::Audio => Priority::Audio,
            TrackKind::Video => Priority::Video,
        };
        let Track { streams, routes, .. } = track;
        let Some(packet) = Arrived::new(streams, source.stream, number) else { return };
        // A keyframe whose beginning is repaired late brings along what has come of it since.
        let newest = packet.stream.history.highest();
        let may_start = keyframe && newest - number <= MAX_REPLAY;
        let is_late = number < newest;
        let is_only = streams.len() == 1;
        let is_simple =
            matches!(packet.facts.frame.layering, Layering::None | Layering::Temporal) && !is_late;
        let size_bytes = size_bytes(&packet.stream.history, number);
        let (mut waits, mut waits_inside) = (false, false);
        let counters = &mut self.counters;
        let mut owing = Owing { now, now_us, streams, size_bytes, priority, counters };
        for route in routes.iter_mut().filter(|route| route.active) {
            let starts = route.current != Some(source.stream);
            if starts && !is_late && !(may_start && accepts(route, streams, source.stream)) {
                waits |= route.target == Some(source.stream);
                continue;
            }
            let Some(subscription) = self.subscriptions.get_mut(route.subscription) else {
                continue;
            };
            let Some(peer) = self.peers.get_mut(route.peer) else { continue };
            let pacer = &mut peer.downlink.pacer;
            // Most packets follow in a stream without layers inside, or with temporal ones.
            if starts || !is_simple || !owing.follow(subscription, pacer, route, &packet) {
                let begins = starts
                    && may_start
                    && accepts(route, streams, source.stream)
                    && subscription.munger.may_start(source.stream, number);
                waits |= starts && !begins && route.target == Some(source.stream);
                let wanted = route.wanted(is_only);
                let mut to = To { subscription, route, pacer, wanted };
                let owed = if begins || may_start && !starts && is_late {
                    owing.owe_all(&mut to, source.stream, number..=newest, begins)
                } else {
                    owing.owe(&mut to, &packet, if starts { Way::IsOver } else { Way::GoesOn })
                };
                waits_inside |= subscription.munger.waits_for_keyframe();
                if !owed {
                    continue;
                }
            }
            if !subscription.started {
                subscription.started = true;
                let subscription = subscription.id;
                self.events.push_back(MediaEvent::SubscriptionStarted { subscription });
                // How to play it in sync is told with the first packet, where it is known.
                bring_forward(&mut peer.deadlines.report, now);
                self.timers.set(route.peer.index(), peer.next_deadline());
            }
            if !peer.is_ready {
                peer.is_ready = true;
                self.ready.push(route.peer);
            }
        }
        let Some(stream) = streams.get_mut(usize::from(source.stream)) else { return };
        let is_wanted = keyframe && waits || waits_inside;
        if is_wanted && stream.keyframe.due().is_none() {
            stream.keyframe.request(now, stream.layer);
            self.want_keyframes(source.track);
        } else if may_start && !is_wanted {
            // It was asked for as the stream came to life, with this one.
            stream.keyframe.stop();
        }
    }
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
struct Arrived<'a> {
    at: u8,
    stream: &'a Stream,
    facts: &'a PacketFacts,
    /// See [`choose_added`]; worked out for the first who needs it.
    added: OnceCell<u8>,
    /// What is remembered of it where it leaves as it came.
    sent: SentPacket,
}

impl<'a> Arrived<'a> {
    fn new(streams: &'a [Stream], at: u8, number: u64) -> Option<Self> {
        let stream = streams.get(usize::from(at))?;
        let facts = stream.history.facts(number)?;
        let munged = Munged {
            number,
            timestamp: facts.timestamp,
            marker: facts.marker,
            indices: facts.frame.indices,
            active: 0,
        };
        let sent = SentPacket::new(&munged, sent::Source { stream: at, number, added: 0 });
        Some(Self { at, stream, facts, added: OnceCell::new(), sent })
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

/// Who may be owed a packet.
struct To<'a> {
    subscription: &'a mut Subscription,
    route: &'a mut Route,
    pacer: &'a mut Pacer<Queued>,
    wanted: Wanted,
}

/// What owing a packet takes, whoever it goes to.
struct Owing<'a> {
    now: Instant,
    now_us: i64,
    streams: &'a [Stream],
    size_bytes: usize,
    priority: Priority,
    counters: &'a mut Counters,
}

impl Owing<'_> {
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
        let follows = munger.follow(self.now, packet.at, facts, route.max_temporal);
        let Some((number, timestamp, indices)) = follows else { return false };
        subscription.last_codec = facts.codec_index;
        let sent = packet.sent.renumbered(number, timestamp, indices);
        let queued =
            Queued { subscription: route.subscription, number, sending: Sending::First(sent) };
        if pacer.push(self.now_us, queued, self.size_bytes, self.priority).is_err() {
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
                if to.pacer.push(self.now_us, queued, self.size_bytes, self.priority).is_err() {
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
    fn owe_all(
        &mut self,
        to: &mut To<'_>,
        stream: u8,
        numbers: RangeInclusive<u64>,
        begins: bool,
    ) -> bool {
        let mut owed = false;
        for number in numbers {
            let Some(packet) = Arrived::new(self.streams, stream, number) else { continue };
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

/// About how long a packet will be when it leaves, in bytes.
pub(super) fn size_bytes(history: &History, number: u64) -> usize {
    OVERHEAD_BYTES + history.get(number).map_or(0, |(_, parts)| parts.payload.len())
}

/// Which stream a packet of an unknown SSRC belongs to, by its mid and rid (RFC 8843 section 9.2,
/// RFC 8852) or, failing those, by a payload type that only one section has. Keeps nothing.
fn identify(
    tracks: &Arena<Track>,
    of_peer: &[Key<Track>],
    extensions: &parlor_model::ExtensionIds,
    packet: &RtpPacket<'_>,
) -> Option<Source> {
    let text = |id: Option<u8>| id.and_then(|id| packet.extension(id));
    let mid = text(extensions.mid).and_then(Mid::from_bytes);
    let has_type = |key: &&Key<Track>| {
        tracks.get(**key).is_some_and(|track| track.codec_of(packet.payload_type()).is_some())
    };
    let key = match mid {
        Some(mid) => {
            of_peer.iter().find(|key| tracks.get(**key).is_some_and(|track| track.mid == Some(mid)))
        }
        None => {
            let mut candidates = of_peer.iter().filter(has_type);
            candidates.next().filter(|_| candidates.next().is_none())
        }
    };
    let track = *key?;
    let known = tracks.get(track)?;
    let (_, _, is_rtx) = known.codec_of(packet.payload_type())?;
    let rid_id = if is_rtx { extensions.repaired_rid } else { extensions.rid };
    let rid = text(rid_id).and_then(Rid::from_bytes);
    let stream = match rid {
        Some(rid) => known.streams.iter().position(|stream| stream.rid == Some(rid))?,
        None if known.streams.len() == 1 => 0,
        None => return None,
    };
    Some(Source { track, stream: stream as u8, is_rtx })
}
