//! A driver and a host around the pool: what the pool asks for happens after a while, or goes wrong.

use std::{cmp::Reverse, collections::BinaryHeap};

use sublet_pool::{
    Action, Blame, CallId, End, Event, FunctionId, HostPolicy, KillReason, LeaseId, Pool, PoolKey, Refusal, Selector,
    SubTenant, TenantId, Tick, WorkerId,
};

use crate::{
    limits,
    oracle::{Broken, CallState, Oracle, State},
    rng::Rng,
    stats::{Fault, Stats},
};

pub(crate) const MILLI: u64 = 1_000_000;
const SECOND: u64 = 1000 * MILLI;

/// Something that is going to happen.
#[derive(Clone, Debug)]
pub(crate) enum Planned {
    Arrive,
    Cancel(CallId),
    /// Said by a host; the fault is counted when it is said.
    Say(Event),
    Operate,
    Undrain,
}

/// Ordered by time, then by when it was planned.
struct Due(Tick, u64, Planned);

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        (self.0, self.1) == (other.0, other.1)
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

/// One history while it happens.
pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) pool: Pool,
    pub(crate) oracle: Oracle,
    pub(crate) stats: Stats,
    pub(crate) now: Tick,
    pub(crate) tenants: Vec<TenantId>,
    /// Functions by tenant, the live revision of each; those replaced stay at the end of `old`.
    pub(crate) live: Vec<(TenantId, FunctionId)>,
    pub(crate) old: Vec<FunctionId>,
    pub(crate) labels: Vec<SubTenant>,
    pub(crate) revisions: u64,
    pub(crate) calls_left: u64,
    pub(crate) next_call: u64,
    pub(crate) hash: u64,
    /// How often things go wrong: one in so many.
    pub(crate) fault: u64,
    /// Mean time between calls.
    pub(crate) pace: u64,
    pub(crate) service: u64,
    pub(crate) check_every: u64,
    /// In the middle of it everything is drained, and calls are taken again some time later.
    pub(crate) has_break: bool,
    /// Prints every event and what came of it.
    pub(crate) is_told: bool,
    heap: BinaryHeap<Reverse<Due>>,
    planned: u64,
    out: Vec<Action>,
    was_late: bool,
    same_tick: u32,
}

impl World {
    pub(crate) fn new(seed: u64, calls: u64, check_every: u64) -> Self {
        let mut rng = Rng::new(seed);
        let labels = (0..=rng.range(2, 8)).map(limits::label).collect::<Vec<_>>();
        let host = limits::host(&mut rng);
        let mut world = Self {
            pool: Pool::new(host),
            oracle: Oracle::new(host, labels.len()),
            stats: Stats::default(),
            now: Tick(rng.below(SECOND)),
            tenants: Vec::new(),
            live: Vec::new(),
            old: Vec::new(),
            labels,
            revisions: 0,
            calls_left: calls,
            next_call: 0,
            hash: seed,
            fault: rng.pick(&[6, 20, 60, 400]),
            pace: rng.pick(&[MILLI / 4, MILLI, 5 * MILLI, 40 * MILLI]),
            service: rng.pick(&[MILLI, 4 * MILLI, 30 * MILLI]),
            check_every,
            has_break: false,
            is_told: false,
            heap: BinaryHeap::new(),
            planned: 0,
            out: Vec::new(),
            was_late: false,
            same_tick: 0,
            rng,
        };
        limits::populate(&mut world);
        world.plan(0, Planned::Arrive);
        world.plan(0, Planned::Operate);
        world
    }

    pub(crate) fn plan(&mut self, after: u64, what: Planned) {
        self.planned += 1;
        self.heap.push(Reverse(Due(Tick(self.now.0 + after), self.planned, what)));
    }

    fn say(&mut self, after: u64, event: Event) {
        self.plan(after, Planned::Say(event));
    }

    fn goes_wrong(&mut self) -> bool {
        self.rng.one_in(self.fault)
    }

