//! A thread that drives the media of many participants.

use crate::{
    histogram::Histogram,
    participant::{Participant, Plan},
    signal::Connect,
    source::Stamp,
};
use parlor_client::{ClientEvent, MediaCounters, ReceivedRtp};
use parlor_model::Now;
use parlor_net::{RecvBatch, Run, UdpSocket};
use parlor_ring::{Waker, Wakeup, wakeup};
use parlor_transport::DtlsIdentity;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::event::{Timespec, epoll};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// How often the rest of the process learns how it goes.
const TELL_INTERVAL: Duration = Duration::from_millis(100);
/// How long those who leave may take.
const FAREWELL: Duration = Duration::from_secs(2);
/// A participant without media connection after this long has failed.
const JOIN_TIMEOUT: Duration = Duration::from_secs(20);
const WAKE_TOKEN: u64 = u64::MAX;
const EVENTS: usize = 256;
const DATAGRAM_BYTES: usize = 1600;
/// How long a full send buffer is waited for.
const PATIENCE: Duration = Duration::from_millis(5);
/// Layers that are counted apart.
pub const LAYERS: usize = 3;

/// What a worker is told.
pub(crate) enum Input {
    /// A participant joins.
    Join(Box<Plan>),
    /// A message of the server.
    Signal { participant: usize, message: Vec<u8> },
    /// A signal socket has closed, with the reason if it was not asked to.
    SignalClosed { participant: usize, reason: Option<String> },
    /// The subscriber who is here longest leaves.
    LeaveOldest,
    /// All who were to join have: measuring begins.
    Mark,
    /// All leave.
    Stop,
}

/// Counts since the beginning.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Totals {
    pub started: u64,
    pub connected: u64,
    pub failed: u64,
    pub left: u64,
    /// RTP packets from the server that were authentic, again or not.
    pub received_packets: u64,
    /// Their bytes as datagrams.
    pub received_bytes: u64,
    /// RTP packets from the server that were thrown away on purpose.
    pub thrown_away: u64,
    pub sent_packets: u64,
    pub sent_bytes: u64,
    /// Packets and payload bytes of each layer.
    pub layers: [(u64, u64); LAYERS],
}

/// What arrived on all streams.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct StreamTotals {
    pub streams: u64,
    pub expected: u64,
    pub received: u64,
    pub jitter_sum: Duration,
    pub jitter_max: Duration,
}

/// What a worker knows in the end.
pub(crate) struct WorkerReport {
    pub mark: Totals,
    pub end: Totals,
    pub counters: MediaCounters,
    pub streams: StreamTotals,
    pub join_answer: Histogram,
    pub join_connected: Histogram,
    pub join_media: Histogram,
    pub delay_joining: Histogram,
    pub delay: Histogram,
    pub failures: BTreeMap<String, u64>,
}

/// The way to a worker; any thread may hold one.
#[derive(Clone)]
pub(crate) struct WorkerHandle {
    inputs: mpsc::Sender<Input>,
    waker: Waker,
    told: Arc<Mutex<Totals>>,
}

impl WorkerHandle {
    /// Once the worker has ended there is nobody to tell.
    pub fn send(&self, input: Input) {
        let _ = self.inputs.send(input);
        self.waker.wake();
    }

    /// As of a tenth of a second ago.
    pub fn totals(&self) -> Totals {
        self.told.lock().map(|totals| *totals).unwrap_or_default()
    }
}

/// What all workers share.
#[derive(Clone)]
pub(crate) struct Common {
    pub connects: UnboundedSender<Connect>,
    pub identity: DtlsIdentity,
    /// `ws://host:port`, without a path.
    pub base_url: String,
    pub loss: f64,
    pub clock: Clock,
    pub seed: u64,
}

/// Monotonic and wall clock as one.
#[derive(Clone, Copy)]
pub(crate) struct Clock {
    start: Now,
}

impl Clock {
    pub fn start() -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Now { instant: Instant::now(), unix } }
    }

    fn now(&self) -> Now {
        let instant = Instant::now();
        Now { instant, unix: self.start.unix + (instant - self.start.instant) }
    }
}

struct Worker {
    common: Common,
    handle: WorkerHandle,
    inbox: mpsc::Receiver<Input>,
    wakeup: Wakeup,
    epoll: OwnedFd,
    rng: ChaCha8Rng,
    participants: Vec<Option<Box<Participant>>>,
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    batch: RecvBatch,
    outgoing: Outgoing,
    report: WorkerReport,
    marked: bool,
    /// Since all were told to leave: by when, and the counts at that moment.
    stopping: Option<(Instant, Totals)>,
    next_telling: Instant,
}

