//! The command line: `sublet COMMAND`. Human output by default, one JSON value on stdout with `--json`.

mod author;
mod client;
mod demo;
mod invoke;
mod logs;
mod offline;
mod operate;
mod output;
mod quotas;
#[cfg(test)]
mod reference;
mod signals;
mod stage;
mod terminal;
mod top;
mod watch;
mod what_if;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};

use crate::{
    config,
    own_log::{self, OwnLog},
    printable,
    process::{handed, session},
};

/// Configuration when none is named.
const CONFIG: &str = "/etc/sublet/sublet.toml";
/// Sockets when none is named: those of `state_dir = "/run/sublet"`, which the README uses throughout.
const SOCKET: &str = "/run/sublet/call.sock";
const ADMIN_SOCKET: &str = "/run/sublet/admin.sock";

#[derive(Debug, Parser)]
#[command(
    name = "sublet",
    version,
    about = "Runs one function for each of your customers, each in a confined worker of its own",
    after_help = "A first look, as root on any Linux host:\n  sublet demo\n\nA first service:\n  sublet check-config sublet.toml \
                  && sublet doctor\n  sublet serve --config sublet.toml\n  echo hello | sublet invoke acme word-stats \
                  --sub-tenant customer-1"
)]
struct Cli {
    /// Print one JSON value instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the supervisor until SIGTERM or Ctrl-C. Needs root, and gives it up once it serves.
    Serve {
        /// Configuration file.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
        /// Stop when standard input is closed, as by the end of the program that started it.
        #[arg(long)]
        while_stdin_is_open: bool,
        /// Record every delivered call in this file, which must not be there yet, for `sublet what-if`.
        #[arg(long, value_name = "TRACE")]
        record: Option<PathBuf>,
    },
    /// A few seconds that show what sublet does, on this host, with a supervisor of its own. Leaves nothing behind.
    Demo,
    /// Make a directory with a function that runs, for authors.
    New(author::new::NewArgs),
    /// Call a function in its directory in the very cage, with a supervisor of its own. Needs root. Leaves nothing behind.
    RunLocal(author::local::RunLocalArgs),
    /// Call a function: payload from stdin or --file, answer to stdout.
    Invoke(InvokeArgs),
    /// List the workers that are alive.
    Ps {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        socket: AdminSocket,
    },
    /// Who uses what, live: sub-tenants by CPU, memory, calls, queue, faults or throttling, and their workers.
    Top(top::TopArgs),
    /// Show one worker in full: limits as the kernel holds them, usage, what was checked from outside, log.
    Describe {
        /// Its name, for example w-17; see `sublet ps`.
        worker: String,
        #[command(flatten)]
        socket: AdminSocket,
    },
    /// List the functions of the running configuration.
    Functions {
        #[command(flatten)]
        socket: AdminSocket,
    },
    /// Have workers made ahead of calls, until COUNT of them live.
    Warm {
        /// TENANT/FUNCTION.
        #[arg(value_parser = tenant_and_function)]
        function: (String, String),
        /// The tenant's own customer; required unless the function is shared.
        #[arg(long, short)]
        sub_tenant: Option<String>,
        /// Workers that are to live; those there are count.
        #[arg(long, short, default_value_t = 1)]
        count: u32,
        #[command(flatten)]
        socket: AdminSocket,
    },
    /// Read the configuration again (also SIGHUP). When anything is wrong with it, nothing changes.
    Reload(quotas::ReloadArgs),
    /// What a reload would change, and which running workers and levels use more than they would be allowed.
    Diff(quotas::DiffArgs),
    /// Change settings of a level for a time, at once and under running workers. It expires by itself.
    Set(quotas::SetArgs),
    /// Take back what `sublet set` changed.
    Unset(quotas::UnsetArgs),
    /// Every limit in force, with where it comes from and who keeps it.
    Limits(quotas::LimitsArgs),
    /// Calls that did not end well or were refused since the start, folded by whose they were and which limit it was.
    Faults {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        socket: AdminSocket,
    },
    /// Print what happens, line by line: faults, workers that come and go, changes of the configuration.
    Watch {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        socket: AdminSocket,
    },
    /// Print what functions have written to stdout and stderr, line by line, with whose it is and in which call.
    Logs(logs::LogsArgs),
    /// What tenants and sub-tenants have used since the start: receipts summed, beside what the kernel counted.
    Usage {
        /// Only this tenant's.
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        socket: AdminSocket,
    },
    /// End idle workers that match; with --force busy ones too.
    Evict {
        /// One worker by name.
        worker: Option<String>,
        /// All of a tenant's.
        #[arg(long)]
        tenant: Option<String>,
        /// All of a function's.
        #[arg(long)]
        function: Option<String>,
        /// All of a sub-tenant's.
        #[arg(long)]
        sub_tenant: Option<String>,
        /// All there are.
        #[arg(long)]
        all: bool,
        /// Busy ones too: their calls get the verdict EVICTED.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        socket: AdminSocket,
    },
    /// Take no more calls, let those accepted end, end all workers.
    Drain {
        /// How long accepted calls may still take, for example 10s.
        #[arg(long, value_parser = duration)]
        grace: Option<Duration>,
        /// Stop the supervisor as well.
        #[arg(long)]
        stop: bool,
        #[command(flatten)]
        socket: AdminSocket,
    },
    /// Take calls again after a drain, or in the middle of one.
    Undrain {
        #[command(flatten)]
        socket: AdminSocket,
    },
    /// How the supervisor is doing, and what its host does not enforce.
    Health {
        #[command(flatten)]
        socket: AdminSocket,
    },
    /// Run a recorded trace through the pool in virtual time: under the limits that are, and under changed ones.
    WhatIf(what_if::WhatIfArgs),
    /// Write a trace of heavy-tailed traffic: few sub-tenants call often, most seldom, in bursts and by the time of day.
    MakeTrace(what_if::MakeTraceArgs),
    /// Print the steps that make a worker of a function, in order, without making one.
    Plan {
        /// TENANT/FUNCTION, or FUNCTION when its name is unique.
        function: String,
        /// Configuration file.
        #[arg(long, default_value = CONFIG)]
        config: PathBuf,
    },
    /// Check a configuration file, and that what it names is on this host. Prints every problem with its remedy.
    CheckConfig {
        /// Configuration file.
        #[arg(default_value = CONFIG)]
        config: PathBuf,
        /// The text alone, not whether directories and programs are there.
        #[arg(long)]
        text_only: bool,
    },
    /// Print a JSON Schema of the configuration, for editors that complete and check TOML.
    ConfigSchema,
    /// What this host can and cannot enforce, each with the remedy. Fails when `serve` would refuse.
    Doctor {
        /// Judge by what this configuration accepts to miss; without it, by a configuration that accepts nothing.
        #[arg(long)]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct AdminSocket {
    /// The supervisor's admin socket.
    #[arg(long = "admin-socket", env = "SUBLET_ADMIN_SOCKET", default_value = ADMIN_SOCKET)]
    path: PathBuf,
}

#[derive(Debug, Args)]
struct InvokeArgs {
    /// Owner of the function.
    tenant: String,
    /// The function.
    function: String,
    /// The tenant's own customer; required unless the function is shared.
    #[arg(long, short)]
    sub_tenant: Option<String>,
    /// Read the payload from this file instead of stdin.
    #[arg(long, short, conflicts_with = "data")]
    file: Option<PathBuf>,
    /// The payload itself.
    #[arg(long, short)]
    data: Option<String>,
    /// From acceptance to answer at the longest, for example 500ms.
    #[arg(long, value_parser = duration)]
    timeout: Option<Duration>,
    /// Print the answer in chunks, as the function makes them.
    #[arg(long)]
    stream: bool,
    /// Print what the function logged during the call to stderr, the last 4 KiB of it.
    #[arg(long)]
    log: bool,
    /// Print receipt and log to stderr.
    #[arg(long, short)]
    verbose: bool,
    /// The supervisor's call socket, or its TCP address.
    #[arg(long, env = "SUBLET_SOCKET", default_value = SOCKET)]
    socket: String,
}

/// An argument that is not of the form it must have, in words that say which.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
struct WrongArgument(String);

impl WrongArgument {
    fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

fn duration(text: &str) -> Result<Duration, WrongArgument> {
    config::parse_duration(text).map_err(|error| WrongArgument(format!("{}; {}", error.what(), error.remedy())))
}

fn tenant_and_function(text: &str) -> Result<(String, String), WrongArgument> {
    match text.split_once('/') {
        Some((tenant, function)) if !tenant.is_empty() && !function.is_empty() => Ok((tenant.into(), function.into())),
        _ => Err(WrongArgument::new("write TENANT/FUNCTION, for example acme/resize")),
    }
}

/// What went wrong with a command: a line for stderr, and the exit status.
#[derive(Debug)]
pub struct Failed {
    message: String,
    status: u8,
}

/// A command that could not do its work.
const STATUS_FAILED: u8 = 1;
/// A call that was made and did not end well.
const STATUS_CALL: u8 = 3;

impl Failed {
    fn new(message: impl std::fmt::Display) -> Self {
        Self { message: message.to_string(), status: STATUS_FAILED }
    }

