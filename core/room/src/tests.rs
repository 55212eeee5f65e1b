//! Rooms as their owner sees them: commands in, events out.

use crate::*;
use parlor_model::{Codec, DisconnectReason, TrackKind, TrackSource};

fn start() -> Now {
    Now { instant: Instant::now(), unix: Duration::from_secs(1_800_000_000) }
}

fn later(now: Now, by: Duration) -> Now {
    Now { instant: now.instant + by, unix: now.unix + by }
}

fn room(now: Now) -> Room {
    Room::new("demo".into(), "RM_1".into(), RoomSettings::default(), now)
}

fn person(name: &str) -> NewParticipant {
    NewParticipant {
        sid: format!("PA_{name}").into(),
        identity: name.into(),
        name: String::new(),
        metadata: String::new(),
        attributes: BTreeMap::new(),
        permissions: Default::default(),
        kind: Default::default(),
        kind_details: Vec::new(),
        auto_subscribe: true,
        auto_subscribe_data: false,
        client_protocol: 2,
        capabilities: Vec::new(),
    }
}

fn enter(room: &mut Room, now: Now, person: NewParticipant) -> ParticipantSid {
    let sid = person.sid.clone();
    room.apply(now, Command::Join(Box::new(person))).unwrap();
    room.apply(now, Command::SetJoined(sid.clone())).unwrap();
    room.apply(now, Command::SetActive(sid.clone())).unwrap();
    sid
}

fn drain(room: &mut Room) -> Vec<Event> {
    std::iter::from_fn(|| room.poll_event()).collect()
}

fn microphone(cid: &str) -> NewTrack {
    NewTrack {
        cid: cid.into(),
        kind: Some(TrackKind::Audio),
        source: TrackSource::Microphone,
        ..NewTrack::default()
    }
}

fn publish(room: &mut Room, now: Now, who: &ParticipantSid, sid: &str, cid: &str) -> TrackSid {
    let track = TrackSid::from(sid);
    let new = Box::new(microphone(cid));
    room.apply(now, Command::AddTrack { participant: who.clone(), sid: track.clone(), new })
        .unwrap();
    let (participant, mid) = (who.clone(), "7".to_owned());
    let negotiated = Command::SetNegotiated {
        participant,
        track: track.clone(),
        cid: cid.into(),
        mid,
        codec: Codec::Red,
    };
    room.apply(now, negotiated).unwrap();
    room.apply(now, Command::Publish { participant: who.clone(), track: track.clone() }).unwrap();
    track
}

#[test]
fn a_published_track_reaches_the_others_in_the_recorded_order() {
    let now = start();
    let mut room = room(now);
    let alice = enter(&mut room, now, person("alice"));
    let bob = enter(&mut room, now, person("bob"));
    drain(&mut room);
    let track = publish(&mut room, now, &alice, "TR_AM1", "cid");
    let expected = vec![
        Event::TrackAdded { participant: alice.clone(), track: track.clone(), cid: "cid".into() },
        Event::Updated { participants: vec![alice.clone()], audience: Audience::Everyone },
        Event::TrackPublished { participant: alice.clone(), track: track.clone() },
        Event::SubscriptionPermission {
            subscriber: bob.clone(),
            publisher: alice.clone(),
            track: track.clone(),
            allowed: true,
        },
        Event::Subscribed { subscriber: bob, publisher: alice, track },
    ];
    assert_eq!(drain(&mut room), expected);
}

#[test]
fn a_late_joiner_is_subscribed_when_joined() {
    let now = start();
    let mut room = room(now);
    let alice = enter(&mut room, now, person("alice"));
    let track = publish(&mut room, now, &alice, "TR_AM1", "cid");
    let bob = ParticipantSid::from("PA_bob");
    room.apply(now, Command::Join(Box::new(person("bob")))).unwrap();
    assert!(!room.is_subscribed(&bob, &track));
    room.apply(now, Command::SetJoined(bob.clone())).unwrap();
    assert!(room.is_subscribed(&bob, &track));
}

