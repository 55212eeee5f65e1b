//! What leaves: sealed and grouped by destination.

use std::time::{Duration, Instant};

use parlor_congestion::{Paced, Priority};
use parlor_model::NtpTime;
use parlor_rtp::extension::AbsSendTime;

use super::{
    Shard,
    send::{Link, Media},
};
use crate::{
    arena::Key,
    batch::SendBatch,
    downlink::{Downlink, micros},
    held::HELD_BOUNDS_US,
    peer::Peer,
    receive::bitrate::OVERHEAD_BYTES,
};

/// The pacer and the probes of a peer are not looked at again before this time has passed.
const LEAST_WAIT: Duration = Duration::from_millis(1);
/// Whether there was room.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    Left,
    Full,
}

impl Shard {
    /// Writes what peers are owed into the slots of `out`. `true` when the batch is full and more
    /// is waiting: send it, clear it and call again.
    ///
    /// What was due by the clock is done first, so that a request for a keyframe leaves at once.
    pub fn flush(&mut self, now: Instant, out: &mut SendBatch) -> bool {
        let moment = Moment::new(self.epoch(now), now, self.gathering);
        if self.fan_out(&moment, out) == Room::Full {
            return true;
        }
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
        let estimator_us = downlink.estimator_us(now_us);
        let mut media = Media {
            tracks: &self.tracks,
            subscriptions: &mut self.subscriptions,
            counters: &mut self.counters,
            link: Link {
                srtp: &srtp.sender,
                moment,
                estimator_us,
                next_transport_sequence,
                estimator: &mut downlink.estimator,
            },
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
        while let Some(probe) = media.link.estimator.poll_probe(now) {
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
        let estimates = downlink.estimator.timeout_has_changed();
        let due = |at: Option<Instant>| at.map(|at| at.max(now + LEAST_WAIT));
        if estimates {
            peer.deadlines.estimate = due(downlink.estimator.poll_timeout());
        }
        if waits {
            let paced = || due(downlink.pacer.poll_timeout().map(|at| downlink.instant(at)));
            peer.deadlines.pace = held.map(|at| downlink.instant(at)).or_else(paced);
        }
        if estimates || waits {
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
                self.expect_answer(key, sent.path, request);
            }
            out.commit(&sent.path, sent.len);
            self.counters.transport_sent += 1;
        }
    }
}

/// Until when media is held, and the length that payloads of audio are padded to.
#[inline(never)]
fn gather(downlink: &Downlink, now_us: i64, gathering_us: i64) -> (Option<i64>, usize) {
    let longest = downlink.pacer.longest(Priority::Audio);
    let audio_bytes = longest.map_or(0, |bytes| bytes.saturating_sub(OVERHEAD_BYTES));
    (downlink.gathers_until(now_us, gathering_us), audio_bytes)
}

/// When a flush happens, in all the ways that packets need.
pub(super) struct Moment {
    pub now: Instant,
    pub since_epoch_us: i64,
    /// Since the shard began, for it is only compared with itself.
    pub send_time: AbsSendTime,
    pub since_epoch_ms: u32,
    pub gathering_us: i64,
}

impl Moment {
    fn new(epoch: Instant, now: Instant, gathering: Duration) -> Self {
        let since = now.saturating_duration_since(epoch);
        let ntp = NtpTime(((since.as_nanos() << 32) / 1_000_000_000) as u64);
        let send_time = AbsSendTime::from_ntp(ntp);
        let gathering_us = gathering.as_micros() as i64;
        let since_epoch_us = micros(epoch, now);
        let since_epoch_ms = (since_epoch_us / 1000) as u32;
        Self { now, since_epoch_us, since_epoch_ms, send_time, gathering_us }
    }
}
