//! The launcher: a copy of init that confines itself completely, says so, and only when the supervisor has looked at it
//! from outside becomes the function (`stream`) or serves it (`exec`, `lambda`).

use std::{
    ffi::{CString, OsStr},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::{
    fcntl::{FcntlArg, FdFlag, fcntl},
    sys::{
        prctl,
        signal::Signal,
        stat::{Mode, umask},
    },
    unistd::{AccessFlags, access, chdir, dup2_stderr, execve},
};
use serde::{Deserialize, Serialize};
use sublet_proto::link::{
    frame::{HOST_SHORTAGE, Header, Kind},
    sandbox::{Protocol, SandboxSpec},
    step::StepId,
};

use super::{
    Birth,
    channel::Channel,
    child::own_log,
    confine, exec, lambda, prove, relay,
    sys::{OfLauncher, keep_for_launcher},
};
use crate::{
    link,
    plan::{FUNCTION_UID, LauncherStep},
    program,
    seccomp::Filters,
    shortage::is_shortage,
    signals,
    sys::{self, Speculation},
};

/// Largest START payload in bytes: the environment.
const START_LIMIT: u32 = 64 * 1024;

/// Launcher to init.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromLauncher {
    /// The descriptor attached announces refused system calls.
    Listener,
    /// A step failed.
    StepFailed {
        /// Its name.
        id: StepId,
        /// As the plan prints it.
        step: String,
        /// Why.
        error: String,
        /// Whether the host lacks what it takes.
        is_shortage: bool,
    },
}

/// Init to launcher: it has no right left.
#[derive(Debug, Serialize, Deserialize)]
pub struct Confined;

/// The launcher while it applies the plan.
struct Launcher<'a> {
    spec: &'a SandboxSpec,
    filters: &'a Filters,
    /// What it is born with, until its descriptors have their places.
    birth: Option<Birth<'a>>,
    /// The socket to init, for as long as init listens.
    init: Option<OwnedFd>,
    /// The channel, once it has its place.
    channel: Option<BorrowedFd<'static>>,
    /// The function's environment, once START has come.
    environment: Option<Vec<String>>,
}

/// Runs the launcher to its end.
pub fn run(birth: Birth<'_>, init: OwnedFd) -> ! {
    prctl::set_name(c"sublet-launcher").ok();
    let (spec, plan, filters) = (birth.spec, birth.plan, birth.filters);
    let mut launcher =
        Launcher { spec, filters, birth: Some(birth), init: Some(init), channel: None, environment: None };
    for step in plan.of_launcher() {
        if let Err(error) = launcher.apply(step) {
            launcher.fail(step, &error);
        }
    }
    sys::exit_now(1)
}

