//! The sections of the file that have an effect.

use crate::{ConfigError, IpNetwork, PortRange};
use serde::{Deserialize, Deserializer};
use std::{collections::BTreeMap, net::IpAddr, time::Duration};

/// `rtc`: how media reaches this server.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default)]
pub struct Rtc {
    /// One media thread per port. Unset: from [`DEFAULT_UDP_PORT`] on, one per processor.
    pub udp_port: Option<PortRange>,
    /// First UDP port of media; comes before `udp_port`. One media thread per processor.
    pub port_range_start: u16,
    /// Last of them.
    pub port_range_end: u16,
    /// TCP port of media for peers that UDP does not reach; 0 for none. Unset:
    /// [`DEFAULT_TCP_PORT`](crate::DEFAULT_TCP_PORT), if it is free.
    pub tcp_port: Option<u16>,
    /// TCP is the only way.
    pub force_tcp: bool,
    /// Who has lost a connection over UDP gets the next one over TCP.
    pub allow_tcp_fallback: bool,
    /// Readers of reliable data slower than this, in bits a second, miss messages instead of
    /// holding their senders back; 0: nobody is held back, and a slow reader ends.
    pub datachannel_slow_threshold: u64,
    /// But not if its signalling has a round trip of so many milliseconds; 0 for any.
    pub tcp_fallback_rtt_threshold: u32,
    /// The address that clients are told, one per family, separated by a comma; unset: those of
    /// the network interfaces.
    pub node_ip: String,
    /// Ask the STUN servers which addresses the outside sees.
    pub use_external_ip: bool,
    /// Announce those only that a STUN server has seen.
    pub external_ip_only: bool,
    /// Announce the addresses behind them too.
    pub advertise_internal_ip: bool,
    /// Do not try whether what is sent there comes back here.
    pub skip_external_ip_validation: bool,
    /// Interfaces whose addresses are used.
    pub interfaces: Filter<String>,
    /// Addresses that are used.
    pub ips: Filter<IpNetwork>,
    /// Be an ICE-lite agent towards clients that can have it.
    pub use_ice_lite: bool,
    /// Tell clients the loopback addresses too.
    pub enable_loopback_candidate: bool,
    /// STUN servers (`host:port`) that clients are told to use, and that `use_external_ip` asks;
    /// unset: [`Rtc::STUN_SERVERS`].
    pub stun_servers: Option<Vec<String>>,
    /// TURN servers that clients are told to use.
    pub turn_servers: Vec<TurnServer>,
}

/// `rtc.interfaces` and `rtc.ips`: only the includes where there are some, else all but the
/// excludes, as in LiveKit.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, bound = "T: Deserialize<'de>")]
#[allow(missing_docs)]
pub struct Filter<T> {
    pub includes: Vec<T>,
    pub excludes: Vec<T>,
}

impl<T> Default for Filter<T> {
    fn default() -> Self {
        Self { includes: Vec::new(), excludes: Vec::new() }
    }
}

impl<T> Filter<T> {
    /// Whether it lets everything pass.
    pub fn is_empty(&self) -> bool {
        self.includes.is_empty() && self.excludes.is_empty()
    }

    fn passes(&self, matches: impl Fn(&T) -> bool) -> bool {
        match self.includes.is_empty() {
            true => !self.excludes.iter().any(matches),
            false => self.includes.iter().any(matches),
        }
    }
}

/// One of `rtc.turn_servers`.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TurnServer {
    /// Its name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `udp`, `tcp` or `tls`.
    pub protocol: String,
    /// Who the clients are, if they are all the same to it.
    pub username: String,
    /// With which password.
    #[serde(deserialize_with = "secret_text")]
    pub credential: String,
    /// What it shares with this server, which makes a name and a password of it for each client.
    #[serde(deserialize_with = "secret_text")]
    pub secret: String,
    /// A file that holds the secret. Others must not be able to read it.
    pub secret_file: String,
    /// How long such a name is good, seconds; 0 for [`TurnServer::TTL_SECONDS`].
    pub ttl: u32,
}

