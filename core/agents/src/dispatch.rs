//! Dispatches, and what rooms tell of those who are in them.

use crate::{
    Agents, ENDED_JOBS_MAX, Event, Job, JobKind, JobStatus, LEAVE_TIMEOUT, Stage, time::Timer,
};
use parlor_model::{Identity, Now, ParticipantSid, RoomName};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long jobs for a participant wait for it to come back after a restart.
pub const PARTICIPANT_RETURN_TIMEOUT: Duration = Duration::from_secs(60);
/// Most dispatches of one room.
pub const DISPATCHES_MAX: usize = 1_000;

/// A call for agents of one name in one room.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Dispatch {
    /// `AD_...`, drawn by the caller.
    pub id: String,
    /// The room.
    pub room: RoomName,
    /// The agent; empty for those that come by themselves.
    pub agent_name: String,
    /// Given to the agent.
    pub metadata: String,
    /// The deployment of the agent that is wanted.
    pub deployment: String,
    /// Given to the agent.
    pub attributes: BTreeMap<String, String>,
    /// Whether its jobs are offered again when their worker dies.
    pub restarts: bool,
    /// When it was made, since the Unix epoch.
    pub created_unix: Duration,
}

impl Dispatch {
    /// A call for those agents that come by themselves.
    pub fn new(room: RoomName) -> Self {
        Self {
            id: String::new(),
            room,
            agent_name: String::new(),
            metadata: String::new(),
            deployment: String::new(),
            attributes: BTreeMap::new(),
            restarts: true,
            created_unix: Duration::ZERO,
        }
    }
}

/// Why there is no such dispatch.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum DispatchError {
    /// The room has no dispatch of this id.
    #[error("dispatch ID not found")]
    NotFound,
    /// The room has too many.
    #[error("too many dispatches in this room")]
    TooMany,
}

/// One job that a dispatch calls for: its kind, for whom, and in which namespace.
type Call = (String, JobKind, Option<ParticipantSid>, String);

#[derive(Debug, Default)]
pub(crate) struct RoomAgents {
    /// Oldest first.
    pub(crate) dispatches: Vec<Dispatch>,
    /// Who may have agents of its own.
    present: BTreeMap<ParticipantSid, Present>,
    /// Jobs from before a restart for whoever bears this identity, once it is back.
    returning: BTreeSet<(Identity, u64)>,
    /// What has been called for.
    calls: BTreeMap<Call, u64>,
    /// The agents that were assigned, by identity.
    pub(crate) agents: BTreeMap<Identity, u64>,
    /// Agents that have to leave.
    leaving: BTreeSet<Identity>,
}

impl RoomAgents {
    /// Whether whom a job is for has not come back after a restart yet.
    pub(crate) fn awaits_participant_of(&self, number: u64) -> bool {
        self.returning.iter().any(|(_, awaited)| *awaited == number)
    }
}

#[derive(Debug)]
struct Present {
    identity: Identity,
    publishes: bool,
}

impl Agents {
    /// A room exists.
    pub fn handle_room_created(&mut self, _now: Now, room: RoomName) {
        self.rooms.entry(room).or_default();
    }

    /// A room has ended: so do its dispatches and jobs.
    pub fn handle_room_closed(&mut self, now: Now, room: &RoomName) {
        let Some(gone) = self.rooms.remove(room) else { return };
        let of_room: Vec<u64> =
            self.jobs.iter().filter(|(_, job)| job.room == *room).map(|(n, _)| *n).collect();
        for number in of_room {
            self.terminate(now, number);
            self.forget(number);
        }
        for dispatch in gone.dispatches {
            self.dispatch_changed(room.clone(), dispatch.id);
        }
    }

    /// Agents are called for. The room has to exist.
    pub fn handle_dispatch(&mut self, now: Now, dispatch: Dispatch) -> Result<(), DispatchError> {
        let room = self.rooms.get_mut(&dispatch.room).ok_or(DispatchError::NotFound)?;
        if room.dispatches.len() >= DISPATCHES_MAX {
            return Err(DispatchError::TooMany);
        }
        let (name, id) = (dispatch.room.clone(), dispatch.id.clone());
        room.dispatches.push(dispatch);
        self.dispatch_changed(name.clone(), id);
        self.call(now, &name);
        Ok(())
    }

