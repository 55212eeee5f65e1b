//! What peers publish and subscribe to, as the control plane says.

use std::time::Instant;

use parlor_model::{
    ExtensionIds, MediaDescription, ReceiveSection, SendSection, Ssrc, SubscriptionId, TrackId,
};
use rand::Rng;

use super::{MAX_AHEAD, Shard, ingress::LAYER_INTERVAL, timer::REPORT_INTERVAL};
use crate::{
    arena::Key,
    command::SubscriptionSettings,
    forward::Subscription,
    peer::{Peer, Source, bring_forward},
    ssrc::SsrcTable,
    track::{Publisher, Route, Track},
};

/// SSRCs that one peer is sent media under while its keys last.
pub const MAX_OUTGOING_SSRCS: usize = 16_384;

impl Shard {
    /// Replaces all that a peer sends and is sent.
    pub(super) fn set_media(&mut self, now: Instant, key: Key<Peer>, media: &MediaDescription) {
        self.set_published(key, &media.receive);
        self.set_subscribed(key, &media.send);
        let tracks = self.peers.get(key).map(|peer| peer.tracks.clone()).unwrap_or_default();
        for track in tracks {
            self.rematch_codecs(track);
            self.choose_layers(now, track);
        }
        self.refresh_routes_of(now, key);
        self.start_timers(now, key);
    }

