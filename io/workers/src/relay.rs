//! The rings over which media threads tell each other of tracks; see [`parlor_sfu::Relayed`].

use parlor_model::ShardId;
use parlor_ring::{Waker, ring};
use parlor_sfu::{Relayed, Shard};
use std::{collections::VecDeque, time::Instant};

/// What a ring from one thread to another holds. A packet that finds no room is lost.
const RELAY_RING: usize = 512;

/// What a thread takes of each ring in one turn.
const RELAYED_PER_TURN: usize = RELAY_RING;

/// One thread's ends of the rings to and from another.
pub(crate) struct Relay {
    other: ShardId,
    to: ring::Sender<Relayed>,
    from: ring::Receiver<Relayed>,
    waker: Waker,
    /// What found no room and must not be lost.
    waiting: VecDeque<Relayed>,
    /// The other sleeps and has something to look at.
    must_wake: bool,
}

/// The rings of each of several threads, which are woken by these.
pub(crate) fn connect(wakers: &[Waker]) -> Vec<Vec<Relay>> {
    let mut threads: Vec<Vec<Relay>> = wakers.iter().map(|_| Vec::new()).collect();
    for first in 0..wakers.len() {
        for second in first + 1..wakers.len() {
            let ((to_second, from_first), (to_first, from_second)) =
                (ring::channel(RELAY_RING), ring::channel(RELAY_RING));
            let mut relay = |of: usize, other: usize, to, from| {
                let (waker, other) = (wakers[other].clone(), ShardId(other as u32));
                let waiting = VecDeque::new();
                threads[of].push(Relay { other, to, from, waker, waiting, must_wake: false });
            };
            relay(first, second, to_second, from_second);
            relay(second, first, to_first, from_first);
        }
    }
    threads
}

impl Relay {
    /// Takes in what the other has said. Whether there may be more.
    pub(crate) fn take(&mut self, now: Instant, shard: &mut Shard) -> bool {
        for _ in 0..RELAYED_PER_TURN {
            let Some(relayed) = self.from.pop() else { return false };
            shard.handle_relay(now, self.other, relayed);
        }
        true
    }

    /// Whether the other has said something that has not been taken in.
    pub(crate) fn has_incoming(&self) -> bool {
        !self.from.is_empty()
    }

    /// Whether something waits for room.
    pub(crate) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Hands over what waited for room, and wakes the other if it is to look.
    pub(crate) fn flush(&mut self) {
        if self.to.is_closed() {
            self.waiting.clear();
        }
        while !self.to.is_full()
            && let Some(relayed) = self.waiting.pop_front()
        {
            self.must_wake |= self.to.try_push(relayed).is_ok();
        }
        if std::mem::take(&mut self.must_wake) {
            self.waker.wake();
        }
    }

    /// Hands something over. Whether it was lost.
    fn push(&mut self, relayed: Relayed) -> bool {
        let refused = match self.waiting.is_empty() {
            true => self.to.try_push(relayed).err(),
            false => Some(relayed),
        };
        let Some(relayed) = refused else {
            self.must_wake = true;
            return false;
        };
        let is_lost = relayed.is_packet() || self.to.is_closed();
        if !is_lost {
            self.waiting.push_back(relayed);
        }
        is_lost
    }
}

/// Hands over what a shard has to tell others. How many packets were lost for want of room.
pub(crate) fn hand_over(relays: &mut [Relay], shard: &mut Shard) -> u64 {
    let mut lost = 0;
    while let Some((to, relayed)) = shard.poll_relay() {
        let relay = relays.iter_mut().find(|relay| relay.other == to);
        lost += u64::from(relay.is_none_or(|relay| relay.push(relayed)));
    }
    relays.iter_mut().for_each(Relay::flush);
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use parlor_model::{
        ExtensionIds, Feedback, IceCredentials, MediaDescription, Mid, PeerId, SendSection, Ssrc,
        SubscriptionId, TrackId,
    };
    use parlor_ring::wakeup;
    use parlor_sfu::{
        DtlsIdentity, ShardConfig,
        command::{LocalTransport, MediaCommand},
    };

    const TRACKS: u32 = RELAY_RING as u32 + 100;

    fn shard(id: u32, identity: &DtlsIdentity) -> Shard {
        Shard::new(ShardConfig {
            id: ShardId(id),
            identity: identity.clone(),
            local_addresses: Vec::new(),
            seed: [1; 32],
        })
    }

    /// Subscriptions to tracks of the first thread, which its ring has not room for at once.
    fn subscribe(shard: &mut Shard, now: Instant, tracks: u32) {
        let peer = PeerId::new(ShardId(1), 1);
        let send = (0..tracks).map(|track| SendSection {
            mid: Mid::new("0").unwrap(),
            subscription: SubscriptionId(track),
            track: TrackId::new(ShardId(0), track),
            ssrc: Ssrc(track + 1),
            rtx_ssrc: None,
            cname: "PA".into(),
            codecs: Vec::new(),
            extensions: ExtensionIds::default(),
            feedback: Feedback::default(),
        });
        let media = MediaDescription { receive: Vec::new(), send: send.collect() };
        shard.handle_command(now, MediaCommand::SetMedia { peer, media: Box::new(media) });
    }

    #[test]
    fn what_finds_no_room_waits_in_order_and_nothing_is_lost() {
        let identity = DtlsIdentity::generate().unwrap();
        let now = Instant::now();
        let [mut home, mut guest] = [0, 1].map(|id| shard(id, &identity));
        let ice = IceCredentials { ufrag: "aabb".into(), pwd: "0123456789abcdefghijkl".into() };
        let local = Box::new(LocalTransport { ice, ice_lite: true, opens_channels: false });
        let peer = PeerId::new(ShardId(1), 1);
        guest.handle_command(now, MediaCommand::OpenPeer { peer, local });

        let wakers = [wakeup().unwrap(), wakeup().unwrap()].map(|(waker, _)| waker);
        let mut relays = connect(&wakers).into_iter();
        let (mut of_home, mut of_guest) = (relays.next().unwrap(), relays.next().unwrap());
        let mut carry = |guest: &mut Shard, home: &mut Shard, of_guest: &mut [Relay]| {
            assert_eq!(hand_over(of_guest, guest), 0);
            assert!(of_guest[0].is_behind());
            while of_home[0].has_incoming() {
                of_home[0].take(now, home);
                of_guest[0].flush();
            }
            assert!(!of_guest[0].is_behind());
        };
        subscribe(&mut guest, now, TRACKS);
        carry(&mut guest, &mut home, &mut of_guest);
        assert_eq!(home.num_tracks(), TRACKS as usize);
        // All at once: each is wanted no more, then wanted again.
        subscribe(&mut guest, now, 0);
        subscribe(&mut guest, now, TRACKS);
        carry(&mut guest, &mut home, &mut of_guest);
        assert_eq!(home.num_tracks(), TRACKS as usize);
        subscribe(&mut guest, now, 0);
        carry(&mut guest, &mut home, &mut of_guest);
        assert_eq!(home.num_tracks(), 0);
        drop(of_home);
        // Nothing piles up for one that has ended.
        subscribe(&mut guest, now, TRACKS);
        assert!(hand_over(&mut of_guest, &mut guest) > 0);
        assert!(!of_guest[0].is_behind());
    }
}
