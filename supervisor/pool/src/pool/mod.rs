//! The pool: books, and the rules that keep them.
//!
//! In the code `w`, `k` and `s` are the slots of a worker or cell, of a key and of a sub-tenant; `f` and `t` are the ids of a
//! function and of a tenant.
//!
//! | module | what it decides |
//! |---|---|
//! | [`admit`] | whether a call is taken, and its place in the books |
//! | [`turns`] | who is served next while places are short |
//! | [`cells`] | sandboxes made ahead for nobody |
//! | [`place`] | a worker for a call: idle, cell, new, or the place of another |
//! | [`work`] | a worker's life: started, leased, idle, ended |
//! | [`idle`] | what becomes of idle workers; eviction, drain |
//! | [`counters`] | how many of everything there are, at every level |
//! | [`limits`] | limits that change while calls run |

mod admit;
mod cells;
mod counters;
mod idle;
mod limits;
mod place;
mod turns;
mod work;

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::Arc,
    time::Duration,
};

pub use place::ROOM_PATIENCE;

use crate::{
    breaker::Breaker,
    event::{Action, CallId, Event, WorkerId},
    key::{FunctionId, PoolKey, SubTenant, TenantId},
    policy::{FunctionPolicy, HostPolicy, SubTenantPolicy, TenantPolicy},
    records::{Call, Function, FunctionState, Host, KeyRecord, Occupant, SubTenantRecord, Tenant},
    slab::Slab,
    slots::{KeySlot, SubTenantSlot, WorkerSlot},
    time::Tick,
    timers::{Timer, Timers},
};

/// How long a sub-tenant without calls is remembered for what it had, as long as others wait.
const REMEMBER_SHARE: Duration = Duration::from_secs(1);

/// Ids are ours, count up and are chosen by nobody else: they spread by one multiplication.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, id: u64) {
        // 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming, volume 3, 6.4).
        self.0 = (self.0 ^ id).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

pub(crate) type Ids<K, V> = HashMap<K, V, BuildHasherDefault<IdHasher>>;

/// The pool.
#[derive(Debug)]
pub struct Pool {
    pub(crate) now: Tick,
    pub(crate) host: Host,
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) tenant_names: HashMap<Arc<str>, TenantId>,
    pub(crate) functions: Vec<Function>,
    pub(crate) subs: Slab<SubTenantSlot, SubTenantRecord>,
    pub(crate) keys: Slab<KeySlot, KeyRecord>,
    pub(crate) workers: Slab<WorkerSlot, Occupant>,
    pub(crate) ids: Ids<WorkerId, WorkerSlot>,
    pub(crate) calls: Ids<CallId, Call>,
    pub(crate) timers: Timers,
    pub(crate) wanting_cells: Vec<FunctionId>,
    /// Revisions that are retiring and not yet gone.
    pub(crate) retiring: Vec<FunctionId>,
    pub(crate) drain: Option<Tick>,
    pub(crate) drained: bool,
    pub(crate) last_worker: u64,
    pub(crate) last_lease: u64,
    pub(crate) last_turn: u64,
    /// Places that were promised so far; see [`Pool::promises`].
    pub(crate) promises: u64,
}

impl Pool {
    /// An empty pool.
    pub fn new(policy: HostPolicy) -> Self {
        let host = Host {
            policy,
            workers: 0,
            leaving: 0,
            making: 0,
            in_flight: 0,
            waiting: 0,
            idle: Default::default(),
            cells: Default::default(),
            cell_bytes: 0,
            turns: Default::default(),
            virtual_now: 0,
            is_blocked: false,
            free_rooms: Vec::new(),
            promised_rooms: Vec::new(),
            overdue_rooms: Vec::new(),
        };
        Self {
            now: Tick(0),
            host,
            tenants: Vec::new(),
            tenant_names: HashMap::new(),
            functions: Vec::new(),
            subs: Slab::default(),
            keys: Slab::default(),
            workers: Slab::default(),
            ids: Ids::default(),
            calls: Ids::default(),
            timers: Timers::default(),
            wanting_cells: Vec::new(),
            retiring: Vec::new(),
            drain: None,
            drained: false,
            last_worker: 0,
            last_lease: 0,
            last_turn: 0,
            promises: 0,
        }
    }

