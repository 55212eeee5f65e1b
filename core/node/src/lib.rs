//! The control plane of one server: [`Node`] composes rooms, signal sessions, negotiation and
//! the server API.
//!
//! A [`Node`] is a plain value. [`Node::handle`] takes an [`io::Input`] (a client connects, a
//! WebSocket message, an API call, news from a media thread), [`Node::poll_output`] says what
//! must happen outside, time passes by [`Node::handle_timeout`]. It opens no sockets, reads no
//! clock and draws its randomness from a seed: the same inputs give the same outputs.
//!
//! It dispatches and has no rules of its own: what a participant may do is decided by
//! `parlor-room`, how descriptions are answered by `parlor-sdp`, what the wire looks like by
//! `parlor-signal`. Of the packet path it knows the commands and events only.
//!
//! The way of a signal message: [`Node::handle`] finds the room, `requests` turns the message
//! into a command for it, `host` turns the room's events into messages and commands, and
//! `connection` says what has to be negotiated.
//!
//! ```
//! use parlor_model::{Fingerprint, Now, ShardId, TransportAddress};
//! use parlor_node::{Node, NodeConfig, api::{ApiRequest, ApiResponse}, io::{CallId, Input, Output}};
//! use parlor_signal::{Claims, token::VideoGrant};
//! use std::time::{Duration, Instant};
//!
//! let api_keys = [("devkey".to_owned(), "secret".to_owned())].into_iter().collect();
//! let shards = vec![(ShardId(0), vec![TransportAddress::udp("192.0.2.1:7882".parse().unwrap())])];
//! let fingerprint = Fingerprint { algorithm: "sha-256".into(), digest: vec![0; 32] };
//! let config = NodeConfig::new(api_keys, shards, fingerprint);
//! let mut node = Node::new(config, [7; 32]);
//! let now = Now { instant: Instant::now(), unix: Duration::from_secs(1_800_000_000) };
//! let grant = VideoGrant { room_create: true, ..Default::default() };
//! let claims = Claims { video: Some(grant), ..Default::default() };
//! let create = livekit_protocol::CreateRoomRequest { name: "demo".into(), ..Default::default() };
//! node.handle(now, Input::Api {
//!     call: CallId(1),
//!     claims: Some(Box::new(claims)),
//!     request: Box::new(ApiRequest::CreateRoom(create)),
//! });
//! let Some(Output::Webhook(event)) = node.poll_output() else { panic!("a room has begun") };
//! assert_eq!(event.event, "room_started");
//! let reply = std::iter::from_fn(|| node.poll_output()).find_map(|output| match output {
//!     Output::Reply { result, .. } => Some(result),
//!     _ => None,
//! });
//! let Ok(ApiResponse::Room(room)) = *reply.expect("the call is answered at once") else { panic!() };
//! assert_eq!(room.name, "demo");
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agents;
pub mod api;
mod calls;
mod config;
mod connection;
mod data_blob;
mod data_track;
mod demand;
mod forward;
mod host;
pub mod io;
mod join;
mod keep;
mod media;
mod member;
mod members;
mod missing;
mod moving;
mod node;
mod operate;
mod outside;
mod participants;
mod peer;
mod preference;
mod priming;
mod quality;
mod reliable;
mod requests;
mod resume;
mod rooms;
mod rpc;
mod simulate;
mod speakers;
mod statistics;
mod streams;
mod subscription;
mod webhook;

pub use agents::WORKERS_MAX;
pub use calls::NONCE_BYTES;
pub use config::{Limits, NodeConfig, RoomRules, TcpPolicy};
pub use connection::CANDIDATES_BEFORE_OFFER_MAX;
pub use forward::FORWARDS_MAX;
pub use host::{NONCES_MAX, UPDATE_BYTES_MAX};
pub use join::JOIN_TRACKS_MAX;
pub use keep::kept_kinds;
pub use member::{
    ANSWER_TIMEOUT, HELD_DATA_BYTES_MAX, HELD_DATA_TTL, JOIN_TIMEOUT, SIGNAL_TIMEOUT,
    TOKEN_REFRESH_INTERVAL, TRACK_SETTINGS_MAX,
};
pub use missing::{MISSING_TRACKS_MAX, TRACK_NOT_FOUND_TIMEOUT};
pub use node::{Counts, Node};
pub use operate::{ParticipantSnapshot, RoomSnapshot};
pub use outside::Counters;
pub use parlor_catalog::CatalogConfig;
pub use participants::REVOKED_MAX;
pub use peer::{CANDIDATE_BYTES_MAX, REMOTE_CANDIDATES_MAX};
pub use preference::{PREFERENCE_TTL, PREFERENCES_MAX};
pub use reliable::{SENT_DATA_BYTES_MAX, SENT_DATA_TTL};
pub use resume::{CLOSED_TIMEOUT, RESUME_TIMEOUT, SIMULATED_DROP_TTL};
pub use rpc::{RPC_PAYLOAD_BYTES_MAX, RPC_TIMEOUT, RPC_TIMEOUT_MAX, RPCS_MAX};
pub use simulate::SIMULATED_SPEECH_MAX;
pub use statistics::{Attempts, Histogram, Statistics};
