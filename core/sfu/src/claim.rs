//! What shards that receive on one port tell each other of addresses.
//!
//! The kernel deals datagrams out by their source, so what is for a peer of one shard may be read
//! by the thread of another. Whoever reads knows from claims whose it is.

use parlor_model::Path;
use parlor_transport::StunTransaction;

/// What a shard says of an address; see [`crate::Shard::poll_claim`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Claim {
    /// An authentic check of a peer came over this path: the peer is there, or has forged where it
    /// is.
    Named(Path),
    /// The peer is there. Said again with each check of the peer.
    Validated(Path),
    /// The path is no peer's of this shard any more.
    Forgotten(Path),
    /// A check leaves over this path. The answer may come from elsewhere, but has this transaction.
    Asked(Path, StunTransaction),
}
