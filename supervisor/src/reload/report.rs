//! `sublet limits`: every limit in force, with where it comes from. Pure.

use std::time::SystemTime;

use super::temporary::Temporaries;
use crate::config::{ByteSize, CallLimits, Config, Kept, LevelLimits, LevelPath, Row, SubTenantLevel, rows};

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

type Values = Vec<(&'static Row, String)>;

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
        for (row, value) in values(config, &path)? {
            let key = row.key;
            let origin = config.origin(&path, key);
            let temporary = origin.as_ref().and_then(|origin| temporaries.find(origin, key));
            lines.push(Line {
                key,
                value,
                from: origin.map(|origin| format!("{}.{key}", origin.table())),
                until: temporary.map(|one| one.until),
                otherwise: temporary.map(|_| {
                    otherwise.iter().find(|(other, _)| other.key == key).map_or("none", |(_, value)| value).to_owned()
                }),
                enforced_by: enforced_by(row.kept),
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
    let shown = shown(config, path)?;
    let mut rows: Vec<&Row> = rows(path).into_iter().filter(|row| row.kept != Kept::NoLimit).collect();
    // What the kernel keeps for the group comes first.
    rows.sort_by_key(|row| !matches!(row.kept, Kept::Group(_)));
    Some(rows.into_iter().filter_map(|row| Some((row, shown(row.key)?))).collect())
}

type ByKey<'a> = Box<dyn Fn(&str) -> Option<String> + 'a>;

/// What shows a setting of a level; none when there is no such level.
fn shown<'a>(config: &'a Config, path: &LevelPath) -> Option<ByKey<'a>> {
    let of_level = |limits: &'a LevelLimits, calls: &'a CallLimits, queue_max: Option<u32>| -> ByKey<'a> {
        Box::new(move |key| {
            limits.shown(key).or_else(|| calls.shown(key)).or_else(|| match key {
                "rate" => Some(or_none(calls.rate.map(|rate| rate.rate))),
                "rate_burst" => Some(or_none(calls.rate.map(|rate| rate.burst))),
                "queue_max" => Some(or_none(queue_max)),
                _ => None,
            })
        })
    };
    let of_sub_tenant = |level: &'a SubTenantLevel| of_level(&level.limits, &level.calls, level.queue_max);
    let Some(tenant) = path.tenant() else {
        let host = &config.host;
        let by_hand = |key: &str| (key == "calls_in_flight_max").then(|| host.calls_in_flight_max.to_string());
        return Some(Box::new(move |key| host.shown(key).or_else(|| by_hand(key))));
    };
    let tenant = config.tenants.get(tenant)?;
    match path {
        LevelPath::Host => None,
        LevelPath::Tenant(_) => Some(of_level(&tenant.limits, &tenant.calls, None)),
        LevelPath::SubTenants(_) => Some(of_sub_tenant(&tenant.sub_tenant)),
        LevelPath::Class(_, class) => Some(of_sub_tenant(tenant.classes.get(class)?)),
        LevelPath::Id(_, label) => Some(of_sub_tenant(tenant.level_of(label))),
        LevelPath::Function(_, function) => {
            let function = tenant.functions.get(function)?;
            let bytes = |bytes: u32| Some(ByteSize::from_bytes(bytes.into()).to_string());
            Some(Box::new(move |key| {
                function.shown(key).or_else(|| match key {
                    "payload_max" => bytes(function.payload_max_bytes),
                    "answer_max" => bytes(function.answer_max_bytes),
                    _ => None,
                })
            }))
        }
    }
}

fn or_none<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}

/// Who keeps a limit. A file of the kernel has its name on v2; v1 has others, which `sublet describe` shows.
const fn enforced_by(kept: Kept) -> &'static str {
    match kept {
        Kept::Group(by) | Kept::Worker(by) | Kept::Sublet(by) => by,
        Kept::NoLimit => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cgroups::limits::Knob,
        config::{Overlay, Source},
    };

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

    #[test]
    fn each_limit_that_the_table_names_is_shown_and_the_kernels_files_are_those_of_the_groups() {
        let source = Source { text: TEXT.into(), base: "/etc".into() };
        let config = source.check(&[]).unwrap();
        let mut files = 0;
        for path in all(&config) {
            let lines = limits(&config, &config, &Temporaries::default(), Some(&path)).unwrap();
            for row in rows(&path) {
                let line = lines.iter().find(|line| line.key == row.key);
                assert_eq!(line.is_some(), row.kept != Kept::NoLimit, "{path} {}", row.key);
                let knob = Knob::ALL.into_iter().find(|knob| knob.key() == row.key);
                if let Some(file) = knob.and_then(|knob| knob.file(true)) {
                    assert_eq!(row.kept, Kept::Group(file), "{path} {}", row.key);
                    files += 1;
                }
            }
        }
        assert!(files > 20, "{files}");
    }
}
