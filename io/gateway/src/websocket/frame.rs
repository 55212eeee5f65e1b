//! Frames in and out.

use super::deflate::inflate;
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Largest message, bytes, before and after inflation; LiveKit's `signal_message_size_limit`.
pub const MAX_MESSAGE_BYTES: usize = 2 << 20;
/// Most frames that one message may come in.
const MAX_FRAGMENTS: usize = 1024;
const MAX_CONTROL_BYTES: usize = 125;

/// RFC 6455 section 5.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// RFC 6455 section 7.4.1, those that this server sends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum CloseCode {
    Normal = 1000,
    Protocol = 1002,
    InvalidPayload = 1007,
    TooBig = 1009,
}

/// Why a peer's bytes end the connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ProtocolError {
    #[error("frame with reserved bits")]
    ReservedBits,
    #[error("unknown opcode")]
    UnknownOpcode,
    #[error("frame without mask")]
    Unmasked,
    #[error("fragmented or long control frame")]
    BadControl,
    #[error("continuation of nothing, or a new message inside another")]
    BadFragment,
    #[error("message larger than admitted")]
    TooBig,
    #[error("text that is not UTF-8")]
    NotUtf8,
    #[error("broken compression")]
    BadCompression,
}

impl ProtocolError {
    /// The code that tells the peer.
    pub fn close_code(self) -> CloseCode {
        match self {
            ProtocolError::TooBig => CloseCode::TooBig,
            ProtocolError::NotUtf8 | ProtocolError::BadCompression => CloseCode::InvalidPayload,
            _ => CloseCode::Protocol,
        }
    }
}

/// What came from the peer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Received {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
    /// To be answered by a pong with the same payload.
    Ping(Bytes),
    /// Answer to a ping of ours.
    Pong,
    /// The peer closes; its code, if it gave one.
    Close(Option<u16>),
}

struct Header {
    fin: bool,
    compressed: bool,
    opcode: Opcode,
    mask: [u8; 4],
    header_bytes: usize,
    payload_bytes: usize,
}

struct Partial {
    text: bool,
    compressed: bool,
    payload: BytesMut,
    frames: usize,
}

/// Turns a client's bytes into messages.
pub struct Decoder {
    deflate: bool,
    max_bytes: usize,
    partial: Option<Partial>,
}

impl Decoder {
    /// `deflate`: permessage-deflate was negotiated.
    pub fn new(deflate: bool) -> Self {
        Self { deflate, max_bytes: MAX_MESSAGE_BYTES, partial: None }
    }

    /// Takes messages of up to so many bytes, on the wire and decompressed.
    pub fn admit(&mut self, max_bytes: usize) {
        self.max_bytes = max_bytes;
    }

    /// Takes the next message off the front of `input`; `None` if more bytes are needed.
    ///
    /// Never asks for more than a message that is admitted ([`MAX_MESSAGE_BYTES`] unless told
    /// otherwise) and a header.
    pub fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Received>, ProtocolError> {
        loop {
            let Some(header) = self.header(input)? else { return Ok(None) };
            let frame_bytes = header.header_bytes + header.payload_bytes;
            if input.len() < frame_bytes {
                input.reserve(frame_bytes - input.len());
                return Ok(None);
            }
            input.advance(header.header_bytes);
            let mut payload = input.split_to(header.payload_bytes);
            unmask(&mut payload, header.mask);
            match header.opcode {
                Opcode::Ping => return Ok(Some(Received::Ping(payload.freeze()))),
                Opcode::Pong => return Ok(Some(Received::Pong)),
                Opcode::Close => {
                    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    return Ok(Some(Received::Close(code)));
                }
                Opcode::Text | Opcode::Binary | Opcode::Continuation => {
                    if let Some(message) = self.data(&header, payload)? {
                        return Ok(Some(message));
                    }
                }
            }
        }
    }

    /// Reads and checks a header; `None` if it is not complete.
    fn header(&self, input: &[u8]) -> Result<Option<Header>, ProtocolError> {
        let (Some(&first), Some(&second)) = (input.first(), input.get(1)) else { return Ok(None) };
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            _ => return Err(ProtocolError::UnknownOpcode),
        };
        let (fin, compressed) = (first & 0x80 != 0, first & 0x40 != 0);
        let starts_message = matches!(opcode, Opcode::Text | Opcode::Binary);
        if first & 0x30 != 0 || (compressed && !(self.deflate && starts_message)) {
            return Err(ProtocolError::ReservedBits);
        }
        if second & 0x80 == 0 {
            return Err(ProtocolError::Unmasked);
        }
        let length_bytes = match second & 0x7f {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let Some(rest) = input.get(2..2 + length_bytes + 4) else { return Ok(None) };
        let (length, mask) = rest.split_at(length_bytes);
        let payload_bytes = match length_bytes {
            0 => u64::from(second & 0x7f),
            _ => length.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
        };
        let is_control = first & 0x08 != 0;
        if is_control && (!fin || payload_bytes > MAX_CONTROL_BYTES as u64) {
            return Err(ProtocolError::BadControl);
        }
        let held = self.partial.as_ref().map_or(0, |partial| partial.payload.len());
        if !is_control && payload_bytes > self.max_bytes.saturating_sub(held) as u64 {
            return Err(ProtocolError::TooBig);
        }
        Ok(Some(Header {
            fin,
            compressed,
            opcode,
            mask: mask.try_into().unwrap_or_default(),
            header_bytes: 2 + length_bytes + 4,
            payload_bytes: payload_bytes as usize,
        }))
    }

