//! Sender and receiver reports, source descriptions and goodbyes (RFC 3550 section 6).

use parlor_model::{NtpTime, RtpTimestamp, Ssrc};

use super::{
    GOODBYE, RECEIVER_REPORT, SENDER_REPORT, SOURCE_DESCRIPTION, put_u32, ssrc_at, write_packet,
};
use crate::read::{u24_at, u32_at, u64_at};

/// Most report blocks, chunks or sources that one packet counts.
pub const MAX_COUNT: usize = 31;

const REPORT_BLOCK_LEN: usize = 24;
const CNAME: u8 = 1;
const MID: u8 = 15;

/// What a sender says about one of its streams (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenderInfo {
    /// Wall clock time of the report.
    pub ntp: NtpTime,
    /// The same moment on the stream's RTP clock.
    pub rtp_timestamp: RtpTimestamp,
    /// Packets sent since the start.
    pub packet_count: u32,
    /// Payload bytes sent since the start.
    pub octet_count: u32,
}

/// A sender report.
#[derive(Clone, Copy, Debug)]
pub struct SenderReport<'a> {
    /// The stream.
    pub ssrc: Ssrc,
    /// What its sender says about it.
    pub info: SenderInfo,
    /// What its sender says about streams that it receives.
    pub reports: ReportBlocks<'a>,
}

impl<'a> SenderReport<'a> {
    pub(super) fn parse(body: &'a [u8], count: usize) -> Option<Self> {
        let info = SenderInfo {
            ntp: NtpTime(u64_at(body, 4)?),
            rtp_timestamp: RtpTimestamp(u32_at(body, 12)?),
            packet_count: u32_at(body, 16)?,
            octet_count: u32_at(body, 20)?,
        };
        let reports = ReportBlocks::parse(body.get(24..)?, count)?;
        Some(Self { ssrc: ssrc_at(body, 0)?, info, reports })
    }
}

/// A receiver report.
#[derive(Clone, Copy, Debug)]
pub struct ReceiverReport<'a> {
    /// Who reports.
    pub ssrc: Ssrc,
    /// What it says about streams that it receives.
    pub reports: ReportBlocks<'a>,
}

impl<'a> ReceiverReport<'a> {
    pub(super) fn parse(body: &'a [u8], count: usize) -> Option<Self> {
        let reports = ReportBlocks::parse(body.get(4..)?, count)?;
        Some(Self { ssrc: ssrc_at(body, 0)?, reports })
    }
}

/// Iterates over the report blocks of a report.
#[derive(Clone, Copy, Debug)]
pub struct ReportBlocks<'a> {
    rest: &'a [u8],
}

impl<'a> ReportBlocks<'a> {
    fn parse(body: &'a [u8], count: usize) -> Option<Self> {
        Some(Self { rest: body.get(..count * REPORT_BLOCK_LEN)? })
    }
}

impl Iterator for ReportBlocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (block, after) = self.rest.split_at_checked(REPORT_BLOCK_LEN)?;
        self.rest = after;
        Some(ReportBlock {
            ssrc: ssrc_at(block, 0)?,
            fraction_lost: *block.get(4)?,
            cumulative_lost: (u24_at(block, 5)? << 8).cast_signed() >> 8,
            highest_sequence_number: u32_at(block, 8)?,
            jitter: u32_at(block, 12)?,
            last_sr: u32_at(block, 16)?,
            delay_since_last_sr: u32_at(block, 20)?,
        })
    }
}

/// What a receiver says about one stream (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReportBlock {
    /// The stream.
    pub ssrc: Ssrc,
    /// Share of packets lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Packets lost since the start, 24 bits; negative when duplicates outnumber them.
    pub cumulative_lost: i32,
    /// Highest sequence number received, with the number of wraps in the upper half.
    pub highest_sequence_number: u32,
    /// Interarrival jitter in ticks of the stream's clock.
    pub jitter: u32,
    /// [`NtpTime::middle`] of the last sender report; 0 when there was none.
    pub last_sr: u32,
    /// How long ago the last sender report arrived, in 1/65536 s.
    pub delay_since_last_sr: u32,
}

impl ReportBlock {
    fn write(&self, out: &mut Vec<u8>) {
        let lost = self.cumulative_lost.clamp(-0x0080_0000, 0x007F_FFFF).cast_unsigned();
        put_u32(out, self.ssrc.0);
        put_u32(out, u32::from(self.fraction_lost) << 24 | lost & 0x00FF_FFFF);
        put_u32(out, self.highest_sequence_number);
        put_u32(out, self.jitter);
        put_u32(out, self.last_sr);
        put_u32(out, self.delay_since_last_sr);
    }
}

