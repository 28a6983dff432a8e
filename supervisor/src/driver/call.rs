//! One call, from the caller's words to its one end.
//!
//! [`Driver::accept`] parses and refuses; [`Call::run`] lives in a task of its own, so that a caller who goes away
//! cancels by word ([`Cancel`]) and never by tearing an exchange in two.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use sublet_pool::{CallId, End, Event, LeaseId, PoolKey, Refusal, Stage, Start, SubTenant};
use sublet_proto::{
    link::frame::ENDED_BY_SIGNAL,
    v1::{self, Receipt, Verdict},
};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};

use super::{
    Driver, Note,
    catalogue::Entry,
    hit::{Hit, Scope},
    labels::hex,
    reason,
    rejection::Rejection,
    verdict::{self, Failed, HeldBack, Noticed},
};
use crate::{
    cgroups::bite::Level,
    config::Isolation,
    events::book::{Kind, Seen},
    usage::sums::{CallEnd, Reading},
    worker::{
        StartFailure, Worker,
        exchange::{Fault, Reply, Ticket, exchange},
        log::Mark,
    },
};

/// How long a worker that closed its channel may take to end; one that goes on without it broke the protocol.
const DEATH_PATIENCE: Duration = Duration::from_millis(200);
/// How long a verdict waits for the counters of a dead worker.
const POST_MORTEM_PATIENCE: Duration = Duration::from_secs(2);
/// Workers that may turn out to be unfit before they have read the call; then it is the call that is unlucky.
const DELIVERIES_MAX: u32 = 3;

/// What a caller asks for.
#[derive(Clone, Debug, Default)]
pub struct Invocation {
    /// Owner of the function.
    pub tenant: String,
    /// The function.
    pub function: String,
    /// The tenant's own customer.
    pub sub_tenant: String,
    /// For the function.
    pub payload: Bytes,
    /// The caller's own limit, from acceptance to answer.
    pub timeout: Option<Duration>,
    /// Whether the answer comes with what the function logged.
    pub want_log: bool,
}

/// A call that got its answer.
#[derive(Debug)]
pub struct Answer {
    /// What the function answered.
    pub payload: Bytes,
    /// What it used.
    pub receipt: Receipt,
    /// What the function logged meanwhile, when asked for.
    pub log_tail: Bytes,
}

/// A call that did not.
#[derive(Debug)]
pub enum Failure {
    /// It was not accepted.
    Rejected(Rejection),
    /// It was accepted and did not end well: theirs.
    Verdict(Box<Verdict>),
    /// The host or sublet failed it: ours.
    Ours(String),
    /// Its caller went away.
    Cancelled,
}

/// Which call a task is working on now, and whether anybody still wants it.
#[derive(Debug, Default)]
struct Wanted {
    call: AtomicU64,
    cancelled: AtomicBool,
}

/// Cancels its call when dropped before [`Cancel::disarm`].
#[derive(Debug)]
pub struct Cancel(Option<(Arc<Driver>, Arc<Wanted>)>);

