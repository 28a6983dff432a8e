//! Workers, as the supervisor knows them: one [`Worker`] each, kept by one task ([`keeper`]) from spawn to reap, lent to
//! one call at a time ([`exchange`]). A cell is a worker that has no owner yet. Where workers live is behind [`host`].

pub mod alarm;
pub mod busy_poll;
mod call_channel;
pub mod channel;
pub mod control;
mod ending;
pub mod exchange;
pub mod farewell;
pub mod groups;
pub mod host;
pub mod keeper;
pub mod log;
mod observed;
mod own_group;
mod ownership;
mod post_mortem;
pub mod posture;
mod removal;
pub mod reply;
mod reports;
mod services;
pub mod share;
mod shortage;
pub mod shown;
pub mod slots;
mod start;
mod start_error;
pub mod token;
pub mod wire;

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use sublet_pool::{KillReason, WorkerId};
use sublet_proto::{
    level::Level,
    link::{init::ToInit, nursery::InitReport, sandbox::OnRefused},
};
use tokio::time::Instant;

pub use self::{
    call_channel::CallChannel,
    ownership::Owner,
    post_mortem::{FunctionEnd, PostMortem, signal_name},
    services::Services,
    start::StartFailure,
};
use self::{
    ending::Ending,
    farewell::KillOrder,
    host::Group,
    log::Log,
    observed::{Before, Observed},
    own_group::OwnGroup,
    ownership::Ownership,
    posture::Fact,
    reports::Reports,
    shown::Shown,
    start::StartRecord,
    token::Hold,
};
use crate::{
    catalogue::Entry,
    cgroups::{leaf::Bites, reading::Reading, tree::Meddling},
    usage::meter::Meter,
};

/// One worker.
#[derive(Debug)]
pub struct Worker {
    /// Its id.
    pub id: WorkerId,
    /// Its function.
    pub entry: Arc<Entry>,
    /// When it was asked for.
    pub born: Instant,
    /// Whether it was made for nobody in particular.
    pub was_cell: bool,
    /// What its function wrote.
    pub log: Log,
    /// Its sub-tenant's token, if its function's workers are given one.
    pub token: Option<Hold>,
    /// The limits that its function is shown.
    pub shown: Shown,
    ownership: Ownership,
    start: StartRecord,
    group: OwnGroup,
    reports: Reports,
    observed: Observed,
    call_channel: Mutex<Option<CallChannel>>,
    meter: Mutex<Meter>,
    calls: AtomicU64,
    ending: Ending,
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
            was_cell: is_cell,
            log: Log::new(log_max),
            token,
            shown: Shown::default(),
            ownership: Ownership::default(),
            start: StartRecord::default(),
            group: OwnGroup::default(),
            reports: Reports::default(),
            observed: Observed::default(),
            call_channel: Mutex::default(),
            meter: Mutex::default(),
            calls: AtomicU64::new(0),
            ending: Ending::default(),
        }
    }

    /// Its name: in its cgroup, in receipts, on the command line.
    pub fn name(&self) -> String {
        format!("w-{}", self.id.0)
    }

    /// The group a cell is born in.
    pub fn cell_group(&self) -> String {
        format!("s-cell-{}", self.id.0)
    }

    /// Gives it its owner. True only the first time: there is no second.
    pub fn label(&self, owner: Owner) -> bool {
        self.ownership.give(owner)
    }

    /// Whose it is; none: a cell.
    pub fn owner(&self) -> Option<&Owner> {
        self.ownership.owner()
    }

    /// Takes the channel for one delivery. None while another has it, which the pool rules out.
    pub fn take_call_channel(&self) -> Option<CallChannel> {
        self.call_channel.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives the channel back; not after anything but a clean exchange.
    pub fn put_call_channel(&self, call_channel: CallChannel) {
        *self.call_channel.lock().unwrap_or_else(PoisonError::into_inner) = Some(call_channel);
    }

    /// Its cgroup, once made.
    pub fn group(&self) -> Option<&dyn Group> {
        self.group.get()
    }

    /// Host pid of its init, once born.
    pub fn pid(&self) -> Option<u32> {
        self.start.pid()
    }

    /// What was seen from outside before its first payload.
    pub fn posture(&self) -> &[Fact] {
        self.start.facts()
    }

    /// How long making it took, once it was ready.
    pub fn starting(&self) -> Option<Duration> {
        self.start.took()
    }

    /// Why it could not be started.
    pub fn start_failure(&self) -> StartFailure {
        self.start.failure(self.entry.settings.start_timeout)
    }

    /// Counts a call; returns how many it is now.
    pub fn count_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The meter of what it uses. Held for a moment only, never across a wait.
    pub fn meter(&self) -> MutexGuard<'_, Meter> {
        self.meter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What its counters say now; none when it has none any more.
    pub fn reading(&self) -> Option<Reading> {
        self.group()?.reading()
    }

    /// How long the quotas of the levels above have held something back so far.
    pub fn throttled_above(&self) -> Vec<(Level, Duration)> {
        self.group().map(|group| group.throttled_above()).unwrap_or_default()
    }
}

