//! One participant and its sockets.

use crate::{Source, Track, opus_packets, vp8_frames};
use futures_util::{SinkExt, StreamExt};
use livekit_protocol as proto;
use parlor_checker::{Checker, OutgoingStream};
use parlor_client::{Client, ClientConfig, ClientEvent, Model, NewTrack};
use parlor_model::{DataChannel, Now, TrackKind};
use parlor_sdp::client::ClientReceive;
use parlor_transport::DtlsIdentity;
use serde::Serialize;
use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::net::{TcpStream, UdpSocket};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest, http::HeaderValue},
};

/// Whatever went wrong; a test only prints it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

const DATAGRAM_BYTES: usize = 1600;
/// Of `microphone.ogg`: those in which the encoder begins, and the four seconds that are played.
const LEAD_PACKETS: usize = 2;
const LOOP_PACKETS: usize = 200;
const IDLE: Duration = Duration::from_secs(1);

/// How to join.
#[derive(Clone, Debug)]
pub struct Join {
    /// `ws://host:port`.
    pub url: String,
    /// The token.
    pub token: String,
    /// Connection model.
    pub model: Model,
    /// Whether to be subscribed to everything.
    pub auto_subscribe: bool,
}

/// What happened, in the words of the other participants of `test/interop`.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    event: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
}

fn is_video(section: &ClientReceive) -> bool {
    section.codecs.iter().any(|binding| binding.codec.kind() == TrackKind::Video)
}

/// A participant in a room.
pub struct Participant {
    client: Client,
    signals: WebSocketStream<MaybeTlsStream<TcpStream>>,
    sockets: [UdpSocket; 2],
    addresses: [SocketAddr; 2],
    clock: (Instant, Duration),
    sources: BTreeMap<String, Source>,
    live: Vec<String>,
    checker: Checker,
    others: BTreeMap<String, proto::ParticipantInfo>,
    tracks: BTreeMap<String, Track>,
    events: Vec<Event>,
    /// Messages that came, with their senders and topics.
    data: Vec<(DataChannel, proto::DataPacket)>,
    connected: bool,
}

impl Participant {
    /// Joins and waits until media can flow.
    ///
    /// # Errors
    /// What the sockets, the server or the transport say.
    pub async fn join(join: &Join) -> Result<Self, Failure> {
        let clock = (Instant::now(), SystemTime::now().duration_since(UNIX_EPOCH)?);
        let authority = join.url.trim_start_matches("ws://");
        let ip = TcpStream::connect(authority).await?.local_addr()?.ip();
        let sockets = [UdpSocket::bind((ip, 0)).await?, UdpSocket::bind((ip, 0)).await?];
        let [own, subscriber] = &sockets;
        let addresses = [own.local_addr()?, subscriber.local_addr()?];
        let config = ClientConfig {
            identity: DtlsIdentity::generate()?,
            seed: rand::random(),
            model: join.model,
            auto_subscribe: join.auto_subscribe,
            local_address: addresses[0],
            subscriber_address: addresses[1],
        };
        let mut client = Client::new(Now { instant: clock.0, unix: clock.1 }, config);
        let (path, query) = client.connect_url();
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let mut request = format!("{}{path}?{query}", join.url).into_client_request()?;
        let bearer = HeaderValue::try_from(format!("Bearer {}", join.token))?;
        request.headers_mut().insert("Authorization", bearer);
        let (signals, _) = connect_async(request).await?;
        let mut this = Self {
            client,
            signals,
            sockets,
            addresses,
            clock,
            sources: BTreeMap::new(),
            live: Vec::new(),
            checker: Checker::default(),
            others: BTreeMap::new(),
            tracks: BTreeMap::new(),
            events: Vec::new(),
            data: Vec::new(),
            connected: false,
        };
        while !this.connected {
            this.step().await?;
        }
        Ok(this)
    }

