//! Two transports and the network between them, under virtual time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parlor_model::{
    DataChannel, DtlsRole, Fingerprint, IceCredentials, Path, RemoteTransport, SctpParameters,
    SrtpKeys, TransportAddress, TransportProtocol,
};

use crate::*;

pub const SERVER: &str = "10.0.0.1:7882";
pub const CLIENT: &str = "10.0.0.2:5000";

pub fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// A path as the server sees it.
pub fn at_server(remote: SocketAddr) -> Path {
    Path::udp(address(SERVER), remote)
}

/// The path as the client sees it.
pub fn at_client() -> Path {
    Path::udp(address(CLIENT), address(SERVER))
}

pub fn credentials(name: &str) -> IceCredentials {
    IceCredentials { ufrag: format!("uf{name}"), pwd: format!("{name}-0123456789abcdefghijkl") }
}

pub fn remote(name: &str, fingerprint: &Fingerprint, dtls_role: DtlsRole) -> RemoteTransport {
    RemoteTransport {
        ice: credentials(name),
        ice_lite: false,
        fingerprints: vec![fingerprint.clone()],
        dtls_role,
        sctp: Some(SctpParameters { port: 5000, max_message_size_bytes: 65_535 }),
    }
}

/// One end with what it has been told.
pub struct End {
    pub transport: Transport,
    pub fingerprint: Fingerprint,
    pub address: SocketAddr,
    pub keys: Option<SrtpKeys>,
    pub states: Vec<IceState>,
    pub paths: Vec<SocketAddr>,
    pub open: Vec<Channel>,
    pub received: Vec<(Channel, bool, Vec<u8>)>,
    pub low: usize,
    pub closed: bool,
    pub failed: Option<FailureReason>,
}

impl End {
    pub fn new(now: Instant, name: &str, at: &str, options: Options) -> End {
        let identity = options.identity.unwrap_or_else(|| DtlsIdentity::generate().unwrap());
        let fingerprint = identity.fingerprint().clone();
        let transport = Transport::new(
            now,
            TransportConfig {
                identity,
                ice: credentials(name),
                ice_lite: options.lite,
                ice_controlling: options.controlling,
                seed: [name.len() as u8; 32],
                open_channels: options.open,
                local_addresses: std::iter::once(TransportAddress::udp(address(at)))
                    .chain(options.tcp.map(|at| TransportAddress::tcp(address(at))))
                    .collect(),
            },
        );
        End {
            transport,
            fingerprint,
            address: address(at),
            keys: None,
            states: vec![],
            paths: vec![],
            open: vec![],
            received: vec![],
            low: 0,
            closed: false,
            failed: None,
        }
    }

    pub fn collect(&mut self) {
        while let Some(event) = self.transport.poll_event() {
            match event {
                TransportEvent::Ice(state) => self.states.push(state),
                TransportEvent::PathSelected(path) => self.paths.push(path.remote),
                TransportEvent::SrtpKeys(keys) => self.keys = Some(keys),
                TransportEvent::ChannelOpen { channel } => self.open.push(channel),
                TransportEvent::Data { channel, binary, data } => {
                    self.received.push((channel, binary, data));
                }
                TransportEvent::BufferedAmountLow { .. } => self.low += 1,
                TransportEvent::ChannelClosed { channel } => self.open.retain(|c| *c != channel),
                TransportEvent::Failed(reason) => self.failed = Some(reason),
                TransportEvent::Closed => self.closed = true,
            }
        }
    }
}

#[derive(Clone, Default)]
pub struct Options {
    pub lite: bool,
    pub controlling: bool,
    pub open: Vec<ChannelConfig>,
    pub identity: Option<DtlsIdentity>,
    pub tcp: Option<&'static str>,
}

pub fn livekit_channels() -> Vec<ChannelConfig> {
    [DataChannel::Lossy, DataChannel::Reliable, DataChannel::DataTrack].map(Into::into).to_vec()
}

/// Client and server with a network of 10 ms each way between them.
pub struct Pair {
    pub now: Instant,
    pub start: Instant,
    pub client: End,
    pub server: End,
    /// Under way: by arrival and order of sending; to the server or not, the path as seen there.
    pub flying: BTreeMap<(Instant, u64), (bool, Path, Vec<u8>)>,
    pub sent: u64,
    pub loss_percent: u64,
    pub random: u64,
    /// The address that the client's datagrams seem to come from.
    pub client_seen_at: SocketAddr,
    /// Nothing passes.
    pub cut: bool,
    /// What went over TCP, from the client or not.
    pub tcp_trace: Vec<(Instant, bool)>,
    /// (since the start, from the client, length) of each datagram sent.
    pub trace: Vec<(Duration, bool, usize)>,
}

impl Pair {
    pub fn new(client: Options, server: Options, client_role: DtlsRole) -> Pair {
        let mut pair = Pair::strangers(client, server);
        pair.introduce(client_role);
        pair
    }

    pub fn strangers(client: Options, server: Options) -> Pair {
        let now = Instant::now();
        Pair {
            now,
            start: now,
            client: End::new(now, "client", CLIENT, client),
            server: End::new(now, "server", SERVER, server),
            flying: BTreeMap::new(),
            sent: 0,
            loss_percent: 0,
            random: 1,
            client_seen_at: address(CLIENT),
            cut: false,
            tcp_trace: vec![],
            trace: vec![],
        }
    }

