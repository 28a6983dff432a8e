//! The plan: the ordered list of steps that make one sandbox, as a plain value.
//!
//! The order is the argument. Nothing runs outside its limits (born in the cgroup), nothing of the function runs before
//! the last filter is on, and what needs a right comes before the right is given up.

use std::fmt;

use sublet_proto::link::{
    sandbox::{InnerLimits, Layer, OnRefused, Protocol, Root, SandboxSpec},
    token::{TOKEN_DIR, TOKEN_FILE},
};
use sublet_runtime_api::ADDRESS;

/// Uid and gid of init inside the sandbox.
pub const INIT_UID: u32 = 999;
/// Uid and gid of the function inside the sandbox.
pub const FUNCTION_UID: u32 = 1000;
/// Host name inside.
pub const HOST_NAME: &str = "worker";
/// Added to init's and the function's oom score: when the host itself runs short, workers go before anything else.
pub const OOM_SCORE_ADJ: u32 = 700;

/// Size of the place for a token: the old one, the new one, and their pages.
pub const TOKEN_MOUNT_BYTES: u64 = 64 * 1024;
/// Files there, the directory itself included: the old one, the new one, and one to spare.
pub const TOKEN_MOUNT_INODES: u64 = 4;

/// Who performs a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The nursery, on the host.
    Nursery,
    /// Init, inside.
    Init,
    /// The launcher, inside, which becomes or runs the function.
    Launcher,
}

/// One step.
// The fields are what the printed step names.
#[allow(missing_docs)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// clone3 with all birth namespaces into the cgroup.
    Birth { cgroup: String },
    /// On hybrid hosts: init joins the v1 groups that carry its limits, before it does anything else.
    JoinV1Groups,
    /// Two host ids: init and function.
    MapIds { host_init: u32, host_function: u32 },
    /// New cgroup (and time) namespace, once inside the right group.
    UnshareCgroupAndTime { time: bool },
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
    /// Own processes only.
    MountProc,
    /// The only place that can be written.
    MountTmp { bytes: u64, inodes: u64 },
    /// Where init puts the token of the sub-tenant; nobody else can write there.
    MountToken,
    /// No user namespaces inside.
    ForbidUserNamespaces,
    /// First to go when the host runs out of memory.
    RaiseOomScore,
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
    /// A second no to files.
    Landlock,
    /// The filters.
    Seccomp { on_refused: OnRefused },
    /// Init has confined itself too.
    AwaitInit,
    /// Tell the supervisor, wait for its check from outside.
    AwaitStart,
    /// The function; a `stream` function may be `relayed`.
    Run { protocol: Protocol, relayed: bool, command: Vec<String> },
}

