//! One port for all media threads. Each has a socket on it, and the kernel deals datagrams out by
//! their source address, so that what comes from one peer comes to one thread, which need not be
//! the peer's. Threads tell each other whose addresses are whose ([`Claim`]); who reads a datagram
//! hands it to its owner.
//!
//! Only what a shard has found authentic makes an address its own. What is nobody's stays where it
//! was read, as it does where each thread has a port.

use crate::{
    link::{Link, connect, link_to},
    relay::{Datagram, Passed},
};
use parlor_model::{Path, ShardId};
use parlor_ring::Waker;
use parlor_sfu::{Claim, Shard, StunTransaction, stun_transaction, stun_username_ufrag};
use std::{
    collections::{HashMap, VecDeque},
    time::Instant,
};

/// Claims that a ring from one thread to another holds; more wait.
const CLAIM_RING: usize = 256;

/// Checks of all threads whose answers are awaited. The oldest is forgotten for a new one.
const MAX_ASKED: usize = 8192;

/// What one thread knows of the others' addresses.
pub(crate) struct SharedPort {
    own: ShardId,
    links: Vec<Link<Claim>>,
    owners: Owners,
    counters: HandoverCounters,
}

/// Datagrams that came to one media thread and were for others.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct HandoverCounters {
    /// Handed to the thread that they are for.
    pub handed_over: u64,
    /// Lost: that thread had no room for them.
    pub full: u64,
    /// Dropped: longer than what any peer sends.
    pub too_long: u64,
}

/// Of each of several threads, which are woken by these.
pub(crate) fn share(wakers: &[Waker]) -> Vec<SharedPort> {
    let links = connect(wakers, CLAIM_RING).into_iter();
    let shared = links.zip(0..).map(|(links, own)| {
        let own = ShardId(own);
        let (owners, counters) = (Owners::new(wakers.len()), HandoverCounters::default());
        SharedPort { own, links, owners, counters }
    });
    shared.collect()
}

impl SharedPort {
    /// Takes in what the others have claimed. To be called after a read and before what was read
    /// is looked at: a peer that was answered by its thread is known by then.
    pub(crate) fn take(&mut self) {
        for link in &mut self.links {
            while let Some(claim) = link.pop() {
                self.owners.learn(link.other, claim);
            }
        }
    }

    /// Tells the others what the shard claims. To be called before the shard's datagrams are sent.
    pub(crate) fn tell(&mut self, shard: &mut Shard) {
        while let Some(claim) = shard.poll_claim() {
            if self.owners.learn(self.own, claim) {
                for link in &mut self.links {
                    link.push(claim);
                }
            }
        }
        self.links.iter_mut().for_each(Link::flush);
    }

    /// Hands a datagram to the thread that it is for, by its link. Whether that is another: what is
    /// nobody's is ours.
    #[inline]
    pub(crate) fn hand_over(
        &mut self,
        links: &mut [Link<Passed>],
        path: Path,
        arrived: Option<Instant>,
        datagram: &[u8],
    ) -> bool {
        let owner = self.owners.of(path, datagram).filter(|shard| *shard != self.own);
        let Some(link) = owner.and_then(|owner| link_to(links, owner)) else { return false };
        let counter = match Datagram::new(path, arrived, datagram) {
            None => &mut self.counters.too_long,
            Some(datagram) => match link.push_or_lose(Passed::Datagram(datagram)) {
                true => &mut self.counters.full,
                false => &mut self.counters.handed_over,
            },
        };
        *counter += 1;
        true
    }

    /// What became of what was for others.
    pub(crate) fn counters(&self) -> HandoverCounters {
        self.counters
    }

    /// Whether others have said something that has not been taken in.
    pub(crate) fn has_incoming(&self) -> bool {
        self.links.iter().any(Link::has_incoming)
    }

    /// Whether a claim waits for room.
    pub(crate) fn is_behind(&self) -> bool {
        self.links.iter().any(Link::is_behind)
    }
}

#[derive(Clone, Copy)]
struct Owner {
    shard: ShardId,
    is_validated: bool,
}

/// Whose datagrams are whose, by the rules of a single shard: a check goes where its ufrag says, an
/// answer to who asked, anything else to the owner of its address; and an address that one peer
/// has changes hands only to one that proves to be there.
struct Owners {
    shards: usize,
    /// As many as the shards know addresses ([`Claim::Forgotten`]): a few for each peer.
    addresses: HashMap<Path, Owner>,
    asked: HashMap<StunTransaction, ShardId>,
    asked_order: VecDeque<StunTransaction>,
}

