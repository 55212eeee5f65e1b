//! A network link as a plain value: rate, queue, delay, jitter, loss, duplication, MTU.
//!
//! A datagram goes in with [`Link::send`] and comes out of [`Link::poll`] when virtual time
//! has come to its arrival, or never. The link draws everything from the seed that it was
//! given and reads no clock, so the same seed and the same input give the same output.
//! It does not route: one link is one direction between two ends.
//!
//! ```
//! use parlor_netem::{Link, LinkConfig};
//! use std::time::{Duration, Instant};
//!
//! let config = LinkConfig { delay: Duration::from_millis(20), ..LinkConfig::default() };
//! let mut link = Link::new(config, 1);
//! let now = Instant::now();
//! link.send(now, "hello", 5);
//! assert_eq!(link.poll(now), None);
//! assert_eq!(link.poll_timeout(), Some(now + Duration::from_millis(20)));
//! assert_eq!(link.poll(now + Duration::from_millis(20)), Some("hello"));
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How a link treats datagrams. The default is a perfect link.
#[derive(Clone, PartialEq, Debug)]
pub struct LinkConfig {
    /// Time from one end to the other, without queueing.
    pub delay: Duration,
    /// Added to the delay of each datagram, uniformly from zero to this.
    pub jitter: Duration,
    /// Whether jitter may reorder datagrams; otherwise each waits for the one before it.
    pub reorders: bool,
    /// Capacity in bits a second; `None` for no limit.
    pub rate_bps: Option<u64>,
    /// What a token bucket of `rate_bps` lets through at once after a pause, in bytes.
    pub burst_bytes: usize,
    /// How long the queue before the bottleneck may become; what comes on top is dropped.
    pub queue: Duration,
    /// Which datagrams are lost.
    pub loss: Loss,
    /// Share of datagrams that arrive twice, 0 to 1.
    pub duplication: f64,
    /// Largest datagram in bytes; larger ones are dropped.
    pub mtu_bytes: usize,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self {
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            reorders: false,
            rate_bps: None,
            burst_bytes: 0,
            queue: Duration::from_millis(200),
            loss: Loss::None,
            duplication: 0.0,
            mtu_bytes: 1500,
        }
    }
}

/// Which datagrams are lost.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Loss {
    /// None.
    None,
    /// Each by itself with this probability, 0 to 1.
    Independent(f64),
    /// In bursts: a chain of a good state that loses nothing and a bad one that loses all
    /// (Gilbert's model), by the probability of each change of state per datagram.
    Gilbert {
        /// From good to bad.
        to_bad: f64,
        /// From bad to good.
        to_good: f64,
    },
    /// Everything: a partition.
    All,
}

/// What became of the datagrams of a link.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LinkCounters {
    /// Handed to [`Link::send`].
    pub sent: u64,
    /// Handed out by [`Link::poll`], duplicates included.
    pub delivered: u64,
    /// Lost by [`LinkConfig::loss`].
    pub lost: u64,
    /// Dropped because the queue was full.
    pub overflowed: u64,
    /// Dropped because they were larger than the MTU.
    pub oversized: u64,
}

/// One direction between two ends, for datagrams of type `T`. See the crate's page.
#[derive(Debug)]
pub struct Link<T> {
    config: LinkConfig,
    rng: ChaCha8Rng,
    in_bad_state: bool,
    /// When the bottleneck has sent what was queued.
    free_at: Option<Instant>,
    last_arrival: Option<Instant>,
    in_flight: BTreeMap<(Instant, u64), T>,
    order: u64,
    counters: LinkCounters,
}

impl<T: Clone> Link<T> {
    /// A link that draws its faults from `seed`.
    pub fn new(config: LinkConfig, seed: u64) -> Self {
        Self {
            config,
            rng: ChaCha8Rng::seed_from_u64(seed),
            in_bad_state: false,
            free_at: None,
            last_arrival: None,
            in_flight: BTreeMap::new(),
            order: 0,
            counters: LinkCounters::default(),
        }
    }

    /// Changes how datagrams that are sent from now on are treated.
    pub fn set_config(&mut self, config: LinkConfig) {
        self.config = config;
    }

    /// What became of the datagrams so far.
    pub fn counters(&self) -> LinkCounters {
        self.counters
    }

    /// How long a datagram that came now would wait before the bottleneck.
    pub fn backlog(&self, now: Instant) -> Duration {
        self.free_at.map_or(Duration::ZERO, |free_at| free_at.saturating_duration_since(now))
    }

    /// Takes a datagram of this size at the near end.
    pub fn send(&mut self, now: Instant, datagram: T, len_bytes: usize) {
        self.counters.sent += 1;
        if len_bytes > self.config.mtu_bytes {
            self.counters.oversized += 1;
            return;
        }
        let Some(departure) = self.enqueue(now, len_bytes) else {
            self.counters.overflowed += 1;
            return;
        };
        if self.draw_loss() {
            self.counters.lost += 1;
            return;
        }
        let twice = self.draw(self.config.duplication);
        let copy = twice.then(|| datagram.clone());
        for datagram in std::iter::once(datagram).chain(copy) {
            let arrival = self.arrival(departure);
            self.order += 1;
            self.in_flight.insert((arrival, self.order), datagram);
        }
    }

    /// The next datagram that has arrived at the far end by `now`.
    pub fn poll(&mut self, now: Instant) -> Option<T> {
        let entry = self.in_flight.first_entry()?;
        if entry.key().0 > now {
            return None;
        }
        self.counters.delivered += 1;
        Some(entry.remove())
    }

