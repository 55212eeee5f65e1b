//! One room: who is in it, what they publish, who receives what, and when it ends.
//!
//! A [`Room`] is a plain value. [`Room::apply`] takes a [`Command`], changes the room or
//! refuses with a [`Refusal`], and leaves [`Event`]s for its owner to act on; time passes
//! by [`Room::handle_timeout`]. It knows nothing of protobuf, SDP, media threads or other
//! rooms, draws no ids and reads no clock.
//!
//! ```
//! use parlor_model::Now;
//! use parlor_room::{Command, Event, NewParticipant, Room, RoomSettings, State};
//! use std::time::{Duration, Instant};
//!
//! let now = Now { instant: Instant::now(), unix: Duration::from_secs(1_800_000_000) };
//! let mut room = Room::new("demo".into(), "RM_1".into(), RoomSettings::default(), now);
//! let alice = NewParticipant {
//!     sid: "PA_alice".into(),
//!     identity: "alice".into(),
//!     name: String::new(),
//!     metadata: String::new(),
//!     attributes: Default::default(),
//!     permissions: Default::default(),
//!     kind: Default::default(),
//!     kind_details: Vec::new(),
//!     auto_subscribe: true,
//!     auto_subscribe_data: false,
//!     client_protocol: 2,
//!     capabilities: Vec::new(),
//! };
//! room.apply(now, Command::Join(Box::new(alice))).expect("there is room");
//! room.apply(now, Command::SetJoined("PA_alice".into())).expect("it has just joined");
//! assert_eq!(room.participant(&"PA_alice".into()).expect("still there").state, State::Joined);
//! ```
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod command;
mod data_track;
mod demand;
mod elsewhere;
mod life;
mod participant;
mod participants;
mod publish;
mod subscribe;
mod track;

#[cfg(test)]
mod tests;

pub use command::{Audience, Command, Event, ParticipantChange, Refusal};
pub use data_track::{DATA_TRACK_NAME_BYTES_MAX, DATA_TRACKS_MAX, DataTrack};
pub use demand::{DEMAND_LOWER_DELAY, Demand};
pub use participant::{NewParticipant, Participant, State, SubscriptionPolicy, TrackPermission};
pub use publish::{PENDING_TRACKS_MAX, QUEUED_TRACKS_MAX, TRACKS_MAX};
pub use track::{
    CODECS_MAX, LayerMode, NewCodec, NewTrack, Quality, REGRESSION_PARTICIPANTS, Track, TrackCodec,
    VideoLayer, track_sid_prefix,
};

use data_track::DataSubscription;
use parlor_model::{Identity, Now, ParticipantSid, RoomName, RoomSid, TrackSid};
use participants::Participants;
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};
use subscribe::Subscription;

/// How long changes of participants that publish nothing are collected before others hear.
pub const UPDATE_DELAY: Duration = Duration::from_millis(50);
/// From one such update to the next at least so long passes for each participant: who joins is
/// told to all, so that what a storm of joins costs grows with its square.
pub const UPDATE_INTERVAL: Duration = Duration::from_millis(3);
/// Longer does nobody wait for the next.
pub const UPDATE_INTERVAL_MAX: Duration = Duration::from_secs(2);
/// Where so many are, those who leave and publish nothing are collected too.
pub const LARGE_ROOM_PARTICIPANTS: usize = 100;
/// How long changes of the room's counts are collected before everybody hears, at most.
pub const ROOM_UPDATE_DELAY: Duration = Duration::from_millis(500);
/// How long a participant that left can still be looked up.
pub const DEPARTED_TTL: Duration = Duration::from_secs(30);
/// How many participants that left can still be looked up.
pub const DEPARTED_MAX: usize = 256;

/// What the creator of a room chose.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RoomSettings {
    /// How long a room lives that nobody has joined.
    pub empty_timeout: Duration,
    /// How long a room lives that everybody has left.
    pub departure_timeout: Duration,
    /// How many participants it admits, agents and recorders aside; 0 for any number.
    pub max_participants: u32,
    /// The application's text.
    pub metadata: String,
    /// How long receivers hold video back before they show it; theirs to choose if unset.
    pub playout_delay: Option<PlayoutDelay>,
    /// Sound and picture of one source come in one stream, so that receivers keep them together.
    pub sync_streams: bool,
    /// The operator's marks.
    pub tags: BTreeMap<String, String>,
    /// How many videos a participant is sent; 0 for any number.
    pub max_video_subscriptions: u32,
    /// How many sounds a participant is sent; 0 for any number.
    pub max_audio_subscriptions: u32,
}

/// Bounds of what a receiver waits before it shows a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PlayoutDelay {
    /// At least so long, ms.
    pub min_ms: u32,
    /// At most so long, ms; 0 for as long as can be said, about 41 s.
    pub max_ms: u32,
}

