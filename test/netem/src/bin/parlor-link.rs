//! A bad link before a real server: a UDP relay whose two directions are [`Link`]s.
//!
//! `parlor-link LISTEN SERVER [delay_ms=300] [jitter_ms=5] [rate_kbps=500] [queue_ms=200]
//! [loss=0.02] [to_bad=0.01 to_good=0.2] [seed=1]`
//!
//! Clients send to LISTEN; each gets a socket of its own towards SERVER, as behind a NAT. It ends
//! with its standard input, and prints `ready` when it listens.
#![forbid(unsafe_code)]

use parlor_netem::{Link, LinkConfig, Loss};
use std::{
    collections::BTreeMap,
    error::Error,
    io::Read,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

const DATAGRAM_BYTES: usize = 2048;
/// How long to wait where nothing is on its way.
const IDLE: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
enum From {
    Client(SocketAddr),
    /// What the server answers to the client of this address.
    Server(SocketAddr),
}

type Datagram = (From, Vec<u8>);

fn config(options: &BTreeMap<String, f64>) -> LinkConfig {
    let of = |name: &str| options.get(name).copied().unwrap_or(0.0);
    let ms = |name: &str| Duration::from_secs_f64(of(name) / 1000.0);
    let default = LinkConfig::default();
    LinkConfig {
        delay: ms("delay_ms"),
        jitter: ms("jitter_ms"),
        rate_bps: options.get("rate_kbps").map(|kbps| (kbps * 1000.0) as u64),
        queue: if options.contains_key("queue_ms") { ms("queue_ms") } else { default.queue },
        loss: match options.get("to_bad") {
            Some(&to_bad) => Loss::Gilbert { to_bad, to_good: of("to_good") },
            None => Loss::Independent(of("loss")),
        },
        ..default
    }
}

/// Hands on what comes, until there is nobody to hand it to.
fn read(socket: Arc<UdpSocket>, came: Sender<Datagram>, from: impl Fn(SocketAddr) -> From) {
    let mut datagram = [0; DATAGRAM_BYTES];
    loop {
        // A closed port at the other end is an error of one datagram only.
        let Ok((len, address)) = socket.recv_from(&mut datagram) else { continue };
        if came.send((from(address), datagram[..len].to_vec())).is_err() {
            return;
        }
    }
}

struct Relay {
    near: Arc<UdpSocket>,
    server: SocketAddr,
    towards_server: BTreeMap<SocketAddr, Arc<UdpSocket>>,
    up: Link<Datagram>,
    down: Link<Datagram>,
    came: Sender<Datagram>,
}

impl Relay {
    fn run(mut self, comes: &Receiver<Datagram>) -> Result<(), Box<dyn Error>> {
        loop {
            let now = Instant::now();
            while let Some((from, datagram)) = self.up.poll(now).or_else(|| self.down.poll(now)) {
                self.deliver(from, &datagram)?;
            }
            let next = [self.up.poll_timeout(), self.down.poll_timeout()];
            let next = next.into_iter().flatten().min().unwrap_or(now + IDLE);
            match comes.recv_timeout(next.saturating_duration_since(now)) {
                Ok((from, datagram)) => {
                    let link = match from {
                        From::Client(_) => &mut self.up,
                        From::Server(_) => &mut self.down,
                    };
                    let len = datagram.len();
                    link.send(Instant::now(), (from, datagram), len);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            }
        }
    }

    fn deliver(&mut self, from: From, datagram: &[u8]) -> Result<(), Box<dyn Error>> {
        let client = match from {
            From::Server(client) => {
                let _ = self.near.send_to(datagram, client);
                return Ok(());
            }
            From::Client(client) => client,
        };
        if !self.towards_server.contains_key(&client) {
            let socket = Arc::new(UdpSocket::bind((self.near.local_addr()?.ip(), 0))?);
            socket.connect(self.server)?;
            let (reader, came) = (socket.clone(), self.came.clone());
            thread::spawn(move || read(reader, came, |_| From::Server(client)));
            self.towards_server.insert(client, socket);
        }
        let _ = self.towards_server[&client].send(datagram);
        Ok(())
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (listen, server) = arguments.next().zip(arguments.next()).ok_or("LISTEN and SERVER")?;
    let mut options = BTreeMap::new();
    for argument in arguments {
        let (name, value) = argument.split_once('=').ok_or("name=value")?;
        options.insert(name.to_owned(), value.parse()?);
    }
    let seed = options.get("seed").map_or(1, |seed| *seed as u64);
    let near = Arc::new(UdpSocket::bind(&listen)?);
    let (came, comes) = channel();
    let (reader, sender) = (near.clone(), came.clone());
    thread::spawn(move || read(reader, sender, From::Client));
    thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    println!("ready");
    let (up, down) = (Link::new(config(&options), seed), Link::new(config(&options), seed + 1));
    let relay =
        Relay { near, server: server.parse()?, towards_server: BTreeMap::new(), up, down, came };
    relay.run(&comes)
}
