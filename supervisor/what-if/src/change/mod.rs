//! Other limits: `key=value` under the configuration's dotted names, applied to a [`Setup`] to give another.
//!
//! ```text
//!  text --parse--> Change --Setup::with--> Setup
//!        |                  |
//!        key, unit, bounds  tenants and functions exist, caps within caps
//! ```
//! `*` in place of a name means all of them. What means more is applied before what means less (host, tenant, sub-tenant,
//! function; `*` before a name), so the order of changes does not matter.
//!
//! A setup has no memory of what was written and what was inherited. A cap that is equal to the one above it is taken for
//! inherited, as the configuration's defaults are, and follows it. `starts_max`, `workers_per_sub_tenant_max` and
//! `queue_max`, whose defaults are lowered to the cap above but not raised with it, follow it down only.

mod apply;
mod error;
mod parse;

#[cfg(test)]
mod tests;

use std::time::Duration;

pub use error::ChangeError;
use sublet_pool::Rate;

use crate::token::Token;

/// One limit to be another. Read by [`str::parse`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// As it was written.
    key: String,
    target: Target,
}

impl Change {
    /// Full dotted name of what it changes, as it was written.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// A name, or `*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    All,
    Named(Token),
}

impl Which {
    fn means(self, name: &Token) -> bool {
        match self {
            Self::All => true,
            Self::Named(named) => named == *name,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Target {
    Host(HostChange),
    Tenant { tenant: Which, change: LevelChange },
    SubTenant { tenant: Which, change: LevelChange },
    Function { tenant: Which, function: Which, change: FunctionChange },
}

impl Target {
    /// What means more comes first.
    fn order(&self) -> u8 {
        let named = |which: &Which| u8::from(*which != Which::All);
        match self {
            Self::Host(_) => 0,
            Self::Tenant { tenant, .. } => 1 + named(tenant),
            Self::SubTenant { tenant, .. } => 3 + named(tenant),
            Self::Function { tenant, function, .. } => 5 + 2 * named(tenant) + named(function),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "the configuration's own names")]
enum HostChange {
    WorkersMax(u32),
    StartsMax(u32),
    CallsWaitingMax(u32),
    CallsInFlightMax(u32),
    CellsMemoryMax(u64),
}

/// Of a tenant or of each of its sub-tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LevelChange {
    WorkersMax(u32),
    CallsInFlightMax(u32),
    Weight(u32),
    Rate(Option<Rate>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FunctionChange {
    WorkersMax(u32),
    WorkersPerSubTenantMax(u32),
    CallsInFlightMax(u32),
    QueueMax(u32),
    IdleTtl(Duration),
    FreezeAfter(Option<Duration>),
    StartTimeout(Duration),
    Timeout(Duration),
    CallsMax(Option<u64>),
    AgeMax(Option<Duration>),
    CellsMax(u32),
    Idempotent(bool),
}
