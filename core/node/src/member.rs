//! A participant as the node knows it: its socket, its connections, and dense ids.

use crate::{connection::Connection, io::SessionId, outside::Outside, resume::SimulatedDrop};
use bytes::Bytes;
use livekit_protocol as proto;
use parlor_model::{Now, ParticipantSid, PeerId, Permissions, SubscriptionId, TrackId, TrackSid};
use parlor_room::Participant;
use parlor_signal::{Claims, client::Client, token};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};

/// A participant whose media is not up this long after it joined is removed.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(60);
/// The socket of a client that pings, and then says nothing for so long, counts as gone.
pub const SIGNAL_TIMEOUT: Duration = Duration::from_secs(15);
/// An offer that is not answered for so long ends the session, and the client begins anew.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// How often a client gets a fresh token.
pub const TOKEN_REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// Bytes of reliable data that are held for a receiver whose channel is not open yet.
pub const HELD_DATA_BYTES_MAX: usize = 100_000;
/// How long they are held.
pub const HELD_DATA_TTL: Duration = Duration::from_secs(10);
/// Most tracks of which a participant's settings are kept.
pub const TRACK_SETTINGS_MAX: usize = 1_024;

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) sid: ParticipantSid,
    /// `None` once the socket is gone.
    pub(crate) session: Option<SessionId>,
    /// Whether the client speaks text.
    pub(crate) text: bool,
    pub(crate) client: Client,
    pub(crate) claims: Claims,
    pub(crate) connection: Connection,
    pub(crate) joined: Instant,
    pub(crate) active: bool,
    /// Since when it is, or was when it was last.
    pub(crate) active_since: Option<Instant>,
    /// When one of its peers last lost its path.
    pub(crate) path_lost_at: Option<Instant>,
    /// The round trip of its signalling, as it says.
    pub(crate) signal_rtt_ms: u32,
    pub(crate) last_signal: Instant,
    /// Whether the client has ever pinged; one that never does is not expected to.
    pub(crate) pings: bool,
    pub(crate) refresh_at: Instant,
    pub(crate) subscriptions: BTreeMap<TrackSid, SubscriptionId>,
    /// Which encoding each subscription was negotiated to carry.
    pub(crate) carried: BTreeMap<SubscriptionId, TrackId>,
    pub(crate) track_settings: BTreeMap<TrackSid, proto::UpdateTrackSettings>,
    /// Whether its video may be paused when its link does not carry it.
    pub(crate) allows_pause: bool,
    /// It follows the size of its video elements: a video begins small.
    pub(crate) adaptive_stream: bool,
    /// Whether all tracks of one source come in one stream.
    pub(crate) syncs_streams: bool,
    /// The data tracks that it receives, by the handle that it knows them by.
    pub(crate) data_handles: BTreeMap<u16, TrackSid>,
    pub(crate) next_data_handle: Option<u16>,
    pub(crate) missing: crate::missing::Missing,
    pub(crate) data_blobs: crate::data_blob::DataBlobs,
    pub(crate) told_unsupported: BTreeSet<SubscriptionId>,
    /// When it is removed unless its connection comes back.
    pub(crate) ends_at: Option<Instant>,
    /// Peers that have lost their path.
    pub(crate) lost_peers: BTreeSet<PeerId>,
    /// Its connection has ended for good: it can only begin anew.
    pub(crate) is_beyond_resume: bool,
    /// It has a token for another room, where it shall begin anew.
    pub(crate) is_moved: bool,
    /// Whether the client of a resumed session may still say what it has got.
    pub(crate) may_sync_data: bool,
    /// The end of a simulated speech.
    pub(crate) speaks_until: Option<Instant>,
    /// The next resume shall fail, and since when.
    pub(crate) drop_on_resume: Option<(SimulatedDrop, Instant)>,
    /// The socket ends without `leave`, as simulated failures do.
    pub(crate) leaves_silently: bool,
    /// Last sequence number of its reliable data.
    pub(crate) last_sequence: u32,
    /// Whether it was asked for a first reliable message.
    pub(crate) primed: bool,
    pub(crate) held: HeldData,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Publication {
    /// Its encodings, by position of their codec.
    pub(crate) ids: Vec<TrackId>,
    /// Whether the publisher knows that somebody has subscribed.
    pub(crate) subscribed: bool,
    /// Whether the tracks are those of another room.
    pub(crate) is_forwarded: bool,
}