/// What is counted and noted for a call.
impl Worker {
    /// A call is about to be delivered: what its verdict counts is counted from here on. Returns whether a process of it was
    /// killed for memory since the last call ended.
    pub fn begin_call(&self) -> bool {
        self.reports.take_in(|report| self.note(report));
        let bites = self.group().map(|group| group.bites()).unwrap_or_default();
        let Before { was_killed, were_calls_refused } = self.observed.begin_call(bites);
        if were_calls_refused {
            // An init that does not read is about to end, or full of words: then a refusal that it has told of before is
            // not told again.
            self.tell_init(&ToInit::CallBegins).ok();
        }
        was_killed
    }

    /// Limits that bit since its last call was delivered.
    pub fn bites_in_call(&self) -> Bites {
        self.group().map(|group| self.observed.bites_in_call(group.bites())).unwrap_or_default()
    }

    /// Whether [`Self::bites_in_call`] has found that a process of it was killed for memory since its last call was delivered.
    pub fn has_lost_a_process(&self) -> bool {
        self.observed.has_lost_a_process()
    }

    /// System calls its filter refused since its last call was delivered, or since its start.
    pub fn refused_calls(&self) -> Vec<String> {
        self.reports.take_in(|report| self.note(report));
        self.observed.refused()
    }

    /// How its function's process ended, when it did and init told.
    pub fn function_end(&self) -> Option<FunctionEnd> {
        self.observed.function_end()
    }

    /// Whether it has ever used all the memory it may, but for what a process takes to be started.
    pub fn has_used_its_memory(&self) -> bool {
        const OF_A_PROCESS: u64 = 1 << 20;
        let peak = self.group().map_or(0, |group| group.memory_peak_bytes());
        peak + OF_A_PROCESS >= self.entry.settings.memory_max.bytes()
    }
}

/// What is said to its init, and heard from it.
impl Worker {
    /// Takes a report of init in.
    fn note(&self, report: InitReport) {
        match report {
            InitReport::StepFailed { id, step, error, is_shortage } => {
                let (what, layout) = (format!("{step}: {error}"), &self.entry.settings.layout);
                self.start.fail(StartFailure::of_step(id, what, is_shortage, layout));
            }
            InitReport::SyscallRefused { name, .. } => self.note_refused(name),
            InitReport::FunctionEnded { code, signal, tmp } => {
                self.observed.function_ended(FunctionEnd { code, signal, tmp });
            }
            InitReport::LimitsShown { number } => self.shown.done(number),
            InitReport::TokenWritten { number } => self.hear_of_token(number, None),
            InitReport::TokenFailed { number, error } => self.hear_of_token(number, Some(error)),
        }
    }

