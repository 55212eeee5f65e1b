//! What clients are told, built from the state of a room.

use crate::{device::DisabledCodecs, ice::IceServer};
use livekit_protocol as proto;
use parlor_model::{
    Codec, DisconnectReason, ParticipantKind, ParticipantSid, Permissions, TrackKind, TrackSid,
    TrackSource,
};
use parlor_room::{
    DataTrack, LayerMode, Participant, Quality, Room, State, Track, TrackCodec, VideoLayer,
};
use prost::Message as _;
use proto::{
    client_info::Sdk,
    request_response::{Reason, Request},
    signal_response::Message,
};
use std::time::Duration;

/// The version that clients and tools check: that of the LiveKit server whose behaviour this is.
pub const COMPATIBLE_VERSION: &str = "1.13.5";
/// The protocol version of this server.
pub const PROTOCOL: i32 = 17;
/// The version of the agent worker protocol.
pub const AGENT_PROTOCOL: i32 = 1;
/// How often clients ping, in seconds.
pub const PING_INTERVAL_SECONDS: i32 = 5;
/// After how many seconds without a pong a client gives the connection up.
pub const PING_TIMEOUT_SECONDS: i32 = 15;

/// What `join` says about the server.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Server {
    /// `ND_...`.
    pub node_id: String,
    /// Empty when there is none.
    pub region: String,
    /// STUN and TURN servers for clients.
    pub ice_servers: Vec<IceServer>,
    /// Codecs that may be published.
    pub codecs: Vec<Codec>,
}

/// What a client's version and kind change in what it is told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    /// Its protocol version.
    pub protocol: i32,
    /// Its kind.
    pub sdk: Sdk,
    /// Whether it runs in Firefox.
    pub firefox: bool,
    /// Codecs that its device handles badly.
    pub disabled_codecs: DisabledCodecs,
}

impl Client {
    /// Whether the server's offers may make the subscribing connection its primary one.
    pub fn knows_subscriber_primary(&self) -> bool {
        self.protocol >= 3
    }

    /// Whether it can talk to an ICE-lite agent.
    pub fn allows_ice_lite(&self) -> bool {
        self.protocol >= 6 && !self.firefox
    }

    /// Whether it connects to candidates of TCP: all but LiveKit's Go SDK.
    pub fn takes_tcp(&self) -> bool {
        self.sdk != Sdk::Go
    }

    /// Whether it overlooks a track that comes again in the section that it left: the clients on
    /// LiveKit's Rust SDK, where the server offers (`dispatched_streams` in its `rtc_session.rs`).
    pub fn overlooks_returns(&self) -> bool {
        matches!(self.sdk, Sdk::Rust | Sdk::Python | Sdk::Node | Sdk::Cpp | Sdk::Unity)
    }

    /// Whether a media stream may have a name of its own, that all tracks of one source share.
    pub fn knows_stream_names(&self) -> bool {
        self.protocol >= 10 && !self.firefox
    }

    /// Whether it sends nothing again after a resume before which nothing had been sent:
    /// livekit-client, alone and below React Native.
    pub fn forgets_without_a_first_message(&self) -> bool {
        matches!(self.sdk, Sdk::Js | Sdk::ReactNative)
    }

    /// Whether it can be moved to another room with its connection (`room_moved`).
    pub fn knows_moves(&self) -> bool {
        self.protocol >= 16
    }

    /// Whether `leave` can tell it to resume.
    pub fn knows_leave_action(&self) -> bool {
        self.protocol >= 13
    }

    /// The message in the form that this client knows; `None` if it knows none.
    pub fn adapt(&self, message: Message) -> Option<Message> {
        let old_rust = self.sdk == Sdk::Rust && self.protocol < 10;
        match message {
            Message::Leave(leave) => self.adapt_leave(leave).map(Message::Leave),
            Message::TrackUnpublished(ended) if self.protocol < 7 => {
                Some(Message::Mute(proto::MuteTrackRequest { sid: ended.track_sid, muted: true }))
            }
            Message::RequestResponse(response)
                if old_rust || (response.reason() == Reason::Ok && self.protocol < 15) =>
            {
                None
            }
            Message::TrackSubscribed(_) if old_rust => None,
            Message::ConnectionQuality(_) if self.protocol < 5 => None,
            Message::SpeakersChanged(_) if self.protocol < 3 => None,
            message => Some(message),
        }
    }

    /// Before version 13 there was no `action`: a client was told whether to come back at all.
    fn adapt_leave(&self, mut leave: proto::LeaveRequest) -> Option<proto::LeaveRequest> {
        use proto::leave_request::Action;
        if self.knows_leave_action() {
            return Some(leave);
        }
        match leave.action() {
            Action::Resume => return None,
            Action::Reconnect => leave.can_reconnect = true,
            Action::Disconnect => {}
        }
        leave.action = Action::Disconnect.into();
        Some(leave)
    }
}

