//! Protobuf as fields, for messages that are not decoded as a whole.

use prost::encoding::{
    DecodeContext, WireType, decode_key, decode_varint, encode_key, encode_varint,
    encoded_len_varint,
};

/// Bytes that are no protobuf message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NotProtobuf;

pub(crate) fn put_varint(out: &mut Vec<u8>, number: u32, value: u64) {
    encode_key(number, WireType::Varint, out);
    encode_varint(value, out);
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_length(out, number, value.len());
    out.extend_from_slice(value);
}

/// What comes before so many bytes.
pub(crate) fn put_length(out: &mut Vec<u8>, number: u32, length: usize) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

/// How much a field with a number below 16 takes whose value has so many bytes.
pub(crate) fn bytes_len(length: usize) -> usize {
    1 + encoded_len_varint(length as u64) + length
}

pub(crate) struct Field<'a> {
    pub(crate) number: u32,
    pub(crate) value: Value<'a>,
    /// Key and value as they stand.
    pub(crate) raw: &'a [u8],
}

pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    Fixed,
}

/// The fields of one protobuf message, in order. Ends after the first error.
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(crate) fn of(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn read(&mut self) -> Result<Field<'a>, NotProtobuf> {
        let start = self.rest;
        let bad = |_| NotProtobuf;
        let (number, wire_type) = decode_key(&mut self.rest).map_err(bad)?;
        let value = match wire_type {
            WireType::Varint => Value::Varint(decode_varint(&mut self.rest).map_err(bad)?),
            WireType::LengthDelimited => {
                let length = decode_varint(&mut self.rest).map_err(bad)?;
                let length = usize::try_from(length).map_err(|_| NotProtobuf)?;
                let (value, rest) = self.rest.split_at_checked(length).ok_or(NotProtobuf)?;
                self.rest = rest;
                Value::Bytes(value)
            }
            wire_type => {
                prost::encoding::skip_field(
                    wire_type,
                    number,
                    &mut self.rest,
                    DecodeContext::default(),
                )
                .map_err(bad)?;
                Value::Fixed
            }
        };
        let raw = &start[..start.len() - self.rest.len()];
        Ok(Field { number, value, raw })
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, NotProtobuf>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
    }
}
