//! What a datagram costs to send on loopback, as a bare `sendto` and in runs of eight:
//! `cargo run --release -p parlor-net --example send_cost`.
//!
//! Nobody reads: the receive buffers are full after the first moments, so the receive path ends
//! at the drop. Wall clock of an otherwise idle machine, best of five rounds.
#![allow(clippy::unwrap_used)]

use parlor_net::{Run, UdpSocket};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

const RECEIVERS: usize = 128;
const DATAGRAMS: usize = 100_000;
const RUN: usize = 8;

fn best_ns_per_datagram(mut round: impl FnMut()) -> f64 {
    let times = (0..5).map(|_| {
        let start = Instant::now();
        round();
        start.elapsed().as_nanos() as f64 / DATAGRAMS as f64
    });
    times.fold(f64::INFINITY, f64::min)
}

fn main() {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let receivers: Vec<_> =
        (0..RECEIVERS).map(|_| std::net::UdpSocket::bind(any).unwrap()).collect();
    let remotes: Vec<_> = receivers.iter().map(|receiver| receiver.local_addr().unwrap()).collect();
    let bare = std::net::UdpSocket::bind(any).unwrap();
    let mut socket = UdpSocket::bind(any).unwrap();
    println!("UDP_SEGMENT: {}", if socket.segments() { "yes" } else { "no" });

    for len in [100, 1200] {
        let bytes = vec![0; len * RUN];
        let sendto = best_ns_per_datagram(|| {
            for at in 0..DATAGRAMS {
                bare.send_to(&bytes[..len], remotes[at % RECEIVERS]).unwrap();
            }
        });
        println!("{len} bytes: sendto {sendto:.0} ns");
        for datagrams in [1, 4, RUN] {
            let ns = best_ns_per_datagram(|| {
                let mut left = DATAGRAMS / datagrams;
                let mut at = 0;
                while left > 0 {
                    let count = left.min(32);
                    let runs = (at..at + count).map(|at| Run {
                        local: None,
                        remote: remotes[at % RECEIVERS],
                        bytes: &bytes[..len * datagrams],
                        segment_bytes: len,
                    });
                    socket.send(runs, Duration::ZERO);
                    at += count;
                    left -= count;
                }
            });
            let ratio = ns / sendto;
            println!("{len} bytes, runs of {datagrams}: {ns:.0} ns a datagram, {ratio:.2} sendtos");
        }
    }
}