impl Default for RoomSettings {
    fn default() -> Self {
        Self {
            empty_timeout: Duration::from_secs(300),
            departure_timeout: Duration::from_secs(20),
            max_participants: 0,
            metadata: String::new(),
            playout_delay: None,
            sync_streams: false,
            tags: BTreeMap::new(),
            max_video_subscriptions: 0,
            max_audio_subscriptions: 0,
        }
    }
}

/// A room. See the crate's page.
#[derive(Debug)]
pub struct Room {
    name: RoomName,
    sid: RoomSid,
    settings: RoomSettings,
    created: Now,
    /// Until when it waits for its first participant.
    empty_until: Instant,
    closed: bool,
    /// When the last participant that counts left, if one ever joined.
    vacant_since: Option<Instant>,
    participants: Participants,
    by_identity: BTreeMap<Identity, ParticipantSid>,
    departed: VecDeque<(Instant, Participant)>,
    subscriptions: BTreeMap<(ParticipantSid, TrackSid), Subscription>,
    publishers: BTreeMap<TrackSid, ParticipantSid>,
    data_subscriptions: BTreeMap<(ParticipantSid, TrackSid), DataSubscription>,
    /// Who changed and has not been told of, by whose change was first.
    pending_updates: BTreeMap<ParticipantSid, u64>,
    next_update: u64,
    /// How many have left since the first of those who left and have not been told of.
    untold_departures: usize,
    updates_due: Option<Instant>,
    /// When everybody was told of them last.
    updated: Option<Instant>,
    room_update_due: Option<Instant>,
    events: VecDeque<Event>,
}

impl Room {
    /// A room that nobody has joined.
    pub fn new(name: RoomName, sid: RoomSid, settings: RoomSettings, now: Now) -> Self {
        Self {
            name,
            sid,
            empty_until: now.instant + settings.empty_timeout,
            settings,
            created: now,
            closed: false,
            vacant_since: None,
            participants: Participants::default(),
            by_identity: BTreeMap::new(),
            departed: VecDeque::new(),
            subscriptions: BTreeMap::new(),
            publishers: BTreeMap::new(),
            data_subscriptions: BTreeMap::new(),
            pending_updates: BTreeMap::new(),
            next_update: 0,
            untold_departures: 0,
            updates_due: None,
            updated: None,
            room_update_due: None,
            events: VecDeque::new(),
        }
    }

    /// A room that was there before the process began. It waits for participants as long as is
    /// left of its time, and at least as if everybody had just left it.
    pub fn restore(
        name: RoomName,
        sid: RoomSid,
        settings: RoomSettings,
        created_unix: Duration,
        now: Now,
    ) -> Self {
        let age = now.unix.saturating_sub(created_unix);
        let left = settings.empty_timeout.saturating_sub(age).max(settings.departure_timeout);
        let created = Now { instant: now.instant, unix: created_unix };
        Self { empty_until: now.instant + left, ..Self::new(name, sid, settings, created) }
    }

    /// Its name.
    pub fn name(&self) -> &RoomName {
        &self.name
    }

    /// Its id.
    pub fn sid(&self) -> &RoomSid {
        &self.sid
    }

    /// What its creator chose, with the present metadata.
    pub fn settings(&self) -> &RoomSettings {
        &self.settings
    }

    /// When it was created, since the Unix epoch.
    pub fn created_unix(&self) -> Duration {
        self.created.unix
    }

    /// Whether it has ended.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Everybody in it, hidden ones included, by sid.
    pub fn participants(&self) -> impl Iterator<Item = &Participant> + Clone {
        self.participants.values()
    }

    /// Somebody in it, or somebody who left within [`DEPARTED_TTL`].
    pub fn participant(&self, sid: &ParticipantSid) -> Option<&Participant> {
        self.participants.get(sid).or_else(|| {
            self.departed.iter().map(|(_, gone)| gone).find(|gone| gone.info.sid == *sid)
        })
    }

    /// Those who left within [`DEPARTED_TTL`], oldest first.
    pub fn departed(&self) -> impl Iterator<Item = &Participant> {
        self.departed.iter().map(|(_, gone)| gone)
    }

    /// Somebody in it.
    pub fn participant_by_identity(&self, identity: &str) -> Option<&Participant> {
        self.participants.get(self.by_identity.get(identity)?)
    }

    /// A publication of somebody in it, pending ones included.
    pub fn track(&self, sid: &TrackSid) -> Option<&Track> {
        self.participants.get(self.publishers.get(sid)?)?.track(sid)
    }

    /// How many are in it, as clients are told: agents and recorders aside.
    pub fn num_participants(&self) -> u32 {
        let counted = self.participants.values().filter(|p| !p.is_dependent());
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    }

    /// How many of them publish.
    pub fn num_publishers(&self) -> u32 {
        let counted = self.participants.values().filter(|p| !p.is_dependent() && p.is_publisher);
        u32::try_from(counted.count()).unwrap_or(u32::MAX)
    }

