//! Two samples and the time between them, as rows with rates. Pure: no clock, no socket, no terminal.
//!
//! Counters of the supervisor only grow, so a counter that went back means that it is not the same supervisor, or not
//! the same group of that name: there is then no rate, rather than a huge one. The same holds for a row that was not
//! there before, and for two samples of one instant. The next sample has the rate.

use std::{collections::HashMap, time::Duration};

use sublet_proto::v1::{GetHealthResponse, GetUsageResponse, SubTenantUsage, TenantUsage, Usage, WorkerUsage};

use crate::cli::output::wire;

/// What the supervisor said at one instant.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// When, on any clock that only goes forward.
    pub at: Duration,
    /// How it is doing.
    pub health: GetHealthResponse,
    /// What everybody has used.
    pub usage: GetUsageResponse,
}

/// What happens per second of wall time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rates {
    /// CPU seconds: processors that are busy for it.
    pub cpu_cores: f64,
    /// Calls that ended, well or not.
    pub calls: f64,
    /// Calls that failed or were refused.
    pub faults: f64,
    /// Seconds in which a quota held it back; above 1 when several processors were.
    pub throttled: f64,
}

/// The numbers every kind of row has.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// None where two samples do not give any, see the module.
    pub rates: Option<Rates>,
    /// Now.
    pub memory_bytes: u64,
    /// Now, threads included.
    pub processes: u64,
    /// Calls at work now.
    pub running: u64,
    /// Calls that wait now.
    pub queued: u64,
    /// Since the supervisor started.
    pub usage: Usage,
}

/// A tenant, all its sub-tenants together.
#[derive(Clone, Debug, Default)]
pub struct TenantRow {
    /// Its name.
    pub tenant: String,
    /// Its numbers.
    pub figures: Figures,
}

/// What a sub-tenant is known by from one sample to the next.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Whose customer it is.
    pub tenant: String,
    /// Its label's hash.
    pub hash: String,
}

/// A sub-tenant.
#[derive(Clone, Debug, Default)]
pub struct SubTenantRow {
    /// Which.
    pub key: Key,
    /// Empty when it has none.
    pub class: String,
    /// Workers that are alive.
    pub workers: u32,
    /// How many of them are frozen.
    pub frozen: u32,
    /// Its numbers.
    pub figures: Figures,
    /// Its workers, one by one.
    pub each: Vec<WorkerRow>,
}

/// A worker.
#[derive(Clone, Debug, Default)]
pub struct WorkerRow {
    /// What the supervisor said of it.
    pub seen: WorkerUsage,
    /// Its numbers.
    pub figures: Figures,
}

/// What is shown of two samples.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Time between the two; None when there is no rate at all.
    pub interval: Option<Duration>,
    /// The later sample's.
    pub health: GetHealthResponse,
    /// By name.
    pub tenants: Vec<TenantRow>,
    /// In the supervisor's order.
    pub sub_tenants: Vec<SubTenantRow>,
}

/// Calls that ended, well or not.
pub fn calls(usage: &Usage) -> u64 {
    usage.calls_answered.saturating_add(usage.calls_failed)
}

/// Calls that failed or were refused.
pub fn faults(usage: &Usage) -> u64 {
    usage.calls_failed.saturating_add(usage.calls_refused)
}

/// CPU time as the kernel has it: calls' receipts come only when calls end, too late for a live view.
fn cpu_kernel(usage: &Usage) -> Option<Duration> {
    wire(usage.cpu_kernel).filter(|cpu| !cpu.is_zero())
}

/// CPU time: the kernel's where there is one, else what was charged.
pub fn cpu(usage: &Usage) -> Duration {
    let charged = || {
        let parts = [usage.cpu_calls, usage.cpu_idle, usage.cpu_starting, usage.cpu_cells];
        parts.into_iter().filter_map(wire).fold(Duration::ZERO, Duration::saturating_add)
    };
    cpu_kernel(usage).unwrap_or_else(charged)
}

fn rates(before: &Usage, after: &Usage, interval: Duration) -> Option<Rates> {
    let seconds = interval.as_secs_f64();
    let per_second = |before: u64, after: u64| after.checked_sub(before).map(|grown| grown as f64 / seconds);
    // The kernel's figure against the charged one would be a leap that nobody made.
    let same_source = cpu_kernel(before).is_none() || cpu_kernel(after).is_some();
    let cpu_before = if cpu_kernel(after).is_some() { cpu_kernel(before).unwrap_or_default() } else { cpu(before) };
    let throttled = |usage: &Usage| wire(usage.throttled).unwrap_or_default();
    let failed = per_second(before.calls_failed, after.calls_failed)?;
    Some(Rates {
        cpu_cores: cpu(after).checked_sub(cpu_before).filter(|_| same_source)?.as_secs_f64() / seconds,
        calls: per_second(before.calls_answered, after.calls_answered)? + failed,
        faults: per_second(before.calls_refused, after.calls_refused)? + failed,
        throttled: throttled(after).checked_sub(throttled(before))?.as_secs_f64() / seconds,
    })
}

