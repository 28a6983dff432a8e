//! The crate's only unsafe code: descriptors that come as numbers get their one owner.

#![allow(unsafe_code)]

use std::{
    io,
    os::fd::{BorrowedFd, FromRawFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::socket::{SockType, getsockopt, sockopt},
};
use sublet_proto::link::CHANNEL_FD;

/// The channel this process was started with; only the first taker gets it.
///
/// # Errors
/// When descriptor 3 is no stream socket, as in a program that sublet did not start, or when it is taken.
pub fn take_channel() -> io::Result<OwnedFd> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    // WHY UNSAFE: a number becomes a borrow.
    // SAFETY: used for two questions only, each of which answers EBADF when nothing is open there.
    let channel = unsafe { BorrowedFd::borrow_raw(CHANNEL_FD) };
    if getsockopt(&channel, sockopt::SockType) != Ok(SockType::Stream) {
        return Err(io::Error::other(format!(
            "descriptor {CHANNEL_FD} is not a channel: sublet starts this program, as the command of a function with \
             runtime = \"stream\""
        )));
    }
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Err(io::Error::other("serve was called before: a worker has one channel and one handler"));
    }
    fcntl(channel, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // WHY UNSAFE: a number becomes an owner.
    // SAFETY: it is open, and a stream socket stands there only because the launcher put it there before this program
    // began; nobody else in the process was told the number, and `TAKEN` makes this the only owner.
    Ok(unsafe { OwnedFd::from_raw_fd(CHANNEL_FD) })
}
