//! Queues, one per room and URL, and the tasks that empty them.

use crate::{
    WebhookConfig, WebhookError,
    client::{Receiver, tls_of},
    message::Message,
};
use http::StatusCode;
use livekit_protocol::WebhookEvent;
use parlor_storage::Storage;
use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, mpsc},
};

/// Most messages that wait in all; one more is dropped.
pub const QUEUED_MAX: usize = 100_000;
/// Requests that are under way at once.
pub const CONCURRENT_MAX: usize = 64;
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// Delivered messages that are forgotten in one transaction.
const FORGET_BATCH: usize = 256;

/// What has become of messages since the start. One event is a message for each URL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Accepted by their receiver.
    pub delivered: u64,
    /// Requests that have to be repeated.
    pub retried: u64,
    /// Refused by their receiver for good.
    pub refused: u64,
    /// Given up because of their age.
    pub expired: u64,
    /// Not taken because too many wait.
    pub dropped: u64,
    /// Waiting now.
    pub queued: u64,
}

/// Delivers events. Clones are the same.
#[derive(Clone)]
pub struct Webhooks {
    shared: Arc<Shared>,
}

struct Shared {
    config: WebhookConfig,
    receivers: Vec<Receiver>,
    secret: Mutex<String>,
    storage: Option<Arc<Storage>>,
    runtime: Handle,
    concurrent: Semaphore,
    state: Mutex<State>,
    idle: Notify,
    delivered: mpsc::UnboundedSender<u64>,
}

/// A room, and the place of a URL.
type Key = (String, usize);

struct Queued {
    /// In the storage.
    id: Option<u64>,
    message: Arc<Message>,
}

#[derive(Default)]
struct State {
    queues: HashMap<Key, VecDeque<Queued>>,
    counters: Counters,
}

fn unix_now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

impl Webhooks {
    /// Starts to deliver, first what the storage has from before. Without a storage, what is not
    /// delivered when the process ends is lost.
    pub fn start(
        config: WebhookConfig,
        storage: Option<Arc<Storage>>,
        runtime: Handle,
    ) -> Result<Webhooks, WebhookError> {
        let tls = tls_of(&config.urls)?;
        let receivers = config.urls.iter().map(|url| Receiver::new(url, tls.as_ref()));
        let receivers = receivers.collect::<Result<_, _>>()?;
        let (delivered, to_forget) = mpsc::unbounded_channel();
        if let Some(storage) = &storage {
            runtime.spawn(forget(storage.clone(), to_forget));
        }
        let shared = Shared {
            receivers,
            secret: Mutex::new(config.secret.clone()),
            config,
            storage: storage.clone(),
            runtime,
            concurrent: Semaphore::new(CONCURRENT_MAX),
            state: Mutex::default(),
            idle: Notify::new(),
            delivered,
        };
        let webhooks = Webhooks { shared: Arc::new(shared) };
        if let Some(storage) = storage {
            webhooks.resume(&storage)?;
        }
        Ok(webhooks)
    }

    fn resume(&self, storage: &Storage) -> Result<(), WebhookError> {
        let mut resumed = 0;
        for (id, bytes) in storage.queued()? {
            match Message::from_bytes(&bytes) {
                Some(message) if self.place(&message.url).is_some() => {
                    resumed += 1;
                    self.push(Queued { id: Some(id), message: Arc::new(message) });
                }
                // Its URL is no longer configured.
                _ => self.shared.forget(Some(id)),
            }
        }
        if resumed > 0 {
            tracing::info!(events = resumed, "webhooks of an earlier run wait for delivery");
        }
        Ok(())
    }

    /// Signs with another secret from now on.
    pub fn set_secret(&self, secret: String) {
        *self.shared.secret.lock().unwrap_or_else(PoisonError::into_inner) = secret;
    }

