//! The groups below the pool: made for workers, changed under them, removed after them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    sync::{Arc, MutexGuard, PoisonError},
    time::Duration,
};

use sublet_proto::link::group::GroupPath;
use sublet_shim::cgroups::{remove_tree, try_to_remove_tree};

use super::{super::directory::make, Tree, enable};
use crate::cgroups::{
    CgroupError,
    counters::LevelCounters,
    host::Controller,
    leaf::Leaf,
    limits::{self, Directories, Knob, Limits},
    oom::OomCount,
    owner::Owner,
    shown::LiveLimits,
};

/// One group below the pool, as it was made and changed.
#[derive(Clone, Debug)]
pub struct Group {
    /// Whose it is.
    pub owner: Owner,
    /// What the kernel was told.
    pub limits: Limits,
    /// Groups made in it; none in a worker's own.
    users: usize,
    /// Counts the times its memory limit bit.
    ooms: Arc<OomCount>,
    /// Of a level: what it has used.
    counters: Option<Arc<LevelCounters>>,
    /// Its limits as they are now, for whoever holds on to it.
    live: Arc<LiveLimits>,
}

/// A level that is gone.
#[derive(Clone, Debug)]
pub struct Gone {
    /// Whose it was.
    pub owner: Owner,
    /// CPU time the kernel counted for it.
    pub cpu: Duration,
}

/// A group to be made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where it is to be, below the pool.
    pub path: GroupPath,
    /// Whose it is.
    pub owner: Owner,
    /// Its limits.
    pub limits: Limits,
}

impl Tree {
    /// Makes the group of one worker below its levels, with all limits set, and the levels where they are not there yet.
    ///
    /// # Errors
    /// When a directory or a limit is refused; nothing is left behind then.
    pub fn make_leaf(&self, levels: &[Plan], worker: &Plan) -> Result<Leaf, CgroupError> {
        let leave_above = |path: &GroupPath| path.parent().map(|parent| self.leave_levels(&parent));
        for level in levels {
            if let Err(error) = self.enter_level(level) {
                leave_above(&level.path);
                return Err(error);
            }
        }
        let leaf = &worker.path;
        let made = self
            .make_group(leaf, &worker.limits, true)
            .and_then(|()| Leaf::open(leaf, &self.unified(leaf), self.directories_of(leaf)));
        match made {
            Ok(opened) => {
                self.groups().insert(leaf.clone(), Group::new(worker, 0, OomCount::of_leaf(&opened), None));
                Ok(opened)
            }
            Err(error) => {
                self.remove_group(leaf);
                leave_above(leaf);
                Err(error)
            }
        }
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<GroupPath, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every group below the pool now, by its path; those above before those below.
    pub fn all(&self) -> Vec<(GroupPath, Group)> {
        self.groups().iter().map(|(path, group)| (path.clone(), group.clone())).collect()
    }

    /// A group, if it is there.
    pub fn group(&self, path: &GroupPath) -> Option<Group> {
        self.groups().get(path).cloned()
    }

    /// The group has got its owner.
    pub fn relabel(&self, path: &GroupPath, owner: Owner) {
        if let Some(group) = self.groups().get_mut(path) {
            group.owner = owner;
        }
    }

    /// Makes one limit of a group what `to` says, if the group is there.
    ///
    /// # Errors
    /// What the kernel says. Then the limit is what it was.
    pub fn set(&self, path: &GroupPath, knob: Knob, to: &Limits) -> Result<(), CgroupError> {
        let _writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Group { limits: old, .. }) = self.group(path) else { return Ok(()) };
        let directories = self.directories_of(path);
        let is_unified = directories.iter().any(|(c, _, unified)| (*c, *unified) == (knob.controller(), true));
        let written = if knob == Knob::MemoryMax && is_unified && knob.is_lowered(&old, to) {
            lower_memory(&directories, &old, to)
        } else {
            limits::set(&directories, knob, &old, to)
        };
        if let Err(error) = written {
            // Removed in between, with nobody in it who would need a limit.
            if self.group(path).is_none() {
                return Ok(());
            }
            // Half of it may be written.
            if let Err(error) = limits::set(&directories, knob, to, &old) {
                tracing::error!(group = %path, limit = knob.key(), %error, "a limit cannot be put back");
            }
            return Err(error);
        }
        if let Some(group) = self.groups().get_mut(path) {
            knob.copy(to, &mut group.limits);
            group.live.set(&group.limits);
            if let Some(counters) = group.counters() {
                counters.set_quota(group.limits.cpu.is_some());
            }
        }
        Ok(())
    }

