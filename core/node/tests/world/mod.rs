//! A [`Node`] with hand-made clients, for tests.
#![allow(dead_code, unreachable_pub, missing_docs)]

use livekit_protocol as proto;
use parlor_model::{Codec, Fingerprint, Now, PeerId, ShardId, TransportAddress};
use parlor_node::{
    Node, NodeConfig,
    api::{ApiError, ApiRequest, ApiResponse},
    io::{CallId, Frame, Input, Kept, Output, SessionId},
};
use parlor_sfu::command::{MediaCommand, MediaEvent};
use parlor_signal::{Claims, ConnectPath, ConnectRequest, ConnectionModel, token::VideoGrant};
use prost::Message as _;
use proto::{signal_request::Message as Request, signal_response::Message};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

pub struct Options {
    pub pair: bool,
    pub offer: Option<proto::SessionDescription>,
    pub reconnect: bool,
    /// The session to resume.
    pub sid: String,
    pub sync_state: Option<proto::SyncState>,
    pub max_participants: u32,
    pub grant: VideoGrant,
    /// Protobuf JSON of a `RoomConfiguration`.
    pub room_config: serde_json::Value,
    pub room_preset: String,
    pub client_info: proto::ClientInfo,
    /// Of the token, and of the join.
    pub attributes: [BTreeMap<String, String>; 2],
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pair: false,
            offer: Some(offer(1)),
            reconnect: false,
            sid: String::new(),
            sync_state: None,
            max_participants: 0,
            grant: VideoGrant { room_join: true, ..Default::default() },
            room_config: serde_json::Value::Null,
            room_preset: String::new(),
            client_info: proto::ClientInfo { protocol: 17, ..Default::default() },
            attributes: Default::default(),
        }
    }
}

#[derive(Default)]
struct Socket {
    identity: String,
    said: Vec<Message>,
    closed: bool,
    refused: Option<(u16, String)>,
}

pub struct World {
    pub node: Node,
    pub now: Now,
    /// What media threads were told.
    pub commands: Vec<MediaCommand>,
    /// What clients were told in text.
    pub texts: Vec<String>,
    /// Everything that came out.
    pub log: Vec<String>,
    pub replies: Vec<Result<ApiResponse, ApiError>>,
    pub webhooks: Vec<proto::WebhookEvent>,
    /// What would be on the disk.
    pub kept: BTreeMap<(String, String), Kept>,
    starts: u8,
    sockets: BTreeMap<SessionId, Socket>,
    /// What agent workers were told and not asked for yet.
    workers: BTreeMap<SessionId, Vec<proto::server_message::Message>>,
    peers: BTreeMap<String, PeerId>,
    joining: String,
}

impl World {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// A world whose server is configured otherwise.
    pub fn with(change: impl FnOnce(&mut NodeConfig)) -> Self {
        Self::seeded(3, change)
    }

    fn seeded(seed: u8, change: impl FnOnce(&mut NodeConfig)) -> Self {
        let api_keys = [("devkey".to_owned(), "secret".to_owned())].into_iter().collect();
        let shards =
            vec![(ShardId(0), vec![TransportAddress::udp("192.0.2.1:7882".parse().unwrap())])];
        let fingerprint = Fingerprint { algorithm: "sha-256".into(), digest: vec![7; 32] };
        let mut config = NodeConfig {
            codecs: vec![Codec::Opus, Codec::Red, Codec::Vp8, Codec::H264],
            ice_lite: true,
            ..NodeConfig::new(api_keys, shards, fingerprint)
        };
        change(&mut config);
        Self {
            node: Node::new(config, [seed; 32]),
            now: Now { instant: Instant::now(), unix: Duration::from_secs(1_800_000_000) },
            commands: Vec::new(),
            texts: Vec::new(),
            log: Vec::new(),
            replies: Vec::new(),
            webhooks: Vec::new(),
            kept: BTreeMap::new(),
            starts: 0,
            sockets: BTreeMap::new(),
            workers: BTreeMap::new(),
            peers: BTreeMap::new(),
            joining: String::new(),
        }
    }

    /// Lets a client ask to come in. It offers at once unless the options say otherwise.
    pub fn join(&mut self, room: &str, identity: &str, options: Options) -> SessionId {
        let (session, request) = self.wish(room, identity, options);
        self.handle(Input::Connect { session, request });
        session
    }

