//! What must hold once a plan's faults have ended.

use super::*;

/// What a guest should get of another's track.
struct Due {
    subscriber: Seat,
    place: usize,
    publisher: Seat,
    cid: String,
    sid: String,
    is_video: bool,
    /// Whether it should come; otherwise it must not.
    is_wanted: bool,
    /// Frames in the window that are enough.
    frames: u64,
}

impl Run {
    /// Everyone who should get media gets it, soon, and goes on getting it; nobody else does.
    pub(super) fn watch_progress(&mut self) {
        let start = self.decoded();
        let end = self.world.elapsed() + PROGRESS_MAX;
        loop {
            self.go_on(self.world.elapsed() + 2 * TICK);
            let lacking = self.lacking(&start);
            if lacking.is_empty() {
                break;
            }
            if self.world.elapsed() >= end {
                return lacking.into_iter().for_each(|fault| self.fault(fault));
            }
        }
        let until = Duration::from_millis(u64::from(self.plan.until_ms));
        self.go_on(until + ENDING);
        loop {
            let found = self.watch_window();
            if found.is_empty() {
                return;
            }
            // An estimate on its way up may give and take once more.
            if self.world.elapsed() >= end {
                return found.into_iter().for_each(|fault| self.fault(fault));
            }
        }
    }

    /// What is too little, or too much, in a while from now.
    fn watch_window(&mut self) -> Vec<String> {
        let before = self.decoded();
        self.go_on(self.world.elapsed() + WINDOW);
        let (after, mut found) = (self.decoded(), Vec::new());
        for due in self.dues() {
            let of = |counts: &Counted| counts.get(&(due.place, due.sid.clone())).copied();
            let came = of(&after).unwrap_or(0).saturating_sub(of(&before).unwrap_or(0));
            if due.is_wanted && came < due.frames {
                let expected = due.frames;
                found.push(format!("{due}: {came} frames in two seconds, not {expected}"));
            } else if !due.is_wanted && came > FRAMES_GOING_ON {
                found.push(format!("{due}: {came} frames that are not wanted"));
            }
        }
        found
    }

    fn decoded(&self) -> Counted {
        let of = |chair: &Chair| {
            let place = chair.place?;
            let frames = self.world.guests[place].frames.iter();
            Some(frames.map(move |(sid, it)| ((place, sid.clone()), it.decoded)))
        };
        self.chairs.values().filter_map(of).flatten().collect()
    }

    /// What is missing, in words.
    fn lacking(&self, start: &Counted) -> Vec<String> {
        let mut lacking = Vec::new();
        for chair in self.chairs.values().filter(|chair| chair.wants_in) {
            let Some(place) = chair.place else { continue };
            let guest = &self.world.guests[place];
            let has_joined = guest.joined_as().is_some();
            if !has_joined || !guest.is_connected() || !guest.client.is_whole() || guest.is_closed {
                lacking.push(format!("guest {} is not connected", chair.seat));
                continue;
            }
            for cid in chair.tracks.keys().filter(|_| chair.may_publish) {
                if !guest.published.contains_key(cid) {
                    lacking.push(format!("guest {} does not publish {cid}", chair.seat));
                }
            }
        }
        let now = self.decoded();
        for due in self.dues().into_iter().filter(|due| due.is_wanted) {
            let of = |counts: &Counted| counts.get(&(due.place, due.sid.clone())).copied();
            if of(&now).unwrap_or(0) < of(start).unwrap_or(0) + FRAMES_GOING_ON {
                lacking.push(format!("{due}: nothing comes"));
            }
        }
        lacking
    }

    fn dues(&self) -> Vec<Due> {
        let mut dues = Vec::new();
        for (publisher, cid, sid) in self.published() {
            let from = &self.chairs[&publisher];
            let track = &from.tracks[&cid];
            for to in self.chairs.values() {
                let Some(place) = to.place.filter(|_| to.wants_in && to.room == from.room) else {
                    continue;
                };
                if to.seat == publisher || !to.may_subscribe {
                    continue;
                }
                let interest = to.interests.get(&publisher).copied().unwrap_or_default();
                let in_window = WINDOW.as_nanos() / track.kind.interval().as_nanos();
                let is_video = track.kind.track_kind() == TrackKind::Video;
                // Of video the base layers alone may be what an estimate allows so soon.
                let share = if is_video { 20 } else { 90 };
                dues.push(Due {
                    subscriber: to.seat,
                    place,
                    publisher,
                    cid: cid.clone(),
                    sid: sid.clone(),
                    is_video,
                    is_wanted: interest.subscribes && interest.is_enabled && !track.is_muted,
                    frames: in_window as u64 * share / 100,
                });
            }
        }
        dues
    }

    /// Everybody, and the server, agree on who is in the room and what is published there.
    pub(super) fn watch_rooms(&mut self) {
        let end = self.world.elapsed() + QUIET_MAX;
        loop {
            let disagreements = self.disagreements();
            if disagreements.is_empty() {
                break;
            }
            if self.world.elapsed() >= end {
                return disagreements.into_iter().for_each(|fault| self.fault(fault));
            }
            self.go_on(self.world.elapsed() + 10 * TICK);
        }
        let mut found = Vec::new();
        for chair in self.chairs.values().filter(|chair| chair.wants_in) {
            if let Some(place) = chair.place {
                found.extend(self.gaps(place).map(|gap| format!("guest {}: {gap}", chair.seat)));
            }
        }
        found.into_iter().for_each(|fault| self.fault(fault));
    }

