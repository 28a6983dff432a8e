//! The nursery: a small privileged process that makes sandboxes and cleans up behind everybody.
//!
//! One thread, one poll loop, one client: the supervisor, on descriptor 3. It is told what is about to be made ([`early`]) and
//! its bounds, once (`Configure`), then takes `Spawn` and `Inspect`. When the supervisor ends, however and whenever it ends,
//! the nursery kills what is left, removes the cgroups and ends too. It holds the locks of the state directory (descriptor 4)
//! and of the cgroups until that is done.

mod ask;
mod born;
mod early;
mod places;
pub(crate) mod posture;
mod teardown;

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fs,
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::setgroups,
};
use sublet_proto::link::{
    nursery::{Event, Left, Posture, Request},
    sandbox::{CGROUP_POOL, Layer, NurseryConfig, Protocol, SandboxSpec},
};

pub use self::posture::{PostureError, status};
use self::{
    born::{BirthError, Born},
    early::Early,
    places::Places,
};
use crate::{
    chain::chain,
    check, directory,
    init::OwnGroup,
    keyring::NURSERY_KEY,
    link,
    seccomp::{FilterError, Filters},
    signals,
    skeleton::{self, Mounted, SkeletonError},
    sys,
};

/// The supervisor's socket.
const SUPERVISOR_FD: i32 = 3;
/// The lock of the state directory.
const LOCK_FD: i32 = 4;
/// How long last words wait for whoever reads standard error.
const LAST_WORDS_PATIENCE_SECONDS: u32 = 1;

