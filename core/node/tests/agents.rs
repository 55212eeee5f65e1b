//! Agent workers of a [`Node`], as trace 11-agent-worker has them.
#![allow(clippy::unwrap_used)]

mod world;

use livekit_protocol as proto;
use parlor_node::{
    api::{ApiErrorCode, ApiRequest, ApiResponse},
    io::{Frame, Input, SessionId},
};
use parlor_signal::token::{self, VideoGrant};
use proto::{
    server_message::Message as Told, signal_request::Message as Request,
    worker_message::Message as Said,
};
use std::time::Duration;
use world::{Options, World, offer_with};

fn register(world: &mut World, kind: proto::JobType, agent_name: &str) -> SessionId {
    let worker = world.worker();
    let request = proto::RegisterWorkerRequest {
        r#type: kind.into(),
        agent_name: agent_name.into(),
        version: "1.0.0".into(),
        ..Default::default()
    };
    world.worker_says(worker, Said::Register(request));
    let heard = world.worker_heard(worker);
    let [Told::Register(registered)] = &heard[..] else { panic!("{heard:?}") };
    assert!(registered.worker_id.starts_with("AW_"));
    assert_eq!(registered.server_info.as_ref().unwrap().agent_protocol, 1);
    worker
}

fn offered(world: &mut World, worker: SessionId) -> proto::Job {
    let heard = world.worker_heard(worker);
    let [Told::Availability(request)] = &heard[..] else { panic!("{heard:?}") };
    request.job.clone().unwrap()
}

/// The worker takes a job; returns its assignment.
fn accept(world: &mut World, worker: SessionId, job: &proto::Job) -> proto::JobAssignment {
    let response = proto::AvailabilityResponse {
        job_id: job.id.clone(),
        available: true,
        participant_name: "Agent".into(),
        participant_identity: format!("agent-{}", job.id),
        participant_attributes: [("k".to_owned(), "v".to_owned())].into(),
        ..Default::default()
    };
    world.worker_says(worker, Said::Availability(response));
    let heard = world.worker_heard(worker);
    let [Told::Assignment(assignment)] = &heard[..] else { panic!("{heard:?}") };
    assignment.clone()
}

/// The agent of an assignment joins with its token.
fn agent_joins(world: &mut World, assignment: &proto::JobAssignment) -> SessionId {
    let keys = [("devkey".to_owned(), "secret".to_owned())].into_iter().collect();
    let claims = token::verify(&assignment.token, &keys, world.now.unix).unwrap();
    let grant = claims.video.clone().unwrap();
    assert_eq!((grant.agent, claims.kind.as_str()), (true, "agent"));
    let room = grant.room.clone();
    world.join(&room, claims.identity(), Options { grant, ..Default::default() })
}

fn create(world: &mut World, request: proto::CreateRoomRequest) -> proto::Room {
    let grant = VideoGrant { room_create: true, ..Default::default() };
    let answer = world.call(Some(grant), ApiRequest::CreateRoom(request)).unwrap();
    let ApiResponse::Room(room) = answer else { panic!("{answer:?}") };
    room
}

fn admin(room: &str) -> Option<VideoGrant> {
    Some(VideoGrant { room_admin: true, room: room.into(), ..Default::default() })
}

fn dispatch(world: &mut World, room: &str, agent_name: &str) -> proto::AgentDispatch {
    let request = proto::CreateAgentDispatchRequest {
        room: room.into(),
        agent_name: agent_name.into(),
        metadata: "dispatch-md".into(),
        ..Default::default()
    };
    let answer = world.call(admin(room), ApiRequest::CreateDispatch(request)).unwrap();
    let ApiResponse::Dispatch(dispatch) = answer else { panic!("{answer:?}") };
    dispatch
}

fn list(world: &mut World, room: &str) -> Vec<proto::AgentDispatch> {
    let request = proto::ListAgentDispatchRequest { room: room.into(), ..Default::default() };
    let answer = world.call(admin(room), ApiRequest::ListDispatch(request)).unwrap();
    let ApiResponse::Dispatches(listed) = answer else { panic!("{answer:?}") };
    listed.agent_dispatches
}

