//! What clients ask for on their signal socket.

use crate::{config::exceeds, host::Host, member::TRACK_SETTINGS_MAX, outside::Outside};
use livekit_protocol as proto;
use parlor_model::{DisconnectReason, Now, ParticipantSid};
use parlor_room::{Command, ParticipantChange, Refusal, track_sid_prefix};
use parlor_signal::{device, request, response};
use proto::{
    request_response::{Reason, Request as Echo},
    signal_request::Message as Request,
    signal_response::Message,
};

impl Host {
    /// Carries out a request. Everything that follows from it is done by [`Host::settle`].
    pub(crate) fn handle_request(
        &mut self,
        cx: &mut Outside,
        now: Now,
        sid: &ParticipantSid,
        request: Request,
    ) {
        match request {
            Request::Offer(offer) => self.handle_offer(cx, now, sid, &offer),
            Request::Answer(answer) => self.handle_answer(cx, now, sid, &answer),
            Request::Trickle(trickle) => self.handle_trickle(cx, sid, trickle),
            Request::AddTrack(add) => self.handle_add_track(cx, now, sid, add),
            Request::Mute(mute) => {
                let (participant, track) = (sid.clone(), mute.sid.as_str().into());
                let command = Command::SetMuted { participant, track, muted: mute.muted };
                self.apply_to_track(cx, now, sid, command, Echo::Mute(mute));
            }
            Request::UpdateAudioTrack(update) => {
                let (participant, track) = (sid.clone(), update.track_sid.as_str().into());
                let features = update.features.clone();
                let command = Command::SetAudioFeatures { participant, track, features };
                self.apply_to_track(cx, now, sid, command, Echo::UpdateAudioTrack(update));
            }
            Request::UpdateVideoTrack(update) => {
                let (participant, track) = (sid.clone(), update.track_sid.as_str().into());
                let (width, height) = (update.width, update.height);
                let command = Command::SetDimensions { participant, track, width, height };
                self.apply_to_track(cx, now, sid, command, Echo::UpdateVideoTrack(update));
            }
            Request::Subscription(update) => {
                let (participant, tracks) = (sid.clone(), request::subscribed_tracks(&update));
                let subscribe = update.subscribe;
                self.note_missing(now, sid, &tracks, subscribe);
                self.apply(now, Command::Subscribe { participant, tracks, subscribe });
            }
            Request::TrackSetting(settings) => self.handle_track_setting(cx, sid, &settings),
            Request::SubscriptionPermission(permission) => {
                if let Some(policy) = request::subscription_policy(&permission) {
                    let participant = sid.clone();
                    self.apply(now, Command::SetSubscriptionPolicy { participant, policy });
                }
            }
            Request::Leave(leave) => {
                let reason = request::leave_reason(&leave);
                self.apply(now, Command::Leave(sid.clone(), reason));
            }
            Request::Ping(_) => self.send(cx, sid, Message::Pong(now.unix.as_millis() as i64)),
            Request::PingReq(ping) => {
                let (last_ping_timestamp, timestamp) =
                    (ping.timestamp, now.unix.as_millis() as i64);
                let pong = proto::Pong { last_ping_timestamp, timestamp };
                if let Some(member) = self.members.get_mut(sid) {
                    member.signal_rtt_ms = u32::try_from(ping.rtt).unwrap_or(0);
                }
                self.send(cx, sid, Message::PongResp(pong));
            }
            Request::UpdateMetadata(update) => self.handle_update_metadata(cx, now, sid, update),
            Request::SyncState(state) => self.handle_sync_state(cx, now, sid, &state),
            Request::Simulate(simulate) => self.handle_simulate(cx, now, sid, simulate),
            Request::PublishDataTrackRequest(request) => {
                self.publish_data_track(cx, now, sid, request);
            }
            Request::UnpublishDataTrackRequest(request) => {
                self.unpublish_data_track(cx, now, sid, request);
            }
            Request::UpdateDataSubscription(request) => {
                self.update_data_subscription(cx, now, sid, &request);
            }
            Request::StoreDataBlobRequest(request) => self.store_data_blob(cx, sid, request),
            Request::GetDataBlobRequest(request) => self.get_data_blob(cx, sid, request),
            // `update_layers`, deprecated and without effect with LiveKit too.
            _ => {}
        }
    }

