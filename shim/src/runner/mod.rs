//! The runner: starts the programs that print tokens, because the supervisor, which is confined, can start nothing.
//!
//! A process of its own, started before the supervisor has read a byte from a caller. It is told every command of the
//! configuration, word for word, and then for good that these are all ([`Request::Seal`]). A hijacked supervisor can ask for
//! one of them, for any owner, and for nothing else: what a reload adds needs a restart.
//!
//! It has the supervisor's uid and no right, a session of its own, and of all descriptors its socket alone; what it starts
//! has not even that. It has none of the supervisor's filters, because programs of operators need what they need. It
//! ends when the supervisor does, however that ends, and ends what still runs first. The nursery ends whatever a killed
//! runner leaves, by the cgroup that all of them are in.

mod command;

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd as _, OwnedFd},
    process::exit,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use caps::CapSet;
use nix::{
    sys::{
        prctl,
        resource::{Resource, setrlimit},
        signal::Signal,
    },
    unistd::{Uid, setgroups, setresuid, setsid},
};
use sublet_proto::link::runner::{AT_ONCE_MAX, Event, Request, TokenOwner};
use zeroize::Zeroizing;

use self::command::Groups;
use crate::{chain::chain, init::confine, link, sys};

/// First argument of the shim that makes it the runner.
pub const ARGUMENT: &str = "runner";
/// The supervisor's socket.
const SUPERVISOR_FD: i32 = 3;
/// Dispositions that whoever started the supervisor may have left ignored, and programs would inherit. With SIGCHLD ignored
/// nobody could be waited for.
const SIGNALS: [Signal; 7] = [
    Signal::SIGCHLD,
    Signal::SIGHUP,
    Signal::SIGINT,
    Signal::SIGPIPE,
    Signal::SIGQUIT,
    Signal::SIGTERM,
    Signal::SIGXFSZ,
];

/// Why the runner could not go on. Nothing it started runs any more by then.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// Something of the host failed.
    #[error("{what}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The supervisor asked for something at the wrong time.
    #[error("the supervisor asked {0}; it is not obeyed any further")]
    OutOfTurn(&'static str),
}

fn os(what: &'static str) -> impl FnOnce(io::Error) -> RunnerError {
    move |source| RunnerError::Os { what, source }
}

/// Runs until the supervisor ends.
///
/// # Errors
/// When the host refuses something, or the supervisor breaks the protocol.
pub fn run() -> Result<(), RunnerError> {
    let socket = sys::inherited_fd(SUPERVISOR_FD).map_err(os("take the supervisor's socket"))?;
    // Whatever the supervisor was started with is none of ours. Nothing is open here but the socket yet.
    sys::close_inherited(SUPERVISOR_FD + 1).map_err(os("close what was inherited"))?;
    // Ctrl-C in a terminal goes to the whole group; the supervisor decides when we end.
    setsid().map_err(|error| os("start a session")(error.into()))?;
    prctl::set_name(c"sublet-runner").map_err(|error| os("set the process name")(error.into()))?;
    SIGNALS.into_iter().for_each(sys::default_signal);
    let Some((commands, uid)) = declared(&socket)? else { return Ok(()) };
    if let Err(error) = drop_to(uid) {
        send(&socket, &Event::Failed { error: chain(&error) }).map_err(os("answer the supervisor"))?;
        return Err(error);
    }
    send(&socket, &Event::Sealed).map_err(os("answer the supervisor"))?;
    let groups = Arc::new(Groups::default());
    let served = serve(&Arc::new(socket), &commands, &groups);
    // Held until we are gone: whoever waits for it was about to start another.
    let _ended = groups.end_all();
    match served {
        Ok(()) => exit(0),
        Err(error) => {
            eprintln!("sublet runner: {}", chain(&error));
            exit(1)
        }
    }
}

/// Commands, each a program and its arguments.
type Commands = BTreeSet<Vec<String>>;

/// All commands, and who to be. None when the supervisor has ended before it said so.
fn declared(socket: &OwnedFd) -> Result<Option<(Commands, u32)>, RunnerError> {
    let mut commands = BTreeSet::new();
    loop {
        match link::receive::<Request>(socket.as_fd(), false).map_err(os("hear the supervisor"))? {
            link::Received::Message(Request::Declare { command }, _) => drop(commands.insert(command)),
            link::Received::Message(Request::Seal { uid }, _) => return Ok(Some((commands, uid))),
            link::Received::Message(Request::Run { .. }, _) => {
                return Err(RunnerError::OutOfTurn("for a run before all commands were declared"));
            }
            link::Received::Closed | link::Received::Nothing => return Ok(None),
        }
    }
}

