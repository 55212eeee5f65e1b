//! What was sent under which transport-wide sequence number, and what feedback says about it.

use parlor_rtp::rtcp::{REFERENCE_TICK_US, TransportFeedback};

/// Most packets that wait for feedback; with more, the oldest are forgotten.
pub const HISTORY_MAX: usize = 8192;
/// How long a packet waits for feedback before its place may be used again, in microseconds.
const HISTORY_TIME_US: i64 = 2_000_000;
/// As [`HISTORY_TIME_US`], of one that feedback has called lost: it may arrive after all.
const LOST_TIME_US: i64 = 500_000;
const HISTORY_START: usize = 128;
/// Arrivals that are read of feedback at once, before any is looked at: each of both goes fast
/// alone.
const READ_AT_ONCE: usize = 32;
/// How many times the reference time ticks before it wraps.
const REFERENCE_WRAP: i64 = 1 << 24;

/// What a packet was sent for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PacketKind {
    /// Audio, for the first time.
    Audio,
    /// Video, for the first time.
    Video,
    /// Media that was asked for again.
    Retransmission,
    /// Nothing but to be there: padding, or media again that nobody asked for.
    Padding,
}

/// The number of a probe: packets sent at one rate to see whether it passes. Never 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProbeCluster(pub u16);

/// What feedback says about one packet, at the first time or when it turns out not to be lost.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct PacketResult {
    /// When it was sent, in microseconds of the sender's clock.
    pub sent_us: i64,
    /// When it arrived, in microseconds of the receiver's clock, unwrapped; `None` for lost.
    pub arrival_us: Option<i64>,
    /// Size in bytes.
    pub size_bytes: u16,
    /// What it was sent for.
    pub kind: PacketKind,
    /// The probe that it was a part of.
    pub cluster: Option<ProbeCluster>,
    /// Earlier feedback called it lost.
    pub was_lost: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fate {
    /// The number was passed over.
    NotSent,
    Outstanding,
    Lost,
    Received,
}

#[derive(Clone, Copy, Debug)]
struct Sent {
    sent_us: i64,
    size_bytes: u16,
    cluster: u16,
    kind: PacketKind,
    fate: Fate,
}

impl Sent {
    /// Whether feedback may still say something of it that has not been said.
    #[inline(always)]
    fn awaits(&self, now_us: i64) -> bool {
        let time_us = match self.fate {
            Fate::NotSent | Fate::Received => return false,
            Fate::Outstanding => HISTORY_TIME_US,
            Fate::Lost => LOST_TIME_US,
        };
        now_us - self.sent_us < time_us
    }
}

/// Of a number that was passed over, or in a place where there has been none.
const NOT_SENT: Sent =
    Sent { sent_us: 0, size_bytes: 0, cluster: 0, kind: PacketKind::Padding, fate: Fate::NotSent };

/// A ring of what was sent, by transport-wide sequence number.
///
/// It is empty before the first packet, then grows by doubling while packets fill it of which
/// feedback may still say something, up to [`HISTORY_MAX`]: small as it stays, more of what a
/// feedback touches is still in the processor's cache.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SentHistory {
    ring: Vec<Sent>,
    /// The number that the next packet is expected to have, unwrapped.
    next: u64,
    /// The oldest number when the ring began, or grew, unwrapped. See [`Self::first`].
    began: u64,
    /// The number after the newest that feedback has spoken of, unwrapped. See
    /// [`Self::acknowledged`].
    acknowledged: u64,
    last_reference_ticks: Option<i64>,
}

impl SentHistory {
    /// Notes a packet. Numbers that were passed over count as not sent; a number that is not
    /// ahead of the last one is ignored.
    #[inline(always)]
    pub fn on_sent(
        &mut self,
        sequence_number: u16,
        now_us: i64,
        size_bytes: usize,
        kind: PacketKind,
        cluster: Option<ProbeCluster>,
    ) {
        let follows = sequence_number == self.next as u16 && !self.ring.is_empty();
        if !follows && !self.skip_to(sequence_number, now_us) {
            return;
        }
        let size_bytes = size_bytes.min(usize::from(u16::MAX)) as u16;
        let cluster = cluster.map_or(0, |cluster| cluster.0);
        let fate = Fate::Outstanding;
        self.append(Sent { sent_us: now_us, size_bytes, cluster, kind, fate }, now_us);
    }

