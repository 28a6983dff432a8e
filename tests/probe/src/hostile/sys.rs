//! Raw system calls of the hostile verbs.

#![allow(unsafe_code)]

pub mod memory;
pub mod random;
pub mod vsyscall;

use std::os::fd::{AsRawFd as _, RawFd};

use nix::errno::Errno;

/// Whether a number is an open descriptor.
pub fn is_open(descriptor: RawFd) -> bool {
    // WHY UNSAFE: the number may be no descriptor; that is the question.
    // SAFETY: F_GETFD touches no memory and changes nothing.
    unsafe { libc::fcntl(descriptor, libc::F_GETFD) >= 0 }
}

/// How this process is scheduled and what its address space looks like, as far as it may ask.
pub fn scheduling() -> Vec<(&'static str, i64)> {
    // WHY UNSAFE: std and nix have no wrappers for these.
    // SAFETY: each only asks, and is given no pointer.
    unsafe {
        vec![
            ("nice", i64::from(libc::getpriority(libc::PRIO_PROCESS, 0))),
            ("scheduler", i64::from(libc::sched_getscheduler(0))),
            ("ioprio", libc::syscall(libc::SYS_ioprio_get, 1, 0)),
            ("personality", i64::from(libc::personality(0xffff_ffff))),
            ("dumpable", i64::from(libc::prctl(libc::PR_GET_DUMPABLE))),
            ("timerslack", i64::from(libc::prctl(libc::PR_GET_TIMERSLACK))),
        ]
    }
}

/// Credentials of anybody, to be sent.
pub fn credentials(pid: i32, uid: u32, gid: u32) -> nix::sys::socket::UnixCredentials {
    libc::ucred { pid, uid, gid }.into()
}

/// Opens one of our own namespaces.
fn own_namespace(name: &str) -> nix::Result<std::fs::File> {
    let opened = std::fs::File::open(format!("/proc/self/ns/{name}"));
    opened.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

/// Sets an extended attribute.
pub fn set_attribute(path: &str, name: &str, value: &[u8]) -> nix::Result<()> {
    let text = |text: &str| std::ffi::CString::new(text).map_err(|_| Errno::EINVAL);
    let (path, name) = (text(path)?, text(name)?);
    // WHY UNSAFE: nix has no extended attributes.
    // SAFETY: both names end with a zero byte, and the value has the length that is told.
    Errno::result(unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) })
        .map(drop)
}

/// Opens a file for reading, and cuts it.
pub fn open_cut(path: &str) -> nix::Result<()> {
    use nix::fcntl::OFlag;
    nix::fcntl::open(path, OFlag::O_RDONLY | OFlag::O_TRUNC, nix::sys::stat::Mode::empty()).map(drop)
}

/// Takes a lease for reading.
pub fn lease(file: &std::fs::File) -> nix::Result<()> {
    // WHY UNSAFE: nix has no such command.
    // SAFETY: it touches no memory.
    Errno::result(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) }).map(drop)
}

/// Asks for a signal when anything changes in a directory.
pub fn notify(directory: &std::fs::File) -> nix::Result<()> {
    const MODIFY: libc::c_int = 2;
    // WHY UNSAFE: nix has no such command.
    // SAFETY: it touches no memory.
    Errno::result(unsafe { libc::fcntl(directory.as_raw_fd(), libc::F_NOTIFY, MODIFY) }).map(drop)
}

/// Namespaces by name, with the flags that make new ones.
const NAMESPACES: [(&str, i32); 9] = [
    ("mnt", libc::CLONE_NEWNS),
    ("cgroup", libc::CLONE_NEWCGROUP),
    ("uts", libc::CLONE_NEWUTS),
    ("ipc", libc::CLONE_NEWIPC),
    ("user", libc::CLONE_NEWUSER),
    ("pid", libc::CLONE_NEWPID),
    ("net", libc::CLONE_NEWNET),
    ("time", 0x80),
    ("all", 0x7e02_0080),
];

/// `unshare-NAMESPACE` or `clone-NAMESPACE`. None for other names.
fn new_namespace(name: &str) -> Option<i64> {
    let (call, namespace) = name.split_once('-')?;
    let (_, flags) = NAMESPACES.into_iter().find(|(name, _)| *name == namespace)?;
    // WHY UNSAFE: nix has no flag for time namespaces, and a clone of its own kind.
    // SAFETY: no pointer is followed, and the child has a copy of all memory, and only ends.
    unsafe {
        match call {
            "unshare" => Some(i64::from(libc::unshare(flags))),
            "clone" => {
                // The lowest bits are the signal of its end there.
                let flags = flags & !0xff | libc::SIGCHLD;
                let child = libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0);
                if child == 0 {
                    libc::_exit(0);
                }
                Some(child)
            }
            _ => None,
        }
    }
}

