//! How rooms begin: by a join, by the server API, and with which settings.

use crate::{
    Limits, Node,
    api::{ApiError, ApiErrorCode, ApiResponse},
    calls::{Answer, error, invalid, no_room},
    config::exceeds,
    io::{Output, SessionId},
};
use livekit_protocol as proto;
use parlor_model::{Now, RoomName};
use parlor_room::{PlayoutDelay, RoomSettings};
use parlor_signal::ConnectRequest;
use std::{collections::BTreeMap, time::Duration};

/// What JS clients look for in the answer to a join.
const NO_ROOM: &str = "requested room does not exist";
const OVER_LIMIT: &str = "node has exceeded its configured limit";
const REVOKED: &str = "invalid authorization token: token has been revoked";

/// A join that is refused before it reaches a room.
type Refused = (u16, String);

impl Node {
    /// Whether a client would be let in as far as it can be known without letting it in. As with
    /// LiveKit a full room is no reason yet.
    pub(crate) fn validate(&mut self, session: SessionId, request: &ConnectRequest) {
        self.outside.outputs.push_back(match self.admit(request) {
            Ok(()) => Output::Accept { session },
            Err((status, body)) => Output::Refuse { session, status, body },
        });
    }

    /// Whether the token still holds, and its room may exist.
    pub(crate) fn admit(&self, request: &ConnectRequest) -> Result<(), Refused> {
        let (room, claims) = (request.room(), &request.claims);
        if self.is_revoked(room, claims) {
            return Err((401, REVOKED.to_owned()));
        }
        let may_create = claims.video.as_ref().is_some_and(|video| video.room_create);
        let creates = self.outside.config.room_rules.auto_create || may_create;
        if !creates && !self.hosts.contains_key(room) {
            return Err((404, NO_ROOM.to_owned()));
        }
        match self.is_full() {
            true => Err((503, OVER_LIMIT.to_owned())),
            false => Ok(()),
        }
    }

    /// Whether the server carries as much as it may.
    fn is_full(&self) -> bool {
        let limits = &self.outside.config.limits;
        let carried = || {
            let counts = self.counts();
            counts.tracks + counts.subscriptions
        };
        (limits.tracks > 0 && carried() >= limits.tracks)
            || (limits.bytes_per_second > 0 && self.bytes_per_second >= limits.bytes_per_second)
    }

    /// As [`Node::admit`] for who comes by the server API.
    pub(crate) fn check_room_for_more(&self) -> Result<(), ApiError> {
        match self.is_full() {
            true => Err(ApiError {
                code: ApiErrorCode::Internal,
                message: "reached configured limit for node".to_owned(),
                argument: None,
            }),
            false => Ok(()),
        }
    }

    /// Creates the room of a join, if it is not there, as its token says. `false` when the token
    /// names a preset that does not exist.
    pub(crate) fn ensure_room_of(&mut self, now: Now, request: &ConnectRequest) -> bool {
        let claims = &request.claims;
        let configuration = claims.room_config.clone().and_then(|configuration| {
            serde_json::from_value::<proto::RoomConfiguration>(configuration).ok()
        });
        let chosen = configuration.unwrap_or_default();
        let Some(chosen) = self.with_preset(chosen, &claims.room_preset) else { return false };
        let settings = room_settings(&self.outside.config.room, &chosen);
        let name = RoomName::from(request.room());
        if self.ensure_room(now, &name, settings) {
            self.call_agents(now, &name, chosen.agents);
        }
        true
    }

