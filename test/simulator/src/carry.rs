//! How things get from one end of the world to the other.

use crate::{
    guest::{Datagram, Guest},
    trace::{Direction, Kind},
    world::{World, guest_of, shard_of},
};
use livekit_protocol as proto;
use parlor_model::{Path, ShardId};
use parlor_node::io::{Frame, Input, Output, SessionId};
use parlor_rtp::{PacketClass, classify};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How long a signal message takes, either way.
const SIGNAL_DELAY: Duration = Duration::from_millis(5);
/// What a datagram of a DTLS handshake counts on a link: the lengths of signatures are drawn by
/// the cipher library (docs/decisions/0001-randomness-of-dependencies.md).
const HANDSHAKE_BYTES: usize = 1000;
/// First byte of a DTLS record of a handshake (RFC 6347 section 4.1).
const DTLS_HANDSHAKE: u8 = 22;
/// No black picture is longer, and no packet of a camera or screen of a plan as short.
const BLACK_PICTURE_BYTES_MAX: usize = 180;
/// Rounds of carrying at one moment; more are a loop that makes no progress.
const ROUNDS_MAX: u32 = 100_000;

impl World {
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let guests = self.guests.iter().filter_map(|guest| guest.due).min();
        let shards = self.shards.iter().filter_map(|shard| shard.poll_timeout()).min();
        let shared = self.bottleneck.as_ref().and_then(|it| it.poll_timeout());
        [self.node.poll_timeout(), shards, guests, shared].into_iter().flatten().min()
    }

    /// Does everything that can be done at the present time.
    pub(crate) fn settle(&mut self) {
        let instant = self.now.instant;
        if self.node.poll_timeout().is_some_and(|due| due <= instant) {
            self.node.handle_timeout(self.now);
        }
        for shard in &mut self.shards {
            if shard.poll_timeout().is_some_and(|due| due <= instant) {
                shard.handle_timeout(instant);
            }
        }
        self.pass_bottleneck();
        for index in 0..self.guests.len() {
            if self.guests[index].due.is_some_and(|due| due <= instant) {
                self.wake(index);
            }
        }
        for _ in 0..ROUNDS_MAX {
            if !self.carry() {
                return;
            }
        }
        panic!("the world does not come to rest at {:?}", self.elapsed());
    }

    fn pass_bottleneck(&mut self) {
        let (now, Some(shared)) = (self.now.instant, &mut self.bottleneck) else { return };
        while let Some((index, datagram)) = shared.poll(now) {
            if let Some(guest) = self.guests.get_mut(index) {
                let len = charged(&datagram.bytes);
                guest.down.send(now, datagram, len);
                guest.is_stirred = true;
            }
        }
    }

    fn wake(&mut self, index: usize) {
        let guest = &mut self.guests[index];
        guest.is_stirred = true;
        if guest.is_dead {
            return;
        }
        let now = guest.now(self.now);
        if guest.client.poll_timeout().is_some_and(|due| due <= now.instant) {
            guest.client.handle_timeout(now);
        }
        self.produce(index);
    }

    /// Carries what lies ready one hop further. False when nothing did.
    fn carry(&mut self) -> bool {
        let mut moved = self.carry_server();
        for index in 0..self.guests.len() {
            if !std::mem::take(&mut self.guests[index].is_stirred) {
                continue;
            }
            moved |= self.carry_up(index);
            moved |= self.carry_down(index);
            moved |= self.drain_client(index);
            self.guests[index].due = self.guests[index].next_deadline();
        }
        moved
    }

    fn carry_server(&mut self) -> bool {
        let mut moved = false;
        for shard in 0..self.shards.len() {
            while let Some(event) = self.shards[shard].poll_event() {
                moved = true;
                self.note_media_event(&event);
                let shard = ShardId(shard as u32);
                self.node.handle(self.now, Input::Media { shard, event });
            }
        }
        while let Some(output) = self.node.poll_output() {
            moved = true;
            self.handle_output(output);
        }
        moved |= self.carry_relays();
        for shard in 0..self.shards.len() {
            loop {
                self.shards[shard].flush(self.now.instant, &mut self.batch);
                if self.batch.is_empty() {
                    break;
                }
                moved = true;
                self.send_batch();
                self.pass_bottleneck();
                self.batch.clear();
            }
        }
        moved
    }

    /// Brings what media threads tell each other to where it belongs.
    fn carry_relays(&mut self) -> bool {
        let mut moved = false;
        for from in 0..self.shards.len() {
            while let Some((to, relayed)) = self.shards[from].poll_relay() {
                moved = true;
                let from = ShardId(from as u32);
                self.shards[to.0 as usize].handle_relay(self.now.instant, from, relayed);
            }
        }
        moved
    }

    fn send_batch(&mut self) {
        let now = self.now.instant;
        for run in self.batch.runs() {
            let to = run.path.remote;
            let Some(index) = guest_of(to).filter(|index| *index < self.guests.len()) else {
                continue;
            };
            let guest = &mut self.guests[index];
            if !guest.addresses.iter().any(|(_, seen)| *seen == to) {
                continue;
            }
            guest.is_stirred = true;
            for datagram in run.datagrams() {
                if !self.forbidden.is_empty() && is_against(&mut self.forbidden, index, datagram) {
                    let at = self.now.instant - self.start;
                    self.faults.push(format!("guest {index}: sent what it may not have, {at:?}"));
                }
                let bytes = datagram.to_vec();
                let len = charged(&bytes);
                let datagram = Datagram { from: run.path.local, to, bytes };
                match &mut self.bottleneck {
                    Some(shared) if guest.is_behind_bottleneck => {
                        shared.send(now, index, datagram, len);
                    }
                    _ => guest.down.send(now, datagram, len),
                }
            }
        }
    }

    fn handle_output(&mut self, output: Output) {
        let arrival = self.now.instant + SIGNAL_DELAY;
        match output {
            Output::Accept { .. }
            | Output::Webhook(_)
            | Output::Keep(_)
            | Output::Forget { .. } => {}
            Output::Frame { session, frame } => {
                let Frame::Binary(bytes) = frame else { return };
                self.tell(session, (arrival, Some(bytes.to_vec())));
            }
            Output::Close { session } | Output::Refuse { session, .. } => {
                self.tell(session, (arrival, None));
            }
            Output::Media { shard, command } => {
                let instant = self.now.instant;
                if let Some(shard) = self.shards.get_mut(shard.0 as usize) {
                    shard.handle_command(instant, command);
                }
            }
            Output::Reply { call, result } => self.replies.push_back((call, *result)),
        }
    }

    fn tell(&mut self, session: SessionId, signal: (Instant, Option<Vec<u8>>)) {
        let guest = self.guests.iter_mut().find(|guest| guest.session == session);
        if let Some(guest) = guest.filter(|guest| !guest.is_dead) {
            guest.signals_down.push_back(signal);
            guest.is_stirred = true;
        }
    }

    fn carry_up(&mut self, index: usize) -> bool {
        let (now, guest) = (self.now, &mut self.guests[index]);
        let mut moved = false;
        while let Some(mut datagram) = guest.up.poll(now.instant) {
            moved = true;
            if let Some(shard) = self.shards.get_mut(shard_of(datagram.to)) {
                let (to, from) = (datagram.to, datagram.from);
                shard.handle_datagram(now.instant, Path::udp(to, from), &mut datagram.bytes);
            }
        }
        while !guest.is_cut && guest.signals_up.front().is_some_and(|(at, _)| *at <= now.instant) {
            let Some((_, bytes)) = guest.signals_up.pop_front() else { break };
            moved = true;
            let frame = Frame::Binary(bytes.into());
            self.node.handle(now, Input::Frame { session: guest.session, frame });
        }
        moved
    }

    fn carry_down(&mut self, index: usize) -> bool {
        let mut moved = false;
        while let Some(datagram) = self.guests[index].down.poll(self.now.instant) {
            moved = true;
            self.receive(index, datagram);
        }
        let instant = self.now.instant;
        let is_due = |guest: &Guest| {
            !guest.is_cut && guest.signals_down.front().is_some_and(|(at, _)| *at <= instant)
        };
        while is_due(&self.guests[index]) {
            let Some((_, frame)) = self.guests[index].signals_down.pop_front() else { break };
            moved = true;
            match frame {
                Some(bytes) => {
                    self.note_signal(index, Direction::ToGuest, &bytes);
                    let guest = &mut self.guests[index];
                    let now = guest.now(self.now);
                    if let Err(error) = guest.client.handle_signal(now, &bytes) {
                        self.faults.push(format!("guest {index}: {error}"));
                    }
                }
                None => self.guests[index].is_closed = true,
            }
        }
        moved
    }

    fn receive(&mut self, index: usize, mut datagram: Datagram) {
        let guest = &mut self.guests[index];
        // What was sent to an address that the NAT has forgotten is lost.
        let Some((own, _)) = guest.addresses.iter().find(|(_, seen)| *seen == datagram.to) else {
            return;
        };
        if guest.is_dead {
            return;
        }
        let (own, now) = (*own, guest.now(self.now));
        // What came is looked at once the client has let go of the datagram.
        let Datagram { from, bytes, .. } = &mut datagram;
        let Some(received) = guest.client.handle_datagram(now, own, *from, bytes) else { return };
        let at = self.now.instant - self.start;
        let whole = received.packet.bytes();
        self.trace.note(at, index, Direction::ToGuest, Kind::Rtp, whole);
        guest.checker.handle_packet(self.now.instant, whole);
        guest.count(now.instant, &received);
    }

    fn drain_client(&mut self, index: usize) -> bool {
        let now = self.now;
        let mut moved = false;
        let guest = &mut self.guests[index];
        if guest.is_dead {
            return moved;
        }
        while let Some(event) = guest.client.poll_event() {
            moved = true;
            guest.handle_event(event);
        }
        while let Some(signal) = self.guests[index].client.poll_signal() {
            moved = true;
            self.note_signal(index, Direction::ToServer, &signal);
            self.guests[index].signals_up.push_back((now.instant + SIGNAL_DELAY, signal));
        }
        let at = now.instant - self.start;
        let guest = &mut self.guests[index];
        while let Some((incoming, compound)) = guest.client.poll_rtcp() {
            let direction = if incoming { Direction::ToGuest } else { Direction::ToServer };
            self.trace.note(at, index, direction, Kind::Rtcp, &compound);
        }
        let mut out = [0; 1600];
        while let Some(transmit) = guest.client.poll_transmit(&mut out) {
            moved = true;
            let seen = guest.addresses.iter().find(|(own, _)| *own == transmit.path.local);
            let Some(&(_, from)) = seen else { continue };
            let bytes = out[..transmit.len].to_vec();
            let len = charged(&bytes);
            guest.up.send(now.instant, Datagram { from, to: transmit.path.remote, bytes }, len);
        }
        moved
    }

    fn produce(&mut self, index: usize) {
        let at = self.now.instant - self.start;
        let guest = &mut self.guests[index];
        let now = guest.now(self.now);
        let Guest { client, sources, .. } = guest;
        for source in sources {
            for packet in source.poll(now.instant) {
                if client.send_rtp(now, &source.cid, packet.rid, &packet.as_rtp()) {
                    let payload = &packet.payload;
                    self.trace.note(at, index, Direction::ToServer, Kind::Rtp, payload);
                }
            }
        }
    }

    fn note_signal(&mut self, guest: usize, direction: Direction, bytes: &[u8]) {
        let at = self.now.instant - self.start;
        if !self.trace.keeps_entries() {
            return self.trace.note(at, guest, direction, Kind::Signal, bytes);
        }
        let json = match direction {
            Direction::ToServer => request_json(bytes),
            Direction::ToGuest => response_json(bytes),
        };
        self.trace.note(at, guest, direction, Kind::Signal, &json);
    }
}

