//! `sublet limits`: every limit in force, with where it comes from. Pure.

use std::time::SystemTime;

use super::temporary::Temporaries;
use crate::{
    cgroups::limits::Knob,
    config::{CallLimits, Config, Freeze, Function, Host, LevelLimits, LevelPath, SubTenantLevel, format_duration},
};

/// One limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The level.
    pub path: LevelPath,
    /// The configuration's key.
    pub key: &'static str,
    /// As the configuration has it; "none" where there is none.
    pub value: String,
    /// Full name of the setting it comes from; none: a default.
    pub from: Option<String>,
    /// Until when it is changed, when it is for a time.
    pub until: Option<SystemTime>,
    /// What it is otherwise.
    pub otherwise: Option<String>,
    /// Who keeps it.
    pub enforced_by: &'static str,
}

type Values = Vec<(&'static str, String)>;

/// The limits of a level, or of all levels; none when there is no such level.
pub fn limits(
    config: &Config,
    without: &Config,
    temporaries: &Temporaries,
    path: Option<&LevelPath>,
) -> Option<Vec<Line>> {
    let paths = path.map_or_else(|| all(config), |path| vec![path.clone()]);
    let mut lines = Vec::new();
    for path in paths {
        let otherwise = values(without, &path).unwrap_or_default();
        for (key, value) in values(config, &path)? {
            let origin = config.origin(&path, key);
            let temporary = origin.as_ref().and_then(|origin| temporaries.find(origin, key));
            lines.push(Line {
                key,
                value,
                from: origin.map(|origin| format!("{}.{key}", origin.table())),
                until: temporary.map(|one| one.until),
                otherwise: temporary.map(|_| {
                    otherwise.iter().find(|(other, _)| *other == key).map_or("none", |(_, value)| value).to_owned()
                }),
                enforced_by: enforced_by(&path, key),
                path: path.clone(),
            });
        }
    }
    Some(lines)
}

fn all(config: &Config) -> Vec<LevelPath> {
    let mut paths = vec![LevelPath::Host];
    for (name, tenant) in &config.tenants {
        paths.push(LevelPath::Tenant(name.clone()));
        paths.push(LevelPath::SubTenants(name.clone()));
        paths.extend(tenant.classes.keys().map(|class| LevelPath::Class(name.clone(), class.clone())));
        paths.extend(tenant.ids.keys().map(|label| LevelPath::Id(name.clone(), label.clone())));
        paths.extend(tenant.functions.keys().map(|function| LevelPath::Function(name.clone(), function.clone())));
    }
    paths
}

fn values(config: &Config, path: &LevelPath) -> Option<Values> {
    let Some(tenant) = path.tenant() else { return Some(of_host(&config.host)) };
    let tenant = config.tenants.get(tenant)?;
    match path {
        LevelPath::Host => None,
        LevelPath::Tenant(_) => Some([of_level(&tenant.limits), of_calls(&tenant.calls)].concat()),
        LevelPath::SubTenants(_) => Some(of_sub_tenant(&tenant.sub_tenant)),
        LevelPath::Class(_, class) => Some(of_sub_tenant(tenant.classes.get(class)?)),
        LevelPath::Id(_, label) => Some(of_sub_tenant(tenant.level_of(label))),
        LevelPath::Function(_, function) => Some(of_function(tenant.functions.get(function)?)),
    }
}

fn or_none<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

fn of_host(host: &Host) -> Values {
    vec![
        ("memory_max", or_none(host.memory_max)),
        ("cpu_quota", or_none(host.cpu_quota)),
        ("pids_max", or_none(host.pids_max)),
        ("workers_max", host.workers_max.to_string()),
        ("calls_in_flight_max", host.calls_in_flight_max.to_string()),
        ("calls_waiting_max", host.calls_waiting_max.to_string()),
        ("starts_max", host.starts_max.to_string()),
        ("cells_memory_max", host.cells_memory_max.to_string()),
        ("connections_max", host.connections_max.to_string()),
        ("threads", host.threads.to_string()),
        ("busy_poll", host.busy_poll.to_string()),
        ("forbid_store_bypass", host.forbid_store_bypass.to_string()),
        ("log_memory", host.log_memory.to_string()),
    ]
}

fn of_level(limits: &LevelLimits) -> Values {
    vec![
        ("memory_max", or_none(limits.memory_max)),
        ("memory_high", or_none(limits.memory_high)),
        ("memory_min", or_none(limits.memory_min)),
        ("cpu_quota", or_none(limits.cpu_quota)),
        ("cpu_period", format_duration(limits.cpu_period)),
        ("cpu_burst", format_duration(limits.cpu_burst)),
        ("cpu_weight", limits.cpu_weight.to_string()),
        ("pids_max", or_none(limits.pids_max)),
    ]
}

fn of_calls(calls: &CallLimits) -> Values {
    vec![
        ("workers_max", calls.workers_max.to_string()),
        ("calls_in_flight_max", calls.calls_in_flight_max.to_string()),
        ("rate", or_none(calls.rate.map(|rate| rate.rate))),
        ("rate_burst", or_none(calls.rate.map(|rate| rate.burst))),
        ("weight", calls.weight.to_string()),
    ]
}

fn of_sub_tenant(level: &SubTenantLevel) -> Values {
    let mut values = [of_level(&level.limits), of_calls(&level.calls)].concat();
    values.push(("queue_max", or_none(level.queue_max)));
    values
}

fn of_function(function: &Function) -> Values {
    let bytes = |bytes: u32| crate::config::ByteSize::from_bytes(bytes.into()).to_string();
    vec![
        ("memory_max", function.memory_max.to_string()),
        ("memory_high", or_none(function.memory_high)),
        ("cpu_quota", function.cpu_quota.to_string()),
        ("cpu_period", format_duration(function.cpu_period)),
        ("cpu_burst", format_duration(function.cpu_burst)),
        ("cpu_weight", function.cpu_weight.to_string()),
        ("pids_max", function.pids_max.to_string()),
        ("tmp_size", function.tmp_size.to_string()),
        ("tmp_inodes", function.tmp_inodes.to_string()),
        ("nofile", function.nofile.to_string()),
        ("stack", function.stack.to_string()),
        ("timeout", format_duration(function.timeout)),
        ("start_timeout", format_duration(function.start_timeout)),
        ("idle_ttl", format_duration(function.idle_ttl)),
        ("age_max", or_none(function.age_max.map(format_duration))),
        ("calls_max", or_none(function.calls_max)),
        (
            "freeze_after",
            match function.freeze_after {
                Freeze::Never => "never".to_owned(),
                Freeze::After(after) => format_duration(after),
            },
        ),
        ("workers_max", function.workers_max.to_string()),
        ("workers_per_sub_tenant_max", function.workers_per_sub_tenant_max.to_string()),
        ("queue_max", function.queue_max.to_string()),
        ("calls_in_flight_max", function.calls_in_flight_max.to_string()),
        ("cells_max", function.cells_max.to_string()),
        ("payload_max", bytes(function.payload_max_bytes)),
        ("answer_max", bytes(function.answer_max_bytes)),
        ("stream_max", function.stream_max.to_string()),
        ("log_max", function.log_max.to_string()),
        ("log_rate", function.log_rate.to_string()),
    ]
}

/// Who keeps a limit.
fn enforced_by(path: &LevelPath, key: &str) -> &'static str {
    if let Some(knob) = Knob::ALL.into_iter().find(|knob| knob.key() == key) {
        // Its name on v2; v1 has others, which `sublet describe` shows.
        return knob.file(true).unwrap_or("kernel");
    }
    match key {
        "cpu_period" => "cpu.max",
        "cpu_burst" => "cpu.max.burst",
        "tmp_size" => "tmpfs size",
        "tmp_inodes" => "tmpfs nr_inodes",
        "nofile" => "RLIMIT_NOFILE",
        "stack" => "RLIMIT_STACK",
        "connections_max" if *path == LevelPath::Host => "sublet, at the door",
        _ => "sublet",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overlay, Source};

    const TEXT: &str = r#"
[host]
state_dir = "/var/lib/sublet"
[tenant.acme.sub_tenant]
memory_max = "256MiB"
[tenant.acme.class.gold]
memory_max = "1GiB"
[tenant.acme.id.one]
class = "gold"
[tenant.acme.function.f]
runtime = "stream"
layout = "static"
dir = "/srv/f"
command = ["/function/f"]
"#;

    #[test]
    fn limits_are_told_with_their_origin_and_for_how_long() {
        let source = Source { text: TEXT.into(), base: "/etc".into() };
        let class = LevelPath::try_from("tenant/acme/class/gold").unwrap();
        let overlay = Overlay { path: class, key: "memory_max".into(), value: "512MiB".into() };
        let until = SystemTime::now();
        let temporaries = Temporaries::default().with(vec![overlay], until);
        let without = source.check(&[]).unwrap();
        let config = source.check(&temporaries.overlays()).unwrap();
        let of = |path: &str, key: &str| {
            let path = LevelPath::try_from(path).unwrap();
            let lines = limits(&config, &without, &temporaries, Some(&path)).unwrap();
            lines.into_iter().find(|line| line.key == key).unwrap()
        };
        let line = of("tenant/acme/id/one", "memory_max");
        assert_eq!((line.value.as_str(), line.from.as_deref()), ("512MiB", Some("tenant.acme.class.gold.memory_max")));
        assert_eq!((line.until, line.otherwise.as_deref()), (Some(until), Some("1GiB")));
        let line = of("tenant/acme/id/never seen", "memory_max");
        assert_eq!((line.value.as_str(), line.until), ("256MiB", None));
        let line = of("tenant/acme/function/f", "timeout");
        assert_eq!((line.value.as_str(), line.from), ("30s", None));
        assert_eq!(of("tenant/acme/id/one", "cpu_quota").value, "none");
        assert_eq!(limits(&config, &without, &temporaries, Some(&LevelPath::try_from("tenant/nobody").unwrap())), None);
        let all = limits(&config, &without, &temporaries, None).unwrap();
        assert!(all.iter().any(|line| line.path == LevelPath::Host));
    }
}
