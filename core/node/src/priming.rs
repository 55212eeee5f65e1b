//! Makes livekit-client able to send again what a resume interrupted.
//!
//! It keeps what it sends while it resumes, and sends it afterwards, behind the number of the
//! last message that the server says it has. Where that is 0, because nothing had been sent yet,
//! it takes it for no answer and keeps everything for ever (`RTCEngine.resumeConnection`:
//! `if (res?.lastMessageSeq)`). So it is asked something as soon as it can answer: its
//! acknowledgement takes the first number.

use crate::{host::Host, outside::Outside};
use livekit_protocol as proto;
use parlor_model::{DataChannel, ParticipantSid};
use parlor_signal::data;

/// A method that no application has.
const METHOD: &str = "parlor.first_message";

impl Host {
    /// Asks a client that needs it for a first reliable message, once both directions are open.
    pub(crate) fn prime(&mut self, cx: &mut Outside, sid: &ParticipantSid) {
        let Some(participant) = self.room.participant(sid) else { return };
        let may = participant.info.permissions.can_publish_data;
        let identity = participant.info.identity.to_string();
        let Some(member) = self.members.get_mut(sid) else { return };
        let channel = DataChannel::Reliable;
        let sends = member.connection.sends_on(channel);
        let Some(peer) = member.data_peer(channel).filter(|_| sends && may) else { return };
        let wanted = member.client.forgets_without_a_first_message() && member.last_sequence == 0;
        if !wanted || std::mem::replace(&mut member.primed, true) {
            return;
        }
        let request = proto::RpcRequest {
            id: cx.uuid(),
            method: METHOD.to_owned(),
            version: 1,
            ..Default::default()
        };
        let data = data::rpc_request(request, identity);
        cx.send_data(channel, &data, None, [peer]);
    }
}