    fn note_refused(&self, name: String) {
        if self.observed.refuse(name.clone()) {
            let (tenant, function) = (&self.entry.tenant, &self.entry.name);
            tracing::info!(worker = self.name(), %tenant, %function, call = name, "system call refused");
        }
        if self.entry.settings.on_refused_syscall == OnRefused::Kill
            && let Some(group) = self.group()
            && let Err(error) = group.kill()
        {
            // Init waits for it, and the function for init: it is ended at the deadline of its call then.
            tracing::error!(worker = self.name(), %error, "a worker that made a refused call cannot be killed");
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
    pub async fn hear_until(&self, enough: impl Fn() -> bool) -> io::Result<()> {
        match self.reports.until(|report| self.note(report), enough).await? {
            true => Ok(()),
            false => Err(io::Error::other("init has ended")),
        }
    }

    /// Tells its init of limits that have changed since it was told last, so that the function sees those it has. Returns
    /// the number to wait for.
    pub fn tell_limits(&self) -> Option<u64> {
        let (number, limits) = self.shown.news()?;
        if self.tell_init(&ToInit::Limits { number, limits }).is_err() {
            // An init that does not read is about to end, or has much to read; it is not waited for.
            self.shown.untold();
            return None;
        }
        Some(number)
    }

    /// Sends its init something.
    ///
    /// # Errors
    /// Init has ended, or does not read.
    pub fn tell_init(&self, what: &ToInit) -> io::Result<()> {
        self.reports.tell(what)
    }

    /// Lets go of its init, once what it has said is taken in.
    fn close_reports(&self) {
        self.reports.close(|report| self.note(report));
    }
}

/// Freezing, and what others did to its group.
impl Worker {
    /// Wants it frozen, or not. [`Self::apply_freeze`] does it.
    pub fn want_frozen(&self, frozen: bool) {
        self.group.want_frozen(frozen);
    }

    /// Whether it is still to be frozen.
    pub fn is_wanted_frozen(&self) -> bool {
        self.group.is_wanted_frozen()
    }

    /// Makes its cgroup what is wanted. Returns how long it had been frozen, when it is thawed.
    ///
    /// # Errors
    /// What the write says.
    pub fn apply_freeze(&self) -> io::Result<Duration> {
        self.group.apply_freeze()
    }

    /// Puts its group's switch right when somebody else has turned it. Returns what they did, and what the kernel said to that.
    pub fn audit_freeze(&self) -> Option<(Meddling, io::Result<()>)> {
        self.group.audit_freeze()
    }

    /// Somebody else did this to its group.
    pub fn note_meddling(&self, what: String) {
        self.group.note_meddling(what);
    }

    /// What somebody else has done to its group since then, if that was seen.
    pub fn meddled_since(&self, since: Instant) -> Option<String> {
        self.group.meddled_since(since)
    }

    /// Looks whether its group stands still though nobody of ours wants that. To be called before the group is killed, which
    /// ends that as well.
    pub fn note_frozen(&self) {
        self.group.note_frozen();
    }

    /// Somebody else has removed its group: it is to be ended, and that is no operator's doing.
    pub fn lose(&self, what: String) {
        self.group.lose(what);
    }

    /// Why it had to be ended, if somebody else has removed its group.
    pub fn lost(&self) -> Option<&str> {
        self.group.lost()
    }
}

/// How it is ended, and what is known afterwards.
impl Worker {
    /// Asks its keeper to end it. The first reason stays, and a later order can only take time away.
    pub fn kill(&self, order: KillOrder) {
        self.ending.kill(order);
    }

    /// If it is to end, it has no time for that any more.
    pub fn hurry(&self) {
        self.ending.hurry();
    }

    /// Returns when it is to end and has no time for that.
    pub async fn hurried(&self) {
        self.ending.hurried().await;
    }

    /// That it is to end, when somebody wants it.
    pub fn kill_order(&self) -> Option<KillOrder> {
        self.ending.order()
    }

    /// Why it was ended, when somebody did.
    pub fn kill_reason(&self) -> Option<KillReason> {
        self.kill_order().map(|order| order.why)
    }

    /// What is known when nothing of it is left. Waits for that.
    pub async fn post_mortem(&self) -> Option<Arc<PostMortem>> {
        self.ending.post_mortem().await
    }
}
