//! The server API of a [`Node`].
#![allow(clippy::unwrap_used)]

mod world;

use livekit_protocol as proto;
use parlor_node::{
    NONCE_BYTES,
    api::{ApiErrorCode, ApiRequest, ApiResponse},
};
use parlor_sfu::command::{MediaCommand, MediaEvent};
use parlor_signal::token::VideoGrant;
use proto::{signal_request::Message as Request, signal_response::Message};
use world::{Options, World, offer_with};

fn admin(room: &str) -> Option<VideoGrant> {
    Some(VideoGrant { room_admin: true, room: room.into(), ..Default::default() })
}

fn creator() -> Option<VideoGrant> {
    Some(VideoGrant { room_create: true, room_list: true, ..Default::default() })
}

fn identity(room: &str, identity: &str) -> proto::RoomParticipantIdentity {
    let (room, identity) = (room.into(), identity.into());
    proto::RoomParticipantIdentity { room, identity, ..Default::default() }
}

fn create(name: &str) -> ApiRequest {
    let name = name.into();
    ApiRequest::CreateRoom(proto::CreateRoomRequest { name, ..Default::default() })
}

fn code(result: Result<ApiResponse, parlor_node::api::ApiError>) -> (ApiErrorCode, String) {
    let error = result.unwrap_err();
    (error.code, error.message)
}

#[test]
fn every_method_needs_its_grant() {
    let room = || "room".to_owned();
    let methods = [
        create("room"),
        ApiRequest::ListRooms(Default::default()),
        ApiRequest::DeleteRoom(proto::DeleteRoomRequest { room: room() }),
        ApiRequest::ListParticipants(proto::ListParticipantsRequest { room: room() }),
        ApiRequest::GetParticipant(identity("room", "alice")),
        ApiRequest::RemoveParticipant(identity("room", "alice")),
        ApiRequest::MutePublishedTrack(proto::MuteRoomTrackRequest {
            room: room(),
            ..Default::default()
        }),
        ApiRequest::SendData(proto::SendDataRequest { room: room(), ..Default::default() }),
    ];
    let mut world = World::new();
    world.join_active("room", "alice");
    let joiner = VideoGrant { room_join: true, room: room(), ..Default::default() };
    for method in methods {
        for grant in [None, Some(joiner.clone()), admin("other")] {
            let denied = (ApiErrorCode::Unauthenticated, "permissions denied".to_owned());
            assert_eq!(code(world.call(grant, method.clone())), denied, "{method:?}");
        }
    }
    assert_eq!(world.node.counts().participants, 1);
}

#[test]
fn rooms_are_created_listed_and_deleted() {
    let mut world = World::new();
    let request = proto::CreateRoomRequest {
        name: "tw".into(),
        empty_timeout: 60,
        max_participants: 4,
        metadata: "m".into(),
        ..Default::default()
    };
    let Ok(ApiResponse::Room(room)) = world.call(creator(), ApiRequest::CreateRoom(request)) else {
        panic!()
    };
    assert_eq!((room.empty_timeout, room.departure_timeout, room.max_participants), (60, 20, 4));
    let Ok(ApiResponse::Room(again)) = world.call(creator(), create("tw")) else { panic!() };
    assert_eq!((again.sid, again.metadata), (room.sid, room.metadata), "it is there already");

    let list = proto::ListRoomsRequest { names: vec!["tw".into(), "absent".into()] };
    let Ok(ApiResponse::Rooms(rooms)) = world.call(creator(), ApiRequest::ListRooms(list)) else {
        panic!()
    };
    assert_eq!(rooms.rooms.len(), 1);

    let alice = world.join_active("tw", "alice");
    let delete = || ApiRequest::DeleteRoom(proto::DeleteRoomRequest { room: "tw".into() });
    assert!(world.call(creator(), delete()).is_ok());
    assert!(world.is_closed(alice));
    let Some(Message::Leave(leave)) = world.said(alice).last() else { panic!() };
    assert_eq!(leave.reason(), proto::DisconnectReason::RoomDeleted);
    assert_eq!(world.node.counts(), Default::default());
    let gone = "twirp error unknown: requested room does not exist".to_owned();
    assert_eq!(code(world.call(creator(), delete())), (ApiErrorCode::NotFound, gone));
}

#[test]
fn rooms_end_when_nobody_comes() {
    let mut world = World::new();
    world.call(creator(), create("tw")).unwrap();
    world.pass(std::time::Duration::from_secs(299));
    assert_eq!(world.node.counts().rooms, 1);
    world.pass(std::time::Duration::from_secs(2));
    assert_eq!(world.node.counts().rooms, 0);
}