impl Owners {
    fn new(shards: usize) -> Self {
        Self {
            shards,
            addresses: HashMap::new(),
            asked: HashMap::new(),
            asked_order: VecDeque::new(),
        }
    }

    /// Takes in what `shard` claims. Whether it was news.
    fn learn(&mut self, shard: ShardId, claim: Claim) -> bool {
        match claim {
            Claim::Named(path) => self.own(shard, path, false),
            Claim::Validated(path) => self.own(shard, path, true),
            Claim::Forgotten(path) => {
                if self.addresses.get(&path).is_some_and(|owner| owner.shard == shard) {
                    self.addresses.remove(&path);
                }
                true
            }
            Claim::Asked(path, transaction) => {
                // From there the answer comes to the shard anyway.
                let owner = self.addresses.get(&path);
                let is_known = owner.is_some_and(|of| of.shard == shard && of.is_validated);
                if !is_known {
                    self.expect_answer(shard, transaction);
                }
                !is_known
            }
        }
    }

    fn own(&mut self, shard: ShardId, path: Path, is_validated: bool) -> bool {
        let owner = self.addresses.get(&path);
        let is_news = owner.is_none_or(|owner| match owner.shard == shard {
            true => is_validated && !owner.is_validated,
            false => is_validated,
        });
        if is_news {
            self.addresses.insert(path, Owner { shard, is_validated });
        }
        is_news
    }

    fn expect_answer(&mut self, shard: ShardId, transaction: StunTransaction) {
        if self.asked.insert(transaction, shard).is_some() {
            return;
        }
        self.asked_order.push_back(transaction);
        if self.asked_order.len() > MAX_ASKED
            && let Some(oldest) = self.asked_order.pop_front()
        {
            self.asked.remove(&oldest);
        }
    }

    #[inline]
    fn of(&self, path: Path, datagram: &[u8]) -> Option<ShardId> {
        if is_stun(datagram) {
            if let Some(ufrag) = stun_username_ufrag(datagram) {
                return ShardId::of_ufrag(ufrag).filter(|shard| (shard.0 as usize) < self.shards);
            }
            let asked = stun_transaction(datagram).and_then(|it| self.asked.get(&it));
            if let Some(&shard) = asked {
                return Some(shard);
            }
        }
        self.addresses.get(&path).map(|owner| owner.shard)
    }
}

