//! The only unsafe code of the shim: one system call per wrapper, owned descriptors in and out.
//!
//! What nix or another crate wraps safely is not here. A function that cannot keep its promise alone is `unsafe`, and is called
//! from a module named `sys`.

#![allow(unsafe_code)]

mod descriptors;

use std::{
    ffi::CStr,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    os::unix::process::CommandExt as _,
    process::Command,
};

use nix::{
    sys::signal::Signal,
    unistd::{Gid, Pid, Uid, geteuid, setfsgid, setfsuid, setresuid},
};

pub use self::descriptors::{close_inherited, inherited_fd, keep_only, receive, watch, watch_lasting};

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Which side of a fork this is.
#[derive(Debug)]
pub enum Fork<T> {
    /// The child.
    Child(Child),
    /// The parent, with what it knows of the child.
    Parent(T),
}

/// Proof of being a copy that was just made by fork or clone3: a process with one thread.
#[derive(Debug)]
pub struct Child(());

/// The namespaces a sandbox is born into. Cgroup and time are entered later, by init itself: the cgroup namespace must
/// be made once inside the worker's group, and a new time namespace holds only for children.
pub const BIRTH_NAMESPACES: u64 = (libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS) as u64;

/// clone3 into new namespaces and, from its first instruction, into `cgroup`. The child is a copy, as after fork.
///
/// The kernel makes the effective uid of the caller the owner of the user namespace, so it is `owner` for the time of the
/// call; [`keep_capabilities_over_uids`] must have been called once before. The child keeps it, and both keep the
/// caller's filesystem uid, by which paths of the host are opened.
///
/// # Errors
/// What setresuid or clone3 says; of the latter `EBUSY` and `EACCES` concern the cgroup.
pub fn clone_into(cgroup: BorrowedFd<'_>, owner: Uid) -> io::Result<Fork<Pid>> {
    const UNCHANGED: Uid = Uid::from_raw(u32::MAX);
    let own = geteuid();
    setresuid(UNCHANGED, owner, UNCHANGED)?;
    // setresuid has changed the filesystem uid too. setfsuid reports no failure, so it is asked with an invalid uid.
    setfsuid(own);
    let cloned =
        if setfsuid(UNCHANGED) == own { clone3(cgroup) } else { Err(io::Error::other("setfsuid had no effect")) };
    if matches!(cloned, Ok(Fork::Child(_))) {
        return cloned;
    }
    if let Err(error) = setresuid(UNCHANGED, own, UNCHANGED) {
        // Nothing may be made or judged by a nursery that is half a worker. The end of the nursery is the end of all workers.
        eprintln!("sublet nursery: switch back to uid {own}: {error}");
        exit_now(1);
    }
    cloned
}

/// Gives this process the filesystem uid and gid `id` of its user namespace, as which it makes files. What it had before may
/// have no number in the namespace, and then there is no way back.
pub fn use_filesystem_ids(id: u32) {
    // Neither reports a failure. Files cannot be made then, which does.
    setfsgid(Gid::from_raw(id));
    setfsuid(Uid::from_raw(id));
}

/// Lets this process change its uids without any effect on its capabilities (SECBIT_NO_SETUID_FIXUP), for good. A child in
/// a new user namespace begins without it.
///
/// # Errors
/// What prctl says; `EPERM` without CAP_SETPCAP.
pub fn keep_capabilities_over_uids() -> io::Result<()> {
    const SECBIT_NO_SETUID_FIXUP: libc::c_ulong = 1 << 2;
    // WHY UNSAFE: no crate in use wraps PR_SET_SECUREBITS with this bit.
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0) }.into()).map(drop)
}

fn clone3(cgroup: BorrowedFd<'_>) -> io::Result<Fork<Pid>> {
    const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;
    let args = libc::clone_args {
        flags: BIRTH_NAMESPACES | CLONE_INTO_CGROUP,
        pidfd: 0,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: libc::SIGCHLD as u64,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: cgroup.as_raw_fd() as u64,
    };
    // WHY UNSAFE: no crate wraps clone3 without exec.
    // SAFETY: `args` is complete and outlives the call; without CLONE_VM the child runs on its own copy of this memory,
    // and the caller is single-threaded, so no lock can be held by a thread that does not exist in the child.
    let pid = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) })?;
    if pid == 0 {
        return Ok(Fork::Child(Child(())));
    }
    Ok(Fork::Parent(Pid::from_raw(pid as i32)))
}