/// A text that may look like a number, and that no error shows.
fn secret_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    crate::source::text_of(value).ok_or_else(|| serde::de::Error::custom("a text is expected"))
}

impl TurnServer {
    /// How long a name is good where nothing is said.
    pub const TTL_SECONDS: u32 = 14_400;
    /// The longest that it may be.
    pub const TTL_SECONDS_MAX: u32 = 86_400;

    /// Whether clients can be told of it.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let has_secret = !self.secret.is_empty() || !self.secret_file.is_empty();
        let needs = match () {
            () if self.host.is_empty() => "a host",
            () if self.port == 0 => "a port",
            () if !matches!(self.protocol.as_str(), "udp" | "tcp" | "tls") => {
                "a protocol: udp, tcp or tls"
            }
            () if !has_secret && (self.username.is_empty() || self.credential.is_empty()) => {
                "a username and a credential, or a secret"
            }
            () if self.ttl > Self::TTL_SECONDS_MAX => "a ttl of 86400 seconds at most",
            () => return Ok(()),
        };
        Err(ConfigError::TurnServer(self.host.clone(), needs))
    }

    /// `ttl`, or what it is by default.
    pub fn ttl(&self) -> Duration {
        let seconds = if self.ttl == 0 { Self::TTL_SECONDS } else { self.ttl };
        Duration::from_secs(seconds.into())
    }
}

impl std::fmt::Debug for TurnServer {
    /// Without secrets.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let server = (&self.host, self.port, &self.protocol);
        formatter.debug_tuple("TurnServer").field(&server).finish()
    }
}

impl Rtc {
    /// LiveKit's choice.
    pub const STUN_SERVERS: [&str; 3] =
        ["global.stun.twilio.com:3478", "stun.l.google.com:19302", "stun1.l.google.com:19302"];

    /// `stun_servers`, or LiveKit's choice.
    pub fn stun_servers(&self) -> Vec<String> {
        let default = || Self::STUN_SERVERS.map(str::to_owned).to_vec();
        self.stun_servers.clone().unwrap_or_else(default)
    }

    /// Whether an address of an interface is one that may be used.
    pub fn may_use(&self, interface: &str, ip: IpAddr) -> bool {
        self.interfaces.passes(|name| name == interface)
            && self.ips.passes(|network| network.contains(ip))
    }
}

impl Default for Rtc {
    fn default() -> Self {
        Self {
            udp_port: None,
            port_range_start: 0,
            port_range_end: 0,
            tcp_port: None,
            force_tcp: false,
            allow_tcp_fallback: true,
            datachannel_slow_threshold: 0,
            tcp_fallback_rtt_threshold: 0,
            node_ip: String::new(),
            use_external_ip: false,
            external_ip_only: false,
            advertise_internal_ip: false,
            skip_external_ip_validation: false,
            interfaces: Filter::default(),
            ips: Filter::default(),
            use_ice_lite: false,
            enable_loopback_candidate: false,
            stun_servers: None,
            turn_servers: Vec::new(),
        }
    }
}

/// `audio`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Audio {
    /// Whether plain Opus becomes RED for subscribers that take it.
    pub active_red_encoding: bool,
}

/// `room`: settings of rooms whose creator chose none.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default)]
pub struct Room {
    /// Seconds that a room lives which nobody has joined.
    pub empty_timeout: u32,
    /// Seconds that a room lives which everybody has left.
    pub departure_timeout: u32,
    /// Most participants of a room; 0 for any number.
    pub max_participants: u32,
    /// Codecs that may be published; unset: all that are forwarded.
    pub enabled_codecs: Option<Vec<EnabledCodec>>,
    /// Whether the server API may unmute.
    pub enable_remote_unmute: bool,
    /// Whether a join creates its room; else its token has to grant `roomCreate`.
    pub auto_create: bool,
    /// Whether sound and picture of one source come in one stream.
    pub sync_streams: bool,
    /// What receivers wait before they show a frame.
    pub playout_delay: PlayoutDelay,
    /// What `room_preset` of a call and `roomPreset` of a token stand for.
    pub room_configurations: BTreeMap<String, RoomPreset>,
    /// Whether webhooks about tracks carry the whole room.
    pub enable_full_room_in_webhooks: bool,
}

