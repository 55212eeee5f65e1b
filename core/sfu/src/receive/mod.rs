//! The publish side: what is known of one received stream.

pub mod arrivals;
pub mod audio_level;
pub mod bitrate;
pub mod chains;
pub mod frame;
pub mod history;
pub mod keyframe;
pub mod nack;
pub mod red;
pub mod sequence;

use std::time::{Duration, Instant};

use parlor_model::{
    CodecBinding, ExtensionIds, NtpTime, ReceiveStream as Announced, Rid, RtpTimestamp,
    SequenceNumber, Ssrc, TrackKind,
};
use parlor_rtp::{RtpPacket, is_keyframe, rtcp};

use self::{
    bitrate::LayerRates,
    frame::{FrameFacts, FrameRates, Layering, Scalability, read_frame},
    history::{AUDIO_BOUNDS, History, PacketFacts, PacketParts, Refused, VIDEO_BOUNDS},
    keyframe::KeyframeRequest,
    nack::MissingPackets,
    sequence::{Extender, Order, Renumber},
};

use crate::quality;

/// A stream has not stopped before it has been silent for so long.
const SILENCE: Duration = Duration::from_millis(500);
/// Packets whose frames are read again when their structure comes late.
const MAX_READ_AGAIN: u64 = MAX_REPLAY;
/// Most packets after a keyframe's beginning that came before it: with more of them it is of no
/// use any more.
pub const MAX_REPLAY: u64 = 128;
/// No keyframe is asked of a stream that has been silent for so long.
const GIVE_UP_AFTER: Duration = Duration::from_secs(2);

/// What a publisher said last about the clock of a stream.
#[derive(Clone, Copy, Debug)]
pub struct ClockReport {
    pub ntp: NtpTime,
    pub timestamp: RtpTimestamp,
    pub arrived: Instant,
}

/// One stream of a published track: a simulcast layer, or all of it.
pub struct Stream {
    pub rid: Option<Rid>,
    pub layer: u8,
    pub ssrc: Option<Ssrc>,
    pub rtx_ssrc: Option<Ssrc>,
    pub history: History,
    pub missing: MissingPackets,
    pub keyframe: KeyframeRequest,
    pub clock: Option<ClockReport>,
    /// Since when packets have come without a pause.
    pub alive_since: Option<Instant>,
    pub last_packet: Option<Instant>,
    /// By what its dependency descriptors are read.
    pub scalability: Option<Scalability>,
    pub rates: FrameRates,
    pub layers: LayerRates,
    clock_rate: u32,
    /// The number that it began with, in the history.
    first_number: Option<u64>,
    /// Packets that came as retransmissions.
    repaired: u64,
    pub judged: quality::Received,
    extender: Extender,
    renumber: Renumber,
    reception: Reception,
}

/// Totals of a received stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Totals {
    pub expected: u64,
    /// Retransmissions included.
    pub arrived: u64,
    pub jitter: Duration,
}

/// What became of a received packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Received {
    /// It is in the history under this number and may be forwarded.
    Stored {
        number: u64,
        keyframe: bool,
        /// Packets before it are missing, so a timer is needed.
        gap: bool,
        /// Too much is missing to ask for it.
        lost_track: bool,
    },
    Padding {
        gap: bool,
    },
    Refused(Refused),
}

/// A packet taken out of its header, or out of its retransmission.
pub struct Incoming<'a> {
    pub arrived: Instant,
    pub packet: &'a RtpPacket<'a>,
    /// Its own number, or the original one of a retransmission.
    pub sequence: SequenceNumber,
    pub payload: &'a [u8],
    pub is_rtx: bool,
    pub codec: CodecBinding,
    pub codec_index: u8,
}