#[test]
fn updates_of_those_who_publish_nothing_are_collected() {
    let now = start();
    let mut room = room(now);
    let alice = enter(&mut room, now, person("alice"));
    let bob = enter(&mut room, now, person("bob"));
    assert_eq!(drain(&mut room), vec![]);
    let now = later(now, UPDATE_DELAY);
    assert_eq!(room.poll_timeout(), Some(now.instant));
    room.handle_timeout(now);
    let expected = Event::Updated { participants: vec![alice, bob], audience: Audience::Everyone };
    assert_eq!(drain(&mut room), vec![expected]);
}

#[test]
fn the_first_in_a_while_is_told_of_at_once_and_the_next_later_in_a_large_room() {
    let ms = Duration::from_millis;
    for (participants, interval_ms) in [(14, 50), (198, 600), (664, 1998), (1100, 2000)] {
        let mut room = room(start());
        for at in 0..participants {
            enter(&mut room, start(), person(&format!("person{at}")));
        }
        let mut now = later(start(), UPDATE_INTERVAL_MAX);
        room.handle_timeout(now);
        now = later(now, UPDATE_INTERVAL_MAX);
        room.handle_timeout(now);
        drain(&mut room);
        for (name, wait_ms) in [("first", 50), ("next", interval_ms)] {
            enter(&mut room, now, person(name));
            room.handle_timeout(later(now, ms(wait_ms - 1)));
            let told = |room: &mut Room| {
                let events = drain(room);
                events.iter().filter(|event| matches!(event, Event::Updated { .. })).count()
            };
            assert_eq!(told(&mut room), 0, "{participants} {name}");
            now = later(now, ms(wait_ms));
            room.handle_timeout(now);
            assert_eq!(told(&mut room), 1, "{participants} {name}");
        }
    }
}

#[test]
fn counts_that_are_soon_due_go_along_with_who_has_come() {
    let mut now = start();
    let mut room = room(now);
    let counts = |room: &mut Room| drain(room).contains(&Event::RoomUpdated);
    enter(&mut room, now, person("alice"));
    now = later(now, UPDATE_DELAY);
    room.handle_timeout(now);
    assert!(!counts(&mut room), "they are not told with each");
    now = later(now, ROOM_UPDATE_DELAY - UPDATE_DELAY * 2);
    enter(&mut room, now, person("bob"));
    now = later(now, UPDATE_DELAY);
    assert_eq!(room.poll_timeout(), Some(now.instant));
    room.handle_timeout(now);
    assert!(counts(&mut room));
    room.handle_timeout(later(now, ROOM_UPDATE_DELAY));
    assert!(!counts(&mut room), "they were told");
}

#[test]
fn a_thousand_who_only_listen_are_told_of_in_few_batches() {
    const LISTENERS: usize = 1000;
    let mut now = start();
    let mut room = room(now);
    // Two a millisecond come.
    let (mut batches, mut told) = (0, 0);
    for number in 0..LISTENERS {
        enter(&mut room, now, person(&format!("listener{number}")));
        now = later(now, Duration::from_micros(500));
        if room.poll_timeout().is_some_and(|due| due <= now.instant) {
            room.handle_timeout(now);
        }
        for event in drain(&mut room) {
            if let Event::Updated { participants, audience: Audience::Everyone } = event {
                batches += 1;
                told += participants.len();
            }
        }
    }
    assert!(batches <= 10, "{batches} batches in half a second");
    assert!(told <= LISTENERS, "{told}");
}

