//! A worker's life: started, leased, idle again, ended, removed.

use crate::{
    event::{Action, Blame, CallId, End, KillReason, LeaseId, Refusal, Start, WorkerId},
    key::FunctionId,
    lists::IdleList,
    pool::{Pool, counters::Counted, place::ROOM_PATIENCE},
    records::{CallState, CellState, FunctionState, Occupant, Phase, Reaping, Room, WorkerState},
    slots::{KeySlot, WorkerSlot},
    time::Tick,
    timers::Timer,
};

impl Pool {
    fn worker_state(&self, w: WorkerSlot) -> Option<(KeySlot, WorkerState)> {
        self.workers[w].worker().map(|worker| (worker.key, worker.state))
    }

    pub(super) fn made(&mut self, id: WorkerId, out: &mut Vec<Action>) {
        let Some(w) = self.ids.get(&id).copied() else { return };
        match &self.workers[w] {
            Occupant::Cell(_) => self.cell_made(w, out),
            Occupant::Worker(worker) => match worker.state {
                WorkerState::Starting { phase: Phase::Making, deadline } => {
                    self.advance_start(w, WorkerState::Starting { phase: Phase::Loading, deadline });
                }
                WorkerState::Starting { phase: Phase::Loading, .. }
                | WorkerState::Idle { .. }
                | WorkerState::Leased { .. }
                | WorkerState::Draining { .. } => {}
            },
            Occupant::Reaping(_) => {}
        }
    }

    pub(super) fn started(&mut self, id: WorkerId, out: &mut Vec<Action>) -> Option<KeySlot> {
        let w = self.ids.get(&id).copied()?;
        let (k, state) = self.worker_state(w)?;
        match state {
            WorkerState::Starting { .. } => self.advance_start(w, WorkerState::Idle { since: self.now, frozen: false }),
            WorkerState::Idle { .. } | WorkerState::Leased { .. } | WorkerState::Draining { .. } => return None,
        }
        self.keys[k].host_faults.close();
        if self.keys[k].settled() >= self.keys[k].warm_target {
            self.keys[k].warm_target = 0;
        }
        self.become_idle(w, true, out)
    }

    /// A worker that has just become idle takes the oldest one of its key, or waits. Returns the key if it has calls and the worker
    /// is left to the next turn.
    fn become_idle(&mut self, w: WorkerSlot, is_first: bool, out: &mut Vec<Action>) -> Option<KeySlot> {
        let worker = self.workers[w].worker()?;
        let (k, f) = (worker.key, worker.function);
        self.keys[k].idle.push(w);
        self.enter_lists(w, f);
        if let Some(why) = self.retire_reason(w) {
            self.kill(w, why, out);
            return None;
        }
        if self.keys[k].waiting > 0 {
            if is_first || !self.is_contended(k) {
                self.deliver_next(k, w, out);
                return None;
            }
            self.touch(k);
            self.unblock_key(k);
            return Some(k);
        }
        self.rest(w, f, out);
        self.touch(k);
        self.unblock_key(k);
        None
    }

    /// Nobody has a call for an idle worker: its time runs.
    pub(super) fn rest(&mut self, w: WorkerSlot, f: FunctionId, out: &mut Vec<Action>) {
        if self.function(f).policy.freeze_after.is_some_and(|after| after.is_zero()) {
            self.freeze(w, out);
        }
        self.arm_idle(f);
    }

    fn enter_lists(&mut self, w: WorkerSlot, f: FunctionId) {
        let t = self.function(f).tenant;
        self.host.idle.push(&mut self.workers, IdleList::Host, w);
        self.tenants[t.0 as usize].idle.push(&mut self.workers, IdleList::Tenant, w);
        self.functions[f.0 as usize].hot.push(&mut self.workers, IdleList::Function, w);
    }

    fn leave_lists(&mut self, w: WorkerSlot, f: FunctionId, frozen: bool) {
        let t = self.function(f).tenant;
        self.host.idle.remove(&mut self.workers, IdleList::Host, w);
        self.tenants[t.0 as usize].idle.remove(&mut self.workers, IdleList::Tenant, w);
        let function = &mut self.functions[f.0 as usize];
        let list = if frozen { &mut function.frozen } else { &mut function.hot };
        list.remove(&mut self.workers, IdleList::Function, w);
    }

    /// The most recently used idle worker of a key that may still take a call. Those that may not are ended on the way.
    pub(super) fn usable_idle(&mut self, k: KeySlot, out: &mut Vec<Action>) -> Option<WorkerSlot> {
        while let Some(w) = self.keys[k].idle.last().copied() {
            match self.retire_reason(w) {
                None => return Some(w),
                Some(why) => self.kill(w, why, out),
            }
        }
        None
    }

