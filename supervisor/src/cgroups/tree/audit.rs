//! Whether the groups are what they were made: somebody else on the host may remove, freeze or change them. What can be put
//! right is; what cannot is named.

use std::{fmt, fs, path::Path, sync::PoisonError};

use sublet_proto::link::group::GroupPath;

use super::Tree;
use crate::cgroups::{drift, limits::Limits, owner::Owner};

/// What somebody else did to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meddling {
    /// A file holds something else than it was told.
    Limit {
        /// Name of the file in the group, such as memory.max.
        file: &'static str,
        /// What it held.
        found: String,
        /// What it was told.
        expected: String,
    },
    /// A directory is gone.
    Removed {
        /// Path of the directory.
        dir: String,
    },
    /// It was frozen.
    Frozen,
    /// It was let run while it was to be frozen.
    Thawed,
}

/// What was found of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Its path below the pool.
    pub path: GroupPath,
    /// What was done to it.
    pub what: Meddling,
    /// Why it is still so; none: it has been put right.
    pub left: Option<String>,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_pool() { "the pool" } else { self.path.as_str() };
        match &self.what {
            Meddling::Limit { file, found, expected } => {
                write!(f, "{path}: somebody else has set {file} to {found:?}, which was {expected:?}")
            }
            Meddling::Removed { dir } => write!(f, "{path}: somebody else has removed {dir}"),
            Meddling::Frozen => write!(f, "{path}: somebody else has frozen it"),
            Meddling::Thawed => write!(f, "{path}: somebody else has thawed it"),
        }?;
        match &self.left {
            None => f.write_str("; put right"),
            Some(left) => write!(f, "; it is still so: {left}"),
        }
    }
}

/// What stands in the way of every worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolTrouble {
    /// The pool's group is gone.
    Removed,
    /// It is frozen, or the group it is in.
    Frozen,
}

impl Tree {
    /// Looks at limits and directories of a group.
    pub fn audit(&self, path: &GroupPath) -> Vec<Finding> {
        // Nobody makes or removes a level meanwhile, and nobody writes a limit.
        let _shape = self.shape.lock().unwrap_or_else(PoisonError::into_inner);
        let _writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let (limits, is_leaf) = match self.group(path) {
            Some(group) => (group.limits, matches!(group.owner, Owner::Worker { .. })),
            None if path.is_pool() => (self.pool_limits(), false),
            None => return Vec::new(),
        };
        let mut findings = self.audit_directories(path, &limits, is_leaf);
        if findings.iter().any(|finding| finding.left.is_some()) {
            return findings;
        }
        let directories = self.directories_of(path);
        let drifts = drift::find(&directories, &limits, is_leaf);
        if drifts.is_empty() {
            return findings;
        }
        let refused = drift::mend(&directories, &limits, is_leaf, &drifts).err().map(|error| error.to_string());
        let still = drift::find(&directories, &limits, is_leaf);
        // Taken off the list meanwhile: it is being removed.
        if !path.is_pool() && self.group(path).is_none() {
            return Vec::new();
        }
        for drift in drifts {
            let is_still = still.iter().any(|other| other.file == drift.file);
            let left = is_still.then(|| refused.clone().unwrap_or_else(|| "the kernel does not take it".to_owned()));
            let what = Meddling::Limit { file: drift.file, found: drift.found, expected: drift.expected };
            findings.push(Finding { path: path.clone(), what, left });
        }
        findings
    }

    fn audit_directories(&self, path: &GroupPath, limits: &Limits, is_leaf: bool) -> Vec<Finding> {
        let missing: Vec<_> = self.directories(path).into_iter().filter(|dir| !dir.exists()).collect();
        if missing.is_empty() {
            return Vec::new();
        }
        let left = match (path.is_pool(), is_leaf) {
            (true, _) => Some("only root can make it; restart sublet".to_owned()),
            // Its processes are elsewhere by now, without its limits.
            (false, true) => Some("its worker is ended".to_owned()),
            (false, false) => self.make_level(path, limits).err().map(|error| error.to_string()),
        };
        // Taken off the list meanwhile: it is being removed.
        if !path.is_pool() && self.group(path).is_none() {
            return Vec::new();
        }
        let finding = |dir: &std::path::PathBuf| Finding {
            path: path.clone(),
            what: Meddling::Removed { dir: dir.display().to_string() },
            left: left.clone(),
        };
        missing.iter().map(finding).collect()
    }

    /// Lets a level run that somebody else has frozen.
    pub fn audit_freeze(&self, path: &GroupPath) -> Option<Finding> {
        let file = self.unified(path).join("cgroup.freeze");
        if !is_one(&file) {
            return None;
        }
        let left = match path.is_pool() {
            true => Some(format!("only root can thaw it: echo 0 > {}", file.display())),
            false => fs::write(&file, "0").err().map(|error| error.to_string()),
        };
        Some(Finding { path: path.clone(), what: Meddling::Frozen, left })
    }

    /// The groups from a worker's up that somebody has frozen, as paths of the host.
    pub fn frozen_from(&self, leaf: &GroupPath) -> Option<String> {
        let own = self.unified(leaf);
        let top = Path::new(&self.dirs.unified).parent();
        let mut groups = own.ancestors().take_while(|dir| Some(*dir) != top);
        groups.find(|dir| is_one(&dir.join("cgroup.freeze"))).map(|dir| dir.display().to_string())
    }

    /// What stands in the way of every worker.
    pub fn pool_trouble(&self) -> Option<PoolTrouble> {
        if self.directories(GroupPath::pool()).iter().any(|dir| !dir.exists()) {
            return Some(PoolTrouble::Removed);
        }
        let is_frozen = [self.unified(GroupPath::pool()), self.dirs.unified.clone().into()]
            .iter()
            .any(|dir| is_one(&dir.join("cgroup.freeze")));
        is_frozen.then_some(PoolTrouble::Frozen)
    }
}

fn is_one(file: &Path) -> bool {
    fs::read_to_string(file).is_ok_and(|text| text.trim() == "1")
}
