//! Publishers and subscribers on one shard, under virtual time.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::{cell::Cell, collections::BTreeMap, rc::Rc};

use common::{SERVER, World, media::*, ms};
use parlor_model::{Codec, Path, PeerId, SequenceNumber, Ssrc, SubscriptionId, TrackId};
use parlor_rtp::rtcp::{self, Rtcp};
use parlor_sfu::command::{MediaCommand, MediaEvent, PlayoutDelay, SubscriptionSettings};

const OPUS: u8 = 109;

/// A camera with layers that answers requests for keyframes.
struct Camera {
    layers: Vec<VideoSource>,
    transport: u16,
    alive: Vec<bool>,
    seen_rtcp: usize,
    plis: Vec<usize>,
    nacked: Vec<(usize, u16)>,
    /// By layer and sequence number.
    sent: BTreeMap<(usize, u16), Vec<u8>>,
}

impl Camera {
    fn new(rids: &[&'static str], mid: &'static str) -> Self {
        let layers: Vec<_> = match rids {
            [] => vec![VideoSource::new(50, mid, None)],
            rids => {
                (50..).zip(rids).map(|(ssrc, rid)| VideoSource::new(ssrc, mid, Some(rid))).collect()
            }
        };
        let (alive, plis) = (vec![true; layers.len()], vec![0; layers.len()]);
        Self {
            layers,
            transport: 0,
            alive,
            seen_rtcp: 0,
            plis,
            nacked: Vec::new(),
            sent: BTreeMap::new(),
        }
    }

    /// Sends a frame of each layer, a keyframe where one is asked for. `lose` loses packets.
    fn send_frame(
        &mut self,
        world: &mut World,
        client: usize,
        mut lose: impl FnMut(usize) -> bool,
    ) {
        let mut wanted: Vec<bool> = self.layers.iter().map(|layer| layer.frames == 0).collect();
        let reports = &world.clients[client].received_rtcp;
        for (_, compound) in &reports[self.seen_rtcp.min(reports.len())..] {
            for packet in rtcp::packets(compound) {
                let at = |media: Ssrc| self.layers.iter().position(|layer| layer.ssrc == media.0);
                match packet {
                    Rtcp::PictureLossIndication(pli) => {
                        let at = at(pli.media).unwrap();
                        self.plis[at] += 1;
                        wanted[at] = true;
                    }
                    Rtcp::Nack(nack) => {
                        let at = at(nack.ssrcs.media).unwrap();
                        self.nacked.extend(nack.lost().map(|lost| (at, lost.0)));
                    }
                    _ => {}
                }
            }
        }
        self.seen_rtcp = reports.len();
        for (at, layer) in self.layers.iter_mut().enumerate() {
            if !self.alive[at] {
                continue;
            }
            for (number, packet) in
                layer.next(wanted[at], &mut self.transport).into_iter().enumerate()
            {
                let sequence = u16::from_be_bytes([packet[2], packet[3]]);
                if !lose(at * 10 + number) {
                    world.clients[client].send_rtp(&packet);
                }
                self.sent.insert((at, sequence), packet);
            }
        }
        world.exchange();
    }

    fn run(&mut self, world: &mut World, client: usize, frames: usize) {
        for _ in 0..frames {
            self.send_frame(world, client, |_| false);
            world.run(ms(33));
        }
    }
}

fn opus() -> Vec<parlor_model::CodecBinding> {
    vec![binding(Codec::Opus, OPUS, None)]
}

#[test]
fn audio_and_video_cross_with_everything_rewritten() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![audio_section("0", 10), video_section("1", 11, &[])]);
    world.subscribe(
        bob,
        vec![audio_subscription("0", 20, 10, 1000, opus()), video_subscription("1", 21, 11, 2000)],
    );
    let mut microphone = AudioSource::new(40, "0");
    let mut camera = Camera::new(&[], "1");
    for _ in 0..60 {
        world.clients[alice].send_rtp(&microphone.next());
        camera.send_frame(&mut world, alice, |_| false);
        world.run(ms(33));
    }
    world.assert_clean();
    let bob_client = &world.clients[bob];
    let audio = bob_client.packets(Ssrc(1000));
    assert_eq!(audio.len(), 60);
    assert!(audio.iter().all(|packet| packet.payload_type().0 == OPUS));
    assert_eq!(audio[0].extension(1), Some(&[0x80 | 30][..]));
    assert_eq!(audio[0].extension(MID_ID), Some(&b"0"[..]));
    assert_eq!(bob_client.checker.complete_frames(Ssrc(2000)), 60);
    assert_eq!(bob_client.checker.starts_with_keyframe(Ssrc(2000)), Some(true));
    assert!(bob_client.packets(Ssrc(2000)).iter().all(|packet| packet.payload_type().0 == 100));
    // Transport-wide numbers count every packet to the peer, whatever its stream.
    let numbers: Vec<u16> = bob_client
        .received
        .iter()
        .map(|(_, bytes)| parlor_rtp::RtpPacket::parse(bytes).unwrap())
        .map(|packet| {
            let data = packet.extension(TRANSPORT_CC_ID).unwrap();
            u16::from_be_bytes([data[0], data[1]])
        })
        .collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
    for event in [
        MediaEvent::StreamStarted { track: TrackId(10), rid: None, ssrc: Ssrc(40), layer: 0 },
        MediaEvent::SubscriptionStarted { subscription: SubscriptionId(20) },
        MediaEvent::SubscriptionStarted { subscription: SubscriptionId(21) },
    ] {
        assert_eq!(world.events.iter().filter(|seen| **seen == event).count(), 1, "{event:?}");
    }
    // Feedback reaches the publisher twenty times a second, and reports once.
    let alice_client = &world.clients[alice];
    let feedback = alice_client
        .received_rtcp
        .iter()
        .flat_map(|(_, compound)| rtcp::packets(compound))
        .filter(|packet| matches!(packet, Rtcp::TransportFeedback(_)))
        .count();
    assert!((25..=45).contains(&feedback), "{feedback}");
    let lost: Vec<u8> = alice_client
        .received_rtcp
        .iter()
        .flat_map(|(_, compound)| rtcp::packets(compound))
        .filter_map(|packet| match packet {
            Rtcp::ReceiverReport(report) => Some(report.reports),
            _ => None,
        })
        .flatten()
        .map(|block| block.fraction_lost)
        .collect();
    assert!(lost.len() >= 2 && lost.iter().all(|lost| *lost == 0), "{lost:?}");
}

