//! Limits of a process that end it without a word, inherited from whoever started us: they are taken off, or named.

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};

/// A limit that is in the way and cannot be taken off.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{name} is {value} {unit}, and at it {end}; it cannot be raised without CAP_SYS_RESOURCE: start sublet without it \
     (systemd: {systemd}=infinity, shell: {shell} unlimited)"
)]
pub struct LimitError {
    name: &'static str,
    value: u64,
    unit: &'static str,
    end: &'static str,
    systemd: &'static str,
    shell: &'static str,
}

struct Limit {
    resource: Resource,
    name: &'static str,
    unit: &'static str,
    end: &'static str,
    systemd: &'static str,
    shell: &'static str,
}

const LIMITS: [Limit; 2] = [
    Limit {
        resource: Resource::RLIMIT_FSIZE,
        name: "RLIMIT_FSIZE",
        unit: "bytes",
        end: "large payloads, logs and the nursery's own program cannot be written",
        systemd: "LimitFSIZE",
        shell: "ulimit -f",
    },
    Limit {
        resource: Resource::RLIMIT_CPU,
        name: "RLIMIT_CPU",
        unit: "seconds of CPU time",
        end: "the kernel ends the supervisor",
        systemd: "LimitCPU",
        shell: "ulimit -t",
    },
];

/// Takes off the limits on the size of files and on CPU time. Functions have their own in place of them.
///
/// # Errors
/// One is set and cannot be taken off.
pub fn take_off() -> Result<(), LimitError> {
    LIMITS.iter().try_for_each(|limit| {
        // What cannot be read is not set: both are as old as Linux.
        let (soft, _) = getrlimit(limit.resource).unwrap_or((RLIM_INFINITY, RLIM_INFINITY));
        if soft == RLIM_INFINITY || setrlimit(limit.resource, RLIM_INFINITY, RLIM_INFINITY).is_ok() {
            return Ok(());
        }
        let &Limit { name, unit, end, systemd, shell, .. } = limit;
        Err(LimitError { name, value: soft, unit, end, systemd, shell })
    })
}
