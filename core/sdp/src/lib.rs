//! SDP text, and the offer/answer machines for LiveKit's two connection models.
//!
//! [`text::SessionDescription`] is a description as a typed value; it reads what peers send and
//! prints what we answer. Four machines work on it, plain values without a clock, sockets, rooms,
//! or any state of ICE and DTLS:
//!
//! - [`Answerer`] answers a client that offers: the single connection of `/rtc/v1`, which carries
//!   both ways, and the publisher connection of `/rtc`. It decides which subscribed track goes into
//!   which of the client's sections, and says when the client must append some.
//! - [`Offerer`] offers the subscriber connection of `/rtc`: one offer outstanding, later changes
//!   gathered for the next one, stale answers ignored.
//! - [`client::ClientOfferer`] and [`client::ClientAnswerer`] are their other ends.
//!
//! What two ends agreed on leaves as [`parlor_model::MediaDescription`] for the packet path and
//! [`parlor_model::RemoteTransport`] for the transport.
//!
//! Where we differ from LiveKit's own answers: `setup:passive` (the DTLS server picks the SRTP
//! profile), transport-wide feedback in every section whose offer has it, and a section is seen
//! inactive once before it carries another track.
//!
//! ```
//! use parlor_model::{Codec, Fingerprint, IceCredentials};
//! use parlor_sdp::{Answerer, ConnectionModel, LocalTransport, client::ClientOfferer};
//!
//! let transport = |ufrag: &str| LocalTransport {
//!     ice: IceCredentials { ufrag: ufrag.into(), pwd: "0123456789abcdef01234567".into() },
//!     fingerprint: Fingerprint { algorithm: "sha-256".into(), digest: vec![0; 32] },
//!     ice_lite: false,
//!     candidates: Vec::new(),
//! };
//! let codecs = [Codec::Opus, Codec::Vp8];
//! let mut client = ClientOfferer::new(1, ConnectionModel::Single, &codecs);
//! let mut server = Answerer::new(2, 1_700_000_000, ConnectionModel::Single, &codecs);
//!
//! let offer = client.create_offer(&transport("client"));
//! let answer = server.handle_offer(&offer, &transport("server"), &[])?;
//! assert_eq!(answer.remote.ice.ufrag, "client");
//! let agreed = client.handle_answer(&answer.sdp)?;
//! assert_eq!(agreed.remote.ice.ufrag, "server");
//! # Ok::<(), parlor_sdp::SdpError>(())
//! ```
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
pub use offerer::{FRESH_SECTIONS_MAX, Offerer};
