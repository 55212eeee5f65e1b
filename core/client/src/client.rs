//! The session of a client: what it says to the server, and what it makes of the answers.

use crate::{
    ClientEvent, MediaCounters, ReceivedRtp, ReceivedStream, RtpPayload,
    connection::{Connection, ConnectionConfig},
};
use base64::{Engine, engine::general_purpose::URL_SAFE};
use livekit_protocol::{
    self as proto, signal_request::Message as Request, signal_response::Message as Response,
};
use parlor_model::{Codec, DataChannel, IceCredentials, Mid, Now, Rid, Ssrc, TrackKind};
use parlor_sdp::{
    LocalTransport,
    client::{ClientAnswerer, ClientOfferer, ClientReceive, LocalTrack},
};
use parlor_transport::{Channel, DtlsIdentity, Transmit, TransportEvent};
use prost::Message as _;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha12Rng;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

/// How often a client says that it is there, as the join answer asks by default.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The signalling protocol that we speak.
const PROTOCOL: i32 = 17;

/// Which of LiveKit's connection models a client uses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Model {
    /// `/rtc/v1`: one connection for both ways, which we offer.
    Single,
    /// `/rtc`: one that we offer for what we send, one that the server offers for the rest.
    Pair,
}

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientConfig {
    /// The DTLS certificate.
    pub identity: DtlsIdentity,
    /// The source of everything random.
    pub seed: [u8; 32],
    /// Connection model.
    pub model: Model,
    /// Whether the server subscribes us to everything.
    pub auto_subscribe: bool,
    /// The address of our socket.
    pub local_address: SocketAddr,
    /// The address of the socket for what we receive in [`Model::Pair`]: two connections to the
    /// same server need two.
    pub subscriber_address: SocketAddr,
}

/// A track to publish.
#[derive(Clone, PartialEq, Debug)]
pub struct NewTrack {
    /// The announcement; its `cid` names the track from here on.
    pub announcement: proto::AddTrackRequest,
    /// Simulcast streams, lowest layer first; empty for one stream.
    pub rids: Vec<Rid>,
}

/// The client's own offer in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Offering {
    Idle,
    /// An offer is out; whether another is wanted after it.
    Out {
        again: bool,
    },
}

/// A participant as the participant sees it. See the crate's page.
pub struct Client {
    config: ClientConfig,
    rng: ChaCha12Rng,
    /// The single connection, or the one that we publish on.
    pub(crate) own: Connection,
    pub(crate) own_sdp: ClientOfferer,
    offering: Offering,
    offer_id: u32,
    /// The connection that the server offers, in the pair.
    pub(crate) subscriber: Option<(Connection, ClientAnswerer)>,
    tracks: Vec<LocalTrack>,
    /// The codec that a track was announced with, by cid: it is sent, whatever the answer prefers.
    announced_codecs: BTreeMap<String, Codec>,
    /// What publishing found out, by cid.
    pub(crate) published: BTreeMap<String, proto::TrackInfo>,
    /// What has been announced and not yet been taken, by cid.
    pub(crate) unanswered: BTreeMap<String, proto::AddTrackRequest>,
    /// The session goes on with another socket, over which a ping is under way.
    pub(crate) has_resumed: bool,
    /// Tracks of others that we have switched off, which a resume says again.
    pub(crate) disabled: BTreeSet<String>,
    /// Tracks that we have asked for, or asked not to get, which a resume says again.
    pub(crate) chosen: BTreeMap<String, bool>,
    signals: VecDeque<Vec<u8>>,
    events: VecDeque<ClientEvent>,
    sequence: u32,
    next_ping: Option<Instant>,
    has_left: bool,
    watches_rtcp: bool,
    pub(crate) refuses_transport_feedback: bool,
}