impl From<&proto::ClientInfo> for Client {
    fn from(info: &proto::ClientInfo) -> Self {
        Self {
            protocol: info.protocol,
            sdk: info.sdk(),
            firefox: info.browser.eq_ignore_ascii_case("firefox"),
            disabled_codecs: DisabledCodecs::of(info),
        }
    }
}

/// The order in which LiveKit lists codecs.
const CODEC_ORDER: [Codec; 9] = [
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

fn codec(mime: &str) -> proto::Codec {
    proto::Codec { mime: mime.to_owned(), fmtp_line: String::new() }
}

impl Server {
    fn in_order(enabled: &[Codec], kind: Option<TrackKind>) -> impl Iterator<Item = Codec> {
        CODEC_ORDER
            .into_iter()
            .filter(move |known| kind.is_none_or(|kind| known.kind() == kind))
            .filter(|known| enabled.contains(known))
    }

    /// `Room.enabled_codecs`.
    pub fn enabled_codecs(&self) -> Vec<proto::Codec> {
        let codecs = Self::in_order(&self.codecs, None).map(|known| codec(known.mime_type()));
        codecs.chain([codec("video/rtx")]).collect()
    }

    /// What a client may publish, in the order of preference: video first.
    pub fn publishable(&self, client: &Client) -> Vec<Codec> {
        let codecs = client.disabled_codecs.published(&self.codecs);
        let video = Self::in_order(&codecs, Some(TrackKind::Video));
        video.chain(Self::in_order(&codecs, Some(TrackKind::Audio))).collect()
    }

    /// `JoinResponse.enabled_publish_codecs`.
    pub fn enabled_publish_codecs(&self, client: &Client) -> Vec<proto::Codec> {
        let codecs = self.publishable(client);
        codecs.into_iter().map(|known| codec(known.mime_type())).collect()
    }

    /// `ServerInfo`.
    pub fn info(&self) -> proto::ServerInfo {
        proto::ServerInfo {
            version: COMPATIBLE_VERSION.to_owned(),
            protocol: PROTOCOL,
            region: self.region.clone(),
            node_id: self.node_id.clone(),
            agent_protocol: AGENT_PROTOCOL,
            ..Default::default()
        }
    }

    /// `Room` as it stands, without the counts, as `join` gives it.
    pub fn room(&self, room: &Room, turn_password: &str) -> proto::Room {
        let settings = room.settings();
        let seconds = |time: std::time::Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        proto::Room {
            sid: room.sid().to_string(),
            name: room.name().to_string(),
            empty_timeout: seconds(settings.empty_timeout),
            departure_timeout: seconds(settings.departure_timeout),
            max_participants: settings.max_participants,
            creation_time: room.created_unix().as_secs() as i64,
            creation_time_ms: room.created_unix().as_millis() as i64,
            turn_password: turn_password.to_owned(),
            enabled_codecs: self.enabled_codecs(),
            metadata: settings.metadata.clone(),
            active_recording: room.active_recording(),
            ..Default::default()
        }
    }

    /// `Room` with its counts.
    pub fn room_with_counts(&self, room: &Room, turn_password: &str) -> proto::Room {
        proto::Room {
            num_participants: room.num_participants(),
            num_publishers: room.num_publishers(),
            ..self.room(room, turn_password)
        }
    }

    fn ice_servers_of(&self, sid: &ParticipantSid, unix: Duration) -> Vec<proto::IceServer> {
        self.ice_servers.iter().map(|server| server.of(sid.as_str(), unix)).collect()
    }

    /// The first message of a session that goes on: `last_sequence` is the number of the last
    /// reliable packet that came from the client, 0 for none.
    pub fn reconnect(
        &self,
        client: &Client,
        sid: &ParticipantSid,
        last_sequence: u32,
        unix: Duration,
    ) -> Message {
        Message::Reconnect(proto::ReconnectResponse {
            ice_servers: self.ice_servers_of(sid, unix),
            client_configuration: client.disabled_codecs.configuration(),
            server_info: Some(self.info()),
            last_message_seq: last_sequence,
        })
    }

    /// The first message of a session.
    pub fn join(
        &self,
        room: &Room,
        this: &Participant,
        client: &Client,
        secrets: &RoomSecrets<'_>,
        unix: Duration,
    ) -> Join {
        let others = room
            .participants()
            .filter(|other| other.info.sid != this.info.sid && !other.info.permissions.hidden);
        Join(proto::JoinResponse {
            room: Some(self.room(room, secrets.turn_password)),
            participant: Some(participant_info(this, &self.region)),
            other_participants: others.map(|other| participant_info(other, &self.region)).collect(),
            server_version: COMPATIBLE_VERSION.to_owned(),
            ice_servers: self.ice_servers_of(&this.info.sid, unix),
            server_region: self.region.clone(),
            ping_timeout: PING_TIMEOUT_SECONDS,
            ping_interval: PING_INTERVAL_SECONDS,
            server_info: Some(self.info()),
            sif_trailer: secrets.sif_trailer.to_vec(),
            enabled_publish_codecs: self.enabled_publish_codecs(client),
            client_configuration: client.disabled_codecs.configuration(),
            fast_publish: this.info.permissions.can_publish,
            ..Default::default()
        })
    }
}

/// Random values that every participant of a room is told.
#[derive(Clone, Copy, Debug)]
pub struct RoomSecrets<'a> {
    /// `Room.turn_password`.
    pub turn_password: &'a str,
    /// Marks frames that the server makes in encrypted tracks.
    pub sif_trailer: &'a [u8],
}

