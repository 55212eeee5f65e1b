//! One connection: frames in, frames out, and a bound on what waits for a slow reader.

use super::frame::{FrameTooLong, PREFIX_BYTES, split_frame, split_frame_mut};
use crate::{MAX_FRAME_BYTES, TcpCounters, socket::set};
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
};

/// Most bytes that wait here for one reader, frames with their lengths: a keyframe, or a second
/// at 1 Mbit/s. What does not fit is dropped.
pub const MAX_QUEUED_BYTES: usize = 128 << 10;

/// Most bytes that wait in the kernel before they are under way. With the kernel's own bound of
/// megabytes, a slow reader would see a picture of long ago.
const MAX_UNSENT_BYTES: i32 = 32 << 10;

/// An empty queue that had grown beyond this is given back.
const KEPT_QUEUE_BYTES: usize = 16 << 10;

/// The longest first frame of a connection, in bytes: a check of ICE.
pub const MAX_FIRST_FRAME_BYTES: usize = 1500;

/// Bytes that one read asks for.
const READ_BYTES: usize = 64 << 10;

/// Frames that leave in one system call.
const FRAMES_PER_CALL: usize = 32;

/// Memory to read into. One per thread serves all its connections.
pub struct TcpBuffer(Box<[u8]>);

impl TcpBuffer {
    /// An empty buffer.
    pub fn new() -> Self {
        Self(vec![0; PREFIX_BYTES + MAX_FRAME_BYTES + READ_BYTES].into())
    }
}

impl Default for TcpBuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for TcpBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TcpBuffer")
    }
}

/// Why a connection is of no use any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gone {
    /// The peer has closed it, or the network has lost it.
    Closed,
    /// What comes is not framed.
    Malformed,
}

impl From<FrameTooLong> for Gone {
    fn from(_: FrameTooLong) -> Self {
        Gone::Malformed
    }
}

/// An accepted or a made connection that never blocks, for one thread at a time.
#[derive(Debug)]
pub struct TcpConnection {
    stream: TcpStream,
    local: SocketAddr,
    remote: SocketAddr,
    /// What has been read and is no whole frame yet (before the first [`TcpConnection::recv`]:
    /// the first frame). Shorter than the longest frame.
    partial: Vec<u8>,
    /// Frames that the kernel had no room for.
    queued: VecDeque<u8>,
    counters: TcpCounters,
}

