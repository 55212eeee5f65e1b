//! A job and its life.

use crate::{
    Agents, Answer, Event, REFUSAL_PAUSE, REFUSALS_MAX, RETURN_TIMEOUT, RUNS_MAX, WorkerKey,
    time::Timer,
};
use parlor_model::{Identity, Now, ParticipantSid, RoomName};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// What an agent is for (`JobType`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
#[allow(missing_docs)]
pub enum JobKind {
    #[default]
    Room,
    Publisher,
    Participant,
}

/// How a job stands, as others are told (`JobStatus`).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub enum JobStatus {
    #[default]
    Pending,
    Running,
    Success,
    Failed,
}

impl JobStatus {
    /// Whether it is over.
    pub fn is_end(self) -> bool {
        matches!(self, JobStatus::Success | JobStatus::Failed)
    }
}

/// Who has a job.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// Nobody.
    Waiting,
    /// A worker was asked and has until then.
    Offered {
        /// The worker.
        worker: WorkerKey,
        /// When it is passed over.
        due: Instant,
    },
    /// A worker runs it.
    Assigned {
        /// The worker.
        worker: WorkerKey,
    },
    /// Its worker is gone.
    Orphaned {
        /// Until when it may come back; `None` while the agent is in its room nevertheless.
        due: Option<Instant>,
    },
    /// It is over.
    Ended,
}

/// One agent that is, or was, called for.
#[derive(Clone, PartialEq, Debug)]
pub struct Job {
    /// `AJ_...`.
    pub id: String,
    /// The dispatch that calls for it; `None` if a worker asked for it (`SimulateJobRequest`).
    pub dispatch: Option<String>,
    /// Its room.
    pub room: RoomName,
    /// What it is for.
    pub kind: JobKind,
    /// Whom it is for, unless it is for the room.
    pub participant: Option<ParticipantSid>,
    /// Its identity, by which it is known after a restart.
    pub participant_identity: Option<Identity>,
    /// Name of the agent; empty for those that come without being called.
    pub agent_name: String,
    /// The namespace of the workers that may have it.
    pub namespace: String,
    /// How it stands.
    pub status: JobStatus,
    /// Why it failed.
    pub error: String,
    /// When it was offered or taken last; zero before.
    pub started_unix: Duration,
    /// When anything of it changed last.
    pub updated_unix: Duration,
    /// When it ended; zero before.
    pub ended_unix: Duration,
    /// Id of the worker that has it or had it last.
    pub worker_id: String,
    /// Identity of its agent, once a worker has said it.
    pub identity: Identity,
    /// Who has it.
    pub stage: Stage,
    /// Only this worker may have it.
    pub(crate) only: Option<WorkerKey>,
    /// Who refused it: how often, and when it may be asked again.
    pub(crate) refused: BTreeMap<WorkerKey, (u32, Instant)>,
    /// How many workers have had it.
    pub(crate) runs: u32,
    /// Whether the agent has been seen in the room since it was assigned.
    pub(crate) is_present: bool,
}

impl Job {
    /// A job that nobody has.
    pub fn new(id: String, room: RoomName, kind: JobKind) -> Self {
        Self {
            id,
            dispatch: None,
            room,
            kind,
            participant: None,
            participant_identity: None,
            agent_name: String::new(),
            namespace: String::new(),
            status: JobStatus::Pending,
            error: String::new(),
            started_unix: Duration::ZERO,
            updated_unix: Duration::ZERO,
            ended_unix: Duration::ZERO,
            worker_id: String::new(),
            identity: "".into(),
            stage: Stage::Waiting,
            only: None,
            refused: BTreeMap::new(),
            runs: 0,
            is_present: false,
        }
    }

    pub(crate) fn may_be_asked(&self, worker: WorkerKey, now: Instant) -> bool {
        let refused = self.refused.get(&worker);
        self.only.is_none_or(|only| only == worker)
            && refused.is_none_or(|(times, again)| *times < REFUSALS_MAX && *again <= now)
    }

    /// The worker that has it.
    pub fn worker(&self) -> Option<WorkerKey> {
        match self.stage {
            Stage::Offered { worker, .. } | Stage::Assigned { worker } => Some(worker),
            _ => None,
        }
    }
}

