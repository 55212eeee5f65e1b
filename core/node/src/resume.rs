//! Sessions that outlive their socket, and connections that outlive their path.

use crate::{
    host::Host,
    io::{Output, SessionId},
    member::Member,
    outside::Outside,
};
use livekit_protocol as proto;
use parlor_model::{DisconnectReason, Now, ParticipantSid, PeerId};
use parlor_room::Command;
use parlor_sfu::command::PeerFailure;
use parlor_signal::{ConnectRequest, ConnectionModel, response};
use proto::{signal_request::Message as Request, signal_response::Message};
use std::time::Duration;

/// How long a participant whose connection has lost its path is kept for a resume.
pub const RESUME_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a participant is kept whose client has closed its connection: as long as one that
/// fell silent would be. Its `leave`, or its next session, usually comes at once.
pub const CLOSED_TIMEOUT: Duration = Duration::from_secs(20);

/// What became of a wish to resume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Resumed {
    Yes,
    /// There is nothing to resume: the client has to begin anew.
    Unknown,
    /// The upgrade itself is refused, as the client asked for (`simulate`).
    Refused,
}

impl Host {
    /// Gives a participant a new socket, if it is the one that the client remembers.
    pub(crate) fn resume(
        &mut self,
        cx: &mut Outside,
        now: Now,
        session: SessionId,
        request: &ConnectRequest,
    ) -> Resumed {
        let identity = request.claims.identity();
        let Some((_, sid)) = self.participant_by_identity(identity) else {
            return Resumed::Unknown;
        };
        let (sid, asked) = (sid.clone(), &request.participant_sid);
        let Some(member) = self.members.get_mut(&sid) else { return Resumed::Unknown };
        let other_model = (request.connection == ConnectionModel::Pair)
            != matches!(member.connection, crate::connection::Connection::Pair(_));
        if (!asked.is_empty() && asked != sid.as_str()) || other_model || member.is_beyond_resume {
            return Resumed::Unknown;
        }
        let drop = member.simulated_drop(now.instant);
        if drop == Some(SimulatedDrop::Upgrade) {
            return Resumed::Refused;
        }
        tracing::info!(room = %self.room.name(), participant = %sid, trace = request.trace, "resumed");
        if let Some(old) = member.session.replace(session) {
            cx.close(old);
        }
        member.text = false;
        member.may_sync_data = true;
        member.last_signal = now.instant;
        member.claims.exp = member.claims.exp.max(request.claims.exp);
        cx.outputs.push_back(Output::Accept { session });
        cx.sessions.insert(session, self.address(&sid));
        self.tell_present(cx, now, &sid);
        if drop == Some(SimulatedDrop::AfterMessages) {
            self.close_session(cx, now, &sid);
            return Resumed::Yes;
        }
        self.send_token(cx, now, &sid);
        if let Some(member) = self.members.get_mut(&sid) {
            member.connection.restart_ice(cx);
            let receives_data = !member.data_handles.is_empty();
            self.unsettled.insert(sid.clone());
            if receives_data {
                self.send_data_handles(cx, &sid);
            }
        }
        if let Some(state) = request.sync_state.clone() {
            self.handle_request(cx, now, &sid, Request::SyncState(state));
        }
        Resumed::Yes
    }

    /// What a client has to know that may have missed anything: who is here, who has gone.
    fn tell_present(&mut self, cx: &mut Outside, now: Now, sid: &ParticipantSid) {
        let Some(member) = self.members.get(sid) else { return };
        let reconnect = cx.server.reconnect(&member.client, sid, member.last_sequence, now.unix);
        self.send(cx, sid, reconnect);
        let is_back = |gone: &parlor_room::Participant| {
            self.room.participant_by_identity(gone.info.identity.as_str()).is_some()
        };
        let visible = |other: &&parlor_room::Participant| {
            !other.info.permissions.hidden || other.info.sid == *sid
        };
        let gone = self.room.departed().filter(|gone| !is_back(gone));
        let all = gone.chain(self.room.participants()).filter(visible);
        let all: Vec<_> = all.map(|participant| participant.info.sid.clone()).collect();
        self.send_update(cx, &all, &parlor_room::Audience::Only(sid.clone()));
        let room = cx.server.room_with_counts(&self.room, &self.turn_password);
        self.send(cx, sid, Message::RoomUpdate(proto::RoomUpdate { room: Some(room) }));
    }

