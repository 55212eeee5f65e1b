//! Which of our addresses the shard knows, and which the socket does.
//!
//! ICE knows a candidate by the address that was announced. Behind a NAT that maps a public
//! address to this machine, the kernel never sees that one: datagrams come to another address and
//! must leave from it.

use parlor_model::{TransportAddress, TransportProtocol};
use std::net::{IpAddr, SocketAddr};

/// An address that clients are told to send to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Announced {
    /// What the candidate says.
    pub announced: IpAddr,
    /// The address of this machine that datagrams for it come to; `None`: any of the family.
    pub bound: Option<IpAddr>,
}

impl Announced {
    /// An address of this machine itself.
    pub fn new(ip: IpAddr) -> Self {
        Self { announced: ip, bound: Some(ip) }
    }

    /// An address that a NAT translates to whichever address of this machine.
    pub fn behind_nat(ip: IpAddr) -> Self {
        Self { announced: ip, bound: None }
    }
}

/// A candidate of one worker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Entry {
    announced: SocketAddr,
    bound: Option<IpAddr>,
    socket: usize,
}

/// Translates between candidates and sockets. A handful of entries: searching them in order is
/// as fast as it gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Addresses {
    entries: Vec<Entry>,
    sockets: Vec<SocketAddr>,
}

impl Addresses {
    /// # Errors
    /// The announced address that no socket serves.
    pub(crate) fn new(sockets: Vec<SocketAddr>, announced: &[Announced]) -> Result<Self, IpAddr> {
        let mut entries = Vec::with_capacity(announced.len());
        for address in announced {
            let ip = address.announced;
            let serves = |socket: &SocketAddr| match address.bound {
                Some(bound) => same_family(socket.ip(), bound) && covers(socket.ip(), bound),
                None => same_family(socket.ip(), ip),
            };
            let socket = sockets.iter().position(serves).ok_or(ip)?;
            let announced = SocketAddr::new(ip, sockets[socket].port());
            entries.push(Entry { announced, bound: address.bound, socket });
        }
        Ok(Self { entries, sockets })
    }

    /// The candidates, of sockets of this protocol.
    pub(crate) fn announced(&self, protocol: TransportProtocol) -> Vec<TransportAddress> {
        let addresses = self.entries.iter().map(|entry| entry.announced);
        addresses.map(|address| TransportAddress { protocol, address }).collect()
    }

    /// What the shard is to know a datagram's destination by.
    #[inline]
    pub(crate) fn incoming(&self, socket: usize, local: SocketAddr) -> SocketAddr {
        let mut translated = local;
        for entry in self.entries.iter().filter(|entry| entry.socket == socket) {
            if entry.bound == Some(local.ip()) || entry.announced == local {
                return entry.announced;
            }
            if entry.bound.is_none() {
                translated = entry.announced;
            }
        }
        translated
    }

    /// Which socket serves what the shard calls `local`, and the source address to ask it for.
    #[inline]
    pub(crate) fn outgoing(&self, local: SocketAddr) -> Option<(usize, Option<IpAddr>)> {
        if let Some(entry) = self.entries.iter().find(|entry| entry.announced == local) {
            return Some((entry.socket, entry.bound));
        }
        // An address of ours that was not announced, but that datagrams came to.
        let serves = |socket: &SocketAddr| {
            socket.port() == local.port()
                && same_family(socket.ip(), local.ip())
                && covers(socket.ip(), local.ip())
        };
        self.sockets.iter().position(serves).map(|socket| (socket, Some(local.ip())))
    }
}

fn same_family(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4()
}

fn covers(listening: IpAddr, ip: IpAddr) -> bool {
    listening.is_unspecified() || listening == ip
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    fn ip(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    #[test]
    fn an_address_of_this_machine_is_itself() {
        let sockets = vec![at("0.0.0.0:7882"), at("[::]:7882")];
        let announced = [Announced::new(ip("10.0.0.5")), Announced::new(ip("2001:db8::5"))];
        let addresses = Addresses::new(sockets, &announced).unwrap();
        let announced = [at("10.0.0.5:7882"), at("[2001:db8::5]:7882")].map(TransportAddress::udp);
        assert_eq!(addresses.announced(TransportProtocol::Udp), announced);
        assert_eq!(addresses.incoming(0, at("10.0.0.5:7882")), at("10.0.0.5:7882"));
        assert_eq!(addresses.outgoing(at("10.0.0.5:7882")), Some((0, Some(ip("10.0.0.5")))));
        assert_eq!(
            addresses.outgoing(at("[2001:db8::5]:7882")),
            Some((1, Some(ip("2001:db8::5"))))
        );
    }

    #[test]
    fn one_that_was_not_announced_passes_as_it_is() {
        let announced = [Announced::new(ip("10.0.0.5"))];
        let addresses = Addresses::new(vec![at("0.0.0.0:7882")], &announced).unwrap();
        assert_eq!(addresses.incoming(0, at("172.17.0.1:7882")), at("172.17.0.1:7882"));
        assert_eq!(addresses.outgoing(at("172.17.0.1:7882")), Some((0, Some(ip("172.17.0.1")))));
        assert_eq!(addresses.outgoing(at("172.17.0.1:9")), None);
        assert_eq!(addresses.outgoing(at("[::1]:7882")), None);
    }

    #[test]
    fn behind_a_nat_the_destination_is_mapped_back() {
        let announced = [
            Announced::behind_nat(ip("203.0.113.9")),
            Announced::new(ip("10.0.0.5")),
            Announced { announced: ip("203.0.113.10"), bound: Some(ip("10.0.0.6")) },
        ];
        let addresses = Addresses::new(vec![at("0.0.0.0:1")], &announced).unwrap();
        // The exact match wins over the catch-all, wherever it stands.
        assert_eq!(addresses.incoming(0, at("10.0.0.5:1")), at("10.0.0.5:1"));
        assert_eq!(addresses.incoming(0, at("10.0.0.6:1")), at("203.0.113.10:1"));
        assert_eq!(addresses.incoming(0, at("10.0.0.7:1")), at("203.0.113.9:1"));
        assert_eq!(addresses.outgoing(at("203.0.113.9:1")), Some((0, None)));
        assert_eq!(addresses.outgoing(at("203.0.113.10:1")), Some((0, Some(ip("10.0.0.6")))));
    }

    #[test]
    fn nothing_is_announced_where_nobody_listens() {
        let refused = |listen: &str, announced| Addresses::new(vec![at(listen)], &[announced]);
        let v6 = ip("2001:db8::5");
        assert_eq!(refused("0.0.0.0:1", Announced::new(v6)), Err(v6));
        assert_eq!(refused("0.0.0.0:1", Announced::behind_nat(v6)), Err(v6));
        let other = ip("10.0.0.6");
        assert_eq!(refused("10.0.0.5:1", Announced::new(other)), Err(other));
        assert!(refused("10.0.0.5:1", Announced::behind_nat(other)).is_ok());
    }
}
