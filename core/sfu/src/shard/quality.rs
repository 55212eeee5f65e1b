//! How good each peer's connection is, both ways.

use std::time::Instant;

use parlor_model::TrackKind;

use super::Shard;
use crate::{
    arena::Arena,
    command::{MediaEvent, PeerQuality},
    experience::Experience,
    forward::Subscription,
    peer::{Peer, take_due},
    quality::{QUALITY_INTERVAL, Sent, Window, is_always_sent, level},
    track::Track,
};

/// What peers experience of what they publish, and of what they are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Experiences {
    pub published: Experience,
    pub subscribed: Experience,
}

impl Shard {
    /// What was lost and late in each direction.
    pub fn experiences(&self) -> &Experiences {
        &self.experiences
    }

    /// Judges all connections, and tells whose have changed.
    pub(super) fn tell_qualities(&mut self, now: Instant) {
        if !take_due(&mut self.quality_due, now) {
            return;
        }
        let mut peers = Vec::new();
        let mut any = false;
        for peer in self.peers.iter_mut().filter(|peer| peer.connected && !peer.failed) {
            any = true;
            let Experiences { published: from, subscribed: to } = &mut self.experiences;
            let published = judge_published(now, peer, &mut self.tracks, from);
            let subscribed = judge_subscribed(now, peer, &self.tracks, &mut self.subscriptions, to);
            let score = published.min(subscribed);
            if peer.quality.replace(level(score)) != Some(level(score)) {
                peers.push(PeerQuality { peer: peer.id, score: score as f32 });
            }
        }
        self.quality_due = any.then_some(now + QUALITY_INTERVAL);
        if !peers.is_empty() {
            self.event(MediaEvent::Quality { peers });
        }
    }
}

fn judge_published(
    now: Instant,
    peer: &Peer,
    tracks: &mut Arena<Track>,
    experience: &mut Experience,
) -> f64 {
    let mut worst = 100f64;
    for key in &peer.tracks {
        let Some(track) = tracks.get_mut(*key) else { continue };
        let is_wanted = !track.guests.is_empty() || track.routes.iter().any(|route| route.active);
        let had_to_come = !track.muted && (is_wanted || is_always_sent(track.kind));
        // A layer that is off on purpose says nothing; the best that comes does.
        let best = (0..track.streams.len())
            .filter(|at| track.streams.get(*at).is_some_and(|stream| stream.is_alive(now)))
            .max_by_key(|at| track.streams.get(*at).map(|stream| stream.layer));
        let Some(codec) = track.codecs.first().map(|binding| binding.codec) else { continue };
        let missing_layers = best.map_or(0, |best| missing_layers(track, best));
        for (at, stream) in track.streams.iter_mut().enumerate() {
            let Some(totals) = stream.totals() else { continue };
            let window = Window {
                codec,
                expected: 0,
                lost: 0,
                round_trip: peer.round_trip,
                jitter: totals.jitter,
                missing_layers,
            };
            let is_judged = had_to_come && best.is_none_or(|best| best == at);
            let window = is_judged.then_some(window);
            let (score, window) = stream.judged.judge(totals.expected, totals.arrived, window);
            window.iter().for_each(|window| experience.note(window));
            worst = worst.min(score);
        }
    }
    worst
}

/// How far the best layer that comes is below the best that is wanted and has ever come.
fn missing_layers(track: &Track, best: usize) -> u8 {
    let wanted = track.routes.iter().filter(|route| route.active).map(|route| route.max_layer);
    let layers = || track.streams.iter().filter(|stream| stream.last_packet.is_some());
    let highest = layers().map(|stream| stream.layer).max().unwrap_or(0);
    let wanted = wanted.max().unwrap_or(0).min(highest);
    wanted.saturating_sub(track.streams.get(best).map_or(0, |stream| stream.layer))
}

fn judge_subscribed(
    now: Instant,
    peer: &Peer,
    tracks: &Arena<Track>,
    subscriptions: &mut Arena<Subscription>,
    experience: &mut Experience,
) -> f64 {
    let mut worst = 100f64;
    for key in &peer.subscriptions {
        let Some(subscription) = subscriptions.get_mut(*key) else { continue };
        let Some(track) = tracks.get(subscription.track) else { continue };
        let binding = track.codecs.get(usize::from(subscription.last_codec));
        let Some(codec) = binding.map(|binding| binding.codec) else { continue };
        let route = track.routes.iter().find(|route| route.subscription == *key);
        let layer = |at: u8| track.streams.get(usize::from(at)).map(|stream| stream.layer);
        let missing_layers = route
            .filter(|_| track.kind == TrackKind::Video)
            .and_then(|route| Some((layer(route.target?)?, layer(route.current?)?)))
            .map_or(0, |(target, current)| target.saturating_sub(current));
        let window = Window {
            codec,
            expected: 0,
            lost: 0,
            round_trip: peer.round_trip,
            jitter: Default::default(),
            missing_layers,
        };
        let had_to_be_sent = !track.muted && subscription.settings.enabled && subscription.started;
        let sent =
            Sent { packets: subscription.packets, next_number: subscription.munger.next_number() };
        let clock_rate = codec.clock_rate();
        let reported = &mut subscription.reported;
        let (score, window) = reported.judge(now, sent, had_to_be_sent, clock_rate, window);
        window.iter().for_each(|window| experience.note(window));
        worst = worst.min(score);
    }
    worst
}
