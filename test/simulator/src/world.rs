//! Everything on one thread: the server, its guests, the network, and time.

use crate::{
    bottleneck::{Bottleneck, Tcp},
    clock::Clock,
    guest::Guest,
    trace::Trace,
};
use parlor_checker::Checker;
use parlor_client::{Client, ClientConfig, Model};
use parlor_model::{Now, Path, ShardId, TransportAddress};
use parlor_netem::{Link, LinkConfig, LinkCounters};
use parlor_node::{
    Node, NodeConfig, RoomRules,
    api::{ApiError, ApiRequest, ApiResponse},
    io::{CallId, Frame, Input, SessionId},
};
use parlor_sfu::{SendBatch, Shard, ShardConfig, command::MediaEvent};
use parlor_signal::{ApiKeys, Claims, connect, token::VideoGrant};
use parlor_transport::DtlsIdentity;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{BTreeMap, VecDeque},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

/// When a world begins, since the Unix epoch.
const UNIX_START: Duration = Duration::from_secs(1_800_000_000);
const SEND_BATCH_DATAGRAMS: usize = 64;
/// As media threads gather.
const GATHERING: Duration = Duration::from_millis(5);
/// Where the sockets of guests begin.
const GUEST_PORT: u16 = 5000;

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
    /// Microseconds that its clock gains in each second.
    pub drift_ppm: i32,
    /// Whether what it is sent passes the link that guests share ([`World::share_link`]) first.
    pub shares_link: bool,
    /// Whether it knows transport-wide feedback.
    pub gives_transport_feedback: bool,
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
            drift_ppm: 0,
            shares_link: false,
            gives_transport_feedback: true,
        }
    }
}

/// A world under one seed. See the crate's page.
pub struct World {
    pub(crate) start: Instant,
    pub(crate) now: Now,
    rng: ChaCha8Rng,
    identity: DtlsIdentity,
    pub(crate) node: Node,
    pub(crate) shards: Vec<Shard>,
    pub(crate) batch: SendBatch,
    pub(crate) guests: Vec<Guest>,
    pub(crate) bottleneck: Option<Bottleneck>,
    invitations: Vec<Invitation>,
    pub(crate) trace: Trace,
    pub(crate) replies: VecDeque<(CallId, Result<ApiResponse, ApiError>)>,
    calls: u64,
    keeps_media_events: bool,
    /// SSRCs that a guest may not be sent any more, with how many black pictures may end each.
    pub(crate) forbidden: BTreeMap<(usize, u32), u8>,
    /// What was against the rules, but for what the checkers of today's sessions hold.
    pub(crate) faults: Vec<String>,
    /// Events of media that the control plane saw.
    pub media_events: Vec<MediaEvent>,
}

impl World {
    /// An empty server with one media thread. The certificate is shared by all, since making one
    /// is not what is tested.
    pub fn new(seed: u64, identity: &DtlsIdentity) -> Self {
        Self::with_shards(seed, identity, 1)
    }

