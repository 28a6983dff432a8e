//! The unsafe corner: letting tokio watch a descriptor.

#![allow(unsafe_code)]

use std::{io, os::fd::OwnedFd};

use tokio::io::{Interest, unix::AsyncFd};

/// Makes tokio watch a descriptor for something to read. Must be called inside a tokio runtime.
///
/// # Errors
/// When it cannot be watched.
pub fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // WHY UNSAFE: tokio must know that the number stays this descriptor's while it is registered.
    // SAFETY: the OwnedFd is moved in, is never replaced, and closes only after tokio has let go of it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}