/// A `join` to be finished with what depends on the connection.
#[derive(Clone, PartialEq, Debug)]
pub struct Join(proto::JoinResponse);

impl Join {
    /// The message; `subscriber_primary` when the server offers the connection that counts,
    /// `is_fallback` when the participant is to use another protocol than UDP.
    pub fn message(mut self, subscriber_primary: bool, is_fallback: bool) -> Message {
        self.0.subscriber_primary = subscriber_primary;
        if is_fallback {
            self.0.fast_publish = false;
            self.0.client_configuration.get_or_insert_default();
        }
        Message::Join(self.0)
    }
}

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

/// `leave`. After a mismatch of state or a lost connection the client shall come back anew.
pub fn leave(reason: DisconnectReason) -> Message {
    use proto::leave_request::Action;
    let action = match reason {
        DisconnectReason::StateMismatch
        | DisconnectReason::ConnectionTimeout
        | DisconnectReason::MediaFailure => Action::Reconnect,
        _ => Action::Disconnect,
    };
    Message::Leave(proto::LeaveRequest {
        reason: disconnect_reason(reason).into(),
        action: action.into(),
        ..Default::default()
    })
}

/// `leave` of a participant that shall begin anew in another room, for which it has a token.
pub fn leave_for_room(reason: DisconnectReason) -> Message {
    Message::Leave(proto::LeaveRequest {
        reason: disconnect_reason(reason).into(),
        action: proto::leave_request::Action::Reconnect.into(),
        ..Default::default()
    })
}

/// `leave` that asks the client to resume.
pub fn resume(reason: DisconnectReason) -> Message {
    Message::Leave(proto::LeaveRequest {
        reason: disconnect_reason(reason).into(),
        action: proto::leave_request::Action::Resume.into(),
        ..Default::default()
    })
}

/// `subscribed_quality_update`: which qualities of each codec of a track are wanted, by position
/// of the codec and the highest quality wanted of it. The first is what old clients look at.
pub fn subscribed_quality(track: &Track, wanted: &[(usize, Option<Quality>)]) -> Message {
    let codec = |&(index, wanted): &(usize, Option<Quality>)| {
        let codec = track.codecs.get(index)?;
        let qualities = codec.wanted_qualities(wanted).map(|(quality, enabled)| {
            let quality = match quality {
                Quality::Low => proto::VideoQuality::Low,
                Quality::Medium => proto::VideoQuality::Medium,
                Quality::High | Quality::Off => proto::VideoQuality::High,
            };
            proto::SubscribedQuality { quality: quality.into(), enabled }
        });
        Some(proto::SubscribedCodec { codec: codec_name(codec), qualities: qualities.to_vec() })
    };
    let codecs: Vec<_> = wanted.iter().filter_map(codec).collect();
    #[allow(deprecated)]
    Message::SubscribedQualityUpdate(proto::SubscribedQualityUpdate {
        track_sid: track.sid.to_string(),
        subscribed_qualities: codecs.first().map_or(Vec::new(), |codec| codec.qualities.clone()),
        subscribed_codecs: codecs,
    })
}

/// `subscribed_audio_codec_update`: which codecs of a sound are wanted, by position.
pub fn subscribed_audio_codecs(track: &Track, wanted: &[(usize, bool)]) -> Message {
    let codec = |&(index, enabled): &(usize, bool)| {
        let codec = codec_name(track.codecs.get(index)?);
        Some(proto::SubscribedAudioCodec { codec, enabled })
    };
    Message::SubscribedAudioCodecUpdate(proto::SubscribedAudioCodecUpdate {
        track_sid: track.sid.to_string(),
        subscribed_audio_codecs: wanted.iter().filter_map(codec).collect(),
    })
}