    pub(crate) fn handle_offer(
        &mut self,
        cx: &mut Outside,
        now: Now,
        sid: &ParticipantSid,
        offer: &proto::SessionDescription,
    ) {
        if offer.r#type != "offer" {
            cx.counters.refused_offers += 1;
            return;
        }
        let publications = self.publications(sid);
        let Some(member) = self.members.get_mut(sid) else { return };
        match member.connection.handle_offer(cx, offer, &publications) {
            Ok(negotiated) => self.take_negotiated(cx, now, sid, negotiated),
            Err(error) => {
                cx.counters.refused_offers += 1;
                tracing::warn!(room = %self.room.name(), participant = %sid, %error, "offer refused");
            }
        }
    }

    fn handle_answer(
        &mut self,
        cx: &mut Outside,
        now: Now,
        sid: &ParticipantSid,
        answer: &proto::SessionDescription,
    ) {
        let Some(member) = self.members.get_mut(sid) else { return };
        match member.connection.handle_answer(cx, answer) {
            Ok(Some(negotiated)) => self.take_negotiated(cx, now, sid, negotiated),
            Ok(None) => {}
            Err(mismatch) => {
                cx.counters.refused_answers += 1;
                let error = mismatch.0;
                tracing::warn!(room = %self.room.name(), participant = %sid, %error, "answer refused");
                self.apply(now, Command::Leave(sid.clone(), DisconnectReason::StateMismatch));
            }
        }
    }

    fn handle_trickle(
        &mut self,
        cx: &mut Outside,
        sid: &ParticipantSid,
        trickle: proto::TrickleRequest,
    ) {
        match request::candidate(&trickle) {
            Ok(Some(candidate)) => {
                let Some(member) = self.members.get_mut(sid) else { return };
                member.connection.add_candidate(cx, trickle.target(), candidate);
            }
            Ok(None) => {}
            Err(error) => {
                let echo = Some(Echo::Trickle(trickle));
                let reason = Reason::UnclassifiedError;
                self.send(cx, sid, response::request_response(0, reason, error, echo));
            }
        }
    }

    pub(crate) fn handle_add_track(
        &mut self,
        cx: &mut Outside,
        now: Now,
        sid: &ParticipantSid,
        mut add: proto::AddTrackRequest,
    ) {
        let Some(member) = self.members.get(sid) else { return };
        device::replace_disabled_codecs(&mut add, &cx.server.publishable(&member.client));
        let new = Box::new(request::new_track(&add));
        let kind = new.kind.unwrap_or(parlor_model::TrackKind::Audio);
        let (participant, track) = (sid.clone(), cx.sid(track_sid_prefix(kind, new.source)));
        let command = Command::AddTrack { participant, sid: track.into(), new };
        if let Err(refusal) = self.room.apply(now, command) {
            tracing::info!(room = %self.room.name(), participant = %sid, %refusal, "track refused");
            let reason = reason_of(&refusal);
            let echo = Some(Echo::AddTrack(add));
            self.send(cx, sid, response::request_response(0, reason, "", echo));
        }
    }

    fn apply_to_track(
        &mut self,
        cx: &mut Outside,
        now: Now,
        sid: &ParticipantSid,
        command: Command,
        echo: Echo,
    ) {
        if let Err(refusal) = self.room.apply(now, command) {
            let reason = reason_of(&refusal);
            self.send(cx, sid, response::request_response(0, reason, "", Some(echo)));
        }
    }

    pub(crate) fn handle_track_setting(
        &mut self,
        cx: &mut Outside,
        sid: &ParticipantSid,
        settings: &proto::UpdateTrackSettings,
    ) {
        for track in &settings.track_sids {
            let track: parlor_model::TrackSid = track.as_str().into();
            let Some(member) = self.members.get(sid) else { return };
            if member.subscriptions.contains_key(&track)
                && let Some(known) = self.room.track(&track)
            {
                self.tell_settings(cx, member, known, Some(settings));
                self.demand_changed.insert(track.clone());
            }
            let Some(member) = self.members.get_mut(sid) else { return };
            let full = member.track_settings.len() >= TRACK_SETTINGS_MAX;
            if !full || member.track_settings.contains_key(&track) {
                let settings =
                    proto::UpdateTrackSettings { track_sids: Vec::new(), ..settings.clone() };
                member.track_settings.insert(track, settings);
            }
        }
    }

    fn handle_update_metadata(
        &mut self,
        cx: &mut Outside,
        now: Now,
        sid: &ParticipantSid,
        update: proto::UpdateParticipantMetadata,
    ) {
        let id = update.request_id;
        let change = request::participant_change(&update);
        let (reason, message) = match self.check_change(cx, sid, &change) {
            Ok(()) => {
                let (participant, change) = (sid.clone(), Box::new(change));
                self.apply(now, Command::UpdateParticipant { participant, change });
                self.settle(cx, now);
                (Reason::Ok, "")
            }
            Err(refusal) => refusal,
        };
        let echo = Some(Echo::UpdateMetadata(update));
        self.send(cx, sid, response::request_response(id, reason, message, echo));
    }

    fn check_change(
        &self,
        cx: &Outside,
        sid: &ParticipantSid,
        change: &ParticipantChange,
    ) -> Result<(), (Reason, &'static str)> {
        let Some(participant) = self.room.participant(sid) else {
            return Err((Reason::NotFound, ""));
        };
        if !participant.info.permissions.can_update_metadata {
            let message = "does not have permission to update own metadata";
            return Err((Reason::NotAllowed, message));
        }
        let limits = &cx.config.limits;
        let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        if exceeds(length(&change.name), limits.name_bytes) {
            return Err((Reason::LimitExceeded, "exceeds name length limit"));
        }
        if exceeds(length(&change.metadata), limits.metadata_bytes) {
            return Err((Reason::LimitExceeded, "exceeds metadata size limit"));
        }
        let attributes_bytes = participant.info.attributes_bytes_with(&change.attributes);
        if exceeds(attributes_bytes, limits.attributes_bytes) {
            return Err((Reason::LimitExceeded, "exceeds attributes size limit"));
        }
        Ok(())
    }
}

fn reason_of(refusal: &Refusal) -> Reason {
    match refusal {
        Refusal::NoParticipant(_) | Refusal::NoTrack(_) | Refusal::Closed => Reason::NotFound,
        Refusal::InvalidHandle => Reason::InvalidHandle,
        Refusal::InvalidName => Reason::InvalidName,
        Refusal::DuplicateHandle => Reason::DuplicateHandle,
        Refusal::DuplicateName => Reason::DuplicateName,
        Refusal::NotAllowed => Reason::NotAllowed,
        Refusal::Queued => Reason::Queued,
        Refusal::LimitExceeded { .. } | Refusal::RoomFull { .. } => Reason::LimitExceeded,
        Refusal::UnsupportedType => Reason::UnsupportedType,
    }
}
