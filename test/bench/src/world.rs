//! A shard, its publisher, and subscribers that only have to be sent to.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use parlor_model::{
    DtlsRole, IceCredentials, MediaDescription, Path, PeerId, RemoteTransport, SctpParameters,
    ShardId, TransportAddress,
};
use parlor_sfu::{
    Counters, SendBatch, Shard, ShardConfig,
    command::{LocalTransport, MediaCommand, MediaEvent},
};
use parlor_srtp::{MAX_RTP_OVERHEAD_BYTES, SrtpSender};
use parlor_transport::{DtlsIdentity, Transport, TransportConfig, TransportEvent};

use crate::media::{Media, Source, published, subscribed};

const SERVER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7882);
/// As in `io/workers`.
const BATCH_DATAGRAMS: usize = 256;
const STEP: Duration = Duration::from_millis(1);
const PUBLISHER: PeerId = PeerId(1);
const FIRST_TRACK: u64 = 10;

/// Datagrams of the publisher that arrive together, sealed.
pub struct Burst {
    media: Media,
    datagrams: Vec<Vec<u8>>,
}

/// See the module.
pub struct World {
    now: Instant,
    /// Where the publisher is, if it is not at `shard`.
    home: Option<Shard>,
    shard: Shard,
    batch: SendBatch,
    server_identity: DtlsIdentity,
    client_identity: DtlsIdentity,
    clients: Vec<Client>,
    sender: SrtpSender,
    source: Source,
    subscribers: usize,
    /// Peers that have joined, gone ones with them.
    joined: u32,
}

/// The other side of one peer, which answers for its path.
struct Client {
    peer: PeerId,
    transport: Transport,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    /// A shard with one peer that publishes a microphone and a camera.
    pub fn new() -> Self {
        Self::with_home(false)
    }

    /// The same with the publisher at a shard of its own.
    pub fn relayed() -> Self {
        Self::with_home(true)
    }

    fn with_home(is_relayed: bool) -> Self {
        let server_identity = DtlsIdentity::generate().unwrap();
        let client_identity = DtlsIdentity::generate().unwrap();
        let new = |id| {
            Shard::new(ShardConfig {
                id,
                identity: server_identity.clone(),
                local_addresses: vec![TransportAddress::udp(SERVER)],
                seed: [5; 32],
            })
        };
        let mut home = is_relayed.then(|| new(ShardId(0)));
        let mut shard = new(ShardId(u32::from(is_relayed)));
        let mut now = Instant::now();
        let mut batch = SendBatch::new(BATCH_DATAGRAMS);
        let identities = (&server_identity, &client_identity);
        let at = home.as_mut().unwrap_or(&mut shard);
        let (transport, sender) = connect(at, &mut now, &mut batch, identities, PUBLISHER);
        let media = MediaDescription { receive: published(FIRST_TRACK), send: Vec::new() };
        at.handle_command(now, MediaCommand::SetMedia { peer: PUBLISHER, media: media.into() });
        Self {
            now,
            home,
            shard,
            batch,
            clients: vec![Client { peer: PUBLISHER, transport }],
            sender,
            source: Source::new(),
            subscribers: 0,
            joined: 0,
            server_identity,
            client_identity,
        }
    }

    /// Lets subscribers of both tracks in until there are so many.
    pub fn grow(&mut self, subscribers: usize) {
        while self.subscribers < subscribers {
            let peer = self.join();
            self.subscribe(peer);
            self.subscribers += 1;
        }
        self.drain();
    }

    /// Lets in a peer that neither publishes nor subscribes.
    pub fn join(&mut self) -> PeerId {
        self.joined += 1;
        let peer = PeerId(PUBLISHER.0 + u64::from(self.joined));
        let identities = (&self.server_identity, &self.client_identity);
        let (transport, _) =
            connect(&mut self.shard, &mut self.now, &mut self.batch, identities, peer);
        self.clients.push(Client { peer, transport });
        peer
    }

    /// A peer of [`World::join`], the last that came, leaves.
    pub fn leave(&mut self, peer: PeerId) {
        self.shard.handle_command(self.now, MediaCommand::ClosePeer { peer });
        self.clients.retain(|client| client.peer != peer);
        self.flush();
        self.drain();
    }

