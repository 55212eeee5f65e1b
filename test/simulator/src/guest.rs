//! A client in a world, with its links, its media and what it has seen.

use crate::{
    frames::Frames,
    source::{Source, SourceKind},
};
use livekit_protocol as proto;
use parlor_checker::{Checker, OutgoingStream};
use parlor_client::{Client, ClientEvent, NewTrack};
use parlor_model::{DataChannel, Now, TrackKind};
use parlor_netem::Link;
use parlor_node::io::SessionId;
use std::{
    collections::{BTreeMap, VecDeque},
    net::SocketAddr,
    time::Instant,
};

/// A datagram on its way.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Vec<u8>,
}

/// A client in a world.
pub struct Guest {
    pub(crate) client: Client,
    pub(crate) session: SessionId,
    pub(crate) up: Link<Datagram>,
    pub(crate) down: Link<Datagram>,
    /// Its own addresses, and how the server sees them.
    pub(crate) addresses: [(SocketAddr, SocketAddr); 2],
    pub(crate) signals_up: VecDeque<(Instant, Vec<u8>)>,
    pub(crate) signals_down: VecDeque<(Instant, Option<Vec<u8>>)>,
    pub(crate) sources: Vec<Source>,
    pub(crate) checker: Checker,
    pub(crate) is_closed: bool,
    /// What its client told it, but media.
    pub events: Vec<ClientEvent>,
    /// Messages that came, by channel.
    pub data: Vec<(DataChannel, proto::DataPacket)>,
    /// What it received, by track sid.
    pub frames: BTreeMap<String, Frames>,
    /// The participants as it was told last, by identity.
    pub participants: BTreeMap<String, proto::ParticipantInfo>,
}

impl Guest {
    /// Its client.
    pub fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// Whether its media flows.
    pub fn is_connected(&self) -> bool {
        self.events.contains(&ClientEvent::Connected)
    }

    /// Whether the server has ended its session.
    pub fn has_left(&self) -> bool {
        self.is_closed
    }

    /// Its sid, identity and room, as it was told when it joined.
    pub(crate) fn joined_as(&self) -> (String, String, String) {
        let joined = self.events.iter().find_map(|event| match event {
            ClientEvent::Joined(join) => Some(join),
            _ => None,
        });
        let join = joined.expect("only who has joined can resume");
        let this = join.participant.clone().unwrap_or_default();
        let room = join.room.clone().unwrap_or_default();
        (this.sid, this.identity, room.name)
    }

    /// The last number of every publisher's reliable data that has come.
    pub(crate) fn received_states(&self) -> Vec<proto::DataChannelReceiveState> {
        let mut last: BTreeMap<&str, u32> = BTreeMap::new();
        for (_, packet) in self.data.iter().filter(|(_, packet)| packet.sequence > 0) {
            last.insert(&packet.participant_sid, packet.sequence);
        }
        let state = |(publisher_sid, last_seq): (&str, u32)| proto::DataChannelReceiveState {
            publisher_sid: publisher_sid.to_owned(),
            last_seq,
        };
        last.into_iter().map(state).collect()
    }

    /// Audio packets and whole frames that it received, of all tracks.
    pub fn complete_frames(&self) -> u64 {
        self.frames.values().map(|frames| frames.complete).sum()
    }

    /// Publishes a microphone or camera and starts it.
    pub fn publish(&mut self, now: Now, cid: &str, kind: SourceKind) {
        let source = Source::new(cid.to_owned(), kind, now.instant);
        let layers: Vec<_> = source.layers.iter().filter_map(|layer| layer.rid).collect();
        let announcement = announcement(cid, &source, layers.len());
        self.client.publish(NewTrack { announcement, rids: layers });
        self.sources.push(source);
    }

    /// Ends a track.
    pub fn unpublish(&mut self, cid: &str) {
        self.sources.retain(|source| source.cid != cid);
        self.client.unpublish(cid);
    }

    /// Whether a reliable packet comes again, as it may after a resume.
    fn has(&self, packet: &proto::DataPacket) -> bool {
        packet.sequence > 0
            && self.data.iter().rev().any(|(_, known)| {
                known.participant_sid == packet.participant_sid && known.sequence >= packet.sequence
            })
    }

    pub(crate) fn handle_event(&mut self, event: ClientEvent) {
        match &event {
            ClientEvent::KeyframeRequested { cid, request } => {
                let source = self.sources.iter_mut().find(|source| source.cid == *cid);
                for layer in source.into_iter().flat_map(|source| &mut source.layers) {
                    layer.needs_keyframe |= layer.rid == request.rid;
                }
                return;
            }
            ClientEvent::Data { channel, data } => {
                if let Ok(packet) = prost::Message::decode(&data[..])
                    && !self.has(&packet)
                {
                    self.data.push((*channel, packet));
                }
                return;
            }
            ClientEvent::Joined(join) => {
                for other in &join.other_participants {
                    self.participants.insert(other.identity.clone(), other.clone());
                }
            }
            ClientEvent::Participants(changed) => {
                for participant in changed {
                    self.participants.insert(participant.identity.clone(), participant.clone());
                }
            }
            ClientEvent::Tracks(_) => self.admit_tracks(),
            _ => {}
        }
        self.events.push(event);
    }

    fn admit_tracks(&mut self) {
        for section in self.client.received_tracks() {
            let Some(ssrc) = section.stream.ssrc else { continue };
            let (rtx_ssrc, codecs) = (section.stream.rtx_ssrc, section.codecs.clone());
            self.checker.allow(OutgoingStream {
                ssrc,
                rtx_ssrc,
                codecs,
                dependency_descriptor: None,
            });
        }
    }

    /// Whether a track that it receives is video, as it was told.
    pub(crate) fn is_video(&self, track_sid: &str) -> bool {
        self.participants
            .values()
            .flat_map(|participant| &participant.tracks)
            .any(|t| t.sid == track_sid && t.r#type == i32::from(proto::TrackType::Video))
    }
}

fn announcement(cid: &str, source: &Source, layers: usize) -> proto::AddTrackRequest {
    let kind = match source.kind {
        SourceKind::Audio => TrackKind::Audio,
        SourceKind::Video { .. } => TrackKind::Video,
    };
    let mut announcement = proto::AddTrackRequest { cid: cid.to_owned(), ..Default::default() };
    match kind {
        TrackKind::Audio => {
            announcement.set_type(proto::TrackType::Audio);
            announcement.set_source(proto::TrackSource::Microphone);
            announcement.disable_red = true;
        }
        TrackKind::Video => {
            announcement.set_type(proto::TrackType::Video);
            announcement.set_source(proto::TrackSource::Camera);
            (announcement.width, announcement.height) = (1280, 720);
            let codec = proto::SimulcastCodec {
                codec: "vp8".into(),
                cid: cid.to_owned(),
                ..Default::default()
            };
            announcement.simulcast_codecs = vec![codec];
            announcement.layers = video_layers(layers);
        }
    }
    announcement
}

fn video_layers(layers: usize) -> Vec<proto::VideoLayer> {
    let all = [(0, 320, 180), (1, 640, 360), (2, 1280, 720)];
    let used = if layers == 0 { &all[2..] } else { &all[..layers.min(3)] };
    used.iter()
        .map(|&(quality, width, height)| proto::VideoLayer {
            quality,
            width,
            height,
            ..Default::default()
        })
        .collect()
}
