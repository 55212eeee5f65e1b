//! Which chains of the dependency descriptor are broken (AV1 RTP specification, section A.5).
//!
//! Each frame tells for each chain how far back the last frame of the chain is. Where that frame is
//! missing and is not repaired in time, the decode targets that the chain protects can not be
//! decoded before the chain begins anew.

use std::time::{Duration, Instant};

use parlor_rtp::dependency_descriptor::{Descriptor, MAX_SPATIAL_LAYERS};

/// How long the missing frame of a chain is waited for: about as long as it is asked for.
pub const REPAIR_TIME: Duration = Duration::from_millis(500);
/// Chains that are followed: there is one for each spatial layer.
const MAX_CHAINS: usize = MAX_SPATIAL_LAYERS;
/// Frames of which it is remembered what has come.
const MAX_FRAMES: usize = 64;
/// Missing frames of one chain that are remembered; once there are more, only a new chain helps.
const MAX_AWAITED: usize = 8;

/// What has come of a frame.
#[derive(Clone, Copy)]
struct Frame {
    number: u16,
    /// The numbers of its first and last packets.
    first: Option<u64>,
    last: Option<u64>,
    packets: u64,
}

impl Frame {
    const NONE: Self = Self { number: 0, first: None, last: None, packets: 0 };

    fn is_whole(&self) -> bool {
        match (self.first, self.last) {
            (Some(first), Some(last)) => last.checked_sub(first) == self.packets.checked_sub(1),
            _ => false,
        }
    }
}

/// The missing frames of a chain.
#[derive(Clone, Copy)]
struct Chain {
    awaited: [Option<u16>; MAX_AWAITED],
    since: Option<Instant>,
}

impl Chain {
    const WHOLE: Self = Self { awaited: [None; MAX_AWAITED], since: None };

    fn wait_for(&mut self, now: Instant, frame: u16) {
        if self.awaited.contains(&Some(frame)) {
            return;
        }
        if let Some(place) = self.awaited.iter_mut().find(|place| place.is_none()) {
            *place = Some(frame);
        }
        self.since.get_or_insert(now);
    }

    fn remove(&mut self, frame: u16) {
        for place in self.awaited.iter_mut().filter(|place| **place == Some(frame)) {
            *place = None;
        }
        if self.awaited.iter().all(Option::is_none) {
            self.since = None;
        }
    }
}

/// See the module.
pub struct Chains {
    /// By frame number.
    frames: [Frame; MAX_FRAMES],
    chains: [Chain; MAX_CHAINS],
    /// The newest frame that has begun.
    newest: Option<u16>,
    broken: u32,
}

impl Chains {
    /// None of whose frames has come.
    pub fn new() -> Self {
        Self {
            frames: [Frame::NONE; MAX_FRAMES],
            chains: [Chain::WHOLE; MAX_CHAINS],
            newest: None,
            broken: 0,
        }
    }

    /// The chains that are broken for good, a bit for each.
    #[inline]
    pub fn broken(&self) -> u32 {
        self.broken
    }

    /// A packet of this number has come.
    pub fn note(&mut self, now: Instant, descriptor: &Descriptor, chains: usize, number: u64) {
        let frame = descriptor.frame_number;
        if let Some(known) = self.frames.get_mut(usize::from(frame) % MAX_FRAMES) {
            if known.number != frame {
                *known = Frame { number: frame, ..Frame::NONE };
            }
            known.packets += 1;
            if descriptor.start_of_frame {
                known.first = Some(number);
            }
            if descriptor.end_of_frame {
                known.last = Some(number);
            }
            if known.is_whole() {
                self.chains.iter_mut().for_each(|chain| chain.remove(frame));
            }
        }
        let is_newest = self.newest.is_none_or(|newest| frame.wrapping_sub(newest) < 0x8000);
        if descriptor.start_of_frame && is_newest {
            self.newest = Some(frame);
            self.follow(now, descriptor, chains);
        }
        let is_over = |since: Instant| now.saturating_duration_since(since) >= REPAIR_TIME;
        self.broken = (0..).zip(&self.chains).fold(0, |broken, (at, chain)| {
            broken | u32::from(chain.since.is_some_and(is_over)) << at
        });
    }

    fn follow(&mut self, now: Instant, descriptor: &Descriptor, chains: usize) {
        let followed = self.chains.iter_mut().zip(&descriptor.chain_diffs).take(chains);
        for (chain, diff) in followed {
            let before = descriptor.frame_number.wrapping_sub(u16::from(*diff));
            let known = self.frames.get(usize::from(before) % MAX_FRAMES);
            let has_come = known.is_some_and(|it| it.number == before && it.is_whole());
            match (*diff, has_come) {
                (0, _) => *chain = Chain::WHOLE,
                // Longer ago than is remembered.
                (_, true) | (MAX_DISTANCE.., _) => {}
                (_, false) => chain.wait_for(now, before),
            }
        }
    }
}

const MAX_DISTANCE: u8 = MAX_FRAMES as u8;

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_rtp::dependency_descriptor::{self, DecodeTargets, FrameDiffs};

    fn frame(frame_number: u16, diffs: [u8; 2], edges: (bool, bool)) -> Descriptor {
        let mut chain_diffs = [0; dependency_descriptor::MAX_CHAINS];
        chain_diffs[..2].copy_from_slice(&diffs);
        Descriptor {
            start_of_frame: edges.0,
            end_of_frame: edges.1,
            template_id: 0,
            frame_number,
            structure_attached: false,
            active_decode_targets: None,
            spatial_layer: 0,
            temporal_layer: 0,
            decode_targets: DecodeTargets::default(),
            frame_diffs: FrameDiffs::default(),
            chain_diffs,
        }
    }

    const WHOLE: (bool, bool) = (true, true);

    #[test]
    fn a_chain_breaks_when_its_frame_is_not_repaired_in_time() {
        let start = Instant::now();
        let mut chains = Chains::new();
        chains.note(start, &frame(65_535, [0, 0], WHOLE), 2, 0);
        // Frame 0 is lost; it is of the second chain only.
        chains.note(start, &frame(1, [2, 1], WHOLE), 2, 2);
        assert_eq!(chains.broken(), 0);
        chains.note(start + REPAIR_TIME, &frame(2, [1, 2], WHOLE), 2, 3);
        assert_eq!(chains.broken(), 0b10);
        chains.note(start + REPAIR_TIME, &frame(3, [1, 0], WHOLE), 2, 4);
        assert_eq!(chains.broken(), 0, "it began anew");
    }

    #[test]
    fn a_frame_that_is_repaired_mends_its_chain() {
        let start = Instant::now();
        let mut chains = Chains::new();
        chains.note(start, &frame(10, [0, 0], WHOLE), 2, 100);
        chains.note(start, &frame(11, [1, 1], (true, false)), 2, 101);
        chains.note(start, &frame(12, [1, 1], WHOLE), 2, 104);
        chains.note(start, &frame(11, [1, 1], (false, true)), 2, 103);
        chains.note(start + REPAIR_TIME, &frame(13, [1, 1], WHOLE), 2, 105);
        assert_eq!(chains.broken(), 0b11, "the middle is missing");
        chains.note(start + REPAIR_TIME, &frame(11, [1, 1], (false, false)), 2, 102);
        assert_eq!(chains.broken(), 0);
    }
}
