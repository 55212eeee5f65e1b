//! What the control plane tells a [`crate::Shard`], and what it hears back.
//!
//! These values are all that `core/node` may know of this crate. They travel over rings
//! between threads, so they own what they carry.

use bytes::Bytes;
use parlor_model::{
    DataChannel, IceCredentials, MediaDescription, PeerId, RemoteTransport, Rid, Ssrc,
    SubscriptionId, TrackId,
};

/// An instruction to one shard.
#[derive(Clone, Debug)]
pub enum MediaCommand {
    /// A new peer connection; media and data flow once [`MediaCommand::SetRemote`] has come.
    OpenPeer {
        /// Its id.
        peer: PeerId,
        /// Our side of its transport.
        local: Box<LocalTransport>,
    },
    /// The peer's side of the transport, from its offer or answer. Again with other ICE
    /// credentials means that the peer restarts ICE.
    SetRemote {
        /// The peer.
        peer: PeerId,
        /// Its side.
        remote: Box<RemoteTransport>,
    },
    /// We restart ICE with new credentials of ours.
    RestartIce {
        /// The peer.
        peer: PeerId,
        /// Our new credentials.
        ice: IceCredentials,
    },
    /// A candidate line of the peer: `candidate:...`.
    AddRemoteCandidate {
        /// The peer.
        peer: PeerId,
        /// The line without `a=`.
        candidate: String,
    },
    /// What the connection carries from now on, as a whole: sections that are missing end.
    SetMedia {
        /// The peer.
        peer: PeerId,
        /// All sections.
        media: Box<MediaDescription>,
    },
    /// The connection ends, with its tracks and subscriptions. No event follows.
    ClosePeer {
        /// The peer.
        peer: PeerId,
    },
    /// The publisher muted or unmuted.
    SetTrackMuted {
        /// The track.
        track: TrackId,
        /// Whether it is muted now.
        muted: bool,
    },
    /// The track's frames are encrypted end to end: frames of the server's own end with this, so
    /// that clients know them (`sif_trailer`). 255 bytes at most.
    SetFrameTrailer {
        /// The track.
        track: TrackId,
        /// The trailer.
        trailer: Bytes,
    },
    /// How a subscriber wants a track. May come before the section that carries it.
    SetSubscription {
        /// The subscription.
        subscription: SubscriptionId,
        /// Its settings.
        settings: SubscriptionSettings,
    },
    /// Not one packet more of this subscription's track, whatever sections exist.
    StopSubscription {
        /// The subscription.
        subscription: SubscriptionId,
        /// Whether a video ends with black pictures of our own, so that the decoder is left with a
        /// clean one. They leave at once, and go on for 200 ms unless the section ends before.
        blank: bool,
    },
    /// What a peer is sent fits into so much, in bits a second, whatever its path carries; `None`
    /// for no such limit.
    LimitPeer {
        /// The peer.
        peer: PeerId,
        /// The limit.
        bps: Option<u64>,
    },
    /// One message to many peers.
    SendData {
        /// On which channel.
        channel: DataChannel,
        /// The message, encoded.
        data: Bytes,
        /// Who is held back where it is reliable and is read too slowly.
        from: Option<PeerId>,
        /// To whom.
        peers: Vec<PeerId>,
    },
}

/// Our side of a peer's transport.
#[derive(Clone, Debug)]
pub struct LocalTransport {
    /// Our ICE credentials; the ufrag is unique on the server.
    pub ice: IceCredentials,
    /// Whether we are an ICE-lite agent towards this peer.
    pub ice_lite: bool,
    /// Whether we open LiveKit's three data channels ourselves (subscriber connection of `/rtc`).
    pub opens_channels: bool,
}

/// What a subscriber wants of a track.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SubscriptionSettings {
    /// False: nothing is forwarded until it is true again.
    pub enabled: bool,
    /// Highest spatial layer wanted, 0 lowest.
    pub max_layer: u8,
    /// Highest frame rate wanted, in frames a second; `None` for all.
    pub max_fps: Option<u32>,
    /// LiveKit's priority, 255 highest: where the link does not carry everything, higher goes
    /// first.
    pub priority: u8,
    /// Whether it is a screen, whose resolution goes before its frame rate.
    pub is_screen: bool,
    /// How large it is shown, in pixels; 0 where unknown.
    pub shown_pixels: u32,
    /// Height of each spatial layer, for who asks what is sent; 0 where unknown.
    pub heights: [u16; 3],
    /// Whether video may be paused when the link does not even carry its lowest layer.
    pub may_pause: bool,
    /// What its receiver is told to wait before it shows a frame, where that can be said.
    pub playout_delay: Option<PlayoutDelay>,
}