#[test]
fn listeners_who_leave_a_large_room_together_are_told_of_in_few_batches() {
    const LISTENERS: usize = 1000;
    let mut now = start();
    let mut room = room(now);
    let everybody: Vec<_> = (0..LISTENERS)
        .map(|number| enter(&mut room, now, person(&format!("listener{number}"))))
        .collect();
    now = later(now, UPDATE_INTERVAL_MAX);
    room.handle_timeout(now);
    drain(&mut room);
    let (left, stay) = everybody.split_at(800);
    let mut told = Vec::new();
    let mut batches = 0;
    let mut hear = |room: &mut Room| {
        for event in drain(room) {
            if let Event::Updated { participants, audience: Audience::Everyone } = event {
                // Who is told of can be looked up.
                assert!(participants.iter().all(|sid| room.participant(sid).is_some()));
                batches += 1;
                told.extend(participants);
            }
        }
    };
    for sid in left {
        room.apply(now, Command::Leave(sid.clone(), DisconnectReason::ClientInitiated)).unwrap();
        now = later(now, Duration::from_micros(500));
        room.handle_timeout(now);
        hear(&mut room);
    }
    // Who comes again under an identity comes after who had it.
    enter(&mut room, now, NewParticipant { sid: "PA_again".into(), ..person("listener799") });
    hear(&mut room);
    assert_eq!(told, left, "each once, in order");
    assert!(batches <= 10, "{batches} batches in 400 ms");
    assert_eq!(room.num_participants() as usize, stay.len() + 1);
}

#[test]
fn the_same_identity_again_replaces_without_a_word_to_the_others() {
    let now = start();
    let mut room = room(now);
    enter(&mut room, now, person("alice"));
    drain(&mut room);
    let again = NewParticipant { sid: "PA_alice2".into(), ..person("alice") };
    room.apply(now, Command::Join(Box::new(again))).unwrap();
    let left =
        Event::Left { participant: "PA_alice".into(), reason: DisconnectReason::DuplicateIdentity };
    assert_eq!(drain(&mut room), vec![left]);
    assert_eq!(room.participant_by_identity("alice").unwrap().info.sid.as_str(), "PA_alice2");
}

#[test]
fn a_full_room_refuses_but_lets_agents_and_returners_in() {
    let now = start();
    let settings = RoomSettings { max_participants: 1, ..RoomSettings::default() };
    let mut room = Room::new("demo".into(), "RM_1".into(), settings, now);
    enter(&mut room, now, person("alice"));
    let refused = room.apply(now, Command::Join(Box::new(person("bob"))));
    assert_eq!(refused, Err(Refusal::RoomFull { max_participants: 1 }));
    let mut agent = person("agent");
    agent.kind = parlor_model::ParticipantKind::Agent;
    enter(&mut room, now, agent);
    enter(&mut room, now, NewParticipant { sid: "PA_alice2".into(), ..person("alice") });
    assert_eq!(room.num_participants(), 1);
}

#[test]
fn who_is_sent_as_much_as_it_may_waits_for_the_next_place() {
    let now = start();
    let settings = RoomSettings { max_audio_subscriptions: 2, ..RoomSettings::default() };
    let mut room = Room::new("demo".into(), "RM_1".into(), settings, now);
    let alice = enter(&mut room, now, person("alice"));
    let bob = enter(&mut room, now, person("bob"));
    let tracks = ["TR_AM1", "TR_AM2", "TR_AM3", "TR_AM4"]
        .map(|sid| publish(&mut room, now, &alice, sid, sid));
    let sent = |room: &Room| tracks.each_ref().map(|track| room.is_subscribed(&bob, track));
    assert_eq!(sent(&room), [true, true, false, false]);
    // One that nobody asked for any more makes room, as one that ends does.
    let subscribe = |room: &mut Room, track: &TrackSid, subscribe| {
        let (participant, tracks) = (bob.clone(), vec![track.clone()]);
        room.apply(now, Command::Subscribe { participant, tracks, subscribe }).unwrap();
    };
    subscribe(&mut room, &tracks[0], false);
    assert_eq!(sent(&room), [false, true, true, false]);
    subscribe(&mut room, &tracks[0], true);
    assert_eq!(sent(&room), [false, true, true, false]);
    let (participant, track) = (alice.clone(), tracks[1].clone());
    room.apply(now, Command::Unpublish { participant, track }).unwrap();
    assert_eq!(sent(&room), [true, false, true, false]);
    let carol = enter(&mut room, now, person("carol"));
    assert_eq!(tracks.iter().filter(|track| room.is_subscribed(&carol, track)).count(), 2);
}

