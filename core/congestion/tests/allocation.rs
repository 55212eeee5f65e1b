//! After warm-up nothing on a packet's path allocates. The allocator counts for the whole process, and
//! so there is no test harness: its thread allocates when it begins to wait.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    alloc::System,
    time::{Duration, Instant},
};

use parlor_congestion::{Estimator, Paced, Pacer, PacketKind, Priority};
use parlor_model::Ssrc;
use parlor_rtp::rtcp::{
    FeedbackSsrcs, Rtcp, TransportFeedbackFields, packets, write_transport_feedback,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

struct Sender {
    estimator: Estimator,
    pacer: Pacer<u32>,
    now: Instant,
    number: u16,
    /// Of what no feedback has told yet; one in seven is lost, nothing waits.
    arrivals_us: Vec<Option<i64>>,
    feedback_bytes: Vec<u8>,
}

impl Sender {
    fn send(&mut self, size_bytes: usize, kind: PacketKind) {
        self.estimator.on_sent(Some(self.number), self.now, size_bytes, kind);
        let arrival_us = self.estimator.micros(self.now);
        self.arrivals_us.push((!self.number.is_multiple_of(7)).then_some(arrival_us));
        self.number = self.number.wrapping_add(1);
    }

    fn take_feedback(&mut self) {
        let fields = TransportFeedbackFields {
            ssrcs: FeedbackSsrcs { sender: Ssrc(1), media: Ssrc(2) },
            base_sequence_number: self.number.wrapping_sub(self.arrivals_us.len() as u16),
            feedback_count: 0,
        };
        self.feedback_bytes.clear();
        write_transport_feedback(&mut self.feedback_bytes, &fields, &self.arrivals_us);
        self.arrivals_us.clear();
        let Some(Rtcp::TransportFeedback(feedback)) = packets(&self.feedback_bytes).next() else {
            panic!()
        };
        self.estimator.on_feedback(&feedback, self.now);
        self.pacer.set_rate(self.estimator.pacing_bps(), self.estimator.micros(self.now));
    }

    /// A packet each 5 ms and what probes need, with feedback each 100 ms.
    fn run(&mut self, seconds: u32) {
        for step in 0..seconds * 200 {
            self.now += Duration::from_millis(5);
            let now_us = self.estimator.micros(self.now);
            self.pacer.push(now_us, step, 1000, Priority::Video).unwrap();
            while let Some(paced) = self.pacer.poll(now_us) {
                if let Paced::Send(..) = paced {
                    self.send(1000, PacketKind::Video);
                }
            }
            while let Some(probe) = self.estimator.poll_probe(self.now) {
                self.send(probe.size_bytes, PacketKind::Padding);
            }
            if step % 20 == 19 {
                self.take_feedback();
            }
            if self.estimator.poll_timeout().is_some_and(|at| at <= self.now) {
                self.estimator.handle_timeout(self.now);
            }
        }
    }
}

fn main() {
    let now = Instant::now();
    let mut sender = Sender {
        estimator: Estimator::new(now, 3_000_000),
        pacer: Pacer::new(0, 3_000_000),
        now,
        number: 0,
        arrivals_us: Vec::with_capacity(1000),
        feedback_bytes: Vec::with_capacity(3000),
    };
    sender.estimator.set_wanted(20_000_000, false, now);
    sender.run(20);
    let region = Region::new(ALLOCATOR);
    sender.run(60);
    let change = region.change();
    let made = (change.allocations, change.reallocations);
    assert_eq!(made, (0, 0), "allocations and reallocations of sending and feedback");
}
