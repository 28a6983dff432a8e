//! What the pool knows of each host, tenant, function, sub-tenant, key, worker and call.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    breaker::Breaker,
    event::{CallId, KillReason, LeaseId, WorkerId},
    key::{FunctionId, SubTenant, TenantId},
    lists::{Link, Linked, Lru},
    misses::Misses,
    policy::{FunctionPolicy, HostPolicy, SubTenantPolicy, TenantPolicy},
    rate::Bucket,
    time::Tick,
    virtual_clock::VirtualClock,
};

#[derive(Clone, Debug)]
pub struct Host {
    pub policy: HostPolicy,
    pub workers: u32,
    /// Of these, being removed; likewise below.
    pub leaving: u32,
    pub making: u32,
    pub in_flight: u32,
    pub waiting: u32,
    pub idle: Lru,
    /// Ready cells, oldest first.
    pub cells: VecDeque<u32>,
    pub cell_bytes: u64,
    /// Tenants with keys to serve, in the order of their turns.
    pub turns: BTreeSet<(u64, TenantId)>,
    pub virtual_now: u64,
    /// All places are taken by workers that cannot be ended.
    pub is_blocked: bool,
    /// Workers being removed whose places are promised to nobody.
    pub free_rooms: Vec<u32>,
    /// Likewise, promised to a key; in the order of the promises.
    pub promised_rooms: Vec<u32>,
    /// Likewise, overdue: nobody waits for them.
    pub overdue_rooms: Vec<u32>,
}

#[derive(Clone, Debug)]
pub struct Tenant {
    pub policy: TenantPolicy,
    pub own_policies: HashMap<SubTenant, SubTenantPolicy>,
    pub sub_tenants: HashMap<SubTenant, u32>,
    pub workers: u32,
    pub leaving: u32,
    pub in_flight: u32,
    pub bucket: Bucket,
    pub idle: Lru,
    /// Functions with keys to serve.
    pub open: Vec<FunctionId>,
    pub virtual_time: u64,
    /// By which its sub-tenants are served in turn.
    pub clock: VirtualClock,
    /// Its place in [`Host::turns`].
    pub turn: Option<u64>,
    pub is_blocked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionState {
    Live,
    Retiring,
    Gone,
}

#[derive(Clone, Debug)]
pub struct Function {
    pub tenant: TenantId,
    pub name: Arc<str>,
    pub revision: u64,
    pub policy: FunctionPolicy,
    pub state: FunctionState,
    pub workers: u32,
    pub leaving: u32,
    pub in_flight: u32,
    /// Idle and running, idle and frozen; each least recently used first.
    pub hot: Lru,
    pub frozen: Lru,
    pub idle_armed: Option<Tick>,
    /// Keys to serve, in the order of their turns.
    pub turns: BTreeSet<(u64, u64, u32)>,
    pub is_open: bool,
    pub is_blocked: bool,
    pub cells_ready: VecDeque<u32>,
    pub cells_making: u32,
    pub cells_breaker: Breaker,
    pub cells_armed: bool,
    pub replace_armed: bool,
    pub misses: Misses,
    /// How long a call takes, on the average of the last few, in nanoseconds.
    pub service_nanos: u64,
}

/// Everything about one sub-tenant of one tenant; kept only while there is something to keep.
#[derive(Clone, Debug)]
pub struct SubRecord {
    pub tenant: TenantId,
    pub label: SubTenant,
    pub keys: Vec<(FunctionId, u32)>,
    pub workers: u32,
    pub in_flight: u32,
    pub bucket: Bucket,
    pub virtual_time: u64,
    /// How many of its keys have turns; and the weight it is counted with then.
    pub turns: u32,
    pub weight_waiting: u32,
    /// Whether it is going to be looked at again, to be forgotten.
    pub is_watched: bool,
}

/// Everything about one pool key; kept only while there is something to keep.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    pub function: FunctionId,
    pub sub_tenant: u32,
    /// In the order of arrival; some may have ended meanwhile.
    pub queue: VecDeque<CallId>,
    /// How many of them wait.
    pub waiting: u32,
    /// Most recently used last.
    pub idle: Vec<u32>,
    /// Workers in any state; of them being made or loading; being removed.
    pub workers: u32,
    pub starting: u32,
    pub reaping: u32,
    /// Places promised to it.
    pub rooms: u32,
    pub breaker: Breaker,
    /// Starts that the host has failed. They hold up what is made ahead of calls, so that it is not tried over and over, and
    /// no call.
    pub host_faults: Breaker,
    /// Workers kept always, and workers asked for once.
    pub minimum: u32,
    pub warm_target: u32,
    /// Its place in [`Function::turns`].
    pub turn: Option<(u64, u64)>,
    /// It has not been served since its queue was empty.
    pub is_fresh: bool,
    /// Its sub-tenant has all the workers it may have.
    pub is_blocked: bool,
}

