//! The gateway on loopback, with a node that says what the test wants.
#![allow(clippy::unwrap_used, missing_docs)]

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Buf, Bytes, BytesMut};
use livekit_protocol as proto;
use parlor_gateway::{Gateway, websocket};
use parlor_node::{
    api::{ApiError, ApiErrorCode, ApiRequest, ApiResponse},
    io::{Frame, Input, Output, SessionId},
};
use parlor_signal::{Claims, token};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// A gateway whose inputs the test reads itself.
async fn gateway() -> (Gateway, SocketAddr, mpsc::Receiver<Input>) {
    let keys = [("devkey".to_owned(), "secret".to_owned())].into_iter().collect();
    let (inputs, node) = mpsc::channel(64);
    let gateway = Gateway::new(keys, inputs);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(gateway.clone().serve(listener));
    (gateway, address, node)
}

/// A gateway whose node accepts, echoes, and answers API calls.
async fn with_echo() -> (Gateway, SocketAddr) {
    let (gateway, address, mut node) = gateway().await;
    let deliver = gateway.clone();
    tokio::spawn(async move {
        while let Some(input) = node.recv().await {
            match input {
                Input::Connect { session, .. } | Input::Validate { session, .. } => {
                    deliver.deliver(Output::Accept { session })
                }
                Input::Frame { session, frame } => {
                    deliver.deliver(Output::Frame { session, frame })
                }
                Input::Api { call, claims, request } => {
                    let result = if claims.is_none() { Err(denied()) } else { api(*request) };
                    deliver.deliver(Output::Reply { call, result: result.into() });
                }
                _ => {}
            }
        }
    });
    (gateway, address)
}

fn denied() -> ApiError {
    ApiError {
        code: ApiErrorCode::Unauthenticated,
        message: "permissions denied".into(),
        argument: None,
    }
}

fn api(request: ApiRequest) -> Result<ApiResponse, ApiError> {
    match request {
        ApiRequest::CreateRoom(request) => {
            Ok(ApiResponse::Room(proto::Room { name: request.name, ..Default::default() }))
        }
        ApiRequest::ListRooms(_) => Ok(ApiResponse::Rooms(Default::default())),
        _ => Err(ApiError {
            code: ApiErrorCode::NotFound,
            message: "nothing here".into(),
            argument: None,
        }),
    }
}

fn good_token() -> String {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let video = serde_json::from_str(r#"{"roomJoin":true,"room":"r","roomCreate":true}"#).unwrap();
    let claims = Claims {
        sub: "ann".into(),
        exp: Some(unix + 600),
        video: Some(video),
        ..Claims::default()
    };
    token::sign(&claims, "devkey", "secret")
}

struct Answer {
    status: u16,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

fn parse_answer(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let head = std::str::from_utf8(&bytes[..end]).unwrap();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers = lines
        .map(|line| line.split_once(": ").unwrap())
        .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
        .collect();
    Answer { status, headers, body: bytes[end + 4..].to_vec() }
}

async fn ask(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(String, String)],
    body: &[u8],
) -> Answer {
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    if !body.is_empty() || method == "POST" {
        head += &format!("content-length: {}\r\n", body.len());
    }
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(format!("{head}\r\n").as_bytes()).await.unwrap();
    let _ = stream.write_all(body).await;
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    parse_answer(&answer)
}

fn bearer() -> (String, String) {
    ("authorization".into(), format!("Bearer {}", good_token()))
}

#[tokio::test]
async fn recorded_requests_are_answered_as_recorded() {
    let (_gateway, address) = with_echo().await;
    for line in include_str!("fixtures/recorded-http.jsonl").lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let mut headers: Vec<(String, String)> = line["headers"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect();
        match line["token"].as_str() {
            Some("good") => headers.push(bearer()),
            Some(_) => headers.push(("authorization".into(), "Bearer abc".into())),
            None => {}
        }
        let body = match &line["body"] {
            Value::String(body) => body.clone().into_bytes(),
            body => BASE64_STANDARD.decode(body["base64"].as_str().unwrap()).unwrap(),
        };
        let (method, path) = (line["method"].as_str().unwrap(), line["path"].as_str().unwrap());
        let answer = ask(address, method, path, &headers, &body).await;
        assert_eq!(line["status"], answer.status, "{line}");
        for (name, value) in line["answer_headers"].as_object().unwrap() {
            assert_eq!(
                answer.headers.get(name).map(String::as_str),
                value.as_str(),
                "{name} of {line}"
            );
        }
        match &line["answer"] {
            Value::String(text) => assert_eq!(text.as_bytes(), answer.body, "{line}"),
            json => {
                assert_eq!(json, &serde_json::from_slice::<Value>(&answer.body).unwrap(), "{line}")
            }
        }
    }
}

#[tokio::test]
async fn validate_works_by_query_header_form_and_unclean_path() {
    let (_gateway, address) = with_echo().await;
    let by_query = format!("/rtc/validate?access_token={}", good_token());
    for path in [by_query.clone(), format!("/{by_query}")] {
        let answer = ask(address, "GET", &path, &[], b"").await;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"success"[..]), "{path}");
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
    }
    assert_eq!(ask(address, "GET", "/rtc/validate", &[bearer()], b"").await.status, 200);
    let form = ("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned());
    let body = format!("access_token={}", good_token());
    assert_eq!(ask(address, "POST", "/rtc/validate", &[form], body.as_bytes()).await.status, 200);
    let answer =
        ask(address, "GET", &format!("//rtc//validate?access_token={}", good_token()), &[], b"")
            .await;
    assert_eq!(answer.status, 307);
    assert!(answer.headers["location"].starts_with("/rtc/validate?access_token="));
    for path in ["/rtc/", "/rtc/v2"] {
        assert_eq!(ask(address, "GET", path, &[bearer()], b"").await.body, b"404 page not found\n");
    }
    let answer = ask(address, "GET", "/rtc", &[bearer()], b"").await;
    assert_eq!((answer.status, answer.body.len()), (404, 0));
}

