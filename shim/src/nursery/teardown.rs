//! The end: nothing of this supervisor's run stays on the host.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};
use sublet_proto::link::sandbox::{CGROUP_POOL, CGROUP_RUNNER, CgroupDirs};

use crate::cgroups;

/// How long children that were killed may take to end. One that somebody has moved out of the pool was not killed, and one
/// that waits for a broken disk does not end; neither may hold everything else up.
const REAP_TIMEOUT: Duration = Duration::from_secs(5);
const REAP_INTERVAL: Duration = Duration::from_millis(1);

/// Takes in every child that has ended, until there is none any more; `ended` is told of each. False when the time is over
/// before that.
fn reap_all(patience: Duration, mut ended: impl FnMut(Pid)) -> bool {
    let end = Instant::now() + patience;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) if Instant::now() >= end => return false,
            Ok(WaitStatus::StillAlive) => sleep(REAP_INTERVAL),
            Ok(status) => status.pid().into_iter().for_each(&mut ended),
            Err(Errno::EINTR) => {}
            // ECHILD: nobody is left.
            Err(_) => return true,
        }
    }
}

/// Kills everything in the pool and in the runner's group, reaps it, gives supervisor and nursery back to where they came from and removes every
/// cgroup, however many of them have been made. `leaves` are the groups of sandboxes, in the pool, by their init. Returns
/// what would not go.
pub(super) fn remove_groups(dirs: &CgroupDirs, leaves: &BTreeMap<Pid, &str>) -> Vec<String> {
    let mut left = Vec::new();
    let unified = Path::new(&dirs.unified);
    let pool = unified.join(CGROUP_POOL);
    let runner = unified.join(CGROUP_RUNNER);
    for dir in [&pool, &runner] {
        if let Err(error) = cgroups::kill(dir) {
            left.push(format!("kill {}: {error}", dir.display()));
        }
    }
    // Zombies hold their cgroup; all killed processes are our children or theirs. When an init is reaped its whole sandbox is
    // gone, and its groups can go while others still end.
    let reaped = reap_all(REAP_TIMEOUT, |pid| {
        let Some(leaf) = leaves.get(&pid) else { return };
        for dir in dirs.v1.iter().chain([&dirs.unified]) {
            // One that would not go is found below, when all have ended.
            fs::remove_dir(Path::new(dir).join(CGROUP_POOL).join(leaf)).ok();
        }
    });
    if !reaped {
        // Ended by the end of this process, which is what they die with; but it is told.
        left.push("processes that are no longer in their group, or that the kernel cannot end".into());
    }
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
    left
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    // No other test of this crate has children: all of this process's are waited for.
    #[expect(clippy::zombie_processes, reason = "reap_all waits for it, which is what is tested")]
    #[test]
    fn child_that_does_not_end_holds_nothing_up_and_one_that_has_is_taken_in() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let begin = Instant::now();
        assert!(!reap_all(Duration::from_millis(50), |pid| panic!("{pid} has ended")));
        assert!(begin.elapsed() < Duration::from_secs(5));
        child.kill().unwrap();
        let mut ended = Vec::new();
        assert!(reap_all(Duration::from_secs(5), |pid| ended.push(pid.as_raw())));
        assert_eq!(ended, [child.id().cast_signed()]);
        let is_there = fs::exists(format!("/proc/{}", child.id())).unwrap();
        assert!(!is_there, "its zombie is left");
    }
}
