//! The supervisor's system call policy, as data: what it may call, what it is told is absent, what ends it.
//!
//! Three filters, installed in this order. The kernel takes the strictest answer of all:
//! 1. [`ABSENT`]: ENOSYS, so that the C library takes its older way;
//! 2. [`FORBIDDEN`]: the process is ended. Nothing of ours ever calls these, so whoever does is not us any more. The
//!    nursery then ends every worker and removes every trace;
//! 3. [`ALLOWED`] and [`BY_ARGUMENT`]: everything else gets EPERM, and a line in the kernel's log (audit, type=1326).
//!
//! Made from what the code calls, with the relatives that another C library would call instead. The kernel's log names each
//! call that is refused, so that one which is missing here is found by running the kernel tests and reading that log.
//! Calls of the hot path have no argument rule: the kernel remembers that they are always allowed and runs no filter for them.

/// What an argument must be.
#[derive(Clone, Copy, Debug)]
pub enum Must {
    /// The low 32 bits are this: of arguments that the kernel takes as int.
    Be(u32),
    /// All 64 bits, masked, are this.
    Have {
        /// Bits that are looked at.
        mask: u64,
        /// What they must be.
        value: u64,
    },
    /// This process's number.
    BeOurPid,
}

/// A call that is allowed when one of the alternatives holds: all of its arguments are as they must be.
#[derive(Clone, Copy, Debug)]
pub struct ByArgument {
    /// The call.
    pub call: &'static str,
    /// Alternatives, each a list of (number of the argument from 0, what it must be).
    pub when: &'static [&'static [(u8, Must)]],
    /// What it is for, and what is kept out.
    pub reason: &'static str,
}

/// Calls answered with ENOSYS.
pub const ABSENT: &[(&[&str], &str)] =
    &[(&["clone3"], "its flags are behind a pointer that no filter can read; the C library falls back to clone")];

