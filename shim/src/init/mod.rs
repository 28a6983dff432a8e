//! Pid 1 of a sandbox: applies the plan from inside, then watches over the function without any right of its own.
//!
//! It runs as a copy of the nursery (clone3 without exec), so everything it needs is in memory already. It ends, and
//! with it every process of the sandbox, when the function ends, when the supervisor or the nursery is gone, or when a
//! step fails; the step is reported by the words of the plan.

mod channel;
mod child;
mod confine;
mod exec;
mod lambda;
mod launcher;
mod log_frames;
mod relay;
mod root;
mod token;
mod watch;

use std::{
    fs, io,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use nix::{
    mount::{MsFlags, mount},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        socket::{AddressFamily, SockFlag, SockType, socketpair},
        stat::{Mode, umask},
    },
    unistd::{sethostname, setsid},
};
use sublet_proto::link::{
    nursery::InitReport,
    sandbox::{OnRefused, SandboxSpec},
};

use self::{root::NewRoot, token::TokenPlace};
use crate::{
    link,
    nursery::skeleton::Skeleton,
    plan::{Actor, HOST_NAME, INIT_UID, OOM_SCORE_ADJ, Step},
    seccomp::{Filters, policy::TOKEN_DIR_FD},
    sys::{self, Fork},
};

/// Everything init and the launcher are born with.
#[derive(Debug)]
pub struct Birth<'a> {
    /// What to be.
    pub spec: &'a SandboxSpec,
    /// How to become it.
    pub steps: &'a [Step],
    /// Compiled filters.
    pub filters: &'a Filters,
    /// The prepared roots.
    pub skeleton: &'a Skeleton,
    /// `tasks` of the v1 groups to join, opened for writing by the nursery.
    pub v1_tasks: Vec<OwnedFd>,
    /// Readable once the nursery has written the id maps; none when that has been waited for.
    pub gate: Option<OwnedFd>,
    /// To the supervisor, init's reports.
    pub control: OwnedFd,
    /// To the supervisor, the function's frames.
    pub channel: OwnedFd,
    /// The function's stdout and stderr.
    pub log: OwnedFd,
    /// /dev/null.
    pub null: OwnedFd,
    /// The token's place, writable, once it is mounted.
    pub token: Option<OwnedFd>,
}

/// Runs init to its end.
pub fn run(mut birth: Birth<'_>) -> ! {
    let mut new_root = None;
    // For whoever looks at the process list; a name that cannot be set is no reason to fail.
    prctl::set_name(c"sublet-init").ok();
    for step in birth.steps {
        if step.actor() != Actor::Init {
            continue;
        }
        match step {
            Step::ForkLauncher => {
                let (ours, theirs) =
                    match socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC) {
                        Ok(pair) => pair,
                        Err(error) => fail(&birth.control, step, &error.into()),
                    };
                match sys::fork() {
                    Ok(Fork::Child) => launcher::run(&birth, theirs),
                    Ok(Fork::Parent(pid)) => {
                        drop(theirs);
                        // What only the function may hold: a second copy would keep the channel open after its end.
                        let (control, null) = (birth.control, birth.null);
                        let confine = Step::ConfineInit { token: birth.token.is_some() };
                        match confine_init(birth.filters, &control, &ours, &null, birth.token) {
                            Ok(ports) => watch::run(&ports, pid, birth.spec.on_refused == OnRefused::Kill),
                            Err(error) => fail(&control, &confine, &error),
                        }
                    }
                    Err(error) => fail(&birth.control, step, &error),
                }
            }
            other => {
                if let Err(error) = apply(&mut birth, &mut new_root, other) {
                    fail(&birth.control, other, &error);
                }
            }
        }
    }
    fail(&birth.control, &Step::ForkLauncher, &io::Error::other("the plan has no such step"))
}

/// Reports the step and ends the sandbox.
fn fail(control: &OwnedFd, step: &Step, error: &io::Error) -> ! {
    let report = InitReport::StepFailed { step: step.to_string(), error: error.to_string() };
    // When even this cannot be sent, the supervisor sees the end of the process and says that.
    drop(link::send(control.as_fd(), &report, &[]));
    sys::exit_now(1)
}