    /// When the next datagram arrives.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.in_flight.first_key_value().map(|((arrival, _), _)| *arrival)
    }

    /// When the datagram has left the bottleneck; `None` when the queue has no room for it.
    fn enqueue(&mut self, now: Instant, len_bytes: usize) -> Option<Instant> {
        let Some(rate_bps) = self.config.rate_bps else { return Some(now) };
        let time = |bytes: usize| {
            let nanos = (bytes as u128 * 8 * 1_000_000_000) / u128::from(rate_bps.max(1));
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        };
        let full_since = now.checked_sub(time(self.config.burst_bytes)).unwrap_or(now);
        let start = self.free_at.map_or(full_since, |free_at| free_at.max(full_since));
        if start.saturating_duration_since(now) > self.config.queue {
            return None;
        }
        let end = start + time(len_bytes);
        self.free_at = Some(end);
        Some(end.max(now))
    }

    fn arrival(&mut self, departure: Instant) -> Instant {
        let jitter_nanos = self.config.jitter.as_nanos() as u64;
        let jitter = match jitter_nanos {
            0 => 0,
            _ => self.rng.random_range(0..=jitter_nanos),
        };
        let mut arrival = departure + self.config.delay + Duration::from_nanos(jitter);
        if !self.config.reorders {
            arrival = self.last_arrival.map_or(arrival, |last| last.max(arrival));
            self.last_arrival = Some(arrival);
        }
        arrival
    }

    fn draw(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.random_bool(probability.min(1.0))
    }

    fn draw_loss(&mut self) -> bool {
        match self.config.loss {
            Loss::None => false,
            Loss::All => true,
            Loss::Independent(probability) => self.draw(probability),
            Loss::Gilbert { to_bad, to_good } => {
                let change = if self.in_bad_state { to_good } else { to_bad };
                if self.draw(change) {
                    self.in_bad_state = !self.in_bad_state;
                }
                self.in_bad_state
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);

    fn drain<T: Clone>(link: &mut Link<T>, until: Instant) -> Vec<T> {
        std::iter::from_fn(|| link.poll(until)).collect()
    }

    #[test]
    fn a_bottleneck_spaces_datagrams_and_drops_what_the_queue_cannot_hold() {
        let config = LinkConfig {
            rate_bps: Some(8_000_000),
            queue: 10 * MS,
            delay: 5 * MS,
            ..LinkConfig::default()
        };
        let mut link = Link::new(config, 1);
        let now = Instant::now();
        for n in 0..20_u8 {
            link.send(now, n, 1000);
        }
        assert_eq!(link.counters().overflowed, 9);
        assert_eq!(link.poll_timeout(), Some(now + 6 * MS));
        assert_eq!(drain(&mut link, now + 7 * MS).len(), 2);
        assert_eq!(drain(&mut link, now + 100 * MS).len(), 9);
    }

    #[test]
    fn a_token_bucket_lets_a_burst_through_at_once() {
        let config =
            LinkConfig { rate_bps: Some(8_000_000), burst_bytes: 5000, ..LinkConfig::default() };
        let mut link = Link::new(config, 1);
        let start = Instant::now() + 1000 * MS;
        for (round, now) in [start, start + 100 * MS].into_iter().enumerate() {
            for n in 0..7_u8 {
                link.send(now, n, 1000);
            }
            assert_eq!(drain(&mut link, now).len(), 5, "round {round}");
            assert_eq!(drain(&mut link, now + 2 * MS).len(), 2, "round {round}");
        }
    }

    #[test]
    fn independent_loss_comes_near_its_probability() {
        let config = LinkConfig { loss: Loss::Independent(0.05), ..LinkConfig::default() };
        let mut link = Link::new(config, 7);
        let now = Instant::now();
        for _ in 0..10_000 {
            link.send(now, (), 1);
        }
        assert!((400..600).contains(&link.counters().lost), "{:?}", link.counters());
    }

    #[test]
    fn bursts_are_longer_than_chance() {
        let loss = Loss::Gilbert { to_bad: 0.01, to_good: 0.2 };
        let mut link = Link::new(LinkConfig { loss, ..LinkConfig::default() }, 3);
        let now = Instant::now();
        let mut bursts = 0;
        let mut losing = false;
        for _ in 0..20_000 {
            let before = link.counters().lost;
            link.send(now, (), 1);
            let lost = link.counters().lost > before;
            bursts += u64::from(lost && !losing);
            losing = lost;
        }
        let mean = link.counters().lost as f64 / bursts as f64;
        assert!((4.0..6.0).contains(&mean), "mean burst {mean}");
    }

    #[test]
    fn what_is_larger_than_the_mtu_is_dropped() {
        let mut link = Link::new(LinkConfig::default(), 1);
        link.send(Instant::now(), (), 1500);
        link.send(Instant::now(), (), 1501);
        assert_eq!(link.counters().oversized, 1);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn the_same_seed_gives_the_same_output(seed in any::<u64>(), reorders in any::<bool>()) {
            let config = LinkConfig {
                delay: 10 * MS,
                jitter: 30 * MS,
                reorders,
                loss: Loss::Independent(0.2),
                duplication: 0.1,
                ..LinkConfig::default()
            };
            let now = Instant::now();
            let run = || {
                let mut link = Link::new(config.clone(), seed);
                for n in 0..100_u8 {
                    link.send(now + u32::from(n) * MS, n, 1);
                }
                drain(&mut link, now + 1000 * MS)
            };
            let output = run();
            prop_assert_eq!(&output, &run());
            if !reorders {
                prop_assert!(output.is_sorted());
            }
        }
    }
}
