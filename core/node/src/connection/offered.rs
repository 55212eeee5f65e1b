//! A connection that the client offers.

use super::Negotiated;
use crate::{
    outside::Outside,
    peer::{CANDIDATE_BYTES_MAX, Peer, PeerSettings},
};
use livekit_protocol::{SessionDescription, SignalTarget, signal_response::Message};
use parlor_model::{Now, SubscriptionId, TrackId};
use parlor_sdp::{
    Answerer, ConnectionModel, PublishedTrack, ReceivedSection, SdpError, SendSource,
};
use parlor_signal::response;

/// Most candidates that are kept while the offer that they belong to has not come.
pub const CANDIDATES_BEFORE_OFFER_MAX: usize = 32;

#[derive(Debug)]
pub(crate) struct Offered {
    pub(crate) answerer: Answerer,
    /// Opened by the first offer.
    pub(crate) peer: Option<Peer>,
    pub(super) settings: PeerSettings,
    early_candidates: Vec<String>,
}

impl Offered {
    pub(crate) fn new(
        cx: &mut Outside,
        now: Now,
        settings: PeerSettings,
        model: ConnectionModel,
    ) -> Self {
        let id = cx.description_id();
        let codecs = match model {
            ConnectionModel::Publisher => &settings.publish_codecs,
            ConnectionModel::Single => &settings.receive_codecs,
        };
        let mut answerer = Answerer::new(id, now.unix.as_secs(), model, codecs);
        if settings.playout_delay {
            answerer.allow_playout_delay();
        }
        Self { answerer, peer: None, settings, early_candidates: Vec::new() }
    }

    pub(crate) fn handle_offer(
        &mut self,
        cx: &mut Outside,
        offer: &SessionDescription,
        publications: &[PublishedTrack],
    ) -> Result<Negotiated, SdpError> {
        // Parses the offer, so that one which is no SDP opens nothing.
        let restart = self.answerer.is_ice_restart(&offer.sdp)?;
        let peer = self.peer.get_or_insert_with(|| Peer::open(cx, &self.settings, false));
        if restart {
            peer.restart_ice(cx);
        }
        let answer = self.answerer.handle_offer(&offer.sdp, &peer.local, publications)?;
        peer.set_remote(cx, answer.remote);
        let carried = peer.set_media(cx, answer.description);
        let early = std::mem::take(&mut self.early_candidates);
        for candidate in answer.remote_candidates.into_iter().chain(early) {
            peer.add_candidate(cx, candidate);
        }
        let tracks =
            answer.mid_to_track_id.into_iter().map(|(mid, track)| (mid.to_string(), track));
        let description = response::session_description("answer", answer.sdp, offer.id, tracks);
        let mut messages = vec![Message::Answer(description)];
        messages.extend(peer.trickle(SignalTarget::Publisher));
        Ok(Negotiated {
            messages,
            received: answer.received,
            carried,
            unsupported: answer.unsupported,
        })
    }

    pub(crate) fn match_publications(
        &mut self,
        cx: &mut Outside,
        publications: &[PublishedTrack],
    ) -> Vec<ReceivedSection> {
        let Some(peer) = &mut self.peer else { return Vec::new() };
        if self.answerer.received().iter().all(|section| section.track.is_some()) {
            return Vec::new();
        }
        self.answerer.match_publications(publications);
        peer.set_media(cx, self.answerer.description());
        self.answerer.received()
    }

    /// See [`Answerer::set_sources`]. Returns what the connection carries then.
    pub(crate) fn set_sources(
        &mut self,
        cx: &mut Outside,
        subscription: SubscriptionId,
        sources: &[SendSource],
    ) -> Vec<(SubscriptionId, TrackId)> {
        self.answerer.set_sources(subscription, sources);
        let Some(peer) = &mut self.peer else { return Vec::new() };
        peer.set_media(cx, self.answerer.description())
    }

    pub(crate) fn add_candidate(&mut self, cx: &mut Outside, candidate: String) {
        match &mut self.peer {
            Some(peer) => peer.add_candidate(cx, candidate),
            None => {
                if self.early_candidates.len() < CANDIDATES_BEFORE_OFFER_MAX
                    && candidate.len() <= CANDIDATE_BYTES_MAX
                {
                    self.early_candidates.push(candidate);
                }
            }
        }
    }
}
