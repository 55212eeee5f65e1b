//! WebSocket (RFC 6455) for servers, with permessage-deflate (RFC 7692) without context takeover.
//!
//! [`Decoder`] and the functions of [`frame`] are values over bytes; `socket.rs` moves the bytes.
//! Why not a crate: `docs/decisions/0002-websocket-crate.md`.

mod deflate;
mod frame;
mod handshake;

pub use deflate::{compress, inflate};
pub use frame::{CloseCode, Decoder, MAX_MESSAGE_BYTES, Opcode, ProtocolError, Received, encode};
pub use handshake::{DEFLATE_ANSWER, Handshake, accept_key};
