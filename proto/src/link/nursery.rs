//! Messages between supervisor, nursery and init: one JSON value per SEQPACKET packet, at most [`MESSAGE_LIMIT`] bytes.
//!
//! JSON, because these messages are rare (a handful per worker), small, and what an operator wants to read in a trace;
//! and because its decoder refuses rather than guesses.

use serde::{Deserialize, Serialize};

use super::{
    sandbox::{Announcement, NurseryConfig, SandboxSpec},
    step::StepId,
};

/// No packet is larger.
pub const MESSAGE_LIMIT: usize = 64 * 1024;

/// Supervisor to nursery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// The first message: what the supervisor is about to make. It is removed when the supervisor ends before `Configure`.
    Announce(Box<Announcement>),
    /// The announced groups are the supervisor's. Their locks are attached.
    Claimed,
    /// The bounds, once. What comes after it carries no descriptors.
    Configure(Box<NurseryConfig>),
    /// Make a sandbox. Answered by [`Event::Spawned`] or [`Event::Refused`], later by [`Event::Reaped`].
    Spawn {
        /// Chosen by the supervisor, names the sandbox from now on.
        worker: u64,
        /// What to make.
        spec: Box<SandboxSpec>,
    },
    /// Look at a sandbox from outside. Answered by [`Event::Posture`] or [`Event::PostureFailed`].
    Inspect {
        /// Number of the worker, as it was spawned by.
        worker: u64,
    },
    /// Ask what is left for the sandbox's processes. Answered by [`Event::Left`].
    AskLeft {
        /// Number of the worker, as it was spawned by.
        worker: u64,
    },
    /// Ask the function of a sandbox to end by itself, by SIGTERM. Answered by [`Event::AskedToEnd`].
    AskToEnd {
        /// Number of the worker, as it was spawned by.
        worker: u64,
    },
    /// See whether the files that the supervisor lives by are still there, and make anew what is gone. Answered by
    /// [`Event::Places`].
    LookAtPlaces {
        /// Sockets that were made anew and have not arrived, by their number.
        lost: Vec<usize>,
    },
    /// End every sandbox, remove the cgroups, exit. Answered by [`Event::Stopped`].
    Stop,
}

/// Nursery to supervisor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// Ready for requests: the roots are prepared, the filters compiled.
    Configured,
    /// Answer to `Configure` when it cannot be done; the nursery exits.
    ConfigureFailed {
        /// What and why.
        error: String,
    },
    /// A sandbox was born. Descriptors attached, in this order: channel, control, log (read end).
    Spawned {
        /// Number of the worker, as it was spawned by.
        worker: u64,
        /// Process id of its init on the host.
        pid: i32,
    },
    /// No sandbox was made.
    Refused {
        /// Number of the worker, as it was spawned by.
        worker: u64,
        /// What and why.
        error: String,
    },
    /// What was seen of a sandbox from outside.
    Posture {
        /// The sandbox that was asked about.
        worker: u64,
        /// What was seen.
        posture: Box<Posture>,
    },
    /// A sandbox could not be looked at.
    PostureFailed {
        /// The sandbox that was asked about.
        worker: u64,
        /// What was tried, and why it failed.
        error: String,
    },
    /// What is left for the sandbox's processes; none when it cannot be asked any more.
    Left {
        /// Number of the worker, as it was spawned by.
        worker: u64,
        /// What is left.
        left: Option<Left>,
    },
    /// Processes of the function were asked to end.
    AskedToEnd {
        /// Number of the worker, as it was spawned by.
        worker: u64,
        /// How many; 0 when there is none, or none that can be asked.
        processes: u32,
    },
    /// The sandbox's init is dead and reaped.
    Reaped {
        /// Number of the worker, as it was spawned by.
        worker: u64,
        /// Exit code of init, when it exited.
        code: Option<i32>,
        /// Signal that ended init, when one did.
        signal: Option<i32>,
    },
    /// What the look at the files has shown.
    Places {
        /// What is not as it was and could not be made anew, each with the remedy.
        wrong: Vec<String>,
        /// What was gone and has been made anew, since the last look.
        healed: Vec<String>,
        /// Which of [`NurseryConfig::sockets`] listen anew. Their descriptors are attached, in this order.
        sockets: Vec<usize>,
    },
    /// Everything is gone; the nursery exits now.
    Stopped {
        /// Things that could not be removed; empty when all is well.
        left: Vec<String>,
    },
}

/// What can be read about a sandboxed process from outside; the supervisor judges it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Posture {
    /// Of the worker's init.
    pub init: ProcessPosture,
    /// Of the process that will become, or launch, the function.
    pub function: ProcessPosture,
}