impl Agents {
    pub(crate) fn insert_job(&mut self, now: Now, job: Job) -> u64 {
        let number = self.next_job;
        self.next_job += 1;
        self.by_id.insert(job.id.clone(), number);
        self.jobs.insert(number, job);
        self.waiting.insert(number);
        self.changed(now, number);
        number
    }

    /// Offers a waiting job to the worker that may have it and has the least to do.
    pub(crate) fn offer(&mut self, now: Now, number: u64) {
        let Some(worker) = self.choose(now.instant, number) else { return };
        let Some(job) = self.jobs.get_mut(&number) else { return };
        let Some(chosen) = self.workers.get_mut(&worker) else { return };
        chosen.offers += 1;
        chosen.unreported += 1;
        let due = now.instant + crate::AVAILABILITY_TIMEOUT;
        job.stage = Stage::Offered { worker, due };
        job.status = JobStatus::Running;
        job.started_unix = now.unix;
        job.worker_id = chosen.registration.as_ref().map_or(String::new(), |r| r.id.clone());
        let (id, resuming) = (job.id.clone(), job.runs > 0);
        self.waiting.remove(&number);
        self.timers.insert((due, Timer::Job(number)));
        self.changed(now, number);
        self.events.push_back(Event::Offer { worker, job: id, resuming });
    }

    /// Offers every waiting job, oldest first.
    pub(crate) fn offer_all(&mut self, now: Now) {
        for number in self.waiting.clone() {
            self.offer(now, number);
        }
    }

