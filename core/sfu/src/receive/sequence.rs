//! Sequence numbers that do not wrap, and that leave out packets of padding only.

use parlor_model::SequenceNumber;

/// Segments remembered of a stream's renumbering.
const MAX_SEGMENTS: usize = 32;

/// Extends 16-bit sequence numbers by their distance to the highest one seen.
pub struct Extender {
    highest: Option<u64>,
    first_cycle: u64,
}

impl Default for Extender {
    /// Leaves one cycle of room for packets that were overtaken by the first.
    fn default() -> Self {
        Self::new(1)
    }
}

/// Where a packet stands in its stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Order {
    /// Newer than all before; so many packets before it have not come.
    Newest { missing: u64 },
    /// Before the newest one.
    Late,
}

impl Extender {
    /// The first number lies in this cycle of 2^16.
    pub fn new(first_cycle: u64) -> Self {
        Self { highest: None, first_cycle }
    }

    /// The extended number of a packet and where it stands. A number that would lie before the
    /// beginning of counting is `None`.
    #[inline]
    pub fn extend(&mut self, sequence: SequenceNumber) -> Option<(u64, Order)> {
        let Some(highest) = self.highest else {
            let first = (self.first_cycle << 16) + u64::from(sequence.0);
            self.highest = Some(first);
            return Some((first, Order::Newest { missing: 0 }));
        };
        let distance = sequence.distance(SequenceNumber(highest as u16));
        let number = highest.checked_add_signed(i64::from(distance))?;
        if distance > 0 {
            self.highest = Some(number);
            return Some((number, Order::Newest { missing: number - highest - 1 }));
        }
        Some((number, Order::Late))
    }

    /// The extended number of a packet that may not move the highest one: a retransmission.
    #[inline]
    pub fn peek(&self, sequence: SequenceNumber) -> Option<u64> {
        let highest = self.highest?;
        let distance = sequence.distance(SequenceNumber(highest as u16));
        if distance > 0 {
            return None;
        }
        highest.checked_add_signed(i64::from(distance))
    }

    /// Begins anew with another source, above all numbers given out.
    pub fn restart(&mut self, sequence: SequenceNumber) -> u64 {
        let number = (self.cycle_after() << 16) + u64::from(sequence.0);
        self.highest = Some(number);
        number
    }

    /// A cycle above all numbers given out.
    pub fn cycle_after(&self) -> u64 {
        self.highest.map_or(self.first_cycle, |highest| (highest >> 16) + 2)
    }

    /// The highest extended number.
    pub fn highest(&self) -> Option<u64> {
        self.highest
    }
}

/// Numbers packets anew so that left-out ones leave no hole.
#[derive(Default)]
pub struct Renumber {
    /// First extended number of a segment, and how many were left out before it; ascending.
    segments: Vec<(u64, u64)>,
    /// Numbers before this one belong to a forgotten segment.
    oldest: u64,
}

impl Renumber {
    /// Leaves out `number`, which is the newest of the stream.
    pub fn leave_out(&mut self, number: u64) {
        let before = self.segments.last().map_or(0, |segment| segment.1);
        match self.segments.last_mut() {
            // A run of padding moves one segment on.
            Some(segment) if segment.0 == number => *segment = (number + 1, before + 1),
            _ => {
                if self.segments.len() == MAX_SEGMENTS {
                    let forgotten = self.segments.remove(0);
                    self.oldest = self.segments.first().map_or(forgotten.0, |next| next.0);
                }
                if self.segments.capacity() == 0 {
                    self.segments.reserve_exact(MAX_SEGMENTS);
                }
                self.segments.push((number + 1, before + 1));
            }
        }
    }

    /// The number of a packet without the left-out ones before it; `None` when it is too old to
    /// say, or was itself left out.
    #[inline]
    pub fn number(&self, number: u64) -> Option<u64> {
        if self.segments.is_empty() {
            return Some(number);
        }
        if number < self.oldest {
            return None;
        }
        let after = self.segments.partition_point(|segment| segment.0 <= number);
        let left_out = match after.checked_sub(1).and_then(|at| self.segments.get(at)) {
            Some(segment) => segment.1,
            // Before the first segment that is remembered: what was left out before it.
            None => self.before_first(),
        };
        let new = number - left_out;
        // A number that the next segment's first packet takes over was left out.
        match self.segments.get(after) {
            Some(next) if new >= next.0 - next.1 => None,
            _ => Some(new),
        }
    }

    /// The number on the wire of one of the newest packets, by its number without the left-out
    /// ones.
    pub fn wire_number(&self, number: u64) -> u64 {
        number + self.segments.last().map_or(0, |segment| segment.1)
    }

    fn before_first(&self) -> u64 {
        if self.oldest == 0 { 0 } else { self.segments.first().map_or(0, |first| first.1) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_extend_over_the_wrap_both_ways() {
        let mut extender = Extender::default();
        assert_eq!(
            extender.extend(SequenceNumber(65_534)),
            Some((131_070, Order::Newest { missing: 0 }))
        );
        assert_eq!(
            extender.extend(SequenceNumber(1)),
            Some((131_073, Order::Newest { missing: 2 }))
        );
        assert_eq!(extender.extend(SequenceNumber(65_535)), Some((131_071, Order::Late)));
        assert_eq!(extender.extend(SequenceNumber(1)), Some((131_073, Order::Late)));
        assert_eq!(extender.peek(SequenceNumber(0)), Some(131_072));
        assert_eq!(extender.peek(SequenceNumber(2)), None);
        assert_eq!(extender.highest(), Some(131_073));
    }

    #[test]
    fn padding_leaves_no_hole_and_late_packets_keep_their_number() {
        let mut renumber = Renumber::default();
        // 40, 41p, 42p, 43, 44p, 45
        renumber.leave_out(41);
        renumber.leave_out(42);
        renumber.leave_out(44);
        let numbers: Vec<_> = (39..47).map(|number| renumber.number(number)).collect();
        let expected = [Some(39), Some(40), None, None, Some(41), None, Some(42), Some(43)];
        assert_eq!(numbers, expected);
    }

    #[test]
    fn forgotten_segments_are_never_guessed() {
        let mut renumber = Renumber::default();
        for number in (2..200).step_by(2) {
            renumber.leave_out(number);
        }
        assert!(renumber.segments.len() <= MAX_SEGMENTS);
        let mut seen = None;
        for number in 0..300 {
            let new = renumber.number(number);
            if let (Some(new), Some(before)) = (new, seen) {
                assert!(new > before, "{number}");
            }
            seen = new.or(seen);
        }
        assert_eq!(renumber.number(5), None);
        assert_eq!(renumber.number(299), Some(299 - 99));
    }
}
