//! Which agent worker does which job: LiveKit's worker protocol and dispatch as rules.
//!
//! A *worker* is a process that connects to `/agent` and offers to run agents of one name for
//! rooms, publishers or participants. A *dispatch* asks for agents of one name in one room. A
//! *job* is one agent that a dispatch calls for. [`Agents`] is a plain value: `handle_*` tell it
//! of workers and rooms, [`Agents::poll_event`] says what has to be sent, time passes by
//! [`Agents::handle_timeout`]. It never sees sockets, protobuf or tokens, and of a room it knows
//! only who is in it.
//!
//! A job is offered to one worker at a time: the one with the least load among those that may
//! have it. Who refuses or does not answer is passed over for a while, and the next is asked. A
//! job for which there is nobody waits; so does one whose worker has died until its agent is
//! out of the room, or until the worker had time to come back and say that it still runs it.
//!
//! ```
//! use parlor_agents::{Agents, Answer, Dispatch, Event, Registration, WorkerKey};
//! use parlor_model::Now;
//! use std::time::{Duration, Instant};
//!
//! let now = Now { instant: Instant::now(), unix: Duration::from_secs(1_800_000_000) };
//! let mut agents = Agents::new([7; 32]);
//! let worker = WorkerKey(1);
//! agents.handle_connected(now, worker);
//! agents.handle_register(now, worker, Registration { id: "AW_1".into(), ..Default::default() });
//! agents.handle_room_created(now, "demo".into());
//! let dispatch = Dispatch { id: "AD_1".into(), ..Dispatch::new("demo".into()) };
//! agents.handle_dispatch(now, dispatch).expect("the room exists");
//! assert_eq!(agents.poll_event(), Some(Event::Registered { worker }));
//! let changed = Event::Changed { room: "demo".into(), dispatch: "AD_1".into() };
//! assert_eq!(agents.poll_event(), Some(changed));
//! let Some(Event::Offer { job, .. }) = agents.poll_event() else { panic!("a worker is there") };
//! let answer = Answer { available: true, identity: "agent".into(), ..Default::default() };
//! agents.handle_answer(now, worker, &job, answer);
//! let events: Vec<Event> = std::iter::from_fn(|| agents.poll_event()).collect();
//! assert!(matches!(events.last(), Some(Event::Assign { .. })));
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod dispatch;
mod job;
mod time;
mod worker;

#[cfg(test)]
mod tests;

pub use dispatch::{DISPATCHES_MAX, Dispatch, DispatchError, PARTICIPANT_RETURN_TIMEOUT};
pub use job::{Job, JobKind, JobStatus, Stage};
pub use worker::{Answer, DEPLOYMENT_BYTES_MAX, OFFERS_MAX, Registration, WorkerKey};

use dispatch::RoomAgents;
use parlor_model::{Identity, Now, RoomName};
use rand_chacha::{
    ChaCha12Rng,
    rand_core::{Rng, SeedableRng},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::{Duration, Instant},
};
use worker::Worker;

/// A worker that has not registered this long after it connected is cut off.
pub const REGISTER_TIMEOUT: Duration = Duration::from_secs(10);
/// A worker that has not answered an offer for so long is passed over.
pub const AVAILABILITY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the jobs of a worker that is gone wait for it to come back.
pub const RETURN_TIMEOUT: Duration = Duration::from_secs(15);
/// An agent that is still in the room this long after its dispatch was deleted is removed.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(3);
/// A worker that refused a job is asked again after this, in case it was only full.
pub const REFUSAL_PAUSE: Duration = Duration::from_secs(10);
/// A worker that has refused a job so often is never asked again for it.
pub const REFUSALS_MAX: u32 = 3;
/// A job whose workers have died so often has failed.
pub const RUNS_MAX: u32 = 5;
/// Jobs that have ended are listed up to this many a dispatch; the oldest go first.
pub const ENDED_JOBS_MAX: usize = 100;

/// The shortuuid alphabet, without letters that look alike.
const ID_ALPHABET: &[u8; 57] = b"23456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const ID_LENGTH: usize = 12;

