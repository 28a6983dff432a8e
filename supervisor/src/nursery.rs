//! The supervisor's side of the nursery: start it, tell it its bounds, ask for sandboxes, hear what became of them.
//!
//! Started and configured while the process is still single-threaded and root ([`Started`]); then [`Nursery::run`] turns its
//! socket into futures. It is started before anything is made that somebody must remove: whatever ends us, it is there.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::{
    fcntl::{FcntlArg, OFlag, SealFlag, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        memfd::{MFdFlags, memfd_create},
        socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair},
    },
    unistd::Pid,
};
use sublet_proto::link::{
    nursery::{Event, Left, Posture, Request},
    sandbox::{Announcement, NurseryConfig, SandboxSpec},
};
use sublet_shim::link;
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::{oneshot, watch},
};

/// How long its end may take from the first closed descriptor to the last, where a call waits for the verdict on its worker.
pub const DYING_PATIENCE: Duration = Duration::from_millis(20);
/// The same where a start has failed, which is rarer: machines that are slow, or have much else to do, take longer.
pub const DYING_PATIENCE_OF_STARTS: Duration = Duration::from_millis(200);

const SHIM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sublet-shim"));

/// Why the nursery does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum NurseryError {
    /// It could not be started.
    #[error("start the nursery: {what}: {error}")]
    Start {
        /// The step.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// It refused its configuration.
    #[error("the nursery cannot work here: {0}")]
    Configure(String),
    /// It refused or failed to make a sandbox.
    #[error("the nursery made no sandbox: {0}")]
    Refused(String),
    /// A sandbox could not be looked at.
    #[error("the nursery cannot inspect the sandbox: {0}")]
    Inspect(String),
    /// A sandbox was made, and there was no room for its descriptors.
    #[error("the supervisor may have no more open files: its own limit (RLIMIT_NOFILE), or the host's (fs.file-max)")]
    NoDescriptors,
    /// It is gone.
    #[error("the nursery is gone")]
    Gone,
    /// Its socket failed.
    #[error("talk to the nursery: {0}")]
    Socket(io::Error),
}

fn start(what: &'static str) -> impl FnOnce(io::Error) -> NurseryError {
    move |error| NurseryError::Start { what, error }
}

/// A nursery that is not yet driven by tokio. When this is dropped it removes what was made, and ends.
#[derive(Debug)]
pub struct Started {
    child: Child,
    socket: OwnedFd,
}

/// The shim, to be started from sealed memory under this name, with an empty environment. Its stderr is ours. The
/// file is to be kept until it has been started.
///
/// # Errors
/// When the memory cannot be had.
pub fn shim(name: &str) -> io::Result<(Command, std::fs::File)> {
    let program = memfd_create(c"sublet-shim", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = std::fs::File::from(program);
    io::Write::write_all(&mut file, SHIM)?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    let mut command = Command::new(format!("/proc/self/fd/{}", file.as_raw_fd()));
    command.arg0(name).stdin(Stdio::null()).stdout(Stdio::null()).env_clear();
    Ok((command, file))
}

impl Started {
    /// Starts the nursery from memory and tells it what is about to be made. It holds on to `lock`, that of the state
    /// directory, until everything is cleaned up.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(lock: &OwnedFd, announced: Announcement) -> Result<Self, NurseryError> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|e| start("make a socket pair")(e.into()))?;
        let (mut command, file) = shim("sublet-nursery").map_err(start("write the shim to memory"))?;
        crate::sys::pass_descriptors(&mut command, &[theirs.as_fd(), lock.as_fd()])
            .map_err(start("pass its descriptors"))?;
        let child = command.spawn().map_err(start("run the shim from memory"))?;
        drop((theirs, file));
        let started = Self { child, socket: ours };
        match started.tell(&Request::Announce(Box::new(announced)), &[]) {
            Ok(()) => Ok(started),
            Err(error) => {
                started.end();
                Err(error)
            }
        }
    }

    /// The process id of the nursery.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).unwrap_or(i32::MAX))
    }

    /// The announced groups are ours. It holds on to their locks as well.
    ///
    /// # Errors
    /// When it is gone.
    pub fn claimed(&self, locks: &[OwnedFd]) -> Result<(), NurseryError> {
        let locks: Vec<_> = locks.iter().map(AsFd::as_fd).collect();
        self.tell(&Request::Claimed, &locks)
    }

    /// Tells it its bounds.
    ///
    /// # Errors
    /// When it cannot work on this host.
    pub fn configure(&self, config: NurseryConfig) -> Result<(), NurseryError> {
        self.tell(&Request::Configure(Box::new(config)), &[])?;
        match link::receive::<Event>(self.socket.as_fd(), false).map_err(start("hear from it"))? {
            link::Received::Message(Event::Configured, _) => Ok(()),
            link::Received::Message(Event::ConfigureFailed { error }, _) => Err(NurseryError::Configure(error)),
            _ => Err(NurseryError::Gone),
        }
    }

    /// Has it remove what was made, and waits until that is done.
    pub fn end(self) {
        let Self { mut child, socket } = self;
        drop(socket);
        // It is our child, so that it can be waited for, and how it has ended changes nothing.
        child.wait().ok();
    }

    fn tell(&self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), NurseryError> {
        link::send(self.socket.as_fd(), request, descriptors).map_err(start("tell it what it is for"))
    }
}

