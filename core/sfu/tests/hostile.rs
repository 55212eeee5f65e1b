//! Junk, floods, impostors, moving peers and slow readers: counted, bounded, and nobody else's
//! trouble.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::net::SocketAddr;

use common::{SERVER, World, media::*, ms};
use parlor_model::{Codec, DataChannel, Path, PeerId, Ssrc, SubscriptionId};
use parlor_sfu::command::{MediaCommand, MediaEvent, PeerFailure, SubscriptionSettings};
use parlor_transport::DtlsIdentity;

fn opus() -> Vec<parlor_model::CodecBinding> {
    vec![binding(Codec::Opus, 109, None)]
}

/// Alice speaks to Bob.
fn call() -> (World, usize, usize, AudioSource) {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![audio_section("0", 10)]);
    world.subscribe(bob, vec![audio_subscription("0", 20, 10, 1000, opus())]);
    let mut microphone = AudioSource::new(40, "0");
    speak(&mut world, alice, &mut microphone, 10);
    (world, alice, bob, microphone)
}

fn speak(world: &mut World, client: usize, microphone: &mut AudioSource, packets: usize) {
    for _ in 0..packets {
        world.clients[client].send_rtp(&microphone.next());
        world.run(ms(20));
    }
}

fn heard(world: &World, client: usize) -> usize {
    world.clients[client].checker.packets(Ssrc(1000))
}

fn inject(world: &mut World, from: SocketAddr, datagram: &[u8]) {
    let mut datagram = datagram.to_vec();
    world.shard.handle_datagram(world.now, Path::udp(SERVER.parse().unwrap(), from), &mut datagram);
}

#[test]
fn a_flood_of_unknown_stun_is_counted_and_costs_nothing_else() {
    let (mut world, alice, bob, mut microphone) = call();
    let mut request = vec![0, 1, 0, 12, 0x21, 0x12, 0xa4, 0x42];
    request.extend([0; 12]);
    request.extend([0, 6, 0, 5]);
    request.extend(*b"nope:");
    request.extend([0; 3]);
    for port in 0..60_000u16 {
        let from = SocketAddr::from(([10, 0, (port >> 8) as u8, port as u8], 1 + port));
        request[8..10].copy_from_slice(&port.to_be_bytes());
        inject(&mut world, from, &request);
    }
    assert_eq!(world.counters().dropped_unknown_stun, 60_000);
    // With a name that is right and a password that is not: the address proves nothing.
    let from = SocketAddr::from(([10, 9, 9, 9], 9));
    let named = [&request[..20], &[0, 6, 0, 15], b"server1:client1", &[0]].concat();
    inject(&mut world, from, &named);
    let before = heard(&world, bob);
    let stolen = {
        let packet = microphone.next();
        world.clients[alice].seal(&packet)
    };
    inject(&mut world, from, &stolen);
    world.run(ms(5));
    assert_eq!(heard(&world, bob), before);
    assert_eq!(world.counters().dropped_unknown_address, 1);
    speak(&mut world, alice, &mut microphone, 10);
    assert_eq!(heard(&world, bob), before + 10);
    world.assert_clean();
}

#[test]
fn junk_from_anywhere_is_counted() {
    let (mut world, alice, bob, mut microphone) = call();
    let before = heard(&world, bob);
    let alice_address = world.clients[alice].address;
    let stranger = SocketAddr::from(([10, 0, 0, 1], 5));
    for len in 0..200usize {
        for first in [0x00, 0x16, 0x17, 0x15, 0x40, 0x80, 0x90, 0xff] {
            let junk: Vec<u8> =
                (0..len).map(|at| if at == 0 { first } else { (at * 31 + len) as u8 }).collect();
            inject(&mut world, alice_address, &junk);
            inject(&mut world, stranger, &junk);
        }
    }
    speak(&mut world, alice, &mut microphone, 10);
    assert_eq!(heard(&world, bob), before + 10);
    assert!(!world.saw(|event| matches!(event, MediaEvent::PeerFailed { .. })));
    world.assert_clean();
}

#[test]
fn unknown_ssrcs_are_dropped_before_any_work_and_keep_no_state() {
    let (mut world, alice, bob, mut microphone) = call();
    let before = world.counters();
    for ssrc in 0..5000 {
        let stray = packet(100_000 + ssrc, 77, 1, 1, false, &[(MID_ID, b"9")], b"x");
        let sealed = world.clients[alice].address;
        // Not even sealed: it does not get so far.
        inject(&mut world, sealed, &stray);
    }
    let after = world.counters();
    assert_eq!(after.dropped_unknown_ssrc - before.dropped_unknown_ssrc, 5000);
    assert_eq!(after.dropped_unauthentic, before.dropped_unauthentic);
    // One that claims Alice's section but was not sealed by her takes over nothing.
    let address = world.clients[alice].address;
    let forged = packet(7777, 111, 1, 1, false, &[(MID_ID, b"0")], &[0; 40]);
    inject(&mut world, address, &forged);
    assert_eq!(world.counters().dropped_unauthentic, before.dropped_unauthentic + 1);
    let heard_before = heard(&world, bob);
    speak(&mut world, alice, &mut microphone, 10);
    assert_eq!(heard(&world, bob), heard_before + 10);
    world.assert_clean();
}

