//! RTCP from a peer: reports about both directions, and what its decoders ask for.

use std::time::Instant;

use parlor_congestion::{Cause, Priority};
use parlor_model::Ssrc;
use parlor_rtp::rtcp::{self, Nack, ReportBlocks, Rtcp, SenderInfo, SenderReport};

use super::{Shard, owe::sent_bytes};
use crate::{
    arena::Key,
    forward::{Queued, Sending, sent::may_resend},
    peer::{Peer, Source, bring_forward},
    receive::ClockReport,
};

/// Where the link itself loses more than this, what was asked for again is sent twice: a client
/// asks for what was lost twice only after 100 ms, which is long for a picture that waits.
const COPIES_LOSS: f64 = 0.02;
/// With a longer queue it is not the link itself that loses.
const COPIES_QUEUE_MS: f64 = 30.0;

impl Shard {
    pub(super) fn handle_rtcp(&mut self, now: Instant, key: Key<Peer>, datagram: &mut [u8]) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(srtp) = peer.srtp.as_mut().filter(|_| !peer.failed) else {
            self.counters.dropped_before_keys += 1;
            return;
        };
        let Ok(len) = srtp.receiver.open_rtcp(datagram) else {
            self.counters.dropped_unauthentic += 1;
            return;
        };
        self.counters.rtcp_received += 1;
        peer.downlink.estimator.expect_feedback(now);
        let compound = datagram.get(..len).unwrap_or(&[]);
        let mut any = false;
        for packet in rtcp::packets(compound) {
            any = true;
            match packet {
                Rtcp::SenderReport(report) => self.handle_sender_report(now, key, &report),
                Rtcp::ReceiverReport(report) => self.handle_reports(now, key, report.reports),
                Rtcp::Nack(nack) => self.handle_nack(now, key, &nack),
                Rtcp::PictureLossIndication(pli) => {
                    self.handle_keyframe_request(now, key, pli.media)
                }
                Rtcp::FullIntraRequest(request) => {
                    for (media, _) in request.entries() {
                        self.counters.firs_received += 1;
                        self.handle_keyframe_request(now, key, media);
                    }
                }
                Rtcp::Remb(remb) => {
                    self.counters.remb_received += 1;
                    self.with_downlink(now, key, |link| link.handle_remb(now, remb.bitrate));
                }
                Rtcp::TransportFeedback(feedback) => {
                    self.counters.transport_feedback_received += 1;
                    self.with_downlink(now, key, |link| {
                        link.handle_transport_feedback(now, &feedback);
                    });
                }
                Rtcp::ExtendedReport(report) => self.handle_extended_report(now, key, &report),
                Rtcp::SourceDescription(_) | Rtcp::Goodbye(_) | Rtcp::Unknown { .. } => {}
            }
        }
        if !any {
            self.counters.malformed_rtcp += 1;
        }
    }

    fn handle_sender_report(&mut self, now: Instant, key: Key<Peer>, report: &SenderReport<'_>) {
        self.handle_reports(now, key, report.reports);
        let source = self.peers.get(key).and_then(|peer| peer.incoming.get(report.ssrc)).copied();
        let Some(source) = source.filter(|source| !source.is_rtx) else { return };
        let SenderInfo { ntp, rtp_timestamp: timestamp, .. } = report.info;
        let clock = ClockReport { ntp, timestamp, arrived: now };
        self.relay_clock(source.track, source.stream, clock);
        self.set_clock(now, source, clock);
    }

    /// What the publisher says about the clock of a stream.
    pub(super) fn set_clock(&mut self, now: Instant, source: Source, clock: ClockReport) {
        let Some(track) = self.tracks.get_mut(source.track) else { return };
        let Some(stream) = track.streams.get_mut(usize::from(source.stream)) else { return };
        let is_first = stream.clock.is_none();
        stream.set_clock(clock);
        if !is_first {
            return;
        }
        // Subscribers learn how to play tracks in sync as soon as we do.
        for route in track.routes.iter().filter(|route| route.current == Some(source.stream)) {
            if let Some(peer) = self.peers.get_mut(route.peer) {
                bring_forward(&mut peer.deadlines.report, now);
                self.timers.set(route.peer.index(), peer.next_deadline());
            }
        }
    }

    fn handle_reports(&mut self, now: Instant, key: Key<Peer>, reports: ReportBlocks<'_>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        for block in reports {
            let subscription =
                peer.outgoing.get(block.ssrc).and_then(|key| self.subscriptions.get_mut(*key));
            let Some(subscription) = subscription else { continue };
            if block.ssrc == subscription.section.ssrc {
                subscription.fraction_lost = block.fraction_lost;
                subscription.reported.handle(now, &block);
            }
            let measured = subscription.round_trip(now, block.last_sr, block.delay_since_last_sr);
            if let Some(measured) = measured {
                peer.measure_round_trip(measured);
            }
            peer.downlink.handle_report(now, &block, measured);
        }
        self.with_downlink(now, key, |_| ());
    }

    fn handle_nack(&mut self, now: Instant, key: Key<Peer>, nack: &Nack<'_>) {
        let now_us = self.micros(now);
        let now_ms = (now_us / 1000) as u32;
        let Some(peer) = self.peers.get_mut(key).filter(|peer| peer.can_send()) else { return };
        let Some(&subscription_key) = peer.outgoing.get(nack.ssrcs.media) else { return };
        let Some(subscription) = self.subscriptions.get_mut(subscription_key) else { return };
        self.counters.nacks_received += 1;
        peer.downlink.estimator.on_nack(now);
        let round_trip_ms = peer.round_trip.as_millis() as u32;
        let link = peer.downlink.estimator.state();
        // Reports show no queue: what is lost may be lost for want of room.
        let shows_queue = !matches!(link.cause, Cause::Start | Cause::Reports | Cause::Silence);
        let is_queued = !shows_queue || link.queue_delay_ms > COPIES_QUEUE_MS;
        let is_lossy = link.loss > COPIES_LOSS && !is_queued;
        let useless_below = subscription.useless_below;
        for sequence in nack.lost() {
            self.counters.packets_nacked_by_peers += 1;
            let sent = subscription
                .sent
                .find(sequence.0)
                .filter(|(number, _)| *number >= useless_below)
                .filter(|(_, sent)| may_resend(sent, now_ms, round_trip_ms));
            let Some((number, sent)) = sent.filter(|_| subscription.settings.enabled) else {
                self.counters.nacks_unanswered += 1;
                continue;
            };
            // What was lost twice comes too late if it is lost again.
            let is_urgent = sent.was_resent() && !is_queued;
            let copies = 1 + u8::from(is_lossy) + u8::from(is_urgent);
            sent.note_resend(now_ms);
            let size_bytes = sent_bytes(self.tracks.get(subscription.track), sent);
            // Bytes that leave twice under one number are the same packet: one copy will do.
            let has_rtx = subscription.section.rtx_ssrc.is_some();
            for _ in 0..if has_rtx { copies } else { 1 } {
                let sending = if has_rtx {
                    subscription.next_rtx += 1;
                    Sending::Rtx { number: subscription.next_rtx - 1 }
                } else {
                    Sending::Repeat
                };
                let queued = Queued { subscription: subscription_key, number, sending };
                let pacer = &mut peer.downlink.pacer;
                if pacer.push(now_us, queued, size_bytes, Priority::Retransmission).is_err() {
                    self.counters.unsent_queue_full += 1;
                }
            }
        }
        self.mark_ready(key);
    }

    fn handle_keyframe_request(&mut self, now: Instant, key: Key<Peer>, media: Ssrc) {
        self.counters.plis_received += 1;
        let subscription = self.peers.get(key).and_then(|peer| peer.outgoing.get(media)).copied();
        let Some(subscription) = subscription else { return };
        let Some(track_key) = self.subscriptions.get(subscription).map(|known| known.track) else {
            return;
        };
        let Some(track) = self.tracks.get_mut(track_key).filter(|track| !track.muted) else {
            return;
        };
        let route = track.route_mut(subscription).filter(|route| route.active);
        let Some(stream) = route.and_then(|route| route.current.or(route.target)) else { return };
        if let Some(stream) = track.streams.get_mut(usize::from(stream)) {
            stream.keyframe.request(now, stream.layer);
        }
        self.want_keyframes(track_key);
    }
}
