//! What a [`Node`] does with clients that come, behave well or badly, and go.
#![allow(clippy::unwrap_used)]

mod world;

use bytes::Bytes;
use livekit_protocol as proto;
use parlor_model::{DataChannel, TrackId};
use parlor_node::{
    ANSWER_TIMEOUT, HELD_DATA_BYTES_MAX, JOIN_TIMEOUT, SIGNAL_TIMEOUT, TOKEN_REFRESH_INTERVAL,
    io::{Frame, Input, SessionId},
};
use parlor_sfu::command::{MediaCommand, MediaEvent};
use prost::Message as _;
use proto::{
    DisconnectReason as Reason, leave_request::Action, participant_info::State,
    request_response::Reason as Refusal, signal_request::Message as Request,
    signal_response::Message,
};
use std::time::Duration;
use world::{Options, World, offer, offer_with};

fn leave(world: &World, session: SessionId) -> Option<(Reason, Action)> {
    world.said(session).iter().find_map(|message| match message {
        Message::Leave(leave) => Some((leave.reason(), leave.action())),
        _ => None,
    })
}

fn refusal(world: &World, session: SessionId) -> Option<Refusal> {
    world.said(session).iter().rev().find_map(|message| match message {
        Message::RequestResponse(response) => Some(response.reason()),
        _ => None,
    })
}

/// The latest that a client was told of somebody.
fn seen(world: &World, session: SessionId, identity: &str) -> Option<proto::ParticipantInfo> {
    let said = world.said(session).iter().rev();
    let updates = said.filter_map(|message| match message {
        Message::Update(update) => Some(update),
        _ => None,
    });
    updates.flat_map(|update| &update.participants).find(|p| p.identity == identity).cloned()
}

#[test]
fn clients_that_never_negotiate_are_cut_in_time_and_leave_nothing() {
    let mut world = World::new();
    let sessions: Vec<_> = (0..200)
        .map(|n| {
            let options = Options { pair: n % 2 == 0, offer: None, ..Options::default() };
            world.join("room", &format!("p{n}"), options)
        })
        .collect();
    assert_eq!(world.node.counts().participants, 200);
    world.pass(JOIN_TIMEOUT - Duration::from_secs(16));
    assert_eq!(world.node.counts().participants, 100, "pairs owe an answer");
    world.pass(Duration::from_secs(17));
    let counts = world.node.counts();
    assert_eq!((counts.participants, counts.sessions, counts.peers), (0, 0, 0));
    assert_eq!(leave(&world, sessions[0]), Some((Reason::StateMismatch, Action::Reconnect)));
    assert_eq!(leave(&world, sessions[1]), Some((Reason::JoinFailure, Action::Disconnect)));
    assert!(sessions.iter().all(|session| world.is_closed(*session)));
    world.pass(Duration::from_secs(21));
    assert_eq!(world.node.counts(), Default::default());
}

#[test]
fn a_pair_has_to_answer_in_time() {
    let mut world = World::new();
    let alice = world.join("room", "alice", Options { pair: true, ..Options::default() });
    world.pass(ANSWER_TIMEOUT);
    assert_eq!(leave(&world, alice), Some((Reason::StateMismatch, Action::Reconnect)));
}

#[test]
fn a_socket_that_goes_before_media_takes_its_participant_along() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let bob = world.join("room", "bob", Options::default());
    world.handle(Input::Closed { session: bob });
    let bob = seen(&world, alice, "bob").unwrap();
    assert_eq!((bob.state(), bob.disconnect_reason()), (State::Disconnected, Reason::SignalClose));
}

#[test]
fn only_clients_that_ping_are_expected_to() {
    let mut world = World::new();
    let silent = world.join_active("room", "silent");
    let pinging = world.join_active("room", "pinging");
    world.request(pinging, Request::Ping(1));
    let pong = world.now.unix.as_millis() as i64;
    assert!(world.said(pinging).contains(&Message::Pong(pong)));
    world.pass(SIGNAL_TIMEOUT);
    assert!(world.is_closed(pinging));
    assert!(!world.is_closed(silent));
    assert_eq!(world.node.counts().participants, 2, "their media is up");
}

