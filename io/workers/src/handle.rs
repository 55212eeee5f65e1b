//! The control thread's side.

use crate::{
    StartError, WorkersConfig,
    link::connect,
    relay::ring_slots,
    shared::share,
    tcp::{Acceptor, Connections, HANDOVER_RING, HalfOpenCounters, SharedCounters},
    worker::{ToWorker, Told, Worker, WorkerCounters},
};
use parlor_model::{DataChannel, ShardId, TransportAddress, TransportProtocol};
use parlor_ring::{Waker, ring, wakeup};
use parlor_sfu::{
    LinkReport, Shard, ShardConfig,
    command::{MediaCommand, MediaEvent},
};
use std::{
    collections::VecDeque,
    sync::Arc,
    thread::{self, JoinHandle},
    time::Duration,
};

/// Commands that the ring to a worker holds.
pub(crate) const COMMAND_RING: usize = 1024;

/// Events that the ring from a worker holds.
const EVENT_RING: usize = 1024;

/// Media threads go before what else the process does on their processors: signalling, joins.
const MEDIA_NICE: i32 = -10;

/// What a peer is owed within this time leaves together.
const GATHERING: Duration = Duration::from_millis(5);

/// Most commands that wait in a [`WorkerHandle`] because the ring is full.
pub const MAX_QUEUED_COMMANDS: usize = 65_536;

/// The media threads of a server.
#[derive(Debug)]
pub struct Workers {
    workers: Vec<WorkerHandle>,
    threads: Vec<JoinHandle<WorkerCounters>>,
    tcp: Option<AcceptorHandle>,
}

/// The thread that accepts TCP connections.
#[derive(Debug)]
struct AcceptorHandle {
    stop: ring::Sender<()>,
    waker: Waker,
    thread: JoinHandle<()>,
    counters: Arc<SharedCounters>,
}

/// One media thread, as the control thread sees it.
#[derive(Debug)]
pub struct WorkerHandle {
    id: ShardId,
    candidates: Vec<TransportAddress>,
    commands: ring::Sender<ToWorker>,
    events: ring::Receiver<MediaEvent>,
    waker: Waker,
    queued: VecDeque<ToWorker>,
    lossy_dropped: u64,
}

/// The worker has ended by a panic; its peers are lost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("media thread {0} has died")]
pub struct WorkerGone(pub ShardId);

/// Why a command was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SendCommandError {
    /// The worker has been behind by [`MAX_QUEUED_COMMANDS`].
    #[error("media thread {0} does not keep up with its commands")]
    Full(ShardId),
    /// The worker is dead.
    #[error(transparent)]
    Gone(#[from] WorkerGone),
}

/// A media thread ended by a panic.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("media thread {worker} panicked: {message}")]
pub struct WorkerPanicked {
    /// Which.
    pub worker: ShardId,
    /// What it said.
    pub message: String,
}

