//! How a server ends.

use crate::server::{SECRET, Server, directory, free_port, get, join, parlor, token, until};
use std::net::TcpStream;

#[test]
fn the_first_sigterm_drains_and_the_second_ends() {
    let directory = directory("drain");
    let config = directory.join("config.yaml");
    std::fs::write(&config, format!("keys: {{k: {SECRET}}}\n")).unwrap();
    let of_ann = token(SECRET, &["--join", "--room", "r", "--identity", "ann"]);
    let enter = |server: &Server| -> TcpStream {
        let (status, stream) = join(server.port, &of_ann);
        assert_eq!(status, 101);
        stream
    };
    let mut server = Server::start(&config, free_port(), &[]);
    let _ann = enter(&server);
    let url = format!("http://127.0.0.1:{}", server.port);
    let participant = |more: &[&str]| {
        let key = ["--url", &url, "--api-key", "k", "--api-secret", SECRET];
        let output = parlor(&[&["participant"], &more[..1], &key, &more[1..]].concat());
        String::from_utf8([output.stdout, output.stderr].concat()).unwrap()
    };
    assert!(participant(&["list", "r"]).contains("ann"));
    assert!(participant(&["get", "r", "ann"]).contains("PA_"));
    assert!(participant(&["remove", "r", "bob"]).contains("participant does not exist"));
    let drain = |server: &Server| {
        server.signal("-TERM");
        let draining = || get(server.port, "/readyz", "").filter(|(status, _)| *status == 503);
        assert_eq!(until("the drain", draining).1, "draining");
    };
    drain(&server);
    assert_eq!(join(server.port, &of_ann).0, 503);
    assert!(server.child.try_wait().unwrap().is_none(), "somebody is in");
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());

    // With nobody in it, the first is enough; else the last to leave, or the time-out, ends it.
    let mut server = Server::start(&config, free_port(), &[]);
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());
    let mut server = Server::start(&config, free_port(), &[]);
    let ann = enter(&server);
    drain(&server);
    drop(ann);
    assert!(server.child.wait().unwrap().success());
    let mut server = Server::start(&config, free_port(), &["--drain-timeout", "0"]);
    let _ann = enter(&server);
    server.signal("-TERM");
    assert!(server.child.wait().unwrap().success());
}
