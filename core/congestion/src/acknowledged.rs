//! How much arrives: the acknowledged bitrate.

use std::collections::VecDeque;

/// Most packets that the rate is taken over.
const PACKETS_MAX: usize = 512;
/// The rate is taken over this time, in microseconds.
const WINDOW_US: i64 = 500_000;
/// The latest rate is taken over this time, in microseconds.
const LATEST_WINDOW_US: i64 = 150_000;
const PACKETS_LEAST: usize = 6;

/// Rate of what arrived, by the receiver's clock.
#[derive(Debug)]
pub struct AcknowledgedRate {
    /// Arrival in microseconds and bytes, in order of arrival.
    packets: VecDeque<(i64, u16)>,
}

impl Default for AcknowledgedRate {
    fn default() -> Self {
        Self { packets: VecDeque::with_capacity(PACKETS_MAX) }
    }
}

impl AcknowledgedRate {
    /// Takes a packet that arrived.
    pub fn on_packet(&mut self, arrival_us: i64, size_bytes: u16) {
        let newest_us = self.packets.back().map_or(arrival_us, |(at_us, _)| *at_us);
        if (arrival_us - newest_us).abs() > 4 * WINDOW_US {
            self.packets.clear();
        }
        while self.packets.len() >= PACKETS_MAX
            || self.packets.front().is_some_and(|(at_us, _)| arrival_us - at_us > WINDOW_US)
        {
            self.packets.pop_front();
        }
        let later = self.packets.iter().rev().take_while(|(at_us, _)| *at_us > arrival_us).count();
        self.packets.insert(self.packets.len() - later, (arrival_us, size_bytes));
    }

    /// Bits a second over half a second, `None` before there is enough to tell.
    ///
    /// The longest gap counts as the second longest: it may be feedback that was lost.
    pub fn bps(&self) -> Option<f64> {
        self.over(WINDOW_US, true)
    }

    /// Bits a second over the last 150 ms: what a full link carries now.
    pub fn latest_bps(&self) -> Option<f64> {
        self.over(LATEST_WINDOW_US, false)
    }

    fn over(&self, window_us: i64, without_gap: bool) -> Option<f64> {
        let (newest_us, _) = *self.packets.back()?;
        let mut after_us = newest_us;
        let mut gaps_us = [0; 2];
        let mut bytes = 0;
        let mut before_bytes = 0;
        let mut count = 0;
        for &(at_us, size_bytes) in self.packets.iter().rev() {
            if newest_us - at_us > window_us {
                break;
            }
            let gap_us = after_us - at_us;
            if gap_us > gaps_us[0] {
                gaps_us = [gap_us, gaps_us[0]];
            } else if gap_us > gaps_us[1] {
                gaps_us[1] = gap_us;
            }
            // The first packet only marks the start: its bytes came before it.
            bytes += before_bytes;
            before_bytes = u64::from(size_bytes);
            after_us = at_us;
            count += 1;
        }
        let mut span_us = newest_us - after_us;
        if without_gap {
            span_us -= gaps_us[0] - gaps_us[1];
        }
        let is_enough = count >= PACKETS_LEAST && span_us >= window_us / 5;
        is_enough.then(|| bytes as f64 * 8.0 * 1e6 / span_us as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_the_last_half_second_whatever_the_order() {
        let mut rate = AcknowledgedRate::default();
        for n in 0..200 {
            // 1000 bytes each 10 ms, pairs swapped.
            rate.on_packet((n ^ 1) * 10_000, 1000);
        }
        let bps = rate.bps().unwrap();
        assert!((790_000.0..810_000.0).contains(&bps), "{bps}");
        for n in 200..300 {
            rate.on_packet(n * 10_000, 500);
        }
        let bps = rate.bps().unwrap();
        assert!((395_000.0..405_000.0).contains(&bps), "{bps}");
        assert!(rate.packets.len() <= PACKETS_MAX);
    }

    #[test]
    fn feedback_that_was_lost_is_not_silence() {
        let mut rate = AcknowledgedRate::default();
        for n in (0..50).filter(|n| !(20..30).contains(n)) {
            rate.on_packet(n * 10_000, 1000);
        }
        let bps = rate.bps().unwrap();
        assert!((780_000.0..820_000.0).contains(&bps), "{bps}");
    }
}
