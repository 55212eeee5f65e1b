//! A server that is killed again and again.

use crate::server::{
    SECRET, Server, admin, call, call_service, directory, free_port, token, until,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

/// Room, event and id of each webhook that came. Every fifth is answered with 500 at first.
pub type Told = Arc<Mutex<Vec<(String, String, String)>>>;

pub fn receiver() -> (u16, Told) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let told = Told::default();
    let all = told.clone();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let told = all.clone();
            thread::spawn(move || receive(stream, &told));
        }
    });
    (port, told)
}

fn receive(stream: TcpStream, told: &Told) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut writer = stream;
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).ok()? == 0 {
                return None;
            }
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let event: Value = serde_json::from_slice(&body).ok()?;
        let text = |value: &Value| value.as_str().unwrap_or("").to_owned();
        let entry = (text(&event["room"]["name"]), text(&event["event"]), text(&event["id"]));
        let mut told = told.lock().unwrap();
        let fails = told.len() % 5 == 4;
        told.push(entry);
        drop(told);
        let status = if fails { "500 Oh" } else { "200 OK" };
        writer
            .write_all(format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n").as_bytes())
            .ok()?;
    }
}

pub fn answered(answer: Option<(u16, String)>) -> Option<Value> {
    let (status, body) = answer?;
    (status == 200).then(|| serde_json::from_str(&body).unwrap())
}

/// What the server has said that it keeps.
#[derive(Default)]
struct Objects {
    rooms: BTreeSet<String>,
    ingress: BTreeSet<String>,
    deleted: BTreeSet<String>,
    /// Whether there is the room "any".
    any: bool,
    /// Of it.
    dispatches: BTreeSet<String>,
    /// The metadata of that room: what was answered last, and what was asked for last.
    metadata: (String, String),
}

