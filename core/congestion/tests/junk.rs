//! No feedback, however odd, makes the estimator panic or leave its bounds.
#![allow(clippy::unwrap_used, missing_docs)]

use std::time::{Duration, Instant};

use parlor_congestion::{ESTIMATE_MAX_BPS, ESTIMATE_MIN_BPS, Estimator, PacketKind};
use parlor_model::{Bitrate, Ssrc};
use parlor_rtp::rtcp::{ReportBlock, Rtcp, packets};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn odd_feedback_is_survived(
        steps in prop::collection::vec(
            (any::<u16>(), 0..2000_u64, prop::collection::vec(any::<u8>(), 16..120), any::<u64>()),
            1..60,
        ),
        is_numbered_in_order: bool,
    ) {
        let mut now = Instant::now();
        let mut estimator = Estimator::new(now, 300_000);
        estimator.set_wanted(5_000_000, true, now);
        let mut next = 0_u16;
        for (number, wait_ms, body, bitrate) in steps {
            now += Duration::from_millis(wait_ms);
            for _ in 0..20 {
                next = if is_numbered_in_order { next.wrapping_add(1) } else { number };
                let size_bytes = usize::from(number);
                estimator.on_sent(Some(next), now, size_bytes, PacketKind::Video);
            }
            let mut bytes = vec![0x8F, 205, 0, 0];
            bytes.extend(&body[..body.len() / 4 * 4]);
            bytes[3] = (bytes.len() / 4 - 1) as u8;
            // Near what was sent, so that it is about something.
            bytes[12..14].copy_from_slice(&next.wrapping_sub(number % 40).to_be_bytes());
            if let Some(Rtcp::TransportFeedback(feedback)) = packets(&bytes).next() {
                estimator.on_feedback(&feedback, now);
            }
            let report = ReportBlock {
                ssrc: Ssrc(number.into()),
                fraction_lost: 0,
                cumulative_lost: bitrate as i32,
                highest_sequence_number: bitrate as u32,
                jitter: 0,
                last_sr: 0,
                delay_since_last_sr: 0,
            };
            estimator.on_receiver_report(&report, Some(Duration::from_millis(bitrate)), now);
            estimator.on_remb(Bitrate(bitrate), now);
            estimator.handle_timeout(now);
            while estimator.poll_probe(now).is_some() {}
            prop_assert!((ESTIMATE_MIN_BPS..=ESTIMATE_MAX_BPS).contains(&estimator.estimate_bps()));
            prop_assert!(!estimator.state().to_string().is_empty());
        }
    }
}
