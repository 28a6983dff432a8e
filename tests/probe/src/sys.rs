//! The probe's unsafe corner: raw system calls by name.

#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, RawFd};

use nix::{errno::Errno, unistd::ForkResult};

/// Ends this process by a signal, with the default disposition.
pub fn raise(signal: i32) {
    // WHY UNSAFE: std has no signals.
    // SAFETY: neither call touches memory.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
    }
}

/// A descriptor this process was started with, as a stream.
pub fn inherited_stream(raw: RawFd) -> std::os::unix::net::UnixStream {
    // WHY UNSAFE: the number comes from whoever started us.
    // SAFETY: called once, for the channel.
    unsafe { std::os::unix::net::UnixStream::from_raw_fd(raw) }
}

/// Forks.
pub fn fork() -> nix::Result<ForkResult> {
    // WHY UNSAFE: only the calling thread goes on in the child.
    // SAFETY: the children only sleep, fork, wait and exit.
    unsafe { nix::unistd::fork() }
}

/// /dev/null, open until the process ends.
fn open_null() -> nix::Result<RawFd> {
    use std::os::fd::IntoRawFd;
    nix::fcntl::open("/dev/null", nix::fcntl::OFlag::O_RDWR, nix::sys::stat::Mode::empty()).map(IntoRawFd::into_raw_fd)
}

/// A system call that should be refused, by name.
pub fn named(name: &str) -> nix::Result<()> {
    let null = std::ptr::null::<u8>();
    // WHY UNSAFE: most of these have no wrapper, and should never get one here.
    // SAFETY: pointers are null or live for the call; where one of these worked, the worst is done to the probe itself.
    let result = unsafe {
        match name {
            "setns" => libc::syscall(libc::SYS_setns, 0, 0),
            "bpf" => libc::syscall(libc::SYS_bpf, 5, null, 0),
            "keyctl" => libc::syscall(libc::SYS_keyctl, 0, -3, 1, 0, 0),
            "io_uring" => {
                let parameters = [0_u8; 120];
                libc::syscall(libc::SYS_io_uring_setup, 4, parameters.as_ptr())
            }
            "userfaultfd" => libc::syscall(libc::SYS_userfaultfd, 0),
            "perf" => {
                let mut attributes = [0_u32; 32];
                attributes[0] = 1;
                attributes[1] = 128;
                libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0)
            }
            "kexec" => libc::syscall(libc::SYS_kexec_load, 0, 0, null, 0),
            "module" => libc::syscall(libc::SYS_finit_module, 0, c"".as_ptr(), 0),
            // With a wrong magic it could not even reboot outside.
            "reboot" => libc::syscall(libc::SYS_reboot, 0, 0, 0, null),
            "open_by_handle" => libc::syscall(libc::SYS_open_by_handle_at, -1, null, 0),
            "process_vm_readv" => libc::syscall(libc::SYS_process_vm_readv, 1, null, 0, null, 0, 0),
            // getpid by the x32 numbers: a filter that compares numbers only would not know it.
            "x32" => libc::syscall(0x4000_0000 | libc::SYS_getpid),
            "clone-newuser" => {
                let pid = libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, null, null, null, 0);
                if pid == 0 {
                    libc::_exit(0);
                }
                pid
            }
            "tiocsti" => i64::from(libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr())),
            "packet-socket" => i64::from(libc::socket(libc::AF_PACKET, libc::SOCK_RAW, 0)),
            "netlink-socket" => i64::from(libc::socket(libc::AF_NETLINK, libc::SOCK_RAW, 0)),
            "vsock-socket" => i64::from(libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0)),
            "personality" => libc::syscall(libc::SYS_personality, 0x0040_0000),
            "swapon" => libc::syscall(libc::SYS_swapon, c"/tmp/x".as_ptr(), 0),
            "device-ioctl" => i64::from(libc::ioctl(open_null()?, libc::TCGETS, [0_u8; 64].as_mut_ptr())),
            "setpriority" => i64::from(libc::setpriority(libc::PRIO_PROCESS, 0, -5)),
            _ => -1,
        }
    };
    Errno::result(result).map(drop)
}

/// Keeps the first real-time signal pending on this thread.
pub fn block_queued_signal() -> nix::Result<()> {
    // WHY UNSAFE: nix has no real-time signals.
    // SAFETY: all-zero is a valid set, which is filled before it is used and outlives the calls.
    let result = unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGRTMIN());
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut())
    };
    if result == 0 { Ok(()) } else { Err(Errno::from_raw(result)) }
}

