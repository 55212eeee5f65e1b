//! Invariant 6: after warm-up nothing on the packet path allocates. The allocator counts for the whole
//! process, and so there is no test harness: its thread allocates when it begins to wait.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use std::alloc::System;

use common::{SERVER, World, media::*, ms};
use parlor_model::{Codec, Path, SequenceNumber, Ssrc};
use parlor_rtp::rtcp::{self, ReportBlock};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const SUBSCRIBERS: u32 = 5;

struct Meeting {
    world: World,
    alice: usize,
    viewers: Vec<usize>,
    microphone: AudioSource,
    layers: Vec<VideoSource>,
    transport: u16,
    steps: u32,
}

impl Meeting {
    fn new() -> Self {
        let mut world = World::new();
        let alice = world.connect(1);
        world.publish(alice, vec![audio_section("0", 10), video_section("1", 11, &["q", "h"])]);
        let viewers: Vec<_> = (2..2 + SUBSCRIBERS).map(|id| world.connect(id)).collect();
        for (viewer, id) in viewers.iter().zip(20..) {
            let opus = vec![binding(Codec::Opus, 109, None)];
            let sections = vec![
                audio_subscription("0", id, 10, 1000, opus),
                video_subscription("1", id + 100, 11, 2000),
            ];
            world.subscribe(*viewer, sections);
        }
        for client in &mut world.clients {
            client.keep_received = false;
        }
        let layers =
            vec![VideoSource::new(50, "1", Some("q")), VideoSource::new(51, "1", Some("h"))];
        let microphone = AudioSource::new(40, "0");
        Self { world, alice, viewers, microphone, layers, transport: 0, steps: 0 }
    }

    /// The sealed datagrams of 20 ms: media with a loss now and then, reports, requests.
    fn next_datagrams(&mut self) -> Vec<(usize, Vec<u8>)> {
        self.steps += 1;
        let mut datagrams = Vec::new();
        let packet = self.microphone.next();
        let alice = &mut self.world.clients[self.alice];
        datagrams.push((self.alice, alice.seal(&packet)));
        let lossy = self.steps.is_multiple_of(10);
        for layer in &mut self.layers {
            let keyframe = self.steps % 100 == 1;
            for (at, packet) in layer.next(keyframe, &mut self.transport).iter().enumerate() {
                let sealed = alice.seal(packet);
                if !(lossy && at == 1) {
                    datagrams.push((self.alice, sealed));
                }
            }
            if self.steps.is_multiple_of(50) {
                let ntp_s = 1000.0 + f64::from(self.steps) * 0.02;
                let report = sender_report(layer.ssrc, ntp_s, layer.timestamp);
                datagrams.push((self.alice, alice.seal_rtcp(&report)));
            }
        }
        if self.steps.is_multiple_of(25) {
            for viewer in self.viewers.clone() {
                let client = &mut self.world.clients[viewer];
                let Some(last) = client.last_sequence(Ssrc(2000)) else { continue };
                let mut request = Vec::new();
                let lost = [SequenceNumber(last.wrapping_sub(2)), SequenceNumber(last)];
                rtcp::write_nack(&mut request, Ssrc(1), Ssrc(2000), &lost);
                let block = ReportBlock {
                    ssrc: Ssrc(2000),
                    fraction_lost: 0,
                    cumulative_lost: 0,
                    highest_sequence_number: u32::from(last),
                    jitter: 0,
                    last_sr: 0,
                    delay_since_last_sr: 0,
                };
                rtcp::write_receiver_report(&mut request, Ssrc(1), &[block]);
                rtcp::write_picture_loss_indication(&mut request, Ssrc(1), Ssrc(2000));
                datagrams.push((viewer, client.seal_rtcp(&request)));
            }
        }
        datagrams
    }
}

fn main() {
    let mut meeting = Meeting::new();
    for _ in 0..500 {
        for (client, datagram) in meeting.next_datagrams() {
            meeting.world.clients[client].send_raw(&datagram);
        }
        meeting.world.run(ms(20));
    }
    meeting.world.assert_clean();
    let server = SERVER.parse().unwrap();
    let before = meeting.world.counters();
    let mut allocations = 0;
    // Five seconds, in which no check of ICE is due to be answered.
    for step in 0..250 {
        meeting.world.now += ms(20);
        let now = meeting.world.now;
        let mut datagrams = meeting.next_datagrams();
        let world = &mut meeting.world;
        let addresses: Vec<_> = world.clients.iter().map(|client| client.address).collect();
        let region = Region::new(ALLOCATOR);
        for (client, datagram) in &mut datagrams {
            world.shard.handle_datagram(now, Path::udp(server, addresses[*client]), datagram);
        }
        while world.shard.flush(now, &mut world.batch) {
            world.batch.clear();
        }
        world.batch.clear();
        let change = region.change();
        if change.allocations + change.reallocations > 0 {
            println!("step {step}: {change:?}");
        }
        allocations += change.allocations + change.reallocations;
    }
    let after = meeting.world.counters();
    assert_eq!(allocations, 0);
    assert!(after.rtp_sent - before.rtp_sent > 250 * 4 * u64::from(SUBSCRIBERS) - 1000);
    assert!(after.retransmissions_sent > before.retransmissions_sent);
    assert!(after.nacks_sent > before.nacks_sent);
    assert!(after.rtcp_sent - before.rtcp_sent > 100);
}
