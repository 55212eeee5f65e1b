//! What can be asked of a room, how it refuses, and what it tells.

use crate::{DataTrack, NewParticipant, NewTrack, Participant, SubscriptionPolicy};
use parlor_model::{Codec, DisconnectReason, ParticipantSid, Permissions, Rid, Ssrc, TrackSid};
use std::collections::BTreeMap;

/// A request to a room.
#[derive(Clone, PartialEq, Debug)]
pub enum Command {
    /// Somebody wants to come in. Somebody of the same identity has to leave.
    Join(Box<NewParticipant>),
    /// The participant has been told that it is in.
    SetJoined(ParticipantSid),
    /// Media flows to and from the participant.
    SetActive(ParticipantSid),
    /// The participant leaves, or is made to.
    Leave(ParticipantSid, DisconnectReason),
    /// A track is announced. `sid` is used unless the announcement names one.
    AddTrack {
        /// The publisher.
        participant: ParticipantSid,
        /// The id for it.
        sid: TrackSid,
        /// The announcement.
        new: Box<NewTrack>,
    },
    /// Negotiation found the section and codec of a track.
    SetNegotiated {
        /// The publisher.
        participant: ParticipantSid,
        /// The track.
        track: TrackSid,
        /// The media track in the publisher's offer.
        cid: String,
        /// The section.
        mid: String,
        /// The codec that will be sent.
        codec: Codec,
    },
    /// Media of a codec has come that takes the place of those before it.
    Regress {
        /// The publisher.
        participant: ParticipantSid,
        /// The track.
        track: TrackSid,
        /// The position of the codec.
        codec: usize,
    },
    /// Media of a track is there, or as good as there: others may see it.
    Publish {
        /// The publisher.
        participant: ParticipantSid,
        /// The track.
        track: TrackSid,
    },
    /// The SSRC of a layer became known.
    SetStream {
        /// The publisher.
        participant: ParticipantSid,
        /// The track.
        track: TrackSid,
        /// The section.
        mid: String,
        /// Spatial layer, 0 lowest.
        layer: u8,
        /// RID, if the stream has one.
        rid: Option<Rid>,
        /// SSRC.
        ssrc: Ssrc,
    },
    /// A track ended.
    Unpublish {
        /// The publisher.
        participant: ParticipantSid,
        /// The track.
        track: TrackSid,
    },
    /// A publisher mutes or unmutes, by itself or by API.
    SetMuted {
        /// The publisher.
        participant: ParticipantSid,
        /// The track.
        track: TrackSid,
        /// Whether it is muted now.
        muted: bool,
    },
    /// A publisher changes what it says of an audio track.
    SetAudioFeatures {
        /// The publisher.
        participant: ParticipantSid,
        /// The track.
        track: TrackSid,
        /// `AudioTrackFeature`s of the protocol.
        features: Vec<i32>,
    },
    /// A publisher changes the size of a video track.
    SetDimensions {
        /// The publisher.
        participant: ParticipantSid,
        /// The track.
        track: TrackSid,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// A subscriber wants tracks, or wants them no more. Unknown ones are passed over.
    Subscribe {
        /// The subscriber.
        participant: ParticipantSid,
        /// The tracks.
        tracks: Vec<TrackSid>,
        /// Whether they are wanted.
        subscribe: bool,
    },
    /// A participant publishes data under a handle.
    PublishDataTrack {
        /// The publisher.
        participant: ParticipantSid,
        /// The track.
        track: DataTrack,
    },
    /// A data track ended.
    UnpublishDataTrack {
        /// The publisher.
        participant: ParticipantSid,
        /// Its handle.
        handle: u16,
    },
    /// A subscriber wants a data track, or wants it no more. An unknown one is passed over.
    SubscribeData {
        /// The subscriber.
        participant: ParticipantSid,
        /// The track.
        track: TrackSid,
        /// Whether it is wanted.
        subscribe: bool,
    },
    /// A publisher says who may have its tracks.
    SetSubscriptionPolicy {
        /// The publisher.
        participant: ParticipantSid,
        /// The new policy, as a whole.
        policy: SubscriptionPolicy,
    },
    /// Something about a participant changes.
    UpdateParticipant {
        /// Who.
        participant: ParticipantSid,
        /// What.
        change: Box<ParticipantChange>,
    },
    /// A participant shows what somebody in another room shows of itself, with its tracks.
    Mirror {
        /// Who shows it.
        participant: ParticipantSid,
        /// Whom it follows.
        source: Box<Participant>,
    },
    /// A participant has come from another room with what it published there.
    Adopt {
        /// Who it is here.
        participant: ParticipantSid,
        /// What it was there.
        from: Box<Participant>,
    },
    /// The room's metadata changes.
    SetMetadata(String),
    /// The room ends with everybody in it.
    Close(DisconnectReason),
}

/// A change of a participant; `None` and empty leave things as they are.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct ParticipantChange {
    /// New name.
    pub name: Option<String>,
    /// New metadata.
    pub metadata: Option<String>,
    /// Merged into the attributes; an empty value deletes its key.
    pub attributes: BTreeMap<String, String>,
    /// New permissions, as a whole.
    pub permissions: Option<Permissions>,
}

