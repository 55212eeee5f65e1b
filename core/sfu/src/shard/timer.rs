//! What is done by the clock.

use std::time::{Duration, Instant};

use parlor_model::TrackKind;
use parlor_rtp::rtcp::{self, ReportBlock, SourceItems};

use super::{Shard, ingress::LAYER_INTERVAL, round_trip::reference_time};
use crate::{
    arena::Key,
    peer::{OWN_SSRC, Peer, take_due},
    track::Track,
};

/// Time between two requests for keyframes of one track: libwebrtc takes no notice of one that
/// comes within 300 ms of another.
const KEYFRAME_SPACING: Duration = Duration::from_millis(350);
/// Time between two reports about a stream.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Reports to different peers leave together: to wake for each costs more than to write it.
const REPORT_GRID_US: u64 = 50_000;

impl Shard {
    /// Does what is due for the peers that something is due for.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.epoch.get_or_insert(now);
        let mut due = std::mem::take(&mut self.due);
        while let Some(index) = self.timers.pop_due(now) {
            due.push(index);
        }
        for index in due.drain(..) {
            if let Some((key, peer)) = self.peers.at_mut(index) {
                if peer.transport.poll_timeout().is_some_and(|at| at <= now) {
                    peer.transport.handle_timeout(now);
                }
                self.run_tasks(now, key);
                self.after_transport(now, key);
            }
        }
        self.due = due;
        self.tell_levels(now);
        self.tell_qualities(now);
        self.look_after_guests(now);
    }

    fn run_tasks(&mut self, now: Instant, key: Key<Peer>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        if !peer.can_send() {
            peer.deadlines = crate::peer::Deadlines::default();
            return;
        }
        if take_due(&mut peer.deadlines.feedback, now) {
            let Peer { arrivals, rtcp, .. } = peer;
            let written = arrivals.report(OWN_SSRC, |write| {
                rtcp.write(|out| write(out));
            });
            self.counters.transport_feedback_sent += written;
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        if take_due(&mut peer.deadlines.nack, now) {
            self.send_nacks(now, key);
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        if take_due(&mut peer.deadlines.layers, now) {
            self.choose_layers_of(now, key);
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        if take_due(&mut peer.deadlines.keyframe, now) {
            self.send_keyframe_requests(now, key);
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        if take_due(&mut peer.deadlines.reading, now) {
            self.judge_reading(now, key);
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        // Whoever has a deadline is looked at by the next flush.
        take_due(&mut peer.deadlines.pace, now);
        if take_due(&mut peer.deadlines.estimate, now) {
            self.with_downlink(now, key, |link| link.handle_timeout(now));
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        if take_due(&mut peer.deadlines.allocation, now) {
            self.share_out(now, key);
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        if take_due(&mut peer.deadlines.ahead, now) {
            self.repair_ahead(now, key);
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        if take_due(&mut peer.deadlines.silence, now) {
            self.send_silence(now, key);
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        if take_due(&mut peer.deadlines.report, now) {
            self.send_reports(now, key);
        }
    }

    fn send_nacks(&mut self, now: Instant, key: Key<Peer>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let mut next = None;
        for track in &peer.tracks {
            let Some(track) = self.tracks.get_mut(*track).filter(|track| track.feedback.nack)
            else {
                continue;
            };
            for stream in &mut track.streams {
                self.lost.clear();
                stream.missing.take_due(now, peer.round_trip, &mut self.lost);
                next = [next, stream.missing.due()].into_iter().flatten().min();
                if let Some(ssrc) = stream.ssrc.filter(|_| !self.lost.is_empty()) {
                    peer.rtcp.write(|out| rtcp::write_nack(out, OWN_SSRC, ssrc, &self.lost));
                    self.counters.nacks_sent += 1;
                    self.counters.packets_nacked_by_us += self.lost.len() as u64;
                }
            }
        }
        peer.deadlines.nack = next;
    }

    fn send_keyframe_requests(&mut self, now: Instant, key: Key<Peer>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let mut next: Option<Instant> = None;
        for track in &peer.tracks {
            let Some(track) = self.tracks.get_mut(*track) else { continue };
            let is_wanted = track.kind == TrackKind::Video && !track.muted;
            let earliest = track.asked_for_keyframe.map_or(now, |at| at + KEYFRAME_SPACING);
            for stream in &mut track.streams {
                if !is_wanted || !stream.may_answer(now) {
                    stream.keyframe.stop();
                    continue;
                }
                stream.keyframe.wait_until(earliest);
                if let Some(ssrc) = stream.ssrc
                    && stream.keyframe.take_due(now, stream.layer)
                {
                    track.asked_for_keyframe = Some(now);
                    peer.rtcp.write(|out| rtcp::write_picture_loss_indication(out, OWN_SSRC, ssrc));
                    self.counters.plis_sent += 1;
                }
                next = [next, stream.keyframe.due()].into_iter().flatten().min();
            }
        }
        peer.deadlines.keyframe = next;
    }

    fn choose_layers_of(&mut self, now: Instant, key: Key<Peer>) {
        let mut any = false;
        for at in 0.. {
            let Some(&track) = self.peers.get(key).and_then(|peer| peer.tracks.get(at)) else {
                break;
            };
            if self.tracks.get(track).is_some_and(Track::has_layers) {
                any = true;
                self.choose_layers(now, track);
            }
        }
        if let Some(peer) = self.peers.get_mut(key).filter(|_| any) {
            peer.deadlines.layers = Some(now + LAYER_INTERVAL);
        }
    }

    /// Receiver reports about what it publishes, sender reports about what it is sent.
    fn send_reports(&mut self, now: Instant, key: Key<Peer>) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let empty = ReportBlock {
            ssrc: OWN_SSRC,
            fraction_lost: 0,
            cumulative_lost: 0,
            highest_sequence_number: 0,
            jitter: 0,
            last_sr: 0,
            delay_since_last_sr: 0,
        };
        let mut blocks = [empty; rtcp::MAX_COUNT];
        let mut count = 0;
        for track in &peer.tracks {
            let Some(track) = self.tracks.get_mut(*track) else { continue };
            for stream in &mut track.streams {
                let Some(block) = stream.report(now) else { continue };
                if let Some(place) = blocks.get_mut(count) {
                    *place = block;
                    count += 1;
                }
                if count == blocks.len() {
                    peer.rtcp.write(|out| rtcp::write_receiver_report(out, OWN_SSRC, &blocks));
                    count = 0;
                }
            }
        }
        if let Some(blocks) = blocks.get(..count).filter(|blocks| !blocks.is_empty()) {
            peer.rtcp.write(|out| rtcp::write_receiver_report(out, OWN_SSRC, blocks));
        }
        if !peer.tracks.is_empty() {
            let time = reference_time(self.epoch.unwrap_or(now), now);
            peer.rtcp.write(|out| rtcp::write_receiver_reference_time(out, OWN_SSRC, time));
        }
        for subscription in &peer.subscriptions {
            let Some(subscription) = self.subscriptions.get_mut(*subscription) else { continue };
            let Some(track) = self.tracks.get(subscription.track) else { continue };
            let Some(at) = subscription.munger.stream() else { continue };
            let Some(stream) = track.streams.get(usize::from(at)).filter(|_| !track.muted) else {
                continue;
            };
            let Some(info) = subscription.sender_report(now, at, stream) else { continue };
            let section = &subscription.section;
            let items = SourceItems {
                ssrc: section.ssrc,
                cname: section.cname.as_bytes(),
                mid: Some(section.mid.as_bytes()),
            };
            peer.rtcp.write(|out| {
                rtcp::write_sender_report(out, section.ssrc, &info, &[]);
                rtcp::write_source_description(out, &[items]);
            });
        }
        if !(peer.tracks.is_empty() && peer.subscriptions.is_empty()) {
            peer.deadlines.report = Some(next_report(self.epoch.unwrap_or(now), now));
        }
    }
}

/// When the next reports leave.
fn next_report(epoch: Instant, now: Instant) -> Instant {
    let due_us = (now.saturating_duration_since(epoch) + REPORT_INTERVAL).as_micros() as u64;
    epoch + Duration::from_micros(due_us - due_us % REPORT_GRID_US)
}
