//! The launcher: a copy of init that confines itself completely, says so, and only when the supervisor has looked at it
//! from outside becomes the function (`stream`) or serves it (`exec`, `lambda`).

use std::{
    ffi::{CString, OsStr},
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
};

use nix::{
    sys::{
        prctl,
        signal::Signal,
        stat::{Mode, umask},
    },
    unistd::{AccessFlags, access, chdir, execve},
};
use serde::{Deserialize, Serialize};
use sublet_proto::link::{
    CHANNEL_FD,
    frame::{HOST_SHORTAGE, Header, Kind},
    sandbox::{Protocol, SandboxSpec},
    step::StepId,
};

use super::{Birth, channel::Channel, confine, exec, lambda, prove, relay};
use crate::{
    link,
    plan::{FUNCTION_UID, LauncherStep},
    program,
    shortage::is_shortage,
    signals,
    sys::{self, Speculation},
};

/// The launcher's end of its socket to init, while it has one.
const INIT_FD: i32 = 4;
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

/// Runs the launcher to its end.
pub fn run(birth: &Birth<'_>, init: OwnedFd) -> ! {
    let (mut init, mut environment) = (Some(init), None);
    prctl::set_name(c"sublet-launcher").ok();
    for step in birth.plan.of_launcher() {
        if let Err(error) = apply(birth, &mut init, &mut environment, step) {
            let is_shortage = is_shortage(&error);
            let (id, name) = (step.id(), step.to_string());
            let message = FromLauncher::StepFailed { id, step: name, error: error.to_string(), is_shortage };
            match init {
                // Init ends the sandbox when it hears this; when it cannot hear, it is gone already.
                Some(init) => drop(link::send(init.as_fd(), &message, &[])),
                // Init has let go of us: tell the supervisor itself.
                None => {
                    let aux = if is_shortage { HOST_SHORTAGE } else { 0 };
                    let header = Header { aux, ..Header::bare(Kind::Error) };
                    drop(Channel::new(sys::lasting_fd(CHANNEL_FD)).send(header, format!("{step}: {error}").as_bytes()));
                }
            }
            sys::exit_now(1);
        }
    }
    sys::exit_now(1)
}

/// `init` is the socket to init, for as long as init listens; `environment` is the function's, once START has come.
fn apply(
    birth: &Birth<'_>,
    init: &mut Option<OwnedFd>,
    environment: &mut Option<Vec<String>>,
    step: &LauncherStep,
) -> io::Result<()> {
    match step {
        LauncherStep::PlaceDescriptors => {
            let from = init.take().ok_or_else(|| io::Error::other("init's socket is gone"))?;
            *init = Some(place_descriptors(birth, &from)?);
            std::mem::forget(from);
            Ok(())
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
            Ok(prctl::set_child_subreaper(birth.spec.protocol == Protocol::Exec)?)
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
            for filter in &birth.filters.function {
                sys::install_filter(filter, false)?;
            }
            let listener = sys::install_filter(&birth.filters.function_allowlist, true)?
                .ok_or_else(|| io::Error::other("no listener"))?;
            let to = init.as_ref().ok_or_else(|| io::Error::other("init's socket is gone"))?;
            link::send(to.as_fd(), &FromLauncher::Listener, &[listener.as_fd()])
        }
        LauncherStep::AwaitInit => {
            // It confines itself while we do; whoever is looked at from outside must be what it will stay.
            let from = init.take().ok_or_else(|| io::Error::other("init's socket is gone"))?;
            match link::receive::<Confined>(from.as_fd(), false)? {
                link::Received::Message(Confined, _) => Ok(()),
                link::Received::Closed | link::Received::Nothing => Err(io::Error::other("init gave up")),
            }
        }
        LauncherStep::AwaitStart => {
            *environment = Some(await_start()?);
            Ok(())
        }
        LauncherStep::Run { protocol, relayed, command } => {
            let environment = environment.take().ok_or_else(|| io::Error::other("there was no START"))?;
            run_function(birth.spec, (*protocol, *relayed), command, &environment)
        }
    }
}

fn place_descriptors(birth: &Birth<'_>, init: &OwnedFd) -> io::Result<OwnedFd> {
    let lifted = [
        (sys::lift_fd(birth.null.as_fd())?, 0),
        (sys::lift_fd(birth.log.as_fd())?, 1),
        (sys::lift_fd(birth.log.as_fd())?, 2),
        (sys::lift_fd(birth.channel.as_fd())?, CHANNEL_FD),
        (sys::lift_fd(init.as_fd())?, INIT_FD),
    ];
    for (fd, number) in &lifted {
        sys::place_fd(fd.as_fd(), *number)?;
    }
    // Given up to close_from, which closes them.
    std::mem::forget(lifted);
    sys::close_from(INIT_FD + 1)?;
    sys::inherited_fd(INIT_FD)
}

/// Says CONFINED and waits for START. Returns the environment.
fn await_start() -> io::Result<Vec<String>> {
    let channel = Channel::new(sys::lasting_fd(CHANNEL_FD));
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
        Protocol::Stream if relayed => relay::serve(&arguments, &environment),
        Protocol::Stream => {
            // A function expects the default.
            sys::default_signal(Signal::SIGPIPE);
            match execve(program, &arguments, &environment)? {}
        }
        Protocol::Exec => exec::serve(spec, &arguments, &environment),
        Protocol::Lambda => lambda::serve(spec, &arguments, &environment),
    }
}
