//! How rooms begin, with which settings, and what participants leave in them for others.
#![allow(clippy::unwrap_used)]

mod world;

use livekit_protocol as proto;
use parlor_model::Ssrc;
use parlor_node::{
    Attempts, MISSING_TRACKS_MAX, RoomRules, TRACK_NOT_FOUND_TIMEOUT,
    api::{ApiErrorCode, ApiRequest, ApiResponse},
    io::SessionId,
};
use parlor_sfu::command::{MediaCommand, MediaEvent, PlayoutDelay};
use parlor_signal::token::VideoGrant;
use proto::{
    request_response::Reason, signal_request::Message as Request, signal_response::Message,
};
use serde_json::json;
use std::time::Duration;
use world::{Options, World, offer_with};

fn creator() -> Option<VideoGrant> {
    Some(VideoGrant { room_create: true, room_list: true, ..Default::default() })
}

fn create(world: &mut World, request: proto::CreateRoomRequest) -> proto::Room {
    match world.call(creator(), ApiRequest::CreateRoom(request)) {
        Ok(ApiResponse::Room(room)) => room,
        other => panic!("{other:?}"),
    }
}

fn rooms(world: &mut World) -> Vec<proto::Room> {
    match world.call(creator(), ApiRequest::ListRooms(Default::default())) {
        Ok(ApiResponse::Rooms(list)) => list.rooms,
        other => panic!("{other:?}"),
    }
}

fn named(name: &str) -> proto::CreateRoomRequest {
    proto::CreateRoomRequest { name: name.into(), ..Default::default() }
}

#[test]
fn without_auto_create_a_join_needs_a_room_or_the_right_to_make_it() {
    let mut world = World::with(|config| config.room_rules.auto_create = false);
    let refused = Some((404, "requested room does not exist"));
    let session = world.join("room", "alice", Options::default());
    assert_eq!(world.refused(session), refused);
    let validated = world.validate("room", "alice", Options::default());
    assert_eq!(validated.as_ref().map(|(status, body)| (*status, body.as_str())), refused);
    let dispatch = proto::CreateAgentDispatchRequest { room: "room".into(), ..Default::default() };
    let grant = VideoGrant { room_admin: true, room: "room".into(), ..Default::default() };
    let dispatched = world.call(Some(grant), ApiRequest::CreateDispatch(dispatch));
    assert_eq!(dispatched.unwrap_err().code, ApiErrorCode::NotFound);
    assert!(rooms(&mut world).is_empty());

    create(&mut world, named("room"));
    assert_eq!(world.validate("room", "alice", Options::default()), None);
    let session = world.join("room", "alice", Options::default());
    assert_eq!(world.refused(session), None);

    let grant = VideoGrant { room_join: true, room_create: true, ..Default::default() };
    let session = world.join("other", "bob", Options { grant, ..Default::default() });
    assert_eq!(world.refused(session), None);
    assert_eq!(rooms(&mut world).len(), 2);
}

#[test]
fn validation_opens_nothing_and_knows_revoked_tokens() {
    let mut world = World::new();
    assert_eq!(world.validate("room", "alice", Options::default()), None);
    assert!(rooms(&mut world).is_empty());
    world.join_active("room", "alice");
    let remove = proto::RoomParticipantIdentity {
        room: "room".into(),
        identity: "alice".into(),
        revoke_token_ts: 1_850_000_000,
    };
    let grant = VideoGrant { room_admin: true, room: "room".into(), ..Default::default() };
    world.call(Some(grant), ApiRequest::RemoveParticipant(remove)).unwrap();
    let text = "invalid authorization token: token has been revoked".to_owned();
    assert_eq!(world.validate("room", "alice", Options::default()), Some((401, text)));
}

fn preset() -> RoomRules {
    let preset = proto::RoomConfiguration {
        empty_timeout: 11,
        departure_timeout: 12,
        max_participants: 2,
        metadata: "from the preset".into(),
        ..Default::default()
    };
    RoomRules { presets: [("small".to_owned(), preset)].into(), ..Default::default() }
}