pub use parlor_rtp::extension::PlayoutDelay;

/// [`SubscriptionSettings::priority`] of a camera.
pub const CAMERA_PRIORITY: u8 = 1;
/// [`SubscriptionSettings::priority`] of a screen.
pub const SCREEN_PRIORITY: u8 = 255;

impl Default for SubscriptionSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            max_layer: u8::MAX,
            max_fps: None,
            priority: CAMERA_PRIORITY,
            is_screen: false,
            shown_pixels: 0,
            heights: [0; 3],
            may_pause: true,
            playout_delay: None,
        }
    }
}

/// Something that the control plane must hear.
#[derive(Clone, PartialEq, Debug)]
pub enum MediaEvent {
    /// ICE and DTLS are up; keys were checked against the fingerprints.
    PeerConnected {
        /// The peer.
        peer: PeerId,
    },
    /// No consent for the peer's path any more; it may come back until [`MediaEvent::PeerFailed`].
    PeerDisconnected {
        /// The peer.
        peer: PeerId,
    },
    /// The connection has ended. The peer still has to be closed by command; after
    /// [`PeerFailure::ConnectionTimeout`] an ICE restart brings it back instead, with
    /// [`MediaEvent::PeerConnected`].
    PeerFailed {
        /// The peer.
        peer: PeerId,
        /// Why.
        reason: PeerFailure,
    },
    /// A data channel can be written now.
    ChannelOpen {
        /// The peer.
        peer: PeerId,
        /// The channel.
        channel: DataChannel,
    },
    /// A message from the peer.
    Data {
        /// The peer.
        peer: PeerId,
        /// The channel that it came on.
        channel: DataChannel,
        /// The message.
        data: Bytes,
    },
    /// A message from the peer on a channel of its own naming: an application's bytes.
    UnlabelledData {
        /// The peer.
        peer: PeerId,
        /// The message.
        data: Bytes,
    },
    /// The first packet of a stream of a published track.
    StreamStarted {
        /// The track.
        track: TrackId,
        /// Its RID, if it has one.
        rid: Option<Rid>,
        /// Its SSRC.
        ssrc: Ssrc,
        /// Its spatial layer.
        layer: u8,
    },
    /// Tracks whose loudness has changed since it was told last. Comes at most every 400 ms.
    AudioLevels {
        /// Their loudness now.
        levels: Vec<TrackLevel>,
    },
    /// Peers whose connection is on another step of LiveKit's scale than was told last, or is
    /// judged for the first time. Comes at most every 5 s.
    Quality {
        /// Their quality now.
        peers: Vec<PeerQuality>,
    },
    /// A subscription has paused because the path to its peer has no room for it, or goes on.
    StreamPaused {
        /// The subscriber's peer.
        peer: PeerId,
        /// The subscription.
        subscription: SubscriptionId,
        /// Whether it is paused now.
        paused: bool,
    },
    /// The subscription has forwarded its first packet.
    SubscriptionStarted {
        /// The subscription.
        subscription: SubscriptionId,
    },
}

/// How good a peer's connection is, as the worst of its tracks in either direction.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PeerQuality {
    /// The peer.
    pub peer: PeerId,
    /// 0 to 100: over 80 excellent, over 40 good, over 20 poor, else lost.
    pub score: f32,
}

/// How loud a track is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TrackLevel {
    /// The track.
    pub track: TrackId,
    /// Its loudness in eighths, 8 loudest; 0 when nobody speaks.
    pub eighths: u8,
}

/// Why a peer connection ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PeerFailure {
    /// No consent for too long, or never connected.
    ConnectionTimeout,
    /// The DTLS certificate matches none of the announced fingerprints.
    FingerprintMismatch,
    /// The DTLS handshake failed or the peer closed it.
    DtlsClosed,
    /// The peer reads reliable data so slowly that the bound of what is held was reached.
    SlowReceiver,
    /// SCTP ended.
    SctpClosed,
}
