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

macro_rules! number_id {
    ($($(#[$doc:meta])* $name:ident($number:ty)),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name(pub $number);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    )*};
}

number_id! {
    /// One track sent to one peer. Drawn by `Node`, never reused while it runs.
    SubscriptionId(u32),
    /// One media thread of this server.
    ShardId(u32),
    /// One peer connection of this server. Drawn by `Node`, never reused while it runs. Its upper
    /// half names the media thread that it is on, so that any other knows whom to ask for it.
    PeerId(u64),
    /// One published track on the packet path. Drawn by `Node`, never reused while it runs. Its
    /// upper half names its publisher's media thread, as that of [`PeerId`].
    TrackId(u64),
}

macro_rules! homed_id {
    ($($name:ident),*) => {$(
        impl $name {
            /// This number on a media thread.
            pub fn new(home: ShardId, number: u32) -> Self {
                Self(u64::from(home.0) << 32 | u64::from(number))
            }

            /// The media thread that it is on.
            pub fn home(self) -> ShardId {
                ShardId((self.0 >> 32) as u32)
            }
        }
    )*};
}

homed_id!(PeerId, TrackId);

/// Letters at the start of a ufrag that name its shard.
const UFRAG_SHARD_LETTERS: usize = 3;

/// The ufrag of each peer begins with three letters for its shard: who sees a check that reached
/// the server anywhere (over TCP, all shards have one port) knows where it belongs.
impl ShardId {
    /// The letters of this shard; the same for shards 17576 apart.
    pub fn ufrag_prefix(self) -> String {
        let letter = |n: u32| char::from(b'a' + (n % 26) as u8);
        [self.0 / 676, self.0 / 26, self.0].map(letter).iter().collect()
    }

    /// The shard that a ufrag names.
    pub fn of_ufrag(ufrag: &str) -> Option<Self> {
        let letters = ufrag.as_bytes().get(..UFRAG_SHARD_LETTERS)?;
        let value = |letter: &u8| letter.is_ascii_lowercase().then(|| u32::from(letter - b'a'));
        letters.iter().try_fold(0, |shard, letter| Some(26 * shard + value(letter)?)).map(ShardId)
    }
}

#[cfg(test)]
mod shard_tests {
    use super::*;

    #[test]
    fn a_ufrag_names_its_shard() {
        for shard in [0, 1, 25, 26, 675, 676, 17_575].map(ShardId) {
            let ufrag = shard.ufrag_prefix() + "QWERTY";
            assert_eq!(ShardId::of_ufrag(&ufrag), Some(shard));
        }
        assert_eq!(ShardId(0).ufrag_prefix(), "aaa");
        for foreign in ["", "ab", "abC", "ab1x", "äöü"] {
            assert_eq!(ShardId::of_ufrag(foreign), None);
        }
    }
}
