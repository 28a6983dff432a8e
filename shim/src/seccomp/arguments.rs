//! Calls that are allowed for some arguments only. Every rule says what passes; anything else gets the rule's answer.
//!
//! [`Rule::admits`] is the meaning of a rule in plain Rust, [`super::compile`] turns the same table into filters, and
//! `super::sweep` runs both against each other on the kernel. `golden.txt` shows what the kernel answered.
//!
//! A filter sees 64 bits of every argument. Where the kernel's own parameter has 32 ("int", "unsigned int") only those
//! are compared: the upper half of such a register is whatever the caller left there, and the kernel does not look at it.
//! Where the parameter has 64 bits all of them are compared.

/// A value, with its name and where that does not explain it the reason for which it passes.
pub type Value = (u32, &'static str);

/// One level of `setsockopt` and `getsockopt` with its options.
#[derive(Clone, Copy, Debug)]
pub struct Level {
    /// The level's number and name.
    pub level: Value,
    /// Options that pass.
    pub options: &'static [Value],
}

/// Which arguments pass.
#[derive(Clone, Copy, Debug)]
pub enum Allow {
    /// The low 32 bits are one of these. What is used most comes first: it is compared first.
    OneOf(&'static [Value]),
    /// The low 32 bits are one of `bases`, with any of `flags` added.
    With {
        /// Without flags.
        bases: &'static [Value],
        /// Single bits.
        flags: &'static [Value],
    },
    /// No bit is set but these.
    Bits {
        /// Single bits, or fields of several bits.
        bits: &'static [Value],
        /// Whether the kernel's parameter has 64 bits, so that a bit of the upper half counts.
        long: bool,
    },
    /// The low 32 bits masked are one of these.
    Masked {
        /// Bits that are looked at.
        mask: u32,
        /// What they may be.
        one_of: &'static [Value],
    },
    /// The low 32 bits of this argument and of the next one are a level and one of its options.
    Pairs(&'static [Level]),
    /// When the low 32 bits of this argument are `when`, all 64 bits of the next one are at most `most`.
    AtMost {
        /// Which operation is meant.
        when: Value,
        /// Largest value that passes.
        most: u64,
    },
}

/// One rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// The calls, each with the index of the argument that is looked at.
    pub calls: &'static [(&'static str, usize)],
    /// What passes.
    pub allow: Allow,
    /// What any other argument gets. All rules of one call have the same. [`NOT_DONE`] is success.
    pub errno: i32,
    /// Why.
    pub reason: &'static str,
}

/// The call says that it succeeded, and nothing was done.
pub const NOT_DONE: i32 = 0;

impl Rule {
    /// Whether this rule lets the call pass. `at` is the index of the argument, as in `calls`.
    pub fn admits(&self, at: usize, arguments: &[u64; 6]) -> bool {
        let low = arguments[at] as u32;
        let has = |values: &[Value], wanted: u32| values.iter().any(|(value, _)| *value == wanted);
        match self.allow {
            Allow::OneOf(values) => has(values, low),
            Allow::With { bases, flags } => has(bases, low & !union(flags)),
            Allow::Bits { bits, long } => low & !union(bits) == 0 && (!long || arguments[at] >> 32 == 0),
            Allow::Masked { mask, one_of } => has(one_of, low & mask),
            Allow::Pairs(levels) => {
                levels.iter().any(|level| level.level.0 == low && has(level.options, arguments[at + 1] as u32))
            }
            Allow::AtMost { when, most } => low != when.0 || arguments[at + 1] <= most,
        }
    }
}

/// All bits of some values.
pub fn union(values: &[Value]) -> u32 {
    values.iter().fold(0, |all, (value, _)| all | value)
}

const SOCKET_FLAGS: &[Value] = &[(0x800, "SOCK_NONBLOCK"), (0x8_0000, "SOCK_CLOEXEC")];

const FUTEX_FLAGS: &[Value] = &[(128, "FUTEX_PRIVATE_FLAG"), (256, "FUTEX_CLOCK_REALTIME")];

const CLOCKS: &[Value] = &[(1, "CLOCK_MONOTONIC"), (0, "CLOCK_REALTIME"), (7, "CLOCK_BOOTTIME")];

