//! The books as others may read them.

use crate::{
    event::{Tick, WorkerId},
    key::PoolKey,
    pool::{Pool, State, Worker},
};

/// A worker's state without what it owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StateName {
    /// Being made.
    Starting,
    /// Ready.
    Idle,
    /// With a call.
    Leased,
    /// Being removed.
    Reaping,
}

/// What one worker is, to those who list them.
#[derive(Clone, Debug)]
pub struct WorkerView<'a> {
    /// Its id.
    pub id: WorkerId,
    /// Whose it is.
    pub key: &'a PoolKey,
    /// Its state.
    pub state: StateName,
    /// Since when it is.
    pub created: Tick,
    /// Since when it is idle.
    pub idle_since: Option<Tick>,
    /// Calls given to it.
    pub calls: u64,
    /// Whether it is frozen.
    pub frozen: bool,
}

/// Sums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Workers in any state.
    pub workers: u64,
    /// Of them being made.
    pub starting: u64,
    /// Calls with a worker.
    pub calls_leased: u64,
    /// Calls waiting.
    pub calls_waiting: u64,
}

impl Pool {
    /// All workers, by id.
    pub fn workers(&self) -> impl Iterator<Item = WorkerView<'_>> {
        self.workers.iter().map(|(id, worker)| view(*id, worker))
    }

    /// One worker.
    pub fn worker(&self, id: WorkerId) -> Option<WorkerView<'_>> {
        self.workers.get(&id).map(|worker| view(id, worker))
    }

    /// Sums.
    pub fn counts(&self) -> Counts {
        Counts {
            workers: self.workers.len() as u64,
            starting: self.starting.into(),
            calls_leased: self.leased.into(),
            calls_waiting: self.waiting.into(),
        }
    }
}

pub(crate) fn state_name(state: &State) -> StateName {
    match state {
        State::Starting { .. } => StateName::Starting,
        State::Idle { .. } => StateName::Idle,
        State::Leased { .. } => StateName::Leased,
        State::Reaping => StateName::Reaping,
    }
}

fn view(id: WorkerId, worker: &Worker) -> WorkerView<'_> {
    let (idle_since, frozen) = match worker.state {
        State::Idle { since, frozen } => (Some(since), frozen),
        State::Starting { .. } | State::Leased { .. } | State::Reaping => (None, false),
    };
    WorkerView {
        id,
        key: &worker.key,
        state: state_name(&worker.state),
        created: worker.created,
        idle_since,
        calls: worker.calls,
        frozen,
    }
}
