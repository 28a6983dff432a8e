//! The supervisor's side of the runner: the process that starts token programs, which the confined supervisor cannot.
//!
//! [`Started::start`] while the supervisor is single-threaded and root, with every command of the configuration;
//! [`Runner::run`] then turns its socket into futures. See `sublet_shim::runner` for what the other side refuses.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    process::{Child, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::sys::socket::{AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, shutdown, socketpair};
use sublet_proto::link::{
    nursery::MESSAGE_LIMIT,
    runner::{Event, Request, TokenOwner},
    token::Token,
};
use sublet_shim::link;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::oneshot,
};
use zeroize::Zeroizing;

use crate::{
    config::{Config, Problem, TokenProvider},
    nursery,
};

/// Why there is no runner.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// A step of its start failed.
    #[error("start the runner of token programs: {what}")]
    Start {
        /// The step.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// It could not confine itself.
    #[error("the runner of token programs cannot work here: {0}")]
    Refused(String),
    /// It has ended.
    #[error("the runner of token programs has ended; restart sublet")]
    Gone,
}

/// Why a program has given no token.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nobody is there who could start it.
    #[error(transparent)]
    NoRunner(#[from] RunnerError),
    /// The runner could not be asked.
    #[error("tell the runner of token programs")]
    Tell(#[source] io::Error),
    /// The runner has refused it, or it has failed. The words are the runner's.
    #[error("{0}")]
    Program(String),
}

fn start(what: &'static str) -> impl FnOnce(io::Error) -> RunnerError {
    move |source| RunnerError::Start { what, source }
}

/// Every command that functions of a configuration get their tokens from.
pub fn commands(config: &Config) -> BTreeSet<Vec<String>> {
    let commands = config.functions().filter_map(|(_, _, function)| match &function.token.as_ref()?.provider {
        TokenProvider::Command { command, .. } => Some(command.clone()),
        TokenProvider::Static { .. } | TokenProvider::Jwt { .. } => None,
    });
    commands.collect()
}

/// Commands of a changed configuration that the runner would not run: it was told at the start which there are.
pub fn undeclared(declared: &BTreeSet<Vec<String>>, new: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (tenant, name, function) in new.functions() {
        if let Some(TokenProvider::Command { command, .. }) = function.token.as_ref().map(|token| &token.provider)
            && !declared.contains(command)
        {
            let what =
                "the runner was told at the start which token programs there are, and these words are none of them";
            let setting = format!("tenant.{tenant}.function.{name}.token.command");
            problems.push(Problem::new(
                setting,
                Some(format!("{command:?}")),
                what,
                "write the old command, or restart",
            ));
        }
    }
    problems
}

/// A runner that has given up its rights and is not yet driven by tokio.
#[derive(Debug)]
pub struct Started {
    child: Child,
    socket: OwnedFd,
}

impl Started {
    /// Starts it, tells it all commands there will be, and lets it become `uid`. `hold` is given its process number while
    /// it waits for that, to put it where it belongs.
    ///
    /// # Errors
    /// When it cannot be started or confined. It has ended then.
    pub fn start<E: From<RunnerError>>(
        commands: &BTreeSet<Vec<String>>,
        uid: u32,
        hold: impl FnOnce(u32) -> Result<(), E>,
    ) -> Result<Self, E> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|error| start("make a socket pair")(error.into()))?;
        let (mut command, file) = nursery::shim("sublet-runner").map_err(start("write the shim to memory"))?;
        command.arg(sublet_shim::runner::ARGUMENT).current_dir("/").stderr(Stdio::null());
        crate::sys::pass_socket(&mut command, &theirs);
        let child = command.spawn().map_err(start("run the shim from memory"))?;
        drop((theirs, file));
        // From here on it ends when our end of the socket is closed.
        let mut started = Self { child, socket: ours };
        let told = hold(started.child.id()).and_then(|()| Ok(started.tell(commands, uid)?));
        if let Err(error) = told {
            let Self { child, socket } = &mut started;
            shutdown(socket.as_raw_fd(), Shutdown::Both).ok();
            child.wait().ok();
            return Err(error);
        }
        Ok(started)
    }

    fn tell(&self, commands: &BTreeSet<Vec<String>>, uid: u32) -> Result<(), RunnerError> {
        let socket = self.socket.as_fd();
        for command in commands {
            let request = Request::Declare { command: command.clone() };
            link::send(socket, &request, &[]).map_err(start("tell it a token.command"))?;
        }
        link::send(socket, &Request::Seal { uid }, &[]).map_err(start("tell it who to be"))?;
        match link::receive::<Event>(socket, false).map_err(start("hear from it"))? {
            link::Received::Message(Event::Sealed, _) => Ok(()),
            link::Received::Message(Event::Failed { error }, _) => Err(RunnerError::Refused(error)),
            link::Received::Message(Event::Token { .. } | Event::NoToken { .. }, _)
            | link::Received::Closed
            | link::Received::Nothing => Err(RunnerError::Gone),
        }
    }
}

type Answer = oneshot::Sender<Result<Token, RunError>>;

#[derive(Debug, Default)]
struct Waiting {
    answers: HashMap<u64, Answer>,
    last: u64,
    is_gone: bool,
    /// We have asked it to end.
    is_ending: bool,
}

