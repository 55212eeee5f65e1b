//! Who speaks, and how loud: told as it changes.

use crate::{host::Host, node::Node, outside::Outside};
use livekit_protocol as proto;
use parlor_model::{Now, ParticipantSid, RoomName, TrackSid, TrackSource};
use parlor_sfu::command::TrackLevel;
use proto::signal_response::Message;
use std::collections::{BTreeMap, BTreeSet};

/// Loudness in a room, in eighths.
#[derive(Debug, Default)]
pub(crate) struct Speakers {
    /// Of tracks that are not silent.
    levels: BTreeMap<TrackSid, u8>,
    /// Of participants, as it was told last; the silent are left out.
    told: BTreeMap<ParticipantSid, u8>,
}

impl Node {
    /// What a shard has measured, room by room.
    pub(crate) fn audio_levels(&mut self, now: Now, levels: &[TrackLevel]) {
        let mut rooms: BTreeMap<RoomName, Vec<(TrackSid, u8)>> = BTreeMap::new();
        for level in levels {
            let Some((address, track)) = self.outside.tracks.get(&level.track) else { continue };
            let forwarded = self.forwards.iter().filter(|forward| forward.source == address.room);
            let further = forwarded.map(|forward| &forward.destination);
            let heard_in: BTreeSet<_> = further.chain([&address.room]).collect();
            for room in heard_in {
                let of_room = rooms.entry(room.clone()).or_default();
                of_room.push((track.clone(), level.eighths));
            }
        }
        for (room, levels) in rooms {
            self.with_host(now, &room, |host, outside| {
                for (track, eighths) in levels {
                    host.speakers.levels.insert(track, eighths);
                }
                host.tell_speakers(outside);
            });
        }
    }
}

impl Host {
    /// Tells everybody what has changed of those that it hears, and of itself. A speaker that has
    /// fallen silent is told once, by its sid alone.
    pub(crate) fn tell_speakers(&mut self, cx: &mut Outside) {
        let room = &self.room;
        self.speakers.levels.retain(|track, level| *level > 0 && room.track(track).is_some());
        let mut loud = BTreeMap::new();
        for (track, level) in &self.speakers.levels {
            let Some(track) = room.track(track) else { continue };
            if track.announced.source == TrackSource::Microphone {
                let loudest = loud.entry(track.publisher.clone()).or_insert(*level);
                *loudest = (*loudest).max(*level);
            }
        }
        let before = std::mem::replace(&mut self.speakers.told, loud.clone());
        let mut changed: Vec<(&ParticipantSid, u8)> = loud
            .iter()
            .map(|(sid, level)| (sid, *level))
            .filter(|(sid, level)| before.get(*sid) != Some(level))
            .chain(before.keys().filter(|sid| !loud.contains_key(*sid)).map(|sid| (sid, 0)))
            .collect();
        changed.sort_by_key(|(_, level)| std::cmp::Reverse(*level));
        if changed.is_empty() {
            return;
        }
        for listener in self.members.keys() {
            let speakers: Vec<proto::SpeakerInfo> = changed
                .iter()
                .filter(|(sid, _)| *sid == listener || self.is_subscribed_to(listener, sid))
                .map(|(sid, level)| proto::SpeakerInfo {
                    sid: sid.to_string(),
                    level: f32::from(*level) / 8.0,
                    active: *level > 0,
                })
                .collect();
            if !speakers.is_empty() {
                let message = Message::SpeakersChanged(proto::SpeakersChanged { speakers });
                self.send(cx, listener, message);
            }
        }
    }

    /// Whether a participant is sent any track of another.
    pub(crate) fn is_subscribed_to(
        &self,
        subscriber: &ParticipantSid,
        publisher: &ParticipantSid,
    ) -> bool {
        self.publishers_to(subscriber).any(|other| other == publisher)
    }

    /// Whose tracks a participant is sent, once for each track.
    pub(crate) fn publishers_to(
        &self,
        subscriber: &ParticipantSid,
    ) -> impl Iterator<Item = &ParticipantSid> {
        let tracks = self.members.get(subscriber).into_iter();
        let tracks = tracks.flat_map(|member| member.subscriptions.keys());
        tracks.filter_map(|track| self.room.track(track).map(|track| &track.publisher))
    }
}
