//! What this host can enforce and what not, found by looking, each with its remedy. `serve` refuses by it, `sublet doctor`
//! prints it, Health repeats it.

mod advice;

use std::{collections::BTreeSet, fs, path::Path};

use caps::{CapSet, Capability};
use serde::Serialize;
use sublet_proto::link::sandbox::Layer;

use crate::{
    cgroups::{
        host::{Controller, HostCgroups, Place},
        limits::TCP_MEMORY_FILE,
    },
    config::{Config, Degradation, Problem},
};

/// First kernel with all that is needed: cgroup.kill (5.14); the mount calls, openat2 and clone3 into a cgroup are older.
const KERNEL_MIN: (u32, u32) = (5, 14);
/// Rights the nursery needs for a moment each: namespaces and mounts, id maps, owning cgroups and device nodes.
const CAPABILITIES: [Capability; 9] = [
    Capability::CAP_SYS_ADMIN,
    Capability::CAP_SETUID,
    Capability::CAP_SETGID,
    Capability::CAP_SETPCAP,
    Capability::CAP_CHOWN,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_MKNOD,
    Capability::CAP_KILL,
    Capability::CAP_SYS_PTRACE,
];

/// The first version in which truncating a file is a right of its own; what init demands.
const LANDLOCK_MIN: i64 = 3;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Enforced.
    Ok,
    /// Not enforced; `serve` goes on if the configuration accepts it.
    Degraded(Degradation),
    /// There is no form of it here, and only a configuration that asks for it is refused, unless it accepts that.
    Absent(Degradation),
    /// Nothing of ours is missing, but the host could be set up so that functions reach less of it. `serve` goes on.
    Advice,
    /// `serve` cannot go on.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// What was found.
    pub value: String,
    /// How it came out.
    pub outcome: Outcome,
    /// What to do, where there is something to do.
    pub remedy: Option<String>,
}

impl Check {
    /// Whether it is enforced, however the host could be set up better.
    pub fn is_enforced(&self) -> bool {
        matches!(self.outcome, Outcome::Ok | Outcome::Advice)
    }

    /// Whether it is as it should be.
    pub fn is_ok(&self) -> bool {
        self.outcome == Outcome::Ok
    }
}

/// What stands in the way of `serve` on this host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", lines.join("\n"))]
pub struct UnfitHost {
    /// A line for each check: its name, what was found, and the remedy.
    lines: Vec<String>,
}

/// Everything about this host.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was looked at, in order.
    pub checks: Vec<Check>,
    /// System call filters this process was started under.
    pub own_filters: u32,
    /// Whether launchers pass on the frames of `stream` functions, since the kernel cannot keep descriptors away from a socket.
    pub relays_streams: bool,
}

impl Report {
    /// Looks at this host.
    pub fn of_host() -> Self {
        let relays_streams = !sublet_shim::link::can_refuse_descriptors();
        let mut report = Self { checks: Vec::new(), own_filters: own_filters(), relays_streams };
        report.kernel();
        report.channels();
        report.rights();
        report.namespaces();
        report.cgroups();
        report.filters();
        report.supervisor();
        report.host(&advice::Host::new(Path::new("/")));
        report
    }

    fn push(&mut self, name: &'static str, value: impl Into<String>, outcome: Outcome, remedy: &str) {
        let remedy = (outcome != Outcome::Ok).then(|| remedy.to_owned());
        self.checks.push(Check { name, value: value.into(), outcome, remedy });
    }

    fn require(&mut self, name: &'static str, value: impl Into<String>, ok: bool, remedy: &str) {
        self.push(name, value, if ok { Outcome::Ok } else { Outcome::Missing }, remedy);
    }

    fn prefer(&mut self, name: &'static str, value: impl Into<String>, ok: bool, or: Degradation, remedy: &str) {
        let accept = format!("{remedy}, or accept it: host.accept_degraded = [\"{or}\"]");
        self.push(name, value, if ok { Outcome::Ok } else { Outcome::Degraded(or) }, &accept);
    }

    /// Something of the host that `serve` does not ask for.
    fn advise(&mut self, name: &'static str, value: impl Into<String>, ok: bool, remedy: &str) {
        self.push(name, value, if ok { Outcome::Ok } else { Outcome::Advice }, remedy);
    }

