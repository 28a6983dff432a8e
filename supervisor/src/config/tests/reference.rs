//! The reference of all settings, supervisor/docs/configuration.md, is written by these tests from the tables of settings; and
//! what the tables say is tried on the reader.

use std::{collections::BTreeSet, fmt::Write as _};

use super::{
    super::{
        bounds::Bounds,
        raw::RawTenant,
        reader::Value,
        scalar::Scalar,
        settings::{Changes, Initial, Kept, Kind, NEVER, Row},
        types::{OF_SUB_TENANTS_ONLY, RawFunction, RawHost, RawSubTenant, RawToken, token_rows},
    },
    *,
};
use crate::golden;

const PAGE: &str = "supervisor/docs/configuration.md";

const fn changes_by(changes: Changes) -> &'static str {
    match changes {
        Changes::Restart(_) => "restart",
        Changes::Reload => "reload",
        Changes::Set => "set",
        Changes::NewWorkers => "new workers",
    }
}

const fn kept_by(kept: Kept) -> &'static str {
    match kept {
        Kept::NoLimit => "",
        Kept::Group(by) | Kept::Worker(by) | Kept::Sublet(by) => by,
    }
}

fn initial(row: &Row) -> String {
    match (&row.initial, row.kind) {
        (Initial::Is(value), Kind::Flag) => format!("`{value}`"),
        (Initial::Is(value), _) => value.clone(),
        (Initial::Words(words), _) => words.clone(),
        (Initial::Inherited(whose), _) => (*whose).to_owned(),
    }
}

fn range<T: Value>(bounds: &Bounds<T>) -> String {
    format!("{} to {}", bounds.min.to_toml(), bounds.max.to_toml())
}

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

/// The name of a kind, and which values are taken.
fn values(kind: Kind) -> (&'static str, String) {
    match kind {
        Kind::Count(bounds) => ("count", range(bounds)),
        Kind::Size(bounds) => ("size", range(bounds)),
        Kind::Cpu(bounds) => ("CPU", range(bounds)),
        Kind::Time(bounds) => ("duration", range(bounds)),
        Kind::TimeOrNever(bounds) => ("duration", format!("{}; or {NEVER:?}", range(bounds))),
        Kind::Rate(bounds) => ("rate", range(bounds)),
        Kind::Flag => ("flag", "`true`, `false`".to_owned()),
        Kind::Choice(words) => ("choice", quoted(words)),
        Kind::Text { name, values, .. } => (name, values.to_owned()),
        Kind::Words { values, .. } => ("list", values.to_owned()),
        Kind::Texts { name, values } => (name, values.to_owned()),
        Kind::TextTable(values) => ("table of texts", values.to_owned()),
        Kind::CountTable(values, _) => ("table of counts", values.to_owned()),
        Kind::Table(values) => ("table", values.to_owned()),
    }
}

/// A value at one end of the bounds, or one past it.
pub struct End {
    /// As TOML has it.
    pub value: String,
    /// What the reader says of it; none: it is within.
    pub told: Option<String>,
}

/// Both ends of a kind's bounds and one past each, where there are such.
pub fn ends(kind: Kind) -> Vec<End> {
    fn of<T: Value>(bounds: &Bounds<T>, above: Option<T>, below: Option<T>) -> Vec<End> {
        let within = [bounds.min, bounds.max].map(|value| End { value: value.to_toml(), told: None });
        let past = |value: T, word: &str, end: T| {
            let told = Some(format!("{word} {}: ", end.to_toml()));
            End { value: value.to_toml(), told }
        };
        let above = above.map(|value| past(value, "above", bounds.max));
        let below = below.map(|value| past(value, "below", bounds.min));
        within.into_iter().chain(above).chain(below).collect()
    }
    let millisecond = std::time::Duration::from_millis(1);
    match kind {
        Kind::Count(b) | Kind::CountTable(_, b) => of(b, b.max.checked_add(1), b.min.checked_sub(1)),
        Kind::Size(b) => {
            of(b, Some(ByteSize::from_bytes(b.max.bytes() + 1)), b.min.bytes().checked_sub(1).map(ByteSize::from_bytes))
        }
        Kind::Cpu(b) => of(
            b,
            Some(CpuMillis::from_millis(b.max.millis() + 1)),
            b.min.millis().checked_sub(1).map(CpuMillis::from_millis),
        ),
        Kind::Time(b) | Kind::TimeOrNever(b) => of(b, Some(b.max + millisecond), b.min.checked_sub(millisecond)),
        Kind::Rate(b) => {
            of(b, Some(CallRate::per_second(b.max.count() + 1)), b.min.count().checked_sub(1).map(CallRate::per_second))
        }
        Kind::Flag
        | Kind::Choice(_)
        | Kind::Text { .. }
        | Kind::Words { .. }
        | Kind::Texts { .. }
        | Kind::TextTable(_)
        | Kind::Table(_) => Vec::new(),
    }
}

