//! Limits that change while calls run: raised, those who wait go on at once; lowered, what is over goes when it is idle,
//! and no call is cut.

use crate::{
    event::{Action, KillReason, LimitLevel, WarmRefusal},
    key::{FunctionId, PoolKey, SubTenant, TenantId},
    lists::IdleList,
    policy::{FunctionPolicy, HostPolicy, SubTenantPolicy, TenantPolicy},
    pool::Pool,
    records::{FunctionState, Occupant, Worker, WorkerState},
    slots::{KeySlot, WorkerSlot},
    time::Tick,
    timers::Timer,
};

impl Pool {
    pub(super) fn set_host(&mut self, policy: HostPolicy, out: &mut Vec<Action>) {
        self.host.policy = policy;
        self.host.is_blocked = false;
        while self.host.cell_bytes > self.host.policy.cells_memory_max
            && let Some(cell) = self.host.cells.front().copied()
        {
            self.kill(cell, KillReason::OverCap, out);
        }
        self.shrink(|_| true, out);
    }

    pub(super) fn set_tenant(&mut self, t: TenantId, policy: TenantPolicy, out: &mut Vec<Action>) {
        if t.0 as usize >= self.tenants.len() {
            return;
        }
        self.tenant_mut(t).policy = policy;
        self.refresh_tenant(t, out);
    }

    pub(super) fn set_sub_tenants(
        &mut self,
        t: TenantId,
        policies: Vec<(SubTenant, Option<SubTenantPolicy>)>,
        out: &mut Vec<Action>,
    ) {
        if t.0 as usize >= self.tenants.len() {
            return;
        }
        let own = &mut self.tenant_mut(t).own_policies;
        for (label, policy) in policies {
            match policy {
                Some(policy) => own.insert(label, policy),
                None => own.remove(&label),
            };
        }
        self.refresh_tenant(t, out);
    }

    fn refresh_tenant(&mut self, t: TenantId, out: &mut Vec<Action>) {
        for f in 0..self.functions.len() {
            if self.functions[f].tenant == t {
                self.unblock(FunctionId(f as u32));
            }
        }
        self.unblock_keys(|pool, k| pool.subs[pool.keys[k].sub_tenant].tenant == t);
        self.shrink(|function| function.1 == t, out);
    }

    pub(super) fn set_function(&mut self, f: FunctionId, policy: FunctionPolicy, out: &mut Vec<Action>) {
        if f.0 as usize >= self.functions.len() {
            return;
        }
        self.function_mut(f).policy = policy;
        self.unblock(f);
        self.unblock_keys(|pool, k| pool.keys[k].function == f);
        // Ages and idle times are counted from when they began, under the new limits.
        let age_max = self.function(f).policy.age_max;
        let all: Vec<_> = self.workers.iter().filter(|(_, o)| o.function() == f).map(|(w, o)| (w, o.id())).collect();
        for (w, id) in all {
            if let Some(age) = age_max {
                self.timers.set(self.created(w) + age, Timer::Worker(id));
            }
        }
        self.function_mut(f).idle_armed = None;
        self.arm_idle(f);
        while self.function(f).cells_ready.len() as u32 > self.cells_target(f)
            && let Some(cell) = self.function(f).cells_ready.front().copied()
        {
            self.kill(cell, KillReason::Surplus, out);
        }
        self.shrink(|function| function.0 == f, out);
    }

    pub(super) fn unblock_keys(&mut self, which: impl Fn(&Self, KeySlot) -> bool) {
        let all: Vec<KeySlot> = self.keys.iter().map(|(k, _)| k).filter(|k| which(self, *k)).collect();
        for k in all {
            self.keys[k].is_blocked = false;
            self.touch(k);
        }
    }

    /// Ends idle workers and cells while a limit is passed, least recently used first, and those that must go for another
    /// reason now.
    fn shrink(&mut self, which: impl Fn((FunctionId, TenantId)) -> bool, out: &mut Vec<Action>) {
        let cells: Vec<WorkerSlot> = self.host.cells.iter().copied().collect();
        for w in cells {
            if self.is_over_wide_cap(self.workers[w].function()) {
                self.kill(w, KillReason::OverCap, out);
            }
        }
        let idle: Vec<WorkerSlot> = self.host.idle.iter(&self.workers, IdleList::Host).collect();
        for w in idle {
            let f = self.workers[w].function();
            if which((f, self.function(f).tenant))
                && let Some(why) = self.retire_reason(w)
            {
                self.kill(w, why, out);
            }
        }
    }

