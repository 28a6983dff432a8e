//! Directories of the host that the nursery makes and opens.

use std::{
    fs::{self, DirBuilder},
    io::ErrorKind,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _},
    },
    path::Path,
};

use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, openat2};

/// Makes a directory of root's, if nothing is there. True when it had to be made.
///
/// # Errors
/// It cannot be made, or what is there is something else, in words.
pub fn made_directory(path: &Path, mode: u32) -> Result<bool, String> {
    let shown = path.display();
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            // Whatever the umask is.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))
                .map_err(|error| format!("set the mode of {shown}: {error}"))?;
            return Ok(true);
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(format!("{shown} is gone and cannot be made anew: {error}; make the directory above it"));
        }
    }
    let found = fs::symlink_metadata(path).map_err(|error| format!("look at {shown}: {error}"))?;
    let root = nix::unistd::geteuid().as_raw();
    if !found.is_dir() || found.uid() != root || found.mode() & 0o002 != 0 {
        return Err(format!(
            "{shown} is not the directory that this supervisor made: it must be a directory of root's that others cannot write; \
             remove it, and it is made anew"
        ));
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
