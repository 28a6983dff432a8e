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
pub mod catalogue;
pub mod labels;
pub mod verdict;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sublet_pool::{Action, CallId, End, Event, LeaseId, Pool, Selector, Start, Tick, WorkerId};
use tokio::sync::{Notify, mpsc, watch};

use self::catalogue::{Catalogue, Entry};
use crate::worker::{
    Worker,
    keeper::{self, Workshop},
};

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
    calls: HashMap<CallId, mpsc::UnboundedSender<Note>>,
    actions: Vec<Action>,
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
}

/// The driver.
#[derive(Debug)]
pub struct Driver {
    /// The functions.
    pub catalogue: Catalogue,
    /// Sums.
    pub counters: Counters,
    shop: Arc<Workshop>,
    books: Mutex<Books>,
    origin: Instant,
    next_call: AtomicU64,
    timer: Notify,
    drained: watch::Sender<bool>,
}

/// One line about a worker.
#[derive(Clone, Debug)]
pub struct WorkerLine {
    /// The worker.
    pub worker: Arc<Worker>,
    /// Its state.
    pub state: sublet_pool::StateName,
    /// Calls given to it.
    pub calls: u64,
    /// How long it is idle, if it is.
    pub idle: Option<Duration>,
    /// Whether it is frozen.
    pub frozen: bool,
}

impl Driver {
    /// A driver with no worker. Must be called inside a tokio runtime; its timer runs as long as it lives.
    pub fn new(catalogue: Catalogue, pool: Pool, shop: Workshop) -> Arc<Self> {
        let driver = Arc::new(Self {
            catalogue,
            counters: Counters::default(),
            shop: Arc::new(shop),
            books: Mutex::new(Books {
                pool,
                workers: HashMap::new(),
                calls: HashMap::new(),
                actions: Vec::new(),
                armed: None,
            }),
            origin: Instant::now(),
            next_call: AtomicU64::new(1),
            timer: Notify::new(),
            drained: watch::Sender::new(false),
        });
        tokio::spawn(run_timer(Arc::downgrade(&driver)));
        driver
    }

    /// What every worker is made with.
    pub fn shop(&self) -> &Workshop {
        &self.shop
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
        let reaped = if let Event::Reaped { worker } = event { Some(worker) } else { None };
        let now = self.tick(Instant::now());
        let mut actions = std::mem::take(&mut books.actions);
        books.pool.handle(now, event, &mut actions);
        for action in actions.drain(..) {
            self.perform(books, action);
        }
        books.actions = actions;
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

    fn perform(self: &Arc<Self>, books: &mut Books, action: Action) {
        match action {
            Action::Spawn { worker: id, key } => {
                let Some(entry) = self.entry(&key.tenant, &key.function) else {
                    // The pool knows only functions of the catalogue.
                    tracing::error!(tenant = %key.tenant, function = %key.function, "a worker of an unknown function");
                    return;
                };
                let tag = self.shop.labels.tag(&key);
                let worker = Arc::new(Worker::new(id, key, entry, tag));
                books.workers.insert(id, worker.clone());
                let driver = self.clone();
                tokio::spawn(keeper::keep(self.shop.clone(), worker, move |event| driver.step(event)));
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
                if let Some(to) = books.calls.remove(&call) {
                    to.send(Note::Settle { end, worker }).ok();
                }
            }
            Action::Freeze { worker } => {
                if let Some(worker) = books.workers.get(&worker).cloned() {
                    worker.want_frozen(true);
                    tokio::task::spawn_blocking(move || {
                        if let Err(error) = worker.apply_freeze() {
                            tracing::warn!(worker = worker.name(), %error, "it cannot be frozen");
                        }
                    });
                }
            }
            Action::Kill { worker, why } => {
                if let Some(worker) = books.workers.get(&worker) {
                    tracing::debug!(worker = worker.name(), function = %worker.entry.name, ?why, "worker ends");
                    worker.kill(why);
                }
            }
            Action::Drained => drop(self.drained.send_replace(true)),
        }
    }

    fn entry(&self, tenant: &str, function: &str) -> Option<Arc<Entry>> {
        self.catalogue.tenant(tenant)?.get(function).cloned()
    }

    /// Takes no more calls, lets those accepted end within `grace`, ends all workers. Returns when nothing is left.
    pub async fn drain(self: &Arc<Self>, grace: Duration) {
        let mut drained = self.drained.subscribe();
        self.step(Event::Drain { deadline: self.tick(Instant::now() + grace) });
        // The sender is our own field.
        drop(drained.wait_for(|drained| *drained).await);
    }

    /// Ends workers that match. Returns how many are being ended and how many matching ones were left as busy.
    pub fn evict(self: &Arc<Self>, which: &Selector, force: bool) -> (u64, u64) {
        let mut books = self.books();
        let live = |books: &Books| {
            let matching = |view: &sublet_pool::WorkerView<'_>| which.matches(view.id, view.key);
            books.pool.workers().filter(|w| w.state != sublet_pool::StateName::Reaping && matching(w)).count() as u64
        };
        let before = live(&books);
        self.step_with(&mut books, Event::Evict { which: which.clone(), force });
        let after = live(&books);
        (before - after, after)
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

    /// Sums of now, and whether new calls are refused.
    pub fn counts(&self) -> (sublet_pool::Counts, bool) {
        let books = self.books();
        (books.pool.counts(), books.pool.is_draining())
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
                Some(at) => tokio::time::sleep_until((origin + Duration::from_nanos(at.0)).into()).await,
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
