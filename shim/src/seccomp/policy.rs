//! The system call policy of functions, as data: what is answered how, and why.
//!
//! Three groups, installed in this order; the kernel takes the strictest answer of all filters:
//! 1. [`ABSENT`]: ENOSYS, "this kernel does not have it", so that runtimes take their older way;
//! 2. [`BY_ARGUMENT`]: a fixed errno for some arguments of calls that are otherwise allowed;
//! 3. [`ALLOWED`]: everything not on this list is refused, named in the verdict, and answered with EPERM (or ends the
//!    worker, when the function's `on_refused_syscall = "kill"`).
//!
//! Only an allowlist is safe here: x32 numbers (0x40000000 and above) are on no list. Calls of another architecture
//! (int 0x80) end the process by SIGSYS; seccompiler checks the architecture first.

/// Calls answered with ENOSYS, with the reason for each set.
pub const ABSENT: &[(&[&str], &str)] = &[
    (&["clone3"], "its flags sit behind a pointer a filter cannot read; glibc falls back to clone"),
    (&["io_uring_setup", "io_uring_enter", "io_uring_register"], "runs operations that no filter sees"),
    (&["futex_waitv", "futex_wake", "futex_wait", "futex_requeue"], "young code; futex does the same"),
    (
        &["open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "fspick", "mount_setattr", "open_tree_attr"],
        "mounting, in its newer form",
    ),
    (&["listmount", "statmount"], "shows mounts beyond /proc/self"),
    (&["pidfd_getfd", "process_madvise", "process_mrelease"], "reaches into other processes"),
    (&["memfd_secret"], "memory that the host cannot inspect"),
    (
        &["landlock_create_ruleset", "landlock_add_rule", "landlock_restrict_self"],
        "our ruleset is on; 16 is the depth limit",
    ),
    (
        &["shmget", "shmat", "shmctl", "shmdt", "semget", "semop", "semctl", "semtimedop"],
        "System V IPC: kernel objects that outlive processes",
    ),
    (&["msgget", "msgsnd", "msgrcv", "msgctl"], "System V IPC"),
    (
        &["mq_open", "mq_unlink", "mq_timedsend", "mq_timedreceive", "mq_notify", "mq_getsetattr"],
        "POSIX queues: as above",
    ),
    (
        &["io_setup", "io_destroy", "io_getevents", "io_submit", "io_cancel", "io_pgetevents"],
        "old asynchronous I/O; long record of bugs",
    ),
    (&["cachestat"], "tells what others keep in the page cache"),
    (&["splice", "tee", "vmsplice"], "pipe page games (CVE-2022-0847)"),
    (&["add_key", "request_key", "keyctl"], "keyrings are not namespaced"),
    (&["userfaultfd"], "stops kernel code at a chosen instruction"),
    (&["bpf", "perf_event_open"], "large attack surface, host-wide view"),
    (&["kexec_load", "kexec_file_load"], "replaces the kernel"),
    (
        &["set_mempolicy_home_node", "lsm_get_self_attr", "lsm_set_self_attr", "lsm_list_modules"],
        "new and of no use inside",
    ),
];

/// What an argument is compared with.
#[derive(Clone, Copy, Debug)]
pub enum Test {
    /// The low 32 bits are one of these.
    Is(&'static [u32]),
    /// The low 32 bits are none of these.
    IsNot(&'static [u32]),
    /// At least one of these bits is set.
    AnyBit(u32),
    /// All 64 bits, masked, equal the value.
    Masked {
        /// Bits looked at.
        mask: u64,
        /// What they must be.
        value: u64,
    },
}

/// One rule: these calls fail with `errno` when their argument passes the test.
#[derive(Clone, Copy, Debug)]
pub struct ArgumentRule {
    /// The calls.
    pub calls: &'static [&'static str],
    /// Which argument, from 0.
    pub argument: u8,
    /// When the call is refused.
    pub refused_when: Test,
    /// With what.
    pub errno: i32,
    /// Why.
    pub reason: &'static str,
}

const CLONE_NAMESPACES: u32 = 0x7E02_0000;
const SOCKET_TYPE_MASK: u64 = 0xf;
const PRCTL_ALLOWED: &[u32] = &[
    1,           // PR_SET_PDEATHSIG
    2,           // PR_GET_PDEATHSIG
    3,           // PR_GET_DUMPABLE
    4,           // PR_SET_DUMPABLE
    15,          // PR_SET_NAME
    16,          // PR_GET_NAME
    21,          // PR_GET_SECCOMP
    23,          // PR_CAPBSET_READ
    29,          // PR_SET_TIMERSLACK
    30,          // PR_GET_TIMERSLACK
    36,          // PR_SET_CHILD_SUBREAPER
    37,          // PR_GET_CHILD_SUBREAPER
    38,          // PR_SET_NO_NEW_PRIVS
    39,          // PR_GET_NO_NEW_PRIVS
    0x5356_4d41, // PR_SET_VMA
];

/// Calls that fail for some arguments, in the order of their errno.
pub const BY_ARGUMENT: &[ArgumentRule] = &[
    ArgumentRule {
        calls: &["socket", "socketpair"],
        argument: 0,
        refused_when: Test::IsNot(&[1, 2, 10]),
        errno: libc::EAFNOSUPPORT,
        reason: "UNIX, and IPv4 and IPv6 on the worker's own loopback; every other family is kernel code nobody needs",
    },
    ArgumentRule {
        calls: &["socket", "socketpair"],
        argument: 1,
        refused_when: Test::Masked { mask: SOCKET_TYPE_MASK, value: 4 },
        errno: libc::EAFNOSUPPORT,
        reason: "SOCK_RDM",
    },
    ArgumentRule {
        calls: &["socket", "socketpair"],
        argument: 2,
        refused_when: Test::IsNot(&[0, 6, 17]),
        errno: libc::EAFNOSUPPORT,
        reason: "TCP and UDP only: no MPTCP (262), SCTP (132), raw protocols",
    },
    ArgumentRule {
        calls: &["ioctl"],
        argument: 1,
        refused_when: Test::IsNot(&[0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451]),
        errno: libc::ENOTTY,
        reason: "TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX; TIOCSTI and the rest answer as on a plain file",
    },
    ArgumentRule {
        calls: &["prctl"],
        argument: 0,
        refused_when: Test::IsNot(PRCTL_ALLOWED),
        errno: libc::EINVAL,
        reason: "names, death signal, timer slack, queries; no seccomp, no speculation or mm games",
    },
    ArgumentRule {
        calls: &["madvise"],
        argument: 2,
        refused_when: Test::Is(&[12, 25, 100, 101]),
        errno: libc::EINVAL,
        reason: "MERGEABLE tells neighbours apart by timing; COLLAPSE; HWPOISON and SOFT_OFFLINE hurt the host",
    },
    ArgumentRule {
        calls: &["membarrier"],
        argument: 0,
        refused_when: Test::Is(&[1, 2]),
        errno: libc::EINVAL,
        reason: "GLOBAL and GLOBAL_EXPEDITED interrupt every CPU",
    },
    ArgumentRule {
        calls: &["clone"],
        argument: 0,
        refused_when: Test::AnyBit(CLONE_NAMESPACES),
        errno: libc::EPERM,
        reason: "no new namespaces",
    },
    ArgumentRule {
        calls: &["personality"],
        argument: 0,
        refused_when: Test::IsNot(&[0xffff_ffff]),
        errno: libc::EPERM,
        reason: "asking is fine; ADDR_NO_RANDOMIZE and old ABIs are not",
    },
    ArgumentRule {
        calls: &["fcntl"],
        argument: 1,
        refused_when: Test::Is(&[1024, 1026, 10, 15]),
        errno: libc::EPERM,
        reason: "leases, directory notices and signals about files that others may share",
    },
    ArgumentRule {
        calls: &["futex"],
        argument: 1,
        refused_when: Test::Masked { mask: 0x7f, value: 11 },
        errno: libc::ENOSYS,
        reason: "FUTEX_WAIT_REQUEUE_PI: a source of kernel bugs (CVE-2014-3153 and after)",
    },
    ArgumentRule {
        calls: &["futex"],
        argument: 1,
        refused_when: Test::Masked { mask: 0x7f, value: 12 },
        errno: libc::ENOSYS,
        reason: "FUTEX_CMP_REQUEUE_PI: as above",
    },
];

/// Calls a function may make, with the reason for each set. Those named above are among them, so that the answer given
/// there stands.
pub const ALLOWED: &[(&[&str], &str)] = &[
    (
        &[
            "read",
            "write",
            "readv",
            "writev",
            "pread64",
            "pwrite64",
            "preadv",
            "pwritev",
            "preadv2",
            "pwritev2",
            "lseek",
            "close",
            "close_range",
            "dup",
            "dup2",
            "dup3",
            "fcntl",
            "ioctl",
            "pipe",
            "pipe2",
            "sendfile",
            "copy_file_range",
        ],
        "descriptors",
    ),
    (
        &[
            "open",
            "openat",
            "openat2",
            "creat",
            "stat",
            "fstat",
            "lstat",
            "newfstatat",
            "statx",
            "statfs",
            "fstatfs",
            "access",
            "faccessat",
            "faccessat2",
            "getdents",
            "getdents64",
            "readlink",
            "readlinkat",
            "getcwd",
            "chdir",
            "fchdir",
            "umask",
        ],
        "files: the root is read-only and small, landlock says the same",
    ),
    (
        &[
            "mkdir",
            "mkdirat",
            "rmdir",
            "unlink",
            "unlinkat",
            "rename",
            "renameat",
            "renameat2",
            "link",
            "linkat",
            "symlink",
            "symlinkat",
            "truncate",
            "ftruncate",
            "fallocate",
            "fadvise64",
            "fsync",
            "fdatasync",
            "sync_file_range",
            "flock",
            "chmod",
            "fchmod",
            "fchmodat",
            "fchmodat2",
            "chown",
            "fchown",
            "lchown",
            "fchownat",
            "utime",
            "utimes",
            "utimensat",
            "futimesat",
        ],
        "writing: only /tmp can be written",
    ),
    (
        &[
            "getxattr",
            "lgetxattr",
            "fgetxattr",
            "listxattr",
            "llistxattr",
            "flistxattr",
            "setxattr",
            "lsetxattr",
            "fsetxattr",
            "removexattr",
            "lremovexattr",
            "fremovexattr",
        ],
        "cp and tar ask for them",
    ),
    (&["sync", "syncfs"], "only tmpfs of the worker itself is writable; host disks see read-only mounts"),
    (
        &[
            "mmap",
            "munmap",
            "mremap",
            "mprotect",
            "madvise",
            "msync",
            "mincore",
            "mlock",
            "munlock",
            "munlockall",
            "mseal",
            "brk",
            "memfd_create",
            "pkey_alloc",
            "pkey_free",
            "pkey_mprotect",
            "map_shadow_stack",
            "membarrier",
        ],
        "memory: counted by the cgroup",
    ),
    (
        &[
            "clone",
            "fork",
            "vfork",
            "execve",
            "execveat",
            "exit",
            "exit_group",
            "wait4",
            "waitid",
            "kill",
            "tkill",
            "tgkill",
            "pidfd_open",
            "pidfd_send_signal",
            "set_tid_address",
            "gettid",
            "getpid",
            "getppid",
            "getpgid",
            "getpgrp",
            "setpgid",
            "getsid",
            "setsid",
        ],
        "processes: the pid namespace and pids.max confine them",
    ),
    (
        &[
            "futex",
            "get_robust_list",
            "set_robust_list",
            "rseq",
            "sched_yield",
            "sched_getaffinity",
            "sched_getparam",
            "sched_getscheduler",
            "sched_getattr",
            "sched_get_priority_max",
            "sched_get_priority_min",
            "sched_rr_get_interval",
            "getcpu",
            "getpriority",
            "setpriority",
            "ioprio_get",
            "arch_prctl",
            "prctl",
            "personality",
            "set_thread_area",
            "get_thread_area",
            "uretprobe",
            "restart_syscall",
        ],
        "threads",
    ),
    (
        &[
            "rt_sigaction",
            "rt_sigprocmask",
            "rt_sigreturn",
            "rt_sigpending",
            "rt_sigsuspend",
            "rt_sigtimedwait",
            "rt_sigqueueinfo",
            "rt_tgsigqueueinfo",
            "sigaltstack",
            "signalfd",
            "signalfd4",
            "pause",
            "alarm",
        ],
        "signals",
    ),
    (
        &[
            "nanosleep",
            "clock_nanosleep",
            "clock_gettime",
            "clock_getres",
            "gettimeofday",
            "time",
            "times",
            "getitimer",
            "setitimer",
            "timer_create",
            "timer_settime",
            "timer_gettime",
            "timer_getoverrun",
            "timer_delete",
            "timerfd_create",
            "timerfd_settime",
            "timerfd_gettime",
        ],
        "time: reading and waiting, no setting",
    ),
    (
        &[
            "select",
            "pselect6",
            "poll",
            "ppoll",
            "epoll_create",
            "epoll_create1",
            "epoll_ctl",
            "epoll_wait",
            "epoll_pwait",
            "epoll_pwait2",
            "eventfd",
            "eventfd2",
            "inotify_init",
            "inotify_init1",
            "inotify_add_watch",
            "inotify_rm_watch",
        ],
        "waiting",
    ),
    (
        &[
            "socket",
            "socketpair",
            "bind",
            "listen",
            "accept",
            "accept4",
            "connect",
            "shutdown",
            "getsockname",
            "getpeername",
            "getsockopt",
            "setsockopt",
            "sendto",
            "recvfrom",
            "sendmsg",
            "recvmsg",
            "sendmmsg",
            "recvmmsg",
        ],
        "sockets: the network namespace has loopback only",
    ),
    (
        &[
            "getuid",
            "geteuid",
            "getgid",
            "getegid",
            "getresuid",
            "getresgid",
            "getgroups",
            "setuid",
            "setgid",
            "setreuid",
            "setregid",
            "setresuid",
            "setresgid",
            "capget",
        ],
        "identity: without capabilities and with one mapped id, the setters can only say what already is",
    ),
    (
        &["getrlimit", "setrlimit", "prlimit64", "getrusage", "sysinfo", "uname", "getrandom"],
        "limits and facts; hard limits cannot be raised",
    ),
];

/// What init itself may call once it has set everything up. Anything else ends it, and with it the sandbox.
pub const INIT: &[&str] = &[
    "statfs",
    "ppoll",
    "poll",
    "read",
    "write",
    "sendto",
    "sendmsg",
    "recvmsg",
    "recvfrom",
    "wait4",
    "waitid",
    "kill",
    "close",
    "exit_group",
    "exit",
    "ioctl",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigaction",
    "sigaltstack",
    "restart_syscall",
    "brk",
    "mmap",
    "munmap",
    "mremap",
    "mprotect",
    "madvise",
    "futex",
    "getpid",
    "gettid",
    "tgkill",
    "fcntl",
    "getrandom",
    "clock_gettime",
];

/// The descriptor by which init reaches the token's place.
pub const TOKEN_DIR_FD: i32 = 5;
/// How it opens the file there: an old one that was not finished is written over, and no link is followed.
pub const TOKEN_OPEN_FLAGS: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC | libc::O_NOFOLLOW | libc::O_CLOEXEC;

/// What init may call besides, where there is a token to write: each with the arguments that must be so.
pub const INIT_TOKEN: &[(&str, &[(u8, u32)])] = &[
    // There and so, and nothing else is ever opened.
    ("openat", &[(0, TOKEN_DIR_FD as u32), (2, TOKEN_OPEN_FLAGS as u32)]),
    ("renameat", &[(0, TOKEN_DIR_FD as u32), (2, TOKEN_DIR_FD as u32)]),
];
