//! `sublet serve`: from a configuration file to a running supervisor, and back to nothing.
//!
//! The order is the argument. Everything that needs root happens first, in one thread; then the rights go, and only
//! then does anything that listens to the world run:
//! ```text
//!  check config, host -> lock state -> nursery -> cgroup tree -> bind sockets -> runner -> drop rights -> jail -> tokio -> gRPC
//! ```
//! The nursery is told what will be made before any of it is. So it removes what there is, wherever a start ends: by a step
//! that fails, or by kill -9. Signals that ask for the end wait until somebody listens to them, and then end it as ever.

mod handed;
mod places;
mod rights;
mod running;
pub mod state;

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::stat::{Mode, umask};
use sublet_proto::link::sandbox::{Announcement, Layer, NurseryConfig, SocketPlace};
use sublet_shim::chain::chain;

use self::{
    handed::{Listening, MisplacedError},
    running::Running,
    state::State,
};
use crate::{
    cgroups::{
        CgroupError,
        host::{HostCgroups, Place},
        tree::{Site, Tree, Wanted},
    },
    config::{self, Config, ConfigError, Looked, Source},
    descriptors,
    doctor::Report,
    front::{FrontError, Listener},
    jail::{self, Jail, JailError},
    logs::{files::DirError, sink},
    nursery::{NurseryError, Started},
    process::{
        handed::Handed,
        limits::{self, LimitError},
        session,
        signals::{self, Held},
    },
    pulse::{self, notify::Notify},
    quota,
    recorder::{self, Recorder},
    reload, reserve,
    runner::{self, RunnerError},
    token::Keys,
};

