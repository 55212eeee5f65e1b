//! Audio on one shard, under virtual time: loudness, redundancy, silence.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::BTreeMap;

use common::{World, media::*, ms};
use parlor_model::{
    Bitrate, Codec, CodecBinding, PayloadType, PeerId, SequenceNumber, Ssrc, SubscriptionId,
    TrackId,
};
use parlor_rtp::{
    red::{Red, RedundantBlock, write_red},
    rtcp,
};
use parlor_sfu::command::{MediaCommand, MediaEvent, SubscriptionSettings, TrackLevel};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// An Opus packet of 20 ms at this loudness.
fn speak(source: &mut AudioSource, minus_dbov: u8) -> Vec<u8> {
    let extensions: [(u8, &[u8]); 2] = [(MID_ID, source.mid.as_bytes()), (1, &[minus_dbov])];
    let (sequence, timestamp) = (source.sequence, source.timestamp);
    let bytes = packet(source.ssrc, 111, sequence, timestamp, false, &extensions, &[7; 60]);
    source.sequence = source.sequence.wrapping_add(1);
    source.timestamp = source.timestamp.wrapping_add(960);
    bytes
}

/// Loudness as it was told: after how many ms, which track, how loud.
fn levels(world: &mut World, since: std::time::Instant) -> Vec<(u64, u64, u8)> {
    let now = world.now;
    let mut told = Vec::new();
    for event in world.events.drain(..) {
        let MediaEvent::AudioLevels { levels } = event else { continue };
        for TrackLevel { track, eighths } in levels {
            told.push(((now - since).as_millis() as u64, track.0, eighths));
        }
    }
    told
}

#[test]
fn loudness_is_told_as_it_changes_and_ends_once() {
    let mut world = World::new();
    let alice = world.connect(1);
    world.publish(alice, vec![audio_section("0", 10), audio_section("1", 11)]);
    let (mut one, mut two) = (AudioSource::new(40, "0"), AudioSource::new(41, "1"));
    let start = world.now;
    let mut told = Vec::new();
    // Two seconds of speech on one track, then silence on both, then nothing at all.
    for at in 0..400u64 {
        if at < 300 {
            let loud = speak(&mut one, if at < 100 { 6 } else { 127 });
            let quiet = speak(&mut two, 60);
            world.clients[alice].send_rtp(&loud);
            world.clients[alice].send_rtp(&quiet);
        }
        world.run(ms(20));
        told.extend(levels(&mut world, start));
    }
    let track: Vec<_> = told.iter().map(|(_, track, eighths)| (*track, *eighths)).collect();
    assert_eq!(track, [(10, 3), (10, 4), (10, 0)], "{told:?}");
    assert!(told[0].0 <= 820 && (2000..=2840).contains(&told[2].0), "{told:?}");
    // All has been told: the shard wakes up for it no more.
    assert!(world.shard.poll_timeout().is_none_or(|at| at > world.now));
}

#[test]
fn a_muted_track_is_silent_at_the_next_interval() {
    let mut world = World::new();
    let alice = world.connect(1);
    world.publish(alice, vec![audio_section("0", 10)]);
    let mut source = AudioSource::new(40, "0");
    let mut send = |world: &mut World, packets| {
        for _ in 0..packets {
            let packet = speak(&mut source, 0);
            world.clients[alice].send_rtp(&packet);
            world.run(ms(20));
        }
    };
    send(&mut world, 100);
    let start = world.now;
    assert_eq!(levels(&mut world, start).last().unwrap().2, 8);
    world.command(MediaCommand::SetTrackMuted { track: TrackId(10), muted: true });
    // What still comes of a muted track is not heard.
    send(&mut world, 100);
    let told = levels(&mut world, start);
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].2, 0);
    world.command(MediaCommand::SetTrackMuted { track: TrackId(10), muted: false });
    send(&mut world, 100);
    assert_eq!(levels(&mut world, start).last().unwrap().2, 8);
    // The publication ends while it is loud: the track has to be there to be told of.
    world.publish(alice, vec![]);
    world.run(ms(1000));
    world.assert_clean();
}

