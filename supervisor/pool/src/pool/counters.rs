//! The counters of all levels. Whatever holds a place counts at its function, its tenant and the host, and at its key and
//! sub-tenant once it has an owner; so does a call. The counters are written here alone: what changes leaves them as what it
//! was, and enters them as what it has become.

use crate::{
    key::FunctionId,
    pool::Pool,
    records::{CellState, Occupant, Phase, Reaping, Worker, WorkerState},
    slots::{KeySlot, WorkerSlot},
};

/// What something is counted as. It may be counted as several of these at once, each of which comes and goes by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Counted {
    /// Whatever holds a place, from its beginning until nothing of it is left: a worker or a cell, also while it is removed.
    Place { function: FunctionId },
    /// What holds a place for an owner: everything but cells.
    OwnedPlace { key: KeySlot },
    /// A cell whose sandbox is being made.
    MakingCell { function: FunctionId, bytes: u64 },
    /// A cell that is ready.
    ReadyCell { bytes: u64 },
    /// A worker whose sandbox is being made.
    MakingWorker { key: KeySlot },
    /// A worker whose function is loading.
    LoadingWorker { key: KeySlot },
    /// A worker that has started. It is counted by its place alone.
    StartedWorker,
    /// A worker, or without a key a cell, that is being removed.
    Leaving { function: FunctionId, key: Option<KeySlot> },
    /// A call that was accepted and has not ended.
    Call { key: KeySlot },
    /// A call that has no worker.
    WaitingCall { key: KeySlot },
}

impl Worker {
    fn stage(&self) -> Counted {
        match self.state {
            WorkerState::Starting { phase: Phase::Making, .. } => Counted::MakingWorker { key: self.key },
            WorkerState::Starting { phase: Phase::Loading, .. } => Counted::LoadingWorker { key: self.key },
            WorkerState::Idle { .. } | WorkerState::Leased { .. } | WorkerState::Draining { .. } => {
                Counted::StartedWorker
            }
        }
    }
}

impl Occupant {
    /// What it is counted as besides its place.
    fn stage(&self) -> Counted {
        match self {
            Self::Cell(cell) => match cell.state {
                CellState::Making { .. } => Counted::MakingCell { function: cell.function, bytes: cell.bytes },
                CellState::Ready => Counted::ReadyCell { bytes: cell.bytes },
            },
            Self::Worker(worker) => worker.stage(),
            Self::Reaping(reaping) => Counted::Leaving { function: reaping.function, key: reaping.key },
        }
    }

    /// The key it belongs to; none: it is a cell, or was one when its removal began.
    pub(super) fn owner(&self) -> Option<KeySlot> {
        match self {
            Self::Cell(_) => None,
            Self::Worker(worker) => Some(worker.key),
            Self::Reaping(reaping) => reaping.key,
        }
    }
}

/// One more, or one less.
fn step<const ENTERS: bool>(counter: &mut u32) {
    if ENTERS {
        *counter += 1;
    } else {
        *counter -= 1;
    }
}

/// So many bytes more, or less.
fn add<const ENTERS: bool>(sum: &mut u64, bytes: u64) {
    if ENTERS {
        *sum += bytes;
    } else {
        *sum -= bytes;
    }
}

impl Pool {
    /// Counts something at all its levels.
    #[inline]
    pub(super) fn enter(&mut self, what: Counted) {
        self.count::<true>(what);
    }

    /// Takes something off the counters of all its levels.
    #[inline]
    pub(super) fn leave(&mut self, what: Counted) {
        self.count::<false>(what);
    }

