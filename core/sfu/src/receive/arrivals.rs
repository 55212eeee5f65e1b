//! When packets of a transport arrived, for feedback to their sender
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01).

use std::time::Instant;

use parlor_model::{SequenceNumber, Ssrc};
use parlor_rtp::rtcp::{self, FeedbackSsrcs, TransportFeedbackFields};

use super::sequence::{Extender, Order};

/// Most packets that are held for the next feedback.
pub const MAX_HELD: usize = 2048;
/// Feedback is due at once when so many packets are held.
pub const ENOUGH: usize = 100;

/// Arrivals since the last feedback.
pub struct Arrivals {
    epoch: Instant,
    extender: Extender,
    /// The number of the first of `arrivals_us`.
    base: u64,
    arrivals_us: Vec<Option<i64>>,
    feedback_count: u8,
    media: Ssrc,
}

impl Arrivals {
    pub fn new(epoch: Instant) -> Self {
        Self {
            epoch,
            extender: Extender::default(),
            base: 0,
            arrivals_us: Vec::new(),
            feedback_count: 0,
            media: Ssrc(0),
        }
    }

    /// A packet of the stream `media` came at `arrived`.
    #[inline]
    pub fn record(&mut self, arrived: Instant, number: u16, media: Ssrc) {
        let first = self.extender.highest().is_none();
        let Some((number, order)) = self.extender.extend(SequenceNumber(number)) else { return };
        if first || number.saturating_sub(self.base) >= MAX_HELD as u64 {
            self.base = number;
            self.arrivals_us.clear();
        }
        // What came after its feedback has been reported as lost.
        let Some(at) = number.checked_sub(self.base) else { return };
        let at = at as usize;
        if order != Order::Late && at >= self.arrivals_us.len() {
            self.arrivals_us.resize(at + 1, None);
        }
        if let Some(arrival_us @ None) = self.arrivals_us.get_mut(at) {
            *arrival_us = Some(arrived.duration_since(self.epoch).as_micros() as i64);
        }
        self.media = media;
    }

    /// Packets that wait for feedback, lost ones included.
    pub fn held(&self) -> usize {
        self.arrivals_us.len()
    }

    /// Writes feedback about all that is held, one packet for each call of `write`, and forgets it.
    /// Returns how many packets were written.
    pub fn report(
        &mut self,
        sender: Ssrc,
        mut write: impl FnMut(&mut dyn FnMut(&mut Vec<u8>)),
    ) -> u64 {
        let mut written = 0;
        let mut rest: &[Option<i64>] = &self.arrivals_us;
        while !rest.is_empty() {
            let fields = TransportFeedbackFields {
                ssrcs: FeedbackSsrcs { sender, media: self.media },
                base_sequence_number: self.base as u16,
                feedback_count: self.feedback_count,
            };
            let mut count = 0;
            write(&mut |out| count = rtcp::write_transport_feedback(out, &fields, rest));
            self.feedback_count = self.feedback_count.wrapping_add(1);
            self.base += count as u64;
            rest = rest.get(count.max(1)..).unwrap_or(&[]);
            written += 1;
        }
        self.arrivals_us.clear();
        written
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parlor_rtp::rtcp::Rtcp;

    use super::*;

    fn reported(arrivals: &mut Arrivals) -> Vec<(u16, Option<i64>)> {
        let mut out = Vec::new();
        arrivals.report(Ssrc(1), |write| write(&mut out));
        rtcp::packets(&out)
            .flat_map(|packet| match packet {
                Rtcp::TransportFeedback(feedback) => feedback.arrivals_us().collect(),
                _ => Vec::new(),
            })
            .collect()
    }

    #[test]
    fn each_packet_is_reported_once_with_the_lost_between() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        let ms = |ms| start + Duration::from_millis(ms);
        arrivals.record(ms(64), 65_535, Ssrc(2));
        arrivals.record(ms(65), 1, Ssrc(2));
        assert_eq!(reported(&mut arrivals), [(65_535, Some(64_000)), (0, None), (1, Some(65_000))]);
        assert_eq!(arrivals.held(), 0);
        arrivals.record(ms(66), 0, Ssrc(2));
        assert_eq!(arrivals.held(), 0);
        arrivals.record(ms(128), 3, Ssrc(2));
        assert_eq!(reported(&mut arrivals), [(2, None), (3, Some(128_000))]);
    }

    #[test]
    fn a_jump_past_the_bound_forgets_what_was_held() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        arrivals.record(start, 0, Ssrc(2));
        arrivals.record(start, MAX_HELD as u16 - 1, Ssrc(2));
        assert_eq!(arrivals.held(), MAX_HELD);
        arrivals.record(start, MAX_HELD as u16, Ssrc(2));
        assert_eq!(arrivals.held(), 1);
    }
}
