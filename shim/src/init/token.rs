//! Init puts the sub-tenant's token where the function reads it: into a tmpfs that everybody in the sandbox sees read-only,
//! through a mount of it that nobody sees. The one before is replaced by a rename, so that a reader has the whole of one
//! or the whole of the other.

use std::{io, os::fd::OwnedFd};

use nix::{
    errno::Errno,
    fcntl::{OFlag, openat, renameat},
    sys::stat::Mode,
    unistd::write,
};
use sublet_proto::link::{nursery::InitReport, token::Token};

use crate::seccomp::policy::TOKEN_OPEN_FLAGS;

/// Name of the file; see [`sublet_proto::link::token::TOKEN_FILE`].
const FILE: &str = "token";
/// Name of one that is not whole yet.
const NEW_FILE: &str = "new";

/// The token's place, writable.
#[derive(Debug)]
pub struct TokenPlace(OwnedFd);

impl TokenPlace {
    /// By its directory.
    pub const fn new(dir: OwnedFd) -> Self {
        Self(dir)
    }

    /// Puts the token of this number there. Returns what to tell the supervisor.
    pub fn obey(&self, number: u64, token: &Token) -> InitReport {
        match self.put(token) {
            Ok(()) => InitReport::TokenWritten { number },
            Err(error) => InitReport::TokenFailed { number, error: error.to_string() },
        }
    }

    fn put(&self, token: &Token) -> io::Result<()> {
        let flags = OFlag::from_bits_retain(TOKEN_OPEN_FLAGS);
        // Read-only for everybody: init, its owner, never writes to one that is there under its name.
        let file = openat(&self.0, NEW_FILE, flags, Mode::from_bits_truncate(0o444))?;
        let mut rest = token.as_bytes();
        while !rest.is_empty() {
            match write(&file, rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => rest = &rest[written..],
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        drop(file);
        Ok(renameat(&self.0, NEW_FILE, &self.0, FILE)?)
    }
}
