//! What the operator chose.

use livekit_protocol as proto;
use parlor_model::{Codec, Fingerprint, ShardId, TransportAddress};
use parlor_room::RoomSettings;
use parlor_signal::{ApiKeys, ice::IceServer};
use std::collections::BTreeMap;

/// What a [`crate::Node`] must know of the process that it runs in.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Keys that sign refreshed tokens.
    pub api_keys: ApiKeys,
    /// Told to clients; empty when there is none.
    pub region: String,
    /// STUN and TURN servers that clients are told to use.
    pub ice_servers: Vec<IceServer>,
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
    /// When connections go over TCP.
    pub tcp: TcpPolicy,
    /// Whether `MutePublishedTrack` may unmute.
    pub enable_remote_unmute: bool,
    /// How rooms begin.
    pub room_rules: RoomRules,
    /// Bounds of texts.
    pub limits: Limits,
}

impl NodeConfig {
    /// What an operator has who chose nothing: LiveKit's defaults.
    pub fn new(
        api_keys: ApiKeys,
        shards: Vec<(ShardId, Vec<TransportAddress>)>,
        fingerprint: Fingerprint,
    ) -> Self {
        Self {
            api_keys,
            region: String::new(),
            ice_servers: Vec::new(),
            room: RoomSettings::default(),
            codecs: Codec::ALL.to_vec(),
            shards,
            fingerprint,
            ice_lite: false,
            tcp: TcpPolicy::default(),
            enable_remote_unmute: false,
            room_rules: RoomRules::default(),
            limits: Limits::default(),
        }
    }
}

/// See [`RoomRules::members_per_shard`]: what one thread sends to so many is what it can send, in
/// a room where each receives a few streams.
const MEMBERS_PER_SHARD: usize = 200;

/// How rooms begin.
#[derive(Clone, PartialEq, Debug)]
pub struct RoomRules {
    /// Whether a join creates its room. If not, its token has to grant `roomCreate`.
    pub auto_create: bool,
    /// What `room_preset` of a call and `roomPreset` of a token stand for, by name.
    pub presets: BTreeMap<String, proto::RoomConfiguration>,
    /// So many of one room share a media thread before others are used as well.
    pub members_per_shard: usize,
    /// Whether participants may publish data tracks.
    pub data_tracks: bool,
    /// Whether webhooks about tracks carry the whole room and participant.
    pub full_room_in_webhooks: bool,
    /// Whether rooms that the API has made are there again at the next start. Their end with the
    /// server is announced to nobody then.
    pub rooms_return: bool,
}

impl Default for RoomRules {
    fn default() -> Self {
        Self {
            auto_create: true,
            presets: BTreeMap::new(),
            members_per_shard: MEMBERS_PER_SHARD,
            data_tracks: true,
            full_room_in_webhooks: false,
            rooms_return: false,
        }
    }
}

/// When connections go over TCP; LiveKit's defaults.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TcpPolicy {
    /// Always, and never over UDP.
    pub only: bool,
    /// When UDP has failed a participant.
    pub fallback: bool,
    /// But not when the round trip of its signalling is as long as this; 0 is any.
    pub fallback_rtt_threshold_ms: u32,
}

impl Default for TcpPolicy {
    fn default() -> Self {
        Self { only: false, fallback: true, fallback_rtt_threshold_ms: 0 }
    }
}

/// Bounds of what applications may write and of what the server carries; LiveKit's defaults. 0 is
/// no bound, but for data blobs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest name of a room.
    pub room_name_bytes: usize,
    /// Longest name of a participant.
    pub name_bytes: usize,
    /// Longest metadata of a participant or room.
    pub metadata_bytes: usize,
    /// Most bytes of all attributes of a participant, keys included.
    pub attributes_bytes: usize,
    /// Longest key of a data blob.
    pub data_blob_key_bytes: usize,
    /// Most bytes of a participant's data blobs, keys included; 0 where there are none.
    pub data_blobs_bytes: usize,
    /// Published tracks and subscriptions together beyond which nobody comes in and no room begins.
    pub tracks: usize,
    /// Media in both directions, bytes a second, beyond which it is the same.
    pub bytes_per_second: u64,
}

/// Whether a number is above its limit; 0 is none.
pub(crate) fn exceeds(number: usize, limit: usize) -> bool {
    limit > 0 && number > limit
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            room_name_bytes: 256,
            name_bytes: 256,
            metadata_bytes: 512 << 10,
            attributes_bytes: 64 << 10,
            data_blob_key_bytes: 256,
            data_blobs_bytes: 0,
            tracks: 0,
            bytes_per_second: 0,
        }
    }
}
