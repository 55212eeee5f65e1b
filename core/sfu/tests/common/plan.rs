//! A publisher with a bad link and a subscriber that asks for odd things, and what has to come of
//! it: a stream that the checker accepts and that decodes to the frames that were sent.

use std::collections::{BTreeMap, BTreeSet};

use parlor_model::{Codec, Path, ReceiveStream, SequenceNumber, Ssrc, SubscriptionId, TrackId};
use parlor_rtp::{
    RtpPacket,
    rtcp::{self, ReportBlock, Rtcp},
    rtx::parse_rtx,
};
use parlor_sfu::command::{MediaCommand, SubscriptionSettings};
use proptest::prelude::*;

use super::{
    SERVER, World,
    layered::{Coding, DESCRIPTOR_ID, FrameId, LayeredSource, Name},
    media::*,
    ms,
};

/// Frames after which a viewer that sees nothing asks again.
const VIEWER_ASKS_EVERY: u32 = 15;

/// What happens to one packet on its way to the server.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    Arrives,
    Lost,
    Twice,
    /// So many packets later.
    Late(u8),
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// All living layers send a frame; the fates are drawn from this seed.
    Frame {
        seed: u64,
        wait_ms: u8,
    },
    /// A padding packet on a layer's own SSRC.
    Padding(u8),
    Toggle(u8),
    MaxLayer(u8),
    MaxFps(u8),
    /// The source produces so many spatial layers.
    Produced(u8),
    Enabled(bool),
    Muted(bool),
    /// The subscriber asks for packets by how far they are behind the newest.
    Nack(u8, u8),
    Pli,
}

fn fate(seed: &mut u64) -> Fate {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    match (*seed >> 33) % 40 {
        0..3 => Fate::Lost,
        3 => Fate::Twice,
        4..8 => Fate::Late((*seed >> 50) as u8 % 100),
        _ => Fate::Arrives,
    }
}

/// How a publisher makes its streams known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Announced {
    ByRid,
    BySsrc,
}

/// The SSRC that the subscriber of the first track of a world hears.
pub const OUT_SSRC: Ssrc = Ssrc(1_000_000_000);

/// A stream whose first number is higher may wrap in a course of events.
const FIRST_MAY_BE_LOST: u16 = 60_000;

/// What tells one track of a world from another.
#[derive(Clone, Copy, Debug)]
struct Numbers {
    track: TrackId,
    subscription: SubscriptionId,
    /// SSRC of the lowest stream.
    source: u32,
    out: Ssrc,
    out_rtx: Ssrc,
}

impl Numbers {
    fn new(number: u32) -> Self {
        Self {
            track: TrackId(11 + u64::from(number)),
            subscription: SubscriptionId(21 + number),
            source: 50 + number * 1_000,
            out: Ssrc(OUT_SSRC.0 + number * 2),
            out_rtx: Ssrc(OUT_SSRC.0 + 1 + number * 2),
        }
    }
}

/// A publisher with a bad link and a subscriber that asks for odd things.
pub struct Plan {
    numbers: Numbers,
    pub world: World,
    layers: Vec<LayeredSource>,
    settings: SubscriptionSettings,
    pub alive: Vec<bool>,
    keyframes: Vec<bool>,
    transport: u16,
    sent: BTreeMap<(u32, u16), Vec<u8>>,
    rtx_sequence: u16,
    rtx_type: u8,
    /// Sealed packets on their way, each with how many others overtake it.
    delayed: Vec<(u8, Vec<u8>)>,
    seen_rtcp: usize,
    /// SSRCs that have sent.
    heard: BTreeSet<Ssrc>,
    /// The link is good.
    pub calm: bool,
}

