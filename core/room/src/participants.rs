//! Everybody in a room.

use crate::Participant;
use parlor_model::ParticipantSid;
use std::{collections::BTreeMap, ops::Deref};

/// By sid. Whoever may have been changed loses what was kept of it.
#[derive(Debug, Default)]
pub(crate) struct Participants(BTreeMap<ParticipantSid, Participant>);

impl Participants {
    pub(crate) fn get_mut(&mut self, sid: &ParticipantSid) -> Option<&mut Participant> {
        let participant = self.0.get_mut(sid)?;
        participant.kept.0.take();
        Some(participant)
    }

    pub(crate) fn insert(&mut self, sid: ParticipantSid, participant: Participant) {
        self.0.insert(sid, participant);
    }

    pub(crate) fn remove(&mut self, sid: &ParticipantSid) -> Option<Participant> {
        let mut gone = self.0.remove(sid)?;
        gone.kept.0.take();
        Some(gone)
    }
}

/// To look at them; there is no other way to change one than those above.
impl Deref for Participants {
    type Target = BTreeMap<ParticipantSid, Participant>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}
