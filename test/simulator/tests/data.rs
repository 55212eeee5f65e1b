//! Data between guests whose links differ.
#![allow(clippy::unwrap_used)]

use livekit_protocol as proto;
use parlor_client::{ClientEvent, Model};
use parlor_model::DataChannel;
use parlor_netem::LinkConfig;
use parlor_sfu::{Counters, FULL_BYTES};
use parlor_simulator::{Invitation, SourceKind, World};
use parlor_transport::{DtlsIdentity, MAX_RELIABLE_BUFFERED_BYTES};
use std::time::{Duration, Instant};

const SECOND: Duration = Duration::from_secs(1);
const MESSAGE_BYTES: usize = 15_000;

/// Alice, Bob with a good link, and Carol whose link brings 50 kbit/s.
fn meeting(model: Model) -> (World, [usize; 3]) {
    meeting_at(model, 1, 50_000, 0)
}

/// The same on so many media threads, with another link of Carol's and
/// `rtc.datachannel_slow_threshold`.
fn meeting_at(
    model: Model,
    threads: u16,
    rate_bps: u64,
    threshold_bps: u64,
) -> (World, [usize; 3]) {
    let mut world = World::with_shards(21, &DtlsIdentity::generate().unwrap(), threads);
    world.set_slow_reader_threshold(threshold_bps);
    let slow = LinkConfig {
        delay: Duration::from_millis(10),
        rate_bps: Some(rate_bps),
        ..LinkConfig::default()
    };
    // She takes no audio: it would fill the link.
    let carol = Invitation { down: slow, auto_subscribe: false, ..Invitation::new("carol", model) };
    let alice = Invitation::new("alice", model);
    let guests = [alice, Invitation::new("bob", model), carol].map(|who| world.invite(who));
    let open = ClientEvent::ChannelOpen(DataChannel::Reliable);
    let ready = world.run_until(30 * SECOND, |world| {
        guests.iter().all(|&guest| {
            world.guest(guest).is_connected() && world.guest(guest).events.contains(&open)
        })
    });
    assert!(ready);
    (world, guests)
}

fn message(number: u32) -> proto::DataPacket {
    let mut payload = vec![number as u8; MESSAGE_BYTES];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    let user = proto::UserPacket { payload, ..Default::default() };
    proto::DataPacket { value: Some(proto::data_packet::Value::User(user)), ..Default::default() }
}

/// The numbers of the messages that came, and the sequence numbers that the server kept.
fn numbers(world: &mut World, guest: usize) -> Vec<(u32, u32)> {
    let numbered = |(_, packet): &(DataChannel, proto::DataPacket)| match &packet.value {
        Some(proto::data_packet::Value::User(user)) if user.payload.len() == MESSAGE_BYTES => {
            let number = u32::from_be_bytes(user.payload[..4].try_into().unwrap());
            Some((number, packet.sequence))
        }
        _ => None,
    };
    world.guest(guest).data.iter().filter_map(numbered).collect()
}

/// Alice sends this many messages as fast as her channel takes them; returns how long that took
/// and how long until Bob had them all.
fn pour(world: &mut World, [alice, bob, _]: [usize; 3], count: u32) -> Duration {
    let begun: Instant = world.now().instant;
    let mut next = 1;
    let done = world.run_until(60 * SECOND, |world| {
        let now = world.now();
        while next <= count {
            let client = world.guest(alice).client();
            if !client.send_data(now, DataChannel::Reliable, message(next)) {
                break;
            }
            next += 1;
        }
        numbers(world, bob).len() == count as usize
    });
    assert!(done, "{} of {count} messages", numbers(world, bob).len());
    world.now().instant - begun
}

