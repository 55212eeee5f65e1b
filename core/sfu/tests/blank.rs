//! Frames of the server's own: at the end of a video, and in place of a sound that is muted.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{
    World,
    layered::{Coding, DESCRIPTOR_ID},
    media::*,
    ms,
    plan::{Announced, OUT_SSRC, Plan, Step},
};
use parlor_model::{Codec, Ssrc, SubscriptionId, TrackId};
use parlor_rtp::is_keyframe;
use parlor_sfu::command::MediaCommand;

const OUT: Ssrc = Ssrc(2000);
/// Codecs whose layers a dependency descriptor tells.
const DESCRIBED: [Codec; 3] = [Codec::Vp8, Codec::Vp9, Codec::Av1];

fn stop(world: &mut World, subscription: u32) {
    let subscription = SubscriptionId(subscription);
    world.command(MediaCommand::StopSubscription { subscription, blank: true });
}

/// What of a subscription came after the first `skip` packets holds on to the stream: numbers and
/// time go on, and every packet is a whole keyframe of our own.
fn assert_black(world: &World, client: usize, skip: usize, codec: Codec) {
    let packets = world.clients[client].packets(OUT);
    assert_eq!(packets.len(), skip + 6, "six pictures and nothing else");
    for pair in packets[skip - 1..].windows(2) {
        assert_eq!(pair[1].sequence_number().distance(pair[0].sequence_number()), 1);
        let ticks = pair[1].timestamp().distance(pair[0].timestamp());
        assert!((2_900..=6_100).contains(&ticks), "{ticks}");
        assert!(pair[1].marker() && is_keyframe(codec, pair[1].payload()));
        assert!(pair[1].payload().len() < 80);
    }
}

#[test]
fn a_vp8_video_that_is_stopped_ends_in_black_pictures_and_its_numbers_go_on() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![video_section("1", 11, &[])]);
    world.subscribe(bob, vec![video_subscription("1", 21, 11, OUT.0)]);
    let (mut source, mut transport) = (VideoSource::new(50, "1", None), 0);
    let mut frame = |world: &mut World, keyframe: bool| {
        for packet in source.next(keyframe, &mut transport) {
            world.clients[alice].send_rtp(&packet);
        }
        world.run(ms(33));
    };
    for number in 0..30 {
        frame(&mut world, number == 0);
    }
    let seen = world.clients[bob].packets(OUT).len();
    stop(&mut world, 21);
    for number in 0..30 {
        frame(&mut world, number % 10 == 0);
    }
    assert_black(&world, bob, seen, Codec::Vp8);
    world.assert_clean();
    // The section ends, and its SSRC carries another subscription: no number comes twice.
    world.subscribe(bob, vec![]);
    world.subscribe(bob, vec![video_subscription("1", 22, 11, OUT.0)]);
    for number in 0..10 {
        frame(&mut world, number == 0);
    }
    let packets = world.clients[bob].packets(OUT);
    assert!(packets.len() > seen + 6 + 20);
    for pair in packets.windows(2) {
        assert_eq!(pair[1].sequence_number().distance(pair[0].sequence_number()), 1);
    }
}

#[test]
fn an_h264_video_ends_in_black_pictures_when_its_publisher_has_gone() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![video_section("1", 11, &[])]);
    world.subscribe(bob, vec![video_subscription("1", 21, 11, OUT.0)]);
    let mid: &[(u8, &[u8])] = &[(MID_ID, b"1")];
    for (at, unit) in [&b"\x67sps"[..], b"\x41two", b"\x41end"].iter().enumerate() {
        let at = at as u16;
        let timestamp = u32::from(at) * 3_000;
        world.clients[alice].send_rtp(&packet(50, 102, 9 + at, timestamp, true, mid, unit));
        world.run(ms(33));
    }
    world.publish(alice, vec![]);
    stop(&mut world, 21);
    world.run(ms(400));
    assert_black(&world, bob, 3, Codec::H264);
    world.assert_clean();
}