/// How a sandbox's init ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitEnd {
    /// Exit code, when it exited.
    pub code: Option<i32>,
    /// Signal, when one ended it.
    pub signal: Option<i32>,
}

/// The supervisor's ends of a new sandbox.
#[derive(Debug)]
pub struct Sandbox {
    /// Host pid of init.
    pub pid: i32,
    /// Frames.
    pub channel: OwnedFd,
    /// Init's reports.
    pub control: OwnedFd,
    /// The function's stdout and stderr.
    pub log: OwnedFd,
    /// Becomes some when init is dead and reaped.
    pub reaped: watch::Receiver<Option<InitEnd>>,
}

/// What a look at the files of the supervisor has shown.
#[derive(Debug)]
pub struct Places {
    /// What is not as it was, each with the remedy.
    pub wrong: Vec<String>,
    /// What was gone and has been made anew.
    pub healed: Vec<String>,
    /// Listening sockets that were made anew, by the number of their place.
    pub sockets: Vec<(usize, OwnedFd)>,
}

type Answer<T> = oneshot::Sender<Result<T, NurseryError>>;

#[derive(Debug, Default)]
struct Waiting {
    spawns: HashMap<u64, Answer<Sandbox>>,
    postures: HashMap<u64, Answer<Posture>>,
    lefts: HashMap<u64, oneshot::Sender<Option<Left>>>,
    asked_to_end: HashMap<u64, oneshot::Sender<u32>>,
    reaps: HashMap<u64, watch::Sender<Option<InitEnd>>>,
    look: Option<oneshot::Sender<Places>>,
    /// Sockets that were made anew and for which there was no room.
    lost_sockets: Vec<usize>,
    stop: Option<oneshot::Sender<Vec<String>>>,
    gone: bool,
}

/// The nursery as futures.
#[derive(Clone, Debug)]
pub struct Nursery {
    socket: Arc<AsyncFd<OwnedFd>>,
    waiting: Arc<Mutex<Waiting>>,
    gone: watch::Receiver<bool>,
}

