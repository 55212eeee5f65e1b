//! Reliable data of a room for a while after it was sent, so that a session that goes on after a
//! break lacks none of it.

use crate::{host::Host, outside::Outside};
use bytes::Bytes;
use parlor_model::{DataChannel, ParticipantSid};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Bytes of sent reliable data that a room keeps.
pub const SENT_DATA_BYTES_MAX: usize = 1 << 20;
/// How long it keeps them: longer than anybody is kept for a resume.
pub const SENT_DATA_TTL: Duration = Duration::from_secs(30);

/// What was relayed, oldest first.
#[derive(Debug, Default)]
pub(crate) struct SentData {
    packets: VecDeque<Sent>,
    bytes: usize,
}

#[derive(Debug)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    pub(crate) sender: ParticipantSid,
    /// The sender's number.
    pub(crate) sequence: u32,
    pub(crate) data: Bytes,
    /// `None` for all.
    pub(crate) recipients: Option<Vec<ParticipantSid>>,
}

impl SentData {
    pub(crate) fn push(&mut self, sent: Sent) {
        let now = sent.at;
        self.bytes += sent.data.len();
        self.packets.push_back(sent);
        while let Some(oldest) = self.packets.front()
            && (self.bytes > SENT_DATA_BYTES_MAX || now >= oldest.at + SENT_DATA_TTL)
        {
            self.bytes -= oldest.data.len();
            self.packets.pop_front();
        }
    }

    /// What `sender` sent to `recipient` after its packet `last`.
    fn after<'a>(
        &'a self,
        sender: &'a ParticipantSid,
        recipient: &'a ParticipantSid,
        last: u32,
    ) -> impl Iterator<Item = &'a Bytes> {
        let is_for = move |sent: &&Sent| {
            sent.sender == *sender
                && sent.sequence > last
                && sent.recipients.as_ref().is_none_or(|sids| sids.contains(recipient))
        };
        self.packets.iter().filter(is_for).map(|sent| &sent.data)
    }
}

impl Host {
    /// Sends again what a client lacks of a publisher's reliable data. It passes over what it
    /// gets twice, as its own retransmissions are passed over here.
    pub(crate) fn resend(
        &self,
        cx: &mut Outside,
        sid: &ParticipantSid,
        publisher: &ParticipantSid,
        last_sequence: u32,
    ) {
        let channel = DataChannel::Reliable;
        // Where the channel is not open yet, everything is held and goes out when it is.
        let Some(peer) = self.members.get(sid).and_then(|member| member.data_peer(channel)) else {
            return;
        };
        for data in self.sent_data.after(publisher, sid, last_sequence) {
            cx.send_data(channel, data, None, [peer]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sent_data_is_bounded_in_bytes_and_time() {
        let now = Instant::now();
        let mut sent = SentData::default();
        let mut push = |at, sequence, bytes, to: Option<&str>| {
            sent.push(Sent {
                at,
                sender: "PA_a".into(),
                sequence,
                data: Bytes::from(vec![0; bytes]),
                recipients: to.map(|to| vec![to.into()]),
            });
            (sent.packets.len(), sent.bytes)
        };
        push(now, 1, SENT_DATA_BYTES_MAX / 2, None);
        push(now, 2, SENT_DATA_BYTES_MAX / 2, Some("PA_b"));
        assert_eq!(push(now, 3, 1, None), (2, SENT_DATA_BYTES_MAX / 2 + 1));
        assert_eq!(push(now + SENT_DATA_TTL, 4, 7, None), (1, 7));
    }

    #[test]
    fn only_what_was_for_somebody_and_is_newer_is_sent_again() {
        let mut sent = SentData::default();
        for (sequence, to) in [(1, None), (2, Some("PA_b")), (3, Some("PA_c")), (4, None)] {
            sent.push(Sent {
                at: Instant::now(),
                sender: "PA_a".into(),
                sequence,
                data: Bytes::from(vec![sequence as u8]),
                recipients: to.map(|to| vec![to.into()]),
            });
        }
        let (alice, bob) = ("PA_a".into(), "PA_b".into());
        let after = |last| sent.after(&alice, &bob, last).count();
        assert_eq!([after(0), after(1), after(2), after(4)], [3, 2, 1, 0]);
        assert_eq!(sent.after(&bob, &bob, 0).count(), 0);
    }
}
