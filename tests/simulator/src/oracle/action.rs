//! Whether an action may be, and what it changes.

use sublet_pool::{Action, End, KillReason, LimitLevel, PoolKey, Refusal, Stage, Start};

use super::{
    Arrival, Broken, Oracle, State,
    books::{CallState, Worker},
};
use crate::rule;

impl Oracle {
    /// The call that has just come is accepted, unless it is refused by the first thing the pool says.
    pub(super) fn admit(&mut self, arrival: Arrival, out: &[Action]) -> Result<(), Broken> {
        let c = arrival.call as usize;
        if let Some(Action::Settle { call, end: End::Refused(refusal) }) = out.first()
            && call.0 == arrival.call
        {
            return self.refusal(arrival, *refusal);
        }
        let k = self.calls[c].key;
        let (f, t, s) = (self.keys[k].function, self.tenant_of(k), self.keys[k].sub);
        rule!(self.drain.is_none(), "no call is accepted while draining");
        rule!(self.calls[c].deadline > self.now, "no call is accepted after its deadline");
        rule!(!self.functions[f].is_retired, "no call of a retired function is accepted");
        rule!(!arrival.was_backing_off || arrival.had_idle, "no call is accepted while its key backs off");
        self.calls[c].state = CallState::Waiting;
        self.keys[k].queue.push_back(arrival.call);
        self.watch_deadline(arrival.call);
        self.waiting += 1;
        self.in_flight += 1;
        self.functions[f].calls += 1;
        self.tenants[t].calls += 1;
        self.tenants[t].subs[s].calls += 1;
        let (function, tenant) = (&self.functions[f], &self.tenants[t]);
        let sub = tenant.sub_policy(s);
        rule!(self.in_flight <= self.host.calls_in_flight_max, "calls of the host within its cap");
        rule!(function.calls <= function.policy.calls_in_flight_max, "calls of a function within its cap");
        rule!(tenant.calls <= tenant.policy.calls_in_flight_max, "calls of a tenant within its cap");
        rule!(tenant.subs[s].calls <= sub.calls_in_flight_max, "calls of a sub-tenant within its cap");
        let now = self.now;
        if let Some(rate) = tenant.policy.rate {
            rule!(tenant.tokens.may_pass(now, rate), "calls of a tenant within its rate");
            self.tenants[t].tokens.take(now, rate);
        }
        if let Some(rate) = sub.rate {
            let tokens = &mut self.tenants[t].subs[s].tokens;
            rule!(tokens.may_pass(now, rate), "calls of a sub-tenant within its rate");
            tokens.take(now, rate);
        }
        Ok(())
    }

    fn refusal(&mut self, arrival: Arrival, refusal: Refusal) -> Result<(), Broken> {
        let c = arrival.call as usize;
        self.calls[c].state = CallState::Settled;
        let k = self.calls[c].key;
        let (function, tenant) = (&self.functions[self.keys[k].function], &self.tenants[self.tenant_of(k)]);
        let s = self.keys[k].sub;
        let sub = tenant.sub_policy(s);
        let at = |level| match level {
            LimitLevel::Host => (self.in_flight, self.host.calls_in_flight_max),
            LimitLevel::Tenant => (tenant.calls, tenant.policy.calls_in_flight_max),
            LimitLevel::Function => (function.calls, function.policy.calls_in_flight_max),
            LimitLevel::SubTenant => (tenant.subs[s].calls, sub.calls_in_flight_max),
        };
        let rightly = match refusal {
            // The bound may be lower than what we think is covered, never lower than the limit itself.
            Refusal::QueueFull { level, limit, .. } => {
                let of_function = function.policy.queue_max;
                let narrowest = sub.queue_max.map_or(of_function, |own| own.min(of_function));
                let whose = if narrowest < of_function { LimitLevel::SubTenant } else { LimitLevel::Function };
                let is_full = self.keys[k].queue.len() >= limit as usize;
                (level, limit) == (whose, narrowest) && is_full && !arrival.had_idle
            }
            Refusal::CallsFull { level, limit, .. } => at(level).1 == limit && at(level).0 >= limit,
            Refusal::CallsWaitingFull { limit, .. } => {
                limit == self.host.calls_waiting_max && self.waiting >= limit && !arrival.had_idle
            }
            Refusal::RateLimited { level: LimitLevel::Tenant, .. } => {
                tenant.policy.rate.is_some_and(|rate| !tenant.tokens.must_pass(self.now, rate))
            }
            Refusal::RateLimited { level, .. } => {
                level == LimitLevel::SubTenant
                    && sub.rate.is_some_and(|rate| !tenant.subs[s].tokens.must_pass(self.now, rate))
            }
            Refusal::Draining => self.drain.is_some(),
            Refusal::DeadlinePast => self.calls[c].deadline <= self.now,
            // The simulator asks for functions that never were under the first key, which need not be retired.
            Refusal::UnknownFunction => function.is_retired || k == 0,
            Refusal::CrashBackoff { .. } => self.keys[k].has_ever_failed && !arrival.had_idle,
        };
        rule!(rightly, "a call is refused only for a reason that holds: {refusal:?}");
        let waits = refusal.retry_after();
        rule!(waits.is_none_or(|wait| !wait.is_zero()), "a caller is not told to come back at once");
        Ok(())
    }

