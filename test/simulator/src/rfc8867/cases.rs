//! The cases, by section of the RFC, with its capacities and times as the RFC's authors have them in
//! their own suite for ns-3 (`rmcat-wired`).

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const SHORT_TCP_SEED: u64 = 57;

/// One subscriber.
#[derive(Clone, Copy, Debug)]
pub struct FlowPlan {
    /// When it comes, in seconds.
    pub joins_s: u32,
    /// The time from the bottleneck to it.
    pub delay_ms: u64,
    /// When its media pauses and goes on, in seconds.
    pub pause_s: Option<(u32, u32)>,
}

/// A case.
#[derive(Clone, Debug)]
pub struct Case {
    /// Section of RFC 8867.
    pub section: &'static str,
    /// Its name there, shortened.
    pub title: &'static str,
    /// What is set, in a sentence.
    pub setting: &'static str,
    /// How long it lasts.
    pub seconds: u32,
    /// Bits a second of the bottleneck from each second on.
    pub capacity: Vec<(u32, u64)>,
    /// The same of the way back; empty where that is open.
    pub feedback: Vec<(u32, u64)>,
    /// Its flows.
    pub flows: Vec<FlowPlan>,
    /// TCP flows: when each starts, in seconds, and how many bytes it has, if it has an end.
    pub tcp: Vec<(u32, Option<u64>)>,
}

const DELAY_MS: u64 = 50;

fn flow(joins_s: u32) -> FlowPlan {
    FlowPlan { joins_s, delay_ms: DELAY_MS, pause_s: None }
}

impl Case {
    /// Whether TCP shares the link.
    pub fn has_tcp(&self) -> bool {
        !self.tcp.is_empty()
    }

    /// Bits a second of the bottleneck in this second.
    pub fn capacity_at(&self, second: u32) -> u64 {
        at(&self.capacity, second).unwrap_or(0)
    }

    /// Flows, TCP without end included, that are there in this second.
    pub fn present_at(&self, second: u32) -> usize {
        let long = self.tcp.iter().filter(|(starts, bytes)| *starts <= second && bytes.is_none());
        self.flows.iter().filter(|flow| flow.is_present(second)).count() + long.count()
    }

    /// Whether something changed less than `patience` seconds before.
    pub fn is_unsettled(&self, second: u32, patience: u32) -> bool {
        let changes = self.capacity.iter().chain(&self.feedback).map(|(from, _)| *from);
        let joins = self.flows.iter().map(|flow| flow.joins_s);
        let pauses = self.flows.iter().filter_map(|flow| flow.pause_s);
        let pauses = pauses.flat_map(|(from, to)| [from, to]);
        let tcp = self.tcp.iter().filter(|(_, bytes)| bytes.is_none()).map(|(starts, _)| *starts);
        let all = changes.chain(joins).chain(pauses).chain(tcp);
        all.into_iter().any(|change| (change..change + patience).contains(&second))
    }
}

pub(super) fn at(steps: &[(u32, u64)], second: u32) -> Option<u64> {
    steps.iter().rfind(|(from, _)| *from <= second).map(|(_, bps)| *bps)
}

impl FlowPlan {
    /// Whether its media flows in this second.
    pub fn is_present(&self, second: u32) -> bool {
        let is_paused = self.pause_s.is_some_and(|(from, to)| (from..to).contains(&second));
        self.joins_s <= second && !is_paused
    }
}

/// Ten flows that send and rest in turn (RFC 8868 section 6.1), by when each transfer starts.
fn short_tcp() -> Vec<(u32, Option<u64>)> {
    let mut rng = ChaCha8Rng::seed_from_u64(SHORT_TCP_SEED);
    let mut transfers = Vec::new();
    for flow in 0..10 {
        let rest = |rng: &mut ChaCha8Rng| -10.0 * libm::log(1.0 - rng.random::<f64>());
        let mut at_s = 10.0 + if flow < 2 { 0.0 } else { rest(&mut rng) };
        while at_s < 290.0 {
            transfers.push((at_s as u32, Some(rng.random_range(30_000..=50_000))));
            at_s += 1.0 + rest(&mut rng);
        }
    }
    transfers
}