/// Starts a worker.
pub(crate) fn start(common: Common) -> io::Result<(WorkerHandle, JoinHandle<WorkerReport>)> {
    let (inputs, inbox) = mpsc::channel();
    let (waker, wakeup) = wakeup()?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let data = epoll::EventData::new_u64(WAKE_TOKEN);
    epoll::add(&epoll, wakeup.as_fd(), data, epoll::EventFlags::IN)?;
    let handle = WorkerHandle { inputs, waker, told: Arc::default() };
    let worker = Worker {
        rng: ChaCha8Rng::seed_from_u64(common.seed),
        common,
        handle: handle.clone(),
        inbox,
        wakeup,
        epoll,
        participants: Vec::new(),
        timers: BinaryHeap::new(),
        batch: RecvBatch::new(),
        outgoing: Outgoing::default(),
        report: WorkerReport {
            mark: Totals::default(),
            end: Totals::default(),
            counters: MediaCounters::default(),
            streams: StreamTotals::default(),
            join_answer: Histogram::new(),
            join_connected: Histogram::new(),
            join_media: Histogram::new(),
            delay_joining: Histogram::new(),
            delay: Histogram::new(),
            failures: BTreeMap::new(),
        },
        marked: false,
        stopping: None,
        next_telling: Instant::now(),
    };
    let thread = thread::Builder::new().name("load".into()).spawn(move || worker.run())?;
    Ok((handle, thread))
}