impl Plan {
    /// A track of so many streams with a subscriber, in a world of two connected clients. `number`
    /// tells tracks of one world apart.
    pub fn new(
        mut world: World,
        number: u32,
        coding: Coding,
        streams: usize,
        announced: Announced,
        sequence: u16,
    ) -> Self {
        let (alice, bob) = (0, 1);
        let numbers = Numbers::new(number);
        let rids = match announced {
            Announced::ByRid if streams > 1 => &["q", "h", "f"][..streams],
            _ => &[],
        };
        let mut section = video_section("1", numbers.track.0, rids);
        if announced == Announced::BySsrc {
            section.streams = (0..streams as u32)
                .map(|at| ReceiveStream {
                    rid: None,
                    ssrc: Some(Ssrc(numbers.source + at)),
                    rtx_ssrc: Some(Ssrc(numbers.source + at + 100)),
                    layer: at as u8,
                })
                .collect();
        }
        let codecs =
            [(Codec::Vp9, 98, Some(99)), (Codec::Av1, 45, Some(46)), (Codec::H265, 116, Some(117))];
        let others = codecs.map(|(codec, payload_type, rtx)| binding(codec, payload_type, rtx));
        section.codecs.extend(others);
        section.extensions.dependency_descriptor = Some(DESCRIPTOR_ID);
        world.publish(alice, vec![section]);
        let (subscription, track) = (numbers.subscription.0, numbers.track.0);
        let mut subscription = video_subscription("1", subscription, track, numbers.out.0);
        subscription.codecs.extend(others);
        subscription.extensions.dependency_descriptor = Some(DESCRIPTOR_ID);
        for client in &mut world.clients {
            client.received.clear();
            client.received_rtcp.clear();
        }
        world.events.clear();
        world.subscribe(bob, vec![subscription]);
        let rid = |at: usize| rids.get(at).copied();
        let layers: Vec<_> = (0..streams)
            .map(|at| {
                let mut source = LayeredSource::new(coding, numbers.source + at as u32, rid(at));
                source.sequence = sequence.wrapping_add(at as u16 * 20_000);
                source.packets_per_frame = 1 + at as u8 * 2;
                source
            })
            .collect();
        Self {
            numbers,
            alive: vec![true; layers.len()],
            keyframes: vec![true; layers.len()],
            layers,
            settings: SubscriptionSettings::default(),
            world,
            transport: 0,
            sent: BTreeMap::new(),
            rtx_sequence: 65_530,
            rtx_type: coding.payload_type() + 1,
            delayed: Vec::new(),
            seen_rtcp: 0,
            heard: BTreeSet::new(),
            calm: false,
        }
    }

    /// Two connected clients.
    pub fn world() -> World {
        let mut world = World::new();
        world.connect(1);
        world.connect(2);
        world
    }

    /// All that happened is over, and the stream has to come back.
    pub fn calm_down(&mut self, frames: u32) -> Result<(), TestCaseError> {
        let (subscription, track) = (self.numbers.subscription, self.numbers.track);
        self.world.command(MediaCommand::SetTrackMuted { track, muted: false });
        let settings = SubscriptionSettings::default();
        self.world.command(MediaCommand::SetSubscription { subscription, settings });
        self.alive.fill(true);
        self.calm = true;
        let before = self.decode()?;
        self.apply(Step::Frame { seed: 1, wait_ms: 33 });
        let mut seen = before;
        for frame in 0..frames {
            // A viewer asks for what it has missed for good until it has come.
            if frame % VIEWER_ASKS_EVERY == 0 {
                let decoded = self.decode()?;
                if decoded == std::mem::replace(&mut seen, decoded) {
                    self.apply(Step::Pli);
                }
            }
            self.apply(Step::Frame { seed: 1, wait_ms: 33 });
        }
        self.check()?;
        let decoded = self.decode()?;
        prop_assert!(decoded > before + frames as usize / 9, "{} then {}", before, decoded);
        Ok(())
    }

    /// The viewer says that it is there: who is silent is sent less and less.
    fn report(&mut self) {
        let block = ReportBlock {
            ssrc: self.numbers.out,
            fraction_lost: 0,
            cumulative_lost: 0,
            highest_sequence_number: 0,
            jitter: 0,
            last_sr: 0,
            delay_since_last_sr: 0,
        };
        let mut report = Vec::new();
        rtcp::write_receiver_report(&mut report, Ssrc(1), &[block]);
        self.world.clients[1].send_rtcp(&report);
    }

    fn arrive(&mut self, mut datagram: Vec<u8>) {
        let (now, from) = (self.world.now, self.world.clients[0].address);
        self.world.shard.handle_datagram(
            now,
            Path::udp(SERVER.parse().unwrap(), from),
            &mut datagram,
        );
        let mut due = Vec::new();
        for (overtaken_by, datagram) in &mut self.delayed {
            *overtaken_by = overtaken_by.saturating_sub(1);
            if *overtaken_by == 0 {
                due.push(std::mem::take(datagram));
            }
        }
        self.delayed.retain(|(_, datagram)| !datagram.is_empty());
        for mut datagram in due {
            self.world.shard.handle_datagram(
                now,
                Path::udp(SERVER.parse().unwrap(), from),
                &mut datagram,
            );
        }
    }

