//! Participants that come from other rooms: as a likeness that follows them, or for good.

use crate::{Participant, ParticipantChange, Refusal, Room, Track};
use parlor_model::{Now, ParticipantSid};

impl Room {
    /// Whether `sid` shows what `source`, somebody in another room, shows of itself there.
    pub fn is_like(&self, sid: &ParticipantSid, source: &Participant) -> bool {
        let Some(likeness) = self.participants.get(sid) else { return false };
        let (ours, theirs) = (&likeness.info, &source.info);
        let same_info = (&ours.name, &ours.metadata, &ours.attributes, &ours.permissions)
            == (&theirs.name, &theirs.metadata, &theirs.attributes, &theirs.permissions);
        same_info
            && likeness.state >= source.state
            && likeness.is_publisher == source.is_publisher
            && likeness.policy == source.policy
            && likeness.tracks.len() == source.published_tracks().count()
            && source
                .published_tracks()
                .all(|track| likeness.track(&track.sid) == Some(&of(sid, track.clone())))
    }

    /// Takes over what somebody in another room shows of itself. Its tracks keep their ids; what
    /// has not come yet is nobody's business here.
    pub(crate) fn mirror(
        &mut self,
        now: Now,
        sid: &ParticipantSid,
        source: Participant,
    ) -> Result<(), Refusal> {
        let likeness = self.member(sid)?;
        let gone = |track: &&Track| !source.track(&track.sid).is_some_and(Track::is_published);
        let gone = likeness.tracks.iter().filter(gone).map(|track| track.sid.clone());
        let gone: Vec<_> = gone.collect();
        let removed = likeness.info.attributes.keys().map(|key| (key.clone(), String::new()));
        let mut attributes: std::collections::BTreeMap<_, _> = removed.collect();
        attributes.extend(source.info.attributes.clone());
        for track in gone {
            self.end_track(now, sid, &track, false);
        }
        let change = ParticipantChange {
            name: Some(source.info.name.clone()),
            metadata: Some(source.info.metadata.clone()),
            attributes,
            permissions: Some(source.info.permissions.clone()),
        };
        self.update_participant(now, sid, change)?;
        if self.member(sid)?.policy != source.policy {
            self.set_policy(sid, source.policy.clone())?;
        }
        self.advance(now, sid, source.state)?;
        for track in source.published_tracks() {
            self.mirror_track(now, sid, of(sid, track.clone()));
        }
        self.member_mut(sid)?.is_publisher = source.is_publisher;
        Ok(())
    }

    fn mirror_track(&mut self, now: Now, sid: &ParticipantSid, track: Track) {
        let Some(likeness) = self.participants.get_mut(sid) else { return };
        let Some(known) = likeness.tracks.iter_mut().find(|known| known.sid == track.sid) else {
            return self.take_published(now, sid, track);
        };
        if *known == track {
            return;
        }
        let (id, muted) = (track.sid.clone(), track.muted);
        let turned = std::mem::replace(known, track).muted != muted;
        if turned {
            let (participant, track) = (sid.clone(), id.clone());
            self.events.push_back(crate::Event::TrackMuted { participant, track, muted });
        }
        self.track_changed(sid, &id);
    }

    /// Gives somebody who has come from another room what it published there.
    pub(crate) fn adopt(
        &mut self,
        now: Now,
        sid: &ParticipantSid,
        from: Participant,
    ) -> Result<(), Refusal> {
        let member = self.member_mut(sid)?;
        member.is_publisher = from.is_publisher;
        member.policy = from.policy;
        member.queued = from.queued;
        for track in from.tracks {
            let track = of(sid, track);
            if track.is_published() {
                self.take_published(now, sid, track);
            } else {
                self.publishers.insert(track.sid.clone(), sid.clone());
                self.member_mut(sid)?.tracks.push(track);
            }
        }
        for track in from.data_tracks {
            self.publish_data_track(now, sid, track)?;
        }
        Ok(())
    }

    fn take_published(&mut self, now: Now, sid: &ParticipantSid, track: Track) {
        let Some(member) = self.participants.get_mut(sid) else { return };
        let id = track.sid.clone();
        member.tracks.push(track);
        self.publishers.insert(id.clone(), sid.clone());
        self.tell_published(now, sid, &id);
    }
}

fn of(publisher: &ParticipantSid, track: Track) -> Track {
    Track { publisher: publisher.clone(), ..track }
}
