//! The configuration file: LiveKit's YAML, as far as this server has what it configures.
//!
//! [`Config::from_yaml`] reads a file; the program then lays its flags over it and calls
//! [`Config::check`]. Every key that is missing has LiveKit's default. A key that is not known
//! is an error that names its line, since a misspelt key that is ignored costs an evening.
//!
//! This crate reads no files, no environment and no network interfaces.
//!
//! ```
//! use parlor_config::Config;
//!
//! let config = Config::from_yaml("port: 7890\nkeys: {mykey: a-long-secret}\nrtc: {udp_port: 7882-7885}")?;
//! assert_eq!(config.port, 7890);
//! assert_eq!(config.rtc.udp_port.map(|range| range.count()), Some(4));
//! assert!(Config::from_yaml("prot: 7890").unwrap_err().to_string().contains("line 1"));
//! # Ok::<(), parlor_config::ConfigError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod port_range;

pub use port_range::{PortRange, PortRangeError};

use parlor_model::Codec;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::Duration,
};

/// Port of HTTP and WebSockets when none is configured.
pub const DEFAULT_PORT: u16 = 7880;
/// First UDP port of media when none is configured.
pub const DEFAULT_UDP_PORT: u16 = 7882;
/// Key and secret of the development mode when no key is configured.
pub const DEV_KEY: (&str, &str) = ("devkey", "secret");

/// All that can be configured.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// TCP port of HTTP and WebSockets.
    pub port: u16,
    /// Addresses to listen on for HTTP and WebSockets; all if empty.
    pub bind_addresses: Vec<IpAddr>,
    /// API keys with their secrets.
    pub keys: BTreeMap<String, String>,
    /// Told to clients.
    pub region: String,
    /// Media.
    pub rtc: Rtc,
    /// Defaults of rooms.
    pub room: Room,
    /// Logs.
    pub logging: Logging,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: DEFAULT_PORT,
            bind_addresses: Vec::new(),
            keys: BTreeMap::new(),
            region: String::new(),
            rtc: Rtc::default(),
            room: Room::default(),
            logging: Logging::default(),
        }
    }
}

/// `rtc`: how media reaches this server.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rtc {
    /// One media thread per port. Unset: from [`DEFAULT_UDP_PORT`] on, one per processor.
    pub udp_port: Option<PortRange>,
    /// The address that clients are told, one per family, separated by a comma; unset: those of
    /// the network interfaces.
    pub node_ip: String,
    /// Be an ICE-lite agent towards clients that can have it.
    pub use_ice_lite: bool,
    /// Tell clients the loopback addresses too.
    pub enable_loopback_candidate: bool,
    /// STUN servers (`host:port`) that clients are told to use.
    pub stun_servers: Vec<String>,
}

impl Default for Rtc {
    fn default() -> Self {
        let stun_servers =
            ["global.stun.twilio.com:3478", "stun.l.google.com:19302", "stun1.l.google.com:19302"];
        Self {
            udp_port: None,
            node_ip: String::new(),
            use_ice_lite: false,
            enable_loopback_candidate: false,
            stun_servers: stun_servers.map(str::to_owned).to_vec(),
        }
    }
}

/// `room`: settings of rooms whose creator chose none.
#[derive(Clone, PartialEq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
}

impl Default for Room {
    fn default() -> Self {
        Self {
            empty_timeout: 300,
            departure_timeout: 20,
            max_participants: 0,
            enabled_codecs: None,
            enable_remote_unmute: false,
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

/// One of `room.enabled_codecs`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnabledCodec {
    /// `audio/opus`, `video/VP8`, ... in any case.
    pub mime: String,
}

/// `logging`.
#[derive(Clone, PartialEq, Eq, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Logging {
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
}

impl Default for Logging {
    fn default() -> Self {
        Self { level: "info".to_owned() }
    }
}

/// Every codec that is forwarded, in the order in which clients are told.
const CODECS: [Codec; 9] = [
    Codec::Pcmu,
    Codec::Pcma,
    Codec::Opus,
    Codec::Red,
    Codec::Vp8,
    Codec::H264,
    Codec::Vp9,
    Codec::Av1,
    Codec::H265,
];

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConfigError {
    /// Not YAML, a wrong type, or an unknown key; the text says where.
    #[error("{0}")]
    Yaml(String),
    #[error(
        "no API key: add `keys: {{<key>: <secret>}}`, pass --keys \"<key>: <secret>\", or use --dev"
    )]
    NoKeys,
    #[error("the secret of API key {0:?} is empty")]
    EmptySecret(String),
    #[error("keys must look like \"<key>: <secret>\", one per line: {0:?}")]
    Keys(String),
    #[error("rtc.node_ip must be an IP address, or one of each family separated by a comma: {0:?}")]
    NodeIp(String),
    #[error("room.enabled_codecs names a codec that is not forwarded here: {0:?}")]
    Codec(String),
    #[error("logging.level must be debug, info, warn or error: {0:?}")]
    LogLevel(String),
}

impl Config {
    /// Reads a configuration file's text.
    pub fn from_yaml(yaml: &str) -> Result<Config, ConfigError> {
        if yaml.trim().is_empty() {
            return Ok(Config::default());
        }
        serde_saphyr::from_str(yaml).map_err(|error| ConfigError::Yaml(error.to_string()))
    }

