//! What leaves: sealed and grouped by destination.

use std::time::{Duration, Instant};

use parlor_congestion::{Estimator, Paced, PacketKind, Priority};
use parlor_model::{NtpTime, TrackKind};
use parlor_rtp::extension::AbsSendTime;
use parlor_srtp::{SrtpError, SrtpSender};

use super::Shard;
use crate::{
    arena::{Arena, Key},
    batch::SendBatch,
    counters::Counters,
    downlink::{Downlink, micros},
    forward::{
        Queued, Sending, Subscription,
        blank::write_silence,
        sent::SentPacket,
        write::{Written, padded, write_packet, write_padding, write_plain},
    },
    held::HELD_BOUNDS_US,
    peer::{Peer, Srtp},
    receive::bitrate::OVERHEAD_BYTES,
    track::Track,
};

/// The pacer and the probes of a peer are not looked at again before this time has passed.
const LEAST_WAIT: Duration = Duration::from_millis(1);
/// Probe packets smaller than this are padding.
const LEAST_REPEATED: usize = 250;

/// Most padding of an audio packet: more would cost the link more than it saves the machine.
const MAX_AUDIO_PADDING: usize = 32;

/// Whether there was room.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Room {
    Left,
    Full,
}

impl Shard {
    /// Writes what peers are owed into the slots of `out`. `true` when the batch is full and more
    /// is waiting: send it, clear it and call again.
    ///
    /// What was due by the clock is done first, so that a request for a keyframe leaves at once.
    pub fn flush(&mut self, now: Instant, out: &mut SendBatch) -> bool {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.handle_timeout(now);
        }
        while let Some(farewell) = self.farewells.front() {
            let Some(slot) = out.slot() else { return true };
            if let Some(slot) = slot.get_mut(..farewell.bytes.len()) {
                slot.copy_from_slice(&farewell.bytes);
                out.commit(&farewell.path, farewell.bytes.len());
            }
            self.farewells.pop_front();
        }
        let moment = Moment::new(self.epoch(now), now, self.gathering);
        while let Some(&key) = self.ready.get(self.flushed) {
            if self.flush_peer(&moment, key, out) == Room::Full {
                return true;
            }
            self.flushed += 1;
        }
        self.ready.clear();
        self.flushed = 0;
        false
    }

    fn flush_peer(&mut self, moment: &Moment, key: Key<Peer>, out: &mut SendBatch) -> Room {
        let Some(mut peer) = self.peers.get_mut(key) else { return Room::Left };
        if peer.transport.has_transmits() {
            if self.flush_transport(key, out) == Room::Full {
                return Room::Full;
            }
            let Some(after) = self.peers.get_mut(key) else { return Room::Left };
            peer = after;
        }
        let Peer { srtp, path, rtcp, downlink, next_transport_sequence, failed, .. } = peer;
        let (Some(srtp), Some(path), false) = (srtp, path.as_ref(), *failed) else {
            self.counters.unsent_revoked += downlink.pacer.clear() as u64;
            rtcp.clear();
            peer.is_ready = false;
            return Room::Left;
        };
        while let Some(packet) = rtcp.peek() {
            let Some(slot) = out.slot() else { return Room::Full };
            if let Some(place) = slot.get_mut(..packet.len()) {
                place.copy_from_slice(packet);
            }
            match srtp.sender.seal_rtcp(slot, packet.len()) {
                Ok(len) => {
                    out.commit(path, len);
                    self.counters.rtcp_sent += 1;
                }
                Err(_) => self.counters.unsent_unsealed += 1,
            }
            rtcp.pop();
        }
        let now_us = moment.since_epoch_us;
        let gathering_us = moment.gathering_us;
        let gathers = gathering_us > 0;
        let (held, audio_bytes) =
            if gathers { gather(downlink, now_us, gathering_us) } else { (None, 0) };
        let sent_before = self.counters.rtp_sent;
        let mut media = Media {
            tracks: &self.tracks,
            subscriptions: &mut self.subscriptions,
            counters: &mut self.counters,
            srtp,
            time: moment.send_time,
            now_ms: (now_us / 1000) as u32,
            estimator_us: downlink.estimator_us(moment.since_epoch_us),
            next_transport_sequence,
            estimator: &mut downlink.estimator,
            audio_bytes,
        };
        let now = moment.now;
        let mut late = None;
        while held.is_none() && !downlink.pacer.is_empty() {
            let Some(slot) = out.slot() else { return Room::Full };
            match downlink.pacer.poll(now_us) {
                None => break,
                Some(Paced::Send(queued, held_us)) => {
                    if held_us > 0 {
                        self.held.record(&HELD_BOUNDS_US, held_us as u64);
                    }
                    let len = media.send(queued, slot);
                    out.commit(path, len);
                }
                Some(Paced::Drop(queued, priority)) => {
                    media.counters.unsent_late += 1;
                    let is_first = priority == Priority::Video;
                    late = late.or(is_first.then_some(queued.subscription));
                }
            }
        }
        while let Some(probe) = media.estimator.poll_probe(now) {
            let Some(slot) = out.slot() else { return Room::Full };
            let len = media.probe(&peer.subscriptions, probe.size_bytes, slot);
            let Some(len) = len else { break };
            out.commit(path, len);
        }
        // What the pacer keeps back leaves when it says so.
        if gathers && media.counters.rtp_sent != sent_before && downlink.pacer.is_empty() {
            downlink.has_burst(now_us, gathering_us);
        }
        peer.is_ready = false;
        // Mostly nothing waits, and what left moves no timeout.
        let waits = !downlink.pacer.is_empty() || peer.deadlines.pace.is_some();
        if downlink.estimator.timeout_has_changed() || waits {
            let not_before = now + LEAST_WAIT;
            let due = |at: Option<Instant>| at.map(|at| at.max(not_before));
            let paced = || due(downlink.pacer.poll_timeout().map(|at| downlink.instant(at)));
            peer.deadlines.pace = held.map(|at| downlink.instant(at)).or_else(paced);
            peer.deadlines.estimate = due(downlink.estimator.poll_timeout());
            self.schedule(key);
        }
        if let Some(late) = late {
            self.renew_picture(now, late);
        }
        Room::Left
    }

    /// ICE and DTLS.
    fn flush_transport(&mut self, key: Key<Peer>, out: &mut SendBatch) -> Room {
        loop {
            let Some(slot) = out.slot() else { return Room::Full };
            let sent = self.peers.get_mut(key).and_then(|peer| peer.transport.poll_transmit(slot));
            let Some(sent) = sent else { return Room::Left };
            let request = slot.get(..sent.len).filter(|bytes| bytes.starts_with(&[0, 1]));
            if let Some(request) = request {
                self.expect_answer(key, request);
            }
            out.commit(&sent.path, sent.len);
            self.counters.transport_sent += 1;
        }
    }
}

