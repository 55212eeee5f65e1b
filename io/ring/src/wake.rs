//! Wakes a thread that sleeps in `poll`, at the price of a system call only if it sleeps.
//!
//! Nothing is lost, because each side writes first and reads second, with a full fence
//! between: the waker "value pushed, then: is it parked?", the sleeper "parked, then: is
//! there a value?". At least one of the two sees the other.

use crate::sync::{Arc, AtomicBool, Event, Ordering, fence};
use std::io;
#[cfg(not(loom))]
use std::os::fd::{AsFd, BorrowedFd};

struct Shared {
    parked: AtomicBool,
    event: Event,
}

/// Wakes the owner of the [`Wakeup`]. Cheap to clone; any thread may hold one.
#[derive(Clone)]
pub struct Waker(Arc<Shared>);

/// The sleeper's end.
pub struct Wakeup(Arc<Shared>);

/// A pair that belongs together.
///
/// # Errors
/// If the process has no descriptor left (`eventfd(2)`).
pub fn wakeup() -> io::Result<(Waker, Wakeup)> {
    let shared = Arc::new(Shared { parked: AtomicBool::new(false), event: Event::new()? });
    Ok((Waker(shared.clone()), Wakeup(shared)))
}

impl Waker {
    /// Makes the sleeper look at its queues. To be called after the push.
    pub fn wake(&self) {
        if self.take_parked() {
            self.0.event.signal();
        }
    }

    /// Whether a system call is due. Clears the flag, so that the next waker saves its own:
    /// ours follows at once.
    fn take_parked(&self) -> bool {
        fence(Ordering::SeqCst);
        if !self.0.parked.load(Ordering::Relaxed) {
            return false;
        }
        self.0.parked.store(false, Ordering::Relaxed);
        true
    }
}

impl Wakeup {
    /// From now on wakers write to the descriptor. The caller must look at its queues once
    /// more before it sleeps.
    pub fn park(&mut self) {
        self.0.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// Ends the sleep: wakers cost nothing again.
    ///
    /// A wake-up that is still on its way may end the next sleep early; that is harmless.
    pub fn unpark(&mut self) {
        self.0.parked.store(false, Ordering::Relaxed);
    }

    /// Takes back pending wake-ups. To be called when `poll` says that the descriptor is
    /// readable.
    pub fn clear(&mut self) {
        self.0.event.clear();
    }

    /// Sleeps until a waker wakes; for a thread that waits for nothing else.
    pub fn block_until_woken(&mut self) {
        self.0.event.wait();
        self.clear();
    }
}

#[cfg(not(loom))]
impl AsFd for Wakeup {
    /// Readable when woken while parked.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.event.as_fd()
    }
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Waker")
    }
}

impl std::fmt::Debug for Wakeup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Wakeup")
    }
}
