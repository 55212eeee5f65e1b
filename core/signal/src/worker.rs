//! The protocol of agent workers (`/agent`): messages, and the tokens of their agents.

use crate::{
    ApiKeys, Claims,
    frame::{MalformedFrame, Maps, PARTICIPANT_MAPS, sorted},
    token::{self, VideoGrant},
};
use bytes::Bytes;
use livekit_protocol as proto;
use prost::Message as _;
use std::{collections::BTreeMap, time::Duration};

/// Largest message of a worker in bytes, whatever `agent_signal_message_size_limit` says; that is
/// the gateway's to hold to.
pub const MAX_WORKER_MESSAGE_BYTES: usize = 64 << 20;
/// How long an agent's token lives.
pub const AGENT_TOKEN_VALIDITY: Duration = Duration::from_secs(3600);
/// The attribute of an agent that names it.
pub const AGENT_NAME_ATTRIBUTE: &str = "lk.agent_name";

const JOB_MAPS: [Maps; 2] = [Maps::Here(12), Maps::In(4, &PARTICIPANT_MAPS)];
const MESSAGE_MAPS: [Maps; 2] =
    [Maps::In(2, &[Maps::In(1, &JOB_MAPS)]), Maps::In(3, &[Maps::In(1, &JOB_MAPS)])];

/// Decodes a binary message of a worker. `None` for one that a later protocol has.
pub fn decode_binary(
    frame: &[u8],
) -> Result<Option<proto::worker_message::Message>, MalformedFrame> {
    if frame.len() > MAX_WORKER_MESSAGE_BYTES {
        return Err(MalformedFrame::TooLong);
    }
    proto::WorkerMessage::decode(frame)
        .map(|message| message.message)
        .map_err(|error| MalformedFrame::NotARequest(error.to_string()))
}

/// Decodes a text message of a worker.
pub fn decode_text(frame: &str) -> Result<Option<proto::worker_message::Message>, MalformedFrame> {
    if frame.len() > MAX_WORKER_MESSAGE_BYTES {
        return Err(MalformedFrame::TooLong);
    }
    serde_json::from_str::<proto::WorkerMessage>(frame)
        .map(|message| message.message)
        .map_err(|error| MalformedFrame::NotARequest(error.to_string()))
}

/// A message to a worker in binary form.
pub fn encode_binary(message: &proto::server_message::Message) -> Bytes {
    let message = proto::ServerMessage { message: Some(message.clone()) };
    sorted(&message.encode_to_vec(), &MESSAGE_MAPS).into()
}

/// The same in text; `None` when its JSON writer does not know a value in it.
pub fn encode_text(message: &proto::server_message::Message) -> Option<String> {
    let message = proto::ServerMessage { message: Some(message.clone()) };
    serde_json::to_value(&message).ok().map(|value| value.to_string())
}

/// What an agent may do whose worker does not say.
pub fn default_permissions() -> proto::ParticipantPermission {
    proto::ParticipantPermission {
        can_subscribe: true,
        can_publish: true,
        can_publish_data: true,
        can_update_metadata: true,
        ..Default::default()
    }
}

/// An agent that a worker has announced.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub struct Agent<'a> {
    pub room: &'a str,
    pub identity: &'a str,
    pub name: &'a str,
    pub metadata: &'a str,
    pub attributes: &'a BTreeMap<String, String>,
    /// Name by which it is called.
    pub agent_name: &'a str,
    /// What its worker allows it.
    pub permissions: &'a proto::ParticipantPermission,
}

