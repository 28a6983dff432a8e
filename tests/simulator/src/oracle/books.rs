//! What the oracle knows.

use std::collections::VecDeque;

use sublet_pool::{FunctionPolicy, Rate, SubTenantPolicy, TenantPolicy, Tick};

/// A call's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallState {
    /// Not decided.
    Arriving,
    /// Accepted, without a worker.
    Waiting,
    /// With this worker.
    Leased(u64),
    /// Ended or refused.
    Settled,
}

#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub key: usize,
    pub deadline: Tick,
    pub state: CallState,
    /// The worker that died with it, when one did.
    pub died_with: Option<u64>,
}

/// A worker's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A sandbox for nobody.
    Cell,
    /// Belongs to a key and is not ready.
    Starting,
    /// Ready.
    Idle {
        /// Since when.
        since: Tick,
        /// Whether it was frozen.
        frozen: bool,
    },
    /// With a call.
    Leased {
        /// Which.
        call: u64,
        /// By which lease.
        lease: u64,
    },
    /// To be removed.
    Killed,
    /// Removed.
    Reaped,
}

#[derive(Clone, Copy, Debug)]
pub struct Worker {
    pub function: usize,
    pub key: Option<usize>,
    pub state: State,
    /// Its sandbox is not said to be made.
    pub is_making: bool,
    pub was_cell: bool,
    pub calls: u64,
    /// Since when it belongs to somebody.
    pub born: Tick,
    pub bytes: u64,
    pub start_deadline: Tick,
    /// Since when it is being removed.
    pub killed: Tick,
}

impl Worker {
    pub fn new(function: usize, key: Option<usize>, born: Tick) -> Self {
        let state = if key.is_some() { State::Starting } else { State::Cell };
        let (is_making, was_cell) = (true, key.is_none());
        Self { function, key, state, is_making, was_cell, calls: 0, born, bytes: 0, start_deadline: born, killed: born }
    }

    pub fn is_alive(&self) -> bool {
        !matches!(self.state, State::Killed | State::Reaped)
    }
}

/// Calls that may still pass. A copy of the rule, not of the code: tokens come in with time, up to the burst. When a rate is
/// changed, nobody outside can tell what is left, only what is left at the least and at the most.
#[derive(Clone, Copy, Debug)]
pub struct Tokens {
    least: f64,
    most: f64,
    at: Tick,
}

impl Tokens {
    pub fn new() -> Self {
        Self { least: f64::MAX, most: f64::MAX, at: Tick(0) }
    }

    fn now(&self, now: Tick, rate: Rate) -> Self {
        let more = now.since(self.at).as_secs_f64() * f64::from(rate.per_second);
        let burst = f64::from(rate.burst);
        Self { least: (self.least + more).min(burst), most: (self.most + more).min(burst), at: now }
    }

    pub fn may_pass(&self, now: Tick, rate: Rate) -> bool {
        self.now(now, rate).most > 0.999
    }

    pub fn must_pass(&self, now: Tick, rate: Rate) -> bool {
        self.now(now, rate).least > 1.001
    }

    pub fn take(&mut self, now: Tick, rate: Rate) {
        let Self { least, most, at } = self.now(now, rate);
        *self = Self { least: least - 1.0, most: most - 1.0, at };
    }

    pub fn changed(&mut self, now: Tick, old: Option<Rate>, new: Option<Rate>) {
        if old != new {
            *self = Self { least: -f64::from(crate::limits::BURST_MAX), most: f64::MAX, at: now };
        }
    }
}

#[derive(Clone, Debug)]
pub struct Sub {
    pub policy: Option<SubTenantPolicy>,
    pub workers: u32,
    pub calls: u32,
    pub tokens: Tokens,
}

#[derive(Clone, Debug)]
pub struct Tenant {
    pub policy: TenantPolicy,
    pub subs: Vec<Sub>,
    pub workers: u32,
    pub calls: u32,
    pub tokens: Tokens,
}

impl Tenant {
    pub fn new(policy: TenantPolicy, labels: usize) -> Self {
        let sub = Sub { policy: None, workers: 0, calls: 0, tokens: Tokens::new() };
        Self { policy, subs: vec![sub; labels], workers: 0, calls: 0, tokens: Tokens::new() }
    }

    pub fn sub_policy(&self, sub: usize) -> SubTenantPolicy {
        let own = self.subs[sub].policy.unwrap_or(self.policy.sub_tenant);
        if sub > 0 {
            return own;
        }
        // Nobody's in particular: the limits of its function are its own.
        SubTenantPolicy { workers_max: u32::MAX, calls_in_flight_max: u32::MAX, rate: None, queue_max: None, ..own }
    }
}

#[derive(Clone, Debug)]
pub struct Function {
    pub tenant: usize,
    pub policy: FunctionPolicy,
    pub workers: u32,
    pub calls: u32,
    pub is_retired: bool,
    pub is_gone: bool,
}

impl Function {
    pub fn new(tenant: usize, policy: FunctionPolicy) -> Self {
        Self { tenant, policy, workers: 0, calls: 0, is_retired: false, is_gone: false }
    }
}

#[derive(Clone, Debug)]
pub struct Key {
    pub function: usize,
    pub sub: usize,
    /// In the order of arrival; all of them wait.
    pub queue: VecDeque<u64>,
    /// Idle workers, last used last.
    pub idle: Vec<u64>,
    pub workers: u32,
    pub live: u32,
    pub starting: u32,
    pub minimum: u32,
    /// Some of its workers may have been kept beyond their time.
    pub had_minimum: bool,
    /// The most that was asked for ahead, as long as it can matter.
    pub warm: u32,
    /// Failures in a row, as far as they cannot be forgotten.
    pub failures: u32,
    pub failed_at: Tick,
    pub has_ever_failed: bool,
}

impl Key {
    pub fn new(function: usize, sub: usize) -> Self {
        Self {
            function,
            sub,
            queue: VecDeque::new(),
            idle: Vec::new(),
            workers: 0,
            live: 0,
            starting: 0,
            minimum: 0,
            had_minimum: false,
            warm: 0,
            failures: 0,
            failed_at: Tick(0),
            has_ever_failed: false,
        }
    }
}
