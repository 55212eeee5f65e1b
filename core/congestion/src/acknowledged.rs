//! How much arrives: the acknowledged bitrate.

use std::collections::VecDeque;

/// Most packets that the rate is taken over.
const PACKETS_MAX: usize = 512;
/// The rate is taken over this time, in microseconds.
const WINDOW_US: i64 = 500_000;
/// The busy rate is taken over this time, in microseconds.
const BUSY_WINDOW_US: i64 = 200_000;
const BUSY_PACKETS_LEAST: u32 = 5;
/// A packet whose delay is so much above the least waited behind another one, in milliseconds.
const WAITED_MS: f64 = 5.0;
const PACKETS_LEAST: usize = 6;

/// Rate of what arrived, by the receiver's clock.
#[derive(Debug, Default)]
pub struct AcknowledgedRate {
    packets: VecDeque<Arrival>,
}

#[derive(Clone, Copy, Debug)]
struct Arrival {
    at_us: i64,
    size_bytes: u16,
    has_waited: bool,
}

impl AcknowledgedRate {
    /// Takes a packet that arrived after waiting in queues for `queue_ms`.
    pub fn on_packet(&mut self, arrival_us: i64, size_bytes: u16, queue_ms: f64) {
        let newest_us = self.packets.back().map_or(arrival_us, |newest| newest.at_us);
        if (arrival_us - newest_us).abs() > 4 * WINDOW_US {
            self.packets.clear();
        }
        while self.packets.len() >= PACKETS_MAX
            || self.packets.front().is_some_and(|oldest| arrival_us - oldest.at_us > WINDOW_US)
        {
            self.packets.pop_front();
        }
        let later = self.packets.iter().rev().take_while(|later| later.at_us > arrival_us).count();
        let arrival = Arrival { at_us: arrival_us, size_bytes, has_waited: queue_ms > WAITED_MS };
        self.packets.insert(self.packets.len() - later, arrival);
    }

    /// Bits a second over half a second, `None` before there is enough to tell.
    ///
    /// The longest gap counts as the second longest: it may be feedback that was lost.
    pub fn bps(&self) -> Option<f64> {
        let newest_us = self.packets.back()?.at_us;
        let mut after_us = newest_us;
        let mut gaps_us = [0; 2];
        let mut bytes = 0;
        for arrival in self.packets.iter().rev() {
            let gap_us = after_us - arrival.at_us;
            if gap_us > gaps_us[0] {
                gaps_us = [gap_us, gaps_us[0]];
            } else if gap_us > gaps_us[1] {
                gaps_us[1] = gap_us;
            }
            bytes += u64::from(arrival.size_bytes);
            after_us = arrival.at_us;
        }
        // The first packet only marks the start: its bytes came before it.
        bytes -= self.packets.front().map_or(0, |oldest| u64::from(oldest.size_bytes));
        let span_us = newest_us - after_us - (gaps_us[0] - gaps_us[1]);
        let is_enough = self.packets.len() >= PACKETS_LEAST && span_us >= WINDOW_US / 5;
        is_enough.then(|| bytes as f64 * 8e6 / span_us as f64)
    }

    /// What the bottleneck carried in the last 200 ms while it had a queue, in bits a second.
    ///
    /// A packet that waited arrives when the bottleneck is done with it, and the bottleneck began
    /// with it when the one before was done: only such packets and gaps count. So media that
    /// pauses does not make the link look slow.
    pub fn busy_bps(&self) -> Option<f64> {
        let newest_us = self.packets.back()?.at_us;
        let recent =
            || self.packets.iter().rev().take_while(|a| newest_us - a.at_us <= BUSY_WINDOW_US);
        let (mut bytes, mut span_us, mut count) = (0, 0, 0);
        for (after, before) in recent().zip(recent().skip(1)) {
            if after.has_waited {
                bytes += u64::from(after.size_bytes);
                span_us += after.at_us - before.at_us;
                count += 1;
            }
        }
        let is_enough = count >= BUSY_PACKETS_LEAST && span_us > 0;
        is_enough.then(|| bytes as f64 * 8e6 / span_us as f64)
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
            rate.on_packet((n ^ 1) * 10_000, 1000, 0.0);
        }
        let bps = rate.bps().unwrap();
        assert!((790_000.0..810_000.0).contains(&bps), "{bps}");
        for n in 200..300 {
            rate.on_packet(n * 10_000, 500, 0.0);
        }
        let bps = rate.bps().unwrap();
        assert!((395_000.0..405_000.0).contains(&bps), "{bps}");
        assert!(rate.packets.len() <= PACKETS_MAX);
    }

    #[test]
    fn feedback_that_was_lost_is_not_silence() {
        let mut rate = AcknowledgedRate::default();
        for n in (0..50).filter(|n| !(20..30).contains(n)) {
            rate.on_packet(n * 10_000, 1000, 0.0);
        }
        let bps = rate.bps().unwrap();
        assert!((780_000.0..820_000.0).contains(&bps), "{bps}");
    }

    #[test]
    fn the_busy_rate_is_the_capacity_although_media_pauses() {
        let mut rate = AcknowledgedRate::default();
        for frame in 0..10 {
            for n in 0..4 {
                // Four packets at once each 50 ms, through a link that takes 8 ms for each.
                rate.on_packet(frame * 50_000 + n * 8_000, 1000, n as f64 * 8.0);
            }
        }
        assert_eq!(rate.busy_bps(), Some(1e6));
        assert!(rate.bps().unwrap() < 7e5);
    }
}