/// Options that may be set. Those that C libraries and runtimes cannot do without were found by reading what glibc, the
/// JDK, Go, libuv, CPython, curl, libpq, the MySQL client and Redis clients set.
const SET_OPTIONS: &[Level] = &[
    Level {
        level: (1, "SOL_SOCKET"),
        options: &[
            (2, "SO_REUSEADDR"),
            (6, "SO_BROADCAST: Go sets it on every datagram socket, and gives up without"),
            (7, "SO_SNDBUF"),
            (8, "SO_RCVBUF"),
            (9, "SO_KEEPALIVE"),
            (13, "SO_LINGER: makes close() sleep, of the function's own sockets; none of them reaches the supervisor"),
            (15, "SO_REUSEPORT"),
            (16, "SO_PASSCRED: process ids of its own namespace"),
            (18, "SO_RCVLOWAT"),
            (20, "SO_RCVTIMEO"),
            (21, "SO_SNDTIMEO"),
            (66, "SO_RCVTIMEO_NEW"),
            (67, "SO_SNDTIMEO_NEW"),
        ],
    },
    Level {
        level: (6, "IPPROTO_TCP"),
        options: &[
            (1, "TCP_NODELAY"),
            (3, "TCP_CORK"),
            (4, "TCP_KEEPIDLE"),
            (5, "TCP_KEEPINTVL"),
            (6, "TCP_KEEPCNT"),
            (9, "TCP_DEFER_ACCEPT"),
            (12, "TCP_QUICKACK"),
            (18, "TCP_USER_TIMEOUT"),
        ],
    },
    Level {
        level: (0, "IPPROTO_IP"),
        options: &[(1, "IP_TOS"), (11, "IP_RECVERR: glibc's resolver gives up without")],
    },
    Level {
        level: (41, "IPPROTO_IPV6"),
        options: &[
            (18, "IPV6_MULTICAST_HOPS: the JDK sets it on every datagram socket, and gives up without"),
            (25, "IPV6_RECVERR: as IP_RECVERR"),
            (26, "IPV6_V6ONLY"),
            (67, "IPV6_TCLASS"),
        ],
    },
];

/// Options that may be read: those that may be set, and plain facts.
const GET_OPTIONS: &[Level] = &[
    Level {
        level: (1, "SOL_SOCKET"),
        options: &[
            (4, "SO_ERROR"),
            (3, "SO_TYPE"),
            (2, "SO_REUSEADDR"),
            (5, "SO_DONTROUTE"),
            (6, "SO_BROADCAST"),
            (7, "SO_SNDBUF"),
            (8, "SO_RCVBUF"),
            (9, "SO_KEEPALIVE"),
            (10, "SO_OOBINLINE"),
            (12, "SO_PRIORITY"),
            (13, "SO_LINGER"),
            (15, "SO_REUSEPORT"),
            (16, "SO_PASSCRED"),
            (17, "SO_PEERCRED"),
            (18, "SO_RCVLOWAT"),
            (19, "SO_SNDLOWAT"),
            (20, "SO_RCVTIMEO"),
            (21, "SO_SNDTIMEO"),
            (30, "SO_ACCEPTCONN"),
            (38, "SO_PROTOCOL"),
            (39, "SO_DOMAIN"),
            (66, "SO_RCVTIMEO_NEW"),
            (67, "SO_SNDTIMEO_NEW"),
        ],
    },
    Level {
        level: (6, "IPPROTO_TCP"),
        options: &[
            (1, "TCP_NODELAY"),
            (2, "TCP_MAXSEG"),
            (3, "TCP_CORK"),
            (4, "TCP_KEEPIDLE"),
            (5, "TCP_KEEPINTVL"),
            (6, "TCP_KEEPCNT"),
            (7, "TCP_SYNCNT"),
            (8, "TCP_LINGER2"),
            (9, "TCP_DEFER_ACCEPT"),
            (10, "TCP_WINDOW_CLAMP"),
            (11, "TCP_INFO"),
            (12, "TCP_QUICKACK"),
            (13, "TCP_CONGESTION"),
            (18, "TCP_USER_TIMEOUT"),
            (23, "TCP_FASTOPEN"),
            (25, "TCP_NOTSENT_LOWAT"),
        ],
    },
    Level {
        level: (0, "IPPROTO_IP"),
        options: &[
            (1, "IP_TOS"),
            (2, "IP_TTL"),
            (10, "IP_MTU_DISCOVER"),
            (11, "IP_RECVERR"),
            (14, "IP_MTU"),
            (32, "IP_MULTICAST_IF"),
            (33, "IP_MULTICAST_TTL"),
            (34, "IP_MULTICAST_LOOP"),
        ],
    },
    Level {
        level: (41, "IPPROTO_IPV6"),
        options: &[
            (16, "IPV6_UNICAST_HOPS"),
            (17, "IPV6_MULTICAST_IF"),
            (18, "IPV6_MULTICAST_HOPS"),
            (19, "IPV6_MULTICAST_LOOP"),
            (23, "IPV6_MTU_DISCOVER"),
            (24, "IPV6_MTU"),
            (25, "IPV6_RECVERR"),
            (26, "IPV6_V6ONLY"),
            (67, "IPV6_TCLASS"),
        ],
    },
];

