//! Twirp: one POST per method, protobuf or JSON (<https://twitchtv.github.io/twirp/docs/spec_v7.html>).

pub mod absent;
mod catalog;
mod json;

use http::StatusCode;
use parlor_node::api::{ApiError, ApiRequest, ApiResponse};
use prost::Message;
use serde::de::DeserializeOwned;

/// How bodies are encoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Encoding {
    Json,
    Protobuf,
}

impl Encoding {
    fn of(content_type: &str) -> Option<Encoding> {
        match content_type.split(';').next().unwrap_or("").trim() {
            "application/json" => Some(Encoding::Json),
            "application/protobuf" => Some(Encoding::Protobuf),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Encoding::Json => "application/json",
            Encoding::Protobuf => "application/protobuf",
        }
    }
}

/// What goes back: status, content type, body.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Answer {
    pub status: StatusCode,
    pub content_type: &'static str,
    pub body: Vec<u8>,
}

/// A request that a handler exists for.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    decode: Decode,
    encoding: Encoding,
}

const ROOM_SERVICE: &str = "/twirp/livekit.RoomService/";
const INGRESS_SERVICE: &str = "/twirp/livekit.Ingress/";
const SIP_SERVICE: &str = "/twirp/livekit.SIP/";
const DISPATCH_SERVICE: &str = "/twirp/livekit.AgentDispatchService/";

/// Whether a path belongs to a service that exists here.
pub fn is_service(path: &str) -> bool {
    let services = [ROOM_SERVICE, DISPATCH_SERVICE, INGRESS_SERVICE, SIP_SERVICE];
    services.iter().any(|service| path.starts_with(service)) || absent::method(path).is_some()
}

/// Whether a path has a handler.
pub fn is_method(path: &str) -> bool {
    route("POST", path, Encoding::Json.name()).is_ok()
}

/// Finds the handler, or answers `bad_route`.
pub fn route(method: &str, path: &str, content_type: &str) -> Result<Route, Answer> {
    let bad_route = |message: String| {
        Err(error_answer(
            StatusCode::NOT_FOUND,
            "bad_route",
            &message,
            Some(("twirp_invalid_route", &format!("{method} {path}"))),
        ))
    };
    if method != "POST" {
        return bad_route(format!("unsupported method {method:?} (only POST is allowed)"));
    }
    let services: [(&str, FindMethod); 4] = [
        (ROOM_SERVICE, room_method),
        (DISPATCH_SERVICE, dispatch_method),
        (INGRESS_SERVICE, catalog::ingress_method),
        (SIP_SERVICE, catalog::sip_method),
    ];
    let decode = services.iter().find_map(|(service, of)| of(path.strip_prefix(service)?));
    let Some(decode) = decode else { return bad_route(format!("no handler for path {path:?}")) };
    match Encoding::of(content_type) {
        Some(encoding) => Ok(Route { decode, encoding }),
        None => bad_route(format!("unexpected Content-Type: {content_type:?}")),
    }
}

/// Finds the decoder of a method of a service.
type FindMethod = fn(&str) -> Option<Decode>;
type Decode = fn(Encoding, &[u8]) -> Option<ApiRequest>;

fn dispatch_method(method: &str) -> Option<Decode> {
    Some(match method {
        "CreateDispatch" => |encoding, body| read(encoding, body).map(ApiRequest::CreateDispatch),
        "DeleteDispatch" => |encoding, body| read(encoding, body).map(ApiRequest::DeleteDispatch),
        "ListDispatch" => |encoding, body| read(encoding, body).map(ApiRequest::ListDispatch),
        _ => return None,
    })
}

fn room_method(method: &str) -> Option<Decode> {
    Some(match method {
        "CreateRoom" => |encoding, body| read(encoding, body).map(ApiRequest::CreateRoom),
        "ListRooms" => |encoding, body| read(encoding, body).map(ApiRequest::ListRooms),
        "DeleteRoom" => |encoding, body| read(encoding, body).map(ApiRequest::DeleteRoom),
        "ListParticipants" => {
            |encoding, body| read(encoding, body).map(ApiRequest::ListParticipants)
        }
        "GetParticipant" => |encoding, body| read(encoding, body).map(ApiRequest::GetParticipant),
        "RemoveParticipant" => {
            |encoding, body| read(encoding, body).map(ApiRequest::RemoveParticipant)
        }
        "MutePublishedTrack" => {
            |encoding, body| read(encoding, body).map(ApiRequest::MutePublishedTrack)
        }
        "SendData" => |encoding, body| read(encoding, body).map(ApiRequest::SendData),
        "UpdateParticipant" => {
            |encoding, body| read(encoding, body).map(ApiRequest::UpdateParticipant)
        }
        "UpdateSubscriptions" => {
            |encoding, body| read(encoding, body).map(ApiRequest::UpdateSubscriptions)
        }
        "UpdateRoomMetadata" => {
            |encoding, body| read(encoding, body).map(ApiRequest::UpdateRoomMetadata)
        }
        "PerformRpc" => |encoding, body| read(encoding, body).map(ApiRequest::PerformRpc),
        "ForwardParticipant" => {
            |encoding, body| read(encoding, body).map(ApiRequest::ForwardParticipant)
        }
        "MoveParticipant" => |encoding, body| read(encoding, body).map(ApiRequest::MoveParticipant),
        _ => return None,
    })
}

