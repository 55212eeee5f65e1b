//! What clients ask for, as nouns of a room.

use livekit_protocol as proto;
use parlor_model::{
    DisconnectReason, Identity, ParticipantSid, Permissions, TrackKind, TrackSid, TrackSource,
};
use parlor_room::{
    LayerMode, NewCodec, NewTrack, ParticipantChange, Quality, SubscriptionPolicy, TrackPermission,
    VideoLayer,
};
use proto::signal_request::Message as Request;

/// The name of a request in logs.
#[allow(deprecated)]
pub fn name(request: &Request) -> &'static str {
    match request {
        Request::Offer(_) => "offer",
        Request::Answer(_) => "answer",
        Request::Trickle(_) => "trickle",
        Request::AddTrack(_) => "add_track",
        Request::Mute(_) => "mute",
        Request::Subscription(_) => "subscription",
        Request::TrackSetting(_) => "track_setting",
        Request::Leave(_) => "leave",
        Request::UpdateLayers(_) => "update_layers",
        Request::SubscriptionPermission(_) => "subscription_permission",
        Request::SyncState(_) => "sync_state",
        Request::Simulate(_) => "simulate",
        Request::Ping(_) => "ping",
        Request::UpdateMetadata(_) => "update_metadata",
        Request::PingReq(_) => "ping_req",
        Request::UpdateAudioTrack(_) => "update_audio_track",
        Request::UpdateVideoTrack(_) => "update_video_track",
        Request::PublishDataTrackRequest(_) => "publish_data_track_request",
        Request::UnpublishDataTrackRequest(_) => "unpublish_data_track_request",
        Request::UpdateDataSubscription(_) => "update_data_subscription",
        Request::StoreDataBlobRequest(_) => "store_data_blob_request",
        Request::GetDataBlobRequest(_) => "get_data_blob_request",
    }
}

/// What `add_track` announces.
pub fn new_track(request: &proto::AddTrackRequest) -> NewTrack {
    #[allow(deprecated)]
    let (stereo, disable_dtx) = (request.stereo, request.disable_dtx);
    // What flags say comes first, as LiveKit has it.
    let flags = [
        (stereo, proto::AudioTrackFeature::TfStereo),
        (disable_dtx, proto::AudioTrackFeature::TfNoDtx),
    ];
    let flagged = flags.into_iter().filter(|(flag, _)| *flag).map(|(_, feature)| feature as i32);
    let mut audio_features: Vec<i32> = flagged.collect();
    for feature in &request.audio_features {
        if !audio_features.contains(feature) {
            audio_features.push(*feature);
        }
    }
    let has = |feature: proto::AudioTrackFeature| audio_features.contains(&feature.into());
    let kind = match request.r#type() {
        proto::TrackType::Audio => Some(TrackKind::Audio),
        proto::TrackType::Video => Some(TrackKind::Video),
        proto::TrackType::Data => None,
    };
    let regression = request.backup_codec_policy() == proto::BackupCodecPolicy::Regression;
    let backup_codec_policy = match kind {
        Some(TrackKind::Audio) if !regression => proto::BackupCodecPolicy::Simulcast.into(),
        _ => request.backup_codec_policy,
    };
    NewTrack {
        cid: request.cid.clone(),
        kind,
        name: request.name.clone(),
        source: track_source(request.source()),
        width: request.width,
        height: request.height,
        muted: request.muted,
        layers: request.layers.iter().map(video_layer).collect(),
        codecs: request.simulcast_codecs.iter().map(new_codec).collect(),
        sid: (!request.sid.is_empty()).then(|| request.sid.as_str().into()),
        stereo: has(proto::AudioTrackFeature::TfStereo),
        disable_dtx: has(proto::AudioTrackFeature::TfNoDtx),
        disable_red: request.disable_red,
        stream: request.stream.clone(),
        encryption: request.encryption,
        backup_codec_policy,
        audio_features,
        packet_trailer_features: request.packet_trailer_features.clone(),
    }
}

