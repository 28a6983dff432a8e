//! Workers, as the supervisor knows them: one [`Worker`] each, kept by one task ([`keeper`]) from spawn to reap, lent to
//! one call at a time ([`exchange`]). A cell is a worker that has no owner yet.

pub mod alarm;
pub mod busy_poll;
pub mod channel;
pub mod exchange;
pub mod groups;
pub mod keeper;
pub mod log;
pub mod posture;
pub mod reply;
mod reports;
pub mod share;
mod shortage;
pub mod shown;
pub mod slots;
pub mod token;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use sublet_pool::{Blame, KillReason, SubTenant, WorkerId};
use sublet_proto::{
    level::Level,
    link::{
        group::{SUB_TENANT_PREFIX, WORKER_PREFIX},
        init::ToInit,
        nursery::{InitReport, TmpSpace},
        sandbox::OnRefused,
        step::StepId,
    },
};
use tokio::sync::{Notify, watch};

use self::token::Hold;
use self::{
    alarm::Alarm,
    busy_poll::{BusyPoll, Pace},
    channel::Channel,
    log::Log,
    posture::Fact,
    reports::Reports,
    shown::Shown,
};
use crate::{
    catalogue::Entry,
    cgroups::reading::Reading,
    cgroups::{
        bite::Bite,
        counters::LevelCounters,
        leaf::{Bites, Leaf},
        tree::{Meddling, Tree},
    },
    config::Layout,
    token::ProviderError,
    usage::meter::Meter,
};

/// How the function's process ended, as init saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FunctionEnd {
    /// Exit code, when it exited.
    pub code: Option<i32>,
    /// Signal, when one ended it.
    pub signal: Option<i32>,
    /// What was left in /tmp.
    pub tmp: Option<TmpSpace>,
}

/// What is known of a worker when nothing of it is left. Bites are those since its last call was delivered.
#[derive(Clone, Debug, Default)]
pub struct PostMortem {
    /// Whose memory limit killed one of its processes, when one did.
    pub memory_bite: Option<Bite>,
    /// Whose limit of processes refused it a fork, when one did.
    pub pids_bite: Option<Bite>,
    /// Highest memory in bytes.
    pub memory_peak_bytes: u64,
    /// How the function ended, when init could tell.
    pub function: Option<FunctionEnd>,
    /// Signal that ended init, when one did.
    pub init_signal: Option<i32>,
    /// SIGKILL has ended init before anybody of ours sent it one. Nothing in the sandbox can.
    pub was_killed_from_outside: bool,
}

/// The name people know a signal by, with its number.
pub fn signal_name(number: i32) -> String {
    Signal::try_from(number).map_or_else(|_| format!("signal {number}"), |name| format!("signal {number} ({name})"))
}

impl PostMortem {
    /// How the worker ended, in words.
    pub fn exit(&self) -> String {
        let signal = signal_name;
        match (self.function, self.init_signal) {
            (Some(FunctionEnd { signal: Some(number), .. }), _) => signal(number),
            (Some(FunctionEnd { code: Some(code), .. }), _) => format!("status {code}"),
            (_, Some(number)) => signal(number),
            (_, None) => "unknown".to_owned(),
        }
    }
}

/// Why a worker could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StartFailure {
    /// The function is at fault: it is missing, not executable, ended early or was never ready.
    Theirs {
        /// What happened, in words for its callers: no path of the host is in them.
        message: String,
        /// What only operators are told; empty when there is no more to tell.
        detail: String,
        /// The setting to look at.
        setting: &'static str,
        /// What its runtime said of it; empty when nothing.
        said: bytes::Bytes,
    },
    /// Its sub-tenant's token could not be had.
    Token(ProviderError),
    /// The host or sublet itself is at fault.
    Ours(String),
}

impl StartFailure {
    /// Whose fault it is.
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Theirs { .. } | Self::Token(_) => Blame::Theirs,
            Self::Ours(_) => Blame::Ours,
        }
    }

    fn theirs(setting: &'static str, message: String) -> Self {
        Self::Theirs { message, detail: String::new(), setting, said: bytes::Bytes::new() }
    }
}

