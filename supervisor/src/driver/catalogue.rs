//! The functions of the running configuration, each with everything its workers need, looked up by name.

use std::{collections::HashMap, sync::Arc};

use sublet_pool::{FunctionPolicy, HostPolicy, Pool, TenantPolicy};
use sublet_proto::link::sandbox::{InnerLimits, Layer, SandboxSpec};
use sublet_shim::plan::{self, HostFacts, Step};

use crate::{
    cgroups::{limits::Limits, tree::Level},
    config::{Config, Freeze, Function, LevelLimits},
};

/// One function of one tenant.
#[derive(Debug)]
pub struct Entry {
    /// Its tenant.
    pub tenant: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its settings.
    pub settings: Function,
    tenant_limits: Limits,
    sub_tenant_limits: Limits,
}

impl Entry {
    /// Full name of one of its settings.
    pub fn setting(&self, key: &str) -> String {
        format!("tenant.{}.function.{}.{key}", self.tenant, self.name)
    }

    /// Limits of one worker.
    pub fn worker_limits(&self) -> Limits {
        Limits {
            memory_max: Some(self.settings.memory_max.bytes()),
            pids_max: Some(self.settings.pids_max.into()),
            cpu_millis: Some(self.settings.cpu_quota.millis().into()),
            cpu_weight: Some(self.settings.cpu_weight.into()),
        }
    }

    /// The levels above a worker of the sub-tenant whose group is `sub_tenant`.
    pub fn levels(&self, sub_tenant: String) -> [Level; 2] {
        [
            Level { name: format!("t-{}", self.tenant), limits: self.tenant_limits },
            Level { name: sub_tenant, limits: self.sub_tenant_limits },
        ]
    }

    /// The sandbox of one worker.
    pub fn sandbox(&self, slot: u32, cgroup: String, missing_layers: &[Layer]) -> SandboxSpec {
        let settings = &self.settings;
        SandboxSpec {
            slot,
            cgroup,
            root: settings.layout.to_sandbox_root(),
            function_dir: settings.dir.as_str().to_owned(),
            command: settings.command.clone(),
            env: Vec::new(),
            protocol: settings.runtime,
            on_refused: settings.on_refused_syscall,
            limits: InnerLimits {
                nofile: settings.nofile.into(),
                tmp_bytes: settings.tmp_size.bytes(),
                file_bytes: (settings.tmp_size.bytes())
                    .max(settings.payload_max_bytes.into())
                    .max(settings.answer_max_bytes.into()),
                tmp_inodes: settings.tmp_inodes.into(),
                stack_bytes: settings.stack.bytes(),
            },
            answer_max_bytes: settings.answer_max_bytes,
            payload_max_bytes: settings.payload_max_bytes,
            layers: Layer::ALL.into_iter().filter(|layer| !missing_layers.contains(layer)).collect(),
        }
    }

    /// The steps that make a worker of it, as they would be for slot 0.
    pub fn plan(&self, uid_base: u32, v1_groups: bool, missing_layers: &[Layer]) -> Vec<Step> {
        let cgroup = format!("t-{}/s-<hash of sub-tenant>/w-<worker>", self.tenant);
        let facts = HostFacts { host_init_uid: uid_base, v1_groups, missing_layers };
        plan::plan(&self.sandbox(0, cgroup, missing_layers), &facts)
    }

    /// The function's whole environment. Its values are handed over with START and are in no cgroup, path or log.
    pub fn environment(&self, sub_tenant: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |name: &str, value: &str| {
            for part in [name, "=", value, "\0"] {
                out.extend_from_slice(part.as_bytes());
            }
        };
        let configured = &self.settings.env;
        for (name, value) in [("PATH", "/usr/bin:/bin"), ("HOME", "/tmp"), ("TMPDIR", "/tmp"), ("LANG", "C.UTF-8")] {
            if !configured.contains_key(name) {
                put(name, value);
            }
        }
        for (name, value) in configured {
            put(name, value);
        }
        put("SUBLET_TENANT", &self.tenant);
        put("SUBLET_FUNCTION", &self.name);
        put("SUBLET_SUB_TENANT", sub_tenant);
        out
    }
}

fn level(limits: &LevelLimits) -> Limits {
    Limits {
        memory_max: limits.memory_max.map(|max| max.bytes()),
        pids_max: limits.pids_max.map(u64::from),
        cpu_millis: limits.cpu_quota.map(|quota| quota.millis().into()),
        cpu_weight: Some(limits.cpu_weight.into()),
    }
}

/// All functions.
#[derive(Debug)]
pub struct Catalogue {
    tenants: HashMap<Arc<str>, HashMap<Arc<str>, Arc<Entry>>>,
}

impl Catalogue {
    /// From a checked configuration.
    pub fn new(config: &Config) -> Self {
        let mut tenants = HashMap::new();
        for (tenant_name, tenant) in &config.tenants {
            let tenant_name: Arc<str> = tenant_name.as_str().into();
            let entry = |name: &str, settings: &Function| Entry {
                tenant: tenant_name.clone(),
                name: name.into(),
                settings: settings.clone(),
                tenant_limits: level(&tenant.limits),
                sub_tenant_limits: level(&tenant.sub_tenant),
            };
            let functions = (tenant.functions.iter())
                .map(|(name, settings)| (name.as_str().into(), Arc::new(entry(name.as_str(), settings))))
                .collect();
            tenants.insert(tenant_name.clone(), functions);
        }
        Self { tenants }
    }

    /// The functions of a tenant, if there is such a tenant.
    pub fn tenant(&self, tenant: &str) -> Option<&HashMap<Arc<str>, Arc<Entry>>> {
        self.tenants.get(tenant)
    }

    /// Every function, in the order of names.
    pub fn all(&self) -> Vec<&Arc<Entry>> {
        let mut all: Vec<_> = self.tenants.values().flat_map(HashMap::values).collect();
        all.sort_by(|a, b| (&a.tenant, &a.name).cmp(&(&b.tenant, &b.name)));
        all
    }
}

/// Limits of the group of all workers.
pub fn pool_limits(config: &Config) -> Limits {
    Limits {
        memory_max: config.host.memory_max.map(|max| max.bytes()),
        pids_max: config.host.pids_max.map(u64::from),
        cpu_millis: None,
        cpu_weight: None,
    }
}

/// A pool that knows the limits of `config`.
pub fn pool(config: &Config) -> Pool {
    let host = &config.host;
    let mut pool = Pool::new(HostPolicy {
        workers_max: host.workers_max,
        calls_waiting_max: host.calls_waiting_max,
        starts_max: host.starts_max,
    });
    for (name, tenant) in &config.tenants {
        pool.set_tenant(
            name.as_str().into(),
            TenantPolicy {
                workers_max: tenant.workers_max,
                sub_tenant_workers_max: tenant.sub_tenant_workers_max,
                calls_in_flight_max: tenant.calls_in_flight_max,
            },
        );
    }
    for (tenant, name, function) in config.functions() {
        pool.set_function(
            tenant.as_str().into(),
            name.as_str().into(),
            function.revision,
            FunctionPolicy {
                workers_max: function.workers_max,
                workers_per_sub_tenant_max: function.workers_per_sub_tenant_max,
                queue_max: function.queue_max,
                idle_ttl: function.idle_ttl,
                freeze_after: match function.freeze_after {
                    Freeze::Never => None,
                    Freeze::After(after) => Some(after),
                },
                start_timeout: function.start_timeout,
                calls_max: function.calls_max.map(u64::from),
                age_max: function.age_max,
            },
        );
    }
    pool
}
