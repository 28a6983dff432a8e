//! Verbs that make files.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::{
        ffi::OsStringExt as _,
        fs::{FileExt as _, OpenOptionsExt as _},
    },
    path::PathBuf,
};

use nix::{
    fcntl::{FallocateFlags, OFlag, fallocate},
    sys::memfd::{MFdFlags, memfd_create},
};

use crate::Outcome;

const MIB: usize = 1024 * 1024;

/// Opens a file for writing, and does not write. Does not say which: callers must not be told paths of the host, and the
/// tests' client holds every answer to that.
pub fn may_write(path: &str) -> Outcome {
    OpenOptions::new().write(true).open(path).map_err(|e| format!("open: {e}"))?;
    Ok(b"it may".to_vec())
}

/// Takes so many MiB of /tmp, in one of the ways that look like less.
pub fn fill(how: &str, mib: u64) -> Outcome {
    let path = format!("/tmp/{how}");
    let open =
        |flags: OFlag| OpenOptions::new().write(true).read(true).create(true).custom_flags(flags.bits()).open(&path);
    let failed = |e: std::io::Error| format!("{how}: {:?}", nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(0)));
    let file: File = match how {
        "tmpfile" => {
            let flags = OFlag::O_TMPFILE.bits();
            OpenOptions::new().write(true).custom_flags(flags).open("/tmp").map_err(failed)?
        }
        _ => open(OFlag::empty()).map_err(failed)?,
    };
    if how == "unlinked" {
        fs::remove_file(&path).map_err(failed)?;
    }
    let bytes = mib * MIB as u64;
    match how {
        "fallocate" => {
            let length = i64::try_from(bytes).map_err(|e| e.to_string())?;
            fallocate(&file, FallocateFlags::empty(), 0, length).map_err(|e| failed(e.into()))?;
        }
        // A file of any length costs nothing; each page of it that is written does.
        "sparse" => {
            file.set_len(bytes).map_err(failed)?;
            (0..bytes).step_by(4096).try_for_each(|at| file.write_all_at(b"x", at)).map_err(failed)?;
        }
        _ => (0..mib).try_for_each(|_| (&file).write_all(&vec![0xa5; MIB])).map_err(failed)?,
    }
    Ok(format!("{how} took {mib} MiB").into_bytes())
}

/// Writes so many MiB into a file that is nowhere.
pub fn memfd(mib: u64) -> Outcome {
    let mut file = File::from(memfd_create(c"hoard", MFdFlags::empty()).map_err(|e| e.to_string())?);
    for at in 0..mib {
        file.write_all(&vec![0xa5; MIB]).map_err(|e| format!("write MiB {at} of a memfd: {e}"))?;
    }
    Ok(format!("wrote {mib} MiB").into_bytes())
}

/// Makes so many directories, each inside the one before or beside it, with names that are hard to remove by name.
pub fn names(count: u64, how: &str) -> Outcome {
    let mut dir = PathBuf::from("/tmp");
    std::env::set_current_dir(&dir).map_err(|e| format!("enter /tmp: {e}"))?;
    for at in 0..count {
        let name = match at % 3 {
            0 => [&[0xff; 240][..], at.to_string().as_bytes()].concat(),
            1 => format!("-rf\n{at}").into_bytes(),
            _ => format!("{at}\u{202e}..").into_bytes(),
        };
        let name = std::ffi::OsString::from_vec(name);
        if how == "deep" {
            // One at a time: the whole path would be too long for any call.
            fs::create_dir(&name)
                .and_then(|()| std::env::set_current_dir(&name))
                .map_err(|e| format!("directory {at}: {e}"))?;
        } else {
            dir.push(&name);
            fs::create_dir(&dir).map_err(|e| format!("directory {at}: {e}"))?;
            dir.pop();
        }
    }
    Ok(format!("made {count}").into_bytes())
}
