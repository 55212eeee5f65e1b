//! Rooms in a world: what the issue *A room you can talk in* asks for under virtual time.
#![allow(clippy::unwrap_used)]

use parlor_client::{ClientEvent, Model};
use parlor_netem::{LinkConfig, Loss};
use parlor_simulator::{Direction, Invitation, Kind, SourceKind, Trace, World};
use parlor_transport::DtlsIdentity;
use std::{sync::LazyLock, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

static IDENTITY: LazyLock<DtlsIdentity> = LazyLock::new(|| DtlsIdentity::generate().unwrap());

fn world(seed: u64) -> World {
    World::new(seed, &IDENTITY)
}

fn lossy() -> LinkConfig {
    LinkConfig {
        delay: Duration::from_millis(20),
        loss: Loss::Independent(0.05),
        ..LinkConfig::default()
    }
}

fn camera() -> SourceKind {
    SourceKind::Video { bitrates_bps: vec![800_000] }
}

fn simulcast() -> SourceKind {
    SourceKind::Video { bitrates_bps: vec![160_000, 450_000, 1_700_000] }
}

/// Two guests on links that lose 5 %, five seconds of media, and a goodbye.
fn lossy_call(seed: u64, models: [Model; 2]) -> (Trace, u64) {
    let mut world = world(seed);
    let guests = [("alice", models[0]), ("bob", models[1])].map(|(name, model)| {
        world.invite(Invitation { up: lossy(), down: lossy(), ..Invitation::new(name, model) })
    });
    let connected = world.run_until(10 * SECOND, |world| {
        guests.iter().all(|guest| world.guest(*guest).is_connected())
    });
    assert!(connected, "the handshakes survive the loss");
    let now = world.now();
    world.guest(guests[0]).publish(now, "microphone", SourceKind::Audio);
    world.guest(guests[0]).publish(now, "camera", camera());
    let began = world.run_until(5 * SECOND, |world| {
        world.guest(guests[1]).frames.values().filter(|f| f.complete > 0).count() == 2
    });
    assert!(began, "both tracks arrive: {:?}", world.guest(guests[1]).events);
    let before = world.guest(guests[1]).complete_frames();
    world.run(5 * SECOND);
    let complete = world.guest(guests[1]).complete_frames() - before;
    world.guest(guests[0]).client().leave();
    assert!(world.run_until(SECOND, |world| world.guest(guests[0]).has_left()));
    world.run(SECOND);
    assert_eq!(world.violations(), Vec::<String>::new());
    let counters = world.guest(guests[1]).client().counters();
    assert!(counters.repaired > 0, "losses were repaired: {counters:?}");
    (world.trace().clone(), complete)
}

#[test]
fn five_percent_loss_is_repaired_and_a_run_repeats() {
    for models in [[Model::Single, Model::Single], [Model::Pair, Model::Single]] {
        let (trace, complete) = lossy_call(7, models);
        // 250 audio packets and 150 frames are sent; audio has no retransmission stream and is
        // lost on both links: 226 of it come on average.
        assert!(complete >= 150 + 215, "{complete} of 400 came whole");
        for kind in [Kind::Rtp, Kind::Rtcp, Kind::Signal] {
            for direction in [Direction::ToServer, Direction::ToGuest] {
                assert!(trace.count(kind, direction) > 0, "{kind:?} {direction:?}");
            }
        }
        let (again, _) = lossy_call(7, models);
        if let Some(difference) = trace.first_difference(&again) {
            panic!("two runs of one seed differ at {difference}");
        }
        assert_eq!(trace.hash(), again.hash());
        assert_ne!(trace.hash(), lossy_call(8, models).0.hash());
    }
}

#[test]
fn five_guests_hear_and_see_each_other() {
    let mut world = world(1);
    let guests: Vec<_> = (0..5)
        .map(|n| {
            let model = if n % 2 == 0 { Model::Single } else { Model::Pair };
            world.invite(Invitation::new(&format!("guest {n}"), model))
        })
        .collect();
    for guest in &guests {
        let now = world.now();
        world.guest(*guest).publish(now, "microphone", SourceKind::Audio);
        world.guest(*guest).publish(now, "camera", camera());
    }
    world.run(5 * SECOND);
    for guest in guests {
        let frames = &world.guest(guest).frames;
        assert_eq!(frames.len(), 8, "guest {guest} receives two tracks of each other guest");
        assert!(frames.values().all(|frames| frames.complete > 80), "guest {guest}: {frames:?}");
    }
    assert_eq!(world.violations(), Vec::<String>::new());
}

#[test]
fn the_highest_layer_is_forwarded_and_the_next_when_it_stops() {
    let mut world = world(3);
    let alice = world.invite(Invitation::new("alice", Model::Single));
    let bob = world.invite(Invitation::new("bob", Model::Single));
    let now = world.now();
    world.guest(alice).publish(now, "camera", simulcast());
    world.run(4 * SECOND);
    let before = world.guest(bob).frames.values().next().unwrap().clone();
    world.run(SECOND);
    let after = world.guest(bob).frames.values().next().unwrap().clone();
    let bytes_per_frame = 1_700_000 / 8 / 30;
    assert!(
        after.packets - before.packets >= 28 * (bytes_per_frame / 1100),
        "{before:?} {after:?}"
    );
    assert_eq!(world.violations(), Vec::<String>::new());
}

#[test]
fn a_nat_that_forgets_does_not_end_the_session() {
    let mut world = world(4);
    let alice = world.invite(Invitation::new("alice", Model::Single));
    let bob = world.invite(Invitation::new("bob", Model::Single));
    let now = world.now();
    world.guest(alice).publish(now, "microphone", SourceKind::Audio);
    world.run(3 * SECOND);
    world.rebind(bob);
    world.rebind(alice);
    world.run(5 * SECOND);
    let before = world.guest(bob).complete_frames();
    world.run(2 * SECOND);
    assert!(world.guest(bob).complete_frames() - before >= 95);
    let failed = |event: &ClientEvent| matches!(event, ClientEvent::Failed(_));
    assert!(!world.guest(bob).events.iter().any(failed));
}
