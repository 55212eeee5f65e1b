//! One peer connection as the packet path sees it.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use parlor_model::{ExtensionIds, Path, PeerId, Ssrc};
use parlor_srtp::{SrtpReceiver, SrtpSender};
use parlor_transport::Transport;

use crate::{
    arena::Key, downlink::Downlink, forward::Subscription, receive::arrivals::Arrivals,
    shard::Reading, ssrc::SsrcTable, track::Track,
};

/// Addresses of one peer that media is taken from.
pub const MAX_ADDRESSES: usize = 8;
/// Names that STUN finds one peer by: its ICE sessions.
pub const MAX_UFRAGS: usize = 4;
/// Bytes of RTCP that wait for one peer.
const MAX_RTCP_WAITING: usize = 64 << 10;
/// Where a compound RTCP packet ends.
const RTCP_BYTES: usize = 1100;

/// The round trip that is assumed before one has been measured, as in LiveKit.
const DEFAULT_ROUND_TRIP: Duration = Duration::from_millis(70);

/// What an incoming SSRC carries.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    pub track: Key<Track>,
    pub stream: u8,
    pub is_rtx: bool,
}

/// When the tasks of a peer are due.
#[derive(Clone, Copy, Default, Debug)]
pub struct Deadlines {
    /// Receiver and sender reports.
    pub report: Option<Instant>,
    /// Transport-wide feedback.
    pub feedback: Option<Instant>,
    pub nack: Option<Instant>,
    pub keyframe: Option<Instant>,
    /// Choice of layers of what it publishes.
    pub layers: Option<Instant>,
    /// What waits for its turn may leave.
    pub pace: Option<Instant>,
    /// The estimator of the way to it.
    pub estimate: Option<Instant>,
    /// Sharing of the estimate among its subscriptions.
    pub allocation: Option<Instant>,
    /// Silent frames in place of what it is sent.
    pub silence: Option<Instant>,
    /// Repair ahead of need.
    pub ahead: Option<Instant>,
    /// Judgement of how fast it reads, while it holds senders back.
    pub reading: Option<Instant>,
}

impl Deadlines {
    pub fn next(&self) -> Option<Instant> {
        let of_publisher = [self.report, self.feedback, self.nack, self.keyframe, self.layers];
        let of_subscriber =
            [self.silence, self.pace, self.estimate, self.allocation, self.ahead, self.reading];
        of_publisher.into_iter().chain(of_subscriber).flatten().min()
    }
}

/// Moves a deadline to `at` if that is earlier.
pub fn bring_forward(deadline: &mut Option<Instant>, at: Instant) {
    *deadline = Some(deadline.map_or(at, |earlier| earlier.min(at)));
}

/// Whether a deadline has come; takes it if so.
pub fn take_due(deadline: &mut Option<Instant>, now: Instant) -> bool {
    deadline.take_if(|at| *at <= now).is_some()
}

/// SRTP in both directions, under the keys of one handshake.
#[repr(C)]
pub struct Srtp {
    pub sender: SrtpSender,
    pub receiver: SrtpReceiver,
}

/// See the module. In this order in memory: what each packet that leaves needs lies side by side.
#[repr(C)]
pub struct Peer {
    /// Whether it stands in the shard's list of peers with something to send.
    pub is_ready: bool,
    pub failed: bool,
    pub next_transport_sequence: u16,
    pub path: Option<Path>,
    pub srtp: Option<Srtp>,
    pub downlink: Downlink,
    pub id: PeerId,
    pub transport: Transport,
    pub addresses: Vec<Path>,
    pub ufrags: Vec<String>,
    pub connected: bool,
    /// It failed for want of a path: another one would bring it back.
    pub lost_path: bool,
    pub tracks: Vec<Key<Track>>,
    pub subscriptions: Vec<Key<Subscription>>,
    pub incoming: SsrcTable<Source>,
    /// Ids of extensions that any section receives: they mean the same in all (RFC 8843 9.4).
    pub receive_extensions: ExtensionIds,
    /// What we send under an SSRC, media or retransmissions.
    pub outgoing: SsrcTable<Key<Subscription>>,
    /// The number after the highest that has left under an SSRC that is not in use now. Never
    /// forgotten while the keys last: a number that leaves twice breaks the cipher.
    pub used_numbers: SsrcTable<u64>,
    pub arrivals: Arrivals,
    pub rtcp: RtcpQueue,
    pub round_trip: Duration,
    /// The step of the scale that its quality was told to be on.
    pub quality: Option<u8>,
    pub reading: Reading,
    pub deadlines: Deadlines,
}

