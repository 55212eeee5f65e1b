//! Why an estimate is what it is.

use crate::{delay::Usage, probe::ProbeResult};
use std::{fmt, time::Duration};

/// What the estimate last followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// Nothing is known yet.
    Start,
    /// Steady delay: it grows, or stays.
    Steady,
    /// A queue that grew.
    Delay,
    /// Loss that followed the rate.
    Loss,
    /// A probe.
    Probe,
    /// Feedback that does not come although packets are under way.
    Silence,
    /// REMB or receiver reports, for want of transport-wide feedback.
    Reports,
}

/// All that explains an estimate at one moment. Its `Display` is the explanation.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct EstimatorState {
    /// The estimate.
    pub estimate_bps: u64,
    /// What it last followed.
    pub cause: Cause,
    /// What the delay gradient allows.
    pub delay_bps: u64,
    /// What loss allows; `None` where it does not limit.
    pub loss_bps: Option<u64>,
    /// What arrives.
    pub acknowledged_bps: Option<u64>,
    /// What the delay gradient says.
    pub usage: Usage,
    /// Time that packets wait in queues, in milliseconds.
    pub queue_delay_ms: f64,
    /// The gradient, and what it is compared with, in milliseconds.
    pub trend_ms: f64,
    /// What the gradient is compared with, in milliseconds.
    pub threshold_ms: f64,
    /// Share of packets lost lately.
    pub loss: f64,
    /// Share of packets that the link loses whatever is sent.
    pub inherent_loss: f64,
    /// Round trip, the wait for feedback included.
    pub rtt: Duration,
    /// What would be used if the link carried it.
    pub wanted_bps: u64,
    /// The rate of the probe that is being sent.
    pub probing_bps: Option<u64>,
    /// The last probe's result.
    pub last_probe: Option<ProbeResult>,
    /// Whether neither a probe nor a queue nor loss has told anything yet.
    pub is_guess: bool,
}

impl fmt::Display for EstimatorState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cause = match self.cause {
            Cause::Start => "nothing is known yet",
            Cause::Steady => "the delay is steady",
            Cause::Delay => "the queue grew",
            Cause::Loss => "loss followed the rate",
            Cause::Probe => "a probe passed",
            Cause::Silence => "feedback is missing",
            Cause::Reports => "the receiver's reports say so",
        };
        write!(f, "{} kbit/s because {cause}", self.estimate_bps / 1000)?;
        write!(
            f,
            "; queue {:.0} ms, loss {:.1} % of which the link's own {:.1} %",
            self.queue_delay_ms,
            100.0 * self.loss,
            100.0 * self.inherent_loss.min(self.loss)
        )?;
        if let Some(bps) = self.acknowledged_bps {
            write!(f, ", {} kbit/s arrive", bps / 1000)?;
        }
        if let Some(bps) = self.loss_bps {
            write!(f, ", loss allows {} kbit/s", bps / 1000)?;
        }
        write!(f, ", {} kbit/s wanted", self.wanted_bps / 1000)
    }
}
