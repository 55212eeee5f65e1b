//! Participants that are forwarded or moved to other rooms.
#![allow(clippy::unwrap_used, missing_docs)]

mod world;

use livekit_protocol as proto;
use parlor_model::{PeerId, ShardId, Ssrc, TrackId, TransportAddress};
use parlor_node::{
    api::{ApiError, ApiErrorCode, ApiRequest, ApiResponse},
    io::SessionId,
};
use parlor_sfu::command::{MediaCommand, MediaEvent, TrackLevel};
use parlor_signal::token::VideoGrant;
use proto::{signal_request::Message as Request, signal_response::Message};
use world::{Options, World, offer, offer_with};

fn grant(room: &str, destination: &str) -> Option<VideoGrant> {
    Some(VideoGrant {
        room_admin: true,
        room: room.into(),
        destination_room: destination.into(),
        ..Default::default()
    })
}

fn forward(world: &mut World, room: &str, identity: &str, to: &str) -> Result<(), ApiError> {
    let (room_, identity, destination_room) = (room.into(), identity.into(), to.into());
    let request = proto::ForwardParticipantRequest { room: room_, identity, destination_room };
    let result = world.call(grant(room, to), ApiRequest::ForwardParticipant(request));
    result.map(|response| assert!(matches!(response, ApiResponse::ParticipantForwarded(_))))
}

fn move_to(world: &mut World, room: &str, identity: &str, to: &str) -> Result<(), ApiError> {
    let (room_, identity, destination_room) = (room.into(), identity.into(), to.into());
    let request = proto::MoveParticipantRequest { room: room_, identity, destination_room };
    world.call(grant(room, to), ApiRequest::MoveParticipant(request)).map(drop)
}

fn participants(world: &mut World, room: &str) -> Vec<proto::ParticipantInfo> {
    let list = ApiRequest::ListParticipants(proto::ListParticipantsRequest { room: room.into() });
    let Ok(ApiResponse::Participants(found)) = world.call(grant(room, ""), list) else { panic!() };
    found.participants
}

fn find(world: &mut World, room: &str, identity: &str) -> Option<proto::ParticipantInfo> {
    participants(world, room).into_iter().find(|info| info.identity == identity)
}

fn remove(world: &mut World, room: &str, identity: &str) {
    let (room_, identity) = (room.into(), identity.into());
    let gone = proto::RoomParticipantIdentity { room: room_, identity, ..Default::default() };
    world.call(grant(room, ""), ApiRequest::RemoveParticipant(gone)).unwrap();
}

/// Announces a microphone and sends it: its sid, and what media threads know it as.
fn publish(world: &mut World, session: SessionId, ssrc: u32) -> (String, TrackId) {
    let add = proto::AddTrackRequest {
        cid: "mic".into(),
        source: proto::TrackSource::Microphone.into(),
        ..Default::default()
    };
    world.request(session, Request::AddTrack(add));
    world.request(session, Request::Offer(offer_with(2, &["mic"])));
    let received = |command: &MediaCommand| match command {
        MediaCommand::SetMedia { media, .. } => media.receive.first().map(|section| section.track),
        _ => None,
    };
    let track = world.commands.iter().rev().find_map(received).unwrap();
    world.media(MediaEvent::StreamStarted { track, rid: None, ssrc: Ssrc(ssrc), layer: 0 });
    let told = world.said(session).iter().rev().find_map(|message| match message {
        Message::TrackPublished(published) => published.track.clone(),
        _ => None,
    });
    (told.unwrap().sid, track)
}

/// What a peer is sent, after its client has offered again.
fn sent(world: &mut World, session: SessionId, peer: PeerId, id: u32) -> Vec<TrackId> {
    world.request(session, Request::Offer(offer(id)));
    let of_peer = |command: &MediaCommand| match command {
        MediaCommand::SetMedia { peer: of, media } if *of == peer => Some(media.clone()),
        _ => None,
    };
    let media = world.commands.iter().rev().find_map(of_peer).unwrap_or_default();
    media.send.iter().map(|section| section.track).collect()
}

fn events(world: &World, room: &str) -> Vec<String> {
    let of_room = world.webhooks.iter().filter(|event| event.room.as_ref().unwrap().name == room);
    of_room.map(|event| event.event.clone()).collect()
}

