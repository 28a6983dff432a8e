//! Where a limit comes from: the levels by their paths, and the tables that speak for each, nearest first.

use std::fmt;

use sublet_pool::SubTenant;

use super::{
    name::Name,
    settings::{Initial, Row},
    types::{Config, RawSubTenant},
};

/// A level, as operators write it: `host`, `tenant/acme`, `tenant/acme/sub_tenant`, `tenant/acme/class/gold`,
/// `tenant/acme/id/customer-1`, `tenant/acme/function/resize`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LevelPath {
    /// All workers.
    Host,
    /// One tenant.
    Tenant(Name),
    /// Every sub-tenant that has no table of its own.
    SubTenants(Name),
    /// Those of a class.
    Class(Name, Name),
    /// One sub-tenant, by label.
    Id(Name, String),
    /// Each worker of one function.
    Function(Name, Name),
}

/// A path that names no level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no level; write host, tenant/T, tenant/T/sub_tenant, tenant/T/class/C, tenant/T/id/LABEL or \
     tenant/T/function/F"
)]
pub struct NoLevel(String);

impl TryFrom<&str> for LevelPath {
    type Error = NoLevel;

    fn try_from(text: &str) -> Result<Self, NoLevel> {
        let none = || NoLevel(text.chars().take(80).collect());
        let name = |text: &str| Name::try_from(text).map_err(|_| none());
        // A label may have slashes of its own.
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        match parts.as_slice() {
            ["host"] => Ok(Self::Host),
            ["tenant", tenant] => Ok(Self::Tenant(name(tenant)?)),
            ["tenant", tenant, "sub_tenant"] => Ok(Self::SubTenants(name(tenant)?)),
            ["tenant", tenant, "class", class] => Ok(Self::Class(name(tenant)?, name(class)?)),
            ["tenant", tenant, "function", function] => Ok(Self::Function(name(tenant)?, name(function)?)),
            ["tenant", tenant, "id", label] => match SubTenant::try_from(*label) {
                Ok(_) => Ok(Self::Id(name(tenant)?, (*label).to_owned())),
                Err(_) => Err(none()),
            },
            _ => Err(none()),
        }
    }
}

impl fmt::Display for LevelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host => f.write_str("host"),
            Self::Tenant(tenant) => write!(f, "tenant/{tenant}"),
            Self::SubTenants(tenant) => write!(f, "tenant/{tenant}/sub_tenant"),
            Self::Class(tenant, class) => write!(f, "tenant/{tenant}/class/{class}"),
            Self::Id(tenant, label) => write!(f, "tenant/{tenant}/id/{label}"),
            Self::Function(tenant, function) => write!(f, "tenant/{tenant}/function/{function}"),
        }
    }
}

impl LevelPath {
    /// Its table's name in the configuration.
    pub fn table(&self) -> String {
        match self {
            Self::Host => "host".to_owned(),
            Self::Tenant(tenant) => format!("tenant.{tenant}"),
            Self::SubTenants(tenant) => format!("tenant.{tenant}.sub_tenant"),
            Self::Class(tenant, class) => format!("tenant.{tenant}.class.{class}"),
            Self::Id(tenant, label) => format!("tenant.{tenant}.id.{}", quoted(label)),
            Self::Function(tenant, function) => format!("tenant.{tenant}.function.{function}"),
        }
    }

    /// Its tenant; none: the host.
    pub fn tenant(&self) -> Option<&Name> {
        match self {
            Self::Host => None,
            Self::Tenant(tenant)
            | Self::SubTenants(tenant)
            | Self::Class(tenant, _)
            | Self::Id(tenant, _)
            | Self::Function(tenant, _) => Some(tenant),
        }
    }
}

/// As TOML has a key.
fn quoted(label: &str) -> String {
    let is_bare = !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if is_bare { label.to_owned() } else { format!("{label:?}") }
}

