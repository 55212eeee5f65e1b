//! Runs a plan, and watches the world while it does.

mod judge;

use crate::{
    Invitation,
    plan::{Action, Plan, PlannedLink, Seat, What},
    seat::{Chair, Interest},
    trace::mix,
    world::World,
};
use livekit_protocol as proto;
use parlor_client::Model;
use parlor_model::{DataChannel, SubscriptionId, TrackKind};
use parlor_node::{Counts, api::ApiRequest};
use parlor_transport::DtlsIdentity;
use std::{collections::BTreeMap, time::Duration};

/// How often guests look after themselves.
const TICK: Duration = Duration::from_millis(50);
/// After all faults have ended, everyone has what it should have within this.
const PROGRESS_MAX: Duration = Duration::from_secs(15);
/// And everybody knows who is there within this: a client that fell silent is removed after 15 s
/// at its socket, 20 s more at its connection.
const QUIET_MAX: Duration = Duration::from_secs(45);
/// What everyone has is counted so long.
const WINDOW: Duration = Duration::from_secs(2);
/// When everybody has left, nothing is held after this.
const EMPTY_MAX: Duration = Duration::from_secs(90);
/// What is muted or switched off may go on for so long: silence follows it.
const ENDING: Duration = Duration::from_millis(1500);
/// Whole frames of a track that show that it goes on.
const FRAMES_GOING_ON: u64 = 3;
/// A video that ends ends in so many pictures of the server's own.
const BLACK_PICTURES: u8 = 6;
/// Bytes that may wait for one subscriber.
const QUEUED_BYTES_MAX: u64 = 2_000_000;
/// Subscriptions of one server that are looked at.
const IDS_MAX: u32 = 128;
/// Faults of one world that are told.
const FAULTS_MAX: usize = 20;

/// What became of a plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Outcome {
    /// One number for everything that passed.
    pub hash: u64,
    /// What was against the rules.
    pub faults: Vec<String>,
    /// Virtual time that passed.
    pub simulated: Duration,
    /// RTP, RTCP and signal messages that passed.
    pub passed: u64,
}

/// The certificate of every simulated server and client: making one is not what is tested.
pub fn identity() -> DtlsIdentity {
    let certificate = include_bytes!("certificate.der").to_vec();
    let key = include_bytes!("key.der").to_vec();
    DtlsIdentity::from_der(certificate, key, None).expect("the certificate beside this file")
}

/// Runs a plan from its beginning until nothing of it is left on the server.
pub fn run(plan: &Plan) -> Outcome {
    go_through(Run::new(plan))
}

/// As [`run`], and prints each second what the server knows of each guest's link.
pub fn run_aloud(plan: &Plan) -> Outcome {
    let mut run = Run::new(plan);
    run.is_loud = true;
    go_through(run)
}

fn go_through(mut run: Run) -> Outcome {
    let plan = run.plan.clone();
    for action in &plan.actions {
        run.go_on(Duration::from_millis(u64::from(action.at_ms.min(plan.until_ms))));
        run.act(action);
    }
    run.go_on(Duration::from_millis(u64::from(plan.until_ms)));
    run.heal();
    run.watch_progress();
    run.watch_rooms();
    run.end();
    run.outcome()
}

struct Run {
    world: World,
    chairs: BTreeMap<Seat, Chair>,
    /// Who comes when, last first.
    arrivals: Vec<(Duration, Seat)>,
    links: BTreeMap<Seat, [PlannedLink; 2]>,
    plan: Plan,
    /// Who is cut off until when.
    cuts: Vec<(Duration, Seat)>,
    faults: Vec<String>,
    next_look: Duration,
    is_loud: bool,
}

impl Run {
    fn new(plan: &Plan) -> Self {
        let mut world = World::with_shards(plan.seed, &identity(), plan.shards);
        world.keep_hash_only();
        let mut arrivals: Vec<_> = plan
            .guests
            .iter()
            .map(|(seat, guest)| (Duration::from_millis(u64::from(guest.joins_ms)), *seat))
            .collect();
        arrivals.sort_by_key(|(at, seat)| std::cmp::Reverse((*at, *seat)));
        let chair = |(seat, guest): (&Seat, &crate::plan::PlannedGuest)| {
            let mut chair = Chair::new(*seat, guest.room);
            guest.sources.iter().for_each(|kind| chair.want(kind.clone()));
            (*seat, chair)
        };
        Self {
            world,
            chairs: plan.guests.iter().map(chair).collect(),
            arrivals,
            links: plan.guests.iter().map(|(seat, it)| (*seat, [it.up, it.down])).collect(),
            plan: plan.clone(),
            cuts: Vec::new(),
            faults: Vec::new(),
            next_look: Duration::ZERO,
            is_loud: false,
        }
    }

