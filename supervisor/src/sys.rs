//! The supervisor's only unsafe code.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    os::unix::process::CommandExt,
    process::Command,
};

use tokio::io::{Interest, unix::AsyncFd};

/// Descriptors that a child can be started with, beside the three standard ones.
pub const PASSED_MAX: usize = 7;

/// Makes the child of `command` start with `descriptors` as its descriptors 3, 4 and so on, in this order.
///
/// # Errors
/// More than [`PASSED_MAX`] of them.
pub fn pass_descriptors(command: &mut Command, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    if descriptors.len() > PASSED_MAX {
        return Err(io::Error::other(format!("{} descriptors, and {PASSED_MAX} can be passed on", descriptors.len())));
    }
    let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let place = move || -> io::Result<()> {
        let mut lifted = [0; PASSED_MAX];
        // Out of the way first: any may stand where another belongs.
        for (at, from) in lifted.iter_mut().zip(&raw) {
            *at = lift(*from)?;
        }
        for (from, to) in lifted.iter().take(raw.len()).zip(3..) {
            // WHY UNSAFE: dup2 works on numbers.
            // SAFETY: only async-signal-safe calls between fork and exec; the child owns nothing yet.
            if unsafe { libc::dup2(*from, to) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // WHY UNSAFE: code between fork and exec must be async-signal-safe.
    // SAFETY: it makes system calls on numbers and allocates nothing.
    unsafe { command.pre_exec(place) };
    Ok(())
}

/// Makes the child of `command` the leader of a session of its own, without a terminal.
pub fn own_session(command: &mut Command) {
    let new_session = || nix::unistd::setsid().map(drop).map_err(io::Error::from);
    // WHY UNSAFE: code between fork and exec must be async-signal-safe.
    // SAFETY: it makes one system call and allocates nothing.
    unsafe { command.pre_exec(new_session) };
}

/// Makes the child of `command` start with `socket` as descriptor 3.
pub fn pass_socket(command: &mut Command, socket: &OwnedFd) {
    let socket = socket.as_raw_fd();
    let place = move || -> io::Result<()> {
        // Out of the way first: dup2 onto itself would leave it to be closed.
        let lifted = lift(socket)?;
        // WHY UNSAFE: dup2 works on numbers.
        // SAFETY: only async-signal-safe calls between fork and exec; the child owns nothing yet.
        if unsafe { libc::dup2(lifted, 3) } < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    };
    // WHY UNSAFE: code between fork and exec must be async-signal-safe.
    // SAFETY: it makes two system calls and allocates nothing.
    unsafe { command.pre_exec(place) };
}

fn lift(fd: RawFd) -> io::Result<RawFd> {
    // WHY UNSAFE: fcntl works on numbers.
    // SAFETY: duplicating a descriptor touches no memory.
    let lifted = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 10) };
    if lifted < 0 { Err(io::Error::last_os_error()) } else { Ok(lifted) }
}

/// Takes a descriptor over that this process was started with.
///
/// # Errors
/// It is not open.
pub fn inherited(number: RawFd) -> io::Result<OwnedFd> {
    // WHY UNSAFE: a number says nothing of whose it is, nor whether it is open.
    // SAFETY: asking for its flags touches no memory.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // WHY UNSAFE: as above.
    // SAFETY: it is open, and its caller takes each number once, before this process opens anything of its own.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Lets a write to a pipe without readers end this process, as C programs have it.
pub fn end_on_broken_pipe() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // WHY UNSAFE: signal handlers can be arbitrary code.
    // SAFETY: the default action is none of ours.
    // SIGPIPE can be set; there is no other reason to fail.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) }.ok();
}

/// Gives freed memory back to the host. The allocator keeps what has been needed once, for the next time, and a burst of
/// large payloads would stay with the supervisor for good. Takes milliseconds for hundreds of MiB.
pub fn return_free_memory() {
    // WHY UNSAFE: malloc_trim is C.
    // SAFETY: it works on what is free, under the allocator's locks. That it found nothing is no matter.
    unsafe { libc::malloc_trim(0) };
}

/// Makes tokio watch a descriptor. Must be called inside a tokio runtime.
///
/// # Errors
/// When it cannot be watched: it is a plain file, or there are too many.
pub fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // WHY UNSAFE: tokio must know that the number stays this descriptor's while it is registered.
    // SAFETY: the OwnedFd is moved in, is never replaced, and closes only after tokio has let go of it.
    unsafe { AsyncFd::register_with_interest(fd, interest) }.map_err(io::Error::from)
}

/// Makes a write to a file that is as large as RLIMIT_FSIZE lets it be fail, instead of ending this process.
pub fn ignore_file_size_signal() {
    use nix::sys::signal::{SigHandler, Signal, signal};
    // WHY UNSAFE: signal handlers can be arbitrary code.
    // SAFETY: to ignore it is none of ours. It can be set; there is no other reason to fail.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }.ok();
}
