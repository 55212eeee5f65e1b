//! Datagrams over TCP connections, for peers that UDP does not reach (RFC 4571, RFC 6544).

mod connection;
mod frame;
mod listener;
mod readiness;

pub use connection::{Gone, MAX_FIRST_FRAME_BYTES, MAX_QUEUED_BYTES, TcpBuffer, TcpConnection};
pub use frame::{FrameTooLong, MAX_FRAME_BYTES, split_frame};
pub use listener::TcpListener;
pub use readiness::{Readiness, Ready};
