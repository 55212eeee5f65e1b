//! What the configuration file says, in the terms of those who follow it.

use livekit_protocol as proto;
use parlor_config::{Config, PresetAgent, RoomPreset, TurnServer};
use parlor_gateway::{GatewayLimits, NameLimits};
use parlor_node::{Limits, RoomRules};
use parlor_room::{PlayoutDelay, RoomSettings};
use parlor_signal::{
    ApiKeys,
    ice::{IceServer, TurnSecret},
};

/// Most bytes of a participant's data blobs, where they are enabled; LiveKit's default.
const DATA_BLOBS_BYTES: usize = 64_000;

pub(crate) fn api_keys(config: &Config) -> ApiKeys {
    config.keys.clone().into_iter().collect()
}

pub(crate) fn gateway_limits(config: &Config) -> GatewayLimits {
    let (limit, default) = (&config.limit, GatewayLimits::default());
    GatewayLimits {
        connections_per_address: limit.connections_per_address,
        half_open_per_address: limit.half_open_per_address,
        sockets_per_key: limit.sockets_per_key,
        joins_per_second: limit.joins_per_second,
        api_calls_per_second: limit.api_calls_per_second,
        body_bytes: limit.max_api_request_body_size,
        message_bytes: limit.signal_message_size_limit.unwrap_or(default.message_bytes),
        agent_message_bytes: limit
            .agent_signal_message_size_limit
            .unwrap_or(default.agent_message_bytes),
        names: NameLimits {
            room_bytes: limit.max_room_name_length.unwrap_or(default.names.room_bytes),
            identity_bytes: limit
                .max_participant_identity_length
                .unwrap_or(default.names.identity_bytes),
        },
    }
}

pub(crate) fn node_limits(config: &Config) -> Limits {
    let (limit, default) = (&config.limit, Limits::default());
    Limits {
        room_name_bytes: limit.max_room_name_length.unwrap_or(default.room_name_bytes),
        name_bytes: limit.max_participant_name_length.unwrap_or(default.name_bytes),
        metadata_bytes: limit.max_metadata_size.unwrap_or(default.metadata_bytes),
        attributes_bytes: limit.max_attributes_size.unwrap_or(default.attributes_bytes),
        data_blob_key_bytes: limit.max_data_blob_key_length.unwrap_or(default.data_blob_key_bytes),
        data_blobs_bytes: match config.enable_participant_data_blob {
            true => limit.max_data_blobs_size.unwrap_or(DATA_BLOBS_BYTES),
            false => 0,
        },
        tracks: limit.num_tracks,
        bytes_per_second: limit.bytes_per_sec as u64,
    }
}

pub(crate) fn room(config: &Config) -> RoomSettings {
    RoomSettings {
        empty_timeout: config.room.empty_timeout(),
        departure_timeout: config.room.departure_timeout(),
        max_participants: config.room.max_participants,
        playout_delay: playout_delay(config),
        sync_streams: config.room.sync_streams,
        max_video_subscriptions: config.limit.subscription_limit_video,
        max_audio_subscriptions: config.limit.subscription_limit_audio,
        ..RoomSettings::default()
    }
}

fn playout_delay(config: &Config) -> Option<PlayoutDelay> {
    let delay = config.room.playout_delay;
    delay.enabled.then_some(PlayoutDelay { min_ms: delay.min, max_ms: delay.max })
}

pub(crate) fn room_rules(config: &Config) -> RoomRules {
    let preset = |preset: &RoomPreset| proto::RoomConfiguration {
        name: preset.name.clone(),
        empty_timeout: preset.empty_timeout,
        departure_timeout: preset.departure_timeout,
        max_participants: preset.max_participants,
        min_playout_delay: preset.min_playout_delay,
        max_playout_delay: preset.max_playout_delay,
        sync_streams: preset.sync_streams,
        metadata: preset.metadata.clone(),
        tags: preset.tags.clone().into_iter().collect(),
        agents: preset.agents.iter().map(preset_agent).collect(),
        ..Default::default()
    };
    let presets = config.room.room_configurations.iter();
    RoomRules {
        auto_create: config.room.auto_create,
        presets: presets.map(|(name, chosen)| (name.clone(), preset(chosen))).collect(),
        data_tracks: config.enable_data_tracks,
        full_room_in_webhooks: config.room.enable_full_room_in_webhooks,
        rooms_return: !config.storage.path.is_empty(),
        ..RoomRules::default()
    }
}

