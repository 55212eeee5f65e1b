//! What has just come goes to all who get it, whatever the batch holds and whatever comes between.
#![allow(clippy::unwrap_used, missing_docs)]

mod common;

use common::{World, media::*, ms};
use parlor_model::{Path, Ssrc, SubscriptionId};
use parlor_sfu::{SendBatch, command::MediaCommand};

const SUBSCRIBERS: u32 = 7;

/// A camera and those who see it.
fn stream(batch_datagrams: usize) -> (World, usize, Vec<usize>, VideoSource) {
    let mut world = World::new();
    world.batch = SendBatch::new(batch_datagrams);
    let alice = world.connect(1);
    world.publish(alice, vec![video_section("1", 11, &[])]);
    let clients: Vec<_> = (2..2 + SUBSCRIBERS).map(|id| world.connect(id)).collect();
    for (client, subscription) in clients.iter().zip(20..) {
        world.subscribe(*client, vec![video_subscription("1", subscription, 11, 2000)]);
    }
    world.run(ms(20));
    (world, alice, clients, VideoSource::new(50, "1", None))
}

/// A packet comes, and is not sent on yet.
fn arrives(world: &mut World, from: usize, packet: &[u8]) {
    let client = &mut world.clients[from];
    let path = Path::udp("127.0.0.1:7882".parse().unwrap(), client.address);
    let mut sealed = client.seal(packet);
    world.shard.handle_datagram(world.now, path, &mut sealed);
}

fn seen(world: &World, clients: &[usize]) -> Vec<usize> {
    clients.iter().map(|client| world.clients[*client].checker.packets(Ssrc(2000))).collect()
}

#[test]
fn all_get_all_whatever_the_batch_holds() {
    for batch_datagrams in [1, 2, 3, 4, 5, 8, 64] {
        let (mut world, alice, clients, mut camera) = stream(batch_datagrams);
        let mut number = 0;
        for frame in 0..10 {
            for packet in camera.next(frame == 0, &mut number) {
                world.clients[alice].send_rtp(&packet);
            }
            world.run(ms(33));
        }
        let all = 10 * camera.packets_per_frame;
        assert_eq!(seen(&world, &clients), vec![all; SUBSCRIBERS as usize], "{batch_datagrams}");
        world.assert_clean();
    }
}

#[test]
fn what_comes_in_the_middle_of_it_goes_to_all() {
    for batch_datagrams in [1, 2, 4, 8] {
        let (mut world, alice, clients, mut camera) = stream(batch_datagrams);
        let mut number = 0;
        for frame in 0..4 {
            for packet in camera.next(frame == 0, &mut number) {
                arrives(&mut world, alice, &packet);
                // Some have got it when the next one comes.
                world.flush();
            }
            world.run(ms(33));
        }
        let all = 4 * camera.packets_per_frame;
        assert_eq!(seen(&world, &clients), vec![all; SUBSCRIBERS as usize], "{batch_datagrams}");
        world.assert_clean();
    }
}

#[test]
fn a_command_in_the_middle_of_it_loses_and_doubles_nothing() {
    for stopped in 0..SUBSCRIBERS as usize {
        let (mut world, alice, clients, mut camera) = stream(4);
        let mut number = 0;
        for frame in 0..4 {
            for packet in camera.next(frame == 0, &mut number) {
                arrives(&mut world, alice, &packet);
            }
            if frame == 2 {
                // Some have got the frame when one of those who see it goes.
                assert!(world.flush().0);
                let subscription = SubscriptionId(20 + stopped as u32);
                world.command(MediaCommand::StopSubscription { subscription, blank: false });
            }
            world.run(ms(33));
        }
        let seen = seen(&world, &clients);
        for (at, seen) in seen.into_iter().enumerate() {
            let frames = seen / camera.packets_per_frame;
            let whole = frames * camera.packets_per_frame == seen;
            assert!(whole && if at == stopped { frames == 2 || frames == 3 } else { frames == 4 });
        }
        world.assert_clean();
    }
}
