//! The course of a load: who joins when, what is measured from when to when.

use crate::{
    config::{Layout, LoadConfig},
    participant::Plan,
    process::{CpuTime, Memory},
    report::{Measured, MeasuredServer, Report},
    signal,
    worker::{self, Clock, Common, Input, Totals, WorkerHandle},
};
use parlor_model::Codec;
use parlor_signal::{
    Claims,
    token::{self, VideoGrant},
};
use parlor_transport::DtlsIdentity;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::{
    fmt,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    net::{IpAddr, TcpStream, ToSocketAddrs},
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

const TICK: Duration = Duration::from_millis(5);
const PROGRESS_INTERVAL: Duration = Duration::from_millis(250);
/// How long after the last join is begun those who are not yet connected are waited for.
const JOINS_TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TOKEN_LIFE: Duration = Duration::from_secs(24 * 3600);

/// Why there was no load.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum LoadError {
    #[error("the URL must look like ws://host:7880 or wss://host, not {0}")]
    Url(String),
    #[error("the server at {address} cannot be reached: {error}")]
    Unreachable { address: String, error: io::Error },
    #[error("nobody to join: ask for publishers or subscribers")]
    Nobody,
    #[error("process {pid} cannot be read: {error}")]
    Process { pid: u32, error: io::Error },
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Certificate(#[from] parlor_transport::TransportError),
    #[error("a thread of the load has panicked")]
    Panicked,
}

/// How it goes.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Progress {
    /// Since the first join.
    pub elapsed: Duration,
    /// Whether all have joined and it is being measured.
    pub is_measuring: bool,
    /// Participants to join in all, without churn.
    pub planned: u64,
    /// Participants with a media connection.
    pub connected: u64,
    /// Participants that failed.
    pub failed: u64,
    /// Packets that subscribers receive in a second.
    pub packets_per_second: f64,
    /// Bits that subscribers receive in a second.
    pub bits_per_second: f64,
}

impl fmt::Display for Progress {
    /// One line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>5.1} s  {}  {}/{} connected, {} failed  {:.0} packets/s  {:.2} Mbit/s",
            self.elapsed.as_secs_f64(),
            if self.is_measuring { "measuring" } else { "joining  " },
            self.connected,
            self.planned,
            self.failed,
            self.packets_per_second,
            self.bits_per_second / 1e6
        )
    }
}

/// Loads a server until the duration is over or `stop` is set, telling `progress` a few times a
/// second. Blocks.
///
/// # Errors
/// [`LoadError`]; participants that fail are in the report instead.
pub fn run(
    config: &LoadConfig,
    stop: &AtomicBool,
    progress: impl FnMut(&Progress),
) -> Result<Report, LoadError> {
    if config.rooms == 0 || config.publishers() + config.subscribers == 0 {
        return Err(LoadError::Nobody);
    }
    raise_descriptor_limit();
    // Who was here first has chosen it already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (base_url, authority) = split_url(&config.url)?;
    let local_ip = local_ip(&authority)?;
    let seed = RandomState::new().build_hasher().finish();
    let common = Common {
        connects: signal::start()?,
        identity: DtlsIdentity::generate()?,
        base_url,
        loss: config.loss.clamp(0.0, 1.0),
        clock: Clock::start(),
        seed,
    };
    let workers = (0..config.threads.max(1) as u64)
        .map(|index| worker::start(Common { seed: seed ^ index, ..common.clone() }))
        .collect::<io::Result<Vec<_>>>()?;
    let (handles, threads) = workers.into_iter().unzip();
    let rng = ChaCha8Rng::seed_from_u64(seed);
    let now = Instant::now();
    let course = Course { config, local_ip, rng, handles, threads, begun: now, joins: 0, progress };
    course.run(stop)
}

struct Course<'a, F> {
    config: &'a LoadConfig,
    local_ip: IpAddr,
    rng: ChaCha8Rng,
    handles: Vec<WorkerHandle>,
    threads: Vec<JoinHandle<worker::WorkerReport>>,
    begun: Instant,
    /// Participants told to join so far.
    joins: u64,
    progress: F,
}

/// Who joins next.
#[derive(Clone, Copy)]
enum Role {
    Publisher(usize),
    Subscriber(u64),
}

