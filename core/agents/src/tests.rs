use super::*;
use parlor_model::ParticipantSid;

struct World {
    agents: Agents,
    now: Now,
}

const ROOM: &str = "r";

impl World {
    fn new() -> Self {
        let now = Now { instant: Instant::now(), unix: Duration::from_secs(1_800_000_000) };
        let mut agents = Agents::new([5; 32]);
        agents.handle_room_created(now, ROOM.into());
        World { agents, now }
    }

    fn pass(&mut self, time: Duration) {
        self.now = Now { instant: self.now.instant + time, unix: self.now.unix + time };
        self.agents.handle_timeout(self.now);
    }

    fn worker(&mut self, key: u64, change: impl FnOnce(&mut Registration)) -> WorkerKey {
        let worker = WorkerKey(key);
        let mut registration = Registration { id: format!("AW_{key}"), ..Default::default() };
        change(&mut registration);
        self.agents.handle_connected(self.now, worker);
        self.agents.handle_register(self.now, worker, registration);
        worker
    }

    fn dispatch(&mut self, id: &str, change: impl FnOnce(&mut Dispatch)) {
        let mut dispatch = Dispatch { id: id.into(), ..Dispatch::new(ROOM.into()) };
        change(&mut dispatch);
        self.agents.handle_dispatch(self.now, dispatch).unwrap();
    }

    /// What has to happen, but for what is only to be kept.
    fn events(&mut self) -> Vec<Event> {
        let events = std::iter::from_fn(|| self.agents.poll_event());
        events.filter(|e| !matches!(e, Event::Changed { .. } | Event::Registered { .. })).collect()
    }

    fn offers(&mut self) -> Vec<(WorkerKey, String)> {
        let offer = |event| match event {
            Event::Offer { worker, job, .. } => Some((worker, job)),
            _ => None,
        };
        self.events().into_iter().filter_map(offer).collect()
    }

    fn offer(&mut self) -> (WorkerKey, String) {
        let mut offers = self.offers();
        assert_eq!(offers.len(), 1, "{offers:?}");
        offers.remove(0)
    }

    fn accept(&mut self, worker: WorkerKey, job: &str) {
        let answer =
            Answer { available: true, identity: format!("agent-{job}"), ..Default::default() };
        self.agents.handle_answer(self.now, worker, job, answer.clone());
        let assign = Event::Assign { worker, job: job.to_owned(), answer };
        assert!(self.events().contains(&assign));
    }

    fn joins(&mut self, job: &str) -> Identity {
        let identity = Identity::from(format!("agent-{job}"));
        self.agents.handle_agent_joined(&ROOM.into(), &identity);
        identity
    }

    fn refuse(&mut self, worker: WorkerKey, job: &str) {
        self.agents.handle_answer(self.now, worker, job, Answer::default());
    }

    fn job(&self, id: &str) -> &Job {
        self.agents.job(id).unwrap()
    }
}

fn named(name: &str) -> impl FnOnce(&mut Registration) {
    move |registration| registration.agent_name = name.into()
}

#[test]
fn a_worker_must_register_in_time_and_once() {
    let mut world = World::new();
    let silent = WorkerKey(1);
    world.agents.handle_connected(world.now, silent);
    world.pass(REGISTER_TIMEOUT - Duration::from_millis(1));
    assert_eq!(world.events(), []);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.events(), [Event::Drop { worker: silent }]);

    let early = WorkerKey(2);
    world.agents.handle_connected(world.now, early);
    assert!(!world.agents.is_registered(world.now, early));
    assert_eq!(world.events(), [Event::Drop { worker: early }]);

    let twice = world.worker(3, |_| {});
    world.agents.handle_register(world.now, twice, Registration::default());
    assert_eq!(world.events(), [Event::Drop { worker: twice }]);

    let odd = world.worker(4, |registration| registration.deployment = "a_b".into());
    assert_eq!(world.events(), [Event::Drop { worker: odd }]);
    world.worker(5, |registration| registration.deployment = "a".repeat(DEPLOYMENT_BYTES_MAX));
    assert_eq!((world.events(), world.agents.counts().workers), (vec![], 1));
    world.pass(REGISTER_TIMEOUT);
    assert_eq!((world.events(), world.agents.poll_timeout()), (vec![], None));
}