    /// Whether somebody records.
    pub fn active_recording(&self) -> bool {
        self.participants.values().any(|p| {
            p.info.permissions.recorder || p.info.kind == parlor_model::ParticipantKind::Egress
        })
    }

    /// Who receives a data packet: everybody, or those named by sid or identity; never the sender.
    pub fn data_recipients(
        &self,
        sender: Option<&ParticipantSid>,
        sids: &[String],
        identities: &[String],
    ) -> Vec<ParticipantSid> {
        let to_all = sids.is_empty() && identities.is_empty();
        self.participants
            .values()
            .filter(|p| Some(&p.info.sid) != sender)
            .filter(|p| matches!(p.state, State::Joined | State::Active))
            .filter(|p| {
                to_all
                    || sids.iter().any(|sid| sid == p.info.sid.as_str())
                    || identities.iter().any(|identity| identity == p.info.identity.as_str())
            })
            .map(|p| p.info.sid.clone())
            .collect()
    }

    /// Carries out a command, or refuses it and changes nothing.
    pub fn apply(&mut self, now: Now, command: Command) -> Result<(), Refusal> {
        if self.closed {
            return Err(Refusal::Closed);
        }
        match command {
            Command::Join(new) => self.join(now, *new)?,
            Command::SetJoined(sid) => self.set_joined(now, &sid)?,
            Command::SetActive(sid) => self.set_active(now, &sid)?,
            Command::Leave(sid, reason) => self.leave(now, &sid, reason)?,
            Command::AddTrack { participant, sid, new } => {
                self.add_track(&participant, sid, *new)?;
            }
            Command::SetNegotiated { participant, track, cid, mid, codec } => {
                self.track_mut(&participant, &track)?.set_negotiated(&cid, codec, &mid);
            }
            Command::Regress { participant, track, codec } => {
                self.track_mut(&participant, &track)?.regress(codec);
            }
            Command::Publish { participant, track } => self.publish(now, &participant, &track)?,
            Command::SetStream { participant, track, mid, layer, rid, ssrc } => {
                let rid = rid.map_or(String::new(), |rid| rid.as_str().to_owned());
                self.track_mut(&participant, &track)?.set_stream(&mid, layer, &rid, ssrc);
                self.track_changed(&participant, &track);
            }
            Command::Unpublish { participant, track } => {
                self.track_mut(&participant, &track)?;
                self.end_track(now, &participant, &track, false);
            }
            Command::SetMuted { participant, track, muted } => {
                self.set_muted(&participant, &track, muted)?;
            }
            Command::SetAudioFeatures { participant, track, features } => {
                self.track_mut(&participant, &track)?.announced.audio_features = features;
                self.track_changed(&participant, &track);
            }
            Command::SetDimensions { participant, track, width, height } => {
                let known = self.track_mut(&participant, &track)?;
                (known.announced.width, known.announced.height) = (width, height);
                self.track_changed(&participant, &track);
            }
            Command::Subscribe { participant, tracks, subscribe } => {
                self.subscribe(&participant, &tracks, subscribe)?;
            }
            Command::PublishDataTrack { participant, track } => {
                self.publish_data_track(now, &participant, track)?;
            }
            Command::UnpublishDataTrack { participant, handle } => {
                self.unpublish_data_track(&participant, handle)?;
            }
            Command::SubscribeData { participant, track, subscribe } => {
                self.subscribe_data(&participant, &track, subscribe)?;
            }
            Command::SetSubscriptionPolicy { participant, policy } => {
                self.set_policy(&participant, policy)?;
            }
            Command::UpdateParticipant { participant, change } => {
                self.update_participant(now, &participant, *change)?;
            }
            Command::Mirror { participant, source } => self.mirror(now, &participant, *source)?,
            Command::Adopt { participant, from } => self.adopt(now, &participant, *from)?,
            Command::SetMetadata(metadata) => {
                self.settings.metadata = metadata;
                self.events.push_back(Event::RoomUpdated);
            }
            Command::Close(reason) => self.close(now, reason),
        }
        Ok(())
    }

    /// The next event, oldest first.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn member(&self, sid: &ParticipantSid) -> Result<&Participant, Refusal> {
        self.participants.get(sid).ok_or_else(|| Refusal::NoParticipant(sid.clone()))
    }

    fn member_mut(&mut self, sid: &ParticipantSid) -> Result<&mut Participant, Refusal> {
        self.participants.get_mut(sid).ok_or_else(|| Refusal::NoParticipant(sid.clone()))
    }

    fn track_mut(
        &mut self,
        participant: &ParticipantSid,
        track: &TrackSid,
    ) -> Result<&mut Track, Refusal> {
        let tracks = &mut self.member_mut(participant)?.tracks;
        tracks
            .iter_mut()
            .find(|known| known.sid == *track)
            .ok_or_else(|| Refusal::NoTrack(track.clone()))
    }
}
