//! Signals as a program expects to find them. What is ignored or blocked is inherited from whoever started us, through fork
//! and exec, down to functions: with SIGCHLD ignored no child can be waited for, with SIGTERM ignored or blocked nothing
//! stops. So it is reset where a process of ours begins, and once more before a function does.

use std::io;

use nix::sys::signal::{SigSet, Signal};

use crate::sys;

/// The last signal number on Linux.
const LAST: i32 = 64;
/// Nothing can be set for these.
const FIXED: [i32; 2] = [Signal::SIGKILL as i32, Signal::SIGSTOP as i32];
/// Ignores `ignored`, gives every other signal its default action, and blocks none in this thread. To be called while it is
/// the only one, and before anybody, the C library included, listens to a signal.
///
/// # Errors
/// What the kernel says; no number that is passed to it can be refused.
pub fn reset(ignored: &[Signal]) -> io::Result<()> {
    let ignored: Vec<i32> = ignored.iter().map(|signal| *signal as i32).collect();
    for number in (1..=LAST).filter(|number| !FIXED.contains(number)) {
        sys::set_action(number, ignored.contains(&number))?;
    }
    Ok(SigSet::empty().thread_set_mask()?)
}