    /// Nobody has the job any more: it waits again, or has been tried often enough.
    pub(crate) fn release(&mut self, now: Now, number: u64) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        if job.runs >= RUNS_MAX {
            return self.end(now, number, JobStatus::Failed, "agent workers died too often");
        }
        job.stage = Stage::Waiting;
        job.status = JobStatus::Pending;
        job.is_present = false;
        job.worker_id.clear();
        let room = self.rooms.get(&job.room);
        if room.is_some_and(|room| room.awaits_participant_of(number)) {
            return self.changed(now, number);
        }
        self.waiting.insert(number);
        self.changed(now, number);
        self.offer(now, number);
    }

    pub(crate) fn end(&mut self, now: Now, number: u64, status: JobStatus, error: &str) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        if let Stage::Offered { worker, .. } = job.stage
            && let Some(worker) = self.workers.get_mut(&worker)
        {
            worker.offers = worker.offers.saturating_sub(1);
        }
        job.stage = Stage::Ended;
        job.status = status;
        job.error = error.to_owned();
        job.ended_unix = now.unix;
        self.waiting.remove(&number);
        if job.dispatch.is_none() {
            return self.forget(number);
        }
        self.changed(now, number);
        self.trim_ended(number);
    }

    pub(crate) fn forget(&mut self, number: u64) {
        self.waiting.remove(&number);
        if let Some(job) = self.jobs.remove(&number) {
            self.by_id.remove(&job.id);
        }
        for worker in self.workers.values_mut() {
            worker.running.remove(&number);
        }
    }

    /// Ends a job that is no longer wanted. Returns the agent that should leave.
    pub(crate) fn terminate(&mut self, now: Now, number: u64) -> Option<(RoomName, Identity)> {
        let job = self.jobs.get(&number)?;
        let (stage, room, identity) = (job.stage, job.room.clone(), job.identity.clone());
        let is_present = job.is_present;
        if let (Stage::Assigned { worker }, id) = (stage, job.id.clone()) {
            self.events.push_back(Event::Terminate { worker, job: id });
        }
        if stage != Stage::Ended {
            self.end(now, number, JobStatus::Success, "");
        }
        (is_present && stage != Stage::Ended).then_some((room, identity))
    }

    /// A worker answers an offer.
    pub fn handle_answer(&mut self, now: Now, worker: WorkerKey, job: &str, answer: Answer) {
        let Some(number) = self.by_id.get(job).copied() else { return };
        let Some(known) = self.jobs.get_mut(&number) else { return };
        let is_asked =
            matches!(known.stage, Stage::Offered { worker: asked, .. } if asked == worker);
        // Who answers late may have the job while nobody else has it.
        let is_late = known.stage == Stage::Waiting && known.refused.contains_key(&worker);
        if !is_asked && !is_late {
            return;
        }
        if is_asked && let Some(worker) = self.workers.get_mut(&worker) {
            worker.offers = worker.offers.saturating_sub(1);
        }
        if answer.terminate {
            self.end(now, number, JobStatus::Success, "");
        } else if !answer.available {
            if is_asked {
                self.refused(now, number, worker);
            }
        } else {
            known.stage = Stage::Assigned { worker };
            known.status = JobStatus::Running;
            known.runs += 1;
            known.is_present = false;
            known.identity = answer.identity.as_str().into();
            if let Some(worker) = self.workers.get_mut(&worker) {
                worker.running.insert(number);
                known.worker_id =
                    worker.registration.as_ref().map_or(String::new(), |r| r.id.clone());
            }
            let (room, identity) = (known.room.clone(), known.identity.clone());
            self.waiting.remove(&number);
            if let Some(room) = self.rooms.get_mut(&room) {
                room.agents.insert(identity, number);
            }
            self.changed(now, number);
            let job = job.to_owned();
            self.events.push_back(Event::Assign { worker, job, answer });
        }
        self.offer_all(now);
    }

    /// A worker does not want a job, or does not say: somebody else is asked.
    pub(crate) fn refused(&mut self, now: Now, number: u64, worker: WorkerKey) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        if job.only.is_some() {
            return self.end(now, number, JobStatus::Failed, "refused");
        }
        let again = now.instant + REFUSAL_PAUSE;
        let refused = job.refused.entry(worker).or_insert((0, again));
        *refused = (refused.0 + 1, again);
        if refused.0 < REFUSALS_MAX {
            self.timers.insert((again, Timer::Job(number)));
        }
        job.stage = Stage::Waiting;
        job.status = JobStatus::Pending;
        job.worker_id.clear();
        self.waiting.insert(number);
        self.changed(now, number);
        self.offer(now, number);
    }

    /// A worker says how a job stands.
    pub fn handle_job_status(
        &mut self,
        now: Now,
        worker: WorkerKey,
        job: &str,
        status: JobStatus,
        error: &str,
    ) {
        let Some(number) = self.by_id.get(job).copied() else { return };
        let Some(known) = self.jobs.get_mut(&number) else { return };
        let registered = self.workers.get_mut(&worker);
        let is_its = registered.is_some_and(|worker| match status.is_end() {
            true => worker.running.remove(&number),
            false => worker.running.contains(&number),
        });
        if !is_its {
            return;
        }
        if status.is_end() {
            self.end(now, number, status, error);
        } else if known.stage != Stage::Ended {
            known.status = status;
            known.error = error.to_owned();
            self.changed(now, number);
        }
    }

    /// A worker that has come back says which jobs it runs.
    pub fn handle_migrate(&mut self, now: Now, worker: WorkerKey, jobs: &[String]) {
        for id in jobs {
            let Some(number) = self.by_id.get(id).copied() else { continue };
            let Some(job) = self.jobs.get_mut(&number) else { continue };
            let Some(back) = self.workers.get_mut(&worker) else { return };
            let Some(registration) = &back.registration else { return };
            match job.stage {
                Stage::Assigned { worker: other } if other == worker => {}
                Stage::Orphaned { .. } | Stage::Waiting if registration.may_have(job) => {
                    job.stage = Stage::Assigned { worker };
                    job.status = JobStatus::Running;
                    job.worker_id = registration.id.clone();
                    back.running.insert(number);
                    self.waiting.remove(&number);
                    self.changed(now, number);
                }
                // Somebody else has it by now, or it is over.
                _ => {
                    let job = id.clone();
                    self.events.push_back(Event::Terminate { worker, job });
                }
            }
        }
    }

    /// The worker of a job is gone.
    pub(crate) fn orphan(&mut self, now: Now, number: u64) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        if job.stage == Stage::Ended {
            return;
        }
        let due = now.instant + RETURN_TIMEOUT;
        job.stage = Stage::Orphaned { due: Some(due) };
        self.timers.insert((due, Timer::Job(number)));
        self.changed(now, number);
    }

    /// The agent of an orphaned job is not there either.
    pub(crate) fn rescue(&mut self, now: Now, number: u64) {
        let Some(job) = self.jobs.get(&number) else { return };
        let restarts = self.dispatch_of(job).is_none_or(|dispatch| dispatch.restarts);
        if restarts {
            self.release(now, number);
        } else {
            self.end(now, number, JobStatus::Failed, "agent worker died");
        }
    }
}
