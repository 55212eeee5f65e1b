//! LiveKit's signal protocol, as values.
//!
//! [`connect`] decodes what a client asks for when it opens its WebSocket, [`token`] verifies and
//! signs access tokens, [`frame`] turns WebSocket messages into requests and responses into
//! messages, [`request`], [`response`] and [`info`] translate between protobuf and the nouns of a
//! room, [`client`] knows what older clients can not be told, [`data`] reads and relays data
//! packets, [`worker`] has the messages of agent workers.
//!
//! This is the only crate where the version of a client matters, and the only one of the
//! control plane, beside the server API, that knows protobuf. It never decides what a
//! participant may do (`parlor-room` does), and it holds no sockets and no clock.
//!
//! ```
//! use parlor_signal::frame;
//!
//! // An empty frame is nothing, junk is an error, the rest is a request.
//! assert!(frame::decode_binary(&[]).unwrap().is_none());
//! assert!(frame::decode_binary(&[0xff, 0xff]).is_err());
//! assert!(frame::decode_binary(&[0x70, 0x07]).unwrap().is_some()); // ping 7
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod client;
pub mod connect;
pub mod data;
pub mod device;
pub mod frame;
pub mod ice;
pub mod info;
pub mod request;
pub mod response;
pub mod token;
mod wire;
pub mod worker;

pub use connect::{ConnectError, ConnectPath, ConnectRequest, ConnectionModel};
pub use token::{ApiKeys, Claims, TokenError};
