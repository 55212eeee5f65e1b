//! Participants that are sent to another room (`MoveParticipant`): with their connection where
//! their client knows of such a move, else with a token for it.

use crate::{
    Node,
    api::{ApiError, ApiResponse},
    calls::{Answer, invalid, no_participant},
    forward::refused,
    host::Host,
    member::{Member, Publication},
    outside::Outside,
};
use livekit_protocol as proto;
use parlor_model::{DisconnectReason, Identity, Now, ParticipantSid, RoomName, TrackSid};
use parlor_room::{Command, Demand, NewParticipant, Participant};
use parlor_sfu::command::MediaCommand;
use parlor_signal::{info::participant_info, token};
use proto::signal_response::Message;

/// Somebody on the way from one room to another.
struct Moving {
    member: Member,
    was: Participant,
    tracks: Vec<(TrackSid, Publication)>,
    demand: Vec<(TrackSid, Vec<Demand>)>,
}

impl Node {
    /// Sends somebody to another room. Its connection goes with it, on the media thread where it
    /// is, if its client knows of such a move; else it is told to begin anew there.
    pub(crate) fn move_participant(
        &mut self,
        now: Now,
        request: &proto::MoveParticipantRequest,
    ) -> Answer {
        if request.room == request.destination_room {
            return Err(invalid("destination room cannot be the same as source room", ""));
        }
        let (source, destination) =
            (RoomName::from(&*request.room), RoomName::from(&*request.destination_room));
        let sid = self.find_connected(&source, &Identity::from(&*request.identity))?;
        self.ensure_room_beside(now, &destination, &source);
        let member = self.hosts.get(&source).and_then(|host| host.members.get(&sid));
        let member = member.ok_or_else(no_participant)?;
        if member.client.knows_moves() && member.session.is_some() {
            self.move_in_place(now, &source, &sid, &destination)?;
        } else {
            self.send_away(now, &source, sid, &destination)?;
        }
        Ok(ApiResponse::ParticipantMoved(proto::MoveParticipantResponse {}))
    }

    fn move_in_place(
        &mut self,
        now: Now,
        source: &RoomName,
        sid: &ParticipantSid,
        destination: &RoomName,
    ) -> Result<(), ApiError> {
        let known = self.hosts.get(source).and_then(|host| host.room.participant(sid));
        let info = known.ok_or_else(no_participant)?.info.clone();
        let there = ParticipantSid::from(self.outside.sid("PA_"));
        let new = NewParticipant { sid: there.clone(), ..info };
        let target = self.hosts.get_mut(destination).ok_or_else(no_participant)?;
        let join = Command::Join(Box::new(new));
        target.command(&mut self.outside, now, join).map_err(|refusal| refused(&refusal))?;
        let host = self.hosts.get_mut(source).ok_or_else(no_participant)?;
        let moving = host.take_out(&mut self.outside, now, sid).ok_or_else(no_participant)?;
        tracing::info!(room = %source, participant = %sid, %destination, %there, "moved");
        self.with_host(now, destination, |host, outside| {
            host.take_in(outside, now, there, moving);
        });
        self.reschedule(source);
        Ok(())
    }

    /// Tells a participant to begin anew in another room, for which it gets a token.
    fn send_away(
        &mut self,
        now: Now,
        source: &RoomName,
        sid: ParticipantSid,
        destination: &RoomName,
    ) -> Result<(), ApiError> {
        let region = self.outside.config.region.clone();
        let target = self.hosts.get(destination).ok_or_else(no_participant)?;
        let room = self.outside.server.room_with_counts(&target.room, &target.turn_password);
        let other_participants = target.visible_to(&sid, &region);
        let host = self.hosts.get_mut(source).ok_or_else(no_participant)?;
        let participant = host.room.participant(&sid).map(|this| participant_info(this, &region));
        let member = host.members.get_mut(&sid).ok_or_else(no_participant)?;
        member.is_moved = true;
        member.go_to(destination);
        let keys = &self.outside.config.api_keys;
        let token = token::sign_refreshed(&member.claims, now.unix, keys);
        let moved =
            proto::RoomMovedResponse { room: Some(room), token, participant, other_participants };
        host.send(&mut self.outside, &sid, Message::RoomMoved(moved));
        self.command(now, source.as_str(), Command::Leave(sid, DisconnectReason::Migration))
    }
}