/// All cases that an SFU's downlink has.
pub fn cases() -> Vec<Case> {
    let plain = Case {
        section: "",
        title: "",
        setting: "",
        seconds: 100,
        capacity: Vec::new(),
        feedback: Vec::new(),
        flows: vec![flow(0)],
        tcp: Vec::new(),
    };
    let mut all = vec![
        Case {
            section: "5.1",
            title: "Variable capacity, one flow",
            setting: "1, 2.5, 0.6 and 1 Mbit/s from 0, 40, 60 and 80 s on.",
            capacity: vec![(0, 1_000_000), (40, 2_500_000), (60, 600_000), (80, 1_000_000)],
            ..plain.clone()
        },
        Case {
            section: "5.2",
            title: "Variable capacity, two flows",
            setting: "4, 2, 3.5, 1 and 2 Mbit/s from 0, 25, 50, 75 and 100 s on.",
            seconds: 125,
            capacity: vec![
                (0, 4_000_000),
                (25, 2_000_000),
                (50, 3_500_000),
                (75, 1_000_000),
                (100, 2_000_000),
            ],
            flows: vec![flow(0), flow(0)],
            ..plain.clone()
        },
        Case {
            section: "5.3",
            title: "Congested feedback link",
            setting: "2, 1, 0.5 and 2 Mbit/s to the subscriber from 0, 20, 40 and 60 s on; 2, 0.8 \
                      and 2 Mbit/s back, shared with its own camera, from 0, 35 and 70 s on.",
            capacity: vec![(0, 2_000_000), (20, 1_000_000), (40, 500_000), (60, 2_000_000)],
            feedback: vec![(0, 2_000_000), (35, 800_000), (70, 2_000_000)],
            ..plain.clone()
        },
        Case {
            section: "5.4",
            title: "Competing flows",
            setting: "3.5 Mbit/s; flows begin at 0, 20 and 40 s.",
            seconds: 120,
            capacity: vec![(0, 3_500_000)],
            flows: vec![flow(0), flow(20), flow(40)],
            ..plain.clone()
        },
        Case {
            section: "5.5",
            title: "Round trip fairness",
            setting: "4 Mbit/s; five flows with 10, 25, 50, 100 and 150 ms each way begin 10 s \
                      apart.",
            seconds: 300,
            capacity: vec![(0, 4_000_000)],
            flows: [10, 25, 50, 100, 150]
                .into_iter()
                .zip(0..)
                .map(|(delay_ms, nth)| FlowPlan { delay_ms, ..flow(nth * 10) })
                .collect(),
            ..plain.clone()
        },
        Case {
            section: "5.6",
            title: "A long TCP flow",
            setting: "2 Mbit/s with a drop-tail queue of 300 ms; TCP begins at 0 s, the media at 5 s.",
            seconds: 120,
            capacity: vec![(0, 2_000_000)],
            flows: vec![flow(5)],
            tcp: vec![(0, None)],
            ..plain.clone()
        },
        Case {
            section: "5.7",
            title: "Short TCP flows",
            setting: "2 Mbit/s, two flows from 5 s on; between 10 and 290 s ten TCP flows that \
                      send 30 to 50 kB each and then rest for 10 s on average, two of them at once \
                      at the beginning.",
            seconds: 300,
            capacity: vec![(0, 2_000_000)],
            flows: vec![flow(5), flow(5)],
            tcp: short_tcp(),
            ..plain.clone()
        },
        Case {
            section: "5.8",
            title: "Pause and resume",
            setting: "3.5 Mbit/s, three flows; the first pauses from 40 to 60 s.",
            seconds: 120,
            capacity: vec![(0, 3_500_000)],
            flows: vec![FlowPlan { pause_s: Some((40, 60)), ..flow(0) }, flow(0), flow(0)],
            ..plain.clone()
        },
    ];
    all.extend([2, 3, 4, 5, 6, 8, 10].map(|count| Case {
        section: match count {
            2 => "equal-2",
            3 => "equal-3",
            4 => "equal-4",
            5 => "equal-5",
            6 => "equal-6",
            8 => "equal-8",
            _ => "equal-10",
        },
        title: "Equal flows on one link",
        setting: "1 Mbit/s for each flow; all begin within five seconds.",
        capacity: vec![(0, 1_000_000 * u64::from(count))],
        flows: (0..count).map(|nth| flow(nth / 2)).collect(),
        ..plain.clone()
    }));
    all
}
