//! The tree: made at start with full rights, handed to the supervisor's uid, extended and pruned without any.

mod audit;
mod groups;
mod own;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use nix::unistd::Pid;
use sublet_proto::link::{
    group::GroupPath,
    sandbox::{CGROUP_POOL, CGROUP_SUPERVISOR, CgroupDirs},
};

pub use self::{
    audit::{Finding, Meddling, PoolTrouble},
    groups::{Gone, Group, Plan},
    own::OwnMemory,
};
use super::{
    CgroupError,
    claim::Claim,
    directory::make,
    host::{Controller, HostCgroups, Place},
    limits::{self, Directories, Knob, Limits},
    oom::OomCount,
    write,
};

/// Levels of groups below the pool: tenant, sub-tenant, worker.
const DEPTH: u32 = 3;
/// Groups below the pool for each worker, at the most: its own and its levels'.
const GROUPS_PER_WORKER: u64 = DEPTH as u64;

/// All directories of one supervisor.
#[derive(Debug)]
pub struct Tree {
    dirs: CgroupDirs,
    /// Nobody else makes or removes these directories while we live.
    claim: Claim,
    /// Controllers, with the pool's directory in their hierarchy and whether it is v2.
    controllers: Vec<(Controller, PathBuf, bool)>,
    /// Every group below the pool, by its path relative to it. Held for looking up only: tasks that serve calls wait for it.
    groups: Mutex<BTreeMap<GroupPath, Group>>,
    /// Levels that nobody needs and that would not go.
    stale: Mutex<BTreeSet<GroupPath>>,
    /// Held while levels are made and removed, so that none is removed under whoever enters it.
    shape: Mutex<()>,
    /// Held while limits are written, which may wait for memory to be given back.
    writes: Mutex<()>,
    /// Limits of the pool itself.
    pool: Mutex<Limits>,
    pool_ooms: Option<Arc<OomCount>>,
    /// Limits of the supervisor's own memory.
    own: Option<OwnMemory>,
}

/// What a tree is made for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Name of the supervisor among those of this host.
    pub instance: &'a str,
    /// Group below which it is made, as a path from the root of the hierarchy; none: that of this process.
    pub parent: Option<&'a str>,
    /// Limits of all workers together.
    pub pool: &'a Limits,
    /// Bytes of memory that the supervisor itself may use.
    pub own_max: Option<u64>,
    /// Uid that may make groups in the pool afterwards.
    pub owner: u32,
    /// Workers that there are at the most at one time.
    pub workers: u32,
    /// A process that is moved with this one: v2 hands no controllers down from a group that still has processes.
    pub beside: Option<Pid>,
}

/// Where a tree is to be. Nothing of it is made yet.
#[derive(Debug)]
pub struct Site {
    dirs: CgroupDirs,
    controllers: Vec<(Controller, PathBuf, bool)>,
}

impl Site {
    /// The directories below our own group, or where the configuration wants them.
    pub fn choose(host: &HostCgroups, wanted: &Wanted<'_>) -> Self {
        let Wanted { instance, parent, .. } = *wanted;
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
            // Where that cannot be read it cannot be written either, and the start ends there.
            enabled: missing(&parent, &names_of(&controllers)).unwrap_or_default(),
            v1: v1.iter().map(|path| text(path)).collect(),
        };
        Self { dirs, controllers }
    }

    /// The directories, as the nursery needs them.
    pub fn dirs(&self) -> &CgroupDirs {
        &self.dirs
    }

    /// Removes what an earlier run of this instance left, and takes the directories.
    ///
    /// # Errors
    /// When the host does not allow it, or another supervisor has the directories, which are then left alone; the remedy is
    /// in the message.
    pub fn claim(self, wanted: &Wanted<'_>) -> Result<Tree, CgroupError> {
        let claim = Claim::take(Path::new(&self.dirs.unified), self.dirs.v1.iter().map(Path::new))?;
        Ok(Tree {
            dirs: self.dirs,
            claim,
            controllers: self.controllers,
            groups: Mutex::default(),
            stale: Mutex::default(),
            shape: Mutex::default(),
            writes: Mutex::default(),
            pool: Mutex::new(*wanted.pool),
            pool_ooms: None,
            own: None,
        })
    }
}

