//! Negotiation: which descriptions go to and fro, in LiveKit's two connection models.

mod offered;
mod pair;
mod single;

use crate::{
    outside::{Address, Outside},
    peer::{Peer, PeerSettings},
};
use livekit_protocol::{SessionDescription, SignalTarget, signal_response::Message};
pub use offered::CANDIDATES_BEFORE_OFFER_MAX;
use pair::Pair;
use parlor_model::{DataChannel, Now, PeerId, ShardId, SubscriptionId, TrackId};
use parlor_sdp::{PublishedTrack, ReceivedSection, SdpError, SendSource, SendTrack};
use parlor_signal::client::Client;
use single::Single;
use std::time::Instant;

/// The peer connections of a participant.
#[derive(Debug)]
pub(crate) enum Connection {
    /// One, which the client offers.
    Single(Box<Single>),
    /// One to publish, which the client offers, and one to subscribe, which we offer.
    Pair(Box<Pair>),
}

/// What a description of the client brought.
#[derive(Debug, Default)]
pub(crate) struct Negotiated {
    /// What to tell the client, in order.
    pub(crate) messages: Vec<Message>,
    /// Sections in which the client sends, or sent until now.
    pub(crate) received: Vec<ReceivedSection>,
    /// Subscriptions that have their section, and the encoding that it carries.
    pub(crate) carried: Vec<(SubscriptionId, TrackId)>,
    /// Subscriptions whose codecs the client does not have.
    pub(crate) unsupported: Vec<SubscriptionId>,
}

/// An answer of the client that does not fit our offer: both sides have to begin anew.
#[derive(Debug)]
pub(crate) struct Mismatch(pub(crate) SdpError);

impl Connection {
    pub(crate) fn single(cx: &mut Outside, now: Now, settings: PeerSettings) -> Self {
        Self::Single(Box::new(Single::new(cx, now, settings)))
    }

    pub(crate) fn pair(
        cx: &mut Outside,
        now: Now,
        settings: PeerSettings,
        client: &Client,
        subscriber_primary: bool,
    ) -> Self {
        Self::Pair(Box::new(Pair::new(cx, now, settings, client, subscriber_primary)))
    }

    /// Whether the server offers the connection that counts.
    pub(crate) fn is_subscriber_primary(&self) -> bool {
        matches!(self, Self::Pair(pair) if pair.subscriber_primary)
    }

    /// The peer whose state is that of the participant, and which carries data to it.
    pub(crate) fn primary(&self) -> Option<&Peer> {
        match self {
            Self::Single(single) => single.offered.peer.as_ref(),
            Self::Pair(pair) if pair.subscriber_primary => Some(&pair.subscriber.peer),
            Self::Pair(pair) => pair.publisher.peer.as_ref(),
        }
    }

    /// The peer over which it is sent media.
    pub(crate) fn receiving(&self) -> Option<&Peer> {
        match self {
            Self::Single(single) => single.offered.peer.as_ref(),
            Self::Pair(pair) => Some(&pair.subscriber.peer),
        }
    }

    pub(crate) fn peers(&self) -> impl Iterator<Item = &Peer> {
        let (offered, subscriber) = match self {
            Self::Single(single) => (&single.offered, None),
            Self::Pair(pair) => (&pair.publisher, Some(&pair.subscriber.peer)),
        };
        offered.peer.iter().chain(subscriber)
    }

    /// The participant is somebody else now, in another room.
    pub(crate) fn set_address(&mut self, address: Address) {
        let offered = match self {
            Self::Single(single) => &mut single.offered,
            Self::Pair(pair) => &mut pair.publisher,
        };
        offered.settings.address = address;
    }

    /// The media thread that its peers are on.
    pub(crate) fn shard(&self) -> ShardId {
        match self {
            Self::Single(single) => single.offered.settings.shard,
            Self::Pair(pair) => pair.publisher.settings.shard,
        }
    }

