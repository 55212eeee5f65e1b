//! Random commands against a reference that recomputes everything from plain facts: whatever the
//! order of events, nobody is sent what permissions forbid, and what the events say adds up to
//! what the room is.
#![allow(clippy::unwrap_used, missing_docs)]

use parlor_model::{
    DisconnectReason, Now, ParticipantSid, Permissions, TrackKind, TrackSid, TrackSource,
};
use parlor_room::{
    Audience, Command, DataTrack, Event, NewParticipant, NewTrack, ParticipantChange, Refusal,
    Room, RoomSettings, State, SubscriptionPolicy, TrackPermission,
};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

const NAMES: [&str; 4] = ["alice", "bob", "carol", "dave"];
const SOURCES: [TrackSource; 3] =
    [TrackSource::Microphone, TrackSource::Camera, TrackSource::ScreenShare];
const MAX_PARTICIPANTS: usize = 3;

#[derive(Clone, Copy, Debug)]
struct Grant {
    subscribe: bool,
    publish: bool,
    /// The only source that may be published; all if there is none.
    source: Option<usize>,
    hidden: bool,
    recorder: bool,
    data: bool,
}

/// `who` and `track` are numbers that wrap around what there was, gone things included.
#[derive(Clone, Debug)]
enum Step {
    Join {
        name: usize,
        grant: Grant,
        auto_subscribe: bool,
    },
    Joined(usize),
    Leave(usize),
    Announce {
        who: usize,
        source: usize,
    },
    Publish(usize),
    /// By somebody, who need not be its publisher.
    Unpublish {
        who: usize,
        track: usize,
    },
    Mute {
        who: usize,
        track: usize,
        muted: bool,
    },
    Subscribe {
        who: usize,
        track: usize,
        subscribe: bool,
    },
    Policy {
        who: usize,
        of: Option<usize>,
        track: Option<usize>,
    },
    Grant {
        who: usize,
        grant: Grant,
    },
    AnnounceData(usize),
    EndData {
        who: usize,
        track: usize,
    },
    SubscribeData {
        who: usize,
        track: usize,
        subscribe: bool,
    },
    Wait(u64),
    Close,
}

fn grants() -> impl Strategy<Value = Grant> {
    let source = prop_oneof![3 => Just(None), 1 => (0..3usize).prop_map(Some)];
    let rarely = || proptest::bool::weighted(0.15);
    let mostly = || proptest::bool::weighted(0.8);
    let all = (mostly(), mostly(), source, rarely(), rarely(), mostly());
    all.prop_map(|(subscribe, publish, source, hidden, recorder, data)| Grant {
        subscribe,
        publish,
        source,
        hidden,
        recorder,
        data,
    })
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    use proptest::option::of;
    let (who, track) = (|| 0..8usize, || 0..8usize);
    let step = prop_oneof![
        4 => (0..NAMES.len(), grants(), any::<bool>())
            .prop_map(|(name, grant, auto_subscribe)| Step::Join { name, grant, auto_subscribe }),
        4 => who().prop_map(Step::Joined),
        1 => who().prop_map(Step::Leave),
        5 => (who(), 0..3usize).prop_map(|(who, source)| Step::Announce { who, source }),
        5 => track().prop_map(Step::Publish),
        2 => (who(), track()).prop_map(|(who, track)| Step::Unpublish { who, track }),
        1 => (who(), track(), any::<bool>())
            .prop_map(|(who, track, muted)| Step::Mute { who, track, muted }),
        5 => (who(), track(), any::<bool>())
            .prop_map(|(who, track, subscribe)| Step::Subscribe { who, track, subscribe }),
        3 => (who(), of(who()), of(track()))
            .prop_map(|(who, of, track)| Step::Policy { who, of, track }),
        3 => (who(), grants()).prop_map(|(who, grant)| Step::Grant { who, grant }),
        3 => who().prop_map(Step::AnnounceData),
        1 => (who(), track()).prop_map(|(who, track)| Step::EndData { who, track }),
        6 => (who(), 0..3usize, proptest::bool::weighted(0.8))
            .prop_map(|(who, track, subscribe)| Step::SubscribeData { who, track, subscribe }),
        2 => (0..600u64).prop_map(Step::Wait),
    ];
    let close = of(Just(Step::Close));
    (proptest::collection::vec(step, 0..60), close).prop_map(|(mut steps, close)| {
        steps.extend(close);
        steps
    })
}

