//! The program as its user meets it.
#![allow(clippy::unwrap_used, missing_docs)]

use livekit_protocol::{SignalResponse, signal_response::Message as Signal};
use prost::Message;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

const PARLOR: &str = env!("CARGO_BIN_EXE_parlor");
const PATIENCE: Duration = Duration::from_secs(20);

fn free_ports() -> (u16, u16) {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    (tcp.local_addr().unwrap().port(), udp.local_addr().unwrap().port())
}

/// A server in development mode; killed if the test fails.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Server {
        Server::start_with(&[])
    }

    fn start_with(more: &[&str]) -> Server {
        let (port, udp_port) = free_ports();
        let mut child = Command::new(PARLOR)
            .args(["serve", "--dev", "--port", &port.to_string()])
            .args(["--udp-port", &udp_port.to_string()])
            .args(more)
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

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &pid]).status().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn parlor(arguments: &[&str]) -> Output {
    let mut command = Command::new(PARLOR);
    command.args(arguments).env_remove("LIVEKIT_API_KEY").env_remove("LIVEKIT_API_SECRET");
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Reads one unmasked frame: first byte and payload.
fn frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let length = match head[1] {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            usize::from(u16::from_be_bytes(length))
        }
        length => usize::from(length),
    };
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).unwrap();
    (head[0], payload)
}

fn join(port: u16) -> TcpStream {
    let arguments =
        ["token", "create", "--dev", "--join", "--room", "r", "--identity", "ann", "--token-only"];
    let token = text(&parlor(&arguments).stdout);
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(
        stream,
        "GET /rtc?protocol=16&access_token={} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        token.trim()
    )
    .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", text(&head));
    stream
}

#[test]
fn without_an_address_to_bind_both_families_are_served() {
    // With a key of one's own the server is open to other machines.
    let server = Server::start_with(&["--keys", "mine: abcdefghijklmnopqrstuvwxyz012345"]);
    for ip in ["127.0.0.1", "::1"] {
        let mut stream = TcpStream::connect((ip, server.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: me\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{ip}: {answer}");
    }
}

#[test]
fn participants_are_told_when_the_server_ends() {
    for signal in ["-TERM", "-INT"] {
        let mut server = Server::start();
        let mut stream = join(server.port);
        let (_, first) = frame(&mut stream);
        let first = SignalResponse::decode(&first[..]).unwrap().message;
        assert!(matches!(first, Some(Signal::Join(_))), "{first:?}");

        server.signal(signal);
        let mut left = None;
        loop {
            let (first, payload) = frame(&mut stream);
            if first == 0x88 {
                assert_eq!(payload, 1000u16.to_be_bytes());
                break;
            }
            if let Some(Signal::Leave(leave)) =
                SignalResponse::decode(&payload[..]).unwrap().message
            {
                left = Some(leave.reason());
            }
        }
        assert_eq!(left, Some(livekit_protocol::DisconnectReason::ServerShutdown));
        drop(stream);
        assert!(server.child.wait().unwrap().success());
    }
}

#[test]
fn rooms_are_made_listed_and_deleted() {
    let server = Server::start();
    let url = format!("ws://127.0.0.1:{}", server.port);
    let room = |verb: &str, name: &str| parlor(&["room", verb, "--dev", "--url", &url, name]);
    assert!(room("create", "demo").status.success());
    let list = text(&parlor(&["room", "list", "--dev", "--url", &url]).stdout);
    assert!(list.contains("demo") && list.contains("RM_"), "{list}");
    assert!(room("delete", "demo").status.success());
    let again = room("delete", "demo");
    assert!(!again.status.success());
    assert!(
        text(&again.stderr).contains("requested room does not exist"),
        "{}",
        text(&again.stderr)
    );
}

#[test]
fn a_taken_port_a_missing_key_and_a_wrong_flag_are_explained() {
    let failure = |arguments: &[&str]| {
        let output = parlor(arguments);
        assert!(!output.status.success());
        text(&output.stderr)
    };
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("0.0.0.0:0").unwrap();
    let taken = tcp.local_addr().unwrap().port().to_string();
    let taken_udp = udp.local_addr().unwrap().port().to_string();
    let (free, free_udp) = free_ports();
    let (free, free_udp) = (free.to_string(), free_udp.to_string());
    let message = failure(&["serve", "--dev", "--port", &taken, "--udp-port", &free_udp]);
    assert!(
        message.contains(&format!("TCP port {taken} is taken")) && message.contains("--port"),
        "{message}"
    );
    let message = failure(&["serve", "--dev", "--port", &free, "--udp-port", &taken_udp]);
    assert!(message.contains(&taken_udp) && message.contains("--udp-port"), "{message}");
    let message = failure(&["serve"]);
    assert!(message.contains("no API key") && message.contains("--dev"), "{message}");
    let message = failure(&["serve", "--prot", "1"]);
    assert!(message.contains("--port"), "{message}");
    let message = failure(&["serve", "--config-body", "prot: 7880"]);
    assert!(message.contains("prot") && message.contains("line 1"), "{message}");
    let message = failure(&["serve", "--config", "/nowhere/parlor.yaml"]);
    assert!(message.contains("/nowhere/parlor.yaml"), "{message}");
}