const RED: u8 = 63;
/// What the subscriber calls Opus and RED.
const OPUS_THERE: u8 = 109;
const RED_THERE: u8 = 98;

/// The frame of a packet of 20 ms.
fn frame(at: u32) -> Vec<u8> {
    at.to_be_bytes().into_iter().cycle().take(40 + at as usize % 30).collect()
}

/// A microphone that sends RED with so many older frames.
struct RedSource {
    at: u32,
    distance: u32,
    first_sequence: u16,
    first_timestamp: u32,
}

impl RedSource {
    fn new(distance: u32) -> Self {
        Self { at: 0, distance, first_sequence: 65_400, first_timestamp: u32::MAX - 50_000 }
    }

    fn next(&mut self) -> Vec<u8> {
        let at = self.at;
        self.at += 1;
        let oldest = at.saturating_sub(self.distance);
        let frames: Vec<_> = (oldest..at).map(|older| ((at - older) * 960, frame(older))).collect();
        let blocks: Vec<_> = frames
            .iter()
            .map(|(offset, payload)| RedundantBlock {
                payload_type: PayloadType(111),
                timestamp_offset: *offset as u16,
                payload,
            })
            .collect();
        let mut payload = [0; 1000];
        let len = write_red(&mut payload, &blocks, PayloadType(111), &frame(at)).unwrap();
        let extensions: [(u8, &[u8]); 2] = [(MID_ID, b"0"), (1, &[30])];
        let sequence = self.first_sequence.wrapping_add(at as u16);
        let timestamp = self.first_timestamp.wrapping_add(960 * at);
        packet(40, RED, sequence, timestamp, false, &extensions, &payload[..len])
    }
}

/// The frames that a receiver of RED or Opus can play, by their place in time, and how many
/// packets it got.
fn playable(client: &common::Client, first_timestamp: u32) -> (BTreeMap<u32, Vec<u8>>, usize) {
    let mut frames = BTreeMap::new();
    let packets = client.packets(Ssrc(1000));
    for packet in &packets {
        let mut play = |timestamp: u32, payload: &[u8]| {
            let at = timestamp.wrapping_sub(first_timestamp) / 960;
            let known = frames.entry(at).or_insert_with(|| payload.to_vec());
            assert_eq!(known, payload, "one time, two frames");
        };
        let timestamp = packet.timestamp().0;
        if packet.payload_type() == PayloadType(RED_THERE) {
            let red = Red::parse(packet.payload()).unwrap();
            assert_eq!(red.primary_type(), PayloadType(OPUS_THERE));
            play(timestamp, red.primary());
            for block in red.redundant() {
                assert_eq!(block.payload_type, PayloadType(OPUS_THERE));
                let offset = u32::from(block.timestamp_offset);
                play(timestamp.wrapping_sub(offset), block.payload);
            }
        } else {
            assert_eq!(packet.payload_type(), PayloadType(OPUS_THERE));
            play(timestamp, packet.payload());
        }
    }
    (frames, packets.len())
}

/// Loses 20 % at random, but never more than two in a row.
fn lossy(seed: u64) -> impl FnMut() -> bool {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut run = 0;
    move || {
        let lost = rng.next_u32() % 5 == 0 && run < 2;
        run = if lost { run + 1 } else { 0 };
        lost
    }
}

fn opus_there() -> CodecBinding {
    binding(Codec::Opus, OPUS_THERE, None)
}

fn red_there() -> CodecBinding {
    binding(Codec::Red, RED_THERE, None)
}

/// A publisher and subscribers with these codecs.
fn hall(listeners: &[Vec<CodecBinding>]) -> (World, usize, Vec<usize>) {
    let mut world = World::new();
    let alice = world.connect(1);
    world.publish(alice, vec![audio_section("0", 10)]);
    let listeners = (2..).zip(listeners).map(|(id, codecs)| {
        let listener = world.connect(id);
        let section = audio_subscription("0", id + 20, 10, 1000, codecs.clone());
        world.subscribe(listener, vec![section]);
        listener
    });
    let listeners = listeners.collect();
    (world, alice, listeners)
}