    /// A dispatch that outlived a restart, with its jobs. Their workers may come back
    /// ([`crate::RETURN_TIMEOUT`]). A job for a participant names its identity, and waits for it
    /// ([`PARTICIPANT_RETURN_TIMEOUT`]).
    pub fn restore_dispatch(
        &mut self,
        now: Now,
        dispatch: Dispatch,
        jobs: Vec<Job>,
    ) -> Result<(), DispatchError> {
        let room = self.rooms.get_mut(&dispatch.room).ok_or(DispatchError::NotFound)?;
        let (name, id) = (dispatch.room.clone(), dispatch.id.clone());
        room.dispatches.push(dispatch);
        for mut job in jobs {
            let ended = job.status.is_end();
            job.dispatch = Some(id.clone());
            job.room = name.clone();
            let whom = job.participant_identity.clone();
            let call = (id.clone(), job.kind, job.participant.clone(), job.namespace.clone());
            let identity = job.identity.clone();
            let has_run = job.status == JobStatus::Running && !identity.as_str().is_empty();
            if ended {
                job.stage = Stage::Ended;
            } else {
                job.status = JobStatus::Pending;
            }
            let number = self.insert_job(now, job);
            if ended {
                self.waiting.remove(&number);
            } else if has_run {
                self.waiting.remove(&number);
                self.orphan(now, number);
            }
            if let Some(room) = self.rooms.get_mut(&name) {
                room.calls.insert(call, number);
                if has_run {
                    room.agents.insert(identity, number);
                }
                if let Some(whom) = whom.filter(|_| !ended) {
                    room.returning.insert((whom, number));
                    self.waiting.remove(&number);
                    let due = now.instant + PARTICIPANT_RETURN_TIMEOUT;
                    self.timers.insert((due, Timer::Return(name.clone(), number)));
                }
            }
        }
        Ok(())
    }