    /// An empty server with this many media threads.
    pub fn with_shards(seed: u64, identity: &DtlsIdentity, shards: u16) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let identity = seeded(identity, rng.next_u64());
        let start = Instant::now();
        let (node, shards) = server(&identity, shards, &mut rng);
        Self {
            start,
            now: Now { instant: start, unix: UNIX_START },
            rng,
            identity,
            node,
            shards,
            batch: SendBatch::new(SEND_BATCH_DATAGRAMS),
            guests: Vec::new(),
            bottleneck: None,
            invitations: Vec::new(),
            trace: Trace::default(),
            replies: VecDeque::new(),
            calls: 0,
            keeps_media_events: true,
            forbidden: BTreeMap::new(),
            faults: Vec::new(),
            media_events: Vec::new(),
        }
    }

    /// Keeps nothing of what passes but its hash, for long runs.
    pub fn keep_hash_only(&mut self) {
        self.trace.forget_entries();
        self.keeps_media_events = false;
    }

    /// `rtc.datachannel_slow_threshold` of the server, in bits a second.
    pub fn set_slow_reader_threshold(&mut self, bps: u64) {
        for shard in &mut self.shards {
            shard.set_slow_reader_threshold(bps);
        }
    }

    /// The present time.
    pub fn now(&self) -> Now {
        self.now
    }

    /// Time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.now.instant - self.start
    }

    /// Everything that passed so far.
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// The control plane.
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The first media thread.
    pub fn shard(&self) -> &Shard {
        &self.shards[0]
    }

    /// All media threads.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// A guest by its place.
    pub fn guest(&mut self, index: usize) -> &mut Guest {
        let guest = &mut self.guests[index];
        guest.is_stirred = true;
        guest
    }

    /// Lets somebody in. Returns its place among the guests.
    pub fn invite(&mut self, invitation: Invitation) -> usize {
        let index = self.guests.len();
        let clock = Clock::new(self.start, invitation.drift_ppm);
        let client = self.client(index, 0, clock, &invitation);
        let links = [invitation.up.clone(), invitation.down.clone()]
            .map(|config| Link::new(config, self.rng.next_u64()));
        let mut guest = Guest::new(client, clock, links, addresses(index, 0));
        guest.is_behind_bottleneck = invitation.shares_link;
        self.guests.push(guest);
        self.invitations.push(invitation);
        self.connect(index);
        index
    }

    fn client(&mut self, index: usize, generation: u16, clock: Clock, by: &Invitation) -> Client {
        let [local_address, subscriber_address] = addresses(index, generation);
        let config = ClientConfig {
            identity: self.identity.clone(),
            seed: draw(&mut self.rng),
            model: by.model,
            auto_subscribe: by.auto_subscribe,
            local_address,
            subscriber_address,
        };
        let now = Now { instant: clock.local(self.now.instant), unix: self.now.unix };
        let mut client = Client::new(now, config);
        client.watch_rtcp();
        if !by.gives_transport_feedback {
            client.refuse_transport_feedback();
        }
        client
    }

    fn connect(&mut self, index: usize) {
        self.calls += 1;
        let session = SessionId(self.calls);
        let invitation = &self.invitations[index];
        let guest = &mut self.guests[index];
        guest.session = session;
        let (path, query) = guest.client.connect_url();
        let request = connect_request(path, &query, &invitation.identity, &invitation.room);
        self.node.handle(self.now, Input::Connect { session, request });
        self.guest(index);
        self.settle();
    }

    /// A guest's client is no more: without a word, and its signal socket with it where
    /// `closes_socket`.
    pub fn crash(&mut self, index: usize, closes_socket: bool) {
        let guest = &mut self.guests[index];
        guest.is_dead = true;
        guest.signals_up.clear();
        guest.signals_down.clear();
        let session = guest.session;
        if closes_socket {
            self.node.handle(self.now, Input::Closed { session });
        }
        self.settle();
    }

    /// A guest says goodbye and ends its connections.
    pub fn leave(&mut self, index: usize) {
        self.guest(index).client().leave();
        self.settle();
        self.guests[index].is_dead = true;
        self.guests[index].sources.clear();
    }

    /// A guest begins anew, with a new client and sockets of its own.
    pub fn rejoin(&mut self, index: usize) {
        self.note_violations(index);
        let invitation = self.invitations[index].clone();
        let generation = self.guests[index].generation + 1;
        let clock = self.guests[index].clock;
        let client = self.client(index, generation, clock, &invitation);
        let guest = &mut self.guests[index];
        let old = guest.session;
        guest.addresses = addresses(index, generation).map(|address| (address, address));
        (guest.client, guest.generation) = (client, generation);
        (guest.is_dead, guest.is_closed) = (false, false);
        guest.checker = Checker::default();
        guest.signals_up.clear();
        guest.signals_down.clear();
        guest.sources.clear();
        guest.published.clear();
        guest.participants.clear();
        guest.events.clear();
        guest.frames.clear();
        guest.data.clear();
        self.forbidden.retain(|(guest, _), _| *guest != index);
        self.node.handle(self.now, Input::Closed { session: old });
        self.connect(index);
    }

    /// The server ends without a word and another begins in its place, knowing nothing.
    pub fn restart_server(&mut self) {
        let shards = self.shards.len() as u16;
        (self.node, self.shards) = server(&self.identity, shards, &mut self.rng);
        self.replies.clear();
        self.forbidden.clear();
        for guest in &mut self.guests {
            guest.signals_up.clear();
            guest.signals_down.clear();
            guest.signals_down.push_back((self.now.instant, None));
            guest.is_stirred = true;
        }
        self.settle();
    }

    /// Takes a guest's signal socket away and lets it come back with another. Returns nothing of
    /// what was on its way on the old one. False when there is nothing to resume.
    pub fn resume(&mut self, index: usize) -> bool {
        self.calls += 1;
        let session = SessionId((1 << 33) + self.calls);
        let guest = &mut self.guests[index];
        let now = guest.now(self.now);
        let Some((sid, identity, room)) = guest.joined_as() else { return false };
        let old = std::mem::replace(&mut guest.session, session);
        guest.is_closed = false;
        guest.signals_up.clear();
        guest.signals_down.clear();
        let states = guest.received_states();
        let (path, query) = guest.client.resume(now, &sid, states);
        let request = connect_request(path, &query, &identity, &room);
        self.node.handle(self.now, Input::Closed { session: old });
        self.node.handle(self.now, Input::Connect { session, request });
        self.guest(index);
        self.settle();
        true
    }

    /// Opens a signal socket that never says anything, and never offers.
    pub fn connect_in_silence(&mut self, identity: &str, room: &str) -> SessionId {
        self.calls += 1;
        let session = SessionId((1 << 32) + self.calls);
        let query = [("protocol".to_owned(), "17".to_owned())];
        let request = connect_request("/rtc", &query, identity, room);
        self.node.handle(self.now, Input::Connect { session, request });
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
        let to = server_address(0);
        self.shards[0].handle_datagram(self.now.instant, Path::udp(to, from), &mut datagram);
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

    /// Makes or changes the link that guests share.
    pub fn share_link(&mut self, config: LinkConfig) {
        match &mut self.bottleneck {
            Some(shared) => shared.set_config(config),
            None => {
                let seed = self.rng.next_u64();
                self.bottleneck = Some(Bottleneck::new(self.now.instant, config, seed));
            }
        }
    }

    /// How long what comes to the link that guests share would wait now.
    pub fn backlog(&self) -> Duration {
        self.bottleneck.as_ref().map_or(Duration::ZERO, |shared| shared.backlog(self.now.instant))
    }

    /// Lets a TCP flow share the link with guests after a while: with so many bytes to send, or
    /// without end.
    pub fn add_tcp(&mut self, round_trip: Duration, after: Duration, bytes: Option<u64>) {
        let starts = self.now.instant + after;
        let segments = bytes.map(|bytes| bytes.div_ceil(1500));
        if let Some(shared) = &mut self.bottleneck {
            shared.tcp.push(Tcp::new(round_trip, starts, segments));
        }
    }

    /// Cuts a guest's signal socket off, so that what is said waits, or lets it go on.
    pub fn set_cut(&mut self, guest: usize, is_cut: bool) {
        self.guest(guest).is_cut = is_cut;
    }

    /// What became of the datagrams on the server's link to a guest.
    pub fn down_counters(&self, guest: usize) -> LinkCounters {
        self.guests[guest].down.counters()
    }

    /// Gives a guest's sockets new addresses, as a NAT does that has forgotten them.
    pub fn rebind(&mut self, guest: usize) {
        for (_, seen) in &mut self.guests[guest].addresses {
            // Far from where its sockets are, and never twice the same.
            seen.set_port(seen.port().wrapping_add(1000).max(GUEST_PORT));
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
            destination_room: match &request {
                ApiRequest::ForwardParticipant(request) => request.destination_room.clone(),
                ApiRequest::MoveParticipant(request) => request.destination_room.clone(),
                _ => String::new(),
            },
            ..VideoGrant::default()
        };
        let claims = Claims { video: Some(grant), ..Claims::default() };
        self.node.handle(
            self.now,
            Input::Api { call, claims: Some(Box::new(claims)), request: Box::new(request) },
        );
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

    pub(crate) fn note_media_event(&mut self, event: &MediaEvent) {
        if self.keeps_media_events {
            self.media_events.push(event.clone());
        }
    }

    /// What the watchers of the streams that guests received have against them, and what else was
    /// against the rules.
    pub fn violations(&self) -> Vec<String> {
        let mut all = self.faults.clone();
        for (index, guest) in self.guests.iter().enumerate() {
            all.extend(violations(index, guest));
        }
        all
    }

    fn note_violations(&mut self, index: usize) {
        self.faults.extend(violations(index, &self.guests[index]));
    }
}

fn violations(index: usize, guest: &Guest) -> impl Iterator<Item = String> {
    let of_descriptors = guest.descriptor_faults().into_iter();
    let of_packets = guest.checker.violations().iter().map(|v| {
        let parlor_checker::Violation { ssrc, number, fault, .. } = v;
        format!("{fault} (ssrc {}, number {number})", ssrc.0)
    });
    of_packets.chain(of_descriptors).map(move |fault| format!("guest {index}: {fault}"))
}

/// Two sockets of a guest's session.
fn addresses(index: usize, generation: u16) -> [SocketAddr; 2] {
    let host = IpAddr::V4(Ipv4Addr::new(10, 1, (index >> 8) as u8, index as u8));
    let port = GUEST_PORT + generation % 400 * 2;
    [port, port + 1].map(|port| SocketAddr::new(host, port))
}

/// The place of the guest whose sockets have addresses of this host.
pub(crate) fn guest_of(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(ip) => match ip.octets() {
            [10, 1, high, low] => Some(usize::from(high) << 8 | usize::from(low)),
            _ => None,
        },
        IpAddr::V6(_) => None,
    }
}