#[test]
fn presets_fill_in_what_was_not_chosen() {
    let mut world = World::with(|config| config.room_rules = preset());
    let request = proto::CreateRoomRequest {
        room_preset: "small".into(),
        departure_timeout: 90,
        ..named("room")
    };
    let room = create(&mut world, request);
    assert_eq!((room.empty_timeout, room.departure_timeout), (11, 90));
    assert_eq!((room.max_participants, room.metadata.as_str()), (2, "from the preset"));

    let unknown = proto::CreateRoomRequest { room_preset: "huge".into(), ..named("other") };
    let error = world.call(creator(), ApiRequest::CreateRoom(unknown)).unwrap_err();
    assert!(error.message.contains("unknown room configuration"), "{}", error.message);
}

#[test]
fn a_token_brings_settings_for_the_room_that_its_join_creates() {
    let mut world = World::with(|config| config.room_rules = preset());
    let room_config = json!({ "metadata": "from the token", "emptyTimeout": 33 });
    let options = || Options {
        room_preset: "small".into(),
        room_config: room_config.clone(),
        ..Default::default()
    };
    let session = world.join("room", "alice", options());
    let Message::Join(join) = &world.said(session)[0] else { panic!() };
    let room = join.room.as_ref().unwrap();
    assert_eq!((room.empty_timeout, room.departure_timeout), (33, 12));
    assert_eq!((room.max_participants, room.metadata.as_str()), (2, "from the token"));

    // It is there now: other settings change nothing.
    let room_config = json!({ "metadata": "too late" });
    world.join("room", "bob", Options { room_config, ..Default::default() });
    assert_eq!(rooms(&mut world)[0].metadata, "from the token");

    let bad = Options { room_preset: "huge".into(), ..Default::default() };
    let session = world.join("elsewhere", "eve", bad);
    assert_eq!(world.refused(session), Some((500, "connection closed by media")));
    assert_eq!(rooms(&mut world).len(), 1);
}

fn publish(world: &mut World, session: SessionId, stream: &str) -> String {
    world.request(
        session,
        Request::AddTrack(proto::AddTrackRequest {
            cid: "mic".into(),
            r#type: proto::TrackType::Audio.into(),
            source: proto::TrackSource::Microphone.into(),
            stream: stream.into(),
            ..Default::default()
        }),
    );
    world.request(session, Request::Offer(offer_with(2, &["mic"])));
    let mut said = world.said(session).iter().rev();
    said.find_map(|message| match message {
        Message::TrackPublished(published) => published.track.clone(),
        _ => None,
    })
    .unwrap()
    .sid
}

fn answered(world: &World, session: SessionId) -> String {
    let mut said = world.said(session).iter().rev();
    said.find_map(|message| match message {
        Message::Answer(answer) => Some(answer.sdp.clone()),
        _ => None,
    })
    .unwrap()
}

#[test]
fn tracks_of_one_source_share_a_stream_where_streams_are_synced() {
    let firefox =
        || proto::ClientInfo { protocol: 17, browser: "Firefox".into(), ..Default::default() };
    for synced in [false, true] {
        let mut world = World::new();
        create(&mut world, proto::CreateRoomRequest { sync_streams: synced, ..named("room") });
        let alice = world.join_active("room", "alice");
        let track = publish(&mut world, alice, "desk");
        let bob = world.join("room", "bob", Options::default());
        let eve = Options { client_info: firefox(), ..Default::default() };
        let eve = world.join("room", "eve", eve);
        let sid = world.sid_of(alice);
        let name = if synced { "desk" } else { track.as_str() };
        let wanted = format!("a=msid:{sid}|{name} {track}");
        assert!(answered(&world, bob).contains(&wanted), "{wanted}");
        assert!(answered(&world, eve).contains(&format!("a=msid:{sid}|{track} {track}")));
    }
}

#[test]
fn receivers_are_told_the_rooms_playout_delay() {
    const URI: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
    let delays = |world: &World| -> Vec<Option<PlayoutDelay>> {
        let settings = world.commands.iter().filter_map(|command| match command {
            MediaCommand::SetSubscription { settings, .. } => Some(settings.playout_delay),
            _ => None,
        });
        settings.collect()
    };
    for (min, max, expected) in [
        (0, 0, None),
        (100, 2_000, Some(PlayoutDelay { min_ms: 100, max_ms: 2_000 })),
        (300, 200, Some(PlayoutDelay { min_ms: 300, max_ms: 300 })),
        (300, 0, Some(PlayoutDelay { min_ms: 300, max_ms: PlayoutDelay::LIMIT_MS })),
    ] {
        let mut world = World::new();
        let request = proto::CreateRoomRequest {
            min_playout_delay: min,
            max_playout_delay: max,
            ..named("room")
        };
        create(&mut world, request);
        let alice = world.join_active("room", "alice");
        publish(&mut world, alice, "");
        let pair = world.join("room", "bob", Options { pair: true, ..Default::default() });
        let offered = world.said(pair).iter().find_map(|message| match message {
            Message::Offer(offer) => Some(offer.sdp.clone()),
            _ => None,
        });
        // It carries sound only, and sound has no such extension.
        assert!(!offered.unwrap().contains(URI));
        assert_eq!(delays(&world).last(), Some(&expected));
    }
}

