//! Why a call did not end well: what was seen of the worker becomes one verdict of the closed list, with the limit, the
//! value seen and the setting to change.

use std::time::Duration;

use nix::sys::signal::Signal;
use sublet_proto::{
    link::{
        frame::TOO_LARGE,
        nursery::{Left, TmpSpace},
        sandbox::OnRefused,
    },
    v1::{Verdict, VerdictKind},
};

use super::{catalogue::Entry, hit::Scope};
use crate::{
    cgroups::bite::{Bite, Level},
    config::{ByteSize, format_duration},
    token::ProviderError,
    worker::{FunctionEnd, PostMortem, signal_name},
};

fn verdict(kind: VerdictKind, message: impl Into<String>) -> Verdict {
    Verdict { kind: kind.into(), message: message.into(), ..Verdict::default() }
}

/// A limit that is the function's own.
fn with(entry: &Entry, verdict: Verdict, key: &str, limit: impl ToString, seen: impl ToString) -> Verdict {
    Verdict {
        setting: entry.setting(key),
        limit: limit.to_string(),
        seen: seen.to_string(),
        level: Level::Worker.name().to_owned(),
        ..verdict
    }
}

/// Whose limit, for people.
const fn whose(level: Level) -> &'static str {
    match level {
        Level::Worker => "its own",
        Level::SubTenant => "its sub-tenant's",
        Level::Tenant => "its tenant's",
        Level::Host => "the host's",
    }
}

/// A memory limit ended it.
fn memory(scope: &Scope, bite: &Bite) -> Verdict {
    let size = |bytes: Option<u64>| bytes.map(ByteSize::from_bytes);
    let limit = size(bite.limit).map_or_else(|| "the host's memory".to_owned(), |limit| limit.to_string());
    let seen = bite.seen.filter(|seen| *seen > 0).map_or_else(|| "more".to_owned(), |seen| format!("{seen} bytes"));
    let message = format!("the worker was ended by {} memory limit of {limit}", whose(bite.level));
    Verdict {
        setting: scope.setting(bite.level, "memory_max"),
        limit,
        seen,
        level: bite.level.name().to_owned(),
        ..verdict(VerdictKind::Memory, message)
    }
}

fn pids(scope: &Scope, bite: &Bite) -> Verdict {
    let limit = bite.limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
    let message =
        format!("the worker was refused a process or thread by {} limit of {limit}, and failed", whose(bite.level));
    Verdict {
        setting: scope.setting(bite.level, "pids_max"),
        seen: bite.limit.map_or_else(|| "more".to_owned(), |limit| limit.saturating_add(1).to_string()),
        limit,
        level: bite.level.name().to_owned(),
        ..verdict(VerdictKind::Pids, message)
    }
}

fn disk(entry: &Entry, tmp: Option<TmpSpace>) -> Verdict {
    let settings = &entry.settings;
    let full_of_files = tmp.is_some_and(|tmp| tmp.inodes_free == 0 && tmp.bytes_free > 0);
    if full_of_files {
        let limit = settings.tmp_inodes;
        let message = format!("the worker's /tmp had all the {limit} files it may have, and the call failed");
        return with(entry, verdict(VerdictKind::Inodes, message), "tmp_inodes", limit, limit);
    }
    let limit = settings.tmp_size;
    let message = format!("the worker's /tmp of {limit} was full, or one file reached that size, and the call failed");
    with(entry, verdict(VerdictKind::Disk, message), "tmp_size", limit, limit)
}

fn descriptors(entry: &Entry) -> Verdict {
    let limit = entry.settings.nofile;
    let message = format!("a process of the worker had all the {limit} descriptors it may have, and the call failed");
    with(entry, verdict(VerdictKind::Descriptors, message), "nofile", limit, limit)
}

fn refused_syscall(entry: &Entry, name: &str) -> Verdict {
    let message = format!("the worker was ended for the system call {name}, which it may not make");
    with(entry, verdict(VerdictKind::RefusedSyscall, message), "on_refused_syscall", "not allowed", name)
}