#[test]
fn creation_has_limits() {
    let mut world = World::new();
    assert!(world.call(creator(), create(&"n".repeat(256))).is_ok());
    let text = "twirp error unknown: room name length exceeds limits: max length 256";
    let long = world.call(creator(), create(&"n".repeat(257)));
    assert_eq!(code(long), (ApiErrorCode::InvalidArgument, text.to_owned()));
    let request = proto::CreateRoomRequest { room_preset: "nope".into(), ..Default::default() };
    let preset = world.call(creator(), ApiRequest::CreateRoom(request));
    let text = "twirp error unknown: unknown room configuration in create room request";
    assert_eq!(code(preset), (ApiErrorCode::InvalidArgument, text.to_owned()));
}

#[test]
fn participants_are_shown_and_removed() {
    let mut world = World::new();
    let alice = world.join("tw", "alice", Options::default());
    let list = |room: &str| {
        ApiRequest::ListParticipants(proto::ListParticipantsRequest { room: room.into() })
    };
    let Ok(ApiResponse::Participants(found)) = world.call(admin("tw"), list("tw")) else {
        panic!()
    };
    assert_eq!(found.participants[0].state(), proto::participant_info::State::Joined);
    let Ok(ApiResponse::Participants(none)) = world.call(admin("absent"), list("absent")) else {
        panic!()
    };
    assert!(none.participants.is_empty());
    let absent = "twirp error unknown: participant does not exist".to_owned();
    let get = ApiRequest::GetParticipant(identity("tw", "ghost"));
    assert_eq!(code(world.call(admin("tw"), get)), (ApiErrorCode::NotFound, absent.clone()));
    let remove = || ApiRequest::RemoveParticipant(identity("tw", "alice"));
    assert!(world.call(admin("tw"), remove()).is_ok());
    let Some(Message::Leave(leave)) = world.said(alice).last() else { panic!() };
    assert_eq!(leave.reason(), proto::DisconnectReason::ParticipantRemoved);
    assert_eq!(code(world.call(admin("tw"), remove())), (ApiErrorCode::NotFound, absent));
}

#[test]
fn tracks_are_muted_and_not_unmuted() {
    let mut world = World::new();
    let alice = world.join_active("tw", "alice");
    let add = proto::AddTrackRequest { cid: "mic".into(), ..Default::default() };
    world.request(alice, Request::AddTrack(add));
    world.request(alice, Request::Offer(offer_with(2, &["mic"])));
    let track_sid = world
        .said(alice)
        .iter()
        .find_map(|message| match message {
            Message::TrackPublished(published) => published.track.clone(),
            _ => None,
        })
        .unwrap()
        .sid;
    let mute = |track_sid: &str, muted| {
        let (room, identity, track_sid) = ("tw".into(), "alice".into(), track_sid.into());
        ApiRequest::MutePublishedTrack(proto::MuteRoomTrackRequest {
            room,
            identity,
            track_sid,
            muted,
        })
    };
    let Ok(ApiResponse::TrackMuted(unknown)) = world.call(admin("tw"), mute("TR_no", true)) else {
        panic!()
    };
    assert_eq!(unknown.track, None);
    let Ok(ApiResponse::TrackMuted(muted)) = world.call(admin("tw"), mute(&track_sid, true)) else {
        panic!()
    };
    assert!(muted.track.unwrap().muted);
    let [.., Message::Mute(told), Message::Update(_)] = world.said(alice) else { panic!() };
    assert!(told.muted);
    let refused = "twirp error unknown: remote unmute not enabled".to_owned();
    assert_eq!(
        code(world.call(admin("tw"), mute(&track_sid, false))),
        (ApiErrorCode::FailedPrecondition, refused)
    );
}

#[test]
fn data_is_sent_once_for_each_nonce() {
    let mut world = World::new();
    world.join_active("tw", "alice");
    let peer = world.peer_of("alice");
    let channel = parlor_model::DataChannel::Reliable;
    world.media(MediaEvent::ChannelOpen { peer, channel });
    let send = |room: &str, nonce: &[u8]| {
        let (room, data, nonce) = (room.into(), b"hi".to_vec(), nonce.to_vec());
        ApiRequest::SendData(proto::SendDataRequest { room, data, nonce, ..Default::default() })
    };
    world.commands.clear();
    for _ in 0..2 {
        world.call(admin("tw"), send("tw", &[7; NONCE_BYTES])).unwrap();
    }
    world.call(admin("tw"), send("tw", &[])).unwrap();
    let sent = world.commands.iter().filter(|c| matches!(c, MediaCommand::SendData { .. }));
    assert_eq!(sent.count(), 2);
    let short = world.call(admin("tw"), send("tw", &[7; NONCE_BYTES - 1]));
    assert_eq!(code(short).0, ApiErrorCode::InvalidArgument);
    assert_eq!(code(world.call(admin("no"), send("no", &[]))).0, ApiErrorCode::NotFound);
}
