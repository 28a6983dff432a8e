//! The driver: the shell around the pure pool. It feeds events in with the time, performs what comes out, and keeps
//! the books of who is what: workers by id, calls by id.
//!
//! ```text
//!  front --Invoke--> [call task] --events--> Driver::step --> Pool --> actions --+--> [keeper task] of a worker
//!                        ^                                                       +--> freeze
//!                        +------------------- Deliver, Settle -------------------+
//! ```
//! One lock guards pool and books. Actions are performed under it, so that they reach tasks in the order the pool gave
//! them; none of them waits for anything.

pub mod call;
mod drain;
pub mod guard;
mod health;
pub mod heap_trim;
pub mod limit_reached;
pub mod policy;
pub mod post_answer;
pub mod reason;
pub mod rejection;
pub mod standing;
pub mod usage;
pub mod verdict;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use sublet_pool::{
    Action, CallId, End, Event, FunctionId, KillReason, LeaseId, Pool, PoolKey, Selector, Stage, Start, StateName,
    SubTenant, SubTenantPolicy, Tick, WarmRefusal, WorkerId,
};
use sublet_proto::v1::WorkerState;
use tokio::{
    sync::{Notify, mpsc, watch},
    time::Instant,
};

use self::{
    drain::DrainState,
    heap_trim::HeapTrim,
    post_answer::PostAnswer,
    standing::{Starts, Why},
};
pub use self::{
    drain::{DrainEnd, IsStopping},
    health::NotServing,
};
use crate::{
    catalogue::{self, Catalogue, Entry},
    config::{Config, Name, SubTenantLevel, Tenant},
    events::{Happened, Hub, WorkerNews},
    logs::{capture::Capture, record::Source},
    recorder::Recorder,
    token::Keys,
    worker::{Owner, Services, Worker, farewell::KillOrder, keeper},
};

/// How long a worker that still writes to its log is left running before it is frozen all the same.
const QUIET_PATIENCE: Duration = Duration::from_secs(1);
/// Silent for so long, it has nothing more to say; and how often it is looked at meanwhile.
const QUIET_PAUSE: Duration = Duration::from_millis(50);
/// How often that is looked at.
const QUIET_LOOK: Duration = Duration::from_millis(10);

/// What the driver tells the task of a call.
#[derive(Debug)]
enum Note {
    Deliver { worker: Arc<Worker>, lease: LeaseId, start: Start, thaw: bool },
    Settle { end: End, worker: Option<Arc<Worker>> },
}

#[derive(Debug)]
struct Books {
    pool: Pool,
    workers: HashMap<WorkerId, Arc<Worker>>,
    /// Every revision that has or may have workers.
    entries: HashMap<FunctionId, Arc<Entry>>,
    calls: HashMap<CallId, mpsc::UnboundedSender<Note>>,
    /// Of revisions whose last start has failed.
    starts: HashMap<FunctionId, Starts>,
    actions: Vec<Action>,
    /// Places that the pool had promised when it was looked at last.
    promises: u64,
    /// When the timer task will wake.
    armed: Option<Tick>,
}

/// Sums since start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Calls that got their function's answer.
    pub answered: AtomicU64,
    /// Calls that got a verdict.
    pub failed: AtomicU64,
    /// Calls that were not accepted.
    pub refused: AtomicU64,
    /// Workers that became ready.
    pub started: AtomicU64,
    /// Workers that could not be made.
    pub start_failures: AtomicU64,
    /// Cells that got an owner.
    pub cells_labelled: AtomicU64,
    /// Cells that were ended without one.
    pub cells_wasted: AtomicU64,
}