/// clone3 with some flags.
fn clone3(flags: u64) -> i64 {
    let arguments = [flags, 0, 0, 0, libc::SIGCHLD as u64, 0, 0, 0];
    // WHY UNSAFE: there is no wrapper.
    // SAFETY: the arguments outlive the call, and the child has a copy of all memory, and only ends.
    unsafe {
        let child = libc::syscall(libc::SYS_clone3, arguments.as_ptr(), size_of_val(&arguments));
        if child == 0 {
            libc::_exit(0);
        }
        child
    }
}

/// A file of our own in /tmp, whose flags may be set to what they are.
fn own_file() -> nix::Result<std::fs::File> {
    let path = format!("/tmp/flags-{}", std::process::id());
    let made = std::fs::File::create(&path).and_then(|file| std::fs::remove_file(&path).map(|()| file));
    made.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)))
}

const CAPABILITIES_V3: u32 = 0x2008_0522;

/// A system call that a function has no use for, by name. Each works for root outside, changes nothing but this process there,
/// or fails there for another reason.
pub fn call(name: &str) -> nix::Result<()> {
    if let Some(result) = new_namespace(name) {
        return Errno::result(result).map(drop);
    }
    let null = std::ptr::null_mut::<libc::c_void>();
    // An address where nothing is.
    let nowhere = 8_usize;
    // WHY UNSAFE: most of these have no wrapper, and should never get one here.
    // SAFETY: pointers are null or live for the call, the descriptors are our own, and where one of these works, the worst is
    // done to the probe itself.
    let result = unsafe {
        match name {
            "setresuid" => libc::syscall(libc::SYS_setresuid, 0, 0, 0),
            "setresgid" => libc::syscall(libc::SYS_setresgid, 0, 0, 0),
            "setgroups" => libc::syscall(libc::SYS_setgroups, 1, [0_u32].as_ptr()),
            "capset" => {
                // None at all: what may not even be given up may not be taken.
                let (head, none) = ([CAPABILITIES_V3, 0], [0_u32; 6]);
                libc::syscall(libc::SYS_capset, head.as_ptr(), none.as_ptr())
            }
            "ambient" => i64::from(libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)),
            "securebits" => i64::from(libc::prctl(libc::PR_SET_SECUREBITS, 1, 0, 0, 0)),
            "set-mm" => i64::from(libc::prctl(libc::PR_SET_MM, 1, 0, 0, 0)),
            "core-scheduling" => i64::from(libc::prctl(62, 0, 0, 0, 0)),
            "tsc" => {
                let mut mode = 0_i32;
                i64::from(libc::prctl(libc::PR_GET_TSC, &raw mut mode, 0, 0, 0))
            }
            "listener" => {
                // A filter of one instruction that allows all, whose notices go to us.
                let allow = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW };
                let program = libc::sock_fprog { len: 1, filter: (&raw const allow).cast_mut() };
                let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
                libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
            }
            "ptrace-me" => libc::syscall(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, null, null),
            "process_vm_writev" => libc::syscall(libc::SYS_process_vm_writev, std::process::id(), null, 0, null, 0, 0),
            "pidfd_getfd" => {
                let own = libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0);
                libc::syscall(libc::SYS_pidfd_getfd, own, 0, 0)
            }
            "process_madvise" => {
                let own = libc::syscall(libc::SYS_pidfd_open, std::process::id(), 0);
                libc::syscall(libc::SYS_process_madvise, own, null, 0, libc::MADV_COLD, 0)
            }
            "kcmp" => {
                let own = std::process::id();
                libc::syscall(libc::SYS_kcmp, own, own, 1, 0, 0)
            }
            "modify_ldt" => {
                let mut table = [0_u8; 16];
                libc::syscall(libc::SYS_modify_ldt, 0, table.as_mut_ptr(), table.len())
            }
            "iopl" => libc::syscall(libc::SYS_iopl, 0),
            "syslog" => libc::syscall(libc::SYS_syslog, 10, null, 0),
            "quotactl" => libc::syscall(libc::SYS_quotactl, 0x0080_0001_u32 as i32, null, 0, null),
            "adjtimex" => {
                let mut asked = std::mem::zeroed::<libc::timex>();
                libc::syscall(libc::SYS_adjtimex, &raw mut asked)
            }
            "fanotify" => libc::syscall(libc::SYS_fanotify_init, 0, 0),
            "name_to_handle" => {
                let mut handle = [0_u32; 40];
                let mut mount = 0_i32;
                handle[0] = 128;
                let (handle, mount) = (handle.as_mut_ptr(), &raw mut mount);
                libc::syscall(libc::SYS_name_to_handle_at, libc::AT_FDCWD, c"/tmp".as_ptr(), handle, mount, 0)
            }
            "mknod" => {
                // /dev/null, in a place where anybody may write.
                let made = libc::mknod(c"/tmp/null".as_ptr(), libc::S_IFCHR | 0o666, libc::makedev(1, 3));
                if made == 0 {
                    libc::unlink(c"/tmp/null".as_ptr());
                }
                i64::from(made)
            }
            "immutable" => {
                // FS_IOC_GETFLAGS; what may not even be asked may not be set.
                let place = std::fs::File::open("/tmp").map_err(|_| Errno::EIO)?;
                let mut flags: libc::c_long = 0;
                i64::from(libc::ioctl(place.as_raw_fd(), 0x8008_6601, &raw mut flags))
            }
            "set-flags" => {
                // FS_IOC_GETFLAGS and FS_IOC_SETFLAGS.
                let (file, mut flags) = (own_file()?, 0 as libc::c_long);
                match libc::ioctl(file.as_raw_fd(), 0x8008_6601, &raw mut flags) {
                    0 => i64::from(libc::ioctl(file.as_raw_fd(), 0x4008_6602, &raw mut flags)),
                    failed => i64::from(failed),
                }
            }
            "set-attributes-of-file" => {
                // FS_IOC_FSGETXATTR and FS_IOC_FSSETXATTR.
                let (file, mut attributes) = (own_file()?, [0_u32; 7]);
                match libc::ioctl(file.as_raw_fd(), 0x801c_581f, &raw mut attributes) {
                    0 => i64::from(libc::ioctl(file.as_raw_fd(), 0x401c_5820, &raw mut attributes)),
                    failed => i64::from(failed),
                }
            }
            "clone3" => clone3(0),
            "clone3-user" => clone3(libc::CLONE_NEWUSER as u64),
            "clone3-all" => clone3(0x7e02_0080),
            // As a C library calls it for a thread; without a stack for one nobody can go on with it.
            "clone3-thread" => libc::syscall(libc::SYS_clone3, nowhere, 88),
            "mptcp" => i64::from(libc::socket(libc::AF_INET, libc::SOCK_STREAM, 262)),
            "landlock" => libc::syscall(libc::SYS_landlock_create_ruleset, null, 0, 1),
            "find-key" => {
                const SEARCH: i32 = 10;
                const SESSION_KEYRING: i32 = -3;
                let (kind, key) = (c"user".as_ptr(), crate::sys::KEY.as_ptr());
                libc::syscall(libc::SYS_keyctl, SEARCH, SESSION_KEYRING, kind, key, 0)
            }
            "request-key" => {
                let (kind, key) = (c"user".as_ptr(), crate::sys::KEY.as_ptr());
                libc::syscall(libc::SYS_request_key, kind, key, null, 0)
            }
            "add-key" => {
                const PROCESS_KEYRING: i32 = -2;
                let (kind, key) = (c"user".as_ptr(), crate::sys::KEY.as_ptr());
                libc::syscall(libc::SYS_add_key, kind, key, c"x".as_ptr(), 1, PROCESS_KEYRING)
            }
            // Of these each fails outside, by what it is given.
            "pivot_root" => libc::syscall(libc::SYS_pivot_root, nowhere, nowhere),
            "umount2" => libc::syscall(libc::SYS_umount2, nowhere, 0),
            "fsopen" => libc::syscall(libc::SYS_fsopen, nowhere, 0),
            "fsconfig" => libc::syscall(libc::SYS_fsconfig, -1, 0, null, null, 0),
            "fsmount" => libc::syscall(libc::SYS_fsmount, -1, 0, 0),
            "fspick" => libc::syscall(libc::SYS_fspick, libc::AT_FDCWD, nowhere, 0),
            "move_mount" => libc::syscall(libc::SYS_move_mount, -1, nowhere, -1, nowhere, 0),
            "open_tree" => libc::syscall(libc::SYS_open_tree, -1, nowhere, 0),
            "open_tree_attr" => libc::syscall(467, -1, nowhere, 0, null, 0),
            "mount_setattr" => libc::syscall(libc::SYS_mount_setattr, -1, nowhere, 0, null, 0),
            "init_module" => libc::syscall(libc::SYS_init_module, null, 0, nowhere),
            "delete_module" => libc::syscall(libc::SYS_delete_module, nowhere, 0),
            "kexec_file" => libc::syscall(libc::SYS_kexec_file_load, -1, -1, 0, null, 0),
            "swapoff" => libc::syscall(libc::SYS_swapoff, nowhere),
            "acct" => libc::syscall(libc::SYS_acct, nowhere),
            "settimeofday" => libc::syscall(libc::SYS_settimeofday, nowhere, null),
            "clock_settime" => libc::syscall(libc::SYS_clock_settime, 0, nowhere),
            "clock_adjtime" => libc::syscall(libc::SYS_clock_adjtime, 0, nowhere),
            "setdomainname" => libc::syscall(libc::SYS_setdomainname, nowhere, 5),
            "quotactl_fd" => libc::syscall(443, -1, 0, 0, null),
            "nfsservctl" => libc::syscall(libc::SYS_nfsservctl, 0, null, null),
            "uselib" => libc::syscall(libc::SYS_uselib, nowhere),
            "lookup_dcookie" => libc::syscall(libc::SYS_lookup_dcookie, 0, null, 0),
            "vserver" => libc::syscall(libc::SYS_vserver, 0, 0, 0, 0, 0),
            "ioperm" => libc::syscall(libc::SYS_ioperm, 0x80, 1, 0),
            "vhangup" => {
                // In a session of its own, in which there is no terminal to hang up.
                if libc::setsid() < 0 && libc::getsid(0) != libc::getpid() {
                    return Err(Errno::EBUSY);
                }
                libc::syscall(libc::SYS_vhangup)
            }
            "setns-own" => libc::syscall(libc::SYS_setns, own_namespace("uts")?.as_raw_fd(), 0),
            "ns-user" => i64::from(libc::ioctl(own_namespace("uts")?.as_raw_fd(), 0xb701)),
            "ns-parent" => i64::from(libc::ioctl(own_namespace("pid")?.as_raw_fd(), 0xb702)),
            "shmget" => libc::syscall(libc::SYS_shmget, 0x7375_626c, 4096, libc::IPC_CREAT | 0o666),
            "shm-remove" => {
                let found = libc::syscall(libc::SYS_shmget, 0x7375_626c, 4096, 0);
                libc::syscall(libc::SYS_shmctl, found, libc::IPC_RMID, null)
            }
            "semget" => libc::syscall(libc::SYS_semget, 0x7375_626c, 1, 0),
            "msgget" => libc::syscall(libc::SYS_msgget, 0x7375_626c, 0),
            "mq_open" => libc::syscall(libc::SYS_mq_open, c"sublet-probe".as_ptr(), libc::O_RDONLY, 0, null),
            "fifo-scheduling" => {
                let parameters = libc::sched_param { sched_priority: 1 };
                libc::syscall(libc::SYS_sched_setscheduler, 0, libc::SCHED_FIFO, &raw const parameters)
            }
            "ioprio" => libc::syscall(libc::SYS_ioprio_set, 1, 0, 1 << 13),
            "affinity" => {
                let mut set = [0_u64; 16];
                let length = libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(&set), set.as_mut_ptr());
                libc::syscall(libc::SYS_sched_setaffinity, 0, length, set.as_ptr())
            }
            "nested-chroot" => {
                // The old way out: a root below our own, with the working directory above it.
                let above = std::fs::File::open("/tmp").map_err(|_| Errno::EIO)?;
                let below = libc::mkdir(c"/tmp/below".as_ptr(), 0o700);
                let entered = libc::chroot(c"/tmp/below".as_ptr());
                let error = Errno::last();
                if below == 0 {
                    // By a descriptor, since the path means something else in the new root.
                    libc::unlinkat(above.as_raw_fd(), c"below".as_ptr(), libc::AT_REMOVEDIR);
                }
                error.set();
                i64::from(entered)
            }
            // getpid by the 32-bit table, with its error as the kernel returns it.
            "int80" => {
                let result: i64;
                std::arch::asm!("int 0x80", inlateout("rax") 20_i64 => result, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
                if (-4095..0).contains(&result) {
                    return Err(Errno::from_raw(-result as i32));
                }
                result
            }
            _ => return Err(Errno::EINVAL),
        }
    };
    Errno::result(result).map(drop)
}
