//! Why a call did not end well: what was seen of the worker becomes one verdict of the closed list, with the limit, the
//! value seen and the setting to change.

use std::time::Duration;

use nix::sys::signal::Signal;
use sublet_proto::{
    level::Level,
    link::{frame::TOO_LARGE, nursery::TmpSpace, sandbox::OnRefused},
    v1::{Remark, Verdict, VerdictKind},
};

use super::limit_reached::Scope;
use crate::{
    catalogue::Entry,
    cgroups::bite::Bite,
    config::{ByteSize, format_duration},
    token::ProviderError,
    worker::{FunctionEnd, PostMortem, reply::ProcessEnd, signal_name},
};

/// Most bytes of stdout in a verdict. What a status carries of them is less.
const STDOUT_TAIL_MAX_BYTES: usize = 4096;

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
        Level::Call => "the call's",
        Level::Worker => "its own",
        Level::Function => "the function's",
        Level::SubTenant => "its sub-tenant's",
        Level::Tenant => "its tenant's",
        Level::Host => "the host's",
        Level::Above => "another's",
    }
}

/// A limit that was hit during a call. Whether it is the verdict or a remark depends on how the call ended.
#[derive(Clone, Debug)]
struct LimitHit {
    kind: VerdictKind,
    /// Whose.
    level: Level,
    limit: String,
    seen: String,
    setting: String,
    /// What it did, as a sentence without its end.
    did: String,
}

impl LimitHit {
    /// One of the function's own settings.
    fn own(entry: &Entry, kind: VerdictKind, key: &str, limit: impl ToString, did: String) -> Self {
        let limit = limit.to_string();
        Self { kind, level: Level::Worker, seen: limit.clone(), limit, setting: entry.setting(key), did }
    }

    fn memory(scope: &Scope, bite: &Bite) -> Self {
        if bite.level == Level::Above {
            return Self::above(VerdictKind::Memory, "a process of the worker was ended for memory");
        }
        let size = |bytes: Option<u64>| bytes.map(ByteSize::from_bytes);
        let limit = size(bite.limit).map_or_else(|| "the host's memory".to_owned(), |limit| limit.to_string());
        let seen = bite.seen.filter(|seen| *seen > 0).map_or_else(|| "more".to_owned(), |seen| format!("{seen} bytes"));
        Self {
            kind: VerdictKind::Memory,
            level: bite.level,
            seen,
            setting: scope.setting(bite.level, "memory_max"),
            did: format!("a process of the worker was ended by {} memory limit of {limit}", whose(bite.level)),
            limit,
        }
    }

    /// By a limit that sublet has not set.
    fn above(kind: VerdictKind, did: &str) -> Self {
        let did = format!("{did} by a limit of a group above sublet's own, or by the host itself, which is not known");
        let limit = "not known".to_owned();
        Self { kind, level: Level::Above, seen: "more".to_owned(), setting: String::new(), did, limit }
    }

    fn pids(scope: &Scope, bite: &Bite) -> Self {
        if bite.level == Level::Above {
            return Self::above(VerdictKind::Pids, "the worker was refused a process or thread");
        }
        let limit = bite.limit.map_or_else(|| "none".to_owned(), |limit| limit.to_string());
        Self {
            kind: VerdictKind::Pids,
            level: bite.level,
            seen: bite.limit.map_or_else(|| "more".to_owned(), |limit| limit.saturating_add(1).to_string()),
            setting: scope.setting(bite.level, "pids_max"),
            did: format!("the worker was refused a process or thread by {} limit of {limit}", whose(bite.level)),
            limit,
        }
    }

