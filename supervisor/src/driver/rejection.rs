//! Why a call is not accepted, in words.

use sublet_pool::{LabelError, LimitLevel, Refusal};

use super::limit_reached::LimitReached;

/// Why a call is not accepted. Nothing of it has reached a worker.
#[derive(Clone, Debug, thiserror::Error)]
#[allow(missing_docs)] // The fields are what the message names.
pub enum Rejection {
    /// No such tenant.
    #[error("tenant {tenant:?} is not in the configuration")]
    UnknownTenant { tenant: String },
    /// No such function of that tenant.
    #[error("tenant {tenant:?} has no function {function:?}")]
    UnknownFunction { tenant: String, function: String },
    /// The label is not one.
    #[error("{0}")]
    Label(LabelError),
    /// The function needs a label.
    #[error("function {function:?} has isolation = \"sub-tenant\": the call must name a sub_tenant")]
    LabelMissing { function: String },
    /// The function takes none.
    #[error("function {function:?} has isolation = \"shared\" and takes no sub_tenant label")]
    LabelOnShared { function: String },
    /// The payload is over the limit.
    #[error("the payload has {seen} bytes, {setting} allows {limit}")]
    PayloadTooLarge { seen: usize, limit: u32, setting: String },
    /// The deadline has passed already.
    #[error("the call's deadline has already passed")]
    DeadlinePast,
    /// Too much is going on, or nothing any more.
    #[error("{}", refusal_text(*.0))]
    Refused(Refusal, Option<Box<LimitReached>>),
}

fn level_name(level: LimitLevel) -> &'static str {
    match level {
        LimitLevel::Host => "the host",
        LimitLevel::Tenant => "the tenant",
        LimitLevel::Function => "the function",
        LimitLevel::SubTenant => "the sub-tenant",
    }
}

fn refusal_text(refusal: Refusal) -> String {
    match refusal {
        Refusal::QueueFull { limit, .. } => {
            format!("the sub-tenant's queue for this function is full ({limit} calls wait)")
        }
        Refusal::CallsFull { level, limit, .. } => {
            format!("{} has {limit} calls in flight, its limit", level_name(level))
        }
        Refusal::CallsWaitingFull { limit, .. } => format!("{limit} calls wait on this host, its limit"),
        Refusal::RateLimited { level, per_second, .. } => {
            format!("{} may make {per_second} calls per second, and has made them", level_name(level))
        }
        Refusal::Draining => "the supervisor is draining and takes no new calls".into(),
        Refusal::DeadlinePast => "the call's deadline has already passed".into(),
        Refusal::UnknownFunction => "the function is not in the configuration any more".into(),
        Refusal::CrashBackoff { retry_after } => format!(
            "workers of this function and sub-tenant keep failing; no new one is made for another {} ms",
            retry_after.as_millis()
        ),
    }
}