/// What sending the media of one peer takes.
struct Media<'a> {
    tracks: &'a Arena<Track>,
    subscriptions: &'a mut Arena<Subscription>,
    counters: &'a mut Counters,
    srtp: &'a mut Srtp,
    time: AbsSendTime,
    /// Since the shard began.
    now_ms: u32,
    /// Now, by the clock of the estimator.
    estimator_us: i64,
    next_transport_sequence: &'a mut u16,
    estimator: &'a mut Estimator,
    /// Audio that leaves together is padded to payloads of this length, so that it can be one run.
    audio_bytes: usize,
}

impl Media<'_> {
    /// Seals a packet into a slot and returns its length; 0 when it is not to leave.
    #[inline(always)]
    fn send(&mut self, queued: &Queued, slot: &mut [u8]) -> usize {
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

    #[inline(always)]
    fn note(&mut self, sealed: Result<usize, Unsent>) -> usize {
        match sealed {
            Ok(len) => {
                self.counters.rtp_sent += 1;
                len
            }
            Err(unsent) => {
                self.count(unsent);
                0
            }
        }
    }

    #[cold]
    fn count(&mut self, unsent: Unsent) {
        *match unsent {
            Unsent::Revoked => &mut self.counters.unsent_revoked,
            Unsent::Late => &mut self.counters.unsent_late,
            Unsent::Twice => &mut self.counters.unforwarded_late,
            Unsent::History => &mut self.counters.unsent_history,
            Unsent::Unsealed => &mut self.counters.unsent_unsealed,
        } += 1;
    }

    /// Seals a packet that is there for its size only: something that left a moment ago, again, or
    /// where there is nothing to repeat, padding.
    fn probe(
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
        let transport_sequence = *self.next_transport_sequence;
        let stamps = (transport_sequence, self.time);
        let written = write_padding(slot, subscription, stamps, number, size_bytes)?;
        subscription.next_rtx += 1;
        *self.next_transport_sequence = transport_sequence.wrapping_add(1);
        let len = seal_written(&self.srtp.sender, &written, slot).ok()?;
        let now_us = self.estimator_us;
        self.estimator.on_sent_at(Some(transport_sequence), now_us, len, PacketKind::Padding);
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
        let is_numbered = subscription.section.extensions.transport_cc.is_some();
        let transport_sequence = *self.next_transport_sequence;
        let mut sent = sent.stamped(if is_numbered { transport_sequence } else { 0 }, self.time);
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
        if !subscription.sent.insert(number, &sent, self.now_ms) {
            return Err(Unsent::Twice);
        }
        subscription.packets = subscription.packets.wrapping_add(1);
        let payload_bytes = written.payload_bytes() - usize::from(sent.audio_padding());
        subscription.octets = subscription.octets.wrapping_add(payload_bytes as u32);
        let kind = match track.kind {
            TrackKind::Audio => PacketKind::Audio,
            TrackKind::Video => PacketKind::Video,
        };
        self.finish(slot, &written, is_numbered.then_some(transport_sequence), kind)
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
            sent.transport_sequence = *self.next_transport_sequence;
        }
        if rtx.is_some() {
            sent.set_abs_send_time(self.time);
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
        let len =
            self.finish(slot, &written, is_numbered.then_some(sent.transport_sequence), kind)?;
        self.counters.retransmissions_sent += u64::from(kind == PacketKind::Retransmission);
        Ok(len)
    }

    /// Seals what was written and tells the estimator of it.
    #[inline(always)]
    fn finish(
        &mut self,
        slot: &mut [u8],
        written: &Written<'_>,
        transport_sequence: Option<u16>,
        kind: PacketKind,
    ) -> Result<usize, Unsent> {
        let len = seal_written(&self.srtp.sender, written, slot).map_err(|_| Unsent::Unsealed)?;
        if let Some(number) = transport_sequence {
            *self.next_transport_sequence = number.wrapping_add(1);
        }
        self.estimator.on_sent_at(transport_sequence, self.estimator_us, len, kind);
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
        && let Some(written) =
            write_plain(slot, subscription, sent, number, history, facts, payload)
    {
        return Ok(written);
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

/// Until when media is held, and the length that payloads of audio are padded to.
#[inline(never)]
fn gather(downlink: &Downlink, now_us: i64, gathering_us: i64) -> (Option<i64>, usize) {
    let longest = downlink.pacer.longest(Priority::Audio);
    let audio_bytes = longest.map_or(0, |bytes| bytes.saturating_sub(OVERHEAD_BYTES));
    (downlink.gathers_until(now_us, gathering_us), audio_bytes)
}

/// How much padding brings an audio packet to a length.
fn padding_to(audio_bytes: usize, payload_bytes: usize) -> u8 {
    let missing = audio_bytes.saturating_sub(payload_bytes);
    if missing <= MAX_AUDIO_PADDING { missing as u8 } else { 0 }
}

/// Seals what was written, and what it refers to, into a slot; returns its length.
#[inline(always)]
fn seal_written(
    srtp: &SrtpSender,
    written: &Written<'_>,
    slot: &mut [u8],
) -> Result<usize, SrtpError> {
    let Written { header_bytes, bytes, rest, ssrc, index } = *written;
    srtp.seal_rtp_parts(slot, header_bytes, bytes, rest, ssrc, index)
}

/// Why a packet did not leave.
enum Unsent {
    Revoked,
    Late,
    /// Its number has left before.
    Twice,
    History,
    Unsealed,
}

/// When a flush happens, in all the ways that packets need.
struct Moment {
    now: Instant,
    since_epoch_us: i64,
    /// Since the shard began, for it is only compared with itself.
    send_time: AbsSendTime,
    gathering_us: i64,
}

impl Moment {
    fn new(epoch: Instant, now: Instant, gathering: Duration) -> Self {
        let since = now.saturating_duration_since(epoch);
        let ntp = NtpTime(((since.as_nanos() << 32) / 1_000_000_000) as u64);
        let send_time = AbsSendTime::from_ntp(ntp);
        let gathering_us = gathering.as_micros() as i64;
        Self { now, since_epoch_us: micros(epoch, now), send_time, gathering_us }
    }
}
