//! How long a subscription waits before it rises to what it has lost.

use std::time::{Duration, Instant};

/// What fell does not rise before.
const RISE_WAIT: Duration = Duration::from_secs(2);
/// The costly spatial layer: who takes 720p of a link that others share pushes them out of theirs before
/// it has to fall itself.
const COSTLY: u8 = 2;
/// Lost again within so long after it might be had, it waits twice as long as the time before, and never
/// longer than this.
const RELAPSE: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone, Copy, Default, Debug)]
pub struct Patience {
    fell: Option<Instant>,
    /// When the costly layer was lost, and how long it waits since.
    costly: Option<(Instant, Duration)>,
}

impl Patience {
    /// It has less than before. `lost` is the spatial layer that it had, unless it has that still.
    pub fn on_fall(&mut self, now: Instant, lost: Option<u8>) {
        self.fell = Some(now);
        if lost == Some(COSTLY) {
            let last = self.costly.filter(|(at, wait)| now < *at + *wait + RELAPSE);
            let wait = last.map_or(RISE_WAIT, |(_, wait)| (2 * wait).min(RELAPSE));
            self.costly = Some((now, wait));
        }
    }

    /// Whether it may rise at all.
    pub fn may_rise(&self, now: Instant) -> bool {
        self.fell.is_none_or(|at| now >= at + RISE_WAIT)
    }

    /// The spatial layer that it does not rise to yet.
    pub fn avoided(&self, now: Instant) -> Option<u8> {
        self.costly.filter(|(at, wait)| now < *at + *wait).map(|_| COSTLY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_costly_layer_that_is_lost_again_waits_longer_each_time() {
        let start = Instant::now();
        let (mut patience, mut now, mut waits) = (Patience::default(), start, Vec::new());
        for _ in 0..8 {
            patience.on_fall(now, Some(2));
            let fell = now;
            while patience.avoided(now).is_some() {
                assert_eq!(patience.avoided(now), Some(2));
                now += SECOND;
            }
            assert!(patience.may_rise(now));
            waits.push((now - fell).as_secs());
            now += if waits.len() == 7 { 60 } else { 59 } * SECOND;
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 60, 60, 2], "what was kept long enough is lost anew");
    }

    #[test]
    fn a_lesser_layer_and_a_frame_rate_wait_two_seconds() {
        let now = Instant::now();
        let mut patience = Patience::default();
        for lost in [Some(1), Some(0), None] {
            patience.on_fall(now, lost);
            patience.on_fall(now, lost);
            assert_eq!(patience.avoided(now), None);
            assert!(!patience.may_rise(now) && patience.may_rise(now + 2 * SECOND));
        }
    }
}
