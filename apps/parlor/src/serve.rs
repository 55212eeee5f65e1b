//! `parlor serve`.

use crate::{
    Failure,
    addresses::{self, MediaAddresses},
    control::{Control, MAILBOX},
};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use clap::Args;
use livekit_protocol as proto;
use parlor_config::{Config, DEFAULT_UDP_PORT, PortRange};
use parlor_gateway::Gateway;
use parlor_node::{Limits, Node, NodeConfig, io::Input};
use parlor_room::RoomSettings;
use parlor_transport::DtlsIdentity;
use parlor_workers::{Workers, WorkersConfig};
use std::{
    io::{self, IsTerminal},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
    sync::{Notify, mpsc, oneshot},
};

/// How long participants have to take leave when the server ends.
const FAREWELL: Duration = Duration::from_secs(2);
const LISTEN_BACKLOG: u32 = 1024;

/// Flags of `parlor serve`. They come before the environment, which comes before the file.
#[derive(Args, Debug)]
pub struct Arguments {
    /// Development mode: key `devkey`, secret `secret`, reachable from this machine only.
    #[arg(long)]
    dev: bool,
    /// Configuration file (YAML, LiveKit's keys).
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Configuration as text.
    #[arg(
        long,
        value_name = "YAML",
        env = "LIVEKIT_CONFIG",
        conflicts_with = "config",
        hide_env_values = true
    )]
    config_body: Option<String>,
    /// Address for HTTP and WebSockets; may be repeated. Default: all.
    #[arg(long, value_name = "IP")]
    bind: Vec<IpAddr>,
    /// TCP port for HTTP and WebSockets. Default: 7880.
    #[arg(long, env = "LIVEKIT_PORT")]
    port: Option<u16>,
    /// API keys: "key: secret", one per line.
    #[arg(long, env = "LIVEKIT_KEYS", hide_env_values = true)]
    keys: Option<String>,
    /// Address that clients send media to, if not this machine's own: "v4", "v6" or "v4,v6".
    #[arg(long, value_name = "IP", env = "NODE_IP")]
    node_ip: Option<String>,
    /// UDP port for media, or a range with one media thread for each: "7882-7885".
    #[arg(long, value_name = "PORTS", env = "UDP_PORT")]
    udp_port: Option<PortRange>,
    /// Region that clients are told.
    #[arg(long, env = "LIVEKIT_REGION")]
    region: Option<String>,
    /// debug, info, warn or error.
    #[arg(long, value_name = "LEVEL", env = "LIVEKIT_LOGGING_LEVEL")]
    log_level: Option<String>,
}

impl Arguments {
    /// The file, with the flags laid over it.
    fn config(&self) -> Result<Config, Failure> {
        let mut config = match (&self.config, &self.config_body) {
            (Some(path), _) => read_config(path)?,
            (None, Some(yaml)) => Config::from_yaml(yaml)?,
            (None, None) => Config::default(),
        };
        if !self.bind.is_empty() {
            config.bind_addresses = self.bind.clone();
        }
        config.port = self.port.unwrap_or(config.port);
        config.rtc.udp_port = self.udp_port.or(config.rtc.udp_port);
        for (flag, key) in [
            (&self.node_ip, &mut config.rtc.node_ip),
            (&self.region, &mut config.region),
            (&self.log_level, &mut config.logging.level),
        ] {
            if let Some(value) = flag {
                key.clone_from(value);
            }
        }
        if let Some(keys) = &self.keys {
            config.add_keys(keys)?;
        }
        if self.dev {
            config.apply_dev_mode();
        }
        config.check()?;
        Ok(config)
    }
}

fn read_config(path: &Path) -> Result<Config, Failure> {
    let yaml = std::fs::read_to_string(path)
        .map_err(|error| format!("cannot read the configuration {}: {error}", path.display()))?;
    Config::from_yaml(&yaml).map_err(|error| format!("{}: {error}", path.display()).into())
}

/// Runs the server until it is told to end.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let config = arguments.config()?;
    start_logs(&config.logging.level);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(&config, arguments.dev));
    runtime.shutdown_timeout(Duration::ZERO);
    result
}

fn start_logs(level: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(level));
    let colour = io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colour)
        .init();
}

async fn serve(config: &Config, dev: bool) -> Result<(), Failure> {
    let listeners = listen(config)?;
    let media = Arc::new(Notify::new());
    let (workers, node) = start_media(config, media.clone())?;
    let candidates: Vec<SocketAddr> =
        workers.iter().flat_map(|worker| worker.candidates().to_vec()).collect();

    let (sender, inputs) = mpsc::channel(MAILBOX);
    let gateway = Gateway::new(config.keys.clone().into_iter().collect(), sender.clone());
    let control = Control { node, workers, gateway: gateway.clone(), inputs, media };
    let (stop, stopped) = oneshot::channel();
    let (ended, mut end) = oneshot::channel();
    let thread = thread::Builder::new().name("control".to_owned()).spawn(move || {
        let _ = ended.send(control.run(stopped));
    })?;

    let mut servers = tokio::task::JoinSet::new();
    let mut addresses = Vec::new();
    for listener in listeners {
        addresses.push(listener.local_addr()?);
        servers.spawn(gateway.clone().serve(listener));
    }
    tracing::info!(?addresses, ?candidates, version = env!("CARGO_PKG_VERSION"), "serving");
    if let (true, Some(address)) = (dev, addresses.first()) {
        print_next_steps(config, *address);
    }

    let (mut interrupt, mut terminate) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        result = &mut end => {
            let reason = result.map_or_else(
                |_| "the control thread has panicked".to_owned(),
                |result| result.err().map_or_else(String::new, |error| error.to_string()),
            );
            return Err(format!("ending: {reason}").into());
        }
    }
    tracing::info!(sockets = gateway.sockets(), "ending; participants are told");
    servers.shutdown().await;
    let _ = sender.send(Input::Shutdown).await;
    let _ = tokio::time::timeout(FAREWELL, gateway.drained()).await;
    let _ = stop.send(());
    let result = end.await;
    let _ = thread.join();
    result.map_err(|_| "the control thread has panicked")??;
    Ok(())
}

