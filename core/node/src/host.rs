//! One room with its participants' sockets and connections: turns the room's events into
//! messages and commands.

use crate::{
    connection::Negotiated,
    io::SessionId,
    member::Publication,
    members::Members,
    outside::{Address, Outside},
    reliable::SentData,
    rpc::PendingRpc,
    statistics::ms,
};
use livekit_protocol as proto;
use parlor_model::{
    Codec, DisconnectReason, Now, ParticipantSid, RoomName, ShardId, TrackId, TrackKind, TrackSid,
};
use parlor_room::{Audience, Command, Event, Participant, Refusal, Room, RoomSettings};
use parlor_sdp::{PublishedTrack, ReceivedSection};
use parlor_sfu::command::MediaCommand;
use parlor_signal::{
    frame::Encoder,
    info,
    response::{self, RoomSecrets},
};
use prost::Message as _;
use proto::signal_response::Message;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

/// An `update` with more participants than fit is sent in parts.
pub const UPDATE_BYTES_MAX: usize = 128 * 1024;
/// How many of the latest nonces of API data are remembered, so that a retry is sent once.
pub const NONCES_MAX: usize = 100;

const SIF_TRAILER_LENGTH: usize = 44;
const TURN_PASSWORD_LENGTH: usize = 43;

pub(crate) struct Host {
    pub(crate) room: Room,
    /// The media thread that its participants come to until it has its share of them.
    pub(crate) shard: ShardId,
    pub(crate) members: Members,
    pub(crate) turn_password: String,
    /// Whether it outlives the process.
    pub(crate) is_kept: bool,
    /// Whether it ends with the server only, and is there again at the next start.
    pub(crate) returns: bool,
    pub(crate) nonces: VecDeque<Vec<u8>>,
    pub(crate) sif_trailer: Vec<u8>,
    pub(crate) sent_data: SentData,
    /// What the packet path knows each track as.
    pub(crate) tracks: BTreeMap<TrackSid, Publication>,
    /// What is wanted of tracks in other rooms, by the likeness of their publisher there.
    pub(crate) wanted_elsewhere: BTreeMap<ParticipantSid, crate::forward::Wanted>,
    /// What publishers were told that is wanted of their video.
    pub(crate) demand: BTreeMap<TrackSid, Vec<parlor_room::Demand>>,
    pub(crate) demand_changed: BTreeSet<TrackSid>,
    /// Calls of the server API to methods of participants, by id.
    pub(crate) rpcs: BTreeMap<String, PendingRpc>,
    pub(crate) announced: crate::webhook::Announced,
    pub(crate) speakers: crate::speakers::Speakers,
    pub(crate) qualities: crate::quality::Qualities,
    pub(crate) preferences: crate::preference::Preferences,
    /// Whose connections have to come to carry something else.
    pub(crate) unsettled: BTreeSet<ParticipantSid>,
    /// The deadline under which the node looks after this room.
    pub(crate) scheduled: Option<Instant>,
}

impl Host {
    pub(crate) fn new(
        cx: &mut Outside,
        now: Now,
        name: RoomName,
        settings: RoomSettings,
        shard: ShardId,
    ) -> Self {
        let sid = cx.sid("RM_");
        tracing::info!(room = %name, sid, "room created");
        let turn_password = cx.secret(TURN_PASSWORD_LENGTH);
        let room = Room::new(name, sid.into(), settings, now);
        let host = Self::with_room(cx, room, shard, turn_password);
        host.announce_started(cx, now);
        host
    }

    pub(crate) fn with_room(
        cx: &mut Outside,
        room: Room,
        shard: ShardId,
        turn_password: String,
    ) -> Self {
        Self {
            room,
            shard,
            members: Members::default(),
            turn_password,
            is_kept: false,
            returns: false,
            nonces: VecDeque::new(),
            sif_trailer: cx.secret(SIF_TRAILER_LENGTH).into_bytes(),
            announced: Default::default(),
            sent_data: SentData::default(),
            tracks: BTreeMap::new(),
            wanted_elsewhere: BTreeMap::new(),
            demand: BTreeMap::new(),
            demand_changed: BTreeSet::new(),
            rpcs: BTreeMap::new(),
            speakers: Default::default(),
            qualities: Default::default(),
            preferences: Default::default(),
            unsettled: BTreeSet::new(),
            scheduled: None,
        }
    }