impl Launcher<'_> {
    /// Reports the step and ends.
    fn fail(&self, step: &LauncherStep, error: &io::Error) -> ! {
        let is_shortage = is_shortage(error);
        let (id, step, error) = (step.id(), step.to_string(), error.to_string());
        match (&self.init, self.channel) {
            // Init ends the sandbox when it hears this; when it cannot hear, it is gone already.
            (Some(init), _) => {
                drop(link::send(init.as_fd(), &FromLauncher::StepFailed { id, step, error, is_shortage }, &[]))
            }
            // Init has let go of us: tell the supervisor itself.
            (None, Some(channel)) => {
                let aux = if is_shortage { HOST_SHORTAGE } else { 0 };
                let header = Header { aux, ..Header::bare(Kind::Error) };
                drop(Channel::new(channel).send(header, format!("{step}: {error}").as_bytes()));
            }
            // Init sees our end.
            (None, None) => {}
        }
        sys::exit_now(1)
    }

    fn channel(&self) -> io::Result<Channel> {
        self.channel.map(Channel::new).ok_or_else(|| io::Error::other("the channel has no place yet"))
    }

    fn apply(&mut self, step: &LauncherStep) -> io::Result<()> {
        match step {
            LauncherStep::PlaceDescriptors => {
                let (Some(birth), Some(init)) = (self.birth.take(), self.init.take()) else {
                    return Err(io::Error::other("the descriptors have their places already"));
                };
                match keep_for_launcher(birth, init) {
                    Ok(OfLauncher { channel, init }) => {
                        (self.channel, self.init) = (Some(channel), Some(init));
                        Ok(())
                    }
                    Err((init, error)) => {
                        self.init = Some(init);
                        Err(error)
                    }
                }
            }
            LauncherStep::SetRlimits { limits } => confine::set_rlimits(limits),
            LauncherStep::SwitchUid => {
                confine::switch_uid(FUNCTION_UID)?;
                umask(Mode::from_bits_truncate(0o022));
                Ok(chdir("/function")?)
            }
            LauncherStep::DropCapabilities => {
                confine::drop_capabilities()?;
                // Not even processes of its own uid may look into the launcher; execve of a function resets it.
                prctl::set_dumpable(false)?;
                // What an exec function leaves behind comes to the launcher, which ends it.
                Ok(prctl::set_child_subreaper(self.spec.protocol == Protocol::Exec)?)
            }
            LauncherStep::NoNewPrivs => Ok(prctl::set_no_new_privs()?),
            LauncherStep::LimitSpeculation { store_bypass } => {
                sys::forbid_speculation(Speculation::IndirectBranch)?;
                if *store_bypass { sys::forbid_speculation(Speculation::StoreBypass) } else { Ok(()) }
            }
            LauncherStep::Landlock => confine::restrict_by_landlock().map(drop),
            LauncherStep::ProveLandlock => prove::landlock(),
            LauncherStep::ProveCounters => prove::counters(),
            LauncherStep::ProveKeyring => prove::keyring(),
            LauncherStep::Seccomp { .. } => {
                for filter in &self.filters.function {
                    sys::install_filter(filter)?;
                }
                let listener = sys::install_announcing_filter(&self.filters.function_allowlist)?;
                let to = self.init.as_ref().ok_or_else(|| io::Error::other("init's socket is gone"))?;
                link::send(to.as_fd(), &FromLauncher::Listener, &[listener.as_fd()])
            }
            LauncherStep::AwaitInit => {
                // It confines itself while we do; whoever is looked at from outside must be what it will stay.
                let from = self.init.take().ok_or_else(|| io::Error::other("init's socket is gone"))?;
                match link::receive::<Confined>(from.as_fd(), false)? {
                    link::Received::Message(Confined, _) => Ok(()),
                    link::Received::Closed | link::Received::Nothing => Err(io::Error::other("init gave up")),
                }
            }
            LauncherStep::AwaitStart => {
                self.environment = Some(await_start(self.channel()?)?);
                Ok(())
            }
            LauncherStep::Run { protocol, relayed, command } => {
                let environment = self.environment.take().ok_or_else(|| io::Error::other("there was no START"))?;
                run_function(self.channel()?, self.spec, (*protocol, *relayed), command, &environment)
            }
        }
    }
}

/// Says CONFINED and waits for START. Returns the environment.
fn await_start(channel: Channel) -> io::Result<Vec<String>> {
    channel.send(Header::bare(Kind::Confined), &[])?;
    let Some((header, payload)) = channel.receive(START_LIMIT)? else {
        // The supervisor let go of us before a start: nothing to report, nobody to report to.
        sys::exit_now(0);
    };
    if header.kind != Kind::Start {
        return Err(io::Error::other(format!("expected START, got {:?}", header.kind)));
    }
    let text = String::from_utf8(payload).map_err(io::Error::other)?;
    Ok(text.split_terminator('\0').map(str::to_owned).collect())
}

fn run_function(
    channel: Channel,
    spec: &SandboxSpec,
    (protocol, relayed): (Protocol, bool),
    command: &[String],
    environment: &[String],
) -> io::Result<()> {
    let c_strings = |texts: &[String]| {
        texts.iter().map(|text| CString::new(text.as_bytes())).collect::<Result<Vec<_>, _>>().map_err(io::Error::from)
    };
    let (arguments, environment) = (c_strings(command)?, c_strings(environment)?);
    let program = arguments.first().ok_or_else(|| io::Error::other("the command is empty"))?;
    access(program.as_c_str(), AccessFlags::X_OK)?;
    program::check(Path::new(OsStr::from_bytes(program.to_bytes())))?;
    // The nursery blocks signals, and a launcher that stays writes to pipes; a function starts with nothing blocked.
    signals::reset(&[Signal::SIGPIPE])?;
    match protocol {
        Protocol::Stream if relayed => relay::serve(channel.socket(), &arguments, &environment),
        Protocol::Stream => {
            // It takes the launcher's place, and the channel with it.
            fcntl(channel.socket(), FcntlArg::F_SETFD(FdFlag::empty()))?;
            // Not one open file with its standard output: runtimes make that non-blocking, and their C library knows nothing of it.
            dup2_stderr(own_log()?)?;
            // A function expects the default.
            sys::default_signal(Signal::SIGPIPE);
            match execve(program, &arguments, &environment)? {}
        }
        Protocol::Exec => exec::serve(channel, spec, &arguments, &environment),
        Protocol::Lambda => lambda::serve(channel, spec, &arguments, &environment),
    }
}