#[test]
fn a_slow_receiver_of_a_megabyte_slows_nobody() {
    for model in [Model::Single, Model::Pair] {
        let (mut world, guests) = meeting(model);
        let [alice, bob, carol] = guests;
        let now = world.now();
        world.guest(alice).publish(now, "microphone", SourceKind::Audio);
        let heard = world.run_until(5 * SECOND, |world| world.guest(bob).complete_frames() > 10);
        assert!(heard);
        let before = world.guest(bob).complete_frames();

        let took = pour(&mut world, guests, 66);
        assert!(took < 3 * SECOND, "{model:?}: a megabyte took {took:?}");
        // In order, each once, under the numbers that its sender gave.
        let expected: Vec<_> = (1..=66).map(|number| (number, number)).collect();
        assert_eq!(numbers(&mut world, bob), expected);
        let sender = world.guest(bob).data.last().unwrap().1.participant_identity.clone();
        assert_eq!(sender, "alice");
        // 50 kbit/s bring less than a message a second.
        assert!(numbers(&mut world, carol).len() <= took.as_secs() as usize + 1);

        world.run(2 * SECOND);
        let heard = world.guest(bob).complete_frames() - before;
        let expected = (took + 2 * SECOND).as_millis() as u64 / 20;
        assert!(heard + 2 >= expected, "{model:?}: {heard} of {expected} packets of audio");
        // A megabyte is within the bound: she gets it in the order in which it was sent.
        assert!(!world.guest(carol).has_left());
        world.run(20 * SECOND);
        let some = numbers(&mut world, carol);
        assert!(some.len() >= 4, "{some:?}");
        assert!(some.iter().zip(1..).all(|(got, number)| *got == (number, number)), "{some:?}");
    }
}

#[test]
fn a_receiver_beyond_the_bound_ends_and_its_room_goes_on() {
    let (mut world, guests) = meeting(Model::Single);
    let [alice, bob, carol] = guests;
    let beyond = (MAX_RELIABLE_BUFFERED_BYTES / MESSAGE_BYTES + 40) as u32;
    pour(&mut world, guests, beyond);
    world.run(5 * SECOND);
    assert!(world.guest(carol).has_left(), "she was too slow");
    for guest in [alice, bob] {
        assert!(!world.guest(guest).has_left());
    }
    let expected: Vec<_> = (1..=beyond).map(|number| (number, number)).collect();
    assert_eq!(numbers(&mut world, bob), expected);
}

#[test]
fn a_reader_below_the_threshold_misses_messages_and_holds_nobody_back() {
    for model in [Model::Single, Model::Pair] {
        let (mut world, guests) = meeting_at(model, 1, 50_000, 200_000);
        let [_, bob, carol] = guests;
        // Three times what would end her without a threshold.
        let took = pour(&mut world, guests, 200);
        assert!(took < 8 * SECOND, "{model:?}: 3 MB took {took:?}");
        let expected: Vec<_> = (1..=200).map(|number| (number, number)).collect();
        assert_eq!(numbers(&mut world, bob), expected);
        let dropped = world.shard().counters().data_dropped_slow_reader;
        assert!(dropped > 100, "{dropped}");
        world.run(120 * SECOND);
        assert!(!world.guest(carol).has_left());
        // What waited for her comes to the last, in order; the rest is counted.
        let got = numbers(&mut world, carol);
        assert_eq!(got.len() as u64 + dropped, 200, "{got:?}");
        assert!(got.is_sorted(), "{got:?}");
        assert!((FULL_BYTES / MESSAGE_BYTES..60).contains(&got.len()), "{}", got.len());
    }
}

#[test]
fn a_reader_above_the_threshold_gets_everything_and_holds_the_publisher_back() {
    for (model, threads) in [(Model::Single, 1), (Model::Pair, 1), (Model::Pair, 3)] {
        let (mut world, guests) = meeting_at(model, threads, 1_000_000, 200_000);
        let [alice, bob, carol] = guests;
        let took = pour(&mut world, guests, 200);
        // Alice has no more than a megabyte of her own, and the server no more than is let in
        // before she is held back: the rest went at Carol's pace, of 8 s for a megabyte.
        assert!(took > 5 * SECOND, "{model:?}: 3 MB took {took:?}");
        world.run(20 * SECOND);
        let expected: Vec<_> = (1..=200).map(|number| (number, number)).collect();
        for guest in [bob, carol] {
            assert_eq!(numbers(&mut world, guest), expected, "{model:?}");
        }
        let sum = |of: fn(&Counters) -> u64| world.shards().iter().map(|s| of(s.counters())).sum();
        let (held_back, dropped): (u64, u64) =
            (sum(|of| of.senders_held_back), sum(|of| of.data_dropped_slow_reader));
        assert!(held_back > 2);
        assert_eq!(dropped, 0);
        assert!(!world.guest(alice).has_left());
    }
}
