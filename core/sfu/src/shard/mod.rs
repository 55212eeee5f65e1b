//! One media thread's worth of peers, tracks and subscriptions.

mod adapt;
mod ahead;
mod data;
mod demux;
mod explain;
mod fan_out;
mod feedback;
mod flush;
mod ingress;
mod media;
mod owe;
mod quality;
mod relay;
mod round_trip;
mod send;
mod silence;
mod timer;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    hash::{BuildHasher, DefaultHasher, Hasher},
    time::{Duration, Instant},
};

use bytes::Bytes;
use parlor_congestion::{Allocation, TrackDemand};
use parlor_model::{
    DataChannel, Path, PeerId, SequenceNumber, ShardId, SubscriptionId, TrackId, TransportAddress,
};
use parlor_srtp::{SrtpReceiver, SrtpSender};
use parlor_transport::{
    Channel, ChannelConfig, DtlsIdentity, FailureReason, IceState, Transport, TransportConfig,
    TransportEvent,
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha20Rng;

use crate::{
    arena::{Arena, Key},
    claim::Claim,
    command::{LocalTransport, MediaCommand, MediaEvent, PeerFailure, SubscriptionSettings},
    counters::Counters,
    downlink::micros,
    forward::Subscription,
    held::Held,
    peer::{MAX_UFRAGS, Peer, Srtp},
    quality::QUALITY_INTERVAL,
    relay::Relayed,
    timers::Timers,
    track::Track,
};

/// Messages from peers that wait for the caller; more are dropped and counted.
pub const MAX_EVENTS: usize = 16_384;
/// Subscriptions that were stopped, or described, before their section came.
pub const MAX_AHEAD: usize = 16_384;
/// Checks of our own whose answers are awaited.
pub const MAX_STUN_TRANSACTIONS: usize = 4096;

/// What a [`Shard`] is made from.
#[derive(Clone)]
pub struct ShardConfig {
    /// Which media thread this is.
    pub id: ShardId,
    /// The certificate of this process.
    pub identity: DtlsIdentity,
    /// The addresses that its datagrams arrive at.
    pub local_addresses: Vec<TransportAddress>,
    /// The source of everything random that is drawn here.
    pub seed: [u8; 32],
}

pub use adapt::PeerState;
pub use data::FULL_BYTES;
pub(crate) use data::Reading;
pub(crate) use explain::{Decision, Decisions};
pub use explain::{DecisionReport, LinkReport, MAX_DECISIONS};
use fan_out::Waiting;
pub use quality::Experiences;

/// Hashes with a seed, so that nobody outside can choose keys that collide.
#[derive(Clone, Copy)]
struct SeededHash(u64);

impl BuildHasher for SeededHash {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(self.0);
        hasher
    }
}

/// A datagram of a peer that is gone: its farewell.
struct Farewell {
    path: Path,
    bytes: Vec<u8>,
}