    fn set_published(&mut self, key: Key<Peer>, sections: &[ReceiveSection]) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let old = std::mem::take(&mut peer.tracks);
        let mut new = Vec::with_capacity(sections.len());
        let mut incoming = SsrcTable::default();
        let mut extensions = ExtensionIds::default();
        for section in sections {
            let track_key = self.track(section.track);
            let Some(track) = self.tracks.get_mut(track_key) else { continue };
            let publisher = Publisher::Peer(key);
            let is_taken = track.publisher.is_some_and(|known| known != publisher);
            if is_taken || section.track.home() != self.config.id {
                self.counters.commands_stale += 1;
                continue;
            }
            track.publish(publisher, section);
            for (at, stream) in track.streams.iter().enumerate() {
                for (ssrc, is_rtx) in [(stream.ssrc, false), (stream.rtx_ssrc, true)] {
                    if let Some(ssrc) = ssrc {
                        let source = Source { track: track_key, stream: at as u8, is_rtx };
                        incoming.insert(ssrc, source);
                    }
                }
            }
            merge(&mut extensions, &section.extensions);
            new.push(track_key);
            self.tell_guests(track_key);
        }
        for track_key in old.into_iter().filter(|old| !new.contains(old)) {
            if let Some(track) = self.tracks.get_mut(track_key) {
                track.unpublish();
            }
            self.tell_guests(track_key);
            self.drop_if_unused(track_key);
        }
        if let Some(peer) = self.peers.get_mut(key) {
            peer.tracks = new;
            peer.incoming = incoming;
            peer.receive_extensions = extensions;
        }
    }

    fn set_subscribed(&mut self, key: Key<Peer>, sections: &[SendSection]) {
        let Some(peer) = self.peers.get(key) else { return };
        for old in peer.subscriptions.clone() {
            let stays = self.subscriptions.get(old).is_some_and(|subscription| {
                sections.iter().any(|section| {
                    section.subscription == subscription.id && subscription.continues_as(section)
                })
            });
            if !stays {
                self.end_subscription(old);
            }
        }
        for section in sections {
            if self.stopped.contains(&section.subscription) {
                continue;
            }
            let known = self.subscription_keys.get(&section.subscription).copied();
            let known = known.filter(|known| {
                self.subscriptions.get(*known).is_some_and(|known| known.peer == key)
            });
            if let Some(known) = known {
                self.follow_encoding(known, section.track);
            }
            match known.and_then(|known| self.subscriptions.get_mut(known)) {
                Some(subscription) => subscription.set_section(section),
                None => self.begin_subscription(key, section),
            }
            if let Some(&track) = self.track_keys.get(&section.track) {
                self.rematch_codecs(track);
            }
        }
    }

    fn begin_subscription(&mut self, key: Key<Peer>, section: &SendSection) {
        let mut draw = || u64::from(self.rng.next_u32() >> 18) + 1;
        let (first, first_rtx) = (draw(), draw());
        let track_key = self.track(section.track);
        let taken = self.subscription_keys.contains_key(&section.subscription);
        let Some(peer) = self.peers.get_mut(key) else { return };
        let ssrcs = || [Some(section.ssrc), section.rtx_ssrc].into_iter().flatten();
        if taken
            || ssrcs().any(|ssrc| peer.outgoing.get(ssrc).is_some())
            || peer.used_numbers.len() + peer.outgoing.len() >= MAX_OUTGOING_SSRCS
        {
            self.counters.commands_stale += 1;
            self.drop_if_unused(track_key);
            return;
        }
        let settings = self.settings_ahead.remove(&section.subscription).unwrap_or_default();
        let used = |ssrc: Ssrc| peer.used_numbers.get(ssrc).copied();
        let subscription = Subscription::new(
            key,
            track_key,
            section.clone(),
            settings,
            used(section.ssrc).unwrap_or(first),
            section.rtx_ssrc.and_then(used).unwrap_or(first_rtx),
        );
        let subscription = self.subscriptions.insert(subscription);
        peer.subscriptions.push(subscription);
        for ssrc in ssrcs() {
            peer.outgoing.insert(ssrc, subscription);
        }
        self.subscription_keys.insert(section.subscription, subscription);
        if let Some(track) = self.tracks.get_mut(track_key) {
            track.routes.push(Route::new(subscription, key, &settings));
        }
    }

    /// The subscription goes on with another encoding of what it is of, from a keyframe of that
    /// one on and under the numbers that follow.
    fn follow_encoding(&mut self, key: Key<Subscription>, id: TrackId) {
        let Some(before) = self.subscriptions.get(key).map(|known| known.track) else { return };
        if self.tracks.get(before).is_some_and(|track| track.id == id) {
            return;
        }
        let to = self.track(id);
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        subscription.track = to;
        subscription.munger.forget_sources();
        // What waits is of the encoding before.
        subscription.useless_below = subscription.munger.next_number();
        subscription.sent.clear();
        subscription.silence = None;
        let route = Route::new(key, subscription.peer, &subscription.settings);
        if let Some(track) = self.tracks.get_mut(to) {
            track.routes.push(route);
        }
        if let Some(track) = self.tracks.get_mut(before) {
            track.remove_route(key);
        }
        self.drop_if_unused(before);
    }

    fn end_subscription(&mut self, key: Key<Subscription>) {
        let Some(subscription) = self.subscriptions.remove(key) else { return };
        self.subscription_keys.remove(&subscription.id);
        if let Some(peer) = self.peers.get_mut(subscription.peer) {
            peer.subscriptions.retain(|other| *other != key);
            peer.outgoing.retain(|_, other| *other != key);
            peer.used_numbers.insert(subscription.section.ssrc, subscription.munger.next_number());
            if let Some(rtx) = subscription.section.rtx_ssrc {
                peer.used_numbers.insert(rtx, subscription.next_rtx);
            }
        }
        if let Some(track) = self.tracks.get_mut(subscription.track) {
            track.remove_route(key);
        }
        self.drop_if_unused(subscription.track);
    }

    /// The track of an id, made when it is not known yet.
    pub(super) fn track(&mut self, id: TrackId) -> Key<Track> {
        if let Some(&key) = self.track_keys.get(&id) {
            return key;
        }
        let mut track = Track::new(id);
        track.muted = self.muted_ahead.remove(&id);
        track.frame_trailer = self.trailers_ahead.remove(&id).unwrap_or_default();
        let key = self.tracks.insert(track);
        self.track_keys.insert(id, key);
        if id.home() != self.config.id {
            self.begin_guest(id, key);
        }
        key
    }

    pub(super) fn drop_if_unused(&mut self, key: Key<Track>) {
        if let Some(track) = self.tracks.get(key)
            && track.is_unused()
        {
            let id = track.id;
            self.track_keys.remove(&id);
            self.tracks.remove(key);
            if id.home() != self.config.id {
                self.end_guest(id, key);
            }
        }
    }

    pub(super) fn rematch_codecs(&mut self, key: Key<Track>) {
        let Some(track) = self.tracks.get(key) else { return };
        for route in &track.routes {
            if let Some(subscription) = self.subscriptions.get_mut(route.subscription) {
                subscription.match_codecs(&track.codecs, self.adds_redundancy);
            }
        }
    }

    pub(super) fn set_subscription(
        &mut self,
        now: Instant,
        id: SubscriptionId,
        settings: SubscriptionSettings,
    ) {
        let Some(&key) = self.subscription_keys.get(&id) else {
            if !self.stopped.contains(&id) {
                self.settings_ahead.insert(id, settings);
                if self.settings_ahead.len() > MAX_AHEAD {
                    self.settings_ahead.pop_first();
                }
            }
            return;
        };
        if let Some(subscription) = self.subscriptions.get_mut(key) {
            let was_enabled = std::mem::replace(&mut subscription.settings, settings).enabled;
            let track = subscription.track;
            self.refresh_route(key);
            match (was_enabled, settings.enabled) {
                (true, false) => self.fall_silent(now, key),
                (false, true) => self.end_silence(key),
                _ => {}
            }
            self.choose_layers(now, track);
        }
    }

    /// Ends a subscription at once. What is queued of it finds no subscription and does not leave.
    pub(super) fn stop(&mut self, now: Instant, id: SubscriptionId, blank: bool) {
        self.settings_ahead.remove(&id);
        self.stopped.insert(id);
        if self.stopped.len() > MAX_AHEAD {
            self.stopped.pop_first();
        }
        let Some(key) = self.subscription_keys.get(&id).copied() else { return };
        if blank && self.fade_out(now, key) {
            // What comes from now on is ours; it ends with its section.
            self.subscription_keys.remove(&id);
        } else {
            self.end_subscription(key);
        }
    }

    pub(super) fn set_muted(&mut self, now: Instant, id: TrackId, muted: bool) {
        let Some(&key) = self.track_keys.get(&id) else {
            if muted {
                self.muted_ahead.insert(id);
                if self.muted_ahead.len() > MAX_AHEAD {
                    self.muted_ahead.pop_first();
                }
            } else {
                self.muted_ahead.remove(&id);
            }
            return;
        };
        let Some(track) = self.tracks.get_mut(key) else { return };
        if track.muted == muted {
            return;
        }
        track.muted = muted;
        track.loudness.silence();
        track.forget_sources();
        for stream in &mut track.streams {
            stream.keyframe.stop();
        }
        for at in 0.. {
            let Some(track) = self.tracks.get(key) else { break };
            let Some(route) = track.routes.get(at) else { break };
            match (muted, route.subscription) {
                (true, subscription) if route.active => self.fall_silent(now, subscription),
                (true, _) => {}
                (false, subscription) => self.end_silence(subscription),
            }
        }
        self.tell_guests(key);
        self.choose_layers(now, key);
    }

    /// Forwards nothing of a subscription until it is active again.
    pub(super) fn deactivate(&mut self, key: Key<Subscription>) {
        if let Some(subscription) = self.subscriptions.get(key)
            && let Some(track) = self.tracks.get_mut(subscription.track)
            && let Some(route) = track.route_mut(key)
        {
            (route.active, route.current, route.target) = (false, None, None);
        }
    }

    /// Brings the route of a subscription up to its settings and its peer's state.
    pub(super) fn refresh_route(&mut self, key: Key<Subscription>) {
        let Some(subscription) = self.subscriptions.get(key) else { return };
        let can_send = self.peers.get(subscription.peer).is_some_and(Peer::can_send);
        let Some(track) = self.tracks.get_mut(subscription.track) else { return };
        let Some(route) = track.route_mut(key) else { return };
        let share = subscription.share;
        route.max_layer = subscription.settings.max_layer.min(share.spatial);
        route.fitting_temporal = share.temporal;
        route.max_fps = subscription.settings.max_fps;
        let active = can_send && subscription.settings.enabled && !share.paused;
        if route.active != active {
            (route.active, route.current, route.target) = (active, None, None);
        }
    }

    /// As [`Self::refresh_route`], for all that a peer is sent; layers are chosen.
    pub(super) fn refresh_routes_of(&mut self, now: Instant, key: Key<Peer>) {
        let Some(peer) = self.peers.get(key) else { return };
        for subscription in peer.subscriptions.clone() {
            self.refresh_route(subscription);
            self.introduce(now, subscription);
            if let Some(track) = self.subscriptions.get(subscription).map(|known| known.track) {
                self.choose_layers(now, track);
            }
        }
    }

    /// Chooses the layers of a track's subscriptions and has keyframes asked for.
    pub(super) fn choose_layers(&mut self, now: Instant, key: Key<Track>) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        track.select(now);
        self.want_keyframes(key);
    }

    /// Sets the publisher's timer to the keyframe request of a track that is due first.
    pub(super) fn want_keyframes(&mut self, key: Key<Track>) {
        let Some(track) = self.tracks.get(key) else { return };
        let due = track.streams.iter().filter_map(|stream| stream.keyframe.due()).min();
        match (due, track.publisher) {
            (Some(due), Some(Publisher::Peer(publisher))) => {
                if let Some(peer) = self.peers.get_mut(publisher) {
                    bring_forward(&mut peer.deadlines.keyframe, due);
                    self.schedule(publisher);
                }
            }
            (Some(due), Some(Publisher::Home)) => bring_forward(&mut self.guests_due, due),
            _ => {}
        }
    }

    /// Starts the timers of a peer that has something to report or to choose.
    pub(super) fn start_timers(&mut self, now: Instant, key: Key<Peer>) {
        let Some(peer) = self.peers.get_mut(key).filter(|peer| peer.can_send()) else { return };
        if !(peer.tracks.is_empty() && peer.subscriptions.is_empty()) {
            peer.deadlines.report.get_or_insert(now + REPORT_INTERVAL);
        }
        let tracks = &self.tracks;
        let has_layers = |key: &Key<Track>| tracks.get(*key).is_some_and(Track::has_layers);
        if peer.tracks.iter().any(has_layers) {
            peer.deadlines.layers.get_or_insert(now + LAYER_INTERVAL);
        }
        let waits = |key: &Key<Subscription>| {
            self.subscriptions.get(*key).is_some_and(|it| it.allocation.is_none())
        };
        if let Some(peer) = self.peers.get_mut(key).filter(|it| it.subscriptions.iter().any(waits))
        {
            bring_forward(&mut peer.deadlines.allocation, now);
        }
        self.schedule(key);
    }
}

fn merge(all: &mut ExtensionIds, more: &ExtensionIds) {
    for (id, other) in [
        (&mut all.mid, more.mid),
        (&mut all.rid, more.rid),
        (&mut all.repaired_rid, more.repaired_rid),
        (&mut all.transport_cc, more.transport_cc),
    ] {
        *id = id.or(other);
    }
}