fn new_codec(codec: &proto::SimulcastCodec) -> NewCodec {
    use proto::video_layer::Mode;
    NewCodec {
        codec: codec.codec.clone(),
        cid: codec.cid.clone(),
        layers: codec.layers.iter().map(video_layer).collect(),
        layer_mode: match codec.video_layer_mode() {
            Mode::Unused => None,
            Mode::OneSpatialLayerPerStream => Some(LayerMode::OneSpatialLayerPerStream),
            Mode::MultipleSpatialLayersPerStream => Some(LayerMode::MultipleSpatialLayersPerStream),
            Mode::OneSpatialLayerPerStreamIncompleteRtcpSr => {
                Some(LayerMode::OneSpatialLayerPerStreamIncompleteRtcpSr)
            }
        },
    }
}

fn video_layer(layer: &proto::VideoLayer) -> VideoLayer {
    VideoLayer {
        quality: quality(layer.quality()),
        width: layer.width,
        height: layer.height,
        bitrate_bps: layer.bitrate,
        ssrc: layer.ssrc,
        spatial_layer: layer.spatial_layer,
        rid: layer.rid.clone(),
    }
}

/// A quality.
pub fn quality(quality: proto::VideoQuality) -> Quality {
    match quality {
        proto::VideoQuality::Low => Quality::Low,
        proto::VideoQuality::Medium => Quality::Medium,
        proto::VideoQuality::High => Quality::High,
        proto::VideoQuality::Off => Quality::Off,
    }
}

/// Where a track comes from.
pub fn track_source(source: proto::TrackSource) -> TrackSource {
    match source {
        proto::TrackSource::Unknown => TrackSource::Unknown,
        proto::TrackSource::Camera => TrackSource::Camera,
        proto::TrackSource::Microphone => TrackSource::Microphone,
        proto::TrackSource::ScreenShare => TrackSource::ScreenShare,
        proto::TrackSource::ScreenShareAudio => TrackSource::ScreenShareAudio,
    }
}

/// Every track that a `subscription` request names, in either list, once.
pub fn subscribed_tracks(request: &proto::UpdateSubscription) -> Vec<TrackSid> {
    let nested = request.participant_tracks.iter().flat_map(|tracks| &tracks.track_sids);
    let mut named: Vec<TrackSid> = Vec::new();
    for sid in request.track_sids.iter().chain(nested) {
        let sid = TrackSid::from(sid.as_str());
        if !named.contains(&sid) {
            named.push(sid);
        }
    }
    named
}

/// The policy of a `subscription_permission` request; `None` when an entry names nobody, for
/// which the whole request is ignored.
pub fn subscription_policy(request: &proto::SubscriptionPermission) -> Option<SubscriptionPolicy> {
    let permission = |entry: &proto::TrackPermission| {
        let sid = &entry.participant_sid;
        let identity = &entry.participant_identity;
        if sid.is_empty() && identity.is_empty() {
            return None;
        }
        Some(TrackPermission {
            participant: (!sid.is_empty()).then(|| ParticipantSid::from(sid.as_str())),
            identity: (!identity.is_empty()).then(|| Identity::from(identity.as_str())),
            all_tracks: entry.all_tracks,
            tracks: entry.track_sids.iter().map(|sid| sid.as_str().into()).collect(),
        })
    };
    Some(SubscriptionPolicy {
        all_participants: request.all_participants,
        permissions: request.track_permissions.iter().map(permission).collect::<Option<_>>()?,
    })
}

/// What `update_metadata` changes: empty texts leave things as they are.
pub fn participant_change(request: &proto::UpdateParticipantMetadata) -> ParticipantChange {
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    ParticipantChange {
        name: text(&request.name),
        metadata: text(&request.metadata),
        attributes: request.attributes.clone().into_iter().collect(),
        permissions: None,
    }
}