impl Stream {
    /// `first_cycle` lies above all numbers of streams that stood in its place before.
    pub fn new(announced: &Announced, kind: TrackKind, clock_rate: u32, first_cycle: u64) -> Self {
        let bounds = match kind {
            TrackKind::Audio => AUDIO_BOUNDS,
            TrackKind::Video => VIDEO_BOUNDS,
        };
        Self {
            rid: announced.rid,
            layer: announced.layer,
            ssrc: announced.ssrc,
            rtx_ssrc: announced.rtx_ssrc,
            history: History::new(bounds),
            missing: MissingPackets::default(),
            keyframe: KeyframeRequest::default(),
            clock: None,
            alive_since: None,
            last_packet: None,
            scalability: None,
            rates: FrameRates::default(),
            layers: LayerRates::default(),
            clock_rate,
            first_number: None,
            repaired: 0,
            judged: quality::Received::default(),
            extender: Extender::new(first_cycle),
            renumber: Renumber::default(),
            reception: Reception::default(),
        }
    }

    /// A cycle of 2^16 above all its numbers.
    pub fn cycle_after(&self) -> u64 {
        self.extender.cycle_after()
    }

    /// Another SSRC has taken over: nothing of the one before is asked for any more, and numbers
    /// go on above all that were given out.
    pub fn take_over(&mut self, ssrc: Ssrc, first: SequenceNumber) {
        self.ssrc = Some(ssrc);
        self.missing.clear();
        self.clock = None;
        self.alive_since = None;
        self.last_packet = None;
        self.scalability = None;
        self.rates = FrameRates::default();
        self.layers = LayerRates::default();
        self.renumber = Renumber::default();
        self.reception = Reception::default();
        self.first_number = None;
        self.repaired = 0;
        self.judged = quality::Received::default();
        let number = self.extender.restart(first);
        self.reception.begin(number);
    }

    /// Takes in an authenticated packet.
    pub fn receive(
        &mut self,
        now: Instant,
        incoming: &Incoming<'_>,
        extensions: &ExtensionIds,
    ) -> Received {
        let packet = incoming.packet;
        let order = if incoming.is_rtx {
            self.extender.peek(incoming.sequence).map(|number| (number, Order::Late))
        } else {
            self.reception.received += 1;
            self.extender.extend(incoming.sequence)
        };
        let Some((wire_number, order)) = order else { return Received::Refused(Refused::TooOld) };
        let is_newest = matches!(order, Order::Newest { .. });
        let (mut gap, mut lost_track) = (false, false);
        match order {
            Order::Newest { missing } if missing > 0 => {
                lost_track = !self.missing.add(now, wire_number - missing, wire_number);
                gap = true;
            }
            Order::Newest { .. } => {}
            Order::Late => drop(self.missing.remove(wire_number)),
        }
        if is_newest && !incoming.is_rtx {
            self.reception.newest(
                incoming.arrived,
                wire_number,
                packet.timestamp(),
                self.clock_rate,
            );
        }
        if incoming.payload.is_empty() && is_newest {
            self.renumber.leave_out(wire_number);
            return Received::Padding { gap };
        }
        let Some(number) = self.renumber.number(wire_number) else {
            return Received::Padding { gap };
        };
        match self.store(now, number, is_newest, incoming, extensions) {
            Ok(keyframe) => Received::Stored { number, keyframe, gap, lost_track },
            Err(refused) => Received::Refused(refused),
        }
    }

    /// Keeps an authenticated packet under its number. Whether it begins a keyframe.
    pub fn store(
        &mut self,
        now: Instant,
        number: u64,
        is_newest: bool,
        incoming: &Incoming<'_>,
        extensions: &ExtensionIds,
    ) -> Result<bool, Refused> {
        if self.history.facts(number).is_some() {
            return Err(Refused::Duplicate);
        }
        let packet = incoming.packet;
        let descriptor = extension(packet, extensions.dependency_descriptor);
        let codec = incoming.codec.codec;
        let held = &mut self.scalability;
        let frame = read_frame(now, held, codec, incoming.payload, descriptor, number);
        let facts = facts(packet, incoming, extensions, number, frame);
        let parts = PacketParts {
            dependency_descriptor: descriptor,
            abs_capture_time: extension(packet, extensions.abs_capture_time),
            payload: incoming.payload,
        };
        self.history.insert(now, facts, &parts)?;
        self.first_number.get_or_insert(number);
        self.repaired += u64::from(incoming.is_rtx);
        if !incoming.is_rtx {
            self.mark_alive(now);
        }
        self.layers.count(now, &facts, incoming.payload.len());
        if frame.starts
            && let Some(scalability) = &self.scalability
            && let Some(is_needed) = scalability.is_needed_above(&frame)
        {
            self.layers.note_dependence(&facts, is_needed);
        }
        if is_newest {
            self.rates.count(now, facts.timestamp, frame.temporal);
        } else if facts.keyframe && frame.is_keyframe() == Some(true) {
            self.read_again(now, number + 1);
        }
        if facts.keyframe && self.history.highest() - number <= MAX_REPLAY {
            self.keyframe.stop();
        }
        Ok(facts.keyframe)
    }

