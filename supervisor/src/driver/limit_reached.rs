//! Which limit was reached: whose, how much, how much was seen, and the setting to change.

use std::sync::Arc;

use crate::{
    catalogue::{Catalogue, Entry},
    config::{Config, LevelPath, Name},
};
use sublet_pool::{LimitLevel, Refusal, SubTenant};
use sublet_proto::level::Level;

/// A limit that a call would have gone past.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitReached {
    /// Whose; none: of nobody that has limits.
    pub level: Option<Level>,
    /// Full name of the setting.
    pub setting: String,
    /// As configured.
    pub limit: String,
    /// What was seen.
    pub observed: String,
}

/// Whose call it is, and under which configuration: enough to name any setting that limits it.
#[derive(Clone, Debug)]
pub struct Scope {
    config: Option<Arc<Config>>,
    entry: Arc<Entry>,
    label: SubTenant,
}

impl Scope {
    /// Of a call or a worker.
    pub fn new(catalogue: &Catalogue, entry: &Arc<Entry>, label: &SubTenant) -> Self {
        Self { config: catalogue.config.clone(), entry: entry.clone(), label: label.clone() }
    }

    /// The function's.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Full name of a setting of this level that limits it: the one that is written, or the one to write.
    pub fn setting(&self, level: Level, key: &str) -> String {
        let of_function = || self.entry.setting(key);
        let (Some(config), Ok(tenant)) = (&self.config, Name::try_from(&*self.entry.tenant)) else {
            return of_function();
        };
        let path = match level {
            Level::Worker | Level::Function | Level::Call => return of_function(),
            // Shared workers are nobody's in particular, and have what every sub-tenant has.
            Level::SubTenant if self.label.is_shared() => LevelPath::SubTenants(tenant),
            Level::SubTenant => LevelPath::Id(tenant, self.label.as_str().to_owned()),
            Level::Tenant => LevelPath::Tenant(tenant),
            Level::Host => LevelPath::Host,
            // None of ours.
            Level::Above => return String::new(),
        };
        config.setting(&path, key)
    }

    /// The limit a call was refused by; none when it was no limit.
    pub fn of_refusal(&self, refusal: &Refusal) -> Option<LimitReached> {
        let reached = |level: LimitLevel, key: &str, limit: String, observed: String| {
            let level = match level {
                LimitLevel::Function => Level::Function,
                LimitLevel::SubTenant => Level::SubTenant,
                LimitLevel::Tenant => Level::Tenant,
                LimitLevel::Host => Level::Host,
            };
            Some(LimitReached { level: Some(level), setting: self.setting(level, key), limit, observed })
        };
        match *refusal {
            Refusal::QueueFull { level, limit, .. } => {
                reached(level, "queue_max", limit.to_string(), format!("{limit} calls wait"))
            }
            Refusal::CallsFull { level, limit, .. } => {
                reached(level, "calls_in_flight_max", limit.to_string(), format!("{limit} calls in flight"))
            }
            Refusal::CallsWaitingFull { limit, .. } => {
                reached(LimitLevel::Host, "calls_waiting_max", limit.to_string(), format!("{limit} calls wait"))
            }
            Refusal::RateLimited { level, per_second, .. } => {
                reached(level, "rate", format!("{per_second}/s"), format!("more than {per_second}/s"))
            }
            Refusal::Draining | Refusal::DeadlinePast | Refusal::UnknownFunction | Refusal::CrashBackoff { .. } => None,
        }
    }
}
