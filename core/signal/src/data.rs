//! Data packets on their way through the server.
//!
//! A packet is relayed as the sender's own bytes: fields that this server does not know pass
//! untouched. Only what the server answers for is replaced: who sent it, on which channel, and
//! where it goes. The sender's own values of those fields are cut out rather than overruled by
//! a later one, so that no decoder, whether it takes the first or the last, sees a forged name.

use crate::wire::{Fields, NotProtobuf, Value, put_bytes, put_varint};
use bytes::Bytes;
use livekit_protocol as proto;
use parlor_model::DataChannel;
use prost::Message;

/// Largest data message in bytes; descriptions announce `a=max-message-size:65535`.
pub const MAX_PACKET_BYTES: usize = 65_535;
/// Most destinations that one packet may name.
pub const MAX_DESTINATIONS: usize = 1_024;

/// `livekit.DataPacket` field numbers.
mod packet_field {
    pub const KIND: u32 = 1;
    pub const USER: u32 = 2;
    pub const SPEAKER: u32 = 3;
    pub const PARTICIPANT_IDENTITY: u32 = 4;
    pub const DESTINATION_IDENTITIES: u32 = 5;
    pub const TRANSCRIPTION: u32 = 7;
    pub const METRICS: u32 = 8;
    pub const CHAT_MESSAGE: u32 = 9;
    pub const STREAM_HEADER: u32 = 13;
    pub const SEQUENCE: u32 = 16;
    pub const PARTICIPANT_SID: u32 = 17;
}

/// `livekit.UserPacket` field numbers.
mod user_field {
    pub const PARTICIPANT_SID: u32 = 1;
    pub const DESTINATION_SIDS: u32 = 3;
    pub const PARTICIPANT_IDENTITY: u32 = 5;
    pub const DESTINATION_IDENTITIES: u32 = 6;
}

/// What a packet holds, as far as the server treats it differently.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Content {
    /// Application data of `publishData`.
    User,
    /// The list of speakers, which clients no longer send.
    Speaker,
    /// Words; only agents may send them.
    Transcription,
    /// Measurements for the server; never relayed.
    Metrics,
    /// A chat message.
    ChatMessage,
    /// The start of a text stream.
    TextHeader,
    /// Anything else, known to us or not.
    Other,
}

/// A packet that is not a `livekit.DataPacket`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum MalformedPacket {
    #[error("longer than {MAX_PACKET_BYTES} bytes")]
    TooLong,
    #[error("not protobuf")]
    NotProtobuf,
    #[error("names more than {MAX_DESTINATIONS} destinations")]
    TooManyDestinations,
}

impl From<NotProtobuf> for MalformedPacket {
    fn from(_: NotProtobuf) -> Self {
        Self::NotProtobuf
    }
}

/// Who a packet comes from, as the server knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sender<'a> {
    /// `PA_...`.
    pub sid: &'a str,
    /// The name that receivers may see; empty for a hidden participant.
    pub identity: &'a str,
    /// Whether it is hidden: then its sid is left out too.
    pub hidden: bool,
    /// Agents may speak for somebody else in chat messages and text streams.
    pub agent: bool,
}

/// A packet as a client sent it.
#[derive(Clone, PartialEq, Debug)]
pub struct Packet {
    bytes: Bytes,
    content: Content,
    sequence: u32,
    sender_identity: String,
    packet_destinations: Vec<String>,
    user_destinations: Vec<String>,
    destination_sids: Vec<String>,
}

