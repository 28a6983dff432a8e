//! What each group's limits are to be, by whose it is: the configuration in the kernel's words. Pure.

use std::{collections::HashMap, sync::Arc, time::Duration};

use sublet_pool::SubTenant;

use crate::{
    cgroups::{
        limits::{CpuQuota, Limits},
        owner::Owner,
    },
    config::{ByteSize, Config, CpuMillis, Function, LevelLimits, guaranteed_to_tenants},
};

/// The limits of all groups there may be.
#[derive(Clone, Debug, Default)]
pub struct Table {
    tenants: HashMap<Arc<str>, Tenant>,
    guaranteed: Option<u64>,
}

#[derive(Clone, Debug, Default)]
struct Tenant {
    own: Limits,
    common: Limits,
    ids: HashMap<SubTenant, Limits>,
    functions: HashMap<Arc<str>, Limits>,
}

impl Table {
    /// Of a checked configuration.
    pub fn new(config: &Config) -> Self {
        let tenant = |tenant: &crate::config::Tenant| Tenant {
            own: level(&tenant.limits),
            common: level(&tenant.sub_tenant.limits),
            ids: (tenant.ids.iter())
                .filter_map(|(label, id)| Some((SubTenant::try_from(label.as_str()).ok()?, level(&id.limits))))
                .collect(),
            functions: tenant.functions.iter().map(|(name, f)| (name.as_str().into(), worker(f))).collect(),
        };
        let tenants = config.tenants.iter().map(|(name, t)| (name.as_str().into(), tenant(t))).collect();
        Self { tenants, guaranteed: pool(config).memory_min }
    }

    /// Takes over what another table says of tenants and functions that this one has not: they are gone from the
    /// configuration, and what they have accepted is still being served, by workers that may have to be made.
    pub fn keep(&mut self, other: &Self) {
        for (name, gone) in &other.tenants {
            match self.tenants.get_mut(name) {
                None => drop(self.tenants.insert(name.clone(), gone.clone())),
                Some(tenant) => {
                    for (function, limits) in &gone.functions {
                        tenant.functions.entry(function.clone()).or_insert(*limits);
                    }
                }
            }
        }
    }

    /// Memory guaranteed to all tenants together, in bytes.
    pub const fn guaranteed(&self) -> Option<u64> {
        self.guaranteed
    }

    /// The limits of a group; none when its tenant or function was never in a configuration.
    pub fn limits(&self, owner: &Owner) -> Option<Limits> {
        let tenant = self.tenants.get(owner.tenant())?;
        match owner {
            Owner::Tenant { .. } => Some(tenant.own),
            Owner::SubTenant { label, .. } => Some(tenant.sub_tenant(label.as_ref())),
            Owner::Worker { function, label, .. } => {
                let mut limits = *tenant.functions.get(function)?;
                // A worker never gets more than its sub-tenant, and v1 takes no quota above the parent's.
                for above in [tenant.sub_tenant(label.as_ref()), tenant.own] {
                    limits.cpu = match (limits.cpu, above.cpu) {
                        (Some(own), Some(above)) if above.share() < own.share() => Some(above),
                        (own, _) => own,
                    };
                }
                Some(limits)
            }
        }
    }
}

impl Tenant {
    fn sub_tenant(&self, label: Option<&SubTenant>) -> Limits {
        label.and_then(|label| self.ids.get(label)).copied().unwrap_or(self.common)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn cpu(quota: CpuMillis, period: Duration, burst: Duration) -> CpuQuota {
    CpuQuota::new(quota.millis().into(), micros(period), micros(burst))
}

fn level(level: &LevelLimits) -> Limits {
    Limits {
        memory_max: level.memory_max.map(ByteSize::bytes),
        memory_high: level.memory_high.map(ByteSize::bytes),
        memory_min: level.memory_min.map(ByteSize::bytes),
        pids_max: level.pids_max.map(u64::from),
        cpu: level.cpu_quota.map(|quota| cpu(quota, level.cpu_period, level.cpu_burst)),
        cpu_weight: Some(level.cpu_weight.into()),
    }
}

fn worker(function: &Function) -> Limits {
    Limits {
        memory_max: Some(function.memory_max.bytes()),
        memory_high: function.memory_high.map(ByteSize::bytes),
        memory_min: None,
        pids_max: Some(function.pids_max.into()),
        cpu: Some(cpu(function.cpu_quota, function.cpu_period, function.cpu_burst)),
        cpu_weight: Some(function.cpu_weight.into()),
    }
}

/// Limits of the group of all workers. Its guarantee is what its tenants are guaranteed: without it theirs would be none.
pub fn pool(config: &Config) -> Limits {
    let guaranteed = guaranteed_to_tenants(config);
    Limits {
        memory_max: config.host.memory_max.map(ByteSize::bytes),
        memory_high: None,
        memory_min: (guaranteed > 0).then_some(guaranteed),
        pids_max: config.host.pids_max.map(u64::from),
        cpu: config.host.cpu_quota.map(|quota| cpu(quota, crate::config::CPU_PERIOD, Duration::ZERO)),
        cpu_weight: None,
    }
}