/// The driver.
#[derive(Debug)]
pub struct Driver {
    catalogue: RwLock<Arc<Catalogue>>,
    /// Sums.
    pub counters: Counters,
    /// Where operators are told what happens.
    pub hub: Hub,
    services: Arc<Services>,
    recorder: Option<Recorder>,
    post_answer: PostAnswer,
    heap_trim: Arc<HeapTrim>,
    books: Mutex<Books>,
    origin: Instant,
    next_call: AtomicU64,
    timer: Notify,
    drain_state: watch::Sender<DrainState>,
    /// It has been told to end: no way back from the drain.
    stopping: AtomicBool,
    /// Functions that do not serve.
    failing: RwLock<HashMap<FunctionId, Why>>,
    guard: guard::Guard,
    /// Something has failed, or gone well that did not before.
    looked_for: Notify,
    /// Counts changes of what [`Driver::standing`] says.
    standing_changed: watch::Sender<u64>,
}

/// One line about a worker.
#[derive(Clone, Debug)]
pub struct WorkerLine {
    /// The worker.
    pub worker: Arc<Worker>,
    /// Its state.
    pub state: StateName,
    /// Calls given to it.
    pub calls: u64,
    /// How long it is idle, if it is.
    pub idle: Option<Duration>,
    /// Whether it is frozen.
    pub frozen: bool,
}

impl WorkerLine {
    /// Its state in the words of the wire.
    pub const fn wire_state(&self) -> WorkerState {
        match self.state {
            StateName::Starting => WorkerState::Starting,
            StateName::Idle => WorkerState::Idle,
            StateName::Cell => WorkerState::Cell,
            StateName::Leased => WorkerState::Leased,
            StateName::Draining => WorkerState::Draining,
            StateName::Reaping => WorkerState::Reaping,
        }
    }
}

impl Driver {
    /// A driver with no worker. Must be called inside a tokio runtime; its timer runs as long as it lives.
    pub fn new(config: &Config, keys: &Keys, services: Services, recorder: Option<Recorder>) -> Arc<Self> {
        let driver = Arc::new(Self {
            catalogue: RwLock::default(),
            counters: Counters::default(),
            hub: Hub::default(),
            services: Arc::new(services),
            recorder,
            post_answer: PostAnswer::default(),
            heap_trim: Arc::default(),
            books: Mutex::new(Books {
                pool: Pool::new(policy::host(&config.host)),
                workers: HashMap::new(),
                entries: HashMap::new(),
                calls: HashMap::new(),
                starts: HashMap::new(),
                actions: Vec::new(),
                promises: 0,
                armed: None,
            }),
            origin: Instant::now(),
            next_call: AtomicU64::new(1),
            timer: Notify::new(),
            drain_state: watch::Sender::new(DrainState::Serving),
            stopping: AtomicBool::new(false),
            failing: RwLock::default(),
            guard: guard::Guard::default(),
            looked_for: Notify::new(),
            standing_changed: watch::Sender::new(0),
        });
        driver.install(config, keys);
        tokio::spawn(run_timer(Arc::downgrade(&driver)));
        tokio::spawn(health::run(Arc::downgrade(&driver)));
        tokio::spawn(guard::run(Arc::downgrade(&driver)));
        tokio::spawn(return_memory(driver.heap_trim.clone()));
        driver
    }