impl Client {
    /// A client that has yet to join.
    pub fn new(now: Now, config: ClientConfig) -> Self {
        let mut rng = ChaCha12Rng::from_seed(config.seed);
        let sdp_model = match config.model {
            Model::Single => parlor_sdp::ConnectionModel::Single,
            Model::Pair => parlor_sdp::ConnectionModel::Publisher,
        };
        let own_sdp = ClientOfferer::new(rng.next_u64() >> 1, sdp_model, &CODECS);
        let own = connection(now, &config, &mut rng, config.local_address, true);
        Self {
            config,
            rng,
            own,
            own_sdp,
            offering: Offering::Idle,
            offer_id: 0,
            subscriber: None,
            tracks: Vec::new(),
            announced_codecs: BTreeMap::new(),
            published: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            has_resumed: false,
            disabled: BTreeSet::new(),
            chosen: BTreeMap::new(),
            signals: VecDeque::new(),
            events: VecDeque::new(),
            sequence: 0,
            next_ping: None,
            has_left: false,
            watches_rtcp: false,
            refuses_transport_feedback: false,
        }
    }

    /// Path and query of the WebSocket to open; the token goes into the header or the query.
    pub fn connect_url(&mut self) -> (&'static str, Vec<(String, String)>) {
        match self.config.model {
            Model::Single => ("/rtc/v1", vec![("join_request".into(), self.join_request())]),
            Model::Pair => {
                let flag = |on: bool| if on { "1" } else { "0" }.to_owned();
                let query = vec![
                    ("auto_subscribe".into(), flag(self.config.auto_subscribe)),
                    ("sdk".into(), "rust".into()),
                    ("protocol".into(), PROTOCOL.to_string()),
                ];
                ("/rtc", query)
            }
        }
    }

    fn join_request(&mut self) -> String {
        let request = proto::JoinRequest {
            client_info: Some(proto::ClientInfo {
                sdk: proto::client_info::Sdk::Rust.into(),
                version: env!("CARGO_PKG_VERSION").into(),
                protocol: PROTOCOL,
                ..Default::default()
            }),
            connection_settings: Some(proto::ConnectionSettings {
                auto_subscribe: self.config.auto_subscribe,
                subscriber_allow_pause: Some(true),
                ..Default::default()
            }),
            publisher_offer: Some(self.create_offer()),
            ..Default::default()
        };
        let wrapped = proto::WrappedJoinRequest {
            join_request: request.encode_to_vec(),
            ..Default::default()
        };
        URL_SAFE.encode(wrapped.encode_to_vec())
    }

    fn create_offer(&mut self) -> proto::SessionDescription {
        self.offering = Offering::Out { again: false };
        self.offer_id += 1;
        let local = local_transport(&self.config, self.config.local_address, &self.own.ice);
        proto::SessionDescription {
            r#type: "offer".into(),
            sdp: self.own_sdp.create_offer(&local),
            id: self.offer_id,
            ..Default::default()
        }
    }

    /// Offers now, or as soon as the offer that is out has been answered.
    fn negotiate(&mut self) {
        match &mut self.offering {
            Offering::Out { again } => *again = true,
            Offering::Idle => {
                let offer = self.create_offer();
                self.request(Request::Offer(offer));
            }
        }
    }

    /// Offers whatever became of the offer before.
    pub(crate) fn offer_anew(&mut self) {
        let offer = self.create_offer();
        self.request(Request::Offer(offer));
    }

    pub(crate) fn model(&self) -> Model {
        self.config.model
    }

    pub(crate) fn letters(&mut self, len: usize) -> String {
        letters(&mut self.rng, len)
    }

    /// Sends a request on the signal socket.
    pub fn request(&mut self, message: Request) {
        if let Request::TrackSetting(settings) = &message {
            for sid in &settings.track_sids {
                match settings.disabled {
                    true => drop(self.disabled.insert(sid.clone())),
                    false => drop(self.disabled.remove(sid)),
                }
            }
        }
        if let Request::Subscription(update) = &message {
            let chosen = update.track_sids.iter().map(|sid| (sid.clone(), update.subscribe));
            self.chosen.extend(chosen);
        }
        let request = proto::SignalRequest { message: Some(message) };
        self.signals.push_back(request.encode_to_vec());
    }

