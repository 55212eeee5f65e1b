//! Sessions that outlive their socket or their path, and those that do not.
#![allow(clippy::unwrap_used)]

mod world;

use livekit_protocol as proto;
use parlor_model::DataChannel;
use parlor_node::{CLOSED_TIMEOUT, RESUME_TIMEOUT, SIMULATED_DROP_TTL, io::Input, io::SessionId};
use parlor_sfu::command::{MediaCommand, MediaEvent, PeerFailure};
use parlor_signal::token::VideoGrant;
use prost::Message as _;
use proto::{
    DisconnectReason as Reason, leave_request::Action, participant_info::State,
    signal_request::Message as Request, signal_response::Message, simulate_scenario::Scenario,
};
use std::time::Duration;
use world::{Options, World, offer, offer_with};

fn leave(world: &World, session: SessionId) -> Option<(Reason, Action)> {
    world.said(session).iter().find_map(|message| match message {
        Message::Leave(leave) => Some((leave.reason(), leave.action())),
        _ => None,
    })
}

fn seen(world: &World, session: SessionId, identity: &str) -> Option<proto::ParticipantInfo> {
    let said = world.said(session).iter().rev();
    let updates = said.filter_map(|message| match message {
        Message::Update(update) => Some(update),
        _ => None,
    });
    updates.flat_map(|update| &update.participants).find(|p| p.identity == identity).cloned()
}

fn sid(sid: String) -> Options {
    Options { sid, ..Options::default() }
}

/// What a session that goes on begins with.
fn assert_resumed(world: &World, session: SessionId) {
    let said = world.said(session);
    let [Message::Reconnect(_), Message::Update(_), Message::RoomUpdate(_), rest @ ..] = said
    else {
        panic!("{said:#?}")
    };
    assert!(matches!(rest[0], Message::RefreshToken(_)), "{rest:#?}");
}

const BEGIN_ANEW: (Reason, Action) = (Reason::StateMismatch, Action::Reconnect);

#[test]
fn a_session_goes_on_with_a_new_socket() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let bob = world.join_active("room", "bob");
    world.pass(Duration::from_secs(1));
    let bobs_sid = world.sid_of(bob);
    let heard = world.said(alice).len();
    let again = world.resume("room", "bob", sid(bobs_sid.clone()));
    assert!(world.is_closed(bob), "two sockets are one too many");
    assert_eq!(leave(&world, bob), None);
    assert_resumed(&world, again);
    assert_eq!(seen(&world, again, "bob").unwrap().state(), State::Active);
    assert_eq!(seen(&world, again, "alice").unwrap().state(), State::Active);
    world.handle(Input::Closed { session: bob });
    assert!(!world.is_closed(again));
    assert_eq!(world.said(alice).len(), heard, "the others see nothing");

    world.request(again, Request::Offer(offer(2)));
    assert!(matches!(world.said(again)[4], Message::Answer(_)));
    // A client may leave its sid out.
    world.handle(Input::Closed { session: again });
    let third = world.resume("room", "bob", sid(String::new()));
    assert_resumed(&world, third);
}

#[test]
fn what_cannot_be_resumed_begins_anew() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let alices = world.sid_of(alice);
    let other_sid = world.resume("room", "alice", sid("PA_other".into()));
    let nobody = world.resume("room", "bob", sid(alices.clone()));
    let nowhere = world.resume("elsewhere", "alice", sid(alices.clone()));
    let pair = Options { pair: true, ..sid(alices) };
    let other_model = world.resume("room", "alice", pair);
    for session in [other_sid, nobody, nowhere, other_model] {
        assert_eq!(world.said(session).len(), 1);
        assert_eq!(leave(&world, session), Some(BEGIN_ANEW));
        assert!(world.is_closed(session));
    }
    assert!(!world.is_closed(alice));
    assert_eq!((world.node.counts().rooms, world.node.counts().participants), (1, 1));
}

#[test]
fn who_went_meanwhile_is_told_of() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let bob = world.join_active("room", "bob");
    let carol = world.join_active("room", "carol");
    let alices = world.sid_of(alice);
    world.handle(Input::Closed { session: alice });
    for session in [bob, carol] {
        let reason = Reason::ClientInitiated.into();
        let leave = proto::LeaveRequest { reason, ..Default::default() };
        world.request(session, Request::Leave(leave));
    }
    let carol = world.join_active("room", "carol");
    let again = world.resume("room", "alice", sid(alices));
    assert_eq!(seen(&world, again, "bob").unwrap().state(), State::Disconnected);
    let back = seen(&world, again, "carol").unwrap();
    assert_eq!((back.state(), back.sid), (State::Active, world.sid_of(carol)));
}

