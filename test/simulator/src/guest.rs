//! A client in a world, with its links, its media and what it has seen.

use crate::{
    clock::Clock,
    frames::Frames,
    source::{Source, SourceKind},
};
use livekit_protocol as proto;
use parlor_checker::{Checker, OutgoingStream};
use parlor_client::{Client, ClientEvent, NewTrack};
use parlor_model::{Codec, DataChannel, Mid, Now, TrackKind};
use parlor_netem::Link;
use parlor_node::io::SessionId;
use proto::signal_response::Message as Response;
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
    pub(crate) clock: Clock,
    pub(crate) session: SessionId,
    pub(crate) up: Link<Datagram>,
    pub(crate) down: Link<Datagram>,
    /// Its own addresses, and how the server sees them.
    pub(crate) addresses: [(SocketAddr, SocketAddr); 2],
    pub(crate) signals_up: VecDeque<(Instant, Vec<u8>)>,
    pub(crate) signals_down: VecDeque<(Instant, Option<Vec<u8>>)>,
    pub(crate) sources: Vec<Source>,
    /// The sid of each track that the server has taken, by cid.
    pub(crate) published: BTreeMap<String, String>,
    pub(crate) checker: Checker,
    pub(crate) is_closed: bool,
    /// It is cut off: nothing of its signal socket passes.
    pub(crate) is_cut: bool,
    /// Whether what it is sent passes the link that guests share.
    pub(crate) is_behind_bottleneck: bool,
    /// It has crashed: it does nothing any more.
    pub(crate) is_dead: bool,
    /// Sessions that it has begun.
    pub(crate) generation: u16,
    /// When it has something to do next.
    pub(crate) due: Option<Instant>,
    /// Something has come for it, or was done to it, since it was looked after.
    pub(crate) is_stirred: bool,
    /// What its client told it, but media.
    pub events: Vec<ClientEvent>,
    /// Messages that came, by channel.
    pub data: Vec<(DataChannel, proto::DataPacket)>,
    /// Bytes of media packets that came.
    pub bytes: u64,
    /// Those of them that came for their size only: padding, and what had come before.
    pub padding_bytes: u64,
    /// What it received, by track sid.
    pub frames: BTreeMap<String, Frames>,
    /// The participants as it was told last, by identity.
    pub participants: BTreeMap<String, proto::ParticipantInfo>,
    /// What each section carries, as negotiated last: the track's sid and its codecs.
    sections: BTreeMap<Mid, (String, Vec<parlor_model::CodecBinding>)>,
}

impl Guest {
    pub(crate) fn new(
        client: Client,
        clock: Clock,
        links: [Link<Datagram>; 2],
        addresses: [SocketAddr; 2],
    ) -> Self {
        let [up, down] = links;
        Self {
            client,
            clock,
            session: SessionId(0),
            up,
            down,
            addresses: addresses.map(|address| (address, address)),
            signals_up: VecDeque::new(),
            signals_down: VecDeque::new(),
            sources: Vec::new(),
            published: BTreeMap::new(),
            checker: Checker::default(),
            is_closed: false,
            is_cut: false,
            is_behind_bottleneck: false,
            is_dead: false,
            generation: 0,
            due: None,
            is_stirred: true,
            events: Vec::new(),
            data: Vec::new(),
            bytes: 0,
            padding_bytes: 0,
            frames: BTreeMap::new(),
            participants: BTreeMap::new(),
            sections: BTreeMap::new(),
        }
    }

    /// Its client.
    pub fn client(&mut self) -> &mut Client {
        self.is_stirred = true;
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

    /// What its clock shows.
    pub(crate) fn now(&self, world: Now) -> Now {
        Now { instant: self.clock.local(world.instant), unix: world.unix }
    }

    /// When it has something to do next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let links = [self.up.poll_timeout(), self.down.poll_timeout()];
        let up = self.signals_up.front().map(|(at, _)| *at).filter(|_| !self.is_cut);
        if self.is_dead {
            return links.into_iter().chain([up]).flatten().min();
        }
        let sources = self.sources.iter().map(Source::poll_timeout).min();
        let own = [self.client.poll_timeout(), sources].into_iter().flatten().min();
        let down = self.signals_down.front().map(|(at, _)| *at);
        let signals = [up, down].into_iter().flatten().filter(|_| !self.is_cut);
        links.into_iter().flatten().chain(own.map(|due| self.clock.world(due))).chain(signals).min()
    }

