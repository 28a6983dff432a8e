//! The settings of the host and of the daemon: `[host]`.

use std::{collections::BTreeSet, net::SocketAddr};

use super::{
    super::{
        bounds, defaults,
        degradation::Degradation,
        name::Name,
        path::HostPath,
        scalar::Scalar,
        settings::{
            Changes::{Restart, Set},
            FLAG,
            Kept::{Group, NoLimit, Sublet},
            Kind::{Choice, Text, Texts, Words},
            SUBLET, settings,
        },
        units::{ByteSize, CpuMillis, SocketMode},
    },
    logs::LogTo,
};

const BOUND: &str = "it is bound";
const ROOTS: &str = "the socket is root's";
const TOLD: &str = "the nursery was told once";
const OPENED: &str = "it was opened with root's rights";
const POOL: &str = "the pool's own limit is root's";

const fn path(values: &'static str) -> super::super::settings::Kind {
    Text { name: "path", values, pattern: "." }
}

/// What [`HostRead`] needs beside the text.
#[derive(Clone, Copy, Debug)]
pub struct Instance<'a> {
    /// Name of the daemon among those of its host.
    pub name: &'a str,
}

settings! {
    /// `[host]` as written.
    #[serde(default, deny_unknown_fields, expecting = "a table: [host]")]
    raw RawHost;
    /// `[host]` as read.
    read HostRead (instance: Instance<'_>);

    /// Settings of the host.
    values Host,
    /// Those that are made by hand.
    beside HostBeside {
        /// Lock file, scratch, record of leftovers.
        state_dir: HostPath,
        /// Where callers connect.
        socket: HostPath,
        /// Where operators connect. Its mode is always 0600.
        admin_socket: HostPath,
        /// Permissions of `socket`.
        socket_mode: SocketMode,
        /// TCP address to listen on as well; always loopback.
        listen: Option<SocketAddr>,
        /// Tells several daemons on one host apart; the cgroup is `sublet-<instance>`.
        instance: Name,
        /// Group of the v2 hierarchy, from its root, in which ours is made; none is the one the supervisor starts in.
        cgroup_parent: Option<HostPath>,
        /// Calls of all tenants together, accepted and not yet answered; at least 1.
        calls_in_flight_max: u32,
        /// Where the lines of all functions are written.
        log: LogTo,
        /// Trees that directories of functions and prepared roots are in; none leaves those of the start.
        function_dirs: BTreeSet<HostPath>,
        /// What this host may lack.
        accept_degraded: BTreeSet<Degradation>,
    }
    rows {
        state_dir [path("a directory of the daemon's own")] ("required") Restart("its lock is held"), NoLimit,
            "Holds the lock file, the sockets and the scratch directories. Every directory on the way to it must belong to root and be writable by nobody else.";
        socket [path("at most 107 bytes")] ("`call.sock` in `state_dir`") Restart(BOUND), NoLimit,
            "UNIX socket for callers.";
        admin_socket [path("at most 107 bytes, not `socket`")] ("`admin.sock` in `state_dir`") Restart(BOUND), NoLimit,
            "UNIX socket for operators. Its mode is always 0600.";
        socket_mode [Text { name: "file mode", values: "octal, with read and write for the owner", pattern: "^0?[67][0-7]{2}$" }] (format!("\"{}\"", defaults::SOCKET_MODE)) Restart(ROOTS), NoLimit,
            "Permissions of `socket`. Whoever may open it may call every function as any sub-tenant.";
        socket_gid: Option<u32> [bounds::SOCKET_GID] ("root's group") Restart(ROOTS), NoLimit,
            "Group of `socket`.";
        listen [Text { name: "address", values: "a loopback address and a port, such as \"127.0.0.1:7070\"", pattern: "^(127\\.[0-9.]+|\\[[0-9a-fA-F:]+\\]):[0-9]{1,5}$" }] ("none") Restart(BOUND), NoLimit,
            "TCP address for callers. Every local user can then call.";
        instance [Text { name: "name", values: "`[a-z0-9][a-z0-9_-]*`, at most 63 characters", pattern: super::super::name::PATTERN }] (format!("\"{}\"", defaults::INSTANCE)) Restart("the cgroups carry it"), NoLimit,
            "Tells several daemons on one host apart. The cgroup is `sublet-INSTANCE`.";
        cgroup_parent [path("a group of the v2 hierarchy, from its root")] ("the group it starts in") Restart("the cgroups are there"), NoLimit,
            "The group in which the daemon makes its own.";
        uid_base: u32 [bounds::UID_BASE] (format!("{} for \"main\", else derived from `instance`", defaults::UID_BASE) => defaults::uid_base(instance.name)) Restart(TOLD), NoLimit,
            "First host uid and gid of the workers.";
        uid_count: u32 [bounds::UID_COUNT] (is defaults::UID_COUNT) Restart(TOLD), NoLimit,
            "Number of host ids from `uid_base` on. It is even, and at least two for each of `workers_max`.";
        supervisor_uid: u32 [bounds::SUPERVISOR_UID] (format!("`uid_base` - {}", defaults::SUPERVISOR_UID_BELOW_BASE) => uid_base.value.saturating_sub(defaults::SUPERVISOR_UID_BELOW_BASE)) Restart("it is what the supervisor runs as"), NoLimit,
            "Uid and gid of the supervisor after it has given up root. It lies outside the workers' range.";
        workers_max: u32 [bounds::WORKERS] (is defaults::WORKERS_MAX) Set, SUBLET,
            "Workers of all tenants together, in any state.";
        calls_in_flight_max => Option<u32> [bounds::CALLS_IN_FLIGHT] ("`workers_max` + `calls_waiting_max`") Set, SUBLET,
            "Calls that are accepted and not answered yet, of all tenants together.";
        calls_waiting_max: u32 [bounds::CALLS] (is defaults::CALLS_WAITING_MAX) Set, SUBLET,
            "Calls that wait for a worker, of all tenants together.";
        cells_memory_max: ByteSize [bounds::CELLS_MEMORY] (is defaults::CELLS_MEMORY_MAX) Set, SUBLET,
            "Memory set aside for cells. Each counts as 1 MiB.";
        starts_max: u32 [bounds::WORKERS] (is defaults::STARTS_MAX) Set, SUBLET,
            "Workers that are being made at one time. It is at most `workers_max`.";
        connections_max: u32 [bounds::CONNECTIONS] (is defaults::CONNECTIONS_MAX) Restart("it is counted from the start"), Sublet("sublet, at the door"),
            "Connections of callers. Each carries at most 256 calls at a time.";
        threads: u32 [bounds::THREADS] ("half of the processors, at most 16" => defaults::threads()) Restart("they are running"), SUBLET,
            "Threads of the supervisor that serve calls.";
        busy_poll: bool [FLAG] ("`true` with one thread and two processors or more" => defaults::busy_poll(threads.value)) Set, SUBLET,
            "Polls for answers that are due at once instead of sleeping. It needs `threads = 1`.";
        forbid_store_bypass: bool [FLAG] (is defaults::FORBID_STORE_BYPASS) Restart(TOLD), SUBLET,
            "Runs functions without speculative store bypass. It costs Python about a tenth of its speed, and helps functions that run strangers' code in their own process.";
        log [Choice(&["none", "stdout", "files"])] ("\"none\"") Restart(OPENED), NoLimit,
            "Where the lines of functions are written. \"stdout\" writes JSON for journald.";
        log_dir [path("a directory of its own")] ("required with `log = \"files\"`") Restart(OPENED), NoLimit,
            "Directory of the log files. It is made if it is absent.";
        log_file_size => ByteSize [bounds::LOG_FILE] (is defaults::LOG_FILE_SIZE) Restart(OPENED), NoLimit,
            "Size at which a log file is rotated.";
        log_files => u32 [bounds::LOG_FILES] (is defaults::LOG_FILES) Restart(OPENED), NoLimit,
            "Log files that are kept, including the current one.";
        log_memory: ByteSize [bounds::LOG_MEMORY] (is defaults::LOG_MEMORY) Restart("it was set aside"), SUBLET,
            "Memory for the last lines of all functions, which `sublet logs` prints. Tenants and sub-tenants share it.";
        memory_max: Option<ByteSize> [bounds::MEMORY] ("none") Restart(POOL), Group("memory.max"),
            "Memory of all workers together. Without it they may take all of the host's.";
        cpu_quota: Option<CpuMillis> [bounds::CPU_QUOTA] ("none") Restart(POOL), Group("cpu.max"),
            "CPU of all workers together.";
        pids_max: Option<u32> [bounds::PIDS] ("none") Restart(POOL), Group("pids.max"),
            "Processes and threads of all workers together.";
        function_dirs as {Vec<Scalar>} [Texts { name: "list of paths", values: "directories of functions and prepared roots alone" }] ("the `dir` and `root` of each function at the start") Restart(TOLD), NoLimit,
            "Trees that every `dir` and `root` is in. What is below them comes by a reload, and links in them are followed, once in each reload. Each belongs to root, as do all directories on the way to it, and nobody else can change it or them.";
        accept_degraded as {Vec<Scalar>} [Words { values: "see [degradations](#degradations)", all: || Degradation::ALL.map(Degradation::name).to_vec() }] ("`[]`") Restart("the layers of a sandbox were decided on"), NoLimit,
            "What this host may lack. `serve` refuses to start without anything else.";
    }
}
