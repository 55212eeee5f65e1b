//! Sleeps until a descriptor is ready or time is up.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
    ptr,
    time::Duration,
};

/// A reusable list for `ppoll(2)`. For the two or three descriptors of a media thread this is
/// as cheap as epoll, and there is nothing to register.
#[derive(Debug, Default)]
pub struct Poll {
    entries: Vec<libc::pollfd>,
}

impl Poll {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sleeps until one of `sources` can be read, or until `timeout` is over (`None`: never), to
    /// the microsecond. May return early. Allocates only when there are more sources than ever
    /// before.
    ///
    /// # Errors
    /// As `ppoll(2)`, except `EINTR`, which is an early return.
    pub fn wait<'fd>(
        &mut self,
        sources: impl IntoIterator<Item = BorrowedFd<'fd>>,
        timeout: Option<Duration>,
    ) -> io::Result<()> {
        self.entries.clear();
        self.entries.extend(sources.into_iter().map(|source| libc::pollfd {
            fd: source.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }));
        poll(&mut self.entries, timeout)
    }

    /// Whether the source at this place of the last [`Poll::wait`] can be read (or has an error
    /// to be read).
    pub fn is_ready(&self, index: usize) -> bool {
        self.entries.get(index).is_some_and(|entry| entry.revents != 0)
    }
}

pub(crate) fn poll(entries: &mut [libc::pollfd], timeout: Option<Duration>) -> io::Result<()> {
    let timeout = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().min(86_400) as libc::time_t,
        tv_nsec: timeout.subsec_nanos() as _,
    });
    // SAFETY: `entries` is a valid array of the length given, which the kernel writes `revents`
    // of; `timeout` is null or a valid `timespec` that outlives the call; no signal mask.
    let ready = unsafe {
        libc::ppoll(
            entries.as_mut_ptr(),
            entries.len() as libc::nfds_t,
            timeout.as_ref().map_or(ptr::null(), ptr::from_ref),
            ptr::null(),
        )
    };
    if ready < 0 {
        let error = io::Error::last_os_error();
        entries.iter_mut().for_each(|entry| entry.revents = 0);
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Write,
        os::{fd::AsFd, unix::net::UnixStream},
        time::Instant,
    };

    #[test]
    fn wakes_for_the_source_that_is_ready() {
        let (mut write, read) = UnixStream::pair().unwrap();
        let (_silent, other) = UnixStream::pair().unwrap();
        let mut poll = Poll::new();
        let sources = [other.as_fd(), read.as_fd()];
        poll.wait(sources, Some(Duration::ZERO)).unwrap();
        assert!(!poll.is_ready(0) && !poll.is_ready(1) && !poll.is_ready(2));
        write.write_all(b"!").unwrap();
        poll.wait(sources, None).unwrap();
        assert!(!poll.is_ready(0) && poll.is_ready(1));
    }

    #[test]
    fn returns_when_time_is_up() {
        let (_write, read) = UnixStream::pair().unwrap();
        let start = Instant::now();
        Poll::new().wait([read.as_fd()], Some(Duration::from_micros(1500))).unwrap();
        assert!(start.elapsed() >= Duration::from_micros(1500));
    }
}
