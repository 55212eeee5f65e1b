//! Every key of LiveKit's configuration file, and ours.

/// What a key's value is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Kind {
    Bool,
    Integer,
    Float,
    Text,
    /// `5s`, `100ms`, `1h30m`, or nanoseconds.
    Duration,
    /// A port, or a range of ports.
    Ports,
    /// A list of texts. This and what follows has neither flag nor variable.
    List,
    /// Names with texts.
    Map,
    /// Something with keys of its own.
    Structure,
}

impl Kind {
    /// Whether the key has a flag and an environment variable.
    pub fn is_scalar(self) -> bool {
        !matches!(self, Kind::List | Kind::Map | Kind::Structure)
    }
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// Names from the top of the file, joined by dots.
    pub path: &'static str,
    /// What its value is.
    pub kind: Kind,
    /// Whether this server does something with it. The others are accepted, so that a file
    /// written for LiveKit is.
    pub effective: bool,
}

const fn yes(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, effective: true }
}

const fn no(path: &'static str, kind: Kind) -> Key {
    Key { path, kind, effective: false }
}

use Kind::{Bool, Duration, Float, Integer, List, Map, Ports, Structure, Text};

/// All keys, in the order in which they are documented.
pub const KEYS: &[Key] = &[
    yes("port", Integer),
    yes("bind_addresses", List),
    yes("keys", Map),
    yes("key_file", Text),
    yes("region", Text),
    yes("development", Bool),
    yes("log_level", Text),
    yes("logging.level", Text),
    yes("logging.json", Bool),
    no("logging.sample", Bool),
    no("logging.component_levels", Structure),
    no("logging.pion_level", Text),
    no("logging.sample_initial", Integer),
    no("logging.sample_interval", Duration),
    no("logging.item_sample_seconds", Integer),
    no("logging.item_sample_initial", Integer),
    no("logging.item_sample_interval", Integer),
    yes("prometheus_port", Integer),
    yes("prometheus.port", Integer),
    yes("prometheus.username", Text),
    yes("prometheus.password", Text),
    no("debug_handler.port", Integer),
    yes("storage.path", Text),
    yes("rtc.udp_port", Ports),
    yes("rtc.tcp_port", Integer),
    yes("rtc.port_range_start", Integer),
    yes("rtc.port_range_end", Integer),
    yes("rtc.node_ip", Text),
    no("rtc.node_ip_auto_generated", Bool),
    yes("rtc.use_external_ip", Bool),
    yes("rtc.external_ip_only", Bool),
    yes("rtc.advertise_internal_ip", Bool),
    yes("rtc.skip_external_ip_validation", Bool),
    yes("rtc.use_ice_lite", Bool),
    no("rtc.use_mdns", Bool),
    yes("rtc.interfaces.includes", List),
    yes("rtc.interfaces.excludes", List),
    yes("rtc.ips.includes", List),
    yes("rtc.ips.excludes", List),
    yes("rtc.enable_loopback_candidate", Bool),
    no("rtc.use_stun_port_as_ice", Bool),
    yes("rtc.force_tcp", Bool),
    yes("rtc.stun_servers", List),
    yes("rtc.turn_servers", Structure),
    no("rtc.batch_io.batch_size", Integer),
    no("rtc.batch_io.max_flush_interval", Duration),
    no("rtc.sctp_min_cwnd", Integer),
    no("rtc.sctp_fast_rtx_wnd", Integer),
    no("rtc.sctp_cwnd_ca_step", Integer),
    no("rtc.packet_buffer_size", Integer),
    no("rtc.packet_buffer_size_video", Integer),
    no("rtc.packet_buffer_size_audio", Integer),
    no("rtc.pli_throttle.low_quality", Duration),
    no("rtc.pli_throttle.mid_quality", Duration),
    no("rtc.pli_throttle.high_quality", Duration),
    no("rtc.congestion_control", Structure),
    yes("rtc.allow_tcp_fallback", Bool),
    yes("rtc.tcp_fallback_rtt_threshold", Integer),
    no("rtc.allow_udp_unstable_fallback", Bool),
    no("rtc.reconnect_on_publication_error", Bool),
    no("rtc.reconnect_on_subscription_error", Bool),
    no("rtc.reconnect_on_data_channel_error", Bool),
    no("rtc.allow_timestamp_adjustment", Bool),
    no("rtc.data_channel_max_buffered_amount", Integer),
    yes("rtc.datachannel_slow_threshold", Integer),
    no("rtc.datachannel_lossy_target_latency", Duration),
    no("rtc.data_track_target_latency", Duration),
    no("rtc.strict_acks", Bool),
    no("rtc.enable_warp", Bool),
    no("rtc.enable_rtp_stream_restart_detection", Bool),
    no("rtc.forward_stats", Structure),
    no("rtc.use_send_side_bwe_interceptor", Bool),
    no("rtc.send_side_bwe_pacer", Text),
    no("audio.active_level", Integer),
    no("audio.min_percentile", Integer),
    no("audio.update_interval", Integer),
    no("audio.smooth_intervals", Integer),
    yes("audio.active_red_encoding", Bool),
    no("audio.enable_loss_proxying", Bool),
    no("video.dynacast_pause_delay", Duration),
    no("video.codec_regression_threshold", Integer),
    no("video.stream_tracker_manager", Structure),
    no("video.stream_tracker", Structure),
    yes("room.auto_create", Bool),
    yes("room.enabled_codecs", Structure),
    yes("room.max_participants", Integer),
    yes("room.empty_timeout", Integer),
    yes("room.departure_timeout", Integer),
    yes("room.enable_remote_unmute", Bool),
    yes("room.sync_streams", Bool),
    yes("room.playout_delay.enabled", Bool),
    yes("room.playout_delay.min", Integer),
    yes("room.playout_delay.max", Integer),
    no("room.create_room_enabled", Bool),
    no("room.create_room_timeout", Duration),
    no("room.create_room_attempts", Integer),
    no("room.update_batch_target_size", Integer),
    yes("room.enable_full_room_in_webhooks", Bool),
    yes("room.room_configurations", Structure),
    no("room.user_data_recording", Structure),
    yes("limit.num_tracks", Integer),
    yes("limit.bytes_per_sec", Float),
    yes("limit.subscription_limit_video", Integer),
    yes("limit.subscription_limit_audio", Integer),
    yes("limit.max_metadata_size", Integer),
    yes("limit.max_attributes_size", Integer),
    yes("limit.max_room_name_length", Integer),
    yes("limit.max_participant_identity_length", Integer),
    yes("limit.max_participant_name_length", Integer),
    yes("limit.max_data_blob_key_length", Integer),
    yes("limit.max_data_blobs_size", Integer),
    no("limit.max_data_track_custom_encoding_length", Integer),
    yes("limit.signal_message_size_limit", Integer),
    yes("limit.agent_signal_message_size_limit", Integer),
    yes("limit.max_api_request_body_size", Integer),
    yes("limit.connections_per_address", Integer),
    yes("limit.half_open_per_address", Integer),
    yes("limit.sockets_per_key", Integer),
    yes("limit.joins_per_second", Integer),
    yes("limit.api_calls_per_second", Integer),
    yes("enable_data_tracks", Bool),
    yes("enable_participant_data_blob", Bool),
    yes("webhook.urls", List),
    yes("webhook.api_key", Text),
    yes("webhook.filter_params.include_events", List),
    yes("webhook.filter_params.exclude_events", List),
    yes("webhook.resource_url_notifier.max_age", Duration),
    yes("webhook.resource_url_notifier.max_depth", Integer),
    no("webhook.url_notifier", Structure),
    no("turn.enabled", Bool),
    no("turn.domain", Text),
    no("turn.cert_file", Text),
    no("turn.key_file", Text),
    no("turn.tls_port", Integer),
    no("turn.udp_port", Integer),
    no("turn.external_tls", Bool),
    no("turn.bind_addresses", Structure),
    no("turn.relay_range_start", Integer),
    no("turn.relay_range_end", Integer),
    no("turn.ttl_seconds", Integer),
    no("turn.per_user_relay_allocation_limit", Integer),
    no("turn.allow_restricted_peer_cidrs", Structure),
    no("turn.deny_peer_cidrs", Structure),
    yes("ingress.rtmp_base_url", Text),
    yes("ingress.whip_base_url", Text),
    no("sip", Structure),
    no("redis.address", Text),
    no("redis.username", Text),
    no("redis.password", Text),
    no("redis.db", Integer),
    no("redis.use_tls", Bool),
    no("redis.tls", Structure),
    no("redis.master_name", Text),
    no("redis.sentinel_master_name", Text),
    no("redis.sentinel_username", Text),
    no("redis.sentinel_password", Text),
    no("redis.sentinel_addresses", Structure),
    no("redis.cluster_addresses", Structure),
    no("redis.dial_timeout", Integer),
    no("redis.read_timeout", Integer),
    no("redis.write_timeout", Integer),
    no("redis.pool_size", Integer),
    no("redis.pool_timeout", Integer),
    no("redis.max_redirects", Integer),
    no("node_selector.kind", Text),
    no("node_selector.sort_by", Text),
    no("node_selector.algorithm", Text),
    no("node_selector.sysload_limit", Float),
    no("node_selector.cpu_load_limit", Float),
    no("node_selector.regions", Structure),
    no("signal_relay.enabled", Bool),
    no("signal_relay.retry_timeout", Duration),
    no("signal_relay.min_retry_interval", Duration),
    no("signal_relay.max_retry_interval", Duration),
    no("signal_relay.stream_buffer_size", Integer),
    no("signal_relay.connect_attempts", Integer),
    no("psrpc.max_attempts", Integer),
    no("psrpc.timeout", Duration),
    no("psrpc.backoff", Duration),
    no("psrpc.buffer_size", Integer),
    yes("agents.target_load", Float),
    no("agents.enable_user_data_recording", Bool),
    no("agents.enable_user_data_redaction", Bool),
    no("node_stats.stats_update_interval", Duration),
    no("node_stats.stats_rate_measurement_intervals", Structure),
    no("node_stats.stats_max_delay", Duration),
    no("api.execution_timeout", Duration),
    no("api.check_interval", Duration),
    no("api.max_check_interval", Duration),
    no("api.enable_psrpc_for_get_list_participants", Bool),
    no("metric", Structure),
    no("trace.jaeger_url", Text),
];