/// Why `serve` does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration.
    #[error("the configuration is not used:\n{0}")]
    Config(#[from] ConfigError),
    /// What the configuration names is not on this host.
    #[error("the configuration does not fit this host:\n{0}")]
    Disk(ConfigError),
    /// The host lacks something.
    #[error("this host cannot run sublet as configured:\n{0}")]
    Host(String),
    /// A socket that was handed in has no place.
    #[error(transparent)]
    Misplaced(#[from] MisplacedError),
    /// The state directory or a socket.
    #[error(transparent)]
    State(#[from] state::StateError),
    /// The cgroup tree.
    #[error(transparent)]
    Cgroups(#[from] CgroupError),
    /// The nursery.
    #[error(transparent)]
    Nursery(#[from] NurseryError),
    /// The runner of token programs.
    #[error(transparent)]
    Runner(#[from] RunnerError),
    /// It could not be confined.
    #[error(transparent)]
    Jail(#[from] JailError),
    /// A limit of the process.
    #[error(transparent)]
    Limit(#[from] LimitError),
    /// Rights could not be given up.
    #[error("give up rights: {0}")]
    Rights(#[from] rights::RightsError),
    /// TCP could not be bound.
    #[error("listen on host.listen = \"{address}\": {error}; is another program there?")]
    Listen {
        /// Where.
        address: std::net::SocketAddr,
        /// Why not.
        error: io::Error,
    },
    /// The trace.
    #[error("make the trace {}: {error}; name a file that is not there yet, in a directory that is", path.display())]
    Record {
        /// Where.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// The directory of log files.
    #[error(transparent)]
    Logs(#[from] DirError),
    /// Something of the operating system.
    #[error("{what}: {error}")]
    Os {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        error: io::Error,
    },
    /// The front ended early.
    #[error("gRPC: {0}")]
    Front(#[from] FrontError),
    /// The nursery ended while we served.
    #[error("the nursery ended unexpectedly, and all workers with it; its last words are above")]
    NurseryEnded,
    /// The end left something.
    #[error("stopped, but left behind: {0}")]
    Left(String),
}

fn record_failed(path: &Path) -> impl FnOnce(io::Error) -> ServeError {
    let path = path.to_owned();
    move |error| ServeError::Record { path, error }
}

fn os(what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |error| ServeError::Os { what, error }
}

/// How to serve, beside the configuration.
#[derive(Debug, Default)]
pub struct Options {
    /// Stop when standard input is closed.
    pub while_stdin_is_open: bool,
    /// Record every delivered call here.
    pub record: Option<PathBuf>,
    /// Sockets that somebody else listens on already, for us.
    pub handed: Vec<Handed>,
}

/// What was bound with root's rights.
#[derive(Debug)]
struct Listeners {
    call: Listener,
    admin: Listener,
    tcp: Option<std::net::TcpListener>,
    /// Whether callers can wait where somebody else keeps the socket.
    callers_wait: bool,
}

/// Everything that was made with root's rights.
struct Prepared {
    source: Source,
    config: Config,
    looked: Looked,
    keys: Keys,
    report: Report,
    tree: Tree,
    bound: Listeners,
    started: Started,
    runner: Option<runner::Started>,
    jail: Jail,
    missing_layers: Vec<Layer>,
    v1_controllers: Vec<&'static str>,
    recorder: Option<Recorder>,
    log_place: Option<sink::Place>,
    notify: Option<Notify>,
    held: Held,
    // Held until the end; the nursery has a copy.
    _state: State,
}

/// Runs a supervisor until it is told to stop. `confined` is called once it has confined itself, which it does with one
/// thread: threads of the caller's begin then. `ready` is called once it takes calls.
///
/// # Errors
/// Why it cannot serve, or did not end well. Nothing is left behind, but for what the error names.
pub fn serve(
    path: &Path,
    options: Options,
    confined: impl FnOnce() -> io::Result<()>,
    ready: impl FnOnce(&Config),
) -> Result<(), ServeError> {
    let (source, config) = reload::read(path)?;
    let Options { while_stdin_is_open, record, handed } = options;
    let prepared = prepare(source, config, path, record.as_deref(), handed)?;
    confined().map_err(os("start a thread for the log"))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(prepared.config.host.threads as usize)
        .enable_all()
        .thread_name("sublet")
        .build()
        .map_err(os("start tokio"))?;
    let result = runtime.block_on(run(prepared, path, while_stdin_is_open, ready));
    // Nothing that still runs has anything to do for anybody.
    runtime.shutdown_timeout(Duration::from_millis(100));
    result
}

fn prepare(
    source: Source,
    mut config: Config,
    path: &Path,
    record: Option<&Path>,
    handed: Vec<Handed>,
) -> Result<Prepared, ServeError> {
    // Whoever starts us may have one that keeps all others out. The control groups that we make as root must let the
    // supervisor's own id in.
    umask(Mode::from_bits_truncate(0o022));
    let report = Report::of_host();
    report.refuse(&config.host.accept_degraded).map_err(|unfit| ServeError::Host(unfit.to_string()))?;
    let mut problems = report.unenforced(&config);
    let (looked, told) = config::check_host(&mut config, None);
    problems.extend(told);
    // As root, which may read what the supervisor may not.
    let keys = Keys::read(&config).unwrap_or_else(|told| {
        problems.extend(told);
        Keys::default()
    });
    if !problems.is_empty() {
        return Err(ServeError::Disk(ConfigError { problems }));
    }
    let host = &config.host;
    let listening = Listening::of(handed, host)?;
    limits::take_off()?;
    descriptors::allow(descriptors::needed(host)).map_err(|error| ServeError::Host(chain(&error)))?;
    reserve::keep_reserve();
    let state = State::lock(host.state_dir.as_path())?;
    let found = HostCgroups::discover()?;
    let wanted = Wanted {
        instance: host.instance.as_str(),
        parent: host.cgroup_parent.as_ref().map(|path| path.as_str()),
        pool: &quota::table::pool(&config),
        own_max: config::memory_of_host().map(|bytes| bytes / jail::limits::MEMORY_SHARE),
        owner: host.supervisor_uid,
        workers: host.uid_count / 2,
        beside: session::in_front(),
    };
    let missing_layers: Vec<Layer> = report.missing_layers();
    let held = signals::hold().map_err(os("hold signals back"))?;
    let site = Site::choose(&found, &wanted);
    // What somebody else made is not ours to remove.
    let own = state::sockets(host).into_iter().zip(listening.has_unix()).filter(|(_, is_handed_in)| !is_handed_in);
    let sockets = own.map(|((_, path, ..), _)| path.as_str().to_owned()).collect();
    let started = Started::start(state.lock_fd(), Announcement { cgroups: site.dirs().clone(), sockets })?;
    let begun =
        begin(&config, &state, site, &wanted, &started, &missing_layers, listening).and_then(|(tree, bound)| {
            // Last of what can fail before there is anything to record: the next start wants the name.
            let file = record.map(|path| recorder::create(path).map_err(record_failed(path))).transpose()?;
            Ok((tree, bound, file))
        });
    let (tree, bound, record) = match begun {
        Ok(begun) => begun,
        Err(error) => {
            started.end();
            return Err(error);
        }
    };
    let v1 = found.places.iter().filter(|(_, place)| matches!(place, Place::V1(_)));
    let v1_controllers = v1.map(|(controller, _)| controller.name()).collect();
    // From here on an error ends this process, and then the nursery cleans up.
    let log_place = sink::open(host)?;
    let commands = runner::commands(&config);
    let runner = if commands.is_empty() {
        None
    } else {
        let hold = |pid| tree.hold_runner(pid).map_err(ServeError::from);
        Some(runner::Started::start(&commands, host.supervisor_uid, hold)?)
    };
    // systemd waits for us in vain then, and says so; that is no reason to serve nobody.
    let notify = pulse::notify::connect().unwrap_or_else(|error| {
        tracing::warn!("{error}");
        None
    });
    let jail = jail::Plan::of(&config, &jail::config_dir(path), tree.dirs(), record.is_some()).open()?;
    // Last of what needs root, and after nursery and runner were started: workers and programs must not have it from us.
    jail::limits::protect_from_oom();
    rights::drop_to(host.supervisor_uid)?;
    // Before the first thread.
    let jail = jail::confine(jail)?;
    let recorder = record.map(Recorder::start).transpose().map_err(os("write the trace's first line"))?;
    Ok(Prepared {
        source,
        config,
        looked,
        keys,
        report,
        tree,
        bound,
        started,
        runner,
        jail,
        missing_layers,
        v1_controllers,
        recorder,
        log_place,
        notify,
        held,
        _state: state,
    })
}

/// Makes what the nursery was told of, and tells it its bounds. What is half made when this fails is the nursery's to remove.
fn begin(
    config: &Config,
    state: &State,
    site: Site,
    wanted: &Wanted<'_>,
    nursery: &Started,
    missing_layers: &[Layer],
    listening: Listening,
) -> Result<(Tree, Listeners), ServeError> {
    let host = &config.host;
    let mut tree = site.claim(wanted)?;
    nursery.claimed(tree.claim().locks())?;
    tree.build(wanted, nursery.pid())?;
    let (callers_wait, is_handed_in) = (listening.has_callers(), listening.has_unix());
    let tcp = match (listening.tcp, host.listen) {
        (Some(handed), address) => Some(taken_over(handed, address)?),
        (None, Some(address)) => Some(listen(address)?),
        (None, None) => None,
    };
    let (call, admin) = state::bind_unix(host, listening.call, listening.admin)?;
    // In the order in which the listeners are renewed.
    let sockets =
        state::sockets(host).into_iter().zip(is_handed_in).map(|((setting, path, mode, gid), is_handed_in)| {
            SocketPlace { setting: format!("host.{setting}"), path: path.as_str().to_owned(), mode, gid, is_handed_in }
        });
    let nursery_config = NurseryConfig {
        uid_base: host.uid_base,
        uid_count: host.uid_count,
        supervisor_uid: host.supervisor_uid,
        allowed_dirs: config.bounds().into_iter().map(|dir| dir.as_str().to_owned()).collect(),
        scratch_dir: state.scratch().display().to_string(),
        cgroups: tree.dirs().clone(),
        missing_layers: missing_layers.to_vec(),
        forbid_store_bypass: host.forbid_store_bypass,
        sockets: sockets.collect(),
    };
    nursery.configure(nursery_config)?;
    Ok((tree, Listeners { call, admin, tcp, callers_wait }))
}

fn taken_over(
    listener: std::net::TcpListener,
    address: Option<std::net::SocketAddr>,
) -> Result<std::net::TcpListener, ServeError> {
    listener.set_nonblocking(true).map_err(os("use host.listen, which was handed in"))?;
    tracing::info!(?address, "host.listen was handed in");
    Ok(listener)
}

fn listen(address: std::net::SocketAddr) -> Result<std::net::TcpListener, ServeError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bind().map_err(|error| ServeError::Listen { address, error })
}

async fn run(
    prepared: Prepared,
    path: &Path,
    while_stdin_is_open: bool,
    ready: impl FnOnce(&Config),
) -> Result<(), ServeError> {
    let config = prepared.config.clone();
    let mut running = Running::begin(prepared, path)?;
    ready(&config);
    running.tell_ready();
    running.until_told_to_end(while_stdin_is_open).await?;
    running.end().await
}
