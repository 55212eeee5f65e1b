//! Addresses and control messages in the layout of Linux's socket calls, as plain bytes.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    time::Duration,
};

/// `sockaddr_in` or `sockaddr_in6`.
#[derive(Clone, Copy, Default, Debug)]
#[repr(C, align(8))]
pub(crate) struct Name {
    pub(crate) bytes: [u8; 28],
    pub(crate) len: u32,
}

impl Name {
    pub(crate) fn encode(address: SocketAddr) -> Self {
        let mut bytes = [0; 28];
        bytes[2..4].copy_from_slice(&address.port().to_be_bytes());
        let (family, len) = match address {
            SocketAddr::V4(v4) => {
                bytes[4..8].copy_from_slice(&v4.ip().octets());
                (libc::AF_INET, 16)
            }
            SocketAddr::V6(v6) => {
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_ne_bytes());
                bytes[8..24].copy_from_slice(&v6.ip().octets());
                bytes[24..28].copy_from_slice(&v6.scope_id().to_ne_bytes());
                (libc::AF_INET6, 28)
            }
        };
        bytes[0..2].copy_from_slice(&(family as u16).to_ne_bytes());
        Self { bytes, len }
    }

    pub(crate) fn decode(&self) -> Option<SocketAddr> {
        let family = i32::from(u16::from_ne_bytes(array(&self.bytes, 0)?));
        let port = u16::from_be_bytes(array(&self.bytes, 2)?);
        match (family, self.len) {
            (libc::AF_INET, 16..) => {
                let ip = Ipv4Addr::from(array::<4>(&self.bytes, 4)?);
                Some(SocketAddrV4::new(ip, port).into())
            }
            (libc::AF_INET6, 28..) => {
                let ip = Ipv6Addr::from(array::<16>(&self.bytes, 8)?);
                let scope_id = u32::from_ne_bytes(array(&self.bytes, 24)?);
                // The flow label differs from packet to packet and is no part of who it is.
                Some(SocketAddrV6::new(ip, port, 0, scope_id).into())
            }
            _ => None,
        }
    }
}

fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// Length of a `cmsghdr`: a length, a level and a type.
const HEADER: usize = size_of::<usize>() + 8;

const fn align(len: usize) -> usize {
    len.next_multiple_of(size_of::<usize>())
}

/// Room for the control messages of one message, sent or received. The largest set is
/// `IPV6_PKTINFO` (40 bytes), `SO_TIMESTAMPNS` (32), `UDP_GRO` (24) and `SO_RXQ_OVFL` (24).
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub(crate) struct Control {
    pub(crate) bytes: [u8; 160],
    pub(crate) len: usize,
}

impl Default for Control {
    fn default() -> Self {
        Self { bytes: [0; 160], len: 0 }
    }
}

impl Control {
    fn push(&mut self, level: i32, kind: i32, data: &[u8]) {
        let message = &mut self.bytes[self.len..];
        message[..size_of::<usize>()].copy_from_slice(&(HEADER + data.len()).to_ne_bytes());
        message[size_of::<usize>()..HEADER - 4].copy_from_slice(&level.to_ne_bytes());
        message[HEADER - 4..HEADER].copy_from_slice(&kind.to_ne_bytes());
        message[HEADER..HEADER + data.len()].copy_from_slice(data);
        self.len += align(HEADER + data.len());
    }

    /// The address that the message leaves from: `in_pktinfo`, `in6_pktinfo`.
    pub(crate) fn push_source(&mut self, source: IpAddr) {
        match source {
            IpAddr::V4(ip) => {
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&ip.octets());
                self.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            IpAddr::V6(ip) => {
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                self.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
        }
    }

    /// The length that the kernel cuts the message into.
    pub(crate) fn push_segment_bytes(&mut self, segment_bytes: u16) {
        self.push(libc::SOL_UDP, libc::UDP_SEGMENT, &segment_bytes.to_ne_bytes());
    }

    pub(crate) fn read(&self) -> Received {
        let mut received = Received::default();
        let mut rest = &self.bytes[..self.len.min(self.bytes.len())];
        while let Some((level, kind, data)) = next(&mut rest) {
            match (level, kind) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    received.local = array::<4>(data, 4).map(IpAddr::from);
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    received.local = array::<16>(data, 0).map(IpAddr::from);
                }
                (libc::SOL_UDP, libc::UDP_GRO) => {
                    let len = array(data, 0).map(i32::from_ne_bytes);
                    received.segment_len = len.and_then(|len| usize::try_from(len).ok());
                }
                (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                    received.overflow = array(data, 0).map(u32::from_ne_bytes);
                }
                (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => received.stamp = stamp(data),
                _ => {}
            }
        }
        received
    }
}

