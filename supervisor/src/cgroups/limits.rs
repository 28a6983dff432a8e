//! Writing the limits of one level, through cgroups-rs, into wherever the host keeps the controller.

use std::path::{Path, PathBuf};

use cgroups_rs::{MaxValue, cpu::CpuController, memory::MemController, pid::PidController};

use super::{CgroupError, host::Controller, write};

/// Length of a CPU quota period. Short, so that a throttled call waits at most this long; the kernel's default of 100 ms
/// would be felt as latency.
pub const CPU_PERIOD_US: u64 = 20_000;

/// Limits of one level; none means "the parent's".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Bytes.
    pub memory_max: Option<u64>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
    /// Thousandths of one CPU.
    pub cpu_millis: Option<u64>,
    /// 1 to 10,000, 100 is normal.
    pub cpu_weight: Option<u64>,
}

/// Where one level's limits are written: a directory per controller, and whether it is v2.
pub type Directories = Vec<(Controller, PathBuf, bool)>;

/// Writes all limits that are given.
///
/// # Errors
/// The first that the kernel refuses.
pub fn apply(directories: &Directories, limits: &Limits, kill_as_one: bool) -> Result<(), CgroupError> {
    for (controller, dir, unified) in directories {
        match controller {
            Controller::Memory => memory(dir, *unified, limits, kill_as_one)?,
            Controller::Pids => {
                if let Some(max) = limits.pids_max {
                    PidController::new(dir.clone(), *unified)
                        .set_pid_max(MaxValue::Value(max as i64))
                        .map_err(failed("pids_max", dir))?;
                }
            }
            Controller::Cpu => cpu(dir, *unified, limits)?,
            Controller::CpuAcct => {}
        }
    }
    Ok(())
}

/// Writes all limits of a group that is in use; one that is not given is lifted.
///
/// # Errors
/// The first that the kernel refuses, for example memory below what is in use on v1.
pub fn replace(directories: &Directories, limits: &Limits) -> Result<(), CgroupError> {
    for (controller, dir, unified) in directories {
        match (controller, unified) {
            (Controller::Memory, true) => write(&dir.join("memory.max"), &or(limits.memory_max, "max"))?,
            (Controller::Memory, false) => replace_v1_memory(dir, &or(limits.memory_max, "-1"))?,
            (Controller::Pids, _) => write(&dir.join("pids.max"), &or(limits.pids_max, "max"))?,
            (Controller::Cpu, _) => {
                if limits.cpu_millis.is_none() {
                    let (file, none) = if *unified { ("cpu.max", "max") } else { ("cpu.cfs_quota_us", "-1") };
                    write(&dir.join(file), none)?;
                }
                cpu(dir, *unified, limits)?;
            }
            (Controller::CpuAcct, _) => {}
        }
    }
    Ok(())
}

fn or(limit: Option<u64>, none: &str) -> String {
    limit.map_or_else(|| none.to_owned(), |limit| limit.to_string())
}

/// Memory plus swap is never below memory, so the order depends on the direction: one of the two fits.
fn replace_v1_memory(dir: &Path, value: &str) -> Result<(), CgroupError> {
    let (memory, both) = (dir.join("memory.limit_in_bytes"), dir.join("memory.memsw.limit_in_bytes"));
    if !both.exists() {
        return write(&memory, value);
    }
    if write(&memory, value).is_ok() {
        return write(&both, value);
    }
    write(&both, value)?;
    write(&memory, value)
}

fn failed(setting: &'static str, dir: &Path) -> impl FnOnce(cgroups_rs::error::Error) -> CgroupError {
    let path = dir.display().to_string();
    move |error| CgroupError::Limit { setting, path, error }
}

fn memory(dir: &Path, unified: bool, limits: &Limits, kill_as_one: bool) -> Result<(), CgroupError> {
    if let Some(max) = limits.memory_max {
        MemController::new(dir.to_owned(), unified).set_limit(max as i64).map_err(failed("memory_max", dir))?;
    }
    if unified {
        // What cgroups-rs lacks: the group dies as one, and nothing of it is swapped or compressed.
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
    } else if let Some(max) = limits.memory_max {
        // Memory plus swap: with both limits equal no swap is left.
        let path = dir.join("memory.memsw.limit_in_bytes");
        if path.exists() {
            write(&path, &max.to_string())?;
        }
    }
    Ok(())
}

fn cpu(dir: &Path, unified: bool, limits: &Limits) -> Result<(), CgroupError> {
    let controller = CpuController::new(dir.to_owned(), unified);
    if let Some(weight) = limits.cpu_weight {
        if unified {
            write(&dir.join("cpu.weight"), &weight.to_string())?;
        } else {
            // v1 shares have 1024 where v2 weights have 100.
            controller.set_shares((weight * 1024 / 100).max(2)).map_err(failed("cpu_weight", dir))?;
        }
    }
    if let Some(millis) = limits.cpu_millis {
        let quota = (millis * CPU_PERIOD_US / 1000).max(1000);
        if unified {
            write(&dir.join("cpu.max"), &format!("{quota} {CPU_PERIOD_US}"))?;
        } else {
            controller.set_cfs_period(CPU_PERIOD_US).map_err(failed("cpu_quota", dir))?;
            controller.set_cfs_quota(quota as i64).map_err(failed("cpu_quota", dir))?;
        }
    }
    Ok(())
}
