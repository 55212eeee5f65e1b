//! Round trips measured by extended reports (RFC 3611 sections 4.4 and 4.5): where a peer sends
//! media and gets none, no sender report of ours has it measured.

use std::time::{Duration, Instant};

use parlor_model::NtpTime;
use parlor_rtp::rtcp::{self, DlrrEntry, ExtendedReport, XrBlock};

use super::Shard;
use crate::{
    arena::Key,
    peer::{OWN_SSRC, Peer},
};

/// A longer round trip is not believed.
const MAX_ROUND_TRIP: Duration = Duration::from_secs(10);
/// Blocks of one report that are looked at.
const MAX_BLOCKS: usize = 8;

impl Shard {
    pub(super) fn handle_extended_report(
        &mut self,
        now: Instant,
        key: Key<Peer>,
        report: &ExtendedReport<'_>,
    ) {
        let reference = reference_time(self.epoch(now), now);
        let Some(peer) = self.peers.get_mut(key) else { return };
        for block in report.blocks().take(MAX_BLOCKS) {
            match block {
                XrBlock::ReceiverReferenceTime(time) => {
                    let entry = DlrrEntry {
                        ssrc: report.ssrc,
                        last_rr: time.middle(),
                        delay_since_last_rr: 0,
                    };
                    peer.rtcp.write(|out| rtcp::write_dlrr(out, OWN_SSRC, &[entry]));
                }
                XrBlock::Dlrr(mut entries) => {
                    let own = entries.find(|entry| entry.ssrc == OWN_SSRC && entry.last_rr != 0);
                    let Some(entry) = own else { continue };
                    let passed = reference.middle().wrapping_sub(entry.last_rr);
                    let units = passed.saturating_sub(entry.delay_since_last_rr);
                    let measured = Duration::from_micros(u64::from(units) * 1_000_000 / 65_536);
                    if measured <= MAX_ROUND_TRIP {
                        peer.measure_round_trip(measured);
                    }
                }
                XrBlock::Unknown { .. } => {}
            }
        }
        self.mark_ready(key);
    }
}

/// Our reference time: since the shard began, for it is only compared with itself. Never 0.
pub(super) fn reference_time(epoch: Instant, now: Instant) -> NtpTime {
    let since = now.saturating_duration_since(epoch) + Duration::from_secs(1);
    NtpTime(((since.as_nanos() << 32) / 1_000_000_000) as u64)
}