    /// Whether the host, its tenant or the function has more than it may have, without those that are going anyway.
    fn is_over_wide_cap(&self, f: FunctionId) -> bool {
        let (host, function) = (&self.host, self.function(f));
        let tenant = self.tenant(function.tenant);
        host.workers - host.leaving > host.policy.workers_max
            || tenant.workers - tenant.leaving > tenant.policy.workers_max
            || function.workers - function.leaving > function.policy.workers_max
    }

    /// Whether a limit was lowered below what runs, and this worker's end would help.
    pub(super) fn is_over_cap(&self, worker: &Worker) -> bool {
        let key = &self.keys[worker.key];
        let sub = &self.subs[key.sub_tenant];
        let of_sub = || sub.keys.iter().map(|(_, k)| self.keys[*k].live()).sum::<u32>();
        self.is_over_wide_cap(worker.function)
            || key.live() > self.function(worker.function).policy.workers_per_sub_tenant_max
            || of_sub() > self.policy_of_sub(key.sub_tenant).workers_max
    }

    pub(super) fn set_minimum(&mut self, key: &PoolKey, workers: u32) {
        let is_live = self.functions.get(key.function.0 as usize).is_some_and(|f| f.state == FunctionState::Live);
        if !is_live {
            return;
        }
        let k = self.key_record(key);
        self.keys[k].minimum = workers;
        self.touch(k);
        // What was kept for it may go now.
        self.unblock_key(k);
        self.tidy(k);
    }

    pub(super) fn retire(&mut self, f: FunctionId, out: &mut Vec<Action>) {
        match self.functions.get(f.0 as usize).map(|function| function.state) {
            Some(FunctionState::Live) => {}
            Some(FunctionState::Retiring | FunctionState::Gone) | None => return,
        }
        self.function_mut(f).state = FunctionState::Retiring;
        self.retiring.push(f);
        let all: Vec<WorkerSlot> = self.workers.iter().filter(|(_, o)| o.function() == f).map(|(w, _)| w).collect();
        let keys: Vec<KeySlot> = self.keys.iter().filter(|(_, key)| key.function == f).map(|(k, _)| k).collect();
        for k in &keys {
            self.keys[*k].minimum = 0;
            self.keys[*k].warm_target = 0;
            self.touch(*k);
        }
        for w in all {
            match &self.workers[w] {
                Occupant::Reaping(_) => {}
                Occupant::Cell(_) => self.kill(w, KillReason::FunctionRetired, out),
                Occupant::Worker(worker) => match worker.state {
                    WorkerState::Idle { .. } => self.kill(w, KillReason::FunctionRetired, out),
                    WorkerState::Starting { .. } => {
                        if self.keys[worker.key].waiting == 0 {
                            self.kill(w, KillReason::FunctionRetired, out);
                        }
                    }
                    // Its queue may need it; when that is empty, it goes.
                    WorkerState::Leased { .. } | WorkerState::Draining { .. } => {}
                },
            }
        }
        for k in keys {
            self.tidy(k);
        }
    }

    /// Has workers of a key made until `count` of them live. Returns how many are being made for that, or will be as soon
    /// as places are free.
    ///
    /// # Errors
    /// Nothing is changed when the function is unknown, or a limit does not allow so many.
    pub fn warm(&mut self, now: Tick, key: &PoolKey, count: u32, out: &mut Vec<Action>) -> Result<u32, WarmRefusal> {
        self.now = self.now.max(now);
        if self.drain.is_some() {
            return Err(WarmRefusal::Draining);
        }
        let function = (self.functions.get(key.function.0 as usize))
            .filter(|function| function.state == FunctionState::Live)
            .ok_or(WarmRefusal::UnknownFunction)?;
        let tenant = self.tenant(function.tenant);
        let sub = self.sub_policy(function.tenant, &key.sub_tenant);
        let of_sub = sub.workers_max;
        for (level, limit) in [
            (LimitLevel::SubTenant, of_sub.min(function.policy.workers_per_sub_tenant_max)),
            (LimitLevel::Function, function.policy.workers_max),
            (LimitLevel::Tenant, tenant.policy.workers_max),
            (LimitLevel::Host, self.host.policy.workers_max),
        ] {
            if count > limit {
                return Err(WarmRefusal::OverCap { level, limit });
            }
        }
        if let Some(retry_after) = self.find_key(key).and_then(|k| self.keys[k].breaker.is_open_for(self.now)) {
            return Err(WarmRefusal::CrashBackoff { retry_after });
        }
        let k = self.key_record(key);
        let missing = count.saturating_sub(self.keys[k].live());
        if missing > 0 {
            self.keys[k].warm_target = self.keys[k].warm_target.max(count);
            self.touch(k);
            self.feed(None, out);
            self.keep_cells(out);
        }
        self.tidy(k);
        Ok(missing)
    }
}
