//! The recorded Twirp exchanges of trace 09 about dispatches, egress, ingress, SIP and services
//! that are nowhere, asked of this server: status, code and body field by field. What differs
//! on purpose is named in [`intended`].
#![allow(clippy::unwrap_used, missing_docs)]

use base64::{Engine as _, prelude::BASE64_STANDARD};
use parlor_gateway::Gateway;
use parlor_node::{
    Node, NodeConfig,
    io::{Input, Now},
};
use parlor_signal::{Claims, token};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

/// A server without media threads.
async fn server() -> SocketAddr {
    let keys = || [("devkey".to_owned(), "secret".to_owned())].into_iter().collect();
    let fingerprint =
        parlor_model::Fingerprint { algorithm: "sha-256".into(), digest: vec![7; 32] };
    let config = NodeConfig::new(keys(), Vec::new(), fingerprint);
    let mut node = Node::new(config, [3; 32]);
    let (inputs, mut of_the_node) = mpsc::channel::<Input>(64);
    let gateway = Gateway::new(keys(), inputs);
    let deliver = gateway.clone();
    tokio::spawn(async move {
        while let Some(input) = of_the_node.recv().await {
            let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
            node.handle(Now { instant: Instant::now(), unix }, input);
            while let Some(output) = node.poll_output() {
                deliver.deliver(output);
            }
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(gateway.serve(listener));
    address
}

async fn ask(address: SocketAddr, line: &Value, body: &[u8]) -> (u16, Vec<u8>) {
    let text = |key: &str| line[key].as_str().unwrap();
    let mut head = format!("{} {} HTTP/1.1\r\nhost: x\r\n", text("method"), text("path"));
    head += &format!("connection: close\r\ncontent-length: {}\r\n", body.len());
    if let Some(kind) = line["type"].as_str() {
        head += &format!("content-type: {kind}\r\n");
    }
    if let Some(token) = token_of(line) {
        head += &format!("authorization: Bearer {token}\r\n");
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[format!("{head}\r\n").as_bytes(), body].concat()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8_lossy(&answer[..end]);
    (head.split(' ').nth(1).unwrap().parse().unwrap(), answer[end + 4..].to_vec())
}

/// A token with the recorded claims, which ends when it should.
fn token_of(line: &Value) -> Option<String> {
    let claims = serde_json::from_value::<Claims>(line["claims"].clone()).ok()?;
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let expires_in = line["expires_in"].as_i64().unwrap_or(600);
    let exp = unix.as_secs().checked_add_signed(expires_in);
    let secret = line["secret"].as_str().unwrap_or("secret");
    Some(token::sign(&Claims { exp, ..claims }, "devkey", secret))
}

/// What this server answers where it means to differ: status, and code of an error.
fn intended(note: &str, path: &str, request: &Value) -> Option<(u16, &'static str)> {
    if note == "ListDispatch: list absent room" {
        // At once, since it is known that there is no such room.
        return Some((404, "not_found"));
    }
    if !note.contains("with its grant") || path.ends_with("CreateSIPParticipant") {
        return None;
    }
    // Ingress and SIP objects need no Redis.
    let (service, method) = path.strip_prefix("/twirp/livekit.")?.split_once('/')?;
    let is_empty = request.as_object().is_none_or(serde_json::Map::is_empty);
    Some(match (service, method) {
        ("Ingress" | "SIP", list) if list.starts_with("List") => (200, ""),
        ("SIP", "TransferSIPParticipant") => return None,
        ("Ingress", "UpdateIngress" | "DeleteIngress") => (404, "not_found"),
        ("Ingress" | "SIP", _) if is_empty => (400, "invalid_argument"),
        ("Ingress", "CreateIngress") | ("SIP", "DeleteSIPTrunk") => (200, ""),
        ("SIP", create) if create.starts_with("Create") => (200, ""),
        ("SIP", _) => (404, "not_found"),
        _ => return None,
    })
}

/// What differs from run to run, or with the configuration of the recorded server.
const MASKED: [&str; 11] = [
    "id",
    "sid",
    "created_at",
    "creation_time",
    "creation_time_ms",
    "joined_at",
    "joined_at_ms",
    "turn_password",
    "departure_timeout",
    "enabled_codecs",
    "agent_dispatches",
];

fn compare(recorded: &Value, ours: &Value, at: &str) {
    match (recorded, ours) {
        (Value::Object(recorded), Value::Object(ours)) => {
            let keys = |object: &serde_json::Map<String, Value>| {
                let mut keys: Vec<String> = object.keys().cloned().collect();
                keys.sort();
                keys
            };
            assert_eq!(keys(recorded), keys(ours), "{at}");
            for (key, value) in recorded.iter().filter(|(key, _)| !MASKED.contains(&&***key)) {
                compare(value, &ours[key], &format!("{at}.{key}"));
            }
            if let Some(listed) = recorded.get("agent_dispatches") {
                compare_dispatches(listed, &ours["agent_dispatches"], at);
            }
        }
        (Value::Array(recorded), Value::Array(ours)) => {
            assert_eq!(recorded.len(), ours.len(), "{at}");
            for (recorded, ours) in recorded.iter().zip(ours) {
                compare(recorded, ours, at);
            }
        }
        (recorded, ours) => assert_eq!(recorded, ours, "{at}"),
    }
}

/// LiveKit lists them in no order.
fn compare_dispatches(recorded: &Value, ours: &Value, at: &str) {
    let sorted = |list: &Value| {
        let mut list = list.as_array().unwrap().clone();
        list.sort_by_key(|dispatch| dispatch["state"]["created_at"].as_str().map(str::to_owned));
        list
    };
    let (recorded, ours) = (sorted(recorded), sorted(ours));
    assert_eq!(recorded.len(), ours.len(), "{at}");
    for (recorded, ours) in recorded.iter().zip(&ours) {
        compare(recorded, ours, at);
    }
}

fn json_or_text(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap_or_else(|_| json!(String::from_utf8_lossy(body)))
}

#[tokio::test]
async fn recorded_calls_are_answered_as_recorded() {
    let address = server().await;
    // Ids of the recorded server, and what ours gave instead.
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    let mut seen = 0;
    for line in include_str!("fixtures/09-twirp.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let (note, path) = (line["note"].as_str().unwrap(), line["path"].as_str().unwrap());
        let at = format!("{note} ({path})");
        let mut body = match &line["request"] {
            Value::String(text) => text.clone(),
            json => json.to_string(),
        };
        for (recorded, ours) in &ids {
            body = body.replace(recorded, ours);
        }
        let (status, answer) = ask(address, &line, body.as_bytes()).await;
        let ours = json_or_text(&answer);
        seen += 1;
        if let Some((wanted, code)) = intended(note, path, &line["request"]) {
            assert_eq!(
                (wanted, code),
                (status, ours["code"].as_str().unwrap_or("")),
                "{at}: {ours}"
            );
            // Whatever it is, it is written out.
            assert!(ours.as_object().is_some_and(|object| !object.is_empty()), "{at}: {ours}");
            continue;
        }
        assert_eq!(line["status"], status, "{at}: {ours}");
        compare(&line["body"], &ours, &at);
        if let (Some(recorded), Some(ours)) = (line["body"]["id"].as_str(), ours["id"].as_str()) {
            assert_eq!(recorded[..3], ours[..3], "{at}");
            ids.insert(recorded.to_owned(), ours.to_owned());
        }
    }
    assert_eq!(seen, 174);
}

/// The recorder left out most of what is long: `mmm...(70000 m)`.
fn in_full(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let Some((start, rest)) = text.split_once("...(") else { return value.clone() };
            let count = rest.split(' ').next().unwrap().parse().unwrap();
            json!(start[..1].repeat(count))
        }
        Value::Object(object) => {
            object.iter().map(|(key, value)| (key.clone(), in_full(value))).collect()
        }
        Value::Array(list) => list.iter().map(in_full).collect(),
        other => other.clone(),
    }
}

/// A client that joins, says what was recorded, and reads nothing.
async fn join(address: SocketAddr, line: &Value) -> TcpStream {
    let (path, token) = (line["opens"].as_str().unwrap(), token_of(line).unwrap());
    let head = format!(
        "GET {path}&access_token={token} HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    assert_eq!(&status, b"HTTP/1.1 101");
    stream
}

async fn say(stream: &mut TcpStream, message: &[u8]) {
    // One binary frame under a mask of zeros.
    let head = [0x82, 0x80 | u8::try_from(message.len()).unwrap(), 0, 0, 0, 0];
    stream.write_all(&[&head[..], message].concat()).await.unwrap();
}

/// The sid of the track that the client is told of.
async fn published(stream: &mut TcpStream) -> String {
    const LENGTH: usize = "TR_AM".len() + 12;
    let mut heard = Vec::new();
    loop {
        let found = heard.windows(LENGTH).find(|window| window.starts_with(b"TR_AM"));
        if let Some(sid) = found {
            return String::from_utf8(sid.to_vec()).unwrap();
        }
        let read = stream.read_buf(&mut heard);
        let read = tokio::time::timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
        assert!(read > 0, "the socket has ended");
    }
}

/// What this server answers about rooms where it means to differ.
fn intended_of_rooms(line: &Value) -> Option<(u16, &'static str)> {
    // At once, since it is known that there is nobody.
    (line["status"] == 503).then_some((404, "not_found"))
}

fn by_name(mut answer: Value) -> Value {
    for list in ["rooms", "participants"] {
        if let Some(list) = answer.get_mut(list).and_then(Value::as_array_mut) {
            // A room that an earlier trace had left on the recorded server.
            list.retain(|item| item["name"] != "w");
            list.sort_by_key(|item| item["name"].as_str().map(str::to_owned));
        }
    }
    answer
}

#[tokio::test]
async fn recorded_calls_about_rooms_are_answered_as_recorded() {
    let address = server().await;
    let mut client = None;
    let mut track = (String::new(), String::new());
    let mut seen = 0;
    for line in include_str!("fixtures/09-twirp-room-service.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        if line.get("opens").is_some() {
            client = Some(join(address, &line).await);
            continue;
        }
        if let Some(message) = line["sends"].as_str() {
            let message = BASE64_STANDARD.decode(message).unwrap();
            say(client.as_mut().unwrap(), &message).await;
            continue;
        }
        let (note, path) = (line["note"].as_str().unwrap(), line["path"].as_str().unwrap());
        if note.contains("with destinationRoom grant") {
            // LiveKit cannot; here somebody would be elsewhere from now on.
            continue;
        }
        let at = format!("{note} ({path})");
        let mut body = match &line["request"] {
            Value::String(text) => text.clone().into_bytes(),
            bytes if bytes.get("base64").is_some() => {
                BASE64_STANDARD.decode(bytes["base64"].as_str().unwrap()).unwrap()
            }
            json => in_full(json).to_string().into_bytes(),
        };
        if let Some(recorded) = line["request"]["trackSid"].as_str().filter(|s| s.len() > 10) {
            if track.0 != recorded {
                track = (recorded.to_owned(), published(client.as_mut().unwrap()).await);
            }
            let text = String::from_utf8(body).unwrap();
            body = text.replace(&track.0, &track.1).into_bytes();
        }
        let (status, answer) = ask(address, &line, &body).await;
        seen += 1;
        let ours = json_or_text(&answer);
        if let Some(intended) = intended_of_rooms(&line) {
            assert_eq!(intended, (status, ours["code"].as_str().unwrap_or("")), "{at}: {ours}");
            continue;
        }
        assert_eq!(line["status"], status, "{at}: {ours}");
        if line["body"].get("base64").is_none() {
            compare(&by_name(in_full(&line["body"])), &by_name(ours), &at);
        }
    }
    assert_eq!(seen, 109);
}
