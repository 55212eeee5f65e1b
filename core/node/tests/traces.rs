//! Recorded clients against a [`Node`]: what it says must be what the recorded server said.
//!
//! The fixtures in `traces/` hold what clients sent and what LiveKit 1.13.5 answered. Media
//! threads are played by this test: connections come up at once, and every announced stream
//! starts. Ids, times and SSRCs are compared by their place, not by their value. Participant
//! updates are compared as the sequence of distinct states, since LiveKit repeats them and
//! batches those of others by seconds.
#![allow(clippy::unwrap_used)]

mod replay;

use livekit_protocol as proto;
use parlor_node::io::Input;
use replay::{Damage, PERIODIC, World, case, normalise};
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn single_connection() {
    let mut world = World::play("01-single-pc-basic");
    world.compare("alice#1");
    world.compare("bob#1");
    assert_eq!(world.node.counts().participants, 0);
}

#[test]
fn late_joiner() {
    let mut world = World::play("01-late-joiner");
    world.compare("alice#1");
    // LiveKit asks for one more offer although nothing has changed.
    world.compare_without("bob#1", &["media_sections_requirement"]);
}

#[test]
fn pair_of_connections() {
    let mut world = World::play("02-dual-pc-basic");
    world.compare("alice#1");
    world.compare("bob#1");
    assert_eq!(world.node.counts().participants, 0);
}

#[test]
fn both_models_in_one_room() {
    let mut world = World::play("02-mixed-pc");
    world.compare("alice#1");
    world.compare("bob#1");
}

#[test]
fn native_client_on_a_single_connection() {
    let mut world = World::play("07-python-default");
    world.compare("alice#1");
    // He closes his socket before he is answered.
    world.compare_without("bob#1", &["data_track_subscriber_handles", "leave"]);
}

#[test]
fn data_tracks() {
    let mut world = World::play("05-data-tracks");
    world.compare("alice#1");
    // LiveKit says twice that there is none any more, and draws the handle.
    world.compare_without("bob#1", &["data_track_subscriber_handles"]);
    let (ours, theirs) = (&world.data_tracks_received, &world.data_tracks_recorded);
    let beyond_handle = |packet: &Vec<u8>| [&packet[..2], &packet[4..]].concat();
    let handles: BTreeSet<_> = ours["bob"].iter().map(|packet| packet[2..4].to_vec()).collect();
    assert_eq!(handles.len(), 1, "one handle, of the subscriber");
    let (ours, theirs) = (ours["bob"].iter(), theirs["bob"].iter());
    assert_eq!(
        ours.map(beyond_handle).collect::<Vec<_>>(),
        theirs.map(beyond_handle).collect::<Vec<_>>()
    );
}

#[test]
fn data() {
    use proto::data_packet::Value;
    let mut world = World::play("05-data");
    for name in ["alice#1", "bob#1", "carol#1"] {
        world.compare(name);
    }
    let ids = world.ids.clone();
    let ours_of = |sid: &str| ids.get(sid).cloned().unwrap_or_default();
    for client in ["alice", "bob", "carol"] {
        let mut theirs = world.data_recorded.remove(client).unwrap_or_default();
        // Those of the server API came by HTTP.
        theirs.retain(|packet| !packet.participant_sid.is_empty());
        #[allow(deprecated)]
        for packet in &mut theirs {
            packet.participant_sid = ours_of(&packet.participant_sid);
            if let Some(Value::User(user)) = &mut packet.value {
                user.participant_sid = ours_of(&user.participant_sid);
            }
        }
        let mut ours = world.data_received.remove(client).unwrap_or_default();
        // LiveKit asks for no first message.
        ours.retain(
            |packet| !matches!(&packet.value, Some(Value::RpcRequest(_)) if packet.sequence == 0),
        );
        // Lossy and reliable packets may overtake one another.
        let key = |packet: &proto::DataPacket| (packet.participant_sid.clone(), packet.sequence);
        ours.sort_by_key(key);
        theirs.sort_by_key(key);
        assert_eq!(ours, theirs, "{client}");
    }
}

#[test]
fn damaged_messages_hurt_nobody_and_leave_nothing() {
    for seed in 0..100 {
        for name in ["01-single-pc-basic", "02-dual-pc-basic", "02-mixed-pc", "05-data"] {
            let mut world = World::new();
            world.damage = Some(Damage(seed));
            let mut world = world.played(name);
            world.node.handle(world.now, Input::Shutdown);
            world.drain();
            assert_eq!(world.node.counts(), Default::default(), "{name} {seed}");
        }
    }
}

