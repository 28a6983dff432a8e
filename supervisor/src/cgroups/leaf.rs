//! One worker's group: freeze, kill, and what it used.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use sublet_proto::link::group::GroupPath;

use super::reading::Reading;
use super::{CgroupError, counters::Counters, host::Controller, limits::Directories};
use crate::reserve::with_reserve;

/// Longest that is read of a file of events: a dozen short lines.
const EVENTS_MAX_BYTES: usize = 512;

/// One worker's group. Files used for every call are kept open.
#[derive(Debug)]
pub struct Leaf {
    name: GroupPath,
    unified: PathBuf,
    directories: Directories,
    freeze: File,
    counters: Counters,
    memory_peak: Option<File>,
    memory_events: Option<File>,
    pids_events: Option<File>,
}

/// Counters that tell which limit bit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bites {
    /// Processes the kernel killed because the memory limit was passed.
    pub oom_kills: u64,
    /// Forks refused by the pids limit.
    pub pids_refused: u64,
}

impl Bites {
    /// Those that came after `before` was read. Counters of a group that is gone read as zero, and give none.
    pub const fn since(self, before: Self) -> Self {
        Self {
            oom_kills: self.oom_kills.saturating_sub(before.oom_kills),
            pids_refused: self.pids_refused.saturating_sub(before.pids_refused),
        }
    }
}

impl Leaf {
    pub(super) fn open(name: &GroupPath, unified: &Path, directories: Directories) -> Result<Self, CgroupError> {
        let freeze = unified.join("cgroup.freeze");
        let leaf = Self {
            name: name.clone(),
            unified: unified.to_owned(),
            freeze: OpenOptions::new().write(true).open(&freeze).map_err(CgroupError::os("open", &freeze))?,
            counters: Counters::open(&directories),
            memory_peak: open(&directories, Controller::Memory, "memory.peak", "memory.max_usage_in_bytes"),
            memory_events: open(&directories, Controller::Memory, "memory.events", "memory.oom_control"),
            pids_events: open(&directories, Controller::Pids, "pids.events", "pids.events"),
            directories,
        };
        Ok(leaf)
    }

    /// Path relative to the pool.
    pub fn name(&self) -> &GroupPath {
        &self.name
    }

    /// Path in the v2 hierarchy.
    pub fn unified_path(&self) -> &Path {
        &self.unified
    }

    /// Stops every process of the group. The kernel does it soon, not before the write returns.
    ///
    /// # Errors
    /// What the write says.
    pub fn freeze(&self) -> io::Result<()> {
        self.freeze.write_all_at(b"1", 0)
    }

    /// Lets them run again.
    ///
    /// # Errors
    /// What the write says.
    pub fn thaw(&self) -> io::Result<()> {
        self.freeze.write_all_at(b"0", 0)
    }

    /// What its own switch says; none when that is gone.
    pub fn is_set_frozen(&self) -> Option<bool> {
        let text = fs::read_to_string(self.unified.join("cgroup.freeze")).ok()?;
        Some(text.trim() == "1")
    }

    /// Whether its processes stand still, by its own switch or that of a group above.
    pub fn is_frozen(&self) -> bool {
        fs::read_to_string(self.unified.join("cgroup.events"))
            .is_ok_and(|events| events.lines().any(|line| line == "frozen 1"))
    }

    /// Kills every process of the group, frozen or not.
    ///
    /// # Errors
    /// What the write says; a group that is gone is none.
    pub fn kill(&self) -> io::Result<()> {
        with_reserve(|| sublet_shim::cgroups::kill(&self.unified))
    }

    /// Whether a living process is in the group.
    pub fn is_populated(&self) -> bool {
        with_reserve(|| sublet_shim::cgroups::is_populated(&self.unified)).unwrap_or(true)
    }

    /// The file that counts how often its own memory limit bit; v2 only.
    pub fn memory_events_local(&self) -> Option<PathBuf> {
        let (dir, unified) = self.directory(Controller::Memory)?;
        unified.then(|| dir.join("memory.events.local"))
    }

    /// Processes in the group, by number.
    pub fn members(&self) -> Vec<i32> {
        let text = fs::read_to_string(self.unified.join("cgroup.procs")).unwrap_or_default();
        let mut members: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        members.sort_unstable();
        members
    }

    /// CPU time used so far; none where the host does not account it.
    pub fn cpu(&self) -> Option<Duration> {
        self.counters.cpu()
    }

