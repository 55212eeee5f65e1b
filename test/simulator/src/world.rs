//! Everything on one thread: the server, its guests, the network, and time.

use crate::{
    guest::{Datagram, Guest},
    trace::{Direction, Entry, Kind, Trace},
};
use livekit_protocol as proto;
use parlor_checker::Checker;
use parlor_client::{Client, ClientConfig, Model};
use parlor_model::{Codec, Now, Path, ShardId, TransportAddress};
use parlor_netem::{Link, LinkConfig, LinkCounters};
use parlor_node::{
    Node, NodeConfig,
    api::{ApiError, ApiRequest, ApiResponse},
    io::{CallId, Frame, Input, Output, SessionId},
};
use parlor_rtp::{PacketClass, classify};
use parlor_sfu::{SendBatch, Shard, ShardConfig, command::MediaEvent};
use parlor_signal::{ApiKeys, Claims, connect, token::VideoGrant};
use parlor_transport::DtlsIdentity;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::VecDeque,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

/// How long a signal message takes, either way.
const SIGNAL_DELAY: Duration = Duration::from_millis(5);
/// When a world begins, since the Unix epoch.
const UNIX_START: Duration = Duration::from_secs(1_800_000_000);
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 254)), 7882);
const SEND_BATCH_DATAGRAMS: usize = 64;

/// How a guest comes in.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// Who it is.
    pub identity: String,
    /// Which room.
    pub room: String,
    /// Connection model.
    pub model: Model,
    /// Whether it is subscribed to everything.
    pub auto_subscribe: bool,
    /// Its link to the server.
    pub up: LinkConfig,
    /// The server's link to it.
    pub down: LinkConfig,
}

impl Invitation {
    /// Into the room `world`, on perfect links of 10 ms.
    pub fn new(identity: &str, model: Model) -> Self {
        let link = LinkConfig { delay: Duration::from_millis(10), ..LinkConfig::default() };
        Self {
            identity: identity.to_owned(),
            room: "world".to_owned(),
            model,
            auto_subscribe: true,
            up: link.clone(),
            down: link,
        }
    }
}

/// A world under one seed. See the crate's page.
pub struct World {
    start: Instant,
    now: Now,
    rng: ChaCha8Rng,
    identity: DtlsIdentity,
    node: Node,
    shard: Shard,
    batch: SendBatch,
    guests: Vec<Guest>,
    trace: Trace,
    replies: VecDeque<(CallId, Result<ApiResponse, ApiError>)>,
    calls: u64,
    /// Events of media that the control plane saw.
    pub media_events: Vec<MediaEvent>,
}