#[test]
fn unnamed_agents_come_by_themselves_and_named_ones_when_called() {
    let mut world = World::new();
    let unnamed = world.worker(1, |_| {});
    let helper = world.worker(2, named("helper"));
    world.dispatch("AD_auto", |_| {});
    assert_eq!(world.offer().0, unnamed);
    world.dispatch("AD_x", |dispatch| dispatch.agent_name = "helper".into());
    assert_eq!(world.offer().0, helper);
    world.dispatch("AD_y", |dispatch| dispatch.agent_name = "nobody".into());
    assert_eq!(world.offers(), []);
}

#[test]
fn a_dispatch_without_a_worker_waits_for_one() {
    let mut world = World::new();
    world.dispatch("AD_x", |dispatch| dispatch.agent_name = "helper".into());
    assert_eq!(world.events(), []);
    world.pass(Duration::from_secs(3600));
    let worker = world.worker(1, named("helper"));
    let (offered, job) = world.offer();
    assert_eq!(offered, worker);
    world.accept(worker, &job);
    // A second worker of the same name finds nothing to do.
    world.worker(2, named("helper"));
    assert_eq!(world.offers(), []);
    assert_eq!(world.agents.jobs_of(&ROOM.into(), "AD_x").count(), 1);
}

#[test]
fn each_namespace_has_an_agent_and_deployments_are_kept_apart() {
    let mut world = World::new();
    let one = world.worker(1, |registration| registration.namespace = "n1".into());
    let other = world.worker(2, |registration| registration.namespace = "n2".into());
    let staging = world.worker(3, |registration| registration.deployment = "staging".into());
    world.dispatch("AD_1", |_| {});
    let workers: Vec<_> = world.offers().into_iter().map(|(worker, _)| worker).collect();
    assert_eq!(workers, [one, other]);
    world.dispatch("AD_2", |dispatch| dispatch.deployment = "staging".into());
    assert_eq!(world.offer().0, staging);
}

#[test]
fn agents_for_participants_and_publishers_come_and_go_with_them() {
    let mut world = World::new();
    let (room, ann): (RoomName, ParticipantSid) = (ROOM.into(), "PA_ann".into());
    let of_participants = world.worker(1, |known| known.kind = JobKind::Participant);
    let of_publishers = world.worker(2, |known| known.kind = JobKind::Publisher);
    world.dispatch("AD_1", |_| {});
    assert_eq!(world.offers(), []);
    world.agents.handle_joined(world.now, &room, ann.clone(), "ann".into());
    let (worker, first) = world.offer();
    assert_eq!((worker, &world.job(&first).participant), (of_participants, &Some(ann.clone())));
    world.accept(of_participants, &first);
    world.agents.handle_published(world.now, &room, &ann);
    let (worker, second) = world.offer();
    assert_eq!(worker, of_publishers);
    world.agents.handle_published(world.now, &room, &ann);
    assert_eq!(world.offers(), []);
    // A later dispatch reaches who is there already.
    world.dispatch("AD_2", |_| {});
    assert_eq!(world.offers().len(), 2);
    world.agents.handle_left(world.now, &room, &ann);
    let terminate = Event::Terminate { worker: of_participants, job: first.clone() };
    assert_eq!(world.events(), [terminate]);
    assert_eq!(
        (world.job(&first).status, world.job(&second).stage),
        (JobStatus::Success, Stage::Ended)
    );
}

#[test]
fn a_worker_at_the_target_load_is_not_asked() {
    let mut world = World::new();
    world.agents.set_target_load(Some(0.7));
    let worker = world.worker(1, |_| {});
    world.agents.handle_worker_status(world.now, worker, Some(true), 0.7);
    world.dispatch("AD_1", |_| {});
    assert_eq!(world.offers(), []);
    world.agents.handle_worker_status(world.now, worker, None, 0.69);
    assert_eq!(world.offer().0, worker);
}

