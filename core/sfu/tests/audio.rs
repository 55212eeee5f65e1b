//! Audio on one shard, under virtual time: loudness, redundancy, silence.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{World, media::*, ms};
use parlor_model::TrackId;
use parlor_sfu::command::{MediaCommand, MediaEvent, TrackLevel};

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
fn levels(world: &mut World, since: std::time::Instant) -> Vec<(u64, u32, u8)> {
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
