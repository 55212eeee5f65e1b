//! The packet path (docs below).
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod arena;
mod batch;
pub mod command;
mod counters;
mod forward;
mod peer;
mod receive;
mod shard;
mod ssrc;
mod timers;
mod track;

pub use batch::{MAX_RUN_DATAGRAMS, Run, SLOT_BYTES, SendBatch};
pub use counters::Counters;
/// The certificate that a [`ShardConfig`] asks for.
pub use parlor_transport::DtlsIdentity;
pub use shard::{Shard, ShardConfig};
