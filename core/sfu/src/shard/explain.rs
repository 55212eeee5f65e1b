//! Why a subscriber gets what it gets, for who asks.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parlor_congestion::{EstimatorState, Reason};
use parlor_model::{PeerId, SubscriptionId};

use super::Shard;

/// Decisions remembered of one peer.
pub const MAX_DECISIONS: usize = 64;

/// A change of what a subscription has of its subscriber's link.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decision {
    pub at: Instant,
    pub subscription: SubscriptionId,
    pub reason: Reason,
    pub link: EstimatorState,
}

/// The newest decisions about one peer's subscriptions, oldest first.
#[derive(Default)]
pub(crate) struct Decisions(VecDeque<Decision>);

impl Decisions {
    pub fn push(&mut self, decision: Decision) {
        if self.0.len() == MAX_DECISIONS {
            self.0.pop_front();
        }
        self.0.push_back(decision);
    }
}

/// What is known of the way to a peer, and what was decided by it.
#[derive(Clone, PartialEq, Debug)]
pub struct LinkReport {
    /// The peer.
    pub peer: PeerId,
    /// The estimate in a sentence; `None` where nothing limits, because the peer gives no feedback.
    pub link: Option<String>,
    /// Each subscription with why it has what it has.
    pub subscriptions: Vec<(SubscriptionId, String)>,
    /// The newest changes, oldest first, [`MAX_DECISIONS`] at most.
    pub decisions: Vec<DecisionReport>,
}

/// A change of what a subscription has.
#[derive(Clone, PartialEq, Debug)]
pub struct DecisionReport {
    /// How long ago.
    pub ago: Duration,
    /// The subscription.
    pub subscription: SubscriptionId,
    /// What it has since then, and why.
    pub reason: String,
    /// The estimate at that moment, in a sentence.
    pub link: String,
}

impl Shard {
    /// Why the peers get what they get: those that are sent anything.
    pub fn explain(&self, now: Instant) -> Vec<LinkReport> {
        let subscribers = self.peer_keys.iter().filter_map(|(id, key)| {
            let peer = self.peers.get(*key)?;
            (!peer.subscriptions.is_empty()).then_some((*id, peer))
        });
        let explain = |(id, peer): (PeerId, &crate::peer::Peer)| {
            let link = &peer.downlink;
            let reasons = peer.subscriptions.iter().filter_map(|key| {
                let subscription = self.subscriptions.get(*key)?;
                let reason = subscription.allocation?.reason;
                Some((subscription.id, reason.to_string()))
            });
            let tell = |decision: &Decision| DecisionReport {
                ago: now.saturating_duration_since(decision.at),
                subscription: decision.subscription,
                reason: decision.reason.to_string(),
                link: decision.link.to_string(),
            };
            LinkReport {
                peer: id,
                link: link.is_limited().then(|| {
                    let state = link.estimator.state();
                    let waiting = link.pacer.queued_bytes();
                    format!("{state}; {waiting} bytes wait for their turn")
                }),
                subscriptions: reasons.collect(),
                decisions: link.decisions.0.iter().map(tell).collect(),
            }
        };
        subscribers.map(explain).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_congestion::Estimator;

    #[test]
    fn the_newest_decisions_are_remembered() {
        let now = Instant::now();
        let link = Estimator::new(now, 1_000_000).state();
        let mut decisions = Decisions::default();
        for n in 0..=MAX_DECISIONS as u32 {
            let subscription = SubscriptionId(n);
            decisions.push(Decision { at: now, subscription, reason: Reason::Audio, link });
        }
        assert_eq!(decisions.0.len(), MAX_DECISIONS);
        assert_eq!(decisions.0.front().map(|first| first.subscription), Some(SubscriptionId(1)));
    }
}