    /// The same, with what it is about before it.
    fn about(self, what: &str) -> Self {
        Self { message: format!("{what}: {}", self.message), ..self }
    }
}

impl<E: std::error::Error + 'static> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::new(sublet_shim::chain::chain(&error))
    }
}

/// Runs the command line. The returned status: 0 done, 1 not done, 2 wrong usage, 3 the call did not end well.
pub fn main() -> ExitCode {
    let Cli { json, command } = Cli::parse();
    // A live view outlives the supervisor it talks to, and that connection breaks like a pipe.
    let outlives_its_peers = match &command {
        Command::Serve { .. } | Command::Demo | Command::RunLocal(_) => true,
        Command::Top(args) => args.is_live(json),
        _ => false,
    };
    if matches!(command, Command::Serve { .. } | Command::Demo | Command::RunLocal(_))
        && let Err(error) = crate::process::reset_signals()
    {
        output::tell(format_args!("reset signals: {error}"));
        return ExitCode::from(STATUS_FAILED);
    }
    if !outlives_its_peers {
        // As every other tool: `sublet ps | head` ends with head, and says nothing.
        crate::sys::end_on_broken_pipe();
    }
    match run(command, json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failed { message, status }) => {
            if json && status != STATUS_CALL && !message.is_empty() {
                output::say_json(&serde_json::json!({ "error": message })).ok();
            } else if !message.is_empty() {
                output::tell(format_args!("{}{message}", printable::PREFIX));
            }
            ExitCode::from(status)
        }
    }
}

