//! Random requests of several sessions and calls of the API: whatever their order, nobody is
//! subscribed beyond permissions, what clients were told adds up to what the node holds, and
//! when everybody has gone nothing is left.
#![allow(clippy::unwrap_used)]

mod world;

use livekit_protocol as proto;
use parlor_node::{ParticipantSnapshot, RoomSnapshot, api::ApiRequest, io::Input, io::SessionId};
use parlor_sfu::command::{MediaCommand, MediaEvent};
use parlor_signal::token::VideoGrant;
use proptest::prelude::*;
use prost::Message as _;
use proto::{signal_request::Message as Request, signal_response::Message};
use std::{collections::BTreeMap, time::Duration};
use world::{Options, World, offer_with};

const NAMES: [&str; 3] = ["alice", "bob", "carol"];
const ROOMS: [&str; 2] = ["one", "two"];

#[derive(Clone, Debug)]
enum Step {
    Join { room: usize, name: usize, pair: bool, subscribe: bool, hidden: bool },
    Resume { room: usize, name: usize },
    Active(usize),
    Publish(usize),
    Unpublish(usize),
    Mute { who: usize, muted: bool },
    Subscribe { who: usize, subscribe: bool },
    Policy { who: usize, all: bool },
    Permission { room: usize, name: usize, subscribe: bool, publish: bool, hidden: bool },
    Remove { room: usize, name: usize },
    Forward { room: usize, name: usize },
    Move { room: usize, name: usize },
    Say(usize),
    Leave(usize),
    Drop(usize),
    Junk(usize),
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (who, name, room) = (|| 0..6usize, || 0..NAMES.len(), || 0..ROOMS.len());
    let (yes, mostly, rarely) =
        (any::<bool>, || proptest::bool::weighted(0.8), || proptest::bool::weighted(0.2));
    let step = prop_oneof![
        5 => (room(), name(), yes(), mostly(), rarely()).prop_map(
            |(room, name, pair, subscribe, hidden)| Step::Join { room, name, pair, subscribe, hidden }
        ),
        2 => (room(), name()).prop_map(|(room, name)| Step::Resume { room, name }),
        4 => who().prop_map(Step::Active),
        5 => who().prop_map(Step::Publish),
        2 => who().prop_map(Step::Unpublish),
        1 => (who(), yes()).prop_map(|(who, muted)| Step::Mute { who, muted }),
        3 => (who(), yes()).prop_map(|(who, subscribe)| Step::Subscribe { who, subscribe }),
        2 => (who(), yes()).prop_map(|(who, all)| Step::Policy { who, all }),
        3 => (room(), name(), mostly(), mostly(), rarely()).prop_map(
            |(room, name, subscribe, publish, hidden)| {
                Step::Permission { room, name, subscribe, publish, hidden }
            }
        ),
        1 => (room(), name()).prop_map(|(room, name)| Step::Remove { room, name }),
        2 => (room(), name()).prop_map(|(room, name)| Step::Forward { room, name }),
        2 => (room(), name()).prop_map(|(room, name)| Step::Move { room, name }),
        5 => who().prop_map(Step::Say),
        1 => who().prop_map(Step::Leave),
        2 => who().prop_map(Step::Drop),
        1 => who().prop_map(Step::Junk),
        3 => (0..3_000u64).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..50)
}

struct Run {
    world: World,
    /// Sessions with their room and name, oldest first.
    sessions: Vec<(SessionId, usize, usize)>,
    offers: u32,
}

impl Run {
    fn session(&self, who: usize) -> Option<(SessionId, usize, usize)> {
        let open: Vec<_> =
            self.sessions.iter().filter(|(session, ..)| !self.world.is_closed(*session)).collect();
        (!open.is_empty()).then(|| *open[open.len() - 1 - who % open.len()])
    }

    fn request(&mut self, who: usize, request: Request) {
        if let Some((session, ..)) = self.session(who) {
            self.world.request(session, request);
        }
    }

