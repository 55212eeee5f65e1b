//! Load on a server: many participants in one process, and what they saw.
//!
//! [`run`] joins a server that speaks LiveKit's protocol with publishers and subscribers as
//! [`LoadConfig`] says, lets media flow, and gives a [`Report`]: how long joining took, what came
//! and what was lost, how long it was under way, and what that cost the server and us. Each
//! participant is a `parlor_client::Client`: it negotiates, authenticates each packet, asks for
//! what is lost and reports, as any client does. One thread drives the signal sockets, one or a
//! few drive the media of all participants.
//!
//! Publishers send packets of the shapes and rates that real encoders make ([`source`]), without
//! encoding anything. Each carries the time at which it was sent, so that a subscriber in any
//! process of this machine knows how long it was under way.
//!
//! What it never does: decode media, or judge: it reports what it saw.
//!
//! ```
//! use parlor_load::Histogram;
//! use std::time::Duration;
//!
//! let mut delays = Histogram::new();
//! for ms in [1, 2, 3, 4, 100] {
//!     delays.record(Duration::from_millis(ms));
//! }
//! assert_eq!(delays.quantiles().max_us, 100_000);
//! assert!((3000..3100).contains(&delays.quantile_us(0.5)));
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod config;
mod descriptor;
mod histogram;
mod packetize;
mod participant;
mod process;
mod report;
mod run;
mod signal;
pub mod source;
mod worker;

pub use config::{Layout, LoadConfig, Resolution};
pub use histogram::{Histogram, Quantiles};
pub use process::{CpuTime, Memory};
pub use report::{Cpu, Joins, Layer, Report, Server, Streams, Traffic};
pub use run::{LoadError, Progress, VIDEO_CODECS, run};
