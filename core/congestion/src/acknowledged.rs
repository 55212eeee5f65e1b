//! How much arrives: the acknowledged bitrate.

use std::collections::VecDeque;

/// Most entries that the rate is taken over.
const ENTRIES_MAX: usize = 512;
/// The rate is taken over this time, in microseconds.
const WINDOW_US: i64 = 500_000;
/// What arrives within so many microseconds is one entry.
const TOGETHER_US: i64 = 700;
/// The busy rate is taken over this time, in microseconds.
const BUSY_WINDOW_US: i64 = 200_000;
const BUSY_PACKETS_LEAST: u32 = 5;
/// A packet whose delay is so much above the least waited behind another one, in milliseconds.
const WAITED_MS: f64 = 5.0;
const PACKETS_LEAST: u32 = 6;

/// Rate of what arrived, by the receiver's clock.
#[derive(Debug, Default)]
pub struct AcknowledgedRate {
    /// In the order of arrival.
    entries: VecDeque<Arrivals>,
    /// Of all entries.
    packets: u32,
}

/// Packets that arrived together, all after waiting or none. Small: all of them are looked through
/// at each feedback.
#[derive(Clone, Copy, Debug)]
struct Arrivals {
    last_us: i64,
    bytes: u32,
    /// From the first to the last; less than [`TOGETHER_US`].
    span_us: u16,
    packets: u8,
    have_waited: bool,
}

impl Arrivals {
    fn first_us(&self) -> i64 {
        self.last_us - i64::from(self.span_us)
    }
}

impl AcknowledgedRate {
    /// Takes a packet that arrived after waiting in queues for `queue_ms`.
    #[inline]
    pub fn on_packet(&mut self, arrival_us: i64, size_bytes: u16, queue_ms: f64) {
        let have_waited = queue_ms > WAITED_MS;
        if let Some(newest) = self.entries.back_mut()
            && newest.last_us <= arrival_us
            && let span_us = arrival_us - newest.first_us()
            && span_us < TOGETHER_US
            && newest.packets < u8::MAX
            && newest.have_waited == have_waited
        {
            newest.last_us = arrival_us;
            newest.bytes += u32::from(size_bytes);
            newest.span_us = span_us as u16;
            newest.packets += 1;
            self.packets += 1;
            return;
        }
        self.begin_entry(arrival_us, size_bytes, have_waited);
    }

    fn begin_entry(&mut self, arrival_us: i64, size_bytes: u16, have_waited: bool) {
        self.forget_before(arrival_us);
        self.packets += 1;
        let arrivals = Arrivals {
            last_us: arrival_us,
            bytes: u32::from(size_bytes),
            span_us: 0,
            packets: 1,
            have_waited,
        };
        if self.entries.back().is_none_or(|newest| newest.last_us <= arrival_us) {
            return self.entries.push_back(arrivals);
        }
        let later = self.entries.iter().rev().take_while(|later| later.last_us > arrival_us);
        self.entries.insert(self.entries.len() - later.count(), arrivals);
    }

    fn forget_before(&mut self, arrival_us: i64) {
        let newest_us = self.entries.back().map_or(arrival_us, |newest| newest.last_us);
        if (arrival_us - newest_us).abs() > 4 * WINDOW_US {
            self.entries.clear();
            self.packets = 0;
        }
        while let Some(oldest) = self.entries.front()
            && (self.entries.len() >= ENTRIES_MAX || arrival_us - oldest.last_us > WINDOW_US)
        {
            self.packets -= u32::from(oldest.packets);
            self.entries.pop_front();
        }
    }

    /// Bits a second over half a second, `None` before there is enough to tell.
    ///
    /// The longest gap counts as the second longest: it may be feedback that was lost.
    pub fn bps(&self) -> Option<f64> {
        let newest_us = self.entries.back()?.last_us;
        let mut after_us = newest_us;
        let mut gaps_us = [0; 2];
        let mut bytes = 0;
        for arrivals in self.entries.iter().rev() {
            let gap_us = after_us - arrivals.last_us;
            if gap_us > gaps_us[0] {
                gaps_us = [gap_us, gaps_us[0]];
            } else if gap_us > gaps_us[1] {
                gaps_us[1] = gap_us;
            }
            bytes += u64::from(arrivals.bytes);
            after_us = arrivals.first_us();
        }
        let oldest = self.entries.front()?;
        // What came first only marks the start: its bytes came before it.
        bytes -= u64::from(oldest.bytes);
        let span_us = newest_us - oldest.last_us - (gaps_us[0] - gaps_us[1]);
        let is_enough = self.packets >= PACKETS_LEAST && span_us >= WINDOW_US / 5;
        is_enough.then(|| bytes as f64 * 8e6 / span_us as f64)
    }

    /// What the bottleneck carried in the last 200 ms while it had a queue, in bits a second.
    ///
    /// A packet that waited arrives when the bottleneck is done with it, and the bottleneck began
    /// with it when the one before was done: only such packets and gaps count. So media that
    /// pauses does not make the link look slow.
    pub fn busy_bps(&self) -> Option<f64> {
        let newest_us = self.entries.back()?.last_us;
        let recent =
            || self.entries.iter().rev().take_while(|a| newest_us - a.last_us <= BUSY_WINDOW_US);
        let (mut bytes, mut span_us, mut packets) = (0, 0, 0);
        for (after, before) in recent().zip(recent().skip(1)) {
            if after.have_waited {
                bytes += u64::from(after.bytes);
                span_us += after.last_us - before.last_us;
                packets += u32::from(after.packets);
            }
        }
        let is_enough = packets >= BUSY_PACKETS_LEAST && span_us > 0;
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
        assert!(rate.entries.len() <= ENTRIES_MAX);
    }

    #[test]
    fn what_arrives_together_is_one_entry() {
        let (mut heaps, mut flow) = (AcknowledgedRate::default(), AcknowledgedRate::default());
        for n in 0..3_000 {
            // 20 Mbit/s: 50 packets at once each 20 ms, or one each 400 us.
            heaps.on_packet(n / 50 * 20_000 + n % 50 * 10, 1000, 0.0);
            flow.on_packet(n * 400, 1000, 0.0);
        }
        assert!(heaps.entries.len() <= 26, "{}", heaps.entries.len());
        for bps in [heaps.bps().unwrap(), flow.bps().unwrap()] {
            assert!((19_500_000.0..20_500_000.0).contains(&bps), "{bps}");
        }
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
