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
    host::Above,
    name::Name,
    raw::RawTenant,
    reader::{Origin, Reader, Setting, Value},
    settings::Inherited,
    types::{CallLimits, CallsBeside, LevelLimits, LevelRead, LimitsBeside, Rate, RawSubTenant},
    units::{ByteSize, CallRate, CpuMillis},
};

/// Period and burst, held against the quota.
pub fn cpu_timing(
    r: &Reader<'_>,
    quota: Option<&Setting<CpuMillis>>,
    period: &Setting<Duration>,
    burst: &Setting<Duration>,
) {
    let is_written = |timing: &&Setting<Duration>| timing.origin != Origin::Default;
    let Some(quota) = quota else {
        for timing in [period, burst].into_iter().filter(is_written) {
            let what = "there is no cpu_quota it would be for";
            r.refuse_setting(timing, what, "add cpu_quota = \"1000m\", or remove it");
        }
        return;
    };
    let most = period.value.saturating_mul(quota.value.millis()) / 1000;
    if burst.value > most && burst.is_known() && period.is_known() && quota.is_known() {
        let what = format!("above the {} that the quota gives in one period", most.to_toml());
        r.refuse_setting(burst, what, "the kernel saves up one period's quota at most: write no more than that");
    }
}

/// What one table says, laid over what the next one does.
fn over(own: &LevelRead, below: &LevelRead) -> LevelRead {
    let mut said = own.over(below);
    // A burst belongs to the rate it was written for.
    if own.rate.is_some() {
        said.rate_burst.clone_from(&own.rate_burst);
    }
    said
}

/// One level's limits as written, as settings for the levels below, and as values.
#[derive(Debug)]
pub struct Level {
    /// As they were written, for the levels below that inherit them.
    pub said: LevelRead,
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

impl Parent<'_> {
    fn inherited(&self) -> Inherited {
        Inherited { workers_max: self.workers_max.value, calls_in_flight_max: self.calls_in_flight_max.value }
    }
}

/// A rate, which needs no burst, and a burst, which needs a rate.
fn rate(r: &Reader<'_>, said: &LevelRead) -> Option<Rate> {
    if let (None, Some(burst)) = (&said.rate, &said.rate_burst) {
        r.refuse_setting(burst, "there is no rate beside it", "add rate = \"100/s\", or remove it");
    }
    // As many at once as in a second, unless it is written.
    let burst = |rate: &Setting<CallRate>| said.rate_burst.as_ref().map_or(rate.value.count(), |burst| burst.value);
    said.rate.as_ref().map(|rate| Rate::new(rate.value, burst(rate)))
}

/// Holds what was read against the level above.
fn level(r: &Reader<'_>, mut said: LevelRead, parent: &Parent<'_>) -> Level {
    r.lower(&mut said.workers_max, &[parent.workers_max]);
    r.lower(&mut said.calls_in_flight_max, &[parent.calls_in_flight_max]);
    let LevelRead { memory_max, memory_high, memory_min, cpu_quota, cpu_period, cpu_burst, pids_max, .. } = &said;
    r.at_most_nearest(memory_max.as_ref(), &parent.memory_max);
    r.at_most_nearest(cpu_quota.as_ref(), &parent.cpu_quota);
    r.at_most_nearest(pids_max.as_ref(), &parent.pids_max);
    for within in [memory_high, memory_min] {
        r.at_most_nearest(within.as_ref(), &[memory_max.as_ref(), parent.memory_max[0], parent.memory_max[1]]);
    }
    cpu_timing(r, cpu_quota.as_ref(), cpu_period, cpu_burst);
    let calls = CallLimits::new(&said, CallsBeside { rate: rate(r, &said) });
    Level { limits: LevelLimits::new(&said, LimitsBeside {}), calls, said }
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
    level(r, LevelRead::new(&raw.own, r, &parent.inherited()), &parent)
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

fn queue_max(said: &LevelRead) -> Option<u32> {
    said.queue_max.as_ref().map(|s| s.value)
}

impl SubTenants {
    /// Reads them all.
    pub fn read(raw: &RawTenant, r: &Reader<'_>, host: &Above, tenant: &Level) -> Self {
        let parent = Parent {
            workers_max: &tenant.said.workers_max,
            calls_in_flight_max: &tenant.said.calls_in_flight_max,
            memory_max: [tenant.said.memory_max.as_ref(), host.memory_max.as_ref()],
            cpu_quota: [tenant.said.cpu_quota.as_ref(), host.cpu_quota.as_ref()],
            pids_max: [tenant.said.pids_max.as_ref(), host.pids_max.as_ref()],
        };
        let inherited = parent.inherited();
        let read = |raw: &RawSubTenant, r: &Reader<'_>| LevelRead::new(raw, r, &inherited);
        let of_common = r.below("sub_tenant");
        no_class(&raw.sub_tenant, &of_common);
        let common_said = read(&raw.sub_tenant, &of_common);
        let common = level(&of_common, common_said.clone(), &parent);

        let of_classes = r.below("class");
        let (mut classes, mut classes_said) = (BTreeMap::new(), BTreeMap::new());
        for (key, raw) in &raw.class {
            let r = of_classes.below(key);
            let name = of_classes.name_of_table(key, "class");
            no_class(raw, &r);
            // What is wrong between settings of a table further left is told again, and so in the same words: once.
            let said = over(&read(raw, &r), &common_said);
            let level = level(&r, said.clone(), &parent);
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
            let below = class.as_ref().and_then(|class| classes_said.get(class)).unwrap_or(&common_said);
            let said = over(&read(raw, &r), below);
            let queue_max = queue_max(&said);
            let level = level(&r, said, &parent);
            if label_is_right {
                ids.insert(label.clone(), Id { level, queue_max, class });
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

fn class_of(raw: &RawSubTenant, r: &Reader<'_>, classes: &BTreeMap<Name, LevelRead>) -> Option<Name> {
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

/// Whether a guarantee may be counted.
pub fn known(setting: Option<&Setting<ByteSize>>) -> u64 {
    setting.filter(|setting| setting.origin != Origin::Wrong).map_or(0, |setting| setting.value.bytes())
}
