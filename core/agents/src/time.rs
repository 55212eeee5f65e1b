//! What time brings.

use crate::{Agents, Stage, WorkerKey};
use parlor_model::{Identity, Now, RoomName};
use std::time::Instant;

/// What may be due. Whether it is, is looked up when its time has come.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Timer {
    /// A worker had to register.
    Register(WorkerKey),
    /// A job had to be answered for, may be offered again, or its worker had to come back.
    Job(u64),
    /// An agent had to leave.
    Leave(RoomName, Identity),
    /// Whom a job is for had to come back after a restart.
    Return(RoomName, u64),
}

impl Agents {
    /// When [`Agents::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Does what has become due.
    pub fn handle_timeout(&mut self, now: Now) {
        while let Some((due, _)) = self.timers.first()
            && *due <= now.instant
            && let Some((_, timer)) = self.timers.pop_first()
        {
            match timer {
                Timer::Register(worker) => self.register_timed_out(now, worker),
                Timer::Job(number) => self.job_timed_out(now, number),
                Timer::Leave(room, identity) => self.leave_timed_out(room, identity),
                Timer::Return(room, number) => self.return_timed_out(now, &room, number),
            }
        }
    }

    fn job_timed_out(&mut self, now: Now, number: u64) {
        let Some(job) = self.jobs.get_mut(&number) else { return };
        match job.stage {
            Stage::Offered { worker, due } if due <= now.instant => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.offers = worker.offers.saturating_sub(1);
                }
                self.refused(now, number, worker);
            }
            Stage::Waiting if self.waiting.contains(&number) => self.offer(now, number),
            Stage::Orphaned { due: Some(due) } if due <= now.instant => {
                if job.is_present {
                    job.stage = Stage::Orphaned { due: None };
                } else {
                    self.rescue(now, number);
                }
            }
            _ => {}
        }
    }
}
