//! The whole control plane of one server.

use crate::{
    NodeConfig,
    host::Host,
    io::{Frame, Input, Now, Output, SessionId},
    media::Started,
    outside::{Address, Counters, Outside},
    resume::Resumed,
};
use livekit_protocol as proto;
use parlor_model::{DataChannel, DisconnectReason, Identity, PeerId, RoomName, ShardId, TrackKind};
use parlor_room::{Command, RoomSettings};
use parlor_sfu::command::MediaEvent;
use parlor_signal::{ConnectRequest, client::Client, data, frame, request, response};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Instant,
};

/// How much a node holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct Counts {
    pub rooms: usize,
    pub participants: usize,
    pub sessions: usize,
    pub peers: usize,
    pub tracks: usize,
    pub subscriptions: usize,
    /// Published tracks of participants here, audio and video.
    pub published: [usize; 2],
    /// Of `subscriptions`, audio and video.
    pub subscribed: [usize; 2],
    pub agents: parlor_agents::AgentCounts,
}

/// One value per server: rooms, sessions and negotiation. See the crate's page.
pub struct Node {
    pub(crate) outside: Outside,
    pub(crate) hosts: BTreeMap<RoomName, Host>,
    deadlines: BTreeSet<(Instant, RoomName)>,
    pub(crate) shutting_down: bool,
    /// Sockets of agent workers.
    pub(crate) workers: BTreeMap<SessionId, crate::agents::WorkerLink>,
    pub(crate) catalog: parlor_catalog::Catalog,
    /// Dispatches that outlive the process.
    pub(crate) kept_dispatches: BTreeSet<String>,
    /// Whose tokens are barred that were issued before when (Unix seconds), oldest first.
    pub(crate) revoked: VecDeque<((RoomName, Identity), u64)>,
    /// Who is seen in further rooms.
    pub(crate) forwards: Vec<crate::forward::Forward>,
    /// Rooms in which something has changed since likenesses last followed.
    pub(crate) touched: BTreeSet<RoomName>,
    /// What media took when it was told last.
    pub(crate) bytes_per_second: u64,
}

impl Node {
    /// A node without rooms. The seed decides every id, secret and SSRC.
    pub fn new(config: NodeConfig, seed: [u8; 32]) -> Self {
        Self {
            outside: Outside::new(config, seed),
            hosts: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            shutting_down: false,
            workers: BTreeMap::new(),
            catalog: Default::default(),
            kept_dispatches: BTreeSet::new(),
            revoked: VecDeque::new(),
            forwards: Vec::new(),
            touched: BTreeSet::new(),
            bytes_per_second: 0,
        }
    }

    /// How much it holds.
    pub fn counts(&self) -> Counts {
        let hosts = || self.hosts.values();
        let (mut published, mut subscribed) = ([0; 2], [0; 2]);
        for host in hosts() {
            for kind in host.published_kinds() {
                count(&mut published, kind);
            }
            for kind in host.subscribed_kinds() {
                count(&mut subscribed, kind);
            }
        }
        Counts {
            rooms: self.hosts.len(),
            participants: hosts().map(|host| host.members.len()).sum(),
            sessions: self.outside.sessions.len(),
            peers: self.outside.peers.len(),
            tracks: self.outside.tracks.len(),
            agents: self.outside.agents.counts(),
            published,
            subscribed,
            subscriptions: hosts()
                .flat_map(|host| host.members.values())
                .map(|member| member.subscriptions.len())
                .sum(),
        }
    }

    /// What was refused or dropped since the start.
    pub fn counters(&self) -> Counters {
        self.outside.counters
    }

    /// What has happened since the start.
    pub fn statistics(&self) -> &crate::Statistics {
        &self.outside.statistics
    }

    /// Takes something that happened outside.
    pub fn handle(&mut self, now: Now, input: Input) {
        if !self.takes_worker_input(now, &input) {
            self.handle_other(now, input);
        }
        self.settle_agents(now);
        self.settle_forwards(now);
    }

    fn handle_other(&mut self, now: Now, input: Input) {
        match input {
            Input::Worker { session, api_key } => self.worker_connected(now, session, api_key),
            Input::Connect { session, request } => self.connect(now, session, *request),
            Input::Validate { session, request } => self.validate(session, &request),
            Input::Frame { session, frame } => self.handle_frame(now, session, &frame),
            Input::Closed { session } => {
                let Some(address) = self.outside.sessions.remove(&session) else { return };
                self.with_host(now, &address.room, |host, _| {
                    host.session_gone(now, &address.participant);
                });
            }
            Input::Api { call, claims, request } => {
                if let Some(result) = self.handle_call(now, call, claims.as_deref(), *request) {
                    self.settle_agents(now);
                    self.outside.outputs.push_back(Output::Reply { call, result: result.into() });
                }
            }
            Input::Media { shard: _, event } => self.handle_media(now, event),
            Input::Restore(objects) => self.restore(now, objects),
            Input::Shutdown => self.shut_down(now),
        }
    }