    /// Of a /tmp that is full, or of one file that has reached its size.
    fn tmp(entry: &Entry, tmp: Option<Tmp>) -> Self {
        let since = match tmp.filter(|tmp| tmp.space.is_full()).map(|tmp| tmp.was_full) {
            None | Some(Some(false)) => "",
            Some(Some(true)) => ", and was when the call came",
            Some(None) => ", since this call or before",
        };
        if tmp.is_some_and(|tmp| tmp.space.inodes_free == 0 && tmp.space.bytes_free > 0) {
            let limit = entry.settings.tmp_inodes;
            let did = format!("the worker's /tmp has all the {limit} files it may have{since}");
            return Self::own(entry, VerdictKind::Inodes, "tmp_inodes", limit, did);
        }
        let limit = entry.settings.tmp_size;
        let did = match tmp {
            Some(tmp) if tmp.space.is_full() => format!("the worker's /tmp of {limit} is full{since}"),
            Some(_) | None => format!("a file of the worker reached the {limit} of its /tmp"),
        };
        Self::own(entry, VerdictKind::Disk, "tmp_size", limit, did)
    }

    fn descriptors(entry: &Entry) -> Self {
        let limit = entry.settings.nofile;
        let did = format!("a process of the worker has all the {limit} descriptors it may have");
        Self::own(entry, VerdictKind::Descriptors, "nofile", limit, did)
    }

    /// As the reason why the call failed, by a process that ended in this way.
    fn into_verdict(self, how: &str) -> Verdict {
        let Self { kind, level, limit, seen, setting, did } = self;
        let message = format!("{did}, and the function {how}");
        Verdict { setting, limit, seen, level: level.name().to_owned(), ..verdict(kind, message) }
    }

    /// As something that happened beside.
    fn into_remark(self) -> Remark {
        let Self { kind, level, limit, seen, setting, did } = self;
        Remark { kind: kind.into(), message: did, limit, seen, setting, level: level.name().to_owned() }
    }
}

fn refused_syscall(entry: &Entry, refused: &[String]) -> Verdict {
    // Init reports a call before the worker is ended for it.
    let name = refused.last().map_or("of unknown name", String::as_str);
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
        Verdict { limit: shown, seen, setting: "the call's timeout".into(), level: Level::Call.to_string(), ..verdict }
    } else {
        Verdict { level: Level::Function.to_string(), ..with(entry, verdict, "timeout", shown, seen) }
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

/// How a process of the function ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Status(i32),
    Signal(i32),
    Unknown,
}

impl End {
    fn of(code: Option<i32>, signal: Option<i32>) -> Self {
        match (code, signal) {
            (_, Some(signal)) => Self::Signal(signal),
            (Some(code), None) => Self::Status(code),
            (None, None) => Self::Unknown,
        }
    }

    fn is_signal(self, signal: Signal) -> bool {
        self == Self::Signal(signal as i32)
    }

    /// The rest of a sentence that begins with "the function".
    fn words(self) -> String {
        match self {
            Self::Signal(signal) => format!("was ended by {}", signal_name(signal)),
            Self::Status(code) => format!("exited with status {code} without an answer"),
            Self::Unknown => "ended without an answer".to_owned(),
        }
    }

    /// When neither a limit nor a filter explains it.
    fn verdict(self, entry: &Entry) -> Verdict {
        let (kind, seen) = match self {
            Self::Signal(signal) => (VerdictKind::Crash, signal_name(signal)),
            Self::Status(code) => (VerdictKind::Exit, format!("status {code}")),
            Self::Unknown => return verdict(VerdictKind::Exit, "the worker ended without an answer"),
        };
        let verdict = verdict(kind, format!("the function {}", self.words()));
        Verdict { seen, setting: entry.setting("command"), ..verdict }
    }
}

/// A worker's /tmp at the end of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tmp {
    /// What is left of it.
    pub space: TmpSpace,
    /// Whether it was full when the call came; none where nobody looked.
    pub was_full: Option<bool>,
}

impl Tmp {
    /// Whether it is known that this call has filled it.
    fn was_filled(self) -> bool {
        self.space.is_full() && self.was_full == Some(false)
    }
}

