//! The policy once more, written so that it can be seen to be right: plain lists, looked through whole at each step.
//!
//! One tenant, functions of one policy, no cells, no rates, caps of the host and of keys. It answers as long as places are
//! found at once, free or by evicting the least recently used; when a call must wait for places that others hold, whose turn
//! comes first is the business of turns, which have tests of their own, and the model says that it does not know.

use sublet_pool::{
    BACKOFF_FIRST, BACKOFF_MAX, Blame, End, Event, FAILURES_BEFORE_BACKOFF, FunctionPolicy, KillReason, LimitLevel,
    PoolKey, ROOM_PATIENCE, Refusal, Stage, Start, Tick, WorkerId,
};

/// What the model did, in words that can be compared: numbers that only the pool chooses are left out.
pub type Did = Vec<String>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    Starting,
    Idle,
    Leased(u64, u64),
    Leaving,
}

#[derive(Clone, Debug)]
pub struct Worker {
    pub id: u64,
    pub key: usize,
    pub life: Life,
    calls: u64,
    /// Whether its sandbox is.
    is_made: bool,
    since: Tick,
    /// Counts up with each time any worker becomes idle, or leaves.
    order: u64,
    frozen: bool,
    born: Tick,
    room_for: Option<usize>,
    /// Counts up with each promise.
    promise: u64,
    /// Since when it leaves.
    left: Tick,
}

#[derive(Clone, Debug)]
pub struct Call {
    pub id: u64,
    key: usize,
    deadline: Tick,
    died_with: Option<u64>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Failures {
    count: u32,
    at: Tick,
}

impl Failures {
    fn pause(self) -> Option<std::time::Duration> {
        let over = self.count.checked_sub(FAILURES_BEFORE_BACKOFF)?;
        Some(BACKOFF_FIRST.saturating_mul(1_u32.checked_shl(over).unwrap_or(u32::MAX)).min(BACKOFF_MAX))
    }
}

pub struct Model {
    pub keys: Vec<PoolKey>,
    pub policy: FunctionPolicy,
    pub places: usize,
    pub workers: Vec<Worker>,
    /// That wait, in their order.
    pub waiting: Vec<Call>,
    pub leased: Vec<Call>,
    failures: Vec<Failures>,
    now: Tick,
    last_worker: u64,
    last_promise: u64,
    last_lease: u64,
    order: u64,
    first: Option<usize>,
    /// Places were short: what happens next depends on turns.
    pub is_lost: bool,
    did: Did,
}

impl Model {
    pub fn new(keys: Vec<PoolKey>, policy: FunctionPolicy, places: usize) -> Self {
        let failures = vec![Failures::default(); keys.len()];
        Self {
            keys,
            policy,
            places,
            workers: Vec::new(),
            waiting: Vec::new(),
            leased: Vec::new(),
            failures,
            now: Tick(0),
            last_worker: 0,
            last_promise: 0,
            last_lease: 0,
            order: 0,
            first: None,
            is_lost: false,
            did: Vec::new(),
        }
    }

    fn count(&self, key: usize, of: impl Fn(&Worker) -> bool) -> usize {
        self.workers.iter().filter(|w| w.key == key && of(w)).count()
    }

    fn waits(&self, key: usize) -> usize {
        self.waiting.iter().filter(|call| call.key == key).count()
    }

    /// Starting workers of a key, and places promised to it.
    fn covered(&self, key: usize) -> usize {
        let rooms = self.workers.iter().filter(|w| w.room_for == Some(key)).count();
        self.count(key, |w| w.life == Life::Starting) + rooms
    }

    fn is_open(&self, key: usize) -> bool {
        let failures = self.failures[key];
        failures.pause().is_some_and(|pause| self.now < failures.at + pause)
    }

    fn newest_idle(&self, key: usize) -> Option<usize> {
        let idle = |w: &usize| self.workers[*w].key == key && self.workers[*w].life == Life::Idle;
        (0..self.workers.len()).filter(idle).max_by_key(|w| self.workers[*w].order)
    }

    fn at(&self, id: WorkerId) -> Option<usize> {
        self.workers.iter().position(|w| w.id == id.0)
    }

    fn settle(&mut self, call: u64, end: End) {
        self.waiting.retain(|other| other.id != call);
        self.leased.retain(|other| other.id != call);
        self.did.push(settled(call, end));
    }

    fn kill(&mut self, w: usize, why: KillReason) {
        self.order += 1;
        self.workers[w].life = Life::Leaving;
        self.workers[w].order = self.order;
        self.workers[w].left = self.now;
        self.did.push(killed(self.workers[w].id, why));
    }

