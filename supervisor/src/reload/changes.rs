//! What differs between two configurations, in the configuration's own words. Pure.

use serde_json::Value;

use crate::config::Config;

/// What differs, by full name. Of sub-tenants only what is written for them: what they get from the tables above is told
/// there, once and not for each of a thousand.
pub fn changes(old: &Config, new: &Config) -> Vec<String> {
    let value = |config: &Config| serde_json::to_value(config).unwrap_or_default();
    let mut changes = Vec::new();
    compare("", &value(old), &value(new), &mut changes);
    let is_written = |name: &str| old.written.contains(name) || new.written.contains(name);
    changes.retain(|line| {
        let name = line.split(": ").next().unwrap_or_default();
        let is_inherited = ["sub_tenant.", "class.", "id."].iter().any(|table| {
            name.strip_prefix("tenant.")
                .and_then(|rest| rest.split_once('.'))
                .is_some_and(|(_, rest)| rest.starts_with(table))
        });
        !is_inherited || is_written(name) || line.ends_with(": new") || line.ends_with(": removed")
    });
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
    let is_own_name =
        above == "tenant" || [".function", ".env", ".class", ".id"].iter().any(|table| above.ends_with(table));
    let quoted = |key: &str| {
        let is_bare = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
        if is_bare { key.to_owned() } else { format!("{key:?}") }
    };
    if is_own_name {
        return format!("{above}.{}", quoted(key));
    }
    let written = match key {
        "tenants" => "tenant",
        "functions" => "function",
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
        assert_eq!(of(&["tenants", "a", "sub_tenant", "calls", "weight"]), "tenant.a.sub_tenant.weight");
        assert_eq!(of(&["tenants", "a", "id", "a b", "limits", "pids_max"]), "tenant.a.id.\"a b\".pids_max");
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