#[test]
fn permission_withdrawn_ends_the_track_and_every_subscription() {
    let now = start();
    let mut room = room(now);
    let alice = enter(&mut room, now, person("alice"));
    let bob = enter(&mut room, now, person("bob"));
    let track = publish(&mut room, now, &alice, "TR_AM1", "cid");
    drain(&mut room);
    let permissions = parlor_model::Permissions { can_publish: false, ..Default::default() };
    let change =
        Box::new(ParticipantChange { permissions: Some(permissions), ..Default::default() });
    room.apply(now, Command::UpdateParticipant { participant: alice.clone(), change }).unwrap();
    let events = drain(&mut room);
    assert!(events.contains(&Event::Unsubscribed { subscriber: bob, track: track.clone() }));
    let ended = Event::TrackEnded { participant: alice.clone(), track, by_server: true };
    assert!(events.contains(&ended));
    assert!(!room.participant(&alice).unwrap().is_publisher);
}

#[test]
fn a_policy_takes_tracks_away_and_gives_them_back() {
    let now = start();
    let mut room = room(now);
    let alice = enter(&mut room, now, person("alice"));
    let bob = enter(&mut room, now, person("bob"));
    let track = publish(&mut room, now, &alice, "TR_AM1", "cid");
    let nobody = SubscriptionPolicy { all_participants: false, permissions: Vec::new() };
    let to_bob = SubscriptionPolicy {
        all_participants: false,
        permissions: vec![TrackPermission {
            identity: Some("bob".into()),
            tracks: vec![track.clone()],
            ..TrackPermission::default()
        }],
    };
    for (policy, expected) in [(nobody, false), (to_bob, true)] {
        let participant = alice.clone();
        room.apply(now, Command::SetSubscriptionPolicy { participant, policy }).unwrap();
        assert_eq!(room.is_subscribed(&bob, &track), expected);
    }
}

#[test]
fn a_queued_announcement_is_taken_when_its_cid_is_free() {
    let now = start();
    let mut room = room(now);
    let alice = enter(&mut room, now, person("alice"));
    let first = publish(&mut room, now, &alice, "TR_AM1", "cid");
    let second = TrackSid::from("TR_AM2");
    let new = Box::new(microphone("cid"));
    let again = Command::AddTrack { participant: alice.clone(), sid: second.clone(), new };
    assert_eq!(room.apply(now, again), Err(Refusal::Queued));
    drain(&mut room);
    room.apply(now, Command::Unpublish { participant: alice.clone(), track: first }).unwrap();
    let taken = Event::TrackAdded { participant: alice, track: second, cid: "cid".into() };
    assert!(drain(&mut room).contains(&taken));
}

#[test]
fn bounds_hold_at_the_bound_and_one_past_it() {
    let now = start();
    let mut room = room(now);
    let alice = enter(&mut room, now, person("alice"));
    let mut add = |n: usize, cid: String| {
        let (participant, sid) = (alice.clone(), format!("TR_AM{n}").into());
        room.apply(now, Command::AddTrack { participant, sid, new: Box::new(microphone(&cid)) })
    };
    for n in 0..PENDING_TRACKS_MAX {
        add(n, format!("cid{n}")).unwrap();
    }
    assert!(matches!(add(999, "one more".into()), Err(Refusal::LimitExceeded { .. })));
    for n in 0..QUEUED_TRACKS_MAX {
        assert_eq!(add(100 + n, "cid0".into()), Err(Refusal::Queued));
    }
    assert!(matches!(add(998, "cid0".into()), Err(Refusal::LimitExceeded { .. })));
}