impl Objects {
    /// Changes things, and notes what is answered. `None` when the server is gone.
    fn change(&mut self, port: u16, admin: &str, ingress: &str, number: u32) -> Option<()> {
        if !self.any {
            answered(call(port, "CreateRoom", admin, r#"{"name":"any","emptyTimeout":3600}"#))?;
            self.any = true;
        }
        if number.is_multiple_of(4) {
            let body = r#"{"room":"any","agentName":"x"}"#;
            let made = call_service(port, "AgentDispatchService", "CreateDispatch", admin, body);
            self.dispatches.insert(answered(made)?["id"].as_str().unwrap().to_owned());
        }
        self.metadata.1 = format!("{} {number}", self.ingress.len());
        let metadata = format!(r#"{{"room":"any","metadata":"{}"}}"#, self.metadata.1);
        answered(call(port, "UpdateRoomMetadata", admin, &metadata))?;
        self.metadata.0.clone_from(&self.metadata.1);
        let body = r#"{"name":"n","participantIdentity":"i"}"#;
        let made = answered(call_service(port, "Ingress", "CreateIngress", ingress, body))?;
        let id = made["ingress_id"].as_str().unwrap().to_owned();
        if number % 3 != 2 {
            self.ingress.insert(id);
            return Some(());
        }
        let delete = format!(r#"{{"ingressId":"{id}"}}"#);
        answered(call_service(port, "Ingress", "DeleteIngress", ingress, &delete))?;
        self.deleted.insert(id);
        Some(())
    }

    /// Everything that was promised is there, and nothing that was deleted.
    fn check(&self, port: u16, admin: &str, ingress: &str) {
        let listed = answered(call(port, "ListRooms", admin, "{}")).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let rooms = listed["rooms"].as_array().unwrap().iter();
        let rooms: BTreeMap<String, String> =
            rooms.map(|room| (text(&room["name"]), text(&room["metadata"]))).collect();
        for room in &self.rooms {
            assert_eq!(rooms.get(room), Some(&format!("of {room}")), "{room}");
        }
        if !self.any {
            return;
        }
        let metadata = &rooms["any"];
        assert!([&self.metadata.0, &self.metadata.1].contains(&metadata), "{metadata}");
        let ids = |listed: &Value, key: &str| -> BTreeSet<String> {
            listed.as_array().unwrap().iter().map(|item| text(&item[key])).collect()
        };
        let listed = call_service(port, "Ingress", "ListIngress", ingress, "{}");
        let ingress = ids(&answered(listed).unwrap()["items"], "ingress_id");
        assert!(self.ingress.is_subset(&ingress) && self.deleted.is_disjoint(&ingress));
        let service = "AgentDispatchService";
        let listed = call_service(port, service, "ListDispatch", admin, r#"{"room":"any"}"#);
        let dispatches = ids(&answered(listed).unwrap()["agent_dispatches"], "id");
        assert!(self.dispatches.is_subset(&dispatches));
        let (rooms, ingress, dispatches) = (rooms.len(), ingress.len(), dispatches.len());
        println!("there again: {rooms} rooms, {ingress} ingresses, {dispatches} dispatches");
    }
}

/// `PARLOR_KILLS` is how often; the full test says 100.
#[test]
fn a_server_that_is_killed_again_and_again_tells_everything_in_order() {
    let kills: u32 = std::env::var("PARLOR_KILLS").map_or(10, |kills| kills.parse().unwrap());
    let (hook, told) = receiver();
    let directory = directory("kill");
    let config = directory.join("config.yaml");
    let data = directory.join("data");
    std::fs::write(
        &config,
        format!(
            "keys: {{k: {SECRET}}}\nstorage: {{path: {}}}\n\
             webhook: {{api_key: k, urls: [\"http://127.0.0.1:{hook}/\"]}}\n",
            data.display()
        ),
    )
    .unwrap();
    let port = free_port();
    let admin = admin();
    let ingress = token(SECRET, &["--ingress", "--valid-for", "2h"]);
    // What the server has said that it has done.
    let mut promised: BTreeSet<(String, &str)> = BTreeSet::new();
    let mut objects = Objects::default();
    for kill in 0..kills {
        let mut server = Server::start(&config, port, &[]);
        let end = Instant::now() + Duration::from_millis(u64::from(kill * 37 % 200) + 20);
        let killer = server.child.id().to_string();
        let killing = thread::spawn(move || {
            thread::sleep(end.saturating_duration_since(Instant::now()));
            Command::new("kill").args(["-9", &killer]).status().unwrap()
        });
        for number in 0_u32.. {
            let room = format!("{kill}-{number}");
            let create = format!(r#"{{"name":"{room}","metadata":"of {room}"}}"#);
            if answered(call(port, "CreateRoom", &admin, &create)).is_none() {
                break;
            }
            promised.insert((room.clone(), "room_started"));
            if number % 4 == 3 {
                objects.rooms.insert(room.clone());
                if objects.change(port, &admin, &ingress, number / 4).is_none() {
                    break;
                }
                continue;
            }
            let delete = format!(r#"{{"room":"{room}"}}"#);
            if answered(call(port, "DeleteRoom", &admin, &delete)).is_none() {
                break;
            }
            promised.insert((room, "room_finished"));
        }
        killing.join().unwrap();
        let _ = server.child.wait();
    }
    assert!(promised.len() > kills as usize, "{}", promised.len());
    let _server = Server::start(&config, port, &[]);
    objects.check(port, &admin, &ingress);
    until("every webhook", || {
        let told = told.lock().unwrap();
        let known: BTreeSet<(&str, &str)> =
            told.iter().map(|(room, event, _)| (room.as_str(), event.as_str())).collect();
        promised.iter().all(|(room, event)| known.contains(&(room, event))).then_some(())
    });
    let mut state: BTreeMap<&str, &str> = BTreeMap::new();
    let told = told.lock().unwrap();
    // What was told but not yet forgotten when the server was killed is told again, with its id.
    let mut ids = BTreeSet::new();
    for (room, event, id) in told.iter().filter(|(.., id)| ids.insert(id)) {
        let before = state.insert(room, event);
        let in_order = event == "room_started" || before.is_some();
        assert!(in_order && !(event == "room_started" && before == Some("room_finished")), "{id}");
    }
}
