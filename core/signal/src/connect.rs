//! What a client asks for when it opens its WebSocket, in every form that clients use.

use crate::token::Claims;
use base64::{Engine, prelude::BASE64_URL_SAFE};
use livekit_protocol as proto;
use prost::Message;
use std::{collections::BTreeMap, io::Read};

/// How long names may be, in bytes; 0 for any length.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NameLimits {
    /// Of a room.
    pub room_bytes: usize,
    /// Of a participant's identity.
    pub identity_bytes: usize,
}

impl Default for NameLimits {
    fn default() -> Self {
        Self { room_bytes: 256, identity_bytes: 256 }
    }
}

/// Largest `JoinRequest`, bytes, before and after decompression.
pub const MAX_JOIN_REQUEST_BYTES: usize = 1 << 20;

/// Which of the two paths was asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectPath {
    /// `/rtc`
    Rtc,
    /// `/rtc/v1`, which demands a `join_request`.
    RtcV1,
}

/// How many peer connections the client has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionModel {
    /// One to publish, offered by the client; one to subscribe, offered by the server.
    Pair,
    /// One for both, offered by the client.
    Single,
}

/// A validated wish to join or resume.
#[derive(Clone, PartialEq, Debug)]
pub struct ConnectRequest {
    /// The verified token.
    pub claims: Claims,
    /// The path.
    pub path: ConnectPath,
    /// Number of peer connections.
    pub connection: ConnectionModel,
    /// What the client says about itself, with its address filled in.
    pub client_info: proto::ClientInfo,
    /// Protocol version, of `client_info`.
    pub protocol: i32,
    /// Address of the client as far as it is known.
    pub client_address: String,
    /// What its HTTP request is found by in logs, when it said so.
    pub trace: String,
    /// Subscribe to every track.
    pub auto_subscribe: bool,
    /// Subscribe to every data track.
    pub auto_subscribe_data_track: bool,
    /// The client follows the size of its video elements.
    pub adaptive_stream: bool,
    /// Whether subscribed video may be paused for lack of bandwidth; `None` is the server's default.
    pub subscriber_allow_pause: Option<bool>,
    /// Use full ICE towards this client.
    pub disable_ice_lite: bool,
    /// Resume the session of `participant_sid`.
    pub reconnect: bool,
    /// The session to resume; empty if none.
    pub participant_sid: String,
    /// Why it reconnects.
    pub reconnect_reason: proto::ReconnectReason,
    /// Overrides the token's metadata when not empty.
    pub metadata: String,
    /// Overrides the token's attributes key by key.
    pub attributes: BTreeMap<String, String>,
    /// Offer that rides on the join.
    pub publisher_offer: Option<proto::SessionDescription>,
    /// Tracks that are announced with the join.
    pub add_track_requests: Vec<proto::AddTrackRequest>,
    /// State of a client that resumes.
    pub sync_state: Option<proto::SyncState>,
}

impl ConnectRequest {
    /// The room that the token grants.
    pub fn room(&self) -> &str {
        self.claims.video.as_ref().map_or("", |video| &video.room)
    }
}

/// A plain HTTP refusal.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{status} {body}")]
pub struct ConnectError {
    /// HTTP status.
    pub status: u16,
    /// Text body.
    pub body: String,
}

impl From<crate::token::TokenError> for ConnectError {
    fn from(error: crate::token::TokenError) -> Self {
        refuse(401, &error.to_string())
    }
}

fn refuse(status: u16, body: &str) -> ConnectError {
    ConnectError { status, body: body.to_owned() }
}

/// The query parameters of a request, decoded.
#[derive(Clone, Copy)]
struct Query<'a>(&'a [(String, String)]);

impl<'a> Query<'a> {
    fn get(self, name: &str) -> &'a str {
        self.0.iter().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    fn flag(self, name: &str) -> Option<bool> {
        let value = self.get(name);
        (!value.is_empty()).then_some(matches!(value, "1" | "true"))
    }
}

/// The HTTP request that opens a session.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'a> {
    /// The path.
    pub path: ConnectPath,
    /// `/validate` was asked for: nothing is opened and broken attributes are an error.
    pub validate: bool,
    /// Decoded query (and form) parameters.
    pub query: &'a [(String, String)],
    /// The `User-Agent` header.
    pub user_agent: Option<&'a str>,
    /// Where the client is.
    pub client_address: &'a str,
    /// How long its names may be.
    pub limits: NameLimits,
}

