//! Subscriptions that are paused for want of bandwidth, and go on.

use crate::{node::Node, outside::Address};
use livekit_protocol as proto;
use parlor_model::{Now, PeerId, SubscriptionId};
use proto::signal_response::Message;

impl Node {
    /// Tells a subscriber that a stream has paused, or is active again.
    pub(crate) fn stream_paused(
        &mut self,
        now: Now,
        peer: PeerId,
        subscription: SubscriptionId,
        paused: bool,
    ) {
        let Some(Address { room, participant }) = self.outside.peers.get(&peer).cloned() else {
            return;
        };
        self.with_host(now, &room, |host, outside| {
            let Some(member) = host.members.get(&participant) else { return };
            let mut known = member.subscriptions.iter();
            let track = known.find(|(_, id)| **id == subscription).map(|(track, _)| track);
            let Some(track) = track.and_then(|track| host.room.track(track)) else { return };
            let state = match paused {
                true => proto::StreamState::Paused,
                false => proto::StreamState::Active,
            };
            let info = proto::StreamStateInfo {
                participant_sid: track.publisher.to_string(),
                track_sid: track.sid.to_string(),
                state: state.into(),
            };
            let update = proto::StreamStateUpdate { stream_states: vec![info] };
            host.send(outside, &participant, Message::StreamStateUpdate(update));
        });
    }
}
