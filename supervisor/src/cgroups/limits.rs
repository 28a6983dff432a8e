//! The limits of one level, and how each is written into wherever the host keeps its controller: through cgroups-rs, and
//! by hand what that lacks.

use std::path::{Path, PathBuf};

use cgroups_rs::{MaxValue, cpu::CpuController, memory::MemController, pid::PidController};

use super::{CgroupError, host::Controller, write};

/// CPU time per period.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuQuota {
    /// Microseconds of CPU time in each period.
    pub quota_us: u64,
    /// Length of a period in microseconds.
    pub period_us: u64,
    /// Microseconds that may be saved up for later periods.
    pub burst_us: u64,
}

impl CpuQuota {
    /// Least quota the kernel takes.
    const QUOTA_MIN_US: u64 = 1000;
    /// Longest period the kernel takes.
    const PERIOD_MAX_US: u64 = 1_000_000;

    /// Thousandths of one CPU, counted over `period_us`; over a longer time where the kernel's least quota would give more.
    pub fn new(millis: u64, period_us: u64, burst_us: u64) -> Self {
        let millis = millis.max(1);
        let period_us = period_us.max(Self::QUOTA_MIN_US * 1000 / millis).min(Self::PERIOD_MAX_US);
        let quota_us = (millis * period_us / 1000).max(Self::QUOTA_MIN_US);
        Self { quota_us, period_us, burst_us: burst_us.min(quota_us) }
    }

    /// Millionths of one CPU.
    pub fn share(&self) -> u64 {
        self.quota_us.saturating_mul(1_000_000) / self.period_us.max(1)
    }
}

/// Limits of one level; none means "the parent's".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub memory_max: Option<u64>,
    /// Bytes; v2 only.
    pub memory_high: Option<u64>,
    /// Bytes; v2 only.
    pub memory_min: Option<u64>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
    /// CPU time.
    pub cpu: Option<CpuQuota>,
    /// 1 to 10,000, 100 is normal.
    pub cpu_weight: Option<u64>,
}

/// One of the limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Knob {
    /// Hard limit of memory.
    MemoryMax,
    /// Where memory is given back.
    MemoryHigh,
    /// Memory that is guaranteed.
    MemoryMin,
    /// Processes and threads.
    PidsMax,
    /// CPU time.
    Cpu,
    /// Share of CPU.
    CpuWeight,
}

impl Knob {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::MemoryMax, Self::MemoryHigh, Self::MemoryMin, Self::PidsMax, Self::Cpu, Self::CpuWeight];

    /// The configuration's key.
    pub const fn key(self) -> &'static str {
        match self {
            Self::MemoryMax => "memory_max",
            Self::MemoryHigh => "memory_high",
            Self::MemoryMin => "memory_min",
            Self::PidsMax => "pids_max",
            Self::Cpu => "cpu_quota",
            Self::CpuWeight => "cpu_weight",
        }
    }

    /// Which controller keeps it.
    pub const fn controller(self) -> Controller {
        match self {
            Self::MemoryMax | Self::MemoryHigh | Self::MemoryMin => Controller::Memory,
            Self::PidsMax => Controller::Pids,
            Self::Cpu | Self::CpuWeight => Controller::Cpu,
        }
    }

    /// The file that keeps it; none where this kind of hierarchy has no form of it.
    pub const fn file(self, unified: bool) -> Option<&'static str> {
        match (self, unified) {
            (Self::MemoryMax, true) => Some("memory.max"),
            (Self::MemoryMax, false) => Some("memory.limit_in_bytes"),
            (Self::MemoryHigh, true) => Some("memory.high"),
            (Self::MemoryMin, true) => Some("memory.min"),
            (Self::MemoryHigh | Self::MemoryMin, false) => None,
            (Self::PidsMax, _) => Some("pids.max"),
            (Self::Cpu, true) => Some("cpu.max"),
            (Self::Cpu, false) => Some("cpu.cfs_quota_us"),
            (Self::CpuWeight, true) => Some("cpu.weight"),
            (Self::CpuWeight, false) => Some("cpu.shares"),
        }
    }

    /// Whether `new` allows less than `old`.
    pub fn is_lowered(self, old: &Limits, new: &Limits) -> bool {
        // None is the most there is; a guarantee of none is the least.
        let most = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        let of = |limits: &Limits| match self {
            Self::MemoryMax => most(limits.memory_max),
            Self::MemoryHigh => most(limits.memory_high),
            Self::MemoryMin => limits.memory_min.unwrap_or(0),
            Self::PidsMax => most(limits.pids_max),
            Self::Cpu => most(limits.cpu.map(|cpu| cpu.share())),
            Self::CpuWeight => limits.cpu_weight.unwrap_or(100),
        };
        of(new) < of(old)
    }

    fn is_same(self, old: &Limits, new: &Limits) -> bool {
        match self {
            Self::MemoryMax => old.memory_max == new.memory_max,
            Self::MemoryHigh => old.memory_high == new.memory_high,
            Self::MemoryMin => old.memory_min == new.memory_min,
            Self::PidsMax => old.pids_max == new.pids_max,
            Self::Cpu => old.cpu == new.cpu,
            Self::CpuWeight => old.cpu_weight == new.cpu_weight,
        }
    }

    /// Takes this one over from other limits.
    pub const fn copy(self, from: &Limits, to: &mut Limits) {
        match self {
            Self::MemoryMax => to.memory_max = from.memory_max,
            Self::MemoryHigh => to.memory_high = from.memory_high,
            Self::MemoryMin => to.memory_min = from.memory_min,
            Self::PidsMax => to.pids_max = from.pids_max,
            Self::Cpu => to.cpu = from.cpu,
            Self::CpuWeight => to.cpu_weight = from.cpu_weight,
        }
    }

    /// Those that differ.
    pub fn changed(old: &Limits, new: &Limits) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(|knob| !knob.is_same(old, new))
    }
}

