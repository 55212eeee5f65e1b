//! One peer connection, as far as the control plane knows it.

use crate::outside::{Address, Outside};
use livekit_protocol::{SignalTarget, signal_response::Message};
use parlor_model::{
    Codec, DataChannel, MediaDescription, PeerId, RemoteTransport, ShardId, SubscriptionId, TrackId,
};
use parlor_sfu::command::{LocalTransport, MediaCommand};
use parlor_signal::response;
use std::collections::BTreeSet;

/// Most candidates of a peer that are passed on.
pub const REMOTE_CANDIDATES_MAX: usize = 128;
/// Longest candidate line.
pub const CANDIDATE_BYTES_MAX: usize = 512;

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) id: PeerId,
    pub(crate) local: parlor_sdp::LocalTransport,
    pub(crate) connected: bool,
    pub(crate) open_channels: BTreeSet<DataChannel>,
    remote: Option<RemoteTransport>,
    media: MediaDescription,
    remote_candidates: BTreeSet<String>,
    trickled: bool,
    /// From the next ICE restart on.
    pub(crate) tcp_only: bool,
}

/// How a new peer is to be.
#[derive(Clone, Debug)]
pub(crate) struct PeerSettings {
    pub(crate) address: Address,
    pub(crate) shard: ShardId,
    pub(crate) ice_lite: bool,
    /// What the client may send.
    pub(crate) publish_codecs: Vec<Codec>,
    /// What it may be sent.
    pub(crate) receive_codecs: Vec<Codec>,
    /// Whether video may say how long its receiver waits before it shows a frame.
    pub(crate) playout_delay: bool,
    /// Neither offer UDP nor take it.
    pub(crate) tcp_only: bool,
}

impl Peer {
    pub(crate) fn open(cx: &mut Outside, settings: &PeerSettings, opens_channels: bool) -> Self {
        let shard = settings.shard;
        let id = cx.peer_id(shard);
        let ice = cx.ice_credentials(shard);
        let local = parlor_sdp::LocalTransport {
            candidates: cx.candidates(shard, &ice.ufrag, settings.tcp_only),
            fingerprint: cx.config.fingerprint.clone(),
            ice_lite: settings.ice_lite,
            ice: ice.clone(),
        };
        cx.peers.insert(id, settings.address.clone());
        let transport = LocalTransport { ice, ice_lite: settings.ice_lite, opens_channels };
        cx.command(shard, MediaCommand::OpenPeer { peer: id, local: Box::new(transport) });
        Self {
            id,
            local,
            connected: false,
            open_channels: BTreeSet::new(),
            remote: None,
            media: MediaDescription::default(),
            remote_candidates: BTreeSet::new(),
            trickled: false,
            tcp_only: settings.tcp_only,
        }
    }

    /// Takes new ICE credentials because the client restarts ICE.
    pub(crate) fn restart_ice(&mut self, cx: &mut Outside) {
        self.local.ice = cx.ice_credentials(self.id.home());
        self.local.candidates = cx.candidates(self.id.home(), &self.local.ice.ufrag, self.tcp_only);
        self.trickled = false;
        let ice = self.local.ice.clone();
        cx.command(self.id.home(), MediaCommand::RestartIce { peer: self.id, ice });
    }

    pub(crate) fn set_remote(&mut self, cx: &mut Outside, remote: RemoteTransport) {
        if self.remote.as_ref() == Some(&remote) {
            return;
        }
        if self.remote.as_ref().is_some_and(|before| before.ice != remote.ice) {
            self.remote_candidates.clear();
        }
        let boxed = Box::new(remote.clone());
        self.remote = Some(remote);
        cx.command(self.id.home(), MediaCommand::SetRemote { peer: self.id, remote: boxed });
    }

    pub(crate) fn set_media(
        &mut self,
        cx: &mut Outside,
        media: MediaDescription,
    ) -> Vec<(SubscriptionId, TrackId)> {
        let carried =
            media.send.iter().map(|section| (section.subscription, section.track)).collect();
        if self.media != media {
            self.media = media.clone();
            let media = Box::new(media);
            cx.command(self.id.home(), MediaCommand::SetMedia { peer: self.id, media });
        }
        carried
    }

    pub(crate) fn add_candidate(&mut self, cx: &mut Outside, candidate: String) {
        let is_tcp =
            |line: &str| line.split(' ').nth(2).is_some_and(|p| p.eq_ignore_ascii_case("tcp"));
        if candidate.len() > CANDIDATE_BYTES_MAX
            || (self.tcp_only && !is_tcp(&candidate))
            || self.remote_candidates.len() >= REMOTE_CANDIDATES_MAX
            || !self.remote_candidates.insert(candidate.clone())
        {
            return;
        }
        cx.command(self.id.home(), MediaCommand::AddRemoteCandidate { peer: self.id, candidate });
    }

    /// Our candidates, once for each set of credentials.
    pub(crate) fn trickle(&mut self, target: SignalTarget) -> Vec<Message> {
        if std::mem::replace(&mut self.trickled, true) {
            return Vec::new();
        }
        let last = self.local.candidates.len().saturating_sub(1);
        self.local
            .candidates
            .iter()
            .enumerate()
            .map(|(index, line)| response::trickle(line, target, index == last))
            .collect()
    }

    pub(crate) fn close(&self, cx: &mut Outside) {
        cx.peers.remove(&self.id);
        cx.command(self.id.home(), MediaCommand::ClosePeer { peer: self.id });
    }
}