    fn deliver(&mut self, w: usize) {
        let Some(at) = self.waiting.iter().position(|call| call.key == self.workers[w].key) else { return };
        let call = self.waiting.remove(at);
        self.last_lease += 1;
        let worker = &mut self.workers[w];
        let start = if worker.calls == 0 { Start::Cold } else { Start::Warm };
        self.did.push(delivered(call.id, worker.id, self.last_lease, start, worker.frozen));
        worker.calls += 1;
        worker.frozen = false;
        worker.life = Life::Leased(call.id, self.last_lease);
        self.leased.push(call);
    }

    fn becomes_idle(&mut self, w: usize) {
        self.order += 1;
        let (now, order) = (self.now, self.order);
        let worker = &mut self.workers[w];
        (worker.life, worker.since, worker.order) = (Life::Idle, now, order);
        if worker.calls > 0 && self.policy.calls_max.is_some_and(|max| worker.calls >= max) {
            return self.kill(w, KillReason::CallsMax);
        }
        if self.policy.age_max.is_some_and(|max| now.since(self.workers[w].born) >= max) {
            return self.kill(w, KillReason::AgeMax);
        }
        self.deliver(w);
    }

    fn fails(&mut self, key: usize) {
        self.failures[key] = Failures { count: self.failures[key].count + 1, at: self.now };
        let settled_workers = self.count(key, |w| matches!(w.life, Life::Idle | Life::Leased(..)));
        if self.failures[key].pause().is_some() && settled_workers == 0 {
            let all = self.waiting.iter().filter(|call| call.key == key).map(|call| (call.id, call.died_with));
            for (call, died_with) in all.collect::<Vec<_>>() {
                let end = match died_with {
                    Some(worker) => End::WorkerDied { worker: WorkerId(worker) },
                    None => End::Refused(Refusal::CrashBackoff { retry_after: Default::default() }),
                };
                self.settle(call, end);
            }
        }
    }

    fn start_fails(&mut self, w: usize, why: KillReason, blame: Blame) {
        let (key, id) = (self.workers[w].key, self.workers[w].id);
        if let Some(call) = self.waiting.iter().find(|call| call.key == key).map(|call| call.id) {
            self.settle(call, End::StartFailed { worker: WorkerId(id) });
        }
        self.kill(w, why);
        if blame == Blame::Theirs {
            self.fails(key);
        }
    }

    fn give_up(&mut self, call: u64, why: KillReason) {
        let end = |at, worker| match why {
            KillReason::Deadline => End::Deadline { at, worker },
            _ => End::Cancelled { at, worker },
        };
        if let Some(found) = self.waiting.iter().find(|other| other.id == call) {
            let starts = self.count(found.key, |w| w.life == Life::Starting) > 0;
            self.settle(call, end(if starts { Stage::Starting } else { Stage::Queued }, None));
        } else if let Some(w) = self.workers.iter().position(|w| matches!(w.life, Life::Leased(c, _) if c == call)) {
            let id = WorkerId(self.workers[w].id);
            self.settle(call, end(Stage::Leased, Some(id)));
            self.kill(w, why);
        }
    }

    fn invoke(&mut self, id: u64, key: usize, deadline: Tick) {
        let idle = self.newest_idle(key);
        let refusal = if deadline <= self.now {
            Some(Refusal::DeadlinePast)
        } else if idle.is_some() {
            None
        } else if self.is_open(key) {
            Some(Refusal::CrashBackoff { retry_after: Default::default() })
        } else if self.waits(key) >= self.policy.queue_max as usize + self.covered(key) {
            Some(Refusal::QueueFull { level: LimitLevel::Function, limit: 0, retry_after: Default::default() })
        } else {
            None
        };
        if let Some(refusal) = refusal {
            return self.did.push(settled(id, End::Refused(refusal)));
        }
        self.waiting.push(Call { id, key, deadline, died_with: None });
        if let Some(w) = idle {
            self.deliver(w);
        }
    }

    fn requeue(&mut self, call: u64, w: usize) {
        if let Some(at) = self.leased.iter().position(|other| other.id == call) {
            let call = self.leased.remove(at);
            self.waiting.insert(0, call);
        }
        self.kill(w, KillReason::Died);
        if let Some(w) = self.newest_idle(self.workers[w].key) {
            self.deliver(w);
        }
    }

