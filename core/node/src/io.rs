//! What goes into a [`crate::Node`] and what comes out.

use bytes::Bytes;
use parlor_model::ShardId;
use parlor_sfu::command::{MediaCommand, MediaEvent};

pub use parlor_model::Now;

/// One WebSocket of a client. Drawn by the gateway, never reused while it runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SessionId(pub u64);

/// One API request. Drawn by the gateway, never reused while it runs.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CallId(pub u64);

/// One WebSocket message: protobuf, or protobuf JSON for clients that speak text.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub enum Frame {
    Binary(Bytes),
    Text(String),
}

/// An object that outlives the process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kept {
    /// One of [`crate::kept_kinds`].
    pub kind: String,
    /// Which of its kind.
    pub id: String,
    /// JSON.
    pub value: Vec<u8>,
}

/// Something that happened outside.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // an API request is moved once, never stored
pub enum Input {
    /// A client asks for an upgrade. Answered by [`Output::Accept`] or [`Output::Refuse`].
    Connect {
        /// The socket.
        session: SessionId,
        /// Verified token and decoded parameters.
        request: Box<parlor_signal::ConnectRequest>,
    },
    /// A client asks whether it would be let in. Answered like [`Input::Connect`]; nothing is
    /// opened.
    Validate {
        /// A number for the answer.
        session: SessionId,
        /// Verified token and decoded parameters.
        request: Box<parlor_signal::ConnectRequest>,
    },
    /// An agent worker asks for an upgrade. Answered as [`Input::Connect`] is.
    Worker {
        /// The socket.
        session: SessionId,
        /// The API key of its token.
        api_key: String,
    },
    /// A message from a client or worker.
    Frame {
        /// The socket.
        session: SessionId,
        /// The message.
        frame: Frame,
    },
    /// The socket is gone.
    Closed {
        /// The socket.
        session: SessionId,
    },
    /// An API request of an authenticated caller.
    Api {
        /// To be repeated in the answer.
        call: CallId,
        /// The caller's token; `None` when the request had none.
        claims: Option<Box<parlor_signal::token::Claims>>,
        /// What is asked.
        request: Box<crate::api::ApiRequest>,
    },
    /// News from a media thread.
    Media {
        /// Which.
        shard: ShardId,
        /// What.
        event: MediaEvent,
    },
    /// What was kept when the process ran before, in the order of [`crate::kept_kinds`]. The
    /// first input, if at all.
    Restore(Vec<Kept>),
    /// The process ends: tell the participants.
    Shutdown,
}

/// Something that must happen outside.
#[derive(Debug)]
pub enum Output {
    /// Complete the upgrade; frames follow.
    Accept {
        /// The socket.
        session: SessionId,
    },
    /// Refuse the upgrade with plain HTTP.
    Refuse {
        /// The socket.
        session: SessionId,
        /// HTTP status.
        status: u16,
        /// Text body.
        body: String,
    },
    /// Send a message to a client.
    Frame {
        /// The socket.
        session: SessionId,
        /// The message.
        frame: Frame,
    },
    /// Close the socket with code 1000 after what was sent before.
    Close {
        /// The socket.
        session: SessionId,
    },
    /// Tell a media thread.
    Media {
        /// Which.
        shard: ShardId,
        /// What.
        command: MediaCommand,
    },
    /// Keep an object, in place of what has its kind and id. What comes later may be seen only
    /// once it is kept.
    Keep(Kept),
    /// An object has not to be kept any more.
    Forget {
        /// Its kind.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// Tell the application. Events of one room are in order.
    Webhook(Box<livekit_protocol::WebhookEvent>),
    /// Answer an API request.
    Reply {
        /// The request.
        call: CallId,
        /// The answer.
        result: Box<Result<crate::api::ApiResponse, crate::api::ApiError>>,
    },
}
