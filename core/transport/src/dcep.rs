//! The data channel establishment protocol (RFC 8832).

/// Longest label or protocol name that is taken, in bytes.
pub const MAX_LABEL_BYTES: usize = 256;

const OPEN: u8 = 3;
const ACK: u8 = 2;
const UNORDERED: u8 = 0x80;
const RELIABLE: u8 = 0;
const MAX_RETRANSMITS: u8 = 1;
const MAX_LIFETIME: u8 = 2;

/// The message that acknowledges an open.
pub(crate) const ACK_MESSAGE: [u8; 1] = [ACK];

/// How hard a channel tries to deliver a message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reliability {
    /// Until it arrives.
    Reliable,
    /// So many retransmissions.
    MaxRetransmits(u32),
    /// So many milliseconds.
    MaxLifetimeMs(u32),
}

/// A message of the protocol.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DcepMessage {
    /// The peer opens a channel (section 5.1).
    Open {
        /// Whether messages keep their order.
        ordered: bool,
        /// How hard messages are tried.
        reliability: Reliability,
        /// The name of the channel.
        label: String,
    },
    /// The peer has seen our open (section 5.2).
    Ack,
}

/// Reads a message; `None` for what is malformed or too long.
pub fn parse_dcep(message: &[u8]) -> Option<DcepMessage> {
    match message {
        [ACK, ..] => Some(DcepMessage::Ack),
        [OPEN, rest @ ..] => parse_open(rest),
        _ => None,
    }
}

fn parse_open(rest: &[u8]) -> Option<DcepMessage> {
    let (fixed, names) = rest.split_first_chunk::<11>()?;
    let parameter = u32::from_be_bytes([fixed[3], fixed[4], fixed[5], fixed[6]]);
    let reliability = match fixed[0] & !UNORDERED {
        RELIABLE => Reliability::Reliable,
        MAX_RETRANSMITS => Reliability::MaxRetransmits(parameter),
        MAX_LIFETIME => Reliability::MaxLifetimeMs(parameter),
        _ => return None,
    };
    let label_len = usize::from(u16::from_be_bytes([fixed[7], fixed[8]]));
    let protocol_len = usize::from(u16::from_be_bytes([fixed[9], fixed[10]]));
    if label_len > MAX_LABEL_BYTES || protocol_len > MAX_LABEL_BYTES {
        return None;
    }
    let (label, protocol) = names.split_at_checked(label_len)?;
    if protocol.len() < protocol_len {
        return None;
    }
    Some(DcepMessage::Open {
        ordered: fixed[0] & UNORDERED == 0,
        reliability,
        label: str::from_utf8(label).ok()?.to_owned(),
    })
}

/// Writes an open without a protocol name. A label beyond [`MAX_LABEL_BYTES`] is cut off.
pub(crate) fn write_open(ordered: bool, reliability: Reliability, label: &str) -> Vec<u8> {
    let label = label.as_bytes();
    let label = label.get(..MAX_LABEL_BYTES).unwrap_or(label);
    let (kind, parameter) = match reliability {
        Reliability::Reliable => (RELIABLE, 0),
        Reliability::MaxRetransmits(retransmits) => (MAX_RETRANSMITS, retransmits),
        Reliability::MaxLifetimeMs(lifetime_ms) => (MAX_LIFETIME, lifetime_ms),
    };
    let mut message = vec![OPEN, if ordered { kind } else { kind | UNORDERED }, 0, 0];
    message.extend(parameter.to_be_bytes());
    message.extend((label.len() as u16).to_be_bytes());
    message.extend([0, 0]);
    message.extend(label);
    message
}