impl World {
    /// An empty server. The certificate is shared by all, since making one is not what is tested.
    pub fn new(seed: u64, identity: &DtlsIdentity) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let identity = seeded(identity, rng.next_u64());
        let start = Instant::now();
        let node = Node::new(node_config(&identity), draw(&mut rng));
        let shard = Shard::new(ShardConfig {
            identity: identity.clone(),
            local_addresses: vec![TransportAddress::udp(SERVER)],
            seed: draw(&mut rng),
        });
        Self {
            start,
            now: Now { instant: start, unix: UNIX_START },
            rng,
            identity,
            node,
            shard,
            batch: SendBatch::new(SEND_BATCH_DATAGRAMS),
            guests: Vec::new(),
            trace: Trace::default(),
            replies: VecDeque::new(),
            calls: 0,
            media_events: Vec::new(),
        }
    }

    /// The present time.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Everything that passed so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The control plane.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The media thread.
    pub fn shard(&self) -> &Shard {
        &self.shard
    }

    /// A guest by its place.
    pub fn guest(&mut self, index: usize) -> &mut Guest {
        &mut self.guests[index]
    }

    /// Lets somebody in. Returns its place among the guests.
    pub fn invite(&mut self, invitation: Invitation) -> usize {
        let index = self.guests.len();
        let host = IpAddr::V4(Ipv4Addr::new(10, 1, (index >> 8) as u8, index as u8));
        let addresses = [5000, 5001].map(|port| SocketAddr::new(host, port));
        let config = ClientConfig {
            identity: self.identity.clone(),
            seed: draw(&mut self.rng),
            model: invitation.model,
            auto_subscribe: invitation.auto_subscribe,
            local_address: addresses[0],
            subscriber_address: addresses[1],
        };
        let mut client = Client::new(self.now, config);
        client.watch_rtcp();
        let session = SessionId(index as u64 + 1);
        let request = connect_request(&mut client, &invitation);
        self.guests.push(Guest {
            client,
            session,
            up: Link::new(invitation.up, self.rng.next_u64()),
            down: Link::new(invitation.down, self.rng.next_u64()),
            addresses: addresses.map(|address| (address, address)),
            signals_up: VecDeque::new(),
            signals_down: VecDeque::new(),
            sources: Vec::new(),
            checker: Checker::default(),
            is_closed: false,
            events: Vec::new(),
            data: Vec::new(),
            frames: Default::default(),
            participants: Default::default(),
        });
        self.node.handle(self.now, Input::Connect { session, request: Box::new(request) });
        self.settle();
        index
    }

    /// Takes a guest's signal socket away and lets it come back with another. Returns nothing of
    /// what was on its way on the old one.
    pub fn resume(&mut self, index: usize) {
        self.calls += 1;
        let session = SessionId((1 << 33) + self.calls);
        let guest = &mut self.guests[index];
        let old = std::mem::replace(&mut guest.session, session);
        guest.signals_up.clear();
        guest.signals_down.clear();
        let (sid, identity, room) = guest.joined_as();
        let states = guest.received_states();
        let (path, query) = guest.client.resume(self.now, &sid, states);
        let request = connect::HttpRequest {
            path: if path == "/rtc" {
                connect::ConnectPath::Rtc
            } else {
                connect::ConnectPath::RtcV1
            },
            validate: false,
            query: &query,
            user_agent: None,
            client_address: "10.1.0.1",
            limits: Default::default(),
        };
        let claims = join_claims(&identity, &room);
        let request = connect::parse(request, Some(&claims)).expect("the client's request is good");
        self.node.handle(self.now, Input::Closed { session: old });
        self.node.handle(self.now, Input::Connect { session, request: Box::new(request) });
        self.settle();
    }

    /// Opens a signal socket that never says anything, and never offers.
    pub fn connect_in_silence(&mut self, identity: &str, room: &str) -> SessionId {
        self.calls += 1;
        let session = SessionId((1 << 32) + self.calls);
        let claims = join_claims(identity, room);
        let query = [("protocol".to_owned(), "17".to_owned())];
        let request = connect::HttpRequest {
            path: connect::ConnectPath::Rtc,
            validate: false,
            query: &query,
            user_agent: None,
            client_address: "10.2.0.1",
            limits: Default::default(),
        };
        let request = connect::parse(request, Some(&claims)).expect("the request is good");
        self.node.handle(self.now, Input::Connect { session, request: Box::new(request) });
        self.settle();
        session
    }

    /// Brings a message of a guest's signal socket before the server, as it is.
    pub fn say(&mut self, guest: usize, frame: Frame) {
        let session = self.guests[guest].session;
        self.node.handle(self.now, Input::Frame { session, frame });
        self.settle();
    }

    /// Brings a datagram before the server that seems to come from this address.
    pub fn inject(&mut self, from: SocketAddr, mut datagram: Vec<u8>) {
        self.shard.handle_datagram(self.now.instant, Path::udp(SERVER, from), &mut datagram);
    }

    /// Where the server sees a guest's first socket.
    pub fn address(&self, guest: usize) -> SocketAddr {
        self.guests[guest].addresses[0].1
    }

    /// Changes a guest's links.
    pub fn set_links(&mut self, guest: usize, up: LinkConfig, down: LinkConfig) {
        self.guests[guest].up.set_config(up);
        self.guests[guest].down.set_config(down);
    }

    /// What became of the datagrams on the server's link to a guest.
    pub fn down_counters(&self, guest: usize) -> LinkCounters {
        self.guests[guest].down.counters()
    }

    /// Gives a guest's sockets new addresses, as a NAT does that has forgotten them.
    pub fn rebind(&mut self, guest: usize) {
        for (_, seen) in &mut self.guests[guest].addresses {
            seen.set_port(seen.port() + 1000);
        }
    }

    /// Calls the server API as an administrator of a room and returns the answer.
    pub fn call(&mut self, room: &str, request: ApiRequest) -> Result<ApiResponse, ApiError> {
        self.calls += 1;
        let call = CallId(self.calls);
        let grant = VideoGrant {
            room_create: true,
            room_list: true,
            room_admin: true,
            room: room.to_owned(),
            ..VideoGrant::default()
        };
        let claims = Claims { video: Some(grant), ..Claims::default() };
        self.node.handle(self.now, Input::Api { call, claims: Some(Box::new(claims)), request });
        self.settle();
        let index = self.replies.iter().position(|(answered, _)| *answered == call);
        self.replies.remove(index.expect("an API call is answered at once")).expect("found").1
    }

    /// Ends the server.
    pub fn shut_down(&mut self) {
        self.node.handle(self.now, Input::Shutdown);
        self.settle();
    }

    /// Lets this much time pass.
    pub fn run(&mut self, by: Duration) {
        let end = self.now.instant + by;
        loop {
            self.settle();
            match self.next_deadline() {
                Some(due) if due <= end => self.advance(due),
                _ => break,
            }
        }
        self.advance(end);
    }

    /// Lets time pass until a condition holds, at most `limit`. Returns whether it holds.
    pub fn run_until(
        &mut self,
        limit: Duration,
        mut holds: impl FnMut(&mut World) -> bool,
    ) -> bool {
        let end = self.now.instant + limit;
        loop {
            self.settle();
            if holds(self) {
                return true;
            }
            match self.next_deadline() {
                Some(due) if due <= end => self.advance(due),
                _ => return false,
            }
        }
    }

    fn advance(&mut self, to: Instant) {
        // A deadline that has passed is met now: time never goes back.
        let to = to.max(self.now.instant);
        self.now = Now { instant: to, unix: UNIX_START + (to - self.start) };
    }

    fn next_deadline(&self) -> Option<Instant> {
        let of_guest = |guest: &Guest| {
            let sources = guest.sources.iter().map(|source| source.poll_timeout()).min();
            let signals = [
                guest.signals_up.front().map(|(at, _)| *at),
                guest.signals_down.front().map(|(at, _)| *at),
            ];
            [
                guest.client.poll_timeout(),
                guest.up.poll_timeout(),
                guest.down.poll_timeout(),
                sources,
            ]
            .into_iter()
            .chain(signals)
            .flatten()
            .min()
        };
        let guests = self.guests.iter().filter_map(of_guest).min();
        [self.node.poll_timeout(), self.shard.poll_timeout(), guests].into_iter().flatten().min()
    }

    /// Does everything that can be done at the present time.
    fn settle(&mut self) {
        let instant = self.now.instant;
        if self.node.poll_timeout().is_some_and(|due| due <= instant) {
            self.node.handle_timeout(self.now);
        }
        if self.shard.poll_timeout().is_some_and(|due| due <= instant) {
            self.shard.handle_timeout(instant);
        }
        for index in 0..self.guests.len() {
            if self.guests[index].client.poll_timeout().is_some_and(|due| due <= instant) {
                self.guests[index].client.handle_timeout(self.now);
            }
            self.produce(index);
        }
        while self.carry() {}
    }

    /// Carries what lies ready one hop further. False when nothing did.
    fn carry(&mut self) -> bool {
        let mut moved = self.carry_server();
        for index in 0..self.guests.len() {
            moved |= self.carry_up(index);
            moved |= self.carry_down(index);
            moved |= self.drain_client(index);
        }
        moved
    }

    fn carry_server(&mut self) -> bool {
        let mut moved = false;
        while let Some(event) = self.shard.poll_event() {
            moved = true;
            self.media_events.push(event.clone());
            self.node.handle(self.now, Input::Media { shard: ShardId(0), event });
        }
        while let Some(output) = self.node.poll_output() {
            moved = true;
            self.handle_output(output);
        }
        loop {
            self.shard.flush(self.now.instant, &mut self.batch);
            if self.batch.is_empty() {
                return moved;
            }
            moved = true;
            for run in self.batch.runs() {
                let to = run.path.remote;
                let guest = self
                    .guests
                    .iter_mut()
                    .find(|guest| guest.addresses.iter().any(|(_, seen)| *seen == to));
                let Some(guest) = guest else { continue };
                for datagram in run.datagrams() {
                    let bytes = datagram.to_vec();
                    let len = bytes.len();
                    guest.down.send(
                        self.now.instant,
                        Datagram { from: run.path.local, to, bytes },
                        len,
                    );
                }
            }
            self.batch.clear();
        }
    }

    fn handle_output(&mut self, output: Output) {
        let arrival = self.now.instant + SIGNAL_DELAY;
        match output {
            Output::Accept { .. } | Output::Webhook(_) => {}
            Output::Frame { session, frame } => {
                let Frame::Binary(bytes) = frame else { return };
                if let Some(guest) = self.guests.iter_mut().find(|g| g.session == session) {
                    guest.signals_down.push_back((arrival, Some(bytes.to_vec())));
                }
            }
            Output::Close { session } | Output::Refuse { session, .. } => {
                if let Some(guest) = self.guests.iter_mut().find(|g| g.session == session) {
                    guest.signals_down.push_back((arrival, None));
                }
            }
            Output::Media { command, .. } => self.shard.handle_command(self.now.instant, command),
            Output::Reply { call, result } => self.replies.push_back((call, result)),
        }
    }

    fn carry_up(&mut self, index: usize) -> bool {
        let (now, guest) = (self.now, &mut self.guests[index]);
        let mut moved = false;
        while let Some(mut datagram) = guest.up.poll(now.instant) {
            moved = true;
            let path = Path::udp(datagram.to, datagram.from);
            self.shard.handle_datagram(now.instant, path, &mut datagram.bytes);
        }
        while guest.signals_up.front().is_some_and(|(at, _)| *at <= now.instant) {
            let Some((_, bytes)) = guest.signals_up.pop_front() else { break };
            moved = true;
            let frame = Frame::Binary(bytes.into());
            self.node.handle(now, Input::Frame { session: guest.session, frame });
        }
        moved
    }

    fn carry_down(&mut self, index: usize) -> bool {
        let mut moved = false;
        while let Some(datagram) = self.guests[index].down.poll(self.now.instant) {
            moved = true;
            self.receive(index, datagram);
        }
        while self.guests[index].signals_down.front().is_some_and(|(at, _)| *at <= self.now.instant)
        {
            let Some((_, frame)) = self.guests[index].signals_down.pop_front() else { break };
            moved = true;
            match frame {
                Some(bytes) => {
                    self.note(index, Direction::ToGuest, Kind::Signal, response_json(&bytes));
                    let handled = self.guests[index].client.handle_signal(self.now, &bytes);
                    handled.expect("the server's messages can be used");
                }
                None => self.guests[index].is_closed = true,
            }
        }
        moved
    }

    fn receive(&mut self, index: usize, mut datagram: Datagram) {
        let guest = &mut self.guests[index];
        // What was sent to an address that the NAT has forgotten is lost.
        let Some((own, _)) = guest.addresses.iter().find(|(_, seen)| *seen == datagram.to) else {
            return;
        };
        let is_media = classify(&datagram.bytes) == PacketClass::Rtp;
        let received =
            guest.client.handle_datagram(self.now, *own, datagram.from, &mut datagram.bytes);
        let Some(received) = received else { return };
        debug_assert!(is_media);
        let entry = Entry {
            at: self.now.instant - self.start,
            guest: index,
            direction: Direction::ToGuest,
            kind: Kind::Rtp,
            bytes: received.packet.bytes().to_vec(),
        };
        guest.checker.handle_packet(self.now.instant, received.packet.bytes());
        let sid = guest.client.track_sid(received.mid).unwrap_or_default().to_owned();
        let is_video = guest.is_video(&sid);
        guest.frames.entry(sid).or_default().handle(is_video, &received);
        self.trace.entries.push(entry);
    }

    fn drain_client(&mut self, index: usize) -> bool {
        let now = self.now;
        let mut moved = false;
        let mut notes = Vec::new();
        let guest = &mut self.guests[index];
        while let Some(event) = guest.client.poll_event() {
            moved = true;
            guest.handle_event(event);
        }
        while let Some(signal) = guest.client.poll_signal() {
            moved = true;
            notes.push((Direction::ToServer, Kind::Signal, request_json(&signal)));
            guest.signals_up.push_back((now.instant + SIGNAL_DELAY, signal));
        }
        while let Some((incoming, compound)) = guest.client.poll_rtcp() {
            let direction = if incoming { Direction::ToGuest } else { Direction::ToServer };
            notes.push((direction, Kind::Rtcp, compound));
        }
        let mut out = [0; 1600];
        while let Some(transmit) = guest.client.poll_transmit(&mut out) {
            moved = true;
            let seen = guest.addresses.iter().find(|(own, _)| *own == transmit.path.local);
            let Some(&(_, from)) = seen else { continue };
            let bytes = out[..transmit.len].to_vec();
            let datagram = Datagram { from, to: transmit.path.remote, bytes };
            guest.up.send(now.instant, datagram, transmit.len);
        }
        for (direction, kind, bytes) in notes {
            self.note(index, direction, kind, bytes);
        }
        moved
    }

    fn produce(&mut self, index: usize) {
        let now = self.now;
        let mut notes = Vec::new();
        let Guest { client, sources, .. } = &mut self.guests[index];
        for source in sources {
            for packet in source.poll(now.instant) {
                if client.send_rtp(now, &source.cid, packet.rid, &packet.as_rtp()) {
                    notes.push(packet.payload);
                }
            }
        }
        for payload in notes {
            self.note(index, Direction::ToServer, Kind::Rtp, payload);
        }
    }

    fn note(&mut self, guest: usize, direction: Direction, kind: Kind, bytes: Vec<u8>) {
        let at = self.now.instant - self.start;
        self.trace.entries.push(Entry { at, guest, direction, kind, bytes });
    }

    /// What the watchers of the streams that guests received have against them.
    pub fn violations(&self) -> Vec<String> {
        let of = |(index, guest): (usize, &Guest)| {
            let all =
                guest.checker.violations().iter().map(move |v| format!("guest {index}: {v:?}"));
            all.collect::<Vec<_>>()
        };
        self.guests.iter().enumerate().flat_map(of).collect()
    }
}

