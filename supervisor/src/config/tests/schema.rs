//! Rules of the JSON Schema: what the reader takes it takes too, and its bounds are the reader's.

use std::{fs, path::Path};

use serde_json::Value;

use super::{
    super::schema::{property, schema, token_of},
    reference::{all, ends},
    *,
};

fn validator() -> jsonschema::Validator {
    jsonschema::draft202012::new(&schema()).expect("it is a schema")
}

fn json(text: &str) -> Value {
    let table: toml::Table = text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"));
    serde_json::to_value(table).expect("TOML without dates is JSON")
}

fn errors(text: &str) -> Vec<String> {
    validator().iter_errors(&json(text)).map(|error| format!("{}: {error}", error.instance_path())).collect()
}

#[test]
fn schema_is_one_of_its_draft() {
    assert_eq!(schema()["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert!(jsonschema::draft202012::meta::is_valid(&schema()));
}

/// The files of the repository that may have an example.
fn files(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
        let (path, name) = (entry.path(), entry.file_name().into_string().unwrap());
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if entry.file_type().unwrap().is_dir() {
            files(&path, found);
        } else if name.ends_with(".md") || name == "sublet.toml" {
            found.push((path.display().to_string(), fs::read_to_string(&path).unwrap()));
        }
    }
}

/// Configurations in a text, whole or in part: from the line of a table to the end of its block.
fn examples(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut is_in = false;
    for line in text.lines() {
        if !is_in && (line.starts_with("[host]") || line.starts_with("[tenant.")) {
            is_in = true;
            found.push(String::new());
        }
        if line.starts_with("```") || line == "EOF" {
            is_in = false;
        }
        if let Some(example) = found.last_mut().filter(|_| is_in) {
            *example += line;
            *example += "\n";
        }
    }
    found
}

#[test]
fn every_example_of_the_repository_is_valid() {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut found);
    let (mut whole, mut parts) = (0, 0);
    for (path, text) in found {
        let examples = match path.ends_with(".toml") {
            // An author's: one function's settings, to which the operator adds its directory.
            true => vec![format!(
                "[tenant.t.function.f]\n{}{text}",
                if text.contains("\ndir") { "" } else { "dir = \".\"\n" }
            )],
            false => examples(&text),
        };
        for mut example in examples {
            if example.contains("[host]") {
                whole += 1;
            } else {
                parts += 1;
                example = format!("host.state_dir = \"/s\"\n{example}");
                // A table of a function's that is shown by itself.
                if !example.contains("\nruntime") {
                    example += "[tenant.acme.function.resize]\nruntime = \"exec\"\nlayout = \"host\"\ndir = \"/f\"\n";
                }
            }
            assert_eq!(errors(&example), [""; 0], "{path}:\n{example}");
            if whole > 0 && example.contains("[host]") {
                Config::parse(&example, Path::new(BASE)).unwrap_or_else(|error| panic!("{path}: {error}\n{example}"));
            }
        }
    }
    assert!(whole >= 2 && parts >= 8, "{whole} whole, {parts} parts");
}

#[test]
fn another_value_of_every_setting_is_valid() {
    assert_eq!(errors(MINIMAL), [""; 0]);
    for row in super::super::types::RawFunction::rows() {
        let text = with(&[(&format!("{F}.{}", row.key), &super::function::other(row))]);
        assert_eq!(errors(&text), [""; 0], "{}", row.key);
    }
}