#[test]
fn a_room_worker_gets_a_job_when_a_room_is_created() {
    let mut world = World::new();
    let worker = register(&mut world, proto::JobType::JtRoom, "");
    let status = proto::UpdateWorkerStatus { load: 0.1, ..Default::default() };
    world.worker_says(worker, Said::UpdateWorker(status));
    world.worker_says(worker, Said::Ping(proto::WorkerPing { timestamp: 42 }));
    let heard = world.worker_heard(worker);
    let [Told::Pong(pong)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((pong.last_timestamp, pong.timestamp), (42, 1_800_000_000_000));

    let room =
        create(&mut world, proto::CreateRoomRequest { name: "ag".into(), ..Default::default() });
    let job = offered(&mut world, worker);
    assert!(job.id.starts_with("AJ_") && job.dispatch_id.starts_with("AD_"));
    let of_job = job.room.clone().unwrap();
    assert_eq!((of_job.sid, of_job.name.as_str(), job.participant.clone()), (room.sid, "ag", None));
    let state = job.state.clone().unwrap();
    assert_eq!(state.status(), proto::JobStatus::JsRunning);
    assert_eq!(
        (state.started_at, state.updated_at),
        (1_800_000_000_000_000_000, 1_800_000_000_000_000_000)
    );
    assert!(state.worker_id.starts_with("AW_"));

    let assignment = accept(&mut world, worker, &job);
    assert_eq!(assignment.url, None);
    let agent = agent_joins(&mut world, &assignment);
    let proto::signal_response::Message::Join(join) = &world.said(agent)[0] else { panic!() };
    let this = join.participant.clone().unwrap();
    #[allow(deprecated)]
    let is_agent = this.permission.unwrap().agent;
    assert!(is_agent);

    let listed = list(&mut world, "ag");
    let state = listed[0].state.clone().unwrap();
    assert_eq!((listed.len(), state.jobs.len()), (1, 1));
    let state = state.jobs[0].state.clone().unwrap();
    assert_eq!(state.participant_identity, format!("agent-{}", job.id));
}

#[test]
fn publishers_and_participants_get_agents_of_their_own_and_agents_do_not() {
    let mut world = World::new();
    let of_publishers = register(&mut world, proto::JobType::JtPublisher, "");
    let of_participants = register(&mut world, proto::JobType::JtParticipant, "");
    let offer = Some(offer_with(1, &["mic"]));
    let alice = world.join("ag", "alice", Options { offer, ..Default::default() });
    let job = offered(&mut world, of_participants);
    assert_eq!(job.participant.clone().unwrap().identity, "alice");
    let assignment = accept(&mut world, of_participants, &job);
    agent_joins(&mut world, &assignment);
    assert!(world.worker_heard(of_participants).is_empty());

    assert!(world.worker_heard(of_publishers).is_empty());
    let add =
        proto::AddTrackRequest { cid: "mic".into(), name: "mic".into(), ..Default::default() };
    world.request(alice, Request::AddTrack(add));
    let published = offered(&mut world, of_publishers);
    assert_eq!(published.r#type(), proto::JobType::JtPublisher);
    assert_eq!(published.participant.unwrap().identity, "alice");

    world.request(alice, Request::Leave(proto::LeaveRequest::default()));
    let heard = world.worker_heard(of_participants);
    let [Told::Termination(end)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!(end.job_id, job.id);
}

#[test]
fn named_agents_are_called_by_api_token_and_room() {
    let mut world = World::new();
    let helper = register(&mut world, proto::JobType::JtRoom, "helper");
    let made = dispatch(&mut world, "ag", "helper");
    assert!(made.id.starts_with("AD_"));
    assert_eq!(made.state.unwrap().created_at, 1_800_000_000_000_000_000);
    let job = offered(&mut world, helper);
    assert_eq!((job.agent_name.as_str(), job.metadata.as_str()), ("helper", "dispatch-md"));
    assert_eq!(job.dispatch_id, made.id);
    // A room that the call has made has the dispatch of unnamed agents, too.
    let names: Vec<_> = list(&mut world, "ag").into_iter().map(|known| known.agent_name).collect();
    assert_eq!(names, ["", "helper"]);

    let agents =
        vec![proto::RoomAgentDispatch { agent_name: "helper".into(), ..Default::default() }];
    create(
        &mut world,
        proto::CreateRoomRequest { name: "ag2".into(), agents, ..Default::default() },
    );
    assert_eq!(offered(&mut world, helper).room.unwrap().name, "ag2");
    assert_eq!(list(&mut world, "ag2").len(), 1);
    create(&mut world, proto::CreateRoomRequest { name: "ag2".into(), ..Default::default() });
    assert_eq!(list(&mut world, "ag2").len(), 1);
}

#[test]
fn dispatches_are_listed_and_deleted_as_recorded() {
    let mut world = World::new();
    let worker = register(&mut world, proto::JobType::JtRoom, "x");
    let made = dispatch(&mut world, "ad", "x");
    let job = offered(&mut world, worker);
    let assignment = accept(&mut world, worker, &job);
    let agent = agent_joins(&mut world, &assignment);
    let delete = |id: &str| {
        let (room, dispatch_id) = ("ad".to_owned(), id.to_owned());
        ApiRequest::DeleteDispatch(proto::DeleteAgentDispatchRequest { room, dispatch_id })
    };
    let unknown = world.call(admin("ad"), delete("AD_nope")).unwrap_err();
    let text = "twirp error unknown: dispatch ID not found";
    assert_eq!((unknown.code, unknown.message.as_str()), (ApiErrorCode::NotFound, text));
    let answer = world.call(admin("ad"), delete(&made.id)).unwrap();
    let ApiResponse::Dispatch(deleted) = answer else { panic!("{answer:?}") };
    assert_eq!((deleted.id, deleted.metadata), (made.id.clone(), made.metadata));
    let heard = world.worker_heard(worker);
    assert!(matches!(&heard[..], [Told::Termination(end)] if end.job_id == job.id), "{heard:?}");
    assert!(world.call(admin("ad"), delete(&made.id)).is_err());
    // The agent did not leave by itself.
    assert!(!world.is_closed(agent));
    world.pass(Duration::from_secs(3));
    assert!(world.is_closed(agent));
    assert!(world.worker_heard(worker).is_empty());

    let other = VideoGrant { room_admin: true, room: "other".into(), ..Default::default() };
    for grant in [None, Some(other)] {
        let refused = world.call(grant, delete(&made.id)).unwrap_err();
        assert_eq!(refused.code, ApiErrorCode::Unauthenticated);
    }
    let absent = proto::ListAgentDispatchRequest { room: "absent".into(), ..Default::default() };
    let refused = world.call(admin("absent"), ApiRequest::ListDispatch(absent)).unwrap_err();
    assert_eq!(refused.code, ApiErrorCode::NotFound);
}

#[test]
fn what_is_said_to_agents_is_bounded() {
    let mut world = World::new();
    let ask = |world: &mut World, change: fn(&mut proto::CreateAgentDispatchRequest)| {
        let mut request =
            proto::CreateAgentDispatchRequest { room: "ad".into(), ..Default::default() };
        change(&mut request);
        world.call(admin("ad"), ApiRequest::CreateDispatch(request)).map_err(|error| error.code)
    };
    let bad = Err(ApiErrorCode::InvalidArgument);
    assert_eq!(ask(&mut world, |call| call.deployment = "a b".into()), bad);
    assert_eq!(ask(&mut world, |call| call.deployment = "a_b".into()), bad);
    assert_eq!(ask(&mut world, |call| call.deployment = "a".repeat(65)), bad);
    let long = |call: &mut proto::CreateAgentDispatchRequest| {
        call.attributes = [("k".to_owned(), "v".repeat(64 << 10))].into();
    };
    assert_eq!(ask(&mut world, long), bad);
    assert!(ask(&mut world, |call| call.deployment = "a".repeat(64)).is_ok());
}

#[test]
fn a_worker_that_breaks_the_protocol_is_cut_off() {
    let mut world = World::new();
    let twice = register(&mut world, proto::JobType::JtRoom, "");
    world.worker_says(twice, Said::Register(Default::default()));
    let early = world.worker();
    world.worker_says(early, Said::UpdateWorker(Default::default()));
    let odd = world.worker();
    world.worker_says(
        odd,
        Said::Register(proto::RegisterWorkerRequest { r#type: 9, ..Default::default() }),
    );
    let junk = world.worker();
    world.handle(Input::Frame { session: junk, frame: Frame::Binary(vec![0xff; 3].into()) });
    let silent = world.worker();
    world.pass(Duration::from_secs(10));
    for worker in [twice, early, odd, junk, silent] {
        assert!(world.is_closed(worker));
    }
    // Text is answered in text.
    let worker = world.worker();
    let text = r#"{"register":{"type":"JT_ROOM","agentName":"t"}}"#.to_owned();
    world.handle(Input::Frame { session: worker, frame: Frame::Text(text) });
    assert!(world.texts[0].starts_with(r#"{"register":{"serverInfo":"#), "{:?}", world.texts);
}

#[test]
fn the_jobs_of_a_dead_worker_are_offered_to_another() {
    let mut world = World::new();
    let dead = register(&mut world, proto::JobType::JtRoom, "");
    create(&mut world, proto::CreateRoomRequest { name: "ag".into(), ..Default::default() });
    let job = offered(&mut world, dead);
    let assignment = accept(&mut world, dead, &job);
    let agent = agent_joins(&mut world, &assignment);
    let heir = register(&mut world, proto::JobType::JtRoom, "");
    world.handle(Input::Closed { session: dead });
    world.handle(Input::Closed { session: agent });
    let heard = world.worker_heard(heir);
    let [Told::Availability(request)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((request.resuming, &request.job.as_ref().unwrap().id), (true, &job.id));
}

#[test]
fn a_room_that_ends_ends_its_jobs_and_the_server_its_workers() {
    let mut world = World::new();
    let worker = register(&mut world, proto::JobType::JtRoom, "");
    create(&mut world, proto::CreateRoomRequest { name: "ag".into(), ..Default::default() });
    let job = offered(&mut world, worker);
    accept(&mut world, worker, &job);
    let grant = VideoGrant { room_create: true, ..Default::default() };
    let delete = ApiRequest::DeleteRoom(proto::DeleteRoomRequest { room: "ag".into() });
    world.call(Some(grant), delete).unwrap();
    let heard = world.worker_heard(worker);
    assert!(matches!(&heard[..], [Told::Termination(end)] if end.job_id == job.id), "{heard:?}");
    assert_eq!(world.node.counts().agents.workers, 1);
    world.handle(Input::Shutdown);
    assert!(world.is_closed(worker));
}