impl Step {
    /// Who performs it.
    pub const fn actor(&self) -> Actor {
        match self {
            Self::Birth { .. } | Self::MapIds { .. } => Actor::Nursery,
            Self::JoinV1Groups
            | Self::UnshareCgroupAndTime { .. }
            | Self::PrivatePropagation
            | Self::MountRoot { .. }
            | Self::MountUsr
            | Self::MountDev
            | Self::MountFunction { .. }
            | Self::MountProc
            | Self::MountTmp { .. }
            | Self::MountToken
            | Self::ForbidUserNamespaces
            | Self::RaiseOomScore
            | Self::PivotRoot
            | Self::SetHostName
            | Self::LoopbackUp
            | Self::NewSession
            | Self::ForkLauncher
            | Self::ConfineInit { .. } => Actor::Init,
            Self::PlaceDescriptors
            | Self::SetRlimits { .. }
            | Self::SwitchUid
            | Self::DropCapabilities
            | Self::NoNewPrivs
            | Self::Landlock
            | Self::Seccomp { .. }
            | Self::AwaitInit
            | Self::AwaitStart
            | Self::Run { .. } => Actor::Launcher,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Birth { cgroup } => {
                write!(f, "clone3 into user, pid, mount, net, ipc, uts namespaces and cgroup {cgroup}")
            }
            Self::JoinV1Groups => f.write_str("join the v1 groups of the same path"),
            Self::MapIds { host_init, host_function } => {
                write!(f, "map uid and gid {INIT_UID} to {host_init}, {FUNCTION_UID} to {host_function}")
            }
            Self::UnshareCgroupAndTime { time: true } => f.write_str("unshare cgroup and time namespaces"),
            Self::UnshareCgroupAndTime { time: false } => f.write_str("unshare the cgroup namespace"),
            Self::PrivatePropagation => f.write_str("make all mounts private"),
            Self::MountRoot { layout: Root::Dir { path } } => write!(f, "mount {path} as the root, read-only"),
            Self::MountRoot { layout: Root::Host | Root::Static } => {
                f.write_str("mount the prepared skeleton as the root, read-only")
            }
            Self::MountUsr => f.write_str("mount the host's /usr, read-only"),
            Self::MountDev => f.write_str("mount /dev: null, zero, full, random, urandom, fd links"),
            Self::MountFunction { dir } => write!(f, "mount {dir} on /function, read-only"),
            Self::MountProc => f.write_str("mount /proc with hidepid=invisible,subset=pid"),
            Self::MountTmp { bytes, inodes } => write!(f, "mount tmpfs /tmp with size={bytes},nr_inodes={inodes}"),
            Self::MountToken => write!(
                f,
                "mount tmpfs {TOKEN_DIR} with size={TOKEN_MOUNT_BYTES},nr_inodes={TOKEN_MOUNT_INODES}, read-only for all but init"
            ),
            Self::ForbidUserNamespaces => f.write_str("set max_user_namespaces to 0 inside"),
            Self::RaiseOomScore => write!(f, "set oom_score_adj to {OOM_SCORE_ADJ}"),
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
            Self::PlaceDescriptors => f.write_str("keep descriptors 0 null, 1 and 2 log, 3 channel; close all others"),
            Self::SetRlimits { limits } => write!(
                f,
                "set rlimits: nofile {}, fsize {}, stack {}, core 0, memlock 64 KiB, msgqueue 0, sigpending 128, rtprio 0",
                limits.nofile, limits.file_bytes, limits.stack_bytes
            ),
            Self::SwitchUid => write!(f, "switch to uid and gid {FUNCTION_UID}"),
            Self::DropCapabilities => {
                f.write_str("empty the bounding, ambient, inheritable, permitted, effective sets")
            }
            Self::NoNewPrivs => f.write_str("set no_new_privs"),
            Self::Landlock => f.write_str("restrict files by landlock"),
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
}

/// The steps for `spec`, in order.
pub fn plan(spec: &SandboxSpec, host: &HostFacts<'_>) -> Vec<Step> {
    let has = |layer| !host.missing_layers.contains(&layer);
    let mut steps = vec![Step::Birth { cgroup: spec.cgroup.clone() }];
    if host.v1_groups {
        steps.push(Step::JoinV1Groups);
    }
    steps.push(Step::MapIds { host_init: host.host_init_uid, host_function: host.host_init_uid + 1 });
    steps.push(Step::UnshareCgroupAndTime { time: has(Layer::Time) });
    steps.push(Step::PrivatePropagation);
    steps.push(Step::MountRoot { layout: spec.root.clone() });
    if spec.root == Root::Host {
        steps.push(Step::MountUsr);
    }
    steps.push(Step::MountDev);
    steps.push(Step::MountFunction { dir: spec.function_dir.clone() });
    steps.push(Step::MountProc);
    steps.push(Step::MountTmp { bytes: spec.limits.tmp_bytes, inodes: spec.limits.tmp_inodes });
    if spec.token {
        steps.push(Step::MountToken);
    }
    steps.extend([
        Step::ForbidUserNamespaces,
        Step::RaiseOomScore,
        Step::PivotRoot,
        Step::SetHostName,
        Step::LoopbackUp,
        Step::NewSession,
        Step::ForkLauncher,
        Step::ConfineInit { token: spec.token },
        Step::PlaceDescriptors,
        Step::SetRlimits { limits: spec.limits.clone() },
        Step::SwitchUid,
        Step::DropCapabilities,
        Step::NoNewPrivs,
    ]);
    if has(Layer::Landlock) {
        steps.push(Step::Landlock);
    }
    steps.push(Step::Seccomp { on_refused: spec.on_refused });
    steps.push(Step::AwaitInit);
    steps.push(Step::AwaitStart);
    let relayed = host.relays_streams && spec.protocol == Protocol::Stream;
    steps.push(Step::Run { protocol: spec.protocol, relayed, command: spec.command.clone() });
    steps
}
