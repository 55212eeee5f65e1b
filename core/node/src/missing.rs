//! Tracks that a subscriber asks for before they are there.

use crate::{host::Host, outside::Outside};
use livekit_protocol as proto;
use parlor_model::{Now, ParticipantSid, TrackSid};
use parlor_room::Command;
use proto::signal_response::Message;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long a track that does not exist is waited for before its subscriber is told.
pub const TRACK_NOT_FOUND_TIMEOUT: Duration = Duration::from_secs(60);
/// Most tracks that a subscriber waits for.
pub const MISSING_TRACKS_MAX: usize = 64;

/// The tracks that one subscriber waits for, and until when.
#[derive(Debug, Default)]
pub(crate) struct Missing(BTreeMap<TrackSid, Instant>);

impl Missing {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.0.values().min().copied()
    }
}

impl Host {
    /// Remembers which of the tracks that are asked for are not there.
    pub(crate) fn note_missing(
        &mut self,
        now: Now,
        sid: &ParticipantSid,
        tracks: &[TrackSid],
        subscribe: bool,
    ) {
        let Some(member) = self.members.get_mut(sid) else { return };
        for track in tracks {
            if !subscribe {
                member.missing.0.remove(track);
            } else if self.room.track(track).is_none()
                && member.missing.0.len() < MISSING_TRACKS_MAX
            {
                let due = now.instant + TRACK_NOT_FOUND_TIMEOUT;
                member.missing.0.entry(track.clone()).or_insert(due);
            }
        }
    }

    /// A track is there now: who has waited for it subscribes.
    pub(crate) fn found(&mut self, now: Now, track: &TrackSid) {
        let waiting = self.members.values().filter(|member| member.missing.0.contains_key(track));
        let waiting = waiting.map(|member| member.sid.clone());
        for participant in waiting.collect::<Vec<_>>() {
            if let Some(member) = self.members.get_mut(&participant) {
                member.missing.0.remove(track);
            }
            let tracks = vec![track.clone()];
            self.apply(now, Command::Subscribe { participant, tracks, subscribe: true });
        }
    }

    /// Tells a subscriber what it has waited for in vain.
    pub(crate) fn expire_missing(&mut self, cx: &mut Outside, now: Instant, sid: &ParticipantSid) {
        let Some(member) = self.members.get_mut(sid) else { return };
        let all = std::mem::take(&mut member.missing.0).into_iter();
        let (over, waiting): (Vec<_>, Vec<_>) = all.partition(|(_, due)| *due <= now);
        member.missing.0 = waiting.into_iter().collect();
        for (track, _) in over {
            let err = proto::SubscriptionError::SeTrackNotfound.into();
            let response = proto::SubscriptionResponse { track_sid: track.to_string(), err };
            self.send(cx, sid, Message::SubscriptionResponse(response));
        }
    }
}
