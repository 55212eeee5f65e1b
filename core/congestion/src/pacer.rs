//! The pacer of one peer: what leaves when.
//!
//! It holds handles, not packets. Audio leaves at once; the rest waits for its share of the
//! pacing rate, by priority, and leaves in bursts of [`BURST`] so that packets of one size can
//! share a system call. What waited too long is handed back instead of sent.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Most packets of one priority that wait.
pub const QUEUE_MAX: usize = 1024;
/// How much sending is put into one burst.
pub const BURST: Duration = Duration::from_millis(5);
/// A thread that is woken late makes up for so much: without that a busy machine would send less
/// than the rate, whatever waits.
const LATE_MAX: Duration = Duration::from_millis(20);
/// The queue is emptied within this time, at up to [`RATE_FACTOR_MAX`] times the rate.
const DRAIN: Duration = Duration::from_millis(250);
/// Packets that [`Pacer::longest`] looks at.
const MOST_COMPARED: usize = 32;
const RATE_FACTOR_MAX: f64 = 1.25;

/// What leaves first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Priority {
    /// Leaves at once, whatever the rate; it is counted all the same.
    Audio,
    /// Media that was asked for again.
    Retransmission,
    /// Video for the first time.
    Video,
    /// What may as well not be sent.
    Padding,
}

impl Priority {
    const ALL: [Self; 4] = [Self::Audio, Self::Retransmission, Self::Video, Self::Padding];

    /// After this time in the queue it is of no use.
    pub fn useless_after(self) -> Duration {
        Duration::from_millis(match self {
            Self::Audio => 200,
            Self::Retransmission => 300,
            Self::Video => 800,
            Self::Padding => 30,
        })
    }
}

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paced<T> {
    /// Send it now.
    Send(T),
    /// It waited too long: it is not to be sent. A frame that misses a packet needs a keyframe.
    Drop(T, Priority),
}

#[derive(Clone, Copy, Debug)]
struct Waiting<T> {
    item: T,
    size_bytes: u32,
    pushed: Instant,
}

/// Paces the packets of one peer.
#[derive(Debug)]
pub struct Pacer<T> {
    queues: [VecDeque<Waiting<T>>; 4],
    queued: usize,
    /// Nothing has waited for longer than since then.
    waits_since: Instant,
    queued_bytes: u64,
    rate_bps: f64,
    /// What was sent ahead of the rate, in bytes.
    debt_bytes: f64,
    updated: Instant,
    is_bursting: bool,
}

impl<T: Copy> Pacer<T> {
    /// Starts at `rate_bps`.
    pub fn new(now: Instant, rate_bps: u64) -> Self {
        Self {
            queues: std::array::from_fn(|_| VecDeque::new()),
            queued: 0,
            waits_since: now,
            queued_bytes: 0,
            rate_bps: rate_bps.max(1) as f64,
            debt_bytes: 0.0,
            updated: now,
            is_bursting: true,
        }
    }

    /// Changes the rate, [`crate::Estimator::pacing_bps`].
    pub fn set_rate(&mut self, rate_bps: u64, now: Instant) {
        self.pay(now);
        self.rate_bps = rate_bps.max(1) as f64;
    }

    /// Queues a packet; hands it back where [`QUEUE_MAX`] of its priority wait.
    #[inline]
    pub fn push(
        &mut self,
        now: Instant,
        item: T,
        size_bytes: usize,
        priority: Priority,
    ) -> Result<(), T> {
        if self.queued == 0 {
            self.pay(now);
        }
        let queue = &mut self.queues[priority as usize];
        if queue.len() >= QUEUE_MAX {
            return Err(item);
        }
        let size_bytes = u32::try_from(size_bytes).unwrap_or(u32::MAX);
        queue.push_back(Waiting { item, size_bytes, pushed: now });
        self.queued += 1;
        self.queued_bytes += u64::from(size_bytes);
        Ok(())
    }

    /// The next packet that is due, or has become useless, by `now`.
    #[inline]
    pub fn poll(&mut self, now: Instant) -> Option<Paced<T>> {
        if self.queued == 0 {
            return None;
        }
        self.pay(now);
        if self.waits_since != now
            && let Some(useless) = self.take_useless(now)
        {
            return Some(useless);
        }
        let waits = |priority: &Priority| !self.queues[*priority as usize].is_empty();
        let priority = Priority::ALL.into_iter().find(waits)?;
        if priority != Priority::Audio && !self.may_send() {
            return None;
        }
        let waiting = self.take(priority)?;
        self.debt_bytes += f64::from(waiting.size_bytes);
        Some(Paced::Send(waiting.item))
    }