#[test]
fn a_publisher_may_change_its_ssrc() {
    let (mut world, alice, bob, mut microphone) = call();
    let before = heard(&world, bob);
    for ssrc in 41..60 {
        microphone.ssrc = ssrc;
        microphone.sequence = microphone.sequence.wrapping_mul(31);
        microphone.timestamp = microphone.timestamp.wrapping_mul(17);
        speak(&mut world, alice, &mut microphone, 5);
    }
    assert_eq!(heard(&world, bob), before + 95);
    assert_eq!(world.clients[bob].checker.missing(Ssrc(1000)), 19, "a hole at each change");
    world.assert_clean();
}

#[test]
fn a_peer_that_moves_keeps_its_session() {
    let (mut world, alice, bob, mut microphone) = call();
    let before = heard(&world, bob);
    let old = world.clients[alice].address;
    let new = SocketAddr::from(([127, 0, 0, 1], 33_333));
    // A NAT gives Alice another port; she notices nothing.
    world.rebind(alice, new);
    world.clients[alice].send_rtp(&microphone.next());
    world.run(ms(1));
    assert_eq!(world.counters().dropped_unknown_address, 1, "not before a check");
    world.run(ms(6000));
    speak(&mut world, alice, &mut microphone, 20);
    assert_eq!(heard(&world, bob), before + 20);
    assert_ne!(old, new);
    assert!(!world.saw(|event| matches!(event, MediaEvent::PeerFailed { .. })));
    world.assert_clean();
}

#[test]
fn a_wrong_certificate_is_refused_before_any_key_is_used() {
    let mut world = World::new();
    let alice = world.open_with_fingerprint_of(1, DtlsIdentity::generate().unwrap());
    let peer = PeerId(1);
    let failed = MediaEvent::PeerFailed { peer, reason: PeerFailure::FingerprintMismatch };
    world.run_until(ms(10_000), |world| world.saw(|event| *event == failed));
    assert!(!world.saw(|event| matches!(event, MediaEvent::PeerConnected { .. })));
    world.publish(alice, vec![audio_section("0", 10)]);
    let address = world.clients[alice].address;
    inject(&mut world, address, &packet(40, 111, 1, 1, false, &[(MID_ID, b"0")], &[0; 40]));
    assert_eq!(world.counters().rtp_received, 0);
}

#[test]
fn data_crosses_and_a_slow_reader_hurts_itself_only() {
    let (mut world, alice, bob, mut microphone) = call();
    world.run_until(ms(5000), |world| {
        [PeerId(1), PeerId(2)].into_iter().all(|peer| {
            [DataChannel::Reliable, DataChannel::Lossy].into_iter().all(|channel| {
                world.saw(|event| *event == MediaEvent::ChannelOpen { peer, channel })
            })
        })
    });
    world.clients[alice].transport.send_data(world.now, DataChannel::Reliable, b"up").unwrap();
    world.send_data(&[alice, bob], DataChannel::Lossy, b"down");
    world.run(ms(50));
    assert!(world.saw(|event| matches!(
        event,
        MediaEvent::Data { peer: PeerId(1), channel: DataChannel::Reliable, data } if data == "up"
    )));
    for client in [alice, bob] {
        assert_eq!(world.clients[client].data, [(DataChannel::Lossy, b"down".to_vec())]);
    }
    // Bob answers nothing any more; more and more waits for him.
    world.loss = Box::new(|peer, _| peer == PeerId(2));
    let message = vec![7; 16_000];
    for _ in 0..40 {
        world.send_data(&[alice, bob], DataChannel::Lossy, &message);
        world.run(ms(10));
    }
    assert!(world.counters().data_dropped_lossy > 10);
    let failed = |peer| {
        move |event: &MediaEvent| {
            *event == MediaEvent::PeerFailed { peer, reason: PeerFailure::SlowReceiver }
        }
    };
    for _ in 0..200 {
        world.send_data(&[alice, bob], DataChannel::Reliable, &message);
        world.run(ms(10));
        if world.saw(failed(PeerId(2))) {
            break;
        }
    }
    assert!(world.saw(failed(PeerId(2))));
    assert!(!world.saw(failed(PeerId(1))));
    assert!(world.clients[alice].data.len() > 60);
    speak(&mut world, alice, &mut microphone, 2);
    // Sent to nobody, and no harm done.
    world.send_data(&[bob], DataChannel::Reliable, b"x");
    world.command(MediaCommand::ClosePeer { peer: PeerId(2) });
    world.command(MediaCommand::ClosePeer { peer: PeerId(2) });
    world.send_data(&[alice], DataChannel::Reliable, b"still here");
    world.run(ms(50));
    assert!(world.clients[alice].data.last().unwrap().1 == b"still here");
}

