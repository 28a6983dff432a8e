//! The simulation: events in the order of their time, the pool's actions turned into the events that answer them.
//!
//! ```text
//!  rows ---Invoke--->          ---Spawn, MakeCell, Label, Kill---> after the setup's times --.
//!                      Pool    ---Deliver--> after the row's service time -----------------. |
//!   .-----event----->          ---Settle--> tally                                          | |
//!   '------------------------------- future <----------------------------------------------+-'
//! ```
//! At one instant what had been asked for happens first, in the order it was asked for; then the pool's timers; then the
//! arrivals, in the order of the trace. So the same trace and setup give the same report, to the last bit. The run is over
//! when the last call has ended; workers that are idle then stay.
//!
//! Kept in memory: calls in flight, workers, events to come, and two numbers and a label for each sub-tenant ever seen.

mod books;
mod future;
mod tally;

#[cfg(test)]
mod tests;

use std::time::Duration;

use books::{Books, CallRecord, WorkerRecord};
use future::{Future, Happening};
use sublet_pool::{Action, CallId, End, Event, Pool, Tick};
use tally::Tally;

use crate::{
    report::Report,
    setup::Setup,
    trace::{Outcome, Row, TraceError},
};

/// Sub-tenants one run remembers: 100 bytes each, and more in the pool.
pub const SUB_TENANTS_MAX: usize = 4_000_000;
/// Times the pool may be woken at one instant before it is taken to be stuck: each wake does all that is due.
const WAKES_AT_ONCE_MAX: u32 = 1000;

/// Why a run has no report. Nothing of it is used then.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The trace is broken.
    #[error("the trace is refused")]
    Trace(#[from] TraceError),
    /// A tenant that the setup does not have. Rows count from 1; in a file, the header's line comes on top.
    #[error("row {row}: there is no tenant {tenant:?} in the configuration; add it, or leave its rows out")]
    UnknownTenant {
        /// Which row.
        row: u64,
        /// Its tenant.
        tenant: String,
    },
    /// A function that its tenant does not have.
    #[error(
        "row {row}: tenant {tenant:?} has no function {function:?} in the configuration; add it, or leave its rows out"
    )]
    UnknownFunction {
        /// Which row.
        row: u64,
        /// Its tenant.
        tenant: String,
        /// Its function.
        function: String,
    },
    /// Rows that no reader gives: these came from elsewhere.
    #[error("row {row}: at_us = {at_us} is before the row above it, or beyond ten years; sort the rows by at_us")]
    Unordered {
        /// Which row.
        row: u64,
        /// Its arrival.
        at_us: u64,
    },
    /// Over [`SUB_TENANTS_MAX`].
    #[error("row {row}: the trace has more than {limit} sub-tenants; cut it into shorter ones")]
    TooManySubTenants {
        /// Which row.
        row: u64,
        /// The limit.
        limit: usize,
    },
    /// Our fault.
    #[error("the pool broke a promise at {at_us} us: {what}; report this as a bug of sublet, with the trace")]
    Pool {
        /// When.
        at_us: u64,
        /// Which.
        what: String,
    },
}

/// What limits runs, and how closely the pool is watched: other values for tests only.
#[derive(Clone, Copy, Debug)]
struct Care {
    sub_tenants_max: usize,
    /// Every rule of the pool's books after every event. Slow.
    checks_invariants: bool,
}

/// Runs the pool with the limits of `setup` on the calls of a trace.
///
/// # Errors
/// The first broken or unknown row; or a bug of the pool.
pub fn run(setup: &Setup, rows: impl IntoIterator<Item = Result<Row, TraceError>>) -> Result<Report, RunError> {
    run_with(Care { sub_tenants_max: SUB_TENANTS_MAX, checks_invariants: false }, setup, rows)
}

fn run_with(
    care: Care,
    setup: &Setup,
    rows: impl IntoIterator<Item = Result<Row, TraceError>>,
) -> Result<Report, RunError> {
    let mut sim = Sim::new(care, setup);
    for row in rows {
        let row = row?;
        sim.rows += 1;
        let at = sim.time_of(&row)?;
        sim.advance(Some(at))?;
        sim.arrive(&row, at)?;
    }
    sim.advance(None)?;
    Ok(sim.tally.report(&sim.books, sim.now))
}

