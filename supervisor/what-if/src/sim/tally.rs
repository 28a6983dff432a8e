//! Counts what happens, in constant memory.

use std::time::Duration;

use hdrhistogram::Histogram;
use sublet_pool::{End, Start, Tick};

use super::books::{Books, CallRecord};
use crate::{
    report::{Cells, Deadlines, Delay, Delays, Kills, Level, Refused, Report, Starts, TenantReport},
    trace::Outcome,
};

/// Decimal digits that a delay keeps: 0.1 %.
const DIGITS: u8 = 3;

#[derive(Clone, Debug)]
struct DelayTally {
    histogram: Histogram<u64>,
    max_us: u64,
}

impl DelayTally {
    fn new() -> Self {
        let histogram = Histogram::new(DIGITS).expect("0 to 5 digits are possible");
        Self { histogram, max_us: 0 }
    }

    fn count(&mut self, waited_us: u64) {
        self.max_us = self.max_us.max(waited_us);
        self.histogram.record(waited_us).expect("it grows with its values");
    }

    fn report(&self) -> Delay {
        // The histogram gives the upper end of a step, which may be above everything that was counted.
        let quantile = |q| self.histogram.value_at_quantile(q).min(self.max_us);
        Delay {
            count: self.histogram.len(),
            p50_us: quantile(0.5),
            p99_us: quantile(0.99),
            p999_us: quantile(0.999),
            max_us: self.max_us,
        }
    }
}

/// A level and its time integral.
#[derive(Clone, Copy, Debug, Default)]
struct Gauge {
    value: u64,
    peak: u64,
    since: Tick,
    area: u128,
}

impl Gauge {
    fn set(&mut self, now: Tick, value: u64) {
        self.area += u128::from(self.value) * now.since(self.since).as_nanos();
        *self = Self { value, peak: self.peak.max(value), since: now, area: self.area };
    }

    fn report(mut self, span: Duration, now: Tick) -> Level {
        self.set(now, self.value);
        Level { peak: self.peak, average: self.area as f64 / span.as_nanos().max(1) as f64 }
    }
}

#[derive(Clone, Debug)]
struct TenantTally {
    calls: u64,
    answered: u64,
    crashed: u64,
    starts_failed: u64,
    refused: u64,
    deadlines: u64,
    starts: Starts,
    delay: DelayTally,
}

/// All that is counted.
#[derive(Debug)]
pub struct Tally {
    first_arrival: Option<Tick>,
    last_arrival: Tick,
    errors: u64,
    deadlines: Deadlines,
    refused: Refused,
    /// Cold, cell, warm.
    delays: [DelayTally; 3],
    pub kills: Kills,
    pub cells: Cells,
    workers: Gauge,
    memory: Gauge,
    tenants: Vec<TenantTally>,
}

impl Tally {
    pub fn new(tenants: usize) -> Self {
        let tenant = TenantTally {
            calls: 0,
            answered: 0,
            crashed: 0,
            starts_failed: 0,
            refused: 0,
            deadlines: 0,
            starts: Starts::default(),
            delay: DelayTally::new(),
        };
        Self {
            first_arrival: None,
            last_arrival: Tick(0),
            errors: 0,
            deadlines: Deadlines::default(),
            refused: Refused::default(),
            delays: std::array::from_fn(|_| DelayTally::new()),
            kills: Kills::default(),
            cells: Cells::default(),
            workers: Gauge::default(),
            memory: Gauge::default(),
            tenants: vec![tenant; tenants],
        }
    }

    pub const fn last_arrival(&self) -> Tick {
        self.last_arrival
    }

    pub fn arrived(&mut self, t: u32, at: Tick) {
        self.first_arrival.get_or_insert(at);
        self.last_arrival = at;
        self.tenants[t as usize].calls += 1;
    }

    pub fn delivered(&mut self, t: u32, start: Start, waited: Duration) {
        let waited_us = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
        let tenant = &mut self.tenants[t as usize];
        let (count, kind) = match start {
            Start::Cold => (&mut tenant.starts.cold, 0),
            Start::Cell => (&mut tenant.starts.cell, 1),
            Start::Warm => (&mut tenant.starts.warm, 2),
        };
        *count += 1;
        self.delays[kind].count(waited_us);
        tenant.delay.count(waited_us);
    }

    /// Counts the end of a call; false if it is none that a run can have.
    pub fn settled(&mut self, t: u32, call: &CallRecord, end: &End) -> bool {
        let tenant = &mut self.tenants[t as usize];
        match end {
            End::Answered { .. } => {
                tenant.answered += 1;
                self.errors += u64::from(call.outcome == Outcome::Error);
            }
            End::Deadline { at, .. } => {
                tenant.deadlines += 1;
                self.deadlines.count(*at);
            }
            End::WorkerDied { .. } => tenant.crashed += 1,
            End::StartFailed { .. } => tenant.starts_failed += 1,
            End::Refused(refusal) => {
                tenant.refused += 1;
                self.refused.count(refusal);
            }
            End::Cancelled { .. } | End::Evicted { .. } => return false,
        }
        true
    }

    /// A worker or cell more.
    pub fn added(&mut self, now: Tick, bytes: u64) {
        self.workers.set(now, self.workers.value + 1);
        self.memory.set(now, self.memory.value.saturating_add(bytes));
    }

    /// One less.
    pub fn removed(&mut self, now: Tick, bytes: u64) {
        self.workers.set(now, self.workers.value.saturating_sub(1));
        self.memory.set(now, self.memory.value.saturating_sub(bytes));
    }

    /// One takes another amount of memory.
    pub fn resized(&mut self, now: Tick, old: u64, new: u64) {
        self.memory.set(now, self.memory.value.saturating_sub(old).saturating_add(new));
    }

    pub fn report(self, books: &Books, end: Tick) -> Report {
        let span = end.since(self.first_arrival.unwrap_or(end));
        let mut report = Report {
            span_us: u64::try_from(span.as_micros()).unwrap_or(u64::MAX),
            errors: self.errors,
            deadlines: self.deadlines,
            refused: self.refused,
            kills: self.kills,
            cells: self.cells,
            workers: self.workers.report(span, end),
            memory_bytes: self.memory.report(span, end),
            worst: books.worst(),
            ..Report::default()
        };
        for (t, tenant) in (0..).zip(&self.tenants) {
            report.calls += tenant.calls;
            report.answered += tenant.answered;
            report.crashed += tenant.crashed;
            report.starts_failed += tenant.starts_failed;
            report.starts.cold += tenant.starts.cold;
            report.starts.cell += tenant.starts.cell;
            report.starts.warm += tenant.starts.warm;
            let line = TenantReport {
                calls: tenant.calls,
                answered: tenant.answered,
                crashed: tenant.crashed,
                starts_failed: tenant.starts_failed,
                refused: tenant.refused,
                deadlines: tenant.deadlines,
                starts: tenant.starts,
                delay: tenant.delay.report(),
            };
            report.tenants.insert(books.tenant_name(t), line);
        }
        let mut all = DelayTally::new();
        for kind in &self.delays {
            all.histogram.add(&kind.histogram).expect("it grows with what is added");
            all.max_us = all.max_us.max(kind.max_us);
        }
        let [cold, cell, warm] = &self.delays;
        report.delays = Delays { all: all.report(), cold: cold.report(), cell: cell.report(), warm: warm.report() };
        report
    }
}