/// What has to happen outside.
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// Tell the worker that it is registered.
    Registered {
        /// The worker.
        worker: WorkerKey,
    },
    /// Close the worker's socket without a word.
    Drop {
        /// The worker.
        worker: WorkerKey,
    },
    /// Ask the worker whether it takes the job.
    Offer {
        /// The worker.
        worker: WorkerKey,
        /// The job.
        job: String,
        /// It ran on another worker before.
        resuming: bool,
    },
    /// The job is the worker's: it needs a token for its agent.
    Assign {
        /// The worker.
        worker: WorkerKey,
        /// The job.
        job: String,
        /// What the worker said of the agent.
        answer: Answer,
    },
    /// Tell the worker to end the job.
    Terminate {
        /// The worker.
        worker: WorkerKey,
        /// The job.
        job: String,
    },
    /// An agent did not leave in time: remove it from the room.
    Remove {
        /// The room.
        room: RoomName,
        /// The agent.
        identity: Identity,
    },
    /// A dispatch or one of its jobs is not as it was.
    Changed {
        /// The room.
        room: RoomName,
        /// The dispatch.
        dispatch: String,
    },
}

/// How much there is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[allow(missing_docs)]
pub struct AgentCounts {
    pub workers: usize,
    pub dispatches: usize,
    pub jobs_waiting: usize,
    pub jobs_running: usize,
}

/// Workers, dispatches and jobs. See the crate's page.
#[derive(Debug)]
pub struct Agents {
    rng: ChaCha12Rng,
    workers: BTreeMap<WorkerKey, Worker>,
    rooms: BTreeMap<RoomName, RoomAgents>,
    /// By number, so that they are gone through in the order of their creation.
    jobs: BTreeMap<u64, Job>,
    by_id: BTreeMap<String, u64>,
    next_job: u64,
    target_load: Option<f32>,
    /// Jobs that nobody has.
    waiting: BTreeSet<u64>,
    /// What time may bring; entries that no longer hold are passed over.
    timers: BTreeSet<(Instant, time::Timer)>,
    events: VecDeque<Event>,
}

impl Agents {
    /// No workers and no rooms. The seed decides ids of jobs and who is asked among equals.
    pub fn new(seed: [u8; 32]) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        // A stream of its own: the caller may use the seed too.
        rng.set_stream(1);
        Self {
            rng,
            workers: BTreeMap::new(),
            rooms: BTreeMap::new(),
            jobs: BTreeMap::new(),
            by_id: BTreeMap::new(),
            next_job: 0,
            target_load: None,
            waiting: BTreeSet::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
        }
    }

    /// What has to happen outside, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// How much there is.
    pub fn counts(&self) -> AgentCounts {
        let running =
            |job: &&Job| matches!(job.stage, Stage::Assigned { .. } | Stage::Orphaned { .. });
        AgentCounts {
            workers: self.workers.values().filter(|worker| worker.registration.is_some()).count(),
            dispatches: self.rooms.values().map(|room| room.dispatches.len()).sum(),
            jobs_waiting: self.waiting.len(),
            jobs_running: self.jobs.values().filter(running).count(),
        }
    }

    /// A job by its id.
    pub fn job(&self, id: &str) -> Option<&Job> {
        self.jobs.get(self.by_id.get(id)?)
    }

    /// What a worker registered as.
    pub fn registration(&self, worker: WorkerKey) -> Option<&Registration> {
        self.workers.get(&worker)?.registration.as_ref()
    }

    fn draw(&mut self) -> u32 {
        self.rng.next_u32()
    }

    fn job_id(&mut self) -> String {
        // The alphabet is short, so the bias of the remainder does not matter.
        let letter = |_| ID_ALPHABET.get(self.rng.next_u32() as usize % ID_ALPHABET.len());
        let letters = (0..ID_LENGTH).filter_map(letter).map(|byte| char::from(*byte));
        format!("AJ_{}", letters.collect::<String>())
    }

    /// Says that a job, and with it its dispatch, is not as it was.
    fn changed(&mut self, now: Now, number: u64) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        job.updated_unix = now.unix;
        let Some(dispatch) = job.dispatch.clone() else { return };
        let room = job.room.clone();
        self.dispatch_changed(room, dispatch);
    }

    fn dispatch_changed(&mut self, room: RoomName, dispatch: String) {
        let changed = Event::Changed { room, dispatch };
        if self.events.back() != Some(&changed) {
            self.events.push_back(changed);
        }
    }
}