    /// Runs to the end of the drain.
    pub(crate) fn run(&mut self) -> Result<(), Broken> {
        loop {
            let wake = self.pool.next_wakeup();
            let next = self.heap.peek().map(|Reverse(due)| due.0);
            let is_timer = match (wake, next) {
                (None, None) => break,
                (Some(wake), Some(next)) if wake <= next => {
                    // Now and then the driver's timer is late.
                    let is_late = !self.was_late && self.rng.one_in(16);
                    self.was_late = is_late;
                    if is_late {
                        self.stats.count(Fault::TimerLate);
                    }
                    !is_late
                }
                (Some(_), None) => true,
                (_, Some(_)) => false,
            };
            if is_timer {
                let at = self.now.max(wake.unwrap_or_default());
                self.same_tick = if at == self.now { self.same_tick + 1 } else { 0 };
                if self.same_tick > 1000 {
                    return Err("a thousand wake-ups at one tick: the driver spins".into());
                }
                self.now = at;
                self.step(Event::Timer)?;
            } else if let Some(Reverse(Due(at, _, what))) = self.heap.pop() {
                self.now = self.now.max(at);
                self.happen(what)?;
            }
            if self.oracle.is_drained() && self.heap.is_empty() {
                break;
            }
        }
        self.oracle.at_the_end(&self.pool)
    }

    fn happen(&mut self, what: Planned) -> Result<(), Broken> {
        match what {
            Planned::Arrive => self.arrive(),
            Planned::Cancel(call) => {
                let kind = match self.oracle.call(call) {
                    CallState::Leased(_) => Fault::CancelLeased,
                    CallState::Waiting if self.oracle.is_starting(call) => Fault::CancelStarting,
                    CallState::Waiting | CallState::Arriving => Fault::CancelQueued,
                    CallState::Settled => Fault::CancelLate,
                };
                self.stats.count(kind);
                self.step(Event::Cancel { call })
            }
            Planned::Say(event) => self.hear(event),
            // The last one is for good.
            Planned::Undrain => {
                if self.calls_left > 0 {
                    self.step(Event::Undrain)
                } else {
                    Ok(())
                }
            }
            Planned::Operate => {
                if self.calls_left > 0 {
                    limits::operate(self)?;
                    let after = self.rng.skewed(self.pace * 200);
                    self.plan(after, Planned::Operate);
                }
                Ok(())
            }
        }
    }

    fn arrive(&mut self) -> Result<(), Broken> {
        self.calls_left -= 1;
        if self.calls_left == 0 {
            let deadline = self.now + std::time::Duration::from_nanos(self.rng.skewed(20 * SECOND));
            self.step(Event::Drain { deadline })?;
            // Calls that come too late.
            for _ in 0..2 {
                self.invoke()?;
            }
            return Ok(());
        }
        if self.has_break && self.next_call > self.calls_left {
            self.has_break = false;
            let grace = std::time::Duration::from_nanos(self.rng.skewed(5 * SECOND));
            self.step(Event::Drain { deadline: self.now + grace })?;
            // Before its end, at it, or long after it.
            let after = self.rng.skewed(5 * SECOND);
            self.plan(after, Planned::Undrain);
        }
        let after = self.rng.skewed(self.pace * 4);
        self.plan(after, Planned::Arrive);
        if self.rng.one_in(200) {
            // A burst for one key.
            let key = self.some_key();
            for _ in 0..self.rng.range(2, 20) {
                self.invoke_for(key.clone())?;
            }
        }
        self.invoke()
    }

    pub(crate) fn some_key(&mut self) -> PoolKey {
        let (_, function) = self.rng.pick(&self.live);
        // The first labels are called more often than the last; some functions are shared by all.
        let at = self.rng.below(self.labels.len() as u64).min(self.rng.below(self.labels.len() as u64));
        let at = if function.0 % 4 == 3 { 0 } else { at as usize };
        PoolKey { function, sub_tenant: self.labels[at].clone() }
    }

