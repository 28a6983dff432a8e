//! What an event changes, and what the pool owes after it.

use std::cmp::Reverse;

use sublet_pool::{
    BACKOFF_FIRST, BACKOFF_MAX, Blame, Event, FAILURES_BEFORE_BACKOFF, LeaseId, PoolKey, Selector, Tick, WorkerId,
};

use super::{
    Arrival, Oracle, State,
    books::{Call, CallState},
    sub_index,
};

impl Oracle {
    fn known(&self, id: WorkerId) -> Option<u64> {
        ((id.0 as usize) < self.workers.len() && id.0 > 0).then_some(id.0)
    }

    /// The call a worker has by this lease.
    fn leased(&self, id: WorkerId, lease: LeaseId) -> Option<(u64, u64)> {
        let w = self.known(id)?;
        match self.workers[w as usize].state {
            State::Leased { call, lease: current } if current == lease.0 => Some((w, call)),
            _ => None,
        }
    }

    pub(super) fn touch(&mut self, k: usize) {
        if !self.touched.contains(&k) {
            self.touched.push(k);
        }
    }

    pub(super) fn expect(&mut self, event: &Event) {
        match event {
            Event::Invoke { call, key, deadline } => self.expect_invoke(call.0, key, *deadline),
            Event::Cancel { call } => {
                let state = self.calls.get(call.0 as usize).map(|call| call.state);
                if let Some(CallState::Waiting | CallState::Leased(_)) = state {
                    self.must_settle.push(call.0);
                    if let Some(CallState::Leased(w)) = state {
                        self.must_kill.push(w);
                    }
                }
            }
            Event::Made { worker } => {
                if let Some(w) = self.known(*worker)
                    && self.workers[w as usize].is_alive()
                {
                    self.is_made(w);
                }
            }
            Event::Started { worker } => {
                if let Some(w) = self.known(*worker)
                    && self.workers[w as usize].state == State::Starting
                {
                    self.is_made(w);
                    self.leave_starting(w);
                    self.becomes_idle(w);
                }
            }
            Event::StartFailed { worker, blame } => {
                if let Some(w) = self.known(*worker)
                    && matches!(self.workers[w as usize].state, State::Starting | State::Cell)
                {
                    self.start_fails(w, *blame);
                }
            }
            Event::Answered { worker, lease, clean } => {
                if let Some((w, call)) = self.leased(*worker, *lease) {
                    self.must_settle.push(call);
                    self.becomes_idle(w);
                    if *clean {
                        if let Some(k) = self.workers[w as usize].key {
                            self.keys[k].failures = 0;
                        }
                    } else {
                        self.must_kill.push(w);
                    }
                }
            }
            Event::Undelivered { worker, lease } => {
                if let Some((w, call)) = self.leased(*worker, *lease) {
                    self.requeue(call);
                    self.becomes_idle(w);
                    self.must_kill.push(w);
                }
            }
            Event::Died { worker } => self.expect_death(*worker),
            Event::Reaped { worker } => {
                if let Some(w) = self.known(*worker)
                    && self.workers[w as usize].state == State::Killed
                {
                    self.is_reaped(w);
                }
            }
            Event::Evict { which, force } => self.expect_evict(which, *force),
            Event::SetHost(policy) => self.host = *policy,
            Event::SetTenant { tenant, policy } => {
                let now = self.now;
                if let Some(tenant) = self.tenants.get_mut(tenant.0 as usize) {
                    tenant.tokens.changed(now, tenant.policy.rate, policy.rate);
                    let olds: Vec<_> = (0..tenant.subs.len()).map(|s| tenant.sub_policy(s).rate).collect();
                    tenant.policy = *policy;
                    for (s, old) in olds.into_iter().enumerate() {
                        let new = tenant.sub_policy(s).rate;
                        tenant.subs[s].tokens.changed(now, old, new);
                    }
                }
            }
            Event::SetSubTenants { tenant, policies } => {
                let now = self.now;
                if let Some(tenant) = self.tenants.get_mut(tenant.0 as usize) {
                    for (sub_tenant, policy) in policies {
                        let s = sub_index(sub_tenant);
                        let old = tenant.sub_policy(s).rate;
                        tenant.subs[s].policy = *policy;
                        let new = tenant.sub_policy(s).rate;
                        tenant.subs[s].tokens.changed(now, old, new);
                    }
                }
            }
            Event::SetFunction { function, policy } => {
                if let Some(function) = self.functions.get_mut(function.0 as usize) {
                    function.policy = policy.clone();
                }
            }
            Event::SetMinimum { key, workers } => {
                let k = self.key_index(key.function, &key.sub_tenant);
                if self.functions.get(key.function.0 as usize).is_some_and(|f| !f.is_retired) {
                    self.keys[k].minimum = *workers;
                    self.keys[k].had_minimum |= *workers > 0;
                }
            }
            Event::Retire { function } => self.expect_retire(function.0 as usize),
            Event::Drain { deadline } => self.drain = Some(self.drain.map_or(*deadline, |old| old.min(*deadline))),
            Event::Undrain => (self.drain, self.is_drained) = (None, false),
            Event::Timer => {}
        }
    }