    pub(crate) fn create_room(&mut self, now: Now, request: proto::CreateRoomRequest) -> Answer {
        check(&request, &self.outside.config.limits)?;
        let name = RoomName::from(request.name.as_str());
        let wants_egress = request.egress.as_ref().is_some_and(|egress| egress.room.is_some());
        let chosen = proto::RoomConfiguration {
            empty_timeout: request.empty_timeout,
            departure_timeout: request.departure_timeout,
            max_participants: request.max_participants,
            metadata: request.metadata,
            min_playout_delay: request.min_playout_delay,
            max_playout_delay: request.max_playout_delay,
            sync_streams: request.sync_streams,
            agents: request.agents,
            tags: request.tags,
            ..Default::default()
        };
        let Some(chosen) = self.with_preset(chosen, &request.room_preset) else {
            let text = "unknown room configuration in create room request";
            return Err(error(ApiErrorCode::InvalidArgument, text));
        };
        chosen.agents.iter().try_for_each(|agent| self.check_dispatch(agent))?;
        if wants_egress {
            return Err(error(ApiErrorCode::Internal, "egress not connected (redis required)"));
        }
        self.check_room_for_more()?;
        let settings = room_settings(&self.outside.config.room, &chosen);
        if self.ensure_room(now, &name, settings) {
            self.call_agents(now, &name, chosen.agents);
        }
        self.reschedule(&name);
        if self.hosts.get(&name).is_some_and(|host| !host.is_kept) {
            self.keep_room(&name);
        }
        let host = self.hosts.get(&name).ok_or_else(no_room)?;
        let room = self.outside.server.room_with_counts(&host.room, &host.turn_password);
        Ok(ApiResponse::Room(room))
    }

    /// What was chosen, and for the rest what the preset of this name says; `None` if there is
    /// no such preset.
    fn with_preset(
        &self,
        chosen: proto::RoomConfiguration,
        preset: &str,
    ) -> Option<proto::RoomConfiguration> {
        if preset.is_empty() {
            return Some(chosen);
        }
        let preset = self.outside.config.room_rules.presets.get(preset)?.clone();
        let number = |chosen: u32, preset: u32| if chosen > 0 { chosen } else { preset };
        let mut tags = preset.tags;
        tags.extend(chosen.tags);
        Some(proto::RoomConfiguration {
            empty_timeout: number(chosen.empty_timeout, preset.empty_timeout),
            departure_timeout: number(chosen.departure_timeout, preset.departure_timeout),
            max_participants: number(chosen.max_participants, preset.max_participants),
            min_playout_delay: number(chosen.min_playout_delay, preset.min_playout_delay),
            max_playout_delay: number(chosen.max_playout_delay, preset.max_playout_delay),
            sync_streams: chosen.sync_streams || preset.sync_streams,
            metadata: if chosen.metadata.is_empty() { preset.metadata } else { chosen.metadata },
            agents: if chosen.agents.is_empty() { preset.agents } else { chosen.agents },
            tags,
            ..chosen
        })
    }
}

fn check(request: &proto::CreateRoomRequest, limits: &Limits) -> Result<(), ApiError> {
    if exceeds(request.name.len(), limits.room_name_bytes) {
        let limit = limits.room_name_bytes;
        let text = format!("room name length exceeds limits: max length {limit}");
        return Err(error(ApiErrorCode::InvalidArgument, &text));
    }
    if exceeds(request.metadata.len(), limits.metadata_bytes) {
        return Err(invalid("metadata size exceeds limits", &limits.metadata_bytes.to_string()));
    }
    let tags: BTreeMap<String, String> = request.tags.clone().into_iter().collect();
    let tags: usize = tags.iter().map(|(key, value)| key.len() + value.len()).sum();
    if exceeds(tags, limits.attributes_bytes) {
        return Err(invalid("tags size exceeds limits", &limits.attributes_bytes.to_string()));
    }
    Ok(())
}

/// What is not chosen is as the server's defaults have it.
pub(crate) fn room_settings(
    defaults: &RoomSettings,
    chosen: &proto::RoomConfiguration,
) -> RoomSettings {
    let seconds = |chosen: u32, default: Duration| match chosen {
        0 => default,
        seconds => Duration::from_secs(seconds.into()),
    };
    let delay = PlayoutDelay { min_ms: chosen.min_playout_delay, max_ms: chosen.max_playout_delay };
    RoomSettings {
        empty_timeout: seconds(chosen.empty_timeout, defaults.empty_timeout),
        departure_timeout: seconds(chosen.departure_timeout, defaults.departure_timeout),
        max_participants: match chosen.max_participants {
            0 => defaults.max_participants,
            max_participants => max_participants,
        },
        metadata: chosen.metadata.clone(),
        playout_delay: match delay {
            PlayoutDelay { min_ms: 0, max_ms: 0 } => defaults.playout_delay,
            delay => Some(delay),
        },
        sync_streams: chosen.sync_streams || defaults.sync_streams,
        tags: chosen.tags.clone().into_iter().collect(),
        max_video_subscriptions: defaults.max_video_subscriptions,
        max_audio_subscriptions: defaults.max_audio_subscriptions,
    }
}
