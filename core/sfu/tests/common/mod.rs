//! A shard and clients made of the same transport, in one thread under virtual time.
#![allow(dead_code, clippy::unwrap_used, missing_docs)]

pub mod layered;
pub mod media;
pub mod plan;

use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parlor_checker::{Checker, OutgoingStream};
use parlor_model::{
    DataChannel, DtlsRole, IceCredentials, MediaDescription, Path, PeerId, RemoteTransport,
    SctpParameters, SendSection, ShardId, Ssrc, SubscriptionId, TransportAddress,
};
use parlor_rtp::{PacketClass, RtpPacket, classify};
use parlor_sfu::{
    Counters, SendBatch, Shard, ShardConfig,
    command::{LocalTransport, MediaCommand, MediaEvent},
};
use parlor_srtp::{SrtpReceiver, SrtpSender};
use parlor_transport::{DtlsIdentity, Transport, TransportConfig, TransportEvent};

pub const SERVER: &str = "127.0.0.1:7882";

pub fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn credentials(name: &str) -> IceCredentials {
    IceCredentials { ufrag: name.into(), pwd: format!("{name}-0123456789abcdefghijkl") }
}

pub struct Client {
    pub id: PeerId,
    /// As the server sees it.
    pub address: SocketAddr,
    /// As the client sees it.
    own_address: SocketAddr,
    pub transport: Transport,
    srtp: Option<(SrtpReceiver, SrtpSender)>,
    outbox: VecDeque<Vec<u8>>,
    /// Decrypted packets, with when they came.
    pub received: Vec<(Instant, Vec<u8>)>,
    pub received_rtcp: Vec<(Instant, Vec<u8>)>,
    pub data: Vec<(DataChannel, Vec<u8>)>,
    pub checker: Checker,
    /// Datagrams that could not be opened.
    pub unopened: usize,
    pub keep_received: bool,
    last_sequences: BTreeMap<Ssrc, u16>,
}

impl Client {
    pub fn send_rtp(&mut self, packet: &[u8]) {
        let (_, sender) = self.srtp.as_mut().unwrap();
        let mut slot = vec![0; packet.len() + 32];
        slot[..packet.len()].copy_from_slice(packet);
        let len = sender.seal_rtp(&mut slot, packet.len()).unwrap();
        slot.truncate(len);
        self.outbox.push_back(slot);
    }

    pub fn send_rtcp(&mut self, packet: &[u8]) {
        let (_, sender) = self.srtp.as_mut().unwrap();
        let mut slot = vec![0; packet.len() + 32];
        slot[..packet.len()].copy_from_slice(packet);
        let len = sender.seal_rtcp(&mut slot, packet.len()).unwrap();
        slot.truncate(len);
        self.outbox.push_back(slot);
    }

    pub fn send_raw(&mut self, datagram: &[u8]) {
        self.outbox.push_back(datagram.to_vec());
    }

    /// A packet as it would leave, sealed, for tests that send it from elsewhere.
    pub fn seal(&mut self, packet: &[u8]) -> Vec<u8> {
        self.send_rtp(packet);
        self.outbox.pop_back().unwrap()
    }

    /// A compound RTCP packet as it would leave, sealed.
    pub fn seal_rtcp(&mut self, packet: &[u8]) -> Vec<u8> {
        self.send_rtcp(packet);
        self.outbox.pop_back().unwrap()
    }

    /// The sequence number of an SSRC that came last.
    pub fn last_sequence(&self, ssrc: Ssrc) -> Option<u16> {
        self.last_sequences.get(&ssrc).copied()
    }

    fn handle_datagram(&mut self, now: Instant, remote: SocketAddr, datagram: &[u8]) {
        let mut datagram = datagram.to_vec();
        match classify(&datagram) {
            PacketClass::Stun | PacketClass::Dtls => {
                self.transport.handle_datagram(now, Path::udp(self.own_address, remote), &datagram);
                self.take_events();
            }
            class => {
                let Some((receiver, _)) = &mut self.srtp else { return };
                if class == PacketClass::Rtp {
                    let Ok(len) = receiver.open_rtp(&mut datagram) else {
                        self.unopened += 1;
                        return;
                    };
                    datagram.truncate(len);
                    self.checker.handle_packet(now, &datagram);
                    let packet = RtpPacket::parse(&datagram).unwrap();
                    self.last_sequences.insert(packet.ssrc(), packet.sequence_number().0);
                    if self.keep_received {
                        self.received.push((now, datagram));
                    }
                } else {
                    let len = receiver.open_rtcp(&mut datagram).unwrap();
                    datagram.truncate(len);
                    if self.keep_received {
                        self.received_rtcp.push((now, datagram));
                    }
                }
            }
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.transport.poll_event() {
            match event {
                TransportEvent::SrtpKeys(keys) => {
                    let receiver =
                        SrtpReceiver::new(keys.profile, &keys.receive.key, &keys.receive.salt);
                    let sender = SrtpSender::new(keys.profile, &keys.send.key, &keys.send.salt);
                    self.srtp = Some((receiver.unwrap(), sender.unwrap()));
                }
                TransportEvent::Data {
                    channel: parlor_transport::Channel::Known(channel),
                    data,
                    ..
                } => self.data.push((channel, data)),
                _ => {}
            }
        }
    }

    /// Packets of an SSRC, parsed.
    pub fn packets(&self, ssrc: Ssrc) -> Vec<RtpPacket<'_>> {
        self.received
            .iter()
            .map(|(_, bytes)| RtpPacket::parse(bytes).unwrap())
            .filter(|packet| packet.ssrc() == ssrc)
            .collect()
    }
}

