//! The configuration as written: the shape of the text is checked here, its values are not.

use std::{collections::BTreeMap, fmt, sync::LazyLock};

use serde::{Deserialize, Deserializer, de};

use super::{
    problem::Problem,
    scalar::Maybe,
    settings::Row,
    types::{OF_SUB_TENANTS_ONLY, RawFunction, RawHost, RawSubTenant},
};

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of host and tenant")]
pub struct RawConfig {
    #[serde(default)]
    pub host: RawHost,
    #[serde(default)]
    pub tenant: BTreeMap<String, RawTenant>,
}

/// A tenant's table: its own limits, which are among those of a sub-tenant, and the tables in it.
#[derive(Clone, Debug, Default)]
pub struct RawTenant {
    pub own: RawSubTenant,
    pub sub_tenant: RawSubTenant,
    pub class: BTreeMap<String, RawSubTenant>,
    pub id: BTreeMap<String, RawSubTenant>,
    pub function: BTreeMap<String, RawFunction>,
}

/// Tables in a tenant's.
const TABLES: [&str; 4] = ["sub_tenant", "class", "id", "function"];

impl RawTenant {
    /// The settings of its own table.
    pub fn rows() -> impl Iterator<Item = &'static Row> {
        RawSubTenant::rows().iter().filter(|row| !OF_SUB_TENANTS_ONLY.contains(&row.key))
    }

    /// The place of one of its own settings; none when there is none of the name.
    pub fn slot(&mut self, key: &str) -> Option<&mut Maybe> {
        if OF_SUB_TENANTS_ONLY.contains(&key) { None } else { self.own.slot(key) }
    }
}

/// A name in a tenant's table. It is refused where it is read, so that the error tells its line.
struct TenantKey(&'static str);

impl<'de> Deserialize<'de> for TenantKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl de::Visitor<'_> for KeyVisitor {
            type Value = TenantKey;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a setting or of a table")
            }
            fn visit_str<E: de::Error>(self, name: &str) -> Result<TenantKey, E> {
                static KNOWN: LazyLock<Vec<&'static str>> =
                    LazyLock::new(|| RawTenant::rows().map(|row| row.key).chain(TABLES).collect());
                let known = KNOWN.iter().find(|known| **known == name);
                known.map(|known| TenantKey(known)).ok_or_else(|| E::unknown_field(name, &KNOWN))
            }
        }
        deserializer.deserialize_identifier(KeyVisitor)
    }
}

impl<'de> Deserialize<'de> for RawTenant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TenantVisitor;
        impl<'de> de::Visitor<'de> for TenantVisitor {
            type Value = RawTenant;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table: [tenant.NAME]")
            }
            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<RawTenant, A::Error> {
                let mut tenant = RawTenant::default();
                while let Some(TenantKey(key)) = map.next_key()? {
                    match key {
                        "sub_tenant" => tenant.sub_tenant = map.next_value()?,
                        "class" => tenant.class = map.next_value()?,
                        "id" => tenant.id = map.next_value()?,
                        "function" => tenant.function = map.next_value()?,
                        key => {
                            let value = Some(map.next_value()?);
                            let slot = tenant.slot(key).ok_or_else(|| de::Error::custom("a list cannot be here"))?;
                            *slot = value;
                        }
                    }
                }
                Ok(tenant)
            }
        }
        deserializer.deserialize_map(TenantVisitor)
    }
}

/// Reads the shape.
///
/// # Errors
/// The first syntax error, unknown key, duplicate or value that is not a scalar, with its line.
pub fn parse(text: &str) -> Result<RawConfig, Problem> {
    toml::from_str(text).map_err(|error| problem(text, &error))
}

/// Whether a text has the shape of one function's settings.
///
/// # Errors
/// As of [`parse`].
pub fn check_function_shape(text: &str) -> Result<(), Problem> {
    toml::from_str::<RawFunction>(text).map(drop).map_err(|error| problem(text, &error))
}

fn problem(text: &str, error: &toml::de::Error) -> Problem {
    let start = error.span().map_or(0, |span| span.start).min(text.len());
    let before = text.get(..start).unwrap_or_default();
    let line = before.matches('\n').count();
    let shown = text.lines().nth(line).unwrap_or_default().trim().to_owned();
    let message = error.message();
    let (what, remedy) = if message.starts_with("duplicate key") {
        (
            "this name is there a second time".to_owned(),
            "keep one of the two; every setting, and every table such as [tenant.NAME.function.NAME], is written once",
        )
    } else if message.starts_with("unknown field") {
        (message.replacen("unknown field", "unknown setting", 1), "correct the name or remove the line")
    } else {
        (message.replace('\n', ", "), "correct the line")
    };
    Problem::new(format!("line {}", line + 1), Some(format!("`{shown}`")), what, remedy)
}
