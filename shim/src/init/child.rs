//! The process of a function whose launcher stays: where it writes, how its end is told, and how its launcher ends with it.

use std::{
    ffi::CString,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    fcntl::{OFlag, open},
    sys::{
        signal::{SigSet, Signal, kill},
        signalfd::{SfdFlags, SignalFd},
        stat::Mode,
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::sys::{self, Child};

/// Status of a child whose execve failed, as shells have it.
pub const EXEC_FAILED: i32 = 127;
/// Added to a signal's number, as shells have it: the status of a launcher that a signal did not end.
const SIGNAL_STATUS: i32 = 128;

/// The log once more, as an open file of its own. O_NONBLOCK and other flags belong to an open file: a process that shared the
/// launcher's would set them for the launcher and for the processes of all later calls.
///
/// # Errors
/// What open says, with the path.
pub fn own_log() -> io::Result<OwnedFd> {
    const LOG: &str = "/proc/self/fd/2";
    open(LOG, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|error| io::Error::new(io::Error::from(error).kind(), format!("open {LOG}: {error}")))
}

/// Becomes a function that lives as long as its launcher: its log is an open file of its own, and so are its standard output
/// and its standard error to each other. `place` is its third descriptor.
pub fn run_beside_launcher(
    child: Child,
    place: (BorrowedFd<'_>, RawFd),
    arguments: &[CString],
    environment: &[CString],
) -> ! {
    match own_log().and_then(|out| Ok((out, own_log()?))) {
        Ok((out, err)) => child.exec(&[(out.as_fd(), 1), (err.as_fd(), 2), place], arguments, environment, EXEC_FAILED),
        Err(error) => {
            eprintln!("{error}");
            sys::exit_now(EXEC_FAILED)
        }
    }
}

/// From now on the end of a child is told by a descriptor. SIGCHLD is blocked for that; [`sys::Child::exec`] unblocks it.
///
/// # Errors
/// What the kernel says.
pub fn announced_ends() -> io::Result<SignalFd> {
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGCHLD);
    ends.thread_block()?;
    Ok(SignalFd::with_flags(&ends, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// Waits for `child` and ends this process in the same way, so that init reports what it would report of a function that had
/// taken the launcher's place.
pub fn end_as(child: Pid) -> ! {
    match waitpid(child, None) {
        Ok(WaitStatus::Exited(_, code)) => sys::exit_now(code),
        Ok(WaitStatus::Signaled(_, signal, _)) => {
            sys::default_signal(signal);
            // It cannot fail to be sent to oneself; should it not end us, the status says as much.
            kill(Pid::this(), signal).ok();
            sys::exit_now(SIGNAL_STATUS + signal as i32)
        }
        Ok(_) | Err(_) => sys::exit_now(EXEC_FAILED),
    }
}
