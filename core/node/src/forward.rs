//! Participants that are seen in further rooms, too (`ForwardParticipant`): a likeness joins the
//! other room and shows what its source shows, and its tracks are those of the source.

use crate::{
    Node,
    api::{ApiError, ApiErrorCode, ApiResponse},
    calls::{Answer, error, invalid, no_participant},
    host::Host,
    member::Publication,
    outside::Outside,
};
use livekit_protocol as proto;
use parlor_model::{DisconnectReason, Identity, Now, ParticipantSid, RoomName, TrackSid};
use parlor_room::{Command, NewParticipant, Participant, Quality, Refusal};
use std::collections::BTreeMap;

/// Most participants that are seen in further rooms, counted once for each such room.
pub const FORWARDS_MAX: usize = 10_000;

/// Somebody of one room, and its likeness in another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Forward {
    pub(crate) source: RoomName,
    /// Whoever bears it in the source: a client that begins anew is followed.
    pub(crate) identity: Identity,
    pub(crate) destination: RoomName,
    pub(crate) likeness: ParticipantSid,
}

/// What the subscribers of a likeness want of its tracks, codec by codec.
pub(crate) type Wanted = BTreeMap<TrackSid, Vec<Option<Quality>>>;

impl Node {
    /// Lets somebody be seen in another room, too, until it leaves or is removed there.
    pub(crate) fn forward_participant(
        &mut self,
        now: Now,
        request: &proto::ForwardParticipantRequest,
    ) -> Answer {
        if request.room == request.destination_room {
            return Err(invalid("destination room cannot be the same as source room", ""));
        }
        let done = Ok(ApiResponse::ParticipantForwarded(proto::ForwardParticipantResponse {}));
        let (source, destination) =
            (RoomName::from(&*request.room), RoomName::from(&*request.destination_room));
        let identity = Identity::from(&*request.identity);
        let sid = self.find_connected(&source, &identity)?;
        let is_same = |known: &Forward| {
            known.source == source && known.identity == identity && known.destination == destination
        };
        if self.forwards.iter().any(is_same) {
            return done;
        }
        if self.forwards.len() >= FORWARDS_MAX {
            let text = "too many participants are forwarded";
            return Err(error(ApiErrorCode::ResourceExhausted, text));
        }
        self.ensure_room_beside(now, &destination, &source);
        let known = self.hosts.get(&source).and_then(|host| host.room.participant(&sid)).cloned();
        let known = known.ok_or_else(no_participant)?;
        let likeness = ParticipantSid::from(self.outside.sid("PA_"));
        let target = self.hosts.get_mut(&destination).ok_or_else(no_participant)?;
        if target.participant_by_identity(identity.as_str()).is_some() {
            let text = "the destination room has a participant with this identity";
            return Err(error(ApiErrorCode::FailedPrecondition, text));
        }
        let join = Command::Join(Box::new(likeness_of(&likeness, &known)));
        target.command(&mut self.outside, now, join).map_err(|refusal| refused(&refusal))?;
        target.tell_agents_of_join(&mut self.outside, now, &likeness);
        tracing::info!(room = %source, participant = %sid, %destination, %likeness, "forwarded");
        let forward = Forward { source: source.clone(), identity, destination, likeness };
        self.forwards.push(forward);
        self.reschedule(&source);
        self.settle_forwards(now);
        done
    }

    /// Somebody in a room with a connection of its own: a likeness has none.
    pub(crate) fn find_connected(
        &self,
        room: &RoomName,
        identity: &Identity,
    ) -> Result<ParticipantSid, ApiError> {
        let sid = self.find(room.as_str(), identity.as_str())?;
        let is_connected = self.hosts.get(room).is_some_and(|h| h.members.contains_key(&sid));
        let text = "the participant is forwarded from another room";
        is_connected.then_some(sid).ok_or_else(|| error(ApiErrorCode::FailedPrecondition, text))
    }

    /// Makes sure that a room exists, on the media thread of another if it can be: what they share
    /// is then not passed from one thread to the other.
    pub(crate) fn ensure_room_beside(&mut self, now: Now, name: &RoomName, other: &RoomName) {
        let Some(shard) = self.hosts.get(other).map(|host| host.shard) else { return };
        let settings = self.outside.config.room.clone();
        if self.ensure_room_on(now, name, settings, shard) {
            self.call_agents(now, name, Vec::new());
        }
        self.reschedule(name);
        if let Some(host) = self.hosts.get_mut(name).filter(|host| host.members.is_empty()) {
            self.outside.load.remove(host.shard);
            self.outside.load.add(shard);
            host.shard = shard;
        }
    }

    /// Brings likenesses to where they should be, after something has changed in their rooms.
    pub(crate) fn settle_forwards(&mut self, now: Now) {
        let touched = std::mem::take(&mut self.touched);
        if touched.is_empty() {
            return;
        }
        let concerned =
            |f: &&Forward| touched.contains(&f.source) || touched.contains(&f.destination);
        let concerned: Vec<_> = self.forwards.iter().filter(concerned).cloned().collect();
        for forward in concerned {
            if !self.follow(now, &forward) {
                self.forwards.retain(|known| *known != forward);
                self.want(now, &forward, None);
            }
        }
        // What following has changed follows already.
        self.touched.clear();
    }