    /// Lets a client ask whether it would be let in.
    pub fn validate(
        &mut self,
        room: &str,
        identity: &str,
        options: Options,
    ) -> Option<(u16, String)> {
        let (session, request) = self.wish(room, identity, options);
        self.handle(Input::Validate { session, request });
        self.sockets.remove(&session).unwrap().refused
    }

    fn wish(
        &mut self,
        room: &str,
        identity: &str,
        options: Options,
    ) -> (SessionId, Box<ConnectRequest>) {
        let session = SessionId(self.sockets.len() as u64 + 1);
        let grant = VideoGrant { room: room.into(), ..options.grant };
        let [token_attributes, attributes] = options.attributes;
        let claims = Claims {
            attributes: token_attributes,
            iss: "devkey".into(),
            sub: identity.into(),
            exp: Some(1_900_000_000),
            video: Some(grant),
            room_config: Some(match options.room_config {
                serde_json::Value::Null => {
                    serde_json::json!({ "maxParticipants": options.max_participants })
                }
                chosen => chosen,
            }),
            room_preset: options.room_preset,
            ..Default::default()
        };
        let request = ConnectRequest {
            claims,
            path: if options.pair { ConnectPath::Rtc } else { ConnectPath::RtcV1 },
            connection: match options.pair {
                true => ConnectionModel::Pair,
                false => ConnectionModel::Single,
            },
            protocol: options.client_info.protocol,
            client_info: options.client_info,
            client_address: "198.51.100.1".into(),
            trace: String::new(),
            auto_subscribe: true,
            auto_subscribe_data_track: false,
            adaptive_stream: false,
            subscriber_allow_pause: None,
            disable_ice_lite: false,
            reconnect: options.reconnect,
            participant_sid: options.sid,
            reconnect_reason: proto::ReconnectReason::RrUnknown,
            metadata: String::new(),
            attributes,
            publisher_offer: options.offer.filter(|_| !options.pair),
            add_track_requests: Vec::new(),
            sync_state: options.sync_state,
        };
        let socket = Socket { identity: identity.into(), ..Socket::default() };
        self.sockets.insert(session, socket);
        self.joining = identity.into();
        (session, Box::new(request))
    }

    /// A client with one connection, whose media is up.
    pub fn join_active(&mut self, room: &str, identity: &str) -> SessionId {
        let session = self.join(room, identity, Options::default());
        let peer = self.peer_of(identity);
        self.media(MediaEvent::PeerConnected { peer });
        session
    }