#[test]
fn pings_are_answered_with_the_servers_time() {
    let mut world = World::new();
    let alice = world.join("room", "alice", Options::default());
    world.request(alice, Request::PingReq(proto::Ping { timestamp: 7, rtt: 1 }));
    let timestamp = world.now.unix.as_millis() as i64;
    let pong = proto::Pong { last_ping_timestamp: 7, timestamp };
    assert!(world.said(alice).contains(&Message::PongResp(pong)));
}

#[test]
fn the_same_identity_takes_the_place_of_the_old_session() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let first = world.join_active("room", "bob");
    let second = world.join("room", "bob", Options::default());
    assert_eq!(leave(&world, first), Some((Reason::DuplicateIdentity, Action::Disconnect)));
    assert!(world.is_closed(first) && !world.is_closed(second));
    world.pass(Duration::from_millis(100));
    let bob = seen(&world, alice, "bob").unwrap();
    assert_eq!((bob.state(), bob.sid), (State::Joined, world.sid_of(second)));
}

#[test]
fn junk_ends_the_socket_without_a_word() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let said = world.said(alice).len();
    world.handle(Input::Frame { session: alice, frame: Frame::Binary(Bytes::new()) });
    assert!(!world.is_closed(alice));
    let frame = Frame::Binary(Bytes::from_static(&[0xff; 20]));
    world.handle(Input::Frame { session: alice, frame });
    assert!(world.is_closed(alice));
    assert_eq!(world.said(alice).len(), said);
    assert_eq!(world.node.counters().malformed_frames, 1);
    assert_eq!(world.node.counts().participants, 1, "the media is up");
}

#[test]
fn descriptions_that_are_garbage() {
    let mut world = World::new();
    let single = world.join_active("room", "single");
    let description = |kind: &str, id| proto::SessionDescription {
        r#type: kind.into(),
        sdp: "v=0\r\nnothing".into(),
        id,
        ..Default::default()
    };
    let said = world.said(single).len();
    world.request(single, Request::Offer(description("offer", 9)));
    world.request(single, Request::Offer(description("pranswer", 9)));
    world.request(single, Request::Answer(description("answer", 9)));
    assert_eq!(world.said(single).len(), said);
    assert_eq!(world.node.counters().refused_offers, 2);

    let pair = world.join("room", "pair", Options { pair: true, ..Options::default() });
    let id = world.offer_id(pair).unwrap();
    world.request(pair, Request::Answer(description("answer", id + 1)));
    assert_eq!(leave(&world, pair), None, "a stale answer is nothing");
    // Native clients leave the id out.
    world.request(pair, Request::Answer(description("answer", 0)));
    assert_eq!(leave(&world, pair), Some((Reason::StateMismatch, Action::Reconnect)));
    assert!(world.is_closed(pair));
}