#[test]
fn a_silent_peer_fails_and_its_close_frees_everything() {
    let (mut world, alice, bob, mut microphone) = call();
    world.loss = Box::new(|peer, _| peer == PeerId(2));
    let deaf = world.clients.remove(bob);
    for _ in 0..18_000 / 20 {
        speak(&mut world, alice, &mut microphone, 1);
    }
    let disconnected = MediaEvent::PeerDisconnected { peer: deaf.id };
    let failed = MediaEvent::PeerFailed { peer: deaf.id, reason: PeerFailure::ConnectionTimeout };
    assert!(world.saw(|event| *event == disconnected));
    assert!(world.saw(|event| *event == failed));
    let sent = world.counters().rtp_sent;
    speak(&mut world, alice, &mut microphone, 10);
    assert_eq!(world.counters().rtp_sent, sent, "nothing goes to a failed peer");
    for peer in [deaf.id, PeerId(1)] {
        world.command(MediaCommand::ClosePeer { peer });
    }
    world.run(ms(10));
    assert_eq!(world.shard.poll_timeout(), None);
    assert!(world.shard.is_empty());
}

#[test]
fn two_hundred_peers_that_never_connect_leave_nothing_behind() {
    let mut world = World::new();
    for id in 1..=200 {
        world.open(id);
    }
    world.clients.clear();
    world.run(ms(100));
    for id in 1..=200 {
        world.command(MediaCommand::ClosePeer { peer: PeerId(id) });
    }
    assert!(world.shard.is_empty());
}

#[test]
fn what_a_peer_is_owed_is_bounded() {
    const MAX_QUEUED: u64 = 1024;
    let (mut world, alice, bob, mut microphone) = call();
    let before = world.counters();
    let address = world.clients[alice].address;
    for _ in 0..MAX_QUEUED + 100 {
        let next = microphone.next();
        let sealed = world.clients[alice].seal(&next);
        inject(&mut world, address, &sealed);
    }
    world.run(ms(1));
    let after = world.counters();
    let refused = after.unsent_queue_full - before.unsent_queue_full;
    assert!((90..=100).contains(&refused), "{refused}");
    // The history of so slow a sender holds less than that; what is gone is counted too.
    let left = after.rtp_sent - before.rtp_sent;
    assert_eq!(left + after.unsent_history - before.unsent_history + refused, MAX_QUEUED + 100);
    assert!(left >= 100);
    speak(&mut world, alice, &mut microphone, 10);
    assert!(heard(&world, bob) > 10);
    world.assert_clean();
}

#[test]
fn what_is_told_ahead_is_bounded_and_the_newest_counts() {
    const MAX_AHEAD: u32 = 16_384;
    let (mut world, alice, bob, mut microphone) = call();
    let settings = SubscriptionSettings { enabled: false, ..SubscriptionSettings::default() };
    for id in 1000..=1000 + MAX_AHEAD {
        let subscription = SubscriptionId(id);
        world.command(MediaCommand::SetSubscription { subscription, settings });
    }
    for id in 100_000..=100_000 + MAX_AHEAD {
        world.command(MediaCommand::StopSubscription {
            subscription: SubscriptionId(id),
            blank: false,
        });
    }
    let mut received = Vec::new();
    for id in [1000, 1001, 100_000, 100_001] {
        world.subscribe(bob, vec![audio_subscription("0", id, 10, 1000, opus())]);
        let before = heard(&world, bob);
        speak(&mut world, alice, &mut microphone, 3);
        received.push(heard(&world, bob) - before);
    }
    assert_eq!(received, [3, 0, 3, 0]);
    world.assert_clean();
}

#[test]
fn a_peer_that_moves_and_moves_has_few_addresses() {
    let (mut world, alice, bob, mut microphone) = call();
    let first = world.clients[alice].address;
    for port in 0..12 {
        world.rebind(alice, SocketAddr::from(([127, 0, 0, 1], 33_000 + port)));
        world.run(ms(7000));
    }
    let before = heard(&world, bob);
    speak(&mut world, alice, &mut microphone, 5);
    assert_eq!(heard(&world, bob), before + 5);
    let refused = world.counters().dropped_unknown_address;
    let next = microphone.next();
    let sealed = world.clients[alice].seal(&next);
    inject(&mut world, first, &sealed);
    assert_eq!(world.counters().dropped_unknown_address, refused + 1, "its first is forgotten");
}
