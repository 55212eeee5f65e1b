//! What is told of participants and tracks, wherever it is told.

use crate::frame::{PARTICIPANT_MAPS, sorted};
use livekit_protocol as proto;
use parlor_model::{DisconnectReason, ParticipantKind, Permissions, TrackKind, TrackSource};
use parlor_room::{DataTrack, LayerMode, Participant, Quality, State, Track, VideoLayer};
use prost::Message as _;

/// `ParticipantInfo`.
pub fn participant_info(participant: &Participant, region: &str) -> proto::ParticipantInfo {
    use proto::participant_info::State as Wire;
    let info = &participant.info;
    proto::ParticipantInfo {
        sid: info.sid.to_string(),
        identity: info.identity.to_string(),
        state: match participant.state {
            State::Joining => Wire::Joining,
            State::Joined => Wire::Joined,
            State::Active => Wire::Active,
            State::Disconnected => Wire::Disconnected,
        }
        .into(),
        tracks: participant.published_tracks().map(track_info).collect(),
        metadata: info.metadata.clone(),
        joined_at: participant.joined_unix_ms / 1_000,
        joined_at_ms: participant.joined_unix_ms,
        name: info.name.clone(),
        version: participant.version,
        permission: Some(permission(&info.permissions)),
        region: region.to_owned(),
        is_publisher: participant.is_publisher,
        kind: participant_kind(info.kind).into(),
        attributes: info.attributes.clone().into_iter().collect(),
        disconnect_reason: participant.disconnect_reason.map_or(0, |r| disconnect_reason(r).into()),
        kind_details: info.kind_details.clone(),
        data_tracks: participant.data_tracks.iter().map(data_track_info).collect(),
        client_protocol: info.client_protocol,
        capabilities: info.capabilities.clone(),
    }
}

/// `ParticipantInfo` as it is written, made once and kept until the participant changes.
pub fn participant_bytes<'a>(participant: &'a Participant, region: &str) -> &'a [u8] {
    participant.kept(|participant| {
        sorted(&participant_info(participant, region).encode_to_vec(), &PARTICIPANT_MAPS)
    })
}

/// `DataTrackInfo`.
pub fn data_track_info(track: &DataTrack) -> proto::DataTrackInfo {
    // It was encoded here, so it can be decoded.
    let announced = proto::PublishDataTrackRequest::decode(track.announcement.as_slice());
    let announced = announced.unwrap_or_default();
    proto::DataTrackInfo {
        pub_handle: track.handle.into(),
        sid: track.sid.to_string(),
        name: track.name.clone(),
        encryption: announced.encryption,
        frame_encoding: announced.frame_encoding,
        schema: announced.schema,
    }
}

/// `TrackInfo`.
pub fn track_info(track: &Track) -> proto::TrackInfo {
    let announced = &track.announced;
    let first = track.codecs.first();
    let simulcast = track.is_simulcast();
    let published = track.is_published();
    let layers = match first {
        Some(codec) if track.kind == TrackKind::Video => {
            codec.layers.iter().map(video_layer).collect()
        }
        _ => announced.layers.iter().map(video_layer).collect(),
    };
    #[allow(deprecated)]
    proto::TrackInfo {
        sid: track.sid.to_string(),
        r#type: match track.kind {
            TrackKind::Audio => proto::TrackType::Audio,
            TrackKind::Video => proto::TrackType::Video,
        }
        .into(),
        name: announced.name.clone(),
        muted: track.muted,
        width: announced.width,
        height: announced.height,
        simulcast,
        disable_dtx: announced.disable_dtx,
        source: track_source(announced.source).into(),
        layers,
        mime_type: first.filter(|_| published).map_or(String::new(), |c| c.mime_type.clone()),
        mid: first.map_or(String::new(), |codec| codec.mid.clone()),
        codecs: track
            .codecs
            .iter()
            .map(|codec| proto::SimulcastCodecInfo {
                mime_type: codec.mime_type.clone(),
                mid: codec.mid.clone(),
                cid: codec.cid.clone(),
                layers: codec.layers.iter().map(video_layer).collect(),
                video_layer_mode: codec.layer_mode.map_or(0, |mode| layer_mode(mode).into()),
                sdp_cid: String::new(),
            })
            .collect(),
        stereo: announced.stereo,
        disable_red: announced.disable_red,
        encryption: announced.encryption,
        stream: announced.stream.clone(),
        version: track
            .published_unix_micros
            .map(|unix_micro| proto::TimedVersion { unix_micro, ticks: 0 }),
        audio_features: announced.audio_features.clone(),
        backup_codec_policy: announced.backup_codec_policy,
        packet_trailer_features: announced.packet_trailer_features.clone(),
    }
}

