//! How many cells a function keeps: by how often its calls found neither a worker of their own nor a cell.
//!
//! A quarter of the misses of the last half minute, and one at least while there was a miss in the last minute: a burst
//! of new sub-tenants leaves cells behind for the next one, and a function that nobody new calls keeps none. Never more
//! than the function's `cells_max`, nor than the memory the host sets aside, nor in a place that a call waits for. Where
//! all places are taken, a cell takes that of the worker that nobody has called for longest: the next miss would.

use std::time::Duration;

use crate::{
    event::{Action, KillReason, WorkerId},
    key::FunctionId,
    pool::Pool,
    records::{Cell, CellState, FunctionState, KeyRecord, Occupant, SubTenantRecord, Worker, WorkerState},
    slots::{KeySlot, WorkerSlot},
    timers::Timer,
};

/// How often the number of cells follows.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A cell that nobody wanted for so long is replaced: what it was made of on the host may have changed.
const AGE_MAX: Duration = Duration::from_secs(600);
/// While others are ready, a used cell is replaced so much later: making one is work for the kernel, and the call that has
/// just got its cell should have the processors.
const REPLACE_AFTER: Duration = Duration::from_millis(5);
/// A worker that was called since then keeps its place.
const IDLE_BEFORE_A_CELL: Duration = Duration::from_secs(1);

impl Pool {
    /// A call found neither a worker of its key nor, perhaps, a cell.
    pub(crate) fn count_miss(&mut self, f: FunctionId) {
        let now = self.now;
        let function = self.function_mut(f);
        if function.policy.cells_max == 0 {
            return;
        }
        function.misses.count(now);
        self.want_cells(f);
        self.arm_cells(f);
    }

    fn want_cells(&mut self, f: FunctionId) {
        let at = self.now + REPLACE_AFTER;
        let function = self.function_mut(f);
        if !function.cells_ready.is_empty() {
            if !std::mem::replace(&mut function.replace_armed, true) {
                self.timers.set(at, Timer::Replace(f));
            }
        } else if !self.wanting_cells.contains(&f) {
            self.wanting_cells.push(f);
        }
    }

    /// The time to replace a used cell has come.
    pub(crate) fn replace_cells(&mut self, f: FunctionId) {
        self.function_mut(f).replace_armed = false;
        if !self.wanting_cells.contains(&f) {
            self.wanting_cells.push(f);
        }
    }

    /// Wants what the misses of the last minute ask for, though nothing has been missed just now.
    pub(crate) fn follow_misses(&mut self, f: FunctionId) {
        if self.cells_target(f) > 0 {
            self.want_cells(f);
            self.arm_cells(f);
        }
    }

    fn arm_cells(&mut self, f: FunctionId) {
        let at = self.now + LOOK_AGAIN;
        let function = self.function_mut(f);
        if !std::mem::replace(&mut function.cells_armed, true) {
            self.timers.set(at, Timer::Cells(f));
        }
    }

    /// So many cells a function may have now.
    pub(crate) fn cells_target(&self, f: FunctionId) -> u32 {
        let function = self.function(f);
        if function.state != FunctionState::Live || self.drain.is_some() {
            return 0;
        }
        function.misses.cells(self.now).min(function.policy.cells_max)
    }

    /// Makes cells where they are wanted, as far as nobody waits for the places.
    pub(crate) fn keep_cells(&mut self, out: &mut Vec<Action>) {
        let mut at = 0;
        while at < self.wanting_cells.len() {
            if self.host.making >= self.host.policy.starts_max || self.next_key().is_some() || self.host.is_blocked {
                return;
            }
            let f = self.wanting_cells[at];
            let function = self.function(f);
            let target = self.cells_target(f);
            let have = function.cells_ready.len() as u32 + function.cells_making;
            if have >= target {
                self.wanting_cells.swap_remove(at);
            } else if !self.may_have_cell(f) {
                at += 1;
            } else if self.has_place_for_cell(f) {
                self.make_cell(f, out);
            } else if let Some(w) = self.place_for_cell(f) {
                // One at a time; the cell is made in its place when that is free.
                return self.kill(w, KillReason::MakeRoom, out);
            } else {
                at += 1;
            }
        }
    }

    fn may_have_cell(&self, f: FunctionId) -> bool {
        let function = self.function(f);
        let waits = function.is_blocked || self.tenant(function.tenant).is_blocked;
        !waits
            && function.cells_breaker.is_open_for(self.now).is_none()
            && self.host.cell_bytes + function.policy.cell_bytes <= self.host.policy.cells_memory_max
    }

    fn has_place_for_cell(&self, f: FunctionId) -> bool {
        let function = self.function(f);
        let tenant = self.tenant(function.tenant);
        self.host.workers < self.host.policy.workers_max
            && tenant.workers < tenant.policy.workers_max
            && function.workers < function.policy.workers_max
    }

