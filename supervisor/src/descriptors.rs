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

/// Why the supervisor may not open as many files as it needs.
#[derive(Debug, thiserror::Error)]
pub enum LimitError {
    /// The limit cannot be read.
    #[error("read RLIMIT_NOFILE")]
    Read(#[source] nix::Error),
    /// The hard limit is lower, and could not be raised. The remedy stands behind the cause, so both are in these words.
    #[error(
        "host.workers_max and host.connections_max need {needed} open files and the hard limit is {hard} ({error}); \
         raise it (systemd: LimitNOFILE={needed}, shell: ulimit -n {needed}) or lower the two"
    )]
    TooLow {
        /// Descriptors that are needed.
        needed: u64,
        /// The hard limit, in descriptors.
        hard: u64,
        /// What setrlimit says.
        error: nix::Error,
    },
}

/// Makes room for `needed` open descriptors.
///
/// # Errors
/// [`LimitError`], when the hard limit is below that and cannot be raised, or cannot be read.
pub fn allow(needed: u64) -> Result<(), LimitError> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(LimitError::Read)?;
    if soft >= needed {
        return Ok(());
    }
    let raised = setrlimit(Resource::RLIMIT_NOFILE, hard.max(needed), hard.max(needed))
        .or_else(|error| if hard >= needed { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Err(error) });
    raised.map_err(|error| LimitError::TooLow { needed, hard, error })
}