fn video_layer(layer: &VideoLayer) -> proto::VideoLayer {
    proto::VideoLayer {
        quality: match layer.quality {
            Quality::Low => proto::VideoQuality::Low,
            Quality::Medium => proto::VideoQuality::Medium,
            Quality::High => proto::VideoQuality::High,
            Quality::Off => proto::VideoQuality::Off,
        }
        .into(),
        width: layer.width,
        height: layer.height,
        bitrate: layer.bitrate_bps,
        ssrc: layer.ssrc,
        spatial_layer: layer.spatial_layer,
        rid: layer.rid.clone(),
        ..Default::default()
    }
}

fn layer_mode(mode: LayerMode) -> proto::video_layer::Mode {
    use proto::video_layer::Mode;
    match mode {
        LayerMode::OneSpatialLayerPerStream => Mode::OneSpatialLayerPerStream,
        LayerMode::MultipleSpatialLayersPerStream => Mode::MultipleSpatialLayersPerStream,
        LayerMode::OneSpatialLayerPerStreamIncompleteRtcpSr => {
            Mode::OneSpatialLayerPerStreamIncompleteRtcpSr
        }
    }
}

fn track_source(source: TrackSource) -> proto::TrackSource {
    match source {
        TrackSource::Unknown => proto::TrackSource::Unknown,
        TrackSource::Camera => proto::TrackSource::Camera,
        TrackSource::Microphone => proto::TrackSource::Microphone,
        TrackSource::ScreenShare => proto::TrackSource::ScreenShare,
        TrackSource::ScreenShareAudio => proto::TrackSource::ScreenShareAudio,
    }
}

/// `ParticipantPermission`.
pub fn permission(permissions: &Permissions) -> proto::ParticipantPermission {
    #[allow(deprecated)]
    proto::ParticipantPermission {
        can_subscribe: permissions.can_subscribe,
        can_publish: permissions.can_publish,
        can_publish_data: permissions.can_publish_data,
        can_publish_sources: permissions
            .can_publish_sources
            .iter()
            .map(|source| track_source(*source).into())
            .collect(),
        hidden: permissions.hidden,
        recorder: permissions.recorder,
        can_update_metadata: permissions.can_update_metadata,
        agent: permissions.agent,
        can_subscribe_metrics: permissions.can_subscribe_metrics,
        can_manage_agent_session: permissions.can_manage_agent_session,
    }
}

fn participant_kind(kind: ParticipantKind) -> proto::participant_info::Kind {
    use proto::participant_info::Kind;
    match kind {
        ParticipantKind::Standard => Kind::Standard,
        ParticipantKind::Ingress => Kind::Ingress,
        ParticipantKind::Egress => Kind::Egress,
        ParticipantKind::Sip => Kind::Sip,
        ParticipantKind::Agent => Kind::Agent,
        ParticipantKind::Connector => Kind::Connector,
        ParticipantKind::Bridge => Kind::Bridge,
    }
}

/// `DisconnectReason`.
pub fn disconnect_reason(reason: DisconnectReason) -> proto::DisconnectReason {
    use proto::DisconnectReason as Wire;
    match reason {
        DisconnectReason::ClientInitiated => Wire::ClientInitiated,
        DisconnectReason::DuplicateIdentity => Wire::DuplicateIdentity,
        DisconnectReason::ServerShutdown => Wire::ServerShutdown,
        DisconnectReason::ParticipantRemoved => Wire::ParticipantRemoved,
        DisconnectReason::RoomDeleted => Wire::RoomDeleted,
        DisconnectReason::StateMismatch => Wire::StateMismatch,
        DisconnectReason::JoinFailure => Wire::JoinFailure,
        DisconnectReason::Migration => Wire::Migration,
        DisconnectReason::SignalClose => Wire::SignalClose,
        DisconnectReason::RoomClosed => Wire::RoomClosed,
        DisconnectReason::UserUnavailable => Wire::UserUnavailable,
        DisconnectReason::UserRejected => Wire::UserRejected,
        DisconnectReason::SipTrunkFailure => Wire::SipTrunkFailure,
        DisconnectReason::ConnectionTimeout => Wire::ConnectionTimeout,
        DisconnectReason::MediaFailure => Wire::MediaFailure,
        DisconnectReason::AgentError => Wire::AgentError,
    }
}