    /// The worker that has been idle for longest at the narrowest full level, if that is long enough.
    fn place_for_cell(&self, f: FunctionId) -> Option<WorkerSlot> {
        if !self.host.free_rooms.is_empty() || !self.host.promised_rooms.is_empty() {
            return None;
        }
        let function = self.function(f);
        let tenant = self.tenant(function.tenant);
        let longest = if function.workers >= function.policy.workers_max {
            function.frozen.first().or(function.hot.first())
        } else if tenant.workers >= tenant.policy.workers_max {
            tenant.idle.first()
        } else {
            self.host.idle.first()
        };
        longest.filter(|w| {
            let may_go = |worker: &Worker| {
                let long =
                    matches!(worker.state, WorkerState::Idle { since, .. } if since + IDLE_BEFORE_A_CELL <= self.now);
                long && !self.keys[worker.key].is_at_minimum()
            };
            self.workers[*w].worker().is_some_and(may_go)
        })
    }

    fn make_cell(&mut self, f: FunctionId, out: &mut Vec<Action>) {
        let function = self.function(f);
        let (bytes, deadline) = (function.policy.cell_bytes, self.now + function.policy.start_timeout);
        let id = self.next_worker();
        let state = CellState::Making { deadline };
        self.insert_occupant(Occupant::Cell(Cell { id, function: f, state, created: self.now, bytes }));
        self.timers.set(deadline, Timer::Worker(id));
        out.push(Action::MakeCell { worker: id, function: f });
    }

    pub(crate) fn cell_made(&mut self, w: WorkerSlot, out: &mut Vec<Action>) {
        let Occupant::Cell(cell) = &self.workers[w] else { return };
        match cell.state {
            CellState::Making { .. } => {}
            CellState::Ready => return,
        }
        let f = cell.function;
        self.change_occupant(w, |occupant| match occupant {
            Occupant::Cell(cell) => Occupant::Cell(Cell { state: CellState::Ready, ..cell }),
            other @ (Occupant::Worker(_) | Occupant::Reaping(_)) => other,
        });
        self.host.cells.push_back(w);
        let function = self.function_mut(f);
        function.cells_ready.push_back(w);
        function.cells_breaker.close();
        self.arm_cells(f);
        self.unblock(f);
        if self.host.cell_bytes > self.host.policy.cells_memory_max {
            // The memory for cells was lowered while it was being made.
            self.kill(w, KillReason::OverCap, out);
        }
    }

    pub(crate) fn cell_failed(&mut self, w: WorkerSlot, why: KillReason, out: &mut Vec<Action>) {
        let f = self.workers[w].function();
        let now = self.now;
        self.function_mut(f).cells_breaker.fail(now);
        self.kill(w, why, out);
        // What failed is replaced, when its breaker lets it.
        self.want_cells(f);
        self.arm_cells(f);
    }

    /// A ready cell that `key` may have: only a sub-tenant without any worker gets one. Then the cell's own group becomes
    /// the sub-tenant's, and nothing has to be moved.
    pub(crate) fn cell_for(&self, key: &KeyRecord, sub: &SubTenantRecord) -> Option<WorkerSlot> {
        if sub.workers > 0 {
            return None;
        }
        self.function(key.function).cells_ready.back().copied()
    }

    pub(crate) fn label_cell(&mut self, k: KeySlot, w: WorkerSlot, out: &mut Vec<Action>) {
        let f = self.keys[k].function;
        let deadline = self.now + self.function(f).policy.start_timeout;
        self.take_off_shelves(w);
        let Occupant::Cell(cell) = &self.workers[w] else { return };
        let (id, now) = (cell.id, self.now);
        self.change_occupant(w, |occupant| match occupant {
            Occupant::Cell(cell) => Occupant::Worker(cell.label(k, now, deadline)),
            other @ (Occupant::Worker(_) | Occupant::Reaping(_)) => other,
        });
        self.timers.set(deadline, Timer::Worker(id));
        self.arm_age(f, id);
        out.push(Action::Label { worker: id, key: self.pool_key(k) });
        // A used cell is replaced.
        self.want_cells(f);
    }

    /// Takes a cell off the lists of those that are ready, if it is.
    pub(super) fn take_off_shelves(&mut self, w: WorkerSlot) {
        let Occupant::Cell(cell) = &self.workers[w] else { return };
        match cell.state {
            CellState::Making { .. } => {}
            CellState::Ready => {
                let f = cell.function;
                self.host.cells.retain(|cell| *cell != w);
                self.function_mut(f).cells_ready.retain(|cell| *cell != w);
            }
        }
    }

    /// Follows the misses: ends cells that are too many or too old, and comes back while there is reason to.
    pub(crate) fn look_at_cells(&mut self, f: FunctionId, out: &mut Vec<Action>) {
        self.function_mut(f).cells_armed = false;
        loop {
            let function = self.function(f);
            let Some(oldest) = function.cells_ready.front().copied() else { break };
            let is_old = self.now >= self.created(oldest) + AGE_MAX;
            let is_surplus = function.cells_ready.len() as u32 + function.cells_making > self.cells_target(f);
            if !is_old && !is_surplus {
                break;
            }
            self.kill(oldest, KillReason::Surplus, out);
        }
        let target = self.cells_target(f);
        let function = self.function(f);
        let have = function.cells_ready.len() as u32 + function.cells_making;
        if have < target {
            self.want_cells(f);
        }
        if have > 0 || target > 0 {
            self.arm_cells(f);
        }
    }

    pub(crate) fn next_worker(&mut self) -> WorkerId {
        self.last_worker += 1;
        WorkerId(self.last_worker)
    }
}