    fn mark_alive(&mut self, now: Instant) {
        if self.last_packet.is_none_or(|last| now > last + self.silence()) {
            self.alive_since = Some(now);
        }
        self.last_packet = Some(now);
    }

    /// A stream that has been silent for so long while others of its track were not has stopped.
    pub fn silence(&self) -> Duration {
        (self.rates.interval() * 3).max(SILENCE)
    }

    /// Reads the frames of packets again that came before the structure of their descriptors.
    fn read_again(&mut self, now: Instant, first: u64) {
        let last = self.history.highest().min(first + MAX_READ_AGAIN);
        for number in first..=last {
            let Some((facts, parts)) = self.history.get(number) else { continue };
            if facts.frame.layering == Layering::None {
                continue;
            }
            let (codec, descriptor) = (facts.codec, parts.dependency_descriptor);
            let held = &mut self.scalability;
            let frame = read_frame(now, held, codec, parts.payload, descriptor, number);
            if frame.layering != Layering::Unknown {
                self.history.set_frame(number, frame);
            }
        }
    }

    /// Whether a keyframe may be asked of it.
    pub fn may_answer(&self, now: Instant) -> bool {
        self.last_packet.is_some_and(|last| now < last + GIVE_UP_AFTER)
    }

    /// A sender report has come. One that is older than the last is left out.
    pub fn set_clock(&mut self, report: ClockReport) {
        if self.clock.is_none_or(|clock| clock.ntp < report.ntp) {
            self.clock = Some(report);
        }
    }

    /// What has been received so far; `None` before the first packet.
    pub fn totals(&self) -> Option<Totals> {
        let (first, highest) = (self.reception.first?, self.extender.highest()?);
        Some(Totals {
            expected: (highest + 1).saturating_sub(first),
            arrived: self.reception.received + self.repaired,
            jitter: quality::ticks(self.reception.jitter as u64, self.clock_rate),
        })
    }

    /// Whether packets come now.
    pub fn is_alive(&self, now: Instant) -> bool {
        self.last_packet.is_some_and(|last| now <= last + self.silence())
    }

    /// What to report about the reception since the last call (RFC 3550 section 6.4.1).
    pub fn report(&mut self, now: Instant) -> Option<rtcp::ReportBlock> {
        let ssrc = self.ssrc?;
        let highest = self.extender.highest()?;
        let (last_sr, delay_since_last_sr) = self.clock.map_or((0, 0), |clock| {
            let delay = now.saturating_duration_since(clock.arrived);
            (clock.ntp.middle(), (delay.as_micros() * 65_536 / 1_000_000) as u32)
        });
        self.reception.report(ssrc, highest, last_sr, delay_since_last_sr)
    }

    /// The wall clock time of a timestamp by the publisher's last report, in seconds since 1900
    /// as 32.32 fixed point.
    pub fn ntp_of(&self, timestamp: u32) -> Option<i128> {
        let clock = self.clock?;
        let ticks = RtpTimestamp(timestamp).distance(clock.timestamp);
        Some(i128::from(clock.ntp.0) + (i128::from(ticks) << 32) / i128::from(self.clock_rate))
    }