/// A limit passed in time.
pub fn deadline(entry: &Entry, limit: Duration, callers_own: bool, seen: Duration) -> Verdict {
    let whose = if callers_own { "the caller's" } else { "the function's" };
    let shown = format_duration(limit);
    let verdict = verdict(VerdictKind::Deadline, format!("the call was not answered within {whose} limit of {shown}"));
    let seen = format_duration(seen);
    if callers_own {
        Verdict { limit: shown, seen, setting: "the call's timeout".into(), level: "call".into(), ..verdict }
    } else {
        Verdict { level: "function".into(), ..with(entry, verdict, "timeout", shown, seen) }
    }
}

/// A quota that held a worker back.
#[derive(Clone, Copy, Debug)]
pub struct HeldBack {
    /// Whose quota.
    pub level: Level,
    /// For how long.
    pub throttled: Duration,
    /// Of how long.
    pub running: Duration,
    /// Thousandths of a CPU.
    pub limit_millis: Option<u64>,
}

/// A deadline that passed because a quota held the worker back for half of the time or more; else it is what it was.
pub fn or_cpu(scope: &Scope, of_deadline: Verdict, held: Option<HeldBack>) -> Verdict {
    let Some(held) = held.filter(|held| held.throttled * 2 >= held.running && !held.running.is_zero()) else {
        return of_deadline;
    };
    let limit = held.limit_millis.map_or_else(|| "none".to_owned(), |millis| format!("{millis}m"));
    let message = format!(
        "{}; {} CPU quota of {limit} held it back for {} of the {} it ran",
        of_deadline.message,
        whose(held.level),
        format_duration(held.throttled),
        format_duration(held.running)
    );
    Verdict {
        kind: VerdictKind::Cpu.into(),
        message,
        setting: scope.setting(held.level, "cpu_quota"),
        limit,
        seen: format!("throttled for {}", format_duration(held.throttled)),
        level: held.level.name().to_owned(),
        ..of_deadline
    }
}

/// How a process of the function ended, when no limit explains it.
fn ended(entry: &Entry, code: Option<i32>, signal: Option<i32>) -> Verdict {
    match (code, signal) {
        (_, Some(signal)) => {
            let name = signal_name(signal);
            let verdict = verdict(VerdictKind::Crash, format!("the function was ended by {name}"));
            Verdict { seen: name, setting: entry.setting("command"), ..verdict }
        }
        (Some(code), None) => {
            let message = format!("the function exited with status {code} without an answer");
            Verdict {
                seen: format!("status {code}"),
                setting: entry.setting("command"),
                ..verdict(VerdictKind::Exit, message)
            }
        }
        (None, None) => verdict(VerdictKind::Exit, "the worker ended without an answer"),
    }
}

/// What was noticed while the call ran.
#[derive(Clone, Copy, Debug)]
pub struct Noticed<'a> {
    /// System calls refused during the worker's life.
    pub refused: &'a [String],
    /// Whose limit of processes refused a fork since the last call that failed; none when none was.
    pub forks_refused: Option<Bite>,
}

/// Of a call whose worker died.
pub fn of_death(scope: &Scope, post: &PostMortem, noticed: Noticed<'_>) -> Verdict {
    let entry = scope.entry();
    let FunctionEnd { code, signal, tmp } =
        post.function.unwrap_or(FunctionEnd { code: None, signal: post.init_signal, tmp: None });
    if let Some(bite) = &post.memory_bite {
        return memory(scope, bite);
    }
    if signal == Some(Signal::SIGSYS as i32) {
        return refused_syscall(entry, noticed.refused.last().map_or("unknown", String::as_str));
    }
    if post.function.is_none()
        && entry.settings.on_refused_syscall == OnRefused::Kill
        && let Some(name) = noticed.refused.last()
    {
        return refused_syscall(entry, name);
    }
    if signal == Some(Signal::SIGXFSZ as i32) || tmp.is_some_and(TmpSpace::is_full) {
        return disk(entry, tmp);
    }
    if let Some(bite) = &noticed.forks_refused {
        return pids(scope, bite);
    }
    ended(entry, code, signal)
}

