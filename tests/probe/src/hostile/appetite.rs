//! Verbs that take memory in places where it is easily overlooked. What is taken is held until the verb ends.

use std::{
    fs::File,
    io::{IoSlice, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
};

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
