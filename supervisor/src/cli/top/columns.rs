//! The columns of tenants, sub-tenants and workers, for the terminal and for `--once`, and which of them there is room
//! for in a width.

use super::{
    model::{Rates, SubTenantRow, TenantRow, WorkerRow, calls, cpu, faults},
    sort::SortKey,
};
use crate::{
    cli::output::{self, size, time},
    printable,
};

/// Between two columns.
pub const GAP: u16 = 1;

/// One column of rows of a kind.
#[derive(Debug)]
pub struct Column<R> {
    /// Above it.
    pub title: &'static str,
    /// What sorts by it.
    pub key: Option<SortKey>,
    /// Numbers are aligned right and have a fixed width; names have a width of their own where there is room.
    pub is_number: bool,
    width: u16,
    /// Left out later than those with a larger one; 0: never.
    rank: u8,
    text: fn(&R) -> String,
}

impl<R> Column<R> {
    /// What a row has in it, fit to be shown.
    pub fn cell(&self, row: &R) -> String {
        printable::line(&(self.text)(row)).into_owned()
    }
}

const fn name<R>(title: &'static str, width: u16, rank: u8, text: fn(&R) -> String) -> Column<R> {
    Column { title, key: None, is_number: false, width, rank, text }
}

const fn number<R>(title: &'static str, width: u16, rank: u8, text: fn(&R) -> String) -> Column<R> {
    Column { title, key: None, is_number: true, width, rank, text }
}

const fn by<R>(key: SortKey, column: Column<R>) -> Column<R> {
    Column { key: Some(key), ..column }
}

/// Of tenants.
pub const TENANTS: [Column<TenantRow>; 9] = [
    name("TENANT", 8, 0, |row| row.tenant.clone()),
    by(SortKey::Cpu, number("CPU", 6, 0, |row| cores(row.figures.cpu_cores()))),
    by(SortKey::Memory, number("MEMORY", 9, 1, |row| memory(row.figures.memory_bytes))),
    number("PROCS", 5, 7, |row| row.figures.processes.to_string()),
    by(SortKey::Calls, number("CALLS/S", 7, 2, |row| per_second(row.figures.rates, |rates| rates.calls))),
    number("RUNNING", 7, 6, |row| row.figures.running.to_string()),
    by(SortKey::Queue, number("QUEUED", 6, 3, |row| row.figures.queued.to_string())),
    by(SortKey::Faults, number("FAULTS/S", 8, 4, |row| per_second(row.figures.rates, |rates| rates.faults))),
    by(SortKey::Throttled, number("THROTTLED", 9, 5, |row| share(row.figures.rates))),
];

/// Of sub-tenants.
pub const SUB_TENANTS: [Column<SubTenantRow>; 14] = [
    name("TENANT", 8, 1, |row| row.key.tenant.clone()),
    name("SUB-TENANT", 14, 0, |row| or_dash(&row.key.hash)),
    name("CLASS", 5, 10, |row| or_dash(&row.class)),
    number("WORKERS", 7, 8, |row| row.workers.to_string()),
    number("FROZEN", 6, 13, |row| row.frozen.to_string()),
    by(SortKey::Cpu, number("CPU", 6, 0, |row| cores(row.figures.cpu_cores()))),
    by(SortKey::Memory, number("MEMORY", 9, 2, |row| memory(row.figures.memory_bytes))),
    number("PROCS", 5, 12, |row| row.figures.processes.to_string()),
    by(SortKey::Calls, number("CALLS/S", 7, 3, |row| per_second(row.figures.rates, |rates| rates.calls))),
    number("RUNNING", 7, 9, |row| row.figures.running.to_string()),
    by(SortKey::Queue, number("QUEUED", 6, 4, |row| row.figures.queued.to_string())),
    by(SortKey::Faults, number("FAULTS/S", 8, 5, |row| per_second(row.figures.rates, |rates| rates.faults))),
    number("FAULTS", 7, 7, |row| total(faults(&row.figures.usage))),
    by(SortKey::Throttled, number("THROTTLED", 9, 6, |row| share(row.figures.rates))),
];

