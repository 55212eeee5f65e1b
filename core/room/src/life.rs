//! Coming, changing, going, and the end of a room.

use crate::{
    Audience, DEPARTED_MAX, DEPARTED_TTL, Event, LARGE_ROOM_PARTICIPANTS, NewParticipant,
    Participant, ParticipantChange, ROOM_UPDATE_DELAY, Refusal, Room, State, UPDATE_DELAY,
    UPDATE_INTERVAL, UPDATE_INTERVAL_MAX,
};
use parlor_model::{DisconnectReason, Now, ParticipantSid};
use std::time::{Duration, Instant};

impl Room {
    pub(crate) fn join(&mut self, now: Now, new: NewParticipant) -> Result<(), Refusal> {
        let replaced = self.by_identity.get(&new.identity).cloned();
        let participant = Participant::new(new, now.unix.as_millis() as i64);
        let max_participants = self.settings.max_participants;
        if max_participants > 0 && !participant.is_dependent() {
            let others = self.participants.values();
            let others = others.filter(|p| Some(&p.info.sid) != replaced.as_ref());
            if others.filter(|p| !p.is_dependent()).count() >= max_participants as usize {
                return Err(Refusal::RoomFull { max_participants });
            }
        }
        if let Some(old) = replaced {
            self.remove(now, &old, DisconnectReason::DuplicateIdentity, false);
        }
        // Clients know others by identity: the old one has to be gone first.
        let mut untold = self.departed.iter().rev().take(self.untold_departures);
        if untold.any(|(_, gone)| gone.info.identity == participant.info.identity) {
            self.flush_updates(now.instant);
        }
        let sid = participant.info.sid.clone();
        if !participant.is_dependent() {
            self.vacant_since = None;
        }
        self.by_identity.insert(participant.info.identity.clone(), sid.clone());
        self.participants.insert(sid, participant);
        self.counts_changed(now.instant);
        Ok(())
    }

    pub(crate) fn set_joined(&mut self, now: Now, sid: &ParticipantSid) -> Result<(), Refusal> {
        self.advance(now, sid, State::Joined)?;
        self.resolve_subscriber(sid);
        self.offer_data_tracks_to(sid);
        Ok(())
    }

    pub(crate) fn set_active(&mut self, now: Now, sid: &ParticipantSid) -> Result<(), Refusal> {
        self.advance(now, sid, State::Active)
    }

    pub(crate) fn advance(
        &mut self,
        now: Now,
        sid: &ParticipantSid,
        state: State,
    ) -> Result<(), Refusal> {
        let participant = self.member_mut(sid)?;
        if participant.state >= state {
            return Ok(());
        }
        participant.state = state;
        participant.version += 1;
        if participant.is_publisher {
            self.tell(sid);
        } else {
            self.tell_later(now, sid);
        }
        Ok(())
    }

    fn tell_later(&mut self, now: Now, sid: &ParticipantSid) {
        self.pending_updates.entry(sid.clone()).or_insert(self.next_update);
        self.next_update += 1;
        // At once for the first in a while, and from then on as seldom as the room is large.
        let soon = now.instant + UPDATE_DELAY;
        let next = self.updated.map(|last| last + self.update_interval());
        self.updates_due.get_or_insert(next.map_or(soon, |next| next.max(soon)));
    }

    pub(crate) fn leave(
        &mut self,
        now: Now,
        sid: &ParticipantSid,
        reason: DisconnectReason,
    ) -> Result<(), Refusal> {
        self.member(sid)?;
        self.remove(now, sid, reason, true);
        self.events.push_back(Event::RoomUpdated);
        self.room_update_due = None;
        Ok(())
    }

