//! What happened in histories, counted, so that nobody believes a fault was tried that never came.

/// Kinds of faults and turns of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A worker that could not be made.
    SpawnFailed,
    /// A worker that never says anything.
    SpawnHung,
    /// A worker that takes long.
    SpawnSlow,
    /// A worker that is started without having been said to be made.
    MadeLost,
    /// A cell that could not be made.
    CellFailed,
    /// A cell that never gets ready.
    CellHung,
    /// A labelled cell whose function does not start.
    LabelFailed,
    /// Deaths, by the state of the worker at that time.
    DiedStarting,
    /// See above.
    DiedIdle,
    /// See above.
    DiedLeased,
    /// See above.
    DiedCell,
    /// Said of a worker that is gone or being removed.
    LateStarted,
    /// See above.
    LateMade,
    /// See above.
    LateDied,
    /// See above.
    LateStartFailed,
    /// A reply of a lease that has ended.
    LateAnswered,
    /// A reply that comes when the call's time is over.
    AnsweredPastDeadline,
    /// Said twice.
    Duplicate,
    /// A reply by a lease that is another's.
    WrongLease,
    /// A worker that is not fit for more.
    Unclean,
    /// A call that did not reach its worker.
    Undelivered,
    /// A call that gets no reply.
    CallHung,
    /// Cancels, by where the call was.
    CancelQueued,
    /// See above.
    CancelStarting,
    /// See above.
    CancelLeased,
    /// Of a call that has ended.
    CancelLate,
    /// Evictions by selector.
    EvictAll,
    /// See above.
    EvictWorker,
    /// See above.
    EvictMatch,
    /// With force.
    EvictForced,
    /// Workers asked for ahead.
    Warmed,
    /// Not granted.
    WarmRefused,
    /// Set to something.
    MinimumSet,
    /// Taken back.
    MinimumTaken,
    /// New limits.
    HostSet,
    /// See above.
    TenantSet,
    /// See above.
    SubTenantSet,
    /// See above.
    FunctionSet,
    /// A revision replaced.
    Retired,
    /// A tick before the last one.
    ClockBack,
    /// A jump of the clock.
    ClockJump,
    /// A timer that fires late.
    TimerLate,
    /// A removal that takes long.
    ReapSlow,
    /// Refusals, by reason.
    RefusedQueue,
    /// See above.
    RefusedCalls,
    /// See above.
    RefusedWaiting,
    /// See above.
    RefusedRate,
    /// See above.
    RefusedDraining,
    /// See above.
    RefusedPast,
    /// See above.
    RefusedUnknown,
    /// See above.
    RefusedBackoff,
    /// Calls cut by a drain.
    DrainCut,
    /// A key backs off.
    BackedOff,
    /// Calls given to a second worker.
    Retried,
    /// Cells labelled.
    Labelled,
    /// Idle workers ended for others.
    MadeRoom,
    /// Frozen.
    Frozen,
    /// Frozen and used again.
    Thawed,
    /// Calls that got their answer.
    Answered,
    /// Calls whose time was over.
    Deadline,
    /// Number of kinds, for arrays.
    Kinds,
}

/// Counters.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Calls that arrived.
    pub calls: u64,
    /// Events handled.
    pub steps: u64,
    /// Steps after which the pool's own books were checked.
    pub checked: u64,
    faults: [u64; Fault::Kinds as usize],
    names: [Option<Fault>; Fault::Kinds as usize],
}

impl Default for Stats {
    fn default() -> Self {
        let none = [0; Fault::Kinds as usize];
        Self { calls: 0, steps: 0, checked: 0, faults: none, names: [None; Fault::Kinds as usize] }
    }
}

impl Stats {
    /// It happened.
    pub fn count(&mut self, fault: Fault) {
        self.faults[fault as usize] += 1;
        self.names[fault as usize] = Some(fault);
    }

    /// How often.
    pub fn of(&self, fault: Fault) -> u64 {
        self.faults[fault as usize]
    }

    /// Those of another history too.
    pub fn add(&mut self, other: &Self) {
        self.calls += other.calls;
        self.steps += other.steps;
        self.checked += other.checked;
        for at in 0..self.faults.len() {
            self.faults[at] += other.faults[at];
            self.names[at] = self.names[at].or(other.names[at]);
        }
    }

    /// How many kinds never happened.
    pub fn missing(&self) -> usize {
        self.faults.iter().filter(|count| **count == 0).count()
    }

    /// All that happened, a line for each.
    pub fn table(&self) -> String {
        let lines = self.names.iter().zip(&self.faults).enumerate().map(|(at, (name, count))| match name {
            Some(name) => format!("  {:<22}{count}\n", format!("{name:?}")),
            None => format!("  kind {at} NEVER\n"),
        });
        format!("calls {}, steps {}, of these with the books checked {}\n", self.calls, self.steps, self.checked)
            + &lines.collect::<String>()
    }
}
