//! The end: nothing of this supervisor's run stays on the host.

use std::{fs, os::unix::fs::FileTypeExt, path::Path};

use nix::sys::wait::waitpid;
use sublet_proto::link::sandbox::{CGROUP_POOL, CGROUP_RUNNER, NurseryConfig};

use crate::cgroups;

/// Kills everything in the pool and in the runner's group, reaps it, gives supervisor and nursery back to where they came from and removes every
/// cgroup and the sockets. Returns what would not go.
pub fn remove(config: &NurseryConfig) -> Vec<String> {
    let dirs = &config.cgroups;
    let mut left = Vec::new();
    let unified = Path::new(&dirs.unified);
    let pool = unified.join(CGROUP_POOL);
    let runner = unified.join(CGROUP_RUNNER);
    for dir in [&pool, &runner] {
        if let Err(error) = cgroups::kill(dir) {
            left.push(format!("kill {}: {error}", dir.display()));
        }
    }
    // Zombies hold their cgroup; all killed processes are our children or theirs.
    while waitpid(None, None).is_ok() {}
    for dir in [&pool, &runner] {
        if !cgroups::wait_empty(dir) {
            left.push(format!("{} still has processes", dir.display()));
        }
    }
    // From the inside out; one that still needs them keeps them, and then the way back is closed and told below.
    for dir in [unified, Path::new(&dirs.unified_parent)] {
        let lines: Vec<String> = dirs.enabled.iter().map(|name| format!("-{name}")).collect();
        if !lines.is_empty() {
            left.extend(cgroups::remove_tree(&pool));
            left.extend(cgroups::remove_tree(&runner));
            fs::write(dir.join("cgroup.subtree_control"), lines.join(" ")).ok();
        }
    }
    for (own, origin) in dirs.supervisor_groups() {
        if let Err(error) = cgroups::move_processes(&own, &origin) {
            left.push(format!("leave {}: {error}", own.display()));
        }
    }
    for dir in dirs.v1.iter().map(Path::new).chain([unified]) {
        left.extend(cgroups::remove_tree(dir));
    }
    for path in &config.remove_at_end {
        // A socket and nothing else: whatever took its place since is not ours.
        if fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
            && let Err(error) = fs::remove_file(path)
        {
            left.push(format!("{path}: {error}"));
        }
    }
    left
}
