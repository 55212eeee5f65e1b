//! One incoming RTP stream: what arrived, what is missing, what its reports say.

use parlor_model::{CodecBinding, Mid, NtpTime, RtpTimestamp, SequenceNumber, Ssrc};
use parlor_rtp::rtcp::ReportBlock;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Missing packets of a stream that are remembered.
pub const MISSING_MAX: usize = 300;
/// How often a missing packet is asked for.
pub const NACK_TRIES_MAX: u8 = 10;
/// How long after a gap is seen the first question goes out: reordering may fill it.
pub const NACK_DELAY: Duration = Duration::from_millis(20);
/// How long between questions for the same packet.
pub const NACK_INTERVAL: Duration = Duration::from_millis(50);
/// A jump of more than this is a new beginning, not a loss.
const JUMP_MAX: i64 = 3000;
const ARRIVED_WINDOW: u64 = 1024;
const ARRIVED_WORDS: usize = (ARRIVED_WINDOW / 64) as usize;

#[derive(Clone, Copy, Debug)]
struct Missing {
    due: Instant,
    tries: u8,
}

/// What arrived of one stream since it began.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct ReceivedStream {
    /// The section that it comes in.
    pub mid: Mid,
    /// Packets that its sequence numbers tell of.
    pub expected: u64,
    /// Those that came, also late or as retransmissions.
    pub received: u64,
    /// Variation of the time under way (RFC 3550 section 6.4.1).
    pub jitter: Duration,
}

#[derive(Debug)]
pub(crate) struct ReceiveStream {
    pub mid: Mid,
    pub codec: CodecBinding,
    pub nacks: bool,
    /// Highest number seen, extended by counting wraps.
    highest: Option<u64>,
    first: u64,
    received: u64,
    transit: Option<i64>,
    jitter_ticks: f64,
    missing: BTreeMap<u64, Missing>,
    arrived: [u64; ARRIVED_WORDS],
    expected_prior: u64,
    received_prior: u64,
    last_report: Option<(NtpTime, Instant)>,
}

impl ReceiveStream {
    pub fn new(mid: Mid, codec: CodecBinding, nacks: bool) -> Self {
        Self {
            mid,
            codec,
            nacks,
            highest: None,
            first: 0,
            received: 0,
            arrived: [0; ARRIVED_WORDS],
            missing: BTreeMap::new(),
            transit: None,
            jitter_ticks: 0.0,
            expected_prior: 0,
            received_prior: 0,
            last_report: None,
        }
    }

    /// Takes a packet's number. `None` when the packet came before; else whether it is newest.
    pub fn handle(
        &mut self,
        now: Instant,
        epoch: Instant,
        sequence: SequenceNumber,
        timestamp: RtpTimestamp,
    ) -> Option<bool> {
        let Some(highest) = self.highest else {
            let start = u64::from(sequence.0) + (1 << 16);
            (self.first, self.highest) = (start, Some(start));
            self.mark(start);
            self.received = 1;
            return Some(true);
        };
        let distance = i64::from(sequence.distance(SequenceNumber(highest as u16)));
        if distance.abs() > JUMP_MAX {
            self.restart(sequence);
            return Some(true);
        }
        let number = highest.saturating_add_signed(distance);
        if number > highest {
            for passed in highest + 1..=number {
                self.clear(passed);
            }
            self.note_missing(now, highest + 1, number);
            self.highest = Some(number);
            self.update_jitter(now, epoch, timestamp);
        } else if highest - number >= ARRIVED_WINDOW || self.is_marked(number) {
            return None;
        }
        self.mark(number);
        if !self.missing.is_empty() {
            self.missing.remove(&number);
        }
        self.received += 1;
        Some(number > highest)
    }

    fn restart(&mut self, sequence: SequenceNumber) {
        let start = u64::from(sequence.0) + (1 << 16);
        (self.first, self.highest) = (start, Some(start));
        self.missing.clear();
        self.arrived.fill(0);
        self.mark(start);
        (self.received, self.expected_prior, self.received_prior) = (1, 0, 0);
    }

    fn note_missing(&mut self, now: Instant, from: u64, to: u64) {
        if !self.nacks {
            return;
        }
        for number in from..to {
            self.missing.insert(number, Missing { due: now + NACK_DELAY, tries: 0 });
        }
        while self.missing.len() > MISSING_MAX {
            self.missing.pop_first();
        }
    }

    fn slot(number: u64) -> (usize, u64) {
        let bit = number % ARRIVED_WINDOW;
        ((bit / 64) as usize, 1 << (bit % 64))
    }

    fn mark(&mut self, number: u64) {
        let (word, bit) = Self::slot(number);
        self.arrived[word] |= bit;
    }

    fn clear(&mut self, number: u64) {
        let (word, bit) = Self::slot(number);
        self.arrived[word] &= !bit;
    }

    fn is_marked(&self, number: u64) -> bool {
        let (word, bit) = Self::slot(number);
        self.arrived[word] & bit != 0
    }

