//! What becomes of redundant audio on the way to a subscriber (RFC 2198).

use parlor_model::PayloadType;
use parlor_rtp::red::{
    MAX_REDUNDANT_LEN, MAX_TIMESTAMP_OFFSET, Red, RedundantBlock, relabel, write_red,
};

use crate::receive::history::{History, PacketFacts};

/// Packets before a frame that are added to it, as in LiveKit.
pub const MAX_ADDED: usize = 2;
/// No redundancy is added beyond this length of a payload.
const MAX_PAYLOAD_BYTES: usize = 1100;

/// How a subscriber gets audio. Payload types are what it calls the frames inside.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Redundancy {
    /// As it comes: there is none, or the frames inside are called the same.
    #[default]
    Untouched,
    /// It takes no RED: only the newest frame is sent.
    Removed,
    /// RED as it comes, its frames under the subscriber's payload type.
    Relabelled(PayloadType),
    /// The publisher sends plain Opus: RED is made of it.
    Added(PayloadType),
}

/// Which packets before this one go along with it: bit 0 is the one right before. It is decided
/// once, so that a packet that is sent again is the same.
pub fn choose_added(history: &History, facts: &PacketFacts) -> u8 {
    let own = history.get(facts.number).map_or(0, |(_, parts)| parts.payload.len());
    let mut total = own + 1;
    let mut chosen = 0;
    for back in 0..MAX_ADDED {
        let Some((offset, payload)) = older(history, facts, back) else { continue };
        total += payload.len() + 4;
        if offset > 0
            && offset <= u32::from(MAX_TIMESTAMP_OFFSET)
            && payload.len() <= MAX_REDUNDANT_LEN
            && total <= MAX_PAYLOAD_BYTES
        {
            chosen |= 1 << back;
        }
    }
    chosen
}

/// How far the packet `back + 1` numbers before is behind, and its frame.
fn older<'a>(history: &'a History, facts: &PacketFacts, back: usize) -> Option<(u32, &'a [u8])> {
    let number = facts.number.checked_sub(back as u64 + 1)?;
    let (older, parts) = history.get(number).filter(|(older, _)| older.codec == facts.codec)?;
    Some((facts.timestamp.wrapping_sub(older.timestamp), parts.payload))
}

/// Writes the payload as the subscriber gets it; returns its length in bytes.
pub fn write_payload(
    out: &mut [u8],
    redundancy: Redundancy,
    added: u8,
    history: &History,
    facts: &PacketFacts,
    payload: &[u8],
) -> Option<usize> {
    match redundancy {
        Redundancy::Untouched => copy(out, payload),
        Redundancy::Removed => copy(out, Red::parse(payload).ok()?.primary()),
        Redundancy::Relabelled(payload_type) => {
            let len = copy(out, payload)?;
            relabel(out.get_mut(..len)?, payload_type);
            Some(len)
        }
        Redundancy::Added(payload_type) => {
            let empty = RedundantBlock { payload_type, timestamp_offset: 0, payload: &[] };
            let mut blocks = [empty; MAX_ADDED];
            let mut count = 0;
            for back in (0..MAX_ADDED).rev().filter(|back| added & (1 << back) != 0) {
                let (offset, payload) = older(history, facts, back)?;
                let timestamp_offset = u16::try_from(offset).ok()?;
                *blocks.get_mut(count)? =
                    RedundantBlock { payload_type, timestamp_offset, payload };
                count += 1;
            }
            write_red(out, blocks.get(..count)?, payload_type, payload)
        }
    }
}

fn copy(out: &mut [u8], payload: &[u8]) -> Option<usize> {
    out.get_mut(..payload.len())?.copy_from_slice(payload);
    Some(payload.len())
}
