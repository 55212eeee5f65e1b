//! Publications in several codecs: who is sent which, and what their publishers are told.
#![allow(clippy::unwrap_used, missing_docs)]

mod world;

use livekit_protocol as proto;
use parlor_model::{Codec, Fingerprint, IceCredentials, PeerId, Ssrc, TrackId};
use parlor_node::io::SessionId;
use parlor_sdp::{LocalTransport, client::ClientAnswerer};
use parlor_sfu::command::{MediaCommand, MediaEvent};
use proto::{signal_request::Message as Request, signal_response::Message};
use std::time::Duration;
use world::{Options, World, offer_of_videos, offer_with};

const BOTH: &str = "video VP8 H264";

fn join(world: &mut World, identity: &str, receives: &str) -> SessionId {
    let offer = Some(offer_of_videos(1, receives, &[]));
    let session = world.join("room", identity, Options { offer, ..Options::default() });
    let peer = world.peer_of(identity);
    world.media(MediaEvent::PeerConnected { peer });
    session
}

/// What a peer was told last to send: encoding and first codec.
fn sent(world: &World, peer: PeerId) -> Option<(TrackId, Codec)> {
    let of_peer = |command: &MediaCommand| match command {
        MediaCommand::SetMedia { peer: of, media } if *of == peer => Some(media.clone()),
        _ => None,
    };
    let media = world.commands.iter().rev().find_map(of_peer)?;
    media.send.first().map(|section| (section.track, section.codecs[0].codec))
}

/// The encodings that a peer was told last to send to us.
fn encodings(world: &World, peer: PeerId) -> Vec<TrackId> {
    let of_peer = |command: &MediaCommand| match command {
        MediaCommand::SetMedia { peer: of, media } if *of == peer => Some(media.clone()),
        _ => None,
    };
    let media = world.commands.iter().rev().find_map(of_peer).unwrap();
    media.receive.iter().map(|section| section.track).collect()
}

/// What a publisher was told last that is wanted: codecs, each with whether any of it is.
fn wanted(world: &World, session: SessionId) -> Vec<(String, bool)> {
    let told = world.said(session).iter().rev().find_map(|message| match message {
        Message::SubscribedQualityUpdate(update) => Some(update.subscribed_codecs.clone()),
        _ => None,
    });
    let any =
        |codec: &proto::SubscribedCodec| codec.qualities.iter().any(|quality| quality.enabled);
    told.unwrap_or_default().iter().map(|codec| (codec.codec.clone(), any(codec))).collect()
}

fn codec(name: &str, cid: &str) -> proto::SimulcastCodec {
    proto::SimulcastCodec { codec: name.into(), cid: cid.into(), ..Default::default() }
}

fn started(world: &mut World, track: TrackId, ssrc: u32) {
    world.media(MediaEvent::StreamStarted { track, rid: None, ssrc: Ssrc(ssrc), layer: 0 });
}

struct Publisher {
    session: SessionId,
    peer: PeerId,
    sid: String,
}

/// Alice publishes H264 and would publish VP8.
fn publish(world: &mut World, policy: proto::BackupCodecPolicy) -> Publisher {
    let session = join(world, "alice", BOTH);
    let peer = world.peer_of("alice");
    world.request(
        session,
        Request::AddTrack(proto::AddTrackRequest {
            cid: "first".into(),
            r#type: proto::TrackType::Video.into(),
            simulcast_codecs: vec![codec("h264", "first"), codec("vp8", "")],
            backup_codec_policy: policy.into(),
            ..Default::default()
        }),
    );
    world.request(session, Request::Offer(offer_of_videos(2, BOTH, &["first"])));
    let first = encodings(world, peer)[0];
    started(world, first, 40);
    let sid = world.said(session).iter().find_map(|message| match message {
        Message::TrackPublished(published) => published.track.clone().map(|track| track.sid),
        _ => None,
    });
    Publisher { session, peer, sid: sid.unwrap() }
}

/// Alice publishes VP8 besides, and its first packet comes.
fn publish_backup(world: &mut World, alice: &Publisher) {
    world.request(
        alice.session,
        Request::AddTrack(proto::AddTrackRequest {
            cid: "second".into(),
            sid: alice.sid.clone(),
            r#type: proto::TrackType::Video.into(),
            simulcast_codecs: vec![codec("vp8", "second")],
            ..Default::default()
        }),
    );
    world.request(alice.session, Request::Offer(offer_of_videos(3, BOTH, &["first", "second"])));
    let [first, second] = encodings(world, alice.peer)[..] else { panic!("two sections") };
    assert_ne!(first, second);
    started(world, second, 41);
}

