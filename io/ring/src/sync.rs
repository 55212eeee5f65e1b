//! The primitives, from `std` or, under `--cfg loom`, from the model checker.
#![cfg_attr(loom, allow(clippy::unwrap_used))]

#[cfg(loom)]
pub(crate) use loom::{
    cell::UnsafeCell,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering, fence},
    },
};

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering, fence},
};

/// `std`'s cell with the face of loom's, which checks that accesses do not overlap.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

#[cfg(not(loom))]
impl<T> UnsafeCell<T> {
    pub(crate) fn new(value: T) -> Self {
        Self(std::cell::UnsafeCell::new(value))
    }

    pub(crate) fn with_mut<R>(&self, access: impl FnOnce(*mut T) -> R) -> R {
        access(self.0.get())
    }
}

/// A descriptor that is readable while a signal is pending (`eventfd(2)`).
#[cfg(not(loom))]
pub(crate) struct Event(std::fs::File);

#[cfg(not(loom))]
impl Event {
    pub(crate) fn new() -> std::io::Result<Self> {
        use std::os::fd::{FromRawFd, OwnedFd};
        // SAFETY: `eventfd` takes two integers and touches no memory of ours.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(std::io::Error::last_os_error());
        }
        // SAFETY: the kernel has just opened this descriptor for us; nobody else knows it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(descriptor) }.into()))
    }

    pub(crate) fn signal(&self) {
        // Fails only when 2^64 - 2 signals are pending, and then it is readable anyway.
        let _ = std::io::Write::write(&mut &self.0, &1u64.to_ne_bytes());
    }

    pub(crate) fn clear(&self) {
        // Would block if nothing is pending, which is as good.
        let _ = std::io::Read::read(&mut &self.0, &mut [0; 8]);
    }

    /// Returns when a signal is pending, or now and then without one.
    pub(crate) fn wait(&self) {
        use std::os::fd::AsRawFd;
        let mut event = libc::pollfd { fd: self.0.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: `event` is one valid `pollfd`, as the count says, and lives until the call
        // returns.
        unsafe { libc::poll(&mut event, 1, -1) };
    }
}

#[cfg(not(loom))]
impl std::os::fd::AsFd for Event {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// What the kernel promises of an eventfd, for the model checker.
#[cfg(loom)]
pub(crate) struct Event(loom::sync::Mutex<bool>, loom::sync::Condvar);

#[cfg(loom)]
impl Event {
    pub(crate) fn new() -> std::io::Result<Self> {
        Ok(Self(loom::sync::Mutex::new(false), loom::sync::Condvar::new()))
    }

    pub(crate) fn signal(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_one();
    }

    pub(crate) fn clear(&self) {
        *self.0.lock().unwrap() = false;
    }

    pub(crate) fn wait(&self) {
        let mut pending = self.0.lock().unwrap();
        while !*pending {
            pending = self.1.wait(pending).unwrap();
        }
    }
}
