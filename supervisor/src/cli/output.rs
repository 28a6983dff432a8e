//! Printing: tables and times for people, values for programs.

use std::{
    fmt::Display,
    io::{self, Write},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};
use sublet_proto::v1::{Receipt, Remark, Start, Verdict, VerdictKind, WorkerState};

use crate::printable;

/// Digits of a lease that tell calls apart, for people.
pub const LEASE_SHOWN_CHARS: usize = 12;

/// What people call a worker's state.
pub const fn state(state: WorkerState, frozen: bool) -> &'static str {
    match (state, frozen) {
        (WorkerState::Idle, true) => "frozen",
        (WorkerState::Idle, false) => "idle",
        (WorkerState::Starting, _) => "starting",
        (WorkerState::Cell, _) => "cell",
        (WorkerState::Leased, _) => "busy",
        (WorkerState::Draining, _) => "draining",
        (WorkerState::Reaping, _) => "ending",
        (WorkerState::Unspecified, _) => "?",
    }
}

/// Prints text of ours, of one or more lines, to standard output. What others wrote must have passed
/// [`printable::line`] or [`printable::block`] before it was put into it.
///
/// # Errors
/// Standard output does not take it.
pub fn say(text: impl Display) -> io::Result<()> {
    writeln!(io::stdout(), "{}", printable::own(&text.to_string()))
}

/// Prints a value on one line of standard output.
///
/// # Errors
/// Standard output does not take it.
pub fn say_json(value: &Value) -> io::Result<()> {
    writeln!(io::stdout(), "{}", printable::json(value))
}

/// Prints text of ours to standard error, as [`say`] does; a terminal that has gone is no reason to do anything else.
pub fn tell(text: impl Display) {
    writeln!(io::stderr(), "{}", printable::own(&text.to_string())).ok();
}

/// Columns aligned, two spaces apart. A row is one line, whatever is in its cells.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let shown = |row: &Vec<String>| row.iter().map(|cell| printable::line(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(header.to_vec())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines.join("\n")
}

/// "1 worker", "2 workers".
pub fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// A wire duration.
pub fn wire(duration: Option<prost_types::Duration>) -> Option<Duration> {
    Duration::try_from(duration?).ok()
}

/// Three significant places at the unit people would choose.
pub fn time(duration: Duration) -> String {
    let micros = duration.as_micros();
    match micros {
        0..1_000 => format!("{micros}us"),
        1_000..1_000_000 => format!("{:.1}ms", duration.as_secs_f64() * 1e3),
        1_000_000..60_000_000 => format!("{:.1}s", duration.as_secs_f64()),
        _ => format!("{}m{}s", duration.as_secs() / 60, duration.as_secs() % 60),
    }
}

/// A size in the binary unit people would choose.
pub fn size(bytes: u64) -> String {
    match bytes {
        0..1_024 => format!("{bytes}B"),
        1_024..1_048_576 => format!("{:.1}KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1}MiB", bytes as f64 / 1_048_576.0),
    }
}

/// Milliseconds, for programs.
pub fn millis(duration: Option<prost_types::Duration>) -> Value {
    wire(duration).map_or(Value::Null, |duration| json!(duration.as_micros() as f64 / 1e3))
}

/// "cold", "cell" or "warm".
pub fn start(receipt: &Receipt) -> &'static str {
    match receipt.start() {
        Start::Cold => "cold",
        Start::Cell => "cell",
        Start::Warm => "warm",
        Start::Unspecified => "-",
    }
}

/// A receipt for programs.
pub fn receipt(receipt: &Receipt) -> Value {
    json!({
        "worker": receipt.worker, "lease": receipt.lease, "start": start(receipt),
        "queued_ms": millis(receipt.queued), "starting_ms": millis(receipt.starting),
        "running_ms": millis(receipt.running), "cpu_ms": millis(receipt.cpu),
        "memory_peak_bytes": receipt.memory_peak_bytes, "calls": receipt.calls,
        "throttled_ms": millis(receipt.throttled), "frozen_ms": millis(receipt.frozen),
        "io_read_bytes": receipt.io_read_bytes, "io_written_bytes": receipt.io_written_bytes, "exit": receipt.exit,
        "remarks": receipt.remarks.iter().map(remark).collect::<Vec<_>>(),
    })
}

