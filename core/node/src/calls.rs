//! The server API.

use crate::{
    Node,
    api::{ApiError, ApiErrorCode, ApiRequest, ApiResponse},
    config::exceeds,
    io::CallId,
};
use livekit_protocol as proto;
use parlor_model::{DataChannel, DisconnectReason, Now, RoomName};
use parlor_room::Command;
use parlor_signal::{
    Claims,
    data::from_server,
    info::{participant_info, track_info},
    token::VideoGrant,
};
use proto::signal_response::Message;

/// Bytes of the nonce of a `SendData` call.
pub const NONCE_BYTES: usize = 16;

pub(crate) type Answer = Result<ApiResponse, ApiError>;

pub(crate) fn error(code: ApiErrorCode, text: &str) -> ApiError {
    // LiveKit's handlers do not name their errors, and clients have met them so.
    ApiError { code, message: format!("twirp error unknown: {text}"), argument: None }
}

/// An argument that is not admissible; `limit` says what would be.
pub(crate) fn invalid(argument: &'static str, limit: &str) -> ApiError {
    let message = format!("{argument} {limit}");
    ApiError { code: ApiErrorCode::InvalidArgument, message, argument: Some(argument) }
}

pub(crate) fn no_room() -> ApiError {
    error(ApiErrorCode::NotFound, "requested room does not exist")
}

pub(crate) fn no_participant() -> ApiError {
    error(ApiErrorCode::NotFound, "participant does not exist")
}

impl Node {
    /// Answers a call at once: an absent target is not waited for. `None` when a participant has
    /// to answer first.
    pub(crate) fn handle_call(
        &mut self,
        now: Now,
        call: CallId,
        claims: Option<&Claims>,
        request: ApiRequest,
    ) -> Option<Answer> {
        if !claims.is_some_and(|claims| may(claims, &request)) {
            let message = "permissions denied".to_owned();
            let code = ApiErrorCode::Unauthenticated;
            return Some(Err(ApiError { code, message, argument: None }));
        }
        if let ApiRequest::PerformRpc(request) = request {
            return self.perform_rpc(now, call, request).err().map(Err);
        }
        Some(self.answer(now, request))
    }

    fn answer(&mut self, now: Now, request: ApiRequest) -> Answer {
        match request {
            ApiRequest::CreateRoom(request) => self.create_room(now, request),
            ApiRequest::ListRooms(request) => Ok(self.list_rooms(&request.names)),
            ApiRequest::DeleteRoom(request) => {
                let command = Command::Close(DisconnectReason::RoomDeleted);
                self.command(now, &request.room, command)?;
                Ok(ApiResponse::RoomDeleted(proto::DeleteRoomResponse {}))
            }
            ApiRequest::ListParticipants(request) => Ok(self.list_participants(&request.room)),
            ApiRequest::GetParticipant(request) => {
                let host = self.hosts.get(request.room.as_str()).ok_or_else(no_participant)?;
                let found = host.participant_by_identity(&request.identity);
                let (participant, _) = found.ok_or_else(no_participant)?;
                let region = &self.outside.config.region;
                Ok(ApiResponse::Participant(participant_info(participant, region)))
            }
            ApiRequest::RemoveParticipant(request) => self.remove_participant(now, &request),
            ApiRequest::MutePublishedTrack(request) => self.mute_published_track(now, &request),
            ApiRequest::SendData(request) => self.send_data(now, request),
            ApiRequest::UpdateParticipant(request) => self.update_participant(now, request),
            ApiRequest::UpdateSubscriptions(request) => self.update_subscriptions(now, request),
            ApiRequest::UpdateRoomMetadata(request) => self.update_room_metadata(now, request),
            ApiRequest::MoveParticipant(request) => self.move_participant(now, &request),
            ApiRequest::CreateDispatch(request) => self.create_dispatch(now, request),
            ApiRequest::DeleteDispatch(request) => self.delete_dispatch(now, request),
            ApiRequest::ListDispatch(request) => self.list_dispatches(&request),
            ApiRequest::Catalog(request) => self.call_catalog(request),
            ApiRequest::ForwardParticipant(request) => self.forward_participant(now, &request),
            // Answered by its participant, see `handle_call`.
            ApiRequest::PerformRpc(_) => Err(error(ApiErrorCode::Unknown, "not implemented")),
        }
    }

    pub(crate) fn command(
        &mut self,
        now: Now,
        room: &str,
        command: Command,
    ) -> Result<(), ApiError> {
        let host = self.hosts.get_mut(room).ok_or_else(no_room)?;
        let result = host.command(&mut self.outside, now, command).map_err(|_| no_room());
        self.reschedule(&room.into());
        result
    }

    fn update_room_metadata(
        &mut self,
        now: Now,
        request: proto::UpdateRoomMetadataRequest,
    ) -> Answer {
        let limit = self.outside.config.limits.metadata_bytes;
        if exceeds(request.metadata.len(), limit) {
            return Err(invalid("metadata size exceeds limits", &limit.to_string()));
        }
        self.command(now, &request.room, Command::SetMetadata(request.metadata))?;
        self.keep_room(&request.room.as_str().into());
        let host = self.hosts.get(request.room.as_str()).ok_or_else(no_room)?;
        let room = self.outside.server.room_with_counts(&host.room, &host.turn_password);
        Ok(ApiResponse::Room(room))
    }

    fn list_rooms(&self, names: &[String]) -> ApiResponse {
        let asked = |name: &RoomName| names.is_empty() || names.iter().any(|n| n == name.as_str());
        let hosts = self.hosts.iter().filter(|(name, _)| asked(name));
        let rooms = hosts
            .map(|(_, host)| self.outside.server.room_with_counts(&host.room, &host.turn_password));
        ApiResponse::Rooms(proto::ListRoomsResponse { rooms: rooms.collect() })
    }