    /// LiveKit's development mode: a well-known key when there is none, reachable from this
    /// machine only when no address was chosen, loopback candidates, and more to read.
    pub fn apply_dev_mode(&mut self) {
        if self.keys.is_empty() {
            let (key, secret) = DEV_KEY;
            self.keys.insert(key.to_owned(), secret.to_owned());
            if self.bind_addresses.is_empty() {
                self.bind_addresses = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
            }
        }
        self.rtc.enable_loopback_candidate = true;
    }

    /// Adds keys in the form of the flag `--keys`: `key: secret`, one per line.
    pub fn add_keys(&mut self, text: &str) -> Result<(), ConfigError> {
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (key, secret) =
                line.split_once(':').ok_or_else(|| ConfigError::Keys(text.to_owned()))?;
            self.keys.insert(key.trim().to_owned(), secret.trim().to_owned());
        }
        Ok(())
    }

    /// Whether a server can run with this.
    pub fn check(&self) -> Result<(), ConfigError> {
        if self.keys.is_empty() {
            return Err(ConfigError::NoKeys);
        }
        if let Some((key, _)) = self.keys.iter().find(|(_, secret)| secret.is_empty()) {
            return Err(ConfigError::EmptySecret(key.clone()));
        }
        if !matches!(self.logging.level.as_str(), "debug" | "info" | "warn" | "error") {
            return Err(ConfigError::LogLevel(self.logging.level.clone()));
        }
        self.node_ips()?;
        self.codecs().map(|_| ())
    }

    /// `rtc.node_ip`, parsed; empty if unset.
    pub fn node_ips(&self) -> Result<Vec<IpAddr>, ConfigError> {
        let parts = self.rtc.node_ip.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| part.parse().map_err(|_| ConfigError::NodeIp(part.to_owned()))).collect()
    }

    /// `room.enabled_codecs`, parsed. `video/rtx` goes without saying.
    pub fn codecs(&self) -> Result<Vec<Codec>, ConfigError> {
        let Some(enabled) = &self.room.enabled_codecs else { return Ok(CODECS.to_vec()) };
        enabled
            .iter()
            .filter(|codec| !codec.mime.eq_ignore_ascii_case("video/rtx"))
            .map(|enabled| {
                let found = CODECS
                    .iter()
                    .find(|codec| codec.mime_type().eq_ignore_ascii_case(&enabled.mime));
                found.copied().ok_or_else(|| ConfigError::Codec(enabled.mime.clone()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keys_of_a_livekit_file_are_read() {
        let config = Config::from_yaml(
            r#"
port: 7881
bind_addresses: ["127.0.0.1", "::1"]
keys:
  key1: secret1
  key2: secret2
region: eu
rtc:
  udp_port: 7890
  node_ip: 192.0.2.1,2001:db8::1
  use_ice_lite: true
  stun_servers: ["stun.example:3478"]
room:
  empty_timeout: 5
  departure_timeout: 6
  max_participants: 7
  enabled_codecs:
    - mime: audio/opus
    - mime: video/vp8
    - mime: video/rtx
logging:
  level: debug
"#,
        )
        .unwrap();
        config.check().unwrap();
        assert_eq!(config.keys.len(), 2);
        assert_eq!(config.bind_addresses.len(), 2);
        assert_eq!(config.rtc.udp_port.unwrap().first(), 7890);
        assert_eq!(config.node_ips().unwrap().len(), 2);
        assert_eq!(config.codecs().unwrap(), [Codec::Opus, Codec::Vp8]);
        assert_eq!(config.room.departure_timeout(), Duration::from_secs(6));
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        assert_eq!(Config::from_yaml("").unwrap(), Config::default());
        assert_eq!(Config::from_yaml("{}").unwrap(), Config::default());
        assert!(matches!(Config::default().check(), Err(ConfigError::NoKeys)));
    }

    #[test]
    fn faults_say_where_and_what() {
        let fault = |yaml: &str| match Config::from_yaml(yaml) {
            Ok(config) => config.check().unwrap_err().to_string(),
            Err(error) => error.to_string(),
        };
        let unknown = fault("port: 1\nrtc:\n  udp_prot: 7882\n");
        assert!(unknown.contains("udp_prot") && unknown.contains("line 3"), "{unknown}");
        assert!(fault("port: many").contains("line 1"));
        assert!(fault("keys: {a: \"\"}").contains("empty"));
        assert!(fault("keys: {a: b}\nrtc: {node_ip: nowhere}").contains("nowhere"));
        assert!(
            fault("keys: {a: b}\nroom: {enabled_codecs: [{mime: video/theora}]}")
                .contains("theora")
        );
        assert!(fault("keys: {a: b}\nlogging: {level: loud}").contains("loud"));
        assert!(fault("rtc: {udp_port: 9-3}").contains("9-3"));
    }

    #[test]
    fn dev_mode_brings_a_key_and_stays_on_this_machine() {
        let mut config = Config::default();
        config.apply_dev_mode();
        assert_eq!(config.keys.get("devkey").map(String::as_str), Some("secret"));
        assert!(config.bind_addresses.iter().all(IpAddr::is_loopback));
        let mut own = Config::from_yaml("keys: {mine: s}").unwrap();
        own.apply_dev_mode();
        assert!(own.bind_addresses.is_empty() && !own.keys.contains_key("devkey"));
    }

    #[test]
    fn keys_of_the_flag_are_added() {
        let mut config = Config::default();
        config.add_keys("a: b\n c : d \n").unwrap();
        assert_eq!(
            config.keys.into_iter().collect::<Vec<_>>(),
            [("a".to_owned(), "b".to_owned()), ("c".to_owned(), "d".to_owned())]
        );
        assert!(Config::default().add_keys("nonsense").is_err());
    }
}