#[test]
fn what_the_subscriber_lost_is_sent_again() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![audio_section("0", 10), video_section("1", 11, &[])]);
    world.subscribe(
        bob,
        vec![audio_subscription("0", 20, 10, 1000, opus()), video_subscription("1", 21, 11, 2000)],
    );
    // Every seventh media packet is lost once; retransmissions pass.
    let count = Rc::new(Cell::new(0u32));
    let counter = count.clone();
    world.loss = Box::new(move |peer, datagram| {
        let is_media = peer == PeerId(2)
            && parlor_rtp::classify(datagram) == parlor_rtp::PacketClass::Rtp
            && matches!(datagram[8..12], [0, 0, 3, 0xe8] | [0, 0, 7, 0xd0]);
        counter.set(counter.get() + u32::from(is_media));
        is_media && counter.get() % 7 == 3
    });
    let mut microphone = AudioSource::new(40, "0");
    let mut camera = Camera::new(&[], "1");
    let mut asked = std::collections::BTreeSet::new();
    for _ in 0..100 {
        world.clients[alice].send_rtp(&microphone.next());
        camera.send_frame(&mut world, alice, |_| false);
        world.run(ms(10));
        // Bob asks once for what is missing.
        let mut request = Vec::new();
        for ssrc in [Ssrc(1000), Ssrc(2000)] {
            let packets = world.clients[bob].packets(ssrc);
            let (Some(first), Some(last)) = (packets.first(), packets.last()) else { continue };
            let (first, last) = (first.sequence_number(), last.sequence_number());
            let have: Vec<_> = packets.iter().map(|packet| packet.sequence_number()).collect();
            let missing: Vec<_> = (0..last.0.wrapping_sub(first.0))
                .map(|offset| SequenceNumber(first.0.wrapping_add(offset)))
                .filter(|number| !have.contains(number) && asked.insert((ssrc, number.0)))
                .collect();
            rtcp::write_nack(&mut request, Ssrc(1), ssrc, &missing);
        }
        if !request.is_empty() {
            world.clients[bob].send_rtcp(&request);
        }
        world.run(ms(23));
    }
    world.assert_clean();
    let bob = &world.clients[bob];
    assert!(!bob.packets(Ssrc(2001)).is_empty());
    assert!(bob.packets(Ssrc(2001)).iter().all(|packet| packet.payload_type().0 == 101));
    assert!(bob.checker.complete_frames(Ssrc(2000)) >= 98);
    assert!(bob.checker.missing(Ssrc(1000)) <= 1, "audio is repeated on its own SSRC");
    assert!(world.counters().retransmissions_sent > 20);
}

