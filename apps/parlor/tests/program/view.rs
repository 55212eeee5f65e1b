//! What operators see of a server.

use crate::server::{SECRET, Server, admin, call, directory, free_port, get, until};
use serde_json::Value;

#[test]
fn metrics_health_and_the_debug_view_show_the_server() {
    let (directory, metrics) = (directory("metrics"), free_port());
    let config = directory.join("config.yaml");
    // Nobody takes webhooks at this port.
    let nobody = free_port();
    let text = format!(
        "keys: {{k: {SECRET}}}\nprometheus: {{port: {metrics}}}\n\
         webhook: {{api_key: k, urls: [\"http://127.0.0.1:{nobody}\"]}}\n"
    );
    std::fs::write(&config, text).unwrap();
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
        "livekit_packet_loss_total{",
        ",direction=\"outgoing\",le=\"1000000\"} 0\n",
        "livekit_rtt_ms_count{",
        "livekit_node_twirp_request_latency_ms_count{",
        "method=\"CreateRoom\",le=\"+Inf\"} 1\n",
        ",state=\"signal_connected\"} 0\n",
        "livekit_room_duration_seconds_bucket{",
        ",le=\"36000\"} 0\n",
        "livekit_track_published_total{",
        ",kind=\"AUDIO\"} 0\n",
        "livekit_pli_total{",
        "direction=\"outgoing\",transmission=\"retransmit\"} 0",
        "process_resident_memory_bytes{",
        "process_cpu_seconds_total{",
    ] {
        assert!(page.contains(sample), "{sample} in {page}");
    }
    until("a webhook that waits and is tried again", || {
        let page = get(metrics, "/metrics", "")?.1;
        let value = |line: &str| line.rsplit(' ').next()?.parse::<u64>().ok();
        let of = |name: &str| page.lines().find(|l| l.starts_with(name)).and_then(value);
        let waits = of("livekit_webhook_queue_length{")? > 0;
        let retried =
            page.lines().find(|line| line.contains("status=\"retry\"")).and_then(value)?;
        (waits && retried > 0).then_some(())
    });
    assert_eq!(get(server.port, "/healthz", "").unwrap(), (200, "ok".into()));
    assert_eq!(get(server.port, "/debug/rooms", "").unwrap().0, 401);
    let (_, rooms) = get(server.port, "/debug/rooms", &admin).unwrap();
    let rooms: Value = serde_json::from_str(&rooms).unwrap();
    assert_eq!(rooms[0]["Name"], "seen");
    assert!(rooms[0]["Room"]["turnPassword"].is_null());
}