/// Of workers.
pub const WORKERS: [Column<WorkerRow>; 12] = [
    name("WORKER", 6, 0, |row| row.seen.worker.clone()),
    name("FUNCTION", 8, 1, |row| row.seen.function.clone()),
    name("STATE", 8, 3, |row| state(row).to_owned()),
    by(SortKey::Cpu, number("CPU", 6, 0, |row| cores(row.figures.cpu_cores()))),
    number("CPU TIME", 9, 9, |row| time(cpu(&row.figures.usage))),
    by(SortKey::Memory, number("MEMORY", 9, 2, |row| memory(row.figures.memory_bytes))),
    number("PEAK", 9, 7, |row| memory(row.seen.memory_peak_bytes)),
    number("PROCS", 5, 8, |row| row.figures.processes.to_string()),
    by(SortKey::Calls, number("CALLS/S", 7, 4, |row| per_second(row.figures.rates, |rates| rates.calls))),
    number("CALLS", 7, 10, |row| total(calls(&row.figures.usage))),
    by(SortKey::Faults, number("FAULTS", 7, 6, |row| total(faults(&row.figures.usage)))),
    by(SortKey::Throttled, number("THROTTLED", 9, 5, |row| share(row.figures.rates))),
];

fn or_dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { text.to_owned() }
}

/// As in `sublet ps`.
pub fn state(row: &WorkerRow) -> &'static str {
    output::state(row.seen.state(), row.seen.frozen)
}

// A number that is wider than its column would be cut on its left, and be another number.

/// A size, in a column of 9.
pub fn memory(bytes: u64) -> String {
    const GIB: u64 = 1024 * 1024 * 1024;
    if bytes < GIB { size(bytes) } else { format!("{:.1}GiB", bytes as f64 / GIB as f64) }
}

/// A counter, in a column of 7.
fn total(number: u64) -> String {
    if number < 10_000_000 { number.to_string() } else { format!("{}M", number / 1_000_000) }
}

/// Processors that are busy for it.
pub fn cores(cores: Option<f64>) -> String {
    cores.map_or_else(|| "-".to_owned(), |cores| format!("{cores:.2}"))
}

/// A rate of calls.
pub fn per_second(rates: Option<Rates>, of: fn(&Rates) -> f64) -> String {
    match rates.as_ref().map(of) {
        None => "-".to_owned(),
        // A tenth of a call says something about the one who makes few.
        Some(rate) if rate < 1000.0 => format!("{rate:.1}"),
        Some(rate) => format!("{rate:.0}"),
    }
}

/// Part of the time in which a quota held it back.
pub fn share(rates: Option<Rates>) -> String {
    rates.map_or_else(|| "-".to_owned(), |rates| format!("{:.0}%", rates.throttled * 100.0))
}

/// The columns that fit into this width, each with its own. The least wanted are left out first, and the one that rows
/// are sorted by is not. What is left over goes to names that need it.
pub fn fit<'a, R>(columns: &'a [Column<R>], rows: &[&R], width: u16, sorted_by: SortKey) -> Vec<(&'a Column<R>, u16)> {
    let mut fitting: Vec<(&Column<R>, u16)> = columns.iter().map(|column| (column, column.width)).collect();
    let needed = |columns: &[(&Column<R>, u16)]| columns.iter().map(|(_, width)| width + GAP).sum::<u16>() - GAP;
    while needed(&fitting) > width {
        let spare = fitting.iter().filter(|(column, _)| column.rank > 0 && column.key != Some(sorted_by));
        let Some(least) = spare.map(|(column, _)| column.rank).max() else { break };
        fitting.retain(|(column, _)| column.rank != least || column.key == Some(sorted_by));
    }
    let mut left = width.saturating_sub(needed(&fitting));
    for (column, own) in fitting.iter_mut().filter(|(column, _)| !column.is_number) {
        let longest = rows.iter().map(|row| column.cell(row).chars().count()).max().unwrap_or(0);
        let more = u16::try_from(longest).unwrap_or(u16::MAX).saturating_sub(*own).min(left);
        *own += more;
        left -= more;
    }
    fitting
}

#[cfg(test)]
mod tests;
