//! What happened in a world, so that two runs can be compared.

use std::time::Duration;

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
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// In order; empty where only the hash is kept.
    pub entries: Vec<Entry>,
    keeps_entries: bool,
    hash: u64,
    passed: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self { entries: Vec::new(), keeps_entries: true, hash: 0, passed: 0 }
    }
}

impl Trace {
    /// Keeps the hash only from now on.
    pub(crate) fn forget_entries(&mut self) {
        self.keeps_entries = false;
    }

    pub(crate) fn keeps_entries(&self) -> bool {
        self.keeps_entries
    }

    /// One number for the whole trace, the same on every machine.
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many things passed.
    pub fn passed(&self) -> u64 {
        self.passed
    }

    pub(crate) fn note(
        &mut self,
        at: Duration,
        guest: usize,
        direction: Direction,
        kind: Kind,
        bytes: &[u8],
    ) {
        let head = (guest as u64) << 8 | (direction as u64) << 4 | kind as u64;
        // The order of a protobuf map's entries is not defined: of a message its bytes count.
        let body = if kind == Kind::Signal { unordered(bytes) } else { ordered(bytes) };
        self.hash = mix(mix(mix(self.hash, at.as_nanos() as u64), head), body);
        self.passed += 1;
        if self.keeps_entries {
            let bytes = bytes.to_vec();
            self.entries.push(Entry { at, guest, direction, kind, bytes });
        }
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

/// Two numbers as one, by a multiplication whose halves are folded.
pub(crate) fn mix(one: u64, other: u64) -> u64 {
    let product =
        u128::from(one ^ 0x9E37_79B9_7F4A_7C15) * u128::from(other ^ 0xD1B5_4A32_D192_ED03);
    (product as u64) ^ ((product >> 64) as u64).rotate_left(17) ^ one.rotate_left(31)
}

fn ordered(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let hash =
        words.iter().fold(bytes.len() as u64, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    rest.iter().fold(hash, |hash, byte| mix(hash, u64::from(*byte)))
}

fn unordered(bytes: &[u8]) -> u64 {
    let sum = bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_add(mix(0, u64::from(*byte))));
    mix(sum, bytes.len() as u64)
}

fn show(entry: &Entry) -> String {
    let Entry { at, guest, direction, kind, bytes } = entry;
    let text = match kind {
        Kind::Signal | Kind::Event => String::from_utf8_lossy(bytes).into_owned(),
        _ => format!("{} bytes {:02x?}", bytes.len(), bytes.get(..bytes.len().min(24))),
    };
    format!("{at:?} guest {guest} {direction:?} {kind:?} {text}")
}
