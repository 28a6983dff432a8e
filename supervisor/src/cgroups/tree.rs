//! The tree: made at start with full rights, handed to the supervisor's uid, extended and pruned without any.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sublet_proto::link::sandbox::{CGROUP_POOL, CGROUP_SUPERVISOR, CgroupDirs};
use sublet_shim::cgroups::{kill, move_processes, remove_tree, wait_empty};

use super::{
    CgroupError,
    counters::LevelCounters,
    host::{Controller, HostCgroups, Place},
    leaf::Leaf,
    limits::{self, Directories, Knob, Limits},
    oom::OomCount,
    owner::Owner,
    write,
};

/// All directories of one supervisor.
#[derive(Debug)]
pub struct Tree {
    dirs: CgroupDirs,
    /// Controllers, with the pool's directory in their hierarchy and whether it is v2.
    controllers: Vec<(Controller, PathBuf, bool)>,
    /// Every group below the pool, by its path relative to it. Held for looking up only: tasks that serve calls wait for it.
    groups: Mutex<BTreeMap<String, Group>>,
    /// Held while levels are made and removed, so that none is removed under whoever enters it.
    shape: Mutex<()>,
    /// Held while limits are written, which may wait for memory to be given back.
    writes: Mutex<()>,
    /// Limits of the pool itself.
    pool: Mutex<Limits>,
    pool_ooms: Option<Arc<OomCount>>,
}

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
    /// Directory name, for example "t-acme".
    pub name: String,
    /// Whose it is.
    pub owner: Owner,
    /// Its limits.
    pub limits: Limits,
}

impl Tree {
    /// Removes what an earlier run of this instance left, makes the tree below our own group and moves this process in.
    ///
    /// # Errors
    /// When the host does not allow it; the remedy is in the message.
    pub fn create(
        host: &HostCgroups,
        instance: &str,
        parent: Option<&str>,
        pool: &Limits,
        owner: u32,
    ) -> Result<Self, CgroupError> {
        let name = format!("sublet-{instance}");
        let parent = match parent {
            Some(path) => host.mount.join(path.trim_start_matches('/')),
            None => host.own.clone(),
        };
        let unified = parent.join(&name);
        let mut v1 = BTreeSet::new();
        let mut controllers = Vec::new();
        for (controller, place) in &host.places {
            let root = match place {
                Place::Unified => unified.clone(),
                Place::V1(own) => own.join(&name),
            };
            let is_unified = *place == Place::Unified;
            if !is_unified {
                v1.insert(root.clone());
            }
            controllers.push((*controller, root.join(CGROUP_POOL), is_unified));
        }
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let dirs = CgroupDirs {
            unified: text(&unified),
            unified_parent: text(&parent),
            unified_origin: text(&host.own),
            enabled: Vec::new(),
            v1: v1.iter().map(|path| text(path)).collect(),
        };
        let mut tree = Self {
            dirs,
            controllers,
            groups: Mutex::default(),
            shape: Mutex::default(),
            writes: Mutex::default(),
            pool: Mutex::new(*pool),
            pool_ooms: None,
        };
        tree.sweep()?;
        match tree.build(pool, owner) {
            Ok(()) => Ok(tree),
            Err(error) => {
                // Nothing half-made stays.
                tree.remove();
                Err(error)
            }
        }
    }

    fn build(&mut self, pool: &Limits, owner: u32) -> Result<(), CgroupError> {
        let (unified, parent) = (PathBuf::from(&self.dirs.unified), PathBuf::from(&self.dirs.unified_parent));
        let unified = unified.as_path();
        let own = unified.join(CGROUP_SUPERVISOR);
        let unified_pool = unified.join(CGROUP_POOL);
        for dir in [unified, &own, &unified_pool] {
            make(dir)?;
        }
        write(&own.join("cgroup.procs"), "0")?;
        let names: BTreeSet<&str> = (self.controllers.iter())
            .filter(|(controller, _, is_unified)| *is_unified && *controller != Controller::CpuAcct)
            .map(|(controller, ..)| controller.name())
            .collect();
        self.dirs.enabled = enable(&parent, &names)?;
        for dir in [unified, &unified_pool] {
            enable(dir, &names)?;
        }
        for dir in self.dirs.v1.iter().map(Path::new) {
            make(dir)?;
            make(&dir.join(CGROUP_POOL))?;
        }
        limits::apply(&self.controllers, pool, false)?;
        self.pool_ooms = Some(Arc::new(OomCount::of_level(&self.controllers, None)));
        // From here on the supervisor extends the pool without root; the pool's own limits stay root's.
        for pool in self.dirs.v1.iter().map(|dir| Path::new(dir).join(CGROUP_POOL)).chain([unified_pool.clone()]) {
            chown(&pool, Some(owner), Some(owner)).map_err(CgroupError::os(format!("give to uid {owner}"), &pool))?;
        }
        let give = |path: PathBuf| {
            chown(&path, Some(owner), Some(owner)).map_err(CgroupError::os(format!("give to uid {owner}"), &path))
        };
        for file in ["cgroup.subtree_control", "cgroup.kill", "cgroup.procs"] {
            give(unified_pool.join(file))?;
        }
        // Guarantees of tenants come and go, and must be the pool's as well.
        let guarantees = [unified, &unified_pool].map(|dir| dir.join("memory.min"));
        guarantees.into_iter().filter(|path| path.exists()).try_for_each(give)?;
        if pool.memory_min.is_some() {
            limits::set(&self.whole(), Knob::MemoryMin, &Limits::default(), pool)?;
        }
        Ok(())
    }