    /// Something that only some configurations ask for.
    fn offer(&mut self, name: &'static str, value: impl Into<String>, ok: bool, or: Degradation, remedy: &str) {
        let accept =
            format!("{remedy}, leave {or} out of the configuration, or accept it: host.accept_degraded = [\"{or}\"]");
        self.push(name, value, if ok { Outcome::Ok } else { Outcome::Absent(or) }, &accept);
    }

    fn kernel(&mut self) {
        let release = read("/proc/sys/kernel/osrelease");
        let mut parts = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let remedy = format!("boot Linux {}.{} or later", KERNEL_MIN.0, KERNEL_MIN.1);
        self.require("kernel", release, version >= KERNEL_MIN, &remedy);
        let architecture = std::env::consts::ARCH;
        self.require(
            "architecture",
            architecture,
            architecture == "x86_64",
            "run on x86_64: the filters are written for it",
        );
    }

    fn channels(&mut self) {
        let how = if self.relays_streams {
            "kept away by a launcher, which passes the frames of stream functions on (the kernel can since 6.16)"
        } else {
            "refused by the kernel (SO_PASSRIGHTS)"
        };
        self.require("descriptors on frames", how, true, "");
    }

    fn rights(&mut self) {
        let uid = nix::unistd::geteuid();
        self.require(
            "root",
            format!("uid {uid}"),
            uid.is_root(),
            "start sublet as root; it gives root up once it serves",
        );
        let held = caps::read(None, CapSet::Effective).unwrap_or_default();
        let missing: Vec<String> =
            CAPABILITIES.iter().filter(|cap| !held.contains(cap)).map(ToString::to_string).collect();
        let value = if missing.is_empty() {
            "all that are needed".to_owned()
        } else {
            format!("without {}", missing.join(", "))
        };
        let remedy = "start sublet with them (podman: --privileged; systemd: leave CapabilityBoundingSet alone)";
        self.require("capabilities", value, missing.is_empty(), remedy);
    }

    fn namespaces(&mut self) {
        let missing: Vec<&str> = ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup"]
            .into_iter()
            .filter(|name| !Path::new("/proc/self/ns").join(name).exists())
            .collect();
        let value = if missing.is_empty() { "all seven".to_owned() } else { format!("without {}", missing.join(", ")) };
        self.require(
            "namespaces",
            value,
            missing.is_empty(),
            "boot a kernel that has them (CONFIG_NAMESPACES and below)",
        );
        let most = read("/proc/sys/user/max_user_namespaces");
        let some = most.parse::<u64>().is_ok_and(|most| most > 0);
        self.require("user namespaces", format!("at most {most}"), some, "sysctl user.max_user_namespaces=65536");
        let has_time = Path::new("/proc/self/ns/time").exists();
        let value = if has_time { "there" } else { "absent" };
        self.prefer("time namespaces", value, has_time, Degradation::Time, "boot a kernel with CONFIG_TIME_NS");
        let overlays = sublet_shim::can_mount_overlay();
        let value = match &overlays {
            Ok(()) => "own, by an overlay for each worker".to_owned(),
            Err(error) => format!("shared; an overlay in a user namespace: {error}"),
        };
        let remedy = "boot Linux 5.11 or later with CONFIG_OVERLAY_FS (modprobe overlay)";
        self.prefer("inodes", value, overlays.is_ok(), Degradation::Inodes, remedy);
    }

