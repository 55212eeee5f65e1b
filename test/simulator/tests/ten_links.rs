//! Ten subscribers on ten links to one publication: each has its own picture.
#![allow(clippy::unwrap_used)]

use parlor_client::Model;
use parlor_netem::{LinkConfig, Loss};
use parlor_simulator::{Invitation, SourceKind, World, identity};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const SECONDS: u64 = 20;

fn link(kbps: Option<u64>, loss: f64, delay_ms: u32) -> LinkConfig {
    LinkConfig {
        delay: delay_ms * MS,
        rate_bps: kbps.map(|kbps| kbps * 1000),
        loss: if loss > 0.0 { Loss::Independent(loss) } else { Loss::None },
        ..LinkConfig::default()
    }
}

/// Frames, packets of video, packets of audio, keyframes.
fn counts(world: &mut World, guest: usize) -> [u64; 4] {
    let frames = &world.guest(guest).frames;
    let of = |audio: bool| frames.iter().filter(move |(sid, _)| sid.starts_with("TR_A") == audio);
    let video = of(false).map(|(_, it)| [it.complete, it.packets, 0, it.keyframes]);
    let audio = of(true).map(|(_, it)| [0, 0, it.complete, 0]);
    video.chain(audio).fold([0; 4], |sum, it| std::array::from_fn(|at| sum[at] + it[at]))
}

#[test]
fn ten_subscribers_of_different_links_never_influence_one_anothers_pictures() {
    let open = link(None, 0.0, 20);
    // Packets a frame: 1, 2 and 8 of the three layers; none where the video is paused.
    let links = [
        (open.clone(), Some(8.0)),
        (link(Some(90), 0.0, 20), None),
        (open.clone(), Some(8.0)),
        (link(Some(350), 0.0, 20), Some(1.0)),
        (link(None, 0.15, 20), Some(8.0)),
        (link(Some(700), 0.0, 20), Some(2.0)),
        (link(None, 0.05, 50), Some(8.0)),
        (link(Some(4000), 0.0, 20), Some(8.0)),
        (link(Some(700), 0.0, 100), Some(2.0)),
        (link(None, 0.0, 300), Some(8.0)),
    ];
    let mut world = World::new(10, &identity());
    world.keep_hash_only();
    let alice = world.invite(Invitation::new("alice", Model::Single));
    let guests: Vec<_> = (0..links.len())
        .map(|n| {
            let model = if n % 2 == 0 { Model::Single } else { Model::Pair };
            world.invite(Invitation::new(&format!("guest {n}"), model))
        })
        .collect();
    assert!(world.run_until(10_000 * MS, |world| {
        guests.iter().all(|guest| world.guest(*guest).is_connected())
    }));
    for (guest, (down, _)) in guests.iter().zip(&links) {
        world.set_links(*guest, open.clone(), down.clone());
    }
    let now = world.now();
    let bitrates_bps = vec![160_000, 450_000, 1_700_000];
    world.guest(alice).publish(now, "microphone", SourceKind::Audio);
    world.guest(alice).publish(now, "camera", SourceKind::Video { bitrates_bps });
    world.run(15_000 * MS);
    let before: Vec<_> = guests.iter().map(|guest| counts(&mut world, *guest)).collect();
    world.run(Duration::from_secs(SECONDS));
    for (at, (guest, (down, expected))) in guests.iter().zip(&links).enumerate() {
        let after = counts(&mut world, *guest);
        let [frames, packets, audio, keyframes]: [u64; 4] =
            std::array::from_fn(|place| after[place] - before[at][place]);
        let name = format!("{down:?}: {frames} frames of {packets} packets, {keyframes} keyframes");
        println!("guest {at}: {name}, {audio} audio");
        let is_lossy = down.loss != Loss::None;
        assert!(is_lossy || audio >= SECONDS * 50 * 99 / 100, "guest {at}: {audio} of audio");
        let Some(expected) = expected else {
            assert_eq!(frames, 0, "guest {at} {name}");
            continue;
        };
        let least = if is_lossy { 94 } else { 99 };
        assert!(frames >= SECONDS * 30 * least / 100, "guest {at} {name}");
        let per_frame = packets as f64 / frames as f64;
        assert!((per_frame / expected - 1.0).abs() < 0.25, "guest {at} {name}");
    }
    assert_eq!(world.violations(), Vec::<String>::new());
}
