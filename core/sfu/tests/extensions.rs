//! Header extensions on their way through the server, each under the id that the subscriber agreed
//! on, and requests that only they or RTCP carry.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{World, media::*, ms};
use parlor_model::{Codec, SequenceNumber, Ssrc};
use parlor_rtp::rtcp::{self, Rtcp};

const OUT: Ssrc = Ssrc(2000);
const MID: (u8, &[u8]) = (MID_ID, b"1");
/// Ids of orientation, delay and capture time at the publisher, then at the subscriber.
const IN: [u8; 3] = [6, 7, 8];
const OUT_IDS: [u8; 3] = [9, 5, 13];
/// Turned by a quarter; at least 100 and at most 400 ms; a capture time with a clock offset.
const ORIENTATION: &[u8] = &[0x01];
const DELAY: &[u8] = &[0x00, 0xa0, 0x28];
const CAPTURED: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 9];

fn call() -> (World, usize, usize) {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    let mut section = video_section("1", 11, &[]);
    let ids = &mut section.extensions;
    [ids.video_orientation, ids.playout_delay, ids.abs_capture_time] = IN.map(Some);
    world.publish(alice, vec![section]);
    let mut subscription = video_subscription("1", 21, 11, OUT.0);
    let ids = &mut subscription.extensions;
    [ids.video_orientation, ids.playout_delay, ids.abs_capture_time] = OUT_IDS.map(Some);
    world.subscribe(bob, vec![subscription]);
    (world, alice, bob)
}

#[test]
fn orientation_delay_and_capture_time_pass_as_they_came() {
    let (mut world, alice, bob) = call();
    let all = [MID, (IN[0], ORIENTATION), (IN[1], DELAY), (IN[2], CAPTURED)];
    world.clients[alice].send_rtp(&packet(50, 102, 9, 0, true, &all, b"\x67sps"));
    world.run(ms(33));
    world.clients[alice].send_rtp(&packet(50, 102, 10, 3_000, true, &[MID], b"\x41two"));
    world.run(ms(33));
    let packets = world.clients[bob].packets(OUT);
    let seen = |at: usize| OUT_IDS.map(|id| packets[at].extension(id));
    assert_eq!(seen(0), [Some(ORIENTATION), Some(DELAY), Some(CAPTURED)]);
    assert_eq!(seen(1), [None; 3], "what was not said is not made up");
    for packet in &packets {
        assert_eq!(packet.extension(MID_ID), Some(&b"1"[..]));
        assert!(packet.extension(2).is_some_and(|time| time.len() == 3), "abs-send-time");
        assert!(packet.extension(TRANSPORT_CC_ID).is_some_and(|number| number.len() == 2));
    }
    // What is sent again says the same, but for the delay.
    let lost = packets[0].sequence_number();
    let mut request = Vec::new();
    rtcp::write_nack(&mut request, Ssrc(1), OUT, &[lost]);
    world.run(ms(200));
    world.clients[bob].send_rtcp(&request);
    world.run(ms(100));
    let again = world.clients[bob].packets(Ssrc(OUT.0 + 1));
    assert_eq!(again.len(), 1);
    let seen = OUT_IDS.map(|id| again[0].extension(id));
    assert_eq!(seen, [Some(ORIENTATION), None, Some(CAPTURED)]);
    assert_eq!(
        SequenceNumber(u16::from_be_bytes([again[0].payload()[0], again[0].payload()[1]])),
        lost
    );
    world.assert_clean();
}

#[test]
fn a_full_intra_request_alone_asks_the_publisher_for_a_keyframe() {
    let (mut world, alice, bob) = call();
    world.clients[alice].send_rtp(&packet(50, 102, 9, 0, true, &[MID], b"\x67sps"));
    world.run(ms(2_000));
    let asked = |world: &World| {
        let compounds = world.clients[alice].received_rtcp.iter();
        let all = compounds.flat_map(|(_, compound)| rtcp::packets(compound));
        all.filter(|it| matches!(it, Rtcp::PictureLossIndication(pli) if pli.media == Ssrc(50)))
            .count()
    };
    let before = asked(&world);
    let mut request = Vec::new();
    rtcp::write_full_intra_request(&mut request, Ssrc(1), OUT, 1);
    world.clients[alice].send_rtp(&packet(50, 102, 10, 180_000, true, &[MID], b"\x41two"));
    world.clients[bob].send_rtcp(&request);
    world.run(ms(50));
    assert_eq!(asked(&world), before + 1);
}

#[test]
fn pcmu_and_pcma_pass_untouched() {
    for (codec, of_alice, of_bob) in [(Codec::Pcmu, 0, 0), (Codec::Pcma, 8, 108)] {
        let mut world = World::new();
        let (alice, bob) = (world.connect(1), world.connect(2));
        let mut section = audio_section("0", 10);
        section.codecs = vec![binding(codec, of_alice, None)];
        world.publish(alice, vec![section]);
        let codecs = vec![binding(codec, of_bob, None)];
        world.subscribe(bob, vec![audio_subscription("0", 20, 10, OUT.0, codecs)]);
        let mut payload = [0x55; 160];
        for at in 0..20u16 {
            payload[0] = at as u8;
            let (sequence, timestamp) = (65_530u16.wrapping_add(at), u32::from(at) * 160);
            let sound =
                packet(40, of_alice, sequence, timestamp, false, &[(MID_ID, b"0")], &payload);
            world.clients[alice].send_rtp(&sound);
            world.run(ms(20));
        }
        let packets = world.clients[bob].packets(OUT);
        assert_eq!(packets.len(), 20, "{codec:?}");
        for (at, pair) in packets.windows(2).enumerate() {
            assert_eq!(pair[0].payload_type().0, of_bob);
            assert_eq!((pair[0].payload().len(), pair[0].payload()[0]), (160, at as u8));
            assert_eq!(pair[1].timestamp().distance(pair[0].timestamp()), 160, "at 8 kHz");
        }
        world.assert_clean();
    }
}