#[test]
fn a_pair_restarts_ice_at_once() {
    let mut world = World::new();
    let alice = world.join("room", "alice", Options { pair: true, ..Options::default() });
    let peer = world.peer_of("alice");
    world.media(MediaEvent::PeerConnected { peer });
    let first = world.offer_id(alice).unwrap();
    world.commands.clear();
    let options = Options { pair: true, ..sid(world.sid_of(alice)) };
    let again = world.resume("room", "alice", options);
    assert_resumed(&world, again);
    assert_eq!(world.offer_id(again), Some(first + 1));
    assert!(matches!(world.said(again).last(), Some(Message::Trickle(trickle)) if trickle.r#final));
    let restarted = |command: &MediaCommand| matches!(command, MediaCommand::RestartIce { peer: p, .. } if *p == peer);
    assert!(world.commands.iter().any(restarted));
}

#[test]
fn a_lost_path_asks_for_a_resume_and_ends_without_one() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let bob = world.join_active("room", "bob");
    let peer = world.peer_of("bob");
    let failed = MediaEvent::PeerFailed { peer, reason: PeerFailure::ConnectionTimeout };
    world.media(failed.clone());
    assert_eq!(leave(&world, bob), Some((Reason::ConnectionTimeout, Action::Resume)));
    assert!(world.is_closed(bob));
    world.pass(RESUME_TIMEOUT - Duration::from_millis(1));
    let again = world.resume("room", "bob", sid(world.sid_of(bob)));
    assert_resumed(&world, again);
    world.media(MediaEvent::PeerConnected { peer });
    world.pass(RESUME_TIMEOUT);
    assert_eq!(world.node.counts().participants, 2);

    world.media(failed);
    world.pass(RESUME_TIMEOUT);
    let bob = seen(&world, alice, "bob").unwrap();
    assert_eq!(
        (bob.state(), bob.disconnect_reason()),
        (State::Disconnected, Reason::ConnectionTimeout)
    );
    let closed = |command: &MediaCommand| matches!(command, MediaCommand::ClosePeer { peer: p } if *p == peer);
    assert!(world.commands.iter().any(closed));
}

#[test]
fn a_participant_outlives_its_socket_until_its_connection_fails() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let bob = world.join_active("room", "bob");
    let peer = world.peer_of("bob");
    world.handle(Input::Closed { session: bob });
    world.pass(Duration::from_secs(120));
    assert_eq!(world.node.counts().participants, 2);
    world.media(MediaEvent::PeerFailed { peer, reason: PeerFailure::ConnectionTimeout });
    world.pass(RESUME_TIMEOUT);
    assert_eq!(seen(&world, alice, "bob").unwrap().disconnect_reason(), Reason::ConnectionTimeout);
}

#[test]
fn a_client_that_closes_its_connection_may_still_say_goodbye() {
    for reason in [PeerFailure::DtlsClosed, PeerFailure::SctpClosed] {
        let mut world = World::new();
        let alice = world.join_active("room", "alice");
        let bob = world.join_active("room", "bob");
        let peer = world.peer_of("bob");
        world.media(MediaEvent::PeerFailed { peer, reason });
        assert_eq!(leave(&world, bob), None);
        world.pass(Duration::from_millis(500));
        let goodbye =
            proto::LeaveRequest { reason: Reason::ClientInitiated.into(), ..Default::default() };
        world.request(bob, Request::Leave(goodbye));
        assert_eq!(
            seen(&world, alice, "bob").unwrap().disconnect_reason(),
            Reason::ClientInitiated
        );
    }
}

#[test]
fn a_closed_connection_is_not_resumed_and_ends_in_time() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let bob = world.join_active("room", "bob");
    let peer = world.peer_of("bob");
    world.media(MediaEvent::PeerFailed { peer, reason: PeerFailure::DtlsClosed });
    let again = world.resume("room", "bob", sid(world.sid_of(bob)));
    assert_eq!(leave(&world, again), Some(BEGIN_ANEW));
    world.pass(CLOSED_TIMEOUT);
    assert_eq!(seen(&world, alice, "bob").unwrap().disconnect_reason(), Reason::ConnectionTimeout);
    assert_eq!(leave(&world, bob), Some((Reason::ConnectionTimeout, Action::Reconnect)));
}

fn simulate(world: &mut World, session: SessionId, scenario: Scenario) {
    let simulate = proto::SimulateScenario { scenario: Some(scenario) };
    world.request(session, Request::Simulate(simulate));
}

