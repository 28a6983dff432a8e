//! Paths of control groups below the pool's.
//!
//! ```text
//!  ""            t-acme        t-acme/s-0f        t-acme/s-0f/w-17
//!  the pool's    a tenant's    a sub-tenant's     a worker's
//! ```

use std::{fmt, iter, path::Path};

use crate::level::Level;

/// What the name of a tenant's group begins with.
pub const TENANT_PREFIX: &str = "t-";
/// What the name of a sub-tenant's group begins with, and that of a cell's.
pub const SUB_TENANT_PREFIX: &str = "s-";
/// What the name of a worker's group begins with.
pub const WORKER_PREFIX: &str = "w-";
/// Prefixes by depth.
const PREFIXES: [&str; 3] = [TENANT_PREFIX, SUB_TENANT_PREFIX, WORKER_PREFIX];
/// Longest name of a group after its prefix, in bytes.
const NAME_MAX_BYTES: usize = 80;

/// Path of a group, relative to the pool's. Each component is plain, so that joined to a directory it stays below it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupPath(String);

/// A text that is no path of a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cgroup {0:?} is not of the form t-…/s-…/w-…")]
pub struct NoGroup(pub String);

impl TryFrom<&str> for GroupPath {
    type Error = NoGroup;

    fn try_from(text: &str) -> Result<Self, NoGroup> {
        let is_plain = |name: &str, prefix: &str| {
            name.strip_prefix(prefix).is_some_and(|rest| {
                !rest.is_empty()
                    && rest.len() <= NAME_MAX_BYTES
                    && rest.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
            })
        };
        let names: Vec<&str> = if text.is_empty() { Vec::new() } else { text.split('/').collect() };
        let is_path = names.len() <= PREFIXES.len() && names.iter().zip(PREFIXES).all(|(name, p)| is_plain(name, p));
        if is_path { Ok(Self(text.to_owned())) } else { Err(NoGroup(text.to_owned())) }
    }
}

impl GroupPath {
    /// The pool's own group, which has the empty path.
    pub fn pool() -> &'static Self {
        static POOL: GroupPath = GroupPath(String::new());
        &POOL
    }

    /// The group of this name in this one.
    ///
    /// # Errors
    /// When the name is not one of the level below, or there is no level below.
    pub fn child(&self, name: &str) -> Result<Self, NoGroup> {
        let path = if self.is_pool() { name.to_owned() } else { format!("{self}/{name}") };
        Self::try_from(path.as_str())
    }

    /// Whether it is the pool's own.
    pub const fn is_pool(&self) -> bool {
        self.0.is_empty()
    }

    /// Whose group it is.
    pub fn level(&self) -> Level {
        match self.0.bytes().filter(|b| *b == b'/').count() {
            0 if self.is_pool() => Level::Host,
            0 => Level::Tenant,
            1 => Level::SubTenant,
            // There is none below.
            _ => Level::Worker,
        }
    }

    /// The group that it is in; none of the pool's own.
    pub fn parent(&self) -> Option<Self> {
        match self.0.rsplit_once('/') {
            Some((parent, _)) => Some(Self(parent.to_owned())),
            None if self.is_pool() => None,
            None => Some(Self::pool().clone()),
        }
    }

    /// This group and those it is in, the pool's last.
    pub fn upwards(&self) -> impl Iterator<Item = Self> {
        iter::successors(Some(self.clone()), Self::parent)
    }

    /// Its own name, without those of the groups it is in; empty for the pool's.
    pub fn name(&self) -> &str {
        self.0.rsplit_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// The path as it stands below the directory of the pool.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Where it is below the pool's directory of one hierarchy.
    pub fn below(&self, pool: &Path) -> std::path::PathBuf {
        // Joining nothing would add a slash at the end.
        if self.is_pool() { pool.to_owned() } else { pool.join(&self.0) }
    }
}

impl fmt::Display for GroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> GroupPath {
        GroupPath::try_from(text).expect(text)
    }

    #[test]
    fn level_and_parent_follow_from_the_path() {
        let up: Vec<(Level, String)> =
            path("t-acme/s-0f/w-17").upwards().map(|path| (path.level(), path.to_string())).collect();
        let expected = [
            (Level::Worker, "t-acme/s-0f/w-17"),
            (Level::SubTenant, "t-acme/s-0f"),
            (Level::Tenant, "t-acme"),
            (Level::Host, ""),
        ];
        assert_eq!(up, expected.map(|(level, text)| (level, text.to_owned())));
        assert_eq!(path("t-acme/s-0f").name(), "s-0f");
        assert_eq!((path("").name(), GroupPath::pool().parent()), ("", None));
    }

    #[test]
    fn only_plain_names_of_the_right_level_make_a_path() {
        assert_eq!(path("t-a").child("s-b"), Ok(path("t-a/s-b")));
        assert_eq!(GroupPath::pool().child("t-a"), Ok(path("t-a")));
        assert!(path("t-a/s-b/w-1").child("w-2").is_err(), "there is no level below a worker's");
        let long = format!("t-{}", "a".repeat(NAME_MAX_BYTES + 1));
        for text in ["/", "t-", "s-a", "t-a/w-1", "t-a/", "/t-a", "t-a/../w-c", "t-A", "t-a/s-b/w-c/x", "t-a.b", &long]
        {
            assert!(GroupPath::try_from(text).is_err(), "{text:?}");
        }
        assert!(GroupPath::try_from(&long[..long.len() - 1]).is_ok());
    }

    #[test]
    fn a_group_is_below_the_directory_of_its_pool() {
        assert_eq!(path("t-a/s-b").below(Path::new("/sys/pool")), Path::new("/sys/pool/t-a/s-b"));
        assert_eq!(path("").below(Path::new("/sys/pool")).as_os_str(), "/sys/pool");
    }
}
