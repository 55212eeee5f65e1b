//! Where connections come in.

use super::TcpConnection;
use crate::{
    socket::{check, open, set},
    wire::Name,
};
use std::{
    io, net,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 1024;

/// A listener that never blocks.
#[derive(Debug)]
pub struct TcpListener {
    listener: net::TcpListener,
    local: SocketAddr,
}

impl TcpListener {
    /// Listens on one address, which may be a wildcard address; port 0 draws a free one. On an
    /// IPv6 address it takes IPv6 only, so that both families can have the same port.
    ///
    /// # Errors
    /// As `bind(2)` and `listen(2)`.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        let descriptor = open(address, libc::SOCK_STREAM)?;
        set(&descriptor, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        let name = Name::encode(address);
        // SAFETY: the pointer is to `name.len` bytes of a socket address, which outlive the call.
        check(unsafe { libc::bind(descriptor.as_raw_fd(), name.bytes.as_ptr().cast(), name.len) })?;
        // SAFETY: `listen` takes integers only.
        check(unsafe { libc::listen(descriptor.as_raw_fd(), BACKLOG) })?;
        let listener = net::TcpListener::from(descriptor);
        let local = listener.local_addr()?;
        Ok(Self { listener, local })
    }

    /// The address and port that it listens on.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// The connection that has waited longest; `None` when none waits.
    ///
    /// # Errors
    /// As `accept(2)`, except what only concerns the connection; above all that there are no
    /// descriptors left, which will be so again at once.
    pub fn accept(&mut self) -> io::Result<Option<TcpConnection>> {
        loop {
            match self.listener.accept() {
                // One that is gone already has no options to set: the next one.
                Ok((stream, remote)) => {
                    if let Ok(connection) = TcpConnection::new(stream, remote) {
                        return Ok(Some(connection));
                    }
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::EAGAIN) => return Ok(None),
                    Some(libc::EINTR | libc::ECONNABORTED | libc::EPROTO) => {}
                    _ => return Err(error),
                },
            }
        }
    }
}

impl AsFd for TcpListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }
}
