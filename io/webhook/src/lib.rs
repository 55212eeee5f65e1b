//! Tells applications of rooms, participants and tracks by HTTP, as LiveKit does.
//!
//! [`Webhooks::record`] takes events, keeps them in the storage, and returns; tasks deliver
//! them. Events of one room reach one URL in order: the next waits until the one before was
//! accepted, refused, or has grown too old. A receiver that is down or answers 5xx is tried
//! again after 1, 2, 4, ... 30 seconds until then; an answer of 4xx is final. What was not
//! delivered when the process ended is delivered by the next one, so a receiver may see an
//! event twice, with the same id, and never misses one.
//!
//! It does not decide what is worth an event, and never makes its caller wait for a receiver.
//!
//! ```no_run
//! use parlor_webhook::{WebhookConfig, Webhooks};
//!
//! # fn example(event: livekit_protocol::WebhookEvent) -> Result<(), Box<dyn std::error::Error>> {
//! let config = WebhookConfig {
//!     urls: vec!["https://app.example/livekit".to_owned()],
//!     api_key: "key".to_owned(),
//!     secret: "secret".to_owned(),
//!     ..Default::default()
//! };
//! let storage = parlor_storage::Storage::open(std::path::Path::new("/var/lib/parlor"))?;
//! let webhooks = Webhooks::start(config, Some(storage.into()), tokio::runtime::Handle::current())?;
//! webhooks.record(&[event]);
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod client;
mod delivery;
mod message;

pub use client::UrlError;
pub use delivery::{CONCURRENT_MAX, Counters, QUEUED_MAX, Webhooks};

use std::time::Duration;

/// Where events go, and which.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookConfig {
    /// Every one gets every event.
    pub urls: Vec<String>,
    /// The API key that signs.
    pub api_key: String,
    /// Its secret.
    pub secret: String,
    /// Names of events to send; all if empty.
    pub include_events: Vec<String>,
    /// Names of events not to send; counts when `include_events` is empty.
    pub exclude_events: Vec<String>,
    /// An event that could not be delivered for so long is given up.
    pub max_age: Duration,
    /// Most events of one room that wait for one URL; one more is dropped.
    pub max_depth: usize,
}

impl Default for WebhookConfig {
    fn default() -> Self {
        Self {
            urls: Vec::new(),
            api_key: String::new(),
            secret: String::new(),
            include_events: Vec::new(),
            exclude_events: Vec::new(),
            max_age: Duration::from_secs(24 * 60 * 60),
            max_depth: 10_000,
        }
    }
}

impl std::fmt::Debug for WebhookConfig {
    /// Without the secret, and without what a URL may carry of credentials.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("WebhookConfig")
            .field("urls", &self.urls.len())
            .field("api_key", &self.api_key)
            .field("max_age", &self.max_age)
            .finish_non_exhaustive()
    }
}

impl WebhookConfig {
    fn wants(&self, event: &str) -> bool {
        if self.include_events.is_empty() {
            !self.exclude_events.iter().any(|name| name == event)
        } else {
            self.include_events.iter().any(|name| name == event)
        }
    }
}

/// Why webhooks cannot be sent at all.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum WebhookError {
    #[error(transparent)]
    Url(#[from] UrlError),
    #[error("no certificate authorities of the system can be read, which https needs")]
    NoRoots,
    #[error(transparent)]
    Storage(#[from] parlor_storage::StorageError),
}