impl Packet {
    /// Reads what the server must know of a packet.
    ///
    /// ```
    /// use parlor_signal::data::{Content, Packet};
    ///
    /// let packet = Packet::read(&[0x12, 0x04, 0x12, 0x02, b'h', b'i', 0x80, 0x01, 0x07][..])?;
    /// assert_eq!(packet.content(), Content::User);
    /// assert_eq!(packet.sequence(), 7);
    /// # Ok::<(), parlor_signal::data::MalformedPacket>(())
    /// ```
    pub fn read(bytes: impl Into<Bytes>) -> Result<Packet, MalformedPacket> {
        let bytes = bytes.into();
        if bytes.len() > MAX_PACKET_BYTES {
            return Err(MalformedPacket::TooLong);
        }
        // What is known of a packet has to be well formed: receivers decode it whole.
        proto::DataPacket::decode(bytes.clone()).map_err(|_| MalformedPacket::NotProtobuf)?;
        let mut packet = Packet {
            bytes: bytes.clone(),
            content: Content::Other,
            sequence: 0,
            sender_identity: String::new(),
            packet_destinations: Vec::new(),
            user_destinations: Vec::new(),
            destination_sids: Vec::new(),
        };
        for field in Fields::of(&bytes) {
            let field = field?;
            match (field.number, field.value) {
                (packet_field::SEQUENCE, Value::Varint(number)) => packet.sequence = number as u32,
                (packet_field::PARTICIPANT_IDENTITY, Value::Bytes(text)) => {
                    packet.sender_identity = string(text)?;
                }
                (packet_field::DESTINATION_IDENTITIES, Value::Bytes(text)) => {
                    packet.packet_destinations.push(string(text)?);
                }
                (packet_field::USER, Value::Bytes(user)) => {
                    packet.content = Content::User;
                    packet.read_user(user)?;
                }
                (packet_field::SPEAKER, _) => packet.content = Content::Speaker,
                (packet_field::TRANSCRIPTION, _) => packet.content = Content::Transcription,
                (packet_field::METRICS, _) => packet.content = Content::Metrics,
                (packet_field::CHAT_MESSAGE, _) => packet.content = Content::ChatMessage,
                (packet_field::STREAM_HEADER, Value::Bytes(header)) => {
                    packet.content =
                        if is_text(header)? { Content::TextHeader } else { Content::Other };
                }
                _ => {}
            }
            packet.check_destinations()?;
        }
        Ok(packet)
    }

    fn read_user(&mut self, user: &[u8]) -> Result<(), MalformedPacket> {
        for field in Fields::of(user) {
            let field = field?;
            match (field.number, field.value) {
                (user_field::DESTINATION_SIDS, Value::Bytes(text)) => {
                    self.destination_sids.push(string(text)?);
                }
                (user_field::DESTINATION_IDENTITIES, Value::Bytes(text)) => {
                    self.user_destinations.push(string(text)?);
                }
                _ => {}
            }
            self.check_destinations()?;
        }
        Ok(())
    }

    fn check_destinations(&self) -> Result<(), MalformedPacket> {
        let named = self.packet_destinations.len()
            + self.user_destinations.len()
            + self.destination_sids.len();
        if named > MAX_DESTINATIONS { Err(MalformedPacket::TooManyDestinations) } else { Ok(()) }
    }

    /// What it holds.
    pub fn content(&self) -> Content {
        self.content
    }

    /// The sender's number of a reliable packet, from 1; 0 when it has none.
    pub fn sequence(&self) -> u32 {
        self.sequence
    }

    /// Identities that it is for. Empty, with [`Packet::destination_sids`] empty too: for all.
    pub fn destination_identities(&self) -> &[String] {
        if self.packet_destinations.is_empty() {
            &self.user_destinations
        } else {
            &self.packet_destinations
        }
    }

    /// Participant sids that it is for, the older way to say so.
    pub fn destination_sids(&self) -> &[String] {
        &self.destination_sids
    }

    /// Whether a sender may have this packet relayed at all.
    pub fn may_relay(&self, sender: &Sender<'_>) -> bool {
        match self.content {
            Content::Metrics => false,
            Content::Transcription => sender.agent,
            _ => true,
        }
    }

    /// The packet as receivers get it.
    pub fn relay(&self, channel: DataChannel, sender: &Sender<'_>) -> Bytes {
        let foreign = !self.sender_identity.is_empty() && self.sender_identity != sender.identity;
        let speaks_for_another = sender.agent
            && foreign
            && matches!(self.content, Content::ChatMessage | Content::TextHeader);
        let identity: &str = match (sender.hidden, speaks_for_another) {
            (_, true) => &self.sender_identity,
            (true, false) => "",
            (false, false) => sender.identity,
        };
        let sid = if sender.hidden { "" } else { sender.sid };

        let mut out = Vec::with_capacity(self.bytes.len() + 2 * (identity.len() + sid.len()) + 32);
        for field in Fields::of(&self.bytes).flatten() {
            match (field.number, field.value) {
                (
                    packet_field::KIND
                    | packet_field::PARTICIPANT_IDENTITY
                    | packet_field::PARTICIPANT_SID,
                    _,
                ) => {}
                (packet_field::USER, Value::Bytes(user)) => {
                    let user = self.relay_user(user, identity, sid);
                    put_bytes(&mut out, packet_field::USER, &user);
                }
                (packet_field::CHAT_MESSAGE, Value::Bytes(chat)) if speaks_for_another => {
                    let mut generated = chat.to_vec();
                    put_varint(&mut generated, CHAT_MESSAGE_GENERATED, 1);
                    put_bytes(&mut out, packet_field::CHAT_MESSAGE, &generated);
                }
                (packet_field::STREAM_HEADER, Value::Bytes(header)) if speaks_for_another => {
                    let mut generated = header.to_vec();
                    let mut text = Vec::new();
                    put_varint(&mut text, TEXT_HEADER_GENERATED, 1);
                    put_bytes(&mut generated, STREAM_HEADER_TEXT, &text);
                    put_bytes(&mut out, packet_field::STREAM_HEADER, &generated);
                }
                _ => out.extend_from_slice(field.raw),
            }
        }
        if channel != DataChannel::Reliable {
            put_varint(&mut out, packet_field::KIND, proto::data_packet::Kind::Lossy as u64);
        }
        put_text(&mut out, packet_field::PARTICIPANT_IDENTITY, identity);
        put_text(&mut out, packet_field::PARTICIPANT_SID, sid);
        if self.packet_destinations.is_empty() {
            for destination in &self.user_destinations {
                put_text(&mut out, packet_field::DESTINATION_IDENTITIES, destination);
            }
        }
        out.into()
    }

