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

/// A table: settings that are one value each and may be absent, and the tables in it. By name too, for whoever changes one
/// setting of a configuration that was read.
macro_rules! table {
    ($(#[$attribute:meta])* $name:ident { $($(#[$of:meta])* $key:ident,)* } { $($(#[$of_rest:meta])* $rest:ident: $type:ty,)* }) => {
        $(#[$attribute])*
        pub struct $name {
            $($(#[$of])* pub $key: Maybe,)*
            $($(#[$of_rest])* pub $rest: $type,)*
        }

        impl $name {
            /// Every key of the table, in the order above.
            #[cfg(test)]
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key),)* $(stringify!($rest),)*];

            /// One setting; none when there is none of the name.
            pub fn slot(&mut self, key: &str) -> Option<&mut Maybe> {
                match key {
                    $(stringify!($key) => Some(&mut self.$key),)*
                    _ => None,
                }
            }
        }
    };
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table of host and tenant")]
pub struct RawConfig {
    #[serde(default)]
    pub host: RawHost,
    #[serde(default)]
    pub tenant: BTreeMap<String, RawTenant>,
}

table! {
    #[derive(Clone, Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, expecting = "a table: [host]")]
    RawHost {
        state_dir,
        socket,
        admin_socket,
        socket_mode,
        socket_gid,
        listen,
        instance,
        cgroup_parent,
        uid_base,
        uid_count,
        supervisor_uid,
        workers_max,
        calls_in_flight_max,
        calls_waiting_max,
        cells_memory_max,
        starts_max,
        connections_max,
        threads,
        busy_poll,
        forbid_store_bypass,
        log,
        log_dir,
        log_file_size,
        log_files,
        log_memory,
        memory_max,
        cpu_quota,
        pids_max,
    } {
        #[serde(default)]
        accept_degraded: Vec<Scalar>,
    }
}

table! {
    #[derive(Clone, Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, expecting = "a table: [tenant.NAME]")]
    RawTenant {
        workers_max,
        calls_in_flight_max,
        rate,
        rate_burst,
        weight,
        memory_max,
        memory_high,
        memory_min,
        cpu_quota,
        cpu_period,
        cpu_burst,
        cpu_weight,
        pids_max,
    } {
        #[serde(default)]
        sub_tenant: RawSubTenant,
        #[serde(default)]
        class: BTreeMap<String, RawSubTenant>,
        #[serde(default)]
        id: BTreeMap<String, RawSubTenant>,
        #[serde(default)]
        function: BTreeMap<String, RawFunction>,
    }
}

table! {
    /// What every sub-tenant gets, what those of one class get, or what one id gets.
    #[derive(Clone, Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, expecting = "a table: [tenant.NAME.sub_tenant], [tenant.NAME.class.NAME] or [tenant.NAME.id.LABEL]")]
    RawSubTenant {
        class,
        workers_max,
        calls_in_flight_max,
        queue_max,
        rate,
        rate_burst,
        weight,
        memory_max,
        memory_high,
        memory_min,
        cpu_quota,
        cpu_period,
        cpu_burst,
        cpu_weight,
        pids_max,
    } {}
}

table! {
    /// Serialised too: its canonical form is what the revision is made of, so that no setting can be left out of that by
    /// mistake. Left out on purpose are those that are changed live: what is done with a worker, and what its group's files
    /// say.
    #[derive(Clone, Debug, Default, Deserialize, Serialize)]
    #[serde(deny_unknown_fields, expecting = "a table: [tenant.NAME.function.NAME]")]
    RawFunction {
        runtime,
        handler,
        isolation,
        layout,
        root,
        dir,
        #[serde(skip_serializing)]
        memory_max,
        #[serde(skip_serializing)]
        memory_high,
        #[serde(skip_serializing)]
        cpu_quota,
        #[serde(skip_serializing)]
        cpu_period,
        #[serde(skip_serializing)]
        cpu_burst,
        #[serde(skip_serializing)]
        cpu_weight,
        #[serde(skip_serializing)]
        pids_max,
        tmp_size,
        tmp_inodes,
        nofile,
        stack,
        #[serde(skip_serializing)]
        timeout,
        #[serde(skip_serializing)]
        start_timeout,
        #[serde(skip_serializing)]
        idle_ttl,
        #[serde(skip_serializing)]
        age_max,
        #[serde(skip_serializing)]
        calls_max,
        #[serde(skip_serializing)]
        freeze_after,
        #[serde(skip_serializing)]
        workers_max,
        #[serde(skip_serializing)]
        workers_per_sub_tenant_max,
        #[serde(skip_serializing)]
        queue_max,
        #[serde(skip_serializing)]
        calls_in_flight_max,
        #[serde(skip_serializing)]
        cells_max,
        #[serde(skip_serializing)]
        workers_min,
        #[serde(skip_serializing)]
        idempotent,
        payload_max,
        answer_max,
        #[serde(skip_serializing)]
        stream_max,
        log_max,
        log_rate,
        report_lines,
        on_refused_syscall,
    } {
        command: Option<Vec<Scalar>>,
        #[serde(default)]
        env: BTreeMap<String, Scalar>,
        token: Option<RawToken>,
        /// Labels with the number of workers that are kept warm for each.
        #[serde(default, skip_serializing)]
        warm: BTreeMap<String, Scalar>,
    }
}

table! {
    /// Part of the revision as well: what a worker's token says does not change under it, only the key that signs it may.
    #[derive(Clone, Debug, Default, Deserialize, Serialize)]
    #[serde(deny_unknown_fields, expecting = "a table: [tenant.NAME.function.NAME.token]")]
    RawToken {
        provider,
        dir,
        key,
        key_id,
        issuer,
        audience,
        ttl,
        timeout,
    } {
        command: Option<Vec<Scalar>>,
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
