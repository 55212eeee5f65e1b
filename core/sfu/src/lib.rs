//! The packet path: sealed datagrams of publishers in, sealed datagrams for subscribers out.
//!
//! A [`Shard`] is all that one media thread owns: peers with their transports, the tracks that they
//! publish, and who subscribes to what. Its owner brings commands, datagrams and the time
//! ([`Shard::handle_command`], [`Shard::handle_datagram`], [`Shard::handle_timeout`]) and takes
//! events and datagrams away ([`Shard::poll_event`], [`Shard::flush`]).
//!
//! A packet's way, in the order in which to read the code:
//!
//! 1. `shard/demux`: the source address names the peer. An unknown address is listened to for STUN
//!    only, and counts as the peer's once a check from it has proven authentic.
//! 2. `shard/ingress`: the SSRC, or mid and rid in its header, names the stream; SRTP is opened in
//!    place.
//! 3. `receive`: the number is extended, retransmissions are unpacked, what is missing is noted,
//!    and the packet is parsed once and kept once, in the history of its stream.
//! 4. `track`: a dense list of routes says which subscriptions get packets of this stream. Layers
//!    are chosen by the clock and by events, not by the packet.
//! 5. `shard/fan_out`: in the flush, what has just come and only follows in its stream is numbered
//!    by the munger of each subscription (`forward`), written from the history with a header of its
//!    own, sealed, and joined into runs for segmentation offload in the caller's [`SendBatch`].
//! 6. `shard/owe`: who has something waiting, or has to wait, is owed it instead, and so is what
//!    may change what is forwarded; `shard/flush` writes what each peer is owed when its pacer lets
//!    it go.
//!
//! A track with subscribers on another thread is passed on to the shard there after step 3, which
//! does the rest (`shard/relay`): the owner carries [`Relayed`] words between its shards
//! ([`Shard::poll_relay`], [`Shard::handle_relay`]).
//!
//! What it holds to: one SSRC and sequence number never carry two packets; nothing leaves of a
//! subscription after the command that stops it; nothing on the way allocates once it is warm; and
//! whatever comes from the network is at worst counted in [`Counters`].
//!
//! It never sees rooms, identities, permissions, SDP or sockets, and reads no clock.
//!
//! ```
//! use std::time::Instant;
//!
//! use parlor_model::{IceCredentials, Path, PeerId, ShardId, TransportAddress};
//! use parlor_sfu::command::{LocalTransport, MediaCommand};
//! use parlor_sfu::{SendBatch, Shard, ShardConfig};
//! use parlor_transport::DtlsIdentity;
//!
//! let mut shard = Shard::new(ShardConfig {
//!     id: ShardId(0),
//!     identity: DtlsIdentity::generate()?,
//!     local_addresses: vec![TransportAddress::udp("127.0.0.1:7882".parse()?)],
//!     seed: [7; 32],
//! });
//! let now = Instant::now();
//! let ice = IceCredentials { ufrag: "abcd".into(), pwd: "0123456789abcdefghijkl".into() };
//! let local = Box::new(LocalTransport { ice, ice_lite: true, opens_channels: false });
//! shard.handle_command(now, MediaCommand::OpenPeer { peer: PeerId(1), local });
//!
//! // Media from an address that has proven nothing is dropped.
//! let mut datagram = *b"\x80\x6f\x00\x01\0\0\0\0\0\0\0\x07frame";
//! let (local, remote) = ("127.0.0.1:7882".parse()?, "10.0.0.1:9".parse()?);
//! shard.handle_datagram(now, Path::udp(local, remote), &mut datagram);
//! assert_eq!(shard.counters().dropped_unknown_address, 1);
//!
//! let mut batch = SendBatch::new(64);
//! let more = shard.flush(now, &mut batch);
//! assert!(!more && batch.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arena;
mod batch;
mod claim;
pub mod command;
mod counters;
mod downlink;
mod drain;
mod experience;
mod forward;
mod held;
mod peer;
mod quality;
mod receive;
mod relay;
mod shard;
mod speakers;
mod ssrc;
mod timers;
mod track;

pub use batch::{MAX_RUN_DATAGRAMS, Run, SLOT_BYTES, SendBatch};
pub use claim::Claim;
pub use counters::Counters;
pub use experience::{Experience, JITTER_BOUNDS_US, ROUND_TRIP_BOUNDS_US};
#[doc(hidden)]
pub use forward::bare::forward_bytes;
/// The certificate that a [`ShardConfig`] asks for.
pub use held::{HELD_BOUNDS_US, Held};
pub use parlor_transport::{DtlsIdentity, StunTransaction, stun_transaction, stun_username_ufrag};
pub use relay::Relayed;
pub use shard::{
    DecisionReport, Experiences, FULL_BYTES, LinkReport, MAX_DECISIONS, PeerState, Shard,
    ShardConfig,
};