/// Appends a sender report with at most [`MAX_COUNT`] report blocks; further ones are left out.
pub fn write_sender_report(
    out: &mut Vec<u8>,
    ssrc: Ssrc,
    info: &SenderInfo,
    reports: &[ReportBlock],
) {
    let reports = &reports[..reports.len().min(MAX_COUNT)];
    write_packet(out, SENDER_REPORT, reports.len() as u8, |out| {
        put_u32(out, ssrc.0);
        out.extend(info.ntp.0.to_be_bytes());
        put_u32(out, info.rtp_timestamp.0);
        put_u32(out, info.packet_count);
        put_u32(out, info.octet_count);
        reports.iter().for_each(|report| report.write(out));
    });
}

/// Appends a receiver report with at most [`MAX_COUNT`] report blocks; further ones are left out.
pub fn write_receiver_report(out: &mut Vec<u8>, ssrc: Ssrc, reports: &[ReportBlock]) {
    let reports = &reports[..reports.len().min(MAX_COUNT)];
    write_packet(out, RECEIVER_REPORT, reports.len() as u8, |out| {
        put_u32(out, ssrc.0);
        reports.iter().for_each(|report| report.write(out));
    });
}

/// A source description (RFC 3550 section 6.5).
#[derive(Clone, Copy, Debug)]
pub struct SourceDescription<'a> {
    body: &'a [u8],
    count: usize,
}

impl<'a> SourceDescription<'a> {
    pub(super) fn new(body: &'a [u8], count: usize) -> Self {
        Self { body, count }
    }

    /// The described sources. Ends at the first impossible one.
    pub fn chunks(&self) -> impl Iterator<Item = SourceChunk<'a>> + use<'a> {
        let mut rest = self.body;
        (0..self.count).map_while(move |_| {
            let ssrc = ssrc_at(rest, 0)?;
            let items = rest.get(4..)?;
            let mut walk = Items { rest: items };
            walk.by_ref().for_each(drop);
            // The list ends with at least one zero and fills whole words.
            let len = (items.len() - walk.rest.len() + 1).next_multiple_of(4);
            let (items, after) = items.split_at_checked(len)?;
            rest = after;
            Some(SourceChunk { ssrc, items })
        })
    }
}

/// What a source description says about one source.
#[derive(Clone, Copy, Debug)]
pub struct SourceChunk<'a> {
    /// The source.
    pub ssrc: Ssrc,
    items: &'a [u8],
}

impl<'a> SourceChunk<'a> {
    /// Its items, as type and text.
    pub fn items(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        Items { rest: self.items }
    }

    /// Its canonical name, which ties streams of one clock together.
    pub fn cname(&self) -> Option<&'a [u8]> {
        self.items().find(|&(item, _)| item == CNAME).map(|(_, text)| text)
    }
}

struct Items<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Items<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let &[item, len] = self.rest.first_chunk()?;
        if item == 0 {
            return None;
        }
        let (text, after) = self.rest.get(2..)?.split_at_checked(usize::from(len))?;
        self.rest = after;
        Some((item, text))
    }
}

/// What to say about one source in a source description.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SourceItems<'a> {
    /// The source.
    pub ssrc: Ssrc,
    /// Its canonical name.
    pub cname: &'a [u8],
    /// Its media section (RFC 8843 section 15.2), when that is to be told.
    pub mid: Option<&'a [u8]>,
}

/// Appends a source description of at most [`MAX_COUNT`] sources; further ones are left out, and
/// texts are cut to 255 bytes.
pub fn write_source_description(out: &mut Vec<u8>, sources: &[SourceItems<'_>]) {
    let sources = &sources[..sources.len().min(MAX_COUNT)];
    write_packet(out, SOURCE_DESCRIPTION, sources.len() as u8, |out| {
        for source in sources {
            let start = out.len();
            put_u32(out, source.ssrc.0);
            put_item(out, CNAME, source.cname);
            if let Some(mid) = source.mid {
                put_item(out, MID, mid);
            }
            let len = (out.len() - start + 1).next_multiple_of(4);
            out.resize(start + len, 0);
        }
    });
}

fn put_item(out: &mut Vec<u8>, item: u8, text: &[u8]) {
    let text = &text[..text.len().min(255)];
    out.extend([item, text.len() as u8]);
    out.extend(text);
}

/// Sources that end (RFC 3550 section 6.6).
#[derive(Clone, Copy, Debug)]
pub struct Goodbye<'a> {
    ssrcs: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Goodbye<'a> {
    pub(super) fn parse(body: &'a [u8], count: usize) -> Option<Self> {
        let (ssrcs, rest) = body.split_at_checked(4 * count)?;
        Some(Self { ssrcs, rest })
    }

    /// The sources.
    pub fn ssrcs(&self) -> impl Iterator<Item = Ssrc> + use<'a> {
        self.ssrcs.chunks_exact(4).filter_map(|bytes| ssrc_at(bytes, 0))
    }

    /// Why they end, when told.
    pub fn reason(&self) -> Option<&'a [u8]> {
        let (&len, text) = self.rest.split_first()?;
        text.get(..usize::from(len))
    }
}