fn permissions(grant: Grant) -> Permissions {
    Permissions {
        can_subscribe: grant.subscribe,
        can_publish: grant.publish,
        can_publish_sources: grant.source.map(|source| SOURCES[source]).into_iter().collect(),
        hidden: grant.hidden,
        recorder: grant.recorder,
        can_publish_data: grant.data,
        ..Permissions::default()
    }
}

/// Whom a publisher lets have what: everybody everything, nobody, or one person one or all.
#[derive(Clone)]
enum Policy {
    Everybody,
    Nobody,
    One(usize, Option<TrackSid>),
}

struct Person {
    name: usize,
    grant: Grant,
    auto_subscribe: bool,
    joined: bool,
    policy: Policy,
    /// Its last word on each track that it has spoken of.
    wants: BTreeMap<TrackSid, bool>,
    /// The data tracks that it has asked for.
    wants_data: BTreeSet<TrackSid>,
}

struct Media {
    publisher: ParticipantSid,
    source: usize,
    published: bool,
}

/// The reference: facts, and rules that look at all of them each time.
#[derive(Default)]
struct Model {
    people: BTreeMap<ParticipantSid, Person>,
    tracks: BTreeMap<TrackSid, Media>,
    /// Data tracks, with their publisher and its handle.
    data: BTreeMap<TrackSid, (ParticipantSid, u16)>,
    closed: bool,
}

impl Model {
    fn counted(&self) -> usize {
        self.people.values().filter(|person| !person.grant.recorder).count()
    }

    fn may_publish(&self, sid: &ParticipantSid, source: usize) -> bool {
        let grant = self.people.get(sid).map(|person| person.grant);
        grant.is_some_and(|g| g.publish && g.source.is_none_or(|only| only == source))
    }

    /// Whether somebody is sent a track: the one rule that every order of events has to obey.
    fn sends(&self, subscriber: &ParticipantSid, track: &TrackSid) -> bool {
        let (person, media) = (&self.people[subscriber], &self.tracks[track]);
        let wants = person.wants.get(track).copied().unwrap_or(person.auto_subscribe);
        let ready = person.joined && person.grant.subscribe && media.published;
        let allowed = self.permits(&media.publisher, subscriber, track);
        allowed && wants && ready && media.publisher != *subscriber
    }

    fn permits(
        &self,
        publisher: &ParticipantSid,
        subscriber: &ParticipantSid,
        track: &TrackSid,
    ) -> bool {
        let person = &self.people[subscriber];
        let permitted = match &self.people[publisher].policy {
            Policy::Everybody => true,
            Policy::Nobody => false,
            Policy::One(name, only) => {
                *name == person.name && only.as_ref().is_none_or(|only| only == track)
            }
        };
        permitted || person.grant.recorder
    }

    /// The same of data.
    fn sends_data(&self, subscriber: &ParticipantSid, track: &TrackSid) -> bool {
        let (person, (publisher, _)) = (&self.people[subscriber], &self.data[track]);
        person.wants_data.contains(track)
            && person.joined
            && person.grant.subscribe
            && self.permits(publisher, subscriber, track)
    }

    fn keep_data(&mut self, keep: impl Fn(&Self, &TrackSid, &ParticipantSid) -> bool) {
        let gone = self.data.iter().filter(|(track, (publisher, _))| !keep(self, track, publisher));
        let gone: BTreeSet<_> = gone.map(|(track, _)| track.clone()).collect();
        self.data.retain(|track, _| !gone.contains(track));
        for person in self.people.values_mut() {
            person.wants_data.retain(|track| !gone.contains(track));
        }
    }