#[test]
fn the_worker_with_the_least_load_is_asked_and_a_full_one_is_not() {
    let mut world = World::new();
    let busy = world.worker(1, |_| {});
    let idle = world.worker(2, |_| {});
    let full = world.worker(3, |_| {});
    world.agents.handle_worker_status(world.now, busy, Some(true), 0.6);
    world.agents.handle_worker_status(world.now, idle, Some(true), 0.2);
    world.agents.handle_worker_status(world.now, full, Some(false), f32::NAN);
    world.dispatch("AD_1", |_| {});
    assert_eq!(world.offer().0, idle);
    // A load without a status leaves the status as it was.
    world.agents.handle_worker_status(world.now, full, None, 0.0);
    world.dispatch("AD_2", |_| {});
    assert_eq!(world.offer().0, idle);
    world.agents.handle_gone(world.now, idle);
    world.agents.handle_gone(world.now, busy);
    assert!(world.offers().iter().all(|(worker, _)| *worker == busy));
    assert_eq!(world.agents.counts().jobs_waiting, 2);
    world.agents.handle_worker_status(world.now, full, Some(true), 0.0);
    assert_eq!(world.offers().len(), 2);
}

#[test]
fn jobs_are_shared_between_equals() {
    let mut world = World::new();
    let (one, other) = (world.worker(1, |_| {}), world.worker(2, |_| {}));
    let mut had = BTreeMap::from([(one, 0), (other, 0)]);
    for number in 0..20 {
        world.dispatch(&format!("AD_{number}"), |_| {});
        let (worker, job) = world.offer();
        world.accept(worker, &job);
        *had.entry(worker).or_default() += 1;
        if number % 5 == 0 {
            world.agents.handle_worker_status(world.now, one, Some(true), 0.0);
            world.agents.handle_worker_status(world.now, other, Some(true), 0.0);
        }
    }
    assert_eq!(had, BTreeMap::from([(one, 10), (other, 10)]));
}

#[test]
fn a_worker_is_asked_about_a_bounded_number_of_jobs_at_once() {
    let mut world = World::new();
    let worker = world.worker(1, |_| {});
    for number in 0..OFFERS_MAX + 2 {
        world.dispatch(&format!("AD_{number}"), |_| {});
    }
    let offers = world.offers();
    assert_eq!((offers.len(), world.agents.counts().jobs_waiting), (OFFERS_MAX, 2));
    world.accept(worker, &offers[0].1);
    assert_eq!(world.agents.counts().jobs_waiting, 1);
}

#[test]
fn who_refuses_or_is_silent_is_passed_over_for_a_while() {
    let mut world = World::new();
    let first = world.worker(1, |_| {});
    world.dispatch("AD_1", |_| {});
    let (_, job) = world.offer();
    world.refuse(first, &job);
    assert_eq!((world.events(), world.job(&job).status), (vec![], JobStatus::Pending));
    // Somebody else is asked at once, and when silent passed over too.
    let second = world.worker(2, |_| {});
    assert_eq!(world.offer(), (second, job.clone()));
    world.pass(AVAILABILITY_TIMEOUT);
    assert_eq!(world.events(), []);
    world.pass(REFUSAL_PAUSE - AVAILABILITY_TIMEOUT);
    assert_eq!(world.offer(), (first, job.clone()));
    // A late answer counts while nobody else has the job.
    world.refuse(first, &job);
    world.accept(second, &job);
    assert_eq!(world.job(&job).worker_id, "AW_2");
    let late = Answer { available: true, ..Default::default() };
    world.agents.handle_answer(world.now, first, &job, late);
    assert_eq!(world.events(), []);
}