/// fork.
///
/// # Errors
/// What fork says; `EAGAIN` when the pids limit is reached.
pub fn fork() -> io::Result<Fork<Pid>> {
    // WHY UNSAFE: fork is unsafe in programs with threads.
    // SAFETY: nursery, init and launcher are single-threaded; elsewhere (can_mount_overlay) the child makes system calls only.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => Ok(Fork::Child(Child(()))),
        nix::unistd::ForkResult::Parent { child } => Ok(Fork::Parent(child)),
    }
}

/// unshare with flags that nix has no names for.
///
/// # Errors
/// What unshare says.
pub fn unshare(flags: i32) -> io::Result<()> {
    // WHY UNSAFE: nix's CloneFlags lack CLONE_NEWTIME.
    // SAFETY: no pointers.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags) }).map(drop)
}

/// CLONE_NEWTIME, which libc does not name on every target.
pub const CLONE_NEWTIME: i32 = 0x80;

/// open_tree(OPEN_TREE_CLONE): a detached copy of the mount at `path` below `dir`, of this one mount only.
///
/// # Errors
/// What open_tree says.
pub fn clone_mount(dir: BorrowedFd<'_>, path: &CStr) -> io::Result<OwnedFd> {
    let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH as u32;
    // WHY UNSAFE: no crate in use wraps open_tree.
    // SAFETY: `path` is NUL-ended and outlives the call.
    let fd = check(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })?;
    // WHY UNSAFE: the kernel hands the descriptor over as a number.
    // SAFETY: open_tree succeeded, so it is open and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// mount_setattr on the mount `fd` stands for: sets `attributes` (MOUNT_ATTR_*) and makes it private.
///
/// # Errors
/// What mount_setattr says.
pub fn set_mount_attributes(fd: BorrowedFd<'_>, attributes: u64) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    // WHY UNSAFE: no crate in use wraps mount_setattr.
    // SAFETY: the path is an empty C string, `attr` outlives the call and its size is passed.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            fd.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// move_mount of the detached mount `from` onto `path` below `dir`; a symlink as last component is not followed.
///
/// # Errors
/// What move_mount says.
pub fn attach_mount(from: BorrowedFd<'_>, dir: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | if path.is_empty() { libc::MOVE_MOUNT_T_EMPTY_PATH } else { 0 };
    // WHY UNSAFE: no crate in use wraps move_mount.
    // SAFETY: both paths are NUL-ended and outlive the call.
    check(unsafe {
        libc::syscall(libc::SYS_move_mount, from.as_raw_fd(), c"".as_ptr(), dir.as_raw_fd(), path.as_ptr(), flags)
    })
    .map(drop)
}

/// A new filesystem of `kind` with `options` as a detached mount with `attributes` (MOUNT_ATTR_*).
///
/// # Errors
/// The first of fsopen, fsconfig, fsmount that fails.
pub fn new_mount(kind: &CStr, options: &[(&CStr, &CStr)], attributes: u64) -> io::Result<OwnedFd> {
    const FSOPEN_CLOEXEC: u32 = 1;
    const FSMOUNT_CLOEXEC: u32 = 1;
    const FSCONFIG_SET_STRING: u32 = 1;
    const FSCONFIG_CMD_CREATE: u32 = 6;
    // WHY UNSAFE: no crate in use wraps fsopen.
    // SAFETY: `kind` is NUL-ended and outlives the call.
    let context = check(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) })?;
    // WHY UNSAFE: the kernel hands the descriptor over as a number.
    // SAFETY: fsopen succeeded, so it is open and ours alone.
    let context = unsafe { OwnedFd::from_raw_fd(context as RawFd) };
    for (key, value) in options {
        // WHY UNSAFE: no crate in use wraps fsconfig.
        // SAFETY: key and value are NUL-ended and outlive the call.
        check(unsafe {
            libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_SET_STRING, key.as_ptr(), value.as_ptr(), 0)
        })?;
    }
    let null = std::ptr::null::<libc::c_char>();
    // WHY UNSAFE: no crate in use wraps fsconfig.
    // SAFETY: FSCONFIG_CMD_CREATE takes null for key and value.
    check(unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), FSCONFIG_CMD_CREATE, null, null, 0) })?;
    // WHY UNSAFE: no crate in use wraps fsmount.
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), FSMOUNT_CLOEXEC, attributes) })?;
    // WHY UNSAFE: the kernel hands the descriptor over as a number.
    // SAFETY: fsmount succeeded, so it is open and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A pidfd for a child.
