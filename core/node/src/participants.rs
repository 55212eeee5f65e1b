//! Calls of the server API that change one participant.

use crate::{
    Node,
    api::{ApiError, ApiErrorCode, ApiResponse},
    calls::{Answer, error, invalid, no_participant},
    config::exceeds,
    io::CallId,
};
use livekit_protocol as proto;
use parlor_model::{DisconnectReason, Identity, Now, ParticipantSid, RoomName};
use parlor_room::{Command, ParticipantChange};
use parlor_signal::{Claims, info::participant_info, request};

/// Most participants whose tokens are barred; the oldest goes first.
pub const REVOKED_MAX: usize = 10_000;

impl Node {
    /// The sid of somebody in a room.
    pub(crate) fn find(&self, room: &str, identity: &str) -> Result<ParticipantSid, ApiError> {
        let host = self.hosts.get(room).ok_or_else(no_participant)?;
        let found = host.participant_by_identity(identity).ok_or_else(no_participant)?;
        Ok(found.1.clone())
    }

    /// Removes somebody, and bars its tokens from before `revoke_token_ts`, Unix seconds.
    pub(crate) fn remove_participant(
        &mut self,
        now: Now,
        request: &proto::RoomParticipantIdentity,
    ) -> Answer {
        let participant = self.find(&request.room, &request.identity)?;
        if let Ok(before) = u64::try_from(request.revoke_token_ts)
            && before > 0
        {
            let of = (RoomName::from(&*request.room), Identity::from(&*request.identity));
            self.revoked.retain(|(known, _)| *known != of);
            if self.revoked.len() >= REVOKED_MAX {
                self.revoked.pop_front();
            }
            self.revoked.push_back((of, before));
        }
        let command = Command::Leave(participant, DisconnectReason::ParticipantRemoved);
        self.command(now, &request.room, command)?;
        Ok(ApiResponse::ParticipantRemoved(proto::RemoveParticipantResponse {}))
    }

    /// Whether a token was barred when its bearer was removed.
    pub(crate) fn is_revoked(&self, room: &str, claims: &Claims) -> bool {
        let issued = claims.iat.or(claims.nbf).unwrap_or(0);
        self.revoked.iter().any(|((of_room, identity), before)| {
            of_room.as_str() == room && identity.as_str() == claims.identity() && issued < *before
        })
    }

    pub(crate) fn update_participant(
        &mut self,
        now: Now,
        update: proto::UpdateParticipantRequest,
    ) -> Answer {
        let limits = self.outside.config.limits;
        if exceeds(update.name.len(), limits.name_bytes) {
            return Err(invalid("name length exceeds limits", &limits.name_bytes.to_string()));
        }
        if exceeds(update.metadata.len(), limits.metadata_bytes) {
            let limit = limits.metadata_bytes.to_string();
            return Err(invalid("metadata size exceeds limits", &limit));
        }
        let participant = self.find(&update.room, &update.identity)?;
        let text = |text: String| (!text.is_empty()).then_some(text);
        let change = ParticipantChange {
            name: text(update.name),
            metadata: text(update.metadata),
            attributes: update.attributes.into_iter().collect(),
            permissions: update.permission.as_ref().map(request::permissions),
        };
        let known = self.hosts.get(&*update.room).and_then(|h| h.room.participant(&participant));
        let known = known.ok_or_else(no_participant)?;
        let attributes_bytes = known.info.attributes_bytes_with(&change.attributes);
        if exceeds(attributes_bytes, limits.attributes_bytes) {
            let limit = limits.attributes_bytes.to_string();
            return Err(invalid("attributes size exceeds limits", &limit));
        }
        let command = Command::UpdateParticipant {
            participant: participant.clone(),
            change: Box::new(change),
        };
        self.command(now, &update.room, command)?;
        let known = self.hosts.get(&*update.room).and_then(|h| h.room.participant(&participant));
        let known = known.ok_or_else(no_participant)?;
        let region = &self.outside.config.region;
        Ok(ApiResponse::Participant(participant_info(known, region)))
    }

    pub(crate) fn update_subscriptions(
        &mut self,
        now: Now,
        update: proto::UpdateSubscriptionsRequest,
    ) -> Answer {
        let participant = self.find(&update.room, &update.identity)?;
        let subscribe = update.subscribe;
        let (track_sids, participant_tracks) = (update.track_sids, update.participant_tracks);
        let update_of = proto::UpdateSubscription { track_sids, subscribe, participant_tracks };
        let tracks = request::subscribed_tracks(&update_of);
        let command = Command::Subscribe { participant, tracks, subscribe };
        self.command(now, &update.room, command)?;
        Ok(ApiResponse::SubscriptionsUpdated(proto::UpdateSubscriptionsResponse {}))
    }

    /// Calls a method of a participant. The answer comes when the participant has answered.
    pub(crate) fn perform_rpc(
        &mut self,
        now: Now,
        call: CallId,
        request: proto::PerformRpcRequest,
    ) -> Result<(), ApiError> {
        if request.destination_identity.is_empty() {
            let text = "destination identity is required";
            return Err(error(ApiErrorCode::InvalidArgument, text));
        }
        if request.payload.len() > crate::rpc::RPC_PAYLOAD_BYTES_MAX {
            return Err(error(ApiErrorCode::InvalidArgument, "Request payload too large"));
        }
        let identity = Identity::from(&*request.destination_identity);
        let sid = self.find_connected(&RoomName::from(&*request.room), &identity)?;
        let host = self.hosts.get_mut(&*request.room).ok_or_else(no_participant)?;
        host.perform_rpc(&mut self.outside, now, call, sid, request.clone());
        self.reschedule(&RoomName::from(&*request.room));
        Ok(())
    }
}
