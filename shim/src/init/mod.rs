//! Pid 1 of a sandbox: applies the plan from inside, then watches over the function without any right of its own.
//!
//! It runs as a copy of the nursery (clone3 without exec), so everything it needs is in memory already. It ends, and
//! with it every process of the sandbox, when the function ends, when the supervisor or the nursery is gone, or when a
//! step fails; the step is reported by the words of the plan.

pub(crate) mod channel;
mod child;
mod clocks;
pub(crate) mod confine;
mod exec;
mod lambda;
mod launcher;
pub(crate) mod log_frames;
mod picture;
mod prove;
mod relay;
mod root;
mod sys;
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
        signal::Signal,
        signalfd::SignalFd,
        socket::{AddressFamily, SockFlag, SockType, socketpair},
        stat::{Mode, umask},
    },
    unistd::{Pid, sethostname, setsid},
};
use sublet_proto::link::{
    nursery::InitReport,
    sandbox::{OnRefused, SandboxSpec},
};

use self::{
    picture::Picture,
    root::NewRoot,
    sys::{OfInit, keep_for_init},
    token::TokenPlace,
};
use crate::{
    counters, link,
    plan::{HOST_NAME, INIT_UID, InitStep, OOM_SCORE_ADJ, Plan},
    seccomp::Filters,
    shortage::is_shortage,
    skeleton::Skeleton,
    sys::Fork,
};

pub use self::root::OwnGroup;

/// Everything init and the launcher are born with.
#[derive(Debug)]
pub struct Birth<'a> {
    /// What to be.
    pub spec: &'a SandboxSpec,
    /// How to become it.
    pub plan: &'a Plan,
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
    /// The host's /dev/null; the worker's own once its /dev is mounted.
    pub null: OwnedFd,
    /// /dev of this worker, as a detached mount.
    pub dev: OwnedFd,
    /// The token's place, writable, once it is mounted.
    pub token: Option<OwnedFd>,
    /// The worker's groups that it may see.
    pub groups: Vec<OwnGroup>,
    /// The files that show its limits, once they are made.
    pub picture: Option<Picture>,
}

/// Init while it applies the plan.
struct Init<'a> {
    birth: Birth<'a>,
    new_root: Option<NewRoot>,
}

/// Runs init to its end.
pub fn run(birth: Birth<'_>) -> ! {
    // For whoever looks at the process list; a name that cannot be set is no reason to fail.
    prctl::set_name(c"sublet-init").ok();
    let kill_on_refused = birth.spec.on_refused == OnRefused::Kill;
    let steps: Vec<&InitStep> = birth.plan.of_init().collect();
    let mut init = Init { birth, new_root: None };
    let [before @ .., fork @ InitStep::ForkLauncher, confine @ InitStep::ConfineInit { token }] = steps.as_slice()
    else {
        let lacking = InitStep::ConfineInit { token: init.birth.spec.token };
        fail(&init.birth.control, &lacking, &io::Error::other("the plan does not end with it"));
    };
    for step in before {
        if let Err(error) = init.apply(step) {
            fail(&init.birth.control, step, &error);
        }
    }
    let birth = init.birth;
    let (pid, launcher) = match fork_launcher() {
        Ok((Fork::Child(_), socket)) => launcher::run(birth, socket),
        Ok((Fork::Parent(pid), socket)) => (pid, socket),
        Err(error) => fail(&birth.control, fork, &error),
    };
    match confine_init(birth, launcher, *token) {
        Ok(ports) => watch::run(&ports, pid, kill_on_refused),
        Err((control, error)) => fail(&control, confine, &error),
    }
}

/// The launcher, with the socket of each side to the other.
fn fork_launcher() -> io::Result<(Fork<Pid>, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    Ok(match crate::sys::fork()? {
        child @ Fork::Child(_) => (child, theirs),
        parent @ Fork::Parent(_) => (parent, ours),
    })
}

/// Init's own end of rights. Every descriptor but those it listens to is closed: among them the channel, which only the
/// function may hold, since a second copy would keep it open after the function's end.
fn confine_init(birth: Birth<'_>, launcher: OwnedFd, token: bool) -> Result<watch::Ports, (OwnedFd, io::Error)> {
    let filters = birth.filters;
    if birth.token.is_some() != token {
        return Err((birth.control, io::Error::other("the place for a token is not as the plan has it")));
    }
    if birth.picture.is_none() {
        return Err((birth.control, io::Error::other("the files that show the limits have not been made")));
    }
    let kept = keep_for_init(birth, launcher)?;
    match give_up_rights(filters, &kept) {
        Ok(children) => {
            let OfInit { control, launcher, token, picture } = kept;
            Ok(watch::Ports { control, launcher, children, token: token.map(TokenPlace::new), picture })
        }
        Err(error) => Err((kept.control, error)),
    }
}

