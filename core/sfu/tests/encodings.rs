//! A subscription that goes on with another encoding of the publication it is of.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{
    World,
    layered::{Coding, DESCRIPTOR_ID, LayeredSource},
    media::*,
    ms,
};
use parlor_model::{Codec, SequenceNumber, Ssrc, SubscriptionId};
use parlor_rtp::rtcp::{self, Rtcp};
use parlor_sfu::command::{MediaCommand, SubscriptionSettings};

/// Whether the publisher was asked for a keyframe of an SSRC since it looked last.
fn asked(world: &World, client: usize, seen: &mut usize, ssrc: u32) -> bool {
    let reports = &world.clients[client].received_rtcp;
    let new = &reports[*seen..];
    *seen = reports.len();
    let is_request = |packet: &Rtcp<'_>| matches!(packet, Rtcp::PictureLossIndication(pli) if pli.media == Ssrc(ssrc));
    new.iter().flat_map(|(_, compound)| rtcp::packets(compound)).any(|packet| is_request(&packet))
}

#[test]
fn numbers_and_time_go_on_in_another_encoding() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![video_section("1", 11, &[]), video_section("2", 12, &[])]);
    world.subscribe(bob, vec![video_subscription("1", 21, 11, 2000)]);
    let mut sources = [VideoSource::new(50, "1", None), VideoSource::new(60, "2", None)];
    let (mut transport, mut seen, mut asked_for) = (0, 0, 0);
    for frame in 0..120 {
        if frame == 40 {
            world.subscribe(bob, vec![video_subscription("1", 21, 12, 2000)]);
            world.run(ms(2));
            assert!(asked(&world, alice, &mut seen, 60), "the other encoding begins at a keyframe");
            asked_for = frame;
        }
        if frame == 80 {
            world.subscribe(bob, vec![video_subscription("1", 21, 11, 2000)]);
            asked_for = frame;
        }
        for (at, source) in sources.iter_mut().enumerate() {
            // The second comes to its keyframe two frames after it was asked for.
            let keyframe = frame == 0 || (asked_for > 0 && frame == asked_for + 2 && at < 2);
            for packet in source.next(keyframe, &mut transport) {
                world.clients[alice].send_rtp(&packet);
            }
        }
        world.run(ms(33));
    }
    world.assert_clean();
    let packets = world.clients[bob].packets(Ssrc(2000));
    let names: Vec<u32> =
        packets.iter().map(|packet| Content::of(packet.payload()).unwrap().ssrc).collect();
    let mut runs = names.clone();
    runs.dedup();
    assert_eq!(runs, [50, 60, 50]);
    for pair in packets.windows(2) {
        let step = pair[1].sequence_number().distance(pair[0].sequence_number());
        assert_eq!(step, 1, "no number is left out or used again");
        let ticks = pair[1].timestamp().distance(pair[0].timestamp());
        assert!((0..=90 * 180).contains(&ticks), "{ticks}");
    }
    let elapsed = packets.last().unwrap().timestamp().distance(packets[0].timestamp());
    assert!((elapsed - 119 * 33 * 90).abs() < 9_000, "{elapsed}");
    let first = packets[0].sequence_number();
    let last = packets.last().unwrap().sequence_number();
    assert_eq!(last, SequenceNumber(first.0.wrapping_add(packets.len() as u16 - 1)));
}

/// libwebrtc tells of the temporal layers of VP8 in the dependency descriptor alone, where that is
/// agreed on.
#[test]
fn fewer_frames_come_by_payloads_and_by_dependency_descriptors() {
    for (codec, descriptor) in [(Codec::Vp8, false), (Codec::Vp8, true), (Codec::H265, false)] {
        let mut world = World::new();
        let (alice, bob) = (world.connect(1), world.connect(2));
        let mut section = video_section("1", 11, &["q", "h"]);
        section.extensions.dependency_descriptor = Some(DESCRIPTOR_ID);
        section.codecs.push(binding(Codec::H265, 116, Some(117)));
        world.publish(alice, vec![section]);
        let mut subscription = video_subscription("1", 21, 11, 2000);
        subscription.extensions.dependency_descriptor = Some(DESCRIPTOR_ID);
        subscription.codecs.push(binding(Codec::H265, 116, Some(117)));
        world.subscribe(bob, vec![subscription]);
        let coding = Coding { temporal: 3, descriptor, ..Coding::plain(codec) };
        let mut sources =
            [("q", 50), ("h", 51)].map(|(rid, ssrc)| LayeredSource::new(coding, ssrc, Some(rid)));
        let mut transport = 0;
        let mut frames_in_two_seconds = |world: &mut World, max_fps: Option<u32>| {
            let settings = SubscriptionSettings { max_fps, ..SubscriptionSettings::default() };
            let subscription = SubscriptionId(21);
            world.command(MediaCommand::SetSubscription { subscription, settings });
            let before = world.clients[bob].checker.complete_frames(Ssrc(2000));
            for _ in 0..60 {
                for source in &mut sources {
                    for packet in source.next(false, &mut transport) {
                        world.clients[alice].send_rtp(&packet);
                    }
                }
                world.run(ms(33));
            }
            world.clients[bob].checker.complete_frames(Ssrc(2000)) - before
        };
        frames_in_two_seconds(&mut world, None);
        let all = frames_in_two_seconds(&mut world, None);
        let half = frames_in_two_seconds(&mut world, Some(15));
        let quarter = frames_in_two_seconds(&mut world, Some(7));
        let again = frames_in_two_seconds(&mut world, None);
        // VP8 payloads of this source tell of one layer only where it may be taken up.
        let back = if codec == Codec::Vp8 && !descriptor { 29 } else { 55 };
        assert!((58..=60).contains(&all) && again >= back, "{all} {again}");
        assert!((29..=32).contains(&half), "{half} of {codec:?}, descriptors: {descriptor}");
        assert!((14..=17).contains(&quarter), "{quarter} of {codec:?}, descriptors: {descriptor}");
        world.assert_clean();
    }
}
