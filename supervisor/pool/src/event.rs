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

/// What has happened, as the driver tells it to [`Pool::handle`](crate::Pool::handle).
#[derive(Clone, Debug)]
pub enum Event {
    /// A new call.
    Invoke {
        /// Its id, which no call before it had.
        call: CallId,
        /// Function and sub-tenant whose worker it needs.
        key: PoolKey,
        /// When it must be answered; from then on it is refused or ended.
        deadline: Tick,
    },
    /// The caller went away.
    Cancel {
        /// The call that nobody waits for any more.
        call: CallId,
    },
    /// A sandbox is made and checked: a cell is ready, or the function of a worker is loading.
    Made {
        /// The worker or cell whose sandbox is ready.
        worker: WorkerId,
    },
    /// A worker's function is ready for calls.
    Started {
        /// The worker whose function is ready.
        worker: WorkerId,
    },
    /// A worker or cell could not be made; the driver keeps the cause.
    StartFailed {
        /// The worker or cell that could not be made.
        worker: WorkerId,
        /// Whose fault it is, which decides whether its key backs off.
        blame: Blame,
    },
    /// The driver holds the reply of a lease.
    Answered {
        /// The worker that has answered.
        worker: WorkerId,
        /// The lease it has answered; another than its present one is ignored.
        lease: LeaseId,
        /// Whether the worker may serve another call.
        clean: bool,
    },
    /// A worker turned out unfit before it can have read the call: the call goes back to the head of its queue, the
    /// worker is ended.
    Undelivered {
        /// The worker that turned out unfit.
        worker: WorkerId,
        /// The lease of the call that comes back; another than the present one is ignored.
        lease: LeaseId,
    },
    /// A worker ended by itself.
    Died {
        /// The worker or cell that has ended.
        worker: WorkerId,
    },
    /// Nothing of a worker is left.
    Reaped {
        /// The worker or cell that is gone, and whose place is free now.
        worker: WorkerId,
    },
    /// An operator wants workers gone.
    Evict {
        /// The workers and cells that are meant.
        which: Selector,
        /// Whether workers with a call and starting workers are ended as well.
        force: bool,
    },
    /// New limits of the host.
    SetHost(HostPolicy),
    /// New limits of a tenant.
    SetTenant {
        /// The tenant whose limits change.
        tenant: TenantId,
        /// The limits that hold from now on.
        policy: TenantPolicy,
    },
    /// Limits of single sub-tenants; none: those of its tenant's sub-tenants. All at once: looking at who may go on now
    /// costs the same for one and for a thousand.
    SetSubTenants {
        /// The tenant whose sub-tenants are meant.
        tenant: TenantId,
        /// Sub-tenants, each with its limits from now on; none: those of its tenant.
        policies: Vec<(SubTenant, Option<SubTenantPolicy>)>,
    },
    /// New limits of a function, in the same revision.
    SetFunction {
        /// The revision whose limits change.
        function: FunctionId,
        /// The limits that hold from now on.
        policy: FunctionPolicy,
    },
    /// How many workers of a key are kept, whatever happens to them; 0 again: none in particular.
    SetMinimum {
        /// The key whose workers are kept.
        key: PoolKey,
        /// How many workers are kept; 0: none in particular.
        workers: u32,
    },
    /// A revision that is replaced or removed: takes no more calls, serves those it has, and then goes.
    Retire {
        /// The revision that is replaced or removed.
        function: FunctionId,
    },
    /// Take no more calls; end those accepted by the deadline.
    Drain {
        /// When the calls that are left are ended.
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
    /// All workers and all cells.
    All,
    /// The worker or cell of this id.
    Worker(WorkerId),
    /// Those that match all that is given; a cell has no sub-tenant.
    Match {
        /// Only workers of this tenant.
        tenant: Option<TenantId>,
        /// Only workers of these functions: all revisions of one name.
        functions: Option<Vec<FunctionId>>,
        /// Only workers of the sub-tenant with this label.
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

/// What the driver must do, in the order in which the pool says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make a sandbox for nobody yet; answer with Made or StartFailed.
    MakeCell {
        /// The id of the new cell.
        worker: WorkerId,
        /// The function it is made for.
        function: FunctionId,
    },
    /// Give a ready cell its owner, for life, and start the function; answer with Started or StartFailed.
    Label {
        /// The cell that becomes a worker.
        worker: WorkerId,
        /// Its function and its owner from now on. The owner has no other worker.
        key: PoolKey,
    },
    /// Make a worker; answer with Made, then Started; or with StartFailed.
    Spawn {
        /// The id of the new worker.
        worker: WorkerId,
        /// Its function and its owner, for life.
        key: PoolKey,
    },
    /// Give the call to the worker. Exactly one Settle follows.
    Deliver {
        /// The call to hand over.
        call: CallId,
        /// The worker that gets it.
        worker: WorkerId,
        /// The lease by which its answer is recognised.
        lease: LeaseId,
        /// How the worker was found.
        start: Start,
        /// Whether the worker is frozen and must be thawed first.
        thaw: bool,
        /// When the call must be answered.
        deadline: Tick,
    },
    /// The one end of a call.
    Settle {
        /// The call that has ended.
        call: CallId,
        /// How it has ended.
        end: End,
    },
    /// Freeze an idle worker, as soon as it is quiet.
    Freeze {
        /// The idle worker to freeze.
        worker: WorkerId,
    },
    /// End a worker and remove all of it; answer with Reaped.
    Kill {
        /// The worker or cell to end.
        worker: WorkerId,
        /// Why it is ended.
        why: KillReason,
    },
    /// Nothing of a retired revision is left.
    Retired {
        /// The revision of which nothing is left.
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
    /// Given to a worker, which has not answered.
    Leased,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The driver hands out the reply it holds.
    Answered {
        /// The worker whose reply it is.
        worker: WorkerId,
        /// The lease whose reply it is.
        lease: LeaseId,
    },
    /// Its deadline passed.
    Deadline {
        /// How far it had come.
        at: Stage,
        /// The worker it was with; none: it had none.
        worker: Option<WorkerId>,
    },
    /// Its caller went away.
    Cancelled {
        /// How far it had come.
        at: Stage,
        /// The worker it was with; none: it had none.
        worker: Option<WorkerId>,
    },
    /// Its worker ended without an answer. That may have been a while ago, when the call was to be given to another.
    WorkerDied {
        /// The worker that ended without an answer.
        worker: WorkerId,
    },
    /// The worker made for it could not be started.
    StartFailed {
        /// The worker that could not be started.
        worker: WorkerId,
    },
    /// It was not accepted; or it was, and no function has seen it, and it is not served any more: of a drain, or because its
    /// key backs off.
    Refused(Refusal),
    /// An operator took its worker away.
    Evicted {
        /// The worker that was taken away.
        worker: WorkerId,
    },
}

/// The level at which a limit is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LimitLevel {
    /// The host, over all tenants.
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
    /// As many calls of the sub-tenant wait for this function as may.
    QueueFull {
        /// Whose limit it is: the function's, or the sub-tenant's own.
        level: LimitLevel,
        /// The limit, in calls that wait.
        limit: u32,
        /// When one of the waiting calls should have gone on.
        retry_after: Duration,
    },
    /// As many calls are in flight as may be.
    CallsFull {
        /// Whose limit it is.
        level: LimitLevel,
        /// The limit, in calls in flight.
        limit: u32,
        /// When one of them should have ended.
        retry_after: Duration,
    },
    /// As many calls wait on the host as may.
    CallsWaitingFull {
        /// The limit of the host, in calls that wait.
        limit: u32,
        /// When one of them should have gone on.
        retry_after: Duration,
    },
    /// More calls came than the rate lets pass.
    RateLimited {
        /// Whose rate it is.
        level: LimitLevel,
        /// Calls per second.
        per_second: u32,
        /// When the next call may pass.
        retry_after: Duration,
    },
    /// The pool drains and takes no new calls.
    Draining,
    /// It could not be answered in time by anybody.
    DeadlinePast,
    /// The function is not there any more, in this revision.
    UnknownFunction,
    /// Workers of this key keep failing.
    CrashBackoff {
        /// How long the key still backs off.
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
    /// The pool drains and begins nothing new.
    Draining,
    /// More than a limit allows.
    OverCap {
        /// Whose limit it is.
        level: LimitLevel,
        /// The limit, in workers.
        limit: u32,
    },
    /// Workers of this key keep failing.
    CrashBackoff {
        /// How long the key still backs off.
        retry_after: Duration,
    },
}

/// Why a worker is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillReason {
    /// It was idle for longer than its function's `idle_ttl`.
    IdleTtl,
    /// It is older than its function's `age_max`.
    AgeMax,
    /// It has served its function's `calls_max` calls.
    CallsMax,
    /// Another needs its place.
    MakeRoom,
    /// A limit was lowered below what runs.
    OverCap,
    /// Its function is replaced or removed.
    FunctionRetired,
    /// A cell that is not needed any more, or too old.
    Surplus,
    /// The deadline of its call has passed.
    Deadline,
    /// The caller of its call went away.
    Cancelled,
    /// It answered and is not fit for more.
    Tainted,
    /// It was not ready within its function's `start_timeout`.
    StartTimeout,
    /// It could not be made.
    StartFailed,
    /// It ended by itself.
    Died,
    /// An operator wants it gone.
    Evicted,
    /// The pool drains.
    Drain,
}