/// Different refused system calls that are kept of a call and of a worker; init reports no more of a call.
const REFUSED_TOLD_MAX: usize = 16;

/// The setting to look at when a step has failed through the function's configuration; none when the host or sublet is at
/// fault.
fn setting_at_fault(failed: StepId, layout: &Layout) -> Option<&'static str> {
    match layout {
        _ if failed == StepId::MountFunction => Some("dir"),
        Layout::Dir(_) if failed.needs_mount_point() => Some("root"),
        Layout::Dir(_) | Layout::Host | Layout::Static => None,
    }
}

/// How far a start has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    Group,
    Sandbox,
    Confining,
    Checking,
    Waiting,
    Token,
    Loading,
}

impl Stage {
    /// In words for a start that takes too long.
    const fn words(self) -> &'static str {
        match self {
            Self::Group => "its group is being made",
            Self::Sandbox => "its sandbox is being made",
            Self::Confining => "its sandbox is being confined",
            Self::Checking => "its sandbox is being checked from outside",
            Self::Waiting => "its function has not been started",
            Self::Token => "its token has been asked for and is not there",
            Self::Loading => "it has been started and has not said READY",
        }
    }

    /// Whether nobody but sublet and the host has had a hand in it.
    const fn is_ours(self) -> bool {
        match self {
            Self::Group | Self::Sandbox | Self::Confining | Self::Checking => true,
            Self::Waiting | Self::Token | Self::Loading => false,
        }
    }
}

/// What was seen of a worker while it lives.
#[derive(Debug, Default)]
struct Seen {
    /// Names of system calls its filter refused since its last call was delivered; init reports each once and 16 at most.
    refused: Vec<String>,
    /// Those of its whole life, of which operators have been told.
    refused_ever: Vec<String>,
    function: Option<FunctionEnd>,
    start_failure: Option<StartFailure>,
    /// How far its start has come.
    start_stage: Stage,
    /// Limits that had bitten when its last call was delivered.
    bites_before: Bites,
    /// Processes the kernel had killed for memory when its last call had ended.
    oom_kills_known: u64,
}

/// Whose a worker is.
#[derive(Clone, Debug)]
pub struct Owner {
    /// The sub-tenant; its tenant and function are the worker's from birth.
    pub sub_tenant: SubTenant,
    /// What its function echoes in every answer.
    pub tag: [u8; 16],
    /// Its group below the tenant's, in which the worker is counted.
    pub group: String,
    /// Since when.
    pub since: Instant,
}

/// The channel of a worker that is ready, with what the one call that has it needs beside it.
#[derive(Debug)]
pub struct CallChannel {
    /// To talk to it.
    pub channel: Channel,
    /// For how long.
    pub alarm: Alarm,
    /// How soon it answers as a rule.
    pub pace: Pace,
    /// How long others wait for it to become free, once it has answered.
    pub patience: Alarm,
}

impl CallChannel {
    /// Of a worker that is ready.
    pub fn new(channel: Channel, busy_poll: &Arc<BusyPoll>) -> Self {
        let pace = Pace::new(busy_poll.clone());
        Self { channel, alarm: Alarm::new(), pace, patience: Alarm::new() }
    }
}

