//! Access tokens: HS256 JSON Web Tokens (RFC 7519) with LiveKit's claims.
//!
//! The time is an argument and so is every key, so the same token gives the same answer in a
//! simulation. The texts of [`TokenError`] are those that LiveKit's clients have met.

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use parlor_model::{ParticipantKind, Permissions, TrackSource};
use serde::{Deserialize, Deserializer, Serialize};
use std::{collections::BTreeMap, time::Duration};

/// A token is accepted this long after `exp` and this long before `nbf`.
pub const LEEWAY: Duration = Duration::from_secs(60);
/// A longer token is garbage.
pub const MAX_TOKEN_BYTES: usize = 1 << 20;
/// A refreshed token lives at least this long.
pub const MIN_REFRESH_VALIDITY: Duration = Duration::from_secs(600);

/// The API keys that may sign tokens, each with its secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ApiKeys(BTreeMap<String, String>);

impl ApiKeys {
    /// The secret of a key.
    pub fn secret(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(String::as_str)
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys in order, with their secrets.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, secret)| (key.as_str(), secret.as_str()))
    }
}

impl FromIterator<(String, String)> for ApiKeys {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(keys: T) -> Self {
        Self(keys.into_iter().collect())
    }
}

impl std::fmt::Debug for ApiKeys {
    /// Names the keys, never the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.keys()).finish()
    }
}

/// Why a token is refused, in the words that go into the 401 answer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum TokenError {
    #[error("invalid authorization header. Must start with Bearer ")]
    NotBearer,
    #[error("invalid authorization token")]
    Malformed,
    #[error("invalid API key")]
    UnknownKey,
    #[error("invalid authorization token: token signature is invalid: signature is invalid")]
    Signature,
    #[error(
        "invalid authorization token: token signature is invalid: signing method {0} is invalid"
    )]
    Algorithm(String),
    #[error("invalid authorization token: token has invalid claims: token is expired")]
    Expired,
    #[error("invalid authorization token: token has invalid claims: token is not valid yet")]
    NotYetValid,
    #[error(
        "invalid authorization token: token has invalid claims: token is missing required claim: exp claim is required"
    )]
    NoExpiry,
    #[error("invalid authorization token: token is malformed: could not JSON decode claim")]
    Claims,
}

/// What a token says.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Claims {
    /// The API key that signed it.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub iss: String,
    /// Identity of the participant.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub sub: String,
    /// Older clients put the identity here.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub jti: String,
    /// Expiry, seconds since the Unix epoch.
    #[serde(deserialize_with = "numeric_date", skip_serializing_if = "Option::is_none")]
    pub exp: Option<u64>,
    /// Not valid before, seconds since the Unix epoch.
    #[serde(deserialize_with = "numeric_date", skip_serializing_if = "Option::is_none")]
    pub nbf: Option<u64>,
    /// Issued at, seconds since the Unix epoch.
    #[serde(deserialize_with = "numeric_date", skip_serializing_if = "Option::is_none")]
    pub iat: Option<u64>,
    /// Written into refreshed tokens; `sub` is what counts.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// Display name.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// `standard`, `ingress`, `egress`, `sip`, `agent`, `connector`, `bridge`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Finer kinds, such as `cloud_agent`.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub kind_details: Vec<String>,
    /// What the bearer may do in rooms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<VideoGrant>,
    /// SIP grants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sip: Option<SipGrant>,
    /// Agent grants, of other services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<serde_json::Value>,
    /// Inference grants, of other services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inference: Option<serde_json::Value>,
    /// Observability grants, of other services.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observability: Option<serde_json::Value>,
    /// `livekit.RoomConfiguration` as protobuf JSON; applied if this join creates the room.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub room_config: Option<serde_json::Value>,
    /// Name of a configured room configuration.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub room_preset: String,
    /// Hash of a webhook's body.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub sha256: String,
    /// Initial metadata.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub metadata: String,
    /// Initial attributes.
    #[serde(deserialize_with = "null_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<String, String>,
}

/// The `video` claim. Options keep apart what was left out and what was denied.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct VideoGrant {
    #[serde(skip_serializing_if = "is_false")]
    pub room_create: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_list: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_record: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_admin: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub room_join: bool,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub room: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_publish_data: Option<bool>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "Vec::is_empty")]
    pub can_publish_sources: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_update_own_metadata: Option<bool>,
    #[serde(skip_serializing_if = "is_false")]
    pub ingress_admin: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub hidden: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub recorder: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub agent: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_subscribe_metrics: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub can_manage_agent_session: Option<bool>,
    #[serde(deserialize_with = "null_default", skip_serializing_if = "String::is_empty")]
    pub destination_room: String,
}

