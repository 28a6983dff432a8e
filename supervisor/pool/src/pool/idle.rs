//! What becomes of idle workers: frozen, ended after their time, evicted, drained.

use std::time::Duration;

use crate::{
    event::{Action, CallId, End, KillReason, Refusal, Selector},
    key::FunctionId,
    lists::IdleList,
    pool::Pool,
    records::{FunctionState, Occupant, WorkerState},
    slots::WorkerSlot,
    timers::Timer,
};

/// Shorter times are taken for this: a worker that is kept whatever its time would be looked at without end.
const IDLE_TTL_MIN: Duration = Duration::from_millis(1);

impl Pool {
    fn idle_ttl(&self, f: FunctionId) -> Duration {
        self.function(f).policy.idle_ttl.max(IDLE_TTL_MIN)
    }

    pub(super) fn freeze(&mut self, w: WorkerSlot, out: &mut Vec<Action>) {
        let Some(worker) = self.workers[w].worker_mut() else { return };
        if let WorkerState::Idle { since, frozen: frozen @ false } = &mut worker.state {
            *frozen = true;
            let (since, id, f) = (*since, worker.id, worker.function);
            let function = &mut self.functions[f.0 as usize];
            function.hot.remove(&mut self.workers, IdleList::Function, w);
            // Frozen ones that were kept beyond their time began it anew, and come after this one.
            let is_later = |other: &Occupant| match other.worker().map(|worker| worker.state) {
                Some(WorkerState::Idle { since: other, .. }) => other > since,
                Some(WorkerState::Starting { .. } | WorkerState::Leased { .. } | WorkerState::Draining { .. })
                | None => false,
            };
            function.frozen.insert(&mut self.workers, IdleList::Function, w, is_later);
            out.push(Action::Freeze { worker: id });
        }
    }

    /// Wakes when the longest idle worker of a function has something to expect.
    pub(super) fn arm_idle(&mut self, f: FunctionId) {
        let function = self.function(f);
        let (ttl, freeze_after) = (self.idle_ttl(f), function.policy.freeze_after);
        let since = |w: Option<WorkerSlot>| match self.workers[w?].worker()?.state {
            WorkerState::Idle { since, .. } => Some(since),
            WorkerState::Starting { .. } | WorkerState::Leased { .. } | WorkerState::Draining { .. } => None,
        };
        let hot = since(function.hot.first()).map(|since| since + freeze_after.map_or(ttl, |after| after.min(ttl)));
        let frozen = since(function.frozen.first()).map(|since| since + ttl);
        let Some(due) = [hot, frozen].into_iter().flatten().min() else { return };
        let function = self.function_mut(f);
        if function.idle_armed.is_none_or(|armed| due < armed) {
            function.idle_armed = Some(due);
            self.timers.set(due, Timer::Idle(f));
        }
    }

    pub(super) fn idle_due(&mut self, f: FunctionId, out: &mut Vec<Action>) {
        if self.function(f).idle_armed.is_none_or(|armed| armed > self.now) {
            // An earlier one was set since, and has come already.
            return;
        }
        self.function_mut(f).idle_armed = None;
        let (ttl, freeze_after) = (self.idle_ttl(f), self.function(f).policy.freeze_after);
        for of_frozen in [true, false] {
            loop {
                let function = self.function(f);
                let first = if of_frozen { function.frozen.first() } else { function.hot.first() };
                let Some(w) = first else { break };
                let Some(worker) = self.workers[w].worker() else { break };
                let WorkerState::Idle { since, frozen } = worker.state else { break };
                let k = worker.key;
                if self.now >= since + ttl {
                    if self.keys[k].is_at_minimum() && self.retire_reason(w).is_none() {
                        self.keep_idle(w, f, frozen);
                    } else {
                        self.kill(w, KillReason::IdleTtl, out);
                    }
                } else if !frozen && freeze_after.is_some_and(|after| self.now >= since + after) {
                    self.freeze(w, out);
                } else {
                    break;
                }
            }
        }
        self.arm_idle(f);
    }

    /// One that is kept though its time is over starts its time anew.
    fn keep_idle(&mut self, w: WorkerSlot, f: FunctionId, frozen: bool) {
        let since = self.now;
        let function = &mut self.functions[f.0 as usize];
        let list = if frozen { &mut function.frozen } else { &mut function.hot };
        list.remove(&mut self.workers, IdleList::Function, w);
        list.push(&mut self.workers, IdleList::Function, w);
        if let Some(worker) = self.workers[w].worker_mut() {
            worker.state = WorkerState::Idle { since, frozen };
        }
    }

