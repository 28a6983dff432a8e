//! The plan: the ordered list of steps that make one sandbox, as a plain value.
//!
//! The order is the argument. Nothing runs outside its limits (born in the cgroup), nothing of the function runs before
//! the last filter is on, and what needs a right comes before the right is given up.
//!
//! Who performs a step is its type: [`NurseryStep`], [`InitStep`] or [`LauncherStep`]. Each of the three performers takes its
//! own steps out of the plan and applies them by a match over all of them, so that no step can be left to somebody else
//! by mistake. Init forks the launcher in the middle of its steps; from there on the two go on side by side.

use std::fmt;

use nix::sys::resource::Resource;
use sublet_proto::link::{
    sandbox::{InnerLimits, Layer, OnRefused, Protocol, Root, SandboxSpec, ShownLimits},
    step::StepId,
    token::{TOKEN_DIR, TOKEN_FILE},
};
use sublet_runtime_api::ADDRESS;

use crate::counters;

/// Uid and gid of init inside the sandbox.
pub const INIT_UID: u32 = 999;
/// Uid and gid of the function inside the sandbox.
pub const FUNCTION_UID: u32 = 1000;
/// Host name inside.
pub const HOST_NAME: &str = "worker";
/// Added to init's and the function's oom score: when the host itself runs short, workers go before anything else.
pub const OOM_SCORE_ADJ: u32 = 700;

/// Locked memory per process, in bytes: enough for a key, not for a budget of its own.
const MEMLOCK_BYTES: u64 = 64 * 1024;
/// Queued signals, over all processes of the function.
const SIGPENDING: u64 = 128;
/// The monotonic and boot clocks of a new worker show at least this many seconds: an hour.
pub const CLOCK_AGE_MIN_SECONDS: u64 = 60 * 60;
/// And less than this many seconds: thirty days.
pub const CLOCK_AGE_MAX_SECONDS: u64 = 30 * 24 * 60 * 60;

/// Size of the place for a token: the old one, the new one, and their pages.
pub const TOKEN_MOUNT_BYTES: u64 = 64 * 1024;
/// Files there, the directory itself included: the old one, the new one, and one to spare.
pub const TOKEN_MOUNT_INODES: u64 = 4;

/// One resource limit of the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// Which.
    pub resource: Resource,
    /// As the plan prints it.
    pub name: &'static str,
    /// As /proc/PID/limits prints it.
    pub proc_name: &'static str,
    /// Soft and hard limit. A host's lower hard limit stays.
    pub value: u64,
}

/// The resource limits of the function: what is set, what is printed and what is checked from outside.
pub fn rlimits(limits: &InnerLimits) -> [Rlimit; 9] {
    let limit = |resource, name, proc_name, value| Rlimit { resource, name, proc_name, value };
    [
        limit(Resource::RLIMIT_NOFILE, "nofile", "Max open files", limits.nofile),
        limit(Resource::RLIMIT_FSIZE, "fsize", "Max file size", limits.file_bytes),
        limit(Resource::RLIMIT_STACK, "stack", "Max stack size", limits.stack_bytes),
        limit(Resource::RLIMIT_CORE, "core", "Max core file size", 0),
        limit(Resource::RLIMIT_MEMLOCK, "memlock", "Max locked memory", MEMLOCK_BYTES),
        limit(Resource::RLIMIT_MSGQUEUE, "msgqueue", "Max msgqueue size", 0),
        limit(Resource::RLIMIT_SIGPENDING, "sigpending", "Max pending signals", SIGPENDING),
        limit(Resource::RLIMIT_RTPRIO, "rtprio", "Max realtime priority", 0),
        limit(Resource::RLIMIT_NICE, "nice", "Max nice priority", 0),
    ]
}

/// A step of the nursery, on the host.
// The fields are what the printed step names.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NurseryStep {
    /// clone3 with all birth namespaces into the cgroup. The user namespace is owned by the worker's own init uid, so that
    /// what the kernel counts for the owner of a namespace is counted for this worker alone.
    Birth { cgroup: String, owner: u32 },
    /// Two host ids: init and function.
    MapIds { host_init: u32, host_function: u32 },
}

