//! The signal sockets of all participants, on one thread.

use crate::worker::{Input, WorkerHandle};
use futures_util::{SinkExt, StreamExt};
use std::{io, thread, time::Duration};
use tokio::{
    runtime,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time::timeout,
};
use tokio_tungstenite::{
    connect_async_with_config,
    tungstenite::{
        self, Message, client::IntoClientRequest, http::HeaderValue, protocol::WebSocketConfig,
    },
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Signal messages are small; the defaults hold 128 KiB for each direction.
const BUFFER_BYTES: usize = 4096;

/// A signal socket to open for a participant.
pub(crate) struct Connect {
    pub participant: usize,
    pub worker: WorkerHandle,
    /// With path and query.
    pub url: String,
    pub token: String,
    /// Messages to send; the socket closes when the sender is gone.
    pub outgoing: UnboundedReceiver<Vec<u8>>,
}

/// Starts the thread. It ends once the sender is dropped.
pub(crate) fn start() -> io::Result<UnboundedSender<Connect>> {
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, mut connects) = unbounded_channel::<Connect>();
    thread::Builder::new().name("signal".into()).spawn(move || {
        runtime.block_on(async {
            while let Some(connect) = connects.recv().await {
                tokio::spawn(serve(connect));
            }
        });
    })?;
    Ok(sender)
}

async fn serve(mut connect: Connect) {
    let reason = match exchange(&mut connect).await {
        Ok(()) => None,
        Err(error) => Some(describe(&error)),
    };
    connect.worker.send(Input::SignalClosed { participant: connect.participant, reason });
}

/// The refusal's text, if the server gave one: it says more than the status.
fn describe(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            format!("{} {}", response.status(), String::from_utf8_lossy(body)).trim().to_owned()
        }
        other => other.to_string(),
    }
}

async fn exchange(connect: &mut Connect) -> Result<(), tungstenite::Error> {
    let mut request = connect.url.as_str().into_client_request()?;
    let bearer = HeaderValue::try_from(format!("Bearer {}", connect.token))?;
    request.headers_mut().insert("Authorization", bearer);
    let config = WebSocketConfig::default()
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES)
        .max_write_buffer_size(1 << 20);
    let opening = connect_async_with_config(request, Some(config), true);
    let (mut socket, _) = timeout(CONNECT_TIMEOUT, opening)
        .await
        .map_err(|_| tungstenite::Error::Io(io::ErrorKind::TimedOut.into()))??;
    loop {
        tokio::select! {
            message = socket.next() => match message {
                Some(Ok(Message::Binary(bytes))) => {
                    let participant = connect.participant;
                    connect.worker.send(Input::Signal { participant, message: bytes.into() });
                }
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error),
            },
            message = connect.outgoing.recv() => match message {
                Some(bytes) => socket.send(Message::binary(bytes)).await?,
                None => return socket.close(None).await,
            },
        }
    }
}
