//! Two network namespaces joined by a veth pair: the server's machine and the clients'.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Address of the server.
pub const SERVER_IP: &str = "10.78.0.1";
/// Address of the clients.
pub const CLIENT_IP: &str = "10.78.0.2";
/// What is switched off at both ends of the pair: with it a run of datagrams would cross as one
/// piece that no wire carries, and the receiver's kernel would put together what the sender's had
/// cut. Checksum offload stays, as every network card has it.
pub const SWITCHED_OFF: [&str; 4] = ["tso", "gso", "gro", "tx-udp-segmentation"];

const LISTENING: Duration = Duration::from_secs(10);

/// Which of the two.
#[derive(Clone, Copy)]
pub enum Side {
    Server,
    Client,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Side::Server => "parlor-server",
            Side::Client => "parlor-client",
        }
    }

    /// The CPU that its processes stay on.
    fn cpu(self) -> &'static str {
        match self {
            Side::Server => "0",
            Side::Client => "1",
        }
    }
}

/// The namespaces; gone when dropped.
pub struct Namespaces(());

impl Namespaces {
    /// Makes them anew.
    pub fn make() -> Result<Self, String> {
        let made = Namespaces(());
        made.remove();
        for side in [Side::Server, Side::Client] {
            ip(&["netns", "add", side.name()])?;
        }
        let (server, client) = (Side::Server.name(), Side::Client.name());
        ip(&[
            "-n", server, "link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns",
            client,
        ])?;
        for (side, address) in [(Side::Server, SERVER_IP), (Side::Client, CLIENT_IP)] {
            let name = side.name();
            ip(&["-n", name, "address", "add", &format!("{address}/24"), "dev", "veth0"])?;
            for device in ["lo", "veth0"] {
                ip(&["-n", name, "link", "set", device, "up"])?;
            }
            for feature in SWITCHED_OFF {
                run(side.enter("ethtool").args(["-K", "veth0", feature, "off"]))?;
            }
        }
        Ok(made)
    }

    fn remove(&self) {
        for side in [Side::Server, Side::Client] {
            let _ = Command::new("ip")
                .args(["netns", "delete", side.name()])
                .stderr(Stdio::null())
                .status();
        }
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.remove();
    }
}

impl Side {
    /// A command that runs on this side, on its CPU.
    pub fn enter(self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        // Real-time priority: other work on the machine must not change how packets meet.
        command.args(["netns", "exec", self.name(), "chrt", "--rr", "1"]);
        command.args(["taskset", "--cpu-list", self.cpu()]);
        command.arg(program);
        command
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    run(Command::new("ip").args(arguments))
}

fn run(command: &mut Command) -> Result<(), String> {
    output(command).map(drop)
}

/// Runs a command to its end and returns what it printed.
pub fn output(command: &mut Command) -> Result<String, String> {
    match command.output() {
        Ok(out) if out.status.success() => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        Ok(out) => Err(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr))),
        Err(error) => Err(format!("{command:?}: {error}")),
    }
}

/// A process that ends when dropped.
pub struct Process(Child);