fn apply(birth: &mut Birth<'_>, new_root: &mut Option<NewRoot>, step: &Step) -> io::Result<()> {
    let root = |new_root: &mut Option<NewRoot>| -> io::Result<NewRoot> { new_root.take().ok_or_else(no_root) };
    match step {
        Step::JoinV1Groups => {
            // "0" into `tasks` moves the writer itself, which needs no lock on all forks of the host; by pid it would.
            for tasks in birth.v1_tasks.drain(..) {
                nix::unistd::write(&tasks, b"0")?;
            }
            await_gate(birth)
        }
        Step::UnshareCgroupAndTime { time } => {
            await_gate(birth)?;
            let flags = libc::CLONE_NEWCGROUP | if *time { sys::CLONE_NEWTIME } else { 0 };
            sys::unshare(flags)
        }
        Step::PrivatePropagation => {
            let none = None::<&str>;
            Ok(mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?)
        }
        Step::MountRoot { layout } => {
            *new_root = Some(NewRoot::mount(birth.skeleton, layout, birth.spec.token)?);
            Ok(())
        }
        Step::MountUsr => with(new_root, |root| root.bind(Path::new("/usr"), "usr")),
        Step::MountDev => with(new_root, |root| root.bind_dev(birth.skeleton)),
        Step::MountFunction { dir } => with(new_root, |root| root.bind(Path::new(dir), "function")),
        Step::MountProc => with(new_root, NewRoot::mount_proc),
        Step::MountTmp { bytes, inodes } => with(new_root, |root| root.mount_tmp(*bytes, *inodes)),
        Step::MountToken => {
            birth.token = Some(new_root.as_ref().ok_or_else(no_root)?.mount_token()?);
            Ok(())
        }
        // Through the old /proc: the new one shows processes only.
        Step::ForbidUserNamespaces => fs::write("/proc/sys/user/max_user_namespaces", "0"),
        Step::RaiseOomScore => fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ.to_string()),
        Step::PivotRoot => root(new_root)?.enter(),
        Step::SetHostName => Ok(sethostname(HOST_NAME)?),
        Step::LoopbackUp => sys::loopback_up(),
        Step::NewSession => {
            setsid()?;
            sys::join_new_session_keyring()
        }
        Step::Birth { .. }
        | Step::MapIds { .. }
        | Step::ForkLauncher
        | Step::ConfineInit { .. }
        | Step::PlaceDescriptors
        | Step::SetRlimits { .. }
        | Step::SwitchUid
        | Step::DropCapabilities
        | Step::NoNewPrivs
        | Step::Landlock
        | Step::Seccomp { .. }
        | Step::AwaitInit
        | Step::AwaitStart
        | Step::Run { .. } => Ok(()),
    }
}

fn with(new_root: &Option<NewRoot>, run: impl FnOnce(&NewRoot) -> io::Result<()>) -> io::Result<()> {
    new_root.as_ref().map_or_else(|| Err(no_root()), run)
}

fn no_root() -> io::Error {
    io::Error::other("no root is mounted yet")
}

/// Waits until the nursery has written the id maps, once. Its end of the gate closing means that it could not.
fn await_gate(birth: &mut Birth<'_>) -> io::Result<()> {
    let Some(gate) = birth.gate.take() else { return Ok(()) };
    let mut byte = [0];
    match nix::unistd::read(&gate, &mut byte)? {
        1 => Ok(()),
        _ => Err(io::Error::other("the nursery gave up")),
    }
}

/// Init's own end of rights. Returns what it listens to from now on; every other descriptor is closed.
fn confine_init(
    filters: &Filters,
    control: &OwnedFd,
    launcher: &OwnedFd,
    null: &OwnedFd,
    token: Option<OwnedFd>,
) -> io::Result<watch::Ports> {
    let (control, launcher, null) =
        (sys::lift_fd(control.as_fd())?, sys::lift_fd(launcher.as_fd())?, sys::lift_fd(null.as_fd())?);
    for standard in 0..=2 {
        sys::place_fd(null.as_fd(), standard)?;
    }
    sys::place_fd(control.as_fd(), 3)?;
    sys::place_fd(launcher.as_fd(), 4)?;
    let mut next = 5;
    if let Some(token) = token {
        let token = sys::lift_fd(token.as_fd())?;
        sys::place_fd(token.as_fd(), TOKEN_DIR_FD)?;
        std::mem::forget(token);
        next = TOKEN_DIR_FD + 1;
    }
    // Given up to close_from, which closes them.
    std::mem::forget((control, launcher, null));
    sys::close_from(next)?;
    let (control, launcher) = (sys::inherited_fd(3)?, sys::inherited_fd(4)?);
    let token = if next > TOKEN_DIR_FD { Some(sys::inherited_fd(TOKEN_DIR_FD)?) } else { None };
    // What it writes is for another uid to read, whatever the daemon was started with.
    umask(Mode::from_bits_truncate(0o022));
    let mut children = SigSet::empty();
    children.add(Signal::SIGCHLD);
    children.thread_block()?;
    let children = SignalFd::with_flags(&children, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    confine::switch_uid(INIT_UID)?;
    confine::drop_capabilities()?;
    // After the switch: changing ids clears it.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()?;
    sys::install_filter(if token.is_some() { &filters.init_with_token } else { &filters.init }, false)?;
    link::send(launcher.as_fd(), &launcher::Confined, &[])?;
    Ok(watch::Ports { control, launcher, children, token: token.map(TokenPlace::new) })
}