impl Member {
    fn go_to(&mut self, room: &RoomName) {
        self.claims.video.get_or_insert_default().room = room.to_string();
        self.claims.room_config = None;
    }
}

impl Host {
    fn visible_to(&self, sid: &ParticipantSid, region: &str) -> Vec<proto::ParticipantInfo> {
        let visible =
            |other: &&Participant| !other.info.permissions.hidden && other.info.sid != *sid;
        let visible = self.room.participants().filter(visible);
        visible.map(|other| participant_info(other, region)).collect()
    }

    /// Takes a participant out of the room, but leaves its connection as it is.
    fn take_out(&mut self, cx: &mut Outside, now: Now, sid: &ParticipantSid) -> Option<Moving> {
        let was = self.room.participant(sid)?.clone();
        let mut member = *self.members.remove(sid)?;
        let sids = || was.tracks.iter().map(|track| track.sid.clone());
        let tracks = sids().filter_map(|track| self.tracks.remove_entry(&track)).collect();
        let demand = sids().filter_map(|track| self.demand.remove_entry(&track)).collect();
        let shard = member.connection.shard();
        cx.load.remove(shard);
        for (track, subscription) in std::mem::take(&mut member.subscriptions) {
            cx.command(shard, MediaCommand::StopSubscription { subscription, blank: true });
            member.connection.remove_send(subscription);
            self.demand_changed.insert(track);
        }
        member.carried.clear();
        member.told_unsupported.clear();
        member.track_settings.clear();
        member.data_handles.clear();
        member.missing = Default::default();
        self.apply(now, Command::Leave(sid.clone(), DisconnectReason::Migration));
        self.settle(cx, now);
        Some(Moving { member, was, tracks, demand })
    }

    /// Takes in a participant with its connection. It has joined the room already.
    fn take_in(&mut self, cx: &mut Outside, now: Now, sid: ParticipantSid, moving: Moving) {
        let Moving { mut member, was, mut tracks, demand } = moving;
        let address = self.address(&sid);
        member.sid = sid.clone();
        member.go_to(self.room.name());
        member.syncs_streams =
            self.room.settings().sync_streams && member.client.knows_stream_names();
        if let Some(session) = member.session {
            cx.sessions.insert(session, address.clone());
        }
        for peer in member.connection.peers() {
            cx.peers.insert(peer.id, address.clone());
        }
        for (track, publication) in &mut tracks {
            publication.subscribed = false;
            for id in &publication.ids {
                cx.tracks.insert(*id, (address.clone(), track.clone()));
            }
        }
        member.connection.set_address(address);
        let is_active = member.active;
        self.demand_changed.extend(demand.iter().map(|(track, _)| track.clone()));
        self.demand.extend(demand);
        self.tracks.extend(tracks);
        cx.load.add(member.connection.shard());
        self.members.insert(sid.clone(), Box::new(member));
        self.apply(now, Command::SetJoined(sid.clone()));
        if is_active {
            self.apply(now, Command::SetActive(sid.clone()));
        }
        self.apply(now, Command::Adopt { participant: sid.clone(), from: Box::new(was) });
        self.send_moved(cx, now, &sid);
        self.tell_agents_of_join(cx, now, &sid);
        self.unsettled.insert(sid);
    }

    /// Tells a participant in which room it is now, and who is there.
    fn send_moved(&mut self, cx: &mut Outside, now: Now, sid: &ParticipantSid) {
        let Some(this) = self.room.participant(sid) else { return };
        let Some(member) = self.members.get_mut(sid) else { return };
        let token = member.refresh_token(cx, now, this);
        let participant = Some(participant_info(this, &cx.config.region));
        let room = Some(cx.server.room_with_counts(&self.room, &self.turn_password));
        let other_participants = self.visible_to(sid, &cx.config.region);
        let moved = proto::RoomMovedResponse { room, token, participant, other_participants };
        self.send(cx, sid, Message::RoomMoved(moved));
    }
}