/// The `sip` claim.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct SipGrant {
    #[serde(skip_serializing_if = "is_false")]
    pub admin: bool,
    #[serde(skip_serializing_if = "is_false")]
    pub call: bool,
}

impl Claims {
    /// Who the bearer is: `sub`, else `jti`.
    pub fn identity(&self) -> &str {
        if self.sub.is_empty() { &self.jti } else { &self.sub }
    }

    /// The kind of program; unknown words are standard participants.
    pub fn participant_kind(&self) -> ParticipantKind {
        match self.kind.as_str() {
            "ingress" => ParticipantKind::Ingress,
            "egress" => ParticipantKind::Egress,
            "sip" => ParticipantKind::Sip,
            "agent" => ParticipantKind::Agent,
            "connector" => ParticipantKind::Connector,
            "bridge" => ParticipantKind::Bridge,
            _ => ParticipantKind::Standard,
        }
    }

    /// The claims of the token that the server sends as `refresh_token` at `unix_now`:
    /// of this token what concerns the room, for the rest of its life but no less than
    /// [`MIN_REFRESH_VALIDITY`].
    pub fn refreshed(&self, unix_now: Duration) -> Claims {
        let now = unix_now.as_secs();
        let earliest = now.saturating_add(MIN_REFRESH_VALIDITY.as_secs());
        Claims {
            sub: self.identity().to_owned(),
            identity: self.identity().to_owned(),
            exp: Some(self.exp.unwrap_or(0).max(earliest)),
            nbf: Some(now),
            iat: Some(now),
            name: self.name.clone(),
            kind: kind_name(self.participant_kind()).to_owned(),
            video: self.video.clone(),
            room_config: self.room_config.clone(),
            room_preset: self.room_preset.clone(),
            metadata: self.metadata.clone(),
            attributes: self.attributes.clone(),
            ..Claims::default()
        }
    }
}

/// The token of [`Claims::refreshed`], signed with the key of the token before, or else with the
/// first one. Empty without keys.
pub fn sign_refreshed(claims: &Claims, unix_now: Duration, keys: &ApiKeys) -> String {
    let key = keys.iter().find(|(key, _)| *key == claims.iss).or_else(|| keys.iter().next());
    let Some((key, secret)) = key else { return String::new() };
    sign(&claims.refreshed(unix_now), key, secret)
}

/// The word of the `kind` claim.
pub fn kind_name(kind: ParticipantKind) -> &'static str {
    match kind {
        ParticipantKind::Standard => "standard",
        ParticipantKind::Ingress => "ingress",
        ParticipantKind::Egress => "egress",
        ParticipantKind::Sip => "sip",
        ParticipantKind::Agent => "agent",
        ParticipantKind::Connector => "connector",
        ParticipantKind::Bridge => "bridge",
    }
}

/// The word of the `canPublishSources` claim.
pub fn source_name(source: TrackSource) -> &'static str {
    match source {
        TrackSource::Unknown => "unknown",
        TrackSource::Camera => "camera",
        TrackSource::Microphone => "microphone",
        TrackSource::ScreenShare => "screen_share",
        TrackSource::ScreenShareAudio => "screen_share_audio",
    }
}

fn source(name: &str) -> TrackSource {
    match name {
        "camera" => TrackSource::Camera,
        "microphone" => TrackSource::Microphone,
        "screen_share" => TrackSource::ScreenShare,
        "screen_share_audio" => TrackSource::ScreenShareAudio,
        _ => TrackSource::Unknown,
    }
}

impl VideoGrant {
    /// What the bearer may do, with the defaults of claims that were left out: publish and
    /// subscribe, and data as publishing is.
    pub fn permissions(&self) -> Permissions {
        let can_publish = self.can_publish.unwrap_or(true);
        Permissions {
            can_subscribe: self.can_subscribe.unwrap_or(true),
            can_publish,
            can_publish_data: self.can_publish_data.unwrap_or(can_publish),
            can_publish_sources: self.can_publish_sources.iter().map(|name| source(name)).collect(),
            hidden: self.hidden,
            recorder: self.recorder,
            can_update_metadata: self.can_update_own_metadata.unwrap_or(false),
            agent: self.agent,
            can_subscribe_metrics: self.can_subscribe_metrics.unwrap_or(false),
            can_manage_agent_session: self.can_manage_agent_session.unwrap_or(false),
        }
    }