#[test]
fn forwarding_needs_both_grants_and_another_room() {
    let mut world = World::new();
    world.join_active("one", "alice");
    let request = || {
        ApiRequest::ForwardParticipant(proto::ForwardParticipantRequest {
            room: "one".into(),
            identity: "alice".into(),
            destination_room: "two".into(),
        })
    };
    for grant in [None, grant("one", ""), grant("one", "three"), grant("two", "two")] {
        let error = world.call(grant, request()).unwrap_err();
        assert_eq!(error.code, ApiErrorCode::Unauthenticated);
    }
    let same = forward(&mut world, "one", "alice", "one").unwrap_err();
    assert_eq!(same.code, ApiErrorCode::InvalidArgument);
    assert_eq!(same.argument, Some("destination room cannot be the same as source room"));
    let absent = forward(&mut world, "one", "ghost", "two").unwrap_err();
    assert_eq!(absent.code, ApiErrorCode::NotFound);
    assert_eq!(world.node.counts().rooms, 1);
}

#[test]
fn a_forwarded_participant_is_seen_and_heard_in_both_rooms() {
    let mut world = World::new();
    let alice = world.join_active("one", "alice");
    let (mic, track) = publish(&mut world, alice, 40);
    let bob = world.join_active("two", "bob");
    let peer = world.peer_of("bob");
    world.pass(std::time::Duration::from_millis(100));
    forward(&mut world, "one", "alice", "two").unwrap();
    forward(&mut world, "one", "alice", "two").unwrap();

    let likeness = find(&mut world, "two", "alice").unwrap();
    assert_eq!(likeness.kind_details, [1], "FORWARDED");
    assert_ne!(likeness.sid, world.sid_of(alice));
    assert_eq!(likeness.tracks[0].sid, mic);
    assert_eq!(find(&mut world, "one", "alice").unwrap().sid, world.sid_of(alice));
    assert_eq!(sent(&mut world, bob, peer, 2), [track]);
    let told =
        |message: &Message| matches!(message, Message::TrackSubscribed(t) if t.track_sid == mic);
    assert_eq!(world.said(alice).iter().filter(|m| told(m)).count(), 1);
    assert_eq!(
        events(&world, "two"),
        ["room_started", "participant_joined", "participant_joined", "track_published"]
    );

    // What comes later follows, and what is said here is heard there.
    let request = proto::UpdateParticipantRequest {
        room: "one".into(),
        identity: "alice".into(),
        name: "Alice".into(),
        attributes: [("a".to_owned(), "1".to_owned())].into_iter().collect(),
        ..Default::default()
    };
    world.call(grant("one", ""), ApiRequest::UpdateParticipant(request)).unwrap();
    world.request(alice, Request::Mute(proto::MuteTrackRequest { sid: mic.clone(), muted: true }));
    let likeness = find(&mut world, "two", "alice").unwrap();
    assert_eq!((likeness.name.as_str(), likeness.attributes.len()), ("Alice", 1));
    assert!(likeness.tracks[0].muted);
    world.request(alice, Request::Mute(proto::MuteTrackRequest { sid: mic, muted: false }));
    world.media(MediaEvent::AudioLevels { levels: vec![TrackLevel { track, eighths: 8 }] });
    let speaks = |message: &Message| matches!(message, Message::SpeakersChanged(s) if s.speakers[0].sid == likeness.sid);
    assert!(world.said(bob).iter().any(speaks));

    // Whoever leaves is gone from both.
    world.request(alice, Request::Leave(proto::LeaveRequest::default()));
    assert_eq!(find(&mut world, "two", "alice"), None);
    assert_eq!(sent(&mut world, bob, peer, 3), []);
    let events = events(&world, "two");
    assert_eq!(events[events.len() - 2..], ["track_unpublished", "participant_left"]);
}

