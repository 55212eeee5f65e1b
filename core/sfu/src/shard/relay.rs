//! Tracks that are published at one shard and subscribed to at another; see [`crate::relay`].

use std::time::Instant;

use parlor_model::{ShardId, TrackId};
use parlor_rtp::{RtpPacket, rtx::parse_rtx};

use super::{Shard, ingress::LAYER_INTERVAL};
use crate::{
    arena::Key,
    peer::{Source, bring_forward, take_due},
    receive::{ClockReport, Incoming},
    relay::{Message, Relayed, RelayedPacket, State, Word},
    track::{Publisher, Track},
};

impl Shard {
    /// What another shard is to be told, by [`Self::handle_relay`] there and in this order. Poll
    /// until there is none after every other call but [`Self::poll_event`].
    pub fn poll_relay(&mut self) -> Option<(ShardId, Relayed)> {
        self.relays.pop_front()
    }

    /// Takes in what another shard says.
    pub fn handle_relay(&mut self, now: Instant, from: ShardId, relayed: Relayed) {
        self.epoch.get_or_insert(now);
        let (id, message) = match relayed.0 {
            Word::Hold(sender) => return self.hold(now, sender),
            Word::Release(sender) => return self.release(now, sender),
            Word::Track(id, Message::Packet(packet)) => {
                return self.receive_relayed(now, id, &packet);
            }
            Word::Track(id, message) => (id, message),
        };
        self.owe_arrived(now);
        if id.home() == self.config.id {
            self.serve_guest(now, from, id, &message);
        } else {
            self.follow_home(now, id, message);
        }
    }

    /// Asks for a track that is published elsewhere.
    pub(super) fn begin_guest(&mut self, id: TrackId, key: Key<Track>) {
        self.guests.push(key);
        self.relays.push_back((id.home(), Relayed::of(id, Message::Subscribe)));
    }

    /// Nobody here subscribes to it any more.
    pub(super) fn end_guest(&mut self, id: TrackId, key: Key<Track>) {
        self.guests.retain(|guest| *guest != key);
        self.relays.push_back((id.home(), Relayed::of(id, Message::Unsubscribe)));
    }

    /// What a guest asks of a track that is published here, or will be.
    fn serve_guest(&mut self, now: Instant, from: ShardId, id: TrackId, message: &Message) {
        let key = self.track(id);
        let Some(track) = self.tracks.get_mut(key) else { return };
        match *message {
            Message::Subscribe if !track.guests.contains(&from) => {
                track.guests.push(from);
                self.tell_guest(from, key);
            }
            Message::Unsubscribe => track.guests.retain(|guest| *guest != from),
            Message::RequestKeyframe(at) if !track.muted => {
                if let Some(stream) = track.streams.get_mut(usize::from(at)) {
                    stream.keyframe.request(now, stream.layer);
                    self.want_keyframes(key);
                }
            }
            _ => {}
        }
        self.drop_if_unused(key);
    }

    /// Tells all guests of a track what it is now.
    pub(super) fn tell_guests(&mut self, key: Key<Track>) {
        for at in 0.. {
            let guest = self.tracks.get(key).and_then(|track| track.guests.get(at));
            let Some(&guest) = guest else { break };
            self.tell_guest(guest, key);
        }
    }

    fn tell_guest(&mut self, guest: ShardId, key: Key<Track>) {
        let Some(track) = self.tracks.get(key) else { return };
        let id = track.id;
        let state = State {
            section: track.section(),
            muted: track.muted,
            frame_trailer: track.frame_trailer.clone(),
        };
        let clocks = (0..).zip(&track.streams);
        let clocks = clocks.filter_map(|(at, stream)| Some(Message::Clock(at, stream.clock?)));
        let messages = std::iter::once(Message::State(Box::new(state))).chain(clocks);
        self.relays.extend(messages.map(|message| (guest, Relayed::of(id, message))));
    }

    /// Passes on what the publisher says about a clock.
    pub(super) fn relay_clock(&mut self, key: Key<Track>, stream: u8, clock: ClockReport) {
        let Some(track) = self.tracks.get(key) else { return };
        let relayed = Relayed::of(track.id, Message::Clock(stream, clock));
        self.relays.extend(track.guests.iter().map(|guest| (*guest, relayed.clone())));
    }

