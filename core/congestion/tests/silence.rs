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
        handle_due(&mut estimator, now);
        estimator.on_sent(Some(n as u16), now, 1000, PacketKind::Video);
        report(&mut estimator, n, now);
    }
    estimator
}

fn handle_due(estimator: &mut Estimator, now: Instant) {
    while estimator.poll_timeout().is_some_and(|due| due <= now) {
        estimator.handle_timeout(now);
        if estimator.poll_timeout().is_some_and(|due| due <= now) {
            // A probe waits for its next packet.
            break;
        }
    }
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

/// A camera of 400 kbit/s alone: while it is paused there is nothing to report on.
#[test]
fn what_is_paused_is_tried_again_without_reports() {
    let start = Instant::now();
    let mut estimator = Estimator::new(start, 2_000_000);
    estimator.expect_feedback(start);
    let (mut sent, mut lost, mut sent_after) = (0, 0, 0);
    for n in 0..12_000 {
        let now = start + 10 * MS * n;
        handle_due(&mut estimator, now);
        let is_sent = estimator.estimate_bps() > 400_000;
        estimator.set_wanted(400_000, !is_sent, now);
        if !is_sent {
            continue;
        }
        estimator.on_sent(None, now, 500, PacketKind::Video);
        sent += 1;
        if n < 1_000 {
            lost += i32::from(sent % 2 == 0);
        } else {
            sent_after += 1;
        }
        if sent % 100 == 0 {
            estimator.on_receiver_report(&block(sent, lost), None, now);
        }
    }
    assert!(sent < 12_000 && lost > 0, "it was paused");
    assert!(sent_after > 6_000, "{sent_after}");
}

/// All feedback was lost at first, and then all was paused: what could be told of is gone.
#[test]
fn what_is_paused_is_probed_for() {
    let start = Instant::now();
    let mut estimator = Estimator::new(start, 2_000_000);
    estimator.on_receiver_report(&block(0, 0), None, start);
    let mut probed_after = 0;
    for n in 0..3_000 {
        let now = start + 10 * MS * n;
        handle_due(&mut estimator, now);
        if n % 100 == 0 {
            estimator.on_receiver_report(&block(n.into(), n as i32 / 2), None, now);
        }
        estimator.set_wanted(4_000_000, true, now);
        if let Some(probe) = estimator.poll_probe(now) {
            estimator.on_sent(Some(n as u16), now, probe.size_bytes, PacketKind::Padding);
            probed_after += u32::from(n > 2_000);
        }
    }
    assert!(probed_after > 0);
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
