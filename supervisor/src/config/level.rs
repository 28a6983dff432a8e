//! Checks the limits written for a tenant and for its sub-tenants: all of them, those of a class, one by its label.
//!
//! ```text
//!  [tenant.T.sub_tenant]  <-  [tenant.T.class.C]  <-  [tenant.T.id."LABEL"]
//! ```
//! Each setting is that of the nearest table that has it, from the right. So every table is read once, where what is
//! wrong with it is told, and then laid over the next.

use std::{collections::BTreeMap, time::Duration};

use sublet_pool::SubTenant;

use super::{
    bounds::{self, Bounds},
    defaults,
    host::Above,
    name::Name,
    raw::{Maybe, RawSubTenant, RawTenant},
    reader::{Origin, Reader, Setting, Value},
    types::{CallLimits, LevelLimits, Rate},
    units::{ByteSize, CallRate, CpuMillis},
};

/// What one table says, or several laid over each other.
#[derive(Clone, Debug, Default)]
struct Said {
    workers_max: Option<Setting<u32>>,
    calls_in_flight_max: Option<Setting<u32>>,
    queue_max: Option<Setting<u32>>,
    rate: Option<Setting<CallRate>>,
    rate_burst: Option<Setting<u32>>,
    weight: Option<Setting<u32>>,
    memory_max: Option<Setting<ByteSize>>,
    memory_high: Option<Setting<ByteSize>>,
    memory_min: Option<Setting<ByteSize>>,
    cpu: CpuSaid,
    cpu_weight: Option<Setting<u32>>,
    pids_max: Option<Setting<u32>>,
}

/// What is said of CPU time.
#[derive(Clone, Debug, Default)]
pub struct CpuSaid {
    /// Its quota.
    pub quota: Option<Setting<CpuMillis>>,
    period: Option<Setting<Duration>>,
    burst: Option<Setting<Duration>>,
}

impl CpuSaid {
    /// Reads it.
    pub fn read(r: &Reader<'_>, quota: &Maybe, period: &Maybe, burst: &Maybe) -> Self {
        Self {
            quota: r.optional("cpu_quota", quota.as_ref(), &bounds::CPU_QUOTA),
            period: r.optional("cpu_period", period.as_ref(), &bounds::CPU_PERIOD),
            burst: r.optional("cpu_burst", burst.as_ref(), &bounds::CPU_BURST),
        }
    }

    fn over(&self, below: &Self) -> Self {
        Self {
            quota: first(&self.quota, &below.quota),
            period: first(&self.period, &below.period),
            burst: first(&self.burst, &below.burst),
        }
    }

    /// Period and burst, held against the quota.
    pub fn timing(&self, r: &Reader<'_>, default_quota: Option<CpuMillis>) -> (Duration, Duration) {
        let value = |setting: &Option<Setting<Duration>>, default| setting.as_ref().map_or(default, |s| s.value);
        let period = value(&self.period, defaults::CPU_PERIOD);
        let quota = self.quota.as_ref().map(|quota| quota.value).or(default_quota);
        for timing in [&self.period, &self.burst].into_iter().flatten().filter(|_| quota.is_none()) {
            let what = "there is no cpu_quota it would be for";
            r.refuse_setting(timing, what, "add cpu_quota = \"1000m\", or remove it");
        }
        let is_known = |setting: &Setting<Duration>| setting.is_known();
        let most = quota.map(|quota| period.saturating_mul(quota.millis()) / 1000);
        if let (Some(burst), Some(most)) = (&self.burst, most)
            && burst.value > most
            && is_known(burst)
            && self.period.as_ref().is_none_or(is_known)
            && self.quota.as_ref().is_none_or(Setting::is_known)
        {
            let what = format!("above the {} that the quota gives in one period", most.to_toml());
            r.refuse_setting(burst, what, "the kernel saves up one period's quota at most: write no more than that");
        }
        (period, value(&self.burst, defaults::CPU_BURST))
    }
}

fn first<T: Clone>(over: &Option<Setting<T>>, below: &Option<Setting<T>>) -> Option<Setting<T>> {
    over.clone().or_else(|| below.clone())
}