    /// Passes a packet on that has been kept under a number.
    #[inline(never)]
    pub(super) fn relay_packet(&mut self, source: Source, number: u64, packet: &RtpPacket<'_>) {
        let Some(track) = self.tracks.get(source.track) else { return };
        for guest in &track.guests {
            let packet = RelayedPacket::new(source.stream, number, source.is_rtx, packet);
            let Some(packet) = packet else { return };
            let relayed = Relayed::of(track.id, Message::Packet(packet));
            self.relays.push_back((*guest, relayed));
        }
    }

    /// What the home of a track says of it. It may have been dropped here since.
    fn follow_home(&mut self, now: Instant, id: TrackId, message: Message) {
        let Some(&key) = self.track_keys.get(&id) else { return };
        match message {
            Message::State(state) => self.follow_state(now, key, *state),
            Message::Clock(stream, clock) => {
                self.set_clock(now, Source { track: key, stream, is_rtx: false }, clock);
            }
            _ => {}
        }
    }

    fn follow_state(&mut self, now: Instant, key: Key<Track>, state: State) {
        let Some(track) = self.tracks.get_mut(key) else { return };
        let id = track.id;
        match &state.section {
            Some(section) => track.publish(Publisher::Home, section),
            None => track.unpublish(),
        }
        self.set_frame_trailer(id, state.frame_trailer);
        self.set_muted(now, id, state.muted);
        self.rematch_codecs(key);
        self.choose_layers(now, key);
        for at in 0.. {
            let route = self.tracks.get(key).and_then(|track| track.routes.get(at));
            let Some(subscription) = route.map(|route| route.subscription) else { break };
            self.introduce(now, subscription);
        }
        bring_forward(&mut self.guests_due, now + LAYER_INTERVAL);
    }

    fn receive_relayed(&mut self, now: Instant, id: TrackId, relayed: &RelayedPacket) {
        let Some(&track_key) = self.track_keys.get(&id) else { return };
        let Some(track) = self.tracks.get_mut(track_key) else { return };
        let Ok(packet) = RtpPacket::parse(relayed.bytes()) else { return };
        let Some((codec_index, codec, is_rtx_type)) = track.codec_of(packet.payload_type()) else {
            return;
        };
        let payload = match is_rtx_type {
            true => parse_rtx(packet.payload()).map(|(_, payload)| payload),
            false => Some(packet.payload()),
        };
        let Some(payload) = payload else { return };
        let (at, number, is_rtx) = (relayed.stream, relayed.number, relayed.is_rtx);
        let Some(stream) = track.streams.get_mut(usize::from(at)) else { return };
        let sequence = relayed.sequence();
        if !is_rtx && stream.ssrc.replace(packet.ssrc()).is_some_and(|old| old != packet.ssrc()) {
            track.take_over(at, packet.ssrc(), sequence);
        }
        let Some(stream) = track.streams.get_mut(usize::from(at)) else { return };
        let was_alive_since = stream.alive_since;
        let is_newest = !is_rtx && number > stream.history.highest();
        let incoming = Incoming {
            arrived: now,
            packet: &packet,
            sequence,
            payload,
            is_rtx,
            codec,
            codec_index,
        };
        let stored = stream.store(now, number, is_newest, &incoming, &track.extensions);
        let Ok(keyframe) = stored else { return };
        let revived = stream.alive_since != was_alive_since;
        let source = Source { track: track_key, stream: at, is_rtx };
        self.pass_on(now, source, number, keyframe, revived);
    }

    /// Chooses the layers of what comes from elsewhere, and has keyframes asked for.
    pub(super) fn look_after_guests(&mut self, now: Instant) {
        if !take_due(&mut self.guests_due, now) {
            return;
        }
        for &key in &self.guests {
            let Some(track) = self.tracks.get_mut(key).filter(|track| track.has_layers()) else {
                continue;
            };
            track.select(now);
            bring_forward(&mut self.guests_due, now + LAYER_INTERVAL);
            for (at, stream) in (0..).zip(&mut track.streams) {
                if track.muted || !stream.may_answer(now) {
                    stream.keyframe.stop();
                } else if stream.keyframe.take_due(now, stream.layer) {
                    let request = Relayed::of(track.id, Message::RequestKeyframe(at));
                    self.relays.push_back((track.id.home(), request));
                }
                if let Some(due) = stream.keyframe.due() {
                    bring_forward(&mut self.guests_due, due);
                }
            }
        }
    }
}
