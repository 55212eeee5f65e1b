//! How fast a reader takes reliable messages.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Bytes that wait for a reader at least while its rate is measured: with fewer, the rate is that
/// of who sends to it.
const BACKLOG_BYTES: usize = 64 << 10;
/// What is older is forgotten.
const MEMORY: Duration = Duration::from_secs(2);
/// Time that one entry of the memory stands for, at least.
const WINDOW: Duration = Duration::from_millis(100);

/// Bytes that left in a time in which there always was something to send.
#[derive(Clone, Copy)]
struct Window {
    begun: Instant,
    bytes: usize,
    busy: Duration,
}

/// The rate at which what waits for a reader drains, over the last 2 s in which enough waited.
#[derive(Default)]
pub struct DrainRate {
    windows: VecDeque<Window>,
    last: Option<(Instant, usize)>,
}

impl DrainRate {
    /// So many bytes wait now, and nothing was added since the last call of either method.
    pub fn sample(&mut self, now: Instant, waiting_bytes: usize) {
        if let Some((at, before)) = self.last
            && before.min(waiting_bytes) >= BACKLOG_BYTES
        {
            if self.windows.back().is_none_or(|window| now >= window.begun + WINDOW) {
                self.windows.push_back(Window { begun: at, bytes: 0, busy: Duration::ZERO });
            }
            if let Some(window) = self.windows.back_mut() {
                window.bytes += before.saturating_sub(waiting_bytes);
                window.busy += now.saturating_duration_since(at);
            }
        }
        while self.windows.front().is_some_and(|w| now > w.begun + w.busy + MEMORY) {
            self.windows.pop_front();
        }
        self.last = Some((now, waiting_bytes));
    }

    /// So many bytes wait now that something was added.
    pub fn added(&mut self, now: Instant, waiting_bytes: usize) {
        self.last = Some((now, waiting_bytes));
    }

    /// The rate; `None` until it was measured for 100 ms.
    pub fn bps(&self) -> Option<u64> {
        let busy: Duration = self.windows.iter().map(|window| window.busy).sum();
        let bytes: usize = self.windows.iter().map(|window| window.bytes).sum();
        (busy >= WINDOW).then(|| (bytes as u128 * 8_000 / busy.as_millis().max(1)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TICK: Duration = Duration::from_millis(50);

    #[test]
    fn the_rate_is_that_of_a_backlog_and_of_the_last_seconds() {
        let mut now = Instant::now();
        let mut rate = DrainRate::default();
        // Nothing waits, whatever comes and goes.
        for _ in 0..10 {
            rate.added(now, 5_000);
            now += TICK;
            rate.sample(now, 0);
        }
        assert_eq!(rate.bps(), None);
        // 10 kB in 50 ms are 1.6 Mbit/s, refilled or not.
        let mut waiting = 1_000_000;
        rate.added(now, waiting);
        for _ in 0..60 {
            now += TICK;
            waiting -= 10_000;
            rate.sample(now, waiting);
            waiting += 8_000;
            rate.added(now, waiting);
        }
        assert_eq!(rate.bps(), Some(1_600_000));
        assert!(rate.windows.len() <= 42, "{}", rate.windows.len());
        // It stops.
        for _ in 0..50 {
            now += TICK;
            rate.sample(now, waiting);
        }
        assert_eq!(rate.bps(), Some(0));
        // A pause says nothing, and what was before is forgotten.
        rate.sample(now, 0);
        rate.sample(now + 2 * MEMORY, 0);
        assert_eq!(rate.bps(), None);
    }
}
