//! WebSocket messages: protobuf, or protobuf JSON for clients that speak text.

use bytes::Bytes;
use livekit_protocol as proto;
use prost::Message;

/// Largest request in bytes. An offer with a hundred sections has about 300 kB.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;

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
        self.binary.get_or_insert_with(|| self.response.encode_to_vec().into()).clone()
    }

    /// The text message.
    pub fn text(&mut self) -> String {
        self.text
            .get_or_insert_with(|| serde_json::to_string(&self.response).unwrap_or_default())
            .clone()
    }
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
        assert_eq!(encoder.text(), r#"{"pongResp":{"lastPingTimestamp":"7","timestamp":"8"}}"#);
        assert_eq!(
            proto::SignalResponse::decode(encoder.binary()).unwrap().message,
            Some(signal_response::Message::PongResp(pong))
        );
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