/// The table of a section of the page.
fn lines<'a>(rows: impl IntoIterator<Item = &'a Row>) -> String {
    let mut text = String::from(
        "| setting | type | values | default | changes by | kept by | meaning |\n|---|---|---|---|---|---|---|\n",
    );
    for row in rows {
        let ((name, values), default) = (values(row.kind), initial(row));
        let (changes, kept, help) = (changes_by(row.changes), kept_by(row.kept), row.help);
        writeln!(text, "| `{}` | {name} | {values} | {default} | {changes} | {kept} | {help} |", row.key).unwrap();
    }
    text
}

/// Every table of settings: its section of the page, what stands before its keys in the minimal configuration, and its level.
fn tables() -> [(&'static str, &'static str, &'static str, Vec<&'static Row>); 4] {
    [
        ("host", "host", "host", RawHost::rows().iter().collect()),
        ("tenant", "tenant.acme", "tenant/acme", RawTenant::rows().collect()),
        ("sub_tenant", "tenant.acme.sub_tenant", "tenant/acme/sub_tenant", RawSubTenant::rows().iter().collect()),
        ("function", F, "tenant/acme/function/resize", RawFunction::rows().iter().collect()),
    ]
}

/// A setting's full name in the minimal configuration, what else has to be written for it, and its row.
pub type Named = (String, Vec<(String, String)>, Row);

/// Every setting.
pub fn all() -> Vec<Named> {
    let plain = tables().into_iter().flat_map(|(_, prefix, _, rows)| {
        rows.into_iter().map(move |row| (format!("{prefix}.{}", row.key), Vec::new(), row.clone()))
    });
    let of_tokens = token_rows().into_iter().map(|(provider, row)| {
        let context = provider.map(|provider| (format!("{F}.token.provider"), format!("{provider:?}")));
        (format!("{F}.token.{}", row.key), context.into_iter().collect(), row)
    });
    plain.chain(of_tokens).collect()
}

#[test]
fn page_has_each_setting_of_the_tables() {
    for (section, _, _, rows) in tables() {
        let keys: BTreeSet<&str> = rows.iter().map(|row| row.key).collect();
        assert_eq!(keys.len(), rows.len(), "a setting of {section} stands there twice");
        golden::section(PAGE, section, &lines(rows));
    }
    let told: BTreeSet<&str> = token_rows().iter().map(|(_, row)| row.key).collect();
    let token = RawToken::default();
    assert_eq!(told, token.scalars().into_iter().map(|(key, _)| key).chain(["command"]).collect());
    let mut text =
        String::from("| setting | provider | type | values | default | meaning |\n|---|---|---|---|---|---|\n");
    for (provider, row) in token_rows() {
        let ((name, values), default, provider) = (values(row.kind), initial(&row), provider.unwrap_or_default());
        writeln!(text, "| `{}` | {provider} | {name} | {values} | {default} | {} |", row.key, row.help).unwrap();
    }
    golden::section(PAGE, "token", &text);
    let mut text = String::from("| name | what is then missing |\n|---|---|\n");
    for degradation in Degradation::ALL {
        let missing = match degradation {
            Degradation::Landlock => "Landlock. Mounts and file modes alone then keep a function out of files.",
            Degradation::Time => "Time namespaces. Workers then see how long the host has been up.",
            Degradation::Inodes => {
                "Overlays in a user namespace. Workers then share the inodes of /usr, /dev and their function's directory with the host and with each other, have neither `flock` nor inotify, and see who else has locked a file for reading."
            }
            Degradation::Cpu => "CPU quota and weight. A busy sub-tenant then slows the others down.",
            Degradation::Swap => "A swap limit. Workers may then be swapped out.",
            Degradation::MemoryHigh => "`memory_high`, wherever it is written.",
            Degradation::MemoryMin => "`memory_min`, wherever it is written.",
            Degradation::CpuBurst => "`cpu_burst`, wherever it is written.",
        };
        writeln!(text, "| `{degradation}` | {missing} |").unwrap();
    }
    golden::section(PAGE, "degradations", &text);
}

