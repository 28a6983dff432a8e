//! What a run came to. Plain values: the caller turns them into JSON, [`crate::Comparison`] into a table.

use std::collections::BTreeMap;

use serde::Serialize;
use sublet_pool::{KillReason, LimitLevel, Refusal, Stage};

/// Sub-tenants that are listed as those who waited longest.
pub const WORST_SHOWN: usize = 5;

/// One run. Calls are counted once each: `calls` is the sum of `answered`, `crashed`, `starts_failed`, all of `deadlines`
/// and all of `refused`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// From the first arrival to the last end of a call, in microseconds: what averages are over.
    pub span_us: u64,
    /// Calls in the trace.
    pub calls: u64,
    /// Calls with a reply, the function's own errors included.
    pub answered: u64,
    /// Of those, errors of the function's own.
    pub errors: u64,
    /// Calls whose worker ended without an answer.
    pub crashed: u64,
    /// Calls whose worker could not be started in time.
    pub starts_failed: u64,
    /// Calls whose time was over.
    pub deadlines: Deadlines,
    /// Calls not accepted.
    pub refused: Refused,
    /// How calls found their worker, when they were delivered for the first time.
    pub starts: Starts,
    /// From arrival to first delivery.
    pub delays: Delays,
    /// Workers and cells ended.
    pub kills: Kills,
    /// Cells made ahead of need.
    pub cells: Cells,
    /// Workers and cells in any state, as `host.workers_max` counts them.
    pub workers: Level,
    /// Memory of them in bytes.
    pub memory_bytes: Level,
    /// Each tenant's share, by name.
    pub tenants: BTreeMap<String, TenantReport>,
    /// The sub-tenants who waited longest, on the mean over their calls; the longest first.
    pub worst: Vec<SubTenantDelay>,
}

/// One tenant's calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TenantReport {
    /// As in [`Report`].
    pub calls: u64,
    /// As in [`Report`].
    pub answered: u64,
    /// As in [`Report`].
    pub crashed: u64,
    /// As in [`Report`].
    pub starts_failed: u64,
    /// For all reasons together.
    pub refused: u64,
    /// At all stages together.
    pub deadlines: u64,
    /// As in [`Report`].
    pub starts: Starts,
    /// Of all kinds of start together.
    pub delay: Delay,
}

/// How calls found their worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Starts {
    /// It was made for them.
    pub cold: u64,
    /// A cell was labelled for them.
    pub cell: u64,
    /// It had served before.
    pub warm: u64,
}

impl Starts {
    /// All together.
    pub const fn all(&self) -> u64 {
        self.cold + self.cell + self.warm
    }

    /// Shares of cold, cell and warm starts, from 0 to 1; zeros when there was none.
    pub fn shares(&self) -> [f64; 3] {
        let all = self.all().max(1) as f64;
        [self.cold, self.cell, self.warm].map(|count| count as f64 / all)
    }
}

/// Queueing delays by kind of start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Delays {
    /// Of all calls delivered.
    pub all: Delay,
    /// After cold starts.
    pub cold: Delay,
    /// After labelled cells.
    pub cell: Delay,
    /// Warm.
    pub warm: Delay,
}

/// Quantiles, in microseconds, up to 0.1 % above; the maximum is exact. Parts of a microsecond are dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Delay {
    /// How many calls.
    pub count: u64,
    /// Median.
    pub p50_us: u64,
    /// Of a hundred, one waits longer.
    pub p99_us: u64,
    /// Of a thousand, one waits longer.
    pub p999_us: u64,
    /// The longest.
    pub max_us: u64,
}

/// Where calls were when their time was over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Deadlines {
    /// Waiting for a place.
    pub queued: u64,
    /// Waiting for a worker in the making.
    pub starting: u64,
    /// With a worker.
    pub leased: u64,
}

impl Deadlines {
    /// All together.
    pub const fn all(&self) -> u64 {
        self.queued + self.starting + self.leased
    }

    pub(crate) fn count(&mut self, at: Stage) {
        *match at {
            Stage::Queued => &mut self.queued,
            Stage::Starting => &mut self.starting,
            Stage::Leased => &mut self.leased,
        } += 1;
    }
}

