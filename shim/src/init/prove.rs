//! Layers that nobody can see from outside prove themselves from inside: the launcher tries what only that layer refuses,
//! and a success is a failed step. It does so before its system call filters are on, or they would answer instead.

use std::io;

use nix::{
    errno::Errno,
    sys::stat::{Mode, SFlag, mknod},
    unistd::unlink,
};

use crate::{nursery::NURSERY_KEY, sys};

/// A name in /tmp that nobody has: /tmp is new and empty.
const DEVICE: &str = "/tmp/.sublet-proof";

/// Only landlock refuses this character device: the function owns /tmp, and since Linux 5.8 anybody may make the one that
/// stands for a removed file in an overlay (0, 0).
pub fn landlock() -> io::Result<()> {
    match mknod(DEVICE, SFlag::S_IFCHR, Mode::empty(), 0) {
        Err(Errno::EACCES) => Ok(()),
        Err(error) => Err(io::Error::other(format!("{DEVICE} was refused by something else: {error}"))),
        Ok(()) => {
            unlink(DEVICE)?;
            Err(io::Error::other(format!("the character device {DEVICE} could be made")))
        }
    }
}

/// Without the maxima anybody may make a user namespace, or on some hosts nobody but root.
pub fn counters() -> io::Result<()> {
    match sys::unshare(libc::CLONE_NEWUSER) {
        Err(_) => Ok(()),
        Ok(()) => Err(io::Error::other("a user namespace could be made")),
    }
}

/// With the session keyring of the nursery its key would be found.
pub fn keyring() -> io::Result<()> {
    match sys::has_session_key(NURSERY_KEY)? {
        false => Ok(()),
        true => Err(io::Error::other("the session keyring is the nursery's")),
    }
}