fn preset_agent(agent: &PresetAgent) -> proto::RoomAgentDispatch {
    proto::RoomAgentDispatch {
        agent_name: agent.agent_name.clone(),
        metadata: agent.metadata.clone(),
        ..Default::default()
    }
}

/// TURN servers, then STUN servers. LiveKit's choice of the latter stands in for both.
pub(crate) fn ice_servers(config: &Config) -> Vec<IceServer> {
    let rtc = &config.rtc;
    let mut servers: Vec<IceServer> = rtc.turn_servers.iter().map(turn_server).collect();
    let stun_servers = match &rtc.stun_servers {
        None if !servers.is_empty() => Vec::new(),
        _ => rtc.stun_servers(),
    };
    let urls: Vec<String> = stun_servers.iter().map(|server| format!("stun:{server}")).collect();
    if !urls.is_empty() {
        servers.push(proto::IceServer { urls, ..Default::default() }.into());
    }
    servers
}

fn turn_server(turn: &TurnServer) -> IceServer {
    let (scheme, transport) = match turn.protocol.as_str() {
        "tls" => ("turns", "tcp"),
        "udp" => ("turn", "udp"),
        _ => ("turn", "tcp"),
    };
    let server = proto::IceServer {
        urls: vec![format!("{scheme}:{}:{}?transport={transport}", turn.host, turn.port)],
        username: turn.username.clone(),
        credential: turn.credential.clone(),
    };
    let secret = (!turn.secret.is_empty())
        .then(|| TurnSecret { secret: turn.secret.clone(), ttl: turn.ttl() });
    IceServer { server, secret }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// What a participant is told at the Unix time 0.
    fn told(yaml: &str) -> Vec<(String, String)> {
        let config = Config::from_yaml(yaml).unwrap();
        let servers = ice_servers(&config).into_iter();
        let told = servers.map(|server| server.of("PA_a", Duration::ZERO));
        told.map(|server| (server.urls.join(" "), server.username)).collect()
    }

    #[test]
    fn clients_are_told_of_turn_servers_before_stun_servers() {
        let pair = |urls: &str, username: &str| (urls.to_owned(), username.to_owned());
        let default = told("");
        assert!(default[0].0.starts_with("stun:global.stun.twilio.com:3478 stun:stun.l."));
        let turn = "turn_servers: [{host: t.example, port: 5349, protocol: tls, secret: s}, \
            {host: 192.0.2.1, port: 3478, protocol: udp, username: u, credential: 1234}]";
        let two = [
            pair("turns:t.example:5349?transport=tcp", "14400:PA_a"),
            pair("turn:192.0.2.1:3478?transport=udp", "u"),
        ];
        assert_eq!(told(&format!("rtc: {{{turn}}}")), two);
        let with_stun = told(&format!("rtc: {{{turn}, stun_servers: [\"s.example:3478\"]}}"));
        assert_eq!(with_stun[..2], two);
        assert_eq!(with_stun[2..], [pair("stun:s.example:3478", "")]);
        assert_eq!(told("rtc: {stun_servers: []}"), []);
    }

    #[test]
    fn a_turn_server_that_nobody_could_use_is_refused() {
        for (server, fault) in [
            ("{port: 1, protocol: udp, secret: s}", "a host"),
            ("{host: h, protocol: udp, secret: s}", "a port"),
            ("{host: h, port: 1, secret: s}", "a protocol"),
            ("{host: h, port: 1, protocol: udp, username: u}", "a secret"),
            ("{host: h, port: 1, protocol: udp, secret: s, ttl: 86401}", "86400"),
        ] {
            let yaml = format!("keys: {{a: b}}\nrtc: {{turn_servers: [{server}]}}");
            let error = Config::from_yaml(&yaml).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(fault), "{server}: {error}");
        }
        for hidden in ["{secret: [hunter2]}", "{credential: {hunter2: 1}}", "{secret: 7, ttl: x}"] {
            let yaml = format!("rtc: {{turn_servers: [{hidden}]}}");
            let error = Config::from_yaml(&yaml).err().unwrap().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
