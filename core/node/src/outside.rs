//! What rooms share: configuration, randomness, ids, and the way out.

use crate::{
    NodeConfig,
    io::{Frame, Output, SessionId},
    members::Load,
};
use bytes::Bytes;
use livekit_protocol::signal_response::Message;
use parlor_model::{
    DataChannel, IceCredentials, ParticipantSid, PeerId, RoomName, ShardId, Ssrc, SubscriptionId,
    TrackId, TrackSid, TransportAddress, TransportProtocol,
};
use parlor_sfu::command::MediaCommand;
use parlor_signal::{frame::Encoder, response::Server};
use rand_chacha::{
    ChaCha12Rng,
    rand_core::{Rng, SeedableRng},
};
use std::collections::{BTreeMap, VecDeque};

/// A participant and its room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Address {
    pub(crate) room: RoomName,
    pub(crate) participant: ParticipantSid,
}

/// What was refused or dropped since the start, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// WebSocket messages that are no signal request.
    pub malformed_frames: u64,
    /// Offers that could not be used.
    pub refused_offers: u64,
    /// Answers that could not be used.
    pub refused_answers: u64,
    /// Data messages that are no data packet.
    pub malformed_packets: u64,
    /// Data packets that their sender may not send.
    pub forbidden_packets: u64,
    /// Reliable data packets that came again.
    pub repeated_packets: u64,
    /// Data packets that a receiver lost because its channel did not open in time.
    pub lost_packets: u64,
}

/// The shortuuid alphabet, without letters that look alike.
const SID_ALPHABET: &[u8; 57] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const LETTERS: &[u8; 52] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
const SID_LENGTH: usize = 12;
const UFRAG_LENGTH: usize = 16;
const PWD_LENGTH: usize = 32;

pub(crate) struct Outside {
    pub(crate) config: NodeConfig,
    pub(crate) server: Server,
    pub(crate) counters: Counters,
    pub(crate) statistics: crate::Statistics,
    pub(crate) sessions: BTreeMap<SessionId, Address>,
    pub(crate) peers: BTreeMap<PeerId, Address>,
    pub(crate) tracks: BTreeMap<TrackId, (Address, TrackSid)>,
    pub(crate) agents: parlor_agents::Agents,
    /// Of each media thread, rooms and participants.
    pub(crate) load: Load,
    pub(crate) outputs: VecDeque<Output>,
    rng: ChaCha12Rng,
    next_id: u32,
}

impl Outside {
    pub(crate) fn new(config: NodeConfig, seed: [u8; 32]) -> Self {
        let mut outside = Self {
            server: Server {
                node_id: String::new(),
                region: config.region.clone(),
                ice_servers: config.ice_servers.clone(),
                codecs: config.codecs.clone(),
            },
            config,
            counters: Counters::default(),
            statistics: Default::default(),
            sessions: BTreeMap::new(),
            peers: BTreeMap::new(),
            tracks: BTreeMap::new(),
            agents: parlor_agents::Agents::new(seed),
            load: Load::default(),
            outputs: VecDeque::new(),
            rng: ChaCha12Rng::from_seed(seed),
            next_id: 0,
        };
        outside.server.node_id = outside.sid("ND_");
        outside
    }

    fn text(&mut self, alphabet: &[u8], length: usize) -> String {
        // The alphabets are short, so the bias of the remainder does not matter.
        (0..length)
            .filter_map(|_| alphabet.get(self.rng.next_u32() as usize % alphabet.len()))
            .map(|byte| char::from(*byte))
            .collect()
    }

    /// A fresh id with a prefix.
    pub(crate) fn sid(&mut self, prefix: &str) -> String {
        format!("{prefix}{}", self.text(SID_ALPHABET, SID_LENGTH))
    }

    /// A secret text.
    pub(crate) fn secret(&mut self, length: usize) -> String {
        self.text(SID_ALPHABET, length)
    }

    pub(crate) fn ice_credentials(&mut self, shard: ShardId) -> IceCredentials {
        let prefix = shard.ufrag_prefix();
        let mut ufrag = self.text(LETTERS, UFRAG_LENGTH);
        ufrag.replace_range(..prefix.len(), &prefix);
        IceCredentials { ufrag, pwd: self.text(LETTERS, PWD_LENGTH) }
    }

    pub(crate) fn nonce(&mut self) -> Vec<u8> {
        let mut nonce = [0; 16];
        self.rng.fill_bytes(&mut nonce);
        nonce.to_vec()
    }

