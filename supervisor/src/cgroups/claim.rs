//! The claim on an instance's directories: two living supervisors never share one.
//!
//! Each top directory (`sublet-<instance>`, one in every hierarchy) is locked with flock. The lock belongs to the open
//! file: the supervisor holds it, the nursery holds a copy until it has removed the directories, and the kernel drops it
//! with the last of them, however they end. A directory that is there without a lock was left by an earlier run, and is
//! removed, unless processes are in its supervisor group: those are a supervisor or a nursery that took no lock.
//!
//! Nothing is killed or removed before that is known.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind},
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use sublet_proto::link::sandbox::{CGROUP_POOL, CGROUP_RUNNER, CGROUP_SUPERVISOR};
use sublet_shim::cgroups::{kill, remove_tree, wait_empty};

use super::CgroupError;
use crate::orphan;

/// How long the nursery of a killed supervisor may take to clean up. Whoever still holds the directories then is alive.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

/// Locks on the directories of one instance.
#[derive(Debug)]
pub struct Claim(Vec<OwnedFd>);

impl Claim {
    /// Makes and locks `unified` and every directory of `v1`, none of which has anything in it then. What an earlier run
    /// left under these names is ended and removed.
    ///
    /// # Errors
    /// [`CgroupError::Living`] when another supervisor has one of them, [`CgroupError::Orphaned`] when its nursery has; then it
    /// is as it was. Otherwise what the host says.
    pub fn take<'a>(unified: &'a Path, v1: impl Iterator<Item = &'a Path>) -> Result<Self, CgroupError> {
        Self::take_within(unified, v1, PATIENCE)
    }

    fn take_within<'a>(
        unified: &'a Path,
        v1: impl Iterator<Item = &'a Path>,
        patience: Duration,
    ) -> Result<Self, CgroupError> {
        let end = Instant::now() + patience;
        let mut taken: Vec<(PathBuf, OwnedFd)> = Vec::new();
        // The unified one first: it has the processes, and those of an earlier run must be gone before its limits go.
        for dir in std::iter::once(unified).chain(v1) {
            match take_one(dir, end) {
                Ok(lock) => taken.push((dir.to_owned(), lock)),
                Err(error) => {
                    // Ours and empty. The error is the one that is told.
                    for (dir, _) in &taken {
                        fs::remove_dir(dir).ok();
                    }
                    return Err(error);
                }
            }
        }
        Ok(Self(taken.into_iter().map(|(_, lock)| lock).collect()))
    }

    /// The locks, for the nursery to hold on to.
    pub fn locks(&self) -> &[OwnedFd] {
        &self.0
    }
}

/// What stands at a directory's path.
enum Found {
    /// A directory that we have made or that nobody holds, locked by us.
    Ours { lock: Flock<File>, is_new: bool },
    /// Somebody is there, or was a moment ago.
    Held,
}

fn take_one(dir: &Path, end: Instant) -> Result<OwnedFd, CgroupError> {
    loop {
        let living = match look(dir)? {
            Found::Ours { lock, is_new: true } => return keep(lock).map_err(CgroupError::os("copy the lock of", dir)),
            Found::Ours { lock, is_new: false } => {
                let living = processes(&dir.join(CGROUP_SUPERVISOR));
                if living.is_empty() {
                    remove_leftover(dir)?;
                    // It was locked until it was gone: whoever comes now finds none, and one of us makes the next.
                    drop(lock);
                    continue;
                }
                living
            }
            Found::Held => processes(&dir.join(CGROUP_SUPERVISOR)),
        };
        if Instant::now() >= end {
            if let Some(nursery) = orphan::behind(dir) {
                return Err(CgroupError::Orphaned { path: dir.display().to_string(), nursery });
            }
            return Err(CgroupError::Living { path: dir.display().to_string(), processes: living });
        }
        sleep(PAUSE);
    }
}

fn look(dir: &Path) -> Result<Found, CgroupError> {
    let is_new = match super::directory::make(dir) {
        Ok(()) => true,
        Err(CgroupError::Os { error, .. }) if error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(dir);
    let file = match opened {
        Ok(file) => file,
        // Removed by another that starts or ends.
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Found::Held),
        Err(error) => return Err(CgroupError::os("open", dir)(error)),
    };
    let lock = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => lock,
        Err((_, Errno::EWOULDBLOCK)) => return Ok(Found::Held),
        Err((_, error)) => return Err(CgroupError::os("lock", dir)(error.into())),
    };
    // Between the two it may have been removed and made again by another that starts.
    let is_the_same = is_still_at(&lock, dir).map_err(CgroupError::os("look at", dir))?;
    Ok(if is_the_same { Found::Ours { lock, is_new } } else { Found::Held })
}

