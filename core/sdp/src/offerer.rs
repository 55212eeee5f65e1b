//! The server offers.
use crate::{Applied, LocalTransport, Offer, SdpError, SendTrack};
use parlor_model::{Codec, MediaDescription, SubscriptionId};

/// The offering side of the subscriber connection of `/rtc`.
#[derive(Clone, Debug)]
pub struct Offerer {}
#[allow(missing_docs, unused_variables)]
impl Offerer {
    /// `session_id` is random; `first_offer_id` is random below 256.
    pub fn new(session_id: u64, unix_seconds: u64, first_offer_id: u32, codecs: &[Codec]) -> Self {
        Self {}
    }
    /// Sends a track from the next offer on.
    pub fn add_send(&mut self, send: SendTrack) {}
    /// Stops sending a track. Returns whether it was there.
    pub fn remove_send(&mut self, subscription: SubscriptionId) -> bool {
        false
    }
    /// The next offer, when one is due and none is outstanding. Other ICE credentials than in the last offer make one due at once.
    pub fn poll_offer(&mut self, local: &LocalTransport) -> Option<Offer> {
        None
    }
    /// Applies the answer with this id; `None` for a stale one.
    pub fn handle_answer(&mut self, id: u32, answer: &str) -> Result<Option<Applied>, SdpError> {
        Ok(None)
    }
    /// What the connection carries now.
    pub fn description(&self) -> MediaDescription {
        MediaDescription::default()
    }
}
