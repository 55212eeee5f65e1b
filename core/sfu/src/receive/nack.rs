//! What is missing of a received stream, and when to ask for it (RFC 4585 section 6.2.1).

use std::time::{Duration, Instant};

use parlor_model::SequenceNumber;

/// Most missing packets remembered; beyond them only a keyframe helps.
pub const MAX_MISSING: usize = 100;
/// Room for so many is taken with the first; few streams miss more at once.
const FEW_MISSING: usize = 16;
/// How long a packet may be merely reordered before it is asked for.
pub const FIRST_NACK_AFTER: Duration = Duration::from_millis(20);
/// How often one packet is asked for.
pub const MAX_TRIES: u8 = 5;
const MIN_INTERVAL: Duration = Duration::from_millis(20);
const MAX_INTERVAL: Duration = Duration::from_millis(400);

#[derive(Clone, Copy)]
struct Missing {
    number: u64,
    due: Instant,
    tries: u8,
}

/// The missing packets of one stream.
#[derive(Default)]
pub struct MissingPackets {
    /// By number.
    missing: Vec<Missing>,
    due: Option<Instant>,
}

impl MissingPackets {
    /// Packets `first..end` have been overtaken. `false` when there are too many of them to ask
    /// for: all are given up.
    #[must_use]
    pub fn add(&mut self, now: Instant, first: u64, end: u64) -> bool {
        let count = usize::try_from(end.saturating_sub(first)).unwrap_or(usize::MAX);
        if count > MAX_MISSING.saturating_sub(self.missing.len()) {
            self.clear();
            return false;
        }
        if self.missing.capacity() == 0 {
            self.missing.reserve_exact(FEW_MISSING);
        }
        let due = now + FIRST_NACK_AFTER;
        self.missing.extend((first..end).map(|number| Missing { number, due, tries: 0 }));
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
        true
    }

    /// A packet has come. Whether it was missing.
    pub fn remove(&mut self, number: u64) -> bool {
        let found = self.missing.binary_search_by_key(&number, |missing| missing.number);
        if let Ok(at) = found {
            self.missing.remove(at);
            if self.missing.is_empty() {
                self.due = None;
            }
        }
        found.is_ok()
    }

    /// Gives all up: a keyframe made them worthless, or the stream ended.
    pub fn clear(&mut self) {
        self.missing.clear();
        self.due = None;
    }

    /// When the next packet is to be asked for.
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Puts the packets that are to be asked for now into `out`, ascending, and gives up those that
    /// have been asked for often enough.
    pub fn take_due(&mut self, now: Instant, round_trip: Duration, out: &mut Vec<SequenceNumber>) {
        if self.due.is_none_or(|due| due > now) {
            return;
        }
        for missing in self.missing.iter_mut().filter(|missing| missing.due <= now) {
            if missing.tries < MAX_TRIES {
                out.push(SequenceNumber(missing.number as u16));
            }
            let factor = libm::pow(1.25, f64::from(missing.tries));
            missing.due = now + round_trip.mul_f64(factor).clamp(MIN_INTERVAL, MAX_INTERVAL);
            missing.tries += 1;
        }
        self.missing.retain(|missing| missing.tries <= MAX_TRIES);
        self.due = self.missing.iter().map(|missing| missing.due).min();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(missing: &mut MissingPackets, now: Instant) -> Vec<u16> {
        let mut out = Vec::new();
        missing.take_due(now, Duration::from_millis(70), &mut out);
        out.into_iter().map(|number| number.0).collect()
    }

    #[test]
    fn a_packet_is_asked_for_after_a_while_and_five_times() {
        let start = Instant::now();
        let mut missing = MissingPackets::default();
        assert!(missing.add(start, 10, 12));
        assert!(due(&mut missing, start + Duration::from_millis(19)).is_empty());
        assert_eq!(missing.due(), Some(start + FIRST_NACK_AFTER));
        let mut times = Vec::new();
        while let Some(at) = missing.due() {
            let numbers = due(&mut missing, at);
            if !numbers.is_empty() {
                assert_eq!(numbers, [10, 11]);
                times.push((at - start).as_millis());
            }
        }
        assert_eq!(times, [20, 90, 177, 286, 423]);
        assert!(missing.missing.is_empty());
    }

    #[test]
    fn what_has_come_is_not_asked_for() {
        let start = Instant::now();
        let mut missing = MissingPackets::default();
        assert!(missing.add(start, 65_535, 65_538));
        assert!(missing.remove(65_536));
        assert!(!missing.remove(65_536));
        assert_eq!(due(&mut missing, start + FIRST_NACK_AFTER), [65_535, 1]);
    }

    #[test]
    fn too_many_missing_packets_are_given_up() {
        let now = Instant::now();
        let mut missing = MissingPackets::default();
        assert!(missing.add(now, 0, MAX_MISSING as u64));
        assert!(!missing.add(now, 200, 201));
        assert_eq!(missing.due(), None);
        assert!(!missing.add(now, 0, MAX_MISSING as u64 + 1));
    }
}