    fn event(&mut self, event: &Event) {
        match event {
            Event::Invoke { call, key, deadline } => {
                let key = self.keys.iter().position(|other| other == key).expect("one of ours");
                self.invoke(call.0, key, *deadline);
            }
            Event::Cancel { call } => self.give_up(call.0, KillReason::Cancelled),
            Event::Started { worker } => {
                if let Some(w) = self.at(*worker).filter(|w| self.workers[*w].life == Life::Starting) {
                    self.becomes_idle(w);
                }
            }
            Event::StartFailed { worker, blame } => {
                if let Some(w) = self.at(*worker).filter(|w| self.workers[*w].life == Life::Starting) {
                    self.start_fails(w, KillReason::StartFailed, *blame);
                }
            }
            Event::Answered { worker, lease, clean } => {
                let Some(w) = self.at(*worker) else { return };
                let Life::Leased(call, current) = self.workers[w].life else { return };
                if current == lease.0 {
                    self.settle(call, End::Answered { worker: *worker, lease: *lease });
                    if *clean {
                        self.failures[self.workers[w].key] = Failures::default();
                        self.becomes_idle(w);
                    } else {
                        self.kill(w, KillReason::Tainted);
                    }
                }
            }
            Event::Undelivered { worker, lease } => {
                let Some(w) = self.at(*worker) else { return };
                if let Life::Leased(call, current) = self.workers[w].life
                    && current == lease.0
                {
                    self.requeue(call, w);
                }
            }
            Event::Died { worker } => self.dies(*worker),
            Event::Reaped { worker } => {
                if let Some(w) = self.at(*worker).filter(|w| self.workers[*w].life == Life::Leaving) {
                    // Whom its place was promised comes first.
                    self.first = self.workers.remove(w).room_for;
                }
            }
            Event::Made { worker } => {
                if let Some(w) = self.at(*worker) {
                    self.workers[w].is_made = true;
                }
            }
            Event::Timer => {}
            _ => unreachable!("not part of the model"),
        }
    }

    fn dies(&mut self, id: WorkerId) {
        let Some(w) = self.at(id) else { return };
        match self.workers[w].life {
            Life::Leaving => {}
            Life::Starting => self.start_fails(w, KillReason::Died, Blame::Theirs),
            Life::Idle => self.kill(w, KillReason::Died),
            Life::Leased(call, _) => {
                let key = self.workers[w].key;
                let may_retry = self.policy.is_idempotent;
                match self.leased.iter_mut().find(|other| other.id == call) {
                    Some(found) if may_retry && found.died_with.is_none() => {
                        found.died_with = Some(id.0);
                        self.requeue(call, w);
                    }
                    _ => {
                        self.settle(call, End::WorkerDied { worker: id });
                        self.kill(w, KillReason::Died);
                    }
                }
                self.fails(key);
            }
        }
    }

    /// Whatever is due.
    fn expire(&mut self) {
        let late: Vec<u64> =
            self.waiting.iter().chain(&self.leased).filter(|c| c.deadline <= self.now).map(|c| c.id).collect();
        for call in late {
            self.give_up(call, KillReason::Deadline);
        }
        for w in 0..self.workers.len() {
            if self.is_overdue(&self.workers[w])
                && let Some(key) = self.workers[w].room_for.take()
                && self.needs_more(key)
            {
                self.find_place(key);
            }
        }
        // Of those that have been idle for equally long, the first first.
        let mut all: Vec<usize> = (0..self.workers.len()).collect();
        all.sort_by_key(|w| {
            let worker = &self.workers[*w];
            (worker.life == Life::Idle).then_some((self.keys[worker.key].function, worker.order))
        });
        for w in all {
            let (worker, policy) = (&self.workers[w], &self.policy);
            let is_old = policy.age_max.is_some_and(|max| self.now.since(worker.born) >= max);
            let rests = self.now.since(worker.since);
            match worker.life {
                Life::Starting if self.now >= worker.born + policy.start_timeout => {
                    let blame = if self.workers[w].is_made { Blame::Theirs } else { Blame::Ours };
                    self.start_fails(w, KillReason::StartTimeout, blame);
                }
                Life::Idle if is_old => self.kill(w, KillReason::AgeMax),
                Life::Idle if rests >= policy.idle_ttl => self.kill(w, KillReason::IdleTtl),
                Life::Idle if !worker.frozen && policy.freeze_after.is_some_and(|after| rests >= after) => {
                    self.workers[w].frozen = true;
                    self.did.push(frozen(self.workers[w].id));
                }
                _ => {}
            }
        }
    }

    /// A worker, or a place, for each call that has none.
    fn feed(&mut self) {
        let mut served = Vec::new();
        for key in self.first.take().into_iter().chain(0..self.keys.len()) {
            loop {
                if !self.needs_more(key) {
                    break;
                }
                if !served.contains(&key) {
                    served.push(key);
                }
                if served.len() > 1 {
                    // Two keys at once: whose turn comes first is not for the model to say.
                    self.is_lost = true;
                    return;
                }
                self.find_place(key);
                if self.is_lost {
                    return;
                }
            }
        }
    }

