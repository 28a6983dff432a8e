//! What can be seen of a sandbox from outside. Facts only: the supervisor judges them.

use std::{
    fs, io,
    num::ParseIntError,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{sys::statvfs::statvfs, unistd::Pid};
use sublet_proto::link::nursery::{Posture, ProcessPosture, TmpSpace};

/// Why a sandbox cannot be looked at: it has ended meanwhile, or /proc is not what its manual pages say.
#[derive(Debug, thiserror::Error)]
pub enum PostureError {
    /// No living sandbox has this number.
    #[error("worker {worker} is not alive")]
    NotAlive {
        /// The number of the worker.
        worker: u64,
    },
    /// Before START there are init and the launcher, and nobody else.
    #[error("{others} other processes than init, expected the launcher alone")]
    NotTheLauncherAlone {
        /// Processes of the group that are not init.
        others: usize,
    },
    /// A file could not be read, or looked at.
    #[error("{action} {path}")]
    File {
        /// What was tried: "read", "stat" or "statvfs".
        action: &'static str,
        /// The file or directory.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// A file has another form than expected.
    #[error("{path} is {text:?}")]
    Content {
        /// Its path in /proc.
        path: String,
        /// What is in it.
        text: String,
    },
    /// A line has another form than expected.
    #[error("{file} line {line:?}")]
    Line {
        /// "mountinfo" or "limits".
        file: &'static str,
        /// The line as it was read.
        line: String,
    },
    /// /proc/PID/status lacks a line.
    #[error("/proc/{pid}/status has no {name}")]
    NoField {
        /// Host pid of the process that was looked at.
        pid: i32,
        /// The name before the colon.
        name: String,
    },
    /// A value is no number.
    #[error("{name} of process {pid}")]
    NoNumber {
        /// Host pid of the process that was looked at.
        pid: i32,
        /// The name of the value, with its text where that helps.
        name: String,
        /// Why it is no number.
        source: ParseIntError,
    },
    /// A line of ids has more or fewer than the real, effective, saved and filesystem id.
    #[error("{name} of process {pid} is not four numbers")]
    NotFourIds {
        /// Host pid of the process that was looked at.
        pid: i32,
        /// "Uid" or "Gid".
        name: String,
    },
}

fn file(action: &'static str, path: &str, source: io::Error) -> PostureError {
    PostureError::File { action, path: path.to_owned(), source }
}

const NAMESPACES: [&str; 8] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"];

/// Looks at init and at the one other process of the sandbox, the launcher.
pub fn inspect(init: Pid, cgroup: PathBuf) -> Result<Posture, PostureError> {
    let procs = read(&cgroup.join("cgroup.procs").to_string_lossy())?;
    let others: Vec<&str> = procs.lines().filter(|line| *line != init.to_string()).collect();
    let [function] = others[..] else {
        return Err(PostureError::NotTheLauncherAlone { others: others.len() });
    };
    let function: i32 = function.parse().map_err(|source| PostureError::NoNumber {
        pid: init.as_raw(),
        name: format!("{function:?} in cgroup.procs"),
        source,
    })?;
    Ok(Posture { init: look(init.as_raw())?, function: look(function)? })
}

/// What is left in the /tmp of a living sandbox.
pub fn tmp_space(init: Pid) -> Option<TmpSpace> {
    // /proc/PID/root leads into the sandbox's mounts; its last component is ours (a tmpfs), never a link of the function's.
    let tmp = statvfs(format!("/proc/{init}/root/tmp").as_str()).ok()?;
    Some(TmpSpace { bytes_free: tmp.blocks_available() * tmp.fragment_size(), inodes_free: tmp.files_free() })
}

/// Whether a process of the group has a descriptor under the last number it may have. Numbers are given out from the least,
/// so that all those below are taken as well.
pub fn is_out_of_descriptors(cgroup: &Path, nofile: u64) -> bool {
    let procs = read(&cgroup.join("cgroup.procs").to_string_lossy()).unwrap_or_default();
    let is_out = |pid: &str| fs::symlink_metadata(format!("/proc/{pid}/fd/{}", nofile.saturating_sub(1))).is_ok();
    procs.lines().take(PROCESSES_MAX).any(is_out)
}

/// Processes of a group that are looked at: the nursery has others to serve.
pub const PROCESSES_MAX: usize = 256;

fn read(path: &str) -> Result<String, PostureError> {
    fs::read_to_string(path).map_err(|error| file("read", path, error))
}

fn look(pid: i32) -> Result<ProcessPosture, PostureError> {
    Ok(ProcessPosture {
        namespaces: namespaces(&pid.to_string())?,
        host_namespaces: namespaces("self")?,
        cgroups: cgroups(pid)?,
        mounts: mounts(pid)?,
        descriptors: descriptors(pid)?,
        filesystems: filesystems(pid)?,
        tmp_size: tmp_size(pid)?,
        limits: limits(pid)?,
        oom_score_adj: number(pid, "oom_score_adj")?,
        uid_map: table(&read(&format!("/proc/{pid}/uid_map"))?),
        gid_map: table(&read(&format!("/proc/{pid}/gid_map"))?),
        setgroups: read(&format!("/proc/{pid}/setgroups"))?.trim().to_owned(),
        terminal: terminal(pid)?,
        proc_owner: proc_owner(pid)?,
        clock_offsets: clock_offsets(pid)?,
        ..status(pid)?
    })
}

/// What /proc/PID/status says: ids, capabilities, filters, groups, umask. The rest is left empty.
///
/// # Errors
/// When the process is gone, or /proc is not what proc(5) says.
pub fn status(pid: i32) -> Result<ProcessPosture, PostureError> {
    status_of(pid, &read(&format!("/proc/{pid}/status"))?)
}

/// The same, of the file's text.
pub(crate) fn status_of(pid: i32, status: &str) -> Result<ProcessPosture, PostureError> {
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .ok_or_else(|| PostureError::NoField { pid, name: name.to_owned() })
    };
    let no_number = |name: &str| {
        let name = name.to_owned();
        move |source| PostureError::NoNumber { pid, name, source }
    };
    let number = |name: &str| field(name)?.parse::<u32>().map_err(no_number(name));
    let ids = |name: &str| -> Result<[u32; 4], PostureError> {
        let all: Vec<u32> = field(name)?.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        all.try_into().map_err(|_| PostureError::NotFourIds { pid, name: name.to_owned() })
    };
    let mut capabilities = 0;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        capabilities |= u64::from_str_radix(field(set)?, 16).map_err(no_number(set))?;
    }
    Ok(ProcessPosture {
        pid,
        capabilities,
        no_new_privs: number("NoNewPrivs")? == 1,
        seccomp_mode: number("Seccomp")?,
        seccomp_filters: number("Seccomp_filters")?,
        uids: ids("Uid")?,
        gids: ids("Gid")?,
        indirect_branch: field("SpeculationIndirectBranch").unwrap_or_default().to_owned(),
        store_bypass: field("Speculation_Store_Bypass").unwrap_or_default().to_owned(),
        umask: u32::from_str_radix(field("Umask")?, 8).map_err(no_number("Umask"))?,
        groups: field("Groups")?.split_whitespace().filter_map(|id| id.parse().ok()).collect(),
        ..ProcessPosture::default()
    })
}