/// Decides whether a sealed datagram from the shard to a client is lost.
pub type Loss = Box<dyn FnMut(PeerId, &[u8]) -> bool>;

pub struct World {
    pub now: Instant,
    pub start: Instant,
    pub shard: Shard,
    pub clients: Vec<Client>,
    pub batch: SendBatch,
    pub events: Vec<MediaEvent>,
    pub loss: Loss,
    /// Whether peers that are opened from now on leave the checks to their clients.
    pub ice_lite: bool,
    identity: DtlsIdentity,
    client_identity: DtlsIdentity,
}

impl World {
    pub fn new() -> Self {
        let now = Instant::now();
        let identity = DtlsIdentity::generate().unwrap();
        Self {
            now,
            start: now,
            shard: Shard::new(ShardConfig {
                id: ShardId(0),
                identity: identity.clone(),
                local_addresses: vec![TransportAddress::udp(SERVER.parse().unwrap())],
                seed: [5; 32],
            }),
            clients: Vec::new(),
            batch: SendBatch::new(64),
            events: Vec::new(),
            loss: Box::new(|_, _| false),
            ice_lite: true,
            identity,
            client_identity: DtlsIdentity::generate().unwrap(),
        }
    }

    pub fn command(&mut self, command: MediaCommand) {
        self.shard.handle_command(self.now, command);
    }

    pub fn counters(&self) -> Counters {
        *self.shard.counters()
    }

    /// Opens a peer and its client; not connected yet.
    pub fn open(&mut self, id: u32) -> usize {
        self.open_with_fingerprint_of(id, self.client_identity.clone())
    }

    pub fn open_with_fingerprint_of(&mut self, id: u32, announced: DtlsIdentity) -> usize {
        let (ours, theirs) = (format!("server{id}"), format!("client{id}"));
        let id = PeerId(u64::from(id));
        let address = SocketAddr::from(([127, 0, 0, 1], 20_000 + id.0 as u16));
        let sctp = Some(SctpParameters { port: 5000, max_message_size_bytes: 262_144 });
        self.command(MediaCommand::OpenPeer {
            peer: id,
            local: Box::new(LocalTransport {
                ice: credentials(&ours),
                ice_lite: self.ice_lite,
                opens_channels: true,
            }),
        });
        self.command(MediaCommand::SetRemote {
            peer: id,
            remote: Box::new(RemoteTransport {
                ice: credentials(&theirs),
                ice_lite: false,
                fingerprints: vec![announced.fingerprint().clone()],
                dtls_role: DtlsRole::Server,
                sctp,
            }),
        });
        let mut transport = Transport::new(
            self.now,
            TransportConfig {
                identity: self.client_identity.clone(),
                ice: credentials(&theirs),
                ice_lite: false,
                ice_controlling: true,
                seed: [id.0 as u8; 32],
                open_channels: vec![],
                local_addresses: vec![TransportAddress::udp(address)],
            },
        );
        let remote = RemoteTransport {
            ice: credentials(&ours),
            ice_lite: self.ice_lite,
            fingerprints: vec![self.identity.fingerprint().clone()],
            dtls_role: DtlsRole::Client,
            sctp,
        };
        transport.set_remote(self.now, remote).unwrap();
        transport
            .add_remote_candidate(self.now, "candidate:1 1 udp 2130706431 127.0.0.1 7882 typ host");
        self.clients.push(Client {
            id,
            address,
            own_address: address,
            transport,
            srtp: None,
            outbox: VecDeque::new(),
            received: Vec::new(),
            received_rtcp: Vec::new(),
            data: Vec::new(),
            checker: Checker::default(),
            unopened: 0,
            keep_received: true,
            last_sequences: BTreeMap::new(),
        });
        self.clients.len() - 1
    }

    pub fn connect(&mut self, id: u32) -> usize {
        let client = self.open(id);
        let peer = PeerId(u64::from(id));
        self.run_until(ms(5000), |world| {
            world.saw(|event| *event == MediaEvent::PeerConnected { peer })
                && world.clients[client].srtp.is_some()
        });
        client
    }

