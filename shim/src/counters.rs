//! What the kernel counts by user, and for whom it counts what a worker makes.
//!
//! Inside a user namespace most of these counts are hierarchical: an object is counted for the maker's uid in the worker's
//! namespace, then for the *owner* of that namespace on the host, and is refused when either is at its maximum. The owner
//! is the uid that had made the namespace. Were that root, all workers and root itself would share one count on the host,
//! and one worker could take it all. So each worker's namespace is owned by the worker's own init uid
//! ([`crate::plan::NurseryStep::Birth`]), which nobody else has while the worker lives.
//!
//! | what | counted for | maximum inside | maximum on the host | why a neighbour and root are not affected |
//! |---|---|---|---|---|
//! | namespaces of all eight kinds | owner and maker | 0 once all are made ([`MAXIMA`]) | user.max_*_namespaces | a worker's eight are counted for its own uid |
//! | inotify instances, watches | owner and maker | [`MAXIMA`] | user.max_inotify_* | a worker's are counted for its own uids |
//! | fanotify groups, marks | owner and maker | 0 ([`MAXIMA`]) | user.max_fanotify_* | no filter lets a function make one |
//! | pending signals, POSIX timers | owner and receiver | RLIMIT_SIGPENDING 128 | the nursery's RLIMIT_SIGPENDING | a worker's are counted for its own uids |
//! | processes (RLIMIT_NPROC) | owner and maker | none; pids.max of the group | none, as the nursery is root | a worker's are counted for its own uids |
//! | bytes of message queues | owner and maker | RLIMIT_MSGQUEUE 0 | the nursery's RLIMIT_MSGQUEUE | none can be made |
//! | locked memory of shared memory, memfds of huge pages | owner and maker | RLIMIT_MEMLOCK 64 KiB | the nursery's RLIMIT_MEMLOCK | a worker's is counted for its own uids |
//! | locked memory by mlock | process | RLIMIT_MEMLOCK 64 KiB | none | charged to the worker's group as well |
//! | locked memory by MSG_ZEROCOPY, perf, bpf, io_uring | real uid | RLIMIT_MEMLOCK 64 KiB | none | the function's uid is its worker's alone |
//! | epoll watches | real uid | none | fs.epoll.max_user_watches, per uid | the function's uid is its worker's alone |
//! | descriptors in flight in UNIX sockets | real uid | RLIMIT_NOFILE | none | the function's uid is its worker's alone |
//! | pages of pipes | real uid that made the pipe | none | fs.pipe-user-pages-soft, per uid | the function's uid is its worker's alone. The pipe of its log is made by the nursery: 16 pages of root's count for each worker, and root is not held to the maximum |
//! | keys | real uid that made the key | none | kernel.keys.maxkeys, per uid | one keyring for each worker, made by init while its real uid is root's, of root's 1,000,000; no filter lets a function make a key |
//!
//! "Its own uids" are the two of the worker's slot, init's and the function's: no living worker shares them.

use std::{fmt, fs, io, path::Path};

/// Inotify instances of one worker. A run-time takes one for each watcher of files; libraries hold a handful.
const INOTIFY_INSTANCES_MAX: u64 = 64;
/// Inotify watches of one worker. A watch holds an inode of a file system that others read too, and about 1 KiB of kernel
/// memory, which is charged to the worker.
const INOTIFY_WATCHES_MAX: u64 = 8192;

/// The files of /proc/sys/user and what each is set to inside. A kernel test compares the names with those of the kernel.
pub const MAXIMA: [(&str, u64); 12] = [
    ("max_user_namespaces", 0),
    ("max_pid_namespaces", 0),
    ("max_uts_namespaces", 0),
    ("max_ipc_namespaces", 0),
    ("max_net_namespaces", 0),
    ("max_mnt_namespaces", 0),
    ("max_cgroup_namespaces", 0),
    ("max_time_namespaces", 0),
    ("max_inotify_instances", INOTIFY_INSTANCES_MAX),
    ("max_inotify_watches", INOTIFY_WATCHES_MAX),
    ("max_fanotify_groups", 0),
    ("max_fanotify_marks", 0),
];

/// The maxima that a kernel may be built without. One without the file has no such objects, and no count of them.
const MAY_BE_ABSENT: [&str; 5] = [
    "max_time_namespaces",
    "max_inotify_instances",
    "max_inotify_watches",
    "max_fanotify_groups",
    "max_fanotify_marks",
];

/// Sets the maxima of the caller's user namespace through `sys_user`, the directory /proc/sys/user.
///
/// # Errors
/// The file that could not be written, with the value.
pub fn limit(sys_user: &Path) -> io::Result<()> {
    for (name, value) in MAXIMA {
        let path = sys_user.join(name);
        match fs::OpenOptions::new().write(true).open(&path) {
            // One write: the kernel reads a number from the start of each.
            Ok(file) => io::Write::write_all(&mut &file, value.to_string().as_bytes()),
            Err(error) if error.kind() == io::ErrorKind::NotFound && MAY_BE_ABSENT.contains(&name) => continue,
            Err(error) => Err(error),
        }
        .map_err(|error| io::Error::new(error.kind(), format!("write {value} to {}: {error}", path.display())))?;
    }
    Ok(())
}

/// The maxima in words, those of zero together.
pub(crate) fn describe(f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let words = |name: &str| name.trim_start_matches("max_").replace('_', " ");
    let none: Vec<String> = MAXIMA.iter().filter(|(_, value)| *value == 0).map(|(name, _)| words(name)).collect();
    for (name, value) in MAXIMA.iter().filter(|(_, value)| *value != 0) {
        write!(f, "{value} {}, ", words(name))?;
    }
    write!(f, "no {}", none.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maximum_that_cannot_be_set_is_named_with_its_value() {
        let dir = std::env::temp_dir().join(format!("sublet-counters-{}", std::process::id()));
        fs::create_dir(&dir).unwrap();
        let made: Vec<_> = MAXIMA.iter().filter(|(name, _)| !MAY_BE_ABSENT.contains(name)).collect();
        for (name, _) in &made {
            fs::write(dir.join(name), "").unwrap();
        }
        limit(&dir).unwrap();
        for (name, value) in &made {
            assert_eq!(fs::read_to_string(dir.join(name)).unwrap(), value.to_string(), "{name}");
        }
        fs::remove_file(dir.join("max_net_namespaces")).unwrap();
        let error = limit(&dir).unwrap_err().to_string();
        fs::remove_dir_all(&dir).unwrap();
        assert!(error.contains("write 0 to ") && error.contains("max_net_namespaces"), "{error}");
    }
}
