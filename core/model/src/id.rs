//! Names that people choose, sids that the server draws, and dense ids for the packet path.

use std::{fmt, sync::Arc};

macro_rules! text_id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text as it stands on the wire.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    )*};
}

text_id! {
    /// The name that joins participants into one room; chosen by the application.
    RoomName,
    /// `RM_...`: one life of a room.
    RoomSid,
    /// Who a participant is to the application; unique in its room.
    Identity,
    /// `PA_...`: one session of a participant.
    ParticipantSid,
    /// `TR_...`: one publication.
    TrackSid,
}

macro_rules! dense_id {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub u32);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

dense_id! {
    /// One peer connection of this server. Drawn by `Node`, never reused while it runs.
    PeerId,
    /// One published track on the packet path. Drawn by `Node`, never reused while it runs.
    TrackId,
    /// One track sent to one peer. Drawn by `Node`, never reused while it runs.
    SubscriptionId,
    /// One media thread of this server.
    ShardId,
}
