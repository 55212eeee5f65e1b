//! Requests as attackers write them: each is refused, the node hears of none, and none costs
//! others anything.
#![allow(clippy::unwrap_used, missing_docs)]

use aws_lc_rs::hmac;
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use parlor_gateway::Gateway;
use parlor_node::{
    api::{ApiError, ApiErrorCode},
    io::{Input, Output},
};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::timeout,
};

const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "a secret of more than thirty-two characters";

/// A gateway, and how often its node was asked something.
async fn gateway() -> (SocketAddr, Arc<AtomicUsize>) {
    let keys = [("key".to_owned(), SECRET.to_owned())].into_iter().collect();
    let (inputs, mut node) = mpsc::channel(64);
    let gateway = Gateway::new(keys, inputs);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(gateway.clone().serve(listener));
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        while let Some(input) = node.recv().await {
            match input {
                Input::Connect { session, .. } | Input::Validate { session, .. } => {
                    count.fetch_add(1, Ordering::Relaxed);
                    gateway.deliver(Output::Accept { session });
                }
                Input::Api { call, claims, .. } => {
                    // The node refuses who has no grants; that is its own test.
                    count.fetch_add(usize::from(claims.is_some()), Ordering::Relaxed);
                    let message = "permissions denied".to_owned();
                    let code = ApiErrorCode::Unauthenticated;
                    let result = Err(ApiError { code, message, argument: None });
                    gateway.deliver(Output::Reply { call, result: result.into() });
                }
                _ => {}
            }
        }
    });
    (address, asked)
}

fn unix() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn good_claims() -> Value {
    let video = json!({ "roomJoin": true, "room": "r", "roomCreate": true });
    json!({ "iss": "key", "sub": "ann", "exp": unix() + 600, "video": video })
}

/// A token whose header and payload are any text, correctly signed in the given way.
fn signed(header: &str, payload: &str, algorithm: hmac::Algorithm, secret: &str) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let text = format!("{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(algorithm, secret.as_bytes()), text.as_bytes());
    format!("{text}.{}", encode(tag.as_ref()))
}

fn token(claims: &Value) -> String {
    signed(r#"{"alg":"HS256","typ":"JWT"}"#, &claims.to_string(), hmac::HMAC_SHA256, SECRET)
}

fn with(change: impl FnOnce(&mut Value)) -> String {
    let mut claims = good_claims();
    change(&mut claims);
    token(&claims)
}

/// Sends bytes as they are, and reads until the server closes or falls silent for a while.
async fn raw(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.write_all(request).await;
    let mut answer = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0)
}

