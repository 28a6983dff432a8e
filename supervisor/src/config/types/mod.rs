//! The checked configuration. Made by `parse` and by nothing else, so every value here keeps the rules of this module.

mod code;
mod function;
mod host;
mod level;
mod logs;
mod runtime;
mod token;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Serialize, Serializer};
use sublet_proto::link::sandbox::{Identity, Root};

pub use self::{
    code::Code,
    function::Function,
    host::Host,
    level::{CallLimits, LevelLimits, Rate},
    logs::LogTo,
    runtime::{Client, Runtime},
    token::{Token, TokenProvider},
};
pub(super) use self::{
    function::{FunctionBeside, FunctionRead, RawFunction},
    host::{HostBeside, HostRead, Instance, RawHost},
    level::{CallsBeside, LevelRead, LimitsBeside, OF_SUB_TENANTS_ONLY, RawSubTenant},
    token::{RawToken, rows as token_rows},
};
pub use super::settings::Freeze;
use super::{name::Name, path::HostPath, units::format_duration};

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

    /// Every directory that some worker sees: functions' directories and prepared roots.
    pub fn dirs(&self) -> BTreeSet<&HostPath> {
        self.functions().flat_map(|(_, _, function)| [Some(&function.dir), function.layout.root()]).flatten().collect()
    }

    /// Where directories of functions and prepared roots may be for as long as the supervisor runs: the trees that were
    /// named, or what functions had at the start.
    pub fn bounds(&self) -> BTreeSet<&HostPath> {
        if self.host.function_dirs.is_empty() { self.dirs() } else { self.host.function_dirs.iter().collect() }
    }
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

    /// As the nursery is told, with what a prepared tree must be.
    pub fn to_sandbox_root(&self, identity: Identity) -> Root {
        match self {
            Self::Host => Root::Host,
            Self::Static => Root::Static,
            Self::Dir(path) => Root::Dir { path: path.as_str().to_owned(), identity },
        }
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
