//! Whether the sender has less to send than it might: application-limited.

/// Over how long sending is looked at, in microseconds.
const WINDOW_US: i64 = 500_000;
/// What is compared: sending below this share of the estimate.
const SHARE: f64 = 0.65;
const START_UNUSED: f64 = 0.8;
const STOP_UNUSED: f64 = 0.5;

/// A budget that sending uses up and time fills.
#[derive(Debug, Default)]
pub struct ApplicationLimit {
    unused_bytes: f64,
    updated_us: Option<i64>,
    is_limited: bool,
}

impl ApplicationLimit {
    /// Takes what was sent while the estimate was `estimate_bps`.
    pub fn on_sent(&mut self, size_bytes: usize, estimate_bps: f64, now_us: i64) {
        let window_bytes = SHARE * estimate_bps / 8.0 * WINDOW_US as f64 / 1e6;
        let elapsed_us = now_us - self.updated_us.replace(now_us).unwrap_or(now_us);
        let filled_bytes = SHARE * estimate_bps / 8.0 * elapsed_us as f64 / 1e6;
        self.unused_bytes += filled_bytes - size_bytes as f64;
        self.unused_bytes = self.unused_bytes.clamp(-window_bytes, window_bytes);
        if self.unused_bytes > START_UNUSED * window_bytes {
            self.is_limited = true;
        } else if self.unused_bytes < STOP_UNUSED * window_bytes {
            self.is_limited = false;
        }
    }

    /// Whether less is sent than might be.
    pub fn is_limited(&self) -> bool {
        self.is_limited
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sending_a_third_of_the_estimate_is_limited_and_all_of_it_is_not() {
        let mut limit = ApplicationLimit::default();
        (0..200).for_each(|n| limit.on_sent(400, 1_000_000.0, n * 10_000));
        assert!(limit.is_limited());
        (200..300).for_each(|n| limit.on_sent(1250, 1_000_000.0, n * 10_000));
        assert!(!limit.is_limited());
    }
}