    /// The functions that calls may name now.
    pub fn catalogue(&self) -> Arc<Catalogue> {
        self.catalogue.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the recording, if there is one. Returns how many delivered calls it lacks.
    pub fn finish_recording(&self) -> Option<std::io::Result<u64>> {
        self.recorder.as_ref().map(Recorder::finish)
    }

    /// Makes a checked configuration the one that counts: limits are set, new functions and revisions take calls, those
    /// that are replaced or gone serve what they have accepted and end. `keys` are those it names.
    pub fn install(self: &Arc<Self>, config: &Config, keys: &Keys) {
        let mut books = self.books();
        let old = self.catalogue();
        let mut events = vec![Event::SetHost(policy::host(&config.host))];
        let new = {
            let events = std::cell::RefCell::new(&mut events);
            let pool = std::cell::RefCell::new(&mut books.pool);
            Catalogue::new(
                config,
                |name, tenant| {
                    let policy = policy::tenant(tenant);
                    let id = pool.borrow_mut().add_tenant(name, policy);
                    events.borrow_mut().push(Event::SetTenant { tenant: id, policy });
                    id
                },
                |tenant, name, function| {
                    let policy = policy::function(function);
                    let id = pool.borrow_mut().add_function(tenant, name, function.revision, policy.clone());
                    events.borrow_mut().push(Event::SetFunction { function: id, policy });
                    id
                },
            )
        };
        let before = |name: &Name| old.config.as_ref().and_then(|old| old.tenants.get(name));
        let after = |name: &Name| config.tenants.get(name);
        let gone = old.config.iter().flat_map(|old| old.tenants.keys()).filter(|name| after(name).is_none());
        for name in config.tenants.keys().chain(gone) {
            // Of a tenant that is gone too: it may come back, under the same number.
            let known = new.tenant(name.as_str()).or_else(|| old.tenant(name.as_str()));
            let policies = own_policies(before(name), after(name));
            if let Some(known) = known.filter(|_| !policies.is_empty()) {
                events.push(Event::SetSubTenants { tenant: known.id, policies });
            }
        }
        for entry in old.all() {
            match new.function(&entry.tenant, &entry.name) {
                Some(newer) if newer.id == entry.id => {
                    let kept = catalogue::minimums(&newer.settings);
                    for sub_tenant in catalogue::minimums(&entry.settings).into_keys().filter(|l| !kept.contains_key(l))
                    {
                        let key = PoolKey { function: entry.id, sub_tenant };
                        events.push(Event::SetMinimum { key, workers: 0 });
                    }
                }
                Some(_) | None => events.push(Event::Retire { function: entry.id }),
            }
        }
        for entry in new.all() {
            self.services.providers.install(entry, keys);
            books.entries.insert(entry.id, entry.clone());
            for (sub_tenant, workers) in catalogue::minimums(&entry.settings) {
                events.push(Event::SetMinimum { key: PoolKey { function: entry.id, sub_tenant }, workers });
            }
        }
        self.services.busy_poll.allow(config.host.busy_poll);
        *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        for event in events {
            self.step_with(&mut books, event);
        }
        self.tell_standing();
    }

    /// What every worker is made with.
    pub fn services(&self) -> &Services {
        &self.services
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tick(&self, at: Instant) -> Tick {
        Tick(u64::try_from(at.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX))
    }

    /// Takes one event in and performs what follows.
    fn step(self: &Arc<Self>, event: Event) {
        let mut books = self.books();
        self.step_with(&mut books, event);
    }

    fn step_with(self: &Arc<Self>, books: &mut Books, event: Event) {
        match event {
            Event::Started { .. } => drop(self.counters.started.fetch_add(1, Ordering::Relaxed)),
            Event::StartFailed { .. } => drop(self.counters.start_failures.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
        self.note_standing(books, &event);
        let reaped = if let Event::Reaped { worker } = event { Some(worker) } else { None };
        if self.hub.is_heard() {
            self.tell(books, &event);
        }
        // Before the pool may give its owner a worker with another group.
        if let Some(worker) = reaped.and_then(|id| books.workers.get(&id))
            && let Some(owner) = worker.owner()
        {
            self.services.groups.leave(&worker.entry.tenant, &owner.sub_tenant);
        }
        let now = self.tick(Instant::now());
        let mut actions = std::mem::take(&mut books.actions);
        books.pool.handle(now, event, &mut actions);
        for action in actions.drain(..) {
            self.perform(books, action);
        }
        books.actions = actions;
        self.hurry_promised(books);
        if let Some(worker) = reaped {
            books.workers.remove(&worker);
        }
        let next = books.pool.next_wakeup();
        // A wake-up that comes too early costs one look; one that comes too late is a missed deadline.
        if let Some(next) = next
            && books.armed.is_none_or(|armed| next < armed)
        {
            books.armed = Some(next);
            self.timer.notify_one();
        }
    }

    /// Tells listeners what became of a worker.
    fn tell(&self, books: &Books, event: &Event) {
        let (id, what) = match event {
            Event::Made { worker } => (worker, "cell ready"),
            Event::Started { worker } => (worker, "ready"),
            Event::StartFailed { worker, .. } => (worker, "start failed"),
            Event::Reaped { worker } => (worker, "gone"),
            _ => return,
        };
        let Some(worker) = books.workers.get(id) else { return };
        // Everybody else's is made on the way to being ready.
        if what == "cell ready" && worker.owner().is_some() {
            return;
        }
        self.hub.tell(Happened::Worker(WorkerNews {
            worker: worker.name(),
            tenant: worker.entry.tenant.to_string(),
            function: worker.entry.name.to_string(),
            sub_tenant_hash: match worker.owner() {
                Some(owner) => self.services.labels.group(&worker.entry.tenant, &owner.sub_tenant),
                None => String::new(),
            },
            what,
            why: worker.kill_reason().filter(|_| what == "gone").map(|why| format!("{why:?}")).unwrap_or_default(),
        }));
    }

    /// A worker or cell is asked for.
    fn make(self: &Arc<Self>, books: &mut Books, id: WorkerId, function: FunctionId, owner: Option<&PoolKey>) {
        let Some(entry) = books.entries.get(&function).cloned() else {
            // The pool knows only functions of a catalogue, and lets go of them first.
            tracing::error!(function = function.0, "a worker of an unknown function");
            return;
        };
        let worker = Arc::new(Worker::new(id, entry, owner.is_none()));
        match owner {
            Some(key) => self.label(&worker, key),
            None => worker.meter().belongs_to(self.services.ledger.of(&worker.entry.tenant, None)),
        }
        books.workers.insert(id, worker.clone());
        let driver = self.clone();
        tokio::spawn(keeper::keep(self.services.clone(), worker, move |event| driver.step(event)));
    }

    fn label(&self, worker: &Worker, key: &PoolKey) {
        let (tenant, sub_tenant) = (&worker.entry.tenant, &key.sub_tenant);
        let tag = self.services.labels.tag(&worker.entry, sub_tenant);
        let group = self.services.groups.enter(tenant, sub_tenant, || match worker.was_cell {
            true => worker.cell_group(),
            false => self.services.labels.group(tenant, sub_tenant),
        });
        worker.meter().belongs_to(self.services.ledger.of(tenant, Some(sub_tenant)));
        self.attach(worker, sub_tenant);
        if !worker.label(Owner { sub_tenant: sub_tenant.clone(), tag, group, since: Instant::now() }) {
            // Its keeper goes on with the first owner. A call of the second is not delivered: its tag differs from the first's.
            tracing::error!(worker = worker.name(), "a worker was to get a second owner");
            self.services.groups.leave(tenant, sub_tenant);
        }
    }

    /// Before its function runs: from here on it is known whose its lines are.
    fn attach(&self, worker: &Worker, sub_tenant: &SubTenant) {
        let Entry { tenant, name, settings, .. } = &*worker.entry;
        let source = Source {
            tenant: tenant.to_string(),
            function: name.to_string(),
            sub_tenant_hash: self.services.labels.group(tenant, sub_tenant),
            worker: worker.name(),
        };
        let logs = self.services.logs.clone();
        worker.log.attach(Capture::new(logs, source, settings.log_rate.bytes(), settings.has_report_lines));
    }

    fn perform(self: &Arc<Self>, books: &mut Books, action: Action) {
        match action {
            Action::Spawn { worker: id, key } => self.make(books, id, key.function, Some(&key)),
            Action::MakeCell { worker: id, function } => self.make(books, id, function, None),
            Action::Label { worker, key } => {
                if let Some(worker) = books.workers.get(&worker) {
                    self.counters.cells_labelled.fetch_add(1, Ordering::Relaxed);
                    self.label(worker, &key);
                }
            }
            Action::Deliver { call, worker, lease, start, thaw, deadline: _ } => {
                if let (Some(to), Some(worker)) = (books.calls.get(&call), books.workers.get(&worker)) {
                    worker.want_frozen(false);
                    // A task that has gone has said Cancel, and the pool ends this worker on it.
                    to.send(Note::Deliver { worker: worker.clone(), lease, start, thaw }).ok();
                }
            }
            Action::Settle { call, end } => {
                let id = match end {
                    End::Answered { worker, .. }
                    | End::WorkerDied { worker }
                    | End::StartFailed { worker }
                    | End::Evicted { worker } => Some(worker),
                    End::Deadline { worker, .. } | End::Cancelled { worker, .. } => worker,
                    End::Refused(_) => None,
                };
                let worker = id.and_then(|id| books.workers.get(&id)).cloned();
                if let (End::Deadline { at: Stage::Leased, .. }, Some(worker)) = (end, &worker) {
                    // Killed, it stands still no longer, and nobody could say why it did not answer.
                    worker.note_frozen();
                }
                if let Some(to) = books.calls.remove(&call) {
                    to.send(Note::Settle { end, worker }).ok();
                }
            }
            Action::Freeze { worker } => {
                if let Some(worker) = books.workers.get(&worker).cloned() {
                    worker.want_frozen(true);
                    tokio::spawn(freeze(worker));
                }
            }
            Action::Kill { worker, why } => {
                if let Some(worker) = books.workers.get(&worker) {
                    tracing::debug!(worker = worker.name(), function = %worker.entry.name, ?why, "worker ends");
                    if worker.owner().is_none() && matches!(why, KillReason::Surplus | KillReason::MakeRoom) {
                        self.counters.cells_wasted.fetch_add(1, Ordering::Relaxed);
                    }
                    // As it is now: running workers get it as well.
                    let Entry { tenant, name, settings, .. } = &*worker.entry;
                    let catalogue = self.catalogue();
                    let settings = catalogue.function(tenant, name).map_or(settings, |now| &now.settings);
                    worker.kill(KillOrder { why, grace: settings.stop_grace });
                }
            }
            Action::Retired { function } => {
                self.services.providers.forget(function);
                books.entries.remove(&function);
                books.starts.remove(&function);
            }
            Action::Drained => drop(self.drain_state.send_replace(DrainState::Drained)),
        }
    }

    /// A worker whose place somebody waits for has no time to end by itself any more.
    fn hurry_promised(&self, books: &mut Books) {
        // Seldom: only when a call has just been promised a place.
        if books.promises == books.pool.promises() {
            return;
        }
        books.promises = books.pool.promises();
        for worker in books.pool.promised().filter_map(|id| books.workers.get(&id)) {
            worker.hurry();
        }
    }

    /// No worker that is to end has time for that any more.
    pub fn hurry_all(&self) {
        self.books().workers.values().for_each(|worker| worker.hurry());
    }

    /// Ends workers that match. Returns how many are being ended and how many matching ones were left as busy.
    pub fn evict(self: &Arc<Self>, which: &Selector, force: bool) -> (u64, u64) {
        let mut books = self.books();
        let before = books.pool.count_matching(which);
        self.step_with(&mut books, Event::Evict { which: which.clone(), force });
        let after = books.pool.count_matching(which);
        // What the places of the evicted are used for at once may match as well.
        (before.saturating_sub(after), after.min(before))
    }

    /// Every revision of a tenant's functions of this name, or of all tenants'.
    pub fn functions_named(&self, tenant: Option<&str>, name: &str) -> Vec<FunctionId> {
        let books = self.books();
        let is_meant = |entry: &Entry| *entry.name == *name && tenant.is_none_or(|tenant| *entry.tenant == *tenant);
        books.entries.iter().filter(|(_, entry)| is_meant(entry)).map(|(id, _)| *id).collect()
    }

    /// Has workers made until `count` of them live. Returns how many are being made for that.
    ///
    /// # Errors
    /// Nothing is changed when a limit does not allow so many.
    pub fn warm(self: &Arc<Self>, key: &PoolKey, count: u32) -> Result<u32, WarmRefusal> {
        let mut books = self.books();
        let now = self.tick(Instant::now());
        let mut actions = Vec::new();
        let missing = books.pool.warm(now, key, count, &mut actions)?;
        for action in actions {
            self.perform(&mut books, action);
        }
        // Starts have deadlines: the timer has to know.
        self.step_with(&mut books, Event::Timer);
        Ok(missing)
    }

    /// All workers, by id.
    pub fn workers(&self) -> Vec<WorkerLine> {
        let now = self.tick(Instant::now());
        let books = self.books();
        let line = |view: sublet_pool::WorkerView<'_>| {
            Some(WorkerLine {
                worker: books.workers.get(&view.id)?.clone(),
                state: view.state,
                calls: view.calls,
                idle: view.idle_since.map(|since| now.since(since)),
                frozen: view.frozen,
            })
        };
        books.pool.workers().filter_map(line).collect()
    }

    /// Calls that wait, by sub-tenant; of those that have any.
    pub fn waiting(&self) -> HashMap<(Arc<str>, SubTenant), u32> {
        let books = self.books();
        let mut waiting = HashMap::new();
        for (function, sub_tenant, calls) in books.pool.waiting() {
            if let Some(entry) = books.entries.get(&function) {
                *waiting.entry((entry.tenant.clone(), sub_tenant.clone())).or_insert(0) += calls;
            }
        }
        waiting
    }

    /// Sums of now.
    pub fn counts(&self) -> sublet_pool::Counts {
        self.books().pool.counts()
    }
}

/// Limits of single sub-tenants that are others than before.
fn own_policies(before: Option<&Tenant>, now: Option<&Tenant>) -> Vec<(SubTenant, Option<SubTenantPolicy>)> {
    let none = BTreeMap::new();
    let (old, now) = (before.map_or(&none, |tenant| &tenant.ids), now.map_or(&none, |tenant| &tenant.ids));
    let label = |text: &String| SubTenant::try_from(text.as_str()).ok();
    let policy = |level: &SubTenantLevel| policy::sub_tenant(level);
    let changed = now.iter().filter(|(text, level)| old.get(*text).map(policy) != Some(policy(level)));
    let set = changed.filter_map(|(text, level)| Some((label(text)?, Some(policy(level)))));
    let gone = old.keys().filter(|text| !now.contains_key(*text)).filter_map(|text| Some((label(text)?, None)));
    set.chain(gone).collect()
}

/// Freezes an idle worker once it has nothing more to say: what it writes after its answer is not cut in two for as long
/// as the next call takes to come.
async fn freeze(worker: Arc<Worker>) {
    let end = Instant::now() + QUIET_PATIENCE;
    while worker.is_wanted_frozen() && !worker.log.is_quiet_for(QUIET_PAUSE) && Instant::now() < end {
        tokio::time::sleep(QUIET_LOOK).await;
    }
    if let Err(error) = worker.apply_freeze() {
        let (tenant, function) = (&worker.entry.tenant, &worker.entry.name);
        tracing::warn!(worker = worker.name(), %tenant, %function, %error, "it cannot be frozen");
    }
}

/// Gives memory back after large calls.
async fn return_memory(heap_trim: Arc<HeapTrim>) {
    loop {
        heap_trim.wait_until_due(heap_trim::QUIET).await;
        // It ends by itself, and nobody waits for it.
        drop(tokio::task::spawn_blocking(crate::sys::return_free_memory));
    }
}

/// Wakes the pool when it wants to be woken.
async fn run_timer(driver: std::sync::Weak<Driver>) {
    loop {
        let Some(strong) = driver.upgrade() else { return };
        let armed = strong.books().armed;
        let origin = strong.origin;
        // Held over the wait: it is the driver's own, and the driver lives as long as the process serves.
        let sleep = async {
            match armed {
                Some(at) => tokio::time::sleep_until(origin + Duration::from_nanos(at.0)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = sleep => {
                let mut books = strong.books();
                books.armed = None;
                strong.step_with(&mut books, Event::Timer);
            }
            () = strong.timer.notified() => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
