//! STUN and TURN servers, as each client is told of them.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_STANDARD};
use livekit_protocol as proto;
use std::{fmt, time::Duration};

/// A server that clients use to find a way here.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct IceServer {
    /// What everybody is told.
    pub server: proto::IceServer,
    /// What makes a name and a password for each client, if the server wants them so.
    pub secret: Option<TurnSecret>,
}

/// What a TURN server shares with this one (coturn's `static-auth-secret`).
#[derive(Clone, PartialEq, Eq)]
pub struct TurnSecret {
    /// The secret.
    pub secret: String,
    /// How long what is made of it is good.
    pub ttl: Duration,
}

impl fmt::Debug for TurnSecret {
    /// Without the secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("TurnSecret").field("ttl", &self.ttl).finish_non_exhaustive()
    }
}

impl From<proto::IceServer> for IceServer {
    fn from(server: proto::IceServer) -> Self {
        Self { server, secret: None }
    }
}

impl IceServer {
    /// What one participant is told: where there is a secret, the name is the time of its end
    /// with the participant's sid, and the password an HMAC-SHA1 of that (TURN REST API,
    /// draft-uberti-behave-turn-rest-00 section 2.2).
    pub fn of(&self, sid: &str, unix: Duration) -> proto::IceServer {
        let Some(TurnSecret { secret, ttl }) = &self.secret else { return self.server.clone() };
        let username = format!("{}:{sid}", unix.saturating_add(*ttl).as_secs());
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes());
        let credential = BASE64_STANDARD.encode(hmac::sign(&key, username.as_bytes()));
        proto::IceServer { username, credential, ..self.server.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_makes_a_name_and_a_password_for_a_while() {
        let server = proto::IceServer {
            urls: vec!["turn:turn.example:3478?transport=udp".into()],
            ..Default::default()
        };
        let ttl = Duration::from_secs(14_400);
        let secret = Some(TurnSecret { secret: "north".into(), ttl });
        let server = IceServer { server, secret };
        let told = server.of("PA_ann", Duration::from_secs(1_800_000_000));
        assert_eq!(told.urls, server.server.urls);
        assert_eq!(told.username, "1800014400:PA_ann");
        // printf '1800014400:PA_ann' | openssl dgst -sha1 -hmac north -binary | base64
        assert_eq!(told.credential, "MWuOd5h5zki27qpe2bnuzX4/Xv4=");
        assert!(!format!("{server:?}").contains("north"));
        let fixed = proto::IceServer { username: "u".into(), ..told };
        assert_eq!(IceServer::from(fixed.clone()).of("PA_ann", ttl), fixed);
    }
}
