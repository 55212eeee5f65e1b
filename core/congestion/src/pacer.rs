//! The pacer of one peer: what leaves when.
//!
//! It holds handles, not packets. Audio leaves at once; the rest waits for its share of the
//! pacing rate, by priority, and leaves in bursts of [`BURST`] or [`BURST_CALM`] so that packets of
//! one size can share a system call. What waited too long is handed back instead of sent.
//!
//! Times are microseconds of any clock of the caller's: each packet passes here.

use std::time::Duration;

/// Most packets of one priority that wait.
pub const QUEUE_MAX: usize = 1024;
/// How much sending is put into one burst.
pub const BURST: Duration = Duration::from_millis(5);
/// The same, at most, where nothing waits at the bottleneck; it is no more than
/// [`BURST_CALM_BYTES`].
pub const BURST_CALM: Duration = Duration::from_millis(20);
/// Ten packets, as TCP sends at once before it knows anything of the way (RFC 6928).
pub const BURST_CALM_BYTES: u64 = 12_000;
/// A thread that is woken late makes up for so much: without that a busy machine would send less
/// than the rate, whatever waits.
const LATE_MAX_US: i64 = 20_000;
/// The queue is emptied within this time, at up to five fourths of the rate.
const DRAIN_US: i64 = 250_000;
/// Packets that [`Pacer::longest`] looks at.
const MOST_COMPARED: usize = 32;
/// Debts are counted in so small parts of a byte that slow rates are exact.
const PARTS: i64 = 1 << 24;
/// A debt that is older has been paid.
const PAID_US: i64 = 10_000_000;
const RATE_MAX_BPS: u64 = 100_000_000_000;

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

    /// After this time in the queue it is of no use, in microseconds.
    pub fn useless_after_us(self) -> i64 {
        match self {
            Self::Audio => 200_000,
            Self::Retransmission => 300_000,
            Self::Video => 800_000,
            Self::Padding => LEAST_USEFUL_US,
        }
    }
}

/// No packet is useless that has waited for less.
const LEAST_USEFUL_US: i64 = 30_000;

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paced<T> {
    /// Send it now; it was held for so many microseconds.
    Send(T, i64),
    /// It waited too long: it is not to be sent. A frame that misses a packet needs a keyframe.
    Drop(T, Priority),
}

#[derive(Clone, Copy, Debug)]
struct Waiting<T> {
    item: T,
    size_bytes: u32,
    pushed_us: i64,
}

/// What waits of one priority. Mostly all of it leaves at once, and the memory begins anew.
#[derive(Debug)]
struct Queue<T> {
    items: Vec<Waiting<T>>,
    /// How many have left.
    head: usize,
}

impl<T: Copy> Queue<T> {
    const NEW: Self = Self { items: Vec::new(), head: 0 };

    #[inline]
    fn is_empty(&self) -> bool {
        self.head == self.items.len()
    }

    #[inline]
    fn waiting(&self) -> &[Waiting<T>] {
        self.items.get(self.head..).unwrap_or_default()
    }

    #[inline]
    fn push(&mut self, waiting: Waiting<T>) {
        if self.head == self.items.len() {
            self.clear();
        }
        if self.items.len() == self.items.capacity() {
            self.make_room();
        }
        self.items.push(waiting);
    }

