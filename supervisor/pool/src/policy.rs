//! Limits of each level, as the pool needs them. All of them can be changed while calls run.

use std::time::Duration;

use crate::rate::Rate;

/// The limits of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPolicy {
    /// Workers and cells in any state.
    pub workers_max: u32,
    /// Sandboxes being made at one time. A function that is loading does not count: its time is its own.
    pub starts_max: u32,
    /// Calls accepted and not yet answered.
    pub calls_in_flight_max: u32,
    /// Of those, calls that have no worker yet.
    pub calls_waiting_max: u32,
    /// Memory set aside for cells in bytes, each counted at its function's [`FunctionPolicy::cell_bytes`].
    pub cells_memory_max: u64,
}

/// The limits of one tenant, and its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantPolicy {
    /// Workers and cells in any state.
    pub workers_max: u32,
    /// Calls accepted and not yet answered.
    pub calls_in_flight_max: u32,
    /// Calls accepted per second.
    pub rate: Option<Rate>,
    /// Share against other tenants while workers are short; never 0.
    pub weight: u32,
    /// What each of its sub-tenants gets that has no policy of its own.
    pub sub_tenant: SubTenantPolicy,
}

/// The limits of one sub-tenant, and its share, over all its functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubTenantPolicy {
    /// Workers in any state.
    pub workers_max: u32,
    /// Calls accepted and not yet answered.
    pub calls_in_flight_max: u32,
    /// Calls accepted per second.
    pub rate: Option<Rate>,
    /// Share against other sub-tenants of its tenant while workers are short; never 0.
    pub weight: u32,
    /// Calls to one function that wait, if fewer than [`FunctionPolicy::queue_max`].
    pub queue_max: Option<u32>,
}

/// The limits of one revision of a function, and how its workers are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionPolicy {
    /// Workers and cells in any state, over all sub-tenants.
    pub workers_max: u32,
    /// Workers of one sub-tenant.
    pub workers_per_sub_tenant_max: u32,
    /// Calls accepted and not yet answered, over all sub-tenants.
    pub calls_in_flight_max: u32,
    /// Calls of one sub-tenant that wait without a worker being made for them.
    pub queue_max: u32,
    /// An idle worker is ended after this long.
    pub idle_ttl: Duration,
    /// An idle worker is frozen after this long; none: never.
    pub freeze_after: Option<Duration>,
    /// A worker that is not ready by then has failed.
    pub start_timeout: Duration,
    /// A worker is ended after so many calls.
    pub calls_max: Option<u64>,
    /// A worker is ended when it is this old, but never during a call.
    pub age_max: Option<Duration>,
    /// Whether a call whose worker died may be given to another, once.
    pub is_idempotent: bool,
    /// Cells kept ready at the most; 0: none.
    pub cells_max: u32,
    /// What one cell is counted at against [`HostPolicy::cells_memory_max`].
    pub cell_bytes: u64,
}