    /// The directories, as the nursery needs them.
    pub fn dirs(&self) -> &CgroupDirs {
        &self.dirs
    }

    /// Ends and removes what an earlier run left under the same name.
    fn sweep(&self) -> Result<(), CgroupError> {
        let unified = Path::new(&self.dirs.unified);
        let pool = unified.join(CGROUP_POOL);
        if pool.exists() {
            kill(&pool).map_err(CgroupError::os("kill what an earlier run left in", &pool))?;
            wait_empty(&pool);
        }
        let left = self.remove_trees();
        if left.is_empty() {
            return Ok(());
        }
        Err(CgroupError::Unsupported {
            missing: format!("what an earlier run left cannot be removed: {}", left.join(", ")),
            remedy: "end the processes listed in its cgroup.procs files, or choose another host.instance".into(),
        })
    }

    /// Removes all of it. Returns what would not go.
    fn remove_trees(&self) -> Vec<String> {
        let dirs = self.dirs.v1.iter().map(Path::new).chain([Path::new(&self.dirs.unified)]);
        // Asked first: on a read-only hierarchy even the removal of what is not there fails.
        dirs.filter(|dir| dir.exists()).flat_map(remove_tree).collect()
    }

    /// Undoes [`Self::create`] while the nursery, which does it at every other end, does not run yet. Needs root.
    pub fn remove(&self) {
        let unified = Path::new(&self.dirs.unified);
        let back: Vec<String> = self.dirs.enabled.iter().map(|name| format!("-{name}")).collect();
        if !back.is_empty() {
            remove_tree(&unified.join(CGROUP_POOL));
            for dir in [unified, Path::new(&self.dirs.unified_parent)] {
                // One that still needs them keeps them.
                fs::write(dir.join("cgroup.subtree_control"), back.join(" ")).ok();
            }
        }
        let moved = move_processes(&unified.join(CGROUP_SUPERVISOR), Path::new(&self.dirs.unified_origin));
        let left = self.remove_trees();
        if moved.is_err() || !left.is_empty() {
            tracing::warn!(?left, "cgroups could not be removed");
        }
    }

    /// Makes the group of one worker below its levels, with all limits set, and the levels where they are not there yet.
    ///
    /// # Errors
    /// When a directory or a limit is refused; nothing is left behind then.
    pub fn make_leaf(&self, levels: &[Plan], worker: &Plan) -> Result<Leaf, CgroupError> {
        let mut path = String::new();
        for level in levels {
            let parent = path.clone();
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(&level.name);
            if let Err(error) = self.enter_level(&parent, &path, level) {
                self.leave_levels(&parent);
                return Err(error);
            }
        }
        let leaf = format!("{path}/{}", worker.name);
        let unified = Path::new(&self.dirs.unified).join(CGROUP_POOL).join(&leaf);
        let made =
            self.make_group(&leaf, &worker.limits, true).and_then(|()| Leaf::open(&leaf, &unified, self.at(&leaf)));
        match made {
            Ok(opened) => {
                self.groups().insert(leaf, Group::new(worker, 0, OomCount::of_leaf(&opened), None));
                Ok(opened)
            }
            Err(error) => {
                self.remove_group(&leaf);
                self.leave_levels(&path);
                Err(error)
            }
        }
    }

    fn groups(&self) -> MutexGuard<'_, BTreeMap<String, Group>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Every group below the pool now, by its path; those above before those below.
    pub fn all(&self) -> Vec<(String, Group)> {
        self.groups().iter().map(|(path, group)| (path.clone(), group.clone())).collect()
    }