/// Those the kernel has; a missing one is for the supervisor to judge.
fn namespaces(pid: &str) -> Result<Vec<(String, u64)>, PostureError> {
    let mut found = Vec::new();
    for name in NAMESPACES {
        let path = format!("/proc/{pid}/ns/{name}");
        let link = match fs::read_link(&path) {
            Ok(link) => link.to_string_lossy().into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(file("read", &path, error)),
        };
        let inode = link.split(['[', ']']).nth(1).and_then(|inode| inode.parse().ok());
        found.push((name.to_owned(), inode.ok_or(PostureError::Content { path, text: link })?));
    }
    Ok(found)
}

fn cgroups(pid: i32) -> Result<Vec<(String, String)>, PostureError> {
    Ok(cgroups_of(&read(&format!("/proc/{pid}/cgroup"))?))
}

/// The lines of a /proc/PID/cgroup.
pub(crate) fn cgroups_of(text: &str) -> Vec<(String, String)> {
    text.lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .map(|(controllers, path)| (controllers.to_owned(), path.to_owned()))
        .collect()
}

/// See proc_pid_mountinfo(5): `id parent major:minor root mount-point options ... - type source super-options`.
fn mounts(pid: i32) -> Result<Vec<(String, String, String)>, PostureError> {
    mounts_of(&read(&format!("/proc/{pid}/mountinfo"))?)
}

fn odd_line(file: &'static str, line: &str) -> PostureError {
    PostureError::Line { file, line: line.to_owned() }
}

