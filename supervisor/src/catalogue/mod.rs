//! The functions of the running configuration, each with everything its workers need, looked up by name.

pub mod labels;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use sublet_pool::{FunctionId, SubTenant, TenantId};
use sublet_proto::link::{
    group::{SUB_TENANT_PREFIX, TENANT_PREFIX, WORKER_PREFIX},
    sandbox::{Identity, InnerLimits, SandboxSpec, ShownLimits},
    token::{TOKEN_FD, TOKEN_FILE},
};
use sublet_shim::plan::{self, HostFacts, Plan};

use crate::{
    cgroups::owner::Owner,
    config::{self, Client, Code, Config, Function, Isolation, Name, Runtime},
};

/// One function of one tenant.
#[derive(Debug)]
pub struct Entry {
    /// Its tenant.
    pub tenant: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its revision, as the pool knows it.
    pub id: FunctionId,
    /// Its settings.
    pub settings: Function,
}

impl Entry {
    /// Full name of one of its settings.
    pub fn setting(&self, key: &str) -> String {
        format!("tenant.{}.function.{}.{key}", self.tenant, self.name)
    }

    /// Whose group that of one of its workers is.
    pub fn owner(&self, label: Option<&SubTenant>) -> Owner {
        Owner::Worker { tenant: self.tenant.clone(), function: self.name.clone(), label: label.cloned() }
    }

    /// The sandbox of one worker.
    pub fn sandbox(&self, slot: u32, cgroup: String) -> SandboxSpec {
        let settings = &self.settings;
        SandboxSpec {
            slot,
            cgroup,
            root: settings.layout.to_sandbox_root(identity(settings.root_code)),
            function_dir: settings.dir.as_str().to_owned(),
            function_identity: identity(settings.code),
            command: settings.command.clone(),
            shown: self.shown_limits(),
            protocol: settings.runtime.protocol(),
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
            token: settings.token.is_some(),
            answer_max_bytes: settings.answer_max_bytes,
            payload_max_bytes: settings.payload_max_bytes,
        }
    }

    /// The limits of its workers by its own settings. Those of a class or of one sub-tenant may be others.
    pub fn shown_limits(&self) -> ShownLimits {
        let settings = &self.settings;
        ShownLimits { memory_bytes: settings.memory_max.bytes(), cpu_millis: Some(settings.cpu_quota.millis().into()) }
    }

    /// The steps that make a worker of it, as they would be on this host for slot 0.
    pub fn plan(&self, host: &HostFacts<'_>) -> Plan {
        let cgroup =
            format!("{TENANT_PREFIX}{}/{SUB_TENANT_PREFIX}<hash of sub-tenant>/{WORKER_PREFIX}<worker>", self.tenant);
        plan::plan(&self.sandbox(0, cgroup), host)
    }

    /// The function's whole environment. Its values are handed over with START and are in no cgroup, path or log.
    /// A runtime that reads its limits nowhere else finds them here, unless the author has set the variable.
    pub fn environment(&self, sub_tenant: &str, worker: &str, limits: &ShownLimits, on_v1: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |name: &str, value: &str| {
            for part in [name, "=", value, "\0"] {
                out.extend_from_slice(part.as_bytes());
            }
        };
        let settings = &self.settings;
        let configured = &settings.env;
        for (name, value) in [("PATH", "/usr/bin:/bin"), ("HOME", "/tmp"), ("TMPDIR", "/tmp"), ("LANG", "C.UTF-8")] {
            if !configured.contains_key(name) {
                put(name, value);
            }
        }
        for (name, value) in configured {
            put(name, value);
        }
        if let Runtime::Lambda(client) = self.settings.runtime {
            for (name, value) in self.lambda_environment(client, worker) {
                if !configured.contains_key(name) {
                    put(name, &value);
                }
            }
        }
        for (name, value) in limit_variables(limits, on_v1) {
            if !configured.contains_key(name) {
                put(name, &value);
            }
        }
        put("SUBLET_TENANT", &self.tenant);
        put("SUBLET_FUNCTION", &self.name);
        put("SUBLET_SUB_TENANT", sub_tenant);
        if settings.token.is_some() {
            // Where it is, and never what.
            put("SUBLET_TOKEN_FILE", TOKEN_FILE);
            if settings.runtime == Runtime::Exec {
                put("SUBLET_TOKEN_FD", &TOKEN_FD.to_string());
            }
        }
        out
    }
}

impl Entry {
    /// What clients of the Lambda Runtime API look for, but for credentials: those are nobody's but the sub-tenant's.
    fn lambda_environment(&self, client: Client, worker: &str) -> Vec<(&'static str, String)> {
        let settings = &self.settings;
        let region = settings.env.get("AWS_REGION").or_else(|| settings.env.get("AWS_DEFAULT_REGION"));
        let region = region.map_or("local", String::as_str);
        let mut all = vec![
            ("AWS_LAMBDA_RUNTIME_API", sublet_runtime_api::ADDRESS.to_owned()),
            ("_HANDLER", settings.handler.clone().unwrap_or_default()),
            ("LAMBDA_TASK_ROOT", config::FUNCTION_MOUNT.to_owned()),
            ("LAMBDA_RUNTIME_DIR", config::FUNCTION_MOUNT.to_owned()),
            ("AWS_LAMBDA_FUNCTION_NAME", self.name.to_string()),
            ("AWS_LAMBDA_FUNCTION_VERSION", "$LATEST".to_owned()),
            ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", (settings.memory_max.bytes() >> 20).to_string()),
            ("AWS_LAMBDA_LOG_GROUP_NAME", format!("/aws/lambda/{}", self.name)),
            ("AWS_LAMBDA_LOG_STREAM_NAME", worker.to_owned()),
            ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand".to_owned()),
            ("AWS_REGION", region.to_owned()),
            ("AWS_DEFAULT_REGION", region.to_owned()),
            ("TZ", ":UTC".to_owned()),
            ("LD_LIBRARY_PATH", "/function/lib:/function".to_owned()),
        ];
        match client {
            Client::Own => {}
            Client::Python(_) | Client::Node(_) => {
                all.push(("AWS_EXECUTION_ENV", format!("AWS_Lambda_{}", settings.runtime)));
            }
        }
        all
    }
}

