//! What outlives a [`Node`](parlor_node::Node): rooms and dispatches of the API, the catalog.
#![allow(clippy::unwrap_used)]

mod world;

use livekit_protocol as proto;
use parlor_node::{
    api::{ApiErrorCode, ApiRequest, ApiResponse, CatalogRequest, CatalogResponse},
    io::{Input, Kept, SessionId},
};
use parlor_signal::token::VideoGrant;
use proto::{server_message::Message as Told, worker_message::Message as Said};
use std::time::Duration;
use world::{Options, World};

fn grant() -> Option<VideoGrant> {
    Some(VideoGrant {
        room_create: true,
        room_list: true,
        room_admin: true,
        ingress_admin: true,
        room: "kept".into(),
        ..Default::default()
    })
}

fn ask(world: &mut World, request: ApiRequest) -> ApiResponse {
    world.call(grant(), request).unwrap()
}

fn create(world: &mut World, request: proto::CreateRoomRequest) -> proto::Room {
    let request = proto::CreateRoomRequest { name: "kept".into(), ..request };
    let answer = ask(world, ApiRequest::CreateRoom(request));
    let ApiResponse::Room(room) = answer else { panic!("{answer:?}") };
    room
}

fn rooms(world: &mut World) -> Vec<proto::Room> {
    match ask(world, ApiRequest::ListRooms(Default::default())) {
        ApiResponse::Rooms(listed) => listed.rooms,
        other => panic!("{other:?}"),
    }
}

fn dispatches(world: &mut World) -> Vec<proto::AgentDispatch> {
    let request = proto::ListAgentDispatchRequest { room: "kept".into(), ..Default::default() };
    match ask(world, ApiRequest::ListDispatch(request)) {
        ApiResponse::Dispatches(listed) => listed.agent_dispatches,
        other => panic!("{other:?}"),
    }
}

#[test]
fn rooms_of_the_api_are_there_again_as_they_were() {
    let mut world = World::new();
    let room = create(
        &mut world,
        proto::CreateRoomRequest {
            metadata: "first".into(),
            empty_timeout: 600,
            max_participants: 7,
            min_playout_delay: 100,
            sync_streams: true,
            tags: [("k".to_owned(), "v".to_owned())].into(),
            ..Default::default()
        },
    );
    let update =
        proto::UpdateRoomMetadataRequest { room: "kept".into(), metadata: "second".into() };
    ask(&mut world, ApiRequest::UpdateRoomMetadata(update));
    world.join("of a join", "alice", Options::default());
    world.pass(Duration::from_secs(30));
    let mut world = world.restarted();
    let again = rooms(&mut world);
    assert_eq!(again, [proto::Room { metadata: "second".into(), ..room.clone() }]);
    // Asked for again, it is the same one; and it is kept on.
    assert_eq!(create(&mut world, Default::default()).sid, room.sid);
    let mut world = world.restarted();
    assert_eq!(rooms(&mut world)[0].sid, room.sid);
    let delete = ApiRequest::DeleteRoom(proto::DeleteRoomRequest { room: "kept".into() });
    ask(&mut world, delete);
    assert!(world.kept.is_empty(), "{:?}", world.kept);
    assert!(rooms(&mut world.restarted()).is_empty());
}

#[test]
fn a_room_of_a_join_is_kept_once_the_api_changes_it() {
    let mut world = World::new();
    world.join_active("kept", "alice");
    assert!(world.kept.is_empty());
    let update = proto::UpdateRoomMetadataRequest { room: "kept".into(), metadata: "m".into() };
    ask(&mut world, ApiRequest::UpdateRoomMetadata(update));
    let mut world = world.restarted();
    assert_eq!(rooms(&mut world)[0].metadata, "m");
    assert_eq!(dispatches(&mut world).len(), 1);
}

#[test]
fn a_restored_room_ends_when_its_time_is_up_but_not_before_anybody_can_return() {
    let mut world = World::new();
    create(
        &mut world,
        proto::CreateRoomRequest {
            empty_timeout: 300,
            departure_timeout: 20,
            ..Default::default()
        },
    );
    world.pass(Duration::from_secs(200));
    let mut world = world.restarted();
    world.pass(Duration::from_secs(99));
    let mut world = world.restarted();
    // One second of its time is left, and nobody could have come back so soon.
    world.pass(Duration::from_secs(19));
    assert_eq!(rooms(&mut world).len(), 1);
    world.pass(Duration::from_secs(1));
    assert!(rooms(&mut world).is_empty() && world.kept.is_empty());
}

