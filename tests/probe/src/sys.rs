//! The probe's unsafe corner: raw system calls by name.

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
pub fn raw(name: &str) -> nix::Result<()> {
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

/// Becomes `command` under a filter by which the kernel has no landlock: landlock_create_ruleset fails with ENOSYS.
pub fn become_without_landlock(command: &[String]) -> std::io::Error {
    use std::os::unix::process::CommandExt;
    const LOAD_NUMBER: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERRNO: u32 = 0x0005_0000;
    let step = |code, k, jt, jf| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step(LOAD_NUMBER, 0, 0, 0),
        step(JUMP_IF_EQUAL, libc::SYS_landlock_create_ruleset as u32, 0, 1),
        step(RETURN, ERRNO | libc::ENOSYS as u32, 0, 0),
        step(RETURN, ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    // WHY UNSAFE: no crate of the probe's installs filters.
    // SAFETY: `filter` describes `program`; both outlive the call. It is run by root, which needs no no_new_privs.
    let installed = unsafe { libc::syscall(libc::SYS_seccomp, 1, 0, &raw const filter) };
    if installed != 0 {
        return std::io::Error::last_os_error();
    }
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
