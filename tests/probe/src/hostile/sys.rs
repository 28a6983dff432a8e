//! Raw system calls of the hostile verbs.

#![allow(unsafe_code)]

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

const CAPABILITIES_V3: u32 = 0x2008_0522;

/// A system call that a function has no use for, by name. Each works for root outside, changes nothing but this process there,
/// or fails there for another reason.
pub fn call(name: &str) -> nix::Result<()> {
    let null = std::ptr::null_mut::<libc::c_void>();
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
                let below = libc::mkdir(c"/tmp/below".as_ptr(), 0o700);
                let entered = libc::chroot(c"/tmp/below".as_ptr());
                let error = Errno::last();
                if below == 0 && entered != 0 {
                    libc::rmdir(c"/tmp/below".as_ptr());
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
