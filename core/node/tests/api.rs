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

fn update(identity: &str) -> proto::UpdateParticipantRequest {
    proto::UpdateParticipantRequest {
        room: "tw".into(),
        identity: identity.into(),
        ..Default::default()
    }
}

#[test]
fn a_participant_is_changed_in_steps() {
    let mut world = World::new();
    let alice = world.join_active("tw", "alice");
    let said = world.said(alice).len();
    let request = proto::UpdateParticipantRequest {
        name: "Nn".into(),
        metadata: "new".into(),
        attributes: [("b".to_owned(), "2".to_owned())].into(),
        ..update("alice")
    };
    let call = world.call(admin("tw"), ApiRequest::UpdateParticipant(request));
    let Ok(ApiResponse::Participant(info)) = call else { panic!() };
    assert_eq!((info.name.as_str(), info.metadata.as_str()), ("Nn", "new"));
    let told = &world.said(alice)[said..];
    let [Message::Update(_), Message::Update(_), Message::Update(last), Message::RefreshToken(_)] =
        told
    else {
        panic!("{told:#?}")
    };
    assert_eq!(last.participants[0].version, info.version);

    let long = proto::UpdateParticipantRequest { name: "n".repeat(257), ..update("alice") };
    let refused = world.call(admin("tw"), ApiRequest::UpdateParticipant(long)).unwrap_err();
    assert_eq!(refused.message, "name length exceeds limits 256");
    assert_eq!(refused.argument, Some("name length exceeds limits"));
    let attributes = [("a".to_owned(), "v".repeat(64 << 10))].into();
    let large = proto::UpdateParticipantRequest { attributes, ..update("alice") };
    assert!(world.call(admin("tw"), ApiRequest::UpdateParticipant(large)).is_err());
    let ghost = world.call(admin("tw"), ApiRequest::UpdateParticipant(update("ghost")));
    assert_eq!(code(ghost).0, ApiErrorCode::NotFound);
}

/// A microphone of alice, and bob who hears it. Returns both and the track.
fn speaking(world: &mut World) -> (parlor_node::io::SessionId, parlor_node::io::SessionId, String) {
    let alice = world.join_active("tw", "alice");
    let bob = world.join_active("tw", "bob");
    let add = proto::AddTrackRequest { cid: "mic".into(), ..Default::default() };
    world.request(alice, Request::AddTrack(add));
    world.request(alice, Request::Offer(offer_with(2, &["mic"])));
    let published = world.said(alice).iter().find_map(|message| match message {
        Message::TrackPublished(published) => published.track.clone(),
        _ => None,
    });
    (alice, bob, published.unwrap().sid)
}

#[test]
fn permissions_change_what_is_published_and_received() {
    let mut world = World::new();
    let (alice, bob, track) = speaking(&mut world);
    let said = world.said(alice).len();
    let mut permit = |identity: &str, permission: proto::ParticipantPermission| {
        let request =
            proto::UpdateParticipantRequest { permission: Some(permission), ..update(identity) };
        let call = world.call(admin("tw"), ApiRequest::UpdateParticipant(request));
        let Ok(ApiResponse::Participant(info)) = call else { panic!() };
        (info, world.node.counts().subscriptions)
    };
    let (mut sees, all) = (proto::ParticipantPermission::default(), 1);
    sees.can_publish_data = true;
    let (bobs, subscriptions) = permit("bob", sees.clone());
    assert!(!bobs.permission.unwrap().can_subscribe);
    assert_eq!(subscriptions, 0);
    sees.can_subscribe = true;
    assert_eq!(permit("bob", sees.clone()).1, all, "and it is subscribed again");

    let (alices, subscriptions) = permit("alice", sees);
    assert_eq!((alices.tracks.len(), alices.is_publisher, subscriptions), (0, false, 0));
    let told: Vec<_> = world.said(alice)[said..]
        .iter()
        .filter(|message| !matches!(message, Message::MediaSectionsRequirement(_)))
        .collect();
    let [
        ..,
        Message::Update(_),
        Message::TrackUnpublished(gone),
        Message::Update(last),
        Message::RefreshToken(_),
    ] = &told[..]
    else {
        panic!("{told:#?}")
    };
    assert_eq!(gone.track_sid, track);
    assert!(!last.participants[0].is_publisher);
    let _ = bob;
}