///
/// # Errors
/// What pidfd_open says.
pub fn open_pidfd(pid: Pid) -> io::Result<OwnedFd> {
    // WHY UNSAFE: nix does not wrap pidfd_open.
    // SAFETY: no pointers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    // WHY UNSAFE: the kernel hands the descriptor over as a number.
    // SAFETY: pidfd_open succeeded, so it is open and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal to the process that a descriptor stands for, whoever has its number now.
///
/// # Errors
/// What pidfd_send_signal says; `ESRCH` when it has ended.
pub fn signal_process(process: &OwnedFd, signal: Signal) -> io::Result<()> {
    let no_info = std::ptr::null::<libc::siginfo_t>();
    // WHY UNSAFE: nix does not wrap pidfd_send_signal.
    // SAFETY: a null siginfo is what kill(2) sends; no other pointers.
    let sent =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal as libc::c_int, no_info, 0) };
    check(sent).map(drop)
}

/// Whether a UNIX socket takes descriptors that others attach (SO_PASSRIGHTS, unix(7)).
///
/// # Errors
/// `ENOPROTOOPT` before Linux 6.16.
pub fn set_pass_rights(socket: BorrowedFd<'_>, pass: bool) -> io::Result<()> {
    const SO_PASSRIGHTS: libc::c_int = 83;
    let value = libc::c_int::from(pass);
    // WHY UNSAFE: neither nix nor libc names this option.
    // SAFETY: `value` is an int that outlives the call, and its size is passed.
    check(
        unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PASSRIGHTS,
                (&raw const value).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        }
        .into(),
    )
    .map(drop)
}

/// A new, empty session keyring, so that no key of another process is reachable.
///
/// # Errors
/// What keyctl says.
pub fn join_new_session_keyring() -> io::Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_int = 1;
    // WHY UNSAFE: no crate in use wraps keyctl.
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) })
        .map(drop)
}

/// A kind of speculation that prctl(2) can forbid a thread and its descendants.
#[derive(Clone, Copy, Debug)]
pub enum Speculation {
    /// PR_SPEC_STORE_BYPASS: loads before older stores (Spectre variant 4).
    StoreBypass = 0,
    /// PR_SPEC_INDIRECT_BRANCH: targets that another process has trained (Spectre variant 2).
    IndirectBranch = 1,
}

/// Forbids `kind` to this thread for good, where the kernel lets a process decide. Elsewhere the processor has not got it,
/// or the host's settings have decided for all.
///
/// # Errors
/// What prctl says when the kernel has said that it can be forbidden.
pub fn forbid_speculation(kind: Speculation) -> io::Result<()> {
    const PR_GET_SPECULATION_CTRL: libc::c_int = 52;
    const PR_SET_SPECULATION_CTRL: libc::c_int = 53;
    const PR_SPEC_PRCTL: libc::c_int = 1;
    const PR_SPEC_FORCE_DISABLE: libc::c_ulong = 8;
    let kind = kind as libc::c_ulong;
    // WHY UNSAFE: no crate in use wraps this prctl.
    // SAFETY: no pointers.
    let state = unsafe { libc::prctl(PR_GET_SPECULATION_CTRL, kind, 0, 0, 0) };
    if state < 0 || state & PR_SPEC_PRCTL == 0 {
        return Ok(());
    }
    // WHY UNSAFE: as above.
    // SAFETY: no pointers.
    check(unsafe { libc::prctl(PR_SET_SPECULATION_CTRL, kind, PR_SPEC_FORCE_DISABLE, 0, 0) }.into()).map(drop)
}

const KEY_SPEC_SESSION_KEYRING: libc::c_int = -3;

/// Puts a key of type "user" into the session keyring.
///
/// # Errors
/// What add_key says.
pub fn add_session_key(name: &CStr) -> io::Result<()> {
    let content = b"-";
    // WHY UNSAFE: no crate in use wraps add_key.
    // SAFETY: type and name are NUL-ended, and `content` is as long as is said; all outlive the call.
    check(unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            name.as_ptr(),
            content.as_ptr(),
            content.len(),
            KEY_SPEC_SESSION_KEYRING,
        )
    })
    .map(drop)
}