impl Route {
    /// Decodes the body of a request.
    pub fn request(self, body: &[u8]) -> Result<ApiRequest, Answer> {
        (self.decode)(self.encoding, body).ok_or_else(|| {
            let name = match self.encoding {
                Encoding::Json => "json",
                Encoding::Protobuf => "protobuf",
            };
            let message = format!("the {name} request could not be decoded");
            error_answer(StatusCode::BAD_REQUEST, "malformed", &message, None)
        })
    }

    /// Encodes what the node answered.
    pub fn answer(self, result: Result<ApiResponse, ApiError>) -> Answer {
        match result {
            Ok(response) => self.success(&response),
            Err(error) => {
                let status = StatusCode::from_u16(error.code.http_status());
                let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                error_answer(
                    status,
                    error.code.name(),
                    &error.message,
                    error.argument.map(|text| ("argument", text)),
                )
            }
        }
    }

    fn success(self, response: &ApiResponse) -> Answer {
        let (name, bytes) = match response {
            ApiResponse::Room(message) => ("Room", message.encode_to_vec()),
            ApiResponse::Rooms(message) => ("ListRoomsResponse", message.encode_to_vec()),
            ApiResponse::RoomDeleted(message) => ("DeleteRoomResponse", message.encode_to_vec()),
            ApiResponse::Participants(message) => {
                ("ListParticipantsResponse", message.encode_to_vec())
            }
            ApiResponse::Participant(message) => ("ParticipantInfo", message.encode_to_vec()),
            ApiResponse::ParticipantRemoved(message) => {
                ("RemoveParticipantResponse", message.encode_to_vec())
            }
            ApiResponse::TrackMuted(message) => ("MuteRoomTrackResponse", message.encode_to_vec()),
            ApiResponse::DataSent(message) => ("SendDataResponse", message.encode_to_vec()),
            ApiResponse::SubscriptionsUpdated(message) => {
                ("UpdateSubscriptionsResponse", message.encode_to_vec())
            }
            ApiResponse::RpcPerformed(message) => ("PerformRpcResponse", message.encode_to_vec()),
            ApiResponse::ParticipantForwarded(message) => {
                ("ForwardParticipantResponse", message.encode_to_vec())
            }
            ApiResponse::ParticipantMoved(message) => {
                ("MoveParticipantResponse", message.encode_to_vec())
            }
            ApiResponse::Catalog(response) => response.encode(),
            ApiResponse::Dispatch(message) => ("AgentDispatch", message.encode_to_vec()),
            ApiResponse::Dispatches(message) => {
                ("ListAgentDispatchResponse", message.encode_to_vec())
            }
        };
        let body = match self.encoding {
            Encoding::Protobuf => bytes,
            Encoding::Json => json::write(name, &bytes),
        };
        Answer { status: StatusCode::OK, content_type: self.encoding.name(), body }
    }
}

fn read<M: Message + Default + DeserializeOwned>(encoding: Encoding, body: &[u8]) -> Option<M> {
    match encoding {
        Encoding::Protobuf => M::decode(body).ok(),
        Encoding::Json => json::read(body),
    }
}

/// A Twirp error; always JSON.
fn error_answer(
    status: StatusCode,
    code: &str,
    message: &str,
    meta: Option<(&str, &str)>,
) -> Answer {
    let mut error = serde_json::json!({ "code": code, "msg": message });
    if let Some((key, value)) = meta {
        error["meta"] = serde_json::json!({ key: value });
    }
    Answer { status, content_type: Encoding::Json.name(), body: error.to_string().into_bytes() }
}

/// The answer when the node did not answer in time.
pub fn timed_out() -> Answer {
    error_answer(
        StatusCode::SERVICE_UNAVAILABLE,
        "unavailable",
        "the server did not answer in time",
        None,
    )
}

/// The answer to a caller that calls too often.
pub fn too_many_calls() -> Answer {
    let (code, message) = ("resource_exhausted", "too many calls");
    error_answer(StatusCode::TOO_MANY_REQUESTS, code, message, None)
}
