//! Workers that share a port: whichever hears a peer, it is served.
#![allow(clippy::unwrap_used)]

mod common;

use common::{PATIENCE, client::Client};
use parlor_model::{DataChannel, PeerId, ShardId, TransportAddress};
use parlor_sfu::command::{MediaCommand, MediaEvent};
use parlor_transport::{DtlsIdentity, TransportEvent};
use parlor_workers::{Announced, StartError, WorkerCounters, Workers, WorkersConfig};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::mpsc::channel,
    time::Instant,
};

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const THREADS: u32 = 3;
/// That all of them come to the thread of their peer happens once in 10^11 runs.
const CLIENTS: u32 = 24;

fn config(identity: &DtlsIdentity, first_port: u16) -> WorkersConfig {
    WorkersConfig {
        first_port,
        shares_port: true,
        listen: vec![Ipv4Addr::UNSPECIFIED.into()],
        announced: vec![Announced::new(LOCALHOST)],
        tcp: None,
        identity: identity.clone(),
        active_red_encoding: false,
        slow_reader_bps: 0,
        seeds: (0..THREADS).map(|worker| [worker as u8; 32]).collect(),
    }
}

struct Call {
    workers: Workers,
    clients: Vec<(PeerId, Client)>,
    heard: BTreeSet<PeerId>,
    answered: BTreeSet<PeerId>,
}

impl Call {
    /// Clients of all threads in turn, every other with a server that leaves the checks to it.
    fn open() -> Self {
        let identity = DtlsIdentity::generate().unwrap();
        let mut workers = Workers::start(config(&identity, 0), || {}).unwrap();
        let clients = (0..CLIENTS).map(|number| {
            let shard = ShardId(number % THREADS);
            let peer = PeerId::new(shard, number);
            let ours = format!("{}{number}", shard.ufrag_prefix());
            let worker = workers.get_mut(shard).unwrap();
            let ice_lite = (number / THREADS).is_multiple_of(2);
            let ours = (ours.as_str(), ice_lite);
            let mut client = Client::open(worker, peer, &identity, ours, LOCALHOST);
            client.is_only_heard_when_asked = !ice_lite;
            let port = client.socket.local_addr().unwrap().port();
            let candidate = format!("candidate:1 1 udp 2130706431 {LOCALHOST} {port} typ host");
            worker.send(MediaCommand::AddRemoteCandidate { peer, candidate }).unwrap();
            (peer, client)
        });
        let clients = clients.collect();
        Self { workers, clients, heard: BTreeSet::new(), answered: BTreeSet::new() }
    }

    fn peers(&self) -> BTreeSet<PeerId> {
        self.clients.iter().map(|(peer, _)| *peer).collect()
    }

    /// Carries everything once. Returns what the workers told, and what came for each client.
    fn step(&mut self) -> Vec<MediaEvent> {
        for (peer, client) in &mut self.clients {
            let hello = |event: &TransportEvent| matches!(event, TransportEvent::Data { data, .. } if data == b"hello");
            if client.step().iter().any(hello) {
                self.heard.insert(*peer);
            }
        }
        let events = self.workers.iter_mut().flat_map(|worker| {
            let shard = worker.id();
            let events: Vec<_> = std::iter::from_fn(|| worker.poll_event().unwrap()).collect();
            for event in &events {
                if let MediaEvent::Data { peer, .. } = event {
                    assert_eq!(peer.home(), shard);
                    self.answered.insert(*peer);
                }
            }
            events
        });
        events.collect()
    }

    /// Lets everybody talk until `done`, which sees every event.
    fn run(&mut self, mut done: impl FnMut(&mut Self, Vec<MediaEvent>) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        loop {
            let events = self.step();
            if done(self, events) {
                return;
            }
            assert!(
                Instant::now() < give_up,
                "heard: {:?}, answered {:?}",
                self.heard,
                self.answered
            );
        }
    }

    fn connect(&mut self) {
        let mut missing = self.peers();
        self.run(|_, events| {
            for event in events {
                match event {
                    MediaEvent::ChannelOpen { peer, channel: DataChannel::Reliable } => {
                        missing.remove(&peer);
                    }
                    MediaEvent::PeerFailed { .. } => panic!("{event:?}"),
                    _ => {}
                }
            }
            missing.is_empty()
        });
    }

    /// A reliable message to each client, and one back.
    fn talk(&mut self) {
        self.heard.clear();
        self.answered.clear();
        for peer in self.peers() {
            let data = bytes::Bytes::from_static(b"hello");
            let (channel, from, peers) = (DataChannel::Reliable, None, vec![peer]);
            let send = MediaCommand::SendData { channel, data, from, peers };
            self.workers.get_mut(peer.home()).unwrap().send(send).unwrap();
        }
        self.clients.iter_mut().for_each(|(_, client)| {
            client.transport.send_data(Instant::now(), DataChannel::Reliable, b"back").unwrap();
        });
        let all = self.peers();
        self.run(|call, _| call.heard == all && call.answered == all);
    }

    fn counters(&mut self) -> Vec<WorkerCounters> {
        let (tell, told) = channel();
        for worker in self.workers.iter_mut() {
            let tell = tell.clone();
            worker.count(move |counters| tell.send(counters).unwrap()).unwrap();
        }
        (0..THREADS).map(|_| told.recv_timeout(PATIENCE).unwrap()).collect()
    }