/// See the page of this crate.
pub struct Shard {
    config: ShardConfig,
    rng: ChaCha20Rng,
    epoch: Option<Instant>,
    peers: Arena<Peer>,
    pub(crate) tracks: Arena<Track>,
    subscriptions: Arena<Subscription>,
    peer_keys: BTreeMap<PeerId, Key<Peer>>,
    track_keys: BTreeMap<TrackId, Key<Track>>,
    subscription_keys: BTreeMap<SubscriptionId, Key<Subscription>>,
    ufrags: BTreeMap<String, Key<Peer>>,
    addresses: HashMap<Path, Key<Peer>, SeededHash>,
    stun_transactions: HashMap<[u8; 12], Key<Peer>, SeededHash>,
    stun_transaction_order: VecDeque<[u8; 12]>,
    /// Settings that came before their sections.
    settings_ahead: BTreeMap<SubscriptionId, SubscriptionSettings>,
    /// Mutes that came before their tracks.
    muted_ahead: BTreeSet<TrackId>,
    /// Trailers that came before their tracks.
    trailers_ahead: BTreeMap<TrackId, Bytes>,
    /// The newest stopped subscriptions: a section may still name one.
    stopped: BTreeSet<SubscriptionId>,
    timers: Timers,
    /// When loudness is told next.
    pub(crate) levels_due: Option<Instant>,
    /// When connections are judged next.
    quality_due: Option<Instant>,
    adds_redundancy: bool,
    /// See [`Shard::set_gathering`].
    gathering: Duration,
    /// See [`Shard::set_slow_reader_threshold`].
    slow_reader_bps: u64,
    /// Readers whose senders may go on.
    readers_done: Vec<Key<Peer>>,
    /// Peers with something to send, and how many of them the flush that goes on has seen.
    ready: Vec<Key<Peer>>,
    flushed: usize,
    /// What has just come and waits for the flush.
    arrived: Waiting,
    farewells: VecDeque<Farewell>,
    /// See [`Shard::poll_claim`]; `None` where nobody is to be told.
    claims: Option<VecDeque<Claim>>,
    events: VecDeque<MediaEvent>,
    /// See [`Shard::poll_relay`].
    relays: VecDeque<(ShardId, Relayed)>,
    /// Tracks that are published elsewhere, and when they are looked after next.
    guests: Vec<Key<Track>>,
    guests_due: Option<Instant>,
    counters: Counters,
    held: Held,
    experiences: Experiences,
    /// Scratch memory.
    lost: Vec<SequenceNumber>,
    due: Vec<usize>,
    taken_back: Vec<u64>,
    demands: Vec<TrackDemand>,
    allocations: Vec<Allocation>,
}

impl Shard {
    /// A shard without peers.
    pub fn new(config: ShardConfig) -> Self {
        let mut rng = ChaCha20Rng::from_seed(config.seed);
        let hash = SeededHash(rng.next_u64());
        Self {
            config,
            rng,
            epoch: None,
            peers: Arena::default(),
            tracks: Arena::default(),
            subscriptions: Arena::default(),
            peer_keys: BTreeMap::new(),
            track_keys: BTreeMap::new(),
            subscription_keys: BTreeMap::new(),
            ufrags: BTreeMap::new(),
            addresses: HashMap::with_hasher(hash),
            stun_transactions: HashMap::with_hasher(hash),
            stun_transaction_order: VecDeque::new(),
            settings_ahead: BTreeMap::new(),
            muted_ahead: BTreeSet::new(),
            trailers_ahead: BTreeMap::new(),
            stopped: BTreeSet::new(),
            timers: Timers::default(),
            levels_due: None,
            quality_due: None,
            adds_redundancy: false,
            gathering: Duration::ZERO,
            slow_reader_bps: 0,
            readers_done: Vec::new(),
            ready: Vec::new(),
            flushed: 0,
            arrived: Waiting::default(),
            farewells: VecDeque::new(),
            claims: None,
            events: VecDeque::new(),
            relays: VecDeque::new(),
            guests: Vec::new(),
            guests_due: None,
            counters: Counters::default(),
            held: Held::default(),
            experiences: Experiences::default(),
            lost: Vec::new(),
            taken_back: Vec::new(),
            due: Vec::new(),
            demands: Vec::new(),
            allocations: Vec::new(),
        }
    }

    /// Whether plain Opus becomes RED for subscribers that take it (`active_red_encoding` in
    /// LiveKit, off by default). Holds for what is negotiated from now on.
    pub fn set_active_red_encoding(&mut self, is_active: bool) {
        self.adds_redundancy = is_active;
    }

    /// What one peer is owed within this time leaves together, as one run where lengths allow:
    /// media to it leaves in bursts that begin so far apart, a frame of video when it is whole or a
    /// millisecond after its first packet, and audio of a burst is padded to one length. Nothing
    /// gathers unless this is called.
    pub fn set_gathering(&mut self, gathering: Duration) {
        self.gathering = gathering;
    }

