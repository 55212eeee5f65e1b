//! What operators see of a server.

use crate::server::{SECRET, Server, admin, call, directory, free_port, get};
use serde_json::Value;

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
        "direction=\"outgoing\",transmission=\"retransmit\"} 0",
        "process_resident_memory_bytes{",
        "process_cpu_seconds_total{",
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
