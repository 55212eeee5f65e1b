//! UDP and TCP as the media threads need it: many datagrams per system call, and nothing lost
//! silently.
//!
//! * [`UdpSocket`] is bound to one address and port and never blocks. It reads in batches
//!   ([`RecvBatch`]), lets the kernel hand over runs of datagrams in one piece (UDP GRO), and
//!   tells of each datagram the local address that it was sent to, so that a socket bound to
//!   the wildcard address serves ICE too.
//! * It sends [`Run`]s: datagrams of equal size to one destination, which leave as one message
//!   (UDP GSO) where kernel and device can, and one by one where they cannot. A datagram is
//!   2 to 3 us of kernel time, a system call 0.1 us, so runs are what makes sending cheap.
//! * RTCP may have a socket of its own on the same port ([`UdpSocket::set_reports_apart`]), so that
//!   it is read when it suits.
//! * [`Poll`] sleeps until a socket or a wake-up descriptor is ready, or until a deadline.
//! * [`TcpConnection`] carries datagrams in frames (RFC 4571) for peers that UDP does not reach.
//!   What a slow reader does not take waits up to a bound and is then dropped, as UDP would.
//!   [`TcpListener`] accepts them, [`Readiness`] tells which of many have something to do.
//! * [`NetCounters`] and [`TcpCounters`] count what went through and what did not, by cause.
//!
//! What it never does: look into a datagram (but for that), decide what is sent when, allocate per packet, or
//! log. It is for Linux. This is one of the two crates that may hold `unsafe`: only around
//! system calls, each block with the reason why it is sound.
//!
//! ```
//! use parlor_net::{Poll, RecvBatch, Run, UdpSocket};
//! use std::{os::fd::AsFd, time::Duration};
//!
//! let mut here = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
//! let mut there = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
//! let run = Run { local: None, remote: there.local_address(), bytes: b"onetwosix!", segment_bytes: 3 };
//! let sent = here.send([run], Duration::ZERO);
//! assert_eq!((sent.datagrams, sent.dropped), (4, 0));
//!
//! let (mut batch, mut poll, mut received) = (RecvBatch::new(), Poll::new(), Vec::new());
//! while received.len() < 4 {
//!     poll.wait([there.as_fd()], Some(Duration::from_secs(1))).unwrap();
//!     there.recv(&mut batch, |_local, remote, datagram| {
//!         assert_eq!(remote, here.local_address());
//!         received.push(datagram.to_vec());
//!     }).unwrap();
//! }
//! assert_eq!(received, [&b"one"[..], b"two", b"six", b"!"]);
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod counters;
mod interfaces;
mod poll;
mod receive;
mod reports;
mod send;
mod socket;
mod tcp;
mod wire;

pub use counters::{NetCounters, TcpCounters};
pub use interfaces::local_addresses;
pub use poll::Poll;
pub use receive::RecvBatch;
pub use send::{Run, Sent};
pub use socket::UdpSocket;
pub use tcp::{
    FrameTooLong, Gone, MAX_FIRST_FRAME_BYTES, MAX_FRAME_BYTES, MAX_QUEUED_BYTES, Readiness, Ready,
    TcpBuffer, TcpConnection, TcpListener, split_frame,
};