/// RFC 7983.
fn is_stun(datagram: &[u8]) -> bool {
    matches!(datagram.first(), Some(0..=3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_ring::wakeup;
    use parlor_sfu::SLOT_BYTES;

    const MEDIA: [u8; 12] = [0x80; 12];
    const OWN: ShardId = ShardId(0);
    const BOB: ShardId = ShardId(1);
    const EVE: ShardId = ShardId(2);

    fn at(port: u16) -> Path {
        Path::udp(([10, 0, 0, 1], 7882).into(), ([10, 0, 0, 2], port).into())
    }

    /// What answers the check with this number, or looks like it.
    fn answer(number: u16) -> [u8; 20] {
        let mut answer = [0; 20];
        answer[..2].copy_from_slice(&[1, 1]);
        answer[8..].copy_from_slice(&transaction(number));
        answer
    }

    fn transaction(number: u16) -> StunTransaction {
        let mut transaction = [7; 12];
        transaction[..2].copy_from_slice(&number.to_be_bytes());
        transaction
    }

    fn check_for(ufrag: &str) -> Vec<u8> {
        let name = format!("{ufrag}:them");
        let len = name.len() as u8;
        let head = [&[0, 1, 0, len + 4, 0x21, 0x12, 0xa4, 0x42][..], &[0; 12], &[0, 6, 0, len]];
        [head.concat(), name.into_bytes()].concat()
    }

    #[test]
    fn an_address_changes_hands_only_to_who_is_there() {
        let mut owners = Owners::new(3);
        assert_eq!(owners.of(at(1), &MEDIA), None);
        assert!(owners.learn(BOB, Claim::Named(at(1))));
        assert_eq!(owners.of(at(1), &MEDIA), Some(BOB));
        // Eve's check may be forged: what is Bob's stays his, whether he has proven it or not.
        assert!(!owners.learn(EVE, Claim::Named(at(1))));
        assert!(owners.learn(BOB, Claim::Validated(at(1))));
        assert!(!owners.learn(BOB, Claim::Validated(at(1))), "once is enough");
        assert!(!owners.learn(EVE, Claim::Named(at(1))));
        owners.learn(EVE, Claim::Forgotten(at(1)));
        assert_eq!(owners.of(at(1), &MEDIA), Some(BOB));
        assert!(owners.learn(EVE, Claim::Validated(at(1))));
        assert_eq!(owners.of(at(1), &MEDIA), Some(EVE));
        // Bob's next check would get it back; his peer goes instead, and then Eve's.
        owners.learn(BOB, Claim::Forgotten(at(1)));
        assert_eq!(owners.of(at(1), &MEDIA), Some(EVE));
        owners.learn(EVE, Claim::Forgotten(at(1)));
        assert_eq!((owners.of(at(1), &MEDIA), owners.addresses.len()), (None, 0));
    }

    #[test]
    fn a_check_goes_where_its_ufrag_says_wherever_it_comes_from() {
        let mut owners = Owners::new(3);
        owners.learn(BOB, Claim::Validated(at(1)));
        let to_eve = check_for(&(EVE.ufrag_prefix() + "QWERTY"));
        assert_eq!(owners.of(at(1), &to_eve), Some(EVE));
        assert_eq!(owners.of(at(2), &to_eve), Some(EVE));
        // A thread that there is not, and none.
        for ufrag in [ShardId(3).ufrag_prefix(), "?".to_owned()] {
            assert_eq!(owners.of(at(1), &check_for(&ufrag)), None);
        }
    }

    #[test]
    fn an_answer_goes_to_who_asked_and_what_nobody_asked_to_the_owner() {
        let mut owners = Owners::new(3);
        owners.learn(EVE, Claim::Named(at(1)));
        // Eve was first to name where Bob is; he still hears that he is there.
        assert!(owners.learn(BOB, Claim::Asked(at(1), transaction(1))));
        assert_eq!(owners.of(at(1), &answer(1)), Some(BOB));
        assert_eq!(owners.of(at(9), &answer(1)), Some(BOB), "from elsewhere too");
        assert_eq!(owners.of(at(1), &answer(2)), Some(EVE));
        assert_eq!(owners.of(at(9), &answer(2)), None);
        // Where the answer comes from is known: not worth a word, as long as it is.
        owners.learn(BOB, Claim::Validated(at(1)));
        assert!(!owners.learn(BOB, Claim::Asked(at(1), transaction(3))));
        assert!(owners.learn(EVE, Claim::Asked(at(1), transaction(4))));
        assert_eq!(owners.of(at(1), &answer(4)), Some(EVE));
        assert_eq!(owners.of(at(1), &answer(3)), Some(BOB));
    }

    #[test]
    fn checks_are_remembered_up_to_a_bound() {
        let mut owners = Owners::new(3);
        for number in 0..=MAX_ASKED as u16 {
            assert_eq!(owners.of(at(1), &answer(0)).is_some(), number > 0);
            owners.learn(BOB, Claim::Asked(at(1), transaction(number)));
        }
        assert_eq!((owners.asked.len(), owners.asked_order.len()), (MAX_ASKED, MAX_ASKED));
        assert_eq!(owners.of(at(1), &answer(0)), None);
        assert_eq!(owners.of(at(1), &answer(1)), Some(BOB));
    }

    #[test]
    fn what_is_for_another_goes_there_as_it_came_and_what_finds_no_room_is_counted() {
        let wakers = [wakeup().unwrap(), wakeup().unwrap()].map(|(waker, _)| waker);
        let mut shared = share(&wakers).remove(0);
        let mut links = connect(&wakers, 2).into_iter();
        let (mut links, mut of_bob) = (links.next().unwrap(), links.next().unwrap());
        shared.owners.learn(BOB, Claim::Validated(at(1)));
        shared.owners.learn(OWN, Claim::Validated(at(2)));
        let arrived = Some(Instant::now());
        let mut pass = |port, datagram: &[u8]| {
            let handed = shared.hand_over(&mut links, at(port), arrived, datagram);
            (handed, shared.counters())
        };
        assert_eq!(pass(2, &MEDIA), (false, HandoverCounters::default()));
        assert_eq!(pass(3, &MEDIA), (false, HandoverCounters::default()));
        let longest = vec![0x81; SLOT_BYTES + 1];
        pass(1, &longest[1..]);
        pass(1, &longest);
        pass(1, &MEDIA);
        let counters = HandoverCounters { handed_over: 2, full: 1, too_long: 1 };
        assert_eq!(pass(1, b"no room"), (true, counters));
        for sent in [&longest[1..], &MEDIA] {
            let Some(Passed::Datagram(mut datagram)) = of_bob[0].pop() else { panic!("{sent:?}") };
            assert_eq!((datagram.path, datagram.arrived), (at(1), arrived));
            assert_eq!(datagram.bytes_mut(), sent);
        }
        assert!(of_bob[0].pop().is_none());
    }
}
