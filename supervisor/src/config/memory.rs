//! Memory that a configuration gives out, against the memory the host has. Apart from the other checks, because its answer
//! changes from host to host.

use super::{
    guarantee,
    problem::Problem,
    types::{Config, LevelLimits},
    units::ByteSize,
};

/// Every limit and guarantee above the host's own memory of `total` bytes.
pub fn check_memory(config: &Config, total: u64) -> Vec<Problem> {
    let mut all: Vec<(String, ByteSize)> = Vec::new();
    let mut of = |table: String, key: &str, size: Option<ByteSize>| {
        all.extend(size.map(|size| (format!("{table}.{key}"), size)))
    };
    let mut level = |table: String, limits: &LevelLimits| {
        of(table.clone(), "memory_max", limits.memory_max);
        of(table.clone(), "memory_high", limits.memory_high);
        of(table, "memory_min", limits.memory_min);
    };
    for (name, tenant) in &config.tenants {
        let table = format!("tenant.{name}");
        level(table.clone(), &tenant.limits);
        level(format!("{table}.sub_tenant"), &tenant.sub_tenant.limits);
        for (class, of_class) in &tenant.classes {
            level(format!("{table}.class.{class}"), &of_class.limits);
        }
        for (label, of_id) in &tenant.ids {
            let path = super::origin::LevelPath::Id(name.clone(), label.clone());
            level(path.table(), &of_id.limits);
        }
    }
    of("host".into(), "memory_max", config.host.memory_max);
    for (tenant, name, function) in config.functions() {
        let table = format!("tenant.{tenant}.function.{name}");
        of(table.clone(), "memory_max", Some(function.memory_max));
        of(table, "memory_high", function.memory_high);
    }
    let has = ByteSize::from_bytes(total / (1 << 20) * (1 << 20));
    // What a class or an id has from the table above it is told there.
    let is_own = |name: &String| config.written.contains(name) || !name.contains(".class.") && !name.contains(".id.");
    let mut problems: Vec<Problem> = (all.into_iter())
        .filter(|(name, size)| size.bytes() > total && is_own(name))
        .map(|(name, size)| {
            let what = format!("above the memory of this host, {has}: it would never be reached");
            Problem::new(name, Some(format!("\"{size}\"")), what, format!("write at most \"{has}\""))
        })
        .collect();
    let guaranteed = guarantee::of_tenants(config);
    if guaranteed > total {
        let what = format!(
            "memory_min of all tenants adds up to {}, above the memory of this host, {has}",
            ByteSize::from_bytes(guaranteed)
        );
        problems.push(Problem::new("tenant", None, what, "lower the guarantees"));
    }
    problems
}
