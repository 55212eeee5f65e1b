//! What applications are told, in the order and form that trace 10 recorded.
#![allow(clippy::unwrap_used)]

mod world;

use livekit_protocol as proto;
use proto::signal_request::Message as Request;
use std::time::Duration;
use world::{Options, World, offer_with};

fn events(world: &World) -> Vec<(&str, &str)> {
    let identity = |event: &proto::WebhookEvent| event.participant.is_some();
    let told = world.webhooks.iter();
    told.map(|event| {
        let of = identity(event).then(|| event.participant.as_ref().unwrap().identity.as_str());
        (event.event.as_str(), of.unwrap_or(""))
    })
    .collect()
}

#[test]
fn a_session_is_told_from_beginning_to_end() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    world.join_active("room", "bob");
    world.pass(Duration::from_secs(1));
    let add = proto::AddTrackRequest { cid: "mic".into(), ..Default::default() };
    world.request(alice, Request::AddTrack(add));
    world.request(alice, Request::Offer(offer_with(2, &["mic"])));
    let leave = || Request::Leave(proto::LeaveRequest::default());
    world.request(alice, leave());
    let carol = world.join("room", "carol", Options::default());
    world.request(carol, leave());
    let bob = world.join("room", "bob", Options::default());
    world.request(bob, leave());
    world.pass(Duration::from_secs(60));
    assert_eq!(
        events(&world),
        [
            ("room_started", ""),
            ("participant_joined", "alice"),
            ("participant_joined", "bob"),
            ("track_published", "alice"),
            ("track_unpublished", "alice"),
            ("participant_left", "alice"),
            ("participant_connection_aborted", "carol"),
            ("participant_left", "bob"),
            ("participant_connection_aborted", "bob"),
            ("room_finished", ""),
        ]
    );
    let mut ids: Vec<_> = world.webhooks.iter().map(|event| event.id.as_str()).collect();
    assert!(ids.iter().all(|id| id.starts_with("EV_") && id.len() == 15));
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), world.webhooks.len());
}

#[test]
fn tracks_come_with_names_only_and_the_rest_in_full() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let add = proto::AddTrackRequest { cid: "mic".into(), ..Default::default() };
    world.request(alice, Request::AddTrack(add));
    world.request(alice, Request::Offer(offer_with(2, &["mic"])));
    world.request(alice, Request::Leave(proto::LeaveRequest::default()));
    let of = |name: &str| world.webhooks.iter().find(|event| event.event == name).unwrap();
    for name in ["track_published", "track_unpublished"] {
        let event = of(name);
        let room = event.room.as_ref().unwrap();
        let stub = proto::Room { sid: room.sid.clone(), name: "room".into(), ..Default::default() };
        assert_eq!(*room, stub);
        let participant = event.participant.as_ref().unwrap();
        assert!(participant.permission.is_none() && participant.identity == "alice");
        assert_eq!(event.track.as_ref().unwrap().codecs[0].cid, "mic");
    }
    let left = of("participant_left");
    let participant = left.participant.as_ref().unwrap();
    assert_eq!(participant.state(), proto::participant_info::State::Disconnected);
    assert_eq!(participant.disconnect_reason(), proto::DisconnectReason::ClientInitiated);
    assert!(!left.room.as_ref().unwrap().enabled_codecs.is_empty());
    let joined = of("participant_joined").participant.as_ref().unwrap();
    assert_eq!(joined.state(), proto::participant_info::State::Active);
}

#[test]
fn who_joins_first_is_told_of_first() {
    let mut world = World::new();
    let names: Vec<String> = (0..20).map(|number| format!("p{number}")).collect();
    for name in &names {
        world.join_active("room", name);
    }
    world.pass(Duration::from_secs(1));
    let told: Vec<&str> = events(&world)[1..].iter().map(|(_, identity)| *identity).collect();
    assert_eq!(told, names.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_room_that_returns_has_not_finished() {
    use parlor_node::{api::ApiRequest, io::Input};
    for returns in [true, false] {
        let mut world = World::with(|config| config.room_rules.rooms_return = returns);
        let create = proto::CreateRoomRequest { name: "kept".into(), ..Default::default() };
        let grant = parlor_signal::token::VideoGrant { room_create: true, ..Default::default() };
        world.call(Some(grant), ApiRequest::CreateRoom(create)).unwrap();
        for room in ["kept", "made by joining"] {
            world.join_active(room, "alice");
        }
        world.handle(Input::Shutdown);
        let of = |event: &str| -> Vec<&str> {
            let told = world.webhooks.iter().filter(|told| told.event == event);
            told.map(|told| told.room.as_ref().unwrap().name.as_str()).collect()
        };
        assert_eq!(of("participant_left"), ["kept", "made by joining"]);
        let finished = of("room_finished");
        assert_eq!(finished.contains(&"kept"), !returns);
        assert!(finished.contains(&"made by joining"));
    }
}