#[test]
fn what_the_publisher_lost_is_asked_for_and_taken_from_its_retransmission() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![video_section("1", 11, &["q", "h"])]);
    world.subscribe(bob, vec![video_subscription("1", 21, 11, 2000)]);
    let mut camera = Camera::new(&["q", "h"], "1");
    let mut rtx_sequence = 0u16;
    for frame in 0..150u32 {
        let is_lossy = frame > 60 && frame % 5 == 0;
        camera.send_frame(&mut world, alice, |packet| is_lossy && packet % 10 == 1);
        for (layer, sequence) in std::mem::take(&mut camera.nacked) {
            let source = &camera.layers[layer];
            let original = &camera.sent[&(layer, sequence)];
            let repaired = retransmit(original, source.ssrc + 100, 97, rtx_sequence, source.rid);
            rtx_sequence += 1;
            world.clients[alice].send_rtp(&repaired);
            // Once more: the second copy changes nothing.
            let again = retransmit(original, source.ssrc + 100, 97, rtx_sequence, source.rid);
            rtx_sequence += 1;
            world.clients[alice].send_rtp(&again);
        }
        world.run(ms(33));
    }
    world.assert_clean();
    assert!(rtx_sequence >= 60, "{rtx_sequence}");
    assert!(world.counters().repaired >= 30);
    assert!(world.counters().dropped_duplicate >= 30);
    assert!(world.clients[bob].checker.missing(Ssrc(2000)) <= 2);
}

#[test]
fn a_keyframe_is_asked_for_each_new_subscriber_and_requests_coalesce() {
    let mut world = World::new();
    let alice = world.connect(1);
    world.publish(alice, vec![video_section("1", 11, &[])]);
    let mut camera = Camera::new(&[], "1");
    camera.run(&mut world, alice, 30);
    assert_eq!(camera.plis, [0], "nobody watches");
    let viewers: Vec<_> = (2..7).map(|id| world.connect(id)).collect();
    camera.run(&mut world, alice, 30);
    for (viewer, id) in viewers.iter().zip(20..) {
        world.subscribe(*viewer, vec![video_subscription("1", id, 11, 2000)]);
    }
    let subscribed = world.now;
    camera.run(&mut world, alice, 30);
    assert_eq!(camera.plis, [1], "one request for all");
    for viewer in &viewers {
        let (first, _) = world.clients[*viewer].received[0];
        assert!(first - subscribed < ms(100));
    }
    // A storm of requests within the interval is one more.
    for _ in 0..10 {
        for viewer in &viewers {
            let mut pli = Vec::new();
            rtcp::write_picture_loss_indication(&mut pli, Ssrc(1), Ssrc(2000));
            rtcp::write_full_intra_request(&mut pli, Ssrc(1), Ssrc(2000), 1);
            world.clients[*viewer].send_rtcp(&pli);
        }
        camera.run(&mut world, alice, 1);
    }
    camera.run(&mut world, alice, 30);
    assert!((2..=3).contains(&camera.plis[0]), "{:?}", camera.plis);
    world.assert_clean();
}