/// Where one level's limits are written: a directory per controller, and whether it is v2.
pub type Directories = Vec<(Controller, PathBuf, bool)>;

/// Writes all limits of a new group that are given.
///
/// # Errors
/// The first that the kernel refuses.
pub fn apply(directories: &Directories, limits: &Limits, kill_as_one: bool) -> Result<(), CgroupError> {
    for (controller, dir, unified) in directories {
        if (*controller, *unified) == (Controller::Memory, true) {
            whole_memory(dir, kill_as_one)?;
        }
    }
    for knob in Knob::changed(&Limits::default(), limits) {
        set(directories, knob, &Limits::default(), limits)?;
    }
    Ok(())
}

/// Makes one limit of a group what `new` says, from what `old` says; one that is given no more is lifted. One that has no
/// form in the group's hierarchy is left alone: whoever asks for it has been told.
///
/// # Errors
/// What the kernel says, for example to memory below what is in use on v1.
pub fn set(directories: &Directories, knob: Knob, old: &Limits, new: &Limits) -> Result<(), CgroupError> {
    let wanted = knob.controller();
    let Some((_, dir, unified)) = directories.iter().find(|(controller, ..)| *controller == wanted) else {
        return Ok(());
    };
    let unified = *unified;
    match knob {
        Knob::MemoryMax => memory_max(dir, unified, new.memory_max),
        Knob::MemoryHigh if unified => write(&dir.join("memory.high"), &or(new.memory_high, "max")),
        Knob::MemoryMin if unified => write(&dir.join("memory.min"), &or(new.memory_min, "0")),
        Knob::MemoryHigh | Knob::MemoryMin => Ok(()),
        Knob::PidsMax => {
            let max = new.pids_max.map_or(MaxValue::Max, |max| MaxValue::Value(signed(max)));
            PidController::new(dir.clone(), unified).set_pid_max(max).map_err(failed("pids_max", dir))
        }
        Knob::Cpu => cpu(dir, unified, old.cpu, new.cpu),
        Knob::CpuWeight => {
            let weight = new.cpu_weight.unwrap_or(100);
            if unified {
                return write(&dir.join("cpu.weight"), &weight.to_string());
            }
            CpuController::new(dir.clone(), unified).set_shares(shares(weight)).map_err(failed("cpu_weight", dir))
        }
    }
}

