//! When to ask a publisher for a keyframe: at once, then not again too soon, until it has come.

use std::time::{Duration, Instant};

/// Time between two requests for the lowest layer, as in LiveKit.
const LOW_INTERVAL: Duration = Duration::from_millis(500);
/// Time between two requests for a higher layer, as in LiveKit.
const HIGH_INTERVAL: Duration = Duration::from_secs(1);

/// The request for one stream. Requests within the interval become one at its end.
#[derive(Default)]
pub struct KeyframeRequest {
    due: Option<Instant>,
    last_sent: Option<Instant>,
}

impl KeyframeRequest {
    /// Somebody needs a keyframe of this layer.
    pub fn request(&mut self, now: Instant, layer: u8) {
        if self.due.is_none() {
            let earliest = self.last_sent.map_or(now, |last| last + interval(layer));
            self.due = Some(earliest.max(now));
        }
    }

    /// Asks no sooner than this.
    pub fn wait_until(&mut self, earliest: Instant) {
        self.due = self.due.map(|due| due.max(earliest));
    }

    /// When to send a request.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether to send a request now; it repeats until [`Self::stop`].
    pub fn take_due(&mut self, now: Instant, layer: u8) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.last_sent = Some(now);
            self.due = Some(now + interval(layer));
        }
        is_due
    }

    /// A keyframe has come, or the stream has ended.
    pub fn stop(&mut self) {
        self.due = None;
    }
}

fn interval(layer: u8) -> Duration {
    if layer == 0 { LOW_INTERVAL } else { HIGH_INTERVAL }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_coalesce_and_repeat_until_the_keyframe_comes() {
        let start = Instant::now();
        let ms = |ms| start + Duration::from_millis(ms);
        let mut request = KeyframeRequest::default();
        request.request(start, 0);
        assert!(request.take_due(start, 0));
        request.request(ms(10), 0);
        assert!(!request.take_due(ms(499), 0));
        assert!(request.take_due(ms(500), 0));
        request.stop();
        assert_eq!(request.due(), None);
        request.request(ms(600), 0);
        assert_eq!(request.due(), Some(ms(1000)));
        request.stop();
        request.request(ms(9000), 0);
        assert!(request.take_due(ms(9000), 0));
    }
}
