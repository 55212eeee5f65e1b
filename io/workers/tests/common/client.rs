//! A client over UDP.

use super::open_peer;
use parlor_model::{Path, PeerId, TransportAddress};
use parlor_transport::{DtlsIdentity, Transport, TransportEvent};
use parlor_workers::WorkerHandle;
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

/// A peer in this process: a full, controlling ICE agent on a socket of its own.
pub struct Client {
    pub transport: Transport,
    pub socket: UdpSocket,
    /// Where it believes itself to be.
    local: SocketAddr,
    /// What it believes the worker's address to be, and what that leads to.
    server: (SocketAddr, SocketAddr),
    /// Datagrams that it has sent.
    pub sent: u64,
    /// Its checks are lost until it has heard something: its answer to a check comes first.
    pub is_only_heard_when_asked: bool,
}

fn bind(ip: IpAddr) -> UdpSocket {
    let socket = UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    socket
}

impl Client {
    /// Opens a peer on the worker, whose ufrag begins with `ours`, and the client to meet it.
    pub fn open(
        worker: &mut WorkerHandle,
        peer: PeerId,
        server: &DtlsIdentity,
        ours: (&str, bool),
        reached_by: IpAddr,
    ) -> Self {
        let candidate = worker.candidates()[0].address;
        let socket = bind(reached_by);
        let local = socket.local_addr().unwrap();
        let (ip, port) = (candidate.ip(), candidate.port());
        let line = format!("candidate:1 1 udp 2130706431 {ip} {port} typ host");
        let address = TransportAddress::udp(local);
        let transport = open_peer(worker, peer, server, ours, address, &line);
        let server = (candidate, SocketAddr::new(reached_by, port));
        Self { transport, socket, local, server, sent: 0, is_only_heard_when_asked: false }
    }

    /// A NAT gives it another port, which it does not notice.
    pub fn rebind(&mut self) {
        self.socket = bind(self.local.ip());
    }

    /// Sends these bytes where its datagrams go.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.socket.send_to(bytes, self.server.1).unwrap();
        self.sent += 1;
    }

    /// Carries datagrams once, and returns what happened.
    pub fn step(&mut self) -> Vec<TransportEvent> {
        let mut datagram = [0; 2048];
        while let Some(sent) = self.transport.poll_transmit(&mut datagram) {
            assert_eq!(sent.path.remote, self.server.0);
            if !(self.is_only_heard_when_asked && datagram.starts_with(&[0, 1])) {
                self.send_raw(&datagram[..sent.len]);
            }
        }
        if let Ok((len, from)) = self.socket.recv_from(&mut datagram) {
            assert_eq!(from, self.server.1);
            self.is_only_heard_when_asked = false;
            let path = Path::udp(self.local, self.server.0);
            self.transport.handle_datagram(Instant::now(), path, &datagram[..len]);
        }
        self.transport.handle_timeout(Instant::now());
        std::iter::from_fn(|| self.transport.poll_event()).collect()
    }
}
