//! The control thread: it owns the [`Node`] and brings it what the gateway and the media threads
//! have, one input at a time.

use crate::outbox::Outlet;
use parlor_model::Now;
use parlor_node::{
    Counters, Counts, Limits, Node, RoomSnapshot, Statistics,
    io::{Input, Output},
};
use parlor_sfu::LinkReport;
use parlor_signal::ApiKeys;
use parlor_workers::{
    HalfOpenCounters, SendCommandError, WorkerCounters, WorkerGone, WorkerHandle, WorkerPanicked,
    Workers,
};
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::{Notify, mpsc, oneshot};

/// Most inputs that wait for the node; who has more waits itself.
pub const MAILBOX: usize = 1024;
/// Inputs that are handled before the media threads are looked at again.
const BATCH: usize = 64;
/// How often traffic is measured, where it is limited.
const TRAFFIC_INTERVAL: Duration = Duration::from_secs(2);

/// Why the control thread ended before it was told to.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum ControlError {
    #[error(transparent)]
    Worker(#[from] WorkerGone),
    #[error(transparent)]
    Panicked(#[from] WorkerPanicked),
    #[error("cannot wait for timers: {0}")]
    Runtime(#[from] std::io::Error),
}

/// What the operator wants of the control thread.
#[derive(Debug)]
pub enum Order {
    /// Totals, for metrics.
    Count(oneshot::Sender<Counted>),
    /// Every room, and why its participants get what they get.
    Show(oneshot::Sender<Shown>),
    /// Other keys and limits.
    Reconfigure(ApiKeys, Limits),
}

/// Every room, and where each media thread's word about the ways to its peers will come.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Shown {
    pub rooms: Vec<RoomSnapshot>,
    pub links: Vec<oneshot::Receiver<Vec<LinkReport>>>,
}

/// What a node has counted, and where what each media thread has will come.
#[derive(Debug)]
#[allow(missing_docs)]
pub struct Counted {
    pub node_id: String,
    pub counts: Counts,
    pub counters: Counters,
    pub statistics: Statistics,
    pub workers: Vec<oneshot::Receiver<WorkerCounters>>,
    pub half_open: Option<HalfOpenCounters>,
}

/// All that the control thread holds.
pub struct Control {
    /// The server's state.
    pub node: Node,
    /// The media threads.
    pub workers: Workers,
    /// Where the node's answers go.
    pub outlet: Outlet,
    /// What the gateway and the signal handler have for the node.
    pub inputs: mpsc::Receiver<Input>,
    /// What the operator wants to know or change.
    pub orders: mpsc::Receiver<Order>,
    /// A media thread has news.
    pub media: Arc<Notify>,
    /// What media has taken.
    pub traffic: Traffic,
}

/// Bytes of media in both directions, and when they were counted.
#[derive(Debug)]
pub struct Traffic {
    counted: Instant,
    bytes: u64,
    /// Of each media thread, by what it said last.
    by_thread: Vec<u64>,
    /// Where what media threads had counted then will come.
    asked: Vec<oneshot::Receiver<WorkerCounters>>,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { counted: Instant::now(), bytes: 0, by_thread: Vec::new(), asked: Vec::new() }
    }
}

impl Traffic {
    /// Hears the media threads that were asked before, and will hear those that are asked now. A
    /// thread that is late counts with what it said last. Returns the bytes of all.
    fn hear(&mut self, asked: Vec<oneshot::Receiver<WorkerCounters>>) -> u64 {
        self.by_thread.resize(asked.len(), 0);
        let before = std::mem::replace(&mut self.asked, asked);
        for (bytes, mut told) in self.by_thread.iter_mut().zip(before) {
            if let Ok(counters) = told.try_recv() {
                let (udp, tcp) = (counters.net, counters.tcp.net);
                *bytes = udp.received_bytes + udp.sent_bytes + tcp.received_bytes + tcp.sent_bytes;
            }
        }
        self.by_thread.iter().sum()
    }

