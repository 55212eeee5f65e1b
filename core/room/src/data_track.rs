//! Data tracks: frames of application data, published under a handle and received by those who
//! asked for them.

use crate::{Event, Refusal, Room, State};
use parlor_model::{Now, ParticipantSid, TrackSid};

/// Most data tracks of a participant.
pub const DATA_TRACKS_MAX: usize = 256;
/// Longest name of a data track, in bytes.
pub const DATA_TRACK_NAME_BYTES_MAX: usize = 256;

/// A publication of data.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DataTrack {
    /// Its id.
    pub sid: TrackSid,
    /// What the publisher writes into its packets.
    pub handle: u16,
    /// Name for people, unique among the publisher's.
    pub name: String,
    /// The announcement as it was made; carried, not interpreted.
    pub announcement: Vec<u8>,
}

/// Somebody who asked for a data track.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct DataSubscription {
    publisher: ParticipantSid,
    permitted: Option<bool>,
    active: bool,
}

impl Room {
    /// Who receives the data that a participant publishes under a handle, and the track.
    pub fn data_track_subscribers(
        &self,
        publisher: &ParticipantSid,
        handle: u16,
    ) -> Option<(&DataTrack, impl Iterator<Item = &ParticipantSid>)> {
        let publisher = self.participants.get(publisher)?;
        let track = publisher.data_tracks.iter().find(|track| track.handle == handle)?;
        let of_track =
            self.data_subscriptions.iter().filter(|((_, of), s)| *of == track.sid && s.active);
        Some((track, of_track.map(|((subscriber, _), _)| subscriber)))
    }

    pub(crate) fn publish_data_track(
        &mut self,
        now: Now,
        participant: &ParticipantSid,
        track: DataTrack,
    ) -> Result<(), Refusal> {
        let publisher = self.member_mut(participant)?;
        if !publisher.info.permissions.can_publish_data {
            return Err(Refusal::NotAllowed);
        }
        if track.handle == 0 {
            return Err(Refusal::InvalidHandle);
        }
        if track.name.is_empty() || track.name.len() > DATA_TRACK_NAME_BYTES_MAX {
            return Err(Refusal::InvalidName);
        }
        let known = &publisher.data_tracks;
        if known.iter().any(|known| known.handle == track.handle) {
            return Err(Refusal::DuplicateHandle);
        }
        if known.iter().any(|known| known.name == track.name) {
            return Err(Refusal::DuplicateName);
        }
        if known.len() >= DATA_TRACKS_MAX {
            return Err(Refusal::LimitExceeded { what: "data tracks", limit: DATA_TRACKS_MAX });
        }
        let sid = track.sid.clone();
        publisher.data_tracks.push(track);
        publisher.version += 1;
        if !publisher.is_publisher {
            publisher.is_publisher = true;
            self.counts_changed(now.instant);
        }
        self.tell(participant);
        self.offer_data_track(participant, &sid);
        Ok(())
    }

    /// Gives a data track to those who want all of them.
    fn offer_data_track(&mut self, publisher: &ParticipantSid, track: &TrackSid) {
        let wanting = self.participants.values().filter(|p| p.info.auto_subscribe_data);
        for subscriber in wanting.filter(|p| p.info.sid != *publisher) {
            let key = (subscriber.info.sid.clone(), track.clone());
            let publisher = publisher.clone();
            let new = DataSubscription { publisher, permitted: None, active: false };
            self.data_subscriptions.entry(key).or_insert(new);
        }
        self.resolve_data(|_, of| of == track);
    }

    /// Gives all data tracks that are there to somebody who has come, if it wants them.
    pub(crate) fn offer_data_tracks_to(&mut self, subscriber: &ParticipantSid) {
        if !self.participants.get(subscriber).is_some_and(|p| p.info.auto_subscribe_data) {
            return;
        }
        for publisher in self.participants.values().filter(|p| p.info.sid != *subscriber) {
            for track in &publisher.data_tracks {
                let key = (subscriber.clone(), track.sid.clone());
                let publisher = publisher.info.sid.clone();
                let new = DataSubscription { publisher, permitted: None, active: false };
                self.data_subscriptions.entry(key).or_insert(new);
            }
        }
        self.resolve_data(|who, _| who == subscriber);
    }

