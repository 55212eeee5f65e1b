//! One participant's or worker's WebSocket: a handle on the node's side, a task on the client's.

use crate::{
    Gateway, Permit,
    head::Watched,
    http::{Answer, plain, refusal},
    limits::KeySocket,
    websocket::{
        self, CloseCode, DEFLATE_ANSWER, Decoder, Handshake, Opcode, ProtocolError, Received,
    },
};
use ::http::{HeaderValue, Response, StatusCode, header};
use bytes::{Bytes, BytesMut};
use http_body_util::Full;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use parlor_node::io::{Frame, Input, SessionId};
use parlor_signal::ConnectRequest;
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc, oneshot},
    time::{Instant, interval_at, timeout},
};

/// Most messages that wait for a slow client; one more and it is cut off.
pub const MAX_QUEUED_MESSAGES: usize = 4096;
/// Most bytes that wait for a slow client; more and it is cut off.
pub const MAX_QUEUED_BYTES: usize = 8 << 20;
/// Shorter messages are not worth compressing.
const MIN_COMPRESSED_BYTES: usize = 256;
/// Longest message where the operator set no limit.
const UNLIMITED_MESSAGE_BYTES: usize = 64 << 20;
/// A socket that has been silent for so long is pinged, so that no proxy takes it for dead.
const PING_INTERVAL: Duration = Duration::from_secs(10);
/// The node answers a join much earlier; this holds when it is stuck.
const DECISION_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a closing client has to read what waits, and to close in turn.
const CLOSE_TIMEOUT: Duration = Duration::from_millis(500);
/// What an idle socket holds to read into.
const READ_BYTES: usize = 2048;
/// Messages that are there are written together, up to about this much.
const WRITE_BATCH_BYTES: usize = 64 << 10;

pub(crate) type Decision = Result<(), (u16, String)>;

const NO_ANSWER: &str = "the server did not answer in time";

/// The node's end of a socket.
pub(crate) struct SocketHandle {
    decision: Option<oneshot::Sender<Decision>>,
    /// `None` once the node has closed.
    queue: Option<mpsc::Sender<Frame>>,
    load: Arc<Load>,
}

#[derive(Default)]
struct Load {
    queued_bytes: AtomicUsize,
    overflow: Notify,
}

fn frame_bytes(frame: &Frame) -> usize {
    match frame {
        Frame::Binary(bytes) => bytes.len(),
        Frame::Text(text) => text.len(),
    }
}

impl SocketHandle {
    pub(crate) fn decide(&mut self, decision: Decision) {
        if let Some(waiting) = self.decision.take() {
            let _ = waiting.send(decision);
        }
    }

    /// Queues a message, or cuts off a client for which too much waits already.
    pub(crate) fn send(&mut self, frame: Frame) {
        let Some(queue) = &self.queue else { return };
        let bytes = frame_bytes(&frame);
        let queued = self.load.queued_bytes.fetch_add(bytes, Ordering::Relaxed);
        if queued + bytes > MAX_QUEUED_BYTES || queue.try_send(frame).is_err() {
            self.load.overflow.notify_one();
            self.queue = None;
        }
    }

    pub(crate) fn close(&mut self) {
        self.queue = None;
    }
}

/// The client's end, registered with the gateway until it is dropped.
struct Session {
    gateway: Gateway,
    id: SessionId,
    queue: mpsc::Receiver<Frame>,
    load: Arc<Load>,
    message_bytes: usize,
    _permit: Arc<Permit>,
    _key: KeySocket,
}

impl Drop for Session {
    /// Whatever ended the socket, the node hears of it.
    fn drop(&mut self) {
        self.gateway.tables().sockets.remove(&self.id);
        self.gateway.shared.socket_gone.notify_waiters();
        let closed = Input::Closed { session: self.id };
        match self.gateway.shared.inputs.try_send(closed) {
            Err(mpsc::error::TrySendError::Full(closed)) => {
                let gateway = self.gateway.clone();
                tokio::spawn(async move { gateway.tell(closed).await });
            }
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
        }
    }
}