    /// Waits until shards have got what clients, and others so often, have sent.
    fn settle(&mut self, others: u64) {
        let sent = others + self.clients.iter().map(|(_, client)| client.sent).sum::<u64>();
        let give_up = Instant::now() + PATIENCE;
        while self.sum(|of| of.shard.datagrams_received) < sent {
            assert!(Instant::now() < give_up, "{sent}");
        }
    }

    fn sum(&mut self, of: fn(&WorkerCounters) -> u64) -> u64 {
        self.counters().iter().map(of).sum()
    }
}

fn unknown(counters: &WorkerCounters) -> u64 {
    counters.shard.dropped_unknown_address + counters.shard.dropped_unknown_stun
}

#[test]
fn peers_come_up_and_talk_whichever_thread_hears_them() {
    let mut call = Call::open();
    let candidates: BTreeSet<TransportAddress> =
        call.workers.iter().flat_map(|worker| worker.candidates().to_vec()).collect();
    assert_eq!(candidates.len(), 1, "one address for all");
    call.connect();
    call.talk();
    call.settle(0);
    let counters = call.counters();
    let sum = |of: fn(&WorkerCounters) -> u64| counters.iter().map(of).sum::<u64>();
    let (read, handed) = (sum(|of| of.net.received_datagrams), sum(|of| of.handovers.handed_over));
    assert!(handed > 0 && handed < read, "{handed} of {read}");
    // Nobody has heard a stranger: who was answered by its thread was known to all by then.
    assert_eq!(sum(unknown), 0);
    assert_eq!(sum(|of| of.shard.datagrams_received), read);
    assert_eq!(sum(|of| of.handovers.full + of.handovers.too_long), 0);
}

#[test]
fn a_peer_whose_address_changes_is_found_again() {
    let mut call = Call::open();
    call.connect();
    call.clients.iter_mut().for_each(|(_, client)| client.rebind());
    call.talk();
}

#[test]
fn a_stranger_is_not_taken_for_a_peer_and_one_who_has_gone_is_a_stranger() {
    let mut call = Call::open();
    call.connect();
    let port = call.workers.iter().next().unwrap().candidates()[0].address.port();
    let strangers: Vec<_> =
        (0..CLIENTS).map(|_| UdpSocket::bind((LOCALHOST, 0)).unwrap()).collect();
    // A check for each peer with nothing that proves it, an answer that nobody asked for, the
    // beginning of a handshake, and media.
    let mut junk: Vec<Vec<u8>> = (0..CLIENTS)
        .map(|number| {
            let name =
                format!("{}{number}ufrag:clientufrag", ShardId(number % THREADS).ufrag_prefix());
            let len = name.len() as u8;
            let padded = len.next_multiple_of(4);
            let head =
                [&[0, 1, 0, padded + 4, 0x21, 0x12, 0xa4, 0x42][..], &[9; 12], &[0, 6, 0, len]];
            let padding = vec![0; usize::from(padded - len)];
            [head.concat(), name.into_bytes(), padding].concat()
        })
        .collect();
    junk.push([&[1, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42][..], &[9; 12]].concat());
    junk.push(vec![22; 60]);
    junk.push(vec![0x80; 60]);
    call.settle(0);
    let handed_before = call.sum(|of| of.handovers.handed_over);
    let to = SocketAddr::new(LOCALHOST, port);
    for stranger in &strangers {
        junk.iter().for_each(|datagram| _ = stranger.send_to(datagram, to).unwrap());
    }
    let strange = u64::from(CLIENTS) * junk.len() as u64;
    call.settle(strange);
    // All but the checks, which name a peer of ours in vain: nothing has become known by them.
    assert_eq!(call.sum(unknown), u64::from(CLIENTS) * 3);
    let handed = call.sum(|of| of.handovers.handed_over) - handed_before;
    assert!(handed <= u64::from(CLIENTS * CLIENTS), "checks only: {handed}");
    call.talk();

    for peer in call.peers() {
        let worker = call.workers.get_mut(peer.home()).unwrap();
        worker.send(MediaCommand::ClosePeer { peer }).unwrap();
    }
    call.settle(strange);
    // As soon as all have heard of it, nothing is handed over.
    let give_up = Instant::now() + PATIENCE;
    loop {
        let before = (call.sum(unknown), call.sum(|of| of.handovers.handed_over));
        call.clients.iter_mut().for_each(|(_, client)| client.send_raw(&[0x80; 60]));
        call.settle(strange);
        assert_eq!(call.sum(unknown), before.0 + u64::from(CLIENTS));
        if call.sum(|of| of.handovers.handed_over) == before.1 {
            break;
        }
        assert!(Instant::now() < give_up);
    }
}

#[test]
fn a_port_that_another_has_is_an_error_even_if_that_one_would_share_it() {
    let identity = DtlsIdentity::generate().unwrap();
    let workers = Workers::start(config(&identity, 0), || {}).unwrap();
    let port = workers.iter().next().unwrap().candidates()[0].address.port();
    let refused = || {
        let error = Workers::start(config(&identity, port), || {}).unwrap_err();
        assert!(matches!(error, StartError::Bind { .. }));
        assert!(error.to_string().contains(&format!("UDP 0.0.0.0:{port}")), "{error}");
    };
    refused();
    drop(workers);
    let other = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    refused();
    drop(other);
    assert_eq!(Workers::start(config(&identity, port), || {}).unwrap().iter().len(), 3);
}
