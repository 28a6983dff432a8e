//! Making the directory of a group.

use std::{fs, io::ErrorKind, path::Path};

use super::CgroupError;

/// Makes the group's directory.
///
/// # Errors
/// When the kernel refuses it; with the remedy when it lacks rights. A directory that is there already is an error as well.
pub fn make(dir: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(dir) {
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
            Err(CgroupError::Os {
                action: "make cgroup".into(),
                path: dir.display().to_string(),
                error,
                remedy: Some(
                    "start sublet as root, or in a delegated group: systemd-run --scope -p Delegate=yes sublet serve"
                        .into(),
                ),
            })
        }
        result => result.map_err(CgroupError::os("make cgroup", dir)),
    }
}
