//! A recording played against a [`Node`]: its clients speak, our node answers, and the media
//! threads are played by this world.

mod compare;
mod damage;

use compare::snake_case;
pub use compare::{PERIODIC, case, normalise};
pub use damage::Damage;

use base64::{Engine, prelude::BASE64_STANDARD};
use livekit_protocol as proto;
use parlor_model::{DataChannel, Fingerprint, Now, PeerId, ShardId, Ssrc, TransportAddress};
use parlor_node::{
    Node, NodeConfig,
    api::ApiRequest,
    io::{CallId, Frame, Input, Output, SessionId},
};
use parlor_sfu::command::{MediaCommand, MediaEvent};
use parlor_signal::{
    connect::{ConnectPath, ConnectRequest, HttpRequest, parse},
    token::{Claims, VideoGrant},
};
use prost::Message;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io::Read,
    time::{Duration, Instant},
};

const STEP: Duration = Duration::from_millis(100);

struct Line(Value);

impl Line {
    fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or("")
    }
}

fn fixture(name: &str) -> Vec<Line> {
    let path = format!("{}/tests/traces/{name}.jsonl.gz", env!("CARGO_MANIFEST_DIR"));
    let file = std::fs::File::open(path).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text.lines().map(|line| Line(serde_json::from_str(line).unwrap())).collect()
}

/// Sets what the join request of a fixture, another's, says otherwise than the recorded one did.
fn said_otherwise(request: &mut ConnectRequest, line: &Value) {
    let (Some(said), Some(settings)) = (line.get("capabilities"), line.get("settings")) else {
        return;
    };
    let info = json!({ "capabilities": said });
    let info: proto::ClientInfo = serde_json::from_value(info).unwrap();
    request.client_info.capabilities = info.capabilities;
    request.auto_subscribe = settings["auto_subscribe"] == true;
    request.adaptive_stream = settings["adaptive_stream"] == true;
    if let (Some(sdp), Some(offer)) =
        (line["publisher_offer"].as_str(), &mut request.publisher_offer)
    {
        offer.sdp = sdp.to_owned();
    }
}

#[derive(Default)]
pub struct Socket {
    pub session: Option<SessionId>,
    pub recorded: Vec<Value>,
    pub said: Vec<Value>,
    offer_ids: VecDeque<u64>,
    pub closed: bool,
}

pub struct World {
    pub node: Node,
    pub now: Now,
    pub sockets: BTreeMap<String, Socket>,
    /// Recorded id to ours.
    pub ids: BTreeMap<String, String>,
    connected: BTreeSet<PeerId>,
    peer_owner: BTreeMap<PeerId, String>,
    started: BTreeSet<(u64, String)>,
    /// The peer on which a client sends data.
    sending_peer: BTreeMap<String, PeerId>,
    pub data_received: BTreeMap<String, Vec<proto::DataPacket>>,
    pub data_recorded: BTreeMap<String, Vec<proto::DataPacket>>,
    pub data_tracks_received: BTreeMap<String, Vec<Vec<u8>>>,
    pub data_tracks_recorded: BTreeMap<String, Vec<Vec<u8>>>,
    current: String,
    /// Damages what clients say.
    pub damage: Option<Damage>,
    /// Passes over answers to offers that the recorded server made one more of.
    pub lenient: bool,
}

