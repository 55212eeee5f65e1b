//! Compression of whole messages, RFC 7692 section 7.2. No context is kept between messages, so
//! one compressor and one decompressor serve every socket of a thread.

use super::ProtocolError;
use bytes::{BufMut, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::cell::RefCell;

/// What ends each compressed message, and is left out on the wire.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
const CHUNK_BYTES: usize = 4096;

thread_local! {
    static COMPRESSOR: RefCell<Compress> = RefCell::new(Compress::new(Compression::fast(), false));
    static DECOMPRESSOR: RefCell<Decompress> = RefCell::new(Decompress::new(false));
}

/// The payload of a compressed message. `None` if the compressor fails, which it has no reason to.
pub fn compress(message: &[u8]) -> Option<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|compressor| {
        compressor.reset();
        let mut output = Vec::with_capacity(message.len() / 2 + 64);
        loop {
            let rest = message.get(compressor.total_in() as usize..)?;
            compressor.compress_vec(rest, &mut output, FlushCompress::Sync).ok()?;
            if compressor.total_in() as usize == message.len() && output.len() < output.capacity() {
                break;
            }
            output.reserve(CHUNK_BYTES);
        }
        if output.ends_with(&TAIL) {
            output.truncate(output.len() - TAIL.len());
        }
        if output.is_empty() {
            output.push(0);
        }
        Some(output)
    })
}

/// The message of a compressed payload, at most `limit_bytes` long.
pub fn inflate(payload: &[u8], limit_bytes: usize) -> Result<BytesMut, ProtocolError> {
    DECOMPRESSOR.with_borrow_mut(|decompressor| {
        decompressor.reset(false);
        let mut output = BytesMut::new();
        for input in [payload, &TAIL] {
            let start = decompressor.total_in();
            loop {
                let consumed = (decompressor.total_in() - start) as usize;
                let mut chunk = [0; CHUNK_BYTES];
                let before = decompressor.total_out();
                let status = decompressor
                    .decompress(
                        input.get(consumed..).unwrap_or(&[]),
                        &mut chunk,
                        FlushDecompress::Sync,
                    )
                    .map_err(|_| ProtocolError::BadCompression)?;
                let produced = (decompressor.total_out() - before) as usize;
                if output.len() + produced > limit_bytes {
                    return Err(ProtocolError::TooBig);
                }
                output.put_slice(chunk.get(..produced).unwrap_or(&[]));
                if status == Status::StreamEnd {
                    return Ok(output);
                }
                let done = (decompressor.total_in() - start) as usize == input.len();
                if done && produced < CHUNK_BYTES {
                    break;
                }
                if !done && produced == 0 && (decompressor.total_in() - start) as usize == consumed
                {
                    return Err(ProtocolError::BadCompression);
                }
            }
        }
        Ok(output)
    })
}
