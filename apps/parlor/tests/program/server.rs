//! A server as a process of its own, and what its operator and its clients say to it.

use livekit_protocol::SignalResponse;
pub use livekit_protocol::signal_response::Message as Signal;
use prost::Message as _;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

pub const PARLOR: &str = env!("CARGO_BIN_EXE_parlor");
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const SECRET: &str = "a-secret-of-more-than-thirty-two-bytes";

pub fn directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("parlor-program-{name}"));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn free_udp_port() -> u16 {
    UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port()
}

pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "{what} did not come");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A server; killed when it goes.
pub struct Server {
    pub child: Child,
    pub port: u16,
    pub udp_port: u16,
    pub log: Arc<Mutex<String>>,
}

impl Server {
    /// Of a configuration file.
    pub fn start(config: &Path, port: u16, more: &[&str]) -> Server {
        let config = ["--bind", "127.0.0.1", "--config", config.to_str().unwrap()];
        let loopback = ["--rtc.enable_loopback_candidate", "true"];
        Server::spawn(port, free_udp_port(), &[&config[..], &loopback, more].concat())
    }

    /// In development mode.
    pub fn dev(more: &[&str]) -> Server {
        let flags = ["--dev", "--rtc.tcp_port", "0"];
        Server::spawn(free_port(), free_udp_port(), &[&flags[..], more].concat())
    }

    fn spawn(port: u16, udp_port: u16, flags: &[&str]) -> Server {
        let mut child = Command::new(PARLOR)
            .args(["serve", "--port", &port.to_string(), "--udp-port", &udp_port.to_string()])
            .args(flags)
            .env_remove("RUST_LOG")
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let copy = log.clone();
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                copy.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        let server = Server { child, port, udp_port, log };
        until("the server", || get(server.port, "/readyz", "").filter(|a| a.0 == 200));
        server
    }

    /// What `parlor load-test` in development mode reports of this server.
    pub fn load(&self, flags: &str) -> Value {
        let url = format!("ws://127.0.0.1:{}", self.port);
        let flags = flags.split_whitespace();
        let arguments = ["load-test", "--dev", "--json", "--url", &url].into_iter().chain(flags);
        let output = parlor(&arguments.collect::<Vec<_>>());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub fn signal(&self, name: &str) {
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

/// Status and body; `None` if nobody answers.
pub fn request(port: u16, head: &str, body: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let length = body.len();
    let request = format!(
        "{head}host: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n")?.1.to_owned()))
}

pub fn bearer(token: &str) -> String {
    if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") }
}

pub fn get(port: u16, path: &str, token: &str) -> Option<(u16, String)> {
    request(port, &format!("GET {path} HTTP/1.1\r\n{}", bearer(token)), "")
}

pub fn call(port: u16, method: &str, token: &str, body: &str) -> Option<(u16, String)> {
    call_service(port, "RoomService", method, token, body)
}

pub fn call_service(
    port: u16,
    service: &str,
    method: &str,
    token: &str,
    body: &str,
) -> Option<(u16, String)> {
    let path = format!("/twirp/livekit.{service}/{method}");
    request(port, &format!("POST {path} HTTP/1.1\r\n{}", bearer(token)), body)
}

pub fn parlor(arguments: &[&str]) -> Output {
    let mut command = Command::new(PARLOR);
    command.args(arguments).env_remove("LIVEKIT_API_KEY").env_remove("LIVEKIT_API_SECRET");
    command.output().unwrap()
}

pub fn token(secret: &str, more: &[&str]) -> String {
    let mut arguments =
        vec!["token", "create", "--api-key", "k", "--api-secret", secret, "--token-only"];
    arguments.extend(more);
    let output = parlor(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

pub fn admin() -> String {
    token(SECRET, &["--create", "--list", "--admin", "--room", "any", "--valid-for", "2h"])
}

/// A WebSocket that has been asked for: the status, and the stream behind the headers.
pub fn join(port: u16, token: &str) -> (u16, TcpStream) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "host: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n\
        sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let path = format!("/rtc?protocol=16&access_token={token}");
    stream.write_all(format!("GET {path} HTTP/1.1\r\n{head}").as_bytes()).unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
    }
    let status = String::from_utf8_lossy(&head[9..12]).parse().unwrap();
    (status, stream)
}

/// The first byte and the payload of the next frame, which is not masked.
pub fn frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
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

/// The next message to a participant.
pub fn message(stream: &mut TcpStream) -> Signal {
    loop {
        let (first, payload) = frame(stream);
        if first == 0x82 {
            return SignalResponse::decode(&payload[..]).unwrap().message.unwrap();
        }
    }
}
