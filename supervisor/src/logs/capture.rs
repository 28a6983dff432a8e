//! From a worker's bytes to records: lines are told apart, labelled with the call the worker has, and held to its rate.

use std::{
    sync::Arc,
    time::{Instant, SystemTime},
};

use super::{
    Logs,
    lines::{Line, Lines},
    rate::Rate,
    record::{Record, Source, What},
};
use crate::hex::hex;

/// One worker's way to the logs.
#[derive(Debug)]
pub struct Capture {
    logs: Arc<Logs>,
    source: Arc<Source>,
    lines: Lines,
    rate: Rate,
    request: Option<Request>,
    has_report_lines: bool,
}

/// The call a worker has.
#[derive(Debug)]
struct Request {
    id: [u8; 16],
    /// Written out when its first line comes; most calls log nothing.
    text: Option<Arc<str>>,
    is_reported: bool,
}

impl Capture {
    /// For a worker that has an owner. `per_second` in bytes.
    pub fn new(logs: Arc<Logs>, source: Source, per_second: u64, has_report_lines: bool) -> Self {
        Self {
            logs,
            source: Arc::new(source),
            lines: Lines::default(),
            rate: Rate::new(per_second, Instant::now()),
            request: None,
            has_report_lines,
        }
    }

    /// Takes in what was read.
    pub fn take_in(&mut self, bytes: &[u8]) {
        let mut lines = std::mem::take(&mut self.lines);
        let mut records = Vec::new();
        lines.take_in(bytes, |line| self.line(line, &mut records));
        self.lines = lines;
        self.logs.take_in(records);
    }

    /// Takes sublet's own lines in: they are few, and are not held to the rate.
    pub fn say(&mut self, text: &str) {
        let mut records = Vec::new();
        self.flush(&mut records);
        let request = self.request_text();
        let own = |line: &str| What::Line { text: line.to_owned(), is_cut: false, is_platform: true };
        records.extend(text.lines().map(|line| self.record(request.clone(), own(line))));
        self.logs.take_in(records);
    }

    /// The worker is given a call. What it has begun to write belongs to what was before.
    pub fn begin(&mut self, request: [u8; 16]) {
        self.end();
        self.request = Some(Request { id: request, text: None, is_reported: false });
    }

    /// The worker has no call any more.
    pub fn end(&mut self) {
        self.close();
        self.request = None;
    }

    /// Nothing more will be written; the call it was written in may still be told how it ended.
    pub fn close(&mut self) {
        let mut records = Vec::new();
        self.flush(&mut records);
        if let Some(dropped) = self.rate.untold(Instant::now()) {
            let record = self.of_now(What::Dropped(dropped));
            records.push(record);
        }
        self.logs.take_in(records);
    }

    /// Whether the call's lines START, END and REPORT are wanted, and its last two have not been made yet. They have then.
    pub fn wants_report(&mut self) -> bool {
        let reported = self.request.as_mut().map(|request| std::mem::replace(&mut request.is_reported, true));
        self.has_report_lines && reported == Some(false)
    }

    /// Whether START, END and REPORT are wanted at all.
    pub const fn has_report_lines(&self) -> bool {
        self.has_report_lines
    }

    fn flush(&mut self, records: &mut Vec<Record>) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.flush(|line| self.line(line, records));
        self.lines = lines;
    }

    fn line(&mut self, line: Line<'_>, records: &mut Vec<Record>) {
        let now = Instant::now();
        let fits = self.rate.takes(line.bytes.len(), now);
        if let Some(dropped) = self.rate.due(now) {
            let record = self.of_now(What::Dropped(dropped));
            records.push(record);
        }
        if fits {
            let request = self.request_text();
            let text = String::from_utf8_lossy(line.bytes);
            // Clients put several lines into one record this way.
            let text = if text.contains('\r') { text.replace('\r', "\n") } else { text.into_owned() };
            records.push(self.record(request, What::Line { text, is_cut: line.is_cut, is_platform: false }));
        }
    }

    fn record(&self, request: Option<Arc<str>>, what: What) -> Record {
        Record { at: SystemTime::now(), source: self.source.clone(), request, what }
    }

    fn of_now(&mut self, what: What) -> Record {
        Record { at: SystemTime::now(), source: self.source.clone(), request: self.request_text(), what }
    }

    fn request_text(&mut self) -> Option<Arc<str>> {
        let request = self.request.as_mut()?;
        Some(request.text.get_or_insert_with(|| hex(&request.id).into()).clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::rate::Dropped;

    fn capture(per_second: u64) -> (Arc<Logs>, Capture) {
        let logs = Arc::new(Logs::new(1 << 20));
        let source = crate::logs::record::tests::line("").source;
        let source = Arc::try_unwrap(source).unwrap();
        (logs.clone(), Capture::new(logs, source, per_second, true))
    }

    fn seen(logs: &Logs) -> Vec<(Option<String>, String)> {
        let records = logs.read(0).records;
        records
            .iter()
            .map(|(_, record)| (record.request.as_deref().map(str::to_owned), record.text().to_owned()))
            .collect()
    }

    #[test]
    fn lines_belong_to_the_call_they_were_written_in() {
        let (logs, mut capture) = capture(1 << 20);
        capture.take_in(b"start\nbegun before");
        capture.begin([0xab; 16]);
        capture.take_in(b"in the call\nnot en");
        capture.take_in(b"ded");
        capture.end();
        capture.take_in(b"after\n");
        let request = Some("ab".repeat(16));
        let wanted = [
            (None, "start"),
            (None, "begun before"),
            (request.clone(), "in the call"),
            (request, "not ended"),
            (None, "after"),
        ];
        assert_eq!(seen(&logs), wanted.map(|(request, text)| (request, text.to_owned())));
    }

    #[test]
    fn what_is_over_the_rate_is_counted_at_the_end_of_the_call() {
        let (logs, mut capture) = capture(100);
        capture.begin([1; 16]);
        capture.take_in(b"fits\n");
        for _ in 0..3 {
            capture.take_in(b"0123456789012345678901234567890123456789\n");
        }
        capture.say("REPORT");
        capture.end();
        let records = logs.read(0).records;
        let dropped = records.iter().filter_map(|(_, record)| match &record.what {
            What::Dropped(dropped) => Some(*dropped),
            What::Line { .. } => None,
        });
        let sum = dropped.fold(Dropped::default(), |sum, dropped| Dropped {
            lines: sum.lines + dropped.lines,
            bytes: sum.bytes + dropped.bytes,
        });
        assert_eq!(sum, Dropped { lines: 3, bytes: 120 });
        let lines: Vec<_> = records.iter().map(|(_, record)| record.text()).filter(|text| !text.is_empty()).collect();
        assert_eq!(lines, ["fits", "REPORT"], "sublet's own are not held to it");
    }

    #[test]
    fn report_is_wanted_once_for_each_call() {
        let (_logs, mut capture) = capture(100);
        assert!(!capture.wants_report(), "there is no call");
        capture.begin([1; 16]);
        assert!(capture.wants_report() && !capture.wants_report());
        capture.begin([2; 16]);
        assert!(capture.wants_report());
    }

    #[test]
    fn record_of_several_lines_is_one() {
        let (logs, mut capture) = capture(1 << 20);
        capture.take_in(b"Traceback\r  File\r\n");
        assert_eq!(seen(&logs), [(None, "Traceback\n  File".to_owned())]);
    }
}
