//! What happened in a world, so that two runs can be compared.

use std::{
    hash::{DefaultHasher, Hasher},
    time::Duration,
};

/// What kind of thing passed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[allow(missing_docs)]
pub enum Kind {
    Rtp,
    Rtcp,
    Data,
    Signal,
    Event,
}

/// Which way it passed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[allow(missing_docs)]
pub enum Direction {
    ToServer,
    ToGuest,
}

/// One thing that passed between a guest and the server, in the clear.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// Virtual time since the world began.
    pub at: Duration,
    /// The guest's place among the guests.
    pub guest: usize,
    /// Which way.
    pub direction: Direction,
    /// What kind.
    pub kind: Kind,
    /// Plaintext; signal messages as JSON, whose keys are sorted.
    pub bytes: Vec<u8>,
}

/// Everything that passed. Handshakes are left out: `dimpl` and `sctp-proto` draw bytes of their
/// own there (see `docs/decisions/0001-randomness-of-dependencies.md`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Trace {
    /// In order.
    pub entries: Vec<Entry>,
}

impl Trace {
    /// One number for the whole trace.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        for entry in &self.entries {
            hasher.write_u128(entry.at.as_nanos());
            hasher.write_usize(entry.guest);
            hasher.write_u8(entry.direction as u8);
            hasher.write_u8(entry.kind as u8);
            hasher.write(&entry.bytes);
        }
        hasher.finish()
    }

    /// How many entries of a kind passed in a direction.
    pub fn count(&self, kind: Kind, direction: Direction) -> usize {
        let matching = |entry: &&Entry| entry.kind == kind && entry.direction == direction;
        self.entries.iter().filter(matching).count()
    }

    /// Where another trace first differs, in words; `None` where it does not.
    pub fn first_difference(&self, other: &Trace) -> Option<String> {
        let pairs = self.entries.iter().zip(&other.entries).enumerate();
        for (index, (a, b)) in pairs {
            if a != b {
                return Some(format!("entry {index}:\n  {}\n  {}", show(a), show(b)));
            }
        }
        let (ours, theirs) = (self.entries.len(), other.entries.len());
        (ours != theirs).then(|| format!("{ours} entries against {theirs}"))
    }
}

fn show(entry: &Entry) -> String {
    let Entry { at, guest, direction, kind, bytes } = entry;
    let text = match kind {
        Kind::Signal | Kind::Event => String::from_utf8_lossy(bytes).into_owned(),
        _ => format!("{} bytes {:02x?}", bytes.len(), bytes.get(..bytes.len().min(24))),
    };
    format!("{at:?} guest {guest} {direction:?} {kind:?} {text}")
}
