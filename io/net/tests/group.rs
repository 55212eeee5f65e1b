//! Several sockets on one port.
#![allow(clippy::unwrap_used)]

use parlor_net::{Poll, RecvBatch, Run, UdpSocket};
use std::{
    collections::BTreeMap,
    io::ErrorKind,
    net::SocketAddr,
    os::fd::AsFd,
    time::{Duration, Instant},
};

const ROUNDS: usize = 3;
const CLIENTS: usize = 32;

fn any(ip: &str) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), 0)
}

/// Which sockets of the group get what each client sends.
fn receivers(group: &mut [UdpSocket], count: usize) -> BTreeMap<SocketAddr, Vec<usize>> {
    let (mut batch, mut poll) = (RecvBatch::new(), Poll::new());
    let mut receivers = BTreeMap::<_, Vec<_>>::new();
    let give_up = Instant::now() + Duration::from_secs(10);
    while receivers.values().map(Vec::len).sum::<usize>() < count {
        assert!(Instant::now() < give_up, "{receivers:?}");
        poll.wait(group.iter().map(AsFd::as_fd), Some(Duration::from_secs(1))).unwrap();
        for (at, socket) in group.iter_mut().enumerate() {
            let keep = |_, remote, _: &mut [u8]| receivers.entry(remote).or_default().push(at);
            socket.recv(&mut batch, keep).unwrap();
        }
    }
    receivers
}

#[test]
fn what_comes_from_one_source_comes_to_one_socket_and_each_has_its_share() {
    for ip in ["127.0.0.1", "0.0.0.0"] {
        let mut group = UdpSocket::bind_group(any(ip), 4).unwrap();
        let port = group[0].local_address().port();
        assert!(group.iter().all(|socket| socket.local_address().port() == port && port > 0));
        let to = SocketAddr::new("127.0.0.1".parse().unwrap(), port);
        let mut clients: Vec<_> =
            (0..CLIENTS).map(|_| UdpSocket::bind(any("127.0.0.1")).unwrap()).collect();
        for _ in 0..ROUNDS {
            for client in &mut clients {
                let run = Run { local: None, remote: to, bytes: b"from here", segment_bytes: 9 };
                assert_eq!(client.send([run], Duration::ZERO).datagrams, 1);
            }
        }
        let receivers = receivers(&mut group, ROUNDS * CLIENTS);
        assert_eq!(receivers.len(), CLIENTS);
        let mut seen = [0; 4];
        for (client, receivers) in receivers {
            assert!(receivers.iter().all(|at| *at == receivers[0]), "{client}: {receivers:?}");
            seen[receivers[0]] += 1;
        }
        // 32 clients leave one of four sockets out once in 2500 times, two never.
        assert!(seen.iter().filter(|clients| **clients > 0).count() >= 3, "{seen:?}");
        // Any of them answers from the port that the client knows.
        for socket in &mut group {
            let remote = clients[0].local_address();
            let run = Run { local: None, remote, bytes: b"back", segment_bytes: 4 };
            socket.send([run], Duration::ZERO);
        }
        let from = self::receivers(&mut clients[..1], 4);
        assert_eq!(from.into_keys().collect::<Vec<_>>(), [to]);
    }
}

#[test]
fn a_port_that_another_has_is_taken_even_if_that_one_would_share_it() {
    let group = UdpSocket::bind_group(any("127.0.0.1"), 2).unwrap();
    let address = group[0].local_address();
    let refused = |result: std::io::Result<()>| result.unwrap_err().kind();
    let in_use = ErrorKind::AddrInUse;
    assert_eq!(refused(UdpSocket::bind_group(address, 2).map(drop)), in_use);
    assert_eq!(refused(UdpSocket::bind(address).map(drop)), in_use);
    drop(group);
    let alone = UdpSocket::bind(address).unwrap();
    assert_eq!(refused(UdpSocket::bind_group(address, 2).map(drop)), in_use);
    drop(alone);
    assert_eq!(UdpSocket::bind_group(address, 2).unwrap().len(), 2);
}

#[test]
fn reports_come_to_a_socket_of_their_own_and_nothing_else_does() {
    const REPORT: &[u8] = &[0x8F, 205, 0, 0];
    const OTHERS: [&[u8]; 7] = [
        &[0x80, 96, 0, 0],
        &[0x80, 0xE0, 0, 0],
        &[0x80, 191, 0, 0],
        &[0xC0, 205, 0, 0],
        &[0x7F, 205, 0, 0],
        &[0, 1, 0, 0],
        &[0x80, 0],
    ];
    for (ip, count) in [("127.0.0.1", 1), ("127.0.0.1", 3), ("0.0.0.0", 2), ("::1", 3)] {
        let Ok(group) = UdpSocket::bind_group(any(ip), count) else {
            assert!(ip.contains(':'), "only IPv6 may be missing");
            continue;
        };
        let mut sockets = group;
        sockets.extend(UdpSocket::set_reports_apart(&sockets).unwrap());
        let loopback = if ip.contains(':') { ip } else { "127.0.0.1" };
        let to = SocketAddr::new(loopback.parse().unwrap(), sockets[0].local_address().port());
        let mut clients: Vec<_> =
            (0..CLIENTS).map(|_| UdpSocket::bind(any(loopback)).unwrap()).collect();
        for client in &mut clients {
            for bytes in [&[REPORT], &OTHERS[..]].concat() {
                let run = Run { local: None, remote: to, bytes, segment_bytes: bytes.len() };
                assert_eq!(client.send([run], Duration::ZERO).datagrams, 1);
            }
        }
        let mut seen = vec![0; count];
        for (client, mut receivers) in receivers(&mut sockets, CLIENTS * (1 + OTHERS.len())) {
            receivers.sort_unstable();
            let report = receivers.pop().unwrap();
            assert_eq!(receivers, [report - count; OTHERS.len()], "{client}");
            seen[report - count] += 1;
        }
        assert!(seen.iter().filter(|clients| **clients > 0).count() >= count.min(2), "{seen:?}");
    }
}