    fn cgroups(&mut self) {
        let found = match HostCgroups::discover() {
            Ok(found) => found,
            Err(error) => {
                return self.require("cgroups", error.to_string(), false, "mount cgroup2 and start sublet again");
            }
        };
        self.require("cgroups", format!("{}, own group {}", found.mode(), found.own.display()), true, "");
        let place = |controller| match found.places.get(&controller) {
            Some(Place::Unified) => Some("on v2".to_owned()),
            Some(Place::V1(path)) => Some(format!("on v1, {}", path.display())),
            None => None,
        };
        let remedy = "give the group sublet starts in the controller (v2: write \"+memory +pids +cpu\" to its parent's \
                      cgroup.subtree_control; systemd: Delegate=yes), or boot with it enabled (cgroup_enable=memory)";
        for (name, controller) in [("memory limit", Controller::Memory), ("pids limit", Controller::Pids)] {
            let place = place(controller);
            self.require(name, place.as_deref().unwrap_or("no controller"), place.is_some(), remedy);
        }
        let tcp = match found.places.get(&Controller::Memory) {
            Some(Place::V1(path)) if path.join(TCP_MEMORY_FILE).exists() => {
                "limited beside memory_max, to an eighth of it or 4 MiB (v1 does not count them as memory)"
            }
            Some(Place::V1(_)) => {
                "not limited: v1 does not count them as memory, and this kernel has no limit for them"
            }
            Some(Place::Unified) => "counted as memory",
            None => "no controller",
        };
        self.require("TCP buffers", tcp, true, "");
        let cpu = place(Controller::Cpu);
        self.prefer("cpu limit", cpu.as_deref().unwrap_or("no controller"), cpu.is_some(), Degradation::Cpu, remedy);
        // Told, and not asked for: workers have no disk to write, and what they read hurts others little.
        let io = place(Controller::Io).unwrap_or_else(|| "no controller on v2: bytes read are not counted".to_owned());
        self.require("disk accounting", io, true, "");
        let can_kill = found.own.join("cgroup.kill").exists();
        // The root of the hierarchy has no such file; its children do, on every kernel that passed the first check.
        let is_root = !found.own.join("cgroup.type").exists();
        self.require(
            "cgroup.kill",
            if can_kill || is_root { "there" } else { "absent" },
            can_kill || is_root,
            "boot Linux 5.14 or later",
        );
        let value = if found.nsdelegate { "on" } else { "off" };
        self.advise("nsdelegate", value, found.nsdelegate, advice::NSDELEGATE);
        self.own_group(&found);
        self.swap(&found);
        self.more_limits(&found);
    }

    /// Limits that a configuration need not ask for.
    fn more_limits(&mut self, found: &HostCgroups) {
        let boot = "boot with cgroup v2 alone (systemd.unified_cgroup_hierarchy=1)";
        let is_on_v2 = found.places.get(&Controller::Memory) == Some(&Place::Unified);
        let value = if is_on_v2 { "on v2" } else { "memory is on v1, which has no form of it" };
        self.offer("memory_high", value, is_on_v2, Degradation::MemoryHigh, boot);
        self.offer("memory_min", value, is_on_v2, Degradation::MemoryMin, boot);
        let burst = match found.places.get(&Controller::Cpu) {
            // The root of the hierarchy has no such file; its children do, from Linux 5.14 on.
            Some(Place::Unified) => Some("on v2"),
            Some(Place::V1(own)) if own.join("cpu.cfs_burst_us").exists() => Some("on v1"),
            Some(Place::V1(_)) | None => None,
        };
        let value = burst.unwrap_or("this kernel has no form of it");
        self.offer("cpu_burst", value, burst.is_some(), Degradation::CpuBurst, "boot Linux 5.14 or later");
    }

    /// Settings of a configuration that this host has no form of and that are not accepted as missing.
    pub fn unenforced(&self, config: &Config) -> Vec<Problem> {
        let absent = self.checks.iter().filter_map(|check| match check.outcome {
            Outcome::Absent(degradation) if !config.host.accept_degraded.contains(&degradation) => {
                Some((check, degradation))
            }
            Outcome::Absent(_) | Outcome::Ok | Outcome::Advice | Outcome::Degraded(_) | Outcome::Missing => None,
        });
        let asked = |key: &'static str| config.written.iter().filter(move |name| name.ends_with(&format!(".{key}")));
        absent
            .flat_map(|(check, degradation)| {
                asked(degradation.name()).map(|name| {
                    let remedy = check.remedy.as_deref().unwrap_or_default();
                    Problem::new(name.as_str(), None, format!("not enforced on this host: {}", check.value), remedy)
                })
            })
            .collect()
    }

    /// What this host has no form of.
    pub fn absent(&self) -> impl Iterator<Item = Degradation> {
        self.checks.iter().filter_map(|check| match check.outcome {
            Outcome::Absent(degradation) => Some(degradation),
            Outcome::Ok | Outcome::Advice | Outcome::Degraded(_) | Outcome::Missing => None,
        })
    }

    /// Told, and not judged: `serve` may be started elsewhere, or told to make its groups elsewhere.
    fn own_group(&mut self, found: &HostCgroups) {
        let value = if found.is_own_group_usable() {
            "takes controllers"
        } else {
            "has other processes: serve needs a group of its own, or host.cgroup_parent = \"/\""
        };
        self.require("own group", value, true, "");
    }

