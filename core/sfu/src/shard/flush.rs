//! What leaves: sealed and grouped by destination.

use std::{net::SocketAddr, time::Instant};

use parlor_model::NtpTime;
use parlor_rtp::extension::AbsSendTime;

use super::Shard;
use crate::{
    arena::{Arena, Key},
    batch::SendBatch,
    counters::Counters,
    forward::{Queued, Sending, Subscription, blank::write_silence, write::write_packet},
    peer::{Peer, Srtp},
    track::Track,
};

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
                out.commit(farewell.local, farewell.remote, farewell.bytes.len());
            }
            self.farewells.pop_front();
        }
        let time = send_time(self.epoch(now), now);
        while let Some(&key) = self.ready.front() {
            if self.flush_peer(time, key, out) == Room::Full {
                return true;
            }
            self.ready.pop_front();
            if let Some(peer) = self.peers.get_mut(key) {
                peer.is_ready = false;
            }
        }
        false
    }

    fn flush_peer(&mut self, time: AbsSendTime, key: Key<Peer>, out: &mut SendBatch) -> Room {
        if self.flush_transport(key, out) == Room::Full {
            return Room::Full;
        }
        let Some(peer) = self.peers.get_mut(key) else { return Room::Left };
        let Peer { srtp, path, rtcp, queue, next_transport_sequence, failed, .. } = peer;
        let (Some(srtp), Some(path), false) = (srtp, *path, *failed) else {
            self.counters.unsent_revoked += queue.len() as u64;
            queue.clear();
            rtcp.clear();
            return Room::Left;
        };
        while let Some(packet) = rtcp.peek() {
            let Some(slot) = out.slot() else { return Room::Full };
            if let Some(place) = slot.get_mut(..packet.len()) {
                place.copy_from_slice(packet);
            }
            match srtp.sender.seal_rtcp(slot, packet.len()) {
                Ok(len) => {
                    out.commit(path.0, path.1, len);
                    self.counters.rtcp_sent += 1;
                }
                Err(_) => self.counters.unsent_unsealed += 1,
            }
            rtcp.pop();
        }
        let mut media = Media {
            tracks: &self.tracks,
            subscriptions: &mut self.subscriptions,
            counters: &mut self.counters,
            srtp,
            path,
            time,
            next_transport_sequence,
        };
        while let Some(queued) = queue.front() {
            if media.send(queued, out) == Room::Full {
                return Room::Full;
            }
            queue.pop_front();
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
            out.commit(sent.local, sent.remote, sent.len);
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
    path: (SocketAddr, SocketAddr),
    time: AbsSendTime,
    next_transport_sequence: &'a mut u16,
}

impl Media<'_> {
    fn send(&mut self, queued: &Queued, out: &mut SendBatch) -> Room {
        let Some(slot) = out.slot() else { return Room::Full };
        match self.seal(queued, slot) {
            Ok(len) => {
                out.commit(self.path.0, self.path.1, len);
                self.counters.rtp_sent += 1;
            }
            Err(unsent) => {
                *match unsent {
                    Unsent::Revoked => &mut self.counters.unsent_revoked,
                    Unsent::History => &mut self.counters.unsent_history,
                    Unsent::Unsealed => &mut self.counters.unsent_unsealed,
                } += 1;
            }
        }
        Room::Left
    }

    #[inline]
    fn seal(&mut self, queued: &Queued, slot: &mut [u8]) -> Result<usize, Unsent> {
        let subscription =
            self.subscriptions.get_mut(queued.subscription).ok_or(Unsent::Revoked)?;
        let track = self.tracks.get(subscription.track).ok_or(Unsent::Revoked)?;
        let is_silenced = track.muted || !subscription.settings.enabled;
        let sent = subscription.sent.get_mut(queued.number).ok_or(Unsent::History)?;
        let blank_codec = sent.blank_codec();
        if is_silenced && blank_codec.is_none() {
            return Err(Unsent::Revoked);
        }
        if queued.sending != Sending::Repeat
            && subscription.section.extensions.transport_cc.is_some()
        {
            sent.transport_sequence = *self.next_transport_sequence;
            *self.next_transport_sequence = self.next_transport_sequence.wrapping_add(1);
        }
        if queued.sending != Sending::Repeat {
            sent.abs_send_time = self.time.0;
        }
        let sent = *sent;
        let written = match blank_codec {
            Some(index) => {
                let codec = track.codecs.get(usize::from(index)).ok_or(Unsent::History)?.codec;
                let outgoing = subscription.codec(index).ok_or(Unsent::Unsealed)?;
                let trailer = &track.frame_trailer;
                write_silence(slot, subscription, &sent, codec, &outgoing, trailer)
            }
            None => {
                let stream = track.streams.get(usize::from(sent.stream)).ok_or(Unsent::History)?;
                let history = &stream.history;
                let (facts, parts) = history.get(sent.source).ok_or(Unsent::History)?;
                write_packet(slot, subscription, &sent, queued.sending, history, facts, &parts)
            }
        };
        let written = written.ok_or(Unsent::Unsealed)?;
        let len = self
            .srtp
            .sender
            .seal_rtp_indexed(
                slot,
                written.header_bytes,
                written.bytes,
                written.ssrc,
                written.index,
            )
            .map_err(|_| Unsent::Unsealed)?;
        if matches!(queued.sending, Sending::First) {
            subscription.packets = subscription.packets.wrapping_add(1);
            let payload_bytes = (written.bytes - written.header_bytes) as u32;
            subscription.octets = subscription.octets.wrapping_add(payload_bytes);
        } else {
            self.counters.retransmissions_sent += 1;
        }
        Ok(len)
    }
}

/// Why a packet did not leave.
enum Unsent {
    Revoked,
    History,
    Unsealed,
}

/// The time on packets: since the shard began, for it is only compared with itself.
fn send_time(epoch: Instant, now: Instant) -> AbsSendTime {
    let since = now.saturating_duration_since(epoch);
    AbsSendTime::from_ntp(NtpTime(((since.as_nanos() << 32) / 1_000_000_000) as u64))
}
