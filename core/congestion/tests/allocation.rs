//! After warm-up nothing on a packet's path allocates.
#![allow(clippy::unwrap_used, clippy::too_many_arguments, missing_docs)]

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

/// Sends a packet each 5 ms for `seconds`, with feedback each 100 ms. Returns the next number.
fn run(
    estimator: &mut Estimator,
    pacer: &mut Pacer<u32>,
    now: &mut Instant,
    mut number: u16,
    start: Instant,
    feedback_bytes: &mut Vec<u8>,
    seconds: u32,
) -> u16 {
    for step in 0..seconds * 200 {
        *now += Duration::from_millis(5);
        let now_us = estimator.micros(*now);
        pacer.push(now_us, step, 1000, Priority::Video).unwrap();
        while let Some(paced) = pacer.poll(now_us) {
            if let Paced::Send(..) = paced {
                estimator.on_sent(Some(number), *now, 1000, PacketKind::Video);
                number = number.wrapping_add(1);
            }
        }
        while let Some(probe) = estimator.poll_probe(*now) {
            estimator.on_sent(Some(number), *now, probe.size_bytes, PacketKind::Padding);
            number = number.wrapping_add(1);
        }
        if step % 20 == 19 {
            let mut arrivals_us = [None; 20];
            for (n, arrival_us) in arrivals_us.iter_mut().enumerate().filter(|(n, _)| n % 7 != 0) {
                let sent_us = now.duration_since(start).as_micros() as i64;
                *arrival_us = Some(sent_us + n as i64 * 5_000);
            }
            let fields = TransportFeedbackFields {
                ssrcs: FeedbackSsrcs { sender: Ssrc(1), media: Ssrc(2) },
                base_sequence_number: number.wrapping_sub(20),
                feedback_count: 0,
            };
            feedback_bytes.clear();
            write_transport_feedback(feedback_bytes, &fields, &arrivals_us);
            let Some(Rtcp::TransportFeedback(feedback)) = packets(feedback_bytes).next() else {
                panic!()
            };
            estimator.on_feedback(&feedback, *now);
            pacer.set_rate(estimator.pacing_bps(), now_us);
        }
        if estimator.poll_timeout().is_some_and(|at| at <= *now) {
            estimator.handle_timeout(*now);
        }
    }
    number
}

#[test]
fn sending_and_feedback_do_not_allocate() {
    let start = Instant::now();
    let mut now = start;
    let mut estimator = Estimator::new(now, 3_000_000);
    estimator.set_wanted(20_000_000, false, now);
    let mut pacer = Pacer::new(0, 3_000_000);
    let mut feedback_bytes = Vec::with_capacity(1500);
    let number = run(&mut estimator, &mut pacer, &mut now, 0, start, &mut feedback_bytes, 20);
    let region = Region::new(ALLOCATOR);
    run(&mut estimator, &mut pacer, &mut now, number, start, &mut feedback_bytes, 60);
    assert_eq!(region.change().allocations, 0);
    assert_eq!(region.change().reallocations, 0);
}