#[test]
fn resumes_fail_as_asked_for_once() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let alices = world.sid_of(alice);
    simulate(&mut world, alice, Scenario::DisconnectSignalOnResume(true));
    let dropped = world.resume("room", "alice", sid(alices.clone()));
    assert_eq!(world.said(dropped).len(), 3);
    assert!(world.is_closed(dropped));
    let again = world.resume("room", "alice", sid(alices.clone()));
    assert_resumed(&world, again);

    simulate(&mut world, again, Scenario::DisconnectSignalOnResumeNoMessages(true));
    let refused = world.resume("room", "alice", sid(alices.clone()));
    assert_eq!(world.refused(refused), Some((500, "connection closed by media")));
    let again = world.resume("room", "alice", sid(alices.clone()));
    assert_resumed(&world, again);

    simulate(&mut world, again, Scenario::DisconnectSignalOnResume(true));
    world.pass(SIMULATED_DROP_TTL);
    let late = world.resume("room", "alice", sid(alices));
    assert_resumed(&world, late);
}

#[test]
fn simulated_speech_begins_and_ends_for_oneself() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let bob = world.join_active("room", "bob");
    let heard = world.said(bob).len();
    simulate(&mut world, alice, Scenario::SpeakerUpdate(3));
    let sid = world.sid_of(alice);
    let told = |world: &World| match world.said(alice).last() {
        Some(Message::SpeakersChanged(changed)) => Some(changed.speakers[0].clone()),
        _ => None,
    };
    let speaks = proto::SpeakerInfo { sid: sid.clone(), level: 0.9, active: true };
    assert_eq!(told(&world), Some(speaks));
    world.pass(Duration::from_secs(3));
    assert_eq!(told(&world), Some(proto::SpeakerInfo { sid, ..Default::default() }));
    assert!(!world.said(bob)[heard..].iter().any(|m| matches!(m, Message::SpeakersChanged(_))));
}

#[test]
fn a_full_reconnect_is_had_for_the_asking() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    simulate(&mut world, alice, Scenario::LeaveRequestFullReconnect(true));
    assert_eq!(leave(&world, alice), Some(BEGIN_ANEW));
}

fn publish_microphone(world: &mut World, session: SessionId) -> String {
    let add = proto::AddTrackRequest { cid: "mic".into(), ..Default::default() };
    world.request(session, Request::AddTrack(add));
    world.request(session, Request::Offer(offer_with(2, &["mic"])));
    let published = world.said(session).iter().find_map(|message| match message {
        Message::TrackPublished(published) => published.track.clone(),
        _ => None,
    });
    published.unwrap().sid
}

#[test]
fn the_state_of_a_resumed_client_is_reconciled() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let bob = world.join_active("room", "bob");
    let track = publish_microphone(&mut world, alice);
    assert_eq!(world.node.counts().subscriptions, 1);
    let alices = world.sid_of(alice);
    let published = |sid: &str| proto::TrackPublishedResponse {
        cid: "mic".into(),
        track: Some(proto::TrackInfo { sid: sid.into(), ..Default::default() }),
    };
    let state = proto::SyncState { publish_tracks: vec![published(&track)], ..Default::default() };
    // It may ride on the connection.
    let options = Options { sync_state: Some(state), ..sid(alices.clone()) };
    let again = world.resume("room", "alice", options);
    assert_resumed(&world, again);

    let bob = {
        let bobs = world.sid_of(bob);
        world.resume("room", "bob", sid(bobs))
    };
    world.commands.clear();
    let off = proto::SyncState { track_sids_disabled: vec![track.clone()], ..Default::default() };
    world.request(bob, Request::SyncState(off));
    world.request(bob, Request::SyncState(proto::SyncState::default()));
    let settings = world.commands.iter().filter_map(|command| match command {
        MediaCommand::SetSubscription { settings, .. } => Some(settings.enabled),
        _ => None,
    });
    let enabled: Vec<_> = settings.collect();
    assert_eq!(enabled, [false, true]);
    let unsubscribed = proto::SyncState {
        subscription: Some(proto::UpdateSubscription {
            track_sids: vec![track],
            subscribe: false,
            ..Default::default()
        }),
        ..Default::default()
    };
    world.request(bob, Request::SyncState(unsubscribed));
    assert_eq!(world.node.counts().subscriptions, 0);

    let unknown =
        proto::SyncState { publish_tracks: vec![published("TR_no")], ..Default::default() };
    world.request(again, Request::SyncState(unknown));
    assert_eq!(leave(&world, again), Some(BEGIN_ANEW));
}

