//! What is simulated: limits and times of a host, its tenants and their functions.

use std::{collections::BTreeMap, time::Duration};

use sublet_pool::{FunctionPolicy, HostPolicy, Rate, TenantPolicy};

use crate::token::Token;

/// A spawn until READY: three times the floor of a confined C program (2.4 ms to ready), for a small static function.
/// Script runtimes take 50 to 500 ms more; give what was measured.
pub const COLD_START: Duration = Duration::from_millis(7);
/// Of that, the sandbox alone: what a cell has behind it.
pub const CELL_MAKE: Duration = Duration::from_millis(4);
/// From the label to READY: what is left of a cold start.
pub const CELL_LABEL: Duration = Duration::from_millis(3);
/// Kill, reap and remove the group: 0.25 ms on a quiet host, 1 to 2 ms at p99.
pub const REMOVAL: Duration = Duration::from_millis(1);
/// None: a recorded service time begins at delivery and has thaw and hand-over in it.
pub const WARM_OVERHEAD: Duration = Duration::ZERO;
/// A small script runtime. A static function takes 1 MiB, and a large runtime a few hundred.
pub const MEMORY_BYTES: u64 = 32 << 20;

/// What the host takes for what the pool asks of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// From the decision to make a worker until it is ready; [`COLD_START`].
    pub cold_start: Duration,
    /// Of that, and for a cell on its own, making the sandbox; [`CELL_MAKE`]. Never above `cold_start`.
    pub cell_make: Duration,
    /// From labelling a cell until its function is ready; [`CELL_LABEL`].
    pub cell_label: Duration,
    /// From the decision to end a worker or cell until its place is free; [`REMOVAL`].
    pub removal: Duration,
    /// What a delivery to a warm worker takes before the service time begins; [`WARM_OVERHEAD`].
    pub warm_overhead: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            cold_start: COLD_START,
            cell_make: CELL_MAKE,
            cell_label: CELL_LABEL,
            removal: REMOVAL,
            warm_overhead: WARM_OVERHEAD,
        }
    }
}

/// One function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// Its limits.
    pub policy: FunctionPolicy,
    /// From a call's arrival to its answer, at the longest.
    pub timeout: Duration,
    /// What the host takes for it.
    pub times: Times,
    /// Memory of one worker, hot or frozen, from the decision to make it until nothing of it is left. A cell counts
    /// [`FunctionPolicy::cell_bytes`] until it has a label.
    pub memory_bytes: u64,
}

impl Function {
    /// With the defaults of everything that a configuration does not say.
    pub fn new(policy: FunctionPolicy, timeout: Duration) -> Self {
        Self { policy, timeout, times: Times::default(), memory_bytes: MEMORY_BYTES }
    }
}

/// One tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// Its limits, and those of each of its sub-tenants.
    pub policy: TenantPolicy,
    /// Its functions by name, in the revision that runs.
    pub functions: BTreeMap<Token, Function>,
}

/// All of it; checked once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    pub(crate) host: HostPolicy,
    pub(crate) tenants: BTreeMap<Token, Tenant>,
}

/// Why it cannot be simulated. Configurations that were checked give none of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetupError {
    /// Nothing could ever run, or the pool would divide by it.
    #[error("{key} = 0: nothing could run; write at least 1")]
    Zero {
        /// Full name of the limit.
        key: String,
    },
    /// A tenant or function without a name.
    #[error("{key}: a name is empty; every tenant and function has one")]
    EmptyName {
        /// Where.
        key: String,
    },
    /// A cold start makes a sandbox first.
    #[error(
        "{key}: making a cell takes {cell_make:?} and a whole cold start {cold_start:?}, which has that in it; lower the \
         one or raise the other"
    )]
    CellMakeAboveColdStart {
        /// Full name of the function.
        key: String,
        /// [`Times::cell_make`].
        cell_make: Duration,
        /// [`Times::cold_start`].
        cold_start: Duration,
    },
}

impl Setup {
    /// Checks what the pool relies on. Whether one cap is within another is the configuration's to say.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn new(host: HostPolicy, tenants: BTreeMap<Token, Tenant>) -> Result<Self, SetupError> {
        for (key, value) in [
            ("workers_max", host.workers_max),
            ("starts_max", host.starts_max),
            ("calls_in_flight_max", host.calls_in_flight_max),
            ("calls_waiting_max", host.calls_waiting_max),
        ] {
            not_zero("host", key, value)?;
        }
        for (name, tenant) in &tenants {
            check_tenant(&format!("tenant.{name}"), name, tenant)?;
        }
        Ok(Self { host, tenants })
    }

    /// Limits of the host.
    pub const fn host(&self) -> &HostPolicy {
        &self.host
    }

    /// The tenants, by name.
    pub const fn tenants(&self) -> &BTreeMap<Token, Tenant> {
        &self.tenants
    }

    /// A function by the names a trace has.
    pub fn function(&self, tenant: &Token, function: &Token) -> Option<&Function> {
        self.tenants.get(tenant)?.functions.get(function)
    }
}

fn not_zero(prefix: &str, key: &str, value: u32) -> Result<(), SetupError> {
    if value == 0 { Err(SetupError::Zero { key: format!("{prefix}.{key}") }) } else { Ok(()) }
}

fn check_level(prefix: &str, workers: u32, calls: u32, weight: u32, rate: Option<Rate>) -> Result<(), SetupError> {
    for (key, value) in [("workers_max", workers), ("calls_in_flight_max", calls), ("weight", weight)] {
        not_zero(prefix, key, value)?;
    }
    let rate = rate.unwrap_or(Rate { per_second: 1, burst: 1 });
    not_zero(prefix, "rate", rate.per_second.min(rate.burst))
}

fn check_tenant(prefix: &str, name: &Token, tenant: &Tenant) -> Result<(), SetupError> {
    if name.is_empty() {
        return Err(SetupError::EmptyName { key: prefix.to_owned() });
    }
    let TenantPolicy { workers_max, calls_in_flight_max, rate, weight, sub_tenant: sub } = tenant.policy;
    check_level(prefix, workers_max, calls_in_flight_max, weight, rate)?;
    let below = format!("{prefix}.sub_tenant");
    check_level(&below, sub.workers_max, sub.calls_in_flight_max, sub.weight, sub.rate)?;
    for (name, function) in &tenant.functions {
        let key = format!("{prefix}.function.{name}");
        if name.is_empty() {
            return Err(SetupError::EmptyName { key });
        }
        let policy = &function.policy;
        not_zero(&key, "workers_max", policy.workers_max)?;
        not_zero(&key, "workers_per_sub_tenant_max", policy.workers_per_sub_tenant_max)?;
        not_zero(&key, "calls_in_flight_max", policy.calls_in_flight_max)?;
        let Times { cell_make, cold_start, .. } = function.times;
        if cell_make > cold_start {
            return Err(SetupError::CellMakeAboveColdStart { key, cell_make, cold_start });
        }
    }
    Ok(())
}