    /// A random id in the form of RFC 9562 section 5.4.
    pub(crate) fn uuid(&mut self) -> String {
        let mut bytes = [0; 16];
        self.rng.fill_bytes(&mut bytes);
        let number =
            u128::from_be_bytes(bytes) & !(0xf << 76) & !(0x3 << 62) | 0x4 << 76 | 0x2 << 62;
        let hex = format!("{number:032x}");
        let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|part| hex.get(part).unwrap_or(""));
        parts.join("-")
    }

    pub(crate) fn ssrc(&mut self) -> Ssrc {
        Ssrc(self.rng.next_u32().max(1))
    }

    /// The first handle of a subscriber's data tracks: 1 to 256.
    pub(crate) fn data_handle(&mut self) -> u16 {
        1 + (self.rng.next_u32() % 256) as u16
    }

    /// Identifies a session description (`o=` line): 63 bits.
    pub(crate) fn description_id(&mut self) -> u64 {
        self.rng.next_u64() >> 1
    }

    /// The id of the first offer: below 256, and not 0.
    pub(crate) fn first_offer_id(&mut self) -> u32 {
        1 + self.rng.next_u32() % 255
    }

    fn next_id(&mut self) -> u32 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    pub(crate) fn peer_id(&mut self, home: ShardId) -> PeerId {
        PeerId::new(home, self.next_id())
    }

    pub(crate) fn track_id(&mut self, home: ShardId) -> TrackId {
        TrackId::new(home, self.next_id())
    }

    pub(crate) fn subscription_id(&mut self) -> SubscriptionId {
        SubscriptionId(self.next_id())
    }

    /// The candidate lines of a shard's addresses, in their order.
    pub(crate) fn candidates(&self, shard: ShardId, ufrag: &str, tcp_only: bool) -> Vec<String> {
        /// RFC 8445 section 5.1.2.1, component 1.
        const UDP_HOST: u32 = (126 << 24) + 255;
        /// The same of TCP, as LiveKit's: below all of UDP (RFC 6544 section 4.2, passive).
        const TCP_HOST: u32 = (99 << 24) + 255;
        let addresses = self.config.shards.iter().find(|(id, _)| *id == shard);
        let addresses = addresses.map_or(&[][..], |(_, addresses)| addresses);
        let is_chosen =
            |local: &&TransportAddress| !tcp_only || local.protocol == TransportProtocol::Tcp;
        (0_u32..)
            .zip(addresses.iter().filter(is_chosen))
            .map(|(index, local)| {
                let (protocol, base, preference, role) = match local.protocol {
                    TransportProtocol::Udp => ("udp", UDP_HOST, 65_535, ""),
                    TransportProtocol::Tcp => ("tcp", TCP_HOST, 40_959, " tcptype passive"),
                };
                let place = addresses.iter().filter(|before| before.protocol == local.protocol);
                let place = (0..).zip(place).find(|(_, before)| *before == local);
                let place = place.map_or(0, |(place, _)| place);
                let priority = base + ((preference - place.min(preference)) << 8);
                let (ip, port) = (local.address.ip(), local.address.port());
                let foundation = index + 1;
                format!(
                    "candidate:{foundation} 1 {protocol} {priority} {ip} {port} typ host{role} \
                     ufrag {ufrag}"
                )
            })
            .collect()
    }

    /// Sends one message to many peers.
    pub(crate) fn send_data(
        &mut self,
        channel: DataChannel,
        data: &Bytes,
        from: Option<PeerId>,
        peers: impl IntoIterator<Item = PeerId>,
    ) {
        let mut by_shard = BTreeMap::<ShardId, Vec<PeerId>>::new();
        for peer in peers {
            by_shard.entry(peer.home()).or_default().push(peer);
        }
        for (shard, peers) in by_shard {
            self.command(
                shard,
                MediaCommand::SendData { channel, data: data.clone(), from, peers },
            );
        }
    }

    pub(crate) fn command(&mut self, shard: ShardId, command: MediaCommand) {
        self.outputs.push_back(Output::Media { shard, command });
    }

    /// Sends a message to a socket in the form that its client speaks.
    pub(crate) fn send(&mut self, session: SessionId, text: bool, encoder: &mut Encoder) {
        let text = if text { encoder.text() } else { None };
        let frame = text.map_or_else(|| Frame::Binary(encoder.binary()), Frame::Text);
        self.outputs.push_back(Output::Frame { session, frame });
    }

    /// Sends a binary message to a socket that no participant has.
    pub(crate) fn send_once(&mut self, session: SessionId, message: Message) {
        self.send(session, false, &mut Encoder::new(message));
    }

    pub(crate) fn close(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.outputs.push_back(Output::Close { session });
    }
}