#[test]
fn refusals() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let trickle = proto::TrickleRequest { candidate_init: "junk".into(), ..Default::default() };
    world.request(alice, Request::Trickle(trickle));
    assert_eq!(refusal(&world, alice), Some(Refusal::UnclassifiedError));
    let mute = proto::MuteTrackRequest { sid: "TR_none".into(), muted: true };
    world.request(alice, Request::Mute(mute));
    assert_eq!(refusal(&world, alice), Some(Refusal::NotFound));
    let data = proto::AddTrackRequest {
        cid: "c".into(),
        r#type: proto::TrackType::Data.into(),
        ..Default::default()
    };
    world.request(alice, Request::AddTrack(data));
    assert_eq!(refusal(&world, alice), Some(Refusal::UnsupportedType));
    let add = proto::AddTrackRequest { cid: "mic".into(), ..Default::default() };
    world.request(alice, Request::AddTrack(add.clone()));
    world.request(alice, Request::AddTrack(add.clone()));
    assert_eq!(refusal(&world, alice), Some(Refusal::Queued));

    let mut mute_one = Options::default();
    mute_one.grant.can_publish = Some(false);
    let bob = world.join("room", "bob", mute_one);
    world.request(bob, Request::AddTrack(add));
    assert_eq!(refusal(&world, bob), Some(Refusal::NotAllowed));
    let update = |name: &str| {
        Request::UpdateMetadata(proto::UpdateParticipantMetadata {
            name: name.into(),
            request_id: 5,
            ..Default::default()
        })
    };
    world.request(bob, update("Bob"));
    assert_eq!(refusal(&world, bob), Some(Refusal::NotAllowed));
    let mut free = Options::default();
    free.grant.can_update_own_metadata = Some(true);
    let carol = world.join("room", "carol", free);
    world.request(carol, update(&"x".repeat(257)));
    assert_eq!(refusal(&world, carol), Some(Refusal::LimitExceeded));
    world.request(carol, update("Carol"));
    let [.., Message::RefreshToken(token), Message::RequestResponse(response)] = world.said(carol)
    else {
        panic!("the token comes before the answer")
    };
    assert!(!token.is_empty());
    assert_eq!((response.reason(), response.request_id), (Refusal::Ok, 5));
    assert_eq!(seen(&world, carol, "carol").unwrap().name, "Carol");
}

#[test]
fn a_full_room_refuses_the_upgrade() {
    let mut world = World::new();
    let options = || Options { max_participants: 1, ..Options::default() };
    world.join("room", "alice", options());
    let bob = world.join("room", "bob", options());
    assert_eq!(world.refused(bob), Some((500, "connection closed by media")));
    assert_eq!(world.node.counts().participants, 1);
}

#[test]
fn a_client_that_speaks_text_is_answered_in_text() {
    let mut world = World::new();
    let alice = world.join("room", "alice", Options::default());
    let frame = Frame::Text(r#"{"ping":"3"}"#.into());
    world.handle(Input::Frame { session: alice, frame });
    let pong = format!(r#"{{"pong":"{}"}}"#, world.now.unix.as_millis());
    assert_eq!(world.texts, [pong]);
}

#[test]
fn the_end_of_the_server_is_told_to_everybody() {
    let mut world = World::new();
    let sessions = [world.join_active("a", "alice"), world.join("b", "bob", Options::default())];
    world.handle(Input::Shutdown);
    for session in sessions {
        assert_eq!(leave(&world, session), Some((Reason::ServerShutdown, Action::Disconnect)));
        assert!(world.is_closed(session));
    }
    assert_eq!(world.node.counts(), Default::default());
    let late = world.join("a", "late", Options::default());
    assert!(world.refused(late).is_some());
}

#[test]
fn tokens_are_refreshed() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let tokens = |world: &World| {
        world.said(alice).iter().filter(|m| matches!(m, Message::RefreshToken(_))).count()
    };
    assert_eq!(tokens(&world), 1);
    world.pass(TOKEN_REFRESH_INTERVAL);
    assert_eq!(tokens(&world), 2);
    world.pass(TOKEN_REFRESH_INTERVAL);
    assert_eq!(tokens(&world), 3);
}

/// The track that a client publishes with the next offer.
fn publish(world: &mut World, session: SessionId, cid: &str) -> String {
    let add = proto::AddTrackRequest { cid: cid.into(), ..Default::default() };
    world.request(session, Request::AddTrack(add));
    world.request(session, Request::Offer(offer_with(2, &[cid])));
    let found = world.said(session).iter().rev().find_map(|message| match message {
        Message::TrackPublished(published) => published.track.clone(),
        _ => None,
    });
    found.unwrap().sid
}

fn received_tracks(world: &World) -> Vec<TrackId> {
    let media = world.commands.iter().rev().find_map(|command| match command {
        MediaCommand::SetMedia { media, .. } => Some(media),
        _ => None,
    });
    media.unwrap().receive.iter().map(|section| section.track).collect()
}

#[test]
fn a_track_that_is_offered_before_it_is_announced() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    world.request(alice, Request::Offer(offer_with(2, &["mic"])));
    assert!(seen(&world, alice, "alice").is_none_or(|alice| alice.tracks.is_empty()));
    let add = proto::AddTrackRequest { cid: "mic".into(), ..Default::default() };
    world.request(alice, Request::AddTrack(add));
    assert_eq!(received_tracks(&world).len(), 1);
    assert_eq!(seen(&world, alice, "alice").unwrap().tracks.len(), 1);
}