    /// Makes `sequence_number` the next one; `false` when it is behind.
    #[cold]
    fn skip_to(&mut self, sequence_number: u16, now_us: i64) -> bool {
        if self.ring.is_empty() {
            self.ring = vec![NOT_SENT; HISTORY_START];
            // 2^32 leaves room to count down from, and keeps the low 16 bits.
            self.next = (1 << 32) + u64::from(sequence_number);
            self.began = self.next;
            self.acknowledged = self.next;
        }
        let ahead = sequence_number.wrapping_sub(self.next as u16);
        if ahead >= 1 << 15 {
            return false;
        }
        for _ in 0..ahead {
            self.append(NOT_SENT, now_us);
        }
        true
    }

    /// The oldest is forgotten, unless it is so young that the ring grows. Only what has left is
    /// young, and it is in the way only where the ring is full.
    #[inline(always)]
    fn append(&mut self, sent: Sent, now_us: i64) {
        let index = self.index(self.next);
        let mut place = self.ring.get_mut(index);
        if place.as_ref().is_some_and(|oldest| oldest.awaits(now_us)) {
            place = self.grow_if_it_may();
        }
        if let Some(place) = place {
            // Field by field: what is put together first is copied once more.
            (place.sent_us, place.size_bytes) = (sent.sent_us, sent.size_bytes);
            (place.cluster, place.kind, place.fate) = (sent.cluster, sent.kind, sent.fate);
        }
        self.next += 1;
    }

    /// The place of the next number.
    #[cold]
    fn grow_if_it_may(&mut self) -> Option<&mut Sent> {
        if self.ring.len() < HISTORY_MAX {
            self.grow();
        }
        let index = self.index(self.next);
        self.ring.get_mut(index)
    }

    fn grow(&mut self) {
        let first = self.first();
        let mut larger = vec![NOT_SENT; self.ring.len() * 2];
        for number in first..self.next {
            larger[number as usize & (self.ring.len() * 2 - 1)] = self.ring[self.index(number)];
        }
        self.ring = larger;
        self.began = first;
    }

    #[inline]
    fn index(&self, number: u64) -> usize {
        number as usize & self.ring.len().wrapping_sub(1)
    }

    /// The oldest number that the ring holds, unwrapped.
    #[inline]
    fn first(&self) -> u64 {
        self.began.max(self.next.saturating_sub(self.ring.len() as u64))
    }

    /// The number after the newest that feedback has spoken of, or that the ring has forgotten.
    #[inline]
    fn acknowledged(&self) -> u64 {
        self.acknowledged.max(self.first())
    }

    /// Bytes sent after the newest packet that feedback has spoken of.
    #[cfg(test)]
    fn in_flight_bytes(&self) -> u64 {
        let in_flight = self.acknowledged()..self.next;
        in_flight.map(|number| u64::from(self.ring[self.index(number)].size_bytes)).sum()
    }

    /// Packets sent after the newest that feedback has spoken of.
    #[inline]
    pub fn in_flight_packets(&self) -> u64 {
        self.next - self.acknowledged()
    }

    /// When the oldest packet in flight was sent, in microseconds.
    pub fn oldest_in_flight_us(&self) -> Option<i64> {
        let mut numbers = self.acknowledged()..self.next;
        let sent = numbers.find_map(|number| {
            let sent = self.ring[self.index(number)];
            (sent.fate != Fate::NotSent).then_some(sent)
        });
        sent.map(|sent| sent.sent_us)
    }

