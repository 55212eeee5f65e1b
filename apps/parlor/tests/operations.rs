//! What operators do to a server: check, kill, drain, reload, look.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

const PARLOR: &str = env!("CARGO_BIN_EXE_parlor");
const PATIENCE: Duration = Duration::from_secs(30);
const SECRET: &str = "a-secret-of-more-than-thirty-two-bytes";

fn directory(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("parlor-operations-{name}"));
    let _ = std::fs::remove_dir_all(&directory);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begin.elapsed() < PATIENCE, "{what} did not come");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A server of a configuration file; killed when it goes.
struct Server {
    child: Child,
    port: u16,
    log: Arc<Mutex<String>>,
}

impl Server {
    fn start(config: &Path, port: u16, more: &[&str]) -> Server {
        let udp = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new(PARLOR)
            .args(["serve", "--bind", "127.0.0.1", "--config", config.to_str().unwrap()])
            .args(["--port", &port.to_string(), "--udp-port", &udp.to_string()])
            .args(["--rtc.enable_loopback_candidate", "true"])
            .args(more)
            .env_remove("RUST_LOG")
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
        let server = Server { child, port, log };
        until("the server", || get(server.port, "/readyz", "").filter(|a| a.0 == 200));
        server
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

/// Status and body; `None` if nobody answers.
fn request(port: u16, head: &str, body: &str) -> Option<(u16, String)> {
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

fn bearer(token: &str) -> String {
    if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") }
}

fn get(port: u16, path: &str, token: &str) -> Option<(u16, String)> {
    request(port, &format!("GET {path} HTTP/1.1\r\n{}", bearer(token)), "")
}

fn call(port: u16, method: &str, token: &str, body: &str) -> Option<(u16, String)> {
    call_service(port, "RoomService", method, token, body)
}

fn call_service(
    port: u16,
    service: &str,
    method: &str,
    token: &str,
    body: &str,
) -> Option<(u16, String)> {
    let path = format!("/twirp/livekit.{service}/{method}");
    request(port, &format!("POST {path} HTTP/1.1\r\n{}", bearer(token)), body)
}

fn parlor(arguments: &[&str]) -> Output {
    let mut command = Command::new(PARLOR);
    command.args(arguments).env_remove("LIVEKIT_API_KEY").env_remove("LIVEKIT_API_SECRET");
    command.output().unwrap()
}

fn token(secret: &str, more: &[&str]) -> String {
    let mut arguments =
        vec!["token", "create", "--api-key", "k", "--api-secret", secret, "--token-only"];
    arguments.extend(more);
    let output = parlor(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn admin() -> String {
    token(SECRET, &["--create", "--list", "--admin", "--room", "any", "--valid-for", "2h"])
}

/// Room, event and id of each webhook that came. Every fifth is answered with 500 at first.
type Told = Arc<Mutex<Vec<(String, String, String)>>>;

fn receiver() -> (u16, Told) {
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

fn answered(answer: Option<(u16, String)>) -> Option<Value> {
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

#[test]
fn metrics_health_and_the_debug_view_show_the_server() {
    let (directory, metrics) = (directory("metrics"), free_port());
    let config = directory.join("config.yaml");
    std::fs::write(&config, format!("keys: {{k: {SECRET}}}\nprometheus: {{port: {metrics}}}\n"))
        .unwrap();
    let server = Server::start(&config, free_port(), &[]);
    let admin = admin();
    assert_eq!(call(server.port, "CreateRoom", &admin, r#"{"name":"seen"}"#).unwrap().0, 200);
    let (status, page) = get(metrics, "/metrics", "").unwrap();
    assert_eq!(status, 200);
    for sample in [
        "livekit_room_total{node_id=\"ND_",
        "\"} 1\n",
        "method=\"CreateRoom\",status=\"success\",code=\"200\"} 1",
        "livekit_packet_total{",
    ] {
        assert!(page.contains(sample), "{sample} in {page}");
    }
    assert_eq!(get(server.port, "/healthz", "").unwrap(), (200, "ok".into()));
    assert_eq!(get(server.port, "/debug/rooms", "").unwrap().0, 401);
    let (_, rooms) = get(server.port, "/debug/rooms", &admin).unwrap();
    let rooms: Value = serde_json::from_str(&rooms).unwrap();
    assert_eq!(rooms[0]["Name"], "seen");
    assert!(rooms[0]["Room"]["turnPassword"].is_null());
}

#[test]
fn keys_and_log_level_change_on_sighup_and_no_secret_is_logged() {
    let directory = directory("reload");
    let config = directory.join("config.yaml");
    std::fs::write(&config, format!("keys: {{k: {SECRET}}}\nlogging: {{json: true}}\n")).unwrap();
    let server = Server::start(&config, free_port(), &[]);
    let other = "another-secret-of-more-than-thirty-two-bytes";
    let of_other = token(other, &["--list"]);
    let of_first = token(SECRET, &["--list"]);
    let list = |token: &str| call(server.port, "ListRooms", token, "{}").unwrap().0;
    assert_eq!((list(&of_first), list(&of_other)), (200, 401));
    std::fs::write(&config, format!("keys: {{k: {other}}}\nlogging: {{level: debug}}\n")).unwrap();
    server.signal("-HUP");
    until("the new key", || (list(&of_other) == 200).then_some(()));
    assert_eq!(list(&of_first), 401);
    std::fs::write(&config, format!("keys: {{k: [{other}]}}\n")).unwrap();
    server.signal("-HUP");
    until("the complaint", || server.log.lock().unwrap().contains("not reloaded").then_some(()));
    assert_eq!(list(&of_other), 200, "a bad file changes nothing");
    let log = server.log.lock().unwrap().clone();
    assert!(log.starts_with('{'), "{log}");
    for secret in [SECRET, other, &of_other, &of_first] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn the_first_sigterm_drains_and_the_second_ends() {
    let directory = directory("drain");
    let config = directory.join("config.yaml");
    std::fs::write(&config, format!("keys: {{k: {SECRET}}}\n")).unwrap();
    let mut server = Server::start(&config, free_port(), &[]);
    let join = token(SECRET, &["--join", "--room", "r", "--identity", "ann"]);
    let upgrade = |port: u16| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = "connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
             sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        let path = format!("/rtc?protocol=16&access_token={join}");
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n{head}").as_bytes()).unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).unwrap();
        (String::from_utf8(status[9..].to_vec()).unwrap(), stream)
    };
    let (status, _ann) = upgrade(server.port);
    assert_eq!(status, "101");
    let url = format!("http://127.0.0.1:{}", server.port);
    let participant = |more: &[&str]| {
        let key = ["--url", &url, "--api-key", "k", "--api-secret", SECRET];
        let output = parlor(&[&["participant"], &more[..1], &key, &more[1..]].concat());
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert!(participant(&["list", "r"]).contains("ann"));
    assert!(participant(&["get", "r", "ann"]).contains("PA_"));
    assert!(participant(&["remove", "r", "bob"]).contains("participant does not exist"));
    server.signal("-TERM");
    let draining = || get(server.port, "/readyz", "").filter(|(status, _)| *status == 503);
    assert_eq!(until("the drain", draining).1, "draining");
    assert_eq!(upgrade(server.port).0, "503");
    assert!(server.child.try_wait().unwrap().is_none(), "somebody is in");
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());

    // With nobody in it, the first is enough; with somebody, the time-out.
    let mut server = Server::start(&config, free_port(), &[]);
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());
    let mut server = Server::start(&config, free_port(), &["--drain-timeout", "0"]);
    let (_, _ann) = upgrade(server.port);
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());
}

#[test]
fn a_configuration_is_checked_without_serving_it() {
    let directory = directory("check");
    let check = |yaml: &str, more: &[&str]| {
        let config = directory.join("config.yaml");
        std::fs::write(&config, yaml).unwrap();
        let mut arguments = vec!["serve", "--check", "--config", config.to_str().unwrap()];
        arguments.extend(more);
        let output = parlor(&arguments);
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), format!("{out}{err}"))
    };
    let keys = format!("keys: {{k: {SECRET}}}\n");
    let (good, said) = check(&format!("{keys}turn: {{enabled: true}}\n"), &[]);
    assert!(good && said.contains("line 2: turn.enabled has no effect: there is"), "{said}");
    let (good, said) = check(&format!("{keys}rtc:\n  udp_prot: 1\n"), &[]);
    assert!(!good && said.contains("line 3") && said.contains("udp_port?"), "{said}");
    let loose = format!("{keys}rtc:\n  udp_prot: 1\n");
    let (good, said) = check(&loose, &["--disable-strict-config"]);
    assert!(good && said.contains("line 3: unknown key rtc.udp_prot; did you mean"), "{said}");
    let yaml = "port: 7890\nkeys: {short: hunter2}\nlimit: {max_metadata_size: 77}\n\
        rtc: {udp_port: 7900-7901, tcp_port: 7902, node_ip: 203.0.113.9, \
        turn_servers: [{host: t.example, port: 3478, protocol: udp, secret: hunter2}]}\n\
        webhook: {api_key: short, urls: [\"http://user:hunter2@hook.example/\"]}\n";
    let (good, said) = check(yaml, &["--prometheus.port", "7999"]);
    assert!(good && !said.contains("hunter2"), "{said}");
    let words = said.split_whitespace().collect::<Vec<_>>().join(" ");
    for told in [
        "port 7890 of every address",
        "port 7900-7901",
        "(TCP) port 7902",
        "203.0.113.9 (not an address of this machine)",
        "turn:t.example:3478?transport=udp",
        "API keys short ",
        "1 URLs, signed with key short",
        "port 7999",
        "limit.max_metadata_size 77",
        "limit.max_room_name_length 256",
        "the secret of API key short is shorter",
        "webhooks are lost",
    ] {
        assert!(words.contains(told), "{told} in {said}");
    }
    let nowhere = format!("{keys}rtc: {{interfaces: {{includes: [nosuch0]}}}}\n");
    let (good, said) = check(&nowhere, &[]);
    assert!(!good && said.contains("rtc.interfaces") && said.contains("127.0.0.1"), "{said}");
    let (good, said) = check(&keys, &["--room.empty_timeout", "soon"]);
    assert!(!good && said.contains("room.empty_timeout"), "{said}");

    let key_file = directory.join("keys");
    std::fs::write(&key_file, format!("k: {SECRET}\n")).unwrap();
    let path = key_file.to_str().unwrap();
    let set_mode = |mode| {
        std::fs::set_permissions(&key_file, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set_mode(0o644);
    let (good, said) = check("", &["--key-file", path]);
    assert!(!good && said.contains("chmod") && !said.contains(SECRET), "{said}");
    set_mode(0o640);
    assert!(check("", &["--key-file", path]).0);
}
