//! Announcing, publishing, muting and ending tracks.

use crate::{Event, NewTrack, Refusal, Room, Track};
use parlor_model::{Now, ParticipantSid, TrackKind, TrackSid};

/// Most announced tracks of a participant whose media has not come yet.
pub const PENDING_TRACKS_MAX: usize = 20;
/// Most announcements of a participant that wait for the end of a track with the same cid.
pub const QUEUED_TRACKS_MAX: usize = 3;
/// Most tracks of a participant.
pub const TRACKS_MAX: usize = 256;

impl Room {
    pub(crate) fn add_track(
        &mut self,
        participant: &ParticipantSid,
        sid: TrackSid,
        mut new: NewTrack,
    ) -> Result<(), Refusal> {
        let publisher = self.member_mut(participant)?;
        let cid = new.cid.clone();
        if let Some(existing) = new.sid.take() {
            let track = publisher.tracks.iter_mut().find(|track| track.sid == existing);
            let track = track.ok_or_else(|| Refusal::NoTrack(existing.clone()))?;
            track.add_codecs(new.codecs);
            let (participant, track) = (participant.clone(), existing);
            self.events.push_back(Event::TrackAdded { participant, track, cid });
            return Ok(());
        }
        if !publisher.info.permissions.may_publish(new.source) {
            return Err(Refusal::NotAllowed);
        }
        let kind = new.kind.ok_or(Refusal::UnsupportedType)?;
        if publisher.tracks.iter().any(|track| track.has_cid(&cid)) {
            if publisher.queued.len() >= QUEUED_TRACKS_MAX {
                return Err(Refusal::LimitExceeded {
                    what: "queued tracks",
                    limit: QUEUED_TRACKS_MAX,
                });
            }
            publisher.queued.push((sid, new));
            return Err(Refusal::Queued);
        }
        let pending = publisher.tracks.iter().filter(|track| !track.is_published()).count();
        if pending >= PENDING_TRACKS_MAX {
            let limit = PENDING_TRACKS_MAX;
            return Err(Refusal::LimitExceeded { what: "pending tracks", limit });
        }
        if publisher.tracks.len() >= TRACKS_MAX {
            return Err(Refusal::LimitExceeded { what: "tracks", limit: TRACKS_MAX });
        }
        self.take_track(participant, sid, kind, new);
        Ok(())
    }

    fn take_track(
        &mut self,
        participant: &ParticipantSid,
        sid: TrackSid,
        kind: TrackKind,
        new: NewTrack,
    ) {
        let Some(publisher) = self.participants.get_mut(participant) else { return };
        let cid = new.cid.clone();
        publisher.tracks.push(Track::new(sid.clone(), participant.clone(), kind, new));
        self.publishers.insert(sid.clone(), participant.clone());
        let participant = participant.clone();
        self.events.push_back(Event::TrackAdded { participant, track: sid, cid });
    }

    pub(crate) fn publish(
        &mut self,
        now: Now,
        participant: &ParticipantSid,
        track: &TrackSid,
    ) -> Result<(), Refusal> {
        let known = self.track_mut(participant, track)?;
        if known.is_published() {
            return Ok(());
        }
        known.published_unix_micros = Some(now.unix.as_micros() as i64);
        self.tell_published(now, participant, track);
        Ok(())
    }

    /// A track can be seen and subscribed to from now on.
    pub(crate) fn tell_published(
        &mut self,
        now: Now,
        participant: &ParticipantSid,
        track: &TrackSid,
    ) {
        let Some(publisher) = self.participants.get_mut(participant) else { return };
        publisher.version += 1;
        if !publisher.is_publisher {
            publisher.is_publisher = true;
            self.counts_changed(now.instant);
        }
        self.tell(participant);
        let (participant, track) = (participant.clone(), track.clone());
        self.events.push_back(Event::TrackPublished {
            participant: participant.clone(),
            track: track.clone(),
        });
        self.resolve_track(&participant, &track);
    }

    /// Tells of a change of a published track; a pending one is nobody's business yet.
    pub(crate) fn track_changed(&mut self, participant: &ParticipantSid, track: &TrackSid) {
        let Some(publisher) = self.participants.get_mut(participant) else { return };
        if publisher.track(track).is_some_and(Track::is_published) {
            publisher.version += 1;
            self.tell(participant);
        }
    }

    pub(crate) fn set_muted(
        &mut self,
        participant: &ParticipantSid,
        track: &TrackSid,
        muted: bool,
    ) -> Result<(), Refusal> {
        let known = self.track_mut(participant, track)?;
        if known.muted == muted {
            return Ok(());
        }
        known.muted = muted;
        let (who, what) = (participant.clone(), track.clone());
        self.events.push_back(Event::TrackMuted { participant: who, track: what, muted });
        self.track_changed(participant, track);
        Ok(())
    }

    pub(crate) fn end_track(
        &mut self,
        now: Now,
        participant: &ParticipantSid,
        track: &TrackSid,
        by_server: bool,
    ) {
        let Some(publisher) = self.participants.get_mut(participant) else { return };
        let Some(index) = publisher.tracks.iter().position(|known| known.sid == *track) else {
            return;
        };
        let ended = publisher.tracks.remove(index);
        let next = publisher.queued.iter().position(|(_, new)| ended.has_cid(&new.cid));
        let next = next.map(|index| publisher.queued.remove(index));
        let was_published = ended.is_published();
        if was_published {
            publisher.version += 1;
        }
        if by_server && publisher.tracks.is_empty() && !publisher.info.permissions.can_publish {
            publisher.is_publisher = false;
        }
        self.publishers.remove(track);
        self.drop_subscriptions_to(track);
        let (who, what) = (participant.clone(), track.clone());
        self.events.push_back(Event::TrackEnded { participant: who, track: what, by_server });
        if was_published {
            self.tell(participant);
            self.counts_changed(now.instant);
        }
        if let Some((sid, new)) = next
            && let Some(kind) = new.kind
        {
            self.take_track(participant, sid, kind, new);
        }
    }

    /// Ends the tracks that the present permissions forbid.
    pub(crate) fn withdraw_forbidden_tracks(&mut self, now: Now, participant: &ParticipantSid) {
        let Some(publisher) = self.participants.get_mut(participant) else { return };
        let permissions = &publisher.info.permissions;
        publisher.queued.retain(|(_, new)| permissions.may_publish(new.source));
        let forbidden: Vec<_> = publisher
            .tracks
            .iter()
            .filter(|track| !permissions.may_publish(track.announced.source))
            .map(|track| track.sid.clone())
            .collect();
        for track in forbidden {
            self.end_track(now, participant, &track, true);
        }
    }
}
