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
            "setpriority" => i64::from(libc::setpriority(libc::PRIO_PROCESS, 0, -5)),
            _ => -1,
        }
    };
    Errno::result(result).map(drop)
}