    // What is counted is known where it is called: inlined, only the counters of that are left.
    #[inline(always)]
    fn count<const ENTERS: bool>(&mut self, what: Counted) {
        match what {
            Counted::Place { function: f } => {
                let function = self.function_mut(f);
                step::<ENTERS>(&mut function.workers);
                let t = function.tenant;
                step::<ENTERS>(&mut self.tenant_mut(t).workers);
                step::<ENTERS>(&mut self.host.workers);
            }
            Counted::OwnedPlace { key: k } => {
                let key = &mut self.keys[k];
                step::<ENTERS>(&mut key.workers);
                let s = key.sub_tenant;
                step::<ENTERS>(&mut self.subs[s].workers);
            }
            Counted::MakingCell { function, bytes } => {
                step::<ENTERS>(&mut self.function_mut(function).cells_making);
                step::<ENTERS>(&mut self.host.making);
                add::<ENTERS>(&mut self.host.cell_bytes, bytes);
            }
            Counted::ReadyCell { bytes } => add::<ENTERS>(&mut self.host.cell_bytes, bytes),
            Counted::MakingWorker { key } => {
                step::<ENTERS>(&mut self.keys[key].starting);
                step::<ENTERS>(&mut self.host.making);
            }
            Counted::LoadingWorker { key } => step::<ENTERS>(&mut self.keys[key].starting),
            Counted::StartedWorker => {}
            Counted::Leaving { function: f, key } => {
                if let Some(k) = key {
                    step::<ENTERS>(&mut self.keys[k].reaping);
                }
                let function = self.function_mut(f);
                step::<ENTERS>(&mut function.leaving);
                let t = function.tenant;
                step::<ENTERS>(&mut self.tenant_mut(t).leaving);
                step::<ENTERS>(&mut self.host.leaving);
            }
            Counted::Call { key: k } => {
                let (f, s) = (self.keys[k].function, self.keys[k].sub_tenant);
                let sub = &mut self.subs[s];
                step::<ENTERS>(&mut sub.in_flight);
                let t = sub.tenant;
                step::<ENTERS>(&mut self.function_mut(f).in_flight);
                step::<ENTERS>(&mut self.tenant_mut(t).in_flight);
                step::<ENTERS>(&mut self.host.in_flight);
            }
            Counted::WaitingCall { key } => {
                step::<ENTERS>(&mut self.keys[key].waiting);
                step::<ENTERS>(&mut self.host.waiting);
            }
        }
    }

    /// Puts a worker or cell that is to be made on the books.
    pub(super) fn insert_occupant(&mut self, occupant: Occupant) {
        let (id, stage, owner) = (occupant.id(), occupant.stage(), occupant.owner());
        self.enter(Counted::Place { function: occupant.function() });
        if let Some(key) = owner {
            self.enter(Counted::OwnedPlace { key });
        }
        self.enter(stage);
        let w = self.workers.insert(occupant);
        self.ids.insert(id, w);
    }

    /// Makes something else of an occupant, in its place. `change` gets the occupant itself, not a copy.
    pub(super) fn change_occupant(&mut self, w: WorkerSlot, change: impl FnOnce(Occupant) -> Occupant) {
        let (stage, owner) = (self.workers[w].stage(), self.workers[w].owner());
        self.leave(stage);
        self.workers.transform(w, change);
        let occupant = &self.workers[w];
        let (stage, new_owner) = (occupant.stage(), occupant.owner());
        // A cell that was labelled. An owner is for life.
        if let (None, Some(key)) = (owner, new_owner) {
            self.enter(Counted::OwnedPlace { key });
        }
        self.enter(stage);
    }

    /// Takes an occupant of which nothing is left off the books.
    pub(super) fn remove_occupant(&mut self, w: WorkerSlot) {
        let Some(occupant) = self.workers.remove(w) else { return };
        self.ids.remove(&occupant.id());
        self.leave(occupant.stage());
        if let Some(key) = occupant.owner() {
            self.leave(Counted::OwnedPlace { key });
        }
        self.leave(Counted::Place { function: occupant.function() });
    }

    /// Makes an occupant one that is being removed. Its place is promised to nobody yet.
    pub(super) fn begin_removal(&mut self, w: WorkerSlot, reaping: Reaping) {
        let (function, key) = (reaping.function, reaping.key);
        self.leave(self.workers[w].stage());
        self.workers[w] = Occupant::Reaping(reaping);
        self.enter(Counted::Leaving { function, key });
        self.host.free_rooms.push(w);
    }

    /// Sets the state of a worker whose start has come a step further.
    pub(super) fn advance_start(&mut self, w: WorkerSlot, state: WorkerState) {
        let Some(worker) = self.workers[w].worker_mut() else { return };
        let before = worker.stage();
        worker.state = state;
        let after = worker.stage();
        self.leave(before);
        self.enter(after);
    }

    /// Sets the state of a worker that has started, which counts as the same in all its states.
    pub(super) fn set_started_state(&mut self, w: WorkerSlot, state: WorkerState) {
        if let Some(worker) = self.workers[w].worker_mut() {
            debug_assert_eq!(worker.stage(), Counted::StartedWorker, "its start is counted");
            worker.state = state;
        }
    }
}