#[test]
fn a_worker_that_refuses_for_good_is_asked_no_more() {
    let mut world = World::new();
    let worker = world.worker(1, |_| {});
    world.dispatch("AD_1", |_| {});
    for _ in 0..REFUSALS_MAX {
        let (_, job) = world.offer();
        world.refuse(worker, &job);
        world.pass(REFUSAL_PAUSE);
    }
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.offers(), []);
    // It was full, and is no more.
    world.agents.handle_worker_status(world.now, worker, Some(false), 1.0);
    world.agents.handle_worker_status(world.now, worker, Some(true), 0.0);
    assert_eq!(world.offers().len(), 1);
}

#[test]
fn a_worker_may_say_that_no_agent_is_needed() {
    let mut world = World::new();
    let worker = world.worker(1, |_| {});
    world.dispatch("AD_1", |_| {});
    let (_, job) = world.offer();
    let answer = Answer { terminate: true, ..Default::default() };
    world.agents.handle_answer(world.now, worker, &job, answer);
    assert_eq!((world.events(), world.job(&job).status), (vec![], JobStatus::Success));
}

#[test]
fn the_jobs_of_a_dead_worker_go_to_another_when_their_agents_are_gone() {
    let mut world = World::new();
    let dead = world.worker(1, |_| {});
    world.dispatch("AD_1", |_| {});
    world.dispatch("AD_2", |_| {});
    world.dispatch("AD_3", |_| {});
    let jobs: Vec<String> = world.offers().into_iter().map(|(_, job)| job).collect();
    let [seen, unseen, unanswered] = &jobs[..] else { panic!("{jobs:?}") };
    world.accept(dead, seen);
    world.accept(dead, unseen);
    let agent = world.joins(seen);
    let heir = world.worker(2, |_| {});
    world.agents.handle_gone(world.now, dead);
    // What was never answered goes at once.
    assert_eq!(world.offer(), (heir, unanswered.clone()));
    world.accept(heir, unanswered);
    // The agent that was in the room goes with its leaving, the other one after a while.
    world.agents.handle_agent_left(world.now, &ROOM.into(), &agent);
    let offer = Event::Offer { worker: heir, job: seen.clone(), resuming: true };
    assert_eq!(world.events(), [offer]);
    world.accept(heir, seen);
    world.pass(RETURN_TIMEOUT - Duration::from_millis(1));
    assert_eq!(world.events(), []);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.offer(), (heir, unseen.clone()));
}

#[test]
fn a_worker_that_comes_back_keeps_its_jobs() {
    let mut world = World::new();
    let before = world.worker(1, |_| {});
    world.dispatch("AD_1", |_| {});
    world.dispatch("AD_2", |_| {});
    let jobs: Vec<String> = world.offers().into_iter().map(|(_, job)| job).collect();
    for job in &jobs {
        world.accept(before, job);
    }
    let agent = world.joins(&jobs[0]);
    world.agents.handle_gone(world.now, before);
    world.pass(Duration::from_secs(5));
    let back = world.worker(2, |_| {});
    let said = [jobs[0].clone(), "AJ_unknown".into()];
    world.agents.handle_migrate(world.now, back, &said);
    assert_eq!(world.events(), []);
    assert_eq!(world.job(&jobs[0]).worker(), Some(back));
    // What it does not mention is offered again when its time is up.
    world.pass(RETURN_TIMEOUT);
    assert_eq!(world.offer(), (back, jobs[1].clone()));
    // What somebody else has by now ends where it was.
    let other = world.worker(3, |_| {});
    world.agents.handle_migrate(world.now, other, &[jobs[0].clone()]);
    assert_eq!(world.events(), [Event::Terminate { worker: other, job: jobs[0].clone() }]);
    world.agents.handle_agent_left(world.now, &ROOM.into(), &agent);
    assert_eq!(world.job(&jobs[0]).error, "agent worker left the room");
}

#[test]
fn an_agent_that_stays_without_its_worker_is_left_alone() {
    let mut world = World::new();
    let worker = world.worker(1, |_| {});
    world.dispatch("AD_1", |_| {});
    let (_, job) = world.offer();
    world.accept(worker, &job);
    world.joins(&job);
    world.worker(2, |_| {});
    world.agents.handle_gone(world.now, worker);
    world.pass(Duration::from_secs(600));
    assert_eq!(world.events(), []);
}

