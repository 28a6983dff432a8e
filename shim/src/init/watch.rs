//! Init's life after its confinement: reap, answer refused system calls, end when anybody it depends on has ended.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signalfd::SignalFd,
        statvfs::statvfs,
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};
use sublet_proto::link::{
    init::ToInit,
    nursery::{InitReport, TmpSpace},
};

use super::{launcher::FromLauncher, picture::Picture, token::TokenPlace};
use crate::{link, seccomp, sys};

/// Different refused calls reported for the start of a function and for each of its calls; further ones are refused in
/// silence.
const REFUSED_REPORTS_MAX: usize = 16;

/// What init listens to.
#[derive(Debug)]
pub struct Ports {
    /// To the supervisor; its end is our end.
    pub control: OwnedFd,
    /// From the launcher, until it has become the function.
    pub launcher: OwnedFd,
    /// SIGCHLD as a descriptor.
    pub children: SignalFd,
    /// Where the token is put, in sandboxes of functions with one.
    pub token: Option<TokenPlace>,
    /// The files that show the worker's limits.
    pub picture: Picture,
}

/// Watches over the launcher `pid` until something ends. Never returns: the end of init ends the sandbox.
pub fn run(ports: &Ports, pid: Pid, kill_on_refused: bool) -> ! {
    let Ports { control, launcher, children, .. } = ports;
    let mut listener: Option<OwnedFd> = None;
    let mut launcher_open = true;
    let mut reported: Vec<String> = Vec::new();
    loop {
        let mut watched =
            vec![PollFd::new(control.as_fd(), PollFlags::POLLIN), PollFd::new(children.as_fd(), PollFlags::POLLIN)];
        if launcher_open {
            watched.push(PollFd::new(launcher.as_fd(), PollFlags::POLLIN));
        }
        if let Some(listener) = &listener {
            watched.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        }
        // EINTR is a reason to look again, as is anything else.
        let _polled: nix::Result<i32> = poll(&mut watched, PollTimeout::NONE);
        let ready: Vec<PollFlags> = watched.iter().map(|fd| fd.revents().unwrap_or(PollFlags::empty())).collect();
        if ready[0].intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            // The supervisor is gone, or has let go of this worker.
            sys::exit_now(0);
        }
        if ready[0].contains(PollFlags::POLLIN) {
            obey(ports, &mut reported);
        }
        let mut at = 2;
        if launcher_open {
            if !ready[at].is_empty() {
                match link::receive_with_descriptors::<FromLauncher>(launcher.as_fd(), true) {
                    Ok(link::Received::Message(FromLauncher::Listener, mut descriptors)) => {
                        listener = descriptors.pop()
                    }
                    Ok(link::Received::Message(FromLauncher::StepFailed { id, step, error, is_shortage }, _)) => {
                        report(control.as_fd(), &InitReport::StepFailed { id, step, error, is_shortage });
                        sys::exit_now(1);
                    }
                    Ok(link::Received::Nothing) => {}
                    Ok(link::Received::Closed) | Err(_) => launcher_open = false,
                }
            }
            at += 1;
        }
        if let Some(fd) = &listener
            && at < ready.len()
            && !ready[at].is_empty()
        {
            if ready[at].contains(PollFlags::POLLIN) {
                // What the supervisor has said before the call that makes this refusal, however late poll looked at it.
                obey(ports, &mut reported);
                answer(fd.as_fd(), control.as_fd(), &mut reported, kill_on_refused);
            } else {
                // Nobody under the filter is alive.
                listener = None;
            }
        }
        // Emptied before the children are looked at, so that one that ends in between is announced again.
        while matches!(children.read_signal(), Ok(Some(_))) {}
        reap(control.as_fd(), pid);
    }
}

/// Does what the supervisor has asked so far.
fn obey(Ports { control, token, picture, .. }: &Ports, reported: &mut Vec<String>) {
    let control = control.as_fd();
    loop {
        match (link::receive::<ToInit>(control, true), token) {
            (Ok(link::Received::Message(ToInit::CallBegins, _)), _) => reported.clear(),
            (Ok(link::Received::Message(ToInit::Token { number, token }, _)), Some(place)) => {
                report(control, &place.obey(number, &token));
            }
            (Ok(link::Received::Message(ToInit::Limits { number, limits }, _)), _) => {
                // A file that shows an older limit is no reason to end the worker, and nobody could do better.
                picture.show(&limits).ok();
                report(control, &InitReport::LimitsShown { number });
            }
            (Ok(link::Received::Nothing), _) => return,
            // Only the supervisor is there, and it says nothing else.
            (Ok(link::Received::Message(ToInit::Token { .. }, _)), None)
            | (Ok(link::Received::Closed), _)
            | (Err(_), _) => sys::exit_now(1),
        }
    }
}

fn answer(listener: BorrowedFd<'_>, control: BorrowedFd<'_>, reported: &mut Vec<String>, kill: bool) {
    let Ok(Some(call)) = sys::next_announced_call(listener) else { return };
    let name = seccomp::name_of_announced(&call);
    if !reported.contains(&name) && reported.len() < REFUSED_REPORTS_MAX {
        reported.push(name.clone());
        report(control, &InitReport::SyscallRefused { number: call.number, name });
    }
    if kill {
        await_kill(control);
    }
    if sys::refuse_call(listener, call.id, seccomp::errno_of_announced(&call)).is_err() {
        // Without an answer the function would hang until its deadline for no stated reason.
        sys::exit_now(1);
    }
}

/// Waits for the supervisor, which has been told, to kill the group. The refused call has no answer and waits meanwhile. Init
/// must not end first: its end closes the listener, and before the kernel has killed the others the call could return ENOSYS
/// and the function go on.
fn await_kill(control: BorrowedFd<'_>) -> ! {
    loop {
        let mut watched = [PollFd::new(control, PollFlags::empty())];
        let polled = poll(&mut watched, PollTimeout::NONE);
        if polled.is_ok() && watched[0].any().unwrap_or(true) {
            // Nobody is left who would.
            sys::exit_now(0);
        }
    }
}

fn reap(control: BorrowedFd<'_>, launcher: Pid) {
    loop {
        let (ended, code, signal) = match waitpid(None, Some(WaitPidFlag::WNOHANG | WaitPidFlag::__WALL)) {
            Ok(WaitStatus::Exited(pid, code)) => (pid, Some(code), None),
            Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, None, Some(signal as i32)),
            Ok(WaitStatus::StillAlive) | Err(_) => return,
            Ok(_) => continue,
        };
        if ended == launcher {
            let tmp = statvfs("/tmp").ok().map(|tmp| TmpSpace {
                bytes_free: tmp.blocks_available() * tmp.fragment_size(),
                inodes_free: tmp.files_free(),
            });
            report(control, &InitReport::FunctionEnded { code, signal, tmp });
            sys::exit_now(0);
        }
    }
}

fn report(control: BorrowedFd<'_>, report: &InitReport) {
    // A report that cannot be sent is no reason to live on or to die: the supervisor judges by what it sees.
    drop(link::send(control, report, &[]));
}
