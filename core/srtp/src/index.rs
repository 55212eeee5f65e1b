//! Packet indices: the roll-over counter and the replay window (RFC 3711 section 3.3).

/// How far behind the newest packet a late one may still be, in packets.
///
/// At 1000 packets a second it spans more than a second: a retransmission on the same SSRC
/// arrives within it.
pub const REPLAY_WINDOW_PACKETS: u64 = 1024;

/// Indices of RTP packets have 48 bits: roll-over counter and sequence number.
pub(crate) const MAX_RTP_INDEX: u64 = (1 << 48) - 1;

/// Indices of RTCP packets have 31 bits.
pub(crate) const MAX_RTCP_INDEX: u64 = (1 << 31) - 1;

const WORDS: usize = (REPLAY_WINDOW_PACKETS / 64) as usize;

/// The index of `sequence` that is nearest to `highest` (RFC 3711 section 3.3.1); `None` where
/// that would lie before the first roll-over or after the last.
pub(crate) fn nearest_index(highest: u64, sequence: u16) -> Option<u64> {
    let ahead = sequence.wrapping_sub(highest as u16).cast_signed();
    highest.checked_add_signed(i64::from(ahead)).filter(|index| *index <= MAX_RTP_INDEX)
}

/// Which of the newest [`REPLAY_WINDOW_PACKETS`] indices have been seen.
#[derive(Clone, Debug)]
pub(crate) struct ReplayWindow {
    highest: u64,
    seen: [u64; WORDS],
}

impl ReplayWindow {
    /// A window that has seen `first`.
    pub fn starting_at(first: u64) -> Self {
        let mut window = Self { highest: first, seen: [0; WORDS] };
        window.mark(first);
        window
    }

    pub fn highest(&self) -> u64 {
        self.highest
    }

    /// Whether `index` is new and not too old.
    pub fn admits(&self, index: u64) -> bool {
        if index > self.highest {
            return true;
        }
        let (word, bit) = place(index);
        self.highest - index < REPLAY_WINDOW_PACKETS && self.seen[word] & bit == 0
    }

    /// Remembers `index`, which the window admits and which has proven authentic.
    pub fn accept(&mut self, index: u64) {
        if index > self.highest {
            if index - self.highest >= REPLAY_WINDOW_PACKETS {
                self.seen = [0; WORDS];
            } else {
                for skipped in self.highest + 1..index {
                    let (word, bit) = place(skipped);
                    self.seen[word] &= !bit;
                }
            }
            self.highest = index;
        }
        self.mark(index);
    }

    fn mark(&mut self, index: u64) {
        let (word, bit) = place(index);
        self.seen[word] |= bit;
    }
}

fn place(index: u64) -> (usize, u64) {
    let position = index % REPLAY_WINDOW_PACKETS;
    ((position / 64) as usize, 1 << (position % 64))
}