    fn send(&mut self, packet: &[u8], seed: &mut u64) {
        let sealed = self.world.clients[0].seal(packet);
        let fate = if self.calm { Fate::Arrives } else { fate(seed) };
        let packet = RtpPacket::parse(packet).unwrap();
        let is_first = self.heard.insert(packet.ssrc());
        match fate {
            // Were it lost, nobody could know that numbers have wrapped (RFC 3711 section 3.3.1).
            _ if is_first && packet.sequence_number().0 > FIRST_MAY_BE_LOST => self.arrive(sealed),
            Fate::Arrives => self.arrive(sealed),
            Fate::Lost => {}
            Fate::Twice => {
                self.arrive(sealed.clone());
                self.arrive(sealed);
            }
            Fate::Late(packets) => self.delayed.push((packets + 1, sealed)),
        }
    }

    fn frame(&mut self, mut seed: u64) {
        self.answer(&mut seed);
        for at in 0..self.layers.len() {
            if !self.alive[at] {
                continue;
            }
            let keyframe = std::mem::take(&mut self.keyframes[at]);
            for packet in self.layers[at].next(keyframe, &mut self.transport) {
                let sequence = u16::from_be_bytes([packet[2], packet[3]]);
                self.sent.insert((self.layers[at].ssrc, sequence), packet.clone());
                self.send(&packet, &mut seed);
            }
        }
    }

    /// The publisher answers what the server has asked for, over the same bad link.
    fn answer(&mut self, seed: &mut u64) {
        let mut repairs = Vec::new();
        let reports = &self.world.clients[0].received_rtcp;
        for (_, compound) in &reports[self.seen_rtcp..] {
            for packet in rtcp::packets(compound) {
                match packet {
                    Rtcp::PictureLossIndication(pli) => {
                        let at = (pli.media.0 - self.numbers.source) as usize;
                        self.keyframes[at] = true;
                    }
                    Rtcp::Nack(nack) => {
                        let media = nack.ssrcs.media.0;
                        repairs.extend(nack.lost().map(|lost| (media, lost.0)));
                    }
                    _ => {}
                }
            }
        }
        self.seen_rtcp = reports.len();
        for (ssrc, sequence) in repairs {
            let Some(original) = self.sent.get(&(ssrc, sequence)) else { continue };
            let rid = self.layers[(ssrc - self.numbers.source) as usize].rid;
            let repair = retransmit(original, ssrc + 100, self.rtx_type, self.rtx_sequence, rid);
            self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
            self.send(&repair, seed);
        }
    }

    pub fn apply(&mut self, step: Step) {
        let (subscription, track) = (self.numbers.subscription, self.numbers.track);
        match step {
            Step::Frame { seed, wait_ms } => {
                self.frame(seed);
                self.world.run_events(ms(u64::from(wait_ms)));
                self.report();
            }
            Step::Padding(layer) => {
                let Some(source) = self.layers.get_mut(usize::from(layer)) else { return };
                let timestamp = source.timestamp.wrapping_sub(3000);
                let mid = b"1";
                let mut padding = packet(
                    source.ssrc,
                    source.coding.payload_type(),
                    source.sequence,
                    timestamp,
                    false,
                    &[(MID_ID, mid)],
                    &[0, 0, 0, 4],
                );
                padding[0] |= 0x20;
                source.sequence = source.sequence.wrapping_add(1);
                let sealed = self.world.clients[0].seal(&padding);
                self.arrive(sealed);
            }
            Step::Toggle(layer) => {
                if let Some(alive) = self.alive.get_mut(usize::from(layer)) {
                    *alive = !*alive;
                }
            }
            Step::MaxLayer(max_layer) => {
                self.settings.max_layer = max_layer;
                let settings = self.settings;
                self.world.command(MediaCommand::SetSubscription { subscription, settings });
            }
            Step::MaxFps(fps) => {
                self.settings.max_fps = (fps < 30).then_some(u32::from(fps));
                let settings = self.settings;
                self.world.command(MediaCommand::SetSubscription { subscription, settings });
            }
            Step::Produced(layers) => {
                for source in &mut self.layers {
                    source.produced = layers.min(source.coding.spatial);
                }
            }
            Step::Enabled(enabled) => {
                self.settings.enabled = enabled;
                let settings = self.settings;
                self.world.command(MediaCommand::SetSubscription { subscription, settings });
            }
            Step::Muted(muted) => {
                self.world.command(MediaCommand::SetTrackMuted { track, muted });
            }
            Step::Nack(back, count) => {
                let Some(last) = self.world.clients[1].last_sequence(self.numbers.out) else {
                    return;
                };
                let lost: Vec<_> = (0..u16::from(count))
                    .map(|at| SequenceNumber(last.wrapping_sub(u16::from(back)).wrapping_add(at)))
                    .collect();
                let mut request = Vec::new();
                rtcp::write_nack(&mut request, Ssrc(1), self.numbers.out, &lost);
                self.world.clients[1].send_rtcp(&request);
            }
            Step::Pli => {
                let mut request = Vec::new();
                rtcp::write_picture_loss_indication(&mut request, Ssrc(1), self.numbers.out);
                self.world.clients[1].send_rtcp(&request);
            }
        }
    }