    #[cold]
    fn make_room(&mut self) {
        if self.head > self.items.len() / 2 {
            self.items.drain(..self.head);
            self.head = 0;
        } else {
            self.items.reserve(1);
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<&Waiting<T>> {
        let next = self.items.get(self.head)?;
        self.head += 1;
        Some(next)
    }

    #[inline]
    fn clear(&mut self) {
        self.items.clear();
        self.head = 0;
    }
}

/// Paces the packets of one peer. In this order in memory: what each packet needs lies side by
/// side, at the end.
#[derive(Debug)]
#[repr(C)]
pub struct Pacer<T> {
    queues: [Queue<T>; 4],
    /// Nothing has waited since before then.
    waits_since_us: i64,
    queued_bytes: u64,
    queued: usize,
    burst_us: i64,
    /// Parts of a byte a microsecond.
    rate: i64,
    /// What was sent ahead of the rate, in parts of a byte.
    debt: i64,
    updated_us: i64,
    is_bursting: bool,
}

impl<T: Copy> Pacer<T> {
    /// Starts at `rate_bps`.
    pub fn new(now_us: i64, rate_bps: u64) -> Self {
        Self {
            queues: [Queue::NEW; 4],
            queued: 0,
            waits_since_us: now_us,
            queued_bytes: 0,
            burst_us: BURST.as_micros() as i64,
            rate: parts_per_us(rate_bps),
            debt: 0,
            updated_us: now_us,
            is_bursting: true,
        }
    }

    /// Changes the rate, [`crate::Estimator::pacing_bps`].
    pub fn set_rate(&mut self, rate_bps: u64, now_us: i64) {
        self.pay(now_us);
        self.rate = parts_per_us(rate_bps);
    }

    /// Whether bursts may be long from now on: nothing waits at the bottleneck, and there is room.
    pub fn set_calm(&mut self, is_calm: bool) {
        let bytes_us = BURST_CALM_BYTES as i64 * PARTS / self.rate;
        let calm_us = bytes_us.min(BURST_CALM.as_micros() as i64);
        let burst_us = BURST.as_micros() as i64;
        self.burst_us = if is_calm { calm_us.max(burst_us) } else { burst_us };
    }

    /// Queues a packet; hands it back where [`QUEUE_MAX`] of its priority wait.
    #[inline]
    pub fn push(
        &mut self,
        now_us: i64,
        item: T,
        size_bytes: usize,
        priority: Priority,
    ) -> Result<(), T> {
        if self.queued == 0 {
            self.pay(now_us);
            self.waits_since_us = now_us;
        }
        let queue = &mut self.queues[priority as usize];
        if queue.items.len() - queue.head >= QUEUE_MAX {
            return Err(item);
        }
        let size_bytes = size_bytes as u32;
        queue.push(Waiting { item, size_bytes, pushed_us: now_us });
        self.queued += 1;
        self.queued_bytes += u64::from(size_bytes);
        Ok(())
    }

    /// Whether packets may pass by the queue now: nothing waits. Each but audio asks
    /// [`Self::may_send`] then.
    #[inline(always)]
    pub fn may_pass(&mut self, now_us: i64) -> bool {
        if self.queued > 0 {
            self.pay(now_us);
            return false;
        }
        // As in `pay`, of an empty queue.
        if now_us > self.updated_us {
            let paid = self.rate * (now_us - self.updated_us).min(PAID_US);
            self.updated_us = now_us;
            self.debt = (self.debt - paid).max(0);
        }
        true
    }

    /// Takes a packet into account that has passed by the queue.
    #[inline]
    pub fn note_passed(&mut self, size_bytes: usize) {
        self.debt += size_bytes as i64 * PARTS;
    }

    /// The next packet that is due, or has become useless, by now.
    #[inline]
    pub fn poll(&mut self, now_us: i64) -> Option<Paced<&T>> {
        if self.queued == 0 {
            return None;
        }
        self.pay(now_us);
        if now_us - self.waits_since_us > LEAST_USEFUL_US
            && let Some(priority) = self.useless(now_us)
        {
            let waiting = self.queues[priority as usize].pop()?;
            self.queued -= 1;
            self.queued_bytes -= u64::from(waiting.size_bytes);
            return Some(Paced::Drop(&waiting.item, priority));
        }
        let waits = |priority: &Priority| !self.queues[*priority as usize].is_empty();
        let priority = Priority::ALL.into_iter().find(waits)?;
        let may_leave = match priority {
            Priority::Audio => true,
            // Somebody waits for it: it joins a burst that has ended.
            Priority::Retransmission => self.debt < self.burst(),
            Priority::Video | Priority::Padding => self.may_send(),
        };
        if !may_leave {
            return None;
        }
        let queue = &mut self.queues[priority as usize];
        let waiting = queue.pop()?;
        self.queued -= 1;
        self.queued_bytes -= u64::from(waiting.size_bytes);
        self.debt += i64::from(waiting.size_bytes) * PARTS;
        Some(Paced::Send(&waiting.item, now_us - waiting.pushed_us))
    }

    #[inline(never)]
    fn useless(&self, now_us: i64) -> Option<Priority> {
        let is_useless = |priority: &Priority| {
            let waiting = self.queues[*priority as usize].waiting().first();
            waiting.is_some_and(|waiting| now_us - waiting.pushed_us > priority.useless_after_us())
        };
        Priority::ALL.into_iter().find(is_useless)
    }

    /// Whether the rate allows another packet. A burst begins without debt and ends with that of
    /// [`BURST`] or [`BURST_CALM`].
    #[inline]
    pub fn may_send(&mut self) -> bool {
        self.is_bursting = match self.is_bursting {
            true => self.debt < self.burst(),
            false => self.debt <= 0,
        };
        self.is_bursting
    }

    /// A microsecond that timers are late must not add a packet.
    #[inline]
    fn burst(&self) -> i64 {
        self.rate_now() * (self.burst_us - 5)
    }

    /// The rate, raised where the queue would last too long.
    #[inline]
    fn rate_now(&self) -> i64 {
        let queued = self.queued_bytes as i64 * PARTS;
        if queued <= self.rate * DRAIN_US {
            return self.rate;
        }
        (queued / DRAIN_US).min(self.rate * 5 / 4)
    }

    #[inline(never)]
    fn pay(&mut self, now_us: i64) {
        if now_us > self.updated_us {
            let rate = self.rate_now();
            let paid = rate * (now_us - self.updated_us).min(PAID_US);
            self.updated_us = now_us;
            // Who was woken late makes up for it; who had nothing to send has nothing to make up
            // for.
            let late_us = if self.queued == 0 { 0 } else { LATE_MAX_US };
            self.debt = (self.debt - paid).max(-rate * late_us);
        }
    }

    /// When [`Self::poll`] has something next.
    pub fn poll_timeout(&self) -> Option<i64> {
        if self.is_empty() {
            return None;
        }
        let is_repairing = self.has(Priority::Retransmission);
        let is_due = self.has(Priority::Audio)
            || self.debt <= 0
            || (self.is_bursting || is_repairing) && self.debt < self.burst();
        if is_due {
            return Some(self.updated_us);
        }
        let rate = self.rate_now();
        let until = if is_repairing { self.burst() } else { 0 };
        let wait_us = ((self.debt - until) / rate + 1).min(PAID_US);
        let useless = Priority::ALL.into_iter().filter_map(|priority| {
            let waiting = self.queues[priority as usize].waiting().first()?;
            Some(waiting.pushed_us + priority.useless_after_us() + 1)
        });
        useless.chain([self.updated_us + wait_us]).min()
    }

    /// Whether nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Forgets all that waits. Returns how many packets that were.
    pub fn clear(&mut self) -> usize {
        self.queues.iter_mut().for_each(Queue::clear);
        self.queued_bytes = 0;
        std::mem::take(&mut self.queued)
    }

    /// When the packet that has waited longest was pushed, and whether audio waits.
    #[inline]
    pub fn oldest(&self) -> Option<(i64, bool)> {
        if self.queued == 0 {
            return None;
        }
        let oldest = self.queues.iter().filter_map(|queue| queue.waiting().first());
        let oldest = oldest.map(|waiting| waiting.pushed_us).min();
        oldest.map(|pushed_us| (pushed_us, self.has(Priority::Audio)))
    }

    /// The longest of the next packets of a priority, in bytes, where several wait.
    pub fn longest(&self, priority: Priority) -> Option<usize> {
        let waiting = self.queues[priority as usize].waiting();
        let longest = waiting.iter().take(MOST_COMPARED).map(|waiting| waiting.size_bytes).max();
        longest.filter(|_| waiting.len() > 1).map(|bytes| bytes as usize)
    }

    /// Takes out what of a priority waits and is not wanted any more, oldest first.
    pub fn remove(&mut self, priority: Priority, mut is_unwanted: impl FnMut(&T) -> bool) {
        let (queued, queued_bytes) = (&mut self.queued, &mut self.queued_bytes);
        let Queue { items, head } = &mut self.queues[priority as usize];
        items.drain(..*head);
        *head = 0;
        items.retain(|waiting| {
            let is_unwanted = is_unwanted(&waiting.item);
            if is_unwanted {
                *queued -= 1;
                *queued_bytes -= u64::from(waiting.size_bytes);
            }
            !is_unwanted
        });
    }

    /// Whether a packet of this priority waits.
    #[inline]
    pub fn has(&self, priority: Priority) -> bool {
        !self.queues[priority as usize].is_empty()
    }

    /// Bytes that wait for the rate.
    pub fn queued_bytes(&self) -> u64 {
        self.queued_bytes
    }
}

fn parts_per_us(rate_bps: u64) -> i64 {
    let bps = rate_bps.clamp(100, RATE_MAX_BPS) as i128;
    (bps * i128::from(PARTS) / 8_000_000) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1000;

    fn drain<T: Copy>(pacer: &mut Pacer<T>, now: i64) -> Vec<T> {
        let mut drained = Vec::new();
        while let Some(paced) = pacer.poll(now) {
            let Paced::Send(item, _) = paced else { panic!("dropped") };
            drained.push(*item);
        }
        drained
    }

    #[test]
    fn audio_leaves_at_once_and_the_rest_by_priority() {
        let now = 0;
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
        let start = 0;
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
        let ms = (now - start) / MS;
        assert!((110..130).contains(&ms), "200 packets of 10 kbit at 16 Mbit/s: {ms} ms");
    }

    #[test]
    fn a_frame_leaves_whole_where_nothing_waits_at_the_bottleneck() {
        let most = |rate_bps, is_calm| {
            let mut pacer = Pacer::new(0, rate_bps);
            pacer.set_calm(is_calm);
            (0..40).for_each(|n| pacer.push(0, n, 1200, Priority::Video).unwrap());
            drain(&mut pacer, 0).len()
        };
        assert_eq!((most(5_000_000, false), most(5_000_000, true)), (3, 10));
        assert_eq!((most(500_000, false), most(500_000, true)), (1, 2), "20 ms at most");
        assert_eq!(
            (most(50_000_000, false), most(50_000_000, true)),
            (27, 27),
            "no less than else"
        );
    }

    #[test]
    fn what_was_asked_for_again_does_not_wait_for_the_end_of_a_burst() {
        let mut pacer = Pacer::new(0, 5_000_000);
        pacer.set_calm(true);
        (0..7).for_each(|n| pacer.push(0, n, 1200, Priority::Video).unwrap());
        assert_eq!(drain(&mut pacer, 0).len(), 7);
        pacer.is_bursting = false;
        let now = MS;
        pacer.push(now, 7, 1200, Priority::Video).unwrap();
        (8..16).for_each(|n| pacer.push(now, n, 1200, Priority::Retransmission).unwrap());
        let first = drain(&mut pacer, now);
        assert_eq!(first, [8, 9, 10, 11], "within the burst");
        let (mut now, mut rest) = (now, Vec::new());
        while let Some(due) = pacer.poll_timeout() {
            assert!(due > now);
            now = due;
            rest.extend(drain(&mut pacer, now));
        }
        assert_eq!(rest, [12, 13, 14, 15, 7]);
    }

    #[test]
    fn who_is_woken_late_keeps_the_rate() {
        let start = 0;
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
        let now = 0;
        let mut pacer = Pacer::new(now, 4_000);
        pacer.push(now, 1, 1000, Priority::Video).unwrap();
        pacer.push(now, 2, 1000, Priority::Video).unwrap();
        assert_eq!(pacer.poll(now), Some(Paced::Send(&1, 0)));
        assert_eq!(pacer.poll(now + 700 * MS), None);
        let due = pacer.poll_timeout().unwrap();
        assert!(due <= now + 801 * MS);
        assert_eq!(pacer.poll(due), Some(Paced::Drop(&2, Priority::Video)));
        assert_eq!((pacer.queued_bytes(), pacer.poll_timeout()), (0, None));
    }

    #[test]
    fn what_passes_by_the_queue_counts_like_what_went_through_it() {
        let mut passed_by = Pacer::<char>::new(0, 800_000);
        let mut queued = Pacer::new(0, 800_000);
        for now in [0, MS, 2 * MS, 2 * MS, 500 * MS, 30_000 * MS, 30_001 * MS] {
            assert!(passed_by.may_pass(now));
            passed_by.note_passed(1000);
            queued.push(now, 'a', 1000, Priority::Audio).unwrap();
            assert_eq!(drain(&mut queued, now), ['a']);
            assert_eq!(passed_by.debt, queued.debt, "{now}");
        }
        queued.push(0, 'v', 1000, Priority::Video).unwrap();
        assert!(!queued.may_pass(30_001 * MS));
    }

    #[test]
    fn what_waits_is_told() {
        let now = 0;
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
        let now = 0;
        let mut pacer = Pacer::new(now, 8_000);
        for n in 0..QUEUE_MAX {
            pacer.push(now, n, 10, Priority::Video).unwrap();
        }
        assert_eq!(pacer.push(now, 9999, 10, Priority::Video), Err(9999));
        pacer.push(now, 9999, 10, Priority::Audio).unwrap();
        assert_eq!(pacer.poll(now), Some(Paced::Send(&9999, 0)));
        assert_eq!(pacer.clear(), QUEUE_MAX);
        assert!(pacer.is_empty());
    }
}
