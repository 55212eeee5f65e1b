//! SDP text, and the offer/answer machines for LiveKit's two connection models.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answerer;
pub mod client;
mod error;
mod extension;
mod format;
mod negotiation;
mod offerer;
mod section;
mod stream;
pub mod text;
mod transport;

pub use answerer::Answerer;
pub use error::SdpError;
pub use negotiation::*;
pub use offerer::Offerer;
