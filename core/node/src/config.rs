//! What the operator chose.

use livekit_protocol as proto;
use parlor_model::{Codec, Fingerprint, ShardId, TransportAddress};
use parlor_room::RoomSettings;
use parlor_signal::ApiKeys;

/// What a [`crate::Node`] must know of the process that it runs in.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Keys that sign refreshed tokens.
    pub api_keys: ApiKeys,
    /// Told to clients; empty when there is none.
    pub region: String,
    /// STUN and TURN servers that clients are told to use.
    pub ice_servers: Vec<proto::IceServer>,
    /// Settings of rooms whose creator chose none.
    pub room: RoomSettings,
    /// Codecs that may be published, of those that Parlor forwards.
    pub codecs: Vec<Codec>,
    /// The media threads, each with the addresses on which it can be reached.
    pub shards: Vec<(ShardId, Vec<TransportAddress>)>,
    /// Digest of the certificate of every media thread.
    pub fingerprint: Fingerprint,
    /// Be an ICE-lite agent towards clients that can have it.
    pub ice_lite: bool,
    /// Whether `MutePublishedTrack` may unmute.
    pub enable_remote_unmute: bool,
    /// Bounds of texts.
    pub limits: Limits,
}

/// Bounds of what applications may write; LiveKit's defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest name of a room or identity.
    pub name_bytes: usize,
    /// Longest metadata of a participant or room; 0 for any length.
    pub metadata_bytes: usize,
    /// Most bytes of all attributes of a participant, keys included.
    pub attributes_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { name_bytes: 256, metadata_bytes: 0, attributes_bytes: 64_000 }
    }
}
