//! Why a call did not end well: what was seen of the worker becomes one verdict of the closed list, with the limit, the
//! value seen and the setting to change.

use std::time::Duration;

use nix::sys::signal::Signal;
use sublet_proto::{
    link::{nursery::TmpSpace, sandbox::OnRefused},
    v1::{Verdict, VerdictKind},
};

use crate::{
    config::format_duration,
    driver::catalogue::Entry,
    worker::{FunctionEnd, PostMortem},
};

/// The name people know a signal by, with its number.
pub fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |name| format!("signal {number} ({name})"))
}

fn verdict(kind: VerdictKind, message: impl Into<String>) -> Verdict {
    Verdict { kind: kind.into(), message: message.into(), ..Verdict::default() }
}

fn with(entry: &Entry, verdict: Verdict, setting: &str, limit: impl ToString, seen: impl ToString) -> Verdict {
    Verdict { setting: entry.setting(setting), limit: limit.to_string(), seen: seen.to_string(), ..verdict }
}

/// The memory limit ended it.
fn memory(entry: &Entry, peak_bytes: u64) -> Verdict {
    let limit = entry.settings.memory_max;
    let seen = if peak_bytes > 0 { format!("{peak_bytes} bytes") } else { "more".to_owned() };
    let verdict =
        verdict(VerdictKind::Memory, format!("the worker passed its memory limit of {limit} and was ended by it"));
    with(entry, verdict, "memory_max", limit, seen)
}

fn pids(entry: &Entry) -> Verdict {
    let limit = entry.settings.pids_max;
    let message = format!("the worker was refused a process or thread by its limit of {limit}, and failed");
    with(entry, verdict(VerdictKind::Pids, message), "pids_max", limit, format!("{}", u64::from(limit) + 1))
}

fn disk(entry: &Entry, tmp: Option<TmpSpace>) -> Verdict {
    let settings = &entry.settings;
    let full_of_files = tmp.is_some_and(|tmp| tmp.inodes_free == 0 && tmp.bytes_free > 0);
    if full_of_files {
        let limit = settings.tmp_inodes;
        let message = format!("the worker's /tmp had all the {limit} files it may have, and the call failed");
        return with(entry, verdict(VerdictKind::Disk, message), "tmp_inodes", limit, limit);
    }
    let limit = settings.tmp_size;
    let message = format!("the worker's /tmp of {limit} was full, or one file reached that size, and the call failed");
    with(entry, verdict(VerdictKind::Disk, message), "tmp_size", limit, limit)
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
        Verdict { limit: shown, seen, setting: "the call's timeout".into(), ..verdict }
    } else {
        with(entry, verdict, "timeout", shown, seen)
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
    /// Whether forks were refused since the last call that failed.
    pub forks_refused: bool,
}

/// Of a call whose worker died.
pub fn of_death(entry: &Entry, post: &PostMortem, noticed: Noticed<'_>) -> Verdict {
    let FunctionEnd { code, signal, tmp } =
        post.function.unwrap_or(FunctionEnd { code: None, signal: post.init_signal, tmp: None });
    if post.bites.oom_kills > 0 {
        return memory(entry, post.memory_peak_bytes);
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
    if noticed.forks_refused {
        return pids(entry);
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
    entry: &Entry,
    failed: &Failed,
    tmp: Option<TmpSpace>,
    oom_kills: u64,
    peak_bytes: u64,
    noticed: Noticed<'_>,
) -> Verdict {
    if oom_kills > 0 {
        return memory(entry, peak_bytes);
    }
    if matches!(failed, Failed::Signal(signal) if *signal == Signal::SIGSYS as i32) {
        return refused_syscall(entry, noticed.refused.last().map_or("unknown", String::as_str));
    }
    let too_large_file = matches!(failed, Failed::Signal(signal) if *signal == Signal::SIGXFSZ as i32);
    if too_large_file || tmp.is_some_and(TmpSpace::is_full) {
        return disk(entry, tmp);
    }
    if noticed.forks_refused {
        return pids(entry);
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

/// Of a call whose answer is over the limit.
pub fn answer_too_large(entry: &Entry, seen: u32) -> Verdict {
    let limit = entry.settings.answer_max_bytes;
    // An exec launcher stops reading one byte past the limit, so all that is known is "more".
    let message = format!("the answer is larger than the {limit} bytes the function may give");
    let verdict = verdict(VerdictKind::AnswerTooLarge, message);
    with(entry, verdict, "answer_max", format!("{limit} bytes"), format!("at least {seen} bytes"))
}

/// Of a call whose worker could not be started.
pub fn start(entry: &Entry, message: &str, setting: &str) -> Verdict {
    let verdict = verdict(VerdictKind::Start, format!("the function could not be started: {message}"));
    Verdict { seen: message.to_owned(), setting: entry.setting(setting), ..verdict }
}

/// Of a call whose worker was taken away.
pub fn evicted() -> Verdict {
    verdict(VerdictKind::Evicted, "an operator took the worker away before it answered")
}
