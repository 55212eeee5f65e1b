//! What clients are told, built from the state of a room.

use crate::{
    client::Client,
    frame::join_binary,
    ice::IceServer,
    info::{disconnect_reason, participant_bytes, participant_info},
};
use bytes::Bytes;
use livekit_protocol as proto;
use parlor_model::{Codec, DisconnectReason, ParticipantSid, TrackKind, TrackSid};
use parlor_room::{Participant, Quality, Room, Track, TrackCodec};
use proto::{
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

fn codec(mime: &str) -> proto::Codec {
    proto::Codec { mime: mime.to_owned(), fmtp_line: String::new() }
}

impl Server {
    fn in_order(enabled: &[Codec], kind: Option<TrackKind>) -> impl Iterator<Item = Codec> {
        Codec::ALL
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

    /// The first message of a session, but for who else is there.
    pub fn join(
        &self,
        room: &Room,
        this: &Participant,
        client: &Client,
        secrets: &RoomSecrets<'_>,
        unix: Duration,
    ) -> Join {
        Join(proto::JoinResponse {
            room: Some(self.room(room, secrets.turn_password)),
            participant: Some(participant_info(this, &self.region)),
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
    /// The server offers the connection that counts.
    pub fn subscriber_primary(&mut self) {
        self.0.subscriber_primary = true;
    }

    /// The participant is to use another protocol than UDP.
    pub fn fall_back(&mut self) {
        self.0.fast_publish = false;
        self.0.client_configuration.get_or_insert_default();
    }

    /// The binary message, with everybody else of the room whom `this`, who is in it, may see. What they have
    /// in it is written once, not for each who joins.
    pub fn binary(self, room: &Room, this: &Participant, region: &str) -> Bytes {
        let others = room
            .participants()
            .filter(|other| !other.info.permissions.hidden && !std::ptr::eq(*other, this));
        join_binary(&self.0, others.map(|other| participant_bytes(other, region)))
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
    use crate::device::DisabledCodecs;
    use proto::client_info::Sdk;

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
        let client = Client {
            protocol: 17,
            sdk: Sdk::Js,
            firefox: false,
            disabled_codecs: DisabledCodecs::default(),
        };
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
            mimes(server.enabled_publish_codecs(&client)),
            ["video/VP8", "audio/opus", "audio/red"]
        );
    }
}
