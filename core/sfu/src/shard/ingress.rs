//! From a sealed packet of a publisher to one that is known and kept.

use std::time::{Duration, Instant};

use parlor_model::{Mid, Rid, RtpTimestamp, Ssrc, TrackKind};
use parlor_rtp::{
    RtpPacket,
    extension::{AudioLevel, parse_transport_sequence_number},
    rtx::parse_rtx,
};

use super::Shard;
use crate::{
    arena::{Arena, Key},
    command::MediaEvent,
    peer::{Peer, Source, bring_forward},
    receive::{Incoming, Received, arrivals, history::Refused},
    track::{Route, Track},
};

/// How often transport-wide feedback is sent.
pub(super) const FEEDBACK_INTERVAL: Duration = Duration::from_millis(50);
/// How often layers are chosen anew.
pub(super) const LAYER_INTERVAL: Duration = Duration::from_millis(100);

impl Shard {
    pub(super) fn handle_rtp(
        &mut self,
        now: Instant,
        arrived: Instant,
        key: Key<Peer>,
        datagram: &mut [u8],
    ) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let Some(srtp) = peer.srtp.as_mut().filter(|_| !peer.failed) else {
            self.counters.dropped_before_keys += 1;
            return;
        };
        let Ok(header) = RtpPacket::parse_protected(datagram) else {
            self.counters.dropped_malformed += 1;
            return;
        };
        let ssrc = header.ssrc();
        let known = peer.incoming.get(ssrc).copied();
        let source = known
            .or_else(|| identify(&self.tracks, &peer.tracks, &peer.receive_extensions, &header));
        // Chromium probes a path with SSRC 0: only its arrival counts.
        if source.is_none() && ssrc != Ssrc(0) {
            self.counters.dropped_unknown_ssrc += 1;
            return;
        }
        let Ok(len) = srtp.receiver.open_rtp(datagram) else {
            self.counters.dropped_unauthentic += 1;
            return;
        };
        self.counters.rtp_received += 1;
        let Some(Ok(packet)) = datagram.get(..len).map(RtpPacket::parse) else {
            self.counters.dropped_malformed += 1;
            return;
        };
        self.record_arrival(now, arrived, key, &packet);
        let Some(source) = source else { return };
        if known.is_none() {
            self.bind_source(key, source, &packet);
        }
        self.receive(now, arrived, key, source, &packet);
    }

    fn record_arrival(
        &mut self,
        now: Instant,
        arrived: Instant,
        key: Key<Peer>,
        packet: &RtpPacket<'_>,
    ) {
        let Some(peer) = self.peers.get_mut(key) else { return };
        let number = peer
            .receive_extensions
            .transport_cc
            .and_then(|id| packet.extension(id))
            .and_then(parse_transport_sequence_number);
        let Some(number) = number else { return };
        peer.arrivals.record(arrived, number, packet.ssrc());
        let due =
            if peer.arrivals.held() >= arrivals::ENOUGH { now } else { now + FEEDBACK_INTERVAL };
        if peer.deadlines.feedback.is_none_or(|at| due < at) {
            peer.deadlines.feedback = Some(due);
            self.schedule(key);
        }
    }

    /// Ties an SSRC to the stream that its first packet named.
    fn bind_source(&mut self, key: Key<Peer>, source: Source, packet: &RtpPacket<'_>) {
        let ssrc = packet.ssrc();
        let Some(track) = self.tracks.get_mut(source.track) else { return };
        let Some(stream) = track.streams.get_mut(usize::from(source.stream)) else { return };
        let before = if source.is_rtx { stream.rtx_ssrc } else { stream.ssrc };
        if source.is_rtx {
            stream.rtx_ssrc = Some(ssrc);
        } else if before.is_some() {
            track.take_over(source.stream, ssrc, packet.sequence_number());
        } else {
            stream.ssrc = Some(ssrc);
        }
        let Some(peer) = self.peers.get_mut(key) else { return };
        peer.incoming.retain(|known, _| Some(known) != before);
        peer.incoming.insert(ssrc, source);
    }

    fn receive(
        &mut self,
        now: Instant,
        arrived: Instant,
        key: Key<Peer>,
        source: Source,
        packet: &RtpPacket<'_>,
    ) {
        let Some(track) = self.tracks.get_mut(source.track) else { return };
        let Some((codec_index, codec, is_rtx_type)) = track.codec_of(packet.payload_type()) else {
            self.counters.dropped_unknown_payload_type += 1;
            return;
        };
        let Some(stream) = track.streams.get_mut(usize::from(source.stream)) else { return };
        let is_rtx = source.is_rtx || is_rtx_type;
        let (sequence, payload) = if is_rtx {
            match parse_rtx(packet.payload()) {
                Some((sequence, payload)) if is_rtx_type => (sequence, payload),
                _ if packet.payload().is_empty() => {
                    self.counters.dropped_padding += 1;
                    return;
                }
                _ => {
                    self.counters.dropped_bad_rtx += 1;
                    return;
                }
            }
        } else {
            (packet.sequence_number(), packet.payload())
        };
        let is_first = stream.last_packet.is_none();
        let was_alive_since = stream.alive_since;
        let incoming = Incoming { arrived, packet, sequence, payload, is_rtx, codec, codec_index };
        let received = stream.receive(now, &incoming, &track.extensions);
        let (number, keyframe) = match received {
            Received::Stored { number, keyframe, gap, lost_track } => {
                let is_watched = |route: &Route| route.current == Some(source.stream);
                let has_guests = !track.guests.is_empty();
                if lost_track && (has_guests || track.routes.iter().any(is_watched)) {
                    stream.keyframe.request(now, stream.layer);
                }
                self.note_needs(key, source, gap);
                (number, keyframe)
            }
            Received::Padding { gap } => {
                self.counters.dropped_padding += 1;
                self.note_needs(key, source, gap);
                return;
            }
            Received::Refused(refused) => {
                *match refused {
                    Refused::Duplicate => &mut self.counters.dropped_duplicate,
                    Refused::TooOld => &mut self.counters.dropped_too_old,
                    Refused::TooLong => &mut self.counters.dropped_malformed,
                } += 1;
                return;
            }
        };
        if is_rtx {
            self.counters.repaired += 1;
        }
        let mut heard = false;
        let Some(track) = self.tracks.get_mut(source.track) else { return };
        let Some(stream) = track.streams.get(usize::from(source.stream)) else { return };
        let level = stream.history.facts(number).filter(|_| !is_rtx && !track.muted);
        if let Some(facts) = level
            && let Some(level) = facts.audio_level.and_then(|byte| AudioLevel::parse(&[byte]))
        {
            let timestamp = RtpTimestamp(facts.timestamp);
            track.loudness.observe(now, level.minus_dbov, timestamp, stream.clock_rate());
            heard = true;
        }
        let revived = stream.alive_since != was_alive_since;
        let has_guests = !track.guests.is_empty();
        if is_first {
            let (id, rid, layer) = (track.id, stream.rid, stream.layer);
            if let Some(ssrc) = stream.ssrc {
                self.event(MediaEvent::StreamStarted { track: id, rid, ssrc, layer });
            }
        }
        if heard {
            self.expect_levels(now);
        }
        if has_guests {
            self.relay_packet(Source { is_rtx, ..source }, number, packet);
        }
        self.pass_on(now, source, number, keyframe, revived);
    }

    /// Brings a packet that is kept to whom it concerns.
    pub(super) fn pass_on(
        &mut self,
        now: Instant,
        source: Source,
        number: u64,
        keyframe: bool,
        revived: bool,
    ) {
        if revived {
            self.choose_layers(now, source.track);
        }
        self.recover(now, source, number);
        self.forward(now, source, number, keyframe);
    }

    /// Forwards the frames of lost packets that a packet has brought along.
    fn recover(&mut self, now: Instant, source: Source, number: u64) {
        let stream = self
            .tracks
            .get_mut(source.track)
            .filter(|track| track.kind == TrackKind::Audio)
            .and_then(|track| track.streams.get_mut(usize::from(source.stream)));
        let recovered = stream.map(|stream| stream.recover(now, number)).unwrap_or_default();
        for number in recovered.into_iter().flatten() {
            self.counters.recovered += 1;
            self.forward(now, source, number, false);
        }
    }

    /// Starts the timers that a received packet calls for.
    fn note_needs(&mut self, key: Key<Peer>, source: Source, gap: bool) {
        let (Some(peer), Some(track)) = (self.peers.get_mut(key), self.tracks.get(source.track))
        else {
            return;
        };
        let Some(stream) = track.streams.get(usize::from(source.stream)) else { return };
        let mut changed = false;
        if gap
            && track.feedback.nack
            && let Some(due) = stream.missing.due()
        {
            bring_forward(&mut peer.deadlines.nack, due);
            changed = true;
        }
        if gap && let Some(due) = stream.keyframe.due() {
            bring_forward(&mut peer.deadlines.keyframe, due);
            changed = true;
        }
        if changed {
            self.schedule(key);
        }
    }
}