/// Whether a key of type "user" can be found from the session keyring.
///
/// # Errors
/// What keyctl says, but for `ENOKEY`.
pub fn has_session_key(name: &CStr) -> io::Result<bool> {
    const KEYCTL_SEARCH: libc::c_int = 10;
    // WHY UNSAFE: no crate in use wraps keyctl.
    // SAFETY: type and name are NUL-ended and outlive the call; 0 asks for no link to what is found.
    let found = check(unsafe {
        libc::syscall(
            libc::SYS_keyctl,
            KEYCTL_SEARCH,
            KEY_SPEC_SESSION_KEYRING,
            c"user".as_ptr(),
            name.as_ptr(),
            0 as libc::c_int,
        )
    });
    match found {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::ENOKEY) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Brings the loopback interface of the current network namespace up.
///
/// # Errors
/// What socket or ioctl says.
pub fn loopback_up() -> io::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // WHY UNSAFE: ifreq is a C union.
    // SAFETY: all-zero is a valid ifreq.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // WHY UNSAFE: no crate in use wraps SIOCSIFFLAGS.
    // SAFETY: `request` is a complete ifreq and outlives the call.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) }.into()).map(drop)
}

/// Installs a filter program for the calling thread, for good. no_new_privs must be set before.
///
/// # Errors
/// What seccomp(2) says: `EINVAL` for a program that the kernel does not accept, `EACCES` without no_new_privs.
pub fn install_filter(program: &[seccompiler::sock_filter]) -> io::Result<()> {
    install_filter_with(program, 0).map(drop)
}

/// Installs a filter program as [`install_filter`] does. Calls that it answers with USER_NOTIF are announced on the returned
/// descriptor.
///
/// # Errors
/// As [`install_filter`]; `EBUSY` when another filter of the thread announces already.
pub fn install_announcing_filter(program: &[seccompiler::sock_filter]) -> io::Result<OwnedFd> {
    // A caller already announced waits for its answer and is disturbed only by fatal signals: no restart loops.
    const SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV: libc::c_ulong = 1 << 5;
    let flags = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let fd = install_filter_with(program, flags)?;
    // WHY UNSAFE: the kernel hands the descriptor over as a number.
    // SAFETY: the call succeeded with NEW_LISTENER, so it is open and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Installs a filter program for every thread of this process, for good. no_new_privs must be set before. With `logs` the
/// kernel's log tells each call that it refuses.
///
/// # Errors
/// As [`install_filter`]; `ESRCH` when a thread has filters that the calling one has not.
pub fn install_filter_for_all_threads(program: &[seccompiler::sock_filter], logs: bool) -> io::Result<()> {
    let log = if logs { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 };
    match install_filter_with(program, libc::SECCOMP_FILTER_FLAG_TSYNC | log)? {
        0 => Ok(()),
        // The number of that thread.
        _ => Err(io::Error::from_raw_os_error(libc::ESRCH)),
    }
}

fn install_filter_with(program: &[seccompiler::sock_filter], flags: libc::c_ulong) -> io::Result<libc::c_long> {
    #[repr(C)]
    struct Program {
        len: libc::c_ushort,
        filter: *const seccompiler::sock_filter,
    }
    let len = libc::c_ushort::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let fprog = Program { len, filter: program.as_ptr() };
    // WHY UNSAFE: seccompiler installs filters without flags only.
    // SAFETY: `fprog` describes `program`, which outlives the call; sock_filter is the kernel's layout.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const fprog) })
}

/// A system call that a filter has announced, and that waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnouncedCall {
    /// The kernel's name for this one call, by which it is answered.
    pub id: u64,
    /// The table that the number is of: one of the kernel's AUDIT_ARCH constants.
    pub architecture: u32,
    /// The call's number in that table.
    pub number: i64,
    /// The arguments as they stood in the registers.
    pub arguments: [u64; 6],
}

