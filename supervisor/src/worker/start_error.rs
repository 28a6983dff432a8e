//! Why a worker's start ended early, and whose fault that is.

use bytes::Bytes;
use sublet_proto::{level::Level, link::sandbox::OnRefused};

use super::{FunctionEnd, StartFailure, Worker, channel::ChannelError, signal_name, token::TokenError};
use crate::{cgroups::CgroupError, nursery::NurseryError};

/// Why the start ended early, as its keeper saw it.
#[derive(Debug)]
pub(super) enum StartError {
    /// The sandbox is not what was planned; what is wrong with it.
    Posture(Vec<String>),
    /// The owner's limits cannot be set.
    Limits(CgroupError),
    Nursery(NurseryError),
    Token(TokenError),
    /// What the launcher says it could not do, or the runtime it serves.
    Launcher(Bytes),
    /// The launcher was refused a process, a descriptor or memory.
    Shortage(Bytes),
    Channel(ChannelError),
}

impl From<ChannelError> for StartError {
    fn from(error: ChannelError) -> Self {
        Self::Channel(error)
    }
}

impl StartError {
    /// Whose fault it is, by all that is known of the worker.
    pub(super) fn judge(self, worker: &Worker) -> StartFailure {
        let (theirs, ours) = (StartFailure::theirs, StartFailure::ours::<String>);
        match self {
            Self::Posture(wrong) => {
                ours(format!("the sandbox is not as planned, seen from outside: {}", wrong.join("; ")))
            }
            Self::Limits(error) => ours(format!("its owner's limits cannot be set: {error}")),
            Self::Nursery(error) => ours(error.to_string()),
            Self::Token(TokenError::Provider(error)) => StartFailure::Token(error),
            Self::Token(TokenError::Ours(error)) => ours(error),
            Self::Launcher(said) => of_words(said),
            Self::Shortage(said) => {
                let is_limit = limit_that_bit(worker).is_some_and(|level| level != Level::Above);
                if is_limit { of_words(said) } else { ours(String::from_utf8_lossy(&said).into_owned()) }
            }
            Self::Channel(ChannelError::Os(error)) => ours(error.to_string()),
            Self::Channel(ChannelError::Violation(what)) => {
                theirs("command", format!("it broke the frame protocol before READY: {what}"))
            }
            Self::Channel(ChannelError::TooLarge { seen, .. }) => {
                theirs("command", format!("it broke the frame protocol before READY: a frame of {seen} bytes"))
            }
            Self::Channel(ChannelError::Closed) => closed_early(worker),
        }
    }
}

/// The launcher's words are plain; a runtime's are JSON, and go to the caller as they are.
fn of_words(said: Bytes) -> StartFailure {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct RuntimeError {
        error_type: String,
        #[serde(default)]
        error_message: String,
    }
    match serde_json::from_slice(&said) {
        Ok(RuntimeError { error_type, error_message }) => {
            let message = format!("{error_type}: {error_message}");
            StartFailure::Theirs { message, detail: String::new(), setting: "handler", said }
        }
        Err(_) => StartFailure::theirs("command", String::from_utf8_lossy(&said).into_owned()),
    }
}

/// The level of the limit that has ended a process of it or refused it one, when one has.
fn limit_that_bit(worker: &Worker) -> Option<Level> {
    let group = worker.group()?;
    let bites = group.bites();
    let memory = (bites.oom_kills > 0).then(|| group.memory_bite().level);
    memory.or_else(|| (bites.pids_refused > 0).then(|| group.pids_bite().level))
}

/// It ended, or let go of its channel, before it was ready.
fn closed_early(worker: &Worker) -> StartFailure {
    let bites = worker.group().map(|group| group.bites()).unwrap_or_default();
    if bites.oom_kills > 0 && limit_that_bit(worker) == Some(Level::Above) {
        let what = "it was ended for memory by a limit above sublet's own groups, or by the host itself";
        return StartFailure::ours(what);
    }
    let theirs = StartFailure::theirs;
    let refused = worker.refused_calls();
    if bites.oom_kills > 0 {
        return theirs("memory_max", "its memory limit ended it before it was ready".into());
    }
    if worker.entry.settings.on_refused_syscall == OnRefused::Kill
        && let Some(name) = refused.last()
    {
        return theirs("on_refused_syscall", format!("it was ended for the system call {name} before it was ready"));
    }
    match worker.function_end() {
        Some(FunctionEnd { code: Some(code), .. }) => {
            theirs("command", format!("it exited with status {code} before it was ready"))
        }
        Some(FunctionEnd { signal: Some(signal), .. }) => {
            let signal = signal_name(signal);
            theirs("command", format!("it was ended by {signal} before it was ready"))
        }
        Some(FunctionEnd { code: None, signal: None, .. }) | None => {
            theirs("command", "it closed its channel before it was ready".into())
        }
    }
}