impl Workers {
    /// Binds all sockets, then starts the threads. `notify` is called from the workers' threads
    /// whenever a handle is worth polling; it must not block.
    ///
    /// # Errors
    /// See [`StartError`]; then no thread runs and no port is held.
    pub fn start(
        config: WorkersConfig,
        notify: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, StartError> {
        let open = config.open()?;
        let listen = config.tcp.map(|tcp| config.listen(tcp).map(|listen| (listen, tcp.limits)));
        let listen = listen.transpose()?;
        let (active_red_encoding, slow_reader_bps) =
            (config.active_red_encoding, config.slow_reader_bps);
        let mut takers = Vec::new();
        let notify: Arc<dyn Fn() + Send + Sync> = Arc::new(notify);
        let mut workers = Self { workers: Vec::new(), threads: Vec::new(), tcp: None };
        let wakeups = open.iter().map(|_| wakeup()).collect::<Result<Vec<_>, _>>()?;
        let (wakers, wakeups): (Vec<_>, Vec<_>) = wakeups.into_iter().unzip();
        let links = connect(&wakers, ring_slots(wakers.len(), config.shares_port));
        let parts = open.into_iter().zip(config.seeds).zip(wakeups.into_iter().zip(links));
        let mut shared = config.shares_port.then(|| share(&wakers).into_iter());
        for (index, (((sockets, addresses), seed), (wakeup, relays))) in parts.enumerate() {
            let id = ShardId(index as u32);
            let (commands, commands_out) = ring::channel(COMMAND_RING);
            let (events_in, events) = ring::channel(EVENT_RING);
            let waker = wakers[index].clone();
            let mut candidates = addresses.announced(TransportProtocol::Udp);
            let mut tcp = None;
            if let Some(((_, addresses), _)) = &listen {
                candidates.extend(Acceptor::announced(addresses));
                let (incoming, incoming_out) = ring::channel(HANDOVER_RING);
                takers.push((incoming, waker.clone()));
                tcp = Some(Connections::new(incoming_out)?);
            }
            let shard_config = ShardConfig {
                id,
                identity: config.identity.clone(),
                local_addresses: candidates.clone(),
                seed,
            };
            let notify = notify.clone();
            let shared = shared.as_mut().and_then(Iterator::next);
            let run = move || {
                // Tells the control thread when this one ends, whichever way; declared first, so
                // dropped after the worker and its end of the rings.
                let _farewell = Farewell(notify.clone());
                // Without the right to it, media waits its turn as everything else.
                let _ = rustix::process::setpriority_process(None, MEDIA_NICE);
                let mut shard = Shard::new(shard_config);
                shard.set_gathering(GATHERING);
                shard.set_active_red_encoding(active_red_encoding);
                shard.set_slow_reader_threshold(slow_reader_bps);
                Worker::new(shard, sockets, addresses, commands_out, events_in, notify, wakeup)
                    .with_tcp(tcp)
                    .with_links(relays, shared)
                    .run()
            };
            // From here on an early return drops `workers`, which stops what already runs.
            let thread = thread::Builder::new().name(format!("media-{index}")).spawn(run)?;
            workers.threads.push(thread);
            workers.workers.push(WorkerHandle {
                id,
                candidates,
                commands,
                events,
                waker,
                queued: VecDeque::new(),
                lossy_dropped: 0,
            });
        }
        if let Some(((listeners, addresses), limits)) = listen {
            let (waker, wakeup) = wakeup()?;
            let (stop, stopped) = ring::channel(1);
            let counters = Arc::<SharedCounters>::default();
            let acceptor = Acceptor {
                listeners,
                addresses,
                limits,
                workers: takers,
                wakeup,
                stop: stopped,
                counters: counters.clone(),
            };
            let thread = thread::Builder::new().name("accept-media".to_owned());
            let thread = thread.spawn(move || acceptor.run())?;
            workers.tcp = Some(AcceptorHandle { stop, waker, thread, counters });
        }
        Ok(workers)
    }

    /// What became of TCP connections before a worker had them; `None` where none are accepted.
    pub fn half_open_counters(&self) -> Option<HalfOpenCounters> {
        self.tcp.as_ref().map(|tcp| tcp.counters.read())
    }

    /// The worker that owns a shard.
    pub fn get_mut(&mut self, shard: ShardId) -> Option<&mut WorkerHandle> {
        self.workers.get_mut(shard.0 as usize)
    }

    /// All workers; the number of each is its shard's.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &WorkerHandle> {
        self.workers.iter()
    }

    /// All workers; the number of each is its shard's.
    pub fn iter_mut(&mut self) -> impl ExactSizeIterator<Item = &mut WorkerHandle> {
        self.workers.iter_mut()
    }

    /// Lets each worker carry out what its ring holds and ends it. Waits for that, which is a
    /// matter of milliseconds. Returns the totals of each.
    ///
    /// # Errors
    /// The first worker that ended by a panic; all are waited for.
    pub fn stop(mut self) -> Result<Vec<WorkerCounters>, WorkerPanicked> {
        self.join().into_iter().collect()
    }

