//! Rooms whose participants are on several media threads, and rooms that share some of them.
#![allow(clippy::unwrap_used)]

use livekit_protocol as proto;
use livekit_protocol::signal_request::Message as Request;
use parlor_client::Model;
use parlor_netem::{LinkConfig, Loss};
use parlor_node::api::ApiRequest;
use parlor_simulator::{Frames, Invitation, SourceKind, World};
use parlor_transport::DtlsIdentity;
use std::{sync::LazyLock, time::Duration};

const SECOND: Duration = Duration::from_secs(1);

static IDENTITY: LazyLock<DtlsIdentity> = LazyLock::new(|| DtlsIdentity::generate().unwrap());

fn simulcast() -> SourceKind {
    SourceKind::Video { bitrates_bps: vec![160_000, 450_000, 1_700_000] }
}

fn lossy() -> LinkConfig {
    LinkConfig {
        delay: Duration::from_millis(20),
        loss: Loss::Independent(0.03),
        ..LinkConfig::default()
    }
}

/// The frames that a guest has of a track.
fn frames(world: &mut World, guest: usize, sid: &str) -> Frames {
    world.guest(guest).frames.get(sid).cloned().unwrap_or_default()
}

fn sid(world: &mut World, guest: usize, cid: &str) -> String {
    world.guest(guest).sid_of(cid).unwrap()
}

/// What comes of a track within two seconds: whole frames and bytes.
fn flow(world: &mut World, guest: usize, track: &str) -> (u64, u64) {
    let before = frames(world, guest, track);
    world.run(2 * SECOND);
    let after = frames(world, guest, track);
    (after.complete - before.complete, after.bytes - before.bytes)
}

fn ask(world: &mut World, guest: usize, track: &str, quality: proto::VideoQuality) {
    let settings = proto::UpdateTrackSettings {
        track_sids: vec![track.to_owned()],
        quality: quality.into(),
        ..Default::default()
    };
    world.guest(guest).client().request(Request::TrackSetting(settings));
}

/// Alice on the first thread, Bob and Carol on the others.
fn three_on_three_threads(seed: u64, link: &LinkConfig) -> (World, [usize; 3]) {
    let mut world = World::with_shards(seed, &IDENTITY, 3);
    let models = [("alice", Model::Single), ("bob", Model::Pair), ("carol", Model::Single)];
    let guests = models.map(|(name, model)| {
        world.invite(Invitation {
            up: link.clone(),
            down: link.clone(),
            ..Invitation::new(name, model)
        })
    });
    assert!(world.shards().iter().all(|shard| shard.peers().next().is_some()));
    (world, guests)
}

#[test]
fn all_qualities_cross_threads() {
    for link in [LinkConfig::default(), lossy()] {
        let (mut world, [alice, bob, carol]) = three_on_three_threads(1, &link);
        let now = world.now();
        world.guest(alice).publish(now, "microphone", SourceKind::Red);
        world.guest(alice).publish(now, "camera", simulcast());
        world.run(6 * SECOND);
        let (microphone, camera) =
            (sid(&mut world, alice, "microphone"), sid(&mut world, alice, "camera"));
        assert!(flow(&mut world, bob, &microphone).0 >= 90);
        let qualities = [
            (proto::VideoQuality::Low, 0, 60_000),
            (proto::VideoQuality::High, 300_000, u64::MAX),
            (proto::VideoQuality::Medium, 80_000, 180_000),
        ];
        for (quality, least, most) in qualities {
            ask(&mut world, bob, &camera, quality);
            world.run(3 * SECOND);
            let (whole, bytes) = flow(&mut world, bob, &camera);
            assert!(whole >= 55 && (least..most).contains(&bytes), "{quality:?}: {whole} {bytes}");
        }
        // Nobody has taken the high one from Carol.
        let (whole, bytes) = flow(&mut world, carol, &camera);
        assert!(whole >= 55 && bytes > 300_000, "{whole} {bytes}");
        assert_eq!(world.violations(), Vec::<String>::new());
    }
}