/// One worker.
#[derive(Debug)]
pub struct Worker {
    /// Its id.
    pub id: WorkerId,
    /// Its function.
    pub entry: Arc<Entry>,
    /// When it was asked for.
    pub born: Instant,
    /// What its function wrote.
    pub log: Log,
    reports: Reports,
    /// Its sub-tenant's token, if its function's workers are given one.
    pub token: Option<Hold>,
    /// Set once, for life.
    owner: OnceLock<Owner>,
    owned: Notify,
    /// Whether it was made for nobody in particular.
    pub was_cell: bool,
    recheck: OnceLock<posture::Recheck>,
    call_channel: Mutex<Option<CallChannel>>,
    leaf: OnceLock<Leaf>,
    /// The limits that it shows its function.
    pub shown: Shown,
    /// Of its sub-tenant and its tenant.
    above: OnceLock<Vec<(Level, Arc<LevelCounters>)>>,
    meter: Mutex<Meter>,
    pid: OnceLock<u32>,
    posture: OnceLock<Vec<Fact>>,
    starting: OnceLock<Duration>,
    seen: Mutex<Seen>,
    calls: AtomicU64,
    freezer: Freezer,
    /// Init has let go of its side before its keeper ended it.
    has_ended_by_itself: AtomicBool,
    /// What somebody else did to its group last, and when that was seen.
    meddled: Mutex<Option<(Instant, String)>>,
    /// Why it is not what it was made: somebody else has removed its group.
    lost: OnceLock<String>,
    kill: watch::Sender<Option<KillReason>>,
    end: watch::Sender<Option<Arc<PostMortem>>>,
}

impl Worker {
    /// A worker or cell that has been asked for.
    pub fn new(id: WorkerId, entry: Arc<Entry>, is_cell: bool) -> Self {
        let token = entry.settings.token.is_some().then(Hold::default);
        let log_max = usize::try_from(entry.settings.log_max.bytes()).unwrap_or(usize::MAX);
        Self {
            id,
            entry,
            born: Instant::now(),
            log: Log::new(log_max),
            reports: Reports::default(),
            token,
            owner: OnceLock::new(),
            owned: Notify::new(),
            was_cell: is_cell,
            recheck: OnceLock::new(),
            call_channel: Mutex::default(),
            leaf: OnceLock::new(),
            shown: Shown::default(),
            above: OnceLock::new(),
            meter: Mutex::default(),
            pid: OnceLock::new(),
            posture: OnceLock::new(),
            starting: OnceLock::new(),
            seen: Mutex::default(),
            calls: AtomicU64::new(0),
            freezer: Freezer::default(),
            has_ended_by_itself: AtomicBool::new(false),
            meddled: Mutex::default(),
            lost: OnceLock::new(),
            kill: watch::Sender::new(None),
            end: watch::Sender::new(None),
        }
    }

    /// Its name: in its cgroup, in receipts, on the command line.
    pub fn name(&self) -> String {
        format!("{WORKER_PREFIX}{}", self.id.0)
    }

    /// The group a cell is born in.
    pub fn cell_group(&self) -> String {
        format!("{SUB_TENANT_PREFIX}cell-{}", self.id.0)
    }

    /// Gives it its owner. True only the first time: there is no second.
    pub fn label(&self, owner: Owner) -> bool {
        let first = self.owner.set(owner).is_ok();
        self.owned.notify_one();
        first
    }

    /// Whose it is; none: a cell.
    pub fn owner(&self) -> Option<&Owner> {
        self.owner.get()
    }