    fn call(&mut self, room: usize, request: ApiRequest) {
        let (room, destination_room) = (ROOMS[room].to_owned(), ROOMS[1 - room].to_owned());
        let grant = VideoGrant { room_admin: true, room, destination_room, ..Default::default() };
        let _ = self.world.call(Some(grant), request);
    }

    fn offer(&mut self, who: usize, cids: &[&str]) {
        self.offers += 1;
        self.request(who, Request::Offer(offer_with(self.offers, cids)));
    }

    fn tracks(&self, room: usize) -> Vec<String> {
        let rooms = self.world.node.snapshot();
        let here = rooms.into_iter().filter(|known| known.room.name == ROOMS[room]);
        here.flat_map(|known| known.participants)
            .flat_map(|participant| participant.info.tracks)
            .map(|track| track.sid)
            .collect()
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Join { room, name, pair, subscribe, hidden } => {
                let grant = VideoGrant {
                    room_join: true,
                    can_subscribe: Some(subscribe),
                    hidden,
                    ..Default::default()
                };
                let options = Options { pair, grant, ..Default::default() };
                let session = self.world.join(ROOMS[room], NAMES[name], options);
                self.sessions.push((session, room, name));
            }
            Step::Resume { room, name } => {
                let session = self.world.resume(ROOMS[room], NAMES[name], Options::default());
                self.sessions.push((session, room, name));
            }
            Step::Active(who) => {
                if let Some((_, _, name)) = self.session(who) {
                    let peer = self.world.peer_of(NAMES[name]);
                    self.world.media(MediaEvent::PeerConnected { peer });
                }
            }
            Step::Publish(who) => {
                let add = proto::AddTrackRequest {
                    cid: "mic".into(),
                    r#type: proto::TrackType::Audio.into(),
                    source: proto::TrackSource::Microphone.into(),
                    ..Default::default()
                };
                self.request(who, Request::AddTrack(add));
                self.offer(who, &["mic"]);
            }
            Step::Unpublish(who) => self.offer(who, &[]),
            Step::Mute { who, muted } => {
                let Some((_, room, _)) = self.session(who) else { return };
                // Others' tracks too, which has to be refused.
                for sid in self.tracks(room) {
                    self.request(who, Request::Mute(proto::MuteTrackRequest { sid, muted }));
                }
            }
            Step::Subscribe { who, subscribe } => {
                let Some((_, room, _)) = self.session(who) else { return };
                let track_sids = [self.tracks(0), self.tracks(1), self.tracks(room)].concat();
                let update =
                    proto::UpdateSubscription { track_sids, subscribe, ..Default::default() };
                self.request(who, Request::Subscription(update));
            }
            Step::Policy { who, all } => {
                let permission =
                    proto::SubscriptionPermission { all_participants: all, ..Default::default() };
                self.request(who, Request::SubscriptionPermission(permission));
            }
            Step::Permission { room, name, subscribe, publish, hidden } => {
                let permission = proto::ParticipantPermission {
                    can_subscribe: subscribe,
                    can_publish: publish,
                    can_publish_data: publish,
                    hidden,
                    ..Default::default()
                };
                let update = proto::UpdateParticipantRequest {
                    room: ROOMS[room].into(),
                    identity: NAMES[name].into(),
                    permission: Some(permission),
                    ..Default::default()
                };
                self.call(room, ApiRequest::UpdateParticipant(update));
            }
            Step::Remove { room, name } => {
                let (of, identity) = (ROOMS[room].to_owned(), NAMES[name].to_owned());
                let gone =
                    proto::RoomParticipantIdentity { room: of, identity, ..Default::default() };
                self.call(room, ApiRequest::RemoveParticipant(gone));
            }
            Step::Forward { room, name } => {
                let forward = proto::ForwardParticipantRequest {
                    room: ROOMS[room].into(),
                    identity: NAMES[name].into(),
                    destination_room: ROOMS[1 - room].into(),
                };
                self.call(room, ApiRequest::ForwardParticipant(forward));
            }
            Step::Move { room, name } => self.move_to_the_other(room, name),
            Step::Say(who) => self.say(who),
            Step::Leave(who) => self.request(who, Request::Leave(Default::default())),
            Step::Drop(who) => {
                if let Some((session, ..)) = self.session(who) {
                    self.world.handle(Input::Closed { session });
                    self.sessions.retain(|(other, ..)| *other != session);
                }
            }
            Step::Junk(who) => {
                let offer =
                    proto::SessionDescription { r#type: "offer".into(), ..Default::default() };
                self.request(who, Request::Offer(offer));
            }
            Step::Pass(ms) => self.world.pass(Duration::from_millis(ms)),
        }
    }

