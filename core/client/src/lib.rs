//! A participant from the other side: LiveKit's protocol as a client sees it.
//!
//! A [`Client`] is a plain value that joins a room, publishes, receives, repairs and exchanges
//! data. Its owner carries three things to and fro: messages of the signal socket
//! ([`Client::handle_signal`], [`Client::poll_signal`]), datagrams
//! ([`Client::handle_datagram`], [`Client::poll_transmit`]) and the time. It serves the load
//! generator, the simulator and everything that takes part in rooms from the server's side. It
//! never encodes or decodes media, opens sockets or reads clocks.
//!
//! ```
//! use parlor_client::{Client, ClientConfig, Model};
//! use parlor_model::Now;
//! use parlor_transport::DtlsIdentity;
//! use std::time::{Duration, Instant};
//!
//! let now = Now { instant: Instant::now(), unix: Duration::from_secs(1_800_000_000) };
//! let mut client = Client::new(now, ClientConfig {
//!     identity: DtlsIdentity::generate()?,
//!     seed: [1; 32],
//!     model: Model::Single,
//!     auto_subscribe: true,
//!     local_address: "127.0.0.1:5000".parse().expect("an address"),
//!     subscriber_address: "127.0.0.1:5001".parse().expect("an address"),
//! });
//! let (path, query) = client.connect_url();
//! assert_eq!((path, query[0].0.as_str()), ("/rtc/v1", "join_request"));
//! # Ok::<(), parlor_transport::TransportError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod client;
mod connection;
mod event;
mod feedback;
mod media;
mod receive;
mod resume;
mod send;

pub use client::{Client, ClientConfig, ClientError, Model, NewTrack};
pub use event::ClientEvent;
pub use media::{KeyframeRequest, MediaCounters, OUTGOING_MAX, ReceivedRtp};
pub use receive::{MISSING_MAX, NACK_DELAY, NACK_INTERVAL, NACK_TRIES_MAX, ReceivedStream};
pub use send::{HISTORY_PACKETS, RtpPayload};