    /// A group, if it is there.
    pub fn group(&self, path: &str) -> Option<Group> {
        self.groups().get(path).cloned()
    }

    /// The group has got its owner.
    pub fn relabel(&self, path: &str, owner: Owner) {
        if let Some(group) = self.groups().get_mut(path) {
            group.owner = owner;
        }
    }

    /// Makes one limit of a group what `to` says, if the group is there.
    ///
    /// # Errors
    /// What the kernel says. Then the limit is what it was.
    pub fn set(&self, path: &str, knob: Knob, to: &Limits) -> Result<(), CgroupError> {
        let _writes = self.writes.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(Group { limits: old, .. }) = self.group(path) else { return Ok(()) };
        let directories = self.at(path);
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
                tracing::error!(group = path, limit = knob.key(), %error, "a limit cannot be put back");
            }
            return Err(error);
        }
        if let Some(group) = self.groups().get_mut(path) {
            knob.copy(to, &mut group.limits);
            if let Some(counters) = group.counters() {
                counters.set_quota(group.limits.cpu.is_some());
            }
        }
        Ok(())
    }

    /// What a group uses now of what a limit is on; none where it is not counted.
    pub fn used(&self, path: &str, knob: Knob) -> Option<u64> {
        let (file_v2, file_v1) = match knob {
            Knob::MemoryMax => ("memory.current", "memory.usage_in_bytes"),
            Knob::PidsMax => ("pids.current", "pids.current"),
            Knob::MemoryHigh | Knob::MemoryMin | Knob::Cpu | Knob::CpuWeight => return None,
        };
        let directories = self.directories_of(path);
        let (_, dir, unified) = directories.iter().find(|(controller, ..)| *controller == knob.controller())?;
        fs::read_to_string(dir.join(if *unified { file_v2 } else { file_v1 })).ok()?.trim().parse().ok()
    }

    /// Limits of the pool itself.
    pub fn pool_limits(&self) -> Limits {
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Memory that is guaranteed to the pool, and so can be to what is in it: v2 passes on no more than the parent has.
    ///
    /// # Errors
    /// What the kernel says. Then it is what it was.
    pub fn guarantee(&self, bytes: Option<u64>) -> Result<(), CgroupError> {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        let new = Limits { memory_min: bytes, ..*pool };
        if new == *pool {
            return Ok(());
        }
        for directories in [self.whole(), self.controllers.clone()] {
            limits::set(&directories, Knob::MemoryMin, &pool, &new)?;
        }
        *pool = new;
        Ok(())
    }

    /// Where each controller keeps the group that the pool is in.
    fn whole(&self) -> Directories {
        let above = |pool: &Path| pool.parent().unwrap_or(pool).to_owned();
        self.controllers.iter().map(|(controller, pool, unified)| (*controller, above(pool), *unified)).collect()
    }

    /// Counts the times the pool's own memory limit bit.
    pub fn pool_ooms(&self) -> Option<Arc<OomCount>> {
        self.pool_ooms.clone()
    }

    /// Where each controller keeps a group; the empty path is the pool's.
    pub fn directories_of(&self, path: &str) -> Directories {
        if path.is_empty() { self.controllers.clone() } else { self.at(path) }
    }

    /// Whether a controller is on v2 here; none when it is nowhere.
    pub fn is_unified(&self, wanted: Controller) -> Option<bool> {
        self.controllers.iter().find(|(controller, ..)| *controller == wanted).map(|(.., unified)| *unified)
    }

    /// Removes a worker's group, which must be empty, and its levels when nothing else is below them.
    /// Returns whether all of the worker's own directories are gone, and what the kernel counted for the levels that went.
    pub fn remove_leaf(&self, leaf: &str) -> (bool, Vec<Gone>) {
        // First off the list: nobody writes a limit of it from then on.
        self.groups().remove(leaf);
        let gone = self.remove_group(leaf);
        match leaf.rsplit_once('/') {
            Some((levels, _)) if gone => (true, self.leave_levels(levels)),
            _ => (gone, Vec::new()),
        }
    }

    /// Where each controller keeps the group `path`.
    fn at(&self, path: &str) -> Directories {
        self.controllers.iter().map(|(controller, pool, unified)| (*controller, pool.join(path), *unified)).collect()
    }

    /// Every directory of the group `path`, each once.
    fn directories(&self, path: &str) -> BTreeSet<PathBuf> {
        let unified = Path::new(&self.dirs.unified).join(CGROUP_POOL).join(path);
        self.at(path).into_iter().map(|(_, dir, _)| dir).chain([unified]).collect()
    }

    fn make_group(&self, path: &str, limits: &Limits, kill_as_one: bool) -> Result<(), CgroupError> {
        for dir in self.directories(path) {
            make(&dir)?;
        }
        limits::apply(&self.at(path), limits, kill_as_one)
    }

    fn remove_group(&self, path: &str) -> bool {
        self.directories(path).iter().all(|dir| remove_tree(dir).is_empty())
    }

    /// Counts a user of the level `path`, making it for the first.
    fn enter_level(&self, parent: &str, path: &str, level: &Plan) -> Result<(), CgroupError> {
        let _shape = self.shape.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(group) = self.groups().get_mut(path) {
            group.users += 1;
            return Ok(());
        }
        let made = self.make_group(path, &level.limits, false).and_then(|()| {
            let names: BTreeSet<&str> = (self.controllers.iter())
                .filter(|(controller, _, unified)| *unified && *controller != Controller::CpuAcct)
                .map(|(controller, ..)| controller.name())
                .collect();
            enable(&Path::new(&self.dirs.unified).join(CGROUP_POOL).join(path), &names).map(drop)
        });
        if let Err(error) = made {
            self.remove_group(path);
            return Err(error);
        }
        let above = self.group(parent);
        debug_assert!(parent.is_empty() || above.is_some(), "a level is entered from above");
        let above = above.as_ref().map(|above| &above.ooms).or(self.pool_ooms.as_ref()).cloned();
        let directories = self.at(path);
        let (ooms, counters) = (
            OomCount::of_level(&directories, above),
            Arc::new(LevelCounters::open(&directories, level.limits.cpu.is_some())),
        );
        self.groups().insert(path.to_owned(), Group::new(level, 1, ooms, Some(counters)));
        Ok(())
    }

    /// Takes a user off the level `path` and off all above it; removes those without any, and returns them.
    fn leave_levels(&self, path: &str) -> Vec<Gone> {
        let _shape = self.shape.lock().unwrap_or_else(PoisonError::into_inner);
        let mut gone = Vec::new();
        let mut path = path;
        while !path.is_empty() {
            let left = {
                let mut groups = self.groups();
                let users = groups.get_mut(path).map(|group| {
                    group.users -= 1;
                    group.users
                });
                if users == Some(0) { groups.remove(path) } else { None }
            };
            if let Some(group) = left {
                // All of it, those that lived in it included: nothing runs in it any more.
                let cpu = group.counters().and_then(|counters| counters.cpu()).unwrap_or_default();
                gone.push(Gone { owner: group.owner, cpu });
                self.remove_group(path);
            }
            path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
        gone
    }
}

fn make(dir: &Path) -> Result<(), CgroupError> {
    match fs::create_dir(dir) {
        Err(error) if matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem) => {
            Err(CgroupError::Os {
                action: "make cgroup".into(),
                path: dir.display().to_string(),
                error,
                remedy: Some(
                    "start sublet as root, or in a delegated group: systemd-run --scope -p Delegate=yes sublet serve"
                        .into(),
                ),
            })
        }
        result => result.map_err(CgroupError::os("make cgroup", dir)),
    }
}