/// Sends that signal to this process.
pub fn queue_signal() -> nix::Result<()> {
    let value = libc::sigval { sival_ptr: std::ptr::null_mut() };
    // WHY UNSAFE: nix has no sigqueue.
    // SAFETY: no pointer is followed.
    Errno::result(unsafe { libc::sigqueue(libc::getpid(), libc::SIGRTMIN(), value) }).map(drop)
}

/// How long the machine has been up, by sysinfo.
pub fn uptime_seconds() -> nix::Result<i64> {
    // WHY UNSAFE: nix rounds what sysinfo says.
    // SAFETY: all-zero is a valid sysinfo, which outlives the call.
    unsafe {
        let mut info: libc::sysinfo = std::mem::zeroed();
        Errno::result(libc::sysinfo(&raw mut info))?;
        Ok(info.uptime)
    }
}

/// Installs a filter by which this process, and what comes of it, gets an errno for one call.
pub fn refuse_call(number: libc::c_long, errno: i32) -> nix::Result<()> {
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_EQUAL, number as u32, 0, 1),
        step(RETURN, ERRNO | errno as u32, 0, 0),
        step(RETURN, ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // WHY UNSAFE: no crate of the probe's installs filters.
    // SAFETY: `filter` describes `program`; both outlive the call. It is run by root, which needs no no_new_privs.
    Errno::result(unsafe { libc::syscall(libc::SYS_seccomp, 1, 0, &raw const filter) }).map(drop)
}

/// Becomes `command` under a filter by which the kernel has no landlock: landlock_create_ruleset fails with ENOSYS.
pub fn become_without_landlock(command: &[String]) -> std::io::Error {
    match refuse_call(libc::SYS_landlock_create_ruleset, libc::ENOSYS) {
        Ok(()) => become_program(command),
        Err(error) => error.into(),
    }
}

/// Becomes `command` with a key in its session keyring, which is a new one.
pub fn become_with_key(command: &[String]) -> std::io::Error {
    const JOIN_SESSION_KEYRING: i32 = 1;
    const SESSION_KEYRING: i32 = -3;
    let none = std::ptr::null::<libc::c_char>();
    let (kind, name) = (c"user".as_ptr(), KEY.as_ptr());
    // WHY UNSAFE: no crate of the probe's knows keyrings.
    // SAFETY: the names end with a zero byte, and the payload has the length that is told.
    let planted = unsafe {
        match libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, none) {
            -1 => -1,
            _ => libc::syscall(libc::SYS_add_key, kind, name, c"secret".as_ptr(), 6, SESSION_KEYRING),
        }
    };
    match Errno::result(planted) {
        Ok(_) => become_program(command),
        Err(error) => error.into(),
    }
}

/// The key that [`become_with_key`] plants.
pub const KEY: &std::ffi::CStr = c"sublet-probe-canary";

fn become_program(command: &[String]) -> std::io::Error {
    use std::os::unix::process::CommandExt;
    match command {
        [program, arguments @ ..] => std::process::Command::new(program).args(arguments).exec(),
        [] => std::io::Error::other("no command"),
    }
}

/// The owner of a user namespace.
pub fn namespace_owner(namespace: &std::fs::File) -> nix::Result<u32> {
    use std::os::fd::AsRawFd;
    const NS_GET_OWNER_UID: libc::c_ulong = 0xb704;
    let mut owner = 0_u32;
    // WHY UNSAFE: nix does not wrap this ioctl.
    // SAFETY: it writes one uid to `owner`, which outlives the call.
    Errno::result(unsafe { libc::ioctl(namespace.as_raw_fd(), NS_GET_OWNER_UID, &raw mut owner) })?;
    Ok(owner)
}