    /// Reconciles what the client says it has with what it should have.
    pub(crate) fn handle_sync_state(
        &mut self,
        cx: &mut Outside,
        now: Now,
        sid: &ParticipantSid,
        state: &proto::SyncState,
    ) {
        let Some(participant) = self.room.participant(sid) else { return };
        let publishes = |published: &proto::TrackPublishedResponse| {
            let track = published.track.as_ref();
            track.is_some_and(|track| participant.track(&track.sid.as_str().into()).is_some())
        };
        let publishes_data = |published: &proto::PublishDataTrackResponse| {
            let info = published.info.as_ref();
            let is_known = |info: &proto::DataTrackInfo| {
                participant.data_tracks.iter().any(|track| track.sid.as_str() == info.sid)
            };
            info.is_some_and(is_known)
        };
        if !state.publish_tracks.iter().all(publishes)
            || !state.publish_data_tracks.iter().all(publishes_data)
        {
            tracing::info!(room = %self.room.name(), participant = %sid, "unknown track, begins anew");
            let reason = DisconnectReason::StateMismatch;
            return self.apply(now, Command::Leave(sid.clone(), reason));
        }
        let is_told = |track: &&parlor_room::Track| {
            let told = state.publish_tracks.iter().filter_map(|known| known.track.as_ref());
            { told }.any(|known| known.sid == track.sid.as_str())
        };
        let untold = participant.tracks.iter().filter(|track| !is_told(track));
        let untold: Vec<_> = untold
            .map(|track| proto::TrackPublishedResponse {
                cid: track.announced.cid.clone(),
                track: Some(parlor_signal::info::track_info(track)),
            })
            .collect();
        for published in untold {
            self.send(cx, sid, Message::TrackPublished(published));
        }
        if let Some(update) = &state.subscription {
            let tracks = parlor_signal::request::subscribed_tracks(update);
            let (participant, subscribe) = (sid.clone(), update.subscribe);
            self.apply(now, Command::Subscribe { participant, tracks, subscribe });
        }
        if let Some(update) = &state.data_subscription {
            self.update_data_subscription(cx, now, sid, update);
        }
        self.sync_disabled(cx, sid, &state.track_sids_disabled);
        let Some(member) = self.members.get_mut(sid) else { return };
        if !std::mem::take(&mut member.may_sync_data) {
            return;
        }
        for known in &state.datachannel_receive_states {
            self.resend(cx, sid, &known.publisher_sid.as_str().into(), known.last_seq);
        }
    }

    /// Exactly these tracks are switched off by their subscriber.
    fn sync_disabled(&mut self, cx: &mut Outside, sid: &ParticipantSid, disabled: &[String]) {
        let Some(member) = self.members.get(sid) else { return };
        let is_off = |track: &str| disabled.iter().any(|off| off == track);
        let known = member.track_settings.iter().map(|(track, settings)| (track, settings.clone()));
        let mut changed: Vec<_> = known
            .filter(|(track, settings)| settings.disabled != is_off(track.as_str()))
            .map(|(track, settings)| (track.to_string(), settings))
            .collect();
        let is_new = |track: &&String| !member.track_settings.contains_key(track.as_str());
        for track in disabled.iter().filter(is_new) {
            let quality = proto::VideoQuality::High.into();
            let settings = proto::UpdateTrackSettings { quality, ..Default::default() };
            changed.push((track.clone(), settings));
        }
        for (track, settings) in changed {
            let settings = proto::UpdateTrackSettings {
                disabled: is_off(&track),
                track_sids: vec![track],
                ..settings
            };
            self.handle_track_setting(cx, sid, &settings);
        }
    }

    /// A peer is of no use. Where only the path is lost, or the client has closed it, there is
    /// time for a resume or for a farewell.
    pub(crate) fn peer_failed(
        &mut self,
        cx: &mut Outside,
        now: Now,
        sid: &ParticipantSid,
        id: PeerId,
        failure: PeerFailure,
    ) {
        tracing::info!(room = %self.room.name(), participant = %sid, ?failure, "connection failed");
        if failure == PeerFailure::ConnectionTimeout {
            self.note_lost_path(cx, now, sid);
        }
        let Some(member) = self.members.get_mut(sid) else { return };
        let window = match failure {
            PeerFailure::ConnectionTimeout if member.active => RESUME_TIMEOUT,
            PeerFailure::DtlsClosed | PeerFailure::SctpClosed if member.active => {
                member.is_beyond_resume = true;
                CLOSED_TIMEOUT
            }
            _ => {
                let reason = DisconnectReason::ConnectionTimeout;
                return self.apply(now, Command::Leave(sid.clone(), reason));
            }
        };
        member.lost_peers.insert(id);
        let deadline = now.instant + window;
        member.ends_at = Some(member.ends_at.map_or(deadline, |earlier| earlier.min(deadline)));
        let can_resume = failure == PeerFailure::ConnectionTimeout
            && !member.is_beyond_resume
            && member.client.knows_leave_action();
        if can_resume && member.session.is_some() {
            self.send(cx, sid, response::resume(DisconnectReason::ConnectionTimeout));
            self.close_session(cx, now, sid);
        }
    }

    /// A peer that was lost has a path again.
    pub(crate) fn peer_returned(&mut self, sid: &ParticipantSid, id: PeerId) {
        let Some(member) = self.members.get_mut(sid) else { return };
        member.lost_peers.remove(&id);
        if member.lost_peers.is_empty() && !member.is_beyond_resume {
            member.ends_at = None;
        }
    }
}

/// How a simulated failure ends a resume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SimulatedDrop {
    /// The socket closes after the first messages.
    AfterMessages,
    /// The upgrade is refused.
    Upgrade,
}

/// How long a client's wish for a failing resume holds.
pub const SIMULATED_DROP_TTL: Duration = Duration::from_secs(5);

impl Member {
    fn simulated_drop(&mut self, now: std::time::Instant) -> Option<SimulatedDrop> {
        let (drop, asked) = self.drop_on_resume.take()?;
        (now < asked + SIMULATED_DROP_TTL).then_some(drop)
    }
}
