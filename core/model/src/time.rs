//! Time as an argument.

use std::time::{Duration, Instant};

/// The time of an input: monotonic for deadlines, wall clock for what people see.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Now {
    /// Monotonic time.
    pub instant: Instant,
    /// Wall clock, since the Unix epoch.
    pub unix: Duration,
}
