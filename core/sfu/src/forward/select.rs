//! Which frames of a stream with layers inside a subscription gets, and where it may change.

use parlor_model::Codec;
use parlor_rtp::dependency_descriptor::DecodeTargetIndication::{NotPresent, Switch};

use crate::receive::{
    frame::{Dependencies, FrameFacts, Layering, Scalability},
    history::PacketFacts,
};

/// Highest layers that a subscription may have of one stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub spatial: u8,
    pub temporal: u8,
}

/// All of a stream.
impl Default for Wanted {
    fn default() -> Self {
        Self { spatial: u8::MAX, temporal: u8::MAX }
    }
}

/// What is forwarded of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Selection {
    pub spatial: u8,
    pub temporal: u8,
    /// The decode target, where there is a dependency descriptor.
    target: u8,
    /// The decode targets that what is forwarded makes up, a bit for each; 0 when they are those
    /// that the descriptor tells itself.
    pub active: u32,
}

impl Selection {
    /// Whether a packet's frame is part of it; `None` when that can not be told yet.
    #[inline]
    pub fn takes(&self, frame: &FrameFacts) -> Option<bool> {
        match &frame.layering {
            Layering::None => Some(true),
            Layering::Temporal => Some(frame.temporal <= self.temporal),
            Layering::Vp9 => Some(frame.spatial <= self.spatial && frame.temporal <= self.temporal),
            Layering::Unknown => None,
            Layering::Targets(known) => {
                Some(known.targets.get(usize::from(self.target)) != NotPresent)
            }
        }
    }

    /// Whether a packet of VP8 is part of it and no other is chosen at it: see
    /// [`Selector::at_frame`].
    #[inline(always)]
    pub fn goes_on(&self, facts: &PacketFacts, wanted_temporal: u8) -> bool {
        let frame = &facts.frame;
        matches!(frame.layering, Layering::Temporal)
            && facts.codec == Codec::Vp8
            && !facts.keyframe
            && frame.temporal <= self.temporal
            && self.temporal <= wanted_temporal
    }

    /// Whether a packet ends what is forwarded of its picture.
    #[inline]
    pub fn ends_picture(&self, facts: &PacketFacts) -> bool {
        facts.marker || facts.frame.ends && facts.frame.spatial == self.spatial
    }
}

/// No decode target: nothing of the stream can be decoded before a keyframe.
const NO_TARGET: u8 = u8::MAX;

/// The highest decode target that is produced and wanted, else the lowest that is produced; `whole`
/// leaves out those of which something is missing for good.
fn choose(scalability: &Scalability, wanted: Wanted, whole: bool) -> Option<Selection> {
    let produced = || {
        let active = scalability.active();
        let is_left = move |target: &u8| {
            active >> target & 1 == 1 && !(whole && scalability.is_broken(*target))
        };
        (0..scalability.target_count()).filter(is_left)
    };
    let fits = |target: u8, wanted: Wanted| {
        let (spatial, temporal) = scalability.layers(target);
        spatial <= wanted.spatial && temporal <= wanted.temporal
    };
    let target = produced()
        .filter(|target| fits(*target, wanted))
        .max_by_key(|target| scalability.layers(*target))
        .or_else(|| produced().min_by_key(|target| scalability.layers(*target)))?;
    let (spatial, temporal) = scalability.layers(target);
    let chosen = Wanted { spatial, temporal };
    let active = produced().filter(|target| fits(*target, chosen)).fold(0, |mask, t| mask | 1 << t);
    let active = if active == scalability.active() { 0 } else { active };
    Some(Selection { spatial, temporal, target, active })
}

/// See the module.
#[derive(Default)]
pub struct Selector {
    /// By the dependency descriptor: which of the last frames were forwarded, the newest at bit 0.
    forwarded: u128,
    newest_frame: u16,
    /// What is wanted can not be had before a keyframe.
    pub waits_for_keyframe: bool,
}

impl Selector {
    /// What is forwarded from a keyframe on.
    pub fn at_keyframe(
        &mut self,
        facts: &PacketFacts,
        scalability: Option<&Scalability>,
        wanted: Wanted,
    ) -> Selection {
        self.waits_for_keyframe = false;
        (self.forwarded, self.newest_frame) = (0, facts.frame.indices.frame_number);
        let by_layers =
            Selection { spatial: wanted.spatial, temporal: wanted.temporal, target: 0, active: 0 };
        match (&facts.frame.layering, scalability) {
            (Layering::Targets(_), Some(scalability)) => {
                choose(scalability, wanted, false).unwrap_or(by_layers)
            }
            _ => by_layers,
        }
    }