/// v1 shares have 1024 where v2 weights have 100.
pub(super) fn shares(weight: u64) -> u64 {
    (weight * 1024 / 100).max(2)
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn or(limit: Option<u64>, none: &str) -> String {
    limit.map_or_else(|| none.to_owned(), |limit| limit.to_string())
}

fn failed(setting: &'static str, dir: &Path) -> impl FnOnce(cgroups_rs::error::Error) -> CgroupError {
    let path = dir.display().to_string();
    move |error| CgroupError::Limit { setting, path, error }
}

/// What cgroups-rs lacks: the group dies as one, and nothing of it is swapped or compressed.
pub(super) fn whole_memory(dir: &Path, kill_as_one: bool) -> Result<(), CgroupError> {
    if kill_as_one {
        write(&dir.join("memory.oom.group"), "1")?;
    }
    for file in ["memory.swap.max", "memory.zswap.max"] {
        let path = dir.join(file);
        // Absent on kernels without swap (accounting): then there is nothing to limit, and `doctor` says so.
        if path.exists() {
            write(&path, "0")?;
        }
    }
    Ok(())
}

fn memory_max(dir: &Path, unified: bool, max: Option<u64>) -> Result<(), CgroupError> {
    if unified {
        return match max {
            Some(max) => {
                MemController::new(dir.to_owned(), true).set_limit(signed(max)).map_err(failed("memory_max", dir))
            }
            // cgroups-rs has no word for it.
            None => write(&dir.join("memory.max"), "max"),
        };
    }
    // v1: memory plus swap is limited to the same, so that no swap is left. The sum is never below memory alone, so the
    // order depends on the direction: one of the two fits.
    tcp_memory_max(dir, max)?;
    let value = or(max, "-1");
    let (memory, both) = (dir.join("memory.limit_in_bytes"), dir.join("memory.memsw.limit_in_bytes"));
    if !both.exists() {
        return write(&memory, &value);
    }
    if write(&memory, &value).is_ok() {
        return write(&both, &value);
    }
    write(&both, &value)?;
    write(&memory, &value)
}

/// v1 does not count buffers of TCP sockets as memory of the group: a worker whose functions fill connections on its own
/// loopback holds them beside its limit. They have a limit of their own, which is a part of the memory limit. v2 counts them
/// with all other memory, and needs none.
fn tcp_memory_max(dir: &Path, memory_max: Option<u64>) -> Result<(), CgroupError> {
    let file = dir.join(TCP_MEMORY_FILE);
    if !file.exists() {
        // Said by `doctor`: the kernel counts them nowhere.
        return Ok(());
    }
    write(&file, &or(memory_max.map(tcp_memory_max_of), "-1"))
}

/// File of v1's memory controller that limits buffers of TCP sockets, in bytes.
pub const TCP_MEMORY_FILE: &str = "memory.kmem.tcp.limit_in_bytes";
/// Part of a memory limit that buffers of TCP sockets may take beside it, as a divisor.
const TCP_MEMORY_PART: u64 = 8;
/// They may take so much in any case, in bytes: a payload of the Lambda Runtime API travels through the worker's loopback.
const TCP_MEMORY_MIN_BYTES: u64 = 4 * 1024 * 1024;

pub(super) fn tcp_memory_max_of(memory_max: u64) -> u64 {
    (memory_max / TCP_MEMORY_PART).max(TCP_MEMORY_MIN_BYTES)
}

fn cpu(dir: &Path, unified: bool, old: Option<CpuQuota>, new: Option<CpuQuota>) -> Result<(), CgroupError> {
    let burst = |quota: Option<CpuQuota>| quota.map_or(0, |quota| quota.burst_us);
    let burst_file = dir.join(if unified { "cpu.max.burst" } else { "cpu.cfs_burst_us" });
    // A burst is never above the quota, at no moment.
    if burst(old) > 0 && burst_file.exists() {
        write(&burst_file, "0")?;
    }
    if unified {
        let value = new.map_or_else(|| "max".to_owned(), |new| format!("{} {}", new.quota_us, new.period_us));
        write(&dir.join("cpu.max"), &value)?;
    } else {
        let controller = CpuController::new(dir.to_owned(), false);
        let is_same_period = old.map(|old| old.period_us) == new.map(|new| new.period_us);
        if !is_same_period {
            // v1 holds every group's share against its parent's at each write, and the two halves of a share are written
            // one after the other: without a quota there is nothing to hold in between.
            controller.set_cfs_quota(-1).map_err(failed("cpu_quota", dir))?;
        }
        if let Some(new) = new {
            if !is_same_period {
                controller.set_cfs_period(new.period_us).map_err(failed("cpu_period", dir))?;
            }
            controller.set_cfs_quota(signed(new.quota_us)).map_err(failed("cpu_quota", dir))?;
        }
    }
    if burst(new) > 0 && burst_file.exists() {
        write(&burst_file, &burst(new).to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quota_is_what_was_asked_for_even_below_the_kernels_least() {
        let quota = |millis| CpuQuota::new(millis, 20_000, 0);
        assert_eq!(quota(1000), CpuQuota { quota_us: 20_000, period_us: 20_000, burst_us: 0 });
        assert_eq!(quota(50), CpuQuota { quota_us: 1000, period_us: 20_000, burst_us: 0 });
        // 10m of 20 ms would be 0.2 ms: the kernel takes no less than 1 ms, which is 10m of 100 ms.
        assert_eq!(quota(10), CpuQuota { quota_us: 1000, period_us: 100_000, burst_us: 0 });
        assert_eq!(quota(10).share(), 10_000);
    }

    #[test]
    fn tcp_buffers_have_an_eighth_of_the_memory_and_four_mebibytes_at_least() {
        assert_eq!(tcp_memory_max_of(256 << 20), 32 << 20);
        assert_eq!(tcp_memory_max_of((32 << 20) + 8), (4 << 20) + 1);
        assert_eq!(tcp_memory_max_of(32 << 20), 4 << 20);
        assert_eq!(tcp_memory_max_of(1 << 20), 4 << 20);
    }

    #[test]
    fn direction_of_a_change_is_seen_through_none() {
        let with = |memory_max| Limits { memory_max, ..Limits::default() };
        assert!(Knob::MemoryMax.is_lowered(&with(None), &with(Some(5))));
        assert!(!Knob::MemoryMax.is_lowered(&with(Some(5)), &with(None)));
        let min = |memory_min| Limits { memory_min, ..Limits::default() };
        assert!(Knob::MemoryMin.is_lowered(&min(Some(5)), &min(None)));
        let changed: Vec<Knob> = Knob::changed(&with(Some(5)), &min(Some(5))).collect();
        assert_eq!(changed, [Knob::MemoryMax, Knob::MemoryMin]);
    }
}
