//! The HTTP side of the server: WebSockets of participants and calls of the server API.
//!
//! [`Gateway`] accepts connections, checks tokens, decodes requests and turns them into
//! [`parlor_node::io::Input`]s on a bounded channel. Whoever owns the node hands its
//! [`Output`]s back through [`Gateway::deliver`], from any thread. The gateway decides nothing
//! about rooms: it refuses what is not well formed, and bounds what a client can make it hold.
//!
//! In the order of a request: `http` (routes, CORS, tokens), then `socket` (one task per
//! WebSocket, over [`websocket`]) or [`twirp`].
//!
//! ```no_run
//! use parlor_gateway::Gateway;
//! # async fn example() -> std::io::Result<()> {
//! let keys = [("devkey".to_owned(), "secret".to_owned())].into_iter().collect();
//! let (inputs, mut of_the_node) = tokio::sync::mpsc::channel(1024);
//! let gateway = Gateway::new(keys, inputs);
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:7880").await?;
//! tokio::spawn(gateway.clone().serve(listener));
//! while let Some(input) = of_the_node.recv().await {
//!     // node.handle(now, input), then for each output of the node:
//!     // gateway.deliver(output);
//!     # let _ = input;
//! }
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod answered;
mod cors;
mod head;
mod http;
mod limits;
mod socket;
pub mod twirp;
pub mod websocket;

pub use limits::{ADDRESSES_MAX, GatewayLimits};
pub use parlor_signal::connect::NameLimits;

pub use answered::{Answered, LATENCY_BOUNDS_US};
use head::{Head, Watched};
use hyper_util::rt::{TokioIo, TokioTimer};
use parlor_node::{
    api::{ApiError, ApiResponse},
    io::{CallId, Input, Output, SessionId},
};
use parlor_signal::ApiKeys;
use socket::SocketHandle;
use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    net::TcpListener,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
};

/// Most TCP connections at once; further ones wait to be accepted.
pub const MAX_CONNECTIONS: usize = 65_536;
/// A request's headers must have come by then.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// After an accept that failed, for lack of file descriptors as a rule.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Asks for the state of all rooms as JSON.
pub type RoomsQuestion = oneshot::Sender<String>;

/// A connection's place, held until its last request or its WebSocket is done.
pub(crate) struct Permit {
    _slot: OwnedSemaphorePermit,
    pub(crate) connection: limits::Connection,
}

/// The HTTP server. Clones are the same gateway.
#[derive(Clone)]
pub struct Gateway {
    shared: Arc<Shared>,
}

struct Shared {
    keys: RwLock<ApiKeys>,
    ledger: limits::Ledger,
    draining: AtomicBool,
    rooms: OnceLock<mpsc::Sender<RoomsQuestion>>,
    answered: Mutex<BTreeMap<String, Answered>>,
    joins_refused: AtomicU64,
    inputs: mpsc::Sender<Input>,
    connections: Arc<Semaphore>,
    next_id: AtomicU64,
    tables: Mutex<Tables>,
    socket_gone: Notify,
}

#[derive(Default)]
struct Tables {
    sockets: HashMap<SessionId, SocketHandle>,
    calls: HashMap<CallId, oneshot::Sender<Result<ApiResponse, ApiError>>>,
}