    /// Waits until it has an owner.
    async fn owned(&self) -> &Owner {
        loop {
            if let Some(owner) = self.owner() {
                return owner;
            }
            self.owned.notified().await;
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the channel for one delivery. None while another has it, which the pool rules out.
    pub fn take_call_channel(&self) -> Option<CallChannel> {
        self.call_channel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives the channel back; not after anything but a clean exchange.
    pub fn put_call_channel(&self, call_channel: CallChannel) {
        *self.call_channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(call_channel);
    }

    /// It has got its group, in this tree.
    fn enter(&self, leaf: Leaf, tree: &Tree) -> bool {
        let above = leaf.name().upwards().skip(1);
        let counters = above.filter_map(|path| Some((path.level(), tree.group(&path)?.counters()?.clone())));
        self.above.get_or_init(|| counters.collect());
        self.leaf.set(leaf).is_ok()
    }

    /// Its cgroup, once made.
    pub fn leaf(&self) -> Option<&Leaf> {
        self.leaf.get()
    }

    /// Host pid of its init, once born.
    pub fn pid(&self) -> Option<u32> {
        self.pid.get().copied()
    }

    /// What was seen from outside before its first payload.
    pub fn posture(&self) -> &[Fact] {
        self.posture.get().map_or(&[], Vec::as_slice)
    }

    /// How long making it took, once it was ready.
    pub fn starting(&self) -> Option<Duration> {
        self.starting.get().copied()
    }

    /// Counts a call; returns how many it is now.
    pub fn count_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// A call is about to be delivered: what its verdict counts is counted from here on. Returns whether a process of it was
    /// killed for memory since the last call ended.
    pub fn begin_call(&self) -> bool {
        self.reports.take_in(|report| self.note(report));
        let bites = self.leaf.get().map(Leaf::bites).unwrap_or_default();
        let mut seen = self.seen();
        seen.bites_before = bites;
        let was_killed = bites.oom_kills > seen.oom_kills_known;
        seen.oom_kills_known = bites.oom_kills;
        if !std::mem::take(&mut seen.refused).is_empty() {
            drop(seen);
            // An init that does not read is about to end, or full of words: then a refusal that it has told of before is
            // not told again.
            self.tell_init(&ToInit::CallBegins).ok();
        }
        was_killed
    }

    /// Limits that bit since its last call was delivered.
    pub fn bites_in_call(&self) -> Bites {
        let Some(leaf) = self.leaf.get() else { return Bites::default() };
        let now = leaf.bites();
        let mut seen = self.seen();
        seen.oom_kills_known = seen.oom_kills_known.max(now.oom_kills);
        now.since(seen.bites_before)
    }

    /// Whether [`Self::bites_in_call`] has found that a process of it was killed for memory since its last call was delivered.
    pub fn has_lost_a_process(&self) -> bool {
        let seen = self.seen();
        seen.oom_kills_known > seen.bites_before.oom_kills
    }

    /// System calls its filter refused since its last call was delivered, or since its start.
    pub fn refused_calls(&self) -> Vec<String> {
        self.reports.take_in(|report| self.note(report));
        self.seen().refused.clone()
    }

    /// Takes a report of init in.
    fn note(&self, report: InitReport) {
        let mut seen = self.seen();
        match report {
            InitReport::StepFailed { id, step, error, is_shortage } => {
                let what = format!("{step}: {error}");
                // The step names the directory on the host, which is the operator's business alone.
                let theirs = |setting: &'static str, detail: String| StartFailure::Theirs {
                    message: format!("the {setting} of its configuration cannot be used as it is now"),
                    detail,
                    setting,
                    said: bytes::Bytes::new(),
                };
                let at_fault = setting_at_fault(id, &self.entry.settings.layout).filter(|_| !is_shortage);
                let failure = match at_fault {
                    Some(setting) => theirs(setting, what),
                    None => StartFailure::Ours(what),
                };
                seen.start_failure.get_or_insert(failure);
            }
            InitReport::SyscallRefused { name, .. } => {
                // Told once: a function may make it in each of its calls.
                if !seen.refused_ever.contains(&name) && seen.refused_ever.len() < REFUSED_TOLD_MAX {
                    let (tenant, function) = (&self.entry.tenant, &self.entry.name);
                    tracing::info!(worker = self.name(), %tenant, %function, call = name, "system call refused");
                    seen.refused_ever.push(name.clone());
                }
                if !seen.refused.contains(&name) && seen.refused.len() < REFUSED_TOLD_MAX {
                    seen.refused.push(name);
                }
                if self.entry.settings.on_refused_syscall == OnRefused::Kill
                    && let Some(leaf) = self.leaf()
                    && let Err(error) = leaf.kill()
                {
                    // Init waits for it, and the function for init: it is ended at the deadline of its call then.
                    tracing::error!(worker = self.name(), %error, "a worker that made a refused call cannot be killed");
                }
            }
            InitReport::FunctionEnded { code, signal, tmp } => seen.function = Some(FunctionEnd { code, signal, tmp }),
            InitReport::LimitsShown { number } => self.shown.done(number),
            InitReport::TokenWritten { number } => self.hear_of_token(number, None),
            InitReport::TokenFailed { number, error } => self.hear_of_token(number, Some(error)),
        }
    }

    fn hear_of_token(&self, number: u64, error: Option<String>) {
        // Of one that has none nobody waits for this.
        if let Some(token) = &self.token {
            token.hear(number, error);
        }
    }

    /// Takes init's reports in until it is `enough`; for as long as nobody else does.
    ///
    /// # Errors
    /// Init has ended, or cannot be understood.
    pub async fn hear_until(&self, enough: impl Fn() -> bool) -> std::io::Result<()> {
        match self.reports.until(|report| self.note(report), enough).await? {
            true => Ok(()),
            false => Err(std::io::Error::other("init has ended")),
        }
    }

    /// Tells its init of limits that have changed since it was told last, so that the function sees those it has. Returns
    /// the number to wait for.
    pub fn tell_limits(&self) -> Option<u64> {
        let (number, limits) = self.shown.news()?;
        // An init that does not read is about to end, and is not waited for.
        self.tell_init(&ToInit::Limits { number, limits }).ok().map(|()| number)
    }

    /// Sends its init something.
    ///
    /// # Errors
    /// Init has ended, or does not read.
    pub fn tell_init(&self, what: &ToInit) -> std::io::Result<()> {
        self.reports.tell(what)
    }

    /// Lets go of its init, once what it has said is taken in.
    fn close_reports(&self) {
        self.reports.close(|report| self.note(report));
    }

    /// How its function's process ended, when it did and init told.
    pub fn function_end(&self) -> Option<FunctionEnd> {
        self.seen().function
    }

    /// Why it could not be started.
    pub fn start_failure(&self) -> StartFailure {
        let seen = self.seen();
        seen.start_failure.clone().unwrap_or_else(|| {
            let limit = crate::config::format_duration(self.entry.settings.start_timeout);
            let message = format!("it was not ready within {limit}: {}", seen.start_stage.words());
            match seen.start_stage.is_ours() {
                true => StartFailure::Ours(message),
                false => StartFailure::theirs("start_timeout", message),
            }
        })
    }

    /// Whether it has ever used all the memory it may, but for what a process takes to be started.
    pub fn has_used_its_memory(&self) -> bool {
        const OF_A_PROCESS: u64 = 1 << 20;
        let peak = self.leaf.get().map_or(0, Leaf::memory_peak_bytes);
        peak + OF_A_PROCESS >= self.entry.settings.memory_max.bytes()
    }

    /// Its meter.
    pub fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its counters say now; none when it has none any more.
    pub fn reading(&self) -> Option<Reading> {
        self.leaf.get()?.reading()
    }

    /// How long the quotas of the levels above have held something back so far.
    pub fn throttled_above(&self) -> Vec<(Level, Duration)> {
        let above = self.above.get().map_or(&[][..], Vec::as_slice);
        above.iter().map(|(level, counters)| (*level, counters.throttled())).collect()
    }

    /// Asks its keeper to end it.
    pub fn kill(&self, why: KillReason) {
        self.kill.send_if_modified(|current| {
            let first = current.is_none();
            current.get_or_insert(why);
            first
        });
    }

    /// Why it was ended, when somebody did.
    pub fn kill_reason(&self) -> Option<KillReason> {
        *self.kill.borrow()
    }

    /// Wants it frozen, or not. [`Self::apply_freeze`] does it.
    pub fn want_frozen(&self, frozen: bool) {
        self.freezer.wanted.store(frozen, Ordering::SeqCst);
    }

    /// Whether it is still to be frozen.
    pub fn is_wanted_frozen(&self) -> bool {
        self.freezer.wanted.load(Ordering::SeqCst)
    }

    /// Makes its cgroup what is wanted. Returns how long it had been frozen, when it is thawed.
    ///
    /// # Errors
    /// What the write says.
    pub fn apply_freeze(&self) -> std::io::Result<Duration> {
        match self.leaf.get() {
            Some(leaf) => self.freezer.apply(leaf),
            None => Ok(Duration::ZERO),
        }
    }

    /// Puts its group's switch right when somebody else has turned it. Returns what they did, and what the kernel said to that.
    pub fn audit_freeze(&self) -> Option<(Meddling, std::io::Result<()>)> {
        self.freezer.audit(self.leaf.get()?)
    }

    /// Somebody else did this to its group.
    pub fn note_meddling(&self, what: String) {
        *self.meddled.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), what));
    }

    /// What somebody else has done to its group since then, if that was seen.
    pub fn meddled_since(&self, since: Instant) -> Option<String> {
        let meddled = self.meddled.lock().unwrap_or_else(PoisonError::into_inner);
        meddled.as_ref().filter(|(at, _)| *at >= since).map(|(_, what)| what.clone())
    }

    /// Somebody else has removed its group: it is to be ended, and that is no operator's doing.
    pub fn lose(&self, what: String) {
        self.lost.get_or_init(|| what);
    }

    /// Why it had to be ended, if somebody else has removed its group.
    pub fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    /// Looks whether its group stands still though nobody of ours wants that. To be called before the group is killed, which
    /// ends that as well.
    pub fn note_frozen(&self, tree: &Tree) {
        if let Some(leaf) = self.leaf.get().filter(|leaf| !self.is_wanted_frozen() && leaf.is_frozen()) {
            let whose = tree.frozen_from(leaf.name()).unwrap_or_else(|| "a group above ours".to_owned());
            self.note_meddling(format!("somebody else has frozen {whose}"));
        }
    }

    /// What is known when nothing of it is left. Waits for that.
    pub async fn post_mortem(&self) -> Option<Arc<PostMortem>> {
        let mut end = self.end.subscribe();
        end.wait_for(Option::is_some).await.ok()?.clone()
    }
}