    fn data(
        &mut self,
        header: &Header,
        payload: BytesMut,
    ) -> Result<Option<Received>, ProtocolError> {
        let mut message = match (header.opcode, self.partial.take()) {
            (Opcode::Continuation, Some(mut partial)) => {
                partial.payload.extend_from_slice(&payload);
                partial.frames += 1;
                partial
            }
            (Opcode::Continuation, None) | (_, Some(_)) => return Err(ProtocolError::BadFragment),
            (opcode, None) => Partial {
                text: opcode == Opcode::Text,
                compressed: header.compressed,
                payload,
                frames: 1,
            },
        };
        if message.frames > MAX_FRAGMENTS {
            return Err(ProtocolError::TooBig);
        }
        if !header.fin {
            self.partial = Some(message);
            return Ok(None);
        }
        if message.compressed {
            message.payload = inflate(&message.payload, self.max_bytes)?;
        }
        let payload = message.payload.freeze();
        if !message.text {
            return Ok(Some(Received::Binary(payload)));
        }
        let text = String::from_utf8(payload.into()).map_err(|_| ProtocolError::NotUtf8)?;
        Ok(Some(Received::Text(text)))
    }
}

fn unmask(payload: &mut [u8], mask: [u8; 4]) {
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Appends one whole frame of a server. `compressed`: the payload went through
/// [`super::compress`].
pub fn encode(opcode: Opcode, compressed: bool, payload: &[u8], output: &mut BytesMut) {
    output.reserve(10 + payload.len());
    output.put_u8(0x80 | u8::from(compressed) << 6 | opcode as u8);
    match payload.len() {
        length @ 0..126 => output.put_u8(length as u8),
        length @ 126..0x1_0000 => {
            output.put_u8(126);
            output.put_u16(length as u16);
        }
        length => {
            output.put_u8(127);
            output.put_u64(length as u64);
        }
    }
    output.put_slice(payload);
}

#[cfg(test)]
mod tests {
    use super::super::compress;
    use super::*;
    use proptest::prelude::*;

    /// A frame as a client sends it.
    pub fn client(first: u8, payload: &[u8]) -> BytesMut {
        let mut server = BytesMut::new();
        encode(Opcode::Binary, false, payload, &mut server);
        let header_bytes = server.len() - payload.len();
        let mut frame = BytesMut::from(&server[..header_bytes]);
        frame[0] = first;
        frame[1] |= 0x80;
        let mask = [1, 2, 3, 4];
        frame.extend_from_slice(&mask);
        let mut masked = payload.to_vec();
        unmask(&mut masked, mask);
        frame.extend_from_slice(&masked);
        frame
    }

    fn decode(deflate: bool, input: &[u8]) -> Result<Vec<Received>, ProtocolError> {
        let (mut decoder, mut input) = (Decoder::new(deflate), BytesMut::from(input));
        let mut messages = Vec::new();
        while let Some(message) = decoder.decode(&mut input)? {
            messages.push(message);
        }
        Ok(messages)
    }

    #[test]
    fn messages_of_every_length_form_arrive() {
        for length in [0, 1, 125, 126, 65535, 65536, MAX_MESSAGE_BYTES] {
            let payload = vec![7; length];
            let received = decode(false, &client(0x82, &payload)).unwrap();
            assert_eq!(received, [Received::Binary(payload.into())]);
        }
        let error = decode(false, &client(0x82, &vec![7; MAX_MESSAGE_BYTES + 1])).unwrap_err();
        assert_eq!((error, error.close_code()), (ProtocolError::TooBig, CloseCode::TooBig));
    }

    #[test]
    fn the_admitted_size_holds_on_the_wire_and_decompressed() {
        let try_with = |payload: &[u8], first: u8| {
            let mut decoder = Decoder::new(true);
            decoder.admit(1_000);
            decoder.decode(&mut BytesMut::from(&client(first, payload)[..]))
        };
        assert!(try_with(&[7; 1_000], 0x82).unwrap().is_some());
        assert_eq!(try_with(&[7; 1_001], 0x82), Err(ProtocolError::TooBig));
        let packed = |bytes| compress(&vec![7; bytes]).unwrap();
        assert!(packed(1_001).len() < 100);
        assert!(try_with(&packed(1_000), 0xc2).unwrap().is_some());
        assert_eq!(try_with(&packed(1_001), 0xc2), Err(ProtocolError::TooBig));
        let mut decoder = Decoder::new(true);
        decoder.admit(1_000);
        let mut halves = BytesMut::from(&client(0x02, &[7; 600])[..]);
        halves.extend_from_slice(&client(0x80, &[7; 401]));
        assert_eq!(decoder.decode(&mut halves), Err(ProtocolError::TooBig));
    }

    #[test]
    fn a_message_may_come_in_fragments_with_a_ping_between() {
        let mut input = client(0x01, b"he");
        input.extend_from_slice(&client(0x89, b"p"));
        input.extend_from_slice(&client(0x00, b"ll"));
        input.extend_from_slice(&client(0x80, b"o"));
        let expected = [Received::Ping(Bytes::from_static(b"p")), Received::Text("hello".into())];
        assert_eq!(decode(false, &input).unwrap(), expected);
    }

    #[test]
    fn fragments_are_bounded_together() {
        let mut input = client(0x02, &vec![0; MAX_MESSAGE_BYTES]);
        input.extend_from_slice(&client(0x80, &[0]));
        assert_eq!(decode(false, &input), Err(ProtocolError::TooBig));
        let mut input = client(0x02, b"");
        for _ in 0..MAX_FRAGMENTS {
            input.extend_from_slice(&client(0x00, b""));
        }
        assert_eq!(decode(false, &input), Err(ProtocolError::TooBig));
    }

    #[test]
    fn compressed_messages_arrive_and_bombs_do_not() {
        let text = "the same words, the same words, the same words".repeat(20);
        let packed = compress(text.as_bytes()).unwrap();
        assert!(packed.len() < text.len() / 4);
        assert_eq!(decode(true, &client(0xc1, &packed)).unwrap(), [Received::Text(text)]);
        assert_eq!(decode(false, &client(0xc1, &packed)), Err(ProtocolError::ReservedBits));

        let largest = vec![0; MAX_MESSAGE_BYTES];
        let packed = compress(&largest).unwrap();
        assert_eq!(
            decode(true, &client(0xc2, &packed)).unwrap(),
            [Received::Binary(largest.into())]
        );
        let bomb = compress(&vec![0; MAX_MESSAGE_BYTES + 1]).unwrap();
        assert_eq!(decode(true, &client(0xc2, &bomb)), Err(ProtocolError::TooBig));
        assert_eq!(decode(true, &client(0xc2, &[0xff; 40])), Err(ProtocolError::BadCompression));
    }

    #[test]
    fn breaches_of_the_protocol_are_errors() {
        let cases = [
            (client(0x83, b""), ProtocolError::UnknownOpcode),
            (client(0xa2, b""), ProtocolError::ReservedBits),
            (client(0xc9, b""), ProtocolError::ReservedBits),
            (client(0x80, b""), ProtocolError::BadFragment),
            (client(0x09, b""), ProtocolError::BadControl),
            (client(0x89, &[0; 126]), ProtocolError::BadControl),
            (client(0x81, &[0xff]), ProtocolError::NotUtf8),
            (BytesMut::from(&[0x82, 0x00][..]), ProtocolError::Unmasked),
        ];
        for (input, error) in cases {
            assert_eq!(decode(true, &input), Err(error), "{input:?}");
        }
    }

    #[test]
    fn a_close_may_carry_a_code() {
        assert_eq!(decode(false, &client(0x88, b"")).unwrap(), [Received::Close(None)]);
        assert_eq!(decode(false, &client(0x88, &[3, 232])).unwrap(), [Received::Close(Some(1000))]);
    }

    proptest! {
        #[test]
        fn junk_never_panics(junk: Vec<u8>, deflate: bool) {
            let _ = decode(deflate, &junk);
        }

        #[test]
        fn any_cut_of_the_bytes_gives_the_same_messages(payload: Vec<u8>, cut in 1usize..9) {
            let packed = compress(&payload).unwrap();
            let mut input = client(0x82, &payload);
            input.extend_from_slice(&client(0xc2, &packed));
            let (mut decoder, mut buffer, mut messages) = (Decoder::new(true), BytesMut::new(), Vec::new());
            for chunk in input.chunks(cut) {
                buffer.extend_from_slice(chunk);
                while let Some(message) = decoder.decode(&mut buffer).unwrap() {
                    messages.push(message);
                }
            }
            let payload = Bytes::from(payload);
            prop_assert_eq!(messages, [Received::Binary(payload.clone()), Received::Binary(payload)]);
        }
    }
}