/// `vp8` of `video/VP8`.
fn codec_name(codec: &TrackCodec) -> String {
    let name = codec.mime_type.to_lowercase();
    name.split_once('/').map_or(name.clone(), |(_, name)| name.to_owned())
}

/// `trickle` of one of our candidates.
pub fn trickle(candidate: &str, target: proto::SignalTarget, is_final: bool) -> Message {
    let candidate = serde_json::Value::from(candidate);
    Message::Trickle(proto::TrickleRequest {
        candidate_init: format!(
            r#"{{"candidate":{candidate},"sdpMid":"0","sdpMLineIndex":0,"usernameFragment":null}}"#
        ),
        target: target.into(),
        r#final: is_final,
    })
}

/// `offer` or `answer`.
pub fn session_description(
    kind: &str,
    sdp: String,
    id: u32,
    mid_to_track_id: impl IntoIterator<Item = (String, String)>,
) -> proto::SessionDescription {
    proto::SessionDescription {
        r#type: kind.to_owned(),
        sdp,
        id,
        mid_to_track_id: mid_to_track_id.into_iter().collect(),
    }
}

/// `request_response` to one request.
pub fn request_response(
    request_id: u32,
    reason: Reason,
    message: impl Into<String>,
    request: Option<Request>,
) -> Message {
    Message::RequestResponse(proto::RequestResponse {
        request_id,
        reason: reason.into(),
        message: message.into(),
        request,
    })
}

/// `subscription_permission_update`.
pub fn subscription_permission(publisher: &str, track: &TrackSid, allowed: bool) -> Message {
    Message::SubscriptionPermissionUpdate(proto::SubscriptionPermissionUpdate {
        participant_sid: publisher.to_owned(),
        track_sid: track.to_string(),
        allowed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::leave_request::Action;

    fn client(protocol: i32, sdk: Sdk) -> Client {
        Client { protocol, sdk, firefox: false, disabled_codecs: DisabledCodecs::default() }
    }

    #[test]
    fn old_clients_learn_of_a_reconnect_by_the_old_flag() {
        let Some(Message::Leave(leave)) =
            client(12, Sdk::Js).adapt(leave(DisconnectReason::StateMismatch))
        else {
            panic!()
        };
        assert!(leave.can_reconnect);
        assert_eq!(leave.action(), Action::Disconnect);
        let resume = proto::LeaveRequest { action: Action::Resume.into(), ..Default::default() };
        assert_eq!(client(12, Sdk::Js).adapt(Message::Leave(resume.clone())), None);
        assert!(client(13, Sdk::Js).adapt(Message::Leave(resume)).is_some());
    }

    #[test]
    fn versions_decide_what_is_said() {
        let ok = || request_response(1, Reason::Ok, "", None);
        assert_eq!(client(14, Sdk::Js).adapt(ok()), None);
        assert!(client(15, Sdk::Js).adapt(ok()).is_some());
        let refusal = || request_response(1, Reason::NotAllowed, "", None);
        assert!(client(14, Sdk::Js).adapt(refusal()).is_some());
        assert_eq!(client(9, Sdk::Rust).adapt(refusal()), None);
        let ended =
            Message::TrackUnpublished(proto::TrackUnpublishedResponse { track_sid: "TR_1".into() });
        let Some(Message::Mute(mute)) = client(6, Sdk::Js).adapt(ended) else { panic!() };
        assert_eq!((mute.sid.as_str(), mute.muted), ("TR_1", true));
    }

    #[test]
    fn trickles_have_the_recorded_form() {
        let Message::Trickle(trickle) = trickle(
            "candidate:1 1 udp 2130706431 10.0.0.1 7882 typ host ufrag abc",
            0.try_into().unwrap(),
            true,
        ) else {
            panic!()
        };
        assert_eq!(
            trickle.candidate_init,
            r#"{"candidate":"candidate:1 1 udp 2130706431 10.0.0.1 7882 typ host ufrag abc","sdpMid":"0","sdpMLineIndex":0,"usernameFragment":null}"#
        );
        assert!(trickle.r#final);
    }

    #[test]
    fn codecs_are_listed_in_livekit_order() {
        let server =
            Server { codecs: vec![Codec::Vp8, Codec::Red, Codec::Opus], ..Server::default() };
        let mimes = |codecs: Vec<proto::Codec>| {
            codecs.into_iter().map(|codec| codec.mime).collect::<Vec<_>>()
        };
        assert_eq!(
            mimes(server.enabled_codecs()),
            ["audio/opus", "audio/red", "video/VP8", "video/rtx"]
        );
        assert_eq!(
            mimes(server.enabled_publish_codecs(&client(17, Sdk::Js))),
            ["video/VP8", "audio/opus", "audio/red"]
        );
    }
}