    /// Makes a tenant known. A name that is known already keeps its id and its policy; see [`Event::SetTenant`].
    pub fn add_tenant(&mut self, name: &Arc<str>, policy: TenantPolicy) -> TenantId {
        if let Some(known) = self.tenant_names.get(name) {
            return *known;
        }
        let id = TenantId(u32::try_from(self.tenants.len()).unwrap_or(u32::MAX));
        self.tenants.push(Tenant {
            policy,
            own_policies: HashMap::new(),
            sub_tenants: HashMap::new(),
            workers: 0,
            leaving: 0,
            in_flight: 0,
            bucket: Default::default(),
            idle: Default::default(),
            open: Vec::new(),
            virtual_time: 0,
            clock: Default::default(),
            turn: None,
            is_blocked: false,
        });
        self.tenant_names.insert(name.clone(), id);
        id
    }

    /// Makes a revision of a function known. One that is live keeps its id and its policy; see [`Event::SetFunction`].
    pub fn add_function(
        &mut self,
        tenant: TenantId,
        name: &Arc<str>,
        revision: u64,
        policy: FunctionPolicy,
    ) -> FunctionId {
        let known = (self.functions.iter()).position(|f| {
            f.state == FunctionState::Live && f.tenant == tenant && f.revision == revision && f.name == *name
        });
        let number = |at: usize| FunctionId(u32::try_from(at).unwrap_or(u32::MAX));
        if let Some(at) = known {
            return number(at);
        }
        self.functions.push(Function {
            tenant,
            name: name.clone(),
            revision,
            policy,
            state: FunctionState::Live,
            workers: 0,
            leaving: 0,
            in_flight: 0,
            hot: Default::default(),
            frozen: Default::default(),
            idle_armed: None,
            turns: Default::default(),
            is_open: false,
            is_blocked: false,
            cells_ready: Default::default(),
            cells_making: 0,
            cells_breaker: Default::default(),
            cells_armed: false,
            replace_armed: false,
            misses: Default::default(),
            service_nanos: 0,
        });
        number(self.functions.len() - 1)
    }

    /// When [`Event::Timer`] is due.
    pub fn next_wakeup(&self) -> Option<Tick> {
        // Once it has passed, only what is being removed is waited for: a wake-up in the past would make the driver spin.
        let drain = self.drain.filter(|deadline| *deadline > self.now);
        [self.timers.next(), drain].into_iter().flatten().min()
    }

    /// Whether new calls are refused.
    pub fn is_draining(&self) -> bool {
        self.drain.is_some()
    }

    /// Takes one event in; what must be done is appended to `out`.
    pub fn handle(&mut self, now: Tick, event: Event, out: &mut Vec<Action>) {
        self.now = self.now.max(now);
        // A key that has both waiting calls and a worker that has just become free.
        let hot = match event {
            Event::Invoke { call, key, deadline } => {
                self.invoke(call, &key, deadline, out);
                None
            }
            Event::Cancel { call } => {
                self.cancel(call, out);
                None
            }
            Event::Made { worker } => {
                self.made(worker, out);
                None
            }
            Event::Started { worker } => self.started(worker, out),
            Event::StartFailed { worker, blame } => {
                self.start_failed(worker, blame, out);
                None
            }
            Event::Answered { worker, lease, clean } => self.answered(worker, lease, clean, out),
            Event::Undelivered { worker, lease } => {
                self.undelivered(worker, lease, out);
                None
            }
            Event::Died { worker } => {
                self.died(worker, out);
                None
            }
            Event::Reaped { worker } => {
                self.reaped(worker, out);
                None
            }
            Event::Evict { which, force } => {
                self.evict(&which, force, out);
                None
            }
            Event::SetHost(policy) => {
                self.set_host(policy, out);
                None
            }
            Event::SetTenant { tenant, policy } => {
                self.set_tenant(tenant, policy, out);
                None
            }
            Event::SetSubTenants { tenant, policies } => {
                self.set_sub_tenants(tenant, policies, out);
                None
            }
            Event::SetFunction { function, policy } => {
                self.set_function(function, policy, out);
                None
            }
            Event::SetMinimum { key, workers } => {
                self.set_minimum(&key, workers);
                None
            }
            Event::Retire { function } => {
                self.retire(function, out);
                None
            }
            Event::Drain { deadline } => {
                self.drain = Some(self.drain.map_or(deadline, |old| old.min(deadline)));
                // Nothing is made ahead of calls any more.
                self.unblock_keys(|_, _| true);
                None
            }
            Event::Undrain => {
                self.undrain();
                None
            }
            Event::Timer => None,
        };
        self.expire(out);
        self.feed(hot, out);
        self.keep_cells(out);
        self.finish_retiring(out);
        if self.drain.is_some() {
            self.finish_drain(out);
            // The places of those it ended are for calls that wait.
            self.feed(None, out);
        }
        self.sweep_timers();
    }

