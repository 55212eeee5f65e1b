//! The control plane alone: clients that exchange signal messages with a node, and no media.

use std::time::{Duration, Instant};

use livekit_protocol::{SignalRequest, UpdateParticipantMetadata, signal_request};
use parlor_client::{Client, ClientConfig, Model};
use parlor_model::{Now, ShardId, TransportAddress};
use parlor_node::{
    Node, NodeConfig,
    io::{Frame, Input, Output, SessionId},
};
use parlor_signal::{Claims, connect, token::VideoGrant};
use parlor_transport::DtlsIdentity;
use prost::Message;

const UNIX: Duration = Duration::from_secs(1_800_000_000);

/// A node and the time that it took.
pub struct ControlRoom {
    start: Instant,
    now: Now,
    identity: DtlsIdentity,
    node: Node,
    sessions: u64,
}

impl Default for ControlRoom {
    fn default() -> Self {
        Self::new()
    }
}

impl ControlRoom {
    /// A node without rooms.
    pub fn new() -> Self {
        let identity = DtlsIdentity::generate().unwrap();
        let api_keys = [("devkey".to_owned(), "secret".to_owned())].into_iter().collect();
        let shards =
            vec![(ShardId(0), vec![TransportAddress::udp("127.0.0.1:7882".parse().unwrap())])];
        let fingerprint = identity.fingerprint().clone();
        let config =
            NodeConfig { ice_lite: true, ..NodeConfig::new(api_keys, shards, fingerprint) };
        let start = Instant::now();
        let now = Now { instant: start, unix: UNIX };
        Self { start, now, identity, node: Node::new(config, [3; 32]), sessions: 0 }
    }

    /// Lets somebody into a room, up to the answer to its offer and the news to the others.
    /// Returns the time that the node took; the client is forgotten.
    pub fn join(&mut self, room: usize) -> Duration {
        self.now.instant += Duration::from_millis(10);
        self.now.unix = UNIX + (self.now.instant - self.start);
        self.sessions += 1;
        let session = SessionId(self.sessions);
        let mut client = Client::new(
            self.now,
            ClientConfig {
                identity: self.identity.clone(),
                seed: [self.sessions as u8; 32],
                model: Model::Single,
                auto_subscribe: true,
                local_address: "10.0.0.1:5000".parse().unwrap(),
                subscriber_address: "10.0.0.1:5001".parse().unwrap(),
            },
        );
        let request = request(&mut client, room, self.sessions);
        let mut spent = self.handle(None);
        let mut next = Some(Input::Connect { session, request: Box::new(request) });
        while let Some(input) = next.take() {
            let start = Instant::now();
            self.node.handle(self.now, input);
            spent += start.elapsed();
            spent += self.handle(Some((&mut client, session)));
            while client.poll_event().is_some() {}
            next = client
                .poll_signal()
                .map(|signal| Input::Frame { session, frame: Frame::Binary(signal.into()) });
        }
        spent
    }

    /// Whoever joined last changes its metadata. Returns the time that the node took, and how many
    /// were told.
    pub fn update(&mut self) -> (Duration, usize) {
        self.pass(Duration::from_millis(1));
        let update = UpdateParticipantMetadata {
            metadata: format!("at {:?}", self.now.instant - self.start),
            ..Default::default()
        };
        let message = Some(signal_request::Message::UpdateMetadata(update));
        let frame = Frame::Binary(SignalRequest { message }.encode_to_vec().into());
        let start = Instant::now();
        self.node.handle(self.now, Input::Frame { session: SessionId(self.sessions), frame });
        let mut told = 0;
        while let Some(output) = self.node.poll_output() {
            told += usize::from(matches!(output, Output::Frame { .. }));
        }
        (start.elapsed(), told)
    }

    /// The connection of whoever joined last is gone, and so is all that waits to be resumed.
    pub fn leave(&mut self) {
        let session = SessionId(self.sessions);
        self.node.handle(self.now, Input::Closed { session });
        self.pass(Duration::from_secs(60));
    }

    /// Time passes and what is due is done.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now.instant + time;
        while self.now.instant < end {
            let due = self.node.poll_timeout().unwrap_or(end);
            self.now.instant = due.clamp(self.now.instant, end);
            self.now.unix = UNIX + (self.now.instant - self.start);
            self.handle(None);
        }
    }

    /// Does what is due and takes what comes out, of which one client hears its part.
    fn handle(&mut self, mut to: Option<(&mut Client, SessionId)>) -> Duration {
        let mut spent = Duration::ZERO;
        let start = Instant::now();
        if self.node.poll_timeout().is_some_and(|due| due <= self.now.instant) {
            self.node.handle_timeout(self.now);
        }
        spent += start.elapsed();
        loop {
            let start = Instant::now();
            let output = self.node.poll_output();
            spent += start.elapsed();
            let Some(output) = output else { return spent };
            if let (Output::Frame { session, frame: Frame::Binary(bytes) }, Some((client, own))) =
                (output, &mut to)
                && session == *own
            {
                client.handle_signal(self.now, &bytes).unwrap();
            }
        }
    }
}

fn request(client: &mut Client, room: usize, identity: u64) -> connect::ConnectRequest {
    let (path, query) = client.connect_url();
    let grant = VideoGrant {
        room_join: true,
        room: format!("room{room}"),
        can_update_own_metadata: Some(true),
        ..Default::default()
    };
    let claims = Claims {
        iss: "devkey".into(),
        sub: format!("participant{identity}"),
        exp: Some(UNIX.as_secs() + 3600),
        video: Some(grant),
        ..Claims::default()
    };
    let request = connect::HttpRequest {
        path: if path == "/rtc" { connect::ConnectPath::Rtc } else { connect::ConnectPath::RtcV1 },
        validate: false,
        query: &query,
        user_agent: None,
        client_address: "10.0.0.1",
        limits: Default::default(),
    };
    connect::parse(request, Some(&claims)).unwrap()
}