impl TcpConnection {
    /// Takes over a connected stream.
    ///
    /// # Errors
    /// When it is not connected any more.
    pub fn new(stream: TcpStream, remote: SocketAddr) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        set(&stream, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)?;
        let local = stream.local_addr()?;
        Ok(Self {
            stream,
            local,
            remote,
            partial: Vec::new(),
            queued: VecDeque::new(),
            counters: TcpCounters::default(),
        })
    }

    /// Our address and port.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// The peer's.
    pub fn remote_address(&self) -> SocketAddr {
        self.remote
    }

    /// What went through, and what did not; from then on it counts anew.
    pub fn take_counters(&mut self) -> TcpCounters {
        std::mem::take(&mut self.counters)
    }

    /// The first frame, once it is there; [`TcpConnection::recv`] will hand it over again.
    ///
    /// # Errors
    /// [`Gone`], also where the frame is longer than [`MAX_FIRST_FRAME_BYTES`] or empty.
    pub fn first_frame(&mut self) -> Result<Option<&[u8]>, Gone> {
        let mut bytes = [0; PREFIX_BYTES + MAX_FIRST_FRAME_BYTES];
        let room = bytes.len() - self.partial.len().min(bytes.len());
        let read = read(&mut self.stream, bytes.get_mut(..room).unwrap_or_default())?;
        self.partial.extend_from_slice(bytes.get(..read).unwrap_or_default());
        if let Some(prefix) = self.partial.first_chunk::<PREFIX_BYTES>()
            && !(1..=MAX_FIRST_FRAME_BYTES).contains(&usize::from(u16::from_be_bytes(*prefix)))
        {
            return Err(Gone::Malformed);
        }
        Ok(split_frame(&self.partial)?.0)
    }

    /// Reads once and calls `handle` for each frame that is whole now. Returns how many bytes
    /// came; 0 means that none waits.
    ///
    /// # Errors
    /// [`Gone`], after the frames before it.
    pub fn recv(
        &mut self,
        buffer: &mut TcpBuffer,
        mut handle: impl FnMut(&mut [u8]),
    ) -> Result<usize, Gone> {
        let begun = self.partial.len();
        let TcpBuffer(bytes) = buffer;
        let (before, room) = bytes.split_at_mut(begun);
        before.copy_from_slice(&self.partial);
        self.partial.clear();
        let read = read(&mut self.stream, room);
        let count = *read.as_ref().unwrap_or(&0);
        self.counters.received_bytes += count as u64;
        let mut rest = bytes.get_mut(..begun + count).unwrap_or_default();
        loop {
            let (frame, after) = split_frame_mut(rest)?;
            rest = after;
            match frame {
                // Empty ones keep connections alive (RFC 4571 section 2).
                Some([]) => {}
                Some(frame) => {
                    self.counters.received_datagrams += 1;
                    handle(frame);
                }
                None => break,
            }
        }
        self.partial.extend_from_slice(rest);
        read
    }

    /// Sends datagrams, each in a frame. What the kernel has no room for waits, up to
    /// [`MAX_QUEUED_BYTES`]; the rest is dropped and counted. `Ok(true)`: something waits.
    ///
    /// # Errors
    /// [`Gone`]: the connection takes nothing any more.
    pub fn send(&mut self, datagrams: &[&[u8]]) -> Result<bool, Gone> {
        for datagrams in datagrams.chunks(FRAMES_PER_CALL) {
            self.send_some(datagrams)?;
        }
        Ok(!self.queued.is_empty())
    }

    fn send_some(&mut self, datagrams: &[&[u8]]) -> Result<(), Gone> {
        let mut prefixes = [[0; PREFIX_BYTES]; FRAMES_PER_CALL];
        for (prefix, datagram) in prefixes.iter_mut().zip(datagrams) {
            *prefix = (datagram.len() as u16).to_be_bytes();
        }
        let mut taken = 0;
        if self.queued.is_empty() {
            let mut slices = [IoSlice::new(&[]); 2 * FRAMES_PER_CALL];
            let frames = slices.chunks_exact_mut(2).zip(prefixes.iter().zip(datagrams));
            for (pair, (prefix, datagram)) in frames {
                pair.copy_from_slice(&[IoSlice::new(prefix), IoSlice::new(datagram)]);
            }
            let slices = slices.get(..2 * datagrams.len()).unwrap_or_default();
            self.counters.send_calls += 1;
            taken = wrote(self.stream.write_vectored(slices))?;
        }
        for (prefix, datagram) in prefixes.iter().zip(datagrams) {
            let size = PREFIX_BYTES + datagram.len();
            if taken >= size {
                taken -= size;
            } else if taken > 0 || self.queued.len() + size <= MAX_QUEUED_BYTES {
                // One that has begun has to end.
                let frame = prefix.iter().chain(datagram.iter()).copied();
                self.queued.extend(frame.skip(taken));
                taken = 0;
            } else {
                self.counters.send_queue_full += 1;
                continue;
            }
            self.counters.sent_datagrams += 1;
            self.counters.sent_bytes += size as u64;
        }
        Ok(())
    }

    /// Sends what waits, as far as there is room. Whether something still waits.
    ///
    /// # Errors
    /// [`Gone`]: the connection takes nothing any more.
    pub fn flush(&mut self) -> Result<bool, Gone> {
        while !self.queued.is_empty() {
            let (first, second) = self.queued.as_slices();
            self.counters.send_calls += 1;
            let slices = [IoSlice::new(first), IoSlice::new(second)];
            match wrote(self.stream.write_vectored(&slices))? {
                0 => return Ok(true),
                count => drop(self.queued.drain(..count)),
            }
        }
        if self.queued.capacity() > KEPT_QUEUE_BYTES {
            self.queued = VecDeque::new();
        }
        Ok(false)
    }

    /// Bytes that wait for the reader.
    pub fn queued_bytes(&self) -> usize {
        self.queued.len()
    }
}

impl AsFd for TcpConnection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// 0 when nothing waits, or when there is no room to read into.
fn read(stream: &mut TcpStream, room: &mut [u8]) -> Result<usize, Gone> {
    match stream.read(room) {
        Ok(0) if !room.is_empty() => Err(Gone::Closed),
        Ok(count) => Ok(count),
        Err(error) if is_passing(&error) => Ok(0),
        Err(_) => Err(Gone::Closed),
    }
}

fn wrote(result: io::Result<usize>) -> Result<usize, Gone> {
    match result {
        Ok(count) => Ok(count),
        Err(error) if is_passing(&error) => Ok(0),
        Err(_) => Err(Gone::Closed),
    }
}

fn is_passing(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