    fn keep_tracks(&mut self, keep: impl Fn(&Self, &TrackSid, &Media) -> bool) {
        let gone = self.tracks.iter().filter(|(track, media)| !keep(self, track, media));
        let gone: BTreeSet<_> = gone.map(|(track, _)| track.clone()).collect();
        self.tracks.retain(|track, _| !gone.contains(track));
        for person in self.people.values_mut() {
            person.wants.retain(|track, _| !gone.contains(track));
        }
    }

    fn remove(&mut self, sid: &ParticipantSid) {
        self.people.remove(sid);
        self.keep_tracks(|_, _, media| media.publisher != *sid);
        self.keep_data(|_, _, publisher| publisher != sid);
    }
}

/// The room, its reference, and what the events have said so far.
struct Run {
    room: Room,
    model: Model,
    now: Now,
    sids: Vec<ParticipantSid>,
    tracks: Vec<TrackSid>,
    data: Vec<TrackSid>,
    sent: BTreeSet<(ParticipantSid, TrackSid)>,
    sent_data: BTreeSet<(ParticipantSid, TrackSid)>,
}

impl Run {
    fn new() -> Self {
        let now = Now { instant: Instant::now(), unix: Duration::from_secs(1_800_000_000) };
        let settings = RoomSettings {
            max_participants: MAX_PARTICIPANTS as u32,
            departure_timeout: Duration::from_secs(3_600),
            empty_timeout: Duration::from_secs(3_600),
            ..RoomSettings::default()
        };
        Self {
            room: Room::new("room".into(), "RM_1".into(), settings, now),
            model: Model::default(),
            now,
            sids: vec!["PA_nobody".into()],
            tracks: vec!["TR_none".into()],
            data: vec!["DTR_none".into()],
            sent: BTreeSet::new(),
            sent_data: BTreeSet::new(),
        }
    }

    fn sid(&self, who: usize) -> ParticipantSid {
        self.sids[self.sids.len() - 1 - who % self.sids.len()].clone()
    }

    fn track(&self, track: usize) -> TrackSid {
        self.tracks[self.tracks.len() - 1 - track % self.tracks.len()].clone()
    }

    fn data_track(&self, track: usize) -> TrackSid {
        self.data[self.data.len() - 1 - track % self.data.len()].clone()
    }

    fn step(&mut self, step: Step) {
        let hidden_before = self.hidden();
        match step {
            Step::Join { name, grant, auto_subscribe } => self.join(name, grant, auto_subscribe),
            Step::Joined(who) => {
                let sid = self.sid(who);
                self.expect(Command::SetJoined(sid.clone()), &sid);
                if let Some(person) = self.model.people.get_mut(&sid) {
                    person.joined = true;
                }
            }
            Step::Leave(who) => {
                let sid = self.sid(who);
                self.expect(Command::Leave(sid.clone(), DisconnectReason::ClientInitiated), &sid);
                self.model.remove(&sid);
            }
            Step::Announce { who, source } => self.announce(who, source),
            Step::Publish(track) => {
                let track = self.track(track);
                let Some(media) = self.model.tracks.get_mut(&track) else { return };
                media.published = true;
                let participant = media.publisher.clone();
                self.apply(Command::Publish { participant, track }).unwrap();
            }
            Step::Unpublish { who, track } => {
                let (participant, track) = (self.sid(who), self.track(track));
                let own = self.is_of(&participant, &track);
                let command = Command::Unpublish { participant, track: track.clone() };
                assert_eq!(self.apply(command).is_ok(), own);
                self.model.keep_tracks(|_, known, _| !own || *known != track);
            }
            Step::Mute { who, track, muted } => {
                let (participant, track) = (self.sid(who), self.track(track));
                let own = self.is_of(&participant, &track);
                let command = Command::SetMuted { participant, track, muted };
                assert_eq!(self.apply(command).is_ok(), own);
            }
            Step::Subscribe { who, track, subscribe } => self.subscribe(who, track, subscribe),
            Step::Policy { who, of, track } => self.set_policy(who, of, track),
            Step::Grant { who, grant } => self.grant(who, grant),
            Step::AnnounceData(who) => self.announce_data(who),
            Step::EndData { who, track } => {
                let (participant, track) = (self.sid(who), self.data_track(track));
                let own = self.model.data.get(&track).filter(|(of, _)| *of == participant);
                let handle = own.map_or(u16::MAX, |(_, handle)| *handle);
                let ended = self.apply(Command::UnpublishDataTrack { participant, handle });
                assert_eq!(ended.is_ok(), handle != u16::MAX);
                self.model.keep_data(|_, known, _| ended.is_err() || *known != track);
            }
            Step::SubscribeData { who, track, subscribe } => {
                let (participant, track) = (self.sid(who), self.data_track(track));
                // Nobody can ask before it has joined.
                let joined = self.model.people.get(&participant).is_some_and(|p| p.joined);
                if !joined {
                    return;
                }
                let known = self.model.data.get(&track).is_some_and(|(of, _)| *of != participant);
                let command =
                    Command::SubscribeData { participant: participant.clone(), track, subscribe };
                let Command::SubscribeData { track, .. } = command.clone() else { return };
                self.expect(command, &participant);
                if let Some(person) = self.model.people.get_mut(&participant) {
                    match known && subscribe {
                        true => drop(person.wants_data.insert(track)),
                        false => drop(person.wants_data.remove(&track)),
                    }
                }
            }
            Step::Wait(ms) => {
                self.now.instant += Duration::from_millis(ms);
                self.now.unix += Duration::from_millis(ms);
                self.room.handle_timeout(self.now);
            }
            Step::Close => {
                self.apply(Command::Close(DisconnectReason::RoomDeleted)).unwrap();
                self.model = Model { closed: true, ..Model::default() };
            }
        }
        self.take_events(&hidden_before);
        self.compare();
    }