/// Which stream a packet of an unknown SSRC belongs to, by its mid and rid (RFC 8843 section 9.2,
/// RFC 8852) or, failing those, by a payload type that only one section has. Keeps nothing.
fn identify(
    tracks: &Arena<Track>,
    of_peer: &[Key<Track>],
    extensions: &parlor_model::ExtensionIds,
    packet: &RtpPacket<'_>,
) -> Option<Source> {
    let text = |id: Option<u8>| id.and_then(|id| packet.extension(id));
    let mid = text(extensions.mid).and_then(Mid::from_bytes);
    let has_type = |key: &&Key<Track>| {
        tracks.get(**key).is_some_and(|track| track.codec_of(packet.payload_type()).is_some())
    };
    let key = match mid {
        Some(mid) => {
            of_peer.iter().find(|key| tracks.get(**key).is_some_and(|track| track.mid == Some(mid)))
        }
        None => {
            let mut candidates = of_peer.iter().filter(has_type);
            candidates.next().filter(|_| candidates.next().is_none())
        }
    };
    let track = *key?;
    let known = tracks.get(track)?;
    let (_, _, is_rtx) = known.codec_of(packet.payload_type())?;
    let rid_id = if is_rtx { extensions.repaired_rid } else { extensions.rid };
    let rid = text(rid_id).and_then(Rid::from_bytes);
    let stream = match rid {
        Some(rid) => known.streams.iter().position(|stream| stream.rid == Some(rid))?,
        None if known.streams.len() == 1 => 0,
        None => return None,
    };
    Some(Source { track, stream: stream as u8, is_rtx })
}