#[test]
fn a_job_is_not_restarted_for_ever_nor_against_its_policy() {
    let mut world = World::new();
    world.dispatch("AD_1", |_| {});
    world.dispatch("AD_never", |dispatch| dispatch.restarts = false);
    let mut last = String::new();
    for run in 0..u64::from(RUNS_MAX) {
        let worker = world.worker(run + 1, |_| {});
        for (_, job) in world.offers() {
            world.accept(worker, &job);
            last = if run == 0 { last } else { job };
        }
        world.agents.handle_gone(world.now, worker);
        world.pass(RETURN_TIMEOUT);
    }
    world.worker(99, |_| {});
    assert_eq!(world.offers(), []);
    assert_eq!(world.job(&last).error, "agent workers died too often");
    let never = world.agents.jobs_of(&ROOM.into(), "AD_never").next().unwrap().clone();
    assert_eq!((never.runs, never.error.as_str()), (1, "agent worker died"));
}

#[test]
fn only_its_worker_says_how_a_job_stands() {
    let mut world = World::new();
    let (worker, other) = (world.worker(1, |_| {}), WorkerKey(2));
    world.dispatch("AD_1", |_| {});
    let (_, job) = world.offer();
    world.accept(worker, &job);
    world.agents.handle_connected(world.now, other);
    world.agents.handle_job_status(world.now, other, &job, JobStatus::Failed, "no");
    assert_eq!(world.job(&job).status, JobStatus::Running);
    let agent = world.joins(&job);
    world.agents.handle_agent_left(world.now, &ROOM.into(), &agent);
    assert_eq!(world.events(), [Event::Terminate { worker, job: job.clone() }]);
    assert_eq!(world.job(&job).status, JobStatus::Failed);
    // The worker knows better why its agent left.
    world.agents.handle_job_status(world.now, worker, &job, JobStatus::Success, "");
    assert_eq!((world.job(&job).status, world.job(&job).error.as_str()), (JobStatus::Success, ""));
    world.agents.handle_job_status(world.now, worker, &job, JobStatus::Failed, "again");
    assert_eq!(world.job(&job).status, JobStatus::Success);
}

#[test]
fn a_deleted_dispatch_ends_its_jobs_and_its_agent_has_to_leave() {
    let mut world = World::new();
    let room = RoomName::from(ROOM);
    let worker = world.worker(1, |_| {});
    world.dispatch("AD_1", |_| {});
    let (_, job) = world.offer();
    world.accept(worker, &job);
    let agent = world.joins(&job);
    let (_, jobs) = world.agents.handle_delete(world.now, &room, "AD_1").unwrap();
    assert_eq!(jobs.len(), 1);
    assert_eq!(world.events(), [Event::Terminate { worker, job: job.clone() }]);
    let again = world.agents.handle_delete(world.now, &room, "AD_1");
    assert_eq!(again.unwrap_err(), DispatchError::NotFound);
    world.pass(LEAVE_TIMEOUT);
    assert_eq!(world.events(), [Event::Remove { room: room.clone(), identity: agent.clone() }]);
    // One that leaves by itself is not removed.
    world.dispatch("AD_2", |_| {});
    let (_, job) = world.offer();
    world.accept(worker, &job);
    let agent = world.joins(&job);
    world.agents.handle_delete(world.now, &room, "AD_2").unwrap();
    world.agents.handle_agent_left(world.now, &room, &agent);
    world.pass(LEAVE_TIMEOUT);
    assert_eq!(world.events(), [Event::Terminate { worker, job }]);
}