    /// The timestamp of a wall clock time, as [`Self::ntp_of`].
    pub fn timestamp_at(&self, ntp: i128) -> Option<u32> {
        let clock = self.clock?;
        let ticks = ((ntp - i128::from(clock.ntp.0)) * i128::from(self.clock_rate)) >> 32;
        Some(clock.timestamp.0.wrapping_add(ticks as u32))
    }

    pub fn clock_rate(&self) -> u32 {
        self.clock_rate
    }
}

fn extension<'a>(packet: &RtpPacket<'a>, id: Option<u8>) -> &'a [u8] {
    id.and_then(|id| packet.extension(id)).unwrap_or(&[])
}

fn facts(
    packet: &RtpPacket<'_>,
    incoming: &Incoming<'_>,
    extensions: &ExtensionIds,
    number: u64,
    frame: FrameFacts,
) -> PacketFacts {
    let codec = incoming.codec.codec;
    let payload = incoming.payload;
    let one = |id| extension(packet, id).first().copied();
    let rare = [
        extensions.video_orientation,
        extensions.abs_capture_time,
        extensions.dependency_descriptor,
        extensions.playout_delay,
    ];
    PacketFacts {
        number,
        timestamp: packet.timestamp().0,
        marker: packet.marker(),
        keyframe: !payload.is_empty()
            && frame.is_keyframe().unwrap_or_else(|| is_keyframe(codec, payload)),
        codec,
        codec_index: incoming.codec_index,
        frame,
        audio_level: one(extensions.audio_level),
        video_orientation: one(extensions.video_orientation),
        playout_delay: extension(packet, extensions.playout_delay).first_chunk().copied(),
        has_rare_extensions: rare.into_iter().any(|id| !extension(packet, id).is_empty()),
    }
}

/// Counts for receiver reports (RFC 3550 appendix A).
#[derive(Default)]
struct Reception {
    first: Option<u64>,
    received: u64,
    expected_before: u64,
    received_before: u64,
    jitter: f64,
    /// Arrival and timestamp of the first packet of the last frame.
    transit: Option<(Instant, RtpTimestamp)>,
}

impl Reception {
    fn begin(&mut self, number: u64) {
        self.first = Some(number);
    }

    fn newest(&mut self, arrived: Instant, number: u64, timestamp: RtpTimestamp, clock_rate: u32) {
        self.first.get_or_insert(number);
        if let Some((at, last)) = self.transit {
            let ticks = timestamp.distance(last);
            if ticks == 0 {
                return;
            }
            let elapsed =
                arrived.saturating_duration_since(at).as_secs_f64() * f64::from(clock_rate);
            let difference = (elapsed - f64::from(ticks)).abs();
            self.jitter += (difference - self.jitter) / 16.0;
        }
        self.transit = Some((arrived, timestamp));
    }

    fn report(
        &mut self,
        ssrc: Ssrc,
        highest: u64,
        last_sr: u32,
        delay_since_last_sr: u32,
    ) -> Option<rtcp::ReportBlock> {
        let first = self.first?;
        let expected = (highest + 1).saturating_sub(first);
        let expected_now = expected.saturating_sub(self.expected_before);
        let received_now = self.received - self.received_before;
        self.expected_before = expected;
        self.received_before = self.received;
        let lost_now = expected_now.saturating_sub(received_now);
        let fraction_lost = (lost_now * 256).checked_div(expected_now).unwrap_or(0).min(255);
        let cycles = (highest >> 16).saturating_sub(first >> 16) as u32;
        let lost = i64::try_from(expected).unwrap_or(i64::MAX)
            - i64::try_from(self.received).unwrap_or(i64::MAX);
        Some(rtcp::ReportBlock {
            ssrc,
            fraction_lost: fraction_lost as u8,
            cumulative_lost: lost.clamp(-0x80_0000, 0x7f_ffff) as i32,
            highest_sequence_number: cycles << 16 | (highest as u32 & 0xffff),
            jitter: self.jitter as u32,
            last_sr,
            delay_since_last_sr,
        })
    }
}