/// A step of init, inside.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitStep {
    /// On hybrid hosts: init joins the v1 groups that carry its limits, before it does anything else.
    JoinV1Groups,
    /// Nothing else is done before the ids are mapped.
    AwaitMaps,
    /// New cgroup (and time) namespace, once inside the right group.
    UnshareCgroupAndTime { time: bool },
    /// The monotonic and boot clocks begin at a random age, so that they do not tell how long the host has been up.
    SetClocks,
    /// Mount changes stay inside.
    PrivatePropagation,
    /// The read-only skeleton: mount points, links, synthetic /etc.
    MountRoot { layout: Root },
    /// The host's /usr, read-only.
    MountUsr,
    /// null, zero, full, random, urandom, descriptor links.
    MountDev,
    /// The function's directory.
    MountFunction { dir: String },
    /// The only place that can be written.
    MountTmp { bytes: u64, inodes: u64 },
    /// Where init puts the token of the sub-tenant; nobody else can write there.
    MountToken,
    /// No namespaces inside, and few of the other objects that the kernel counts by user.
    LimitCounters,
    /// First to go when the host runs out of memory.
    RaiseOomScore,
    /// Own processes only, own limits in the place of the machine's memory and processors, and the own groups. After what
    /// needs a file of the host that belongs to root: from here on init makes files as itself.
    MountProcAndSys { shown: ShownLimits },
    /// The new root becomes `/`, the old one is detached.
    PivotRoot,
    /// uname says nothing about the host.
    SetHostName,
    /// 127.0.0.1 works.
    LoopbackUp,
    /// Own session: no terminal; own keyring.
    NewSession,
    /// The launcher starts, as a copy of init.
    ForkLauncher,
    /// Init gives up everything, but for the token's place where there is one.
    ConfineInit { token: bool },
}

/// A step of the launcher, inside, which becomes or runs the function.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LauncherStep {
    /// 0 /dev/null, 1 and 2 the log, 3 the channel, nothing else.
    PlaceDescriptors,
    /// Resource limits.
    SetRlimits { limits: InnerLimits },
    /// The function's own uid.
    SwitchUid,
    /// All five sets, and the bounding set, empty.
    DropCapabilities,
    /// execve can add no right.
    NoNewPrivs,
    /// Branches of others do not train this process's, and the other way round; on demand it does without speculative store
    /// bypass too. Held over execve and fork, for good.
    LimitSpeculation { store_bypass: bool },
    /// A second no to files.
    Landlock,
    /// Landlock cannot be seen from outside: what only landlock refuses must fail.
    ProveLandlock,
    /// The maxima of the user namespace cannot be seen from outside: a namespace more must fail.
    ProveCounters,
    /// The session keyring cannot be seen from outside: the nursery's key must not be found.
    ProveKeyring,
    /// The filters.
    Seccomp { on_refused: OnRefused },
    /// Init has confined itself too.
    AwaitInit,
    /// Tell the supervisor, wait for its check from outside.
    AwaitStart,
    /// The function; a `stream` function may be `relayed`.
    Run { protocol: Protocol, relayed: bool, command: Vec<String> },
}

/// One step and who performs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The nursery, on the host.
    Nursery(NurseryStep),
    /// Init, inside.
    Init(InitStep),
    /// The launcher, inside.
    Launcher(LauncherStep),
}

impl Step {
    /// Who performs it, in a word.
    pub const fn performer(&self) -> &'static str {
        match self {
            Self::Nursery(_) => "nursery",
            Self::Init(_) => "init",
            Self::Launcher(_) => "launcher",
        }
    }
}