/// `room.playout_delay`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PlayoutDelay {
    /// Whether receivers are told at all.
    pub enabled: bool,
    /// At least so long, ms.
    pub min: u32,
    /// At most so long, ms; 0 for any time.
    pub max: u32,
}

/// One of `room.room_configurations`. LiveKit's file spells its keys in lower case without
/// underscores; with them, and as in JSON, they are understood too.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RoomPreset {
    pub name: String,
    #[serde(alias = "emptytimeout", alias = "emptyTimeout")]
    pub empty_timeout: u32,
    #[serde(alias = "departuretimeout", alias = "departureTimeout")]
    pub departure_timeout: u32,
    #[serde(alias = "maxparticipants", alias = "maxParticipants")]
    pub max_participants: u32,
    #[serde(alias = "minplayoutdelay", alias = "minPlayoutDelay")]
    pub min_playout_delay: u32,
    #[serde(alias = "maxplayoutdelay", alias = "maxPlayoutDelay")]
    pub max_playout_delay: u32,
    #[serde(alias = "syncstreams", alias = "syncStreams")]
    pub sync_streams: bool,
    pub metadata: String,
    pub agents: Vec<PresetAgent>,
    pub tags: BTreeMap<String, String>,
}

/// An agent that comes to the rooms of a preset.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct PresetAgent {
    #[serde(alias = "agentname", alias = "agentName")]
    pub agent_name: String,
    pub metadata: String,
}

impl Default for Room {
    fn default() -> Self {
        Self {
            empty_timeout: 300,
            departure_timeout: 20,
            max_participants: 0,
            enabled_codecs: None,
            enable_remote_unmute: false,
            auto_create: true,
            sync_streams: false,
            playout_delay: PlayoutDelay::default(),
            room_configurations: BTreeMap::new(),
            enable_full_room_in_webhooks: false,
        }
    }
}

impl Room {
    /// `empty_timeout`.
    pub fn empty_timeout(&self) -> Duration {
        Duration::from_secs(self.empty_timeout.into())
    }

    /// `departure_timeout`.
    pub fn departure_timeout(&self) -> Duration {
        Duration::from_secs(self.departure_timeout.into())
    }
}

/// `agents`.
#[derive(Clone, Copy, PartialEq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Agents {
    /// Workers with this load, 0 to 1, or more are asked for no job; unset: their word counts.
    pub target_load: Option<f32>,
}

/// One of `room.enabled_codecs`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
pub struct EnabledCodec {
    /// `audio/opus`, `video/VP8`, ... in any case.
    pub mime: String,
}

/// `logging`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default)]
pub struct Logging {
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// One JSON object per line.
    pub json: bool,
}

impl Default for Logging {
    fn default() -> Self {
        Self { level: "info".to_owned(), json: false }
    }
}

/// `prometheus`: the metrics port.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Prometheus {
    /// TCP port; 0 for none.
    pub port: u16,
    /// Whom it serves; anybody if empty.
    pub username: String,
    /// With which password.
    pub password: String,
}

/// `storage`, which LiveKit does not have: what outlives the process.
#[derive(Clone, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Storage {
    /// Directory of the data; none is kept if empty.
    pub path: String,
}

