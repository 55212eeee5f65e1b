//! Which of many connections have something to do.

use crate::socket::check;
use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

/// Connections that are told of at once; the others are the next time.
const EVENTS: usize = 64;

/// A set of connections (`epoll(7)`) that is itself a descriptor: what sleeps on it sleeps on all
/// of them at the price of one.
#[derive(Debug)]
pub struct Readiness {
    descriptor: OwnedFd,
    events: Vec<libc::epoll_event>,
}

/// A connection that can be read, or written again.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    /// As given to [`Readiness::add`].
    pub token: u64,
    /// There is something to read, or the end.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
}

impl Readiness {
    /// An empty set.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn new() -> io::Result<Self> {
        // SAFETY: `epoll_create1` takes an integer only.
        let descriptor = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // SAFETY: the kernel has just opened this descriptor for us; nobody else knows it.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        Ok(Self { descriptor, events: Vec::with_capacity(EVENTS) })
    }

    /// Watches for something to read. What is closed leaves the set by itself.
    ///
    /// # Errors
    /// As `epoll_ctl(2)`: when there is no memory, or too much is watched.
    pub fn add(&self, source: impl AsFd, token: u64) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_ADD, source.as_fd(), token, false)
    }

    /// Watches for room to write too, or no longer.
    ///
    /// # Errors
    /// As [`Readiness::add`].
    pub fn watch_room(&self, source: impl AsFd, token: u64, watch: bool) -> io::Result<()> {
        self.control(libc::EPOLL_CTL_MOD, source.as_fd(), token, watch)
    }

    fn control(&self, what: i32, source: BorrowedFd<'_>, token: u64, room: bool) -> io::Result<()> {
        let events = if room { libc::EPOLLIN | libc::EPOLLOUT } else { libc::EPOLLIN };
        let mut event = libc::epoll_event { events: events as u32, u64: token };
        let event = ptr::from_mut(&mut event);
        // SAFETY: `event` points to a valid event on our stack that outlives the call.
        check(unsafe {
            libc::epoll_ctl(self.descriptor.as_raw_fd(), what, source.as_raw_fd(), event)
        })?;
        Ok(())
    }

    /// Looks, without waiting.
    ///
    /// # Errors
    /// As `epoll_wait(2)`, except for an interruption.
    pub fn look(&mut self) -> io::Result<()> {
        self.events.clear();
        let place = self.events.as_mut_ptr();
        // SAFETY: there is room for `EVENTS` events at `place`, since `new`.
        let count = check(unsafe {
            libc::epoll_wait(self.descriptor.as_raw_fd(), place, EVENTS as i32, 0)
        });
        match count {
            // SAFETY: the kernel has written that many, at most `EVENTS`.
            Ok(count) => unsafe { self.events.set_len(count.max(0) as usize) },
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// What the last look has found, by place; `None` after the last.
    pub fn ready(&self, place: usize) -> Option<Ready> {
        let event = self.events.get(place)?;
        let events = event.events as i32;
        Some(Ready {
            token: event.u64,
            readable: events & !libc::EPOLLOUT != 0,
            writable: events & libc::EPOLLOUT != 0,
        })
    }
}

impl AsFd for Readiness {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Poll;
    use std::{io::Write, os::unix::net::UnixStream, time::Duration};

    #[test]
    fn the_set_can_be_slept_on_and_tells_who_is_ready() {
        let (mut write, read) = UnixStream::pair().unwrap();
        let (_silent, other) = UnixStream::pair().unwrap();
        let mut set = Readiness::new().unwrap();
        set.add(&other, 1).unwrap();
        set.add(&read, 2).unwrap();
        let mut poll = Poll::new();
        poll.wait([set.as_fd()], Some(Duration::ZERO)).unwrap();
        assert!(!poll.is_ready(0));
        write.write_all(b"!").unwrap();
        poll.wait([set.as_fd()], None).unwrap();
        assert!(poll.is_ready(0));
        set.look().unwrap();
        let ready = Ready { token: 2, readable: true, writable: false };
        assert_eq!((set.ready(0), set.ready(1)), (Some(ready), None));
        set.watch_room(&other, 1, true).unwrap();
        drop(read);
        set.look().unwrap();
        let ready = Ready { token: 1, readable: false, writable: true };
        assert_eq!((set.ready(0), set.ready(1)), (Some(ready), None));
    }
}