    /// Publishes `microphone.ogg` and `camera.ivf` of a folder, in a loop.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn play(&mut self, folder: &Path, microphone: bool, camera: bool) -> Result<(), Failure> {
        let now = self.now().instant;
        if microphone {
            let file = std::fs::read(folder.join("microphone.ogg"))?;
            let packets = opus_packets(&file)?.into_iter().skip(LEAD_PACKETS).take(LOOP_PACKETS);
            self.publish("microphone", Source::microphone(now, packets.collect()));
        }
        if camera {
            let file = std::fs::read(folder.join("camera.ivf"))?;
            let frames = vp8_frames(&file)?.into_iter().map(<[u8]>::to_vec).collect();
            self.publish("camera", Source::camera(now, frames));
        }
        Ok(())
    }

    fn publish(&mut self, cid: &str, source: Source) {
        let mut announcement =
            proto::AddTrackRequest { cid: cid.into(), name: cid.into(), ..Default::default() };
        if cid == "camera" {
            announcement.set_type(proto::TrackType::Video);
            announcement.set_source(proto::TrackSource::Camera);
            (announcement.width, announcement.height) = (320, 180);
            let codec = proto::SimulcastCodec {
                codec: "vp8".into(),
                cid: cid.into(),
                ..Default::default()
            };
            announcement.simulcast_codecs = vec![codec];
        } else {
            announcement.set_type(proto::TrackType::Audio);
            announcement.set_source(proto::TrackSource::Microphone);
            announcement.disable_red = true;
        }
        self.client.publish(NewTrack { announcement, rids: Vec::new() });
        self.sources.insert(cid.into(), source);
    }

    /// Sends a message on the reliable channel. False while it is not open or full.
    pub fn send_data(&mut self, packet: proto::DataPacket) -> bool {
        self.client.send_data(self.now(), DataChannel::Reliable, packet)
    }

    /// What came of the tracks of others, by "identity/track name".
    pub fn media(&self) -> BTreeMap<String, Track> {
        let known = self.others.values().flat_map(|other| {
            other.tracks.iter().map(move |track| {
                let name = match (track.name.as_str(), track.source()) {
                    ("", proto::TrackSource::Camera) => "camera",
                    ("", proto::TrackSource::Microphone) => "microphone",
                    (name, _) => name,
                };
                (track.sid.as_str(), format!("{}/{name}", other.identity))
            })
        });
        known.filter_map(|(sid, key)| Some((key, self.tracks.get(sid)?.clone()))).collect()
    }

    /// Counts from zero again.
    pub fn reset_media(&mut self) {
        self.tracks.values_mut().for_each(Track::reset);
    }

    /// Faults in what was received, in words.
    pub fn violations(&self) -> Vec<String> {
        self.checker.violations().iter().map(|violation| format!("{violation:?}")).collect()
    }

    /// Packets that never came, by the identity of who sent them, where there are any.
    pub fn missing(&self) -> BTreeMap<&str, u64> {
        let mut missing = BTreeMap::new();
        for section in self.client.received_tracks() {
            let sid = self.client.track_sid(section.mid);
            let sends = |other: &&proto::ParticipantInfo| {
                other.tracks.iter().any(|track| Some(track.sid.as_str()) == sid)
            };
            let sender = self.others.values().find(sends).map_or("", |other| &other.identity);
            let count = section.stream.ssrc.map_or(0, |ssrc| self.checker.missing(ssrc));
            if count > 0 {
                *missing.entry(sender).or_default() += count;
            }
        }
        missing
    }

    /// What happened since it joined.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Messages that came.
    pub fn data(&self) -> &[(DataChannel, proto::DataPacket)] {
        &self.data
    }

    /// Says goodbye.
    pub fn leave(&mut self) {
        self.client.leave();
    }

    /// Takes what comes and sends what is due, once.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn step(&mut self) -> Result<(), Failure> {
        self.flush().await?;
        let mut own = [0; DATAGRAM_BYTES];
        let mut subscriber = [0; DATAGRAM_BYTES];
        let due = self.due();
        tokio::select! {
            result = self.sockets[0].recv_from(&mut own) => {
                let (length, from) = result?;
                self.handle_datagram(0, from, own.get_mut(..length).unwrap_or_default());
            }
            result = self.sockets[1].recv_from(&mut subscriber) => {
                let (length, from) = result?;
                self.handle_datagram(1, from, subscriber.get_mut(..length).unwrap_or_default());
            }
            message = self.signals.next() => match message {
                Some(Ok(Message::Binary(frame))) => {
                    let now = self.now();
                    self.client.handle_signal(now, &frame)?;
                }
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
                None => return Err("the server has closed the signal socket".into()),
            },
            () = tokio::time::sleep_until(due.into()) => {}
        }
        let now = self.now();
        self.client.handle_timeout(now);
        self.handle_events();
        self.send_media(now);
        self.flush().await
    }

    fn now(&self) -> Now {
        let instant = Instant::now();
        Now { instant, unix: self.clock.1 + (instant - self.clock.0) }
    }

    fn due(&self) -> Instant {
        let sources = self.sources.iter().filter(|(cid, _)| self.live.contains(cid));
        let media = sources.map(|(_, source)| source.poll_timeout()).min();
        let idle = self.now().instant + IDLE;
        [self.client.poll_timeout(), media].into_iter().flatten().min().unwrap_or(idle)
    }

    fn send_media(&mut self, now: Now) {
        for (cid, source) in &mut self.sources {
            if self.live.contains(cid) {
                let client = &mut self.client;
                source.poll(now.instant, |packet| {
                    client.send_rtp(now, cid, None, packet);
                });
            }
        }
    }

    fn handle_datagram(&mut self, socket: usize, from: SocketAddr, datagram: &mut [u8]) {
        let now = self.now();
        let Some(&local) = self.addresses.get(socket) else { return };
        let Some(received) = self.client.handle_datagram(now, local, from, datagram) else {
            return;
        };
        self.checker.handle_packet(now.instant, received.packet.bytes());
        if !received.is_new {
            return;
        }
        let (mid, payload) = (received.mid, received.payload);
        let marker = received.packet.marker();
        let Some(sid) = self.client.track_sid(mid) else { return };
        let is_video = self
            .client
            .received_tracks()
            .iter()
            .find(|section| section.mid == mid)
            .is_some_and(is_video);
        if let Some(track) = self.tracks.get_mut(sid) {
            track.count(now.instant, is_video, payload, marker);
        }
    }

    fn handle_events(&mut self) {
        while let Some(event) = self.client.poll_event() {
            match event {
                ClientEvent::Connected => self.connected = true,
                ClientEvent::Joined(join) => self.learn(join.other_participants),
                ClientEvent::Participants(changed) => self.learn(changed),
                ClientEvent::Tracks(sids) => self.admit(&sids),
                ClientEvent::TrackPublished { cid, .. } => self.live.push(cid),
                ClientEvent::KeyframeRequested { cid, .. } => {
                    if let Some(source) = self.sources.get_mut(&cid) {
                        source.skip_to_keyframe();
                    }
                }
                ClientEvent::Data { channel, data } => {
                    if let Ok(packet) = prost::Message::decode(&data[..]) {
                        self.data.push((channel, packet));
                    }
                }
                ClientEvent::Failed(reason) => {
                    self.events.push(Event { event: "disconnected", reason });
                }
                ClientEvent::Left(leave) => {
                    let reason = leave.reason().as_str_name().to_owned();
                    self.events.push(Event { event: "disconnected", reason });
                }
                ClientEvent::ChannelOpen(_) | ClientEvent::Signal(_) => {}
            }
        }
    }

    fn learn(&mut self, changed: Vec<proto::ParticipantInfo>) {
        for other in changed {
            self.others.insert(other.identity.clone(), other);
        }
    }

    fn admit(&mut self, sids: &[String]) {
        let now = self.now().instant;
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
        self.tracks.retain(|sid, _| sids.contains(sid));
        for sid in sids {
            self.tracks.entry(sid.clone()).or_insert_with(|| Track::new(now));
        }
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        while let Some(message) = self.client.poll_signal() {
            self.signals.send(Message::binary(message)).await?;
        }
        let mut datagram = [0; DATAGRAM_BYTES];
        while let Some(transmit) = self.client.poll_transmit(&mut datagram) {
            let place = usize::from(transmit.path.local == self.addresses[1]);
            let bytes = datagram.get(..transmit.len).unwrap_or_default();
            let sent = self.sockets[place].send_to(bytes, transmit.path.remote).await;
            // Of several candidates some may lead nowhere.
            if let Err(error) = sent
                && error.kind() == io::ErrorKind::InvalidInput
            {
                return Err(error.into());
            }
        }
        Ok(())
    }
}
