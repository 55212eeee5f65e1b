//! Where a [`crate::Shard`] writes what it sends.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use parlor_model::{Path, TransportProtocol};

/// Most datagrams in one run, which is one `sendmsg` with UDP segmentation offload.
pub const MAX_RUN_DATAGRAMS: usize = 8;

/// Room for one datagram, in bytes. No datagram that leaves is longer.
pub const SLOT_BYTES: usize = 1500;

/// Datagrams to one destination that leave together: all of `segment_bytes` but the last, which
/// may be shorter. A run of one is a plain datagram.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// Where they leave from and go.
    pub path: Path,
    /// Bytes of each datagram but the last.
    pub segment_bytes: usize,
    /// The datagrams, one after the other.
    pub bytes: &'a [u8],
}

impl<'a> Run<'a> {
    /// The datagrams one by one.
    pub fn datagrams(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.bytes.chunks(self.segment_bytes.max(1))
    }
}

#[derive(Clone, Copy)]
struct RunPlace {
    path: Path,
    start: usize,
    end: usize,
    segment_bytes: usize,
    /// Datagrams that may still join.
    room: usize,
}

const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
const EMPTY: RunPlace = RunPlace {
    path: Path { protocol: TransportProtocol::Udp, local: NOWHERE, remote: NOWHERE },
    start: 0,
    end: 0,
    segment_bytes: 0,
    room: 0,
};

/// Send slots of the caller: filled by [`crate::Shard::flush`], sent, cleared, filled again.
pub struct SendBatch {
    bytes: Box<[u8]>,
    used: usize,
    /// As many as there may be, of which so many are.
    runs: Box<[RunPlace]>,
    len: usize,
}

impl SendBatch {
    /// Slots for this many datagrams, all memory taken now.
    pub fn new(datagrams: usize) -> Self {
        let datagrams = datagrams.max(1);
        Self {
            bytes: vec![0; datagrams * SLOT_BYTES].into_boxed_slice(),
            used: 0,
            runs: vec![EMPTY; datagrams].into_boxed_slice(),
            len: 0,
        }
    }

    /// The next free slot; `None` when the batch is full and must be sent first.
    #[inline]
    pub fn slot(&mut self) -> Option<&mut [u8]> {
        if self.len >= self.runs.len() {
            return None;
        }
        self.bytes.get_mut(self.used..self.used + SLOT_BYTES)
    }

    /// How many free slots there are, whatever becomes of each.
    pub fn room(&self) -> usize {
        let free_bytes = self.bytes.len().saturating_sub(self.used);
        self.runs.len().saturating_sub(self.len).min(free_bytes / SLOT_BYTES)
    }

    /// Makes the first `len_bytes` of the slot a datagram over `path`, joined to the run before it
    /// where destination and size allow.
    pub fn commit(&mut self, path: &Path, len_bytes: usize) {
        let is_along = self
            .last()
            .is_some_and(|run| run.room > 0 && run.path.remote == path.remote && run.path == *path);
        match is_along {
            _ if len_bytes == 0 => {}
            true => self.commit_along(path, len_bytes),
            false => self.commit_apart(path, len_bytes),
        }
    }

    /// As [`Self::commit`] where the run before goes to the same destination and there is a
    /// datagram.
    #[inline]
    pub(crate) fn commit_along(&mut self, path: &Path, len_bytes: usize) {
        let end = self.used + len_bytes;
        if let Some(run) = self.last()
            && run.room > 0
            && len_bytes <= run.segment_bytes
        {
            run.end = end;
            // A shorter one is the last of its run.
            run.room = if len_bytes == run.segment_bytes { run.room - 1 } else { 0 };
            self.used = end;
            return;
        }
        self.commit_apart(path, len_bytes);
    }

    /// As [`Self::commit`] of a datagram that begins a run of its own.
    #[inline(always)]
    pub(crate) fn commit_apart(&mut self, path: &Path, len_bytes: usize) {
        let len_bytes = len_bytes.min(SLOT_BYTES);
        let (start, end) = (self.used, self.used + len_bytes);
        if let Some(run) = self.runs.get_mut(self.len) {
            // Field by field: what is put together first is copied twice.
            run.path = *path;
            (run.start, run.end) = (start, end);
            (run.segment_bytes, run.room) = (len_bytes, MAX_RUN_DATAGRAMS - 1);
            self.len += 1;
            self.used = end;
        }
    }

    #[inline]
    fn last(&mut self) -> Option<&mut RunPlace> {
        self.runs.get_mut(self.len.checked_sub(1)?)
    }

    /// What has been committed, in order.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.runs.iter().take(self.len).map(|run| Run {
            path: run.path,
            segment_bytes: run.segment_bytes,
            bytes: self.bytes.get(run.start..run.end).unwrap_or(&[]),
        })
    }

    /// Whether nothing has been committed.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all that was committed; the memory stays.
    pub fn clear(&mut self) {
        self.used = 0;
        self.len = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    fn fill(batch: &mut SendBatch, to: u16, len: usize) {
        batch.slot().unwrap().fill(len as u8);
        batch.commit(&Path::udp(address(1), address(to)), len);
    }

    fn shape(batch: &SendBatch) -> Vec<(u16, usize, usize)> {
        batch
            .runs()
            .map(|run| (run.path.remote.port(), run.segment_bytes, run.bytes.len()))
            .collect()
    }

    #[test]
    fn equal_datagrams_to_one_destination_become_a_run_with_a_short_tail() {
        let mut batch = SendBatch::new(16);
        for len in [100, 100, 40, 40, 100] {
            fill(&mut batch, 9, len);
        }
        fill(&mut batch, 10, 100);
        assert_eq!(shape(&batch), [(9, 100, 240), (9, 40, 40), (9, 100, 100), (10, 100, 100)]);
        let lens: Vec<_> = batch.runs().flat_map(|run| run.datagrams()).map(<[u8]>::len).collect();
        assert_eq!(lens, [100, 100, 40, 40, 100, 100]);
    }

    #[test]
    fn a_run_ends_at_its_bound_and_a_batch_at_its_capacity() {
        let mut batch = SendBatch::new(12);
        assert_eq!(batch.room(), 12);
        for _ in 0..9 {
            fill(&mut batch, 9, SLOT_BYTES);
        }
        assert_eq!(batch.room(), 3);
        assert_eq!(shape(&batch), [(9, SLOT_BYTES, 8 * SLOT_BYTES), (9, SLOT_BYTES, SLOT_BYTES)]);
        for _ in 0..3 {
            fill(&mut batch, 9, SLOT_BYTES);
        }
        assert_eq!(batch.room(), 0);
        assert!(batch.slot().is_none());
        batch.clear();
        assert!(batch.is_empty());
        for to in 0..12 {
            fill(&mut batch, to, 1);
        }
        assert!(batch.slot().is_none());
    }
}