struct Sim {
    care: Care,
    pool: Pool,
    books: Books,
    future: Future,
    tally: Tally,
    actions: Vec<Action>,
    now: Tick,
    rows: u64,
    calls: u64,
    /// How often the pool was woken at this instant.
    wakes: u32,
}

impl Sim {
    fn new(care: Care, setup: &Setup) -> Self {
        let mut pool = Pool::new(setup.host);
        let books = Books::new(setup, &mut pool);
        let tally = Tally::new(books.tenants());
        Self {
            care,
            pool,
            books,
            tally,
            future: Future::default(),
            actions: Vec::new(),
            now: Tick(0),
            rows: 0,
            calls: 0,
            wakes: 0,
        }
    }

    fn time_of(&mut self, row: &Row) -> Result<Tick, RunError> {
        let is_possible = row.at_us <= crate::trace::TIME_MAX_US && row.service_us <= crate::trace::TIME_MAX_US;
        let at = Tick(row.at_us.saturating_mul(1000));
        if !is_possible || (self.rows > 1 && at < self.tally.last_arrival()) {
            return Err(RunError::Unordered { row: self.rows, at_us: row.at_us });
        }
        Ok(at)
    }

    /// Lets everything happen that happens up to an arrival, or until no call is left.
    fn advance(&mut self, until: Option<Tick>) -> Result<(), RunError> {
        loop {
            let wakeup = self.pool.next_wakeup().map(|at| at.max(self.now));
            let event = self.future.next();
            let next = match (event, wakeup) {
                (Some(event), Some(wakeup)) => event.min(wakeup),
                (Some(at), None) | (None, Some(at)) => at,
                (None, None) if until.is_none() && self.books.calls_in_flight() > 0 => {
                    return Err(self.broken("calls are left and nothing is to come"));
                }
                (None, None) => return Ok(()),
            };
            let is_over = match until {
                Some(until) => next > until,
                None => self.books.calls_in_flight() == 0,
            };
            if is_over {
                return Ok(());
            }
            self.wakes = if next > self.now { 0 } else { self.wakes };
            match self.future.pop(next) {
                Some(happening) => self.happen(next, happening)?,
                None => {
                    self.wakes += 1;
                    if self.wakes > WAKES_AT_ONCE_MAX {
                        return Err(self.broken("it wants to be woken again and again at one instant"));
                    }
                    self.handle(next, Event::Timer)?;
                }
            }
        }
    }

    fn happen(&mut self, at: Tick, happening: Happening) -> Result<(), RunError> {
        let event = match happening {
            Happening::Made(worker) => Event::Made { worker },
            Happening::Started(worker) => Event::Started { worker },
            Happening::Answered(worker, lease) => Event::Answered { worker, lease, clean: true },
            Happening::Died(worker) => Event::Died { worker },
            Happening::Reaped(worker) => {
                self.tally.removed(at, self.books.remove_worker(worker));
                Event::Reaped { worker }
            }
        };
        self.handle(at, event)
    }

    fn arrive(&mut self, row: &Row, at: Tick) -> Result<(), RunError> {
        let f = self.books.find_function(row, self.rows)?;
        let s = self.books.find_sub_tenant(f, row, self.rows, self.care.sub_tenants_max)?;
        self.calls += 1;
        let call = CallId(self.calls);
        self.books.open(call, CallRecord::new(row, f, s, at));
        self.tally.arrived(self.books.tenant_of(f), at);
        let (key, deadline) = (self.books.key(f, s), at + self.books.function(f).timeout);
        self.handle(at, Event::Invoke { call, key, deadline })
    }

    fn handle(&mut self, at: Tick, event: Event) -> Result<(), RunError> {
        self.now = at;
        let mut actions = std::mem::take(&mut self.actions);
        self.pool.handle(at, event, &mut actions);
        for action in actions.drain(..) {
            self.perform(action)?;
        }
        self.actions = actions;
        if self.care.checks_invariants {
            self.pool.check_invariants().map_err(|rule| self.broken(&rule.to_string()))?;
        }
        Ok(())
    }

