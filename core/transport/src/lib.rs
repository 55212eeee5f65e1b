//! One peer's transport: ICE finds a path, DTLS yields keys, SCTP carries data channels.
//!
//! A [`Transport`] is a plain value. Its owner brings datagrams and the time
//! ([`Transport::handle_datagram`], [`Transport::handle_timeout`]) and takes datagrams and events
//! away ([`Transport::poll_transmit`], [`Transport::poll_event`]). It serves both ends: the
//! server, as an ICE-lite or a full agent, and a client, as a full controlling agent.
//!
//! What it holds to:
//! * the remote address moves only after an authenticated STUN check, and DTLS is taken only from
//!   an address that passed one; [`Transport::is_validated`] tells the owner the same for media;
//! * no key and no message is handed out before the peer's certificate has matched a fingerprint
//!   of its description;
//! * nothing that a peer sends panics, and everything that it can grow has a bound, named here.
//!
//! It never sees RTP or SDP, and it never opens sockets. ICE, DTLS and SCTP themselves come from
//! the crates `is`, `dimpl` and `sctp-proto`; what they draw on their own is written down in
//! `docs/decisions/0001-randomness-of-dependencies.md`.
//!
//! ```
//! use std::time::Instant;
//!
//! use parlor_model::{DtlsRole, IceCredentials, Path, RemoteTransport, TransportAddress};
//! use parlor_transport::{DtlsIdentity, Transport, TransportConfig};
//!
//! let now = Instant::now();
//! let credentials = |name: &str| IceCredentials {
//!     ufrag: name.into(),
//!     pwd: format!("{name}-0123456789abcdefghij"),
//! };
//! let peer = |name: &str, address: &str, controlling: bool| {
//!     let identity = DtlsIdentity::generate().unwrap();
//!     let fingerprint = identity.fingerprint().clone();
//!     let transport = Transport::new(now, TransportConfig {
//!         identity,
//!         ice: credentials(name),
//!         ice_lite: !controlling,
//!         ice_controlling: controlling,
//!         seed: [7; 32],
//!         open_channels: vec![],
//!         local_addresses: vec![TransportAddress::udp(address.parse().unwrap())],
//!     });
//!     (transport, fingerprint)
//! };
//! let (mut server, server_fingerprint) = peer("server", "127.0.0.1:7882", false);
//! let (mut client, client_fingerprint) = peer("client", "127.0.0.1:5000", true);
//!
//! let remote = |name: &str, fingerprint, dtls_role| RemoteTransport {
//!     ice: credentials(name),
//!     ice_lite: false,
//!     fingerprints: vec![fingerprint],
//!     dtls_role,
//!     sctp: None,
//! };
//! server.set_remote(now, remote("client", client_fingerprint, DtlsRole::Server))?;
//! client.set_remote(now, remote("server", server_fingerprint, DtlsRole::Client))?;
//! client.add_remote_candidate(now, "candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host");
//!
//! // Carry datagrams to and fro until DTLS has yielded keys.
//! let seen_from_there = |path: Path| Path { local: path.remote, remote: path.local, ..path };
//! let mut datagram = [0; 1500];
//! let mut now = now;
//! while client.srtp_profile().is_none() {
//!     while let Some(sent) = client.poll_transmit(&mut datagram) {
//!         server.handle_datagram(now, seen_from_there(sent.path), &datagram[..sent.len]);
//!     }
//!     while let Some(sent) = server.poll_transmit(&mut datagram) {
//!         client.handle_datagram(now, seen_from_there(sent.path), &datagram[..sent.len]);
//!     }
//!     now += std::time::Duration::from_millis(10);
//!     client.handle_timeout(now);
//!     server.handle_timeout(now);
//! }
//! # Ok::<(), parlor_transport::TransportError>(())
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod channel;
mod dcep;
mod dtls;
mod ice;
mod identity;
mod sctp;
mod stun;
#[cfg(test)]
mod tests;
mod transport;

use parlor_model::{Path, SrtpKeys};

pub use channel::{
    BUFFERED_AMOUNT_LOW_BYTES, Channel, ChannelConfig, MAX_CHANNELS, MAX_LOSSY_BUFFERED_BYTES,
    MAX_RELIABLE_BUFFERED_BYTES,
};
pub use dcep::{DcepMessage, MAX_LABEL_BYTES, Reliability, parse_dcep};
pub use ice::{
    CHECKING_FAILURE, CONSENT_DISCONNECT, CONSENT_FAILURE, IceState, MAX_REMOTE_ADDRESSES,
    MAX_REMOTE_CANDIDATES,
};
pub use identity::DtlsIdentity;
pub use sctp::MAX_MESSAGE_BYTES;
pub use stun::{StunTransaction, stun_transaction, stun_username_ufrag};
pub use transport::{Counters, Transport, TransportConfig};

/// Largest datagram that [`Transport::poll_transmit`] writes, in bytes.
pub const MAX_DATAGRAM_BYTES: usize = 1200;

/// A datagram to send: `len` bytes were written to the caller's buffer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Transmit {
    /// The addresses to send from and to.
    pub path: Path,
    /// Length in bytes.
    pub len: usize,
}

/// What happened on a transport.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TransportEvent {
    /// Whether there is a path to the peer.
    Ice(IceState),
    /// Everything goes over this path from now on, media too.
    PathSelected(Path),
    /// The handshake is done and the peer's certificate is the announced one.
    SrtpKeys(SrtpKeys),
    /// A data channel is ready, whoever opened it.
    ChannelOpen {
        /// The channel.
        channel: Channel,
    },
    /// A message came in.
    Data {
        /// Its channel.
        channel: Channel,
        /// Whether it was sent as binary rather than as text.
        binary: bool,
        /// The message.
        data: Vec<u8>,
    },
    /// What waits to be sent on a channel fell to [`BUFFERED_AMOUNT_LOW_BYTES`].
    BufferedAmountLow {
        /// The channel.
        channel: Channel,
    },
    /// A data channel is gone.
    ChannelClosed {
        /// The channel.
        channel: Channel,
    },
    /// The transport is unusable. Nothing follows.
    Failed(FailureReason),
    /// The peer closed the transport. Nothing follows.
    Closed,
}

/// Why a transport is unusable.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FailureReason {
    /// The peer's certificate is not the one that its description announced, or it sent none.
    #[error("the certificate does not match the announced fingerprint")]
    FingerprintMismatch,
    /// The DTLS handshake failed or took too long, or the peer ended it with an alert.
    #[error("DTLS failed")]
    Dtls,
    /// The handshake agreed on no SRTP profile.
    #[error("no SRTP profile in common")]
    NoSrtpProfile,
    /// The SCTP association ended.
    #[error("SCTP association lost")]
    Sctp,
}

/// Why a call on a transport was refused.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TransportError {
    /// A certificate or its key could not be made or read.
    #[error("unusable certificate or private key")]
    Certificate,
    /// A later description announced another certificate.
    #[error("the fingerprint changed within the session")]
    FingerprintChanged,
    /// ICE credentials of a length that RFC 8839 section 5.4 does not allow.
    #[error("malformed ICE credentials")]
    IceCredentials,
}

/// Why a message was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendDataError {
    /// The channel is not open.
    #[error("the channel is not open")]
    NotOpen,
    /// The message is larger than the peer takes, or than [`MAX_MESSAGE_BYTES`].
    #[error("message too large")]
    TooLarge,
    /// Too much waits to be sent: [`MAX_RELIABLE_BUFFERED_BYTES`] or [`MAX_LOSSY_BUFFERED_BYTES`].
    #[error("too much is waiting to be sent")]
    BufferFull,
}
