//! Two sockets on this machine.
#![allow(clippy::unwrap_used)]

use parlor_net::{Poll, RecvBatch, Run, UdpSocket};
use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::AsFd,
    time::{Duration, Instant},
};

const NO_PATIENCE: Duration = Duration::ZERO;

struct Datagram {
    local: SocketAddr,
    remote: SocketAddr,
    bytes: Vec<u8>,
}

fn bind(address: &str) -> UdpSocket {
    UdpSocket::bind(address.parse().unwrap()).unwrap()
}

fn has_ipv6() -> bool {
    let present = UdpSocket::bind("[::1]:0".parse().unwrap()).is_ok();
    if !present {
        eprintln!("SKIPPED: this machine has no IPv6");
    }
    present
}

/// Reads until `count` datagrams are there; more would be a failure.
fn receive(socket: &mut UdpSocket, count: usize) -> Vec<Datagram> {
    let (mut batch, mut poll, mut datagrams) = (RecvBatch::new(), Poll::new(), Vec::new());
    let give_up = Instant::now() + Duration::from_secs(10);
    while datagrams.len() < count {
        assert!(Instant::now() < give_up, "{} of {count} datagrams came", datagrams.len());
        poll.wait([socket.as_fd()], Some(Duration::from_secs(1))).unwrap();
        let keep = |local, remote, bytes: &mut [u8]| {
            datagrams.push(Datagram { local, remote, bytes: bytes.to_vec() });
        };
        socket.recv(&mut batch, keep).unwrap();
    }
    assert_eq!(datagrams.len(), count);
    datagrams
}

/// Datagrams of these lengths, each filled with its number.
fn numbered(lens: &[usize]) -> Vec<u8> {
    lens.iter().enumerate().flat_map(|(at, &len)| vec![at as u8; len]).collect()
}

fn round_trip(address: &str) {
    let (mut from, mut to) = (bind(address), bind(address));
    let bytes = numbered(&[1200, 1200, 1200, 1200, 1200, 1200, 1200, 700]);
    let run = Run { local: None, remote: to.local_address(), bytes: &bytes, segment_bytes: 1200 };
    let sent = from.send([run], NO_PATIENCE);
    assert_eq!((sent.datagrams, sent.dropped), (8, 0));

    let datagrams = receive(&mut to, 8);
    for (at, datagram) in datagrams.iter().enumerate() {
        assert_eq!(datagram.bytes, vec![at as u8; if at < 7 { 1200 } else { 700 }]);
        assert_eq!(datagram.remote, from.local_address());
        assert_eq!(datagram.local, to.local_address());
    }
    let (sender, receiver) = (from.counters(), to.counters());
    assert_eq!((sender.sent_datagrams, sender.sent_bytes), (8, 9100));
    assert_eq!((receiver.received_datagrams, receiver.received_bytes), (8, 9100));
    if from.segments() {
        assert_eq!((sender.sent_messages, sender.send_calls), (1, 1), "one message for the run");
    } else {
        eprintln!("SKIPPED: this kernel has no UDP_SEGMENT");
    }
}

#[test]
fn a_run_arrives_as_datagrams_over_ipv4() {
    round_trip("127.0.0.1:0");
}

#[test]
fn a_run_arrives_as_datagrams_over_ipv6() {
    if has_ipv6() {
        round_trip("[::1]:0");
    }
}

#[test]
fn the_same_arrives_without_segmentation() {
    let (mut from, mut to) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    from.disable_segmentation();
    let bytes = numbered(&[100, 100, 40]);
    let run = Run { local: None, remote: to.local_address(), bytes: &bytes, segment_bytes: 100 };
    assert_eq!(from.send([run], NO_PATIENCE).datagrams, 3);
    let lens: Vec<_> = receive(&mut to, 3).iter().map(|datagram| datagram.bytes.len()).collect();
    assert_eq!(lens, [100, 100, 40]);
    assert_eq!((from.counters().sent_messages, from.counters().send_calls), (3, 1));
}

/// More runs than one system call takes, and more datagrams than one message may be cut into.
#[test]
fn many_runs_and_long_runs_are_split() {
    let (mut from, mut to) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let remote = to.local_address();
    let bytes = numbered(&[200; 150]);
    let long = Run { local: None, remote, bytes: &bytes, segment_bytes: 200 };
    let singles =
        bytes.chunks(200).map(|bytes| Run { local: None, remote, bytes, segment_bytes: 0 });
    assert_eq!(from.send([long].into_iter().chain(singles), NO_PATIENCE).datagrams, 300);
    let datagrams = receive(&mut to, 300);
    for (at, datagram) in datagrams.iter().enumerate() {
        assert_eq!(datagram.bytes, vec![(at % 150) as u8; 200]);
    }
    if from.segments() {
        assert_eq!(from.counters().sent_messages, 3 + 150);
    }
    let big = vec![7; 60_000];
    let run = Run { local: None, remote, bytes: &big, segment_bytes: 59_000 };
    assert_eq!(from.send([run], NO_PATIENCE).datagrams, 2);
    receive(&mut to, 2);
}

#[test]
fn a_datagram_that_no_path_carries_is_dropped_and_counted() {
    let (mut from, to) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let bytes = vec![0; 70_000];
    let run = Run { local: None, remote: to.local_address(), bytes: &bytes, segment_bytes: 0 };
    let sent = from.send([run], NO_PATIENCE);
    assert_eq!((sent.datagrams, sent.dropped), (0, 1));
    assert_eq!(from.counters().send_too_big, 1);
}