    fn swap(&mut self, found: &HostCgroups) {
        let areas = read("/proc/swaps").lines().count().saturating_sub(1);
        let limited = match found.places.get(&Controller::Memory) {
            Some(Place::V1(own)) => own.join("memory.memsw.limit_in_bytes").exists(),
            // In the root group the file is absent; its children have it when the kernel accounts swap at all.
            Some(Place::Unified) => !Path::new("/proc/swaps").exists() || v2_accounts_swap(&found.own),
            None => false,
        };
        let value = match (areas, limited) {
            (0, true) => "no swap; limit of 0 per worker".to_owned(),
            (0, false) => "no swap, and no limit for it".to_owned(),
            (areas, true) => format!("{areas} areas; limit of 0 per worker"),
            (areas, false) => format!("{areas} areas, and no limit for them"),
        };
        let remedy = "swapoff -a, or boot with swapaccount=1";
        self.prefer("swap limit", value, areas == 0 || limited, Degradation::Swap, remedy);
    }

    fn filters(&mut self) {
        let actions = read("/proc/sys/kernel/seccomp/actions_avail");
        let has = |name: &str| actions.split_whitespace().any(|action| action == name);
        let ok = ["kill_process", "errno", "user_notif"].into_iter().all(has);
        self.require("system call filters", actions.clone(), ok, "boot a kernel with CONFIG_SECCOMP_FILTER");
        let abi = sublet_shim::landlock_abi();
        let value = match abi {
            0 => "absent or off".to_owned(),
            old if old < LANDLOCK_MIN => format!("version {old}, and {LANDLOCK_MIN} is needed"),
            version => format!("version {version}"),
        };
        let remedy = "boot Linux 6.2 or later with CONFIG_SECURITY_LANDLOCK and landlock in lsm=";
        self.prefer("landlock", value, abi >= LANDLOCK_MIN, Degradation::Landlock, remedy);
    }

    /// What the supervisor itself would be confined by. Told, and not judged: each part is a check of its own.
    fn supervisor(&mut self) {
        let can_protect = caps::has_cap(None, CapSet::Effective, Capability::CAP_SYS_RESOURCE).unwrap_or(false);
        let memory = match HostCgroups::discover().ok().and_then(|found| found.places.get(&Controller::Memory).cloned())
        {
            Some(Place::Unified) => "and guarantee on v2",
            Some(Place::V1(_)) => "on v1, which has no guarantee",
            None => "missing: no controller",
        };
        let value = crate::jail::outlook(sublet_shim::landlock_abi(), can_protect, memory);
        self.require(crate::jail::OUTLOOK, value, true, "");
    }

    /// What is not enforced here.
    pub fn degraded(&self) -> impl Iterator<Item = Degradation> {
        self.checks.iter().filter_map(|check| match check.outcome {
            Outcome::Degraded(degradation) => Some(degradation),
            Outcome::Ok | Outcome::Advice | Outcome::Absent(_) | Outcome::Missing => None,
        })
    }

    /// Layers of the sandbox this host lacks.
    pub fn missing_layers(&self) -> Vec<Layer> {
        self.degraded().filter_map(Degradation::layer).collect()
    }

    /// Whether `serve` may go on when these are accepted.
    ///
    /// # Errors
    /// [`UnfitHost`], when a check stands in the way.
    pub fn refuse(&self, accepted: &BTreeSet<Degradation>) -> Result<(), UnfitHost> {
        let in_the_way = |check: &&Check| match check.outcome {
            Outcome::Ok | Outcome::Advice | Outcome::Absent(_) => false,
            Outcome::Degraded(degradation) => !accepted.contains(&degradation),
            Outcome::Missing => true,
        };
        let lines: Vec<String> = (self.checks.iter())
            .filter(in_the_way)
            .map(|check| format!("{}: {}; {}", check.name, check.value, check.remedy.as_deref().unwrap_or_default()))
            .collect();
        if lines.is_empty() { Ok(()) } else { Err(UnfitHost { lines }) }
    }
}

fn read(path: &str) -> String {
    // What cannot be read is shown as empty and judged as absent.
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Whether a v2 group at or below `own` would have memory.swap.max.
fn v2_accounts_swap(own: &Path) -> bool {
    if own.join("memory.swap.max").exists() {
        return true;
    }
    let Ok(entries) = fs::read_dir(own) else { return false };
    let mut children = entries.flatten().filter(|entry| entry.path().join("memory.max").exists()).peekable();
    // With no child to look at the kernel's default holds, and that is to account.
    children.peek().is_none() || children.any(|entry| entry.path().join("memory.swap.max").exists())
}

fn own_filters() -> u32 {
    let status = read("/proc/self/status");
    status.lines().find_map(|line| line.strip_prefix("Seccomp_filters:")?.trim().parse().ok()).unwrap_or(0)
}
