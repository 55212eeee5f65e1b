//! A participant and what it publishes.

use crate::{
    data_track::DataTrack,
    track::{NewTrack, Track},
};
use parlor_model::{
    DisconnectReason, Identity, ParticipantKind, ParticipantSid, Permissions, TrackSid,
};
use std::{cell::OnceCell, collections::BTreeMap};

/// How far a participant has come (`ParticipantInfo.State`); it never goes back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)]
pub enum State {
    Joining,
    Joined,
    Active,
    Disconnected,
}

/// What is known of a participant when it joins.
#[derive(Clone, PartialEq, Debug)]
pub struct NewParticipant {
    /// Its id, drawn by the caller.
    pub sid: ParticipantSid,
    /// Who it is.
    pub identity: Identity,
    /// Name for people.
    pub name: String,
    /// The application's text.
    pub metadata: String,
    /// The application's key and value pairs.
    pub attributes: BTreeMap<String, String>,
    /// What it may do.
    pub permissions: Permissions,
    /// What kind of program it is.
    pub kind: ParticipantKind,
    /// `ParticipantInfo.KindDetail`s of the protocol; carried, not interpreted.
    pub kind_details: Vec<i32>,
    /// Whether it is subscribed to every track without asking.
    pub auto_subscribe: bool,
    /// Whether it is subscribed to every data track without asking.
    pub auto_subscribe_data: bool,
    /// Client feature level; carried, not interpreted.
    pub client_protocol: i32,
    /// `ClientInfo.Capability`s of the protocol; carried, not interpreted.
    pub capabilities: Vec<i32>,
}

impl NewParticipant {
    /// Bytes of its attributes, keys included, after `change`, in which empty values delete.
    pub fn attributes_bytes_with(&self, change: &BTreeMap<String, String>) -> usize {
        let kept = self.attributes.iter().filter(|(key, _)| !change.contains_key(*key));
        let set = change.iter().filter(|(_, value)| !value.is_empty());
        kept.chain(set).map(|(key, value)| key.len() + value.len()).sum()
    }
}

/// Somebody in a room.
#[derive(Clone, PartialEq, Debug)]
pub struct Participant {
    /// As it joined, with later changes of name, metadata, attributes and permissions.
    pub info: NewParticipant,
    /// How far it has come.
    pub state: State,
    /// Counts the changes that others see.
    pub version: u32,
    /// When it joined, milliseconds of Unix time.
    pub joined_unix_ms: i64,
    /// Whether it has published, or was granted to.
    pub is_publisher: bool,
    /// Why it left.
    pub disconnect_reason: Option<DisconnectReason>,
    /// Its publications, pending ones included, oldest first.
    pub tracks: Vec<Track>,
    /// The data that it publishes, oldest first.
    pub data_tracks: Vec<DataTrack>,
    /// Announcements whose cid is still in use.
    pub(crate) queued: Vec<(TrackSid, NewTrack)>,
    /// Who may subscribe to its tracks.
    pub(crate) policy: SubscriptionPolicy,
    pub(crate) kept: Kept,
}

/// What is made of a participant: it says nothing that the participant does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept(pub(crate) OnceCell<Vec<u8>>);

impl PartialEq for Kept {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Participant {
    pub(crate) fn new(info: NewParticipant, joined_unix_ms: i64) -> Self {
        Self {
            info,
            state: State::Joining,
            version: 0,
            joined_unix_ms,
            is_publisher: false,
            disconnect_reason: None,
            tracks: Vec::new(),
            data_tracks: Vec::new(),
            queued: Vec::new(),
            policy: SubscriptionPolicy::default(),
            kept: Kept::default(),
        }
    }

    /// What `of` makes of the participant, made once and kept until the participant changes.
    /// Everybody who asks has to ask for the same.
    pub fn kept(&self, of: impl FnOnce(&Self) -> Vec<u8>) -> &[u8] {
        self.kept.0.get_or_init(|| of(self))
    }

    /// Its publications whose media is negotiated, oldest first.
    pub fn published_tracks(&self) -> impl Iterator<Item = &Track> {
        self.tracks.iter().filter(|track| track.is_published())
    }

    /// One of its publications.
    pub fn track(&self, sid: &TrackSid) -> Option<&Track> {
        self.tracks.iter().find(|track| track.sid == *sid)
    }

    /// Whether it neither counts nor keeps the room open: agents, egress and recorders.
    pub fn is_dependent(&self) -> bool {
        matches!(self.info.kind, ParticipantKind::Agent | ParticipantKind::Egress)
            || self.info.permissions.recorder
            || self.info.permissions.agent
    }
}

/// Who may subscribe to a publisher's tracks (`SubscriptionPermission`).
#[derive(Clone, PartialEq, Debug)]
pub struct SubscriptionPolicy {
    /// Everybody may subscribe to everything.
    pub all_participants: bool,
    /// Otherwise these.
    pub permissions: Vec<TrackPermission>,
}

impl Default for SubscriptionPolicy {
    fn default() -> Self {
        Self { all_participants: true, permissions: Vec::new() }
    }
}

/// What one subscriber may have of a publisher.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct TrackPermission {
    /// The subscriber by sid, when named so.
    pub participant: Option<ParticipantSid>,
    /// The subscriber by identity, when named so.
    pub identity: Option<Identity>,
    /// It may have every track.
    pub all_tracks: bool,
    /// Otherwise these.
    pub tracks: Vec<TrackSid>,
}

impl SubscriptionPolicy {
    /// Whether `subscriber` may have `track`. Recorders always may.
    pub(crate) fn permits(&self, subscriber: &NewParticipant, track: &TrackSid) -> bool {
        self.all_participants
            || subscriber.permissions.recorder
            || subscriber.kind == ParticipantKind::Egress
            || self.permissions.iter().any(|permission| {
                let names = permission.participant.as_ref() == Some(&subscriber.sid)
                    || permission.identity.as_ref() == Some(&subscriber.identity);
                names && (permission.all_tracks || permission.tracks.contains(track))
            })
    }
}
