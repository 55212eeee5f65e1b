//! The little of STUN (RFC 8489) that is read before a message is known to be for us.

/// Which request an answer is for.
pub type StunTransaction = [u8; 12];

const HEADER_BYTES: usize = 20;
const TRANSACTION: std::ops::Range<usize> = 8..HEADER_BYTES;
const BINDING_REQUEST: [u8; 2] = [0, 1];
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const USERNAME: u16 = 0x0006;

/// The user name fragment of the *receiver* in a binding request: the part before the colon
/// (RFC 8445 section 7.2.2). It names the transport that a datagram from an unknown address is
/// for; nothing has been authenticated.
pub fn stun_username_ufrag(datagram: &[u8]) -> Option<&str> {
    let (header, mut attributes) = datagram.split_at_checked(HEADER_BYTES)?;
    if header.get(..2)? != BINDING_REQUEST || header.get(4..8)? != MAGIC_COOKIE {
        return None;
    }
    while let Some((head, rest)) = attributes.split_first_chunk::<4>() {
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
        if kind == USERNAME {
            let (receiver, _) = str::from_utf8(rest.get(..len)?).ok()?.split_once(':')?;
            return Some(receiver);
        }
        attributes = rest.get(len.next_multiple_of(4)..)?;
    }
    None
}

/// The transaction that a STUN message says it belongs to.
pub fn stun_transaction(datagram: &[u8]) -> Option<StunTransaction> {
    datagram.get(TRANSACTION)?.try_into().ok()
}

/// What a datagram is by its first byte (RFC 7983).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum DatagramKind {
    Stun,
    Dtls,
    Other,
}

impl DatagramKind {
    pub fn of(datagram: &[u8]) -> Self {
        match datagram.first() {
            Some(0..=3) => DatagramKind::Stun,
            Some(20..=63) => DatagramKind::Dtls,
            _ => DatagramKind::Other,
        }
    }
}