/// Why the nursery could not go on. Its sandboxes are gone by then.
#[derive(Debug, thiserror::Error)]
pub enum NurseryError {
    /// Something of the host failed.
    #[error("{what}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

fn os(what: &'static str) -> impl Fn(io::Error) -> NurseryError {
    move |source| NurseryError::Os { what, source }
}

/// Why the nursery cannot make sandboxes with the configuration that it was given.
#[derive(Debug, thiserror::Error)]
enum ConfigureError {
    /// The kernel refuses it something.
    #[error("{what}")]
    Os { what: &'static str, source: Box<dyn Error + Send + Sync> },
    /// The roots of sandboxes cannot be prepared.
    #[error(transparent)]
    Skeleton(#[from] SkeletonError),
    /// The filters cannot be compiled: a mistake in the policy.
    #[error(transparent)]
    Filters(#[from] FilterError),
    /// The supervisor has not made the group of all workers in one of its hierarchies.
    #[error("open {}", path.display())]
    OpenPool { path: PathBuf, source: nix::Error },
    /// The mounts of the host cannot be told.
    #[error(transparent)]
    Mounts(#[from] PostureError),
    /// A group of the supervisor is in no hierarchy that can be seen.
    #[error("{dir} is below no mount of a v1 hierarchy")]
    NoMount { dir: String },
}

fn refused<E: Error + Send + Sync + 'static>(what: &'static str) -> impl FnOnce(E) -> ConfigureError {
    move |error| ConfigureError::Os { what, source: Box::new(error) }
}

/// Why no sandbox is made.
#[derive(Debug, thiserror::Error)]
enum SpawnError {
    /// It is not one that the supervisor may ask for.
    #[error(transparent)]
    Refused(#[from] check::Refusal),
    /// Somebody has removed the skeleton, and it could not be prepared again.
    #[error("what sandboxes are made of is gone")]
    SkeletonGone(#[source] SkeletonError),
    /// A part of it could not be made.
    #[error(transparent)]
    Birth(#[from] BirthError),
}

/// What the nursery knows once it is configured.
struct Nursery {
    config: NurseryConfig,
    skeleton: Mounted,
    /// What was made anew and is to be told at the next look.
    healed: Vec<String>,
    filters: Filters,
    pool: OwnedFd,
    v1_pools: Vec<OwnedFd>,
    /// The name of each v1 hierarchy, in the order of the pools.
    v1_hierarchies: Vec<String>,
    null: OwnedFd,
    /// Whether launchers stand between `stream` functions and the supervisor, because the kernel cannot keep descriptors that
    /// a function attaches away from a socket.
    relays_streams: bool,
    sandboxes: BTreeMap<u64, Sandbox>,
}

/// A living sandbox.
#[derive(Debug)]
struct Sandbox {
    slot: u32,
    pid: nix::unistd::Pid,
    cgroup: String,
    nofile: u64,
    /// Whether its launcher stays, so that it must not be asked to end with its function.
    keeps_launcher: bool,
    /// Host pid of its launcher, once somebody has looked.
    launcher: Option<i32>,
}

/// Runs the nursery until its supervisor ends or asks it to.
///
/// # Errors
/// When the host refuses something it cannot do without.
pub fn run() -> Result<(), NurseryError> {
    // SIGPIPE as the Rust runtime has it: writing to a supervisor that is gone is an error, not the end.
    signals::reset(&[Signal::SIGPIPE]).map_err(os("reset signals"))?;
    let socket = sys::inherited_fd(SUPERVISOR_FD).map_err(os("take the supervisor's socket"))?;
    // The supervisor passes nothing else on. Held for as long as this process lives.
    let lock = sys::inherited_fd(LOCK_FD).map_err(os("take the lock of the state directory"))?;
    // Ctrl-C in a terminal goes to the whole group; the supervisor decides when we end.
    nix::unistd::setsid().map_err(|e| os("start a session")(e.into()))?;
    prctl::set_name(c"sublet-nursery").map_err(|e| os("set the process name")(e.into()))?;
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block().map_err(|e| os("block signals")(e.into()))?;
    let children = SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .map_err(|e| os("open a signalfd")(e.into()))?;
    let mut early = Early::default();
    let told = early.await_configuration(&socket).and_then(|config| {
        // A supervisor that was taken over could send one whose closing takes as long as it likes, and hold the clean-up up.
        link::refuse_descriptors(socket.as_fd()).map_err(os("refuse the supervisor's descriptors"))?;
        Ok(config)
    });
    let config = match told {
        Ok(Some(config)) => config,
        ended => {
            tell_left(&early.remove());
            return ended.map(drop);
        }
    };
    let mut places = Places::new(&config, Some(&lock));
    let mut nursery = match Nursery::new(config.clone()) {
        Ok(nursery) => nursery,
        Err(error) => {
            let told = link::send(socket.as_fd(), &Event::ConfigureFailed { error: chain(&error) }, &[]);
            tell_left(&remove(&config, &BTreeMap::new(), &places));
            return told.map_err(os("answer the supervisor"));
        }
    };
    let served = link::send(socket.as_fd(), &Event::Configured, &[])
        .and_then(|()| nursery.serve(socket.as_fd(), &children, &mut places));
    let left = remove(&nursery.config, &nursery.sandboxes, &places);
    // The supervisor waits for the answer, and whoever reads standard error may not read: so it comes first.
    let ended = match served {
        Ok(Stop::Asked) => {
            let left = left.clone();
            link::send(socket.as_fd(), &Event::Stopped { left }, &[]).map_err(os("answer the supervisor"))
        }
        Ok(Stop::Abandoned) => Ok(()),
        Err(error) => Err(os("serve the supervisor")(error)),
    };
    tell_left(&left);
    ended
}

/// Removes everything that the supervisor and its sandboxes have on the host. Returns what would not go.
fn remove(config: &NurseryConfig, sandboxes: &BTreeMap<u64, Sandbox>, places: &Places) -> Vec<String> {
    let leaves = sandboxes.values().map(|sandbox| (sandbox.pid, sandbox.cgroup.as_str())).collect();
    let mut left = teardown::remove_groups(&config.cgroups, &leaves);
    left.extend(places.remove_sockets());
    left
}

fn tell_left(left: &[String]) {
    for what in left {
        last_words("nursery", &format!("left behind: {what}"));
    }
}

/// Tells something when all else is done. The write may wait for a reader for ever: SIGALRM, which nobody handles, ends this
/// process then, and with it what it holds.
pub fn last_words(who: &str, text: &str) {
    nix::unistd::alarm::set(LAST_WORDS_PATIENCE_SECONDS);
    // Standard error may be closed; there is nobody else to tell.
    writeln!(std::io::stderr(), "sublet {who}: {text}").ok();
}

enum Stop {
    Asked,
    Abandoned,
}

impl Nursery {
    fn new(config: NurseryConfig) -> Result<Self, ConfigureError> {
        // Sandboxes inherit the groups, and inside they can never be given up (setgroups is denied there).
        setgroups(&[]).map_err(refused("give up supplementary groups"))?;
        sys::keep_capabilities_over_uids().map_err(refused("keep capabilities over changes of uid"))?;
        sys::join_new_session_keyring().map_err(refused("start a session keyring"))?;
        sys::add_session_key(NURSERY_KEY).map_err(refused("put a key into the session keyring"))?;
        let own_inodes = !config.missing_layers.contains(&Layer::Inodes);
        skeleton::enter_namespace()?;
        let skeleton = Mounted::new(Path::new(&config.scratch_dir), own_inodes)?;
        let filters = Filters::compile(own_inodes)?;
        let open = |dir: &str| -> Result<OwnedFd, ConfigureError> {
            let path = Path::new(dir).join(CGROUP_POOL);
            directory::open_directory(&path).map_err(|source| ConfigureError::OpenPool { path, source })
        };
        Ok(Self {
            pool: open(&config.cgroups.unified)?,
            v1_hierarchies: hierarchies(&config.cgroups.v1)?,
            v1_pools: config.cgroups.v1.iter().map(|dir| open(dir)).collect::<Result<_, _>>()?,
            null: born::open_null().map_err(refused("open /dev/null"))?,
            relays_streams: !link::can_refuse_descriptors(),
            config,
            skeleton,
            healed: Vec::new(),
            filters,
            sandboxes: BTreeMap::new(),
        })
    }

    fn serve(&mut self, socket: BorrowedFd<'_>, children: &SignalFd, places: &mut Places) -> io::Result<Stop> {
        loop {
            let mut watched =
                [PollFd::new(socket, PollFlags::POLLIN), PollFd::new(children.as_fd(), PollFlags::POLLIN)];
            match poll(&mut watched, PollTimeout::NONE) {
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
            if watched[1].any().unwrap_or(true) {
                // SIGTERM and SIGINT are taken off here and not obeyed: the supervisor decides when we end.
                while matches!(children.read_signal(), Ok(Some(_))) {}
                self.reap(socket)?;
            }
            if watched[0].any().unwrap_or(true) {
                match link::receive::<Request>(socket, true) {
                    Ok(link::Received::Message(Request::Spawn { worker, spec }, _)) => {
                        self.spawn(socket, worker, &spec)?
                    }
                    Ok(link::Received::Message(Request::Inspect { worker }, _)) => {
                        let event = match self.inspect(worker) {
                            Ok(posture) => Event::Posture { worker, posture: Box::new(posture) },
                            Err(error) => Event::PostureFailed { worker, error: chain(&error) },
                        };
                        send(socket, &event, &[])?;
                    }
                    Ok(link::Received::Message(Request::AskLeft { worker }, _)) => {
                        let left = self.sandboxes.get(&worker).and_then(|sandbox| self.left(sandbox));
                        send(socket, &Event::Left { worker, left }, &[])?;
                    }
                    Ok(link::Received::Message(Request::AskToEnd { worker }, _)) => {
                        let processes = self.sandboxes.get(&worker).map_or(0, |sandbox| self.ask_to_end(sandbox));
                        send(socket, &Event::AskedToEnd { worker, processes }, &[])?;
                    }
                    Ok(link::Received::Message(Request::LookAtPlaces { lost }, _)) => {
                        places.lose(&lost);
                        self.look(socket, places)?;
                    }
                    Ok(link::Received::Message(Request::Stop, _)) => return Ok(Stop::Asked),
                    Ok(link::Received::Closed) => return Ok(Stop::Abandoned),
                    Ok(link::Received::Nothing) => {}
                    // The supervisor sends nothing else. Whoever does is not obeyed any further.
                    Ok(link::Received::Message(Request::Announce(_) | Request::Claimed | Request::Configure(_), _)) => {
                        return Err(io::Error::other("configured twice"));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn spawn(&mut self, socket: BorrowedFd<'_>, worker: u64, spec: &SandboxSpec) -> io::Result<()> {
        match self.make(worker, spec) {
            Ok(born) => {
                let descriptors = [born.channel.as_fd(), born.control.as_fd(), born.log.as_fd()];
                let sandbox = Sandbox {
                    slot: spec.slot,
                    pid: born.pid,
                    cgroup: spec.cgroup.clone(),
                    nofile: spec.limits.nofile,
                    keeps_launcher: spec.protocol != Protocol::Stream || self.relays_streams,
                    launcher: None,
                };
                self.sandboxes.insert(worker, sandbox);
                send(socket, &Event::Spawned { worker, pid: born.pid.as_raw() }, &descriptors)
            }
            Err(error) => send(socket, &Event::Refused { worker, error: chain(&error) }, &[]),
        }
    }

    fn make(&mut self, worker: u64, spec: &SandboxSpec) -> Result<Born, SpawnError> {
        if self.sandboxes.contains_key(&worker) {
            return Err(check::Refusal::WorkerExists { worker }.into());
        }
        let slots: BTreeSet<u32> = self.sandboxes.values().map(|sandbox| sandbox.slot).collect();
        check::check(&self.config, spec, &slots)?;
        self.heal_skeleton()?;
        Ok(born::make(self, spec)?)
    }

    /// Prepares the skeleton again if it is gone: without it no sandbox can be made.
    fn heal_skeleton(&mut self) -> Result<(), SpawnError> {
        let scratch = &self.config.scratch_dir;
        let healed = self.skeleton.heal().map_err(SpawnError::SkeletonGone)?;
        if healed {
            self.healed
                .push(format!("{scratch} was gone, and with it what sandboxes are made of; it has been made anew"));
        }
        Ok(())
    }

    fn look(&mut self, socket: BorrowedFd<'_>, places: &mut Places) -> io::Result<()> {
        let places::Look { mut wrong, healed, sockets } = places.look();
        wrong.extend(self.heal_skeleton().err().map(|error| chain(&error)));
        let healed = healed.into_iter().chain(std::mem::take(&mut self.healed)).collect();
        let descriptors: Vec<BorrowedFd<'_>> = sockets.iter().map(|(_, listener)| listener.as_fd()).collect();
        let sockets = sockets.iter().map(|(number, _)| *number).collect();
        send(socket, &Event::Places { wrong, healed, sockets }, &descriptors)
    }

    /// The groups of a worker that it sees itself: those with its limits.
    fn groups_of(&self, cgroup: &str) -> Vec<OwnGroup> {
        let dirs = &self.config.cgroups;
        let path = |dir: &String| Path::new(dir).join(CGROUP_POOL).join(cgroup);
        if dirs.v1.is_empty() {
            return vec![OwnGroup { path: path(&dirs.unified), hierarchy: None }];
        }
        let named = dirs.v1.iter().zip(&self.v1_hierarchies);
        named.map(|(dir, hierarchy)| OwnGroup { path: path(dir), hierarchy: Some(hierarchy.clone()) }).collect()
    }

    fn group(&self, sandbox: &Sandbox) -> PathBuf {
        Path::new(&self.config.cgroups.unified).join(CGROUP_POOL).join(&sandbox.cgroup)
    }

    fn left(&self, sandbox: &Sandbox) -> Option<Left> {
        let tmp = posture::tmp_space(sandbox.pid)?;
        Some(Left { tmp, is_out_of_descriptors: posture::is_out_of_descriptors(&self.group(sandbox), sandbox.nofile) })
    }

    fn inspect(&mut self, worker: u64) -> Result<Posture, PostureError> {
        let sandbox = self.sandboxes.get(&worker).ok_or(PostureError::NotAlive { worker })?;
        let posture = posture::inspect(sandbox.pid, self.group(sandbox))?;
        if let Some(sandbox) = self.sandboxes.get_mut(&worker) {
            sandbox.launcher = Some(posture.function.pid);
        }
        Ok(posture)
    }

    /// Returns how many processes were asked.
    fn ask_to_end(&self, sandbox: &Sandbox) -> u32 {
        let mut ours = vec![sandbox.pid.as_raw()];
        match (sandbox.keeps_launcher, sandbox.launcher) {
            (true, Some(launcher)) => ours.push(launcher),
            // Which is the launcher is not known, so that nobody can be asked.
            (true, None) => return 0,
            (false, _) => {}
        }
        ask::ask_to_end(&self.group(sandbox), &ours)
    }

    fn reap(&mut self, socket: BorrowedFd<'_>) -> io::Result<()> {
        loop {
            let (pid, code, signal) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, Some(code), None),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, None, Some(signal as i32)),
                Ok(WaitStatus::StillAlive) | Err(_) => return Ok(()),
                Ok(_) => continue,
            };
            let Some(worker) = self.sandboxes.iter().find(|(_, s)| s.pid == pid).map(|(worker, _)| *worker) else {
                continue;
            };
            self.sandboxes.remove(&worker);
            send(socket, &Event::Reaped { worker, code, signal }, &[])?;
        }
    }
}

/// The names by which the v1 hierarchies of these directories are mounted: the last component of the mount point.
fn hierarchies(dirs: &[String]) -> Result<Vec<String>, ConfigureError> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").map_err(refused("read mountinfo"))?;
    let mounts = posture::mounts_of(&mountinfo)?;
    let name_of = |dir: &String| {
        let above = mounts.iter().filter(|(point, kind, _)| kind == "cgroup" && Path::new(dir).starts_with(point));
        let nearest = above.map(|(point, ..)| Path::new(point)).max_by_key(|point| point.components().count())?;
        Some(nearest.file_name()?.to_str()?.to_owned())
    };
    dirs.iter().map(|dir| name_of(dir).ok_or_else(|| ConfigureError::NoMount { dir: dir.clone() })).collect()
}

/// A supervisor that is gone is seen by the next read, not here.
fn send(socket: BorrowedFd<'_>, event: &Event, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    match link::send(socket, event, descriptors) {
        Err(error) if matches!(error.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)) => Ok(()),
        result => result,
    }
}