/// Returns the signals of children, as a descriptor.
fn give_up_rights(filters: &Filters, kept: &OfInit) -> io::Result<SignalFd> {
    // What it writes is for another uid to read, whatever the daemon was started with.
    umask(Mode::from_bits_truncate(0o022));
    let children = child::announced_ends()?;
    confine::switch_uid(INIT_UID)?;
    confine::drop_capabilities()?;
    // After the switch: changing ids clears it.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()?;
    crate::sys::install_filter(if kept.token.is_some() { &filters.init_with_token } else { &filters.init })?;
    link::send(kept.launcher.as_fd(), &launcher::Confined, &[])?;
    Ok(children)
}

/// Reports the step and ends the sandbox.
fn fail(control: &OwnedFd, step: &InitStep, error: &io::Error) -> ! {
    let is_shortage = is_shortage(error);
    let report =
        InitReport::StepFailed { id: step.id(), step: step.to_string(), error: error.to_string(), is_shortage };
    // When even this cannot be sent, the supervisor sees the end of the process and says that.
    drop(link::send(control.as_fd(), &report, &[]));
    crate::sys::exit_now(1)
}

impl Init<'_> {
    fn apply(&mut self, step: &InitStep) -> io::Result<()> {
        let Self { birth, new_root, .. } = self;
        match step {
            InitStep::JoinV1Groups => {
                // "0" into `tasks` moves the writer itself, which needs no lock on all forks of the host; by pid it would.
                for tasks in birth.v1_tasks.drain(..) {
                    nix::unistd::write(&tasks, b"0")?;
                }
                Ok(())
            }
            InitStep::AwaitMaps => {
                // The files of an undumpable process in /proc belong to root, as whom init still opens files, and not to its
                // effective uid. The change of uid has done this already, but where fs.suid_dumpable says otherwise.
                prctl::set_dumpable(false)?;
                await_gate(birth)
            }
            InitStep::UnshareCgroupAndTime { time } => {
                crate::sys::unshare(libc::CLONE_NEWCGROUP | if *time { crate::sys::CLONE_NEWTIME } else { 0 })
            }
            InitStep::SetClocks => clocks::set_random_age(),
            InitStep::PrivatePropagation => {
                let none = None::<&str>;
                Ok(mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?)
            }
            InitStep::MountRoot { layout } => {
                *new_root = Some(NewRoot::mount(birth.skeleton, layout, birth.spec.token)?);
                Ok(())
            }
            InitStep::MountUsr => with(new_root, |root| root.bind_usr(birth.skeleton)),
            InitStep::MountDev => {
                // From here on its own: an open file has flags, an owner and locks, which all who share it see.
                birth.null = new_root.as_ref().ok_or_else(no_root)?.attach_dev(birth.dev.as_fd())?;
                Ok(())
            }
            InitStep::MountFunction { dir } => {
                let identity = birth.spec.function_identity;
                with(new_root, |root| root.bind_function(birth.skeleton, Path::new(dir), identity))
            }
            InitStep::MountTmp { bytes, inodes } => with(new_root, |root| root.mount_tmp(*bytes, *inodes)),
            InitStep::MountToken => {
                birth.token = Some(new_root.as_ref().ok_or_else(no_root)?.mount_token()?);
                Ok(())
            }
            // Through the old /proc: the new one shows processes only.
            InitStep::LimitCounters => counters::limit(Path::new("/proc/sys/user")),
            InitStep::RaiseOomScore => fs::write("/proc/self/oom_score_adj", OOM_SCORE_ADJ.to_string()),
            InitStep::MountProcAndSys { shown } => {
                let root = new_root.as_ref().ok_or_else(no_root)?;
                birth.picture = Some(root.mount_proc_and_sys(shown, &birth.groups)?);
                Ok(())
            }
            InitStep::PivotRoot => new_root.take().ok_or_else(no_root)?.enter(),
            InitStep::SetHostName => Ok(sethostname(HOST_NAME)?),
            InitStep::LoopbackUp => crate::sys::loopback_up(),
            InitStep::NewSession => {
                setsid()?;
                crate::sys::join_new_session_keyring()
            }
            InitStep::ForkLauncher | InitStep::ConfineInit { .. } => {
                Err(io::Error::other("this step is not the last but one, or the last, of the plan"))
            }
        }
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
