//! Whose datagram it is.

use std::time::Instant;

use parlor_model::{Path, TransportProtocol};
use parlor_rtp::{PacketClass, classify};
use parlor_transport::{stun_transaction, stun_username_ufrag};

use super::{MAX_STUN_TRANSACTIONS, Shard};
use crate::{
    arena::Key,
    claim::Claim,
    peer::{MAX_ADDRESSES, Peer},
};

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
            None => stun_transaction(datagram)
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
            self.claim(Claim::Validated(path));
        } else if peer.transport.was_named(path) && !self.addresses.contains_key(&path) {
            // Its handshake may come before the answer to our check. What another peer has proven
            // to be its own stays that peer's.
            self.learn_address(key, path);
            self.claim(Claim::Named(path));
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
            self.forget_address(key, oldest);
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        if !peer.addresses.contains(&address) {
            peer.addresses.push(address);
        }
        self.addresses.insert(address, key);
    }

    /// The address is not this peer's any more. It may have become another's.
    pub(super) fn forget_address(&mut self, key: Key<Peer>, address: Path) {
        if self.addresses.get(&address) == Some(&key) {
            self.addresses.remove(&address);
            self.claim(Claim::Forgotten(address));
        }
    }

    /// Has it told from now on what [`Shard::poll_claim`] yields: others receive on its port.
    pub fn share_port(&mut self) {
        self.claims.get_or_insert_default();
    }

    /// What those are to know who receive on its port, in this order. Poll until there is none
    /// before anything of a flush is sent, for its answer may come to another.
    pub fn poll_claim(&mut self) -> Option<Claim> {
        self.claims.as_mut()?.pop_front()
    }

    pub(super) fn claim(&mut self, claim: Claim) {
        let (Claim::Named(path)
        | Claim::Validated(path)
        | Claim::Forgotten(path)
        | Claim::Asked(path, _)) = claim;
        if let Some(claims) = &mut self.claims
            && path.protocol == TransportProtocol::Udp
        {
            claims.push_back(claim);
        }
    }

    /// Remembers a check that we send, to know its answer by.
    pub(super) fn expect_answer(&mut self, key: Key<Peer>, path: Path, sent: &[u8]) {
        let Some(transaction) = stun_transaction(sent) else { return };
        self.claim(Claim::Asked(path, transaction));
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
