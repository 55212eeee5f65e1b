//! A participant for end-to-end tests: `core/client` over real sockets, playing real encodings.
//!
//! The binary `parlor-player` takes commands as lines of JSON on standard input and answers each
//! with one on standard output, as the Python participant of `test/interop` does. What it receives
//! is held to the invariants of the packet path by `parlor-checker`, and counted; nothing is
//! decoded.
//!
//! ```
//! // An Ogg page that holds one packet of three bytes, then a comment header and a frame.
//! let page = |packet: &[u8]| {
//!     let mut page = b"OggS\0\0".to_vec();
//!     page.extend([0; 20]);
//!     page.extend([1, packet.len() as u8]);
//!     page.extend(packet);
//!     page
//! };
//! let file = [page(b"OpusHead"), page(b"OpusTags"), page(b"\xF8\xFF\xFE")].concat();
//! assert_eq!(parlor_player::opus_packets(&file)?, [b"\xF8\xFF\xFE"]);
//! # Ok::<(), parlor_player::RecordingError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod media;
mod participant;
mod recording;

pub use media::{Source, Track};
pub use participant::{Event, Failure, Join, Participant};
pub use recording::{RecordingError, opus_packets, vp8_frames};