fn on(name: &str) -> (String, bool) {
    (name.to_owned(), true)
}

#[test]
fn a_backup_is_asked_for_when_somebody_needs_it_and_then_takes_over() {
    let mut world = World::new();
    let alice = publish(&mut world, proto::BackupCodecPolicy::PreferRegression);
    let carol = join(&mut world, "carol", "video H264");
    let bob = join(&mut world, "bob", BOTH);
    let (bob_peer, carol_peer) = (world.peer_of("bob"), world.peer_of("carol"));
    let first = encodings(&world, alice.peer)[0];
    assert_eq!(sent(&world, bob_peer), Some((first, Codec::H264)));
    assert_eq!(wanted(&world, alice.session), [on("h264")]);

    let dave = join(&mut world, "dave", "video VP8");
    let dave_peer = world.peer_of("dave");
    assert_eq!(sent(&world, dave_peer).map(|(_, codec)| codec), Some(Codec::Vp8));
    assert_eq!(wanted(&world, alice.session), [on("h264"), on("vp8")]);
    publish_backup(&mut world, &alice);
    let second = encodings(&world, alice.peer)[1];
    assert_eq!(sent(&world, dave_peer), Some((second, Codec::Vp8)));
    // Everybody who can goes over, without a word of negotiation.
    assert_eq!(sent(&world, bob_peer), Some((second, Codec::Vp8)));
    assert_eq!(sent(&world, carol_peer), Some((first, Codec::H264)), "it has no VP8");
    assert_eq!(wanted(&world, alice.session), [on("h264"), on("vp8")]);
    for session in [bob, carol, dave] {
        let refused = |message: &Message| matches!(message, Message::SubscriptionResponse(_));
        assert!(!world.said(session).iter().any(refused));
    }

    world.request(carol, Request::Leave(proto::LeaveRequest::default()));
    assert_eq!(wanted(&world, alice.session), [on("vp8"), ("h264".into(), false)], "at once");
}

#[test]
fn both_codecs_go_on_where_the_publisher_says_so_or_the_room_is_large() {
    for policy in [proto::BackupCodecPolicy::Simulcast, proto::BackupCodecPolicy::PreferRegression]
    {
        let mut world = World::new();
        let alice = publish(&mut world, policy);
        if policy == proto::BackupCodecPolicy::PreferRegression {
            for name in ["e", "f"] {
                join(&mut world, name, BOTH);
            }
        }
        join(&mut world, "bob", BOTH);
        join(&mut world, "dave", "video VP8");
        publish_backup(&mut world, &alice);
        let [first, second] = encodings(&world, alice.peer)[..] else { panic!() };
        assert_eq!(sent(&world, world.peer_of("bob")), Some((first, Codec::H264)));
        assert_eq!(sent(&world, world.peer_of("dave")), Some((second, Codec::Vp8)));
        assert_eq!(wanted(&world, alice.session), [on("h264"), on("vp8")]);
    }
}

#[test]
fn a_publisher_that_regresses_always_is_not_asked_how_large_the_room_is() {
    let mut world = World::new();
    let alice = publish(&mut world, proto::BackupCodecPolicy::Regression);
    for name in ["e", "f", "g", "bob"] {
        join(&mut world, name, BOTH);
    }
    join(&mut world, "dave", "video VP8");
    publish_backup(&mut world, &alice);
    let second = encodings(&world, alice.peer)[1];
    for name in ["e", "f", "g", "bob", "dave"] {
        assert_eq!(sent(&world, world.peer_of(name)), Some((second, Codec::Vp8)));
    }
    assert_eq!(wanted(&world, alice.session), [on("vp8"), ("h264".into(), false)]);
}

#[test]
fn a_publisher_of_several_sounds_is_told_which_are_heard() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    let add = proto::AddTrackRequest {
        cid: "mic".into(),
        simulcast_codecs: vec![codec("red", "mic"), codec("opus", "")],
        ..Default::default()
    };
    world.request(alice, Request::AddTrack(add));
    world.request(alice, Request::Offer(offer_with(2, &["mic"])));
    let track = encodings(&world, world.peer_of("alice"))[0];
    started(&mut world, track, 40);
    let told = |world: &World| {
        let said = world.said(alice).iter().rev();
        let update = said.filter_map(|message| match message {
            Message::SubscribedAudioCodecUpdate(update) => Some(update),
            _ => None,
        });
        let codecs = update.flat_map(|update| &update.subscribed_audio_codecs);
        codecs.map(|codec| (codec.codec.clone(), codec.enabled)).next()
    };
    assert_eq!(told(&world), None);
    let bob = world.join_active("room", "bob");
    assert_eq!(told(&world), Some(on("red")));
    world.request(bob, Request::Leave(proto::LeaveRequest::default()));
    world.pass(Duration::from_secs(6));
    assert_eq!(told(&world), Some(("red".into(), false)));
}

