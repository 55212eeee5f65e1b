//! Every interleaving of two threads: `RUSTFLAGS="--cfg loom" cargo test --release -p parlor-ring --test loom`.
#![cfg(loom)]
#![allow(clippy::unwrap_used)]

use loom::thread;
use parlor_ring::{ring, wakeup};
use std::sync::Arc;

#[test]
fn values_arrive_in_order_through_a_ring_that_fills() {
    loom::model(|| {
        let (mut sender, mut receiver) = ring::channel(2);
        let producer = thread::spawn(move || {
            for value in 0..3 {
                let mut value = Box::new(value);
                while let Err(back) = sender.try_push(value) {
                    value = back;
                    thread::yield_now();
                }
            }
        });
        for expected in 0..3 {
            let value = loop {
                if let Some(value) = receiver.pop() {
                    break value;
                }
                thread::yield_now();
            };
            assert_eq!(*value, expected);
        }
        assert!(receiver.pop().is_none());
        producer.join().unwrap();
    });
}

#[test]
fn what_was_pushed_before_closing_is_seen_after_closing() {
    loom::model(|| {
        let (mut sender, mut receiver) = ring::channel(2);
        let producer = thread::spawn(move || {
            sender.try_push(1).unwrap();
            sender.try_push(2).unwrap();
        });
        while !receiver.is_closed() {
            thread::yield_now();
        }
        assert_eq!((receiver.pop(), receiver.pop(), receiver.pop()), (Some(1), Some(2), None));
        producer.join().unwrap();
    });
}

#[test]
fn values_left_behind_are_dropped_once_whoever_goes_last() {
    loom::model(|| {
        let probe = Arc::new(());
        let (mut sender, mut receiver) = ring::channel(2);
        let value = probe.clone();
        let producer = thread::spawn(move || {
            let _ = sender.try_push(value.clone());
            let _ = sender.try_push(value);
        });
        drop(receiver.pop());
        drop(receiver);
        producer.join().unwrap();
        assert_eq!(Arc::strong_count(&probe), 1);
    });
}

/// If a wake-up could be lost, the sleeper would sleep for ever, which loom reports as a
/// deadlock.
#[test]
fn a_sleeper_never_misses_a_push() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(4);
    model.check(|| {
        let (mut sender, mut receiver) = ring::channel(2);
        let (waker, mut wakeup) = wakeup().unwrap();
        let producer = thread::spawn(move || {
            for value in 0..2 {
                sender.try_push(value).unwrap();
                waker.wake();
            }
        });
        let mut received = 0;
        while received < 2 {
            while receiver.pop().is_some() {
                received += 1;
            }
            wakeup.park();
            if receiver.is_empty() && received < 2 {
                wakeup.block_until_woken();
            }
            wakeup.unpark();
        }
        producer.join().unwrap();
    });
}

/// Two wakers share the flag; one may clear it on behalf of the other.
#[test]
fn a_sleeper_never_misses_one_of_two_producers() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let (waker, mut wakeup) = wakeup().unwrap();
        let (mut first, mut from_first) = ring::channel(1);
        let (mut second, mut from_second) = ring::channel(1);
        let other_waker = waker.clone();
        let producers = [
            thread::spawn(move || {
                first.try_push(()).unwrap();
                waker.wake();
            }),
            thread::spawn(move || {
                second.try_push(()).unwrap();
                other_waker.wake();
            }),
        ];
        let mut received = 0;
        while received < 2 {
            received += usize::from(from_first.pop().is_some());
            received += usize::from(from_second.pop().is_some());
            wakeup.park();
            if from_first.is_empty() && from_second.is_empty() && received < 2 {
                wakeup.block_until_woken();
            }
            wakeup.unpark();
        }
        for producer in producers {
            producer.join().unwrap();
        }
    });
}
