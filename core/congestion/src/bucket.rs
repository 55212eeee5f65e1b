//! The token bucket at the bottleneck: what a link lets through at once, so that short probes
//! find more than it carries.

/// What a bucket is taken to hold when a probe has first deceived.
const SIZE_LEAST_BYTES: f64 = 16_000.0;
const SIZE_MAX_BYTES: f64 = 64_000.0;
/// A bucket fills as if the link carried this times the estimate, which is below what it carries.
const CARRIED: f64 = 1.1;
/// A longer queue says that the bucket is empty, and ends a long probe, in milliseconds.
pub const EMPTY_QUEUE_MS: f64 = 30.0;
/// A drop so soon after a probe raised the estimate means that the probe deceived.
const DECEPTION_US: i64 = 3_000_000;
/// What a deceiving probe raises the estimate by; less may be others on the link.
const FAR: f64 = 1.4;
/// In this time since the start one deception is not enough to suspect a bucket, unless another
/// one was shortly before: it may be others that came to the link at the same time.
const START_US: i64 = 10_000_000;
const DECEIVED_AGAIN_US: i64 = 30_000_000;
/// As [`FORGOTTEN_US`] where nothing but a fall speaks for it.
const SUSPECTED_US: i64 = 30_000_000;
/// It is forgotten after this time without deception, in microseconds.
const FORGOTTEN_US: i64 = 300_000_000;

/// What is known of the bucket at the bottleneck.
#[derive(Debug, Default)]
pub struct TokenBucket {
    /// 0 where there seems to be none.
    size_bytes: f64,
    /// What it would let through at once now.
    level_bytes: f64,
    level_us: i64,
    raised: Option<Raise>,
    deceived_us: Option<i64>,
    forgotten_us: i64,
}

/// What probes raised the estimate by, one soon after the other.
#[derive(Clone, Copy, Debug)]
struct Raise {
    /// When the last of them did.
    at_us: i64,
    from_bps: f64,
    to_bps: f64,
}

impl TokenBucket {
    /// Whether short probes have deceived lately.
    pub fn is_suspected(&self) -> bool {
        self.size_bytes > 0.0
    }

    /// Takes notice that the link surely carries far less than before: it may be a bucket that has
    /// been put there.
    pub fn suspect(&mut self, now_us: i64) {
        self.size_bytes = self.size_bytes.max(SIZE_LEAST_BYTES);
        self.forgotten_us = self.forgotten_us.max(now_us + SUSPECTED_US);
    }

    /// Lets time pass.
    pub fn handle_timeout(&mut self, now_us: i64) {
        if now_us > self.forgotten_us {
            self.size_bytes = 0.0;
        }
    }

    /// Takes notice of all that was sent since this was called last.
    pub fn on_traffic(&mut self, size_bytes: usize, estimate_bps: f64, now_us: i64) {
        let carried_bytes = CARRIED * estimate_bps * (now_us - self.level_us) as f64 / 8e6;
        let level_bytes = self.level_bytes + carried_bytes - size_bytes as f64;
        self.level_bytes = level_bytes.clamp(0.0, self.size_bytes);
        self.level_us = now_us;
    }

    /// Takes notice of how long a packet waited.
    pub fn on_queue(&mut self, queue_ms: f64) {
        if queue_ms > EMPTY_QUEUE_MS {
            self.level_bytes = 0.0;
        }
    }

    /// For how long a link that carries little more than `estimate_bps` would let `rate_bps`
    /// through, in microseconds.
    pub fn lasts_us(&self, rate_bps: f64, estimate_bps: f64) -> f64 {
        self.level_bytes * 8e6 / (rate_bps - CARRIED * estimate_bps).max(1.0)
    }

    /// Takes notice that a probe raised the estimate.
    pub fn on_raised(&mut self, from_bps: f64, to_bps: f64, now_us: i64) {
        let before = self.raised.filter(|raise| now_us - raise.at_us < DECEPTION_US);
        self.raised = Some(Raise {
            at_us: now_us,
            from_bps: before.map_or(from_bps, |raise| raise.from_bps.min(from_bps)),
            to_bps: before.map_or(to_bps, |raise| raise.to_bps.max(to_bps)),
        });
    }

    /// Takes notice that congestion lowered the estimate. Returns whether probes deceived.
    pub fn on_drop(&mut self, after_bps: f64, now_us: i64) -> bool {
        let has_undone = |raise: &Raise| {
            now_us - raise.at_us < DECEPTION_US
                && after_bps < 1.3 * raise.from_bps
                && after_bps < 0.75 * raise.to_bps
        };
        let Some(raise) = self.raised.take_if(|raise| has_undone(raise)) else { return false };
        let last_us = self.deceived_us.replace(now_us);
        let is_again = last_us.is_some_and(|at_us| now_us - at_us < DECEIVED_AGAIN_US);
        if raise.to_bps > FAR * raise.from_bps && (now_us > START_US || is_again) {
            self.forgotten_us = now_us + FORGOTTEN_US;
            self.size_bytes = (2.0 * self.size_bytes).clamp(SIZE_LEAST_BYTES, SIZE_MAX_BYTES);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deceived(twice: bool) -> TokenBucket {
        let mut bucket = TokenBucket::default();
        for n in 0..1 + i64::from(twice) {
            bucket.on_raised(300_000.0, 900_000.0, n * 1_000_000);
            assert!(bucket.on_drop(320_000.0, n * 1_000_000 + 500_000));
        }
        bucket
    }

    #[test]
    fn one_deception_at_the_start_may_be_chance() {
        assert!(!deceived(false).is_suspected());
        assert!(deceived(true).is_suspected());
    }

    #[test]
    fn it_fills_while_little_is_sent_and_a_queue_empties_it() {
        let mut bucket = deceived(true);
        bucket.on_traffic(0, 300_000.0, 1_500_000);
        bucket.on_queue(40.0);
        assert_eq!(bucket.lasts_us(480_000.0, 300_000.0), 0.0);
        // 330 kbit/s come in and 250 go out.
        bucket.on_traffic(31_250, 300_000.0, 2_500_000);
        assert_eq!(bucket.level_bytes, 10_000.0);
        bucket.on_traffic(0, 300_000.0, 10_000_000);
        assert_eq!(bucket.level_bytes, SIZE_LEAST_BYTES);
        assert!((0.85e6..0.86e6).contains(&bucket.lasts_us(480_000.0, 300_000.0)));
    }

    /// A second probe found less than the first, and less still was true.
    #[test]
    fn probes_that_follow_one_another_deceive_together() {
        let mut bucket = TokenBucket::default();
        for (from_bps, to_bps, at_us) in [(80e3, 240e3, 20_000_000), (240e3, 480e3, 20_200_000)] {
            bucket.on_raised(from_bps, to_bps, at_us);
        }
        assert!(!bucket.on_drop(450e3, 20_300_000), "twice what there was");
        assert!(bucket.on_drop(76e3, 20_500_000));
        assert!(bucket.is_suspected());
        bucket.handle_timeout(20_500_000 + FORGOTTEN_US + 1);
        assert!(!bucket.is_suspected());
    }
}