    pub(super) fn action(&mut self, action: &Action) -> Result<(), Broken> {
        match action {
            Action::MakeCell { worker, function } => {
                let f = function.0 as usize;
                let w = self.new_worker(worker.0, f, None)?;
                let bytes = self.functions[f].policy.cell_bytes;
                self.workers[w].bytes = bytes;
                self.cell_bytes += bytes;
                rule!(self.cell_bytes <= self.host.cells_memory_max, "memory of cells within its budget");
                rule!(self.functions[f].policy.cells_max > 0, "cells only of functions that may have some");
                rule!(!self.functions[f].is_retired && self.drain.is_none(), "no cells for what is going");
                Ok(())
            }
            Action::Spawn { worker, key } => {
                let k = self.key_index(key.function, &key.sub_tenant);
                self.new_worker(worker.0, key.function.0 as usize, Some(k))?;
                self.joins(k)
            }
            Action::Label { worker, key } => self.label(worker.0, key),
            Action::Deliver { call, worker, lease, start, thaw, deadline } => {
                self.deliver(call.0, worker.0, *start, *thaw)?;
                rule!(lease.0 > self.last_lease, "a lease is never used twice");
                self.last_lease = lease.0;
                self.workers[worker.0 as usize].state = State::Leased { call: call.0, lease: lease.0 };
                rule!(self.calls[call.0 as usize].deadline == *deadline, "the deadline delivered is the call's");
                Ok(())
            }
            Action::Settle { call, end } => self.settle(call.0, *end),
            Action::Freeze { worker } => {
                let now = self.now;
                let worker = &mut self.workers[worker.0 as usize];
                let after = self.functions[worker.function].policy.freeze_after;
                let State::Idle { since, frozen: frozen @ false } = &mut worker.state else {
                    return Err("only an idle worker that is not frozen is frozen".into());
                };
                rule!(after.is_some_and(|after| now.since(*since) >= after), "frozen after its time");
                *frozen = true;
                Ok(())
            }
            Action::Kill { worker, why } => self.kill(worker.0, *why),
            Action::Retired { function } => {
                let function = &mut self.functions[function.0 as usize];
                rule!(function.is_retired && !function.is_gone, "gone once, after being retired");
                rule!(function.workers == 0 && function.calls == 0, "nothing is left of a retired function");
                function.is_gone = true;
                Ok(())
            }
            Action::Drained => {
                rule!(self.drain.is_some() && !self.is_drained, "drained once, when asked to");
                rule!(self.alive.is_empty() && self.in_flight == 0, "nothing is left after a drain");
                self.is_drained = true;
                Ok(())
            }
        }
    }

    fn new_worker(&mut self, id: u64, f: usize, key: Option<usize>) -> Result<usize, Broken> {
        rule!(id as usize == self.workers.len(), "ids of workers count up");
        let mut worker = Worker::new(f, key, self.now);
        worker.start_deadline = self.now + self.functions[f].policy.start_timeout;
        self.workers.push(worker);
        self.alive.push(id);
        self.making += 1;
        let function = &mut self.functions[f];
        function.workers += 1;
        let tenant = &mut self.tenants[function.tenant];
        tenant.workers += 1;
        rule!(self.making <= self.host.starts_max, "sandboxes in the making within their cap");
        rule!(self.alive.len() <= self.host.workers_max as usize, "workers of the host within their cap");
        rule!(tenant.workers <= tenant.policy.workers_max, "workers of a tenant within their cap");
        rule!(function.workers <= function.policy.workers_max, "workers of a function within their cap");
        Ok(id as usize)
    }