/// What is said on a socket that resumes a session. What came before is a matter of timing.
fn compare_resume(name: &str) {
    let mut world = World::new();
    world.lenient = true;
    let mut world = world.played(name);
    assert!(world.sockets["bob#1"].closed);
    let mut print = |recorded: bool| -> Vec<String> {
        world.learn_ids("alice#1");
        world.learn_ids("bob#1");
        let socket = &world.sockets["bob#2"];
        let mut said = if recorded { socket.recorded.clone() } else { socket.said.clone() };
        let end = said.iter().position(|message| {
            case(message) == "update" && {
                message["update"]["participants"][0]["state"] == "DISCONNECTED"
            }
        });
        said.truncate(end.unwrap_or(said.len()));
        for message in &mut said {
            world.translate(message);
            normalise(message);
            if let Some(Value::Array(all)) = message.pointer_mut("/update/participants") {
                all.sort_by_key(|participant| participant["identity"].to_string());
            }
        }
        let kept = said.iter().filter(|message| !PERIODIC.contains(&case(message)));
        kept.take(5).map(Value::to_string).collect()
    };
    let (ours, theirs) = (print(false), print(true));
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs);
    }
    assert!(ours.len() >= 4, "{ours:#?}");
}

#[test]
fn resume_of_a_single_connection() {
    compare_resume("04-signal-reconnect");
}

#[test]
fn resume_of_a_pair() {
    compare_resume("04-signal-reconnect-dual");
}

#[test]
fn what_ended_in_a_failure_is_not_resumed() {
    let world = World::play("04-node-failure");
    assert_eq!(world.sockets["bob#2"].said, world.sockets["bob#2"].recorded);
    assert!(world.sockets["bob#1"].closed && world.sockets["bob#2"].closed);
    assert!(!world.sockets["bob#1"].said.iter().any(|message| case(message) == "leave"));
    assert_eq!(case(&world.sockets["bob#3"].said[0]), "join");
}

/// Plays a recording of media with its times, and holds what its two clients were told against it.
fn compare_media(name: &str) -> World {
    let mut world = World::play(name);
    BOTH.iter().for_each(|socket| world.compare(socket));
    world
}

/// As [`compare_media`], kind by kind and without participant updates, where recorded clients said
/// two things at once.
fn compare_media_kinds(name: &str, left_out: &[&str]) -> World {
    let mut world = World::play(name);
    BOTH.iter().for_each(|socket| world.compare_kinds(socket, left_out));
    world
}

const BOTH: [&str; 2] = ["alice#1", "bob#1"];

#[test]
fn av1_svc() {
    compare_media("03-av1-svc");
}

#[test]
fn vp9_svc() {
    compare_media("03-vp9-svc");
}

#[test]
fn h264_simulcast() {
    compare_media("03-h264-simulcast");
}

#[test]
fn vp8_no_simulcast() {
    compare_media("03-vp8-no-simulcast");
}

#[test]
fn backup_codec() {
    // That the track has a subscriber LiveKit says once the backup is sent, we once it is asked for.
    // It asks for one more offer then; our first answer has a section for the track.
    // What is wanted of each codec is another matter: docs/compatibility.md.
    compare_media_kinds("03-backup-codec", &["media_sections_requirement"]);
}

#[test]
fn e2ee() {
    compare_media_kinds("03-e2ee", &[]);
}

#[test]
fn audio_red_stereo() {
    compare_media_kinds("03-audio-red-stereo", &[]);
}

#[test]
fn screen_share() {
    compare_media_kinds("03-screen-share", &[]);
}

#[test]
fn many_tracks() {
    compare_media_kinds("03-many-tracks", &[]);
}

#[test]
fn subscriber_bandwidth() {
    compare_media("04-subscriber-bandwidth");
}

#[test]
fn adaptive_stream() {
    compare_media("06-adaptive-stream").compare_demand("alice#1");
}

#[test]
fn dynacast() {
    compare_media("06-dynacast").compare_demand("alice#1");
}

#[test]
fn dynacast_no_subscriber() {
    // LiveKit asks for one more offer although nothing has changed.
    let beside = ["media_sections_requirement"];
    compare_media_kinds("06-dynacast-no-subscriber", &beside).compare_demand("alice#1");
}

#[test]
fn mute_by_api() {
    compare_media("06-mute-by-api");
}

#[test]
fn speakers_quality() {
    // Who speaks is heard on media threads: `speakers.rs`.
    compare_media_kinds("06-speakers-quality", &["speakers_changed"]);
}

#[test]
fn stream_pause() {
    for name in ["06-stream-pause-dual", "06-stream-pause-single"] {
        // Recorded with another configuration; what fits a link is a matter of media threads.
        compare_media_kinds(name, &["join", "stream_state_update"]);
    }
}

#[test]
fn subscription_permissions() {
    let mut world = compare_media("06-subscription-permissions");
    world.compare("carol#1");
}

#[test]
fn subscriptions() {
    compare_media("06-subscriptions").compare_demand("alice#1");
}
