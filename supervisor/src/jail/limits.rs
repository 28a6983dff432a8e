//! What the kernel lets the supervisor have: per process, and when the host runs out of memory.

use std::{
    fs::{self, File},
    io,
    os::fd::AsFd,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::config::{Config, LogTo};

/// The kernel takes the supervisor for a victim only when it holds half of the memory more than anybody else does. Not less:
/// within its own memory limit it must stay the one that is chosen, before the nursery, which cleans up.
pub const OOM_SCORE_ADJ: i32 = -500;
/// Of the host's memory the supervisor may use so much: one of so many parts.
pub const MEMORY_SHARE: u64 = 2;
/// Threads that tokio starts for what blocks, at the most, unless it is told otherwise.
const BLOCKING_THREADS: u64 = 512;
/// Processes of the same uid beside the supervisor's threads, which the kernel counts together: the runner and its programs,
/// and as much for another supervisor that was given the same uid.
const OTHER_PROCESSES: u64 = 2048;
/// A file is let grow by one write over its size.
const FILE_SLACK_BYTES: u64 = 1 << 20;
/// Locked memory in bytes; it locks none.
const MEMLOCK_BYTES: u64 = 64 * 1024;

/// One limit of the process.
pub type Limit = (Resource, u64);

/// The limits of a supervisor with this configuration. `grows` says that it writes a file without an end, such as a trace.
pub fn of(config: &Config, grows: bool) -> Vec<Limit> {
    let logs = match &config.host.log {
        LogTo::Files { size, .. } => size.bytes(),
        LogTo::None | LogTo::Stdout => 0,
    };
    let file = if grows { u64::MAX } else { logs + FILE_SLACK_BYTES };
    vec![
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, file),
        (Resource::RLIMIT_MEMLOCK, MEMLOCK_BYTES),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_NICE, 0),
        (Resource::RLIMIT_NPROC, u64::from(config.host.threads) + BLOCKING_THREADS + OTHER_PROCESSES),
        (Resource::RLIMIT_RTPRIO, 0),
    ]
}

/// Whether stdout or stderr is a plain file, which grows without an end, or cannot be looked at.
pub fn is_output_a_file() -> bool {
    let is_file = |fd: std::os::fd::BorrowedFd<'_>| {
        let copy = fd.try_clone_to_owned().map(File::from);
        copy.and_then(|file| file.metadata()).map_or(true, |metadata| metadata.is_file())
    };
    is_file(io::stdout().as_fd()) || is_file(io::stderr().as_fd())
}

/// Sets them, soft and hard, and makes the number of open files what it is for good. A hard limit of the host that is lower
/// stays.
///
/// # Errors
/// Which limit, and what the kernel says.
pub fn set(limits: &[Limit]) -> io::Result<()> {
    let named = |resource: Resource, value: u64| {
        move |error: nix::Error| io::Error::other(format!("{resource:?} to {value}: {error}"))
    };
    for (resource, value) in limits {
        let (_, hard) = getrlimit(*resource)?;
        let value = (*value).min(hard);
        setrlimit(*resource, value, value).map_err(named(*resource, value))?;
    }
    let (soft, _) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft, soft).map_err(named(Resource::RLIMIT_NOFILE, soft))?;
    // A file that is as large as it may be is an error to be told, not the end.
    crate::sys::ignore_file_size_signal();
    Ok(())
}

/// Asks the kernel to take others first when memory runs out. Needs CAP_SYS_RESOURCE; without, it stays as it was.
pub fn protect_from_oom() {
    fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ.to_string()).ok();
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn file_size(host: &str, grows: bool) -> u64 {
        let config = Config::parse(&format!("[host]\nstate_dir = \"/run/sublet\"\n{host}"), Path::new("/")).unwrap();
        let limits = of(&config, grows);
        limits.iter().find(|(resource, _)| *resource == Resource::RLIMIT_FSIZE).unwrap().1
    }

    #[test]
    fn files_may_grow_as_large_as_logs_do_and_no_larger_unless_one_has_no_end() {
        assert_eq!(file_size("", false), FILE_SLACK_BYTES);
        let logs = "log = \"files\"\nlog_dir = \"/var/log/sublet\"\nlog_file_size = \"1GiB\"";
        assert_eq!(file_size(logs, false), (1 << 30) + FILE_SLACK_BYTES);
        assert_eq!(file_size(logs, true), u64::MAX);
    }
}
