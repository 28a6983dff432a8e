//! The checked configuration. Made by `parse` and by nothing else, so every value here keeps the rules of this module.

mod logs;
mod runtime;
mod token;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use serde::{Serialize, Serializer};
use sublet_proto::link::sandbox::{OnRefused, Root};

pub use self::{
    logs::LogTo,
    runtime::{Client, Runtime},
    token::{Token, TokenProvider},
};
use super::{
    degradation::Degradation,
    name::Name,
    path::HostPath,
    units::{ByteSize, CallRate, CpuMillis, SocketMode, format_duration},
};

/// Where the worker sees the function's directory.
pub const FUNCTION_MOUNT: &str = "/function";

/// A whole configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Config {
    /// Settings of this host and daemon.
    pub host: Host,
    /// The SaaS providers, by name.
    pub tenants: BTreeMap<Name, Tenant>,
    /// Full names of all settings that somebody wrote.
    #[serde(skip)]
    pub written: BTreeSet<String>,
}

impl Config {
    /// The function of a tenant, if both exist.
    pub fn function(&self, tenant: &str, function: &str) -> Option<&Function> {
        self.tenants.get(tenant)?.functions.get(function)
    }

    /// Every function with its tenant's name and its own, in order.
    pub fn functions(&self) -> impl Iterator<Item = (&Name, &Name, &Function)> {
        self.tenants
            .iter()
            .flat_map(|(tenant_name, tenant)| tenant.functions.iter().map(move |(name, f)| (tenant_name, name, f)))
    }

    /// Every directory that some worker sees: functions' directories and prepared roots. What the nursery may be
    /// asked to mount, and no more.
    pub fn dirs(&self) -> BTreeSet<&HostPath> {
        self.functions().flat_map(|(_, _, function)| [Some(&function.dir), function.layout.root()]).flatten().collect()
    }
}

/// Settings of the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Host {
    /// Lock file, scratch, record of leftovers.
    pub state_dir: HostPath,
    /// Where callers connect.
    pub socket: HostPath,
    /// Where operators connect. Its mode is always 0600.
    pub admin_socket: HostPath,
    /// Permissions of `socket`.
    pub socket_mode: SocketMode,
    /// Group of `socket`; none leaves the daemon's.
    pub socket_gid: Option<u32>,
    /// TCP address to listen on as well; always loopback.
    pub listen: Option<SocketAddr>,
    /// Tells several daemons on one host apart; the cgroup is `sublet-<instance>`.
    pub instance: Name,
    /// Group of the v2 hierarchy, from its root, in which ours is made; none is the one the supervisor starts in.
    pub cgroup_parent: Option<HostPath>,
    /// First host uid and gid of workers.
    pub uid_base: u32,
    /// How many ids from there on, two per worker; even.
    pub uid_count: u32,
    /// Uid and gid of the supervisor once it dropped its rights; outside the workers' range, never 0.
    pub supervisor_uid: u32,
    /// Workers of all tenants together, in any state; at least 1.
    pub workers_max: u32,
    /// Calls of all tenants together, accepted and not yet answered; at least 1.
    pub calls_in_flight_max: u32,
    /// Calls of all tenants together that wait for a worker; at least 1.
    pub calls_waiting_max: u32,
    /// Workers being started at one time; 1 to `workers_max`.
    pub starts_max: u32,
    /// Memory set aside for cells.
    pub cells_memory_max: ByteSize,
    /// Connections of callers; at least 1.
    pub connections_max: u32,
    /// Threads that serve calls; at least 1.
    pub threads: u32,
    /// Whether answers that are due at once are polled for; only with one thread.
    pub busy_poll: bool,
    /// Whether functions run without speculative store bypass.
    pub forbid_store_bypass: bool,
    /// Where the lines of all functions are written.
    pub log: LogTo,
    /// Room for the last lines of all functions, for `sublet logs`.
    pub log_memory: ByteSize,
    /// Memory of all workers together; none leaves the kernel's.
    pub memory_max: Option<ByteSize>,
    /// CPU time per time of all workers together; none leaves all there is.
    pub cpu_quota: Option<CpuMillis>,
    /// Processes and threads of all workers together; none leaves the kernel's.
    pub pids_max: Option<u32>,
    /// What this host may lack.
    pub accept_degraded: BTreeSet<Degradation>,
}

