//! What goes in and what comes out.

use std::{ops::Add, sync::Arc, time::Duration};

use crate::key::{PoolKey, SubTenant};

/// Nanoseconds on a monotonic clock of the driver's choosing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Add<Duration> for Tick {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl Tick {
    /// Time since an earlier tick; zero if it is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// One call; chosen by the driver, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// One worker; counts up, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);

/// One delivery; counts up, never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseId(pub u64);

/// What happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A new call.
    Invoke {
        /// Its id.
        call: CallId,
        /// Whose worker it needs.
        key: PoolKey,
        /// When it must be answered.
        deadline: Tick,
    },
    /// The caller went away.
    Cancel {
        /// Which call.
        call: CallId,
    },
    /// A worker passed its checks and is ready.
    Started {
        /// Which.
        worker: WorkerId,
    },
    /// A worker could not be made; the driver keeps the cause.
    StartFailed {
        /// Which.
        worker: WorkerId,
    },
    /// The driver holds the reply of a lease.
    Answered {
        /// Of which worker.
        worker: WorkerId,
        /// Of which lease.
        lease: LeaseId,
        /// Whether the worker may serve another call.
        clean: bool,
    },
    /// A worker ended by itself.
    Died {
        /// Which.
        worker: WorkerId,
    },
    /// Nothing of a worker is left.
    Reaped {
        /// Which.
        worker: WorkerId,
    },
    /// An operator wants workers gone.
    Evict {
        /// Which.
        which: Selector,
        /// Busy and starting ones too.
        force: bool,
    },
    /// Take no more calls; end those accepted by the deadline.
    Drain {
        /// When the rest is cut.
        deadline: Tick,
    },
    /// [`crate::Pool::next_wakeup`] has passed.
    Timer,
}

/// Which workers an operator means.
#[derive(Clone, Debug)]
pub enum Selector {
    /// All.
    All,
    /// This one.
    Worker(WorkerId),
    /// Those that match all that is given.
    Match {
        /// Of this tenant.
        tenant: Option<Arc<str>>,
        /// Of this function.
        function: Option<Arc<str>>,
        /// Of this sub-tenant.
        sub_tenant: Option<SubTenant>,
    },
}

impl Selector {
    /// Whether a worker is meant.
    pub fn matches(&self, id: WorkerId, key: &PoolKey) -> bool {
        match self {
            Self::All => true,
            Self::Worker(worker) => *worker == id,
            Self::Match { tenant, function, sub_tenant } => {
                tenant.as_ref().is_none_or(|t| *t == key.tenant)
                    && function.as_ref().is_none_or(|f| *f == key.function)
                    && sub_tenant.as_ref().is_none_or(|s| *s == key.sub_tenant)
            }
        }
    }
}

/// How a call found its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It was made for this call, or for one beside it.
    Cold,
    /// It had served before.
    Warm,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a worker; answer with Started or StartFailed.
    Spawn {
        /// Its id.
        worker: WorkerId,
        /// For whom, for life.
        key: PoolKey,
    },
    /// Give the call to the worker. Exactly one Settle follows.
    Deliver {
        /// The call.
        call: CallId,
        /// Its worker.
        worker: WorkerId,
        /// Its lease.
        lease: LeaseId,
        /// How it was found.
        start: Start,
        /// Whether the worker is frozen.
        thaw: bool,
        /// When the call must be answered.
        deadline: Tick,
    },
    /// The one end of a call.
    Settle {
        /// The call.
        call: CallId,
        /// Its end.
        end: End,
    },
    /// Freeze an idle worker.
    Freeze {
        /// Which.
        worker: WorkerId,
    },
    /// End a worker and remove all of it; answer with Reaped.
    Kill {
        /// Which.
        worker: WorkerId,
        /// Why.
        why: KillReason,
    },
    /// No worker and no call is left after Drain.
    Drained,
}

/// Where a call was when it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Waiting for a place.
    Queued,
    /// Waiting for a worker in the making.
    Starting,
    /// With a worker.
    Leased,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The driver hands out the reply it holds.
    Answered {
        /// From this worker.
        worker: WorkerId,
        /// Of this lease.
        lease: LeaseId,
    },
    /// Its deadline passed.
    Deadline {
        /// Where it was.
        at: Stage,
        /// With this worker.
        worker: Option<WorkerId>,
    },
    /// Its caller went away.
    Cancelled {
        /// Where it was.
        at: Stage,
        /// With this worker.
        worker: Option<WorkerId>,
    },
    /// Its worker ended without an answer.
    WorkerDied {
        /// Which.
        worker: WorkerId,
    },
    /// The worker made for it could not be started.
    StartFailed {
        /// Which.
        worker: WorkerId,
    },
    /// It was not accepted.
    Refused(Refusal),
    /// An operator took its worker away.
    Evicted {
        /// Which.
        worker: WorkerId,
    },
}

/// Why a call is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The sub-tenant's queue for this function.
    QueueFull {
        /// Its limit.
        limit: u32,
    },
    /// The tenant's calls in flight.
    TenantCallsFull {
        /// Its limit.
        limit: u32,
    },
    /// The host's waiting calls.
    CallsWaitingFull {
        /// Its limit.
        limit: u32,
    },
    /// No new calls.
    Draining,
    /// It could not be answered in time by anybody.
    DeadlinePast,
    /// No function of this name and revision was set.
    UnknownFunction,
    /// Workers of this key keep failing.
    CrashBackoff {
        /// Until then.
        retry_after: Duration,
    },
}

/// Why a worker is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// Idle too long.
    IdleTtl,
    /// Too old.
    AgeMax,
    /// Served enough.
    CallsMax,
    /// Another needs its place.
    MakeRoom,
    /// Its call ran over.
    Deadline,
    /// Its caller went away.
    Cancelled,
    /// It answered and is not fit for more.
    Tainted,
    /// Not ready in time.
    StartTimeout,
    /// It could not be made.
    StartFailed,
    /// It ended by itself.
    Died,
    /// An operator wants it gone.
    Evicted,
    /// All are going.
    Drain,
}