    /// Its sid, identity and room, as it was told when it joined.
    pub(crate) fn joined_as(&self) -> Option<(String, String, String)> {
        let joined = self.events.iter().rev().find_map(|event| match event {
            ClientEvent::Joined(join) => Some(join),
            _ => None,
        });
        let join = joined?;
        let this = join.participant.clone().unwrap_or_default();
        let room = join.room.clone().unwrap_or_default();
        Some((this.sid, this.identity, room.name))
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

    /// The sid of a track that it publishes under this cid.
    pub fn sid_of(&self, cid: &str) -> Option<String> {
        self.published.get(cid).cloned()
    }

    /// Audio packets and whole frames that it received, of all tracks.
    pub fn complete_frames(&self) -> u64 {
        self.frames.values().map(|frames| frames.complete).sum()
    }

    /// Publishes a microphone or camera and starts it.
    pub fn publish(&mut self, now: Now, cid: &str, kind: SourceKind) {
        let source = Source::new(cid.to_owned(), kind, self.now(now).instant);
        let layers: Vec<_> = source.layers.iter().filter_map(|layer| layer.rid).collect();
        let announcement = announcement(cid, &source);
        self.client().publish(NewTrack { announcement, rids: layers });
        self.sources.push(source);
    }

    /// Ends a track.
    pub fn unpublish(&mut self, cid: &str) {
        self.sources.retain(|source| source.cid != cid);
        self.published.remove(cid);
        self.client().unpublish(cid);
    }

    /// Falls silent and says so, or speaks again. False while the server has not taken the track.
    pub(crate) fn set_muted(&mut self, cid: &str, muted: bool) -> bool {
        let is_told = self.client().set_muted(cid, muted);
        for source in self.sources.iter_mut().filter(|source| source.cid == cid) {
            source.layers.iter_mut().for_each(|layer| layer.needs_keyframe |= source.is_muted);
            source.is_muted = muted;
        }
        is_told
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
            ClientEvent::TrackPublished { cid, track } => {
                self.published.insert(cid.clone(), track.sid.clone());
            }
            ClientEvent::Signal(message) => {
                if let Response::SubscribedQualityUpdate(update) = &**message {
                    self.handle_demand(update);
                }
            }
            ClientEvent::Tracks(_) => self.admit_tracks(),
            _ => {}
        }
        self.events.push(event);
    }

    /// Sends the layers that somebody wants, as livekit-client does with dynacast.
    fn handle_demand(&mut self, update: &proto::SubscribedQualityUpdate) {
        let cid = self.published.iter().find(|(_, sid)| **sid == update.track_sid);
        let Some((cid, _)) = cid else { return };
        let Some(source) = self.sources.iter_mut().find(|source| source.cid == *cid) else {
            return;
        };
        let codec = update.subscribed_codecs.first();
        let Some(qualities) = codec.map(|codec| &codec.qualities) else { return };
        let is_wanted = |index: usize| {
            let is_on = |q: &&proto::SubscribedQuality| q.enabled && q.quality as usize >= index;
            qualities.iter().any(|q| is_on(&q))
        };
        for (index, layer) in source.layers.iter_mut().enumerate() {
            layer.set_wanted(is_wanted(index));
        }
    }

    fn admit_tracks(&mut self) {
        self.sections.clear();
        for section in self.client.received_tracks() {
            let known = (section.track_id.clone(), section.codecs.clone());
            self.sections.insert(section.mid, known);
            let Some(ssrc) = section.stream.ssrc else { continue };
            let (rtx_ssrc, codecs) = (section.stream.rtx_ssrc, section.codecs.clone());
            self.checker.allow(OutgoingStream {
                ssrc,
                rtx_ssrc,
                codecs,
                dependency_descriptor: section.extensions.dependency_descriptor,
            });
        }
    }

