//! What the nursery is asked to make: one complete sandbox, as plain data.
//!
//! The supervisor writes a [`SandboxSpec`]; the nursery checks it against its own [`NurseryConfig`], which it was given
//! once, before the supervisor read a byte from a caller. Nothing here can switch a layer off: what a host lacks is in
//! the nursery's configuration, by name.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// One layer of the cage. A sandbox has all of them, but for those the operator accepted to miss on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layer {
    /// User namespace: the worker's uids own nothing outside.
    User,
    /// Process ids.
    Pid,
    /// Mounts and the worker's own root.
    Mount,
    /// Inodes of the worker's own for the directories it shares with others: locks, watches and times do not meet.
    Inodes,
    /// Network: loopback only.
    Net,
    /// System V IPC and POSIX queues.
    Ipc,
    /// Host name.
    Uts,
    /// View of the cgroup tree.
    Cgroup,
    /// Clocks.
    Time,
    /// All five capability sets empty.
    Capabilities,
    /// no_new_privs.
    NoNewPrivs,
    /// Landlock: a second, independent no to files.
    Landlock,
    /// System call filters.
    Seccomp,
}

impl Layer {
    /// Every layer, in the order they are put on.
    pub const ALL: [Self; 13] = [
        Self::User,
        Self::Pid,
        Self::Mount,
        Self::Inodes,
        Self::Net,
        Self::Ipc,
        Self::Uts,
        Self::Cgroup,
        Self::Time,
        Self::Capabilities,
        Self::NoNewPrivs,
        Self::Landlock,
        Self::Seccomp,
    ];

    /// Layers a configuration may accept to miss; all others are never optional.
    pub const MAY_BE_MISSING: [Self; 3] = [Self::Landlock, Self::Time, Self::Inodes];

    /// The name used in configuration, `sublet doctor` and descriptions.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Pid => "pid",
            Self::Mount => "mount",
            Self::Inodes => "inodes",
            Self::Net => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::Cgroup => "cgroup",
            Self::Time => "time",
            Self::Capabilities => "capabilities",
            Self::NoNewPrivs => "no-new-privs",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        }
    }
}

/// A directory of the host, told from any other that is there at the same time, whatever its name is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Number of its file system (`st_dev`).
    pub device: u64,
    /// Its number in there (`st_ino`).
    pub inode: u64,
}

/// What the worker sees as `/`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "layout", rename_all = "kebab-case")]
pub enum Root {
    /// The host's /usr, read-only, and nothing else of the host.
    Host,
    /// Nothing but the function's own directory: for static programs.
    Static,
    /// A directory tree prepared beforehand, read-only, for example by rootfs/debian-python.sh.
    Dir {
        /// Absolute path on the host.
        path: String,
        /// What must be there.
        identity: Identity,
    },
}

/// How the function is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// A long-lived process with frames on its channel.
    Stream,
    /// One process per call, payload on stdin, answer on stdout; the launcher stays and speaks the frames.
    Exec,
    /// A long-lived process that asks for its calls over HTTP: the Lambda Runtime API, which the launcher serves.
    Lambda,
}

/// What a refused system call does to the function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnRefused {
    /// The call fails with EPERM; the name is noted for the verdict.
    Errno,
    /// The worker is ended.
    Kill,
}

/// Limits that the kernel keeps per process or per mount, set inside the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InnerLimits {
    /// Open descriptors per process (RLIMIT_NOFILE).
    pub nofile: u64,
    /// Size of /tmp in bytes.
    pub tmp_bytes: u64,
    /// Largest file in bytes (RLIMIT_FSIZE).
    pub file_bytes: u64,
    /// Files and directories in /tmp.
    pub tmp_inodes: u64,
    /// Stack in bytes (RLIMIT_STACK).
    pub stack_bytes: u64,
}

/// The limits that a worker is shown in /proc and /sys, in place of the host's memory and processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownLimits {
    /// Its memory, in bytes.
    pub memory_bytes: u64,
    /// Its CPU quota, in thousandths of a CPU. None: it may use every processor that it can run on.
    pub cpu_millis: Option<u64>,
}

