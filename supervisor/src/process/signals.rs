//! Signals that come before anybody handles them.

use std::io;

use nix::sys::signal::{SigSet, Signal};

/// What the supervisor listens to, and what ends a process that does not.
const LISTENED_TO: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// Signals that wait until they are listened to: what a start makes is removed in order, and not left where the start was.
#[derive(Debug)]
#[must_use = "held signals must be released"]
pub struct Held(SigSet);

/// Holds them back from this thread and all that it starts. To be called while it is the only one.
///
/// # Errors
/// What the kernel says.
pub fn hold() -> io::Result<Held> {
    let mut signals = SigSet::empty();
    signals.extend(LISTENED_TO);
    signals.thread_block()?;
    Ok(Held(signals))
}

impl Held {
    /// They are listened to: those that have come meanwhile arrive now, in this thread.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn release(self) -> io::Result<()> {
        Ok(self.0.thread_unblock()?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use nix::{
        poll::{PollFd, PollFlags, PollTimeout, poll},
        sys::{
            signal::raise,
            signalfd::{SfdFlags, SignalFd},
        },
    };

    use super::*;

    #[test]
    fn signal_that_comes_too_early_waits() {
        // A thread of its own, whose signals are nobody else's.
        std::thread::spawn(|| {
            let held = hold().unwrap();
            // To this thread. It would end the whole test.
            raise(Signal::SIGTERM).unwrap();
            let waiting = SignalFd::with_flags(&held.0, SfdFlags::SFD_NONBLOCK).unwrap();
            let mut watched = [PollFd::new(waiting.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut watched, PollTimeout::ZERO).unwrap(), 1);
            let found = waiting.read_signal().unwrap().unwrap();
            assert_eq!(found.ssi_signo, Signal::SIGTERM as u32);
            held.release().unwrap();
            assert_eq!(SigSet::thread_get_mask().unwrap(), SigSet::empty());
        })
        .join()
        .unwrap();
    }
}
