//! Frames over real TCP connections on loopback.
#![allow(clippy::unwrap_used)]

use parlor_net::{
    Gone, MAX_FRAME_BYTES, MAX_QUEUED_BYTES, Poll, TcpBuffer, TcpConnection, TcpListener,
};
use std::{
    io::{Read, Write},
    net::TcpStream,
    os::fd::AsFd,
    time::Duration,
};

/// A client's plain stream and our connection.
fn pair() -> (TcpStream, TcpConnection) {
    let mut listener = TcpListener::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    assert!(listener.accept().unwrap().is_none());
    let client = TcpStream::connect(listener.local_address()).unwrap();
    client.set_nodelay(true).unwrap();
    Poll::new().wait([listener.as_fd()], None).unwrap();
    let connection = listener.accept().unwrap().unwrap();
    assert_eq!(connection.remote_address(), client.local_addr().unwrap());
    assert_eq!(connection.local_address(), listener.local_address());
    (client, connection)
}

fn framed(frames: &[&[u8]]) -> Vec<u8> {
    frames.iter().flat_map(|f| [&(f.len() as u16).to_be_bytes()[..], f].concat()).collect()
}

/// Reads until there is something or the end.
fn receive(connection: &mut TcpConnection, frames: &mut Vec<Vec<u8>>) -> Result<usize, Gone> {
    let timeout = Some(Duration::from_secs(20));
    Poll::new().wait([connection.as_fd()], timeout).unwrap();
    connection.recv(&mut TcpBuffer::new(), |frame| frames.push(frame.to_vec()))
}

#[test]
fn a_stream_that_is_split_anywhere_is_the_same_frames() {
    let sent = [&b"first"[..], b"", b"x", &[7; 300]];
    let stream = framed(&sent);
    for at in 1..stream.len() {
        let (mut client, mut connection) = pair();
        let mut frames = Vec::new();
        client.write_all(&stream[..at]).unwrap();
        receive(&mut connection, &mut frames).unwrap();
        client.write_all(&stream[at..]).unwrap();
        while frames.len() < 3 {
            receive(&mut connection, &mut frames).unwrap();
        }
        assert_eq!(frames, [&b"first"[..], b"x", &[7; 300]], "split at {at}");
    }
}

#[test]
fn the_first_frame_is_looked_at_and_not_lost() {
    let (mut client, mut connection) = pair();
    let stream = framed(&[b"check", b"next"]);
    client.write_all(&stream[..4]).unwrap();
    let wait = |connection: &TcpConnection| {
        Poll::new().wait([connection.as_fd()], Some(Duration::from_secs(20))).unwrap();
    };
    wait(&connection);
    assert_eq!(connection.first_frame(), Ok(None));
    client.write_all(&stream[4..]).unwrap();
    wait(&connection);
    assert_eq!(connection.first_frame(), Ok(Some(&b"check"[..])));
    let mut frames = Vec::new();
    // Nothing more comes from the network, and still both are there.
    let read = connection.recv(&mut TcpBuffer::new(), |frame| frames.push(frame.to_vec()));
    assert_eq!((read, frames), (Ok(0), vec![b"check".to_vec(), b"next".to_vec()]));
}

#[test]
fn garbage_and_the_end_are_told_apart() {
    let (mut client, mut connection) = pair();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let mut frames = Vec::new();
    assert_eq!(receive(&mut connection, &mut frames), Err(Gone::Malformed));

    let (mut client, mut connection) = pair();
    client.write_all(&framed(&[b"last", b"cut"])[..8]).unwrap();
    drop(client);
    assert_eq!(receive(&mut connection, &mut frames), Ok(8));
    assert_eq!(receive(&mut connection, &mut frames), Err(Gone::Closed));
    assert_eq!(frames, [b"last"]);

    for first in [&[0, 0][..], &[0xff, 0xff], &1501_u16.to_be_bytes()] {
        let (mut client, mut connection) = pair();
        client.write_all(first).unwrap();
        Poll::new().wait([connection.as_fd()], None).unwrap();
        assert_eq!(connection.first_frame(), Err(Gone::Malformed));
    }
}

