//! `parlor serve`.

use crate::{
    Failure,
    addresses::{self, MediaAddresses},
    arguments::Arguments,
    check,
    control::{self, Control, MAILBOX, Order, Traffic},
    metrics::{self, Metrics},
    outbox::Outlet,
    settings,
};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use parlor_config::{Config, DEFAULT_TCP_PORT};
use parlor_gateway::Gateway;
use parlor_node::{
    Node, NodeConfig, TcpPolicy,
    io::{Input, Kept},
};
use parlor_storage::Storage;
use parlor_transport::DtlsIdentity;
use parlor_webhook::{WebhookConfig, Webhooks};
use parlor_workers::{StartError, TcpConfig, TcpLimits, Workers, WorkersConfig};
use std::{
    io::{self, IsTerminal},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    thread,
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{Signal, SignalKind, signal},
    sync::{Notify, mpsc, oneshot},
};
use tracing_subscriber::EnvFilter;

/// How long participants have to take leave when the server ends.
const FAREWELL: Duration = Duration::from_secs(2);
const LISTEN_BACKLOG: u32 = 1024;
/// Questions of operators that wait for the control thread.
const ORDERS_MAX: usize = 16;
/// How often a server that drains looks whether everybody has left.
const DRAIN_LOOK: Duration = Duration::from_millis(500);

/// Runs the server until it is told to end.
pub fn run(arguments: &Arguments) -> Result<(), Failure> {
    let (config, remarks) = arguments.config()?;
    let mut warnings: Vec<String> = remarks.iter().map(ToString::to_string).collect();
    warnings.extend(check::warnings(&config, arguments.dev));
    if arguments.check {
        print!("{}", check::report(&config, &addresses::discover(&config)?, warnings));
        return Ok(());
    }
    let set_level = start_logs(&config);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(serve(arguments, &config, &set_level));
    runtime.shutdown_timeout(Duration::ZERO);
    result
}

/// Sets the level of the logs.
type SetLevel = Box<dyn Fn(&str)>;

fn start_logs(config: &Config) -> SetLevel {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(config.log_level()));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal() && !config.logging.json);
    if config.logging.json {
        let logs = logs.json().with_filter_reloading();
        let handle = logs.reload_handle();
        logs.init();
        return Box::new(move |level| drop(handle.reload(EnvFilter::new(level))));
    }
    let logs = logs.with_filter_reloading();
    let handle = logs.reload_handle();
    logs.init();
    Box::new(move |level| drop(handle.reload(EnvFilter::new(level))))
}

/// What is told of a running server, and can be told to it.
struct Edges {
    gateway: Gateway,
    webhooks: Option<Webhooks>,
    orders: mpsc::Sender<Order>,
    inputs: mpsc::Sender<Input>,
}

/// What the server is told by signals; caught before anybody can know that it runs.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    quit: Signal,
    hangup: Signal,
}