    /// The same server after it was killed: another node with what was kept.
    pub fn restarted(self) -> Self {
        let seed = 4 + self.starts;
        let world = World::seeded(seed, |_| {});
        let mut world =
            World { now: self.now, kept: self.kept.clone(), starts: self.starts + 1, ..world };
        let of_kind = |kind: &'static str| {
            let objects = self.kept.values().filter(move |object| object.kind == kind);
            objects.cloned().collect::<Vec<_>>()
        };
        let objects = parlor_node::kept_kinds().flat_map(of_kind).collect();
        world.handle(Input::Restore(objects));
        world
    }

    /// An agent worker that has connected.
    pub fn worker(&mut self) -> SessionId {
        let session = SessionId(1_000 + self.workers.len() as u64);
        self.workers.insert(session, Vec::new());
        self.sockets.insert(session, Socket::default());
        self.handle(Input::Worker { session, api_key: "devkey".into() });
        session
    }

    pub fn worker_says(&mut self, session: SessionId, message: proto::worker_message::Message) {
        let message = proto::WorkerMessage { message: Some(message) };
        let frame = Frame::Binary(message.encode_to_vec().into());
        self.handle(Input::Frame { session, frame });
    }

    /// What a worker was told since it was asked last.
    pub fn worker_heard(&mut self, session: SessionId) -> Vec<proto::server_message::Message> {
        std::mem::take(self.workers.get_mut(&session).unwrap())
    }

    /// A client whose session goes on with a new socket.
    pub fn resume(&mut self, room: &str, identity: &str, options: Options) -> SessionId {
        self.join(room, identity, Options { reconnect: true, offer: None, ..options })
    }

    pub fn handle(&mut self, input: Input) {
        self.node.handle(self.now, input);
        self.drain();
    }

    pub fn request(&mut self, session: SessionId, message: Request) {
        let request = proto::SignalRequest { message: Some(message) };
        let frame = Frame::Binary(request.encode_to_vec().into());
        self.joining = self.sockets[&session].identity.clone();
        self.handle(Input::Frame { session, frame });
    }

    pub fn media(&mut self, event: MediaEvent) {
        self.handle(Input::Media { shard: ShardId(0), event });
    }

    pub fn call(
        &mut self,
        grant: Option<VideoGrant>,
        request: ApiRequest,
    ) -> Result<ApiResponse, ApiError> {
        let claims =
            grant.map(|grant| Box::new(Claims { video: Some(grant), ..Default::default() }));
        self.handle(Input::Api { call: CallId(1), claims, request: Box::new(request) });
        self.replies.pop().unwrap()
    }

    /// Lets time pass, from deadline to deadline.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now.instant + duration;
        while let Some(due) = self.node.poll_timeout().filter(|due| *due <= end) {
            let due = due.max(self.now.instant);
            self.now.unix += due - self.now.instant;
            self.now.instant = due;
            self.node.handle_timeout(self.now);
            self.drain();
        }
        self.now.unix += end - self.now.instant;
        self.now.instant = end;
    }

    pub fn said(&self, session: SessionId) -> &[Message] {
        &self.sockets[&session].said
    }

    pub fn is_closed(&self, session: SessionId) -> bool {
        self.sockets[&session].closed
    }

    pub fn refused(&self, session: SessionId) -> Option<(u16, &str)> {
        let refused = self.sockets[&session].refused.as_ref();
        refused.map(|(status, body)| (*status, body.as_str()))
    }

    /// The first peer connection of the latest session of an identity.
    pub fn peer_of(&self, identity: &str) -> PeerId {
        self.peers[identity]
    }

    pub fn sid_of(&self, session: SessionId) -> String {
        let Message::Join(join) = &self.said(session)[0] else { panic!("not joined") };
        join.participant.clone().unwrap().sid
    }

    pub fn offer_id(&self, session: SessionId) -> Option<u32> {
        self.said(session).iter().rev().find_map(|message| match message {
            Message::Offer(offer) => Some(offer.id),
            _ => None,
        })
    }

    fn drain(&mut self) {
        while let Some(output) = self.node.poll_output() {
            self.log.push(format!("{output:?}"));
            match output {
                Output::Accept { .. } => {}
                Output::Keep(object) => {
                    let key = (object.kind.clone(), object.id.clone());
                    self.kept.insert(key, object);
                }
                Output::Forget { kind, id } => {
                    self.kept.remove(&(kind.to_owned(), id));
                }
                Output::Webhook(event) => self.webhooks.push(*event),
                Output::Refuse { session, status, body } => {
                    self.socket(session).refused = Some((status, body));
                }
                Output::Frame { session, frame: Frame::Binary(bytes) }
                    if self.workers.contains_key(&session) =>
                {
                    let message = proto::ServerMessage::decode(bytes).unwrap();
                    self.workers.get_mut(&session).unwrap().extend(message.message);
                }
                Output::Frame { session, frame: Frame::Binary(bytes) } => {
                    let response = proto::SignalResponse::decode(bytes).unwrap();
                    assert!(!self.socket(session).closed);
                    self.socket(session).said.extend(response.message);
                }
                Output::Frame { frame: Frame::Text(text), .. } => self.texts.push(text),
                Output::Close { session } => self.socket(session).closed = true,
                Output::Media { shard, command } => {
                    for home in homes_of(&command) {
                        assert_eq!(home, shard, "{command:?}");
                    }
                    if let MediaCommand::OpenPeer { peer, .. } = &command {
                        self.peers.insert(self.joining.clone(), *peer);
                    }
                    self.commands.push(command);
                }
                Output::Reply { result, .. } => self.replies.push(*result),
            }
        }
    }

    fn socket(&mut self, session: SessionId) -> &mut Socket {
        self.sockets.get_mut(&session).unwrap()
    }
}