    fn perform(&mut self, action: Action) -> Result<(), RunError> {
        let now = self.now;
        match action {
            Action::MakeCell { worker, function } => {
                let settings = self.books.function(function);
                self.future.push(now + settings.times.cell_make, Happening::Made(worker));
                self.tally.cells.made += 1;
                let bytes = settings.policy.cell_bytes;
                self.tally.added(now, bytes);
                self.books.add_worker(worker, WorkerRecord { function, bytes, is_cell: true });
            }
            Action::Spawn { worker, key } => {
                let settings = self.books.function(key.function);
                self.future.push(now + settings.times.cell_make, Happening::Made(worker));
                self.future.push(now + settings.times.cold_start, Happening::Started(worker));
                let bytes = settings.memory_bytes;
                self.tally.added(now, bytes);
                let function = key.function;
                self.books.add_worker(worker, WorkerRecord { function, bytes, is_cell: false });
            }
            Action::Label { worker, key } => {
                let settings = self.books.function(key.function);
                self.future.push(now + settings.times.cell_label, Happening::Started(worker));
                self.tally.cells.used += 1;
                let bytes = settings.memory_bytes;
                self.tally.resized(now, self.books.label_worker(worker, bytes), bytes);
            }
            Action::Deliver { call, worker, lease, start, deadline, thaw: _ } => {
                let Some(record) = self.books.call_mut(call) else {
                    return Err(self.broken("it delivered a call that has ended"));
                };
                let is_first = !std::mem::replace(&mut record.is_delivered, true);
                let (f, s, arrival) = (record.function, record.sub_tenant, record.arrival);
                let (service, outcome) = (record.service, record.outcome);
                let overhead = match start {
                    sublet_pool::Start::Warm => self.books.function(f).times.warm_overhead,
                    sublet_pool::Start::Cold | sublet_pool::Start::Cell => Duration::ZERO,
                };
                let begun = now + overhead;
                if is_first {
                    let waited = begun.since(arrival);
                    self.tally.delivered(self.books.tenant_of(f), start, waited);
                    self.books.waited(s, waited);
                }
                let end = begun + service;
                // One that ends after its deadline is ended by the pool; nobody would hear of it.
                if end <= deadline {
                    let happening = match outcome {
                        Outcome::Ok | Outcome::Error => Happening::Answered(worker, lease),
                        Outcome::Crash => Happening::Died(worker),
                    };
                    self.future.push(end, happening);
                }
            }
            Action::Settle { call, end } => self.settle(call, end)?,
            Action::Freeze { worker: _ } => {}
            Action::Kill { worker, why } => {
                let Some(seen) = self.books.worker(worker) else {
                    return Err(self.broken("it ended a worker that is gone"));
                };
                self.tally.kills.count(why);
                self.tally.cells.wasted += u64::from(seen.is_cell);
                let removal = self.books.function(seen.function).times.removal;
                self.future.push(now + removal, Happening::Reaped(worker));
            }
            Action::Retired { .. } | Action::Drained => {
                return Err(self.broken("it drained, which nobody had asked for"));
            }
        }
        Ok(())
    }

    fn settle(&mut self, call: CallId, end: End) -> Result<(), RunError> {
        let Some(record) = self.books.close(call) else {
            return Err(self.broken("it ended a call a second time"));
        };
        match end {
            End::Refused(_) => {}
            End::Answered { .. }
            | End::Deadline { .. }
            | End::Cancelled { .. }
            | End::WorkerDied { .. }
            | End::StartFailed { .. }
            | End::Evicted { .. } => {
                if !record.is_delivered {
                    self.books.waited(record.sub_tenant, self.now.since(record.arrival));
                }
            }
        }
        let is_known = self.tally.settled(self.books.tenant_of(record.function), &record, &end);
        if is_known { Ok(()) } else { Err(self.broken("it ended a call in a way that nobody had asked for")) }
    }

    fn broken(&self, what: &str) -> RunError {
        RunError::Pool { at_us: self.now.0 / 1000, what: what.to_owned() }
    }
}
