//! `/rtc`: the client offers what it publishes, we offer what it receives.

use super::{Mismatch, Negotiated, offered::Offered};
use crate::{
    outside::Outside,
    peer::{Peer, PeerSettings},
};
use livekit_protocol::{SessionDescription, SignalTarget, signal_response::Message};
use parlor_model::{Now, SubscriptionId, TrackId};
use parlor_sdp::{ConnectionModel, Offerer, SendSource, SendTrack};
use parlor_signal::{client::Client, response};
use std::time::Instant;

#[derive(Debug)]
pub(crate) struct Pair {
    /// Opened when the client offers it, which it does when it has something to send.
    pub(crate) publisher: Offered,
    pub(crate) subscriber: Subscriber,
    /// Fixed when the participant joins, whatever it may do later.
    pub(crate) subscriber_primary: bool,
}

#[derive(Debug)]
pub(crate) struct Subscriber {
    pub(crate) offerer: Offerer,
    pub(crate) peer: Peer,
    /// The id of the offer that waits for its answer, and since when.
    unanswered: Option<(u32, Instant)>,
    /// Whether there was a reason to offer: the primary connection is offered at once, another
    /// one with the first subscription.
    needed: bool,
}

impl Pair {
    pub(crate) fn new(
        cx: &mut Outside,
        now: Now,
        settings: PeerSettings,
        client: &Client,
        subscriber_primary: bool,
    ) -> Self {
        let (id, first_offer_id) = (cx.description_id(), cx.first_offer_id());
        let seconds = now.unix.as_secs();
        let mut offerer = Offerer::new(id, seconds, first_offer_id, &settings.receive_codecs);
        if client.overlooks_returns() {
            offerer.avoid_returns();
        }
        if settings.playout_delay {
            offerer.allow_playout_delay();
        }
        let subscriber = Subscriber {
            offerer,
            peer: Peer::open(cx, &settings, true),
            unanswered: None,
            needed: subscriber_primary,
        };
        let publisher = Offered::new(cx, now, settings, ConnectionModel::Publisher);
        Self { publisher, subscriber, subscriber_primary }
    }
}

impl Subscriber {
    pub(crate) fn add_send(&mut self, send: SendTrack) {
        self.needed = true;
        self.offerer.add_send(send);
    }

    /// See [`Offerer::set_sources`]. Returns what the connection carries then.
    pub(crate) fn set_sources(
        &mut self,
        cx: &mut Outside,
        subscription: SubscriptionId,
        sources: &[SendSource],
    ) -> Vec<(SubscriptionId, TrackId)> {
        self.offerer.set_sources(subscription, sources);
        self.peer.set_media(cx, self.offerer.description())
    }

    /// The next offer, if one is due and none is unanswered, with our candidates after the first.
    pub(crate) fn negotiate(&mut self, now: Now) -> Vec<Message> {
        if !self.needed {
            return Vec::new();
        }
        let Some(offer) = self.offerer.poll_offer(&self.peer.local) else { return Vec::new() };
        self.unanswered = Some((offer.id, now.instant));
        let tracks = offer.mid_to_track_id.into_iter().map(|(mid, track)| (mid.to_string(), track));
        let description = response::session_description("offer", offer.sdp, offer.id, tracks);
        let mut messages = vec![Message::Offer(description)];
        messages.extend(self.peer.trickle(SignalTarget::Subscriber));
        messages
    }

    /// The next offer restarts ICE, if there ever was one.
    pub(crate) fn restart_ice(&mut self, cx: &mut Outside) {
        if self.needed {
            self.peer.restart_ice(cx);
        }
    }

    pub(crate) fn handle_answer(
        &mut self,
        cx: &mut Outside,
        answer: &SessionDescription,
    ) -> Result<Option<Negotiated>, Mismatch> {
        // Native clients leave the id out; no offer of ours has the id 0.
        let id = match (answer.id, self.unanswered) {
            (0, Some((unanswered, _))) => unanswered,
            (id, _) => id,
        };
        let applied = self.offerer.handle_answer(id, &answer.sdp).map_err(Mismatch)?;
        let Some(applied) = applied else { return Ok(None) };
        self.unanswered = None;
        self.peer.set_remote(cx, applied.remote);
        let carried = self.peer.set_media(cx, applied.description);
        for candidate in applied.remote_candidates {
            self.peer.add_candidate(cx, candidate);
        }
        Ok(Some(Negotiated { carried, unsupported: applied.unsupported, ..Negotiated::default() }))
    }

    pub(crate) fn unanswered_since(&self) -> Option<Instant> {
        self.unanswered.map(|(_, since)| since)
    }
}