    fn join(&mut self) -> Vec<Result<WorkerCounters, WorkerPanicked>> {
        if let Some(AcceptorHandle { stop, waker, thread, .. }) = self.tcp.take() {
            drop(stop);
            waker.wake();
            if thread.join().is_err() {
                tracing::error!("the thread that accepts TCP connections has panicked");
            }
        }
        for worker in self.workers.drain(..) {
            let WorkerHandle { commands, waker, .. } = worker;
            drop(commands); // which is how a worker learns that it is to end
            waker.wake();
        }
        let threads = self.threads.drain(..).enumerate();
        threads
            .map(|(index, thread)| {
                thread.join().map_err(|payload| {
                    let text = payload.downcast_ref::<&str>().map(|text| text.to_string());
                    let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
                    WorkerPanicked {
                        worker: ShardId(index as u32),
                        message: text.unwrap_or_default(),
                    }
                })
            })
            .collect()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        for panicked in self.join().into_iter().filter_map(Result::err) {
            tracing::error!("{panicked}");
        }
    }
}

struct Farewell(Arc<dyn Fn() + Send + Sync>);

impl Drop for Farewell {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl WorkerHandle {
    /// Its shard.
    pub fn id(&self) -> ShardId {
        self.id
    }

    /// Where clients reach it: the announced addresses with its port.
    pub fn candidates(&self) -> &[TransportAddress] {
        &self.candidates
    }

    /// Gives the worker a command. Commands are carried out in order.
    ///
    /// When the worker is behind by more than its ring, commands queue here, and lossy messages
    /// are dropped and counted ([`WorkerHandle::lossy_dropped`]).
    ///
    /// # Errors
    /// [`SendCommandError::Full`] when [`MAX_QUEUED_COMMANDS`] wait here; the command is lost.
    /// [`SendCommandError::Gone`] when the worker is dead.
    pub fn send(&mut self, command: MediaCommand) -> Result<(), SendCommandError> {
        let lossy = matches!(
            command,
            MediaCommand::SendData { channel: DataChannel::Lossy | DataChannel::DataTrack, .. }
        );
        self.push(ToWorker::Media(command), lossy)
    }

    /// The oldest event that has not been polled. `None`: there is none until `notify` is called
    /// again.
    ///
    /// # Errors
    /// When the worker is dead and all that it said has been polled.
    pub fn poll_event(&mut self) -> Result<Option<MediaEvent>, WorkerGone> {
        self.push_queued();
        let gone = self.events.is_closed(); // before the last look
        match self.events.pop() {
            None if gone => Err(WorkerGone(self.id)),
            event => Ok(event),
        }
    }

    /// Has `tell` called with what the worker knows of the ways to its peers, on its own thread:
    /// it must not block.
    ///
    /// # Errors
    /// As [`WorkerHandle::send`].
    pub fn explain(
        &mut self,
        tell: impl FnOnce(Vec<LinkReport>) + Send + 'static,
    ) -> Result<(), SendCommandError> {
        self.push(ToWorker::Explain(Told(Box::new(tell))), false)
    }

    /// Has `tell` called with the worker's totals, as [`WorkerHandle::explain`].
    ///
    /// # Errors
    /// As [`WorkerHandle::send`].
    pub fn count(
        &mut self,
        tell: impl FnOnce(WorkerCounters) + Send + 'static,
    ) -> Result<(), SendCommandError> {
        self.push(ToWorker::Count(Told(Box::new(tell))), false)
    }

    /// Lossy messages that were dropped here because the worker was behind.
    pub fn lossy_dropped(&self) -> u64 {
        self.lossy_dropped
    }

    fn push(&mut self, command: ToWorker, lossy: bool) -> Result<(), SendCommandError> {
        if self.commands.is_closed() {
            return Err(WorkerGone(self.id).into());
        }
        self.push_queued();
        let command = if self.queued.is_empty() {
            match self.commands.try_push(command) {
                Ok(()) => {
                    self.waker.wake();
                    return Ok(());
                }
                Err(command) => command,
            }
        } else {
            command
        };
        if lossy {
            self.lossy_dropped += 1;
            return Ok(());
        }
        if self.queued.len() >= MAX_QUEUED_COMMANDS {
            return Err(SendCommandError::Full(self.id));
        }
        self.queued.push_back(command);
        Ok(())
    }