/// A supervisor that was started anew has counted less.
fn is_restarted(before: &GetHealthResponse, after: &GetHealthResponse) -> bool {
    let counters = |h: &GetHealthResponse| [h.calls_answered, h.calls_failed, h.calls_refused, h.workers_started];
    counters(before).iter().zip(counters(after)).any(|(before, after)| after < *before)
}

/// The earlier sample, by name.
#[derive(Default)]
struct Earlier<'a> {
    interval: Option<Duration>,
    tenants: HashMap<&'a str, &'a Usage>,
    sub_tenants: HashMap<(&'a str, &'a str), &'a Usage>,
    workers: HashMap<&'a str, &'a Usage>,
}

impl<'a> Earlier<'a> {
    fn new(before: &'a Sample, after: &Sample) -> Self {
        let interval = after.at.checked_sub(before.at).filter(|interval| !interval.is_zero());
        if interval.is_none() || is_restarted(&before.health, &after.health) {
            return Self::default();
        }
        let usage = &before.usage;
        let tenants = usage.tenants.iter().filter_map(|t| Some((t.tenant.as_str(), t.usage.as_ref()?)));
        let sub_tenants = (usage.sub_tenants.iter())
            .filter_map(|s| Some(((s.tenant.as_str(), s.sub_tenant_hash.as_str()), s.usage.as_ref()?)));
        let workers = (usage.sub_tenants.iter().flat_map(|s| &s.workers_used))
            .filter_map(|w| Some((w.worker.as_str(), w.usage.as_ref()?)));
        Self { interval, tenants: tenants.collect(), sub_tenants: sub_tenants.collect(), workers: workers.collect() }
    }

    fn rates(&self, before: Option<&&Usage>, after: &Usage) -> Option<Rates> {
        rates(before?, after, self.interval?)
    }

    fn worker(&self, seen: WorkerUsage) -> WorkerRow {
        let usage = seen.usage.unwrap_or_default();
        let figures = Figures {
            rates: self.rates(self.workers.get(seen.worker.as_str()), &usage),
            memory_bytes: seen.memory_bytes,
            processes: seen.processes,
            usage,
            ..Figures::default()
        };
        WorkerRow { seen, figures }
    }

    fn sub_tenant(&self, seen: &SubTenantUsage) -> SubTenantRow {
        let usage = seen.usage.unwrap_or_default();
        let before = self.sub_tenants.get(&(seen.tenant.as_str(), seen.sub_tenant_hash.as_str()));
        SubTenantRow {
            key: Key { tenant: seen.tenant.clone(), hash: seen.sub_tenant_hash.clone() },
            class: seen.class.clone(),
            workers: seen.workers,
            frozen: seen.frozen,
            figures: Figures {
                rates: self.rates(before, &usage),
                memory_bytes: seen.memory_bytes,
                processes: seen.processes,
                running: seen.calls_running.into(),
                queued: seen.calls_queued.into(),
                usage,
            },
            each: seen.workers_used.iter().map(|worker| self.worker(worker.clone())).collect(),
        }
    }

    fn tenant(&self, seen: &TenantUsage, (running, queued): (u64, u64)) -> TenantRow {
        let usage = seen.usage.unwrap_or_default();
        let figures = Figures {
            rates: self.rates(self.tenants.get(seen.tenant.as_str()), &usage),
            memory_bytes: seen.memory_bytes,
            processes: seen.processes,
            running,
            queued,
            usage,
        };
        TenantRow { tenant: seen.tenant.clone(), figures }
    }
}

impl Figures {
    /// Processors that are busy for it.
    pub fn cpu_cores(&self) -> Option<f64> {
        self.rates.map(|rates| rates.cpu_cores)
    }
}

impl Snapshot {
    /// What the later of two samples shows, with rates over the time between; without an earlier one there are none.
    pub fn between(before: Option<&Sample>, after: &Sample) -> Self {
        let earlier = before.map(|before| Earlier::new(before, after)).unwrap_or_default();
        let mut calls: HashMap<&str, (u64, u64)> = HashMap::new();
        for seen in &after.usage.sub_tenants {
            let (running, queued) = calls.entry(&seen.tenant).or_default();
            *running += u64::from(seen.calls_running);
            *queued += u64::from(seen.calls_queued);
        }
        let calls_of = |seen: &TenantUsage| calls.get(seen.tenant.as_str()).copied().unwrap_or_default();
        let mut tenants: Vec<_> = after.usage.tenants.iter().map(|seen| earlier.tenant(seen, calls_of(seen))).collect();
        let sub_tenants = after.usage.sub_tenants.iter().map(|seen| earlier.sub_tenant(seen)).collect();
        tenants.sort_by(|a, b| a.tenant.cmp(&b.tenant));
        Self { interval: earlier.interval, health: after.health.clone(), tenants, sub_tenants }
    }

    /// All tenants' CPU time per second; None when no tenant has a rate.
    pub fn cpu_cores(&self) -> Option<f64> {
        self.tenants.iter().filter_map(|row| row.figures.cpu_cores()).reduce(|a, b| a + b)
    }
}

#[cfg(test)]
mod tests;
