//! What must hold, told from events and actions alone: the oracle keeps books of its own and never looks into the pool.
//!
//! | here | what |
//! |---|---|
//! | [`books`] | what it knows of each level, call and worker |
//! | [`before`] | what an event changes, and what the pool owes after it |
//! | [`action`] | whether an action may be, and what it changes |
//! | [`after`] | whether the pool has done all it owed |
//!
//! Where the outside cannot tell (which place was promised to whom), it allows what could be right and never more.

mod action;
mod after;
mod before;
mod books;

use std::{cmp::Reverse, collections::BinaryHeap};

use sublet_pool::{Action, CallId, Event, FunctionId, FunctionPolicy, HostPolicy, SubTenant, TenantPolicy, Tick};

use books::{Call, Function, Key, Tenant, Worker};
pub use books::{CallState, State};

/// A broken rule.
pub type Broken = String;

/// Returns the rule as broken unless it holds.
#[macro_export]
macro_rules! rule {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}

/// The place of a label in dense lists; the simulator's labels are numbers.
pub fn sub_index(label: &SubTenant) -> usize {
    label.as_str().parse().map_or(0, |n: usize| n + 1)
}

/// All that follows from events and actions.
#[derive(Clone, Debug)]
pub struct Oracle {
    pub(crate) now: Tick,
    pub(crate) host: HostPolicy,
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) functions: Vec<Function>,
    /// By function and label.
    pub(crate) keys: Vec<Key>,
    pub(crate) calls: Vec<Call>,
    /// By id; the first is a stand-in, ids count from 1.
    pub(crate) workers: Vec<Worker>,
    /// Workers that are not reaped.
    pub(crate) alive: Vec<u64>,
    pub(crate) labels: usize,
    pub(crate) making: u32,
    pub(crate) cell_bytes: u64,
    pub(crate) reaping: u32,
    pub(crate) in_flight: u32,
    pub(crate) waiting: u32,
    pub(crate) last_lease: u64,
    pub(crate) drain: Option<Tick>,
    pub(crate) is_drained: bool,
    deadlines: BinaryHeap<Reverse<(Tick, u64)>>,
    /// Owed in this step.
    pub(crate) must_kill: Vec<u64>,
    pub(crate) must_settle: Vec<u64>,
    /// The call that arrives in this step, and what stood in its way before.
    pub(crate) arriving: Option<Arrival>,
    pub(crate) touched: Vec<usize>,
    pub(crate) is_forced: bool,
    pub(crate) died: Option<u64>,
}

/// A call before the pool has said anything of it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) call: u64,
    pub(crate) queue_was_full: bool,
    pub(crate) host_queue_was_full: bool,
    pub(crate) was_backing_off: bool,
    /// Its key had an idle worker that may serve once more.
    pub(crate) had_idle: bool,
}

impl Oracle {
    /// Knows nothing yet; `labels` is how many sub-tenants a tenant can have, the shared one included.
    pub fn new(host: HostPolicy, labels: usize) -> Self {
        Self {
            now: Tick(0),
            host,
            tenants: Vec::new(),
            functions: Vec::new(),
            keys: Vec::new(),
            calls: Vec::new(),
            workers: vec![Worker::new(0, None, Tick(0))],
            alive: Vec::new(),
            labels,
            making: 0,
            cell_bytes: 0,
            reaping: 0,
            in_flight: 0,
            waiting: 0,
            last_lease: 0,
            drain: None,
            is_drained: false,
            deadlines: BinaryHeap::new(),
            must_kill: Vec::new(),
            must_settle: Vec::new(),
            arriving: None,
            touched: Vec::new(),
            is_forced: false,
            died: None,
        }
    }

    /// As the pool's.
    pub fn add_tenant(&mut self, policy: TenantPolicy) {
        self.tenants.push(Tenant::new(policy, self.labels));
    }

    /// As the pool's.
    pub fn add_function(&mut self, tenant: usize, policy: FunctionPolicy) {
        let f = self.functions.len();
        self.functions.push(Function::new(tenant, policy));
        self.keys.extend((0..self.labels).map(|sub| Key::new(f, sub)));
    }

    /// An event that the pool is about to get.
    pub fn before(&mut self, now: Tick, event: &Event) {
        self.now = self.now.max(now);
        self.must_kill.clear();
        self.must_settle.clear();
        self.touched.clear();
        self.arriving = None;
        self.is_forced = false;
        self.died = None;
        self.expect(event);
    }

    /// What the pool did.
    ///
    /// # Errors
    /// The rule it broke.
    pub fn after(&mut self, out: &[Action], next_wakeup: Option<Tick>) -> Result<(), Broken> {
        if let Some(arrival) = self.arriving {
            self.admit(arrival, out)?;
        }
        for action in out {
            self.action(action).map_err(|what| format!("{what}: {action:?}"))?;
        }
        self.owed()?;
        rule!(next_wakeup.is_none_or(|at| at > self.now), "the next wake-up is in the future, or the driver spins");
        Ok(())
    }

    /// Where a call is.
    pub fn call(&self, call: CallId) -> CallState {
        self.calls[call.0 as usize].state
    }

    /// What a worker is.
    pub fn worker(&self, worker: u64) -> State {
        self.workers[worker as usize].state
    }

    /// The call a worker has.
    pub fn call_of(&self, worker: u64) -> Option<CallId> {
        match self.worker(worker) {
            State::Leased { call, .. } => Some(CallId(call)),
            _ => None,
        }
    }

    /// Workers that are not reaped.
    pub fn alive(&self) -> &[u64] {
        &self.alive
    }

    /// Whether a worker of a call's key is being made.
    pub fn is_starting(&self, call: CallId) -> bool {
        self.keys[self.calls[call.0 as usize].key].starting > 0
    }

    /// Whether a key has failed so often that it backs off.
    pub fn is_backing_off(&self, worker: u64) -> bool {
        self.workers[worker as usize].key.is_some_and(|k| self.backs_off_until(k).is_some())
    }

    /// Whether the end of a drain was told.
    pub fn is_drained(&self) -> bool {
        self.is_drained
    }

    pub(crate) fn key_index(&self, function: FunctionId, sub_tenant: &SubTenant) -> usize {
        function.0 as usize * self.labels + sub_index(sub_tenant)
    }

    pub(crate) fn tenant_of(&self, k: usize) -> usize {
        self.functions[self.keys[k].function].tenant
    }
}