/// One complete sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SandboxSpec {
    /// Slot of the worker: its two host uids are `uid_base + 2 * slot` (init) and the next one (function).
    pub slot: u32,
    /// The worker's cgroup, relative to the pool's directory, for example "t-acme/s-0f…/w-17".
    pub cgroup: String,
    /// What the worker sees as `/`.
    pub root: Root,
    /// Directory of the function on the host, seen as /function, read-only.
    pub function_dir: String,
    /// What must be there: the directory that the revision's code was in when it was looked at.
    pub function_identity: Identity,
    /// Program and arguments; the program is resolved inside the sandbox.
    pub command: Vec<String>,
    /// How the function is talked to.
    pub protocol: Protocol,
    /// What a refused system call does.
    pub on_refused: OnRefused,
    /// Limits set inside.
    pub limits: InnerLimits,
    /// Limits that it is shown, until it is told of others.
    pub shown: ShownLimits,
    /// Whether its function is given a token: then there is a place for one, and init may write it there.
    pub token: bool,
    /// Largest answer in bytes that a launcher takes from its function.
    pub answer_max_bytes: u32,
    /// Largest payload in bytes that a launcher accepts.
    pub payload_max_bytes: u32,
}

/// What a supervisor is about to make, told before it makes any of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Its groups. Nobody has made them yet, or an earlier run has, or another supervisor.
    pub cgroups: CgroupDirs,
    /// Absolute paths of its sockets.
    pub sockets: Vec<String>,
}

/// What the nursery is told once, at start; a second telling is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NurseryConfig {
    /// First host uid (and gid) it may map.
    pub uid_base: u32,
    /// How many uids from there on; two per slot.
    pub uid_count: u32,
    /// Uid and gid the supervisor will run as after it dropped its rights.
    pub supervisor_uid: u32,
    /// Directories on the host that, with all below them, may be a root or a function's directory.
    pub allowed_dirs: Vec<String>,
    /// Where the nursery may mount its own tmpfs, seen by nobody else: an empty directory.
    pub scratch_dir: String,
    /// The cgroup directories it owns.
    pub cgroups: CgroupDirs,
    /// Layers this host lacks and the operator accepted to miss.
    pub missing_layers: Vec<Layer>,
    /// Whether functions run without speculative store bypass.
    pub forbid_store_bypass: bool,
    /// The supervisor's sockets.
    pub sockets: Vec<SocketPlace>,
}

/// Where the supervisor listens. Once it has given up root it can neither bind there again nor remove it: the nursery does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketPlace {
    /// The setting that names it, for people.
    pub setting: String,
    /// Absolute path on the host.
    pub path: String,
    /// Who may connect.
    pub mode: u32,
    /// Its group; none: root's.
    pub gid: Option<u32>,
    /// Whether somebody else has made it and keeps it: then it is neither made anew nor removed.
    pub is_handed_in: bool,
}

/// The cgroup directories of one supervisor. All were made by it, and all are removed when it ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CgroupDirs {
    /// Our subtree in the v2 hierarchy, for example "/sys/fs/cgroup/sublet-main".
    pub unified: String,
    /// The directory our subtree is in.
    pub unified_parent: String,
    /// Where the supervisor came from in the v2 hierarchy, to go back to when the subtree is removed.
    pub unified_origin: String,
    /// Controllers that were handed to the children of `unified_parent` for us, to be taken back in the end: a group
    /// whose children have controllers takes no processes.
    pub enabled: Vec<String>,
    /// On a hybrid host: our subtree in each v1 hierarchy that carries limits, in the order they are joined.
    pub v1: Vec<String>,
}

impl CgroupDirs {
    /// The groups that supervisor and nursery are in, each with the one of the same hierarchy to go back to.
    pub fn supervisor_groups(&self) -> Vec<(PathBuf, PathBuf)> {
        let v1 = self
            .v1
            .iter()
            .map(Path::new)
            .filter_map(|dir| Some((dir.join(CGROUP_SUPERVISOR), dir.parent()?.to_owned())));
        let unified = Path::new(&self.unified).join(CGROUP_SUPERVISOR);
        [(unified, PathBuf::from(&self.unified_origin))].into_iter().chain(v1).collect()
    }
}

/// Directory below the subtree in which supervisor and nursery live.
pub const CGROUP_SUPERVISOR: &str = "supervisor";
/// Directory below the subtree in which the runner and the token programs it starts live, where there are any.
pub const CGROUP_RUNNER: &str = "runner";
/// Directory below the subtree in which all workers live.
pub const CGROUP_POOL: &str = "pool";