    fn relay_user(&self, user: &[u8], identity: &str, sid: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(user.len() + identity.len() + sid.len() + 16);
        for field in Fields::of(user).flatten() {
            let ours = matches!(
                field.number,
                user_field::PARTICIPANT_SID | user_field::PARTICIPANT_IDENTITY
            );
            if !ours {
                out.extend_from_slice(field.raw);
            }
        }
        put_text(&mut out, user_field::PARTICIPANT_SID, sid);
        put_text(&mut out, user_field::PARTICIPANT_IDENTITY, identity);
        if self.user_destinations.is_empty() {
            for destination in &self.packet_destinations {
                put_text(&mut out, user_field::DESTINATION_IDENTITIES, destination);
            }
        }
        out
    }
}

/// The packet that `RoomService.SendData` makes: no sender, no sequence.
pub fn from_server(
    payload: Vec<u8>,
    topic: Option<String>,
    channel: DataChannel,
    destination_identities: Vec<String>,
    nonce: Vec<u8>,
) -> Bytes {
    let kind = match channel {
        DataChannel::Reliable => proto::data_packet::Kind::Reliable,
        DataChannel::Lossy | DataChannel::DataTrack => proto::data_packet::Kind::Lossy,
    };
    #[allow(deprecated)]
    let user = proto::UserPacket {
        payload,
        topic,
        destination_identities: destination_identities.clone(),
        nonce,
        ..Default::default()
    };
    #[allow(deprecated)]
    let packet = proto::DataPacket {
        kind: kind.into(),
        destination_identities,
        value: Some(proto::data_packet::Value::User(user)),
        ..Default::default()
    };
    packet.encode_to_vec().into()
}

/// The packet for bytes that a client sent on a channel of its own naming.
pub fn of_user(payload: Vec<u8>) -> Bytes {
    let user = proto::UserPacket { payload, ..Default::default() };
    let value = Some(proto::data_packet::Value::User(user));
    proto::DataPacket { value, ..Default::default() }.encode_to_vec().into()
}

/// The packet with which the server calls a method of a participant. Its sender is the id of the
/// call, to which the participant replies.
pub fn rpc_request(request: proto::RpcRequest, destination: String) -> Bytes {
    let packet = proto::DataPacket {
        participant_identity: request.id.clone(),
        destination_identities: vec![destination],
        value: Some(proto::data_packet::Value::RpcRequest(request)),
        ..Default::default()
    };
    packet.encode_to_vec().into()
}

/// What a participant says to a call of one of its methods.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum RpcReply {
    /// It has begun.
    Ack,
    /// It is done.
    Payload(String),
    /// It failed.
    Error {
        /// Of the SDKs (1400 to 1505) or of the application.
        code: u32,
        /// For people.
        message: String,
    },
}

/// The reply in a packet, and to which call it is.
pub fn rpc_reply(packet: &[u8]) -> Option<(String, RpcReply)> {
    use proto::{data_packet::Value, rpc_response::Value as Outcome};
    match proto::DataPacket::decode(packet).ok()?.value? {
        Value::RpcAck(ack) => Some((ack.request_id, RpcReply::Ack)),
        Value::RpcResponse(response) => {
            let reply = match response.value? {
                Outcome::Payload(payload) => RpcReply::Payload(payload),
                Outcome::Error(error) => {
                    RpcReply::Error { code: error.code, message: error.message }
                }
                _ => return None,
            };
            Some((response.request_id, reply))
        }
        _ => None,
    }
}