    /// Does what the control plane says.
    pub fn handle_command(&mut self, now: Instant, command: MediaCommand) {
        self.epoch.get_or_insert(now);
        self.owe_arrived(now);
        match command {
            MediaCommand::OpenPeer { peer, local } => self.open_peer(now, peer, *local),
            MediaCommand::SetRemote { peer, remote } => {
                self.with_peer(now, peer, |peer, counters| {
                    // What the control plane could not see to be unusable ends the peer here.
                    if peer.transport.set_remote(now, *remote).is_err() {
                        counters.commands_stale += 1;
                    }
                });
            }
            MediaCommand::RestartIce { peer, ice } => {
                if let Some(&key) = self.peer_keys.get(&peer) {
                    self.name_peer(key, ice.ufrag.clone());
                }
                self.with_peer(now, peer, |peer, _| peer.transport.restart_ice(now, ice));
            }
            MediaCommand::AddRemoteCandidate { peer, candidate } => {
                self.with_peer(now, peer, |peer, _| {
                    peer.transport.add_remote_candidate(now, &candidate);
                });
            }
            MediaCommand::SetMedia { peer, media } => match self.peer_keys.get(&peer) {
                Some(&key) => self.set_media(now, key, &media),
                None => self.counters.commands_stale += 1,
            },
            MediaCommand::ClosePeer { peer } => self.close_peer(now, peer),
            MediaCommand::SetTrackMuted { track, muted } => self.set_muted(now, track, muted),
            MediaCommand::SetFrameTrailer { track, trailer } => {
                self.set_frame_trailer(track, trailer);
            }
            MediaCommand::SetSubscription { subscription, settings } => {
                self.set_subscription(now, subscription, settings);
            }
            MediaCommand::StopSubscription { subscription, blank } => {
                self.stop(now, subscription, blank);
            }
            MediaCommand::LimitPeer { peer, bps } => {
                if let Some(&key) = self.peer_keys.get(&peer) {
                    self.with_downlink(now, key, |link| link.limit(now, bps));
                }
            }
            MediaCommand::SendData { channel, data, from, peers } => {
                for peer in peers {
                    self.send_data(now, from, peer, channel, &data);
                }
            }
        }
    }

    /// What the control plane must hear next. Poll until there is none after every other call.
    pub fn poll_event(&mut self) -> Option<MediaEvent> {
        self.events.pop_front()
    }