#[test]
fn mute_subscribe_unsubscribe_and_unpublish() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let bob = world.join_active("room", "bob");
    let track = publish(&mut world, alice, "mic");
    let asked = |world: &World| {
        world.said(bob).iter().filter(|m| matches!(m, Message::MediaSectionsRequirement(_))).count()
    };
    assert_eq!(asked(&world), 1);
    world.request(bob, Request::Offer(offer(2)));
    let last_answer = world.said(bob).iter().rev().find_map(|message| match message {
        Message::Answer(answer) => Some(answer.clone()),
        _ => None,
    });
    assert_eq!(last_answer.unwrap().mid_to_track_id["0"], track);
    let subscribed = Message::TrackSubscribed(proto::TrackSubscribed { track_sid: track.clone() });
    assert_eq!(world.said(alice).iter().filter(|m| **m == subscribed).count(), 1);

    let mute = proto::MuteTrackRequest { sid: track.clone(), muted: true };
    world.request(alice, Request::Mute(mute));
    assert!(seen(&world, bob, "alice").unwrap().tracks[0].muted);
    let muted =
        |command: &MediaCommand| matches!(command, MediaCommand::SetTrackMuted { muted: true, .. });
    assert!(world.commands.iter().any(muted));

    let update = |subscribe| {
        let track_sids = vec![track.clone()];
        Request::Subscription(proto::UpdateSubscription {
            track_sids,
            subscribe,
            ..Default::default()
        })
    };
    world.commands.clear();
    world.request(bob, update(false));
    let stopped = |command: &MediaCommand| matches!(command, MediaCommand::StopSubscription { .. });
    assert!(world.commands.iter().any(stopped));
    assert_eq!(world.node.counts().subscriptions, 0);
    assert_eq!(asked(&world), 2);
    world.request(bob, Request::Offer(offer(3)));
    world.request(bob, update(true));
    assert_eq!(world.node.counts().subscriptions, 1);
    let permitted = |m: &&Message| matches!(m, Message::SubscriptionPermissionUpdate(_));
    assert_eq!(world.said(bob).iter().filter(permitted).count(), 2, "told again");
    world.request(bob, Request::Offer(offer(4)));
    assert_eq!(world.said(alice).iter().filter(|m| **m == subscribed).count(), 1, "told once");

    let settings = proto::UpdateTrackSettings {
        track_sids: vec![track.clone()],
        disabled: true,
        ..Default::default()
    };
    world.commands.clear();
    let wanted = proto::UpdateTrackSettings { disabled: false, ..settings.clone() };
    world.request(bob, Request::TrackSetting(settings));
    let disabled = |command: &MediaCommand| matches!(command, MediaCommand::SetSubscription { settings, .. } if !settings.enabled);
    assert!(world.commands.iter().any(disabled));

    // Theirs begins with 1, the highest; what a screen has is never exceeded.
    for (priority, ours) in [(1, 254), (200, 55), (0, 1)] {
        world.commands.clear();
        let settings = proto::UpdateTrackSettings { priority, ..wanted.clone() };
        world.request(bob, Request::TrackSetting(settings));
        let told = world.commands.iter().find_map(|command| match command {
            MediaCommand::SetSubscription { settings, .. } => Some(settings.priority),
            _ => None,
        });
        assert_eq!(told, Some(ours), "{priority}");
    }

    world.request(alice, Request::Offer(offer_with(5, &[])));
    assert!(seen(&world, bob, "alice").unwrap().tracks.is_empty());
    let counts = world.node.counts();
    assert_eq!((counts.tracks, counts.subscriptions), (0, 0));
}