    fn is_meant(&self, which: &Selector, occupant: &Occupant) -> bool {
        let key = match occupant {
            Occupant::Worker(worker) => Some(worker.key),
            Occupant::Cell(_) => None,
            Occupant::Reaping(_) => return false,
        };
        match which {
            Selector::All => true,
            Selector::Worker(id) => *id == occupant.id(),
            Selector::Match { tenant, functions, sub_tenant } => {
                let function = occupant.function();
                tenant.is_none_or(|t| self.function(function).tenant == t)
                    && functions.as_ref().is_none_or(|all| all.contains(&function))
                    && sub_tenant
                        .as_ref()
                        .is_none_or(|label| key.is_some_and(|k| self.subs[self.keys[k].sub_tenant].label == *label))
            }
        }
    }

    /// Living workers and cells that are meant.
    pub fn count_matching(&self, which: &Selector) -> u64 {
        self.workers.iter().filter(|(_, occupant)| self.is_meant(which, occupant)).count() as u64
    }

    pub(super) fn evict(&mut self, which: &Selector, force: bool, out: &mut Vec<Action>) {
        let chosen: Vec<WorkerSlot> =
            self.workers.iter().filter(|(_, occupant)| self.is_meant(which, occupant)).map(|(w, _)| w).collect();
        for w in chosen {
            match &self.workers[w] {
                Occupant::Reaping(_) => {}
                Occupant::Cell(_) => self.kill(w, KillReason::Evicted, out),
                Occupant::Worker(worker) => match worker.state {
                    WorkerState::Idle { .. } => self.kill(w, KillReason::Evicted, out),
                    WorkerState::Starting { .. } if force => self.kill(w, KillReason::Evicted, out),
                    WorkerState::Leased { call, .. } | WorkerState::Draining { call, .. } if force => {
                        let id = worker.id;
                        self.settle(call, End::Evicted { worker: id }, out);
                        self.kill(w, KillReason::Evicted, out);
                    }
                    WorkerState::Starting { .. } | WorkerState::Leased { .. } | WorkerState::Draining { .. } => {}
                },
            }
        }
    }

    /// Ends what a drain has no more use for, and at its deadline everything.
    pub(super) fn finish_drain(&mut self, out: &mut Vec<Action>) {
        let Some(deadline) = self.drain else { return };
        if self.drained {
            return;
        }
        let is_over = self.now >= deadline;
        let all: Vec<WorkerSlot> = self.workers.iter().map(|(w, _)| w).collect();
        for w in all {
            match &self.workers[w] {
                Occupant::Reaping(_) => {}
                Occupant::Cell(_) => self.kill(w, KillReason::Drain, out),
                Occupant::Worker(worker) => match worker.state {
                    WorkerState::Idle { .. } => self.kill(w, KillReason::Drain, out),
                    WorkerState::Starting { .. } => {
                        if is_over || self.keys[worker.key].waiting == 0 {
                            self.kill(w, KillReason::Drain, out);
                        }
                    }
                    WorkerState::Leased { call, .. } | WorkerState::Draining { call, .. } => {
                        if is_over {
                            let id = worker.id;
                            self.settle(call, End::Evicted { worker: id }, out);
                            self.kill(w, KillReason::Drain, out);
                        }
                    }
                },
            }
        }
        if is_over {
            let mut waiting: Vec<CallId> = self.calls.keys().copied().collect();
            waiting.sort_unstable();
            for call in waiting {
                self.settle(call, End::Refused(Refusal::Draining), out);
            }
        }
        if self.host.workers == 0 && self.calls.is_empty() {
            self.drained = true;
            out.push(Action::Drained);
        }
    }

    /// Takes calls again. Workers that are kept and cells are made anew.
    pub(super) fn undrain(&mut self) {
        if self.drain.take().is_none() {
            return;
        }
        self.drained = false;
        self.unblock_keys(|_, _| true);
        for at in 0..self.functions.len() {
            self.follow_misses(FunctionId(u32::try_from(at).unwrap_or(u32::MAX)));
        }
    }

    /// Lets go of revisions of which nothing is left.
    pub(super) fn finish_retiring(&mut self, out: &mut Vec<Action>) {
        for at in (0..self.retiring.len()).rev() {
            let f = self.retiring[at];
            let function = self.function_mut(f);
            if function.workers == 0 && function.in_flight == 0 {
                function.state = FunctionState::Gone;
                self.retiring.swap_remove(at);
                out.push(Action::Retired { function: f });
            }
        }
    }
}
