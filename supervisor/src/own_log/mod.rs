//! What sublet itself tells its operators, on standard error.
//!
//! ```text
//!  tracing event -> level (RUST_LOG) -> [fold] by kind and function -> format -> [queue], bounded -> a thread -> stderr
//! ```
//! Nobody who tells something ever waits for whoever reads it: a pipe that is full, or a terminal that is stopped, costs
//! lines, which are counted and told once there is room again. Nor can customers make the log grow as fast as they like:
//! equal lines beyond a few are folded. Everything passes through [`printable`], so there are no colours: an escape
//! sequence in the log would be a function's.

mod fold;
pub mod queue;

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
    sync::{Arc, Mutex, PoisonError, mpsc},
    time::{Duration, SystemTime},
};

use serde_json::json;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

use self::{
    fold::{Fold, Folded},
    queue::{Lost, Queue, Source},
};
use crate::{printable, timestamp::rfc3339};

/// How long the end of the program waits for the last lines to be read.
pub const END_PATIENCE: Duration = Duration::from_secs(1);

/// How lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

impl Format {
    /// A line that is not an event of `tracing`, as if it were one.
    fn line(self, message: &str, fields: &serde_json::Value) -> String {
        let at = rfc3339(SystemTime::now());
        match self {
            Self::Text => {
                let shown = |(name, value): (&String, &serde_json::Value)| match value.as_str() {
                    Some(text) => format!(" {name}={text}"),
                    None => format!(" {name}={value}"),
                };
                let fields: String = fields.as_object().into_iter().flatten().map(shown).collect();
                format!("{at}  WARN sublet_supervisor::own_log: {message}{fields}\n")
            }
            Self::Json => {
                let mut fields = fields.clone();
                fields["message"] = json!(message);
                let event = json!({ "timestamp": at, "level": "WARN", "fields": fields, "target": "sublet_supervisor::own_log" });
                format!("{event}\n")
            }
        }
    }

    /// One event as it may be shown. In text, a line after the first is marked, so that it is not taken for an event.
    fn shown(self, line: &[u8]) -> String {
        let text = String::from_utf8_lossy(line);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        match self {
            Self::Text => text.split('\n').map(printable::log_line).collect::<Vec<_>>().join("\n    | ") + "\n",
            Self::Json => printable::json_text(text).into_owned() + "\n",
        }
    }
}

/// Makes what the queue's thread writes beside what it is given.
#[derive(Debug)]
struct Notices {
    format: Format,
    fold: Fold,
}

impl Source for Notices {
    fn shown(&self, line: &[u8]) -> Vec<u8> {
        self.format.shown(line).into_bytes()
    }

    fn lost(&self, lost: Lost) -> Vec<u8> {
        let Lost { lines, bytes } = lost;
        let message = "lines of this log were lost: they came faster than they were read";
        self.format.line(message, &json!({ "lost_lines": lines, "lost_bytes": bytes })).into_bytes()
    }

    fn due(&self) -> Vec<Vec<u8>> {
        let told = |folded: Folded| {
            let fields =
                json!({ "times": folded.times, "level": folded.level, "of": folded.of, "last": folded.message });
            self.format.line("equal lines were folded", &fields).into_bytes()
        };
        self.fold.due().into_iter().map(told).collect()
    }
}

/// The log of a running supervisor.
#[derive(Clone, Debug)]
pub struct OwnLog {
    queue: Queue,
    notices: Arc<Notices>,
    /// Where its lines go, until its thread has that.
    out: Arc<Mutex<Option<File>>>,
}

