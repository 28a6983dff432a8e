//! A JSON Schema (draft 2020-12) of the configuration, for editors: made from the tables of settings.
//!
//! It refuses nothing that the reader takes. Of what the reader refuses it knows what can be said of one value: its type, its
//! bounds, the words of a choice. Rules between settings, and what hangs on the host, only the reader knows.

use serde_json::{Map, Value, json};

use super::{
    bounds::Bounds,
    name::PATTERN as NAME,
    range,
    raw::RawTenant,
    settings::{Changes, Initial, Kind, NEVER, Row},
    types::{OF_SUB_TENANTS_ONLY, RawFunction, RawHost, RawSubTenant, token_rows},
    units::{DURATION_UNITS, SIZE_UNITS},
};

/// The JSON Schema (draft 2020-12) of a configuration file.
pub fn schema() -> Value {
    let reference = |of: &str| json!({ "$ref": format!("#/$defs/{of}") });
    let by_name = |of: &str, names: &str| json!({ "type": "object", "propertyNames": { "pattern": names }, "additionalProperties": reference(of) });
    let of_class = OF_SUB_TENANTS_ONLY[0];
    let without_class = RawSubTenant::rows().iter().filter(|row| row.key != of_class);
    let mut tenant = table(RawTenant::rows());
    tenant["properties"]["sub_tenant"] = reference("sub_tenant");
    tenant["properties"]["class"] = by_name("sub_tenant", NAME);
    // A label is any text that is not empty.
    tenant["properties"]["id"] = by_name("id", ".");
    tenant["properties"]["function"] = by_name("function", NAME);
    let providers = ["static", "command", "jwt"].map(token_of);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of sublet",
        "type": "object",
        "properties": { "host": reference("host"), "tenant": by_name("tenant", NAME) },
        "required": ["host"],
        "additionalProperties": false,
        "$defs": {
            "host": table(RawHost::rows()),
            "tenant": tenant,
            "sub_tenant": table(without_class),
            "id": table(RawSubTenant::rows()),
            "function": table(RawFunction::rows()),
            "token": { "type": "object", "oneOf": providers },
        },
    })
}

fn table<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for row in rows {
        properties.insert(row.key.to_owned(), property(row));
        if row.initial == Initial::Words("required".to_owned()) {
            required.push(row.key);
        }
    }
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

/// The settings that a provider of tokens takes.
pub(super) fn token_of(provider: &str) -> Value {
    let rows = token_rows();
    let mut table = table(rows.iter().filter(|(of, _)| of.is_none_or(|of| of == provider)).map(|(_, row)| row));
    table["properties"]["provider"]["const"] = json!(provider);
    table
}

/// What the schema says of one setting: its values, its bounds, its default and its help.
pub(super) fn property(row: &Row) -> Value {
    let mut property = values(row.kind);
    let changes = match row.changes {
        Changes::Restart(_) => "with a restart",
        Changes::Reload => "by `sublet reload`",
        Changes::Set => "by `sublet reload` or `sublet set`",
        Changes::NewWorkers => "by `sublet reload`, with new workers",
    };
    let default = match &row.initial {
        Initial::Is(value) => value.as_str(),
        Initial::Words(words) => words,
        Initial::Inherited(whose) => whose,
    };
    property["description"] = json!(format!("{}\n\nDefault: {default}. Changes {changes}.", row.help));
    if let Initial::Is(value) = &row.initial {
        property["default"] = serde_json::from_str(value).unwrap_or_else(|_| json!(value));
    }
    property
}

fn text(pattern: &str) -> Value {
    json!({ "type": "string", "pattern": pattern })
}

/// The values of a kind.
fn values(kind: Kind) -> Value {
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match kind {
        Kind::Count(bounds) => count(bounds),
        Kind::Size(Bounds { min, max, .. }) => text(&range::with_units(min.bytes(), max.bytes(), &SIZE_UNITS, &[])),
        Kind::Cpu(Bounds { min, max, .. }) => {
            text(&range::with_units(min.millis().into(), max.millis().into(), &[("m", 1), ("", 1000)], &[]))
        }
        Kind::Time(Bounds { min, max, .. }) => {
            text(&range::with_units(millis(*min), millis(*max), &DURATION_UNITS, &[]))
        }
        Kind::TimeOrNever(Bounds { min, max, .. }) => {
            text(&range::with_units(millis(*min), millis(*max), &DURATION_UNITS, &[NEVER]))
        }
        Kind::Rate(Bounds { min, max, .. }) => {
            text(&range::with_units(min.count().into(), max.count().into(), &[("/s", 1)], &[]))
        }
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Choice(words) => json!({ "type": "string", "enum": words }),
        Kind::Text { pattern, .. } => text(pattern),
        Kind::Words { all, .. } => json!({ "type": "array", "items": { "enum": all() } }),
        Kind::Texts { .. } => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::TextTable(_) => json!({
            "type": "object",
            "propertyNames": { "not": { "pattern": "^SUBLET_" } },
            "additionalProperties": { "type": "string" },
        }),
        Kind::CountTable(_, bounds) => json!({ "type": "object", "additionalProperties": count(bounds) }),
        Kind::Table(_) => json!({ "$ref": "#/$defs/token" }),
    }
}

fn count(Bounds { min, max, .. }: &Bounds<u32>) -> Value {
    json!({ "type": "integer", "minimum": min, "maximum": max })
}