impl Gateway {
    /// A gateway that verifies tokens with `keys` and sends what it hears to `inputs`.
    pub fn new(keys: ApiKeys, inputs: mpsc::Sender<Input>) -> Self {
        let shared = Shared {
            keys: RwLock::new(keys),
            ledger: limits::Ledger::default(),
            draining: AtomicBool::new(false),
            rooms: OnceLock::new(),
            answered: Mutex::default(),
            joins_refused: AtomicU64::new(0),
            inputs,
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
            next_id: AtomicU64::new(1),
            tables: Mutex::default(),
            socket_gone: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Serves one listening socket for ever.
    pub async fn serve(self, listener: TcpListener) {
        loop {
            let Ok(permit) = self.shared.connections.clone().acquire_owned().await else { return };
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let _ = stream.set_nodelay(true);
            let gateway = self.clone();
            let Some(connection) = gateway.shared.ledger.connection(peer.ip()) else {
                tracing::debug!(%peer, "too many connections of this address");
                continue;
            };
            let permit = Arc::new(Permit { _slot: permit, connection });
            tokio::spawn(async move {
                let head = Head::default();
                let service = hyper::service::service_fn(|request| {
                    let (gateway, permit) = (gateway.clone(), permit.clone());
                    let head = head.clone();
                    async move {
                        let answer = match head.may_contradict(&request) {
                            true => http::contradictory(),
                            false => gateway.answer(request, peer.ip(), permit).await,
                        };
                        if answer.status() == ::http::StatusCode::SWITCHING_PROTOCOLS {
                            head.switch();
                        }
                        Ok::<_, std::convert::Infallible>(answer)
                    }
                });
                let stream = Watched::new(stream, head.clone());
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADER_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                if let Err(error) = connection.await {
                    tracing::debug!(%peer, %error, "connection ended");
                }
            });
        }
    }

    /// Does what the node wants done. Never waits; media commands are not for the gateway.
    pub fn deliver(&self, output: Output) {
        match output {
            Output::Accept { session } => {
                self.tables().with_socket(session, |socket| socket.decide(Ok(())))
            }
            Output::Refuse { session, status, body } => {
                self.tables().with_socket(session, |socket| socket.decide(Err((status, body))));
            }
            Output::Frame { session, frame } => {
                self.tables().with_socket(session, |socket| socket.send(frame))
            }
            Output::Close { session } => self.tables().with_socket(session, SocketHandle::close),
            Output::Reply { call, result } => {
                if let Some(waiting) = self.tables().calls.remove(&call) {
                    let _ = waiting.send(*result);
                }
            }
            Output::Media { .. } | Output::Webhook(_) | Output::Keep(_) | Output::Forget { .. } => {
            }
        }
    }

    /// Bounds what is taken from now on.
    pub fn set_limits(&self, limits: GatewayLimits) {
        self.shared.ledger.set(limits);
    }

    /// Verifies tokens with other keys from now on.
    pub fn set_keys(&self, keys: ApiKeys) {
        *self.shared.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Lets nobody new in any more. Who is in may come back.
    pub fn drain(&self) {
        self.shared.draining.store(true, Ordering::Relaxed);
    }

    /// Whom to ask for `/debug/rooms`. Without, there is no such page.
    pub fn set_rooms(&self, rooms: mpsc::Sender<RoomsQuestion>) {
        let _ = self.shared.rooms.set(rooms);
    }

    /// What was refused because of [`GatewayLimits`].
    pub fn refused(&self) -> u64 {
        self.shared.ledger.refused()
    }

    /// Joins that the node has not heard of, because their request was no good.
    pub fn joins_refused(&self) -> u64 {
        self.shared.joins_refused.load(Ordering::Relaxed)
    }

    /// Answers of the server API by path.
    pub fn answered(&self) -> BTreeMap<String, Answered> {
        self.shared.answered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Number of open WebSockets.
    pub fn sockets(&self) -> usize {
        self.tables().sockets.len()
    }

    /// Returns once no WebSocket is open.
    pub async fn drained(&self) {
        loop {
            let gone = self.shared.socket_gone.notified();
            if self.sockets() == 0 {
                return;
            }
            gone.await;
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.shared.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn draw_id(&self) -> u64 {
        self.shared.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells the node; `false` if there is no node any more.
    async fn tell(&self, input: Input) -> bool {
        self.shared.inputs.send(input).await.is_ok()
    }
}

impl Tables {
    fn with_socket(&mut self, session: SessionId, act: impl FnOnce(&mut SocketHandle)) {
        if let Some(socket) = self.sockets.get_mut(&session) {
            act(socket);
        }
    }
}
