//! What the configuration file says, in the terms of those who follow it.

use livekit_protocol as proto;
use parlor_config::{Config, PresetAgent, RoomPreset};
use parlor_gateway::{GatewayLimits, NameLimits};
use parlor_node::{Limits, RoomRules};
use parlor_room::{PlayoutDelay, RoomSettings};
use parlor_signal::ApiKeys;

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
    }
}

pub(crate) fn room(config: &Config) -> RoomSettings {
    RoomSettings {
        empty_timeout: config.room.empty_timeout(),
        departure_timeout: config.room.departure_timeout(),
        max_participants: config.room.max_participants,
        playout_delay: playout_delay(config),
        sync_streams: config.room.sync_streams,
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
    }
}

fn preset_agent(agent: &PresetAgent) -> proto::RoomAgentDispatch {
    proto::RoomAgentDispatch {
        agent_name: agent.agent_name.clone(),
        metadata: agent.metadata.clone(),
        ..Default::default()
    }
}

pub(crate) fn ice_servers(config: &Config) -> Vec<proto::IceServer> {
    let urls: Vec<String> =
        config.rtc.stun_servers.iter().map(|server| format!("stun:{server}")).collect();
    if urls.is_empty() {
        return Vec::new();
    }
    vec![proto::IceServer { urls, ..Default::default() }]
}
