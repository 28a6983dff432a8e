//! System calls that no crate here wraps. Each is an attempt: what it says is all that is of interest.

#![allow(unsafe_code)]

use std::io;

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// clone as fork calls it, which the C library may do by another call.
pub fn clone_process() -> io::Result<()> {
    // WHY UNSAFE: a raw clone.
    // SAFETY: without CLONE_VM the child runs on its own copy, and it leaves at once; the process is single-threaded.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) })?;
    wait_or_leave(pid)
}

/// clone3 as fork.
pub fn clone3_process() -> io::Result<()> {
    let mut args = [0_u64; 11];
    args[4] = libc::SIGCHLD as u64;
    // WHY UNSAFE: a raw clone3.
    // SAFETY: `args` is as long as is said and outlives the call; for the child see `clone_process`.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, args.as_ptr(), size_of_val(&args)) })?;
    wait_or_leave(pid)
}

fn wait_or_leave(pid: libc::c_long) -> io::Result<()> {
    if pid == 0 {
        // WHY UNSAFE: the child must not run this process's destructors.
        // SAFETY: it does not return.
        unsafe { libc::_exit(0) }
    }
    nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid as i32), None)?;
    Ok(())
}

/// A few bytes of our own memory, by the call that reads others'.
pub fn read_own_memory() -> io::Result<()> {
    let (from, mut to) = ([7_u8; 8], [0_u8; 8]);
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: from.as_ptr().cast_mut().cast(), iov_len: 8 };
    // WHY UNSAFE: pointers to what is read and written.
    // SAFETY: both are 8 bytes long and outlive the call.
    let read =
        check(unsafe { libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0) as i64 })?;
    if read == 8 && to == from { Ok(()) } else { Err(io::Error::other("it has read something else")) }
}

/// A socket of this family.
pub fn socket(family: i32) -> io::Result<()> {
    let kind = if family == libc::AF_NETLINK { libc::SOCK_RAW } else { libc::SOCK_STREAM };
    // WHY UNSAFE: C.
    // SAFETY: no pointers. It is closed by the end of the process.
    check(unsafe { libc::socket(family, kind, 0) }.into()).map(drop)
}

/// A pair of this family.
pub fn socketpair(family: i32) -> io::Result<()> {
    let mut pair = [0; 2];
    // WHY UNSAFE: the kernel writes two numbers.
    // SAFETY: there is room for two.
    check(unsafe { libc::socketpair(family, libc::SOCK_RAW, 0, pair.as_mut_ptr()) }.into()).map(drop)
}

/// The number of our session keyring.
pub fn keyring() -> io::Result<()> {
    const KEYCTL_GET_KEYRING_ID: libc::c_int = 0;
    const KEY_SPEC_PROCESS_KEYRING: libc::c_int = -2;
    // WHY UNSAFE: C.
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1) }).map(drop)
}

/// io_uring_setup, with no parameters.
pub fn io_uring() -> io::Result<()> {
    // WHY UNSAFE: C.
    // SAFETY: the kernel refuses the null pointer.
    check(unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, 0) }).map(drop)
}

fn map(protection: i32) -> io::Result<*mut libc::c_void> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // WHY UNSAFE: memory by its address.
    // SAFETY: new memory at an address of the kernel's choice; it is never written to.
    let address = unsafe { libc::mmap(std::ptr::null_mut(), 4096, protection, flags, -1, 0) };
    if address == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(address) }
}

/// New memory that can be written and executed.
pub fn map_code() -> io::Result<()> {
    map(libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC).map(drop)
}

/// Memory that was written becomes code.
pub fn protect_code() -> io::Result<()> {
    let address = map(libc::PROT_READ | libc::PROT_WRITE)?;
    // WHY UNSAFE: memory by its address.
    // SAFETY: it was mapped above and nobody else knows it.
    check(unsafe { libc::mprotect(address, 4096, libc::PROT_READ | libc::PROT_EXEC) }.into()).map(drop)
}

/// TIOCSTI on standard input.
pub fn type_into_stdin() -> io::Result<()> {
    let byte = b'x';
    // WHY UNSAFE: C.
    // SAFETY: the kernel reads one byte, which outlives the call.
    check(unsafe { libc::ioctl(0, libc::TIOCSTI, &raw const byte) }.into()).map(drop)
}

/// SO_LINGER on a socket.
pub fn linger() -> io::Result<()> {
    let (one, _other) = std::os::unix::net::UnixStream::pair()?;
    let linger = libc::linger { l_onoff: 1, l_linger: 100 };
    // WHY UNSAFE: C.
    // SAFETY: the option is of the length that is said and outlives the call.
    check(
        unsafe {
            libc::setsockopt(
                std::os::fd::AsRawFd::as_raw_fd(&one),
                libc::SOL_SOCKET,
                libc::SO_LINGER,
                (&raw const linger).cast(),
                size_of::<libc::linger>() as u32,
            )
        }
        .into(),
    )
    .map(drop)
}

/// Whether seccomp knows an action: what the call is asked before a filter is made.
pub fn seccomp_is_asked_for() -> io::Result<()> {
    const SECCOMP_GET_ACTION_AVAIL: libc::c_uint = 2;
    let action = libc::SECCOMP_RET_KILL_PROCESS;
    // WHY UNSAFE: C.
    // SAFETY: the kernel reads four bytes, which outlive the call.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &raw const action) }).map(drop)
}