#[test]
fn a_tone_through_red_is_whole_at_twenty_percent_loss() {
    for seed in 0..20 {
        let both = vec![red_there(), opus_there()];
        let (mut world, alice, listeners) = hall(&[both.clone(), vec![opus_there()], both]);
        // The last listener has a lossy link of its own.
        let mut down = lossy(seed + 1000);
        world.loss = Box::new(move |peer, datagram| {
            let is_audio = parlor_rtp::classify(datagram) == parlor_rtp::PacketClass::Rtp;
            peer == PeerId(4) && is_audio && down()
        });
        let mut up = lossy(seed);
        let mut source = RedSource::new(2);
        let mut lost = 0;
        for at in 0..500 {
            let packet = source.next();
            if (1..498).contains(&at) && up() {
                lost += 1;
            } else {
                world.clients[alice].send_rtp(&packet);
            }
            world.run(ms(20));
        }
        world.assert_clean();
        assert!((60..140).contains(&lost), "{lost}");
        assert_eq!(world.counters().recovered, lost);
        assert_eq!(
            world.counters().nacks_sent,
            0,
            "nothing is missing by the time it is asked for"
        );
        for (listener, whole) in listeners.into_iter().zip([true, true, false]) {
            let client = &world.clients[listener];
            let (frames, packets) = playable(client, source.first_timestamp);
            let expected: Vec<_> = (0..500).map(|at| (at, frame(at))).collect();
            let heard: Vec<_> = frames.into_iter().collect();
            if whole {
                assert_eq!(heard, expected, "seed {seed}");
                assert_eq!(packets, 500);
                assert_eq!(client.checker.missing(Ssrc(1000)), 0);
            } else {
                // With loss on both links, what RED does not carry far enough is left to NACK.
                assert!(heard.len() >= 485 && packets < 450, "{} {packets}", heard.len());
            }
        }
    }
}

#[test]
fn a_link_without_room_for_redundancy_gets_plain_opus() {
    let (mut world, alice, listeners) = hall(&[vec![red_there(), opus_there()]]);
    let bob = listeners[0];
    let mut source = RedSource::new(2);
    let mut at = 0;
    let mut types = |world: &mut World, bps: u64, packets: usize| {
        let mut remb = Vec::new();
        rtcp::write_remb(&mut remb, Ssrc(9), Bitrate(bps), &[Ssrc(1000)]);
        for nth in 0..packets {
            if nth % 50 == 0 {
                world.clients[bob].send_rtcp(&remb);
            }
            let packet = source.next();
            world.clients[alice].send_rtp(&packet);
            world.run(ms(20));
        }
        let all = world.clients[bob].packets(Ssrc(1000));
        let types: Vec<_> = all[at..].iter().map(|packet| packet.payload_type().0).collect();
        at = all.len();
        types
    };
    assert_eq!(types(&mut world, 1_000_000, 100), [RED_THERE; 100]);
    // 88 kbit/s with redundancy, 42 without.
    let narrow = types(&mut world, 60_000, 100);
    assert_eq!(narrow[20..], [OPUS_THERE; 80]);
    let wide = types(&mut world, 1_000_000, 400);
    assert_eq!(wide[300..], [RED_THERE; 100]);
    world.assert_clean();
    let client = &world.clients[bob];
    assert_eq!(client.checker.missing(Ssrc(1000)), 0, "no number is left out");
    let (frames, packets) = playable(client, source.first_timestamp);
    assert_eq!((frames.len(), packets), (600, 600));
}

#[test]
fn red_that_a_subscriber_loses_is_whole_too() {
    let (mut world, alice, listeners) = hall(&[vec![red_there(), opus_there()]]);
    let mut down = lossy(3);
    let mut sent = 0;
    world.loss = Box::new(move |peer, datagram| {
        let is_audio = parlor_rtp::classify(datagram) == parlor_rtp::PacketClass::Rtp;
        sent += u32::from(peer == PeerId(2) && is_audio);
        peer == PeerId(2) && is_audio && sent < 990 && down()
    });
    let mut source = RedSource::new(2);
    for _ in 0..1000 {
        let packet = source.next();
        world.clients[alice].send_rtp(&packet);
        world.run(ms(20));
    }
    world.assert_clean();
    let (frames, packets) = playable(&world.clients[listeners[0]], source.first_timestamp);
    assert!(packets < 850);
    let first = *frames.keys().next().unwrap();
    assert!(first <= 2 && (first..1000).all(|at| frames[&at] == frame(at)));
}

