//! The pool: books, and the rules that keep them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use crate::{
    event::{Action, CallId, End, Event, KillReason, LeaseId, Refusal, Selector, Stage, Start, Tick, WorkerId},
    key::{PoolKey, SubTenant},
    policy::{FunctionPolicy, HostPolicy, TenantPolicy},
};

/// Failures in a row after which a key backs off.
const FAILURES_BEFORE_BACKOFF: u32 = 3;
/// First back-off; doubles with each further failure.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest back-off.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) enum State {
    Starting { deadline: Tick },
    Idle { since: Tick, frozen: bool },
    Leased { call: CallId, lease: LeaseId },
    Reaping,
}

#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) key: PoolKey,
    pub(crate) state: State,
    pub(crate) created: Tick,
    pub(crate) calls: u64,
    /// When its timer is set, exactly; so that it can be taken back.
    pub(crate) timer: Option<Tick>,
}

#[derive(Debug)]
pub(crate) enum Place {
    Waiting,
    Leased(WorkerId),
}

#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) key: PoolKey,
    pub(crate) deadline: Tick,
    pub(crate) place: Place,
}

/// Everything about one pool key; kept only while there is something to keep.
#[derive(Debug, Default)]
pub(crate) struct Record {
    pub(crate) waiting: VecDeque<CallId>,
    /// Newest last.
    pub(crate) idle: Vec<WorkerId>,
    pub(crate) starting: u32,
    pub(crate) workers: u32,
    pub(crate) failures: u32,
    pub(crate) backoff_until: Option<Tick>,
    /// Whether the key stands in `Pool::hungry`.
    pub(crate) is_hungry: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    Call(CallId),
    Worker(WorkerId),
}

/// The pool.
#[derive(Debug)]
pub struct Pool {
    pub(crate) host: HostPolicy,
    pub(crate) tenants: HashMap<Arc<str>, TenantPolicy>,
    pub(crate) functions: HashMap<(Arc<str>, Arc<str>, u64), FunctionPolicy>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) calls: HashMap<CallId, Call>,
    pub(crate) records: HashMap<PoolKey, Record>,
    /// Keys with calls that no worker is being made for, each once, in the order of their turn.
    pub(crate) hungry: VecDeque<PoolKey>,
    /// Idle workers, least recently used first.
    pub(crate) idle: BTreeSet<(Tick, WorkerId)>,
    pub(crate) timers: BTreeSet<(Tick, Timer)>,
    pub(crate) tenant_workers: HashMap<Arc<str>, u32>,
    pub(crate) function_workers: HashMap<(Arc<str>, Arc<str>), u32>,
    pub(crate) sub_tenant_workers: HashMap<(Arc<str>, SubTenant), u32>,
    pub(crate) tenant_calls: HashMap<Arc<str>, u32>,
    pub(crate) starting: u32,
    pub(crate) reaping: u32,
    pub(crate) waiting: u32,
    pub(crate) leased: u32,
    pub(crate) drain: Option<Tick>,
    pub(crate) drained: bool,
    pub(crate) last_worker: u64,
    pub(crate) last_lease: u64,
}

impl Pool {
    /// An empty pool.
    pub fn new(host: HostPolicy) -> Self {
        Self {
            host,
            tenants: HashMap::new(),
            functions: HashMap::new(),
            workers: BTreeMap::new(),
            calls: HashMap::new(),
            records: HashMap::new(),
            hungry: VecDeque::new(),
            idle: BTreeSet::new(),
            timers: BTreeSet::new(),
            tenant_workers: HashMap::new(),
            function_workers: HashMap::new(),
            sub_tenant_workers: HashMap::new(),
            tenant_calls: HashMap::new(),
            starting: 0,
            reaping: 0,
            waiting: 0,
            leased: 0,
            drain: None,
            drained: false,
            last_worker: 0,
            last_lease: 0,
        }
    }

    /// Sets a tenant's limits.
    pub fn set_tenant(&mut self, tenant: Arc<str>, policy: TenantPolicy) {
        self.tenants.insert(tenant, policy);
    }

    /// Sets a function's limits.
    pub fn set_function(&mut self, tenant: Arc<str>, function: Arc<str>, revision: u64, policy: FunctionPolicy) {
        self.functions.insert((tenant, function, revision), policy);
    }