/// How a call failed whose worker lives.
#[derive(Clone, Debug)]
pub enum Failed {
    /// The handler said so.
    Handler(bytes::Bytes),
    /// The process of an `exec` function exited with this status.
    Status(i32),
    /// The process of an `exec` function was ended by this signal.
    Signal(i32),
}

/// Of a call that failed while its worker goes on.
pub fn of_failure(
    scope: &Scope,
    failed: &Failed,
    left: Option<Left>,
    memory_bite: Option<Bite>,
    noticed: Noticed<'_>,
) -> Verdict {
    let entry = scope.entry();
    if let Some(bite) = &memory_bite {
        return memory(scope, bite);
    }
    if matches!(failed, Failed::Signal(signal) if *signal == Signal::SIGSYS as i32) {
        return refused_syscall(entry, noticed.refused.last().map_or("unknown", String::as_str));
    }
    let tmp = left.map(|left| left.tmp);
    let too_large_file = matches!(failed, Failed::Signal(signal) if *signal == Signal::SIGXFSZ as i32);
    if too_large_file || tmp.is_some_and(TmpSpace::is_full) {
        return disk(entry, tmp);
    }
    if let Some(bite) = &noticed.forks_refused {
        return pids(scope, bite);
    }
    if left.is_some_and(|left| left.is_out_of_descriptors) {
        return descriptors(entry);
    }
    match failed {
        Failed::Handler(what) => Verdict {
            function_error: what.clone(),
            ..verdict(VerdictKind::FunctionError, "the function reported an error")
        },
        Failed::Status(code) => ended(entry, Some(*code), None),
        Failed::Signal(signal) => ended(entry, None, Some(*signal)),
    }
}

/// Of a call whose worker broke the protocol.
pub fn bad_frame(what: &str) -> Verdict {
    Verdict {
        seen: what.to_owned(),
        ..verdict(VerdictKind::BadFrame, format!("the function broke the frame protocol: {what}"))
    }
}

/// Of a call whose payload its runtime cannot take.
pub fn bad_payload(entry: &Entry, why: &str) -> Verdict {
    let message = format!("the payload of a function with the Lambda runtime API must be JSON: {why}");
    Verdict { setting: entry.setting("runtime"), seen: why.to_owned(), ..verdict(VerdictKind::BadPayload, message) }
}

/// Of a call whose answer in pieces is over the limit of all of them.
pub fn stream_too_large(entry: &Entry, limit: u64) -> Verdict {
    let message = format!("the pieces of the answer are together larger than the {limit} bytes the function may give");
    let verdict = verdict(VerdictKind::AnswerTooLarge, message);
    let verdict = with(entry, verdict, "stream_max", format!("{limit} bytes"), "more");
    Verdict { level: "function".into(), ..verdict }
}

/// Of a call whose answer is over the limit.
pub fn answer_too_large(entry: &Entry, seen: u32) -> Verdict {
    let limit = entry.settings.answer_max_bytes;
    let seen = if seen == TOO_LARGE { "more".to_owned() } else { format!("{seen} bytes") };
    let message = format!("the answer is larger than the {limit} bytes the function may give");
    let verdict = verdict(VerdictKind::AnswerTooLarge, message);
    let verdict = with(entry, verdict, "answer_max", format!("{limit} bytes"), seen);
    Verdict { level: "function".into(), ..verdict }
}

/// Of a call whose worker could not be started.
pub fn start(entry: &Entry, message: &str, setting: &str) -> Verdict {
    let verdict = verdict(VerdictKind::Start, format!("the function could not be started: {message}"));
    Verdict { seen: message.to_owned(), setting: entry.setting(setting), ..verdict }
}

/// Of a call whose sub-tenant's token could not be had.
pub fn token(entry: &Entry, error: &ProviderError) -> Verdict {
    let message = format!("the sub-tenant's token could not be had: {error}");
    Verdict { seen: error.what.clone(), setting: entry.setting(error.setting), ..verdict(VerdictKind::Token, message) }
}

/// Of a call whose worker was taken away.
pub fn evicted() -> Verdict {
    verdict(VerdictKind::Evicted, "an operator took the worker away before it answered")
}