/// Asks the node whether the client would be let in.
pub(crate) async fn validate(gateway: &Gateway, wish: ConnectRequest) -> Decision {
    let id = SessionId(gateway.draw_id());
    let (decision, decided) = oneshot::channel();
    let load = Arc::new(Load::default());
    let handle = SocketHandle { decision: Some(decision), queue: None, load };
    gateway.tables().sockets.insert(id, handle);
    let _forget = ForgetSocket(gateway, id);
    let exchange = async {
        gateway.tell(Input::Validate { session: id, request: Box::new(wish) }).await;
        decided.await
    };
    match timeout(DECISION_TIMEOUT, exchange).await {
        Ok(Ok(decision)) => decision,
        _ => Err((503, NO_ANSWER.to_owned())),
    }
}

/// Removes the handle of a question when it is answered or nobody waits any more.
struct ForgetSocket<'a>(&'a Gateway, SessionId);

impl Drop for ForgetSocket<'_> {
    fn drop(&mut self) {
        self.0.tables().sockets.remove(&self.1);
    }
}

/// Asks the node whether the client may come in, and answers the upgrade accordingly. Messages
/// may be so long as comes with the key; 0 is as long as anybody's.
pub(crate) async fn open(
    gateway: &Gateway,
    handshake: Handshake,
    wish: impl FnOnce(SessionId) -> Input,
    upgrade: OnUpgrade,
    permit: Arc<Permit>,
    (key, message_bytes): (KeySocket, usize),
) -> Answer {
    let id = SessionId(gateway.draw_id());
    let (decision, decided) = oneshot::channel();
    let (sender, queue) = mpsc::channel(MAX_QUEUED_MESSAGES);
    let load = Arc::new(Load::default());
    let handle = SocketHandle { decision: Some(decision), queue: Some(sender), load: load.clone() };
    gateway.tables().sockets.insert(id, handle);
    let message_bytes = if message_bytes == 0 { UNLIMITED_MESSAGE_BYTES } else { message_bytes };
    let session = Session {
        gateway: gateway.clone(),
        id,
        queue,
        load,
        message_bytes,
        _permit: permit,
        _key: key,
    };
    let exchange = async {
        gateway.tell(wish(id)).await;
        decided.await
    };
    match timeout(DECISION_TIMEOUT, exchange).await {
        Ok(Ok(Ok(()))) => {}
        Ok(Ok(Err((status, body)))) => return refusal(status, body),
        _ => return plain(StatusCode::SERVICE_UNAVAILABLE, NO_ANSWER),
    }
    tokio::spawn(session.run(upgrade, handshake.deflate));
    switching_protocols(&handshake)
}

fn switching_protocols(handshake: &Handshake) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    if let Ok(accept) = HeaderValue::from_str(&handshake.accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if handshake.deflate {
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, HeaderValue::from_static(DEFLATE_ANSWER));
    }
    answer
}

/// Why a socket ends.
enum End {
    /// The node closed it, or the peer did.
    Close,
    /// The peer broke the protocol.
    Broken(ProtocolError),
    /// The connection is gone, or not worth another byte.
    Gone,
}

impl Session {
    async fn run(mut self, upgrade: OnUpgrade, deflate: bool) {
        let Ok(Ok(upgraded)) = timeout(DECISION_TIMEOUT, upgrade).await else { return };
        let Ok((mut stream, input, output)) = take_stream(upgraded) else { return };
        let load = self.load.clone();
        let end = tokio::select! {
            end = self.exchange(&mut stream, input, output, deflate) => end,
            () = load.overflow.notified() => {
                tracing::warn!(session = self.id.0, "client reads too slowly, cut off");
                End::Gone
            }
        };
        let code = match end {
            End::Close => CloseCode::Normal,
            End::Broken(error) => {
                tracing::debug!(session = self.id.0, %error, "client broke the WebSocket protocol");
                error.close_code()
            }
            End::Gone => return,
        };
        let _ = timeout(CLOSE_TIMEOUT, say_goodbye(&mut stream, code)).await;
    }

