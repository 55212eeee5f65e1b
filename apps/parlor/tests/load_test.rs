//! A small load on a server of its own, in both connection models.
#![allow(clippy::unwrap_used, missing_docs)]

use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    net::{TcpListener, UdpSocket},
    process::{Child, Command, Stdio},
};

const PARLOR: &str = env!("CARGO_BIN_EXE_parlor");

struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Server {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let udp_port = UdpSocket::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
        let mut child = Command::new(PARLOR)
            .args(["serve", "--dev", "--port", &port.to_string()])
            .args(["--udp-port", &udp_port.to_string()])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // The text of development mode comes once the ports are open.
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        while !line.contains("Ctrl-C") {
            line.clear();
            assert!(stdout.read_line(&mut line).unwrap() > 0, "the server has ended");
        }
        Server { child, port }
    }

    fn load(&self, flags: &str) -> Value {
        let (pid, url) = (self.child.id().to_string(), format!("ws://127.0.0.1:{}", self.port));
        let output = Command::new(PARLOR)
            .args(["load-test", "--dev", "--json", "--duration", "3s", "--url", &url])
            .args(["--server-pid", &pid, "--num-per-second", "20"])
            .args(flags.split_whitespace())
            .env_remove("LIVEKIT_API_KEY")
            .env_remove("LIVEKIT_API_SECRET")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number(report: &Value, pointer: &str) -> f64 {
    report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("no {pointer}"))
}

#[test]
fn two_publishers_reach_three_subscribers() {
    let server = Server::start();
    for (model, codec) in [("--single", "vp8"), ("--pair", "h264")] {
        let report = server.load(&format!(
            "{model} --video-codec {codec} --video-publishers 2 --audio-publishers 2 --subscribers 3"
        ));
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
fn losses_are_repaired_and_who_leaves_is_replaced() {
    let server = Server::start();
    let report = server.load("--video-publishers 1 --subscribers 3 --loss 5 --churn 1");
    assert!(number(&report, "/streams/packets_repaired") > 0.0, "{report:#}");
    assert!(number(&report, "/streams/thrown_away") > 0.0, "{report:#}");
    assert!(number(&report, "/joins/left") >= 2.0, "{report:#}");
    assert!(number(&report, "/joins/started") >= 6.0, "{report:#}");
}
