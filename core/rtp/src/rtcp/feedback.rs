//! Requests for packets, for key frames and for a bitrate (RFC 4585, RFC 5104, REMB).

use parlor_model::{Bitrate, SequenceNumber, Ssrc};

use super::{
    FeedbackSsrcs, PAYLOAD_FEEDBACK, TRANSPORT_FEEDBACK, put_ssrcs, put_u16, put_u32, ssrc_at,
    write_packet,
};
use crate::read::{u16_at, u24_at};

pub(super) const NACK: u8 = 1;
pub(super) const PLI: u8 = 1;
pub(super) const FIR: u8 = 4;
pub(super) const APPLICATION: u8 = 15;

/// Most pairs of number and mask in one NACK that we write, so that it fits a datagram.
pub const MAX_NACK_PAIRS: usize = 256;
/// Most streams in one REMB that we write: its count has 8 bits.
pub const MAX_REMB_SSRCS: usize = 255;

const REMB: &[u8; 4] = b"REMB";
const REMB_MANTISSA_BITS: u32 = 18;

/// A request to send packets again (RFC 4585 section 6.2.1).
#[derive(Clone, Copy, Debug)]
pub struct Nack<'a> {
    /// Who asks about which stream.
    pub ssrcs: FeedbackSsrcs,
    pairs: &'a [u8],
}

impl<'a> Nack<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        Some(Self { ssrcs: FeedbackSsrcs::parse(body)?, pairs: body.get(8..)? })
    }

    /// The lost packets, 17 at most for each four bytes.
    pub fn lost(&self) -> impl Iterator<Item = SequenceNumber> + use<'a> {
        self.pairs.chunks_exact(4).flat_map(|pair| {
            let first = u16_at(pair, 0).unwrap_or(0);
            let mask = u32::from(u16_at(pair, 2).unwrap_or(0)) << 1 | 1;
            (0..=16u16)
                .filter(move |bit| mask >> bit & 1 != 0)
                .map(move |bit| SequenceNumber(first.wrapping_add(bit)))
        })
    }
}

/// Appends NACKs for `lost`, which should be in sending order for short packets. Appends nothing
/// for no numbers, and more than one packet when they need over [`MAX_NACK_PAIRS`] pairs.
pub fn write_nack(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc, lost: &[SequenceNumber]) {
    let mut rest = lost;
    while !rest.is_empty() {
        write_packet(out, TRANSPORT_FEEDBACK, NACK, |out| {
            put_ssrcs(out, sender, media);
            for _ in 0..MAX_NACK_PAIRS {
                let Some((&first, after)) = rest.split_first() else { return };
                rest = after;
                let mut mask = 0;
                while let Some((next, after)) = rest.split_first() {
                    let ahead = next.0.wrapping_sub(first.0);
                    if ahead > 16 {
                        break;
                    }
                    if ahead > 0 {
                        mask |= 1 << (ahead - 1);
                    }
                    rest = after;
                }
                put_u16(out, first.0);
                put_u16(out, mask);
            }
        });
    }
}

/// Appends a picture loss indication (RFC 4585 section 6.3.1).
pub fn write_picture_loss_indication(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc) {
    write_packet(out, PAYLOAD_FEEDBACK, PLI, |out| put_ssrcs(out, sender, media));
}

/// A request for key frames (RFC 5104 section 4.3.1).
#[derive(Clone, Copy, Debug)]
pub struct FullIntraRequest<'a> {
    /// Who asks.
    pub sender: Ssrc,
    entries: &'a [u8],
}

impl<'a> FullIntraRequest<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        Some(Self { sender: ssrc_at(body, 0)?, entries: body.get(8..)? })
    }

    /// The streams, each with the number of the request; a number seen before repeats a request.
    pub fn entries(&self) -> impl Iterator<Item = (Ssrc, u8)> + use<'a> {
        self.entries.chunks_exact(8).filter_map(|entry| Some((ssrc_at(entry, 0)?, *entry.get(4)?)))
    }
}

/// Appends a full intra request for one stream.
pub fn write_full_intra_request(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc, number: u8) {
    write_packet(out, PAYLOAD_FEEDBACK, FIR, |out| {
        put_ssrcs(out, sender, Ssrc(0));
        put_u32(out, media.0);
        out.extend([number, 0, 0, 0]);
    });
}

/// What a receiver believes that it can receive (draft-alvestrand-rmcat-remb-03).
#[derive(Clone, Copy, Debug)]
pub struct Remb<'a> {
    /// Who believes so.
    pub sender: Ssrc,
    /// Of all the streams together.
    pub bitrate: Bitrate,
    ssrcs: &'a [u8],
}

impl<'a> Remb<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        if body.get(8..12)? != REMB {
            return None;
        }
        let count = usize::from(*body.get(12)?);
        let bits = u24_at(body, 13)?;
        let mantissa = u64::from(bits & ((1 << REMB_MANTISSA_BITS) - 1));
        let exponent = bits >> REMB_MANTISSA_BITS;
        let bits_per_second = u64::try_from(u128::from(mantissa) << exponent).unwrap_or(u64::MAX);
        Some(Self {
            sender: ssrc_at(body, 0)?,
            bitrate: Bitrate(bits_per_second),
            ssrcs: body.get(16..16 + 4 * count)?,
        })
    }

    /// The streams.
    pub fn ssrcs(&self) -> impl Iterator<Item = Ssrc> + use<'a> {
        self.ssrcs.chunks_exact(4).filter_map(|bytes| ssrc_at(bytes, 0))
    }
}