impl<F: FnMut(&Progress)> Course<'_, F> {
    fn run(mut self, stop: &AtomicBool) -> Result<Report, LoadError> {
        let before = self.look_at_server()?;
        let joined = self.join_all(stop);
        let joining = self.begun.elapsed();
        if joined {
            self.wait(stop, Some(self.config.warm_up), false);
        }
        self.tell_all(|| Input::Mark);
        let (mark, own_mark) = (self.look_at_server()?, CpuTime::of(None)?);
        let measuring = Instant::now();
        if joined {
            self.wait(stop, self.config.duration, true);
        }
        let (end, own_end) = (self.look_at_server()?, CpuTime::of(None)?);
        let time = measuring.elapsed();
        self.tell_all(|| Input::Stop);
        let reports = self
            .threads
            .drain(..)
            .map(|thread| thread.join().map_err(|_| LoadError::Panicked))
            .collect::<Result<Vec<_>, _>>()?;
        let server = match (before, mark, end) {
            (Some((cpu, memory)), Some((cpu_mark, _)), Some((cpu_end, after))) => {
                Some(MeasuredServer {
                    cpu_joining: cpu_mark.since(cpu),
                    cpu: cpu_end.since(cpu_mark),
                    before: memory,
                    after,
                })
            }
            _ => None,
        };
        let measured = Measured { joining, time, own: own_end.since(own_mark), server };
        Ok(Report::new(self.config, &measured, &reports))
    }

    fn look_at_server(&self) -> Result<Option<(CpuTime, Memory)>, LoadError> {
        let Some(pid) = self.config.server_pid else { return Ok(None) };
        let error = |error| LoadError::Process { pid, error };
        let memory = Memory::of(Some(pid)).map_err(error)?;
        Ok(Some((CpuTime::of(Some(pid)).map_err(error)?, memory)))
    }

    /// Lets all join, publishers first. False when stopped before.
    fn join_all(&mut self, stop: &AtomicBool) -> bool {
        let publishers = (0..self.config.publishers()).map(Role::Publisher);
        let subscribers = (0..self.config.subscribers as u64).map(Role::Subscriber);
        let roles: Vec<_> = publishers
            .chain(subscribers)
            .flat_map(|role| (0..self.config.rooms).map(move |room| (room, role)))
            .collect();
        let interval = Duration::from_secs_f64(1.0 / self.config.joins_per_second.max(0.001));
        let mut due = self.begun;
        let mut roles = roles.into_iter().peekable();
        let mut meter = Meter::new(self.begun);
        while roles.peek().is_some() {
            while due <= Instant::now()
                && let Some((room, role)) = roles.next()
            {
                self.join(room, role);
                due += interval;
            }
            if !self.tick(stop, &mut meter, false) {
                return false;
            }
        }
        let last = Instant::now();
        while last.elapsed() < JOINS_TIMEOUT {
            let totals = self.totals();
            if totals.connected + totals.failed >= self.joins {
                break;
            }
            if !self.tick(stop, &mut meter, false) {
                return false;
            }
        }
        true
    }

    fn wait(&mut self, stop: &AtomicBool, duration: Option<Duration>, is_measuring: bool) {
        let start = Instant::now();
        let mut meter = Meter::new(start);
        let churn = self.config.churn_per_second;
        let mut replaced = 0;
        while duration.is_none_or(|duration| start.elapsed() < duration) {
            let due = start.elapsed().as_secs_f64() * churn;
            while is_measuring && ((replaced + 1) as f64) <= due {
                self.replace(replaced);
                replaced += 1;
            }
            if !self.tick(stop, &mut meter, is_measuring) {
                return;
            }
        }
    }

    /// A subscriber leaves, and a new one joins the same room.
    fn replace(&mut self, replaced: u64) {
        let index = replaced as usize % self.handles.len().max(1);
        if let Some(handle) = self.handles.get(index) {
            handle.send(Input::LeaveOldest);
        }
        // Whoever is here longest leaves, and they have joined room by room.
        let room = replaced as usize % self.config.rooms;
        self.join(room, Role::Subscriber(self.config.subscribers as u64 + replaced));
    }

    /// Sleeps for a moment. False when it is time to stop.
    fn tick(&mut self, stop: &AtomicBool, meter: &mut Meter, is_measuring: bool) -> bool {
        thread::sleep(TICK);
        let totals = self.totals();
        if let Some((packets_per_second, bits_per_second)) = meter.read(&totals) {
            let members = self.config.publishers() + self.config.subscribers;
            (self.progress)(&Progress {
                elapsed: self.begun.elapsed(),
                is_measuring,
                planned: (self.config.rooms * members) as u64,
                connected: totals.connected - totals.left,
                failed: totals.failed,
                packets_per_second,
                bits_per_second,
            });
        }
        !stop.load(Ordering::Relaxed)
    }

    fn totals(&self) -> Totals {
        let mut sum = Totals::default();
        for totals in self.handles.iter().map(WorkerHandle::totals) {
            sum.connected += totals.connected;
            sum.failed += totals.failed;
            sum.left += totals.left;
            sum.received_packets += totals.received_packets;
            sum.received_bytes += totals.received_bytes;
        }
        sum
    }

    fn tell_all(&self, input: impl Fn() -> Input) {
        self.handles.iter().for_each(|handle| handle.send(input()));
    }

    fn join(&mut self, room: usize, role: Role) {
        let plan = self.plan(room, role);
        if let Some(handle) = self.handles.get(self.joins as usize % self.handles.len().max(1)) {
            handle.send(Input::Join(Box::new(plan)));
        }
        self.joins += 1;
    }

    fn plan(&mut self, room: usize, role: Role) -> Plan {
        let config = self.config;
        let prefix = &config.identity_prefix;
        let (identity, publisher) = match role {
            Role::Publisher(number) => (format!("{prefix}_pub_{number}"), Some(number)),
            Role::Subscriber(number) => (format!("{prefix}_sub_{number}"), None),
        };
        let audio = publisher.is_some_and(|number| number < config.audio_publishers);
        let video = publisher.is_some_and(|number| number < config.video_publishers);
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let speaker = publisher.filter(|_| config.simulate_speakers);
        Plan {
            token: self.token(&config.room_name(room), identity),
            model: config.model,
            transport_feedback: config.transport_feedback,
            seed,
            local_ip: self.local_ip,
            audio,
            video: video.then(|| (config.codec, config.resolution.layers(), config.simulcast)),
            layout: (publisher.is_none() || config.publishers_receive).then_some(config.layout),
            dtx: config.dtx,
            speaker: speaker.map(|number| (number, config.audio_publishers)),
        }
    }

    fn token(&self, room: &str, identity: String) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let claims = Claims {
            name: identity.clone(),
            sub: identity,
            nbf: Some(now.as_secs()),
            exp: Some((now + TOKEN_LIFE).as_secs()),
            video: Some(VideoGrant {
                room_join: true,
                room: room.to_owned(),
                ..VideoGrant::default()
            }),
            ..Claims::default()
        };
        token::sign(&claims, &self.config.api_key, &self.config.api_secret)
    }
}