/// Controllers of the v2 hierarchy by the names that are handed down there.
fn names_of(controllers: &[(Controller, PathBuf, bool)]) -> BTreeSet<&'static str> {
    let unified = controllers.iter().filter(|(controller, _, unified)| *unified && *controller != Controller::CpuAcct);
    unified.map(|(controller, ..)| controller.name()).collect()
}

impl Tree {
    /// Makes what is in the directories, and moves this process and its nursery in.
    ///
    /// # Errors
    /// When the host does not allow it; the remedy is in the message. What is half made is the nursery's to remove.
    pub fn build(&mut self, wanted: &Wanted<'_>, nursery: Pid) -> Result<(), CgroupError> {
        let Wanted { pool, own_max, owner, workers, beside, .. } = *wanted;
        let (unified, parent) = (PathBuf::from(&self.dirs.unified), PathBuf::from(&self.dirs.unified_parent));
        let unified = unified.as_path();
        let own = unified.join(CGROUP_SUPERVISOR);
        let unified_pool = unified.join(CGROUP_POOL);
        for dir in [&own, &unified_pool] {
            make(dir)?;
        }
        write(&own.join("cgroup.procs"), "0")?;
        for pid in std::iter::once(nursery).chain(beside) {
            write(&own.join("cgroup.procs"), &pid.to_string())?;
        }
        let names = names_of(&self.controllers);
        self.dirs.enabled = enable(&parent, &names)?;
        for dir in [unified, &unified_pool] {
            enable(dir, &names)?;
        }
        for dir in self.dirs.v1.iter().map(Path::new) {
            make(&dir.join(CGROUP_POOL))?;
        }
        limits::apply(&self.controllers, pool, false)?;
        self.limit_own(own_max, nursery)?;
        self.pool_ooms = Some(Arc::new(OomCount::of_level(&self.controllers, None)));
        // A hijacked supervisor could make groups until the host has no memory for more. These files stay root's.
        let groups = u64::from(workers) * GROUPS_PER_WORKER;
        write(&unified_pool.join("cgroup.max.descendants"), &groups.to_string())?;
        write(&unified_pool.join("cgroup.max.depth"), &DEPTH.to_string())?;
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
        let whole = Limits { memory_min: self.with_own(pool.memory_min), ..Limits::default() };
        if whole.memory_min.is_some() {
            limits::set(&self.whole(), Knob::MemoryMin, &Limits::default(), &whole)?;
        }
        Ok(())
    }

    /// The directories, as the nursery needs them.
    pub fn dirs(&self) -> &CgroupDirs {
        &self.dirs
    }

    /// The claim on these directories, for the nursery to hold on to.
    pub fn claim(&self) -> &Claim {
        &self.claim
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
        let whole = |limits: &Limits| Limits { memory_min: self.with_own(limits.memory_min), ..*limits };
        limits::set(&self.whole(), Knob::MemoryMin, &whole(&pool), &whole(&new))?;
        limits::set(&self.controllers, Knob::MemoryMin, &pool, &new)?;
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

    /// Where each controller keeps a group.
    pub fn directories_of(&self, path: &GroupPath) -> Directories {
        self.controllers.iter().map(|(controller, pool, unified)| (*controller, path.below(pool), *unified)).collect()
    }

    /// The directory of a group in the v2 hierarchy.
    fn unified(&self, path: &GroupPath) -> PathBuf {
        path.below(&Path::new(&self.dirs.unified).join(CGROUP_POOL))
    }

    /// Every directory of a group, each once.
    fn directories(&self, path: &GroupPath) -> BTreeSet<PathBuf> {
        self.directories_of(path).into_iter().map(|(_, dir, _)| dir).chain([self.unified(path)]).collect()
    }
}

/// Controllers that the children of a v2 group do not have.
fn missing(dir: &Path, controllers: &BTreeSet<&str>) -> Result<Vec<String>, CgroupError> {
    let path = dir.join("cgroup.subtree_control");
    let enabled = fs::read_to_string(&path).map_err(CgroupError::os("read", &path))?;
    let is_missing = |name: &&&str| !enabled.split_whitespace().any(|on| on == **name);
    Ok(controllers.iter().filter(is_missing).map(|name| (*name).to_owned()).collect())
}

/// Hands controllers to the children of a v2 group. Returns those that they had not before.
fn enable(dir: &Path, controllers: &BTreeSet<&str>) -> Result<Vec<String>, CgroupError> {
    let missing = missing(dir, controllers)?;
    if missing.is_empty() {
        return Ok(missing);
    }
    let path = dir.join("cgroup.subtree_control");
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