/// Calls whose refused arguments are announced to init like a call that is on no list, with the reason. Their rules are all of
/// the kinds [`Allow::OneOf`] and [`Allow::With`].
pub const ANNOUNCED: &[(&[&str], &str)] = &[(
    &["socket", "socketpair"],
    "who asks for a raw socket or for a rare family wants something that is not for functions",
)];

/// A value that is refused in silence.
#[derive(Clone, Copy, Debug)]
pub struct Probed {
    /// The calls, each with the index of the argument.
    pub calls: &'static [(&'static str, usize)],
    /// What is asked for: the low 32 bits.
    pub value: Value,
    /// Which programs ask for it, and what they do without.
    pub by: &'static str,
}

/// Arguments of [`ANNOUNCED`] calls that are refused without being announced.
///
/// Netlink is not let pass, although libraries list the interfaces by it and a worker has its own loopback only. Every question
/// of NETLINK_ROUTE, in whatever network namespace, holds the one rtnl lock of the host, and the start of each worker needs that
/// lock for its own namespace. Who holds it may be preempted or throttled meanwhile. Measured on Linux 6.18: the slowest of a
/// hundred new namespaces took 6 to 17 ms beside 16 processes at nice 19 that computed, and 160 to 300 ms when these asked for
/// their own links by netlink, or by SIOCGIFCONF. A filter cannot tell one question from another: they are in a buffer. No
/// errno makes libraries return an empty list: libuv, Go and the JDK pass every one on.
pub const PROBED_ARGUMENTS: &[Probed] = &[Probed {
    calls: &[("socket", 0)],
    value: (16, "AF_NETLINK"),
    by: "C libraries, when they resolve a name or list the interfaces; they do without",
}];