fn run(command: Command, json: bool) -> Result<(), Failed> {
    match command {
        Command::Serve { config, while_stdin_is_open, record } => {
            let options = crate::serve::Options { while_stdin_is_open, record, handed: Vec::new() };
            serve(&config, options, json)
        }
        Command::WhatIf(args) => what_if::what_if(&args, json),
        Command::MakeTrace(args) => what_if::make_trace(&args, json),
        Command::Demo => demo::run(json),
        Command::New(args) => author::new::run(&args, json),
        Command::RunLocal(args) => author::local::run(args, json),
        Command::Invoke(args) => invoke::run(args, json),
        Command::Ps { tenant, socket } => operate::ps(&socket.path, tenant, json),
        Command::Top(args) => top::run(args, json),
        Command::Describe { worker, socket } => operate::describe(&socket.path, worker, json),
        Command::Functions { socket } => operate::functions(&socket.path, json),
        Command::Warm { function: (tenant, function), sub_tenant, count, socket } => {
            let sub_tenant = sub_tenant.unwrap_or_default();
            operate::warm(&socket.path, sublet_proto::v1::WarmRequest { tenant, function, sub_tenant, count }, json)
        }
        Command::Reload(args) => quotas::reload(&args, json),
        Command::Diff(args) => quotas::diff(&args, json),
        Command::Set(args) => quotas::set(args, json),
        Command::Unset(args) => quotas::unset(args, json),
        Command::Limits(args) => quotas::limits(args, json),
        Command::Faults { tenant, socket } => watch::faults(&socket.path, tenant, json),
        Command::Watch { tenant, socket } => watch::watch(&socket.path, tenant, json),
        Command::Logs(args) => logs::run(args, json),
        Command::Usage { tenant, socket } => watch::usage(&socket.path, tenant, json),
        Command::Evict { worker, tenant, function, sub_tenant, all, force, socket } => {
            let or_empty = Option::unwrap_or_default;
            let request = sublet_proto::v1::EvictRequest {
                worker: or_empty(worker),
                tenant: or_empty(tenant),
                function: or_empty(function),
                sub_tenant: or_empty(sub_tenant),
                all,
                force,
            };
            operate::evict(&socket.path, request, json)
        }
        Command::Drain { grace, stop, socket } => operate::drain(&socket.path, grace, stop, json),
        Command::Undrain { socket } => operate::undrain(&socket.path, json),
        Command::Health { socket } => operate::health(&socket.path, json),
        Command::Plan { function, config } => offline::plan(&config, &function, json),
        Command::CheckConfig { config, text_only } => offline::check_config(&config, text_only, json),
        Command::ConfigSchema => offline::config_schema(),
        Command::Doctor { config } => offline::doctor(config.as_deref(), json),
    }
}