/// A system call with an argument that is refused, or that is answered without being done, by name. None for other names.
pub fn by_argument(name: &str) -> Option<nix::Result<()>> {
    const PAGE: usize = 4096;
    let null = std::ptr::null_mut::<u8>();
    let one = 1_i32;
    let one = (&raw const one).cast::<libc::c_void>();
    let option = |level, option| {
        let socket = tcp_pair()?.0;
        // WHY UNSAFE: nix has no names for most of these options.
        // SAFETY: `one` is an int and outlives the call.
        Errno::result(unsafe { libc::setsockopt(raw(&socket), level, option, one, 4) }).map(i64::from)
    };
    let send = |flags| {
        let (socket, _other) = tcp_pair()?;
        // WHY UNSAFE: nix has no names for some of these flags.
        // SAFETY: one byte is read from a live array.
        Errno::result(unsafe { libc::send(raw(&socket), [1_u8].as_ptr().cast(), 1, flags) }).map(|sent| sent as i64)
    };
    let control = |command: i32, argument: u64| {
        let (reader, _writer) = nix::unistd::pipe()?;
        // WHY UNSAFE: nix has no names for some of these commands.
        // SAFETY: the argument is a number, or for F_SET_RW_HINT a live one.
        Errno::result(unsafe { libc::fcntl(raw(&reader), command, argument) }).map(i64::from)
    };
    // WHY UNSAFE: most of these have no wrapper.
    // SAFETY: pointers are null, live for the call, or of memory that is mapped here and nobody else's.
    let result = unsafe {
        match name {
            "so-attach-filter" => {
                // One instruction: let all of each packet pass.
                let filter = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: u32::MAX }];
                let program = libc::sock_fprog { len: 1, filter: filter.as_ptr().cast_mut() };
                tcp_pair().and_then(|(socket, _other)| {
                    let size = size_of::<libc::sock_fprog>() as u32;
                    let program = (&raw const program).cast();
                    Errno::result(libc::setsockopt(raw(&socket), 1, libc::SO_ATTACH_FILTER, program, size))
                        .map(i64::from)
                })
            }
            "so-zerocopy" => option(libc::SOL_SOCKET, libc::SO_ZEROCOPY),
            "so-busy-poll" => option(libc::SOL_SOCKET, libc::SO_BUSY_POLL),
            "tcp-fastopen" => option(libc::IPPROTO_TCP, 30),
            "tcp-congestion" => tcp_pair().and_then(|(socket, _other)| {
                let name = c"reno".as_ptr().cast();
                Errno::result(libc::setsockopt(raw(&socket), libc::IPPROTO_TCP, libc::TCP_CONGESTION, name, 4))
                    .map(i64::from)
            }),
            "so-linger" => {
                let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                tcp_pair().and_then(|(socket, _other)| {
                    let size = size_of::<libc::linger>() as u32;
                    let linger = (&raw const linger).cast();
                    Errno::result(libc::setsockopt(raw(&socket), 1, libc::SO_LINGER, linger, size)).map(i64::from)
                })
            }
            "peer-pidfd" => std::os::unix::net::UnixStream::pair().map_err(errno).and_then(|(socket, _other)| {
                let (mut value, mut size) = (0_i32, 4_u32);
                let value = (&raw mut value).cast();
                // A descriptor of the probe's own; it is the probe's to lose.
                Errno::result(libc::getsockopt(raw(&socket), 1, 77, value, &raw mut size)).map(i64::from)
            }),
            "msg-oob" => send(libc::MSG_OOB),
            "msg-zerocopy" => send(libc::MSG_ZEROCOPY),
            "msg-fastopen" => std::net::TcpListener::bind("127.0.0.1:0").map_err(errno).and_then(|listener| {
                let port = listener.local_addr().map_err(errno)?.port();
                let to = libc::sockaddr_in {
                    sin_family: libc::AF_INET as u16,
                    sin_port: port.to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from_be_bytes([127, 0, 0, 1]).to_be() },
                    sin_zero: [0; 8],
                };
                let socket = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
                let (to, size) = ((&raw const to).cast(), size_of::<libc::sockaddr_in>() as u32);
                let byte = [1_u8];
                Errno::result(libc::sendto(socket, byte.as_ptr().cast(), 1, libc::MSG_FASTOPEN, to, size))
                    .map(|n| n as i64)
            }),
            "raw-socket" => number(libc::socket(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_UDP).into()),
            "cpu-timer" => {
                let mut timer = 0_i32;
                let clock = libc::CLOCK_PROCESS_CPUTIME_ID;
                number(libc::syscall(libc::SYS_timer_create, clock, null, &raw mut timer))
            }
            "cpu-sleep" => {
                // Until a time that has passed: who sleeps uses no CPU, and would sleep for ever.
                let time = libc::timespec { tv_sec: 0, tv_nsec: 1 };
                let clock = libc::CLOCK_PROCESS_CPUTIME_ID;
                number(libc::syscall(libc::SYS_clock_nanosleep, clock, libc::TIMER_ABSTIME, &raw const time, null))
            }
            "pipe-size" => control(libc::F_SETPIPE_SZ, 1 << 20),
            "pipe-size-small" => control(libc::F_SETPIPE_SZ, 1 << 16),
            "set-owner" => control(libc::F_SETOWN, std::process::id().into()),
            "write-hint" => {
                let hint = 1_u64;
                control(1036, (&raw const hint) as u64)
            }
            "futex-pi" => {
                let word = 0_u32;
                number(libc::syscall(libc::SYS_futex, &raw const word, 6, 0, null, null, 0))
            }
            "arch-cpuid" => number(libc::syscall(libc::SYS_arch_prctl, 0x1011, 0)),
            "huge-pages" => {
                // Without a reservation it works on a host that has no such page to give.
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_HUGETLB | libc::MAP_NORESERVE;
                number(libc::mmap(null.cast(), 2 << 20, libc::PROT_READ, flags, -1, 0) as i64)
            }
            "huge-memfd" => number(libc::memfd_create(c"probe".as_ptr(), libc::MFD_HUGETLB).into()),
            "rwf-nowait" => std::fs::File::open("/proc/self/exe").map_err(errno).and_then(|file| {
                let mut byte = [0_u8];
                let part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
                Errno::result(libc::preadv2(raw(&file), &raw const part, 1, 0, libc::RWF_NOWAIT)).map(|n| n as i64)
            }),
            "mincore" | "madvise-pageout" | "msync-sync" | "msync-unmapped" => {
                let (protection, flags) = (libc::PROT_READ, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
                let page = libc::mmap(null.cast(), PAGE, protection, flags, -1, 0);
                let mut there = [0_u8];
                match name {
                    "mincore" => number(libc::mincore(page, PAGE, there.as_mut_ptr()).into()),
                    "madvise-pageout" => number(libc::madvise(page, PAGE, libc::MADV_PAGEOUT).into()),
                    _ => {
                        libc::munmap(page, PAGE);
                        let how = if name == "msync-sync" { libc::MS_SYNC } else { libc::MS_ASYNC };
                        number(libc::msync(page, PAGE, how).into())
                    }
                }
            }
            "membarrier-global" => number(libc::syscall(libc::SYS_membarrier, 1, 0, 0)),
            "affinity" => {
                let mut mask = [0_u64; 128];
                let size = size_of_val(&mask);
                let known = libc::syscall(libc::SYS_sched_getaffinity, 0, size, mask.as_mut_ptr());
                if known > 0 {
                    number(libc::syscall(libc::SYS_sched_setaffinity, 0, known, mask.as_ptr()))
                } else {
                    number(known)
                }
            }
            "numa-policy" => number(libc::syscall(libc::SYS_get_mempolicy, null, null, 0, null, 0)),
            // EBADF or EFAULT where the kernel has it.
            "new-xattr" => number(libc::syscall(464, -1, c"".as_ptr(), 0, c"user.x".as_ptr(), null, 0)),
            "cachestat" => number(libc::syscall(451, -1, null, null, 0)),
            "newer-than-the-kernel" => number(libc::syscall(1000)),
            "device-node" | "fifo" => {
                let path = format!("/tmp/probe-node-{}\0", std::process::id());
                let kind = if name == "fifo" { libc::S_IFIFO } else { libc::S_IFCHR };
                let made = number(libc::mknod(path.as_ptr().cast(), kind | 0o600, libc::makedev(1, 3)).into());
                libc::unlink(path.as_ptr().cast());
                made
            }
            "fsync-of-nothing" => number(libc::fsync(-1).into()),
            "syncfs-of-nothing" => number(libc::syncfs(-1).into()),
            "drop-pages-of-nothing" => Errno::result(match libc::posix_fadvise(-1, 0, 0, libc::POSIX_FADV_DONTNEED) {
                0 => 0_i64,
                error => {
                    Errno::set_raw(error);
                    -1
                }
            }),
            _ => return None,
        }
    };
    Some(result.map(drop))
}

fn number(result: i64) -> nix::Result<i64> {
    Errno::result(result)
}

fn raw(fd: &impl std::os::fd::AsRawFd) -> RawFd {
    fd.as_raw_fd()
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(0))
}

/// A connection over loopback, both ends.
fn tcp_pair() -> nix::Result<(std::net::TcpStream, std::net::TcpStream)> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").map_err(errno)?;
    let near = std::net::TcpStream::connect(listener.local_addr().map_err(errno)?).map_err(errno)?;
    Ok((near, listener.accept().map_err(errno)?.0))
}