/// A limit that was hit beside, for programs.
fn remark(remark: &Remark) -> Value {
    json!({
        "kind": kind_name(remark.kind()), "message": remark.message, "limit": remark.limit, "seen": remark.seen,
        "setting": remark.setting, "level": remark.level,
    })
}

/// A receipt on one line.
pub fn receipt_line(receipt: &Receipt) -> String {
    if receipt.worker.is_empty() {
        return "no worker".to_owned();
    }
    let took = |duration| wire(duration).map_or_else(|| "-".to_owned(), time);
    let throttled = wire(receipt.throttled).filter(|throttled| !throttled.is_zero());
    let throttled = throttled.map(|throttled| format!(" throttled {}", time(throttled))).unwrap_or_default();
    format!(
        "{} {} queued {} running {} cpu {}{throttled} memory peak {} call {} lease {}",
        receipt.worker,
        start(receipt),
        took(receipt.queued),
        took(receipt.running),
        took(receipt.cpu),
        size(receipt.memory_peak_bytes),
        receipt.calls,
        // As `sublet logs` prints it, and takes it.
        receipt.lease.chars().take(LEASE_SHOWN_CHARS).collect::<String>(),
    )
}

/// The closed list's name of a verdict.
pub fn verdict_name(verdict: &Verdict) -> String {
    kind_name(verdict.kind())
}

/// The closed list's name of a kind.
pub fn kind_name(kind: VerdictKind) -> String {
    kind.as_str_name().trim_start_matches("VERDICT_KIND_").to_owned()
}

/// Bytes in base64 where JSON cannot show them as text; else null, since the text beside it is all of them.
pub fn base64_if_binary(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).err().map(|_| BASE64.encode(bytes))
}

/// A verdict for programs.
pub fn verdict(found: &Verdict) -> Value {
    json!({
        "kind": verdict_name(found), "message": found.message, "limit": found.limit, "seen": found.seen,
        "setting": found.setting, "level": found.level, "error_id": found.error_id, "refused_syscalls": found.refused_syscalls,
        "function_error": String::from_utf8_lossy(&found.function_error),
        "function_error_base64": base64_if_binary(&found.function_error),
        "stdout_tail": String::from_utf8_lossy(&found.stdout_tail),
        "stdout_tail_base64": base64_if_binary(&found.stdout_tail),
        "log_tail": String::from_utf8_lossy(&found.log_tail), "platform_lines": found.platform_lines,
        "log_reaches_back": found.log_reaches_back,
        "receipt": found.receipt.as_ref().map(receipt),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cell_makes_no_row_and_drives_no_terminal() {
        let rows = [vec!["a\nb\u{202e}".to_owned(), "\u{1b}[2J".to_owned()], vec!["c".to_owned(), "d".to_owned()]];
        assert_eq!(table(&["X", "Y"], &rows), "X             Y\na\\nb\\u{202e}  \\u{1b}[2J\nc             d");
    }

    #[test]
    fn bytes_that_are_no_text_are_whole_in_base64_and_text_is_as_it_is() {
        assert_eq!(base64_if_binary("é\0".as_bytes()), None);
        assert_eq!(base64_if_binary(&[0xff, 0, b'a']).as_deref(), Some("/wBh"));
        let found = Verdict { stdout_tail: vec![0xff].into(), ..Verdict::default() };
        let value = verdict(&found);
        assert_eq!((&value["stdout_tail"], &value["stdout_tail_base64"]), (&json!("\u{fffd}"), &json!("/w==")));
        assert_eq!((&value["function_error"], &value["function_error_base64"]), (&json!(""), &Value::Null));
    }

    #[test]
    fn columns_are_aligned_and_times_are_short() {
        let rows = [vec!["w-1".to_owned(), "idle".to_owned()], vec!["w-17".to_owned(), "x".to_owned()]];
        assert_eq!(table(&["WORKER", "STATE"], &rows), "WORKER  STATE\nw-1     idle\nw-17    x");
        assert_eq!(time(Duration::from_micros(17)), "17us");
        assert_eq!(time(Duration::from_micros(2_340)), "2.3ms");
        assert_eq!(time(Duration::from_secs(75)), "1m15s");
        assert_eq!(size(3 * 1024 * 1024 / 2), "1.5MiB");
    }
}