    /// When [`Shard::handle_timeout`] must be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let Self { levels_due, quality_due, guests_due, .. } = *self;
        let dues = [self.timers.next(), self.unfinished_due(), levels_due, quality_due, guests_due];
        dues.into_iter().flatten().min()
    }

    /// What has been done and left undone.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// How long media waited for its turn.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// How many tracks it has: published here, or subscribed to here.
    pub fn num_tracks(&self) -> usize {
        self.tracks.len()
    }

    /// Whether it holds nothing: no peer, track, subscription, address or farewell.
    pub fn is_empty(&self) -> bool {
        self.peers.len() == 0
            && self.tracks.len() == 0
            && self.subscriptions.len() == 0
            && self.addresses.is_empty()
            && self.ufrags.is_empty()
            && self.farewells.is_empty()
    }

    fn epoch(&self, now: Instant) -> Instant {
        self.epoch.unwrap_or(now)
    }

    /// Microseconds since the shard began.
    fn micros(&self, now: Instant) -> i64 {
        micros(self.epoch(now), now)
    }

    fn open_peer(&mut self, now: Instant, id: PeerId, local: LocalTransport) {
        if self.peer_keys.contains_key(&id) {
            self.counters.commands_stale += 1;
            return;
        }
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        let channel = |channel, ordered, max_retransmits| ChannelConfig {
            channel: Channel::Known(channel),
            ordered,
            max_retransmits,
        };
        let open_channels = if local.opens_channels {
            vec![
                channel(DataChannel::Reliable, true, None),
                channel(DataChannel::Lossy, false, Some(0)),
                channel(DataChannel::DataTrack, false, Some(0)),
            ]
        } else {
            Vec::new()
        };
        let ufrag = local.ice.ufrag.clone();
        let transport = Transport::new(
            now,
            TransportConfig {
                identity: self.config.identity.clone(),
                ice: local.ice,
                ice_lite: local.ice_lite,
                ice_controlling: false,
                seed,
                open_channels,
                local_addresses: self.config.local_addresses.clone(),
            },
        );
        let epoch = self.epoch(now);
        let key = self.peers.insert(Peer::new(epoch, now, id, transport, ufrag.clone()));
        self.peer_keys.insert(id, key);
        self.ufrags.insert(ufrag, key);
        self.after_transport(now, key);
    }

    /// Lets STUN find a peer by one more name; the oldest goes beyond the bound.
    fn name_peer(&mut self, key: Key<Peer>, ufrag: String) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.ufrags.contains(&ufrag) {
            return;
        }
        peer.ufrags.push(ufrag.clone());
        if peer.ufrags.len() > MAX_UFRAGS {
            let oldest = peer.ufrags.remove(0);
            self.ufrags.remove(&oldest);
        }
        self.ufrags.insert(ufrag, key);
    }

    fn with_peer(&mut self, now: Instant, id: PeerId, call: impl FnOnce(&mut Peer, &mut Counters)) {
        let Some(&key) = self.peer_keys.get(&id) else {
            self.counters.commands_stale += 1;
            return;
        };
        if let Some(peer) = self.peers.get_mut(key) {
            call(peer, &mut self.counters);
        }
        self.after_transport(now, key);
    }

    /// Takes away what a call on a transport has left: events, datagrams, a deadline.
    fn after_transport(&mut self, now: Instant, key: Key<Peer>) {
        self.take_from_transport(now, key);
        self.release_senders(now);
    }

    fn take_from_transport(&mut self, now: Instant, key: Key<Peer>) {
        while let Some(event) = self.peers.get_mut(key).and_then(|peer| peer.transport.poll_event())
        {
            self.handle_transport_event(now, key, event);
        }
        self.note_reading(key);
        self.mark_ready(key);
        self.schedule(key);
    }

    fn handle_transport_event(&mut self, now: Instant, key: Key<Peer>, event: TransportEvent) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let id = peer.id;
        if matches!(event, TransportEvent::Ice(IceState::Checking | IceState::Connected)) {
            peer.failed &= !peer.lost_path;
        }
        match event {
            TransportEvent::Ice(IceState::Connected) if peer.srtp.is_some() && !peer.connected => {
                self.connect(now, key);
            }
            TransportEvent::Ice(IceState::Disconnected) => {
                peer.connected = false;
                self.event(MediaEvent::PeerDisconnected { peer: id });
            }
            TransportEvent::Ice(IceState::Failed) => {
                self.fail_peer(key, PeerFailure::ConnectionTimeout);
            }
            TransportEvent::Ice(_) => {}
            TransportEvent::PathSelected(path) => {
                peer.path = Some(path);
                self.learn_address(key, path);
                self.claim(Claim::Validated(path));
                if self.peers.get(key).is_some_and(|peer| peer.srtp.is_some() && !peer.connected) {
                    self.connect(now, key);
                }
            }
            TransportEvent::SrtpKeys(keys) => {
                let (send, receive) = (&keys.send, &keys.receive);
                peer.srtp = SrtpReceiver::new(keys.profile, &receive.key, &receive.salt)
                    .ok()
                    .zip(SrtpSender::new(keys.profile, &send.key, &send.salt).ok())
                    .map(|(receiver, sender)| Srtp { receiver, sender });
                if peer.path.is_some() {
                    self.connect(now, key);
                }
            }
            TransportEvent::ChannelOpen { channel: Channel::Known(channel) } => {
                self.event(MediaEvent::ChannelOpen { peer: id, channel });
            }
            TransportEvent::Data { channel, data, .. } => {
                if self.events.len() >= MAX_EVENTS {
                    self.counters.events_dropped += 1;
                    return;
                }
                let data = data.into();
                self.event(match channel {
                    Channel::Known(channel) => MediaEvent::Data { peer: id, channel, data },
                    Channel::Other(_) => MediaEvent::UnlabelledData { peer: id, data },
                });
            }
            TransportEvent::Failed(reason) => {
                let reason = match reason {
                    FailureReason::FingerprintMismatch => PeerFailure::FingerprintMismatch,
                    FailureReason::Sctp => PeerFailure::SctpClosed,
                    FailureReason::Dtls | FailureReason::NoSrtpProfile => PeerFailure::DtlsClosed,
                };
                self.fail_peer(key, reason);
            }
            TransportEvent::Closed => self.fail_peer(key, PeerFailure::DtlsClosed),
            TransportEvent::ChannelOpen { .. }
            | TransportEvent::BufferedAmountLow { .. }
            | TransportEvent::ChannelClosed { .. } => {}
        }
    }

    fn connect(&mut self, now: Instant, key: Key<Peer>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.connected = true;
        self.quality_due.get_or_insert(now + QUALITY_INTERVAL);
        let id = peer.id;
        self.event(MediaEvent::PeerConnected { peer: id });
        self.refresh_routes_of(now, key);
        self.start_timers(now, key);
    }

    /// The peer is of no use any more; it waits to be closed, or for an ICE restart where it has
    /// only lost its path. Nothing goes to it or comes from it.
    fn fail_peer(&mut self, key: Key<Peer>, reason: PeerFailure) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.failed {
            return;
        }
        peer.failed = true;
        peer.lost_path = reason == PeerFailure::ConnectionTimeout;
        peer.connected = false;
        peer.downlink.pacer.clear();
        peer.rtcp.clear();
        peer.deadlines = crate::peer::Deadlines::default();
        self.readers_done.push(key);
        let id = peer.id;
        let subscriptions = peer.subscriptions.clone();
        for subscription in subscriptions {
            self.deactivate(subscription);
        }
        self.event(MediaEvent::PeerFailed { peer: id, reason });
    }

    fn close_peer(&mut self, now: Instant, id: PeerId) {
        let Some(key) = self.peer_keys.remove(&id) else {
            self.counters.commands_stale += 1;
            return;
        };
        self.set_media(now, key, &parlor_model::MediaDescription::default());
        let Some(mut peer) = self.peers.remove(key) else { return };
        if self.peers.len() == 0 {
            (self.levels_due, self.quality_due) = (None, None);
        }
        self.timers.set(key.index(), None);
        for ufrag in &peer.ufrags {
            self.ufrags.remove(ufrag);
        }
        for address in &peer.addresses {
            self.forget_address(key, *address);
        }
        peer.transport.close();
        let mut datagram = [0; crate::batch::SLOT_BYTES];
        while let Some(sent) = peer.transport.poll_transmit(&mut datagram) {
            let bytes = datagram.get(..sent.len).unwrap_or(&[]).to_vec();
            self.farewells.push_back(Farewell { path: sent.path, bytes });
        }
        self.forget_reader(now, peer.reading);
    }

    pub(crate) fn event(&mut self, event: MediaEvent) {
        self.events.push_back(event);
    }

    /// Lists a peer for the next flush.
    fn mark_ready(&mut self, key: Key<Peer>) {
        if let Some(peer) = self.peers.get_mut(key)
            && !peer.is_ready
        {
            peer.is_ready = true;
            self.ready.push(key);
        }
    }

    /// Sets the timer of a peer to what is due next.
    fn schedule(&mut self, key: Key<Peer>) {
        if let Some(peer) = self.peers.get(key) {
            let next = peer.next_deadline();
            if self.timers.get(key.index()) != next {
                self.timers.set(key.index(), next);
            }
        }
    }
}