    pub fn saw(&self, wanted: impl FnMut(&MediaEvent) -> bool) -> bool {
        self.events.iter().any(wanted)
    }

    /// Lets time pass in steps of a millisecond until a condition holds.
    pub fn run_until(&mut self, most: Duration, mut done: impl FnMut(&Self) -> bool) {
        let end = self.now + most;
        while !done(self) {
            assert!(self.now < end, "timed out; events {:?}; {:?}", self.events, self.counters());
            self.now += ms(1);
            self.exchange();
        }
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += ms(1);
            self.exchange();
        }
    }

    /// As [`Self::run`], from one thing that is due at the shard to the next, at least a
    /// millisecond at a time.
    pub fn run_events(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            let due = self.shard.poll_timeout().unwrap_or(end);
            self.now = due.clamp(self.now + ms(1), end.max(self.now + ms(1)));
            self.exchange();
        }
    }

    /// Carries all datagrams until nobody has any more to say at this time.
    pub fn exchange(&mut self) {
        let server: SocketAddr = SERVER.parse().unwrap();
        let now = self.now;
        if self.shard.poll_timeout().is_some_and(|at| at <= now) {
            self.shard.handle_timeout(now);
        }
        for client in &mut self.clients {
            client.transport.handle_timeout(now);
            client.take_events();
        }
        loop {
            let mut quiet = true;
            let mut buffer = [0; 2000];
            for client in &mut self.clients {
                while let Some(sent) = client.transport.poll_transmit(&mut buffer) {
                    quiet = false;
                    let datagram = &mut buffer[..sent.len];
                    self.shard.handle_datagram(now, Path::udp(server, client.address), datagram);
                }
                while let Some(mut datagram) = client.outbox.pop_front() {
                    quiet = false;
                    self.shard.handle_datagram(
                        now,
                        Path::udp(server, client.address),
                        &mut datagram,
                    );
                }
            }
            loop {
                let (more, any) = self.flush();
                quiet &= !any;
                if !more {
                    break;
                }
            }
            while let Some(event) = self.shard.poll_event() {
                self.events.push(event);
            }
            if quiet {
                break;
            }
        }
    }

    /// Flushes one batch. Whether there is more, and whether there was anything.
    pub fn flush(&mut self) -> (bool, bool) {
        let server: SocketAddr = SERVER.parse().unwrap();
        let now = self.now;
        let more = self.shard.flush(now, &mut self.batch);
        let any = !self.batch.is_empty();
        for run in self.batch.runs() {
            assert_eq!(run.path.local, server);
            let client = self.clients.iter_mut().find(|client| client.address == run.path.remote);
            let Some(client) = client else { continue };
            for datagram in run.datagrams() {
                if !(self.loss)(client.id, datagram) {
                    client.handle_datagram(now, server, datagram);
                }
            }
        }
        self.batch.clear();
        (more, any)
    }

    pub fn set_media(&mut self, client: usize, media: MediaDescription) {
        for section in &media.send {
            self.clients[client].checker.allow(OutgoingStream {
                ssrc: section.ssrc,
                rtx_ssrc: section.rtx_ssrc,
                codecs: section.codecs.clone(),
                dependency_descriptor: section.extensions.dependency_descriptor,
            });
        }
        let peer = self.clients[client].id;
        self.command(MediaCommand::SetMedia { peer, media: Box::new(media) });
    }

    pub fn publish(&mut self, client: usize, sections: Vec<parlor_model::ReceiveSection>) {
        self.set_media(client, MediaDescription { receive: sections, send: vec![] });
    }

    pub fn subscribe(&mut self, client: usize, sections: Vec<SendSection>) {
        self.set_media(client, MediaDescription { receive: vec![], send: sections });
    }

    pub fn stop(&mut self, client: usize, subscription: u32, ssrc: Ssrc) {
        let subscription = SubscriptionId(subscription);
        self.command(MediaCommand::StopSubscription { subscription, blank: false });
        self.clients[client].checker.revoke(ssrc);
    }

    /// The network gives a client another address, which the client does not see.
    pub fn rebind(&mut self, client: usize, address: SocketAddr) {
        self.clients[client].address = address;
    }

    pub fn send_data(&mut self, peers: &[usize], channel: DataChannel, data: &[u8]) {
        let peers = peers.iter().map(|client| self.clients[*client].id).collect();
        let (data, from) = (Bytes::copy_from_slice(data), None);
        self.command(MediaCommand::SendData { channel, data, from, peers });
    }

    /// What every test ends with.
    pub fn assert_clean(&self) {
        for client in &self.clients {
            assert_eq!(client.checker.violations(), [], "{}", client.id);
            assert_eq!(client.unopened, 0, "{}", client.id);
        }
    }
}
