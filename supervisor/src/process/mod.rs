//! How a supervisor's process begins: rid of what whoever started it left to it.

pub mod handed;
pub mod limits;
pub mod session;
pub mod signals;

use std::io;

use nix::sys::signal::Signal;

/// Gives every signal its default action and blocks none, but for two that are ignored: of SIGPIPE (a reader that has gone)
/// and SIGXFSZ (a file above RLIMIT_FSIZE) the write itself tells, and neither may end everybody's calls. To be called
/// first of all, while there is one thread.
///
/// # Errors
/// What the kernel says.
pub fn reset_signals() -> io::Result<()> {
    sublet_shim::signals::reset(&[Signal::SIGPIPE, Signal::SIGXFSZ])
}