/// The next announced call; none when its caller is gone already.
///
/// # Errors
/// What the ioctl says.
pub fn next_announced_call(listener: BorrowedFd<'_>) -> io::Result<Option<AnnouncedCall>> {
    const SECCOMP_IOCTL_NOTIF_RECV: libc::c_ulong = 0xc050_2100;
    // WHY UNSAFE: a C struct the kernel demands to be zero.
    // SAFETY: all-zero is a valid seccomp_notif.
    let mut call: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // WHY UNSAFE: no crate in use wraps this ioctl.
    // SAFETY: `call` is a complete, zeroed seccomp_notif and outlives the call.
    match check(unsafe { libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) }.into()) {
        Ok(_) => Ok(Some(AnnouncedCall {
            id: call.id,
            architecture: call.data.arch,
            number: call.data.nr.into(),
            arguments: call.data.args,
        })),
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EINTR)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Answers an announced call with `errno`. A caller that is gone is no error.
///
/// # Errors
/// What the ioctl says.
pub fn refuse_call(listener: BorrowedFd<'_>, id: u64, errno: i32) -> io::Result<()> {
    const SECCOMP_IOCTL_NOTIF_SEND: libc::c_ulong = 0xc018_2101;
    let answer = libc::seccomp_notif_resp { id, val: 0, error: -errno, flags: 0 };
    // WHY UNSAFE: no crate in use wraps this ioctl.
    // SAFETY: `answer` is a complete seccomp_notif_resp and outlives the call.
    match check(unsafe { libc::ioctl(listener.as_raw_fd(), SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) }.into()) {
        Ok(_) => Ok(()),
        Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Ends this process at once: no destructors, no exit handlers of the program this is a copy of.
pub fn exit_now(code: i32) -> ! {
    // WHY UNSAFE: `_exit` is an extern function.
    // SAFETY: it takes any number and does not return.
    unsafe { libc::_exit(code) }
}

/// Restores the default action of `signal`.
pub fn default_signal(signal: nix::sys::signal::Signal) {
    use nix::sys::signal::{SigHandler, signal as set};
    // WHY UNSAFE: signal handlers can be arbitrary code.
    // SAFETY: the default action is none of ours.
    // A signal that cannot be set (SIGKILL) is never passed.
    let _previous = unsafe { set(signal, SigHandler::SigDfl) };
}

/// Ignores the signal of this number, or restores its default action.
///
/// # Errors
/// `EINVAL` for a number whose action cannot be set.
pub fn set_action(number: i32, ignored: bool) -> io::Result<()> {
    /// The kernel's own `struct sigaction` on x86_64.
    #[repr(C)]
    struct Action {
        handler: libc::sighandler_t,
        flags: libc::c_ulong,
        restorer: usize,
        mask: u64,
    }
    let handler = if ignored { libc::SIG_IGN } else { libc::SIG_DFL };
    let action = Action { handler, flags: 0, restorer: 0, mask: 0 };
    let none = std::ptr::null_mut::<Action>();
    // WHY UNSAFE: signal handlers can be arbitrary code. Not libc's wrapper, which refuses the signals that it uses itself,
    // and they are inherited like the others.
    // SAFETY: neither action is code of ours; `action` is complete and outlives the call, and its mask's size is passed.
    check(unsafe { libc::syscall(libc::SYS_rt_sigaction, number, &raw const action, none, size_of::<u64>()) }).map(drop)
}

/// Version of the kernel's landlock interface; 0 where it has none or it is switched off.
pub fn landlock_abi() -> i64 {
    const CREATE_RULESET_VERSION: libc::c_ulong = 1;
    // WHY UNSAFE: no safe wrapper asks without making a ruleset.
    // SAFETY: with this flag the call takes no pointer and makes nothing.
    let version = unsafe {
        libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, CREATE_RULESET_VERSION)
    };
    version.max(0)
}

/// Makes the child of `command` the first of a process group of its own, and ends it when the thread that starts it ends:
/// a runner that is killed leaves no program behind.
pub fn own_group_and_die_with_us(command: &mut Command) {
    command.process_group(0);
    let die_with_us = || -> io::Result<()> {
        // WHY UNSAFE: prctl takes any numbers.
        // SAFETY: only an async-signal-safe call between fork and exec, without pointers.
        match unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    // WHY UNSAFE: code between fork and exec must be async-signal-safe.
    // SAFETY: it makes one system call and allocates nothing.
    unsafe { command.pre_exec(die_with_us) };
}
