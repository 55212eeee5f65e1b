//! Sealing what leaves: for the first time, again, or for its size only.

use parlor_congestion::{Estimator, PacketKind};
use parlor_model::TrackKind;
use parlor_srtp::SrtpSender;

use super::flush::Moment;
use crate::{
    arena::{Arena, Key},
    counters::Counters,
    forward::{
        Queued, Sending, Subscription,
        blank::write_silence,
        sent::SentPacket,
        write::{Written, padded, write_packet, write_padding, write_plain},
    },
    track::Track,
};

/// Probe packets smaller than this are padding.
const LEAST_REPEATED: usize = 250;
/// Most padding of an audio packet: more would cost the link more than it saves the machine.
const MAX_AUDIO_PADDING: usize = 32;

/// What sending anything to one peer takes.
pub(super) struct Link<'a> {
    pub srtp: &'a SrtpSender,
    pub moment: &'a Moment,
    /// Now, by the clock of the estimator.
    pub estimator_us: i64,
    pub next_transport_sequence: &'a mut u16,
    pub estimator: &'a mut Estimator,
}

impl Link<'_> {
    /// The transport-wide number of the next packet; 0 where there is none.
    #[inline(always)]
    pub fn number(&self, subscription: &Subscription) -> u16 {
        let is_numbered = subscription.section.extensions.transport_cc.is_some();
        if is_numbered { *self.next_transport_sequence } else { 0 }
    }

    /// Seals what leaves for the first time and is remembered.
    #[inline(always)]
    pub fn seal(
        &mut self,
        slot: &mut [u8],
        subscription: &mut Subscription,
        written: &Written<'_>,
        padding: u8,
        kind: TrackKind,
    ) -> Result<usize, Unsent> {
        count_sent(subscription, written, padding);
        let kind = packet_kind(kind);
        let is_numbered = subscription.section.extensions.transport_cc.is_some();
        let number = is_numbered.then_some(*self.next_transport_sequence);
        self.finish(slot, written, number, kind)
    }

    /// Seals what was written and tells the estimator of it.
    #[inline(always)]
    pub fn finish(
        &mut self,
        slot: &mut [u8],
        written: &Written<'_>,
        transport_sequence: Option<u16>,
        kind: PacketKind,
    ) -> Result<usize, Unsent> {
        let len = seal_written(self.srtp, written, slot)?;
        if let Some(number) = transport_sequence {
            *self.next_transport_sequence = number.wrapping_add(1);
        }
        self.estimator.on_sent_at(transport_sequence, self.estimator_us, len, kind);
        Ok(len)
    }
}

/// What sending the media of one peer takes.
pub(super) struct Media<'a> {
    pub tracks: &'a Arena<Track>,
    pub subscriptions: &'a mut Arena<Subscription>,
    pub link: Link<'a>,
    pub counters: &'a mut Counters,
    /// Audio that leaves together is padded to payloads of this length, so that it can be one run.
    pub audio_bytes: usize,
}

