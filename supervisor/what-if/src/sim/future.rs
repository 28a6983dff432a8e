//! What is going to happen: a heap by time, and at one time in the order it was asked for.

use std::{cmp::Ordering, collections::BinaryHeap};

use sublet_pool::{LeaseId, Tick, WorkerId};

/// What answers an action of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    Made(WorkerId),
    Started(WorkerId),
    Answered(WorkerId, LeaseId),
    Died(WorkerId),
    Reaped(WorkerId),
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    at: Tick,
    order: u64,
    happening: Happening,
}

/// The earliest is the greatest, as the heap wants it.
impl Ord for Entry {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Entry {}

/// All that is to come.
#[derive(Debug, Default)]
pub struct Future {
    heap: BinaryHeap<Entry>,
    asked: u64,
}

impl Future {
    /// Lets something happen at `at`.
    pub fn push(&mut self, at: Tick, happening: Happening) {
        self.asked += 1;
        self.heap.push(Entry { at, order: self.asked, happening });
    }

    /// When something happens next.
    pub fn next(&self) -> Option<Tick> {
        self.heap.peek().map(|entry| entry.at)
    }

    /// What happens by `now`, if anything.
    pub fn pop(&mut self, now: Tick) -> Option<Happening> {
        if self.next()? > now { None } else { self.heap.pop().map(|entry| entry.happening) }
    }
}
