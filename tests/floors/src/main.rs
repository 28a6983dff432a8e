//! The warm floor: what a call costs when nothing but gRPC (and, in mode `pipe`, one socketpair round trip) is done.
//!
//! Called by `tests/bench`, in turn with the product, and by hand. One program in three roles, so that floor and product
//! are driven by the very same client:
//!
//! ```text
//!   warm-floor (client) --gRPC over a UNIX socket--> warm-floor server --socketpair--> warm-floor child   (mode pipe)
//!                       --gRPC over a UNIX socket--> warm-floor server                                     (mode echo)
//!                       --gRPC over a UNIX socket--> the product                                    (with --against)
//! ```
//!
//! A fourth role, `runtime-api`, times a client of the Lambda Runtime API against the least server there can be.
//!
//! Prints one line of JSON with every sample. Fails, with a status of 1 and one line on stderr, on the first call that
//! is refused or answered with other bytes than were sent: a figure over failed calls means nothing.
#![forbid(unsafe_code)]

mod child;
mod client;
mod runtime_api;
mod server;

use std::{
    error::Error as _,
    io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Largest payload any role accepts, in bytes; above the 6 MiB the benches go to.
pub const PAYLOAD_MAX_BYTES: usize = 16 << 20;
/// Runtime threads of client and server alike.
const RUNTIME_THREADS: usize = 2;
/// Most calls in flight, and so most children.
const IN_FLIGHT_MAX: u16 = 1024;

/// Why a role ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine refused something.
    #[error("{what}")]
    Io {
        /// What was tried, on which path.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The gRPC transport failed.
    #[error("{what}")]
    Transport {
        /// What was tried, on which path.
        what: String,
        /// tonic's reason.
        source: tonic::transport::Error,
    },
    /// A call was not answered with a result.
    #[error("call refused")]
    Refused(#[source] Box<tonic::Status>),
    /// A call was answered with something else than it sent.
    #[error("sent {sent} bytes, answered with {answered} other ones")]
    OtherAnswer {
        /// Length of the payload sent, in bytes.
        sent: usize,
        /// Length of the answer, in bytes.
        answered: usize,
    },
    /// The other end of a pipe or socket broke the little protocol spoken there.
    #[error("{0}")]
    Protocol(String),
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// What the server does with a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Mode {
    /// Answers it at once.
    Echo,
    /// Sends it through one round trip to a child process first: the warm floor.
    Pipe,
}

/// How a call found its worker, as its receipt says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Start {
    /// One was made for it.
    Cold,
    /// A cell was labelled for it.
    Cell,
    /// It was idle.
    Warm,
}

#[derive(Parser)]
#[command(name = "warm-floor", about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    role: Option<Role>,
    #[command(flatten)]
    drive: Drive,
}

#[derive(Subcommand)]
enum Role {
    /// Serve the floor on a UNIX socket until stdin is closed.
    Server(Serve),
    /// Echo frames on descriptor 0, which must be a UNIX stream socket.
    Child,
    /// Serve the Lambda Runtime API to a client, outside of any cage, and time it.
    RuntimeApi(runtime_api::RuntimeApi),
}

/// Arguments of the server role.
#[derive(Args)]
pub struct Serve {
    /// Where to listen; a socket left there is replaced.
    #[arg(long)]
    socket: PathBuf,
    #[arg(long, value_enum)]
    mode: Mode,
    /// Child processes, and so the most calls in flight in mode `pipe`.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(IN_FLIGHT_MAX)))]
    children: u16,
}

/// Arguments of the client role.
#[derive(Args)]
pub struct Drive {
    /// Where the floor's own server listens for this run.
    #[arg(long, default_value = "/tmp/warm-floor.sock", conflicts_with = "against")]
    socket: PathBuf,
    #[arg(long, value_enum, default_value = "pipe", conflicts_with = "against")]
    mode: Mode,
    /// Drive the server that already listens here (the product) instead of the floor's.
    #[arg(long, requires = "tenant", requires = "function")]
    against: Option<PathBuf>,
    #[arg(long, default_value = "acme")]
    tenant: String,
    #[arg(long, default_value = "echo")]
    function: String,
    #[arg(long, default_value = "sub-tenant-1")]
    sub_tenant: String,
    /// Each call for a sub-tenant nobody has seen: every start is cold. Not measured against a floor of this program.
    #[arg(long, requires = "against")]
    fresh: bool,
    /// Milliseconds between the end of a call and the next one of the same task.
    #[arg(long, default_value_t = 0)]
    gap: u64,
    /// Only calls that found their worker in this way; the others are counted and left out.
    #[arg(long, requires = "against", value_enum)]
    start: Option<Start>,
    /// Calls in flight at any time, all over one connection.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=i64::from(IN_FLIGHT_MAX)))]
    in_flight: u16,
    /// Calls measured.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    calls: u32,
    /// Calls made first and not measured.
    #[arg(long, default_value_t = 200)]
    warm_up: u32,
    /// Payload in bytes.
    #[arg(long, default_value_t = 256)]
    payload: usize,
    /// The payload itself instead; for functions that do not take any bytes.
    #[arg(long, conflicts_with = "payload")]
    text: Option<String>,
    /// Accept any answer; for functions that do not echo.
    #[arg(long)]
    any_answer: bool,
    /// Name in the output; by default says what was driven.
    #[arg(long)]
    name: Option<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = match &cli.role {
        None => client::run(&cli.drive),
        Some(Role::Server(serve)) => server::run(serve),
        Some(Role::Child) => child::run(),
        Some(Role::RuntimeApi(arguments)) => runtime_api::run(arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut line = format!("warm-floor: {error}");
            let mut cause = error.source();
            while let Some(next) = cause {
                line.push_str(&format!(": {next}"));
                cause = next.source();
            }
            eprintln!("{line}");
            ExitCode::FAILURE
        }
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(RUNTIME_THREADS)
        .enable_all()
        .build()
        .map_err(Error::io("start the runtime"))
}

/// Removes a socket, and only a socket; nothing there is fine.
fn remove_socket(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::FileTypeExt as _;
    match path.symlink_metadata() {
        Ok(found) if found.file_type().is_socket() => {
            std::fs::remove_file(path).map_err(Error::io(format!("remove {}", path.display())))
        }
        Ok(_) => Err(Error::Protocol(format!("{} is there and is no socket", path.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(format!("look at {}", path.display()))(error)),
    }
}