#[test]
fn forwarding_ends_where_the_likeness_is_removed_and_only_there() {
    let mut world = World::new();
    let alice = world.join_active("one", "alice");
    for room in ["two", "three"] {
        world.join_active(room, "bob");
        forward(&mut world, "one", "alice", room).unwrap();
    }
    let (mic, _) = publish(&mut world, alice, 40);
    assert_eq!(find(&mut world, "two", "alice").unwrap().tracks[0].sid, mic);
    remove(&mut world, "two", "alice");
    assert_eq!(find(&mut world, "two", "alice"), None);
    assert!(find(&mut world, "three", "alice").is_some());
    assert!(find(&mut world, "one", "alice").is_some());
    assert!(!world.is_closed(alice));
    // A client of the same identity takes the place of a likeness.
    world.join_active("three", "alice");
    assert_eq!(participants(&mut world, "three").len(), 2);
    assert!(find(&mut world, "three", "alice").unwrap().kind_details.is_empty());
    let text = forward(&mut world, "one", "alice", "three").unwrap_err().message;
    assert!(text.ends_with("the destination room has a participant with this identity"), "{text}");
    // And again, into a room that is made for it.
    forward(&mut world, "one", "alice", "four").unwrap();
    assert!(find(&mut world, "four", "alice").is_some());
    let delete = ApiRequest::DeleteRoom(proto::DeleteRoomRequest { room: "one".into() });
    let creator = VideoGrant { room_create: true, ..Default::default() };
    world.call(Some(creator), delete).unwrap();
    assert_eq!(find(&mut world, "four", "alice"), None);
    world.pass(std::time::Duration::from_secs(30));
    assert_eq!(find(&mut world, "four", "alice"), None);
}

#[test]
fn a_client_that_begins_anew_is_followed() {
    let mut world = World::new();
    let alice = world.join_active("one", "alice");
    publish(&mut world, alice, 40);
    world.join_active("two", "bob");
    forward(&mut world, "one", "alice", "two").unwrap();
    let sid = find(&mut world, "two", "alice").unwrap().sid;
    let again = world.join_active("one", "alice");
    assert!(world.is_closed(alice));
    let likeness = find(&mut world, "two", "alice").unwrap();
    assert_eq!((&likeness.sid, likeness.tracks.len()), (&sid, 0));
    let (mic, _) = publish(&mut world, again, 41);
    assert_eq!(find(&mut world, "two", "alice").unwrap().tracks[0].sid, mic);
}

#[test]
fn what_a_publisher_forbids_is_forbidden_in_the_other_room_too() {
    let mut world = World::new();
    let alice = world.join_active("one", "alice");
    let (mic, track) = publish(&mut world, alice, 40);
    let bob = world.join_active("two", "bob");
    let carol = world.join_active("two", "carol");
    let (bobs, carols) = (world.peer_of("bob"), world.peer_of("carol"));
    forward(&mut world, "one", "alice", "two").unwrap();
    let permission = proto::SubscriptionPermission {
        all_participants: false,
        track_permissions: vec![proto::TrackPermission {
            participant_identity: "carol".into(),
            track_sids: vec![mic],
            ..Default::default()
        }],
    };
    world.request(alice, Request::SubscriptionPermission(permission));
    assert_eq!(sent(&mut world, bob, bobs, 2), []);
    assert_eq!(sent(&mut world, carol, carols, 2), [track]);
}

#[test]
fn a_likeness_is_neither_muted_nor_moved_nor_called() {
    let mut world = World::new();
    let alice = world.join_active("one", "alice");
    let (mic, _) = publish(&mut world, alice, 40);
    world.join_active("two", "bob");
    forward(&mut world, "one", "alice", "two").unwrap();
    let (room, identity) = (|| "two".to_owned(), || "alice".to_owned());
    let mute = proto::MuteRoomTrackRequest {
        room: room(),
        identity: identity(),
        track_sid: mic,
        muted: true,
    };
    let rpc = proto::PerformRpcRequest {
        room: room(),
        destination_identity: identity(),
        ..Default::default()
    };
    for request in [ApiRequest::MutePublishedTrack(mute), ApiRequest::PerformRpc(rpc)] {
        let error = world.call(grant("two", ""), request).unwrap_err();
        assert_eq!(error.code, ApiErrorCode::FailedPrecondition);
    }
    for result in
        [move_to(&mut world, "two", "alice", "three"), forward(&mut world, "two", "alice", "three")]
    {
        assert_eq!(result.unwrap_err().code, ApiErrorCode::FailedPrecondition);
    }
}

