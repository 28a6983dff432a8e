//! Verbs that take memory in places where it is easily overlooked. What is taken is held until the verb ends.

use std::{
    fs::File,
    io::{IoSlice, Read as _, Seek as _, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};

use super::sys;
use crate::Outcome;

const MIB: usize = 1024 * 1024;
/// What a pipe holds from its start.
const PIPE_BYTES: usize = 64 * 1024;

fn bytes(mib: u64) -> Result<usize, String> {
    Ok(usize::try_from(mib).map_err(|e| e.to_string())? * MIB)
}

/// Locks so many MiB into memory.
pub fn lock(mib: u64) -> Outcome {
    sys::memory::lock(bytes(mib)?).map_err(|e| format!("lock {mib} MiB: {e:?}"))?;
    Ok(format!("locked {mib} MiB").into_bytes())
}

/// Has the kernel fill in so many MiB at once.
pub fn populate(mib: u64) -> Outcome {
    sys::memory::populate(bytes(mib)?).map_err(|e| format!("populate {mib} MiB: {e:?}"))?;
    Ok(format!("populated {mib} MiB").into_bytes())
}

/// Puts so many MiB into pipes that nobody reads.
pub fn pipes(mib: u64) -> Outcome {
    let mut held = Vec::new();
    let chunk = vec![0xa5; 4096];
    let mut taken = 0;
    while taken < bytes(mib)? {
        let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK)
            .map_err(|e| format!("pipe after {} KiB: {e:?}", taken / 1024))?;
        let mut pipe = File::from(writer);
        for _ in 0..PIPE_BYTES / chunk.len() {
            // Over the user's soft limit a pipe has two pages.
            let Ok(written) = pipe.write(&chunk) else { break };
            taken += written;
        }
        held.push((reader, pipe));
    }
    Ok(format!("{} MiB in {} pipes", taken / MIB, held.len()).into_bytes())
}

/// Puts so many MiB into local sockets that nobody reads.
pub fn sockets(mib: u64) -> Outcome {
    let mut held = Vec::new();
    let chunk = vec![0xa5; 32 * 1024];
    let mut taken = 0;
    while taken < bytes(mib)? {
        let (mut one, other) = UnixStream::pair().map_err(|e| format!("pair after {} KiB: {e}", taken / 1024))?;
        one.set_nonblocking(true).map_err(|e| e.to_string())?;
        while let Ok(written) = one.write(&chunk) {
            taken += written;
        }
        held.push((one, other));
    }
    Ok(format!("{} MiB in {} pairs", taken / MIB, held.len()).into_bytes())
}

/// Sends so many descriptors into a socket that nobody reads: there they are no longer among its own.
pub fn descriptors(count: u64) -> Outcome {
    let (one, _other) = UnixStream::pair().map_err(|e| e.to_string())?;
    one.set_nonblocking(true).map_err(|e| e.to_string())?;
    let mut sent = 0;
    while sent < count {
        let many = [one.as_raw_fd(); 250];
        let message = [ControlMessage::ScmRights(&many)];
        sendmsg::<()>(one.as_raw_fd(), &[IoSlice::new(b"x")], &message, MsgFlags::empty(), None)
            .map_err(|e| format!("descriptors after {sent}: {e:?}"))?;
        sent += 250;
    }
    Ok(format!("sent {sent}").into_bytes())
}

/// Reads one byte in each 2 MiB of so many GiB of nothing: the byte costs nothing, the page table above it a page.
pub fn tables(gib: u64) -> Outcome {
    let pages = sys::memory::read_sparsely(bytes(gib * 1024)?).map_err(|e| format!("map {gib} GiB: {e:?}"))?;
    Ok(format!("read {pages} pages").into_bytes())
}

/// Reads a file from its beginning to its end.
pub fn read_through(path: &str) -> Outcome {
    let mut file = File::open(path).map_err(|e| format!("open: {e}"))?;
    let read = std::io::copy(&mut file, &mut std::io::sink()).map_err(|e| format!("read: {e}"))?;
    Ok(format!("read {} MiB", read / MIB as u64).into_bytes())
}

/// Puts so many MiB of a word's copies into memory, into a file that is nowhere, into /tmp, a pipe and a socket; as long as the
/// process lives.
pub fn leave(word: &str, mib: u64) -> Outcome {
    let copies = word.repeat(bytes(mib)? / word.len());
    let mut nowhere = File::from(memfd_create(c"left", MFdFlags::empty()).map_err(|e| format!("memfd: {e:?}"))?);
    nowhere.write_all(copies.as_bytes()).map_err(|e| format!("memfd: {e}"))?;
    std::fs::write("/tmp/left", &copies).map_err(|e| format!("write /tmp/left: {e}"))?;
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).map_err(|e| format!("pipe: {e:?}"))?;
    let (mut one, other) = UnixStream::pair().map_err(|e| format!("pair: {e}"))?;
    one.set_nonblocking(true).map_err(|e| e.to_string())?;
    // As much as goes in.
    let into_pipe = nix::unistd::write(&writer, copies.as_bytes()).map_err(|e| format!("pipe: {e:?}"))?;
    let into_socket = one.write(copies.as_bytes()).map_err(|e| format!("socket: {e}"))?;
    std::mem::forget((copies, nowhere, reader, writer, one, other));
    Ok(format!("left {into_pipe} and {into_socket} bytes beside").into_bytes())
}

/// Takes so many MiB in several ways and looks for a word that somebody has left there; or for one that it has put there itself.
pub fn glean(word: &str, mib: u64, own: bool) -> Outcome {
    let mut found = Vec::new();
    let holds = |memory: &[u8]| memory.windows(word.len()).any(|window| window == word.as_bytes());
    for (name, shared) in [("private", false), ("shared", true)] {
        let memory = sys::memory::take(bytes(mib)?, shared).map_err(|e| format!("{name}: {e:?}"))?;
        if own {
            let at = memory.len() / 2;
            memory[at..at + word.len()].copy_from_slice(word.as_bytes());
        }
        found.extend(holds(memory).then_some(name));
    }
    // Holes of files, of which the kernel makes pages when they are read.
    let nowhere = File::from(memfd_create(c"gleaned", MFdFlags::empty()).map_err(|e| format!("memfd: {e:?}"))?);
    let file = File::options().read(true).write(true).create(true).truncate(true).open("/tmp/gleaned");
    for (name, mut file) in [("memfd", nowhere), ("file", file.map_err(|e| format!("/tmp/gleaned: {e}"))?)] {
        file.set_len(mib * MIB as u64).map_err(|e| format!("{name}: {e}"))?;
        // So that the pages around it are there as well, and of the file's own.
        file.write_all(if own { word.as_bytes() } else { b"x" }).map_err(|e| format!("{name}: {e}"))?;
        file.rewind().map_err(|e| format!("{name}: {e}"))?;
        let mut memory = Vec::new();
        file.read_to_end(&mut memory).map_err(|e| format!("{name}: {e}"))?;
        found.extend(holds(&memory).then_some(name));
    }
    std::fs::remove_file("/tmp/gleaned").map_err(|e| format!("/tmp/gleaned: {e}"))?;
    Ok(found.join(" ").into_bytes())
}
