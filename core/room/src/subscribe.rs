//! Who receives which track.

use crate::{Event, Refusal, Room, State, SubscriptionPolicy, Track};
use parlor_model::{ParticipantSid, TrackSid};

/// One subscriber's standing towards one track.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Subscription {
    publisher: ParticipantSid,
    desired: bool,
    /// What the subscriber was last told of its permission.
    permitted: Option<bool>,
    active: bool,
}

impl Room {
    /// Whether a track is being sent to a subscriber.
    pub fn is_subscribed(&self, subscriber: &ParticipantSid, track: &TrackSid) -> bool {
        self.subscriptions
            .get(&(subscriber.clone(), track.clone()))
            .is_some_and(|subscription| subscription.active)
    }

    pub(crate) fn subscribe(
        &mut self,
        subscriber: &ParticipantSid,
        tracks: &[TrackSid],
        subscribe: bool,
    ) -> Result<(), Refusal> {
        self.member(subscriber)?;
        for track in tracks {
            let Some(publisher) = self.publishers.get(track).cloned() else { continue };
            if publisher == *subscriber {
                continue;
            }
            self.subscription(subscriber, &publisher, track).desired = subscribe;
            self.resolve(subscriber, track);
        }
        Ok(())
    }

    pub(crate) fn set_policy(
        &mut self,
        publisher: &ParticipantSid,
        policy: SubscriptionPolicy,
    ) -> Result<(), Refusal> {
        let member = self.member_mut(publisher)?;
        member.policy = policy;
        let tracks: Vec<_> = member.published_tracks().map(|track| track.sid.clone()).collect();
        for track in tracks {
            self.resolve_track(publisher, &track);
        }
        self.resolve_data(|_, _| true);
        Ok(())
    }

    /// Looks again at every subscriber of a track, after it or its publisher's policy changed.
    pub(crate) fn resolve_track(&mut self, publisher: &ParticipantSid, track: &TrackSid) {
        let subscribers: Vec<_> =
            self.participants.keys().filter(|sid| *sid != publisher).cloned().collect();
        for subscriber in subscribers {
            self.subscription(&subscriber, publisher, track);
            self.resolve(&subscriber, track);
        }
    }

    /// Looks again at every track for a subscriber, after it joined or its permissions changed.
    pub(crate) fn resolve_subscriber(&mut self, subscriber: &ParticipantSid) {
        let others = self.participants.values().filter(|p| p.info.sid != *subscriber);
        let tracks: Vec<_> = others
            .flat_map(|p| p.published_tracks())
            .map(|track| (track.publisher.clone(), track.sid.clone()))
            .collect();
        for (publisher, track) in tracks {
            self.subscription(subscriber, &publisher, &track);
            self.resolve(subscriber, &track);
        }
    }

    pub(crate) fn drop_subscriptions_to(&mut self, track: &TrackSid) {
        let mut ended = Vec::new();
        self.subscriptions.retain(|(subscriber, of), subscription| {
            if of == track && subscription.active {
                ended.push(subscriber.clone());
            }
            of != track
        });
        for subscriber in ended {
            self.events.push_back(Event::Unsubscribed { subscriber, track: track.clone() });
        }
    }

    /// The subscription, begun with what the subscriber wants without asking.
    fn subscription(
        &mut self,
        subscriber: &ParticipantSid,
        publisher: &ParticipantSid,
        track: &TrackSid,
    ) -> &mut Subscription {
        let desired = self.participants.get(subscriber).is_some_and(|p| p.info.auto_subscribe);
        self.subscriptions.entry((subscriber.clone(), track.clone())).or_insert_with(|| {
            Subscription { publisher: publisher.clone(), desired, permitted: None, active: false }
        })
    }

    /// Brings a subscription to where it should be, and says what changed.
    fn resolve(&mut self, subscriber: &ParticipantSid, track: &TrackSid) {
        let key = (subscriber.clone(), track.clone());
        let Some(subscription) = self.subscriptions.get_mut(&key) else { return };
        let Some(member) = self.participants.get(subscriber) else { return };
        let Some(publisher) = self.participants.get(&subscription.publisher) else { return };
        let published = publisher.track(track).is_some_and(Track::is_published);
        let present = member.state >= State::Joined;
        let wanted =
            subscription.desired && member.info.permissions.can_subscribe && published && present;
        let permitted = publisher.policy.permits(&member.info, track);
        let publisher = subscription.publisher.clone();
        if !subscription.desired {
            // Told anew when the track is wanted again.
            subscription.permitted = None;
        }
        if wanted && subscription.permitted != Some(permitted) {
            subscription.permitted = Some(permitted);
            self.events.push_back(Event::SubscriptionPermission {
                subscriber: subscriber.clone(),
                publisher: publisher.clone(),
                track: track.clone(),
                allowed: permitted,
            });
        }
        let active = wanted && permitted;
        if subscription.active == active {
            return;
        }
        subscription.active = active;
        let (subscriber, track) = (subscriber.clone(), track.clone());
        self.events.push_back(if active {
            Event::Subscribed { subscriber, publisher, track }
        } else {
            Event::Unsubscribed { subscriber, track }
        });
    }
}
