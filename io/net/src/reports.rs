//! RTCP has a socket of its own on the port of the media, so that reports need not wake whoever
//! waits for media. A classic BPF program, which needs no right, deals datagrams out.

use crate::{
    UdpSocket,
    socket::{check, set},
};
use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

/// Where the source port is, from the beginning of the IP header.
const SOURCE_PORT_IPV4: i32 = 20;
const SOURCE_PORT_IPV6: i32 = 40;
const INSTRUCTIONS: usize = 13;

impl UdpSocket {
    /// Opens one more socket beside each of those that share a port (or the one that has it), which
    /// gets the RTCP of the same sources (RFC 5761 section 4); they get all else. It is there to be
    /// read.
    ///
    /// # Errors
    /// As [`UdpSocket::bind_group`], and as `setsockopt(2)` where the kernel takes no such program.
    /// Then everything comes to `group`, as before.
    pub fn set_reports_apart(group: &[Self]) -> io::Result<Vec<Self>> {
        for socket in group {
            set(&socket.descriptor, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        }
        // The kernel numbers them in the order in which they come.
        let beside = group.iter().map(|socket| Self::bind_as(socket.local, true));
        let beside = beside.collect::<io::Result<Vec<_>>>()?;
        if let Some(socket) = beside.first() {
            attach(socket, &program(group.len() as u32, socket.local.is_ipv4()))?;
        }
        Ok(beside)
    }
}

/// The number of the socket that a datagram is for: by its source port, and the second half of the
/// numbers for RTCP. With IPv4 options in its header the port is read from these, and is as good.
fn program(group: u32, is_ipv4: bool) -> [libc::sock_filter; INSTRUCTIONS] {
    const BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
    const HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
    const AT_LEAST: u32 = libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K;
    const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
    const ADD: u32 = libc::BPF_ALU | libc::BPF_ADD | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_A;
    let instruction = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let port = if is_ipv4 { SOURCE_PORT_IPV4 } else { SOURCE_PORT_IPV6 };
    let port = (libc::SKF_NET_OFF + port) as u32;
    [
        // Neither RTP nor RTCP below 128 and from 192 on (RFC 7983).
        instruction(BYTE, 0, 0, 0),
        instruction(AT_LEAST, 0, 8, 128),
        instruction(AT_LEAST, 7, 0, 192),
        // The packet types of RTCP.
        instruction(BYTE, 0, 0, 1),
        instruction(AT_LEAST, 0, 5, 192),
        instruction(AT_LEAST, 4, 0, 224),
        instruction(HALF, 0, 0, port),
        instruction(MODULO, 0, 0, group),
        instruction(ADD, 0, 0, group),
        instruction(RETURN, 0, 0, 0),
        instruction(HALF, 0, 0, port),
        instruction(MODULO, 0, 0, group),
        instruction(RETURN, 0, 0, 0),
    ]
}

fn attach(socket: &UdpSocket, program: &[libc::sock_filter; INSTRUCTIONS]) -> io::Result<()> {
    let mut program = *program;
    let program = libc::sock_fprog { len: program.len() as _, filter: program.as_mut_ptr() };
    let (place, len) = ((&raw const program).cast(), size_of_val(&program) as libc::socklen_t);
    let descriptor = socket.descriptor.as_fd().as_raw_fd();
    // SAFETY: `place` points to a `sock_fprog` of `len` bytes, and that to as many instructions as
    // it says; both are on our stack and outlive the call, which copies them.
    check(unsafe {
        libc::setsockopt(descriptor, libc::SOL_SOCKET, libc::SO_ATTACH_REUSEPORT_CBPF, place, len)
    })?;
    Ok(())
}