#[test]
fn subscriptions_and_room_metadata_are_changed_by_api() {
    let mut world = World::new();
    let (alice, _, track) = speaking(&mut world);
    let request = |identity: &str, subscribe| {
        let (room, track_sids) = ("tw".into(), vec![track.clone(), "TR_nope".into()]);
        let identity = identity.into();
        ApiRequest::UpdateSubscriptions(proto::UpdateSubscriptionsRequest {
            room,
            identity,
            track_sids,
            subscribe,
            ..Default::default()
        })
    };
    world.call(admin("tw"), request("bob", false)).unwrap();
    assert_eq!(world.node.counts().subscriptions, 0);
    world.call(admin("tw"), request("bob", true)).unwrap();
    assert_eq!(world.node.counts().subscriptions, 1);
    assert_eq!(code(world.call(admin("tw"), request("ghost", true))).0, ApiErrorCode::NotFound);

    let metadata = |room: &str| {
        let (room, metadata) = (room.into(), "rm2".into());
        ApiRequest::UpdateRoomMetadata(proto::UpdateRoomMetadataRequest { room, metadata })
    };
    let Ok(ApiResponse::Room(room)) = world.call(admin("tw"), metadata("tw")) else { panic!() };
    assert_eq!(room.metadata, "rm2");
    assert!(matches!(world.said(alice).last(), Some(Message::RoomUpdate(_))));
    assert_eq!(code(world.call(admin("no"), metadata("no"))).0, ApiErrorCode::NotFound);
}

fn call_method(world: &mut World) {
    let request = proto::PerformRpcRequest {
        room: "tw".into(),
        destination_identity: "alice".into(),
        method: "m".into(),
        payload: "p".into(),
        response_timeout_ms: 1_000,
    };
    let claims = parlor_signal::Claims { video: admin("tw"), ..Default::default() };
    world.handle(parlor_node::io::Input::Api {
        call: parlor_node::io::CallId(9),
        claims: Some(Box::new(claims)),
        request: Box::new(ApiRequest::PerformRpc(request)),
    });
}

#[test]
fn methods_of_participants_are_called() {
    use prost::Message as _;
    use proto::{data_packet::Value, rpc_response::Value as Outcome};
    let mut world = World::new();
    world.join_active("tw", "alice");
    let peer = world.peer_of("alice");
    let channel = parlor_model::DataChannel::Reliable;
    world.media(MediaEvent::ChannelOpen { peer, channel });
    for outcome in [
        Outcome::Payload("done".into()),
        Outcome::Error(proto::RpcError { code: 1400, ..Default::default() }),
    ] {
        world.commands.clear();
        call_method(&mut world);
        assert!(world.replies.is_empty(), "alice has to answer first");
        let Some(MediaCommand::SendData { data, .. }) = world.commands.last() else { panic!() };
        let packet = proto::DataPacket::decode(data.clone()).unwrap();
        let Some(Value::RpcRequest(request)) = packet.value else { panic!() };
        assert_eq!((request.method.as_str(), request.payload.as_str()), ("m", "p"));
        assert_eq!(packet.participant_identity, request.id);
        for value in [
            Value::RpcAck(proto::RpcAck { request_id: request.id.clone() }),
            Value::RpcResponse(proto::RpcResponse {
                request_id: request.id,
                value: Some(outcome.clone()),
            }),
        ] {
            let packet = proto::DataPacket { value: Some(value), ..Default::default() };
            let data = packet.encode_to_vec().into();
            world.media(MediaEvent::Data { peer, channel, data });
        }
        match (world.replies.pop().unwrap(), outcome) {
            (Ok(ApiResponse::RpcPerformed(response)), Outcome::Payload(payload)) => {
                assert_eq!(response.payload, payload);
            }
            (Err(error), Outcome::Error(_)) => assert_eq!(error.code, ApiErrorCode::Unknown),
            other => panic!("{other:?}"),
        }
    }
    call_method(&mut world);
    world.pass(std::time::Duration::from_secs(1));
    assert_eq!(code(world.replies.pop().unwrap()).0, ApiErrorCode::Canceled);
    call_method(&mut world);
    world.call(admin("tw"), ApiRequest::RemoveParticipant(identity("tw", "alice"))).unwrap();
    let late = world.replies.pop().unwrap();
    assert_eq!(code(late).0, ApiErrorCode::Unavailable);
}

#[test]
fn removal_bars_older_tokens() {
    let mut world = World::new();
    let alice = world.join_active("tw", "alice");
    let revoke_token_ts = world.now.unix.as_secs() as i64;
    let request = proto::RoomParticipantIdentity { revoke_token_ts, ..identity("tw", "alice") };
    world.call(admin("tw"), ApiRequest::RemoveParticipant(request)).unwrap();
    assert!(world.is_closed(alice));
    let again = world.join("tw", "alice", Options::default());
    let body = "invalid authorization token: token has been revoked";
    assert_eq!(world.refused(again), Some((401, body)));
    let other = world.join("tw2", "alice", Options::default());
    assert_eq!(world.refused(other), None);
}
