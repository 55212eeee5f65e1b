//! Messages to peers, and what becomes of them where a peer reads them slowly.
//!
//! Reliable messages wait in the transport of who reads them, up to a bound. Without a threshold
//! a reader beyond that bound ends. With one (`datachannel_slow_threshold` in LiveKit), a reader
//! for whom [`FULL_BYTES`] wait holds those back who send to it: nothing more is read from them,
//! so their own channels fill, until less waits or the reader has shown to be too slow. One that
//! is too slow holds nobody, and misses what there is no room for.

use std::time::{Duration, Instant};

use parlor_model::{DataChannel, PeerId};
use parlor_transport::SendDataError;

use super::Shard;
use crate::{
    arena::Key,
    command::PeerFailure,
    drain::DrainRate,
    peer::{Peer, bring_forward},
    relay::{Relayed, Word},
};

/// Reliable bytes that wait for a reader before it holds its senders back, or misses messages.
pub const FULL_BYTES: usize = 256 << 10;
/// What waits then once its senders go on.
const RESUMED_BYTES: usize = FULL_BYTES / 2;
/// How often a reader that holds senders back is judged.
const PATIENCE: Duration = Duration::from_millis(50);

/// A peer as reader of reliable messages, and as their sender.
#[derive(Default)]
pub(crate) struct Reading {
    rate: DrainRate,
    /// Who is held back until this peer has read, wherever they are.
    holds: Vec<PeerId>,
    /// How many others hold this peer back.
    held_by: usize,
}

impl Shard {
    /// Readers of reliable data slower than this, in bits a second, miss messages instead of
    /// holding their senders back; 0: nobody is held back, and a slow reader ends.
    pub fn set_slow_reader_threshold(&mut self, bps: u64) {
        self.slow_reader_bps = bps;
    }

    pub(super) fn send_data(
        &mut self,
        now: Instant,
        from: Option<PeerId>,
        id: PeerId,
        channel: DataChannel,
        data: &[u8],
    ) {
        let peer = self.peer_keys.get(&id).copied().and_then(|key| {
            let peer = self.peers.get_mut(key);
            peer.filter(|peer| !peer.failed || peer.lost_path).map(|peer| (key, peer))
        });
        let Some((key, peer)) = peer else {
            self.counters.data_dropped_unreachable += 1;
            return;
        };
        let is_judged = channel == DataChannel::Reliable && self.slow_reader_bps > 0;
        if is_judged {
            let waiting = peer.transport.buffered_amount_bytes(channel);
            peer.reading.rate.sample(now, waiting);
            let is_slow = peer.reading.rate.bps().is_some_and(|bps| bps < self.slow_reader_bps);
            if is_slow && waiting + data.len() > FULL_BYTES {
                self.counters.data_dropped_slow_reader += 1;
                return;
            }
        }
        match peer.transport.send_data(now, channel, data) {
            Ok(()) => {
                if is_judged {
                    self.hold_back(now, key, from);
                }
                self.after_transport(now, key);
            }
            Err(SendDataError::BufferFull) if channel == DataChannel::Reliable => {
                self.fail_peer(key, PeerFailure::SlowReceiver);
                self.release_senders(now);
            }
            Err(SendDataError::BufferFull) => self.counters.data_dropped_lossy += 1,
            Err(SendDataError::NotOpen | SendDataError::TooLarge) => {
                self.counters.data_dropped_unreachable += 1;
            }
        }
    }

    /// Reads no more of a sender if enough waits for this reader.
    fn hold_back(&mut self, now: Instant, reader: Key<Peer>, sender: Option<PeerId>) {
        let Some(peer) = self.peers.get_mut(reader) else { return };
        let waiting = peer.transport.buffered_amount_bytes(DataChannel::Reliable);
        peer.reading.rate.added(now, waiting);
        let id = peer.id;
        let Some(sender) = sender.filter(|sender| waiting >= FULL_BYTES && *sender != id) else {
            return;
        };
        if peer.reading.holds.contains(&sender) {
            return;
        }
        peer.reading.holds.push(sender);
        bring_forward(&mut peer.deadlines.reading, now + PATIENCE);
        self.hold(now, sender);
    }

    /// One more reader holds a sender back.
    pub(super) fn hold(&mut self, now: Instant, sender: PeerId) {
        if sender.home() != self.config.id {
            return self.relays.push_back((sender.home(), Relayed(Word::Hold(sender))));
        }
        let key = self.peer_keys.get(&sender);
        let Some(sender) = key.and_then(|key| self.peers.get_mut(*key)) else { return };
        sender.reading.held_by += 1;
        if sender.reading.held_by == 1 {
            self.counters.senders_held_back += 1;
            sender.transport.hold_reliable(now, true);
        }
    }

    /// Judges a reader that holds senders back.
    pub(super) fn judge_reading(&mut self, now: Instant, key: Key<Peer>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let waiting = peer.transport.buffered_amount_bytes(DataChannel::Reliable);
        peer.reading.rate.sample(now, waiting);
        if peer.reading.rate.bps().is_some_and(|bps| bps < self.slow_reader_bps) {
            self.readers_done.push(key);
        } else if !peer.reading.holds.is_empty() {
            peer.deadlines.reading = Some(now + PATIENCE);
        }
    }

    /// Notes a reader that has read enough, or never will.
    pub(super) fn note_reading(&mut self, key: Key<Peer>) {
        if let Some(peer) = self.peers.get_mut(key)
            && !peer.reading.holds.is_empty()
            && (peer.failed
                || peer.transport.buffered_amount_bytes(DataChannel::Reliable) <= RESUMED_BYTES)
        {
            self.readers_done.push(key);
        }
    }

    /// Lets those go on who were held back by readers that were noted.
    pub(super) fn release_senders(&mut self, now: Instant) {
        while let Some(reader) = self.readers_done.pop() {
            let Some(peer) = self.peers.get_mut(reader) else { continue };
            peer.deadlines.reading = None;
            for sender in std::mem::take(&mut peer.reading.holds) {
                self.release(now, sender);
            }
        }
    }

    /// One reader less holds a sender back.
    pub(super) fn release(&mut self, now: Instant, sender: PeerId) {
        if sender.home() != self.config.id {
            return self.relays.push_back((sender.home(), Relayed(Word::Release(sender))));
        }
        let Some(&key) = self.peer_keys.get(&sender) else { return };
        let Some(sender) = self.peers.get_mut(key) else { return };
        sender.reading.held_by = sender.reading.held_by.saturating_sub(1);
        if sender.reading.held_by == 0 {
            sender.transport.hold_reliable(now, false);
            self.take_from_transport(now, key);
        }
    }

    /// Lets those go on whom a peer held back that is no more.
    pub(super) fn forget_reader(&mut self, now: Instant, reading: Reading) {
        for sender in reading.holds {
            self.release(now, sender);
        }
        self.release_senders(now);
    }
}
