//! How good connections are, told when one has changed.

use crate::{host::Host, node::Node, outside::Outside};
use livekit_protocol as proto;
use parlor_model::{Now, ParticipantSid, PeerId, RoomName};
use parlor_sfu::command::PeerQuality;
use proto::signal_response::Message;
use std::collections::{BTreeMap, BTreeSet};

/// Scores in a room, by the connections of its participants.
pub(crate) type Qualities = BTreeMap<ParticipantSid, BTreeMap<PeerId, f32>>;

const BEST: f32 = 100.0;

impl Node {
    /// What a shard has judged, room by room.
    pub(crate) fn qualities(&mut self, now: Now, peers: &[PeerQuality]) {
        let mut rooms: BTreeMap<RoomName, Vec<(ParticipantSid, PeerQuality)>> = BTreeMap::new();
        for quality in peers {
            let Some(address) = self.outside.peers.get(&quality.peer) else { continue };
            let of_room = rooms.entry(address.room.clone()).or_default();
            of_room.push((address.participant.clone(), *quality));
        }
        for (room, judged) in rooms {
            self.with_host(now, &room, |host, outside| host.take_qualities(outside, judged));
        }
    }
}

impl Host {
    /// Takes over what was judged. When somebody's quality is another now, everybody hears its own
    /// and that of all whom it is subscribed to.
    fn take_qualities(&mut self, cx: &mut Outside, judged: Vec<(ParticipantSid, PeerQuality)>) {
        let mut changed = false;
        for (sid, PeerQuality { peer, score }) in judged {
            let before = self.quality(&sid).map(level);
            let scores = self.qualities.entry(sid.clone()).or_default();
            scores.retain(|peer, _| cx.peers.contains_key(peer));
            scores.insert(peer, score);
            changed |= self.quality(&sid).map(level) != before;
        }
        self.qualities.retain(|sid, _| self.members.contains_key(sid));
        if !changed {
            return;
        }
        for listener in self.members.keys() {
            let mut heard: BTreeSet<_> = self.publishers_to(listener).collect();
            heard.insert(listener);
            let updates: Vec<_> = heard
                .into_iter()
                .filter_map(|sid| Some((sid, self.quality(sid)?)))
                .map(|(sid, score)| proto::ConnectionQualityInfo {
                    participant_sid: sid.to_string(),
                    quality: level(score).into(),
                    score: opinion(score),
                })
                .collect();
            if !updates.is_empty() {
                let update = proto::ConnectionQualityUpdate { updates };
                self.send(cx, listener, Message::ConnectionQuality(update));
            }
        }
    }

    /// The score of the worst connection of a participant.
    fn quality(&self, sid: &ParticipantSid) -> Option<f32> {
        self.qualities.get(sid)?.values().copied().reduce(f32::min)
    }
}

fn level(score: f32) -> proto::ConnectionQuality {
    match score {
        score if score > 80.0 => proto::ConnectionQuality::Excellent,
        score if score > 40.0 => proto::ConnectionQuality::Good,
        score if score > 20.0 => proto::ConnectionQuality::Poor,
        _ => proto::ConnectionQuality::Lost,
    }
}

/// The mean opinion score of an R factor (ITU-T G.107 appendix B): 1 to 4.5.
fn opinion(score: f32) -> f32 {
    let r = score.clamp(0.0, BEST);
    (1.0 + 0.035 * r + 0.000_007 * r * (r - 60.0) * (BEST - r)).clamp(1.0, 4.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opinions_follow_the_recorded_scale() {
        assert_eq!(opinion(100.0), 4.5);
        assert_eq!(opinion(0.0), 1.0);
        assert!((4.0..4.1).contains(&opinion(80.1)));
    }
}