    fn move_to_the_other(&mut self, room: usize, name: usize) {
        let moved = proto::MoveParticipantRequest {
            room: ROOMS[room].into(),
            identity: NAMES[name].into(),
            destination_room: ROOMS[1 - room].into(),
        };
        self.call(room, ApiRequest::MoveParticipant(moved));
        for (session, of, _) in self.sessions.iter_mut().filter(|(.., known)| *known == name) {
            let last = self.world.said(*session).iter().rev().find_map(|message| match message {
                Message::Join(join) => join.room.clone(),
                Message::RoomMoved(moved) => moved.room.clone(),
                _ => None,
            });
            if let Some(last) = last {
                *of = ROOMS.iter().position(|known| *known == last.name).unwrap();
            }
        }
    }

    /// Says something, which reaches others only of whom may.
    fn say(&mut self, who: usize) {
        let Some((_, _, name)) = self.session(who) else { return };
        let peer = self.world.peer_of(NAMES[name]);
        let user = proto::UserPacket { payload: b"hi".to_vec(), ..Default::default() };
        let value = Some(proto::data_packet::Value::User(user));
        let packet = proto::DataPacket { value, ..Default::default() };
        let channel = parlor_model::DataChannel::Reliable;
        for rooms in self.world.node.snapshot() {
            for peer in rooms.participants.iter().flat_map(|participant| &participant.peers) {
                self.world.media(MediaEvent::ChannelOpen { peer: *peer, channel });
            }
        }
        self.world.commands.clear();
        let data = packet.encode_to_vec().into();
        self.world.media(MediaEvent::Data { peer, channel, data });
        let is_sent = self.world.commands.iter().any(|command| {
            matches!(command, MediaCommand::SendData { data, .. }
                if matches!(proto::DataPacket::decode(data.clone()).unwrap().value,
                    Some(proto::data_packet::Value::User(_))))
        });
        let rooms = self.world.node.snapshot();
        let mut everybody = rooms.iter().flat_map(|room| &room.participants);
        let sender = everybody.find(|participant| participant.peers.contains(&peer));
        let may = sender.is_some_and(|p| p.info.permission.as_ref().unwrap().can_publish_data);
        assert!(may || !is_sent, "{sender:?}");
    }

    /// Whoever is seen here and is elsewhere shows what it shows there.
    fn check_likeness(&self, rooms: &[RoomSnapshot], here: usize, likeness: &ParticipantSnapshot) {
        let other = rooms.iter().find(|room| room.room.name != rooms[here].room.name).unwrap();
        let source = other
            .participants
            .iter()
            .find(|participant| participant.info.identity == likeness.info.identity);
        let source = &source.expect("its source is there").info;
        assert_eq!(tracks(&likeness.info), tracks(source));
        assert_eq!(likeness.info.permission, source.permission);
        assert!(likeness.subscriptions.is_empty());
    }

    /// Nobody is subscribed to what is not there, not its own, or not allowed.
    fn check(&self) {
        let rooms = self.world.node.snapshot();
        let counts = self.world.node.counts();
        assert_eq!(counts.rooms, rooms.len());
        let participants = || rooms.iter().flat_map(|room| &room.participants);
        let is_likeness = |p: &&ParticipantSnapshot| {
            p.info.kind_details.contains(&proto::participant_info::KindDetail::Forwarded.into())
        };
        assert_eq!(counts.participants, participants().filter(|p| !is_likeness(p)).count());
        for (here, room) in rooms.iter().enumerate() {
            for likeness in room.participants.iter().filter(is_likeness) {
                self.check_likeness(&rooms, here, likeness);
            }
        }
        assert_eq!(counts.sessions, participants().filter(|p| p.has_socket).count());
        for room in &rooms {
            for participant in &room.participants {
                let permission = participant.info.permission.as_ref().unwrap();
                assert!(permission.can_publish || participant.info.tracks.is_empty());
                assert!(permission.can_subscribe || participant.subscriptions.is_empty());
                for (track, _) in &participant.subscriptions {
                    let of = room.participants.iter().find(|other| {
                        other.info.tracks.iter().any(|known| known.sid == track.as_str())
                    });
                    let of = of.expect("the track is there");
                    assert_ne!(of.info.sid, participant.info.sid);
                    assert!(of.info.permission.as_ref().unwrap().can_publish);
                }
            }
        }
    }

