//! The program as its user meets it.

use crate::server::{PATIENCE, Server, Signal, frame, free_port, free_udp_port, join, parlor};
use livekit_protocol::SignalResponse;
use prost::Message;
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
};

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn without_an_address_to_bind_both_families_are_served() {
    // With a key of one's own the server is open to other machines.
    let server = Server::dev(&["--keys", "mine: abcdefghijklmnopqrstuvwxyz012345"]);
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
        let mut server = Server::dev(&[]);
        let grant = ["--dev", "--join", "--room", "r", "--identity", "ann", "--token-only"];
        let token = text(&parlor(&[&["token", "create"], &grant[..]].concat()).stdout);
        let (status, mut stream) = join(server.port, token.trim());
        assert_eq!(status, 101);
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
    let server = Server::dev(&[]);
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
    let (free, free_udp) = (free_port().to_string(), free_udp_port().to_string());
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