/// Becomes uid and gid `id`, without groups, capabilities, or a way to get any. Nobody of that uid may look into us.
fn drop_to(id: u32) -> Result<(), RunnerError> {
    let nix = |error: nix::Error| io::Error::from(error);
    // First, while we still may.
    caps::clear(None, CapSet::Bounding)
        .map_err(|error| os("empty the bounding set")(io::Error::other(error.to_string())))?;
    setgroups(&[]).map_err(nix).map_err(os("give up groups"))?;
    confine::switch_uid(id).map_err(os("take the supervisor's uid"))?;
    confine::drop_capabilities().map_err(os("give up capabilities"))?;
    prctl::set_no_new_privs().map_err(nix).map_err(os("set no_new_privs"))?;
    prctl::set_dumpable(false).map_err(nix).map_err(os("forbid others to look into us"))?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(nix).map_err(os("set RLIMIT_CORE"))?;
    if setresuid(Uid::from_raw(0), Uid::from_raw(0), Uid::from_raw(0)).is_ok() {
        return Err(os("give up root")(io::Error::other("root could be taken back")));
    }
    Ok(())
}

fn serve(socket: &Arc<OwnedFd>, commands: &Commands, groups: &Arc<Groups>) -> Result<(), RunnerError> {
    let running = Arc::new(AtomicUsize::new(0));
    loop {
        match link::receive::<Request>(socket.as_fd(), false).map_err(os("hear the supervisor"))? {
            link::Received::Message(Request::Run { id, command, timeout_ms, owner }, _) => {
                let refused = refusal(commands, &command, running.load(Ordering::SeqCst));
                if let Some(error) = refused {
                    send(socket, &Event::NoToken { id, error: error.to_string() })
                        .map_err(os("answer the supervisor"))?;
                    continue;
                }
                running.fetch_add(1, Ordering::SeqCst);
                let run = Run { socket: socket.clone(), groups: groups.clone(), running: running.clone(), id };
                let work = move || run.finish(&command, Duration::from_millis(timeout_ms), &owner);
                thread::Builder::new().name("sublet-token".into()).spawn(work).map_err(os("start a thread"))?;
            }
            link::Received::Message(Request::Declare { .. } | Request::Seal { .. }, _) => {
                return Err(RunnerError::OutOfTurn("for another command after all were declared"));
            }
            link::Received::Closed | link::Received::Nothing => return Ok(()),
        }
    }
}

/// Why a command is not run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    /// The supervisor has not declared it.
    #[error(
        "{program} does not stand in the configuration that sublet was started with, in these words; restart sublet"
    )]
    Undeclared { program: String },
    /// [`AT_ONCE_MAX`] of them run.
    #[error("{AT_ONCE_MAX} token programs run already")]
    TooMany,
}

/// Why a command is not run; none: it is. `running` programs have not ended.
fn refusal(commands: &Commands, command: &[String], running: usize) -> Option<Refusal> {
    if !commands.contains(command) {
        return Some(Refusal::Undeclared { program: command.first().cloned().unwrap_or_default() });
    }
    (running >= AT_ONCE_MAX).then_some(Refusal::TooMany)
}

/// One run.
struct Run {
    socket: Arc<OwnedFd>,
    groups: Arc<Groups>,
    running: Arc<AtomicUsize>,
    id: u64,
}

impl Run {
    fn finish(self, command: &[String], timeout: Duration, owner: &TokenOwner) {
        let event = match command::run(command, timeout, owner, &self.groups) {
            Ok(token) => Event::Token { id: self.id, token },
            Err(error) => Event::NoToken { id: self.id, error: chain(&error) },
        };
        // Before the answer: who has heard it may ask for the next.
        self.running.fetch_sub(1, Ordering::SeqCst);
        // A supervisor that is gone is seen by the next read.
        send(&self.socket, &event).ok();
    }
}

/// There may be a token in it.
fn send(socket: &OwnedFd, event: &Event) -> io::Result<()> {
    let bytes = Zeroizing::new(serde_json::to_vec(event)?);
    link::send_bytes(socket.as_fd(), &bytes, &[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_declared_is_run_and_word_for_word() {
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let commands = BTreeSet::from([words(&["/bin/mint", "-q"]), words(&["/bin/other"])]);
        for command in [words(&["/bin/mint", "-q"]), words(&["/bin/other"])] {
            assert_eq!(refusal(&commands, &command, 0), None);
        }
        let foreign: &[&[&str]] =
            &[&[], &["/bin/mint"], &["/bin/mint", "-q", "-q"], &["/bin/mint", "-x"], &["/bin/sh", "-c", "id"]];
        for command in foreign {
            let error = refusal(&commands, &words(command), 0).unwrap().to_string();
            assert!(error.contains("restart") && error.starts_with(command.first().unwrap_or(&"")), "{error}");
        }
    }

    #[test]
    fn no_more_run_at_a_time_than_are_allowed() {
        let command = vec!["/bin/mint".to_owned()];
        let commands = BTreeSet::from([command.clone()]);
        assert_eq!(refusal(&commands, &command, AT_ONCE_MAX - 1), None);
        assert_eq!(refusal(&commands, &command, AT_ONCE_MAX), Some(Refusal::TooMany));
    }
}