    /// Reliable messages that came out of order. What is lost while a session is away may be
    /// given up; what comes must come in order.
    fn gaps(&self, place: usize) -> Option<String> {
        let mut last: BTreeMap<(u32, u32), u32> = BTreeMap::new();
        for (_, packet) in &self.world.guests[place].data {
            let Some(proto::data_packet::Value::User(user)) = &packet.value else { continue };
            let (words, _) = user.payload.as_chunks::<4>();
            let [from, session, number] = words else { continue };
            let [from, session, number] = [*from, *session, *number].map(u32::from_be_bytes);
            let before = last.insert((from, session), number).unwrap_or(0);
            if number <= before {
                return Some(format!("message {number} of guest {from} came after {before}"));
            }
        }
        None
    }

    fn disagreements(&self) -> Vec<String> {
        let mut found = Vec::new();
        let rooms: BTreeMap<_, _> = self
            .world
            .node()
            .snapshot()
            .into_iter()
            .map(|snapshot| (snapshot.room.name.clone(), snapshot.participants))
            .collect();
        let names: std::collections::BTreeSet<_> =
            self.chairs.values().map(|it| &it.room).collect();
        for name in names {
            let infos: Vec<_> =
                rooms.get(name).into_iter().flatten().map(|it| it.info.clone()).collect();
            let expected = self.room(name, None);
            let seen = describe(infos.iter());
            if !agree(&seen, &expected) {
                found.push(format!("the server has {seen:?} in {name}, not {expected:?}"));
            }
            for info in &infos {
                let chair = self.chairs.values().find(|chair| chair.identity == info.identity);
                let (Some(chair), Some(permission)) = (chair, &info.permission) else { continue };
                if (permission.can_publish, permission.can_subscribe)
                    != (chair.may_publish, chair.may_subscribe)
                {
                    found.push(format!("guest {} has {permission:?}", chair.seat));
                }
            }
        }
        for chair in self.chairs.values().filter(|chair| chair.wants_in) {
            let Some(place) = chair.place else { continue };
            let others = self.world.guests[place].participants.values();
            let others = others.filter(|info| info.identity != chair.identity);
            let seen = describe(
                others.filter(|it| it.state() != proto::participant_info::State::Disconnected),
            );
            let expected = self.room(&chair.room, Some(chair.seat));
            if !agree(&seen, &expected) {
                found.push(format!("guest {} sees {seen:?}, not {expected:?}", chair.seat));
            }
        }
        found
    }

    /// Who should be in a room, but for one, and with which tracks.
    fn room(&self, name: &str, but: Option<Seat>) -> Room {
        let chairs = self.chairs.values().filter(|chair| chair.wants_in && chair.room == name);
        let of = |chair: &Chair| {
            let published = chair.place.map(|place| &self.world.guests[place].published);
            let tracks = published.into_iter().flatten();
            let wanted = tracks
                .filter_map(|(cid, sid)| Some((sid.clone(), chair.tracks.get(cid)?.is_muted)));
            (chair.identity.clone(), wanted.collect())
        };
        chairs.filter(|chair| Some(chair.seat) != but).map(of).collect()
    }

    /// Everybody leaves, and nothing stays behind.
    pub(super) fn end(&mut self) {
        for chair in self.chairs.values_mut() {
            if let Some(place) = chair.place.filter(|_| chair.wants_in) {
                self.world.leave(place);
            }
            chair.wants_in = false;
        }
        let end = self.world.elapsed() + EMPTY_MAX;
        let is_empty = |world: &World| {
            world.node().counts() == Counts::default()
                && world.shards().iter().all(parlor_sfu::Shard::is_empty)
        };
        while !is_empty(&self.world) {
            if self.world.elapsed() >= end {
                let counts = self.world.node().counts();
                let shards: Vec<_> = self.world.shards().iter().map(|it| it.is_empty()).collect();
                return self.fault(format!("held after all have left: {counts:?}, {shards:?}"));
            }
            self.go_on(self.world.elapsed() + 10 * TICK);
        }
    }

    pub(super) fn outcome(mut self) -> Outcome {
        let mut violations = self.world.violations();
        violations.truncate(FAULTS_MAX);
        self.faults.extend(violations);
        let trace = self.world.trace();
        let simulated = self.world.elapsed();
        let hash = mix(trace.hash(), simulated.as_nanos() as u64);
        Outcome { hash, faults: self.faults, simulated, passed: trace.passed() }
    }
}

type Counted = BTreeMap<(usize, String), u64>;
/// Tracks and whether they are muted, by identity.
type Room = BTreeMap<String, BTreeMap<String, bool>>;

/// Whether what is seen is what should be. A track is seen once something of it has come, so that
/// one that was muted before need not be.
fn agree(seen: &Room, expected: &Room) -> bool {
    seen.keys().eq(expected.keys())
        && seen.iter().zip(expected.values()).all(|((_, seen), expected)| {
            let is_due =
                |(sid, is_muted): &(&String, &bool)| !**is_muted || seen.contains_key(*sid);
            seen.iter().eq(expected.iter().filter(is_due))
        })
}

fn describe<'a>(infos: impl Iterator<Item = &'a proto::ParticipantInfo>) -> Room {
    let tracks = |info: &proto::ParticipantInfo| {
        info.tracks.iter().map(|track| (track.sid.clone(), track.muted)).collect()
    };
    infos.map(|info| (info.identity.clone(), tracks(info))).collect()
}

impl std::fmt::Display for Due {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Due { subscriber, publisher, cid, is_video, .. } = self;
        let kind = if *is_video { "video" } else { "audio" };
        write!(f, "guest {subscriber} of {cid} ({kind}) of guest {publisher}")
    }
}