#[test]
fn a_packet_that_comes_after_its_frame_was_recovered_is_a_duplicate() {
    let (mut world, alice, listeners) =
        hall(&[vec![red_there(), opus_there()], vec![opus_there()]]);
    let mut source = RedSource::new(1);
    let packets: Vec<_> = (0..10).map(|_| source.next()).collect();
    for at in [0, 1, 3, 2, 5, 4, 8, 9, 7, 6] {
        world.clients[alice].send_rtp(&packets[at]);
        world.run(ms(5));
    }
    world.assert_clean();
    // 2, 4 and 7 were recovered before they came, and 6 out of 7 was not: it comes itself.
    assert_eq!(world.counters().recovered, 3);
    assert_eq!(world.counters().dropped_duplicate, 3);
    for listener in listeners {
        let (frames, packets) = playable(&world.clients[listener], source.first_timestamp);
        assert_eq!((frames.len(), packets), (10, 10));
    }
}

#[test]
fn nothing_is_recovered_before_the_beginning_or_out_of_broken_redundancy() {
    let (mut world, alice, listeners) = hall(&[vec![opus_there()]]);
    let mut source = RedSource::new(2);
    let mut packets: Vec<_> = (0..20).map(|_| source.next()).collect();
    // The first that comes has redundancy of packets that were never to be had.
    for packet in packets.drain(..).skip(5).take(2) {
        world.clients[alice].send_rtp(&packet);
    }
    world.run(ms(20));
    assert_eq!(world.counters().recovered, 0);
    // A gap of timestamps that the redundancy does not fit into.
    let block = RedundantBlock {
        payload_type: PayloadType(111),
        timestamp_offset: 9600,
        payload: &[1, 2, 3],
    };
    let mut payload = [0; 100];
    let len = write_red(&mut payload, &[block], PayloadType(111), &[5; 20]).unwrap();
    let sequence = source.first_sequence.wrapping_add(9);
    let timestamp = source.first_timestamp.wrapping_add(960 * 9);
    let broken = packet(40, RED, sequence, timestamp, false, &[(MID_ID, b"0")], &payload[..len]);
    world.clients[alice].send_rtp(&broken);
    world.run(ms(20));
    assert_eq!(world.counters().recovered, 0);
    assert_eq!(world.clients[listeners[0]].packets(Ssrc(1000)).len(), 3);
    world.assert_clean();
}

#[test]
fn plain_opus_becomes_red_where_that_is_set() {
    for active in [false, true] {
        let mut world = World::new();
        world.shard.set_active_red_encoding(active);
        let (alice, bob) = (world.connect(1), world.connect(2));
        world.publish(alice, vec![audio_section("0", 10)]);
        let codecs = vec![red_there(), opus_there()];
        world.subscribe(bob, vec![audio_subscription("0", 20, 10, 1000, codecs)]);
        let mut down = lossy(7);
        let mut sealed: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
        world.loss = Box::new(move |peer, datagram| {
            let is_audio = parlor_rtp::classify(datagram) == parlor_rtp::PacketClass::Rtp;
            if peer != PeerId(2) || !is_audio {
                return false;
            }
            let sequence = u16::from_be_bytes([datagram[2], datagram[3]]);
            let first = sealed.entry(sequence).or_insert_with(|| datagram.to_vec());
            assert_eq!(first, datagram, "what is sent again on one SSRC is the same");
            down()
        });
        let first_timestamp = 77_000;
        for at in 0..200u32 {
            let extensions: [(u8, &[u8]); 1] = [(MID_ID, b"0")];
            let timestamp = first_timestamp + 960 * at;
            let sequence = 65_500u16.wrapping_add(at as u16);
            let bytes = packet(40, 111, sequence, timestamp, false, &extensions, &frame(at));
            // Every 20th comes late: it is in no redundancy, and what is sent again stays the same.
            let is_late = at % 20 == 10;
            if !is_late {
                world.clients[alice].send_rtp(&bytes);
            }
            world.run(ms(10));
            if is_late {
                world.clients[alice].send_rtp(&bytes);
            }
            world.run(ms(10));
            if at % 5 == 4 {
                let last = world.clients[bob].last_sequence(Ssrc(1000)).unwrap();
                let lost: Vec<_> =
                    (0..5).map(|back| SequenceNumber(last.wrapping_sub(back))).collect();
                let mut request = Vec::new();
                rtcp::write_nack(&mut request, Ssrc(1), Ssrc(1000), &lost);
                world.clients[bob].send_rtcp(&request);
            }
        }
        world.run(ms(100));
        assert_eq!(world.clients[bob].checker.violations(), []);
        assert!(world.counters().retransmissions_sent > 50);
        let red = world.clients[bob].packets(Ssrc(1000));
        let red = red.iter().filter(|packet| packet.payload_type().0 == RED_THERE).count();
        assert_eq!(red > 0, active);
        let (frames, _) = playable(&world.clients[bob], first_timestamp);
        assert!(frames.len() >= if active { 196 } else { 180 }, "{}", frames.len());
    }
}

