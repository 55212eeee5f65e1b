//! Workers, and who of them gets a job.

use crate::{Agents, Event, Job, JobKind, REGISTER_TIMEOUT, time::Timer};
use parlor_model::{Now, ParticipantSid, RoomName};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

/// Longest name of a deployment, bytes.
pub const DEPLOYMENT_BYTES_MAX: usize = 64;
/// A worker is asked about so many jobs at a time; further ones wait for its answers.
pub const OFFERS_MAX: usize = 8;
/// What a job counts that a worker took since it last said its load.
const UNREPORTED_LOAD: f32 = 0.1;

/// A worker's connection, drawn by the caller and never used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct WorkerKey(pub u64);

/// What a worker offers to do.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Registration {
    /// `AW_...`, drawn by the caller.
    pub id: String,
    /// For whom its agents are.
    pub kind: JobKind,
    /// Name by which its agents are called; empty for agents that come by themselves.
    pub agent_name: String,
    /// Each namespace has an agent of its own.
    pub namespace: String,
    /// Dispatches name the deployment that they want.
    pub deployment: String,
}

impl Registration {
    pub(crate) fn may_have(&self, job: &Job) -> bool {
        self.kind == job.kind
            && self.agent_name == job.agent_name
            && self.namespace == job.namespace
    }

    /// Whether the deployment is named as LiveKit allows it.
    fn is_valid(&self) -> bool {
        let plain = |byte: u8| byte > b' ' && byte != 0x7f && byte != b'_';
        self.deployment.len() <= DEPLOYMENT_BYTES_MAX && self.deployment.bytes().all(plain)
    }
}

/// What a worker answers when a job is offered (`AvailabilityResponse`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// It takes the job.
    pub available: bool,
    /// The job needs no agent at all.
    pub terminate: bool,
    /// Identity of the agent.
    pub identity: String,
    /// Name of the agent.
    pub name: String,
    /// Metadata of the agent.
    pub metadata: String,
    /// Attributes of the agent.
    pub attributes: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(crate) struct Worker {
    /// `None` until it has registered.
    pub(crate) registration: Option<Registration>,
    connected: Instant,
    available: bool,
    load: f32,
    /// Jobs that it was offered and has not answered.
    pub(crate) offers: usize,
    /// Jobs that it was offered since it last said its load.
    pub(crate) unreported: usize,
    pub(crate) running: BTreeSet<u64>,
}

impl Agents {
    /// A worker's socket is open. It has to register soon.
    pub fn handle_connected(&mut self, now: Now, worker: WorkerKey) {
        let new = Worker {
            registration: None,
            connected: now.instant,
            available: true,
            load: 0.0,
            offers: 0,
            unreported: 0,
            running: BTreeSet::new(),
        };
        self.workers.insert(worker, new);
        self.timers.insert((now.instant + REGISTER_TIMEOUT, Timer::Register(worker)));
    }

    /// A worker registers, once.
    pub fn handle_register(&mut self, now: Now, worker: WorkerKey, registration: Registration) {
        let Some(known) = self.workers.get_mut(&worker) else { return };
        if known.registration.is_some() || !registration.is_valid() {
            return self.drop_worker(now, worker);
        }
        known.registration = Some(registration);
        self.events.push_back(Event::Registered { worker });
        let rooms: Vec<RoomName> = self.rooms.keys().cloned().collect();
        for room in rooms {
            self.call(now, &room);
        }
        self.offer_all(now);
    }

    /// Whether it has registered; who says anything else first is cut off.
    pub fn is_registered(&mut self, now: Now, worker: WorkerKey) -> bool {
        let registered = self.registration(worker).is_some();
        if !registered {
            self.drop_worker(now, worker);
        }
        registered
    }

    /// A worker says whether it takes jobs (as before if `None`), and how busy it is, 0 to 1.
    pub fn handle_worker_status(
        &mut self,
        now: Now,
        worker: WorkerKey,
        available: Option<bool>,
        load: f32,
    ) {
        let Some(known) = self.workers.get_mut(&worker) else { return };
        let was_available = known.available;
        known.available = available.unwrap_or(known.available);
        known.load = if load.is_nan() { 1.0 } else { load.clamp(0.0, 1.0) };
        known.unreported = known.offers;
        if known.available && !was_available {
            for number in &self.waiting {
                if let Some(job) = self.jobs.get_mut(number) {
                    job.refused.remove(&worker);
                }
            }
        }
        if known.available {
            self.offer_all(now);
        }
    }