/// What programs that do not look at their control group go by.
fn limit_variables(limits: &ShownLimits, on_v1: bool) -> Vec<(&'static str, String)> {
    let bytes = limits.memory_bytes;
    let mut all = vec![
        ("SUBLET_MEMORY_MAX", bytes.to_string()),
        // Go's garbage collector works harder from here on. A tenth is left for what it does not count.
        ("GOMEMLIMIT", (bytes / 10 * 9).to_string()),
        // Node takes a heap of 256 MiB for the least, also where there is less. A quarter is for what is not in that heap.
        ("NODE_OPTIONS", format!("--max-old-space-size={}", ((bytes >> 20) / 4 * 3).max(1))),
    ];
    if let Some(millis) = limits.cpu_millis {
        let threads = millis.div_ceil(1000).max(1).to_string();
        all.push(("SUBLET_CPU_QUOTA", format!("{millis}m")));
        // Go before 1.25, and numerical libraries, go by the processors they may run on.
        all.extend(["GOMAXPROCS", "OMP_NUM_THREADS"].map(|name| (name, threads.clone())));
    }
    if on_v1 {
        // A JVM takes its limits from v1 hierarchies only when it finds all that it knows, cpuset among them.
        all.push(("JAVA_TOOL_OPTIONS", format!("-XX:MaxRAM={bytes}")));
    }
    all
}

/// Of a directory that nobody has looked at there is none, and no directory is it.
fn identity(code: Option<Code>) -> Identity {
    code.map_or_else(Identity::default, |code| code.identity)
}

/// One tenant.
#[derive(Debug)]
pub struct Tenant {
    /// As the pool knows it.
    pub id: TenantId,
    /// Its functions, each in its newest revision.
    pub functions: HashMap<Arc<str>, Arc<Entry>>,
}

/// All functions that calls may name.
#[derive(Debug, Default)]
pub struct Catalogue {
    tenants: HashMap<Arc<str>, Tenant>,
    /// What it was made of; none before the first.
    pub config: Option<Arc<Config>>,
}

impl Catalogue {
    /// From a checked configuration. `ids` gives what the pool calls a tenant, and a function in its revision.
    pub fn new(
        config: &Config,
        mut tenant_id: impl FnMut(&Arc<str>, &config::Tenant) -> TenantId,
        mut function_id: impl FnMut(TenantId, &Arc<str>, &Function) -> FunctionId,
    ) -> Self {
        let mut tenants = HashMap::new();
        for (name, tenant) in &config.tenants {
            let name: Arc<str> = name.as_str().into();
            let id = tenant_id(&name, tenant);
            let entry = |(function, settings): (&Name, &Function)| {
                let function: Arc<str> = function.as_str().into();
                let entry = Entry {
                    tenant: name.clone(),
                    name: function.clone(),
                    id: function_id(id, &function, settings),
                    settings: settings.clone(),
                };
                (function, Arc::new(entry))
            };
            let functions = tenant.functions.iter().map(entry).collect();
            tenants.insert(name.clone(), Tenant { id, functions });
        }
        Self { tenants, config: Some(Arc::new(config.clone())) }
    }

    /// A tenant, if there is one of the name.
    pub fn tenant(&self, tenant: &str) -> Option<&Tenant> {
        self.tenants.get(tenant)
    }

    /// A function of a tenant, if there are both.
    pub fn function(&self, tenant: &str, function: &str) -> Option<&Arc<Entry>> {
        self.tenant(tenant)?.functions.get(function)
    }

    /// All tenants, by name.
    pub fn tenants(&self) -> impl Iterator<Item = (&Arc<str>, &Tenant)> {
        let mut all: Vec<_> = self.tenants.iter().collect();
        all.sort_by_key(|(name, _)| *name);
        all.into_iter()
    }

    /// Every function, in the order of names.
    pub fn all(&self) -> Vec<&Arc<Entry>> {
        let mut all: Vec<_> = self.tenants.values().flat_map(|tenant| tenant.functions.values()).collect();
        all.sort_by(|a, b| (&a.tenant, &a.name).cmp(&(&b.tenant, &b.name)));
        all
    }
}

/// Workers that are kept for each sub-tenant of a function.
pub fn minimums(function: &Function) -> BTreeMap<SubTenant, u32> {
    match function.isolation {
        Isolation::Shared => [(SubTenant::shared(), function.workers_min)].into(),
        Isolation::SubTenant => {
            let label = |label: &String| SubTenant::try_from(label.as_str()).ok();
            function.warm.iter().filter_map(|(text, count)| Some((label(text)?, *count))).collect()
        }
    }
}