    /// Gives the oldest waiting call of a key to one of its idle workers.
    pub(super) fn deliver_next(&mut self, k: KeySlot, w: WorkerSlot, out: &mut Vec<Action>) {
        let Some(call) = self.next_call(k) else { return };
        let Some(worker) = self.workers[w].worker() else { return };
        let (WorkerState::Idle { frozen, .. }, f, id) = (worker.state, worker.function, worker.id) else { return };
        let Some(entry) = self.calls.get_mut(&call) else { return };
        assert!(worker.key == entry.key, "a worker serves one pool key for life");
        entry.state = CallState::Leased(w);
        let deadline = entry.deadline;
        let start = match (worker.calls, worker.was_cell) {
            (0, true) => Start::Cell,
            (0, false) => Start::Cold,
            (1.., _) => Start::Warm,
        };
        self.leave_lists(w, f, frozen);
        self.keys[k].idle.retain(|idle| *idle != w);
        self.leave(Counted::WaitingCall { key: k });
        if self.keys[k].waiting == 0 {
            self.keys[k].queue = Default::default();
        }
        self.last_lease += 1;
        let (lease, since) = (LeaseId(self.last_lease), self.now);
        if let Some(worker) = self.workers[w].worker_mut() {
            worker.calls += 1;
            worker.state = WorkerState::Leased { call, lease, since };
        }
        self.touch(k);
        out.push(Action::Deliver { call, worker: id, lease, start, thaw: frozen, deadline });
    }

    /// Which call a worker has, if it is by this lease.
    fn leased(&self, id: WorkerId, lease: LeaseId) -> Option<(WorkerSlot, KeySlot, CallId, Tick, Option<KillReason>)> {
        let w = self.ids.get(&id).copied()?;
        let (k, state) = self.worker_state(w)?;
        match state {
            WorkerState::Leased { call, lease: current, since } if current == lease => Some((w, k, call, since, None)),
            WorkerState::Draining { call, lease: current, since, why } if current == lease => {
                Some((w, k, call, since, Some(why)))
            }
            WorkerState::Leased { .. }
            | WorkerState::Draining { .. }
            | WorkerState::Starting { .. }
            | WorkerState::Idle { .. } => None,
        }
    }

    pub(super) fn answered(
        &mut self,
        id: WorkerId,
        lease: LeaseId,
        clean: bool,
        out: &mut Vec<Action>,
    ) -> Option<KeySlot> {
        let (w, k, call, since, retire) = self.leased(id, lease)?;
        self.settle(call, End::Answered { worker: id, lease }, out);
        if !clean {
            self.kill(w, KillReason::Tainted, out);
            return None;
        }
        let taken = u64::try_from(self.now.since(since).as_nanos()).unwrap_or(u64::MAX);
        let function = self.function_mut(self.keys[k].function);
        // Of the last eight or so.
        function.service_nanos = match function.service_nanos {
            0 => taken,
            old => old - old / 8 + taken / 8,
        }
        .max(1);
        self.keys[k].breaker.close();
        if let Some(why) = retire {
            self.kill(w, why, out);
            return None;
        }
        self.set_started_state(w, WorkerState::Idle { since: self.now, frozen: false });
        self.become_idle(w, false, out)
    }

    pub(super) fn undelivered(&mut self, id: WorkerId, lease: LeaseId, out: &mut Vec<Action>) {
        if let Some((w, k, call, ..)) = self.leased(id, lease) {
            self.requeue(k, call);
            self.kill(w, KillReason::Died, out);
            self.deliver_again(k, out);
        }
    }

    /// A call that came back does not wait for a turn while another worker of its key is idle.
    fn deliver_again(&mut self, k: KeySlot, out: &mut Vec<Action>) {
        if self.keys[k].waiting > 0
            && let Some(w) = self.usable_idle(k, out)
        {
            self.deliver_next(k, w, out);
        }
    }

    /// Puts a call that no function has seen, or may be seen twice, back to the head of its queue.
    fn requeue(&mut self, k: KeySlot, call: CallId) {
        if let Some(entry) = self.calls.get_mut(&call) {
            entry.state = CallState::Waiting;
            self.keys[k].queue.push_front(call);
            self.enter(Counted::WaitingCall { key: k });
        }
    }

