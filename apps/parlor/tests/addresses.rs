//! Which addresses clients are told, and that media goes there.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

const PARLOR: &str = env!("CARGO_BIN_EXE_parlor");
/// What the world knows the server by; a NAT on this machine leads it to 127.0.0.1.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

fn free_ports() -> (u16, u16) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port())
}

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

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start(port: u16, udp_port: u16, config: &str) -> Server {
        let mut child = Command::new(PARLOR)
            .args(["serve", "--dev", "--port", &port.to_string(), "--rtc.tcp_port", "0"])
            .args(["--udp-port", &udp_port.to_string(), "--config-body", config])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The text of development mode comes once the ports are open.
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("Ctrl-C") {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "the server has ended");
        }
        Server { child, port }
    }

    fn load(&self) -> Value {
        let url = format!("ws://127.0.0.1:{}", self.port);
        let output = Command::new(PARLOR)
            .args(["load-test", "--dev", "--json", "--duration", "2s", "--url", &url])
            .args(["--audio-publishers", "2", "--subscribers", "2"])
            .env_remove("LIVEKIT_API_KEY")
            .env_remove("LIVEKIT_API_SECRET")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn media_comes_to_the_address_that_a_stun_server_has_seen() {
    let (port, udp_port) = free_ports();
    let passed = nat(udp_port);
    let config = format!(
        "rtc: {{use_external_ip: true, stun_servers: [\"{}\"], ips: {{includes: [127.0.0.1/32]}}}}",
        stun_server()
    );
    let server = Server::start(port, udp_port, &config);
    let report = server.load();
    assert_eq!(report["joins"]["connected"], 4, "{report}");
    assert!(report["received"]["packets"].as_u64().unwrap() > 100, "{report}");
    assert!(passed.load(Ordering::Relaxed) > 100, "{passed:?} datagrams passed the NAT");
}