/// Bytes of the header of a data track packet, without extensions.
pub const DATA_TRACK_HEADER_BYTES: usize = 12;

/// The handle under which a packet of a data track was published; `None` for what is no such
/// packet: too short, or of another version than 0.
pub fn data_track_handle(packet: &[u8]) -> Option<u16> {
    const VERSION: u8 = 0b1110_0000;
    let [flags, _, high, low, ..] = *packet else { return None };
    let whole = packet.len() >= DATA_TRACK_HEADER_BYTES && flags & VERSION == 0;
    whole.then(|| u16::from_be_bytes([high, low]))
}

/// The packet under another handle.
pub fn with_data_track_handle(packet: &[u8], handle: u16) -> Bytes {
    let mut packet = packet.to_vec();
    if let Some(bytes) = packet.get_mut(2..4) {
        bytes.copy_from_slice(&handle.to_be_bytes());
    }
    packet.into()
}

/// `livekit.ChatMessage.generated`.
const CHAT_MESSAGE_GENERATED: u32 = 6;
/// `livekit.DataStream.Header.text_header`.
const STREAM_HEADER_TEXT: u32 = 9;
/// `livekit.DataStream.TextHeader.generated`.
const TEXT_HEADER_GENERATED: u32 = 5;

fn is_text(header: &[u8]) -> Result<bool, MalformedPacket> {
    for field in Fields::of(header) {
        if field?.number == STREAM_HEADER_TEXT {
            return Ok(true);
        }
    }
    Ok(false)
}

fn string(text: &[u8]) -> Result<String, MalformedPacket> {
    String::from_utf8(text.to_vec()).map_err(|_| MalformedPacket::NotProtobuf)
}

