//! What media threads pass to each other: packets and news of tracks ([`parlor_sfu::Relayed`]), and,
//! where they share a port, datagrams that another has read.

use crate::link::{Link, link_to};
use parlor_model::Path;
use parlor_sfu::{Relayed, SLOT_BYTES, Shard};
use std::time::Instant;

/// What a ring from one thread to another holds. A packet that finds no room is lost.
pub(crate) const RELAY_RING: usize = 512;

/// What all rings to one thread of many hold where each hands over datagrams to each: then all of
/// them are used, and become memory.
const SHARED_SLOTS: usize = 16 * RELAY_RING;

/// What a ring from one of so many threads to another holds.
pub(crate) fn ring_slots(threads: usize, shares_port: bool) -> usize {
    match shares_port {
        true => (SHARED_SLOTS / threads.max(1)).clamp(RELAY_RING / 8, RELAY_RING),
        false => RELAY_RING,
    }
}

/// What a thread takes of each ring in one turn.
const RELAYED_PER_TURN: usize = RELAY_RING;

/// What lies in a ring.
#[allow(clippy::large_enum_variant)] // Nearly all are packets, and these must not be allocated.
pub(crate) enum Passed {
    Relayed(Relayed),
    Datagram(Datagram),
}

/// A datagram as it came.
pub(crate) struct Datagram {
    pub(crate) path: Path,
    /// When the kernel received it.
    pub(crate) arrived: Option<Instant>,
    len: usize,
    bytes: [u8; SLOT_BYTES],
}

impl Datagram {
    /// `None` where it is longer than what any peer sends.
    pub(crate) fn new(path: Path, arrived: Option<Instant>, datagram: &[u8]) -> Option<Self> {
        let mut bytes = [0; SLOT_BYTES];
        bytes.get_mut(..datagram.len())?.copy_from_slice(datagram);
        Some(Self { path, arrived, len: datagram.len(), bytes })
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        self.bytes.get_mut(..self.len).unwrap_or_default()
    }
}

impl Link<Passed> {
    /// Takes in what the other has said; `handle` gets the datagrams. Whether there may be more.
    pub(crate) fn take(
        &mut self,
        now: Instant,
        shard: &mut Shard,
        mut handle: impl FnMut(&mut Shard, Datagram),
    ) -> bool {
        for _ in 0..RELAYED_PER_TURN {
            match self.pop() {
                Some(Passed::Relayed(relayed)) => shard.handle_relay(now, self.other, relayed),
                Some(Passed::Datagram(datagram)) => handle(shard, datagram),
                None => return false,
            }
        }
        true
    }
}

/// Hands over what a shard has to tell others. How many packets were lost for want of room.
pub(crate) fn hand_over(links: &mut [Link<Passed>], shard: &mut Shard) -> u64 {
    let mut lost = 0;
    while let Some((to, relayed)) = shard.poll_relay() {
        let may_be_lost = relayed.is_packet();
        let passed = Passed::Relayed(relayed);
        let is_lost = link_to(links, to).is_none_or(|link| match may_be_lost {
            true => link.push_or_lose(passed),
            false => link.push(passed),
        });
        lost += u64::from(is_lost);
    }
    links.iter_mut().for_each(Link::flush);
    lost
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::connect;
    use parlor_model::{
        ExtensionIds, Feedback, IceCredentials, MediaDescription, Mid, PeerId, SendSection,
        ShardId, Ssrc, SubscriptionId, TrackId,
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
    fn many_threads_on_one_port_have_no_more_memory_each_than_some() {
        assert_eq!([2, 16, 32, 64, 500].map(|n| ring_slots(n, true)), [512, 512, 256, 128, 64]);
        assert_eq!(ring_slots(64, false), 512);
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
        let mut relays = connect(&wakers, RELAY_RING).into_iter();
        let (mut of_home, mut of_guest) = (relays.next().unwrap(), relays.next().unwrap());
        let mut carry = |guest: &mut Shard, home: &mut Shard, of_guest: &mut [Link<Passed>]| {
            assert_eq!(hand_over(of_guest, guest), 0);
            assert!(of_guest[0].is_behind());
            while of_home[0].has_incoming() {
                of_home[0].take(now, home, |_, _| unreachable!());
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
