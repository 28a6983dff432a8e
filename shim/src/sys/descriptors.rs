//! Descriptors by number: taking over those that a process was started with, and leaving a process only those it needs.

use std::{
    ffi::CString,
    fs,
    io::{self, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::{
        signal::{SigSet, Signal},
        socket::{ControlMessageOwned, MsgFlags, recvmsg},
    },
    unistd::execve,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{Child, check, default_signal, exit_now};

/// The first number after standard input, output and error.
const FIRST: RawFd = 3;
/// Numbers below this one are given out by [`keep_only`] and [`Child::exec`].
const LIFTED: RawFd = 10;

/// Bytes of a control message's header.
const CONTROL_HEADER_BYTES: usize = size_of::<usize>() + 2 * size_of::<i32>();

/// Takes ownership of a descriptor that this process was started with, and sets its close-on-exec flag.
///
/// That flag is how such a descriptor is known: execve(2) leaves only those open that are without it, and everything that
/// Rust's library, nix and tokio open has it from the start. A number can therefore be taken only once.
///
/// # Errors
/// `EBADF` when the number is not open, and an error when it was opened by this process.
pub fn inherited_fd(raw: RawFd) -> io::Result<OwnedFd> {
    // WHY UNSAFE: a number becomes a borrow.
    // SAFETY: only asked for its flags, which touches nothing whoever owns it.
    let found = unsafe { BorrowedFd::borrow_raw(raw) };
    if FdFlag::from_bits_retain(fcntl(found, FcntlArg::F_GETFD)?).contains(FdFlag::FD_CLOEXEC) {
        return Err(io::Error::other(format!("descriptor {raw} was opened by this process")));
    }
    fcntl(found, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    // WHY UNSAFE: a number becomes an owner.
    // SAFETY: it was open without close-on-exec, so no value of this process owned it; with the flag it is never taken again.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// Closes every descriptor from `first` on that this process was started with.
///
/// # Errors
/// When /proc/self/fd cannot be read.
pub fn close_inherited(first: RawFd) -> io::Result<()> {
    let numbers: Vec<RawFd> = fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| *number >= first)
        .collect();
    // The descriptor of the listing itself is not inherited, and is closed by now.
    numbers.into_iter().filter_map(|number| inherited_fd(number).ok()).for_each(drop);
    Ok(())
}

/// Leaves this process standard input, output and error as in `standard`, and `kept` numbered from 3 in their order, with
/// close-on-exec. All else is closed.
///
/// # Errors
/// When a number cannot be had, with `kept`; then nothing is closed.
///
/// # Safety
/// No other value that owns or borrows a descriptor may be used or dropped in this process afterwards.
pub unsafe fn keep_only(
    standard: [BorrowedFd<'_>; 3],
    kept: Vec<OwnedFd>,
) -> Result<Vec<OwnedFd>, (Vec<OwnedFd>, io::Error)> {
    if kept.len() > (LIFTED - FIRST) as usize {
        // A number of theirs would be that of one that is still to be put in its place.
        return Err((kept, io::Error::other("more descriptors are to be kept than there are numbers for")));
    }
    let lift = || {
        let standard = standard.iter().map(|fd| lift(*fd)).collect::<io::Result<Vec<_>>>()?;
        let lifted = kept.iter().map(|fd| lift(fd.as_fd())).collect::<io::Result<Vec<_>>>()?;
        Ok((standard, lifted))
    };
    let (standard, lifted) = match lift() {
        Ok(lifted) => lifted,
        Err(error) => return Err((kept, error)),
    };
    let numbers = FIRST..FIRST + lifted.len() as RawFd;
    let all = (0..).zip(&standard).chain(numbers.clone().zip(&lifted));
    for (number, fd) in all {
        let flags = if number < FIRST { 0 } else { libc::O_CLOEXEC };
        // WHY UNSAFE: closes whatever has this number.
        // SAFETY: its owner is in `standard`, `kept` or of those that the caller vouches for.
        if let Err(error) = check(unsafe { libc::dup3(fd.as_raw_fd(), number, flags) }.into()) {
            std::mem::forget(kept);
            return Err((lifted, error));
        }
    }
    // WHY UNSAFE: closes descriptors that Rust values own.
    // SAFETY: as above; `kept`, `standard` and `lifted` are forgotten here.
    let closed = check(unsafe { libc::syscall(libc::SYS_close_range, numbers.end as u32, u32::MAX, 0) });
    std::mem::forget((kept, standard));
    match closed {
        Ok(_) => {
            std::mem::forget(lifted);
            // WHY UNSAFE: numbers become owners.
            // SAFETY: dup3 has opened each, and nobody else knows it.
            Ok(numbers.map(|number| unsafe { OwnedFd::from_raw_fd(number) }).collect())
        }
        Err(error) => Err((lifted, error)),
    }
}

impl Child {
    /// Becomes the program `arguments[0]` with `places` under the numbers named, which are above 2 or standard ones, and with
    /// no other descriptor above standard error. SIGPIPE has its default action, and no signal is blocked. When that cannot be
    /// done, says so on standard error and ends with `status`.
    pub fn exec(
        self,
        places: &[(BorrowedFd<'_>, RawFd)],
        arguments: &[CString],
        environment: &[CString],
        status: i32,
    ) -> ! {
        let program = arguments.first().map(|program| program.to_string_lossy()).unwrap_or_default();
        let become_it = || -> io::Result<()> {
            let lifted = places.iter().map(|(fd, number)| Ok((lift(*fd)?, *number))).collect::<io::Result<Vec<_>>>()?;
            for (fd, number) in &lifted {
                // WHY UNSAFE: closes whatever has this number.
                // SAFETY: this process has one thread, which does not leave this function: no owner is used or dropped.
                check(unsafe { libc::dup2(fd.as_raw_fd(), *number) }.into())?;
            }
            let first_closed = lifted.iter().map(|(_, number)| number + 1).fold(FIRST, RawFd::max);
            std::mem::forget(lifted);
            // WHY UNSAFE: closes descriptors that Rust values own.
            // SAFETY: as above.
            check(unsafe { libc::syscall(libc::SYS_close_range, first_closed as u32, u32::MAX, 0) })?;
            default_signal(Signal::SIGPIPE);
            SigSet::empty().thread_set_mask()?;
            let path = arguments.first().ok_or_else(|| io::Error::other("the command is empty"))?;
            match execve(path, arguments, environment)? {}
        };
        if let Err(error) = become_it() {
            eprintln!("execve {program}: {error}");
        }
        exit_now(status)
    }
}

/// A copy of `fd` out of the way of the numbers that are given out, with close-on-exec.
fn lift(fd: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(LIFTED))?;
    // WHY UNSAFE: the kernel hands the descriptor over as a number.
    // SAFETY: F_DUPFD_CLOEXEC succeeded, so it is open and ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// What one recvmsg gave.
#[derive(Debug)]
pub struct Packet {
    /// Length of the data.
    pub bytes: usize,
    /// What the kernel says of it.
    pub flags: MsgFlags,
    /// The descriptors that came with it.
    pub descriptors: Vec<OwnedFd>,
}

/// recvmsg of one packet into `buffer`, with descriptors when there is `space` for them. Every one that arrives has an owner.
///
/// # Errors
/// What recvmsg says.
pub fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    space: Option<&mut [u8]>,
    flags: MsgFlags,
) -> nix::Result<Packet> {
    let mut slices = [IoSliceMut::new(buffer)];
    let mut space = space;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut slices, space.as_deref_mut(), flags)?;
    let (bytes, flags) = (message.bytes, message.flags);
    let mut descriptors = Vec::new();
    if flags.contains(MsgFlags::MSG_CTRUNC) {
        // There was no room for any; or this process may have no more of them. Then some may be here all the same, which are of
        // no use without the others.
        drop(space.as_deref().map(some_arrived));
    } else {
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // WHY UNSAFE: nix hands received descriptors over as numbers.
                // SAFETY: the kernel has installed them for this message, which is looked at once.
                descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
            }
        }
    }
    Ok(Packet { bytes, flags, descriptors })
}

/// The descriptors that are there of a message whose others could not be taken. The kernel says how many it has put into
/// `control`, which was zeros, and puts in nothing when there was none.
fn some_arrived(control: &[u8]) -> Vec<OwnedFd> {
    // WHY UNSAFE: the kernel hands them over as numbers.
    // SAFETY: it has installed them for this message, whose control data nobody else looks at.
    arrived(control).into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }).collect()
}

