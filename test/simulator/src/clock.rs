//! A guest's own clock, which runs a little fast or slow.

use std::time::{Duration, Instant};

const PARTS: i128 = 1_000_000;

/// Maps the world's time to a guest's and back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
    /// Microseconds that it gains in each second; negative where it loses.
    drift_ppm: i128,
}

impl Clock {
    pub fn new(start: Instant, drift_ppm: i32) -> Self {
        Self { start, drift_ppm: i128::from(drift_ppm).clamp(1 - PARTS, PARTS) }
    }

    /// What it shows at this moment of the world.
    pub fn local(&self, world: Instant) -> Instant {
        let elapsed = (world - self.start).as_nanos() as i128;
        self.after(elapsed + elapsed * self.drift_ppm / PARTS)
    }

    /// The first moment of the world at which it shows this or more.
    pub fn world(&self, local: Instant) -> Instant {
        if self.drift_ppm == 0 {
            return local;
        }
        let shown = local.saturating_duration_since(self.start).as_nanos() as i128;
        self.after(shown * PARTS / (PARTS + self.drift_ppm) + 2)
    }

    fn after(&self, nanos: i128) -> Instant {
        self.start + Duration::from_nanos(u64::try_from(nanos.max(0)).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_of_the_guest_is_due_when_the_world_gets_there_and_not_long_before() {
        let start = Instant::now();
        for drift_ppm in [-500, -3, 0, 1, 200] {
            let clock = Clock::new(start, drift_ppm);
            for nanos in [0, 1, 999, 1_000_000, 123_456_789_123] {
                let local = start + Duration::from_nanos(nanos);
                let due = clock.world(local);
                assert!(clock.local(due) >= local, "{drift_ppm} {nanos}");
                let slack = Duration::from_nanos(10);
                assert!(clock.local(due) <= local + slack, "{drift_ppm} {nanos}");
            }
        }
        let fast = Clock::new(start, 100);
        let second = fast.local(start + Duration::from_secs(1)) - start;
        assert_eq!(second, Duration::from_micros(1_000_100));
    }
}
