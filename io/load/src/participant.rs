//! One participant: a client, its sockets, what it sends and what it wants to see.

use crate::{
    config::Layout,
    source::{Source, video_streams},
};
use livekit_protocol::{self as proto, signal_request::Message as Request};
use parlor_client::{Client, ClientConfig, Model, NewTrack};
use parlor_model::{Codec, Now, TrackKind};
use parlor_net::UdpSocket;
use parlor_transport::DtlsIdentity;
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};
use tokio::sync::mpsc::UnboundedSender;

/// How long one speaks before it is another's turn.
const TURN: Duration = Duration::from_secs(3);

/// A participant to come.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub token: String,
    pub model: Model,
    pub transport_feedback: bool,
    pub seed: [u8; 32],
    /// Where to bind.
    pub local_ip: IpAddr,
    pub audio: bool,
    /// Whether it sends as good as nothing while it does not speak.
    pub dtx: bool,
    /// Codec, number of layers, and whether they are sent at once.
    pub video: Option<(Codec, usize, bool)>,
    /// What to subscribe to; `None` for who only publishes.
    pub layout: Option<Layout>,
    /// Its place among those who speak in turn, and how many they are.
    pub speaker: Option<(usize, usize)>,
}

/// A microphone or a camera that was announced.
pub(crate) struct Track {
    pub cid: String,
    pub source: Source,
    /// Whether the server has taken it.
    pub is_live: bool,
}

/// Who is shown where.
struct View {
    places: Vec<(u32, u32)>,
    shown: Vec<String>,
    subscribed: BTreeSet<String>,
}

pub(crate) struct Participant {
    pub plan: Plan,
    pub client: Client,
    /// One, or two in the pair of connections.
    pub sockets: Vec<UdpSocket>,
    /// The way to the signal socket; `None` once it is to close.
    pub signals: Option<UnboundedSender<Vec<u8>>>,
    pub tracks: Vec<Track>,
    pub started: Instant,
    pub is_connected: bool,
    pub has_media: bool,
    pub is_leaving: bool,
    /// When its timer fires.
    pub scheduled: Option<Instant>,
    view: Option<View>,
}

impl Plan {
    /// Whether it only receives.
    pub fn is_subscriber(&self) -> bool {
        !self.audio && self.video.is_none()
    }
}

impl Participant {
    pub fn new(
        now: Now,
        plan: Plan,
        identity: DtlsIdentity,
        signals: UnboundedSender<Vec<u8>>,
    ) -> io::Result<Self> {
        let count = if plan.model == Model::Pair { 2 } else { 1 };
        let mut sockets = Vec::with_capacity(count);
        for _ in 0..count {
            let mut socket = UdpSocket::bind(SocketAddr::new(plan.local_ip, 0))?;
            // As other clients send: a server must not profit from how we do.
            socket.disable_segmentation();
            sockets.push(socket);
        }
        let address =
            |index: usize| sockets.get(index).or(sockets.first()).map(UdpSocket::local_address);
        let (Some(local_address), Some(subscriber_address)) = (address(0), address(1)) else {
            return Err(io::ErrorKind::AddrNotAvailable.into());
        };
        let places = plan.layout.and_then(Layout::places);
        let mut client = Client::new(
            now,
            ClientConfig {
                identity,
                seed: plan.seed,
                model: plan.model,
                auto_subscribe: plan.layout == Some(Layout::All),
                local_address,
                subscriber_address,
            },
        );
        if !plan.transport_feedback {
            client.refuse_transport_feedback();
        }
        let view =
            places.map(|places| View { places, shown: Vec::new(), subscribed: BTreeSet::new() });
        Ok(Self {
            plan,
            client,
            sockets,
            signals: Some(signals),
            tracks: Vec::new(),
            started: now.instant,
            is_connected: false,
            has_media: false,
            is_leaving: false,
            scheduled: None,
            view,
        })
    }

