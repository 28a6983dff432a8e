//! `sublet reload` and SIGHUP: the configuration is read again and becomes the one that counts, whole or not at all.
//!
//! What workers are (a function's program, sandbox and kernel limits) is a revision: a changed one takes the calls from
//! then on, and the workers of the old one finish what they have. Everything else is changed under running workers.
//! What root's rights were needed for at the start cannot change; a reload that asks for it is refused by name.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, TryLockError},
};

use serde_json::Value;

use crate::{
    config::{self, Config, ConfigError, HostPath, Problem},
    descriptors,
    driver::Driver,
};

/// What of [host] needs a restart, with the reason.
const FIXED: &[(&str, &str)] = &[
    ("state_dir", "its lock is held"),
    ("socket", "it is bound"),
    ("admin_socket", "it is bound"),
    ("socket_mode", "the socket is root's"),
    ("socket_gid", "the socket is root's"),
    ("listen", "it is bound"),
    ("instance", "the cgroups carry it"),
    ("cgroup_parent", "the cgroups are there"),
    ("uid_base", "the nursery was told once"),
    ("uid_count", "the nursery was told once"),
    ("supervisor_uid", "it is what the supervisor runs as"),
    ("connections_max", "it is counted from the start"),
    ("memory_max", "the pool's own limit is root's"),
    ("pids_max", "the pool's own limit is root's"),
    ("accept_degraded", "the layers of a sandbox were decided on"),
];

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The file, or what it says.
    #[error("the new configuration is not used, the old one stays in force:\n{0}")]
    Config(#[from] ConfigError),
    /// One at a time.
    #[error("another reload is running; the old configuration stays in force until it ends")]
    Busy,
}

/// The running configuration, and where it comes from.
#[derive(Debug)]
pub struct Reloader {
    path: PathBuf,
    driver: Arc<Driver>,
    current: Mutex<Config>,
    /// Directories the nursery was given at the start.
    dirs: Vec<HostPath>,
    /// Largest payload and answer the front was started for, in bytes.
    frames: (u32, u32),
    descriptors: u64,
}

impl Reloader {
    /// Of a configuration that is in force. `descriptors` may be open at one time.
    pub fn new(path: PathBuf, driver: Arc<Driver>, config: Config, descriptors: u64) -> Self {
        let dirs = config.dirs().into_iter().cloned().collect();
        let frames = largest_frames(&config);
        Self { path, driver, current: Mutex::new(config), dirs, frames, descriptors }
    }

    /// Reads the file again and puts it in force. Returns what has changed, a line each.
    ///
    /// # Errors
    /// Everything that is wrong with it; then nothing is changed.
    pub fn reload(&self) -> Result<Vec<String>, ReloadError> {
        let mut current = match self.current.try_lock() {
            Ok(current) => current,
            Err(TryLockError::WouldBlock) => return Err(ReloadError::Busy),
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
        };
        let new = config::load(&self.path)?;
        let mut problems = self.fixed(&current, &new);
        problems.extend(self.foreign_dirs(&new));
        problems.extend(self.too_large(&new));
        problems.extend(config::check_disk(&new));
        if !problems.is_empty() {
            return Err(ConfigError { problems }.into());
        }
        let changes = changes(&current, &new);
        self.driver.install(&new);
        self.driver.apply_levels();
        *current = new;
        Ok(changes)
    }

    fn fixed(&self, old: &Config, new: &Config) -> Vec<Problem> {
        let host = |config: &Config| serde_json::to_value(&config.host).unwrap_or_default();
        let (old, new_host) = (host(old), host(new));
        let mut problems: Vec<Problem> = FIXED
            .iter()
            .filter(|(key, _)| old[key] != new_host[key])
            .map(|(key, why)| {
                let what = format!("was {} at the start, and {why}", old[key]);
                Problem::new(
                    format!("host.{key}"),
                    Some(new_host[key].to_string()),
                    what,
                    "write the old value, or restart",
                )
            })
            .collect();
        let needed = descriptors::needed(&new.host);
        if needed > self.descriptors {
            let what = format!("needs {needed} open files, and {} are allowed since the start", self.descriptors);
            let value = Some(new.host.workers_max.to_string());
            problems.push(Problem::new("host.workers_max", value, what, "write less, or restart"));
        }
        problems
    }