/// All of 127/8 is this machine: a wildcard socket must tell which address was meant, and
/// answer from it.
fn wildcard(wildcard: &str, meant: IpAddr, other: IpAddr) {
    let mut server = bind(wildcard);
    let mut client = UdpSocket::bind(SocketAddr::new(other, 0)).unwrap();
    let remote = SocketAddr::new(meant, server.local_address().port());
    client.send([Run { local: None, remote, bytes: b"ask", segment_bytes: 0 }], NO_PATIENCE);
    let asked = receive(&mut server, 1).remove(0);
    assert_eq!((asked.local, asked.remote), (remote, client.local_address()));

    let answer = Run {
        local: Some(asked.local.ip()),
        remote: asked.remote,
        bytes: b"yesno",
        segment_bytes: 3,
    };
    assert_eq!(server.send([answer], NO_PATIENCE).datagrams, 2);
    for datagram in receive(&mut client, 2) {
        assert_eq!(datagram.remote, remote);
    }
}

#[test]
fn a_wildcard_socket_answers_from_the_address_that_was_meant() {
    wildcard("0.0.0.0:0", Ipv4Addr::new(127, 0, 0, 77).into(), Ipv4Addr::LOCALHOST.into());
    if has_ipv6() {
        wildcard("[::]:0", Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into());
    }
}

#[test]
fn both_families_share_a_port() {
    if has_ipv6() {
        let v4 = bind("0.0.0.0:0");
        let port = v4.local_address().port();
        assert_eq!(bind(&format!("[::]:{port}")).local_address().port(), port);
    }
}

#[test]
fn a_source_address_that_is_not_ours_is_refused_and_counted() {
    let mut from = bind("0.0.0.0:0");
    let to = bind("127.0.0.1:0");
    let local = Some(Ipv4Addr::new(192, 0, 2, 1).into());
    let run = Run { local, remote: to.local_address(), bytes: b"x", segment_bytes: 0 };
    assert_eq!(from.send([run], NO_PATIENCE).dropped, 1);
    let counters = from.counters();
    assert_eq!(counters.send_unreachable + counters.send_failed, 1, "{counters:?}");
}

#[test]
fn a_port_where_nobody_listens_is_no_error() {
    let mut from = bind("127.0.0.1:0");
    let nobody = bind("127.0.0.1:0").local_address();
    let mut to = bind("127.0.0.1:0");
    let mut batch = RecvBatch::new();
    for _ in 0..10 {
        let lost = Run { local: None, remote: nobody, bytes: b"?", segment_bytes: 0 };
        let heard = Run { remote: to.local_address(), ..lost };
        assert_eq!(from.send([lost, heard], NO_PATIENCE).dropped, 0);
        from.recv(&mut batch, |_, _, _| panic!("nothing was sent here")).unwrap();
    }
    receive(&mut to, 10);
}

/// One more than the kernel holds, and it says so with the next that it delivers.
#[test]
fn what_the_kernel_drops_is_counted() {
    let (mut from, mut to) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let bytes = vec![0; 60_000];
    let run = Run { local: None, remote: to.local_address(), bytes: &bytes, segment_bytes: 0 };
    const SENT: u64 = 400; // 24 MB, more than the kernel holds in 8 MiB
    for _ in 0..SENT {
        from.send([run], Duration::from_secs(1));
    }
    let (mut batch, mut came) = (RecvBatch::new(), 0);
    while to.recv(&mut batch, |_, _, _| came += 1).unwrap() > 0 {}
    assert!(came > 0 && came < SENT, "{came}");
    from.send([run], NO_PATIENCE);
    receive(&mut to, 1);
    assert_eq!(to.counters().receive_overflow, SENT - came);
}

#[test]
fn binding_twice_is_an_error_that_can_be_told() {
    let first = bind("127.0.0.1:0");
    let error = UdpSocket::bind(first.local_address()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
}

#[test]
fn counters_name_themselves() {
    let (mut from, mut to) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    let run = Run { local: None, remote: to.local_address(), bytes: b"abc", segment_bytes: 0 };
    from.send([run], NO_PATIENCE);
    receive(&mut to, 1);
    let mut sum = from.counters();
    sum += to.counters();
    let entries = sum.entries();
    assert!(entries.contains(&("sent_bytes", 3)) && entries.contains(&("received_bytes", 3)));
    assert_eq!(entries.map(|(name, _)| name).into_iter().collect::<BTreeSet<_>>().len(), 16);
    assert_eq!(parlor_net::NetCounters::from_values(entries.map(|(_, value)| value)), sum);
}

/// The kernel turns stamping on some time after it was asked, and says of what came before that it
/// came when it was read.
#[test]
fn a_stamp_tells_when_a_datagram_came_not_when_it_was_read() {
    let (mut from, mut to) = (bind("127.0.0.1:0"), bind("127.0.0.1:0"));
    to.stamp_received().unwrap();
    let run = Run { local: None, remote: to.local_address(), bytes: b"abc", segment_bytes: 0 };
    let (mut batch, waits) = (RecvBatch::new(), Duration::from_millis(300));
    let is_stamped = (0..30).any(|_| {
        let before = Instant::now();
        from.send([run], NO_PATIENCE);
        std::thread::sleep(waits);
        let mut waited = false;
        let see = |_, _, arrived: Option<Instant>, _: &mut [u8]| {
            waited = arrived.is_some_and(|arrived| arrived < before + waits / 2);
        };
        to.recv_stamped(&mut batch, see).unwrap();
        waited
    });
    assert!(is_stamped);
}
