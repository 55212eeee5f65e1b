//! WebSocket messages: protobuf, or protobuf JSON for clients that speak text.

use crate::wire::{Fields, Value, bytes_len, put_bytes, put_length};
use bytes::Bytes;
use livekit_protocol as proto;
use prost::Message;

/// Largest request in bytes, whatever `signal_message_size_limit` says; that is the gateway's to
/// hold to. (An offer with a hundred sections has about 300 kB.)
pub const MAX_REQUEST_BYTES: usize = 64 << 20;

/// `SignalResponse.join`.
const JOIN: u32 = 1;
/// `JoinResponse.other_participants`.
const OTHER_PARTICIPANTS: u32 = 3;

/// A message that is no `livekit.SignalRequest`: the connection ends, without `leave`.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum MalformedFrame {
    #[error("longer than {MAX_REQUEST_BYTES} bytes")]
    TooLong,
    #[error("not a SignalRequest: {0}")]
    NotARequest(String),
}

/// Decodes a binary message. `None` for one without content, which is ignored: the empty frame,
/// and requests of a later protocol.
pub fn decode_binary(
    frame: &[u8],
) -> Result<Option<proto::signal_request::Message>, MalformedFrame> {
    if frame.len() > MAX_REQUEST_BYTES {
        return Err(MalformedFrame::TooLong);
    }
    proto::SignalRequest::decode(frame)
        .map(|request| request.message)
        .map_err(|error| MalformedFrame::NotARequest(error.to_string()))
}

/// Decodes a text message.
pub fn decode_text(frame: &str) -> Result<Option<proto::signal_request::Message>, MalformedFrame> {
    if frame.len() > MAX_REQUEST_BYTES {
        return Err(MalformedFrame::TooLong);
    }
    serde_json::from_str::<proto::SignalRequest>(frame)
        .map(|request| request.message)
        .map_err(|error| MalformedFrame::NotARequest(error.to_string()))
}

/// One response, encoded once for all that get it, in each form at first use.
#[derive(Clone, Debug)]
pub struct Encoder {
    response: proto::SignalResponse,
    binary: Option<Bytes>,
    text: Option<String>,
}

impl Encoder {
    /// An encoder of one response.
    pub fn new(message: proto::signal_response::Message) -> Self {
        Self {
            response: proto::SignalResponse { message: Some(message) },
            binary: None,
            text: None,
        }
    }

    /// The binary message.
    pub fn binary(&mut self) -> Bytes {
        self.binary
            .get_or_insert_with(|| sorted(&self.response.encode_to_vec(), &RESPONSE_MAPS).into())
            .clone()
    }

    /// The text message. `None` when it holds an enum value that is newer than this server, which
    /// its JSON writer cannot name; the binary message carries it.
    pub fn text(&mut self) -> Option<String> {
        if self.text.is_none() {
            // By way of a value, whose maps are sorted.
            self.text = serde_json::to_value(&self.response).ok().map(|value| value.to_string());
        }
        self.text.clone()
    }
}

/// The binary message of a `join` with the other participants, each as it is written.
pub(crate) fn join_binary<'a>(
    join: &proto::JoinResponse,
    others: impl Iterator<Item = &'a [u8]> + Clone,
) -> Bytes {
    let join = sorted(&join.encode_to_vec(), &JOIN_MAPS);
    let before = Fields::of(&join).flatten().take_while(|field| field.number < OTHER_PARTICIPANTS);
    let (head, tail) = join.split_at(before.map(|field| field.raw.len()).sum());
    let others_bytes: usize = others.clone().map(|other| bytes_len(other.len())).sum();
    let fields_bytes = join.len() + others_bytes;
    let mut message = Vec::with_capacity(bytes_len(fields_bytes));
    put_length(&mut message, JOIN, fields_bytes);
    message.extend_from_slice(head);
    for other in others {
        put_bytes(&mut message, OTHER_PARTICIPANTS, other);
    }
    message.extend_from_slice(tail);
    message.into()
}

