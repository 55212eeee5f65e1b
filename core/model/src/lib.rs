//! The nouns and units that every other crate shares.
//!
//! What lives here: names and ids ([`id`]), transport addresses ([`address`]), wrapping counters and other units of RTP
//! ([`unit`]), what two ends agree on about media ([`media`]), what a participant
//! is and may do ([`participant`]), and how durations are counted ([`histogram`]). It never holds protobuf, I/O or policy.
//!
//! ```
//! use parlor_model::{SequenceNumber, Ssrc};
//!
//! let last = SequenceNumber(65_535);
//! assert_eq!(last.next(), SequenceNumber(0));
//! assert!(last.next().is_newer_than(last));
//! assert_eq!(Ssrc(0x1234).to_string(), "4660");
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod address;
pub mod histogram;
pub mod id;
pub mod media;
pub mod participant;
pub mod time;
pub mod unit;

pub use address::*;
pub use histogram::*;
pub use id::*;
pub use media::*;
pub use participant::*;
pub use time::*;
pub use unit::*;