    fn apply(&mut self, command: Command) -> Result<(), Refusal> {
        self.room.apply(self.now, command)
    }

    /// A command that succeeds exactly when this participant is there.
    fn expect(&mut self, command: Command, sid: &ParticipantSid) {
        let there = self.model.people.contains_key(sid);
        let result = self.apply(command.clone());
        assert_eq!(result.is_ok(), there, "{command:?}: {result:?}");
    }

    fn is_of(&self, sid: &ParticipantSid, track: &TrackSid) -> bool {
        self.model.tracks.get(track).is_some_and(|media| media.publisher == *sid)
    }

    fn join(&mut self, name: usize, grant: Grant, auto_subscribe: bool) {
        let sid = ParticipantSid::from(format!("PA_{}", self.sids.len()));
        let new = NewParticipant {
            sid: sid.clone(),
            identity: NAMES[name].into(),
            name: String::new(),
            metadata: String::new(),
            attributes: BTreeMap::new(),
            permissions: permissions(grant),
            kind: Default::default(),
            kind_details: Vec::new(),
            auto_subscribe,
            auto_subscribe_data: false,
            client_protocol: 2,
            capabilities: Vec::new(),
        };
        let old = self.model.people.iter().find(|(_, person)| person.name == name);
        let old = old.map(|(sid, person)| (sid.clone(), !person.grant.recorder));
        let freed = old.as_ref().is_some_and(|(_, counts)| *counts);
        let fits = grant.recorder || self.model.counted() - usize::from(freed) < MAX_PARTICIPANTS;
        let result = self.apply(Command::Join(Box::new(new)));
        assert_eq!(result.is_ok(), fits, "{result:?}");
        if !fits {
            return;
        }
        if let Some((old, _)) = old {
            self.model.remove(&old);
        }
        self.sids.push(sid.clone());
        let person = Person {
            name,
            grant,
            auto_subscribe,
            joined: false,
            policy: Policy::Everybody,
            wants: BTreeMap::new(),
            wants_data: BTreeSet::new(),
        };
        self.model.people.insert(sid, person);
    }