    /// A key gets one more worker.
    fn joins(&mut self, k: usize) -> Result<(), Broken> {
        let (t, s) = (self.tenant_of(k), self.keys[k].sub);
        self.tenants[t].subs[s].workers += 1;
        let key = &mut self.keys[k];
        key.workers += 1;
        key.live += 1;
        key.starting += 1;
        let (key, function) = (&self.keys[k], &self.functions[self.keys[k].function]);
        let sub_max = if s == 0 { u32::MAX } else { self.tenants[t].sub_policy(s).workers_max };
        rule!(self.tenants[t].subs[s].workers <= sub_max, "workers of a sub-tenant within their cap");
        rule!(key.workers <= function.policy.workers_per_sub_tenant_max, "workers of a key within their cap");
        let ahead = if self.drain.is_some() || function.is_retired { 0 } else { key.minimum.max(key.warm) };
        let needed = key.queue.len() as u32 + ahead;
        rule!(key.starting <= needed, "a worker is made only for a call that has none, or because it was asked for");
        let may_start = self.backs_off_until(k).is_none_or(|until| self.now >= until && key.starting == 1);
        rule!(may_start, "a key that backs off makes no worker, and then one");
        self.touch(k);
        Ok(())
    }

    fn label(&mut self, w: u64, key: &PoolKey) -> Result<(), Broken> {
        let k = self.key_index(key.function, &key.sub_tenant);
        let (t, s) = (self.tenant_of(k), self.keys[k].sub);
        rule!(self.tenants[t].subs[s].workers == 0, "only a sub-tenant without a worker gets a cell");
        let deadline = self.now + self.functions[self.keys[k].function].policy.start_timeout;
        let now = self.now;
        let worker = &mut self.workers[w as usize];
        rule!(worker.state == State::Cell && !worker.is_making, "only a cell that is ready is labelled, once");
        rule!(worker.function == key.function.0 as usize, "a cell of another function is not used");
        worker.state = State::Starting;
        worker.key = Some(k);
        worker.born = now;
        worker.start_deadline = deadline;
        self.cell_bytes -= std::mem::take(&mut worker.bytes);
        self.joins(k)
    }

    fn deliver(&mut self, c: u64, w: u64, start: Start, thaw: bool) -> Result<(), Broken> {
        let (call, worker) = (self.calls[c as usize], self.workers[w as usize]);
        let k = call.key;
        rule!(worker.key == Some(k), "a call goes only to a worker of exactly its key");
        let State::Idle { frozen, .. } = worker.state else {
            return Err("a call goes only to a worker that is ready, has no other, and is not killed".into());
        };
        rule!(thaw == frozen, "a worker is thawed when it is frozen");
        rule!(call.state == CallState::Waiting, "only a call that waits is delivered");
        rule!(self.keys[k].queue.pop_front() == Some(c), "calls of a key in the order they came");
        let is_newest = self.keys[k].idle.pop() == Some(w);
        rule!(is_newest, "of several idle workers the most recent is used");
        let policy = &self.functions[worker.function].policy;
        let is_spent = worker.calls > 0 && policy.calls_max.is_some_and(|max| worker.calls >= max);
        rule!(!is_spent, "a worker that has served enough gets no call");
        let age = self.now.since(worker.born);
        rule!(policy.age_max.is_none_or(|max| age < max), "a worker that is too old gets no call");
        let expected = match (worker.calls, worker.was_cell) {
            (0, true) => Start::Cell,
            (0, false) => Start::Cold,
            (1.., _) => Start::Warm,
        };
        rule!(start == expected, "a call is told how it found its worker");
        self.calls[c as usize].state = CallState::Leased(w);
        self.workers[w as usize].calls += 1;
        self.waiting -= 1;
        self.touch(k);
        Ok(())
    }