    /// Announces a track and offers it.
    pub fn publish(&mut self, new: NewTrack) {
        let audio = new.announcement.r#type == i32::from(proto::TrackType::Audio);
        let track = LocalTrack {
            cid: new.announcement.cid.clone(),
            stream_id: "-".into(),
            kind: if audio { TrackKind::Audio } else { TrackKind::Video },
            rids: new.rids,
            ssrc: Ssrc(self.rng.next_u32()),
            rtx_ssrc: (!audio).then(|| Ssrc(self.rng.next_u32())),
        };
        let announced = new.announcement.simulcast_codecs.first();
        if let Some(codec) = announced.and_then(|first| Codec::from_mime_type(&first.codec)) {
            self.announced_codecs.insert(track.cid.clone(), codec);
        }
        self.own_sdp.add_track(track.clone());
        self.tracks.push(track);
        self.unanswered.insert(new.announcement.cid.clone(), new.announcement.clone());
        self.request(Request::AddTrack(new.announcement));
        self.negotiate();
    }

    /// Ends a track.
    pub fn unpublish(&mut self, cid: &str) {
        if self.own_sdp.remove_track(cid) {
            self.tracks.retain(|track| track.cid != cid);
            self.published.remove(cid);
            self.unanswered.remove(cid);
            self.announced_codecs.remove(cid);
            self.negotiate();
        }
    }

    /// Says that a track is muted, or no longer. False while the server has not taken the track.
    pub fn set_muted(&mut self, cid: &str, muted: bool) -> bool {
        let Some(track) = self.published.get(cid) else { return false };
        let sid = track.sid.clone();
        self.request(Request::Mute(proto::MuteTrackRequest { sid, muted }));
        true
    }

    /// Wants tracks, or wants them no more.
    pub fn subscribe(&mut self, track_sids: Vec<String>, subscribe: bool) {
        let update = proto::UpdateSubscription { track_sids, subscribe, ..Default::default() };
        self.request(Request::Subscription(update));
    }

    /// Says goodbye. The server answers with [`ClientEvent::Left`].
    pub fn leave(&mut self) {
        self.request(Request::Leave(proto::LeaveRequest {
            reason: proto::DisconnectReason::ClientInitiated.into(),
            ..Default::default()
        }));
    }

    /// Sends one packet of a published track. False while it cannot be sent.
    pub fn send_rtp(
        &mut self,
        now: Now,
        cid: &str,
        rid: Option<Rid>,
        packet: &RtpPayload<'_>,
    ) -> bool {
        let Some(&mid) = self.own.sent.get(cid) else { return false };
        self.own.media.send_rtp(now, mid, rid, packet)
    }

    /// Sends a data packet, numbered if it is reliable. False while it cannot be sent.
    pub fn send_data(
        &mut self,
        now: Now,
        channel: DataChannel,
        mut packet: proto::DataPacket,
    ) -> bool {
        if channel == DataChannel::Reliable {
            packet.sequence = self.sequence + 1;
        }
        let sent = self.own.transport.send_data(now.instant, channel, &packet.encode_to_vec());
        if sent.is_ok() && channel == DataChannel::Reliable {
            self.sequence += 1;
        }
        sent.is_ok()
    }

    /// Asks for a keyframe of a track that we receive.
    pub fn request_keyframe(&mut self, track_sid: &str) {
        for connection in self.connections_mut() {
            let section = connection.received.iter().find(|s| s.track_id == track_sid);
            if let Some(mid) = section.map(|section| section.mid) {
                connection.media.request_keyframe(mid);
            }
        }
    }

