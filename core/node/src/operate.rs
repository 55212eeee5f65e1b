//! What an operator sees of a node, and changes while it runs.

use crate::{Limits, Node};
use livekit_protocol as proto;
use parlor_model::{Now, PeerId, SubscriptionId, TrackSid};
use parlor_signal::{ApiKeys, info::participant_info};
use std::collections::BTreeMap;

/// A room as it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct RoomSnapshot {
    /// As the server API shows it.
    pub room: proto::Room,
    /// Its creator's marks.
    pub tags: BTreeMap<String, String>,
    /// Who is in it.
    pub participants: Vec<ParticipantSnapshot>,
}

/// A participant as it stands.
#[derive(Clone, PartialEq, Debug)]
pub struct ParticipantSnapshot {
    /// As the server API shows it.
    pub info: proto::ParticipantInfo,
    /// Whether it has a WebSocket now.
    pub has_socket: bool,
    /// Its peer connections.
    pub peers: Vec<PeerId>,
    /// The tracks that it is sent, and what its media thread knows them as.
    pub subscriptions: Vec<(TrackSid, SubscriptionId)>,
}

impl Node {
    /// The id of this node.
    pub fn id(&self) -> &str {
        &self.outside.server.node_id
    }

    /// Every room with its participants. Secrets of a room are left out.
    pub fn snapshot(&self) -> Vec<RoomSnapshot> {
        let region = &self.outside.config.region;
        let rooms = self.hosts.values().map(|host| RoomSnapshot {
            room: self.outside.server.room_with_counts(&host.room, ""),
            tags: host.room.settings().tags.clone(),
            participants: host
                .room
                .participants()
                .map(|participant| {
                    let member = host.members.get(&participant.info.sid);
                    ParticipantSnapshot {
                        info: participant_info(participant, region),
                        has_socket: member.is_some_and(|member| member.session.is_some()),
                        peers: member
                            .map_or(Vec::new(), |m| m.connection.peers().map(|p| p.id).collect()),
                        subscriptions: member.map_or(Vec::new(), |m| {
                            m.subscriptions.iter().map(|(track, id)| (track.clone(), *id)).collect()
                        }),
                    }
                })
                .collect(),
        });
        rooms.collect()
    }

    /// Whether [`Node::set_traffic`] has to be told.
    pub fn limits_traffic(&self) -> bool {
        self.outside.config.limits.bytes_per_second > 0
    }

    /// What media takes now in both directions, bytes a second.
    pub fn set_traffic(&mut self, bytes_per_second: u64) {
        self.bytes_per_second = bytes_per_second;
    }

    /// Signs refreshed tokens with these keys, and bounds texts so, from now on. Where the keys
    /// are others, every participant gets a token at once: the one that it has would not let it
    /// in again.
    pub fn reconfigure(&mut self, now: Now, api_keys: ApiKeys, limits: Limits) {
        self.outside.config.limits = limits;
        if self.outside.config.api_keys == api_keys {
            return;
        }
        self.outside.config.api_keys = api_keys;
        for host in self.hosts.values_mut() {
            let members: Vec<_> = host.members.keys().cloned().collect();
            for sid in &members {
                host.send_token(&mut self.outside, now, sid);
            }
        }
    }
}
