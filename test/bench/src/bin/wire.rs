//! What the kernel takes to send a datagram between two network namespaces: the measure that
//! `cargo xtask bench --net` holds the server to.
//!
//! `wire sink COUNT` opens that many UDP ports from [`FIRST_PORT`] and reads them all by one epoll
//! until its input ends, as the clients of `parlor load-test` do. `wire send WAY BYTES COUNT RATE
//! SECONDS IP` sends to them, a port after the other, RATE datagrams a second in bursts every
//! [`TICK`], by a bare `sendto` each (`WAY` = 1) or in runs of `WAY` with UDP segmentation
//! offload, and prints how many datagrams left and the microseconds of user and system time that
//! the process used for it.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::{
    env, fs,
    io::Read,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket as Bare},
    os::fd::AsFd,
    thread,
    time::{Duration, Instant},
};

use parlor_net::{RecvBatch, Run, UdpSocket};
use rustix::event::epoll;

const FIRST_PORT: u16 = 20_000;
const TICK: Duration = Duration::from_millis(4);
/// Longest that the sink sleeps before it looks whether its input has ended.
const NAP: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["sink", count] => sink(count.parse().unwrap()),
        ["send", way, bytes, count, rate, seconds, ip] => send(&Load {
            way: way.parse().unwrap(),
            bytes: bytes.parse().unwrap(),
            count: count.parse().unwrap(),
            rate: rate.parse().unwrap(),
            seconds: seconds.parse().unwrap(),
            ip: ip.parse().unwrap(),
        }),
        _ => panic!("wire sink COUNT | wire send WAY BYTES COUNT RATE SECONDS IP"),
    }
}

fn port(at: usize) -> u16 {
    FIRST_PORT + at as u16
}

fn sink(count: usize) {
    let any = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).unwrap();
    let mut sockets: Vec<UdpSocket> =
        (0..count).map(|at| UdpSocket::bind(SocketAddr::new(any, port(at))).unwrap()).collect();
    for (at, socket) in sockets.iter().enumerate() {
        let data = epoll::EventData::new_u64(at as u64);
        epoll::add(&epoll, socket.as_fd(), data, epoll::EventFlags::IN).unwrap();
    }
    println!("ready");
    let ended = thread::spawn(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let (mut batch, mut events) = (RecvBatch::new(), Vec::with_capacity(256));
    while !ended.is_finished() {
        events.clear();
        let _ = epoll::wait(&epoll, rustix::buffer::spare_capacity(&mut events), Some(&NAP));
        for event in &events {
            let socket = &mut sockets[event.data.u64() as usize];
            socket.recv(&mut batch, |_, _, _| {}).unwrap();
        }
    }
}

struct Load {
    way: usize,
    bytes: usize,
    count: usize,
    rate: f64,
    seconds: f64,
    ip: IpAddr,
}

fn send(load: &Load) {
    let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);
    let bare = Bare::bind(any).unwrap();
    let mut socket = UdpSocket::bind(any).unwrap();
    let bytes = vec![0; load.bytes * load.way];
    let mut at = 0;
    let mut left = 0;
    let mut run = || {
        let remote = SocketAddr::new(load.ip, port(at % load.count));
        at += 1;
        if load.way == 1 {
            left += u64::from(bare.send_to(&bytes, remote).is_ok());
        } else {
            let run = Run { local: None, remote, bytes: &bytes, segment_bytes: load.bytes };
            left += socket.send([run], Duration::ZERO).datagrams as u64;
        }
        left
    };
    // The first finds out neighbours and routes.
    run();
    let (start, before) = (Instant::now(), cpu_ticks());
    let first = run();
    let mut done = first;
    while start.elapsed().as_secs_f64() < load.seconds {
        let due = start.elapsed().as_secs_f64() * load.rate;
        while ((done - first) as f64) < due {
            done = run();
        }
        thread::sleep(TICK);
    }
    let after = cpu_ticks();
    let us = |ticks: u64| ticks * 1_000_000 / rustix::param::clock_ticks_per_second();
    println!("{} {} {}", done - first, us(after.0 - before.0), us(after.1 - before.1));
}

/// `utime` and `stime` of this process, as `proc_pid_stat(5)` has them.
fn cpu_ticks() -> (u64, u64) {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let rest = stat.rsplit_once(')').unwrap().1;
    let mut fields = rest.split_whitespace().skip(11).map(|field| field.parse::<u64>().unwrap());
    (fields.next().unwrap(), fields.next().unwrap())
}