impl InitStep {
    /// Its name.
    pub const fn id(&self) -> StepId {
        match self {
            Self::JoinV1Groups => StepId::JoinV1Groups,
            Self::AwaitMaps => StepId::AwaitMaps,
            Self::UnshareCgroupAndTime { .. } => StepId::UnshareCgroupAndTime,
            Self::SetClocks => StepId::SetClocks,
            Self::PrivatePropagation => StepId::PrivatePropagation,
            Self::MountRoot { .. } => StepId::MountRoot,
            Self::MountUsr => StepId::MountUsr,
            Self::MountDev => StepId::MountDev,
            Self::MountFunction { .. } => StepId::MountFunction,
            Self::MountTmp { .. } => StepId::MountTmp,
            Self::MountToken => StepId::MountToken,
            Self::LimitCounters => StepId::LimitCounters,
            Self::RaiseOomScore => StepId::RaiseOomScore,
            Self::MountProcAndSys { .. } => StepId::MountProcAndSys,
            Self::PivotRoot => StepId::PivotRoot,
            Self::SetHostName => StepId::SetHostName,
            Self::LoopbackUp => StepId::LoopbackUp,
            Self::NewSession => StepId::NewSession,
            Self::ForkLauncher => StepId::ForkLauncher,
            Self::ConfineInit { .. } => StepId::ConfineInit,
        }
    }
}

impl LauncherStep {
    /// Its name.
    pub const fn id(&self) -> StepId {
        match self {
            Self::PlaceDescriptors => StepId::PlaceDescriptors,
            Self::SetRlimits { .. } => StepId::SetRlimits,
            Self::SwitchUid => StepId::SwitchUid,
            Self::DropCapabilities => StepId::DropCapabilities,
            Self::NoNewPrivs => StepId::NoNewPrivs,
            Self::LimitSpeculation { .. } => StepId::LimitSpeculation,
            Self::Landlock => StepId::Landlock,
            Self::ProveLandlock => StepId::ProveLandlock,
            Self::ProveCounters => StepId::ProveCounters,
            Self::ProveKeyring => StepId::ProveKeyring,
            Self::Seccomp { .. } => StepId::Seccomp,
            Self::AwaitInit => StepId::AwaitInit,
            Self::AwaitStart => StepId::AwaitStart,
            Self::Run { .. } => StepId::Run,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nursery(step) => step.fmt(f),
            Self::Init(step) => step.fmt(f),
            Self::Launcher(step) => step.fmt(f),
        }
    }
}

impl fmt::Display for NurseryStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Birth { cgroup, owner } => write!(
                f,
                "clone3 into user, pid, mount, net, ipc, uts namespaces owned by uid {owner} and cgroup {cgroup}"
            ),
            Self::MapIds { host_init, host_function } => {
                write!(f, "map uid and gid {INIT_UID} to {host_init}, {FUNCTION_UID} to {host_function}")
            }
        }
    }
}

impl fmt::Display for InitStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::JoinV1Groups => f.write_str("join the v1 groups of the same path"),
            Self::AwaitMaps => f.write_str("wait until the ids are mapped"),
            Self::UnshareCgroupAndTime { time: true } => f.write_str("unshare cgroup and time namespaces"),
            Self::UnshareCgroupAndTime { time: false } => f.write_str("unshare the cgroup namespace"),
            Self::SetClocks => write!(
                f,
                "set the monotonic and boot clocks to a random age of {} to {} hours",
                CLOCK_AGE_MIN_SECONDS / 3600,
                CLOCK_AGE_MAX_SECONDS / 3600
            ),
            Self::PrivatePropagation => f.write_str("make all mounts private"),
            Self::MountRoot { layout: Root::Dir { path, .. } } => write!(f, "mount {path} as the root, read-only"),
            Self::MountRoot { layout: Root::Host | Root::Static } => {
                f.write_str("mount the prepared skeleton as the root, read-only")
            }
            Self::MountUsr => f.write_str("mount the host's /usr, read-only"),
            Self::MountDev => f.write_str("mount /dev: null, zero, full, random, urandom, fd links"),
            Self::MountFunction { dir } => write!(f, "mount {dir} on /function, read-only"),
            Self::MountTmp { bytes, inodes } => write!(f, "mount tmpfs /tmp with size={bytes},nr_inodes={inodes}"),
            Self::MountToken => write!(
                f,
                "mount tmpfs {TOKEN_DIR} with size={TOKEN_MOUNT_BYTES},nr_inodes={TOKEN_MOUNT_INODES}, read-only for all but init"
            ),
            Self::LimitCounters => {
                f.write_str("set the maxima of the user namespace: ")?;
                counters::describe(f)
            }
            Self::RaiseOomScore => write!(f, "set oom_score_adj to {OOM_SCORE_ADJ}"),
            Self::MountProcAndSys { shown } => {
                write!(
                    f,
                    "mount /proc with hidepid=invisible,subset=pid and /sys; they show {} bytes of memory, ",
                    shown.memory_bytes
                )?;
                match shown.cpu_millis {
                    Some(millis) => write!(f, "processors for {millis} thousandths of a CPU")?,
                    None => f.write_str("the processors it can run on")?,
                }
                f.write_str(" and the worker's own groups")
            }
            Self::PivotRoot => f.write_str("pivot_root and detach the old root"),
            Self::SetHostName => write!(f, "set the host name to {HOST_NAME}"),
            Self::LoopbackUp => f.write_str("bring the loopback interface up"),
            Self::NewSession => f.write_str("start a new session with a new keyring"),
            Self::ForkLauncher => f.write_str("fork the launcher"),
            Self::ConfineInit { token } => {
                write!(
                    f,
                    "confine init: uid {INIT_UID}, no capabilities, no_new_privs, own system call filter, dies with the nursery"
                )?;
                if *token { write!(f, ", may write {TOKEN_FILE}") } else { Ok(()) }
            }
        }
    }
}