    /// What a group uses now of what a limit is on; none where it is not counted.
    pub fn used(&self, path: &GroupPath, knob: Knob) -> Option<u64> {
        let (file_v2, file_v1) = match knob {
            Knob::MemoryMax => ("memory.current", "memory.usage_in_bytes"),
            Knob::PidsMax => ("pids.current", "pids.current"),
            Knob::MemoryHigh | Knob::MemoryMin | Knob::Cpu | Knob::CpuWeight => return None,
        };
        let directories = self.directories_of(path);
        let (_, dir, unified) = directories.iter().find(|(controller, ..)| *controller == knob.controller())?;
        fs::read_to_string(dir.join(if *unified { file_v2 } else { file_v1 })).ok()?.trim().parse().ok()
    }

    /// Removes a worker's group, which must be empty, and its levels when nothing else is below them.
    /// Returns whether all of the worker's own directories are gone, and what the kernel counted for the levels that went.
    pub fn remove_leaf(&self, leaf: &GroupPath) -> (bool, Vec<Gone>) {
        // First off the list: nobody writes a limit of it from then on.
        self.groups().remove(leaf);
        let gone = self.remove_group(leaf);
        match leaf.parent() {
            Some(level) if gone => (true, self.leave_levels(&level)),
            Some(_) | None => (gone, Vec::new()),
        }
    }

    fn make_group(&self, path: &GroupPath, limits: &Limits, kill_as_one: bool) -> Result<(), CgroupError> {
        for dir in self.directories(path) {
            make(&dir)?;
        }
        limits::apply(&self.directories_of(path), limits, kill_as_one)
    }

    /// Makes a level, or what is missing of it.
    pub(super) fn make_level(&self, path: &GroupPath, limits: &Limits) -> Result<(), CgroupError> {
        for dir in self.directories(path).iter().filter(|dir| !dir.exists()) {
            make(dir)?;
        }
        limits::apply(&self.directories_of(path), limits, false)?;
        let names: BTreeSet<&str> = (self.controllers.iter())
            .filter(|(controller, _, unified)| *unified && *controller != Controller::CpuAcct)
            .map(|(controller, ..)| controller.name())
            .collect();
        enable(&self.unified(path), &names).map(drop)
    }

    fn remove_group(&self, path: &GroupPath) -> bool {
        self.directories(path).iter().all(|dir| remove_tree(dir).is_empty())
    }

    /// Tries to remove levels that nobody needs, those that would not go before among them. Never waits: everybody who makes a
    /// worker would. One that somebody else has put a process into stays until that is gone, and can be used again meanwhile.
    fn sweep(&self, unused: Vec<GroupPath>) {
        let mut stale = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        stale.extend(unused);
        // From the inside out.
        let all: Vec<GroupPath> = stale.iter().rev().cloned().collect();
        for path in all {
            let is_used = self.groups().contains_key(&path);
            if is_used || self.directories(&path).iter().all(|dir| try_to_remove_tree(dir)) {
                stale.remove(&path);
            }
        }
    }