impl Group {
    fn new(plan: &Plan, users: usize, ooms: OomCount, counters: Option<Arc<LevelCounters>>) -> Self {
        Self { owner: plan.owner.clone(), limits: plan.limits, users, ooms: Arc::new(ooms), counters }
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

/// Hands controllers to the children of a v2 group. Returns those that they had not before.
fn enable(dir: &Path, controllers: &BTreeSet<&str>) -> Result<Vec<String>, CgroupError> {
    let path = dir.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&path).map_err(CgroupError::os("read", &path))?;
    let missing: Vec<String> = (controllers.iter())
        .filter(|name| !enabled.split_whitespace().any(|on| on == **name))
        .map(|name| (*name).to_owned())
        .collect();
    if missing.is_empty() {
        return Ok(missing);
    }
    let value = missing.iter().map(|name| format!("+{name}")).collect::<Vec<_>>().join(" ");
    let written = fs::write(&path, &value).map_err(|error| CgroupError::Os {
        remedy: (error.raw_os_error() == Some(libc::EBUSY)).then(|| {
            "other processes are in our own group, and v2 allows none beside children with controllers; \
             start sublet in a group of its own (systemd-run --scope -p Delegate=yes sublet serve), or let it make its \
             groups elsewhere: host.cgroup_parent = \"/\""
                .into()
        }),
        action: format!("write {value:?} to"),
        path: path.display().to_string(),
        error,
    });
    written.map(|()| missing)
}