#[test]
fn a_publisher_may_forbid_its_tracks() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let bob = world.join_active("room", "bob");
    let track = publish(&mut world, alice, "mic");
    world.commands.clear();
    let nobody = proto::SubscriptionPermission::default();
    world.request(alice, Request::SubscriptionPermission(nobody));
    let stopped = |command: &MediaCommand| matches!(command, MediaCommand::StopSubscription { .. });
    assert!(world.commands.iter().any(stopped));
    let told = world.said(bob).iter().rev().find_map(|message| match message {
        Message::SubscriptionPermissionUpdate(update) => Some(update.clone()),
        _ => None,
    });
    let told = told.unwrap();
    assert_eq!((told.track_sid, told.allowed), (track, false));
}

fn chat(text: &str, sequence: u32) -> Bytes {
    let message = proto::ChatMessage { message: text.into(), ..Default::default() };
    let value = Some(proto::data_packet::Value::ChatMessage(message));
    proto::DataPacket { value, sequence, ..Default::default() }.encode_to_vec().into()
}

fn sent(world: &World) -> Vec<(u32, usize)> {
    let sent = world.commands.iter().filter_map(|command| match command {
        MediaCommand::SendData { data, peers, .. } => {
            let packet = proto::DataPacket::decode(data.clone()).unwrap();
            Some((packet.sequence, peers.len()))
        }
        _ => None,
    });
    sent.collect()
}

#[test]
fn data_waits_for_channels_and_comes_once() {
    let mut world = World::new();
    world.join_active("room", "alice");
    world.join("room", "bob", Options::default());
    world.join("room", "carol", Options::default());
    let (alice, bob, carol) =
        (world.peer_of("alice"), world.peer_of("bob"), world.peer_of("carol"));
    let channel = DataChannel::Reliable;
    let open = |peer| MediaEvent::ChannelOpen { peer, channel };
    world.media(open(alice));
    world.media(open(bob));
    world.commands.clear();
    let say = |world: &mut World, sequence| {
        let data = chat("x", sequence);
        world.media(MediaEvent::Data { peer: alice, channel, data });
    };
    say(&mut world, 1);
    say(&mut world, 2);
    say(&mut world, 2);
    say(&mut world, 1);
    assert_eq!(sent(&world), [(1, 1), (2, 1)]);
    assert_eq!(world.node.counters().repeated_packets, 2);
    world.commands.clear();
    world.media(open(carol));
    assert_eq!(sent(&world), [(1, 1), (2, 1)], "what was held, in order");

    let junk = Bytes::from_static(&[0xff; 9]);
    world.media(MediaEvent::Data { peer: alice, channel, data: junk });
    assert_eq!(world.node.counters().malformed_packets, 1);
}

#[test]
fn data_that_is_held_is_bounded() {
    let mut world = World::new();
    world.join_active("room", "alice");
    world.join("room", "bob", Options::default());
    let alice = world.peer_of("alice");
    let text = "x".repeat(10_000);
    for sequence in 1..=20 {
        let channel = DataChannel::Reliable;
        let data = chat(&text, sequence);
        world.media(MediaEvent::Data { peer: alice, channel, data });
    }
    let fit = HELD_DATA_BYTES_MAX / 10_000 - 1;
    assert_eq!(world.node.counters().lost_packets, 20 - fit as u64);
    world.commands.clear();
    let peer = world.peer_of("bob");
    world.media(MediaEvent::ChannelOpen { peer, channel: DataChannel::Reliable });
    assert_eq!(sent(&world).len(), fit);
}

#[test]
fn data_needs_the_permission() {
    let mut world = World::new();
    let mut options = Options::default();
    options.grant.can_publish_data = Some(false);
    world.join("room", "alice", options);
    world.join_active("room", "bob");
    let (alice, bob) = (world.peer_of("alice"), world.peer_of("bob"));
    for channel in [DataChannel::Reliable, DataChannel::Lossy] {
        world.media(MediaEvent::ChannelOpen { peer: bob, channel });
        world.media(MediaEvent::Data { peer: alice, channel, data: chat("x", 1) });
    }
    assert_eq!(sent(&world), []);
    assert_eq!(world.node.counters().forbidden_packets, 2);
}