/// Limits of one level that the kernel keeps: of a tenant, of one of its sub-tenants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LevelLimits {
    /// Memory, tmpfs included; none leaves the limit of the level above.
    pub memory_max: Option<ByteSize>,
    /// Memory above which it is slowed down and given back; none for no such line. At most `memory_max`.
    pub memory_high: Option<ByteSize>,
    /// Memory that is not taken from it while others are short; none for no such guarantee. Guarantees never add up to
    /// more than the level above has.
    pub memory_min: Option<ByteSize>,
    /// CPU time per time; none leaves the limit of the level above.
    pub cpu_quota: Option<CpuMillis>,
    /// Time over which the quota counts.
    #[serde(serialize_with = "as_text")]
    pub cpu_period: Duration,
    /// CPU time that may be saved up for later; at most the quota of one period.
    #[serde(serialize_with = "as_text")]
    pub cpu_burst: Duration,
    /// Share against siblings when CPU is short, 1 to 10000.
    pub cpu_weight: u32,
    /// Processes and threads; none leaves the limit of the level above.
    pub pids_max: Option<u32>,
}

/// Calls per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Rate {
    /// Over time; at least 1.
    pub rate: CallRate,
    /// At once after a pause; at least 1.
    pub burst: u32,
}

/// Limits on calls and workers of a tenant, or of each of its sub-tenants, that no kernel keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CallLimits {
    /// Workers; 1 to those of the level above.
    pub workers_max: u32,
    /// Calls accepted and not yet answered, waiting ones included; at least 1.
    pub calls_in_flight_max: u32,
    /// Calls accepted per second; none for any.
    pub rate: Option<Rate>,
    /// Share against others of the level while workers are short, 1 to 10000.
    pub weight: u32,
}

/// Everything that holds for one sub-tenant, over all its functions and workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SubTenantLevel {
    /// The class it is of.
    pub class: Option<Name>,
    /// What the kernel keeps.
    pub limits: LevelLimits,
    /// What sublet keeps.
    pub calls: CallLimits,
    /// Calls to one function that wait for a worker, if fewer than the function lets wait.
    pub queue_max: Option<u32>,
}

/// A SaaS provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Tenant {
    /// Limits over all its sub-tenants.
    pub limits: LevelLimits,
    /// Workers and calls over all its sub-tenants.
    pub calls: CallLimits,
    /// What a sub-tenant gets that has no table of its own.
    pub sub_tenant: SubTenantLevel,
    /// What those of a class get.
    #[serde(rename = "class")]
    pub classes: BTreeMap<Name, SubTenantLevel>,
    /// What single sub-tenants get, by label.
    #[serde(rename = "id")]
    pub ids: BTreeMap<String, SubTenantLevel>,
    /// Its functions, by name.
    pub functions: BTreeMap<Name, Function>,
}

impl Tenant {
    /// What a sub-tenant gets.
    pub fn level_of(&self, label: &str) -> &SubTenantLevel {
        self.ids.get(label).unwrap_or(&self.sub_tenant)
    }
}

/// Who shares a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Each worker serves one sub-tenant.
    SubTenant,
    /// Workers serve any caller of the tenant; calls carry no label.
    Shared,
}

/// What a worker sees as `/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// The host's /usr, read-only.
    Host,
    /// The function's directory and nothing else.
    Static,
    /// A tree prepared beforehand.
    Dir(HostPath),
}

impl Layout {
    /// The prepared tree, if it is one.
    pub fn root(&self) -> Option<&HostPath> {
        match self {
            Self::Host | Self::Static => None,
            Self::Dir(path) => Some(path),
        }
    }

    /// As the nursery is told.
    pub fn to_sandbox_root(&self) -> Root {
        match self {
            Self::Host => Root::Host,
            Self::Static => Root::Static,
            Self::Dir(path) => Root::Dir { path: path.as_str().to_owned() },
        }
    }
}

/// When an idle worker is frozen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freeze {
    /// Not at all.
    Never,
    /// So long after its last call; zero is at once.
    After(Duration),
}

impl Serialize for Freeze {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Never => serializer.serialize_str("never"),
            Self::After(duration) => as_text(duration, serializer),
        }
    }
}

