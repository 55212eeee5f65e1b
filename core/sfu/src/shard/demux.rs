//! Whose datagram it is.

use std::time::Instant;

use parlor_model::Path;
use parlor_rtp::{PacketClass, classify};
use parlor_transport::stun_username_ufrag;

use super::{MAX_STUN_TRANSACTIONS, Shard};
use crate::{
    arena::Key,
    peer::{MAX_ADDRESSES, Peer},
};

const STUN_TRANSACTION: std::ops::Range<usize> = 8..20;

impl Shard {
    /// Takes a datagram that came over `path`; it is opened in place.
    ///
    /// An unknown path is only listened to for STUN, which names its peer; that costs one
    /// look-up and keeps no state until the check has proven authentic.
    pub fn handle_datagram(&mut self, now: Instant, path: Path, datagram: &mut [u8]) {
        self.handle_stamped(now, now, path, datagram);
    }

    /// As [`Shard::handle_datagram`], of a datagram that waited to be read since `arrived`. What
    /// publishers are told of their uplink, delay variation and jitter, is true to that time.
    pub fn handle_stamped(
        &mut self,
        now: Instant,
        arrived: Instant,
        path: Path,
        datagram: &mut [u8],
    ) {
        self.epoch.get_or_insert(arrived);
        self.counters.datagrams_received += 1;
        let class = classify(datagram);
        if class == PacketClass::Stun {
            return self.handle_stun(now, path, datagram);
        }
        let Some(&key) = self.addresses.get(&path) else {
            match class {
                PacketClass::Unknown | PacketClass::TurnChannel => {
                    self.counters.dropped_unclassified += 1;
                }
                _ => self.counters.dropped_unknown_address += 1,
            }
            return;
        };
        match class {
            PacketClass::Rtp => self.handle_rtp(now, arrived, key, datagram),
            PacketClass::Rtcp => self.handle_rtcp(now, key, datagram),
            PacketClass::Dtls => {
                if let Some(peer) = self.peers.get_mut(key) {
                    peer.transport.handle_datagram(now, path, datagram);
                }
                self.after_transport(now, key);
            }
            PacketClass::Stun | PacketClass::TurnChannel | PacketClass::Unknown => {
                self.counters.dropped_unclassified += 1;
            }
        }
    }

    fn handle_stun(&mut self, now: Instant, path: Path, datagram: &[u8]) {
        let key = match stun_username_ufrag(datagram) {
            Some(ufrag) => self.ufrags.get(ufrag).copied(),
            // An answer to a check of ours, which may come from where no check has come from yet.
            None => transaction(datagram)
                .and_then(|transaction| self.stun_transactions.get(&transaction).copied())
                .or_else(|| self.addresses.get(&path).copied()),
        };
        let Some((key, peer)) = key.and_then(|key| self.peers.get_mut(key).map(|peer| (key, peer)))
        else {
            self.counters.dropped_unknown_stun += 1;
            return;
        };
        peer.transport.handle_datagram(now, path, datagram);
        if peer.transport.is_validated(path) {
            self.learn_address(key, path);
        } else if peer.transport.was_named(path) && !self.addresses.contains_key(&path) {
            // Its handshake may come before the answer to our check. What another peer has proven
            // to be its own stays that peer's.
            self.learn_address(key, path);
        }
        self.after_transport(now, key);
    }

    /// Whether a peer has named itself over this path.
    pub fn knows(&self, path: Path) -> bool {
        self.addresses.contains_key(&path)
    }

    /// Media and DTLS from this address are the peer's from now on.
    pub(super) fn learn_address(&mut self, key: Key<Peer>, address: Path) {
        if self.addresses.get(&address) == Some(&key) {
            return;
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        if peer.addresses.len() >= MAX_ADDRESSES {
            let unused = peer.addresses.iter().position(|known| Some(*known) != peer.path);
            let oldest = peer.addresses.remove(unused.unwrap_or(0));
            if self.addresses.get(&oldest) == Some(&key) {
                self.addresses.remove(&oldest);
            }
        }
        if !peer.addresses.contains(&address) {
            peer.addresses.push(address);
        }
        self.addresses.insert(address, key);
    }

    /// Remembers a check that we send, to know its answer by.
    pub(super) fn expect_answer(&mut self, key: Key<Peer>, sent: &[u8]) {
        let Some(transaction) = transaction(sent) else { return };
        if self.stun_transactions.insert(transaction, key).is_some() {
            return;
        }
        self.stun_transaction_order.push_back(transaction);
        if self.stun_transaction_order.len() > MAX_STUN_TRANSACTIONS
            && let Some(oldest) = self.stun_transaction_order.pop_front()
        {
            self.stun_transactions.remove(&oldest);
        }
    }
}

fn transaction(datagram: &[u8]) -> Option<[u8; 12]> {
    datagram.get(STUN_TRANSACTION)?.try_into().ok()
}
