//! Two rings between two media threads, as one of them sees them.

use parlor_model::ShardId;
use parlor_ring::{Waker, ring};
use std::collections::VecDeque;

/// One thread's ends of the rings to and from another.
pub(crate) struct Link<T> {
    pub(crate) other: ShardId,
    to: ring::Sender<T>,
    from: ring::Receiver<T>,
    waker: Waker,
    /// What found no room and must not be lost.
    waiting: VecDeque<T>,
    /// The other sleeps and has something to look at.
    must_wake: bool,
}

/// Links each of several threads, which are woken by these, with each other. Those of one thread
/// are in the order of the others' numbers; see [`link_to`].
pub(crate) fn connect<T: Send>(wakers: &[Waker], capacity: usize) -> Vec<Vec<Link<T>>> {
    let mut threads: Vec<Vec<Link<T>>> = wakers.iter().map(|_| Vec::new()).collect();
    for first in 0..wakers.len() {
        for second in first + 1..wakers.len() {
            let ((to_second, from_first), (to_first, from_second)) =
                (ring::channel(capacity), ring::channel(capacity));
            let mut link = |of: usize, other: usize, to, from| {
                let (waker, other) = (wakers[other].clone(), ShardId(other as u32));
                let waiting = VecDeque::new();
                threads[of].push(Link { other, to, from, waker, waiting, must_wake: false });
            };
            link(first, second, to_second, from_second);
            link(second, first, to_first, from_first);
        }
    }
    threads
}

/// The link to another thread, among all of one.
#[inline]
pub(crate) fn link_to<T>(links: &mut [Link<T>], other: ShardId) -> Option<&mut Link<T>> {
    // A thread has no link to itself, so those to later ones are one place ahead.
    let place = other.0 as usize;
    let ahead = place.checked_sub(1);
    let place = match links.get(place) {
        Some(link) if link.other == other => Some(place),
        _ => ahead,
    };
    links.get_mut(place?).filter(|link| link.other == other)
}

impl<T> Link<T> {
    /// The oldest that the other has said.
    pub(crate) fn pop(&mut self) -> Option<T> {
        self.from.pop()
    }

    /// Whether the other has said something that has not been taken in.
    pub(crate) fn has_incoming(&self) -> bool {
        !self.from.is_empty()
    }

    /// Whether something waits for room.
    pub(crate) fn is_behind(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Hands over what waited for room, and wakes the other if it is to look.
    pub(crate) fn flush(&mut self) {
        if self.to.is_closed() {
            self.waiting.clear();
        }
        while !self.to.is_full()
            && let Some(value) = self.waiting.pop_front()
        {
            self.must_wake |= self.to.try_push(value).is_ok();
        }
        if std::mem::take(&mut self.must_wake) {
            self.waker.wake();
        }
    }

    /// Hands something over that waits for room if there is none. Whether it was lost: nobody is
    /// there to take it.
    pub(crate) fn push(&mut self, value: T) -> bool {
        let refused = match self.waiting.is_empty() {
            true => self.to.try_push(value).err(),
            false => Some(value),
        };
        let Some(value) = refused else {
            self.must_wake = true;
            return false;
        };
        let is_lost = self.to.is_closed();
        if !is_lost {
            self.waiting.push_back(value);
        }
        is_lost
    }

    /// Hands something over that is lost if there is no room, or if something waits for it. Whether
    /// it was.
    pub(crate) fn push_or_lose(&mut self, value: T) -> bool {
        let is_lost = self.is_behind() || self.to.try_push(value).is_err();
        self.must_wake |= !is_lost;
        is_lost
    }
}
