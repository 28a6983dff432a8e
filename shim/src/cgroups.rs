//! Ending a cgroup subtree: kill all in it, wait until it is empty, remove it. Used by the nursery when it ends and by
//! the supervisor when it finds what an earlier run left. Directories come from the caller; nothing here knows a path.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// How long a subtree may take to become empty. The kernel kills at once; exits of large processes take a while.
const EMPTY_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(1);

/// Kills everything below a v2 directory, frozen or not.
///
/// # Errors
/// What the write says, but for a directory that is not there.
pub fn kill(dir: &Path) -> io::Result<()> {
    match fs::write(dir.join("cgroup.kill"), "1") {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !dir.exists() => Ok(()),
        result => result,
    }
}

/// Whether a v2 directory has a living process in it or below; a directory that is gone has none.
///
/// # Errors
/// What reading cgroup.events says.
pub fn is_populated(dir: &Path) -> io::Result<bool> {
    match fs::read_to_string(dir.join("cgroup.events")) {
        Ok(events) => Ok(events.lines().any(|line| line == "populated 1")),
        Err(error) if gone(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

/// Waits until a v2 directory has no living process in it or below. True when it is empty.
pub fn wait_empty(dir: &Path) -> bool {
    let end = Instant::now() + EMPTY_TIMEOUT;
    while is_populated(dir).unwrap_or(true) {
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(POLL_INTERVAL);
    }
    true
}

/// Removes a cgroup directory and all below it, deepest first, trying again while the kernel still calls it busy.
/// Returns the directories that would not go, each with the reason.
pub fn remove_tree(dir: &Path) -> Vec<String> {
    let end = Instant::now() + EMPTY_TIMEOUT;
    loop {
        let mut left = Vec::new();
        remove_once(dir, &mut left);
        if left.is_empty() || Instant::now() >= end {
            return left;
        }
        thread::sleep(POLL_INTERVAL);
    }
}

/// Tries once, without waiting. True when all of it is gone.
pub fn try_to_remove_tree(dir: &Path) -> bool {
    let mut left = Vec::new();
    remove_once(dir, &mut left);
    left.is_empty()
}

fn remove_once(dir: &Path, left: &mut Vec<String>) {
    for child in children(dir) {
        remove_once(&child, left);
    }
    match fs::remove_dir(dir) {
        Ok(()) => {}
        Err(error) if gone(&error) => {}
        Err(error) => left.push(format!("{}: {error}", dir.display())),
    }
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// Moves every process of `dir` to `target`; both are directories of one hierarchy.
///
/// # Errors
/// The first write that fails, but for processes that are gone.
pub fn move_processes(dir: &Path, target: &Path) -> io::Result<()> {
    let procs = match fs::read_to_string(dir.join("cgroup.procs")) {
        Err(error) if gone(&error) => return Ok(()),
        result => result?,
    };
    for pid in procs.lines() {
        match fs::write(target.join("cgroup.procs"), pid) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            result => result?,
        }
    }
    Ok(())
}