    fn invoke(&mut self) -> Result<(), Broken> {
        let mut key = self.some_key();
        if self.rng.one_in(300) {
            let unknown = FunctionId(u32::MAX);
            key.function = self.old.last().copied().filter(|_| self.rng.one_in(2)).unwrap_or(unknown);
        }
        self.invoke_for(key)
    }

    fn invoke_for(&mut self, key: PoolKey) -> Result<(), Broken> {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.stats.calls += 1;
        let time = if self.rng.one_in(300) { 0 } else { self.service + self.rng.skewed(self.service * 400) };
        let deadline = Tick(self.now.0 + time);
        self.step(Event::Invoke { call, key, deadline })?;
        if self.oracle.call(call) != CallState::Settled && self.rng.one_in(self.fault * 2) {
            let after = self.rng.skewed(self.service * 40);
            self.plan(after, Planned::Cancel(call));
        }
        Ok(())
    }

    /// Tells the pool what a host says, and counts what kind of fault it is by what the worker is now.
    fn hear(&mut self, event: Event) -> Result<(), Broken> {
        let state = |worker: &WorkerId| self.oracle.worker(worker.0);
        let is_gone = |worker: &WorkerId| matches!(state(worker), State::Killed | State::Reaped);
        let fault = match &event {
            Event::Made { worker } => is_gone(worker).then_some(Fault::LateMade),
            Event::Started { worker } => match state(worker) {
                State::Killed | State::Reaped => Some(Fault::LateStarted),
                State::Idle { .. } | State::Leased { .. } => Some(Fault::Duplicate),
                State::Cell | State::Starting => None,
            },
            Event::StartFailed { worker, .. } => is_gone(worker).then_some(Fault::LateStartFailed),
            Event::Died { worker } => Some(match state(worker) {
                State::Killed | State::Reaped => Fault::LateDied,
                State::Cell => Fault::DiedCell,
                State::Starting => Fault::DiedStarting,
                State::Idle { .. } => Fault::DiedIdle,
                State::Leased { .. } => Fault::DiedLeased,
            }),
            Event::Answered { worker, lease, clean } => match state(worker) {
                State::Leased { lease: current, .. } if current == lease.0 => (!clean).then_some(Fault::Unclean),
                State::Leased { .. } => Some(Fault::WrongLease),
                _ => Some(Fault::LateAnswered),
            },
            _ => None,
        };
        if let Some(fault) = fault {
            self.stats.count(fault);
        }
        let left = match &event {
            Event::Died { worker } => self.oracle.call_of(worker.0),
            _ => None,
        };
        self.step(event)?;
        if left.is_some_and(|call| self.oracle.call(call) != CallState::Settled) {
            self.stats.count(Fault::Retried);
        }
        Ok(())
    }

    /// One event through the pool, all rules checked, all actions planned.
    pub(crate) fn step(&mut self, event: Event) -> Result<(), Broken> {
        let mut now = self.now;
        if self.rng.one_in(64) {
            // The clock of some thread is behind.
            now = Tick(now.0 - self.rng.skewed(now.0));
            self.stats.count(Fault::ClockBack);
        }
        if self.is_told {
            println!("{} {:?}: {event:?}", self.stats.steps, now);
        }
        self.oracle.before(now, &event);
        self.pool.handle(now, event, &mut self.out);
        self.finish()
    }

    pub(crate) fn warm(&mut self, key: &PoolKey, count: u32) -> Result<(), Broken> {
        let now = self.oracle.now();
        self.oracle.before(now, &Event::Timer);
        let granted = self.pool.warm(now, key, count, &mut self.out);
        self.stats.count(if granted.is_ok() { Fault::Warmed } else { Fault::WarmRefused });
        self.oracle.warmed(key, count, granted)?;
        self.finish()
    }