impl Config {
    /// The levels whose tables speak for `path`, nearest first.
    fn tables(&self, path: &LevelPath, key: &str) -> Vec<LevelPath> {
        let mut tables = vec![path.clone()];
        if let LevelPath::Id(tenant, label) = path {
            let class = self.tenants.get(tenant).and_then(|t| t.ids.get(label)?.class.clone());
            tables.extend(class.map(|class| LevelPath::Class(tenant.clone(), class)));
        }
        if let LevelPath::Id(tenant, _) | LevelPath::Class(tenant, _) = path {
            tables.push(LevelPath::SubTenants(tenant.clone()));
        }
        let is_inherited = |row: &Row| row.key == key && matches!(row.initial, Initial::Inherited(_));
        if RawSubTenant::rows().iter().any(is_inherited) {
            if !matches!(path, LevelPath::Tenant(_) | LevelPath::Host) {
                tables.extend(path.tenant().cloned().map(LevelPath::Tenant));
            }
            if *path != LevelPath::Host {
                tables.push(LevelPath::Host);
            }
        }
        tables
    }

    /// The level whose table has a setting that holds for `path`; none: it is a default.
    pub fn origin(&self, path: &LevelPath, key: &str) -> Option<LevelPath> {
        let is_written = |level: &LevelPath| self.written.contains(&format!("{}.{key}", level.table()));
        self.tables(path, key).into_iter().find(is_written)
    }

    /// Full name of the setting to change for `path`: the one that holds, or the one to add.
    pub fn setting(&self, path: &LevelPath, key: &str) -> String {
        let level = self.origin(path, key).unwrap_or_else(|| match path {
            // One label needs no table for what all may be given.
            LevelPath::Id(tenant, label) => {
                match self.tenants.get(tenant).and_then(|t| t.ids.get(label)?.class.clone()) {
                    Some(class) => LevelPath::Class(tenant.clone(), class),
                    None => LevelPath::SubTenants(tenant.clone()),
                }
            }
            other => other.clone(),
        });
        format!("{}.{key}", level.table())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const TEXT: &str = r#"
[host]
state_dir = "/var/lib/sublet"
workers_max = 50
[tenant.acme]
memory_max = "4GiB"
[tenant.acme.sub_tenant]
memory_max = "256MiB"
pids_max = 100
[tenant.acme.class.gold]
memory_max = "1GiB"
[tenant.acme.id."customer one"]
class = "gold"
pids_max = 7
"#;

    #[test]
    fn paths_are_read_and_printed_back() {
        for text in [
            "host",
            "tenant/acme",
            "tenant/acme/sub_tenant",
            "tenant/acme/class/gold",
            "tenant/acme/id/a/b c",
            "tenant/acme/function/resize",
        ] {
            assert_eq!(LevelPath::try_from(text).expect(text).to_string(), text);
        }
        for text in ["", "tenant", "tenant/", "tenant/acme/", "tenant/acme/id/", "tenant/acme/class", "host/x", "x"] {
            assert!(LevelPath::try_from(text).is_err(), "{text:?}");
        }
        assert!(LevelPath::try_from(format!("tenant/acme/id/{}", "a".repeat(257)).as_str()).is_err());
    }

    #[test]
    fn nearest_table_that_has_a_setting_is_its_origin() {
        let config = Config::parse(TEXT, Path::new("/etc")).expect("it is right");
        let path = |text: &str| LevelPath::try_from(text).expect(text);
        let of = |text: &str, key: &str| config.origin(&path(text), key).map(|level| level.to_string());
        let one = "tenant/acme/id/customer one";
        assert_eq!(of(one, "memory_max").as_deref(), Some("tenant/acme/class/gold"));
        assert_eq!(of(one, "pids_max").as_deref(), Some(one));
        assert_eq!(of("tenant/acme/id/never seen", "memory_max").as_deref(), Some("tenant/acme/sub_tenant"));
        assert_eq!(of("tenant/acme/class/gold", "pids_max").as_deref(), Some("tenant/acme/sub_tenant"));
        assert_eq!(of("tenant/acme/class/gold", "workers_max").as_deref(), Some("host"), "inherited");
        assert_eq!(of("tenant/acme", "pids_max"), None, "a limit of the level below is not its own");
        assert_eq!(config.setting(&path(one), "cpu_quota"), "tenant.acme.class.gold.cpu_quota");
        assert_eq!(config.setting(&path(one), "pids_max"), "tenant.acme.id.\"customer one\".pids_max");
        assert_eq!(config.setting(&path("tenant/acme/id/x"), "cpu_quota"), "tenant.acme.sub_tenant.cpu_quota");
    }
}