impl Media<'_> {
    /// Seals a packet into a slot and returns its length; 0 when it is not to leave.
    #[inline(always)]
    pub fn send(&mut self, queued: &Queued, slot: &mut [u8]) -> usize {
        let sealed = match &queued.sending {
            Sending::First(sent) => return self.send_first(queued, sent, slot),
            again => self.seal_again(queued, *again, PacketKind::Retransmission, slot),
        };
        self.note(sealed)
    }

    #[inline(never)]
    fn send_first(&mut self, queued: &Queued, sent: &SentPacket, slot: &mut [u8]) -> usize {
        let sealed = self.seal_first(queued, sent, slot);
        self.note(sealed)
    }

    /// Counts what has left, or has not. Returns its length; 0 where it is not to leave.
    #[inline(always)]
    fn note(&mut self, sealed: Result<usize, Unsent>) -> usize {
        match sealed {
            Ok(len) => {
                self.counters.rtp_sent += 1;
                len
            }
            Err(unsent) => {
                unsent.count(self.counters);
                0
            }
        }
    }

    /// Seals a packet that is there for its size only: something that left a moment ago, again, or
    /// where there is nothing to repeat, padding.
    pub fn probe(
        &mut self,
        subscriptions: &[Key<Subscription>],
        size_bytes: usize,
        slot: &mut [u8],
    ) -> Option<usize> {
        let mut padding = None;
        for &key in subscriptions {
            let Some(subscription) = self.subscriptions.get_mut(key) else { continue };
            let section = &subscription.section;
            if section.rtx_ssrc.is_none() || section.extensions.transport_cc.is_none() {
                continue;
            }
            padding = Some(key);
            let is_flowing = subscription.started && !subscription.share.paused;
            let newest = subscription.sent.newest();
            let Some(number) = newest.filter(|_| is_flowing && size_bytes >= LEAST_REPEATED) else {
                continue;
            };
            let rtx = subscription.next_rtx;
            subscription.next_rtx += 1;
            let sending = Sending::Rtx { number: rtx };
            let queued = Queued { subscription: key, number, sending };
            if let Ok(len) = self.seal_again(&queued, sending, PacketKind::Padding, slot) {
                self.counters.probes_sent += 1;
                return Some(len);
            }
        }
        let subscription = self.subscriptions.get_mut(padding?)?;
        let number = subscription.next_rtx;
        let transport_sequence = *self.link.next_transport_sequence;
        let stamps = (transport_sequence, self.link.moment.send_time);
        let written = write_padding(slot, subscription, stamps, number, size_bytes)?;
        subscription.next_rtx += 1;
        *self.link.next_transport_sequence = transport_sequence.wrapping_add(1);
        let len = seal_written(self.link.srtp, &written, slot).ok()?;
        let now_us = self.link.estimator_us;
        self.link.estimator.on_sent_at(Some(transport_sequence), now_us, len, PacketKind::Padding);
        self.counters.probes_sent += 1;
        Some(len)
    }

    /// Seals what leaves for the first time, and remembers it.
    #[inline(always)]
    fn seal_first(
        &mut self,
        queued: &Queued,
        sent: &SentPacket,
        slot: &mut [u8],
    ) -> Result<usize, Unsent> {
        let subscription =
            self.subscriptions.get_mut(queued.subscription).ok_or(Unsent::Revoked)?;
        let track = self.tracks.get(subscription.track).ok_or(Unsent::Revoked)?;
        if queued.number < subscription.useless_below {
            return Err(Unsent::Late);
        }
        let Moment { send_time, since_epoch_ms, .. } = *self.link.moment;
        let mut sent = sent.stamped(self.link.number(subscription), send_time, since_epoch_ms);
        let number = queued.number;
        let written = if sent.is_blank() {
            write_blank(slot, subscription, track, (number, &sent))?
        } else {
            if track.muted || !subscription.settings.enabled {
                return Err(Unsent::Revoked);
            }
            let mut written = write_first(slot, subscription, track, &sent, number)?;
            if self.audio_bytes > 0 && track.kind == TrackKind::Audio {
                let padding = padding_to(self.audio_bytes, written.payload_bytes());
                written = padded(slot, written, padding).ok_or(Unsent::Unsealed)?;
                sent.set_audio_padding(padding);
            }
            written
        };
        // The cipher must never see a number twice.
        if subscription.sent.insert(number, &sent, since_epoch_ms).is_none() {
            return Err(Unsent::Twice);
        }
        self.link.seal(slot, subscription, &written, sent.audio_padding(), track.kind)
    }

    /// Seals what has left before: under a number of its own, or byte for byte.
    #[inline(never)]
    fn seal_again(
        &mut self,
        queued: &Queued,
        sending: Sending,
        kind: PacketKind,
        slot: &mut [u8],
    ) -> Result<usize, Unsent> {
        let subscription =
            self.subscriptions.get_mut(queued.subscription).ok_or(Unsent::Revoked)?;
        let track = self.tracks.get(subscription.track).ok_or(Unsent::Revoked)?;
        let is_silenced = track.muted || !subscription.settings.enabled;
        if queued.number < subscription.useless_below {
            return Err(Unsent::Late);
        }
        let sent = subscription.sent.get_mut(queued.number).ok_or(Unsent::History)?;
        if is_silenced && !sent.is_blank() {
            return Err(Unsent::Revoked);
        }
        let rtx = match sending {
            Sending::Rtx { number } => Some(number),
            Sending::First(_) | Sending::Repeat => None,
        };
        let is_numbered = rtx.is_some() && subscription.section.extensions.transport_cc.is_some();
        if is_numbered {
            sent.transport_sequence = *self.link.next_transport_sequence;
        }
        if rtx.is_some() {
            sent.set_abs_send_time(self.link.moment.send_time);
        }
        let sent = *sent;
        let mut written = if sent.is_blank() {
            write_blank(slot, subscription, track, (queued.number, &sent))?
        } else {
            write_media(slot, subscription, track, &sent, (queued.number, rtx))?
        };
        // The same number must carry the same bytes.
        if rtx.is_none() {
            written = padded(slot, written, sent.audio_padding()).ok_or(Unsent::Unsealed)?;
        }
        let len = self.link.finish(
            slot,
            &written,
            is_numbered.then_some(sent.transport_sequence),
            kind,
        )?;
        self.counters.retransmissions_sent += u64::from(kind == PacketKind::Retransmission);
        Ok(len)
    }
}