impl Signals {
    fn catch() -> io::Result<Signals> {
        Ok(Signals {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            quit: signal(SignalKind::quit())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

async fn serve(
    arguments: &Arguments,
    config: &Config,
    set_level: &SetLevel,
) -> Result<(), Failure> {
    let signals = Signals::catch()?;
    // All of them before anybody is answered: who finds one port open may count on the other.
    let listeners = listen_on(config, config.port)?;
    let metrics_listeners = match config.prometheus_port() {
        Some(port) => listen_on(config, port)?,
        None => Vec::new(),
    };
    let media = Arc::new(Notify::new());
    let (workers, mut node) = start_media(config, media.clone())?;
    let candidates: Vec<String> =
        workers.iter().flat_map(|worker| worker.candidates()).map(ToString::to_string).collect();

    let (sender, inputs) = mpsc::channel(MAILBOX);
    let (order, orders) = mpsc::channel(ORDERS_MAX);
    let gateway = Gateway::new(settings::api_keys(config), sender.clone());
    gateway.set_limits(settings::gateway_limits(config));
    let storage = open_storage(config)?;
    let webhooks = start_webhooks(config, storage.clone())?;
    if let Some(storage) = &storage {
        restore(&mut node, storage)?;
    }
    let (outlet, outbox) = Outlet::new(gateway.clone(), webhooks.clone(), storage)?;
    let traffic = Traffic::default();
    let control = Control { node, workers, outlet, inputs, orders, media, traffic };
    let (stop, stopped) = oneshot::channel();
    let (ended, mut end) = oneshot::channel();
    let thread = thread::Builder::new().name("control".to_owned()).spawn(move || {
        let _ = ended.send(control.run(stopped));
    })?;

    let edges = Edges { gateway, webhooks, orders: order, inputs: sender };
    serve_metrics(config, &edges, metrics_listeners);
    let mut servers = tokio::task::JoinSet::new();
    let mut addresses = Vec::new();
    for listener in listeners {
        addresses.push(listener.local_addr()?);
        servers.spawn(edges.gateway.clone().serve(listener));
    }
    tracing::info!(?addresses, ?candidates, version = env!("CARGO_PKG_VERSION"), "serving");
    if let (true, Some(address)) = (arguments.dev, addresses.first()) {
        print_next_steps(config, *address);
    }
    tokio::select! {
        () = wait_for_end(arguments, &edges, set_level, signals) => {}
        result = &mut end => {
            let reason = result.map_or_else(
                |_| "the control thread has panicked".to_owned(),
                |result| result.err().map_or_else(String::new, |error| error.to_string()),
            );
            return Err(format!("ending: {reason}").into());
        }
    }
    tracing::info!(sockets = edges.gateway.sockets(), "ending; participants are told");
    servers.shutdown().await;
    let _ = edges.inputs.send(Input::Shutdown).await;
    let _ = tokio::time::timeout(FAREWELL, edges.gateway.drained()).await;
    let _ = stop.send(());
    let result = end.await;
    let _ = thread.join();
    if let (Some(outbox), Some(webhooks)) = (outbox, &edges.webhooks) {
        // What does not get through now is kept for the next start, if there is a storage.
        let _ = tokio::task::spawn_blocking(move || outbox.join()).await;
        let _ = tokio::time::timeout(FAREWELL, webhooks.drained()).await;
    }
    result.map_err(|_| "the control thread has panicked")??;
    Ok(())
}

/// Returns when the server has to end: at once in development mode, else when everybody has
/// left, when the time for that is over, or at the second signal. Obeys SIGHUP meanwhile.
async fn wait_for_end(
    arguments: &Arguments,
    edges: &Edges,
    set_level: &SetLevel,
    mut signals: Signals,
) {
    let mut draining = false;
    let mut look = tokio::time::interval(DRAIN_LOOK);
    let mut deadline = None;
    loop {
        let stop = async {
            tokio::select! {
                _ = signals.interrupt.recv() => {}
                _ = signals.terminate.recv() => {}
                _ = signals.quit.recv() => {}
            }
        };
        tokio::select! {
            () = stop => {
                if draining || arguments.dev {
                    return;
                }
                draining = true;
                deadline = Some(tokio::time::Instant::now() + arguments.drain_timeout());
                edges.gateway.drain();
                tracing::info!("nobody is let in any more; the second signal ends at once");
            }
            _ = signals.hangup.recv() => reload(arguments, edges, set_level).await,
            _ = look.tick(), if draining => {
                let is_over = deadline.is_some_and(|at| at <= tokio::time::Instant::now());
                if is_over || edges.participants().await == 0 {
                    return;
                }
            }
        }
    }
}

impl Edges {
    async fn participants(&self) -> usize {
        let (answer, totals) = oneshot::channel();
        let _ = self.orders.send(Order::Count(answer)).await;
        totals.await.map_or(0, |totals| totals.counts.participants)
    }
}

/// Takes over keys, limits and log level of the changed configuration. A bad one changes nothing.
async fn reload(arguments: &Arguments, edges: &Edges, set_level: &SetLevel) {
    let config = match arguments.config() {
        Ok((config, _)) => config,
        Err(error) => {
            tracing::error!(%error, "the configuration was not reloaded");
            return;
        }
    };
    set_level(config.log_level());
    edges.gateway.set_keys(settings::api_keys(&config));
    edges.gateway.set_limits(settings::gateway_limits(&config));
    if let (Some(webhooks), Some(secret)) =
        (&edges.webhooks, config.keys.get(&config.webhook.api_key))
    {
        webhooks.set_secret(secret.clone());
    }
    let order = Order::Reconfigure(settings::api_keys(&config), settings::node_limits(&config));
    let _ = edges.orders.send(order).await;
    tracing::info!("keys, limits and log level reloaded");
}

fn open_storage(config: &Config) -> Result<Option<Arc<Storage>>, Failure> {
    let path = &config.storage.path;
    Ok(match path.is_empty() {
        true => None,
        false => Some(Arc::new(Storage::open(Path::new(path))?)),
    })
}

/// Gives the node what was kept when the server ran before.
fn restore(node: &mut Node, storage: &Storage) -> Result<(), Failure> {
    let mut objects = Vec::new();
    for kind in parlor_node::kept_kinds() {
        let of_kind = storage.list(kind)?.into_iter();
        objects.extend(of_kind.map(|(id, value)| Kept { kind: kind.to_owned(), id, value }));
    }
    if !objects.is_empty() {
        tracing::info!(objects = objects.len(), "restored");
        node.handle(control::now(), Input::Restore(objects));
    }
    Ok(())
}

fn start_webhooks(
    config: &Config,
    storage: Option<Arc<Storage>>,
) -> Result<Option<Webhooks>, Failure> {
    let chosen = &config.webhook;
    if chosen.urls.is_empty() {
        return Ok(None);
    }
    let (filter, queue) = (&chosen.filter_params, &chosen.resource_url_notifier);
    let default = WebhookConfig::default();
    let webhooks = WebhookConfig {
        urls: chosen.urls.clone(),
        api_key: chosen.api_key.clone(),
        secret: config.keys.get(&chosen.api_key).cloned().unwrap_or_default(),
        include_events: filter.include_events.clone(),
        exclude_events: filter.exclude_events.clone(),
        max_age: queue.max_age.unwrap_or(default.max_age),
        max_depth: queue.max_depth.unwrap_or(default.max_depth),
    };
    let runtime = tokio::runtime::Handle::current();
    Ok(Some(Webhooks::start(webhooks, storage, runtime)?))
}

/// The metrics port, and the answers to the debug view.
fn serve_metrics(config: &Config, edges: &Edges, listeners: Vec<TcpListener>) {
    let (questions, asked) = mpsc::channel(ORDERS_MAX);
    edges.gateway.set_rooms(questions);
    tokio::spawn(metrics::show_rooms(asked, edges.orders.clone()));
    let metrics = Metrics {
        orders: edges.orders.clone(),
        gateway: edges.gateway.clone(),
        webhooks: edges.webhooks.clone(),
    };
    let prometheus = &config.prometheus;
    let auth = (!prometheus.username.is_empty()).then(|| parlor_metrics::BasicAuth {
        username: prometheus.username.clone(),
        password: prometheus.password.clone(),
    });
    for listener in listeners {
        let metrics = metrics.clone();
        let page = move || metrics.clone().page();
        tokio::spawn(parlor_metrics::serve(listener, auth.clone(), page));
    }
}

/// Opens the TCP listeners. Without a bind address both families, of which one may be missing.
fn listen_on(config: &Config, port: u16) -> Result<Vec<TcpListener>, Failure> {
    let chosen = !config.bind_addresses.is_empty();
    let dev_default = config.bind_addresses.iter().all(IpAddr::is_loopback);
    let wildcards: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    let ips = if chosen { &config.bind_addresses[..] } else { &wildcards };
    let mut listeners = Vec::new();
    for ip in ips {
        let address = SocketAddr::new(*ip, port);
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
    let MediaAddresses { listen, announced, warnings } = addresses::discover(config)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let processors = addresses::processors();
    let (ports, threads) = (config.media_ports(processors), config.media_threads(processors));
    let identity = DtlsIdentity::generate()?;
    let fingerprint = identity.fingerprint().clone();
    let seeds = (0..threads).map(|_| seed()).collect::<Result<_, _>>()?;
    let tcp = tcp_port(config).map(|port| TcpConfig { port, limits: tcp_limits(config) });
    let first_port = ports.first();
    let active_red_encoding = config.audio.active_red_encoding;
    let slow_reader_bps = config.rtc.datachannel_slow_threshold;
    let workers = WorkersConfig {
        first_port,
        shares_port: ports.count() < threads,
        listen,
        announced,
        tcp,
        identity,
        active_red_encoding,
        slow_reader_bps,
        seeds,
    };
    let workers = start_workers(workers, config, media)?;
    let has_tcp = workers.half_open_counters().is_some();
    if config.rtc.force_tcp && !has_tcp {
        return Err("rtc.force_tcp leaves no way for media without rtc.tcp_port".into());
    }
    let node = NodeConfig {
        api_keys: settings::api_keys(config),
        region: config.region.clone(),
        ice_servers: settings::ice_servers(config),
        room: settings::room(config),
        codecs: config.codecs()?,
        shards: workers.iter().map(|worker| (worker.id(), worker.candidates().to_vec())).collect(),
        fingerprint,
        ice_lite: config.rtc.use_ice_lite,
        tcp: TcpPolicy {
            only: config.rtc.force_tcp,
            fallback: config.rtc.allow_tcp_fallback && has_tcp,
            fallback_rtt_threshold_ms: config.rtc.tcp_fallback_rtt_threshold,
        },
        enable_remote_unmute: config.room.enable_remote_unmute,
        room_rules: settings::room_rules(config),
        limits: settings::node_limits(config),
    };
    let mut node = Node::new(node, seed()?);
    let ingress = &config.ingress;
    node.configure_ingress(parlor_node::CatalogConfig {
        rtmp_base_url: ingress.rtmp_base_url.clone(),
        whip_base_url: ingress.whip_base_url.clone(),
    });
    node.configure_agents(config.agents.target_load);
    Ok((workers, node))
}

/// Where peers come over TCP, unless that is switched off.
pub(crate) fn tcp_port(config: &Config) -> Option<u16> {
    Some(config.rtc.tcp_port.unwrap_or(DEFAULT_TCP_PORT)).filter(|port| *port != 0)
}

fn tcp_limits(config: &Config) -> TcpLimits {
    TcpLimits {
        connections_per_address: config.limit.connections_per_address,
        half_open_per_address: config.limit.half_open_per_address,
    }
}

/// Starts the media threads. A TCP port that nobody chose and that is taken is done without.
fn start_workers(
    workers: WorkersConfig,
    config: &Config,
    media: Arc<Notify>,
) -> Result<Workers, Failure> {
    let start = |workers: WorkersConfig| {
        let media = media.clone();
        Workers::start(workers, move || media.notify_one())
    };
    let started = match start(workers.clone()) {
        Err(error @ StartError::Listen { .. }) if config.rtc.tcp_port.is_none() => {
            tracing::warn!("{error}; media goes over UDP only (choose a port with rtc.tcp_port)");
            start(WorkersConfig { tcp: None, ..workers })
        }
        started => started,
    };
    started.map_err(|error| {
        let key = match error {
            StartError::Listen { .. } => "another port with --rtc.tcp_port",
            _ => "other ports with --udp-port",
        };
        format!("{error} (choose {key})").into()
    })
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