fn two_threads() -> World {
    World::with(|config| {
        let second = TransportAddress::udp("192.0.2.1:7883".parse().unwrap());
        config.shards.push((ShardId(1), vec![second]));
    })
}

#[test]
fn rooms_on_two_media_threads_are_joined_and_a_room_without_anybody_follows() {
    let mut world = two_threads();
    let alice = world.join_active("one", "alice");
    let (_, track) = publish(&mut world, alice, 40);
    let bob = world.join_active("two", "bob");
    let peer = world.peer_of("bob");
    assert_eq!((track.home(), peer.home()), (ShardId(0), ShardId(1)));
    forward(&mut world, "one", "alice", "two").unwrap();
    assert_eq!(sent(&mut world, bob, peer, 2), [track]);
    // It would be on the other thread, where there is less.
    let create = proto::CreateRoomRequest { name: "three".into(), ..Default::default() };
    let creator = VideoGrant { room_create: true, ..Default::default() };
    world.call(Some(creator), ApiRequest::CreateRoom(create)).unwrap();
    forward(&mut world, "one", "alice", "three").unwrap();
    assert_eq!(participants(&mut world, "three").len(), 1);
    world.join_active("three", "carol");
    assert_eq!(world.peer_of("carol").home(), ShardId(0));
}

#[test]
fn who_is_moved_keeps_its_media_thread() {
    let mut world = two_threads();
    let alice = world.join_active("one", "alice");
    let (mic, track) = publish(&mut world, alice, 40);
    let bob = world.join_active("two", "bob");
    let (bobs, alices) = (world.peer_of("bob"), world.peer_of("alice"));
    move_to(&mut world, "one", "alice", "two").unwrap();
    assert!(!world.is_closed(alice));
    assert_eq!(sent(&mut world, bob, bobs, 2), [track]);
    world.request(alice, Request::Mute(proto::MuteTrackRequest { sid: mic, muted: true }));
    let muted = |command: &MediaCommand| matches!(command, MediaCommand::SetTrackMuted { track: of, .. } if *of == track);
    assert!(world.commands.iter().any(muted));
    assert_eq!(alices.home(), ShardId(0));
}

#[test]
fn a_media_thread_has_nothing_to_do_once_all_have_gone_or_moved_and_gone() {
    let mut world = two_threads();
    for (room, identity) in [("one", "alice"), ("one", "bob"), ("two", "carol"), ("two", "dave")] {
        world.join_active(room, identity);
    }
    move_to(&mut world, "one", "alice", "two").unwrap();
    move_to(&mut world, "two", "carol", "one").unwrap();
    let destroyer = || Some(VideoGrant { room_create: true, ..Default::default() });
    for room in ["one", "two"] {
        let delete = proto::DeleteRoomRequest { room: room.into() };
        world.call(destroyer(), ApiRequest::DeleteRoom(delete)).unwrap();
    }
    // The first of two that have the same, then the other; had one a rest, one would go astray.
    for (room, identity, thread) in
        [("a", "erin", 0), ("b", "frank", 1), ("a", "grace", 0), ("c", "heidi", 1)]
    {
        world.join_active(room, identity);
        assert_eq!(world.peer_of(identity).home(), ShardId(thread), "{identity}");
    }
}