    fn update_jitter(&mut self, now: Instant, epoch: Instant, timestamp: RtpTimestamp) {
        let clock_rate = u64::from(self.codec.codec.clock_rate());
        let elapsed = now - epoch;
        let fraction = u64::from(elapsed.subsec_micros()) * clock_rate / 1_000_000;
        let arrival = elapsed.as_secs().wrapping_mul(clock_rate).wrapping_add(fraction);
        let transit = i64::from((arrival as u32).wrapping_sub(timestamp.0).cast_signed());
        if let Some(before) = self.transit.replace(transit) {
            let change = (transit - before).unsigned_abs() as f64;
            self.jitter_ticks += (change - self.jitter_ticks) / 16.0;
        }
    }

    /// How many packets are missing.
    pub fn missing(&self) -> usize {
        self.missing.len()
    }

    /// When a question for a missing packet is due.
    pub fn nack_due(&self) -> Option<Instant> {
        self.missing.values().map(|missing| missing.due).min()
    }

    /// Collects the packets to ask for now.
    pub fn take_nacks(&mut self, now: Instant, out: &mut Vec<SequenceNumber>) {
        self.missing.retain(|number, missing| {
            if missing.due > now {
                return true;
            }
            if missing.tries == NACK_TRIES_MAX {
                return false;
            }
            missing.tries += 1;
            missing.due = now + NACK_INTERVAL;
            out.push(SequenceNumber(*number as u16));
            true
        });
    }

    /// What arrived; `None` before the first packet.
    pub fn received(&self) -> Option<ReceivedStream> {
        let jitter_s = self.jitter_ticks / f64::from(self.codec.codec.clock_rate());
        Some(ReceivedStream {
            mid: self.mid,
            expected: self.highest? - self.first + 1,
            received: self.received,
            jitter: Duration::from_secs_f64(jitter_s),
        })
    }

    pub fn handle_sender_report(&mut self, now: Instant, ntp: NtpTime) {
        self.last_report = Some((ntp, now));
    }

    /// The block about this stream in the next receiver report; `None` before the first packet.
    pub fn report(&mut self, now: Instant, ssrc: Ssrc) -> Option<ReportBlock> {
        let highest = self.highest?;
        let expected = highest - self.first + 1;
        let expected_now = expected - self.expected_prior.min(expected);
        let received_now = self.received - self.received_prior.min(self.received);
        let lost_now = expected_now.saturating_sub(received_now);
        (self.expected_prior, self.received_prior) = (expected, self.received);
        let (last_sr, delay) = self.last_report.map_or((0, 0), |(ntp, at)| {
            (ntp.middle(), ((now - at).as_micros() * 65_536 / 1_000_000) as u32)
        });
        Some(ReportBlock {
            ssrc,
            fraction_lost: (lost_now * 256).checked_div(expected_now).unwrap_or(0).min(255) as u8,
            cumulative_lost: (expected as i64 - self.received as i64) as i32,
            highest_sequence_number: (highest - (1 << 16)) as u32,
            jitter: self.jitter_ticks as u32,
            last_sr,
            delay_since_last_sr: delay,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_model::{Codec, PayloadType};

    fn stream() -> ReceiveStream {
        let codec = CodecBinding {
            codec: Codec::Vp8,
            payload_type: PayloadType(96),
            rtx: None,
            variant: 0,
        };
        ReceiveStream::new(Mid::new("0").unwrap(), codec, true)
    }

    #[test]
    fn gaps_are_asked_for_until_filled_and_duplicates_are_told() {
        let mut stream = stream();
        let start = Instant::now();
        let handle = |stream: &mut ReceiveStream, sequence| {
            stream.handle(start, start, SequenceNumber(sequence), RtpTimestamp(0))
        };
        assert_eq!(handle(&mut stream, 65_534), Some(true));
        assert_eq!(handle(&mut stream, 1), Some(true));
        let mut lost = Vec::new();
        stream.take_nacks(start + NACK_DELAY, &mut lost);
        assert_eq!(lost, [SequenceNumber(65_535), SequenceNumber(0)]);
        assert_eq!(handle(&mut stream, 0), Some(false));
        assert_eq!(handle(&mut stream, 0), None);
        lost.clear();
        stream.take_nacks(start + NACK_DELAY + NACK_INTERVAL, &mut lost);
        assert_eq!(lost, [SequenceNumber(65_535)]);
        let report = stream.report(start, Ssrc(1)).unwrap();
        assert_eq!((report.cumulative_lost, report.fraction_lost), (1, 64));
        let received = stream.received().unwrap();
        assert_eq!((received.expected, received.received), (4, 3));
    }

    #[test]
    fn a_jump_is_a_new_beginning() {
        let mut stream = stream();
        let start = Instant::now();
        for sequence in [10, 30_000] {
            let is_newest = stream.handle(start, start, SequenceNumber(sequence), RtpTimestamp(0));
            assert_eq!(is_newest, Some(true));
        }
        assert_eq!(stream.nack_due(), None);
    }
}
