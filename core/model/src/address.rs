//! Where datagrams come from and go to.

use std::{
    fmt,
    hash::{Hash, Hasher},
    net::SocketAddr,
};

/// What carries datagrams.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum TransportProtocol {
    /// UDP.
    Udp,
    /// A TCP connection, each datagram in a frame of its own (RFC 4571, RFC 6544).
    Tcp,
}

/// An address and port of one protocol: a transport address in the words of RFC 8445.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TransportAddress {
    /// The protocol.
    pub protocol: TransportProtocol,
    /// Address and port.
    pub address: SocketAddr,
}

impl TransportAddress {
    /// An address of UDP.
    pub fn udp(address: SocketAddr) -> Self {
        Self { protocol: TransportProtocol::Udp, address }
    }

    /// An address of TCP.
    pub fn tcp(address: SocketAddr) -> Self {
        Self { protocol: TransportProtocol::Tcp, address }
    }
}

impl fmt::Display for TransportAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.protocol {
            TransportProtocol::Udp => "udp",
            TransportProtocol::Tcp => "tcp",
        };
        write!(f, "{scheme}:{}", self.address)
    }
}

/// Our address and the peer's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Path {
    /// What carries datagrams between the two.
    pub protocol: TransportProtocol,
    /// Our address.
    pub local: SocketAddr,
    /// The peer's address.
    pub remote: SocketAddr,
}

impl Path {
    /// A path over UDP.
    pub fn udp(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { protocol: TransportProtocol::Udp, local, remote }
    }

    /// A TCP connection.
    pub fn tcp(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { protocol: TransportProtocol::Tcp, local, remote }
    }

    /// Our end.
    pub fn local_address(self) -> TransportAddress {
        TransportAddress { protocol: self.protocol, address: self.local }
    }

    /// The peer's end.
    pub fn remote_address(self) -> TransportAddress {
        TransportAddress { protocol: self.protocol, address: self.remote }
    }
}

/// The protocol is left out: two paths that differ in nothing else are rare, and this is done for
/// every packet.
impl Hash for Path {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.local.hash(state);
        self.remote.hash(state);
    }
}