impl Process {
    /// Its id, which is that of the program: `ip` and `taskset` become it.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a program that says a line when it is ready, and waits for that.
pub fn start_and_wait(mut command: Command) -> Result<Process, String> {
    let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = started.map_err(|error| format!("{command:?}: {error}"))?;
    let said = child.stdout.take().map(|out| BufReader::new(out).read_line(&mut String::new()));
    let process = Process(child);
    match said {
        Some(Ok(1..)) => Ok(process),
        _ => Err(format!("{command:?} did not start")),
    }
}

/// A running server.
pub struct Server {
    process: Process,
}

impl Server {
    /// Starts `parlor serve`.
    pub fn start(parlor: &Path, folder: &Path) -> Result<Self, String> {
        let config = format!(
            "port: 7880\nbind_addresses: [{SERVER_IP}]\nprometheus_port: 6789\n\
             keys: {{ {KEY}: {SECRET} }}\nrtc: {{ udp_port: 7882, node_ip: {SERVER_IP} }}\n"
        );
        let mut command = Side::Server.enter(parlor);
        let log = folder.join("server.log");
        let log = fs::File::create(&log).map_err(|error| format!("{}: {error}", log.display()))?;
        command.args(["serve", "--log-level", "warn", "--config-body", &config]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let child = command.spawn().map_err(|error| format!("{command:?}: {error}"))?;
        let server = Server { process: Process(child) };
        let until = Instant::now() + LISTENING;
        while server.metrics().is_err() {
            if Instant::now() > until {
                return Err(format!("the server does not answer; see {}", folder.display()));
            }
            thread::sleep(Duration::from_millis(50));
        }
        server.put_media_first()?;
        Ok(server)
    }

    /// Among real-time threads a nice value says nothing: the server's media threads get by
    /// priority what they asked for.
    fn put_media_first(&self) -> Result<(), String> {
        let threads = fs::read_dir(format!("/proc/{}/task", self.id()));
        for thread in threads.into_iter().flatten().flatten() {
            let name = fs::read_to_string(thread.path().join("comm")).unwrap_or_default();
            if name.starts_with("media-") {
                run(Command::new("chrt").args(["--rr", "--pid", "2"]).arg(thread.file_name()))?;
            }
        }
        Ok(())
    }

    /// Its id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Its metrics page. Asked for twice: the media threads' totals are those that they gave when
    /// they were asked before.
    pub fn metrics(&self) -> Result<Metrics, String> {
        let page = format!("http://{SERVER_IP}:6789/metrics");
        let ask = || {
            let mut curl = Side::Client.enter("curl");
            output(curl.args(["--silent", "--show-error", "--fail", &page]))
        };
        ask()?;
        thread::sleep(Duration::from_millis(200));
        ask().map(Metrics)
    }

    /// Time on a CPU and proportional memory until now.
    pub fn used(&self) -> Result<Used, String> {
        Used::of(self.id())
    }
}

/// API key of the server.
pub const KEY: &str = "bench";
/// Its secret.
pub const SECRET: &str = "a-secret-of-the-bench-of-32-bytes-";

/// A metrics page.
pub struct Metrics(String);

impl Metrics {
    /// The sum of all samples of a family with this label in it (`kind="sent_datagrams"`).
    pub fn sum(&self, family: &str, label: &str) -> f64 {
        let lines = self.0.lines().filter(|line| line.starts_with(family) && line.contains(label));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// Samples of a family in order: the value of a label, and the sample.
    pub fn each(&self, family: &str, label: &str) -> Vec<(String, f64)> {
        let lines = self.0.lines().filter(|line| line.starts_with(family));
        lines
            .filter_map(|line| {
                let rest = line.split_once(&format!("{label}=\""))?.1;
                let value = line.rsplit(' ').next()?.parse().ok()?;
                Some((rest.split_once('"')?.0.to_owned(), value))
            })
            .collect()
    }
}

/// What a process has used.
#[derive(Clone, Copy, Default)]
pub struct Used {
    pub user_s: f64,
    pub system_s: f64,
    pub pss_bytes: f64,
}

impl Used {
    /// Of a process, by its id. One without memory of its own (a kernel thread) has none.
    pub fn of(pid: u32) -> Result<Self, String> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))
        };
        let stat = read("stat")?;
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        let mut ticks = rest.split_whitespace().skip(11).filter_map(|field| field.parse().ok());
        let memory = read("smaps_rollup").unwrap_or_default();
        let line = memory.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kib: Option<f64> = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        // USER_HZ is 100 on every architecture that we run on.
        let mut seconds = || ticks.next().unwrap_or(0.0) / 100.0;
        Ok(Self { user_s: seconds(), system_s: seconds(), pss_bytes: kib.unwrap_or(0.0) * 1024.0 })
    }

    /// Of the kernel thread that takes over network work of the server's CPU when there is too
    /// much of it: what it does is in no process's account.
    pub fn of_softirqs() -> Self {
        let name = |entry: &fs::DirEntry| fs::read_to_string(entry.path().join("comm")).ok();
        let mut entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let thread = entries.find(|entry| name(entry).is_some_and(|n| n.trim() == "ksoftirqd/0"));
        let pid = thread.and_then(|entry| entry.file_name().to_str()?.parse().ok());
        pid.and_then(|pid| Self::of(pid).ok()).unwrap_or_default()
    }
}