/// The same certificate, with handshakes whose timing comes from a seed.
fn seeded(identity: &DtlsIdentity, seed: u64) -> DtlsIdentity {
    let (certificate, key) = (identity.certificate_der(), identity.private_key_der());
    DtlsIdentity::from_der(certificate.to_vec(), key.to_vec(), Some(seed))
        .expect("it was a good certificate before")
}

fn draw(rng: &mut ChaCha8Rng) -> [u8; 32] {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    seed
}

fn node_config(identity: &DtlsIdentity) -> NodeConfig {
    NodeConfig {
        api_keys: [("devkey".to_owned(), "secret".to_owned())].into_iter().collect::<ApiKeys>(),
        region: String::new(),
        ice_servers: Vec::new(),
        room: Default::default(),
        codecs: vec![
            Codec::Pcmu,
            Codec::Pcma,
            Codec::Opus,
            Codec::Red,
            Codec::Vp8,
            Codec::H264,
            Codec::Vp9,
            Codec::Av1,
            Codec::H265,
        ],
        shards: vec![(ShardId(0), vec![TransportAddress::udp(SERVER)])],
        fingerprint: identity.fingerprint().clone(),
        ice_lite: true,
        enable_remote_unmute: false,
        room_rules: Default::default(),
        limits: Default::default(),
    }
}