    /// Frees the other sides, after which the shard loses the peers within half a minute.
    pub fn forget_clients(&mut self) {
        self.clients.clear();
    }

    /// Replaces what a peer of [`World::join`] is sent by both tracks.
    pub fn subscribe(&mut self, peer: PeerId) {
        let send = subscribed(FIRST_TRACK, 2 * peer.0 as u32);
        let media = Box::new(MediaDescription { receive: Vec::new(), send });
        self.shard.handle_command(self.now, MediaCommand::SetMedia { peer, media });
    }

    /// Has a peer of [`World::join`] publish two tracks of its own.
    pub fn publish(&mut self, peer: PeerId) {
        let receive = published(1_000_000 + 2 * peer.0);
        let media = Box::new(MediaDescription { receive, send: Vec::new() });
        self.shard.handle_command(self.now, MediaCommand::SetMedia { peer, media });
    }

    /// Begins with a keyframe and sends media until nothing grows any more. The packets are short,
    /// since what grows counts packets; the publisher's own history of bytes is longer lived.
    pub fn warm_up(&mut self) {
        self.source.wants_keyframe = true;
        for (media, bursts) in [(Media::Audio, 150), (Media::Video, 120)] {
            // The first subscribers find a history that has yet to grow.
            let datagram_bytes = if self.subscribers <= 1 { media.datagram_bytes() } else { 100 };
            for _ in 0..bursts {
                let mut burst = self.burst(media, datagram_bytes);
                self.tick(media);
                self.handle(&mut burst);
            }
        }
        self.drain();
    }

    /// The next packets of the publisher, at least so many, sealed and ready to arrive.
    pub fn prepare(&mut self, media: Media, packets: usize) -> Vec<Burst> {
        let bursts = packets.div_ceil(media.packets_per_burst());
        (0..bursts).map(|_| self.burst(media, media.datagram_bytes())).collect()
    }

    fn burst(&mut self, media: Media, datagram_bytes: usize) -> Burst {
        let packets = self.source.next(media, datagram_bytes - MAX_RTP_OVERHEAD_BYTES);
        let datagrams = packets.into_iter().map(|mut packet| {
            let len = packet.len();
            packet.resize(len + MAX_RTP_OVERHEAD_BYTES, 0);
            let sealed = self.sender.seal_rtp(&mut packet, len).unwrap();
            packet.truncate(sealed);
            packet
        });
        Burst { media, datagrams: datagrams.collect() }
    }

    /// Time passes up to the next burst; the clock's work is done outside of what is measured.
    pub fn tick(&mut self, media: Media) {
        self.now += Duration::from_millis(media.interval_ms());
        for client in &mut self.clients {
            if client.transport.poll_timeout().is_some_and(|at| at <= self.now) {
                client.transport.handle_timeout(self.now);
                let Client { peer, transport } = client;
                let home = self.home.as_mut().filter(|_| *peer == PUBLISHER);
                let shard = home.unwrap_or(&mut self.shard);
                while carry(shard, self.now, &mut self.batch, transport, *peer) {}
            }
        }
        self.shard.handle_timeout(self.now);
        self.relay();
        if let Some(home) = &mut self.home {
            home.handle_timeout(self.now);
            while home.flush(self.now, &mut self.batch) {
                self.batch.clear();
            }
        }
        self.flush();
    }

    /// The packet path: the burst arrives, what it owes leaves. Nothing else is done.
    pub fn handle(&mut self, burst: &mut Burst) {
        let at = self.home.as_mut().unwrap_or(&mut self.shard);
        for datagram in &mut burst.datagrams {
            at.handle_datagram(self.now, Path::udp(SERVER, address(PUBLISHER)), datagram);
        }
        self.relay();
        self.flush();
    }

    /// Brings what the two shards say to each other.
    fn relay(&mut self) {
        let Some(home) = &mut self.home else { return };
        while let Some((_, relayed)) = self.shard.poll_relay() {
            home.handle_relay(self.now, ShardId(1), relayed);
        }
        while let Some((_, relayed)) = home.poll_relay() {
            self.shard.handle_relay(self.now, ShardId(0), relayed);
        }
    }

    /// Ticks and handles all bursts; returns how many packets have left.
    pub fn forward(&mut self, bursts: &mut [Burst]) -> u64 {
        let before = self.counters().rtp_sent;
        for burst in bursts {
            self.tick(burst.media);
            self.handle(burst);
        }
        self.counters().rtp_sent - before
    }

