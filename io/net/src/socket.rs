//! Opening a socket and its options.

use crate::{NetCounters, send::SendBuffers, wire::Name};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

/// What we ask the kernel to hold for us in each direction, in bytes: a tenth of a second at
/// 300 Mbit/s. It gives as much as `net.core.rmem_max` and `wmem_max` allow, or all of it to root.
const BUFFER_BYTES: i32 = 4 << 20;

/// A UDP socket that never blocks, for one thread.
#[derive(Debug)]
pub struct UdpSocket {
    pub(crate) descriptor: OwnedFd,
    pub(crate) local: SocketAddr,
    /// The kernel cuts runs for us. Given up when a device on the way cannot.
    pub(crate) segmentation: bool,
    pub(crate) counters: NetCounters,
    /// As the kernel last told it.
    pub(crate) overflow_seen: u32,
    pub(crate) buffers: SendBuffers,
}

impl UdpSocket {
    /// Binds to one address, which may be a wildcard address; port 0 draws a free one. A socket
    /// on an IPv6 address carries IPv6 only, so that both families can have the same port.
    ///
    /// # Errors
    /// As `bind(2)`: above all `AddrInUse`, `AddrNotAvailable`, and `Unsupported` or `EAFNOSUPPORT`
    /// where the family is missing.
    pub fn bind(address: SocketAddr) -> io::Result<Self> {
        Self::bind_as(address, false)
    }

    /// Binds several sockets to one address and port, for a thread each. What comes from one source
    /// comes to one of them, which the kernel chooses (`SO_REUSEPORT`).
    ///
    /// # Errors
    /// As [`UdpSocket::bind`]; `AddrInUse` also where whoever has the port would share it.
    pub fn bind_group(address: SocketAddr, count: usize) -> io::Result<Vec<Self>> {
        // Alone at first: among those who share, the kernel lets in any program of this user.
        let first = Self::bind(address)?;
        set(&first.descriptor, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        let address = first.local;
        let others = (1..count).map(|_| Self::bind_as(address, true));
        std::iter::once(Ok(first)).chain(others).collect()
    }

    pub(crate) fn bind_as(address: SocketAddr, shares_port: bool) -> io::Result<Self> {
        let descriptor = open(address, libc::SOCK_DGRAM)?;
        let segmentation = set_options(&descriptor, address.ip())?;
        if shares_port {
            set(&descriptor, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        let name = Name::encode(address);
        // SAFETY: the pointer is to `name.len` bytes of a socket address, which outlive the call.
        check(unsafe { libc::bind(descriptor.as_raw_fd(), name.bytes.as_ptr().cast(), name.len) })?;
        let local = bound_to(&descriptor)?;
        Ok(Self {
            descriptor,
            local,
            segmentation,
            counters: NetCounters::default(),
            overflow_seen: 0,
            buffers: SendBuffers::new(),
        })
    }

    /// The address and port that the socket is bound to.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Whether runs leave as one message. May turn false when a device refuses.
    pub fn segments(&self) -> bool {
        self.segmentation
    }

    /// Sends datagrams one by one from now on, whatever the kernel could.
    pub fn disable_segmentation(&mut self) {
        self.segmentation = false;
    }

    /// Lets the kernel stamp what arrives; [`UdpSocket::recv_stamped`] hands the stamps over.
    ///
    /// # Errors
    /// As `setsockopt(2)`.
    pub fn stamp_received(&mut self) -> io::Result<()> {
        set(&self.descriptor, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)
    }

    /// Totals since the socket was bound.
    pub fn counters(&self) -> NetCounters {
        self.counters
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A socket of this kind that never blocks, for one family only.
pub(crate) fn open(address: SocketAddr, kind: libc::c_int) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: `socket` takes integers only.
    let descriptor = check(unsafe { libc::socket(family, kind, 0) })?;
    // SAFETY: the kernel has just opened this descriptor for us; nobody else knows it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
    if address.is_ipv6() {
        set(&descriptor, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    Ok(descriptor)
}

/// What every socket of ours has. Whether the kernel cuts runs.
fn set_options(descriptor: &OwnedFd, ip: IpAddr) -> io::Result<bool> {
    match ip {
        IpAddr::V4(ip) if ip.is_unspecified() => {
            set(descriptor, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)?;
        }
        IpAddr::V6(ip) if ip.is_unspecified() => {
            set(descriptor, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)?;
        }
        _ => {}
    }
    for (force, ask) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF)]
    {
        if set(descriptor, libc::SOL_SOCKET, force, BUFFER_BYTES).is_err() {
            set(descriptor, libc::SOL_SOCKET, ask, BUFFER_BYTES)?;
        }
    }
    set(descriptor, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    // Since Linux 5.0 and 4.18. Without the first we read singly, without the second we send so.
    let _ = set(descriptor, libc::SOL_UDP, libc::UDP_GRO, 1);
    Ok(set(descriptor, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok())
}

pub(crate) fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

pub(crate) fn set(socket: &impl AsFd, level: i32, option: i32, value: i32) -> io::Result<()> {
    let socket = socket.as_fd();
    let len = size_of::<i32>() as libc::socklen_t;
    let value = (&raw const value).cast();
    // SAFETY: `value` points to an integer of `len` bytes on our stack, which outlives the call.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), level, option, value, len) })?;
    Ok(())
}

fn bound_to(socket: &OwnedFd) -> io::Result<SocketAddr> {
    let mut name = Name::default();
    let mut len = name.bytes.len() as libc::socklen_t;
    let place = name.bytes.as_mut_ptr().cast();
    // SAFETY: `place` points to `len` bytes that the kernel may fill, and `len` to their number.
    check(unsafe { libc::getsockname(socket.as_raw_fd(), place, &mut len) })?;
    name.len = len;
    name.decode().ok_or_else(|| io::Error::other("bound to an address of another family"))
}