pub(crate) fn server_address(shard: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 254)), 7882 + shard)
}

/// The media thread behind an address of the server.
pub(crate) fn shard_of(address: SocketAddr) -> usize {
    usize::from(address.port().wrapping_sub(7882))
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

fn server(identity: &DtlsIdentity, shards: u16, rng: &mut ChaCha8Rng) -> (Node, Vec<Shard>) {
    let node = Node::new(node_config(identity, shards), draw(rng));
    let shard = |shard| {
        let mut shard = Shard::new(ShardConfig {
            id: ShardId(u32::from(shard)),
            identity: identity.clone(),
            local_addresses: vec![TransportAddress::udp(server_address(shard))],
            seed: draw(rng),
        });
        shard.set_gathering(GATHERING);
        shard
    };
    (node, (0..shards).map(shard).collect())
}

fn node_config(identity: &DtlsIdentity, shards: u16) -> NodeConfig {
    let api_keys = [("devkey".to_owned(), "secret".to_owned())].into_iter().collect::<ApiKeys>();
    let addresses = |id| vec![TransportAddress::udp(server_address(id))];
    let shards = (0..shards).map(|id| (ShardId(u32::from(id)), addresses(id))).collect();
    let fingerprint = identity.fingerprint().clone();
    // Wherever there are several media threads, every room spans them.
    let room_rules = RoomRules { members_per_shard: 1, ..RoomRules::default() };
    NodeConfig { ice_lite: true, room_rules, ..NodeConfig::new(api_keys, shards, fingerprint) }
}

fn connect_request(
    path: &str,
    query: &[(String, String)],
    identity: &str,
    room: &str,
) -> Box<parlor_signal::ConnectRequest> {
    let request = connect::HttpRequest {
        path: if path == "/rtc" { connect::ConnectPath::Rtc } else { connect::ConnectPath::RtcV1 },
        validate: false,
        query,
        user_agent: None,
        client_address: "10.1.0.1",
        limits: Default::default(),
    };
    let claims = join_claims(identity, room);
    Box::new(connect::parse(request, Some(&claims)).expect("the client's request is good"))
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