    /// Whether the host accounts CPU time.
    pub const fn accounts_cpu(&self) -> bool {
        self.counters.accounts_cpu()
    }

    /// What its counters say now; none when the group is gone, or the host does not account CPU time.
    pub fn reading(&self) -> Option<Reading> {
        self.counters.reading()
    }

    /// Highest memory so far in bytes; 0 where the kernel does not keep it.
    pub fn memory_peak_bytes(&self) -> u64 {
        let mut buffer = [0; 32];
        let mut read = || {
            let length = self.memory_peak.as_ref()?.read_at(&mut buffer, 0).ok()?;
            std::str::from_utf8(&buffer[..length]).ok()?.trim().parse().ok()
        };
        read().unwrap_or(0)
    }

    /// Memory in use in bytes; 0 where the host does not account it.
    pub fn memory_bytes(&self) -> u64 {
        self.number(Controller::Memory, "memory.current", "memory.usage_in_bytes")
    }

    /// Processes and threads now.
    pub fn processes(&self) -> u64 {
        self.number(Controller::Pids, "pids.current", "pids.current")
    }

    /// Which limits bit so far. Read when a call is delivered and when it ends.
    pub fn bites(&self) -> Bites {
        Bites {
            oom_kills: keyed(self.memory_events.as_ref(), "oom_kill"),
            pids_refused: keyed(self.pids_events.as_ref(), "max"),
        }
    }

    /// The limits as the kernel holds them: (setting, file, value).
    pub fn limits(&self) -> Vec<(&'static str, String, String)> {
        let mut found = Vec::new();
        for (controller, dir, unified) in &self.directories {
            let files: &[(&str, &str)] = match (controller, unified) {
                (Controller::Memory, true) => &[
                    ("memory_max", "memory.max"),
                    ("memory_high", "memory.high"),
                    ("memory_max", "memory.oom.group"),
                    ("memory_max", "memory.swap.max"),
                ],
                (Controller::Memory, false) => {
                    &[("memory_max", "memory.limit_in_bytes"), ("memory_max", "memory.memsw.limit_in_bytes")]
                }
                (Controller::Pids, _) => &[("pids_max", "pids.max")],
                (Controller::Cpu, true) => {
                    &[("cpu_quota", "cpu.max"), ("cpu_burst", "cpu.max.burst"), ("cpu_weight", "cpu.weight")]
                }
                (Controller::Cpu, false) => &[
                    ("cpu_quota", "cpu.cfs_quota_us"),
                    ("cpu_quota", "cpu.cfs_period_us"),
                    ("cpu_burst", "cpu.cfs_burst_us"),
                    ("cpu_weight", "cpu.shares"),
                ],
                (Controller::CpuAcct | Controller::Io, _) => &[],
            };
            for (setting, file) in files {
                if let Ok(value) = fs::read_to_string(dir.join(file)) {
                    found.push((*setting, (*file).to_owned(), value.trim().to_owned()));
                }
            }
        }
        found
    }

    fn directory(&self, controller: Controller) -> Option<(&Path, bool)> {
        self.directories.iter().find(|(c, ..)| *c == controller).map(|(_, dir, unified)| (dir.as_path(), *unified))
    }

    fn text(&self, controller: Controller, v2: &str, v1: &str) -> Option<String> {
        let (dir, unified) = self.directory(controller)?;
        fs::read_to_string(dir.join(if unified { v2 } else { v1 })).ok()
    }

    fn number(&self, controller: Controller, v2: &str, v1: &str) -> u64 {
        self.text(controller, v2, v1).and_then(|text| text.trim().parse().ok()).unwrap_or(0)
    }
}

/// One counter of a file of "name value" lines; 0 when it cannot be read.
fn keyed(file: Option<&File>, key: &str) -> u64 {
    let mut buffer = [0; EVENTS_MAX_BYTES];
    let Some(length) = file.and_then(|file| file.read_at(&mut buffer, 0).ok()) else { return 0 };
    let text = std::str::from_utf8(&buffer[..length]).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok()).unwrap_or(0)
}

fn open(directories: &Directories, controller: Controller, v2: &str, v1: &str) -> Option<File> {
    let (_, dir, unified) = directories.iter().find(|(c, ..)| *c == controller)?;
    File::open(dir.join(if *unified { v2 } else { v1 })).ok()
}