/// How long the line that tells readiness waits for its reader. Longer would keep signals and operators waiting as well.
const READY_PATIENCE: Duration = Duration::from_millis(100);

fn serve(path: &std::path::Path, mut options: crate::serve::Options, json: bool) -> Result<(), Failed> {
    if session::has_terminal() {
        if handed::is_any() {
            let why = "sockets that are handed in (LISTEN_FDS) are for a process without a terminal, and this one has one; \
                       start it by a service manager, or in a session of its own with no terminal as its input and output";
            return Err(Failed::new(why));
        }
        let status = terminal::stay(options.while_stdin_is_open);
        let status = status.map_err(|error| Failed::new(format!("start the supervisor: {error}")))?;
        return if status == 0 { Ok(()) } else { Err(Failed { message: String::new(), status }) };
    }
    // Before anything is opened: what is open now is not ours, but for what was handed in.
    options.handed = handed::take()?;
    let inherited = session::leave(options.while_stdin_is_open, &options.handed);
    let inherited =
        inherited.map_err(|error| Failed::new(format!("leave the session of whoever started us: {error}")))?;
    let log = OwnLog::start(json)?;
    if !inherited.is_empty() {
        let inherited: Vec<String> = inherited.iter().map(ToString::to_string).collect();
        tracing::warn!("closed descriptors that came from whoever started us: {}", inherited.join(", "));
    }
    let served = crate::serve::serve(
        path,
        options,
        || log.write(),
        |config| {
            let host = &config.host;
            let line = if json {
                let tcp = host.listen.map(|address| address.to_string());
                let ready = serde_json::json!({
                    "event": "serving", "socket": host.socket.as_str(), "admin_socket": host.admin_socket.as_str(),
                    "listen": tcp,
                });
                printable::json(&ready)
            } else {
                let tcp = host.listen.map(|address| format!(" and http://{address}")).unwrap_or_default();
                let line = format!("serving calls on {}{tcp}, operators on {}", host.socket, host.admin_socket);
                printable::line(&line).into_owned()
            };
            own_log::say_within(READY_PATIENCE, line);
        },
    );
    let Err(error) = served else {
        log.finish();
        return Ok(());
    };
    // Told here, in the way of the log: whoever does not read standard error, or output, must not keep the end waiting.
    let Failed { message, status } = error.into();
    if json {
        own_log::say_within(own_log::END_PATIENCE, printable::json(&serde_json::json!({ "error": message })));
    } else {
        log.tell(&format!("{}{message}", printable::PREFIX));
    }
    log.finish();
    Err(Failed { message: String::new(), status })
}
