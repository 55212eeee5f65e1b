//! The ring and the wake-up with real threads.
#![cfg(not(loom))]
#![allow(clippy::unwrap_used)]

use parlor_ring::{ring, wakeup};
use std::{
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

/// Counts how many of its kind are alive.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(alive: &Arc<AtomicUsize>) -> Self {
        alive.fetch_add(1, Ordering::SeqCst);
        Self(alive.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn holds_exactly_its_capacity() {
    for capacity in [1, 2, 3, 5, 8] {
        let (mut sender, mut receiver) = ring::channel(capacity);
        for round in 0..20 {
            for value in 0..capacity {
                assert!(!sender.is_full());
                sender.try_push(round * 100 + value).unwrap();
            }
            assert!(sender.is_full());
            assert_eq!(sender.try_push(usize::MAX), Err(usize::MAX));
            assert_eq!((sender.len(), receiver.len()), (capacity, capacity));
            for value in 0..capacity {
                assert_eq!(receiver.pop(), Some(round * 100 + value));
            }
            assert_eq!(receiver.pop(), None);
            assert!(sender.is_empty() && receiver.is_empty());
        }
    }
}

#[test]
fn one_place_freed_is_one_place_filled() {
    let (mut sender, mut receiver) = ring::channel(3);
    for value in 0..3 {
        sender.try_push(value).unwrap();
    }
    for value in 3..1000 {
        assert_eq!(receiver.pop(), Some(value - 3));
        sender.try_push(value).unwrap();
        assert!(sender.try_push(value).is_err());
    }
}

#[test]
#[should_panic(expected = "at least one value")]
fn refuses_no_capacity() {
    ring::channel::<u8>(0);
}

#[test]
fn the_rest_of_a_closed_ring_can_be_read() {
    let (mut sender, mut receiver) = ring::channel(4);
    sender.try_push("last words").unwrap();
    assert!(!receiver.is_closed());
    drop(sender);
    assert!(receiver.is_closed());
    assert_eq!(receiver.pop(), Some("last words"));
    assert_eq!(receiver.pop(), None);

    let (sender, receiver) = ring::channel::<u8>(4);
    assert!(!sender.is_closed());
    drop(receiver);
    assert!(sender.is_closed());
}

#[test]
fn every_value_is_dropped_once() {
    let alive = Arc::new(AtomicUsize::new(0));
    let (mut sender, mut receiver) = ring::channel(4);
    for _ in 0..3 {
        assert!(sender.try_push(Counted::new(&alive)).is_ok());
    }
    drop(receiver.pop());
    assert_eq!(alive.load(Ordering::SeqCst), 2);
    drop(receiver);
    assert_eq!(alive.load(Ordering::SeqCst), 2);
    assert!(sender.try_push(Counted::new(&alive)).is_ok());
    drop(sender);
    assert_eq!(alive.load(Ordering::SeqCst), 0);
}

/// A million values through a small ring, both ends sleeping whenever they can go no further.
#[test]
fn nothing_is_lost_between_threads_that_sleep() {
    const VALUES: u64 = 1_000_000;
    let (mut sender, mut receiver) = ring::channel::<Box<u64>>(64);
    let (wake_receiver, mut receiver_wakeup) = wakeup().unwrap();
    let (wake_sender, mut sender_wakeup) = wakeup().unwrap();

    let producer = thread::spawn(move || {
        for value in 0..VALUES {
            let mut value = Box::new(value);
            while let Err(back) = sender.try_push(value) {
                value = back;
                sender_wakeup.park();
                if sender.is_full() {
                    sender_wakeup.block_until_woken();
                }
                sender_wakeup.unpark();
            }
            wake_receiver.wake();
        }
    });
    let mut expected = 0;
    while expected < VALUES {
        while let Some(value) = receiver.pop() {
            assert_eq!(*value, expected);
            expected += 1;
            wake_sender.wake();
        }
        receiver_wakeup.park();
        if receiver.is_empty() && expected < VALUES {
            receiver_wakeup.block_until_woken();
        }
        receiver_wakeup.unpark();
    }
    producer.join().unwrap();
    assert_eq!(receiver.pop(), None);
    assert!(receiver.is_closed());
}

fn readable(fd: &impl AsFd) -> bool {
    let copy = std::fs::File::from(fd.as_fd().try_clone_to_owned().unwrap());
    let taken = std::io::Read::read(&mut &copy, &mut [0; 8]).is_ok();
    if taken {
        std::io::Write::write_all(&mut &copy, &1u64.to_ne_bytes()).unwrap();
    }
    taken
}

#[test]
fn a_wake_up_costs_a_system_call_only_when_parked_and_only_once() {
    let (waker, mut wakeup) = wakeup().unwrap();
    waker.wake();
    assert!(!readable(&wakeup), "nobody slept");
    wakeup.park();
    waker.wake();
    waker.clone().wake();
    let mut count = [0; 8];
    let copy = std::fs::File::from(wakeup.as_fd().try_clone_to_owned().unwrap());
    std::io::Read::read_exact(&mut &copy, &mut count).unwrap();
    assert_eq!(u64::from_ne_bytes(count), 1, "the second waker saw that the first had written");
    wakeup.unpark();
    waker.wake();
    assert!(!readable(&wakeup));
    wakeup.park();
    waker.wake();
    assert!(readable(&wakeup));
    wakeup.clear();
    assert!(!readable(&wakeup));
}