/// Rates since the last progress.
struct Meter {
    at: Instant,
    packets: u64,
    bytes: u64,
}

impl Meter {
    fn new(now: Instant) -> Self {
        Self { at: now, packets: 0, bytes: 0 }
    }

    /// Packets and bits a second, when it is time to tell.
    fn read(&mut self, totals: &Totals) -> Option<(f64, f64)> {
        let elapsed = self.at.elapsed();
        if elapsed < PROGRESS_INTERVAL {
            return None;
        }
        let seconds = elapsed.as_secs_f64();
        let is_first = self.packets == 0;
        let packets = totals.received_packets - self.packets;
        let bytes = totals.received_bytes - self.bytes;
        *self = Self {
            at: Instant::now(),
            packets: totals.received_packets,
            bytes: totals.received_bytes,
        };
        if is_first {
            return Some((0.0, 0.0));
        }
        Some((packets as f64 / seconds, bytes as f64 * 8.0 / seconds))
    }
}

/// `ws://host:port` and `host:port`; `wss` for servers behind TLS.
fn split_url(url: &str) -> Result<(String, String), LoadError> {
    const SCHEMES: [(&str, &str, u16); 4] =
        [("ws", "ws", 80), ("http", "ws", 80), ("wss", "wss", 443), ("https", "wss", 443)];
    let fault = || LoadError::Url(url.to_owned());
    let (name, rest) = url.split_once("://").ok_or_else(fault)?;
    let (_, scheme, port) =
        SCHEMES.into_iter().find(|(other, ..)| *other == name).ok_or_else(fault)?;
    let authority = rest.split(['/', '?']).next().filter(|host| !host.is_empty());
    let authority = authority.ok_or_else(fault)?;
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let authority = if has_port { authority.to_owned() } else { format!("{authority}:{port}") };
    Ok((format!("{scheme}://{authority}"), authority))
}

/// Our address on the way to the server.
fn local_ip(authority: &str) -> Result<IpAddr, LoadError> {
    let unreachable = |error| LoadError::Unreachable { address: authority.to_owned(), error };
    let mut last = io::ErrorKind::NotFound.into();
    for address in authority.to_socket_addrs().map_err(unreachable)? {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream.local_addr().map_err(unreachable)?.ip()),
            Err(error) => last = error,
        }
    }
    Err(unreachable(last))
}

/// A thousand participants need thousands of sockets.
fn raise_descriptor_limit() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// The codecs that [`LoadConfig::codec`] may name.
pub const VIDEO_CODECS: [Codec; 4] = [Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1];

impl Layout {
    /// The names that `lk load-test` has for them, and `all`.
    pub const NAMES: [(&'static str, Layout); 5] = [
        ("all", Layout::All),
        ("speaker", Layout::Speaker),
        ("3x3", Layout::Grid3x3),
        ("4x4", Layout::Grid4x4),
        ("5x5", Layout::Grid5x5),
    ];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let split = |url| split_url(url).ok();
        let both = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(split("ws://localhost:7880"), both("ws://localhost:7880", "localhost:7880"));
        assert_eq!(split("http://[::1]:80/rtc?a"), both("ws://[::1]:80", "[::1]:80"));
        assert_eq!(split("ws://host"), both("ws://host:80", "host:80"));
        assert_eq!(split("https://host/x"), both("wss://host:443", "host:443"));
        assert_eq!(split("localhost:7880"), None);
        assert_eq!(split("ftp://host"), None);
        assert_eq!(split("ws://"), None);
    }
}