    pub(super) fn died(&mut self, id: WorkerId, out: &mut Vec<Action>) {
        let Some(w) = self.ids.get(&id).copied() else { return };
        match &self.workers[w] {
            Occupant::Cell(_) => self.cell_failed(w, KillReason::Died, out),
            Occupant::Reaping(_) => {}
            Occupant::Worker(worker) => {
                let k = worker.key;
                match worker.state {
                    WorkerState::Starting { .. } => {
                        self.start_of_worker_failed(w, KillReason::Died, Blame::Theirs, out);
                    }
                    WorkerState::Idle { .. } => self.kill(w, KillReason::Died, out),
                    WorkerState::Leased { call, .. } | WorkerState::Draining { call, .. } => {
                        let may_retry = self.function(self.keys[k].function).policy.is_idempotent
                            && self.calls.get(&call).is_some_and(|call| call.died_with.is_none());
                        if may_retry {
                            self.requeue(k, call);
                            if let Some(entry) = self.calls.get_mut(&call) {
                                entry.died_with = Some(id);
                            }
                        } else {
                            self.settle(call, End::WorkerDied { worker: id }, out);
                        }
                        self.kill(w, KillReason::Died, out);
                        self.deliver_again(k, out);
                        self.count_failure(k, out);
                    }
                }
            }
        }
    }

    pub(super) fn start_failed(&mut self, id: WorkerId, blame: Blame, out: &mut Vec<Action>) {
        let Some(w) = self.ids.get(&id).copied() else { return };
        match &self.workers[w] {
            Occupant::Cell(_) => self.cell_failed(w, KillReason::StartFailed, out),
            Occupant::Worker(worker) => match worker.state {
                WorkerState::Starting { .. } => self.start_of_worker_failed(w, KillReason::StartFailed, blame, out),
                WorkerState::Idle { .. } | WorkerState::Leased { .. } | WorkerState::Draining { .. } => {}
            },
            Occupant::Reaping(_) => {}
        }
    }

    fn start_of_worker_failed(&mut self, w: WorkerSlot, why: KillReason, blame: Blame, out: &mut Vec<Action>) {
        let Some(worker) = self.workers[w].worker() else { return };
        let (k, id) = (worker.key, worker.id);
        self.keys[k].warm_target = 0;
        // Each failed worker answers the call it was made for.
        if let Some(call) = self.waiting_calls(k).first().copied() {
            self.settle(call, End::StartFailed { worker: id }, out);
        }
        self.kill(w, why, out);
        match blame {
            Blame::Theirs => self.count_failure(k, out),
            Blame::Ours => self.count_host_fault(k),
        }
    }

    /// Counts a start that the host has failed. Calls go on as if nothing had been.
    fn count_host_fault(&mut self, k: KeySlot) {
        let now = self.now;
        self.keys[k].host_faults.fail(now);
        let faults = self.keys[k].host_faults;
        for at in faults.open_until().into_iter().chain([faults.forget_at()]) {
            self.timers.set(at, Timer::Key(k));
        }
        self.touch(k);
    }

    /// Counts a failure of a key. Once it backs off, all its calls that wait are answered: those that no function has seen are
    /// refused as new ones are, those whose worker has died are told that.
    fn count_failure(&mut self, k: KeySlot, out: &mut Vec<Action>) {
        let now = self.now;
        let backs_off = self.keys[k].breaker.fail(now);
        let breaker = self.keys[k].breaker;
        self.timers.set(breaker.forget_at(), Timer::Key(k));
        if !backs_off {
            return;
        }
        if let Some(until) = breaker.open_until() {
            self.timers.set(until, Timer::Key(k));
        }
        // A worker that is alive may still serve them.
        if self.keys[k].settled() == 0 {
            let retry_after = breaker.is_open_for(now).unwrap_or_default();
            for call in self.waiting_calls(k) {
                let end = match self.calls.get(&call).and_then(|call| call.died_with) {
                    Some(worker) => End::WorkerDied { worker },
                    None => End::Refused(Refusal::CrashBackoff { retry_after }),
                };
                self.settle(call, end, out);
            }
        }
        // None is made for those that are left, nor ahead.
        self.touch(k);
    }

    /// Ends a worker or cell, whatever it does. Its call, if it has one, is settled before or put back.
    pub(crate) fn kill(&mut self, w: WorkerSlot, why: KillReason, out: &mut Vec<Action>) {
        self.last_turn += 1;
        let (order, since, room) = (self.last_turn, self.now, Room::Free);
        let reaping = match &self.workers[w] {
            Occupant::Reaping(_) => return,
            Occupant::Cell(cell) => {
                let (id, function, created) = (cell.id, cell.function, cell.created);
                self.take_off_shelves(w);
                Reaping { id, function, key: None, created, calls: 0, order, since, room }
            }
            Occupant::Worker(worker) => {
                let (k, f, state) = (worker.key, worker.function, worker.state);
                let (id, created, calls) = (worker.id, worker.created, worker.calls);
                match state {
                    WorkerState::Starting { .. } | WorkerState::Leased { .. } | WorkerState::Draining { .. } => {}
                    WorkerState::Idle { frozen, .. } => {
                        self.keys[k].idle.retain(|idle| *idle != w);
                        self.leave_lists(w, f, frozen);
                    }
                }
                Reaping { id, function: f, key: Some(k), created, calls, order, since, room }
            }
        };
        let (id, f, key) = (reaping.id, reaping.function, reaping.key);
        self.begin_removal(w, reaping);
        self.timers.set(since + ROOM_PATIENCE, Timer::Worker(id));
        out.push(Action::Kill { worker: id, why });
        match key {
            Some(k) => {
                self.touch(k);
                self.unblock_key(k);
            }
            None => self.unblock(f),
        }
    }