/// `webhook`: whom to tell of rooms, participants and tracks.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Webhook {
    /// Where to.
    pub urls: Vec<String>,
    /// The API key that signs.
    pub api_key: String,
    /// Of what.
    pub filter_params: WebhookFilter,
    /// How long, and how many.
    pub resource_url_notifier: WebhookQueue,
}

/// `webhook.filter_params`.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct WebhookFilter {
    pub include_events: Vec<String>,
    pub exclude_events: Vec<String>,
}

/// `ingress`.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct Ingress {
    /// Told to applications that make an RTMP ingress.
    pub rtmp_base_url: String,
    /// Told to applications that make a WHIP ingress.
    pub whip_base_url: String,
}

/// `webhook.resource_url_notifier`.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default)]
pub struct WebhookQueue {
    /// Older events are given up. LiveKit gives up after 30 s; unset, this server after a day.
    #[serde(deserialize_with = "nanoseconds")]
    pub max_age: Option<Duration>,
    /// Most events of a room that wait.
    pub max_depth: Option<usize>,
}

fn nanoseconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    Ok(Option::<u64>::deserialize(deserializer)?.map(Duration::from_nanos))
}

/// `limit`: bounds of what clients and applications may do. 0 is no bound.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default)]
pub struct Limit {
    /// Most published tracks and subscriptions together; 0 for any number. Beyond, nobody comes in.
    pub num_tracks: usize,
    /// Most bytes of media a second in both directions; 0 for any number. Beyond, nobody comes in.
    pub bytes_per_sec: f64,
    /// Most videos that a participant is sent; 0 for any number.
    pub subscription_limit_video: u32,
    /// Most sounds that a participant is sent; 0 for any number.
    pub subscription_limit_audio: u32,
    /// Longest metadata, bytes.
    pub max_metadata_size: Option<usize>,
    /// Most bytes of attributes.
    pub max_attributes_size: Option<usize>,
    /// Longest name of a room, bytes.
    pub max_room_name_length: Option<usize>,
    /// Longest identity, bytes.
    pub max_participant_identity_length: Option<usize>,
    /// Longest name of a participant, bytes.
    pub max_participant_name_length: Option<usize>,
    /// Longest key of a data blob, bytes.
    pub max_data_blob_key_length: Option<usize>,
    /// Most bytes of a participant's data blobs.
    pub max_data_blobs_size: Option<usize>,
    /// Longest message on the signal socket, bytes, compressed and decompressed.
    pub signal_message_size_limit: Option<usize>,
    /// The same of the sockets of agent workers.
    pub agent_signal_message_size_limit: Option<usize>,
    /// Longest body of an API request, bytes.
    pub max_api_request_body_size: usize,
    /// Most TCP connections of one address; loopback is exempt. Not LiveKit's.
    pub connections_per_address: usize,
    /// Most of them that have not brought a request yet. Not LiveKit's.
    pub half_open_per_address: usize,
    /// Most WebSockets with tokens of one API key. Not LiveKit's.
    pub sockets_per_key: usize,
    /// Most joins of one address in a second, on average; loopback is exempt. Not LiveKit's.
    pub joins_per_second: u32,
    /// Most API calls with tokens of one API key in a second, on average. Not LiveKit's.
    pub api_calls_per_second: u32,
}

impl Default for Limit {
    fn default() -> Self {
        Self {
            num_tracks: 0,
            bytes_per_sec: 0.0,
            subscription_limit_video: 0,
            subscription_limit_audio: 0,
            max_metadata_size: None,
            max_attributes_size: None,
            max_room_name_length: None,
            max_participant_identity_length: None,
            max_participant_name_length: None,
            max_data_blob_key_length: None,
            max_data_blobs_size: None,
            signal_message_size_limit: None,
            agent_signal_message_size_limit: None,
            max_api_request_body_size: 10 << 20,
            connections_per_address: 10_000,
            half_open_per_address: 1_000,
            sockets_per_key: 0,
            joins_per_second: 500,
            api_calls_per_second: 5_000,
        }
    }
}
