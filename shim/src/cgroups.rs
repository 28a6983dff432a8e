//! Ending a cgroup subtree: kill all in it, wait until it is empty, remove it. Used by the nursery when it ends and by
//! the supervisor when it finds what an earlier run left. Directories come from the caller; nothing here knows a path.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};

use crate::directory;

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

/// A directory is listed only when it would not go: most are leaves, and to list one costs the kernel more than to remove it.
fn remove_once(dir: &Path, left: &mut Vec<String>) {
    let remove = || match fs::remove_dir(dir) {
        Err(error) if gone(&error) => Ok(()),
        result => result,
    };
    let Err(mut error) = remove() else { return };
    let children = children(dir);
    if !children.is_empty() {
        for child in children {
            remove_once(&child, left);
        }
        match remove() {
            Ok(()) => return,
            Err(again) => error = again,
        }
    }
    left.push(format!("{}: {error}", dir.display()));
}

fn children(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()).collect()
}

/// Removes a directory that its maker has locked and has put nothing into yet, unless somebody else holds it by now. One
/// that has something in it stays: it is not the maker's.
///
/// # Errors
/// What the kernel says, but for a directory that is gone, held or in use.
pub fn remove_unclaimed(dir: &Path) -> io::Result<()> {
    let file = match directory::open_directory(dir) {
        Ok(file) => fs::File::from(file),
        Err(Errno::ENOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let held = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => held,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(()),
        Err((_, error)) => return Err(error.into()),
    };
    // Nobody removes the one that we hold, so that what is there by the same name now is it, or never was.
    let remove = || {
        let (opened, found) = (held.metadata()?, fs::symlink_metadata(dir)?);
        if (opened.dev(), opened.ino()) == (found.dev(), found.ino()) { fs::remove_dir(dir) } else { Ok(()) }
    };
    match remove() {
        Err(error) if gone(&error) => Ok(()),
        Err(error) if matches!(error.raw_os_error(), Some(libc::EBUSY | libc::ENOTEMPTY)) => Ok(()),
        result => result,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_is_removed_from_the_inside_and_what_stays_is_told_once() {
        let top = std::env::temp_dir().join(format!("sublet-remove-{}", std::process::id()));
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        fs::create_dir_all(top.join("a/d")).unwrap();
        fs::create_dir_all(top.join("e")).unwrap();
        // Directories alone are removed, as in a file system of control groups: this one stays, and all above it.
        fs::write(top.join("a/b/file"), "").unwrap();
        assert!(!try_to_remove_tree(&top));
        assert!(!top.join("a/b/c").exists() && !top.join("a/d").exists() && !top.join("e").exists());
        let mut left = Vec::new();
        remove_once(&top, &mut left);
        let stays: Vec<String> = ["a/b", "a", ""].map(|path| format!("{}:", top.join(path).display())).into();
        assert_eq!(left.len(), stays.len(), "{left:?}");
        let tells = |(left, stays): (&String, &String)| left.starts_with(stays.trim_end_matches('/'));
        assert!(left.iter().zip(&stays).take(2).all(tells), "{left:?}");
        fs::remove_file(top.join("a/b/file")).unwrap();
        assert!(try_to_remove_tree(&top) && !top.exists());
        assert!(try_to_remove_tree(&top), "what is not there is as good as removed");
    }
}