/// Where a message has maps. They are hash maps, whose entries come in an order that differs
/// from run to run, while the same inputs are to give the same outputs.
pub(crate) enum Maps {
    /// The field is a map.
    Here(u32),
    /// The field is a message that has maps.
    In(u32, &'static [Maps]),
}

pub(crate) const PARTICIPANT_MAPS: [Maps; 1] = [Maps::Here(15)];
const DESCRIPTION_MAPS: [Maps; 1] = [Maps::Here(4)];
const JOIN_MAPS: [Maps; 2] =
    [Maps::In(2, &PARTICIPANT_MAPS), Maps::In(OTHER_PARTICIPANTS, &PARTICIPANT_MAPS)];
const RESPONSE_MAPS: [Maps; 5] = [
    Maps::In(JOIN, &JOIN_MAPS),
    Maps::In(2, &DESCRIPTION_MAPS),
    Maps::In(3, &DESCRIPTION_MAPS),
    Maps::In(5, &[Maps::In(1, &PARTICIPANT_MAPS)]),
    Maps::In(22, &[Maps::In(7, &[Maps::Here(3)])]),
];

/// The same message with the entries of its maps in order.
pub(crate) fn sorted(message: &[u8], maps: &[Maps]) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len());
    let mut entries: Vec<&[u8]> = Vec::new();
    for field in Fields::of(message).flatten() {
        let map = maps.iter().find(|map| match map {
            Maps::Here(number) | Maps::In(number, _) => *number == field.number,
        });
        match (map, field.value) {
            (Some(Maps::Here(_)), _) => entries.push(field.raw),
            (Some(Maps::In(number, maps)), Value::Bytes(inner)) => {
                put_bytes(&mut out, *number, &sorted(inner, maps));
            }
            _ => out.extend_from_slice(field.raw),
        }
    }
    entries.sort_unstable();
    out.extend(entries.into_iter().flatten());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{signal_request, signal_response};

    #[test]
    fn a_text_client_is_answered_in_text() {
        let request = decode_text(r#"{"pingReq":{"timestamp":"7","rtt":"1"}}"#).unwrap();
        let Some(signal_request::Message::PingReq(ping)) = request else { panic!() };
        assert_eq!(ping.timestamp, 7);
        let pong = proto::Pong { last_ping_timestamp: 7, timestamp: 8 };
        let mut encoder = Encoder::new(signal_response::Message::PongResp(pong));
        let text = r#"{"pongResp":{"lastPingTimestamp":"7","timestamp":"8"}}"#;
        assert_eq!(encoder.text().as_deref(), Some(text));
        assert_eq!(
            proto::SignalResponse::decode(encoder.binary()).unwrap().message,
            Some(signal_response::Message::PongResp(pong))
        );
    }

    #[test]
    fn values_of_a_later_protocol_go_in_binary_only() {
        let track = proto::TrackInfo { audio_features: vec![99], ..Default::default() };
        let published = proto::TrackPublishedResponse { track: Some(track), cid: "c".into() };
        let message = signal_response::Message::TrackPublished(published);
        let mut encoder = Encoder::new(message.clone());
        assert_eq!(encoder.text(), None);
        let decoded = proto::SignalResponse::decode(encoder.binary()).unwrap();
        assert_eq!(decoded.message, Some(message));
    }

    #[test]
    fn maps_are_written_in_one_order() {
        let participant = || proto::ParticipantInfo {
            identity: "alice".into(),
            attributes: (0..20).map(|n| (format!("key{n}"), "value".to_owned())).collect(),
            client_protocol: 2,
            ..Default::default()
        };
        let description = || proto::SessionDescription {
            id: 3,
            mid_to_track_id: (0..20).map(|n| (n.to_string(), format!("TR_{n}"))).collect(),
            ..Default::default()
        };
        let messages = || {
            let join = proto::JoinResponse {
                participant: Some(participant()),
                other_participants: vec![participant(), participant()],
                ..Default::default()
            };
            let update = proto::UpdateParticipantMetadata {
                attributes: participant().attributes,
                ..Default::default()
            };
            let response = proto::RequestResponse {
                request: Some(proto::request_response::Request::UpdateMetadata(update)),
                ..Default::default()
            };
            let participants = vec![participant()];
            [
                signal_response::Message::Join(join),
                signal_response::Message::Answer(description()),
                signal_response::Message::Offer(description()),
                signal_response::Message::Update(proto::ParticipantUpdate { participants }),
                signal_response::Message::RequestResponse(response),
            ]
        };
        for (one, other) in messages().into_iter().zip(messages()) {
            let (mut a, mut b) = (Encoder::new(one.clone()), Encoder::new(other));
            assert_eq!(a.binary(), b.binary());
            assert!(a.text().is_some());
            assert_eq!(a.text(), b.text());
            let decoded = proto::SignalResponse::decode(a.binary()).unwrap();
            assert_eq!(decoded.message, Some(one));
        }
    }

    /// A client cannot tell it from one that was written in one piece.
    #[test]
    fn a_join_with_others_as_they_are_written_is_the_same_message() {
        let participant = |sid: &str| proto::ParticipantInfo {
            sid: sid.to_owned(),
            attributes: (0..9).map(|n| (format!("key{n}"), sid.to_owned())).collect(),
            ..Default::default()
        };
        let join = |participant, others| proto::JoinResponse {
            room: Some(proto::Room { name: "room".to_owned(), ..Default::default() }),
            participant,
            other_participants: others,
            server_version: "1.0".to_owned(),
            fast_publish: true,
            ..Default::default()
        };
        let others: Vec<_> = ["PA_1", "PA_2", "PA_3"].map(participant).to_vec();
        let written: Vec<_> =
            others.iter().map(|o| sorted(&o.encode_to_vec(), &PARTICIPANT_MAPS)).collect();
        for count in 0..=others.len() {
            for own in [None, Some(participant("PA_own"))] {
                let whole =
                    signal_response::Message::Join(join(own.clone(), others[..count].to_vec()));
                let pieces = written[..count].iter().map(Vec::as_slice);
                let one = join_binary(&join(own, Vec::new()), pieces);
                assert_eq!(one, Encoder::new(whole).binary(), "{count}");
            }
        }
    }

    #[test]
    fn junk_is_an_error_and_emptiness_is_nothing() {
        assert_eq!(decode_binary(&[]), Ok(None));
        assert!(decode_binary(&[0xff; 9]).is_err());
        assert!(decode_text("").is_err());
        assert!(decode_text("{]").is_err());
        assert_eq!(decode_text("{}"), Ok(None));
        assert_eq!(decode_binary(&vec![0; MAX_REQUEST_BYTES + 1]), Err(MalformedFrame::TooLong));
    }
}