    pub(super) fn reaped(&mut self, id: WorkerId, out: &mut Vec<Action>) {
        let Some(w) = self.ids.get(&id).copied() else { return };
        let (f, key, room) = match &self.workers[w] {
            Occupant::Reaping(reaping) => (reaping.function, reaping.key, reaping.room),
            Occupant::Cell(_) | Occupant::Worker(_) => return,
        };
        self.remove_occupant(w);
        // Before either key may be forgotten: others of the same sub-tenant may wait for this place.
        match key {
            Some(k) => {
                self.unblock_key(k);
                self.touch(k);
            }
            None => self.unblock(f),
        }
        self.leave_room(w, room);
        let promised_to = match room {
            Room::Promised(k) => Some(k),
            Room::Free | Room::Overdue => None,
        };
        if let Some(k) = promised_to {
            // The place was made for it: it comes before others, and has paid already.
            self.touch(k);
            if self.keys[k].turn.is_some() {
                self.place_promised(k, out);
            }
        }
        for k in [promised_to, key].into_iter().flatten() {
            self.tidy(k);
        }
    }

    pub(super) fn worker_due(&mut self, id: WorkerId, out: &mut Vec<Action>) {
        let Some(w) = self.ids.get(&id).copied() else { return };
        match &self.workers[w] {
            Occupant::Cell(cell) => match cell.state {
                CellState::Making { deadline } if deadline <= self.now => {
                    self.cell_failed(w, KillReason::StartTimeout, out);
                }
                CellState::Making { .. } | CellState::Ready => {}
            },
            Occupant::Worker(worker) => match worker.state {
                WorkerState::Starting { deadline, phase } => {
                    if deadline <= self.now {
                        // Nothing of the function has run while its sandbox is being made.
                        let blame = if phase == Phase::Making { Blame::Ours } else { Blame::Theirs };
                        self.start_of_worker_failed(w, KillReason::StartTimeout, blame, out);
                    }
                }
                WorkerState::Idle { .. } => {
                    if let Some(why) = self.retire_reason(w) {
                        self.kill(w, why, out);
                    }
                }
                WorkerState::Leased { call, lease, since } => {
                    // Not for a limit that was lowered: others may go for that before its call has ended.
                    if let Some(why @ (KillReason::AgeMax | KillReason::CallsMax)) = self.retire_reason(w) {
                        self.set_started_state(w, WorkerState::Draining { call, lease, since, why });
                    }
                }
                WorkerState::Draining { .. } => {}
            },
            Occupant::Reaping(_) => self.look_at_room(w, out),
        }
    }

    /// Whether a worker's start, age or removal is over its time at `at`.
    pub(super) fn is_worker_due(&self, w: WorkerSlot, at: Tick) -> bool {
        match &self.workers[w] {
            Occupant::Cell(cell) => cell.state == CellState::Making { deadline: at },
            Occupant::Worker(worker) => {
                let is_start = matches!(worker.state, WorkerState::Starting { deadline, .. } if deadline == at);
                let age_max = self.function(worker.function).policy.age_max;
                is_start || age_max.is_some_and(|max| worker.created + max == at)
            }
            Occupant::Reaping(reaping) => reaping.room != Room::Overdue && reaping.since + ROOM_PATIENCE == at,
        }
    }

    /// Wakes when a new worker will be too old.
    pub(crate) fn arm_age(&mut self, f: FunctionId, id: WorkerId) {
        if let Some(age) = self.function(f).policy.age_max {
            self.timers.set(self.now + age, Timer::Worker(id));
        }
    }

    /// Why a worker that has no call must not get one any more.
    pub(super) fn retire_reason(&self, w: WorkerSlot) -> Option<KillReason> {
        let worker = self.workers[w].worker()?;
        let function = self.function(worker.function);
        let policy = &function.policy;
        let key = &self.keys[worker.key];
        if function.state != FunctionState::Live && key.waiting == 0 {
            return Some(KillReason::FunctionRetired);
        }
        if worker.calls > 0 && policy.calls_max.is_some_and(|max| worker.calls >= max) {
            return Some(KillReason::CallsMax);
        }
        if policy.age_max.is_some_and(|max| self.now.since(worker.created) >= max) {
            return Some(KillReason::AgeMax);
        }
        self.is_over_cap(worker).then_some(KillReason::OverCap)
    }
}
