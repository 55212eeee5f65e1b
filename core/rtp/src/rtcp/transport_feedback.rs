//! When each packet of a transport arrived
//! (draft-holmer-rmcat-transport-wide-cc-extensions-01 section 3.1).

use super::{FeedbackSsrcs, TRANSPORT_FEEDBACK, put_ssrcs, put_u16, write_packet};
use crate::read::{u16_at, u24_at};

pub(super) const TRANSPORT_WIDE: u8 = 15;

/// One tick of an arrival delta, in microseconds.
pub const DELTA_TICK_US: i64 = 250;
/// One tick of a reference time, in microseconds.
pub const REFERENCE_TICK_US: i64 = 64_000;
/// Most packets that one feedback which we write covers, so that it fits a datagram.
pub const MAX_STATUSES: usize = 400;

const HEADER_LEN: usize = 16;
const RUN_LENGTH_MAX: usize = 0x1FFF;
const NOT_RECEIVED: u8 = 0;
const SMALL_DELTA: u8 = 1;
const LARGE_DELTA: u8 = 2;

/// Feedback about the packets of a transport, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct TransportFeedback<'a> {
    /// Who sends it, and a stream that it covers.
    pub ssrcs: FeedbackSsrcs,
    base: u16,
    status_count: u16,
    reference_time_ticks: i32,
    feedback_count: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> TransportFeedback<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        let ssrcs = FeedbackSsrcs::parse(body)?;
        let status_count = u16_at(body, 10)?;
        let reference_time_ticks = (u24_at(body, 12)? << 8).cast_signed() >> 8;
        let rest = body.get(HEADER_LEN..)?;
        let mut covered = 0;
        let mut chunks_len = 0;
        while covered < usize::from(status_count) {
            covered += Chunk(u16_at(rest, chunks_len)?).len();
            chunks_len += 2;
        }
        let (chunks, deltas) = rest.split_at_checked(chunks_len)?;
        Some(Self {
            ssrcs,
            base: u16_at(body, 8)?,
            status_count,
            reference_time_ticks,
            feedback_count: *body.get(15)?,
            chunks,
            deltas,
        })
    }

    /// The transport-wide sequence number of the first packet that is covered.
    pub fn base_sequence_number(&self) -> u16 {
        self.base
    }

    /// How many packets are covered.
    pub fn status_count(&self) -> u16 {
        self.status_count
    }

    /// The receiver's reference time, 24 bits in [`REFERENCE_TICK_US`] of its own clock, that wrap.
    pub fn reference_time_ticks(&self) -> i32 {
        self.reference_time_ticks
    }

    /// The number of this feedback among those of its sender, 8 bits that wrap.
    pub fn feedback_count(&self) -> u8 {
        self.feedback_count
    }

    /// Each covered packet by its transport-wide sequence number, in order, with its delay in
    /// [`DELTA_TICK_US`] since the arrival before (the first: since the reference time), `None` when
    /// it has not arrived. Ends early when the deltas end early.
    pub fn deltas(&self) -> impl Iterator<Item = (u16, Option<i16>)> + use<'a> {
        let mut deltas = self.deltas;
        let mut number = self.base;
        self.chunks
            .chunks_exact(2)
            .filter_map(|bytes| u16_at(bytes, 0).map(Chunk))
            .flat_map(Chunk::symbols)
            .take(usize::from(self.status_count))
            .map_while(move |symbol| {
                let delta = take_delta(&mut deltas, symbol)?;
                let this = number;
                number = number.wrapping_add(1);
                Some((this, delta))
            })
    }

    /// As [`Self::deltas`], with the time of arrival in microseconds of the receiver's own clock,
    /// which wraps with the reference time about every 12 days.
    pub fn arrivals_us(&self) -> impl Iterator<Item = (u16, Option<i64>)> + use<'a> {
        let mut now_us = i64::from(self.reference_time_ticks) * REFERENCE_TICK_US;
        self.deltas().map(move |(number, delta)| {
            let arrival_us = delta.map(|delta| {
                now_us += i64::from(delta) * DELTA_TICK_US;
                now_us
            });
            (number, arrival_us)
        })
    }
}