    /// A participant for whom there were jobs before a restart is back, under another sid. A job
    /// that nobody has is offered; one whose worker is awaited goes on waiting for that.
    fn take_back(&mut self, now: Now, name: &RoomName, sid: &ParticipantSid) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let Some(back) = room.present.get(sid) else { return };
        let is_due = |number: &u64| {
            let kind = self.jobs.get(number).map(|job| job.kind);
            kind == Some(JobKind::Participant) || back.publishes
        };
        let due = room.returning.iter().filter(|(whom, n)| *whom == back.identity && is_due(n));
        for (whom, number) in due.cloned().collect::<Vec<_>>() {
            room.returning.remove(&(whom, number));
            let Some(job) = self.jobs.get_mut(&number) else { continue };
            job.participant = Some(sid.clone());
            let call =
                room.calls.iter().find(|(_, of)| **of == number).map(|(call, _)| call.clone());
            if let Some(call) = call {
                room.calls.remove(&call);
                room.calls.insert((call.0, call.1, Some(sid.clone()), call.3), number);
            }
            if job.stage == Stage::Waiting {
                self.waiting.insert(number);
            }
        }
        self.offer_all(now);
    }

    /// Whom a job was for has not come back.
    pub(crate) fn return_timed_out(&mut self, now: Now, name: &RoomName, number: u64) {
        let Some(room) = self.rooms.get_mut(name) else { return };
        let before = room.returning.len();
        room.returning.retain(|(_, awaited)| *awaited != number);
        if room.returning.len() < before {
            self.terminate(now, number);
        }
    }

    /// A dispatch is taken back: its jobs end, and their agents have [`LEAVE_TIMEOUT`] to leave.
    /// Returns the dispatch and its jobs as they were.
    pub fn handle_delete(
        &mut self,
        now: Now,
        room: &RoomName,
        id: &str,
    ) -> Result<(Dispatch, Vec<Job>), DispatchError> {
        let jobs: Vec<Job> = self.jobs_of(room, id).cloned().collect();
        let known = self.rooms.get_mut(room).ok_or(DispatchError::NotFound)?;
        let at = known.dispatches.iter().position(|dispatch| dispatch.id == id);
        let dispatch = known.dispatches.remove(at.ok_or(DispatchError::NotFound)?);
        known.calls.retain(|(of, ..), _| of != id);
        for job in &jobs {
            let Some(number) = self.by_id.get(&job.id).copied() else { continue };
            if let Some((room, identity)) = self.terminate(now, number) {
                let due = now.instant + LEAVE_TIMEOUT;
                if let Some(room) = self.rooms.get_mut(&room) {
                    room.leaving.insert(identity.clone());
                }
                self.timers.insert((due, Timer::Leave(room, identity)));
            }
            self.forget(number);
        }
        self.dispatch_changed(room.clone(), id.to_owned());
        Ok((dispatch, jobs))
    }

    /// The dispatches of a room, oldest first; `None` if there is no such room.
    pub fn dispatches(&self, room: &RoomName) -> Option<&[Dispatch]> {
        self.rooms.get(room).map(|room| &room.dispatches[..])
    }

    /// The jobs of a dispatch, oldest first.
    pub fn jobs_of<'a>(&'a self, room: &'a RoomName, id: &'a str) -> impl Iterator<Item = &'a Job> {
        let room = self.rooms.get(room);
        let calls = room.into_iter().flat_map(move |room| {
            room.calls.iter().filter(move |((of, ..), _)| of == id).map(|(_, number)| *number)
        });
        let numbers: BTreeSet<u64> = calls.collect();
        numbers.into_iter().filter_map(|number| self.jobs.get(&number))
    }

    /// The dispatch that calls for a job.
    pub fn dispatch_of(&self, job: &Job) -> Option<&Dispatch> {
        let id = job.dispatch.as_deref()?;
        self.rooms.get(&job.room)?.dispatches.iter().find(|dispatch| dispatch.id == id)
    }

    /// Somebody who may have agents is in the room.
    pub fn handle_joined(
        &mut self,
        now: Now,
        room: &RoomName,
        sid: ParticipantSid,
        identity: Identity,
    ) {
        let Some(known) = self.rooms.get_mut(room) else { return };
        known.present.insert(sid.clone(), Present { identity, publishes: false });
        self.take_back(now, room, &sid);
        self.call(now, room);
    }

    /// It publishes its first track.
    pub fn handle_published(&mut self, now: Now, room: &RoomName, sid: &ParticipantSid) {
        let Some(known) = self.rooms.get_mut(room) else { return };
        let Some(present) = known.present.get_mut(sid) else { return };
        if !std::mem::replace(&mut present.publishes, true) {
            self.take_back(now, room, sid);
            self.call(now, room);
        }
    }

    /// It is out of the room: agents that were for it end.
    pub fn handle_left(&mut self, now: Now, room: &RoomName, sid: &ParticipantSid) {
        let Some(known) = self.rooms.get_mut(room) else { return };
        known.present.remove(sid);
        let of_it = |(_, _, participant, _): &Call| participant.as_ref() == Some(sid);
        let theirs: Vec<u64> =
            known.calls.iter().filter(|(call, _)| of_it(call)).map(|(_, n)| *n).collect();
        for number in theirs {
            self.terminate(now, number);
        }
    }

    /// An agent is in the room.
    pub fn handle_agent_joined(&mut self, room: &RoomName, identity: &Identity) {
        let number = self.rooms.get(room).and_then(|room| room.agents.get(identity));
        if let Some(job) = number.and_then(|number| self.jobs.get_mut(number)) {
            job.is_present = true;
        }
    }

    /// An agent is out of the room. Where its worker lives the job has failed, as LiveKit has it
    /// (the worker may correct that); where the worker is gone somebody else gets it.
    pub fn handle_agent_left(&mut self, now: Now, room: &RoomName, identity: &Identity) {
        let Some(known) = self.rooms.get_mut(room) else { return };
        known.leaving.remove(identity);
        let Some(number) = known.agents.remove(identity) else { return };
        let Some(job) = self.jobs.get_mut(&number) else { return };
        job.is_present = false;
        match job.stage {
            Stage::Assigned { worker } => {
                let id = job.id.clone();
                self.events.push_back(Event::Terminate { worker, job: id });
                self.end(now, number, JobStatus::Failed, "agent worker left the room");
            }
            Stage::Orphaned { .. } => self.rescue(now, number),
            _ => {}
        }
    }

    pub(crate) fn leave_timed_out(&mut self, room: RoomName, identity: Identity) {
        let Some(known) = self.rooms.get_mut(&room) else { return };
        if known.leaving.remove(&identity) {
            self.events.push_back(Event::Remove { room, identity });
        }
    }

    /// Makes the jobs that a room's dispatches call for and for which there are workers.
    pub(crate) fn call(&mut self, now: Now, name: &RoomName) {
        let Some(room) = self.rooms.get(name) else { return };
        let mut missing: Vec<(Call, String)> = Vec::new();
        for dispatch in &room.dispatches {
            let workers = self.workers.values().filter_map(|worker| worker.registration.as_ref());
            let served: BTreeSet<(JobKind, &str)> = workers
                .filter(|worker| {
                    worker.agent_name == dispatch.agent_name
                        && worker.deployment == dispatch.deployment
                })
                .map(|worker| (worker.kind, worker.namespace.as_str()))
                .collect();
            for (kind, namespace) in served {
                let call = |sid: Option<&ParticipantSid>| {
                    (dispatch.id.clone(), kind, sid.cloned(), namespace.to_owned())
                };
                let calls: Vec<Call> = match kind {
                    JobKind::Room => vec![call(None)],
                    JobKind::Participant => room.present.keys().map(|s| call(Some(s))).collect(),
                    JobKind::Publisher => {
                        let publishers = room.present.iter().filter(|(_, known)| known.publishes);
                        publishers.map(|(sid, _)| call(Some(sid))).collect()
                    }
                };
                let new = calls.into_iter().filter(|call| !room.calls.contains_key(call));
                missing.extend(new.map(|call| (call, dispatch.agent_name.clone())));
            }
        }
        for (call, agent_name) in missing {
            let (dispatch, kind, participant, namespace) = call.clone();
            let mut job = Job::new(self.job_id(), name.clone(), kind);
            (job.dispatch, job.participant) = (Some(dispatch), participant);
            let whom =
                job.participant.as_ref().and_then(|sid| self.rooms.get(name)?.present.get(sid));
            job.participant_identity = whom.map(|known| known.identity.clone());
            (job.namespace, job.agent_name) = (namespace, agent_name);
            let number = self.insert_job(now, job);
            if let Some(room) = self.rooms.get_mut(name) {
                room.calls.insert(call, number);
            }
            self.offer(now, number);
        }
    }

    /// Forgets ended jobs of those who have left, as far as a dispatch has too many.
    pub(crate) fn trim_ended(&mut self, number: u64) {
        let Some(job) = self.jobs.get(&number) else { return };
        let Some(dispatch) = job.dispatch.clone() else { return };
        let Some(room) = self.rooms.get_mut(&job.room) else { return };
        let gone = room.calls.iter().filter(|((of, _, sid, _), number)| {
            *of == dispatch
                && sid.as_ref().is_some_and(|sid| !room.present.contains_key(sid))
                && self.jobs.get(number).is_some_and(|job| job.stage == Stage::Ended)
        });
        let mut gone: Vec<(u64, Call)> = gone.map(|(call, n)| (*n, call.clone())).collect();
        gone.sort();
        let excess = gone.len().saturating_sub(ENDED_JOBS_MAX);
        for (number, call) in gone.into_iter().take(excess) {
            room.calls.remove(&call);
            if let Some(job) = self.jobs.remove(&number) {
                self.by_id.remove(&job.id);
            }
            for worker in self.workers.values_mut() {
                worker.running.remove(&number);
            }
        }
    }
}