    /// Whether a call of this key has neither a worker nor a place, and may have one.
    fn needs_more(&self, key: usize) -> bool {
        let (covered, cap) = (self.covered(key), self.policy.workers_per_sub_tenant_max as usize);
        let rooms = covered - self.count(key, |w| w.life == Life::Starting);
        let on_trial = self.failures[key].pause().is_some() && covered > 0;
        let may_have_more = self.count(key, |_| true) + rooms < cap && !self.is_open(key) && !on_trial;
        self.waits(key) > covered && may_have_more
    }

    /// It leaves for so long that nobody waits for it.
    fn is_overdue(&self, worker: &Worker) -> bool {
        worker.life == Life::Leaving && self.now >= worker.left + ROOM_PATIENCE
    }

    fn find_place(&mut self, key: usize) {
        if self.workers.len() < self.places {
            return self.spawn(key);
        }
        let may_be_promised = |w: &usize| {
            let worker = &self.workers[*w];
            worker.life == Life::Leaving && worker.room_for.is_none() && !self.is_overdue(worker)
        };
        let all = 0..self.workers.len();
        let w = match all.clone().filter(may_be_promised).min_by_key(|w| self.workers[*w].order) {
            Some(free) => free,
            None => {
                let idle = all.filter(|w| self.workers[*w].life == Life::Idle);
                let Some(oldest) = idle.min_by_key(|w| self.workers[*w].order) else {
                    self.is_lost = true;
                    return;
                };
                self.kill(oldest, KillReason::MakeRoom);
                oldest
            }
        };
        self.last_promise += 1;
        (self.workers[w].room_for, self.workers[w].promise) = (Some(key), self.last_promise);
    }

    /// Whoever waits for a promised place takes one that is free before.
    fn keep_promises(&mut self) {
        let mut promised: Vec<u64> = self.workers.iter().filter(|w| w.room_for.is_some()).map(|w| w.promise).collect();
        promised.sort_unstable();
        for promise in promised {
            let Some(w) = self.workers.iter().position(|w| w.room_for.is_some() && w.promise == promise) else {
                continue;
            };
            if self.workers.len() >= self.places {
                return;
            }
            let Some(key) = self.workers[w].room_for.take() else { continue };
            if self.needs_more(key) {
                self.spawn(key);
            }
        }
    }

    fn spawn(&mut self, key: usize) {
        self.last_worker += 1;
        let (id, born) = (self.last_worker, self.now);
        self.did.push(spawned(id, &self.keys[key]));
        let (life, calls, order) = (Life::Starting, 0, 0);
        self.workers.push(Worker {
            is_made: false,
            id,
            key,
            life,
            calls,
            since: born,
            order,
            frozen: false,
            born,
            room_for: None,
            promise: 0,
            left: born,
        });
    }

    /// One event; what was done, in no particular order.
    pub fn handle(&mut self, now: Tick, event: &Event) -> Did {
        self.now = self.now.max(now);
        for failures in &mut self.failures {
            if self.now >= failures.at + (failures.pause().unwrap_or_default() + BACKOFF_MAX) {
                *failures = Failures::default();
            }
        }
        self.event(event);
        self.expire();
        self.feed();
        if !self.is_lost {
            self.keep_promises();
        }
        std::mem::take(&mut self.did)
    }
}

fn spawned(worker: u64, key: &PoolKey) -> String {
    format!("spawn {worker} for {} {}", key.function.0, key.sub_tenant.as_str())
}

fn delivered(call: u64, worker: u64, lease: u64, start: Start, thaw: bool) -> String {
    format!("deliver {call} to {worker} by {lease}, {start:?}, thaw {thaw}")
}

fn settled(call: u64, end: End) -> String {
    let end = match end {
        End::Refused(refusal) => format!("{refusal:?}").chars().take_while(|c| c.is_alphabetic()).collect(),
        other => format!("{other:?}"),
    };
    format!("settle {call}: {end}")
}

fn killed(worker: u64, why: KillReason) -> String {
    format!("kill {worker}: {why:?}")
}

fn frozen(worker: u64) -> String {
    format!("freeze {worker}")
}

/// What the pool did, in the same words.
pub fn words(action: &sublet_pool::Action) -> String {
    use sublet_pool::Action;
    match action {
        Action::Spawn { worker, key } => spawned(worker.0, key),
        Action::Deliver { call, worker, lease, start, thaw, .. } => delivered(call.0, worker.0, lease.0, *start, *thaw),
        Action::Settle { call, end } => settled(call.0, *end),
        Action::Kill { worker, why } => killed(worker.0, *why),
        Action::Freeze { worker } => frozen(worker.0),
        other => format!("{other:?}"),
    }
}