    fn take_useless(&mut self, now: Instant) -> Option<Paced<T>> {
        let is_useless = |priority: &Priority| {
            let waiting = self.queues[*priority as usize].front();
            waiting.is_some_and(|waiting| {
                now.saturating_duration_since(waiting.pushed) > priority.useless_after()
            })
        };
        let priority = Priority::ALL.into_iter().find(is_useless)?;
        let waiting = self.take(priority)?;
        Some(Paced::Drop(waiting.item, priority))
    }

    #[inline]
    fn take(&mut self, priority: Priority) -> Option<Waiting<T>> {
        let waiting = self.queues[priority as usize].pop_front()?;
        self.queued -= 1;
        self.queued_bytes -= u64::from(waiting.size_bytes);
        Some(waiting)
    }

    /// A burst begins without debt and ends with that of [`BURST`].
    fn may_send(&mut self) -> bool {
        let burst_bytes = self.burst_bytes();
        self.is_bursting =
            if self.is_bursting { self.debt_bytes < burst_bytes } else { self.debt_bytes <= 0.0 };
        self.is_bursting
    }

    /// A microsecond that timers are late must not add a packet.
    fn burst_bytes(&self) -> f64 {
        0.999 * self.rate_now_bps() / 8.0 * BURST.as_secs_f64()
    }

    /// The rate, raised where the queue would last too long.
    fn rate_now_bps(&self) -> f64 {
        if self.queued_bytes == 0 {
            return self.rate_bps;
        }
        let draining_bps = self.queued_bytes as f64 * 8.0 / DRAIN.as_secs_f64();
        draining_bps.clamp(self.rate_bps, RATE_FACTOR_MAX * self.rate_bps)
    }

    fn pay(&mut self, now: Instant) {
        if now == self.updated {
            return;
        }
        let elapsed = now.saturating_duration_since(self.updated);
        self.updated = self.updated.max(now);
        let paid_bytes = self.rate_now_bps() / 8.0 * elapsed.as_secs_f64();
        let left_bytes = self.debt_bytes - paid_bytes;
        // Who was woken late makes up for it; who had nothing to send has nothing to make up for.
        let late = if self.is_empty() { Duration::ZERO } else { LATE_MAX };
        let credit_bytes = self.rate_now_bps() / 8.0 * late.as_secs_f64();
        // A nanosecond's worth may be left over from rounding.
        self.debt_bytes = if left_bytes.abs() < 0.01 { 0.0 } else { left_bytes.max(-credit_bytes) };
    }

