//! Where this host keeps its controllers, and our own place among them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use super::CgroupError;

/// A controller sublet uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Controller {
    /// Memory limit.
    Memory,
    /// Number of processes and threads.
    Pids,
    /// CPU quota and weight.
    Cpu,
    /// CPU accounting; part of [`Self::Cpu`] on v2.
    CpuAcct,
    /// Counts bytes read from disks; v2 only.
    Io,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Memory, Self::Pids, Self::Cpu, Self::CpuAcct, Self::Io];

    /// The kernel's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Cpu => "cpu",
            Self::CpuAcct => "cpuacct",
            Self::Io => "io",
        }
    }

    /// The name of the controller that does its work on v2.
    const fn unified_name(self) -> &'static str {
        match self {
            Self::CpuAcct => "cpu",
            other => other.name(),
        }
    }
}

/// Where a controller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the v2 hierarchy.
    Unified,
    /// In a v1 hierarchy; our own group there.
    V1(PathBuf),
}

/// What was found.
#[derive(Clone, Debug)]
pub struct HostCgroups {
    /// Our own group in the v2 hierarchy.
    pub own: PathBuf,
    /// Where the v2 hierarchy is mounted.
    pub mount: PathBuf,
    /// Controllers found, with their place.
    pub places: BTreeMap<Controller, Place>,
    /// Whether v2 is mounted with nsdelegate.
    pub nsdelegate: bool,
}

impl HostCgroups {
    /// Reads /proc/self/cgroup and /proc/self/mountinfo.
    ///
    /// # Errors
    /// When there is no v2 hierarchy at all.
    pub fn discover() -> Result<Self, CgroupError> {
        let read = |path: &str| fs::read_to_string(path).map_err(CgroupError::os("read", Path::new(path)));
        let (memberships, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
        let found = Self::parse(&memberships, &mounts).ok_or_else(|| CgroupError::Unsupported {
            missing: "no cgroup v2 hierarchy is mounted".into(),
            remedy: "mount one: mount -t cgroup2 none /sys/fs/cgroup/unified (or boot with systemd.unified_cgroup_hierarchy=1)"
                .into(),
        })?;
        let path = found.own.join("cgroup.controllers");
        let unified = fs::read_to_string(&path).map_err(CgroupError::os("read", &path))?;
        let unified: Vec<&str> = unified.split_whitespace().collect();
        let mut found = found;
        for controller in Controller::ALL {
            if unified.contains(&controller.unified_name()) {
                found.places.insert(controller, Place::Unified);
            }
        }
        Ok(found)
    }

    /// The v2 hierarchy and the v1 places, from the text of the two files.
    pub(crate) fn parse(memberships: &str, mounts: &str) -> Option<Self> {
        // hierarchy-id:controllers:path
        let own_path = |controller: &str| {
            memberships.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (controllers, path) = rest.split_once(':')?;
                let same = if controller.is_empty() {
                    controllers.is_empty()
                } else {
                    controllers.split(',').any(|name| name == controller)
                };
                same.then(|| path.to_owned())
            })
        };
        let mut own = None;
        let mut mount_point = PathBuf::new();
        let mut nsdelegate = false;
        let mut places = BTreeMap::new();
        for line in mounts.lines() {
            let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
            let mount: Vec<&str> = mount.split(' ').collect();
            let [_, _, _, root, point, ..] = mount[..] else { continue };
            let filesystem: Vec<&str> = filesystem.split(' ').collect();
            let [kind, _, options] = filesystem[..] else { continue };
            let options: Vec<&str> = options.split(',').collect();
            match kind {
                "cgroup2" if own.is_none() => {
                    own = own_path("").and_then(|path| below(point, root, &path));
                    mount_point = PathBuf::from(point);
                    nsdelegate = options.contains(&"nsdelegate");
                }
                "cgroup" => {
                    for controller in Controller::ALL {
                        if options.contains(&controller.name())
                            && let Some(path) = own_path(controller.name()).and_then(|path| below(point, root, &path))
                        {
                            places.entry(controller).or_insert(Place::V1(path));
                        }
                    }
                }
                _ => {}
            }
        }
        Some(Self { own: own?, mount: mount_point, places, nsdelegate })
    }

    /// Whether a supervisor that starts in our own group could hand controllers to groups below it: v2 allows that in the
    /// root of the hierarchy, and where no process is beside the supervisor's own.
    pub fn is_own_group_usable(&self) -> bool {
        let needs_controllers = self.places.values().any(|place| *place == Place::Unified);
        let enabled = fs::read_to_string(self.own.join("cgroup.subtree_control")).unwrap_or_default();
        let is_root = !self.own.join("cgroup.type").exists();
        let others = fs::read_to_string(self.own.join("cgroup.procs")).unwrap_or_default().lines().count() > 1;
        !needs_controllers || is_root || !others || enabled.contains("memory")
    }

    /// Whether limits are on v1 hierarchies.
    pub fn is_hybrid(&self) -> bool {
        self.places.values().any(|place| matches!(place, Place::V1(_)))
    }

    /// How `sublet doctor` and Health call it.
    pub fn mode(&self) -> &'static str {
        if self.is_hybrid() { "hybrid: limits on v1, life-cycle on v2" } else { "v2" }
    }
}

/// Where `path` of a hierarchy is seen when its group `root` is mounted on `point`.
fn below(point: &str, root: &str, path: &str) -> Option<PathBuf> {
    let inside = if root == "/" { path } else { path.strip_prefix(root)? };
    Some(Path::new(point).join(inside.trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
31 24 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw
32 31 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
33 31 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
34 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:30 /docker/ab /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
";

    #[test]
    fn hybrid_host_is_read_from_proc() {
        let memberships = "3:pids:/docker/ab/x\n2:cpu,cpuacct:/\n1:memory:/jobs/7\n0::/app\n";
        let found = HostCgroups::parse(memberships, MOUNTS).unwrap();
        assert_eq!(found.own, Path::new("/sys/fs/cgroup/unified/app"));
        assert!(found.nsdelegate);
        let v1 = |path: &str| Place::V1(path.into());
        assert_eq!(found.places[&Controller::Memory], v1("/sys/fs/cgroup/memory/jobs/7"));
        assert_eq!(found.places[&Controller::Cpu], v1("/sys/fs/cgroup/cpu,cpuacct/"));
        assert_eq!(found.places[&Controller::CpuAcct], v1("/sys/fs/cgroup/cpu,cpuacct/"));
        assert_eq!(found.places[&Controller::Pids], v1("/sys/fs/cgroup/pids/x"));
    }

    #[test]
    fn host_without_v2_is_no_ground() {
        assert!(HostCgroups::parse("1:memory:/\n", MOUNTS).is_none());
    }
}
