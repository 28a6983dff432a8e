//! The groups beside the pool: the supervisor's own, with limits of its memory, and the runner's.
//!
//! On a hybrid host the supervisor is also in a v1 group for memory, and the runner in one for each controller. The nursery takes
//! the supervisor out of them again when it ends.

use std::{collections::BTreeSet, fs, path::Path};

use nix::unistd::Pid;
use sublet_proto::link::sandbox::{CGROUP_RUNNER, CGROUP_SUPERVISOR};

use super::{super::directory::make, Tree};
use crate::cgroups::{
    CgroupError,
    host::Controller,
    limits::{self, Directories, Knob, Limits},
    write,
};

/// Memory of supervisor and nursery that the kernel takes from nobody else's for: their code, their heap with some hundred
/// workers, and the last log lines. v2 only.
pub const MEMORY_MIN_BYTES: u64 = 64 << 20;
/// Processes and threads of the runner and of all token programs together.
const RUNNER_PIDS: u64 = 512;

/// What the kernel was told about the supervisor's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnMemory {
    /// Hard limit in bytes; none where the memory of the host is not known.
    pub max: Option<u64>,
    /// Guaranteed, in bytes; none on v1, which has no form of it.
    pub min: Option<u64>,
    /// Whether the groups above guarantee as much to ours: v2 passes on no more than they have.
    pub is_min_passed_on: bool,
}

impl Tree {
    /// Limits the memory of the supervisor's own group, which this process and its nursery are in or join.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn limit_own(&mut self, max: Option<u64>, nursery: Pid) -> Result<(), CgroupError> {
        let own = self.beside_pool(CGROUP_SUPERVISOR, &[Controller::Memory]);
        let Some((_, dir, is_unified)) = own.first() else { return Ok(()) };
        let is_unified = *is_unified;
        if !is_unified {
            make(dir)?;
            for pid in ["0".to_owned(), nursery.to_string()] {
                write(&dir.join("cgroup.procs"), &pid)?;
            }
        }
        let new = Limits { memory_max: max, memory_min: is_unified.then_some(MEMORY_MIN_BYTES), ..Limits::default() };
        for knob in [Knob::MemoryMax, Knob::MemoryMin] {
            limits::set(&own, knob, &Limits::default(), &new)?;
        }
        self.own = Some(OwnMemory { max, min: new.memory_min, is_min_passed_on: self.is_passed_on() });
        Ok(())
    }

    /// What holds for the supervisor's own memory.
    pub fn own_memory(&self) -> Option<OwnMemory> {
        self.own
    }

    /// What the group above the pool must guarantee, when the pool is guaranteed this.
    pub(super) fn with_own(&self, pool: Option<u64>) -> Option<u64> {
        match (self.own.and_then(|own| own.min), pool) {
            (None, pool) => pool,
            (Some(own), pool) => Some(own + pool.unwrap_or(0)),
        }
    }

    /// Whether the group our subtree is in guarantees memory; the root of the hierarchy needs none.
    fn is_passed_on(&self) -> bool {
        match fs::read_to_string(Path::new(&self.dirs.unified_parent).join("memory.min")) {
            Ok(text) => text.trim() == "max" || text.trim().parse::<u64>().is_ok_and(|min| min >= MEMORY_MIN_BYTES),
            Err(_) => true,
        }
    }

    /// Puts the runner, which has started nothing yet, into a group of its own, and what it will start with it. The
    /// nursery ends all that is in there.
    ///
    /// # Errors
    /// When a group or a limit is refused.
    pub fn hold_runner(&self, pid: u32) -> Result<(), CgroupError> {
        let groups = self.beside_pool(CGROUP_RUNNER, &Controller::ALL);
        let unified = Path::new(&self.dirs.unified).join(CGROUP_RUNNER);
        let all: BTreeSet<&Path> = groups.iter().map(|(_, dir, _)| dir.as_path()).chain([unified.as_path()]).collect();
        for dir in &all {
            make(dir)?;
        }
        let memory_max = self.own.and_then(|own| own.max);
        let new = Limits { memory_max, pids_max: Some(RUNNER_PIDS), ..Limits::default() };
        for knob in [Knob::MemoryMax, Knob::PidsMax] {
            limits::set(&groups, knob, &Limits::default(), &new)?;
        }
        for dir in all {
            write(&dir.join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Where these controllers keep a group beside the pool.
    fn beside_pool(&self, name: &str, controllers: &[Controller]) -> Directories {
        let whole = self.whole().into_iter().filter(|(controller, ..)| controllers.contains(controller));
        whole.map(|(controller, dir, is_unified)| (controller, dir.join(name), is_unified)).collect()
    }
}