    /// Keeps events and delivers them in the order given. Returns once they are on the disk, so
    /// it blocks for a write; never for a receiver.
    pub fn record<'a>(&self, events: impl IntoIterator<Item = &'a WebhookEvent>) {
        let now = unix_now();
        let urls = || self.shared.config.urls.iter().map(String::as_str);
        let mut messages: Vec<Message> = events
            .into_iter()
            .filter(|event| self.shared.config.wants(&event.event))
            .flat_map(|event| Message::of(event, urls(), now))
            .collect();
        let queued = self.shared.state().counters.queued as usize;
        let room = QUEUED_MAX.saturating_sub(queued);
        if messages.len() > room {
            let dropped = messages.split_off(room);
            tracing::error!(events = dropped.len(), "webhooks dropped: too many wait");
            self.shared.state().counters.dropped += dropped.len() as u64;
        }
        if messages.is_empty() {
            return;
        }
        for (id, message) in self.keep(&messages).into_iter().zip(messages) {
            self.push(Queued { id, message: Arc::new(message) });
        }
    }

    fn keep(&self, messages: &[Message]) -> Vec<Option<u64>> {
        let unkept = || vec![None; messages.len()];
        let Some(storage) = &self.shared.storage else { return unkept() };
        let bytes: Vec<_> = messages.iter().map(Message::to_bytes).collect();
        match storage.enqueue(&bytes) {
            Ok(ids) => ids.into_iter().map(Some).collect(),
            Err(error) => {
                tracing::error!(%error, "webhooks are delivered without having been kept");
                unkept()
            }
        }
    }

    fn place(&self, url: &str) -> Option<usize> {
        self.shared.receivers.iter().position(|receiver| receiver.url == url)
    }

    fn push(&self, queued: Queued) {
        let Some(place) = self.place(&queued.message.url) else { return };
        let key: Key = (queued.message.room.clone(), place);
        let mut state = self.shared.state();
        let depth = state.queues.get(&key).map_or(0, VecDeque::len);
        if depth >= self.shared.config.max_depth {
            state.counters.dropped += 1;
            drop(state);
            tracing::error!(
                room = key.0,
                event = queued.message.event,
                "webhook dropped: too many of this room wait"
            );
            return self.shared.forget(queued.id);
        }
        state.counters.queued += 1;
        // A queue is there as long as its task.
        let has_task = state.queues.contains_key(&key);
        state.queues.entry(key.clone()).or_default().push_back(queued);
        drop(state);
        if !has_task {
            self.shared.runtime.spawn(self.shared.clone().deliver(key));
        }
    }

    /// What has become of messages.
    pub fn counters(&self) -> Counters {
        self.shared.state().counters
    }

    /// Returns once nothing waits.
    pub async fn drained(&self) {
        loop {
            let idle = self.shared.idle.notified();
            if self.counters().queued == 0 {
                return;
            }
            idle.await;
        }
    }
}

/// What is to be done with a message after a try.
enum Outcome {
    Delivered,
    Refused,
    Again,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, id: Option<u64>) {
        if let Some(id) = id {
            let _ = self.delivered.send(id);
        }
    }

    /// Empties one queue, then ends.
    async fn deliver(self: Arc<Self>, key: Key) {
        let Some(receiver) = self.receivers.get(key.1) else { return };
        let mut backoff = FIRST_BACKOFF;
        loop {
            let head = {
                let mut state = self.state();
                let head = state.queues.get(&key).and_then(VecDeque::front);
                let head = head.map(|head| (head.id, head.message.clone()));
                if head.is_none() {
                    state.queues.remove(&key);
                }
                head
            };
            let Some((id, message)) = head else {
                self.idle.notify_waiters();
                return;
            };
            let outcome = if message.age(unix_now()) >= self.config.max_age {
                None
            } else {
                Some(self.attempt(receiver, &message).await)
            };
            if let Some(Outcome::Again) = outcome {
                self.state().counters.retried += 1;
                let left = self.config.max_age.saturating_sub(message.age(unix_now()));
                tokio::time::sleep(backoff.min(left)).await;
                backoff = (backoff * 2).min(LONGEST_BACKOFF);
                continue;
            }
            backoff = FIRST_BACKOFF;
            self.forget(id);
            let mut state = self.state();
            if let Some(queue) = state.queues.get_mut(&key) {
                queue.pop_front();
            }
            let counters = &mut state.counters;
            counters.queued = counters.queued.saturating_sub(1);
            match outcome {
                Some(Outcome::Delivered) => counters.delivered += 1,
                Some(_) => counters.refused += 1,
                None => counters.expired += 1,
            }
            drop(state);
            if outcome.is_none() {
                let Message { event, id, room, .. } = &*message;
                tracing::warn!(event, id, room, host = receiver.host, "webhook expired");
            }
        }
    }

    async fn attempt(&self, receiver: &Receiver, message: &Message) -> Outcome {
        let Ok(_permit) = self.concurrent.acquire().await else { return Outcome::Again };
        let secret = self.secret.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let token = message.signature(&self.config.api_key, &secret, unix_now());
        let Message { event, id, room, body, .. } = message;
        let host = &receiver.host;
        match receiver.post(body, &token).await {
            Ok(status) if status.is_success() => {
                tracing::debug!(event, id, room, host, "webhook delivered");
                Outcome::Delivered
            }
            Ok(status) if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                tracing::warn!(event, id, room, host, %status, "webhook is tried again");
                Outcome::Again
            }
            Ok(status) => {
                tracing::warn!(event, id, room, host, %status, "webhook refused");
                Outcome::Refused
            }
            Err(error) => {
                tracing::warn!(event, id, room, host, %error, "webhook is tried again");
                Outcome::Again
            }
        }
    }
}

/// Takes delivered messages out of the storage, many in one transaction.
async fn forget(storage: Arc<Storage>, mut delivered: mpsc::UnboundedReceiver<u64>) {
    let mut ids = Vec::new();
    while delivered.recv_many(&mut ids, FORGET_BATCH).await > 0 {
        let (storage, batch) = (storage.clone(), std::mem::take(&mut ids));
        let done = tokio::task::spawn_blocking(move || storage.dequeue(&batch)).await;
        if let Ok(Err(error)) = done {
            // They are delivered once more after the next start.
            tracing::error!(%error, "delivered webhooks could not be forgotten");
        }
    }
}