    /// Workers with this load, 0 to 1, or more are asked for no job; their own word alone counts
    /// where it is `None` (LiveKit's `agents.target_load`).
    pub fn set_target_load(&mut self, target: Option<f32>) {
        self.target_load = target;
    }

    /// A worker wants a job of its own, for a test of the agent.
    pub fn handle_simulate(
        &mut self,
        now: Now,
        worker: WorkerKey,
        room: RoomName,
        participant: Option<ParticipantSid>,
    ) {
        let Some(registration) = self.registration(worker).cloned() else { return };
        let kind = if participant.is_some() { JobKind::Publisher } else { JobKind::Room };
        let mut job = Job::new(self.job_id(), room, kind);
        job.participant = participant;
        job.agent_name = registration.agent_name;
        job.namespace = registration.namespace;
        job.only = Some(worker);
        let number = self.insert_job(now, job);
        self.offer(now, number);
        if self.waiting.contains(&number) {
            self.forget(number);
        }
    }

    /// A worker's socket is gone. What it was only asked about goes to others at once.
    pub fn handle_gone(&mut self, now: Now, worker: WorkerKey) {
        let Some(gone) = self.workers.remove(&worker) else { return };
        for number in &gone.running {
            self.orphan(now, *number);
        }
        let asked = |(number, job): (&u64, &Job)| {
            matches!(job.stage, crate::Stage::Offered { worker: of, .. } if of == worker)
                .then_some(*number)
        };
        let asked: Vec<u64> = self.jobs.iter().filter_map(asked).collect();
        for job in self.jobs.values_mut() {
            job.refused.remove(&worker);
        }
        for number in asked {
            if self.jobs.get(&number).is_some_and(|job| job.only.is_some()) {
                self.forget(number);
            } else {
                self.release(now, number);
            }
        }
    }

    pub(crate) fn drop_worker(&mut self, now: Now, worker: WorkerKey) {
        self.events.push_back(Event::Drop { worker });
        self.handle_gone(now, worker);
    }

    pub(crate) fn register_timed_out(&mut self, now: Now, worker: WorkerKey) {
        let late = |known: &Worker| {
            known.registration.is_none() && now.instant >= known.connected + REGISTER_TIMEOUT
        };
        if self.workers.get(&worker).is_some_and(late) {
            self.drop_worker(now, worker);
        }
    }

    /// The worker for a job: it may have it, and has the least load of those. What it took since
    /// it said its load counts; among equals the one with fewer jobs, then chance.
    pub(crate) fn choose(&mut self, now: Instant, number: u64) -> Option<WorkerKey> {
        let chance = self.draw();
        let job = self.jobs.get(&number)?;
        let deployment = self.dispatch_of(job).map_or("", |dispatch| &dispatch.deployment);
        let eligible = self.workers.iter().filter(|(key, worker)| {
            worker.available
                && self.target_load.is_none_or(|target| worker.load < target)
                && worker.offers < OFFERS_MAX
                && job.may_be_asked(**key, now)
                && worker.registration.as_ref().is_some_and(|registration| {
                    let is_its = registration.may_have(job);
                    job.only.is_some() || is_its && registration.deployment == deployment
                })
        });
        let cost = |worker: &Worker| worker.load + UNREPORTED_LOAD * worker.unreported as f32;
        let key = |key: &WorkerKey| (key.0 as u32).wrapping_mul(0x9e37_79b1) ^ chance;
        let least = eligible.min_by(|(a, of_a), (b, of_b)| {
            cost(of_a)
                .total_cmp(&cost(of_b))
                .then(of_a.running.len().cmp(&of_b.running.len()))
                .then(key(a).cmp(&key(b)))
        });
        least.map(|(key, _)| *key)
    }
}