    fn fault(&mut self, what: String) {
        if self.faults.len() < FAULTS_MAX {
            let at = self.world.elapsed().as_secs_f64();
            self.faults.push(format!("{what} (at {at:.2} s)"));
        }
    }

    /// Lets time pass until `to`, with all that guests do by themselves.
    fn go_on(&mut self, to: Duration) {
        while self.world.elapsed() < to {
            let arrival = self.arrivals.last().map(|(at, _)| *at);
            let cut = self.cuts.iter().map(|(until, _)| *until).min();
            let tick = self.world.elapsed() + TICK;
            let next = [Some(to), arrival, cut, Some(tick)].into_iter().flatten().min();
            let by = next.unwrap_or(to).saturating_sub(self.world.elapsed());
            self.world.run(by);
            self.tick();
        }
    }

    fn tick(&mut self) {
        let now = self.world.elapsed();
        while self.arrivals.last().is_some_and(|(at, _)| *at <= now) {
            let Some((_, seat)) = self.arrivals.pop() else { break };
            self.come(seat);
        }
        let over: Vec<_> = self.cuts.iter().filter(|(until, _)| *until <= now).copied().collect();
        self.cuts.retain(|(until, _)| *until > now);
        for (_, seat) in over {
            self.reconnect(seat);
        }
        let sids = self.published();
        let Self { chairs, world, .. } = self;
        let mut complaints = Vec::new();
        for chair in chairs.values_mut() {
            complaints.extend(chair.drive(world).map(|it| format!("guest {}: {it}", chair.seat)));
            for (publisher, _, sid) in others(&sids, chair.seat) {
                chair.tell(world, *publisher, sid);
            }
            let Some(place) = chair.place else { continue };
            let guest = &mut world.guests[place];
            // A client that was put out ends its connections.
            guest.is_dead |= !chair.wants_in && guest.is_closed;
            if chair.wants_in {
                let now = guest.now(world.now).instant;
                guest.ask_for_keyframes(now);
            }
        }
        complaints.into_iter().for_each(|complaint| self.fault(complaint));
        if now >= self.next_look {
            self.next_look = now + Duration::from_secs(1);
            self.look_at_memory();
            if self.is_loud {
                self.print();
            }
        }
    }

    /// Every track that the server has taken: who publishes it, its cid, its sid.
    fn published(&self) -> Vec<(Seat, String, String)> {
        let of = |chair: &Chair| {
            let place = chair.place.filter(|_| chair.wants_in)?;
            let guest = &self.world.guests[place];
            let tracks = guest.published.iter().filter(|(cid, _)| chair.tracks.contains_key(*cid));
            let seat = chair.seat;
            Some(tracks.map(|(cid, sid)| (seat, cid.clone(), sid.clone())).collect::<Vec<_>>())
        };
        self.chairs.values().filter_map(of).flatten().collect()
    }

    fn look_at_memory(&mut self) {
        let mut found = Vec::new();
        for shard in self.world.shards() {
            for peer in shard.peers() {
                let queued = shard.peer_state(peer).map_or(0, |state| state.queued_bytes);
                if queued > QUEUED_BYTES_MAX {
                    found.push(format!("{queued} bytes wait for peer {peer}"));
                }
            }
            let counters = shard.counters();
            if counters.events_dropped + counters.unsent_unsealed > 0 {
                found.push(format!("events or packets were dropped: {counters:?}"));
            }
        }
        let counts = self.world.node().counts();
        let sessions: usize = self.chairs.values().map(|chair| chair.sessions as usize).sum();
        if counts.participants > sessions || counts.peers > 2 * sessions {
            found.push(format!("more is held than ever came: {counts:?}, {sessions} sessions"));
        }
        found.into_iter().for_each(|fault| self.fault(fault));
    }