    fn expect_invoke(&mut self, call: u64, key: &PoolKey, deadline: Tick) {
        assert!(call as usize == self.calls.len(), "the driver counts its calls up");
        let k = self.key_index(key.function, &key.sub_tenant);
        let is_known = k < self.keys.len();
        // A call of a function that never was is kept on the first key; it is refused.
        let k = if is_known { k } else { 0 };
        self.calls.push(Call { key: k, deadline, state: CallState::Arriving, died_with: None });
        let own = &self.keys[k];
        let age_max = self.functions[own.function].policy.age_max;
        let calls_max = self.functions[own.function].policy.calls_max;
        let is_fit = |w: &u64| {
            let worker = &self.workers[*w as usize];
            age_max.is_none_or(|max| self.now.since(worker.born) < max)
                && (worker.calls == 0 || calls_max.is_none_or(|max| worker.calls < max))
        };
        let had_idle = own.idle.iter().any(is_fit);
        // Places promised are not seen from outside: every one that comes free could be.
        let covered = u64::from(own.starting + self.reaping);
        let limit = u64::from(self.functions[own.function].policy.queue_max);
        self.arriving = Some(Arrival {
            call,
            queue_was_full: own.queue.len() as u64 >= limit + covered,
            host_queue_was_full: self.waiting >= self.host.calls_waiting_max,
            was_backing_off: self.backs_off_until(k).is_some_and(|until| self.now < until),
            had_idle,
        });
        if is_known {
            self.touch(k);
        }
    }

    fn open_until(&self, k: usize) -> Option<Tick> {
        let key = &self.keys[k];
        let over = key.failures.checked_sub(FAILURES_BEFORE_BACKOFF)?;
        let pause = BACKOFF_FIRST.saturating_mul(1_u32.checked_shl(over).unwrap_or(u32::MAX)).min(BACKOFF_MAX);
        Some(key.failed_at + pause)
    }

    /// Half a minute after its pause a key's failures are forgotten: then their row begins anew.
    fn is_forgotten(&self, k: usize) -> bool {
        self.now >= self.open_until(k).unwrap_or(self.keys[k].failed_at) + BACKOFF_MAX
    }

    /// The end of a key's back-off, if it has failed often enough and that is not forgotten.
    pub(crate) fn backs_off_until(&self, k: usize) -> Option<Tick> {
        self.open_until(k).filter(|_| !self.is_forgotten(k))
    }

    pub(super) fn key_fails(&mut self, k: usize) {
        let now = self.now;
        let is_new = self.is_forgotten(k);
        let key = &mut self.keys[k];
        key.failures = if is_new { 1 } else { key.failures + 1 };
        key.failed_at = now;
        key.has_ever_failed = true;
    }

    fn is_made(&mut self, w: u64) {
        let worker = &mut self.workers[w as usize];
        if std::mem::take(&mut worker.is_making) {
            self.making -= 1;
        }
    }

    pub(super) fn leave_starting(&mut self, w: u64) {
        if let Some(k) = self.workers[w as usize].key {
            self.keys[k].starting -= 1;
            self.touch(k);
        }
    }

    pub(super) fn becomes_idle(&mut self, w: u64) {
        let since = self.now;
        self.workers[w as usize].state = State::Idle { since, frozen: false };
        if let Some(k) = self.workers[w as usize].key {
            self.keys[k].idle.push(w);
            self.touch(k);
        }
    }