#[test]
fn the_highest_living_layer_is_forwarded_and_the_next_when_it_stops() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![video_section("1", 11, &["q", "h", "f"])]);
    world.subscribe(bob, vec![video_subscription("1", 21, 11, 2000)]);
    let mut camera = Camera::new(&["q", "h", "f"], "1");
    camera.layers[0].packets_per_frame = 1;
    camera.layers[1].packets_per_frame = 2;
    camera.layers[2].packets_per_frame = 4;
    camera.alive = vec![true, true, false];
    let rate = |world: &World, since| {
        let recent = world.clients[bob].received.iter().filter(|(at, _)| *at >= since).count();
        recent as f64 / 30.0
    };
    camera.run(&mut world, alice, 60);
    let since = world.now;
    camera.run(&mut world, alice, 30);
    assert_eq!(rate(&world, since), 2.0, "the middle layer");
    camera.alive[2] = true;
    camera.run(&mut world, alice, 25);
    let since = world.now;
    camera.run(&mut world, alice, 1);
    assert_eq!(rate(&world, since) * 30.0, 2.0, "the highest has not lived for a second");
    camera.run(&mut world, alice, 60);
    let since = world.now;
    camera.run(&mut world, alice, 30);
    assert_eq!(rate(&world, since), 4.0, "the highest");
    camera.alive[2] = false;
    camera.run(&mut world, alice, 40);
    let since = world.now;
    camera.run(&mut world, alice, 30);
    assert_eq!(rate(&world, since), 2.0, "the next");
    let settings = SubscriptionSettings { max_layer: 0, ..SubscriptionSettings::default() };
    let subscription = SubscriptionId(21);
    world.command(MediaCommand::SetSubscription { subscription, settings });
    camera.run(&mut world, alice, 10);
    let since = world.now;
    camera.run(&mut world, alice, 30);
    assert_eq!(rate(&world, since), 1.0, "the lowest, as asked");
    world.assert_clean();
    assert!(camera.plis.iter().all(|plis| *plis <= 3), "{:?}", camera.plis);
}

#[test]
fn receivers_are_told_how_long_to_wait_where_that_was_agreed_on() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![video_section("1", 11, &[])]);
    let mut section = video_subscription("1", 21, 11, 2000);
    section.extensions.playout_delay = Some(5);
    world.subscribe(bob, vec![section]);
    let delay = PlayoutDelay { min_ms: 100, max_ms: 2_000 };
    let settings =
        SubscriptionSettings { playout_delay: Some(delay), ..SubscriptionSettings::default() };
    world.command(MediaCommand::SetSubscription { subscription: SubscriptionId(21), settings });
    Camera::new(&[], "1").run(&mut world, alice, 10);
    let told =
        |packet: &parlor_rtp::RtpPacket<'_>| packet.extension(5).and_then(PlayoutDelay::parse);
    let packets = world.clients[bob].packets(Ssrc(2000));
    assert!(!packets.is_empty() && packets.iter().all(|packet| told(packet) == Some(delay)));
    world.assert_clean();
}

#[test]
fn mute_disable_and_stop_hold_back_every_packet() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![video_section("1", 11, &[])]);
    world.subscribe(bob, vec![video_subscription("1", 21, 11, 2000)]);
    let mut camera = Camera::new(&[], "1");
    camera.run(&mut world, alice, 30);
    let track = TrackId(11);
    let frames = |world: &World| world.clients[bob].checker.complete_frames(Ssrc(2000));
    assert_eq!(frames(&world), 30);
    world.command(MediaCommand::SetTrackMuted { track, muted: true });
    camera.run(&mut world, alice, 90);
    assert_eq!(frames(&world), 30);
    world.command(MediaCommand::SetTrackMuted { track, muted: false });
    camera.run(&mut world, alice, 30);
    assert!((57..=60).contains(&frames(&world)), "{}", frames(&world));
    let subscription = SubscriptionId(21);
    let settings = SubscriptionSettings { enabled: false, ..SubscriptionSettings::default() };
    world.command(MediaCommand::SetSubscription { subscription, settings });
    let before = frames(&world);
    camera.run(&mut world, alice, 30);
    assert_eq!(frames(&world), before);
    let settings = SubscriptionSettings::default();
    world.command(MediaCommand::SetSubscription { subscription, settings });
    camera.run(&mut world, alice, 30);
    assert!(frames(&world) >= before + 27);
    // Stopped with packets already owed: not one leaves.
    for packet in camera.layers[0].next(false, &mut 0) {
        world.clients[alice].send_rtp(&packet);
    }
    let sealed: Vec<_> = (0..3).map(|_| camera.layers[0].next(false, &mut 0)).collect();
    let server = common::SERVER.parse().unwrap();
    for packet in sealed.iter().flatten() {
        let mut datagram = world.clients[alice].seal(packet);
        let from = world.clients[alice].address;
        world.shard.handle_datagram(world.now, Path::udp(server, from), &mut datagram);
    }
    world.stop(bob, 21, Ssrc(2000));
    // A section that still names it changes nothing, nor does a request for old packets.
    let media = parlor_model::MediaDescription {
        receive: vec![],
        send: vec![video_subscription("1", 21, 11, 2000)],
    };
    world.command(MediaCommand::SetMedia { peer: PeerId(2), media: Box::new(media) });
    let mut nack = Vec::new();
    let last = world.clients[bob].packets(Ssrc(2000)).last().unwrap().sequence_number();
    rtcp::write_nack(&mut nack, Ssrc(1), Ssrc(2000), &[last]);
    world.clients[bob].send_rtcp(&nack);
    camera.run(&mut world, alice, 30);
    world.assert_clean();
    assert!(world.counters().unsent_revoked >= 9);
}

