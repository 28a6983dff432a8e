//! The configuration in the pool's words.

use sublet_pool::{FunctionPolicy, HostPolicy, Rate, SubTenantPolicy, TenantPolicy};

use crate::config::{self, CELL_BYTES, Freeze, Function, Host, SubTenantLevel, Tenant};

fn rate(rate: Option<config::Rate>) -> Option<Rate> {
    rate.map(|rate| Rate { per_second: rate.rate.count(), burst: rate.burst })
}

/// The host's limits.
pub fn host(host: &Host) -> HostPolicy {
    HostPolicy {
        workers_max: host.workers_max,
        starts_max: host.starts_max,
        calls_in_flight_max: host.calls_in_flight_max,
        calls_waiting_max: host.calls_waiting_max,
        cells_memory_max: host.cells_memory_max.bytes(),
    }
}

/// One sub-tenant's limits.
pub fn sub_tenant(level: &SubTenantLevel) -> SubTenantPolicy {
    let limits = &level.calls;
    SubTenantPolicy {
        workers_max: limits.workers_max,
        calls_in_flight_max: limits.calls_in_flight_max,
        rate: rate(limits.rate),
        weight: limits.weight,
        queue_max: level.queue_max,
    }
}

/// A tenant's limits, and those of its sub-tenants.
pub fn tenant(tenant: &Tenant) -> TenantPolicy {
    TenantPolicy {
        workers_max: tenant.calls.workers_max,
        calls_in_flight_max: tenant.calls.calls_in_flight_max,
        rate: rate(tenant.calls.rate),
        weight: tenant.calls.weight,
        sub_tenant: sub_tenant(&tenant.sub_tenant),
    }
}

/// A function's limits.
pub fn function(function: &Function) -> FunctionPolicy {
    FunctionPolicy {
        workers_max: function.workers_max,
        workers_per_sub_tenant_max: function.workers_per_sub_tenant_max,
        calls_in_flight_max: function.calls_in_flight_max,
        queue_max: function.queue_max,
        idle_ttl: function.idle_ttl,
        freeze_after: match function.freeze_after {
            Freeze::Never => None,
            Freeze::After(after) => Some(after),
        },
        start_timeout: function.start_timeout,
        calls_max: function.calls_max.map(u64::from),
        age_max: function.age_max,
        is_idempotent: function.is_idempotent,
        cells_max: function.cells_max,
        cell_bytes: CELL_BYTES,
    }
}
