//! Two reports beside each other, for people.

use std::fmt::{self, Write as _};

use serde::Serialize;

use crate::report::{Delay, Report, SubTenantDelay};

/// From here on a change is told as a multiple: nobody reads "+359394.0 %".
const TIMES_FROM: f64 = 10.0;

/// A run before and a run after a change.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Comparison {
    /// With the limits that are.
    pub before: Report,
    /// With the limits that would be.
    pub after: Report,
}

/// A value that knows its unit.
#[derive(Clone, Debug, PartialEq)]
enum Cell {
    Count(u64),
    /// From 0 to 1.
    Share(f64),
    Micros(u64),
    Bytes(f64),
    Average(f64),
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Count(count) => grouped(*count),
            Self::Share(share) => format!("{:.2} %", share * 100.0),
            Self::Micros(micros) => time(*micros),
            Self::Bytes(bytes) => size(*bytes),
            Self::Average(average) => format!("{average:.1}"),
        };
        f.pad(&text)
    }
}

/// "1 234 567", so that one does not count digits.
fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

fn time(micros: u64) -> String {
    match micros {
        0..1000 => format!("{micros} us"),
        1000..1_000_000 => format!("{:.2} ms", micros as f64 / 1e3),
        _ => format!("{:.2} s", micros as f64 / 1e6),
    }
}

fn size(bytes: f64) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let fitting = units.iter().map(|(unit, bits)| (unit, bytes / f64::from(1_u32 << bits))).find(|(_, n)| *n >= 1.0);
    fitting.map_or_else(|| format!("{bytes:.0} B"), |(unit, number)| format!("{number:.1} {unit}"))
}

impl Cell {
    /// How it differs from what it was; nothing if it does not, or if that says nothing.
    fn change_from(&self, before: &Self) -> String {
        let of = |now: f64, was: f64| {
            if now == was {
                String::new()
            } else if was == 0.0 {
                "new".to_owned()
            } else if now / was >= TIMES_FROM {
                format!("x {:.0}", now / was)
            } else {
                format!("{:+.1} %", (now / was - 1.0) * 100.0)
            }
        };
        match (self, before) {
            (Self::Count(now), Self::Count(was)) | (Self::Micros(now), Self::Micros(was)) => {
                of(*now as f64, *was as f64)
            }
            (Self::Bytes(now), Self::Bytes(was)) | (Self::Average(now), Self::Average(was)) => of(*now, *was),
            (Self::Share(now), Self::Share(was)) if now != was => format!("{:+.2} points", (now - was) * 100.0),
            _ => String::new(),
        }
    }

    fn is_nothing(&self) -> bool {
        match self {
            Self::Count(count) | Self::Micros(count) => *count == 0,
            Self::Share(number) | Self::Bytes(number) | Self::Average(number) => *number == 0.0,
        }
    }
}

/// One line of the table.
struct Line {
    label: String,
    cell: Cell,
    /// Shown even if there is nothing to show.
    always: bool,
}

#[derive(Default)]
struct Lines(Vec<Line>);

impl Lines {
    fn always(&mut self, label: &str, cell: Cell) {
        self.0.push(Line { label: label.to_owned(), cell, always: true });
    }

    fn unless_zero(&mut self, label: &str, count: u64) {
        self.0.push(Line { label: label.to_owned(), cell: Cell::Count(count), always: false });
    }

    fn delay(&mut self, prefix: &str, delay: &Delay) {
        let quantiles = [("p50", delay.p50_us), ("p99", delay.p99_us), ("p99.9", delay.p999_us), ("max", delay.max_us)];
        for (name, micros) in quantiles {
            let always = prefix == "delay";
            self.0.push(Line { label: format!("{prefix} {name}"), cell: Cell::Micros(micros), always });
        }
    }
}

