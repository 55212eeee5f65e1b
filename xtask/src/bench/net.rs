//! `cargo xtask bench --net`: a whole server between two network namespaces, beside a bare
//! `sendto` there. The method is in `docs/performance.md`, which the figures are written into.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use serde_json::{Value, json};

use super::namespaces::{
    self, CLIENT_IP, KEY, Namespaces, Process, SECRET, SERVER_IP, SWITCHED_OFF, Server, Side, Used,
};
use super::{build, page, target};

/// Runs of a datagram length that the kernel's price is asked for.
const RUN_DATAGRAMS: usize = 8;
/// How long the bare loops run.
const BARE_SECONDS: u32 = 4;
const WARM_UP: &str = "8s";
/// Loads and joins are measured so often, and the one in the median counts: now and then a host is
/// half as fast for a minute.
const TURNS: usize = 3;
const US: &str = "/us_per_packet";

/// What to measure, and for how long.
#[derive(Debug, PartialEq, Eq)]
pub struct Plan {
    /// Only rows whose names contain one of these; all when empty.
    only: Vec<String>,
    /// Length of each measurement.
    seconds: u32,
    /// Length of the soak; a tenth of an hour unless told.
    soak: u32,
    /// Whether the page is written.
    write: bool,
    /// Where binaries are that were built already; without it they are built for release.
    built: Option<PathBuf>,
}

impl Plan {
    /// Reads the arguments behind `bench --net`.
    pub fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut plan = Self { only: Vec::new(), seconds: 20, soak: 360, write: true, built: None };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let number = |value: Option<&String>| {
                let value = value.and_then(|value| value.parse().ok()).filter(|value| *value > 0);
                value.ok_or(format!("{argument} needs a number"))
            };
            match argument.as_str() {
                "--seconds" => plan.seconds = number(arguments.next())?,
                "--soak-seconds" => plan.soak = number(arguments.next())?,
                "--dry" => plan.write = false,
                "--built" => {
                    plan.built = Some(arguments.next().ok_or("--built needs a folder")?.into());
                }
                option if option.starts_with('-') => {
                    return Err(format!("unknown option {option:?}"));
                }
                row => plan.only.push(row.to_owned()),
            }
        }
        Ok(plan)
    }

    fn has(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|part| name.contains(part.as_str()))
    }
}

/// One of the four loads that LiveKit was measured with.
pub struct Load {
    pub name: &'static str,
    pub flags: &'static str,
    pub subscribers: usize,
    /// Most bare `sendto`s that a packet may cost.
    pub goal: f64,
    /// Microseconds that LiveKit 1.13.5 took, and of it in user space, in issue 6.
    pub livekit: (f64, f64),
}

/// Most microseconds in user space for a packet.
pub const USER_GOAL_US: f64 = 0.7;

pub const LOADS: [Load; 4] = [
    Load {
        name: "audio 10 x 50",
        flags: "--audio-publishers 10 --subscribers 50",
        subscribers: 50,
        goal: 1.25,
        livekit: (26.6, 11.2),
    },
    Load {
        name: "live stream 1 x 100",
        flags: "--video-publishers 1 --subscribers 100 --video-codec h264 --no-simulcast",
        subscribers: 100,
        goal: 0.6,
        livekit: (25.2, 11.3),
    },
    Load {
        name: "simulcast 1 x 60",
        flags: "--video-publishers 1 --subscribers 60 --video-codec vp8",
        subscribers: 60,
        goal: 0.65,
        livekit: (24.1, 10.0),
    },
    Load {
        name: "meeting 8 x 8",
        flags: "--video-publishers 8 --audio-publishers 8 --subscribers 8 --video-codec vp8",
        subscribers: 8,
        goal: 1.0,
        livekit: (35.5, 14.8),
    },
];