/// Names of the counters of a closed list, each beside its value.
macro_rules! counters {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: u64,)+
        }

        impl $name {
            /// All together.
            pub const fn all(&self) -> u64 {
                0 $(+ self.$field)+
            }

            /// Each by its name.
            pub fn by_name(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($field), self.$field)),+].into_iter()
            }
        }
    };
}

counters! {
    /// Calls not accepted, by reason.
    Refused {
        /// The sub-tenant's queue for the function.
        queue_full,
        /// Calls in flight of the host.
        calls_full_host,
        /// Calls in flight of the tenant.
        calls_full_tenant,
        /// Calls in flight of the function.
        calls_full_function,
        /// Calls in flight of the sub-tenant.
        calls_full_sub_tenant,
        /// The host's waiting calls.
        calls_waiting_full,
        /// The tenant's rate.
        rate_tenant,
        /// The sub-tenant's rate.
        rate_sub_tenant,
        /// Workers of the key kept failing.
        crash_backoff,
        /// The timeout is zero.
        deadline_past,
        /// For no reason a run can have: it drains nothing and removes no function.
        other,
    }
}

impl Refused {
    pub(crate) fn count(&mut self, refusal: &Refusal) {
        *match refusal {
            Refusal::QueueFull { .. } => &mut self.queue_full,
            Refusal::CallsFull { level, .. } => match level {
                LimitLevel::Host => &mut self.calls_full_host,
                LimitLevel::Tenant => &mut self.calls_full_tenant,
                LimitLevel::Function => &mut self.calls_full_function,
                LimitLevel::SubTenant => &mut self.calls_full_sub_tenant,
            },
            Refusal::CallsWaitingFull { .. } => &mut self.calls_waiting_full,
            Refusal::RateLimited { level, .. } => match level {
                LimitLevel::Tenant => &mut self.rate_tenant,
                LimitLevel::SubTenant => &mut self.rate_sub_tenant,
                LimitLevel::Host | LimitLevel::Function => &mut self.other,
            },
            Refusal::CrashBackoff { .. } => &mut self.crash_backoff,
            Refusal::DeadlinePast => &mut self.deadline_past,
            Refusal::Draining | Refusal::UnknownFunction => &mut self.other,
        } += 1;
    }
}

counters! {
    /// Workers and cells ended, by reason; those left at the end of the trace are not.
    Kills {
        /// Idle too long.
        idle_ttl,
        /// Too old.
        age_max,
        /// Served enough.
        calls_max,
        /// Another needed the place.
        make_room,
        /// A limit was passed.
        over_cap,
        /// A cell that was not needed any more, or too old.
        surplus,
        /// The call ran over.
        deadline,
        /// Not ready in time.
        start_timeout,
        /// It ended by itself.
        died,
        /// For no reason a run can have: nobody cancels, evicts, drains or removes a function.
        other,
    }
}

impl Kills {
    pub(crate) fn count(&mut self, why: KillReason) {
        *match why {
            KillReason::IdleTtl => &mut self.idle_ttl,
            KillReason::AgeMax => &mut self.age_max,
            KillReason::CallsMax => &mut self.calls_max,
            KillReason::MakeRoom => &mut self.make_room,
            KillReason::OverCap => &mut self.over_cap,
            KillReason::Surplus => &mut self.surplus,
            KillReason::Deadline => &mut self.deadline,
            KillReason::StartTimeout => &mut self.start_timeout,
            KillReason::Died => &mut self.died,
            KillReason::FunctionRetired
            | KillReason::Cancelled
            | KillReason::Tainted
            | KillReason::StartFailed
            | KillReason::Evicted
            | KillReason::Drain => &mut self.other,
        } += 1;
    }
}

/// Cells. What was made was used or wasted, or is left at the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Cells {
    /// Begun ahead of need.
    pub made: u64,
    /// Given an owner.
    pub used: u64,
    /// Ended without one.
    pub wasted: u64,
}

/// A number that goes up and down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Level {
    /// The highest.
    pub peak: u64,
    /// Over time.
    pub average: f64,
}

/// How long one sub-tenant waited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SubTenantDelay {
    /// Its tenant.
    pub tenant: String,
    /// What stands for it in the trace.
    pub sub_tenant: String,
    /// Its calls that were accepted.
    pub calls: u64,
    /// From arrival to first delivery, or to the end of a call that was never delivered: who is starved is not hidden.
    pub mean_us: u64,
}