#[test]
fn hidden_participants_are_nowhere_to_be_seen() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let mut options = Options::default();
    options.grant.hidden = true;
    world.join("room", "ghost", options);
    let bob = world.join("room", "bob", Options::default());
    world.pass(Duration::from_secs(1));
    assert!(seen(&world, alice, "ghost").is_none());
    let Message::Join(join) = &world.said(bob)[0] else { panic!() };
    assert!(join.other_participants.iter().all(|other| other.identity != "ghost"));
}

#[test]
fn the_same_seed_says_the_same() {
    let play = || {
        let mut world = World::new();
        let alice = world.join_active("room", "alice");
        world.join("room", "bob", Options { pair: true, ..Options::default() });
        publish(&mut world, alice, "mic");
        world.pass(Duration::from_secs(70));
        world.log
    };
    assert_eq!(play(), play());
}

#[test]
fn bytes_on_a_channel_of_another_name_reach_everybody_as_user_packets() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    world.join_active("room", "bob");
    let (from, to) = (world.peer_of("alice"), world.peer_of("bob"));
    let channel = parlor_model::DataChannel::Reliable;
    world.media(MediaEvent::ChannelOpen { peer: to, channel });
    world.commands.clear();
    world.media(MediaEvent::UnlabelledData { peer: from, data: Bytes::from_static(b"raw") });
    let [MediaCommand::SendData { channel: on, data, peers, .. }] = &world.commands[..] else {
        panic!("{:?}", world.commands)
    };
    assert_eq!((*on, &peers[..]), (channel, &[to][..]));
    let packet = proto::DataPacket::decode(data.clone()).unwrap();
    let Some(proto::data_packet::Value::User(user)) = packet.value else { panic!() };
    assert_eq!(
        (user.payload.as_slice(), packet.participant_identity.as_str()),
        (&b"raw"[..], "alice")
    );
    assert_eq!(packet.participant_sid, world.sid_of(alice));
}

#[test]
fn a_simulated_bandwidth_limits_what_the_client_is_sent() {
    use proto::simulate_scenario::Scenario;
    for pair in [false, true] {
        let mut world = World::new();
        let alice = world.join("room", "alice", Options { pair, ..Options::default() });
        for (asked, limit) in [(50_000, Some(50_000)), (0, None), (-1, None)] {
            let scenario = Some(Scenario::SubscriberBandwidth(asked));
            world.request(alice, Request::Simulate(proto::SimulateScenario { scenario }));
            let last = world.commands.last();
            let Some(MediaCommand::LimitPeer { peer, bps }) = last else { panic!("{last:?}") };
            assert_eq!((*peer, *bps), (world.peer_of("alice"), limit));
        }
    }
}

#[test]
fn only_agents_transcribe_and_nobody_relays_metrics() {
    use proto::data_packet::Value;
    for agent in [false, true] {
        let mut world = World::new();
        let mut options = Options::default();
        options.grant.agent = agent;
        world.join("room", "alice", options);
        world.join_active("room", "bob");
        let (alice, bob) = (world.peer_of("alice"), world.peer_of("bob"));
        let channel = DataChannel::Reliable;
        world.media(MediaEvent::ChannelOpen { peer: bob, channel });
        world.commands.clear();
        for value in [
            Value::Transcription(proto::Transcription::default()),
            Value::Metrics(proto::MetricsBatch::default()),
        ] {
            let packet = proto::DataPacket { value: Some(value), ..Default::default() };
            let data = packet.encode_to_vec().into();
            world.media(MediaEvent::Data { peer: alice, channel, data });
        }
        assert_eq!(sent(&world).len(), usize::from(agent));
        assert_eq!(world.node.counters().forbidden_packets, 2 - u64::from(agent));
    }
}
