//! What the way to one peer carries, and how to use it well.
//!
//! [`Estimator`] learns from transport-wide feedback (or, where there is none, from REMB and
//! receiver reports) how many bits a second the way to a peer carries: from the growth of delay
//! ([`delay`], [`rate`]), from loss that follows the rate ([`loss`]) and from probes ([`probe`]).
//! [`Pacer`] spreads what is sent over time by priority. [`allocate()`] shares the estimate among
//! tracks and says for each why it got what it got. docs/decisions/0003-congestion-control.md
//! says why it is done this way and with what effect.
//!
//! It never owns a packet, a socket or a clock: time is an argument, microseconds or `Instant`s,
//! and the same input gives the same estimate on every machine (`ln` and `pow` come from `libm`).
//! It knows no room and no codec. After warm-up nothing on a packet's path allocates.
//!
//! ```
//! use parlor_congestion::{Estimator, Paced, PacketKind, Pacer, Priority};
//! use std::time::{Duration, Instant};
//!
//! let now = Instant::now();
//! let mut estimator = Estimator::new(now, 300_000);
//! let mut pacer = Pacer::new(estimator.micros(now), estimator.pacing_bps());
//! estimator.set_wanted(2_000_000, false, now);
//!
//! pacer.push(estimator.micros(now), 7, 1200, Priority::Video).unwrap();
//! let mut transport_sequence_number = 0;
//! while let Some(paced) = pacer.poll(estimator.micros(now)) {
//!     let Paced::Send(packet, _) = paced else { continue };
//!     assert_eq!(*packet, 7);
//!     estimator.on_sent(Some(transport_sequence_number), now, 1200, PacketKind::Video);
//!     transport_sequence_number += 1;
//! }
//! // A probe wants padding now and then.
//! let later = now + Duration::from_millis(600);
//! estimator.handle_timeout(later);
//! let probe = estimator.poll_probe(later).unwrap();
//! assert!(probe.size_bytes > 100);
//! assert_eq!(estimator.estimate_bps(), 300_000);
//! println!("{}", estimator.state());
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod acknowledged;
pub mod allocate;
pub mod brake;
mod bucket;
pub mod delay;
mod estimator;
pub mod fallback;
pub mod loss;
mod pacer;
pub mod probe;
pub mod rate;
pub mod sent;
mod state;

pub use allocate::{
    Allocation, Hysteresis, Layer, LayerBitrates, Reason, TrackDemand, TrackKind, allocate,
    wanted_bps,
};
pub use delay::Usage;
pub use estimator::{ESTIMATE_MAX_BPS, ESTIMATE_MIN_BPS, Estimator, ProbePacket};
pub use pacer::{BURST, BURST_CALM, BURST_CALM_BYTES, Paced, Pacer, Priority, QUEUE_MAX};
pub use sent::{PacketKind, PacketResult, ProbeCluster};
pub use state::{Cause, EstimatorState};