fn take_delta(deltas: &mut &[u8], symbol: u8) -> Option<Option<i16>> {
    match symbol {
        SMALL_DELTA => {
            let (&first, rest) = deltas.split_first()?;
            *deltas = rest;
            Some(Some(i16::from(first)))
        }
        LARGE_DELTA => {
            let (first, rest) = deltas.split_first_chunk()?;
            *deltas = rest;
            Some(Some(i16::from_be_bytes(*first)))
        }
        _ => Some(None),
    }
}

/// A packet status chunk: a run of one symbol, 14 symbols of one bit, or 7 symbols of two.
#[derive(Clone, Copy)]
struct Chunk(u16);

impl Chunk {
    fn len(self) -> usize {
        match self.0 >> 14 {
            0b10 => 14,
            0b11 => 7,
            _ => usize::from(self.0 & 0x1FFF),
        }
    }

    fn symbols(self) -> impl Iterator<Item = u8> {
        let Chunk(bits) = self;
        (0..self.len()).map(move |index| match bits >> 14 {
            0b10 => (bits >> (13 - index) & 1) as u8,
            0b11 => (bits >> (12 - 2 * index) & 3) as u8,
            _ => (bits >> 13 & 3) as u8,
        })
    }
}

/// Who sends a transport feedback, and where it starts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransportFeedbackFields {
    /// Who sends it, and a stream that it covers.
    pub ssrcs: FeedbackSsrcs,
    /// The transport-wide sequence number of the first packet that is covered.
    pub base_sequence_number: u16,
    /// The number of this feedback among those of its sender, 8 bits that wrap.
    pub feedback_count: u8,
}

/// Appends feedback about the packets from `base_sequence_number` on: for each the time of arrival
/// in microseconds on a clock of the caller's choice, `None` when it has not arrived.
///
/// Returns how many of `arrivals_us` are dealt with, always at least one where there are any: fewer
/// than all when they are over [`MAX_STATUSES`] or two arrivals are over 8 s apart. The caller goes
/// on from there with the next feedback. When none of those has arrived, nothing is appended.
pub fn write_transport_feedback(
    out: &mut Vec<u8>,
    fields: &TransportFeedbackFields,
    arrivals_us: &[Option<i64>],
) -> usize {
    let arrivals = &arrivals_us[..arrivals_us.len().min(MAX_STATUSES)];
    let Some(first_us) = arrivals.iter().flatten().next() else { return arrivals.len() };
    let reference_ticks = first_us.div_euclid(REFERENCE_TICK_US);
    let mut previous = reference_ticks * (REFERENCE_TICK_US / DELTA_TICK_US);
    let mut deltas = [0i16; MAX_STATUSES];
    let mut symbols = [NOT_RECEIVED; MAX_STATUSES];
    let mut count = 0;
    for ((arrival, delta), symbol) in arrivals.iter().zip(&mut deltas).zip(&mut symbols) {
        if let Some(arrival_us) = arrival {
            let ticks = arrival_us.div_euclid(DELTA_TICK_US);
            let Ok(fitting) = i16::try_from(ticks - previous) else { break };
            previous = ticks;
            *delta = fitting;
            *symbol = if u8::try_from(fitting).is_ok() { SMALL_DELTA } else { LARGE_DELTA };
        }
        count += 1;
    }

    let symbols = &symbols[..count];
    write_packet(out, TRANSPORT_FEEDBACK, TRANSPORT_WIDE, |out| {
        put_ssrcs(out, fields.ssrcs.sender, fields.ssrcs.media);
        put_u16(out, fields.base_sequence_number);
        put_u16(out, count as u16);
        let [.., a, b, c] = reference_ticks.to_be_bytes();
        out.extend([a, b, c, fields.feedback_count]);
        put_chunks(out, symbols);
        for (delta, symbol) in deltas.iter().zip(symbols) {
            match *symbol {
                SMALL_DELTA => out.push(*delta as u8),
                LARGE_DELTA => out.extend(delta.to_be_bytes()),
                _ => {}
            }
        }
    });
    count
}

