//! What goes in and what comes out.

use std::time::Duration;

use crate::{
    key::{FunctionId, PoolKey, SubTenant, TenantId},
    policy::{FunctionPolicy, HostPolicy, SubTenantPolicy, TenantPolicy},
    time::Tick,
};

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
    /// A sandbox is made and checked: a cell is ready, or the function of a worker is loading.
    Made {
        /// Which.
        worker: WorkerId,
    },
    /// A worker's function is ready for calls.
    Started {
        /// Which.
        worker: WorkerId,
    },
    /// A worker or cell could not be made; the driver keeps the cause.
    StartFailed {
        /// Which.
        worker: WorkerId,
        /// Whose fault it is.
        blame: Blame,
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
    /// A worker turned out unfit before it can have read the call: the call goes back to the head of its queue, the
    /// worker is ended.
    Undelivered {
        /// Which.
        worker: WorkerId,
        /// Of which lease.
        lease: LeaseId,
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
    /// New limits of the host.
    SetHost(HostPolicy),
    /// New limits of a tenant.
    SetTenant {
        /// Which.
        tenant: TenantId,
        /// From now on.
        policy: TenantPolicy,
    },
    /// Limits of single sub-tenants; none: those of its tenant's sub-tenants. All at once: looking at who may go on now
    /// costs the same for one and for a thousand.
    SetSubTenants {
        /// Of which tenant.
        tenant: TenantId,
        /// From now on.
        policies: Vec<(SubTenant, Option<SubTenantPolicy>)>,
    },
    /// New limits of a function, in the same revision.
    SetFunction {
        /// Which.
        function: FunctionId,
        /// From now on.
        policy: FunctionPolicy,
    },
    /// How many workers of a key are kept, whatever happens to them; 0 again: none in particular.
    SetMinimum {
        /// Which.
        key: PoolKey,
        /// So many.
        workers: u32,
    },
    /// A revision that is replaced or removed: takes no more calls, serves those it has, and then goes.
    Retire {
        /// Which.
        function: FunctionId,
    },
    /// Take no more calls; end those accepted by the deadline.
    Drain {
        /// When the rest is cut.
        deadline: Tick,
    },
    /// Take calls again, and let workers and cells be made ahead again. What Drain has ended stays ended.
    Undrain,
    /// [`crate::Pool::next_wakeup`] has passed.
    Timer,
}

/// Whose fault it is that a worker could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// Its function's, or its sub-tenant's: a key whose workers keep failing backs off.
    Theirs,
    /// The host's or sublet's: nobody is refused a call for it.
    Ours,
}

/// Which workers an operator means.
#[derive(Clone, Debug)]
pub enum Selector {
    /// All, cells too.
    All,
    /// This one.
    Worker(WorkerId),
    /// Those that match all that is given; a cell has no sub-tenant.
    Match {
        /// Of this tenant.
        tenant: Option<TenantId>,
        /// Of this tenant's functions of this name, in any revision.
        functions: Option<Vec<FunctionId>>,
        /// Of this sub-tenant.
        sub_tenant: Option<SubTenant>,
    },
}

/// How a call found its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// It was made for this call, or for one beside it.
    Cold,
    /// A cell was labelled for this call, or for one beside it.
    Cell,
    /// It had served before.
    Warm,
}

/// What the driver must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a sandbox for nobody yet; answer with Made or StartFailed.
    MakeCell {
        /// Its id.
        worker: WorkerId,
        /// Of which function.
        function: FunctionId,
    },
    /// Give a ready cell its owner, for life, and start the function; answer with Started or StartFailed.
    Label {
        /// Which.
        worker: WorkerId,
        /// Whose it is from now on. Its sub-tenant has no other worker.
        key: PoolKey,
    },
    /// Make a worker; answer with Made, then Started; or with StartFailed.
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
    /// Freeze an idle worker, as soon as it is quiet.
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
    /// Nothing of a retired revision is left.
    Retired {
        /// Which.
        function: FunctionId,
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
    /// Its worker ended without an answer. That may have been a while ago, when the call was to be given to another.
    WorkerDied {
        /// Which.
        worker: WorkerId,
    },
    /// The worker made for it could not be started.
    StartFailed {
        /// Which.
        worker: WorkerId,
    },
    /// It was not accepted; or it was, and no function has seen it, and it is not served any more: of a drain, or because its
    /// key backs off.
    Refused(Refusal),
    /// An operator took its worker away.
    Evicted {
        /// Which.
        worker: WorkerId,
    },
}

/// The level at which a limit is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitLevel {
    /// All tenants together.
    Host,
    /// One tenant.
    Tenant,
    /// One function, over all sub-tenants.
    Function,
    /// One sub-tenant, over all functions.
    SubTenant,
}

/// Why a call is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The sub-tenant's queue for this function.
    QueueFull {
        /// Whose limit: the function's, or the sub-tenant's own.
        level: LimitLevel,
        /// Its limit.
        limit: u32,
        /// When one of the waiting calls should have gone on.
        retry_after: Duration,
    },
    /// Calls in flight.
    CallsFull {
        /// Whose limit.
        level: LimitLevel,
        /// The limit.
        limit: u32,
        /// When one of them should have ended.
        retry_after: Duration,
    },
    /// The host's waiting calls.
    CallsWaitingFull {
        /// Its limit.
        limit: u32,
        /// When one of them should have gone on.
        retry_after: Duration,
    },
    /// Too many calls per second.
    RateLimited {
        /// Whose rate.
        level: LimitLevel,
        /// Calls per second.
        per_second: u32,
        /// When the next call may pass.
        retry_after: Duration,
    },
    /// No new calls.
    Draining,
    /// It could not be answered in time by anybody.
    DeadlinePast,
    /// The function is not there any more, in this revision.
    UnknownFunction,
    /// Workers of this key keep failing.
    CrashBackoff {
        /// Until then.
        retry_after: Duration,
    },
}

impl Refusal {
    /// When the same call may be accepted; none: not before something else changes.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::QueueFull { retry_after, .. }
            | Self::CallsFull { retry_after, .. }
            | Self::CallsWaitingFull { retry_after, .. }
            | Self::RateLimited { retry_after, .. }
            | Self::CrashBackoff { retry_after } => Some(*retry_after),
            Self::Draining | Self::DeadlinePast | Self::UnknownFunction => None,
        }
    }
}

/// Why workers are not made ahead of calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WarmRefusal {
    /// The function is not there, in this revision.
    UnknownFunction,
    /// No new work.
    Draining,
    /// More than a limit allows.
    OverCap {
        /// Whose limit.
        level: LimitLevel,
        /// The limit.
        limit: u32,
    },
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
    /// A limit was lowered below what runs.
    OverCap,
    /// Its function is replaced or removed.
    FunctionRetired,
    /// A cell that is not needed any more, or too old.
    Surplus,
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
