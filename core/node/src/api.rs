//! Requests of the server API, and their answers.
//!
//! The gateway turns Twirp calls into these values; what they mean, who may ask and what is
//! refused is decided by [`crate::Node`].

use livekit_protocol as proto;

pub use parlor_catalog::{Request as CatalogRequest, Response as CatalogResponse};

/// A method of `livekit.RoomService`, `livekit.AgentDispatchService`, `livekit.Ingress` or
/// `livekit.SIP`.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, clippy::large_enum_variant)] // moved once a call, never stored
pub enum ApiRequest {
    CreateRoom(proto::CreateRoomRequest),
    ListRooms(proto::ListRoomsRequest),
    DeleteRoom(proto::DeleteRoomRequest),
    ListParticipants(proto::ListParticipantsRequest),
    GetParticipant(proto::RoomParticipantIdentity),
    RemoveParticipant(proto::RoomParticipantIdentity),
    MutePublishedTrack(proto::MuteRoomTrackRequest),
    SendData(proto::SendDataRequest),
    UpdateParticipant(proto::UpdateParticipantRequest),
    UpdateSubscriptions(proto::UpdateSubscriptionsRequest),
    UpdateRoomMetadata(proto::UpdateRoomMetadataRequest),
    PerformRpc(proto::PerformRpcRequest),
    ForwardParticipant(proto::ForwardParticipantRequest),
    MoveParticipant(proto::MoveParticipantRequest),
    CreateDispatch(proto::CreateAgentDispatchRequest),
    DeleteDispatch(proto::DeleteAgentDispatchRequest),
    ListDispatch(proto::ListAgentDispatchRequest),
    Catalog(CatalogRequest),
}

/// What an [`ApiRequest`] brought.
#[derive(Clone, PartialEq, Debug)]
#[allow(missing_docs, clippy::large_enum_variant)] // moved once a call, never stored
pub enum ApiResponse {
    Room(proto::Room),
    Rooms(proto::ListRoomsResponse),
    RoomDeleted(proto::DeleteRoomResponse),
    Participants(proto::ListParticipantsResponse),
    Participant(proto::ParticipantInfo),
    ParticipantRemoved(proto::RemoveParticipantResponse),
    TrackMuted(proto::MuteRoomTrackResponse),
    DataSent(proto::SendDataResponse),
    SubscriptionsUpdated(proto::UpdateSubscriptionsResponse),
    RpcPerformed(proto::PerformRpcResponse),
    ParticipantForwarded(proto::ForwardParticipantResponse),
    ParticipantMoved(proto::MoveParticipantResponse),
    Dispatch(proto::AgentDispatch),
    Dispatches(proto::ListAgentDispatchResponse),
    Catalog(CatalogResponse),
}

/// The Twirp error codes that this server uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum ApiErrorCode {
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unauthenticated,
    ResourceExhausted,
    FailedPrecondition,
    Unavailable,
    Canceled,
    Unknown,
    Internal,
}

impl ApiErrorCode {
    /// The code's name in Twirp's JSON.
    pub fn name(self) -> &'static str {
        match self {
            ApiErrorCode::InvalidArgument => "invalid_argument",
            ApiErrorCode::NotFound => "not_found",
            ApiErrorCode::PermissionDenied => "permission_denied",
            ApiErrorCode::Unauthenticated => "unauthenticated",
            ApiErrorCode::ResourceExhausted => "resource_exhausted",
            ApiErrorCode::FailedPrecondition => "failed_precondition",
            ApiErrorCode::Unavailable => "unavailable",
            ApiErrorCode::Canceled => "canceled",
            ApiErrorCode::Unknown => "unknown",
            ApiErrorCode::Internal => "internal",
        }
    }

    /// The HTTP status that Twirp gives it.
    pub fn http_status(self) -> u16 {
        match self {
            ApiErrorCode::InvalidArgument => 400,
            ApiErrorCode::NotFound => 404,
            ApiErrorCode::PermissionDenied => 403,
            ApiErrorCode::Unauthenticated => 401,
            ApiErrorCode::ResourceExhausted => 429,
            ApiErrorCode::FailedPrecondition => 412,
            ApiErrorCode::Unavailable => 503,
            ApiErrorCode::Canceled => 408,
            ApiErrorCode::Unknown | ApiErrorCode::Internal => 500,
        }
    }
}

/// Why an [`ApiRequest`] was refused.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct ApiError {
    /// The kind of error.
    pub code: ApiErrorCode,
    /// `msg` of Twirp's JSON, complete.
    pub message: String,
    /// `meta.argument` of Twirp's JSON: what was wrong with an argument.
    pub argument: Option<&'static str>,
}