impl World {
    pub fn new() -> Self {
        let api_keys = [("devkey".to_owned(), "secret".to_owned())].into_iter().collect();
        let shards =
            vec![(ShardId(0), vec![TransportAddress::udp("10.77.0.1:7882".parse().unwrap())])];
        let fingerprint = Fingerprint { algorithm: "sha-256".into(), digest: vec![7; 32] };
        let stun = proto::IceServer {
            urls: vec![
                "stun:global.stun.twilio.com:3478".into(),
                "stun:stun.l.google.com:19302".into(),
                "stun:stun1.l.google.com:19302".into(),
            ],
            ..Default::default()
        };
        let config = NodeConfig {
            ice_servers: vec![stun.into()],
            ice_lite: true,
            ..NodeConfig::new(api_keys, shards, fingerprint)
        };
        Self {
            node: Node::new(config, [1; 32]),
            now: Now { instant: Instant::now(), unix: Duration::from_millis(1_795_244_963_883) },
            sockets: BTreeMap::new(),
            ids: BTreeMap::new(),
            connected: BTreeSet::new(),
            peer_owner: BTreeMap::new(),
            started: BTreeSet::new(),
            sending_peer: BTreeMap::new(),
            data_received: BTreeMap::new(),
            data_recorded: BTreeMap::new(),
            data_tracks_received: BTreeMap::new(),
            data_tracks_recorded: BTreeMap::new(),
            current: String::new(),
            damage: None,
            lenient: false,
        }
    }

    pub fn play(name: &str) -> Self {
        Self::new().played(name)
    }

    pub fn played(self, name: &str) -> Self {
        let mut world = self;
        let start = world.now.instant;
        for line in fixture(name) {
            let passed = match line.0["t"].as_u64() {
                // As it was recorded.
                Some(t) => (start + Duration::from_millis(t)).duration_since(world.now.instant),
                None => STEP,
            };
            world.pass(passed);
            world.step(&line);
        }
        world
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        while let Some(due) = self.node.poll_timeout().filter(|due| *due <= end) {
            let step = due.saturating_duration_since(self.now.instant);
            self.now.instant += step;
            self.now.unix += step;
            self.node.handle_timeout(self.now);
            self.drain();
        }
        self.now.unix += end - self.now.instant;
        self.now.instant = end;
    }

    fn step(&mut self, line: &Line) {
        match (line.text("kind"), line.text("dir")) {
            ("ws-request", _) => self.connect(line),
            ("http", _) => self.call(line),
            ("ws", "c2s") => self.request(line),
            ("ws", _) => {
                let socket = self.sockets.get_mut(line.text("conn")).unwrap();
                socket.recorded.push(line.0["msg"].clone());
            }
            ("dc", "c2s") => {
                let mut data = BASE64_STANDARD.decode(line.text("raw")).unwrap();
                let peer = self.sending_peer[line.text("client")];
                if let Some(damage) = &mut self.damage {
                    damage.bytes(&mut data);
                }
                let channel = DataChannel::from_label(line.text("label")).unwrap();
                self.media(MediaEvent::Data { peer, channel, data: data.into() });
            }
            ("dc", _) => {
                let data = BASE64_STANDARD.decode(line.text("raw")).unwrap();
                if line.text("label") == DataChannel::DataTrack.label() {
                    let client = line.text("client").to_owned();
                    return self.data_tracks_recorded.entry(client).or_default().push(data);
                }
                let packet = proto::DataPacket::decode(data.as_slice()).unwrap();
                let client = line.text("client").to_owned();
                self.data_recorded.entry(client).or_default().push(packet);
            }
            other => panic!("{other:?}"),
        }
    }

    /// A call of the server API, by whom it allows.
    fn call(&mut self, line: &Line) {
        for socket in self.sockets.keys().cloned().collect::<Vec<_>>() {
            self.learn_ids(&socket);
        }
        let mut body = line.0["body"].clone();
        self.translate(&mut body);
        let room = body["room"].as_str().unwrap().to_owned();
        let request = match line.text("method") {
            "MutePublishedTrack" => {
                ApiRequest::MutePublishedTrack(serde_json::from_value(body).unwrap())
            }
            "UpdateSubscriptions" => {
                ApiRequest::UpdateSubscriptions(serde_json::from_value(body).unwrap())
            }
            other => panic!("{other}"),
        };
        let grant = VideoGrant { room_admin: true, room, ..Default::default() };
        let claims = Some(Box::new(Claims { video: Some(grant), ..Default::default() }));
        self.node
            .handle(self.now, Input::Api { call: CallId(1), claims, request: Box::new(request) });
        self.drain();
    }