/// Calls that end the process.
pub const FORBIDDEN: &[(&[&str], &str)] = &[
    (&["execve", "execveat", "fork", "vfork"], "it starts nothing: nursery and runner do, and were started before"),
    (&["ptrace", "process_vm_readv", "process_vm_writev", "kcmp"], "other processes' memory"),
    (&["pidfd_open", "pidfd_getfd", "process_madvise", "process_mrelease"], "other processes' descriptors and pages"),
    (&["socket", "connect"], "it calls nobody: what it listens on was bound before, and pairs are made by socketpair"),
    (&["mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "mount_setattr"], "mounts"),
    (&["fsopen", "fsconfig", "fsmount", "fspick"], "mounts, in their newer form"),
    (&["setns", "unshare"], "namespaces, which are a way to capabilities"),
    (&["io_uring_setup", "io_uring_enter", "io_uring_register"], "runs operations that no filter sees"),
    (&["io_setup", "io_submit", "io_cancel", "io_destroy", "io_getevents", "io_pgetevents"], "old asynchronous I/O"),
    (&["bpf", "perf_event_open", "userfaultfd"], "the tools of kernel exploits"),
    (&["add_key", "request_key", "keyctl"], "keyrings are not namespaced"),
    (&["splice", "tee", "vmsplice"], "pages shared between pipes and files (CVE-2022-0847)"),
    (&["open_by_handle_at", "name_to_handle_at"], "files past every path"),
    (&["mknod", "mknodat"], "devices"),
    (
        &["setuid", "setgid", "setreuid", "setregid", "setresuid", "setresgid", "setgroups"],
        "other ids: rights are gone for good",
    ),
    (&["setfsuid", "setfsgid", "capset"], "as above"),
    (&["init_module", "finit_module", "delete_module", "kexec_load", "kexec_file_load"], "the kernel itself"),
    (&["reboot", "swapon", "swapoff", "acct", "syslog", "quotactl", "nfsservctl"], "the host"),
    (&["settimeofday", "clock_settime", "adjtimex", "clock_adjtime"], "the host's clock"),
    (&["sethostname", "setdomainname", "vhangup"], "the host's name and terminals"),
    (&["iopl", "ioperm", "modify_ldt", "personality", "lookup_dcookie"], "hardware ports and old ABIs"),
    (&["memfd_secret", "pkey_mprotect", "remap_file_pages"], "memory that no rule on mmap sees"),
];

/// Calls that are allowed whatever their arguments are.
pub const ALLOWED: &[(&[&str], &str)] = &[
    (
        &["epoll_wait", "epoll_pwait", "epoll_pwait2", "epoll_ctl", "epoll_create1", "eventfd2", "poll", "ppoll"],
        "tokio waits",
    ),
    (&["recvmsg", "sendmsg", "recvfrom", "sendto"], "callers, workers, nursery, runner"),
    (&["read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev"], "files, pipes, sockets"),
    (&["futex", "sched_yield", "set_robust_list", "rseq", "set_tid_address"], "threads"),
    (&["accept", "accept4", "shutdown", "getsockopt", "getsockname", "getpeername"], "connections that come"),
    (&["close", "close_range", "dup", "lseek"], "descriptors"),
    (&["openat", "open"], "files: which ones, landlock says"),
    (
        &["stat", "lstat", "fstat", "newfstatat", "statx", "access", "faccessat", "faccessat2"],
        "what a reload names is looked at",
    ),
    (&["readlink", "readlinkat", "getcwd", "getdents64"], "paths of a reload; groups below a group"),
    (&["mkdir", "mkdirat", "rmdir", "unlink", "unlinkat"], "groups of workers; the oldest log file"),
    (&["rename", "renameat", "renameat2"], "log files move on"),
    (&["ftruncate", "fsync", "fdatasync"], "half a line is taken back; a trace is finished"),
    (&["munmap", "mremap", "brk"], "memory"),
    (
        &["clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time"],
        "time, where the vDSO has none",
    ),
    (&["timerfd_create", "timerfd_settime"], "timers of an event loop"),
    (&["getrandom"], "lease ids, keys of hashes, signatures"),
    (&["getpid", "gettid", "getuid", "geteuid", "getgid", "getegid", "getrlimit", "getrusage"], "about itself"),
    (&["sched_getaffinity", "uname", "sysinfo"], "about the host, by the C library"),
    (&["wait4", "waitid"], "the ends of nursery and runner"),
    (&["rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack", "restart_syscall"], "signals"),
    (&["exit", "exit_group"], "the end"),
];

const PROT_EXEC: u64 = 4;
const CLONE_VM: u64 = 0x100;
const CLONE_THREAD: u64 = 0x1_0000;
const CLONE_NAMESPACES: u64 = 0x7E02_0080;
const NO_CODE: Must = Must::Have { mask: PROT_EXEC, value: 0 };

/// Calls that are allowed for some arguments.
pub const BY_ARGUMENT: &[ByArgument] = &[
    ByArgument {
        call: "clone",
        when: &[&[(
            0,
            Must::Have { mask: CLONE_VM | CLONE_THREAD | CLONE_NAMESPACES, value: CLONE_VM | CLONE_THREAD },
        )]],
        reason: "threads; no process, no namespace",
    },
    ByArgument { call: "mmap", when: &[&[(2, NO_CODE)]], reason: "memory; all code was mapped before" },
    ByArgument { call: "mprotect", when: &[&[(2, NO_CODE)]], reason: "as above: what was data stays data" },
    ByArgument {
        call: "madvise",
        // DONTNEED, FREE, HUGEPAGE, NOHUGEPAGE, and the two of guard pages, which newer C libraries give each thread.
        when: &[
            &[(2, Must::Be(4))],
            &[(2, Must::Be(8))],
            &[(2, Must::Be(14))],
            &[(2, Must::Be(15))],
            &[(2, Must::Be(102))],
            &[(2, Must::Be(103))],
        ],
        reason: "memory is given back; none is merged with others' or taken off line",
    },
    ByArgument {
        call: "fcntl",
        // GETFD, SETFD, GETFL, SETFL, DUPFD_CLOEXEC, ADD_SEALS, GET_SEALS.
        when: &[
            &[(1, Must::Be(1))],
            &[(1, Must::Be(2))],
            &[(1, Must::Be(3))],
            &[(1, Must::Be(4))],
            &[(1, Must::Be(1030))],
            &[(1, Must::Be(1033))],
            &[(1, Must::Be(1034))],
        ],
        reason: "descriptors and seals; no leases, no signals to others, no locks",
    },
    ByArgument { call: "ioctl", when: &[&[(1, Must::Be(0x5421))]], reason: "FIONBIO; no terminal, no device" },
    ByArgument { call: "prctl", when: &[&[(0, Must::Be(15))]], reason: "PR_SET_NAME: threads have names" },
    ByArgument {
        call: "prlimit64",
        when: &[&[(0, Must::Be(0)), (2, Must::Have { mask: u64::MAX, value: 0 })]],
        reason: "its own limits are read, never set",
    },
    ByArgument { call: "socketpair", when: &[&[(0, Must::Be(1))]], reason: "UNIX pairs: tokio's signals come by one" },
    ByArgument {
        call: "setsockopt",
        when: &[&[(1, Must::Be(6)), (2, Must::Be(1))]],
        reason: "TCP_NODELAY; no SO_LINGER, no filters, no protocols on top",
    },
    ByArgument { call: "tgkill", when: &[&[(0, Must::BeOurPid)]], reason: "abort" },
];