#[tokio::test]
async fn twirp_speaks_json_and_protobuf() {
    use prost::Message;
    let (_gateway, address) = with_echo().await;
    let path = "/twirp/livekit.RoomService/CreateRoom";
    let kind = |kind: &str| ("content-type".to_owned(), kind.to_owned());
    let json =
        ask(address, "POST", path, &[bearer(), kind("application/json")], br#"{"name":"x"}"#).await;
    let room: Value = serde_json::from_slice(&json.body).unwrap();
    assert_eq!((json.status, &room["name"], &room["version"]), (200, &"x".into(), &Value::Null));
    let request =
        proto::CreateRoomRequest { name: "y".into(), ..Default::default() }.encode_to_vec();
    let protobuf =
        ask(address, "POST", path, &[bearer(), kind("application/protobuf")], &request).await;
    assert_eq!(proto::Room::decode(&protobuf.body[..]).unwrap().name, "y");
    assert_eq!(protobuf.headers["content-type"], "application/protobuf");
    let refused = ask(address, "POST", path, &[kind("application/protobuf")], &request).await;
    assert_eq!(refused.status, 401);
    assert_eq!(refused.body, br#"{"code":"unauthenticated","msg":"permissions denied"}"#);
}

#[tokio::test]
async fn bodies_over_the_limit_are_refused() {
    let (_gateway, address) = with_echo().await;
    let path = "/twirp/livekit.RoomService/CreateRoom";
    let json = ("content-type".to_owned(), "application/json".to_owned());
    let most = format!(r#"{{"name":"x"{}}}"#, " ".repeat((10 << 20) - 12));
    assert_eq!(most.len(), 10 << 20);
    assert_eq!(
        ask(address, "POST", path, &[bearer(), json.clone()], most.as_bytes()).await.status,
        200
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
        most.len() + 1
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!(parse_answer(&answer).status, 413);
}

/// A WebSocket client that shows what is on the wire.
struct Client {
    stream: TcpStream,
    input: BytesMut,
    extensions: Option<String>,
}

impl Client {
    async fn connect(address: SocketAddr, extensions: &str) -> Result<Client, Answer> {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!(
            "GET /rtc?protocol=16&access_token={} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\n\
             upgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-extensions: {extensions}\r\n\r\n",
            good_token()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut input = BytesMut::new();
        while !input.windows(4).any(|four| four == b"\r\n\r\n") {
            assert!(timeout(PATIENCE, stream.read_buf(&mut input)).await.unwrap().unwrap() > 0);
        }
        let answer = parse_answer(&input);
        if answer.status != 101 {
            return Err(answer);
        }
        assert_eq!(answer.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        input.advance(input.len() - answer.body.len());
        let extensions = answer.headers.get("sec-websocket-extensions").cloned();
        Ok(Client { stream, input, extensions })
    }

    async fn send(&mut self, first: u8, payload: &[u8]) {
        let mut frame = vec![first];
        match payload.len() {
            length @ 0..126 => frame.push(0x80 | length as u8),
            length @ 126..0x1_0000 => {
                frame.push(0xfe);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                frame.push(0xff);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(payload);
        let _ = self.stream.write_all(&frame).await;
    }

    /// First byte and payload of the next frame; `None` at the end of the connection.
    async fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some(frame) = self.take() {
                return Some(frame);
            }
            match timeout(PATIENCE, self.stream.read_buf(&mut self.input)).await.unwrap() {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
        let header_bytes = match self.input.get(1)? {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let length = match header_bytes {
            2 => usize::from(self.input[1]),
            _ => self
                .input
                .get(2..header_bytes)?
                .iter()
                .fold(0, |sum, byte| sum << 8 | usize::from(*byte)),
        };
        if self.input.len() < header_bytes + length {
            return None;
        }
        let first = self.input[0];
        self.input.advance(header_bytes);
        Some((first, self.input.split_to(length).to_vec()))
    }
}

const CLOSE: u8 = 0x88;
const DEFLATE: &str = "permessage-deflate; client_max_window_bits";

#[tokio::test]
async fn messages_go_both_ways_compressed_and_plain() {
    let (_gateway, address) = with_echo().await;
    let mut client = Client::connect(address, DEFLATE).await.ok().unwrap();
    let extensions = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    assert_eq!(client.extensions.as_deref(), Some(extensions));
    let long = "a long description of a session ".repeat(600);
    for _ in 0..3 {
        client.send(0xc1, &websocket::compress(long.as_bytes()).unwrap()).await;
        let (first, payload) = client.receive().await.unwrap();
        assert_eq!(first, 0xc1);
        assert_eq!(&websocket::inflate(&payload, 1 << 20).unwrap()[..], long.as_bytes());
    }
    client.send(0x82, b"short").await;
    assert_eq!(client.receive().await.unwrap(), (0x82, b"short".to_vec()));
    client.send(0x89, b"are you there").await;
    assert_eq!(client.receive().await.unwrap(), (0x8a, b"are you there".to_vec()));

    let mut plain = Client::connect(address, "").await.ok().unwrap();
    assert_eq!(plain.extensions, None);
    plain.send(0x81, long.as_bytes()).await;
    assert_eq!(plain.receive().await.unwrap(), (0x81, long.into_bytes()));
}

#[tokio::test]
async fn oversized_and_broken_frames_end_the_socket_alone() {
    let (gateway, address) = with_echo().await;
    let mut neighbour = Client::connect(address, DEFLATE).await.ok().unwrap();
    let bomb = websocket::compress(&vec![0; websocket::MAX_MESSAGE_BYTES + 1]).unwrap();
    let cases: [(u8, Vec<u8>, u16); 4] = [
        (0xc2, bomb, 1009),
        (0x82, vec![0; websocket::MAX_MESSAGE_BYTES + 1], 1009),
        (0x81, vec![0xff], 1007),
        (0x83, vec![], 1002),
    ];
    for (first, payload, code) in cases {
        let mut client = Client::connect(address, DEFLATE).await.ok().unwrap();
        client.send(first, &payload).await;
        let answer = client.receive().await;
        // The kernel may reset the connection when bytes of an oversized frame are left unread.
        if let Some((first, payload)) = answer {
            assert_eq!((first, payload), (CLOSE, code.to_be_bytes().to_vec()));
        } else {
            assert_eq!(code, 1009);
        }
    }
    neighbour.send(0x82, b"still here").await;
    assert_eq!(neighbour.receive().await.unwrap().1, b"still here");
    drop(neighbour);
    timeout(PATIENCE, gateway.drained()).await.unwrap();
}

async fn connected(node: &mut mpsc::Receiver<Input>) -> SessionId {
    match timeout(PATIENCE, node.recv()).await.unwrap().unwrap() {
        Input::Connect { session, request } => {
            assert_eq!(
                (request.room(), request.claims.identity(), request.protocol),
                ("r", "ann", 16)
            );
            session
        }
        other => panic!("{other:?}"),
    }
}

async fn closed(node: &mut mpsc::Receiver<Input>, expected: SessionId) {
    loop {
        match timeout(PATIENCE, node.recv()).await.unwrap().unwrap() {
            Input::Closed { session } if session == expected => return,
            _ => {}
        }
    }
}

#[tokio::test]
async fn the_node_refuses_with_plain_http() {
    let (gateway, address, mut node) = gateway().await;
    let client = tokio::spawn(Client::connect(address, DEFLATE));
    let session = connected(&mut node).await;
    gateway.deliver(Output::Refuse {
        session,
        status: 500,
        body: "connection closed by media".into(),
    });
    let answer = client.await.unwrap().err().unwrap();
    assert_eq!((answer.status, &answer.body[..]), (500, &b"connection closed by media"[..]));
    assert_eq!(answer.headers["content-type"], "text/plain; charset=utf-8");
    closed(&mut node, session).await;
}

#[tokio::test]
async fn what_was_sent_before_the_close_arrives_before_it() {
    let (gateway, address, mut node) = gateway().await;
    let client = tokio::spawn(Client::connect(address, DEFLATE));
    let session = connected(&mut node).await;
    gateway.deliver(Output::Accept { session });
    for byte in 0..100 {
        gateway.deliver(Output::Frame { session, frame: Frame::Binary(Bytes::from(vec![byte])) });
    }
    gateway.deliver(Output::Close { session });
    gateway.deliver(Output::Frame { session, frame: Frame::Text("too late".into()) });
    let mut client = client.await.unwrap().ok().unwrap();
    for byte in 0..100 {
        assert_eq!(client.receive().await.unwrap(), (0x82, vec![byte]));
    }
    assert_eq!(client.receive().await.unwrap(), (CLOSE, 1000u16.to_be_bytes().to_vec()));
    drop(client);
    closed(&mut node, session).await;
    assert_eq!(gateway.sockets(), 0);
}

#[tokio::test]
async fn a_client_that_gives_up_while_the_node_thinks_is_reported() {
    let (gateway, address, mut node) = gateway().await;
    let client = tokio::spawn(Client::connect(address, DEFLATE));
    let session = connected(&mut node).await;
    client.abort();
    closed(&mut node, session).await;
    assert_eq!(gateway.sockets(), 0);
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off_and_nobody_else() {
    let (gateway, address, mut node) = gateway().await;
    let slow = tokio::spawn(Client::connect(address, ""));
    let slow_session = connected(&mut node).await;
    gateway.deliver(Output::Accept { session: slow_session });
    let slow = slow.await.unwrap().ok().unwrap();
    let other = tokio::spawn(Client::connect(address, ""));
    let other_session = connected(&mut node).await;
    gateway.deliver(Output::Accept { session: other_session });
    let mut other = other.await.unwrap().ok().unwrap();

    let message = Bytes::from(vec![0; 64 << 10]);
    let mut cut_off = false;
    for _ in 0..10_000 {
        gateway.deliver(Output::Frame {
            session: slow_session,
            frame: Frame::Binary(message.clone()),
        });
        tokio::task::yield_now().await;
        if let Ok(Input::Closed { session }) = node.try_recv() {
            assert_eq!(session, slow_session);
            cut_off = true;
            break;
        }
    }
    assert!(cut_off);
    gateway.deliver(Output::Frame { session: other_session, frame: Frame::Text("hello".into()) });
    assert_eq!(other.receive().await.unwrap().1, b"hello");
    drop(slow);
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// 100 KiB per participant is what all of the server may take; its socket only a part of it.
#[tokio::test]
async fn an_idle_socket_holds_little_memory() {
    const SOCKETS: usize = 400;
    // In a process of its own, since what other tests hold would be counted too.
    if std::env::var_os("ALONE").is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        alone.args(["--exact", "an_idle_socket_holds_little_memory"]).env("ALONE", "1");
        assert!(alone.status().unwrap().success());
        return;
    }
    let (gateway, address) = with_echo().await;
    let mut clients = Vec::new();
    let mut before = 0;
    for number in 0..SOCKETS + 20 {
        if number == 20 {
            before = resident_bytes();
        }
        let mut client = Client::connect(address, DEFLATE).await.ok().unwrap();
        let message = vec![7; 20_000];
        client.send(0x82, &message).await;
        client.receive().await.unwrap();
        client.input = BytesMut::new();
        clients.push(client);
    }
    assert_eq!(gateway.sockets(), SOCKETS + 20);
    let each = resident_bytes().saturating_sub(before) / SOCKETS;
    println!("{each} bytes per idle socket");
    // Some 8 KiB on a quiet machine. On a busy one the allocator keeps more of what passed through.
    assert!(each < 64 << 10, "{each} bytes per idle socket");
}
