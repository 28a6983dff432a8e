//! Guarantees of memory: they are refused when, all called in at once, they are more than the level above has.

use std::collections::BTreeMap;

use super::{
    level::{Id, Level, known},
    reader::{Reader, Setting},
    types::Config,
    units::ByteSize,
};

/// Those of sub-tenants, against their tenant's own. Sub-tenants nobody wrote down are as many as may have a worker at one
/// time, so the sum is that of the `workers_max` largest.
pub fn within(
    r: &Reader<'_>,
    of_tenant: Option<&Setting<ByteSize>>,
    workers_max: u32,
    common: &Level,
    ids: &BTreeMap<String, Id>,
) {
    let common_bytes = known(common.said.memory_min.as_ref());
    let mut all: Vec<u64> = ids.values().map(|id| known(id.level.said.memory_min.as_ref())).collect();
    all.sort_unstable_by_key(|bytes| std::cmp::Reverse(*bytes));
    all.truncate(workers_max as usize);
    // An id with less than the common guarantee may be away, and another one there.
    all.retain(|bytes| *bytes > common_bytes);
    let others = u64::from(workers_max).saturating_sub(all.len() as u64);
    let sum = all.iter().fold(others.saturating_mul(common_bytes), |sum, bytes| sum.saturating_add(*bytes));
    let room = known(of_tenant);
    if sum <= room || of_tenant.is_some_and(|setting| !setting.is_known()) {
        return;
    }
    let sum = ByteSize::from_bytes(sum);
    let has = match of_tenant {
        Some(setting) => format!("{} = {}", setting.name, setting.shown()),
        None => format!("none, as {} is not set", r.name("memory_min")),
    };
    let what = format!(
        "the guarantees of up to {workers_max} sub-tenants at one time add up to {sum}, above the tenant's own: {has}"
    );
    let remedy = format!("raise {} to {sum}, or lower memory_min or workers_max", r.name("memory_min"));
    r.refuse("memory_min", of_tenant.map(Setting::shown), what, remedy);
}

/// Those of tenants, against the host's limit. Against its memory they are held when it is known, by `check_host`.
pub fn within_host(config: &Config, r: &Reader<'_>) {
    let sum = of_tenants(config);
    if let Some(max) = config.host.memory_max.filter(|max| sum > max.bytes()) {
        let sum = ByteSize::from_bytes(sum);
        let what = format!("below {sum}, which memory_min of all tenants adds up to");
        r.refuse(
            "memory_max",
            Some(format!("\"{max}\"")),
            what,
            format!("write at least \"{sum}\", or lower a guarantee"),
        );
    }
}

/// Memory guaranteed to all tenants together, in bytes.
pub fn of_tenants(config: &Config) -> u64 {
    config
        .tenants
        .values()
        .filter_map(|tenant| tenant.limits.memory_min)
        .fold(0, |sum, min| sum.saturating_add(min.bytes()))
}
