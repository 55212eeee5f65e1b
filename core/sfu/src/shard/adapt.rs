//! What each subscriber's link carries, shared out among what it is subscribed to.

use std::time::{Duration, Instant};

use parlor_congestion::{
    Allocation, EstimatorState, Hysteresis, Layer, Priority, Reason, TrackDemand,
    TrackKind as Kind, allocate, allocate::SPATIAL_MAX, wanted_bps,
};
use parlor_model::{PeerId, SubscriptionId, TrackKind};

use super::{Decision, Shard};
use crate::{
    arena::Key,
    command::MediaEvent,
    downlink::Downlink,
    forward::{Sending, Share, Subscription},
    peer::Peer,
    track::Track,
};

/// An estimate is shared out anew with feedback that comes so long after the last time: what is
/// needed is at hand then.
const SHARE_INTERVAL: Duration = Duration::from_millis(80);
/// As [`SHARE_INTERVAL`] while all have what they want.
const SHARE_INTERVAL_SETTLED: Duration = Duration::from_millis(280);
/// And so long after the last time without feedback.
const SHARE_INTERVAL_MAX: Duration = Duration::from_millis(450);
/// How often videos are looked after that wait for the first feedback.
const FEEDBACK_WAIT: Duration = Duration::from_millis(500);
/// A subscription that fell does not rise before.
const RISE_WAIT: Duration = Duration::from_secs(2);
/// Where so much more is forwarded than the link carries, in percent, a layer ends before the next
/// lower one begins.
const OVERLOAD_PERCENT: u64 = 130;

/// What is known of the way to a peer.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PeerState {
    /// The estimate and what explains it: loss, round trip, queue.
    pub estimator: EstimatorState,
    /// Whether the peer has told what its link carries; nothing is limited before.
    pub is_limited: bool,
    /// Bytes that wait for their turn.
    pub queued_bytes: u64,
}

