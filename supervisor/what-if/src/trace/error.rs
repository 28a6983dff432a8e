//! What can be wrong with a trace: where, with which value, and what to do.

use std::io;

use super::{HEADER, LINE_MAX_BYTES, TIME_MAX_US};
use crate::token::TokenError;

/// Longest piece of a value that is shown, in characters.
const SHOWN_MAX_CHARS: usize = 80;

/// Why a trace is refused. Lines count from 1, the header's.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// Not one byte.
    #[error("line 1: the trace is empty; its first line must be {HEADER}")]
    Empty,
    /// The first line is another.
    #[error("line 1: {found:?} is not the header; the first line must be {HEADER}, ended by a line feed alone")]
    Header {
        /// What is there.
        found: String,
    },
    /// Too few or too many.
    #[error("line {line}: {text:?} has {found} columns and not 6; write {HEADER}, without quotes or commas in a value")]
    Columns {
        /// Where.
        line: u64,
        /// How many.
        found: usize,
        /// The row.
        text: String,
    },
    /// Something else than digits.
    #[error(
        "line {line}, column {column}: {value:?} is not a number; write whole microseconds in decimal digits alone"
    )]
    NotANumber {
        /// Where.
        line: u64,
        /// Which column.
        column: &'static str,
        /// What is there.
        value: String,
    },
    /// Over [`TIME_MAX_US`].
    #[error(
        "line {line}, column {column}: {value} is above {TIME_MAX_US}, which is ten years; count microseconds, and \
         arrivals from the start of the trace"
    )]
    Overflow {
        /// Where.
        line: u64,
        /// Which column.
        column: &'static str,
        /// What is there.
        value: String,
    },
    /// Before the row before it.
    #[error("line {line}, column at_us: {value} is before {before}, the row above it; sort the rows by at_us")]
    Backwards {
        /// Where.
        line: u64,
        /// Its arrival.
        value: u64,
        /// The arrival before it.
        before: u64,
    },
    /// No tenant, or no function.
    #[error("line {line}, column {column}: \"\" is no name; every call has a tenant and a function, write theirs")]
    EmptyName {
        /// Where.
        line: u64,
        /// Which column.
        column: &'static str,
    },
    /// A text that a trace does not hold.
    #[error("line {line}, column {column}: {value:?} {why}; write a name, or a hash in hexadecimal digits")]
    Token {
        /// Where.
        line: u64,
        /// Which column.
        column: &'static str,
        /// What is there.
        value: String,
        /// What is wrong with it.
        why: TokenError,
    },
    /// None of the outcomes.
    #[error("line {line}, column outcome: {value:?} is not known; write ok, error or crash")]
    Outcome {
        /// Where.
        line: u64,
        /// What is there.
        value: String,
    },
    /// Over [`LINE_MAX_BYTES`].
    #[error("line {line}: {start:?} and more, over {LINE_MAX_BYTES} bytes; end every row with a line feed")]
    LineTooLong {
        /// Where.
        line: u64,
        /// How it begins.
        start: String,
    },
    /// Not a text.
    #[error(
        "line {line}, column {column}: {value:?} is not UTF-8 from byte {at} of the line on; write the trace as UTF-8"
    )]
    Utf8 {
        /// Where.
        line: u64,
        /// Which column.
        column: &'static str,
        /// What is there, with the wrong bytes replaced.
        value: String,
        /// Position of the first wrong byte, from 0.
        at: usize,
    },
    /// The host's fault, not the trace's.
    #[error("line {line}: cannot read the trace; look at the file and its disk")]
    Io {
        /// Where it would have gone on.
        line: u64,
        /// Why.
        source: io::Error,
    },
}

/// A value as an error shows it: not a whole file.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX_CHARS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}