fn arrived(control: &[u8]) -> Vec<RawFd> {
    let Some((length, rest)) = control.split_first_chunk() else { return Vec::new() };
    let Some((level, rest)) = rest.split_first_chunk() else { return Vec::new() };
    let Some((kind, descriptors)) = rest.split_first_chunk() else { return Vec::new() };
    if (i32::from_ne_bytes(*level), i32::from_ne_bytes(*kind)) != (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
        return Vec::new();
    }
    let bytes = usize::from_ne_bytes(*length).saturating_sub(CONTROL_HEADER_BYTES).min(descriptors.len());
    let (numbers, _) = descriptors[..bytes].as_chunks();
    numbers.iter().map(|number| RawFd::from_ne_bytes(*number)).collect()
}

/// Makes tokio watch a descriptor for input until it is dropped. Must be called inside a tokio runtime.
///
/// # Errors
/// When it cannot be watched.
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // WHY UNSAFE: tokio must know that the number stays this descriptor's while it is registered.
    // SAFETY: the owner is moved in, and closed after tokio has let go of it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

/// As [`watch`], for a descriptor that is never closed.
///
/// # Errors
/// When it cannot be watched.
pub fn watch_lasting(fd: BorrowedFd<'static>) -> io::Result<AsyncFd<BorrowedFd<'static>>> {
    // WHY UNSAFE: as in `watch`.
    // SAFETY: the borrow says that it stays open for ever.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd as _;

    use nix::{fcntl::OFlag, unistd::pipe2};

    use super::*;
    use crate::sys::{Fork, fork};

    #[test]
    fn only_what_was_inherited_can_be_taken_and_only_once() {
        let (ours, inherited) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let refused = inherited_fd(ours.as_raw_fd()).unwrap_err().to_string();
        assert!(refused.contains("opened by this process"), "{refused}");
        fcntl(&inherited, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        let number = inherited.into_raw_fd();
        let taken = inherited_fd(number).unwrap();
        assert!(inherited_fd(number).is_err(), "taken twice");
        drop(taken);
        assert_eq!(inherited_fd(number).unwrap_err().raw_os_error(), Some(libc::EBADF));
    }

    /// What `check` says in a copy of this process, in one thread.
    fn in_child(check: impl FnOnce() -> bool) {
        match fork().unwrap() {
            Fork::Child(_) => exit_now(i32::from(!check())),
            Fork::Parent(pid) => {
                let ended = nix::sys::wait::waitpid(pid, None);
                assert!(matches!(ended, Ok(nix::sys::wait::WaitStatus::Exited(_, 0))), "{ended:?}");
            }
        }
    }

    fn open_numbers() -> Vec<RawFd> {
        let is_open = |number: &RawFd| {
            // SAFETY: only asked for its flags.
            fcntl(unsafe { BorrowedFd::borrow_raw(*number) }, FcntlArg::F_GETFD).is_ok()
        };
        (0..200).filter(is_open).collect()
    }

    #[test]
    fn process_keeps_what_is_named_under_the_numbers_named_and_nothing_else() {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let null = OwnedFd::from(fs::File::open("/dev/null").unwrap());
        in_child(|| {
            let standard = [null.as_fd(); 3];
            // SAFETY: the copies of the test's owners are never dropped: this process ends at once.
            let Ok(kept) = (unsafe { keep_only(standard, vec![read, write]) }) else { return false };
            let numbers: Vec<RawFd> = kept.iter().map(AsRawFd::as_raw_fd).collect();
            let flags = kept.iter().map(|fd| fcntl(fd, FcntlArg::F_GETFD));
            numbers == [3, 4]
                && open_numbers() == [0, 1, 2, 3, 4]
                && flags.into_iter().all(|flags| flags == Ok(libc::FD_CLOEXEC))
                && nix::unistd::write(&kept[1], b"x") == Ok(1)
                && nix::unistd::read(&kept[0], &mut [0; 2]) == Ok(1)
        });
    }

    #[test]
    fn program_has_its_places_and_nothing_else() {
        let (read, write) = pipe2(OFlag::O_CLOEXEC).unwrap();
        let text = |text: &str| CString::new(text).unwrap();
        // The shell's own list, by its own names; the descriptor of the listing is the next one.
        let arguments = [text("/bin/sh"), text("-c"), text("echo /proc/self/fd/* >&3")];
        match fork().unwrap() {
            Fork::Child(child) => child.exec(&[(write.as_fd(), 3)], &arguments, &[], 127),
            Fork::Parent(pid) => {
                drop(write);
                let mut said = String::new();
                io::Read::read_to_string(&mut fs::File::from(read), &mut said).unwrap();
                let names: Vec<&str> = said.split_whitespace().collect();
                let expected = ["/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "/proc/self/fd/3"];
                assert!(names.starts_with(&expected) && names.len() <= 5, "{said}");
                nix::sys::wait::waitpid(pid, None).unwrap();
            }
        }
    }

    #[test]
    fn descriptors_that_came_before_there_was_no_room_are_known() {
        let control = |length: usize, kind: i32| {
            let head = [&length.to_ne_bytes()[..], &libc::SOL_SOCKET.to_ne_bytes(), &kind.to_ne_bytes()].concat();
            [head, [7_i32, 9, 0, 0].iter().flat_map(|number| number.to_ne_bytes()).collect()].concat()
        };
        assert_eq!(arrived(&control(CONTROL_HEADER_BYTES + 8, libc::SCM_RIGHTS)), [7, 9]);
        assert_eq!(arrived(&control(CONTROL_HEADER_BYTES, libc::SCM_RIGHTS)), [0; 0]);
        assert_eq!(arrived(&control(CONTROL_HEADER_BYTES + 8, libc::SCM_CREDENTIALS)), [0; 0]);
        assert_eq!(arrived(&[0; 64]), [0; 0], "nothing was put in");
        assert_eq!(arrived(&[]), [0; 0]);
        assert_eq!(arrived(&control(usize::MAX, libc::SCM_RIGHTS)).len(), 4, "never more than there is");
    }
}
