//! Extended reports: round trips measured by receivers (RFC 3611 sections 4.4 and 4.5).

use parlor_model::{NtpTime, Ssrc};

use super::{EXTENDED_REPORT, put_u16, put_u32, ssrc_at, write_packet};
use crate::read::{u16_at, u32_at, u64_at};

const RECEIVER_REFERENCE_TIME: u8 = 4;
const DLRR: u8 = 5;

/// Most entries in one DLRR block that we write, so that it fits a datagram.
pub const MAX_DLRR_ENTRIES: usize = 80;

/// An extended report.
#[derive(Clone, Copy, Debug)]
pub struct ExtendedReport<'a> {
    /// Who reports.
    pub ssrc: Ssrc,
    blocks: &'a [u8],
}

/// A block of an extended report.
#[derive(Clone, Copy, Debug)]
pub enum XrBlock<'a> {
    /// RRTR: the reporter's wall clock time.
    ReceiverReferenceTime(NtpTime),
    /// DLRR: answers to receiver reference times.
    Dlrr(DlrrEntries<'a>),
    /// Another block.
    Unknown {
        /// Its type.
        block_type: u8,
    },
}

/// Answers one receiver's last receiver reference time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DlrrEntry {
    /// The receiver.
    pub ssrc: Ssrc,
    /// [`NtpTime::middle`] of its last reference time; 0 when there was none.
    pub last_rr: u32,
    /// How long ago that arrived, in 1/65536 s.
    pub delay_since_last_rr: u32,
}

impl<'a> ExtendedReport<'a> {
    pub(super) fn parse(body: &'a [u8]) -> Option<Self> {
        Some(Self { ssrc: ssrc_at(body, 0)?, blocks: body.get(4..)? })
    }

    /// The blocks. Ends at the first impossible one.
    pub fn blocks(&self) -> impl Iterator<Item = XrBlock<'a>> + use<'a> {
        let mut rest = self.blocks;
        std::iter::from_fn(move || {
            let &block_type = rest.first()?;
            let len = 4 * usize::from(u16_at(rest, 2)?);
            let (block, after) = rest.get(4..)?.split_at_checked(len)?;
            rest = after;
            Some(match block_type {
                RECEIVER_REFERENCE_TIME => {
                    XrBlock::ReceiverReferenceTime(NtpTime(u64_at(block, 0)?))
                }
                DLRR => XrBlock::Dlrr(DlrrEntries { rest: block }),
                _ => XrBlock::Unknown { block_type },
            })
        })
    }
}

/// Iterates over the entries of a DLRR block.
#[derive(Clone, Copy, Debug)]
pub struct DlrrEntries<'a> {
    rest: &'a [u8],
}

impl Iterator for DlrrEntries<'_> {
    type Item = DlrrEntry;

    fn next(&mut self) -> Option<DlrrEntry> {
        let (entry, after) = self.rest.split_at_checked(12)?;
        self.rest = after;
        Some(DlrrEntry {
            ssrc: ssrc_at(entry, 0)?,
            last_rr: u32_at(entry, 4)?,
            delay_since_last_rr: u32_at(entry, 8)?,
        })
    }
}

/// Appends an extended report with a receiver reference time.
pub fn write_receiver_reference_time(out: &mut Vec<u8>, ssrc: Ssrc, time: NtpTime) {
    write_packet(out, EXTENDED_REPORT, 0, |out| {
        put_u32(out, ssrc.0);
        out.extend([RECEIVER_REFERENCE_TIME, 0, 0, 2]);
        out.extend(time.0.to_be_bytes());
    });
}

/// Appends an extended report with at most [`MAX_DLRR_ENTRIES`] answers; further ones are left out.
pub fn write_dlrr(out: &mut Vec<u8>, ssrc: Ssrc, entries: &[DlrrEntry]) {
    let entries = &entries[..entries.len().min(MAX_DLRR_ENTRIES)];
    write_packet(out, EXTENDED_REPORT, 0, |out| {
        put_u32(out, ssrc.0);
        out.extend([DLRR, 0]);
        put_u16(out, 3 * entries.len() as u16);
        for entry in entries {
            put_u32(out, entry.ssrc.0);
            put_u32(out, entry.last_rr);
            put_u32(out, entry.delay_since_last_rr);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Rtcp, packets},
        *,
    };

    #[test]
    fn reference_times_and_their_answers_survive_a_round_trip() {
        let entry = DlrrEntry { ssrc: Ssrc(2), last_rr: 3, delay_since_last_rr: 4 };
        let mut out = Vec::new();
        write_receiver_reference_time(&mut out, Ssrc(1), NtpTime(0x0102_0304_0506_0708));
        assert_eq!(
            out,
            [0x80, 207, 0, 4, 0, 0, 0, 1, 4, 0, 0, 2, 1, 2, 3, 4, 5, 6, 7, 8],
            "RFC 3611 section 4.4"
        );
        write_dlrr(&mut out, Ssrc(1), &[entry; 100]);
        let mut read = packets(&out);
        let Some(Rtcp::ExtendedReport(report)) = read.next() else { panic!() };
        let time = NtpTime(0x0102_0304_0506_0708);
        let block = report.blocks().next();
        assert!(matches!(block, Some(XrBlock::ReceiverReferenceTime(found)) if found == time));
        let Some(Rtcp::ExtendedReport(report)) = read.next() else { panic!() };
        let Some(XrBlock::Dlrr(entries)) = report.blocks().next() else { panic!() };
        assert_eq!(entries.collect::<Vec<_>>(), [entry; MAX_DLRR_ENTRIES]);
    }

    #[test]
    fn other_blocks_are_skipped() {
        let bytes = [0x80, 207, 0, 4, 0, 0, 0, 1, 9, 0, 0, 1, 1, 1, 1, 1, 5, 0, 0, 0];
        let Some(Rtcp::ExtendedReport(report)) = packets(&bytes).next() else { panic!() };
        let blocks: Vec<_> = report.blocks().collect();
        assert!(matches!(blocks[..], [XrBlock::Unknown { block_type: 9 }, XrBlock::Dlrr(_)]));
    }
}