/// Payloads of a stream from a packet on, with sequence numbers and timestamps.
fn heard_since(client: &common::Client, skip: usize) -> Vec<(u16, u32, u8, Vec<u8>)> {
    let packets = client.packets(Ssrc(1000)).into_iter().skip(skip);
    let facts = packets.map(|packet| {
        let payload_type = packet.payload_type().0;
        (packet.sequence_number().0, packet.timestamp().0, payload_type, packet.payload().to_vec())
    });
    facts.collect()
}

fn opus_silence() -> Vec<u8> {
    let mut frame = vec![0; 80];
    frame[..3].copy_from_slice(&[0xf8, 0xff, 0xfe]);
    frame
}

fn mute(world: &mut World, muted: bool) {
    world.command(MediaCommand::SetTrackMuted { track: TrackId(10), muted });
}

/// 20 ms of speech each.
fn say(world: &mut World, alice: usize, source: &mut RedSource, packets: usize) {
    for _ in 0..packets {
        let packet = source.next();
        world.clients[alice].send_rtp(&packet);
        world.run(ms(20));
    }
}

#[test]
fn a_muted_track_ends_in_a_second_of_silence_and_goes_on_cleanly() {
    let (mut world, alice, listeners) =
        hall(&[vec![opus_there()], vec![red_there(), opus_there()]]);
    let mut source = RedSource::new(1);
    say(&mut world, alice, &mut source, 50);
    mute(&mut world, true);
    // Some clients go on sending: nothing of it is forwarded.
    say(&mut world, alice, &mut source, 100);
    mute(&mut world, false);
    say(&mut world, alice, &mut source, 50);
    world.assert_clean();
    for (listener, red) in listeners.into_iter().zip([false, true]) {
        let heard = heard_since(&world.clients[listener], 0);
        assert_eq!(heard.len(), 150);
        for (at, (_, timestamp, payload_type, payload)) in heard[50..100].iter().enumerate() {
            let silence = opus_silence();
            let expected = if red { [vec![OPUS_THERE], silence].concat() } else { silence };
            assert_eq!(
                (payload, *payload_type),
                (&expected, if red { RED_THERE } else { OPUS_THERE })
            );
            assert_eq!(timestamp.wrapping_sub(heard[49].1), 960 * (at as u32 + 1));
        }
        // No number is left out, and time passes as it did.
        assert!(heard.windows(2).all(|pair| pair[1].0 == pair[0].0.wrapping_add(1)));
        assert_eq!(heard[100].1.wrapping_sub(heard[49].1), 101 * 960);
    }
}