/// Opens the TCP listeners. Without a bind address both families, of which one may be missing.
fn listen(config: &Config) -> Result<Vec<TcpListener>, Failure> {
    let chosen = !config.bind_addresses.is_empty();
    let dev_default = config.bind_addresses.iter().all(IpAddr::is_loopback);
    let wildcards: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let ips = if chosen { &config.bind_addresses[..] } else { &wildcards };
    let mut listeners = Vec::new();
    for ip in ips {
        let address = SocketAddr::new(*ip, config.port);
        match bind(address) {
            Ok(listener) => listeners.push(listener),
            // A machine without IPv6 is no reason to fail where nobody asked for IPv6.
            Err(error) if ip.is_ipv6() && dev_default && is_no_ipv6(&error) => {
                tracing::debug!(%address, %error, "not listening");
            }
            Err(error) => return Err(bind_failure(address, &error).into()),
        }
    }
    Ok(listeners)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => {
            let socket = TcpSocket::new_v6()?;
            // Else [::] takes the port of IPv4 too, which has a listener of its own.
            rustix::net::sockopt::set_ipv6_v6only(&socket, true)?;
            socket
        }
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(LISTEN_BACKLOG)
}

fn is_no_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error().is_some_and(|code| code == 97)
}

fn bind_failure(address: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "TCP port {} is taken on {}: another server runs there; end it or choose another with --port",
            address.port(),
            address.ip()
        ),
        io::ErrorKind::PermissionDenied => {
            format!(
                "not allowed to listen on TCP port {}: choose one above 1023 with --port",
                address.port()
            )
        }
        io::ErrorKind::AddrNotAvailable => {
            format!(
                "{} is not an address of this machine: choose another with --bind",
                address.ip()
            )
        }
        _ => format!("cannot listen on {address}: {error}"),
    }
}

fn start_media(config: &Config, media: Arc<Notify>) -> Result<(Workers, Node), Failure> {
    let MediaAddresses { listen, announced } = addresses::discover(config)?;
    let ports = config.rtc.udp_port.unwrap_or_else(|| {
        PortRange::starting_at(
            DEFAULT_UDP_PORT,
            thread::available_parallelism().map_or(1, usize::from),
        )
    });
    let identity = DtlsIdentity::generate()?;
    let fingerprint = identity.fingerprint().clone();
    let seeds = (0..ports.count()).map(|_| seed()).collect::<Result<_, _>>()?;
    let workers = WorkersConfig { first_port: ports.first(), listen, announced, identity, seeds };
    let workers = Workers::start(workers, move || media.notify_one())
        .map_err(|error| format!("{error} (choose other ports with --udp-port)"))?;
    let node = NodeConfig {
        api_keys: config.keys.clone().into_iter().collect(),
        region: config.region.clone(),
        ice_servers: ice_servers(config),
        room: RoomSettings {
            empty_timeout: config.room.empty_timeout(),
            departure_timeout: config.room.departure_timeout(),
            max_participants: config.room.max_participants,
            ..RoomSettings::default()
        },
        codecs: config.codecs()?,
        shards: workers.iter().map(|worker| (worker.id(), worker.candidates().to_vec())).collect(),
        fingerprint,
        ice_lite: config.rtc.use_ice_lite,
        enable_remote_unmute: config.room.enable_remote_unmute,
        limits: Limits::default(),
    };
    Ok((workers, Node::new(node, seed()?)))
}

fn ice_servers(config: &Config) -> Vec<proto::IceServer> {
    let urls: Vec<String> =
        config.rtc.stun_servers.iter().map(|server| format!("stun:{server}")).collect();
    if urls.is_empty() {
        return Vec::new();
    }
    vec![proto::IceServer { urls, ..Default::default() }]
}

/// Randomness of the operating system: what `core` must not draw itself.
fn seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| "the operating system gives no randomness")?;
    Ok(seed)
}

fn print_next_steps(config: &Config, address: SocketAddr) {
    let Some((key, secret)) = config.keys.first_key_value() else { return };
    let host = if address.ip().is_unspecified() {
        "localhost".to_owned()
    } else {
        address.ip().to_string()
    };
    let host = if address.is_ipv6() && host.contains(':') { format!("[{host}]") } else { host };
    let port = address.port();
    println!(
        "\nParlor runs in development mode. Do not use it in production with this key.\n\n\
         \x20 URL     ws://{host}:{port}\n\
         \x20 Key     {key}\n\
         \x20 Secret  {secret}\n\n\
         Make a token with which a participant can join:\n\n\
         \x20 parlor token create --api-key {key} --api-secret {secret} --join --room my-room --identity alice\n\n\
         and use it with any LiveKit client, for example https://meet.livekit.io/?tab=custom.\n\
         End the server with Ctrl-C.\n"
    );
}
