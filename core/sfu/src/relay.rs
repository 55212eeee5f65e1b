//! What shards tell each other of a track that is published at one, its home, and subscribed to at
//! another, its guest.
//!
//! A guest asks the home for what it has subscribers for. From then on the home tells it what the
//! track is and passes on what it keeps of it, once however many subscribe, in the clear: both are
//! threads of one server. What a guest's subscribers need of the publisher, it asks of the home.

use parlor_model::{PeerId, ReceiveSection, SequenceNumber, TrackId};
use parlor_rtp::RtpPacket;

use crate::{batch::SLOT_BYTES, receive::ClockReport};

/// A word from one shard to another; see [`crate::Shard::poll_relay`].
#[derive(Clone, Debug)]
pub struct Relayed(pub(crate) Word);

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // Nearly all are packets, and these must not be allocated.
pub(crate) enum Word {
    Track(TrackId, Message),
    /// A reader of reliable messages holds this sender back.
    Hold(PeerId),
    /// It does not any more.
    Release(PeerId),
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)]
pub(crate) enum Message {
    /// To the home: somebody subscribes.
    Subscribe,
    /// To the home: nobody subscribes any more.
    Unsubscribe,
    /// To the home: somebody needs a keyframe of this stream.
    RequestKeyframe(u8),
    /// From the home, before all packets and after each change.
    State(Box<State>),
    /// From the home: what the publisher says about the clock of a stream.
    Clock(u8, ClockReport),
    /// From the home: what has come.
    Packet(RelayedPacket),
}

/// All that is to be known of a track but its packets.
#[derive(Clone, Debug)]
pub(crate) struct State {
    /// `None`: it is not published.
    pub section: Option<ReceiveSection>,
    pub muted: bool,
    pub frame_trailer: bytes::Bytes,
}

/// A packet as the publisher sent it, without its cipher.
#[derive(Clone, Debug)]
pub(crate) struct RelayedPacket {
    pub stream: u8,
    /// In the history of its stream at home.
    pub number: u64,
    pub is_rtx: bool,
    len: u16,
    bytes: [u8; SLOT_BYTES],
}

impl RelayedPacket {
    /// `None` where it is longer than any datagram that leaves.
    pub fn new(stream: u8, number: u64, is_rtx: bool, packet: &RtpPacket<'_>) -> Option<Self> {
        let packet = packet.bytes();
        let mut bytes = [0; SLOT_BYTES];
        bytes.get_mut(..packet.len())?.copy_from_slice(packet);
        Some(Self { stream, number, is_rtx, len: packet.len() as u16, bytes })
    }

    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.len)).unwrap_or(&[])
    }

    /// The number that it would have had on the wire if nothing had been left out.
    pub fn sequence(&self) -> SequenceNumber {
        SequenceNumber(self.number as u16)
    }
}

impl Relayed {
    pub(crate) fn of(track: TrackId, message: Message) -> Self {
        Self(Word::Track(track, message))
    }

    /// Whether it is a packet, which may be lost on the way as any packet may.
    pub fn is_packet(&self) -> bool {
        matches!(self.0, Word::Track(_, Message::Packet(_)))
    }
}
