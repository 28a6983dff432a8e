//! Verbs that reach for others by way of /proc, and by a page that is in every process.

use std::{
    ffi::OsString,
    fs::{self, OpenOptions},
    io::Write as _,
    os::{fd::AsRawFd as _, unix::fs::OpenOptionsExt as _},
    time::{Duration, Instant},
};

use nix::{sys::signal::Signal, unistd::Pid};

use super::sys;
use crate::Outcome;

/// How long a program that was killed may take to be no longer in use.
const PATIENCE: Duration = Duration::from_secs(2);

fn may_open(path: &str) -> bool {
    // Without waiting: some are pipes.
    OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).is_ok()
}

/// Which of a process's entries in /proc can be opened, listed or followed: by the names that this process has itself.
pub fn sweep(pid: &str) -> Outcome {
    let own = fs::read_dir("/proc/self").map_err(|e| format!("list /proc/self: {e}"))?;
    let mut names: Vec<OsString> = own.flatten().map(|entry| entry.file_name()).collect();
    let below = ["ns", "fd", "task"].map(|dir| fs::read_dir(format!("/proc/self/{dir}")).map(|found| (dir, found)));
    for (dir, found) in below.into_iter().flatten() {
        names.extend(found.flatten().map(|entry| format!("{dir}/{}", entry.file_name().display()).into()));
    }
    names.push(format!("task/{pid}/mem").into());
    let mut seen: Vec<String> = names
        .iter()
        .map(|name| format!("/proc/{pid}/{}", name.display()))
        .filter(|path| may_open(path) || fs::read_link(path).is_ok() || fs::read_dir(path).is_ok())
        .collect();
    seen.sort();
    Ok(seen.join("\n").into_bytes())
}

/// Which of these files can be opened for reading.
pub fn first(paths: &[&str]) -> Outcome {
    let seen: Vec<&str> = paths.iter().copied().filter(|path| may_open(path)).collect();
    Ok(seen.join("\n").into_bytes())
}

/// Takes hold of a process's program while it runs, ends the process, and opens the program for writing once it is no longer
/// in use. "self" is this one, which cannot be ended for it.
pub fn program(pid: &str) -> Outcome {
    let held = OpenOptions::new().read(true).custom_flags(libc::O_PATH).open(format!("/proc/{pid}/exe"));
    let held = held.map_err(|e| format!("hold the program of {pid}: {e}"))?;
    if pid != "self" {
        let pid = Pid::from_raw(pid.parse().map_err(|e| format!("{pid}: {e}"))?);
        nix::sys::signal::kill(pid, Signal::SIGKILL).map_err(|e| format!("signal {pid}: {e:?}"))?;
    }
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    let end = Instant::now() + PATIENCE;
    loop {
        match OpenOptions::new().write(true).open(&path) {
            Ok(_) => return Ok(b"it may be written".to_vec()),
            Err(error)
                if error.kind() == std::io::ErrorKind::ExecutableFileBusy && pid != "self" && Instant::now() < end =>
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(format!("open the program for writing: {error}")),
        }
    }
}

/// Writes one of the files that map ids; of a new user namespace, if that is wanted.
pub fn map(name: &str, in_new: bool) -> Outcome {
    let failed =
        |e: std::io::Error| format!("{name}: {:?}", nix::errno::Errno::from_raw(e.raw_os_error().unwrap_or(0)));
    let write = |name: &str, text: &str| {
        let opened = OpenOptions::new().write(true).open(format!("/proc/self/{name}"));
        opened.and_then(|mut file| file.write_all(text.as_bytes())).map_err(failed)
    };
    if in_new {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).map_err(|e| format!("new namespace: {e:?}"))?;
        if name == "gid_map" {
            write("setgroups", "deny")?;
        }
    }
    write(name, if name == "setgroups" { "deny" } else { "0 0 1" })?;
    Ok(b"written".to_vec())
}

/// Makes a call of the vsyscall page; under a filter that refuses it, if that is wanted.
pub fn vsyscall(name: &str, refused: bool) -> Outcome {
    let maps = fs::read_to_string("/proc/self/maps").map_err(|e| e.to_string())?;
    if !maps.contains("[vsyscall]") {
        return Err("there is no such page".into());
    }
    let call = sys::vsyscall::find(name).ok_or_else(|| format!("unknown call {name:?}"))?;
    if refused {
        crate::sys::refuse_call(call.number, libc::EXDEV).map_err(|e| format!("install a filter: {e:?}"))?;
    }
    match sys::vsyscall::call(call) {
        Ok(()) => Ok(b"it worked".to_vec()),
        Err(error) => Err(format!("{name}: {error:?}")),
    }
}