    /// A depacketiser and decoder: frames are whole, in the order of their source, and all that
    /// they refer to has come, unless numbers are missing.
    pub fn decode(&self) -> Result<usize, TestCaseError> {
        let mut packets: BTreeMap<u64, (bool, Name)> = BTreeMap::new();
        let mut highest: Option<u64> = None;
        for (_, bytes) in &self.world.clients[1].received {
            let packet = RtpPacket::parse(bytes).unwrap();
            let (sequence, payload) = if packet.ssrc() == self.numbers.out_rtx {
                parse_rtx(packet.payload()).unwrap()
            } else {
                (packet.sequence_number(), packet.payload())
            };
            let near = highest.unwrap_or(1 << 20 | u64::from(sequence.0));
            let distance = sequence.distance(SequenceNumber(near as u16));
            let number = near.saturating_add_signed(i64::from(distance));
            highest = Some(near.max(number));
            packets.insert(number, (packet.marker(), Name::of(payload)));
        }
        let (mut frames, mut hole) = (0, true);
        let mut last: BTreeMap<u32, FrameId> = BTreeMap::new();
        let mut decoded: BTreeSet<FrameId> = BTreeSet::new();
        let mut before: Option<(u64, bool, Name)> = None;
        // Packets of the current frame that have come without a hole.
        let mut run = 0;
        for (number, (marker, name)) in packets {
            let missing = before.is_none_or(|before| before.0 + 1 != number);
            hole |= missing;
            if let Some((_, ended, earlier)) = before.filter(|_| !missing) {
                let goes_on = earlier.frame == name.frame && earlier.at + 1 == name.at;
                let is_next = earlier.at + 1 == earlier.count && name.at == 0;
                prop_assert!(goes_on || is_next, "{:?} then {:?}", earlier, name);
                let same_picture =
                    earlier.frame.0 == name.frame.0 && earlier.frame.1 == name.frame.1;
                prop_assert_eq!(
                    ended,
                    !same_picture,
                    "marker between {:?} and {:?}",
                    earlier,
                    name
                );
            }
            before = Some((number, marker, name));
            run = match name.at {
                0 => 1,
                _ if missing || run == 0 => 0,
                _ => run + 1,
            };
            if run < name.count {
                continue;
            }
            let newest = last.insert(name.frame.0, name.frame);
            prop_assert!(newest.is_none_or(|newest| newest < name.frame), "{:?}", name);
            let source = &self.layers[(name.frame.0 - self.numbers.source) as usize];
            let references = &source.references[&name.frame];
            if references.is_empty() && name.frame.2 == 0 {
                (hole, decoded) = (false, BTreeSet::new());
            } else if !references.iter().all(|frame| decoded.contains(frame)) {
                prop_assert!(hole, "{:?} needs {:?} of {:?}", name, references, decoded);
                continue;
            }
            decoded.insert(name.frame);
            frames += 1;
        }
        Ok(frames)
    }

    pub fn check(&self) -> Result<(), TestCaseError> {
        let client = &self.world.clients[1];
        if let Some(fault) = client.checker.violations().first() {
            // What was received around the fault, for whoever looks for its cause.
            for (at, bytes) in
                client.received.iter().filter(|(at, _)| *at <= fault.at).rev().take(25)
            {
                let packet = RtpPacket::parse(bytes).unwrap();
                let name = Name::of(packet.payload());
                let (number, marker) = (packet.sequence_number(), packet.marker());
                eprintln!(
                    "{:?} {} {number:?} {marker} {name:?}",
                    *at - self.world.start,
                    packet.ssrc()
                );
            }
        }
        prop_assert_eq!(client.checker.violations(), &[]);
        prop_assert_eq!(client.checker.descriptor_faults(self.numbers.out), &[]);
        prop_assert_eq!(client.unopened, 0);
        Ok(())
    }
}