    /// The next thing that must happen outside.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outside.outputs.pop_front()
    }

    /// When [`Node::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let rooms = self.deadlines.first().map(|(due, _)| *due);
        rooms.into_iter().chain(self.outside.agents.poll_timeout()).min()
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((due, _)) = self.deadlines.first()
            && *due <= now.instant
            && let Some((_, room)) = self.deadlines.pop_first()
        {
            if let Some(host) = self.hosts.get_mut(&room) {
                host.scheduled = None;
            }
            self.with_host(now, &room, |host, outside| host.handle_timeout(outside, now));
        }
        self.outside.agents.handle_timeout(now);
        self.settle_agents(now);
        self.settle_forwards(now);
    }

    /// Does something in a room, with everything that follows.
    pub(crate) fn with_host(
        &mut self,
        now: Now,
        room: &RoomName,
        act: impl FnOnce(&mut Host, &mut Outside),
    ) {
        let Some(host) = self.hosts.get_mut(room) else { return };
        act(host, &mut self.outside);
        host.settle(&mut self.outside, now);
        self.reschedule(room);
    }

    /// Files a room under its next deadline, or lets it go when it has ended.
    pub(crate) fn reschedule(&mut self, room: &RoomName) {
        if !self.forwards.is_empty() {
            self.touched.insert(room.clone());
        }
        let Some(host) = self.hosts.get_mut(room) else { return };
        let due = if host.room.is_closed() { None } else { host.poll_timeout() };
        if host.scheduled != due {
            if let Some(before) = host.scheduled {
                self.deadlines.remove(&(before, room.clone()));
            }
            if let Some(due) = due {
                self.deadlines.insert((due, room.clone()));
            }
            host.scheduled = due;
        }
        if host.room.is_closed()
            && let Some(host) = self.hosts.remove(room)
        {
            self.outside.load.remove(host.shard);
            if host.is_kept {
                self.forget_room(room);
            }
        }
    }

    /// Creates the room of this name if there is none. Whether there was none.
    pub(crate) fn ensure_room(
        &mut self,
        now: Now,
        name: &RoomName,
        settings: RoomSettings,
    ) -> bool {
        let shard = self.least_loaded_shard();
        self.ensure_room_on(now, name, settings, shard)
    }

    /// The same; a new one is placed on this media thread.
    pub(crate) fn ensure_room_on(
        &mut self,
        now: Now,
        name: &RoomName,
        settings: RoomSettings,
        shard: ShardId,
    ) -> bool {
        if self.hosts.contains_key(name) {
            return false;
        }
        let host = Host::new(&mut self.outside, now, name.clone(), settings, shard);
        self.outside.load.add(shard);
        self.hosts.insert(name.clone(), host);
        self.outside.agents.handle_room_created(now, name.clone());
        true
    }

    /// The media thread with the fewest rooms and participants.
    pub(crate) fn least_loaded_shard(&self) -> ShardId {
        let shards = self.outside.config.shards.iter().map(|(shard, _)| *shard);
        shards.min_by_key(|shard| self.outside.load.on(*shard)).unwrap_or(ShardId(0))
    }

    /// The media thread of the next who joins a room: the room's, until that has its share of it.
    fn shard_in(&self, room: &RoomName) -> ShardId {
        let share = self.outside.config.room_rules.members_per_shard;
        match self.hosts.get(room) {
            Some(host) if host.members.load.on(host.shard) < share => host.shard,
            _ => self.least_loaded_shard(),
        }
    }

    fn connect(&mut self, now: Now, session: SessionId, request: ConnectRequest) {
        let name = RoomName::from(request.room());
        if request.reconnect && !self.is_revoked(name.as_str(), &request.claims) {
            return self.resume(now, session, &name, &request);
        }
        if let Err((status, body)) = self.admit(&request) {
            self.outside.statistics.signal_validation_failed += 1;
            return self.outside.outputs.push_back(Output::Refuse { session, status, body });
        }
        if self.shutting_down {
            return self.refuse(session, "server is shutting down");
        }
        if !self.ensure_room_of(now, &request) {
            tracing::info!(room = %name, preset = request.claims.room_preset, "unknown preset");
            return self.refuse(session, "connection closed by media");
        }
        let shard = self.shard_in(&name);
        let mut refusal = None;
        self.with_host(now, &name, |host, outside| {
            refusal = host.join(outside, now, session, request, shard).err();
        });
        match refusal {
            None => {
                self.outside.statistics.signal_connected += 1;
                self.outside.statistics.rtc_init += 1;
            }
            Some(refusal) => {
                tracing::info!(room = %name, %refusal, "join refused");
                self.refuse(session, "connection closed by media");
            }
        }
    }

    fn resume(&mut self, now: Now, session: SessionId, name: &RoomName, request: &ConnectRequest) {
        let mut resumed = Resumed::Unknown;
        self.with_host(now, name, |host, outside| {
            resumed = host.resume(outside, now, session, request);
        });
        match resumed {
            Resumed::Yes => self.outside.statistics.signal_connected += 1,
            Resumed::Refused => self.refuse(session, "connection closed by media"),
            Resumed::Unknown => {
                self.outside.outputs.push_back(Output::Accept { session });
                let client = Client::from(&request.client_info);
                // The parameters of a resume may leave the version out; then it is a new one.
                let leave = response::leave(DisconnectReason::StateMismatch);
                let leave = if client.protocol == 0 { Some(leave) } else { client.adapt(leave) };
                if let Some(leave) = leave {
                    self.outside.send_once(session, leave);
                }
                self.outside.close(session);
            }
        }
    }

    fn refuse(&mut self, session: SessionId, body: &str) {
        let body = body.to_owned();
        self.outside.statistics.signal_failed += 1;
        self.outside.outputs.push_back(Output::Refuse { session, status: 500, body });
    }

    fn handle_frame(&mut self, now: Now, session: SessionId, frame: &Frame) {
        let Some(address) = self.outside.sessions.get(&session).cloned() else { return };
        let decoded = match frame {
            Frame::Binary(bytes) => frame::decode_binary(bytes),
            Frame::Text(text) => frame::decode_text(text),
        };
        let is_text = matches!(frame, Frame::Text(_));
        let Address { room, participant } = &address;
        self.with_host(now, room, |host, outside| {
            let Some(member) = host.members.get_mut(participant) else { return };
            member.last_signal = now.instant;
            member.text |= is_text;
            match decoded {
                Ok(None) => {}
                Ok(Some(message)) => {
                    use proto::signal_request::Message as Request;
                    member.pings |= matches!(message, Request::Ping(_) | Request::PingReq(_));
                    let request = request::name(&message);
                    tracing::debug!(%room, %participant, request, "request");
                    host.handle_request(outside, now, participant, message);
                }
                Err(error) => {
                    outside.counters.malformed_frames += 1;
                    tracing::warn!(%room, %participant, %error, "socket closed");
                    host.close_session(outside, now, participant);
                }
            }
        });
    }

    fn handle_media(&mut self, now: Now, event: MediaEvent) {
        let of_peer = |node: &Self, peer: PeerId| node.outside.peers.get(&peer).cloned();
        match event {
            MediaEvent::PeerConnected { peer } => {
                let Some(Address { room, participant }) = of_peer(self, peer) else { return };
                self.with_host(now, &room, |host, outside| {
                    host.peer_connected(outside, now, &participant, peer);
                });
            }
            // It may come back by itself until it has failed.
            MediaEvent::PeerDisconnected { .. } | MediaEvent::SubscriptionStarted { .. } => {}
            MediaEvent::PeerFailed { peer, reason } => {
                let Some(Address { room, participant }) = of_peer(self, peer) else { return };
                self.with_host(now, &room, |host, outside| {
                    host.peer_failed(outside, now, &participant, peer, reason);
                });
            }
            MediaEvent::ChannelOpen { peer, channel } => {
                let Some(Address { room, participant }) = of_peer(self, peer) else { return };
                self.with_host(now, &room, |host, outside| {
                    host.channel_open(outside, &participant, peer, channel);
                });
            }
            MediaEvent::Data { peer, channel, data } => {
                let Some(Address { room, participant }) = of_peer(self, peer) else { return };
                self.with_host(now, &room, |host, outside| {
                    host.handle_data(outside, now, &participant, peer, channel, data);
                });
            }
            MediaEvent::UnlabelledData { peer, data } => {
                let Some(Address { room, participant }) = of_peer(self, peer) else { return };
                self.with_host(now, &room, |host, outside| {
                    let (channel, data) = (DataChannel::Reliable, data::of_user(data.into()));
                    host.handle_data(outside, now, &participant, peer, channel, data);
                });
            }
            MediaEvent::StreamPaused { peer, subscription, paused } => {
                self.stream_paused(now, peer, subscription, paused);
            }
            MediaEvent::Quality { peers } => self.qualities(now, &peers),
            MediaEvent::AudioLevels { levels } => self.audio_levels(now, &levels),
            MediaEvent::StreamStarted { track, rid, ssrc, layer } => {
                let Some((address, sid)) = self.outside.tracks.get(&track).cloned() else {
                    return;
                };
                let stream = Started { encoding: track, rid, ssrc, layer };
                self.with_host(now, &address.room, |host, outside| {
                    host.stream_started(outside, now, &address.participant, &sid, stream);
                });
            }
        }
    }

    fn shut_down(&mut self, now: Now) {
        self.shutting_down = true;
        self.close_workers();
        let rooms: Vec<_> = self.hosts.keys().cloned().collect();
        for room in rooms {
            self.with_host(now, &room, |host, outside| {
                host.returns = host.is_kept && outside.config.room_rules.rooms_return;
                host.apply(now, Command::Close(DisconnectReason::ServerShutdown));
            });
        }
    }
}

fn count([audio, video]: &mut [usize; 2], kind: TrackKind) {
    match kind {
        TrackKind::Audio => *audio += 1,
        TrackKind::Video => *video += 1,
    }
}
