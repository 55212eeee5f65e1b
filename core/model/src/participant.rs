//! What a participant is and what it may do.

/// Where a track comes from, as its publisher says.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[allow(missing_docs)]
pub enum TrackSource {
    #[default]
    Unknown,
    Camera,
    Microphone,
    ScreenShare,
    ScreenShareAudio,
}

/// What kind of program a participant is; the `kind` claim of its token.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
#[allow(missing_docs)]
pub enum ParticipantKind {
    #[default]
    Standard,
    Ingress,
    Egress,
    Sip,
    Agent,
    Connector,
    Bridge,
}

/// What a participant may do in its room; the `video` grant of its token, with defaults resolved.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Permissions {
    /// May subscribe to tracks.
    pub can_subscribe: bool,
    /// May publish tracks.
    pub can_publish: bool,
    /// May send data packets.
    pub can_publish_data: bool,
    /// The only sources that may be published; empty means all.
    pub can_publish_sources: Vec<TrackSource>,
    /// Is invisible to the others.
    pub hidden: bool,
    /// Is a recorder.
    pub recorder: bool,
    /// May change its own metadata, name and attributes.
    pub can_update_metadata: bool,
    /// Is an agent.
    pub agent: bool,
    /// May subscribe to metrics.
    pub can_subscribe_metrics: bool,
    /// May manage an agent session; shown to clients, not enforced.
    pub can_manage_agent_session: bool,
}

impl Default for Permissions {
    /// What a token that grants only `roomJoin` allows.
    fn default() -> Self {
        Self {
            can_subscribe: true,
            can_publish: true,
            can_publish_data: true,
            can_publish_sources: Vec::new(),
            hidden: false,
            recorder: false,
            can_update_metadata: false,
            agent: false,
            can_subscribe_metrics: false,
            can_manage_agent_session: false,
        }
    }
}

impl Permissions {
    /// Whether a track of this source may be published.
    pub fn may_publish(&self, source: TrackSource) -> bool {
        self.can_publish
            && (self.can_publish_sources.is_empty() || self.can_publish_sources.contains(&source))
    }
}

/// Why a participant is no longer in its room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)]
pub enum DisconnectReason {
    ClientInitiated,
    DuplicateIdentity,
    ServerShutdown,
    ParticipantRemoved,
    RoomDeleted,
    StateMismatch,
    JoinFailure,
    Migration,
    SignalClose,
    RoomClosed,
    UserUnavailable,
    UserRejected,
    SipTrunkFailure,
    ConnectionTimeout,
    MediaFailure,
    AgentError,
}