#[test]
fn wrong_configurations_are_not_valid() {
    for (setting, value) in [
        ("host.state_dir", ""),
        ("host.socket_mode", "\"0060\""),
        ("host.listen", "\"0.0.0.0:1\""),
        ("host.instance", "\"Main\""),
        ("host.memroy_max", "\"1GiB\""),
        ("host.accept_degraded", "[\"all\"]"),
        ("host.log", "\"syslog\""),
        ("host.threads", "\"2\""),
        ("tenant.Acme.weight", "1"),
        ("tenant.acme.queue_max", "1"),
        ("tenant.acme.memory_max", "\"1MB\""),
        ("tenant.acme.memory_max", "1048576"),
        ("tenant.acme.sub_tenant.class", "\"gold\""),
        ("tenant.acme.class.Gold", "{}"),
        ("tenant.acme.id.x.rate", "\"10\""),
        (&format!("{F}.runtime"), "\"python\""),
        (&format!("{F}.runtime"), ""),
        (&format!("{F}.layout"), "\"dirs\""),
        (&format!("{F}.timeout"), "30"),
        (&format!("{F}.timeout"), "\"30\""),
        (&format!("{F}.cpu_quota"), "\"1.5\""),
        (&format!("{F}.idempotent"), "\"true\""),
        (&format!("{F}.command"), "\"/function/f\""),
        (&format!("{F}.env"), "{ SUBLET_X = \"1\" }"),
        (&format!("{F}.token"), "{ provider = \"jwt\", dir = \"/t\" }"),
        (&format!("{F}.warm"), "{ s = \"1\" }"),
    ] {
        let text = with(&[(setting, value)]);
        assert!(!errors(&text).is_empty(), "{setting} = {value}");
        assert!(Config::parse(&text, Path::new(BASE)).is_err(), "the reader takes {setting} = {value}");
    }
}

#[test]
fn bounds_of_the_schema_are_those_of_the_tables() {
    let whole = validator();
    let mut tried = 0;
    for (name, context, row) in all() {
        let mut one = property(&row);
        if let Some(counts) = one.get("additionalProperties") {
            one = counts.clone();
        }
        let Ok(one) = jsonschema::draft202012::new(&one) else { continue };
        for end in ends(row.kind) {
            let value = json(&format!("value = {}", end.value))["value"].take();
            assert_eq!(one.is_valid(&value), end.told.is_none(), "{name} = {}", end.value);
            // What is written beside a token's provider is checked by itself.
            if context.is_empty() && !matches!(row.kind, super::super::settings::Kind::CountTable(..)) {
                let text = json(&with(&[(&name, &end.value)]));
                assert_eq!(whole.is_valid(&text), end.told.is_none(), "{name} = {} as a whole", end.value);
            }
            tried += 1;
        }
    }
    assert!(tried > 200, "{tried}");
}

#[test]
fn each_provider_of_tokens_has_settings_of_its_own() {
    let right = [
        ("static", "dir = \"/t\""),
        ("command", "command = [\"/usr/bin/mint\"], timeout = \"1s\""),
        ("jwt", "key = \"/k\", issuer = \"i\", audience = \"a\""),
    ];
    for (provider, settings) in right {
        assert!(token_of(provider)["required"].as_array().is_some_and(|required| required.len() > 1), "{provider}");
        for (other, _) in right {
            let text = with(&[(&format!("{F}.token"), &format!("{{ provider = {other:?}, {settings} }}"))]);
            assert_eq!(errors(&text).is_empty(), other == provider, "{other} with {settings}");
        }
    }
}

#[test]
fn values_are_valid_in_every_form_that_the_reader_takes() {
    for (key, forms) in [
        ("memory_max", &["\"4MiB\"", "\"04096KiB\"", "\"1GiB\"", "\"5000000B\""][..]),
        ("cpu_quota", &["\"1\"", "\"0500m\"", "\"10m\""]),
        ("timeout", &["\"1ms\"", "\"007s\"", "\"24h\"", "\"1440m\""]),
        ("freeze_after", &["\"never\"", "\"0s\"", "\"0ms\"", "\"1h\""]),
        ("runtime", &["\"exec\"", "\"stream\""]),
    ] {
        for value in forms {
            let text = with(&[(&format!("{F}.{key}"), value)]);
            assert_eq!(errors(&text), [""; 0], "{key} = {value}");
            assert!(Config::parse(&text, Path::new(BASE)).is_ok(), "{key} = {value}");
        }
    }
}
