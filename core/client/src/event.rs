//! What a client tells its owner.

use crate::KeyframeRequest;
use bytes::Bytes;
use livekit_protocol as proto;
use parlor_model::DataChannel;

/// Something that happened to a client.
#[derive(Clone, PartialEq, Debug)]
pub enum ClientEvent {
    /// The server took us in.
    Joined(Box<proto::JoinResponse>),
    /// Media can flow.
    Connected,
    /// What the server says of participants changed.
    Participants(Vec<proto::ParticipantInfo>),
    /// The server took a track that we announced.
    TrackPublished {
        /// Our id of the track.
        cid: String,
        /// What the server made of it.
        track: Box<proto::TrackInfo>,
    },
    /// The tracks that we receive are now these, by sid.
    Tracks(Vec<String>),
    /// A data channel can be written.
    ChannelOpen(DataChannel),
    /// A message came.
    Data {
        /// On which channel.
        channel: DataChannel,
        /// The message.
        data: Bytes,
    },
    /// A stream of ours needs a keyframe.
    KeyframeRequested {
        /// Our id of the track.
        cid: String,
        /// Which stream.
        request: KeyframeRequest,
    },
    /// Any other message of the server.
    Signal(Box<proto::signal_response::Message>),
    /// A connection failed, with what the transport says.
    Failed(String),
    /// The server ended the session.
    Left(Box<proto::LeaveRequest>),
}