/// A `timespec`.
fn stamp(data: &[u8]) -> Option<Duration> {
    let seconds = i64::from_ne_bytes(array(data, 0)?);
    let nanoseconds = i64::from_ne_bytes(array(data, 8)?);
    Some(Duration::new(u64::try_from(seconds).ok()?, u32::try_from(nanoseconds).ok()?))
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<(i32, i32, &'a [u8])> {
    let len = usize::from_ne_bytes(array(rest, 0)?);
    let level = i32::from_ne_bytes(array(rest, size_of::<usize>())?);
    let kind = i32::from_ne_bytes(array(rest, HEADER - 4)?);
    let data = rest.get(HEADER..len)?;
    *rest = rest.get(align(len)..).unwrap_or_default();
    Some((level, kind, data))
}

/// What the kernel tells beside the bytes.
#[derive(Default, PartialEq, Eq, Debug)]
pub(crate) struct Received {
    /// Our address that it was sent to.
    pub(crate) local: Option<IpAddr>,
    /// Present when the message is several datagrams: the length of each but the last.
    pub(crate) segment_len: Option<usize>,
    /// How many datagrams this socket has lost since it was bound; wraps.
    pub(crate) overflow: Option<u32>,
    /// When the kernel received it, since the Unix epoch.
    pub(crate) stamp: Option<Duration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive() {
        for address in ["1.2.3.4:5", "[2001:db8::1]:65535", "[fe80::1%7]:9"] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(Name::encode(address).decode(), Some(address));
        }
        assert_eq!(Name::default().decode(), None);
        let cut = Name { len: 15, ..Name::encode("1.2.3.4:5".parse().unwrap()) };
        assert_eq!(cut.decode(), None);
    }

    #[test]
    fn layout_is_that_of_libc() {
        assert_eq!(size_of::<libc::sockaddr_in>(), 16);
        assert_eq!(size_of::<libc::sockaddr_in6>(), 28);
        assert_eq!(size_of::<libc::cmsghdr>(), HEADER);
        assert_eq!(size_of::<libc::in_pktinfo>(), 12);
        assert_eq!(size_of::<libc::in6_pktinfo>(), 20);
        for len in 0..40 {
            // SAFETY: `CMSG_SPACE` is arithmetic.
            let space = unsafe { libc::CMSG_SPACE(len as u32) };
            assert_eq!(align(HEADER + len), space as usize);
        }
    }

    #[test]
    fn control_messages_are_read_whatever_their_order() {
        let mut control = Control::default();
        control.push(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, &7u32.to_ne_bytes());
        control.push(99, 99, &[1, 2, 3]);
        control.push(libc::SOL_UDP, libc::UDP_GRO, &1200i32.to_ne_bytes());
        let stamp: [u8; 16] = [3i64.to_ne_bytes(), 4i64.to_ne_bytes()].concat().try_into().unwrap();
        control.push(libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS, &stamp);
        control.push_source("2001:db8::1".parse().unwrap());
        let expected = Received {
            local: "2001:db8::1".parse().ok(),
            segment_len: Some(1200),
            overflow: Some(7),
            stamp: Some(Duration::new(3, 4)),
        };
        assert_eq!(control.read(), expected);
    }

    #[test]
    fn cut_control_messages_are_left_out() {
        let mut control = Control::default();
        control.push_source("10.0.0.1".parse().unwrap());
        let full = control.len;
        for len in 0..full {
            control.len = len;
            assert!(control.read().local.is_none() || len >= HEADER + 12);
        }
        control.len = usize::MAX;
        control.bytes[..size_of::<usize>()].copy_from_slice(&usize::MAX.to_ne_bytes());
        assert_eq!(control.read(), Received::default());
    }
}
