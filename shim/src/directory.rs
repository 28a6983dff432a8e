//! Directories of the host that the nursery makes and opens.

use std::{
    fs::{self, DirBuilder},
    io::{self, ErrorKind},
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, openat2};

/// Why a directory of the nursery is not there.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryError {
    /// It was made, and its mode could not be set.
    #[error("set the mode of {}", path.display())]
    Mode {
        /// Path of the directory on the host.
        path: PathBuf,
        /// What chmod says.
        source: io::Error,
    },
    /// It could not be made. The remedy stands behind the cause, so both are in these words.
    #[error("{} is gone and cannot be made anew: {error}; make the directory above it", path.display())]
    Make {
        /// Path of the directory on the host.
        path: PathBuf,
        /// What mkdir says.
        error: io::Error,
    },
    /// Something is there, and it cannot be looked at.
    #[error("look at {}", path.display())]
    Look {
        /// Path of the directory on the host.
        path: PathBuf,
        /// What lstat says.
        source: io::Error,
    },
    /// Something else is there, or others can write to it.
    #[error(
        "{} is not the directory that this supervisor made: it must be a directory of root's that others cannot write; \
         remove it, and it is made anew",
        path.display()
    )]
    Foreign {
        /// Path of the directory on the host.
        path: PathBuf,
    },
}

/// Makes a directory of root's, if nothing is there. True when it had to be made.
///
/// # Errors
/// [`DirectoryError`], when it cannot be made, or something else is there.
pub fn made_directory(path: &Path, mode: u32) -> Result<bool, DirectoryError> {
    let path_buf = || path.to_owned();
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            // Whatever the umask is.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
                .map_err(|source| DirectoryError::Mode { path: path_buf(), source })?;
            return Ok(true);
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(DirectoryError::Make { path: path_buf(), error }),
    }
    let found = fs::symlink_metadata(path).map_err(|source| DirectoryError::Look { path: path_buf(), source })?;
    let root = nix::unistd::geteuid().as_raw();
    if !found.is_dir() || found.uid() != root || found.mode() & 0o002 != 0 {
        return Err(DirectoryError::Foreign { path: path_buf() });
    }
    Ok(false)
}

/// Opens a directory of the host by its absolute path.
///
/// # Errors
/// What openat2 says.
pub fn open_directory(path: &Path) -> nix::Result<OwnedFd> {
    openat2(AT_FDCWD, path, OpenHow::new().flags(OFlag::O_DIRECTORY | OFlag::O_RDONLY | OFlag::O_CLOEXEC))
}
