//! Where a [`crate::Shard`] writes what it sends.

use parlor_model::Path;

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

/// Send slots of the caller: filled by [`crate::Shard::flush`], sent, cleared, filled again.
pub struct SendBatch {
    bytes: Box<[u8]>,
    used: usize,
    runs: Vec<RunPlace>,
    max_runs: usize,
}

impl SendBatch {
    /// Slots for this many datagrams, all memory taken now.
    pub fn new(datagrams: usize) -> Self {
        let datagrams = datagrams.max(1);
        Self {
            bytes: vec![0; datagrams * SLOT_BYTES].into_boxed_slice(),
            used: 0,
            runs: Vec::with_capacity(datagrams),
            max_runs: datagrams,
        }
    }

    /// The next free slot; `None` when the batch is full and must be sent first.
    #[inline]
    pub fn slot(&mut self) -> Option<&mut [u8]> {
        if self.runs.len() >= self.max_runs {
            return None;
        }
        self.bytes.get_mut(self.used..self.used + SLOT_BYTES)
    }

    /// Whether there are so many free slots.
    #[inline]
    pub fn has_room(&self, datagrams: usize) -> bool {
        self.runs.len() + datagrams <= self.max_runs
            && self.used + datagrams * SLOT_BYTES <= self.bytes.len()
    }

    /// Makes the first `len_bytes` of the slot a datagram over `path`, joined to the run before it
    /// where destination and size allow.
    #[inline]
    pub fn commit(&mut self, path: &Path, len_bytes: usize) {
        let is_along = self
            .runs
            .last()
            .is_some_and(|run| run.room > 0 && run.path.remote == path.remote && run.path == *path);
        match is_along {
            true => self.commit_along(path, len_bytes),
            false => self.commit_apart(path, len_bytes),
        }
    }

    /// As [`Self::commit`] where the run before goes to the same destination.
    #[inline]
    pub fn commit_along(&mut self, path: &Path, len_bytes: usize) {
        if let Some(run) = self.runs.last_mut()
            && run.room > 0
            && len_bytes <= run.segment_bytes
            && len_bytes > 0
        {
            self.used += len_bytes;
            run.end = self.used;
            // A shorter one is the last of its run.
            run.room = if len_bytes == run.segment_bytes { run.room - 1 } else { 0 };
            return;
        }
        self.commit_apart(path, len_bytes);
    }

    /// As [`Self::commit`] of a datagram that begins a run of its own.
    #[inline]
    pub fn commit_apart(&mut self, path: &Path, len_bytes: usize) {
        let len_bytes = len_bytes.min(SLOT_BYTES);
        if len_bytes == 0 {
            return;
        }
        let start = self.used;
        self.used += len_bytes;
        let (end, room) = (self.used, MAX_RUN_DATAGRAMS - 1);
        self.runs.push(RunPlace { path: *path, start, end, segment_bytes: len_bytes, room });
    }

    /// What has been committed, in order.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.runs.iter().map(|run| Run {
            path: run.path,
            segment_bytes: run.segment_bytes,
            bytes: self.bytes.get(run.start..run.end).unwrap_or(&[]),
        })
    }

    /// Whether nothing has been committed.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Forgets all that was committed; the memory stays.
    pub fn clear(&mut self) {
        self.used = 0;
        self.runs.clear();
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
        for _ in 0..9 {
            fill(&mut batch, 9, SLOT_BYTES);
        }
        assert_eq!(shape(&batch), [(9, SLOT_BYTES, 8 * SLOT_BYTES), (9, SLOT_BYTES, SLOT_BYTES)]);
        for _ in 0..3 {
            fill(&mut batch, 9, SLOT_BYTES);
        }
        assert!(batch.slot().is_none());
        batch.clear();
        assert!(batch.is_empty());
        for to in 0..12 {
            fill(&mut batch, to, 1);
        }
        assert!(batch.slot().is_none());
    }
}
