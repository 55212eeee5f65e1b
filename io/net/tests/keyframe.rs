//! A keyframe to a thousand subscribers leaves whole, or it is known what did not.
#![allow(clippy::unwrap_used, missing_docs)]

use std::{net, time::Duration};

use parlor_net::{Run, UdpSocket};

const SUBSCRIBERS: usize = 1000;
/// Four subscribers behind one socket: a test may open so many.
const SOCKETS: usize = 250;
const PACKETS: usize = 30;
const PACKET_BYTES: usize = 1175;
/// As a shard makes them, and as many datagrams as a worker hands over at once.
const RUN: usize = 8;
const BATCH: usize = 256;
/// As a worker's.
const PATIENCE: Duration = Duration::from_millis(10);

fn drain(socket: &net::UdpSocket) -> usize {
    let mut buffer = [0; 2000];
    let mut received = 0;
    while let Ok(len) = socket.recv(&mut buffer) {
        assert_eq!(len, PACKET_BYTES);
        received += 1;
    }
    received
}

#[test]
fn a_keyframe_to_a_thousand_subscribers_leaves_whole() {
    let mut from = UdpSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let subscribers: Vec<_> = (0..SOCKETS)
        .map(|_| {
            let socket = net::UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_nonblocking(true).unwrap();
            socket
        })
        .collect();
    let addresses: Vec<_> = subscribers.iter().map(|to| to.local_addr().unwrap()).collect();
    let bytes = vec![7; PACKETS * PACKET_BYTES];
    let runs: Vec<_> = (0..SUBSCRIBERS)
        .flat_map(|subscriber| {
            let to = subscriber % SOCKETS;
            let pieces = bytes.chunks(RUN * PACKET_BYTES);
            let run = |bytes| Run {
                local: None,
                remote: addresses[to],
                bytes,
                segment_bytes: PACKET_BYTES,
            };
            pieces.map(run).map(move |run| (to, run)).collect::<Vec<_>>()
        })
        .collect();
    let (mut sent, mut received) = (0, 0);
    for batch in runs.chunks(BATCH / RUN) {
        let result = from.send(batch.iter().map(|(_, run)| *run), PATIENCE);
        assert_eq!(result.dropped, 0);
        sent += result.datagrams;
        // Whoever reads does so at his own pace, here before the next batch.
        let mut readers: Vec<_> = batch.iter().map(|(to, _)| *to).collect();
        readers.dedup();
        received += readers.into_iter().map(|to| drain(&subscribers[to])).sum::<usize>();
    }
    assert_eq!((sent, received), (SUBSCRIBERS * PACKETS, SUBSCRIBERS * PACKETS));
    let counters = from.counters();
    assert_eq!(counters.sent_datagrams, sent as u64);
    let lost = counters.entries().into_iter().filter(|(name, count)| {
        let is_cause = name.starts_with("send_") && *name != "send_calls";
        is_cause && *count > 0
    });
    assert_eq!(lost.collect::<Vec<_>>(), []);
}
