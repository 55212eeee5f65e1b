//! `/rtc/v1`: the client offers the one connection, and is asked to offer again when what it
//! receives changes.

use super::offered::Offered;
use crate::{outside::Outside, peer::PeerSettings};
use livekit_protocol::{MediaSectionsRequirement, signal_response::Message};
use parlor_model::Now;
use parlor_sdp::ConnectionModel;

#[derive(Debug)]
pub(crate) struct Single {
    pub(crate) offered: Offered,
}

impl Single {
    pub(crate) fn new(cx: &mut Outside, now: Now, settings: PeerSettings) -> Self {
        Self { offered: Offered::new(cx, now, settings, ConnectionModel::Single) }
    }

    /// Until the first offer has come, that offer is what is waited for.
    pub(crate) fn negotiate(&mut self) -> Option<Message> {
        self.offered.peer.as_ref()?;
        let requirement = self.offered.answerer.media_sections_requirement()?;
        Some(Message::MediaSectionsRequirement(MediaSectionsRequirement {
            num_audios: requirement.num_audios,
            num_videos: requirement.num_videos,
        }))
    }
}