/// Runs the plan and writes what it found.
pub fn run(root: &Path, plan: &Plan) -> ExitCode {
    match measure(root, plan) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// What all measurements need.
struct Bench {
    parlor: PathBuf,
    wire: PathBuf,
    folder: PathBuf,
    seconds: u32,
}

fn measure(root: &Path, plan: &Plan) -> Result<(), String> {
    crate::prerequisites::network()?;
    let folder = target(root).join("bench");
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let (parlor, wire) = match &plan.built {
        Some(folder) => (folder.join("parlor"), folder.join("wire")),
        None => (build(root, "parlor", "parlor", &[])?, build(root, "parlor-bench", "wire", &[])?),
    };
    let bench = Bench { parlor, wire, folder, seconds: plan.seconds };
    let namespaces = Namespaces::make()?;
    let mut found = serde_json::Map::new();
    found.insert("conditions".into(), conditions());
    for load in LOADS.iter().filter(|load| plan.has(load.name)) {
        let value = bench.load(load)?;
        println!("{}", page::load_line(load, &value));
        found.insert(load.name.into(), value);
    }
    type Row = (&'static str, fn(&Bench, &Plan) -> Result<Value, String>);
    let rows: [Row; 4] = [
        ("memory", |bench, _| bench.memory()),
        ("joins", |bench, _| bench.joins()),
        ("delay", |bench, _| bench.delay()),
        ("soak", |bench, plan| bench.soak(plan.soak)),
    ];
    for (name, row) in rows.into_iter().filter(|(name, _)| plan.has(name)) {
        let value = row(&bench, plan)?;
        println!("{name}: {value}");
        found.insert(name.into(), value);
    }
    drop(namespaces);
    if plan.write { page::write(root, &Value::Object(found)) } else { Ok(()) }
}

fn conditions() -> Value {
    let first_line = |path: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        text.lines().next().unwrap_or_default().to_owned()
    };
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processor.lines().find_map(|line| line.strip_prefix("model name"));
    json!({
        "kernel": first_line("/proc/sys/kernel/osrelease"),
        "processor": model.map_or("", |name| name.trim_start_matches([' ', '\t', ':'])),
        "load_average": first_line("/proc/loadavg"),
        "switched_off": SWITCHED_OFF,
    })
}

/// Reads a number of a report.
pub fn at(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or(0.0)
}

impl Bench {
    fn server(&self) -> Result<Server, String> {
        Server::start(&self.parlor, &self.folder)
    }

    /// Runs `parlor load-test` against a server and returns its report.
    fn load_test(&self, server: &Server, flags: &str) -> Result<Value, String> {
        let mut command = Side::Client.enter(&self.parlor);
        command.args(["load-test", "--json", "--api-key", KEY, "--api-secret", SECRET]);
        command.args(["--url", &format!("ws://{SERVER_IP}:7880")]);
        command.args(["--server-pid", &server.id().to_string()]).args(flags.split_whitespace());
        let printed = namespaces::output(&mut command)?;
        serde_json::from_str(&printed).map_err(|error| format!("load-test: {error}: {printed}"))
    }

    /// Microseconds for a datagram of a bare loop with the rate and the size of a load.
    fn bare(&self, way: usize, bytes: f64, ports: usize, rate: f64) -> Result<f64, String> {
        let mut sink = Side::Client.enter(&self.wire);
        sink.args(["sink", &ports.to_string()]);
        let _sink: Process = namespaces::start_and_wait(sink)?;
        let mut send = Side::Server.enter(&self.wire);
        send.args(["send", &way.to_string(), &format!("{bytes:.0}"), &ports.to_string()]);
        send.args([&format!("{rate:.0}"), &BARE_SECONDS.to_string(), CLIENT_IP]);
        let printed = namespaces::output(&mut send)?;
        let words: Vec<f64> = printed.split(' ').filter_map(|w| w.trim().parse().ok()).collect();
        match words[..] {
            [datagrams, user_us, system_us] if datagrams > 0.0 => {
                Ok((user_us + system_us) / datagrams)
            }
            _ => Err(format!("wire send: {printed}")),
        }
    }

    /// A load with congestion control and without, the turn in the median of each. Without
    /// transport-wide feedback nothing is numbered, reported or estimated.
    fn load(&self, load: &Load) -> Result<Value, String> {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for turn in 0..2 * TURNS {
            // With, without, without, with: what drifts adds the same to both.
            match turn % 4 {
                1 | 2 => without.push(self.load_turn(load, "--no-transport-feedback")?),
                _ => with.push(self.beside_bare(load, self.load_turn(load, "")?)?),
            }
        }
        let us = |turns: &[Value]| turns.iter().map(|turn| at(turn, US)).collect::<Vec<_>>();
        let (with_us, without_us) = (us(&with), us(&without));
        let mut row = median(with, US);
        row["us_of_turns"] = json!(with_us);
        row["us_of_turns_without_congestion_control"] = json!(without_us);
        row["us_without_congestion_control"] = json!(at(&median(without, US), US));
        Ok(row)
    }

    fn load_turn(&self, load: &Load, more_flags: &str) -> Result<Value, String> {
        let server = self.server()?;
        let softirqs = Used::of_softirqs();
        let flags = format!(
            "{} {more_flags} --join-rate 20 --warm-up {WARM_UP} --duration {}s",
            load.flags, self.seconds
        );
        let report = self.load_test(&server, &flags)?;
        let softirqs = Used::of_softirqs().system_s - softirqs.system_s;
        let metrics = server.metrics()?;
        drop(server);
        let packets = at(&report, "/received/packets");
        let bytes = at(&report, "/received/bytes") / packets.max(1.0);
        let rate = at(&report, "/received/packets_per_second");
        let sockets = |kind: &str| metrics.sum("parlor_socket_total", &format!("kind=\"{kind}\""));
        let user_us = at(&report, "/server/cpu/user_us_per_packet");
        let all_us = user_us + at(&report, "/server/cpu/system_us_per_packet");
        let dropped: BTreeMap<String, f64> = metrics
            .each("parlor_socket_total", "kind")
            .into_iter()
            .filter(|(kind, count)| is_loss(kind) && *count > 0.0)
            .collect();
        Ok(json!({
            "us_per_packet": all_us,
            "user_us_per_packet": user_us,
            "packets_per_second": rate,
            "bytes_per_packet": bytes,
            "packets_per_message": sockets("sent_datagrams") / sockets("sent_messages").max(1.0),
            "messages_per_send_call": sockets("sent_messages") / sockets("send_calls").max(1.0),
            "lost_percent": at(&report, "/streams/lost_percent"),
            "streams_received": at(&report, "/streams/received"),
            "streams_planned": at(&report, "/streams/planned"),
            "dropped": dropped,
            "ksoftirqd_s_in_all": softirqs,
            "server_cpu_percent": at(&report, "/server/cpu/percent"),
            "client_user_us_per_packet": at(&report, "/own_cpu/user_us_per_packet"),
            "load_average": conditions()["load_average"],
        }))
    }

    /// Adds to a turn what bare loops of its rate and size take.
    fn beside_bare(&self, load: &Load, mut turn: Value) -> Result<Value, String> {
        let (bytes, rate) = (at(&turn, "/bytes_per_packet"), at(&turn, "/packets_per_second"));
        let bare_us = self.bare(1, bytes, load.subscribers, rate)?;
        turn["bare_sendto_us"] = json!(bare_us);
        turn["run_of_8_us"] = json!(self.bare(RUN_DATAGRAMS, bytes, load.subscribers, rate)?);
        turn["in_bare_sendtos"] = json!(at(&turn, US) / bare_us);
        Ok(turn)
    }

    /// 1000 rooms of two who both publish audio and hear each other.
    fn memory(&self) -> Result<Value, String> {
        const ROOMS: usize = 1000;
        let server = self.server()?;
        let flags = format!(
            "--rooms {ROOMS} --audio-publishers 2 --publishers-receive --simulate-speakers --dtx --join-rate 100 \
             --warm-up 60s --duration 5s"
        );
        let report = self.load_test(&server, &flags)?;
        let participants = at(&report, "/joins/connected");
        let grown = at(&report, "/server/memory_after/pss_bytes")
            - at(&report, "/server/memory_before/pss_bytes");
        Ok(json!({
            "rooms": ROOMS,
            "participants": participants,
            "failed": at(&report, "/joins/failed"),
            "kib_per_participant": grown / 1024.0 / participants.max(1.0),
            "pss_idle_mib": at(&report, "/server/memory_before/pss_bytes") / 1048576.0,
            "packets_per_second": at(&report, "/received/packets_per_second"),
            "streams_received": at(&report, "/streams/received"),
            "lost_percent": at(&report, "/streams/lost_percent"),
            "server_cpu_percent": at(&report, "/server/cpu/percent"),
        }))
    }

    /// A room that grows to 500 subscribers; a thousand who join within ten seconds.
    fn joins(&self) -> Result<Value, String> {
        let mut rows = serde_json::Map::new();
        for (name, flags) in [
            ("0 to 500 in one room, 50/s", "--subscribers 500 --join-rate 50"),
            ("1000 in one room, 100/s", "--subscribers 1000 --join-rate 100"),
            ("1000 in rooms of 2, 100/s", "--rooms 500 --subscribers 2 --join-rate 100"),
        ] {
            let turns: Vec<_> =
                (0..TURNS).map(|_| self.join_turn(flags)).collect::<Result<_, _>>()?;
            let failed: f64 = turns.iter().map(|turn| at(turn, "/failed")).sum();
            let mut row = median(turns, "/cpu_ms_per_join");
            row["failed"] = json!(failed);
            rows.insert(name.into(), row);
        }
        Ok(Value::Object(rows))
    }

    fn join_turn(&self, flags: &str) -> Result<Value, String> {
        let server = self.server()?;
        let report = self.load_test(&server, &format!("{flags} --duration 1s"))?;
        Ok(json!({
            "cpu_ms_per_join": at(&report, "/server/cpu_ms_per_join"),
            "connected": at(&report, "/joins/connected"),
            "failed": at(&report, "/joins/failed"),
            "failures": report["failures"],
            "to_media_p50_ms": at(&report, "/joins/connection/p50_us") / 1000.0,
            "to_media_p99_ms": at(&report, "/joins/connection/p99_us") / 1000.0,
        }))
    }

    /// From the kernel's receive stamp to the last send, as the server's workers measure it.
    fn delay(&self) -> Result<Value, String> {
        let mut rows = serde_json::Map::new();
        for (name, flags) in [
            ("fan-out 1", "--rooms 20 --audio-publishers 1 --subscribers 1 --join-rate 20"),
            ("fan-out 50", "--audio-publishers 10 --subscribers 50 --join-rate 20"),
            (
                "fan-out 50 while 100 join each second",
                "--audio-publishers 10 --subscribers 50 --join-rate 20 --churn 100",
            ),
        ] {
            let server = self.server()?;
            let flags = format!("{flags} --duration {}s", self.seconds);
            let report = self.load_test(&server, &flags)?;
            let metrics = server.metrics()?;
            let buckets = metrics.each("parlor_added_delay_seconds_bucket", "le");
            let held = metrics.each("parlor_held_seconds_bucket", "le");
            rows.insert(
                name.into(),
                json!({
                    "p50_us": quantile_us(&buckets, 0.5),
                    "p99_us": quantile_us(&buckets, 0.99),
                    "held_p50_us": quantile_us(&held, 0.5),
                    "held_p99_us": quantile_us(&held, 0.99),
                    "server_cpu_percent": at(&report, "/server/cpu/percent"),
                    "packets_per_second": at(&report, "/received/packets_per_second"),
                    "end_to_end_p50_us": at(&report, "/delay/p50_us"),
                    "end_to_end_p99_us": at(&report, "/delay/p99_us"),
                }),
            );
        }
        Ok(Value::Object(rows))
    }

    /// Memory and cost over time, with subscribers who come and go.
    fn soak(&self, seconds: u32) -> Result<Value, String> {
        const SAMPLES: u32 = 12;
        let server = self.server()?;
        let flags = format!(
            "--audio-publishers 5 --video-publishers 1 --subscribers 20 --join-rate 20 --churn 2 \
             --warm-up 10s --duration {seconds}s"
        );
        let interval = Duration::from_secs(u64::from(seconds / SAMPLES).max(1));
        let samples = std::thread::scope(|scope| {
            let load = scope.spawn(|| self.load_test(&server, &flags));
            let mut samples = Vec::new();
            std::thread::sleep(Duration::from_secs(12));
            let mut before = sample(&server)?;
            for _ in 0..SAMPLES {
                std::thread::sleep(interval);
                if load.is_finished() {
                    break;
                }
                let now = sample(&server)?;
                let cpu_s = now.0.user_s + now.0.system_s - before.0.user_s - before.0.system_s;
                samples.push(json!({
                    "pss_mib": now.0.pss_bytes / 1048576.0,
                    "us_per_packet": cpu_s * 1e6 / (now.1 - before.1).max(1.0),
                }));
                before = now;
            }
            let report = load.join().map_err(|_| "the load panicked".to_owned())??;
            Ok::<_, String>((samples, report))
        })?;
        let (samples, report) = samples;
        Ok(json!({
            "seconds": seconds,
            "joins": at(&report, "/joins/started"),
            "failed": at(&report, "/joins/failed"),
            "samples": samples,
        }))
    }
}

/// The one of them whose number at `path` is in the middle; `null` of none.
fn median(mut turns: Vec<Value>, path: &str) -> Value {
    turns.sort_by(|one, other| at(one, path).total_cmp(&at(other, path)));
    let middle = turns.len() / 2;
    turns.into_iter().nth(middle).unwrap_or_default()
}

fn sample(server: &Server) -> Result<(Used, f64), String> {
    let sent = server.metrics()?.sum("livekit_packet_total", "direction=\"outgoing\"");
    Ok((server.used()?, sent))
}

fn is_loss(kind: &str) -> bool {
    let send = ["send_would_block", "send_no_buffers", "send_too_big", "send_unreachable"];
    send.contains(&kind) || ["send_failed", "receive_overflow", "receive_truncated"].contains(&kind)
}

/// Upper bound of the bucket that holds a quantile, in microseconds.
fn quantile_us(buckets: &[(String, f64)], share: f64) -> f64 {
    let total = buckets.last().map_or(0.0, |(_, count)| *count);
    let found = buckets.iter().find(|(_, count)| *count >= total * share && total > 0.0);
    found.and_then(|(bound, _)| bound.parse::<f64>().ok()).map_or(0.0, |seconds| seconds * 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_read() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let plan = Plan::parse(&words("--seconds 5 --soak-seconds 3600 audio --dry")).unwrap();
        assert_eq!((plan.seconds, plan.soak, plan.write), (5, 3600, false));
        assert!(plan.has("audio 10 x 50") && !plan.has("memory"));
        assert!(Plan::parse(&words("--seconds x")).is_err());
        assert!(Plan::parse(&words("--fast")).is_err());
    }

    #[test]
    fn the_turn_in_the_middle_counts() {
        let turns = [3.0, 9.0, 2.0].map(|us| json!({ "us_per_packet": us })).to_vec();
        assert_eq!(at(&median(turns, US), US), 3.0);
        assert_eq!(median(Vec::new(), US), Value::Null);
    }

    #[test]
    fn quantiles_of_buckets() {
        let buckets = [("0.0001", 50.0), ("0.001", 99.0), ("+Inf", 100.0)]
            .map(|(bound, count)| (bound.to_owned(), count));
        assert_eq!(quantile_us(&buckets, 0.5), 100.0);
        assert_eq!(quantile_us(&buckets, 0.99), 1000.0);
        assert_eq!(quantile_us(&[], 0.5), 0.0);
    }
}
