//! A session that goes on with another signal socket.

use crate::{Client, Model};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use livekit_protocol::{self as proto, signal_request::Message as Request};
use parlor_model::{IceCredentials, Now};
use prost::Message as _;

impl Client {
    /// Path and query of the WebSocket that replaces the one that is gone. ICE restarts on every
    /// connection, and the server will be told what has come of each publisher's reliable data.
    /// What waits for the signal socket goes out on the new one.
    pub fn resume(
        &mut self,
        now: Now,
        participant_sid: &str,
        datachannel_receive_states: Vec<proto::DataChannelReceiveState>,
    ) -> (&'static str, Vec<(String, String)>) {
        let fresh = [(); 2].map(|()| self.draw_credentials());
        for (connection, ice) in self.connections_mut().zip(fresh) {
            connection.ice = ice.clone();
            connection.transport.restart_ice(now.instant, ice);
        }
        let published = |(cid, track): (&String, &proto::TrackInfo)| {
            proto::TrackPublishedResponse { cid: cid.clone(), track: Some(track.clone()) }
        };
        let [refused, wanted] = [false, true].map(|subscribe| {
            let chosen = self.chosen.iter().filter(|(_, chosen)| **chosen == subscribe);
            let track_sids = chosen.map(|(sid, _)| sid.clone()).collect();
            proto::UpdateSubscription { track_sids, subscribe, ..Default::default() }
        });
        let state = proto::SyncState {
            subscription: Some(refused),
            publish_tracks: self.published.iter().map(published).collect(),
            datachannel_receive_states,
            track_sids_disabled: self.disabled.iter().cloned().collect(),
            ..Default::default()
        };
        self.request(Request::SyncState(state));
        if !wanted.track_sids.is_empty() {
            self.request(Request::Subscription(wanted));
        }
        // What the server has taken without our knowing comes before the answer to this.
        self.ping(now);
        self.has_resumed = true;
        self.offer_anew();
        let sid = participant_sid.to_owned();
        match self.model() {
            Model::Single => ("/rtc/v1", vec![("join_request".into(), join_request(sid))]),
            Model::Pair => {
                let query = [("reconnect", "1".to_owned()), ("sid", sid)];
                ("/rtc", query.map(|(key, value)| (key.to_owned(), value)).into())
            }
        }
    }

    /// Announces what was lost with the socket before.
    pub(crate) fn announce_again(&mut self) {
        if std::mem::take(&mut self.has_resumed) {
            for announcement in self.unanswered.clone().into_values() {
                self.request(Request::AddTrack(announcement));
            }
        }
    }

    fn draw_credentials(&mut self) -> IceCredentials {
        IceCredentials { ufrag: self.letters(8), pwd: self.letters(24) }
    }
}

fn join_request(participant_sid: String) -> String {
    let request = proto::JoinRequest { reconnect: true, participant_sid, ..Default::default() };
    let wrapped =
        proto::WrappedJoinRequest { join_request: request.encode_to_vec(), ..Default::default() };
    URL_SAFE.encode(wrapped.encode_to_vec())
}
