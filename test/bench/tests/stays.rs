//! Nothing stays of those who are gone: as much memory after thousands of joins as after some.
#![cfg(feature = "control")]
#![allow(clippy::unwrap_used, missing_docs)]

use std::{alloc::System, time::Duration};

use parlor_bench::{ControlRoom, World};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn held_bytes() -> i64 {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated as i64 - stats.bytes_deallocated as i64
}

/// Bytes for each of so many cycles that stay, after as many to warm up.
fn kept_of_each(cycles: i64, mut cycle: impl FnMut()) -> f64 {
    (0..cycles).for_each(|_| cycle());
    let before = held_bytes();
    (0..cycles).for_each(|_| cycle());
    (held_bytes() - before) as f64 / cycles as f64
}

// One test: the allocator counts for the whole process.
#[test]
fn nothing_stays_of_those_who_are_gone() {
    let mut control = ControlRoom::new();
    control.join(0);
    let mut at = 0;
    let of_node = kept_of_each(500, || {
        at += 1;
        control.join(at % 3);
        control.leave();
    });
    control.pass(Duration::from_secs(600));
    let mut world = World::new();
    world.grow(1);
    let of_shard = kept_of_each(200, || {
        let peer = world.join();
        world.subscribe(peer);
        world.leave(peer);
    });
    println!("bytes that stay of each: node {of_node:.1}, shard {of_shard:.1}");
    assert!(of_node < 4.0 && of_shard < 40.0, "node {of_node}, shard {of_shard} bytes for each");
}