/// Whether a guest may not be sent this. A video ends in black pictures of the server's own, which
/// show nothing of the publisher's; they go on until the section ends, which a guest that is cut
/// off does not confirm. They are told by their size, since all that is sent is encrypted.
fn is_against(forbidden: &mut BTreeMap<(usize, u32), u8>, guest: usize, datagram: &[u8]) -> bool {
    let ssrc = datagram.get(8..12).and_then(|bytes| bytes.first_chunk::<4>());
    let Some(ssrc) = ssrc.filter(|_| classify(datagram) == PacketClass::Rtp) else { return false };
    let key = (guest, u32::from_be_bytes(*ssrc));
    match forbidden.get_mut(&key) {
        None => false,
        Some(pictures) if *pictures > 0 && datagram.len() <= BLACK_PICTURE_BYTES_MAX => {
            *pictures -= 1;
            false
        }
        Some(_) => {
            forbidden.remove(&key);
            true
        }
    }
}

/// What a datagram counts on a link, in bytes.
fn charged(datagram: &[u8]) -> usize {
    match datagram.first() {
        Some(&DTLS_HANDSHAKE) => HANDSHAKE_BYTES,
        _ => datagram.len(),
    }
}

fn response_json(bytes: &[u8]) -> Vec<u8> {
    let message: Result<proto::SignalResponse, _> = prost::Message::decode(bytes);
    message
        .ok()
        .and_then(|m| serde_json::to_value(m).ok())
        .map_or(Vec::new(), |v| v.to_string().into())
}

fn request_json(bytes: &[u8]) -> Vec<u8> {
    let message: Result<proto::SignalRequest, _> = prost::Message::decode(bytes);
    message
        .ok()
        .and_then(|m| serde_json::to_value(m).ok())
        .map_or(Vec::new(), |v| v.to_string().into())
}