    /// Lets a likeness show what its source shows. `false` when either is gone.
    fn follow(&mut self, now: Now, forward: &Forward) -> bool {
        let Forward { source, identity, destination, likeness } = forward;
        let is_there = |node: &Self| {
            let target = node.hosts.get(destination);
            target.is_some_and(|host| host.room.participants().any(|p| p.info.sid == *likeness))
        };
        if !is_there(self) {
            return false;
        }
        let origin = self.hosts.get(source);
        let known = origin.and_then(|host| {
            let known = host.room.participant_by_identity(identity.as_str())?;
            host.members.contains_key(&known.info.sid).then(|| (known.clone(), host.ids_of(known)))
        });
        let Some((known, ids)) = known else {
            self.with_host(now, destination, |host, _| {
                let reason = DisconnectReason::ClientInitiated;
                host.apply(now, Command::Leave(likeness.clone(), reason));
            });
            return false;
        };
        let target = self.hosts.get(destination);
        if !target.is_some_and(|host| host.is_like(likeness, &known, &ids)) {
            self.with_host(now, destination, |host, outside| {
                host.mirror(outside, now, likeness, known, ids);
            });
        }
        let wanted = self.hosts.get(destination).map(|host| host.wanted_of(likeness));
        self.want(now, forward, wanted);
        is_there(self)
    }

    /// Tells the source's room what the subscribers of a likeness want.
    fn want(&mut self, now: Now, forward: &Forward, wanted: Option<(Wanted, Vec<TrackSid>)>) {
        let (wanted, subscribed) = wanted.unwrap_or_default();
        let Some(host) = self.hosts.get(&forward.source) else { return };
        let before = host.wanted_elsewhere.get(&forward.likeness);
        let is_told =
            |track: &TrackSid| host.tracks.get(track).is_none_or(|known| known.subscribed);
        if before.unwrap_or(&Wanted::new()) == &wanted && subscribed.iter().all(is_told) {
            return;
        }
        self.with_host(now, &forward.source, |host, outside| {
            host.demand_changed.extend(wanted.keys().cloned());
            let before = match wanted.is_empty() {
                true => host.wanted_elsewhere.remove(&forward.likeness),
                false => host.wanted_elsewhere.insert(forward.likeness.clone(), wanted),
            };
            host.demand_changed.extend(before.unwrap_or_default().into_keys());
            for track in subscribed {
                host.tell_first_subscriber(outside, &track);
            }
        });
    }
}

/// A room that takes nobody more.
pub(crate) fn refused(refusal: &Refusal) -> ApiError {
    error(ApiErrorCode::ResourceExhausted, &refusal.to_string())
}

fn likeness_of(sid: &ParticipantSid, source: &Participant) -> NewParticipant {
    let mut kind_details = source.info.kind_details.clone();
    kind_details.push(proto::participant_info::KindDetail::Forwarded.into());
    NewParticipant {
        sid: sid.clone(),
        kind_details,
        auto_subscribe: false,
        auto_subscribe_data: false,
        ..source.info.clone()
    }
}

impl Host {
    /// What the packet path knows the published tracks of somebody as.
    fn ids_of(&self, publisher: &Participant) -> BTreeMap<TrackSid, Publication> {
        let published = publisher.published_tracks();
        let known = published.filter_map(|track| {
            let publication = self.tracks.get(&track.sid)?;
            let ids = publication.ids.clone();
            let likeness = Publication { ids, subscribed: false, is_forwarded: true };
            Some((track.sid.clone(), likeness))
        });
        known.collect()
    }

    fn is_like(
        &self,
        likeness: &ParticipantSid,
        source: &Participant,
        ids: &BTreeMap<TrackSid, Publication>,
    ) -> bool {
        let is_known = |(track, publication): (&TrackSid, &Publication)| {
            self.tracks.get(track).is_some_and(|known| known.ids == publication.ids)
        };
        ids.iter().all(is_known) && self.room.is_like(likeness, source)
    }

    fn mirror(
        &mut self,
        cx: &mut Outside,
        now: Now,
        likeness: &ParticipantSid,
        source: Participant,
        ids: BTreeMap<TrackSid, Publication>,
    ) {
        let changed: Vec<TrackSid> =
            ids.keys().filter(|t| self.tracks.contains_key(*t)).cloned().collect();
        for (track, publication) in ids {
            let known = self.tracks.entry(track).or_default();
            (known.ids, known.is_forwarded) = (publication.ids, true);
        }
        let (participant, source) = (likeness.clone(), Box::new(source));
        self.apply(now, Command::Mirror { participant, source });
        self.settle(cx, now);
        for track in changed {
            self.sources_changed(cx, &track);
        }
    }

    /// What is wanted here of each track of a likeness, and which of them somebody receives.
    fn wanted_of(&self, likeness: &ParticipantSid) -> (Wanted, Vec<TrackSid>) {
        let tracks = self.room.participant(likeness).map_or(&[][..], |known| &known.tracks);
        let wanted = tracks.iter().map(|track| (track.sid.clone(), self.wanted(track)));
        let is_received = |track: &&parlor_room::Track| {
            self.tracks.get(&track.sid).is_some_and(|known| known.subscribed)
        };
        let received = tracks.iter().filter(is_received).map(|track| track.sid.clone());
        (wanted.collect(), received.collect())
    }
}