/// What `ParticipantPermission` allows: the whole set, absent means no.
#[allow(deprecated)]
pub fn permissions(permission: &proto::ParticipantPermission) -> Permissions {
    Permissions {
        can_subscribe: permission.can_subscribe,
        can_publish: permission.can_publish,
        can_publish_data: permission.can_publish_data,
        can_publish_sources: permission.can_publish_sources().map(track_source).collect(),
        hidden: permission.hidden,
        recorder: permission.recorder,
        can_update_metadata: permission.can_update_metadata,
        agent: permission.agent,
        can_subscribe_metrics: permission.can_subscribe_metrics,
        can_manage_agent_session: permission.can_manage_agent_session,
    }
}

/// The reason of a client's `leave`: others than these four are taken as its own wish.
pub fn leave_reason(request: &proto::LeaveRequest) -> DisconnectReason {
    match request.reason() {
        proto::DisconnectReason::UserUnavailable => DisconnectReason::UserUnavailable,
        proto::DisconnectReason::UserRejected => DisconnectReason::UserRejected,
        proto::DisconnectReason::AgentError => DisconnectReason::AgentError,
        _ => DisconnectReason::ClientInitiated,
    }
}

/// The candidate line of a `trickle` (`candidate:...`), `None` for the end of candidates.
/// The error is the text that the client is told.
pub fn candidate(request: &proto::TrickleRequest) -> Result<Option<String>, String> {
    #[derive(serde::Deserialize)]
    struct CandidateInit {
        #[serde(default)]
        candidate: String,
    }
    let init: CandidateInit =
        serde_json::from_str(&request.candidate_init).map_err(|error| error.to_string())?;
    let line = init.candidate.strip_prefix("a=").unwrap_or(&init.candidate);
    Ok((!line.is_empty()).then(|| line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn legacy_flags_become_features() {
        #[allow(deprecated)]
        let request = proto::AddTrackRequest {
            cid: "c".into(),
            stereo: true,
            disable_dtx: true,
            audio_features: vec![proto::AudioTrackFeature::TfStereo.into()],
            ..Default::default()
        };
        let track = new_track(&request);
        assert_eq!(track.audio_features, vec![0, 1]);
        assert!(track.stereo && track.disable_dtx);
        assert_eq!(track.backup_codec_policy, proto::BackupCodecPolicy::Simulcast as i32);
    }

    #[test]
    fn a_policy_that_names_nobody_is_void() {
        let request = proto::SubscriptionPermission {
            all_participants: false,
            track_permissions: vec![proto::TrackPermission {
                all_tracks: true,
                ..Default::default()
            }],
        };
        assert_eq!(subscription_policy(&request), None);
        let nobody = proto::SubscriptionPermission::default();
        assert!(!subscription_policy(&nobody).unwrap().all_participants);
    }

    #[test]
    fn both_lists_of_tracks_count_once() {
        let request = proto::UpdateSubscription {
            track_sids: vec!["TR_1".into()],
            participant_tracks: vec![proto::ParticipantTracks {
                participant_sid: "PA_1".into(),
                track_sids: vec!["TR_1".into(), "TR_2".into()],
            }],
            ..Default::default()
        };
        assert_eq!(subscribed_tracks(&request), vec!["TR_1".into(), "TR_2".into()]);
    }

    #[test]
    fn candidates_come_as_json() {
        let trickle = |json: &str| {
            candidate(&proto::TrickleRequest { candidate_init: json.into(), ..Default::default() })
        };
        let line = "candidate:1 1 udp 1 10.0.0.1 9 typ host";
        assert_eq!(
            trickle(&format!(r#"{{"candidate":"{line}","sdpMid":"0","usernameFragment":null}}"#)),
            Ok(Some(line.into()))
        );
        assert_eq!(trickle(r#"{"candidate":""}"#), Ok(None));
        assert!(trickle("junk").is_err());
    }
}