    pub(crate) fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        let (offered, subscriber) = match self {
            Self::Single(single) => (&mut single.offered, None),
            Self::Pair(pair) => (&mut pair.publisher, Some(&mut pair.subscriber.peer)),
        };
        offered.peer.iter_mut().chain(subscriber).find(|peer| peer.id == id)
    }

    /// Whether a channel of the client's own is open.
    pub(crate) fn sends_on(&self, channel: DataChannel) -> bool {
        let peer = match self {
            Self::Single(single) => &single.offered.peer,
            Self::Pair(pair) => &pair.publisher.peer,
        };
        peer.as_ref().is_some_and(|peer| peer.open_channels.contains(&channel))
    }

    pub(crate) fn handle_offer(
        &mut self,
        cx: &mut Outside,
        offer: &SessionDescription,
        publications: &[PublishedTrack],
    ) -> Result<Negotiated, SdpError> {
        match self {
            Self::Single(single) => single.offered.handle_offer(cx, offer, publications),
            Self::Pair(pair) => pair.publisher.handle_offer(cx, offer, publications),
        }
    }

    /// Applies an answer; `None` for one that answers nothing.
    pub(crate) fn handle_answer(
        &mut self,
        cx: &mut Outside,
        answer: &SessionDescription,
    ) -> Result<Option<Negotiated>, Mismatch> {
        match self {
            Self::Single(_) => Ok(None),
            Self::Pair(pair) => pair.subscriber.handle_answer(cx, answer),
        }
    }

    pub(crate) fn add_candidate(
        &mut self,
        cx: &mut Outside,
        target: SignalTarget,
        candidate: String,
    ) {
        match (self, target) {
            (Self::Single(single), _) => single.offered.add_candidate(cx, candidate),
            (Self::Pair(pair), SignalTarget::Publisher) => {
                pair.publisher.add_candidate(cx, candidate);
            }
            (Self::Pair(pair), SignalTarget::Subscriber) => {
                pair.subscriber.peer.add_candidate(cx, candidate);
            }
        }
    }

    /// Looks again for the publications of sections that were offered before they were announced.
    pub(crate) fn match_publications(
        &mut self,
        cx: &mut Outside,
        publications: &[PublishedTrack],
    ) -> Vec<ReceivedSection> {
        match self {
            Self::Single(single) => single.offered.match_publications(cx, publications),
            Self::Pair(pair) => pair.publisher.match_publications(cx, publications),
        }
    }

    pub(crate) fn add_send(&mut self, send: SendTrack) {
        match self {
            Self::Single(single) => single.offered.answerer.add_send(send),
            Self::Pair(pair) => pair.subscriber.add_send(send),
        }
    }

    /// Takes other encodings for a subscription. Returns what the connection carries then.
    pub(crate) fn set_sources(
        &mut self,
        cx: &mut Outside,
        subscription: SubscriptionId,
        sources: &[SendSource],
    ) -> Vec<(SubscriptionId, TrackId)> {
        match self {
            Self::Single(single) => single.offered.set_sources(cx, subscription, sources),
            Self::Pair(pair) => pair.subscriber.set_sources(cx, subscription, sources),
        }
    }

    pub(crate) fn remove_send(&mut self, subscription: SubscriptionId) -> bool {
        match self {
            Self::Single(single) => single.offered.answerer.remove_send(subscription),
            Self::Pair(pair) => pair.subscriber.offerer.remove_send(subscription),
        }
    }

    /// Our part of an ICE restart when a session is resumed: of the connection that we offer. The
    /// client restarts its own.
    pub(crate) fn restart_ice(&mut self, cx: &mut Outside) {
        match self {
            Self::Single(_) => {}
            Self::Pair(pair) => pair.subscriber.restart_ice(cx),
        }
    }

    /// Whether TCP is to be the only way from the next ICE restart on.
    pub(crate) fn prefer_tcp(&mut self, tcp_only: bool) {
        let (offered, subscriber) = match self {
            Self::Single(single) => (&mut single.offered, None),
            Self::Pair(pair) => (&mut pair.publisher, Some(&mut pair.subscriber.peer)),
        };
        offered.settings.tcp_only = tcp_only;
        for peer in offered.peer.iter_mut().chain(subscriber) {
            peer.tcp_only = tcp_only;
        }
    }

    /// Whatever must be said now so that the connection comes to carry what it should.
    pub(crate) fn negotiate(&mut self, now: Now) -> Vec<Message> {
        match self {
            Self::Single(single) => single.negotiate().into_iter().collect(),
            Self::Pair(pair) => pair.subscriber.negotiate(now),
        }
    }

    /// Since when an offer of ours waits for its answer.
    pub(crate) fn unanswered_since(&self) -> Option<Instant> {
        match self {
            Self::Single(_) => None,
            Self::Pair(pair) => pair.subscriber.unanswered_since(),
        }
    }

    pub(crate) fn close(&self, cx: &mut Outside) {
        for peer in self.peers() {
            peer.close(cx);
        }
    }
}