#[test]
fn rooms_close_for_their_reasons() {
    let mut world = World::new();
    let request = proto::CreateRoomRequest {
        empty_timeout: 60,
        departure_timeout: 5,
        tags: [("team".to_owned(), "blue".to_owned())].into(),
        ..named("room")
    };
    create(&mut world, request);
    assert_eq!(world.node.snapshot()[0].tags["team"], "blue");
    world.pass(Duration::from_secs(59));
    assert_eq!(rooms(&mut world).len(), 1);
    let alice = world.join_active("room", "alice");
    world.pass(Duration::from_secs(120));
    assert_eq!(rooms(&mut world).len(), 1);
    world.request(alice, Request::Leave(proto::LeaveRequest::default()));
    world.pass(Duration::from_secs(4));
    assert_eq!(rooms(&mut world).len(), 1);
    world.pass(Duration::from_secs(1));
    assert!(rooms(&mut world).is_empty());

    let bob = world.join_active("room", "bob");
    let delete = proto::DeleteRoomRequest { room: "room".into() };
    world.call(creator(), ApiRequest::DeleteRoom(delete)).unwrap();
    let leave = world.said(bob).iter().find_map(|message| match message {
        Message::Leave(leave) => Some(leave.reason()),
        _ => None,
    });
    assert_eq!(leave, Some(proto::DisconnectReason::RoomDeleted));
}

fn key(text: &str) -> Option<proto::DataBlobKey> {
    let key = proto::data_blob_key::Key::Generic(text.to_owned());
    Some(proto::DataBlobKey { key: Some(key) })
}

fn store(world: &mut World, session: SessionId, name: &str, bytes: usize) -> Message {
    let blob = proto::DataBlob { key: key(name), contents: vec![7; bytes] };
    let request = proto::StoreDataBlobRequest { request_id: 9, blob: Some(blob) };
    world.request(session, Request::StoreDataBlobRequest(request));
    world.said(session).last().unwrap().clone()
}

fn get(world: &mut World, session: SessionId, of: &str, name: &str) -> Message {
    let participant_identity = of.to_owned();
    let request = proto::GetDataBlobRequest { request_id: 8, participant_identity, key: key(name) };
    world.request(session, Request::GetDataBlobRequest(request));
    world.said(session).last().unwrap().clone()
}

fn reason(message: &Message) -> Option<(u32, Reason)> {
    match message {
        Message::RequestResponse(response) => Some((response.request_id, response.reason())),
        _ => None,
    }
}

#[test]
fn data_blobs_are_off_unless_configured() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    assert_eq!(reason(&store(&mut world, alice, "k", 1)), Some((9, Reason::NotAllowed)));
    assert_eq!(reason(&get(&mut world, alice, "alice", "")), Some((8, Reason::InvalidRequest)));
    assert_eq!(reason(&get(&mut world, alice, "alice", "k")), Some((8, Reason::NotFound)));
}