    /// Writes out every permission, as a refreshed token does after they changed.
    pub fn set_permissions(&mut self, permissions: &Permissions) {
        self.can_subscribe = Some(permissions.can_subscribe);
        self.can_publish = Some(permissions.can_publish);
        self.can_publish_data = Some(permissions.can_publish_data);
        self.can_publish_sources = permissions
            .can_publish_sources
            .iter()
            .map(|source| source_name(*source).to_owned())
            .collect();
        self.hidden = permissions.hidden;
        self.recorder = permissions.recorder;
        self.can_update_own_metadata = Some(permissions.can_update_metadata);
        self.agent = permissions.agent;
        self.can_subscribe_metrics = Some(permissions.can_subscribe_metrics);
        self.can_manage_agent_session = Some(permissions.can_manage_agent_session);
    }
}

/// The token of a request: the `Authorization` header, else the `access_token` parameter.
pub fn from_request<'a>(
    authorization: Option<&'a str>,
    access_token: Option<&'a str>,
) -> Result<Option<&'a str>, TokenError> {
    match authorization.filter(|header| !header.is_empty()) {
        Some(header) => match header.strip_prefix("Bearer ") {
            Some(token) => Ok(Some(token)),
            None => Err(TokenError::NotBearer),
        },
        None => Ok(access_token.filter(|token| !token.is_empty())),
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
}

#[derive(Deserialize)]
struct Issuer {
    #[serde(default, deserialize_with = "null_default")]
    iss: String,
}

/// Checks form, key, signature, `exp` and `nbf` of a token, in this order.
pub fn verify(token: &str, keys: &ApiKeys, unix_now: Duration) -> Result<Claims, TokenError> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(TokenError::Malformed);
    }
    let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, payload) = signed.split_once('.').ok_or(TokenError::Malformed)?;
    let decode = |part| BASE64_URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
    let (header, payload, signature) = (decode(header)?, decode(payload)?, decode(signature)?);
    let header: Header = serde_json::from_slice(&header).map_err(|_| TokenError::Malformed)?;
    let issuer: Issuer = serde_json::from_slice(&payload).map_err(|_| TokenError::Malformed)?;

    let secret = keys.secret(&issuer.iss).ok_or(TokenError::UnknownKey)?;
    if header.alg != "HS256" {
        return Err(TokenError::Algorithm(header.alg));
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    hmac::verify(&key, signed.as_bytes(), &signature).map_err(|_| TokenError::Signature)?;

    let claims: Claims = serde_json::from_slice(&payload).map_err(|_| TokenError::Claims)?;
    let (now, leeway) = (unix_now.as_secs(), LEEWAY.as_secs());
    let expiry = claims.exp.ok_or(TokenError::NoExpiry)?;
    if now >= expiry.saturating_add(leeway) {
        return Err(TokenError::Expired);
    }
    if claims.nbf.is_some_and(|nbf| now.saturating_add(leeway) < nbf) {
        return Err(TokenError::NotYetValid);
    }
    Ok(claims)
}

/// Signs claims with an API key; `iss` becomes that key.
pub fn sign(claims: &Claims, key: &str, secret: &str) -> String {
    let claims = Claims { iss: key.to_owned(), ..claims.clone() };
    let header = BASE64_URL_SAFE_NO_PAD.encode(br#"{"alg":"HS256","typ":"JWT"}"#);
    let payload = serde_json::to_vec(&claims).unwrap_or_default();
    let signed = format!("{header}.{}", BASE64_URL_SAFE_NO_PAD.encode(payload));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&key, signed.as_bytes()));
    format!("{signed}.{signature}")
}

fn is_false(value: &bool) -> bool {
    !value
}