    /// The sid of the track in a section, as [`ReceivedRtp`] names it.
    pub fn track_sid(&self, mid: Mid) -> Option<&str> {
        let section = self.receiving().received.iter().find(|section| section.mid == mid)?;
        Some(&section.track_id)
    }

    /// The tracks that we receive, as negotiated last.
    pub fn received_tracks(&self) -> &[ClientReceive] {
        &self.receiving().received
    }

    /// What arrived on each stream that we receive, but for those without a packet yet.
    pub fn received_streams(&self) -> impl Iterator<Item = ReceivedStream> {
        self.receiving().media.received_streams()
    }

    /// The connection on which we receive.
    fn receiving(&self) -> &Connection {
        self.subscriber.as_ref().map_or(&self.own, |(connection, _)| connection)
    }

    /// Whether every connection has its keys and, now, a path to the server.
    pub fn is_whole(&self) -> bool {
        let is_whole = |connection: &Connection| {
            connection.is_connected
                && connection.transport.ice_state() == parlor_transport::IceState::Connected
        };
        is_whole(&self.own) && self.subscriber.as_ref().is_none_or(|(it, _)| is_whole(it))
    }

    /// What was received, repaired and thrown away.
    pub fn counters(&self) -> MediaCounters {
        let mut counters = self.own.media.counters;
        if let Some((connection, _)) = &self.subscriber {
            counters += connection.media.counters;
        }
        counters
    }

    /// Keeps RTCP in the clear for [`Client::poll_rtcp`], which must then be called.
    pub fn watch_rtcp(&mut self) {
        self.watches_rtcp = true;
        self.connections_mut().for_each(|c| c.media.watched_rtcp = Some(VecDeque::new()));
    }

    /// The next compound packet that passed, and whether it came in.
    pub fn poll_rtcp(&mut self) -> Option<(bool, Vec<u8>)> {
        self.connections_mut().find_map(|c| c.media.watched_rtcp.as_mut()?.pop_front())
    }

    pub(crate) fn connections_mut(&mut self) -> impl Iterator<Item = &mut Connection> {
        std::iter::once(&mut self.own)
            .chain(self.subscriber.as_mut().map(|(connection, _)| connection))
    }