/// Why a command was not carried out; nothing has changed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// As many participants as the room admits.
    #[error("room is full: it admits {max_participants} participants")]
    RoomFull {
        /// How many are admitted.
        max_participants: u32,
    },
    /// The room has ended.
    #[error("room is closed")]
    Closed,
    /// Nobody with this sid is in the room.
    #[error("no participant {0} in the room")]
    NoParticipant(ParticipantSid),
    /// The participant has no such track.
    #[error("no track {0}")]
    NoTrack(TrackSid),
    /// The participant lacks the permission.
    #[error("not allowed")]
    NotAllowed,
    /// A track with this cid exists; the announcement waits for its end.
    #[error("queued behind the track with the same cid")]
    Queued,
    /// Too many of something.
    #[error("exceeds the limit of {limit} {what}")]
    LimitExceeded {
        /// Of what.
        what: &'static str,
        /// How many are admitted.
        limit: usize,
    },
    /// A data track needs a handle from 1 to 65535.
    #[error("invalid handle")]
    InvalidHandle,
    /// A data track needs a name, and not too long a one.
    #[error("invalid name")]
    InvalidName,
    /// The publisher has a data track with this handle.
    #[error("duplicate handle")]
    DuplicateHandle,
    /// The publisher has a data track of this name.
    #[error("duplicate name")]
    DuplicateName,
    /// Neither audio nor video.
    #[error("unsupported track type")]
    UnsupportedType,
}

/// Who hears of something.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Audience {
    /// Everybody in the room.
    Everyone,
    /// Everybody but one.
    Except(ParticipantSid),
    /// One participant.
    Only(ParticipantSid),
}

/// What a room tells its owner, in order. The room is read for the details
/// ([`crate::Room::participant`] also finds who has just left).
#[derive(Clone, PartialEq, Debug)]
pub enum Event {
    /// Participants changed in what others see of them.
    Updated {
        /// Who changed.
        participants: Vec<ParticipantSid>,
        /// Who is to be told.
        audience: Audience,
    },
    /// Counts or metadata of the room changed: tell everybody.
    RoomUpdated,
    /// The participant is out. Its connections and socket end.
    Left {
        /// Who.
        participant: ParticipantSid,
        /// Why.
        reason: DisconnectReason,
    },
    /// An announced track was taken: tell its publisher (`track_published`).
    TrackAdded {
        /// The publisher.
        participant: ParticipantSid,
        /// The track.
        track: TrackSid,
        /// The cid of the announcement.
        cid: String,
    },
    /// A published track can be subscribed to.
    TrackPublished {
        /// The publisher.
        participant: ParticipantSid,
        /// The track.
        track: TrackSid,
    },
    /// A track is gone. `by_server` when the publisher has to be told so.
    TrackEnded {
        /// The publisher.
        participant: ParticipantSid,
        /// The track.
        track: TrackSid,
        /// Whether the server ended it.
        by_server: bool,
    },
    /// A track's mute state changed.
    TrackMuted {
        /// The publisher.
        participant: ParticipantSid,
        /// The track.
        track: TrackSid,
        /// Whether it is muted now.
        muted: bool,
    },
    /// Whether a subscriber may have a track, the first time and when it changes.
    SubscriptionPermission {
        /// The subscriber.
        subscriber: ParticipantSid,
        /// The publisher.
        publisher: ParticipantSid,
        /// The track.
        track: TrackSid,
        /// Whether it may.
        allowed: bool,
    },
    /// Start to send a track to a subscriber.
    Subscribed {
        /// The subscriber.
        subscriber: ParticipantSid,
        /// The publisher.
        publisher: ParticipantSid,
        /// The track.
        track: TrackSid,
    },
    /// Send a track to a subscriber no more.
    Unsubscribed {
        /// The subscriber.
        subscriber: ParticipantSid,
        /// The track.
        track: TrackSid,
    },
    /// Start to send a data track to a subscriber.
    DataSubscribed {
        /// The subscriber.
        subscriber: ParticipantSid,
        /// The publisher.
        publisher: ParticipantSid,
        /// The track.
        track: TrackSid,
    },
    /// Send a data track to a subscriber no more.
    DataUnsubscribed {
        /// The subscriber.
        subscriber: ParticipantSid,
        /// The track.
        track: TrackSid,
    },
    /// Name, metadata, attributes or permissions of a participant changed: its token too.
    GrantsChanged {
        /// Who.
        participant: ParticipantSid,
    },
    /// The room has ended.
    Closed,
}
