//! Layers that nobody can see from outside prove themselves from inside: the launcher tries what only that layer refuses,
//! and a success is a failed step. It does so before its system call filters are on, or they would answer instead.

use std::io;

use nix::{
    errno::Errno,
    sys::stat::{Mode, SFlag, mknod},
    unistd::unlink,
};

use crate::{keyring::NURSERY_KEY, sys};

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
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EPERM)) => Ok(()),
        Err(error) => Err(io::Error::other(format!("a user namespace was refused by something else: {error}"))),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::init::confine;

    // Landlock and the session keyring are of a thread, and each test has a thread of its own.

    #[test]
    fn landlock_is_proved_with_it_and_not_without() {
        if crate::landlock_abi() < 3 {
            eprintln!("skipped: this kernel has no landlock of version 3");
            return;
        }
        assert!(landlock().unwrap_err().to_string().contains("could be made"));
        nix::sys::prctl::set_no_new_privs().unwrap();
        confine::restrict_by_landlock().unwrap();
        landlock().unwrap();
    }

    #[test]
    fn keyring_is_proved_with_a_new_one_and_not_with_that_of_the_nursery() {
        if let Err(error) = sys::join_new_session_keyring() {
            eprintln!("skipped: no session keyring here: {error}");
            return;
        }
        sys::add_session_key(NURSERY_KEY).unwrap();
        assert!(keyring().unwrap_err().to_string().contains("the nursery's"));
        sys::join_new_session_keyring().unwrap();
        keyring().unwrap();
    }
}
