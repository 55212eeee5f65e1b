//! The recorded Twirp exchanges of trace 09 about dispatches, egress, ingress, SIP and services
//! that are nowhere, asked of this server: status, code and body field by field. What differs
//! on purpose is named in [`intended`].
#![allow(clippy::unwrap_used, missing_docs)]

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
    let config = NodeConfig {
        api_keys: keys(),
        region: String::new(),
        ice_servers: Vec::new(),
        room: Default::default(),
        codecs: Vec::new(),
        shards: Vec::new(),
        fingerprint: parlor_model::Fingerprint { algorithm: "sha-256".into(), digest: vec![7; 32] },
        ice_lite: true,
        tcp: Default::default(),
        enable_remote_unmute: false,
        room_rules: Default::default(),
        limits: Default::default(),
    };
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

async fn ask(address: SocketAddr, line: &Value, body: &str) -> (u16, String) {
    let text = |key: &str| line[key].as_str().unwrap();
    let mut head = format!("{} {} HTTP/1.1\r\nhost: x\r\n", text("method"), text("path"));
    head += &format!("connection: close\r\ncontent-length: {}\r\n", body.len());
    head += &format!("content-type: {}\r\n", text("type"));
    if let Ok(claims) = serde_json::from_value::<Claims>(line["claims"].clone()) {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let claims = Claims { exp: Some(unix.as_secs() + 600), ..claims };
        let token = token::sign(&claims, "devkey", "secret");
        head += &format!("authorization: Bearer {token}\r\n");
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(20), read).await.unwrap().unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
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
const MASKED: [&str; 9] = [
    "id",
    "sid",
    "created_at",
    "creation_time",
    "creation_time_ms",
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
        let (status, answer) = ask(address, &line, &body).await;
        let ours: Value = serde_json::from_str(&answer).unwrap_or(json!(answer));
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