#[test]
fn an_empty_room_ends_after_its_time() {
    let now = start();
    let mut room = room(now);
    let alice = enter(&mut room, now, person("alice"));
    let now = later(now, Duration::from_secs(400));
    room.handle_timeout(now);
    assert!(!room.is_closed());
    room.apply(now, Command::Leave(alice, DisconnectReason::ClientInitiated)).unwrap();
    room.handle_timeout(later(now, Duration::from_secs(19)));
    assert!(!room.is_closed());
    room.handle_timeout(later(now, Duration::from_secs(20)));
    assert!(room.is_closed());
    assert_eq!(drain(&mut room).last(), Some(&Event::Closed));
}

#[test]
fn hidden_participants_are_told_of_themselves_only() {
    let now = start();
    let mut room = room(now);
    let mut ghost = person("ghost");
    ghost.permissions.hidden = true;
    let ghost = enter(&mut room, now, ghost);
    let now = later(now, UPDATE_DELAY);
    room.handle_timeout(now);
    let audience = Audience::Only(ghost.clone());
    let expected = Event::Updated { participants: vec![ghost.clone()], audience };
    assert_eq!(drain(&mut room), vec![expected]);
    room.apply(now, Command::Leave(ghost, DisconnectReason::ClientInitiated)).unwrap();
    assert!(!drain(&mut room).iter().any(|event| matches!(event, Event::Updated { .. })));
}

#[test]
fn data_goes_to_those_named_and_never_back() {
    let now = start();
    let mut room = room(now);
    let alice = enter(&mut room, now, person("alice"));
    let bob = enter(&mut room, now, person("bob"));
    let carol = enter(&mut room, now, person("carol"));
    assert_eq!(room.data_recipients(Some(&alice), &[], &[]), vec![bob.clone(), carol.clone()]);
    assert_eq!(room.data_recipients(Some(&alice), &[], &["bob".into()]), vec![bob]);
    assert_eq!(
        room.data_recipients(Some(&alice), &["PA_carol".into()], &["alice".into()]),
        vec![carol]
    );
}

#[test]
fn data_tracks_come_unasked_to_who_wants_all_of_them() {
    let now = start();
    let mut room = room(now);
    let alice = enter(&mut room, now, person("alice"));
    let wanting = |name: &str| NewParticipant { auto_subscribe_data: true, ..person(name) };
    let bob = enter(&mut room, now, wanting("bob"));
    enter(&mut room, now, person("carol"));
    drain(&mut room);
    let publish = |room: &mut Room, handle: u16, name: &str| {
        let sid = TrackSid::from(format!("DTR_{name}").as_str());
        let track =
            DataTrack { sid: sid.clone(), handle, name: name.into(), announcement: Vec::new() };
        let participant = alice.clone();
        room.apply(now, Command::PublishDataTrack { participant, track }).unwrap();
        sid
    };
    let subscribed = |room: &mut Room| {
        let events = drain(room).into_iter().filter_map(|event| match event {
            Event::DataSubscribed { subscriber, track, .. } => Some((subscriber, track)),
            _ => None,
        });
        events.collect::<Vec<_>>()
    };
    let first = publish(&mut room, 1, "one");
    assert_eq!(subscribed(&mut room), [(bob.clone(), first.clone())]);
    let (participant, track) = (bob.clone(), first.clone());
    room.apply(now, Command::SubscribeData { participant, track, subscribe: false }).unwrap();
    let second = publish(&mut room, 2, "two");
    assert_eq!(subscribed(&mut room), [(bob, second.clone())], "the first is not begun again");
    let dave = enter(&mut room, now, wanting("dave"));
    assert_eq!(subscribed(&mut room), [(dave.clone(), first), (dave, second)]);
}
