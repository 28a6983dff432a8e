//! The tree: made at start with full rights, handed to the supervisor's uid, extended and pruned without any.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    os::unix::fs::chown,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use sublet_proto::link::sandbox::{CGROUP_POOL, CGROUP_SUPERVISOR, CgroupDirs};
use sublet_shim::cgroups::{kill, move_processes, remove_tree, wait_empty};

use super::{
    CgroupError,
    host::{Controller, HostCgroups, Place},
    leaf::Leaf,
    limits::{self, Directories, Limits},
    write,
};

/// All directories of one supervisor.
#[derive(Debug)]
pub struct Tree {
    dirs: CgroupDirs,
    /// Controllers, with the pool's directory in their hierarchy and whether it is v2.
    controllers: Vec<(Controller, PathBuf, bool)>,
    /// Level directories (relative to the pool) with the number of directories made below them.
    levels: Mutex<BTreeMap<String, usize>>,
}

/// One level above a worker.
#[derive(Clone, Debug)]
pub struct Level {
    /// Directory name, for example "t-acme".
    pub name: String,
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
        let mut tree = Self { dirs, controllers, levels: Mutex::default() };
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
        // From here on the supervisor extends the pool without root; the pool's own limits stay root's.
        for pool in self.dirs.v1.iter().map(|dir| Path::new(dir).join(CGROUP_POOL)).chain([unified_pool.clone()]) {
            chown(&pool, Some(owner), Some(owner)).map_err(CgroupError::os(format!("give to uid {owner}"), &pool))?;
        }
        for file in ["cgroup.subtree_control", "cgroup.kill", "cgroup.procs"] {
            let path = unified_pool.join(file);
            chown(&path, Some(owner), Some(owner)).map_err(CgroupError::os(format!("give to uid {owner}"), &path))?;
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
    pub fn make_leaf(&self, levels: &[Level], worker: &str, limits: &Limits) -> Result<Leaf, CgroupError> {
        let mut path = String::new();
        for level in levels {
            let parent = path.clone();
            if !path.is_empty() {
                path.push('/');
            }
            path.push_str(&level.name);
            if let Err(error) = self.enter_level(&parent, &path, &level.limits) {
                self.leave_levels(&parent);
                return Err(error);
            }
        }
        let leaf = format!("{path}/{worker}");
        match self.make_group(&leaf, limits, true) {
            Ok(()) => Leaf::open(&leaf, &Path::new(&self.dirs.unified).join(CGROUP_POOL).join(&leaf), self.at(&leaf)),
            Err(error) => {
                self.remove_group(&leaf);
                self.leave_levels(&path);
                Err(error)
            }
        }
    }

    /// Changes the limits of a level, if it is there. A limit that is given no more is lifted.
    ///
    /// # Errors
    /// The first that the kernel refuses.
    pub fn set_limits(&self, path: &str, limits: &Limits) -> Result<(), CgroupError> {
        // Held over the writes: the level must not be removed in between.
        let levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if levels.contains_key(path) { limits::replace(&self.at(path), limits) } else { Ok(()) }
    }

    /// Removes a worker's group, which must be empty, and its levels when nothing else is below them.
    /// Returns whether all of the worker's own directories are gone.
    pub fn remove_leaf(&self, leaf: &str) -> bool {
        let gone = self.remove_group(leaf);
        if gone && let Some((levels, _)) = leaf.rsplit_once('/') {
            self.leave_levels(levels);
        }
        gone
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
    fn enter_level(&self, parent: &str, path: &str, limits: &Limits) -> Result<(), CgroupError> {
        // Held over the directory operations: a level must not be removed by another worker's end in between.
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(users) = levels.get_mut(path) {
            *users += 1;
            return Ok(());
        }
        let made = self.make_group(path, limits, false).and_then(|()| {
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
        levels.insert(path.to_owned(), 1);
        debug_assert!(parent.is_empty() || levels.contains_key(parent), "a level is entered from above");
        Ok(())
    }

    /// Takes a user off the level `path` and off all above it; removes those without any.
    fn leave_levels(&self, path: &str) {
        let mut levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let mut path = path;
        while !path.is_empty() {
            if let Some(users) = levels.get_mut(path) {
                *users -= 1;
                if *users == 0 {
                    levels.remove(path);
                    self.remove_group(path);
                }
            }
            path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        }
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