/// Appends a REMB for at most [`MAX_REMB_SSRCS`] streams, its bitrate rounded down to 18
/// significant bits.
pub fn write_remb(out: &mut Vec<u8>, sender: Ssrc, bitrate: Bitrate, ssrcs: &[Ssrc]) {
    let ssrcs = &ssrcs[..ssrcs.len().min(MAX_REMB_SSRCS)];
    write_packet(out, PAYLOAD_FEEDBACK, APPLICATION, |out| {
        put_ssrcs(out, sender, Ssrc(0));
        out.extend(REMB);
        let exponent = (u64::BITS - bitrate.0.leading_zeros()).saturating_sub(REMB_MANTISSA_BITS);
        let mantissa = (bitrate.0 >> exponent) as u32;
        put_u32(out, (ssrcs.len() as u32) << 24 | exponent << REMB_MANTISSA_BITS | mantissa);
        ssrcs.iter().for_each(|ssrc| put_u32(out, ssrc.0));
    });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{Rtcp, packets},
        *,
    };

    fn nacked(compound: &[u8]) -> Vec<SequenceNumber> {
        packets(compound)
            .flat_map(|packet| match packet {
                Rtcp::Nack(nack) => nack.lost().collect(),
                _ => Vec::new(),
            })
            .collect()
    }

    #[test]
    fn a_nack_packs_neighbours_into_a_mask() {
        let mut out = Vec::new();
        let lost = [65_534, 65_535, 3, 14, 15].map(SequenceNumber);
        write_nack(&mut out, Ssrc(1), Ssrc(2), &lost);
        let expected = [
            0x81, 205, 0, 4, 0, 0, 0, 1, 0, 0, 0, 2, // header
            0xFF, 0xFE, 0x80, 0x11, 0x00, 0x0F, 0x00, 0x00, // pairs
        ];
        assert_eq!(out, expected);
        assert_eq!(nacked(&out), lost);
    }

    #[test]
    fn nacks_split_where_a_packet_is_full() {
        let lost: Vec<_> = (0..=MAX_NACK_PAIRS as u16).map(|n| SequenceNumber(n * 20)).collect();
        let mut out = Vec::new();
        write_nack(&mut out, Ssrc(1), Ssrc(2), &lost);
        assert_eq!(packets(&out).count(), 2);
        assert_eq!(nacked(&out), lost);
        out.clear();
        write_nack(&mut out, Ssrc(1), Ssrc(2), &[]);
        assert!(out.is_empty());
    }

    #[test]
    fn key_frame_requests_survive_a_round_trip() {
        let mut out = Vec::new();
        write_picture_loss_indication(&mut out, Ssrc(1), Ssrc(2));
        write_full_intra_request(&mut out, Ssrc(1), Ssrc(3), 7);
        assert_eq!(out[..12], [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
        let mut read = packets(&out);
        let Some(Rtcp::PictureLossIndication(pli)) = read.next() else { panic!() };
        assert_eq!(pli, FeedbackSsrcs { sender: Ssrc(1), media: Ssrc(2) });
        let Some(Rtcp::FullIntraRequest(fir)) = read.next() else { panic!() };
        assert_eq!(fir.entries().collect::<Vec<_>>(), [(Ssrc(3), 7)]);
    }

    #[test]
    fn a_remb_rounds_down_to_18_bits() {
        let mut out = Vec::new();
        write_remb(&mut out, Ssrc(1), Bitrate(1_000_001), &[Ssrc(5), Ssrc(6)]);
        let expected = [
            0x8F, 206, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 2, 0x0B, 0xD0, 0x90,
            0, 0, 0, 5, 0, 0, 0, 6,
        ];
        assert_eq!(out, expected);
        let Some(Rtcp::Remb(remb)) = packets(&out).next() else { panic!() };
        assert_eq!(remb.bitrate, Bitrate(1_000_000));
        assert_eq!(remb.ssrcs().collect::<Vec<_>>(), [Ssrc(5), Ssrc(6)]);
        for bitrate in [0, 1, (1 << 18) - 1, 1 << 18, ((1 << 18) - 1) << 46] {
            out.clear();
            write_remb(&mut out, Ssrc(1), Bitrate(bitrate), &[]);
            let Some(Rtcp::Remb(remb)) = packets(&out).next() else { panic!() };
            assert_eq!(remb.bitrate, Bitrate(bitrate));
        }
        out[17] = 0xFF;
        let Some(Rtcp::Remb(remb)) = packets(&out).next() else { panic!() };
        assert_eq!(remb.bitrate, Bitrate(u64::MAX), "too high to express");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn nacks_survive_a_round_trip(start: u16, gaps in prop::collection::vec(1u16..30, 1..200)) {
            let mut number = start;
            let mut lost = vec![SequenceNumber(start)];
            for gap in gaps {
                number = number.wrapping_add(gap);
                lost.push(SequenceNumber(number));
            }
            let mut out = Vec::new();
            write_nack(&mut out, Ssrc(1), Ssrc(2), &lost);
            prop_assert_eq!(nacked(&out), lost);
        }
    }
}
