//! Control groups: where the limits are, and the only code that knows a path below /sys/fs/cgroup.
//!
//! ```text
//! <own group>/sublet-<instance>/
//!   supervisor/                supervisor and nursery
//!   pool/                      limits of the host section
//!     t-<tenant>/              limits of the tenant
//!       s-<hash of sub-tenant>/
//!         w-<worker>/          limits of one worker
//! ```
//! On a pure v2 host one tree does everything. On a hybrid host the v2 tree keeps membership, freezing and killing, and
//! trees of the same shape in the v1 hierarchies carry the limits. [`host`] finds out which; [`tree`] makes, changes
//! and removes groups, each with its [`owner`], in directories that it has a [`claim`] on; [`leaf`] is one worker's; [`limits`] says how each limit is written; [`oom`]
//! and [`bite`] tell whose limit it was; [`counters`] what was used; [`drift`] what somebody else has changed.

pub mod bite;
pub mod claim;
pub mod counters;
mod directory;
pub mod drift;
pub mod host;
pub mod leaf;
pub mod left_over;
pub mod limits;
pub mod oom;
pub mod owner;
pub mod reading;
pub mod shown;
pub mod tree;

use std::{io, path::Path};

use crate::orphan::Orphan;

/// Something about a control group failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// This host does not offer what is needed.
    #[error("{missing}; {remedy}")]
    Unsupported {
        /// What is not there.
        missing: String,
        /// What to do.
        remedy: String,
    },
    /// A file or directory operation.
    #[error("{action} {path}: {error}{}", remedy.as_deref().map(|r| format!("; {r}")).unwrap_or_default())]
    Os {
        /// What was tried, with the value when one was written.
        action: String,
        /// On which path.
        path: String,
        /// Why it failed.
        error: io::Error,
        /// What to do, when we know.
        remedy: Option<String>,
    },
    /// Another supervisor has the directories of this instance.
    #[error(
        "another supervisor{} has the cgroup {path}; stop it, or write another host.instance and host.state_dir",
        pids(processes)
    )]
    Living {
        /// The directory.
        path: String,
        /// Processes in its supervisor group; 0 stands for one outside of our pid namespace.
        processes: Vec<u32>,
    },
    /// Another supervisor had them, and has left its nursery.
    #[error("the cgroup {path} is not free: {nursery}")]
    Orphaned {
        /// The directory.
        path: String,
        /// Who holds it.
        nursery: Orphan,
    },
    /// A memory limit below what is in use, and cannot be given back.
    #[error("{path}: {used} bytes are in use, above the new limit of {limit}")]
    Above {
        /// Which group.
        path: String,
        /// The new limit in bytes.
        limit: u64,
        /// In use, in bytes.
        used: u64,
    },
    /// Setting a limit through cgroups-rs.
    #[error("set {setting} of {path}: {error}")]
    Limit {
        /// Which limit.
        setting: &'static str,
        /// Of which group.
        path: String,
        /// Why it failed.
        error: cgroups_rs::error::Error,
    },
}

impl CgroupError {
    fn os(action: impl Into<String>, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let (action, path) = (action.into(), path.display().to_string());
        move |error| Self::Os { action, path, error, remedy: None }
    }
}

fn pids(processes: &[u32]) -> String {
    let pids: Vec<String> = processes.iter().map(u32::to_string).collect();
    if pids.is_empty() { String::new() } else { format!(" (pid {})", pids.join(", ")) }
}

fn write(path: &Path, value: &str) -> Result<(), CgroupError> {
    std::fs::write(path, value).map_err(CgroupError::os(format!("write {value:?} to"), path))
}