/// Writes a packet of a source that leaves for the first time.
#[inline(always)]
fn write_first<'a>(
    slot: &mut [u8],
    subscription: &Subscription,
    track: &'a Track,
    sent: &SentPacket,
    number: u64,
) -> Result<Written<'a>, Unsent> {
    let history = &track.streams.get(sent.stream()).ok_or(Unsent::History)?.history;
    let source = sent.source(history.highest());
    if let Some((facts, payload)) = history.get_plain(source)
        && !facts.has_rare_extensions
        && subscription.settings.playout_delay.is_none()
        && let Some(codec) = subscription.codec(facts.codec_index)
    {
        let (sent, packet) = ((number, sent), (facts, payload));
        if let Some(written) = write_plain(slot, subscription, &codec, sent, history, packet) {
            return Ok(written);
        }
    }
    write_media(slot, subscription, track, sent, (number, None))
}

/// Writes a packet of a source; `rtx` as for [`write_packet`].
#[inline(never)]
fn write_media<'a>(
    slot: &mut [u8],
    subscription: &Subscription,
    track: &'a Track,
    sent: &SentPacket,
    numbers: (u64, Option<u64>),
) -> Result<Written<'a>, Unsent> {
    let history = &track.streams.get(sent.stream()).ok_or(Unsent::History)?.history;
    let source = sent.source(history.highest());
    let (facts, parts) = history.get(source).ok_or(Unsent::History)?;
    write_packet(slot, subscription, sent, numbers, history, facts, &parts).ok_or(Unsent::Unsealed)
}

#[cold]
fn write_blank(
    slot: &mut [u8],
    subscription: &Subscription,
    track: &Track,
    (number, sent): (u64, &SentPacket),
) -> Result<Written<'static>, Unsent> {
    let index = sent.blank_codec().ok_or(Unsent::Unsealed)?;
    let codec = track.codecs.get(usize::from(index)).ok_or(Unsent::History)?.codec;
    let outgoing = subscription.codec(index).ok_or(Unsent::Unsealed)?;
    let trailer = &track.frame_trailer;
    write_silence(slot, subscription, (number, sent), codec, &outgoing, trailer)
        .ok_or(Unsent::Unsealed)
}

/// How much padding brings an audio packet to a length.
fn padding_to(audio_bytes: usize, payload_bytes: usize) -> u8 {
    let missing = audio_bytes.saturating_sub(payload_bytes);
    if missing <= MAX_AUDIO_PADDING { missing as u8 } else { 0 }
}

/// Counts a packet for the next sender report.
#[inline(always)]
pub(super) fn count_sent(subscription: &mut Subscription, written: &Written<'_>, padding: u8) {
    subscription.packets = subscription.packets.wrapping_add(1);
    let payload_bytes = written.payload_bytes() - usize::from(padding);
    subscription.octets = subscription.octets.wrapping_add(payload_bytes as u32);
}

/// What packets of a kind of track are sent for at first.
#[inline]
pub(super) fn packet_kind(kind: TrackKind) -> PacketKind {
    match kind {
        TrackKind::Audio => PacketKind::Audio,
        TrackKind::Video => PacketKind::Video,
    }
}

/// Seals what was written, and what it refers to, into a slot; returns its length.
#[inline(always)]
pub(super) fn seal_written(
    srtp: &SrtpSender,
    written: &Written<'_>,
    slot: &mut [u8],
) -> Result<usize, Unsent> {
    let Written { header_bytes, bytes, rest, ssrc, index } = *written;
    let sealed = srtp.seal_rtp_parts(slot, header_bytes, bytes, rest, ssrc, index);
    sealed.map_err(|_| Unsent::Unsealed)
}

/// Why a packet did not leave. As wide as a length, so that either is returned in registers.
#[repr(usize)]
pub(super) enum Unsent {
    Revoked,
    Late,
    /// Its number has left before.
    Twice,
    History,
    Unsealed,
}

impl Unsent {
    #[cold]
    pub fn count(&self, counters: &mut Counters) {
        *match self {
            Unsent::Revoked => &mut counters.unsent_revoked,
            Unsent::Late => &mut counters.unsent_late,
            Unsent::Twice => &mut counters.unforwarded_late,
            Unsent::History => &mut counters.unsent_history,
            Unsent::Unsealed => &mut counters.unsent_unsealed,
        } += 1;
    }
}
