//! What the workers are started with, and why they may not start.

use crate::addresses::{Addresses, Announced};
use crate::reports::Reports;
use crate::tcp::TcpLimits;
use parlor_net::{TcpListener, UdpSocket};
use parlor_sfu::DtlsIdentity;
use std::{
    io,
    net::{IpAddr, SocketAddr},
};

/// What [`crate::Workers::start`] needs to know.
#[derive(Clone, Debug)]
pub struct WorkersConfig {
    /// UDP port of the first worker; each further one has the next. 0 draws free ports.
    pub first_port: u16,
    /// All workers have the first port, and hand on what the kernel gives to the wrong one.
    pub shares_port: bool,
    /// The addresses to listen on. A wildcard address is all of its family.
    pub listen: Vec<IpAddr>,
    /// The addresses that become candidates.
    pub announced: Vec<Announced>,
    /// Where peers may come over TCP, if they may.
    pub tcp: Option<TcpConfig>,
    /// The certificate of all peers.
    pub identity: DtlsIdentity,
    /// Whether plain Opus becomes RED for subscribers that take it.
    pub active_red_encoding: bool,
    /// Readers of reliable data slower than this, in bits a second, miss messages instead of
    /// holding their senders back; 0: nobody is held back, and a slow reader ends.
    pub slow_reader_bps: u64,
    /// The randomness of each shard; as many workers as there are seeds.
    pub seeds: Vec<[u8; 32]>,
}

/// Where peers may come over TCP.
#[derive(Clone, Copy, Debug)]
pub struct TcpConfig {
    /// The port of all workers; 0 draws a free one.
    pub port: u16,
    /// What one address may take.
    pub limits: TcpLimits,
}

/// Why the workers could not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A port is taken, or an address is not ours.
    #[error("cannot receive media on UDP {address}: {source}")]
    Bind {
        /// Address and port.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A TCP port is taken, or an address is not ours.
    #[error("cannot accept media on TCP {address}: {source}")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// A candidate would lead nowhere.
    #[error("{0} would be announced to clients, but no address is listened on that serves it")]
    NotListening(IpAddr),
    /// The ports run past 65535.
    #[error("{workers} workers from UDP port {first_port} on need ports beyond 65535")]
    PortRange {
        /// The first.
        first_port: u16,
        /// How many.
        workers: usize,
    },
    /// No thread or no descriptor could be had.
    #[error("cannot start a media thread: {0}")]
    Thread(#[from] io::Error),
}

impl WorkersConfig {
    /// The listeners of TCP, and what their candidates are.
    pub(crate) fn listen(
        &self,
        tcp: TcpConfig,
    ) -> Result<(Vec<TcpListener>, Addresses), StartError> {
        let mut listeners = Vec::with_capacity(self.listen.len());
        for ip in &self.listen {
            let address = SocketAddr::new(*ip, tcp.port);
            let listener = TcpListener::bind(address);
            listeners.push(listener.map_err(|source| StartError::Listen { address, source })?);
        }
        let local = listeners.iter().map(TcpListener::local_address).collect();
        let addresses = Addresses::new(local, &self.announced).map_err(StartError::NotListening)?;
        Ok((listeners, addresses))
    }

    /// The sockets of each worker, and what its candidates are.
    pub(crate) fn open(&self) -> Result<Vec<(Sockets, Addresses)>, StartError> {
        let mut workers: Vec<_> = self.seeds.iter().map(|_| Sockets::default()).collect();
        let sharing = if self.shares_port { workers.len().max(1) } else { 1 };
        for (offset, workers) in workers.chunks_mut(sharing).enumerate() {
            let port = self.port(offset)?;
            for ip in &self.listen {
                open_group(SocketAddr::new(*ip, port), workers)?;
            }
        }
        let with_addresses = workers.into_iter().map(|sockets| {
            let local = sockets.media.iter().map(UdpSocket::local_address).collect();
            let addresses = Addresses::new(local, &self.announced);
            Ok((sockets, addresses.map_err(StartError::NotListening)?))
        });
        with_addresses.collect()
    }

    fn port(&self, offset: usize) -> Result<u16, StartError> {
        let port = match self.first_port {
            0 => Some(0),
            first => u16::try_from(offset).ok().and_then(|offset| first.checked_add(offset)),
        };
        port.ok_or(StartError::PortRange { first_port: self.first_port, workers: self.seeds.len() })
    }
}

/// What a worker reads.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub media: Vec<UdpSocket>,
    pub reports: Reports,
}

/// One address and port, for all of these workers.
fn open_group(address: SocketAddr, workers: &mut [Sockets]) -> Result<(), StartError> {
    let mut media = UdpSocket::bind_group(address, workers.len())
        .map_err(|source| StartError::Bind { address, source })?;
    let mut reports = UdpSocket::set_reports_apart(&media).unwrap_or_else(|error| {
        tracing::debug!(%address, "reports wake whoever waits for media: {error}");
        Vec::new()
    });
    // Without stamps a metric is missing, and what publishers are told of their uplink is
    // as true as we are quick.
    media.iter_mut().chain(&mut reports).for_each(|socket| _ = socket.stamp_received());
    let mut reports = reports.into_iter();
    for (worker, socket) in workers.iter_mut().zip(media) {
        let place = worker.media.len();
        worker.reports.sockets.extend(reports.next().map(|reports| (place, reports)));
        worker.media.push(socket);
    }
    Ok(())
}
