//! The subscribe side: one track on its way to one peer.

pub mod bare;
pub mod blank;
pub mod header;
pub mod munger;
pub mod red;
pub mod select;
pub mod sent;
pub mod write;

use std::time::{Duration, Instant};

use parlor_congestion::{Allocation, Layer};
use parlor_model::{
    CodecBinding, NtpTime, PayloadType, RtpTimestamp, SendSection, SubscriptionId, TrackKind,
};
use parlor_rtp::rtcp::SenderInfo;

use self::{
    blank::Silence,
    header::HeaderTemplate,
    munger::Munger,
    red::Redundancy,
    sent::{SentPacket, SentPackets},
};
use crate::{
    arena::Key, command::SubscriptionSettings, peer::Peer, quality::Reported, receive::Stream,
    track::Track,
};

/// Codecs of a published section that a subscription can tell apart.
pub const MAX_CODECS: usize = 32;
/// Packets remembered of one subscription at most.
const MAX_SENT_AUDIO: usize = 256;
const MAX_SENT_VIDEO: usize = 1024;

/// What a subscriber calls the codec of a source.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OutgoingCodec {
    pub payload_type: PayloadType,
    pub rtx: Option<PayloadType>,
    pub redundancy: Redundancy,
}

/// The report that was sent last, to recognise the answer by.
#[derive(Clone, Copy, Debug)]
struct SentReport {
    ntp: NtpTime,
    timestamp: RtpTimestamp,
    at: Instant,
}

/// What the link to the subscriber leaves of a subscription.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    pub paused: bool,
    /// The highest layers that fit; `u8::MAX` where nothing that is wanted does not.
    pub spatial: u8,
    pub temporal: u8,
}

impl Share {
    pub const ALL: Self = Self { paused: false, spatial: u8::MAX, temporal: u8::MAX };
    /// What a video begins with where feedback is about to tell what fits.
    pub const FIRST: Self = Self { paused: false, spatial: 0, temporal: u8::MAX };
}

/// Whether payloads of the codec at a position leave as they came, and what it is called then.
pub struct Untouched {
    index: u8,
    is: bool,
    pub payload_type: PayloadType,
}

/// So many packets of a video without any feedback: there will be none.
const FIRST_PACKETS: u32 = 30;

/// One track sent to one peer. In this order in memory: what each packet needs lies side by side.
#[repr(C)]
pub struct Subscription {
    /// The header of its packets, by its section.
    pub header: Option<HeaderTemplate>,
    pub started: bool,
    /// Position of the codec that was forwarded last.
    pub last_codec: u8,
    /// Of the codec that [`Self::leaves_untouched`] was last asked for.
    pub untouched: Untouched,
    pub packets: u32,
    pub octets: u32,
    /// Numbers below are of a layer that was given up: they are of no use any more.
    pub useless_below: u64,
    pub sent: SentPackets,
    pub munger: Munger,
    pub settings: SubscriptionSettings,
    pub section: SendSection,
    pub id: SubscriptionId,
    pub peer: Key<Peer>,
    pub track: Key<Track>,
    pub share: Share,
    /// What the estimate was shared out as last, and why.
    pub allocation: Option<Allocation>,
    /// When its share became less.
    pub fell: Option<Instant>,
    /// By position in the published section's codecs.
    codecs: Box<[Option<OutgoingCodec>]>,
    pub next_rtx: u64,
    /// Numbers below have been sent ahead of need, or need not be.
    pub ahead: u64,
    last_report: Option<SentReport>,
    /// By the subscriber's last receiver report.
    pub fraction_lost: u8,
    pub reported: Reported,
    /// Silence that is sent in place of the track.
    pub silence: Option<Silence>,
    /// It was muted when it began, and silence was sent in its place.
    pub is_introduced: bool,
    /// Whether redundancy of audio stays behind, for want of room.
    pub sheds_redundancy: bool,
}