    /// Counts a media packet.
    pub(crate) fn count(&mut self, now: Instant, received: &parlor_client::ReceivedRtp<'_>) {
        let len = received.packet.bytes().len() as u64;
        self.bytes += len;
        if received.payload.is_empty() || !received.is_new {
            self.padding_bytes += len;
        }
        let Some((sid, codecs)) = self.sections.get(&received.mid) else { return };
        let payload_type = received.packet.payload_type();
        let is_of = |it: &&parlor_model::CodecBinding| {
            it.payload_type == payload_type || it.rtx == Some(payload_type)
        };
        let codec = codecs.iter().find(is_of).map_or(Codec::Opus, |binding| binding.codec);
        if let Some(frames) = self.frames.get_mut(sid) {
            frames.handle(codec, now, received);
        } else {
            self.frames.entry(sid.clone()).or_default().handle(codec, now, received);
        }
    }

    /// Asks for keyframes where a decoder would.
    pub(crate) fn ask_for_keyframes(&mut self, now: Instant) {
        let stuck = self
            .frames
            .iter_mut()
            .filter_map(|(sid, frames)| frames.needs_keyframe(now).then_some(sid));
        for sid in stuck {
            self.client.request_keyframe(sid);
            self.is_stirred = true;
        }
    }

    /// What is wrong with the dependency descriptors that it received.
    pub(crate) fn descriptor_faults(&self) -> Vec<String> {
        let tracks = self.client.received_tracks();
        let ssrcs = tracks.iter().filter_map(|section| section.stream.ssrc);
        let faults = ssrcs.flat_map(|ssrc| self.checker.descriptor_faults(ssrc));
        faults.map(|(number, fault)| format!("packet {number}: {fault}")).collect()
    }

    /// Sequence numbers of what it receives that never came, and were not sent again.
    pub fn missing(&self) -> u64 {
        let tracks = self.client.received_tracks();
        let ssrcs = tracks.iter().filter_map(|section| section.stream.ssrc);
        ssrcs.map(|ssrc| self.checker.missing(ssrc)).sum()
    }
}

fn announcement(cid: &str, source: &Source) -> proto::AddTrackRequest {
    let mut announcement = proto::AddTrackRequest { cid: cid.to_owned(), ..Default::default() };
    match source.kind.track_kind() {
        TrackKind::Audio => {
            announcement.set_type(proto::TrackType::Audio);
            announcement.set_source(proto::TrackSource::Microphone);
            announcement.disable_red = source.kind != SourceKind::Red;
        }
        TrackKind::Video => {
            announcement.set_type(proto::TrackType::Video);
            let source_kind = match source.kind {
                SourceKind::Screen { .. } => proto::TrackSource::ScreenShare,
                _ => proto::TrackSource::Camera,
            };
            announcement.set_source(source_kind);
            (announcement.width, announcement.height) = (1280, 720);
            let codec = match source.kind.codec() {
                Codec::Vp9 => "vp9",
                Codec::Av1 => "av1",
                Codec::H264 => "h264",
                _ => "vp8",
            };
            let codec = proto::SimulcastCodec {
                codec: codec.into(),
                cid: cid.to_owned(),
                ..Default::default()
            };
            announcement.simulcast_codecs = vec![codec];
            announcement.layers = video_layers(source.layers.len());
        }
    }
    announcement
}

fn video_layers(layers: usize) -> Vec<proto::VideoLayer> {
    let all = [(0, 320, 180), (1, 640, 360), (2, 1280, 720)];
    let used = if layers == 1 { &all[2..] } else { &all[..layers.min(3)] };
    used.iter()
        .map(|&(quality, width, height)| proto::VideoLayer {
            quality,
            width,
            height,
            ..Default::default()
        })
        .collect()
}