async fn get(address: SocketAddr, target: &str, headers: &str) -> String {
    let request =
        format!("GET {target} HTTP/1.1\r\nhost: x\r\nconnection: close, upgrade\r\n{headers}\r\n");
    raw(address, request.as_bytes()).await
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

fn bad_tokens() -> Vec<(&'static str, String)> {
    const HS256: &str = r#"{"alg":"HS256","typ":"JWT"}"#;
    let good = token(&good_claims());
    let payload = good_claims().to_string();
    let parts: Vec<&str> = good.split('.').collect();
    let none = BASE64_URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let twice = payload.replace("\"sub\":\"ann\"", "\"sub\":\"ann\",\"sub\":\"root\"");
    let other_video = payload.replace("\"exp\"", "\"video\":{\"roomAdmin\":true},\"exp\"");
    let grant_twice =
        payload.replace("\"roomJoin\":true", "\"roomJoin\":true,\"room\":\"s\",\"room\":\"r\"");
    let exp_twice = payload.replace("\"exp\"", "\"exp\":9999999999,\"exp\"");
    let iss_twice = payload.replace("\"iss\"", "\"iss\":\"other\",\"iss\"");
    for doubled in [&twice, &other_video, &grant_twice, &exp_twice, &iss_twice] {
        assert_ne!(*doubled, payload);
    }
    let sign = |header: &str, payload: &str| signed(header, payload, hmac::HMAC_SHA256, SECRET);
    vec![
        ("alg none, unsigned", format!("{none}.{}.", parts[1])),
        ("alg none, signature kept", format!("{none}.{}.{}", parts[1], parts[2])),
        ("alg None, signed", sign(r#"{"alg":"None"}"#, &payload)),
        ("alg RS256 over the secret", sign(r#"{"alg":"RS256"}"#, &payload)),
        ("HS512", signed(r#"{"alg":"HS512"}"#, &payload, hmac::HMAC_SHA512, SECRET)),
        ("HS384 named HS256", signed(HS256, &payload, hmac::HMAC_SHA384, SECRET)),
        ("no algorithm", sign("{}", &payload)),
        ("another secret", signed(HS256, &payload, hmac::HMAC_SHA256, "guess")),
        ("an empty secret", signed(HS256, &payload, hmac::HMAC_SHA256, "")),
        ("no signature", format!("{}.{}.", parts[0], parts[1])),
        ("two parts", format!("{}.{}", parts[0], parts[1])),
        ("four parts", format!("{good}.{}", parts[2])),
        ("another payload", format!("{}.{}.{}", parts[0], &with(|_| ())[..40], parts[2])),
        ("padded", format!("{good}=")),
        ("sub twice", sign(HS256, &twice)),
        ("video twice", sign(HS256, &other_video)),
        ("a grant twice", sign(HS256, &grant_twice)),
        ("expiry twice", sign(HS256, &exp_twice)),
        ("issuer twice", sign(HS256, &iss_twice)),
        ("algorithm twice", sign(r#"{"alg":"none","alg":"HS256"}"#, &payload)),
        ("not an object", sign(HS256, "[]")),
        ("expired", with(|claims| claims["exp"] = json!(unix() - 120))),
        ("not valid yet", with(|claims| claims["nbf"] = json!(unix() + 120))),
        ("no expiry", with(|claims| drop(claims.as_object_mut().unwrap().remove("exp")))),
        ("expiry as text", with(|claims| claims["exp"] = json!("9999999999"))),
        ("expiry below zero", with(|claims| claims["exp"] = json!(-1))),
        ("unknown key", with(|claims| claims["iss"] = json!("other"))),
        ("no key", with(|claims| claims["iss"] = json!(""))),
        ("key as list", with(|claims| claims["iss"] = json!(["key"]))),
        ("no join", with(|claims| claims["video"]["roomJoin"] = json!(false))),
        ("no grants", with(|claims| drop(claims.as_object_mut().unwrap().remove("video")))),
        ("nested too deep", sign(HS256, &format!("{{\"a\":{}", "[".repeat(5_000)))),
    ]
}

#[tokio::test]
async fn tokens_that_are_not_good_never_reach_the_node() {
    let (address, asked) = gateway().await;
    for (what, token) in bad_tokens() {
        for path in ["/rtc/validate", "/rtc/v1/validate", "/rtc"] {
            let upgrade = "upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
            let upgrade = if path == "/rtc" { upgrade } else { "" };
            let expected = if path == "/rtc/v1/validate" { vec![401, 400] } else { vec![401] };
            let answer = get(address, path, &format!("{upgrade}{}", bearer(&token))).await;
            assert!(expected.contains(&status(&answer)), "{what} at {path}: {answer}");
            let query = format!("{path}?access_token={token}");
            let answer = get(address, &query, upgrade).await;
            assert!(expected.contains(&status(&answer)), "{what} at {path}: {answer}");
        }
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    let answer = get(address, "/rtc/validate", &bearer(&token(&good_claims()))).await;
    assert_eq!((status(&answer), asked.load(Ordering::Relaxed)), (200, 1));
}

#[tokio::test]
async fn a_bad_header_is_not_saved_by_a_good_parameter() {
    let (address, asked) = gateway().await;
    let good = token(&good_claims());
    let target = format!("/rtc/validate?access_token={good}");
    for header in [bearer("x.y.z"), "authorization: Basic a2V5OnNlY3JldA==\r\n".to_owned()] {
        assert_eq!(status(&get(address, &target, &header).await), 401);
    }
    // Which of two counts, nobody has to guess.
    let (bad, good) = (bearer("x.y.z"), bearer(&good));
    for twice in [format!("{bad}{good}"), format!("{good}{bad}"), format!("{good}{good}")] {
        assert_eq!(status(&get(address, "/rtc/validate", &twice).await), 400);
    }
    assert_eq!(status(&get(address, "/rtc/validate", &format!("{good}host: y\r\n")).await), 400);
    let bare = format!("GET /rtc/validate HTTP/1.1\r\nconnection: close\r\n{good}\r\n");
    assert_eq!(status(&raw(address, bare.as_bytes()).await), 400);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    // Probes of load balancers know no hosts.
    assert_eq!(status(&raw(address, b"GET / HTTP/1.0\r\n\r\n").await), 200);
}

#[tokio::test]
async fn paths_cannot_be_dressed_up() {
    let (address, asked) = gateway().await;
    let good = bearer(&token(&good_claims()));
    for path in [
        "/twirp/livekit.RoomService/../livekit.RoomService/ListRooms",
        "/twirp/livekit.RoomService/%4cistRooms",
        "/twirp/livekit.RoomService/ListRooms/",
        "/twirp/livekit.RoomService/ListRooms%00",
        "/twirp/livekit.RoomService%2fListRooms",
        "/TWIRP/livekit.RoomService/ListRooms",
        "/twirp/livekit.RoomService/ListRooms;a=b",
        "/rtc%2fvalidate",
        "/rtc/validate/",
        "/rtc/validate%00",
        "/rtc/../rtc/validate",
        "/./rtc/validate",
        "/debug/../debug/rooms",
        "/debug%2frooms",
        "http://elsewhere.example/nothing",
        "/../../../../etc/passwd",
        "//../twirp/livekit.RoomService/ListRooms",
        "///twirp/livekit.RoomService/ListRooms",
        "/%2e%2e/twirp/livekit.RoomService/ListRooms",
        "/twirp/%2e%2e/twirp/livekit.RoomService/ListRooms",
        "/twirp/livekit.RoomService/ListRooms.",
        "/twirp/livekit.RoomService./ListRooms",
        "/twirp/livekit.RoomService/%2e/ListRooms",
        "/twirp/livekit.RoomService//ListRooms",
        "/twirp\\livekit.RoomService\\ListRooms",
        "/rtc/validate.",
        "/rtc/validate%20",
        "/rtc/%2e%2e/debug/rooms",
    ] {
        let answer = get(address, path, &good).await;
        assert!(matches!(status(&answer), 307 | 400 | 404), "{path}: {answer}");
    }
    for path in ["/debug/rooms", "/twirp/livekit.RoomService/ListRooms"] {
        let answer = get(address, path, "").await;
        assert!(matches!(status(&answer), 401 | 404), "{path}: {answer}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn requests_cannot_be_smuggled() {
    let (address, asked) = gateway().await;
    let good = bearer(&token(&good_claims()));
    let hidden = "GET /rtc/validate HTTP/1.1\r\nhost: x\r\n\r\n";
    for (what, head, body) in [
        ("two lengths", "content-length: 0\r\ncontent-length: 40\r\n", hidden),
        ("a length with a sign", "content-length: +5\r\n", "hello"),
        ("a list of lengths", "content-length: 0, 5\r\n", "hello"),
        ("an unknown coding", "transfer-encoding: xchunked\r\n", "0\r\n\r\n"),
        ("chunked, not last", "transfer-encoding: chunked, gzip\r\n", "0\r\n\r\n"),
        ("a folded header", "x-a: b\r\n content-length: 40\r\n", hidden),
        ("a space before the colon", "content-length : 40\r\n", hidden),
        ("a bare return in a name", "x\ry: z\r\n", ""),
    ] {
        let request = format!(
            "POST /rtc/validate HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{head}\r\n{body}"
        );
        let answer = raw(address, request.as_bytes()).await;
        assert!(matches!(status(&answer), 400 | 401), "{what}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{what}: {answer}");
    }
    // Both are given: a proxy may have let the length count.
    let both = format!(
        "POST /rtc/validate HTTP/1.1\r\nhost: x\r\n{good}content-length: 4\r\n\
         transfer-encoding: chunked\r\n\r\n0\r\n\r\n\
         GET /rtc/validate HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    );
    let answer = raw(address, both.as_bytes()).await;
    assert_eq!(status(&answer), 400, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "the second is not answered: {answer}");
    let reversed = both
        .replace("content-length: 4\r\ntransfer-encoding: chunked\r\n", "")
        .replace(&good, &format!("{good}transfer-encoding: chunked\r\ncontent-length: 4\r\n"));
    assert!(reversed != both);
    let answer = raw(address, reversed.as_bytes()).await;
    assert_eq!(status(&answer), 400, "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "the second is not answered: {answer}");
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    // A coding by itself is as good as a length, on a connection that has carried others too.
    let chunked = both.replace("content-length: 4\r\n", "");
    let one = format!("POST /rtc/validate HTTP/1.1\r\nhost: x\r\n{good}content-length: 0\r\n\r\n");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(one.as_bytes()).await.unwrap();
    let mut first = [0; 4096];
    let read = timeout(PATIENCE, stream.read(&mut first)).await.unwrap().unwrap();
    assert!(status(std::str::from_utf8(&first[..read]).unwrap()) == 200);
    stream.write_all(chunked.as_bytes()).await.unwrap();
    let mut rest = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut rest)).await.unwrap().unwrap();
    assert_eq!(rest.matches("HTTP/1.1 200").count(), 1, "{rest}");
    assert_eq!(rest.matches("HTTP/1.1 401").count(), 1, "the one behind brought no token: {rest}");
    // Where ours has not been told from the one before, nobody guesses.
    let piped = raw(address, [one.as_bytes(), chunked.as_bytes()].concat().as_slice()).await;
    assert_eq!(piped.matches("HTTP/1.1 200").count(), 1, "{piped}");
    assert_eq!(piped.matches("HTTP/1.1 400").count(), 1, "{piped}");
}

#[tokio::test]
async fn what_is_too_large_is_refused_without_being_read() {
    use std::io::Write;
    let (address, asked) = gateway().await;
    let long = "a".repeat(1 << 20);
    for (target, headers) in [
        (format!("/rtc/validate?access_token={long}"), String::new()),
        ("/rtc/validate".to_owned(), bearer(&long)),
        ("/rtc/validate".to_owned(), format!("x-long: {long}\r\n")),
        ("/rtc/validate".to_owned(), "x-many: a\r\n".repeat(10_000)),
    ] {
        let answer = get(address, &target, &headers).await;
        // The connection may be gone before the answer is read.
        assert!(matches!(status(&answer), 0 | 400 | 401 | 414 | 431), "{answer}");
    }
    // A small join request that would become a very large one.
    let mut bomb = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    for _ in 0..64 {
        bomb.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let wrapped = livekit_protocol::WrappedJoinRequest {
        compression: livekit_protocol::wrapped_join_request::Compression::Gzip.into(),
        join_request: bomb.finish().unwrap(),
    };
    let wrapped = prost::Message::encode_to_vec(&wrapped);
    let parameter = base64::prelude::BASE64_URL_SAFE.encode(wrapped);
    let target = format!("/rtc/v1/validate?join_request={parameter}");
    let started = Instant::now();
    let answer = get(address, &target, &bearer(&token(&good_claims()))).await;
    assert!(matches!(status(&answer), 400 | 414 | 431), "{answer}");
    assert!(started.elapsed() < PATIENCE);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn slow_clients_are_cut_off_and_cost_others_nothing() {
    const SLOW: usize = 64;
    let (address, _) = gateway().await;
    let mut slow = Vec::new();
    for index in 0..SLOW {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head: &[u8] = match index % 3 {
            0 => b"",
            1 => b"GET /rtc/validate HTTP/1.1\r\nhost: x\r\n",
            _ => b"POST /rtc/validate HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf",
        };
        stream.write_all(head).await.unwrap();
        slow.push((index % 3, stream));
    }
    let good = bearer(&token(&good_claims()));
    for _ in 0..20 {
        let answer = timeout(PATIENCE, get(address, "/rtc/validate", &good)).await.unwrap();
        assert_eq!(status(&answer), 200);
    }
    // Headers that never end, and requests that never begin.
    for (kind, mut stream) in slow {
        let mut rest = Vec::new();
        if kind < 2 {
            let _ = timeout(PATIENCE, stream.read_to_end(&mut rest)).await.unwrap();
        }
    }
}

/// A byte each half second keeps nobody waiting for ever, neither in headers nor in a body.
#[tokio::test]
async fn who_drips_is_cut_off_too() {
    /// The gateway's deadline of a body, and something for a busy machine.
    const LONGEST: Duration = Duration::from_secs(30 + 20);
    let (address, asked) = gateway().await;
    let good = bearer(&token(&good_claims()));
    let call = "POST /twirp/livekit.RoomService/ListRooms HTTP/1.1\r\nhost: x\r\n";
    let json = "content-type: application/json\r\ncontent-length: 100000\r\n\r\n";
    let form = "content-type: application/x-www-form-urlencoded\r\ncontent-length: 100000\r\n\r\n";
    let heads = [
        "GET /rtc/validate HTTP/1.1\r\nhost: x\r\nx-long: ".to_owned(),
        format!("{call}{good}{json}"),
        format!("{call}{json}"),
        format!("{call}{form}"),
        format!("{call}{good}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"),
    ];
    let drips = heads.map(|head| {
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let (mut reader, mut writer) = stream.into_split();
            let is_chunked = head.contains("chunked");
            let dripping = tokio::spawn(async move {
                let drop: &[u8] = if is_chunked { b"1\r\n \r\n" } else { b" " };
                while writer.write_all(drop).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            });
            let mut answer = Vec::new();
            let _ = timeout(LONGEST, reader.read_to_end(&mut answer)).await.expect("cut off");
            dripping.abort();
            String::from_utf8_lossy(&answer).into_owned()
        })
    });
    let quick = format!(
        "{call}{good}connection: close\r\ncontent-type: application/json\r\n\
        content-length: 2\r\n\r\n{{}}"
    );
    assert_eq!(status(&timeout(PATIENCE, raw(address, quick.as_bytes())).await.unwrap()), 401);
    for drip in drips {
        let answer = drip.await.unwrap();
        assert!(matches!(status(&answer), 0 | 408), "{answer}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the quick one only");
}

#[tokio::test]
async fn what_a_stranger_sends_is_not_held_at_length() {
    let (address, asked) = gateway().await;
    let call = |authorization: &str, bytes: usize| {
        let body = format!("{{\"names\":[\"{}\"]}}", "a".repeat(bytes));
        format!(
            "POST /twirp/livekit.RoomService/ListRooms HTTP/1.1\r\nhost: x\r\n{authorization}\
             connection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    let good = bearer(&token(&good_claims()));
    assert_eq!(status(&raw(address, call("", 70_000).as_bytes()).await), 413);
    assert_eq!(status(&raw(address, call("", 60_000).as_bytes()).await), 401);
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    assert_eq!(status(&raw(address, call(&good, 70_000).as_bytes()).await), 401);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