    fn foreign_dirs(&self, new: &Config) -> Vec<Problem> {
        let is_known = |dir: &HostPath| self.dirs.iter().any(|known| known.contains(dir));
        let unknown = new.dirs().into_iter().filter(|dir| !is_known(dir));
        let problem = |dir: &HostPath| {
            let what =
                "the nursery was told at the start which directories workers may see, and this is not below them";
            Problem::new("a function's dir or root", Some(format!("{:?}", dir.as_str())), what, "restart")
        };
        unknown.map(problem).collect()
    }

    fn too_large(&self, new: &Config) -> Vec<Problem> {
        let (payload, answer) = largest_frames(new);
        let mut problems = Vec::new();
        for (key, largest, limit) in [("payload_max", payload, self.frames.0), ("answer_max", answer, self.frames.1)] {
            if largest > limit {
                let what = format!("the server was started for messages of {limit} bytes at the most");
                let value = Some(format!("{largest} bytes"));
                problems.push(Problem::new(format!("the largest {key}"), value, what, "write less, or restart"));
            }
        }
        problems
    }
}

fn largest_frames(config: &Config) -> (u32, u32) {
    let of =
        |f: fn(&config::Function) -> u32| config.functions().map(|(_, _, function)| f(function)).max().unwrap_or(0);
    (of(|function| function.payload_max_bytes), of(|function| function.answer_max_bytes))
}

/// What differs, by full name.
fn changes(old: &Config, new: &Config) -> Vec<String> {
    let value = |config: &Config| serde_json::to_value(config).unwrap_or_default();
    let mut changes = Vec::new();
    compare("", &value(old), &value(new), &mut changes);
    changes
}

fn compare(name: &str, old: &Value, new: &Value, changes: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let below = full_name(name, key);
                // Not for people: every other change of the function is told.
                if key == "revision" && before.contains_key(key) && after.contains_key(key) {
                    continue;
                }
                compare(
                    &below,
                    &before.get(key).cloned().unwrap_or_default(),
                    &after.get(key).cloned().unwrap_or_default(),
                    changes,
                );
            }
        }
        // An environment may hold secrets.
        (old, new) if old != new && name.contains(".env.") => changes.push(format!("{name}: changed")),
        (Value::Null, Value::Object(_)) => changes.push(format!("{name}: new")),
        (Value::Object(_), Value::Null) => changes.push(format!("{name}: removed")),
        (old, new) if old != new => changes.push(format!("{name}: {} -> {}", shown(old), shown(new))),
        (_, _) => {}
    }
}

/// What the configuration calls it.
fn full_name(above: &str, key: &str) -> String {
    // Below these, keys are the operator's own names.
    let is_own_name = above == "tenant" || above.ends_with(".function") || above.ends_with(".env");
    let written = match key {
        _ if is_own_name => key,
        "tenants" => "tenant",
        "functions" => "function",
        "sub_tenant_calls" => "sub_tenant",
        "payload_max_bytes" => "payload_max",
        "answer_max_bytes" => "answer_max",
        "is_idempotent" => "idempotent",
        "limits" | "calls" => return above.to_owned(),
        other => other,
    };
    if above.is_empty() { written.to_owned() } else { format!("{above}.{written}") }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_those_of_the_configuration() {
        let of = |keys: &[&str]| keys.iter().fold(String::new(), |above, key| full_name(&above, key));
        assert_eq!(of(&["tenants", "calls", "calls", "rate"]), "tenant.calls.rate");
        assert_eq!(of(&["tenants", "a", "sub_tenant_calls", "weight"]), "tenant.a.sub_tenant.weight");
        assert_eq!(
            of(&["tenants", "a", "functions", "limits", "answer_max_bytes"]),
            "tenant.a.function.limits.answer_max"
        );
    }

    #[test]
    fn changes_are_told_by_full_name_and_secrets_are_not() {
        let old = json!({ "host": { "workers_max": 2 }, "tenants": { "a": { "env": { "KEY": "1" } }, "b": {} } });
        let new = json!({ "host": { "workers_max": 3 }, "tenants": { "a": { "env": { "KEY": "2" } }, "c": {} } });
        let mut found = Vec::new();
        compare("", &old, &new, &mut found);
        let expected = ["host.workers_max: 2 -> 3", "tenant.a.env.KEY: changed", "tenant.b: removed", "tenant.c: new"];
        assert_eq!(found, expected);
    }
}