    /// The usual: a controlling client that opens LiveKit's channels, and an ICE-lite server.
    pub fn usual() -> Pair {
        let client = Options { controlling: true, open: livekit_channels(), ..Default::default() };
        Pair::new(client, Options { lite: true, ..Default::default() }, DtlsRole::Client)
    }

    pub fn introduce(&mut self, client_role: DtlsRole) {
        let server_role = match client_role {
            DtlsRole::Client => DtlsRole::Server,
            DtlsRole::Server => DtlsRole::Client,
        };
        let client = remote("client", &self.client.fingerprint, server_role);
        let server = remote("server", &self.server.fingerprint, client_role);
        self.server.transport.set_remote(self.now, client).unwrap();
        self.client.transport.set_remote(self.now, server).unwrap();
        let candidate = "candidate:1 1 udp 2130706431 10.0.0.1 7882 typ host ufrag ufserver";
        self.client.transport.add_remote_candidate(self.now, candidate);
    }

    pub fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    pub fn send(&mut self) {
        let mut buffer = [0; MAX_DATAGRAM_BYTES];
        for from_client in [true, false] {
            loop {
                let end = if from_client { &mut self.client } else { &mut self.server };
                let Some(Transmit { path, len }) = end.transport.poll_transmit(&mut buffer) else {
                    break;
                };
                let (local, remote) = (path.local, path.remote);
                if path.protocol == TransportProtocol::Tcp {
                    let seen = Path::tcp(remote, local);
                    self.tcp_trace.push((self.now, from_client));
                    self.sent += 1;
                    let key = (self.now + Duration::from_millis(10), self.sent);
                    self.flying.insert(key, (from_client, seen, buffer[..len].to_vec()));
                    continue;
                }
                assert_eq!(local, end.address);
                self.trace.push((self.now - self.start, from_client, len));
                let lost = self.draw(100) < self.loss_percent;
                if self.cut || lost {
                    continue;
                }
                let seen_at = self.client_seen_at;
                let from = if from_client { seen_at } else { local };
                if !from_client && remote != seen_at {
                    continue; // the NAT knows no such mapping
                }
                self.sent += 1;
                let key = (self.now + Duration::from_millis(10), self.sent);
                let seen = Path::udp(remote, from);
                let seen =
                    if from_client { seen } else { Path { local: self.client.address, ..seen } };
                self.flying.insert(key, (from_client, seen, buffer[..len].to_vec()));
            }
        }
    }

    /// One step: to the next arrival or deadline, no further than `until`.
    pub fn step(&mut self, until: Instant) {
        self.send();
        let arrival = self.flying.keys().next().map(|(at, _)| *at);
        let timeouts = [self.client.transport.poll_timeout(), self.server.transport.poll_timeout()];
        let next = timeouts.into_iter().chain([arrival]).flatten().min().unwrap_or(until);
        self.now = next.max(self.now + Duration::from_micros(100)).min(until);
        while let Some(entry) = self.flying.first_entry()
            && entry.key().0 <= self.now
        {
            let (to_server, path, datagram) = entry.remove();
            if to_server {
                self.server.transport.handle_datagram(self.now, path, &datagram);
            } else {
                self.client.transport.handle_datagram(self.now, path, &datagram);
            }
        }
        self.client.transport.handle_timeout(self.now);
        self.server.transport.handle_timeout(self.now);
        self.client.collect();
        self.server.collect();
    }

    pub fn run_for(&mut self, duration: Duration) {
        let until = self.now + duration;
        while self.now < until {
            self.step(until);
        }
    }

    /// Runs until `done`, at most for `limit`.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Pair) -> bool) -> bool {
        let until = self.now + limit;
        while !done(self) && self.now < until {
            self.step(until);
        }
        done(self)
    }

    pub fn has_keys(&self) -> bool {
        self.client.keys.is_some() && self.server.keys.is_some()
    }

    pub fn has_channels(&self, number: usize) -> bool {
        self.client.open.len() == number && self.server.open.len() == number
    }

    /// Runs until keys and LiveKit's three channels are there.
    pub fn connect(&mut self) {
        let connected =
            self.run_until(Duration::from_secs(20), |p| p.has_keys() && p.has_channels(3));
        assert!(connected, "{:?} {:?}", self.client.transport.ice_state(), self.client.failed);
    }

    /// A message each way on a channel.
    pub fn exchange(&mut self, channel: DataChannel) {
        let before = (self.client.received.len(), self.server.received.len());
        self.client.transport.send_data(self.now, channel, b"ping").unwrap();
        self.server.transport.send_data(self.now, channel, b"pong").unwrap();
        let arrived = self.run_until(Duration::from_secs(5), |p| {
            p.client.received.len() > before.0 && p.server.received.len() > before.1
        });
        let (client, server) = (&self.client, &self.server);
        assert!(arrived, "no message on {channel:?} {:?} {:?}", client.paths, server.paths);
        let expected = |text: &[u8]| (Channel::Known(channel), true, text.to_vec());
        assert_eq!(*self.client.received.last().unwrap(), expected(b"pong"));
        assert_eq!(*self.server.received.last().unwrap(), expected(b"ping"));
    }
}