    /// What is forwarded from the first packet of a frame on, of a picture of which nothing was
    /// forwarded before. `follows`: no packet before it is missing.
    pub fn at_frame(
        &mut self,
        current: Selection,
        facts: &PacketFacts,
        scalability: Option<&Scalability>,
        wanted: Wanted,
        follows: bool,
    ) -> Selection {
        if facts.keyframe {
            return self.at_keyframe(facts, scalability, wanted);
        }
        let frame = &facts.frame;
        match (&frame.layering, scalability) {
            // That a picture of H265 begins here is known only if nothing before it is missing.
            (Layering::Temporal, _) if facts.codec == Codec::H265 && !follows => {
                Selection { temporal: current.temporal.min(wanted.temporal), ..current }
            }
            (Layering::Temporal, _) => {
                Selection { temporal: temporal(current, frame, wanted), ..current }
            }
            (Layering::Vp9, _) if frame.spatial == 0 => {
                self.waits_for_keyframe = wanted.spatial > current.spatial;
                Selection {
                    spatial: current.spatial.min(wanted.spatial),
                    temporal: temporal(current, frame, wanted),
                    ..current
                }
            }
            (Layering::Targets(known), Some(scalability)) => {
                self.at_target(current, frame, known, scalability, wanted, follows)
            }
            _ => current,
        }
    }

    fn at_target(
        &mut self,
        current: Selection,
        frame: &FrameFacts,
        known: &Dependencies,
        scalability: &Scalability,
        wanted: Wanted,
        follows: bool,
    ) -> Selection {
        let Some(best) = choose(scalability, wanted, false) else { return current };
        let is_broken = scalability.is_broken(current.target);
        let chosen = match scalability.is_broken(best.target) || is_broken {
            false => best,
            // What can be had without a keyframe, and a keyframe.
            true => match choose(scalability, wanted, true) {
                Some(chosen) => chosen,
                None => {
                    self.waits_for_keyframe = true;
                    return Selection { target: NO_TARGET, ..current };
                }
            },
        };
        if chosen.target == current.target {
            self.waits_for_keyframe = chosen.target != best.target;
            return chosen;
        }
        let is_switch = known.targets.get(usize::from(chosen.target)) == Switch;
        // A lower layer of the picture that still comes would end the picture for itself.
        let is_first = follows || chosen.spatial == current.spatial;
        let is_lower = chosen.spatial <= current.spatial && chosen.temporal <= current.temporal;
        let is_joined = is_switch || is_lower && self.has_chain(&chosen, frame, known, scalability);
        if is_joined && is_first && self.is_decodable(frame, known) {
            self.waits_for_keyframe = chosen.target != best.target;
            return chosen;
        }
        if is_broken || current.target == NO_TARGET {
            self.waits_for_keyframe = true;
            return Selection { target: NO_TARGET, ..current };
        }
        // A picture of the base has gone by and could not be used to change.
        if frame.spatial == 0 && frame.temporal == 0 {
            let is_produced = scalability.active() >> current.target & 1 == 1;
            self.waits_for_keyframe = chosen.spatial != current.spatial || !is_produced;
        }
        current
    }

    /// Whether all that a frame refers to was forwarded.
    fn is_decodable(&self, frame: &FrameFacts, known: &Dependencies) -> bool {
        known.references.as_slice().iter().all(|diff| self.was_forwarded(frame, *diff))
    }

    /// Whether a frame is of a decode target and the last frame of the target's chain was
    /// forwarded, so that all of the chain was.
    fn has_chain(
        &self,
        target: &Selection,
        frame: &FrameFacts,
        known: &Dependencies,
        scalability: &Scalability,
    ) -> bool {
        let diff = scalability.chain_of(target.target).and_then(|chain| known.chains.get(chain));
        known.targets.get(usize::from(target.target)) != NotPresent
            && diff.is_some_and(|diff| *diff > 0 && self.was_forwarded(frame, u16::from(*diff)))
    }

    /// Whether the frame so many before another was forwarded.
    fn was_forwarded(&self, frame: &FrameFacts, diff: u16) -> bool {
        let number = frame.indices.frame_number.wrapping_sub(diff);
        let behind = self.newest_frame.wrapping_sub(number);
        u32::from(behind) < u128::BITS && self.forwarded >> behind & 1 == 1
    }

    /// A packet of a frame is forwarded.
    #[inline]
    pub fn note(&mut self, frame: &FrameFacts) {
        if matches!(frame.layering, Layering::Targets(_)) {
            self.note_frame(frame);
        }
    }

    fn note_frame(&mut self, frame: &FrameFacts) {
        let number = frame.indices.frame_number;
        let ahead = number.wrapping_sub(self.newest_frame);
        if ahead < 0x8000 {
            self.forwarded = self.forwarded.checked_shl(u32::from(ahead)).unwrap_or(0) | 1;
            self.newest_frame = number;
        } else {
            let behind = u32::from(ahead.wrapping_neg());
            self.forwarded |= 1u128.checked_shl(behind).unwrap_or(0);
        }
    }
}

/// Down at any picture; up by one layer, at a picture that does not depend on older ones of its
/// layer.
fn temporal(current: Selection, frame: &FrameFacts, wanted: Wanted) -> u8 {
    let is_next = current.temporal.checked_add(1) == Some(frame.temporal);
    if is_next && frame.switches_up && frame.temporal <= wanted.temporal {
        frame.temporal
    } else {
        current.temporal.min(wanted.temporal)
    }
}
