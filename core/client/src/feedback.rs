//! What a client tells of its link in other ways than transport-wide feedback.

use crate::Client;
use parlor_model::Bitrate;

impl Client {
    /// Neither offers nor answers transport-wide feedback, as clients do that do not know it. To be
    /// said before anything is offered.
    pub fn refuse_transport_feedback(&mut self) {
        self.refuses_transport_feedback = true;
        self.own_sdp.refuse_transport_feedback();
    }

    /// Tells the server what we take our link to carry (draft-alvestrand-rmcat-remb-03).
    pub fn send_remb(&mut self, bitrate: Bitrate) {
        let receiving = match &mut self.subscriber {
            Some((connection, _)) => connection,
            None => &mut self.own,
        };
        receiving.media.send_remb(bitrate);
    }
}
