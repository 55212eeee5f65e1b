//! Peers that come over TCP, and those who only seem to be some.
#![allow(clippy::unwrap_used)]

mod common;

use common::{PATIENCE, open_peer};
use parlor_model::{DataChannel, Path, PeerId, ShardId, TransportAddress, TransportProtocol};
use parlor_net::{Poll, TcpBuffer, TcpConnection};
use parlor_sfu::command::{MediaCommand, MediaEvent};
use parlor_transport::{DtlsIdentity, Transport, TransportEvent};
use parlor_workers::{
    Announced, FIRST_CHECK_TIMEOUT, HalfOpenCounters, TcpConfig, TcpLimits, Workers, WorkersConfig,
};
use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsFd,
    time::{Duration, Instant},
};

const PEER: PeerId = PeerId(1);
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn start(identity: &DtlsIdentity, workers: u8) -> (Workers, SocketAddr) {
    let limits = TcpLimits { connections_per_address: 1, half_open_per_address: 1 };
    let config = WorkersConfig {
        first_port: 0,
        shares_port: false,
        listen: vec![Ipv4Addr::UNSPECIFIED.into()],
        announced: vec![Announced::new(LOCALHOST)],
        // Loopback has no limits.
        tcp: Some(TcpConfig { port: 0, limits }),
        identity: identity.clone(),
        active_red_encoding: false,
        slow_reader_bps: 0,
        seeds: (0..workers).map(|worker| [worker; 32]).collect(),
    };
    let workers = Workers::start(config, || {}).unwrap();
    let mut ports: Vec<_> = workers.iter().map(|worker| worker.candidates()[1]).collect();
    ports.dedup();
    let [TransportAddress { protocol: TransportProtocol::Tcp, address }] = ports[..] else {
        panic!("one TCP port for all workers: {ports:?}")
    };
    (workers, address)
}

/// A peer in this process, on a TCP connection that it has made.
struct Client {
    transport: Transport,
    connection: TcpConnection,
    path: Path,
    events: Vec<TransportEvent>,
}

impl Client {
    fn open(workers: &mut Workers, server: &DtlsIdentity, address: SocketAddr, ours: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        let path = Path::tcp(stream.local_addr().unwrap(), address);
        let port = address.port();
        let line =
            format!("candidate:1 1 tcp 1671430143 127.0.0.1 {port} typ host tcptype passive");
        let worker = workers.get_mut(ShardId::of_ufrag(ours).unwrap()).unwrap();
        let transport = open_peer(worker, PEER, server, (ours, false), path.local_address(), &line);
        let connection = TcpConnection::new(stream, address).unwrap();
        Self { transport, connection, path, events: Vec::new() }
    }

    /// Carries datagrams once.
    fn step(&mut self) {
        let mut datagram = [0; 2048];
        while let Some(sent) = self.transport.poll_transmit(&mut datagram) {
            assert_eq!(sent.path, self.path);
            self.connection.send(&[&datagram[..sent.len]]).unwrap();
        }
        let timeout = Some(Duration::from_millis(5));
        Poll::new().wait([self.connection.as_fd()], timeout).unwrap();
        let Self { connection, transport, path, events } = self;
        let now = Instant::now();
        let read = connection.recv(&mut TcpBuffer::new(), |datagram| {
            transport.handle_datagram(now, *path, datagram);
        });
        read.unwrap();
        transport.handle_timeout(now);
        events.extend(std::iter::from_fn(|| transport.poll_event()));
    }

    fn run_until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        let give_up = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < give_up, "{what}: {:?}", self.events);
            self.step();
        }
    }
}