#[test]
fn data_blobs_are_stored_got_and_bounded() {
    let mut world = World::with(|config| {
        config.limits.data_blobs_bytes = 1_000;
        config.limits.data_blob_key_bytes = 10;
    });
    let alice = world.join_active("room", "alice");
    let bob = world.join_active("room", "bob");
    assert!(matches!(store(&mut world, alice, "k", 999), Message::StoreDataBlobResponse(r)
        if r.request_id == 9 && r.key == key("k")));
    let Message::GetDataBlobResponse(got) = get(&mut world, bob, "alice", "k") else { panic!() };
    assert_eq!(got.blob.unwrap().contents.len(), 999);

    // The limit is of all blobs of a participant; one that is stored again makes room.
    assert_eq!(reason(&store(&mut world, alice, "l", 0)), Some((9, Reason::LimitExceeded)));
    assert_eq!(reason(&store(&mut world, alice, "k", 1_000)), Some((9, Reason::LimitExceeded)));
    assert_eq!(reason(&store(&mut world, alice, "k", 1)), None);
    assert_eq!(reason(&store(&mut world, alice, "0123456789", 5)), None);
    let long = store(&mut world, alice, "0123456789a", 5);
    assert_eq!(reason(&long), Some((9, Reason::LimitExceeded)));
    assert_eq!(reason(&store(&mut world, alice, "", 5)), Some((9, Reason::InvalidRequest)));

    assert_eq!(reason(&get(&mut world, bob, "bob", "k")), Some((8, Reason::NotFound)));
    assert_eq!(reason(&get(&mut world, bob, "nobody", "k")), Some((8, Reason::NotFound)));
    world.request(alice, Request::Leave(proto::LeaveRequest::default()));
    assert_eq!(reason(&get(&mut world, bob, "alice", "k")), Some((8, Reason::NotFound)));

    let grant = VideoGrant { room_join: true, hidden: true, ..Default::default() };
    let ghost = world.join("room", "ghost", Options { grant, ..Default::default() });
    assert_eq!(reason(&store(&mut world, ghost, "k", 1)), None);
    assert_eq!(reason(&get(&mut world, ghost, "ghost", "k")), None);
    assert_eq!(reason(&get(&mut world, bob, "ghost", "k")), Some((8, Reason::NotFound)));

    let grant = VideoGrant { room_join: true, can_publish_data: Some(false), ..Default::default() };
    let eve = world.join("room", "eve", Options { grant, ..Default::default() });
    assert_eq!(reason(&store(&mut world, eve, "k", 1)), Some((9, Reason::NotAllowed)));
}

#[test]
fn data_tracks_can_be_switched_off() {
    let mut world = World::with(|config| config.room_rules.data_tracks = false);
    let alice = world.join_active("room", "alice");
    let request =
        proto::PublishDataTrackRequest { pub_handle: 1, name: "d".into(), ..Default::default() };
    world.request(alice, Request::PublishDataTrackRequest(request));
    assert_eq!(reason(world.said(alice).last().unwrap()), Some((0, Reason::NotAllowed)));
}

#[test]
fn a_track_that_is_not_there_is_waited_for_and_then_told_of() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let subscribe = |world: &mut World, track: &str, subscribe| {
        let track_sids = vec![track.to_owned()];
        let update = proto::UpdateSubscription { track_sids, subscribe, ..Default::default() };
        world.request(alice, Request::Subscription(update));
    };
    let told = |world: &World| -> Vec<String> {
        let said = world.said(alice).iter().filter_map(|message| match message {
            Message::SubscriptionResponse(response) => {
                assert_eq!(response.err(), proto::SubscriptionError::SeTrackNotfound);
                Some(response.track_sid.clone())
            }
            _ => None,
        });
        said.collect()
    };
    subscribe(&mut world, "TR_nowhere", true);
    subscribe(&mut world, "TR_changed_its_mind", true);
    subscribe(&mut world, "TR_changed_its_mind", false);
    for index in 0..100 {
        subscribe(&mut world, &format!("TR_{index}"), true);
    }
    world.pass(TRACK_NOT_FOUND_TIMEOUT - Duration::from_secs(1));
    assert!(told(&world).is_empty());
    world.pass(Duration::from_secs(1));
    assert_eq!(told(&world).len(), MISSING_TRACKS_MAX);
    assert!(told(&world).contains(&"TR_nowhere".to_owned()));
}

#[test]
fn devices_are_spared_the_codecs_that_they_handle_badly() {
    let mut world = World::new();
    let client_info = proto::ClientInfo {
        protocol: 17,
        browser: "firefox".into(),
        os: "linux".into(),
        ..Default::default()
    };
    let session = world.join("room", "alice", Options { client_info, ..Default::default() });
    let Message::Join(join) = &world.said(session)[0] else { panic!() };
    let publishable: Vec<_> = join.enabled_publish_codecs.iter().map(|c| &*c.mime).collect();
    assert_eq!(publishable, ["video/VP8", "audio/opus", "audio/red"]);
    let disabled = join.client_configuration.clone().unwrap().disabled_codecs.unwrap();
    assert_eq!(disabled.publish[0].mime, "video/H264");

    let codec = |name: &str| proto::SimulcastCodec { codec: name.into(), ..Default::default() };
    let add = proto::AddTrackRequest {
        cid: "camera".into(),
        r#type: proto::TrackType::Video.into(),
        source: proto::TrackSource::Camera.into(),
        simulcast_codecs: vec![codec("h264")],
        ..Default::default()
    };
    world.request(session, Request::AddTrack(add));
    let Some(Message::TrackPublished(published)) = world.said(session).last() else { panic!() };
    assert_eq!(published.track.as_ref().unwrap().codecs[0].mime_type, "video/vp8");
}