impl OwnLog {
    /// Begins to take lines for standard error, in JSON or as text; `RUST_LOG` says how much. Panics are logged in the same
    /// way. Nothing is written before [`Self::write`] or [`Self::finish`]: a process confines itself while it has one thread.
    ///
    /// # Errors
    /// There is no descriptor for it.
    pub fn start(json: bool) -> io::Result<Self> {
        let format = if json { Format::Json } else { Format::Text };
        let fold = Fold::default();
        let stderr = io::stderr().as_fd().try_clone_to_owned()?;
        let notices = Arc::new(Notices { format, fold: fold.clone() });
        let log = Self { queue: Queue::default(), notices, out: Arc::new(Mutex::new(Some(stderr.into()))) };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
        let writer = log.queue.clone();
        let layer = fmt::layer().with_ansi(false).with_writer(move || writer.clone());
        let events = tracing_subscriber::registry().with(filter).with(fold);
        // A second call keeps the first subscriber.
        match format {
            Format::Json => events.with(layer.json()).try_init().ok(),
            Format::Text => events.with(layer.compact()).try_init().ok(),
        };
        let of_panics = log.clone();
        std::panic::set_hook(Box::new(move |info| {
            let trace = std::backtrace::Backtrace::capture();
            of_panics.tell(&format!("{}{info}\n{trace}\n", printable::PREFIX));
            // It may be the last thing this process does.
            of_panics.end();
        }));
        Ok(log)
    }

    /// Writes from now on, by a thread of its own. Calls after the first do nothing.
    ///
    /// # Errors
    /// There is no thread for it.
    pub fn write(&self) -> io::Result<()> {
        match self.out.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(out) => self.queue.start(out, self.notices.clone()),
            None => Ok(()),
        }
    }

    /// Tells something that is no event.
    pub fn tell(&self, text: &str) {
        self.queue.push(text.as_bytes());
    }

    /// Tells what has been folded, and waits until all has been read, for [`END_PATIENCE`] at the longest.
    pub fn finish(&self) {
        self.notices.due().iter().for_each(|line| self.queue.push(line));
        self.end();
    }

    fn end(&self) {
        // Without a thread there is nobody who could write anything.
        if self.write().is_ok() {
            self.queue.finish(END_PATIENCE);
        }
    }
}

/// Writes to standard output, and waits for whoever reads it so long at the most.
pub fn say_within(patience: Duration, text: String) {
    let (done, is_done) = mpsc::channel();
    let write = move || {
        let written = writeln!(io::stdout(), "{text}").and_then(|()| io::stdout().flush());
        // Whoever was to read it may have gone, and whoever waited too; the callers have not.
        written.ok();
        done.send(()).ok();
    };
    if std::thread::Builder::new().name("sublet-stdout".into()).spawn(write).is_ok() {
        is_done.recv_timeout(patience).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_is_one_line_that_drives_nothing_in_text_and_the_same_value_in_json() {
        let hostile = "WARN x: what=\u{1b}]0;t\u{7}\u{202e}\nWARN forged\u{2028}\u{9b}";
        assert_eq!(
            Format::Text.shown(format!("{hostile}\n").as_bytes()),
            "WARN x: what=\\u{1b}]0;t\\u{7}\\u{202e}\n    | WARN forged\\u{2028}\\u{9b}\n"
        );
        let event = json!({ "fields": { "message": hostile } }).to_string();
        let shown = Format::Json.shown(format!("{event}\n").as_bytes());
        assert!(shown.trim_end_matches('\n').chars().all(printable::is_plain), "{shown:?}");
        let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(value["fields"]["message"], hostile);
    }

    #[test]
    fn notices_look_like_events() {
        let notices = |format| Notices { format, fold: Fold::default() };
        let lost = Lost { lines: 3, bytes: 99 };
        let text = String::from_utf8(notices(Format::Text).lost(lost)).unwrap();
        assert!(text.contains("  WARN ") && text.ends_with(" lost_bytes=99 lost_lines=3\n"), "{text}");
        let value: serde_json::Value = serde_json::from_slice(&notices(Format::Json).lost(lost)).unwrap();
        assert_eq!((&value["level"], &value["fields"]["lost_lines"]), (&json!("WARN"), &json!(3)));
    }
}
