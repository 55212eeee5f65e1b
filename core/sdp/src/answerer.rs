//! The client offers.
use crate::{
    Answer, ConnectionModel, LocalTransport, PublishedTrack, ReceivedSection, Requirement,
    SdpError, SendTrack,
};
use parlor_model::{Codec, MediaDescription, SubscriptionId};

/// The answering side of a connection that the client offers.
#[derive(Clone, Debug)]
pub struct Answerer {}
#[allow(missing_docs, unused_variables)]
impl Answerer {
    /// `session_id` is random; `unix_seconds` is the version of the first description.
    pub fn new(
        session_id: u64,
        unix_seconds: u64,
        model: ConnectionModel,
        codecs: &[Codec],
    ) -> Self {
        Self {}
    }
    /// Sends a track from the next answer on (single connection only).
    pub fn add_send(&mut self, send: SendTrack) {}
    /// Stops sending a track. Returns whether it was there.
    pub fn remove_send(&mut self, subscription: SubscriptionId) -> bool {
        false
    }
    /// Whether this offer has other ICE credentials than the one before: make new ones for the answer.
    pub fn is_ice_restart(&self, offer: &str) -> Result<bool, SdpError> {
        Ok(false)
    }
    /// Answers a client's offer.
    pub fn handle_offer(
        &mut self,
        offer: &str,
        local: &LocalTransport,
        publications: &[PublishedTrack],
    ) -> Result<Answer, SdpError> {
        Err(SdpError::Description("not written yet"))
    }
    /// Matches sections without a track with publications that came after the offer. Then see `received` and `description`.
    pub fn match_publications(&mut self, publications: &[PublishedTrack]) {}
    /// Sections in which the client sends now.
    pub fn received(&self) -> Vec<ReceivedSection> {
        Vec::new()
    }
    /// What the connection carries now.
    pub fn description(&self) -> MediaDescription {
        MediaDescription::default()
    }
    /// What the client must be told; `Some` once until its next offer.
    pub fn media_sections_requirement(&mut self) -> Option<Requirement> {
        None
    }
}
