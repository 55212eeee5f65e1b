//! Values from one thread to another, and the nudge that makes the other look.
//!
//! Two things, which belong together but know nothing of each other:
//!
//! * [`ring::channel`]: a bounded queue between exactly one producer and one consumer.
//!   Pushing and popping take no lock and no read-modify-write instruction; a full ring
//!   gives the value back, so that the producer decides what becomes of it.
//! * [`wakeup`]: a consumer that sleeps in `poll` on its sockets sleeps on the descriptor
//!   of its [`Wakeup`] too. A [`Waker`] costs a system call only if the consumer sleeps.
//!
//! What it never does: block, allocate after creation, or know what travels in it.
//! This is one of the two crates that may hold `unsafe`; every block states why it is
//! sound, and the tests under `--cfg loom` try every interleaving of the two threads.
//!
//! The order is always the same: **push, then wake**; **park, then look once more, then
//! sleep**.
//!
//! ```
//! use parlor_ring::{ring, wakeup};
//!
//! let (mut numbers, mut inbox) = ring::channel::<u32>(16);
//! let (waker, mut wakeup) = wakeup().unwrap();
//!
//! let producer = std::thread::spawn(move || {
//!     for number in 1..=100 {
//!         while numbers.try_push(number).is_err() {
//!             std::thread::yield_now();
//!         }
//!         waker.wake();
//!     }
//! });
//!
//! let mut sum = 0;
//! while sum < 5050 {
//!     while let Some(number) = inbox.pop() {
//!         sum += number;
//!     }
//!     wakeup.park();
//!     if inbox.is_empty() && sum < 5050 {
//!         wakeup.block_until_woken(); // a real consumer polls its sockets here too
//!     }
//!     wakeup.unpark();
//! }
//! producer.join().unwrap();
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod ring;
mod sync;
mod wake;

pub use wake::{Waker, Wakeup, wakeup};