/// One process, as /proc shows it from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessPosture {
    /// Process id on the host.
    pub pid: i32,
    /// Its namespaces, by name ("user", "pid", …): inode numbers.
    pub namespaces: Vec<(String, u64)>,
    /// The nursery's own namespaces, read at the same moment.
    pub host_namespaces: Vec<(String, u64)>,
    /// Effective, permitted, inheritable, bounding and ambient capabilities, or-ed together.
    pub capabilities: u64,
    /// `NoNewPrivs` of /proc/PID/status.
    pub no_new_privs: bool,
    /// `Seccomp` of /proc/PID/status: 2 is filter mode.
    pub seccomp_mode: u32,
    /// `Seccomp_filters` of /proc/PID/status.
    pub seccomp_filters: u32,
    /// Real, effective, saved and filesystem uid.
    pub uids: [u32; 4],
    /// Real, effective, saved and filesystem gid.
    pub gids: [u32; 4],
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Paths in /proc/PID/cgroup, as (controllers, path); v2 has controllers "".
    pub cgroups: Vec<(String, String)>,
    /// Mounts as (mount point, filesystem, options of the mount).
    pub mounts: Vec<(String, String, String)>,
    /// `SpeculationIndirectBranch` of /proc/PID/status; empty where the kernel has no such line.
    pub indirect_branch: String,
    /// `Speculation_Store_Bypass` of /proc/PID/status; empty where the kernel has no such line.
    pub store_bypass: String,
    /// Open descriptors.
    pub descriptors: Vec<i32>,
    /// Options of the filesystem behind each mount, as (mount point, options).
    pub filesystems: Vec<(String, String)>,
    /// Size of /tmp in bytes, and how many files and directories it may have.
    pub tmp_size: (u64, u64),
    /// Lines of /proc/PID/limits: name, soft and hard limit; `u64::MAX` is "unlimited".
    pub limits: Vec<(String, u64, u64)>,
    /// /proc/PID/oom_score_adj.
    pub oom_score_adj: i32,
    /// /proc/PID/uid_map, its fields parted by one space, its lines by a comma and a space.
    pub uid_map: String,
    /// /proc/PID/gid_map in the same form.
    pub gid_map: String,
    /// /proc/PID/setgroups: "deny" or "allow".
    pub setgroups: String,
    /// Device number of the controlling terminal; 0 is none.
    pub terminal: i32,
    /// Owner of the files in /proc/PID: root for a process that cannot be dumped, and so neither be traced by its own uid.
    pub proc_owner: u32,
    /// Mode bits that new files do not get.
    pub umask: u32,
    /// /proc/PID/timens_offsets in the form of `uid_map`; none where the kernel has no time namespaces.
    pub clock_offsets: Option<String>,
}

/// Init to supervisor, on the control socket. Everything before `Confined` is ours, everything after is the function's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "report", rename_all = "kebab-case")]
pub enum InitReport {
    /// A confinement step failed; nothing of the function has run. Init ends.
    StepFailed {
        /// The step. Whose fault the failure is follows from it.
        id: StepId,
        /// The step, as the plan prints it: for people.
        step: String,
        /// Why.
        error: String,
        /// Whether the host lacks what it takes: see `sublet_shim::shortage`.
        is_shortage: bool,
    },
    /// The filter refused a system call; sent for the first 16 different ones of the start and of each call.
    SyscallRefused {
        /// Number in the kernel's table for this architecture.
        number: i64,
        /// Name, when known.
        name: String,
    },
    /// The function's own process ended; init ends next.
    FunctionEnded {
        /// Its exit code, when it exited.
        code: Option<i32>,
        /// The signal that ended it, when one did.
        signal: Option<i32>,
        /// What was left in /tmp at that moment, when it could be asked.
        tmp: Option<TmpSpace>,
    },
    /// The token of this number is where the function reads it.
    TokenWritten {
        /// As it came.
        number: u64,
    },
    /// It could not be put there.
    TokenFailed {
        /// As it came.
        number: u64,
        /// Why.
        error: String,
    },
    /// The files show the limits of this number, as far as they could be written.
    LimitsShown {
        /// As it came.
        number: u64,
    },
}

/// What is left for a worker's processes, of what no control group counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// In /tmp.
    pub tmp: TmpSpace,
    /// Whether one of its processes has all the descriptors it may have.
    pub is_out_of_descriptors: bool,
}

/// What is left in a worker's /tmp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpSpace {
    /// Bytes.
    pub bytes_free: u64,
    /// Files and directories.
    pub inodes_free: u64,
}

impl TmpSpace {
    /// Whether nothing more can be written or created.
    pub const fn is_full(self) -> bool {
        self.bytes_free == 0 || self.inodes_free == 0
    }
}