impl Nursery {
    /// Takes a started nursery over. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When its socket cannot be registered.
    pub fn run(started: Started) -> Result<Self, NurseryError> {
        let Started { mut child, socket } = started;
        let flags = fcntl(&socket, FcntlArg::F_GETFL).map_err(|e| NurseryError::Socket(e.into()))?;
        let flags = OFlag::from_bits_truncate(flags) | OFlag::O_NONBLOCK;
        fcntl(&socket, FcntlArg::F_SETFL(flags)).map_err(|e| NurseryError::Socket(e.into()))?;
        let socket = Arc::new(
            crate::sys::register(socket, Interest::READABLE | Interest::WRITABLE).map_err(NurseryError::Socket)?,
        );
        let (gone_sender, gone) = watch::channel(false);
        let nursery = Self { socket, waiting: Arc::default(), gone };
        let listener = nursery.clone();
        tokio::spawn(async move {
            if let Err(error) = listener.listen().await {
                tracing::error!(%error, "the nursery cannot be heard any more; it is let go of, and ends every sandbox");
                // It ends when its supervisor's side is closed, and nothing else would tell it.
                shutdown(listener.socket.get_ref().as_raw_fd(), Shutdown::Both).ok();
            }
            listener.forget_all();
            // It is our child: no zombie of it may stay. It ends by itself within moments.
            let _status = tokio::task::spawn_blocking(move || child.wait()).await;
            gone_sender.send_replace(true);
        });
        Ok(nursery)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn listen(&self) -> io::Result<()> {
        loop {
            let received = self.socket.async_io(Interest::READABLE, |socket| {
                match link::receive_with_descriptors::<Event>(socket.as_fd(), true)? {
                    link::Received::Nothing => Err(io::ErrorKind::WouldBlock.into()),
                    received => Ok(received),
                }
            });
            match received.await? {
                link::Received::Message(event, descriptors) => self.hear(event, descriptors),
                link::Received::Closed | link::Received::Nothing => return Ok(()),
            }
        }
    }

    fn hear(&self, event: Event, descriptors: Vec<OwnedFd>) {
        let mut waiting = self.waiting();
        // A receiver that has given up is no error anywhere below: its sandbox is removed by whoever asked for it.
        match event {
            Event::Spawned { worker, pid } => {
                let (sender, reaped) = watch::channel(None);
                waiting.reaps.insert(worker, sender);
                if let Some(answer) = waiting.spawns.remove(&worker) {
                    // Without them nobody can talk to it: it is ended by whoever asked for it, and everybody else goes on.
                    let sandbox = <[OwnedFd; 3]>::try_from(descriptors)
                        .map(|[channel, control, log]| Sandbox { pid, channel, control, log, reaped })
                        .map_err(|_| NurseryError::NoDescriptors);
                    answer.send(sandbox).ok();
                }
            }
            Event::Refused { worker, error } => {
                if let Some(answer) = waiting.spawns.remove(&worker) {
                    answer.send(Err(NurseryError::Refused(error))).ok();
                }
            }
            Event::Posture { worker, posture } => {
                if let Some(answer) = waiting.postures.remove(&worker) {
                    answer.send(Ok(*posture)).ok();
                }
            }
            Event::PostureFailed { worker, error } => {
                if let Some(answer) = waiting.postures.remove(&worker) {
                    answer.send(Err(NurseryError::Inspect(error))).ok();
                }
            }
            Event::Left { worker, left } => {
                if let Some(answer) = waiting.lefts.remove(&worker) {
                    answer.send(left).ok();
                }
            }
            Event::AskedToEnd { worker, processes } => {
                if let Some(answer) = waiting.asked_to_end.remove(&worker) {
                    answer.send(processes).ok();
                }
            }
            Event::Reaped { worker, code, signal } => {
                if let Some(sender) = waiting.reaps.remove(&worker) {
                    sender.send_replace(Some(InitEnd { code, signal }));
                }
            }
            Event::Places { wrong, healed, sockets } => {
                // Those that did not arrive are asked for again.
                waiting.lost_sockets = if descriptors.len() < sockets.len() { sockets.clone() } else { Vec::new() };
                let sockets = sockets.into_iter().zip(descriptors).collect();
                if let Some(answer) = waiting.look.take() {
                    answer.send(Places { wrong, healed, sockets }).ok();
                }
            }
            Event::Stopped { left } => {
                if let Some(answer) = waiting.stop.take() {
                    answer.send(left).ok();
                }
            }
            Event::Configured | Event::ConfigureFailed { .. } => {}
        }
    }

    /// Everybody who waits hears that nothing will come.
    fn forget_all(&self) {
        let mut waiting = self.waiting();
        *waiting = Waiting { gone: true, ..Waiting::default() };
    }

    /// Sends a request, when there is room for it.
    async fn ask(&self, request: &Request) -> Result<(), NurseryError> {
        let send = |socket: &OwnedFd| link::send(socket.as_fd(), request, &[]);
        self.socket.async_io(Interest::WRITABLE, send).await.map_err(NurseryError::Socket)
    }

    /// Sends a request about a worker and waits for the answer, which comes to the list that `of` picks.
    async fn ask_about<T>(
        &self,
        worker: u64,
        request: &Request,
        of: fn(&mut Waiting) -> &mut HashMap<u64, oneshot::Sender<T>>,
    ) -> Result<T, NurseryError> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            // Nobody would answer.
            if waiting.gone {
                return Err(NurseryError::Gone);
            }
            of(&mut waiting).insert(worker, sender);
        }
        if let Err(error) = self.ask(request).await {
            of(&mut self.waiting()).remove(&worker);
            return Err(error);
        }
        receiver.await.map_err(|_| NurseryError::Gone)
    }

    /// Makes a sandbox.
    ///
    /// # Errors
    /// When the nursery refuses, fails, or is gone.
    pub async fn spawn(&self, worker: u64, spec: SandboxSpec) -> Result<Sandbox, NurseryError> {
        let request = Request::Spawn { worker, spec: Box::new(spec) };
        self.ask_about(worker, &request, |waiting| &mut waiting.spawns).await?
    }

    /// Looks at a sandbox from outside.
    ///
    /// # Errors
    /// When it cannot be looked at, or the nursery is gone.
    pub async fn inspect(&self, worker: u64) -> Result<Posture, NurseryError> {
        self.ask_about(worker, &Request::Inspect { worker }, |waiting| &mut waiting.postures).await?
    }

    /// What is left for a sandbox's processes; none when it cannot be asked.
    pub async fn left(&self, worker: u64) -> Option<Left> {
        self.ask_about(worker, &Request::AskLeft { worker }, |waiting| &mut waiting.lefts).await.ok().flatten()
    }

    /// Asks the function of a sandbox to end by itself. Returns how many processes of it were asked.
    pub async fn ask_to_end(&self, worker: u64) -> u32 {
        let request = Request::AskToEnd { worker };
        self.ask_about(worker, &request, |waiting| &mut waiting.asked_to_end).await.unwrap_or(0)
    }

    /// Has it look at the files of the supervisor, and make anew what is gone. One look at a time.
    ///
    /// # Errors
    /// When it is gone.
    pub async fn look(&self) -> Result<Places, NurseryError> {
        let (sender, receiver) = oneshot::channel();
        let lost = {
            let mut waiting = self.waiting();
            if waiting.gone {
                return Err(NurseryError::Gone);
            }
            waiting.look = Some(sender);
            std::mem::take(&mut waiting.lost_sockets)
        };
        self.ask(&Request::LookAtPlaces { lost }).await?;
        receiver.await.map_err(|_| NurseryError::Gone)
    }

    /// Ends it, and with it every sandbox and cgroup of ours. Returns what could not be removed.
    ///
    /// # Errors
    /// When it is gone already.
    pub async fn stop(&self) -> Result<Vec<String>, NurseryError> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            if waiting.gone {
                return Err(NurseryError::Gone);
            }
            waiting.stop = Some(sender);
        }
        self.ask(&Request::Stop).await?;
        let left = receiver.await.map_err(|_| NurseryError::Gone)?;
        self.gone().await;
        Ok(left)
    }

    /// Whether it is gone, whoever has heard of that so far. It closes its socket before its sandboxes end, so that who sees
    /// one of them end can ask.
    pub fn is_gone(&self) -> bool {
        let mut watched = [PollFd::new(self.socket.get_ref().as_fd(), PollFlags::empty())];
        let polled = poll(&mut watched, PollTimeout::ZERO);
        self.waiting().gone || polled.is_ok() && watched[0].any().unwrap_or(true)
    }

    /// Returns when it is gone, for whatever reason.
    pub async fn gone(&self) {
        let mut gone = self.gone.clone();
        // The sender lives as long as the task that would set it.
        gone.wait_for(|gone| *gone).await.ok();
    }
}
