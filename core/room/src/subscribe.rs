//! Who receives which track.

use crate::{Event, Refusal, Room, State, SubscriptionPolicy, Track};
use parlor_model::{ParticipantSid, TrackKind, TrackSid};

/// One subscriber's standing towards one track.
#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Subscription {
    publisher: ParticipantSid,
    kind: TrackKind,
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
                ended.push((subscriber.clone(), subscription.kind));
            }
            of != track
        });
        for (subscriber, kind) in ended {
            let event =
                Event::Unsubscribed { subscriber: subscriber.clone(), track: track.clone() };
            self.events.push_back(event);
            self.fill(&subscriber, kind);
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
        let known = self.participants.get(publisher).and_then(|p| p.track(track));
        let kind = known.map_or(TrackKind::Audio, |track| track.kind);
        self.subscriptions.entry((subscriber.clone(), track.clone())).or_insert_with(|| {
            let (publisher, permitted) = (publisher.clone(), None);
            Subscription { publisher, kind, desired, permitted, active: false }
        })
    }

    /// How many tracks of a kind a participant is sent at most; 0 for any number.
    fn max_subscriptions(&self, kind: TrackKind) -> usize {
        let max = match kind {
            TrackKind::Video => self.settings.max_video_subscriptions,
            TrackKind::Audio => self.settings.max_audio_subscriptions,
        };
        max as usize
    }

    fn subscriptions_of(
        &self,
        subscriber: &ParticipantSid,
    ) -> impl Iterator<Item = (&TrackSid, &Subscription)> {
        let from = (subscriber.clone(), TrackSid::from(""));
        let all = self.subscriptions.range(from..);
        all.take_while(move |((of, _), _)| of == subscriber).map(|((_, track), s)| (track, s))
    }

    /// Whether a participant may be sent one more track of a kind.
    fn has_capacity(&self, subscriber: &ParticipantSid, kind: TrackKind) -> bool {
        let max = self.max_subscriptions(kind);
        let sent = || self.subscriptions_of(subscriber).filter(|(_, s)| s.active && s.kind == kind);
        max == 0 || sent().count() < max
    }

    /// A track less is sent to a participant: one that had to wait takes its place.
    fn fill(&mut self, subscriber: &ParticipantSid, kind: TrackKind) {
        if self.max_subscriptions(kind) == 0 {
            return;
        }
        let waiting = self.subscriptions_of(subscriber);
        let waiting = waiting.filter(|(_, s)| s.kind == kind && s.desired && !s.active);
        for track in waiting.map(|(track, _)| track.clone()).collect::<Vec<_>>() {
            self.resolve(subscriber, &track);
        }
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
        let kind = subscription.kind;
        if subscription.active == active || active && !self.has_capacity(subscriber, kind) {
            return;
        }
        if let Some(subscription) = self.subscriptions.get_mut(&key) {
            subscription.active = active;
        }
        let (subscriber, track) = key;
        if active {
            self.events.push_back(Event::Subscribed { subscriber, publisher, track });
        } else {
            self.events.push_back(Event::Unsubscribed { subscriber: subscriber.clone(), track });
            self.fill(&subscriber, kind);
        }
    }
}