#[test]
fn bounds_of_the_tables_are_those_of_the_reader() {
    let mut tried = 0;
    for (name, context, row) in all() {
        let name = if matches!(row.kind, Kind::CountTable(..)) { format!("{name}.x") } else { name };
        for End { value, told } in ends(row.kind) {
            let mut changes: Vec<(&str, &str)> = context.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
            changes.push((&name, &value));
            // At its end a value may still be too much beside others.
            let lines = parse(&changes).err().map_or(Vec::new(), |error| error.problems);
            let lines: Vec<String> = lines.iter().map(ToString::to_string).collect();
            let begin = |told: &str| format!("{name} = {value}: {told}");
            match told {
                Some(told) => assert!(
                    lines.iter().any(|line| line.starts_with(&begin(&told))),
                    "{:?} is not told: {lines:?}",
                    begin(&told)
                ),
                None => {
                    let of_bounds = ends(row.kind).into_iter().filter_map(|end| end.told).map(|told| begin(&told));
                    let refused: Vec<_> = of_bounds.filter(|told| lines.iter().any(|l| l.starts_with(told))).collect();
                    assert!(refused.is_empty(), "{refused:?}");
                }
            }
            tried += 1;
        }
    }
    assert!(tried > 200, "{tried}");
}

#[test]
fn defaults_of_the_tables_are_those_of_the_reader() {
    let config = serde_json::to_value(taken(&[])).unwrap();
    let tenant = &config["tenants"]["acme"];
    let both = |level: &serde_json::Value| {
        let parts =
            [&level["limits"], &level["calls"], level].map(|part| part.as_object().cloned().unwrap_or_default());
        serde_json::Value::Object(parts.into_iter().flatten().collect())
    };
    let files = taken(&[("host.log", "\"files\""), ("host.log_dir", "\"/var/log/sublet\"")]);
    let files = serde_json::to_value(&files).unwrap()["host"]["log"]["files"].clone();
    let values =
        [config["host"].clone(), both(tenant), both(&tenant["sub_tenant"]), tenant["functions"]["resize"].clone()];
    let mut tried = 0;
    for ((section, _, _, rows), values) in tables().into_iter().zip(values) {
        for row in rows {
            let value = match row.key {
                key @ ("payload_max" | "answer_max") => {
                    ByteSize::from_bytes(values[format!("{key}_bytes")].as_u64().unwrap()).to_toml()
                }
                "log_file_size" => files["size"].to_string(),
                "log_files" => files["count"].to_string(),
                key => values[key].to_string(),
            };
            let default = match &row.initial {
                Initial::Is(value) => value,
                // In words, it depends on other settings or on the host, unless it is a text.
                Initial::Words(words) if words.starts_with('"') && words.ends_with('"') => words,
                Initial::Words(_) | Initial::Inherited(_) => continue,
            };
            assert!(value == *default, "{section}.{}: {value} {default}", row.key);
            tried += 1;
        }
    }
    assert!(tried > 30, "{tried}");
}

#[test]
fn what_the_tables_say_of_changes_is_so() {
    for (section, _, path, rows) in tables() {
        let can = changeable(&LevelPath::try_from(path).unwrap());
        let told: Vec<&str> = rows.iter().filter(|row| row.changes == Changes::Set).map(|row| row.key).collect();
        assert_eq!(told, can, "{section}");
    }
    // What is part of the revision makes new workers, and nothing else does.
    let with_all: RawFunction = {
        let mut raw = RawFunction::default();
        for row in RawFunction::rows() {
            if let Some(slot) = raw.slot(row.key) {
                *slot = Some(Scalar::Integer(1));
            }
        }
        raw.command = Some(Vec::new());
        raw.env.insert("A".into(), Scalar::Integer(1));
        raw.token = Some(RawToken::default());
        raw.warm.insert("a".into(), Scalar::Integer(1));
        raw
    };
    let serialised: toml::Table = toml::to_string(&with_all).unwrap().parse().unwrap();
    for row in RawFunction::rows() {
        assert_eq!(serialised.contains_key(row.key), row.changes == Changes::NewWorkers, "{}", row.key);
    }
    assert!(RawTenant::rows().all(|row| !OF_SUB_TENANTS_ONLY.contains(&row.key)));
}