    fn finish(&mut self) -> Result<(), Broken> {
        self.stats.steps += 1;
        if self.is_told {
            self.out.iter().for_each(|action| println!("    {action:?}"));
        }
        self.oracle.after(&self.out, self.pool.next_wakeup())?;
        if self.stats.steps.is_multiple_of(self.check_every) {
            self.stats.checked += 1;
            self.pool.check_invariants().map_err(|rule| rule.to_string())?;
            self.oracle.look_around()?;
            self.oracle.same_sums(&self.pool)?;
        }
        let out = std::mem::take(&mut self.out);
        for action in &out {
            self.hash = limits::fold(self.hash, action);
            self.perform(action);
        }
        self.out = out;
        self.out.clear();
        Ok(())
    }

    fn perform(&mut self, action: &Action) {
        match action {
            Action::MakeCell { worker, .. } => self.make(*worker, true),
            Action::Spawn { worker, .. } => self.make(*worker, false),
            Action::Label { worker, .. } => {
                self.stats.count(Fault::Labelled);
                self.load(*worker, 0);
            }
            Action::Deliver { worker, lease, thaw, deadline, .. } => {
                if *thaw {
                    self.stats.count(Fault::Thawed);
                }
                self.serve(*worker, *lease, *deadline);
            }
            Action::Settle { end, .. } => self.count_end(*end),
            Action::Freeze { .. } => self.stats.count(Fault::Frozen),
            Action::Kill { worker, why } => {
                if *why == KillReason::MakeRoom {
                    self.stats.count(Fault::MadeRoom);
                }
                let is_slow = self.goes_wrong();
                if is_slow {
                    self.stats.count(Fault::ReapSlow);
                }
                let after = self.rng.skewed(if is_slow { 10 * SECOND } else { MILLI });
                self.say(after, Event::Reaped { worker: *worker });
                if self.goes_wrong() {
                    self.stats.count(Fault::Duplicate);
                    self.say(2 * after, Event::Reaped { worker: *worker });
                }
                if self.goes_wrong() {
                    self.stray(*worker);
                }
            }
            Action::Retired { .. } => self.stats.count(Fault::Retired),
            Action::Drained => {}
        }
    }

    fn count_end(&mut self, end: End) {
        let fault = match end {
            End::Refused(refusal) => match refusal {
                Refusal::QueueFull { .. } => Fault::RefusedQueue,
                Refusal::CallsFull { .. } => Fault::RefusedCalls,
                Refusal::CallsWaitingFull { .. } => Fault::RefusedWaiting,
                Refusal::RateLimited { .. } => Fault::RefusedRate,
                Refusal::Draining => Fault::RefusedDraining,
                Refusal::DeadlinePast => Fault::RefusedPast,
                Refusal::UnknownFunction => Fault::RefusedUnknown,
                Refusal::CrashBackoff { .. } => Fault::RefusedBackoff,
            },
            End::Answered { .. } => Fault::Answered,
            End::Deadline { .. } => Fault::Deadline,
            End::Evicted { .. } if self.pool.is_draining() => Fault::DrainCut,
            End::StartFailed { worker } if self.oracle.is_backing_off(worker.0) => Fault::BackedOff,
            _ => return,
        };
        self.stats.count(fault);
    }

    /// An event that has no business here, some time later.
    fn stray(&mut self, worker: WorkerId) {
        let lease = LeaseId(self.rng.below(self.planned));
        let after = self.rng.skewed(SECOND);
        let event = match self.rng.below(7) {
            0 => Event::Made { worker },
            1 => Event::Started { worker },
            2 => Event::StartFailed { worker, blame: blame(worker) },
            3 => Event::Died { worker },
            4 => Event::Reaped { worker },
            5 => Event::Undelivered { worker, lease },
            _ => Event::Answered { worker, lease, clean: true },
        };
        self.say(after, event);
    }