#[test]
fn a_video_of_any_codec_ends_in_black_pictures_that_follow_its_last() {
    let plain = Coding::plain;
    let svc = |codec, descriptor| Coding { spatial: 3, temporal: 3, descriptor, ..plain(codec) };
    let codings = [
        Coding { temporal: 3, ..plain(Codec::Vp8) },
        Coding { temporal: 3, descriptor: true, ..plain(Codec::Vp8) },
        plain(Codec::H264),
        Coding { temporal: 3, ..plain(Codec::H265) },
        plain(Codec::Vp9),
        svc(Codec::Vp9, false),
        svc(Codec::Vp9, true),
        plain(Codec::Av1),
        svc(Codec::Av1, true),
    ];
    let frame = Step::Frame { seed: 1, wait_ms: 33 };
    for coding in codings {
        let mut plan = Plan::new(Plan::world(), 0, coding, 1, Announced::BySsrc, 7);
        plan.calm = true;
        (0..22).for_each(|_| plan.apply(frame));
        let count = |plan: &Plan| plan.world.clients[1].packets(OUT_SSRC).len();
        let seen = count(&plan);
        assert!(seen >= 22, "{coding:?}");
        plan.world.command(MediaCommand::StopSubscription {
            subscription: SubscriptionId(21),
            blank: true,
        });
        (0..15).for_each(|_| plan.apply(frame));
        plan.check().unwrap();
        assert_eq!(count(&plan), seen + 6, "{coding:?}");
        let packets = plan.world.clients[1].packets(OUT_SSRC);
        for packet in &packets[seen..] {
            assert!(packet.marker() && packet.payload().len() < 120, "{coding:?}");
            let is_alone = coding.descriptor && coding.codec == Codec::Vp8;
            assert!(is_alone || is_keyframe(coding.codec, packet.payload()), "{coding:?}");
            assert_eq!(
                packet.extension(DESCRIPTOR_ID).is_some(),
                DESCRIBED.contains(&coding.codec)
            );
        }
    }
}

#[test]
fn an_encrypted_video_ends_in_pictures_that_clients_know_or_in_none() {
    for (codec, pictures) in [(Codec::H264, 6), (Codec::Vp9, 0), (Codec::Av1, 0)] {
        let mut plan = Plan::new(Plan::world(), 0, Coding::plain(codec), 1, Announced::BySsrc, 7);
        plan.calm = true;
        let (track, trailer) = (TrackId(11), b"trailer"[..].into());
        plan.world.command(MediaCommand::SetFrameTrailer { track, trailer });
        (0..5).for_each(|_| plan.apply(Step::Frame { seed: 1, wait_ms: 33 }));
        let seen = plan.world.clients[1].packets(OUT_SSRC).len();
        plan.world.command(MediaCommand::StopSubscription {
            subscription: SubscriptionId(21),
            blank: true,
        });
        plan.world.run(ms(400));
        let packets = plan.world.clients[1].packets(OUT_SSRC);
        assert_eq!(packets.len(), seen + pictures, "{codec:?}");
        assert!(packets[seen..].iter().all(|packet| packet.payload().ends_with(b"trailer")));
    }
}

#[test]
fn a_video_that_never_came_ends_without_a_picture() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![video_section("1", 11, &[])]);
    world.subscribe(bob, vec![video_subscription("1", 21, 11, OUT.0)]);
    stop(&mut world, 21);
    world.run(ms(400));
    assert!(world.clients[bob].packets(OUT).is_empty());
}

#[test]
fn a_sound_that_is_muted_when_it_is_subscribed_to_is_silence_for_five_seconds() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![audio_section("0", 10)]);
    let track = TrackId(10);
    world.command(MediaCommand::SetTrackMuted { track, muted: true });
    let opus = vec![binding(Codec::Opus, 109, None)];
    world.subscribe(bob, vec![audio_subscription("0", 20, 10, OUT.0, opus)]);
    world.run(ms(95));
    assert!(world.clients[bob].packets(OUT).is_empty());
    world.run(ms(6_000));
    let packets = world.clients[bob].packets(OUT);
    assert_eq!(packets.len(), 250);
    assert!(packets.iter().all(|packet| packet.payload().starts_with(&[0xf8, 0xff, 0xfe])));
    // Speech goes on from there.
    world.command(MediaCommand::SetTrackMuted { track, muted: false });
    let mut source = AudioSource::new(40, "0");
    for _ in 0..20 {
        let packet = source.next();
        world.clients[alice].send_rtp(&packet);
        world.run(ms(20));
    }
    let packets = world.clients[bob].packets(OUT);
    assert_eq!(packets.len(), 270);
    for pair in packets.windows(2) {
        assert_eq!(pair[1].sequence_number().distance(pair[0].sequence_number()), 1);
        assert!(pair[1].timestamp().distance(pair[0].timestamp()) > 0);
    }
    world.assert_clean();
}
