//! What a guest of a plan wants, and how it gets there: an application with a LiveKit SDK.

use crate::{SourceKind, plan::Seat, world::World};
use livekit_protocol as proto;
use parlor_client::ClientEvent;
use proto::{leave_request::Action as LeaveAction, signal_request::Message as Request};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A client without a path for so long resumes.
const PATH_PATIENCE: Duration = Duration::from_millis(500);
/// What a session, or a resume, may take before the next step is tried.
const STEP_PATIENCE: Duration = Duration::from_secs(8);
/// How long a client waits before it comes again.
const BACKOFF: Duration = Duration::from_millis(300);
/// Resumes in a row before a client begins anew.
const RESUMES_MAX: u32 = 2;

/// A track that a guest wants to publish.
#[derive(Clone, Debug)]
pub(crate) struct WantedTrack {
    pub kind: SourceKind,
    pub is_muted: bool,
}

/// What one guest wants of another's tracks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Interest {
    pub subscribes: bool,
    pub is_enabled: bool,
    pub quality: u8,
}

impl Default for Interest {
    fn default() -> Self {
        Self { subscribes: true, is_enabled: true, quality: 2 }
    }
}

/// A guest of a plan with what it wants.
#[derive(Debug)]
pub(crate) struct Chair {
    pub seat: Seat,
    pub identity: String,
    pub room: String,
    /// Its place in the world, once it has come.
    pub place: Option<usize>,
    pub wants_in: bool,
    pub is_cut: bool,
    pub may_publish: bool,
    pub may_subscribe: bool,
    pub tracks: BTreeMap<String, WantedTrack>,
    pub interests: BTreeMap<Seat, Interest>,
    /// Sessions so far; what is published and told belongs to the present one.
    pub sessions: u32,
    next_cid: u32,
    events_seen: usize,
    published: BTreeSet<String>,
    muted: BTreeSet<String>,
    told: BTreeMap<String, Interest>,
    /// When it does the next step to come back.
    comes_again: Option<Duration>,
    must_begin_anew: bool,
    resumes: u32,
    step_began: Duration,
    path_lost: Option<Duration>,
    /// All of its connections have been up in this session.
    was_whole: bool,
    /// The server has ended its session for good, with what it said.
    pub was_removed: bool,
    pub said: u32,
}

impl Chair {
    pub fn new(seat: Seat, room: u8) -> Self {
        Self {
            seat,
            identity: format!("guest {seat}"),
            room: format!("room {room}"),
            place: None,
            wants_in: false,
            is_cut: false,
            may_publish: true,
            may_subscribe: true,
            tracks: BTreeMap::new(),
            interests: BTreeMap::new(),
            sessions: 0,
            next_cid: 0,
            events_seen: 0,
            published: BTreeSet::new(),
            muted: BTreeSet::new(),
            told: BTreeMap::new(),
            comes_again: None,
            must_begin_anew: false,
            resumes: 0,
            step_began: Duration::ZERO,
            path_lost: None,
            was_whole: false,
            was_removed: false,
            said: 0,
        }
    }

    pub fn want(&mut self, kind: SourceKind) {
        self.next_cid += 1;
        let cid = format!("track {}", self.next_cid);
        self.tracks.insert(cid, WantedTrack { kind, is_muted: false });
    }

    pub fn nth(&self, place: u8) -> Option<String> {
        self.tracks.keys().nth(usize::from(place)).cloned()
    }

    /// A session has begun.
    pub fn begin(&mut self, at: Duration) {
        self.sessions += 1;
        self.events_seen = 0;
        self.published.clear();
        self.muted.clear();
        self.told.clear();
        self.comes_again = None;
        self.must_begin_anew = false;
        self.resumes = 0;
        self.step_began = at;
        (self.path_lost, self.was_whole) = (None, false);
        self.was_removed = false;
        // What the server knew of its permissions went with the session.
        (self.may_publish, self.may_subscribe) = (true, true);
    }

    /// Does what an SDK would do now. Returns what it has against the server.
    pub fn drive(&mut self, world: &mut World) -> Option<String> {
        let place = self.place.filter(|_| self.wants_in && !self.is_cut)?;
        let complaint = self.read_events(world, place);
        if self.comes_again.is_none() {
            self.look_after_session(world, place);
        }
        if self.comes_again.is_some_and(|due| due <= world.elapsed()) {
            self.come_again(world, place);
        }
        self.publish(world, place);
        complaint
    }