impl Cancel {
    /// The call has ended.
    pub fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Cancel {
    fn drop(&mut self) {
        if let Some((driver, wanted)) = self.0.take() {
            // In this order: the task sets the id first and looks at the flag then, so one of us sees the other.
            wanted.cancelled.store(true, Ordering::SeqCst);
            driver.step(Event::Cancel { call: CallId(wanted.call.load(Ordering::SeqCst)) });
        }
    }
}

/// An accepted call.
#[derive(Debug)]
pub struct Call {
    driver: Arc<Driver>,
    entry: Arc<Entry>,
    key: PoolKey,
    payload: Bytes,
    want_log: bool,
    accepted: Instant,
    /// From acceptance to answer.
    limit: Duration,
    is_callers_limit: bool,
    wanted: Arc<Wanted>,
}

/// A delivery under way.
#[derive(Debug)]
struct Delivery {
    worker: Arc<Worker>,
    lease: [u8; 16],
    start: Start,
    at: Instant,
    calls: u64,
    mark: Option<Mark>,
    /// How long its worker had been frozen.
    frozen: Duration,
    /// What the quotas of the levels above had held back by then.
    throttled_above: Vec<(Level, Duration)>,
}

/// What is held back until the pool has settled the call.
type Held = Result<Answer, Failure>;

impl Driver {
    /// Checks a call and takes it on.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn accept(self: &Arc<Self>, invocation: Invocation) -> Result<(Call, Cancel), Rejection> {
        let Invocation { tenant, function, sub_tenant, payload, timeout, want_log } = invocation;
        let catalogue = self.catalogue();
        let Some(known) = catalogue.tenant(&tenant) else {
            return Err(Rejection::UnknownTenant { tenant });
        };
        let Some(entry) = known.functions.get(function.as_str()) else {
            return Err(Rejection::UnknownFunction { tenant, function });
        };
        let sub_tenant = owner(entry, &sub_tenant)?;
        let limit = entry.settings.payload_max_bytes;
        if payload.len() > limit as usize {
            let setting = entry.setting("payload_max");
            return Err(Rejection::PayloadTooLarge { seen: payload.len(), limit, setting });
        }
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(Rejection::DeadlinePast);
        }
        let most = entry.settings.start_timeout + entry.settings.timeout;
        let key = PoolKey { function: entry.id, sub_tenant };
        let wanted = Arc::new(Wanted::default());
        let call = Call {
            driver: self.clone(),
            entry: entry.clone(),
            key,
            payload,
            want_log,
            accepted: Instant::now(),
            limit: timeout.map_or(most, |timeout| timeout.min(most)),
            is_callers_limit: timeout.is_some_and(|timeout| timeout < most),
            wanted: wanted.clone(),
        };
        Ok((call, Cancel(Some((self.clone(), wanted)))))
    }
}

/// Whose worker a call needs.
///
/// # Errors
/// The label is none, or the function takes none.
pub fn owner(entry: &Entry, label: &str) -> Result<SubTenant, Rejection> {
    let function = || entry.name.to_string();
    match entry.settings.isolation {
        Isolation::SubTenant if label.is_empty() => Err(Rejection::LabelMissing { function: function() }),
        Isolation::SubTenant => SubTenant::try_from(label).map_err(Rejection::Label),
        Isolation::Shared if label.is_empty() => Ok(SubTenant::shared()),
        Isolation::Shared => Err(Rejection::LabelOnShared { function: function() }),
    }
}