impl Member {
    pub(crate) fn new(
        now: Now,
        sid: ParticipantSid,
        session: SessionId,
        client: Client,
        claims: Claims,
        connection: Connection,
    ) -> Self {
        Self {
            sid,
            session: Some(session),
            text: false,
            client,
            claims,
            connection,
            joined: now.instant,
            active: false,
            active_since: None,
            path_lost_at: None,
            signal_rtt_ms: 0,
            last_signal: now.instant,
            pings: false,
            refresh_at: now.instant + TOKEN_REFRESH_INTERVAL,
            subscriptions: BTreeMap::new(),
            carried: BTreeMap::new(),
            track_settings: BTreeMap::new(),
            allows_pause: true,
            adaptive_stream: false,
            syncs_streams: false,
            data_handles: BTreeMap::new(),
            next_data_handle: None,
            missing: Default::default(),
            data_blobs: Default::default(),
            told_unsupported: BTreeSet::new(),
            ends_at: None,
            lost_peers: BTreeSet::new(),
            is_beyond_resume: false,
            is_moved: false,
            may_sync_data: false,
            speaks_until: None,
            drop_on_resume: None,
            leaves_silently: false,
            last_sequence: 0,
            primed: false,
            held: HeldData::default(),
        }
    }

    /// The peer over which data reaches it.
    pub(crate) fn data_peer(&self, channel: parlor_model::DataChannel) -> Option<PeerId> {
        let peer = self.connection.primary()?;
        peer.open_channels.contains(&channel).then_some(peer.id)
    }

    /// A token with the present grants, for the client's next connection.
    pub(crate) fn refresh_token(&mut self, cx: &Outside, now: Now, this: &Participant) -> String {
        self.refresh_at = now.instant + TOKEN_REFRESH_INTERVAL;
        let info = &this.info;
        let claims = &mut self.claims;
        claims.name = info.name.clone();
        claims.metadata = info.metadata.clone();
        claims.attributes = info.attributes.clone();
        let video = claims.video.get_or_insert_default();
        if video.permissions() != info.permissions {
            set_permissions(video, &info.permissions);
        }
        token::sign_refreshed(claims, now.unix, &cx.config.api_keys)
    }

    /// When something has to happen to it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let connected = self.session.is_some();
        let signal = (connected && self.pings).then(|| self.last_signal + SIGNAL_TIMEOUT);
        let answer = self.connection.unanswered_since().map(|since| since + ANSWER_TIMEOUT);
        [
            (!self.active).then(|| self.joined + JOIN_TIMEOUT),
            signal,
            answer.filter(|_| connected),
            connected.then_some(self.refresh_at),
            self.held.deadline(),
            self.missing.deadline(),
            self.ends_at,
            self.speaks_until,
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

fn set_permissions(video: &mut token::VideoGrant, permissions: &Permissions) {
    video.set_permissions(permissions);
}

/// Reliable data that waits for its receiver's channel.
#[derive(Debug, Default)]
pub(crate) struct HeldData {
    packets: VecDeque<(Instant, Bytes)>,
    bytes: usize,
}

impl HeldData {
    /// Holds a packet. Returns how many had to go for it, itself included if it is too large.
    pub(crate) fn push(&mut self, now: Instant, packet: Bytes) -> u64 {
        if packet.len() > HELD_DATA_BYTES_MAX {
            return 1;
        }
        self.bytes += packet.len();
        self.packets.push_back((now, packet));
        let mut lost = 0;
        while self.bytes > HELD_DATA_BYTES_MAX {
            self.pop();
            lost += 1;
        }
        lost
    }

    fn pop(&mut self) -> Option<Bytes> {
        let (_, packet) = self.packets.pop_front()?;
        self.bytes -= packet.len();
        Some(packet)
    }

    /// Takes everything out, oldest first.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Bytes> {
        self.bytes = 0;
        std::mem::take(&mut self.packets).into_iter().map(|(_, packet)| packet)
    }

    /// Drops what has waited for too long, and says how much that was.
    pub(crate) fn expire(&mut self, now: Instant) -> u64 {
        let mut lost = 0;
        while self.deadline().is_some_and(|deadline| deadline <= now) {
            self.pop();
            lost += 1;
        }
        lost
    }

    fn deadline(&self) -> Option<Instant> {
        self.packets.front().map(|(since, _)| *since + HELD_DATA_TTL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn held_data_is_bounded_in_bytes_and_time() {
        let now = Instant::now();
        let mut held = HeldData::default();
        let half = Bytes::from(vec![1; HELD_DATA_BYTES_MAX / 2]);
        assert_eq!(held.push(now, half.clone()), 0);
        assert_eq!(held.push(now, half.clone()), 0);
        assert_eq!(held.push(now, Bytes::from_static(b"x")), 1);
        assert_eq!(held.push(now, Bytes::from(vec![0; HELD_DATA_BYTES_MAX + 1])), 1);
        assert_eq!(held.take().collect::<Vec<_>>(), vec![half, Bytes::from_static(b"x")]);
        held.push(now, Bytes::from_static(b"y"));
        assert_eq!(held.expire(now + HELD_DATA_TTL - Duration::from_millis(1)), 0);
        assert_eq!(held.expire(now + HELD_DATA_TTL), 1);
        assert_eq!(held.deadline(), None);
    }
}
