//! In which order rows are shown, and which of them. Pure.

use std::cmp::Ordering;

use super::model::{Figures, Rates, SubTenantRow, TenantRow, WorkerRow, calls, cpu, faults};
use crate::cli::output::wire;

/// What rows are sorted by, the largest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum SortKey {
    /// CPU time per second.
    #[default]
    Cpu,
    /// Memory now.
    Memory,
    /// Calls per second.
    Calls,
    /// Calls that wait now.
    Queue,
    /// Calls failed or refused per second, then since the start.
    Faults,
    /// Time held back by a CPU quota.
    Throttled,
}

impl SortKey {
    /// All, in the order in which keys go through them.
    pub const ALL: [Self; 6] = [Self::Cpu, Self::Memory, Self::Calls, Self::Queue, Self::Faults, Self::Throttled];
    /// Those that differ between workers: calls wait for a worker, not at one.
    pub const OF_WORKERS: [Self; 5] = [Self::Cpu, Self::Memory, Self::Calls, Self::Faults, Self::Throttled];

    /// As on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Calls => "calls",
            Self::Queue => "queue",
            Self::Faults => "faults",
            Self::Throttled => "throttled",
        }
    }
}

impl Figures {
    /// What decides by this key, and what decides among equals. An unknown rate comes after a rate of zero.
    fn rank(&self, key: SortKey) -> (f64, f64) {
        let rate = |of: fn(&Rates) -> f64| self.rates.as_ref().map_or(-1.0, of);
        match key {
            SortKey::Cpu => (rate(|r| r.cpu_cores), cpu(&self.usage).as_secs_f64()),
            SortKey::Memory => (self.memory_bytes as f64, self.processes as f64),
            SortKey::Calls => (rate(|r| r.calls), calls(&self.usage) as f64),
            SortKey::Queue => (self.queued as f64, self.running as f64),
            SortKey::Faults => (rate(|r| r.faults), faults(&self.usage) as f64),
            SortKey::Throttled => (rate(|r| r.throttled), wire(self.usage.throttled).unwrap_or_default().as_secs_f64()),
        }
    }
}

/// What has numbers and a name.
pub trait Ranked {
    /// Its numbers.
    fn figures(&self) -> &Figures;
    /// Its name, which decides among equals, so that rows without work do not jump about.
    fn name(&self) -> (&str, &str);
}

impl Ranked for TenantRow {
    fn figures(&self) -> &Figures {
        &self.figures
    }

    fn name(&self) -> (&str, &str) {
        (&self.tenant, "")
    }
}

impl Ranked for SubTenantRow {
    fn figures(&self) -> &Figures {
        &self.figures
    }

    fn name(&self) -> (&str, &str) {
        (&self.key.tenant, &self.key.hash)
    }
}

impl Ranked for WorkerRow {
    fn figures(&self) -> &Figures {
        &self.figures
    }

    fn name(&self) -> (&str, &str) {
        (&self.seen.worker, "")
    }
}

/// A key, and which end of it is shown first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub key: SortKey,
    /// The smallest first.
    pub is_reversed: bool,
}

impl Sort {
    /// Which row comes first.
    pub fn compare<R: Ranked>(self, a: &R, b: &R) -> Ordering {
        let (rank, other) = (a.figures().rank(self.key), b.figures().rank(self.key));
        let larger_first = other.0.total_cmp(&rank.0).then(other.1.total_cmp(&rank.1));
        let wanted = if self.is_reversed { larger_first.reverse() } else { larger_first };
        wanted.then_with(|| a.name().cmp(&b.name()))
    }

    /// The places of the rows that are wanted, in order.
    pub fn order<R: Ranked>(self, rows: &[R], is_wanted: impl Fn(&R) -> bool) -> Vec<usize> {
        let mut order: Vec<usize> = (0..rows.len()).filter(|at| is_wanted(&rows[*at])).collect();
        order.sort_by(|a, b| self.compare(&rows[*a], &rows[*b]));
        order
    }
}

/// Whether a row's tenant, hash or class has this text in it, in capitals or not.
pub fn is_match(row: &SubTenantRow, filter: &str) -> bool {
    let wanted = filter.to_lowercase();
    wanted.is_empty()
        || [&row.key.tenant, &row.key.hash, &row.class].iter().any(|text| text.to_lowercase().contains(&wanted))
}

#[cfg(test)]
mod tests;
