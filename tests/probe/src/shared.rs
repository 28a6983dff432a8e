//! Verbs about what is kept with an inode or an open file, and is therefore seen by everybody who has the same one.

use std::{
    fs::File,
    sync::{Mutex, PoisonError},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, Flock, FlockArg, OFlag, fcntl},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};

use crate::Outcome;

static LOCKS: Mutex<Vec<Flock<File>>> = Mutex::new(Vec::new());
static FILES: Mutex<Vec<File>> = Mutex::new(Vec::new());
static WATCH: Mutex<Option<Inotify>> = Mutex::new(None);

fn open(path: &str) -> Result<File, String> {
    File::open(path).map_err(|error| format!("open {path}: {error}"))
}

fn record_lock(kind: i32) -> libc::flock {
    libc::flock { l_type: kind as i16, l_whence: libc::SEEK_SET as i16, l_start: 0, l_len: 0, l_pid: 0 }
}

/// Takes the whole file for itself by flock, and keeps it.
pub fn flock(path: &str) -> Outcome {
    match Flock::lock(open(path)?, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => {
            LOCKS.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
            Ok(b"locked".to_vec())
        }
        Err((_, error)) => Err(format!("flock: {error:?}")),
    }
}

/// Takes a record lock for reading, as SQLite does on a database that it cannot write, and keeps it.
pub fn read_lock(path: &str) -> Outcome {
    let file = open(path)?;
    fcntl(&file, FcntlArg::F_SETLK(&record_lock(libc::F_RDLCK))).map_err(|error| format!("F_SETLK: {error:?}"))?;
    FILES.lock().unwrap_or_else(PoisonError::into_inner).push(file);
    Ok(b"locked".to_vec())
}

/// Whether a record lock of anybody else would be in the way of writing: "free" or "held".
pub fn look_for_locks(path: &str) -> Outcome {
    let mut lock = record_lock(libc::F_WRLCK);
    fcntl(&open(path)?, FcntlArg::F_GETLK(&mut lock)).map_err(|error| format!("F_GETLK: {error:?}"))?;
    Ok(if i32::from(lock.l_type) == libc::F_UNLCK { b"free".to_vec() } else { b"held".to_vec() })
}

/// Watches for openings from now on.
pub fn watch(path: &str) -> Outcome {
    let failed = |error: Errno| format!("inotify: {error:?}");
    let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map_err(failed)?;
    inotify.add_watch(path, AddWatchFlags::IN_OPEN | AddWatchFlags::IN_ACCESS).map_err(failed)?;
    *WATCH.lock().unwrap_or_else(PoisonError::into_inner) = Some(inotify);
    Ok(b"watching".to_vec())
}

/// How many things were seen since the last time.
pub fn watched() -> Outcome {
    let watch = WATCH.lock().unwrap_or_else(PoisonError::into_inner);
    let mut count = 0;
    loop {
        match watch.as_ref().ok_or("nothing is watched")?.read_events() {
            Ok(events) => count += events.len(),
            Err(Errno::EAGAIN) => return Ok(count.to_string().into_bytes()),
            Err(error) => return Err(format!("inotify: {error:?}")),
        }
    }
}

/// Sets O_APPEND on its stdin, a flag of the open file.
pub fn mark_stdin() -> Outcome {
    fcntl(std::io::stdin(), FcntlArg::F_SETFL(OFlag::O_APPEND)).map_err(|error| format!("F_SETFL: {error:?}"))?;
    stdin_flags()
}

/// Whether O_APPEND is set on its stdin.
pub fn stdin_flags() -> Outcome {
    let flags = fcntl(std::io::stdin(), FcntlArg::F_GETFL).map_err(|error| format!("F_GETFL: {error:?}"))?;
    Ok(if flags & libc::O_APPEND == 0 { b"plain".to_vec() } else { b"marked".to_vec() })
}