    /// Announces what the plan says.
    pub fn publish(&mut self, now: Now) {
        let [a, b, c, d, e, f, g, h, ..] = self.plan.seed;
        let seed = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        if self.plan.audio {
            let source = Source::audio(now.instant, seed, self.plan.dtx);
            self.announce("audio", TrackKind::Audio, None, source);
        }
        if let Some((codec, layers, simulcast)) = self.plan.video {
            let streams = video_streams(codec, layers, simulcast);
            let source = Source::video(codec, streams, now.instant, seed ^ 1);
            self.announce("video", TrackKind::Video, Some((codec, layers)), source);
        }
    }

    fn announce(
        &mut self,
        cid: &str,
        kind: TrackKind,
        video: Option<(Codec, usize)>,
        source: Source,
    ) {
        let mut announcement = proto::AddTrackRequest { cid: cid.to_owned(), ..Default::default() };
        match (kind, video) {
            (TrackKind::Video, Some((codec, layers))) => {
                describe_video(&mut announcement, codec, layers)
            }
            _ => {
                announcement.set_type(proto::TrackType::Audio);
                announcement.set_source(proto::TrackSource::Microphone);
                announcement.disable_red = true;
            }
        }
        self.client.publish(NewTrack { announcement, rids: source.rids() });
        self.tracks.push(Track { cid: cid.to_owned(), source, is_live: false });
    }

    /// Subscribes to what the layout has room for.
    pub fn show(&mut self, participants: &[proto::ParticipantInfo]) {
        let Some(view) = &mut self.view else { return };
        for participant in participants.iter().filter(|other| !other.tracks.is_empty()) {
            let place = match view.shown.iter().position(|shown| *shown == participant.identity) {
                Some(place) => place,
                None if view.shown.len() < view.places.len() => {
                    view.shown.push(participant.identity.clone());
                    view.shown.len() - 1
                }
                None => continue,
            };
            let Some(&(width, height)) = view.places.get(place) else { continue };
            for track in &participant.tracks {
                if !view.subscribed.insert(track.sid.clone()) {
                    continue;
                }
                self.client.subscribe(vec![track.sid.clone()], true);
                if track.r#type == i32::from(proto::TrackType::Video) {
                    self.client.request(Request::TrackSetting(proto::UpdateTrackSettings {
                        track_sids: vec![track.sid.clone()],
                        width,
                        height,
                        ..Default::default()
                    }));
                }
            }
        }
    }

    /// Sends the media that is due. `elapsed` is for all participants the same.
    pub fn send_media(&mut self, now: Now, elapsed: Duration) {
        let is_speaking = self.plan.speaker.is_none_or(|(place, count)| {
            (elapsed.as_secs() / TURN.as_secs()) as usize % count.max(1) == place
        });
        let client = &mut self.client;
        for track in self.tracks.iter_mut().filter(|track| track.is_live) {
            track.source.set_speaking(is_speaking);
            let cid = &track.cid;
            track.source.poll(now, |rid, packet| {
                client.send_rtp(now, cid, rid, packet);
            });
        }
    }

    /// When something is due: of the client or of its media.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let live = self.tracks.iter().filter(|track| track.is_live && self.is_connected);
        let media = live.map(|track| track.source.poll_timeout()).min();
        [self.client.poll_timeout(), media].into_iter().flatten().min()
    }
}

fn describe_video(announcement: &mut proto::AddTrackRequest, codec: Codec, layers: usize) {
    const SIZES: [(u32, u32); 3] = [(320, 180), (640, 360), (1280, 720)];
    announcement.set_type(proto::TrackType::Video);
    announcement.set_source(proto::TrackSource::Camera);
    let used = SIZES.get(..layers.clamp(1, 3)).unwrap_or(&SIZES);
    (announcement.width, announcement.height) = used.last().copied().unwrap_or_default();
    announcement.layers = (0..)
        .zip(used)
        .map(|(quality, &(width, height))| proto::VideoLayer {
            quality,
            width,
            height,
            ..Default::default()
        })
        .collect();
    announcement.simulcast_codecs = vec![proto::SimulcastCodec {
        codec: codec.encoding_name().to_ascii_lowercase(),
        cid: announcement.cid.clone(),
        ..Default::default()
    }];
}
