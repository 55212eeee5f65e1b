//! A link that several guests share, and that TCP shares with them.

use crate::guest::Datagram;
use parlor_netem::{Link, LinkConfig};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

const SEGMENT_BYTES: usize = 1500;

/// What passes a bottleneck.
#[derive(Clone, Debug)]
enum Cargo {
    Media(usize, Datagram),
    /// A segment of the TCP flow in this place.
    Tcp(usize),
}

/// A TCP flow that always, or for a while, has something to send: NewReno's window (RFC 6582) with
/// selective acknowledgements, on a path that is otherwise perfect.
#[derive(Debug)]
pub(crate) struct Tcp {
    round_trip: Duration,
    starts: Instant,
    /// Segments that are left; `None` for no end.
    left: Option<u64>,
    window: f64,
    threshold: f64,
    in_flight: u64,
    recovers_until: Option<Instant>,
    /// When the sender hears of a segment, and whether it came.
    news: VecDeque<(Instant, bool)>,
    pub delivered_bytes: u64,
}

impl Tcp {
    pub fn new(round_trip: Duration, starts: Instant, left: Option<u64>) -> Self {
        Self {
            round_trip,
            starts,
            left,
            window: 10.0,
            threshold: f64::INFINITY,
            in_flight: 0,
            recovers_until: None,
            news: VecDeque::new(),
            delivered_bytes: 0,
        }
    }

    fn hear(&mut self, now: Instant, came: bool) {
        self.in_flight -= 1;
        if came {
            let step = if self.window < self.threshold { 1.0 } else { 1.0 / self.window };
            self.window += step;
        } else {
            self.left = self.left.map(|left| left + 1);
            if self.recovers_until.is_none_or(|until| now >= until) {
                self.threshold = (self.window / 2.0).max(2.0);
                self.window = self.threshold;
                self.recovers_until = Some(now + self.round_trip);
            }
        }
    }

    fn wants(&self, now: Instant) -> bool {
        let has_more = self.left.is_none_or(|left| left > 0);
        now >= self.starts && has_more && (self.in_flight as f64) < self.window
    }

    fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        let starts = (self.starts > now).then_some(self.starts);
        [starts, self.news.front().map(|(at, _)| *at)].into_iter().flatten().min()
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Bottleneck {
    link: Link<Cargo>,
    pub tcp: Vec<Tcp>,
    now: Instant,
}

impl Bottleneck {
    pub fn new(now: Instant, config: LinkConfig, seed: u64) -> Self {
        Self { link: Link::new(config, seed), tcp: Vec::new(), now }
    }

    pub fn set_config(&mut self, config: LinkConfig) {
        self.link.set_config(config);
    }

    /// How long what comes now would wait.
    pub fn backlog(&self, now: Instant) -> Duration {
        self.link.backlog(now)
    }

    pub fn send(&mut self, now: Instant, guest: usize, datagram: Datagram, len_bytes: usize) {
        self.link.send(now, Cargo::Media(guest, datagram), len_bytes);
    }

    /// The next datagram that has passed, and for which guest.
    pub fn poll(&mut self, now: Instant) -> Option<(usize, Datagram)> {
        self.now = now;
        loop {
            self.pump(now);
            match self.link.poll(now)? {
                Cargo::Media(guest, datagram) => return Some((guest, datagram)),
                Cargo::Tcp(place) => {
                    let flow = self.tcp.get_mut(place)?;
                    flow.delivered_bytes += SEGMENT_BYTES as u64;
                    flow.news.push_back((now + flow.round_trip, true));
                }
            }
        }
    }

    /// Lets TCP send what it may.
    fn pump(&mut self, now: Instant) {
        for (place, flow) in self.tcp.iter_mut().enumerate() {
            while flow.news.front().is_some_and(|(at, _)| *at <= now) {
                let Some((_, came)) = flow.news.pop_front() else { break };
                flow.hear(now, came);
            }
            while flow.wants(now) {
                let dropped = self.link.counters().overflowed;
                let heard = now + flow.round_trip + self.link.backlog(now);
                self.link.send(now, Cargo::Tcp(place), SEGMENT_BYTES);
                flow.in_flight += 1;
                flow.left = flow.left.map(|left| left - 1);
                if self.link.counters().overflowed > dropped {
                    let at = flow.news.partition_point(|(at, _)| *at <= heard);
                    flow.news.insert(at, (heard, false));
                }
            }
        }
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let tcp = self.tcp.iter().filter_map(|flow| flow.poll_timeout(self.now)).min();
        [self.link.poll_timeout(), tcp].into_iter().flatten().min()
    }
}
