//! Keys, limits and log level change while a server runs.

use crate::{
    kill::receiver,
    server::{
        PARLOR, SECRET, Server, Signal, admin, call, directory, free_port, get, join, message,
        parlor, request, token, until,
    },
};
use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

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

const OTHER: &str = "another-secret-of-more-than-thirty-two-bytes";

fn write_keys(path: &Path, keys: &str) {
    std::fs::write(path, keys).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn keys_of_a_key_file_rotate_while_participants_stay() {
    let directory = directory("rotate");
    let (config, keys) = (directory.join("config.yaml"), directory.join("keys"));
    write_keys(&keys, &format!("k: {SECRET}\n"));
    let yaml = |level: &str, more: &str| {
        let path = keys.display();
        format!("key_file: {path}\nlogging: {{level: {level}}}\n{more}")
    };
    std::fs::write(&config, yaml("info", "")).unwrap();
    let server = Server::start(&config, free_port(), &[]);
    let list = |token: &str| call(server.port, "ListRooms", token, "{}").unwrap().0;
    let create = |token: &str, room: &str| {
        call(server.port, "CreateRoom", token, &format!("{{\"name\":\"{room}\"}}")).unwrap().0
    };
    let of_ann = token(SECRET, &["--join", "--room", "r", "--identity", "ann"]);
    let (status, mut ann) = join(server.port, &of_ann);
    assert_eq!(status, 101);
    let first = admin();
    assert_eq!(create(&first, "long-name"), 200);
    assert!(!server.log.lock().unwrap().contains("api call"), "not at this level");
    while !matches!(message(&mut ann), Signal::RefreshToken(_)) {}

    // Both keys hold for a while.
    let second = token(OTHER, &["--list", "--create"]).to_owned();
    write_keys(&keys, &format!("k: {SECRET}\nk2: {OTHER}\n"));
    server.signal("-HUP");
    let parlor_k2 = ["token", "create", "--api-key", "k2", "--api-secret", OTHER, "--token-only"];
    let output =
        parlor(&[&parlor_k2[..], &["--list", "--create", "--admin", "--room", "r"]].concat());
    let of_k2 = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    until("the second key", || (list(&of_k2) == 200).then_some(()));
    assert_eq!((list(&first), list(&second)), (200, 401), "k has another secret");

    // Then only the second.
    write_keys(&keys, &format!("k2: {OTHER}\n"));
    std::fs::write(&config, yaml("debug", "limit: {max_room_name_length: 5}\n")).unwrap();
    server.signal("-HUP");
    until("the end of the first key", || (list(&first) == 401).then_some(()));
    assert_eq!((list(&of_k2), join(server.port, &of_ann).0), (200, 401));
    assert_eq!((create(&of_k2, "long-name"), create(&of_k2, "short")), (400, 200));
    until("more to read", || server.log.lock().unwrap().contains("api call").then_some(()));

    // Who is in stays, and has been given a token that lets it in again.
    let body = r#"{"room":"r"}"#;
    let (_, here) = call(server.port, "ListParticipants", &of_k2, body).unwrap();
    assert!(here.contains("ann"), "{here}");
    let renewed = loop {
        if let Signal::RefreshToken(token) = message(&mut ann)
            && get(server.port, &format!("/rtc/validate?access_token={token}"), "").unwrap().0
                == 200
        {
            break token;
        }
    };
    assert_ne!(renewed, of_ann);
}

#[test]
fn a_busy_server_logs_no_secret_and_no_token() {
    let (directory, metrics, port) = (directory("secrets"), free_port(), free_port());
    let (hook, told) = receiver();
    let config = directory.join("config.yaml");
    let yaml = format!(
        "keys: {{k: {SECRET}}}\nlogging: {{level: debug}}\n\
         prometheus: {{port: {metrics}, username: u, password: hunter1}}\n\
         webhook: {{api_key: k, urls: [\"http://u:hunter2@127.0.0.1:{hook}/?token=hunter3\"]}}\n\
         rtc: {{turn_servers: [{{host: 127.0.0.1, port: 9, protocol: udp, secret: hunter4}}]}}\n"
    );
    std::fs::write(&config, yaml).unwrap();
    let server = Server::start(&config, port, &["--data-dir", directory.to_str().unwrap()]);
    let url = format!("ws://127.0.0.1:{port}");
    let load = Command::new(PARLOR)
        .args(["load-test", "--api-key", "k", "--api-secret", SECRET, "--url", &url, "--json"])
        .args(["--duration", "2s", "--audio-publishers", "2", "--subscribers", "1"])
        .output()
        .unwrap();
    assert!(load.status.success(), "{}", String::from_utf8_lossy(&load.stderr));
    let (admin, stranger) = (admin(), token(OTHER, &["--list"]));
    assert_eq!(call(port, "CreateRoom", &admin, r#"{"name":"r"}"#).unwrap().0, 200);
    for token in [&admin, &stranger] {
        get(port, &format!("/rtc/validate?access_token={token}"), "").unwrap();
        get(port, &format!("/rtc?access_token={token}"), "").unwrap();
        get(port, "/debug/rooms", token).unwrap();
        call(port, "NoSuchMethod", token, "{}").unwrap();
        call(port, "ListRooms", token, "not json").unwrap();
    }
    request(port, "POST /rtc HTTP/1.1\r\nauthorization: Basic aHVudGVyNQ==\r\n", "").unwrap();
    get(metrics, "/metrics", "").unwrap();
    server.signal("-HUP");
    until("the reload", || server.log.lock().unwrap().contains("reloaded").then_some(()));
    until("webhooks", || (told.lock().unwrap().len() > 3).then_some(()));
    server.signal("-TERM");
    until("the end", || server.log.lock().unwrap().contains("ending").then_some(()));
    let log = server.log.lock().unwrap().clone();
    assert!(
        log.contains("DEBUG") && log.contains("api call") && log.contains("load-test"),
        "{log}"
    );
    // Every token begins with these letters.
    for secret in [SECRET, &admin, &stranger, "eyJ", "hunter", "aHVudGVyNQ", "turnPassword"] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
}
