//! One event on its way to one URL: its form in the storage, and on the wire.

use aws_lc_rs::digest;
use base64::{Engine, prelude::BASE64_STANDARD};
use livekit_protocol::WebhookEvent;
use parlor_signal::{Claims, token};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How long a signature is good for.
const SIGNATURE_TTL: Duration = Duration::from_secs(5 * 60);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) url: String,
    /// What it is ordered with.
    pub(crate) room: String,
    pub(crate) event: String,
    pub(crate) id: String,
    /// When it was recorded, milliseconds since the Unix epoch.
    pub(crate) recorded_ms: u64,
    /// Protobuf JSON; always the same bytes, however often it is sent.
    pub(crate) body: String,
}

impl Message {
    /// One message for each URL.
    pub(crate) fn of<'a>(
        event: &'a WebhookEvent,
        urls: impl Iterator<Item = &'a str>,
        unix_now: Duration,
    ) -> Vec<Message> {
        let Ok(body) = serde_json::to_string(event) else { return Vec::new() };
        urls.map(|url| Message {
            url: url.to_owned(),
            room: event.room.as_ref().map_or(String::new(), |room| room.name.clone()),
            event: event.event.clone(),
            id: event.id.clone(),
            recorded_ms: unix_now.as_millis() as u64,
            body: body.clone(),
        })
        .collect()
    }

    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Message> {
        serde_json::from_slice(bytes).ok()
    }

    pub(crate) fn age(&self, unix_now: Duration) -> Duration {
        unix_now.saturating_sub(Duration::from_millis(self.recorded_ms))
    }

    /// The value of `Authorization`: a token of the API key over the body's hash.
    pub(crate) fn signature(&self, key: &str, secret: &str, unix_now: Duration) -> String {
        let hash = digest::digest(&digest::SHA256, self.body.as_bytes());
        let claims = Claims {
            iat: Some(unix_now.as_secs()),
            nbf: Some(unix_now.as_secs()),
            exp: Some((unix_now + SIGNATURE_TTL).as_secs()),
            sha256: BASE64_STANDARD.encode(hash),
            ..Claims::default()
        };
        token::sign(&claims, key, secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_signal::ApiKeys;

    #[test]
    fn the_recorded_body_is_written_and_signed_as_recorded() {
        // Trace 10-webhook-retries.
        let recorded = r#"{"event":"room_finished","room":{"sid":"RM_ZjjBK8m4KY4K","name":"wh","emptyTimeout":30,"departureTimeout":1,"creationTime":"1795245613","creationTimeMs":"1795245613438","turnPassword":"E6","enabledCodecs":[{"mime":"audio/PCMU"}],"metadata":"rm"},"id":"EV_8Ze8rPtPiyJU","createdAt":"1795245616"}"#;
        let event: WebhookEvent = serde_json::from_str(recorded).unwrap();
        let now = Duration::from_secs(1_795_245_616);
        let messages = Message::of(&event, ["http://a", "http://b"].into_iter(), now);
        assert_eq!(messages.len(), 2);
        let written: serde_json::Value = serde_json::from_str(&messages[0].body).unwrap();
        assert_eq!(written, serde_json::from_str::<serde_json::Value>(recorded).unwrap());
        assert_eq!((messages[1].url.as_str(), messages[1].room.as_str()), ("http://b", "wh"));

        let keys: ApiKeys = [("devkey".to_owned(), "secret".to_owned())].into_iter().collect();
        let signature = messages[0].signature("devkey", "secret", now);
        let claims = token::verify(&signature, &keys, now).unwrap();
        assert_eq!(claims.exp, Some(1_795_245_916));
        assert_eq!((claims.nbf, claims.iat), (Some(1_795_245_616), Some(1_795_245_616)));
        let hash = digest::digest(&digest::SHA256, messages[0].body.as_bytes());
        assert_eq!(claims.sha256, BASE64_STANDARD.encode(hash));
    }

    #[test]
    fn the_form_in_the_storage_is_read_again_and_junk_is_not() {
        let event = WebhookEvent { event: "room_started".into(), ..Default::default() };
        let message = &Message::of(&event, ["u"].into_iter(), Duration::from_secs(9))[0];
        let again = Message::from_bytes(&message.to_bytes()).unwrap();
        assert_eq!((again.recorded_ms, &again.body), (9000, &message.body));
        assert_eq!(again.age(Duration::from_secs(19)), Duration::from_secs(10));
        assert!(Message::from_bytes(b"{}").is_none());
    }
}