/// What was noticed of a worker from the delivery of a call to its end. Nothing of an earlier call is in it.
#[derive(Clone, Debug, Default)]
pub struct Noticed {
    /// System calls that were refused, in their order.
    pub refused: Vec<String>,
    /// Whose memory limit killed one of its processes, when one did.
    pub memory: Option<Bite>,
    /// Whose limit of processes refused it a fork, when one did.
    pub forks: Option<Bite>,
    /// Its /tmp, where it was looked at.
    pub tmp: Option<Tmp>,
    /// Whether one of its processes has all the descriptors it may have.
    pub is_out_of_descriptors: bool,
}

impl Noticed {
    /// Whether any limit was hit.
    pub fn has_limits(&self) -> bool {
        let is_full = self.tmp.is_some_and(|tmp| tmp.space.is_full());
        self.memory.is_some() || self.forks.is_some() || is_full || self.is_out_of_descriptors
    }
}

/// Whether what could not be had was kept back by a limit that sublet has set, and not by the host.
pub fn is_own_shortage(noticed: &Noticed) -> bool {
    [noticed.memory, noticed.forks].into_iter().flatten().any(|bite| bite.level != Level::Above)
}

/// Whether a verdict tells of processes that have ended, or of a channel that was closed: what the end of the nursery, with
/// which every worker ends, would look like as well.
pub const fn tells_of_an_end(kind: VerdictKind) -> bool {
    match kind {
        VerdictKind::Crash | VerdictKind::Exit | VerdictKind::Start | VerdictKind::BadFrame => true,
        VerdictKind::Unspecified
        | VerdictKind::Memory
        | VerdictKind::Pids
        | VerdictKind::Disk
        | VerdictKind::Inodes
        | VerdictKind::Descriptors
        | VerdictKind::Cpu
        | VerdictKind::Deadline
        | VerdictKind::RefusedSyscall
        | VerdictKind::FunctionError
        | VerdictKind::AnswerTooLarge
        | VerdictKind::Evicted
        | VerdictKind::Token
        | VerdictKind::BadPayload => false,
    }
}

/// The limit, or the filter, that explains why a process of the function ended. Only one that is known to have been hit
/// during the call does, and none explains a status of 0, by which a process says that all is well with it.
fn explained(scope: &Scope, end: End, noticed: &Noticed) -> Option<Verdict> {
    let entry = scope.entry();
    if end == End::Status(0) {
        return None;
    }
    if let Some(bite) = &noticed.memory {
        return Some(LimitHit::memory(scope, bite).into_verdict(&end.words()));
    }
    if end.is_signal(Signal::SIGXFSZ) || noticed.tmp.is_some_and(Tmp::was_filled) {
        return Some(LimitHit::tmp(entry, noticed.tmp).into_verdict(&end.words()));
    }
    let forks = noticed.forks.as_ref()?;
    Some(LimitHit::pids(scope, forks).into_verdict(&end.words()))
}

/// Of a call whose worker died.
pub fn of_death(scope: &Scope, post: &PostMortem, noticed: &Noticed) -> Verdict {
    let entry = scope.entry();
    let end = match post.function {
        Some(FunctionEnd { code, signal, .. }) => End::of(code, signal),
        None => End::of(None, post.init_signal),
    };
    let is_killed_for_call = post.function.is_none()
        && noticed.memory.is_none()
        && entry.settings.on_refused_syscall == OnRefused::Kill
        && !noticed.refused.is_empty();
    if is_killed_for_call {
        return refused_syscall(entry, &noticed.refused);
    }
    // Where we have ended the group for a call that is allowed after all, or a limit did, that is the reason.
    let was_ended_by_us = entry.settings.on_refused_syscall == OnRefused::Kill && !noticed.refused.is_empty();
    if post.was_killed_from_outside && post.function.is_none() && noticed.memory.is_none() && !was_ended_by_us {
        return verdict(VerdictKind::Evicted, "somebody on the host ended the worker before it answered");
    }
    explained(scope, end, noticed).unwrap_or_else(|| end.verdict(entry))
}