impl Worker {
    fn run(mut self) -> WorkerReport {
        let mut events = Vec::with_capacity(EVENTS);
        loop {
            while let Ok(input) = self.inbox.try_recv() {
                self.handle_input(input);
            }
            let now = self.common.clock.now();
            self.fire_timers(now);
            self.tell(now);
            if let Some((by, end)) = self.stopping
                && (by <= now.instant || self.participants.iter().all(Option::is_none))
            {
                self.report.end = end;
                return self.report;
            }
            events.clear();
            self.wakeup.park();
            if let Ok(input) = self.inbox.try_recv() {
                self.wakeup.unpark();
                self.handle_input(input);
                continue;
            }
            let timeout = self.sleep(now.instant);
            // An interruption is a wake-up without events.
            let _ = epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(&timeout),
            );
            self.wakeup.unpark();
            for event in &events {
                match event.data.u64() {
                    WAKE_TOKEN => self.wakeup.clear(),
                    token => self.receive((token >> 1) as usize, (token & 1) as usize),
                }
            }
        }
    }

    fn sleep(&self, now: Instant) -> Timespec {
        let due = self.timers.peek().map_or(self.next_telling, |Reverse((due, _))| *due);
        let sleep = due.min(self.next_telling).saturating_duration_since(now);
        Timespec { tv_sec: sleep.as_secs() as i64, tv_nsec: i64::from(sleep.subsec_nanos()) }
    }

    fn handle_input(&mut self, input: Input) {
        let now = self.common.clock.now();
        match input {
            Input::Join(plan) => {
                self.report.end.started += 1;
                if let Err(error) = self.join(now, *plan) {
                    self.count_failure(format!("no socket: {error}"));
                }
            }
            Input::Signal { participant, message } => {
                let Some(Some(found)) = self.participants.get_mut(participant) else { return };
                if let Err(error) = found.client.handle_signal(now, &message) {
                    let reason = error.to_string();
                    *self.report.failures.entry(reason).or_default() += 1;
                }
                self.settle(now, participant);
            }
            Input::SignalClosed { participant, reason } => {
                let reason = reason.unwrap_or_else(|| "closed".into());
                self.end(participant, Some(format!("signal socket: {reason}")));
            }
            Input::LeaveOldest => {
                let oldest = self.participants.iter().position(|participant| {
                    participant.as_ref().is_some_and(|p| p.plan.is_subscriber() && !p.is_leaving)
                });
                if let Some(oldest) = oldest {
                    self.leave(oldest);
                }
            }
            Input::Mark => {
                self.marked = true;
                self.report.mark = self.report.end;
            }
            Input::Stop => self.stop(now),
        }
    }

    fn join(&mut self, now: Now, plan: Plan) -> io::Result<()> {
        let index = self.participants.len();
        let (signals, outgoing) = unbounded_channel();
        let token = plan.token.clone();
        let identity = self.common.identity.clone();
        let mut participant = Participant::new(now, plan, identity, signals)?;
        for (place, socket) in (0..).zip(&participant.sockets) {
            let data = epoll::EventData::new_u64((index as u64) << 1 | place);
            epoll::add(&self.epoll, socket.as_fd(), data, epoll::EventFlags::IN)?;
        }
        let (path, query) = participant.client.connect_url();
        let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        let connect = Connect {
            participant: index,
            worker: self.handle.clone(),
            url: format!("{}{path}?{query}", self.common.base_url),
            token,
            outgoing,
        };
        // The signal thread ends after the workers.
        let _ = self.common.connects.send(connect);
        self.participants.push(Some(Box::new(participant)));
        self.schedule(index);
        Ok(())
    }

    fn receive(&mut self, index: usize, place: usize) {
        let Some(Some(participant)) = self.participants.get_mut(index) else { return };
        let Participant { sockets, client, has_media, started, plan, .. } = &mut **participant;
        let Some(socket) = sockets.get_mut(place) else { return };
        let now = self.common.clock.now();
        let report = &mut self.report;
        let delays = if self.marked { &mut report.delay } else { &mut report.delay_joining };
        let (totals, loss, rng) = (&mut report.end, self.common.loss, &mut self.rng);
        let mut only_media = true;
        let received = socket.recv(&mut self.batch, |local, remote, datagram| {
            if loss > 0.0 && rng.random_bool(loss) {
                let is_media = datagram.first().is_some_and(|byte| byte & 0xC0 == 0x80);
                totals.thrown_away += u64::from(is_media);
                return;
            }
            let len = datagram.len() as u64;
            let rtp = client.handle_datagram(now, local, remote, datagram);
            only_media &= rtp.is_some();
            if let Some(rtp) = rtp {
                totals.received_packets += 1;
                totals.received_bytes += len;
                count_payload(totals, delays, now, &rtp);
                if !*has_media {
                    *has_media = true;
                    if plan.layout.is_some() {
                        report.join_media.record(now.instant - *started);
                    }
                }
            }
        });
        if let Err(error) = received {
            self.end(index, Some(format!("socket: {error}")));
        } else if only_media {
            // Media makes a client want to speak later, never now.
            self.schedule(index);
        } else {
            self.settle(now, index);
        }
    }

    fn fire_timers(&mut self, now: Now) {
        while let Some(&Reverse((due, index))) = self.timers.peek()
            && due <= now.instant
        {
            self.timers.pop();
            let Some(Some(participant)) = self.participants.get_mut(index) else { continue };
            // A timer that was set again for an earlier time.
            if participant.scheduled != Some(due) {
                continue;
            }
            participant.scheduled = None;
            if participant.client.poll_timeout().is_some_and(|due| due <= now.instant) {
                participant.client.handle_timeout(now);
            }
            let elapsed = now.instant - self.common.clock.start.instant;
            participant.send_media(now, elapsed);
            let age = now.instant - participant.started;
            if !participant.is_connected && age > JOIN_TIMEOUT && !participant.is_leaving {
                self.end(index, Some("no media connection in time".into()));
                continue;
            }
            self.settle(now, index);
        }
    }

    /// Carries away what a participant's client has to say, and sets its timer.
    fn settle(&mut self, now: Now, index: usize) {
        let Some(Some(participant)) = self.participants.get_mut(index) else { return };
        let mut ended = None;
        while let Some(event) = participant.client.poll_event() {
            match event {
                ClientEvent::Joined(join) => {
                    self.report.join_answer.record(now.instant - participant.started);
                    participant.publish(now);
                    participant.show(&join.other_participants);
                }
                ClientEvent::Connected if !participant.is_connected => {
                    participant.is_connected = true;
                    self.report.join_connected.record(now.instant - participant.started);
                    self.report.end.connected += 1;
                }
                ClientEvent::Participants(changed) => participant.show(&changed),
                ClientEvent::TrackPublished { cid, .. } => {
                    for track in participant.tracks.iter_mut().filter(|track| track.cid == cid) {
                        track.is_live = true;
                    }
                }
                ClientEvent::KeyframeRequested { cid, request } => {
                    for track in participant.tracks.iter_mut().filter(|track| track.cid == cid) {
                        track.source.request_keyframe(request.rid);
                    }
                }
                ClientEvent::Failed(reason) => ended = Some(format!("transport: {reason}")),
                ClientEvent::Left(leave) => {
                    ended = Some(format!("server: {}", leave.reason().as_str_name()));
                }
                _ => {}
            }
        }
        while let Some(message) = participant.client.poll_signal() {
            if let Some(signals) = &participant.signals {
                let _ = signals.send(message);
            }
        }
        self.outgoing.send(participant, &mut self.report.end, self.common.loss, &mut self.rng);
        match ended {
            Some(reason) => self.end(index, Some(reason)),
            None => self.schedule(index),
        }
    }

    fn schedule(&mut self, index: usize) {
        let Some(Some(participant)) = self.participants.get_mut(index) else { return };
        let Some(due) = participant.poll_timeout() else { return };
        if participant.scheduled.is_none_or(|scheduled| due < scheduled) {
            participant.scheduled = Some(due);
            self.timers.push(Reverse((due, index)));
        }
    }

    fn leave(&mut self, index: usize) {
        let now = self.common.clock.now();
        if let Some(Some(participant)) = self.participants.get_mut(index) {
            participant.is_leaving = true;
            participant.client.leave();
        }
        self.settle(now, index);
        if let Some(Some(participant)) = self.participants.get_mut(index) {
            participant.signals = None;
        }
    }

    /// A participant is no more. The reason counts unless it wanted to leave.
    fn end(&mut self, index: usize, reason: Option<String>) {
        let Some(participant) = self.participants.get_mut(index).and_then(Option::take) else {
            return;
        };
        if self.stopping.is_none() {
            self.collect(&participant);
        }
        if participant.is_leaving {
            self.report.end.left += 1;
        } else if let Some(reason) = reason {
            self.count_failure(reason);
            self.report.end.connected -= u64::from(participant.is_connected);
        }
    }

    fn count_failure(&mut self, reason: String) {
        self.report.end.failed += 1;
        *self.report.failures.entry(reason).or_default() += 1;
    }

    fn collect(&mut self, participant: &Participant) {
        self.report.counters += participant.client.counters();
        let totals = &mut self.report.streams;
        for stream in participant.client.received_streams() {
            totals.streams += 1;
            totals.expected += stream.expected;
            totals.received += stream.received;
            totals.jitter_sum += stream.jitter;
            totals.jitter_max = totals.jitter_max.max(stream.jitter);
        }
    }

    fn stop(&mut self, now: Now) {
        let participants = std::mem::take(&mut self.participants);
        participants.iter().flatten().for_each(|participant| self.collect(participant));
        self.participants = participants;
        self.stopping = Some((now.instant + FAREWELL, self.report.end));
        for index in 0..self.participants.len() {
            self.leave(index);
        }
    }

    fn tell(&mut self, now: Now) {
        if self.next_telling <= now.instant {
            self.next_telling = now.instant + TELL_INTERVAL;
            if let Ok(mut told) = self.handle.told.lock() {
                *told = self.report.end;
            }
        }
    }
}

