//! Which addresses clients are told, and that media goes there.

use crate::server::Server;
use std::{
    collections::HashMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// What the world knows the server by; a NAT on this machine leads it to 127.0.0.1.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// Answers every binding request as if it came from [`OUTSIDE`].
fn stun_server() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 1500];
        while let Ok((_, from)) = socket.recv_from(&mut buffer) {
            let mut answer = [&[1, 1, 0, 12][..], &buffer[4..20], &[0, 0x20, 0, 8, 0, 1]].concat();
            answer.extend((from.port() ^ 0x2112).to_be_bytes());
            answer.extend((u32::from(OUTSIDE) ^ 0x2112_a442).to_be_bytes());
            socket.send_to(&answer, from).unwrap();
        }
    });
    address
}

/// Leads `OUTSIDE:port` to `127.0.0.1:port` and back, and counts the datagrams that came back.
fn nat(port: u16) -> Arc<AtomicU64> {
    let outer = UdpSocket::bind((OUTSIDE, port)).unwrap();
    let passed = Arc::new(AtomicU64::new(0));
    let count = passed.clone();
    thread::spawn(move || {
        let mut mappings: HashMap<SocketAddr, UdpSocket> = HashMap::new();
        let mut buffer = [0; 2000];
        while let Ok((length, client)) = outer.recv_from(&mut buffer) {
            let inner = mappings.entry(client).or_insert_with(|| {
                let inner = UdpSocket::bind("127.0.0.1:0").unwrap();
                let (from, to) = (inner.try_clone().unwrap(), outer.try_clone().unwrap());
                let count = count.clone();
                thread::spawn(move || {
                    let mut buffer = [0; 2000];
                    while let Ok((length, _)) = from.recv_from(&mut buffer) {
                        let _ = to.send_to(&buffer[..length], client);
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
                inner
            });
            let _ = inner.send_to(&buffer[..length], (Ipv4Addr::LOCALHOST, port));
        }
    });
    passed
}

#[test]
fn media_comes_to_the_address_that_a_stun_server_has_seen() {
    let config = format!(
        "rtc: {{use_external_ip: true, stun_servers: [\"{}\"], ips: {{includes: [127.0.0.1/32]}}}}",
        stun_server()
    );
    let server = Server::dev(&["--config-body", &config]);
    let passed = nat(server.udp_port);
    let report = server.load("--duration 2s --audio-publishers 2 --subscribers 2");
    assert_eq!(report["joins"]["connected"], 4, "{report}");
    assert!(report["received"]["packets"].as_u64().unwrap() > 100, "{report}");
    assert!(passed.load(Ordering::Relaxed) > 100, "{passed:?} datagrams passed the NAT");
}