/// Checks and decodes a request. `claims` are those of a verified token, `None` without a token.
///
/// Faults are reported in this order: token, `join_request`, grants.
pub fn parse(
    request: HttpRequest<'_>,
    claims: Option<&Claims>,
) -> Result<ConnectRequest, ConnectError> {
    let claims = claims
        .filter(|claims| claims.video.is_some())
        .ok_or_else(|| refuse(401, NO_PERMISSIONS))?;
    let query = Query(request.query);
    let join = match (query.get("join_request"), request.path) {
        ("", ConnectPath::Rtc) => None,
        ("", ConnectPath::RtcV1) => return Err(refuse(400, "join_request is required")),
        (text, _) => Some(decode_join_request(text)?),
    };
    let mut claims = claims.clone();
    check_grants(&claims, request.limits)?;
    let mut wish = match join {
        Some(join) => from_join_request(request, join),
        None => {
            publish_only(&mut claims, query.get("publish"))?;
            from_query(request, query)?
        }
    };
    let may_update =
        claims.video.as_ref().is_some_and(|video| video.can_update_own_metadata == Some(true));
    let brings_own = !wish.metadata.is_empty() || !wish.attributes.is_empty();
    if brings_own && !may_update {
        return Err(refuse(401, NO_PERMISSIONS));
    }
    fill_from_user_agent(&mut wish.client_info, request.user_agent.unwrap_or(""));
    wish.client_info.address = request.client_address.to_owned();
    wish.protocol = wish.client_info.protocol;
    wish.claims = claims;
    Ok(wish)
}

const NO_PERMISSIONS: &str = "no permissions to access the room";

fn check_grants(claims: &Claims, limits: NameLimits) -> Result<(), ConnectError> {
    let video = claims.video.clone().unwrap_or_default();
    if !video.room_join {
        return Err(refuse(401, "permissions denied"));
    }
    if claims.identity().is_empty() {
        return Err(refuse(400, "identity cannot be empty"));
    }
    let NameLimits { room_bytes, identity_bytes } = limits;
    if identity_bytes > 0 && claims.identity().len() > identity_bytes {
        let text = "participant identity length exceeds limits: max length";
        return Err(refuse(400, &format!("{text} {identity_bytes}")));
    }
    if video.room.is_empty() {
        return Err(refuse(400, "no room name"));
    }
    if room_bytes > 0 && video.room.len() > room_bytes {
        let text = "room name length exceeds limits: max length";
        return Err(refuse(400, &format!("{text} {room_bytes}")));
    }
    Ok(())
}

/// A side connection that only publishes has an identity of its own.
fn publish_only(claims: &mut Claims, publish: &str) -> Result<(), ConnectError> {
    if publish.is_empty() {
        return Ok(());
    }
    let identity = format!("{}#{publish}", claims.identity());
    let Some(video) = &mut claims.video else { return Ok(()) };
    if !video.permissions().can_publish {
        return Err(refuse(401, "permissions denied"));
    }
    video.can_subscribe = Some(false);
    claims.sub = identity;
    Ok(())
}

/// Decodes the padded base64url text of a `WrappedJoinRequest`.
pub fn decode_join_request(text: &str) -> Result<proto::JoinRequest, ConnectError> {
    let wrapped = BASE64_URL_SAFE
        .decode(text)
        .map_err(|_| refuse(400, "cannot base64 decode wrapped join request"))?;
    let wrapped = proto::WrappedJoinRequest::decode(wrapped.as_slice())
        .map_err(|_| refuse(400, "cannot unmarshal wrapped join request"))?;
    let plain = match wrapped.compression() {
        proto::wrapped_join_request::Compression::None => wrapped.join_request,
        proto::wrapped_join_request::Compression::Gzip => gunzip(&wrapped.join_request)?,
    };
    if plain.len() > MAX_JOIN_REQUEST_BYTES {
        return Err(refuse(400, "join request is too large"));
    }
    proto::JoinRequest::decode(plain.as_slice())
        .map_err(|_| refuse(400, "cannot unmarshal join request"))
}

fn gunzip(compressed: &[u8]) -> Result<Vec<u8>, ConnectError> {
    let mut plain = Vec::new();
    flate2::read::MultiGzDecoder::new(compressed)
        .take(MAX_JOIN_REQUEST_BYTES as u64 + 1)
        .read_to_end(&mut plain)
        .map_err(|_| refuse(400, "cannot read decompressed join request"))?;
    Ok(plain)
}

fn from_join_request(request: HttpRequest<'_>, join: proto::JoinRequest) -> ConnectRequest {
    let settings = join.connection_settings.unwrap_or_default();
    ConnectRequest {
        connection: ConnectionModel::Single,
        auto_subscribe: settings.auto_subscribe,
        auto_subscribe_data_track: settings.auto_subscribe_data_track.unwrap_or(false),
        adaptive_stream: settings.adaptive_stream,
        subscriber_allow_pause: settings.subscriber_allow_pause,
        disable_ice_lite: settings.disable_ice_lite,
        reconnect: join.reconnect,
        reconnect_reason: join.reconnect_reason.try_into().unwrap_or_default(),
        participant_sid: join.participant_sid,
        metadata: join.metadata,
        attributes: join
            .participant_attributes
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .collect(),
        publisher_offer: join.publisher_offer,
        add_track_requests: join.add_track_requests,
        sync_state: join.sync_state,
        client_info: join.client_info.unwrap_or_default(),
        ..empty(request)
    }
}