#[test]
fn red_goes_to_who_takes_it_and_the_opus_within_to_the_others() {
    let mut world = World::new();
    let alice = world.join_active("room", "alice");
    world.request(
        alice,
        Request::AddTrack(proto::AddTrackRequest { cid: "mic".into(), ..Default::default() }),
    );
    world.request(alice, Request::Offer(offer_with(2, &["mic"])));
    let track = encodings(&world, world.peer_of("alice"))[0];
    started(&mut world, track, 40);
    join(&mut world, "bob", "audio");
    join(&mut world, "carol", "audio opus");
    assert_eq!(sent(&world, world.peer_of("bob")), Some((track, Codec::Red)));
    assert_eq!(sent(&world, world.peer_of("carol")), Some((track, Codec::Opus)));
}

#[test]
fn who_decodes_none_of_the_codecs_is_told_so_once() {
    let mut world = World::new();
    let alice = join(&mut world, "alice", BOTH);
    let add = proto::AddTrackRequest {
        cid: "first".into(),
        r#type: proto::TrackType::Video.into(),
        simulcast_codecs: vec![codec("vp8", "first")],
        ..Default::default()
    };
    world.request(alice, Request::AddTrack(add));
    world.request(alice, Request::Offer(offer_of_videos(2, BOTH, &["first"])));
    let track = encodings(&world, world.peer_of("alice"))[0];
    started(&mut world, track, 40);
    let carol = join(&mut world, "carol", "video H264");
    let dave = join(&mut world, "dave", "video VP8");
    let refusals = |world: &World, session| -> Vec<_> {
        refusals(world, session).into_iter().map(|(_, error)| error).collect()
    };
    for id in 2..5 {
        world.request(carol, Request::Offer(offer_of_videos(id, "video H264", &[])));
    }
    assert_eq!(refusals(&world, carol), [proto::SubscriptionError::SeCodecUnsupported]);
    assert_eq!(refusals(&world, dave), []);
    assert_eq!(sent(&world, world.peer_of("dave")), Some((track, Codec::Vp8)));
    assert_eq!(sent(&world, world.peer_of("carol")), None);
}

/// What a session was told of its subscriptions.
fn refusals(world: &World, session: SessionId) -> Vec<(String, proto::SubscriptionError)> {
    let refused = world.said(session).iter().filter_map(|message| match message {
        Message::SubscriptionResponse(told) => Some((told.track_sid.clone(), told.err())),
        _ => None,
    });
    refused.collect()
}

#[test]
fn who_says_so_in_its_answer_is_told_so_once_too() {
    let mut world = World::new();
    let alice = publish(&mut world, proto::BackupCodecPolicy::default());
    let local = LocalTransport {
        ice: IceCredentials { ufrag: "abcd".into(), pwd: "abcdefghijklmnopqrstuvwx".into() },
        ice_lite: false,
        fingerprint: Fingerprint { algorithm: "sha-256".into(), digest: vec![9; 32] },
        candidates: Vec::new(),
    };
    for (identity, codecs) in [("carol", &[Codec::Opus, Codec::Vp9][..]), ("dave", &[Codec::H264])]
    {
        let session = world.join("room", identity, Options { pair: true, ..Options::default() });
        let peer = world.peer_of(identity);
        world.media(MediaEvent::PeerConnected { peer });
        let mut answerer = ClientAnswerer::new(2, codecs);
        let mut answered = None;
        for _ in 0..5 {
            let said = world.said(session).iter().rev().find_map(|message| match message {
                Message::Offer(offer) => Some(offer.clone()),
                _ => None,
            });
            let offer = said.unwrap();
            if answered.replace(offer.id) != Some(offer.id) {
                let (sdp, _) = answerer.handle_offer(&offer.sdp, &local).unwrap();
                let (r#type, id) = ("answer".to_owned(), offer.id);
                let answer = proto::SessionDescription { r#type, sdp, id, ..Default::default() };
                world.request(session, Request::Answer(answer));
            }
            world.pass(Duration::from_millis(100));
        }
        match identity {
            "carol" => {
                let unsupported = proto::SubscriptionError::SeCodecUnsupported;
                assert_eq!(refusals(&world, session), [(alice.sid.clone(), unsupported)]);
            }
            _ => assert_eq!(refusals(&world, session), []),
        }
        assert!(!world.is_closed(session));
    }
}
