//! Sums of what was used. Pure.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use crate::cgroups::reading::Reading;

/// What a worker was doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It was made, or its function was getting ready.
    Starting,
    /// It had no call.
    Idle,
    /// It had a call.
    Call,
    /// It was a cell, and nobody ever got it.
    Cell,
}

/// How a call ended, as far as its cost is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallEnd {
    /// With an answer.
    Answered,
    /// With a verdict, or without one.
    Failed,
    /// It was not accepted.
    Refused,
}

/// Sums of one level. Many tasks add to it at once.
#[derive(Debug, Default)]
pub struct Sums {
    cpu: [AtomicU64; 4],
    throttled: AtomicU64,
    io_read: AtomicU64,
    io_written: AtomicU64,
    calls: [AtomicU64; 3],
    running: AtomicU64,
    queued: AtomicU64,
}

/// Sums at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// CPU time of calls.
    pub cpu_calls: Duration,
    /// CPU time between calls.
    pub cpu_idle: Duration,
    /// CPU time until workers were ready.
    pub cpu_starting: Duration,
    /// CPU time of cells that nobody got.
    pub cpu_cells: Duration,
    /// Time in which quotas held something back.
    pub throttled: Duration,
    /// Bytes.
    pub io_read: u64,
    /// Bytes.
    pub io_written: u64,
    /// Calls with an answer.
    pub answered: u64,
    /// Calls without one.
    pub failed: u64,
    /// Calls that were not accepted.
    pub refused: u64,
    /// From delivery to the end, of all calls.
    pub running: Duration,
    /// From acceptance to delivery, of all calls.
    pub queued: Duration,
}

impl Used {
    /// All CPU time.
    pub fn cpu(&self) -> Duration {
        self.cpu_calls + self.cpu_idle + self.cpu_starting + self.cpu_cells
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

const fn phase(phase: Phase) -> usize {
    match phase {
        Phase::Call => 0,
        Phase::Idle => 1,
        Phase::Starting => 2,
        Phase::Cell => 3,
    }
}

const fn end(end: CallEnd) -> usize {
    match end {
        CallEnd::Answered => 0,
        CallEnd::Failed => 1,
        CallEnd::Refused => 2,
    }
}

impl Sums {
    /// Adds what was used in a phase.
    pub fn add(&self, what: Phase, used: &Reading) {
        self.cpu[phase(what)].fetch_add(nanos(used.cpu), Relaxed);
        self.throttled.fetch_add(nanos(used.throttled), Relaxed);
        self.io_read.fetch_add(used.io_read, Relaxed);
        self.io_written.fetch_add(used.io_written, Relaxed);
    }

    /// Adds a call that ended.
    pub fn call(&self, how: CallEnd, queued: Duration, running: Duration) {
        self.calls[end(how)].fetch_add(1, Relaxed);
        self.queued.fetch_add(nanos(queued), Relaxed);
        self.running.fetch_add(nanos(running), Relaxed);
    }

    /// Adds all of another level's.
    pub fn merge(&self, other: &Self) {
        let pairs = (self.cpu.iter().zip(&other.cpu)).chain(self.calls.iter().zip(&other.calls)).chain([
            (&self.throttled, &other.throttled),
            (&self.io_read, &other.io_read),
            (&self.io_written, &other.io_written),
            (&self.running, &other.running),
            (&self.queued, &other.queued),
        ]);
        for (to, from) in pairs {
            to.fetch_add(from.load(Relaxed), Relaxed);
        }
    }

    /// The sums now.
    pub fn used(&self) -> Used {
        let time = |of: &AtomicU64| Duration::from_nanos(of.load(Relaxed));
        let cpu = |what: Phase| time(&self.cpu[phase(what)]);
        let calls = |how: CallEnd| self.calls[end(how)].load(Relaxed);
        Used {
            cpu_calls: cpu(Phase::Call),
            cpu_idle: cpu(Phase::Idle),
            cpu_starting: cpu(Phase::Starting),
            cpu_cells: cpu(Phase::Cell),
            throttled: time(&self.throttled),
            io_read: self.io_read.load(Relaxed),
            io_written: self.io_written.load(Relaxed),
            answered: calls(CallEnd::Answered),
            failed: calls(CallEnd::Failed),
            refused: calls(CallEnd::Refused),
            running: time(&self.running),
            queued: time(&self.queued),
        }
    }
}
