//! Whatever happens on the way in and whatever is asked for, what leaves satisfies the checker and
//! decodes to frames that were sent.
//!
//! `PROPTEST_CASES` raises the number of cases.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{
    SERVER, World,
    layered::{Coding, DESCRIPTOR_ID, FrameId, LayeredSource, Name},
    media::*,
    ms,
};
use parlor_model::{Codec, Path, SequenceNumber, Ssrc, SubscriptionId, TrackId};
use parlor_rtp::{
    RtpPacket,
    rtcp::{self, Rtcp},
    rtx::parse_rtx,
};
use parlor_sfu::command::{MediaCommand, SubscriptionSettings};
use proptest::prelude::*;

const OUT: Ssrc = Ssrc(2000);
const OUT_RTX: Ssrc = Ssrc(2001);

/// What happens to one packet on its way to the server.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Lost,
    Twice,
    /// So many packets later.
    Late(u8),
}

/// One thing that happens.
#[derive(Clone, Copy, Debug)]
enum Step {
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

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        20 => (any::<u64>(), 0..40u8).prop_map(|(seed, wait_ms)| Step::Frame { seed, wait_ms }),
        1 => (0..3u8).prop_map(Step::Padding),
        1 => (0..3u8).prop_map(Step::Toggle),
        2 => (0..4u8).prop_map(Step::MaxLayer),
        1 => (1..40u8).prop_map(Step::MaxFps),
        1 => (1..4u8).prop_map(Step::Produced),
        1 => any::<bool>().prop_map(Step::Enabled),
        1 => any::<bool>().prop_map(Step::Muted),
        3 => (0..60u8, 1..20u8).prop_map(|(back, count)| Step::Nack(back, count)),
        1 => Just(Step::Pli),
    ]
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

/// A publisher with a bad link and a subscriber that asks for odd things.
struct Plan {
    world: World,
    layers: Vec<LayeredSource>,
    settings: SubscriptionSettings,
    alive: Vec<bool>,
    keyframes: Vec<bool>,
    transport: u16,
    sent: BTreeMap<(u32, u16), Vec<u8>>,
    rtx_sequence: u16,
    rtx_type: u8,
    /// Sealed packets on their way, each with how many others overtake it.
    delayed: Vec<(u8, Vec<u8>)>,
    seen_rtcp: usize,
    /// The link is good.
    calm: bool,
}

