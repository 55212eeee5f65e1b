//! Receivers that are there, down, slow to accept, or refuse.
#![allow(clippy::unwrap_used)]

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use livekit_protocol::{Room, WebhookEvent};
use parlor_storage::Storage;
use parlor_webhook::{WebhookConfig, Webhooks};
use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    runtime::Handle,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What a receiver got: room, id, body.
type Seen = Arc<Mutex<Vec<(String, String, String)>>>;

async fn receive(
    listener: TcpListener,
    seen: Seen,
    answer: impl Fn(&WebhookEvent) -> u16 + Clone + Send + 'static,
) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { return };
        let (seen, answer) = (seen.clone(), answer.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (seen, answer) = (seen.clone(), answer.clone());
            async move {
                assert_eq!(request.headers()["content-type"], "application/webhook+json");
                assert_eq!(request.headers()["user-agent"], "LiveKit");
                assert!(!request.headers()["authorization"].to_str().unwrap().contains(' '));
                let body = request.into_body().collect().await?.to_bytes();
                let event: WebhookEvent = serde_json::from_slice(&body).unwrap();
                let room = event.room.clone().unwrap_or_default().name;
                let body = String::from_utf8(body.to_vec()).unwrap();
                seen.lock().unwrap().push((room, event.id.clone(), body));
                let mut response = Response::new(Full::<bytes::Bytes>::default());
                *response.status_mut() = StatusCode::from_u16(answer(&event)).unwrap();
                Ok::<_, hyper::Error>(response)
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    }
}

fn bind(address: SocketAddr) -> TcpListener {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    socket.listen(64).unwrap()
}

fn any_port() -> (TcpListener, SocketAddr) {
    let listener = bind("127.0.0.1:0".parse().unwrap());
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn config(address: SocketAddr) -> WebhookConfig {
    WebhookConfig {
        urls: vec![format!("http://{address}/hook?x=1")],
        api_key: "devkey".into(),
        secret: "secret".into(),
        ..WebhookConfig::default()
    }
}

fn event(event: &str, room: &str, id: usize) -> WebhookEvent {
    WebhookEvent {
        event: event.into(),
        room: Some(Room { name: room.into(), ..Default::default() }),
        id: format!("EV_{id}"),
        ..Default::default()
    }
}

fn directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("parlor-webhook-{name}"));
    let _ = std::fs::remove_dir_all(&directory);
    directory
}

async fn drained(webhooks: &Webhooks) {
    tokio::time::timeout(PATIENCE, webhooks.drained()).await.unwrap();
}

fn ids(seen: &Seen, room: &str) -> Vec<String> {
    let seen = seen.lock().unwrap();
    seen.iter().filter(|(of, ..)| of == room).map(|(_, id, _)| id.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rooms_are_told_in_order_and_do_not_wait_for_one_another() {
    let (listener, address) = any_port();
    let seen = Seen::default();
    // Of room 0 the second event is refused for good, and the third takes two tries.
    let failed = Arc::new(Mutex::new(false));
    let answer = move |event: &WebhookEvent| match event.id.as_str() {
        "EV_10" => 404,
        "EV_20" if !std::mem::replace(&mut *failed.lock().unwrap(), true) => 503,
        _ => 200,
    };
    tokio::spawn(receive(listener, seen.clone(), answer));
    let webhooks = Webhooks::start(config(address), None, Handle::current()).unwrap();
    for round in 0_usize..4 {
        let rooms = 0..5;
        let event = |room| event("room_started", &format!("r{room}"), round * 10 + room);
        webhooks.record(&rooms.map(event).collect::<Vec<_>>());
    }
    drained(&webhooks).await;
    for room in 0..5 {
        let mut expected: Vec<_> = (0..4).map(|n| format!("EV_{}", n * 10 + room)).collect();
        if room == 0 {
            expected.insert(3, "EV_20".to_owned());
        }
        assert_eq!(ids(&seen, &format!("r{room}")), expected);
    }
    let counters = webhooks.counters();
    assert_eq!((counters.delivered, counters.refused, counters.retried), (19, 1, 1));
    let seen = seen.lock().unwrap();
    let again: Vec<_> = seen.iter().filter(|(_, id, _)| id == "EV_20").collect();
    assert_eq!(again[0], again[1], "a repetition is the same body");
    let others = seen.iter().rposition(|(room, ..)| room != "r0").unwrap();
    assert!(others < seen.len() - 2, "other rooms were told while room 0 waited");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_is_down_is_told_when_it_is_up_even_by_the_next_process() {
    let (listener, address) = any_port();
    drop(listener);
    let directory = directory("down");
    let first = Arc::new(Storage::open(&directory).unwrap());
    let of_first =
        Webhooks::start(config(address), Some(first.clone()), Handle::current()).unwrap();
    of_first.record(&[event("room_started", "r", 1), event("room_finished", "r", 2)]);
    of_first.record(&[event("room_started", "s", 3)]);
    assert_eq!(first.queued().unwrap().len(), 3);

    // What the next process finds when this one is killed now.
    let copy = self::directory("copy");
    std::fs::create_dir_all(&copy).unwrap();
    let file = parlor_storage::FILE_NAME;
    std::fs::copy(directory.join(file), copy.join(file)).unwrap();
    let second = Arc::new(Storage::open(&copy).unwrap());
    let of_second =
        Webhooks::start(config(address), Some(second.clone()), Handle::current()).unwrap();
    assert_eq!(of_second.counters().queued, 3);

    let seen = Seen::default();
    tokio::spawn(receive(bind(address), seen.clone(), |_| 200));
    drained(&of_first).await;
    drained(&of_second).await;
    let sorted = |room: &str| {
        let mut ids = ids(&seen, room);
        ids.sort();
        ids
    };
    assert_eq!(sorted("r"), ["EV_1", "EV_1", "EV_2", "EV_2"]);
    assert_eq!(sorted("s"), ["EV_3", "EV_3"]);
    for storage in [first, second] {
        let emptied = async {
            while !storage.queued().unwrap().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, emptied).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_old_too_much_or_not_asked_for_is_not_sent() {
    let (listener, address) = any_port();
    tokio::spawn(receive(listener, Seen::default(), |_| 500));
    let chosen = WebhookConfig {
        max_age: Duration::from_millis(300),
        max_depth: 2,
        exclude_events: vec!["track_published".into()],
        ..config(address)
    };
    let webhooks = Webhooks::start(chosen, None, Handle::current()).unwrap();
    let events: Vec<_> = (0..3).map(|id| event("room_started", "r", id)).collect();
    webhooks.record(&events);
    webhooks.record(&[event("track_published", "r", 9)]);
    drained(&webhooks).await;
    let counters = webhooks.counters();
    assert_eq!((counters.expired, counters.dropped, counters.delivered), (2, 1, 0));
    let only = WebhookConfig {
        include_events: vec!["room_finished".into()],
        exclude_events: vec!["room_finished".into()],
        ..config(address)
    };
    let webhooks = Webhooks::start(only, None, Handle::current()).unwrap();
    webhooks.record(&[event("room_started", "r", 1)]);
    assert_eq!(webhooks.counters().queued, 0);
}