    /// When [`Self::poll`] has something next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if self.is_empty() {
            return None;
        }
        let burst_bytes = self.burst_bytes();
        let is_due = !self.queues[Priority::Audio as usize].is_empty()
            || self.debt_bytes <= 0.0
            || self.is_bursting && self.debt_bytes < burst_bytes;
        if is_due {
            return Some(self.updated);
        }
        let wait_s = self.debt_bytes * 8.0 / self.rate_now_bps();
        let useless = Priority::ALL.into_iter().filter_map(|priority| {
            let waiting = self.queues[priority as usize].front()?;
            Some(waiting.pushed + priority.useless_after() + Duration::from_micros(1))
        });
        let paid = self.updated + Duration::from_secs_f64(wait_s.min(10.0) + 1e-6);
        useless.chain([paid]).min()
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Forgets all that waits. Returns how many packets that were.
    pub fn clear(&mut self) -> usize {
        self.queues.iter_mut().for_each(VecDeque::clear);
        self.queued_bytes = 0;
        std::mem::take(&mut self.queued)
    }

    /// When the packet that has waited longest was pushed, and whether audio waits.
    #[inline]
    pub fn oldest(&self) -> Option<(Instant, bool)> {
        if self.queued == 0 {
            return None;
        }
        let oldest = self.queues.iter().filter_map(|queue| queue.front()).map(|w| w.pushed).min();
        oldest.map(|pushed| (pushed, !self.queues[Priority::Audio as usize].is_empty()))
    }

    /// The longest of the next packets of a priority, in bytes, where several wait.
    pub fn longest(&self, priority: Priority) -> Option<usize> {
        let queue = &self.queues[priority as usize];
        let longest = queue.iter().take(MOST_COMPARED).map(|waiting| waiting.size_bytes).max();
        longest.filter(|_| queue.len() > 1).map(|bytes| bytes as usize)
    }

    /// Takes out what of a priority waits and is not wanted any more, oldest first.
    pub fn remove(&mut self, priority: Priority, mut is_unwanted: impl FnMut(&T) -> bool) {
        let (queued, queued_bytes) = (&mut self.queued, &mut self.queued_bytes);
        self.queues[priority as usize].retain(|waiting| {
            let is_unwanted = is_unwanted(&waiting.item);
            if is_unwanted {
                *queued -= 1;
                *queued_bytes -= u64::from(waiting.size_bytes);
            }
            !is_unwanted
        });
    }

    /// Whether a packet of this priority waits.
    pub fn has(&self, priority: Priority) -> bool {
        !self.queues[priority as usize].is_empty()
    }

    /// Bytes that wait for the rate.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn drain<T: Copy>(pacer: &mut Pacer<T>, now: Instant) -> Vec<T> {
        std::iter::from_fn(|| pacer.poll(now))
            .map(|paced| match paced {
                Paced::Send(item) => item,
                Paced::Drop(..) => panic!("dropped"),
            })
            .collect()
    }

    #[test]
    fn audio_leaves_at_once_and_the_rest_by_priority() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now, 800_000);
        pacer.push(now, 'v', 1000, Priority::Video).unwrap();
        pacer.push(now, 'w', 1000, Priority::Video).unwrap();
        pacer.push(now, 'p', 200, Priority::Padding).unwrap();
        pacer.push(now, 'r', 1000, Priority::Retransmission).unwrap();
        pacer.push(now, 'a', 100, Priority::Audio).unwrap();
        pacer.push(now, 'b', 100, Priority::Audio).unwrap();
        assert_eq!(drain(&mut pacer, now), ['a', 'b', 'r']);
        assert_eq!(drain(&mut pacer, now + 11 * MS), []);
        assert_eq!(drain(&mut pacer, now + 13 * MS), ['v']);
    }

    #[test]
    fn the_rate_holds_over_time_and_bursts_stay_small() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, 16_000_000);
        for n in 0..200 {
            pacer.push(start, n, 1250, Priority::Video).unwrap();
        }
        let mut now = start;
        let mut largest = 0;
        let mut sent = 0;
        while let Some(due) = pacer.poll_timeout() {
            assert!(due >= now, "time goes on");
            now = due;
            let burst = drain(&mut pacer, now).len();
            largest = largest.max(burst);
            sent += burst;
        }
        assert_eq!(sent, 200);
        assert_eq!(largest, 8, "one GSO run");
        let ms = (now - start).as_millis();
        assert!((110..130).contains(&ms), "200 packets of 10 kbit at 16 Mbit/s: {ms} ms");
    }

    #[test]
    fn who_is_woken_late_keeps_the_rate() {
        let start = Instant::now();
        let mut pacer = Pacer::new(start, 800_000);
        let (mut now, mut sent) = (start, 0);
        for n in 0..1000 {
            // 800 kbit/s in heaps, each 300 ms.
            if n % 30 == 0 {
                for item in 0..30 {
                    pacer.push(now, item, 1000, Priority::Video).unwrap();
                }
            }
            // 4 ms late.
            now = pacer.poll_timeout().map_or(now + 10 * MS, |due| due.max(now)) + 4 * MS;
            sent += drain(&mut pacer, now).len();
            if now - start > 3000 * MS {
                break;
            }
        }
        assert!(sent >= 280, "{sent} of 300 packets in 3 s");
    }

    #[test]
    fn what_waited_too_long_is_handed_back() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now, 4_000);
        pacer.push(now, 1, 1000, Priority::Video).unwrap();
        pacer.push(now, 2, 1000, Priority::Video).unwrap();
        assert_eq!(pacer.poll(now), Some(Paced::Send(1)));
        assert_eq!(pacer.poll(now + 700 * MS), None);
        let due = pacer.poll_timeout().unwrap();
        assert!(due <= now + 801 * MS);
        assert_eq!(pacer.poll(due), Some(Paced::Drop(2, Priority::Video)));
        assert_eq!((pacer.queued_bytes(), pacer.poll_timeout()), (0, None));
    }

    #[test]
    fn what_waits_is_told() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now, 8_000);
        assert_eq!(pacer.oldest(), None);
        pacer.push(now, 1, 500, Priority::Video).unwrap();
        assert_eq!(pacer.oldest(), Some((now, false)));
        pacer.push(now + MS, 2, 80, Priority::Audio).unwrap();
        assert_eq!((pacer.oldest(), pacer.longest(Priority::Audio)), (Some((now, true)), None));
        pacer.push(now + MS, 3, 90, Priority::Audio).unwrap();
        assert_eq!(pacer.longest(Priority::Audio), Some(90));
    }

    #[test]
    fn the_queue_is_bounded() {
        let now = Instant::now();
        let mut pacer = Pacer::new(now, 8_000);
        for n in 0..QUEUE_MAX {
            pacer.push(now, n, 10, Priority::Video).unwrap();
        }
        assert_eq!(pacer.push(now, 9999, 10, Priority::Video), Err(9999));
        pacer.push(now, 9999, 10, Priority::Audio).unwrap();
        assert_eq!(pacer.poll(now), Some(Paced::Send(9999)));
        assert_eq!(pacer.clear(), QUEUE_MAX);
        assert!(pacer.is_empty());
    }
}
