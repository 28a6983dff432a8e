//! Verbs about files that workers share: attributes, names, leases and contents.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::fd::AsRawFd as _,
};

use nix::errno::Errno;

use super::sys;
use crate::Outcome;

/// What an attribute is called in /tmp, and how large it is.
const ATTRIBUTE_BYTES: usize = 1024;

fn errno(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// Gives a file an extended attribute.
pub fn attribute(name: &str, path: &str) -> Outcome {
    sys::set_attribute(path, name, b"y").map_err(|e| format!("{name}: {e:?}"))?;
    Ok(b"set".to_vec())
}

/// Gives a program the right to take any uid, when it is started.
pub fn bless(path: &str) -> Outcome {
    // Revision 2, effective; then what is permitted and what is inheritable, twice 32 bits each.
    let capabilities: [u32; 5] = [0x0200_0001, 1 << 7, 0, 0, 0];
    let bytes: Vec<u8> = capabilities.iter().flat_map(|word| word.to_le_bytes()).collect();
    sys::set_attribute(path, "security.capability", &bytes).map_err(|e| format!("bless: {e:?}"))?;
    Ok(b"blessed".to_vec())
}

/// Gives a new file in /tmp so many attributes, which stay.
pub fn attributes(count: u64) -> Outcome {
    File::create("/tmp/attributes").map_err(|e| format!("create: {e}"))?;
    for at in 0..count {
        sys::set_attribute("/tmp/attributes", &format!("user.sublet-{at}"), &[0xa5; ATTRIBUTE_BYTES])
            .map_err(|e| format!("attribute {at}: {e:?}"))?;
    }
    Ok(format!("set {count}").into_bytes())
}

/// What can be done to a file from /tmp, of several ways to change, move or cut it. Each leaves its name and contents where it
/// works, so that all are tried on the same.
pub fn across(path: &str) -> Outcome {
    let own = format!("/tmp/across-{}", std::process::id());
    fs::write(&own, "own").map_err(|e| format!("write in /tmp: {e}"))?;
    let beside = format!("{path}-beside");
    let there_and_back = |from: &str, to: &str| fs::rename(from, to).and_then(|()| fs::rename(to, from));
    let link = |from: &str, to: &str| fs::hard_link(from, to).and_then(|()| fs::remove_file(to));
    let through = format!("{own}-link");
    let follow = || {
        std::os::unix::fs::symlink(path, &through)?;
        let opened = OpenOptions::new().append(true).open(&through);
        fs::remove_file(&through)?;
        opened.map(drop)
    };
    let text = fs::read(path).map_err(|e| format!("read: {e}"))?;
    // O_RDONLY | O_TRUNC, which some kernels have let pass.
    let cut = || sys::open_cut(path).map_err(std::io::Error::from).and_then(|()| fs::write(path, &text));
    let shorten = || nix::unistd::truncate(path, 1).map_err(std::io::Error::from).and_then(|()| fs::write(path, &text));
    let moved = format!("{own}-moved");
    let results = [
        ("rename out", there_and_back(path, &moved)),
        ("rename in", there_and_back(&own, &beside)),
        ("rename beside", there_and_back(path, &beside)),
        ("link out", link(path, &moved)),
        ("link in", link(&own, &beside)),
        ("follow", follow()),
        ("open and cut", cut()),
        ("truncate", shorten()),
    ];
    fs::remove_file(&own).map_err(|e| format!("remove in /tmp: {e}"))?;
    let told = results.map(|(name, result)| match result {
        Ok(()) => format!("{name}: worked"),
        Err(error) => format!("{name}: {:?}", errno(&error)),
    });
    Ok(told.join("\n").into_bytes())
}

/// Rounds of a race that was lost by kernels of 2016 within as many.
const ROUNDS: u32 = 2000;

/// Ways to write into a file that one may only read. Tells of each whether it was let pass.
pub fn overwrite(path: &str) -> Outcome {
    let file = File::open(path).map_err(|e| format!("open: {e}"))?;
    let again = || OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let open = |path: &str| OpenOptions::new().write(true).read(true).open(path);
    let results = [
        ("write", open(path).and_then(|mut file| file.write_all(b"X"))),
        ("reopen", again().and_then(|mut file| file.write_all(b"X"))),
        ("map", sys::memory::write_by_mapping(&file).map_err(Into::into)),
        ("map writable", open(path).and_then(|file| sys::memory::write_by_mapping(&file).map_err(Into::into))),
        ("protect", sys::memory::write_after_mprotect(&file).map_err(Into::into)),
        // Where this works it writes into a copy.
        ("race", sys::memory::race(&file, ROUNDS)),
        // Where this works it writes behind the page in the pipe.
        ("splice", sys::memory::splice(&file).map_err(Into::into)),
    ];
    let told = results.map(|(name, result)| match result {
        Ok(()) => format!("{name}: worked"),
        Err(error) => format!("{name}: {:?}", errno(&error)),
    });
    Ok(told.join("\n").into_bytes())
}

/// Asks to be told before others open a file for writing, and when anything in its directory changes.
pub fn lease(path: &str) -> Outcome {
    let file = File::open(path).map_err(|e| format!("open: {e}"))?;
    let directory = std::path::Path::new(path).parent().map(File::open).ok_or("no directory")?;
    let directory = directory.map_err(|e| format!("open its directory: {e}"))?;
    let told = [("lease", sys::lease(&file)), ("notify", sys::notify(&directory))].map(|(name, result)| match result {
        Ok(()) => format!("{name}: worked"),
        Err(error) => format!("{name}: {error:?}"),
    });
    Ok(told.join("\n").into_bytes())
}
