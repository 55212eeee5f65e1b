//! Protobuf JSON as LiveKit's Twirp speaks it.
//!
//! In: camelCase or snake_case, unknown fields ignored, `null` is the default.
//! Out: snake_case, every field, 64-bit integers as text, enums by name, absent messages `null`.

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor,
    ReflectMessage, Value,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};
use std::sync::LazyLock;

/// The compiled .proto files of `livekit-protocol`; `tests/descriptors.rs` writes and checks it.
static DESCRIPTORS: LazyLock<DescriptorPool> = LazyLock::new(|| {
    DescriptorPool::decode(include_bytes!("../../livekit.descriptors").as_slice())
        .unwrap_or_default()
});

/// Reads a message; `None` if it is not JSON or of another shape.
pub fn read<M: Message + Default + DeserializeOwned>(body: &[u8]) -> Option<M> {
    let mut value: Json = serde_json::from_slice(body).ok()?;
    drop_nulls(&mut value);
    serde_json::from_value(value).ok()
}

fn drop_nulls(value: &mut Json) {
    match value {
        Json::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(drop_nulls);
        }
        Json::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// Writes an encoded `livekit.<name>`.
pub fn write(name: &str, encoded: &[u8]) -> Vec<u8> {
    let json = DESCRIPTORS
        .get_message_by_name(&format!("livekit.{name}"))
        .and_then(|descriptor| DynamicMessage::decode(descriptor, encoded).ok())
        .map_or(Json::Null, |message| write_message(&message));
    json.to_string().into_bytes()
}

fn write_message(message: &DynamicMessage) -> Json {
    let descriptor: MessageDescriptor = message.descriptor();
    if descriptor.package_name() == "google.protobuf" {
        return serde_json::to_value(message).unwrap_or_default();
    }
    let mut object = Map::new();
    for field in descriptor.fields() {
        if message.has_field(&field) || !field.supports_presence() {
            object.insert(field.name().to_owned(), write_field(&field, &message.get_field(&field)));
        } else if field.containing_oneof().is_none() {
            object.insert(field.name().to_owned(), Json::Null);
        }
    }
    Json::Object(object)
}

fn write_field(field: &FieldDescriptor, value: &Value) -> Json {
    match value {
        Value::List(list) => list.iter().map(|item| write_value(&field.kind(), item)).collect(),
        Value::Map(map) => {
            let kind = match field.kind() {
                Kind::Message(entry) => entry.map_entry_value_field().kind(),
                other => other,
            };
            let mut entries: Vec<_> =
                map.iter().map(|(key, value)| (map_key(key), write_value(&kind, value))).collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Json::Object(entries.into_iter().collect())
        }
        value => write_value(&field.kind(), value),
    }
}

fn map_key(key: &MapKey) -> String {
    match key {
        MapKey::Bool(key) => key.to_string(),
        MapKey::I32(key) => key.to_string(),
        MapKey::I64(key) => key.to_string(),
        MapKey::U32(key) => key.to_string(),
        MapKey::U64(key) => key.to_string(),
        MapKey::String(key) => key.clone(),
    }
}

fn write_value(kind: &Kind, value: &Value) -> Json {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::I32(value) => (*value).into(),
        Value::U32(value) => (*value).into(),
        Value::I64(value) => value.to_string().into(),
        Value::U64(value) => value.to_string().into(),
        Value::F32(value) => (*value).into(),
        Value::F64(value) => (*value).into(),
        Value::String(value) => value.as_str().into(),
        Value::Bytes(value) => {
            use base64::{Engine, prelude::BASE64_STANDARD};
            BASE64_STANDARD.encode(value).into()
        }
        Value::EnumNumber(number) => {
            match kind.as_enum().and_then(|kind| kind.get_value(*number)) {
                Some(value) => value.name().into(),
                None => (*number).into(),
            }
        }
        Value::Message(message) => write_message(message),
        Value::List(_) | Value::Map(_) => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use livekit_protocol as proto;

    /// The answer of LiveKit to `CreateRoom`, in trace 09.
    const ROOM: &str = r#"{"sid":"RM_iH6vUi4m9Drz","name":"tw","empty_timeout":60,"departure_timeout":5,
        "max_participants":4,"creation_time":"1795245669","creation_time_ms":"1795245669549",
        "turn_password":"p","enabled_codecs":[{"mime":"audio/PCMU","fmtp_line":""}],"metadata":"m",
        "num_participants":0,"num_publishers":0,"active_recording":false,"version":null}"#;

    /// Its answer to `UpdateParticipant`.
    const PARTICIPANT: &str = r#"{"sid":"PA_SAUGjgDfVrjK","identity":"p1","state":"JOINED","tracks":[],
        "metadata":"new","joined_at":"1795245669","joined_at_ms":"1795245669629","name":"Nn","version":5,
        "permission":{"can_subscribe":true,"can_publish":false,"can_publish_data":false,
        "can_publish_sources":[],"hidden":false,"recorder":false,"can_update_metadata":false,"agent":false,
        "can_subscribe_metrics":false,"can_manage_agent_session":false},"region":"","is_publisher":false,
        "kind":"STANDARD","attributes":{"a":"1","b":"2"},"disconnect_reason":"UNKNOWN_REASON",
        "kind_details":[],"data_tracks":[],"client_protocol":0,"capabilities":[]}"#;

    #[test]
    fn output_has_every_field_as_livekit_writes_it() {
        let room: proto::Room = read(ROOM.as_bytes()).unwrap();
        let expected: Json = serde_json::from_str(ROOM).unwrap();
        let written: Json = serde_json::from_slice(&write("Room", &room.encode_to_vec())).unwrap();
        assert_eq!(written, expected);

        let participant: proto::ParticipantInfo = read(PARTICIPANT.as_bytes()).unwrap();
        let expected: Json = serde_json::from_str(PARTICIPANT).unwrap();
        let written = write("ParticipantInfo", &participant.encode_to_vec());
        assert_eq!(serde_json::from_slice::<Json>(&written).unwrap(), expected);

        assert_eq!(write("MuteRoomTrackResponse", &[]), br#"{"track":null}"#);
        assert_eq!(write("SendDataResponse", &[]), b"{}");
    }

    #[test]
    fn input_takes_both_cases_and_ignores_what_it_does_not_know() {
        let camel: proto::CreateRoomRequest =
            read(br#"{"name":"r","emptyTimeout":6,"nope":[1]}"#).unwrap();
        let snake: proto::CreateRoomRequest =
            read(br#"{"name":"r","empty_timeout":6,"metadata":null}"#).unwrap();
        assert_eq!((camel.empty_timeout, &camel), (6, &snake));
        for bad in [&b"{\"name\":5}"[..], b"{\"name\":", b"", b"[]", b"3"] {
            assert!(read::<proto::CreateRoomRequest>(bad).is_none());
        }
        let data: proto::SendDataRequest =
            read(br#"{"room":"r","data":"aGk=","kind":"LOSSY"}"#).unwrap();
        assert_eq!((data.data.as_slice(), data.kind), (&b"hi"[..], 1));
    }
}