    /// When [`Event::Timer`] is due.
    pub fn next_wakeup(&self) -> Option<Tick> {
        let timer = self.timers.first().map(|(at, _)| *at);
        match (timer, self.drain) {
            (Some(timer), Some(drain)) if !self.drained => Some(timer.min(drain)),
            (None, Some(drain)) if !self.drained => Some(drain),
            (timer, _) => timer,
        }
    }

    /// Whether new calls are refused.
    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Takes one event in; what must be done is appended to `out`.
    pub fn handle(&mut self, now: Tick, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Invoke { call, key, deadline } => self.invoke(now, call, key, deadline, out),
            Event::Cancel { call } => self.cancel(call, out),
            Event::Started { worker } => self.started(now, worker, out),
            Event::StartFailed { worker } => self.start_failed(now, worker, KillReason::StartFailed, out),
            Event::Answered { worker, lease, clean } => self.answered(now, worker, lease, clean, out),
            Event::Died { worker } => self.died(now, worker, out),
            Event::Reaped { worker } => self.reaped(worker),
            Event::Evict { which, force } => self.evict(&which, force, out),
            Event::Drain { deadline } => self.drain = Some(self.drain.map_or(deadline, |old| old.min(deadline))),
            Event::Timer => {}
        }
        self.expire(now, out);
        self.feed(now, out);
        self.drain(now, out);
    }

    fn invoke(&mut self, now: Tick, call: CallId, key: PoolKey, deadline: Tick, out: &mut Vec<Action>) {
        if let Err(refusal) = self.admit(now, &key, deadline) {
            out.push(Action::Settle { call, end: End::Refused(refusal) });
            return;
        }
        *self.tenant_calls.entry(key.tenant.clone()).or_default() += 1;
        self.timers.insert((deadline, Timer::Call(call)));
        self.calls.insert(call, Call { key: key.clone(), deadline, place: Place::Waiting });
        let record = self.records.entry(key.clone()).or_default();
        self.waiting += 1;
        match record.idle.last() {
            Some(worker) => {
                let worker = *worker;
                self.deliver(call, worker, out);
            }
            None => {
                record.waiting.push_back(call);
                self.set_hungry(&key);
            }
        }
    }

    fn admit(&self, now: Tick, key: &PoolKey, deadline: Tick) -> Result<(), Refusal> {
        if self.drain.is_some() {
            return Err(Refusal::Draining);
        }
        if deadline <= now {
            return Err(Refusal::DeadlinePast);
        }
        let function = self.function(key).ok_or(Refusal::UnknownFunction)?;
        if let Some(tenant) = self.tenants.get(&key.tenant)
            && self.tenant_calls.get(&key.tenant).is_some_and(|calls| *calls >= tenant.calls_in_flight_max)
        {
            return Err(Refusal::TenantCallsFull { limit: tenant.calls_in_flight_max });
        }
        let Some(record) = self.records.get(key) else { return self.admit_waiting() };
        if !record.idle.is_empty() {
            return Ok(());
        }
        if let Some(until) = record.backoff_until.filter(|until| *until > now) {
            return Err(Refusal::CrashBackoff { retry_after: until.since(now) });
        }
        // A call that a worker is being made for does not stand in the queue.
        if record.waiting.len() as u64 >= u64::from(function.queue_max) + u64::from(record.starting) {
            return Err(Refusal::QueueFull { limit: function.queue_max });
        }
        self.admit_waiting()
    }

    fn admit_waiting(&self) -> Result<(), Refusal> {
        let limit = self.host.calls_waiting_max;
        if self.waiting >= limit { Err(Refusal::CallsWaitingFull { limit }) } else { Ok(()) }
    }

    pub(crate) fn function(&self, key: &PoolKey) -> Option<&FunctionPolicy> {
        self.functions.get(&(key.tenant.clone(), key.function.clone(), key.revision))
    }

    /// Gives a waiting call to an idle worker of its key.
    fn deliver(&mut self, call: CallId, id: WorkerId, out: &mut Vec<Action>) {
        let (Some(worker), Some(entry)) = (self.workers.get_mut(&id), self.calls.get_mut(&call)) else { return };
        assert!(worker.key == entry.key, "a worker serves one pool key for life");
        let State::Idle { since, frozen } = worker.state else { return };
        self.idle.remove(&(since, id));
        if let Some(at) = worker.timer.take() {
            self.timers.remove(&(at, Timer::Worker(id)));
        }
        self.last_lease += 1;
        let lease = LeaseId(self.last_lease);
        let start = if worker.calls == 0 { Start::Cold } else { Start::Warm };
        worker.calls += 1;
        worker.state = State::Leased { call, lease };
        entry.place = Place::Leased(id);
        self.waiting -= 1;
        self.leased += 1;
        if let Some(record) = self.records.get_mut(&worker.key) {
            record.idle.retain(|idle| *idle != id);
        }
        out.push(Action::Deliver { call, worker: id, lease, start, thaw: frozen, deadline: entry.deadline });
    }

    /// Takes a call off the books and says how it ended.
    fn settle(&mut self, call: CallId, end: End, out: &mut Vec<Action>) {
        let Some(entry) = self.calls.remove(&call) else { return };
        self.timers.remove(&(entry.deadline, Timer::Call(call)));
        match entry.place {
            Place::Waiting => {
                self.waiting -= 1;
                if let Some(record) = self.records.get_mut(&entry.key) {
                    record.waiting.retain(|waiting| *waiting != call);
                }
            }
            Place::Leased(_) => self.leased -= 1,
        }
        if let Some(calls) = self.tenant_calls.get_mut(&entry.key.tenant) {
            *calls -= 1;
            if *calls == 0 {
                self.tenant_calls.remove(&entry.key.tenant);
            }
        }
        out.push(Action::Settle { call, end });
        self.tidy(&entry.key);
    }

    /// Ends a worker, whatever it does. Its call, if it has one, must be settled by the caller.
    fn kill(&mut self, id: WorkerId, why: KillReason, out: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(record) = self.records.get_mut(&worker.key) else { return };
        match std::mem::replace(&mut worker.state, State::Reaping) {
            State::Starting { .. } => {
                record.starting -= 1;
                self.starting -= 1;
            }
            State::Idle { since, .. } => {
                record.idle.retain(|idle| *idle != id);
                self.idle.remove(&(since, id));
            }
            State::Leased { .. } => {}
            State::Reaping => return,
        }
        if let Some(at) = worker.timer.take() {
            self.timers.remove(&(at, Timer::Worker(id)));
        }
        self.reaping += 1;
        let key = worker.key.clone();
        out.push(Action::Kill { worker: id, why });
        self.set_hungry(&key);
    }

    fn started(&mut self, now: Tick, id: WorkerId, out: &mut Vec<Action>) {
        let Some(worker) = self.workers.get(&id) else { return };
        match worker.state {
            State::Starting { .. } => {}
            State::Idle { .. } | State::Leased { .. } | State::Reaping => return,
        }
        self.starting -= 1;
        if let Some(record) = self.records.get_mut(&worker.key) {
            record.starting -= 1;
        }
        self.become_idle(now, id, out);
    }

    /// A worker without a call takes the oldest one that waits for its key, or waits itself.
    fn become_idle(&mut self, now: Tick, id: WorkerId, out: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let key = worker.key.clone();
        if let Some(at) = worker.timer.take() {
            self.timers.remove(&(at, Timer::Worker(id)));
        }
        worker.state = State::Idle { since: now, frozen: false };
        self.idle.insert((now, id));
        let policy = self.function(&key).cloned();
        let (calls, created) = self.workers.get(&id).map_or((0, now), |worker| (worker.calls, worker.created));
        let Some(policy) = policy else { return self.kill(id, KillReason::Evicted, out) };
        if calls > 0 && policy.calls_max.is_some_and(|max| calls >= max) {
            return self.kill(id, KillReason::CallsMax, out);
        }
        if policy.age_max.is_some_and(|max| now.since(created) >= max) {
            return self.kill(id, KillReason::AgeMax, out);
        }
        let Some(record) = self.records.get_mut(&key) else { return };
        record.idle.push(id);
        if let Some(call) = record.waiting.pop_front() {
            return self.deliver(call, id, out);
        }
        let freeze = policy.freeze_after.filter(|after| *after < policy.idle_ttl);
        if freeze == Some(Duration::ZERO) {
            self.freeze(id, out);
        }
        let first = freeze.filter(|after| !after.is_zero()).unwrap_or(policy.idle_ttl);
        self.set_timer(id, now + first);
    }

    fn freeze(&mut self, id: WorkerId, out: &mut Vec<Action>) {
        if let Some(Worker { state: State::Idle { frozen, .. }, .. }) = self.workers.get_mut(&id) {
            *frozen = true;
            out.push(Action::Freeze { worker: id });
        }
    }

    fn set_timer(&mut self, id: WorkerId, at: Tick) {
        if let Some(worker) = self.workers.get_mut(&id) {
            if let Some(old) = worker.timer.replace(at) {
                self.timers.remove(&(old, Timer::Worker(id)));
            }
            self.timers.insert((at, Timer::Worker(id)));
        }
    }

    fn start_failed(&mut self, now: Tick, id: WorkerId, why: KillReason, out: &mut Vec<Action>) {
        let Some(worker) = self.workers.get(&id) else { return };
        match worker.state {
            State::Starting { .. } => {}
            State::Idle { .. } | State::Leased { .. } | State::Reaping => return,
        }
        let key = worker.key.clone();
        self.kill(id, why, out);
        let backs_off = self.count_failure(now, &key);
        let Some(record) = self.records.get(&key) else { return };
        // Each failed worker answers one call; once the key backs off, all that wait.
        let failed: Vec<CallId> = record.waiting.iter().copied().take(if backs_off { usize::MAX } else { 1 }).collect();
        for call in failed {
            self.settle(call, End::StartFailed { worker: id }, out);
        }
    }

    /// Counts a failure; true when the key backs off from now on.
    fn count_failure(&mut self, now: Tick, key: &PoolKey) -> bool {
        let Some(record) = self.records.get_mut(key) else { return false };
        record.failures = record.failures.saturating_add(1);
        let Some(over) = record.failures.checked_sub(FAILURES_BEFORE_BACKOFF) else { return false };
        let pause = BACKOFF_FIRST.saturating_mul(1_u32.checked_shl(over).unwrap_or(u32::MAX)).min(BACKOFF_MAX);
        record.backoff_until = Some(now + pause);
        true
    }

    fn answered(&mut self, now: Tick, id: WorkerId, lease: LeaseId, clean: bool, out: &mut Vec<Action>) {
        let Some(worker) = self.workers.get(&id) else { return };
        let call = match worker.state {
            State::Leased { call, lease: current } if current == lease => call,
            State::Leased { .. } | State::Starting { .. } | State::Idle { .. } | State::Reaping => return,
        };
        let key = worker.key.clone();
        self.settle(call, End::Answered { worker: id, lease }, out);
        if !clean {
            return self.kill(id, KillReason::Tainted, out);
        }
        if let Some(record) = self.records.get_mut(&key) {
            record.failures = 0;
            record.backoff_until = None;
        }
        self.become_idle(now, id, out);
    }

    fn died(&mut self, now: Tick, id: WorkerId, out: &mut Vec<Action>) {
        let Some(worker) = self.workers.get(&id) else { return };
        match worker.state {
            State::Starting { .. } => self.start_failed(now, id, KillReason::Died, out),
            State::Idle { .. } => self.kill(id, KillReason::Died, out),
            State::Leased { call, .. } => {
                let key = worker.key.clone();
                self.settle(call, End::WorkerDied { worker: id }, out);
                self.kill(id, KillReason::Died, out);
                self.count_failure(now, &key);
            }
            State::Reaping => {}
        }
    }

    fn reaped(&mut self, id: WorkerId) {
        if !matches!(self.workers.get(&id), Some(Worker { state: State::Reaping, .. })) {
            return;
        }
        let Some(worker) = self.workers.remove(&id) else { return };
        self.reaping -= 1;
        let key = worker.key;
        decrement(&mut self.tenant_workers, &key.tenant);
        decrement(&mut self.function_workers, &(key.tenant.clone(), key.function.clone()));
        decrement(&mut self.sub_tenant_workers, &(key.tenant.clone(), key.sub_tenant.clone()));
        if let Some(record) = self.records.get_mut(&key) {
            record.workers -= 1;
        }
        self.tidy(&key);
    }

    fn cancel(&mut self, call: CallId, out: &mut Vec<Action>) {
        let Some(entry) = self.calls.get(&call) else { return };
        match entry.place {
            Place::Waiting => {
                let at = self.waiting_stage(&entry.key);
                self.settle(call, End::Cancelled { at, worker: None }, out);
            }
            Place::Leased(worker) => {
                self.settle(call, End::Cancelled { at: Stage::Leased, worker: Some(worker) }, out);
                self.kill(worker, KillReason::Cancelled, out);
            }
        }
    }

    fn waiting_stage(&self, key: &PoolKey) -> Stage {
        if self.records.get(key).is_some_and(|record| record.starting > 0) { Stage::Starting } else { Stage::Queued }
    }

    fn evict(&mut self, which: &Selector, force: bool, out: &mut Vec<Action>) {
        let chosen: Vec<WorkerId> =
            self.workers.iter().filter(|(id, worker)| which.matches(**id, &worker.key)).map(|(id, _)| *id).collect();
        for id in chosen {
            match self.workers.get(&id).map(|worker| &worker.state) {
                Some(State::Idle { .. }) => self.kill(id, KillReason::Evicted, out),
                Some(State::Starting { .. }) if force => self.kill(id, KillReason::Evicted, out),
                Some(State::Leased { call, .. }) if force => {
                    let call = *call;
                    self.settle(call, End::Evicted { worker: id }, out);
                    self.kill(id, KillReason::Evicted, out);
                }
                Some(State::Starting { .. } | State::Leased { .. } | State::Reaping) | None => {}
            }
        }
    }

    /// Acts on every timer that has passed.
    fn expire(&mut self, now: Tick, out: &mut Vec<Action>) {
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Call(call) => self.call_expired(call, out),
                Timer::Worker(id) => self.worker_expired(now, id, out),
            }
        }
    }

    fn call_expired(&mut self, call: CallId, out: &mut Vec<Action>) {
        let Some(entry) = self.calls.get(&call) else { return };
        match entry.place {
            Place::Waiting => {
                let at = self.waiting_stage(&entry.key);
                self.settle(call, End::Deadline { at, worker: None }, out);
            }
            Place::Leased(worker) => {
                self.settle(call, End::Deadline { at: Stage::Leased, worker: Some(worker) }, out);
                self.kill(worker, KillReason::Deadline, out);
            }
        }
    }

    fn worker_expired(&mut self, now: Tick, id: WorkerId, out: &mut Vec<Action>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        worker.timer = None;
        match worker.state {
            State::Starting { .. } => self.start_failed(now, id, KillReason::StartTimeout, out),
            State::Idle { since, frozen } => {
                let key = worker.key.clone();
                let Some(policy) = self.function(&key).cloned() else {
                    return self.kill(id, KillReason::Evicted, out);
                };
                if now >= since + policy.idle_ttl {
                    return self.kill(id, KillReason::IdleTtl, out);
                }
                if !frozen {
                    self.freeze(id, out);
                }
                self.set_timer(id, since + policy.idle_ttl);
            }
            State::Leased { .. } | State::Reaping => {}
        }
    }

    fn set_hungry(&mut self, key: &PoolKey) {
        if let Some(record) = self.records.get_mut(key)
            && !record.is_hungry
            && record.waiting.len() > record.starting as usize
        {
            record.is_hungry = true;
            self.hungry.push_back(key.clone());
        }
    }

    /// Makes workers for calls that none is being made for: one for each key in turn, as far as the caps go.
    fn feed(&mut self, now: Tick, out: &mut Vec<Action>) {
        let mut evictions = self.reaping;
        let mut idle_turns = 0;
        while idle_turns < self.hungry.len()
            && let Some(key) = self.hungry.pop_front()
        {
            let Some(record) = self.records.get_mut(&key) else { continue };
            record.is_hungry = false;
            if record.waiting.len() <= record.starting as usize {
                continue;
            }
            if self.make_worker(now, &key, &mut evictions, out) {
                idle_turns = 0;
            } else {
                idle_turns += 1;
            }
            self.set_hungry(&key);
        }
    }

    fn make_worker(&mut self, now: Tick, key: &PoolKey, evictions: &mut u32, out: &mut Vec<Action>) -> bool {
        let Some(policy) = self.function(key).cloned() else { return false };
        let key_workers = self.records.get(key).map_or(0, |record| record.workers);
        if key_workers >= policy.workers_per_sub_tenant_max || self.starting >= self.host.starts_max {
            return false;
        }
        let tenant_max = self.tenants.get(&key.tenant).map_or(u32::MAX, |tenant| tenant.workers_max);
        let sub_tenant_max = self.tenants.get(&key.tenant).map_or(u32::MAX, |tenant| tenant.sub_tenant_workers_max);
        let sub_tenant = (key.tenant.clone(), key.sub_tenant.clone());
        let function = (key.tenant.clone(), key.function.clone());
        let host_full = self.workers.len() >= self.host.workers_max as usize;
        let tenant_full = self.tenant_workers.get(&key.tenant).is_some_and(|n| *n >= tenant_max);
        let function_full = self.function_workers.get(&function).is_some_and(|n| *n >= policy.workers_max);
        // Shared workers are nobody's in particular: their function's cap is theirs.
        let sub_tenant_full = !key.sub_tenant.is_shared()
            && self.sub_tenant_workers.get(&sub_tenant).is_some_and(|n| *n >= sub_tenant_max);
        if host_full || tenant_full || function_full || sub_tenant_full {
            // The narrowest full level decides whose idle worker may go: another's place would not help.
            let helps = |other: &PoolKey| {
                (!function_full || (other.tenant == key.tenant && other.function == key.function))
                    && (!sub_tenant_full || (other.tenant == key.tenant && other.sub_tenant == key.sub_tenant))
                    && (!tenant_full || other.tenant == key.tenant)
            };
            // Places already on their way back are waited for first.
            if *evictions > 0 {
                *evictions -= 1;
                return false;
            }
            let victim =
                self.idle.iter().map(|(_, id)| *id).find(|id| self.workers.get(id).is_some_and(|w| helps(&w.key)));
            if let Some(victim) = victim {
                self.kill(victim, KillReason::MakeRoom, out);
            }
            return false;
        }
        self.last_worker += 1;
        let id = WorkerId(self.last_worker);
        let deadline = now + policy.start_timeout;
        self.workers.insert(
            id,
            Worker { key: key.clone(), state: State::Starting { deadline }, created: now, calls: 0, timer: None },
        );
        self.set_timer(id, deadline);
        self.starting += 1;
        *self.tenant_workers.entry(key.tenant.clone()).or_default() += 1;
        *self.function_workers.entry(function).or_default() += 1;
        *self.sub_tenant_workers.entry(sub_tenant).or_default() += 1;
        let record = self.records.entry(key.clone()).or_default();
        record.starting += 1;
        record.workers += 1;
        out.push(Action::Spawn { worker: id, key: key.clone() });
        true
    }

    fn drain(&mut self, now: Tick, out: &mut Vec<Action>) {
        let Some(deadline) = self.drain else { return };
        let over = now >= deadline;
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        for id in ids {
            match self.workers.get(&id).map(|worker| &worker.state) {
                Some(State::Idle { .. }) => self.kill(id, KillReason::Drain, out),
                Some(State::Starting { .. }) if over || self.waiting == 0 => self.kill(id, KillReason::Drain, out),
                Some(State::Leased { call, .. }) if over => {
                    let call = *call;
                    self.settle(call, End::Evicted { worker: id }, out);
                    self.kill(id, KillReason::Drain, out);
                }
                Some(State::Starting { .. } | State::Leased { .. } | State::Reaping) | None => {}
            }
        }
        if over {
            let mut waiting: Vec<CallId> = self.calls.keys().copied().collect();
            waiting.sort_unstable();
            for call in waiting {
                self.settle(call, End::Refused(Refusal::Draining), out);
            }
        }
        if !self.drained && self.workers.is_empty() && self.calls.is_empty() {
            self.drained = true;
            out.push(Action::Drained);
        }
    }

    /// Forgets a key of which nothing is left but, perhaps, a back-off that has to be remembered.
    fn tidy(&mut self, key: &PoolKey) {
        if let Some(record) = self.records.get(key)
            && record.waiting.is_empty()
            && record.workers == 0
            && record.failures == 0
            && !record.is_hungry
        {
            self.records.remove(key);
        }
    }
}

fn decrement<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, u32>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}