/// The rules, in the order of installation: one filter for each errno, in the order in which the errnos first occur.
pub const RULES: &[Rule] = &[
    Rule {
        calls: &[("socket", 0), ("socketpair", 0)],
        allow: Allow::OneOf(&[(1, "AF_UNIX"), (2, "AF_INET"), (10, "AF_INET6")]),
        errno: libc::EAFNOSUPPORT,
        reason: "local sockets, and the worker's own loopback; every other family is kernel code that nobody needs",
    },
    Rule {
        calls: &[("socket", 1), ("socketpair", 1)],
        allow: Allow::With {
            bases: &[(1, "SOCK_STREAM"), (2, "SOCK_DGRAM"), (5, "SOCK_SEQPACKET")],
            flags: SOCKET_FLAGS,
        },
        errno: libc::EAFNOSUPPORT,
        reason: "no SOCK_RAW, SOCK_RDM, SOCK_DCCP, SOCK_PACKET",
    },
    Rule {
        calls: &[("socket", 2), ("socketpair", 2)],
        allow: Allow::OneOf(&[(0, "the type's own"), (6, "IPPROTO_TCP"), (17, "IPPROTO_UDP")]),
        errno: libc::EAFNOSUPPORT,
        reason: "no MPTCP (262, which goes around landlock's rules for TCP), SCTP (132), ICMP or raw protocols",
    },
    Rule {
        calls: &[("setsockopt", 1)],
        allow: Allow::Pairs(SET_OPTIONS),
        // What a kernel without the option says; the JDK goes on after this one and no other.
        errno: libc::ENOPROTOOPT,
        reason: "no filters (SO_ATTACH_*), TCP_ULP, TCP_CONGESTION, UDP_ENCAP, SO_ZEROCOPY, netfilter tables, fast open",
    },
    Rule {
        calls: &[("getsockopt", 1)],
        allow: Allow::Pairs(GET_OPTIONS),
        errno: libc::ENOPROTOOPT,
        reason: "no TCP_ZEROCOPY_RECEIVE, which maps memory; no SO_PEERPIDFD, a handle on whoever holds the other end of \
                 the channel; no netfilter tables",
    },
    Rule {
        calls: &[("sendto", 3), ("recvfrom", 3), ("sendmsg", 2), ("recvmsg", 2), ("sendmmsg", 3), ("recvmmsg", 3)],
        allow: Allow::Bits {
            bits: &[
                (0x2, "MSG_PEEK"),
                (0x4, "MSG_DONTROUTE"),
                (0x8, "MSG_CTRUNC"),
                (0x20, "MSG_TRUNC"),
                (0x40, "MSG_DONTWAIT"),
                (0x80, "MSG_EOR"),
                (0x100, "MSG_WAITALL"),
                (0x800, "MSG_CONFIRM"),
                (0x2000, "MSG_ERRQUEUE"),
                (0x4000, "MSG_NOSIGNAL"),
                (0x8000, "MSG_MORE"),
                (0x1_0000, "MSG_WAITFORONE"),
                (0x4000_0000, "MSG_CMSG_CLOEXEC"),
            ],
            long: false,
        },
        errno: libc::EOPNOTSUPP,
        reason: "no MSG_OOB (CVE-2025-38236), MSG_ZEROCOPY, MSG_FASTOPEN (goes around landlock's rules for TCP)",
    },
    Rule {
        calls: &[("preadv2", 5), ("pwritev2", 5)],
        allow: Allow::Bits { bits: &[(0x2, "RWF_DSYNC"), (0x4, "RWF_SYNC"), (0x10, "RWF_APPEND")], long: false },
        errno: libc::EOPNOTSUPP,
        reason: "RWF_NOWAIT tells whether a page of a shared file is in memory, RWF_DONTCACHE throws it out",
    },
    Rule {
        calls: &[("ioctl", 1)],
        allow: Allow::OneOf(&[
            (0x5401, "TCGETS"),
            (0x5413, "TIOCGWINSZ"),
            (0x541B, "FIONREAD"),
            (0x5421, "FIONBIO"),
            (0x5450, "FIONCLEX"),
            (0x5451, "FIOCLEX"),
        ]),
        errno: libc::ENOTTY,
        reason: "TIOCSTI and the rest answer as on a plain file; SIOCGIFCONF and its like take a lock of the whole host, as \
                 netlink does",
    },
    Rule {
        calls: &[("prctl", 0)],
        allow: Allow::OneOf(&[
            (0x5356_4d41, "PR_SET_VMA: names of memory areas"),
            (15, "PR_SET_NAME"),
            (16, "PR_GET_NAME"),
            (1, "PR_SET_PDEATHSIG"),
            (2, "PR_GET_PDEATHSIG"),
            (3, "PR_GET_DUMPABLE"),
            (4, "PR_SET_DUMPABLE"),
            (21, "PR_GET_SECCOMP"),
            (23, "PR_CAPBSET_READ"),
            (29, "PR_SET_TIMERSLACK"),
            (30, "PR_GET_TIMERSLACK"),
            (36, "PR_SET_CHILD_SUBREAPER"),
            (37, "PR_GET_CHILD_SUBREAPER"),
            (38, "PR_SET_NO_NEW_PRIVS"),
            (39, "PR_GET_NO_NEW_PRIVS"),
        ]),
        errno: libc::EINVAL,
        reason: "names, death signal, timer slack, queries; no seccomp, no speculation or mm games",
    },
    Rule {
        calls: &[("arch_prctl", 0)],
        allow: Allow::OneOf(&[(0x1002, "ARCH_SET_FS: every thread's storage"), (0x1003, "ARCH_GET_FS")]),
        errno: libc::EINVAL,
        reason: "C libraries set FS and nothing else. Shadow stacks (0x5001 to 0x5005) are young code; glibc asks, and \
                 goes on without. The vdso stays where it is, CPUID is not made to fault",
    },
    Rule {
        calls: &[("madvise", 2)],
        allow: Allow::OneOf(&[
            (4, "MADV_DONTNEED"),
            (8, "MADV_FREE"),
            (0, "MADV_NORMAL"),
            (1, "MADV_RANDOM"),
            (2, "MADV_SEQUENTIAL"),
            (3, "MADV_WILLNEED"),
            (9, "MADV_REMOVE"),
            (10, "MADV_DONTFORK"),
            (11, "MADV_DOFORK"),
            (14, "MADV_HUGEPAGE"),
            (15, "MADV_NOHUGEPAGE"),
            (16, "MADV_DONTDUMP"),
            (17, "MADV_DODUMP"),
            (18, "MADV_WIPEONFORK"),
            (19, "MADV_KEEPONFORK"),
            (22, "MADV_POPULATE_READ"),
            (23, "MADV_POPULATE_WRITE"),
            (24, "MADV_DONTNEED_LOCKED"),
            (102, "MADV_GUARD_INSTALL"),
            (103, "MADV_GUARD_REMOVE"),
        ]),
        errno: libc::EINVAL,
        reason: "MERGEABLE tells neighbours apart by timing; COLD and PAGEOUT move pages of shared files; COLLAPSE; HWPOISON \
                 and SOFT_OFFLINE hurt the host",
    },
    Rule {
        calls: &[("mmap", 3)],
        allow: Allow::Bits {
            bits: &[
                (0x1, "MAP_SHARED"),
                (0x2, "MAP_PRIVATE; with the former MAP_SHARED_VALIDATE"),
                (0x10, "MAP_FIXED"),
                (0x20, "MAP_ANONYMOUS"),
                (0x40, "MAP_32BIT"),
                (0x80, "MAP_ABOVE4G"),
                (0x100, "MAP_GROWSDOWN"),
                (0x800, "MAP_DENYWRITE: the loader; without effect"),
                (0x1000, "MAP_EXECUTABLE: without effect"),
                (0x2000, "MAP_LOCKED"),
                (0x4000, "MAP_NORESERVE"),
                (0x8000, "MAP_POPULATE"),
                (0x1_0000, "MAP_NONBLOCK"),
                (0x2_0000, "MAP_STACK"),
                (0x8_0000, "MAP_SYNC"),
                (0x10_0000, "MAP_FIXED_NOREPLACE"),
                (0x400_0000, "MAP_UNINITIALIZED: without effect"),
            ],
            long: true,
        },
        // What a kernel without pages of that size says: the JVM, PostgreSQL and allocators take small ones.
        errno: libc::EINVAL,
        reason: "MAP_HUGETLB takes the host's pool of huge pages, which no limit of the worker counts",
    },
    Rule {
        calls: &[("memfd_create", 1)],
        allow: Allow::Bits {
            bits: &[(0x1, "MFD_CLOEXEC"), (0x2, "MFD_ALLOW_SEALING"), (0x8, "MFD_NOEXEC_SEAL"), (0x10, "MFD_EXEC")],
            long: false,
        },
        errno: libc::EINVAL,
        reason: "MFD_HUGETLB, as MAP_HUGETLB",
    },
    Rule {
        calls: &[("membarrier", 0)],
        allow: Allow::OneOf(&[
            (8, "MEMBARRIER_CMD_PRIVATE_EXPEDITED"),
            (0, "MEMBARRIER_CMD_QUERY"),
            (16, "MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED"),
            (32, "MEMBARRIER_CMD_PRIVATE_EXPEDITED_SYNC_CORE"),
            (64, "MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_SYNC_CORE"),
            (128, "MEMBARRIER_CMD_PRIVATE_EXPEDITED_RSEQ"),
            (256, "MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED_RSEQ"),
            (512, "MEMBARRIER_CMD_GET_REGISTRATIONS"),
        ]),
        errno: libc::EINVAL,
        reason: "GLOBAL and GLOBAL_EXPEDITED interrupt processors that others run on",
    },
    Rule {
        calls: &[("timer_create", 0), ("clock_nanosleep", 0)],
        allow: Allow::OneOf(CLOCKS),
        errno: libc::EINVAL,
        reason: "timers on CPU clocks have a record of use after free (CVE-2022-2585, CVE-2025-38352); Go's profiler takes \
                 setitimer without them",
    },
    Rule {
        calls: &[("clone", 0)],
        allow: Allow::Bits {
            bits: &[
                (0xff, "the exit signal"),
                (0x100, "CLONE_VM"),
                (0x200, "CLONE_FS"),
                (0x400, "CLONE_FILES"),
                (0x800, "CLONE_SIGHAND"),
                (0x1000, "CLONE_PIDFD"),
                (0x2000, "CLONE_PTRACE: nobody here is traced"),
                (0x4000, "CLONE_VFORK"),
                (0x8000, "CLONE_PARENT"),
                (0x1_0000, "CLONE_THREAD"),
                (0x4_0000, "CLONE_SYSVSEM: glibc sets it for threads"),
                (0x8_0000, "CLONE_SETTLS"),
                (0x10_0000, "CLONE_PARENT_SETTID"),
                (0x20_0000, "CLONE_CHILD_CLEARTID"),
                (0x40_0000, "CLONE_DETACHED: musl sets it; without effect"),
                (0x80_0000, "CLONE_UNTRACED"),
                (0x100_0000, "CLONE_CHILD_SETTID"),
                (0x8000_0000, "CLONE_IO"),
            ],
            // The register has 64 bits and the kernel takes the lower 32; C libraries pass an int.
            long: false,
        },
        errno: libc::EPERM,
        reason: "no new namespaces",
    },
    Rule {
        calls: &[("personality", 0)],
        allow: Allow::OneOf(&[(0xffff_ffff, "which one it is")]),
        errno: libc::EPERM,
        reason: "asking is fine; ADDR_NO_RANDOMIZE and old ABIs are not",
    },
    Rule {
        calls: &[("fcntl", 1)],
        allow: Allow::OneOf(&[
            (3, "F_GETFL"),
            (4, "F_SETFL"),
            (2, "F_SETFD"),
            (1, "F_GETFD"),
            (1030, "F_DUPFD_CLOEXEC"),
            (0, "F_DUPFD"),
            (6, "F_SETLK"),
            (5, "F_GETLK"),
            (7, "F_SETLKW"),
            (9, "F_GETOWN"),
            (11, "F_GETSIG"),
            (16, "F_GETOWN_EX"),
            (36, "F_OFD_GETLK"),
            (37, "F_OFD_SETLK"),
            (38, "F_OFD_SETLKW"),
            (1027, "F_DUPFD_QUERY"),
            (1028, "F_CREATED_QUERY"),
            (1031, "F_SETPIPE_SZ: see below"),
            (1032, "F_GETPIPE_SZ"),
            (1033, "F_ADD_SEALS"),
            (1034, "F_GET_SEALS"),
        ]),
        errno: libc::EPERM,
        reason: "no leases, directory notices, owners, signals and write hints of files that others may share",
    },
    Rule {
        calls: &[("fcntl", 1)],
        allow: Allow::AtMost { when: (1031, "F_SETPIPE_SZ"), most: 64 * 1024 },
        errno: libc::EPERM,
        reason: "a pipe has 64 KiB from the start; up to 1 MiB each would be memory that some hosts do not charge",
    },
    Rule {
        calls: &[("mknod", 1), ("mknodat", 2)],
        allow: Allow::Masked { mask: 0xf000, one_of: &[(0x1000, "S_IFIFO")] },
        errno: libc::EPERM,
        reason: "mkfifo in /tmp, no device nodes",
    },
    Rule {
        calls: &[("futex", 1)],
        allow: Allow::With {
            bases: &[
                (0, "FUTEX_WAIT"),
                (1, "FUTEX_WAKE"),
                (9, "FUTEX_WAIT_BITSET"),
                (10, "FUTEX_WAKE_BITSET"),
                (5, "FUTEX_WAKE_OP"),
                (3, "FUTEX_REQUEUE"),
                (4, "FUTEX_CMP_REQUEUE"),
            ],
            flags: FUTEX_FLAGS,
        },
        // pthread_mutexattr_setprotocol says ENOTSUP when it meets this one.
        errno: libc::ENOSYS,
        reason: "all of priority inheritance is a source of kernel bugs (CVE-2014-3153, CVE-2021-3347, and after)",
    },
    Rule {
        calls: &[("fadvise64", 3)],
        allow: Allow::OneOf(&[
            (2, "POSIX_FADV_SEQUENTIAL"),
            (0, "POSIX_FADV_NORMAL"),
            (1, "POSIX_FADV_RANDOM"),
            (3, "POSIX_FADV_WILLNEED"),
            (5, "POSIX_FADV_NOREUSE"),
        ]),
        errno: NOT_DONE,
        reason: "POSIX_FADV_DONTNEED throws pages of shared files out of memory, so that it can be seen who reads them \
                 next; advice that is not taken is no error",
    },
    Rule {
        calls: &[("msync", 2)],
        allow: Allow::OneOf(&[
            (1, "MS_ASYNC: libunwind asks in this way whether an address is mapped"),
            (0, "none"),
            (2, "MS_INVALIDATE"),
            (3, "MS_ASYNC | MS_INVALIDATE"),
        ]),
        errno: NOT_DONE,
        reason: "MS_SYNC, as fsync",
    },
];

/// Calls that always say that they succeeded, and do nothing: what can be written is in memory, so there is nothing of the
/// worker's to bring to a disk.
pub const NEVER_DONE: &[(&[&str], &str)] = &[
    (&["sync", "syncfs"], "flush the host's disks"),
    (
        &["fsync", "fdatasync", "sync_file_range"],
        "on a file that is open for reading only they flush the disk below it just the same",
    ),
];