    /// Tells `told` what `feedback` says for the first time, in order of sequence numbers.
    ///
    /// Packets that feedback has spoken of before are left out, unless they were called lost and
    /// now have arrived. Packets never sent, or too old, are left out too.
    #[inline]
    pub fn on_feedback(
        &mut self,
        feedback: &TransportFeedback<'_>,
        mut told: impl FnMut(&PacketResult),
    ) {
        if self.ring.is_empty() {
            return;
        }
        let offset_us = self.unwrap_reference(feedback.reference_time_ticks());
        let newest = self.next - 1;
        let ahead = feedback.base_sequence_number().wrapping_sub(newest as u16).cast_signed();
        let mut next = newest.saturating_add_signed(i64::from(ahead));
        let known = self.first()..self.next;
        let mut arrivals = feedback.arrivals_us().take(HISTORY_MAX);
        loop {
            let (mut read, mut count) = ([None; READ_AT_ONCE], 0);
            arrivals.by_ref().take(READ_AT_ONCE).zip(&mut read).for_each(|((_, at), place)| {
                *place = at;
                count += 1;
            });
            for arrival_us in read.into_iter().take(count) {
                let number = next;
                next += 1;
                if !known.contains(&number) {
                    continue;
                }
                self.acknowledged = self.acknowledged.max(next);
                let arrival_us = arrival_us.map(|arrival_us| arrival_us + offset_us);
                if let Some(result) = self.settle(number, arrival_us) {
                    told(&result);
                }
            }
            if count < READ_AT_ONCE {
                return;
            }
        }
    }

    /// Notes what is told of a number; `None` if that is nothing new.
    #[inline]
    fn settle(&mut self, number: u64, arrival_us: Option<i64>) -> Option<PacketResult> {
        let index = self.index(number);
        let sent = self.ring.get_mut(index)?;
        let was_lost = sent.fate == Fate::Lost;
        let is_news = match sent.fate {
            Fate::NotSent | Fate::Received => false,
            Fate::Outstanding => true,
            Fate::Lost => arrival_us.is_some(),
        };
        if !is_news {
            return None;
        }
        sent.fate = if arrival_us.is_some() { Fate::Received } else { Fate::Lost };
        Some(PacketResult {
            sent_us: sent.sent_us,
            arrival_us,
            size_bytes: sent.size_bytes,
            kind: sent.kind,
            cluster: (sent.cluster != 0).then_some(ProbeCluster(sent.cluster)),
            was_lost,
        })
    }

