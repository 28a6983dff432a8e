//! Limits of each level, as the pool needs them.

use std::time::Duration;

/// Of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FunctionPolicy {
    /// Workers over all sub-tenants.
    pub workers_max: u32,
    /// Workers of one sub-tenant.
    pub workers_per_sub_tenant_max: u32,
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
    /// A worker is ended after the call during which it became this old.
    pub age_max: Option<Duration>,
}

/// Of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPolicy {
    /// Workers in any state.
    pub workers_max: u32,
    /// Calls waiting.
    pub calls_waiting_max: u32,
    /// Workers being started.
    pub starts_max: u32,
}

/// Of one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TenantPolicy {
    /// Workers in any state.
    pub workers_max: u32,
    /// Workers of each sub-tenant, over all functions.
    pub sub_tenant_workers_max: u32,
    /// Calls accepted and not yet answered.
    pub calls_in_flight_max: u32,
}