fn lines(report: &Report) -> Vec<Line> {
    let mut out = Lines::default();
    out.always("calls", Cell::Count(report.calls));
    out.always("answered", Cell::Count(report.answered));
    out.unless_zero("  with an error", report.errors);
    out.unless_zero("crashed", report.crashed);
    out.unless_zero("starts failed", report.starts_failed);
    out.always("refused", Cell::Count(report.refused.all()));
    for (name, count) in report.refused.by_name() {
        out.unless_zero(&format!("  {name}"), count);
    }
    out.always("deadline passed", Cell::Count(report.deadlines.all()));
    let deadlines = report.deadlines;
    for (name, count) in [("queued", deadlines.queued), ("starting", deadlines.starting), ("leased", deadlines.leased)]
    {
        out.unless_zero(&format!("  {name}"), count);
    }
    let [cold, cell, warm] = report.starts.shares();
    for (name, share) in [("cold starts", cold), ("cell starts", cell), ("warm starts", warm)] {
        out.always(name, Cell::Share(share));
    }
    out.delay("delay", &report.delays.all);
    out.delay("  cold", &report.delays.cold);
    out.delay("  cell", &report.delays.cell);
    out.delay("  warm", &report.delays.warm);
    out.always("workers peak", Cell::Count(report.workers.peak));
    out.always("workers average", Cell::Average(report.workers.average));
    out.always("memory peak", Cell::Bytes(report.memory_bytes.peak as f64));
    out.always("memory average", Cell::Bytes(report.memory_bytes.average));
    out.always("workers ended", Cell::Count(report.kills.all()));
    for (name, count) in report.kills.by_name() {
        out.unless_zero(&format!("  {name}"), count);
    }
    let cells = report.cells;
    for (name, count) in [("cells made", cells.made), ("  used", cells.used), ("  wasted", cells.wasted)] {
        out.unless_zero(name, count);
    }
    for (name, tenant) in &report.tenants {
        let [cold, cell, warm] = tenant.starts.shares();
        out.always(&format!("tenant {name} calls"), Cell::Count(tenant.calls));
        out.always("  answered", Cell::Count(tenant.answered));
        out.unless_zero("  crashed", tenant.crashed);
        out.unless_zero("  starts failed", tenant.starts_failed);
        out.unless_zero("  refused", tenant.refused);
        out.unless_zero("  deadline passed", tenant.deadlines);
        for (name, share) in [("  cold starts", cold), ("  cell starts", cell), ("  warm starts", warm)] {
            out.always(name, Cell::Share(share));
        }
        out.delay("  delay", &tenant.delay);
    }
    out.0
}

/// Below the table: its lines would stretch every column.
fn print_worst(f: &mut fmt::Formatter<'_>, when: &str, worst: &[SubTenantDelay]) -> fmt::Result {
    if worst.is_empty() {
        return Ok(());
    }
    writeln!(f, "\nsub-tenants with the longest mean delay{when}")?;
    for SubTenantDelay { tenant, sub_tenant, calls, mean_us } in worst {
        let whose = if sub_tenant.is_empty() { "shared" } else { sub_tenant };
        writeln!(f, "  {:>10} in {} calls: {tenant} {whose}", time(*mean_us), grouped(*calls))?;
    }
    Ok(())
}

/// Lines of both reports side by side. Those of a tenant that one of them lacks are shown with what there is.
fn paired(before: Vec<Line>, after: Vec<Line>) -> Vec<(String, Option<Cell>, Option<Cell>)> {
    let mut after = after.into_iter().peekable();
    let mut pairs = Vec::new();
    for line in before {
        let other = after.next_if(|other| other.label == line.label);
        let is_shown = line.always || !line.cell.is_nothing() || other.as_ref().is_some_and(|o| !o.cell.is_nothing());
        if is_shown {
            pairs.push((line.label, Some(line.cell), other.map(|other| other.cell)));
        }
    }
    pairs.extend(after.map(|line| (line.label, None, Some(line.cell))));
    pairs
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = |cell: &Option<Cell>| cell.as_ref().map(Cell::to_string).unwrap_or_default();
        let mut rows = vec![[String::new(), "before".into(), "after".into(), "change".into()]];
        for (label, before, after) in paired(lines(&self.before), lines(&self.after)) {
            let change = after.as_ref().zip(before.as_ref()).map(|(after, before)| after.change_from(before));
            rows.push([label, text(&before), text(&after), change.unwrap_or_default()]);
        }
        print(f, &rows)?;
        print_worst(f, ", before", &self.before.worst)?;
        print_worst(f, ", after", &self.after.worst)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_shown = |line: &Line| line.always || !line.cell.is_nothing();
        let all = lines(self).into_iter().filter(is_shown);
        let rows: Vec<[String; 2]> = all.map(|line| [line.label, line.cell.to_string()]).collect();
        print(f, &rows)?;
        print_worst(f, "", &self.worst)
    }
}

/// Labels to the left, values to the right.
fn print<const N: usize>(f: &mut fmt::Formatter<'_>, rows: &[[String; N]]) -> fmt::Result {
    let width = |at: usize| rows.iter().map(|row| row[at].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let mut line = String::new();
        for (at, (text, width)) in row.iter().zip(widths).enumerate() {
            if at == 0 {
                write!(line, "{text:<width$}")?;
            } else {
                write!(line, "  {text:>width$}")?;
            }
        }
        writeln!(f, "{}", line.trim_end())?;
    }
    Ok(())
}