    pub(crate) fn unpublish_data_track(
        &mut self,
        participant: &ParticipantSid,
        handle: u16,
    ) -> Result<(), Refusal> {
        let publisher = self.member_mut(participant)?;
        let place = publisher.data_tracks.iter().position(|track| track.handle == handle);
        let Some(place) = place else { return Err(Refusal::InvalidHandle) };
        let ended = publisher.data_tracks.remove(place);
        publisher.version += 1;
        self.drop_data_subscriptions(|_, track| *track == ended.sid);
        self.tell(participant);
        Ok(())
    }

    /// Ends every data track of somebody who may publish data no more.
    pub(crate) fn withdraw_data_tracks(&mut self, participant: &ParticipantSid) {
        let Some(publisher) = self.participants.get_mut(participant) else { return };
        if publisher.info.permissions.can_publish_data || publisher.data_tracks.is_empty() {
            return;
        }
        let ended = std::mem::take(&mut publisher.data_tracks);
        publisher.version += 1;
        self.drop_data_subscriptions(|_, track| ended.iter().any(|gone| gone.sid == *track));
        self.tell(participant);
    }

    pub(crate) fn subscribe_data(
        &mut self,
        subscriber: &ParticipantSid,
        track: &TrackSid,
        subscribe: bool,
    ) -> Result<(), Refusal> {
        self.member(subscriber)?;
        if !subscribe {
            self.drop_data_subscriptions(|who, of| who == subscriber && of == track);
            return Ok(());
        }
        let publishes = |p: &&crate::Participant| p.data_tracks.iter().any(|t| t.sid == *track);
        let Some(publisher) = self.participants.values().find(publishes) else { return Ok(()) };
        let publisher = publisher.info.sid.clone();
        if publisher == *subscriber {
            return Ok(());
        }
        let key = (subscriber.clone(), track.clone());
        let new = DataSubscription { publisher, permitted: None, active: false };
        self.data_subscriptions.entry(key).or_insert(new);
        self.resolve_data(|who, of| who == subscriber && of == track);
        Ok(())
    }

    /// Looks again at what subscribers of data may have.
    pub(crate) fn resolve_data(&mut self, concerns: impl Fn(&ParticipantSid, &TrackSid) -> bool) {
        let mut subscriptions = std::mem::take(&mut self.data_subscriptions);
        let of_interest = subscriptions.iter_mut().filter(|((who, of), _)| concerns(who, of));
        for ((subscriber, track), subscription) in of_interest {
            let Some(member) = self.participants.get(subscriber) else { continue };
            let Some(publisher) = self.participants.get(&subscription.publisher) else { continue };
            let present = member.state >= State::Joined && member.info.permissions.can_subscribe;
            let permitted = publisher.policy.permits(&member.info, track);
            let (subscriber, publisher) = (subscriber.clone(), subscription.publisher.clone());
            let track = track.clone();
            if present && subscription.permitted != Some(permitted) {
                subscription.permitted = Some(permitted);
                self.events.push_back(Event::SubscriptionPermission {
                    subscriber: subscriber.clone(),
                    publisher: publisher.clone(),
                    track: track.clone(),
                    allowed: permitted,
                });
            }
            let active = present && permitted;
            if subscription.active != active {
                subscription.active = active;
                self.events.push_back(match active {
                    true => Event::DataSubscribed { subscriber, publisher, track },
                    false => Event::DataUnsubscribed { subscriber, track },
                });
            }
        }
        self.data_subscriptions = subscriptions;
    }

    pub(crate) fn drop_data_subscriptions(
        &mut self,
        ends: impl Fn(&ParticipantSid, &TrackSid) -> bool,
    ) {
        let events = &mut self.events;
        self.data_subscriptions.retain(|(subscriber, track), subscription| {
            let ends = ends(subscriber, track);
            if ends && subscription.active {
                let (subscriber, track) = (subscriber.clone(), track.clone());
                events.push_back(Event::DataUnsubscribed { subscriber, track });
            }
            !ends
        });
    }
}
