//! What applications are told of a room: LiveKit's webhook events.

use crate::{host::Host, io::Output, outside::Outside};
use livekit_protocol as proto;
use parlor_model::{Now, ParticipantSid, TrackSid};
use parlor_room::{Event, State};
use parlor_signal::info::{participant_info, track_info};
use std::collections::{BTreeMap, BTreeSet};

/// What of a room has been announced, so that each end is told of what had a beginning.
#[derive(Default)]
pub(crate) struct Announced {
    joined: BTreeSet<ParticipantSid>,
    /// Tracks as they were last seen: the room has forgotten one by the time it has ended.
    tracks: BTreeMap<TrackSid, proto::TrackInfo>,
}

impl Host {
    /// The room exists.
    pub(crate) fn announce_started(&self, cx: &mut Outside, now: Now) {
        self.announce_event(cx, now, "room_started", None, None);
    }

    /// Announces what an event of the room means to applications. A participant has joined once
    /// it is active; one that never was has aborted its connection.
    pub(crate) fn announce(&mut self, cx: &mut Outside, now: Now, event: &Event) {
        match event {
            Event::Updated { participants, .. } => {
                for sid in participants {
                    self.announce_joined(cx, now, sid);
                    self.note_tracks(sid);
                }
            }
            Event::TrackPublished { participant, track } => {
                self.announce_joined(cx, now, participant);
                let Some(info) = self.room.track(track).map(track_info) else { return };
                self.announced.tracks.insert(track.clone(), info.clone());
                self.announce_event(cx, now, "track_published", Some(participant), Some(info));
            }
            Event::TrackEnded { participant, track, .. } => {
                let Some(info) = self.announced.tracks.remove(track) else { return };
                self.announce_event(cx, now, "track_unpublished", Some(participant), Some(info));
            }
            Event::Left { participant, .. } => {
                if self.members.get(participant).is_some_and(|member| member.active) {
                    self.announce_joined(cx, now, participant);
                }
                let event = match self.announced.joined.remove(participant) {
                    true => "participant_left",
                    false => "participant_connection_aborted",
                };
                self.announce_event(cx, now, event, Some(participant), None);
            }
            Event::Closed if self.returns => {}
            Event::Closed => self.announce_event(cx, now, "room_finished", None, None),
            _ => {}
        }
    }

    fn announce_joined(&mut self, cx: &mut Outside, now: Now, sid: &ParticipantSid) {
        let is_active = self.members.get(sid).map_or_else(
            // A likeness of somebody in another room has no connection.
            || self.room.participant(sid).is_some_and(|p| p.state == State::Active),
            |member| member.active,
        );
        if is_active && self.announced.joined.insert(sid.clone()) {
            self.announce_event(cx, now, "participant_joined", Some(sid), None);
        }
    }

    fn note_tracks(&mut self, sid: &ParticipantSid) {
        let Some(participant) = self.room.participant(sid) else { return };
        for track in participant.published_tracks() {
            if let Some(known) = self.announced.tracks.get_mut(&track.sid) {
                *known = track_info(track);
            }
        }
    }

    /// Events of tracks name room and participant; the others describe them.
    fn announce_event(
        &self,
        cx: &mut Outside,
        now: Now,
        event: &str,
        participant: Option<&ParticipantSid>,
        track: Option<proto::TrackInfo>,
    ) {
        let names_only = track.is_some() && !cx.config.room_rules.full_room_in_webhooks;
        let room = match names_only {
            false => cx.server.room_with_counts(&self.room, &self.turn_password),
            true => proto::Room {
                sid: self.room.sid().to_string(),
                name: self.room.name().to_string(),
                ..Default::default()
            },
        };
        let participant = participant.and_then(|sid| self.room.participant(sid));
        let participant = participant.map(|participant| match names_only {
            false => participant_info(participant, &cx.config.region),
            true => proto::ParticipantInfo {
                sid: participant.info.sid.to_string(),
                identity: participant.info.identity.to_string(),
                ..Default::default()
            },
        });
        let event = proto::WebhookEvent {
            event: event.to_owned(),
            room: Some(room),
            participant,
            track,
            id: cx.sid("EV_"),
            created_at: now.unix.as_secs() as i64,
            ..Default::default()
        };
        cx.outputs.push_back(Output::Webhook(Box::new(event)));
    }
}