#[test]
fn speech_that_comes_back_ends_the_silence() {
    let (mut world, alice, listeners) = hall(&[vec![opus_there()]]);
    let mut source = RedSource::new(1);
    say(&mut world, alice, &mut source, 20);
    for _ in 0..5 {
        mute(&mut world, true);
        world.run(ms(100));
        mute(&mut world, false);
        // The publisher's clock stood still.
        say(&mut world, alice, &mut source, 20);
    }
    world.assert_clean();
    let client = &world.clients[listeners[0]];
    assert_eq!(client.checker.missing(Ssrc(1000)), 0);
    let heard = heard_since(client, 0);
    let silent = heard.iter().filter(|(_, _, _, payload)| *payload == opus_silence()).count();
    assert!((25..=30).contains(&silent), "{silent}");
    assert!(heard.windows(2).all(|pair| {
        let went = pair[1].1.wrapping_sub(pair[0].1);
        (1..=960 * 7).contains(&went)
    }));
}

#[test]
fn a_disabled_subscription_ends_in_silence_and_a_stopped_one_in_nothing() {
    let (mut world, alice, listeners) = hall(&[vec![opus_there()], vec![opus_there()]]);
    world.command(MediaCommand::SetFrameTrailer {
        track: TrackId(10),
        trailer: bytes::Bytes::from_static(b"trailer"),
    });
    let mut source = RedSource::new(1);
    say(&mut world, alice, &mut source, 20);
    let settings = |enabled| SubscriptionSettings { enabled, ..SubscriptionSettings::default() };
    let subscription = SubscriptionId(22);
    world.command(MediaCommand::SetSubscription { subscription, settings: settings(false) });
    say(&mut world, alice, &mut source, 10);
    let heard = heard_since(&world.clients[listeners[0]], 20);
    assert!((10..=11).contains(&heard.len()));
    let expected = [opus_silence(), b"trailer".to_vec()].concat();
    assert!(heard.iter().all(|(_, _, _, payload)| *payload == expected));
    assert_eq!(heard_since(&world.clients[listeners[1]], 0).len(), 30);
    // Muted as well: it begins anew, and ends when both are over.
    mute(&mut world, true);
    world.run(ms(100));
    world.command(MediaCommand::SetSubscription { subscription, settings: settings(true) });
    let before = heard_since(&world.clients[listeners[0]], 0).len();
    world.stop(listeners[0], 22, Ssrc(1000));
    world.run(ms(2000));
    assert_eq!(heard_since(&world.clients[listeners[0]], 0).len(), before);
    mute(&mut world, false);
    say(&mut world, alice, &mut source, 10);
    world.assert_clean();
    assert_eq!(heard_since(&world.clients[listeners[1]], 0).len(), 30 + 50 + 10);
}

#[test]
fn levels_pass_under_the_id_that_the_subscriber_agreed_on_and_pauses_of_dtx_stay_pauses() {
    let mut world = World::new();
    let alice = world.connect(1);
    world.publish(alice, vec![audio_section("0", 10)]);
    let listeners: Vec<_> = [Some(1), Some(7), None]
        .into_iter()
        .zip(2..)
        .map(|(id, peer)| {
            let listener = world.connect(peer);
            let mut section = audio_subscription("0", peer + 20, 10, 1000, vec![opus_there()]);
            section.extensions.audio_level = id;
            world.subscribe(listener, vec![section]);
            (listener, id)
        })
        .collect();
    let mut source = AudioSource::new(40, "0");
    let mut sent = Vec::new();
    for at in 0..60u8 {
        sent.push((source.timestamp, 20 + at));
        let mut bytes = speak(&mut source, 20 + at);
        // The first packet of a talk spurt is marked, and 400 ms of silence before it are not sent.
        if at % 10 == 0 {
            bytes[1] |= 0x80;
        }
        world.clients[alice].send_rtp(&bytes);
        world.run(ms(20));
        if at % 10 == 9 {
            source.timestamp = source.timestamp.wrapping_add(960 * 20);
            world.run(ms(400));
        }
    }
    world.assert_clean();
    for (listener, id) in listeners {
        let packets = world.clients[listener].packets(Ssrc(1000));
        assert_eq!(packets.len(), sent.len());
        for (at, (packet, (timestamp, level))) in packets.iter().zip(&sent).enumerate() {
            assert_eq!(packet.timestamp().0, *timestamp);
            assert_eq!(packet.marker(), at % 10 == 0);
            for other in [1, 7] {
                let expected = (Some(other) == id).then_some(std::slice::from_ref(level));
                assert_eq!(packet.extension(other), expected);
            }
        }
    }
}