/// Freezing and thawing in any order of threads: the last wish wins.
#[derive(Debug, Default)]
struct Freezer {
    wanted: AtomicBool,
    /// Since when it is frozen, when it is.
    frozen: Mutex<Option<Instant>>,
}

impl Freezer {
    fn apply(&self, leaf: &Leaf) -> std::io::Result<Duration> {
        let mut frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = self.wanted.load(Ordering::SeqCst);
        match (wanted, *frozen) {
            (true, None) => {
                leaf.freeze()?;
                *frozen = Some(Instant::now());
                Ok(Duration::ZERO)
            }
            (false, Some(since)) => {
                leaf.thaw()?;
                *frozen = None;
                Ok(since.elapsed())
            }
            (true, Some(_)) | (false, None) => Ok(Duration::ZERO),
        }
    }

    fn audit(&self, leaf: &Leaf) -> Option<(Meddling, std::io::Result<()>)> {
        let frozen = self.frozen.lock().unwrap_or_else(PoisonError::into_inner);
        match (frozen.is_some(), leaf.is_set_frozen()?) {
            (false, true) => Some((Meddling::Frozen, leaf.thaw())),
            (true, false) => Some((Meddling::Thawed, leaf.freeze())),
            (false, false) | (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::HostPath;

    #[test]
    fn failed_step_is_the_functions_fault_only_where_its_configuration_names_the_path() {
        let dir = Layout::Dir(HostPath::resolve("/srv/root", Path::new("/")).unwrap());
        for layout in [&Layout::Host, &Layout::Static, &dir] {
            assert_eq!(setting_at_fault(StepId::MountFunction, layout), Some("dir"));
            for ours in [StepId::PrivatePropagation, StepId::LimitCounters, StepId::ProveLandlock, StepId::Seccomp] {
                assert_eq!(setting_at_fault(ours, layout), None, "{ours:?}");
            }
        }
        for mount in
            [StepId::MountRoot, StepId::MountDev, StepId::MountProcAndSys, StepId::MountTmp, StepId::MountToken]
        {
            assert_eq!(setting_at_fault(mount, &dir), Some("root"), "{mount:?}");
            assert_eq!(setting_at_fault(mount, &Layout::Host), None, "{mount:?}");
        }
    }
}