    fn push_queued(&mut self) {
        let mut pushed = false;
        while !self.commands.is_full()
            && let Some(command) = self.queued.pop_front()
        {
            pushed |= self.commands.try_push(command).is_ok();
        }
        if pushed {
            self.waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Announced;
    use parlor_model::PeerId;
    use parlor_sfu::DtlsIdentity;
    use std::{
        net::{IpAddr, Ipv4Addr},
        sync::mpsc::{Receiver, sync_channel},
    };

    const PATIENCE: Duration = Duration::from_secs(20);

    fn start() -> (Workers, Receiver<()>) {
        let localhost = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let config = WorkersConfig {
            first_port: 0,
            shares_port: false,
            listen: vec![localhost],
            announced: vec![Announced::new(localhost)],
            tcp: None,
            identity: DtlsIdentity::generate().unwrap(),
            active_red_encoding: false,
            slow_reader_bps: 0,
            seeds: vec![[1; 32]],
        };
        let (wake, woken) = sync_channel(1);
        (Workers::start(config, move || _ = wake.try_send(())).unwrap(), woken)
    }

    /// A command that the shard counts and otherwise ignores.
    fn stale() -> MediaCommand {
        MediaCommand::AddRemoteCandidate { peer: PeerId(77), candidate: String::new() }
    }

    fn data(channel: DataChannel) -> MediaCommand {
        MediaCommand::SendData {
            channel,
            data: Vec::new().into(),
            from: None,
            peers: vec![PeerId(77)],
        }
    }

    /// Keeps the worker from its commands until the returned end is dropped.
    fn hold_up(worker: &mut WorkerHandle) -> std::sync::mpsc::Sender<()> {
        let (release, held) = std::sync::mpsc::channel();
        worker.push(ToWorker::Wait(held), false).unwrap();
        while !worker.commands.is_empty() {
            thread::yield_now();
        }
        release
    }

    #[test]
    fn commands_queue_while_the_worker_is_behind_and_none_is_lost() {
        const QUEUED: usize = 5000;
        let (mut workers, woken) = start();
        let worker = workers.get_mut(ShardId(0)).unwrap();
        let release = hold_up(worker);
        for _ in 0..COMMAND_RING + QUEUED {
            worker.send(stale()).unwrap();
        }
        assert_eq!(worker.queued.len(), QUEUED);
        worker.send(data(DataChannel::Lossy)).unwrap();
        worker.send(data(DataChannel::DataTrack)).unwrap();
        assert_eq!((worker.queued.len(), worker.lossy_dropped()), (QUEUED, 2));
        worker.send(data(DataChannel::Reliable)).unwrap();
        let (tell, told) = sync_channel(1);
        worker.count(move |counters| tell.send(counters).unwrap()).unwrap();

        drop(release);
        while !worker.queued.is_empty() {
            // Only when told to, as a control thread would.
            woken.recv_timeout(PATIENCE).unwrap();
            worker.poll_event().unwrap();
        }
        let counters = told.recv_timeout(PATIENCE).unwrap().shard;
        assert_eq!(counters.commands_stale, (COMMAND_RING + QUEUED) as u64);
        assert_eq!(counters.data_dropped_unreachable, 1);
        workers.stop().unwrap();
    }

    #[test]
    fn a_worker_that_does_not_keep_up_is_an_error_at_the_bound() {
        let (mut workers, _woken) = start();
        let worker = workers.get_mut(ShardId(0)).unwrap();
        let release = hold_up(worker);
        for _ in 0..COMMAND_RING + MAX_QUEUED_COMMANDS {
            worker.send(stale()).unwrap();
        }
        assert_eq!(worker.send(stale()), Err(SendCommandError::Full(ShardId(0))));
        assert_eq!(worker.queued.len(), MAX_QUEUED_COMMANDS);
        drop(release);
        let counters = workers.stop().unwrap();
        assert_eq!(counters[0].shard.commands_stale, COMMAND_RING as u64);
    }

    #[test]
    fn a_panic_is_told_by_every_way_out() {
        let (mut workers, woken) = start();
        let worker = workers.get_mut(ShardId(0)).unwrap();
        worker.push(ToWorker::Panic, false).unwrap();
        let gone = loop {
            woken.recv_timeout(PATIENCE).unwrap();
            if let Err(gone) = worker.poll_event() {
                break gone;
            }
        };
        assert_eq!(gone, WorkerGone(ShardId(0)));
        assert_eq!(worker.send(stale()), Err(SendCommandError::Gone(gone)));
        let panicked = workers.stop().unwrap_err();
        assert_eq!(panicked.to_string(), "media thread 0 panicked: told to");
    }
}
