//! RTCP: compound packets as an iterator of borrowed packets, and writers that append.
//!
//! ```
//! use parlor_model::Ssrc;
//! use parlor_rtp::rtcp::{self, Rtcp};
//!
//! let mut out = Vec::new();
//! rtcp::write_receiver_report(&mut out, Ssrc(1), &[]);
//! rtcp::write_picture_loss_indication(&mut out, Ssrc(1), Ssrc(2));
//!
//! let asked: Vec<Ssrc> = rtcp::packets(&out)
//!     .filter_map(|packet| match packet {
//!         Rtcp::PictureLossIndication(feedback) => Some(feedback.media),
//!         _ => None,
//!     })
//!     .collect();
//! assert_eq!(asked, [Ssrc(2)]);
//! ```

mod feedback;
mod report;
mod transport_feedback;
mod xr;

use parlor_model::Ssrc;

pub use feedback::*;
pub use report::*;
pub use transport_feedback::*;
pub use xr::*;

use crate::read::{u16_at, u32_at};

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
const TRANSPORT_FEEDBACK: u8 = 205;
const PAYLOAD_FEEDBACK: u8 = 206;
const EXTENDED_REPORT: u8 = 207;

/// One packet of a compound packet, borrowed.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum Rtcp<'a> {
    SenderReport(SenderReport<'a>),
    ReceiverReport(ReceiverReport<'a>),
    SourceDescription(SourceDescription<'a>),
    Goodbye(Goodbye<'a>),
    Nack(Nack<'a>),
    PictureLossIndication(FeedbackSsrcs),
    FullIntraRequest(FullIntraRequest<'a>),
    Remb(Remb<'a>),
    TransportFeedback(TransportFeedback<'a>),
    ExtendedReport(ExtendedReport<'a>),
    /// Of a type that is not known here, or with a body that is impossible for its type.
    Unknown {
        packet_type: u8,
        count_or_format: u8,
        body: &'a [u8],
    },
}

/// Who sends feedback about which stream (RFC 4585 section 6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FeedbackSsrcs {
    /// Who sends it.
    pub sender: Ssrc,
    /// Which stream it is about; 0 where the body names the streams.
    pub media: Ssrc,
}

impl FeedbackSsrcs {
    fn parse(body: &[u8]) -> Option<Self> {
        Some(Self { sender: ssrc_at(body, 0)?, media: ssrc_at(body, 4)? })
    }
}

/// The packets of a compound packet, in order. Ends at the first impossible header.
///
/// A compound packet need not start with a report: reduced-size RTCP (RFC 5506) is taken too.
pub fn packets(compound: &[u8]) -> Packets<'_> {
    Packets { rest: compound }
}

/// Iterates over a compound packet (RFC 3550 section 6.1).
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Packets<'a> {
    type Item = Rtcp<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let &[first, packet_type, ..] = self.rest.first_chunk::<4>()?;
        let body_len = 4 * usize::from(u16_at(self.rest, 2)?);
        let (packet, after) = self.rest.split_at_checked(4 + body_len)?;
        let mut body = packet.get(4..)?;
        if first >> 6 != 2 {
            return None;
        }
        if first & 0x20 != 0 {
            let padding_len = usize::from(*body.last()?);
            body = body.get(..body_len.checked_sub(padding_len)?)?;
        }
        self.rest = after;
        let count_or_format = first & 0x1F;
        Some(parse_body(packet_type, count_or_format, body).unwrap_or(Rtcp::Unknown {
            packet_type,
            count_or_format,
            body,
        }))
    }
}

fn parse_body(packet_type: u8, count_or_format: u8, body: &[u8]) -> Option<Rtcp<'_>> {
    let count = usize::from(count_or_format);
    Some(match (packet_type, count_or_format) {
        (SENDER_REPORT, _) => Rtcp::SenderReport(SenderReport::parse(body, count)?),
        (RECEIVER_REPORT, _) => Rtcp::ReceiverReport(ReceiverReport::parse(body, count)?),
        (SOURCE_DESCRIPTION, _) => Rtcp::SourceDescription(SourceDescription::new(body, count)),
        (GOODBYE, _) => Rtcp::Goodbye(Goodbye::parse(body, count)?),
        (TRANSPORT_FEEDBACK, feedback::NACK) => Rtcp::Nack(Nack::parse(body)?),
        (TRANSPORT_FEEDBACK, transport_feedback::TRANSPORT_WIDE) => {
            Rtcp::TransportFeedback(TransportFeedback::parse(body)?)
        }
        (PAYLOAD_FEEDBACK, feedback::PLI) => {
            Rtcp::PictureLossIndication(FeedbackSsrcs::parse(body)?)
        }
        (PAYLOAD_FEEDBACK, feedback::FIR) => Rtcp::FullIntraRequest(FullIntraRequest::parse(body)?),
        (PAYLOAD_FEEDBACK, feedback::APPLICATION) => Rtcp::Remb(Remb::parse(body)?),
        (EXTENDED_REPORT, _) => Rtcp::ExtendedReport(ExtendedReport::parse(body)?),
        _ => return None,
    })
}

fn ssrc_at(bytes: &[u8], at: usize) -> Option<Ssrc> {
    u32_at(bytes, at).map(Ssrc)
}

/// Appends a packet whose body `write_body` appends, pads the body with zeros to whole words and
/// fills in its length. Bodies are far below the 256 KiB that the length field can express.
fn write_packet(
    out: &mut Vec<u8>,
    packet_type: u8,
    count_or_format: u8,
    write_body: impl FnOnce(&mut Vec<u8>),
) {
    let start = out.len();
    out.extend([0x80 | count_or_format & 0x1F, packet_type, 0, 0]);
    write_body(out);
    let len = (out.len() - start).next_multiple_of(4);
    out.resize(start + len, 0);
    let words = (len / 4 - 1) as u16;
    out[start + 2..start + 4].copy_from_slice(&words.to_be_bytes());
}

fn put_u16(out: &mut Vec<u8>, value: u16) {
    out.extend(value.to_be_bytes());
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend(value.to_be_bytes());
}

fn put_ssrcs(out: &mut Vec<u8>, sender: Ssrc, media: Ssrc) {
    put_u32(out, sender.0);
    put_u32(out, media.0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Reads everything that a packet holds.
    fn exhaust(packet: Rtcp<'_>) {
        match packet {
            Rtcp::SenderReport(report) => drop(report.reports.collect::<Vec<_>>()),
            Rtcp::ReceiverReport(report) => drop(report.reports.collect::<Vec<_>>()),
            Rtcp::SourceDescription(description) => {
                drop(
                    description
                        .chunks()
                        .map(|c| (c.cname(), c.items().count()))
                        .collect::<Vec<_>>(),
                );
            }
            Rtcp::Goodbye(goodbye) => drop((goodbye.ssrcs().count(), goodbye.reason())),
            Rtcp::Nack(nack) => drop(nack.lost().collect::<Vec<_>>()),
            Rtcp::FullIntraRequest(request) => drop(request.entries().count()),
            Rtcp::Remb(remb) => drop(remb.ssrcs().count()),
            Rtcp::TransportFeedback(feedback) => {
                assert!(feedback.deltas().count() <= usize::from(feedback.status_count()));
                drop(feedback.arrivals_us().collect::<Vec<_>>());
            }
            Rtcp::ExtendedReport(report) => {
                for block in report.blocks() {
                    if let XrBlock::Dlrr(entries) = block {
                        drop(entries.collect::<Vec<_>>());
                    }
                }
            }
            Rtcp::PictureLossIndication(_) | Rtcp::Unknown { .. } => {}
        }
    }

    #[test]
    fn impossible_headers_end_a_compound_packet() {
        let pli = [0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2];
        assert_eq!(packets(&[&pli[..], &[0x41, 206, 0, 0]].concat()).count(), 1, "version");
        assert_eq!(packets(&[&pli[..], &[0x81, 206, 0, 1]].concat()).count(), 1, "length");
        assert_eq!(packets(&[&pli[..], &[0xA1, 206, 0, 0]].concat()).count(), 1, "padding");
        assert_eq!(packets(&[&pli[..], &pli[..]].concat()).count(), 2);
        assert_eq!(packets(&pli[..3]).count(), 0);
    }

    #[test]
    fn padding_is_cut_off() {
        let padded_goodbye = [0xA0, 203, 0, 1, 0, 0, 0, 4];
        let Some(Rtcp::Goodbye(goodbye)) = packets(&padded_goodbye).next() else { panic!() };
        assert_eq!(goodbye.reason(), None);
    }

    #[test]
    fn what_is_not_known_is_passed_on_and_skipped() {
        let compound = [0x82, 204, 0, 1, 1, 2, 3, 4, 0x81, 206, 0, 1, 0, 0, 0, 1, 0x80, 203, 0, 0];
        let types: Vec<_> = packets(&compound).collect();
        assert!(matches!(types[0], Rtcp::Unknown { packet_type: 204, count_or_format: 2, .. }));
        assert!(matches!(types[1], Rtcp::Unknown { packet_type: 206, .. }), "PLI without a stream");
        assert!(matches!(types[2], Rtcp::Goodbye(_)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn junk_never_panics(
            mut bytes in prop::collection::vec(any::<u8>(), 4..140), packet_type in 198u8..210,
            format in prop::sample::select(vec![0u8, 1, 2, 4, 15, 31]), whole: bool, remb: bool,
        ) {
            packets(&bytes).for_each(exhaust);
            bytes.truncate(bytes.len() / 4 * 4);
            bytes[0] = 0x80 | format;
            bytes[1] = packet_type;
            if whole {
                bytes[2] = 0;
                bytes[3] = (bytes.len() / 4 - 1) as u8;
            }
            if remb && bytes.len() > 16 {
                bytes[12..16].copy_from_slice(b"REMB");
            }
            packets(&bytes).for_each(exhaust);
        }
    }
}