impl Shard {
    /// All peers, in the order of their ids.
    pub fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.peer_keys.keys().copied()
    }

    /// What is known of the way to a peer.
    pub fn peer_state(&self, peer: PeerId) -> Option<PeerState> {
        let link = &self.peers.get(*self.peer_keys.get(&peer)?)?.downlink;
        Some(PeerState {
            estimator: link.estimator.state(),
            is_limited: link.is_limited(),
            queued_bytes: link.pacer.queued_bytes(),
        })
    }

    /// What a subscription has of its subscriber's link, and why.
    pub fn allocation(&self, subscription: SubscriptionId) -> Option<Allocation> {
        self.subscriptions.get(*self.subscription_keys.get(&subscription)?)?.allocation
    }

    /// Feeds the estimate of the way to a peer and sees to what follows from it.
    pub(super) fn with_downlink(
        &mut self,
        now: Instant,
        key: Key<Peer>,
        feed: impl FnOnce(&mut Downlink),
    ) {
        let Some(peer) = self.peers.get_mut(key).filter(|peer| peer.can_send()) else { return };
        feed(&mut peer.downlink);
        if !peer.downlink.is_limited() || peer.subscriptions.is_empty() {
            return;
        }
        let link = &peer.downlink;
        let interval = if link.is_settled { SHARE_INTERVAL_SETTLED } else { SHARE_INTERVAL };
        if link.has_moved() || link.shared.is_none_or(|shared| now >= shared + interval) {
            self.share_out(now, key);
        }
        let Some(link) = self.peers.get(key).map(|peer| &peer.downlink) else { return };
        // What waits may leave at another pace. The flush of this turn sets timers.
        if link.estimator.timeout_may_have_changed() || !link.pacer.is_empty() {
            self.mark_ready(key);
        }
    }

    /// Shares the estimate among a peer's subscriptions.
    pub(super) fn share_out(&mut self, now: Instant, key: Key<Peer>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.subscriptions.is_empty() {
            return;
        }
        if !peer.downlink.is_limited() {
            return self.await_feedback(now, key);
        }
        peer.deadlines.allocation = Some(now + SHARE_INTERVAL_MAX);
        let link = &mut peer.downlink;
        link.shared = Some(now);
        let is_far = link.is_far(now);
        let may_pause = link.may_pause(now);
        let mut audio_bps = 0;
        self.demands.clear();
        for subscription in &peer.subscriptions {
            let demand = self.subscriptions.get(*subscription).and_then(|subscription| {
                let track = self.tracks.get(subscription.track)?;
                Some(demand(now, subscription, track, may_pause))
            });
            if let Some(demand) = demand.filter(|demand| demand.kind == Kind::Audio) {
                audio_bps += u64::from(demand.bitrates[0][0].unwrap_or(0));
            }
            self.demands.push(demand.unwrap_or(NOTHING));
        }
        let estimate_bps = link.shared_bps();
        let state = link.estimator.state();
        let hysteresis = Hysteresis::on(estimate_bps, state.queue_delay_ms, link.wait());
        allocate(estimate_bps, &self.demands, hysteresis, &mut self.allocations);
        let is_starving =
            self.allocations.iter().any(|got| matches!(got.reason, Reason::Paused { .. }));
        let is_short = self.allocations.iter().any(|got| is_short(&got.reason));
        link.is_settled =
            !state.is_guess && self.allocations.iter().all(|got| is_settled(&got.reason));
        let sheds_redundancy = link.sheds_redundancy(now, audio_bps, is_short);
        link.used_bps = self.allocations.iter().map(|got| u64::from(got.bps)).sum();
        let wanted_bps = wanted_bps(&self.demands, hysteresis) + link.ahead_bps(is_far);
        link.estimator.set_wanted(wanted_bps, is_starving, now);
        if link.decide_ahead(is_far, is_short) {
            peer.deadlines.ahead.get_or_insert(now);
        }
        link.set_rate(now);
        link.allocated_bps = link.estimator.estimate_bps();
        let used_bps: u64 = (self.demands.iter())
            .map(|demand| u64::from(demand.current.and_then(|at| bps(demand, at)).unwrap_or(0)))
            .sum();
        let is_overloaded = used_bps * 100 > estimate_bps * OVERLOAD_PERCENT;
        for at in 0..self.allocations.len() {
            let subscription = self.peers.get(key).and_then(|peer| peer.subscriptions.get(at));
            if let (Some(&subscription), Some(&got)) = (subscription, self.allocations.get(at)) {
                self.give(now, subscription, got, is_overloaded);
                self.shed_redundancy(subscription, sheds_redundancy);
            }
        }
    }

    /// Looks after videos that wait for feedback to tell what fits. Those for which none comes have
    /// what they want.
    fn await_feedback(&mut self, now: Instant, key: Key<Peer>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let mut waits = false;
        for at in 0..peer.subscriptions.len() {
            let Some(&key) = self.peers.get(key).and_then(|peer| peer.subscriptions.get(at)) else {
                break;
            };
            let Some(subscription) = self.subscriptions.get_mut(key) else { continue };
            if subscription.gives_up_waiting() {
                subscription.share = Share::ALL;
                let track = subscription.track;
                self.refresh_route(key);
                self.choose_layers(now, track);
            } else {
                waits |= subscription.share == Share::FIRST;
            }
        }
        if let Some(peer) = self.peers.get_mut(key).filter(|_| waits) {
            peer.deadlines.allocation = Some(now + FEEDBACK_WAIT);
        }
    }

    /// What waits of a video subscription is of a layer that was given up: it does not leave, and
    /// the numbers at its end are given anew, so that the receiver misses as little as possible.
    fn take_back(&mut self, key: Key<Subscription>) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        let Some(peer) = self.peers.get_mut(subscription.peer) else { return };
        self.taken_back.clear();
        let taken_back = &mut self.taken_back;
        peer.downlink.pacer.remove(Priority::Video, |queued| {
            let is_unwanted =
                queued.subscription == key && matches!(queued.sending, Sending::First(_));
            if is_unwanted {
                taken_back.push(queued.number);
            }
            is_unwanted
        });
        self.counters.unsent_late += taken_back.len() as u64;
        taken_back.sort_unstable();
        let mut next = subscription.munger.next_number();
        // Only numbers after which none has left; one that has may wait once more, in vain.
        let highest = subscription.sent.highest();
        let is_free = |last: &u64, next: u64| last + 1 == next && *last > highest;
        while let Some(last) = taken_back.pop().filter(|last| is_free(last, next)) {
            next = last;
        }
        // What comes next goes on from the packet before, if that is known.
        let left = subscription.sent.get_mut(next.saturating_sub(1)).map(|left| *left);
        match left.filter(|_| next < subscription.munger.next_number()) {
            Some(left) => {
                subscription.munger.take_back(next, &left);
                subscription.useless_below = next;
            }
            None => subscription.useless_below = subscription.munger.next_number(),
        }
    }

    /// Has audio leave with or without its redundancy.
    fn shed_redundancy(&mut self, key: Key<Subscription>, sheds: bool) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        let Some(peer) = self.peers.get(subscription.peer) else { return };
        let Some(track) = self.tracks.get(subscription.track) else { return };
        let is_audio = track.kind == TrackKind::Audio;
        // What has its number waits for a moment only.
        let is_waiting = peer.downlink.pacer.has(Priority::Audio);
        if is_audio && subscription.sheds_redundancy != sheds && !is_waiting {
            subscription.sheds_redundancy = sheds;
            // What left before can not be repeated in other words.
            subscription.sent.clear();
            subscription.match_codecs(&track.codecs, self.adds_redundancy);
        }
    }

    /// Brings a subscription to what it was given.
    fn give(&mut self, now: Instant, key: Key<Subscription>, got: Allocation, is_overloaded: bool) {
        let Some(subscription) = self.subscriptions.get_mut(key) else { return };
        let share = match (got.reason, got.target) {
            // What is not wanted or not sent now keeps what it had.
            (Reason::NotWanted | Reason::NothingSent, _) => return,
            (Reason::Paused { .. }, _) => Share { paused: true, spatial: 0, temporal: 0 },
            (Reason::Audio | Reason::Wanted { .. } | Reason::BestSent { .. }, _) | (_, None) => {
                Share::ALL
            }
            (_, Some(Layer { spatial, temporal })) => Share { paused: false, spatial, temporal },
        };
        let before = (subscription.share, subscription.allocated());
        let is_first = subscription.allocation.replace(got).is_none();
        subscription.share = share;
        // Who asked for less may have more again at once.
        if !is_first && share != Share::ALL && got.target < before.1 {
            subscription.fell = Some(now);
        }
        if share == before.0 {
            return;
        }
        let (id, track_key) = (subscription.id, subscription.track);
        let Some(peer) = self.peers.get_mut(subscription.peer) else { return };
        let link = peer.downlink.estimator.state();
        let decision = Decision { at: now, subscription: id, reason: got.reason, link };
        peer.downlink.decisions.push(decision);
        let peer = peer.id;
        self.refresh_route(key);
        let mut is_cut = share.paused;
        if let Some(track) = self.tracks.get_mut(track_key).filter(|_| is_overloaded) {
            // Of a stream with spatial layers the lower one needs a keyframe too where it is apart.
            let is_above = |current: &u8| {
                track.streams.get(usize::from(*current)).is_some_and(|stream| {
                    let is_apart = stream.layers.is_apart(share.spatial);
                    stream.layer > share.spatial || is_apart && share.spatial < before.0.spatial
                })
            };
            if track.routes.iter().any(|route| {
                route.subscription == key && route.current.as_ref().is_some_and(is_above)
            }) && let Some(route) = track.route_mut(key)
            {
                route.current = None;
                is_cut = true;
            }
        }
        if is_cut {
            self.take_back(key);
        }
        self.choose_layers(now, track_key);
        if share.paused != before.0.paused {
            let paused = share.paused;
            self.event(MediaEvent::StreamPaused { peer, subscription: id, paused });
        }
    }

    /// Asks for a keyframe of what a subscription forwards, a packet of which has been lost here.
    pub(super) fn renew_picture(&mut self, now: Instant, key: Key<Subscription>) {
        let Some(track_key) = self.subscriptions.get(key).map(|known| known.track) else { return };
        let Some(track) = self.tracks.get_mut(track_key) else { return };
        if track.kind != TrackKind::Video {
            return;
        }
        let current = track.route_mut(key).and_then(|route| route.current);
        let stream = current.and_then(|at| track.streams.get_mut(usize::from(at)));
        if let Some(stream) = stream.filter(|stream| stream.keyframe.due().is_none()) {
            stream.keyframe.request(now, stream.layer);
            self.want_keyframes(track_key);
        }
    }
}