impl fmt::Display for LauncherStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PlaceDescriptors => f.write_str("keep descriptors 0 null, 1 and 2 log, 3 channel; close all others"),
            Self::SetRlimits { limits } => {
                let all = rlimits(limits).map(|limit| format!("{} {}", limit.name, limit.value));
                write!(f, "set rlimits: {}", all.join(", "))
            }
            Self::SwitchUid => write!(f, "switch to uid and gid {FUNCTION_UID}"),
            Self::DropCapabilities => {
                f.write_str("empty the bounding, ambient, inheritable, permitted, effective sets")
            }
            Self::NoNewPrivs => f.write_str("set no_new_privs"),
            Self::LimitSpeculation { store_bypass: true } => {
                f.write_str("forbid speculation by indirect branches and store bypass, where they can be")
            }
            Self::LimitSpeculation { store_bypass: false } => {
                f.write_str("forbid speculation by indirect branches, where it can be")
            }
            Self::Landlock => f.write_str("restrict files by landlock"),
            Self::ProveLandlock => f.write_str("prove landlock: no character device can be made in /tmp"),
            Self::ProveCounters => f.write_str("prove the maxima: no user namespace can be made"),
            Self::ProveKeyring => f.write_str("prove the keyring: the nursery's key is not found"),
            Self::Seccomp { on_refused: OnRefused::Errno } => {
                f.write_str("install the system call filters; others fail with EPERM")
            }
            Self::Seccomp { on_refused: OnRefused::Kill } => {
                f.write_str("install the system call filters; others end the worker")
            }
            Self::AwaitInit => f.write_str("wait until init is confined"),
            Self::AwaitStart => f.write_str("report CONFINED, wait until the supervisor has checked from outside"),
            Self::Run { protocol: Protocol::Stream, relayed: false, command } => {
                write!(f, "execve {}", command.join(" "))
            }
            Self::Run { protocol: Protocol::Stream, relayed: true, command } => {
                write!(f, "relay frames without descriptors, fork and execve {}", command.join(" "))
            }
            Self::Run { protocol: Protocol::Exec, command, .. } => {
                write!(f, "serve calls: fork and execve {} for each", command.join(" "))
            }
            Self::Run { protocol: Protocol::Lambda, command, .. } => {
                write!(f, "serve the Lambda Runtime API on {ADDRESS}, fork and execve {}", command.join(" "))
            }
        }
    }
}

/// What the plan needs to know of the host beside the spec.
#[derive(Clone, Copy, Debug)]
pub struct HostFacts<'a> {
    /// Host uid of the worker's init; the function's is the next one.
    pub host_init_uid: u32,
    /// Whether limits are on v1 hierarchies.
    pub v1_groups: bool,
    /// Layers this host lacks and the operator accepted to miss.
    pub missing_layers: &'a [Layer],
    /// Whether the kernel lets descriptors through that a function attaches to its frames (before Linux 6.16), so that a
    /// launcher has to stand in between.
    pub relays_streams: bool,
    /// Whether functions run without speculative store bypass.
    pub forbid_store_bypass: bool,
}

