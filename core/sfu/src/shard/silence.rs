//! Silence at the end of what a listener hears of a track.

use std::time::Instant;

use bytes::Bytes;
use parlor_congestion::Priority;
use parlor_model::{TrackId, TrackKind};

use super::{MAX_AHEAD, Shard};
use crate::{
    arena::Key,
    forward::{
        Queued, Sending, Subscription,
        blank::{Silence, has_picture},
    },
    peer::{Peer, bring_forward},
    receive::bitrate::OVERHEAD_BYTES,
};

/// Longest trailer of frames of our own, in bytes.
pub const MAX_TRAILER_BYTES: usize = 255;

impl Shard {
    /// Tells a subscriber that has heard something of a track to hear silence from now on.
    pub(super) fn fall_silent(&mut self, now: Instant, key: Key<Subscription>) {
        let Some(subscription) = self.subscriptions.get_mut(key).filter(|known| known.started)
        else {
            return;
        };
        let is_audio = self
            .tracks
            .get(subscription.track)
            .is_some_and(|track| track.kind == TrackKind::Audio && track.publisher.is_some());
        let Some(peer) = self.peers.get_mut(subscription.peer).filter(|peer| peer.can_send())
        else {
            return;
        };
        if is_audio {
            subscription.silence = Some(Silence::new(now));
            bring_forward(&mut peer.deadlines.silence, now);
            self.timers.set(subscription.peer.index(), peer.next_deadline());
        }
    }

    /// Ends a video in black pictures. Returns whether there are any of its codec.
    pub(super) fn fade_out(&mut self, now: Instant, key: Key<Subscription>) -> bool {
        let Some(subscription) = self.subscriptions.get_mut(key).filter(|known| known.started)
        else {
            return false;
        };
        let Some(track) = self.tracks.get_mut(subscription.track) else { return false };
        let codec = track.codecs.get(usize::from(subscription.last_codec));
        let is_encrypted = !track.frame_trailer.is_empty();
        if !codec.is_some_and(|binding| has_picture(binding.codec, is_encrypted)) {
            return false;
        }
        let Some(peer) = self.peers.get_mut(subscription.peer).filter(|peer| peer.can_send())
        else {
            return false;
        };
        if let Some(route) = track.route_mut(key) {
            (route.active, route.current, route.target) = (false, None, None);
        }
        // Nothing that has left is repeated, and nothing is reported of what ends.
        subscription.settings.enabled = false;
        subscription.started = false;
        subscription.silence = Some(Silence::pictures(now));
        bring_forward(&mut peer.deadlines.silence, now);
        self.timers.set(subscription.peer.index(), peer.next_deadline());
        true
    }

    /// Lets a subscriber hear silence of a sound that was muted before it came, once: some clients
    /// know a track by its first packet.
    pub(super) fn introduce(&mut self, now: Instant, key: Key<Subscription>) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        if subscription.is_introduced || subscription.started {
            return;
        }
        let is_silent = self.tracks.get(subscription.track).is_some_and(|track| {
            track.kind == TrackKind::Audio && track.muted && track.publisher.is_some()
        });
        let Some(peer) = self.peers.get_mut(subscription.peer).filter(|peer| peer.can_send())
        else {
            return;
        };
        if is_silent && subscription.settings.enabled {
            let silence = Silence::introduction(now);
            (subscription.is_introduced, subscription.silence) = (true, Some(silence));
            bring_forward(&mut peer.deadlines.silence, silence.due);
            self.timers.set(subscription.peer.index(), peer.next_deadline());
        }
    }

    /// The track goes on, unless something else still keeps it from the subscriber.
    pub(super) fn end_silence(&mut self, key: Key<Subscription>) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        let is_muted = self.tracks.get(subscription.track).is_some_and(|track| track.muted);
        if !is_muted && subscription.settings.enabled {
            subscription.silence = None;
        }
    }

    /// Owes a peer the silent frames that are due.
    pub(super) fn send_silence(&mut self, now: Instant, key: Key<Peer>) {
        let now_us = self.micros(now);
        let Some(peer) = self.peers.get_mut(key) else { return };
        let mut next: Option<Instant> = None;
        for at in 0..peer.subscriptions.len() {
            let Some(&key) = peer.subscriptions.get(at) else { break };
            let Some(subscription) = self.subscriptions.get_mut(key) else { continue };
            if let Some((number, sent)) = subscription.next_silence(now) {
                let queued = Queued { subscription: key, number, sending: Sending::First(sent) };
                let pacer = &mut peer.downlink.pacer;
                if pacer.push(now_us, queued, OVERHEAD_BYTES, Priority::Audio).is_err() {
                    self.counters.unsent_queue_full += 1;
                }
            }
            let due = subscription.silence.map(|silence| silence.due);
            next = [next, due].into_iter().flatten().min();
        }
        peer.deadlines.silence = next;
        self.mark_ready(key);
    }

    /// What frames of our own end with on an encrypted track.
    pub(super) fn set_frame_trailer(&mut self, id: TrackId, trailer: Bytes) {
        let trailer = if trailer.len() > MAX_TRAILER_BYTES { Bytes::new() } else { trailer };
        if let Some(&key) = self.track_keys.get(&id) {
            if let Some(track) = self.tracks.get_mut(key) {
                track.frame_trailer = trailer;
            }
            return self.tell_guests(key);
        }
        self.trailers_ahead.insert(id, trailer);
        if self.trailers_ahead.len() > MAX_AHEAD {
            self.trailers_ahead.pop_first();
        }
    }
}