/// The token with which an agent joins, signed with the key of its worker. Empty if that key is
/// no more.
pub fn agent_token(agent: Agent<'_>, key: &str, keys: &ApiKeys, unix_now: Duration) -> String {
    let Some(secret) = keys.secret(key) else { return String::new() };
    let allowed = agent.permissions;
    let video = VideoGrant {
        room_join: true,
        agent: true,
        room: agent.room.to_owned(),
        can_subscribe: Some(allowed.can_subscribe),
        can_publish: Some(allowed.can_publish),
        can_publish_data: Some(allowed.can_publish_data),
        hidden: allowed.hidden,
        can_update_own_metadata: Some(allowed.can_update_metadata),
        can_subscribe_metrics: Some(allowed.can_subscribe_metrics),
        ..Default::default()
    };
    let mut attributes = agent.attributes.clone();
    attributes.insert(AGENT_NAME_ATTRIBUTE.to_owned(), agent.agent_name.to_owned());
    let now = unix_now.as_secs();
    let claims = Claims {
        sub: agent.identity.to_owned(),
        identity: agent.identity.to_owned(),
        name: agent.name.to_owned(),
        kind: "agent".to_owned(),
        metadata: agent.metadata.to_owned(),
        attributes,
        video: Some(video),
        exp: Some(now + AGENT_TOKEN_VALIDITY.as_secs()),
        nbf: Some(now),
        iat: Some(now),
        ..Default::default()
    };
    token::sign(&claims, key, secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Claims of trace 11-agent-worker, "the assigned job token".
    #[test]
    fn an_agents_token_is_as_recorded() {
        let keys: ApiKeys = [("devkey".to_owned(), "secret".to_owned())].into_iter().collect();
        #[allow(deprecated)]
        let permissions = proto::ParticipantPermission {
            can_subscribe: true,
            can_publish: true,
            can_publish_data: true,
            agent: true,
            ..Default::default()
        };
        let agent = Agent {
            room: "ag",
            identity: "agent-room",
            name: "Agent room",
            metadata: "am",
            attributes: &[("k".to_owned(), "v".to_owned())].into(),
            agent_name: "",
            permissions: &permissions,
        };
        let token = agent_token(agent, "devkey", &keys, Duration::from_secs(1_795_245_933));
        let claims = token::verify(&token, &keys, Duration::from_secs(1_795_245_933)).unwrap();
        let recorded = serde_json::json!({
            "iss": "devkey", "sub": "agent-room", "exp": 1_795_249_533_u64,
            "nbf": 1_795_245_933_u64, "iat": 1_795_245_933_u64, "identity": "agent-room",
            "name": "Agent room", "kind": "agent",
            "video": {
                "roomJoin": true, "room": "ag", "canPublish": true, "canSubscribe": true,
                "canPublishData": true, "canUpdateOwnMetadata": false, "agent": true,
                "canSubscribeMetrics": false
            },
            "metadata": "am", "attributes": {"k": "v", "lk.agent_name": ""}
        });
        assert_eq!(serde_json::to_value(claims).unwrap(), recorded);
        assert!(agent_token(agent, "gone", &keys, Duration::ZERO).is_empty());
    }

    #[test]
    fn workers_speak_binary_or_text_and_junk_is_an_error() {
        let ping = decode_text(r#"{"ping":{"timestamp":"7"}}"#).unwrap();
        assert_eq!(
            ping,
            Some(proto::worker_message::Message::Ping(proto::WorkerPing { timestamp: 7 }))
        );
        assert!(decode_binary(&[0xff; 3]).is_err() && decode_text("{").is_err());
        assert_eq!(decode_binary(&[]), Ok(None));
        let long = vec![0; MAX_WORKER_MESSAGE_BYTES + 1];
        assert_eq!(decode_binary(&long), Err(MalformedFrame::TooLong));
        let pong = proto::WorkerPong { last_timestamp: 7, timestamp: 8 };
        let pong = proto::server_message::Message::Pong(pong);
        let text = r#"{"pong":{"lastTimestamp":"7","timestamp":"8"}}"#;
        assert_eq!(encode_text(&pong).as_deref(), Some(text));
        assert_eq!(proto::ServerMessage::decode(encode_binary(&pong)).unwrap().message, Some(pong));
    }
}
