//! The configuration file: LiveKit's YAML.
//!
//! [`Source::from_yaml`] reads a file; the program then lays its flags and variables over it,
//! makes a [`Config`] of it and calls [`Config::check`]. Every key that is missing has LiveKit's
//! default. Every key of LiveKit is known, also where this server has nothing that it could
//! configure ([`Source::remarks`]). Any other is an error that names its line and the
//! key that was probably meant, since a misspelt key that is ignored costs an evening. No error
//! shows a value: it may be a secret.
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

pub mod keys;
mod network;
mod port_range;
mod sections;
mod source;

pub use network::{IpNetwork, IpNetworkError};
pub use port_range::{PortRange, PortRangeError};
pub use sections::{
    Agents, Audio, EnabledCodec, Filter, Ingress, Limit, Logging, PlayoutDelay, PresetAgent,
    Prometheus, Room, RoomPreset, Rtc, Storage, TurnServer, Webhook, WebhookFilter, WebhookQueue,
};
pub use source::{Remark, Source};

use parlor_model::Codec;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// Port of HTTP and WebSockets when none is configured.
pub const DEFAULT_PORT: u16 = 7880;
/// First UDP port of media when none is configured.
pub const DEFAULT_UDP_PORT: u16 = 7882;
/// TCP port of media when none is configured.
pub const DEFAULT_TCP_PORT: u16 = 7881;
/// Key and secret of the development mode when no key is configured.
pub const DEV_KEY: (&str, &str) = ("devkey", "secret");

/// All that can be configured.
#[derive(Clone, PartialEq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// TCP port of HTTP and WebSockets.
    pub port: u16,
    /// Addresses to listen on for HTTP and WebSockets; all if empty.
    pub bind_addresses: Vec<IpAddr>,
    /// API keys with their secrets.
    pub keys: BTreeMap<String, String>,
    /// A file with more of them.
    pub key_file: String,
    /// LiveKit's development mode.
    pub development: bool,
    /// Older name of `logging.level`.
    pub log_level: String,
    /// Older name of `prometheus.port`.
    pub prometheus_port: u16,
    /// Told to clients.
    pub region: String,
    /// Media.
    pub rtc: Rtc,
    /// Sound.
    pub audio: Audio,
    /// Defaults of rooms.
    pub room: Room,
    /// Logs.
    pub logging: Logging,
    /// Metrics.
    pub prometheus: Prometheus,
    /// What outlives the process.
    pub storage: Storage,
    /// Events for applications.
    pub webhook: Webhook,
    /// Where media for an ingress is sent to.
    pub ingress: Ingress,
    /// Bounds.
    pub limit: Limit,
    /// Agent workers.
    pub agents: Agents,
    /// Whether participants may publish data tracks.
    pub enable_data_tracks: bool,
    /// Whether participants may store data for others to get.
    pub enable_participant_data_blob: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            port: DEFAULT_PORT,
            bind_addresses: Vec::new(),
            keys: BTreeMap::new(),
            key_file: String::new(),
            development: false,
            log_level: String::new(),
            prometheus_port: 0,
            region: String::new(),
            rtc: Rtc::default(),
            audio: Audio::default(),
            room: Room::default(),
            logging: Logging::default(),
            prometheus: Prometheus::default(),
            storage: Storage::default(),
            webhook: Webhook::default(),
            ingress: Ingress::default(),
            limit: Limit::default(),
            agents: Agents::default(),
            enable_data_tracks: true,
            enable_participant_data_blob: false,
        }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ConfigError {
    /// Not YAML, a wrong type, or an unknown key. Line 0 is an unknown one.
    #[error("{}{fault}", if *line > 0 { format!("line {line}: ") } else { String::new() })]
    Yaml { line: usize, fault: String },
    /// A flag or a variable.
    #[error("{0} must be {1}")]
    Value(String, String),
    #[error("a file of secrets must be readable by its owner and group only: chmod o= {0}")]
    KeyFileMode(String),
    #[error("webhook.api_key {0:?} is none of the keys")]
    WebhookKey(String),
    #[error("prometheus.username and prometheus.password go together")]
    PrometheusAuth,
    #[error(
        "no API key: add `keys: {{<key>: <secret>}}`, pass --keys \"<key>: <secret>\", or use --dev"
    )]
    NoKeys,
    #[error("the secret of API key {0:?} is empty")]
    EmptySecret(String),
    #[error("keys must look like \"<key>: <secret>\", one per line; line {0} does not")]
    Keys(usize),
    #[error("rtc.node_ip must be an IP address, or one of each family separated by a comma: {0:?}")]
    NodeIp(String),
    #[error("rtc.turn_servers: {0:?} needs {1}")]
    TurnServer(String, &'static str),
    #[error("rtc.port_range_end must be a port that is not below rtc.port_range_start")]
    MediaPortRange,
    #[error("room.enabled_codecs names a codec that is not forwarded here: {0:?}")]
    Codec(String),
    #[error("logging.level must be debug, info, warn or error: {0:?}")]
    LogLevel(String),
}

