//! What is due when. Setting is cheap and taking back is not needed: whoever is woken looks whether there is still a
//! reason, and wakes that have lost theirs are swept out when they become many.

use std::{cmp::Reverse, collections::BinaryHeap};

use crate::{
    event::{CallId, WorkerId},
    key::FunctionId,
    slots::{KeySlot, SubTenantSlot},
    time::Tick,
};

/// Wakes without a reason that are kept; sweeping fewer would cost more than keeping them.
const STALE_MIN: usize = 4096;

/// Why the pool wants to be woken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A call's deadline.
    Call(CallId),
    /// A worker's start, its age, or its removal.
    Worker(WorkerId),
    /// The longest idle worker of a function: freeze or end.
    Idle(FunctionId),
    /// How many cells a function keeps.
    Cells(FunctionId),
    /// A function's used cells are replaced.
    Replace(FunctionId),
    /// A key's back-off ends, or its failures may be forgotten.
    Key(KeySlot),
    /// A sub-tenant's bucket is full again.
    SubTenant(SubTenantSlot),
}

/// All wake-ups that are set.
#[derive(Clone, Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Tick, Timer)>>,
    /// How many had a reason when they were swept last.
    kept: usize,
}

impl Timers {
    /// Sets a wake-up at `at`.
    pub fn set(&mut self, at: Tick, timer: Timer) {
        if self.heap.len() == self.heap.capacity() {
            self.heap.reserve_exact(self.heap.len() / 8 + 16);
        }
        self.heap.push(Reverse((at, timer)));
    }

    /// When the next wake-up is due.
    pub fn next(&self) -> Option<Tick> {
        self.heap.peek().map(|Reverse((at, _))| *at)
    }

    /// Takes out a wake-up that is due at `now`; none: none is.
    pub fn pop(&mut self, now: Tick) -> Option<Timer> {
        let due = self.next()? <= now;
        if due { self.heap.pop().map(|Reverse((_, timer))| timer) } else { None }
    }

    /// Keeps those with a reason, when there are twice as many as had one the last time: so each sweep is paid for by as many
    /// that were set since.
    pub fn sweep(&mut self, has_reason: impl Fn(Tick, Timer) -> bool) {
        if self.heap.len() > 2 * self.kept + STALE_MIN {
            self.heap.retain(|Reverse((at, timer))| has_reason(*at, *timer));
            self.kept = self.heap.len();
        }
    }
}