fn put_text(out: &mut Vec<u8>, number: u32, value: &str) {
    if !value.is_empty() {
        put_bytes(out, number, value.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::encoding::{WireType, encode_key};

    const ALICE: Sender<'static> =
        Sender { sid: "PA_alice", identity: "alice", hidden: false, agent: false };

    fn decode(bytes: &[u8]) -> proto::DataPacket {
        proto::DataPacket::decode(bytes).unwrap()
    }

    fn user(payload: &[u8]) -> proto::DataPacket {
        #[allow(deprecated)]
        proto::DataPacket {
            value: Some(proto::data_packet::Value::User(proto::UserPacket {
                payload: payload.to_vec(),
                topic: Some("t".into()),
                participant_identity: "mallory".into(),
                participant_sid: "PA_forged".into(),
                ..Default::default()
            })),
            participant_identity: "mallory".into(),
            participant_sid: "PA_forged".into(),
            sequence: 3,
            ..Default::default()
        }
    }

    fn relay(packet: &proto::DataPacket, channel: DataChannel, sender: &Sender<'_>) -> Bytes {
        Packet::read(packet.encode_to_vec()).unwrap().relay(channel, sender)
    }

    #[test]
    #[allow(deprecated)]
    fn the_server_answers_for_the_sender() {
        let bytes = relay(&user(b"hi"), DataChannel::Reliable, &ALICE);
        let packet = decode(&bytes);
        assert_eq!(packet.participant_identity, "alice");
        assert_eq!(packet.participant_sid, "PA_alice");
        assert_eq!(packet.sequence, 3);
        let Some(proto::data_packet::Value::User(inner)) = packet.value else { panic!() };
        assert_eq!(inner.participant_identity, "alice");
        assert_eq!(inner.participant_sid, "PA_alice");
        assert_eq!(inner.payload, b"hi");
        assert_eq!(inner.topic.as_deref(), Some("t"));
        assert!(!bytes.windows(7).any(|window| window == b"mallory"));
        assert!(!bytes.windows(9).any(|window| window == b"PA_forged"));
    }

    #[test]
    #[allow(deprecated)]
    fn a_hidden_sender_stays_unnamed() {
        let hidden = Sender { hidden: true, ..ALICE };
        let packet = decode(&relay(&user(b"hi"), DataChannel::Reliable, &hidden));
        assert_eq!(packet.participant_identity, "");
        assert_eq!(packet.participant_sid, "");
        let Some(proto::data_packet::Value::User(inner)) = packet.value else { panic!() };
        assert_eq!(inner.participant_identity, "");
        assert_eq!(inner.participant_sid, "");
    }

    #[test]
    fn unknown_fields_and_kinds_pass() {
        // Field 99, a message; inside `user` field 77, a string; and a fixed64 in field 98.
        let mut inner = Vec::new();
        put_bytes(&mut inner, 77, b"future");
        let mut bytes = Vec::new();
        put_bytes(&mut bytes, packet_field::USER, &inner);
        put_bytes(&mut bytes, 99, b"kind of tomorrow");
        encode_key(98, WireType::SixtyFourBit, &mut bytes);
        bytes.extend_from_slice(&[1; 8]);
        let relayed = Packet::read(bytes).unwrap().relay(DataChannel::Reliable, &ALICE);
        assert!(relayed.windows(6).any(|window| window == b"future"));
        assert!(relayed.windows(16).any(|window| window == b"kind of tomorrow"));
        assert!(relayed.windows(8).any(|window| window == [1; 8]));
    }

    #[test]
    #[allow(deprecated)]
    fn destinations_of_either_place_stand_in_both() {
        let mut packet = user(b"");
        packet.destination_identities = vec!["bob".into()];
        let relayed = decode(&relay(&packet, DataChannel::Reliable, &ALICE));
        let Some(proto::data_packet::Value::User(inner)) = relayed.value else { panic!() };
        assert_eq!(inner.destination_identities, ["bob"]);

        let mut packet = user(b"");
        if let Some(proto::data_packet::Value::User(inner)) = &mut packet.value {
            inner.destination_identities = vec!["bob".into()];
            inner.destination_sids = vec!["PA_bob".into()];
        }
        let read = Packet::read(packet.encode_to_vec()).unwrap();
        assert_eq!(read.destination_identities(), ["bob"]);
        assert_eq!(read.destination_sids(), ["PA_bob"]);
        let relayed = decode(&read.relay(DataChannel::Reliable, &ALICE));
        assert_eq!(relayed.destination_identities, ["bob"]);
    }

    #[test]
    #[allow(deprecated)]
    fn the_channel_decides_the_kind() {
        let lossy = decode(&relay(&user(b""), DataChannel::Lossy, &ALICE));
        assert_eq!(lossy.kind, 1);
        let mut lying = user(b"");
        lying.kind = 1;
        assert_eq!(decode(&relay(&lying, DataChannel::Reliable, &ALICE)).kind, 0);
    }

    #[test]
    fn only_agents_may_speak_for_others_and_transcribe() {
        let chat = proto::DataPacket {
            participant_identity: "caller".into(),
            value: Some(proto::data_packet::Value::ChatMessage(proto::ChatMessage {
                message: "hi".into(),
                ..Default::default()
            })),
            ..Default::default()
        };
        let agent = Sender { agent: true, ..ALICE };
        let relayed = decode(&relay(&chat, DataChannel::Reliable, &agent));
        assert_eq!(relayed.participant_identity, "caller");
        let Some(proto::data_packet::Value::ChatMessage(message)) = relayed.value else { panic!() };
        assert!(message.generated);
        let relayed = decode(&relay(&chat, DataChannel::Reliable, &ALICE));
        assert_eq!(relayed.participant_identity, "alice");

        let words = proto::DataPacket {
            value: Some(proto::data_packet::Value::Transcription(Default::default())),
            ..Default::default()
        };
        let words = Packet::read(words.encode_to_vec()).unwrap();
        assert!(words.may_relay(&agent));
        assert!(!words.may_relay(&ALICE));
    }

    #[test]
    fn junk_and_excess_are_refused() {
        assert_eq!(Packet::read(vec![0xff; 12]), Err(MalformedPacket::NotProtobuf));
        assert_eq!(Packet::read(vec![0x12, 0x05, 0x00]), Err(MalformedPacket::NotProtobuf));
        let mut bad_text_inside = Vec::new();
        put_bytes(&mut bad_text_inside, packet_field::CHAT_MESSAGE, &[0x0a, 0x01, 0xff]);
        assert_eq!(Packet::read(bad_text_inside), Err(MalformedPacket::NotProtobuf));
        let at_bound = |count: usize| {
            let packet = proto::DataPacket {
                destination_identities: vec!["b".into(); count],
                ..Default::default()
            };
            Packet::read(packet.encode_to_vec())
        };
        assert!(at_bound(MAX_DESTINATIONS).is_ok());
        assert_eq!(at_bound(MAX_DESTINATIONS + 1), Err(MalformedPacket::TooManyDestinations));
        let mut long = Vec::new();
        put_bytes(&mut long, 99, &vec![0; MAX_PACKET_BYTES - 4]);
        assert_eq!(long.len(), MAX_PACKET_BYTES + 1);
        assert_eq!(Packet::read(long.clone()), Err(MalformedPacket::TooLong));
    }
}
