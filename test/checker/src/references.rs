//! What the dependency descriptors of a stream say, and whether it holds.

use std::collections::{BTreeMap, BTreeSet};

use parlor_rtp::dependency_descriptor::{Descriptor, Structure};

use crate::{Fault, stream::Packet};

/// The faults of a stream by the descriptors on its packets, with the number of the packet.
///
/// From a keyframe on each frame is whole, and what it refers to has come, until a number is
/// missing.
pub fn faults(
    packets: &BTreeMap<u64, Packet>,
    descriptors: &BTreeMap<u64, Box<[u8]>>,
) -> Vec<(u64, Fault)> {
    let mut faults = Vec::new();
    let mut structure: Option<Structure> = None;
    let mut whole: BTreeSet<u16> = BTreeSet::new();
    // Something that is needed is missing.
    let mut hole = true;
    let mut before: Option<(u64, Descriptor)> = None;
    for (&number, packet) in packets {
        let last = before.take();
        let follows = last.is_some_and(|(last, _)| last + 1 == number);
        hole |= !follows;
        let Some(data) = descriptors.get(&number) else {
            (hole, structure) = (true, None);
            continue;
        };
        structure = Structure::parse(data).or(structure);
        let Some(read) = Descriptor::parse(data, structure.as_ref()) else {
            if !hole {
                faults.push((number, Fault::Descriptor));
            }
            continue;
        };
        if let Some((_, last)) = last {
            let went = read.frame_number.wrapping_sub(last.frame_number);
            let same_frame = !(read.start_of_frame && follows);
            if went > 0x7fff || went == 0 && !same_frame {
                faults.push((number, Fault::FrameNumber));
            }
            let is_next = last.end_of_frame == read.start_of_frame && (went == 0) == same_frame;
            if follows && !is_next {
                faults.push((number, Fault::CutFrame));
            }
        }
        if packet.marker && !read.end_of_frame {
            faults.push((number, Fault::CutFrame));
        }
        let references = read.frame_diffs.as_slice();
        if read.start_of_frame && read.structure_attached && references.is_empty() {
            whole.clear();
            hole = false;
        }
        let has = |diff: &u16| whole.contains(&read.frame_number.wrapping_sub(*diff));
        if read.start_of_frame && !hole && !references.iter().all(has) {
            faults.push((number, Fault::Reference));
        }
        if read.end_of_frame {
            whole.insert(read.frame_number);
        }
        before = Some((number, read));
    }
    faults
}