/// Whether something lacks room.
fn is_short(reason: &Reason) -> bool {
    matches!(reason, Reason::Estimate { .. } | Reason::Paused { .. } | Reason::MayNotPause { .. })
}

/// Whether it has what it wants of what is sent.
fn is_settled(reason: &Reason) -> bool {
    matches!(reason, Reason::Audio | Reason::Wanted { .. } | Reason::BestSent { .. })
}

const NOTHING: TrackDemand = TrackDemand {
    kind: Kind::Camera,
    priority: 0,
    shown_pixels: 0,
    bitrates: [[None; 4]; SPATIAL_MAX],
    heights: [0; SPATIAL_MAX],
    wanted: None,
    current: None,
    may_pause: false,
    may_rise: false,
};

fn bps(demand: &TrackDemand, layer: Layer) -> Option<u32> {
    let sent = demand.bitrates.iter().take(usize::from(layer.spatial) + 1).flatten();
    sent.flatten().copied().max()
}

fn demand(
    now: Instant,
    subscription: &Subscription,
    track: &Track,
    may_pause: bool,
) -> TrackDemand {
    let settings = &subscription.settings;
    let kind = match track.kind {
        TrackKind::Audio => Kind::Audio,
        TrackKind::Video if settings.is_screen => Kind::ScreenShare,
        TrackKind::Video => Kind::Camera,
    };
    let temporal = track.streams.iter().map(|stream| stream.rates.temporal_for(settings.max_fps));
    let best = Layer { spatial: settings.max_layer, temporal: temporal.max().unwrap_or(u8::MAX) };
    // What is paused asks for its place again, even if nothing came for a while.
    let mut bitrates = match track.has_ceased(now) && !subscription.share.paused {
        true => Default::default(),
        false => track.bitrates(now),
    };
    if kind == Kind::Audio && subscription.sheds_redundancy {
        let share = track.primary_share();
        let [[whole_bps, ..], ..] = &mut bitrates;
        *whole_bps = whole_bps.map(|bps| (f64::from(bps) * share) as u32);
    }
    TrackDemand {
        kind,
        priority: settings.priority,
        shown_pixels: settings.shown_pixels,
        bitrates,
        heights: settings.heights,
        wanted: settings.enabled.then_some(best),
        current: subscription.allocated(),
        may_pause: may_pause && settings.may_pause,
        may_rise: subscription.fell.is_none_or(|at| now >= at + RISE_WAIT),
    }
}