fn connect_request(client: &mut Client, invitation: &Invitation) -> connect::ConnectRequest {
    let (path, query) = client.connect_url();
    let claims = join_claims(&invitation.identity, &invitation.room);
    let request = connect::HttpRequest {
        path: if path == "/rtc" { connect::ConnectPath::Rtc } else { connect::ConnectPath::RtcV1 },
        validate: false,
        query: &query,
        user_agent: None,
        client_address: "10.1.0.1",
        limits: Default::default(),
    };
    connect::parse(request, Some(&claims)).expect("the client's request is good")
}

fn join_claims(identity: &str, room: &str) -> Claims {
    let grant = VideoGrant { room_join: true, room: room.to_owned(), ..VideoGrant::default() };
    Claims {
        iss: "devkey".into(),
        sub: identity.to_owned(),
        exp: Some(UNIX_START.as_secs() + 3600),
        video: Some(grant),
        ..Claims::default()
    }
}

fn response_json(bytes: &[u8]) -> Vec<u8> {
    let message: Result<proto::SignalResponse, _> = prost::Message::decode(bytes);
    message
        .ok()
        .and_then(|m| serde_json::to_value(m).ok())
        .map_or(Vec::new(), |v| v.to_string().into())
}

fn request_json(bytes: &[u8]) -> Vec<u8> {
    let message: Result<proto::SignalRequest, _> = prost::Message::decode(bytes);
    message
        .ok()
        .and_then(|m| serde_json::to_value(m).ok())
        .map_or(Vec::new(), |v| v.to_string().into())
}