/// Appends the shortest chunk for what comes next until all symbols are covered.
fn put_chunks(out: &mut Vec<u8>, symbols: &[u8]) {
    let mut rest = symbols;
    while let Some(&first) = rest.first() {
        let run = rest.iter().take(RUN_LENGTH_MAX).take_while(|symbol| **symbol == first).count();
        let one_bit = rest.iter().take(14).take_while(|symbol| **symbol < LARGE_DELTA).count();
        let all = rest.len();
        let (chunk, len) = if run >= 14.min(all) || one_bit < 14.min(all) && run >= 7 {
            (u16::from(first) << 13 | run as u16, run)
        } else if one_bit >= 14.min(all) {
            let bits = rest.iter().take(14).enumerate();
            (
                bits.fold(0x8000, |chunk, (i, symbol)| chunk | u16::from(*symbol) << (13 - i)),
                one_bit,
            )
        } else {
            let bits = rest.iter().take(7).enumerate();
            let chunk =
                bits.fold(0xC000, |chunk, (i, symbol)| chunk | u16::from(*symbol) << (12 - 2 * i));
            (chunk, all.min(7))
        };
        put_u16(out, chunk);
        rest = rest.get(len..).unwrap_or(&[]);
    }
}

#[cfg(test)]
mod tests {
    use parlor_model::Ssrc;
    use proptest::prelude::*;

    use super::{
        super::{Rtcp, packets},
        *,
    };

    const FIELDS: TransportFeedbackFields = TransportFeedbackFields {
        ssrcs: FeedbackSsrcs { sender: Ssrc(1), media: Ssrc(2) },
        base_sequence_number: 65_534,
        feedback_count: 9,
    };