    fn announce(&mut self, who: usize, source: usize) {
        let (participant, sid) = (self.sid(who), format!("TR_{}", self.tracks.len()));
        let new = Box::new(NewTrack {
            cid: format!("cid {sid}"),
            kind: Some(TrackKind::Video),
            source: SOURCES[source],
            ..NewTrack::default()
        });
        let may = self.model.may_publish(&participant, source);
        let (publisher, sid) = (participant.clone(), TrackSid::from(sid));
        let result = self.apply(Command::AddTrack { participant, sid: sid.clone(), new });
        if matches!(result, Err(Refusal::LimitExceeded { .. })) {
            return;
        }
        assert_eq!(result.is_ok(), may, "{result:?}");
        if may {
            self.tracks.push(sid.clone());
            self.model.tracks.insert(sid, Media { publisher, source, published: false });
        }
    }

    fn announce_data(&mut self, who: usize) {
        let participant = self.sid(who);
        let handle = u16::try_from(self.data.len()).unwrap();
        let sid = TrackSid::from(format!("DTR_{handle}"));
        let track =
            DataTrack { sid: sid.clone(), handle, name: sid.to_string(), announcement: Vec::new() };
        let may = self.model.people.get(&participant).is_some_and(|person| person.grant.data);
        let publisher = participant.clone();
        let result = self.apply(Command::PublishDataTrack { participant, track });
        assert_eq!(result.is_ok(), may, "{result:?}");
        if may {
            self.data.push(sid.clone());
            self.model.data.insert(sid, (publisher, handle));
        }
    }

    fn subscribe(&mut self, who: usize, track: usize, subscribe: bool) {
        let (sid, track) = (self.sid(who), self.track(track));
        let (participant, tracks) = (sid.clone(), vec![track.clone()]);
        self.expect(Command::Subscribe { participant, tracks, subscribe }, &sid);
        let known = self.model.tracks.get(&track).is_some_and(|media| media.publisher != sid);
        if let (true, Some(person)) = (known, self.model.people.get_mut(&sid)) {
            person.wants.insert(track, subscribe);
        }
    }

    fn set_policy(&mut self, who: usize, of: Option<usize>, track: Option<usize>) {
        let (sid, track) = (self.sid(who), track.map(|track| self.track(track)));
        let reference = match (of, &track) {
            (None, Some(_)) => Policy::Everybody,
            (None, None) => Policy::Nobody,
            (Some(of), _) => Policy::One(of % NAMES.len(), track),
        };
        let permission = match &reference {
            Policy::One(name, only) => Some(TrackPermission {
                identity: Some(NAMES[*name].into()),
                all_tracks: only.is_none(),
                tracks: only.clone().into_iter().collect(),
                ..TrackPermission::default()
            }),
            _ => None,
        };
        let policy = SubscriptionPolicy {
            all_participants: matches!(reference, Policy::Everybody),
            permissions: permission.into_iter().collect(),
        };
        let participant = sid.clone();
        self.expect(Command::SetSubscriptionPolicy { participant, policy }, &sid);
        if let Some(person) = self.model.people.get_mut(&sid) {
            person.policy = reference;
        }
    }

    fn grant(&mut self, who: usize, grant: Grant) {
        let sid = self.sid(who);
        let permissions = Some(permissions(grant));
        let change = Box::new(ParticipantChange { permissions, ..Default::default() });
        let participant = sid.clone();
        self.expect(Command::UpdateParticipant { participant, change }, &sid);
        if let Some(person) = self.model.people.get_mut(&sid) {
            person.grant = grant;
        }
        self.model.keep_tracks(|model, _, media| model.may_publish(&media.publisher, media.source));
        self.model.keep_data(|model, _, publisher| model.people[publisher].grant.data);
    }

    fn hidden(&self) -> BTreeSet<ParticipantSid> {
        let hidden = self.room.participants().filter(|p| p.info.permissions.hidden);
        hidden.map(|participant| participant.info.sid.clone()).collect()
    }