    /// Takes a datagram from the socket; returns the media packet in it.
    pub fn handle_datagram<'a>(
        &mut self,
        now: Now,
        local: SocketAddr,
        remote: SocketAddr,
        datagram: &'a mut [u8],
    ) -> Option<ReceivedRtp<'a>> {
        match &mut self.subscriber {
            Some((subscriber, _)) if local == self.config.subscriber_address => {
                subscriber.handle_datagram(now, local, remote, datagram)
            }
            _ => self.own.handle_datagram(now, local, remote, datagram),
        }
    }

    /// The next message for the signal socket.
    pub fn poll_signal(&mut self) -> Option<Vec<u8>> {
        self.signals.pop_front()
    }

    /// The next datagram for the socket, written into `out`.
    pub fn poll_transmit(&mut self, out: &mut [u8]) -> Option<Transmit> {
        self.connections_mut().find_map(|connection| connection.poll_transmit(out))
    }

    /// When [`Client::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let subscriber = self.subscriber.as_ref().and_then(|(c, _)| c.poll_timeout());
        [self.own.poll_timeout(), subscriber, self.next_ping].into_iter().flatten().min()
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Now) {
        self.connections_mut().for_each(|connection| connection.handle_timeout(now));
        if self.next_ping.is_some_and(|due| due <= now.instant) {
            self.next_ping = (!self.has_left).then(|| now.instant + PING_INTERVAL);
            self.ping(now);
        }
    }

    pub(crate) fn ping(&mut self, now: Now) {
        let timestamp = now.unix.as_millis() as i64;
        self.request(Request::PingReq(proto::Ping { timestamp, rtt: 0 }));
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ClientEvent> {
        loop {
            let event = self.connections_mut().find_map(Connection::poll_event);
            let Some(event) = event else { break };
            self.handle_transport_event(event);
        }
        self.collect_keyframe_requests();
        self.events.pop_front()
    }

    fn handle_transport_event(&mut self, event: TransportEvent) {
        let event = match event {
            TransportEvent::SrtpKeys(_) if self.receiving().is_connected => ClientEvent::Connected,
            TransportEvent::ChannelOpen { channel: Channel::Known(channel) } => {
                ClientEvent::ChannelOpen(channel)
            }
            TransportEvent::Data { channel: Channel::Known(channel), data, .. } => {
                ClientEvent::Data { channel, data: data.into() }
            }
            TransportEvent::Failed(reason) => ClientEvent::Failed(reason.to_string()),
            TransportEvent::Closed => ClientEvent::Failed("closed by the server".into()),
            _ => return,
        };
        self.events.push_back(event);
    }

    fn collect_keyframe_requests(&mut self) {
        while let Some(request) = self.own.media.keyframe_requests.pop_front() {
            let cid = self.own.sent.iter().find(|(_, mid)| **mid == request.mid);
            if let Some((cid, _)) = cid {
                let cid = cid.clone();
                self.events.push_back(ClientEvent::KeyframeRequested { cid, request });
            }
        }
    }

    /// Takes a message from the signal socket. What cannot be understood is an error; the client
    /// goes on without it.
    pub fn handle_signal(&mut self, now: Now, frame: &[u8]) -> Result<(), ClientError> {
        let Some(message) = proto::SignalResponse::decode(frame)?.message else { return Ok(()) };
        match message {
            Response::Join(join) => {
                self.next_ping = Some(now.instant + PING_INTERVAL);
                self.events.push_back(ClientEvent::Joined(Box::new(join)));
                if self.config.model == Model::Pair {
                    self.negotiate();
                }
            }
            Response::Answer(answer) => self.handle_answer(now, &answer)?,
            Response::Offer(offer) => self.handle_offer(now, &offer)?,
            Response::Trickle(trickle) => self.handle_trickle(now, &trickle),
            Response::MediaSectionsRequirement(requirement) => {
                self.own_sdp.add_receive_sections(parlor_sdp::Requirement {
                    num_audios: requirement.num_audios,
                    num_videos: requirement.num_videos,
                });
                self.negotiate();
            }
            Response::Update(update) => {
                self.events.push_back(ClientEvent::Participants(update.participants));
            }
            Response::TrackPublished(published) => {
                self.unanswered.remove(&published.cid);
                let track = published.track.unwrap_or_default();
                self.published.insert(published.cid.clone(), track.clone());
                let (cid, track) = (published.cid, Box::new(track));
                self.events.push_back(ClientEvent::TrackPublished { cid, track });
            }
            Response::PongResp(_) => self.announce_again(),
            Response::Leave(leave) => {
                self.has_left = true;
                self.events.push_back(ClientEvent::Left(Box::new(leave)));
            }
            Response::TrackUnpublished(ended) => {
                self.published.retain(|_, track| track.sid != ended.track_sid);
                let message = Response::TrackUnpublished(ended);
                self.events.push_back(ClientEvent::Signal(Box::new(message)));
            }
            other => self.events.push_back(ClientEvent::Signal(Box::new(other))),
        }
        Ok(())
    }

    fn handle_answer(
        &mut self,
        now: Now,
        answer: &proto::SessionDescription,
    ) -> Result<(), ClientError> {
        if answer.id != self.offer_id {
            return Ok(());
        }
        let again = self.offering == Offering::Out { again: true };
        self.offering = Offering::Idle;
        let mut description = self.own_sdp.handle_answer(&answer.sdp)?;
        for section in &mut description.send {
            if let Some(announced) = self.announced_codecs.get(&section.cid) {
                section.codecs.sort_by_key(|binding| binding.codec != *announced);
            }
        }
        self.own.apply(now, &description, &self.tracks)?;
        if self.config.model == Model::Single {
            self.tell_tracks();
        }
        if again {
            self.negotiate();
        }
        Ok(())
    }

    fn handle_offer(
        &mut self,
        now: Now,
        offer: &proto::SessionDescription,
    ) -> Result<(), ClientError> {
        let (connection, sdp) = self.subscriber.get_or_insert_with(|| {
            let mut sdp = ClientAnswerer::new(self.rng.next_u64() >> 1, &CODECS);
            if self.refuses_transport_feedback {
                sdp.refuse_transport_feedback();
            }
            // Of a full and a lite agent the full one controls (RFC 8445 section 6.1.1).
            let controlling = offer.sdp.contains("\na=ice-lite\r\n");
            let address = self.config.subscriber_address;
            (connection(now, &self.config, &mut self.rng, address, controlling), sdp)
        });
        let local = local_transport(&self.config, self.config.subscriber_address, &connection.ice);
        let (sdp, description) = sdp.handle_offer(&offer.sdp, &local)?;
        if self.watches_rtcp {
            connection.media.watched_rtcp.get_or_insert_default();
        }
        connection.apply(now, &description, &[])?;
        self.request(Request::Answer(proto::SessionDescription {
            r#type: "answer".into(),
            sdp,
            id: offer.id,
            ..Default::default()
        }));
        self.tell_tracks();
        Ok(())
    }

    fn handle_trickle(&mut self, now: Now, trickle: &proto::TrickleRequest) {
        let Ok(init) = serde_json::from_str::<serde_json::Value>(&trickle.candidate_init) else {
            return;
        };
        let Some(candidate) = init.get("candidate").and_then(|c| c.as_str()) else { return };
        let to_subscriber = trickle.target == i32::from(proto::SignalTarget::Subscriber);
        match &mut self.subscriber {
            Some((connection, _)) if to_subscriber => {
                connection.transport.add_remote_candidate(now.instant, candidate);
            }
            _ => self.own.transport.add_remote_candidate(now.instant, candidate),
        }
    }

    fn tell_tracks(&mut self) {
        let tracks = self.received_tracks().iter().map(|s| s.track_id.clone()).collect();
        self.events.push_back(ClientEvent::Tracks(tracks));
    }
}