    fn print(&self) {
        println!("{:.1} s: {:?}", self.world.elapsed().as_secs_f64(), self.world.node().counts());
        for shard in self.world.shards() {
            for peer in shard.peers() {
                let Some(state) = shard.peer_state(peer).filter(|state| state.is_limited) else {
                    continue;
                };
                println!(
                    "    peer {}: {}, {} bytes wait",
                    peer.0, state.estimator, state.queued_bytes
                );
            }
            for id in (0..IDS_MAX).map(SubscriptionId) {
                if let Some(allocation) = shard.allocation(id) {
                    println!("    subscription {}: {allocation:?}", id.0);
                }
            }
        }
        for chair in self.chairs.values().filter(|chair| chair.wants_in) {
            let Some(place) = chair.place else { continue };
            for (sid, frames) in &self.world.guests[place].frames {
                let (decoded, whole) = (frames.decoded, frames.complete);
                println!("    guest {} has {decoded} of {whole} whole frames of {sid}", chair.seat);
            }
        }
    }

    fn come(&mut self, seat: Seat) {
        let Some(chair) = self.chairs.get_mut(&seat) else { return };
        if chair.wants_in {
            return;
        }
        chair.wants_in = true;
        match chair.place {
            Some(place) => self.world.rejoin(place),
            None => {
                let planned = &self.plan.guests[&seat];
                let model = if planned.pair { Model::Pair } else { Model::Single };
                let [up, down] = self.links[&seat].map(|link| link.config());
                let place = self.world.invite(Invitation {
                    room: chair.room.clone(),
                    up,
                    down,
                    drift_ppm: planned.drift_ppm,
                    ..Invitation::new(&chair.identity, model)
                });
                chair.place = Some(place);
            }
        }
        chair.begin(self.world.elapsed());
    }

    /// Gives a guest the links that it should have.
    fn relink(&mut self, seat: Seat) {
        let Some(chair) = self.chairs.get(&seat) else { return };
        let (Some(place), false) = (chair.place, chair.is_cut) else { return };
        let [up, down] = self.links[&seat].map(|link| link.config());
        self.world.set_links(place, up, down);
    }

    fn reconnect(&mut self, seat: Seat) {
        if let Some(chair) = self.chairs.get_mut(&seat) {
            chair.is_cut = false;
            if let Some(place) = chair.place {
                self.world.set_cut(place, false);
            }
        }
        self.relink(seat);
    }

    fn act(&mut self, action: &Action) {
        let seat = action.guest;
        if action.what == What::Restart {
            return self.world.restart_server();
        }
        let Some(chair) = self.chairs.get_mut(&seat) else { return };
        match &action.what {
            What::Return if chair.is_cut => return,
            What::Return => return self.come(seat),
            What::Up(link) => {
                self.links.entry(seat).and_modify(|links| links[0] = *link);
                return self.relink(seat);
            }
            What::Down(link) => {
                self.links.entry(seat).and_modify(|links| links[1] = *link);
                return self.relink(seat);
            }
            What::Publish(kind) => return chair.want(kind.clone()),
            What::Unpublish(place) => {
                let cid = chair.nth(*place);
                return drop(cid.and_then(|cid| chair.tracks.remove(&cid)));
            }
            What::Mute(place, is_muted) => {
                let cid = chair.nth(*place);
                let track = cid.and_then(|cid| chair.tracks.get_mut(&cid));
                track.into_iter().for_each(|track| track.is_muted = *is_muted);
                return;
            }
            What::Subscribe(to, on) => return interest(chair, *to, |it| it.subscribes = *on),
            What::Enable(to, on) => return interest(chair, *to, |it| it.is_enabled = *on),
            What::Quality(to, quality) => {
                return interest(chair, *to, |it| it.quality = *quality);
            }
            _ => {}
        }
        // The rest is for those who are here.
        if let Some(place) = chair.place.filter(|_| chair.wants_in) {
            self.act_present(seat, place, &action.what);
        }
    }