/// A deadline that passed while somebody on the host had the worker's group frozen: the function could not have answered.
pub fn or_frozen(of_deadline: Verdict, was_frozen: bool) -> Verdict {
    if !was_frozen {
        return of_deadline;
    }
    let message = format!("{}; somebody on the host had the worker frozen meanwhile", of_deadline.message);
    Verdict { message, ..of_deadline }
}

/// How a call failed whose worker lives.
#[derive(Clone, Debug)]
pub enum Failed {
    /// The handler said so.
    Handler(bytes::Bytes),
    /// The process of an `exec` function ended.
    Process {
        /// In this way.
        how: ProcessEnd,
        /// With this on its stdout.
        stdout: bytes::Bytes,
    },
}

/// Of a call that failed while its worker goes on.
pub fn of_failure(scope: &Scope, failed: &Failed, noticed: &Noticed) -> Verdict {
    let (how, stdout) = match failed {
        // Whatever limit it has met, it has gone on to say this.
        Failed::Handler(what) => {
            return Verdict {
                function_error: what.clone(),
                ..verdict(VerdictKind::FunctionError, "the function reported an error")
            };
        }
        Failed::Process { how, stdout } => (how, stdout),
    };
    let end = match how {
        ProcessEnd::Status(code) => End::Status(*code),
        ProcessEnd::Signal(signal) => End::Signal(*signal),
    };
    // A copy: a slice would keep all of it in memory for as long as the verdict.
    let stdout_tail = bytes::Bytes::copy_from_slice(&stdout[stdout.len().saturating_sub(STDOUT_TAIL_MAX_BYTES)..]);
    Verdict { stdout_tail, ..explained(scope, end, noticed).unwrap_or_else(|| end.verdict(scope.entry())) }
}

/// The limits that were hit during a call and are not its verdict, which is of this kind; none: it ended well.
pub fn remarks(scope: &Scope, noticed: &Noticed, verdict: Option<VerdictKind>) -> Vec<Remark> {
    let entry = scope.entry();
    let hits = [
        noticed.memory.as_ref().map(|bite| LimitHit::memory(scope, bite)),
        noticed.forks.as_ref().map(|bite| LimitHit::pids(scope, bite)),
        noticed.tmp.filter(|tmp| tmp.space.is_full()).map(|tmp| LimitHit::tmp(entry, Some(tmp))),
        noticed.is_out_of_descriptors.then(|| LimitHit::descriptors(entry)),
    ];
    hits.into_iter().flatten().filter(|hit| Some(hit.kind) != verdict).map(LimitHit::into_remark).collect()
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
    Verdict { level: Level::Function.to_string(), ..verdict }
}

/// Of a call whose answer is over the limit.
pub fn answer_too_large(entry: &Entry, seen: u32) -> Verdict {
    let limit = entry.settings.answer_max_bytes;
    let seen = if seen == TOO_LARGE { "more".to_owned() } else { format!("{seen} bytes") };
    let message = format!("the answer is larger than the {limit} bytes the function may give");
    let verdict = verdict(VerdictKind::AnswerTooLarge, message);
    let verdict = with(entry, verdict, "answer_max", format!("{limit} bytes"), seen);
    Verdict { level: Level::Function.to_string(), ..verdict }
}

/// Of a call whose worker could not be started.
pub fn start(entry: &Entry, message: &str, setting: &str) -> Verdict {
    let verdict = verdict(VerdictKind::Start, format!("the function could not be started: {message}"));
    Verdict { seen: message.to_owned(), setting: entry.setting(setting), ..verdict }
}

/// Of a call whose sub-tenant's token could not be had. Why is the operator's business: it names programs and files of the
/// host.
pub fn token(entry: &Entry, error: &ProviderError) -> Verdict {
    let message = "the sub-tenant's token could not be had from its provider";
    Verdict { setting: entry.setting(error.setting), ..verdict(VerdictKind::Token, message) }
}

/// Of a call whose worker was taken away.
pub fn evicted() -> Verdict {
    verdict(VerdictKind::Evicted, "an operator took the worker away before it answered")
}

#[cfg(test)]
mod tests;