/// What a client understands, in no particular order.
const CODECS: [Codec; 6] =
    [Codec::Opus, Codec::Red, Codec::Vp8, Codec::H264, Codec::Vp9, Codec::Av1];

fn connection(
    now: Now,
    config: &ClientConfig,
    rng: &mut ChaCha12Rng,
    local_address: SocketAddr,
    controlling: bool,
) -> Connection {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    Connection::new(
        now,
        ConnectionConfig {
            identity: config.identity.clone(),
            ice: IceCredentials { ufrag: letters(rng, 8), pwd: letters(rng, 24) },
            controlling,
            seed,
            opens_channels: local_address == config.local_address,
            local_address,
        },
    )
}

fn letters(rng: &mut ChaCha12Rng, len: usize) -> String {
    (0..len).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect()
}

fn local_transport(
    config: &ClientConfig,
    address: SocketAddr,
    ice: &IceCredentials,
) -> LocalTransport {
    let (ip, port) = (address.ip(), address.port());
    LocalTransport {
        ice: ice.clone(),
        fingerprint: config.identity.fingerprint().clone(),
        ice_lite: false,
        candidates: vec![format!("candidate:1 1 udp 2130706431 {ip} {port} typ host")],
    }
}

/// Why a message of the server could not be used.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// It is not protobuf of the signal protocol.
    #[error("undecodable signal message: {0}")]
    Protobuf(#[from] prost::DecodeError),
    /// Its session description cannot be used.
    #[error("unusable session description: {0}")]
    Sdp(#[from] parlor_sdp::SdpError),
    /// Its transport cannot be used.
    #[error("unusable transport: {0}")]
    Transport(#[from] parlor_transport::TransportError),
}
