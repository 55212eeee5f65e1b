//! Who speaks, and how good connections are, as clients are told.
#![allow(clippy::unwrap_used, missing_docs)]

mod world;

use livekit_protocol as proto;
use parlor_model::TrackId;
use parlor_node::io::SessionId;
use parlor_sfu::command::{MediaCommand, MediaEvent, PeerQuality, TrackLevel};
use proto::{signal_request::Message as Request, signal_response::Message};
use world::{Options, World, offer_with};

/// A microphone, or another sound, and its dense id.
fn publish(world: &mut World, session: SessionId, source: proto::TrackSource) -> TrackId {
    let add =
        proto::AddTrackRequest { cid: "mic".into(), source: source.into(), ..Default::default() };
    world.request(session, Request::AddTrack(add));
    world.request(session, Request::Offer(offer_with(2, &["mic"])));
    let received = |command: &MediaCommand| match command {
        MediaCommand::SetMedia { media, .. } => media.receive.first().map(|section| section.track),
        _ => None,
    };
    let track = world.commands.iter().rev().find_map(received).unwrap();
    world.media(MediaEvent::StreamStarted {
        track,
        rid: None,
        ssrc: parlor_model::Ssrc(40),
        layer: 0,
    });
    track
}

fn speakers(world: &World, session: SessionId) -> Vec<Vec<(String, f32, bool)>> {
    let said = world.said(session).iter();
    let changes = said.filter_map(|message| match message {
        Message::SpeakersChanged(changed) => Some(&changed.speakers),
        _ => None,
    });
    changes.map(|all| all.iter().map(|s| (s.sid.clone(), s.level, s.active)).collect()).collect()
}

fn qualities(world: &World, session: SessionId) -> Vec<Vec<(String, i32, f32)>> {
    let said = world.said(session).iter();
    let changes = said.filter_map(|message| match message {
        Message::ConnectionQuality(update) => Some(&update.updates),
        _ => None,
    });
    let one = |info: &proto::ConnectionQualityInfo| {
        (info.participant_sid.clone(), info.quality, info.score)
    };
    changes.map(|all| all.iter().map(one).collect()).collect()
}

fn level(world: &mut World, track: TrackId, eighths: u8) {
    world.media(MediaEvent::AudioLevels { levels: vec![TrackLevel { track, eighths }] });
}

#[test]
fn speech_is_told_to_its_speaker_and_its_listeners_as_it_changes() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let track = publish(&mut world, alice, proto::TrackSource::Microphone);
    let bob = world.join_active("room", "bob");
    let elsewhere = world.join_active("other", "carol");
    let sid = world.sid_of(alice);
    for eighths in [1, 1, 4, 0, 0] {
        level(&mut world, track, eighths);
    }
    // An unknown track is nobody's.
    level(&mut world, TrackId(9999), 8);
    let expected = vec![
        vec![(sid.clone(), 0.125, true)],
        vec![(sid.clone(), 0.5, true)],
        vec![(sid.clone(), 0.0, false)],
    ];
    assert_eq!(speakers(&world, alice), expected);
    assert_eq!(speakers(&world, bob), expected);
    assert_eq!(speakers(&world, elsewhere), Vec::<Vec<_>>::new());
}

#[test]
fn only_microphones_speak_and_one_that_leaves_while_speaking_is_forgotten() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let screen = publish(&mut world, alice, proto::TrackSource::ScreenShareAudio);
    let bob = world.join_active("room", "bob");
    level(&mut world, screen, 8);
    assert_eq!(speakers(&world, bob).len(), 0);
    let carol = world.join_active("room", "carol");
    let microphone = publish(&mut world, carol, proto::TrackSource::Microphone);
    level(&mut world, microphone, 8);
    assert_eq!(speakers(&world, bob).len(), 1);
    world.request(carol, Request::Leave(proto::LeaveRequest::default()));
    level(&mut world, screen, 7);
    assert_eq!(speakers(&world, bob).len(), 1);
}

#[test]
fn a_paused_stream_is_told_to_its_subscriber() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    publish(&mut world, alice, proto::TrackSource::Microphone);
    let bob = world.join_active("room", "bob");
    let of_bob = |command: &MediaCommand| match command {
        MediaCommand::SetSubscription { subscription, .. } => Some(*subscription),
        _ => None,
    };
    let subscription = world.commands.iter().rev().find_map(of_bob).unwrap();
    let peer = world.peer_of("bob");
    for paused in [true, false] {
        world.media(MediaEvent::StreamPaused { peer, subscription, paused });
    }
    let told = |session| -> Vec<(String, i32)> {
        let said = world.said(session).iter();
        let states = said.filter_map(|message| match message {
            Message::StreamStateUpdate(update) => Some(&update.stream_states),
            _ => None,
        });
        states.flatten().map(|info| (info.participant_sid.clone(), info.state)).collect()
    };
    let sid = world.sid_of(alice);
    let (active, paused) = (proto::StreamState::Active as i32, proto::StreamState::Paused as i32);
    assert_eq!(told(bob), [(sid.clone(), paused), (sid, active)]);
    assert_eq!(told(alice), []);
}

#[test]
fn quality_is_told_when_somebodys_step_changes_and_then_of_all() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    publish(&mut world, alice, proto::TrackSource::Microphone);
    let bob = world.join("room", "bob", Options::default());
    let (alice_peer, bob_peer) = (world.peer_of("alice"), world.peer_of("bob"));
    let (alice_sid, bob_sid) = (world.sid_of(alice), world.sid_of(bob));
    let judge = |world: &mut World, peers: &[_]| {
        let peers = peers.iter().map(|(peer, score)| PeerQuality { peer: *peer, score: *score });
        world.media(MediaEvent::Quality { peers: peers.collect() });
    };
    judge(&mut world, &[(alice_peer, 100.0), (bob_peer, 100.0)]);
    const EXCELLENT: i32 = 2;
    let best = |sid: &str| (sid.to_owned(), EXCELLENT, 4.5);
    // As recorded: oneself, and those whom one is subscribed to.
    assert_eq!(qualities(&world, alice), [vec![best(&alice_sid)]]);
    let mut both = vec![best(&alice_sid), best(&bob_sid)];
    both.sort_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(qualities(&world, bob), [both]);
    // The same again says nothing; a fall is told with what did not change.
    judge(&mut world, &[(alice_peer, 99.0)]);
    assert_eq!(qualities(&world, alice).len(), 1);
    judge(&mut world, &[(bob_peer, 30.0)]);
    assert_eq!(qualities(&world, alice).len(), 2);
    let of_bob = qualities(&world, bob).pop().unwrap();
    let poor = of_bob.iter().find(|(sid, ..)| *sid == bob_sid).unwrap();
    assert_eq!(poor.1, proto::ConnectionQuality::Poor as i32);
    assert_eq!(of_bob.len(), 2);
}