    /// Takes a participant out. The others are not told when the same identity takes its place.
    fn remove(
        &mut self,
        now: Now,
        sid: &ParticipantSid,
        reason: DisconnectReason,
        tell_others: bool,
    ) {
        let Some(mut gone) = self.participants.remove(sid) else { return };
        self.by_identity.remove(&gone.info.identity);
        self.pending_updates.remove(sid);
        for track in std::mem::take(&mut gone.tracks) {
            self.publishers.remove(&track.sid);
            self.drop_subscriptions_to(&track.sid);
            let (participant, track) = (sid.clone(), track.sid);
            self.events.push_back(Event::TrackEnded { participant, track, by_server: false });
        }
        self.subscriptions.retain(|(subscriber, _), _| subscriber != sid);
        self.data_subscriptions.retain(|(subscriber, _), _| subscriber != sid);
        let data_tracks = std::mem::take(&mut gone.data_tracks);
        self.drop_data_subscriptions(|_, track| data_tracks.iter().any(|gone| gone.sid == *track));
        gone.state = State::Disconnected;
        gone.version += 1;
        gone.disconnect_reason = Some(reason);
        let (hidden, dependent) = (gone.info.permissions.hidden, gone.is_dependent());
        let is_publisher = gone.is_publisher;
        if self.departed.len() == DEPARTED_MAX {
            self.departed.pop_front();
        }
        self.departed.push_back((now.instant, gone));
        self.events.push_back(Event::Left { participant: sid.clone(), reason });
        if tell_others && !hidden {
            self.tell_of_departure(now, sid, is_publisher);
        }
        if !dependent && self.num_participants() == 0 {
            self.vacant_since = Some(now.instant);
        }
        self.counts_changed(now.instant);
    }

    /// At once, but that in a large room those who publish nothing are collected: when it empties,
    /// what each is told of the others grows with its square.
    fn tell_of_departure(&mut self, now: Now, sid: &ParticipantSid, is_publisher: bool) {
        if is_publisher || self.participants.len() < LARGE_ROOM_PARTICIPANTS {
            let audience = Audience::Everyone;
            self.events.push_back(Event::Updated { participants: vec![sid.clone()], audience });
        } else {
            self.tell_later(now, sid);
        }
        let collects = self.untold_departures > 0 || self.pending_updates.contains_key(sid);
        self.untold_departures += usize::from(collects);
        // They have to be told of while they can still be looked up.
        if self.untold_departures >= DEPARTED_MAX / 2 {
            self.flush_updates(now.instant);
        }
    }

    pub(crate) fn update_participant(
        &mut self,
        now: Now,
        sid: &ParticipantSid,
        change: ParticipantChange,
    ) -> Result<(), Refusal> {
        self.member(sid)?;
        // Each kind of change is a version of its own, as clients have met it.
        let (name, metadata) = (change.name, change.metadata);
        let pieces = [
            ParticipantChange { name, ..Default::default() },
            ParticipantChange { metadata, ..Default::default() },
            ParticipantChange { attributes: change.attributes, ..Default::default() },
            ParticipantChange { permissions: change.permissions, ..Default::default() },
        ];
        let changed = pieces.map(|piece| self.apply_change(now, sid, piece)).contains(&true);
        if changed {
            self.events.push_back(Event::GrantsChanged { participant: sid.clone() });
        }
        Ok(())
    }

    /// Returns whether anything changed.
    fn apply_change(&mut self, now: Now, sid: &ParticipantSid, change: ParticipantChange) -> bool {
        let Some(participant) = self.participants.get_mut(sid) else { return false };
        let info = &mut participant.info;
        let before = info.clone();
        if let Some(name) = change.name {
            info.name = name;
        }
        if let Some(metadata) = change.metadata {
            info.metadata = metadata;
        }
        for (key, value) in change.attributes {
            if value.is_empty() {
                info.attributes.remove(&key);
            } else {
                info.attributes.insert(key, value);
            }
        }
        if let Some(permissions) = change.permissions {
            info.permissions = permissions;
        }
        if *info == before {
            return false;
        }
        let permissions_changed = info.permissions != before.permissions;
        participant.version += 1;
        if permissions_changed {
            self.permissions_changed(now, sid, &before);
        }
        self.tell(sid);
        if permissions_changed {
            self.withdraw_forbidden_tracks(now, sid);
            self.withdraw_data_tracks(sid);
            self.resolve_subscriber(sid);
            self.resolve_data(|subscriber, _| subscriber == sid);
        }
        true
    }

