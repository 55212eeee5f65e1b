//! The packet path for callgrind: `cargo xtask bench` runs it under valgrind, which collects only
//! within [`measured`] and writes at each [`end_of_cell`]. A thousand handshakes would take minutes
//! under instrumentation, so it is off at the start; the program has it turned on and off by
//! `vgdb`, which speaks with the valgrind around it.
//!
//! `--most N` leaves out what has more subscribers than that, for a quick look.
//!
//! Prints one line for each cell: media, subscribers, packets that arrived, packets that left.
#![forbid(unsafe_code)]

use std::{
    hint::black_box,
    process::{Command, Stdio},
};

use parlor_bench::{Burst, World, cells};

/// Arriving packets for each measurement: whole frames.
const PACKETS: usize = 12;

fn main() {
    let under_valgrind = std::env::args().any(|argument| argument == "--valgrind");
    let most = std::env::args().skip_while(|argument| argument != "--most").nth(1);
    let most = most.and_then(|most| most.parse().ok()).unwrap_or(usize::MAX);
    let mut worlds = [World::new(), World::relayed()];
    for cell in cells().filter(|cell| cell.subscribers <= most) {
        let world = &mut worlds[usize::from(cell.is_relayed)];
        if cell.subscribers > world.subscribers() {
            world.grow(cell.subscribers);
            world.warm_up();
        }
        let mut bursts = world.prepare(cell.media, PACKETS);
        if under_valgrind {
            instrument("on");
        }
        let before = world.counters();
        for burst in &mut bursts {
            world.tick(cell.media);
            measured(world, burst);
        }
        end_of_cell();
        if under_valgrind {
            instrument("off");
        }
        let after = world.counters();
        println!(
            "{}{} {} {} {}",
            cell.media.name(),
            if cell.is_relayed { "-relayed" } else { "" },
            cell.subscribers,
            after.rtp_received - before.rtp_received,
            after.rtp_sent - before.rtp_sent
        );
    }
}

/// Turns callgrind's instrumentation on or off.
///
/// Valgrind looks for commands only between blocks of code that it runs: a wait in the kernel
/// would be for ever.
fn instrument(state: &str) {
    let mut vgdb = Command::new("vgdb");
    vgdb.arg(format!("--pid={}", std::process::id())).args(["instrumentation", state]);
    let child = vgdb.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let mut child = child.expect("vgdb comes with valgrind");
    loop {
        match child.try_wait() {
            Ok(None) => std::thread::yield_now(),
            Ok(Some(status)) if status.success() => return,
            other => panic!("vgdb failed: {other:?}"),
        }
    }
}

/// What callgrind collects.
#[inline(never)]
fn measured(world: &mut World, burst: &mut Burst) {
    black_box(&mut *world).handle(black_box(burst));
}

/// Where callgrind writes what it has collected.
#[inline(never)]
fn end_of_cell() {
    black_box(());
}