/// The steps that make one sandbox, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan(Vec<Step>);

impl Plan {
    /// All steps, as they are printed.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// What the nursery performs.
    pub fn of_nursery(&self) -> impl Iterator<Item = &NurseryStep> {
        self.0.iter().filter_map(|step| match step {
            Step::Nursery(step) => Some(step),
            Step::Init(_) | Step::Launcher(_) => None,
        })
    }

    /// What init performs.
    pub fn of_init(&self) -> impl Iterator<Item = &InitStep> {
        self.0.iter().filter_map(|step| match step {
            Step::Init(step) => Some(step),
            Step::Nursery(_) | Step::Launcher(_) => None,
        })
    }

    /// What the launcher performs.
    pub fn of_launcher(&self) -> impl Iterator<Item = &LauncherStep> {
        self.0.iter().filter_map(|step| match step {
            Step::Launcher(step) => Some(step),
            Step::Nursery(_) | Step::Init(_) => None,
        })
    }
}

/// The steps for `spec`, in order.
pub fn plan(spec: &SandboxSpec, host: &HostFacts<'_>) -> Plan {
    let has = |layer| !host.missing_layers.contains(&layer);
    let (host_init, host_function) = (host.host_init_uid, host.host_init_uid + 1);
    let mut steps = vec![Step::Nursery(NurseryStep::Birth { cgroup: spec.cgroup.clone(), owner: host_init })];
    if host.v1_groups {
        steps.push(Step::Init(InitStep::JoinV1Groups));
    }
    steps.push(Step::Nursery(NurseryStep::MapIds { host_init, host_function }));
    let mut init = vec![InitStep::AwaitMaps, InitStep::UnshareCgroupAndTime { time: has(Layer::Time) }];
    if has(Layer::Time) {
        init.push(InitStep::SetClocks);
    }
    init.push(InitStep::PrivatePropagation);
    init.push(InitStep::MountRoot { layout: spec.root.clone() });
    if spec.root == Root::Host {
        init.push(InitStep::MountUsr);
    }
    init.push(InitStep::MountDev);
    init.push(InitStep::MountFunction { dir: spec.function_dir.clone() });
    init.push(InitStep::MountTmp { bytes: spec.limits.tmp_bytes, inodes: spec.limits.tmp_inodes });
    if spec.token {
        init.push(InitStep::MountToken);
    }
    init.extend([
        InitStep::RaiseOomScore,
        InitStep::MountProcAndSys { shown: spec.shown },
        // After the last namespace is made, and the last mount cloned, for which the kernel makes one.
        InitStep::LimitCounters,
        InitStep::PivotRoot,
        InitStep::SetHostName,
        InitStep::LoopbackUp,
        InitStep::NewSession,
        InitStep::ForkLauncher,
        InitStep::ConfineInit { token: spec.token },
    ]);
    let relayed = host.relays_streams && spec.protocol == Protocol::Stream;
    let mut launcher = vec![
        LauncherStep::PlaceDescriptors,
        LauncherStep::SetRlimits { limits: spec.limits.clone() },
        LauncherStep::SwitchUid,
        LauncherStep::DropCapabilities,
        LauncherStep::NoNewPrivs,
        LauncherStep::LimitSpeculation { store_bypass: host.forbid_store_bypass },
    ];
    if has(Layer::Landlock) {
        launcher.extend([LauncherStep::Landlock, LauncherStep::ProveLandlock]);
    }
    launcher.extend([
        // Before the filters, which would answer in the place of what is to be proved.
        LauncherStep::ProveCounters,
        LauncherStep::ProveKeyring,
        LauncherStep::Seccomp { on_refused: spec.on_refused },
        LauncherStep::AwaitInit,
        LauncherStep::AwaitStart,
        LauncherStep::Run { protocol: spec.protocol, relayed, command: spec.command.clone() },
    ]);
    steps.extend(init.into_iter().map(Step::Init));
    steps.extend(launcher.into_iter().map(Step::Launcher));
    Plan(steps)
}

#[cfg(test)]
mod tests;