#[test]
fn a_peer_connects_over_tcp_to_the_worker_that_its_ufrag_names() {
    let identity = DtlsIdentity::generate().unwrap();
    let (mut workers, address) = start(&identity, 2);
    let mut client = Client::open(&mut workers, &identity, address, "aab");
    let wanted = MediaEvent::ChannelOpen { peer: PEER, channel: DataChannel::Reliable };
    let worker = workers.get_mut(ShardId(1)).unwrap();
    client.run_until("the channel opens", |_| {
        std::iter::from_fn(|| worker.poll_event().unwrap()).any(|event| event == wanted)
    });
    let data = bytes::Bytes::from(vec![7; 60_000]);
    let peers = vec![PEER];
    worker
        .send(MediaCommand::SendData { channel: DataChannel::Reliable, data, from: None, peers })
        .unwrap();
    let is_whole = |event: &TransportEvent| matches!(event, TransportEvent::Data { data, .. } if data.len() == 60_000);
    client.run_until("the message comes", |client| client.events.iter().any(is_whole));
    assert_eq!(client.transport.selected_path(), Some(client.path));

    let half_open = workers.half_open_counters().unwrap();
    let expected = HalfOpenCounters { accepted: 1, handed_over: 1, ..Default::default() };
    assert_eq!(half_open, expected);
    let counters = workers.stop().unwrap();
    assert_eq!((counters[0].tcp.opened, counters[1].tcp.opened), (0, 1));
    let tcp = counters[1].tcp;
    assert!(tcp.net.received_datagrams > 4 && tcp.net.sent_datagrams > 50, "{tcp:?}");
    assert_eq!((tcp.net.send_queue_full, tcp.net.send_unconnected), (0, 0));
    assert_eq!(counters[1].net.sent_datagrams, 0);
}

/// Waits for the other end to close.
fn closed(stream: &mut TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    // A reset is an end too.
    let read = stream.read(&mut [0; 10]);
    assert!(!matches!(&read, Ok(1..)), "{read:?}");
    if let Err(error) = read {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
}

#[test]
fn a_thousand_that_say_nothing_are_cut_in_time_and_hinder_nobody() {
    let identity = DtlsIdentity::generate().unwrap();
    let (mut workers, address) = start(&identity, 1);
    let begin = Instant::now();
    let mut silent: Vec<_> = (0..1000).map(|_| TcpStream::connect(address).unwrap()).collect();
    for (index, stream) in silent.iter_mut().enumerate() {
        // Some begin a frame, slowly.
        stream.write_all(&[0, 100, 0, 1][..index % 5]).unwrap();
    }
    let mut client = Client::open(&mut workers, &identity, address, "aaa");
    let wanted = MediaEvent::PeerConnected { peer: PEER };
    let worker = workers.get_mut(ShardId(0)).unwrap();
    client.run_until("a peer connects meanwhile", |_| {
        std::iter::from_fn(|| worker.poll_event().unwrap()).any(|event| event == wanted)
    });
    silent.iter_mut().for_each(closed);
    assert!(begin.elapsed() >= FIRST_CHECK_TIMEOUT - Duration::from_millis(100));
    let half_open = workers.half_open_counters().unwrap();
    let expected =
        HalfOpenCounters { accepted: 1001, handed_over: 1, late: 1000, ..Default::default() };
    assert_eq!(half_open, expected);
}

#[test]
fn what_does_not_begin_with_a_check_of_ours_is_cut_at_once() {
    let identity = DtlsIdentity::generate().unwrap();
    let (workers, address) = start(&identity, 1);
    let check = |ufrag: &str| {
        let username = format!("{ufrag}:them");
        let padded = username.len().next_multiple_of(4);
        let mut check = vec![0, 1, 0, (4 + padded) as u8, 0x21, 0x12, 0xa4, 0x42];
        check.extend([9; 12]);
        check.extend([0, 6, 0, username.len() as u8]);
        check.extend(username.bytes());
        check.resize(24 + padded, 0);
        [&(check.len() as u16).to_be_bytes()[..], &check].concat()
    };
    let garbage: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\x00\x00",
        b"\x00\x05hello",
        &check("nobody of ours"),
        // A shard that does not exist.
        &check("abcdef"),
    ];
    for sent in garbage {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(sent).unwrap();
        closed(&mut stream);
    }
    let half_open = workers.half_open_counters().unwrap();
    assert_eq!((half_open.accepted, half_open.malformed), (6, 6));

    // One that names our shard is the worker's matter: garbage after the check ends it there.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(&check("aaadef")).unwrap();
    stream.write_all(&[0xff; 40]).unwrap();
    closed(&mut stream);
    let counters = workers.stop().unwrap();
    assert_eq!((counters[0].tcp.opened, counters[0].tcp.malformed), (1, 1));
    assert_eq!(counters[0].shard.dropped_unknown_stun, 1);
}