    fn make(&mut self, worker: WorkerId, is_cell: bool) {
        let mut made = self.rng.skewed(2 * self.service);
        if self.goes_wrong() {
            match self.rng.below(3) {
                0 => {
                    self.stats.count(if is_cell { Fault::CellFailed } else { Fault::SpawnFailed });
                    return self.say(made, Event::StartFailed { worker, blame: blame(worker) });
                }
                1 => return self.stats.count(if is_cell { Fault::CellHung } else { Fault::SpawnHung }),
                _ => {
                    self.stats.count(Fault::SpawnSlow);
                    made += self.rng.skewed(4 * SECOND);
                }
            }
        }
        if !is_cell && self.goes_wrong() {
            self.stats.count(Fault::MadeLost);
        } else {
            self.say(made, Event::Made { worker });
        }
        if is_cell {
            if self.goes_wrong() {
                let after = self.rng.skewed(20 * SECOND);
                self.say(after, Event::Died { worker });
            }
        } else {
            self.load(worker, made);
        }
    }

    fn load(&mut self, worker: WorkerId, made: u64) {
        let started = made + self.rng.skewed(2 * self.service);
        if made == 0 && self.goes_wrong() {
            self.stats.count(Fault::LabelFailed);
            return self.say(started, Event::StartFailed { worker, blame: blame(worker) });
        }
        self.say(started, Event::Started { worker });
        if self.goes_wrong() {
            // Some time in its life, whatever it does then.
            let after = self.rng.skewed(started + 20 * self.service);
            self.say(after, Event::Died { worker });
        }
        if self.goes_wrong() {
            self.stray(worker);
        }
    }

    fn serve(&mut self, worker: WorkerId, lease: LeaseId, deadline: Tick) {
        let after = 1 + self.rng.skewed(2 * self.service);
        if self.goes_wrong() {
            match self.rng.below(6) {
                0 => return self.stats.count(Fault::CallHung),
                1 => return self.say(after, Event::Died { worker }),
                2 => {
                    self.stats.count(Fault::Undelivered);
                    return self.say(after / 8, Event::Undelivered { worker, lease });
                }
                3 => return self.say(after, Event::Answered { worker, lease, clean: false }),
                4 => {
                    self.stats.count(Fault::AnsweredPastDeadline);
                    let late = deadline.0 - self.now.0 + self.rng.below(SECOND);
                    return self.say(late, Event::Answered { worker, lease, clean: true });
                }
                _ => {
                    // By another lease first, and twice in the end.
                    let wrong = LeaseId(lease.0 + self.rng.range(1, 3));
                    self.say(after / 2, Event::Answered { worker, lease: wrong, clean: true });
                    self.stats.count(Fault::Duplicate);
                    let again = after + 1 + self.rng.skewed(SECOND);
                    self.say(again, Event::Answered { worker, lease, clean: true });
                }
            }
        }
        self.say(after, Event::Answered { worker, lease, clean: true });
    }

    pub(crate) fn set_host(&mut self, policy: HostPolicy) -> Result<(), Broken> {
        self.stats.count(Fault::HostSet);
        self.step(Event::SetHost(policy))
    }

    pub(crate) fn evict(&mut self) -> Result<(), Broken> {
        let alive = self.oracle.alive();
        let which = match self.rng.below(3) {
            0 if self.rng.one_in(4) => {
                self.stats.count(Fault::EvictAll);
                Selector::All
            }
            1 if !alive.is_empty() => {
                self.stats.count(Fault::EvictWorker);
                Selector::Worker(WorkerId(self.rng.pick(alive)))
            }
            _ => {
                self.stats.count(Fault::EvictMatch);
                let (tenant, function) = self.rng.pick(&self.live);
                let label = self.rng.below(self.labels.len() as u64) as usize;
                Selector::Match {
                    tenant: self.rng.one_in(2).then_some(tenant),
                    functions: self.rng.one_in(2).then(|| vec![function]),
                    sub_tenant: self.rng.one_in(2).then(|| self.labels[label].clone()),
                }
            }
        };
        let force = self.rng.one_in(2);
        if force {
            self.stats.count(Fault::EvictForced);
        }
        self.step(Event::Evict { which, force })
    }
}

/// Whose fault a failed start is: by its number, so that histories are what they were.
const fn blame(worker: WorkerId) -> Blame {
    if worker.0.is_multiple_of(3) { Blame::Ours } else { Blame::Theirs }
}