impl Peer {
    pub fn new(
        epoch: Instant,
        now: Instant,
        id: PeerId,
        transport: Transport,
        ufrag: String,
    ) -> Self {
        Self {
            id,
            transport,
            srtp: None,
            path: None,
            addresses: Vec::new(),
            ufrags: vec![ufrag],
            connected: false,
            failed: false,
            lost_path: false,
            tracks: Vec::new(),
            subscriptions: Vec::new(),
            incoming: SsrcTable::default(),
            receive_extensions: ExtensionIds::default(),
            outgoing: SsrcTable::default(),
            used_numbers: SsrcTable::default(),
            arrivals: Arrivals::new(epoch),
            downlink: Downlink::new(epoch, now),
            rtcp: RtcpQueue::default(),
            next_transport_sequence: 1,
            round_trip: DEFAULT_ROUND_TRIP,
            quality: None,
            reading: Reading::default(),
            deadlines: Deadlines::default(),
            is_ready: false,
        }
    }

    /// Whether media can go to it.
    pub fn can_send(&self) -> bool {
        self.srtp.is_some() && self.path.is_some() && !self.failed
    }

    /// When something is to be done for it next.
    pub fn next_deadline(&self) -> Option<Instant> {
        [self.transport.poll_timeout(), self.deadlines.next()].into_iter().flatten().min()
    }

    /// Takes a measured round trip into the smoothed one.
    pub fn measure_round_trip(&mut self, measured: Duration) {
        self.round_trip = (self.round_trip + 3 * measured) / 4;
    }
}

/// RTCP packets that wait to be sealed, joined into compound packets.
#[derive(Default)]
pub struct RtcpQueue {
    bytes: Vec<u8>,
    /// Where each finished compound packet ends.
    ends: VecDeque<usize>,
    /// Where the one that is being joined began.
    start: usize,
    /// How much has been taken.
    taken: usize,
}

impl RtcpQueue {
    /// Appends what `write` appends; `false` when too much is waiting.
    pub fn write(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        if self.bytes.len() > MAX_RTCP_WAITING {
            return false;
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(RTCP_BYTES);
        }
        let before = self.bytes.len();
        write(&mut self.bytes);
        if self.bytes.len() - self.start > RTCP_BYTES && before > self.start {
            self.ends.push_back(before);
            self.start = before;
        }
        true
    }

    /// The next compound packet.
    pub fn peek(&self) -> Option<&[u8]> {
        let end = self.ends.front().copied().unwrap_or(self.bytes.len());
        self.bytes.get(self.taken..end).filter(|packet| !packet.is_empty())
    }

    /// Takes away the packet that [`Self::peek`] showed.
    pub fn pop(&mut self) {
        match self.ends.pop_front() {
            Some(end) => self.taken = end,
            None => self.clear(),
        }
    }

    pub fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
        (self.start, self.taken) = (0, 0);
    }
}

/// The SSRC of our own reports and feedback.
pub const OWN_SSRC: Ssrc = Ssrc(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rtcp_is_joined_up_to_a_datagram_and_comes_back_in_order() {
        let mut queue = RtcpQueue::default();
        for byte in 0..5u8 {
            assert!(queue.write(|out| out.extend([byte; 500])));
        }
        let mut lens = Vec::new();
        while let Some(packet) = queue.peek() {
            lens.push((packet[0], packet.len()));
            queue.pop();
        }
        assert_eq!(lens, [(0, 1000), (2, 1000), (4, 500)]);
        assert!(queue.bytes.is_empty());
        while queue.write(|out| out.extend([0; 1000])) {}
        assert!(queue.bytes.len() <= MAX_RTCP_WAITING + 1000);
    }
}
