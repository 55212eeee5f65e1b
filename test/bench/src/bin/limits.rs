//! Time and memory: what the shard takes for a packet beside what the kernel takes to send one,
//! joins of the control plane, and bytes for each participant, track and subscription.
//!
//! Wall clock of an otherwise idle machine, best of several rounds; the shard and the node make no
//! system calls, so that it is their user time. Bytes are those that Rust's allocator has handed
//! out and not got back; what AWS-LC asks of C's is not seen.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::{
    alloc::System,
    net::SocketAddr,
    time::{Duration, Instant},
};

use parlor_bench::{ControlRoom, Media, SUBSCRIBERS, World};
use parlor_net::{Run, UdpSocket};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 5;
const DATAGRAMS: usize = 50_000;
const RECEIVERS: usize = 128;
/// Datagrams of one run with segmentation offload.
const RUN_DATAGRAMS: usize = 8;
const PARTICIPANTS: usize = 1000;
const JOINS: usize = 500;

fn main() {
    packets();
    joins();
    signals();
    memory();
}

fn best_ns(per: usize, mut round: impl FnMut() -> Duration) -> f64 {
    let times = (0..ROUNDS).map(|_| round().as_nanos() as f64 / per as f64);
    times.fold(f64::INFINITY, f64::min)
}

fn packets() {
    let kernel = [Media::Audio, Media::Video].map(|media| kernel_ns(media.datagram_bytes()));
    for (media, (sendto, run)) in [Media::Audio, Media::Video].into_iter().zip(kernel) {
        println!(
            "kernel, {} bytes: sendto {sendto:.0} ns, in runs of {RUN_DATAGRAMS} {run:.0} ns",
            media.datagram_bytes()
        );
    }
    println!("shard, for each forwarded packet, cipher included:");
    println!("media  subscribers  ns  in sendtos  in datagrams of a run");
    let mut world = World::new();
    for subscribers in SUBSCRIBERS {
        world.grow(subscribers);
        world.warm_up();
        for (media, (sendto, run)) in [Media::Audio, Media::Video].into_iter().zip(kernel) {
            let packets = (DATAGRAMS / subscribers).clamp(60, 1200);
            let ns = best_ns(packets * subscribers, || {
                let mut bursts = world.prepare(media, packets);
                let mut spent = Duration::ZERO;
                for burst in &mut bursts {
                    world.tick(media);
                    let start = Instant::now();
                    world.handle(burst);
                    spent += start.elapsed();
                }
                spent
            });
            let (of_sendto, of_run) = (ns / sendto, ns / run);
            println!("{:5}  {subscribers:11}  {ns:.0}  {of_sendto:.3}  {of_run:.3}", media.name());
        }
    }
}

/// A bare `sendto` on loopback, and a datagram of a run, of this size. Nobody reads: the receive
/// path ends at the full buffer.
fn kernel_ns(len: usize) -> (f64, f64) {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let receivers: Vec<_> =
        (0..RECEIVERS).map(|_| std::net::UdpSocket::bind(any).unwrap()).collect();
    let remotes: Vec<_> = receivers.iter().map(|receiver| receiver.local_addr().unwrap()).collect();
    let bare = std::net::UdpSocket::bind(any).unwrap();
    let mut socket = UdpSocket::bind(any).unwrap();
    let bytes = vec![0; len * RUN_DATAGRAMS];
    let sendto = best_ns(DATAGRAMS, || {
        let start = Instant::now();
        for at in 0..DATAGRAMS {
            bare.send_to(&bytes[..len], remotes[at % RECEIVERS]).unwrap();
        }
        start.elapsed()
    });
    let run = best_ns(DATAGRAMS, || {
        let start = Instant::now();
        for at in 0..DATAGRAMS / RUN_DATAGRAMS {
            let remote = remotes[at % RECEIVERS];
            socket.send(
                [Run { local: None, remote, bytes: &bytes, segment_bytes: len }],
                Duration::ZERO,
            );
        }
        start.elapsed()
    });
    (sendto, run)
}

fn joins() {
    for per_room in [2, JOINS] {
        let mut control = ControlRoom::new();
        let spent: Vec<_> = (0..JOINS).map(|at| control.join(at / per_room)).collect();
        let all: Duration = spent.iter().sum();
        let last: Duration = spent[JOINS - 50..].iter().sum();
        println!(
            "node, {JOINS} joins in rooms of {per_room}: {:.0} joins/s, {:.0} us each, the last 50 {:.0} us",
            JOINS as f64 / all.as_secs_f64(),
            all.as_secs_f64() * 1e6 / JOINS as f64,
            last.as_secs_f64() * 1e6 / 50.0
        );
    }
}

/// What one has to say to all others.
fn signals() {
    const UPDATES: usize = 100;
    let mut control = ControlRoom::new();
    (0..JOINS).for_each(|_| _ = control.join(0));
    let mut told = 0;
    let ns = best_ns(UPDATES * JOINS, || {
        let updates = (0..UPDATES).map(|_| {
            let (spent, frames) = control.update();
            told = frames;
            spent
        });
        updates.sum()
    });
    assert!(told >= JOINS, "{told} of {JOINS} were told");
    println!("node, metadata of one told to {told}: {ns:.0} ns for each of them");
}

fn held_bytes() -> isize {
    let stats = ALLOCATOR.stats();
    // What a reallocation adds is counted as allocated, what it saves as freed.
    stats.bytes_allocated as isize - stats.bytes_deallocated as isize
}

/// Bytes that `make` leaves behind for each of [`PARTICIPANTS`].
fn bytes_each<T>(value: &mut T, make: impl FnOnce(&mut T)) -> isize {
    let before = held_bytes();
    make(value);
    (held_bytes() - before) / PARTICIPANTS as isize
}

fn memory() {
    let mut control = ControlRoom::new();
    let node = bytes_each(&mut control, |control| {
        for at in 0..PARTICIPANTS {
            control.join(at / 2);
        }
    });
    println!("node, bytes for each idle participant in rooms of two: {node}");
    let mut world = World::new();
    let mut peers = Vec::with_capacity(PARTICIPANTS);
    let idle = bytes_each(&mut world, |world| {
        peers.extend((0..PARTICIPANTS).map(|_| world.join()));
        world.forget_clients();
    });
    let subscriptions = bytes_each(&mut world, |world| {
        peers.iter().for_each(|peer| world.subscribe(*peer));
    });
    let sending = bytes_each(&mut world, World::warm_up);
    let mut world = World::new();
    let mut peers: Vec<_> = (0..PARTICIPANTS).map(|_| world.join()).collect();
    let tracks = bytes_each(&mut world, |world| {
        peers.drain(..).for_each(|peer| world.publish(peer));
    });
    println!("shard, bytes for each idle peer: {idle}");
    println!("  its subscription to one microphone and one camera: {subscriptions} more");
    println!("  once packets have been sent on both: {sending} more");
    println!("  its publication of one microphone and one camera, silent: {tracks} more");
}