    pub(crate) fn tenant(&self, id: TenantId) -> &Tenant {
        &self.tenants[id.0 as usize]
    }

    pub(crate) fn tenant_mut(&mut self, id: TenantId) -> &mut Tenant {
        &mut self.tenants[id.0 as usize]
    }

    pub(crate) fn function(&self, id: FunctionId) -> &Function {
        &self.functions[id.0 as usize]
    }

    pub(crate) fn function_mut(&mut self, id: FunctionId) -> &mut Function {
        &mut self.functions[id.0 as usize]
    }

    pub(crate) fn pool_key(&self, k: KeySlot) -> PoolKey {
        let key = &self.keys[k];
        PoolKey { function: key.function, sub_tenant: self.subs[key.sub_tenant].label.clone() }
    }

    pub(crate) fn sub_policy(&self, tenant: TenantId, label: &SubTenant) -> SubTenantPolicy {
        let tenant = self.tenant(tenant);
        if label.is_shared() {
            // Shared workers are nobody's in particular: the limits of their function are theirs.
            let SubTenantPolicy { weight, .. } = tenant.policy.sub_tenant;
            return SubTenantPolicy {
                workers_max: u32::MAX,
                calls_in_flight_max: u32::MAX,
                rate: None,
                weight,
                queue_max: None,
            };
        }
        match tenant.own_policies.get(label) {
            Some(own) => *own,
            None => tenant.policy.sub_tenant,
        }
    }

    pub(crate) fn policy_of_sub(&self, s: SubTenantSlot) -> SubTenantPolicy {
        let sub = &self.subs[s];
        self.sub_policy(sub.tenant, &sub.label)
    }

    pub(crate) fn created(&self, w: WorkerSlot) -> Tick {
        match &self.workers[w] {
            Occupant::Cell(cell) => cell.created,
            Occupant::Worker(worker) => worker.created,
            Occupant::Reaping(reaping) => reaping.created,
        }
    }

    /// The record of a key, if there is one.
    pub(crate) fn find_key(&self, key: &PoolKey) -> Option<KeySlot> {
        let tenant = self.tenant(self.functions.get(key.function.0 as usize)?.tenant);
        let sub = &self.subs[*tenant.sub_tenants.get(&key.sub_tenant)?];
        sub.keys.iter().find(|(function, _)| *function == key.function).map(|(_, k)| *k)
    }

    /// The record of a key, made if need be.
    pub(crate) fn key_record(&mut self, key: &PoolKey) -> KeySlot {
        let t = self.function(key.function).tenant;
        let s = match self.tenant(t).sub_tenants.get(&key.sub_tenant) {
            Some(s) => *s,
            None => {
                let label = key.sub_tenant.clone();
                let s = self.subs.insert(SubTenantRecord {
                    tenant: t,
                    label: label.clone(),
                    keys: Vec::new(),
                    workers: 0,
                    in_flight: 0,
                    bucket: Default::default(),
                    virtual_time: 0,
                    turns: 0,
                    weight_waiting: 0,
                    is_watched: false,
                });
                self.tenant_mut(t).sub_tenants.insert(label, s);
                s
            }
        };
        if let Some((_, k)) = self.subs[s].keys.iter().find(|(function, _)| *function == key.function) {
            return *k;
        }
        let k = self.keys.insert(KeyRecord {
            function: key.function,
            sub_tenant: s,
            queue: Default::default(),
            waiting: 0,
            idle: Vec::new(),
            workers: 0,
            starting: 0,
            reaping: 0,
            rooms: 0,
            breaker: Default::default(),
            host_faults: Default::default(),
            minimum: 0,
            warm_target: 0,
            turn: None,
            is_fresh: false,
            is_blocked: false,
        });
        self.subs[s].keys.push((key.function, k));
        k
    }

