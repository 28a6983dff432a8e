//! One call, from the caller's words to its one end.
//!
//! [`Driver::accept`] parses and refuses; [`Call::run`] lives in a task of its own, so that a caller who goes away
//! cancels by word ([`Cancel`]) and never by tearing an exchange in two.

mod begin;
mod deliver;
mod record;
mod reply;
mod settle;
mod token;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use sublet_pool::{CallId, Event, PoolKey, Refusal, SubTenant};
use sublet_proto::{
    level::Level,
    v1::{Receipt, Verdict, VerdictKind},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

use self::deliver::{Delivered, Delivery, Unfit};
use super::{Driver, Note, limit_reached::LimitReached, reason, rejection::Rejection, verdict};
use crate::{
    catalogue::Entry,
    config::{Isolation, Runtime},
    events::book::{Kind, Seen},
    logs::words::Words,
    nursery::DYING_PATIENCE,
    worker::{exchange::Pieces, host},
};

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
#[derive(Clone, Debug)]
pub struct Answer {
    /// What the function answered.
    pub payload: Bytes,
    /// What it used.
    pub receipt: Receipt,
    /// What the function logged meanwhile, when asked for.
    pub log: Words,
}

/// A call that did not.
#[derive(Clone, Debug)]
pub enum Failure {
    /// It was not accepted.
    Rejected(Rejection),
    /// It was accepted and did not end well: theirs.
    Verdict {
        /// What the caller is told.
        verdict: Box<Verdict>,
        /// What only operators are told; empty when there is no more to tell.
        detail: String,
    },
    /// The host or sublet failed it: ours. The caller is told the id and no more.
    Ours {
        /// By which operators find the rest.
        error_id: String,
        /// What happened, for operators.
        what: String,
    },
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

/// Where a call's answer goes.
#[derive(Debug)]
pub struct Outlet {
    answer: Option<oneshot::Sender<Held>>,
    /// For pieces of it, ahead of the rest.
    pieces: Option<Pieces>,
}

impl Outlet {
    /// An outlet, and where its one answer comes out. `pieces`: where parts of it go as they are made; whoever takes them
    /// slowly slows the function down.
    pub fn new(pieces: Option<mpsc::Sender<Bytes>>) -> (Self, oneshot::Receiver<Held>) {
        let (answer, receiver) = oneshot::channel();
        (Self { answer: Some(answer), pieces: pieces.map(Pieces::new) }, receiver)
    }

    /// Hands the answer out, once.
    fn give(&mut self, held: Held) {
        self.pieces = None;
        if let Some(answer) = self.answer.take() {
            // Whoever does not wait for it any more has cancelled.
            answer.send(held).ok();
        }
    }

    /// Whether it has been handed out.
    const fn is_given(&self) -> bool {
        self.answer.is_none()
    }

    /// Whether the caller has been given a part of an answer: then no other worker may begin another.
    fn has_begun(&self) -> bool {
        self.pieces.as_ref().is_some_and(Pieces::has_begun)
    }
}

/// An accepted call.
#[derive(Debug)]
pub struct Call {
    driver: Arc<Driver>,
    entry: Arc<Entry>,
    key: PoolKey,
    /// Until a worker has it.
    payload: Mutex<Bytes>,
    payload_bytes: usize,
    want_log: bool,
    accepted: Instant,
    /// From acceptance to answer.
    limit: Duration,
    is_callers_limit: bool,
    wanted: Arc<Wanted>,
}

/// What is held back until the pool has settled the call, or its function's runtime has said that this is all.
pub type Held = Result<Answer, Failure>;

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
            payload_bytes: payload.len(),
            payload: Mutex::new(payload),
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
    /// Runs the call to its one end; what comes of it goes to the outlet.
    pub async fn run(mut self, mut outlet: Outlet) {
        let recording = self.driver.recorder.as_ref().and_then(|recorder| {
            let hash = self.driver.services.labels.group(&self.entry.tenant, &self.key.sub_tenant);
            let hash = if self.key.sub_tenant.is_shared() { "" } else { hash.trim_start_matches("s-") };
            recorder.arrived(&self.entry.tenant, &self.entry.name, hash)
        });
        let result = loop {
            let result = self.attempt(&mut outlet).await;
            match result {
                // Replaced between our look at the catalogue and the pool's: nothing has seen the call yet.
                Err(Failure::Rejected(Rejection::Refused(Refusal::UnknownFunction, _))) if self.renew() => {}
                result => break result,
            }
        };
        let result = self.not_theirs(result).await;
        let answered = result.as_ref().map_or(0, |answer| answer.payload.len());
        self.driver.heap_trim.note(self.payload_bytes.max(answered));
        let counters = &self.driver.counters;
        let counter = match &result {
            Ok(_) => &counters.answered,
            Err(Failure::Rejected(_)) => &counters.refused,
            Err(Failure::Verdict { .. } | Failure::Ours { .. } | Failure::Cancelled) => &counters.failed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        if let (Some(recorder), Some(ticket)) = (&self.driver.recorder, recording) {
            recorder.ended(ticket, record::service(&result));
        }
        if let Err(failure) = &result {
            self.note(failure);
        }
        outlet.give(result);
    }

    /// What the end of the nursery has done to its worker is no fault of its function.
    async fn not_theirs(&self, result: Held) -> Held {
        let Err(Failure::Verdict { verdict, .. }) = &result else { return result };
        if !verdict::tells_of_an_end(verdict.kind()) {
            return result;
        }
        let host = &*self.driver.services.host;
        // The launcher has told how a program ended, so it was alive then, and nobody has to wait to know more.
        let was_told = self.entry.settings.runtime == Runtime::Exec && verdict.kind() == VerdictKind::Exit;
        let is_gone = if was_told { host.is_gone() } else { host::is_going(host, DYING_PATIENCE).await };
        match is_gone {
            true => Err(self.ours(format!("the nursery has ended, and every worker with it: {}", verdict.message))),
            false => result,
        }
    }

    /// Tells operators of a call that did not end well.
    fn note(&self, failure: &Failure) {
        let limit_of = |limit: Option<&LimitReached>| limit.cloned().unwrap_or_default();
        let (reason, reached, worker, message) = match failure {
            Failure::Cancelled => return,
            Failure::Rejected(rejection) => {
                let of = if let Rejection::Refused(_, of) = rejection { of.as_deref() } else { None };
                (reason::of_rejection(rejection), limit_of(of), String::new(), rejection.to_string())
            }
            Failure::Ours { error_id, what } => {
                let Entry { tenant, name, .. } = &*self.entry;
                tracing::error!(error_id, %tenant, function = %name, what, "a call was failed by sublet");
                let seen = Seen { message: what.clone(), error_id: error_id.clone(), ..Seen::default() };
                return self.driver.hub.fault(self.kind("INTERNAL", "", ""), seen);
            }
            Failure::Verdict { verdict, detail } => {
                let Verdict { setting, limit, seen, level, message, error_id, .. } = &**verdict;
                let reason = reason::of_verdict(verdict.kind());
                let worker = verdict.receipt.as_ref().map(|receipt| receipt.worker.clone()).unwrap_or_default();
                let mut message = message.clone();
                if !detail.is_empty() {
                    let Entry { tenant, name, .. } = &*self.entry;
                    // The one place where each of them is told: equal faults are folded, and keep the last.
                    tracing::warn!(error_id, %tenant, function = %name, reason, detail, "a call failed, and its caller was not told all");
                    message = format!("{message}: {detail}");
                }
                let (limit, observed, error_id) = (limit.clone(), seen.clone(), error_id.clone());
                let kind = self.kind(reason, level, setting);
                return self.driver.hub.fault(kind, Seen { limit, observed, worker, message, error_id });
            }
        };
        let kind = self.kind(reason, reached.level.map_or("", Level::name), &reached.setting);
        let LimitReached { limit, observed, .. } = reached;
        self.driver.hub.fault(kind, Seen { limit, observed, worker, message, error_id: String::new() });
    }

    /// By which this call's failure is found.
    fn error_id(&self) -> String {
        self.driver.services.labels.error_id(CallId(self.wanted.call.load(Ordering::SeqCst)))
    }

    /// The host or sublet has failed it.
    fn ours(&self, what: impl Into<String>) -> Failure {
        Failure::Ours { error_id: self.error_id(), what: what.into() }
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

    /// For a delivery. What may be delivered once more is kept.
    fn take_payload(&self) -> Bytes {
        let mut payload = self.payload.lock().unwrap_or_else(PoisonError::into_inner);
        if self.entry.settings.is_idempotent { payload.clone() } else { std::mem::take(&mut payload) }
    }

    /// Back from a worker that has not read it.
    fn put_payload(&self, payload: Bytes) {
        *self.payload.lock().unwrap_or_else(PoisonError::into_inner) = payload;
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
    async fn attempt(&self, outlet: &mut Outlet) -> Held {
        self.driver.post_answer.wait(&self.key).await;
        let (call, mut notes) = self.register();
        let mut last: Option<(Delivery, Option<Held>)> = None;
        let mut unfit = 0;
        // What the last one that was unfit had done, when its function had made it so.
        let mut broken: Option<String> = None;
        let mut ahead = None;
        loop {
            let note = match ahead.take() {
                Some(note) => Some(note),
                None => notes.recv().await,
            };
            match note {
                None => return Err(self.ours("the call was lost by the driver")),
                Some(Note::Settle { end, worker }) => {
                    let (delivery, held) = last.map_or((None, None), |(delivery, held)| (Some(delivery), held));
                    if unfit >= DELIVERIES_MAX {
                        return match broken {
                            // Each of its workers has said what nobody asked for: the function is so, and not the host.
                            Some(what) => self.failed(verdict::bad_frame(&what), None),
                            None => Err(self.ours(format!("{unfit} workers in a row were unfit when the call came"))),
                        };
                    }
                    let result = match held {
                        // Whatever has become of its worker since: this is what the caller has got.
                        Some(held) if outlet.is_given() => held,
                        held => self.settled(end, worker, delivery.as_ref(), held).await,
                    };
                    self.count(&result, delivery.as_ref());
                    return result;
                }
                // The worker that had begun to answer has died, and the function is idempotent. The caller, however, has
                // read what that one said.
                Some(Note::Deliver { .. }) if outlet.has_begun() => {
                    self.driver.step(Event::Cancel { call });
                    let result = match &last {
                        Some((delivery, _)) => self.died(&delivery.worker, Some(delivery)).await,
                        None => Err(self.ours("an answer was begun by no worker")),
                    };
                    self.count(&result, last.as_ref().map(|(delivery, _)| delivery));
                    return result;
                }
                Some(Note::Deliver { worker, lease, start, thaw }) => {
                    let delivery = Delivery {
                        lease: self.driver.services.labels.lease(lease),
                        start,
                        at: Instant::now(),
                        calls: worker.count_call(),
                        mark: None,
                        frozen: Duration::ZERO,
                        throttled_above: Vec::new(),
                        read: (Duration::ZERO, 0),
                        worker,
                    };
                    match self.deliver(delivery, lease, thaw, &mut notes, outlet).await {
                        Delivered::Replied(delivery, held) => last = Some((delivery, Some(held))),
                        Delivered::Overtaken(delivery, held, note) => {
                            last = Some((delivery, held));
                            ahead = note;
                        }
                        Delivered::Not(worker, Unfit { what, is_theirs }) => {
                            unfit += 1;
                            broken = is_theirs.then(|| what.clone());
                            let (tenant, function) = (&self.entry.tenant, &self.entry.name);
                            tracing::warn!(worker = worker.name(), %tenant, %function, what, "a worker was unfit when its next call came");
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
}