#[test]
fn what_nobody_on_a_thread_wants_any_more_is_not_passed_to_it() {
    let (mut world, [alice, bob, carol]) = three_on_three_threads(2, &LinkConfig::default());
    let now = world.now();
    world.guest(alice).publish(now, "camera", simulcast());
    world.run(3 * SECOND);
    let camera = sid(&mut world, alice, "camera");
    let tracks = |world: &World| world.shards().iter().map(|s| s.num_tracks()).collect::<Vec<_>>();
    assert_eq!(tracks(&world), [1, 1, 1]);
    world.guest(bob).client().subscribe(vec![camera.clone()], false);
    world.run(SECOND);
    assert_eq!(tracks(&world), [1, 0, 1]);
    world.guest(bob).client().subscribe(vec![camera.clone()], true);
    world.run(3 * SECOND);
    assert!(flow(&mut world, bob, &camera).0 >= 55);
    // Its publisher goes, and comes back.
    world.guest(alice).unpublish("camera");
    world.run(SECOND);
    assert_eq!(tracks(&world), [0, 0, 0]);
    let now = world.now();
    world.guest(alice).publish(now, "camera again", simulcast());
    world.run(3 * SECOND);
    let camera = sid(&mut world, alice, "camera again");
    assert!(flow(&mut world, carol, &camera).0 >= 55);
    for guest in [alice, bob, carol] {
        world.leave(guest);
    }
    world.run(10 * SECOND);
    assert!(world.shards().iter().all(|shard| shard.is_empty()));
    assert_eq!(world.violations(), Vec::<String>::new());
}

#[test]
fn who_is_muted_is_muted_on_every_thread() {
    let (mut world, [alice, bob, carol]) = three_on_three_threads(3, &LinkConfig::default());
    let now = world.now();
    world.guest(alice).publish(now, "microphone", SourceKind::Audio);
    world.guest(alice).publish(now, "camera", simulcast());
    world.run(3 * SECOND);
    let camera = sid(&mut world, alice, "camera");
    world.guest(alice).client().set_muted("camera", true);
    world.run(SECOND);
    for guest in [bob, carol] {
        let (whole, _) = flow(&mut world, guest, &camera);
        assert!(whole <= 12, "black pictures at most, not {whole}");
    }
    // Who comes now is told, and gets it when it goes on.
    let dave = world.invite(Invitation::new("dave", Model::Single));
    world.run(2 * SECOND);
    world.guest(alice).client().set_muted("camera", false);
    world.run(2 * SECOND);
    for guest in [bob, carol, dave] {
        assert!(flow(&mut world, guest, &camera).0 >= 55);
    }
    assert_eq!(world.violations(), Vec::<String>::new());
}

/// Alice in room one and Bob in room two, on two threads.
fn two_rooms(seed: u64) -> (World, [usize; 2]) {
    let mut world = World::with_shards(seed, &IDENTITY, 2);
    let guests = [("alice", "one"), ("bob", "two")].map(|(name, room)| {
        world.invite(Invitation { room: room.into(), ..Invitation::new(name, Model::Single) })
    });
    let now = world.now();
    for guest in guests {
        world.guest(guest).publish(now, "microphone", SourceKind::Audio);
        world.guest(guest).publish(now, "camera", simulcast());
    }
    world.run(3 * SECOND);
    assert!(world.shards().iter().all(|shard| shard.peers().count() == 1));
    (world, guests)
}

#[test]
fn who_is_forwarded_is_seen_from_another_thread() {
    let (mut world, [alice, bob]) = two_rooms(4);
    let (microphone, camera) =
        (sid(&mut world, alice, "microphone"), sid(&mut world, alice, "camera"));
    let forward = proto::ForwardParticipantRequest {
        room: "one".into(),
        identity: "alice".into(),
        destination_room: "two".into(),
    };
    world.call("one", ApiRequest::ForwardParticipant(forward)).unwrap();
    world.run(3 * SECOND);
    let (whole, bytes) = flow(&mut world, bob, &camera);
    assert!(whole >= 55 && bytes > 300_000, "{whole} {bytes}");
    assert!(flow(&mut world, bob, &microphone).0 >= 90);
    assert_eq!(world.guest(alice).frames.len(), 0, "nobody forwarded Bob");
    let remove = proto::RoomParticipantIdentity {
        room: "two".into(),
        identity: "alice".into(),
        ..Default::default()
    };
    world.call("two", ApiRequest::RemoveParticipant(remove)).unwrap();
    world.run(SECOND);
    assert_eq!(flow(&mut world, bob, &microphone).0, 0);
    assert_eq!(world.shards().iter().map(|s| s.num_tracks()).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(world.violations(), Vec::<String>::new());
}

#[test]
fn who_is_moved_keeps_its_connection_and_sees_and_is_seen_there() {
    let (mut world, [alice, bob]) = two_rooms(5);
    let request = proto::MoveParticipantRequest {
        room: "one".into(),
        identity: "alice".into(),
        destination_room: "two".into(),
    };
    world.call("one", ApiRequest::MoveParticipant(request)).unwrap();
    world.run(4 * SECOND);
    assert!(world.shards().iter().all(|shard| shard.peers().count() == 1), "nobody began anew");
    for (from, to) in [(alice, bob), (bob, alice)] {
        for (cid, least) in [("camera", 55), ("microphone", 90)] {
            let track = sid(&mut world, from, cid);
            assert!(flow(&mut world, to, &track).0 >= least, "{cid} of {from}");
        }
    }
    assert_eq!(world.violations(), Vec::<String>::new());
}