    /// Forgets a key of which nothing is left, and its sub-tenant likewise.
    pub(crate) fn tidy(&mut self, k: KeySlot) {
        let Some(key) = self.keys.get(k) else { return };
        let is_used = key.waiting > 0
            || key.workers > 0
            || key.rooms > 0
            || key.minimum > 0
            || key.warm_target > 0
            || key.turn.is_some()
            || key.breaker.remembers(self.now);
        if is_used {
            return;
        }
        let (f, s) = (key.function, key.sub_tenant);
        self.keys.remove(k);
        let keys = &mut self.subs[s].keys;
        keys.retain(|(function, _)| *function != f);
        if keys.is_empty() {
            // Many are only remembered; they hold nothing that they do not need.
            *keys = Vec::new();
        }
        self.tidy_sub(s);
    }

    fn tidy_sub(&mut self, s: SubTenantSlot) {
        let Some(sub) = self.subs.get(s) else { return };
        if !sub.keys.is_empty() || sub.in_flight > 0 || sub.workers > 0 {
            return;
        }
        if let Some(rate) = self.policy_of_sub(s).rate
            && let Some(full) = sub.bucket.full_at(self.now, rate)
        {
            return self.watch_sub(s, full);
        }
        let (t, label) = (sub.tenant, sub.label.clone());
        let clock = &self.tenant(t).clock;
        if clock.is_waited_for() && sub.virtual_time > clock.now() {
            // Who was served beyond its share must not come back as a newcomer.
            return self.watch_sub(s, self.now + REMEMBER_SHARE);
        }
        let time = sub.virtual_time;
        self.subs.remove(s);
        let tenant = self.tenant_mut(t);
        tenant.clock.forget(s, time);
        tenant.sub_tenants.remove(&label);
    }

    /// One wake-up is enough for each, however often it comes and goes.
    fn watch_sub(&mut self, s: SubTenantSlot, at: Tick) {
        if !std::mem::replace(&mut self.subs[s].is_watched, true) {
            self.timers.set(at, Timer::SubTenant(s));
        }
    }

    fn sub_due(&mut self, s: SubTenantSlot) {
        // One that had this place in the books before may be meant; to look once more does no harm.
        if self.subs.get(s).is_some() {
            self.subs[s].is_watched = false;
            self.tidy_sub(s);
        }
    }

    fn expire(&mut self, out: &mut Vec<Action>) {
        while let Some(timer) = self.timers.pop(self.now) {
            match timer {
                Timer::Call(call) => self.call_expired(call, out),
                Timer::Worker(id) => self.worker_due(id, out),
                Timer::Idle(f) => self.idle_due(f, out),
                Timer::Cells(f) => self.look_at_cells(f, out),
                Timer::Replace(f) => self.replace_cells(f),
                Timer::Key(k) => {
                    if self.keys.get(k).is_some() {
                        let now = self.now;
                        self.keys[k].breaker.forget(now);
                        self.keys[k].host_faults.forget(now);
                        self.touch(k);
                        self.tidy(k);
                    }
                }
                Timer::SubTenant(s) => self.sub_due(s),
            }
        }
    }

    fn sweep_timers(&mut self) {
        let mut timers = std::mem::take(&mut self.timers);
        timers.sweep(|at, timer| self.has_reason(at, timer));
        self.timers = timers;
    }

    fn has_reason(&self, at: Tick, timer: Timer) -> bool {
        match timer {
            Timer::Call(call) => self.calls.get(&call).is_some_and(|call| call.deadline == at),
            Timer::Worker(id) => self.ids.get(&id).is_some_and(|w| self.is_worker_due(*w, at)),
            Timer::Idle(f) => self.function(f).idle_armed == Some(at),
            Timer::Cells(_) | Timer::Replace(_) => true,
            Timer::Key(k) => self.keys.get(k).is_some_and(|key| {
                let is_due = |breaker: Breaker| breaker.open_until() == Some(at) || breaker.forget_at() == at;
                is_due(key.breaker) || is_due(key.host_faults)
            }),
            Timer::SubTenant(s) => self.subs.get(s).is_some_and(|sub| sub.is_watched),
        }
    }
}