/// The media threads of what a command is for.
fn homes_of(command: &MediaCommand) -> Vec<ShardId> {
    match command {
        MediaCommand::OpenPeer { peer, .. }
        | MediaCommand::SetRemote { peer, .. }
        | MediaCommand::RestartIce { peer, .. }
        | MediaCommand::AddRemoteCandidate { peer, .. }
        | MediaCommand::ClosePeer { peer }
        | MediaCommand::LimitPeer { peer, .. } => vec![peer.home()],
        MediaCommand::SetMedia { peer, media } => {
            let received = media.receive.iter().map(|section| section.track.home());
            received.chain([peer.home()]).collect()
        }
        MediaCommand::SetTrackMuted { track, .. } => vec![track.home()],
        MediaCommand::SetFrameTrailer { track, .. } => vec![track.home()],
        MediaCommand::SendData { peers, .. } => peers.iter().map(|peer| peer.home()).collect(),
        MediaCommand::SetSubscription { .. } | MediaCommand::StopSubscription { .. } => Vec::new(),
    }
}

/// The offer of a client that can receive two sounds and a video, and publishes nothing.
pub fn offer(id: u32) -> proto::SessionDescription {
    offer_with(id, &[])
}

/// The same from a client that publishes sounds under these ids.
pub fn offer_with(id: u32, cids: &[&str]) -> proto::SessionDescription {
    let mut sections = vec![
        section("audio", 0, "recvonly", ""),
        section("audio", 1, "recvonly", ""),
        section("video", 2, "recvonly", ""),
    ];
    sections.push(
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\nc=IN IP4 0.0.0.0\r\na=mid:3\r\n\
         a=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\na=setup:actpass\r\n\
         a=sctp-port:5000\r\na=max-message-size:262144\r\n"
            .to_owned(),
    );
    let published = ["mic"].iter().enumerate();
    for (index, cid) in published {
        let mid = 4 + index;
        let direction = if cids.contains(cid) { "sendonly" } else { "inactive" };
        let msid = if cids.contains(cid) { format!("a=msid:- {cid}\r\n") } else { String::new() };
        sections.push(section("audio", mid, direction, &msid));
    }
    describe(id, &sections)
}

/// The offer of a client that receives one track in the codecs of `receives` and publishes others,
/// in VP8 or H264, under these ids.
pub fn offer_of_videos(id: u32, receives: &str, cids: &[&str]) -> proto::SessionDescription {
    let mut sections = vec![section(receives, 0, "recvonly", "")];
    for (index, cid) in cids.iter().enumerate() {
        let msid = format!("a=msid:- {cid}\r\n");
        sections.push(section("video VP8 H264", 1 + index, "sendonly", &msid));
    }
    describe(id, &sections)
}

fn describe(id: u32, sections: &[String]) -> proto::SessionDescription {
    let mids: Vec<String> = (0..sections.len()).map(|mid| mid.to_string()).collect();
    let fingerprint = ["AB"; 32].join(":");
    let sdp = format!(
        "v=0\r\no=- 1 {id} IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {}\r\n\
         a=fingerprint:sha-256 {fingerprint}\r\n{}",
        mids.join(" "),
        sections.concat()
    );
    proto::SessionDescription { r#type: "offer".into(), sdp, id, ..Default::default() }
}

fn section(formats: &str, mid: usize, direction: &str, more: &str) -> String {
    const OPUS: &str = "a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;useinbandfec=1\r\n";
    const RED: &str = "a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n";
    const VP8: &str = "a=rtpmap:96 VP8/90000\r\na=rtcp-fb:96 nack\r\na=rtcp-fb:96 nack pli\r\n\
        a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n";
    const H264: &str = "a=rtpmap:102 H264/90000\r\na=rtcp-fb:102 nack\r\n\
        a=fmtp:102 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f\r\n";
    let (kind, numbers, maps) = match formats {
        "audio" => ("audio", "111 63", [OPUS, RED].concat()),
        "audio opus" => ("audio", "111", OPUS.to_owned()),
        "video H264" => ("video", "102", H264.to_owned()),
        "video VP8 H264" => ("video", "96 97 102", [VP8, H264].concat()),
        _ => ("video", "96 97", VP8.to_owned()),
    };
    format!(
        "m={kind} 9 UDP/TLS/RTP/SAVPF {numbers}\r\nc=IN IP4 0.0.0.0\r\na=mid:{mid}\r\n\
         a={direction}\r\na=ice-ufrag:abcd\r\na=ice-pwd:abcdefghijklmnopqrstuvwx\r\n\
         a=setup:actpass\r\na=rtcp-mux\r\n{maps}{more}"
    )
}