/// Why keys have no effect, by their beginnings.
const WHY_NOT: &[(&str, &str)] = &[
    ("logging.component_levels", "RUST_LOG sets levels by component"),
    ("logging.pion_level", "there is no Pion"),
    ("logging.", "every line is logged"),
    ("debug_handler.", "/debug/rooms is on the main port, for a token"),
    ("rtc.node_ip_auto_generated", "LiveKit sets it itself"),
    ("rtc.use_mdns", "names of clients are never looked up"),
    ("rtc.use_stun_port_as_ice", "rtc.udp_port can be 3478"),
    ("rtc.batch_io.", "datagrams always go in batches"),
    ("rtc.sctp_", "fixed"),
    ("rtc.packet_buffer_size", "fixed"),
    ("rtc.pli_throttle.", "fixed, at LiveKit's defaults"),
    ("rtc.congestion_control", "always on: docs/congestion.md"),
    ("rtc.use_send_side_bwe_interceptor", "always on: docs/congestion.md"),
    ("rtc.send_side_bwe_pacer", "always on: docs/congestion.md"),
    ("rtc.allow_udp_unstable_fallback", "TCP follows a lost connection only"),
    ("rtc.reconnect_on_", "not built"),
    ("rtc.allow_timestamp_adjustment", "timestamps are always the sender's"),
    ("rtc.data_channel_max_buffered_amount", "fixed"),
    ("rtc.datachannel_lossy_target_latency", "what cannot leave at once is dropped"),
    ("rtc.data_track_target_latency", "what cannot leave at once is dropped"),
    ("rtc.strict_acks", "not built"),
    ("rtc.enable_warp", "not built"),
    ("rtc.enable_rtp_stream_restart_detection", "always on"),
    ("rtc.forward_stats", "parlor_added_delay_seconds is always counted"),
    ("audio.enable_loss_proxying", "not built"),
    ("audio.", "fixed, at LiveKit's defaults"),
    ("video.", "fixed, at LiveKit's defaults"),
    ("room.create_room_enabled", "LiveKit ignores it too"),
    ("room.create_room_", "a room is made at once or not at all"),
    ("room.update_batch_target_size", "fixed"),
    ("room.user_data_recording", "of LiveKit Cloud"),
    ("limit.max_data_track_custom_encoding_length", "fixed, at LiveKit's default"),
    ("webhook.url_notifier", "webhook.resource_url_notifier does it"),
    ("turn.", "there is no TURN relay: ICE-TCP (rtc.tcp_port), or one's own in rtc.turn_servers"),
    ("sip", "there is no SIP service yet"),
    ("redis.", "a node is alone, and needs none"),
    ("node_selector.", "a node is alone"),
    ("signal_relay.", "a node is alone"),
    ("psrpc.", "a node is alone"),
    ("agents.", "of LiveKit Cloud"),
    ("node_stats.", "a node is alone"),
    ("api.", "a node is alone"),
    ("metric", "of LiveKit Cloud"),
    ("trace.", "trace ids are in the logs"),
];

