//! RTCP beside the media of a port. A hundred subscribers give feedback a thousand times a second,
//! and to be woken for it costs more than to take it in. So where reports come often they wait for
//! each other, or for media that wakes us anyway; a single one is read at once.

use parlor_net::UdpSocket;
use std::{
    ops::Range,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

/// How long reports wait where they come often, and where so many were found at once.
const WAIT: Duration = Duration::from_millis(5);
const WAIT_OF_MANY: Duration = Duration::from_millis(10);
const MANY: usize = 4;

/// They come often where several are found, or one so soon after the last.
const OFTEN: Duration = Duration::from_millis(4);

/// Who is awake anyway reads what has had time to gather.
const EARLY: Duration = Duration::from_millis(2);

/// The sockets that reports come to.
#[derive(Debug, Default)]
pub(crate) struct Reports {
    /// Each with the place of the socket that has the media of its port.
    pub sockets: Vec<(usize, UdpSocket)>,
    found: Option<Instant>,
    /// They come often: what comes waits for the end of this, or for who is awake in it.
    wait: Option<Range<Instant>>,
}

impl Reports {
    /// What to wake for.
    pub(crate) fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(|(_, socket)| socket.as_fd()).filter(|_| self.wait.is_none())
    }

    /// Whether they are to be read, whatever woke us.
    pub(crate) fn are_due(&self, now: Instant) -> bool {
        self.wait.as_ref().is_some_and(|wait| wait.start <= now)
    }

    /// When they are to be read at the latest.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.wait.as_ref().map(|wait| wait.end)
    }

    /// So many have been read just now; some may be left.
    pub(crate) fn note_read(&mut self, now: Instant, count: usize, are_left: bool) {
        let is_soon = self.found.is_some_and(|found| now <= found + OFTEN);
        let often = count > 1 || count == 1 && is_soon;
        let wait = if count < MANY { WAIT } else { WAIT_OF_MANY };
        self.wait = if are_left { Some(now..now) } else { often.then(|| now + EARLY..now + wait) };
        if count > 0 {
            self.found = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_report_is_read_at_once_and_many_together() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut reports = Reports::default();
        reports.note_read(start, 1, false);
        reports.note_read(at(100), 1, false);
        reports.note_read(at(110), 1, false);
        assert_eq!((reports.poll_timeout(), reports.are_due(at(111))), (None, false));
        reports.note_read(at(114), 1, false);
        assert_eq!(reports.poll_timeout(), Some(at(119)));
        assert!(!reports.are_due(at(115)));
        assert!(reports.are_due(at(117)), "who is awake reads them");
        reports.note_read(at(119), 2, false);
        assert_eq!(reports.poll_timeout(), Some(at(124)));
        reports.note_read(at(124), 5, false);
        assert_eq!(reports.poll_timeout(), Some(at(134)), "many");
        reports.note_read(at(134), 16, true);
        assert_eq!(reports.poll_timeout(), Some(at(134)), "some are left");
        reports.note_read(at(134), 0, false);
        assert_eq!(reports.poll_timeout(), None, "they wake us again");
    }
}
