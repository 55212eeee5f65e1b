//! A peer that gives no transport-wide feedback: reports, REMB, or nothing at all.
#![allow(clippy::unwrap_used)]

use parlor_congestion::{Cause, ESTIMATE_MIN_BPS, Estimator, PacketKind};
use parlor_model::{Bitrate, Ssrc};
use parlor_rtp::rtcp::ReportBlock;
use std::time::{Duration, Instant};

const MS: Duration = Duration::from_millis(1);

/// Sends 100 packets a second for so long; `report` says what the peer says each time.
fn send(
    is_heard: bool,
    seconds: u64,
    mut report: impl FnMut(&mut Estimator, u64, Instant),
) -> Estimator {
    let start = Instant::now();
    let mut estimator = Estimator::new(start, 2_000_000);
    if is_heard {
        estimator.expect_feedback(start);
    }
    for n in 0..seconds * 100 {
        let now = start + 10 * MS * n as u32;
        while estimator.poll_timeout().is_some_and(|due| due <= now) {
            estimator.handle_timeout(now);
            if estimator.poll_timeout().is_some_and(|due| due <= now) {
                break;
            }
        }
        estimator.on_sent(Some(n as u16), now, 1000, PacketKind::Video);
        report(&mut estimator, n, now);
    }
    estimator
}

fn block(n: u64, lost: i32) -> ReportBlock {
    ReportBlock {
        ssrc: Ssrc(1),
        fraction_lost: 0,
        cumulative_lost: lost,
        highest_sequence_number: n as u32,
        jitter: 0,
        last_sr: 0,
        delay_since_last_sr: 0,
    }
}

#[test]
fn where_nobody_answers_little_is_sent_soon() {
    assert_eq!(send(true, 1, |_, _, _| {}).estimate_bps(), 2_000_000);
    assert!(send(true, 3, |_, _, _| {}).estimate_bps() < 1_000_000);
    let estimator = send(true, 12, |_, _, _| {});
    assert_eq!(estimator.estimate_bps(), ESTIMATE_MIN_BPS);
    assert_eq!(estimator.state().cause, Cause::Silence);
}

#[test]
fn who_was_never_heard_may_have_no_congestion_control() {
    assert_eq!(send(false, 12, |_, _, _| {}).estimate_bps(), 2_000_000);
}

#[test]
fn reports_alone_keep_the_estimate_unless_they_tell_of_loss() {
    let each_2_s = |n: u64| n % 200 == 150;
    let estimator = send(true, 20, |estimator, n, now| {
        if each_2_s(n) {
            estimator.on_receiver_report(&block(n, 0), None, now);
        }
    });
    assert!(estimator.estimate_bps() >= 2_000_000, "{}", estimator.estimate_bps());
    assert_eq!(estimator.state().cause, Cause::Reports);
    let estimator = send(true, 20, |estimator, n, now| {
        if each_2_s(n) {
            estimator.on_receiver_report(&block(n, n as i32 / 2), None, now);
        }
    });
    assert!(estimator.estimate_bps() < 700_000, "{}", estimator.estimate_bps());
}

#[test]
fn reports_that_end_are_silence_too_and_those_that_come_raise_again() {
    let mut at_worst = u64::MAX;
    let estimator = send(true, 60, |estimator, n, now| {
        at_worst = at_worst.min(estimator.estimate_bps());
        if n % 100 == 0 && !(200..2000).contains(&n) {
            estimator.on_receiver_report(&block(n, 0), None, now);
        }
    });
    assert_eq!(at_worst, ESTIMATE_MIN_BPS);
    assert!(estimator.estimate_bps() >= 2_000_000, "{}", estimator.estimate_bps());
}

#[test]
fn remb_leads_where_there_is_no_feedback() {
    let estimator = send(true, 10, |estimator, n, now| {
        if n % 100 == 0 {
            estimator.on_remb(Bitrate(if n < 500 { 600_000 } else { 150_000 }), now);
        }
    });
    assert_eq!(estimator.estimate_bps(), 150_000);
}