    fn permissions_changed(&mut self, now: Now, sid: &ParticipantSid, before: &NewParticipant) {
        let Some(participant) = self.participants.get_mut(sid) else { return };
        let permissions = &participant.info.permissions;
        if permissions.can_publish && !before.permissions.can_publish {
            participant.is_publisher = true;
        }
        if permissions.hidden && !before.permissions.hidden {
            let audience = Audience::Except(sid.clone());
            self.events.push_back(Event::Updated { participants: vec![sid.clone()], audience });
        }
        self.counts_changed(now.instant);
    }

    /// Tells everybody of a change at once; of a hidden participant only itself.
    pub(crate) fn tell(&mut self, sid: &ParticipantSid) {
        self.pending_updates.remove(sid);
        let hidden = self.participants.get(sid).is_some_and(|p| p.info.permissions.hidden);
        let audience = if hidden { Audience::Only(sid.clone()) } else { Audience::Everyone };
        self.events.push_back(Event::Updated { participants: vec![sid.clone()], audience });
    }

    pub(crate) fn counts_changed(&mut self, now: Instant) {
        self.room_update_due.get_or_insert(now + ROOM_UPDATE_DELAY);
    }

    pub(crate) fn close(&mut self, now: Now, reason: DisconnectReason) {
        let everybody: Vec<_> = self.participants.keys().cloned().collect();
        for sid in everybody {
            self.remove(now, &sid, reason, false);
        }
        self.closed = true;
        self.events.push_back(Event::Closed);
    }

    /// When [`Room::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.closed {
            return None;
        }
        let departed = self.departed.front().map(|(left, _)| *left + DEPARTED_TTL);
        [self.updates_due, self.room_update_due, self.idle_deadline(), departed]
            .into_iter()
            .flatten()
            .min()
    }

    /// How long everybody is left alone between two batches, by the size of the room.
    fn update_interval(&self) -> Duration {
        let participants = u32::try_from(self.participants.len()).unwrap_or(u32::MAX);
        UPDATE_INTERVAL.saturating_mul(participants).min(UPDATE_INTERVAL_MAX)
    }

    fn idle_deadline(&self) -> Option<Instant> {
        if self.participants.values().any(|participant| !participant.is_dependent()) {
            return None;
        }
        Some(match self.vacant_since {
            Some(since) => since + self.settings.departure_timeout,
            None => self.empty_until,
        })
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.closed {
            return;
        }
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now.instant);
        while self.departed.front().is_some_and(|(left, _)| *left + DEPARTED_TTL <= now.instant) {
            self.departed.pop_front();
        }
        let mut room_is_due = is_due(self.room_update_due);
        if is_due(self.updates_due) {
            self.flush_updates(now.instant);
            // What would follow soon goes along: it is one write for each who is told.
            let soon = now.instant + ROOM_UPDATE_DELAY / 2;
            room_is_due |= self.room_update_due.is_some_and(|due| due <= soon);
        }
        if room_is_due {
            self.room_update_due = None;
            self.events.push_back(Event::RoomUpdated);
        }
        if is_due(self.idle_deadline()) {
            self.close(now, DisconnectReason::RoomClosed);
        }
    }

    fn flush_updates(&mut self, now: Instant) {
        self.updates_due = None;
        self.untold_departures = 0;
        let mut changed: Vec<_> = std::mem::take(&mut self.pending_updates).into_iter().collect();
        if !changed.is_empty() {
            self.updated = Some(now);
        }
        changed.sort_by_key(|(_, place)| *place);
        let (hidden, visible): (Vec<_>, Vec<_>) = changed
            .into_iter()
            .map(|(sid, _)| sid)
            .partition(|sid| self.participants.get(sid).is_some_and(|p| p.info.permissions.hidden));
        if !visible.is_empty() {
            let audience = Audience::Everyone;
            self.events.push_back(Event::Updated { participants: visible, audience });
        }
        for sid in hidden {
            let audience = Audience::Only(sid.clone());
            self.events.push_back(Event::Updated { participants: vec![sid], audience });
        }
    }
}