fn from_query(request: HttpRequest<'_>, query: Query<'_>) -> Result<ConnectRequest, ConnectError> {
    let attributes = match decode_attributes(query.get("attributes")) {
        Some(attributes) => attributes,
        None if request.validate => return Err(refuse(400, "cannot decode attributes")),
        None => BTreeMap::new(),
    };
    let reconnect = query.flag("reconnect").unwrap_or(false);
    let sid = if reconnect { query.get("sid") } else { "" };
    let reason: i32 = query.get("reconnect_reason").parse().unwrap_or(0);
    Ok(ConnectRequest {
        connection: ConnectionModel::Pair,
        auto_subscribe: query.flag("auto_subscribe").unwrap_or(true),
        auto_subscribe_data_track: query.flag("auto_subscribe_data_track").unwrap_or(false),
        adaptive_stream: query.flag("adaptive_stream").unwrap_or(false),
        subscriber_allow_pause: query.flag("subscriber_allow_pause"),
        disable_ice_lite: query.flag("disable_ice_lite").unwrap_or(false),
        reconnect,
        participant_sid: sid.to_owned(),
        reconnect_reason: reason.try_into().unwrap_or_default(),
        attributes,
        client_info: client_info(query),
        ..empty(request)
    })
}

fn empty(request: HttpRequest<'_>) -> ConnectRequest {
    ConnectRequest {
        claims: Claims::default(),
        path: request.path,
        connection: ConnectionModel::Pair,
        client_info: proto::ClientInfo::default(),
        protocol: 0,
        client_address: request.client_address.to_owned(),
        trace: String::new(),
        auto_subscribe: false,
        auto_subscribe_data_track: false,
        adaptive_stream: false,
        subscriber_allow_pause: None,
        disable_ice_lite: false,
        reconnect: false,
        participant_sid: String::new(),
        reconnect_reason: proto::ReconnectReason::RrUnknown,
        metadata: String::new(),
        attributes: BTreeMap::new(),
        publisher_offer: None,
        add_track_requests: Vec::new(),
        sync_state: None,
    }
}

fn decode_attributes(text: &str) -> Option<BTreeMap<String, String>> {
    if text.is_empty() {
        return Some(BTreeMap::new());
    }
    let json = BASE64_URL_SAFE.decode(text).ok()?;
    let mut attributes: BTreeMap<String, String> = serde_json::from_slice(&json).ok()?;
    attributes.retain(|_, value| !value.is_empty());
    Some(attributes)
}

fn client_info(query: Query<'_>) -> proto::ClientInfo {
    let text = |name| query.get(name).to_owned();
    proto::ClientInfo {
        sdk: sdk(query.get("sdk")) as i32,
        version: text("version"),
        protocol: query.get("protocol").parse().unwrap_or(0),
        os: text("os"),
        os_version: text("os_version"),
        device_model: text("device_model"),
        browser: text("browser"),
        browser_version: text("browser_version"),
        network: text("network"),
        client_protocol: query.get("client_protocol").parse().unwrap_or(0),
        capabilities: query
            .get("capabilities")
            .split(',')
            .filter_map(proto::client_info::Capability::from_str_name)
            .map(i32::from)
            .collect(),
        ..Default::default()
    }
}

fn sdk(name: &str) -> proto::client_info::Sdk {
    use proto::client_info::Sdk;
    match name {
        "js" => Sdk::Js,
        "ios" | "swift" => Sdk::Swift,
        "android" => Sdk::Android,
        "flutter" => Sdk::Flutter,
        "go" => Sdk::Go,
        "unity" => Sdk::Unity,
        "reactnative" => Sdk::ReactNative,
        "rust" => Sdk::Rust,
        "python" => Sdk::Python,
        "cpp" => Sdk::Cpp,
        "unityweb" => Sdk::UnityWeb,
        "node" => Sdk::Node,
        "esp32" => Sdk::Esp32,
        _ => Sdk::Unknown,
    }
}

/// Browser products in the order in which a user agent must be searched for them, since each
/// names those below it too.
const BROWSERS: [(&str, &str); 6] = [
    ("Edg/", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("HeadlessChrome/", "Chrome"),
    ("Chrome/", "Chrome"),
    ("Version/", "Safari"),
];

const SYSTEMS: [(&str, &str); 6] = [
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("iPad", "iOS"),
    ("Windows", "Windows"),
    ("Mac OS X", "Mac OS X"),
    ("Linux", "Linux"),
];

/// Browser and system of clients that run in a browser and do not name them themselves.
fn fill_from_user_agent(info: &mut proto::ClientInfo, user_agent: &str) {
    use proto::client_info::Sdk;
    if !matches!(info.sdk(), Sdk::Js | Sdk::ReactNative | Sdk::Flutter | Sdk::Unity | Sdk::Unknown)
    {
        return;
    }
    let found = BROWSERS.iter().find_map(|(mark, name)| {
        let (_, rest) = user_agent.split_once(mark)?;
        let version = rest.split(|c: char| !(c.is_ascii_digit() || c == '.')).next()?;
        Some((*name, version))
    });
    if let Some((name, version)) = found
        && info.browser.is_empty()
    {
        info.browser = name.to_owned();
        if info.browser_version.is_empty() {
            info.browser_version = version.to_owned();
        }
    }
    if info.os.is_empty()
        && let Some((_, name)) = SYSTEMS.iter().find(|(mark, _)| user_agent.contains(mark))
    {
        info.os = (*name).to_owned();
    }
}