#[test]
fn a_room_takes_its_jobs_with_it() {
    let mut world = World::new();
    let worker = world.worker(1, |_| {});
    world.dispatch("AD_1", |_| {});
    let (_, job) = world.offer();
    world.accept(worker, &job);
    world.dispatch("AD_waits", |dispatch| dispatch.agent_name = "later".into());
    world.agents.handle_room_closed(world.now, &ROOM.into());
    assert_eq!(world.events(), [Event::Terminate { worker, job: job.clone() }]);
    assert!(world.agents.job(&job).is_none() && world.agents.dispatches(&ROOM.into()).is_none());
    assert_eq!(world.agents.counts(), AgentCounts { workers: 1, ..Default::default() });
    let lost = Dispatch::new(ROOM.into());
    assert_eq!(world.agents.handle_dispatch(world.now, lost), Err(DispatchError::NotFound));
}

#[test]
fn a_simulated_job_is_its_workers_own() {
    let mut world = World::new();
    let worker = world.worker(1, named("tested"));
    world.worker(2, named("tested"));
    world.agents.handle_simulate(world.now, worker, "other".into(), None);
    let (offered, job) = world.offer();
    assert_eq!(offered, worker);
    world.refuse(worker, &job);
    assert!(world.events().is_empty() && world.agents.job(&job).is_none());
    world.agents.handle_simulate(world.now, worker, "other".into(), Some("PA_x".into()));
    let (_, job) = world.offer();
    assert_eq!(world.job(&job).kind, JobKind::Publisher);
    world.agents.handle_gone(world.now, worker);
    assert!(world.events().is_empty() && world.agents.job(&job).is_none());
}

#[test]
fn dispatches_and_ended_jobs_are_bounded() {
    let mut world = World::new();
    for number in 0..DISPATCHES_MAX {
        world.dispatch(&format!("AD_{number}"), |_| {});
    }
    let more = Dispatch { id: "AD_more".into(), ..Dispatch::new(ROOM.into()) };
    assert_eq!(world.agents.handle_dispatch(world.now, more), Err(DispatchError::TooMany));

    let mut world = World::new();
    let room = RoomName::from(ROOM);
    let worker = world.worker(1, |known| known.kind = JobKind::Participant);
    world.dispatch("AD_1", |_| {});
    for number in 0..ENDED_JOBS_MAX + 5 {
        let sid = ParticipantSid::from(format!("PA_{number}"));
        world.agents.handle_joined(world.now, &room, sid.clone(), sid.as_str().into());
        let (_, job) = world.offer();
        world.accept(worker, &job);
        world.agents.handle_left(world.now, &room, &sid);
        world.events();
    }
    assert_eq!(world.agents.jobs_of(&room, "AD_1").count(), ENDED_JOBS_MAX);
}

#[test]
fn a_restored_job_waits_for_its_worker() {
    let mut world = World::new();
    let worker = world.worker(1, |_| {});
    let mut job = Job::new("AJ_old".into(), ROOM.into(), JobKind::Room);
    (job.status, job.identity) = (JobStatus::Running, "agent-AJ_old".into());
    let mut ended = Job::new("AJ_ended".into(), ROOM.into(), JobKind::Room);
    (ended.status, ended.namespace) = (JobStatus::Success, "n".into());
    let dispatch = Dispatch { id: "AD_1".into(), ..Dispatch::new(ROOM.into()) };
    world.agents.restore_dispatch(world.now, dispatch.clone(), vec![job.clone(), ended]).unwrap();
    world.pass(Duration::from_secs(1));
    world.worker(2, |registration| registration.namespace = "n".into());
    assert_eq!(world.events(), []);
    world.agents.handle_migrate(world.now, worker, &["AJ_old".into()]);
    world.pass(RETURN_TIMEOUT);
    assert_eq!((world.events(), world.job("AJ_old").worker()), (vec![], Some(worker)));

    let mut world = World::new();
    world.agents.restore_dispatch(world.now, dispatch, vec![job]).unwrap();
    let worker = world.worker(1, |_| {});
    assert_eq!(world.events(), []);
    world.pass(RETURN_TIMEOUT);
    assert_eq!(world.offer(), (worker, "AJ_old".into()));
}