    /// Counts anew. Returns bytes a second since it did so last.
    fn measure(&mut self, now: Instant, bytes: u64) -> u64 {
        let ms = now.saturating_duration_since(self.counted).as_millis().max(1);
        let before = std::mem::replace(&mut self.bytes, bytes);
        self.counted = now;
        let rate = u128::from(bytes.saturating_sub(before)) * 1000 / ms;
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

/// The time, for the node.
pub fn now() -> Now {
    let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { instant: Instant::now(), unix }
}

impl Control {
    /// Runs until `stop` comes, or a media thread dies. Blocks; give it a thread of its own.
    pub fn run(mut self, stop: oneshot::Receiver<()>) -> Result<(), ControlError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let result = runtime.block_on(self.exchange(stop));
        match (result, self.workers.stop()) {
            (_, Err(panicked)) => Err(panicked.into()),
            (result, Ok(_)) => result,
        }
    }

    async fn exchange(&mut self, mut stop: oneshot::Receiver<()>) -> Result<(), ControlError> {
        loop {
            let deadline = self.node.poll_timeout();
            let measured = self.node.limits_traffic();
            let measured = measured.then_some(self.traffic.counted + TRAFFIC_INTERVAL);
            tokio::select! {
                _ = &mut stop => return Ok(()),
                () = self.media.notified() => {}
                Some(input) = self.inputs.recv() => self.node.handle(now(), input),
                Some(order) = self.orders.recv() => self.obey(order),
                () = sleep_until(deadline) => {}
                () = sleep_until(measured) => self.measure_traffic(),
            }
            for _ in 0..BATCH {
                let Ok(input) = self.inputs.try_recv() else { break };
                self.node.handle(now(), input);
            }
            let now = now();
            if self.node.poll_timeout().is_some_and(|deadline| deadline <= now.instant) {
                self.node.handle_timeout(now);
            }
            self.take_events()?;
            self.act()?;
        }
    }

    /// By what the media threads said when they were asked last.
    fn measure_traffic(&mut self) {
        let asked = self.count();
        let bytes = self.traffic.hear(asked);
        self.node.set_traffic(self.traffic.measure(Instant::now(), bytes));
    }

    /// Where what each media thread has counted by now will come.
    fn count(&mut self) -> Vec<oneshot::Receiver<WorkerCounters>> {
        let count = |worker: &mut WorkerHandle| {
            let (tell, told) = oneshot::channel();
            let _ = worker.count(move |counters| _ = tell.send(counters));
            told
        };
        self.workers.iter_mut().map(count).collect()
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Count(answer) => {
                let workers = self.count();
                let state = Counted {
                    node_id: self.node.id().to_owned(),
                    counts: self.node.counts(),
                    counters: self.node.counters(),
                    statistics: self.node.statistics().clone(),
                    half_open: self.workers.half_open_counters(),
                    workers,
                };
                let _ = answer.send(state);
            }
            Order::Show(answer) => {
                let explain = |worker: &mut WorkerHandle| {
                    let (tell, told) = oneshot::channel();
                    let _ = worker.explain(move |links| drop(tell.send(links)));
                    told
                };
                let links = self.workers.iter_mut().map(explain).collect();
                let _ = answer.send(Shown { rooms: self.node.snapshot(), links });
            }
            Order::Reconfigure(keys, limits) => self.node.reconfigure(now(), keys, limits),
        }
    }

    fn take_events(&mut self) -> Result<(), ControlError> {
        for worker in self.workers.iter_mut() {
            let shard = worker.id();
            while let Some(event) = worker.poll_event()? {
                self.node.handle(now(), Input::Media { shard, event });
            }
        }
        Ok(())
    }

    fn act(&mut self) -> Result<(), ControlError> {
        while let Some(output) = self.node.poll_output() {
            let Output::Media { shard, command } = output else {
                self.outlet.deliver(output);
                continue;
            };
            let Some(worker) = self.workers.get_mut(shard) else {
                tracing::error!(%shard, "a command for a media thread that does not exist");
                continue;
            };
            match worker.send(command) {
                Ok(()) => {}
                Err(SendCommandError::Gone(gone)) => return Err(gone.into()),
                Err(full @ SendCommandError::Full(_)) => tracing::error!(%full, "command dropped"),
            }
        }
        Ok(())
    }
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traffic_is_what_came_since_it_was_counted() {
        let now = Instant::now();
        let mut traffic = Traffic { counted: now, bytes: 1_000, ..Traffic::default() };
        assert_eq!(traffic.measure(now + TRAFFIC_INTERVAL, 5_000), 2_000);
        assert_eq!(traffic.measure(now + 2 * TRAFFIC_INTERVAL, 5_000), 0);
    }

    /// Else all that it has ever carried would be taken for the traffic of a moment.
    #[test]
    fn a_media_thread_that_is_late_has_not_carried_nothing() {
        let mut traffic = Traffic::default();
        let (tell, told) = oneshot::channel();
        assert_eq!(traffic.hear(vec![told]), 0);
        let mut counters = WorkerCounters::default();
        counters.net.sent_bytes = 5_000;
        tell.send(counters).unwrap();
        let (_late, told) = oneshot::channel();
        assert_eq!(traffic.hear(vec![told]), 5_000);
        let (_later, told) = oneshot::channel();
        assert_eq!(traffic.hear(vec![told]), 5_000);
    }
}