#[test]
fn many_datagrams_leave_together_and_arrive_whole() {
    let (mut client, mut connection) = pair();
    let datagrams: Vec<Vec<u8>> = (0..70_u8).map(|n| vec![n; usize::from(n) * 10 + 1]).collect();
    let borrowed: Vec<&[u8]> = datagrams.iter().map(Vec::as_slice).collect();
    // 26 kB: less than may be unsent.
    assert_eq!(connection.send(&borrowed), Ok(false));
    let expected = framed(&borrowed);
    let mut received = vec![0; expected.len()];
    client.read_exact(&mut received).unwrap();
    assert!(received == expected);
    let counters = connection.take_counters();
    assert_eq!((counters.sent_datagrams, counters.send_calls), (70, 3));
    assert_eq!(counters.sent_bytes, expected.len() as u64);
}

#[test]
fn a_slow_reader_costs_a_bounded_queue_and_loses_whole_datagrams() {
    let (mut client, mut connection) = pair();
    let mut next = 0_u32;
    let mut send = |connection: &mut TcpConnection, count: u32| {
        for _ in 0..count {
            let datagram = [&next.to_be_bytes()[..], &[9; 1196]].concat();
            connection.send(&[&datagram]).unwrap();
            next += 1;
        }
    };
    // Nobody reads: what the kernel holds is bounded, and so is what we do.
    send(&mut connection, 40_000);
    assert!(connection.queued_bytes() <= MAX_QUEUED_BYTES);
    assert!(connection.queued_bytes() > MAX_QUEUED_BYTES - 2 * 1202);
    let counters = connection.take_counters();
    assert!(counters.send_queue_full > 20_000, "{counters:?}");
    assert_eq!(counters.send_queue_full + counters.sent_datagrams, 40_000);
    // The reader comes back: frames are whole and in order, and there is room again.
    let mut poll = Poll::new();
    let (mut stream, mut chunk) = (Vec::new(), vec![0; 1 << 16]);
    client.set_nonblocking(true).unwrap();
    let expected = counters.sent_bytes as usize;
    while stream.len() < expected {
        connection.flush().unwrap();
        match client.read(&mut chunk) {
            Ok(count) => stream.extend_from_slice(&chunk[..count]),
            Err(_) => poll.wait([client.as_fd()], Some(Duration::from_millis(50))).unwrap(),
        }
    }
    assert_eq!(connection.queued_bytes(), 0);
    let numbers: Vec<u32> = stream
        .chunks_exact(1202)
        .map(|frame| {
            assert_eq!(frame[..2], 1200_u16.to_be_bytes());
            u32::from_be_bytes(frame[2..6].try_into().unwrap())
        })
        .collect();
    assert_eq!(numbers.len() as u64, counters.sent_datagrams);
    assert!(numbers.is_sorted());
    send(&mut connection, 1);
    assert_eq!(connection.take_counters().send_queue_full, 0);
}

#[test]
fn a_peer_that_is_gone_ends_sending() {
    let (client, mut connection) = pair();
    drop(client);
    let datagram = [0; 1000];
    let gone = (0..1000).find_map(|_| {
        std::thread::yield_now();
        connection.send(&[&datagram]).err()
    });
    assert_eq!(gone, Some(Gone::Closed));
}

#[test]
fn the_longest_frame_passes() {
    let (mut client, mut connection) = pair();
    let longest = vec![3; MAX_FRAME_BYTES];
    let writer = std::thread::spawn(move || {
        for _ in 0..20 {
            client.write_all(&framed(&[&longest])).unwrap();
        }
        client
    });
    let mut frames = Vec::new();
    while frames.len() < 20 {
        receive(&mut connection, &mut frames).unwrap();
    }
    assert!(frames.iter().all(|frame| frame.len() == MAX_FRAME_BYTES));
    writer.join().unwrap();
}