    /// Moves messages both ways until one side ends it.
    async fn exchange(
        &mut self,
        stream: &mut TcpStream,
        mut input: BytesMut,
        mut output: BytesMut,
        deflate: bool,
    ) -> End {
        let (reader, mut writer) = stream.split();
        let mut decoder = Decoder::new(deflate);
        decoder.admit(self.message_bytes);
        let mut ping = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
        // What the node says first leaves with the answer to the upgrade.
        if let Ok(frame) = self.queue.try_recv() {
            self.take_frames(frame, deflate, &mut output);
        }
        if let Err(error) = writer.write_all(&output).await {
            return self.gone(&error);
        }
        output = BytesMut::new();
        loop {
            // What came with the upgrade is decoded before anything is read.
            match self.take_messages(&mut decoder, &mut input, &mut output).await {
                Ok(()) => {}
                Err(end) => return end,
            }
            if let Err(error) = writer.write_all(&output).await {
                return self.gone(&error);
            }
            output = BytesMut::new();
            if input.is_empty() {
                input = BytesMut::new();
            }
            tokio::select! {
                ready = reader.readable() => {
                    if let Err(error) = ready {
                        return self.gone(&error);
                    }
                    input.reserve(READ_BYTES);
                    match reader.try_read_buf(&mut input) {
                        Ok(0) => return End::Gone,
                        Ok(_) => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        Err(error) => return self.gone(&error),
                    }
                }
                frame = self.queue.recv() => match frame {
                    Some(frame) => {
                        self.take_frames(frame, deflate, &mut output);
                        ping.reset();
                    }
                    None => return End::Close,
                },
                _ = ping.tick() => websocket::encode(Opcode::Ping, false, &[], &mut output),
            }
        }
    }

    /// Hands decoded messages to the node and answers pings.
    async fn take_messages(
        &self,
        decoder: &mut Decoder,
        input: &mut BytesMut,
        output: &mut BytesMut,
    ) -> Result<(), End> {
        loop {
            let frame = match decoder.decode(input).map_err(End::Broken)? {
                None => return Ok(()),
                Some(Received::Binary(bytes)) => Frame::Binary(Bytes::copy_from_slice(&bytes)),
                Some(Received::Text(text)) => Frame::Text(text),
                Some(Received::Close(_)) => return Err(End::Close),
                Some(Received::Pong) => continue,
                Some(Received::Ping(payload)) => {
                    websocket::encode(Opcode::Pong, false, &payload, output);
                    if output.len() > WRITE_BATCH_BYTES {
                        return Err(End::Gone);
                    }
                    continue;
                }
            };
            // On the heap: an idle socket does not hold room for it.
            let told = Box::pin(self.gateway.tell(Input::Frame { session: self.id, frame }));
            if !told.await {
                return Err(End::Close);
            }
        }
    }

    /// Encodes a message, and those that wait behind it as far as they fit into one write.
    fn take_frames(&mut self, first: Frame, deflate: bool, output: &mut BytesMut) {
        let mut next = Some(first);
        while let Some(frame) = next {
            self.load.queued_bytes.fetch_sub(frame_bytes(&frame), Ordering::Relaxed);
            encode(&frame, deflate, output);
            next = if output.len() < WRITE_BATCH_BYTES { self.queue.try_recv().ok() } else { None };
        }
    }

    fn gone(&self, error: &io::Error) -> End {
        tracing::debug!(session = self.id.0, %error, "socket ended");
        End::Gone
    }
}

fn encode(frame: &Frame, deflate: bool, output: &mut BytesMut) {
    let (opcode, payload) = match frame {
        Frame::Binary(bytes) => (Opcode::Binary, &bytes[..]),
        Frame::Text(text) => (Opcode::Text, text.as_bytes()),
    };
    let worth_it = deflate && payload.len() >= MIN_COMPRESSED_BYTES;
    match worth_it.then(|| websocket::compress(payload)).flatten() {
        Some(packed) => websocket::encode(opcode, true, &packed, output),
        None => websocket::encode(opcode, false, payload, output),
    }
}

/// The TCP stream below, what was read of it already, and what has to be written to it first.
/// hyper's buffers go.
fn take_stream(upgraded: Upgraded) -> Result<(TcpStream, BytesMut, BytesMut), Upgraded> {
    let parts = upgraded.downcast::<TokioIo<Watched<TcpStream>>>()?;
    let (stream, held) = parts.io.into_inner().into_parts();
    Ok((stream, BytesMut::from(&parts.read_buf[..]), BytesMut::from(&held[..])))
}

/// Sends a close frame and reads on until the client closes too.
async fn say_goodbye(stream: &mut TcpStream, code: CloseCode) -> io::Result<()> {
    let mut close = BytesMut::new();
    websocket::encode(Opcode::Close, false, &(code as u16).to_be_bytes(), &mut close);
    stream.write_all(&close).await?;
    stream.shutdown().await?;
    let mut ignored = [0; READ_BYTES];
    while stream.read(&mut ignored).await? > 0 {}
    Ok(())
}
