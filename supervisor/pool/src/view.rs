//! The books as others may read them.

use std::collections::HashMap;

use crate::{
    event::WorkerId,
    key::{FunctionId, PoolKey, SubTenant, TenantId},
    pool::Pool,
    records::{CellState, Occupant, WorkerState},
    slots::KeySlot,
    time::Tick,
};

/// A worker's state without what it owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StateName {
    /// Being made, or its function is loading.
    Starting,
    /// A sandbox for nobody yet.
    Cell,
    /// Its function is ready for a call.
    Idle,
    /// It has a call.
    Leased,
    /// It has its last call, and is ended after it.
    Draining,
    /// It is being removed.
    Reaping,
}

/// What one worker is, to those who list them.
#[derive(Clone, Copy, Debug)]
pub struct WorkerView<'a> {
    /// The id of the worker or cell.
    pub id: WorkerId,
    /// The function it is made for.
    pub function: FunctionId,
    /// The label of its owner; none: it is a cell.
    pub sub_tenant: Option<&'a SubTenant>,
    /// The state it is in.
    pub state: StateName,
    /// When its making began.
    pub created: Tick,
    /// Since when it is idle; none: it is not.
    pub idle_since: Option<Tick>,
    /// How many calls it has been given.
    pub calls: u64,
    /// Whether it is frozen.
    pub frozen: bool,
}

/// How many workers, cells and calls there are, of all tenants together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Workers in any state, cells left out.
    pub workers: u64,
    /// Sandboxes and functions being started.
    pub starting: u64,
    /// Cells, ready or in the making.
    pub cells: u64,
    /// Calls that a worker has.
    pub calls_leased: u64,
    /// Calls that have no worker yet.
    pub calls_waiting: u64,
    /// Sub-tenants of which anything is remembered.
    pub sub_tenants: u64,
}

/// What calls of a function have to expect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Workers that are ready or have a call, of sub-tenants that do not back off.
    pub serving: u32,
    /// Sub-tenants that back off: their workers have failed often enough in a row, and that is not forgotten.
    pub backing_off: u32,
    /// Its shared workers back off: those of all its callers.
    pub shared_backs_off: bool,
}

impl Pool {
    /// Of every function that has workers or back-offs. Looks at all workers and all keys.
    pub fn outlooks(&self, now: Tick) -> HashMap<FunctionId, Outlook> {
        let mut outlooks: HashMap<FunctionId, Outlook> = HashMap::new();
        let backs_off = |k: KeySlot| {
            let breaker = self.keys[k].breaker;
            breaker.open_until().is_some() && breaker.remembers(now)
        };
        for (k, key) in self.keys.iter().filter(|(k, _)| backs_off(*k)) {
            let outlook = outlooks.entry(key.function).or_default();
            outlook.backing_off += 1;
            outlook.shared_backs_off |= self.subs[self.keys[k].sub_tenant].label.is_shared();
        }
        for worker in self.workers.iter().filter_map(|(_, occupant)| occupant.worker()) {
            let serves = match worker.state {
                WorkerState::Idle { .. } | WorkerState::Leased { .. } | WorkerState::Draining { .. } => true,
                WorkerState::Starting { .. } => false,
            };
            // One on trial has shown nothing yet.
            if serves && !backs_off(worker.key) {
                outlooks.entry(worker.function).or_default().serving += 1;
            }
        }
        outlooks
    }

    /// All workers and cells, by id.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView<'_>> {
        let mut all: Vec<_> = self.workers.iter().map(|(_, occupant)| self.view(occupant)).collect();
        all.sort_unstable_by_key(|view| view.id);
        all.into_iter()
    }

    /// One worker.
    pub fn worker(&self, id: WorkerId) -> Option<WorkerView<'_>> {
        self.ids.get(&id).map(|w| self.view(&self.workers[*w]))
    }

    /// How many workers, cells and calls there are, of all tenants together.
    pub fn counts(&self) -> Counts {
        let cells = self.functions.iter().map(|f| u64::from(f.cells_making) + f.cells_ready.len() as u64).sum();
        Counts {
            workers: u64::from(self.host.workers) - cells,
            starting: self.keys.iter().map(|(_, key)| u64::from(key.starting)).sum(),
            cells,
            calls_leased: (self.host.in_flight - self.host.waiting).into(),
            calls_waiting: self.host.waiting.into(),
            sub_tenants: self.subs.len() as u64,
        }
    }

    /// Calls of a key that wait.
    pub fn waiting_of(&self, key: &PoolKey) -> u32 {
        self.find_key(key).map_or(0, |k| self.keys[k].waiting)
    }

    /// Places of workers that are being removed which calls have been promised so far. Only grows.
    pub fn promises(&self) -> u64 {
        self.promises
    }

    /// Workers that are being removed, and whose places calls wait for.
    pub fn promised(&self) -> impl Iterator<Item = WorkerId> {
        self.host.promised_rooms.iter().filter_map(|w| match &self.workers[*w] {
            Occupant::Reaping(reaping) => Some(reaping.id),
            Occupant::Worker(_) | Occupant::Cell(_) => None,
        })
    }

    /// Every key that has calls waiting, with how many.
    pub fn waiting(&self) -> impl Iterator<Item = (FunctionId, &SubTenant, u32)> {
        let some = self.keys.iter().filter(|(_, key)| key.waiting > 0);
        some.map(|(_, key)| (key.function, &self.subs[key.sub_tenant].label, key.waiting))
    }

    /// A tenant by its name.
    pub fn tenant_id(&self, name: &str) -> Option<TenantId> {
        self.tenant_names.get(name).copied()
    }

    fn view<'a>(&'a self, occupant: &'a Occupant) -> WorkerView<'a> {
        let label = |k: KeySlot| Some(&self.subs[self.keys[k].sub_tenant].label);
        let (id, function) = (occupant.id(), occupant.function());
        let view = |sub_tenant, state, created, calls| WorkerView {
            id,
            function,
            sub_tenant,
            state,
            created,
            idle_since: None,
            calls,
            frozen: false,
        };
        match occupant {
            Occupant::Cell(cell) => {
                let state = match cell.state {
                    CellState::Making { .. } => StateName::Starting,
                    CellState::Ready => StateName::Cell,
                };
                view(None, state, cell.created, 0)
            }
            Occupant::Reaping(gone) => view(gone.key.and_then(label), StateName::Reaping, gone.created, gone.calls),
            Occupant::Worker(worker) => {
                let seen = |state| view(label(worker.key), state, worker.created, worker.calls);
                match worker.state {
                    WorkerState::Starting { .. } => seen(StateName::Starting),
                    WorkerState::Idle { since, frozen } => {
                        WorkerView { idle_since: Some(since), frozen, ..seen(StateName::Idle) }
                    }
                    WorkerState::Leased { .. } => seen(StateName::Leased),
                    WorkerState::Draining { .. } => seen(StateName::Draining),
                }
            }
        }
    }
}