impl Plan {
    fn new(coding: Coding, layers: usize, rids: &[&'static str], sequence: u16) -> Self {
        let mut world = World::new();
        let (alice, bob) = (world.connect(1), world.connect(2));
        let rids = &rids[..if layers == 1 { 0 } else { layers }];
        let mut section = video_section("1", 11, rids);
        let codecs = [(Codec::Vp9, 98, Some(99)), (Codec::Av1, 45, Some(46))];
        let others = codecs.map(|(codec, payload_type, rtx)| binding(codec, payload_type, rtx));
        section.codecs.extend(others);
        section.extensions.dependency_descriptor = Some(DESCRIPTOR_ID);
        world.publish(alice, vec![section]);
        let mut subscription = video_subscription("1", 21, 11, OUT.0);
        subscription.codecs.extend(others);
        subscription.extensions.dependency_descriptor = Some(DESCRIPTOR_ID);
        world.subscribe(bob, vec![subscription]);
        let rid = |at: usize| rids.get(at).copied();
        let layers: Vec<_> = (0..layers)
            .map(|at| {
                let mut source = LayeredSource::new(coding, 50 + at as u32, rid(at));
                source.sequence = sequence.wrapping_add(at as u16 * 20_000);
                source.packets_per_frame = 1 + at as u8 * 2;
                source
            })
            .collect();
        Self {
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
            calm: false,
        }
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
        match fate {
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
                        let at = (pli.media.0 - 50) as usize;
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
            let rid = self.layers[(ssrc - 50) as usize].rid;
            let repair = retransmit(original, ssrc + 100, self.rtx_type, self.rtx_sequence, rid);
            self.rtx_sequence = self.rtx_sequence.wrapping_add(1);
            self.send(&repair, seed);
        }
    }

    fn apply(&mut self, step: Step) {
        let (subscription, track) = (SubscriptionId(21), TrackId(11));
        match step {
            Step::Frame { seed, wait_ms } => {
                self.frame(seed);
                self.world.run(ms(u64::from(wait_ms)));
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
                let Some(last) = self.world.clients[1].last_sequence(OUT) else { return };
                let lost: Vec<_> = (0..u16::from(count))
                    .map(|at| SequenceNumber(last.wrapping_sub(u16::from(back)).wrapping_add(at)))
                    .collect();
                let mut request = Vec::new();
                rtcp::write_nack(&mut request, Ssrc(1), OUT, &lost);
                self.world.clients[1].send_rtcp(&request);
            }
            Step::Pli => {
                let mut request = Vec::new();
                rtcp::write_picture_loss_indication(&mut request, Ssrc(1), OUT);
                self.world.clients[1].send_rtcp(&request);
            }
        }
    }

    /// A depacketiser and decoder: frames are whole, in the order of their source, and all that
    /// they refer to has come, unless numbers are missing.
    fn decode(&self) -> Result<usize, TestCaseError> {
        let mut packets: BTreeMap<u64, (bool, Name)> = BTreeMap::new();
        let mut highest: Option<u64> = None;
        for (_, bytes) in &self.world.clients[1].received {
            let packet = RtpPacket::parse(bytes).unwrap();
            let (sequence, payload) = if packet.ssrc() == OUT_RTX {
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
            let source = &self.layers[(name.frame.0 - 50) as usize];
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

    fn check(&self) -> Result<(), TestCaseError> {
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
        prop_assert_eq!(client.checker.descriptor_faults(OUT), &[]);
        prop_assert_eq!(client.unopened, 0);
        Ok(())
    }
}

fn coding() -> impl Strategy<Value = (Coding, usize)> {
    let vp9 = Coding::plain(Codec::Vp9);
    let av1 = Coding { descriptor: true, ..Coding::plain(Codec::Av1) };
    let simulcast = (
        prop::sample::select(vec![
            Coding::plain(Codec::Vp8),
            Coding::plain(Codec::H264),
            vp9,
            av1,
            Coding { descriptor: true, ..vp9 },
        ]),
        1..=3u8,
        1..=3usize,
    );
    let simulcast =
        simulcast.prop_map(|(coding, temporal, streams)| (Coding { temporal, ..coding }, streams));
    let svc = (1..=3u8, 1..=3u8, any::<bool>(), any::<bool>(), any::<bool>());
    let svc = svc.prop_map(move |(spatial, temporal, key_only, descriptor, is_av1)| {
        let codec = if is_av1 { Codec::Av1 } else { Codec::Vp9 };
        (Coding { codec, spatial, temporal, key_only, descriptor: descriptor || is_av1 }, 1)
    });
    prop_oneof![simulcast, svc]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(
        std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(64)
    ) })]

    #[test]
    fn any_course_of_events_leaves_a_clean_stream(
        (coding, layers) in coding(),
        sequence: u16,
        steps in proptest::collection::vec(step(), 1..150),
    ) {
        let mut plan = Plan::new(coding, layers, &["q", "h", "f"], sequence);
        for step in steps {
            plan.apply(step);
        }
        plan.check()?;
        plan.decode()?;
        // When all has calmed down the stream comes back.
        plan.world.command(MediaCommand::SetTrackMuted { track: TrackId(11), muted: false });
        plan.world.command(MediaCommand::SetSubscription {
            subscription: SubscriptionId(21),
            settings: SubscriptionSettings::default(),
        });
        plan.alive.fill(true);
        plan.calm = true;
        let before = plan.decode()?;
        plan.apply(Step::Frame { seed: 1, wait_ms: 33 });
        // The viewer asks for what it has missed for good.
        plan.apply(Step::Pli);
        for _ in 0..90 {
            plan.apply(Step::Frame { seed: 1, wait_ms: 33 });
        }
        plan.check()?;
        prop_assert!(plan.decode()? > before + 10);
    }
}
