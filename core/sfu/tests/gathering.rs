//! What a peer is owed within a few milliseconds leaves together.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{cell::RefCell, rc::Rc};

use common::{World, media::*, ms};
use parlor_model::{Codec, SequenceNumber, Ssrc};
use parlor_rtp::{RtpPacket, rtcp};

const GATHERING_MS: u64 = 5;

/// An Opus packet with a payload of this length.
fn speak(source: &mut AudioSource, len: usize) -> Vec<u8> {
    let extensions: [(u8, &[u8]); 2] = [(MID_ID, source.mid.as_bytes()), (1, &[30])];
    let (sequence, timestamp) = (source.sequence, source.timestamp);
    let bytes =
        packet(source.ssrc, 111, sequence, timestamp, false, &extensions, &vec![len as u8; len]);
    source.sequence = source.sequence.wrapping_add(1);
    source.timestamp = source.timestamp.wrapping_add(960);
    bytes
}

/// Two who speak, and who hears both.
fn two_microphones() -> (World, usize, usize, [AudioSource; 2]) {
    let mut world = World::new();
    world.shard.set_gathering(ms(GATHERING_MS));
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![audio_section("0", 10), audio_section("1", 11)]);
    let opus = || vec![binding(Codec::Opus, 111, None)];
    let sections = vec![
        audio_subscription("0", 20, 10, 1000, opus()),
        audio_subscription("1", 21, 11, 1001, opus()),
    ];
    world.subscribe(bob, sections);
    world.run(ms(20));
    (world, alice, bob, [AudioSource::new(40, "0"), AudioSource::new(41, "1")])
}

#[test]
fn audio_of_several_tracks_leaves_together_in_one_length() {
    let (mut world, alice, bob, mut sources) = two_microphones();
    for (source, len) in [(0, 60), (1, 61), (0, 80)] {
        let bytes = speak(&mut sources[source], len);
        world.clients[alice].send_rtp(&bytes);
        world.run(ms(1));
    }
    world.run(ms(20));
    let received = &world.clients[bob].received;
    let at = |n: usize| received[n].0;
    assert_eq!(received.len(), 3);
    assert_eq!((at(1) - at(0), at(2) - at(1)), (ms(GATHERING_MS), ms(0)));
    // The first left at once, the others 4 and 3 ms after they had come.
    let held = world.shard.held();
    assert_eq!((held.counts.iter().sum::<u64>(), held.sum_us), (2, 7000));
    let packets: Vec<_> = received.iter().map(|(_, b)| RtpPacket::parse(b).unwrap()).collect();
    let payloads: Vec<_> = packets.iter().map(|packet| packet.payload().len()).collect();
    assert_eq!(payloads, [60, 61, 80], "padding is not payload");
    assert_eq!(received[1].1.len(), received[2].1.len());
    assert!(received[0].1.len() < received[1].1.len(), "who leaves alone is not padded");
    world.assert_clean();
}

#[test]
fn a_padded_packet_is_repeated_with_the_same_bytes() {
    let (mut world, alice, bob, mut sources) = two_microphones();
    let sent: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
    let log = sent.clone();
    world.loss = Box::new(move |_, datagram| {
        let is_media = datagram[0] & 0xC0 == 0x80 && datagram[1] & 0x7F == 111;
        let mut log = log.borrow_mut();
        if is_media {
            log.push(datagram.to_vec());
        }
        is_media && log.len() == 2
    });
    for (source, len) in [(0, 60), (1, 70), (0, 80)] {
        let bytes = speak(&mut sources[source], len);
        world.clients[alice].send_rtp(&bytes);
        world.run(ms(1));
    }
    world.run(ms(20));
    let lost = sent.borrow()[1].clone();
    let number = SequenceNumber(u16::from_be_bytes([lost[2], lost[3]]));
    let mut nack = Vec::new();
    rtcp::write_nack(&mut nack, Ssrc(1), Ssrc(1001), &[number]);
    world.clients[bob].send_rtcp(&nack);
    world.run(ms(20));
    assert_eq!(sent.borrow()[3], lost, "one number never carries two payloads");
    assert_eq!(world.clients[bob].packets(Ssrc(1001))[0].payload(), [70; 70]);
}

#[test]
fn much_shorter_packets_are_not_padded() {
    let (mut world, alice, bob, mut sources) = two_microphones();
    for (source, len) in [(0, 60), (1, 30), (0, 80)] {
        let bytes = speak(&mut sources[source], len);
        world.clients[alice].send_rtp(&bytes);
        world.run(ms(1));
    }
    world.run(ms(20));
    let received = &world.clients[bob].received;
    assert_eq!(received[2].1.len() - received[1].1.len(), 50);
}

#[test]
fn a_frame_that_is_not_whole_waits_for_a_millisecond() {
    let mut world = World::new();
    world.shard.set_gathering(ms(GATHERING_MS));
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![video_section("1", 11, &[])]);
    world.subscribe(bob, vec![video_subscription("1", 21, 11, 2000)]);
    world.run(ms(20));
    let mut camera = VideoSource::new(50, "1", None);
    let mut number = 0;
    for frame in 0..4 {
        let is_split = frame % 2 == 0;
        let arrives = world.now + ms(1);
        for (at, packet) in camera.next(frame == 0, &mut number).into_iter().enumerate() {
            if is_split && at + 1 == camera.packets_per_frame {
                world.run(ms(1));
            }
            world.clients[alice].send_rtp(&packet);
        }
        world.run(ms(33));
        let received = &world.clients[bob].received;
        let last = &received[received.len() - camera.packets_per_frame..];
        let leaves = if is_split { arrives + ms(1) } else { arrives };
        assert!(last.iter().all(|(at, _)| *at == leaves), "frame {frame}");
    }
    world.assert_clean();
}
