//! What can be seen of a sandbox from outside. Facts only: the supervisor judges them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::{sys::statvfs::statvfs, unistd::Pid};
use sublet_proto::link::nursery::{Posture, ProcessPosture, TmpSpace};

const NAMESPACES: [&str; 8] = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"];

/// Looks at init and at the one other process of the sandbox, the launcher.
pub fn inspect(init: Pid, cgroup: PathBuf) -> Result<Posture, String> {
    let procs = read(&cgroup.join("cgroup.procs").to_string_lossy())?;
    let others: Vec<&str> = procs.lines().filter(|line| *line != init.to_string()).collect();
    let [function] = others[..] else {
        return Err(format!("{} other processes than init, expected the launcher alone", others.len()));
    };
    let function: i32 = function.parse().map_err(|e| format!("pid {function:?}: {e}"))?;
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
const PROCESSES_MAX: usize = 256;

fn read(path: &str) -> Result<String, String> {
    fs::read_to_string(path).map_err(|e| format!("read {path}: {e}"))
}

fn look(pid: i32) -> Result<ProcessPosture, String> {
    Ok(ProcessPosture {
        namespaces: namespaces(&pid.to_string())?,
        host_namespaces: namespaces("self")?,
        cgroups: cgroups(pid)?,
        mounts: mounts(pid)?,
        descriptors: descriptors(pid)?,
        ..status(pid)?
    })
}

/// What /proc/PID/status says: ids, capabilities, filters, groups. The rest is left empty.
///
/// # Errors
/// When the process is gone, or /proc is not what proc(5) says.
pub fn status(pid: i32) -> Result<ProcessPosture, String> {
    let status = read(&format!("/proc/{pid}/status"))?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .map(str::trim)
            .ok_or_else(|| format!("/proc/{pid}/status has no {name}"))
    };
    let number = |name: &str| field(name)?.parse::<u32>().map_err(|e| format!("{name} of process {pid}: {e}"));
    let ids = |name: &str| -> Result<[u32; 4], String> {
        let all: Vec<u32> = field(name)?.split_whitespace().filter_map(|id| id.parse().ok()).collect();
        all.try_into().map_err(|_| format!("{name} of process {pid} is not four numbers"))
    };
    let mut capabilities = 0;
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        capabilities |= u64::from_str_radix(field(set)?, 16).map_err(|e| format!("{set} of process {pid}: {e}"))?;
    }
    Ok(ProcessPosture {
        pid,
        capabilities,
        no_new_privs: number("NoNewPrivs")? == 1,
        seccomp_mode: number("Seccomp")?,
        seccomp_filters: number("Seccomp_filters")?,
        uids: ids("Uid")?,
        gids: ids("Gid")?,
        groups: field("Groups")?.split_whitespace().filter_map(|id| id.parse().ok()).collect(),
        ..ProcessPosture::default()
    })
}

/// Those the kernel has; a missing one is for the supervisor to judge.
fn namespaces(pid: &str) -> Result<Vec<(String, u64)>, String> {
    let mut found = Vec::new();
    for name in NAMESPACES {
        let path = format!("/proc/{pid}/ns/{name}");
        let link = match fs::read_link(&path) {
            Ok(link) => link.to_string_lossy().into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("read {path}: {error}")),
        };
        let inode = link.split(['[', ']']).nth(1).and_then(|inode| inode.parse().ok());
        found.push((name.to_owned(), inode.ok_or_else(|| format!("{path} is {link:?}"))?));
    }
    Ok(found)
}

fn cgroups(pid: i32) -> Result<Vec<(String, String)>, String> {
    let text = read(&format!("/proc/{pid}/cgroup"))?;
    Ok(text
        .lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .map(|(controllers, path)| (controllers.to_owned(), path.to_owned()))
        .collect())
}

/// See proc_pid_mountinfo(5): `id parent major:minor root mount-point options ... - type source super-options`.
fn mounts(pid: i32) -> Result<Vec<(String, String, String)>, String> {
    let text = read(&format!("/proc/{pid}/mountinfo"))?;
    text.lines()
        .map(|line| {
            let (mount, filesystem) = line.split_once(" - ").ok_or_else(|| format!("mountinfo line {line:?}"))?;
            let fields: Vec<&str> = mount.split(' ').collect();
            let kind = filesystem.split(' ').next().unwrap_or_default();
            match fields[..] {
                [_, _, _, _, point, options, ..] => Ok((point.to_owned(), kind.to_owned(), options.to_owned())),
                _ => Err(format!("mountinfo line {line:?}")),
            }
        })
        .collect()
}

fn descriptors(pid: i32) -> Result<Vec<i32>, String> {
    let path = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&path).map_err(|e| format!("read {path}: {e}"))?;
    let mut found: Vec<i32> = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    found.sort_unstable();
    Ok(found)
}