#[test]
fn a_server_that_carries_as_much_as_it_may_lets_nobody_in() {
    const OVER: Option<(u16, &str)> = Some((503, "node has exceeded its configured limit"));
    let mut world = World::with(|config| config.limits.tracks = 1);
    let alice = world.join_active("room", "alice");
    let add = proto::AddTrackRequest { cid: "mic".into(), ..Default::default() };
    world.request(alice, Request::AddTrack(add));
    world.request(alice, Request::Offer(offer_with(2, &["mic"])));
    assert_eq!(world.node.counts().tracks, 1);
    let carol = world.join("room", "carol", Options::default());
    assert_eq!(world.refused(carol), OVER);
    let create = || {
        let name = "another".into();
        ApiRequest::CreateRoom(proto::CreateRoomRequest { name, ..Default::default() })
    };
    let refused = world.call(creator(), create()).unwrap_err();
    assert_eq!(refused.message, "reached configured limit for node");
    // Who is in may come back, and go.
    world.request(alice, Request::Leave(proto::LeaveRequest::default()));
    assert!(world.call(creator(), create()).is_ok());

    let mut world = World::with(|config| config.limits.bytes_per_second = 1_000);
    world.node.set_traffic(999);
    let alice = world.join_active("room", "alice");
    assert_eq!(world.refused(alice), None);
    world.node.set_traffic(1_000);
    let bob = world.join("room", "bob", Options::default());
    assert_eq!(world.refused(bob), OVER);
}

#[test]
fn what_happens_in_rooms_is_counted() {
    let mut world = World::with(|config| config.room.max_participants = 2);
    let alice = world.join_active("room", "alice");
    world.pass(Duration::from_secs(3));
    let add = proto::AddTrackRequest { cid: "mic".into(), ..Default::default() };
    world.request(alice, Request::AddTrack(add));
    world.request(alice, Request::Offer(offer_with(2, &["mic"])));
    let track = world.commands.iter().rev().find_map(|command| match command {
        MediaCommand::SetMedia { media, .. } => media.receive.first().map(|section| section.track),
        _ => None,
    });
    world.media(MediaEvent::StreamStarted {
        track: track.unwrap(),
        rid: None,
        ssrc: Ssrc(40),
        layer: 0,
    });
    world.join_active("room", "bob");
    assert_eq!((world.node.counts().published, world.node.counts().subscribed), ([1, 0], [1, 0]));
    world.join("room", "carol", Options::default());
    let of = world.node.statistics();
    assert_eq!((of.signal_connected, of.signal_failed, of.rtc_init, of.rtc_active), (2, 1, 2, 2));
    let done = Attempts { attempts: 1, successes: 1 };
    assert_eq!((of.publish, of.subscribe), ([done, Attempts::default()], done));
    assert_eq!(of.session_start_time_ms.counts.iter().sum::<u64>(), 2);
    let delete = proto::DeleteRoomRequest { room: "room".into() };
    world.call(creator(), ApiRequest::DeleteRoom(delete)).unwrap();
    let of = world.node.statistics();
    assert_eq!(of.room_duration_seconds.counts[0], 1, "3 s");
    assert_eq!(of.session_duration_ms.counts.iter().sum::<u64>(), 2);
    assert!(of.session_duration_ms.sum >= 3000.0);
}

#[test]
fn attributes_of_a_join_are_laid_over_those_of_its_token() {
    let map = |pairs: &[(&str, &str)]| {
        pairs.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
    };
    let mut world = World::new();
    let token = map(&[("role", "guest"), ("seat", "7")]);
    let attributes = [token, map(&[("role", "host"), ("mood", "good")])];
    let alice = world.join("room", "alice", Options { attributes, ..Options::default() });
    let Message::Join(join) = &world.said(alice)[0] else { panic!() };
    let told = join.participant.clone().unwrap().attributes;
    let told: std::collections::BTreeMap<_, _> = told.into_iter().collect();
    assert_eq!(told, map(&[("role", "host"), ("seat", "7"), ("mood", "good")]));
}
