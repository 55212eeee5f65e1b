//! News from media threads, and data on its way through.

use crate::{host::Host, outside::Outside, reliable::Sent, statistics::ms};
use bytes::Bytes;
use parlor_model::{DataChannel, Now, ParticipantSid, PeerId, Rid, Ssrc, TrackId, TrackSid};
use parlor_room::Command;
use parlor_signal::data::{Packet, Sender};
use std::collections::BTreeSet;

/// A stream of which the first packet has come.
pub(crate) struct Started {
    pub(crate) encoding: TrackId,
    pub(crate) rid: Option<Rid>,
    pub(crate) ssrc: Ssrc,
    pub(crate) layer: u8,
}

impl Host {
    /// ICE and DTLS of a peer are up.
    pub(crate) fn peer_connected(
        &mut self,
        cx: &mut Outside,
        now: Now,
        sid: &ParticipantSid,
        id: PeerId,
    ) {
        let Some(member) = self.members.get_mut(sid) else { return };
        let Some(peer) = member.connection.peer_mut(id) else { return };
        peer.connected = true;
        self.peer_returned(sid, id);
        let Some(member) = self.members.get_mut(sid) else { return };
        let is_primary = member.connection.primary().is_some_and(|primary| primary.id == id);
        if is_primary {
            member.active_since = Some(now.instant);
        }
        if is_primary && !member.active {
            member.active = true;
            tracing::info!(room = %self.room.name(), participant = %sid, "active");
            cx.statistics.rtc_active += 1;
            let took = now.instant.saturating_duration_since(member.joined);
            cx.statistics.session_start_time_ms.observe(ms(took));
            self.apply(now, Command::SetActive(sid.clone()));
        }
    }

    /// The first packet of a stream has come: its layer has an SSRC, and its track is there.
    pub(crate) fn stream_started(
        &mut self,
        cx: &mut Outside,
        now: Now,
        publisher: &ParticipantSid,
        track: &TrackSid,
        stream: Started,
    ) {
        let Some(known) = self.room.track(track) else { return };
        let Some(index) = self.codec_of(track, stream.encoding) else { return };
        let Started { rid, ssrc, layer, .. } = stream;
        let codec = known.codecs.get(index).filter(|codec| !codec.mid.is_empty());
        let layer_of = |codec: &parlor_room::TrackCodec| {
            codec.layers.get(usize::from(layer)).map(|layer| layer.ssrc)
        };
        let mid =
            codec.filter(|codec| layer_of(codec) != Some(ssrc.0)).map(|codec| codec.mid.clone());
        let regresses = known.regresses(index, self.room.num_participants() as usize);
        let (participant, sid) = (publisher.clone(), track.clone());
        if let Some(mid) = mid {
            let (participant, track) = (participant.clone(), sid.clone());
            self.apply(now, Command::SetStream { participant, track, mid, layer, rid, ssrc });
        }
        self.apply(now, Command::Publish { participant: participant.clone(), track: sid.clone() });
        if regresses {
            self.apply(now, Command::Regress { participant, track: sid, codec: index });
            self.sources_changed(cx, track);
        }
    }

    /// A data channel can be written now: what was held for it goes out.
    pub(crate) fn channel_open(
        &mut self,
        cx: &mut Outside,
        sid: &ParticipantSid,
        id: PeerId,
        channel: DataChannel,
    ) {
        let Some(member) = self.members.get_mut(sid) else { return };
        let Some(peer) = member.connection.peer_mut(id) else { return };
        peer.open_channels.insert(channel);
        if channel == DataChannel::Reliable && member.data_peer(channel) == Some(id) {
            for data in member.held.take() {
                cx.send_data(channel, &data, None, [id]);
            }
        }
        self.prime(cx, sid);
    }

    /// A data message of a participant: relayed to those it is for, if it may be.
    pub(crate) fn handle_data(
        &mut self,
        cx: &mut Outside,
        now: Now,
        sid: &ParticipantSid,
        peer: PeerId,
        channel: DataChannel,
        data: Bytes,
    ) {
        let reply = self.rpc_reply(sid, channel, &data);
        let Some(participant) = self.room.participant(sid) else { return };
        if !participant.info.permissions.can_publish_data {
            cx.counters.forbidden_packets += 1;
            return;
        }
        if channel == DataChannel::DataTrack {
            return self.handle_data_track_packet(cx, sid, &data);
        }
        let Some(member) = self.members.get_mut(sid) else { return };
        let Ok(packet) = Packet::read(data) else {
            cx.counters.malformed_packets += 1;
            return;
        };
        let sender = Sender {
            sid: sid.as_str(),
            identity: participant.info.identity.as_str(),
            hidden: participant.info.permissions.hidden,
            agent: participant.info.permissions.agent
                || participant.info.kind == parlor_model::ParticipantKind::Agent,
        };
        if !packet.may_relay(&sender) {
            cx.counters.forbidden_packets += 1;
            return;
        }
        if channel == DataChannel::Reliable && packet.sequence() > 0 {
            if packet.sequence() <= member.last_sequence {
                cx.counters.repeated_packets += 1;
                return;
            }
            member.last_sequence = packet.sequence();
        }
        if let Some((id, reply)) = reply {
            return self.take_rpc_reply(cx, &id, reply);
        }
        let recipients = self.room.data_recipients(
            Some(sid),
            packet.destination_sids(),
            packet.destination_identities(),
        );
        if recipients.is_empty() {
            return;
        }
        let relayed = packet.relay(channel, &sender);
        if channel == DataChannel::Reliable && packet.sequence() > 0 {
            let to_all =
                packet.destination_sids().is_empty() && packet.destination_identities().is_empty();
            self.sent_data.push(Sent {
                at: now.instant,
                sender: sid.clone(),
                sequence: packet.sequence(),
                data: relayed.clone(),
                recipients: (!to_all).then(|| recipients.clone()),
            });
        }
        self.send_data(cx, now, Some(peer), channel, relayed, &recipients);
    }

    /// Sends one message to many. Reliable ones are held for those whose channel is not open yet.
    pub(crate) fn send_data(
        &mut self,
        cx: &mut Outside,
        now: Now,
        from: Option<PeerId>,
        channel: DataChannel,
        data: Bytes,
        recipients: &[ParticipantSid],
    ) {
        let mut peers = BTreeSet::new();
        for recipient in recipients {
            let Some(member) = self.members.get_mut(recipient) else { continue };
            match member.data_peer(channel) {
                Some(peer) => {
                    peers.insert(peer);
                }
                None if channel == DataChannel::Reliable => {
                    cx.counters.lost_packets += member.held.push(now.instant, data.clone());
                }
                None => cx.counters.lost_packets += 1,
            }
        }
        cx.send_data(channel, &data, from, peers);
    }
}
