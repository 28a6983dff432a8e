//! The settings of a tenant, and those of its sub-tenants: `[tenant.T]`, `[tenant.T.sub_tenant]`, `[tenant.T.class.C]` and
//! `[tenant.T.id.LABEL]`.

use std::time::Duration;

use serde::Serialize;

use super::super::{
    bounds, defaults,
    settings::{
        Changes::{Reload, Set},
        Inherited,
        Kept::{Group, NoLimit},
        Kind::Text,
        SUBLET, settings,
    },
    units::{ByteSize, CallRate, CpuMillis},
};

/// Settings that a tenant's own table has not: a tenant is of no class, and its calls stand in its sub-tenants' queues.
pub const OF_SUB_TENANTS_ONLY: [&str; 2] = ["class", "queue_max"];

/// Calls per second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Rate {
    /// Over time; at least 1.
    pub rate: CallRate,
    /// At once after a pause; at least 1.
    pub burst: u32,
}

impl Rate {
    pub(in crate::config) const fn new(rate: CallRate, burst: u32) -> Self {
        Self { rate, burst }
    }
}

settings! {
    /// What every sub-tenant gets, what those of one class get, or what one id gets; and most of what a tenant has.
    #[serde(default, deny_unknown_fields, expecting = "a table: [tenant.NAME.sub_tenant], [tenant.NAME.class.NAME] or [tenant.NAME.id.LABEL]")]
    raw RawSubTenant;
    /// What one table says, or several laid over each other.
    read LevelRead (above: Inherited);

    /// Limits on calls and workers of a tenant, or of each of its sub-tenants, that no kernel keeps.
    #[derive(Copy)]
    values CallLimits,
    /// Those that are made by hand.
    beside CallsBeside {
        /// Calls accepted per second; none for any.
        rate: Option<Rate>,
    }
    rows {
        class [Text { name: "name", values: "a class of this tenant", pattern: super::super::name::PATTERN }] ("none") Reload, NoLimit,
            "Only in an `id` table: the class that speaks for what this table leaves out.";
        workers_max: u32 [bounds::WORKERS] (inherits "the level above" => above.workers_max) Set, SUBLET,
            "Workers, in any state, over all functions.";
        calls_in_flight_max: u32 [bounds::CALLS_IN_FLIGHT] (inherits "the level above" => above.calls_in_flight_max) Set, SUBLET,
            "Calls that are accepted and not answered yet.";
        queue_max => Option<u32> [bounds::CALLS] ("the function's") Set, SUBLET,
            "Calls that wait for a worker of one function.";
        rate => Option<CallRate> [bounds::RATE] ("none") Set, SUBLET,
            "Calls that are accepted per second.";
        rate_burst => Option<u32> [bounds::RATE_BURST] ("one second's worth") Set, SUBLET,
            "Calls that are accepted at once after a pause. It needs a `rate`.";
        weight: u32 [bounds::WEIGHT] (is defaults::WEIGHT) Set, SUBLET,
            "Share of the workers against siblings while calls wait.";
    }

    /// Limits of one level that the kernel keeps: of a tenant, of one of its sub-tenants.
    values LevelLimits,
    /// None is made by hand.
    beside LimitsBeside {}
    rows {
        memory_max: Option<ByteSize> [bounds::MEMORY] ("none") Set, Group("memory.max"),
            "Memory of all workers together, their /tmp included.";
        memory_high: Option<ByteSize> [bounds::MEMORY] ("none") Set, Group("memory.high"),
            "Memory above which the kernel reclaims and slows down. It is at most `memory_max`.";
        memory_min: Option<ByteSize> [bounds::MEMORY_MIN] ("none") Set, Group("memory.min"),
            "Memory that the kernel does not reclaim for others. All guarantees together fit the level above.";
        cpu_quota: Option<CpuMillis> [bounds::CPU_QUOTA] ("none") Set, Group("cpu.max"),
            "CPU of all workers together.";
        cpu_period: Duration [bounds::CPU_PERIOD] (is defaults::CPU_PERIOD) Set, Group("cpu.max"),
            "Period over which the quota counts. It needs a `cpu_quota`.";
        cpu_burst: Duration [bounds::CPU_BURST] (is defaults::CPU_BURST) Set, Group("cpu.max.burst"),
            "Unused CPU time that may be saved up, at most the quota of one period.";
        cpu_weight: u32 [bounds::CPU_WEIGHT] (is defaults::CPU_WEIGHT) Set, Group("cpu.weight"),
            "Share of the processors against siblings.";
        pids_max: Option<u32> [bounds::PIDS] ("none") Set, Group("pids.max"),
            "Processes and threads of all workers together.";
    }
}