    fn start_fails(&mut self, w: u64, blame: Blame) {
        self.must_kill.push(w);
        if let Some(k) = self.workers[w as usize].key {
            if blame == Blame::Theirs {
                self.key_fails(k);
            }
            self.keys[k].warm = 0;
            self.touch(k);
        }
    }

    pub(super) fn requeue(&mut self, call: u64) {
        let k = self.calls[call as usize].key;
        self.calls[call as usize].state = CallState::Waiting;
        self.keys[k].queue.push_front(call);
        self.waiting += 1;
        self.touch(k);
    }

    fn expect_death(&mut self, id: WorkerId) {
        let Some(w) = self.known(id) else { return };
        let worker = self.workers[w as usize];
        match worker.state {
            State::Killed | State::Reaped => return,
            State::Cell | State::Starting => return self.start_fails(w, Blame::Theirs),
            State::Idle { .. } => {}
            State::Leased { call, .. } => {
                let is_idempotent = self.functions[worker.function].policy.is_idempotent;
                if is_idempotent && self.calls[call as usize].died_with.is_none() {
                    self.calls[call as usize].died_with = Some(w);
                    self.requeue(call);
                    // It may be answered at once when its key backs off, so it is not owed an answer, nor denied one.
                } else {
                    self.must_settle.push(call);
                }
                self.becomes_idle(w);
                if let Some(k) = worker.key {
                    self.key_fails(k);
                }
            }
        }
        self.died = Some(w);
        self.must_kill.push(w);
    }

    fn is_reaped(&mut self, w: u64) {
        let worker = self.workers[w as usize];
        self.workers[w as usize].state = State::Reaped;
        self.alive.retain(|other| *other != w);
        self.reaping -= 1;
        let function = &mut self.functions[worker.function];
        function.workers -= 1;
        let tenant = &mut self.tenants[function.tenant];
        tenant.workers -= 1;
        if let Some(k) = worker.key {
            self.keys[k].workers -= 1;
            tenant.subs[self.keys[k].sub].workers -= 1;
        }
    }

    fn expect_evict(&mut self, which: &Selector, force: bool) {
        self.is_forced = force;
        for at in 0..self.alive.len() {
            let w = self.alive[at];
            let worker = &self.workers[w as usize];
            let tenant = self.functions[worker.function].tenant;
            let is_meant = match which {
                Selector::All => true,
                Selector::Worker(id) => id.0 == w,
                Selector::Match { tenant: t, functions, sub_tenant } => {
                    t.is_none_or(|t| t.0 as usize == tenant)
                        && functions.as_ref().is_none_or(|all| all.iter().any(|f| f.0 as usize == worker.function))
                        && sub_tenant
                            .as_ref()
                            .is_none_or(|label| worker.key.is_some_and(|k| self.keys[k].sub == sub_index(label)))
                }
            };
            if !is_meant {
                continue;
            }
            match worker.state {
                State::Killed | State::Reaped => {}
                State::Cell | State::Idle { .. } => self.must_kill.push(w),
                State::Starting if force => self.must_kill.push(w),
                State::Leased { call, .. } if force => {
                    self.must_settle.push(call);
                    self.must_kill.push(w);
                }
                State::Starting | State::Leased { .. } => {}
            }
        }
    }

    fn expect_retire(&mut self, f: usize) {
        let Some(function) = self.functions.get_mut(f) else { return };
        if std::mem::replace(&mut function.is_retired, true) {
            return;
        }
        for k in f * self.labels..(f + 1) * self.labels {
            self.keys[k].minimum = 0;
            self.keys[k].warm = 0;
        }
        let idle = |w: &u64| {
            let worker = &self.workers[*w as usize];
            worker.function == f && matches!(worker.state, State::Cell | State::Idle { .. })
        };
        self.must_kill.extend(self.alive.iter().copied().filter(idle));
    }

    pub(super) fn watch_deadline(&mut self, call: u64) {
        self.deadlines.push(Reverse((self.calls[call as usize].deadline, call)));
    }

    /// Calls whose time is over; each is told once.
    pub(super) fn past_deadline(&mut self) -> Option<u64> {
        let Reverse((at, _)) = self.deadlines.peek()?;
        if *at > self.now {
            return None;
        }
        self.deadlines.pop().map(|Reverse((_, call))| call)
    }
}
