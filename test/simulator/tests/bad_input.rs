//! What strangers and broken clients send: nobody else notices, and nothing stays behind.
#![allow(clippy::unwrap_used)]

use parlor_client::Model;
use parlor_node::{Counts, io::Frame};
use parlor_simulator::{Invitation, SourceKind, World};
use parlor_transport::DtlsIdentity;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Alice speaks to Bob, who hears her.
fn call() -> (World, usize, usize) {
    let mut world = World::new(5, &DtlsIdentity::generate().unwrap());
    let alice = world.invite(Invitation::new("alice", Model::Single));
    let bob = world.invite(Invitation::new("bob", Model::Single));
    let now = world.now();
    world.guest(alice).publish(now, "microphone", SourceKind::Audio);
    let heard = world.run_until(5 * SECOND, |world| world.guest(bob).complete_frames() > 10);
    assert!(heard);
    (world, alice, bob)
}

/// That Bob still hears Alice, every packet.
fn still_heard(world: &mut World, bob: usize) {
    let before = world.guest(bob).complete_frames();
    world.run(2 * SECOND);
    let heard = world.guest(bob).complete_frames() - before;
    assert!(heard >= 99, "{heard} of 100 packets in two seconds");
    assert_eq!(world.violations(), Vec::<String>::new());
}

#[test]
fn a_million_stun_packets_of_strangers_change_nothing() {
    let (mut world, _, bob) = call();
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let before = *world.shard().counters();
    for n in 0..1_000_000_u32 {
        let mut packet = vec![0, 1, 0, 16, 0x21, 0x12, 0xA4, 0x42];
        packet.extend(rng.random::<[u8; 12]>());
        packet.extend([0, 6, 0, 9]);
        packet.extend(format!("abcd:{:04x}", n & 0xFFFF).bytes());
        packet.extend([0, 0, 0]);
        let from = ([192, 0, 2, n as u8], 1024 + (n >> 8) as u16);
        world.inject(from.into(), packet);
    }
    let after = world.shard().counters();
    assert_eq!(after.dropped_unknown_stun - before.dropped_unknown_stun, 1_000_000);
    still_heard(&mut world, bob);
}

#[test]
fn junk_from_strangers_and_from_the_peers_own_address_is_counted_and_dropped() {
    let (mut world, alice, bob) = call();
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    for from in [world.address(alice), "192.0.2.9:9".parse().unwrap()] {
        for first in [0_u8, 1, 3, 20, 21, 22, 23, 25, 63, 64, 79, 127, 128, 144, 191, 200, 255] {
            for len in [0, 1, 4, 12, 13, 20, 40, 200, 1500] {
                let mut packet = vec![0; len];
                rng.fill_bytes(&mut packet);
                if let Some(byte) = packet.first_mut() {
                    *byte = first;
                }
                world.inject(from, packet);
            }
        }
    }
    let counters = world.shard().counters();
    for (cause, count) in [
        ("unclassified", counters.dropped_unclassified),
        ("unknown STUN", counters.dropped_unknown_stun),
        ("unknown address", counters.dropped_unknown_address),
        ("unknown SSRC", counters.dropped_unknown_ssrc),
        ("malformed", counters.dropped_malformed),
    ] {
        assert!(count > 0, "{cause}: {counters:?}");
    }
    still_heard(&mut world, bob);
}

#[test]
fn cleartext_dtls_from_the_peers_own_address_is_not_noticed() {
    let (mut world, alice, bob) = call();
    let record = |content_type: u8, body: &[u8]| {
        let mut record = vec![content_type, 0xFE, 0xFD, 0, 0, 0, 0, 0, 0, 0, 9];
        record.extend((body.len() as u16).to_be_bytes());
        record.extend(body);
        record
    };
    let fatal_alert = record(21, &[2, 40]);
    let close_notify = record(21, &[1, 0]);
    let client_hello = record(22, &[1, 0, 0, 40, 0, 0, 0, 0, 0, 0, 0, 40, 0xFE, 0xFD]);
    let fragment = record(22, &[11, 0, 4, 0, 0, 5, 0, 1, 0, 0, 0, 3, 1, 2, 3]);
    let application_data = record(23, b"not encrypted");
    for guest in [alice, bob] {
        for packet in [&fatal_alert, &close_notify, &client_hello, &fragment, &application_data] {
            world.inject(world.address(guest), packet.clone());
        }
    }
    still_heard(&mut world, bob);
    let (alice_closed, bob_closed) = (world.guest(alice).has_left(), world.guest(bob).has_left());
    assert!(!alice_closed && !bob_closed);
}

#[test]
fn two_hundred_clients_that_never_negotiate_are_cut_and_forgotten() {
    let (mut world, _, bob) = call();
    let before = world.node().counts();
    for n in 0..200 {
        world.connect_in_silence(&format!("silent {n}"), &format!("room {}", n % 20));
    }
    assert_eq!(world.node().counts().participants, before.participants + 200);
    // A minute to become active, then 20 s for the rooms that everybody has left.
    world.run(100 * SECOND);
    assert_eq!(world.node().counts(), before);
    still_heard(&mut world, bob);
}

#[test]
fn broken_signal_messages_end_only_their_sender() {
    let (mut world, _, bob) = call();
    let garbage: [&[u8]; 4] = [b"\xFF\xFF\xFF", b"\x0A\xFF", b"garbage", &[0x08; 5000]];
    for (n, bytes) in garbage.into_iter().enumerate() {
        let guest = world.invite(Invitation::new(&format!("vandal {n}"), Model::Single));
        world.run(SECOND);
        world.say(guest, Frame::Binary(bytes.to_vec().into()));
        world.run(SECOND);
        assert!(world.guest(guest).has_left(), "frame {n} ends the socket");
    }
    let guest = world.invite(Invitation::new("text", Model::Single));
    world.say(guest, Frame::Text("{\"nonsense\": ".into()));
    still_heard(&mut world, bob);
}

#[test]
fn a_session_description_that_is_garbage_ends_nobody_else() {
    let (mut world, _, bob) = call();
    let texts = ["", "v=0", "v=0\r\nm=audio", "\0\0\0", &"a=mid:0\r\n".repeat(10_000)];
    for (n, text) in texts.into_iter().enumerate() {
        let guest = world.invite(Invitation::new(&format!("vandal {n}"), Model::Pair));
        world.run(SECOND);
        for kind in ["offer", "answer", "rollback"] {
            let description = livekit_protocol::SessionDescription {
                r#type: kind.into(),
                sdp: text.into(),
                id: 999,
                ..Default::default()
            };
            let client = world.guest(guest).client();
            use livekit_protocol::signal_request::Message;
            client.request(Message::Offer(description.clone()));
            client.request(Message::Answer(description));
        }
        world.run(SECOND);
    }
    still_heard(&mut world, bob);
}

#[test]
fn when_everybody_has_left_nothing_is_held() {
    let (mut world, alice, bob) = call();
    for guest in [alice, bob] {
        world.guest(guest).client().leave();
    }
    world.run(60 * SECOND);
    assert_eq!(world.node().counts(), Counts::default());
}