    fn settle(&mut self, c: u64, end: End) -> Result<(), Broken> {
        let call = self.calls[c as usize];
        let k = call.key;
        if call.state == CallState::Settled && self.arriving.is_some_and(|a| a.call == c) {
            // The refusal itself; it was looked at when the call came.
            self.arriving = None;
            return Ok(());
        }
        rule!(matches!(call.state, CallState::Waiting | CallState::Leased(_)), "a call is settled once");
        let of_key = |w: u64| self.workers[w as usize].key == Some(k);
        let was_at = |w: u64| call.state == CallState::Leased(w) && self.workers[w as usize].is_alive();
        let at_stage = |at: Stage, worker: Option<sublet_pool::WorkerId>| match (at, worker) {
            (Stage::Leased, Some(w)) => was_at(w.0),
            (Stage::Queued, None) => call.state == CallState::Waiting && self.keys[k].starting == 0,
            (Stage::Starting, None) => call.state == CallState::Waiting && self.keys[k].starting > 0,
            _ => false,
        };
        let is_owed = self.must_settle.contains(&c);
        let backs_off = self.backs_off_until(k).filter(|until| *until > self.now);
        let rightly = match end {
            End::Answered { worker, .. } => is_owed && was_at(worker.0),
            End::Deadline { at, worker } => self.now >= call.deadline && at_stage(at, worker),
            End::Cancelled { at, worker } => is_owed && at_stage(at, worker),
            // With its worker; or with an earlier one, and no other is made for it.
            End::WorkerDied { worker } => match call.state {
                CallState::Waiting => call.died_with == Some(worker.0) && backs_off.is_some(),
                _ => is_owed && was_at(worker.0) && self.died == Some(worker.0),
            },
            End::StartFailed { worker } => call.state == CallState::Waiting && of_key(worker.0),
            End::Evicted { worker } => {
                was_at(worker.0) && (self.is_forced && is_owed || self.drain.is_some_and(|at| self.now >= at))
            }
            End::Refused(Refusal::CrashBackoff { retry_after }) => {
                let is_untouched = call.state == CallState::Waiting && call.died_with.is_none();
                is_untouched && backs_off.is_some_and(|until| until.since(self.now) == retry_after)
            }
            End::Refused(_) => end == End::Refused(Refusal::Draining) && self.drain.is_some_and(|at| self.now >= at),
        };
        rule!(rightly, "a call ends for a reason that holds (was {:?})", call.state);
        match call.state {
            CallState::Waiting => {
                self.waiting -= 1;
                self.keys[k].queue.retain(|other| *other != c);
            }
            // The worker goes on, or is killed next; an open lease on a settled call is a broken rule of the step.
            CallState::Leased(w) => {
                if let State::Leased { call, .. } = self.workers[w as usize].state
                    && call == c
                {
                    self.becomes_idle(w);
                    self.must_kill.push(w);
                }
            }
            CallState::Arriving | CallState::Settled => {}
        }
        self.calls[c as usize].state = CallState::Settled;
        let (f, t, s) = (self.keys[k].function, self.tenant_of(k), self.keys[k].sub);
        self.in_flight -= 1;
        self.functions[f].calls -= 1;
        self.tenants[t].calls -= 1;
        self.tenants[t].subs[s].calls -= 1;
        self.touch(k);
        Ok(())
    }

    fn kill(&mut self, w: u64, why: KillReason) -> Result<(), Broken> {
        let worker = self.workers[w as usize];
        rule!(worker.is_alive(), "a worker is killed once");
        let idle_since = if let State::Idle { since, .. } = worker.state { Some(since) } else { None };
        let is_cut = matches!(worker.state, State::Leased { .. });
        rule!(!is_cut, "no worker is killed before its call is settled");
        let is_cell = worker.state == State::Cell;
        let (now, function) = (self.now, &self.functions[worker.function]);
        let policy = &function.policy;
        let is_owed = self.must_kill.contains(&w);
        let rightly = match why {
            KillReason::IdleTtl => idle_since.is_some_and(|since| now.since(since) >= policy.idle_ttl),
            // What was to go during its last call goes, though the limit may have been raised since.
            KillReason::AgeMax => {
                let is_old = policy.age_max.is_some_and(|max| now.since(worker.born) >= max);
                (is_old || worker.calls > 0) && !is_cell
            }
            KillReason::CallsMax => worker.calls > 0,
            KillReason::MakeRoom => {
                let is_kept = worker.key.is_some_and(|k| self.keys[k].live <= self.keys[k].minimum);
                (idle_since.is_some() || is_cell && !worker.is_making) && !is_kept
            }
            KillReason::OverCap => self.is_over_living(w),
            KillReason::FunctionRetired => function.is_retired,
            KillReason::Surplus => is_cell,
            KillReason::Deadline | KillReason::Cancelled | KillReason::Tainted => is_owed && !is_cell,
            KillReason::StartTimeout => now >= worker.start_deadline && (is_cell || worker.state == State::Starting),
            KillReason::StartFailed => is_owed && (is_cell || worker.state == State::Starting),
            KillReason::Died | KillReason::Evicted => is_owed || why == KillReason::Evicted && self.is_forced,
            KillReason::Drain => self.drain.is_some(),
        };
        rule!(rightly, "a worker ends for a reason that holds (was {:?})", worker.state);
        if why == KillReason::StartTimeout
            && let Some(k) = worker.key
        {
            // Of a sandbox that is not made in time the host is to blame.
            if !worker.is_making {
                self.key_fails(k);
            }
            self.keys[k].warm = 0;
        }
        if worker.state == State::Starting {
            self.leave_starting(w);
        }
        let worker = &mut self.workers[w as usize];
        if std::mem::take(&mut worker.is_making) {
            self.making -= 1;
        }
        self.cell_bytes -= std::mem::take(&mut worker.bytes);
        worker.state = State::Killed;
        worker.killed = now;
        self.reaping += 1;
        if let Some(k) = worker.key {
            self.keys[k].live -= 1;
            self.keys[k].idle.retain(|idle| *idle != w);
            self.touch(k);
        }
        Ok(())
    }
}