/// One revision of a function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Function {
    /// Changes with every setting, as written, that makes a worker different: what it runs, in which sandbox, under which
    /// limits of the kernel. Limits it inherits are not part of it, nor are the files in `dir`, nor what only says how its
    /// workers are used. Stable across runs of one build; not a secret, not a checksum.
    pub revision: u64,
    /// How it is talked to.
    pub runtime: Runtime,
    /// Who shares its workers.
    pub isolation: Isolation,
    /// What it sees as `/`.
    pub layout: Layout,
    /// Host directory it sees as /function, read-only.
    pub dir: HostPath,
    /// What a client of the Lambda Runtime API calls; none for others, and for programs that do not ask.
    pub handler: Option<String>,
    /// Program, an absolute path inside the worker, and arguments; never empty.
    pub command: Vec<String>,
    /// Its whole environment, but for what sublet adds (SUBLET_...).
    pub env: BTreeMap<String, String>,
    /// Memory of one worker, /tmp included.
    pub memory_max: ByteSize,
    /// Memory above which a worker is slowed down and its memory given back; none for no such line.
    pub memory_high: Option<ByteSize>,
    /// CPU of one worker.
    pub cpu_quota: CpuMillis,
    /// Time over which the quota counts.
    #[serde(serialize_with = "as_text")]
    pub cpu_period: Duration,
    /// CPU time that may be saved up for later; at most the quota of one period.
    #[serde(serialize_with = "as_text")]
    pub cpu_burst: Duration,
    /// Share against the sub-tenant's other workers, 1 to 10000.
    pub cpu_weight: u32,
    /// Processes and threads of one worker, init and launcher included; at least 3.
    pub pids_max: u32,
    /// Size of /tmp, also the largest file; at most `memory_max`.
    pub tmp_size: ByteSize,
    /// Files and directories in /tmp, itself included.
    pub tmp_inodes: u32,
    /// Open descriptors of each process.
    pub nofile: u32,
    /// Stack of each thread that does not choose its own.
    pub stack: ByteSize,
    /// From delivery of a call to its answer, at the longest.
    #[serde(serialize_with = "as_text")]
    pub timeout: Duration,
    /// From spawn to READY, at the longest.
    #[serde(serialize_with = "as_text")]
    pub start_timeout: Duration,
    /// A worker without calls for so long is ended.
    #[serde(serialize_with = "as_text")]
    pub idle_ttl: Duration,
    /// A worker this old gets no more calls; none for any age.
    #[serde(serialize_with = "as_optional_text")]
    pub age_max: Option<Duration>,
    /// A worker that served so many gets no more; none for any number.
    pub calls_max: Option<u32>,
    /// When an idle worker is frozen.
    pub freeze_after: Freeze,
    /// Workers of this function, over all sub-tenants; 1 to the tenant's.
    pub workers_max: u32,
    /// Workers of this function for each sub-tenant; 1 to `workers_max` and the sub-tenant's.
    pub workers_per_sub_tenant_max: u32,
    /// Calls of each sub-tenant to this function that wait for a worker; 1 to the host's.
    pub queue_max: u32,
    /// Calls to this function accepted and not yet answered; at least 1.
    pub calls_in_flight_max: u32,
    /// Cells kept ready at the most; 0 for none.
    pub cells_max: u32,
    /// Workers kept always, of a shared function.
    pub workers_min: u32,
    /// Workers kept always, by sub-tenant.
    pub warm: BTreeMap<String, u32>,
    /// Whether a call whose worker died may be given to another, once.
    pub is_idempotent: bool,
    /// Largest payload in bytes; 1 to the frame limit.
    pub payload_max_bytes: u32,
    /// Largest answer in bytes; 1 to the frame limit.
    pub answer_max_bytes: u32,
    /// Largest answer that is given in pieces, all of them together.
    pub stream_max: ByteSize,
    /// Tail of the log that is kept for each worker.
    pub log_max: ByteSize,
    /// Lines of a worker that are taken per second, in bytes; more is dropped and counted.
    pub log_rate: ByteSize,
    /// Whether each call's log has the lines START, END and REPORT.
    pub has_report_lines: bool,
    /// What a refused system call does.
    pub on_refused_syscall: OnRefused,
    /// Where its workers' tokens come from, when they are given any.
    pub token: Option<Token>,
}

impl Function {
    /// The revision as operators see it: eight hexadecimal digits.
    pub fn short_revision(&self) -> String {
        // Both halves take part: FNV mixes its high bits better than its low ones.
        format!("{:08x}", (self.revision >> 32) ^ (self.revision & 0xffff_ffff))
    }
}

pub(super) fn as_text<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&format_duration(*duration))
}

pub(super) fn as_optional_text<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match duration {
        Some(duration) => as_text(duration, serializer),
        None => serializer.serialize_none(),
    }
}