    /// How many subscribe.
    pub fn subscribers(&self) -> usize {
        self.subscribers
    }

    /// What the shard has counted.
    pub fn counters(&self) -> Counters {
        let home = self.home.as_ref().unwrap_or(&self.shard).counters();
        Counters { rtp_received: home.rtp_received, ..*self.shard.counters() }
    }

    fn flush(&mut self) {
        while self.shard.flush(self.now, &mut self.batch) {
            self.batch.clear();
        }
        self.batch.clear();
    }

    fn drain(&mut self) {
        while self.shard.poll_event().is_some() {}
    }
}

fn address(peer: PeerId) -> SocketAddr {
    SocketAddr::from(([10, 0, (peer.0 >> 8) as u8, peer.0 as u8], 5000))
}

fn credentials(side: &str, peer: PeerId) -> IceCredentials {
    let ufrag = format!("{side}{}", peer.0);
    IceCredentials { pwd: format!("{ufrag}-0123456789abcdefghijkl"), ufrag }
}

/// ICE and DTLS of one peer, until both sides have keys. Returns the other side.
fn connect(
    shard: &mut Shard,
    now: &mut Instant,
    batch: &mut SendBatch,
    (server, client): (&DtlsIdentity, &DtlsIdentity),
    peer: PeerId,
) -> (Transport, SrtpSender) {
    let sctp = Some(SctpParameters { port: 5000, max_message_size_bytes: 262_144 });
    let remote = |side, dtls_role, identity: &DtlsIdentity| RemoteTransport {
        ice: credentials(side, peer),
        ice_lite: side == "server",
        fingerprints: vec![identity.fingerprint().clone()],
        dtls_role,
        sctp,
    };
    let local =
        LocalTransport { ice: credentials("server", peer), ice_lite: true, opens_channels: true };
    shard.handle_command(*now, MediaCommand::OpenPeer { peer, local: local.into() });
    let theirs = remote("client", DtlsRole::Server, client).into();
    shard.handle_command(*now, MediaCommand::SetRemote { peer, remote: theirs });
    let mut transport = Transport::new(
        *now,
        TransportConfig {
            identity: client.clone(),
            ice: credentials("client", peer),
            ice_lite: false,
            ice_controlling: true,
            seed: [peer.0 as u8; 32],
            open_channels: Vec::new(),
            local_addresses: vec![TransportAddress::udp(address(peer))],
        },
    );
    transport.set_remote(*now, remote("server", DtlsRole::Client, server)).unwrap();
    transport.add_remote_candidate(*now, "candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host");
    let mut sender = None;
    let mut connected = false;
    for _ in 0..5000 {
        *now += STEP;
        transport.handle_timeout(*now);
        while carry(shard, *now, batch, &mut transport, peer) {}
        while let Some(event) = transport.poll_event() {
            if let TransportEvent::SrtpKeys(keys) = event {
                let (key, salt) = (&keys.send.key, &keys.send.salt);
                sender = Some(SrtpSender::new(keys.profile, key, salt).unwrap());
            }
        }
        while let Some(event) = shard.poll_event() {
            connected |= event == MediaEvent::PeerConnected { peer };
        }
        if connected && let Some(sender) = sender.take() {
            return (transport, sender);
        }
    }
    unreachable!("the peer connects within five seconds");
}

/// Carries what both sides have to say; false when neither had anything.
fn carry(
    shard: &mut Shard,
    now: Instant,
    batch: &mut SendBatch,
    transport: &mut Transport,
    peer: PeerId,
) -> bool {
    let mut moved = false;
    let mut buffer = [0; 2000];
    while let Some(sent) = transport.poll_transmit(&mut buffer) {
        moved = true;
        shard.handle_datagram(now, Path::udp(SERVER, address(peer)), &mut buffer[..sent.len]);
    }
    loop {
        let more = shard.flush(now, batch);
        for run in batch.runs().filter(|run| run.path.remote == address(peer)) {
            moved = true;
            for datagram in run.datagrams() {
                transport.handle_datagram(now, Path::udp(address(peer), SERVER), datagram);
            }
        }
        batch.clear();
        if !more {
            return moved;
        }
    }
}
