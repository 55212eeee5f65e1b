//! Which peers are due, without asking each of them.

use std::time::Instant;

const NOWHERE: usize = usize::MAX;

/// One deadline for each of a dense set of indices, the earliest first: a binary heap that knows
/// where each index stands.
#[derive(Default)]
pub struct Timers {
    heap: Vec<(Instant, usize)>,
    position: Vec<usize>,
}

impl Timers {
    /// Sets or moves the deadline of `index`, or takes it away.
    pub fn set(&mut self, index: usize, at: Option<Instant>) {
        if self.position.len() <= index {
            self.position.resize(index + 1, NOWHERE);
        }
        let position = self.position[index];
        match (at, position == NOWHERE) {
            (None, true) => {}
            (None, false) => self.remove(position),
            (Some(at), true) => {
                self.position[index] = self.heap.len();
                self.heap.push((at, index));
                self.rise(self.heap.len() - 1);
            }
            (Some(at), false) => {
                self.heap[position].0 = at;
                let position = self.rise(position);
                self.sink(position);
            }
        }
    }

    /// The deadline of `index`.
    pub fn get(&self, index: usize) -> Option<Instant> {
        let position = *self.position.get(index)?;
        self.heap.get(position).map(|(at, _)| *at)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.heap.first().map(|(at, _)| *at)
    }

    /// Takes the index with the earliest deadline if that is not after `now`.
    pub fn pop_due(&mut self, now: Instant) -> Option<usize> {
        let &(at, index) = self.heap.first()?;
        if at > now {
            return None;
        }
        self.remove(0);
        Some(index)
    }

    fn remove(&mut self, position: usize) {
        let (_, index) = self.heap.swap_remove(position);
        self.position[index] = NOWHERE;
        if let Some(&(_, moved)) = self.heap.get(position) {
            self.position[moved] = position;
            let position = self.rise(position);
            self.sink(position);
        }
    }

    fn rise(&mut self, mut position: usize) -> usize {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent].0 <= self.heap[position].0 {
                break;
            }
            self.swap(parent, position);
            position = parent;
        }
        position
    }

    fn sink(&mut self, mut position: usize) {
        loop {
            let Some(child) = [2 * position + 1, 2 * position + 2]
                .into_iter()
                .filter(|child| *child < self.heap.len())
                .min_by_key(|child| self.heap[*child].0)
            else {
                return;
            };
            if self.heap[position].0 <= self.heap[child].0 {
                return;
            }
            self.swap(position, child);
            position = child;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.position[self.heap[a].1] = a;
        self.position[self.heap[b].1] = b;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn deadlines_come_in_order_and_only_the_last_one_set_counts(
            steps in proptest::collection::vec((0..20usize, proptest::option::of(0..100u64)), 0..200)
        ) {
            let start = Instant::now();
            let mut timers = Timers::default();
            let mut model = [None; 20];
            for (index, ms) in steps {
                let at = ms.map(|ms| start + Duration::from_millis(ms));
                timers.set(index, at);
                model[index] = at;
                prop_assert_eq!(timers.get(index), at);
                prop_assert_eq!(timers.next(), model.iter().flatten().min().copied());
            }
            let mut last = start;
            while let Some(index) = timers.pop_due(start + Duration::from_secs(1)) {
                let at = model[index].take().unwrap();
                prop_assert!(at >= last);
                last = at;
            }
            prop_assert!(model.iter().all(Option::is_none));
        }
    }
}
