//! A bounded queue between one producer and one consumer.
//!
//! Both ends count what they have ever moved: `tail` pushes, `head` pops. Each counter is
//! written by one end only, so a plain store publishes it, and each end keeps a copy of the
//! other's that it renews only when the ring seems full or empty. The counters wrap.

use crate::sync::{Arc, AtomicBool, AtomicUsize, Ordering, UnsafeCell};
use std::mem::MaybeUninit;

/// On its own cache lines, so that the two ends do not slow each other down. Two lines of
/// 64 bytes, because processors fetch them in pairs.
#[repr(align(128))]
struct OwnLine<T>(T);

struct Shared<T> {
    /// A power of two of them; the value pushed as number `n` lies in slot `n & mask`.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
    capacity: usize,
    /// Number of values popped; written by the receiver.
    head: OwnLine<AtomicUsize>,
    /// Number of values pushed; written by the sender.
    tail: OwnLine<AtomicUsize>,
    sender_gone: AtomicBool,
    receiver_gone: AtomicBool,
}

// SAFETY: the only field that is not `Sync` by itself is `slots`. A slot is touched by the
// sender only while its number is in `tail..head + capacity` and by the receiver only while
// it is in `head..tail`; these ranges do not overlap, and passing from one to the other goes
// through a release store and an acquire load of the counter. There is one of each end, and
// both need `&mut self`. Values thereby move between threads, hence `T: Send`.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; a `Shared` owns the values in it, and those are `Send`.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    fn slot(&self, number: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[number & (self.slots.len() - 1)]
    }

    fn len(&self) -> usize {
        let head = self.head.0.load(Ordering::Acquire);
        let tail = self.tail.0.load(Ordering::Acquire);
        // The two loads are not one moment: seen from a third place the difference could pass
        // the capacity. Each end owns one of the counters, so for it the length is exact on
        // its own side and at most out of date on the other.
        tail.wrapping_sub(head).min(self.capacity)
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let tail = self.tail.0.load(Ordering::Acquire);
        let mut head = self.head.0.load(Ordering::Acquire);
        while head != tail {
            // SAFETY: slots `head..tail` hold values that were pushed and not popped; both ends
            // are gone (we have `&mut self`), and each is visited once.
            self.slot(head).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            head = head.wrapping_add(1);
        }
    }
}

/// The producing end.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// `head` when last looked at; the real one is the same or later.
    head_seen: usize,
}

/// The consuming end.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// `tail` when last looked at; the real one is the same or later.
    tail_seen: usize,
}

/// A ring that holds at most `capacity` values, and its two ends.
///
/// # Panics
/// If `capacity` is 0 or more than half of the address space.
pub fn channel<T: Send>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0 && capacity <= usize::MAX / 2, "a ring holds at least one value");
    let slots =
        (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared {
        slots,
        capacity,
        head: OwnLine(AtomicUsize::new(0)),
        tail: OwnLine(AtomicUsize::new(0)),
        sender_gone: AtomicBool::new(false),
        receiver_gone: AtomicBool::new(false),
    });
    let sender = Sender { shared: shared.clone(), tail: 0, head_seen: 0 };
    (sender, Receiver { shared, head: 0, tail_seen: 0 })
}

impl<T> Sender<T> {
    /// Adds a value at the end.
    ///
    /// # Errors
    /// Gives the value back if the ring is full. A receiver that is gone leaves the ring as
    /// it is; see [`Sender::is_closed`].
    pub fn try_push(&mut self, value: T) -> Result<(), T> {
        if self.is_full() {
            return Err(value);
        }
        self.shared.slot(self.tail).with_mut(|slot| {
            // SAFETY: `tail - head < capacity <= slots`, so the slot is outside `head..tail`: the
            // receiver does not touch it, and it holds no value that would be lost. If it held
            // one before, `is_full` has seen its pop by an acquire load.
            unsafe { (*slot).write(value) };
        });
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// Whether the next [`Sender::try_push`] would fail. False stays true until we push.
    pub fn is_full(&mut self) -> bool {
        if self.tail.wrapping_sub(self.head_seen) < self.shared.capacity {
            return false;
        }
        self.head_seen = self.shared.head.0.load(Ordering::Acquire);
        self.tail.wrapping_sub(self.head_seen) >= self.shared.capacity
    }

    /// How many values wait; the receiver may have taken some meanwhile.
    pub fn len(&self) -> usize {
        self.shared.len()
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many values the ring holds at most.
    pub fn capacity(&self) -> usize {
        self.shared.capacity
    }

    /// Whether the receiver is gone, so that nothing pushed will ever be popped.
    pub fn is_closed(&self) -> bool {
        self.shared.receiver_gone.load(Ordering::Acquire)
    }
}

impl<T> Receiver<T> {
    /// Takes the oldest value.
    pub fn pop(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        let value = self.shared.slot(self.head).with_mut(|slot| {
            // SAFETY: `head != tail`, so the slot was written, which the acquire load of `tail`
            // made visible, and the sender leaves it alone until `head` has passed it. It is
            // read once: `head` passes it below.
            unsafe { (*slot).assume_init_read() }
        });
        self.head = self.head.wrapping_add(1);
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(value)
    }

    /// How many values wait; the sender may have added some meanwhile.
    pub fn len(&self) -> usize {
        self.shared.len()
    }

    /// Whether no value waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the sender is gone. Values that it pushed may still wait: after true,
    /// [`Receiver::pop`] until `None` yields the rest, and nothing comes any more.
    pub fn is_closed(&self) -> bool {
        self.shared.sender_gone.load(Ordering::Acquire)
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.sender_gone.store(true, Ordering::Release);
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.shared.receiver_gone.store(true, Ordering::Release);
    }
}

impl<T> std::fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sender").field("len", &self.len()).finish_non_exhaustive()
    }
}

impl<T> std::fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("len", &self.len()).finish_non_exhaustive()
    }
}
