//! The brake: a queue that grows this fast says at once that the link carries far less than the
//! estimate. How much it carries the next feedback tells; until then what can wait waits.

/// A shorter queue is none: growth is seen from its last packet on.
const EMPTY_MS: f64 = 8.0;
/// For no longer than this, in microseconds.
const WINDOW_US: i64 = 200_000;
/// The link carries no more than this share of the estimate.
const CARRIED_MOST: f64 = 0.4;
/// The first packet that waits so much longer tells of a fall where delays do not jitter.
const GROWTH_LEAST_MS: f64 = 10.0;
const PACKETS_SURE: u32 = 3;
const QUEUE_SURE_MS: f64 = 25.0;
const GROWTH_SURE_MS: f64 = 20.0;
/// After a brake for nothing only what is sure counts for so long, in microseconds.
const CAREFUL_US: i64 = 30_000_000;

/// Sees a queue grow.
#[derive(Debug, Default)]
pub struct Brake {
    /// How long the last packet waited before those that the growth is made of.
    start: Option<Point>,
    /// If there is any after the start.
    newest: Point,
    /// What arrived after the start.
    bytes: u64,
    packets: u32,
    /// How long the link was busy with it.
    busy_us: i64,
    is_on: bool,
    /// At any feedback since the brake is on.
    was_sure: bool,
    /// By the clock of arrivals.
    careful_until_us: Option<i64>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Point {
    arrival_us: i64,
    queue_ms: f64,
}

impl Brake {
    /// Takes a packet that arrived, by the receiver's clock in microseconds, after it had waited for
    /// `queue_ms`.
    pub fn on_packet(&mut self, arrival_us: i64, size_bytes: u16, queue_ms: f64) {
        let point = Point { arrival_us, queue_ms };
        let grows = self.start.is_some_and(|start| {
            queue_ms > start.queue_ms.max(EMPTY_MS) && arrival_us - start.arrival_us <= WINDOW_US
        });
        if grows {
            // The link began with it when it was done with the one before, or when it came.
            let gap_us = (arrival_us - self.newest.arrival_us).max(0);
            self.busy_us += gap_us.min((queue_ms * 1000.0) as i64);
            self.bytes += u64::from(size_bytes);
            self.packets += 1;
        } else {
            self.start = Some(point);
            (self.bytes, self.packets, self.busy_us) = (0, 0, 0);
        }
        self.newest = point;
    }

    /// Whether the queue grows as it cannot where the link carries `estimate_bps`. To be asked once for
    /// each feedback: a brake of which none was sure was for nothing.
    pub fn is_on(&mut self, estimate_bps: f64) -> bool {
        let now_us = self.newest.arrival_us;
        let is_far = self.carried_bps() < CARRIED_MOST * estimate_bps;
        let is_sure = is_far && self.is_sure();
        let is_careful = self.careful_until_us.is_some_and(|until_us| now_us < until_us);
        let was_on = self.is_on;
        self.is_on = is_sure || is_far && !is_careful && self.growth_ms() > GROWTH_LEAST_MS;
        self.was_sure = is_sure || was_on && self.was_sure;
        if was_on && !self.is_on && !self.was_sure {
            self.careful_until_us = Some(now_us + CAREFUL_US);
        }
        self.is_on
    }

    fn is_sure(&self) -> bool {
        self.packets >= PACKETS_SURE
            && self.newest.queue_ms > QUEUE_SURE_MS
            && self.growth_ms() > GROWTH_SURE_MS
    }

    fn growth_ms(&self) -> f64 {
        self.start.map_or(0.0, |start| self.newest.queue_ms - start.queue_ms)
    }

    fn carried_bps(&self) -> f64 {
        self.bytes as f64 * 8e6 / self.busy_us as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ESTIMATE_BPS: f64 = 2_500_000.0;

    /// Packets of 1200 bytes sent at 2 Mbit/s from `start_us` on, that arrive at `carried_bps`.
    fn send(brake: &mut Brake, start_us: i64, packets: i64, carried_bps: i64) {
        brake.on_packet(start_us, 1200, 0.0);
        for n in 1..=packets {
            let (sent_us, arrival_us) = (n * 4_800, n * 9_600_000_000 / carried_bps);
            let queue_ms = (arrival_us - sent_us) as f64 / 1000.0;
            brake.on_packet(start_us + arrival_us, 1200, queue_ms);
        }
    }

    fn after(packets: i64, carried_bps: i64) -> Brake {
        let mut brake = Brake::default();
        send(&mut brake, 0, packets, carried_bps);
        brake.is_on(ESTIMATE_BPS);
        brake
    }

    #[test]
    fn the_first_late_packet_tells_of_a_fall_and_the_third_makes_it_sure() {
        assert!(after(1, 600_000).is_on && !after(1, 600_000).was_sure);
        assert!(after(3, 600_000).was_sure);
    }

    #[test]
    fn what_was_not_sent_meanwhile_does_not_hide_a_fall() {
        let mut brake = after(3, 600_000);
        // The link empties, and one more comes.
        brake.on_packet(90_000, 1200, 20.0);
        assert!(brake.is_on(ESTIMATE_BPS));
    }

    #[test]
    fn after_a_brake_for_nothing_one_late_packet_is_not_enough() {
        let mut brake = after(1, 600_000);
        send(&mut brake, 50_000, 1, 20_000_000);
        assert!(!brake.is_on(ESTIMATE_BPS));
        send(&mut brake, 100_000, 1, 600_000);
        assert!(!brake.is_on(ESTIMATE_BPS));
        send(&mut brake, 200_000, 3, 600_000);
        assert!(brake.is_on(ESTIMATE_BPS));
        send(&mut brake, CAREFUL_US + 100_000, 1, 600_000);
        assert!(brake.is_on(ESTIMATE_BPS));
    }

    #[test]
    fn a_queue_that_was_sure_and_is_gone_was_one() {
        let mut brake = after(3, 600_000);
        brake.on_packet(100_000, 1200, 0.0);
        assert!(!brake.is_on(ESTIMATE_BPS));
        send(&mut brake, 200_000, 1, 600_000);
        assert!(brake.is_on(ESTIMATE_BPS));
    }

    #[test]
    fn a_link_that_is_a_little_too_slow_is_left_to_the_gradient() {
        assert!(!after(15, 1_800_000).is_on);
    }

    #[test]
    fn what_was_held_up_and_comes_at_once_is_no_queue() {
        let mut brake = Brake::default();
        for n in 0..20 {
            let waited_us = (100_000 - n * 5_000).max(0);
            brake.on_packet(n * 5_000 + waited_us, 1200, waited_us as f64 / 1000.0);
            assert!(!brake.is_on(ESTIMATE_BPS), "{n}");
        }
    }
}