#[test]
fn the_end_of_the_server_is_not_that_of_its_rooms() {
    let mut world = World::new();
    create(&mut world, Default::default());
    world.handle(Input::Shutdown);
    assert_eq!(world.kept.len(), 2, "the room and its dispatch");
    assert_eq!(rooms(&mut world.restarted()).len(), 1);
}

fn worker(world: &mut World, session_says: Said) -> (SessionId, Vec<Told>) {
    let worker = world.worker();
    let register =
        proto::RegisterWorkerRequest { agent_name: "helper".into(), ..Default::default() };
    world.worker_says(worker, Said::Register(register));
    world.worker_heard(worker);
    world.worker_says(worker, session_says);
    let heard = world.worker_heard(worker);
    (worker, heard)
}

#[test]
fn dispatches_are_there_again_and_a_worker_that_returns_keeps_its_job() {
    let mut world = World::new();
    let call = proto::CreateAgentDispatchRequest {
        room: "kept".into(),
        agent_name: "helper".into(),
        metadata: "m".into(),
        attributes: [("k".to_owned(), "v".to_owned())].into(),
        ..Default::default()
    };
    ask(&mut world, ApiRequest::CreateDispatch(call));
    let (first, heard) = worker(&mut world, Said::UpdateWorker(Default::default()));
    assert!(heard.is_empty());
    let before = dispatches(&mut world);
    let job = before[1].state.as_ref().unwrap().jobs[0].id.clone();
    accept(&mut world, first, &job);

    let mut world = world.restarted();
    let again = dispatches(&mut world);
    let plain = |mut known: proto::AgentDispatch| {
        known.state.as_mut().unwrap().jobs.clear();
        known
    };
    let plain = |all: &[proto::AgentDispatch]| all.iter().cloned().map(plain).collect::<Vec<_>>();
    let sorted = |mut all: Vec<proto::AgentDispatch>| {
        all.sort_by(|a, b| a.agent_name.cmp(&b.agent_name));
        all
    };
    assert_eq!(sorted(plain(&again)), sorted(plain(&before)));
    let migrate = proto::MigrateJobRequest { job_ids: vec![job.clone()] };
    let (back, heard) = worker(&mut world, Said::MigrateJob(migrate));
    assert!(heard.is_empty(), "{heard:?}");
    world.pass(Duration::from_secs(60));
    assert!(world.worker_heard(back).is_empty());

    // At the next start nobody comes back for it: another worker gets it.
    let mut world = world.restarted();
    let (other, heard) = worker(&mut world, Said::UpdateWorker(Default::default()));
    assert!(heard.is_empty(), "{heard:?}");
    world.pass(Duration::from_secs(15));
    let heard = world.worker_heard(other);
    assert!(
        matches!(&heard[..], [Told::Availability(offer)] if offer.job.as_ref().unwrap().id == job)
    );
}

/// A worker for participants that has said something, and what it was told.
fn worker_of(
    world: &mut World,
    kind: proto::JobType,
    says: Option<Said>,
) -> (SessionId, Vec<Told>) {
    let worker = world.worker();
    let register = proto::RegisterWorkerRequest {
        agent_name: "helper".into(),
        r#type: kind.into(),
        ..Default::default()
    };
    world.worker_says(worker, Said::Register(register));
    world.worker_heard(worker);
    if let Some(says) = says {
        world.worker_says(worker, says);
    }
    let heard = world.worker_heard(worker);
    (worker, heard)
}

fn accept(world: &mut World, worker: SessionId, job: &str) {
    let accept = proto::AvailabilityResponse {
        job_id: job.to_owned(),
        available: true,
        participant_identity: "agent".into(),
        ..Default::default()
    };
    world.worker_says(worker, Said::Availability(accept));
}

fn jobs(world: &mut World) -> Vec<proto::Job> {
    let all = dispatches(world);
    let named = all.into_iter().find(|known| known.agent_name == "helper").unwrap();
    named.state.unwrap().jobs
}

fn publish(world: &mut World, session: SessionId) {
    use proto::signal_request::Message as Request;
    let add = proto::AddTrackRequest { cid: "mic".into(), ..Default::default() };
    world.request(session, Request::AddTrack(add));
    world.request(session, Request::Offer(world::offer_with(2, &["mic"])));
}