    /// What to add to arrivals so that they do not wrap, in microseconds.
    fn unwrap_reference(&mut self, ticks: i32) -> i64 {
        let ticks = i64::from(ticks);
        let last = self.last_reference_ticks.unwrap_or(ticks);
        let half = REFERENCE_WRAP / 2;
        let step = (ticks - last + half).rem_euclid(REFERENCE_WRAP) - half;
        let unwrapped = last + step;
        // Feedback that comes late must not make the next wrap look like one backwards.
        self.last_reference_ticks = Some(unwrapped.max(last));
        (unwrapped - ticks) * REFERENCE_TICK_US
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_model::Ssrc;
    use parlor_rtp::rtcp::{
        FeedbackSsrcs, Rtcp, TransportFeedbackFields, packets, write_transport_feedback,
    };

    fn give(
        history: &mut SentHistory,
        base: u16,
        arrivals_us: &[Option<i64>],
    ) -> Vec<PacketResult> {
        let fields = TransportFeedbackFields {
            ssrcs: FeedbackSsrcs { sender: Ssrc(1), media: Ssrc(2) },
            base_sequence_number: base,
            feedback_count: 0,
        };
        let mut bytes = Vec::new();
        write_transport_feedback(&mut bytes, &fields, arrivals_us);
        let Some(Rtcp::TransportFeedback(feedback)) = packets(&bytes).next() else { panic!() };
        let mut results = Vec::new();
        history.on_feedback(&feedback, |result| results.push(*result));
        results
    }

    fn send(history: &mut SentHistory, numbers: impl Iterator<Item = u16>) {
        for (n, number) in numbers.enumerate() {
            history.on_sent(number, n as i64 * 1000, 100, PacketKind::Video, None);
        }
    }

    #[test]
    fn each_packet_is_told_once_across_the_wrap() {
        let mut history = SentHistory::default();
        send(&mut history, (65_530..=65_535).chain(0..4));
        assert_eq!(history.in_flight_bytes(), 1000);
        let results = give(&mut history, 65_534, &[Some(0), None, Some(500), None, Some(1000)]);
        let lost: Vec<_> = results.iter().map(|result| result.arrival_us.is_none()).collect();
        assert_eq!(lost, [false, true, false, true, false]);
        assert_eq!(history.in_flight_bytes(), 100);
        let again = give(&mut history, 65_534, &[Some(0), Some(600), Some(500), None, Some(1000)]);
        assert_eq!(again.len(), 1, "the one that was late");
        assert!(again[0].was_lost && again[0].arrival_us == Some(500));
    }

    #[test]
    fn arrivals_go_on_when_the_reference_time_wraps() {
        let mut history = SentHistory::default();
        send(&mut history, 0..100);
        let wrap_us = REFERENCE_WRAP * REFERENCE_TICK_US;
        let before_us = wrap_us / 2 - 64_000;
        let first = give(&mut history, 0, &[Some(before_us)])[0];
        let second = give(&mut history, 1, &[Some(before_us + 128_000)])[0];
        assert_eq!(second.arrival_us.unwrap() - first.arrival_us.unwrap(), 128_000);
        let late = give(&mut history, 2, &[Some(before_us)])[0];
        assert_eq!(late.arrival_us, first.arrival_us);
    }

    #[test]
    fn feedback_on_what_was_never_sent_or_long_ago_is_nothing() {
        let mut history = SentHistory::default();
        assert!(give(&mut history, 0, &[Some(0)]).is_empty());
        send(&mut history, 10..20);
        assert!(give(&mut history, 20, &[Some(0)]).is_empty());
        assert!(give(&mut history, 9, &[Some(0)]).is_empty());
        history.on_sent(25, 0, 100, PacketKind::Audio, None);
        assert!(give(&mut history, 22, &[Some(0)]).is_empty());
        assert_eq!(give(&mut history, 25, &[Some(0)]).len(), 1);
    }

    #[test]
    fn the_ring_is_bounded_and_forgets_the_oldest() {
        let mut history = SentHistory::default();
        for n in 0..HISTORY_MAX as u32 + 1 {
            history.on_sent(n as u16, 0, 100, PacketKind::Video, None);
        }
        assert_eq!(history.ring.len(), HISTORY_MAX);
        assert_eq!(history.in_flight_bytes(), 100 * HISTORY_MAX as u64);
        assert!(give(&mut history, 0, &[Some(0)]).is_empty());
        assert_eq!(give(&mut history, 1, &[Some(0)]).len(), 1);
        history.on_sent((HISTORY_MAX + 32_000) as u16, 0, 100, PacketKind::Video, None);
        assert_eq!(history.in_flight_bytes(), 100);
    }

    #[test]
    fn what_has_arrived_makes_room() {
        let mut history = SentHistory::default();
        for n in 0..2_000_u16 {
            history.on_sent(n, i64::from(n) * 2_000, 1000, PacketKind::Video, None);
            if n % 50 == 49 {
                // The first of each feedback is lost, and one of those comes after all.
                let arrivals = [vec![None], vec![Some(0); 49]].concat();
                assert_eq!(give(&mut history, n - 49, &arrivals).len(), 50, "{n}");
            }
        }
        assert_eq!(history.ring.len(), 2 * HISTORY_START);
    }

    #[test]
    fn a_slow_stream_keeps_the_ring_small() {
        let mut history = SentHistory::default();
        for n in 0..10_000_i64 {
            history.on_sent(n as u16, n * 20_000, 100, PacketKind::Audio, None);
        }
        assert_eq!(history.ring.len(), HISTORY_START);
    }
}
