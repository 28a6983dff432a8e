//! The configuration's rules, each as a test: what is taken, and that what is not is told by name, value and remedy.

mod disk;
mod function;
mod host;
mod lambda;
mod levels;
mod logs;
mod quotas;
mod reference;
mod schema;
mod shape;
mod token;
mod what_if;

use std::path::Path;

use super::*;

pub const BASE: &str = "/etc/sublet";

/// The least that is taken.
const MINIMAL: &str = r#"
[host]
state_dir = "/var/lib/sublet"
[tenant.acme.sub_tenant]
[tenant.acme.function.resize]
runtime = "stream"
layout = "static"
dir = "/srv/functions/resize"
command = ["/function/resize"]
"#;

/// Short for the one function's table.
pub const F: &str = "tenant.acme.function.resize";

/// The minimal text with settings written (as TOML values) or, where the value is empty, removed.
pub fn with(changes: &[(&str, &str)]) -> String {
    let mut table: toml::Table = MINIMAL.parse().expect("the minimal text is TOML");
    for (name, value) in changes {
        let mut keys: Vec<&str> = name.split('.').collect();
        let last = keys.pop().expect("a name has a last part");
        let mut at = &mut table;
        for key in keys {
            let entry = at.entry(key).or_insert_with(|| toml::Table::new().into());
            at = entry.as_table_mut().expect("all but the last part are tables");
        }
        if value.is_empty() {
            at.remove(last);
        } else {
            let mut parsed: toml::Table = format!("value = {value}").parse().expect(value);
            at.insert(last.to_owned(), parsed.remove("value").expect("written above"));
        }
    }
    table.to_string()
}

pub fn parse(changes: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::parse(&with(changes), Path::new(BASE))
}

/// The configuration, which must be taken.
pub fn taken(changes: &[(&str, &str)]) -> Config {
    parse(changes).unwrap_or_else(|error| panic!("{changes:?} is refused:\n{error}"))
}

/// Its one function.
pub fn resize(changes: &[(&str, &str)]) -> Function {
    taken(changes).function("acme", "resize").expect("it is there").clone()
}

/// The problems, in the form operators see; there must be some.
pub fn told(changes: &[(&str, &str)]) -> Vec<String> {
    let error = parse(changes).err().unwrap_or_else(|| panic!("{changes:?} is taken"));
    assert!(!error.problems.is_empty());
    error.problems.iter().map(ToString::to_string).collect()
}

/// Exactly one problem is told, in exactly these words.
#[track_caller]
pub fn only(changes: &[(&str, &str)], expected: &str) {
    assert_eq!(told(changes), [expected]);
}

/// Holds a setting against its bounds: the ends are taken, one past each is refused by name, value and remedy.
#[track_caller]
pub fn bounded(context: &[(&str, &str)], setting: &str, below: &str, min: &str, max: &str, above: &str) {
    let changes = |value| [context, &[(setting, value)]].concat();
    for end in [min, max] {
        if !end.is_empty() {
            taken(&changes(end));
        }
    }
    for (past, end, word) in [(below, min, "least"), (above, max, "most")] {
        if past.is_empty() {
            continue;
        }
        let lines = told(&changes(past));
        let line = lines.iter().find(|line| line.starts_with(&format!("{setting} = {past}: ")));
        let line = line.unwrap_or_else(|| panic!("{setting} = {past} is not told: {lines:?}"));
        assert!(line.contains(&format!("; write at {word} {end}")), "{line}");
    }
}
