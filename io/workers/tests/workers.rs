//! Whole workers, met over loopback by real clients.
#![allow(clippy::unwrap_used)]

mod common;

use common::{PATIENCE, client::Client};
use parlor_model::{DataChannel, PeerId, ShardId};
use parlor_sfu::command::{MediaCommand, MediaEvent};
use parlor_transport::{DtlsIdentity, TransportEvent};
use parlor_workers::{Announced, StartError, WorkerHandle, Workers, WorkersConfig};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::mpsc::{Receiver, sync_channel},
    time::{Duration, Instant},
};

const PEER: PeerId = PeerId(1);
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn config(workers: usize) -> WorkersConfig {
    WorkersConfig {
        first_port: 0,
        shares_port: false,
        listen: vec![LOCALHOST],
        announced: vec![Announced::new(LOCALHOST)],
        tcp: None,
        identity: DtlsIdentity::generate().unwrap(),
        active_red_encoding: false,
        slow_reader_bps: 0,
        seeds: (0..workers).map(|worker| [worker as u8; 32]).collect(),
    }
}

fn start(config: WorkersConfig) -> (Workers, Receiver<()>) {
    let (wake, woken) = sync_channel(1);
    (Workers::start(config, move || _ = wake.try_send(())).unwrap(), woken)
}

/// Lets client and worker talk until the worker has told of each of `wanted`.
fn await_events(
    client: &mut Client,
    worker: &mut WorkerHandle,
    mut wanted: Vec<MediaEvent>,
) -> Vec<TransportEvent> {
    let give_up = Instant::now() + PATIENCE;
    let mut seen = Vec::new();
    while !wanted.is_empty() {
        assert!(Instant::now() < give_up, "still wanted: {wanted:?}, client: {seen:?}");
        seen.extend(client.step());
        while let Some(event) = worker.poll_event().unwrap() {
            wanted.retain(|wanted| *wanted != event);
        }
    }
    seen
}

fn connect(config: WorkersConfig, reached_by: IpAddr) {
    let identity = config.identity.clone();
    let (mut workers, _woken) = start(config);
    let worker = workers.get_mut(ShardId(0)).unwrap();
    let mut client = Client::open(worker, PEER, &identity, ("server-", true), reached_by);
    let peer = PEER;
    let opened = |channel| MediaEvent::ChannelOpen { peer, channel };
    let wanted = vec![
        MediaEvent::PeerConnected { peer },
        opened(DataChannel::Reliable),
        opened(DataChannel::Lossy),
    ];
    await_events(&mut client, worker, wanted);

    let data = bytes::Bytes::from_static(b"hello");
    let send = MediaCommand::SendData {
        channel: DataChannel::Reliable,
        data,
        from: None,
        peers: vec![peer],
    };
    worker.send(send).unwrap();
    let give_up = Instant::now() + PATIENCE;
    let is_hello = |event: &TransportEvent| matches!(event, TransportEvent::Data { data, .. } if data == b"hello");
    while !client.step().iter().any(is_hello) {
        assert!(Instant::now() < give_up, "the message did not come");
    }

    let counters = workers.stop().unwrap();
    assert_eq!(counters.len(), 1);
    assert!(counters[0].net.received_datagrams > 4 && counters[0].net.sent_datagrams > 4);
    assert_eq!(counters[0].send_unroutable, 0);
    let dropped = counters[0].net.entries().into_iter().filter(|(name, count)| {
        *count > 0
            && (name.starts_with("send_") && *name != "send_calls" || name.contains("overflow"))
    });
    assert_eq!(dropped.collect::<Vec<_>>(), []);
}

#[test]
fn a_client_connects_and_hears() {
    connect(config(1), LOCALHOST);
}

#[test]
fn a_client_connects_through_a_wildcard_socket() {
    let listen = vec![Ipv4Addr::UNSPECIFIED.into()];
    connect(WorkersConfig { listen, ..config(1) }, LOCALHOST);
}

#[test]
fn a_client_connects_over_ipv6() {
    let v6 = IpAddr::V6(Ipv6Addr::LOCALHOST);
    if UdpSocket::bind(SocketAddr::new(v6, 0)).is_err() {
        return eprintln!("SKIPPED: this machine has no IPv6");
    }
    let listen = vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    connect(WorkersConfig { listen, announced: vec![Announced::new(v6)], ..config(1) }, v6);
}

/// The candidate is an address that this machine has not; the client plays the NAT.
#[test]
fn a_client_connects_through_a_nat() {
    let public = Ipv4Addr::new(203, 0, 113, 9).into();
    for listen in [LOCALHOST, Ipv4Addr::UNSPECIFIED.into()] {
        let announced = vec![Announced::behind_nat(public)];
        connect(WorkersConfig { listen: vec![listen], announced, ..config(1) }, LOCALHOST);
    }
}

#[test]
fn each_worker_has_its_own_port() {
    let (workers, _woken) = start(config(3));
    let mut ports: Vec<_> = workers
        .iter()
        .flat_map(|worker| worker.candidates())
        .map(|local| local.address.port())
        .collect();
    ports.dedup();
    assert_eq!((workers.iter().len(), ports.len()), (3, 3));
    assert!(ports.iter().all(|port| *port > 0));
    let ids: Vec<_> = workers.iter().map(|worker| worker.id().0).collect();
    assert_eq!(ids, [0, 1, 2]);
    assert_eq!(workers.stop().unwrap().len(), 3);
}

#[test]
fn an_idle_worker_sleeps() {
    let (mut workers, _woken) = start(config(1));
    let worker = workers.get_mut(ShardId(0)).unwrap();
    std::thread::sleep(Duration::from_millis(500)); // time is what is tested
    let (tell, told) = std::sync::mpsc::channel();
    worker.count(move |counters| tell.send(counters).unwrap()).unwrap();
    let turns = told.recv_timeout(PATIENCE).unwrap().turns;
    assert!(turns <= 3, "{turns}");
}

#[test]
fn a_taken_port_is_named_and_nothing_keeps_running() {
    let taken = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    let first_port = taken.local_addr().unwrap().port();
    let error = Workers::start(WorkersConfig { first_port, ..config(1) }, || {}).unwrap_err();
    assert!(matches!(error, StartError::Bind { .. }));
    let text = error.to_string();
    assert!(text.contains(&format!("UDP 127.0.0.1:{first_port}")), "{text}");
    drop(taken);
    // A failed start has given back the port of the first worker.
    let beyond = WorkersConfig { first_port: 65_535, ..config(2) };
    for _ in 0..2 {
        let error = Workers::start(beyond.clone(), || {}).unwrap_err();
        assert!(matches!(error, StartError::PortRange { .. }), "{error}");
    }
}

#[test]
fn an_address_that_nobody_serves_is_not_announced() {
    let other: IpAddr = Ipv4Addr::new(192, 0, 2, 1).into();
    let announced = vec![Announced::new(LOCALHOST), Announced::new(other)];
    let error = Workers::start(WorkersConfig { announced, ..config(1) }, || {}).unwrap_err();
    assert!(matches!(error, StartError::NotListening(ip) if ip == other), "{error}");
}

#[test]
fn dropping_the_workers_ends_them() {
    let (workers, woken) = start(config(2));
    drop(workers);
    // Both threads are gone, and with them their copies of the sending end.
    while woken.recv_timeout(PATIENCE).is_ok() {}
    let disconnected = std::sync::mpsc::TryRecvError::Disconnected;
    assert_eq!(woken.try_recv(), Err(disconnected));
}