fn is_still_at(file: &File, dir: &Path) -> io::Result<bool> {
    let opened = file.metadata()?;
    match fs::symlink_metadata(dir) {
        Ok(found) => Ok((found.dev(), found.ino()) == (opened.dev(), opened.ino())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The same lock as a plain descriptor: a [`Flock`] unlocks for every copy when it is dropped, and the nursery has one.
fn keep(lock: Flock<File>) -> io::Result<OwnedFd> {
    let copy = lock.try_clone()?;
    let first = lock.as_raw_fd();
    std::mem::forget(lock);
    nix::unistd::close(first)?;
    Ok(copy.into())
}

/// Processes in a group itself, by pid; 0 stands for one outside of our pid namespace. None when there is no such group.
fn processes(group: &Path) -> Vec<u32> {
    let text = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

/// Ends and removes what an earlier run left in `dir`, and `dir` itself.
fn remove_leftover(dir: &Path) -> Result<(), CgroupError> {
    for group in [CGROUP_POOL, CGROUP_RUNNER].map(|name| dir.join(name)) {
        // A v1 directory has no such file, and what was in it has been ended through the unified one.
        if group.join("cgroup.kill").exists() {
            kill(&group).map_err(CgroupError::os("kill what an earlier run left in", &group))?;
            wait_empty(&group);
        }
    }
    let left = remove_tree(dir);
    if left.is_empty() {
        return Ok(());
    }
    Err(CgroupError::Unsupported {
        missing: format!("what an earlier run left cannot be removed: {}", left.join(", ")),
        remedy: "end the processes listed in its cgroup.procs files, or choose another host.instance".into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of an ordinary file system: locks and names are the same there.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("sublet-claim-{name}-{}", std::process::id()));
            fs::create_dir(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    fn take(unified: &Path, v1: &[&Path]) -> Result<Claim, CgroupError> {
        Claim::take_within(unified, v1.iter().copied(), Duration::from_millis(50))
    }

    #[test]
    fn second_claim_is_refused_and_the_first_is_left_as_it_is() {
        let place = Place::new("second");
        let (a, b, shared) = (place.0.join("a"), place.0.join("b"), place.0.join("v1"));
        let first = take(&a, &[&shared]).unwrap();
        fs::create_dir(shared.join("pool")).unwrap();
        assert!(matches!(take(&a, &[]), Err(CgroupError::Living { .. })));
        // The same through another hierarchy alone, and then what was made for it is gone.
        assert!(matches!(take(&b, &[&shared]), Err(CgroupError::Living { .. })));
        assert!(shared.join("pool").exists() && a.exists() && !b.exists());
        drop(first);
        assert!(take(&a, &[&shared]).is_ok(), "the lock ends with its holder");
    }

    #[test]
    fn copy_of_a_lock_holds_on() {
        let place = Place::new("copy");
        let dir = place.0.join("a");
        let claim = take(&dir, &[]).unwrap();
        let copy = claim.locks()[0].try_clone().unwrap();
        drop(claim);
        assert!(matches!(take(&dir, &[]), Err(CgroupError::Living { .. })));
        drop(copy);
        take(&dir, &[]).unwrap();
    }

    #[test]
    fn unlocked_directory_with_a_supervisor_in_it_is_not_a_leftover() {
        let place = Place::new("living");
        let own = place.0.join("a").join(CGROUP_SUPERVISOR);
        fs::create_dir_all(&own).unwrap();
        fs::write(own.join("cgroup.procs"), "17\n").unwrap();
        let error = take(&place.0.join("a"), &[]).unwrap_err().to_string();
        assert!(error.contains("17") && error.contains("host.instance"), "{error}");
        assert!(own.exists());
    }

    #[test]
    fn what_an_earlier_run_left_is_removed() {
        let place = Place::new("left");
        let dir = place.0.join("a");
        fs::create_dir_all(dir.join(CGROUP_POOL).join("t-acme")).unwrap();
        take(&dir, &[]).unwrap();
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }
}