impl Subscription {
    /// `first` and `first_rtx` are the numbers of the first packets, 15 bits at most unless the
    /// SSRC has been used before.
    pub fn new(
        peer: Key<Peer>,
        track: Key<Track>,
        section: SendSection,
        settings: SubscriptionSettings,
        first: u64,
        first_rtx: u64,
    ) -> Self {
        let kind = section.codecs.first().map_or(TrackKind::Audio, |binding| binding.codec.kind());
        let clock_rate =
            section.codecs.first().map_or(48_000, |binding| binding.codec.clock_rate());
        let max_sent = match kind {
            TrackKind::Audio => MAX_SENT_AUDIO,
            TrackKind::Video => MAX_SENT_VIDEO,
        };
        let gives_feedback = section.extensions.transport_cc.is_some();
        let is_guess = kind == TrackKind::Video && gives_feedback;
        Self {
            id: section.subscription,
            peer,
            track,
            header: HeaderTemplate::new(&section),
            section,
            settings,
            share: if is_guess { Share::FIRST } else { Share::ALL },
            allocation: None,
            fell: None,
            useless_below: 0,
            munger: Munger::new(first, clock_rate),
            sent: SentPackets::new(max_sent),
            codecs: Box::default(),
            untouched: Untouched { index: 0, is: false, payload_type: PayloadType(0) },
            next_rtx: first_rtx,
            ahead: first,
            started: false,
            packets: 0,
            octets: 0,
            last_report: None,
            fraction_lost: 0,
            reported: Reported::default(),
            silence: None,
            is_introduced: false,
            last_codec: 0,
            sheds_redundancy: false,
        }
    }

    /// Whether another section can go on with the same numbers: only what is negotiated anew
    /// differs, or which encoding it carries.
    pub fn continues_as(&self, section: &SendSection) -> bool {
        self.section.ssrc == section.ssrc && self.section.rtx_ssrc == section.rtx_ssrc
    }

    /// Takes over what has been negotiated anew.
    pub fn set_section(&mut self, section: &SendSection) {
        if self.section != *section {
            // What left before can not be repeated in other words.
            self.sent.clear();
            self.header = HeaderTemplate::new(section);
            self.section = section.clone();
        }
    }

    /// Decides what each codec of the source is called at the subscriber.
    pub fn match_codecs(&mut self, source: &[CodecBinding], adds_redundancy: bool) {
        let (own, sheds) = (&self.section.codecs, self.sheds_redundancy);
        let outgoing = |binding| match sheds {
            true => without_redundancy(own, binding),
            false => matching(own, binding, adds_redundancy),
        };
        self.codecs = source.iter().take(MAX_CODECS).map(outgoing).collect();
        self.look_up_untouched(0);
    }

    /// What it may have had until now: its first share, before anything was shared out.
    pub fn allocated(&self) -> Option<Layer> {
        let first = Layer { spatial: self.share.spatial, temporal: self.share.temporal };
        self.allocation.map_or(Some(first), |allocation| allocation.target)
    }

    /// Whether it has waited long enough for feedback to tell what fits.
    pub fn gives_up_waiting(&self) -> bool {
        self.allocation.is_none() && self.share == Share::FIRST && self.packets > FIRST_PACKETS
    }

    /// What the codec at a position of the source's list is called.
    #[inline]
    pub fn codec(&self, index: u8) -> Option<OutgoingCodec> {
        self.codecs.get(usize::from(index)).copied().flatten()
    }

    /// Whether payloads of the codec at a position of the source's list leave as they came.
    /// Mostly it is the same that was asked for before.
    #[inline(always)]
    pub fn leaves_untouched(&mut self, index: u8) -> bool {
        if self.untouched.index != index {
            self.look_up_untouched(index);
        }
        self.untouched.is
    }

    #[cold]
    fn look_up_untouched(&mut self, index: u8) {
        let codec = self.codec(index).filter(|codec| codec.redundancy == Redundancy::Untouched);
        let payload_type = codec.map_or(PayloadType(0), |codec| codec.payload_type);
        self.untouched = Untouched { index, is: codec.is_some(), payload_type };
    }