impl KeyRecord {
    /// Workers that are idle or have a call.
    pub fn settled(&self) -> u32 {
        self.workers - self.starting - self.reaping
    }

    /// Workers that are not being removed.
    pub fn live(&self) -> u32 {
        self.workers - self.reaping
    }

    /// Whether its idle workers are kept though nobody needs them now.
    pub fn is_at_minimum(&self) -> bool {
        self.live() <= self.minimum
    }
}

/// Which part of its start a worker is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its sandbox is being made.
    Making,
    /// Its function is loading.
    Loading,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    Starting {
        deadline: Tick,
        phase: Phase,
    },
    Idle {
        since: Tick,
        frozen: bool,
    },
    Leased {
        call: CallId,
        lease: LeaseId,
        since: Tick,
    },
    /// With its last call.
    Draining {
        call: CallId,
        lease: LeaseId,
        since: Tick,
        why: KillReason,
    },
}

#[derive(Debug)]
pub struct Worker {
    pub id: WorkerId,
    pub key: u32,
    pub function: FunctionId,
    pub state: WorkerState,
    pub created: Tick,
    pub calls: u64,
    pub was_cell: bool,
    links: [Link; 3],
}

impl Worker {
    pub fn new(id: WorkerId, key: u32, function: FunctionId, created: Tick, deadline: Tick) -> Self {
        let state = WorkerState::Starting { deadline, phase: Phase::Making };
        Self { id, key, function, state, created, calls: 0, was_cell: false, links: [Link::default(); 3] }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellState {
    Making { deadline: Tick },
    Ready { since: Tick },
}

/// A sandbox that belongs to nobody yet. It cannot be copied, so that [`Cell::label`] leaves none behind.
#[derive(Debug)]
pub struct Cell {
    pub id: WorkerId,
    pub function: FunctionId,
    pub state: CellState,
    pub created: Tick,
    /// What it was counted at when it was made; its function's policy may have changed since.
    pub bytes: u64,
}

impl Cell {
    /// Makes a worker of it. Consumes the cell: there is no way back, and none to another key. The worker's age begins now:
    /// no code of its function has run in the cell, and one that waited long must not be too old for its first call.
    pub fn label(self, key: u32, now: Tick, deadline: Tick) -> Worker {
        Worker {
            was_cell: true,
            state: WorkerState::Starting { deadline, phase: Phase::Loading },
            ..Worker::new(self.id, key, self.function, now, deadline)
        }
    }
}

/// Something that is being removed: it holds its place until nothing of it is left, and can be nothing else again.
#[derive(Clone, Debug)]
pub struct Reaping {
    pub id: WorkerId,
    pub function: FunctionId,
    pub key: Option<u32>,
    pub created: Tick,
    pub calls: u64,
    /// Counts up with each that leaves.
    pub order: u64,
    /// When it began to leave.
    pub since: Tick,
    pub room: Room,
}

/// Whose the place of what is being removed is going to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Room {
    /// Whoever needs it first may have it promised.
    Free,
    /// Promised to a call of the key in this slot.
    Promised(u32),
    /// It has been leaving for too long, and may never go: nobody's before it is gone.
    Overdue,
}

/// What has a place on the host.
#[derive(Debug)]
pub enum Occupant {
    Cell(Cell),
    Worker(Worker),
    Reaping(Reaping),
}

impl Occupant {
    pub fn id(&self) -> WorkerId {
        match self {
            Self::Cell(cell) => cell.id,
            Self::Worker(worker) => worker.id,
            Self::Reaping(reaping) => reaping.id,
        }
    }

    pub fn function(&self) -> FunctionId {
        match self {
            Self::Cell(cell) => cell.function,
            Self::Worker(worker) => worker.function,
            Self::Reaping(reaping) => reaping.function,
        }
    }

    pub fn worker(&self) -> Option<&Worker> {
        match self {
            Self::Worker(worker) => Some(worker),
            Self::Cell(_) | Self::Reaping(_) => None,
        }
    }

    pub fn worker_mut(&mut self) -> Option<&mut Worker> {
        match self {
            Self::Worker(worker) => Some(worker),
            Self::Cell(_) | Self::Reaping(_) => None,
        }
    }
}

/// Only idle workers are in lists.
impl Linked for Occupant {
    fn links(&self) -> &[Link; 3] {
        &self.worker().expect("only idle workers are in lists").links
    }

    fn links_mut(&mut self) -> &mut [Link; 3] {
        &mut self.worker_mut().expect("only idle workers are in lists").links
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Waiting,
    Leased(u32),
}

#[derive(Clone, Debug)]
pub struct Call {
    pub key: u32,
    pub deadline: Tick,
    pub place: Place,
    /// The worker that died with it, when one did.
    pub died_with: Option<WorkerId>,
}