fn null_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// RFC 7519 section 2, NumericDate: a number, possibly with a fraction.
fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Ok(Option::<f64>::deserialize(deserializer)?.map(|seconds| seconds as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> ApiKeys {
        [("devkey", "secret"), ("other", "elsewhere")]
            .map(|(key, secret)| (key.to_owned(), secret.to_owned()))
            .into_iter()
            .collect()
    }

    fn token(exp: u64, nbf: Option<u64>) -> String {
        let claims = Claims { sub: "ann".into(), exp: Some(exp), nbf, ..Claims::default() };
        sign(&claims, "devkey", "secret")
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_signed_token_comes_back() {
        let claims = Claims {
            iss: "other".into(),
            sub: "ann".into(),
            exp: Some(2000),
            name: "Ann".into(),
            attributes: [("a".to_owned(), "1".to_owned())].into(),
            video: Some(VideoGrant {
                room_join: true,
                room: "r".into(),
                can_publish: Some(false),
                ..VideoGrant::default()
            }),
            ..Claims::default()
        };
        let token = sign(&claims, "other", "elsewhere");
        assert_eq!(verify(&token, &keys(), at(1000)), Ok(claims));
        assert_eq!(
            verify(&sign(&Claims::default(), "other", "secret"), &keys(), at(0)),
            Err(TokenError::Signature)
        );
    }

    #[test]
    fn expiry_and_start_have_a_minute_of_leeway() {
        assert!(verify(&token(1000, None), &keys(), at(1059)).is_ok());
        assert_eq!(verify(&token(1000, None), &keys(), at(1060)), Err(TokenError::Expired));
        assert!(verify(&token(5000, Some(1060)), &keys(), at(1000)).is_ok());
        assert_eq!(
            verify(&token(5000, Some(1061)), &keys(), at(1000)),
            Err(TokenError::NotYetValid)
        );
    }

    #[test]
    fn a_token_without_algorithm_is_refused() {
        let none = BASE64_URL_SAFE_NO_PAD.encode(br#"{"alg":"none"}"#);
        let payload = BASE64_URL_SAFE_NO_PAD.encode(br#"{"iss":"devkey","exp":9}"#);
        let error = verify(&format!("{none}.{payload}."), &keys(), at(0)).unwrap_err();
        assert_eq!(error, TokenError::Algorithm("none".into()));
    }

    #[test]
    fn junk_is_refused() {
        for junk in ["", ".", "..", "a.b.c", "abc", "e30.e30.e30", "e30.e30", "\u{1f600}.x.y"] {
            assert!(verify(junk, &keys(), at(0)).is_err(), "{junk}");
        }
        let long = "a".repeat(MAX_TOKEN_BYTES + 1);
        assert_eq!(verify(&long, &keys(), at(0)), Err(TokenError::Malformed));
    }

    #[test]
    fn defaults_of_the_video_grant() {
        let grant: VideoGrant = serde_json::from_str(r#"{"roomJoin":true}"#).unwrap();
        assert_eq!(grant.permissions(), Permissions::default());
        let grant: VideoGrant = serde_json::from_str(r#"{"canPublish":false}"#).unwrap();
        assert!(!grant.permissions().can_publish_data && grant.permissions().can_subscribe);
        let json = r#"{"canPublish":false,"canPublishData":true,"canPublishSources":["camera","screen_share"]}"#;
        let mut grant: VideoGrant = serde_json::from_str(json).unwrap();
        let permissions = grant.permissions();
        assert!(permissions.can_publish_data);
        assert_eq!(
            permissions.can_publish_sources,
            [TrackSource::Camera, TrackSource::ScreenShare]
        );
        grant.set_permissions(&permissions);
        assert_eq!(grant.permissions(), permissions);
        assert_eq!(grant.can_update_own_metadata, Some(false));
    }

    #[test]
    fn a_refreshed_token_keeps_its_expiry() {
        let claims = Claims { jti: "ann".into(), exp: Some(9000), ..Claims::default() };
        let fresh = claims.refreshed(at(1000));
        assert_eq!((fresh.exp, fresh.nbf, fresh.iat), (Some(9000), Some(1000), Some(1000)));
        assert_eq!(
            (fresh.sub.as_str(), fresh.identity.as_str(), fresh.kind.as_str()),
            ("ann", "ann", "standard")
        );
        assert_eq!(claims.refreshed(at(8900)).exp, Some(9500));
    }

    #[test]
    fn numbers_with_fractions_are_dates() {
        let claims: Claims =
            serde_json::from_str(r#"{"exp":1795245599.5,"metadata":null}"#).unwrap();
        assert_eq!(claims.exp, Some(1795245599));
    }

    #[test]
    fn the_header_comes_before_the_parameter() {
        assert_eq!(from_request(Some("Bearer a"), Some("b")), Ok(Some("a")));
        assert_eq!(from_request(Some(""), Some("b")), Ok(Some("b")));
        assert_eq!(from_request(Some("a"), Some("b")), Err(TokenError::NotBearer));
        assert_eq!(from_request(None, None), Ok(None));
    }
}