    fn act_present(&mut self, seat: Seat, place: usize, what: &What) {
        let Some(chair) = self.chairs.get_mut(&seat) else { return };
        let world = &mut self.world;
        match what {
            What::Leave => {
                chair.wants_in = false;
                world.leave(place);
            }
            What::Crash(closes_socket) => {
                chair.wants_in = false;
                world.crash(place, *closes_socket);
            }
            What::Resume if !chair.is_cut && !world.guests[place].is_closed => {
                world.resume(place);
            }
            What::Rebind => world.rebind(place),
            What::Cut(for_ms, with_socket) if !chair.is_cut => {
                chair.is_cut = true;
                world.set_cut(place, *with_socket);
                let lost = parlor_netem::LinkConfig {
                    loss: parlor_netem::Loss::All,
                    ..Default::default()
                };
                world.set_links(place, lost.clone(), lost);
                let until = world.elapsed() + Duration::from_millis(u64::from(*for_ms));
                self.cuts.push((until, seat));
            }
            What::Permit(publish, subscribe) => self.permit(seat, *publish, *subscribe),
            What::Remove => {
                let (room, identity) = (chair.room.clone(), chair.identity.clone());
                let who = proto::RoomParticipantIdentity {
                    room: room.clone(),
                    identity,
                    ..Default::default()
                };
                if world.call(&room, ApiRequest::RemoveParticipant(who)).is_ok() {
                    (chair.was_removed, chair.wants_in) = (true, false);
                }
            }
            What::Say(count) => {
                for _ in 0..*count {
                    let payload = [u32::from(seat), chair.sessions, chair.said + 1];
                    let payload = payload.map(u32::to_be_bytes).concat();
                    let user = proto::UserPacket { payload, ..Default::default() };
                    let value = Some(proto::data_packet::Value::User(user));
                    let packet = proto::DataPacket { value, ..Default::default() };
                    let now = world.now();
                    let client = world.guest(place).client();
                    if client.send_data(now, DataChannel::Reliable, packet) {
                        chair.said += 1;
                    }
                }
            }
            _ => {}
        }
    }

    /// An administrator changes what a guest may do. From the next packet on the server sends
    /// nothing that is against it.
    fn permit(&mut self, seat: Seat, publish: bool, subscribe: bool) {
        let Some(chair) = self.chairs.get_mut(&seat) else { return };
        let permission = proto::ParticipantPermission {
            can_publish: publish,
            can_subscribe: subscribe,
            can_publish_data: true,
            ..Default::default()
        };
        let request = proto::UpdateParticipantRequest {
            room: chair.room.clone(),
            identity: chair.identity.clone(),
            permission: Some(permission),
            ..Default::default()
        };
        let room = chair.room.clone();
        if self.world.call(&room, ApiRequest::UpdateParticipant(request)).is_err() {
            return;
        }
        let could_subscribe = std::mem::replace(&mut chair.may_subscribe, subscribe);
        let could_publish = std::mem::replace(&mut chair.may_publish, publish);
        if could_publish && !publish {
            // Its tracks have ended, and an application takes its cameras away.
            chair.tracks.clear();
        }
        if let (true, false, Some(place)) = (could_subscribe, subscribe, chair.place) {
            let sections = self.world.guests[place].client.received_tracks();
            let ssrcs: Vec<_> =
                sections.iter().filter_map(|it| Some((it.stream.ssrc?.0, it.kind))).collect();
            let forbidden =
                ssrcs.into_iter().map(|(ssrc, kind)| ((place, ssrc), black_pictures(kind)));
            self.world.forbidden.extend(forbidden);
        } else if let (true, Some(place)) = (subscribe, chair.place) {
            self.world.forbidden.retain(|(guest, _), _| *guest != place);
        }
    }

    /// All faults of the network end.
    fn heal(&mut self) {
        let seats: Vec<_> = self.chairs.keys().copied().collect();
        self.cuts.clear();
        self.links.values_mut().for_each(|links| *links = [PlannedLink::default(); 2]);
        for seat in seats {
            self.reconnect(seat);
        }
    }
}

/// The tracks of others than this guest.
fn others(
    tracks: &[(Seat, String, String)],
    but: Seat,
) -> impl Iterator<Item = &(Seat, String, String)> {
    tracks.iter().filter(move |(seat, ..)| *seat != but)
}

/// How many black pictures may end a track.
fn black_pictures(kind: TrackKind) -> u8 {
    if kind == TrackKind::Video { BLACK_PICTURES } else { 0 }
}

fn interest(chair: &mut Chair, to: Seat, change: impl FnOnce(&mut Interest)) {
    if to != chair.seat {
        change(chair.interests.entry(to).or_default());
    }
}
