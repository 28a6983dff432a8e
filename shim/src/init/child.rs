//! The process of a function whose launcher stays: how it ends, and how its launcher ends with it.

use nix::{
    sys::{
        signal::kill,
        wait::{WaitStatus, waitpid},
    },
    unistd::Pid,
};

use crate::sys;

/// Status of a child whose execve failed, as shells have it.
pub const EXEC_FAILED: i32 = 127;
/// Added to a signal's number, as shells have it: the status of a launcher that a signal did not end.
const SIGNAL_STATUS: i32 = 128;

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
