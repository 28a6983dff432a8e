//! A host on which nothing goes wrong and everything takes its time: for shares, delays and numbers.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use sublet_pool::{
    Action, CallId, End, Event, FunctionPolicy, HostPolicy, LeaseId, Pool, PoolKey, Start, SubTenantPolicy,
    TenantPolicy, Tick, WorkerId,
};

use crate::rng::Rng;

/// How long things take, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// From Spawn to Made.
    pub make: u64,
    /// From Made or Label to Started.
    pub load: u64,
    /// From Deliver to Answered.
    pub service: u64,
    /// From Kill to Reaped.
    pub reap: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Made(u64),
    Started(u64),
    Answered(u64, u64),
    Reaped(u64),
}

/// What happened to a call, told once it is settled.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Which call; the caller numbers them.
    pub call: u64,
    /// Its end.
    pub end: End,
}

/// A pool and its host.
pub struct Lab {
    /// The pool.
    pub pool: Pool,
    /// Now, in nanoseconds.
    pub now: u64,
    /// What has been settled and not been taken yet.
    pub done: Vec<Done>,
    /// Time of the delivery of each call that was delivered, with how it found its worker; by the call's number.
    pub delivered: Vec<Option<(u64, Start)>>,
    /// Events handled.
    pub steps: u64,
    /// All events from when it was set on, to be handled again by another pool.
    pub log: Option<Vec<(Tick, Event)>>,
    /// From when it is set on a call takes from nothing to twice its time, by chance.
    pub chance: Option<Rng>,
    times: Times,
    heap: BinaryHeap<Reverse<(u64, u64, Said)>>,
    planned: u64,
    out: Vec<Action>,
}

/// No limit that anybody will meet.
pub const PLENTY: u32 = 1_000_000;

/// A host of the size that a day of traffic of a hundred thousand sub-tenants needs.
pub const HOST_OF_A_DAY: HostPolicy = HostPolicy {
    workers_max: 2000,
    starts_max: 16,
    calls_in_flight_max: PLENTY,
    calls_waiting_max: PLENTY,
    cells_memory_max: 1000,
};

/// A host with so many places.
pub fn host(workers_max: u32) -> HostPolicy {
    HostPolicy {
        workers_max,
        starts_max: PLENTY,
        calls_in_flight_max: PLENTY,
        calls_waiting_max: PLENTY,
        cells_memory_max: u64::MAX / 2,
    }
}

/// A sub-tenant without limits.
pub fn sub_tenant(weight: u32) -> SubTenantPolicy {
    SubTenantPolicy { workers_max: PLENTY, calls_in_flight_max: PLENTY, rate: None, weight, queue_max: None }
}

/// A tenant without limits.
pub fn tenant(weight: u32) -> TenantPolicy {
    let sub_tenant = sub_tenant(100);
    TenantPolicy { workers_max: PLENTY, calls_in_flight_max: PLENTY, rate: None, weight, sub_tenant }
}

/// A function without limits.
pub fn function() -> FunctionPolicy {
    FunctionPolicy {
        workers_max: PLENTY,
        workers_per_sub_tenant_max: PLENTY,
        calls_in_flight_max: PLENTY,
        queue_max: PLENTY,
        idle_ttl: Duration::from_secs(600),
        freeze_after: None,
        start_timeout: Duration::from_secs(10),
        calls_max: None,
        age_max: None,
        is_idempotent: false,
        cells_max: 0,
        cell_bytes: 1,
    }
}

impl Lab {
    /// A host with these limits on which everything takes these times.
    pub fn new(host: HostPolicy, times: Times) -> Self {
        Self {
            pool: Pool::new(host),
            now: 1,
            done: Vec::new(),
            delivered: Vec::new(),
            steps: 0,
            log: None,
            chance: None,
            times,
            heap: BinaryHeap::new(),
            planned: 0,
            out: Vec::new(),
        }
    }

    fn plan(&mut self, after: u64, said: Said) {
        self.planned += 1;
        self.heap.push(Reverse((self.now + after, self.planned, said)));
    }

    /// One event.
    pub fn step(&mut self, event: Event) {
        self.steps += 1;
        if let Some(log) = &mut self.log {
            log.push((Tick(self.now), event.clone()));
        }
        self.pool.handle(Tick(self.now), event, &mut self.out);
        for at in 0..self.out.len() {
            self.perform(at);
        }
        self.out.clear();
    }

    fn perform(&mut self, at: usize) {
        let times = self.times;
        match &self.out[at] {
            Action::MakeCell { worker: WorkerId(w), .. } => {
                let w = *w;
                self.plan(times.make, Said::Made(w));
            }
            Action::Spawn { worker: WorkerId(w), .. } => {
                let w = *w;
                self.plan(times.make, Said::Made(w));
                self.plan(times.make + times.load, Said::Started(w));
            }
            Action::Label { worker: WorkerId(w), .. } => {
                let w = *w;
                self.plan(times.load, Said::Started(w));
            }
            Action::Deliver { call, worker, lease, start, .. } => {
                let (call, said) = (call.0 as usize, Said::Answered(worker.0, lease.0));
                self.delivered[call] = Some((self.now, *start));
                let service = match &mut self.chance {
                    Some(chance) => chance.range(1, 2 * times.service),
                    None => times.service,
                };
                self.plan(service, said);
            }
            Action::Settle { call, end } => self.done.push(Done { call: call.0, end: *end }),
            Action::Kill { worker: WorkerId(w), .. } => {
                let w = *w;
                self.plan(times.reap, Said::Reaped(w));
            }
            Action::Freeze { .. } | Action::Retired { .. } | Action::Drained => {}
        }
    }

    /// A new call that must be answered within an hour; its number.
    pub fn invoke(&mut self, key: PoolKey) -> u64 {
        self.invoke_within(key, Duration::from_secs(3600))
    }

    /// A new call that must be answered within this time; its number.
    pub fn invoke_within(&mut self, key: PoolKey, limit: Duration) -> u64 {
        let call = self.delivered.len() as u64;
        self.delivered.push(None);
        let deadline = Tick(self.now) + limit;
        self.step(Event::Invoke { call: CallId(call), key, deadline });
        call
    }

    /// When the next thing happens.
    pub fn next(&self) -> Option<u64> {
        let timer = self.pool.next_wakeup().map(|at| at.0);
        let said = self.heap.peek().map(|Reverse((at, ..))| *at);
        [timer, said].into_iter().flatten().min()
    }

    /// Whether the host has anything left to say.
    pub fn is_quiet(&self) -> bool {
        self.heap.is_empty()
    }

    /// Lets the next thing happen; false if there is none before `until`, which is then reached.
    pub fn advance(&mut self, until: u64) -> bool {
        let Some(at) = self.next().filter(|at| *at <= until) else {
            self.now = self.now.max(until);
            return false;
        };
        self.now = self.now.max(at);
        let is_said = self.heap.peek().is_some_and(|Reverse((said, ..))| *said <= at);
        if !is_said {
            self.step(Event::Timer);
        } else if let Some(Reverse((.., said))) = self.heap.pop() {
            self.step(match said {
                Said::Made(w) => Event::Made { worker: WorkerId(w) },
                Said::Started(w) => Event::Started { worker: WorkerId(w) },
                Said::Answered(w, l) => Event::Answered { worker: WorkerId(w), lease: LeaseId(l), clean: true },
                Said::Reaped(w) => Event::Reaped { worker: WorkerId(w) },
            });
        }
        true
    }
}