    fn connect(&mut self, line: &Line) {
        let name = line.text("conn").to_owned();
        let query: Vec<(String, String)> =
            serde_json::from_value::<BTreeMap<String, String>>(line.0["query"].clone())
                .unwrap()
                .into_iter()
                .collect();
        let claims = serde_json::from_value(line.0["claims"].clone()).unwrap();
        let path = match line.text("path") {
            "/rtc" => ConnectPath::Rtc,
            _ => ConnectPath::RtcV1,
        };
        let request = HttpRequest {
            path,
            validate: false,
            query: &query,
            user_agent: None,
            client_address: "10.0.0.1",
            limits: Default::default(),
        };
        let mut request = Box::new(parse(request, Some(&claims)).unwrap());
        said_otherwise(&mut request, &line.0);
        for before in self.sockets.keys().cloned().collect::<Vec<_>>() {
            self.learn_ids(&before);
        }
        if let Some(ours) = self.ids.get(&request.participant_sid) {
            request.participant_sid = ours.clone();
        }
        let session = SessionId(self.sockets.len() as u64 + 1);
        self.current = name.split('#').next().unwrap().to_owned();
        self.sockets.insert(name, Socket { session: Some(session), ..Socket::default() });
        self.node.handle(self.now, Input::Connect { session, request });
        self.drain();
    }

    fn request(&mut self, line: &Line) {
        let name = line.text("conn");
        for socket in self.sockets.keys().cloned().collect::<Vec<_>>() {
            self.learn_ids(&socket);
        }
        let mut message = line.0["msg"].clone();
        self.translate(&mut message);
        if line.text("case") == "answer" {
            let socket = self.sockets.get_mut(name).unwrap();
            let ours = socket.offer_ids.pop_front();
            if self.lenient && ours.is_none() {
                return;
            }
            assert!(self.damage.is_some() || ours.is_some(), "an answer to nothing");
            message["answer"]["id"] = json!(ours.unwrap_or(0));
        }
        let mut request: proto::SignalRequest = serde_json::from_value(message).unwrap();
        use proto::signal_request::Message as Request;
        if let Some(damage) = &mut self.damage
            && let Some(Request::Offer(sdp) | Request::Answer(sdp)) = &mut request.message
        {
            sdp.sdp = damage.text(&sdp.sdp);
        }
        let mut bytes = request.encode_to_vec();
        if let Some(damage) = &mut self.damage
            && damage.below(5) == 0
        {
            damage.bytes(&mut bytes);
        }
        let session = self.sockets[name].session.unwrap();
        self.current = name.split('#').next().unwrap().to_owned();
        let frame = Frame::Binary(bytes.into());
        self.node.handle(self.now, Input::Frame { session, frame });
        self.drain();
    }

    /// Pairs recorded ids of participants and tracks with ours, by identity and cid.
    pub fn learn_ids(&mut self, name: &str) {
        let socket = &self.sockets[name];
        let find = |messages: &[Value]| {
            let mut found = BTreeMap::new();
            for message in messages {
                if let Some(track) = message.get("track_published") {
                    found.insert(track["cid"].to_string(), track["track"]["sid"].clone());
                }
                if let Some(published) = message.get("publish_data_track_response") {
                    let info = &published["info"];
                    found.insert(info["name"].to_string(), info["sid"].clone());
                }
                if let Some(join) = message.get("join") {
                    let mut all = vec![join["participant"].clone()];
                    all.extend(join["other_participants"].as_array().cloned().unwrap_or_default());
                    for participant in all {
                        found.insert(
                            participant["identity"].to_string(),
                            participant["sid"].clone(),
                        );
                    }
                    found.insert("room".into(), join["room"]["sid"].clone());
                }
            }
            found
        };
        let ours = find(&socket.said);
        for (key, theirs) in find(&socket.recorded) {
            if let Some(ours) = ours.get(&key) {
                let (theirs, ours) = (theirs.as_str().unwrap(), ours.as_str().unwrap());
                self.ids.insert(theirs.to_owned(), ours.to_owned());
            }
        }
    }