impl Call {
    /// Runs the call to its one end.
    ///
    /// # Errors
    /// Why it has no answer.
    pub async fn run(mut self) -> Result<Answer, Failure> {
        let recording = self.driver.recorder.as_ref().and_then(|recorder| {
            let hash = self.driver.shop.labels.group(&self.entry.tenant, &self.key.sub_tenant);
            let hash = if self.key.sub_tenant.is_shared() { "" } else { hash.trim_start_matches("s-") };
            recorder.arrived(&self.entry.tenant, &self.entry.name, hash)
        });
        let result = loop {
            let result = self.attempt().await;
            match result {
                // Replaced between our look at the catalogue and the pool's: nothing has seen the call yet.
                Err(Failure::Rejected(Rejection::Refused(Refusal::UnknownFunction, _))) if self.renew() => {}
                result => break result,
            }
        };
        let counters = &self.driver.counters;
        let counter = match &result {
            Ok(_) => &counters.answered,
            Err(Failure::Rejected(_)) => &counters.refused,
            Err(Failure::Verdict(_) | Failure::Ours(_) | Failure::Cancelled) => &counters.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let (Some(recorder), Some(ticket)) = (&self.driver.recorder, recording) {
            recorder.ended(ticket, &result);
        }
        if let Err(failure) = &result {
            self.note(failure);
        }
        if let Err(Failure::Ours(what)) = &result {
            tracing::error!(tenant = %self.entry.tenant, function = %self.entry.name, what, "a call was failed by sublet");
        }
        result
    }

    /// Tells operators of a call that did not end well.
    fn note(&self, failure: &Failure) {
        let hit = |hit: Option<&Hit>| hit.cloned().unwrap_or_default();
        let (reason, hit, worker, message) = match failure {
            Failure::Cancelled => return,
            Failure::Rejected(rejection) => {
                let of = if let Rejection::Refused(_, of) = rejection { of.as_deref() } else { None };
                (reason::of_rejection(rejection), hit(of), String::new(), rejection.to_string())
            }
            Failure::Ours(what) => ("INTERNAL", Hit::default(), String::new(), what.clone()),
            Failure::Verdict(verdict) => {
                let Verdict { setting, limit, seen, level, message, .. } = &**verdict;
                let worker = verdict.receipt.as_ref().map(|receipt| receipt.worker.clone()).unwrap_or_default();
                let seen = Seen { limit: limit.clone(), observed: seen.clone(), worker, message: message.clone() };
                let kind = self.kind(reason::of_verdict(verdict.kind()), level, setting);
                return self.driver.hub.fault(kind, seen);
            }
        };
        let kind = self.kind(reason, hit.level, &hit.setting);
        self.driver.hub.fault(kind, Seen { limit: hit.limit, observed: hit.observed, worker, message });
    }

    fn kind(&self, reason: &'static str, level: &str, setting: &str) -> Kind {
        Kind {
            tenant: self.entry.tenant.clone(),
            function: self.entry.name.clone(),
            sub_tenant: self.key.sub_tenant.clone(),
            reason,
            level: level.to_owned(),
            setting: setting.to_owned(),
        }
    }

    /// Takes the revision that has replaced its function's, if there is one that takes the same label.
    fn renew(&mut self) -> bool {
        let catalogue = self.driver.catalogue();
        let Some(newer) = catalogue.function(&self.entry.tenant, &self.entry.name) else { return false };
        let is_other = newer.id != self.entry.id && newer.settings.isolation == self.entry.settings.isolation;
        if is_other {
            self.key.function = newer.id;
            self.entry = newer.clone();
        }
        is_other
    }

    /// Puts the call into the books and before the pool.
    fn register(&self) -> (CallId, mpsc::UnboundedReceiver<Note>) {
        let driver = &self.driver;
        let call = CallId(driver.next_call.fetch_add(1, Ordering::Relaxed));
        // A Deliver for each worker that takes it, and one Settle: bounded by DELIVERIES_MAX and the pool's one retry.
        let (sender, notes) = mpsc::unbounded_channel();
        self.wanted.call.store(call.0, Ordering::SeqCst);
        let mut books = driver.books();
        books.calls.insert(call, sender);
        let deadline = driver.tick(self.accepted + self.limit);
        driver.step_with(&mut books, Event::Invoke { call, key: self.key.clone(), deadline });
        if self.wanted.cancelled.load(Ordering::SeqCst) {
            driver.step_with(&mut books, Event::Cancel { call });
        }
        (call, notes)
    }

    /// Follows what the pool says until the call is settled.
    async fn attempt(&self) -> Held {
        let (call, mut notes) = self.register();
        let mut last: Option<(Delivery, Option<Held>)> = None;
        let mut unfit = 0;
        let mut ahead = None;
        loop {
            let note = match ahead.take() {
                Some(note) => Some(note),
                None => notes.recv().await,
            };
            match note {
                None => return Err(Failure::Ours("the call was lost by the driver".into())),
                Some(Note::Settle { end, worker }) => {
                    let (delivery, held) = last.map_or((None, None), |(delivery, held)| (Some(delivery), held));
                    if unfit >= DELIVERIES_MAX {
                        return Err(Failure::Ours(format!("{unfit} workers in a row were unfit when the call came")));
                    }
                    let result = self.settled(end, worker, delivery.as_ref(), held).await;
                    self.count(&result, delivery.as_ref());
                    return result;
                }
                Some(Note::Deliver { worker, lease, start, thaw }) => {
                    let delivery = Delivery {
                        lease: self.driver.shop.labels.lease(lease),
                        start,
                        at: Instant::now(),
                        calls: worker.count_call(),
                        mark: None,
                        frozen: Duration::ZERO,
                        throttled_above: Vec::new(),
                        worker,
                    };
                    match self.deliver(delivery, lease, thaw, &mut notes).await {
                        Delivered::Replied(delivery, held) => last = Some((delivery, Some(held))),
                        Delivered::Overtaken(delivery, note) => {
                            last = Some((delivery, None));
                            ahead = note;
                        }
                        Delivered::Not(worker, what) => {
                            unfit += 1;
                            tracing::warn!(worker = worker.name(), what, "a worker was unfit when its next call came");
                            last = None;
                            // The last time the pool is not asked for another: its worker would be killed for a call that
                            // has been given up.
                            self.driver.step(if unfit >= DELIVERIES_MAX {
                                Event::Cancel { call }
                            } else {
                                Event::Undelivered { worker: worker.id, lease }
                            });
                        }
                    }
                }
            }
        }
    }

    /// Gives the call to the worker and tells the pool what came of it.
    async fn deliver(
        &self,
        mut delivery: Delivery,
        lease: LeaseId,
        thaw: bool,
        notes: &mut mpsc::UnboundedReceiver<Note>,
    ) -> Delivered {
        let worker = delivery.worker.clone();
        let answered = |clean| self.driver.step(Event::Answered { worker: worker.id, lease, clean });
        let unfit = |what: String| Delivered::Not(worker.clone(), what);
        if thaw {
            match worker.apply_freeze() {
                Ok(frozen) => delivery.frozen = frozen,
                Err(error) => return unfit(format!("it cannot be thawed: {error}")),
            }
        }
        let (Some(mut channel), Some(owner)) = (worker.take_channel(), worker.owner()) else {
            return unfit("its channel is not there".into());
        };
        // What it wrote before is not this call's, nor what it used.
        delivery.mark = Some(worker.log.mark());
        worker.meter().begin(worker.reading());
        delivery.throttled_above = worker.throttled_above();
        let ticket = Ticket { lease: delivery.lease, label: owner.tag };
        let left = self.limit.saturating_sub(self.accepted.elapsed());
        let own = self.entry.settings.timeout;
        let left_ms = u32::try_from(left.min(own).as_millis()).unwrap_or(u32::MAX);
        let answer_max = self.entry.settings.answer_max_bytes;
        // Given up meanwhile: then the function must not act on it.
        if let Ok(note) = notes.try_recv() {
            return Delivered::Overtaken(delivery, Some(note));
        }
        let outcome = tokio::select! {
            // An answer that is there counts, even when its worker has ended since.
            biased;
            outcome = timeout(own, exchange(&mut channel, ticket, &self.payload, left_ms, answer_max)) => outcome,
            note = notes.recv() => return Delivered::Overtaken(delivery, note),
        };
        let Ok(outcome) = outcome else {
            let verdict = verdict::deadline(&self.entry, own, false, delivery.at.elapsed());
            let held = self.failed_in_time(verdict, &delivery);
            answered(false);
            return Delivered::Replied(delivery, held);
        };
        let (held, clean) = match outcome {
            Ok(Reply::Answer { payload, status: 0 }) => (Ok(self.answer(payload, &delivery)), true),
            Ok(Reply::Answer { status, .. }) => {
                let failed = match status.checked_sub(ENDED_BY_SIGNAL) {
                    Some(signal) => Failed::Signal(i32::try_from(signal).unwrap_or(i32::MAX)),
                    None => Failed::Status(i32::try_from(status).unwrap_or(i32::MAX)),
                };
                self.failure(&failed, &delivery).await
            }
            Ok(Reply::Error(what)) => self.failure(&Failed::Handler(what), &delivery).await,
            Err(Fault::NotDelivered(what)) => {
                worker.meter().end(worker.reading());
                return unfit(what);
            }
            Err(Fault::TooLarge { seen, .. }) => {
                (self.failed(verdict::answer_too_large(&self.entry, seen), Some(&delivery)), false)
            }
            Err(Fault::BadFrame(what)) => (self.failed(verdict::bad_frame(&what), Some(&delivery)), false),
            Err(Fault::Os(error)) => (Err(Failure::Ours(format!("talk to the worker: {error}"))), false),
            Err(Fault::Closed) => {
                // The end of its process is announced by its keeper, and the pool then says what becomes of the call.
                if let Ok(note) = timeout(DEATH_PATIENCE, notes.recv()).await {
                    return Delivered::Overtaken(delivery, note);
                }
                let what = "it closed its channel and goes on";
                (self.failed(verdict::bad_frame(what), Some(&delivery)), false)
            }
        };
        if clean {
            worker.put_channel(channel);
        }
        answered(clean);
        Delivered::Replied(delivery, held)
    }

    fn answer(&self, payload: Bytes, delivery: &Delivery) -> Answer {
        let log_tail = match delivery.mark.filter(|_| self.want_log) {
            Some(mark) => delivery.worker.log.since(mark).into(),
            None => Bytes::new(),
        };
        let used = delivery.worker.meter().end(delivery.worker.reading());
        Answer { payload, receipt: self.receipt(Some(delivery), used), log_tail }
    }

    /// Puts a call that was accepted into the books of its worker, sub-tenant and tenant.
    fn count(&self, result: &Held, delivery: Option<&Delivery>) {
        let how = match result {
            Ok(_) => CallEnd::Answered,
            // It goes on with the next revision.
            Err(Failure::Rejected(Rejection::Refused(Refusal::UnknownFunction, _))) => return,
            Err(Failure::Rejected(_)) => CallEnd::Refused,
            Err(Failure::Verdict(_) | Failure::Ours(_) | Failure::Cancelled) => CallEnd::Failed,
        };
        match delivery {
            Some(delivery) => {
                delivery.worker.meter().count(how, delivery.at - self.accepted, delivery.at.elapsed());
            }
            None => {
                for sums in self.driver.shop.ledger.of(&self.entry.tenant, Some(&self.key.sub_tenant)) {
                    sums.call(how, self.accepted.elapsed(), Duration::ZERO);
                }
            }
        }
    }

    /// The worker lives and the call failed. Also says whether the worker may go on.
    async fn failure(&self, failed: &Failed, delivery: &Delivery) -> (Held, bool) {
        let worker = &delivery.worker;
        let left = self.driver.shop.nursery.left(worker.id.0).await;
        let tree = self.driver.shop.quotas.tree();
        let (oom_kills, name) = worker.leaf().map_or((0, ""), |leaf| (leaf.bites().oom_kills, leaf.name()));
        let memory_bite = (oom_kills > 0).then(|| tree.memory_bite(name));
        let refused = worker.refused_calls();
        let forks_refused = worker.was_refused_forks().then(|| tree.pids_bite(name));
        let noticed = Noticed { refused: &refused, forks_refused };
        let verdict = verdict::of_failure(&self.scope(), failed, left, memory_bite, noticed);
        // Where the kernel ended one process of it for memory (v1 has no group kill), the rest is not what it was.
        (self.failed(verdict, Some(delivery)), oom_kills == 0)
    }

    fn scope(&self) -> Scope {
        Scope::new(&self.driver.catalogue(), &self.entry, &self.key.sub_tenant)
    }

    /// A deadline that passed while the worker had the call: was it held back?
    fn failed_in_time(&self, of_deadline: Verdict, delivery: &Delivery) -> Held {
        let worker = &delivery.worker;
        let used = worker.meter().end(worker.reading());
        let quota = |level: Level| {
            let leaf = worker.leaf().map_or("", |leaf| leaf.name());
            self.driver.shop.quotas.cpu_millis(leaf, level)
        };
        let above = self.throttled(delivery);
        let own = (Level::Worker, used.throttled);
        let most = above.into_iter().chain([own]).max_by_key(|(_, throttled)| *throttled);
        let held = most.map(|(level, throttled)| HeldBack {
            level,
            throttled,
            running: delivery.at.elapsed(),
            limit_millis: quota(level),
        });
        let verdict = verdict::or_cpu(&self.scope(), of_deadline, held);
        self.failed_with(verdict, Some(delivery), used)
    }

    /// What the quotas of the levels above held back since the delivery.
    fn throttled(&self, delivery: &Delivery) -> Vec<(Level, Duration)> {
        let now = delivery.worker.throttled_above();
        let pairs = now.into_iter().zip(&delivery.throttled_above);
        pairs.map(|((level, now), (_, before))| (level, now.saturating_sub(*before))).collect()
    }

    /// Adds to a verdict what every verdict carries.
    fn failed(&self, verdict: Verdict, delivery: Option<&Delivery>) -> Held {
        let used = delivery.map(|delivery| delivery.worker.meter().end(delivery.worker.reading()));
        self.failed_with(verdict, delivery, used.unwrap_or_default())
    }

    fn failed_with(&self, verdict: Verdict, delivery: Option<&Delivery>, used: Reading) -> Held {
        let worker = delivery.map(|delivery| &delivery.worker);
        let log_tail = match delivery {
            Some(Delivery { mark: Some(mark), worker, .. }) => worker.log.since(*mark).into(),
            _ => verdict.log_tail,
        };
        let refused_syscalls = match worker {
            Some(worker) => worker.refused_calls(),
            None => verdict.refused_syscalls,
        };
        let receipt = Some(self.receipt(delivery, used));
        Err(Failure::Verdict(Box::new(Verdict { receipt, log_tail, refused_syscalls, ..verdict })))
    }

    async fn settled(
        &self,
        end: End,
        worker: Option<Arc<Worker>>,
        delivery: Option<&Delivery>,
        held: Option<Held>,
    ) -> Held {
        match end {
            End::Answered { .. } => {
                held.unwrap_or_else(|| Err(Failure::Ours("the call was answered without an answer".into())))
            }
            End::Deadline { at, .. } => self.deadline_passed(at, delivery),
            End::Cancelled { .. } => Err(Failure::Cancelled),
            // It ended after it had answered, in full and in time.
            End::WorkerDied { .. } if matches!(held, Some(Ok(_))) => {
                held.unwrap_or_else(|| Err(Failure::Ours("the call was answered without an answer".into())))
            }
            End::WorkerDied { .. } => match worker {
                Some(worker) => self.died(&worker, delivery).await,
                None => Err(Failure::Ours("the worker is gone and nothing is known of it".into())),
            },
            End::StartFailed { .. } => match worker.as_deref().map(Worker::start_failure) {
                Some(StartFailure::Theirs { message, setting }) => {
                    let verdict = verdict::start(&self.entry, &message, setting);
                    let log_tail = worker.as_ref().map(|worker| worker.log.all().into()).unwrap_or_default();
                    let refused_syscalls = worker.as_ref().map(|worker| worker.refused_calls()).unwrap_or_default();
                    self.failed(Verdict { log_tail, refused_syscalls, ..verdict }, None)
                }
                Some(StartFailure::Ours(message)) => Err(Failure::Ours(format!("make a worker: {message}"))),
                None => Err(Failure::Ours("the worker is gone and nothing is known of it".into())),
            },
            End::Refused(Refusal::DeadlinePast) => Err(Failure::Rejected(Rejection::DeadlinePast)),
            End::Refused(refusal) => {
                let hit = self.scope().of_refusal(&refusal).map(Box::new);
                Err(Failure::Rejected(Rejection::Refused(refusal, hit)))
            }
            End::Evicted { .. } => self.failed(verdict::evicted(), delivery),
        }
    }

    fn deadline_passed(&self, at: Stage, delivery: Option<&Delivery>) -> Held {
        let verdict = verdict::deadline(&self.entry, self.limit, self.is_callers_limit, self.accepted.elapsed());
        let message = match at {
            Stage::Queued => format!("{}; it was waiting for a worker", verdict.message),
            Stage::Starting => format!("{}; its worker was being made", verdict.message),
            Stage::Leased => verdict.message.clone(),
        };
        match delivery {
            Some(delivery) => self.failed_in_time(Verdict { message, ..verdict }, delivery),
            None => self.failed(Verdict { message, ..verdict }, None),
        }
    }

    async fn died(&self, worker: &Worker, delivery: Option<&Delivery>) -> Held {
        let forks_refused = worker.was_refused_forks();
        let leaf = worker.leaf().map_or("", |leaf| leaf.name());
        let forks_refused = forks_refused.then(|| self.driver.shop.quotas.tree().pids_bite(leaf));
        let post = tokio::select! {
            post = worker.post_mortem() => post,
            () = sleep(POST_MORTEM_PATIENCE) => None,
        };
        let Some(post) = post else {
            return Err(Failure::Ours("the worker died and cannot be examined".into()));
        };
        let refused = worker.refused_calls();
        let noticed = Noticed { refused: &refused, forks_refused: forks_refused.or(post.pids_bite) };
        let held = self.failed(verdict::of_death(&self.scope(), &post, noticed), delivery);
        match held {
            Err(Failure::Verdict(mut verdict)) => {
                if let Some(receipt) = &mut verdict.receipt {
                    receipt.memory_peak_bytes = post.memory_peak_bytes;
                    receipt.exit = post.exit();
                }
                Err(Failure::Verdict(verdict))
            }
            other => other,
        }
    }

    fn receipt(&self, delivery: Option<&Delivery>, used: Reading) -> Receipt {
        let now = Instant::now();
        let wire = |duration: Duration| prost_types::Duration::try_from(duration).ok();
        let Some(delivery) = delivery else {
            return Receipt { queued: wire(now - self.accepted), ..Receipt::default() };
        };
        let worker = &delivery.worker;
        let start = match delivery.start {
            Start::Cold => v1::Start::Cold,
            Start::Cell => v1::Start::Cell,
            Start::Warm => v1::Start::Warm,
        };
        // Several processors can be held back at one time; the call has lost no more than it ran.
        let running = now - delivery.at;
        let throttled = self.throttled(delivery).iter().fold(used.throttled, |sum, (_, held)| sum + *held).min(running);
        let is_counted = worker.leaf().is_some_and(|leaf| leaf.accounts_cpu());
        Receipt {
            worker: worker.name(),
            lease: hex(&delivery.lease),
            start: start.into(),
            queued: wire(delivery.at - self.accepted),
            starting: worker.starting().filter(|_| start != v1::Start::Warm).and_then(wire),
            running: wire(running),
            cpu: wire(used.cpu).filter(|_| is_counted),
            throttled: wire(throttled).filter(|_| is_counted),
            frozen: wire(delivery.frozen),
            io_read_bytes: used.io_read,
            io_written_bytes: used.io_written,
            exit: String::new(),
            memory_peak_bytes: worker.leaf().map_or(0, |leaf| leaf.memory_peak_bytes()),
            calls: delivery.calls,
        }
    }
}

/// What came of one delivery.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives from a return to its match; a box would be an allocation a call"
)]
enum Delivered {
    /// The pool has been told; its Settle follows.
    Replied(Delivery, Held),
    /// The pool has said what becomes of the call before there was a reply.
    Overtaken(Delivery, Option<Note>),
    /// The worker cannot have read it.
    Not(Arc<Worker>, String),
}