#[inline]
fn count_payload(totals: &mut Totals, delays: &mut Histogram, now: Now, rtp: &ReceivedRtp<'_>) {
    let Some(stamp) = Stamp::parse(rtp.payload).filter(|_| rtp.is_new) else { return };
    if let Some((packets, bytes)) = totals.layers.get_mut(usize::from(stamp.layer)) {
        *packets += 1;
        *bytes += rtp.payload.len() as u64;
    }
    if !rtp.is_retransmission {
        delays.record(now.unix.saturating_sub(stamp.sent));
    }
}

/// Datagrams on their way to a socket.
#[derive(Default)]
struct Outgoing {
    bytes: Vec<u8>,
    /// Where each ends, which socket it leaves by, and where to.
    datagrams: Vec<(usize, usize, std::net::SocketAddr)>,
}

impl Outgoing {
    fn send(
        &mut self,
        participant: &mut Participant,
        totals: &mut Totals,
        loss: f64,
        rng: &mut ChaCha8Rng,
    ) {
        let mut end = 0;
        self.datagrams.clear();
        loop {
            if self.bytes.len() < end + DATAGRAM_BYTES {
                self.bytes.resize(end + DATAGRAM_BYTES, 0);
            }
            let Some(out) = self.bytes.get_mut(end..) else { break };
            let Some(transmit) = participant.client.poll_transmit(out) else { break };
            let is_media = out.first().is_some_and(|byte| byte & 0xC0 == 0x80);
            totals.sent_packets += u64::from(is_media);
            totals.sent_bytes += if is_media { transmit.len as u64 } else { 0 };
            if loss > 0.0 && rng.random_bool(loss) {
                continue;
            }
            end += transmit.len;
            let place = participant
                .sockets
                .iter()
                .position(|socket| socket.local_address() == transmit.path.local)
                .unwrap_or(0);
            self.datagrams.push((end, place, transmit.path.remote));
        }
        for (place, socket) in participant.sockets.iter_mut().enumerate() {
            self.send_by(place, socket);
        }
    }

    fn send_by(&self, place: usize, socket: &mut UdpSocket) {
        let mut start = 0;
        let mut runs = self
            .datagrams
            .iter()
            .filter_map(|&(end, by, remote)| {
                let bytes = self.bytes.get(start..end)?;
                start = end;
                (by == place).then_some(Run { local: None, remote, bytes, segment_bytes: 0 })
            })
            .peekable();
        if runs.peek().is_some() {
            socket.send(runs, PATIENCE);
        }
    }
}