    pub fn translate(&self, value: &mut Value) {
        match value {
            Value::String(text) => {
                if let Some(ours) = self.ids.get(text.as_str()) {
                    *text = ours.clone();
                }
            }
            Value::Array(values) => values.iter_mut().for_each(|value| self.translate(value)),
            Value::Object(fields) => fields.values_mut().for_each(|value| self.translate(value)),
            _ => {}
        }
    }

    fn media(&mut self, event: MediaEvent) {
        self.node.handle(self.now, Input::Media { shard: ShardId(0), event });
        self.drain();
    }

    pub fn drain(&mut self) {
        let mut events = Vec::new();
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Frame { session, frame } => self.said(session, frame),
                Output::Close { session } => self.socket(session).closed = true,
                Output::Refuse { body, .. } => panic!("refused: {body}"),
                Output::Accept { .. }
                | Output::Reply { .. }
                | Output::Webhook(_)
                | Output::Keep(_)
                | Output::Forget { .. } => {}
                Output::Media { command, .. } => self.command(command, &mut events),
            }
        }
        for event in events {
            self.media(event);
        }
    }

    fn socket(&mut self, session: SessionId) -> &mut Socket {
        let found = self.sockets.values_mut().find(|socket| socket.session == Some(session));
        found.unwrap()
    }

    fn said(&mut self, session: SessionId, frame: Frame) {
        let Frame::Binary(bytes) = frame else { panic!("text to a binary client") };
        let response = proto::SignalResponse::decode(bytes).unwrap();
        // Damage makes enum values that JSON cannot name.
        let message = snake_case(serde_json::to_value(&response).unwrap_or_default());
        let socket = self.socket(session);
        assert!(!socket.closed, "nothing is said on a closed socket");
        if let Some(offer) = message.get("offer") {
            socket.offer_ids.push_back(offer["id"].as_u64().unwrap());
        }
        socket.said.push(message);
    }

    fn command(&mut self, command: MediaCommand, events: &mut Vec<MediaEvent>) {
        match command {
            MediaCommand::OpenPeer { peer, local } => {
                self.peer_owner.insert(peer, self.current.clone());
                if !local.opens_channels {
                    self.sending_peer.insert(self.current.clone(), peer);
                }
            }
            MediaCommand::SetRemote { peer, .. } if self.connected.insert(peer) => {
                events.push(MediaEvent::PeerConnected { peer });
                for channel in [DataChannel::Lossy, DataChannel::Reliable, DataChannel::DataTrack] {
                    events.push(MediaEvent::ChannelOpen { peer, channel });
                }
            }
            MediaCommand::SetMedia { media, .. } => {
                for section in &media.receive {
                    for stream in &section.streams {
                        let rid = stream.rid.map(|rid| rid.to_string()).unwrap_or_default();
                        if self.started.insert((section.track.0, rid)) {
                            events.push(MediaEvent::StreamStarted {
                                track: section.track,
                                rid: stream.rid,
                                ssrc: stream.ssrc.unwrap_or(Ssrc(self.started.len() as u32)),
                                layer: stream.layer,
                            });
                        }
                    }
                }
            }
            MediaCommand::SendData { channel: DataChannel::DataTrack, data, peers, .. } => {
                for peer in peers {
                    let client = self.peer_owner[&peer].clone();
                    self.data_tracks_received.entry(client).or_default().push(data.to_vec());
                }
            }
            MediaCommand::SendData { data, peers, .. } => {
                let packet = proto::DataPacket::decode(data).unwrap();
                for peer in peers {
                    let client = self.peer_owner[&peer].clone();
                    self.data_received.entry(client).or_default().push(packet.clone());
                }
            }
            _ => {}
        }
    }
}
