//! How connections are judged, under virtual time.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::time::Duration;

use common::{World, media::*, ms};
use parlor_model::{Codec, PeerId, Ssrc};
use parlor_rtp::rtcp::{self, ReportBlock, Rtcp, XrBlock};
use parlor_sfu::{Experiences, command::MediaEvent};

/// Steps of the scale as they were told: after how many ms, whose, how good.
fn told(world: &mut World) -> Vec<(u64, u64, u8)> {
    let since = (world.now - world.start).as_millis() as u64;
    let mut all = Vec::new();
    for event in world.events.drain(..) {
        let MediaEvent::Quality { peers } = event else { continue };
        for quality in peers {
            let step = match quality.score {
                score if score > 80.0 => 3,
                score if score > 40.0 => 2,
                score if score > 20.0 => 1,
                _ => 0,
            };
            all.push((since, quality.peer.0, step));
        }
    }
    all
}

/// What the browser of a subscriber reports of an audio stream.
fn report(world: &mut World, client: usize, ssrc: u32) {
    let packets = world.clients[client].packets(Ssrc(ssrc));
    let (Some(first), Some(last)) = (packets.first(), packets.last()) else { return };
    let (first, last) = (first.sequence_number().0, last.sequence_number().0);
    let expected = u32::from(last.wrapping_sub(first)) + 1;
    let block = ReportBlock {
        ssrc: Ssrc(ssrc),
        fraction_lost: 0,
        cumulative_lost: expected as i32 - packets.len() as i32,
        highest_sequence_number: u32::from(first) + expected - 1,
        jitter: 100,
        last_sr: 0,
        delay_since_last_sr: 0,
    };
    let mut out = Vec::new();
    rtcp::write_receiver_report(&mut out, Ssrc(9), &[block]);
    world.clients[client].send_rtcp(&out);
}

#[test]
fn quality_falls_with_loss_on_the_link_that_has_it_and_comes_back() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    let idle = world.connect(3);
    world.publish(alice, vec![audio_section("0", 10)]);
    let opus = vec![binding(Codec::Opus, 109, None)];
    world.subscribe(bob, vec![audio_subscription("0", 20, 10, 1000, opus)]);
    let lost = std::rc::Rc::new(std::cell::Cell::new((false, 0u32)));
    let state = lost.clone();
    world.loss = Box::new(move |peer, datagram| {
        let is_audio = parlor_rtp::classify(datagram) == parlor_rtp::PacketClass::Rtp;
        let (active, count) = state.get();
        state.set((active, count + 1));
        peer == PeerId(2) && is_audio && active && count % 4 == 0
    });
    let mut source = AudioSource::new(40, "0");
    let mut phase = |world: &mut World, seconds: u64, up: bool, down: bool| {
        lost.set((down, 0));
        for at in 0..seconds * 50 {
            let packet = source.next();
            if !(up && at % 4 == 3) {
                world.clients[alice].send_rtp(&packet);
            }
            world.run(ms(20));
            if at % 50 == 49 {
                report(world, bob, 1000);
            }
        }
        told(world)
    };
    // Everybody is excellent once, and nothing more is said.
    let clean = phase(&mut world, 16, false, false);
    let steps = |told: &[(u64, u64, u8)], peer| -> Vec<u8> {
        told.iter().filter(|(_, of, _)| *of == peer).map(|(_, _, step)| *step).collect()
    };
    assert_eq!([1, 2, 3].map(|peer| steps(&clean, peer)), [[3], [3], [3]], "{clean:?}");
    let lost = |world: &World| {
        let Experiences { published, subscribed } = *world.shard.experiences();
        [published, subscribed].map(|of| (of.lost, of.expected > 500))
    };
    assert_eq!(lost(&world), [(0, true), (0, true)]);
    // Loss towards Bob is Bob's alone.
    let down = phase(&mut world, 15, false, true);
    assert_eq!(steps(&down, 1), []);
    assert!(steps(&down, 2).last().is_some_and(|step| *step < 3), "{down:?}");
    let clean = phase(&mut world, 30, false, false);
    assert_eq!(steps(&clean, 2).last(), Some(&3), "{clean:?}");
    let [(from_alice, _), (to_bob, _)] = lost(&world);
    assert!(from_alice == 0 && (100..250).contains(&to_bob), "{from_alice} {to_bob}");
    let times = world.shard.experiences().subscribed.jitter.counts;
    assert!(times.iter().sum::<u64>() >= 10, "{times:?}");
    // Loss from Alice is Alice's: Bob is not blamed for what never came.
    let up = phase(&mut world, 15, true, false);
    assert!(steps(&up, 1).last().is_some_and(|step| *step < 3), "{up:?}");
    assert_eq!((steps(&up, 2), steps(&up, 3)), (vec![], vec![]), "{up:?}");
    let [(from_alice, _), (to_bob_by_now, _)] = lost(&world);
    assert!((100..250).contains(&from_alice), "{from_alice}");
    assert!(to_bob_by_now < to_bob + 10, "{to_bob} {to_bob_by_now}");
    let _ = idle;
    assert!(world.clients[alice].checker.violations().is_empty());
}

#[test]
fn round_trips_are_asked_for_and_answered() {
    let mut world = World::new();
    let alice = world.connect(1);
    world.publish(alice, vec![audio_section("0", 10)]);
    world.run(Duration::from_secs(2));
    // The server asks each second; an answer that took 40 ms makes the round trip shorter.
    let blocks = |world: &World| {
        let compounds = world.clients[alice].received_rtcp.iter();
        let mut found = Vec::new();
        for packet in compounds.flat_map(|(_, compound)| rtcp::packets(compound)) {
            if let Rtcp::ExtendedReport(report) = packet {
                found.extend(report.blocks().map(|block| match block {
                    XrBlock::ReceiverReferenceTime(time) => (Some(time), None),
                    XrBlock::Dlrr(mut entries) => (None, entries.next()),
                    XrBlock::Unknown { .. } => (None, None),
                }));
            }
        }
        found
    };
    let asked: Vec<_> = blocks(&world).into_iter().filter_map(|(time, _)| time).collect();
    assert!((1..=3).contains(&asked.len()), "{asked:?}");
    // A question of the client is answered at once, under its SSRC and with its time.
    let mut out = Vec::new();
    rtcp::write_receiver_reference_time(
        &mut out,
        Ssrc(77),
        parlor_model::NtpTime(0x1234_5678_9abc_def0),
    );
    let entry = rtcp::DlrrEntry {
        ssrc: Ssrc(1),
        last_rr: asked.last().unwrap().middle(),
        delay_since_last_rr: 0,
    };
    rtcp::write_dlrr(&mut out, Ssrc(77), &[entry]);
    world.clients[alice].send_rtcp(&out);
    world.run(ms(1));
    let answered: Vec<_> = blocks(&world).into_iter().filter_map(|(_, entry)| entry).collect();
    assert_eq!(answered.len(), 1);
    assert_eq!((answered[0].ssrc, answered[0].last_rr), (Ssrc(77), 0x5678_9abc));
}