    pub(crate) fn secrets(&self) -> RoomSecrets<'_> {
        RoomSecrets { turn_password: &self.turn_password, sif_trailer: &self.sif_trailer }
    }

    pub(crate) fn address(&self, participant: &ParticipantSid) -> Address {
        Address { room: self.room.name().clone(), participant: participant.clone() }
    }

    /// Applies a command whose refusal concerns nobody.
    pub(crate) fn apply(&mut self, now: Now, command: Command) {
        if let Err(refusal) = self.room.apply(now, command) {
            tracing::debug!(room = %self.room.name(), %refusal, "passed over");
        }
    }

    /// Carries out everything that follows from what was applied.
    pub(crate) fn settle(&mut self, cx: &mut Outside, now: Now) {
        while let Some(event) = self.room.poll_event() {
            self.handle_event(cx, now, event);
        }
        self.settle_demand(cx, now);
        for sid in std::mem::take(&mut self.unsettled) {
            let Some(member) = self.members.get_mut(&sid) else { continue };
            for message in member.connection.negotiate(now) {
                self.send(cx, &sid, message);
            }
        }
    }

    fn handle_event(&mut self, cx: &mut Outside, now: Now, event: Event) {
        self.announce(cx, now, &event);
        self.tell_agents(cx, now, &event);
        match event {
            Event::Updated { participants, audience } => {
                self.send_update(cx, &participants, &audience);
            }
            Event::RoomUpdated => self.send_room_update(cx),
            Event::Left { participant, reason } => {
                let active = self.members.get(&participant).and_then(|m| m.active_since);
                if let Some(since) = active {
                    let lasted = ms(now.instant.saturating_duration_since(since));
                    cx.statistics.session_duration_ms.observe(lasted);
                }
                self.remove(cx, &participant, reason);
            }
            Event::TrackAdded { participant, track, cid } => {
                if let Some(kind) = self.kind_published_by(&participant, &track) {
                    cx.statistics.publish_of(kind).attempts += 1;
                }
                self.track_added(cx, now, &participant, &track, cid);
            }
            Event::TrackPublished { participant, track } => {
                if let Some(kind) = self.kind_published_by(&participant, &track) {
                    cx.statistics.publish_of(kind).successes += 1;
                }
                self.found(now, &track);
                tracing::info!(room = %self.room.name(), %participant, %track, "track published");
                if self.room.track(&track).is_some_and(|track| track.muted) {
                    self.set_muted(cx, &track, true);
                }
            }
            Event::TrackEnded { participant, track, by_server } => {
                self.demand_changed.insert(track.clone());
                self.track_ended(cx, &participant, track, by_server);
            }
            Event::TrackMuted { participant: _, track, muted } => {
                if !muted {
                    // A publisher is told again when it goes on.
                    self.demand.remove(&track);
                    self.demand_changed.insert(track.clone());
                }
                self.set_muted(cx, &track, muted);
            }
            Event::SubscriptionPermission { subscriber, publisher, track, allowed } => {
                let publisher = publisher.as_str();
                let message = response::subscription_permission(publisher, &track, allowed);
                self.send(cx, &subscriber, message);
            }
            Event::Subscribed { subscriber, publisher, track } => {
                cx.statistics.subscribe.attempts += 1;
                self.demand_changed.insert(track.clone());
                self.subscribed(cx, &subscriber, &publisher, track);
            }
            Event::Unsubscribed { subscriber, track } => {
                self.unsubscribed(cx, &subscriber, &track);
                self.demand_changed.insert(track);
            }
            Event::DataSubscribed { subscriber, track, .. } => {
                self.data_subscription_changed(cx, &subscriber, track, true);
            }
            Event::DataUnsubscribed { subscriber, track } => {
                self.data_subscription_changed(cx, &subscriber, track, false);
            }
            Event::GrantsChanged { participant } => self.send_token(cx, now, &participant),
            Event::Closed => {
                tracing::info!(room = %self.room.name(), "room closed");
                let lasted = now.unix.saturating_sub(self.room.created_unix()).as_secs_f64();
                cx.statistics.room_duration_seconds.observe(lasted);
            }
        }
    }

    /// The kinds of what participants publish that are connected here.
    pub(crate) fn published_kinds(&self) -> impl Iterator<Item = TrackKind> {
        let connected = self.members.keys().filter_map(|sid| self.room.participant(sid));
        connected.flat_map(|publisher| publisher.published_tracks().map(|track| track.kind))
    }

    /// The kinds of what participants are sent.
    pub(crate) fn subscribed_kinds(&self) -> impl Iterator<Item = TrackKind> {
        let tracks = self.members.values().flat_map(|member| member.subscriptions.keys());
        tracks.filter_map(|track| self.room.track(track).map(|track| track.kind))
    }

    /// The kind of a track whose publisher is connected here.
    fn kind_published_by(&self, publisher: &ParticipantSid, track: &TrackSid) -> Option<TrackKind> {
        let is_here = self.members.contains_key(publisher);
        self.room.track(track).filter(|_| is_here).map(|track| track.kind)
    }

    /// Sends a message to a participant, if it has a socket.
    pub(crate) fn send(&self, cx: &mut Outside, sid: &ParticipantSid, message: Message) {
        let Some(member) = self.members.get(sid) else { return };
        let Some(session) = member.session else { return };
        if let Some(message) = member.client.adapt(message) {
            cx.send(session, member.text, &mut Encoder::new(message));
        }
    }

    fn broadcast(&self, cx: &mut Outside, audience: &Audience, message: Message) {
        let mut encoder = Encoder::new(message);
        let hears = |sid: &ParticipantSid| match audience {
            Audience::Everyone => true,
            Audience::Except(other) => sid != other,
            Audience::Only(only) => sid == only,
        };
        for member in self.members.values().filter(|member| hears(&member.sid)) {
            if let Some(session) = member.session {
                cx.send(session, member.text, &mut encoder);
            }
        }
    }

    pub(crate) fn send_update(
        &self,
        cx: &mut Outside,
        who: &[ParticipantSid],
        audience: &Audience,
    ) {
        let infos = who.iter().filter_map(|sid| self.room.participant(sid));
        let mut batch: Vec<proto::ParticipantInfo> = Vec::new();
        let mut batch_bytes = 0;
        let send = |cx: &mut Outside, participants| {
            let update = proto::ParticipantUpdate { participants };
            self.broadcast(cx, audience, Message::Update(update));
        };
        for info in
            infos.map(|info| info::participant_info(info, &cx.config.region)).collect::<Vec<_>>()
        {
            let bytes = info.encoded_len();
            if !batch.is_empty() && batch_bytes + bytes > UPDATE_BYTES_MAX {
                batch_bytes = 0;
                send(cx, std::mem::take(&mut batch));
            }
            batch_bytes += bytes;
            batch.push(info);
        }
        if !batch.is_empty() {
            send(cx, batch);
        }
    }

    fn send_room_update(&self, cx: &mut Outside) {
        let room = cx.server.room_with_counts(&self.room, &self.turn_password);
        let update = proto::RoomUpdate { room: Some(room) };
        self.broadcast(cx, &Audience::Everyone, Message::RoomUpdate(update));
    }

    pub(crate) fn send_token(&mut self, cx: &mut Outside, now: Now, sid: &ParticipantSid) {
        let Some(this) = self.room.participant(sid) else { return };
        let Some(member) = self.members.get_mut(sid) else { return };
        let token = member.refresh_token(cx, now, this);
        self.send(cx, sid, Message::RefreshToken(token));
    }

    /// A participant is out of the room: its socket, connections and ids end.
    fn remove(&mut self, cx: &mut Outside, sid: &ParticipantSid, reason: DisconnectReason) {
        tracing::info!(room = %self.room.name(), participant = %sid, ?reason, "left");
        if self.members.get(sid).is_some_and(|member| !member.leaves_silently) {
            let leave = match self.members.get(sid).is_some_and(|member| member.is_moved) {
                true => response::leave_for_room(reason),
                false => response::leave(reason),
            };
            self.send(cx, sid, leave);
        }
        let Some(member) = self.members.remove(sid) else { return };
        cx.load.remove(member.connection.shard());
        // What it wanted of others is wanted no more.
        self.demand_changed.extend(member.subscriptions.into_keys());
        if let Some(session) = member.session {
            cx.close(session);
        }
        member.connection.close(cx);
        if let Some(now) = self.rpcs.values().map(|rpc| rpc.due).min() {
            // Nothing is late at the earliest deadline but what waits for who has gone.
            self.expire_rpcs(cx, now - std::time::Duration::from_nanos(1));
        }
    }

    /// The socket of a participant is gone: one that never was active leaves with it.
    pub(crate) fn session_gone(&mut self, now: Now, sid: &ParticipantSid) {
        let Some(member) = self.members.get_mut(sid) else { return };
        member.session = None;
        if !member.active {
            self.apply(now, Command::Leave(sid.clone(), DisconnectReason::SignalClose));
        }
    }

    /// The socket of a participant has to end, without a word.
    pub(crate) fn close_session(&mut self, cx: &mut Outside, now: Now, sid: &ParticipantSid) {
        let session: Option<SessionId> = self.members.get(sid).and_then(|member| member.session);
        if let Some(session) = session {
            cx.close(session);
        }
        self.session_gone(now, sid);
    }

    fn track_added(
        &mut self,
        cx: &mut Outside,
        now: Now,
        publisher: &ParticipantSid,
        track: &TrackSid,
        cid: String,
    ) {
        self.identify_encodings(cx, publisher, track);
        let info = self.room.track(track).map(info::track_info);
        let published = proto::TrackPublishedResponse { cid, track: info };
        self.send(cx, publisher, Message::TrackPublished(published));
        // Its section may have been offered before it was announced.
        let publications = self.publications(publisher);
        let Some(member) = self.members.get_mut(publisher) else { return };
        let received = member.connection.match_publications(cx, &publications);
        self.take_received(cx, now, publisher, received);
    }

    fn track_ended(
        &mut self,
        cx: &mut Outside,
        publisher: &ParticipantSid,
        track: TrackSid,
        by_server: bool,
    ) {
        tracing::info!(room = %self.room.name(), participant = %publisher, %track, "track ended");
        let publication = self.tracks.remove(&track).filter(|known| !known.is_forwarded);
        for id in publication.iter().flat_map(|publication| &publication.ids) {
            cx.tracks.remove(id);
        }
        if by_server {
            let ended = proto::TrackUnpublishedResponse { track_sid: track.to_string() };
            self.send(cx, publisher, Message::TrackUnpublished(ended));
        }
    }

    fn set_muted(&self, cx: &mut Outside, track: &TrackSid, muted: bool) {
        let publication = self.tracks.get(track).filter(|known| !known.is_forwarded);
        for track in publication.iter().flat_map(|publication| &publication.ids).copied() {
            cx.command(track.home(), MediaCommand::SetTrackMuted { track, muted });
        }
    }

    /// What the participant has announced, in the terms of negotiation.
    pub(crate) fn publications(&self, sid: &ParticipantSid) -> Vec<PublishedTrack> {
        let Some(participant) = self.room.participant(sid) else { return Vec::new() };
        let mut published = Vec::new();
        for track in &participant.tracks {
            let Some(publication) = self.tracks.get(&track.sid) else { continue };
            let encodings = publication.ids.iter().zip(&track.codecs);
            for (id, codec) in encodings.filter(|(_, codec)| !codec.cid.is_empty()) {
                published.push(PublishedTrack {
                    track: *id,
                    cid: codec.cid.clone(),
                    kind: track.kind,
                    source: track.announced.source,
                    codec: Codec::from_mime_type(&codec.mime_type)
                        .filter(|_| track.kind == TrackKind::Video),
                    disable_red: track.announced.disable_red,
                    disable_dtx: track.announced.disable_dtx,
                    stereo: track.announced.stereo,
                });
            }
        }
        published
    }

    /// Tells the client what a description of its brought, and the room what it publishes now.
    pub(crate) fn take_negotiated(
        &mut self,
        cx: &mut Outside,
        now: Now,
        sid: &ParticipantSid,
        negotiated: Negotiated,
    ) {
        for message in negotiated.messages {
            self.send(cx, sid, message);
        }
        self.take_received(cx, now, sid, negotiated.received);
        let Some(member) = self.members.get_mut(sid) else { return };
        let track_of = |subscription| {
            let mut known = member.subscriptions.iter();
            known.find(|(_, id)| **id == subscription).map(|(track, _)| track.clone())
        };
        let carried: Vec<_> = negotiated
            .carried
            .iter()
            .filter_map(|(subscription, _)| track_of(*subscription))
            .collect();
        let mut unsupported = Vec::new();
        for subscription in negotiated.unsupported {
            if let Some(track) = track_of(subscription) {
                unsupported.push((subscription, track));
            }
        }
        unsupported.retain(|(subscription, _)| member.told_unsupported.insert(*subscription));
        for (_, track) in unsupported {
            let error = proto::SubscriptionError::SeCodecUnsupported.into();
            let refusal = proto::SubscriptionResponse { track_sid: track.to_string(), err: error };
            self.send(cx, sid, Message::SubscriptionResponse(refusal));
        }
        self.take_carried(cx, sid, &negotiated.carried);
        for track in carried {
            self.tell_subscribed(cx, sid, &track);
        }
        self.unsettled.insert(sid.clone());
    }

    /// Tells a publisher, once for each track, that somebody visible receives it.
    fn tell_subscribed(&mut self, cx: &mut Outside, subscriber: &ParticipantSid, track: &TrackSid) {
        if self.room.participant(subscriber).is_some_and(|p| p.info.permissions.hidden) {
            return;
        }
        self.tell_first_subscriber(cx, track);
    }

    pub(crate) fn tell_first_subscriber(&mut self, cx: &mut Outside, track: &TrackSid) {
        let Some(publisher) = self.room.track(track).map(|track| track.publisher.clone()) else {
            return;
        };
        let Some(publication) = self.tracks.get_mut(track) else { return };
        if !std::mem::replace(&mut publication.subscribed, true) {
            let track_sid = track.to_string();
            let message = Message::TrackSubscribed(proto::TrackSubscribed { track_sid });
            self.send(cx, &publisher, message);
        }
    }

    /// Takes over which section carries which track. A track with streams that only their first
    /// packet makes known waits for that packet; any other is published.
    pub(crate) fn take_received(
        &mut self,
        cx: &Outside,
        now: Now,
        publisher: &ParticipantSid,
        received: Vec<ReceivedSection>,
    ) {
        for section in &received {
            let Some(id) = section.track else { continue };
            let Some((_, track)) = cx.tracks.get(&id).cloned() else { continue };
            if section.ended {
                let of_track = |id: &TrackId| cx.tracks.get(id).is_some_and(|(_, of)| *of == track);
                let lives_on = |other: &ReceivedSection| {
                    !other.ended && other.track.as_ref().is_some_and(of_track)
                };
                if !received.iter().any(lives_on) {
                    let participant = publisher.clone();
                    self.apply(now, Command::Unpublish { participant, track });
                }
                continue;
            }
            let Some(codec) = section.codec else { continue };
            self.take_section(now, publisher, &track, section, codec);
        }
    }

    fn take_section(
        &mut self,
        now: Now,
        publisher: &ParticipantSid,
        track: &TrackSid,
        section: &ReceivedSection,
        codec: Codec,
    ) {
        let Some(known) = self.room.track(track) else { return };
        let mid = section.mid.to_string();
        let negotiated = known.codecs.iter().any(|known| known.mid == mid);
        if !negotiated {
            let cid = section.cid.clone().unwrap_or_else(|| known.announced.cid.clone());
            let command = Command::SetNegotiated {
                participant: publisher.clone(),
                track: track.clone(),
                cid,
                mid: mid.clone(),
                codec,
            };
            self.apply(now, command);
            for stream in section.streams.iter().filter(|s| s.rid.is_some() || s.ssrc.is_some()) {
                let command = Command::SetStream {
                    participant: publisher.clone(),
                    track: track.clone(),
                    mid: mid.clone(),
                    layer: stream.layer,
                    rid: stream.rid,
                    ssrc: stream.ssrc.unwrap_or_default(),
                };
                self.apply(now, command);
            }
        }
        if section.streams.iter().all(|stream| stream.rid.is_none()) {
            let (participant, track) = (publisher.clone(), track.clone());
            self.apply(now, Command::Publish { participant, track });
        }
    }

    pub(crate) fn participant_by_identity(
        &self,
        identity: &str,
    ) -> Option<(&Participant, &ParticipantSid)> {
        let participant = self.room.participant_by_identity(identity)?;
        Some((participant, &participant.info.sid))
    }

    /// Applies a command of the API and what follows from it.
    pub(crate) fn command(
        &mut self,
        cx: &mut Outside,
        now: Now,
        command: Command,
    ) -> Result<(), Refusal> {
        let result = self.room.apply(now, command);
        self.settle(cx, now);
        result
    }
}
