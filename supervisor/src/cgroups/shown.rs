//! The limits of a group as its worker is shown them: read at every call, changed seldom.

use std::sync::atomic::{AtomicU64, Ordering};

use sublet_proto::link::sandbox::ShownLimits;

use super::limits::Limits;

/// Where a worker finds its own groups, or below which.
pub const GROUPS_MOUNT: &str = "/sys/fs/cgroup";

/// Stands for a limit that a group does not have.
const NONE: u64 = u64::MAX;

/// Memory and CPU of one group, kept as they are now.
#[derive(Debug)]
pub struct LiveLimits {
    memory_bytes: AtomicU64,
    cpu_millis: AtomicU64,
}

impl LiveLimits {
    /// Of these limits.
    pub fn new(limits: &Limits) -> Self {
        let live = Self { memory_bytes: AtomicU64::new(0), cpu_millis: AtomicU64::new(0) };
        live.set(limits);
        live
    }

    /// They are others now.
    pub fn set(&self, limits: &Limits) {
        self.memory_bytes.store(limits.memory_max.unwrap_or(NONE), Ordering::Relaxed);
        self.cpu_millis.store(limits.cpu.map_or(NONE, |cpu| cpu.share().div_ceil(1000)), Ordering::Relaxed);
    }

    /// As a worker is shown them. A group without a limit of its own memory shows more than any host has.
    pub fn shown(&self) -> ShownLimits {
        let cpu_millis = self.cpu_millis.load(Ordering::Relaxed);
        ShownLimits {
            memory_bytes: self.memory_bytes.load(Ordering::Relaxed),
            cpu_millis: (cpu_millis != NONE).then_some(cpu_millis),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroups::limits::CpuQuota;

    #[test]
    fn what_is_shown_follows_the_limits() {
        let mut limits = Limits { memory_max: Some(64 << 20), ..Limits::default() };
        let live = LiveLimits::new(&limits);
        assert_eq!(live.shown(), ShownLimits { memory_bytes: 64 << 20, cpu_millis: None });
        limits.cpu = Some(CpuQuota::new(250, 100_000, 0));
        live.set(&limits);
        assert_eq!(live.shown(), ShownLimits { memory_bytes: 64 << 20, cpu_millis: Some(250) });
    }
}