/// The runner as futures.
#[derive(Clone, Debug)]
pub struct Runner {
    socket: Arc<AsyncFd<OwnedFd>>,
    waiting: Arc<Mutex<Waiting>>,
}

impl Runner {
    /// Takes a started runner over. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When its socket cannot be watched.
    pub fn run(started: Started) -> Result<Self, RunnerError> {
        let Started { mut child, socket } = started;
        let interest = Interest::READABLE | Interest::WRITABLE;
        let socket = crate::sys::register(socket, interest).map_err(start("watch its socket"))?;
        let runner = Self { socket: Arc::new(socket), waiting: Arc::default() };
        let listener = runner.clone();
        tokio::spawn(async move {
            let heard = listener.listen().await;
            if !listener.forget_all() {
                let error = heard.err().map(|error| error.to_string());
                tracing::error!(error, "the runner has ended: no token.command is run any more; restart sublet");
            }
            listener.hang_up();
            // It is our child: no zombie of it may stay. It ends by itself when it is not heard any more.
            tokio::task::spawn_blocking(move || child.wait()).await.ok();
        });
        Ok(runner)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a command and waits for its end, or the end of its time. Goes on to its end when this is dropped.
    ///
    /// # Errors
    /// [`RunError`], when it cannot be run, fails, or prints something else than a token.
    pub async fn token(&self, command: &[String], timeout: Duration, owner: TokenOwner) -> Result<Token, RunError> {
        let (sender, receiver) = oneshot::channel();
        let id = {
            let mut waiting = self.waiting();
            if waiting.is_gone {
                return Err(RunnerError::Gone.into());
            }
            waiting.last += 1;
            let id = waiting.last;
            waiting.answers.insert(id, sender);
            id
        };
        let timeout_ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        let request = Request::Run { id, command: command.to_vec(), timeout_ms, owner };
        let send = |socket: &OwnedFd| link::send(socket.as_fd(), &request, &[]);
        if let Err(error) = self.socket.async_io(Interest::WRITABLE, send).await {
            self.waiting().answers.remove(&id);
            return Err(RunError::Tell(error));
        }
        receiver.await.unwrap_or_else(|_| Err(RunnerError::Gone.into()))
    }

    async fn listen(&self) -> io::Result<()> {
        while let Some(event) = self.socket.async_io(Interest::READABLE, receive).await? {
            match event {
                Event::Token { id, token } => self.answer(id, Ok(token)),
                Event::NoToken { id, error } => self.answer(id, Err(RunError::Program(error))),
                Event::Sealed | Event::Failed { .. } => {
                    return Err(io::Error::other("it says what it says at the start alone"));
                }
            }
        }
        Ok(())
    }

    fn answer(&self, id: u64, token: Result<Token, RunError>) {
        if let Some(answer) = self.waiting().answers.remove(&id) {
            // Who does not wait any more has had no use for it.
            answer.send(token).ok();
        }
    }

    /// Everybody who waits hears that nothing will come. Returns whether that was to be expected.
    fn forget_all(&self) -> bool {
        let mut waiting = self.waiting();
        waiting.answers.clear();
        waiting.is_gone = true;
        waiting.is_ending
    }

    /// Ends it and all that it runs.
    pub fn stop(&self) {
        self.waiting().is_ending = true;
        self.hang_up();
    }

    fn hang_up(&self) {
        shutdown(self.socket.get_ref().as_raw_fd(), Shutdown::Both).ok();
    }
}

/// One event; none at the end. There may be a token in it.
fn receive(socket: &OwnedFd) -> io::Result<Option<Event>> {
    let mut buffer = Zeroizing::new(vec![0; MESSAGE_LIMIT]);
    match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
        Ok(0) => Ok(None),
        Ok(length) => Ok(Some(serde_json::from_slice(&buffer[..length])?)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(command: &str) -> Config {
        let text = format!(
            "[host]\nstate_dir = \"/run/sublet\"\n[tenant.acme.sub_tenant]\n[tenant.acme.function.f]\nruntime = \"exec\"\n\
             layout = \"static\"\ndir = \"/srv/f\"\ncommand = [\"/function/f\"]\n\
             token.provider = \"command\"\ntoken.command = {command}\n"
        );
        Config::parse(&text, Path::new("/")).unwrap()
    }

    #[test]
    fn reload_may_name_the_programs_of_the_start_alone_and_word_for_word() {
        let declared = commands(&config("[\"/bin/mint\", \"-q\"]"));
        assert_eq!(undeclared(&declared, &config("[\"/bin/mint\", \"-q\"]")), []);
        for other in ["[\"/bin/mint\"]", "[\"/bin/mint\", \"-x\"]", "[\"/bin/sh\", \"-q\"]"] {
            let told = undeclared(&declared, &config(other));
            assert_eq!(told.len(), 1, "{other}");
            let text = told[0].to_string();
            assert!(text.contains("tenant.acme.function.f.token.command") && text.contains("restart"), "{text}");
        }
        assert_eq!(undeclared(&BTreeSet::new(), &config("[\"/bin/mint\"]")).len(), 1, "none at the start");
    }
}