#[test]
fn a_participant_is_moved_with_its_connection() {
    let mut world = World::new();
    let alice = world.join_active("one", "alice");
    let (mic, track) = publish(&mut world, alice, 40);
    let dave = world.join_active("one", "dave");
    let (daves, alices) = (world.peer_of("dave"), world.peer_of("alice"));
    assert_eq!(sent(&mut world, dave, daves, 2), [track]);
    let bob = world.join_active("two", "bob");
    let (bobs_mic, bobs_track) = publish(&mut world, bob, 50);
    let bobs = world.peer_of("bob");
    let before = world.sid_of(alice);
    move_to(&mut world, "one", "alice", "two").unwrap();

    assert!(!world.is_closed(alice));
    let moved = world.said(alice).iter().find_map(|message| match message {
        Message::RoomMoved(moved) => Some(moved.clone()),
        _ => None,
    });
    let moved = moved.unwrap();
    let (room, this) = (moved.room.unwrap(), moved.participant.unwrap());
    assert_eq!((room.name.as_str(), moved.other_participants.len()), ("two", 1));
    assert_eq!(moved.other_participants[0].tracks[0].sid, bobs_mic);
    assert_ne!(this.sid, before);
    assert_eq!(this.tracks[0].sid, mic);
    assert_eq!(find(&mut world, "one", "alice"), None);
    assert_eq!(find(&mut world, "two", "alice").unwrap().sid, this.sid);
    let closed =
        |c: &MediaCommand| matches!(c, MediaCommand::ClosePeer { peer } if *peer == alices);
    assert!(!world.commands.iter().any(closed));

    assert_eq!(sent(&mut world, dave, daves, 3), []);
    world.request(bob, Request::Offer(offer_with(3, &["mic"])));
    let media = |peer: PeerId| {
        move |command: &MediaCommand| match command {
            MediaCommand::SetMedia { peer: of, media } if *of == peer => Some(media.clone()),
            _ => None,
        }
    };
    let of_bob = world.commands.iter().rev().find_map(media(bobs)).unwrap();
    assert_eq!(of_bob.send[0].track, track);
    world.request(alice, Request::Offer(offer_with(3, &["mic"])));
    let of_alice = world.commands.iter().rev().find_map(media(alices)).unwrap();
    assert_eq!((of_alice.send[0].track, of_alice.receive[0].track), (bobs_track, track));

    // From here on it is one of the other room, and its session goes on there.
    world.request(alice, Request::Mute(proto::MuteTrackRequest { sid: mic, muted: true }));
    assert!(find(&mut world, "two", "alice").unwrap().tracks[0].muted);
    let options = Options { sid: this.sid, ..Options::default() };
    let resumed = world.resume("two", "alice", options);
    assert!(matches!(world.said(resumed)[0], Message::Reconnect(_)));
    let left = events(&world, "one");
    assert_eq!(left[left.len() - 2..], ["track_unpublished", "participant_left"]);
    let joined = events(&world, "two");
    assert_eq!(joined[joined.len() - 2..], ["participant_joined", "track_published"]);
}

#[test]
fn whose_client_knows_of_no_moves_begins_anew_there() {
    let mut world = two_threads();
    world.join_active("two", "bob");
    for (identity, to) in [("alice", "two"), ("carol", "new")] {
        let old = proto::ClientInfo { protocol: 15, ..Default::default() };
        let session =
            world.join("one", identity, Options { client_info: old, ..Options::default() });
        move_to(&mut world, "one", identity, to).unwrap();
        let [.., Message::RoomMoved(moved), Message::Leave(leave)] = world.said(session) else {
            panic!("{:#?}", world.said(session))
        };
        assert_eq!(leave.action(), proto::leave_request::Action::Reconnect);
        assert_eq!(moved.room.as_ref().unwrap().name, to);
        assert!(!moved.token.is_empty());
    }
}

#[test]
fn a_full_room_takes_nobody_in() {
    let mut world = World::new();
    world.join_active("one", "alice");
    let options = Options { max_participants: 1, ..Options::default() };
    world.join("two", "bob", options);
    for result in
        [move_to(&mut world, "one", "alice", "two"), forward(&mut world, "one", "alice", "two")]
    {
        assert_eq!(result.unwrap_err().code, ApiErrorCode::ResourceExhausted);
    }
    assert!(find(&mut world, "one", "alice").is_some());
    assert_eq!(participants(&mut world, "two").len(), 1);
}

#[test]
fn who_is_moved_is_not_told_of_the_hidden() {
    let mut world = World::new();
    let alice = world.join_active("one", "alice");
    let mut options = Options::default();
    options.grant.hidden = true;
    world.join("two", "ghost", options);
    world.join_active("two", "bob");
    move_to(&mut world, "one", "alice", "two").unwrap();
    let moved = world.said(alice).iter().find_map(|message| match message {
        Message::RoomMoved(moved) => Some(moved.other_participants.clone()),
        _ => None,
    });
    let told: Vec<_> = moved.unwrap().into_iter().map(|other| other.identity).collect();
    assert_eq!(told, ["bob"]);
}