    /// A sender report for now, from what the publisher said about the stream that is forwarded.
    ///
    /// The publisher's wall clock passes through: its tracks stay in sync with one another.
    pub fn sender_report(
        &mut self,
        now: Instant,
        stream_index: u8,
        stream: &Stream,
    ) -> Option<SenderInfo> {
        if !self.started {
            return None;
        }
        let clock = stream.clock?;
        let mapped = self.munger.map_report(stream_index, clock.timestamp)?;
        let elapsed = now.saturating_duration_since(clock.arrived);
        let ticks = elapsed.as_micros() * u128::from(stream.clock_rate()) / 1_000_000;
        let ntp = NtpTime(clock.ntp.0.wrapping_add(fixed_point(elapsed)));
        let timestamp = RtpTimestamp(mapped.wrapping_add(ticks as u32));
        if let Some(last) = self.last_report
            && timestamp.distance(last.timestamp) < 0
        {
            return None;
        }
        self.last_report = Some(SentReport { ntp, timestamp, at: now });
        Some(SenderInfo {
            ntp,
            rtp_timestamp: timestamp,
            packet_count: self.packets,
            octet_count: self.octets,
        })
    }

    /// The round trip to the subscriber by its answer to our last report.
    pub fn round_trip(&self, now: Instant, last_sr: u32, delay: u32) -> Option<Duration> {
        let report = self.last_report.filter(|report| report.ntp.middle() == last_sr)?;
        let held = Duration::from_micros(u64::from(delay) * 1_000_000 / 65_536);
        now.saturating_duration_since(report.at).checked_sub(held)
    }
}

/// A duration in 32.32 fixed point seconds.
fn fixed_point(time: Duration) -> u64 {
    ((time.as_nanos() << 32) / 1_000_000_000) as u64
}

/// As [`matching`], but plain Opus where the subscriber takes that.
fn without_redundancy(own: &[CodecBinding], source: &CodecBinding) -> Option<OutgoingCodec> {
    use parlor_model::Codec::{Opus, Red};
    let opus = own.iter().find(|binding| binding.codec == Opus);
    match (source.codec, opus) {
        (Red, Some(opus)) => Some(OutgoingCodec {
            payload_type: opus.payload_type,
            rtx: opus.rtx,
            redundancy: Redundancy::Removed,
        }),
        _ => matching(own, source, false),
    }
}

fn matching(
    own: &[CodecBinding],
    source: &CodecBinding,
    adds_redundancy: bool,
) -> Option<OutgoingCodec> {
    use parlor_model::Codec::{Opus, Red};
    let outgoing = |binding: &CodecBinding, redundancy| OutgoingCodec {
        payload_type: binding.payload_type,
        rtx: binding.rtx,
        redundancy,
    };
    let of = |codec| own.iter().find(move |binding| binding.codec == codec);
    let same = own
        .iter()
        .find(|binding| binding.codec == source.codec && binding.variant == source.variant)
        .or_else(|| of(source.codec));
    match (source.codec, same, of(Opus)) {
        (Red, Some(red), Some(opus)) => {
            Some(outgoing(red, Redundancy::Relabelled(opus.payload_type)))
        }
        (Red, None, Some(opus)) => Some(outgoing(opus, Redundancy::Removed)),
        (Opus, Some(opus), _) if adds_redundancy => Some(match of(Red) {
            Some(red) => outgoing(red, Redundancy::Added(opus.payload_type)),
            None => outgoing(opus, Redundancy::Untouched),
        }),
        (_, same, _) => Some(outgoing(same?, Redundancy::Untouched)),
    }
}

/// How a queued packet leaves.
#[derive(Clone, Copy, Debug)]
pub enum Sending {
    /// For the first time: what is remembered of it from then on.
    First(SentPacket),
    /// Again, on the SSRC for retransmissions, under this number there.
    Rtx { number: u64 },
    /// Again, byte for byte, where there is no such SSRC.
    Repeat,
}

/// A packet that a peer is owed. What it says is in the history of its stream.
#[derive(Clone, Copy, Debug)]
pub struct Queued {
    pub subscription: Key<Subscription>,
    /// The extended number it leaves, or has left, under.
    pub number: u64,
    pub sending: Sending,
}