#[test]
fn a_source_on_one_ssrc_begun_again_never_reuses_a_number() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    let mut camera = Camera::new(&[], "1");
    for round in 0..10u32 {
        world.publish(alice, vec![video_section("1", 11 + u64::from(round), &[])]);
        world
            .subscribe(bob, vec![video_subscription("1", 21 + round, 11 + u64::from(round), 2000)]);
        camera.layers[0] = VideoSource::new(50 + round, "1", None);
        camera.run(&mut world, alice, 10);
    }
    assert_eq!(world.clients[bob].unopened, 0);
    let sealed_twice = world.clients[bob]
        .checker
        .violations()
        .iter()
        .filter(|violation| violation.fault == parlor_checker::Fault::SealedTwice)
        .count();
    assert_eq!(sealed_twice, 0);
    assert_eq!(world.clients[bob].packets(Ssrc(2000)).len(), 300);
}

#[test]
fn reports_keep_tracks_in_sync() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![audio_section("0", 10), video_section("1", 11, &["q", "h"])]);
    world.subscribe(
        bob,
        vec![audio_subscription("0", 20, 10, 1000, opus()), video_subscription("1", 21, 11, 2000)],
    );
    let mut microphone = AudioSource::new(40, "0");
    let mut camera = Camera::new(&["q", "h"], "1");
    // Both layers are stamped by clocks of their own; reports tie them to the wall clock.
    for frame in 0..200u32 {
        let ntp_s = 1_000_000.0 + f64::from(frame) * 0.033_333_333;
        if frame % 30 == 1 {
            for layer in &camera.layers {
                world.clients[alice].send_rtcp(&sender_report(layer.ssrc, ntp_s, layer.timestamp));
            }
            let report = sender_report(40, ntp_s, microphone.timestamp);
            world.clients[alice].send_rtcp(&report);
        }
        camera.alive[1] = (60..150).contains(&frame);
        world.clients[alice].send_rtp(&microphone.next());
        camera.send_frame(&mut world, alice, |_| false);
        if frame % 3 == 0 {
            world.run(ms(34));
        } else {
            world.run(ms(33));
        }
        microphone.timestamp = microphone.timestamp.wrapping_add(640);
    }
    world.assert_clean();
    // Every report maps onto the frames that were sent: at 90 kHz, 30 a second, from the first.
    let first = world.clients[bob].packets(Ssrc(2000))[0].timestamp();
    let mut reports = 0;
    for (_, compound) in &world.clients[bob].received_rtcp {
        for packet in rtcp::packets(compound) {
            match packet {
                Rtcp::SenderReport(report) if report.ssrc == Ssrc(2000) => {
                    let ntp_s = report.info.ntp.0 as f64 / 4_294_967_296.0 - 1_000_000.0;
                    let rtp_s = f64::from(report.info.rtp_timestamp.distance(first)) / 90_000.0;
                    assert!((ntp_s - rtp_s).abs() < 0.06, "{ntp_s} {rtp_s}");
                    reports += 1;
                }
                Rtcp::SourceDescription(description) => {
                    let chunk = description.chunks().next().unwrap();
                    assert_eq!(chunk.cname(), Some(&b"PA_1|TR_1"[..]));
                }
                _ => {}
            }
        }
    }
    assert!(reports >= 5, "{reports}");
}