/// Why this server does nothing with a key.
pub fn why_not(path: &str) -> &'static str {
    let found = WHY_NOT.iter().find(|(beginning, _)| path.starts_with(beginning));
    found.map_or("", |(_, why)| why)
}

/// The key of this path, if there is one.
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.path == path)
}

/// Whether there are keys below this path.
pub(crate) fn is_section(path: &str) -> bool {
    KEYS.iter().any(|key| key.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// The names that may stand below a path (`""` for the top of the file).
pub(crate) fn names_below(path: &str) -> impl Iterator<Item = &'static str> {
    let prefix = if path.is_empty() { String::new() } else { format!("{path}.") };
    KEYS.iter().filter_map(move |key| {
        let rest = key.path.strip_prefix(prefix.as_str())?;
        rest.split('.').next()
    })
}

/// The name that was probably meant: the nearest by edits, if it is near.
pub(crate) fn nearest(path: &str, name: &str) -> Option<&'static str> {
    names_below(path)
        .map(|known| (distance(known, name), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min()
        .map(|(_, known)| known)
}

/// Levenshtein's distance, with a swap of neighbours as one edit.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().take(64).collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, of_a) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, of_b) in b.iter().enumerate() {
            let mut best =
                (rows[i][j] + usize::from(of_a != of_b)).min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *of_b && *of_a == b[j - 1] {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_there_once_and_none_is_also_a_section() {
        for (index, key) in KEYS.iter().enumerate() {
            assert!(KEYS[..index].iter().all(|other| other.path != key.path), "{}", key.path);
            assert!(!is_section(key.path), "{}", key.path);
        }
    }

    #[test]
    fn every_key_is_documented_with_its_effect() {
        let page = include_str!("../../../docs/configuration.md");
        for key in KEYS {
            let row = page.lines().find(|line| line.starts_with(&format!("| `{}` |", key.path)));
            let why = why_not(key.path);
            assert!(key.effective || !why.is_empty(), "{}", key.path);
            let effect = if key.effective { "| yes |" } else { &format!("| no: {why} |") };
            assert!(row.is_some_and(|row| row.ends_with(effect)), "{}: {effect}", key.path);
        }
    }

    #[test]
    fn misspelt_names_find_their_key() {
        assert_eq!(nearest("", "prot"), Some("port"));
        assert_eq!(nearest("rtc", "udp_prot"), Some("udp_port"));
        assert_eq!(nearest("rtc", "stunservers"), Some("stun_servers"));
        assert_eq!(nearest("", "zebra"), None);
    }
}