impl Said {
    fn of_tenant(raw: &RawTenant, r: &Reader<'_>) -> Self {
        let count = |key, raw: &Maybe, bounds: &Bounds<u32>| r.optional(key, raw.as_ref(), bounds);
        let size = |key, raw: &Maybe, bounds: &Bounds<ByteSize>| r.optional(key, raw.as_ref(), bounds);
        Self {
            workers_max: count("workers_max", &raw.workers_max, &bounds::WORKERS),
            calls_in_flight_max: count("calls_in_flight_max", &raw.calls_in_flight_max, &bounds::CALLS_IN_FLIGHT),
            queue_max: None,
            rate: r.optional("rate", raw.rate.as_ref(), &bounds::RATE),
            rate_burst: count("rate_burst", &raw.rate_burst, &bounds::RATE_BURST),
            weight: count("weight", &raw.weight, &bounds::WEIGHT),
            memory_max: size("memory_max", &raw.memory_max, &bounds::MEMORY),
            memory_high: size("memory_high", &raw.memory_high, &bounds::MEMORY),
            memory_min: size("memory_min", &raw.memory_min, &bounds::MEMORY_MIN),
            cpu: CpuSaid::read(r, &raw.cpu_quota, &raw.cpu_period, &raw.cpu_burst),
            cpu_weight: count("cpu_weight", &raw.cpu_weight, &bounds::CPU_WEIGHT),
            pids_max: count("pids_max", &raw.pids_max, &bounds::PIDS),
        }
    }

    fn of_sub_tenant(raw: &RawSubTenant, r: &Reader<'_>) -> Self {
        let RawSubTenant {
            class: _,
            workers_max,
            calls_in_flight_max,
            queue_max,
            rate,
            rate_burst,
            weight,
            memory_max,
            memory_high,
            memory_min,
            cpu_quota,
            cpu_period,
            cpu_burst,
            cpu_weight,
            pids_max,
        } = raw.clone();
        let same = RawTenant {
            workers_max,
            calls_in_flight_max,
            rate,
            rate_burst,
            weight,
            memory_max,
            memory_high,
            memory_min,
            cpu_quota,
            cpu_period,
            cpu_burst,
            cpu_weight,
            pids_max,
            ..RawTenant::default()
        };
        let queue_max = r.optional("queue_max", queue_max.as_ref(), &bounds::CALLS);
        Self { queue_max, ..Self::of_tenant(&same, r) }
    }

    /// Laid over what the next table says.
    fn over(&self, below: &Self) -> Self {
        Self {
            workers_max: first(&self.workers_max, &below.workers_max),
            calls_in_flight_max: first(&self.calls_in_flight_max, &below.calls_in_flight_max),
            queue_max: first(&self.queue_max, &below.queue_max),
            // A burst belongs to the rate it was written for.
            rate: first(&self.rate, &below.rate),
            rate_burst: if self.rate.is_some() {
                self.rate_burst.clone()
            } else {
                first(&self.rate_burst, &below.rate_burst)
            },
            weight: first(&self.weight, &below.weight),
            memory_max: first(&self.memory_max, &below.memory_max),
            memory_high: first(&self.memory_high, &below.memory_high),
            memory_min: first(&self.memory_min, &below.memory_min),
            cpu: self.cpu.over(&below.cpu),
            cpu_weight: first(&self.cpu_weight, &below.cpu_weight),
            pids_max: first(&self.pids_max, &below.pids_max),
        }
    }

    /// Without what the next table says as well, so that what is wrong between settings of that one is told there alone.
    fn is_silent(&self) -> bool {
        self.memory_max.is_none()
            && self.memory_high.is_none()
            && self.memory_min.is_none()
            && self.rate.is_none()
            && self.rate_burst.is_none()
            && self.cpu.quota.is_none()
            && self.cpu.period.is_none()
            && self.cpu.burst.is_none()
            && self.workers_max.is_none()
            && self.calls_in_flight_max.is_none()
            && self.pids_max.is_none()
    }
}

/// One level's limits as written, and as settings for the levels below.
#[derive(Debug)]
pub struct Level {
    /// Memory.
    pub memory_max: Option<Setting<ByteSize>>,
    /// CPU time.
    pub cpu_quota: Option<Setting<CpuMillis>>,
    /// Processes and threads.
    pub pids_max: Option<Setting<u32>>,
    /// Workers.
    pub workers_max: Setting<u32>,
    /// Calls.
    pub calls_in_flight_max: Setting<u32>,
    /// Guaranteed memory.
    pub memory_min: Option<Setting<ByteSize>>,
    /// What the kernel keeps.
    pub limits: LevelLimits,
    /// What sublet keeps.
    pub calls: CallLimits,
}