impl std::fmt::Debug for Config {
    /// Without secrets, and without what may carry them.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Config")
            .field("port", &self.port)
            .field("keys", &self.keys.len())
            .field("rtc", &self.rtc)
            .field("room", &self.room)
            .field("logging", &self.logging)
            .field("storage", &self.storage)
            .field("limit", &self.limit)
            .field("webhooks", &self.webhook.urls.len())
            .finish_non_exhaustive()
    }
}

impl Config {
    /// Reads a configuration file's text, all of whose keys must be known.
    pub fn from_yaml(yaml: &str) -> Result<Config, ConfigError> {
        Source::from_yaml(yaml, true)?.config()
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
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, secret) = line.split_once(':').ok_or(ConfigError::Keys(index + 1))?;
            let bare = |text: &str| text.trim().trim_matches(['"', '\'']).to_owned();
            self.keys.insert(bare(key), bare(secret));
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
        if !matches!(self.log_level(), "debug" | "info" | "warn" | "error") {
            return Err(ConfigError::LogLevel(self.log_level().to_owned()));
        }
        let webhook = &self.webhook;
        if !webhook.urls.is_empty() && !self.keys.contains_key(&webhook.api_key) {
            return Err(ConfigError::WebhookKey(webhook.api_key.clone()));
        }
        if self.prometheus.username.is_empty() != self.prometheus.password.is_empty() {
            return Err(ConfigError::PrometheusAuth);
        }
        self.node_ips()?;
        if self.rtc.port_range_end < self.rtc.port_range_start {
            return Err(ConfigError::MediaPortRange);
        }
        self.rtc.turn_servers.iter().try_for_each(TurnServer::check)?;
        self.codecs().map(|_| ())
    }

    /// `logging.level`, or its older name.
    pub fn log_level(&self) -> &str {
        if self.log_level.is_empty() { &self.logging.level } else { &self.log_level }
    }

    /// The port of metrics, if there is one.
    pub fn prometheus_port(&self) -> Option<u16> {
        [self.prometheus.port, self.prometheus_port].into_iter().find(|port| *port > 0)
    }

    /// Media threads on a machine with so many processors: one for each of
    /// [`Config::media_ports`], or all on the one port that there is.
    pub fn media_threads(&self, processors: usize) -> usize {
        match self.media_ports(processors).count() {
            1 => processors,
            ports => ports,
        }
    }

    /// The UDP ports of media on a machine with so many processors.
    pub fn media_ports(&self, processors: usize) -> PortRange {
        let rtc = &self.rtc;
        match (rtc.port_range_start, rtc.udp_port) {
            (0, Some(ports)) => ports,
            (0, None) => PortRange::starting_at(DEFAULT_UDP_PORT, processors),
            (first, _) => {
                let all = usize::from(rtc.port_range_end.saturating_sub(first)) + 1;
                PortRange::starting_at(first, processors.min(all))
            }
        }
    }

    /// `rtc.node_ip`, parsed; empty if unset.
    pub fn node_ips(&self) -> Result<Vec<IpAddr>, ConfigError> {
        let parts = self.rtc.node_ip.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| part.parse().map_err(|_| ConfigError::NodeIp(part.to_owned()))).collect()
    }

    /// `room.enabled_codecs`, parsed. `video/rtx` goes without saying.
    pub fn codecs(&self) -> Result<Vec<Codec>, ConfigError> {
        let Some(enabled) = &self.room.enabled_codecs else { return Ok(Codec::ALL.to_vec()) };
        enabled
            .iter()
            .filter(|codec| !codec.mime.eq_ignore_ascii_case("video/rtx"))
            .map(|enabled| {
                let found = Codec::ALL
                    .into_iter()
                    .find(|codec| codec.mime_type().eq_ignore_ascii_case(&enabled.mime));
                found.ok_or_else(|| ConfigError::Codec(enabled.mime.clone()))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

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
audio:
  active_red_encoding: true
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
        assert!(config.audio.active_red_encoding && !Config::default().audio.active_red_encoding);
        assert_eq!(config.bind_addresses.len(), 2);
        assert_eq!(config.rtc.udp_port.unwrap().first(), 7890);
        assert_eq!(config.node_ips().unwrap().len(), 2);
        assert_eq!(config.codecs().unwrap(), [Codec::Opus, Codec::Vp8]);
        assert_eq!(config.room.departure_timeout(), Duration::from_secs(6));
    }

    #[test]
    fn presets_are_read_in_every_spelling() {
        let config = Config::from_yaml(
            "room:\n  auto_create: false\n  sync_streams: true\n  playout_delay: {enabled: true, min: 100, max: 2000}\n\
             \x20 room_configurations:\n    a: {emptytimeout: 1, maxparticipants: 2, agents: [{agentname: x}]}\n\
             \x20   b: {empty_timeout: 3, metadata: m}\n    c: {emptyTimeout: 4, syncStreams: true}\n",
        )
        .unwrap();
        let room = &config.room;
        assert!(!room.auto_create && room.sync_streams);
        assert_eq!(room.playout_delay, PlayoutDelay { enabled: true, min: 100, max: 2000 });
        let timeouts = room.room_configurations.values().map(|preset| preset.empty_timeout);
        assert_eq!(timeouts.collect::<Vec<_>>(), [1, 3, 4]);
        assert_eq!(room.room_configurations["a"].agents[0].agent_name, "x");
        let mistake = "room: {room_configurations: {a: {emptytimout: 1}}}";
        assert!(Config::from_yaml(mistake).unwrap_err().to_string().contains("emptytimout"));
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
        assert!(fault("rtc: {udp_port: 9-3}").contains("rtc.udp_port"));
    }

    #[test]
    fn each_processor_has_a_media_thread_but_a_range_of_ports_one_for_each() {
        let media = |yaml: &str| {
            let config = Config::from_yaml(yaml).unwrap();
            format!("{} on {}", config.media_threads(4), config.media_ports(4))
        };
        assert_eq!(media(""), "4 on 7882-7885");
        assert_eq!(media("rtc: {udp_port: 9000}"), "4 on 9000");
        assert_eq!(media("rtc: {udp_port: 9000-9002}"), "3 on 9000-9002");
        assert_eq!(media("rtc: {udp_port: 9000-9007}"), "8 on 9000-9007");
        let range = "rtc: {udp_port: 9000, port_range_start: 50000, port_range_end: 60000}";
        assert_eq!(media(range), "4 on 50000-50003");
        let range = "rtc: {port_range_start: 50000, port_range_end: 50001}";
        assert_eq!(media(range), "2 on 50000-50001");
        let range = "rtc: {port_range_start: 50000, port_range_end: 50000}";
        assert_eq!(media(range), "4 on 50000");
        assert_eq!(Config::default().media_threads(1), 1);
        let backwards = Config::from_yaml("keys: {a: b}\nrtc: {port_range_start: 5}").unwrap();
        assert!(matches!(backwards.check(), Err(ConfigError::MediaPortRange)));
    }

    #[test]
    fn includes_come_before_excludes() {
        let may = |yaml: &str, interface: &str, ip: &str| {
            Config::from_yaml(yaml).unwrap().rtc.may_use(interface, ip.parse().unwrap())
        };
        let names = "rtc: {interfaces: {excludes: [docker0]}}";
        assert!(may(names, "eth0", "10.0.0.1") && !may(names, "docker0", "10.0.0.1"));
        let both = "rtc: {ips: {includes: [10.0.0.0/8], excludes: [10.0.0.1/32]}}";
        assert!(may(both, "eth0", "10.0.0.1") && !may(both, "eth0", "192.0.2.1"));
        assert!(Config::from_yaml("rtc: {ips: {includes: [eth0]}}").is_err());
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
        let error = Config::default().add_keys("a: b\nhunter2").unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("hunter2"), "{error}");
    }

    /// Every value that could be a secret, where it should be and where it should not.
    #[test]
    fn no_error_and_no_debug_output_shows_a_secret() {
        for yaml in [
            "keys: {a: [hunter2]}",
            "keys: hunter2",
            "keys: [hunter2]",
            "keys:\n  a: hunter2\n b: hunter2",
            "keys: {a: hunter2",
            "keys: {a: \"hunter2}",
            "redis: hunter2",
            "redis: {password: [hunter2]}",
            "webhook: {urls: \"http://u:hunter2@h\"}",
            "webhook: {urls: [{a: hunter2}]}",
            "prometheus: {port: hunter2}",
            "port: hunter2",
            "prometheus: {username: \"\", password: hunter2}\nkeys: {a: b}",
            "hunter: hunter2",
        ] {
            let error = match Config::from_yaml(yaml) {
                Ok(config) => config.check().unwrap_err().to_string(),
                Err(error) => error.to_string(),
            };
            assert!(!error.contains("hunter2"), "{yaml}: {error}");
        }
        let config = Config::from_yaml(
            "keys: {a: hunter2}\nwebhook: {urls: [\"http://hunter2@h\"], api_key: a}\n\
             prometheus: {username: u, password: hunter2}",
        );
        let shown = format!("{:?}", config.unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn livekits_sample_keys_are_accepted_and_named_as_far_as_they_do_nothing() {
        let yaml = "port: 7880\nlog_level: warn\nredis:\n  address: localhost:6379\n\
            rtc:\n  pli_throttle:\n    low_quality: 500ms\n  congestion_control:\n    enabled: true\n\
            turn:\n  enabled: false\n  domain: turn.myhost.com\n\
            webhook:\n  api_key: k\n  urls:\n    - https://your-host.com/handler\n\
            \x20 resource_url_notifier:\n    max_age: 30s\nkeys: {k: 12345}\nlimit: {bytes_per_sec: 1_000_000_000}\n";
        let source = Source::from_yaml(yaml, true).unwrap();
        let is_remarked = |key: &str| source.remarks().iter().any(|r| r.text.starts_with(key));
        assert!(is_remarked("redis.address has no effect"));
        let config = source.config().unwrap();
        config.check().unwrap();
        assert_eq!(config.log_level(), "warn");
        assert_eq!(config.keys["k"], "12345");
        assert_eq!(config.limit.bytes_per_sec, 1e9);
        let max_age = config.webhook.resource_url_notifier.max_age;
        assert_eq!(max_age, Some(Duration::from_secs(30)));
        assert!(Source::from_yaml("nope: 1", false).is_ok());
        let mistake = Config::from_yaml("rtc:\n  udp_prot: 1").err().unwrap().to_string();
        assert!(mistake.contains("line 2") && mistake.contains("udp_port"), "{mistake}");
        let no_key = Config::from_yaml("keys: {a: b}\nwebhook: {urls: [\"http://h\"]}").unwrap();
        assert!(matches!(no_key.check(), Err(ConfigError::WebhookKey(_))));
    }
}