    /// Once everything is told, each client knows of everybody that it may see, and of no one else.
    fn check_views(&mut self) {
        self.world.pass(Duration::from_secs(1));
        let rooms = self.world.node.snapshot();
        for (session, room, name) in &self.sessions {
            let Some(known) = rooms.iter().find(|known| known.room.name == ROOMS[*room]) else {
                continue;
            };
            let own = known.participants.iter().find(|p| p.info.identity == NAMES[*name]);
            let joined = matches!(
                self.world.said(*session).first(),
                Some(Message::Join(join)) if own.is_some_and(|own| {
                    join.participant.as_ref().is_some_and(|me| me.sid == own.info.sid)
                })
            );
            if self.world.is_closed(*session) || !joined || !own.is_some_and(|p| p.has_socket) {
                continue;
            }
            let view = view(self.world.said(*session), NAMES[*name]);
            let expected: BTreeMap<_, _> = known
                .participants
                .iter()
                .filter(|p| p.info.identity != NAMES[*name])
                .filter(|p| !p.info.permission.as_ref().unwrap().hidden)
                .map(|p| (p.info.identity.clone(), tracks(&p.info)))
                .collect();
            for (identity, tracks) in &expected {
                assert_eq!(
                    view.get(identity),
                    Some(tracks),
                    "{identity} as {} knows it",
                    NAMES[*name]
                );
            }
        }
    }
}

fn tracks(info: &proto::ParticipantInfo) -> Vec<String> {
    info.tracks.iter().map(|track| track.sid.clone()).collect()
}

/// Who is there, with which tracks, by what a client was told.
fn view(said: &[Message], own: &str) -> BTreeMap<String, Vec<String>> {
    let mut view = BTreeMap::new();
    let mut sids = BTreeMap::new();
    for message in said {
        let infos = match message {
            Message::Join(join) => &join.other_participants,
            Message::Update(update) => &update.participants,
            _ => continue,
        };
        for info in infos.iter().filter(|info| info.identity != own) {
            if info.state() != proto::participant_info::State::Disconnected {
                view.insert(info.identity.clone(), tracks(info));
                sids.insert(info.identity.clone(), info.sid.clone());
            } else if sids.get(&info.identity) == Some(&info.sid) {
                view.remove(&info.identity);
            }
        }
    }
    view
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 384, ..ProptestConfig::default() })]

    #[test]
    fn no_order_of_events_exceeds_permissions(steps in steps()) {
        let mut run = Run { world: World::new(), sessions: Vec::new(), offers: 10 };
        for step in steps {
            run.step(step);
            run.check();
        }
        run.check_views();
        for (session, ..) in std::mem::take(&mut run.sessions) {
            if !run.world.is_closed(session) {
                run.world.request(session, Request::Leave(Default::default()));
                run.world.handle(Input::Closed { session });
            }
        }
        // Those whose socket is gone end with their connection, which is a matter of the media.
        for room in run.world.node.snapshot() {
            let delete = proto::DeleteRoomRequest { room: room.room.name };
            let grant = VideoGrant { room_create: true, ..Default::default() };
            run.world.call(Some(grant), ApiRequest::DeleteRoom(delete)).unwrap();
        }
        let left = run.world.node.counts();
        prop_assert_eq!(left, parlor_node::Counts::default());
        prop_assert_eq!(run.world.node.poll_timeout(), None);
    }
}