/// What the level above has.
struct Parent<'a> {
    workers_max: &'a Setting<u32>,
    calls_in_flight_max: &'a Setting<u32>,
    memory_max: [Option<&'a Setting<ByteSize>>; 2],
    cpu_quota: [Option<&'a Setting<CpuMillis>>; 2],
    pids_max: [Option<&'a Setting<u32>>; 2],
}

/// A rate, which needs no burst, and a burst, which needs a rate.
fn rate(r: &Reader<'_>, said: &Said) -> Option<Rate> {
    if let (None, Some(burst)) = (&said.rate, &said.rate_burst) {
        r.refuse_setting(burst, "there is no rate beside it", "add rate = \"100/s\", or remove it");
    }
    // As many at once as in a second, unless it is written.
    let burst = |rate: &Setting<CallRate>| said.rate_burst.as_ref().map_or(rate.value.count(), |burst| burst.value);
    said.rate.as_ref().map(|rate| Rate { rate: rate.value, burst: burst(rate) })
}

fn level(r: &Reader<'_>, said: &Said, parent: &Parent<'_>) -> Level {
    let Said { memory_max, memory_high, memory_min, cpu, pids_max, .. } = said;
    let workers_max = inherited(r, "workers_max", said.workers_max.clone(), parent.workers_max);
    let calls_in_flight_max =
        inherited(r, "calls_in_flight_max", said.calls_in_flight_max.clone(), parent.calls_in_flight_max);
    r.at_most_nearest(memory_max.as_ref(), &parent.memory_max);
    r.at_most_nearest(cpu.quota.as_ref(), &parent.cpu_quota);
    r.at_most_nearest(pids_max.as_ref(), &parent.pids_max);
    for within in [memory_high, memory_min] {
        r.at_most_nearest(within.as_ref(), &[memory_max.as_ref(), parent.memory_max[0], parent.memory_max[1]]);
    }
    let (cpu_period, cpu_burst) = cpu.timing(r, None);
    let weight = |setting: &Option<Setting<u32>>, default| setting.as_ref().map_or(default, |s| s.value);
    Level {
        limits: LevelLimits {
            memory_max: memory_max.as_ref().map(|s| s.value),
            memory_high: memory_high.as_ref().map(|s| s.value),
            memory_min: memory_min.as_ref().map(|s| s.value),
            cpu_quota: cpu.quota.as_ref().map(|s| s.value),
            cpu_period,
            cpu_burst,
            cpu_weight: weight(&said.cpu_weight, defaults::CPU_WEIGHT),
            pids_max: pids_max.as_ref().map(|s| s.value),
        },
        calls: CallLimits {
            workers_max: workers_max.value,
            calls_in_flight_max: calls_in_flight_max.value,
            rate: rate(r, said),
            weight: weight(&said.weight, defaults::WEIGHT),
        },
        memory_max: memory_max.clone(),
        cpu_quota: cpu.quota.clone(),
        pids_max: pids_max.clone(),
        memory_min: memory_min.clone(),
        workers_max,
        calls_in_flight_max,
    }
}

/// A tenant's own level.
pub fn of_tenant(raw: &RawTenant, r: &Reader<'_>, host: &Above) -> Level {
    let parent = Parent {
        workers_max: &host.workers_max,
        calls_in_flight_max: &host.calls_in_flight_max,
        memory_max: [host.memory_max.as_ref(), None],
        cpu_quota: [host.cpu_quota.as_ref(), None],
        pids_max: [host.pids_max.as_ref(), None],
    };
    level(r, &Said::of_tenant(raw, r), &parent)
}

/// The tables of sub-tenants.
#[derive(Debug)]
pub struct SubTenants {
    /// Of those without a table of their own.
    pub common: Level,
    /// Calls of theirs that wait.
    pub common_queue_max: Option<u32>,
    /// By class, with calls that wait.
    pub classes: BTreeMap<Name, (Level, Option<u32>)>,
    /// By label.
    pub ids: BTreeMap<String, Id>,
}

/// The table of one label.
#[derive(Debug)]
pub struct Id {
    /// Its limits.
    pub level: Level,
    /// Calls of its that wait.
    pub queue_max: Option<u32>,
    /// Its class.
    pub class: Option<Name>,
}

fn queue_max(said: &Said) -> Option<u32> {
    said.queue_max.as_ref().map(|s| s.value)
}

impl SubTenants {
    /// Reads them all.
    pub fn read(raw: &RawTenant, r: &Reader<'_>, host: &Above, tenant: &Level) -> Self {
        let parent = Parent {
            workers_max: &tenant.workers_max,
            calls_in_flight_max: &tenant.calls_in_flight_max,
            memory_max: [tenant.memory_max.as_ref(), host.memory_max.as_ref()],
            cpu_quota: [tenant.cpu_quota.as_ref(), host.cpu_quota.as_ref()],
            pids_max: [tenant.pids_max.as_ref(), host.pids_max.as_ref()],
        };
        // What is wrong between settings of a table further left is told there, once.
        let laid = |r: &Reader<'_>, own: &Said, over: &Said| {
            let quiet = r.quietly();
            level(if own.is_silent() { &quiet } else { r }, over, &parent)
        };
        let of_common = r.below("sub_tenant");
        no_class(&raw.sub_tenant, &of_common);
        let common_said = Said::of_sub_tenant(&raw.sub_tenant, &of_common);
        let common = level(&of_common, &common_said, &parent);

        let of_classes = r.below("class");
        let (mut classes, mut classes_said) = (BTreeMap::new(), BTreeMap::new());
        for (key, raw) in &raw.class {
            let r = of_classes.below(key);
            let name = of_classes.name_of_table(key, "class");
            no_class(raw, &r);
            let own = Said::of_sub_tenant(raw, &r);
            let said = own.over(&common_said);
            let level = laid(&r, &own, &said);
            if let Some(name) = name {
                classes_said.insert(name.clone(), said.clone());
                classes.insert(name, (level, queue_max(&said)));
            }
        }

        let of_ids = r.below("id");
        let mut ids = BTreeMap::new();
        for (label, raw) in &raw.id {
            let r = of_ids.below(label);
            let label_is_right = match SubTenant::try_from(label.as_str()) {
                Ok(_) => true,
                Err(error) => {
                    of_ids.refuse(&shortened(label), None, error, "write a label that a call may name");
                    false
                }
            };
            let class = class_of(raw, &r, &classes_said);
            let own = Said::of_sub_tenant(raw, &r);
            let below = class.as_ref().and_then(|class| classes_said.get(class)).unwrap_or(&common_said);
            let said = own.over(below);
            let level = laid(&r, &own, &said);
            if label_is_right {
                ids.insert(label.clone(), Id { level, queue_max: queue_max(&said), class });
            }
        }
        Self { common, common_queue_max: queue_max(&common_said), classes, ids }
    }
}

/// Longest label that is shown whole in a problem, in characters.
const LABEL_SHOWN_MAX: usize = 64;

fn shortened(label: &str) -> String {
    match label.char_indices().nth(LABEL_SHOWN_MAX) {
        Some((end, _)) => format!("{}...", &label[..end]),
        None => label.to_owned(),
    }
}

fn no_class(raw: &RawSubTenant, r: &Reader<'_>) {
    if let Some(class) = &raw.class {
        r.refuse("class", Some(class.to_string()), "only an id is of a class", "write it below [tenant.NAME.id.LABEL]");
    }
}

fn class_of(raw: &RawSubTenant, r: &Reader<'_>, classes: &BTreeMap<Name, Said>) -> Option<Name> {
    let text = r.text("class", raw.class.as_ref(), "gold")?;
    let found = classes.keys().find(|name| name.as_str() == text).cloned();
    if found.is_none() {
        let there: Vec<String> = classes.keys().map(|name| format!("{:?}", name.as_str())).collect();
        let remedy = match there.as_slice() {
            [] => format!("add a table [tenant.NAME.class.{text}], or remove it"),
            there => format!("write one of {}, or add its table", there.join(", ")),
        };
        r.refuse("class", Some(format!("{text:?}")), "there is no such class", remedy);
    }
    found
}

/// A count that is its parent's unless written, and then not above it.
pub fn inherited(r: &Reader<'_>, key: &str, read: Option<Setting<u32>>, parent: &Setting<u32>) -> Setting<u32> {
    r.lowered(key, read, parent.value, &[parent])
}

/// Whether a guarantee may be counted.
pub fn known(setting: Option<&Setting<ByteSize>>) -> u64 {
    setting.filter(|setting| setting.origin != Origin::Wrong).map_or(0, |setting| setting.value.bytes())
}