#[test]
fn reliable_data_that_a_client_lacks_is_sent_again_once() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let bob = world.join_active("room", "bob");
    let (from, to) = (world.peer_of("alice"), world.peer_of("bob"));
    let channel = DataChannel::Reliable;
    world.media(MediaEvent::ChannelOpen { peer: to, channel });
    for sequence in 1..=5 {
        let packet = proto::DataPacket {
            sequence,
            value: Some(proto::data_packet::Value::User(Default::default())),
            ..Default::default()
        };
        let data = packet.encode_to_vec().into();
        world.media(MediaEvent::Data { peer: from, channel, data });
    }
    let state = proto::SyncState {
        datachannel_receive_states: vec![proto::DataChannelReceiveState {
            publisher_sid: world.sid_of(alice),
            last_seq: 3,
        }],
        ..Default::default()
    };
    let sent = |world: &World| -> Vec<u32> {
        let data = world.commands.iter().filter_map(|command| match command {
            MediaCommand::SendData { data, peers, .. } if peers == &[to] => Some(data.clone()),
            _ => None,
        });
        data.map(|data| proto::DataPacket::decode(data).unwrap().sequence).collect()
    };
    world.commands.clear();
    world.request(bob, Request::SyncState(state.clone()));
    assert!(sent(&world).is_empty(), "it has not been away");
    let bobs = world.sid_of(bob);
    let again = world.resume("room", "bob", sid(bobs));
    world.request(again, Request::SyncState(state.clone()));
    world.request(again, Request::SyncState(state));
    assert_eq!(sent(&world), [4, 5]);

    let alices = world.sid_of(alice);
    let again = world.resume("room", "alice", sid(alices));
    let Message::Reconnect(reconnect) = &world.said(again)[0] else { panic!() };
    assert_eq!(reconnect.last_message_seq, 5);
}

/// Open channels of a client of this kind, and how many messages it is sent on them.
fn asked_when_open(client: proto::client_info::Sdk, pair: bool, grant: VideoGrant) -> usize {
    let mut world = World::new();
    let client_info = proto::ClientInfo { sdk: client.into(), protocol: 17, ..Default::default() };
    let session =
        world.join("room", "alice", Options { pair, grant, client_info, ..Options::default() });
    let primary = world.peer_of("alice");
    world.media(MediaEvent::PeerConnected { peer: primary });
    let channel = DataChannel::Reliable;
    world.media(MediaEvent::ChannelOpen { peer: primary, channel });
    let asked = |world: &World| {
        let sent = world.commands.iter().filter(|c| matches!(c, MediaCommand::SendData { .. }));
        sent.count()
    };
    if pair {
        assert_eq!(asked(&world), 0, "it has no connection to answer on");
        world.request(session, Request::Offer(world::offer(1)));
        let publisher = world.peer_of("alice");
        assert_ne!(publisher, primary);
        world.media(MediaEvent::ChannelOpen { peer: publisher, channel });
        world.media(MediaEvent::ChannelOpen { peer: publisher, channel: DataChannel::Lossy });
    }
    asked(&world)
}

#[test]
fn livekit_client_is_asked_for_a_first_message_that_it_can_resume_behind() {
    use proto::client_info::Sdk;
    let grant = || VideoGrant { room_join: true, ..Default::default() };
    for pair in [false, true] {
        assert_eq!(asked_when_open(Sdk::Js, pair, grant()), 1);
        assert_eq!(asked_when_open(Sdk::Python, pair, grant()), 0);
        let mute = VideoGrant { can_publish_data: Some(false), ..grant() };
        assert_eq!(asked_when_open(Sdk::Js, pair, mute), 0);
    }
}

#[test]
fn a_session_that_goes_on_is_not_told_of_the_hidden() {
    let mut world = World::new();
    let mut options = Options::default();
    options.grant.hidden = true;
    let ghost = world.join("room", "ghost", options);
    let bob = world.join_active("room", "bob");
    world.pass(Duration::from_secs(1));
    let bobs_sid = world.sid_of(bob);
    let again = world.resume("room", "bob", sid(bobs_sid.clone()));
    assert_resumed(&world, again);
    assert_eq!(seen(&world, again, "ghost"), None);
    world.request(ghost, Request::Leave(proto::LeaveRequest::default()));
    let third = world.resume("room", "bob", sid(bobs_sid));
    assert_resumed(&world, third);
    assert_eq!(seen(&world, third, "ghost"), None, "nor of those who have left");
}
