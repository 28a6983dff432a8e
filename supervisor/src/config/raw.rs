//! The configuration as written: the shape of the text is checked here, its values are not.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, de};

use super::problem::Problem;

/// One value as written. Which kind it must be is said where it is checked, by name, together with all else.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Scalar {
    /// A quoted text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// A number with a point.
    Float(f64),
    /// true or false.
    Bool(bool),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "{text:?}"),
            Self::Integer(number) => write!(f, "{number}"),
            Self::Float(number) => write!(f, "{number:?}"),
            Self::Bool(value) => write!(f, "{value}"),
        }
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not serde's untagged: its error for a table or a list says nothing an operator can use.
        struct ScalarVisitor;
        impl de::Visitor<'_> for ScalarVisitor {
            type Value = Scalar;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a single text or number")
            }
            fn visit_str<E: de::Error>(self, value: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.to_owned()))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Integer(value))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar::Float(value))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Bool(value))
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

/// A setting that may be absent.
pub type Maybe = Option<Scalar>;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of host and tenant")]
pub struct RawConfig {
    #[serde(default)]
    pub host: RawHost,
    #[serde(default)]
    pub tenant: BTreeMap<String, RawTenant>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table: [host]")]
pub struct RawHost {
    pub state_dir: Maybe,
    pub socket: Maybe,
    pub admin_socket: Maybe,
    pub socket_mode: Maybe,
    pub socket_gid: Maybe,
    pub listen: Maybe,
    pub instance: Maybe,
    pub cgroup_parent: Maybe,
    pub uid_base: Maybe,
    pub uid_count: Maybe,
    pub supervisor_uid: Maybe,
    pub workers_max: Maybe,
    pub calls_in_flight_max: Maybe,
    pub calls_waiting_max: Maybe,
    pub cells_memory_max: Maybe,
    pub starts_max: Maybe,
    pub connections_max: Maybe,
    pub memory_max: Maybe,
    pub pids_max: Maybe,
    #[serde(default)]
    pub accept_degraded: Vec<Scalar>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table: [tenant.NAME]")]
pub struct RawTenant {
    pub workers_max: Maybe,
    pub calls_in_flight_max: Maybe,
    pub rate: Maybe,
    pub rate_burst: Maybe,
    pub weight: Maybe,
    pub memory_max: Maybe,
    pub cpu_quota: Maybe,
    pub cpu_weight: Maybe,
    pub pids_max: Maybe,
    #[serde(default)]
    pub sub_tenant: RawSubTenant,
    #[serde(default)]
    pub function: BTreeMap<String, RawFunction>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table: [tenant.NAME.sub_tenant]")]
pub struct RawSubTenant {
    pub workers_max: Maybe,
    pub calls_in_flight_max: Maybe,
    pub rate: Maybe,
    pub rate_burst: Maybe,
    pub weight: Maybe,
    pub memory_max: Maybe,
    pub cpu_quota: Maybe,
    pub cpu_weight: Maybe,
    pub pids_max: Maybe,
}

/// Serialised too: its canonical form is what the revision is made of, so that no setting can be left out of that by
/// mistake. Left out on purpose are those that concern no worker that runs, only what is done with it: they are changed
/// live.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, expecting = "a table: [tenant.NAME.function.NAME]")]
pub struct RawFunction {
    pub runtime: Maybe,
    pub isolation: Maybe,
    pub layout: Maybe,
    pub root: Maybe,
    pub dir: Maybe,
    pub command: Option<Vec<Scalar>>,
    pub memory_max: Maybe,
    pub cpu_quota: Maybe,
    pub cpu_weight: Maybe,
    pub pids_max: Maybe,
    pub tmp_size: Maybe,
    pub tmp_inodes: Maybe,
    pub nofile: Maybe,
    pub stack: Maybe,
    #[serde(skip_serializing)]
    pub timeout: Maybe,
    #[serde(skip_serializing)]
    pub start_timeout: Maybe,
    #[serde(skip_serializing)]
    pub idle_ttl: Maybe,
    #[serde(skip_serializing)]
    pub age_max: Maybe,
    #[serde(skip_serializing)]
    pub calls_max: Maybe,
    #[serde(skip_serializing)]
    pub freeze_after: Maybe,
    #[serde(skip_serializing)]
    pub workers_max: Maybe,
    #[serde(skip_serializing)]
    pub workers_per_sub_tenant_max: Maybe,
    #[serde(skip_serializing)]
    pub queue_max: Maybe,
    #[serde(skip_serializing)]
    pub calls_in_flight_max: Maybe,
    #[serde(skip_serializing)]
    pub cells_max: Maybe,
    #[serde(skip_serializing)]
    pub workers_min: Maybe,
    #[serde(skip_serializing)]
    pub idempotent: Maybe,
    pub payload_max: Maybe,
    pub answer_max: Maybe,
    pub log_max: Maybe,
    pub on_refused_syscall: Maybe,
    #[serde(default)]
    pub env: BTreeMap<String, Scalar>,
    /// Labels with the number of workers that are kept warm for each.
    #[serde(default, skip_serializing)]
    pub warm: BTreeMap<String, Scalar>,
}

/// Reads the shape.
///
/// # Errors
/// The first syntax error, unknown key, duplicate or value that is not a scalar, with its line.
pub fn parse(text: &str) -> Result<RawConfig, Problem> {
    toml::from_str(text).map_err(|error| {
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
    })
}
