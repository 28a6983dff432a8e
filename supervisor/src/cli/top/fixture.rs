//! Samples for the tests of this module.

use std::time::Duration;

use sublet_proto::v1::{
    GetHealthResponse, GetUsageResponse, SubTenantUsage, TenantUsage, Usage, WorkerState, WorkerUsage,
};

use super::model::{Sample, cpu};

/// A wire duration.
pub fn millis(millis: u64) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(Duration::from_millis(millis)).ok()
}

/// So much CPU time by the kernel, and so many calls answered.
pub fn used(cpu_ms: u64, calls_answered: u64) -> Usage {
    Usage { cpu_kernel: millis(cpu_ms), calls_answered, ..Usage::default() }
}

/// A sub-tenant with these.
pub fn sub_tenant(tenant: &str, hash: &str, usage: Usage) -> SubTenantUsage {
    SubTenantUsage {
        tenant: tenant.to_owned(),
        sub_tenant_hash: hash.to_owned(),
        usage: Some(usage),
        memory_bytes: 1024 * 1024,
        ..SubTenantUsage::default()
    }
}

/// A worker with these.
pub fn worker(name: &str, state: WorkerState, usage: Usage) -> WorkerUsage {
    WorkerUsage {
        worker: name.to_owned(),
        function: "greet".to_owned(),
        state: state.into(),
        usage: Some(usage),
        memory_bytes: 512 * 1024,
        memory_peak_bytes: 768 * 1024,
        processes: 2,
        ..WorkerUsage::default()
    }
}

/// A sample at this instant; tenants have used what their sub-tenants have.
pub fn at(seconds: u64, sub_tenants: Vec<SubTenantUsage>) -> Sample {
    let mut tenants: Vec<TenantUsage> = Vec::new();
    for seen in &sub_tenants {
        let usage = seen.usage.unwrap_or_default();
        let place = tenants.iter().position(|tenant| tenant.tenant == seen.tenant).unwrap_or_else(|| {
            tenants.push(TenantUsage { tenant: seen.tenant.clone(), ..TenantUsage::default() });
            tenants.len() - 1
        });
        let sum = tenants[place].usage.get_or_insert_default();
        sum.cpu_kernel = (cpu(sum) + cpu(&usage)).try_into().ok();
        sum.calls_answered += usage.calls_answered;
        tenants[place].memory_bytes += seen.memory_bytes;
    }
    let health = GetHealthResponse {
        status: "serving".to_owned(),
        workers: 3,
        cells: 1,
        calls_in_flight: 2,
        calls_answered: seconds,
        ..GetHealthResponse::default()
    };
    Sample { at: Duration::from_secs(seconds), health, usage: GetUsageResponse { tenants, sub_tenants } }
}