/// The mounts in the text of a mountinfo file.
pub(crate) fn mounts_of(text: &str) -> Result<Vec<(String, String, String)>, PostureError> {
    text.lines()
        .map(|line| {
            let (mount, filesystem) = line.split_once(" - ").ok_or_else(|| odd_line("mountinfo", line))?;
            let fields: Vec<&str> = mount.split(' ').collect();
            let kind = filesystem.split(' ').next().unwrap_or_default();
            match fields[..] {
                [_, _, _, _, point, options, ..] => Ok((point.to_owned(), kind.to_owned(), options.to_owned())),
                _ => Err(odd_line("mountinfo", line)),
            }
        })
        .collect()
}

/// The directory /proc/PID belongs to the effective uid in any case; the files in it tell.
fn proc_owner(pid: i32) -> Result<u32, PostureError> {
    let path = format!("/proc/{pid}/status");
    fs::metadata(&path).map(|found| found.uid()).map_err(|error| file("stat", &path, error))
}

/// All of /tmp, not only what is left. See [`tmp_space`] for the path.
fn tmp_size(pid: i32) -> Result<(u64, u64), PostureError> {
    let path = format!("/proc/{pid}/root/tmp");
    let tmp = statvfs(path.as_str()).map_err(|error| file("statvfs", &path, error.into()))?;
    Ok((tmp.blocks() * tmp.fragment_size(), tmp.files()))
}

/// The part of mountinfo behind the dash: `type source super-options`.
fn filesystems(pid: i32) -> Result<Vec<(String, String)>, PostureError> {
    let text = read(&format!("/proc/{pid}/mountinfo"))?;
    text.lines()
        .map(|line| {
            let point = line.split(' ').nth(4);
            let options = line.split_once(" - ").and_then(|(_, filesystem)| filesystem.splitn(3, ' ').nth(2));
            let (Some(point), Some(options)) = (point, options) else { return Err(odd_line("mountinfo", line)) };
            Ok((point.to_owned(), options.to_owned()))
        })
        .collect()
}

/// See proc_pid_limits(5): the columns have fixed widths, of which only that of the name matters here.
fn limits(pid: i32) -> Result<Vec<(String, u64, u64)>, PostureError> {
    const NAME_WIDTH: usize = 26;
    let value = |word: Option<&str>| match word? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    let text = read(&format!("/proc/{pid}/limits"))?;
    (text.lines().skip(1))
        .map(|line| {
            let (name, rest) = line.split_at_checked(NAME_WIDTH).ok_or_else(|| odd_line("limits", line))?;
            let mut words = rest.split_whitespace();
            match (value(words.next()), value(words.next())) {
                (Some(soft), Some(hard)) => Ok((name.trim_end().to_owned(), soft, hard)),
                _ => Err(odd_line("limits", line)),
            }
        })
        .collect()
}

fn number(pid: i32, name: &str) -> Result<i32, PostureError> {
    let text = read(&format!("/proc/{pid}/{name}"))?;
    text.trim().parse().map_err(|_| PostureError::Content { path: format!("{name} of process {pid}"), text })
}

/// Columns parted by one space, lines by a comma and a space.
fn table(text: &str) -> String {
    let lines = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
    lines.collect::<Vec<_>>().join(", ")
}

/// The seventh field of /proc/PID/stat; the second, the name, may contain spaces and brackets.
fn terminal(pid: i32) -> Result<i32, PostureError> {
    let text = read(&format!("/proc/{pid}/stat"))?;
    let after_name = text.rsplit_once(") ").map(|(_, rest)| rest);
    let field = after_name.and_then(|rest| rest.split(' ').nth(4)).and_then(|field| field.parse().ok());
    field.ok_or_else(|| PostureError::Content { path: format!("/proc/{pid}/stat"), text })
}

fn clock_offsets(pid: i32) -> Result<Option<String>, PostureError> {
    let path = format!("/proc/{pid}/timens_offsets");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(table(&text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", &path, error)),
    }
}

fn descriptors(pid: i32) -> Result<Vec<i32>, PostureError> {
    let path = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&path).map_err(|error| file("read", &path, error))?;
    let mut found: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_read_as_the_kernel_prints_it() {
        let own = i32::try_from(std::process::id()).unwrap();
        let seen = look(own).unwrap();
        let limit = seen.limits.iter().find(|(name, ..)| name == "Max open files").unwrap();
        let kernels = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!((limit.1, limit.2), kernels);
        assert!(seen.limits.len() >= 16 && seen.limits.iter().any(|(name, ..)| name == "Max realtime timeout"));
        assert!(["allow", "deny"].contains(&seen.setgroups.as_str()), "{}", seen.setgroups);
        assert_eq!(seen.filesystems.len(), seen.mounts.len());
        assert!(seen.uid_map.starts_with("0 "), "{}", seen.uid_map);
    }
}
