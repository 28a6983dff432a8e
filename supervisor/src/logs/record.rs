//! One record: a line of a log with whose it is, or what became of lines that are not there.

use std::{sync::Arc, time::SystemTime};

use serde_json::{Value, json};

use super::rate::Dropped;
use crate::timestamp::rfc3339;

/// Whose lines they are. The same for all of a worker's.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// Its tenant.
    pub tenant: String,
    /// Its function.
    pub function: String,
    /// Its sub-tenant, as operators see it.
    pub sub_tenant_hash: String,
    /// The worker.
    pub worker: String,
}

/// What a record says.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    /// A line, or a part of one.
    Line {
        /// Without its end. A client's record of several lines is one with newlines in it.
        text: String,
        /// Whether the next one goes on with it.
        is_cut: bool,
        /// Whether sublet wrote it: START, END or REPORT. No function can set this, whatever it writes.
        is_platform: bool,
    },
    /// Lines came faster than the function's `log_rate`.
    Dropped(Dropped),
}

/// A record.
#[derive(Debug, PartialEq, Eq)]
pub struct Record {
    /// When it was read.
    pub at: SystemTime,
    /// Whose it is.
    pub source: Arc<Source>,
    /// Which call the worker had, if it had one.
    pub request: Option<Arc<str>>,
    /// What it says.
    pub what: What,
}

impl Record {
    /// The line, if it is one.
    pub fn text(&self) -> &str {
        match &self.what {
            What::Line { text, .. } => text,
            What::Dropped(_) => "",
        }
    }

    /// Bytes of memory that its text holds, which may be more than it has.
    pub fn held_bytes(&self) -> usize {
        match &self.what {
            What::Line { text, .. } => text.capacity(),
            What::Dropped(_) => 0,
        }
    }

    /// As one line of JSON is made of: journald, files and `sublet logs --json` have the same.
    pub fn to_json(&self) -> Value {
        let Source { tenant, function, sub_tenant_hash, worker } = &*self.source;
        let mut value = json!({
            "at": rfc3339(self.at), "tenant": tenant, "function": function, "sub_tenant_hash": sub_tenant_hash,
            "worker": worker,
        });
        if let Some(request) = &self.request {
            value["request"] = json!(&**request);
        }
        match &self.what {
            What::Line { text, is_cut, is_platform } => {
                value["message"] = json!(text);
                // Always there, so that a reader who looks for real ones need not guess what its absence means.
                value["platform"] = json!(is_platform);
                if *is_cut {
                    value["cut"] = json!(true);
                }
            }
            What::Dropped(Dropped { lines, bytes }) => {
                value["dropped_lines"] = json!(lines);
                value["dropped_bytes"] = json!(bytes);
            }
        }
        value
    }
}

#[cfg(test)]
pub(in crate::logs) mod tests {
    use super::*;

    /// A line of nobody in particular.
    pub fn line(text: &str) -> Record {
        line_of("acme", "s-1", "w-1", text)
    }

    /// A line of somebody's worker.
    pub fn line_of(tenant: &str, sub_tenant: &str, worker: &str, text: &str) -> Record {
        let source = Source {
            tenant: tenant.into(),
            function: "f".into(),
            sub_tenant_hash: sub_tenant.into(),
            worker: worker.into(),
        };
        Record {
            at: SystemTime::UNIX_EPOCH,
            source: source.into(),
            request: Some("ab".into()),
            what: What::Line { text: text.into(), is_cut: false, is_platform: false },
        }
    }

    #[test]
    fn json_has_one_line_whatever_the_text() {
        let text = line("two\nlines \u{1b}[31m \"").to_json().to_string();
        assert!(!text.contains('\n') && !text.contains('\u{1b}'), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["message"], "two\nlines \u{1b}[31m \"");
        assert_eq!(value["at"], "1970-01-01T00:00:00Z");
        assert_eq!((&value["request"], &value["cut"]), (&json!("ab"), &Value::Null));
        let dropped = Record { what: What::Dropped(Dropped { lines: 2, bytes: 30 }), request: None, ..line("") };
        let value = dropped.to_json();
        assert_eq!((&value["dropped_lines"], &value["dropped_bytes"]), (&json!(2), &json!(30)));
        assert_eq!((&value["request"], &value["message"]), (&Value::Null, &Value::Null));
    }
}