    /// Counts a user of a level, making it for the first.
    fn enter_level(&self, level: &Plan) -> Result<(), CgroupError> {
        let path = &level.path;
        let _shape = self.shape.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.groups().get_mut(path).map(|group| {
            group.users += 1;
            group.limits
        });
        if let Some(limits) = known {
            // Whoever removed it has left others waiting for a place in it.
            if self.directories(path).iter().all(|dir| dir.exists()) {
                return Ok(());
            }
            tracing::warn!(group = %path, "somebody else has removed it; it is made again");
            return self.make_level(path, &limits).inspect_err(|_| {
                if let Some(group) = self.groups().get_mut(path) {
                    group.users -= 1;
                }
            });
        }
        if let Err(error) = self.make_level(path, &level.limits) {
            self.sweep(vec![path.clone()]);
            return Err(error);
        }
        let parent = path.parent().filter(|parent| !parent.is_pool());
        let above = parent.as_ref().and_then(|parent| self.group(parent));
        debug_assert!(parent.is_none() || above.is_some(), "a level is entered from above");
        let above = above.as_ref().map(|above| &above.ooms).or(self.pool_ooms.as_ref()).cloned();
        let directories = self.directories_of(path);
        let (ooms, counters) = (
            OomCount::of_level(&directories, above),
            Arc::new(LevelCounters::open(&directories, level.limits.cpu.is_some())),
        );
        self.groups().insert(path.clone(), Group::new(level, 1, ooms, Some(counters)));
        Ok(())
    }

    /// Takes a user off the level `path` and off all above it; removes those without any, and returns them.
    fn leave_levels(&self, path: &GroupPath) -> Vec<Gone> {
        let _shape = self.shape.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut gone, mut unused) = (Vec::new(), Vec::new());
        for path in path.upwards().filter(|path| !path.is_pool()) {
            let left = {
                let mut groups = self.groups();
                let users = groups.get_mut(&path).map(|group| {
                    group.users -= 1;
                    group.users
                });
                if users == Some(0) { groups.remove(&path) } else { None }
            };
            if let Some(group) = left {
                // All of it, those that lived in it included: nothing runs in it any more.
                let cpu = group.counters().and_then(|counters| counters.cpu()).unwrap_or_default();
                gone.push(Gone { owner: group.owner, cpu });
                unused.push(path);
            }
        }
        self.sweep(unused);
        gone
    }
}

impl Group {
    fn new(plan: &Plan, users: usize, ooms: OomCount, counters: Option<Arc<LevelCounters>>) -> Self {
        let live = Arc::new(LiveLimits::new(&plan.limits));
        Self { owner: plan.owner.clone(), limits: plan.limits, users, ooms: Arc::new(ooms), counters, live }
    }

    /// Its limits, as they are at any time.
    pub fn live(&self) -> &Arc<LiveLimits> {
        &self.live
    }

    /// Of a level: what it has used.
    pub fn counters(&self) -> Option<&Arc<LevelCounters>> {
        self.counters.as_ref()
    }

    /// Counts the times its own memory limit bit.
    pub fn ooms(&self) -> &Arc<OomCount> {
        &self.ooms
    }
}

/// Lowers a v2 memory limit without anything being killed for it: first as the line above which memory is given back,
/// which waits until that is done, and as the limit only when what is left fits.
fn lower_memory(directories: &Directories, old: &Limits, to: &Limits) -> Result<(), CgroupError> {
    let high = Limits { memory_high: to.memory_max.min(old.memory_high.or(to.memory_max)), ..*old };
    limits::set(directories, Knob::MemoryHigh, old, &high)?;
    let dir = directories.iter().find(|(controller, ..)| *controller == Controller::Memory).map(|(_, dir, _)| dir);
    let used = dir.and_then(|dir| fs::read_to_string(dir.join("memory.current")).ok()?.trim().parse::<u64>().ok());
    let result = match (used, to.memory_max, dir) {
        (Some(used), Some(max), Some(dir)) if used > max => {
            Err(CgroupError::Above { path: dir.display().to_string(), limit: max, used })
        }
        _ => limits::set(directories, Knob::MemoryMax, old, to),
    };
    limits::set(directories, Knob::MemoryHigh, &high, old)?;
    result
}
