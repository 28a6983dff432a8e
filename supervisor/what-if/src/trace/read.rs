//! Reads rows one by one. Memory is one line, whatever the size of the trace.

use std::io::BufRead;

use super::{COLUMNS, HEADER, Outcome, Row, TIME_MAX_US, TraceError, error::shown};
use crate::token::Token;

/// Longest line in bytes, its line feed left out: three tokens, two numbers of 20 digits and the rest fit twice.
pub const LINE_MAX_BYTES: usize = 512;

/// The rows of a trace. After an error there are no more: a trace with one broken row is broken.
#[derive(Debug)]
pub struct Reader<R> {
    input: R,
    line: Vec<u8>,
    /// Of the line read last.
    number: u64,
    last_at_us: u64,
    is_over: bool,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// The trace is empty or begins otherwise.
    pub fn new(input: R) -> Result<Self, TraceError> {
        let mut reader =
            Self { input, line: Vec::with_capacity(LINE_MAX_BYTES), number: 0, last_at_us: 0, is_over: false };
        if !reader.next_line()? {
            return Err(TraceError::Empty);
        }
        if reader.line != HEADER.as_bytes() {
            return Err(TraceError::Header { found: shown(&String::from_utf8_lossy(&reader.line)) });
        }
        Ok(reader)
    }

    /// Reads a line without its line feed; false at the end.
    fn next_line(&mut self) -> Result<bool, TraceError> {
        self.line.clear();
        self.number += 1;
        let line = self.number;
        loop {
            let bytes = match self.input.fill_buf() {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(TraceError::Io { line, source }),
            };
            if bytes.is_empty() {
                return Ok(!self.line.is_empty());
            }
            // Not more is looked at than may be kept, so that a file without line feeds is refused at once.
            let room = LINE_MAX_BYTES - self.line.len();
            let seen = bytes.get(..room + 1).unwrap_or(bytes);
            let end = seen.iter().position(|byte| *byte == b'\n');
            let part = seen.get(..end.unwrap_or(seen.len())).unwrap_or_default();
            if part.len() > room {
                self.line.extend_from_slice(part);
                return Err(TraceError::LineTooLong { line, start: shown(&String::from_utf8_lossy(&self.line)) });
            }
            self.line.extend_from_slice(part);
            let used = part.len() + usize::from(end.is_some());
            self.input.consume(used);
            if end.is_some() {
                return Ok(true);
            }
        }
    }

    fn next_row(&mut self) -> Result<Option<Row>, TraceError> {
        if !self.next_line()? {
            return Ok(None);
        }
        let line = self.number;
        let text = std::str::from_utf8(&self.line).map_err(|error| not_utf8(line, &self.line, error.valid_up_to()))?;
        let row = parse(line, text)?;
        if row.at_us < self.last_at_us {
            return Err(TraceError::Backwards { line, value: row.at_us, before: self.last_at_us });
        }
        self.last_at_us = row.at_us;
        Ok(Some(row))
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    type Item = Result<Row, TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let next = self.next_row().transpose();
        self.is_over = !matches!(next, Some(Ok(_)));
        next
    }
}

fn parse(line: u64, text: &str) -> Result<Row, TraceError> {
    let mut columns = text.split(',');
    let mut next = || columns.next();
    let all = (next(), next(), next(), next(), next(), next(), next());
    let (Some(at), Some(tenant), Some(function), Some(sub_tenant), Some(service), Some(outcome), None) = all else {
        return Err(TraceError::Columns { line, found: text.split(',').count(), text: shown(text) });
    };
    Ok(Row {
        at_us: number(line, "at_us", at)?,
        tenant: name(line, "tenant", tenant)?,
        function: name(line, "function", function)?,
        sub_tenant: token(line, "sub_tenant", sub_tenant)?,
        service_us: number(line, "service_us", service)?,
        outcome: (Outcome::ALL.into_iter())
            .find(|known| known.name() == outcome)
            .ok_or_else(|| TraceError::Outcome { line, value: shown(outcome) })?,
    })
}

fn number(line: u64, column: &'static str, text: &str) -> Result<u64, TraceError> {
    // `parse` would take a sign.
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(TraceError::NotANumber { line, column, value: shown(text) });
    }
    let number = text.parse().ok().filter(|number| *number <= TIME_MAX_US);
    number.ok_or_else(|| TraceError::Overflow { line, column, value: shown(text) })
}

fn name(line: u64, column: &'static str, text: &str) -> Result<Token, TraceError> {
    if text.is_empty() { Err(TraceError::EmptyName { line, column }) } else { token(line, column, text) }
}

fn token(line: u64, column: &'static str, text: &str) -> Result<Token, TraceError> {
    Token::try_from(text).map_err(|why| TraceError::Token { line, column, value: shown(text), why })
}

fn not_utf8(line: u64, bytes: &[u8], at: usize) -> TraceError {
    let column = bytes.iter().take(at).filter(|byte| **byte == b',').count();
    let value = bytes.split(|byte| *byte == b',').nth(column).unwrap_or_default();
    let column = COLUMNS.get(column).copied().unwrap_or("beyond the last");
    TraceError::Utf8 { line, column, value: shown(&String::from_utf8_lossy(value)), at }
}