#[test]
fn a_subscriber_without_red_gets_the_newest_frame_alone() {
    let mut world = World::new();
    let (alice, bob, carol) = (world.connect(1), world.connect(2), world.connect(3));
    world.publish(alice, vec![audio_section("0", 10)]);
    world.subscribe(bob, vec![audio_subscription("0", 20, 10, 1000, opus())]);
    let both = vec![binding(Codec::Red, 64, None), binding(Codec::Opus, OPUS, None)];
    world.subscribe(carol, vec![audio_subscription("0", 21, 10, 1000, both)]);
    let red = [&[0x80 | 111, 0x0f, 0x00, 0x03, 111][..], b"oldnewest"].concat();
    let red = packet(40, 63, 9, 960, false, &[(MID_ID, b"0")], &red);
    world.clients[alice].send_rtp(&red);
    world.run(ms(5));
    let (bob, carol) = (&world.clients[bob], &world.clients[carol]);
    let (plain, redundant) = (&bob.packets(Ssrc(1000))[0], &carol.packets(Ssrc(1000))[0]);
    assert_eq!((plain.payload_type().0, plain.payload()), (OPUS, &b"newest"[..]));
    assert_eq!(redundant.payload_type().0, 64);
    assert!(redundant.payload().ends_with(b"oldnewest"));
    world.assert_clean();
}

#[test]
fn h264_starts_at_its_parameter_sets_and_passes_untouched() {
    let mut world = World::new();
    let (alice, bob) = (world.connect(1), world.connect(2));
    world.publish(alice, vec![video_section("1", 11, &[])]);
    world.subscribe(bob, vec![video_subscription("1", 21, 11, 2000)]);
    // A slice, then SPS, PPS and IDR as Chromium sends them, then slices.
    let units: [&[u8]; 6] =
        [b"\x41one", b"\x67sps", b"\x68pps", b"\x65idr", b"\x41two", b"\x41end"];
    let frame = [0, 1, 1, 1, 2, 3];
    for (at, (unit, frame)) in (0u16..).zip(units.iter().zip(frame)) {
        let marker = [0, 3, 4, 5].contains(&at);
        let timestamp = frame * 3000;
        let mid: &[(u8, &[u8])] = &[(MID_ID, b"1")];
        world.clients[alice].send_rtp(&packet(50, 102, 9 + at, timestamp, marker, mid, unit));
        world.run(ms(11));
    }
    let packets = world.clients[bob].packets(Ssrc(2000));
    let payloads: Vec<_> = packets.iter().map(|packet| packet.payload()).collect();
    assert_eq!(payloads, units[1..]);
    assert!(packets.iter().all(|packet| packet.payload_type().0 == 108));
    assert_eq!(world.clients[bob].checker.complete_frames(Ssrc(2000)), 3);
    world.assert_clean();
}

/// Chromium gives its probes up when their packets seem to come closer together than they left.
#[test]
fn what_waited_to_be_read_is_reported_as_it_came() {
    let mut world = World::new();
    let alice = world.connect(1);
    world.publish(alice, vec![video_section("0", 10, &[])]);
    world.run(ms(200));
    let came = [0, 3, 10].map(|after| world.now + ms(after));
    let frame = VideoSource::new(40, "0", None).next(true, &mut 7);
    world.now += ms(30);
    let path = Path::udp(SERVER.parse().unwrap(), world.clients[alice].address);
    for (arrived, packet) in came.into_iter().zip(&frame) {
        let mut sealed = world.clients[alice].seal(packet);
        world.shard.handle_stamped(world.now, arrived, path, &mut sealed);
    }
    world.run(ms(200));
    let told: Vec<i64> = world.clients[alice]
        .received_rtcp
        .iter()
        .flat_map(|(_, compound)| rtcp::packets(compound))
        .flat_map(|packet| match packet {
            Rtcp::TransportFeedback(feedback) => feedback.arrivals_us().collect(),
            _ => Vec::new(),
        })
        .filter_map(|(_, at_us)| at_us)
        .collect();
    assert_eq!(told.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>(), [3000, 7000]);
}
