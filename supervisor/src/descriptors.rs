//! Open files: how many a supervisor needs, and how many it may have.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{config::Host, reserve};

/// Open descriptors per worker: channel, control, log twice, seven files of its group; three of its sub-tenant's.
const PER_WORKER: u64 = 14;
/// Everything else: sockets, libraries, the runtime.
const BASE: u64 = 256 + reserve::RESERVED as u64;

/// Descriptors that may have to be open at one time.
pub fn needed(host: &Host) -> u64 {
    u64::from(host.workers_max) * PER_WORKER + u64::from(host.connections_max) + BASE
}

/// Descriptors that may be open at one time.
pub fn allowed() -> u64 {
    getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft)
}

/// Makes room for `needed` open descriptors.
///
/// # Errors
/// When the hard limit is below that and cannot be raised.
pub fn allow(needed: u64) -> Result<(), String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|error| format!("read RLIMIT_NOFILE: {error}"))?;
    if soft >= needed {
        return Ok(());
    }
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard.max(needed), hard.max(needed))
        .or_else(|error| if hard >= needed { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Err(error) });
    raised.map_err(|error| {
        format!(
            "host.workers_max and host.connections_max need {needed} open files and the hard limit is {hard} ({error}); \
             raise it (systemd: LimitNOFILE={needed}, shell: ulimit -n {needed}) or lower the two"
        )
    })
}