    fn read_events(&mut self, world: &mut World, place: usize) -> Option<String> {
        let guest = &world.guests[place];
        let new = guest.events.get(self.events_seen..).unwrap_or_default().to_vec();
        self.events_seen = guest.events.len();
        let mut complaint = None;
        for event in new {
            match event {
                ClientEvent::Left(leave) => {
                    self.must_begin_anew |= leave.action() != LeaveAction::Resume;
                    if leave.action() == LeaveAction::Disconnect && !self.was_removed {
                        complaint = Some(format!("put out: {:?}", leave.reason()));
                    }
                }
                ClientEvent::Failed(_) => {
                    self.must_begin_anew = true;
                    self.come_soon(world);
                }
                _ => {}
            }
        }
        complaint
    }

    fn come_soon(&mut self, world: &World) {
        self.comes_again.get_or_insert(world.elapsed() + BACKOFF);
    }

    fn look_after_session(&mut self, world: &mut World, place: usize) {
        let now = world.elapsed();
        let guest = &world.guests[place];
        if guest.is_closed {
            return self.come_soon(world);
        }
        let has_joined = guest.joined_as().is_some();
        let is_up = has_joined && guest.is_connected() && guest.client.is_whole();
        if is_up {
            (self.path_lost, self.resumes, self.was_whole) = (None, 0, true);
            return;
        }
        let lost = *self.path_lost.get_or_insert(now);
        let patience =
            if self.was_whole && self.resumes == 0 { PATH_PATIENCE } else { STEP_PATIENCE };
        if now >= lost + patience && now >= self.step_began + patience {
            self.must_begin_anew |= !self.was_whole || self.resumes >= RESUMES_MAX;
            self.come_soon(world);
        }
    }

    fn come_again(&mut self, world: &mut World, place: usize) {
        self.comes_again = None;
        self.step_began = world.elapsed();
        let can_resume = !self.must_begin_anew && self.resumes < RESUMES_MAX;
        if can_resume && world.resume(place) {
            self.resumes += 1;
            return;
        }
        world.rejoin(place);
        self.begin(world.elapsed());
    }

    fn publish(&mut self, world: &mut World, place: usize) {
        let now = world.now();
        if world.guests[place].joined_as().is_none() || world.guests[place].is_closed {
            return;
        }
        let ended: Vec<_> =
            self.published.iter().filter(|cid| !self.tracks.contains_key(*cid)).cloned().collect();
        for cid in ended {
            world.guest(place).unpublish(&cid);
            self.published.remove(&cid);
            self.muted.remove(&cid);
        }
        for (cid, track) in self.tracks.iter().filter(|_| self.may_publish) {
            if self.published.insert(cid.clone()) {
                world.guest(place).publish(now, cid, track.kind.clone());
            }
            if track.is_muted != self.muted.contains(cid)
                && world.guest(place).set_muted(cid, track.is_muted)
            {
                match track.is_muted {
                    true => self.muted.insert(cid.clone()),
                    false => self.muted.remove(cid),
                };
            }
        }
    }

    /// Tells the server what it wants of a track, where that has not been said.
    pub fn tell(&mut self, world: &mut World, publisher: Seat, sid: &str) {
        let Some(place) = self.place.filter(|_| self.wants_in && !self.is_cut) else { return };
        let wanted = self.interests.get(&publisher).copied().unwrap_or_default();
        let told = self.told.get(sid).copied().unwrap_or_default();
        if wanted == told || world.guests[place].joined_as().is_none() {
            return;
        }
        self.told.insert(sid.to_owned(), wanted);
        let client = world.guest(place).client();
        if wanted.subscribes != told.subscribes {
            client.subscribe(vec![sid.to_owned()], wanted.subscribes);
        }
        client.request(Request::TrackSetting(proto::UpdateTrackSettings {
            track_sids: vec![sid.to_owned()],
            disabled: !wanted.is_enabled,
            quality: i32::from(wanted.quality),
            ..Default::default()
        }));
    }
}