/// Appends a goodbye of at most [`MAX_COUNT`] sources; further ones are left out.
pub fn write_goodbye(out: &mut Vec<u8>, ssrcs: &[Ssrc]) {
    let ssrcs = &ssrcs[..ssrcs.len().min(MAX_COUNT)];
    write_packet(out, GOODBYE, ssrcs.len() as u8, |out| {
        ssrcs.iter().for_each(|ssrc| put_u32(out, ssrc.0));
    });
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Rtcp, packets},
        *,
    };

    const INFO: SenderInfo = SenderInfo {
        ntp: NtpTime(0x0102_0304_0506_0708),
        rtp_timestamp: RtpTimestamp(0x1112_1314),
        packet_count: 21,
        octet_count: 22,
    };

    const BLOCK: ReportBlock = ReportBlock {
        ssrc: Ssrc(7),
        fraction_lost: 128,
        cumulative_lost: -2,
        highest_sequence_number: 0x0001_FFFE,
        jitter: 31,
        last_sr: 32,
        delay_since_last_sr: 33,
    };

    #[test]
    fn a_sender_report_has_the_bytes_of_the_rfc() {
        let mut out = Vec::new();
        write_sender_report(&mut out, Ssrc(9), &INFO, &[BLOCK]);
        let expected = [
            0x81, 200, 0, 12, 0, 0, 0, 9, 1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0, 0, 0,
            21, 0, 0, 0, 22, 0, 0, 0, 7, 128, 0xFF, 0xFF, 0xFE, 0, 1, 0xFF, 0xFE, 0, 0, 0, 31, 0,
            0, 0, 32, 0, 0, 0, 33,
        ];
        assert_eq!(out, expected);
        let Some(Rtcp::SenderReport(report)) = packets(&out).next() else { panic!() };
        assert_eq!((report.ssrc, report.info), (Ssrc(9), INFO));
        assert_eq!(report.reports.collect::<Vec<_>>(), [BLOCK]);
    }

    #[test]
    fn receiver_reports_stop_at_31_blocks() {
        let mut out = Vec::new();
        write_receiver_report(&mut out, Ssrc(9), &[BLOCK; 40]);
        let Some(Rtcp::ReceiverReport(report)) = packets(&out).next() else { panic!() };
        assert_eq!(report.reports.count(), MAX_COUNT);
        let mut huge = BLOCK;
        huge.cumulative_lost = i32::MAX;
        out.clear();
        write_receiver_report(&mut out, Ssrc(9), &[huge]);
        let Some(Rtcp::ReceiverReport(mut report)) = packets(&out).next() else { panic!() };
        assert_eq!(report.reports.next().unwrap().cumulative_lost, 0x007F_FFFF);
        out[0] = 0x82;
        assert!(matches!(packets(&out).next(), Some(Rtcp::Unknown { .. })), "a block is missing");
    }

    #[test]
    fn source_descriptions_survive_a_round_trip() {
        let source = |ssrc, cname, mid| SourceItems { ssrc: Ssrc(ssrc), cname, mid };
        let long = [b'x'; 300];
        let sources =
            [source(1, b"ab", None), source(2, b"abcdef", Some(&b"3"[..])), source(3, &long, None)];
        let mut out = Vec::new();
        write_source_description(&mut out, &sources);
        assert_eq!(out[..12], [0x83, 202, 0, 73, 0, 0, 0, 1, 1, 2, b'a', b'b']);
        let Some(Rtcp::SourceDescription(description)) = packets(&out).next() else { panic!() };
        let chunks: Vec<_> = description.chunks().collect();
        assert_eq!(chunks.len(), 3);
        assert_eq!((chunks[0].ssrc, chunks[0].cname()), (Ssrc(1), Some(&b"ab"[..])));
        assert_eq!(chunks[1].items().collect::<Vec<_>>(), [(1, &b"abcdef"[..]), (15, b"3")]);
        assert_eq!((chunks[2].ssrc, chunks[2].cname()), (Ssrc(3), Some(&long[..255])));
    }

    #[test]
    fn goodbyes_may_give_a_reason() {
        let mut out = Vec::new();
        write_goodbye(&mut out, &[Ssrc(1), Ssrc(2)]);
        assert_eq!(out, [0x82, 203, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
        let with_reason = [0x81, 203, 0, 2, 0, 0, 0, 1, 2, b'h', b'i', 0];
        let Some(Rtcp::Goodbye(goodbye)) = packets(&with_reason).next() else { panic!() };
        assert_eq!(goodbye.ssrcs().collect::<Vec<_>>(), [Ssrc(1)]);
        assert_eq!(goodbye.reason(), Some(&b"hi"[..]));
    }
}
