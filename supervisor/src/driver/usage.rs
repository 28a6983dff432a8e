//! Who uses what, in the words of the wire.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sublet_pool::{StateName, SubTenant};
use sublet_proto::link::group::GroupPath;
use sublet_proto::v1::{GetUsageRequest, GetUsageResponse, SubTenantUsage, TenantUsage, Usage, WorkerUsage};

use super::{Driver, WorkerLine};
use crate::{
    cgroups::{limits::Knob, owner::Owner},
    usage::{TenantSums, sums::Used},
};

/// What of one sub-tenant or tenant is there now.
#[derive(Debug, Default)]
struct Now {
    path: Option<GroupPath>,
    workers: Vec<WorkerLine>,
}

type Owned = HashMap<(Arc<str>, Option<SubTenant>), Now>;

fn wire(duration: Duration) -> Option<prost_types::Duration> {
    prost_types::Duration::try_from(duration).ok()
}

fn usage(used: &Used, cpu_kernel: Duration) -> Usage {
    Usage {
        cpu_calls: wire(used.cpu_calls),
        cpu_idle: wire(used.cpu_idle),
        cpu_starting: wire(used.cpu_starting),
        cpu_cells: wire(used.cpu_cells),
        cpu_kernel: wire(cpu_kernel),
        throttled: wire(used.throttled),
        io_read_bytes: used.io_read,
        io_written_bytes: used.io_written,
        calls_answered: used.answered,
        calls_failed: used.failed,
        calls_refused: used.refused,
        running: wire(used.running),
        queued: wire(used.queued),
    }
}

/// Everything, as it is now.
pub fn get(driver: &Driver, request: &GetUsageRequest) -> GetUsageResponse {
    let tree = &*driver.services().tree;
    let is_meant = |tenant: &str| request.tenant.is_empty() || request.tenant == *tenant;
    let mut owned: Owned = HashMap::new();
    for (path, owner) in tree.all() {
        let key = match owner {
            Owner::Tenant { tenant } => (tenant, None),
            Owner::SubTenant { tenant, label: Some(label) } => (tenant, Some(label)),
            // A cell is nobody's, and a worker's is found by its line.
            Owner::SubTenant { label: None, .. } | Owner::Worker { .. } => continue,
        };
        owned.entry(key).or_default().path = Some(path);
    }
    let mut cells: HashMap<Arc<str>, Duration> = HashMap::new();
    for line in driver.workers() {
        let tenant = line.worker.entry.tenant.clone();
        match line.worker.owner() {
            Some(owner) => {
                // What it used since its last word.
                line.worker.meter().tick(line.worker.reading());
                owned.entry((tenant, Some(owner.sub_tenant.clone()))).or_default().workers.push(line);
            }
            // Whose that will be is not known yet.
            None => {
                *cells.entry(tenant).or_default() +=
                    line.worker.group().and_then(|group| group.cpu()).unwrap_or_default()
            }
        }
    }
    let waiting = driver.waiting();
    let kernel =
        |now: Option<&Now>, gone: Duration| gone + now.and_then(|now| tree.cpu(now.path.as_ref()?)).unwrap_or_default();
    let gauge = |now: Option<&Now>, knob| now.and_then(|now| tree.used(now.path.as_ref()?, knob)).unwrap_or(0);
    let config = driver.catalogue().config.clone();
    let class = |tenant: &str, label: &SubTenant| {
        let tenant = config.as_ref()?.tenants.iter().find(|(name, _)| name.as_str() == tenant)?.1;
        Some(tenant.ids.get(label.as_str())?.class.as_ref()?.to_string())
    };
    let mut response = GetUsageResponse::default();
    for TenantSums { tenant, sums, folded, gone, rows } in driver.services().ledger.all() {
        if !is_meant(&tenant) {
            continue;
        }
        let now = owned.get(&(tenant.clone(), None));
        let mut used = sums.used();
        used.cpu_cells += cells.get(&tenant).copied().unwrap_or_default();
        response.tenants.push(TenantUsage {
            tenant: tenant.to_string(),
            usage: Some(usage(&used, kernel(now, gone))),
            memory_bytes: gauge(now, Knob::MemoryMax),
            processes: gauge(now, Knob::PidsMax),
            folded: Some(usage(&folded, Duration::ZERO)),
        });
        for (label, row) in rows {
            let now = owned.get(&(tenant.clone(), Some(label.clone())));
            let lines = now.map_or(&[][..], |now| &now.workers);
            let count =
                |is: fn(&WorkerLine) -> bool| u32::try_from(lines.iter().filter(|line| is(line)).count()).unwrap_or(0);
            response.sub_tenants.push(SubTenantUsage {
                tenant: tenant.to_string(),
                sub_tenant_hash: driver.services().labels.group(&tenant, &label),
                usage: Some(usage(&row.sums.used(), kernel(now, row.gone()))),
                memory_bytes: gauge(now, Knob::MemoryMax),
                processes: gauge(now, Knob::PidsMax),
                workers: count(|_| true),
                frozen: count(|line| line.frozen),
                calls_running: count(|line| line.state == StateName::Leased),
                calls_queued: waiting.get(&(tenant.clone(), label.clone())).copied().unwrap_or(0),
                workers_used: if request.workers { lines.iter().map(worker).collect() } else { Vec::new() },
                class: class(&tenant, &label).unwrap_or_default(),
            });
        }
    }
    response
}

fn worker(line: &WorkerLine) -> WorkerUsage {
    let WorkerLine { worker, .. } = line;
    let group = worker.group();
    let used = worker.meter().sums().used();
    WorkerUsage {
        worker: worker.name(),
        function: worker.entry.name.to_string(),
        state: line.wire_state().into(),
        frozen: line.frozen,
        usage: Some(usage(&used, group.and_then(|group| group.cpu()).unwrap_or_default())),
        memory_bytes: group.map_or(0, |group| group.memory_bytes()),
        memory_peak_bytes: group.map_or(0, |group| group.memory_peak_bytes()),
        processes: group.map_or(0, |group| group.processes()),
    }
}
