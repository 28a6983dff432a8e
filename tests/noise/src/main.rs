//! The loads of the noisy-neighbour bench, each in a process of its own, so that they share no runtime thread.
//!
//! ```text
//!   noise quiet      --gRPC, at a steady rate-->     supervisor   latency counted from the time a call was due
//!   noise neighbour  --gRPC, N calls in flight-->    supervisor   how often its calls ended, and with which reason
//!   noise spin                                                    a stranger outside of sublet who keeps the cores busy
//! ```
//! Started by `tests/noise/bench.py`, which says when; each is bounded in time by itself, and ends early when its stdin
//! is closed, so nothing outlives the bench however that ends. Each prints one line of JSON, or one line on stderr and
//! ends with status 1.

mod ends;
mod neighbour;
mod pace;
mod quiet;
mod spin;
mod stdin;
mod sys;

use std::{
    error::Error as _,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Parser, Subcommand};
use serde::Serialize;
use sublet_proto::v1::{InvokeRequest, invoker_client::InvokerClient};
use tonic::transport::{Channel, Endpoint};

/// Longest that any role runs, in seconds.
const SECONDS_MAX: u64 = 600;

/// Why a role ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine refused something.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// There is nobody to call.
    #[error("connect to {path}")]
    Connect {
        /// The socket.
        path: String,
        /// tonic's reason.
        source: tonic::transport::Error,
    },
    /// What was measured would mean nothing.
    #[error("{0}")]
    Useless(String),
}

impl Error {
    fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

#[derive(Parser)]
#[command(name = "noise", about)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Subcommand)]
enum Role {
    /// Call at a steady rate and time each call from when it was due.
    Quiet(quiet::Quiet),
    /// Keep calls in flight and count how they end.
    Neighbour(neighbour::Neighbour),
    /// Keep threads busy, outside of any worker.
    Spin(spin::Spin),
}

/// Whom to call.
#[derive(Args)]
pub struct Target {
    /// The call socket.
    #[arg(long)]
    socket: PathBuf,
    #[arg(long, default_value = "acme")]
    tenant: String,
    #[arg(long, default_value = "probe")]
    function: String,
    #[arg(long)]
    sub_tenant: String,
}

impl Target {
    async fn connect(&self) -> Result<InvokerClient<Channel>, Error> {
        let path = self.socket.display().to_string();
        let failed = |source| Error::Connect { path: path.clone(), source };
        let endpoint = Endpoint::from_shared(format!("unix:{path}")).map_err(failed)?;
        Ok(InvokerClient::new(endpoint.connect().await.map_err(failed)?))
    }

    fn request(&self, payload: String) -> InvokeRequest {
        InvokeRequest {
            tenant: self.tenant.clone(),
            function: self.function.clone(),
            sub_tenant: self.sub_tenant.clone(),
            payload: payload.into_bytes().into(),
            ..InvokeRequest::default()
        }
    }
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().role {
        Role::Quiet(quiet) => quiet::run(quiet),
        Role::Neighbour(neighbour) => neighbour::run(neighbour),
        Role::Spin(spin) => spin::run(&spin),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut line = format!("noise: {error}");
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

/// One thread for all of a role: what it costs is easily told from what it measures.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("start the runtime"))
}

/// Says that the noise begins.
fn say_ready() -> Result<(), Error> {
    say("ready")
}

fn print(report: &impl Serialize) -> Result<(), Error> {
    say(&serde_json::to_string(report).map_err(|error| Error::io("write the report")(error.into()))?)
}

/// Not println: a bench that was killed reads no more, which is no reason to panic.
fn say(line: &str) -> Result<(), Error> {
    writeln!(io::stdout(), "{line}").map_err(Error::io("write to stdout"))
}