    fn read(bytes: &[u8]) -> TransportFeedback<'_> {
        match packets(bytes).next() {
            Some(Rtcp::TransportFeedback(feedback)) => feedback,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn hand_made_chunks_of_each_kind_read_in_order() {
        let bytes = [
            0x8F, 205, 0, 8, 0, 0, 0, 1, 0, 0, 0, 2, // header
            0xFF, 0xFF, 0, 12, 0xFF, 0xFF, 0xFE, 3, // base, count, reference -2, feedback 3
            0x20, 0x03, // run of three small
            0xD8, 0x00, // two bits: 1 2 0 0 0 0 0
            0xB0, 0x00, // one bit: 1 1 then zeros, two of which count
            4, 8, 12, 16, 0xFF, 0xFE, 20, 24, // deltas
            0, 0,
        ];
        let feedback = read(&bytes);
        assert_eq!(feedback.base_sequence_number(), 65_535);
        assert_eq!((feedback.reference_time_ticks(), feedback.feedback_count()), (-2, 3));
        let deltas: Vec<_> = feedback.deltas().collect();
        assert_eq!(deltas[..4], [(65_535, Some(4)), (0, Some(8)), (1, Some(12)), (2, Some(16))]);
        assert_eq!(deltas[4..6], [(3, Some(-2)), (4, None)]);
        assert_eq!(deltas[10..], [(9, Some(20)), (10, Some(24))]);
        let arrivals: Vec<_> = feedback.arrivals_us().collect();
        assert_eq!(arrivals[1], (0, Some(-128_000 + 12 * 250)));
        assert_eq!(arrivals[4], (3, Some(-128_000 + 38 * 250)));
    }

    #[test]
    fn missing_chunks_and_deltas_are_survived() {
        let header = |count, chunk: [u8; 4]| {
            let [a, b, c, d] = chunk;
            vec![0x8F, 205, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, count, 0, 0, 0, 0, a, b, c, d]
        };
        let too_few_chunks = header(200, [0x80, 0, 0x80, 0]);
        assert!(matches!(packets(&too_few_chunks).next(), Some(Rtcp::Unknown { .. })));
        let empty_runs = header(200, [0; 4]);
        assert!(matches!(packets(&empty_runs).next(), Some(Rtcp::Unknown { .. })));
        let too_few_deltas = header(9, [0x20, 9, 1, 2]);
        assert_eq!(read(&too_few_deltas).deltas().count(), 2);
    }

    #[test]
    fn written_feedback_is_short() {
        let mut out = Vec::new();
        let written = write_transport_feedback(&mut out, &FIELDS, &[Some(64_000); 100]);
        assert_eq!((written, out.len()), (100, 20 + 2 + 100 + 2), "one run");
        let mut mixed = vec![Some(0); 14];
        mixed[3] = None;
        out.clear();
        write_transport_feedback(&mut out, &FIELDS, &mixed);
        assert_eq!(out[20..22], [0xBB, 0xFF], "one vector");
        assert!(out.len() == 20 + 2 + 13 + 1);
    }

    #[test]
    fn feedback_stops_where_it_is_full_or_deltas_do_not_fit() {
        let mut out = Vec::new();
        let alternating: Vec<_> =
            (0..MAX_STATUSES + 1).map(|i| Some(i as i64 % 2 * 90_000)).collect();
        assert_eq!(write_transport_feedback(&mut out, &FIELDS, &alternating), MAX_STATUSES);
        assert!(out.len() <= 1_000, "{}", out.len());
        assert_eq!(read(&out).deltas().count(), MAX_STATUSES);
        out.clear();
        let far_apart = [Some(0), None, Some(9_000_000)];
        assert_eq!(write_transport_feedback(&mut out, &FIELDS, &far_apart), 2);
        assert_eq!(
            read(&out).arrivals_us().collect::<Vec<_>>(),
            [(65_534, Some(0)), (65_535, None)]
        );
        out.clear();
        assert_eq!(write_transport_feedback(&mut out, &FIELDS, &[None; 3]), 3);
        assert_eq!(write_transport_feedback(&mut out, &FIELDS, &[]), 0);
        assert!(out.is_empty());
    }

    #[test]
    fn times_wrap_with_24_bits() {
        let mut out = Vec::new();
        let wrap_us = (1 << 24) * REFERENCE_TICK_US;
        write_transport_feedback(&mut out, &FIELDS, &[Some(wrap_us + 1_000)]);
        assert_eq!(read(&out).arrivals_us().next(), Some((65_534, Some(1_000))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn arrivals_survive_a_round_trip_to_the_tick(
            start in 0i64..1 << 36,
            gaps in prop::collection::vec(prop::option::weighted(0.8, prop_oneof![
                4 => 0i64..30, 1 => -500i64..2_000, 1 => Just(20)
            ]), 1..500),
        ) {
            let mut ticks = start;
            let arrivals: Vec<_> = gaps
                .iter()
                .map(|gap| gap.map(|gap| { ticks += gap; ticks * DELTA_TICK_US }))
                .collect();
            let mut fields = FIELDS;
            let mut rest = &arrivals[..];
            let mut found = Vec::new();
            while !rest.is_empty() {
                let mut out = Vec::new();
                let count = write_transport_feedback(&mut out, &fields, rest);
                if out.is_empty() {
                    found.extend(std::iter::repeat_n(None, count));
                } else {
                    let feedback = read(&out);
                    prop_assert_eq!(feedback.base_sequence_number(), fields.base_sequence_number);
                    found.extend(feedback.arrivals_us().map(|(_, arrival)| arrival));
                }
                rest = &rest[count..];
                fields.base_sequence_number = fields.base_sequence_number.wrapping_add(count as u16);
            }
            let wrap_us = (1 << 24) * REFERENCE_TICK_US;
            for (found, given) in found.iter().zip(&arrivals) {
                prop_assert_eq!(found.map(|us| us.rem_euclid(wrap_us)), given.map(|us| us.rem_euclid(wrap_us)));
            }
            prop_assert_eq!(found.len(), arrivals.len());
        }
    }
}
