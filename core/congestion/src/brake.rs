//! The brake: a queue that grows this fast says at once that the link carries far less than the
//! estimate. How much it carries the next feedback tells; until then what can wait waits.

/// A shorter queue is none: growth is seen from its last packet on.
const EMPTY_MS: f64 = 8.0;
/// For no longer than this, in microseconds.
const WINDOW_US: i64 = 200_000;
const QUEUE_LEAST_MS: f64 = 25.0;
const GROWTH_LEAST_MS: f64 = 20.0;
/// Packets arrive slower than they were sent by this factor at least.
const STRETCHED: f64 = 2.2;
const PACKETS_LEAST: u32 = 3;
/// What arrives is no more than this share of the estimate.
const CARRIED_MOST: f64 = 0.4;

/// Sees a queue grow.
#[derive(Debug, Default)]
pub struct Brake {
    start: Option<Point>,
    /// If there is any after the start.
    newest: Point,
    /// What arrived after the start.
    bytes: u64,
    packets: u32,
}

#[derive(Clone, Copy, Default, Debug)]
struct Point {
    sent_us: i64,
    arrival_us: i64,
    queue_ms: f64,
}

impl Brake {
    /// Takes a packet that arrived after it had waited for `queue_ms`; both times in microseconds,
    /// each of its own clock.
    pub fn on_packet(&mut self, sent_us: i64, arrival_us: i64, size_bytes: u16, queue_ms: f64) {
        let point = Point { sent_us, arrival_us, queue_ms };
        let grows = self.start.is_some_and(|start| {
            queue_ms > start.queue_ms.max(EMPTY_MS) && arrival_us - start.arrival_us <= WINDOW_US
        });
        if grows {
            self.bytes += u64::from(size_bytes);
            self.packets += 1;
        } else {
            self.start = Some(point);
            (self.bytes, self.packets) = (0, 0);
        }
        self.newest = point;
    }

    /// Whether the queue grows as it cannot where the link carries `estimate_bps`.
    pub fn is_on(&self, estimate_bps: f64) -> bool {
        let Self { start: Some(start), newest, .. } = self else { return false };
        let arrival_us = (newest.arrival_us - start.arrival_us) as f64;
        let sent_us = (newest.sent_us - start.sent_us) as f64;
        self.packets >= PACKETS_LEAST
            && newest.queue_ms > QUEUE_LEAST_MS
            && newest.queue_ms - start.queue_ms > GROWTH_LEAST_MS
            && arrival_us > STRETCHED * sent_us
            && self.bytes as f64 * 8e6 < CARRIED_MOST * estimate_bps * arrival_us
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Packets of 1200 bytes sent at 2 Mbit/s, that arrive at `carried_bps`.
    fn is_on_after(packets: i64, carried_bps: i64) -> bool {
        let mut brake = Brake::default();
        brake.on_packet(0, 0, 1200, 0.0);
        for n in 1..=packets {
            let (sent_us, arrival_us) = (n * 4_800, n * 9_600_000_000 / carried_bps);
            brake.on_packet(sent_us, arrival_us, 1200, (arrival_us - sent_us) as f64 / 1000.0);
        }
        brake.is_on(2_500_000.0)
    }

    #[test]
    fn a_fall_is_seen_within_fifty_milliseconds() {
        assert!(is_on_after(3, 600_000));
        assert!(!is_on_after(1, 600_000), "one that is late is no queue");
    }

    #[test]
    fn a_link_that_is_a_little_too_slow_is_left_to_the_gradient() {
        assert!(!is_on_after(15, 1_800_000));
    }

    #[test]
    fn what_was_held_up_and_comes_at_once_is_no_queue() {
        let mut brake = Brake::default();
        for n in 0..20 {
            let waited_us = (100_000 - n * 5_000).max(0);
            brake.on_packet(n * 5_000, n * 5_000 + waited_us, 1200, waited_us as f64 / 1000.0);
            assert!(!brake.is_on(2_500_000.0), "{n}");
        }
    }
}
