//! What the pool knows of the host and of each tenant, function, sub-tenant, key, worker and call.
//!
//! The counters in these records are written by `pool/counters.rs` alone.

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
    slots::{KeySlot, SubTenantSlot, WorkerSlot},
    time::Tick,
    virtual_clock::VirtualClock,
};

/// The limits, counters and lists of the host.
#[derive(Clone, Debug)]
pub struct Host {
    pub policy: HostPolicy,
    /// Workers and cells in any state, those that are being removed included.
    pub workers: u32,
    /// Of `workers`, those that are being removed.
    pub leaving: u32,
    /// Of `workers`, those whose sandbox is being made.
    pub making: u32,
    /// Calls that were accepted and have not ended.
    pub in_flight: u32,
    /// Of `in_flight`, those without a worker.
    pub waiting: u32,
    pub idle: Lru,
    /// Ready cells, oldest first.
    pub cells: VecDeque<WorkerSlot>,
    /// What all cells, ready or in the making, are counted at, in bytes.
    pub cell_bytes: u64,
    /// Tenants with keys to serve, by their virtual time.
    pub turns: BTreeSet<(u64, TenantId)>,
    pub virtual_now: u64,
    /// All places are taken by workers that cannot be ended.
    pub is_blocked: bool,
    /// Workers that are being removed whose places are promised to nobody, in the order in which their removal began.
    pub free_rooms: Vec<WorkerSlot>,
    /// Workers that are being removed whose places are promised to a key, in the order of the promises.
    pub promised_rooms: Vec<WorkerSlot>,
    /// Workers that are being removed and are overdue: nobody waits for their places.
    pub overdue_rooms: Vec<WorkerSlot>,
}

/// The limits, counters and lists of one tenant.
#[derive(Clone, Debug)]
pub struct Tenant {
    pub policy: TenantPolicy,
    pub own_policies: HashMap<SubTenant, SubTenantPolicy>,
    pub sub_tenants: HashMap<SubTenant, SubTenantSlot>,
    /// Workers and cells of all its functions, those that are being removed included.
    pub workers: u32,
    /// Of `workers`, those that are being removed.
    pub leaving: u32,
    /// Calls that were accepted and have not ended.
    pub in_flight: u32,
    pub bucket: Bucket,
    pub idle: Lru,
    /// Functions with keys to serve.
    pub open: Vec<FunctionId>,
    pub virtual_time: u64,
    /// The clock by which its sub-tenants are served in turn.
    pub clock: VirtualClock,
    /// Its place in [`Host::turns`].
    pub turn: Option<u64>,
    /// All its places are taken by workers that cannot be ended.
    pub is_blocked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FunctionState {
    Live,
    Retiring,
    Gone,
}

/// The limits, counters and lists of one revision of a function.
#[derive(Clone, Debug)]
pub struct Function {
    pub tenant: TenantId,
    pub name: Arc<str>,
    pub revision: u64,
    pub policy: FunctionPolicy,
    pub state: FunctionState,
    /// Its workers and cells, those that are being removed included.
    pub workers: u32,
    /// Of `workers`, those that are being removed.
    pub leaving: u32,
    /// Calls that were accepted and have not ended.
    pub in_flight: u32,
    /// Idle workers that are not frozen, least recently used first.
    pub hot: Lru,
    /// Idle workers that are frozen, least recently used first.
    pub frozen: Lru,
    /// When [`Timer::Idle`](crate::timers::Timer::Idle) is due, if it is set.
    pub idle_armed: Option<Tick>,
    /// Keys to serve: virtual time, order among equal times, key.
    pub turns: BTreeSet<(u64, u64, KeySlot)>,
    /// Whether it is in [`Tenant::open`].
    pub is_open: bool,
    /// All its places are taken by workers that cannot be ended.
    pub is_blocked: bool,
    /// Ready cells, oldest first.
    pub cells_ready: VecDeque<WorkerSlot>,
    /// Cells whose sandbox is being made.
    pub cells_making: u32,
    pub cells_breaker: Breaker,
    /// Whether [`Timer::Cells`](crate::timers::Timer::Cells) is set.
    pub cells_armed: bool,
    /// Whether [`Timer::Replace`](crate::timers::Timer::Replace) is set.
    pub replace_armed: bool,
    pub misses: Misses,
    /// How long a call takes, on the average of the last few, in nanoseconds; 0 while nothing is known.
    pub service_nanos: u64,
}

/// Everything about one sub-tenant of one tenant; kept only while there is something to keep.
#[derive(Clone, Debug)]
pub struct SubTenantRecord {
    pub tenant: TenantId,
    pub label: SubTenant,
    pub keys: Vec<(FunctionId, KeySlot)>,
    /// Workers of all its keys, those that are being removed included.
    pub workers: u32,
    /// Calls that were accepted and have not ended.
    pub in_flight: u32,
    pub bucket: Bucket,
    pub virtual_time: u64,
    /// How many of its keys have turns.
    pub turns: u32,
    /// The weight with which its tenant's clock counts it while it has turns.
    pub weight_waiting: u32,
    /// Whether [`Timer::SubTenant`](crate::timers::Timer::SubTenant) is set, by which it is forgotten.
    pub is_watched: bool,
}

/// Everything about one pool key; kept only while there is something to keep.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    pub function: FunctionId,
    pub sub_tenant: SubTenantSlot,
    /// Calls in the order of arrival; some may have ended meanwhile.
    pub queue: VecDeque<CallId>,
    /// How many of `queue` wait.
    pub waiting: u32,
    /// Idle workers, most recently used last.
    pub idle: Vec<WorkerSlot>,
    /// Its workers in any state, those that are being removed included.
    pub workers: u32,
    /// Of `workers`, those whose sandbox is being made or whose function is loading.
    pub starting: u32,
    /// Of `workers`, those that are being removed.
    pub reaping: u32,
    /// Places that are promised to it.
    pub rooms: u32,
    pub breaker: Breaker,
    /// Starts that the host has failed. They hold up what is made ahead of calls, so that it is not tried over and over, and
    /// no call.
    pub host_faults: Breaker,
    /// Workers that are always kept.
    pub minimum: u32,
    /// Workers that an operator has asked for once; 0 when they are there.
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
    pub key: KeySlot,
    pub function: FunctionId,
    pub state: WorkerState,
    pub created: Tick,
    pub calls: u64,
    pub was_cell: bool,
    links: [Link; 3],
}

impl Worker {
    pub fn new(id: WorkerId, key: KeySlot, function: FunctionId, created: Tick, deadline: Tick) -> Self {
        let state = WorkerState::Starting { deadline, phase: Phase::Making };
        Self { id, key, function, state, created, calls: 0, was_cell: false, links: [Link::default(); 3] }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellState {
    Making { deadline: Tick },
    Ready,
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
    pub fn label(self, key: KeySlot, now: Tick, deadline: Tick) -> Worker {
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
    /// The key it was made for; none: it was a cell.
    pub key: Option<KeySlot>,
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
    /// Promised to a call of this key.
    Promised(KeySlot),
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

/// Whether a call has a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallState {
    Waiting,
    Leased(WorkerSlot),
}

#[derive(Clone, Debug)]
pub struct Call {
    pub key: KeySlot,
    pub deadline: Tick,
    pub state: CallState,
    /// The worker that died with it, when one did.
    pub died_with: Option<WorkerId>,
}