#[test]
fn jobs_for_participants_wait_for_them_after_a_restart() {
    for kind in [proto::JobType::JtParticipant, proto::JobType::JtPublisher] {
        let come = |world: &mut World| {
            let alice = world.join_active("kept", "alice");
            publish(world, alice);
            world.sid_of(alice)
        };
        let mut world = World::new();
        let call = proto::CreateAgentDispatchRequest {
            room: "kept".into(),
            agent_name: "helper".into(),
            ..Default::default()
        };
        ask(&mut world, ApiRequest::CreateDispatch(call));
        let (first, _) = worker_of(&mut world, kind, None);
        come(&mut world);
        let heard = world.worker_heard(first);
        let [Told::Availability(offer)] = &heard[..] else { panic!("{heard:?}") };
        let job = offer.job.clone().unwrap().id;
        accept(&mut world, first, &job);

        // Its worker is back before its participant: nothing is asked for twice.
        let mut world = world.restarted();
        assert_eq!(jobs(&mut world)[0].participant.as_ref().unwrap().identity, "alice");
        let migrate = proto::MigrateJobRequest { job_ids: vec![job.clone()] };
        let (back, heard) = worker_of(&mut world, kind, Some(Said::MigrateJob(migrate)));
        assert!(heard.is_empty(), "{heard:?}");
        let sid = come(&mut world);
        world.pass(Duration::from_secs(100));
        assert!(world.worker_heard(back).is_empty());
        let known = jobs(&mut world);
        assert_eq!((known.len(), &known[0].id), (1, &job));
        assert_eq!(known[0].participant.as_ref().unwrap().sid, sid);

        // Its worker is not: another is asked, but only once the participant is there.
        let mut world = world.restarted();
        let (other, _) = worker_of(&mut world, kind, None);
        world.pass(Duration::from_secs(20));
        assert!(world.worker_heard(other).is_empty());
        let sid = come(&mut world);
        let heard = world.worker_heard(other);
        let [Told::Availability(offer)] = &heard[..] else { panic!("{heard:?}") };
        let offered = offer.job.clone().unwrap();
        assert_eq!((&offered.id, &offered.participant.unwrap().sid), (&job, &sid));

        // Nobody comes back: it is over, and for who comes later there is another.
        let mut world = world.restarted();
        world.join_active("kept", "bob");
        world.pass(Duration::from_secs(61));
        let ended = jobs(&mut world).into_iter().find(|known| known.id == job).unwrap();
        assert_eq!(ended.state.unwrap().status(), proto::JobStatus::JsSuccess);
        let (other, _) = worker_of(&mut world, kind, None);
        world.worker_heard(other);
        come(&mut world);
        let heard = world.worker_heard(other);
        let [Told::Availability(offer)] = &heard[..] else { panic!("{heard:?}") };
        assert_ne!(offer.job.as_ref().unwrap().id, job);
    }
}

#[test]
fn the_catalog_is_there_again_and_needs_its_grants() {
    let mut world = World::new();
    let ingress =
        proto::CreateIngressRequest { participant_identity: "i".into(), ..Default::default() };
    let request = || ApiRequest::Catalog(CatalogRequest::CreateIngress(ingress.clone()));
    let refused = world.call(None, request()).unwrap_err();
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (ApiErrorCode::Unauthenticated, "permissions denied")
    );
    let sip = ApiRequest::Catalog(CatalogRequest::ListTrunks(Default::default()));
    assert_eq!(world.call(grant(), sip).unwrap_err().code, ApiErrorCode::Unauthenticated);
    let made = ask(&mut world, request());
    let ApiResponse::Catalog(CatalogResponse::Ingress(made)) = made else { panic!("{made:?}") };
    let mut world = world.restarted();
    let list = ApiRequest::Catalog(CatalogRequest::ListIngress(Default::default()));
    let ApiResponse::Catalog(CatalogResponse::Ingresses(listed)) = ask(&mut world, list) else {
        panic!()
    };
    assert_eq!(listed.items, [made]);
}

#[test]
fn what_cannot_be_read_is_passed_over() {
    let mut world = World::new();
    let junk = |kind: &str, value: &str| Kept {
        kind: kind.into(),
        id: "x".into(),
        value: value.as_bytes().to_vec(),
    };
    let kinds = parlor_node::kept_kinds().chain(["a later kind"]);
    let mut objects: Vec<Kept> = kinds.map(|kind| junk(kind, "{]")).collect();
    objects.push(junk("agent dispatch", r#"{"id":"AD_1","room":"gone"}"#));
    world.handle(Input::Restore(objects));
    assert!(rooms(&mut world).is_empty());
    create(&mut world, Default::default());
}