    /// What is sent by the events' account; nobody hears of who was and is hidden.
    fn take_events(&mut self, hidden_before: &BTreeSet<ParticipantSid>) {
        // Who has left is as hidden as it was.
        let is_seen = |sid: &ParticipantSid| {
            self.room.participants().any(|p| p.info.sid == *sid && !p.info.permissions.hidden)
        };
        let hidden: BTreeSet<_> =
            hidden_before.iter().filter(|sid| !is_seen(sid)).cloned().collect();
        while let Some(event) = self.room.poll_event() {
            match event {
                Event::Subscribed { subscriber, track, .. } => {
                    assert!(self.sent.insert((subscriber, track)), "subscribed twice");
                }
                Event::Unsubscribed { subscriber, track } => {
                    assert!(self.sent.remove(&(subscriber, track)), "was not subscribed");
                }
                Event::DataSubscribed { subscriber, track, .. } => {
                    assert!(self.sent_data.insert((subscriber, track)), "subscribed twice");
                }
                Event::DataUnsubscribed { subscriber, track } => {
                    assert!(self.sent_data.remove(&(subscriber, track)), "was not subscribed");
                }
                Event::Left { participant, .. } => {
                    self.sent.retain(|(subscriber, _)| *subscriber != participant);
                    self.sent_data.retain(|(subscriber, _)| *subscriber != participant);
                }
                Event::Updated { participants, audience } => {
                    for sid in participants.iter().filter(|sid| hidden.contains(*sid)) {
                        assert_eq!(audience, Audience::Only(sid.clone()), "{sid} is hidden");
                    }
                }
                _ => {}
            }
        }
    }

    fn compare(&self) {
        assert_eq!(self.room.is_closed(), self.model.closed);
        let people: Vec<_> = self.room.participants().map(|p| p.info.sid.clone()).collect();
        assert_eq!(people, self.model.people.keys().cloned().collect::<Vec<_>>());
        assert_eq!(self.room.num_participants() as usize, self.model.counted());
        for (sid, person) in &self.model.people {
            let participant = self.room.participant(sid).unwrap();
            assert_eq!(participant.state >= State::Joined, person.joined);
            let tracks: BTreeSet<_> = participant.tracks.iter().map(|t| t.sid.clone()).collect();
            let own = self.model.tracks.iter().filter(|(_, media)| media.publisher == *sid);
            assert_eq!(tracks, own.map(|(track, _)| track.clone()).collect());
            let data: BTreeSet<_> = participant.data_tracks.iter().map(|t| t.sid.clone()).collect();
            let own = self.model.data.iter().filter(|(_, (publisher, _))| publisher == sid);
            assert_eq!(data, own.map(|(track, _)| track.clone()).collect(), "data of {sid}");
        }
        let mut sent = BTreeSet::new();
        for subscriber in self.model.people.keys() {
            for track in self.model.tracks.keys() {
                let sends = self.model.sends(subscriber, track);
                let is_sent = self.room.is_subscribed(subscriber, track);
                assert_eq!(is_sent, sends, "{track} to {subscriber}");
                if sends {
                    sent.insert((subscriber.clone(), track.clone()));
                }
            }
            let heard = self.room.data_recipients(Some(subscriber), &[], &[]);
            assert!(heard.iter().all(|sid| sid != subscriber && self.model.people[sid].joined));
        }
        assert_eq!(sent, self.sent, "what the events said");
        let mut sent = BTreeSet::new();
        for (track, (publisher, handle)) in &self.model.data {
            let known = self.room.data_track_subscribers(publisher, *handle).unwrap();
            let subscribers: BTreeSet<_> = known.1.cloned().collect();
            let people = self.model.people.keys();
            let expected = people.filter(|who| self.model.sends_data(who, track));
            assert_eq!(subscribers, expected.cloned().collect(), "{track}");
            sent.extend(subscribers.into_iter().map(|who| (who, track.clone())));
        }
        assert_eq!(sent, self.sent_data, "what the events said of data");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_048, ..ProptestConfig::default() })]

    #[test]
    fn a_room_obeys_its_reference(steps in steps()) {
        let mut run = Run::new();
        for step in steps {
            run.step(step);
        }
        if run.model.closed {
            let late = run.room.apply(run.now, Command::SetMetadata("late".to_owned()));
            prop_assert_eq!(late, Err(Refusal::Closed));
        }
    }
}
