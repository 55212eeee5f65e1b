//! Repair ahead of need. Over a long way what is asked for again comes a round trip and a half too
//! late, and the picture stands meanwhile; so where the link itself loses and has the room, video
//! leaves once more without being asked for.

use std::time::{Duration, Instant};

use parlor_congestion::Priority;
use parlor_model::TrackKind;

use super::{Shard, owe::sent_bytes};
use crate::{
    arena::Key,
    downlink::Downlink,
    forward::{Queued, Sending},
    peer::Peer,
};

/// A receiver that plays with little delay can not wait for a repair that takes this long.
const LONG_ROUND_TRIP: Duration = Duration::from_millis(250);
/// It begins where there is so much more room than is used, and goes on down to the second.
const ROOM: [f64; 2] = [2.1, 1.8];
/// A burst of losses is mostly over after this time, and a picture not yet missed.
const AFTER_MS: u16 = 50;
/// What is older is asked for by now.
const TOO_LATE_MS: u16 = 250;
/// How often it is looked for.
const INTERVAL: Duration = Duration::from_millis(25);
/// So many packets are looked through at most.
const PACKETS_MAX: u64 = 512;

impl Downlink {
    /// Whether what the link loses can not be repaired in time, be its queues empty or not.
    pub(super) fn is_far(&self, now: Instant) -> bool {
        if !self.estimator.has_lost_lately(now) {
            return false;
        }
        let link = self.estimator.state();
        let queue = Duration::try_from_secs_f64(link.queue_delay_ms / 1000.0).unwrap_or_default();
        link.rtt.saturating_sub(queue) >= LONG_ROUND_TRIP
    }

    /// What probes look for beside what is wanted: a little more than the room that it takes.
    pub(super) fn ahead_bps(&self, is_far: bool) -> u64 {
        if is_far { self.used_bps * 5 / 4 } else { 0 }
    }

    /// Whether video leaves twice from now on, by what of the estimate is used.
    pub(super) fn decide_ahead(&mut self, is_far: bool, is_short: bool) -> bool {
        let [begins, goes_on] = ROOM;
        let room = if self.repairs_ahead { goes_on } else { begins };
        let fits = self.shared_bps() as f64 >= room * self.used_bps as f64;
        self.repairs_ahead = is_far && !is_short && fits;
        self.repairs_ahead
    }
}

impl Shard {
    /// Sends once more what left a moment ago.
    pub(super) fn repair_ahead(&mut self, now: Instant, key: Key<Peer>) {
        let now_us = self.micros(now);
        let now_ms = (now_us / 1000) as u32;
        let Some(peer) = self.peers.get_mut(key).filter(|peer| peer.downlink.repairs_ahead) else {
            return;
        };
        for &subscription_key in &peer.subscriptions {
            let Some(subscription) = self.subscriptions.get_mut(subscription_key) else { continue };
            let track = self.tracks.get(subscription.track);
            let Some(track) = track.filter(|track| track.kind == TrackKind::Video) else {
                continue;
            };
            if subscription.section.rtx_ssrc.is_none() || !subscription.settings.enabled {
                continue;
            }
            let highest = subscription.sent.highest();
            let first = subscription.ahead.max(highest.saturating_sub(PACKETS_MAX));
            for number in first.max(subscription.useless_below)..=highest {
                let sent = subscription.sent.get_mut(number).filter(|sent| !sent.was_resent());
                if sent.as_ref().is_some_and(|sent| sent.age_ms(now_ms) < AFTER_MS) {
                    break;
                }
                subscription.ahead = number + 1;
                let Some(sent) = sent.filter(|sent| sent.age_ms(now_ms) <= TOO_LATE_MS) else {
                    continue;
                };
                sent.note_resend(now_ms);
                let size_bytes = sent_bytes(Some(track), sent);
                let sending = Sending::Rtx { number: subscription.next_rtx };
                subscription.next_rtx += 1;
                let queued = Queued { subscription: subscription_key, number, sending };
                let pacer = &mut peer.downlink.pacer;
                if pacer.push(now_us, queued, size_bytes, Priority::Retransmission).is_err() {
                    self.counters.unsent_queue_full += 1;
                }
                self.counters.sent_ahead += 1;
            }
        }
        peer.deadlines.ahead = Some(now + INTERVAL);
        self.mark_ready(key);
    }
}