    fn list_participants(&self, room: &str) -> ApiResponse {
        let region = &self.outside.config.region;
        let members = self.hosts.get(room).into_iter().flat_map(|host| host.room.participants());
        let participants = members.map(|member| participant_info(member, region)).collect();
        ApiResponse::Participants(proto::ListParticipantsResponse { participants })
    }

    fn mute_published_track(&mut self, now: Now, request: &proto::MuteRoomTrackRequest) -> Answer {
        if !request.muted && !self.outside.config.enable_remote_unmute {
            let text = "remote unmute not enabled";
            return Err(error(ApiErrorCode::FailedPrecondition, text));
        }
        let (room, identity) = (RoomName::from(&*request.room), (&*request.identity).into());
        self.find_connected(&room, &identity)?;
        let host = self.hosts.get_mut(&room).ok_or_else(no_participant)?;
        let found = host.participant_by_identity(&request.identity);
        let (participant, sid) = found.ok_or_else(no_participant)?;
        let track = request.track_sid.as_str().into();
        if participant.track(&track).is_none() {
            return Ok(ApiResponse::TrackMuted(proto::MuteRoomTrackResponse { track: None }));
        }
        let participant = sid.clone();
        let mute = proto::MuteTrackRequest { sid: track.to_string(), muted: request.muted };
        host.send(&mut self.outside, &participant, Message::Mute(mute));
        let command = Command::SetMuted { participant, track: track.clone(), muted: request.muted };
        self.command(now, &request.room, command)?;
        let host = self.hosts.get(request.room.as_str()).ok_or_else(no_room)?;
        let track = host.room.track(&track).map(track_info);
        Ok(ApiResponse::TrackMuted(proto::MuteRoomTrackResponse { track }))
    }

    fn send_data(&mut self, now: Now, request: proto::SendDataRequest) -> Answer {
        if !matches!(request.nonce.len(), 0 | NONCE_BYTES) {
            let text = format!("nonce should be {NONCE_BYTES}-bytes or not present");
            return Err(error(ApiErrorCode::InvalidArgument, &text));
        }
        let host = self.hosts.get_mut(request.room.as_str()).ok_or_else(no_room)?;
        let channel = match request.kind() {
            proto::data_packet::Kind::Reliable => DataChannel::Reliable,
            proto::data_packet::Kind::Lossy => DataChannel::Lossy,
        };
        #[allow(deprecated)]
        let sids = &request.destination_sids;
        let recipients = host.room.data_recipients(None, sids, &request.destination_identities);
        let nonce = if request.nonce.is_empty() { self.outside.nonce() } else { request.nonce };
        if host.is_new_nonce(&nonce) {
            let identities = request.destination_identities;
            let packet = from_server(request.data, request.topic, channel, identities, nonce);
            host.send_data(&mut self.outside, now, None, channel, packet, &recipients);
            self.reschedule(&request.room.as_str().into());
        }
        Ok(ApiResponse::DataSent(proto::SendDataResponse {}))
    }
}

impl crate::host::Host {
    /// Whether a nonce has not been seen lately; then it is remembered.
    fn is_new_nonce(&mut self, nonce: &[u8]) -> bool {
        if self.nonces.iter().any(|seen| seen == nonce) {
            return false;
        }
        if self.nonces.len() >= crate::host::NONCES_MAX {
            self.nonces.pop_front();
        }
        self.nonces.push_back(nonce.to_vec());
        true
    }
}

/// Whether a grant covers a request. A room's administrator rules over exactly that room.
fn may(claims: &Claims, request: &ApiRequest) -> bool {
    let none = VideoGrant::default();
    let grant = claims.video.as_ref().unwrap_or(&none);
    let admin_of = |room: &str| grant.room_admin && !room.is_empty() && grant.room == room;
    let leads_to = |room: &str| !room.is_empty() && grant.destination_room == room;
    match request {
        ApiRequest::CreateRoom(_) | ApiRequest::DeleteRoom(_) => grant.room_create,
        ApiRequest::ListRooms(_) => grant.room_list,
        ApiRequest::ListParticipants(request) => admin_of(&request.room),
        ApiRequest::GetParticipant(request) | ApiRequest::RemoveParticipant(request) => {
            admin_of(&request.room)
        }
        ApiRequest::MutePublishedTrack(request) => admin_of(&request.room),
        ApiRequest::SendData(request) => admin_of(&request.room),
        ApiRequest::UpdateParticipant(request) => admin_of(&request.room),
        ApiRequest::UpdateSubscriptions(request) => admin_of(&request.room),
        ApiRequest::UpdateRoomMetadata(request) => admin_of(&request.room),
        ApiRequest::PerformRpc(request) => admin_of(&request.room),
        ApiRequest::ForwardParticipant(request) => {
            admin_of(&request.room) && leads_to(&request.destination_room)
        }
        ApiRequest::CreateDispatch(request) => admin_of(&request.room),
        ApiRequest::DeleteDispatch(request) => admin_of(&request.room),
        ApiRequest::ListDispatch(request) => admin_of(&request.room),
        ApiRequest::Catalog(request) if request.is_sip() => {
            claims.sip.as_ref().is_some_and(|sip| sip.admin)
        }
        ApiRequest::Catalog(_) => grant.ingress_admin,
        ApiRequest::MoveParticipant(request) => {
            admin_of(&request.room) && leads_to(&request.destination_room)
        }
    }
}
