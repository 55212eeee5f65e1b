//! A small load on a server of its own, in both connection models.

use crate::server::{SECRET, Server, admin, call, directory, free_port, get, until};
use serde_json::Value;
use std::thread;

fn load(server: &Server, flags: &str) -> Value {
    let pid = server.child.id();
    server.load(&format!("--duration 3s --num-per-second 20 --server-pid {pid} {flags}"))
}

fn number(report: &Value, pointer: &str) -> f64 {
    report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {pointer}"))
}

/// The values of a metrics page whose names begin so, with these labels.
fn sum(page: &str, name: &str, labels: &str) -> f64 {
    let lines = page.lines().filter(|line| line.starts_with(name) && line.contains(labels));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()).sum()
}

#[test]
fn two_publishers_reach_three_subscribers() {
    let server = Server::dev(&[]);
    for (model, codec) in [("--single", "vp8"), ("--pair", "h264")] {
        let report = load(
            &server,
            &format!(
                "{model} --video-codec {codec} --video-publishers 2 --audio-publishers 2 --subscribers 3"
            ),
        );
        assert_eq!(number(&report, "/joins/connected"), 5.0, "{report:#}");
        assert_eq!(number(&report, "/joins/failed"), 0.0, "{report:#}");
        assert_eq!(number(&report, "/streams/received"), 12.0, "{report:#}");
        assert_eq!(number(&report, "/streams/unauthentic"), 0.0, "{report:#}");
        // Three seconds of two microphones for each of three subscribers, and video besides.
        assert!(number(&report, "/received/packets") > 900.0, "{report:#}");
        assert!(number(&report, "/delay/count") > 900.0, "{report:#}");
        assert!(number(&report, "/streams/lost_percent") < 1.0, "{report:#}");
        assert!(number(&report, "/server/memory_after/pss_bytes") > 0.0, "{report:#}");
    }
}

#[test]
fn the_first_scrape_tells_what_was_sent() {
    let metrics = free_port();
    let server = Server::dev(&["--prometheus.port", &metrics.to_string()]);
    let report = load(&server, "--audio-publishers 1 --subscribers 2");
    let received = number(&report, "/received/packets");
    let (_, page) = get(metrics, "/metrics", "").unwrap();
    let labels = "direction=\"outgoing\",transmission=\"initial\"";
    let sent = sum(&page, "livekit_packet_total{", labels);
    assert!(sent >= received && received > 200.0, "{sent} were sent, {received} came");
}

#[test]
fn threads_that_share_a_port_fail_nobody_and_lose_nothing() {
    let metrics = free_port();
    let server = Server::dev(&["--prometheus.port", &metrics.to_string()]);
    for model in ["--single", "--pair"] {
        let flags = "--rooms 3 --audio-publishers 4 --subscribers 4 --publishers-receive";
        let report = load(&server, &format!("{model} {flags}"));
        assert_eq!(number(&report, "/joins/connected"), 24.0, "{report:#}");
        assert_eq!(number(&report, "/joins/failed"), 0.0, "{report:#}");
        let planned = number(&report, "/streams/planned");
        assert_eq!(number(&report, "/streams/received"), planned, "{report:#}");
        assert_eq!(number(&report, "/streams/packets_lost"), 0.0, "{report:#}");
    }
    let (_, page) = get(metrics, "/metrics", "").unwrap();
    // Of 24 and more peers, some come to the thread of another, unless there is only one.
    let handed_over = sum(&page, "parlor_handovers_total{", "");
    let threads = thread::available_parallelism().unwrap().get();
    assert_eq!(handed_over > 0.0, threads > 1, "{handed_over} on {threads} threads");
    assert_eq!(sum(&page, "parlor_handovers_lost_total{", ""), 0.0);
}

#[test]
fn a_server_with_as_much_traffic_as_it_may_have_takes_nobody_more() {
    let directory = directory("traffic");
    let config = directory.join("config.yaml");
    let text = format!("keys: {{k: {SECRET}, devkey: secret}}\nlimit: {{bytes_per_sec: 20000}}\n");
    std::fs::write(&config, text).unwrap();
    let server = Server::start(&config, free_port(), &[]);
    let create = || call(server.port, "CreateRoom", &admin(), r#"{"name":"more"}"#);
    assert_eq!(create().unwrap().0, 200);
    thread::scope(|scope| {
        let load = scope.spawn(|| load(&server, "--video-publishers 1 --subscribers 1"));
        let (_, body) = until("a refusal", || create().filter(|(status, _)| *status == 500));
        assert!(body.contains("reached configured limit for node"), "{body}");
        assert_eq!(number(&load.join().unwrap(), "/joins/failed"), 0.0, "who is in stays");
    });
    until("room for more", || create().filter(|(status, _)| *status == 200));
}

#[test]
fn losses_are_repaired_and_who_leaves_is_replaced() {
    let server = Server::dev(&[]);
    let report = load(&server, "--video-publishers 1 --subscribers 3 --loss 5 --churn 1");
    assert!(number(&report, "/streams/packets_repaired") > 0.0, "{report:#}");
    assert!(number(&report, "/streams/thrown_away") > 0.0, "{report:#}");
    assert!(number(&report, "/joins/left") >= 2.0, "{report:#}");
    assert!(number(&report, "/joins/started") >= 6.0, "{report:#}");
}
