//! The scenarios that pools of others got wrong, each by name. Histories nobody would think of are the simulator's.

mod cells;
mod leaving;
mod limits;
mod reuse;
mod turns;
mod waiting;

use std::time::Duration;

use super::*;

pub const SECOND: Duration = Duration::from_secs(1);
pub const MILLI: Duration = Duration::from_millis(1);

pub fn host() -> HostPolicy {
    HostPolicy {
        workers_max: 4,
        starts_max: 3,
        calls_in_flight_max: 100,
        calls_waiting_max: 50,
        cells_memory_max: 1 << 30,
    }
}

pub fn sub_tenant() -> SubTenantPolicy {
    SubTenantPolicy { workers_max: 3, calls_in_flight_max: 40, rate: None, weight: 100, queue_max: None }
}

pub fn tenant() -> TenantPolicy {
    TenantPolicy { workers_max: 4, calls_in_flight_max: 90, rate: None, weight: 100, sub_tenant: sub_tenant() }
}

pub fn function() -> FunctionPolicy {
    FunctionPolicy {
        workers_max: 4,
        workers_per_sub_tenant_max: 2,
        calls_in_flight_max: 80,
        queue_max: 3,
        idle_ttl: Duration::from_secs(60),
        freeze_after: Some(SECOND),
        start_timeout: Duration::from_secs(5),
        calls_max: None,
        age_max: None,
        is_idempotent: false,
        cells_max: 0,
        cell_bytes: 1 << 20,
    }
}

pub fn label(text: &str) -> SubTenant {
    SubTenant::try_from(text).unwrap()
}

/// Tenant acme with functions f and g, tenant bolt with f; a driver that does nothing by itself.
pub struct Bench {
    pub pool: Pool,
    pub now: Tick,
    pub acme: TenantId,
    pub bolt: TenantId,
    pub f: FunctionId,
    pub g: FunctionId,
    pub b: FunctionId,
    next_call: u64,
}

/// What an Invoke was told.
pub struct Asked {
    pub call: CallId,
    pub out: Vec<Action>,
}

impl Bench {
    pub fn new() -> Self {
        Self::with(host(), tenant(), function())
    }

    pub fn with(host: HostPolicy, tenant: TenantPolicy, function: FunctionPolicy) -> Self {
        let mut pool = Pool::new(host);
        let (acme, bolt) = (pool.add_tenant(&"acme".into(), tenant), pool.add_tenant(&"bolt".into(), tenant));
        let f = pool.add_function(acme, &"f".into(), 1, function.clone());
        let g = pool.add_function(acme, &"g".into(), 1, function.clone());
        let b = pool.add_function(bolt, &"f".into(), 1, function);
        Self { pool, now: Tick(0), acme, bolt, f, g, b, next_call: 0 }
    }

    pub fn step(&mut self, event: Event) -> Vec<Action> {
        let mut out = Vec::new();
        self.pool.handle(self.now, event, &mut out);
        self.pool.check_invariants().unwrap();
        out
    }

    pub fn invoke_for(&mut self, function: FunctionId, sub_tenant: &str, within: Duration) -> Asked {
        self.next_call += 1;
        let (call, deadline) = (CallId(self.next_call), self.now + within);
        let key = PoolKey { function, sub_tenant: label(sub_tenant) };
        Asked { call, out: self.step(Event::Invoke { call, key, deadline }) }
    }

    pub fn invoke(&mut self, sub_tenant: &str) -> Asked {
        self.invoke_for(self.f, sub_tenant, Duration::from_secs(30))
    }

    /// A worker with its first call.
    pub fn leased(&mut self, sub_tenant: &str) -> (WorkerId, LeaseId, CallId) {
        self.leased_for(self.f, sub_tenant)
    }

    pub fn leased_for(&mut self, function: FunctionId, sub_tenant: &str) -> (WorkerId, LeaseId, CallId) {
        let asked = self.invoke_for(function, sub_tenant, Duration::from_secs(30));
        let worker = spawned(&asked.out);
        self.step(Event::Made { worker });
        let out = self.step(Event::Started { worker });
        let (call, at, lease, _) = delivered(&out);
        assert_eq!((call, at), (asked.call, worker), "{out:?}");
        (worker, lease, call)
    }

    /// An idle worker.
    pub fn warm(&mut self, sub_tenant: &str) -> WorkerId {
        self.warm_for(self.f, sub_tenant)
    }

    pub fn warm_for(&mut self, function: FunctionId, sub_tenant: &str) -> WorkerId {
        let (worker, lease, _) = self.leased_for(function, sub_tenant);
        self.answer(worker, lease);
        worker
    }

    pub fn answer(&mut self, worker: WorkerId, lease: LeaseId) -> Vec<Action> {
        self.step(Event::Answered { worker, lease, clean: true })
    }

    /// Makes and starts a worker that was asked for.
    pub fn start(&mut self, worker: WorkerId) -> Vec<Action> {
        self.step(Event::Made { worker });
        self.step(Event::Started { worker })
    }

    pub fn wait(&mut self, time: Duration) -> Vec<Action> {
        self.now = self.now + time;
        self.step(Event::Timer)
    }
}

pub fn spawns(out: &[Action]) -> Vec<WorkerId> {
    let worker = |action: &Action| if let Action::Spawn { worker, .. } = action { Some(*worker) } else { None };
    out.iter().filter_map(worker).collect()
}

pub fn spawned(out: &[Action]) -> WorkerId {
    let [worker] = spawns(out)[..] else { panic!("one spawn expected: {out:?}") };
    worker
}

pub fn kills(out: &[Action]) -> Vec<(WorkerId, KillReason)> {
    let kill = |action: &Action| if let Action::Kill { worker, why } = action { Some((*worker, *why)) } else { None };
    out.iter().filter_map(kill).collect()
}

pub fn ends(out: &[Action]) -> Vec<(CallId, End)> {
    let end = |action: &Action| if let Action::Settle { call, end } = action { Some((*call, *end)) } else { None };
    out.iter().filter_map(end).collect()
}

pub fn deliveries(out: &[Action]) -> Vec<(CallId, WorkerId, LeaseId, Start)> {
    let delivery = |action: &Action| match action {
        Action::Deliver { call, worker, lease, start, .. } => Some((*call, *worker, *lease, *start)),
        _ => None,
    };
    out.iter().filter_map(delivery).collect()
}

pub fn delivered(out: &[Action]) -> (CallId, WorkerId, LeaseId, Start) {
    let [delivery] = deliveries(out)[..] else { panic!("one delivery expected: {out:?}") };
    delivery
}

pub fn refusal(asked: &Asked) -> Option<Refusal> {
    match ends(&asked.out)[..] {
        [(_, End::Refused(refusal))] => Some(refusal),
        _ => None,
    }
}
